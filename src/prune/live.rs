//! Which chunks live snapshots need, which copy of each is kept, and how much of each pack that is. Not for: deciding what is done
//! about it (see `plan`).
//!
//! Every page is read once: what is below a page that is marked as needed is marked already. Where a forgotten snapshot lacks
//! something, that is noted and the walk goes on: all else that it needs is kept. Memory: two bits a chunk (needed; one of several
//! copies), five bytes a block, about 150 bytes a pack, a page for each directory on the way down, and 40 bytes for each page that
//! cannot be read.

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, ObjectName};
use crate::os::return_memory;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::damage::is_loss;
use crate::repository::index::{Index, Place};
use crate::repository::marks::Marks;
use crate::repository::snapshots::Named;
use crate::repository::table::PackInfo;
use crate::store::{ObjectKey, ObjectKind};
use crate::view::references::{self, Reference, Visitor, root};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How far a copy of a chunk may be relied on; a smaller rank is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Stored, and nobody is about to delete it.
    Good,
    /// Condemned by this prune.
    Condemned,
    /// Condemned by another one, which may or may not delete it.
    Marked,
    /// Known to be damaged.
    Damaged,
    /// Stored, but not with the right size.
    Cut,
    /// Not stored.
    Absent,
}

/// A pack that the index names.
#[derive(Debug)]
pub(super) struct Pack {
    pub name: ObjectName,
    pub is_tree: bool,
    pub epoch: u16,
    /// The size that the index states.
    pub size: u64,
    /// The best that any entry of the index is worth.
    pub rank: Rank,
    /// Chunks that are needed from it, and all of them.
    pub needed: u64,
    pub chunks: u64,
    /// Bytes of its frames that nobody needs, estimated from the number of chunks in each block.
    pub unused: u64,
    first_block: usize,
    blocks: u32,
    /// Entries of the index that name it.
    entries: u32,
}

impl Pack {
    /// Bytes that are needed, estimated.
    pub(super) fn used(&self) -> u64 {
        self.size.saturating_sub(self.unused)
    }
}

/// What live snapshots need, in the terms of one index.
pub(super) struct Live {
    pub index: Arc<Index>,
    /// Each pack once, however many entries of the index name it.
    pub packs: Vec<Pack>,
    /// For each table, for each pack of it: its number in `packs`, and what this entry is worth.
    numbers: Vec<Vec<(u32, Rank)>>,
    needed: Marks,
    twins: Marks,
    /// Chunks in each block, and those among them that are needed.
    blocks: Vec<(u16, u16)>,
    /// Snapshots that lack something and need not be whole, the first thing that they lack, and how many there are.
    pub holes: Vec<(ObjectName, Error, u64)>,
    /// Pages that could not be read.
    unread: HashSet<ChunkId>,
    /// Distinct chunks that are needed.
    pub chunks: u64,
}

/// A set of blocks, by their numbers in all packs. Memory: a byte a block.
#[derive(Default)]
pub(super) struct Beside(Vec<bool>);

/// What a walk asks of others.
pub(super) struct Walk<'a> {
    pub repository: &'a Repository,
    pub progress: &'a dyn Progress,
    pub stop: &'a Stop,
    /// Snapshots that may lack chunks: forgotten ones, which another prune may have begun to delete.
    pub tolerated: &'a HashSet<ObjectName>,
    /// Snapshots that may never have been acknowledged.
    pub unsure: &'a HashSet<ObjectName>,
}

/// A row that holds a chunk.
struct Copy {
    place: Place,
    row: u64,
    rank: Rank,
}

/// Marks what one snapshot needs.
struct Needing<'a, 'w> {
    live: &'a mut Live,
    walk: &'a Walk<'w>,
    named: &'a Named,
    /// Whether what is lacking ends the walk, whatever the snapshot is.
    is_strict: bool,
    /// The first thing that is lacking, and how many there are.
    hole: Option<(Error, u64)>,
    /// What was met last.
    met: Option<ChunkId>,
}

