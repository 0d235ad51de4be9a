//! Ranges of files as they are asked for by programs: where the bytes lie, without copying them if possible, and what will be
//! wanted next. Not for: whole files in one go (see `content`), or the threads that read ahead (see `prefetch`).
//!
//! A stream is a reader who goes forward through a file; up to four are told apart in one file. Ahead of each, chunks are
//! loaded up to a distance that doubles with every read to 16 MiB. (Files that follow one another: see `ahead`.)
//! Memory: `STREAMS` windows of `WINDOW` extents (3 MiB at most); what is loaded ahead and not used yet is at most half the
//! block cache.

use super::prefetch::{Prefetcher, Reservation};
use crate::error::{Error, Result};
use crate::format::message::ChunkKind;
use crate::format::tree::{BlockCounter, Body, Content, Extent};
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::view::content::{Placed, check_length, extents_in};
use crate::view::pages::EntryRef;
use quick_cache::sync::Cache;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Streams remembered, the latest first.
const STREAMS: usize = 64;
/// Streams remembered of one file.
const STREAMS_OF_FILE: usize = 4;
/// Extents kept with a stream.
const WINDOW: usize = 1024;
/// Longest distance read ahead.
const FARTHEST: u64 = 16 << 20;
/// Distance read ahead after the second read.
const FIRST_DISTANCE: u64 = 1 << 20;
/// A read that begins this far before the end of the one before still belongs to the stream (requests overtake each other) …
const BACKWARDS: u64 = 1 << 20;
/// … and one this far behind it.
const FORWARDS: u64 = 4 << 20;
/// Numbers of 512-byte blocks of long files, kept because counting them takes their whole list.
const COUNTED: usize = 4096;
/// Extents of a file that are looked at to answer one question about all of them: 4 TiB of an ordinary file.
pub const MAX_WALK: usize = 4 << 20;
/// Zeros to answer from in holes.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Reads files of a repository.
#[derive(Debug)]
pub struct Reader {
    repository: Arc<Repository>,
    prefetcher: Prefetcher,
    streams: Mutex<VecDeque<Stream>>,
    counted: Cache<ChunkId, u64>,
}

/// Somebody who reads a file forwards.
#[derive(Debug)]
struct Stream {
    ino: u64,
    /// End of the farthest read.
    position: u64,
    /// Reads that continued the one before.
    run: u32,
    window: Arc<Vec<Placed>>,
    /// Up to here chunks have been asked for.
    ahead: u64,
    /// Ends of chunks loaded ahead and not reached yet.
    held: VecDeque<(u64, Reservation)>,
}

impl Reader {
    /// With this many threads that read ahead, and a block cache of this many bytes behind.
    pub fn new(repository: Arc<Repository>, threads: usize, block_cache: u64) -> Reader {
        Reader {
            prefetcher: Prefetcher::new(&repository, threads, block_cache / 2),
            repository,
            streams: Mutex::default(),
            counted: Cache::new(COUNTED),
        }
    }

    /// Calls `reply` once with the bytes `offset..min(offset + len, size)` of a file.
    pub fn read(&self, ino: u64, entry: &EntryRef, offset: u64, len: u32, reply: &mut dyn FnMut(&[u8])) -> Result<()> {
        let Body::File { size, content } = &entry.body else { return Err(not_a_file()) };
        let end = size.min(&offset.saturating_add(u64::from(len))).to_owned();
        if offset >= end {
            reply(&[]);
            return Ok(());
        }
        if let Content::Inline(bytes) = content {
            // The decoder has seen to it that there are `size` bytes.
            reply(bytes.get(offset as usize..end as usize).ok_or_else(|| short(*size))?);
            return Ok(());
        }
        let window = self.stream(ino, *size, content, offset, end)?;
        self.assemble(&window, offset, end, reply).ok_or_else(|| short(*size))?
    }

