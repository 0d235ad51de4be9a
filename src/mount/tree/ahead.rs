//! Programs that go through a tree (`cp -a`, `grep -r`, `rsync`) are noticed, and what they will want next is brought along: the
//! small files of the directory they are in go to the kernel before it asks for them, a whole file at a time, and the blocks of
//! what follows in the order of the tree are decoded. Not for: reading ahead inside a large file (see `read`).
//!
//! Whoever only looks at names (`find`, `du`) must not cost any data, so nothing is done until files of a directory were read in
//! order. From then on each directory that is listed counts one credit down; files read in order raise it again. Files that the
//! kernel has are read without our knowing, so when credit runs low the last file of a batch is left out on purpose: whoever
//! still goes through asks for it.
//!
//! Memory: one batch of `FILES` entries a thread, `AHEAD` bytes of decoded blocks (within the prefetcher's bound), `FOLDERS` notes.
//! What the kernel was given is its page cache, which it gives up when memory is short.

use super::numbers::{Place, SnapshotTree, Stored};
use super::prefetch::Reservation;
use super::read::Reader;
use crate::error::Result;
use crate::format::tree::{Body, Content, Extent};
use crate::id::{ChunkId, ObjectName};
use crate::view::pages::EntryRef;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Takes an inode number and all bytes of that file.
pub type Give = dyn Fn(u64, &[u8]) + Send + Sync;

/// Largest file that is given as a whole: as much as the kernel asks for at once.
pub const SMALL: u64 = 128 << 10;
/// Most files of one batch.
const FILES: usize = 1024;
/// Most bytes of one batch.
const BYTES: u64 = 4 << 20;
/// Files of the first batch of a directory whose files were only begun to be read.
const FIRST: usize = 16;
/// Directories that are brought along without a file of them being asked for.
const CREDIT: u32 = 8;
/// From here on one file of a batch is left out.
const LOW: u32 = 5;
/// Directories remembered.
const FOLDERS: usize = 64;
/// Bytes decoded ahead of the directory that is being read.
const AHEAD: u64 = 12 << 20;
/// Bytes of one file that count for this; further ones are the business of `read`.
const AHEAD_OF_FILE: u64 = 1 << 20;
/// A block of small files has about this many bytes.
const BLOCK: u64 = 512 << 10;
/// Entries looked at before the directory is looked up again.
const STEP: usize = 256;
/// Threads that give files.
const THREADS: usize = 2;
const JOBS: usize = 16;

/// Notices readers of whole trees and works ahead of them.
#[derive(Debug)]
pub struct Ahead {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
}

struct Shared {
    reader: Arc<Reader>,
    give: OnceLock<Box<Give>>,
    state: Mutex<State>,
    walk: Mutex<Option<Walk>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ahead")
    }
}

#[derive(Default)]
struct State {
    credit: u32,
    /// The latest first.
    folders: VecDeque<Folder>,
}

/// A directory of which files were read or given.
struct Folder {
    key: (u32, u64),
    /// Rank of the file read last.
    last: u64,
    /// Everything before this rank was given.
    next: u64,
    files: usize,
    busy: bool,
}

struct Job {
    tree: Arc<SnapshotTree>,
    place: Place,
    /// First rank.
    from: u64,
    files: usize,
    /// Leaves the last file out.
    probe: bool,
}

