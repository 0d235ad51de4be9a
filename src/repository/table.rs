//! An immutable, checksummed, sorted table on local disk: chunk id → pack and block. Not for: deciding which tables count (see `index`).
//!
//! Memory: the filter and the beginnings of pages, about 1.3 bytes a chunk, and at most 4 MiB of pages a table. Everything else stays
//! on disk, and one page of it answers a question.
//! The file can be deleted at any time; it is rebuilt from index segments.

use crate::error::{Error, ErrorKind, Result};
use crate::format::bytes::{Put, Reader};
use crate::id::{ChunkId, ObjectName, RepositoryId};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const MAGIC: &[u8; 8] = b"firntbl3";
const PAGE: usize = 4096;
const CHECKSUM: usize = 16;
const ENTRY: usize = 24;
const PER_PAGE: usize = (PAGE - CHECKSUM) / ENTRY;
const CACHED_PAGES: usize = 1024;
/// The largest footer that is read: 64 MiB hold the names of a million segments.
const MAX_FOOTER: u64 = 64 << 20;

/// Where a chunk is, in the terms of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The first 16 bytes of the chunk's id.
    pub prefix: [u8; 16],
    /// Pack, counted from 0 in the table.
    pub pack: u32,
    /// Block, counted from 0 in the pack.
    pub block: u32,
}

/// What the table knows about a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackInfo {
    /// The pack's name.
    pub name: ObjectName,
    /// Tree pack (else data pack).
    pub is_tree: bool,
    /// Key epoch.
    pub epoch: u16,
    /// Stored size.
    pub size: u64,
    /// Lengths of its frames.
    pub frames: Vec<u32>,
}

impl PackInfo {
    /// Offset and length of the frame of `block` in the pack.
    pub fn frame(&self, block: u32) -> Option<(u64, u32)> {
        let length = *self.frames.get(block as usize)?;
        let before: u64 = self.frames[..block as usize].iter().map(|length| u64::from(*length)).sum();
        Some((crate::format::header::HEADER_LEN as u64 + before, length))
    }
}

/// A segment that a table was made from, and the segments which that one replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The segment.
    pub segment: ObjectName,
    /// What it replaces.
    pub replaces: Vec<ObjectName>,
}

/// A page and its number.
type CachedPage = (u64, Box<[u8; PAGE]>);

/// An open table.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    file: File,
    rows: u64,
    packs: Vec<u64>,
    origins: Vec<Origin>,
    filter: Filter,
    /// With what the first row of each page begins.
    fences: Vec<u32>,
    pages: Vec<Mutex<Option<CachedPage>>>,
}

/// A blocked Bloom filter: one cache line a key, six bits in it, ten bits a key (about 1 % false hits).
/// (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007.)
#[derive(Debug)]
struct Filter(Vec<u8>);

impl Filter {
    fn for_rows(rows: u64) -> Filter {
        let lines = (rows * 10).div_ceil(512).max(1);
        Filter(vec![0; (lines * 64) as usize])
    }

    // Ids are keyed hashes: their bytes are as good as any hash of them.
    fn bits(&self, prefix: &[u8; 16]) -> (usize, [u16; 6]) {
        let low = u64::from_le_bytes(*prefix[..8].first_chunk().expect("a prefix has 16 bytes"));
        let high = u64::from_le_bytes(*prefix[8..].first_chunk().expect("a prefix has 16 bytes"));
        let lines = (self.0.len() / 64) as u128;
        let line = ((u128::from(low) * lines) >> 64) as usize;
        (line * 64, std::array::from_fn(|i| (high >> (9 * i)) as u16 & 511))
    }

    fn insert(&mut self, prefix: &[u8; 16]) {
        let (line, bits) = self.bits(prefix);
        for bit in bits {
            self.0[line + usize::from(bit / 8)] |= 1 << (bit % 8);
        }
    }

