//! One more snapshot into the records of its line: only what differs from the one before is read and written. Not for: which
//! snapshot comes next (see `lines`).
//!
//! Memory: one part of a record; for each directory on the way down two pages a level and at most `BATCH` names.

use super::record::{Kind, STILL, State, Version};
use super::shelf::{Lost, Shelf};
use crate::error::{Error, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::tree::{Entry, Totals};
use crate::id::ChunkId;
use crate::progress::Stop;
use crate::repository::Repository;
use crate::view::changes::{Change, Changes, Failed};
use crate::view::pages::Directory;
use crate::view::path::{ROOT_NAME, root_of};
use std::collections::VecDeque;

/// Where the versions of "/" itself are. No directory has this path.
pub const ABOVE: &[u8] = b"\0";
/// Changes written at once, before those below them are looked at.
const BATCH: usize = 1024;

/// Why a step was not made.
#[derive(Debug)]
pub enum Trouble {
    /// The snapshot before cannot be read (any more).
    Old(Error),
    /// The new snapshot cannot be read.
    New(Error),
    /// The records are not what they should be.
    Lost,
    /// Somebody asked to stop.
    Stopped(Error),
}

impl From<Lost> for Trouble {
    fn from(_: Lost) -> Trouble {
        Trouble::Lost
    }
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Trouble {
        match failed {
            Failed::Old(error) => Trouble::Old(error),
            Failed::New(error) => Trouble::New(error),
        }
    }
}

/// The tree of a snapshot: its page and what the snapshot says of it.
pub type Tree = (ChunkId, Totals);

/// What a step works with.
pub struct Step<'a> {
    /// Where the trees are.
    pub repository: &'a Repository,
    /// Where the records are.
    pub shelf: Shelf<'a>,
    /// The new snapshot's place in its line.
    pub ordinal: u32,
    /// Asked often.
    pub stop: &'a Stop,
    /// What was taken in of the new snapshot, up to where it cannot be read, is taken back.
    pub undo: bool,
}

/// A directory that came, went or changed.
struct Below {
    name: Vec<u8>,
    old: Option<Directory>,
    new: Option<Directory>,
    /// There was a directory before, in whatever snapshot, so there must be a record.
    known: bool,
}

struct Frame<'a> {
    changes: Changes<'a>,
    path: usize,
    /// There must be a record.
    known: bool,
    below: VecDeque<Below>,
    ended: bool,
}

impl Step<'_> {
    /// Takes in what differs between two trees of a line that follow each other. Done once more, it changes nothing: what an
    /// earlier attempt has left, as far as it came, is made right on the way.
    pub fn apply(&self, old: Option<&Tree>, new: &Tree) -> Result<(), Trouble> {
        let root = |(page, totals): &Tree| root_of(self.repository, *page, totals);
        let old = old.map(root).transpose().map_err(Trouble::Old)?;
        let new = Some(root(new).map_err(Trouble::New)?);
        let mut editor = self.shelf.edit(ABOVE);
        let top = self.note(&Change { old, new }, editor.versions(ROOT_NAME)?)?;
        editor.close();
        let Some(top) = top else { return Ok(()) };
        let mut path: Vec<u8> = Vec::new();
        let mut frames = vec![self.frame(0, &top)];
        while let Some(frame) = frames.last_mut() {
            self.stop.check().map_err(Trouble::Stopped)?;
            path.truncate(frame.path);
            if let Some(below) = frame.below.pop_front() {
                path.push(b'/');
                path.extend_from_slice(&below.name);
                let next = self.frame(path.len(), &below);
                if frames.len() > MAX_DEPTH {
                    let why = format!("folders are nested more than {MAX_DEPTH} deep");
                    return Err(Trouble::New(Error::damaged(why)));
                }
                frames.push(next);
            } else if frame.ended {
                frames.pop();
            } else {
                self.fill(frame, &path)?;
            }
        }
        Ok(())
    }

    fn frame(&self, path: usize, below: &Below) -> Frame<'_> {
        Frame {
            changes: Changes::new(self.repository, below.old, below.new),
            path,
            known: below.known,
            below: VecDeque::new(),
            ended: false,
        }
    }

    /// The next changes of a directory into its record.
    fn fill(&self, frame: &mut Frame<'_>, path: &[u8]) -> Result<(), Trouble> {
        let mut editor = self.shelf.edit(path);
        if editor.is_new() && frame.known && !self.undo {
            return Err(Trouble::Lost);
        }
        frame.known = true;
        for _ in 0..BATCH {
            let change = match frame.changes.advance() {
                Ok(Some(change)) => change,
                Ok(None) => {
                    frame.ended = true;
                    break;
                }
                Err(failed) => {
                    if self.undo {
                        editor.close();
                    }
                    return Err(failed.into());
                }
            };
            let Some(entry) = change.new.as_ref().or(change.old.as_ref()) else { continue };
            frame.below.extend(self.note(&change, editor.versions(&entry.name)?)?);
        }
        editor.close();
        Ok(())
    }

    /// A change into the versions of its name; the directory that it is about, if it is about one.
    fn note(&self, change: &Change, versions: &mut Vec<Version>) -> Result<Option<Below>, Trouble> {
        // Of an earlier attempt.
        versions.retain(|version| version.first < self.ordinal);
        let was_folder = versions.iter().any(|version| version.state.kind == Kind::Directory);
        let old = change.old.as_ref().map(State::of);
        let new = change.new.as_ref().map(State::of);
        if let Some(last) = versions.last_mut()
            && last.last != STILL
            && last.last + 1 >= self.ordinal
            && old.is_some()
        {
            last.last = STILL;
        }
        if self.undo {
            return Ok(below(change, was_folder));
        }
        let known = versions.last().filter(|version| version.last == STILL).map(|version| version.state);
        if known != old {
            return Err(Trouble::Lost);
        }
        if old != new {
            if let (Some(last), true) = (versions.last_mut(), old.is_some()) {
                last.last = self.ordinal.saturating_sub(1);
            }
            versions.extend(new.map(|state| Version { first: self.ordinal, last: STILL, state }));
        }
        Ok(below(change, was_folder))
    }
}

/// The directory that a change is about, if it is about one that holds something else now.
fn below(change: &Change, known: bool) -> Option<Below> {
    let directory = |entry: &Option<Entry>| entry.as_ref().and_then(Directory::of);
    let (old, new) = (directory(&change.old), directory(&change.new));
    if old.map(|old| old.page) == new.map(|new| new.page) {
        return None;
    }
    let name = change.new.as_ref().or(change.old.as_ref()).map(|entry| entry.name.clone()).unwrap_or_default();
    Some(Below { name, old, new, known })
}
