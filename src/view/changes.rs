//! What differs between two directories, without reading the pages that both have. Not for: what is below their directories.
//!
//! Memory: a page a level for each of the two.

use super::pages::Directory;
use crate::error::{Error, Result};
use crate::format::page::{Child, Page};
use crate::format::tree::{Entry, Totals};
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::tree::check_child;
use std::cmp::Ordering;

/// An entry that came, went, or is not the same in both.
#[derive(Debug)]
pub struct Change {
    /// As it was.
    pub old: Option<Entry>,
    /// As it is.
    pub new: Option<Entry>,
}

/// What could not be read.
#[derive(Debug)]
pub enum Failed {
    /// The directory as it was.
    Old(Error),
    /// The directory as it is.
    New(Error),
}

/// Goes through two directories at once, in order of names.
pub struct Changes<'a> {
    old: Cursor<'a>,
    new: Cursor<'a>,
}

impl<'a> Changes<'a> {
    /// Between two directories, of which one may not be there.
    pub fn new(repository: &'a Repository, old: Option<Directory>, new: Option<Directory>) -> Changes<'a> {
        Changes { old: Cursor::new(repository, old), new: Cursor::new(repository, new) }
    }

    /// The next change.
    pub fn advance(&mut self) -> Result<Option<Change>, Failed> {
        loop {
            self.old.settle();
            self.new.settle();
            match (self.old.head(), self.new.head()) {
                (Head::End, Head::End) => return Ok(None),
                (Head::Page(_, a, _), Head::Page(_, b, _)) if a == b => {
                    // What hangs below a page is told by its id.
                    self.old.skip();
                    self.new.skip();
                }
                (Head::Page(level, _, first), Head::Page(other, _, other_first)) => {
                    // The one that is further up, else the one that begins first, so that the same pages meet.
                    match (level.cmp(&other), first.cmp(other_first)) {
                        (Ordering::Greater, _) | (Ordering::Equal, Ordering::Less | Ordering::Equal) => {
                            self.open_old()?
                        }
                        _ => self.open_new()?,
                    }
                }
                (Head::Page(_, _, first), Head::Entry(entry)) if entry.name.as_slice() >= first => self.open_old()?,
                (Head::Entry(entry), Head::Page(_, _, first)) if entry.name.as_slice() >= first => self.open_new()?,
                (Head::Page(..), Head::End) => self.open_old()?,
                (Head::End, Head::Page(..)) => self.open_new()?,
                (Head::Entry(a), Head::Entry(b)) => match a.name.cmp(&b.name) {
                    Ordering::Less => return Ok(Some(Change { old: self.old.take(), new: None })),
                    Ordering::Greater => return Ok(Some(Change { old: None, new: self.new.take() })),
                    Ordering::Equal => {
                        let (old, new) = (self.old.take(), self.new.take());
                        if old != new {
                            return Ok(Some(Change { old, new }));
                        }
                    }
                },
                (Head::Entry(_), _) => return Ok(Some(Change { old: self.old.take(), new: None })),
                (_, Head::Entry(_)) => return Ok(Some(Change { old: None, new: self.new.take() })),
            }
        }
    }

    fn open_old(&mut self) -> Result<(), Failed> {
        self.old.open().map_err(Failed::Old)
    }

    fn open_new(&mut self) -> Result<(), Failed> {
        self.new.open().map_err(Failed::New)
    }
}

struct Cursor<'a> {
    repository: &'a Repository,
    stack: Vec<Step>,
}

enum Step {
    Top(Directory),
    Leaf(std::vec::IntoIter<Entry>),
    /// Level of the page, what is left, and the name that comes behind all of it.
    Interior(u8, std::vec::IntoIter<Child>, Option<Vec<u8>>),
}

/// What comes next: a page that was not opened (its level, its id, its first name) or an entry.
enum Head<'h> {
    End,
    Page(u8, ChunkId, &'h [u8]),
    Entry(&'h Entry),
}

impl<'a> Cursor<'a> {
    fn new(repository: &'a Repository, directory: Option<Directory>) -> Cursor<'a> {
        Cursor { repository, stack: directory.map(Step::Top).into_iter().collect() }
    }

    /// Leaves behind what is used up.
    fn settle(&mut self) {
        while self.stack.last().is_some_and(|step| match step {
            Step::Top(_) => false,
            Step::Leaf(entries) => entries.as_slice().is_empty(),
            Step::Interior(_, children, _) => children.as_slice().is_empty(),
        }) {
            self.stack.pop();
        }
    }

    fn head(&self) -> Head<'_> {
        match self.stack.last() {
            None => Head::End,
            Some(Step::Top(directory)) => Head::Page(u8::MAX, directory.page, b""),
            Some(Step::Leaf(entries)) => entries.as_slice().first().map_or(Head::End, Head::Entry),
            Some(Step::Interior(level, children, _)) => {
                let child = children.as_slice().first();
                child.map_or(Head::End, |child| Head::Page(level - 1, child.page, &child.first_name))
            }
        }
    }

    fn skip(&mut self) {
        match self.stack.last_mut() {
            Some(Step::Interior(_, children, _)) => drop(children.next()),
            _ => drop(self.stack.pop()),
        }
    }

    fn take(&mut self) -> Option<Entry> {
        match self.stack.last_mut() {
            Some(Step::Leaf(entries)) => entries.next(),
            _ => None,
        }
    }

    /// Opens the page that comes next.
    fn open(&mut self) -> Result<()> {
        let (page, behind) = match self.stack.pop() {
            Some(Step::Top(Directory { page: id, totals })) => (self.top(&id, &totals)?, None),
            Some(Step::Interior(level, mut children, behind)) => {
                let Some(child) = children.next() else { return Ok(()) };
                let next = children.as_slice().first().map(|next| next.first_name.clone());
                let before = next.or_else(|| behind.clone());
                self.stack.push(Step::Interior(level, children, behind));
                let page = self.repository.page(&child.page)?;
                check_child(&page, (page.direct(), &page.totals()?), level - 1, &child, before.as_deref())?;
                (page, before)
            }
            Some(other) => {
                self.stack.push(other);
                return Ok(());
            }
            None => return Ok(()),
        };
        self.stack.push(match page {
            Page::Leaf(entries) => Step::Leaf(entries.into_iter()),
            Page::Interior { level, children } => Step::Interior(level, children.into_iter(), behind),
        });
        Ok(())
    }

    fn top(&self, id: &ChunkId, totals: &Totals) -> Result<Page> {
        let page = self.repository.page(id)?;
        match page.totals()? == *totals {
            true => Ok(page),
            false => Err(Error::damaged(format!("The tree page \"{id}\" is not what the entry above it says"))),
        }
    }
}
