//! What the records say about the snapshots that are there: versions of a path, names in a folder. Not for: bringing the records up
//! to date (see `history`), or contents, which are read from the snapshot that a version names.

use super::lines::Line;
use super::record::{Kind, STILL, State, Version};
use super::shelf::{Listing, Lost, Shelf};
use super::step::ABOVE;
use crate::error::{Error, Result};
use crate::repository::snapshots::Named;
use crate::view::path::ROOT_NAME;
use std::sync::Arc;

const NONE: u32 = u32::MAX;

/// A run of snapshots that are there, in which an entry stayed the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The number of the first of them in their line.
    pub first: u32,
    /// The number of the last.
    pub last: u32,
    /// What it was.
    pub state: State,
}

/// A line, or some snapshots of it: all that is asked for counts as if there were no others.
#[derive(Debug)]
pub struct Scope<'c> {
    line: &'c Line,
    shelf: Shelf<'c>,
    /// The next snapshot that counts, from each number on; the last one, up to it.
    next: Vec<u32>,
    previous: Vec<u32>,
}

/// A name in a folder and its versions, the oldest first; never none.
pub type NameSeen = (Vec<u8>, Vec<Seen>);

/// How far somebody has come in the names of a folder. Memory: one part of a record.
#[derive(Debug)]
pub struct Children(Option<Listing>);

/// Why a question has no answer.
#[derive(Debug)]
pub enum Broken {
    /// The records of this line are not what they should be.
    Lost(super::lines::LineId),
    /// Whoever takes the answers does not go on.
    Failed(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        Broken::Failed(error)
    }
}

impl<'c> Scope<'c> {
    /// Those snapshots of a line that are `wanted`.
    pub(super) fn new(line: &'c Line, shelf: Shelf<'c>, wanted: &dyn Fn(&Named) -> bool) -> Scope<'c> {
        let counts = |at: &usize| line.snapshots[*at].as_ref().is_some_and(|named| wanted(named));
        let length = line.snapshots.len();
        let (mut next, mut previous) = (vec![NONE; length + 1], vec![NONE; length]);
        let mut last = NONE;
        let counting: Vec<bool> = (0..length).map(|at| counts(&at)).collect();
        for at in 0..length {
            last = if counting[at] { at as u32 } else { last };
            previous[at] = last;
        }
        for at in (0..length).rev() {
            next[at] = if counting[at] { at as u32 } else { next[at + 1] };
        }
        Scope { line, shelf, next, previous }
    }

    /// The line.
    pub fn line(&self) -> &'c Line {
        self.line
    }

    fn lost(&self) -> Broken {
        Broken::Lost(self.line.id)
    }

    /// The newest snapshot that counts.
    pub fn newest(&self) -> Option<u32> {
        self.previous.last().copied().filter(|number| *number != NONE)
    }

    /// The oldest snapshot that counts.
    pub fn first(&self) -> Option<u32> {
        self.next.first().copied().filter(|number| *number != NONE)
    }

    /// The first snapshot that counts behind this one.
    pub fn after(&self, number: u32) -> Option<u32> {
        self.next.get(number as usize + 1).copied().filter(|number| *number != NONE)
    }

    /// The snapshot with this number, which a `Seen` has named.
    pub fn snapshot(&self, number: u32) -> Option<&'c Arc<Named>> {
        self.line.snapshots.get(number as usize)?.as_ref()
    }

    /// Those versions that are in snapshots that count. Equal ones with nothing between them are one.
    pub fn seen(&self, versions: &[Version]) -> Vec<Seen> {
        let mut seen: Vec<Seen> = Vec::with_capacity(versions.len());
        for version in versions {
            let end = (self.line.snapshots.len() as u32).saturating_sub(1);
            let last = if version.last == STILL { end } else { version.last.min(end) };
            let (Some(first), Some(last)) = (self.next.get(version.first as usize), self.previous.get(last as usize))
            else {
                continue;
            };
            if *first == NONE || *last == NONE || first > last {
                continue;
            }
            match seen.last_mut() {
                Some(before) if before.state == version.state && self.after(before.last) == Some(*first) => {
                    before.last = *last;
                }
                _ => seen.push(Seen { first: *first, last: *last, state: version.state }),
            }
        }
        seen
    }

    /// The versions of a path (empty: "/"), the oldest first; none if it never was.
    pub fn versions(&self, path: &[u8]) -> Result<Vec<Seen>, Broken> {
        Ok(self.seen(&self.recorded(path)?))
    }

    fn recorded(&self, path: &[u8]) -> Result<Vec<Version>, Broken> {
        if self.line.snapshots.is_empty() {
            return Ok(Vec::new());
        }
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (ABOVE, ROOT_NAME),
        };
        if let Some(versions) = self.shelf.find(folder, name).map_err(|Lost| self.lost())? {
            return Ok(versions);
        }
        // No record of the folder: either it never was one, or the record is lost.
        let was_folder = folder == ABOVE || self.recorded(folder)?.iter().any(|v| v.state.kind == Kind::Directory);
        if was_folder { Err(self.lost()) } else { Ok(Vec::new()) }
    }

    /// The names that ever were in a folder (empty: "/"), for `next_child`; none of what never was a folder.
    pub fn children(&self, path: &[u8]) -> Result<Children, Broken> {
        let was_folder = |versions: &[Version]| versions.iter().any(|version| version.state.kind == Kind::Directory);
        if was_folder(&self.recorded(path)?) { self.listing(path) } else { Ok(Children(None)) }
    }

    /// The next of the names in order, with its versions. `path` is the folder's. Only as long as the catalog is not updated.
    pub fn next_child(&self, children: &mut Children, path: &[u8]) -> Result<Option<NameSeen>, Broken> {
        let Some(listing) = &mut children.0 else { return Ok(None) };
        while let Some((name, versions)) = listing.next(&self.shelf, path).map_err(|Lost| self.lost())? {
            let seen = self.seen(&versions);
            if !seen.is_empty() {
                return Ok(Some((name, seen)));
            }
        }
        Ok(None)
    }

    fn listing(&self, path: &[u8]) -> Result<Children, Broken> {
        self.shelf.listing(path).map(|listing| Children(Some(listing))).map_err(|Lost| self.lost())
    }
}
