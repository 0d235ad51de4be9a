//! `firn check`: is the repository whole? Not for: mending it (see `repair`).

use crate::check::{CheckOptions, CheckReport, Finding, Severity, Subset};
use crate::cli::args::amount;
use crate::cli::args::select::Selection;
use crate::cli::context::Context;
use crate::cli::output::finding::{exit_code, json, words};
use crate::cli::output::text;
use crate::error::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// Check that everything in the repository is there and undamaged
///
/// Reads and verifies all metadata, and sees that every pack is there with its size. With --read-data, or an option that
/// chooses a part of the data, stored data is read and verified as well; what was found right is remembered, and packs that
/// were not read for the longest time come first. Every damage is told with the files it hits. Exit status 4: there is damage
/// that can be repaired; 5: something is lost.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "verify")]
pub(crate) struct Args {
    /// Check only what these snapshots need [default: all snapshots]
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    /// Read and verify all data as well
    #[arg(long)]
    read_data: bool,

    /// Read and verify a part of the data: "2/7" (that part, by names), "5%" or "20G" (packs not read for the longest time)
    #[arg(long, value_name = "PART", value_parser = amount::subset, conflicts_with = "read_data")]
    read_data_subset: Option<Subset>,

    /// Stop cleanly after this long (for example 30m, 8h); data is read as long as there is time, and the next run goes on
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    max_time: Option<Duration>,

    /// Leave out data that was found right within this time (for example 30d)
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    max_age: Option<Duration>,

    #[command(flatten)]
    selection: Selection,
}

impl Args {
    /// Also asking for a time or an age means that data is read.
    fn reads_data(&self) -> bool {
        self.read_data || self.read_data_subset.is_some() || self.max_age.is_some() || self.max_time.is_some()
    }

    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let started = Instant::now();
        let repository = context.open()?;
        context.watch_signals()?;
        let options = CheckOptions {
            read_data: self.reads_data(),
            threads: context.threads,
            subset: self.read_data_subset,
            max_age: self.max_age,
            deadline: self.max_time.and_then(|time| started.checked_add(time)),
            snapshots: context.choose_all(&repository, &self.snapshots, &self.selection)?,
        };
        let progress = context.progress("check");
        let report = crate::check::run(&repository, &options, &progress, &context.stop);
        progress.finish();
        let report = report?;
        let (notes, wrong): (Vec<&Finding>, Vec<&Finding>) =
            report.findings.iter().partition(|finding| finding.severity == Severity::Note);
        if context.output.json {
            for finding in &report.findings {
                context.print_json(&json(finding))?;
            }
            let errors = wrong.len() as u64;
            context.print_json(&summary(&report, errors, started.elapsed().as_secs_f64()))?;
            return Ok(exit_code(report.worst()));
        }
        context.tell(&notes.iter().map(|finding| words(finding)).collect::<String>())?;
        // What was found is the answer to the question, so it goes where answers go.
        context.print(&wrong.iter().map(|finding| words(finding)).collect::<String>())?;
        context.tell(&conclusion(&report, &options, wrong.len() as u64))?;
        Ok(exit_code(report.worst()))
    }
}

fn conclusion(report: &CheckReport, options: &CheckOptions, wrong: u64) -> String {
    let mut text = format!(
        "Checked {}, {}, {} and {}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::count(report.tree_pages, "tree page", "tree pages"),
        text::count(report.chunks, "reference to a chunk", "references to chunks"),
        text::count(report.packs, "pack", "packs"),
    );
    let packs = |number| text::count(number, "pack", "packs");
    text.push_str(&format!("; read all of {} ({})\n", packs(report.packs_read), text::size(report.bytes_read)));
    if report.packs_recent > 0 {
        text.push_str(&format!("Left out {}, verified within --max-age\n", packs(report.packs_recent)));
    }
    if report.snapshots_left > 0 {
        let left = text::count(report.snapshots_left, "snapshot", "snapshots");
        text.push_str(&format!("The time was over before {left} could be checked\n"));
    }
    if report.packs_left > 0 {
        let left = packs(report.packs_left);
        text.push_str(&format!(
            "The time was over before {left} could be read; the next run begins with what waits longest\n"
        ));
    }
    let is_cut_short = report.packs_left + report.snapshots_left > 0;
    if is_cut_short && wrong == 0 && report.snapshots + report.packs_read == 0 {
        return text;
    }
    if report.packs_locked > 0 {
        let locked = packs(report.packs_locked);
        text.push_str(&format!("The key in use does not open {locked}, so nothing is known of what is in there\n"));
    }
    match (wrong, options.read_data) {
        (0, _) if report.packs_locked > 0 => {
            text.push_str("All that this key opens is there, and what was read is undamaged\n")
        }
        (0, _) if is_cut_short => text.push_str("All that was looked at is there and undamaged\n"),
        (0, true) if options.is_whole() => text.push_str("Everything is there and undamaged\n"),
        (0, true) => text.push_str("Everything that was to be checked is there, and what was read is undamaged\n"),
        (0, false) => text.push_str("Everything is there; the data itself was not read (see --read-data)\n"),
        (number, _) => text.push_str(&format!("Found {}\n", text::count(number, "thing wrong", "things wrong"))),
    }
    text
}

/// With restic's names where they mean the same.
fn summary(report: &CheckReport, errors: u64, seconds: f64) -> serde_json::Value {
    json!({
        "message_type": "summary",
        "error_count": errors,
        "repairable": report.worst() == Some(Severity::Repairable),
        "snapshots": report.snapshots,
        "segments": report.segments,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "tree_pages": report.tree_pages,
        "chunk_references": report.chunks,
        "bytes_read": report.bytes_read,
        "packs_recent": report.packs_recent,
        "packs_locked": report.packs_locked,
        "packs_left": report.packs_left,
        "snapshots_left": report.snapshots_left,
        "complete": report.packs_left + report.snapshots_left == 0,
        "total_duration": seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_was_cut_short_does_not_claim_everything() {
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        let whole = conclusion(&CheckReport::default(), &options, 0);
        assert!(whole.ends_with("Everything is there and undamaged\n"), "{whole}");
        let short = CheckReport { packs_left: 3, snapshots: 1, ..CheckReport::default() };
        let text = conclusion(&short, &options, 0);
        assert!(text.contains("before 3 packs could be read") && text.contains("All that was looked at"), "{text}");
        assert_eq!(summary(&short, 0, 1.0)["complete"], false);
        let part = CheckOptions { subset: Some(Subset::Part { part: 1, of: 2 }), ..options.clone() };
        assert!(!conclusion(&CheckReport::default(), &part, 0).contains("Everything is there and undamaged"));
        // No age leaves nothing out.
        for (seconds, is_all) in [(0, true), (1, false)] {
            let age = CheckOptions { max_age: Some(Duration::from_secs(seconds)), ..options.clone() };
            let text = conclusion(&CheckReport::default(), &age, 0);
            assert_eq!(text.contains("Everything is there and undamaged"), is_all, "{text}");
        }
    }
}
