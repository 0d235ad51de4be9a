//! A directory becomes a snapshot. Not for: how objects are sealed and stored (`repository`), or what a person sees (`cli`).
//!
//! `source` and `walk` say what is read and in which order, `meta` and `content` how; `known` remembers the last time;
//! `file` turns one item into an entry, `calm` says when it may be torn, `builder` turns entries into directories; `pipeline`
//! holds the threads.

pub mod builder;
pub mod calm;
pub mod content;
pub mod feed;
pub mod file;
pub mod issues;
pub mod known;
pub mod meta;
mod names;
pub mod own;
pub mod pipeline;
pub mod source;
pub mod walk;

use crate::error::{Error, ErrorKind, Result};
use crate::format::config::CHUNKER;
use crate::format::json::PathText;
use crate::format::snapshot::{Head, IssueKind, Scope, Snapshot};
use crate::format::tree::Body;
use crate::id::{ChunkId, ObjectName};
use crate::pattern::Patterns;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::files::FilesCache;
use crate::repository::missing::Missing;
use crate::repository::snapshots::{Named, Snapshots};
use crate::repository::writer::{Writer, WriterOptions, Written};
use issues::Issues;
use jiff::Timestamp;
use pipeline::{Job, Outcome};
use source::Source;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use walk::Walk;

/// What to back up, and how.
#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    /// Files and directories; relative ones start from the current directory.
    pub paths: Vec<PathBuf>,
    /// Patterns of what to leave out, in order.
    pub excludes: Vec<String>,
    /// Leave out the content of directories with a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Do not cross into other file systems.
    pub one_file_system: bool,
    /// Words to choose the snapshot by.
    pub tags: Vec<String>,
    /// Name of the machine, if not its own.
    pub host: Option<String>,
    /// The moment that the snapshot stands for, if not now.
    pub time: Option<Timestamp>,
    /// A short name.
    pub label: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Store nothing.
    pub dry_run: bool,
    /// Read all files again, whatever is remembered of them.
    pub force: bool,
    /// On file systems without change times, take files of the same size and modification time for unmodified.
    pub trust_mtime: bool,
    /// zstd level.
    pub level: i32,
    /// Reading threads, and as many that seal.
    pub threads: usize,
}

