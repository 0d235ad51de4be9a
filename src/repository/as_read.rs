//! Which index segments of a place are as they were when they were read, by their sizes and marks. Not for: what is in them (see `index`).
//!
//! Local tables hold what segments say after these were read once. Should a segment be damaged since, this machine would not notice, and
//! whoever relies on it makes snapshots that no other machine can read.

use super::cache;
use crate::id::ObjectName;
use crate::store::Listed;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// What a listing says of an object: its size, and a number that is another one if it was changed.
type Look = (u64, u64);

/// The segments of a place. Memory: 100 bytes a segment, twice.
#[derive(Debug)]
pub(super) struct AsRead {
    path: Option<PathBuf>,
    /// Whether it matters what the store has, because something is written or deleted because of it.
    matters: bool,
    noted: HashMap<ObjectName, Look>,
    listed: HashMap<ObjectName, Look>,
    has_changed: bool,
}

impl AsRead {
    /// With what was noted before.
    pub(super) fn open(path: Option<PathBuf>, matters: bool) -> AsRead {
        let text = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let name = ObjectName::parse(words.next()?).ok()?;
            Some((name, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
        };
        let noted = text.lines().filter_map(parse).collect();
        AsRead { path, matters, noted, listed: HashMap::new(), has_changed: false }
    }

    /// Before a listing.
    pub(super) fn begin(&mut self) {
        self.listed.clear();
    }

    /// One line of it. Where a network lies between, inode numbers and times of change are not those of the objects.
    pub(super) fn listed(&mut self, name: ObjectName, object: &Listed, is_shared: bool) {
        let seconds = || object.stored.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.listed.insert(name, (object.size, if is_shared { seconds() } else { object.mark }));
    }

    /// Whether a listed segment is as it was read, or that does not matter.
    pub(super) fn is_as_read(&self, name: &ObjectName) -> bool {
        !self.matters || self.listed.get(name).is_none_or(|look| self.noted.get(name) == Some(look))
    }

    /// It was read, and is right.
    pub(super) fn note(&mut self, name: ObjectName) {
        if let Some(look) = self.listed.get(&name) {
            self.has_changed |= self.noted.insert(name, *look) != Some(*look);
        }
    }

    /// Remembers what is listed. An error is of no consequence: what is not noted is read again.
    pub(super) fn close(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| self.has_changed) else { return };
        self.noted.retain(|name, _| self.listed.contains_key(name));
        let line = |(name, (size, mark)): (&ObjectName, &Look)| format!("{name} {size} {mark}\n");
        let text: String = self.noted.iter().map(line).collect();
        drop(cache::replace(path, text.as_bytes()));
        self.has_changed = false;
    }
}
