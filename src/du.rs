//! What snapshots, and paths in them, take: restored, stored, and alone. Not for: what the whole repository takes (see `stats`), or
//! deleting anything (see `prune`).
//!
//! Counted are chunks of all kinds, each once: content, and the pages, lists and attribute sets that lead to it. A chunk takes the part
//! of its block that it has of the bytes in there. Those of chunks that no snapshot needs are not known without reading them and count
//! as long as the others in the block.
//!
//! First all live snapshots are walked, one after the other. Each chunk is then known to be needed by none, one or several of them: what
//! is below a page that several need is needed by several, so that each page is opened twice at most. Then what is asked for is walked
//! once more, each time with fresh marks.
//!
//! Memory: three bits a chunk, eight bytes a block, and a page for each directory on the way down.

#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::Entry;
use crate::id::{ChunkId, ObjectName};
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::index::{Index, Place};
use crate::repository::marks::Marks;
use crate::repository::snapshots::Named;
use crate::view::references::{Claim, Reference, Visitor, entry_references, root, walk};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes are added up in parts of this size, so that what is lost by rounding does not show.
const PARTS: u128 = 1 << 16;
/// Rows that are marked while something is measured and can be taken back one by one.
const TRAIL: usize = 4096;
/// Pages that could not be opened and are remembered, so that each is told once.
const TOLD: usize = 10_000;

/// What something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of all files, those with several names as often as they have.
    pub restore: u64,
    /// Files.
    pub files: u64,
    /// Bytes of its chunks in the repository.
    pub stored: u64,
    /// The same of chunks that only its snapshot needs: without that snapshot a prune would free them.
    pub unique: u64,
    /// Something of it cannot be read, so that it takes more.
    pub incomplete: bool,
}

/// A block of a pack that the index names.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Chunks in it, and those among them that any snapshot needs.
    chunks: u16,
    needed: u16,
    /// Bytes of the needed ones before compression.
    bytes: u32,
}

/// Where a chunk is.
struct Found {
    place: Place,
    row: u64,
    block: usize,
}

/// What all live snapshots need.
pub struct Usage<'a> {
    repository: &'a Repository,
    index: Arc<Index>,
    stop: &'a Stop,
    /// For each table, for each pack of it: its first block in `blocks`, and whether it is a tree pack.
    packs: Vec<Vec<(usize, bool)>>,
    blocks: Vec<Block>,
    /// Needed by the snapshot that is being walked; with `before` as well, by several.
    now: Marks,
    /// Needed by one that was walked before; with `now` as well, by several.
    before: Marks,
    /// Met by the measurement under way.
    met: Marks,
    trail: Vec<(u32, u64)>,
    /// Pages that were told about.
    told: HashSet<ChunkId>,
    /// Pages that cannot be opened.
    pub issues: u64,
}

