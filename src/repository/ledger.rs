//! What was verified when: for each object the time at which all its bytes were last found right. Not for: what is damaged.
//!
//! A ledger is of one place: a clone of a repository has objects of the same names, and has its own (see `cache`). And it is of the
//! objects that were read: one that was put in their place, or changed by a program, has another mark.
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

    /// When this object, if it still has this size and this mark, was last found right; in seconds since 1970.
    pub fn verified(&self, name: &ObjectName, (size, mark): (u64, u64)) -> Option<u64> {
        let value = self.database.get(&name.0)?;
        let mut input = Reader::new("verification record", &value);
        let (when, of) = (input.u64().ok()?, (input.u64().ok()?, input.u64().ok()?));
        (of == (size, mark) && when <= now()).then_some(when)
    }

    /// Remembers that all bytes of this object, which has this size and was listed with this mark before it was read, are right as of now.
    pub fn note(&self, name: &ObjectName, (size, mark): (u64, u64)) {
        let mut value = Vec::new();
        value.put_u64(now());
        value.put_u64(size);
        value.put_u64(mark);
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
        assert_eq!(ledger.verified(&name, (10, 7)), None);
        ledger.note(&name, (10, 7));
        ledger.note(&ObjectName([6; 32]), (1, 0));
        ledger.close();
        let ledger = Ledger::open(folder.path()).unwrap();
        let when = ledger.verified(&name, (10, 7));
        assert!(is_recent(when, Some(Duration::from_secs(60))) && !is_recent(when, None));
        assert!(!is_recent(when, Some(Duration::ZERO)) && !is_recent(None, Some(Duration::MAX)));
        assert_eq!(ledger.verified(&name, (11, 7)), None);
        assert_eq!(ledger.verified(&name, (10, 8)), None);
        let mut ahead = Vec::new();
        ahead.put_u64(now() + 1000);
        ahead.put_u64(10);
        ahead.put_u64(7);
        ledger.database.put(&name.0, ahead);
        assert_eq!(ledger.verified(&name, (10, 7)), None);
        ledger.note(&name, (10, 7));
        ledger.retain(|kept| *kept == name);
        assert!(ledger.verified(&name, (10, 7)).is_some() && ledger.verified(&ObjectName([6; 32]), (1, 0)).is_none());
        ledger.forget(&name);
        assert_eq!(ledger.verified(&name, (10, 7)), None);
    }
}
