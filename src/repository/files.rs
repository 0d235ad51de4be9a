//! The files cache: what each directory's files looked like when they were last read, so that unchanged ones are not read again.
//! The only file that names sled. Not for: anything whose loss or staleness could do harm: every chunk that a record
//! names is looked up in the index before it is relied on.
//!
//! sled reports itself beta: a damaged database panics or silently lacks keys. So every record carries its key and a
//! checksum, a missing record only costs a re-read, and every call runs behind `guarded`, which survives a panic, throws
//! the database away and goes on without.

use crate::chunk::secret::Secret;
use crate::format::bytes::{Put, Reader};
use crate::format::tree::{Content, Extent, Timestamp};
use crate::id::ChunkId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Files in one record; a larger directory has several. Bounds what is held for one directory to about 1 MiB.
pub const RECORD_FILES: usize = 2048;
const CHECKSUM: usize = 16;
/// sled's own page cache.
const SLED_CACHE: u64 = 16 << 20;

/// What a file looked like, and what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// Name in its directory.
    pub name: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Last modification.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Inode number.
    pub inode: u64,
    /// Where its bytes are stored.
    pub content: Content,
    /// `blocks` override of its entry.
    pub blocks: Option<u64>,
    /// All its file flags; without the open file only some of them can be told. A change of them is one of `ctime`.
    pub flags: u32,
}

/// Whether the database could be used.
#[derive(Debug)]
pub struct FilesCache {
    database: Mutex<Option<sled::Db>>,
    broken: AtomicBool,
    path: PathBuf,
    key: Secret,
}

impl FilesCache {
    /// Opens the database in `folder`; one that does not open is deleted and made anew, one in use by another process is
    /// left alone (`None`), and this run reads all files.
    pub fn open(folder: &Path, key: Secret) -> Option<FilesCache> {
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
        Some(FilesCache {
            database: Mutex::new(Some(database)),
            broken: AtomicBool::new(false),
            path: folder.to_owned(),
            key,
        })
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

    fn record_key(&self, directory: &[u8], number: u32) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(self.key.bytes());
        hasher.update(&number.to_le_bytes()).update(directory);
        *hasher.finalize().as_bytes()
    }

    /// Record `number` (from 0) of a directory, its files sorted by name; `None` if there is none that can be trusted.
    pub fn get(&self, directory: &[u8], number: u32) -> Option<Vec<CachedFile>> {
        let key = self.record_key(directory, number);
        let value = self.guarded(|database| database.get(key))??;
        decode(&key, &value)
    }

    /// Replaces record `number` of a directory.
    pub fn put(&self, directory: &[u8], number: u32, files: &[CachedFile]) {
        let key = self.record_key(directory, number);
        let value = encode(&key, files);
        self.guarded(|database| database.insert(key, value));
    }

    /// Removes record `number`, so that a directory that shrank leaves nothing behind. Returns whether there was one.
    pub fn remove(&self, directory: &[u8], number: u32) -> bool {
        let key = self.record_key(directory, number);
        self.guarded(|database| database.remove(key)).flatten().is_some()
    }

