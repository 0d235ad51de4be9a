//! What a prune did, in numbers. Not for: words about it (see `cli`).

use crate::id::ObjectName;
use std::time::Duration;

/// Number and bytes of packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What a prune did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Snapshots whose chunks are needed.
    pub snapshots_live: u64,
    /// Forgotten snapshots that are deleted for good.
    pub snapshots_dropped: Vec<ObjectName>,
    /// Forgotten snapshots that were forgotten too recently.
    pub snapshots_waiting: u64,
    /// Distinct chunks that are needed.
    pub chunks: u64,
    /// All packs before.
    pub before: Amount,
    /// Packs in which nothing is needed.
    pub dead: Amount,
    /// Packs that no index named.
    pub orphans: Amount,
    /// Packs of which what is needed is written again.
    pub rewritten: Amount,
    /// Bytes that were (or, on a dry run, would be, at most) written again.
    pub written: u64,
    /// Condemned packs that turned out to be needed and stay.
    pub spared: Amount,
    /// Condemned packs that stay for now because they were stored a moment ago, in a place where listings may be old.
    pub young: Amount,
    /// Packs that are deleted.
    pub deleted: Amount,
    /// Unused bytes that stay in packs, estimated.
    pub unused: u64,
    /// The limit for what is written again kept them above the limit for what is unused.
    pub is_limited: bool,
    /// There was no room to write packs again, so those that were to be stay as they are.
    pub is_full: bool,
    /// Sessions that were waited for in vain and may no longer commit.
    pub revoked: u64,
    /// Index entries of packs that are not stored, which are gone.
    pub unlisted: u64,
    /// Index segments that were written and removed.
    pub segments_written: u64,
    /// Index segments that were removed.
    pub segments_removed: u64,
    /// Marks of stopped prunes that were cleared away.
    pub marks_cleared: u64,
    /// Temporary files of stopped writers that were cleared away.
    pub temporary_files_removed: u64,
    /// On a dry run: how long writing again would take, measured with a part of it.
    pub estimate: Option<Duration>,
}

impl PruneReport {
    /// Bytes of packs that are free afterwards.
    pub fn freed(&self) -> u64 {
        self.deleted.bytes.saturating_sub(self.written)
    }
}
