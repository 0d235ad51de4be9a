//! Which snapshots are meant: by host, tags and paths. Not for: which of these a policy keeps (see `forget`).

use crate::format::snapshot::Snapshot;

/// Which snapshots are meant; all of them unless something is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of one of these hosts, if any are named.
    pub hosts: Vec<String>,
    /// With all tags of one of these lists, if any are given. An empty tag means to have none.
    pub tags: Vec<Vec<String>>,
    /// With all of these paths.
    pub paths: Vec<Vec<u8>>,
}

impl Filter {
    /// Whether a snapshot is meant.
    pub fn wants(&self, snapshot: &Snapshot) -> bool {
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && (self.tags.is_empty() || self.tags.iter().any(|tags| has_tags(&snapshot.tags, tags)))
            && self.paths.iter().all(|path| snapshot.paths.iter().any(|known| known.0 == *path))
    }
}

/// Whether a snapshot with these tags has all of those that are wanted. An empty one is there if there are none.
pub fn has_tags(tags: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|tag| tags.contains(tag) || (tag.is_empty() && tags.is_empty()))
}
