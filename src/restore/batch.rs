//! A bounded amount of work, carried out in the order in which chunks lie in packs. Not for: choosing what is restored
//! (see `walk`).
//!
//! Memory: 64 bytes a chunk and what the files, links and directories of the batch weigh: see `Limits`. While it is carried out, 40 bytes a block more, 64 bytes a chunk that a prune moves, the records of its packs, and for each
//! thread one read and one block.

use super::Context;
use super::job::{FileJob, OpenFiles};
use super::kept::{Kept, Origin};
use super::link::{Link, make_link};
use super::target::Relative;
use crate::error::{Error, ErrorKind, Result};
use crate::format::message::ChunkKind;
use crate::format::tree::{Body, Content, Metadata};
use crate::id::{ChunkId, ObjectName};
use crate::repository::index::{Index, Place};
use crate::repository::read::{ReadBlock, pack_key};
use crate::repository::refresh::{Lack, MAX_REPEATS};
use crate::repository::table::PackInfo;
use crate::view::content::check_length;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// When a batch is full, and how many files it keeps open.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Chunks.
    pub(super) chunks: usize,
    /// Files, links and directories.
    pub(super) items: usize,
    /// Bytes that they take.
    pub(super) weight: usize,
    /// Files open at a time, if the system allows as many.
    pub(super) open_files: usize,
}

impl Limits {
    /// About 64 MiB in all.
    pub(super) const DEFAULT: Limits = Limits { chunks: 262_144, items: 65_536, weight: 32 << 20, open_files: 4096 };
}

/// One read of a pack; longer only if a single frame is.
const MAX_READ: u64 = 4 << 20;
/// Bytes that are not needed are read along if they are fewer, because another read would cost more.
const MAX_GAP: u64 = 64 << 10;
/// Files without chunks that a thread takes at a time.
const SMALL_FILES: usize = 64;

/// Where one chunk goes.
#[derive(Clone)]
struct Ref {
    id: ChunkId,
    /// Where it lies; `pack` counts the packs of the batch once that is known.
    place: Place,
    job: u32,
    len: u32,
    offset: u64,
}

/// The table number of chunks that the index does not know.
const NOWHERE: u32 = u32::MAX;

/// A directory that has all its content once the batch is done.
pub(super) struct Done {
    pub(super) path: Vec<u8>,
    pub(super) relative: Relative,
    pub(super) meta: Metadata,
    pub(super) origin: Origin,
}

/// Work that has been collected.
pub(super) struct Batch {
    jobs: Vec<Arc<FileJob>>,
    refs: Vec<Ref>,
    small: Vec<Arc<FileJob>>,
    links: Vec<Link>,
    kept: Vec<Kept>,
    directories: Vec<Done>,
    weight: usize,
    open: OpenFiles,
}

/// A frame to be read, and what of it is needed.
struct Frame {
    block: u32,
    len: u32,
    offset: u64,
    refs: Range<usize>,
}

/// Frames to be read at once.
struct Run {
    pack: u32,
    frames: Range<usize>,
}

/// A batch in the order in which it is carried out.
#[derive(Default)]
struct Plan {
    packs: Vec<Arc<PackInfo>>,
    frames: Vec<Frame>,
    runs: Vec<Run>,
    /// What lies nowhere, as far as the index knows.
    lost: Range<usize>,
}

impl Batch {
    pub(super) fn new(open_files: usize) -> Self {
        Batch {
            jobs: Vec::new(),
            refs: Vec::new(),
            small: Vec::new(),
            links: Vec::new(),
            kept: Vec::new(),
            directories: Vec::new(),
            weight: 0,
            open: OpenFiles::new(open_files),
        }
    }