impl Visitor for Needing<'_, '_> {
    fn meet(&mut self, reference: &Reference) -> Result<bool> {
        self.met = Some(reference.id);
        self.live.need(reference).or_else(|error| self.excuse(error).map(|()| false))
    }

    fn failed(&mut self, _: &[u8], error: Error) -> Result<()> {
        if is_loss(&error) {
            // It is marked, and what is below it is not: the next snapshot that needs it must come by here, too.
            self.live.unread.extend(self.met);
        }
        self.excuse(error)
    }
}

impl Needing<'_, '_> {
    /// What is lacking stops the prune, unless the snapshot need not be whole or has gone meanwhile.
    fn excuse(&mut self, error: Error) -> Result<()> {
        if !is_loss(&error) || self.is_strict {
            return Err(error);
        }
        if let Some((_, count)) = &mut self.hole {
            *count += 1;
            return Ok(());
        }
        let Named { name, .. } = self.named;
        let is_tolerated = self.walk.tolerated.contains(name)
            // Forgotten since it was listed, and another prune is at it; that prune may have ended.
            || self.walk.repository.tombs()?.contains_key(name)
            || !self.walk.repository.store().has(&ObjectKey::new(ObjectKind::Snapshot, name))?;
        if is_tolerated {
            self.hole = Some((error, 1));
            return Ok(());
        }
        Err(error
            .with_kind(ErrorKind::Damaged)
            .context(format!("The snapshot \"{name}\" cannot be read as a whole, so nothing was pruned"))
            .with_hint(if self.walk.unsure.contains(name) { UNSURE } else { DAMAGED }))
    }
}

impl Live {
    /// Walks all snapshots. An error of kind `Damaged` if one of them lacks anything.
    pub(super) fn find(
        walk: &Walk<'_>,
        index: Arc<Index>,
        rank: &dyn Fn(&PackInfo) -> Rank,
        snapshots: &[Named],
    ) -> Result<Live> {
        let mut live = Live::new(index, rank)?;
        return_memory();
        walk.progress.expect(snapshots.len() as u64, 0);
        for named in snapshots {
            if let Some((error, count)) = live.walk(walk, named, false)? {
                live.holes.push((named.name, error, count));
            }
            walk.progress.files(1);
        }
        // No page is looked at again before long, and what comes now needs the room.
        walk.repository.forget_blocks();
        return_memory();
        live.choose_copies()?;
        live.count_blocks()?;
        Ok(live)
    }

    /// An error of kind `Damaged` if any of these snapshots lacks anything.
    pub(super) fn complete(
        walk: &Walk<'_>,
        index: Arc<Index>,
        rank: &dyn Fn(&PackInfo) -> Rank,
        snapshots: &[Named],
    ) -> Result<()> {
        let mut live = Live::new(index, rank)?;
        snapshots.iter().try_for_each(|named| live.walk(walk, named, true).map(drop))
    }

    fn new(index: Arc<Index>, rank: &dyn Fn(&PackInfo) -> Rank) -> Result<Live> {
        let mut packs: Vec<Pack> = Vec::new();
        let mut by_name: HashMap<ObjectName, u32> = HashMap::with_capacity(index.pack_entries());
        let rows = index.rows_by_table();
        let mut numbers: Vec<Vec<(u32, Rank)>> = rows.iter().map(|_| Vec::new()).collect();
        let mut blocks = 0;
        index.for_each_pack_at(&mut |place, info| {
            let rank = rank(&info);
            let number = *by_name.entry(info.name).or_insert_with(|| {
                let (first_block, count) = (blocks, info.frames.len() as u32);
                blocks += info.frames.len();
                packs.push(Pack {
                    name: info.name,
                    is_tree: info.is_tree,
                    epoch: info.epoch,
                    size: info.size,
                    rank,
                    needed: 0,
                    chunks: 0,
                    unused: 0,
                    first_block,
                    blocks: count,
                    entries: 0,
                });
                packs.len() as u32 - 1
            });
            let pack = &mut packs[number as usize];
            pack.entries += 1;
            pack.rank = pack.rank.min(rank);
            // An entry that is not about the same object is worth next to nothing.
            let agrees = pack.is_tree == info.is_tree && pack.blocks as usize == info.frames.len();
            numbers[place.table as usize].push((number, if agrees { rank } else { rank.max(Rank::Cut) }));
            Ok(())
        })?;
        let (needed, twins) = (Marks::new(&rows), Marks::new(&rows));
        let blocks = vec![(0, 0); blocks];
        let (holes, unread) = Default::default();
        Ok(Live { index, packs, numbers, needed, twins, blocks, holes, unread, chunks: 0 })
    }

