//! The threads of a backup: one walks, several read and cut, one builds the tree; sealing and storing are the writer's.
//! Not for: what happens to a single file (`file`) or directory (`builder`).
//!
//! ```text
//! walk ── batches ──→ readers (n) ── finished, by number ──→ tree builder
//!                        └── blocks ──→ writer's threads
//! ```
//!
//! Memory and open files: at most `IN_FLIGHT` batches (see `Bounds`) between walk and builder.

use super::builder::{DirectoryCounts, TreeBuilder};
use super::calm::Clocks;
use super::file::{Done, Doubt, Filer, Resolved, Trouble};
use super::issues::Issues;
use super::known::{Known, Memory};
use super::meta::Reader;
use super::own::Own;
use super::walk::{Event, Handle, Skip, SourceItem, Walk};
use crate::chunk::Splitter;
use crate::chunk::pieces::Chunks;
use crate::chunk::secret::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::IssueKind;
use crate::format::tree::{Entry, Metadata, Totals};
use crate::id::ChunkId;
use crate::os::FileType;
use crate::progress::{Compared, Progress, Stop};
use crate::repository::assemble::Assembler;
use crate::repository::files::{CachedFile, FilesCache};
use crate::repository::tree::PageCut;
use crate::repository::writer::Writer;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Batches between walk and builder; a large file at the head holds up at most this many behind it.
const IN_FLIGHT: usize = 32;
/// Items in a batch. Neighbours stay together, so that small files of a directory share blocks.
const BATCH_ITEMS: usize = 64;
/// A batch is closed once its files have this many bytes.
const BATCH_BYTES: u64 = 4 << 20;
/// A batch is closed once the paths in it have this many bytes; far below `/` each may have a million.
const BATCH_PATHS: usize = 64 << 10;
/// A doubtful file is read again after this time: a call that writes goes on meanwhile, unless its disk is stuck for longer.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// A doubtful file that differs is read anew and once more after a while, before it is recorded as unreliable.
const ROUNDS: u32 = 2;

/// What may be between walk and builder at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// Batches.
    in_flight: usize,
    /// Directories that the steps of a batch keep open.
    directories: usize,
}

impl Bounds {
    /// A quarter of the files that may be open are for directories in flight; the walk, the repository and the files that are
    /// read need the others.
    fn new(open_files: u64) -> Bounds {
        let directories = usize::try_from(open_files / 4).unwrap_or(usize::MAX);
        let in_flight = IN_FLIGHT.min(directories).max(2);
        Bounds { in_flight, directories: (directories / in_flight).clamp(1, BATCH_ITEMS) }
    }
}

/// Collects the steps of a batch until it is full.
struct Collector {
    bounds: Bounds,
    steps: Vec<Step>,
    bytes: u64,
    paths: usize,
    directories: usize,
    /// The directory that the last item keeps open.
    open: Option<Arc<OwnedFd>>,
}

impl Collector {
    fn new(bounds: Bounds) -> Collector {
        Collector { bounds, steps: Vec::with_capacity(BATCH_ITEMS), bytes: 0, paths: 0, directories: 0, open: None }
    }

    fn push(&mut self, step: Step) {
        if let Step::Enter(item, _) | Step::Item(item, _) = &step {
            self.paths += item.path.as_os_str().len();
            self.bytes += if item.stat.kind == FileType::File { item.stat.size } else { 0 };
            let (Handle::Itself(directory) | Handle::In(directory)) = &item.handle;
            // One that comes up again later counts again: more is counted than is open, never less.
            if !self.open.as_ref().is_some_and(|open| Arc::ptr_eq(open, directory)) {
                self.directories += 1;
                self.open = Some(directory.clone());
            }
        }
        self.steps.push(step);
    }

    fn is_full(&self) -> bool {
        self.steps.len() >= BATCH_ITEMS
            || self.bytes >= BATCH_BYTES
            || self.paths >= BATCH_PATHS
            || self.directories >= self.bounds.directories
    }

    fn take(&mut self) -> Vec<Step> {
        std::mem::replace(self, Collector::new(self.bounds)).steps
    }
}

