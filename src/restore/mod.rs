//! Writes a snapshot, or a part of it, below a target folder. Not for: showing it as folders (see `mount`), or single
//! files to a stream (`view::content`).
//!
//! The tree is walked as a stream (`walk`); files are collected into batches (`batch`), and each batch is carried out in
//! the order in which its chunks lie in packs, by several threads, each block read and decoded once. A file is written
//! under a temporary name and gets its own name once its content and metadata are complete, so that no half file ever
//! bears a real name. Directories get their metadata after everything in them.
//!
//! Memory: one batch (about 64 MiB at most, see `batch`), for each thread 4 MiB of a pack and one block (a frame has at
//! most 16 MiB), one path of tree pages, the names of open hard-link groups (`link::MAX_GROUP_BYTES`).
//!
//! Safety: every name is used relative to a handle of the directory it is in, which was opened below the target without
//! following any symbolic link; so nothing outside the target is touched, whatever the repository or the target holds.

mod batch;
mod compare;
mod job;
mod kept;
mod link;
mod meta;
pub mod partial;
mod replacing;
mod special;
mod spelling;
mod target;
mod walk;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_kept;
#[cfg(test)]
mod tests_links;

use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::Snapshot;
use crate::format::tree::Entry;
use crate::pattern::Patterns;
use crate::progress::{Placed, Progress, Stop};
use crate::repository::Repository;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What happens to things that are in the target already. Nothing is ever removed that the snapshot does not replace,
/// and a directory is never replaced by something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// They are written again, whatever they are. A symbolic link or file where a directory must be is replaced.
    Always,
    /// They stay if type, size (or link target, or device) and modification time are the recorded ones.
    #[default]
    IfChanged,
    /// They stay, as do directories' metadata.
    Never,
}

/// How to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The folder to restore into; made if it is missing.
    pub target: PathBuf,
    /// What happens to things that exist.
    pub overwrite: Overwrite,
    /// Only what one of these patterns matches (all if there is none). They match absolute paths in the snapshot.
    pub include: Vec<String>,
    /// Not what these patterns match.
    pub exclude: Vec<String>,
    /// Nothing is written; the report counts what would be.
    pub dry_run: bool,
    /// Restored files are read back and compared.
    pub verify: bool,
    /// Threads that read, decode and write; at least one.
    pub threads: usize,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Regular files written, not counting further names of the same file.
    pub files: u64,
    /// Directories made or given their metadata.
    pub directories: u64,
    /// Symbolic links, pipes, sockets, devices.
    pub others: u64,
    /// Bytes of content written (holes are not; in a dry run: sizes).
    pub bytes: u64,
    /// Things left as they were in the target, or left out because only root can make them.
    pub skipped: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Files read back and found equal.
    pub verified: u64,
    /// Things left in the target that got their recorded metadata back.
    pub updated: u64,
    /// How many of the issues were things read back and found otherwise than recorded.
    pub mismatched: u64,
    /// Things that could not be restored, or not completely.
    pub issues: u64,
    /// How many of the issues were damage of the repository.
    pub damaged: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Restores what `path` (absolute; empty or "/" for all) names in `snapshot`.
///
/// A whole snapshot appears with its tree below the target; of a directory, what it holds appears directly below the
/// target; a file appears in the target under its name. Things that cannot be restored are told to `progress`, counted
/// in the report, and do not end the restore. Errors: the path or the target is unusable, a bad pattern (`Input`), no
/// space left (`Full`), stopped (`Interrupted`). Whatever happens, no half file stays behind; a new target that is
/// not complete keeps its mark (see `target`), so that the next restore completes it.
pub fn run(
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
    path: &[u8],
    options: &RestoreOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<RestoreReport> {
    run_within(repository, snapshot, path, options, progress, stop, batch::Limits::DEFAULT)
}

/// As `run`, in batches of another size.
fn run_within(
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
    path: &[u8],
    options: &RestoreOptions,
    progress: &dyn Progress,
    stop: &Stop,
    limits: batch::Limits,
) -> Result<RestoreReport> {
    let began = Instant::now();
    stop.check()?;
    let include = Patterns::from_arguments(&options.include)?;
    let exclude = Patterns::from_arguments(&options.exclude)?;
    let entry = crate::view::path::find(repository, snapshot, path)?;
    progress.stage("restoring");
    let open_files = usize::try_from(crate::os::raise_open_files()).unwrap_or(usize::MAX);
    let context = Context {
        repository,
        options,
        progress,
        stop,
        target: target::Target::open(options, open_files)?.map(Arc::new),
        root: crate::os::is_root(),
        open_files: (open_files / 4).clamp(1, limits.open_files),
        limits,
        counts: Counts::default(),
        replacing: replacing::Replacing::default(),
        noted: Mutex::default(),
        fatal: Mutex::default(),
        halted: AtomicBool::new(false),
    };
    let closed = context.close_target(&entry)?;
    // Copies tell what was matched, too.
    let walked = walk::Walk::new(&context, entry, path, include.clone(), exclude.clone()).and_then(|walk| walk.run());
    context.tell_removed();
    walked?;
    drop(closed);
    if let Some(Err(error)) = context.target.as_ref().map(|target| target.finish()) {
        context.issue(b"/", Error::io("The target could not be opened to others", error));
    }
    context.check()?;
    exclude.note_of_unused().iter().for_each(|note| progress.note(note));
    // What was asked for and is not there has not come back.
    for pattern in include.unused().into_iter().filter(|pattern| !pattern.starts_with(b"!")) {
        let message = format!("Nothing matched the pattern \"{}\"", show(pattern));
        context.issue(pattern, Error::new(ErrorKind::NotFound, message));
    }
    Ok(context.counts.report(began.elapsed()))
}

/// What all parts of one restore share.
struct Context<'a> {
    repository: &'a Arc<Repository>,
    options: &'a RestoreOptions,
    progress: &'a dyn Progress,
    stop: &'a Stop,
    /// `None` in a dry run into a folder that does not exist.
    target: Option<Arc<target::Target>>,
    root: bool,
    open_files: usize,
    limits: batch::Limits,
    counts: Counts,
    replacing: replacing::Replacing,
    noted: Mutex<HashSet<&'static str>>,
    fatal: Mutex<Option<Error>>,
    halted: AtomicBool,
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    directories: AtomicU64,
    others: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
    hard_links: AtomicU64,
    verified: AtomicU64,
    updated: AtomicU64,
    mismatched: AtomicU64,
    issues: AtomicU64,
    damaged: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counts {
    fn report(&self, elapsed: Duration) -> RestoreReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RestoreReport {
            files: get(&self.files),
            directories: get(&self.directories),
            others: get(&self.others),
            bytes: get(&self.bytes),
            skipped: get(&self.skipped),
            hard_links: get(&self.hard_links),
            verified: get(&self.verified),
            updated: get(&self.updated),
            mismatched: get(&self.mismatched),
            issues: get(&self.issues),
            damaged: get(&self.damaged),
            elapsed,
        }
    }
}

