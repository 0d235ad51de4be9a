//! The pin of a running session, and the signs of life that follow it for as long as the session lasts. Not for: judging the
//! pins of others (see `prune`).
//!
//! A prune revokes sessions that have shown no sign of life for days. A first backup over a slow line takes longer than that,
//! so a session that is at work puts another object beside its pin twice a day. No clock but the machine's own count of
//! seconds decides when; what counts for others is the time at which the store received it.

use super::Repository;
use crate::id::SessionId;
use crate::store::{ObjectKey, ObjectKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Seconds between two signs of life: a small part of the days after which a session counts as dead.
const INTERVAL: u64 = 12 * 3600;

/// The pin of one session.
#[derive(Debug)]
pub(super) struct Life {
    session: SessionId,
    begun: Instant,
    /// When the next sign is due, in seconds from the beginning.
    due: AtomicU64,
    /// Signs given so far.
    signs: Mutex<u64>,
}

impl Life {
    /// Of a session whose pin was just put, or will not be put at all.
    pub(super) fn new(session: SessionId) -> Life {
        Life { session, begun: Instant::now(), due: AtomicU64::new(INTERVAL), signs: Mutex::default() }
    }

    /// Gives a sign if one is due. Costs a look at the clock otherwise.
    pub(super) fn go_on(&self, repository: &Repository) {
        if self.begun.elapsed().as_secs() < self.due.load(Ordering::Relaxed) {
            return;
        }
        let mut signs = self.signs.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.begun.elapsed().as_secs();
        if now < self.due.load(Ordering::Relaxed) {
            return;
        }
        self.due.store(now.saturating_add(INTERVAL), Ordering::Relaxed);
        // One that fails is no reason to stop: there are more of them before anybody takes the session for dead. Its number is
        // not used again, since it may have been stored all the same.
        *signs += 1;
        drop(repository.put_sign_of_life(self.session, *signs));
    }

    /// Takes all of it away, the pin last: what is left in between only makes a prune wait.
    pub(super) fn end(&self, repository: &Repository) {
        let signs = *self.signs.lock().unwrap_or_else(PoisonError::into_inner);
        for number in 1..=signs {
            let key = ObjectKey::new(ObjectKind::Pin, format!("{}-{number}", self.session));
            drop(repository.store().delete(&key));
        }
        drop(repository.store().delete(&ObjectKey::new(ObjectKind::Pin, self.session)));
    }

    /// The next sign is due at once.
    #[cfg(test)]
    pub(super) fn hurry(&self) {
        self.due.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::id::ChunkId;
    use crate::repository::tests::{begin, new_store, open};
    use crate::store::{ObjectKind, Store};
    use std::collections::BTreeMap;

    #[test]
    fn a_session_at_work_gives_signs_of_life_and_leaves_none() {
        let store = new_store();
        let repository = open(&store);
        let listed = || {
            let mut listed = BTreeMap::new();
            let mut note = |object: crate::store::Listed| {
                listed.insert(object.name, object.stored);
                Ok(())
            };
            store.list(ObjectKind::Pin, &mut note).unwrap();
            listed
        };
        let writer = begin(&repository).unwrap();
        let session = writer.session().to_string();
        // None is due yet.
        writer.claim(&ChunkId([1; 32]), 10).unwrap();
        assert!(listed().into_keys().eq([session.clone()]));
        for number in 1..=2 {
            writer.hurry();
            writer.claim(&ChunkId([number + 1; 32]), 10).unwrap();
            writer.claim(&ChunkId([number + 10; 32]), 10).unwrap();
            assert_eq!(listed().len(), usize::from(number) + 1);
        }
        let pins = repository.pins().unwrap();
        assert_eq!(pins.len(), 1);
        assert_eq!((pins[0].session, pins[0].keys.len()), (writer.session(), 3));
        assert_eq!(pins[0].stored, listed()[&format!("{session}-2")]);
        assert!(pins[0].pin.is_some());
        writer.abandon().unwrap();
        assert_eq!(listed(), BTreeMap::new());
    }
}
