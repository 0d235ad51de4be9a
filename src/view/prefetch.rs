//! Brings chunks into the block cache before somebody asks, on a few threads and within bounds. It only ever guesses: what it
//! cannot do at once it leaves, and errors are left to the reader who really wants the bytes. Not for: deciding what to guess
//! (see `read`).

use crate::format::message::ChunkKind;
use crate::id::ChunkId;
use crate::repository::Repository;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Jobs waiting; more are refused.
const QUEUED: usize = 128;

/// Threads that load chunks.
#[derive(Debug)]
pub struct Prefetcher {
    jobs: Option<Sender<Job>>,
    reserved: Arc<AtomicU64>,
    limit: u64,
}

struct Job {
    chunks: Vec<ChunkId>,
    /// Given back when the job is done.
    held: Option<Reservation>,
}

/// Bytes of the cache taken for chunks that were loaded ahead and not used yet; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    reserved: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Prefetcher {
    /// With this many threads; at most `limit` bytes are loaded ahead at any time.
    pub fn new(repository: &Arc<Repository>, threads: usize, limit: u64) -> Prefetcher {
        let (sender, receiver) = bounded(QUEUED);
        let mut started = 0;
        for number in 0..threads {
            let (repository, receiver) = (repository.clone(), receiver.clone());
            let thread = std::thread::Builder::new().name(format!("prefetch-{number}"));
            // Without threads there is no reading ahead, which is slower and nothing worse.
            started += usize::from(thread.spawn(move || run(&repository, &receiver)).is_ok());
        }
        Prefetcher { jobs: (started > 0).then_some(sender), reserved: Arc::default(), limit }
    }

    /// Bytes reserved now.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: u64) -> Option<Reservation> {
        let within = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(Reservation { reserved: self.reserved.clone(), bytes })
    }

    /// Loads one chunk. The caller keeps what is returned until the chunk was used; `None`: not now.
    pub fn load(&self, chunk: ChunkId, bytes: u64) -> Option<Reservation> {
        let held = self.reserve(bytes)?;
        self.send(Job { chunks: vec![chunk], held: None }).then_some(held)
    }

    /// Loads several small chunks that most likely share a few blocks. Says whether it will.
    pub fn load_all(&self, chunks: Vec<ChunkId>, bytes: u64) -> bool {
        match self.reserve(bytes) {
            Some(held) => self.send(Job { chunks, held: Some(held) }),
            None => false,
        }
    }

    fn send(&self, job: Job) -> bool {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }
}

fn run(repository: &Repository, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let mut last = None;
        for chunk in &job.chunks {
            let Some((pack, block)) = place(repository, chunk).filter(|place| last.as_ref() != Some(place)) else {
                continue;
            };
            if !repository.is_cached(&pack, block) {
                // The reader who wants this chunk meets the same error and reports it.
                drop(repository.chunk(ChunkKind::Content, chunk));
            }
            last = Some((pack, block));
        }
        drop(job.held);
    }
}

/// Pack and block of a chunk's first copy.
pub fn place(repository: &Repository, chunk: &ChunkId) -> Option<(crate::id::ObjectName, u32)> {
    let index = repository.index().ok()?;
    let mut first = None;
    index
        .find(chunk, &mut |place| {
            first = Some(place);
            false
        })
        .ok()?;
    let place = first?;
    Some((index.pack(place).ok()?.name, place.block))
}