    fn entry(&self, place: Place) -> (u32, Rank) {
        self.numbers[place.table as usize][place.pack as usize]
    }

    /// The stored copies of a chunk.
    fn copies(&self, id: &ChunkId, is_tree: bool) -> Result<Vec<Copy>> {
        let mut copies: Vec<Copy> = Vec::new();
        self.index.find_rows(id, &mut |place, row| {
            let (number, rank) = self.entry(place);
            if self.packs[number as usize].is_tree == is_tree && rank != Rank::Absent {
                copies.push(Copy { place, row, rank });
            }
            true
        })?;
        Ok(copies)
    }

    /// Marks a chunk as needed. Returns whether it was not before.
    fn need(&mut self, reference: &Reference) -> Result<bool> {
        let mut copies = self.copies(&reference.id, reference.kind().is_tree())?;
        if copies.iter().all(|copy| copy.rank >= Rank::Cut) {
            return Err(Error::damaged(format!(
                "The {} chunk \"{}\" is in no stored pack that the index names",
                reference.kind().word(),
                reference.id
            )));
        }
        let has_twins = copies.len() > 1;
        copies.iter().for_each(|copy| self.twins.set(copy.place.table, copy.row, has_twins));
        retain_candidates(&mut copies);
        let first = &copies[0];
        if self.needed.get(first.place.table, first.row) {
            return match self.unread.contains(&reference.id) {
                true => Err(Error::damaged(format!("The page \"{}\" cannot be read", reference.id))),
                false => Ok(false),
            };
        }
        for copy in &copies {
            self.needed.set(copy.place.table, copy.row, true);
        }
        self.chunks += 1;
        Ok(true)
    }

    /// Marks what a snapshot needs; returns the first thing that it lacks, and how many there are, if it need not be whole.
    fn walk(&mut self, walk: &Walk<'_>, named: &Named, is_strict: bool) -> Result<Option<(Error, u64)>> {
        let mut needing = Needing { live: self, walk, named, is_strict, hole: None, met: None };
        references::walk(walk.repository, walk.stop, vec![root(named)], &mut needing)?;
        Ok(needing.hole)
    }

    /// Calls `each` with every row: its place, its number, and the beginning of its chunk's id.
    fn scan(&self, each: &mut dyn FnMut(Place, u64, ChunkId) -> Result<()>) -> Result<()> {
        let (mut table, mut row) = (0, 0);
        self.index.scan(&mut |place, id| {
            if place.table != table {
                (table, row) = (place.table, 0);
            }
            row += 1;
            each(place, row - 1, id)
        })
    }

    /// Of a chunk with several good copies one is kept: that under the newest key, then that in the pack of which most is needed.
    /// Of a chunk without any, all are.
    fn choose_copies(&mut self) -> Result<()> {
        let mut counts = vec![(0u64, 0u64); self.packs.len()];
        self.scan(&mut |place, row, _| {
            let (chunks, needed) = &mut counts[self.entry(place).0 as usize];
            *chunks += 1;
            *needed += u64::from(self.needed.get(place.table, row));
            Ok(())
        })?;
        let twins = std::mem::take(&mut self.twins);
        let mut kept = std::mem::take(&mut self.needed);
        self.scan(&mut |place, row, id| {
            if !twins.get(place.table, row) {
                return Ok(());
            }
            let is_tree = self.packs[self.entry(place).0 as usize].is_tree;
            let mut copies = self.copies(&id, is_tree)?;
            retain_candidates(&mut copies);
            // Each group of copies is dealt with at its first row.
            if copies.first().is_none_or(|first| (first.place.table, first.row) != (place.table, row)) {
                return Ok(());
            }
            if copies.iter().any(|copy| copy.rank > Rank::Condemned) {
                return Ok(());
            }
            let worth = |copy: &Copy| {
                let number = self.entry(copy.place).0 as usize;
                let (chunks, needed) = counts[number];
                let pack = &self.packs[number];
                (pack.epoch, needed * 1000 / chunks.max(1), Reverse((pack.name, copy.place.table, copy.row)))
            };
            let best = copies.iter().max_by_key(|copy| worth(copy)).map(|copy| (copy.place.table, copy.row));
            for copy in copies.iter().filter(|copy| Some((copy.place.table, copy.row)) != best) {
                kept.set(copy.place.table, copy.row, false);
            }
            Ok(())
        })?;
        (self.needed, self.twins) = (kept, twins);
        Ok(())
    }