    fn may_contain(&self, prefix: &[u8; 16]) -> bool {
        let (line, bits) = self.bits(prefix);
        bits.iter().all(|bit| self.0[line + usize::from(bit / 8)] & 1 << (bit % 8) != 0)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// What the beginnings of pages are compared by. Ids are evenly spread, so four bytes tell pages apart.
fn fence(prefix: &[u8; 16]) -> u32 {
    u32::from_be_bytes(*prefix.first_chunk().expect("a prefix has 16 bytes"))
}

/// The first 16 bytes of an id, which is what tables hold.
pub fn prefix(id: &ChunkId) -> [u8; 16] {
    *id.0.first_chunk().expect("an id has 32 bytes")
}

/// Writes a table: rows in ascending order, then packs, then `finish`.
pub struct TableWriter {
    out: BufWriter<File>,
    page: Vec<u8>,
    rows: u64,
    last: Option<Row>,
    filter: Filter,
    fences: Vec<u32>,
    written: u64,
}

impl TableWriter {
    /// Starts a table of at most `rows` rows in `file`, which must be empty.
    pub fn new(file: File, rows: u64) -> Self {
        TableWriter {
            out: BufWriter::with_capacity(1 << 16, file),
            page: Vec::with_capacity(PAGE),
            rows: 0,
            last: None,
            filter: Filter::for_rows(rows),
            fences: Vec::new(),
            written: 0,
        }
    }

    /// Appends a row; an equal one is dropped, a smaller one is an error of the caller.
    pub fn push(&mut self, row: Row) -> Result<()> {
        if let Some(last) = &self.last {
            if *last == row {
                return Ok(());
            }
            assert!(*last < row, "rows are pushed in order");
        }
        self.last = Some(row);
        self.filter.insert(&row.prefix);
        if self.page.is_empty() {
            self.fences.push(fence(&row.prefix));
        }
        self.page.extend_from_slice(&row.prefix);
        self.page.extend_from_slice(&row.pack.to_le_bytes());
        self.page.extend_from_slice(&row.block.to_le_bytes());
        self.rows += 1;
        if self.page.len() == PER_PAGE * ENTRY { self.flush_page() } else { Ok(()) }
    }

    fn flush_page(&mut self) -> Result<()> {
        self.page.resize(PAGE - CHECKSUM, 0);
        let sum = checksum(&self.page);
        let page = std::mem::take(&mut self.page);
        self.write(&page)?;
        self.write(&sum)?;
        self.page = page;
        self.page.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| Error::io("The local index could not be written", error))
    }

    /// Appends packs (numbered in the order in which they come), filter and footer, and makes the file durable.
    pub fn finish(
        mut self,
        repository: &RepositoryId,
        packs: &mut dyn Iterator<Item = Result<Arc<PackInfo>>>,
        origins: &[Origin],
    ) -> Result<()> {
        if !self.page.is_empty() {
            self.flush_page()?;
        }
        let mut offsets = Vec::new();
        for pack in packs {
            offsets.push(self.written);
            let record = encode_pack(&*pack?);
            let sum = checksum(&record);
            self.write(&record)?;
            self.write(&sum)?;
        }
        offsets.push(self.written);
        let filter = std::mem::replace(&mut self.filter, Filter(Vec::new()));
        self.write(&filter.0)?;
        let mut footer = Vec::new();
        footer.extend_from_slice(MAGIC);
        footer.extend_from_slice(&repository.0);
        footer.put_u64(self.rows);
        footer.put_u64(filter.0.len() as u64);
        footer.extend_from_slice(&checksum(&filter.0));
        for fence in &self.fences {
            footer.put_u32(*fence);
        }
        footer.put_u32(offsets.len() as u32 - 1);
        for offset in &offsets {
            footer.put_u64(*offset);
        }
        footer.put_u32(origins.len() as u32);
        for origin in origins {
            footer.extend_from_slice(&origin.segment.0);
            footer.put_u32(origin.replaces.len() as u32);
            for name in &origin.replaces {
                footer.extend_from_slice(&name.0);
            }
        }
        self.write(&footer)?;
        self.write(&checksum(&footer))?;
        self.write(&(footer.len() as u64).to_le_bytes())?;
        let failed = |error| Error::io("The local index could not be written", error);
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)
    }
}

fn encode_pack(pack: &PackInfo) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&pack.name.0);
    out.put_u8(u8::from(pack.is_tree));
    out.put_u16(pack.epoch);
    out.put_u64(pack.size);
    for frame in &pack.frames {
        out.put_u32(*frame);
    }
    out
}

