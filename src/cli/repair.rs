//! `firn repair`: writes again what can be made from the rest. Not for: finding out what is damaged (see `check`).

use super::context::Context;
use super::message;
use super::text;
use crate::error::{Error, ErrorKind, Result};
use crate::repair::{RepairOptions, RepairReport};
use serde_json::json;

/// Repair what can be repaired from what is still there
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Index(Index),
}

/// Write the index, and copies of the config, again from what is stored
///
/// Nothing but damaged index segments and configs is ever removed. Packs that cannot be read are named and left alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Index {
    /// Tell what would be done, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Write the whole index anew from the contents of all packs, instead of keeping what is good
    #[arg(long)]
    read_all_packs: bool,
}

impl Command {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let Command::Index(args) = self;
        let repository = context.open()?;
        context.watch_signals()?;
        let threads = context.global.threads();
        let options = RepairOptions { dry_run: args.dry_run, read_all: args.read_all_packs, threads };
        let progress = context.progress("repair");
        let report = crate::repair::repair_index(&repository, &options, &progress, &context.stop);
        progress.finish();
        let report = report?;
        match context.global.json {
            true => context.print_json(&json(&report, args.dry_run))?,
            false => context.tell(&words(&report, args.dry_run))?,
        }
        for (pack, why) in &report.lost {
            let error = Error::damaged(format!("The pack \"{pack}\" cannot be read: {why}"))
                .with_hint("\"firn check\" tells which files it hits.");
            message::warning(&error, "repair index", context.global.json);
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