    /// Answers from the extents in the window; `None` if they do not cover the range.
    fn assemble(&self, window: &[Placed], offset: u64, end: u64, reply: &mut dyn FnMut(&[u8])) -> Option<Result<()>> {
        let first = window.partition_point(|placed| placed.end() <= offset);
        let one = window.get(first).filter(|placed| placed.offset <= offset)?;
        if one.end() >= end {
            let (from, to) = ((offset - one.offset) as usize, (end - one.offset) as usize);
            match one.extent {
                Extent::Hole(_) if end - offset <= ZEROS.len() as u64 => reply(&ZEROS[..(end - offset) as usize]),
                Extent::Hole(_) => reply(&vec![0; (end - offset) as usize]),
                Extent::Chunk { id, len } => match self.chunk(&id, len) {
                    Ok(chunk) => reply(&chunk[from..to]),
                    Err(error) => return Some(Err(error)),
                },
            }
            return Some(Ok(()));
        }
        let mut bytes = Vec::with_capacity((end - offset) as usize);
        for placed in &window[first..] {
            let from = offset + bytes.len() as u64;
            if from >= end {
                break;
            }
            if placed.offset > from {
                return None;
            }
            let to = end.min(placed.end());
            match placed.extent {
                Extent::Hole(_) => bytes.resize((to - offset) as usize, 0),
                Extent::Chunk { id, len } => match self.chunk(&id, len) {
                    Ok(chunk) => {
                        bytes.extend_from_slice(&chunk[(from - placed.offset) as usize..(to - placed.offset) as usize]);
                    }
                    Err(error) => return Some(Err(error)),
                },
            }
        }
        if bytes.len() as u64 != end - offset {
            return None;
        }
        reply(&bytes);
        Some(Ok(()))
    }

    fn chunk(&self, id: &ChunkId, len: u32) -> Result<crate::repository::read::ChunkData> {
        let chunk = self.repository.chunk(ChunkKind::Content, id)?;
        check_length(chunk.len(), len)?;
        Ok(chunk)
    }

    /// Finds the stream that this read continues or begins one, has the next chunks loaded, and returns extents that cover
    /// the range.
    fn stream(&self, ino: u64, size: u64, content: &Content, offset: u64, end: u64) -> Result<Arc<Vec<Placed>>> {
        let known = self.take(ino, offset, end);
        let enough =
            known.as_ref().is_some_and(|window| covers(window, offset, size.min(end.saturating_add(FARTHEST))));
        let window = match known {
            Some(window) if enough => window,
            // A window full of tiny chunks is shorter than the farthest distance; it must cover the range at least.
            Some(window)
                if window.len() == WINDOW && covers(&window, offset, size.min(end.saturating_add(FIRST_DISTANCE))) =>
            {
                window
            }
            _ => Arc::new(extents_in(&self.repository, content, offset, size, WINDOW)?),
        };
        let mut streams = lock(&self.streams);
        let stream = match streams.iter().position(|stream| stream.ino == ino && stream.continues(offset, end)) {
            Some(at) => {
                // The latest first, so that those at the end are the ones to forget.
                if let Some(stream) = streams.remove(at) {
                    streams.push_front(stream);
                }
                streams.front_mut()
            }
            None => {
                let mut same = 0;
                streams.retain(|stream| {
                    same += usize::from(stream.ino == ino);
                    stream.ino != ino || same < STREAMS_OF_FILE
                });
                streams.truncate(STREAMS - 1);
                let held = VecDeque::new();
                streams.push_front(Stream { ino, position: end, run: 0, window: window.clone(), ahead: end, held });
                streams.front_mut()
            }
        };
        if let Some(stream) = stream {
            stream.window = window.clone();
            self.advance(stream, end);
        }
        Ok(window)
    }

    /// The window of the stream that a read continues.
    fn take(&self, ino: u64, offset: u64, end: u64) -> Option<Arc<Vec<Placed>>> {
        let streams = lock(&self.streams);
        let stream = streams.iter().find(|stream| stream.ino == ino && stream.continues(offset, end))?;
        Some(stream.window.clone())
    }

    fn advance(&self, stream: &mut Stream, end: u64) {
        if end > stream.position {
            stream.position = end;
            stream.run += 1;
        }
        while stream.held.front().is_some_and(|(reached, _)| *reached <= stream.position) {
            stream.held.pop_front();
        }
        if stream.run == 0 {
            return;
        }
        let distance = (FIRST_DISTANCE << (stream.run - 1).min(4)).min(FARTHEST);
        let target = stream.position.saturating_add(distance);
        stream.ahead = stream.ahead.max(stream.position);
        let window = stream.window.clone();
        let from = window.partition_point(|placed| placed.offset < stream.ahead);
        for placed in &window[from..] {
            if placed.offset >= target {
                break;
            }
            let after = placed.end();
            if let Extent::Chunk { id, len } = placed.extent {
                let Some(held) = self.prefetcher.load(id, u64::from(len)) else { break };
                stream.held.push_back((after, held));
            }
            stream.ahead = after;
        }
    }

