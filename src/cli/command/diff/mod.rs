//! `firn diff`: what differs between two snapshots, or a snapshot and the files that are there now. Not for: finding it out (see
//! `crate::diff`), or how a line looks (see `diff_words`).

pub(in crate::cli) mod words;

use crate::backup::walk;
use crate::cli::args::exclusion::ExclusionArgs;
use crate::cli::args::select::Selection;
use crate::cli::command::diff::words::Words;
use crate::cli::context::{Context, absolute};
use crate::cli::output::text;
use crate::diff::{self, Live, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::Entry;
use crate::pattern::Patterns;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::filter::Filter;
use crate::repository::snapshots::{Address, Named, Snapshots};
use crate::view::path::find;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Show what differs between two snapshots, or a snapshot and the files that are there now
///
/// With two snapshots: what became different from the first to the second. With one alone: what became different since then in the files
/// that it was made of. With a snapshot and a path ("./work" and "." are paths, "work" would be a snapshot): the same at this path,
/// which is compared with the path behind the snapshot's ":", or with the same path in the snapshot if there is none.
///
/// Each line begins with letters: "+" added, "-" removed, "M" modified (a file's content, where a link points to), "T" of another type,
/// "U" metadata only (with --metadata), "M?" modified though neither size nor time says so, which may be a failing disk. Of the files
/// that are there now, size and time are compared, with --content their bytes instead. "Added" and "Removed" at the end are the bytes
/// of chunks that a changed file has more and less, and all bytes of the files that came and went; without --content all bytes of
/// live files that changed. What the backup left out by pattern, as a cache or as another file system is left out here as well; the options add to that.
///
/// The exit status is 0 whether or not anything differs, and 3 if something could not be compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The snapshot to begin with, and what to compare in it
    #[arg(value_name = "SNAPSHOT[:/PATH]")]
    old: OsString,

    /// Another snapshot, or a path that exists now
    #[arg(value_name = "SNAPSHOT[:/PATH]|PATH", value_hint = clap::ValueHint::AnyPath)]
    new: Option<OsString>,

    /// Also show changes of mode, owner, times, links, flags and extended attributes
    #[arg(short, long)]
    metadata: bool,

    /// Show how text files changed, line by line; with files that are there now, read them
    #[arg(short, long)]
    content: bool,

    #[command(flatten)]
    exclusion: ExclusionArgs,

    #[command(flatten)]
    selection: Selection,
}

/// What the second argument is.
enum Second {
    /// Nothing: what the snapshot was made of.
    Origin,
    Snapshot(Address),
    /// An absolute path.
    Path(Vec<u8>),
}

