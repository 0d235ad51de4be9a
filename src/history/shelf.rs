//! The records of one line in the database: one for each directory, several for a huge one. Not for: what the versions mean.
//!
//! A directory's record is found by its path. One that would be longer than `PART` bytes is cut by ranges of names: the record
//! then lists the parts (some 30 bytes each, so 1 MiB for a hundred million names), which have numbers of their own.
//!
//! Memory: one part at a time while changing, `PART` bytes or one name with all its versions; decoded it is three times as much.

use super::record::{Names, Version, decode_names, encode_name};
use crate::chunk::Secret;
use crate::format::bytes::{Put, Reader};
use crate::repository::database::Database;

/// Longest record that holds more than one name.
const PART: usize = 128 << 10;
/// How long the pieces are when it is cut, so that there is room in them.
const PIECE: usize = PART / 4 * 3;
/// The number of a directory's own record.
const OWN: u32 = 0;

/// What the catalog should have and does not: it is rebuilt. Never damage of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// Stands before the keys of all records of a line; another one for each time that it is built.
pub type Generation = [u8; 8];

/// The records of a line.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// Where they are.
    pub database: &'a Database,
    /// Makes keys of paths.
    pub secret: &'a Secret,
    /// Which records are the line's.
    pub generation: Generation,
}

/// A name and its versions.
pub type NameVersions = (Vec<u8>, Vec<Version>);

/// A directory's own record.
enum Own {
    Whole(Names),
    Parts(Parts),
}

/// The parts of a huge directory: first name (that of the first part does not count) and number, in order.
#[derive(Debug, Default)]
struct Parts {
    next: u32,
    list: Vec<(Vec<u8>, u32)>,
}

impl Parts {
    /// The part that a name belongs to.
    fn of(&self, name: &[u8]) -> usize {
        self.list.partition_point(|(first, _)| first.as_slice() <= name).saturating_sub(1)
    }
}

impl Shelf<'_> {
    /// The key of part `number` of a directory.
    pub fn key(&self, path: &[u8], number: u32) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(self.secret.bytes());
        hasher.update(&self.generation).update(&number.to_le_bytes()).update(path);
        let mut key = *hasher.finalize().as_bytes();
        key[..8].copy_from_slice(&self.generation);
        key
    }

    fn own(&self, path: &[u8]) -> Option<Own> {
        let value = self.database.get(&self.key(path, OWN))?;
        let mut reader = Reader::new("history record", &value);
        match reader.u8().ok()? {
            0 => Some(Own::Whole(decode_names(&mut reader).ok()?)),
            1 => {
                let next = reader.varint_u32().ok()?;
                let mut list = Vec::new();
                while reader.remaining() > 0 {
                    list.push((reader.short().ok()?.to_vec(), reader.varint_u32().ok()?));
                }
                (!list.is_empty()).then_some(Own::Parts(Parts { next, list }))
            }
            _ => None,
        }
    }

    fn part(&self, path: &[u8], number: u32) -> Result<Names, Lost> {
        let value = self.database.get(&self.key(path, number)).ok_or(Lost)?;
        decode_names(&mut Reader::new("history record", &value)).map_err(|_| Lost)
    }

    /// The versions of a name in a directory. `None`: there is no record of the directory.
    pub fn find(&self, path: &[u8], name: &[u8]) -> Result<Option<Vec<Version>>, Lost> {
        let mut names = match self.own(path) {
            None => return Ok(None),
            Some(Own::Whole(names)) => names,
            Some(Own::Parts(parts)) => self.part(path, parts.list[parts.of(name)].1)?,
        };
        Ok(Some(names.remove(name).unwrap_or_default()))
    }

    /// All names of a directory, part by part.
    pub fn listing(&self, path: &[u8]) -> Result<Listing, Lost> {
        Ok(match self.own(path).ok_or(Lost)? {
            Own::Whole(names) => Listing { names: names.into_iter(), parts: Vec::new().into_iter() },
            Own::Parts(parts) => {
                let numbers: Vec<u32> = parts.list.into_iter().map(|(_, number)| number).collect();
                Listing { names: Names::new().into_iter(), parts: numbers.into_iter() }
            }
        })
    }

    /// Begins to change a directory.
    pub fn edit<'s>(&'s self, path: &'s [u8]) -> Editor<'s> {
        let (parts, names, is_new) = match self.own(path) {
            None => (None, Names::new(), true),
            Some(Own::Whole(names)) => (None, names, false),
            Some(Own::Parts(parts)) => (Some(parts), Names::new(), false),
        };
        Editor { shelf: self, path, parts, at: None, names, is_new, changed: false }
    }
}

