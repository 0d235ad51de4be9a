//! `firn repair snapshots`: its words. Not for: the arguments (see `repair`).

use crate::cli::command::repair::Snapshots;
use crate::cli::context::Context;
use crate::cli::output::text;
use crate::error::{ErrorKind, Result};
use crate::format::snapshot::Issue;
use crate::repair::snapshots::{Became, SnapshotOutcome, SnapshotsOptions, repair_snapshots};
use serde_json::json;

/// Lost things that are shown of one snapshot.
const SHOWN: usize = 100;

pub(in crate::cli) fn run(args: &Snapshots, context: &Context) -> Result<u8> {
    let repository = context.open()?;
    context.watch_signals()?;
    let chosen = context.choose_all(&repository, &args.snapshots, &args.selection)?;
    let options = SnapshotsOptions { dry_run: args.dry_run, forget: args.forget, threads: context.threads };
    let progress = context.progress("repair");
    let outcomes = repair_snapshots(&repository, chosen.as_deref(), &options, &progress, &context.stop);
    progress.finish();
    let outcomes = outcomes?;
    if context.output.json {
        for outcome in &outcomes {
            context.print_json(&json(outcome, args.dry_run))?;
        }
    } else {
        context.tell(&words(&outcomes, &options))?;
    }
    let is_lost = outcomes.iter().any(|outcome| outcome.became != Became::Whole);
    Ok(if is_lost { ErrorKind::Damaged.exit_code() } else { 0 })
}

fn words(outcomes: &[SnapshotOutcome], options: &SnapshotsOptions) -> String {
    let mut text = String::new();
    let whole = outcomes.iter().filter(|outcome| outcome.became == Became::Whole).count() as u64;
    for outcome in outcomes {
        let name = outcome.snapshot.short();
        match &outcome.became {
            Became::Whole => continue,
            Became::Rewritten(Some(new)) => {
                text.push_str(&format!("Wrote the snapshot \"{}\" for what is left of \"{name}\"\n", new.short()));
            }
            Became::Rewritten(None) => {
                text.push_str(&format!("Would write what is left of the snapshot \"{name}\" anew\n"))
            }
            Became::RewrittenBefore(new) => {
                text.push_str(&format!("What is left of the snapshot \"{name}\" is in \"{}\" already\n", new.short()));
            }
            Became::Hopeless(why) => {
                text.push_str(&format!("Nothing can be written for the snapshot \"{name}\": {}\n", text::line(why)));
            }
            Became::NotNow(why) => {
                text.push_str(&format!("Left the snapshot \"{name}\" for later: {}\n", text::line(why)));
            }
        }
        for issue in outcome.issues.iter().take(SHOWN) {
            text.push_str(&format!("    {}: {}\n", text::escape(&issue.path.0), text::line(&issue.message)));
        }
        if outcome.issues_total > outcome.issues.len().min(SHOWN) as u64 {
            text.push_str(&format!("    and {} more\n", outcome.issues_total - outcome.issues.len().min(SHOWN) as u64));
        }
        if outcome.forgotten {
            text.push_str(&format!("Forgot the snapshot \"{name}\"\n"));
        }
        if outcome.is_pinned {
            text.push_str(&format!("The snapshot \"{name}\" is pinned and stays; run \"firn unpin\" on it first\n"));
        }
    }
    match (whole, outcomes.len() as u64 - whole) {
        (whole, 0) => text.push_str(&format!("{} whole\n", text::count(whole, "snapshot is", "snapshots are"))),
        (_, damaged) => {
            text.push_str(&format!(
                "{} damaged, {whole} whole\n",
                text::count(damaged, "snapshot is", "snapshots are")
            ));
            if !options.forget && !options.dry_run {
                text.push_str("The damaged ones stay as well; --forget lets them go\n");
            }
        }
    }
    text
}

fn json(outcome: &SnapshotOutcome, dry_run: bool) -> serde_json::Value {
    let (became, new, why) = match &outcome.became {
        Became::Whole => ("whole", None, None),
        Became::Rewritten(new) => ("rewritten", *new, None),
        Became::RewrittenBefore(new) => ("rewritten_before", Some(*new), None),
        Became::Hopeless(why) => ("hopeless", None, Some(why)),
        Became::NotNow(why) => ("not_now", None, Some(why)),
    };
    let issue = |issue: &Issue| {
        let mut value = json!({ "kind": issue.kind, "message": issue.message });
        text::set_path(&mut value, "path", &issue.path.0);
        value
    };
    json!({
        "message_type": "repaired",
        "dry_run": dry_run,
        "snapshot_id": outcome.snapshot,
        "became": became,
        "new_snapshot_id": new,
        "reason": why,
        "issues": outcome.issues.iter().map(issue).collect::<Vec<_>>(),
        "issues_total": outcome.issues_total,
        "forgotten": outcome.forgotten,
        "pinned": outcome.is_pinned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json::PathText;
    use crate::format::snapshot::{Issue, IssueKind};
    use crate::id::ObjectName;

    #[test]
    fn what_is_lost_is_told_and_a_dry_run_claims_nothing() {
        let issue = Issue { path: PathText(b"/a\x1b".to_vec()), kind: IssueKind::Unreadable, message: "lost".into() };
        let outcome = SnapshotOutcome {
            snapshot: ObjectName([1; 32]),
            became: Became::Rewritten(None),
            issues: vec![issue],
            issues_total: 7,
            forgotten: false,
            is_pinned: false,
        };
        let options = SnapshotsOptions { dry_run: true, forget: false, threads: 1 };
        let said = words(std::slice::from_ref(&outcome), &options);
        assert!(
            said.contains("Would write") && said.contains("/a\\x1b: lost") && said.contains("and 6 more"),
            "{said}"
        );
        assert!(!said.contains("Wrote") && !said.contains("--forget"), "{said}");
        assert_eq!(json(&outcome, true)["became"], "rewritten");
        let waits =
            SnapshotOutcome { became: Became::NotNow("a prune".into()), issues: vec![], issues_total: 0, ..outcome };
        assert!(words(std::slice::from_ref(&waits), &options).contains("for later"));
        let said = json(&waits, false);
        assert_eq!((&said["became"], &said["reason"]), (&json!("not_now"), &json!("a prune")));
    }
}
