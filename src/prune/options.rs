//! How a prune weighs space against work, and how long it waits. Not for: what it did (see `PruneReport`).

use std::time::Duration;

/// An amount of data, or a share of the repository.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// From 0 to 1.
    Share(f64),
    /// In bytes.
    Bytes(u64),
    /// No limit.
    Unlimited,
}

impl Limit {
    pub(super) fn of(self, all: u64) -> u64 {
        match self {
            Limit::Share(share) => (all as f64 * share) as u64,
            Limit::Bytes(bytes) => bytes,
            Limit::Unlimited => u64::MAX,
        }
    }
}

/// How a prune works.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Only finds out what would be done; nothing is stored or deleted.
    pub dry_run: bool,
    /// Unused data that may stay in packs of which a part is needed.
    pub max_unused: Limit,
    /// Data that is written again at most.
    pub max_rewrite: Limit,
    /// Whether packs of which a part is needed are written again at all; without, hardly any space is needed.
    pub rewrite: bool,
    /// Snapshots that were forgotten more recently, by the store's clock, are kept.
    pub keep_deleted: Duration,
    /// Data packs under older keys than this epoch are written again, whatever the limits say.
    pub rewrite_epochs_below: Option<u16>,
    /// Pins without a sign of life for so long, by the store's clock, are revoked.
    pub revoke_after: Duration,
    /// Gives up after waiting so long for others.
    pub max_wait: Option<Duration>,
    /// Goes on where a brake would stop it.
    pub consent: bool,
    /// zstd level.
    pub level: i32,
    /// Threads that write again.
    pub threads: usize,
}

impl Default for PruneOptions {
    fn default() -> Self {
        PruneOptions {
            dry_run: false,
            max_unused: Limit::Share(0.05),
            max_rewrite: Limit::Share(0.1),
            rewrite: true,
            keep_deleted: Duration::from_secs(7 * 86_400),
            rewrite_epochs_below: None,
            revoke_after: Duration::from_secs(7 * 86_400),
            max_wait: None,
            consent: false,
            level: 3,
            threads: 2,
        }
    }
}

/// Deletes what was forgotten at once, and writes again all that is worth it.
#[cfg(test)]
pub(crate) fn thorough() -> PruneOptions {
    PruneOptions {
        keep_deleted: Duration::ZERO,
        max_unused: Limit::Bytes(0),
        max_rewrite: Limit::Unlimited,
        level: 1,
        ..PruneOptions::default()
    }
}
