//! `firn check`: is the repository whole? Not for: mending it (see `repair`).

use super::context::Context;
use super::text;
use crate::check::{Affected, CheckOptions, CheckReport, Finding, Severity};
use crate::error::Result;
use serde_json::json;

/// Check that everything in the repository is there and undamaged
///
/// Reads and verifies all metadata, and sees that every pack is there with its size. With --read-data, every stored byte is
/// read and verified. Exit status 4: there is damage that can be repaired; 5: something is lost.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "verify")]
pub(crate) struct Args {
    /// Read and verify all data as well
    #[arg(long)]
    read_data: bool,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        context.watch_signals()?;
        let started = std::time::Instant::now();
        let progress = context.progress("check");
        let options = CheckOptions { read_data: self.read_data, threads: context.global.threads() };
        let report = crate::check::run(&repository, &options, &progress, &context.stop);
        progress.finish();
        let report = report?;
        let (notes, wrong): (Vec<&Finding>, Vec<&Finding>) =
            report.findings.iter().partition(|finding| finding.severity == Severity::Note);
        if context.global.json {
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

pub(super) fn exit_code(worst: Option<Severity>) -> u8 {
    match worst {
        None | Some(Severity::Note) => 0,
        Some(Severity::Repairable) => 4,
        Some(Severity::Lost) => 5,
    }
}

pub(super) fn words(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Note => "Note",
        Severity::Repairable => "Damage",
        Severity::Lost => "Lost",
    };
    let mut text = format!("{word}: {}\n", text::line(&finding.message));
    for Affected { snapshot, path } in &finding.affected {
        text.push_str(&format!("    {}:{}\n", snapshot.short(), text::escape(path)));
    }
    let shown = finding.affected.len() as u64;
    if finding.affected_total > shown {
        text.push_str(&format!("    and {} more\n", finding.affected_total - shown));
    }
    if let Some(hint) = &finding.hint {
        text.push_str(&format!("    Hint: {}\n", text::line(hint)));
    }
    text
}

fn conclusion(report: &CheckReport, options: &CheckOptions, wrong: u64) -> String {
    let mut text = format!(
        "Checked {}, {}, {} and {}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::count(report.tree_pages, "tree page", "tree pages"),
        text::count(report.chunks, "reference to a chunk", "references to chunks"),
        text::count(report.packs, "pack", "packs"),
    );
    let read = text::count(report.packs_read, "pack", "packs");
    text.push_str(&format!("; read all of {read} ({})\n", text::size(report.bytes_read)));
    match (wrong, options.read_data) {
        (0, true) => text.push_str("Everything is there and undamaged\n"),
        (0, false) => text.push_str("Everything is there; the data itself was not read (see --read-data)\n"),
        (number, _) => text.push_str(&format!("Found {}\n", text::count(number, "thing wrong", "things wrong"))),
    }
    text
}

pub(super) fn json(finding: &Finding) -> serde_json::Value {
    let affected: Vec<_> = finding
        .affected
        .iter()
        .map(|Affected { snapshot, path }| {
            let mut value = json!({ "snapshot_id": snapshot, "path": String::from_utf8_lossy(path) });
            if std::str::from_utf8(path).is_err() {
                value["path_base64"] = json!(text::base64(path));
            }
            value
        })
        .collect();
    json!({
        "message_type": "finding",
        "severity": finding.severity,
        "object": finding.object,
        "message": finding.message,
        "hint": finding.hint,
        "affected": affected,
        "affected_total": finding.affected_total,
    })
}

/// With restic's names where they mean the same.
fn summary(report: &CheckReport, errors: u64, seconds: f64) -> serde_json::Value {
    json!({
        "message_type": "summary",
        "num_errors": errors,
        "suggest_repair_index": report.worst() == Some(Severity::Repairable),
        "snapshots": report.snapshots,
        "segments": report.segments,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "tree_pages": report.tree_pages,
        "chunk_references": report.chunks,
        "bytes_read": report.bytes_read,
        "total_duration": seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ObjectName;

    #[test]
    fn a_finding_names_what_is_hit() {
        let finding = Finding {
            severity: Severity::Lost,
            object: "data/ab".into(),
            message: "The pack \"data/ab\" is missing".into(),
            hint: Some("Do something.".into()),
            affected: vec![Affected { snapshot: ObjectName([0x12; 32]), path: b"/a\x1b\xff".to_vec() }],
            affected_total: 3,
        };
        assert_eq!(
            words(&finding),
            "Lost: The pack \"data/ab\" is missing\n    12121212:/a\\x1b\\xff\n    and 2 more\n    Hint: Do something.\n"
        );
        let value = json(&finding);
        assert_eq!(value["severity"], "lost");
        assert_eq!(value["affected"][0]["path_base64"], "L2Eb/w==");
    }

    #[test]
    fn only_damage_counts() {
        assert_eq!(exit_code(None), 0);
        assert_eq!(exit_code(Some(Severity::Note)), 0);
        assert_eq!(exit_code(Some(Severity::Repairable)), 4);
        assert_eq!(exit_code(Some(Severity::Lost)), 5);
    }
}
