//! The threads of a backup: one walks, several read and cut, one builds the tree; sealing and storing are the writer's.
//! Not for: what happens to a single file (`file`) or directory (`builder`).
//!
//! ```text
//! walk ── batches ──→ readers (n) ── finished, by number ──→ tree builder
//!                        └── blocks ──→ writer's threads
//! ```
//!
//! Memory: at most `IN_FLIGHT` batches of at most `BATCH_ITEMS` items between walk and builder.

use super::builder::{DirectoryCounts, TreeBuilder};
use super::file::{Change, Filer, Trouble};
use super::issues::Issues;
use super::known::{Known, Memory};
use super::meta::Reader;
use super::walk::{Event, Skip, SourceItem, Walk};
use crate::chunk::Splitter;
use crate::chunk::pieces::Chunks;
use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::IssueKind;
use crate::format::tree::{Entry, Metadata, Totals};
use crate::id::ChunkId;
use crate::os::FileType;
use crate::progress::{Progress, Stop};
use crate::repository::assemble::Assembler;
use crate::repository::files::{CachedFile, FilesCache};
use crate::repository::tree::PageCut;
use crate::repository::writer::Writer;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Batches between walk and builder; a large file at the head holds up at most this many behind it.
const IN_FLIGHT: usize = 32;
/// Items in a batch. Neighbours stay together, so that small files of a directory share blocks.
const BATCH_ITEMS: usize = 64;
/// A batch is closed once its files have this many bytes.
const BATCH_BYTES: u64 = 4 << 20;

/// What the builder receives, in walk order.
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
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
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
pub fn run(walk: Walk, job: &Job<'_>, hard_link_key: [u8; 32]) -> Result<Outcome> {
    let shared = Shared::default();
    let reader = Reader::new(hard_link_key);
    let splitter = Arc::new(job.writer.repository().splitter());
    let cut = PageCut::new(job.writer.repository().keyring());
    let mut builder = TreeBuilder::new(cut, Assembler::new(job.writer), job.files);
    let (batches, queue) = bounded::<Batch>(IN_FLIGHT);
    let (finished, results) = bounded::<(u64, Vec<Finished>)>(IN_FLIGHT);
    // A token for each batch between walk and builder.
    let (tokens, returned) = bounded::<()>(IN_FLIGHT);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (batches, tokens) = (batches, tokens);
            shared.guard(|| walk_source(walk, job, &shared, &batches, &tokens));
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
    Ok(Outcome { tree, totals, files, directories, issues })
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

fn walk_source(walk: Walk, job: &Job<'_>, shared: &Shared, batches: &Sender<Batch>, tokens: &Sender<()>) -> Result<()> {
    let mut memory = Memory::new(job.writer.repository(), job.files, job.parent);
    let mut number = 0;
    let mut steps = Vec::with_capacity(BATCH_ITEMS);
    let mut bytes = 0;
    // False once nobody receives any more.
    let mut send = |steps: &mut Vec<Step>| -> bool {
        if tokens.send(()).is_err() {
            return false;
        }
        let steps = std::mem::replace(steps, Vec::with_capacity(BATCH_ITEMS));
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
                steps.push(Step::Enter(item, known));
            }
            Event::Item(item) => {
                let is_file = item.stat.kind == FileType::File;
                job.progress.expect(1, if is_file { item.stat.size } else { 0 });
                let known = if is_file { memory.file(&item.name) } else { Known::Nothing };
                bytes += if is_file { item.stat.size } else { 0 };
                steps.push(Step::Item(item, known));
            }
            Event::Leave { .. } => {
                memory.leave();
                steps.push(Step::Leave);
            }
            Event::Skipped { path, reason } => note_skip(job, shared, &path, reason),
            Event::Issue { path, error } => {
                let kind =
                    if error.kind() == ErrorKind::NotFound { IssueKind::Vanished } else { IssueKind::Unreadable };
                shared.issue(job.progress, &path, &Trouble { kind, error });
            }
        }
        if steps.len() >= BATCH_ITEMS || bytes >= BATCH_BYTES {
            bytes = 0;
            if !send(&mut steps) {
                return Ok(());
            }
        }
    }
    if !steps.is_empty() {
        send(&mut steps);
    }
    Ok(())
}

fn note_skip(job: &Job<'_>, shared: &Shared, path: &Path, reason: Skip) {
    let path_text = path.display();
    match reason {
        Skip::Socket => job.progress.note(&format!("The socket \"{path_text}\" is not backed up")),
        Skip::Vanished => {
            let error = Error::new(ErrorKind::NotFound, format!("\"{path_text}\" was gone before it could be read"));
            shared.issue(job.progress, path, &Trouble { kind: IssueKind::Vanished, error });
        }
        Skip::Excluded => {
            job.progress.note(&format!("\"{path_text}\" was named and is excluded as well; it is left out"))
        }
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
        progress: job.progress,
        stop: job.stop,
        troubles: Vec::new(),
    };
    while let Ok(batch) = queue.recv() {
        let mut steps = Vec::with_capacity(batch.steps.len());
        for step in batch.steps {
            job.stop.check()?;
            if shared.failed.load(Ordering::Acquire) {
                return Ok(());
            }
            steps.extend(take_step(job, shared, &mut filer, step)?);
        }
        if finished.send((batch.number, steps)).is_err() {
            return Ok(());
        }
    }
    filer.assembler.flush()
}

fn take_step(job: &Job<'_>, shared: &Shared, filer: &mut Filer<'_>, step: Step) -> Result<Option<Finished>> {
    let (path, finished): (PathBuf, Option<Finished>) = match step {
        Step::Leave => return Ok(Some(Finished::Leave)),
        Step::Enter(item, known) => {
            let mut meta = filer.describe(&item, None)?;
            meta.blocks = Some(item.stat.blocks);
            let finished = Finished::Enter { name: item.name, size: item.stat.size, meta, known };
            (item.path, Some(finished))
        }
        Step::Item(item, known) => {
            job.progress.file(&item.path);
            let done = filer.item(&item, known)?;
            job.progress.files(1);
            if let Some(change) = done.as_ref().and_then(|done| done.change) {
                let mut files = lock(&shared.files);
                match change {
                    Change::New => files.new += 1,
                    Change::Changed => files.changed += 1,
                    Change::Unmodified => files.unmodified += 1,
                }
            }
            (item.path, done.map(|done| Finished::Entry { entry: done.entry, cached: done.cached }))
        }
    };
    for trouble in filer.troubles.drain(..) {
        shared.issue(job.progress, &path, &trouble);
    }
    Ok(finished)
}