/// What the builder receives, in walk order.
#[allow(clippy::large_enum_variant)] // Nearly all are entries.
pub enum Finished {
    /// A directory begins.
    Enter {
        /// Name in the directory above.
        name: Vec<u8>,
        /// `st_size`.
        size: u64,
        /// Its metadata.
        meta: Metadata,
        /// Whether it was there the last time.
        known: bool,
    },
    /// Anything else.
    Entry {
        /// As recorded.
        entry: Entry,
        /// What to remember of it.
        cached: Option<CachedFile>,
        /// How a regular file compares with the last time.
        change: Option<Compared>,
    },
    /// The directory ends.
    Leave,
}

/// Counts of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounts {
    /// Not there the last time.
    pub new: u64,
    /// Different from the last time.
    pub changed: u64,
    /// As the last time.
    pub unmodified: u64,
}

/// What a run through the source yields.
pub struct Outcome {
    /// The snapshot's root page.
    pub tree: ChunkId,
    /// Totals below "/".
    pub totals: Totals,
    /// Files.
    pub files: FileCounts,
    /// Directories.
    pub directories: DirectoryCounts,
    /// What went wrong.
    pub issues: Issues,
    /// Named paths that are in the tree.
    pub sources: u64,
}

/// Everything that the threads share.
pub struct Job<'a> {
    /// Stores what is new.
    pub writer: &'a Writer,
    /// What files looked like the last time.
    pub files: Option<&'a FilesCache>,
    /// Top page of the parent snapshot's "/".
    pub parent: Option<ChunkId>,
    /// Read everything again.
    pub force: bool,
    /// Where there are no change times, size and modification time decide.
    pub trust_mtime: bool,
    /// Reading threads.
    pub threads: usize,
    /// Told of everything.
    pub progress: &'a dyn Progress,
    /// Asked often.
    pub stop: &'a Stop,
}

enum Step {
    Enter(SourceItem, bool),
    Item(SourceItem, Known),
    Leave,
}

struct Batch {
    number: u64,
    steps: Vec<Step>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<FileCounts>,
    issues: Mutex<Issues>,
    sources: AtomicU64,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
    /// It was said why files are read again that seem to be unmodified.
    noted_timeless: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn issue(&self, progress: &dyn Progress, path: &Path, trouble: &Trouble) {
        progress.issue(path, &trouble.error);
        lock(&self.issues).add(path, trouble.kind, &trouble.error.chain());
    }

    fn guard(&self, work: impl FnOnce() -> Result<()>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Failed, "A thread of the backup panicked; this is a defect of firn"))
        });
        if let Err(error) = outcome {
            lock(&self.failure).get_or_insert(error);
            self.failed.store(true, Ordering::Release);
        }
    }
}

/// Walks the source and stores it; the tree is complete when this returns, but not yet durable.
pub fn run(walk: Walk, job: &Job<'_>, hard_link_key: Secret) -> Result<Outcome> {
    let shared = Shared::default();
    let reader = Reader::new(hard_link_key);
    let splitter = Arc::new(job.writer.repository().splitter());
    let cut = PageCut::new(job.writer.repository().keyring());
    let mut builder = TreeBuilder::new(cut, Assembler::new(job.writer), job.files, job.progress);
    let bounds = Bounds::new(crate::os::raise_open_files());
    let (batches, queue) = bounded::<Batch>(bounds.in_flight);
    let (finished, results) = bounded::<(u64, Vec<Finished>)>(bounds.in_flight);
    // A token for each batch between walk and builder.
    let (tokens, returned) = bounded::<()>(bounds.in_flight);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (batches, tokens) = (batches, tokens);
            shared.guard(|| walk_source(walk, job, &shared, bounds, &batches, &tokens));
        });
        for _ in 0..job.threads.max(1) {
            let (queue, finished, splitter) = (queue.clone(), finished.clone(), splitter.clone());
            let (shared, reader) = (&shared, &reader);
            scope.spawn(move || shared.guard(|| read_batches(job, shared, reader, splitter, &queue, &finished)));
        }
        drop((queue, finished));
        shared.guard(|| build(&mut builder, &shared, &results, &returned));
        // Whoever still waits for room must not wait for ever once the builder has stopped.
        drop((results, returned));
    });
    if let Some(error) = lock(&shared.failure).take() {
        return Err(error);
    }
    job.stop.check()?;
    let (tree, totals, directories) = builder.finish()?;
    let files = *lock(&shared.files);
    let issues = std::mem::take(&mut *lock(&shared.issues));
    let sources = shared.sources.load(Ordering::Relaxed);
    Ok(Outcome { tree, totals, files, directories, issues, sources })
}