    fn count_blocks(&mut self) -> Result<()> {
        let mut blocks = std::mem::take(&mut self.blocks);
        let mut counts = vec![(0u64, 0u64); self.packs.len()];
        self.scan(&mut |place, row, id| {
            let number = self.entry(place).0 as usize;
            let pack = &self.packs[number];
            let is_needed = self.needed.get(place.table, row);
            // Several entries of one pack may say the same.
            if pack.entries > 1 && !is_needed && self.is_said_elsewhere(place, row, &id)? {
                return Ok(());
            }
            counts[number].0 += 1;
            counts[number].1 += u64::from(is_needed);
            if place.block < pack.blocks {
                let (all, needed) = &mut blocks[pack.first_block + place.block as usize];
                *all = all.saturating_add(1);
                *needed = needed.saturating_add(u16::from(is_needed));
            }
            Ok(())
        })?;
        self.blocks = blocks;
        for (pack, (chunks, needed)) in self.packs.iter_mut().zip(counts) {
            (pack.chunks, pack.needed) = (chunks, needed);
        }
        let mut is_done = vec![false; self.packs.len()];
        let numbers = &self.numbers;
        let (packs, blocks) = (&mut self.packs, &self.blocks);
        self.index.for_each_pack_at(&mut |place, info| {
            let (number, _) = numbers[place.table as usize][place.pack as usize];
            if !std::mem::replace(&mut is_done[number as usize], true) {
                let pack = &mut packs[number as usize];
                pack.unused = unused(&info, &blocks[pack.first_block..pack.first_block + pack.blocks as usize]);
            }
            Ok(())
        })
    }

    /// Whether a needed row, or one that comes before this, says that the same block holds the same chunk.
    fn is_said_elsewhere(&self, at: Place, row: u64, id: &ChunkId) -> Result<bool> {
        let number = self.entry(at).0;
        let mut found = false;
        self.index.find_rows(id, &mut |place, other| {
            let is_same = self.entry(place).0 == number && place.block == at.block;
            found = is_same
                && (place.table, other) != (at.table, row)
                && ((place.table, other) < (at.table, row) || self.needed.get(place.table, other));
            !found
        })?;
        Ok(found)
    }

    /// The blocks of a pack that hold anything needed.
    pub(super) fn needed_blocks(&self, pack: &Pack) -> Vec<u32> {
        let blocks = &self.blocks[pack.first_block..pack.first_block + pack.blocks as usize];
        (0..pack.blocks).filter(|block| blocks[*block as usize].1 > 0).collect()
    }

    /// Whether this copy of a chunk, in the pack of this number, is the one that is needed.
    pub(super) fn needs(&self, number: usize, id: &ChunkId) -> Result<bool> {
        let mut is_needed = false;
        self.index.find_rows(id, &mut |place, row| {
            is_needed |= self.entry(place).0 as usize == number && self.needed.get(place.table, row);
            !is_needed
        })?;
        Ok(is_needed)
    }