    /// Calls `give` once with all bytes of a file, which is to be a small one.
    pub fn whole(&self, entry: &EntryRef, give: &mut dyn FnMut(&[u8])) -> Result<()> {
        let Body::File { size, content } = &entry.body else { return Err(not_a_file()) };
        if let Content::Inline(bytes) = content {
            give(bytes);
            return Ok(());
        }
        let window = extents_in(&self.repository, content, 0, *size, WINDOW)?;
        self.assemble(&window, 0, *size, give).ok_or_else(|| short(*size))?
    }

    /// The threads that load chunks ahead.
    pub(super) fn prefetcher(&self) -> &Prefetcher {
        &self.prefetcher
    }

    /// The repository that is read.
    pub(super) fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Whether a range can be read without waiting for storage, as far as that is known cheaply: it lies in one chunk whose
    /// block is in memory.
    pub fn is_resident(&self, ino: u64, entry: &EntryRef, offset: u64, len: u32) -> bool {
        let Body::File { size, content } = &entry.body else { return true };
        let end = offset.saturating_add(u64::from(len)).min(*size);
        let placed = match content {
            Content::Inline(_) => return true,
            Content::Extents(_) => extents_in(&self.repository, content, offset, end, 1).unwrap_or_default(),
            Content::List(_) => {
                let Some(window) = self.take(ino, offset, end) else { return false };
                let first = window.partition_point(|placed| placed.end() <= offset);
                window.get(first).copied().into_iter().collect()
            }
        };
        match placed.first() {
            None => offset >= end,
            Some(placed) if placed.offset > offset || placed.end() < end => false,
            Some(Placed { extent: Extent::Hole(_), .. }) => true,
            Some(Placed { extent: Extent::Chunk { id, .. }, .. }) => self.repository.is_at_hand(id),
        }
    }

    /// First position at or behind `offset` in data or, if `hole`, in a hole; `None` if there is none before the end, or so far
    /// away that nobody can wait for it (the end of a file counts as a hole).
    pub fn seek(&self, entry: &EntryRef, offset: u64, hole: bool) -> Result<Option<u64>> {
        let Body::File { size, content } = &entry.body else { return Err(not_a_file()) };
        if offset >= *size {
            return Ok(None);
        }
        if matches!(content, Content::Inline(_)) {
            return Ok((!hole).then_some(offset));
        }
        let mut from = offset;
        for _ in 0..MAX_WALK / WINDOW {
            if from >= *size {
                break;
            }
            let batch = extents_in(&self.repository, content, from, *size, WINDOW)?;
            let wanted = batch.iter().find(|placed| matches!(placed.extent, Extent::Hole(_)) == hole);
            if let Some(placed) = wanted {
                return Ok(Some(placed.offset.max(offset)));
            }
            from = batch.last().map(|last| last.end()).ok_or_else(|| short(*size))?;
        }
        Ok(None)
    }

    /// `st_blocks` of an entry. That of a long file takes its whole list of extents, once; a longer one counts as without holes.
    pub fn blocks(&self, entry: &crate::format::tree::Entry) -> Result<u64> {
        match (&entry.body, entry.blocks(None)) {
            (_, Some(blocks)) => Ok(blocks),
            (Body::File { size, content: content @ Content::List(id) }, None) => {
                self.counted.get_or_insert_with(id, || {
                    let mut counter = BlockCounter::default();
                    for (number, extent) in self.repository.extents(content).enumerate() {
                        if number == MAX_WALK {
                            return Ok(size.div_ceil(512));
                        }
                        counter.push(&extent?);
                    }
                    Ok(counter.finish())
                })
            }
            (_, None) => Ok(0),
        }
    }

    /// Bytes loaded ahead and not used yet.
    pub fn ahead(&self) -> u64 {
        self.prefetcher.reserved()
    }
}

impl Stream {
    fn continues(&self, offset: u64, end: u64) -> bool {
        end.saturating_add(BACKWARDS) >= self.position && offset <= self.position.saturating_add(FORWARDS)
    }
}

fn covers(window: &[Placed], from: u64, to: u64) -> bool {
    match (window.first(), window.last()) {
        (Some(first), Some(last)) => first.offset <= from && last.end() >= to,
        _ => false,
    }
}

fn not_a_file() -> Error {
    Error::new(crate::error::ErrorKind::Input, "only regular files have contents")
}

fn short(size: u64) -> Error {
    Error::damaged(format!("a file's chunks do not cover the {size} bytes that its entry states"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