/// A snapshot never has a slash in its name.
fn is_path(text: &OsStr) -> bool {
    let text = text.as_bytes();
    let before = text.split(|byte| *byte == b':').next().unwrap_or_default();
    before.contains(&b'/') || matches!(text, b"." | b"..")
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        // Mistakes in the arguments come before any question for a password.
        let old = Address::parse(self.old.as_bytes())?;
        let second = match &self.new {
            None => Second::Origin,
            Some(new) if is_path(new) => Second::Path(absolute(new)?),
            Some(new) => Second::Snapshot(Address::parse(new.as_bytes())?),
        };
        if matches!(second, Second::Snapshot(_)) && self.exclusion != ExclusionArgs::default() {
            return Err(Error::new(ErrorKind::Input, "What two snapshots hold is compared without exclude rules"));
        }
        let excludes = self.exclusion.excludes()?;
        let filter = self.selection.filter()?;
        let repository = context.open()?;
        let snapshots = context.all_snapshots(&repository)?;
        context.watch_signals()?;
        let named = context.choose(&snapshots, &old.snapshot, &old.path, &filter)?;
        let progress = crate::cli::output::progress::Reporter::without_bar("diff", context.output);
        let host = &named.snapshot.host;
        if !matches!(second, Second::Snapshot(_)) && *host != crate::os::hostname() {
            progress.note(&format!("The snapshot is of another machine, \"{host}\""));
        }
        let options = Options { metadata: self.metadata, content: self.content };
        let work = diff::Context { repository: &repository, options, progress: &progress, stop: &context.stop };
        let mut words = Words::new(context.output.json);
        let mut tell = |difference: &diff::Difference<'_>| words.tell(difference);
        let (statistics, target) = match second {
            Second::Snapshot(new) => {
                let (before, after) = self.paths(&old, &new);
                let target = resolve_second(context, &snapshots, &new, &filter)?;
                let one = entry(&repository, named, before)?;
                let other = entry(&repository, target, after)?;
                (diff::between(&work, &one, &other, after, &mut tell)?, Some(target.name))
            }
            Second::Origin => {
                let live = self.live(named, &old.path, &old.path, excludes)?;
                (diff::with_live(&work, &entry(&repository, named, &old.path)?, &live, &mut tell)?, None)
            }
            Second::Path(path) => {
                let before = if old.path.is_empty() { &path } else { &old.path };
                let live = self.live(named, before, &path, excludes)?;
                let recorded = entry(&repository, named, before).map_err(|error| match old.path.is_empty() {
                    true => error
                        .with_hint("For a copy write behind the snapshot's name where the original was: \":/path\"."),
                    false => error,
                })?;
                (diff::with_live(&work, &recorded, &live, &mut tell)?, None)
            }
        };
        words.finish(&statistics, named.name, target, context.output.quiet)?;
        let complete = statistics.issues == 0 && snapshots.damaged.is_empty();
        Ok(if complete { 0 } else { ErrorKind::Incomplete.exit_code() })
    }

    /// The paths to compare: one that is given for one snapshot counts for both.
    fn paths<'a>(&self, old: &'a Address, new: &'a Address) -> (&'a [u8], &'a [u8]) {
        let before = if old.path.is_empty() { &new.path } else { &old.path };
        let after = if new.path.is_empty() { &old.path } else { &new.path };
        (before, after)
    }

    /// What there is to look at: at `path`, for what is at `recorded` in the snapshot.
    fn live(&self, named: &Named, recorded: &[u8], path: &[u8], excludes: Vec<String>) -> Result<Live> {
        let rules = named.snapshot.excludes.iter().chain(&excludes);
        let excludes = Patterns::from_arguments(rules).map_err(|error| {
            error.context("The exclude rules of the snapshot, with those of --exclude, cannot be followed")
        })?;
        // Below a folder that only leads to what was backed up, nothing else is of interest.
        let below = named.snapshot.paths.iter().filter_map(|origin| {
            let origin = if origin.0 == b"/" { b"" } else { origin.0.as_slice() };
            let rest = origin.strip_prefix(recorded)?;
            (rest.is_empty() || rest[0] == b'/').then(|| [path, rest].concat())
        });
        let mut roots: Vec<Vec<u8>> = below.collect();
        if roots.is_empty() {
            roots.push(path.to_vec());
        }
        // What a backup read through a link is compared through it.
        let scope = &named.snapshot.scope;
        let is_followed = |at: &[u8]| {
            at.strip_prefix(path)
                .is_some_and(|rest| scope.followed.iter().any(|link| link.0 == [recorded, rest].concat()))
        };
        let root = |at: Vec<u8>| match at.as_slice() {
            b"" => PathBuf::from("/"),
            at if is_followed(at) => PathBuf::from(OsStr::from_bytes(&[at, b"/"].concat())),
            at => PathBuf::from(OsStr::from_bytes(at)),
        };
        let options = walk::Options {
            one_file_system: self.exclusion.one_file_system || scope.one_file_system,
            device: home(named, recorded, path),
            exclude_caches: self.exclusion.exclude_caches || scope.exclude_caches,
            excludes,
            repository: None,
        };
        Ok(Live { path: path.to_vec(), roots: roots.into_iter().map(root).collect(), options })
    }
}

/// The device that the backup stayed on, if that is not the one of the folder at hand: it was left out then, with all that is in it.
fn home(named: &Named, recorded: &[u8], path: &[u8]) -> Option<u64> {
    if !named.snapshot.scope.one_file_system || recorded != path {
        return None;
    }
    let origins = named.snapshot.paths.iter().map(|origin| Path::new(OsStr::from_bytes(&origin.0)));
    let path = Path::new(OsStr::from_bytes(path));
    let origin = origins.filter(|origin| path.starts_with(origin)).max_by_key(|origin| origin.as_os_str().len())?;
    let device = std::fs::metadata(origin).ok()?.dev();
    let between = path.ancestors().take_while(|folder| *folder != origin);
    let is_left_out =
        |folder: &Path| std::fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir() && found.dev() != device);
    between.into_iter().any(is_left_out).then_some(device)
}

fn resolve_second<'s>(
    context: &Context,
    snapshots: &'s Snapshots,
    address: &Address,
    filter: &Filter,
) -> Result<&'s Named> {
    let text = address.snapshot.as_str();
    context.choose(snapshots, text, &address.path, filter).map_err(|error| match Path::new(text).exists() {
        true => error.with_hint(format!("For the file or folder here write \"./{text}\".")),
        false => error,
    })
}

fn entry(repository: &Repository, named: &Named, path: &[u8]) -> Result<Entry> {
    find(repository, &named.snapshot, path).map_err(|error| {
        let shown = if path.is_empty() { "/".into() } else { text::escape(path) };
        error.context(format!("\"{shown}\" in the snapshot {} cannot be compared", named.name.short()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_snapshots_are_told_apart() {
        for path in ["/", "./work", "work/", ".", "..", "../x", "/a:b", "a/b:c"] {
            assert!(is_path(OsStr::new(path)), "{path}");
        }
        for snapshot in ["latest", "latest~1", "work", "12ab", "latest:/a/b", ".x", "12ab:/"] {
            assert!(!is_path(OsStr::new(snapshot)), "{snapshot}");
        }
    }
}