    /// The blocks that hold the copies which stay where another copy of the same chunk goes with its pack.
    pub(super) fn beside(&self, is_going: &dyn Fn(usize) -> bool) -> Result<Beside> {
        let mut beside = Beside(vec![false; self.blocks.len()]);
        self.scan(&mut |place, row, id| {
            let is_let_go = self.twins.get(place.table, row)
                && !self.needed.get(place.table, row)
                && is_going(self.entry(place).0 as usize);
            if is_let_go { self.add_kept(&id, is_going, &mut beside) } else { Ok(()) }
        })?;
        Ok(beside)
    }

    /// Adds the block that holds the copy of a chunk that is kept, unless its pack goes as well.
    pub(super) fn add_kept(&self, id: &ChunkId, is_going: &dyn Fn(usize) -> bool, beside: &mut Beside) -> Result<()> {
        self.index.find_rows(id, &mut |place, row| {
            let number = self.entry(place).0 as usize;
            let pack = &self.packs[number];
            if self.needed.get(place.table, row) && !is_going(number) && place.block < pack.blocks {
                beside.0[pack.first_block + place.block as usize] = true;
            }
            true
        })
    }

    /// Whether a chunk is needed and no copy may be relied on.
    pub(super) fn has_only_doubtful(&self, id: &ChunkId) -> Result<bool> {
        let (mut is_needed, mut is_doubtful) = (false, true);
        self.index.find_rows(id, &mut |place, row| {
            let (_, rank) = self.entry(place);
            is_needed |= self.needed.get(place.table, row);
            is_doubtful &= rank > Rank::Condemned;
            true
        })?;
        Ok(is_needed && is_doubtful)
    }

    /// The blocks of a pack that are among these.
    pub(super) fn blocks_beside(&self, number: usize, beside: &Beside) -> Vec<u32> {
        let pack = &self.packs[number];
        (0..pack.blocks).filter(|block| beside.0[pack.first_block + *block as usize]).collect()
    }

    /// Whether chunks with these ids are all that is needed of a block.
    pub(super) fn is_all(&self, number: usize, block: u32, ids: &[ChunkId]) -> Result<bool> {
        let mut found = 0u16;
        for id in ids {
            let mut is_needed = false;
            self.index.find_rows(id, &mut |place, row| {
                let is_there = self.entry(place).0 as usize == number && place.block == block;
                is_needed |= is_there && self.needed.get(place.table, row);
                !is_needed
            })?;
            found = found.saturating_add(u16::from(is_needed));
        }
        Ok(found >= self.blocks[self.packs[number].first_block + block as usize].1)
    }

    /// What the index says about the pack of this number.
    pub(super) fn info(&self, number: usize) -> Result<PackInfo> {
        for (table, packs) in self.numbers.iter().enumerate() {
            let is_it = |(of, rank): &(u32, Rank)| *of as usize == number && *rank == self.packs[number].rank;
            if let Some(pack) = packs.iter().position(is_it) {
                let place = Place { table: table as u32, pack: pack as u32, block: 0 };
                return Ok(self.index.pack(place)?.as_ref().clone());
            }
        }
        Err(Error::new(ErrorKind::Failed, "A pack of the index is not in the index"))
    }
}

/// Leaves those copies of a chunk one of which suffices; all of them if none may be relied on.
fn retain_candidates(copies: &mut Vec<Copy>) {
    if let Some(best @ (Rank::Good | Rank::Condemned)) = copies.iter().map(|copy| copy.rank).min() {
        copies.retain(|copy| copy.rank == best);
    }
}

/// Bytes of frames that nobody needs; of a block of which a part is needed, its share by number of chunks.
fn unused(info: &PackInfo, blocks: &[(u16, u16)]) -> u64 {
    let frames = info.frames.iter().zip(blocks);
    frames
        .map(|(frame, (all, needed))| {
            let spare = u64::from(all - needed.min(all));
            if *all == 0 { u64::from(*frame) } else { u64::from(*frame) * spare / u64::from(*all) }
        })
        .sum()
}

const DAMAGED: &str = "Run \"firn check\" to see what is damaged; \"firn repair index\" finds chunks whose index segments were lost, \"firn repair snapshots\" writes snapshots without what is lost.";
const UNSURE: &str = "Its session was revoked; if its backup did not report success, run \"firn forget\" on it. Otherwise run \"firn check\".";
