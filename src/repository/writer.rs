//! A writer's session: the order of steps that keeps every acknowledged snapshot whole beside any number of other writers
//! and pruners, without locks and without clocks. Not for: what is written (see `backup`).
//!
//! The order is that of CONCURRENCY in `man/firn-repository.7`. Three traps: the pin comes before everything; marks are
//! listed before the index; snapshots are listed before revokes. Memory: `QUEUED_BLOCKS` blocks waiting to be sealed, the
//! open packs, one pack a storing thread, and 40 bytes for each new chunk since the last index segment.

use super::Repository;
use super::assemble::RawBlock;
use super::index::{Index, StoredPacks, Usable};
use super::keyring::{encode_message, raw_message};
use super::life::Life;
use super::mistake::{self, Mistake};
use super::pack::{FinishedPack, PackBuilder, ReadyBlock, Salvaged, pack_folder, read_contents};
use super::read::pack_kind;
use super::segments::{Rows, SEGMENT_CHUNKS, SegmentWriter, pack_record, rows};
use crate::error::{Error, ErrorKind, Result};
use crate::format::contents::Contents;
use crate::format::header::Kind;
use crate::format::index::PackRecord;
use crate::format::message::ChunkKind;
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkId, ObjectName, SessionId};
use crate::progress::{Progress, Stop};
use crate::store::{ObjectKey, ObjectKind};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Blocks waiting to be compressed and sealed; each has at most 8 MiB, usually 1.
const QUEUED_BLOCKS: usize = 8;
/// A new index segment at the latest so long after the one before, so that an interrupted backup finds what it stored.
const SEGMENT_AGE: Duration = Duration::from_secs(60);
/// Data packs open at the same time; blocks are assigned at random, so that the store cannot follow the order of files.
const OPEN_DATA_PACKS: usize = 2;
const CLAIM_SHARDS: usize = 64;

/// How a session writes.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// zstd level.
    pub level: i32,
    /// Threads that compress and seal.
    pub threads: usize,
    /// Nothing is put into the store; chunks are counted as if they were.
    pub dry_run: bool,
}

/// What a session stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// New chunks.
    pub chunks: u64,
    /// Their bytes.
    pub raw: u64,
    /// Bytes of the packs and segments that were stored.
    pub stored: u64,
    /// New tree blobs' bytes among `raw`.
    pub raw_metadata: u64,
}

/// A running session. Dropping it without `commit` or `abandon` leaves stored packs (found again by the next run) and a pin.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    blocks: Option<Sender<RawBlock>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    repository: Arc<Repository>,
    options: WriterOptions,
    session: SessionId,
    life: Life,
    is_beside_prune: bool,
    marked: HashSet<ObjectName>,
    known: RwLock<Known>,
    claims: Vec<Mutex<HashSet<ChunkId>>>,
    open: Vec<Mutex<Option<PackBuilder>>>,
    tree_open: Mutex<Option<PackBuilder>>,
    next_open: AtomicU64,
    segment: Mutex<Pending>,
    flushing: Mutex<()>,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
    chunks: AtomicU64,
    raw: AtomicU64,
    raw_metadata: AtomicU64,
    stored: AtomicU64,
}

#[derive(Debug)]
struct Known {
    index: Arc<Index>,
    usable: Usable,
}

#[derive(Debug)]
struct Pending {
    packs: Vec<(PackRecord, Rows)>,
    chunks: usize,
    since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PackBuilder")
    }
}

impl Writer {
    /// Steps 1 to 6: pins the session, reads marks, then the index, and finds out which packs may be relied on.
    /// The caller lists snapshots and tombs (4) after this, then asks `is_revoked` for their sessions (5).
    pub fn begin(repository: &Arc<Repository>, options: WriterOptions, progress: &dyn Progress) -> Result<Writer> {
        Writer::begin_without(repository, options, [], progress)
    }

