//! Directories through a cache of decoded pages: by name, by rank, from any position. Not for: what ranks mean in a snapshot
//! (see `tree`), or restoring whole trees, which reads each page once (`Repository::entries`).
//!
//! Memory: the cache's bound, and one page a level while a directory is walked. Every page is checked against what the page
//! or the entry above says of it, since inode numbers are computed from these sums.

use crate::error::{Error, Result};
use crate::format::page::{Child, Page};
use crate::format::tree::{Body, Content, Entry, Totals};
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::tree::check_child;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::ops::Deref;
use std::sync::Arc;

/// A page and its running sums.
#[derive(Debug)]
pub struct Decoded {
    id: ChunkId,
    page: Page,
    /// Entries (with all below them) before each item of the page.
    ranks: Vec<u64>,
    /// Entries of the directory itself before each child; empty for a leaf, where it is the position.
    ordinals: Vec<u64>,
    direct: u64,
    totals: Totals,
}

impl Decoded {
    fn new(id: ChunkId, page: Page) -> Result<Decoded> {
        let totals = page.totals()?;
        let mut ranks = Vec::new();
        let mut ordinals = Vec::new();
        let (mut rank, mut ordinal) = (0u64, 0u64);
        // The sums cannot overflow: `totals` above is larger than any of them.
        match &page {
            Page::Leaf(entries) => {
                ranks.reserve_exact(entries.len());
                for entry in entries {
                    ranks.push(rank);
                    rank += 1 + below(entry);
                }
                ordinal = entries.len() as u64;
            }
            Page::Interior { children, .. } => {
                for child in children {
                    ranks.push(rank);
                    ordinals.push(ordinal);
                    rank += child.totals.entries;
                    ordinal += child.direct;
                }
            }
        }
        Ok(Decoded { id, page, ranks, ordinals, direct: ordinal, totals })
    }

    /// Bytes in memory, about.
    fn weight(&self) -> u64 {
        let items: usize = match &self.page {
            Page::Leaf(entries) => entries.iter().map(entry_weight).sum(),
            Page::Interior { children, .. } => {
                children.iter().map(|child| size_of::<Child>() + child.first_name.capacity()).sum()
            }
        };
        (size_of::<Decoded>() + items + 8 * (self.ranks.len() + self.ordinals.len())) as u64
    }

    /// The entries of a leaf.
    pub fn entries(&self) -> &[Entry] {
        match &self.page {
            Page::Leaf(entries) => entries,
            Page::Interior { .. } => &[],
        }
    }

    /// The page's id.
    pub fn id(&self) -> ChunkId {
        self.id
    }
}

fn entry_weight(entry: &Entry) -> usize {
    let body = match &entry.body {
        Body::File { content: Content::Inline(bytes), .. } | Body::Symlink(bytes) => bytes.capacity(),
        Body::File { content: Content::Extents(extents), .. } => extents.capacity() * 40,
        _ => 0,
    };
    // Owners and attribute sets are shared by the entries of a page.
    size_of::<Entry>() + entry.name.capacity() + body + 32
}

/// Entries below an entry.
pub fn below(entry: &Entry) -> u64 {
    match &entry.body {
        Body::Directory { totals, .. } => totals.entries,
        _ => 0,
    }
}

/// An entry in a decoded page, which it keeps alive.
#[derive(Clone, Debug)]
pub struct EntryRef {
    page: Arc<Decoded>,
    at: u32,
}

impl EntryRef {
    /// Its leaf page.
    pub fn page(&self) -> &Arc<Decoded> {
        &self.page
    }

    /// Its position in the leaf page.
    pub fn at(&self) -> u32 {
        self.at
    }
}

impl Deref for EntryRef {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.page.entries()[self.at as usize]
    }
}

/// An entry of a directory and its place in it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry.
    pub entry: EntryRef,
    /// Entries, with all below them, that stand before it in the directory.
    pub rank: u64,
}

/// A directory: its top page and the sums that its entry states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Top page.
    pub page: ChunkId,
    /// Sums over everything below.
    pub totals: Totals,
}

