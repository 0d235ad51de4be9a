//! Cuts a stream of packs into index segments and stores them. Not for: deciding which packs, or removing old segments.

use crate::error::Result;
use crate::format::bounds::MAX_BODY;
use crate::format::header::Kind;
use crate::format::index::{PackRecord, Segment};
use crate::id::{ChunkId, ObjectName};
use crate::repository::Repository;
use crate::repository::keyring::object_name;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::{BTreeMap, BTreeSet};

/// Chunks in one segment, 40 bytes each.
pub(super) const SEGMENT_CHUNKS: usize = 100_000;
/// Bytes of the records of packs in one segment; with the chunks' they stay far below the bound of 16 MiB.
const SEGMENT_PACK_BYTES: usize = 4 << 20;

/// The record of a pack in a segment.
pub(super) fn pack_record(name: ObjectName, is_tree: bool, epoch: u16, size: u64, frames: Vec<u32>) -> PackRecord {
    PackRecord { name, is_tree, sha256: None, epoch, size, frames }
}

/// What was stored.
#[derive(Debug, Default)]
pub(super) struct WrittenSegments {
    pub names: Vec<ObjectName>,
    pub count: u64,
    pub chunks: u64,
}

/// Collects packs and stores a segment whenever one is full.
pub(super) struct SegmentWriter<'a> {
    repository: &'a Repository,
    dry_run: bool,
    packs: BTreeMap<ObjectName, (PackRecord, Vec<(ChunkId, u32)>)>,
    chunks: usize,
    pack_bytes: usize,
    written: WrittenSegments,
}

impl<'a> SegmentWriter<'a> {
    pub(super) fn new(repository: &'a Repository, dry_run: bool) -> Self {
        SegmentWriter {
            repository,
            dry_run,
            packs: BTreeMap::new(),
            chunks: 0,
            pack_bytes: 0,
            written: WrittenSegments::default(),
        }
    }

    /// Adds a pack with its chunks and their blocks. One with very many chunks is spread over several segments.
    pub(super) fn push(&mut self, record: PackRecord, rows: Vec<(ChunkId, u32)>) -> Result<()> {
        // Two records of one pack that disagree cannot stand in one segment.
        if self.packs.get(&record.name).is_some_and(|(other, _)| *other != record) {
            self.store(&BTreeSet::new())?;
        }
        let mut rows = rows.into_iter();
        loop {
            let room = SEGMENT_CHUNKS - self.chunks;
            let part: Vec<_> = rows.by_ref().take(room).collect();
            self.chunks += part.len();
            self.pack_bytes += 80 + 4 * record.frames.len();
            self.packs.entry(record.name).or_insert_with(|| (record.clone(), Vec::new())).1.extend(part);
            if self.chunks >= SEGMENT_CHUNKS || self.pack_bytes >= SEGMENT_PACK_BYTES {
                self.store(&BTreeSet::new())?;
            }
            if rows.len() == 0 {
                return Ok(());
            }
        }
    }

    /// Stores what is left. Only this last segment replaces old ones: all others are durable by then.
    pub(super) fn finish(mut self, replaces: &BTreeSet<ObjectName>) -> Result<WrittenSegments> {
        // Without anything new there is nothing that could replace; what is useless may just go.
        if !self.packs.is_empty() || (!replaces.is_empty() && self.written.count > 0) {
            self.store(replaces)?;
        }
        Ok(self.written)
    }

    fn store(&mut self, replaces: &BTreeSet<ObjectName>) -> Result<()> {
        let packs = std::mem::take(&mut self.packs);
        (self.chunks, self.pack_bytes) = (0, 0);
        if packs.is_empty() && replaces.is_empty() {
            return Ok(());
        }
        // A body has room for this many names beside its packs and chunks; more can only be deleted, not named.
        let replaces = replaces.iter().take(MAX_BODY / 4 / 32).copied().collect();
        let mut segment = Segment { replaces, ..Segment::default() };
        for (number, (record, rows)) in packs.into_values().enumerate() {
            segment.chunks.extend(rows.into_iter().map(|(id, block)| (id, number as u32, block)));
            segment.packs.push(record);
        }
        segment.chunks.sort_unstable();
        segment.chunks.dedup();
        self.written.count += 1;
        self.written.chunks += segment.chunks.len() as u64;
        let body = segment.encode()?;
        if !self.dry_run {
            let bytes = self.repository.keyring().seal_record(Kind::IndexSegment, &body)?;
            let name = object_name(&bytes);
            self.repository.store().put(&ObjectKey::new(ObjectKind::Index, name), &bytes)?;
            self.written.names.push(name);
        }
        Ok(())
    }
}