    /// Whether it must be carried out before more is added.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let items = self.jobs.len() + self.links.len() + self.kept.len() + self.directories.len();
        self.refs.len() >= limits.chunks || items >= limits.items || self.weight >= limits.weight
    }

    /// Adds a file; its chunks follow.
    pub(super) fn add_file(&mut self, job: Arc<FileJob>, content: &Content) {
        self.weight += 512 + job.path.len() + job.dir.len() + job.name.len() + weight(content);
        self.jobs.push(job);
    }

    /// Adds a chunk of the file that was added last.
    pub(super) fn add_chunk(&mut self, id: ChunkId, len: u32, offset: u64) {
        let Some(job) = self.jobs.last() else { return };
        job.expect_chunk();
        let place = Place { table: NOWHERE, pack: 0, block: 0 };
        self.refs.push(Ref { id, place, job: self.jobs.len() as u32 - 1, len, offset });
    }

    /// The file that was added last has no chunks to wait for.
    pub(super) fn add_small(&mut self, job: Arc<FileJob>) {
        self.small.push(job);
    }

    pub(super) fn add_link(&mut self, link: Link) {
        let content = if let Body::File { content, .. } = &link.entry.body { weight(content) } else { 0 };
        self.weight += 512 + link.path.len() + link.dir.len() + link.entry.name.len() + content;
        self.links.push(link);
    }

    /// Adds something that is left, or that was made already and is to be compared.
    pub(super) fn add_kept(&mut self, context: &Context<'_>, mut kept: Kept) {
        if let Body::File { content, .. } = &mut kept.entry.body {
            if !context.options.verify {
                *content = Content::Extents(Vec::new());
            }
            self.weight += weight(content);
        }
        self.weight += 512 + kept.path.len() + kept.dir.len() + kept.entry.name.len();
        self.kept.push(kept);
    }

    pub(super) fn add_directory(&mut self, path: Vec<u8>, relative: Relative, meta: Metadata, origin: Origin) {
        self.weight += 256 + path.len() + relative.len();
        self.directories.push(Done { path, relative, meta, origin });
    }

    /// Carries everything out; afterwards it is empty but for `unfinished`, a file of which more chunks will come.
    /// An error ends the restore.
    pub(super) fn execute(&mut self, context: &Context<'_>, unfinished: Option<&Arc<FileJob>>) -> Result<()> {
        let done = self.try_execute(context, unfinished);
        if done.is_err() {
            context.halted.store(true, Ordering::Release);
        }
        done
    }

    fn try_execute(&mut self, context: &Context<'_>, unfinished: Option<&Arc<FileJob>>) -> Result<()> {
        self.write_files(context)?;
        context.replace_now();
        let links = std::mem::take(&mut self.links);
        context.flush_directories(links.iter().filter(|link| link.replaces).map(|link| &link.dir));
        let again = Mutex::new(Vec::new());
        context.parallel(links.len(), &|at| {
            if let Some(job) = make_link(context, &self.open, &links[at]) {
                again.lock().unwrap_or_else(PoisonError::into_inner).push(job);
            }
        });
        context.replace_now();
        context.check()?;
        self.jobs.append(&mut again.into_inner().unwrap_or_else(PoisonError::into_inner));
        let kept = std::mem::take(&mut self.kept);
        if context.options.verify {
            if let Some(Err(error)) = context.target.as_ref().map(|target| target.sync()) {
                context.issue(b"/", Error::io("What was restored could not be written to the disk", error));
            }
            let jobs = &self.jobs;
            context.parallel(jobs.len(), &|at| {
                if jobs[at].is_done() {
                    jobs[at].verify(context);
                }
            });
        }
        // What was there gets its metadata before any of its new names is compared.
        context.parallel(kept.len(), &|at| context.settle_kept(&kept[at]));
        let kept: Vec<Kept> = links.into_iter().filter_map(|link| link.into_kept(context)).collect();
        context.parallel(kept.len(), &|at| context.settle_kept(&kept[at]));
        context.check()?;
        // In the order in which they were left: what is deeper comes first.
        for done in std::mem::take(&mut self.directories) {
            context.check()?;
            context.finish_directory(&done);
        }
        self.jobs.clear();
        self.jobs.extend(unfinished.cloned());
        self.weight = 0;
        Ok(())
    }

    fn write_files(&mut self, context: &Context<'_>) -> Result<()> {
        let mut refs = std::mem::take(&mut self.refs);
        let mut small = std::mem::take(&mut self.small);
        for round in 0.. {
            let index = if refs.is_empty() { None } else { Some(context.repository.index()?) };
            let plan = match &index {
                Some(index) => plan(index, &mut refs)?,
                None => Plan::default(),
            };
            let keys: Vec<_> = plan.packs.iter().map(|pack| pack_key(pack)).collect();
            context.repository.store().prepare(&keys)?;
            let moved = self.carry_out(context, &refs, &plan, &small)?;
            let (Some(index), Some(first)) = (index, moved.first()) else { break };
            let lack = Lack::Pack(plan.packs[first.place.pack as usize].name);
            (refs, small) = (moved, Vec::new());
            refs.iter_mut().for_each(|chunk| chunk.place.table = NOWHERE);
            // A prune has written them to other packs meanwhile, or they are lost, and other copies are tried one by one.
            if round == MAX_REPEATS || context.repository.newer_index(&index, lack)?.is_none() {
                let plan = Plan { lost: 0..refs.len(), ..Plan::default() };
                self.carry_out(context, &refs, &plan, &[])?;
                break;
            }
        }
        Ok(())
    }

    /// Does what is planned. Returns the chunks whose packs are gone.
    fn carry_out(&self, context: &Context<'_>, refs: &[Ref], plan: &Plan, small: &[Arc<FileJob>]) -> Result<Vec<Ref>> {
        let work = Work { context, jobs: &self.jobs, refs, plan, open: &self.open, moved: Mutex::default() };
        let portions = small.len().div_ceil(SMALL_FILES);
        context.parallel(plan.runs.len() + portions, &|at| match at.checked_sub(plan.runs.len()) {
            None => work.run(&plan.runs[at]),
            Some(portion) => {
                let from = portion * SMALL_FILES;
                for job in &small[from..small.len().min(from + SMALL_FILES)] {
                    if context.goes_on() {
                        job.write_small(context, &self.open);
                    }
                }
            }
        });
        context.parallel(plan.lost.len(), &|at| work.write_alone(&refs[plan.lost.start + at]));
        context.check()?;
        Ok(work.moved.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes that a content takes in memory.
fn weight(content: &Content) -> usize {
    match content {
        Content::Inline(bytes) => bytes.len(),
        Content::Extents(extents) => 48 * extents.len(),
        Content::List(_) => 0,
    }
}

/// Finds out where the chunks lie and sorts them by that.
fn plan(index: &Index, refs: &mut [Ref]) -> Result<Plan> {
    // The index is sorted by id: asked in this order, each of its pages is read once.
    refs.sort_unstable_by_key(|chunk| chunk.id);
    let mut packs: Vec<(u32, Arc<PackInfo>)> = Vec::new();
    let mut by_number: HashMap<(u32, u32), u32> = HashMap::new();
    let mut by_name: HashMap<ObjectName, u32> = HashMap::new();
    for same in refs.chunk_by_mut(|a, b| a.id == b.id) {
        let mut found = None;
        index.find(&same[0].id, &mut |place| {
            found = Some(place);
            false
        })?;
        let Some(mut place) = found else { continue };
        place.pack = match by_number.get(&(place.table, place.pack)) {
            Some(number) => *number,
            None => {
                let info = index.pack(place)?;
                let number = *by_name.entry(info.name).or_insert(packs.len() as u32);
                if number as usize == packs.len() {
                    packs.push((u32::MAX, info));
                }
                by_number.insert((place.table, place.pack), number);
                number
            }
        };
        place.table = 0;
        for chunk in same {
            chunk.place = place;
            let first = &mut packs[place.pack as usize].0;
            *first = (*first).min(chunk.job);
        }
    }
    // Packs in the order of the files that need them first, so that few files are open at a time.
    let mut order: Vec<u32> = (0..packs.len() as u32).collect();
    order.sort_by_key(|number| packs[*number as usize].0);
    let mut rank = vec![0; packs.len()];
    for (at, number) in order.iter().enumerate() {
        rank[*number as usize] = at as u32;
    }
    for chunk in refs.iter_mut().filter(|chunk| chunk.place.table != NOWHERE) {
        chunk.place.pack = rank[chunk.place.pack as usize];
    }
    let packs: Vec<_> = order.iter().map(|number| packs[*number as usize].1.clone()).collect();
    refs.sort_unstable_by_key(|chunk| {
        let place = chunk.place;
        (place.table, place.pack, place.block, chunk.job, chunk.offset)
    });
    Ok(arrange(packs, refs))
}

fn arrange(packs: Vec<Arc<PackInfo>>, refs: &mut [Ref]) -> Plan {
    let mut frames: Vec<Frame> = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    // A block that its pack does not have is nowhere.
    for chunk in refs.iter_mut().filter(|chunk| chunk.place.table != NOWHERE) {
        if packs[chunk.place.pack as usize].frames.len() <= chunk.place.block as usize {
            chunk.place.table = NOWHERE;
        }
    }
    refs.sort_by_key(|chunk| chunk.place.table == NOWHERE);
    let known = refs.partition_point(|chunk| chunk.place.table != NOWHERE);
    // Where the next frame of the pack at hand begins.
    let (mut pack, mut next, mut at) = (None, 0, 0);
    let mut from = 0;
    for same in refs[..known].chunk_by(|a, b| (a.place.pack, a.place.block) == (b.place.pack, b.place.block)) {
        let Place { pack: number, block, .. } = same[0].place;
        let lengths = &packs[number as usize].frames;
        let fresh = pack != Some(number);
        if fresh {
            (pack, next, at) = (Some(number), 0, crate::format::header::HEADER_LEN as u64);
        }
        at += lengths[next..block as usize].iter().map(|len| u64::from(*len)).sum::<u64>();
        let len = lengths[block as usize];
        let refs = from..from + same.len();
        from = refs.end;
        frames.push(Frame { block, len, offset: at, refs });
        let joins = !fresh
            && runs.last().is_some_and(|run| {
                let (first, last) = (&frames[run.frames.start], &frames[run.frames.end - 1]);
                at - (last.offset + u64::from(last.len)) <= MAX_GAP && at + u64::from(len) - first.offset <= MAX_READ
            });
        match runs.last_mut() {
            Some(run) if joins => run.frames.end = frames.len(),
            _ => runs.push(Run { pack: number, frames: frames.len() - 1..frames.len() }),
        }
        (next, at) = (block as usize + 1, at + u64::from(len));
    }
    Plan { packs, frames, runs, lost: known..refs.len() }
}

/// What the threads that carry out a batch share.
struct Work<'a> {
    context: &'a Context<'a>,
    jobs: &'a [Arc<FileJob>],
    refs: &'a [Ref],
    plan: &'a Plan,
    open: &'a OpenFiles,
    /// Chunks whose pack is gone.
    moved: Mutex<Vec<Ref>>,
}

impl Work<'_> {
    fn job(&self, chunk: &Ref) -> &Arc<FileJob> {
        &self.jobs[chunk.job as usize]
    }

    fn run(&self, run: &Run) {
        let frames = &self.plan.frames[run.frames.clone()];
        // What only files need that are given up already is not read.
        let wanted = |frame: &Frame| self.refs[frame.refs.clone()].iter().any(|chunk| !self.job(chunk).has_failed());
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return };
        let pack = &self.plan.packs[run.pack as usize];
        let mut bytes = Vec::new();
        if frames.iter().any(wanted) {
            bytes.resize((last.offset + u64::from(last.len) - first.offset) as usize, 0);
            match self.context.repository.store().get_range(&pack_key(pack), first.offset, &mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let refs = &self.refs[first.refs.start..last.refs.end];
                    self.moved.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(refs);
                    return;
                }
                // Chunk by chunk below: perhaps only a part of the pack cannot be read, perhaps there are other copies.
                Err(_) => bytes.clear(),
            }
        }
        for frame in frames {
            if !self.context.goes_on() {
                return;
            }
            let from = (frame.offset - first.offset) as usize;
            let block = bytes
                .get_mut(from..from + frame.len as usize)
                .and_then(|frame_bytes| self.context.repository.decode_block(pack, frame.block, frame_bytes).ok());
            for chunk in &self.refs[frame.refs.clone()] {
                match &block {
                    Some(block) => self.write_from(chunk, block),
                    None => self.write_alone(chunk),
                }
            }
        }
    }

    fn write_from(&self, chunk: &Ref, block: &ReadBlock) {
        match block.chunk(ChunkKind::Content, &chunk.id) {
            Some(bytes) => self.write(chunk, bytes),
            None => self.write_alone(chunk),
        }
    }

    /// The slow way, which tries every copy of the chunk.
    fn write_alone(&self, chunk: &Ref) {
        let job = self.job(chunk);
        if job.has_failed() {
            job.release();
            return;
        }
        match self.context.repository.chunk(ChunkKind::Content, &chunk.id) {
            Ok(bytes) => self.write(chunk, &bytes),
            Err(error) => {
                // An error of the repository says nothing about space in the target.
                let kind = if error.kind() == ErrorKind::Full { ErrorKind::Failed } else { error.kind() };
                job.fail(self.context, error.with_kind(kind));
                job.release();
            }
        }
    }

    fn write(&self, chunk: &Ref, bytes: &[u8]) {
        let job = self.job(chunk);
        let written =
            check_length(bytes.len(), chunk.len).and_then(|()| job.write(self.context, self.open, chunk.offset, bytes));
        if let Err(error) = written {
            job.fail(self.context, error);
        }
        if job.release() {
            job.complete(self.context, self.open);
        }
    }
}