fn decode_pack(record: &[u8]) -> Result<PackInfo> {
    let mut input = Reader::new("pack record", record);
    let name = ObjectName(input.array()?);
    let is_tree = input.u8()? == 1;
    let epoch = input.u16()?;
    let size = input.u64()?;
    let mut frames = Vec::with_capacity(input.remaining() / 4);
    while input.remaining() > 0 {
        frames.push(input.u32()?);
    }
    Ok(PackInfo { name, is_tree, epoch, size, frames })
}

impl Table {
    /// Opens a table if it is whole and belongs to `repository`; any doubt is an error, and the caller rebuilds.
    pub fn open(path: &Path, repository: &RepositoryId) -> Result<Table> {
        let stale = |what: &str| Error::damaged(format!("The local index \"{}\" {what}", path.display()));
        let failed = |error| Error::io(format!("The local index \"{}\" cannot be read", path.display()), error);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut tail = [0; CHECKSUM + 8];
        let tail_at = size.checked_sub(tail.len() as u64).ok_or_else(|| stale("is cut short"))?;
        file.read_exact_at(&mut tail, tail_at).map_err(failed)?;
        let length = u64::from_le_bytes(*tail.last_chunk().expect("the tail is longer than eight bytes"));
        if length > MAX_FOOTER.min(tail_at) {
            return Err(stale("has no footer"));
        }
        let mut footer = vec![0; length as usize];
        file.read_exact_at(&mut footer, tail_at - length).map_err(failed)?;
        if checksum(&footer) != tail[..CHECKSUM] {
            return Err(stale("has a damaged footer"));
        }
        let mut input = Reader::new("local index footer", &footer);
        if input.array::<8>()? != *MAGIC || input.array::<32>()? != repository.0 {
            return Err(stale("belongs to another repository or another version"));
        }
        let rows = input.u64()?;
        let filter_len = input.u64()?;
        let filter_sum: [u8; CHECKSUM] = input.array()?;
        let pages = rows.div_ceil(PER_PAGE as u64);
        let mut fences = Vec::with_capacity((pages as usize).min(input.remaining() / 4));
        for _ in 0..pages {
            fences.push(input.u32()?);
        }
        let count = input.u32()? as usize;
        let mut packs = Vec::with_capacity(count.min(input.remaining() / 8) + 1);
        for _ in 0..=count {
            packs.push(input.u64()?);
        }
        let origins = decode_origins(&mut input)?;
        let filter_at = *packs.last().expect("there is one offset more than packs");
        // Checked: the numbers are only as good as whoever wrote the file.
        let adds_up = filter_at.checked_add(filter_len) == Some(tail_at - length)
            && pages.checked_mul(PAGE as u64) == Some(packs[0])
            && packs.is_sorted()
            && fences.is_sorted();
        if !adds_up {
            return Err(stale("does not add up"));
        }
        let mut filter = vec![0; filter_len as usize];
        file.read_exact_at(&mut filter, filter_at).map_err(failed)?;
        if checksum(&filter) != filter_sum || filter.len() < 64 || !filter.len().is_multiple_of(64) {
            return Err(stale("has a damaged filter"));
        }
        let pages = (0..CACHED_PAGES.min(pages as usize)).map(|_| Mutex::new(None)).collect();
        Ok(Table { path: path.to_path_buf(), file, rows, packs, origins, filter: Filter(filter), fences, pages })
    }

    /// Reads everything once. `open` leaves rows and packs to those who need them.
    pub fn verify(&self) -> Result<()> {
        (0..self.pack_count()).try_for_each(|number| self.pack(number).map(drop))?;
        self.scan().try_for_each(|row| row.map(drop))
    }

