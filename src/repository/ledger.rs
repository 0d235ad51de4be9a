//! What was verified when: for each object the time at which all its bytes were last found right. Not for: what is damaged.
//!
//! Kept in a local database that is never trusted for safety (see `database`): a lost record costs one more reading, and a
//! wrong one can do no more than postpone a reading by the age that was asked for, since it says a time and not "good".
//! A time that lies ahead counts as none, and so does a record of another size.

use super::database::Database;
use crate::format::bytes::{Put, Reader};
use crate::id::ObjectName;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// After so many new records they are made durable, so that a run that is killed does not begin from the start.
const FLUSH_EVERY: u32 = 64;

/// The remembered times of one place.
#[derive(Debug)]
pub struct Ledger {
    database: Database,
    pending: AtomicU32,
}

impl Ledger {
    /// Opens the ledger in `folder`; `None` if another process uses it.
    pub fn open(folder: &Path) -> Option<Ledger> {
        Some(Ledger { database: Database::open(folder)?, pending: AtomicU32::new(0) })
    }

    /// When this object, if it still has `size` bytes, was last found right; in seconds since 1970.
    pub fn verified(&self, name: &ObjectName, size: u64) -> Option<u64> {
        let value = self.database.get(&name.0)?;
        let mut input = Reader::new("verification record", &value);
        let (when, of) = (input.u64().ok()?, input.u64().ok()?);
        (of == size && when <= now()).then_some(when)
    }

    /// Remembers that all `size` bytes of this object are right as of now.
    pub fn note(&self, name: &ObjectName, size: u64) {
        let mut value = Vec::new();
        value.put_u64(now());
        value.put_u64(size);
        self.database.put(&name.0, value);
        if self.pending.fetch_add(1, Ordering::Relaxed) % FLUSH_EVERY == FLUSH_EVERY - 1 {
            self.database.flush();
        }
    }

    /// Forgets that an object was ever right.
    pub fn forget(&self, name: &ObjectName) {
        self.database.remove(&name.0);
    }

    /// Forgets all objects but those that `keep` says yes to.
    pub fn retain(&self, mut keep: impl FnMut(&ObjectName) -> bool) {
        self.database.retain(|key| <[u8; 32]>::try_from(key).is_ok_and(|name| keep(&ObjectName(name))));
    }

    /// Makes everything durable.
    pub fn close(self) {
        self.database.close();
    }
}

/// Whether something verified at `when` is younger than `age`.
pub fn is_recent(when: Option<u64>, age: Option<Duration>) -> bool {
    matches!((when, age), (Some(when), Some(age)) if now().saturating_sub(when) < age.as_secs())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_for_the_same_size_only_and_never_from_the_future() {
        let folder = tempfile::tempdir().unwrap();
        let name = ObjectName([5; 32]);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.verified(&name, 10), None);
        ledger.note(&name, 10);
        ledger.note(&ObjectName([6; 32]), 1);
        ledger.close();
        let ledger = Ledger::open(folder.path()).unwrap();
        let when = ledger.verified(&name, 10);
        assert!(is_recent(when, Some(Duration::from_secs(60))) && !is_recent(when, None));
        assert!(!is_recent(when, Some(Duration::ZERO)) && !is_recent(None, Some(Duration::MAX)));
        assert_eq!(ledger.verified(&name, 11), None);
        let mut ahead = Vec::new();
        ahead.put_u64(now() + 1000);
        ahead.put_u64(10);
        ledger.database.put(&name.0, ahead);
        assert_eq!(ledger.verified(&name, 10), None);
        ledger.note(&name, 10);
        ledger.retain(|kept| *kept == name);
        assert!(ledger.verified(&name, 10).is_some() && ledger.verified(&ObjectName([6; 32]), 1).is_none());
        ledger.forget(&name);
        assert_eq!(ledger.verified(&name, 10), None);
    }
}