fn build(
    builder: &mut TreeBuilder<'_>,
    shared: &Shared,
    results: &Receiver<(u64, Vec<Finished>)>,
    returned: &Receiver<()>,
) -> Result<()> {
    let mut next = 0;
    let mut early: BTreeMap<u64, Vec<Finished>> = BTreeMap::new();
    while let Ok((number, steps)) = results.recv() {
        if shared.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        early.insert(number, steps);
        while let Some(steps) = early.remove(&next) {
            for step in steps {
                builder.take(step)?;
            }
            next += 1;
            // There is one: it was sent before the batch.
            let _token = returned.try_recv();
        }
    }
    Ok(())
}

fn walk_source(
    walk: Walk,
    job: &Job<'_>,
    shared: &Shared,
    bounds: Bounds,
    batches: &Sender<Batch>,
    tokens: &Sender<()>,
) -> Result<()> {
    let mut memory = Memory::new(job.writer.repository(), job.files, job.parent);
    let mut number = 0;
    let mut batch = Collector::new(bounds);
    // False once nobody receives any more.
    let mut send = |steps: Vec<Step>| -> bool {
        if tokens.send(()).is_err() {
            return false;
        }
        number += 1;
        batches.send(Batch { number: number - 1, steps }).is_ok()
    };
    for event in walk {
        job.stop.check()?;
        if shared.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        match event {
            Event::Enter(item) => {
                let known = memory.enter(&item.name);
                batch.push(Step::Enter(item, known));
            }
            Event::Item(item) => {
                let is_file = item.stat.kind == FileType::File;
                job.progress.expect(1, if is_file { item.stat.size } else { 0 });
                let known = if is_file { memory.file(&item.name) } else { Known::Nothing };
                batch.push(Step::Item(item, known));
            }
            Event::Leave { .. } => {
                memory.leave();
                batch.push(Step::Leave);
            }
            Event::Skipped { path, reason } => note_skip(job, shared, &path, reason),
            Event::Issue { path, error } => {
                let kind =
                    if error.kind() == ErrorKind::NotFound { IssueKind::Vanished } else { IssueKind::Unreadable };
                shared.issue(job.progress, &path, &Trouble { kind, error });
            }
        }
        if batch.is_full() && !send(batch.take()) {
            return Ok(());
        }
    }
    let rest = batch.take();
    if !rest.is_empty() {
        send(rest);
    }
    Ok(())
}

fn note_skip(job: &Job<'_>, shared: &Shared, path: &Path, reason: Skip) {
    let path_text = path.display();
    let note = |what: &str| job.progress.note(&format!("\"{path_text}\" {what}"));
    match reason {
        Skip::Socket => job.progress.note(&format!("The socket \"{path_text}\" is not backed up")),
        Skip::Vanished => {
            let error = Error::new(ErrorKind::NotFound, format!("\"{path_text}\" was gone before it could be read"));
            shared.issue(job.progress, path, &Trouble { kind: IssueKind::Vanished, error });
        }
        Skip::Excluded => {
            let message = format!("\"{path_text}\" was named, and an exclude pattern matches it; it is left out");
            let error = Error::new(ErrorKind::Failed, message);
            shared.issue(job.progress, path, &Trouble { kind: IssueKind::Skipped, error });
        }
        Skip::Own(Own::Repository) => note("is a firn repository; what is in it is left out, unless it is named"),
        Skip::Own(Own::Mount) => note("is a mount of firn; what is in it is left out, unless it is named"),
        Skip::Own(Own::Cache) => note("is a cache of firn; what is in it is left out, unless it is named"),
        Skip::Own(Own::Partial) => note("was left unfinished by a restore; it is left out, unless it is named"),
        Skip::OtherFilesystem | Skip::Cache => {}
    }
}

