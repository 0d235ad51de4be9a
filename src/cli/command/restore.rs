//! `firn restore`: files come back. Not for: how (see `crate::restore`).

use crate::cli::args::select::Selection;
use crate::cli::context::Context;
use crate::cli::output::listing::Listing;
use crate::cli::output::message;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::restore::{Overwrite, RestoreOptions, RestoreReport};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Restore a snapshot, or a part of it, into a folder
///
/// Everything is checked against the snapshot as it is written. Nothing outside the target is ever touched: a file there that has
/// further names elsewhere is replaced by a new one before anything about it changes. Extended attributes and ACLs that the snapshot
/// does not have are removed from what is restored. What cannot be restored is told about, and the rest goes on (exit status 3, or 5
/// if stored data is damaged or --verify finds what is not as recorded). Run by an ordinary user, it cannot restore owners,
/// set-user-ID bits, capabilities and some attributes; it names the first file of each kind in a note, and that is no error.
///
/// Files have a temporary name until they are complete (".firn-", numbers, a checksum over them, ".partial"). What a restore that was
/// killed has left under such names in the folders that are restored again is removed, and a note tells of it. Nothing else in the
/// target is removed that the snapshot does not replace.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The snapshot, and what to restore of it
    #[arg(value_name = "SNAPSHOT[:/PATH]")]
    address: OsString,

    /// The folder to restore into; it is made if it does not exist
    #[arg(short, long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    target: PathBuf,

    /// What to do with files that exist
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::IfChanged)]
    overwrite: When,

    /// Restore only what matches PATTERN
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,

    /// Leave out what matches PATTERN
    #[arg(short = 'e', long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// List files that would be made or replaced (with --verbose those that would be left too), and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Compare everything with the snapshot afterwards, also what was left as it was
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,

    #[command(flatten)]
    selection: Selection,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum When {
    /// Replace them all
    Always,
    /// Replace those whose size or time differs
    IfChanged,
    /// Keep them all
    Never,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        if self.target == Path::new("-") {
            return Err(Error::new(ErrorKind::Input, "Files are restored into a folder, not to standard output")
                .with_hint(
                    "\"firn dump\" writes one file to standard output; for a folder of that name write \"./-\".",
                ));
        }
        let options = RestoreOptions {
            target: self.target,
            overwrite: match self.overwrite {
                When::Always => Overwrite::Always,
                When::IfChanged => Overwrite::IfChanged,
                When::Never => Overwrite::Never,
            },
            include: self.include,
            exclude: self.exclude,
            dry_run: self.dry_run,
            verify: self.verify,
            threads: context.threads,
        };
        let repository = context.open()?;
        let (named, path) = context.resolve(&repository, &self.address, &self.selection)?;
        context.watch_signals()?;
        let progress = Listing::new(context, "restore", options.dry_run);
        let report = crate::restore::run(&repository, &named.snapshot, &path, &options, &progress, &context.stop);
        progress.finish();
        let report = report?;
        if context.output.json {
            let mut value = summary(&report, options.dry_run);
            value["snapshot_id"] = json!(named.name);
            context.print_json(&value)?;
        } else {
            context.tell(&words(&report, &options))?;
        }
        if report.issues == 0 && report.damaged == 0 {
            return Ok(0);
        }
        if !context.output.json {
            let what = text::count(report.issues, "problem", "problems");
            let error = Error::new(ErrorKind::Incomplete, format!("The restore is not complete: {what}, told above"));
            message::warning(&error, "restore", false);
        }
        let kind = if report.damaged + report.mismatched > 0 { ErrorKind::Damaged } else { ErrorKind::Incomplete };
        Ok(kind.exit_code())
    }
}

fn words(report: &RestoreReport, options: &RestoreOptions) -> String {
    let done = if options.dry_run { "Would restore" } else { "Restored" };
    let mut text = format!(
        "{done} {}, {} and {} with {} to \"{}\" in {}\n",
        text::count(report.files, "file", "files"),
        text::count(report.directories, "folder", "folders"),
        text::count(report.others, "other thing", "other things"),
        text::size(report.bytes),
        text::line(&options.target.display().to_string()),
        text::duration(report.elapsed),
    );
    if report.skipped > 0 {
        let left = if options.dry_run { "Would leave" } else { "Left" };
        text.push_str(&format!("{left} {} unchanged\n", text::count(report.skipped, "thing", "things")));
    }
    if report.updated > 0 {
        let things = text::count(report.updated, "thing", "things");
        let put = if options.dry_run { "Would put" } else { "Put" };
        text.push_str(&format!("{put} back the metadata of {things} whose content was left\n"));
    }
    if options.verify && !options.dry_run {
        let files = text::count(report.verified, "file", "files");
        text.push_str(&match report.mismatched {
            0 => format!("Read again and compared {files}\n"),
            others => {
                let things = text::count(others, "thing", "things");
                format!("Read again and found {files} as recorded, and {things} otherwise\n")
            }
        });
    }
    text
}

fn summary(report: &RestoreReport, dry_run: bool) -> serde_json::Value {
    json!({
        "message_type": "summary",
        "dry_run": dry_run,
        "files_restored": report.files,
        "dirs_restored": report.directories,
        "others_restored": report.others,
        "hard_links": report.hard_links,
        "bytes_restored": report.bytes,
        "files_skipped": report.skipped,
        "files_verified": report.verified,
        "metadata_restored": report.updated,
        "mismatched": report.mismatched,
        "error_count": report.issues,
        "damaged": report.damaged,
        "total_duration": report.elapsed.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifying(dry_run: bool) -> RestoreOptions {
        RestoreOptions {
            target: "/t\u{1b}".into(),
            overwrite: Overwrite::Never,
            include: Vec::new(),
            exclude: Vec::new(),
            dry_run,
            verify: true,
            threads: 1,
        }
    }

    #[test]
    fn a_dry_run_does_not_claim_to_have_done_anything() {
        let options = verifying(true);
        let report = RestoreReport { files: 1, skipped: 2, ..RestoreReport::default() };
        let text = words(&report, &options);
        assert!(text.starts_with("Would restore 1 file, 0 folders") && text.contains("\"/t\\x1b\""), "{text}");
        assert!(text.contains("Would leave 2 things unchanged") && !text.contains("compared"), "{text}");
    }

    #[test]
    fn what_was_compared_is_counted_whether_or_not_it_is_right() {
        let report = RestoreReport { verified: 2, ..RestoreReport::default() };
        assert!(words(&report, &verifying(false)).ends_with("Read again and compared 2 files\n"));
        let report = RestoreReport { mismatched: 1, ..RestoreReport::default() };
        let text = words(&report, &verifying(false));
        assert!(text.ends_with("Read again and found 0 files as recorded, and 1 thing otherwise\n"), "{text}");
    }
}
