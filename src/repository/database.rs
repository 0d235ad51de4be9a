//! Small mutable local state: records by key, in a sled database. The only file that names sled. Not for: anything whose loss
//! or staleness could do harm (`files` and `ledger` say what their records may cost).
//!
//! sled reports itself beta: a damaged database panics or silently lacks keys. So every record carries a checksum that its
//! key is part of, a missing record only costs a re-read, and every call runs behind `guarded`, which survives a panic,
//! throws the database away and goes on without.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const CHECKSUM: usize = 16;
/// sled's own page cache.
const SLED_CACHE: u64 = 16 << 20;

/// An open database.
#[derive(Debug)]
pub struct Database {
    database: Mutex<Option<sled::Db>>,
    broken: AtomicBool,
    path: PathBuf,
}

impl Database {
    /// Opens the database in `folder`; one that does not open is deleted and made anew, one in use by another process is
    /// left alone (`None`).
    pub fn open(folder: &Path) -> Option<Database> {
        let open = || {
            catch_unwind(AssertUnwindSafe(|| {
                sled::Config::new()
                    .path(folder)
                    .cache_capacity(SLED_CACHE)
                    .flush_every_ms(None)
                    .print_profile_on_drop(false)
                    .open()
            }))
        };
        let database = match open() {
            Ok(Ok(database)) => database,
            Ok(Err(sled::Error::Io(error))) if is_lock_conflict(&error) => return None,
            _ => {
                drop(std::fs::remove_dir_all(folder));
                open().ok()?.ok()?
            }
        };
        Some(Database { database: Mutex::new(Some(database)), broken: AtomicBool::new(false), path: folder.to_owned() })
    }

    fn guarded<T>(&self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Option<T> {
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        let database = self.database.lock().ok()?.clone()?;
        match catch_unwind(AssertUnwindSafe(|| work(&database))) {
            Ok(Ok(value)) => Some(value),
            _ => {
                self.broken.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// The value of `key`; `None` if there is none that is as it was put.
    pub fn get(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let value = self.guarded(|database| database.get(key))??;
        let (body, sum) = value.split_at_checked(value.len().checked_sub(CHECKSUM)?)?;
        (checksum(key, body) == sum).then(|| body.to_vec())
    }

    /// Replaces the value of `key`.
    pub fn put(&self, key: &[u8; 32], mut value: Vec<u8>) {
        let sum = checksum(key, &value);
        value.extend_from_slice(&sum);
        self.guarded(|database| database.insert(key, value));
    }

    /// Removes `key`. Returns whether it was there.
    pub fn remove(&self, key: &[u8; 32]) -> bool {
        self.guarded(|database| database.remove(key)).flatten().is_some()
    }

    /// Removes all keys but those that `keep` says yes to.
    pub fn retain(&self, mut keep: impl FnMut(&[u8]) -> bool) {
        self.guarded(|database| {
            for key in database.iter().keys() {
                let key = key?;
                if !keep(&key) {
                    database.remove(&key)?;
                }
            }
            Ok(())
        });
    }

    /// Makes everything durable.
    pub fn flush(&self) {
        self.guarded(|database| database.flush());
    }

    /// Makes everything durable and closes the database; a broken one is deleted.
    pub fn close(self) {
        self.flush();
        let broken = self.broken.load(Ordering::Relaxed);
        let database = self.database.into_inner().ok().flatten();
        drop(catch_unwind(AssertUnwindSafe(|| drop(database))));
        if broken {
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

fn is_lock_conflict(error: &std::io::Error) -> bool {
    // sled wraps the failed lock as "could not acquire lock on …" with kind Other.
    error.kind() == std::io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn checksum(key: &[u8; 32], body: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::keyed_hash(key, body);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_put_under_a_key_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        database.put(&[1; 32], b"one".to_vec());
        database.put(&[2; 32], Vec::new());
        assert_eq!(database.get(&[1; 32]).as_deref(), Some(&b"one"[..]));
        assert_eq!(database.get(&[2; 32]).as_deref(), Some(&b""[..]));
        // A record under another key, as a confused tree might return it.
        let stolen = database.guarded(|inner| inner.get([1; 32])).unwrap().unwrap();
        database.guarded(|inner| inner.insert([3; 32], stolen));
        assert_eq!(database.get(&[3; 32]), None);
        database.retain(|key| key == [2; 32]);
        assert_eq!((database.get(&[1; 32]), database.get(&[2; 32])), (None, Some(Vec::new())));
        database.close();
    }
}