fn read_batches(
    job: &Job<'_>,
    shared: &Shared,
    reader: &Reader,
    splitter: Arc<Splitter>,
    queue: &Receiver<Batch>,
    finished: &Sender<(u64, Vec<Finished>)>,
) -> Result<()> {
    let mut filer = Filer {
        writer: job.writer,
        assembler: Assembler::new(job.writer),
        reader,
        chunks: Chunks::new(splitter),
        force: job.force,
        trust_mtime: job.trust_mtime,
        progress: job.progress,
        stop: job.stop,
        troubles: Vec::new(),
        clocks: Clocks::default(),
        timeless: None,
    };
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    while let Some(next) = next_work(queue, &mut waiting) {
        job.stop.check()?;
        let done = match next {
            Work::Batch(batch) => match read_batch(job, shared, &mut filer, batch)? {
                None => return Ok(()),
                Some(done) => done,
            },
            Work::Nothing => continue,
            Work::Waiting(mut done) => {
                done.round += 1;
                resolve(job, shared, &mut filer, &mut done)?;
                done
            }
        };
        if !done.doubts.is_empty() {
            waiting.push_back(done);
        } else if finished.send((done.number, done.steps)).is_err() {
            return Ok(());
        }
    }
    filer.note_timeless(&shared.noted_timeless);
    filer.assembler.flush()
}

/// What a reading thread turns to next.
enum Work {
    Batch(Batch),
    /// A batch whose doubtful files are due.
    Waiting(Waiting),
    /// Nothing is due yet.
    Nothing,
}

/// A batch that was read, with files that have to be read again after a while: others are read in the meantime.
struct Waiting {
    number: u64,
    steps: Vec<Finished>,
    /// Which of the steps, and what is known of the file.
    doubts: Vec<(usize, Doubt)>,
    round: u32,
}

impl Waiting {
    /// How long until the last of the doubtful files may be read again.
    fn wait(&self) -> Duration {
        let read = self.doubts.iter().map(|(_, doubt)| doubt.read).max();
        read.map_or(Duration::ZERO, |read| (read + READ_AGAIN).saturating_duration_since(Instant::now()))
    }
}

/// `None` once everything is done.
fn next_work(queue: &Receiver<Batch>, waiting: &mut VecDeque<Waiting>) -> Option<Work> {
    let Some(first) = waiting.front() else { return queue.recv().ok().map(Work::Batch) };
    let wait = first.wait();
    if wait.is_zero() {
        return waiting.pop_front().map(Work::Waiting);
    }
    // Not longer than it may take to notice that somebody asked to stop.
    let wait = wait.min(Duration::from_millis(100));
    match queue.recv_timeout(wait) {
        Ok(batch) => return Some(Work::Batch(batch)),
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
    }
    Some(Work::Nothing)
}

/// `None` if another thread has failed.
fn read_batch(job: &Job<'_>, shared: &Shared, filer: &mut Filer<'_>, batch: Batch) -> Result<Option<Waiting>> {
    let (mut steps, mut doubts) = (Vec::with_capacity(batch.steps.len()), Vec::new());
    for step in batch.steps {
        job.stop.check()?;
        if shared.failed.load(Ordering::Acquire) {
            return Ok(None);
        }
        let (finished, doubt) = take_step(job, shared, filer, step)?;
        doubts.extend(doubt.map(|doubt| (steps.len(), doubt)));
        steps.extend(finished);
    }
    Ok(Some(Waiting { number: batch.number, steps, doubts, round: 0 }))
}

/// Reads the doubtful files of a batch again. Those that differ become doubtful once more, or are given up in the last round.
fn resolve(job: &Job<'_>, shared: &Shared, filer: &mut Filer<'_>, batch: &mut Waiting) -> Result<()> {
    for (at, doubt) in std::mem::take(&mut batch.doubts) {
        job.stop.check()?;
        let Some(Finished::Entry { entry, cached, .. }) = batch.steps.get_mut(at) else { continue };
        if let Resolved::Different(again) = filer.resolve(&doubt, entry, batch.round == ROUNDS)? {
            match again {
                Some(again) => {
                    (*entry, *cached) = (again.entry, again.cached);
                    batch.doubts.extend(again.doubt.map(|doubt| (at, doubt)));
                }
                None => filer.give_up(&doubt, entry),
            }
        }
        for trouble in filer.troubles.drain(..) {
            shared.issue(job.progress, doubt.path(), &trouble);
        }
    }
    Ok(())
}

