//! Tombs: putting them, taking them back, and which of them count. Not for: what is refused before that (see `forget`).
//!
//! A tomb that was taken back may come again, with an older copy of the repository that is put over this one. So that this changes
//! nothing, another tomb says that it was taken back: one for a name that stands for the tomb's bytes. A new tomb of the same snapshot has
//! other bytes. Programs that do not know of this take it for the tomb of some snapshot that is gone.

use super::Repository;
use super::keyring::object_name;
use super::keys::now;
use crate::error::{ErrorKind, Result};
use crate::format::bounds::MAX_RECORD_OBJECT;
use crate::format::coordination::Tomb;
use crate::format::header::Kind;
use crate::format::json;
use crate::id::ObjectName;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// A tomb that opens and names its snapshot.
pub(super) struct ListedTomb {
    snapshot: ObjectName,
    stored: SystemTime,
    /// The name that it would have by its bytes.
    bytes: ObjectName,
}

/// What the tombs of a repository say together.
pub(super) struct Tombs {
    /// Snapshots that are forgotten, and since when by the store's clock.
    pub(super) counting: BTreeMap<ObjectName, SystemTime>,
    /// Snapshots whose tombs were taken back and are there again.
    pub(super) replayed: Vec<ObjectName>,
}

impl Repository {
    /// The snapshots that have a tomb which counts, and since when by the store's clock.
    pub fn tombs(&self) -> Result<BTreeMap<ObjectName, SystemTime>> {
        Ok(self.judge_tombs(&self.listed_tombs()?).counting)
    }

    /// All tombs. Only a tomb that opens and names its snapshot counts: whoever holds the store without a key must not be able to hide
    /// a snapshot by putting an empty object there. One that does not count is reported by `check`, and its snapshot stays.
    pub(super) fn listed_tombs(&self) -> Result<Vec<ListedTomb>> {
        let mut listed = Vec::new();
        self.list(ObjectKind::Tomb, &mut |object| {
            listed.push((ObjectName::parse(&object.name)?, object.stored));
            Ok(())
        })?;
        let mut tombs = Vec::new();
        for (snapshot, stored) in listed {
            match self.read_tomb(snapshot) {
                Ok((tomb, _)) if tomb.snapshot != snapshot => {}
                Ok((Tomb { undone: Some(undone), .. }, _)) => self.note_undone(undone),
                Ok((_, bytes)) => tombs.push(ListedTomb { snapshot, stored, bytes }),
                // Taken back meanwhile, or not one of ours.
                // The version byte is not authenticated either.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged | ErrorKind::Unsupported) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tombs)
    }

    /// Which of them count, by all that is known now of tombs that were taken back.
    pub(super) fn judge_tombs(&self, listed: &[ListedTomb]) -> Tombs {
        let (replayed, counting): (Vec<&ListedTomb>, Vec<&ListedTomb>) =
            listed.iter().partition(|tomb| self.is_undone(&tomb.bytes));
        Tombs {
            counting: counting.into_iter().map(|tomb| (tomb.snapshot, tomb.stored)).collect(),
            replayed: replayed.into_iter().map(|tomb| tomb.snapshot).collect(),
        }
    }

    /// A tomb, and the name that it would have by its bytes.
    fn read_tomb(&self, snapshot: ObjectName) -> Result<(Tomb, ObjectName)> {
        let key = ObjectKey::new(ObjectKind::Tomb, snapshot);
        let bytes = self.store().get(&key, MAX_RECORD_OBJECT)?;
        let name = object_name(&bytes);
        let read = self.keyring().open_record(Kind::Tomb, bytes).and_then(|body| json::decode(&body));
        read.map(|tomb| (tomb, name)).map_err(|error| error.context(format!("\"{key}\" cannot be read")))
    }

    /// What was said when a snapshot was forgotten.
    pub fn tomb(&self, snapshot: ObjectName) -> Result<Tomb> {
        self.read_tomb(snapshot).map(|(tomb, _)| tomb)
    }

    /// Forgets a snapshot: nothing counts it any more, and a prune may delete it later. Done twice, it is done.
    pub fn put_tomb(&self, snapshot: ObjectName) -> Result<()> {
        let key = ObjectKey::new(ObjectKind::Tomb, snapshot);
        let put = || {
            let (time, host) = (now(), crate::os::hostname());
            self.put_json(Kind::Tomb, &key, &Tomb { version: 1, snapshot, time, host, undone: None })
        };
        match put() {
            Err(error) if error.kind() == ErrorKind::Exists => {
                let tombs = self.judge_tombs(&self.listed_tombs()?);
                // Who put another one may have been stopped before making it durable.
                if tombs.counting.contains_key(&snapshot) {
                    return self.store().settle(std::slice::from_ref(&key));
                }
                // One that came again after it was taken back says nothing. Any other that does not count is in the way: names are
                // used once, so it cannot be replaced.
                if !tombs.replayed.contains(&snapshot) {
                    return Err(error);
                }
                self.store().delete(&key)?;
                put()
            }
            other => other,
        }
    }

    /// Takes the tomb of a snapshot back, so that it does not count should it ever come again.
    pub(crate) fn take_tomb_back(&self, snapshot: ObjectName) -> Result<()> {
        let key = ObjectKey::new(ObjectKind::Tomb, snapshot);
        match self.store().get(&key, MAX_RECORD_OBJECT) {
            Ok(bytes) => self.say_undone(object_name(&bytes))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.store().delete(&key)
    }

    /// Removes the tomb of a snapshot if it was taken back and came again; whether it was that. Only for somebody who was asked to: a
    /// new tomb may take its place at any moment, and would go as well.
    pub(crate) fn remove_replayed_tomb(&self, snapshot: ObjectName) -> Result<bool> {
        let is_replayed = self.judge_tombs(&self.listed_tombs()?).replayed.contains(&snapshot);
        if is_replayed {
            self.store().delete(&ObjectKey::new(ObjectKind::Tomb, snapshot))?;
        }
        Ok(is_replayed)
    }

    fn say_undone(&self, undone: ObjectName) -> Result<()> {
        let snapshot = stand_in(&undone);
        let (time, host) = (now(), crate::os::hostname());
        let tomb = Tomb { version: 1, snapshot, time, host, undone: Some(undone) };
        match self.put_json(Kind::Tomb, &ObjectKey::new(ObjectKind::Tomb, snapshot), &tomb) {
            // Without room it is noted on this machine alone, and in snapshots: undeleting must not fail.
            Err(error) if !matches!(error.kind(), ErrorKind::Exists | ErrorKind::Full) => return Err(error),
            _ => {}
        }
        self.note_undone(undone);
        Ok(())
    }
}

/// The name under which it is said that a tomb was taken back.
fn stand_in(undone: &ObjectName) -> ObjectName {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"firn v1 tomb taken back").update(&undone.0);
    ObjectName(*hasher.finalize().as_bytes())
}

/// What `check` says about a tomb that came again.
pub(crate) fn replayed_sentence(snapshot: &ObjectName) -> String {
    format!(
        "The tomb of the snapshot \"{snapshot}\" was taken back with \"firn undelete\", and it is there again: somebody put an older state of the repository, or a part of it, over this one. It does not count, and the snapshot stays"
    )
}
