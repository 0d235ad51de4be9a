//! Directories and long chunk lists as sequences: walking their pages without holding more than one path of pages in memory,
//! and building them page by page. Not for: entries' meaning.

use super::Repository;
use super::assemble::{Assembler, Group};
use super::keyring::Keyring;
use crate::chunk::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_EXTENTS;
use crate::format::list::{ListBuilder, ListChild, ListPage};
use crate::format::message::ChunkKind;
use crate::format::page::{Child, Page};
use crate::format::page_builder::{BuiltPage, InteriorBuilder, LeafBuilder};
use crate::format::tree::{AttributeSet, Attributes, Content, Entry, Extent, Totals};
use crate::id::ChunkId;

#[cfg(test)]
thread_local! {
    /// Tree pages that this thread has asked for: blocks, of which a store could tell, hold many of them.
    pub(crate) static PAGES_READ: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Repository {
    /// A tree page.
    pub fn page(&self, id: &ChunkId) -> Result<Page> {
        #[cfg(test)]
        PAGES_READ.set(PAGES_READ.get() + 1);
        let bytes = self.chunk(ChunkKind::Tree, id)?;
        Page::decode(&bytes).map_err(|error| error.context(format!("The tree page \"{id}\" cannot be decoded")))
    }

    /// A list page.
    pub fn list_page(&self, id: &ChunkId) -> Result<ListPage> {
        let bytes = self.chunk(ChunkKind::List, id)?;
        ListPage::decode(&bytes).map_err(|error| error.context(format!("The list page \"{id}\" cannot be decoded")))
    }

    /// An entry's attributes, fetched if they are stored apart.
    pub fn attributes(&self, attributes: &Attributes) -> Result<AttributeSet> {
        match attributes {
            Attributes::Inline(set) => Ok(set.clone()),
            Attributes::Chunk(id, len) => decode_attributes(&self.chunk(ChunkKind::Attributes, id)?, *len)
                .map_err(|error| error.context(format!("The attribute set \"{id}\" cannot be decoded"))),
        }
    }

    /// All entries of a directory in order, a page at a time: an error ends the directory. For those who know nothing of it but
    /// its top page.
    pub fn entries(&self, page: ChunkId) -> Entries<'_> {
        Entries { repository: self, stack: vec![Step::Page(page, Expected::Anything)] }
    }

    /// As `entries`, of a directory whose entry states these sums. Whoever walks whole trees asks this way: a few pages that hang
    /// in each other many times stand for more entries than could ever be walked, and only the sums tell.
    pub fn entries_of(&self, page: ChunkId, totals: &Totals) -> Entries<'_> {
        Entries { repository: self, stack: vec![Step::Page(page, Expected::Totals(*totals))] }
    }

    /// All extents of a file's content in order. Inline content yields none.
    pub fn extents(&self, content: &Content) -> Extents<'_> {
        let stack = match content {
            Content::Inline(_) => Vec::new(),
            Content::Extents(extents) => vec![ListStep::Extents(extents.clone().into_iter())],
            Content::List(id) => vec![ListStep::Page(*id, None)],
        };
        Extents { repository: self, stack, after_hole: false }
    }
}

/// An attribute set of which its entry states this length.
pub fn decode_attributes(bytes: &[u8], len: u32) -> Result<AttributeSet> {
    if bytes.len() != len as usize {
        return Err(Error::damaged(format!("it has {} bytes where its entry says {len}", bytes.len())));
    }
    AttributeSet::decode(bytes)
}

enum Step {
    Page(ChunkId, Expected),
    Leaf(std::vec::IntoIter<Entry>),
    /// Level, what is left, and the name that comes behind all of it.
    Interior(u8, std::vec::IntoIter<Child>, Option<Vec<u8>>),
}

/// What a page must be because the page or entry above says so.
enum Expected {
    Anything,
    Totals(Totals),
    /// Level, sums, and the name that comes behind all of its names.
    Child(u8, Child, Option<Vec<u8>>),
}

/// Iterator over a directory's entries. Memory: one page a level.
pub struct Entries<'a> {
    repository: &'a Repository,
    stack: Vec<Step>,
}

/// Checks a page against what its parent said about it; a page that lies would break inode numbers and totals. `sums` are its
/// own (`Page::direct`, `Page::totals`), which some callers know already. All its names come before `before`, the first name
/// of the page that follows it: pages that overlap would show a name twice, and hide it from a look-up.
pub fn check_child(page: &Page, sums: (u64, &Totals), level: u8, child: &Child, before: Option<&[u8]>) -> Result<()> {
    let names = page.ends();
    if page.level() != level
        || names.map(|(first, _)| first) != Some(&child.first_name)
        || sums != (child.direct, &child.totals)
    {
        return Err(Error::damaged("a tree page is not what the page above it says"));
    }
    if let (Some((_, last)), Some(before)) = (names, before)
        && last >= before
    {
        return Err(Error::damaged("the pages of a directory overlap"));
    }
    Ok(())
}