impl Context<'_> {
    /// As root, keeps the owner of a target that was there before out of it; see `Target::close_to_others`.
    fn close_target(&self, entry: &Entry) -> Result<Option<target::Closed>> {
        let Some(target) = self.target.as_ref().filter(|_| self.root && !self.options.dry_run) else { return Ok(None) };
        let shown = self.options.target.display();
        let closed = target.close_to_others(entry.meta.owner.uid);
        let closed = closed.map_err(|error| {
            let message = format!("The target \"{shown}\" belongs to another user and cannot be closed to that user");
            Error::io(message, error).with_hint("Restore into a folder that belongs to root.")
        })?;
        if closed.is_some() {
            self.note_once("closed", || {
                format!("The target \"{shown}\" belongs to another user; until the restore ends, only root can use it")
            });
        }
        Ok(closed)
    }

    /// Says what was removed that the user may not have expected to be removed.
    fn tell_removed(&self) {
        let Some(removed) = self.target.as_ref().map(|target| target.removed()).filter(|removed| removed.count > 0)
        else {
            return;
        };
        let first = self.options.target.join(as_path(&removed.first));
        let rest = match removed.count - 1 {
            0 => String::new(),
            1 => " and another one".into(),
            rest => format!(" and {rest} others"),
        };
        self.progress.note(&format!("Removed \"{}\"{rest}, which an earlier restore left unfinished", first.display()));
    }

    /// An error once the work must end: something fatal, or somebody asked to stop.
    fn check(&self) -> Result<()> {
        match self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None if self.halted.load(Ordering::Acquire) => {
                Err(Error::new(ErrorKind::Failed, "The restore was ended by an earlier error"))
            }
            None => self.stop.check(),
        }
    }

    /// Whether threads should go on.
    fn goes_on(&self) -> bool {
        !self.halted.load(Ordering::Acquire) && self.stop.signal().is_none()
    }

    /// Something could not be restored. No space left ends everything; the rest is told and counted.
    fn issue(&self, path: &[u8], error: Error) {
        if error.kind() == ErrorKind::Full {
            let full = error.context(format!("The target \"{}\" is full", self.options.target.display()));
            let full = full.with_hint("Make space or restore a part (see --include), then run the same command again.");
            self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(full);
            self.halted.store(true, Ordering::Release);
            return;
        }
        count(&self.counts.issues, 1);
        count(&self.counts.damaged, u64::from(error.kind() == ErrorKind::Damaged));
        self.progress.issue(as_path(path), &error);
    }

    /// Something is in its place, or would be.
    fn placed(&self, path: &[u8], size: u64, replaces: bool) {
        self.progress.placed(as_path(path), size, if replaces { Placed::Replaced } else { Placed::New });
    }

    /// Something was there and stays.
    fn left(&self, path: &[u8], size: u64) {
        self.progress.placed(as_path(path), size, Placed::Left);
    }

    /// Something was compared and is not as recorded.
    fn mismatch(&self, path: &[u8], error: Error) {
        count(&self.counts.mismatched, 1);
        self.issue(path, error);
    }

    /// Says something once, however often it happens.
    fn note_once(&self, kind: &'static str, message: impl FnOnce() -> String) {
        let new = self.noted.lock().unwrap_or_else(PoisonError::into_inner).insert(kind);
        if new {
            self.progress.note(&message());
        }
    }

    /// Calls `work` with each of `0..items`, in order of their beginning, from several threads; ends early when the
    /// restore must.
    fn parallel(&self, items: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let take = || {
            while self.goes_on() {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= items {
                    break;
                }
                work(item);
            }
        };
        let threads = self.options.threads.max(1).min(items);
        if threads <= 1 {
            return take();
        }
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(take);
            }
        });
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// A path for a message.
fn show(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// `dir/name`, or `name` if `dir` is empty (the target, or the root without its slash).
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