/// What a backup did.
#[derive(Clone, Debug, Default)]
pub struct BackupReport {
    /// The snapshot; none on a dry run.
    pub snapshot: Option<ObjectName>,
    /// The snapshot that it was compared with.
    pub parent: Option<ObjectName>,
    /// Files not there the last time.
    pub files_new: u64,
    /// Files different from the last time.
    pub files_changed: u64,
    /// Files as the last time.
    pub files_unmodified: u64,
    /// Directories not there the last time.
    pub dirs_new: u64,
    /// Directories different from the last time.
    pub dirs_changed: u64,
    /// Directories as the last time.
    pub dirs_unmodified: u64,
    /// Regular files in the snapshot.
    pub files_total: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Bytes of new chunks, before compression.
    pub data_added: u64,
    /// Bytes stored for them.
    pub data_added_packed: u64,
    /// Files left out or unreliable.
    pub issues: u64,
    /// Earlier snapshots that are neither stored nor forgotten.
    pub missing: Vec<Missing>,
    /// Links to folders that were named without a slash at the end: only the links are in the snapshot.
    pub links: Vec<PathBuf>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Where relative paths begin. The folder in which a program stands may have been deleted; absolute paths do not need it.
fn working_folder(paths: &[PathBuf]) -> Result<PathBuf> {
    match std::env::current_dir() {
        Ok(folder) => Ok(folder),
        Err(_) if paths.iter().all(|path| path.is_absolute()) => Ok(PathBuf::from("/")),
        Err(error) => Err(Error::io("The current directory cannot be read", error)
            .with_hint("It may have been deleted: change to another one, or name absolute paths.")),
    }
}

/// Backs up the sources into a new snapshot. It exists, durable and complete, exactly if this returns a report with its name.
pub fn run(
    repository: &Arc<Repository>,
    options: &BackupOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<BackupReport> {
    let clock = Instant::now();
    let started = Timestamp::now();
    let cwd = working_folder(&options.paths)?;
    let source = Arc::new(Source::new(&options.paths, &cwd)?);
    let excludes = Patterns::from_arguments(options.excludes.iter())?;
    crate::os::raise_open_files();
    let writer_options = WriterOptions { level: options.level, threads: options.threads, dry_run: options.dry_run };
    let mut writer = Writer::begin(repository, writer_options, progress)?;
    if !options.dry_run {
        // Before this run takes what is left.
        repository.store().keep_room();
    }
    let walked = walk_and_store(repository, &writer, &source, excludes, options, progress, stop);
    // The last packs take a while; whoever asks to stop meanwhile wants no snapshot either.
    let stored = walked.and_then(|walked| writer.flush().and_then(|()| stop.check()).map(|()| walked));
    let Walked { outcome, snapshots, parent, missing } = match stored {
        Ok(walked) => walked,
        Err(error) => {
            // What was stored so far is indexed, so that the next run finds it. The first error is the one to tell.
            drop(writer.abandon());
            return Err(error);
        }
    };
    let parts = SnapshotParts { repository, options, source: &source, started, session: writer.session() };
    let files = outcome.files;
    let directories = outcome.directories;
    let issues = outcome.issues.total();
    let totals = outcome.totals;
    let parent = parent.map(|parent| parent.name);
    let (name, snapshot, written) = writer.commit(|written| parts.snapshot(outcome, &snapshots, parent, written))?;
    if !options.dry_run {
        repository.note_head(&snapshot, name);
    }
    Ok(BackupReport {
        snapshot: (!options.dry_run).then_some(name),
        parent,
        files_new: files.new,
        files_changed: files.changed,
        files_unmodified: files.unmodified,
        dirs_new: directories.new,
        dirs_changed: directories.changed,
        dirs_unmodified: directories.unmodified,
        files_total: totals.files,
        bytes_total: totals.bytes,
        data_added: written.raw,
        data_added_packed: written.stored,
        issues,
        missing,
        links: source.links().to_vec(),
        elapsed: clock.elapsed(),
    })
}

/// What came of walking the sources, and of looking at the repository before.
struct Walked {
    outcome: Outcome,
    snapshots: Snapshots,
    parent: Option<Named>,
    missing: Vec<Missing>,
}

fn walk_and_store(
    repository: &Arc<Repository>,
    writer: &Writer,
    source: &Arc<Source>,
    excludes: Patterns,
    options: &BackupOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Walked> {
    let snapshots = repository.snapshots()?;
    // They may tell of newer keys.
    repository.check_keys_are_newest()?;
    let missing = repository.missing_snapshots(&snapshots)?;
    let parent = choose_parent(writer, &snapshots, source, options)?;
    // A parent that cannot be read is no parent; whatever it would have told is found out by reading.
    let parent_page: Option<ChunkId> =
        parent.as_ref().and_then(|parent| match crate::view::path::root(repository, &parent.snapshot).ok()?.body {
            Body::Directory { page, .. } => Some(page),
            _ => None,
        });
    let cache_key = repository.keyring().local_secret("firn v1 files cache");
    let files = repository.cache().files().filter(|_| !options.dry_run).and_then(|path| {
        let opened = FilesCache::open(&path, cache_key);
        if opened.is_none() {
            progress.note("The files cache is in use by another process; all files are read");
        }
        opened
    });
    let folder = repository.store().properties().folder;
    let walk_options = Arc::new(walk::Options {
        one_file_system: options.one_file_system,
        device: None,
        exclude_caches: options.exclude_caches,
        excludes,
        repository: folder.and_then(|path| folder_id(&path)),
    });
    for (given, real) in source.moved() {
        let (given, real) = (given.display(), real.display());
        progress.note(&format!(
            "\"{given}\" lies behind a link that is backed up as a link; it is in the snapshot as \"{real}\""
        ));
    }
    let walk = Walk::new(source.clone(), walk_options.clone());
    let link_key = repository.keyring().local_secret("firn v1 hard links");
    let job = Job {
        writer,
        files: files.as_ref(),
        parent: parent_page,
        force: options.force,
        trust_mtime: options.trust_mtime,
        threads: options.threads,
        progress,
        stop,
    };
    progress.stage("backing up");
    let outcome = pipeline::run(walk, &job, link_key);
    if let Some(files) = files {
        files.close();
    }
    let mut outcome = outcome?;
    let mut issues = Issues::default();
    for (path, error) in source.missing() {
        issues.add(path, IssueKind::Unreadable, &error.chain());
        progress.issue(path, error);
    }
    issues.extend(std::mem::take(&mut outcome.issues));
    outcome.issues = issues;
    if outcome.sources == 0 {
        return Err(Error::new(ErrorKind::Failed, "Nothing was backed up: none of the sources could be")
            .with_hint("See the messages above. No snapshot was made."));
    }
    walk_options.excludes.note_of_unused().iter().for_each(|note| progress.note(note));
    Ok(Walked { outcome, snapshots, parent, missing })
}

/// Device and inode number.
fn folder_id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// The newest snapshot of the same host with the same paths, whose session has not been revoked.
fn choose_parent(
    writer: &Writer,
    snapshots: &Snapshots,
    source: &Source,
    options: &BackupOptions,
) -> Result<Option<Named>> {
    let host = options.host.clone().unwrap_or_else(crate::os::hostname);
    let paths: Vec<&[u8]> = source.paths().map(|path| path.as_os_str().as_bytes()).collect();
    let mut candidates = snapshots.live.iter().rev().filter(|named| {
        named.snapshot.host == host
            && named.snapshot.paths.iter().map(|path| path.0.as_slice()).eq(paths.iter().copied())
    });
    let Some(newest) = candidates.next() else { return Ok(None) };
    Ok((!writer.is_revoked(newest.snapshot.session)?).then(|| newest.clone()))
}

fn path_text(path: &Path) -> PathText {
    PathText(path.as_os_str().as_bytes().to_vec())
}

struct SnapshotParts<'a> {
    repository: &'a Repository,
    options: &'a BackupOptions,
    source: &'a Source,
    started: Timestamp,
    session: crate::id::SessionId,
}

impl SnapshotParts<'_> {
    fn snapshot(
        self,
        outcome: Outcome,
        snapshots: &Snapshots,
        parent: Option<ObjectName>,
        written: Written,
    ) -> Snapshot {
        let writer = self.repository.writer_id();
        let heads: BTreeMap<_, Head> = self.repository.heads(snapshots);
        let own = heads.get(&writer).copied();
        let options = self.options;
        let summary = [
            ("files_new", outcome.files.new),
            ("files_changed", outcome.files.changed),
            ("files_unmodified", outcome.files.unmodified),
            ("dirs_new", outcome.directories.new),
            ("dirs_changed", outcome.directories.changed),
            ("dirs_unmodified", outcome.directories.unmodified),
            ("data_added", written.raw),
            ("data_added_packed", written.stored),
        ];
        let finished = Timestamp::now();
        Snapshot {
            version: 1,
            program: concat!("firn ", env!("CARGO_PKG_VERSION")).to_owned(),
            writer,
            session: self.session,
            sequence: own.map_or(1, |head| head.sequence + 1),
            previous: own.map(|head| head.snapshot),
            parent,
            heads,
            seen: self.repository.seen(),
            time: options.time.unwrap_or(self.started),
            started: self.started,
            finished,
            host: options.host.clone().unwrap_or_else(crate::os::hostname),
            user: crate::os::username(),
            uid: crate::os::user_id(),
            gid: crate::os::group_id(),
            paths: self.source.paths().map(path_text).collect(),
            tags: options.tags.clone(),
            label: options.label.clone(),
            description: options.description.clone(),
            tree: outcome.tree,
            totals: outcome.totals,
            excludes: options.excludes.clone(),
            scope: Scope {
                one_file_system: options.one_file_system,
                exclude_caches: options.exclude_caches,
                followed: self.source.followed().into_iter().map(path_text).collect(),
            },
            summary: summary.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            issues_total: outcome.issues.total(),
            issues: outcome.issues.into_kept(),
            chunker: CHUNKER,
            signature: None,
        }
    }
}
