//! Index segments as a whole: what the stored ones name, cutting a stream of packs into new ones, and putting new ones in the
//! place of old ones. Not for: deciding which packs are named (`repair`, `prune`), or looking chunks up (`index`).
//!
//! New segments are durable before old ones go, and only the last of them says which old ones it replaces, so that at no
//! moment a chunk is without an entry. Memory: one segment being built (16 MiB), and 48 bytes for each pack of each segment.

use super::Repository;
use super::index::read_segment;
use super::keyring::object_name;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_BODY;
use crate::format::header::Kind;
use crate::format::index::{PackRecord, Segment};
use crate::id::{ChunkId, ObjectName};
use crate::progress::Stop;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Chunks in one segment, 40 bytes each.
pub(crate) const SEGMENT_CHUNKS: usize = 100_000;
/// Bytes of the records of packs in one segment; with the chunks' they stay far below the bound of 16 MiB.
const SEGMENT_PACK_BYTES: usize = 4 << 20;

/// The record of a pack in a segment.
pub(crate) fn pack_record(name: ObjectName, is_tree: bool, epoch: u16, size: u64, frames: Vec<u32>) -> PackRecord {
    PackRecord { name, is_tree, sha256: None, epoch, size, frames }
}

/// What was stored.
#[derive(Debug, Default)]
pub(crate) struct WrittenSegments {
    pub names: Vec<ObjectName>,
    pub count: u64,
    pub chunks: u64,
}

/// Collects packs and stores a segment whenever one is full.
pub(crate) struct SegmentWriter<'a> {
    repository: &'a Repository,
    dry_run: bool,
    packs: BTreeMap<ObjectName, (PackRecord, Vec<(ChunkId, u32)>)>,
    chunks: usize,
    pack_bytes: usize,
    written: WrittenSegments,
}