    /// The error of a part that is not what was written. It is no damage of the repository, so its kind is another; the file
    /// is removed, so that the next run builds it again.
    #[cold]
    fn damaged(&self) -> Error {
        drop(std::fs::remove_file(&self.path));
        Error::new(
            ErrorKind::Failed,
            format!("The local index \"{}\" was damaged and has been removed", self.path.display()),
        )
        .with_hint("Run the command again: the index is built from the repository again. The disk may be failing.")
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Number of packs.
    pub fn pack_count(&self) -> u32 {
        self.packs.len() as u32 - 1
    }

    /// The segments that this table was made from.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// What is known about pack `number`.
    pub fn pack(&self, number: u32) -> Result<PackInfo> {
        let (from, to) = (self.packs[number as usize], self.packs[number as usize + 1]);
        let mut record = vec![0; (to - from) as usize];
        self.file.read_exact_at(&mut record, from).map_err(|e| Error::io("The local index cannot be read", e))?;
        let body = record.len().checked_sub(CHECKSUM).ok_or_else(|| self.damaged())?;
        if checksum(&record[..body]) != record[body..] {
            return Err(self.damaged());
        }
        decode_pack(&record[..body])
    }

    /// All rows whose prefix is that of `id`, in order: number of the row, pack, block.
    pub fn find(&self, id: &ChunkId, each: &mut dyn FnMut(u64, u32, u32) -> bool) -> Result<()> {
        let wanted = prefix(id);
        if self.rows == 0 || !self.filter.may_contain(&wanted) {
            return Ok(());
        }
        let mut page = self.seek(&wanted)?;
        let pages = self.rows.div_ceil(PER_PAGE as u64);
        while page < pages {
            let more = self.with_page(page, |rows| {
                let at = partition(rows, &wanted);
                for (number, row) in rows[at * ENTRY..].chunks_exact(ENTRY).enumerate() {
                    let row = decode_row(row);
                    let number = page * PER_PAGE as u64 + (at + number) as u64;
                    if row.prefix != wanted || !each(number, row.pack, row.block) {
                        return false;
                    }
                }
                true
            })?;
            if !more {
                break;
            }
            page += 1;
        }
        Ok(())
    }

    /// The page on which the first row not below `wanted` lies, or the one before. Nothing is read unless several pages begin alike.
    fn seek(&self, wanted: &[u8; 16]) -> Result<u64> {
        let begins = fence(wanted);
        // Invariant: the answer is in low..high, where page `low` begins below `wanted` (or is 0).
        let mut low = self.fences.partition_point(|fence| *fence < begins).saturating_sub(1);
        let mut high = self.fences.partition_point(|fence| *fence <= begins);
        while high > low + 1 {
            let middle = low + (high - low) / 2;
            if self.with_page(middle as u64, |rows| rows[..16] < wanted[..])? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low as u64)
    }

    fn with_page<T>(&self, number: u64, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let first = number * PER_PAGE as u64;
        let rows = (self.rows - first).min(PER_PAGE as u64) as usize;
        let slot = &self.pages[number as usize % self.pages.len()];
        let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if slot.as_ref().is_none_or(|(cached, _)| *cached != number) {
            let mut page = Box::new([0; PAGE]);
            let read = self.file.read_exact_at(&mut page[..], number * PAGE as u64);
            read.map_err(|error| Error::io("The local index cannot be read", error))?;
            if checksum(&page[..PAGE - CHECKSUM]) != page[PAGE - CHECKSUM..] {
                return Err(self.damaged());
            }
            *slot = Some((number, page));
        }
        let (_, page) = slot.as_ref().expect("the page was just put there");
        Ok(read(&page[..rows * ENTRY]))
    }

    /// All rows in order, read sequentially.
    pub fn scan(&self) -> impl Iterator<Item = Result<Row>> + '_ {
        let pages = self.rows.div_ceil(PER_PAGE as u64);
        (0..pages).flat_map(move |page| {
            match self.with_page(page, |rows| rows.chunks_exact(ENTRY).map(decode_row).collect::<Vec<_>>()) {
                Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            }
        })
    }
}

fn decode_origins(input: &mut Reader<'_>) -> Result<Vec<Origin>> {
    let mut origins = Vec::new();
    for _ in 0..input.u32()? {
        let segment = ObjectName(input.array()?);
        let mut replaces = Vec::new();
        for _ in 0..input.u32()? {
            replaces.push(ObjectName(input.array()?));
        }
        origins.push(Origin { segment, replaces });
    }
    Ok(origins)
}

fn decode_row(row: &[u8]) -> Row {
    let number = |at: usize| u32::from_le_bytes(*row[at..].first_chunk().expect("a row has 24 bytes"));
    Row { prefix: *row.first_chunk().expect("a row has 24 bytes"), pack: number(16), block: number(20) }
}