    /// The same; nothing in the packs `absent` counts as stored.
    pub fn begin_without(
        repository: &Arc<Repository>,
        options: WriterOptions,
        absent: impl IntoIterator<Item = ObjectName>,
        progress: &dyn Progress,
    ) -> Result<Writer> {
        if options.dry_run {
            repository.check_access()?
        } else {
            repository.check_writable()?
        }
        let absent: HashSet<ObjectName> = absent.into_iter().collect();
        let session = SessionId::random()?;
        if !options.dry_run && !mistake::made(Mistake::NoPin) {
            repository.put_pin(session)?;
        }
        let begun = Writer::begin_pinned(repository, options.clone(), session, absent, progress);
        if begun.is_err() && !options.dry_run {
            drop(repository.store().delete(&ObjectKey::new(ObjectKind::Pin, session)));
        }
        begun
    }

    fn begin_pinned(
        repository: &Arc<Repository>,
        options: WriterOptions,
        session: SessionId,
        absent: HashSet<ObjectName>,
        progress: &dyn Progress,
    ) -> Result<Writer> {
        if mistake::made(Mistake::IndexBeforeMarks) {
            settled_index(repository, &options, progress)?;
        }
        if !options.dry_run {
            // Of no consequence for this run: here it is noted.
            drop(repository.publish_damage(&Stop::new()));
        }
        let mut marked = repository.marked_packs()?;
        let is_beside_prune = !marked.is_empty();
        marked.extend(absent);
        marked.extend(repository.damaged_packs()?);
        let (index, stored) = if mistake::made(Mistake::IndexBeforeMarks) || mistake::made(Mistake::StaleIndex) {
            let index = repository.index()?;
            let stored = StoredPacks::believed(&index)?;
            (index, stored)
        } else {
            let index = settled_index(repository, &options, progress)?;
            (index, StoredPacks::list(repository.store())?)
        };
        // What cannot be opened cannot be relied on, and to store it again under an older epoch would undo a rotation.
        repository.check_epochs()?;
        for (name, error) in &index.damaged {
            let why = error.chain();
            progress.note(&format!("The index segment \"{name}\" is damaged, so the packs that it named are looked into and indexed again ({why}). \"firn repair index\" removes it"));
        }
        let usable = index.usable(&stored, &marked)?;
        let data_packs = OPEN_DATA_PACKS.max(options.threads);
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            session,
            life: Life::new(session),
            is_beside_prune,
            marked,
            known: RwLock::new(Known { index, usable }),
            claims: (0..CLAIM_SHARDS).map(|_| Mutex::default()).collect(),
            open: (0..data_packs).map(|_| Mutex::default()).collect(),
            tree_open: Mutex::default(),
            next_open: AtomicU64::new(0),
            segment: Mutex::new(Pending { packs: Vec::new(), chunks: 0, since: Instant::now() }),
            flushing: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            chunks: AtomicU64::new(0),
            raw: AtomicU64::new(0),
            raw_metadata: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            options,
        });
        if !shared.options.dry_run {
            shared.adopt_orphans(&stored, progress)?;
        }
        let (blocks, queue) = bounded(QUEUED_BLOCKS);
        let (packs, finished) = bounded(0);
        let mut threads = Vec::new();
        for _ in 0..shared.options.threads.max(1) {
            let (sealing, queue, packs) = (shared.clone(), queue.clone(), packs.clone());
            threads.push(std::thread::spawn(move || sealing.guard(|| sealing.seal_blocks(&queue, &packs))));
            let (storing, finished) = (shared.clone(), finished.clone());
            threads.push(std::thread::spawn(move || storing.guard(|| storing.store_packs(&finished))));
        }
        Ok(Writer { shared, blocks: Some(blocks), threads })
    }

    /// The repository that is written to.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.shared.repository
    }

    /// This session's id.
    pub fn session(&self) -> SessionId {
        self.shared.session
    }

    /// Whether a chunk is stored where it may be relied on, or will be by this session.
    pub fn has(&self, id: &ChunkId) -> Result<bool> {
        Ok(lock(self.shared.claim_shard(id)).contains(id) || self.shared.is_stored(id)?)
    }

    /// Whether the caller must deliver this chunk: true exactly once for a chunk that the repository lacks.
    pub fn claim(&self, id: &ChunkId, length: usize) -> Result<bool> {
        if self.shared.is_stored(id)? || !lock(self.shared.claim_shard(id)).insert(*id) {
            return Ok(false);
        }
        self.shared.live_on();
        self.shared.chunks.fetch_add(1, Ordering::Relaxed);
        self.shared.raw.fetch_add(length as u64, Ordering::Relaxed);
        Ok(true)
    }

    /// Hands over a block to be sealed and stored; waits while the queue is full.
    pub fn deliver(&self, block: RawBlock) -> Result<()> {
        if block.kind != ChunkKind::Content {
            self.shared.raw_metadata.fetch_add(block.body.len() as u64, Ordering::Relaxed);
        }
        if self.shared.options.dry_run {
            return Ok(());
        }
        let queue = self.blocks.as_ref().expect("the queue is closed only when the writer ends");
        if self.shared.failed.load(Ordering::Acquire) || queue.send(block).is_err() {
            return Err(self.shared.failure());
        }
        Ok(())
    }

    /// What was stored so far.
    pub fn written(&self) -> Written {
        self.shared.written()
    }

    /// Makes everything delivered so far durable and indexed.
    fn drain(&mut self) -> Result<()> {
        drop(self.blocks.take());
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        // Only now may the unfinished packs be closed: no thread pushes into them any more.
        std::thread::scope(|scope| {
            for slot in self.shared.open.iter().chain([&self.shared.tree_open]) {
                if let Some(pack) = lock(slot).take() {
                    let store = || self.shared.guard(|| self.shared.store_pack(pack));
                    // A test that replays a run needs an order.
                    #[cfg(test)]
                    if crate::id::random::seeded::current().is_some() {
                        store();
                        continue;
                    }
                    scope.spawn(store);
                }
            }
        });
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(self.shared.failure());
        }
        self.shared.flush_segment()
    }

    /// Stores and indexes everything that was given so far. Nothing more may be given afterwards.
    pub fn flush(&mut self) -> Result<()> {
        self.drain()
    }

    /// Ends the session with a snapshot: packs, index, snapshot, in this order, each durable before the next; then the
    /// second look at the revokes. Only after `Ok` may success be reported.
    pub fn commit(mut self, build: impl FnOnce(Written) -> Snapshot) -> Result<(ObjectName, Snapshot, Written)> {
        let drained = self.drain();
        let repository = self.shared.repository.clone();
        let committed = drained.and_then(|()| {
            let snapshot = build(self.shared.written());
            if self.shared.options.dry_run {
                return Ok((ObjectName([0; 32]), snapshot));
            }
            let name = repository.put_snapshot(&snapshot)?;
            if !mistake::made(Mistake::NoSecondLook) && self.is_revoked(self.shared.session)? {
                repository.put_tomb(name)?;
                return Err(Error::new(
                    ErrorKind::Failed,
                    "This backup was revoked by a prune while it ran (it had shown no sign of life for days); its snapshot does not count",
                )
                .with_hint("Run the backup again; it reuses what is stored."));
            }
            Ok((name, snapshot))
        });
        self.unpin();
        let (name, snapshot) = committed?;
        Ok((name, snapshot, self.shared.written()))
    }

    /// Ends the session without a snapshot; what was stored is indexed, so that the next run finds it.
    pub fn abandon(mut self) -> Result<Written> {
        let drained = self.drain();
        self.unpin();
        drained.map(|()| self.shared.written())
    }

    fn unpin(&self) {
        if !self.shared.options.dry_run {
            self.shared.life.end(&self.shared.repository);
        }
    }

    /// The next sign of life is due at once.
    #[cfg(test)]
    pub(crate) fn hurry(&self) {
        self.shared.life.hurry();
    }

    /// Whether a prune had condemned packs when it began; then nothing may be taken over unchecked.
    pub fn is_beside_prune(&self) -> bool {
        self.shared.is_beside_prune
    }

    /// Whether a session may no longer commit.
    pub fn is_revoked(&self, session: SessionId) -> Result<bool> {
        Ok(self.shared.repository.revoked()?.contains(&session))
    }
}

