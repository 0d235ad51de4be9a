//! `firn prune`: its arguments, and the plan and the outcome in words. Not for: which snapshots are forgotten (see `forget`).

use crate::cli::args::prune::PruneArgs;
use crate::cli::context::Context;
use crate::cli::output::text;
use crate::error::Result;
use crate::prune::{Amount, PruneOptions, PruneReport};
use serde_json::json;
use std::time::{Duration, Instant};

/// Free the space that only forgotten snapshots needed
///
/// Deletes the data of snapshots that were forgotten at least --keep-deleted ago, and what interrupted backups left behind. Packs
/// of which only a part is needed are written again if that is worth it. Backups, restores, mounts and other prunes may go on
/// meanwhile; a prune waits for backups that may rely on what it is about to delete. It can be interrupted and run again at
/// any time. Nothing is deleted if anything that snapshots need is missing, if a snapshot is hidden, or if the newest snapshot has
/// lost or rewritten most of the one before it (exit status 6).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tell what would be done, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    settings: PruneArgs,

    /// Delete even if the newest snapshot looks as if something had gone wrong
    #[arg(long)]
    yes_really: bool,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        context.watch_signals()?;
        prune(context, &repository, &self.settings.options(self.dry_run, self.yes_really, context))
    }
}

/// Prunes and tells about it.
pub(crate) fn prune(
    context: &Context,
    repository: &std::sync::Arc<crate::repository::Repository>,
    options: &PruneOptions,
) -> Result<u8> {
    let started = Instant::now();
    let progress = context.progress("prune");
    let report = crate::prune::run(repository, options, &progress, &context.stop);
    progress.finish();
    let report = report?;
    if context.output.json {
        context.print_json(&summary(&report, options.dry_run, started.elapsed()))?;
    } else {
        let words = words(&report, options, started.elapsed());
        // What is asked for is printed; what was done need not be told with --quiet.
        if options.dry_run { context.print(&words)? } else { context.tell(&words)? }
    }
    Ok(0)
}

fn packs(amount: Amount) -> String {
    format!("{} ({})", text::count(amount.packs, "pack", "packs"), text::size(amount.bytes))
}

fn words(report: &PruneReport, options: &PruneOptions, elapsed: Duration) -> String {
    let would = |done: &'static str, planned: &'static str| if options.dry_run { planned } else { done };
    let mut text = String::new();
    let mut line = |label: &str, value: String| text.push_str(&format!("{label:<21}{value}\n"));
    line("Snapshots:", format!("{} needed", report.snapshots_live));
    if !report.snapshots_dropped.is_empty() {
        line("Forgotten for good:", text::count(report.snapshots_dropped.len() as u64, "snapshot", "snapshots"));
    }
    if report.snapshots_waiting > 0 {
        let since = text::span(options.keep_deleted);
        line("Can be undeleted:", format!("{} (forgotten less than {since} ago)", report.snapshots_waiting));
    }
    line("Packs before:", packs(report.before));
    line("Nothing needed of:", packs(report.dead));
    if report.orphans.packs > 0 {
        line("In no index:", packs(report.orphans));
    }
    if report.rewritten.packs > 0 {
        let written = text::size(report.written);
        line(
            would("Written again:", "To write again:"),
            format!("{}, of which {written} are needed", packs(report.rewritten)),
        );
    }
    if report.spared.packs > 0 {
        line("Spared:", format!("{}, because a snapshot or backup needs them now", packs(report.spared)));
    }
    if report.young.packs > 0 {
        line("Left for later:", format!("{}, stored a moment ago", packs(report.young)));
    }
    if report.revoked > 0 {
        line(
            "Revoked:",
            text::count(report.revoked, "session without a sign of life", "sessions without a sign of life"),
        );
    }
    line(would("Deleted:", "To delete:"), packs(report.deleted));
    line(would("Freed:", "Would free:"), text::size(report.freed()));
    let limited = if report.is_limited { "; --max-repack kept it from falling to --max-unused" } else { "" };
    line("Unused, stays:", format!("about {}{limited}", text::size(report.unused)));
    match report.estimate {
        Some(estimate) if options.dry_run => line("Would take:", format!("about {}", text::duration(estimate))),
        _ if !options.dry_run => line("Time:", text::duration(elapsed)),
        _ => {}
    }
    text
}

fn summary(report: &PruneReport, dry_run: bool, elapsed: Duration) -> serde_json::Value {
    let amount = |amount: Amount| json!({ "packs": amount.packs, "bytes": amount.bytes });
    let names: Vec<String> = report.snapshots_dropped.iter().map(|name| name.to_string()).collect();
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "snapshots_live": report.snapshots_live,
        "snapshots_dropped": names,
        "snapshots_undeletable": report.snapshots_waiting,
        "chunks_needed": report.chunks,
        "before": amount(report.before),
        "dead": amount(report.dead),
        "orphans": amount(report.orphans),
        "repacked": amount(report.rewritten),
        "bytes_written": report.written,
        "spared": amount(report.spared),
        "young": amount(report.young),
        "deleted": amount(report.deleted),
        "bytes_freed": report.freed(),
        "bytes_unused": report.unused,
        "limited_by_max_repack": report.is_limited,
        "sessions_revoked": report.revoked,
        "index_entries_removed": report.unlisted,
        "segments_written": report.segments_written,
        "segments_removed": report.segments_removed,
        "marks_cleared": report.marks_cleared,
        "temporary_files_removed": report.temporary_files_removed,
        "estimated_duration": report.estimate.map(|estimate| estimate.as_secs_f64()),
        "total_duration": elapsed.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_does_not_claim_to_have_done_anything() {
        let amount = Amount { packs: 2, bytes: 4096 };
        let report = PruneReport {
            rewritten: amount,
            deleted: amount,
            estimate: Some(Duration::from_secs(3)),
            ..PruneReport::default()
        };
        let options = PruneOptions { dry_run: true, ..PruneOptions::default() };
        let said = words(&report, &options, Duration::ZERO);
        assert!(said.contains("To delete:") && said.contains("Would free:") && said.contains("about 3.0 s"), "{said}");
        assert!(!said.contains("max-repack"), "{said}");
        let limited = PruneReport { is_limited: true, ..report.clone() };
        assert!(words(&limited, &options, Duration::ZERO).contains("--max-repack kept it from"));
        assert!(!said.contains("Deleted") && !said.contains("Written again"), "{said}");
        let said = words(&report, &PruneOptions::default(), Duration::ZERO);
        assert!(said.contains("Deleted:") && said.contains("Freed:") && !said.contains("Would"), "{said}");
    }
}