impl Entries<'_> {
    fn advance(&mut self) -> Result<Option<Entry>> {
        while let Some(step) = self.stack.last_mut() {
            match step {
                Step::Leaf(entries) => match entries.next() {
                    Some(entry) => return Ok(Some(entry)),
                    None => drop(self.stack.pop()),
                },
                Step::Interior(level, children, before) => match children.next() {
                    Some(child) => {
                        let next = children.as_slice().first().map(|next| next.first_name.clone());
                        let before = next.or_else(|| before.clone());
                        let (page, level) = (child.page, *level - 1);
                        self.stack.push(Step::Page(page, Expected::Child(level, child, before)));
                    }
                    None => drop(self.stack.pop()),
                },
                Step::Page(id, expected) => {
                    let (id, expected) = (*id, std::mem::replace(expected, Expected::Anything));
                    self.stack.pop();
                    let page = self.repository.page(&id)?;
                    let behind = match expected {
                        Expected::Anything => None,
                        Expected::Totals(totals) if page.totals()? == totals => None,
                        Expected::Totals(_) => {
                            return Err(Error::damaged(format!(
                                "the tree page \"{id}\" is not what the entry above it says"
                            )));
                        }
                        Expected::Child(level, child, before) => {
                            check_child(&page, (page.direct(), &page.totals()?), level, &child, before.as_deref())?;
                            before
                        }
                    };
                    self.stack.push(match page {
                        Page::Leaf(entries) => Step::Leaf(entries.into_iter()),
                        Page::Interior { level, children } => Step::Interior(level, children.into_iter(), behind),
                    });
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.stack.clear();
        }
        next
    }
}

enum ListStep {
    Page(ChunkId, Option<(u8, u64, u64)>),
    Extents(std::vec::IntoIter<Extent>),
    Interior(u8, std::vec::IntoIter<ListChild>),
}

/// Iterator over a file's extents. Memory: one page a level.
pub struct Extents<'a> {
    repository: &'a Repository,
    stack: Vec<ListStep>,
    after_hole: bool,
}