/// The index as of now, durable: a snapshot may rely on a segment whose writer was stopped before it made its name durable, and
/// without that segment its chunks would not be found after a power cut.
fn settled_index(repository: &Repository, options: &WriterOptions, progress: &dyn Progress) -> Result<Arc<Index>> {
    repository.reload_index(progress)?;
    let index = repository.index()?;
    if !options.dry_run {
        let keys: Vec<_> = index.segments.iter().map(|name| ObjectKey::new(ObjectKind::Index, name)).collect();
        repository.store().settle(&keys)?;
    }
    Ok(index)
}

impl Shared {
    fn claim_shard(&self, id: &ChunkId) -> &Mutex<HashSet<ChunkId>> {
        &self.claims[usize::from(id.0[31]) % CLAIM_SHARDS]
    }

    fn is_stored(&self, id: &ChunkId) -> Result<bool> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut stored = false;
        known.index.find(id, &mut |place| {
            stored = known.usable.contains(place);
            !stored
        })?;
        Ok(stored)
    }

    fn written(&self) -> Written {
        Written {
            chunks: self.chunks.load(Ordering::Relaxed),
            raw: self.raw.load(Ordering::Relaxed),
            raw_metadata: self.raw_metadata.load(Ordering::Relaxed),
            stored: self.stored.load(Ordering::Relaxed),
        }
    }

    fn failure(&self) -> Error {
        let mut slot = lock(&self.failure);
        match slot.take() {
            Some(error) => {
                // Whoever asks next must hear the same: it is chance which thread's error is told in the end.
                *slot = Some(error.copy());
                error
            }
            None => Error::new(ErrorKind::Failed, "Writing to the repository had failed before"),
        }
    }

    /// Runs a thread's work; an error or a panic stops the session.
    fn guard(&self, work: impl FnOnce() -> Result<()>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Failed, "A writing thread panicked; this is a defect of firn"))
        });
        if let Err(error) = outcome {
            lock(&self.failure).get_or_insert(error);
            self.failed.store(true, Ordering::Release);
        }
    }

    fn seal_blocks(&self, queue: &Receiver<RawBlock>, packs: &Sender<PackBuilder>) -> Result<()> {
        let mut compressor = None;
        let config = self.repository.config();
        while let Ok(block) = queue.recv() {
            if self.failed.load(Ordering::Acquire) {
                return Ok(());
            }
            let message = if block.private {
                raw_message(block.kind, &block.body)
            } else {
                encode_message(&mut compressor, self.options.level, Some(block.kind), &block.body)?
            };
            let ready =
                ReadyBlock { kind: block.kind, message, body_len: block.body.len() as u32, chunks: block.chunks };
            let (slot, kind, target) = if ready.kind == ChunkKind::Content {
                let turn = self.next_open.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
                let turn = blake3::hash(&turn.to_le_bytes()).as_bytes()[0] ^ ready.chunks[0].0.0[0];
                (&self.open[usize::from(turn) % self.open.len()], Kind::DataPack, config.data_pack)
            } else {
                (&self.tree_open, Kind::TreePack, config.tree_pack)
            };
            let mut full = Vec::new();
            {
                let mut slot = lock(slot);
                let mut pack = match slot.take() {
                    Some(pack) if pack.has_room(&ready) => pack,
                    before => {
                        full.extend(before);
                        PackBuilder::new(self.repository.keyring(), kind, target as usize)?
                    }
                };
                pack.push(self.repository.keyring(), ready)?;
                match pack.is_full(target as usize) {
                    true => full.push(pack),
                    false => drop(slot.replace(pack)),
                }
            }
            if full.into_iter().any(|pack| packs.send(pack).is_err()) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn store_packs(&self, packs: &Receiver<PackBuilder>) -> Result<()> {
        while let Ok(pack) = packs.recv() {
            if self.failed.load(Ordering::Acquire) {
                return Ok(());
            }
            self.store_pack(pack)?;
        }
        Ok(())
    }

    /// Shows others, when it is time, that this session is at work.
    fn live_on(&self) {
        if !self.options.dry_run {
            self.life.go_on(&self.repository);
        }
    }

    fn store_pack(&self, pack: PackBuilder) -> Result<()> {
        // Snapshots that were listed since this session began may tell of newer keys.
        self.repository.check_keys_are_newest()?;
        self.live_on();
        let pack = pack.finish(self.repository.keyring())?;
        self.repository.store().put(&pack.key(), &pack.bytes)?;
        self.stored.fetch_add(pack.bytes.len() as u64, Ordering::Relaxed);
        let FinishedPack { name, kind, epoch, bytes, contents } = pack;
        let size = bytes.len() as u64;
        drop(bytes);
        self.note_pack(name, kind == Kind::TreePack, epoch, size, contents)
    }

    fn note_pack(&self, name: ObjectName, is_tree: bool, epoch: u16, size: u64, contents: Contents) -> Result<()> {
        let frames = contents.blocks.iter().map(|block| block.frame_len).collect();
        let record = pack_record(name, is_tree, epoch, size, frames);
        let rows = rows(&contents);
        let due = {
            let mut pending = lock(&self.segment);
            pending.chunks += rows.len();
            pending.packs.push((record, rows));
            pending.chunks >= SEGMENT_CHUNKS || pending.since.elapsed() >= SEGMENT_AGE
        };
        if due { self.flush_segment() } else { Ok(()) }
    }

    /// Publishes what was stored since the last segment, and moves its chunks from memory to the local tables.
    fn flush_segment(&self) -> Result<()> {
        let _one_at_a_time = lock(&self.flushing);
        let packs = {
            let mut pending = lock(&self.segment);
            pending.since = Instant::now();
            pending.chunks = 0;
            std::mem::take(&mut pending.packs)
        };
        if packs.is_empty() {
            return Ok(());
        }
        let mut stored: Vec<ChunkId> = Vec::new();
        let mut writer = SegmentWriter::new(&self.repository, false);
        for (record, rows) in packs {
            stored.extend(rows.iter().map(|(id, _)| *id));
            writer.push(record, rows)?;
        }
        let written = writer.finish(&BTreeSet::new())?;
        self.stored.fetch_add(written.bytes, Ordering::Relaxed);
        let index = settled_index(&self.repository, &self.options, &crate::progress::Silent)?;
        let usable = index.usable(&StoredPacks::list(self.repository.store())?, &self.marked)?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { index, usable };
        for id in &stored {
            // Only what the new index really answers for leaves the set of claims.
            if self.is_stored(id)? {
                lock(self.claim_shard(id)).remove(id);
            }
        }
        Ok(())
    }

    /// Packs that are stored but in no segment are the leavings of an interrupted backup (or of one that runs just now; relying
    /// on those is safe too, since a prune that condemns them waits for our pin). Their contents go into the index.
    fn adopt_orphans(&self, stored: &StoredPacks, progress: &dyn Progress) -> Result<()> {
        let mut orphans: HashMap<ObjectName, bool> = stored
            .iter()
            .filter(|(_, name, _)| !self.marked.contains(name))
            .map(|(is_tree, name, _)| (name, is_tree))
            .collect();
        let index = self.repository.index()?;
        index.for_each_pack(&mut |pack| {
            orphans.remove(&pack.name);
            Ok(())
        })?;
        let mut orphans: Vec<_> = orphans.into_iter().collect();
        orphans.sort();
        for (name, is_tree) in orphans {
            let key = ObjectKey::new(pack_folder(pack_kind(is_tree)), name);
            if let Err(error) = self.repository.store().settle(std::slice::from_ref(&key)) {
                progress.note(&format!("A stored pack that no index names was left alone: {}", error.chain()));
                continue;
            }
            match read_contents(self.repository.keyring(), self.repository.store(), pack_kind(is_tree), name) {
                Ok(Salvaged { contents, epoch, size, .. }) => self.note_pack(name, is_tree, epoch, size, contents)?,
                // An old listing names what was deleted.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    progress.note(&format!("A stored pack that no index names was left alone: {}", error.chain()))
                }
            }
        }
        self.flush_segment()
    }
}