impl<'a> SegmentWriter<'a> {
    pub(crate) fn new(repository: &'a Repository, dry_run: bool) -> Self {
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
    pub(crate) fn push(&mut self, record: PackRecord, rows: Vec<(ChunkId, u32)>) -> Result<()> {
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
    pub(crate) fn finish(mut self, replaces: &BTreeSet<ObjectName>) -> Result<WrittenSegments> {
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

/// The segments as they were found.
#[derive(Default)]
pub(crate) struct OldSegments {
    pub readable: BTreeSet<ObjectName>,
    /// Damaged, or replaced by a readable one.
    pub useless: BTreeSet<ObjectName>,
    /// How many chunks the readable ones name.
    pub chunks: BTreeMap<ObjectName, usize>,
    /// What the readable ones say about packs, sorted. A flat list: there are very many.
    packs: Vec<Said>,
    /// Segments in the order in which they were read.
    order: Vec<ObjectName>,
}

/// What one segment says about one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Said {
    pub name: ObjectName,
    size: u64,
    pub is_tree: bool,
    /// Its number in `order`.
    segment: u32,
}

impl OldSegments {
    /// Reads all of them.
    pub(crate) fn read(repository: &Repository, stop: &Stop) -> Result<OldSegments> {
        let mut old = OldSegments::default();
        let mut replaced = HashSet::new();
        for name in repository.names(ObjectKind::Index)? {
            stop.check()?;
            let name = ObjectName::parse(&name)?;
            let read = || read_segment(repository.keyring(), repository.store(), name);
            // Once more before it is believed to be damaged.
            let segment = read().or_else(|error| if error.kind() == ErrorKind::Damaged { read() } else { Err(error) });
            match segment {
                Ok(segment) => {
                    replaced.extend(segment.replaces);
                    old.readable.insert(name);
                    old.chunks.insert(name, segment.chunks.len());
                    let number = old.order.len() as u32;
                    old.order.push(name);
                    old.packs.extend(segment.packs.into_iter().map(|pack| Said {
                        name: pack.name,
                        size: pack.size,
                        is_tree: pack.is_tree,
                        segment: number,
                    }));
                }
                Err(error) if error.kind() == ErrorKind::Damaged => drop(old.useless.insert(name)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        old.useless.extend(old.readable.iter().filter(|name| replaced.contains(*name)));
        old.readable.retain(|name| !replaced.contains(name));
        let OldSegments { packs, order, .. } = &mut old;
        packs.retain(|said| !replaced.contains(&order[said.segment as usize]));
        packs.sort_unstable();
        Ok(old)
    }

    fn said(&self, name: &ObjectName) -> &[Said] {
        let first = self.packs.partition_point(|said| said.name < *name);
        let count = self.packs[first..].partition_point(|said| said.name == *name);
        &self.packs[first..first + count]
    }

    /// Whether any of them names this pack.
    pub(crate) fn names(&self, name: &ObjectName) -> bool {
        !self.said(name).is_empty()
    }

    /// Whether all that is said about this pack, and that is something, is this kind and size.
    pub(crate) fn agree(&self, name: &ObjectName, is_tree: bool, size: u64) -> bool {
        let said = self.said(name);
        !said.is_empty() && said.iter().all(|said| (said.is_tree, said.size) == (is_tree, size))
    }

    /// All that is said, by pack.
    pub(crate) fn packs(&self) -> impl Iterator<Item = &[Said]> {
        self.packs.chunk_by(|one, other| one.name == other.name)
    }

    /// The readable segments that name any of these packs.
    pub(crate) fn naming(&self, is_meant: impl Fn(&ObjectName) -> bool) -> BTreeSet<ObjectName> {
        let said = self.packs.iter().filter(|said| is_meant(&said.name));
        let numbers: BTreeSet<u32> = said.map(|said| said.segment).collect();
        numbers.into_iter().map(|number| self.order[number as usize]).collect()
    }
}

/// What putting new segments in the place of old ones did.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    pub written: u64,
    pub chunks: u64,
    pub removed: u64,
}

/// Carries over what the `dirty` segments say about packs but those to leave out, writes the rest of `writer`, and removes what is
/// replaced or useless.
pub(crate) fn replace(
    repository: &Repository,
    old: &OldSegments,
    dirty: &BTreeSet<ObjectName>,
    leave_out: impl Fn(&ObjectName) -> bool,
    mut writer: SegmentWriter<'_>,
    stop: &Stop,
) -> Result<Replaced> {
    let dry_run = writer.dry_run;
    for name in dirty {
        stop.check()?;
        let segment = match read_segment(repository.keyring(), repository.store(), *name) {
            Ok(segment) => segment,
            // Another repair or a prune was faster: it has published whatever counts of it before it took it away.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut rows: Vec<Vec<_>> = vec![Vec::new(); segment.packs.len()];
        for (id, pack, block) in segment.chunks {
            rows[pack as usize].push((id, block));
        }
        for (pack, rows) in segment.packs.into_iter().zip(rows) {
            if !leave_out(&pack.name) {
                writer.push(pack, rows)?;
            }
        }
    }
    let gone: BTreeSet<ObjectName> = dirty.union(&old.useless).copied().collect();
    let written = writer.finish(&gone)?;
    let replaced = Replaced { written: written.count, chunks: written.chunks, removed: gone.len() as u64 };
    if dry_run {
        return Ok(replaced);
    }
    read_back(repository, &written.names)?;
    for name in &gone {
        repository.store().delete(&ObjectKey::new(ObjectKind::Index, name))?;
    }
    Ok(replaced)
}

/// New segments must be listed and readable before any old one goes.
fn read_back(repository: &Repository, names: &[ObjectName]) -> Result<()> {
    let listed: HashSet<String> = repository.names(ObjectKind::Index)?.into_iter().collect();
    for name in names {
        let is_there = listed.contains(&name.to_string());
        let read = read_segment(repository.keyring(), repository.store(), *name);
        let is_gone = !is_there || read.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if is_gone && is_replaced(repository, name)? {
            continue;
        }
        read.and_then(|_| if is_there { Ok(()) } else { Err(Error::new(ErrorKind::Failed, "it is not listed")) })
            .map_err(|error| {
                error
                    .with_kind(ErrorKind::Failed)
                    .context(format!("The new index segment \"{name}\" cannot be read back; no old one was removed"))
            })?;
    }
    Ok(())
}

/// Whether a segment that can be read says that it stands for this one, too: another repair has taken it over already.
fn is_replaced(repository: &Repository, name: &ObjectName) -> Result<bool> {
    for other in repository.names(ObjectKind::Index)? {
        let read = read_segment(repository.keyring(), repository.store(), ObjectName::parse(&other)?);
        if read.is_ok_and(|segment| segment.replaces.contains(name)) {
            return Ok(true);
        }
    }
    Ok(false)
}
