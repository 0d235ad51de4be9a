//! Which pack and block hold a chunk: the repository's index segments, kept as sorted tables on local disk.
//! Not for: whether a chunk is alive (only snapshots say that), or whether its pack still exists.
//!
//! Memory: one segment (16 MiB) while loading, then the tables' filters (1.3 bytes a chunk) and page caches.

use super::as_read::AsRead;
use super::keyring::Keyring;
use super::refresh::Lack;
pub use super::stored_packs::StoredPacks;
use super::table::{Origin, PackInfo, Row, Table, TableWriter, prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_RECORD_OBJECT;
use crate::format::header::Kind;
use crate::format::index::Segment;
use crate::id::{ChunkId, ObjectName, RepositoryId};
use crate::progress::Progress;
use crate::store::{Listed, ObjectKey, ObjectKind, Store};
use quick_cache::sync::Cache;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the segments are listed again when one of them goes away meanwhile.
const LOAD_ATTEMPTS: u32 = 4;
/// More tables than this are merged; each look-up asks them all.
const MAX_TABLES: usize = 8;
/// Pack records kept in memory; a record has about 300 bytes.
const CACHED_PACKS: usize = 8192;
/// How long a pack that is missing is not asked for again: a lost pack has thousands of chunks, each listing takes its time.
const LACKING_FOR: Duration = Duration::from_secs(10);
/// Packs noted so at most.
const MAX_LACKING: usize = 10_000;

/// A place of a chunk, in the terms of this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which table.
    pub table: u32,
    /// Which pack of the table.
    pub pack: u32,
    /// Which block of the pack.
    pub block: u32,
}

/// The index of a repository as of one moment.
#[derive(Debug)]
pub struct Index {
    tables: Vec<Table>,
    pack_cache: Cache<(u32, u32), Arc<PackInfo>>,
    /// Segments that could not be read, and why.
    pub damaged: Vec<(ObjectName, Error)>,
    /// Segments that count, in no order.
    pub segments: Vec<ObjectName>,
    /// All segments that the store listed, as a hash of their names.
    pub(super) listing: blake3::Hash,
    lacking: Mutex<HashMap<Lack, Instant>>,
}

/// The names of all segments that are listed, as one hash.
pub(super) fn segment_listing(list: &Listing<'_>) -> Result<blake3::Hash> {
    let mut names = HashSet::new();
    list(&mut |object| {
        names.insert(ObjectName::parse(&object.name)?);
        Ok(())
    })?;
    Ok(hash_of(&names))
}

fn hash_of(names: &HashSet<ObjectName>) -> blake3::Hash {
    let mut names: Vec<_> = names.iter().collect();
    names.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(&name.0);
    }
    hasher.finalize()
}

/// Which packs a writer may rely on: those that are stored with the right size and not condemned by a prune.
/// One bit a pack.
#[derive(Debug, Default)]
pub struct Usable(Vec<Vec<bool>>);

impl Usable {
    /// Whether a chunk at this place may be relied on.
    pub fn contains(&self, place: Place) -> bool {
        self.0.get(place.table as usize).and_then(|packs| packs.get(place.pack as usize)).copied().unwrap_or(false)
    }
}

/// Lists the index segments of a store.
pub(super) type Listing<'a> = dyn Fn(&mut dyn FnMut(Listed) -> Result<()>) -> Result<()> + 'a;

impl Index {
    /// Brings the tables in `folder` up to date with the segments that `list` names, which are as they were `as_read`.
    pub(super) fn load(
        keyring: &Keyring,
        store: &dyn Store,
        list: &Listing<'_>,
        (folder, as_read): (&Path, &mut AsRead),
        progress: &dyn Progress,
    ) -> Result<Index> {
        fs::create_dir_all(folder)
            .map_err(|error| Error::io(format!("The cache folder \"{}\" cannot be made", folder.display()), error))?;
        for _ in 1..LOAD_ATTEMPTS {
            match Index::load_once(keyring, store, list, (folder, as_read), progress) {
                // A segment that is listed and gone a moment later was replaced by another; the next listing shows that one.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                loaded => return loaded,
            }
        }
        Index::load_once(keyring, store, list, (folder, as_read), progress).map_err(|error| {
            if error.kind() == ErrorKind::NotFound { error.with_kind(ErrorKind::Damaged) } else { error }
        })
    }