/// The number of rows in a page below `wanted`.
fn partition(rows: &[u8], wanted: &[u8; 16]) -> usize {
    let (mut low, mut high) = (0, rows.len() / ENTRY);
    while low < high {
        let middle = (low + high) / 2;
        if rows[middle * ENTRY..middle * ENTRY + 16] < wanted[..] {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u64) -> ChunkId {
        ChunkId(*blake3::hash(&seed.to_le_bytes()).as_bytes())
    }

    fn build(path: &Path, count: u64) -> RepositoryId {
        let repository = RepositoryId([7; 32]);
        let mut rows: Vec<Row> =
            (0..count).map(|n| Row { prefix: prefix(&id(n)), pack: (n % 3) as u32, block: n as u32 }).collect();
        // The same chunk in many packs, so that its rows span pages.
        rows.extend((0..400).map(|block| Row { prefix: prefix(&id(5)), pack: 2, block: 1_000_000 + block }));
        rows.sort();
        let mut writer = TableWriter::new(File::create(path).unwrap(), rows.len() as u64);
        for row in rows {
            writer.push(row).unwrap();
        }
        let pack = |n: u8| {
            Ok(Arc::new(PackInfo {
                name: ObjectName([n; 32]),
                is_tree: n == 1,
                epoch: 4,
                size: 99,
                frames: vec![60, 70],
            }))
        };
        let origin = Origin { segment: ObjectName([9; 32]), replaces: vec![ObjectName([8; 32])] };
        writer.finish(&repository, &mut (0..3).map(pack), &[origin]).unwrap();
        repository
    }

    #[test]
    fn finds_every_row_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for count in [1, 169, 170, 171, 20_000] {
            let path = folder.path().join(count.to_string());
            let repository = build(&path, count.max(6));
            let table = Table::open(&path, &repository).unwrap();
            for n in 0..count.max(6) {
                let mut found = Vec::new();
                table
                    .find(&id(n), &mut |_, pack, block| {
                        found.push((pack, block));
                        true
                    })
                    .unwrap();
                assert!(found.contains(&((n % 3) as u32, n as u32)), "{n} of {count}");
                assert_eq!(found.len(), if n == 5 { 401 } else { 1 });
            }
            for n in 1_000_000..1_001_000 {
                table.find(&id(n), &mut |_, _, _| panic!("{n} was never put in")).unwrap();
            }
            let rows: Vec<Row> = table.scan().map(Result::unwrap).collect();
            assert_eq!(rows.len() as u64, table.rows());
            let mut numbers = Vec::new();
            table
                .find(&id(5), &mut |number, pack, block| {
                    let row = rows[number as usize];
                    assert_eq!((row.prefix, row.pack, row.block), (prefix(&id(5)), pack, block));
                    numbers.push(number);
                    true
                })
                .unwrap();
            assert!(numbers.len() == 401 && numbers.is_sorted());
            assert_eq!(table.pack(1).unwrap().frame(1), Some((96 + 60, 70)));
        }
    }

    #[test]
    fn a_page_is_found_without_reading_any() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let repository = build(&path, 50_000);
        let table = Table::open(&path, &repository).unwrap();
        let rows: Vec<Row> = Table::open(&path, &repository).unwrap().scan().map(Result::unwrap).collect();
        // Where pages begin alike, and at the beginning of one, there is a look.
        let is_within = |(number, row): &(usize, &Row)| number % PER_PAGE != 0 && row.prefix != prefix(&id(5));
        for (number, row) in rows.iter().enumerate().filter(is_within) {
            assert_eq!(table.seek(&row.prefix).unwrap() as usize, number / PER_PAGE);
        }
        assert!(table.pages.iter().all(|page| page.lock().unwrap().is_none()));
    }

    #[test]
    fn a_table_with_any_byte_changed_is_refused_or_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let repository = build(&path, 300);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let Ok(table) = Table::open(&path, &repository) else { continue };
            let scan = table.scan().find_map(std::result::Result::err);
            let packs = (0..table.pack_count()).find_map(|n| table.pack(n).err());
            assert!(scan.is_some() || packs.is_some(), "byte {at} changed unnoticed");
        }
        for len in 0..whole.len().min(400) {
            std::fs::write(&path, &whole[..whole.len() - 1 - len]).unwrap();
            assert!(Table::open(&path, &repository).is_err());
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(Table::open(&path, &RepositoryId([1; 32])).is_err());
    }
}