impl Ahead {
    /// Nothing is given before `connect`; blocks are decoded ahead all the same.
    pub fn new(reader: Arc<Reader>) -> Ahead {
        let (state, walk) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { reader, give: OnceLock::new(), state, walk });
        let (sender, receiver) = bounded(JOBS);
        let mut started = 0;
        for number in 0..THREADS {
            let (shared, receiver) = (shared.clone(), receiver.clone());
            let thread = std::thread::Builder::new().name(format!("ahead-{number}"));
            // Without threads there is no working ahead, which is slower and nothing worse.
            started += usize::from(thread.spawn(move || shared.run(&receiver)).is_ok());
        }
        Ahead { shared, jobs: (started > 0).then_some(sender) }
    }

    /// Says who takes the files. It is called from threads of this object only.
    pub fn connect(&self, give: Box<Give>) {
        drop(self.shared.give.set(give));
    }

    /// A directory was listed to its end.
    pub fn listed(&self, tree: &Arc<SnapshotTree>, place: Place) {
        let mut state = lock(&self.shared.state);
        let key = (tree.slot(), place.rank);
        if state.credit == 0 || state.folders.iter().any(|folder| folder.key == key) {
            return;
        }
        state.credit -= 1;
        let probe = state.credit < LOW;
        state.remember(Folder { key, last: place.rank, next: place.rank + 1, files: FILES, busy: true });
        self.send(&mut state, Job { tree: tree.clone(), place, from: place.rank + 1, files: FILES, probe });
    }

    /// Somebody began to read a file.
    pub fn opened(&self, file: &Stored) {
        let mut state = lock(&self.shared.state);
        let key = (file.tree.slot(), file.parent);
        let Some(at) = state.folders.iter().position(|folder| folder.key == key) else {
            state.remember(Folder { key, last: file.rank, next: file.rank + 1, files: FIRST, busy: false });
            return;
        };
        let Some(mut folder) = state.folders.remove(at) else { return };
        let in_order = file.rank > folder.last;
        folder.last = file.rank;
        folder.next = folder.next.max(file.rank + 1);
        // A batch that was given and used up is followed by one that is twice as large.
        let wanted = in_order && !folder.busy && folder.next == file.rank + 1;
        if in_order {
            state.credit = CREDIT;
        }
        let (from, files) = (folder.next, folder.files);
        folder.busy |= wanted;
        folder.files = (2 * files).min(FILES);
        state.remember(folder);
        drop(state);
        if !wanted {
            return;
        }
        let job = match file.tree.place_of(file.parent) {
            Ok(Some(place)) => Job { tree: file.tree.clone(), place, from, files, probe: false },
            // Whoever reads it meets the error.
            Ok(None) | Err(_) => return,
        };
        self.send(&mut lock(&self.shared.state), job);
    }

    fn send(&self, state: &mut State, job: Job) {
        let key = (job.tree.slot(), job.place.rank);
        if self.jobs.as_ref().is_none_or(|jobs| jobs.try_send(job).is_err()) {
            state.done(key, None);
        }
    }
}

impl State {
    fn remember(&mut self, folder: Folder) {
        self.folders.truncate(FOLDERS - 1);
        self.folders.push_front(folder);
    }

    fn done(&mut self, key: (u32, u64), next: Option<u64>) {
        if let Some(folder) = self.folders.iter_mut().find(|folder| folder.key == key) {
            folder.busy = false;
            folder.next = folder.next.max(next.unwrap_or(0));
        }
    }
}