/// Goes through the names of a directory. Memory: one part.
#[derive(Debug)]
pub struct Listing {
    names: std::collections::btree_map::IntoIter<Vec<u8>, Vec<Version>>,
    parts: std::vec::IntoIter<u32>,
}

impl Listing {
    /// The next name. `path` is the directory's.
    pub fn next(&mut self, shelf: &Shelf<'_>, path: &[u8]) -> Result<Option<NameVersions>, Lost> {
        loop {
            if let Some(next) = self.names.next() {
                return Ok(Some(next));
            }
            match self.parts.next() {
                None => return Ok(None),
                Some(number) => self.names = shelf.part(path, number)?.into_iter(),
            }
        }
    }
}

/// Changes the names of a directory. What comes in order of names reads and writes each part once.
pub struct Editor<'s> {
    shelf: &'s Shelf<'s>,
    path: &'s [u8],
    /// `None`: there is only the own record.
    parts: Option<Parts>,
    /// The part at hand.
    at: Option<usize>,
    names: Names,
    is_new: bool,
    changed: bool,
}

impl Editor<'_> {
    /// Whether there was no record, or none that can be trusted.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The versions of a name, to be changed.
    pub fn versions(&mut self, name: &[u8]) -> Result<&mut Vec<Version>, Lost> {
        if let Some(at) = self.parts.as_ref().map(|parts| parts.of(name))
            && self.at != Some(at)
        {
            self.write();
            // Writing may have cut the part before.
            let parts = self.parts.as_ref().ok_or(Lost)?;
            let at = parts.of(name);
            self.names = self.shelf.part(self.path, parts.list[at].1)?;
            self.at = Some(at);
        }
        self.changed = true;
        Ok(self.names.entry(name.to_vec()).or_default())
    }

    /// Writes what is changed.
    pub fn close(mut self) {
        if self.is_new {
            self.changed = true;
        }
        self.write();
    }

    fn write(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut pieces = self.pieces();
        let (database, path) = (self.shelf.database, self.path);
        match (&mut self.parts, self.at) {
            (Some(parts), Some(at)) if pieces.len() == 1 => {
                database.put(&self.shelf.key(path, parts.list[at].1), pieces.remove(0).1);
            }
            (None, _) if pieces.len() <= 1 => {
                let mut value = vec![0];
                value.extend(pieces.pop().map(|(_, bytes)| bytes).unwrap_or_default());
                database.put(&self.shelf.key(path, OWN), value);
            }
            (parts, at) => {
                // The pieces have new numbers, and the old part goes last: whatever of this a crash undoes, no name is lost.
                let parts = parts.get_or_insert_with(|| Parts { next: OWN + 1, list: Vec::new() });
                let mut new = Vec::with_capacity(pieces.len());
                for (first, bytes) in pieces {
                    database.put(&self.shelf.key(path, parts.next), bytes);
                    new.push((first, parts.next));
                    parts.next += 1;
                }
                let range = at.map_or(0..0, |at| at..at + 1);
                let old: Vec<_> = parts.list.splice(range, new).collect();
                let mut value = vec![1];
                value.put_varint(u64::from(parts.next));
                for (first, number) in &parts.list {
                    value.put_short(first);
                    value.put_varint(u64::from(*number));
                }
                database.put(&self.shelf.key(path, OWN), value);
                for (_, number) in old {
                    database.remove(&self.shelf.key(path, number));
                }
                self.at = None;
                self.names.clear();
            }
        }
    }

    /// The names at hand, encoded: one piece, or several with their first names.
    fn pieces(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pieces: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut lengths = Vec::new();
        let mut all = Vec::new();
        for (name, versions) in self.names.iter().filter(|(_, versions)| !versions.is_empty()) {
            let start = all.len();
            encode_name(&mut all, name, versions);
            lengths.push((name, start));
        }
        let bound = if all.len() <= PART { usize::MAX } else { PIECE };
        for (at, (name, start)) in lengths.iter().enumerate() {
            let end = lengths.get(at + 1).map_or(all.len(), |(_, next)| *next);
            match pieces.last_mut() {
                Some((_, piece)) if piece.len() + (end - start) <= bound => piece.extend_from_slice(&all[*start..end]),
                _ => pieces.push((name.to_vec(), all[*start..end].to_vec())),
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::Timestamp;
    use crate::history::record::{Kind, STILL, State};

    fn version(first: u32) -> Version {
        let state = State { kind: Kind::File, size: 5, mtime: Timestamp::default(), body: [1; 8], meta: [2; 8] };
        Version { first, last: STILL, state }
    }

    #[test]
    fn a_huge_directory_is_cut_and_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        let secret = Secret::from_bytes(&[1; 32]);
        let shelf = Shelf { database: &database, secret: &secret, generation: [7; 8] };
        let name = |n: u32| format!("{:08}", n.wrapping_mul(2_654_435_761) % 100_000_000).into_bytes();
        let mut expected: Vec<Vec<u8>> = (0..20_000).map(name).collect();
        expected.sort();
        // In order, as a new directory comes, in batches; then in no order.
        for batch in expected.chunks(1000) {
            let mut editor = shelf.edit(b"/d");
            for name in batch.iter().step_by(2) {
                editor.versions(name).unwrap().push(version(1));
            }
            editor.close();
        }
        let mut rest: Vec<_> = expected.chunks(2).map(|pair| pair[1].clone()).collect();
        rest.sort_by_key(|name| blake3::hash(name).as_bytes()[0]);
        let mut editor = shelf.edit(b"/d");
        for name in rest.iter().take(300) {
            editor.versions(name).unwrap().push(version(2));
        }
        editor.close();
        for batch in rest[300..].chunks(999) {
            let mut batch = batch.to_vec();
            batch.sort();
            let mut editor = shelf.edit(b"/d");
            for name in &batch {
                editor.versions(name).unwrap().push(version(2));
            }
            editor.close();
        }
        let mut listing = shelf.listing(b"/d").unwrap();
        let mut found = Vec::new();
        while let Some((name, versions)) = listing.next(&shelf, b"/d").unwrap() {
            assert_eq!(versions.len(), 1);
            found.push(name);
        }
        assert_eq!(found, expected);
        let Some(Own::Parts(parts)) = shelf.own(b"/d") else { panic!("it is too long for one record") };
        assert!(parts.list.len() >= 6, "{}", parts.list.len());
        for (_, number) in &parts.list {
            assert!(database.get(&shelf.key(b"/d", *number)).unwrap().len() <= PART);
        }
        assert_eq!(shelf.find(b"/d", &expected[77]).unwrap().unwrap().len(), 1);
        assert_eq!(shelf.find(b"/d", b"x").unwrap(), Some(Vec::new()));
        assert_eq!(shelf.find(b"/other", b"x").unwrap(), None);
        database.remove(&shelf.key(b"/d", parts.list[0].1));
        assert_eq!(shelf.find(b"/d", &expected[0]), Err(Lost));
    }
}
