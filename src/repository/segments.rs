//! Index segments as a whole: what the stored ones name, filling new ones with packs, and putting new ones in the place of
//! old ones. Not for: deciding which packs are named (`repair`, `prune`, `writer`), or looking chunks up (`index`).
//!
//! A pack stands whole in one segment: whoever cannot read a segment then lacks whole packs, which shows, and never a part of
//! one. Segments of older programs may share a pack; its parts are joined when any of them is written again.
//!
//! New segments are durable before old ones go, and only the last of them says which old ones it replaces, so that at no
//! moment a chunk is without an entry. Memory: one segment being filled (16 MiB), one that is read, and 72 bytes for each pack
//! of each segment.

use super::Repository;
use super::index::read_segment;
use super::keyring::object_name;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_BODY, MAX_PACK_ENTRY};
use crate::format::contents::Contents;
use crate::format::header::Kind;
use crate::format::index::{PackRecord, Segment, entry_len};
use crate::id::{ChunkId, ObjectName};
use crate::progress::Stop;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A segment is full once it has so many chunks, 40 bytes each.
pub(crate) const SEGMENT_CHUNKS: usize = 100_000;
/// Or once the records of its packs have so many bytes.
const SEGMENT_PACK_BYTES: usize = 4 << 20;
/// The rest of a segment names those that it replaces.
const MAX_FILL: usize = MAX_BODY / 4 * 3;

/// The chunks of a pack, each with its block; ascending, none twice.
pub(crate) type Rows = Vec<(ChunkId, u32)>;

/// The record of a pack in a segment.
pub(crate) fn pack_record(name: ObjectName, is_tree: bool, epoch: u16, size: u64, frames: Vec<u32>) -> PackRecord {
    PackRecord { name, is_tree, sha256: None, epoch, size, frames }
}

/// The rows of a pack with these contents.
pub(crate) fn rows(contents: &Contents) -> Rows {
    let blocks = contents.blocks.iter().enumerate();
    let mut rows: Rows =
        blocks.flat_map(|(number, block)| block.chunks.iter().map(move |(id, _)| (*id, number as u32))).collect();
    tidy(&mut rows);
    rows
}

/// Brings rows into their order.
pub(crate) fn tidy(rows: &mut Rows) {
    rows.sort_unstable();
    rows.dedup();
}

/// Stands for all that is said about a pack. Chunk ids are keyed hashes, so equal numbers mean equal chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Print {
    /// Of the record.
    pub shape: u64,
    /// Of the chunks and their blocks: a sum, so that parts of a pack can be added up.
    pub sum: u64,
}

impl Print {
    /// Of a pack with this record and these rows.
    pub(crate) fn of(record: &PackRecord, rows: &Rows) -> Print {
        Print { shape: shape(record.is_tree, record.epoch, record.size, &record.frames), sum: sum(rows) }
    }
}

/// The sum of what rows stand for; the same row must not come twice.
pub(crate) fn sum(rows: &[(ChunkId, u32)]) -> u64 {
    rows.iter().fold(0, |sum: u64, (id, block)| sum.wrapping_add(stands_for(id, *block)))
}

/// A number for a chunk.
pub(crate) fn fingerprint(id: &ChunkId) -> u64 {
    u64::from_le_bytes(*id.0.first_chunk().expect("an id has 32 bytes"))
}