    fn load_once(
        keyring: &Keyring,
        store: &dyn Store,
        list: &Listing<'_>,
        (folder, as_read): (&Path, &mut AsRead),
        progress: &dyn Progress,
    ) -> Result<Index> {
        let is_shared = store.properties().is_shared;
        let mut listed = HashSet::new();
        as_read.begin();
        list(&mut |object| {
            let name = ObjectName::parse(&object.name)?;
            as_read.listed(name, &object, is_shared);
            listed.insert(name);
            Ok(())
        })?;
        let mut loader = Loader {
            keyring,
            store,
            folder,
            as_read,
            repository: keyring.repository(),
            tables: Vec::new(),
            damaged: Vec::new(),
        };
        loader.open_tables(&listed)?;
        loader.load_missing(&listed, progress)?;
        loader.as_read.close();
        loader.merge_small()?;
        let mut segments = Vec::new();
        for (_, table) in &loader.tables {
            segments.extend(table.origins().iter().map(|origin| origin.segment));
        }
        Ok(Index {
            tables: loader.tables.into_iter().map(|(_, table)| table).collect(),
            pack_cache: Cache::new(CACHED_PACKS),
            damaged: loader.damaged,
            segments,
            listing: hash_of(&listed),
            lacking: Mutex::default(),
        })
    }

    /// Whether the store was found a moment ago to have no newer index that could help with this.
    pub(super) fn lacks(&self, lack: Lack) -> bool {
        let lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        lacking.get(&lack).is_some_and(|since| since.elapsed() < LACKING_FOR)
    }

    /// Notes that it has none.
    pub(super) fn note_lack(&self, lack: Lack) {
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        if lacking.len() >= MAX_LACKING {
            lacking.clear();
        }
        lacking.insert(lack, Instant::now());
    }