impl Directory {
    /// What a directory's entry says; `None` for everything else.
    pub fn of(entry: &Entry) -> Option<Directory> {
        match &entry.body {
            Body::Directory { page, totals, .. } => Some(Directory { page: *page, totals: *totals }),
            _ => None,
        }
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<ChunkId, Arc<Decoded>> for Weight {
    fn weight(&self, _: &ChunkId, page: &Arc<Decoded>) -> u64 {
        page.weight() + 64
    }
}

/// A repository's tree pages, decoded.
#[derive(Debug)]
pub struct Pages {
    repository: Arc<Repository>,
    cache: Cache<ChunkId, Arc<Decoded>, Weight>,
}

impl Pages {
    /// With a cache of this many bytes.
    pub fn new(repository: Arc<Repository>, bytes: u64) -> Pages {
        let items = (bytes / (16 << 10)).max(64) as usize;
        Pages { repository, cache: Cache::with_weighter(items, bytes, Weight) }
    }

    /// The repository that they are in.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// A page, checked in itself only.
    pub fn get(&self, id: &ChunkId) -> Result<Arc<Decoded>> {
        self.cache.get_or_insert_with(id, || self.read(id).map(Arc::new))
    }

    /// A page that does not go into the cache, for walks that look at each page once.
    pub(super) fn read(&self, id: &ChunkId) -> Result<Decoded> {
        Decoded::new(*id, self.repository.page(id)?)
            .map_err(|error| error.context(format!("The tree page \"{id}\" is damaged")))
    }

    /// As `by_rank`, but from memory only and without comparing pages with what is said of them: a guess.
    pub fn peek_rank(&self, directory: &Directory, rank: u64) -> Option<Found> {
        if rank >= directory.totals.entries {
            return None;
        }
        let mut page = self.cache.get(&directory.page)?;
        let mut base = 0;
        loop {
            let at = page.ranks.partition_point(|start| *start <= rank - base).checked_sub(1)?;
            let next = match &page.page {
                Page::Leaf(_) => return Some(found(&page, at, base)),
                Page::Interior { children, .. } => {
                    base += page.ranks[at];
                    self.cache.get(&children[at].page)?
                }
            };
            page = next;
        }
    }

    /// Whether a directory's listing needs no waiting: its only page is in memory, or can be decoded from what is (pages of
    /// directories that follow one another share a block). That takes less time than to hand the question to another thread.
    pub fn is_listing_resident(&self, directory: &Directory) -> bool {
        let at_hand = || self.repository.is_at_hand(&directory.page).then(|| self.get(&directory.page).ok()).flatten();
        self.cache.get(&directory.page).or_else(at_hand).is_some_and(|page| page.page.level() == 0)
    }

    fn top(&self, directory: &Directory) -> Result<Arc<Decoded>> {
        let page = self.get(&directory.page)?;
        if page.totals != directory.totals {
            return Err(lies(&page.id));
        }
        Ok(page)
    }

    fn child(&self, level: u8, child: &Child, before: &Before) -> Result<Arc<Decoded>> {
        let page = self.get(&child.page)?;
        check(&page, level, child, before.name())?;
        Ok(page)
    }

    /// The entry of this name.
    pub fn by_name(&self, directory: &Directory, name: &[u8]) -> Result<Option<Found>> {
        let (mut page, mut before) = (self.top(directory)?, Before::default());
        let mut base = 0;
        loop {
            let next = match &page.page {
                Page::Leaf(entries) => {
                    let at = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok();
                    return Ok(at.map(|at| found(&page, at, base)));
                }
                Page::Interior { level, children } => {
                    let after = children.partition_point(|child| child.first_name.as_slice() <= name);
                    let Some(at) = after.checked_sub(1) else { return Ok(None) };
                    base += page.ranks[at];
                    before = before.of_child(&page, at);
                    self.child(level - 1, &children[at], &before)?
                }
            };
            page = next;
        }
    }

    /// The entry at or above this rank, counted from the directory's first entry; `None` behind the last.
    pub fn by_rank(&self, directory: &Directory, rank: u64) -> Result<Option<Found>> {
        Ok(self.locate(directory, rank)?.map(|(_, found)| found))
    }

    /// The position of the entry at or above this rank; that behind the last one if there is none.
    pub fn position(&self, directory: &Directory, rank: u64) -> Result<u64> {
        match self.locate(directory, rank)? {
            Some((position, _)) => Ok(position),
            None => Ok(self.top(directory)?.direct),
        }
    }

    fn locate(&self, directory: &Directory, rank: u64) -> Result<Option<(u64, Found)>> {
        if rank >= directory.totals.entries {
            return Ok(None);
        }
        let (mut page, mut before) = (self.top(directory)?, Before::default());
        let (mut base, mut first) = (0, 0);
        loop {
            let at = page.ranks.partition_point(|start| *start <= rank - base);
            let Some(at) = at.checked_sub(1) else { return Ok(None) };
            let next = match &page.page {
                Page::Leaf(_) => return Ok(Some((first + at as u64, found(&page, at, base)))),
                Page::Interior { level, children } => {
                    base += page.ranks[at];
                    first += page.ordinals[at];
                    before = before.of_child(&page, at);
                    self.child(level - 1, &children[at], &before)?
                }
            };
            page = next;
        }
    }

    /// Calls `each` with the entries from position `from` on, until it returns `false`. Positions count from 0.
    pub fn scan(
        &self,
        directory: &Directory,
        from: u64,
        each: &mut dyn FnMut(u64, Found) -> Result<bool>,
    ) -> Result<()> {
        let top = self.top(directory)?;
        if from < top.direct {
            self.scan_page(&top, &Before::default(), 0, 0, from, each)?;
        }
        Ok(())
    }

    /// `base` and `first`: rank and position of the page's first entry. The depth is bounded by the levels of pages.
    fn scan_page(
        &self,
        page: &Arc<Decoded>,
        before: &Before,
        base: u64,
        first: u64,
        from: u64,
        each: &mut dyn FnMut(u64, Found) -> Result<bool>,
    ) -> Result<bool> {
        let skip = from.saturating_sub(first);
        match &page.page {
            Page::Leaf(entries) => {
                for at in skip as usize..entries.len() {
                    if !each(first + at as u64, found(page, at, base))? {
                        return Ok(false);
                    }
                }
            }
            Page::Interior { level, children } => {
                let start = page.ordinals.partition_point(|ordinal| *ordinal <= skip).saturating_sub(1);
                for (at, child) in children.iter().enumerate().skip(start) {
                    let before = before.of_child(page, at);
                    let below = self.child(level - 1, child, &before)?;
                    let (base, first) = (base + page.ranks[at], first + page.ordinals[at]);
                    if !self.scan_page(&below, &before, base, first, from, each)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Calls `each` with the entries of a directory, in order, until it returns `false`; those in pages that `other` has as well may
    /// be left out. Returns whether it never did.
    pub fn scan_apart(
        &self,
        directory: &Directory,
        other: &Directory,
        each: &mut dyn FnMut(&Entry) -> Result<bool>,
    ) -> Result<bool> {
        self.scan_page_apart(&self.top(directory)?, &Before::default(), &self.top(other)?, each)
    }

    /// The depth is bounded by the levels of pages.
    fn scan_page_apart(
        &self,
        page: &Arc<Decoded>,
        before: &Before,
        other: &Arc<Decoded>,
        each: &mut dyn FnMut(&Entry) -> Result<bool>,
    ) -> Result<bool> {
        if page.id == other.id {
            return Ok(true);
        }
        match &page.page {
            Page::Leaf(entries) => {
                for entry in entries {
                    if !each(entry)? {
                        return Ok(false);
                    }
                }
            }
            Page::Interior { level, children } => {
                for (at, child) in children.iter().enumerate() {
                    if self.has_page(other, level - 1, child)? {
                        continue;
                    }
                    let before = before.of_child(page, at);
                    let below = self.child(level - 1, child, &before)?;
                    if !self.scan_page_apart(&below, &before, other, each)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Whether the directory with this top page holds, at this level, the page that a child names.
    fn has_page(&self, top: &Arc<Decoded>, level: u8, wanted: &Child) -> Result<bool> {
        let (mut page, mut before) = (top.clone(), Before::default());
        loop {
            let next = match &page.page {
                Page::Interior { level: own, children } if *own > level => {
                    let after = children.partition_point(|child| child.first_name <= wanted.first_name);
                    let Some(at) = after.checked_sub(1) else { return Ok(false) };
                    if *own == level + 1 {
                        return Ok(children[at].page == wanted.page);
                    }
                    before = before.of_child(&page, at);
                    self.child(own - 1, &children[at], &before)?
                }
                _ => return Ok(page.id == wanted.page),
            };
            page = next;
        }
    }

    /// Calls `each` with every entry below a directory that satisfies `wanted` (asked of sums, so that whole subtrees are
    /// left out), and its rank counted from `base`, in no order. What is damaged is given to `damaged` and left out.
    pub fn walk(
        &self,
        directory: &Directory,
        base: u64,
        wanted: &dyn Fn(&Totals) -> bool,
        each: &mut dyn FnMut(u64, &Entry),
        damaged: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<()> {
        let mut stack = vec![(directory.page, base, Said::Top(directory.totals))];
        while let Some((id, base, said)) = stack.pop() {
            let checked = self.read(&id).and_then(|page| {
                match &said {
                    Said::Child(level, child, before) => check(&page, *level, child, before.as_deref())?,
                    Said::Top(totals) if page.totals != *totals => return Err(lies(&id)),
                    Said::Top(_) => {}
                }
                Ok(page)
            });
            let page = match checked {
                Ok(page) => page,
                Err(error) => {
                    damaged(error)?;
                    continue;
                }
            };
            match &page.page {
                Page::Leaf(entries) => {
                    for (entry, rank) in entries.iter().zip(&page.ranks) {
                        if wanted(&entry.totals()?) {
                            each(base + rank, entry);
                            if let Some(directory) = Directory::of(entry).filter(|below| wanted(&below.totals)) {
                                stack.push((directory.page, base + rank + 1, Said::Top(directory.totals)));
                            }
                        }
                    }
                }
                Page::Interior { level, children } => {
                    let behind = if let Said::Child(_, _, before) = said { before } else { None };
                    for (at, (child, rank)) in children.iter().zip(&page.ranks).enumerate() {
                        if wanted(&child.totals) {
                            let next = children.get(at + 1).map(|next| next.first_name.clone());
                            let said = Said::Child(level - 1, child.clone(), next.or_else(|| behind.clone()));
                            stack.push((child.page, base + rank, said));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// What was said of a page that a walk will come to.
enum Said {
    /// By the directory's entry.
    Top(Totals),
    /// By the page above: its level, its sums, and the name behind all of its names.
    Child(u8, Child, Option<Vec<u8>>),
}

fn found(page: &Arc<Decoded>, at: usize, base: u64) -> Found {
    Found { entry: EntryRef { page: page.clone(), at: at as u32 }, rank: base + page.ranks[at] }
}

/// The entry at a position of a leaf page.
pub fn entry_at(page: Arc<Decoded>, at: u32) -> Option<EntryRef> {
    ((at as usize) < page.entries().len()).then_some(EntryRef { page, at })
}

/// The first name of the page that follows: all names of a page come before it.
#[derive(Clone, Default)]
struct Before(Option<(Arc<Decoded>, usize)>);

impl Before {
    /// That of a child of `page`, which itself comes before `self`.
    fn of_child(&self, page: &Arc<Decoded>, at: usize) -> Before {
        match &page.page {
            Page::Interior { children, .. } if at + 1 < children.len() => Before(Some((page.clone(), at + 1))),
            _ => self.clone(),
        }
    }

    fn name(&self) -> Option<&[u8]> {
        let (page, at) = self.0.as_ref()?;
        match &page.page {
            Page::Interior { children, .. } => children.get(*at).map(|child| child.first_name.as_slice()),
            Page::Leaf(_) => None,
        }
    }
}

fn check(page: &Decoded, level: u8, child: &Child, before: Option<&[u8]>) -> Result<()> {
    check_child(&page.page, (page.direct, &page.totals), level, child, before)
        .map_err(|error| error.context(format!("The tree page \"{}\" is damaged", page.id)))
}

fn lies(id: &ChunkId) -> Error {
    Error::damaged(format!("The tree page \"{id}\" is not what the entry above it says"))
}