impl Extents<'_> {
    fn advance(&mut self) -> Result<Option<Extent>> {
        while let Some(step) = self.stack.last_mut() {
            match step {
                ListStep::Extents(extents) => match extents.next() {
                    Some(extent) => {
                        let is_hole = matches!(extent, Extent::Hole(_));
                        // Within a page the decoder sees to it.
                        if is_hole && self.after_hole {
                            return Err(Error::damaged("two holes of a file touch across list pages"));
                        }
                        self.after_hole = is_hole;
                        return Ok(Some(extent));
                    }
                    None => drop(self.stack.pop()),
                },
                ListStep::Interior(level, children) => match children.next() {
                    Some(child) => {
                        let expected = (*level - 1, child.bytes, child.extents);
                        self.stack.push(ListStep::Page(child.page, Some(expected)));
                    }
                    None => drop(self.stack.pop()),
                },
                ListStep::Page(id, expected) => {
                    let (id, expected) = (*id, expected.take());
                    self.stack.pop();
                    let page = self.repository.list_page(&id)?;
                    let (bytes, extents) = page.totals()?;
                    if expected.is_some_and(|expected| expected != (page.level(), bytes, extents)) {
                        return Err(Error::damaged(format!(
                            "the list page \"{id}\" is not what the page above it says"
                        )));
                    }
                    self.stack.push(match page {
                        ListPage::Extents(extents) => ListStep::Extents(extents.into_iter()),
                        ListPage::Interior { level, children } => ListStep::Interior(level, children.into_iter()),
                    });
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Result<Extent>> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.stack.clear();
        }
        next
    }
}

/// Where pages end: a keyed hash of names, so that one changed entry changes few pages.
#[derive(Debug)]
pub struct PageCut(Secret);

impl PageCut {
    /// The rule of this repository.
    pub fn new(keyring: &Keyring) -> Self {
        PageCut(Secret::kdf("firn v1 page cut", &[keyring.chunker_secret().bytes()]))
    }

    fn starts(&self, level: u8, name: &[u8]) -> bool {
        crate::chunk::secret::keyed_hash(&self.0, &[&[level], name])[0].is_multiple_of(128)
    }
}

/// Builds a directory from its entries, given in order. Memory: one page a level.
#[derive(Default)]
pub struct DirectoryBuilder {
    leaf: LeafBuilder,
    levels: Vec<InteriorBuilder>,
    last_child: Option<ChunkId>,
    totals: Totals,
}

impl DirectoryBuilder {
    /// Appends an entry.
    pub fn push(&mut self, entry: &Entry, cut: &PageCut, out: &mut Assembler<'_>) -> Result<()> {
        if !self.leaf.is_empty() && cut.starts(0, &entry.name) {
            self.close_leaf(cut, out)?;
        }
        if !self.leaf.try_push(entry)? {
            self.close_leaf(cut, out)?;
            self.leaf.push(entry)?;
        }
        Ok(())
    }

    fn close_leaf(&mut self, cut: &PageCut, out: &mut Assembler<'_>) -> Result<()> {
        let page = self.leaf.finish();
        let sum = self.totals.checked_add(&page.totals);
        self.totals = sum.ok_or_else(|| Error::new(ErrorKind::Failed, "a directory holds more than 2^64 bytes"))?;
        let child = store_page(page, out)?;
        self.push_child(0, child, cut, out)
    }

    fn push_child(&mut self, at: usize, child: Child, cut: &PageCut, out: &mut Assembler<'_>) -> Result<()> {
        if self.levels.len() == at {
            self.levels.push(InteriorBuilder::new(at as u8 + 1)?);
        }
        let builder = &mut self.levels[at];
        if (builder.children() >= 2 && cut.starts(builder.level(), &child.first_name)) || builder.would_exceed(&child) {
            let page = store_page(builder.finish(), out)?;
            self.push_child(at + 1, page, cut, out)?;
        }
        if at + 1 == self.levels.len() {
            self.last_child = Some(child.page);
        }
        self.levels[at].push(&child)
    }

    /// Ends the directory: the id of its top page, and its totals.
    pub fn finish(mut self, cut: &PageCut, out: &mut Assembler<'_>) -> Result<(ChunkId, Totals)> {
        if self.levels.is_empty() {
            let page = self.leaf.finish();
            let (id, _) = out.add(ChunkKind::Tree, Group::Metadata, &page.bytes)?;
            return Ok((id, page.totals));
        }
        if !self.leaf.is_empty() {
            self.close_leaf(cut, out)?;
        }
        let mut at = 0;
        // A level has one above it exactly if one of its pages has been closed; so the last level holds all that is left.
        while at + 1 < self.levels.len() {
            if !self.levels[at].is_empty() {
                let page = store_page(self.levels[at].finish(), out)?;
                self.push_child(at + 1, page, cut, out)?;
            }
            at += 1;
        }
        match (self.levels[at].children(), self.last_child) {
            (1, Some(only)) => Ok((only, self.totals)),
            _ => Ok((store_page(self.levels[at].finish(), out)?.page, self.totals)),
        }
    }
}

/// Builds a file's content from its extents, given in order: in the entry while there are few, else in list pages.
/// Memory: one page a level.
#[derive(Default)]
pub struct ContentBuilder {
    few: Vec<Extent>,
    levels: Vec<ListBuilder>,
    last_child: Option<ChunkId>,
}

impl ContentBuilder {
    /// Appends an extent; touching holes must have been merged.
    pub fn push(&mut self, extent: Extent, out: &mut Assembler<'_>) -> Result<()> {
        if self.levels.is_empty() {
            self.few.push(extent);
            if self.few.len() <= MAX_EXTENTS {
                return Ok(());
            }
            self.levels.push(ListBuilder::new(0)?);
            for extent in std::mem::take(&mut self.few) {
                self.push_item(&extent, out)?;
            }
            return Ok(());
        }
        self.push_item(&extent, out)
    }

    fn push_item(&mut self, extent: &Extent, out: &mut Assembler<'_>) -> Result<()> {
        if self.levels[0].is_full() {
            self.close(0, out)?;
        }
        self.levels[0].push_extent(extent)?;
        match extent {
            Extent::Chunk { id, .. } if ends_list_page(id) => self.close(0, out),
            _ => Ok(()),
        }
    }

    fn close(&mut self, at: usize, out: &mut Assembler<'_>) -> Result<()> {
        let list = self.levels[at].finish();
        let (id, _) = out.add(ChunkKind::List, Group::Metadata, &list.bytes)?;
        if self.levels.len() == at + 1 {
            self.levels.push(ListBuilder::new(at as u8 + 1)?);
        }
        if self.levels[at + 1].is_full() {
            self.close(at + 1, out)?;
        }
        if at + 2 == self.levels.len() {
            self.last_child = Some(id);
        }
        self.levels[at + 1].push_child(&ListChild { page: id, bytes: list.covered, extents: list.extents })?;
        if self.levels[at + 1].items() >= 2 && ends_list_page(&id) { self.close(at + 1, out) } else { Ok(()) }
    }

    /// Ends the content.
    pub fn finish(mut self, out: &mut Assembler<'_>) -> Result<Content> {
        if self.levels.is_empty() {
            return Ok(Content::Extents(self.few));
        }
        let mut at = 0;
        while at < self.levels.len() {
            let top = at + 1 == self.levels.len();
            match (self.levels[at].items(), self.last_child) {
                (1, Some(only)) if top && at > 0 => return Ok(Content::List(only)),
                (0, _) => {}
                _ if top => {
                    let list = self.levels[at].finish();
                    return Ok(Content::List(out.add(ChunkKind::List, Group::Metadata, &list.bytes)?.0));
                }
                _ => self.close(at, out)?,
            }
            at += 1;
        }
        Err(Error::new(ErrorKind::Failed, "a file's list of chunks came out empty"))
    }
}

fn ends_list_page(id: &ChunkId) -> bool {
    u16::from_le_bytes([id.0[0], id.0[1]]).is_multiple_of(512)
}

fn store_page(page: BuiltPage, out: &mut Assembler<'_>) -> Result<Child> {
    let (id, _) = out.add(ChunkKind::Tree, Group::Metadata, &page.bytes)?;
    Ok(Child { first_name: page.first_name, page: id, direct: page.direct, totals: page.totals })
}