    /// Chunks in the index, counting copies.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(Table::rows).sum()
    }

    /// Calls `each` with every place of a chunk until it returns false.
    pub fn find(&self, id: &ChunkId, each: &mut dyn FnMut(Place) -> bool) -> Result<()> {
        self.find_rows(id, &mut |place, _| each(place))
    }

    /// The same, with the number of the row in its table.
    pub fn find_rows(&self, id: &ChunkId, each: &mut dyn FnMut(Place, u64) -> bool) -> Result<()> {
        let mut go_on = true;
        for (number, table) in self.tables.iter().enumerate() {
            table.find(id, &mut |row, pack, block| {
                go_on = each(Place { table: number as u32, pack, block }, row);
                go_on
            })?;
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` with every row: its place, and the beginning of the chunk's id (the rest is zero), by which `find` finds it.
    pub fn scan(&self, each: &mut dyn FnMut(Place, ChunkId) -> Result<()>) -> Result<()> {
        for (number, table) in self.tables.iter().enumerate() {
            for row in table.scan() {
                let row = row?;
                let mut id = [0; 32];
                id[..row.prefix.len()].copy_from_slice(&row.prefix);
                each(Place { table: number as u32, pack: row.pack, block: row.block }, ChunkId(id))?;
            }
        }
        Ok(())
    }

    /// Packs in the index, counting one once for each table that names it.
    pub fn pack_entries(&self) -> usize {
        self.tables.iter().map(|table| table.pack_count() as usize).sum()
    }

    /// The number of rows of each table; rows are numbered from 0 in the order of `scan`.
    pub fn rows_by_table(&self) -> Vec<u64> {
        self.tables.iter().map(Table::rows).collect()
    }

    /// What is known about the pack at `place`.
    pub fn pack(&self, place: Place) -> Result<Arc<PackInfo>> {
        self.pack_cache.get_or_insert_with(&(place.table, place.pack), || {
            self.tables[place.table as usize].pack(place.pack).map(Arc::new)
        })
    }

    /// Calls `each` for every pack that the index names. A pack in several tables comes several times.
    pub fn for_each_pack(&self, each: &mut dyn FnMut(PackInfo) -> Result<()>) -> Result<()> {
        self.for_each_pack_at(&mut |_, pack| each(pack))
    }

    /// The same, with a place in each pack (its block 0) by which `pack` finds it again.
    pub fn for_each_pack_at(&self, each: &mut dyn FnMut(Place, PackInfo) -> Result<()>) -> Result<()> {
        for (number, table) in self.tables.iter().enumerate() {
            for pack in 0..table.pack_count() {
                each(Place { table: number as u32, pack, block: 0 }, table.pack(pack)?)?;
            }
        }
        Ok(())
    }

    /// Compares the index with what the store lists, less the marked packs.
    pub fn usable(&self, stored: &StoredPacks, marked: &HashSet<ObjectName>) -> Result<Usable> {
        let mut usable = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            let mut packs = Vec::with_capacity(table.pack_count() as usize);
            for number in 0..table.pack_count() {
                let pack = table.pack(number)?;
                packs.push(stored.has(&pack) && !marked.contains(&pack.name));
            }
            usable.push(packs);
        }
        Ok(Usable(usable))
    }
}

/// Fetches one segment and decodes it.
pub fn read_segment(keyring: &Keyring, store: &dyn Store, name: ObjectName) -> Result<Segment> {
    let key = ObjectKey::new(ObjectKind::Index, name);
    let bytes = store.get(&key, MAX_RECORD_OBJECT)?;
    if super::keyring::object_name(&bytes) != name {
        return Err(Error::damaged(format!(
            "The index segment \"{key}\" does not have the bytes that its name promises"
        )));
    }
    let body = keyring
        .open_record(Kind::IndexSegment, bytes)
        .map_err(|error| error.context(format!("The index segment \"{key}\" cannot be opened")))?;
    Segment::decode(&body).map_err(|error| error.context(format!("The index segment \"{key}\" cannot be decoded")))
}

struct Loader<'a> {
    keyring: &'a Keyring,
    store: &'a dyn Store,
    folder: &'a Path,
    as_read: &'a mut AsRead,
    repository: RepositoryId,
    tables: Vec<(PathBuf, Table)>,
    damaged: Vec<(ObjectName, Error)>,
}

/// Tables with at most so many rows (1.2 MB) are read whole when they are opened.
const VERIFIED_ROWS: u64 = 50_000;

impl Loader<'_> {
    /// Fetches one segment and notes that the store has it as it should be.
    fn read(&mut self, name: ObjectName) -> Result<Segment> {
        let segment = read_segment(self.keyring, self.store, name)?;
        self.as_read.note(name);
        Ok(segment)
    }

    /// Whether the store still has what a table was made from. Whoever acts on the index must not rely on what only this machine has.
    fn is_still_stored(&mut self, table: &Table, listed: &HashSet<ObjectName>) -> Result<bool> {
        for name in table.origins().iter().map(|origin| origin.segment).filter(|name| listed.contains(name)) {
            if !self.as_read.is_as_read(&name) {
                match self.read(name) {
                    Err(error) if error.kind() == ErrorKind::Damaged => return Ok(false),
                    read => drop(read?),
                }
            }
        }
        Ok(true)
    }

    /// Opens the tables that are whole and made only from segments that still count; removes all others.
    fn open_tables(&mut self, listed: &HashSet<ObjectName>) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.folder) else { return Ok(()) };
        let mut candidates = Vec::new();
        for path in
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "table"))
        {
            let opened = Table::open(&path, &self.repository).and_then(|table| {
                // Small ones are read whole, so that damage costs nobody a failed run; others say so when they meet it.
                if table.rows() <= VERIFIED_ROWS { table.verify().map(|()| table) } else { Ok(table) }
            });
            match opened {
                Ok(table) => candidates.push((path, table)),
                // Somebody else's merge may have removed it meanwhile; damage is removed here. Both only cost a rebuild.
                Err(_) => drop(fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path))),
            }
        }
        let replaced: HashSet<ObjectName> = candidates
            .iter()
            .flat_map(|(_, table)| table.origins())
            .filter(|origin| listed.contains(&origin.segment))
            .flat_map(|origin| origin.replaces.iter().copied())
            .collect();
        // The largest first, so that a merged table wins over its parts left behind by a crash.
        candidates.sort_by_key(|(_, table)| Reverse(table.origins().len()));
        let mut covered = HashSet::new();
        for (path, table) in candidates {
            let counts = |origin: &Origin| {
                listed.contains(&origin.segment)
                    && !replaced.contains(&origin.segment)
                    && !covered.contains(&origin.segment)
            };
            if table.origins().iter().all(counts) && self.is_still_stored(&table, listed)? {
                covered.extend(table.origins().iter().map(|origin| origin.segment));
                self.tables.push((path, table));
            } else {
                drop(fs::remove_file(&path));
            }
        }
        Ok(())
    }

    fn load_missing(&mut self, listed: &HashSet<ObjectName>, progress: &dyn Progress) -> Result<()> {
        let mut covered: HashSet<ObjectName> = HashSet::new();
        let mut replaced: HashSet<ObjectName> = HashSet::new();
        for origin in self.tables.iter().flat_map(|(_, table)| table.origins()) {
            covered.insert(origin.segment);
            replaced.extend(&origin.replaces);
        }
        let mut missing: Vec<ObjectName> = listed.iter().filter(|name| !covered.contains(*name)).copied().collect();
        missing.sort();
        if missing.len() > MAX_TABLES {
            progress.stage("reading the index");
        }
        let mut built: BTreeMap<ObjectName, (PathBuf, Table)> = BTreeMap::new();
        let mut gone = Vec::new();
        for name in missing {
            if replaced.contains(&name) {
                continue;
            }
            match self.read(name) {
                Ok(segment) => {
                    replaced.extend(&segment.replaces);
                    let table = self.build(name, segment)?;
                    built.insert(name, table);
                }
                Err(error) if error.kind() == ErrorKind::Damaged => self.damaged.push((name, error)),
                // Whoever replaced it takes the old ones away one by one, which may take longer than all attempts to read them.
                Err(error) if error.kind() == ErrorKind::NotFound => gone.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        if let Some((_, error)) = gone.into_iter().find(|(name, _)| !replaced.contains(name)) {
            return Err(error);
        }
        // A segment read before the one that replaces it was known, or a table opened before, steps back now.
        let stale = |table: &Table| table.origins().iter().any(|origin| replaced.contains(&origin.segment));
        self.tables.extend(built.into_values());
        let (left, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.tables).into_iter().partition(|(_, table)| stale(table));
        self.tables = kept;
        let mut again = Vec::new();
        for (path, table) in left {
            again.extend(table.origins().iter().map(|origin| origin.segment).filter(|name| !replaced.contains(name)));
            drop(fs::remove_file(&path));
        }
        for name in again {
            match self.read(name) {
                Ok(segment) => {
                    let table = self.build(name, segment)?;
                    self.tables.push(table);
                }
                Err(error) if error.kind() == ErrorKind::Damaged => self.damaged.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn build(&self, name: ObjectName, segment: Segment) -> Result<(PathBuf, Table)> {
        let origins = [Origin { segment: name, replaces: segment.replaces }];
        let packs = segment.packs.into_iter().map(|pack| {
            Ok(Arc::new(PackInfo {
                name: pack.name,
                is_tree: pack.is_tree,
                epoch: pack.epoch,
                size: pack.size,
                frames: pack.frames,
            }))
        });
        let chunks = segment.chunks;
        self.write(&origins, chunks.len() as u64, &mut packs.into_iter(), |writer| {
            for (id, pack, block) in &chunks {
                writer.push(Row { prefix: prefix(id), pack: *pack, block: *block })?;
            }
            Ok(())
        })
    }

    /// Writes a table under a name that follows from its origins: two processes doing the same write the same file.
    fn write(
        &self,
        origins: &[Origin],
        rows: u64,
        packs: &mut dyn Iterator<Item = Result<Arc<PackInfo>>>,
        fill: impl FnOnce(&mut TableWriter) -> Result<()>,
    ) -> Result<(PathBuf, Table)> {
        let mut hasher = blake3::Hasher::new();
        for origin in origins {
            hasher.update(&origin.segment.0);
        }
        let name = hasher.finalize().to_hex();
        let path = self.folder.join(format!("{name}.table"));
        let temporary = self.folder.join(format!(".{name}.{}.new", crate::id::SessionId::random()?));
        let failed = |error| {
            Error::io(format!("The local index \"{}\" cannot be written", path.display()), error)
                .with_hint("Name another folder with --cache-dir or FIRN_CACHE_DIR, or use --no-cache.")
        };
        let file = File::options().write(true).create_new(true).open(&temporary).map_err(failed)?;
        let mut writer = TableWriter::new(file, rows);
        let written = fill(&mut writer).and_then(|()| writer.finish(&self.repository, packs, origins));
        let opened = written.and_then(|()| Table::open(&temporary, &self.repository));
        match opened.and_then(|table| fs::rename(&temporary, &path).map_err(failed).map(|()| table)) {
            Ok(table) => Ok((path, table)),
            Err(error) => {
                drop(fs::remove_file(&temporary));
                Err(error)
            }
        }
    }

    /// Merges the smallest tables once there are more than `MAX_TABLES`; streams, so memory stays at a page a table.
    fn merge_small(&mut self) -> Result<()> {
        while self.tables.len() > MAX_TABLES {
            self.tables.sort_by_key(|(_, table)| Reverse(table.rows()));
            let parts = self.tables.split_off(self.tables.len() - MAX_TABLES);
            let mut origins: Vec<Origin> = parts.iter().flat_map(|(_, table)| table.origins().to_vec()).collect();
            origins.sort_by_key(|origin| origin.segment);
            let rows = parts.iter().map(|(_, table)| table.rows()).sum();
            let mut packs =
                parts.iter().flat_map(|(_, table)| (0..table.pack_count()).map(|n| table.pack(n).map(Arc::new)));
            let merged = self.write(&origins, rows, &mut packs, |writer| merge_rows(&parts, writer))?;
            drop(packs);
            for (path, _) in &parts {
                if *path != merged.0 {
                    drop(fs::remove_file(path));
                }
            }
            self.tables.push(merged);
        }
        Ok(())
    }
}

fn merge_rows(parts: &[(PathBuf, Table)], writer: &mut TableWriter) -> Result<()> {
    let mut bases = Vec::with_capacity(parts.len());
    let mut base = 0;
    for (_, table) in parts {
        bases.push(base);
        base += table.pack_count();
    }
    let mut scans: Vec<_> = parts.iter().map(|(_, table)| table.scan()).collect();
    let mut heap = BinaryHeap::new();
    let mut advance = |number: usize, heap: &mut BinaryHeap<Reverse<(Row, usize)>>| -> Result<()> {
        if let Some(row) = scans[number].next() {
            let mut row = row?;
            row.pack += bases[number];
            heap.push(Reverse((row, number)));
        }
        Ok(())
    };
    for number in 0..parts.len() {
        advance(number, &mut heap)?;
    }
    while let Some(Reverse((row, number))) = heap.pop() {
        writer.push(row)?;
        advance(number, &mut heap)?;
    }
    Ok(())
}
