//! `firn key rotate` and `firn key re-encrypt`: their arguments, and what was done in words. Not for: the slots (see
//! `repository::rotate`), or writing packs again (see `prune`).

use crate::cli::args::amount;
use crate::cli::context::Context;
use crate::cli::context::password;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::prune::{Amount, Limit, PruneOptions, PruneReport};
use crate::repository::Repository;
use crate::repository::rotate::{Keychain, Rotated};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Give new data a new secret, which the old keys do not hold
///
/// Replaces the key in use by one with the same password or key file that holds one secret more, under which all packs of file
/// content are sealed from now on. Other keys would not get it, so each of them must be named, with --other-password-file or
/// --other-key-file, or be removed with --remove-other-keys. Backups, mounts and restores that run meanwhile go on; what
/// they still store is sealed under the old secret.
///
/// The old secrets stay in the keys, because older packs need them. Whoever has copied an old secret and old packs can read these
/// copies for ever; "--re-encrypt" only keeps old secrets from opening what the repository holds from then on. The secrets of
/// names, folders and snapshots stay the same: whoever has kept them and gets at the repository still sees what files there
/// are, their sizes and times, and those contents that are so small that they are kept with the names (128 bytes).
/// If that must not be, start a new repository.
#[derive(Debug, clap::Args)]
pub(crate) struct Rotate {
    /// Remove the keys that cannot be replaced because nothing given here opens them
    #[arg(long)]
    remove_other_keys: bool,

    /// Replace the key as well that the password in the first line of FILE opens; may be given several times
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    other_password_file: Vec<PathBuf>,

    /// Replace the key as well that FILE opens, alone or with a password; may be given several times
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    other_key_file: Vec<PathBuf>,

    /// Rotate also if the key slots are older than the newest that were seen, because somebody has put older ones back
    #[arg(long)]
    yes_really: bool,

    /// Then write all older packs again under the new secret, as "firn key re-encrypt" does
    #[arg(long)]
    re_encrypt: bool,

    #[command(flatten)]
    settings: Settings,
}

/// Write the packs again that are sealed under older secrets than the newest
///
/// Everything that snapshots need is read, sealed under the newest secret and stored; then the old packs are deleted, as a prune
/// deletes. Snapshots and their ids stay the same, and what was deduplicated stays so. It needs free space for
/// all that is written again. Cut off or interrupted, it leaves everything readable; run again, it takes up what was done.
/// Snapshots that were forgotten less than 7 days ago are kept, older ones are deleted for good.
#[derive(Debug, clap::Args)]
pub(crate) struct ReEncrypt {
    /// Tell what would be done, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    settings: Settings,
}

/// How others are waited for before old packs are deleted.
#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// Revoke a backup that has shown no sign of life for so long; should it still run, it fails and can be repeated
    #[arg(long, value_name = "DURATION", value_parser = amount::duration, default_value = "7d")]
    revoke_after: Duration,

    /// Give up after waiting this long for backups that run (exit status 11)
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    max_wait: Option<Duration>,
}

impl Rotate {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let (repository, credentials) = context.open_keeping()?;
        let mut keychain = Keychain::new(&credentials);
        for path in &self.other_password_file {
            keychain.add_password(
                password::of_file(path, context.output.json)?,
                format!("The password in \"{}\"", path.display()),
            );
        }
        for path in &self.other_key_file {
            keychain.add_key_file(
                password::existing_key_file(path, context.output.json)?,
                format!("The key file \"{}\"", path.display()),
            );
        }
        // They tell which epoch was the newest.
        repository.snapshots()?;
        if self.yes_really {
            repository.accept_older_keys();
        }
        let rotated = repository.rotate(&keychain, self.remove_other_keys)?;
        if context.output.json {
            context.print_json(&json!({
                "message_type": "key", "action": "rotated", "epoch": rotated.epoch,
                "added": rotated.added, "removed": rotated.removed,
            }))?;
        } else {
            context.tell(&words(&rotated))?;
        }
        if !self.re_encrypt {
            return Ok(0);
        }
        // With the new secrets, which the repository that was opened before does not have.
        drop(repository);
        re_encrypt(context, &context.open_with(&credentials)?, &self.settings, false)
    }
}

