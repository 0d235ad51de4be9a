//! What was seen of a repository that an older state of the store must not take back: the newest key epoch, and tombs that were taken
//! back. Not for: snapshots that are gone (see `missing`).
//!
//! The state of the store is not all that is known of it: this machine notes in its local state what it has seen, and every snapshot
//! says what its writer had seen. Without both, slots and tombs of an older state are as good as any. What only a
//! pack's header says does not count: whoever holds the store without a key could write it.

use super::Repository;
use super::cache;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_UNDONE;
use crate::format::snapshot::Seen;
use crate::id::ObjectName;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The longest note that is read.
const MAX_NOTE: u64 = 2 << 20;
/// Tombs that were taken back and are kept in mind; each stands for an undelete.
const MAX_KEPT: usize = 10_000;
/// What the notes' hashes are made with.
const EPOCH_NOTE: &str = "firn v1 noted key epoch";
const UNDONE_NOTE: &str = "firn v1 noted tombs";

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Memory {
    seen: Mutex<State>,
    /// The owner knows that the key slots are older than what was seen, and wants to go on.
    accepts_older_keys: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    is_read: bool,
    /// The newest key epoch, and the ids of its secrets, one of which must be held.
    epoch: u16,
    secrets: Vec<String>,
    /// The newest one that a snapshot tells of.
    told: Option<(u16, ObjectName)>,
    undone: BTreeSet<ObjectName>,
}

impl Repository {
    /// A note of the local state. One that was damaged says nothing.
    pub(super) fn read_note(&self, path: &Path, context: &'static str) -> Option<String> {
        let mut text = String::new();
        std::fs::File::open(path).and_then(|file| file.take(MAX_NOTE).read_to_string(&mut text)).ok()?;
        let (hash, text) = text.split_once('\n')?;
        (hash == self.note_hash(context, text)).then(|| text.to_owned())
    }

    /// Replaces a note. It is a help, so an error is none.
    pub(super) fn write_note(&self, path: &Path, context: &'static str, text: &str) {
        let text = format!("{}\n{text}", self.note_hash(context, text));
        drop(cache::replace(path, text.as_bytes()));
    }

    fn note_hash(&self, context: &'static str, text: &str) -> String {
        let key = self.keyring().local_secret(context);
        crate::id::to_hex(&crate::chunk::secret::keyed_hash(&key, &[text.as_bytes()]))
    }

