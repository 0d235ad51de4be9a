//! `firn backup`: folders become a snapshot. Not for: how (see `crate::backup`).

use crate::backup::{BackupOptions, BackupReport};
use crate::cli::args::exclusion::ExclusionArgs;
use crate::cli::args::times;
use crate::cli::context::Context;
use crate::cli::output::listing::Listing;
use crate::cli::output::message;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::filter::tag_list;
use jiff::Timestamp;
use serde_json::json;
use std::path::PathBuf;

/// Back up files and folders
///
/// Makes one snapshot of everything named. Files that are as they were in the snapshot before are not read again. What cannot
/// be read is told about and left out (exit status 3); without any of the named paths there is no snapshot.
///
/// A file is as it was if its size, modification time, change time and inode number are. No program can set change times. But sshfs,
/// rclone, other file systems in user space, FAT, exFAT, and images as those of ISO 9660 and SquashFS have none, and repeat the
/// modification time, which copying sets: there, files whose two times are equal are read again in each backup, with a note, unless
/// --trust-mtime says that size and modification time suffice. Then a file that was replaced by one of the same size and time is missed.
///
/// Sockets are left out, and what is firn's own, unless it is named: the content of repositories, mounts and caches of firn, and files
/// that a restore left unfinished. Those have a name that firn made up and can tell from every other (".firn-", numbers, a checksum
/// over them, ".partial"). A note tells of each.
///
/// Paths are absolute or begin at the current folder. Behind a symbolic link, ".." is the folder above the one that it leads to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to back up
    #[arg(value_name = "PATH", required = true, value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    exclusion: ExclusionArgs,

    /// A word to find the snapshot by; several with commas or by repeating the option
    #[arg(long, value_name = "TAGS")]
    tag: Vec<String>,

    /// The name of the machine in the snapshot [default: this machine's]
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Option<String>,

    /// The moment that the snapshot stands for, as "2026-01-31 12:00:00" or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    time: Option<Timestamp>,

    /// A short name for the snapshot
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    /// Free text to be kept with the snapshot
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// List files that are new or changed (with --verbose the unchanged ones too), and store nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Read all files again, also those that seem unchanged
    #[arg(short, long)]
    force: bool,

    /// Where the file system has no change times, take files of the same size and modification time for unmodified
    #[arg(long, conflicts_with = "force")]
    trust_mtime: bool,

    /// How hard to compress: "auto", "max", "off", or a level of zstd from 1 to 19
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = parse_level)]
    compression: i32,
}

/// A level of compression as people write it.
fn parse_level(text: &str) -> std::result::Result<i32, String> {
    match text {
        "auto" => Ok(3),
        "max" => Ok(19),
        "off" => Ok(crate::chunk::compress::OFF),
        number => match number.parse() {
            Ok(level @ 1..=19) => Ok(level),
            _ => Err("it is \"auto\", \"max\", \"off\" or a number from 1 to 19".into()),
        },
    }
}

/// The tags of lists with commas, without blanks around them, each once. Nothing between two commas is no tag.
fn tags(lists: &[String]) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for tag in lists.iter().flat_map(|list| tag_list(list)) {
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        // Mistakes in the arguments come before any question for a password.
        let excludes = self.exclusion.excludes()?;
        let options = BackupOptions {
            paths: self.paths,
            excludes,
            exclude_caches: self.exclusion.exclude_caches,
            one_file_system: self.exclusion.one_file_system,
            tags: tags(&self.tag),
            // Empty ones count as absent, as variables do: a script's variable may be unset.
            host: self.host.filter(|host| !host.trim().is_empty()),
            time: self.time,
            label: self.label.filter(|label| !label.is_empty()),
            description: self.description.filter(|description| !description.is_empty()),
            dry_run: self.dry_run,
            force: self.force,
            trust_mtime: self.trust_mtime,
            level: self.compression,
            threads: context.threads,
        };
        let repository = context.open()?;
        context.watch_signals()?;
        let progress = Listing::new(context, "backup", options.dry_run);
        let report = crate::backup::run(&repository, &options, &progress, &context.stop);
        progress.finish();
        let report = report?;
        for link in &report.links {
            let shown = link.display();
            let error = Error::new(
                ErrorKind::Failed,
                format!("\"{shown}\" is a link to a folder, and only the link was backed up"),
            )
            .with_hint("With a slash at its end, the name means what is in the folder.");
            message::warning(&error, "backup", context.output.json);
        }
        context.warn_of_missing(&report.missing, "backup");
        if context.output.json {
            context.print_json(&summary(&report, options.dry_run))?;
        } else {
            context.tell(&words(&report, options.dry_run))?;
        }
        if report.issues == 0 {
            return Ok(0);
        }
        if !context.output.json {
            let what = text::count(report.issues, "problem", "problems");
            let error = Error::new(ErrorKind::Incomplete, format!("The snapshot is not complete: {what}, told above"));
            message::warning(&error, "backup", false);
        }
        Ok(ErrorKind::Incomplete.exit_code())
    }
}

fn words(report: &BackupReport, dry_run: bool) -> String {
    let rows = [
        ("Files:", report.files_new, report.files_changed, report.files_unmodified),
        ("Folders:", report.dirs_new, report.dirs_changed, report.dirs_unmodified),
    ];
    let row = |(what, new, changed, same): (&str, u64, u64, u64)| {
        vec![what.to_owned(), format!("{new} new,"), format!("{changed} changed,"), format!("{same} unmodified")]
    };
    let mut text = text::table(&rows.map(row), &[1, 2, 3]);
    let would = if dry_run { "Would add" } else { "Added" };
    // How small it becomes is known only once it is stored.
    let stored = if dry_run { String::new() } else { format!(", stored as {}", text::size(report.data_added_packed)) };
    text.push_str(&format!(
        "{would} {}{stored}\nWent through {} with {} in {}\n",
        text::size(report.data_added),
        text::count(report.files_total, "file", "files"),
        text::size(report.bytes_total),
        text::duration(report.elapsed),
    ));
    match report.snapshot {
        Some(name) => text.push_str(&format!("Made the snapshot {}\n", name.short())),
        None => text.push_str("Made no snapshot\n"),
    }
    text
}

/// With restic's names.
fn summary(report: &BackupReport, dry_run: bool) -> serde_json::Value {
    let mut value = json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "files_new": report.files_new,
        "files_changed": report.files_changed,
        "files_unmodified": report.files_unmodified,
        "dirs_new": report.dirs_new,
        "dirs_changed": report.dirs_changed,
        "dirs_unmodified": report.dirs_unmodified,
        "data_added": report.data_added,
        "data_added_packed": (!dry_run).then_some(report.data_added_packed),
        "total_files_processed": report.files_total,
        "total_bytes_processed": report.bytes_total,
        "total_duration": report.elapsed.as_secs_f64(),
        "error_count": report.issues,
    });
    if let Some(name) = report.snapshot {
        value["snapshot_id"] = json!(name);
    }
    if let Some(name) = report.parent {
        value["parent"] = json!(name);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_as_people_write_them() {
        for (text, level) in [("auto", 3), ("max", 19), ("off", crate::chunk::compress::OFF), ("1", 1), ("19", 19)] {
            assert_eq!(parse_level(text), Ok(level), "{text}");
            assert!(crate::chunk::compress::Compressor::new(level).is_ok(), "{text}");
        }
        for wrong in ["0", "20", "-1", "best", ""] {
            assert!(parse_level(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tags_have_no_blanks_around_them() {
        assert_eq!(tags(&["a, b".into(), " a ,,c d".into(), "".into()]), ["a", "b", "c d"]);
    }
}