/// A number for a chunk in a block.
fn stands_for(id: &ChunkId, block: u32) -> u64 {
    let mixed = (fingerprint(id) ^ (u64::from(block) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(29);
    mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// A number for the record of a pack.
pub(crate) fn shape(is_tree: bool, epoch: u16, size: u64, frames: &[u32]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(is_tree)]).update(&epoch.to_le_bytes()).update(&size.to_le_bytes());
    for frame in frames {
        hasher.update(&frame.to_le_bytes());
    }
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// What was stored.
#[derive(Debug, Default)]
pub(crate) struct WrittenSegments {
    pub names: Vec<ObjectName>,
    pub count: u64,
    pub chunks: u64,
    /// Bytes of the stored objects.
    pub bytes: u64,
}

/// Collects packs and stores a segment whenever one is full. The only place where segments are made.
pub(crate) struct SegmentWriter<'a> {
    repository: &'a Repository,
    dry_run: bool,
    packs: BTreeMap<ObjectName, (PackRecord, Rows)>,
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

    /// Adds a pack with its rows.
    pub(crate) fn push(&mut self, record: PackRecord, rows: Rows) -> Result<()> {
        let (pack_bytes, all) = (entry_len(&record, 0), entry_len(&record, rows.len()));
        if all > MAX_PACK_ENTRY {
            let message = format!("The pack \"{}\" has more chunks than an index segment may hold", record.name);
            return Err(Error::damaged(message));
        }
        let has_room = self.pack_bytes + entry_len(&record, self.chunks + rows.len()) <= MAX_FILL;
        // A segment names a pack once.
        if !has_room || self.packs.contains_key(&record.name) {
            self.store(&BTreeSet::new())?;
        }
        self.chunks += rows.len();
        self.pack_bytes += pack_bytes;
        self.packs.insert(record.name, (record, rows));
        let is_full = self.chunks >= SEGMENT_CHUNKS || self.pack_bytes >= SEGMENT_PACK_BYTES;
        if is_full { self.store(&BTreeSet::new()) } else { Ok(()) }
    }

    /// Stores the rest. Only this last segment replaces old ones: all others are durable by then.
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
        let replaces = replaces.iter().take((MAX_BODY - MAX_FILL) / 32 - 1).copied().collect();
        let mut segment = Segment { replaces, ..Segment::default() };
        for (number, (record, rows)) in packs.into_values().enumerate() {
            segment.chunks.extend(rows.into_iter().map(|(id, block)| (id, number as u32, block)));
            segment.packs.push(record);
        }
        segment.chunks.sort_unstable();
        self.written.count += 1;
        self.written.chunks += segment.chunks.len() as u64;
        let body = segment.encode()?;
        if !self.dry_run {
            let bytes = self.repository.keyring().seal_record(Kind::IndexSegment, &body)?;
            let name = object_name(&bytes);
            self.repository.store().put(&ObjectKey::new(ObjectKind::Index, name), &bytes)?;
            self.written.bytes += bytes.len() as u64;
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
    /// Those of them that no readable one replaces: what they name is unknown.
    damaged: BTreeSet<ObjectName>,
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
    pub print: Print,
    /// Its number in `order`.
    segment: u32,
}

/// A segment's packs, each with its rows.
pub(crate) fn unfold(segment: Segment) -> impl Iterator<Item = (PackRecord, Rows)> {
    let mut rows: Vec<Rows> = vec![Vec::new(); segment.packs.len()];
    for (id, pack, block) in segment.chunks {
        rows[pack as usize].push((id, block));
    }
    segment.packs.into_iter().zip(rows)
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
                    replaced.extend(segment.replaces.iter().copied());
                    old.readable.insert(name);
                    old.chunks.insert(name, segment.chunks.len());
                    let number = old.order.len() as u32;
                    old.order.push(name);
                    old.packs.extend(unfold(segment).map(|(record, rows)| Said {
                        name: record.name,
                        size: record.size,
                        is_tree: record.is_tree,
                        print: Print::of(&record, &rows),
                        segment: number,
                    }));
                }
                Err(error) if error.kind() == ErrorKind::Damaged => drop(old.damaged.insert(name)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        old.useless.extend(old.readable.iter().filter(|name| replaced.contains(*name)));
        old.useless.extend(&old.damaged);
        old.damaged.retain(|name| !replaced.contains(name));
        old.readable.retain(|name| !replaced.contains(name));
        let OldSegments { packs, order, .. } = &mut old;
        packs.retain(|said| !replaced.contains(&order[said.segment as usize]));
        packs.sort_unstable();
        Ok(old)
    }

    /// Whether there may be packs that only a damaged segment names.
    pub(crate) fn has_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// An error if so. Only a repair, which reads the packs, may put new segments in the place of damaged ones: local tables may
    /// still know what these named, and hide that they are damaged.
    pub(crate) fn refuse_damaged(&self) -> Result<()> {
        match self.damaged.first() {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Brake,
                format!("The index segment \"{name}\" cannot be read; nothing was deleted"),
            )
            .with_hint("Run \"firn repair index\", then this again.")),
        }
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

    /// Whether every segment that names this pack says this, and at least one does.
    pub(crate) fn is_said(&self, name: &ObjectName, print: Print) -> bool {
        let said = self.said(name);
        !said.is_empty() && said.iter().all(|said| said.print == print)
    }

    /// What the segments say about one pack, joined: its rows for each record that is given for it.
    pub(crate) fn gather(&self, repository: &Repository, name: &ObjectName) -> Result<Vec<(PackRecord, Rows)>> {
        let mut found: Vec<(PackRecord, Rows)> = Vec::new();
        for said in self.said(name) {
            let segment = &self.order[said.segment as usize];
            let segment = match read_segment(repository.keyring(), repository.store(), *segment) {
                Ok(segment) => segment,
                // Another repair or a prune was faster: it has published whatever counts of it before it took it away.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for (record, more) in unfold(segment).filter(|(record, _)| record.name == *name) {
                match found.iter_mut().find(|(other, _)| *other == record) {
                    Some((_, rows)) => rows.extend(more),
                    None => found.push((record, more)),
                }
            }
        }
        found.iter_mut().for_each(|(_, rows)| tidy(rows));
        Ok(found)
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
    let (mut written, mut parts) = (HashSet::new(), BTreeSet::new());
    for name in dirty {
        stop.check()?;
        let segment = match read_segment(repository.keyring(), repository.store(), *name) {
            Ok(segment) => segment,
            // Another repair or a prune was faster: it has published whatever counts of it before it took it away.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for (pack, rows) in unfold(segment) {
            let print = Print::of(&pack, &rows);
            if leave_out(&pack.name) || written.contains(&pack.name) {
                continue;
            }
            if !old.is_said(&pack.name, print) {
                parts.insert(pack.name);
                continue;
            }
            if old.said(&pack.name).len() > 1 {
                written.insert(pack.name);
            }
            writer.push(pack, rows)?;
        }
    }
    // Of these each segment has another part, or another opinion.
    for name in parts {
        stop.check()?;
        old.gather(repository, &name)?.into_iter().try_for_each(|(pack, rows)| writer.push(pack, rows))?;
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
