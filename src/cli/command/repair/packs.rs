//! `firn repair packs`: its words. Not for: the arguments (see `repair`).

use crate::cli::command::repair::Packs;
use crate::cli::context::Context;
use crate::cli::output::text;
use crate::error::{ErrorKind, Result};
use crate::repair::packs::{Fate, PackOutcome, PacksOptions, choose, repair_packs};
use serde_json::json;

pub(in crate::cli) fn run(args: &Packs, context: &Context) -> Result<u8> {
    let repository = context.open()?;
    context.watch_signals()?;
    let packs = choose(&repository, &args.packs)?;
    let options =
        PacksOptions { dry_run: args.dry_run, keep: args.keep, discard: args.discard_lost, threads: context.threads };
    let progress = context.progress("repair");
    let outcomes = repair_packs(&repository, &packs, &options, &progress, &context.stop);
    progress.finish();
    let outcomes = outcomes?;
    if context.output.json {
        for outcome in &outcomes {
            context.print_json(&json(outcome, args.dry_run))?;
        }
        context.print_json(&summary(&outcomes, args.dry_run))?;
    } else {
        context.tell(&words(&outcomes, args.dry_run))?;
    }
    Ok(exit_code(&outcomes))
}

/// No snapshot needs what is lost with a pack that stays for a prune.
fn exit_code(outcomes: &[PackOutcome]) -> u8 {
    let code = |outcome: &PackOutcome| match outcome.fate {
        Fate::KeptForPrune => 4,
        Fate::KeptForLost => ErrorKind::Damaged.exit_code(),
        _ if outcome.lost > 0 => ErrorKind::Damaged.exit_code(),
        _ => 0,
    };
    outcomes.iter().map(code).max().unwrap_or(0)
}

fn words(outcomes: &[PackOutcome], dry_run: bool) -> String {
    if outcomes.is_empty() {
        return "No pack is known to be damaged; \"firn check --read-data\" looks for damage\n".into();
    }
    let mut text = String::new();
    for outcome in outcomes {
        text.push_str(&format!("\"{}\"\n", outcome.pack));
        if outcome.fate == Fate::Whole {
            text.push_str("    It is not damaged\n");
            continue;
        }
        let saved = text::count(outcome.saved, "chunk", "chunks");
        text.push_str(&format!(
            "    {} of its {} can be read; {} {saved} ({}){}\n",
            outcome.blocks - outcome.unreadable,
            text::count(outcome.blocks, "block", "blocks"),
            if dry_run { "would save" } else { "saved" },
            text::size(outcome.saved_bytes),
            if outcome.saved == 0 { "; what can be read is stored elsewhere" } else { "" },
        ));
        if outcome.lost > 0 {
            let lost = text::count(outcome.lost, "chunk that cannot be read is", "chunks that cannot be read are");
            text.push_str(&format!("    {lost} nowhere else\n"));
        }
        text.push_str(match (outcome.fate, dry_run) {
            (Fate::Removed, false) => "    Removed, because all that it held is stored elsewhere or was given up\n",
            (Fate::Removed, true) => "    Would be removed\n",
            (Fate::KeptForLost, _) => {
                "    It stays, for it holds the only copy of what cannot be read\n    Hint: If there is a copy of this object, put it back. Run a backup: it stores again what it finds on the disk; then run this again. \"firn repair snapshots\" writes snapshots without what is lost.\n"
            }
            (Fate::KeptForPrune, _) => {
                "    It stays, but no snapshot needs what cannot be read\n    Hint: Run \"firn prune\": it removes the pack once no forgotten snapshot needs it, either.\n"
            }
            (Fate::KeptForOthers, _) => {
                "    It stays, because a backup or a prune is at work (or was stopped without cleaning up)\n    Hint: Run this again later.\n"
            }
            (Fate::Kept | Fate::Whole, _) => "    It stays\n",
        });
    }
    text
}

fn json(outcome: &PackOutcome, dry_run: bool) -> serde_json::Value {
    json!({
        "message_type": "pack",
        "dry_run": dry_run,
        "pack": outcome.pack,
        "blocks": outcome.blocks,
        "blocks_unreadable": outcome.unreadable,
        "chunks_saved": outcome.saved,
        "bytes_saved": outcome.saved_bytes,
        "chunks_lost": outcome.lost,
        "fate": outcome.fate,
    })
}

fn summary(outcomes: &[PackOutcome], dry_run: bool) -> serde_json::Value {
    let with = |fate| outcomes.iter().filter(|outcome| outcome.fate == fate).count();
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "packs": outcomes.len(),
        "packs_whole": with(Fate::Whole),
        "packs_removed": with(Fate::Removed),
        "chunks_saved": outcomes.iter().map(|outcome| outcome.saved).sum::<u64>(),
        "chunks_lost": outcomes.iter().map(|outcome| outcome.lost).sum::<u64>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_does_not_claim_to_have_done_anything() {
        let outcome = PackOutcome {
            pack: "data/ab".into(),
            blocks: 3,
            unreadable: 1,
            saved: 2,
            saved_bytes: 5,
            lost: 0,
            fate: Fate::Removed,
        };
        let said = words(std::slice::from_ref(&outcome), true);
        assert!(said.contains("would save 2 chunks") && said.contains("Would be removed"), "{said}");
        assert!(!said.contains("Removed,"), "{said}");
        let lost = PackOutcome { lost: 1, fate: Fate::KeptForLost, ..outcome };
        let said = words(std::slice::from_ref(&lost), false);
        assert!(said.contains("It stays") && said.contains("Run a backup"), "{said}");
        assert_eq!(exit_code(std::slice::from_ref(&lost)), 5);
        let unneeded = PackOutcome { fate: Fate::KeptForPrune, ..lost };
        assert_eq!(exit_code(std::slice::from_ref(&unneeded)), 4);
        assert!(words(&[unneeded], false).contains("\"firn prune\": it removes"));
    }
}