impl<'a> Usage<'a> {
    /// Walks all these snapshots, which are to be all that are live. Pages that cannot be read are told to `progress` and left out.
    pub fn find(
        repository: &'a Repository,
        snapshots: &[Named],
        progress: &dyn Progress,
        stop: &'a Stop,
    ) -> Result<Usage<'a>> {
        let index = repository.index()?;
        let rows = index.rows_by_table();
        let mut packs: Vec<Vec<(usize, bool)>> = rows.iter().map(|_| Vec::new()).collect();
        let mut blocks = 0;
        index.for_each_pack_at(&mut |place, pack| {
            packs[place.table as usize].push((blocks, pack.is_tree));
            blocks += pack.frames.len();
            Ok(())
        })?;
        let mut usage = Usage {
            repository,
            stop,
            packs,
            blocks: vec![Block::default(); blocks],
            now: Marks::new(&rows),
            before: Marks::new(&rows),
            met: Marks::new(&rows),
            trail: Vec::new(),
            told: HashSet::new(),
            issues: 0,
            index,
        };
        usage.count_chunks()?;
        progress.stage("looking at what snapshots need");
        progress.expect(snapshots.len() as u64, 0);
        for named in snapshots {
            let mut visitor = Sharing { usage: &mut usage, progress, snapshot: named.name };
            walk(repository, stop, vec![root(named)], &mut visitor)?;
            usage.now.move_to(&mut usage.before);
            progress.files(1);
        }
        Ok(usage)
    }

    fn count_chunks(&mut self) -> Result<()> {
        let Usage { index, packs, blocks, .. } = self;
        index.scan(&mut |place, _| {
            let (first, _) = packs[place.table as usize][place.pack as usize];
            if let Some(block) = blocks.get_mut(first + place.block as usize) {
                block.chunks = block.chunks.saturating_add(1);
            }
            Ok(())
        })
    }

    /// The first copy of a chunk that the index names. With damage that `check` finds there may be none.
    fn locate(&self, reference: &Reference) -> Result<Option<Found>> {
        let is_tree = reference.kind().is_tree();
        let mut found = None;
        self.index.find_rows(&reference.id, &mut |place, row| {
            let (first, is_tree_pack) = self.packs[place.table as usize][place.pack as usize];
            let block = first + place.block as usize;
            if is_tree_pack == is_tree && block < self.blocks.len() {
                found = Some(Found { place, row, block });
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Bytes that a chunk of this length takes, in `PARTS` of a byte.
    fn share(&self, found: &Found, length: u64) -> Result<u128> {
        let pack = self.index.pack(found.place)?;
        let frame = pack.frames.get(found.place.block as usize).copied().unwrap_or(0);
        let Block { chunks, needed, bytes } = self.blocks[found.block];
        let whole = u128::from(bytes.max(1)) * u128::from(chunks.max(1));
        // Of a frame that is needed as a whole, the part of the chunk; of any other, that of what is needed.
        let part = u128::from(frame) * u128::from(length) * u128::from(needed.min(chunks));
        Ok((part * PARTS / whole).min(u128::from(frame) * PARTS))
    }

    /// Bytes of all chunks that live snapshots need, each once.
    pub fn stored(&self) -> Result<u64> {
        let mut sum = 0u128;
        let (packs, blocks) = (&self.packs, &self.blocks);
        self.index.for_each_pack_at(&mut |place, pack| {
            let (first, _) = packs[place.table as usize][place.pack as usize];
            for (frame, block) in pack.frames.iter().zip(&blocks[first..]) {
                let needed = u128::from(block.needed.min(block.chunks));
                sum += u128::from(*frame) * needed * PARTS / u128::from(block.chunks.max(1));
            }
            Ok(())
        })?;
        Ok((sum / PARTS) as u64)
    }

    /// What a snapshot takes.
    pub fn of_snapshot(&mut self, named: &Named) -> Result<Sizes> {
        let totals = named.snapshot.totals;
        self.measure(vec![root(named)], totals.bytes, totals.files)
    }

    /// What an entry of a live snapshot takes, with all that is below it.
    pub fn of_entry(&mut self, entry: &Entry) -> Result<Sizes> {
        let totals = entry.totals()?;
        self.measure(entry_references(entry.clone()), totals.bytes, totals.files)
    }

    fn measure(&mut self, start: Vec<Reference>, restore: u64, files: u64) -> Result<Sizes> {
        let (repository, stop) = (self.repository, self.stop);
        let mut measuring = Measuring { usage: self, stored: 0, unique: 0, incomplete: false };
        let walked = walk(repository, stop, start, &mut measuring);
        let Measuring { stored, unique, incomplete, .. } = measuring;
        if self.trail.len() < TRAIL {
            self.trail.iter().for_each(|(table, row)| self.met.set(*table, *row, false));
        } else {
            self.met.clear();
        }
        self.trail.clear();
        walked?;
        let bytes = |parts: u128| (parts / PARTS) as u64;
        Ok(Sizes { restore, files, stored: bytes(stored), unique: bytes(unique), incomplete })
    }
}

/// The length of what is no page.
fn length(reference: &Reference) -> u64 {
    match reference.claim {
        Claim::Content(length) | Claim::Attributes(length) => u64::from(length),
        _ => 0,
    }
}

/// Finds out which chunks are needed by the snapshot that is walked, and which by others as well.
struct Sharing<'u, 'a> {
    usage: &'u mut Usage<'a>,
    progress: &'u dyn Progress,
    snapshot: ObjectName,
}

impl Sharing<'_, '_> {
    fn tell(&mut self, path: &[u8], error: &Error) {
        self.usage.issues += 1;
        let path = path.strip_prefix(b"/root").unwrap_or(path);
        let path =
            [format!("{}:", self.snapshot.short()).as_bytes(), if path.is_empty() { b"/" } else { path }].concat();
        self.progress.issue(Path::new(OsStr::from_bytes(&path)), error);
    }

    /// Notes that a block holds a chunk which is needed, and was not known to be.
    fn note(&mut self, reference: &Reference, length: u64) -> Result<()> {
        if let Some(found) = self.usage.locate(reference)? {
            let block = &mut self.usage.blocks[found.block];
            block.needed = block.needed.saturating_add(1);
            block.bytes = block.bytes.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

impl Visitor for Sharing<'_, '_> {
    fn meet(&mut self, reference: &Reference) -> Result<bool> {
        let usage = &mut *self.usage;
        let Some(Found { place, row, .. }) = usage.locate(reference)? else {
            if usage.told.len() < TOLD && usage.told.insert(reference.id) {
                let error = Error::damaged(format!("The chunk \"{}\" is not in the index", reference.id));
                self.tell(
                    reference.name.as_deref().map(|name| [b"/", name].concat()).as_deref().unwrap_or_default(),
                    &error,
                );
            }
            return Ok(false);
        };
        let table = place.table;
        match (usage.now.get(table, row), usage.before.get(table, row)) {
            // Met before in this snapshot, or known to be needed by several, as is all below.
            (true, _) => Ok(false),
            (false, true) => {
                usage.now.set(table, row, true);
                Ok(true)
            }
            (false, false) => {
                usage.now.set(table, row, true);
                if !reference.is_page() {
                    self.note(reference, length(reference))?;
                }
                Ok(true)
            }
        }
    }

    fn opened(&mut self, reference: &Reference, length: usize) -> Result<()> {
        match self.usage.locate(reference)? {
            // The first time; the second time it has both marks.
            Some(found) if !self.usage.before.get(found.place.table, found.row) => self.note(reference, length as u64),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, path: &[u8], error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Interrupted {
            return Err(error);
        }
        self.tell(path, &error);
        Ok(())
    }
}

/// Adds up what chunks take.
struct Measuring<'u, 'a> {
    usage: &'u mut Usage<'a>,
    stored: u128,
    unique: u128,
    incomplete: bool,
}

impl Measuring<'_, '_> {
    fn add(&mut self, found: &Found, length: u64) -> Result<()> {
        let share = self.usage.share(found, length)?;
        self.stored += share;
        let (table, row) = (found.place.table, found.row);
        if !(self.usage.now.get(table, row) && self.usage.before.get(table, row)) {
            self.unique += share;
        }
        Ok(())
    }
}

impl Visitor for Measuring<'_, '_> {
    fn meet(&mut self, reference: &Reference) -> Result<bool> {
        let Some(found) = self.usage.locate(reference)? else {
            self.incomplete = true;
            return Ok(false);
        };
        let (table, row) = (found.place.table, found.row);
        if self.usage.met.get(table, row) {
            return Ok(false);
        }
        self.usage.met.set(table, row, true);
        if self.usage.trail.len() < TRAIL {
            self.usage.trail.push((table, row));
        }
        if !reference.is_page() {
            self.add(&found, length(reference))?;
        }
        Ok(true)
    }

    fn opened(&mut self, reference: &Reference, length: usize) -> Result<()> {
        match self.usage.locate(reference)? {
            Some(found) => self.add(&found, length as u64),
            None => Ok(()),
        }
    }

    fn failed(&mut self, _: &[u8], error: Error) -> Result<()> {
        self.incomplete = true;
        // It was told when all snapshots were walked.
        if error.kind() == ErrorKind::Interrupted { Err(error) } else { Ok(()) }
    }
}
