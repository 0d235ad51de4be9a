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
    jobs: Option<Sender<ChunkId>>,
    reserved: Arc<AtomicU64>,
    limit: u64,
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
        match self.jobs.as_ref().map(|jobs| jobs.try_send(chunk)) {
            Some(Ok(())) => Some(held),
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => None,
        }
    }
}

fn run(repository: &Repository, jobs: &Receiver<ChunkId>) {
    while let Ok(chunk) = jobs.recv() {
        if !repository.is_at_hand(&chunk) {
            // The reader who wants this chunk meets the same error and reports it.
            drop(repository.chunk(ChunkKind::Content, &chunk));
        }
    }
}
