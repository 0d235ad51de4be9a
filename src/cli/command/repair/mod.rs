//! `firn repair`: writes again what can be made from the rest. Not for: finding out what is damaged (see `check`).

pub(in crate::cli) mod packs;
pub(in crate::cli) mod snapshots;

use crate::cli::args::select::Selection;
use crate::cli::command::repair::packs as repair_packs;
use crate::cli::command::repair::snapshots as repair_snapshots;
use crate::cli::context::Context;
use crate::cli::output::message;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::repair::{RepairOptions, RepairReport};
use serde_json::json;

/// Repair what can be repaired from what is still there
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Index(Index),
    Packs(Packs),
    Snapshots(Snapshots),
}

/// Save what can be read of damaged packs into new ones, then remove the damaged ones
///
/// Every readable block is stored again and read back. A damaged pack is removed only when everything that it held is stored
/// elsewhere and no backup runs; one that holds the only copy of something unreadable stays. Run a backup first: it stores again
/// what is still on the disk. Exit status 5: something could not be read and is nowhere else.
#[derive(Debug, clap::Args)]
pub(crate) struct Packs {
    /// Names of packs, or their first digits [default: those that were found damaged on this machine]
    #[arg(value_name = "PACK")]
    pub(in crate::cli) packs: Vec<String>,

    /// Tell what would be done, and change nothing
    #[arg(short = 'n', long)]
    pub(in crate::cli) dry_run: bool,

    /// Leave the damaged packs where they are
    #[arg(long)]
    pub(in crate::cli) keep: bool,

    /// Remove them even if a part of them cannot be read and is nowhere else
    #[arg(long, conflicts_with = "keep")]
    pub(in crate::cli) discard_lost: bool,
}

/// Write damaged snapshots anew without what is lost
///
/// In the new snapshot a file of which a part is lost has ".damaged" behind its name and zeros where bytes are missing; what is
/// lost completely is left out. "firn snapshots --json" lists all of it as issues. Old snapshots stay, unless --forget is given. Run
/// "firn check --read-data" before: damage that nobody has found is not known here. And run a backup before: what it stores again
/// is no longer lost. Exit status 5: something is lost.
#[derive(Debug, clap::Args)]
pub(crate) struct Snapshots {
    /// Which snapshots [default: all that are damaged]
    #[arg(value_name = "SNAPSHOT")]
    pub(in crate::cli) snapshots: Vec<String>,

    /// Tell what would be done, and change nothing
    #[arg(short = 'n', long)]
    pub(in crate::cli) dry_run: bool,

    /// Forget the damaged snapshots once they are written anew
    #[arg(long)]
    pub(in crate::cli) forget: bool,

    #[command(flatten)]
    pub(in crate::cli) selection: Selection,
}

/// Write the index, and copies of the config, again from what is stored
///
/// What every pack says that it holds is compared with the index, and what the index lacks is written. Nothing but damaged
/// index segments and configs is ever removed. Packs that cannot be read are named and left alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Index {
    /// Tell what would be done, and change nothing
    #[arg(short = 'n', long)]
    pub(in crate::cli) dry_run: bool,

    /// Read every block of every pack and write the whole index anew, instead of keeping what is good
    #[arg(long)]
    read_all_packs: bool,
}

impl Command {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        match self {
            Command::Index(args) => args.run(context),
            Command::Packs(args) => repair_packs::run(&args, context),
            Command::Snapshots(args) => repair_snapshots::run(&args, context),
        }
    }
}

impl Index {
    fn run(self, context: &Context) -> Result<u8> {
        let args = self;
        let repository = context.open()?;
        context.watch_signals()?;
        let threads = context.threads;
        let options =
            RepairOptions { dry_run: args.dry_run, read_all: args.read_all_packs, keep_missing: false, threads };
        let progress = context.progress("repair");
        let report = crate::repair::repair_index(&repository, &options, &progress, &context.stop);
        progress.finish();
        let report = report?;
        match context.output.json {
            true => context.print_json(&json(&report, args.dry_run))?,
            false => context.tell(&words(&report, args.dry_run))?,
        }
        for (pack, why) in &report.lost {
            let error = Error::damaged(format!("The pack \"{pack}\" cannot be read: {why}"))
                .with_hint("\"firn check\" tells which files it hits.");
            message::failure(&error, "repair index", &pack.to_string(), context.output.json);
        }
        Ok(if report.lost.is_empty() { 0 } else { ErrorKind::Damaged.exit_code() })
    }
}

fn words(report: &RepairReport, dry_run: bool) -> String {
    let (read, wrote, removed) = match dry_run {
        true => ("Read", "Would write", "Would remove"),
        false => ("Read", "Wrote", "Removed"),
    };
    let segments = |count| text::count(count, "index segment", "index segments");
    let mut text = format!(
        "{read} the contents of {} of {}\n{wrote} {} with {}, kept {}\n",
        report.scanned,
        text::count(report.packs, "pack", "packs"),
        segments(report.segments_written),
        text::count(report.chunks, "chunk", "chunks"),
        segments(report.segments_kept),
    );
    if report.segments_removed > 0 {
        text.push_str(&format!("{removed} {}\n", segments(report.segments_removed)));
    }
    for pack in &report.salvaged {
        text.push_str(&format!("Note: the pack \"{pack}\" is damaged; what could be read of it is in the index\n"));
    }
    if report.condemned > 0 {
        let packs = text::count(report.condemned, "pack", "packs");
        text.push_str(&format!("Left out {packs} that a prune is about to delete\n"));
    }
    if report.configs_written + report.configs_removed > 0 {
        text.push_str(&format!(
            "{wrote} {} of the config, {} {}\n",
            text::count(report.configs_written, "copy", "copies"),
            removed.to_lowercase(),
            report.configs_removed
        ));
    }
    text
}

fn json(report: &RepairReport, dry_run: bool) -> serde_json::Value {
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "packs": report.packs,
        "packs_scanned": report.scanned,
        "packs_indexed": report.indexed,
        "packs_salvaged": report.salvaged,
        "packs_lost": report.lost.iter().map(|(pack, _)| pack).collect::<Vec<_>>(),
        "packs_condemned": report.condemned,
        "chunks": report.chunks,
        "segments_kept": report.segments_kept,
        "segments_written": report.segments_written,
        "segments_removed": report.segments_removed,
        "configs_written": report.configs_written,
        "configs_removed": report.configs_removed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_does_not_claim_to_have_done_anything() {
        let report = RepairReport { segments_removed: 2, configs_written: 1, ..RepairReport::default() };
        let text = words(&report, true);
        assert!(text.contains("Would remove 2 index segments") && text.contains("Would write 1 copy"), "{text}");
        assert!(!text.contains("Wrote") && !text.contains("Removed"), "{text}");
        assert_eq!(json(&report, true)["dry_run"], true);
    }
}