    /// Makes everything durable and closes the database; a broken one is deleted.
    pub fn close(self) {
        self.guarded(|database| database.flush());
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

fn encode(key: &[u8; 32], files: &[CachedFile]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(files.len() as u64);
    for file in files {
        out.put_varint(file.name.len() as u64);
        out.extend_from_slice(&file.name);
        out.put_varint(file.size);
        for time in [file.mtime, file.ctime] {
            out.put_svarint(time.seconds);
            out.put_varint(u64::from(time.nanos));
        }
        out.put_varint(file.inode);
        out.put_varint(file.blocks.map_or(0, |blocks| blocks.saturating_add(1)));
        out.put_varint(u64::from(file.flags));
        match &file.content {
            Content::Inline(bytes) => {
                out.put_u8(0);
                out.put_varint(bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Content::Extents(extents) => {
                out.put_u8(1);
                out.put_varint(extents.len() as u64);
                for extent in extents {
                    encode_extent(&mut out, extent);
                }
            }
            Content::List(id) => {
                out.put_u8(2);
                out.extend_from_slice(&id.0);
            }
        }
    }
    let mut value = out;
    let sum = checksum(key, &value);
    value.extend_from_slice(&sum);
    value
}

fn encode_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Hole(length) => {
            out.put_u8(0);
            out.put_varint(*length);
        }
        Extent::Chunk { id, len } => {
            out.put_u8(1);
            out.put_varint(u64::from(*len));
            out.extend_from_slice(&id.0);
        }
    }
}

fn decode(key: &[u8; 32], value: &[u8]) -> Option<Vec<CachedFile>> {
    let (body, sum) = value.split_at_checked(value.len().checked_sub(CHECKSUM)?)?;
    if checksum(key, body) != sum {
        return None;
    }
    let mut input = Reader::new("files cache record", body);
    decode_files(&mut input).ok()
}

fn decode_files(input: &mut Reader<'_>) -> crate::error::Result<Vec<CachedFile>> {
    let count = input.varint()?;
    let mut files = Vec::with_capacity((count as usize).min(RECORD_FILES));
    for _ in 0..count {
        let length = input.varint()? as usize;
        let name = input.bytes(length)?.to_vec();
        let size = input.varint()?;
        let mtime = Timestamp { seconds: input.svarint()?, nanos: input.varint()? as u32 };
        let ctime = Timestamp { seconds: input.svarint()?, nanos: input.varint()? as u32 };
        let inode = input.varint()?;
        let blocks = input.varint()?.checked_sub(1);
        let flags = input.varint()? as u32;
        let content = match input.u8()? {
            0 => {
                let length = input.varint()? as usize;
                Content::Inline(input.bytes(length)?.to_vec())
            }
            1 => {
                let mut extents = Vec::new();
                for _ in 0..input.varint()? {
                    extents.push(match input.u8()? {
                        0 => Extent::Hole(input.varint()?),
                        _ => {
                            let len = input.varint()? as u32;
                            Extent::Chunk { id: ChunkId(input.array()?), len }
                        }
                    });
                }
                Content::Extents(extents)
            }
            _ => Content::List(ChunkId(input.array()?)),
        };
        files.push(CachedFile { name, size, mtime, ctime, inode, content, blocks, flags });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Secret {
        Secret::from_bytes(&[1; 32])
    }

    fn file(n: u8) -> CachedFile {
        let time = Timestamp { seconds: -5, nanos: 7 };
        let content = match n % 3 {
            0 => Content::Inline(vec![n; 5]),
            1 => Content::Extents(vec![Extent::Hole(9), Extent::Chunk { id: ChunkId([n; 32]), len: 77 }]),
            _ => Content::List(ChunkId([n; 32])),
        };
        CachedFile {
            name: vec![n, b'x'],
            size: 86,
            mtime: time,
            ctime: time,
            inode: 12,
            content,
            blocks: (n > 3).then_some(0),
            flags: u32::from(n) << 28 | 1,
        }
    }

    #[test]
    fn records_come_back_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files");
        let files: Vec<_> = (0..9).map(file).collect();
        let cache = FilesCache::open(&path, key()).unwrap();
        assert_eq!(cache.get(b"/a", 0), None);
        cache.put(b"/a", 0, &files);
        cache.close();
        let cache = FilesCache::open(&path, key()).unwrap();
        assert_eq!(cache.get(b"/a", 0), Some(files));
        assert_eq!(cache.get(b"/a", 1), None);
        assert!(cache.remove(b"/a", 0));
        assert_eq!(cache.get(b"/a", 0), None);
    }

    #[test]
    fn a_second_process_goes_without() {
        let folder = tempfile::tempdir().unwrap();
        let first = FilesCache::open(folder.path(), key()).unwrap();
        first.put(b"/a", 0, &[file(1)]);
        assert!(FilesCache::open(folder.path(), key()).is_none());
        assert_eq!(first.get(b"/a", 0), Some(vec![file(1)]));
    }

    #[test]
    fn damage_costs_records_never_the_run() {
        for at in [0usize, 20, 100, 1000, 5000] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("files");
            let cache = FilesCache::open(&path, key()).unwrap();
            for n in 0..200u32 {
                cache.put(b"/a", n, &(0..20).map(file).collect::<Vec<_>>());
            }
            cache.close();
            let database = path.join("db");
            let mut bytes = std::fs::read(&database).unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 0x55;
            std::fs::write(&database, &bytes).unwrap();
            let Some(cache) = FilesCache::open(&path, key()) else { continue };
            for n in 0..200 {
                if let Some(files) = cache.get(b"/a", n) {
                    assert_eq!(files, (0..20).map(file).collect::<Vec<_>>());
                }
            }
            cache.put(b"/b", 0, &[file(1)]);
            cache.close();
        }
    }
}
