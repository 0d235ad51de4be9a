//! Which snapshots follow each other, and how far the records of each such line have come. Not for: what changed between two
//! snapshots (see `step`).
//!
//! A line has the snapshots of one host and one set of paths, in the order in which they are listed: as they were made.

use super::shelf::{Generation, Shelf};
use super::step::Tree;
use crate::error::Result;
use crate::format::bytes::{Put, Reader};
use crate::format::entry::{put_totals, read_totals};
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkId, ObjectName};
use crate::repository::snapshots::Named;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Stands for the host and the paths of a line.
pub type LineId = [u8; 32];

/// Where a line's header is. No directory has this path.
const HEADER: &[u8] = b"\0header";
/// So many snapshots that are gone, beside twice those that are there, are too many: the line is built anew.
const MOST_GONE: usize = 100;

/// That of the line that a snapshot belongs to.
pub fn line_of(snapshot: &Snapshot) -> LineId {
    let mut paths: Vec<&[u8]> = snapshot.paths.iter().map(|path| path.0.as_slice()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(snapshot.host.as_bytes()).chain(paths) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

/// How far the records of a line have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The snapshots that are in the records, the first one being number 0. Some may be forgotten by now.
    pub done: Vec<ObjectName>,
    /// Those that cannot be read.
    pub skipped: Vec<ObjectName>,
    /// Those that were about to be taken in; some may be already.
    pub plan: Vec<ObjectName>,
    /// The tree of the last one that is done.
    pub base: Option<Tree>,
}

impl Header {
    /// The header of the line whose records these are.
    pub fn read(shelf: &Shelf<'_>) -> Option<Header> {
        let value = shelf.database.get(&shelf.key(HEADER, 0))?;
        Header::decode(&mut Reader::new("history header", &value)).ok()
    }

    /// Replaces it.
    pub fn write(&self, shelf: &Shelf<'_>) {
        let mut value = Vec::new();
        for names in [&self.done, &self.skipped, &self.plan] {
            value.put_varint(names.len() as u64);
            names.iter().for_each(|name| value.extend_from_slice(&name.0));
        }
        if let Some((page, totals)) = &self.base {
            value.extend_from_slice(&page.0);
            put_totals(&mut value, totals);
        }
        shelf.database.put(&shelf.key(HEADER, 0), value);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Header> {
        let mut names = || -> Result<Vec<ObjectName>> {
            let count = reader.varint()?;
            let count = reader.count(count, 32)?;
            (0..count).map(|_| reader.array().map(ObjectName)).collect()
        };
        let (done, skipped, plan) = (names()?, names()?, names()?);
        let base = match reader.remaining() {
            0 => None,
            _ => {
                let page = ChunkId(reader.array()?);
                Some((page, read_totals(reader)?))
            }
        };
        Ok(Header { done, skipped, plan, base })
    }

    /// Which of the line's snapshots, the oldest first, have still to be taken in; `None` if the records are of no use: one of
    /// them stands before others that are in, those that are in stand in another order by now, or too many that are in are gone.
    pub fn missing<'n>(&self, live: &'n [Arc<Named>]) -> Option<&'n [Arc<Named>]> {
        let done: HashSet<&ObjectName> = self.done.iter().chain(&self.skipped).collect();
        let from = live.iter().rposition(|named| done.contains(&named.name)).map_or(0, |last| last + 1);
        let (before, missing) = live.split_at(from);
        let places: HashMap<&ObjectName, usize> = self.done.iter().zip(0..).collect();
        let in_order = before.iter().all(|named| done.contains(&named.name))
            && before.iter().filter_map(|named| places.get(&named.name)).is_sorted();
        let planned = self.plan.iter().eq(missing.iter().take(self.plan.len()).map(|named| &named.name));
        let gone = done.len().saturating_sub(before.len());
        (in_order && planned && gone <= MOST_GONE + 2 * live.len()).then_some(missing)
    }
}

/// Snapshots that follow each other, and their place in the records.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which line.
    pub id: LineId,
    /// Which records.
    pub generation: Generation,
    /// By number; `None` for one that is gone.
    pub snapshots: Vec<Option<Arc<Named>>>,
}

impl Line {
    /// Its newest snapshot.
    pub fn newest(&self) -> Option<&Arc<Named>> {
        self.snapshots.iter().rev().flatten().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Secret;
    use crate::repository::database::Database;
    use crate::view::sample::{Sample, dir};

    #[test]
    fn what_is_missing_and_when_all_is() {
        let sample = Sample::new();
        let snapshot = sample.snapshot("2026-01-01T00:00:00Z", "a", &[], &dir::<&str>([])).snapshot;
        let named = |n: u8| Arc::new(Named { name: ObjectName([n; 32]), snapshot: snapshot.clone() });
        let list = |numbers: &[u8]| numbers.iter().map(|n| named(*n)).collect::<Vec<_>>();
        let names = |numbers: &[u8]| numbers.iter().map(|n| ObjectName([*n; 32])).collect::<Vec<_>>();
        let header = Header { done: names(&[1, 2, 3]), ..Header::default() };
        let missing = |header: &Header, live: &[u8]| {
            header.missing(&list(live)).map(|list| list.iter().map(|named| named.name.0[0]).collect::<Vec<_>>())
        };
        assert_eq!(missing(&header, &[1, 2, 3]), Some(vec![]));
        assert_eq!(missing(&header, &[2, 4, 5]), Some(vec![4, 5]));
        assert_eq!(missing(&header, &[9]), Some(vec![9]));
        assert_eq!(missing(&header, &[1, 4, 3]), None);
        // A date was doubted, or is no more.
        assert_eq!((missing(&header, &[2, 1, 3]), missing(&header, &[3, 1, 4])), (None, None));
        let planned = Header { plan: names(&[4, 5]), skipped: names(&[7]), ..header.clone() };
        assert_eq!(missing(&planned, &[1, 4, 5, 6]), Some(vec![4, 5, 6]));
        assert_eq!(missing(&planned, &[1, 7, 4, 5]), Some(vec![4, 5]));
        assert_eq!(missing(&planned, &[1, 5, 6]), None);
        assert_eq!(missing(&planned, &[1]), None);
        let old = Header { done: names(&(0..150).collect::<Vec<_>>()), ..Header::default() };
        assert_eq!((missing(&old, &[149]), missing(&old, &(100..150).collect::<Vec<_>>())), (None, Some(vec![])));

        let folder = tempfile::tempdir().unwrap();
        let (database, secret) = (Database::open(folder.path()).unwrap(), Secret::from_bytes(&[1; 32]));
        let shelf = Shelf { database: &database, secret: &secret, generation: [7; 8] };
        assert_eq!(Header::read(&shelf), None);
        for header in [header, Header { base: Some((ChunkId([1; 32]), snapshot.totals)), ..planned }] {
            header.write(&shelf);
            assert_eq!(Header::read(&shelf), Some(header));
        }
    }
}
