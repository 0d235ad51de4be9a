//! Pages of directories ⇄ bytes. Not for: which entries share a page (see `page_builder` and the writer), storing pages.

use crate::error::Result;
use crate::format::bounds::{MAX_ATTRIBUTE_SET, MAX_INLINE_ATTRIBUTES, MAX_LEVEL, MAX_PAGE};
use crate::format::bytes::{Reader, unfit};
use crate::format::entry::{Check, ENTRY_LEAST, is_name, read_entry, read_totals};
use crate::format::page_builder::{InteriorBuilder, LeafBuilder};
use crate::format::tree::{AttributeSet, Attributes, Entry, Owner, Totals};
use crate::id::ChunkId;
use std::collections::HashSet;
use std::sync::Arc;

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// Entries, ascending by name. Only the page of an empty directory has none.
    Leaf(Vec<Entry>),
    /// Pages one level lower.
    Interior {
        /// 1 to 16.
        level: u8,
        /// At least one, ascending by first name.
        children: Vec<Child>,
    },
}

/// What an interior page says about a page one level lower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Name of the first entry below it.
    pub first_name: Vec<u8>,
    /// The page.
    pub page: ChunkId,
    /// Entries of this directory below it, at least 1.
    pub direct: u64,
    /// Sums over these entries and everything below them.
    pub totals: Totals,
}

impl Child {
    pub(crate) fn check(&self) -> Check {
        if !is_name(&self.first_name) {
            return Err("a name is not one");
        }
        if self.direct == 0 || self.direct > self.totals.entries {
            return Err("the number of entries in a page is wrong");
        }
        Ok(())
    }
}

/// The sums of `totals`, if they fit into 64 bits.
pub(crate) fn sum<'a>(totals: impl Iterator<Item = &'a Totals>) -> Option<Totals> {
    let mut sum = Totals::default();
    for totals in totals {
        sum = sum.checked_add(totals)?;
    }
    Some(sum)
}

impl Page {
    /// Its level: 0 for a leaf.
    pub fn level(&self) -> u8 {
        match self {
            Page::Leaf(_) => 0,
            Page::Interior { level, .. } => *level,
        }
    }

    /// Its first name and its last; of an interior page those of its children that it knows. `None` for an empty directory.
    pub fn ends(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Page::Leaf(entries) => Some((&entries.first()?.name, &entries.last()?.name)),
            Page::Interior { children, .. } => Some((&children.first()?.first_name, &children.last()?.first_name)),
        }
    }

    /// Entries of this directory in and below the page.
    pub fn direct(&self) -> u64 {
        match self {
            Page::Leaf(entries) => entries.len() as u64,
            Page::Interior { children, .. } => children.iter().fold(0, |sum, child| sum.saturating_add(child.direct)),
        }
    }

    /// Sums over all entries in and below the page. `Damaged` if they exceed 64 bits.
    pub fn totals(&self) -> Result<Totals> {
        let mut totals = Totals::default();
        match self {
            Page::Leaf(entries) => {
                for entry in entries {
                    totals.add(&entry.totals()?)?;
                }
            }
            Page::Interior { children, .. } => {
                for child in children {
                    totals.add(&child.totals)?;
                }
            }
        }
        Ok(totals)
    }

    /// The bytes as stored. Fails if the format cannot hold it, also if it is too long for one page.
    pub fn encode(&self) -> Result<Vec<u8>> {
        match self {
            Page::Leaf(entries) => {
                let mut builder = LeafBuilder::new();
                for entry in entries {
                    builder.push(entry)?;
                }
                Ok(builder.finish().bytes)
            }
            Page::Interior { level, children } => {
                if children.is_empty() {
                    return Err(unfit("tree page", "it has no children"));
                }
                let mut builder = InteriorBuilder::new(*level)?;
                for child in children {
                    builder.push(child)?;
                }
                Ok(builder.finish().bytes)
            }
        }
    }

    /// Reads a page.
    pub fn decode(bytes: &[u8]) -> Result<Page> {
        let mut reader = Reader::new("tree page", bytes);
        if bytes.len() > MAX_PAGE {
            return Err(reader.damaged("it is too long"));
        }
        match reader.u8()? {
            0 => read_leaf(reader),
            level @ 1..=MAX_LEVEL => read_interior(reader, level),
            _ => Err(reader.damaged_at(0, "its level is too high")),
        }
    }
}

fn read_interior(mut reader: Reader, level: u8) -> Result<Page> {
    let number = reader.varint()?;
    if number == 0 {
        return Err(reader.damaged("it has no children"));
    }
    let number = reader.count(number, 1 + 1 + 32 + 1 + 5)?;
    let mut children: Vec<Child> = Vec::with_capacity(number);
    for _ in 0..number {
        let start = reader.offset();
        let first_name = reader.short()?.to_vec();
        let page = ChunkId(reader.array()?);
        let child = Child { first_name, page, direct: reader.varint()?, totals: read_totals(&mut reader)? };
        child.check().map_err(|why| reader.damaged_at(start, why))?;
        if children.last().is_some_and(|last| last.first_name >= child.first_name) {
            return Err(reader.damaged_at(start, "the children are not in order"));
        }
        children.push(child);
    }
    if sum(children.iter().map(|child| &child.totals)).is_none() {
        return Err(reader.damaged("its totals are larger than any can be"));
    }
    reader.finish()?;
    Ok(Page::Interior { level, children })
}