    /// What is known, with what the local state says.
    fn memory(&self) -> MutexGuard<'_, State> {
        let mut state = self.memory.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_read {
            state.is_read = true;
            if let Some(text) = self.read_note(&self.cache().epoch(), EPOCH_NOTE) {
                let ids: Vec<String> = text.lines().map(str::to_owned).collect();
                let epoch = ids.first().and_then(|id| id.split_once(':')?.0.parse().ok());
                (state.epoch, state.secrets) = (epoch.unwrap_or(0), ids);
            }
            let text = self.read_note(&self.cache().undone(), UNDONE_NOTE).filter(|_| !is_replayed());
            let text = text.unwrap_or_default();
            state.undone.extend(text.lines().filter_map(|line| ObjectName::parse(line).ok()).take(MAX_KEPT));
        }
        state
    }

    /// Notes the epoch under which the keys in use seal, if it is newer than what was noted.
    pub(super) fn note_epoch(&self, keyring: &super::keyring::Keyring) {
        let epoch = keyring.newest_epoch();
        let ids = keyring.secret_ids(epoch);
        let mut state = self.memory();
        let is_same = epoch == state.epoch && ids.iter().all(|id| state.secrets.contains(id));
        if ids.is_empty() || epoch < state.epoch || is_same {
            return;
        }
        if epoch > state.epoch {
            state.secrets.clear();
        }
        state.epoch = epoch;
        state.secrets.extend(ids);
        state.secrets.sort();
        state.secrets.dedup();
        let text: String = state.secrets.iter().map(|id| format!("{id}\n")).collect();
        self.write_note(&self.cache().epoch(), EPOCH_NOTE, &text);
    }

    /// The newest key epoch that was seen.
    pub(super) fn newest_epoch_seen(&self) -> u16 {
        let state = self.memory();
        state.epoch.max(state.told.map_or(0, |(epoch, _)| epoch)).max(self.keyring().newest_epoch())
    }

    /// Who has seen the newest epoch, and what that means, if the keys in use do not hold its secret.
    fn lost_epoch(&self) -> Option<Error> {
        let held = self.keyring().newest_epoch();
        let state = self.memory();
        let holds_noted = || {
            let ids = self.keyring().secret_ids(state.epoch);
            state.secrets.is_empty() || ids.iter().any(|id| state.secrets.contains(id))
        };
        if state.epoch > held || (state.epoch == held && !holds_noted()) {
            return Some(set_back(&format!("This machine has seen key epoch {}", state.epoch), held));
        }
        let (epoch, name) = state.told?;
        (epoch > held).then(|| {
            let who = format!("The snapshot \"{name}\" tells of key epoch {epoch}");
            match self.keyring().is_elsewhere(epoch) {
                true => outdated(&who),
                false => set_back(&who, held),
            }
        })
    }

    /// A warning if the keys in use are older than what was seen; notes them if not. Slots that a listing did not show yet are
    /// looked for.
    pub(super) fn older_keys(&self) -> Option<Error> {
        if self.lost_epoch().is_some() {
            self.keyring().renew();
        }
        let lost = self.lost_epoch();
        if lost.is_none() {
            self.note_epoch(self.keyring());
        }
        lost
    }

    /// An error if the keys in use are older than what was seen of this repository, since what is sealed now could be read with keys that
    /// were removed since: of kind `WrongKey` if another key slot holds the newer secret, else `Brake`.
    pub fn check_keys_are_newest(&self) -> Result<()> {
        match self.memory.accepts_older_keys.load(Ordering::Acquire) {
            true => Ok(()),
            false => self.older_keys().map_or(Ok(()), Err),
        }
    }

    /// What `check` has to say about the keys in use, if they are older than what was seen.
    pub fn keys_set_back(&self) -> Option<Error> {
        self.older_keys()
    }

    /// Goes on though the keys in use are older than what was seen. For a rotation, which makes a newer one.
    pub fn accept_older_keys(&self) {
        self.memory.accepts_older_keys.store(true, Ordering::Release);
    }

    /// Takes in what a snapshot tells.
    pub(super) fn note_seen(&self, name: ObjectName, seen: &Seen) {
        let mut state = self.memory();
        if seen.epoch > state.told.map_or(0, |(epoch, _)| epoch) {
            state.told = Some((seen.epoch, name));
        }
        drop(state);
        seen.undone.iter().for_each(|undone| self.note_undone(*undone));
    }

    /// What a snapshot that is made now tells.
    pub fn seen(&self) -> Seen {
        let epoch = self.newest_epoch_seen();
        Seen { epoch, undone: self.memory().undone.iter().take(MAX_UNDONE).copied().collect() }
    }

    /// Keeps in mind that a tomb with these bytes was taken back.
    pub(super) fn note_undone(&self, undone: ObjectName) {
        let mut state = self.memory();
        if state.undone.len() < MAX_KEPT && state.undone.insert(undone) && !is_replayed() {
            let text: String = state.undone.iter().map(|name| format!("{name}\n")).collect();
            self.write_note(&self.cache().undone(), UNDONE_NOTE, &text);
        }
    }

    /// Whether a tomb with these bytes was taken back.
    pub(super) fn is_undone(&self, bytes: &ObjectName) -> bool {
        self.memory().undone.contains(bytes)
    }
}

/// Whether random numbers come again, so that a new tomb has the bytes of one that was taken back in another run.
fn is_replayed() -> bool {
    #[cfg(test)]
    if crate::id::random::seeded::current().is_some() {
        return true;
    }
    false
}

fn outdated(who: &str) -> Error {
    let message = format!("{who} of this repository, which the key in use does not hold; nothing was changed");
    Error::new(ErrorKind::WrongKey, message).with_hint(super::keyring::OTHER_KEY)
}

fn set_back(who: &str, held: u16) -> Error {
    Error::new(
        ErrorKind::Brake,
        format!("{who} of this repository, and no key slot that opens holds a secret of it: somebody has put older key slots back. What is stored now would be sealed under key epoch {held}, and keys that were removed since open that"),
    )
    .with_hint(
        "Put the newer key slots back into the folder \"keys\" of the repository, or use a key that was made since. If there is none any more, \"firn key rotate --yes-really\" makes a newer key epoch.",
    )
}