impl ReEncrypt {
    pub(crate) fn run(self, context: &Context, repository: &Arc<Repository>) -> Result<u8> {
        re_encrypt(context, repository, &self.settings, self.dry_run)
    }
}

fn words(rotated: &Rotated) -> String {
    let list = |names: &[crate::id::ObjectName]| names.iter().map(|name| name.short()).collect::<Vec<_>>().join(", ");
    format!(
        "New data is sealed under key epoch {} from now on\n{:<10}{}\n{:<10}{}\n\
         Note: older packs stay as they are until \"firn key re-encrypt\" writes them again.\n",
        rotated.epoch,
        "Added:",
        list(&rotated.added),
        "Removed:",
        list(&rotated.removed)
    )
}

fn re_encrypt(context: &Context, repository: &Arc<Repository>, settings: &Settings, dry_run: bool) -> Result<u8> {
    let epoch = repository.keyring().newest_epoch();
    let options = PruneOptions {
        dry_run,
        rewrite_epochs_below: Some(epoch),
        // No other packs than those.
        max_unused: Limit::Unlimited,
        max_rewrite: Limit::Bytes(0),
        revoke_after: settings.revoke_after,
        max_wait: settings.max_wait,
        threads: context.threads,
        ..PruneOptions::default()
    };
    context.watch_signals()?;
    let progress = context.progress("key re-encrypt");
    let report = crate::prune::run(repository, &options, &progress, &context.stop);
    progress.finish();
    let report = report?;
    repository.reload_index(&crate::progress::Silent)?;
    let left = repository.older_epochs()?;
    let left = Amount { packs: left.0, bytes: left.1 };
    if context.output.json {
        context.print_json(&summary(&report, epoch, left, dry_run))?;
    } else {
        let text = outcome(&report, epoch, left, dry_run);
        if dry_run { context.print(&text)? } else { context.tell(&text)? }
    }
    if dry_run || left.packs == 0 {
        return Ok(0);
    }
    Err(not_all(&report, left))
}

/// Why packs are left under older secrets, as far as is known.
fn not_all(report: &PruneReport, left: Amount) -> Error {
    let message = format!("{} still sealed under an older secret", are(left));
    if report.is_full {
        let size = text::size(left.bytes);
        return Error::new(ErrorKind::Full, format!("There was no room to write packs again: {message}"))
            .with_hint(format!("Make room for about {size} where the repository is, then run this again."));
    }
    Error::new(ErrorKind::Incomplete, message).with_hint(
        "They are damaged, or a backup with an older key stored them during this run. Run \"firn check --read-data\", then this again.",
    )
}

fn are(amount: Amount) -> String {
    format!("{} {}", text::count(amount.packs, "pack", "packs"), if amount.packs == 1 { "is" } else { "are" })
}

fn amount_of(amount: Amount) -> String {
    format!("{} ({})", text::count(amount.packs, "pack", "packs"), text::size(amount.bytes))
}

fn outcome(report: &PruneReport, epoch: u16, left: Amount, dry_run: bool) -> String {
    if dry_run {
        return format!(
            "Would write again under key epoch {epoch}: {}, of which {} are needed\nUnder older epochs now: {}\n",
            amount_of(report.rewritten),
            text::size(report.written),
            amount_of(left)
        );
    }
    format!(
        "Written again under key epoch {epoch}: {}, which took {}\nDeleted: {}\n",
        amount_of(report.rewritten),
        text::size(report.written),
        amount_of(report.deleted)
    )
}

fn summary(report: &PruneReport, epoch: u16, left: Amount, dry_run: bool) -> serde_json::Value {
    let amount = |amount: Amount| json!({ "packs": amount.packs, "bytes": amount.bytes });
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "epoch": epoch,
        "rewritten": amount(report.rewritten),
        "bytes_written": report.written,
        "deleted": amount(report.deleted),
        "older_epochs": amount(left),
    })
}