/// A table at the start of a page, whose items must be used in the order in which they stand.
struct Table<T> {
    items: Vec<Arc<T>>,
    used: usize,
}

impl<T: std::hash::Hash + Eq> Table<T> {
    fn new(reader: &Reader, items: Vec<Arc<T>>) -> Result<Self> {
        let twice = if items.len() <= 4 {
            (1..items.len()).any(|end| items[..end].contains(&items[end]))
        } else {
            let mut seen = HashSet::with_capacity(items.len());
            !items.iter().all(|item| seen.insert(item))
        };
        if twice {
            return Err(reader.damaged("an owner or attribute set stands twice"));
        }
        Ok(Table { items, used: 0 })
    }

    #[inline]
    fn get(&mut self, reader: &Reader, number: u64) -> Result<Arc<T>> {
        match usize::try_from(number).ok().and_then(|number| self.items.get(number)) {
            Some(item) if number <= self.used as u64 => {
                self.used = self.used.max(number as usize + 1);
                Ok(Arc::clone(item))
            }
            _ => Err(reader.damaged("an owner or attribute set is missing or out of order")),
        }
    }
}

fn read_leaf(mut reader: Reader) -> Result<Page> {
    let owners = read_owners(&mut reader)?;
    let sets = read_sets(&mut reader)?;
    let mut owners = Table::new(&reader, owners)?;
    let mut sets = Table::new(&reader, sets)?;
    let number = reader.varint()?;
    let number = reader.count(number, ENTRY_LEAST)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(number);
    let mut totals = Totals::default();
    for _ in 0..number {
        let start = reader.offset();
        let entry = read_entry(&mut reader, |reader, n| owners.get(reader, n), |reader, n| sets.get(reader, n))?;
        if entries.last().is_some_and(|last| last.name >= entry.name) {
            return Err(reader.damaged_at(start, "the entries are not in order"));
        }
        totals.add(&entry.totals()?).map_err(|_| reader.damaged_at(start, "the totals are larger than any can be"))?;
        entries.push(entry);
    }
    if owners.used != owners.items.len() || sets.used != sets.items.len() {
        return Err(reader.damaged("an owner or attribute set is not used"));
    }
    reader.finish()?;
    Ok(Page::Leaf(entries))
}

fn read_owners(reader: &mut Reader) -> Result<Vec<Arc<Owner>>> {
    let number = reader.varint()?;
    let number = reader.count(number, 4)?;
    let mut owners = Vec::with_capacity(number);
    for _ in 0..number {
        owners.push(Arc::new(Owner {
            uid: reader.varint_u32()?,
            gid: reader.varint_u32()?,
            user: reader.short()?.to_vec(),
            group: reader.short()?.to_vec(),
        }));
    }
    Ok(owners)
}

fn read_sets(reader: &mut Reader) -> Result<Vec<Arc<Attributes>>> {
    let number = reader.varint()?;
    let number = reader.count(number, 2)?;
    let mut sets = Vec::with_capacity(number);
    for _ in 0..number {
        let start = reader.offset();
        let set = match reader.u8()? {
            0 => {
                let len = reader.varint_to(MAX_INLINE_ATTRIBUTES as u64)?;
                let bytes = reader.bytes(len as usize)?;
                let set = AttributeSet::decode(bytes)
                    .map_err(|error| reader.damaged_at(start, "an attribute set is damaged").with_source(error))?;
                Attributes::Inline(set)
            }
            1 => {
                let id = ChunkId(reader.array()?);
                Attributes::Chunk(id, reader.varint_u32()?)
            }
            _ => return Err(reader.damaged_at(start, "an attribute set is of no known kind")),
        };
        check_attributes(&set).map_err(|why| reader.damaged_at(start, why))?;
        sets.push(Arc::new(set));
    }
    Ok(sets)
}

/// A chunk holds only what is too long for a page. (What is in the page is checked as it is encoded.)
pub(crate) fn check_attributes(set: &Attributes) -> Check {
    match set {
        Attributes::Chunk(_, len) if !(MAX_INLINE_ATTRIBUTES + 1..=MAX_ATTRIBUTE_SET).contains(&(*len as usize)) => {
            Err("the chunk of an attribute set is too short or too long")
        }
        _ => Ok(()),
    }
}

/// Whether an entry can be recorded; says why not. Saves a writer from finding out after it has stored the content.
pub fn check_entry(entry: &Entry) -> Result<()> {
    LeafBuilder::new().push(entry).map(|_| ())
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