fn take_step(
    job: &Job<'_>,
    shared: &Shared,
    filer: &mut Filer<'_>,
    step: Step,
) -> Result<(Option<Finished>, Option<Doubt>)> {
    let (path, finished, doubt): (PathBuf, Option<Finished>, Option<Doubt>) = match step {
        Step::Leave => return Ok((Some(Finished::Leave), None)),
        Step::Enter(item, known) => {
            let mut meta = filer.describe(&item, None)?;
            meta.blocks = Some(item.stat.blocks);
            shared.sources.fetch_add(item.named.into(), Ordering::Relaxed);
            let finished = Finished::Enter { name: item.name, size: item.stat.size, meta, known };
            (item.path, Some(finished), None)
        }
        Step::Item(item, known) => {
            job.progress.file(&item.path);
            let mut done = filer.item(&item, known)?;
            job.progress.files(1);
            if let Some(change) = done.as_ref().and_then(|done| done.change) {
                let mut files = lock(&shared.files);
                match change {
                    Compared::New => files.new += 1,
                    Compared::Changed => files.changed += 1,
                    Compared::Unchanged => files.unmodified += 1,
                }
            }
            shared.sources.fetch_add((item.named && done.is_some()).into(), Ordering::Relaxed);
            let doubt = done.as_mut().and_then(|done| done.doubt.take());
            let finished = done.map(|Done { entry, cached, change, .. }| Finished::Entry { entry, cached, change });
            (item.path, finished, doubt)
        }
    };
    for trouble in filer.troubles.drain(..) {
        shared.issue(job.progress, &path, &trouble);
    }
    Ok((finished, doubt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os;

    fn item(path: String, directory: &Arc<OwnedFd>) -> SourceItem {
        let stat = os::Stat { kind: FileType::Fifo, ..os::stat_fd(directory).unwrap() };
        SourceItem {
            path: path.into(),
            name: b"n".to_vec(),
            stat,
            handle: Handle::In(directory.clone()),
            waypoint: false,
            named: false,
        }
    }

    fn directory() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/").unwrap().into())
    }

    // How many items make a batch full.
    fn filled_by(bounds: Bounds, mut next: impl FnMut() -> Step) -> usize {
        let mut batch = Collector::new(bounds);
        while !batch.is_full() {
            batch.push(next());
        }
        let steps = batch.take().len();
        assert!(!batch.is_full() && batch.take().is_empty());
        steps
    }

    #[test]
    fn a_batch_is_bounded_by_its_paths_its_bytes_and_its_directories() {
        let bounds = Bounds::new(1 << 20);
        let one = directory();
        assert_eq!(filled_by(bounds, || Step::Leave), BATCH_ITEMS);
        assert_eq!(filled_by(bounds, || Step::Item(item("/n".into(), &one), Known::Nothing)), BATCH_ITEMS);
        let deep = "/name".repeat(4000);
        assert_eq!(filled_by(bounds, || Step::Item(item(deep.clone(), &one), Known::Nothing)), 4);
        assert_eq!(filled_by(bounds, || Step::Item(item("x".repeat(1 << 20), &one), Known::Nothing)), 1);
        let bounds = Bounds { directories: 3, ..bounds };
        assert_eq!(filled_by(bounds, || Step::Item(item("/n".into(), &directory()), Known::Nothing)), 3);
        let large = || {
            let mut item = item("/n".into(), &one);
            (item.stat.kind, item.stat.size) = (FileType::File, BATCH_BYTES / 2);
            item
        };
        assert_eq!(filled_by(bounds, || Step::Item(large(), Known::Nothing)), 2);
    }

    #[test]
    fn few_open_files_mean_few_directories_in_flight() {
        for open_files in [16, 64, 127, 128, 256, 1024, 4096, 1 << 20, u64::MAX] {
            let Bounds { in_flight, directories } = Bounds::new(open_files);
            assert!((2..=IN_FLIGHT).contains(&in_flight) && (1..=BATCH_ITEMS).contains(&directories));
            assert!((in_flight * directories) as u64 <= (open_files / 4), "{open_files}");
        }
        assert_eq!(Bounds::new(256), Bounds { in_flight: 32, directories: 2 });
        assert_eq!(Bounds::new(1 << 20), Bounds { in_flight: IN_FLIGHT, directories: BATCH_ITEMS });
    }
}