impl Shared {
    fn run(&self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let key = (job.tree.slot(), job.place.rank);
            // Errors are left to the reader who really wants the bytes.
            let next = self.batch(&job).ok();
            lock(&self.state).done(key, next);
        }
    }

    /// Gives the files of one batch; the rank behind the last of them.
    fn batch(&self, job: &Job) -> Result<u64> {
        self.walk_on(&job.tree, job.from)?;
        let pages = job.tree.pages();
        let start = pages.position(&job.place.directory, job.from - job.place.rank - 1)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut next = job.place.rank + 1 + job.place.directory.totals.entries;
        job.tree.list(&job.place, start, &mut |_, stored| {
            let Body::File { size, .. } = stored.entry.body else { return Ok(true) };
            if !(1..=SMALL).contains(&size) {
                return Ok(true);
            }
            if batch.len() >= job.files || bytes + size > BYTES {
                next = stored.rank;
                return Ok(false);
            }
            bytes += size;
            batch.push(stored);
            Ok(true)
        })?;
        if job.probe
            && let Some(left_out) = batch.pop()
        {
            next = left_out.rank;
        }
        let give = self.give.get();
        for stored in &batch {
            let given = match give {
                Some(give) => stored.ino().and_then(|ino| self.reader.whole(&stored.entry, &mut |all| give(ino, all))),
                None => self.reader.whole(&stored.entry, &mut |_| {}),
            };
            // A damaged file is told to whoever asks for it; the others are not.
            drop(given);
        }
        Ok(next)
    }

    /// Has what follows this rank in the order of the tree decoded.
    fn walk_on(&self, tree: &Arc<SnapshotTree>, rank: u64) -> Result<()> {
        let Ok(mut walk) = self.walk.try_lock() else { return Ok(()) };
        let goes_on = walk.as_ref().is_some_and(|walk| walk.covers(tree, rank));
        if !goes_on {
            *walk = Some(Walk::from(tree, rank)?);
        }
        match walk.as_mut().map(|walk| walk.advance(&self.reader, rank)) {
            Some(Err(error)) => {
                *walk = None;
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// A walk through a tree ahead of a reader.
struct Walk {
    tree: Arc<SnapshotTree>,
    /// Directories on the way down to the place reached, each with the position of the next entry.
    stack: Vec<(Place, u64)>,
    start: u64,
    reached: u64,
    /// Blocks loaded for files of these ranks.
    held: VecDeque<(u64, u64, Reservation)>,
    last: Option<(ObjectName, u32)>,
}

impl Walk {
    /// Begins at the entry of this rank.
    fn from(tree: &Arc<SnapshotTree>, rank: u64) -> Result<Walk> {
        let top = tree.top()?;
        let mut place = Place { rank: top.rank, directory: top.directory };
        let mut stack = Vec::new();
        loop {
            let inside = rank.saturating_sub(place.rank + 1);
            let Some(found) = tree.pages().by_rank(&place.directory, inside)? else { break };
            let position = tree.pages().position(&place.directory, inside)?;
            let reached = place.rank + 1 + found.rank;
            match crate::view::pages::Directory::of(&found.entry) {
                Some(directory) if reached < rank => {
                    stack.push((place, position + 1));
                    place = Place { rank: reached, directory };
                }
                _ => {
                    stack.push((place, position));
                    break;
                }
            }
        }
        let held = VecDeque::new();
        Ok(Walk { tree: tree.clone(), stack, start: rank, reached: rank, held, last: None })
    }

    fn covers(&self, tree: &Arc<SnapshotTree>, rank: u64) -> bool {
        self.tree.slot() == tree.slot() && (self.start..=self.reached).contains(&rank)
    }

    /// The reader is at this rank now: goes on until enough lies ahead.
    fn advance(&mut self, reader: &Reader, rank: u64) -> Result<()> {
        while self.held.front().is_some_and(|(of, ..)| *of < rank) {
            self.held.pop_front();
        }
        let mut ahead: u64 = self.held.iter().map(|(_, bytes, _)| bytes).sum();
        while ahead < AHEAD
            && let Some((place, position)) = self.stack.pop()
        {
            let tree = self.tree.clone();
            let (mut next, mut below, mut looked, mut full) = (position, None, 0, false);
            tree.list(&place, position, &mut |position, stored| {
                if looked == STEP || ahead >= AHEAD || full {
                    return Ok(false);
                }
                looked += 1;
                self.reached = stored.rank;
                full = !self.load(reader, &stored.entry, stored.rank, &mut ahead);
                // What did not go into the queue is tried again the next time.
                next = position + u64::from(!full);
                below = stored.place();
                Ok(below.is_none() && !full)
            })?;
            if next > position || full {
                self.stack.push((place, next));
            }
            if full {
                break;
            }
            self.stack.extend(below.map(|below| (below, 0)));
        }
        Ok(())
    }

    /// Has the first blocks of a file loaded; `false` if there is no room for it now.
    fn load(&mut self, reader: &Reader, entry: &EntryRef, rank: u64, ahead: &mut u64) -> bool {
        let Body::File { content: Content::Extents(extents), .. } = &entry.body else { return true };
        let mut of_file = 0;
        for extent in extents {
            let Extent::Chunk { id, len } = extent else { continue };
            if !self.load_chunk(reader, *id, u64::from(*len), rank, ahead) {
                return false;
            }
            of_file += u64::from(*len);
            if of_file >= AHEAD_OF_FILE {
                break;
            }
        }
        true
    }

    fn load_chunk(&mut self, reader: &Reader, id: ChunkId, len: u64, rank: u64, ahead: &mut u64) -> bool {
        let found = reader.repository().place(&id);
        let Some((pack, block)) = found.filter(|_| found != self.last) else { return true };
        self.last = found;
        if reader.repository().is_cached(&pack, block) {
            return true;
        }
        let bytes = len.max(BLOCK);
        let Some(held) = reader.prefetcher().load(id, bytes) else {
            self.last = None;
            return false;
        };
        *ahead += bytes;
        self.held.push_back((rank, bytes, held));
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
