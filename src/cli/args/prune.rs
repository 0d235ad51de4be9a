//! Options of every command that prunes. Not for: what a prune does with them (see `crate::prune`).

use super::amount;
use crate::cli::context::Context;
use crate::prune::PruneOptions;
use std::time::Duration;

/// How space is weighed against work; for every command that prunes.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Unused data that may stay: a share of the repository (5%), an amount (20G) or "unlimited"
    #[arg(long, value_name = "LIMIT", value_parser = amount::limit, default_value = "5%")]
    max_unused: crate::prune::Limit,

    /// Data that is written again at most in one run: a share of the repository, an amount or "unlimited"
    #[arg(long, value_name = "LIMIT", value_parser = amount::limit, default_value = "10%")]
    max_repack: crate::prune::Limit,

    /// Write no pack again: only delete those that nothing is needed of. This works on a full disk
    #[arg(long, conflicts_with_all = ["max_unused", "max_repack"])]
    no_repack: bool,

    /// Keep snapshots that were forgotten within this time, so that they can be undeleted
    #[arg(long, value_name = "DURATION", value_parser = amount::duration, default_value = "7d")]
    keep_deleted: Duration,

    /// Revoke a backup that has shown no sign of life for so long; should it still run, it fails and can be repeated
    #[arg(long, value_name = "DURATION", value_parser = amount::duration, default_value = "7d")]
    revoke_after: Duration,

    /// Give up after waiting this long for backups that run (exit status 11)
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    max_wait: Option<Duration>,
}

impl PruneArgs {
    /// What they mean for this run.
    pub(crate) fn options(&self, dry_run: bool, consent: bool, context: &Context) -> PruneOptions {
        PruneOptions {
            dry_run,
            max_unused: self.max_unused,
            max_rewrite: self.max_repack,
            rewrite: !self.no_repack,
            keep_deleted: self.keep_deleted,
            revoke_after: self.revoke_after,
            max_wait: self.max_wait,
            consent,
            threads: context.threads,
            ..PruneOptions::default()
        }
    }
}
