//! `firn scrub`: does every stored object still have the bytes that its name promises? Not for: anything that needs a key.

use crate::check::scrub::{ScrubOptions, ScrubReport};
use crate::cli::args::amount;
use crate::cli::context::Context;
use crate::cli::output::finding::{exit_code, json, words};
use crate::cli::output::message;
use crate::cli::output::text;
use crate::error::Result;
use crate::repository::CacheChoice;
use crate::repository::cache::keyless_folder;
use serde_json::json;
use std::time::{Duration, Instant};

/// Verify that every stored object is what it was, without a key
///
/// Packs, index segments, snapshots and key slots are named after the hash of their bytes, so this needs no password and can run where
/// the repository is stored. It finds all damage to those that are there. A few small objects (the config, what says that a snapshot
/// was forgotten or is pinned, what programs at work have left) have other names: only "firn check", which needs a key, finds damage to
/// them. It also finds what is missing and says which files are hit. What was found right is remembered, and a later run begins with what was not verified for the longest time. Exit
/// status 4: what is damaged can be made again; 5: content or snapshots are damaged.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop cleanly after this long (for example 30m, 8h); the next run goes on
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    max_time: Option<Duration>,

    /// Leave out what was found right within this time (for example 14d)
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    max_age: Option<Duration>,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let started = Instant::now();
        let store = context.store()?;
        let state = match context.repository.cache(context.output)? {
            CacheChoice::Root(root) => keyless_folder(&root, &store.properties().place)
                .inspect_err(|error| message::warning(error, "scrub", context.output.json))
                .ok(),
            CacheChoice::None => None,
        };
        context.watch_signals()?;
        let options = ScrubOptions {
            threads: context.threads,
            deadline: self.max_time.and_then(|time| started.checked_add(time)),
            max_age: self.max_age,
            state,
        };
        let progress = context.progress("scrub");
        let report = crate::check::scrub::scrub(store.as_ref(), &options, &progress, &context.stop);
        progress.finish();
        let report = report?;
        if context.output.json {
            for finding in &report.findings {
                context.print_json(&json(finding))?;
            }
            context.print_json(&summary(&report, started.elapsed().as_secs_f64()))?;
            return Ok(exit_code(report.worst()));
        }
        context.print(&report.findings.iter().map(words).collect::<String>())?;
        context.tell(&conclusion(&report, options.state.is_some()))?;
        Ok(exit_code(report.worst()))
    }
}

fn conclusion(report: &ScrubReport, wants_state: bool) -> String {
    let objects = |number| text::count(number, "object", "objects");
    let mut text = format!("Read {} ({}) of {}\n", objects(report.read), text::size(report.bytes_read), report.objects);
    if report.recent > 0 {
        text.push_str(&format!("Left out {}, verified within --max-age\n", objects(report.recent)));
    }
    if report.left > 0 {
        text.push_str(&format!(
            "The time was over before {} could be read; the next run begins with them\n",
            objects(report.left)
        ));
    }
    if wants_state && !report.remembers {
        text.push_str("Another run uses the record of what was verified when, so this one is not remembered\n");
    }
    let shown = report.findings.len() as u64;
    if report.damaged > shown {
        text.push_str(&format!("{} more are damaged\n", objects(report.damaged - shown)));
    }
    match (report.damaged, report.read) {
        (0, 0) => {}
        (0, _) => text.push_str("All that was read is undamaged\n"),
        (damaged, _) => text.push_str(&format!("Found {} damaged\n", objects(damaged))),
    }
    if report.unnamed > 0 {
        let verb = if report.unnamed == 1 { "was" } else { "were" };
        let those = objects(report.unnamed);
        text.push_str(&format!(
            "Not verified {verb} {those} without a hash; with a key, \"firn check\" verifies those\n"
        ));
    }
    text
}

fn summary(report: &ScrubReport, seconds: f64) -> serde_json::Value {
    json!({
        "message_type": "summary",
        "error_count": report.damaged,
        "objects": report.objects,
        "bytes": report.bytes,
        "objects_read": report.read,
        "bytes_read": report.bytes_read,
        "objects_recent": report.recent,
        "objects_left": report.left,
        "objects_gone": report.gone,
        "objects_without_hash": report.unnamed,
        "complete": report.left == 0,
        "total_duration": seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_cut_short_does_not_claim_everything() {
        let report = ScrubReport { objects: 9, read: 4, left: 5, remembers: true, ..ScrubReport::default() };
        let text = conclusion(&report, true);
        assert!(text.contains("before 5 objects could be read") && text.contains("All that was read"), "{text}");
        assert_eq!(summary(&report, 1.0)["complete"], false);
        assert!(conclusion(&ScrubReport::default(), true).contains("not remembered"));
    }
}
