//! Copies a tree without what is lost. Not for: snapshots (see `snapshots`, which says what becomes of what).

use super::snapshots::Issues;
use crate::error::{ErrorKind, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::list::ListPage;
use crate::format::message::ChunkKind;
use crate::format::page::Page;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Attributes, Body, Content, Entry, Extent, Totals};
use crate::id::{ChunkId, ObjectName};
use crate::progress::Stop;
use crate::repository::Repository;
use crate::repository::assemble::Assembler;
use crate::repository::damage::is_loss;
use crate::repository::index::{Index, StoredPacks};
use crate::repository::read::pack_key;
use crate::repository::tree::{ContentBuilder, DirectoryBuilder, PageCut};
use crate::repository::writer::Writer;
use crate::view::path::ROOT_NAME;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Behind the name of a file of which a part is lost.
pub const SUFFIX: &str = ".damaged";
/// Pages whose state is remembered; beyond that, they are looked at again.
const MAX_KNOWN: usize = 1 << 20;
/// Ranges that one issue names.
const NAMED_RANGES: usize = 5;

/// `Ok(None)` for what is lost.
fn unless_lost<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_loss(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What of a repository can be read.
pub(super) struct Lost {
    repository: Arc<Repository>,
    index: Arc<Index>,
    stored: StoredPacks,
    damaged: HashSet<ObjectName>,
    /// Packs that a listing missed, and whether they are there.
    asked: RefCell<HashMap<ObjectName, bool>>,
    /// Top pages of directories, and whether all below them is there.
    known: RefCell<HashMap<ChunkId, bool>>,
}

impl Lost {
    pub(super) fn look(repository: &Arc<Repository>) -> Result<Lost> {
        repository.reload_index(&crate::progress::Silent)?;
        Ok(Lost {
            repository: repository.clone(),
            index: repository.index()?,
            stored: StoredPacks::list_latest(repository)?,
            damaged: repository.damaged_packs()?,
            asked: RefCell::default(),
            known: RefCell::default(),
        })
    }

    /// Whether a content chunk can be had.
    fn has(&self, id: &ChunkId) -> Result<bool> {
        let mut places = Vec::new();
        self.index.find(id, &mut |place| {
            places.push(place);
            true
        })?;
        for place in places {
            let pack = self.index.pack(place)?;
            if pack.is_tree || !self.is_stored(&pack)? {
                continue;
            }
            let is_right = !self.damaged.contains(&pack.name)
                || unless_lost(self.repository.block(&self.index, place))?
                    .is_some_and(|block| block.chunk(ChunkKind::Content, id).is_some());
            if is_right {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A listing may miss a pack; only a direct question makes it missing.
    fn is_stored(&self, pack: &crate::repository::table::PackInfo) -> Result<bool> {
        if self.stored.has(pack) {
            return Ok(true);
        }
        if let Some(known) = self.asked.borrow().get(&pack.name) {
            return Ok(*known);
        }
        let is_there = match self.repository.store().size(&pack_key(pack)) {
            Ok(size) => size == pack.size || self.damaged.contains(&pack.name),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        self.asked.borrow_mut().insert(pack.name, is_there);
        Ok(is_there)
    }

    /// Whether nothing of a snapshot is lost.
    pub(super) fn is_clean(&self, snapshot: &Snapshot, stop: &Stop) -> Result<bool> {
        match unless_lost(crate::view::path::root(&self.repository, snapshot))? {
            Some(entry) => self.is_entry_clean(&entry, 0, stop),
            None => Ok(false),
        }
    }

    fn is_entry_clean(&self, entry: &Entry, depth: usize, stop: &Stop) -> Result<bool> {
        if let Some(attributes) = &entry.meta.attributes
            && unless_lost(self.repository.attributes(attributes))?.is_none()
        {
            return Ok(false);
        }
        match &entry.body {
            Body::Directory { page, totals, .. } => self.is_folder_clean(*page, totals, depth + 1, stop),
            Body::File { size, content } => {
                let mut length = 0u64;
                for extent in self.repository.extents(content) {
                    let Some(extent) = unless_lost(extent)? else { return Ok(false) };
                    length = length.saturating_add(extent.len());
                    if let Extent::Chunk { id, .. } = extent
                        && !self.has(&id)?
                    {
                        return Ok(false);
                    }
                }
                Ok(matches!(content, Content::Inline(_)) || length == *size)
            }
            _ => Ok(true),
        }
    }

    fn is_folder_clean(&self, page: ChunkId, totals: &Totals, depth: usize, stop: &Stop) -> Result<bool> {
        stop.check()?;
        if depth > MAX_DEPTH {
            return Ok(false);
        }
        if let Some(known) = self.known.borrow().get(&page) {
            return Ok(*known);
        }
        let mut is_clean = true;
        let mut sum = Totals::default();
        for entry in self.repository.entries(page) {
            let Some(entry) = unless_lost(entry)? else {
                is_clean = false;
                break;
            };
            is_clean = self.is_entry_clean(&entry, depth, stop)?
                && unless_lost(entry.totals().and_then(|more| sum.add(&more)))?.is_some();
            if !is_clean {
                break;
            }
        }
        is_clean &= sum == *totals;
        let mut known = self.known.borrow_mut();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(page, is_clean);
        Ok(is_clean)
    }
}

/// Writes a tree again.
pub(super) struct Rewriter<'w> {
    out: Assembler<'w>,
    cut: PageCut,
    lost: Lost,
    stop: &'w Stop,
    path: Vec<u8>,
    issues: Issues,
}

/// A directory being written.
#[derive(Default)]
struct Folder {
    pages: DirectoryBuilder,
    /// Entries under new names, until it is their turn.
    renamed: BTreeMap<Vec<u8>, Entry>,
    last: Vec<u8>,
    is_incomplete: bool,
}

impl<'w> Rewriter<'w> {
    pub(super) fn new(writer: &'w Writer, lost: Lost, stop: &'w Stop) -> Rewriter<'w> {
        let cut = PageCut::new(lost.repository.keyring());
        Rewriter { out: Assembler::new(writer), cut, lost, stop, path: Vec::new(), issues: Issues::default() }
    }

    /// The new root page and the totals below "/"; `None` if there is no root to begin with.
    pub(super) fn root(&mut self, snapshot: &Snapshot) -> Result<Option<(ChunkId, Totals)>> {
        // Not `view::path::root`: totals that lie are made right here.
        let Some(Page::Leaf(mut entries)) = unless_lost(self.lost.repository.page(&snapshot.tree))? else {
            return Ok(None);
        };
        if entries.len() != 1 || entries[0].name != ROOT_NAME {
            return Ok(None);
        }
        let entry = entries.swap_remove(0);
        let Some(entry) = self.entry(entry, 0)? else { return Ok(None) };
        let Body::Directory { totals, .. } = entry.body else { return Ok(None) };
        let mut top = DirectoryBuilder::default();
        top.push(&Entry { name: ROOT_NAME.to_vec(), ..entry }, &self.cut, &mut self.out)?;
        Ok(Some((top.finish(&self.cut, &mut self.out)?.0, totals)))
    }

    /// Hands over what is not yet stored; what is lost.
    pub(super) fn finish(mut self) -> Result<Issues> {
        self.out.flush()?;
        Ok(self.issues)
    }

    /// What is left of an entry; `None` if nothing is. A file of which a part is lost has another name afterwards.
    fn entry(&mut self, mut entry: Entry, depth: usize) -> Result<Option<Entry>> {
        if let Some(attributes) = &entry.meta.attributes
            && matches!(**attributes, Attributes::Chunk(..))
            && unless_lost(self.lost.repository.attributes(attributes))?.is_none()
        {
            self.issues.add(&self.path, "Its extended attributes are lost");
            (entry.meta.attributes, entry.meta.unreliable) = (None, true);
        }
        match &entry.body {
            Body::Directory { size, page, totals } => {
                let size = *size;
                if self.lost.is_folder_clean(*page, totals, depth + 1, self.stop)? {
                    return Ok(Some(entry));
                }
                let (page, totals, is_incomplete) = self.folder(*page, depth + 1)?;
                entry.meta.unreliable |= is_incomplete;
                entry.body = Body::Directory { size, page, totals };
                Ok(Some(entry))
            }
            Body::File { size, content } if !matches!(content, Content::Inline(_)) => {
                let (size, content) = (*size, content.clone());
                self.file(entry, size, &content)
            }
            _ => Ok(Some(entry)),
        }
    }

    fn folder(&mut self, page: ChunkId, depth: usize) -> Result<(ChunkId, Totals, bool)> {
        let mut folder = Folder::default();
        if depth > MAX_DEPTH {
            self.issues
                .add(&self.path, "What is in this folder is nested deeper than the format allows; it is left out");
            folder.is_incomplete = true;
        } else {
            self.page(page, None, depth, &mut folder)?;
        }
        self.push_renamed(&mut folder, None)?;
        let (page, totals) = folder.pages.finish(&self.cut, &mut self.out)?;
        Ok((page, totals, folder.is_incomplete))
    }

    /// Copies the entries of a page and of all pages below it.
    fn page(&mut self, page: ChunkId, first: Option<&[u8]>, depth: usize, folder: &mut Folder) -> Result<()> {
        self.stop.check()?;
        match unless_lost(self.lost.repository.page(&page))? {
            None => {
                folder.is_incomplete = true;
                let message = match first {
                    None => "All entries of this folder are lost".to_owned(),
                    Some(first) => {
                        format!("Some entries of this folder are lost, from \"{}\" on", String::from_utf8_lossy(first))
                    }
                };
                self.issues.add(&self.path, &message);
            }
            Some(Page::Interior { children, .. }) => {
                for child in children {
                    self.page(child.page, Some(&child.first_name), depth, folder)?;
                }
            }
            Some(Page::Leaf(entries)) => {
                for entry in entries {
                    self.take(entry, depth, folder)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: Entry, depth: usize, folder: &mut Folder) -> Result<()> {
        let name = entry.name.clone();
        // Pages that overlap show a name twice; the first one counts.
        if name <= folder.last {
            return Ok(());
        }
        folder.last.clone_from(&name);
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(&name);
        let left = self.entry(entry, depth);
        self.path.truncate(length);
        let Some(left) = left? else { return Ok(()) };
        if left.name == name {
            self.push_renamed(folder, Some(&name))?;
            return folder.pages.push(&left, &self.cut, &mut self.out);
        }
        // Renamed again when its turn comes, if that name is taken.
        folder.renamed.insert(left.name.clone(), left);
        Ok(())
    }

    /// Pushes the renamed entries whose turn is before `next`. One whose new name is that of `next` gets another one.
    fn push_renamed(&mut self, folder: &mut Folder, next: Option<&[u8]>) -> Result<()> {
        while let Some((name, mut entry)) = folder.renamed.pop_first() {
            match next {
                Some(next) if name.as_slice() == next => {
                    let mut again = name;
                    again.push(b'+');
                    entry.name.clone_from(&again);
                    folder.renamed.insert(again, entry);
                }
                Some(next) if name.as_slice() > next => {
                    folder.renamed.insert(name, entry);
                    return Ok(());
                }
                _ => folder.pages.push(&entry, &self.cut, &mut self.out)?,
            }
        }
        Ok(())
    }

    /// A file with zeros where its bytes are lost, under another name; as it is if nothing is lost.
    fn file(&mut self, mut entry: Entry, size: u64, content: &Content) -> Result<Option<Entry>> {
        let mut copy =
            Copy { at: 0, hole: 0, kept: 0, lost: Vec::new(), lost_bytes: 0, content: ContentBuilder::default() };
        self.extents(content, size, &mut copy)?;
        if copy.lost_bytes == 0 && copy.at == size {
            return Ok(Some(entry));
        }
        if copy.kept == 0 || copy.at != size {
            let message = format!("Its content ({size} bytes) is lost; the file is left out");
            self.issues.add(&self.path, &message);
            return Ok(None);
        }
        copy.close_hole(&mut self.out)?;
        let ranges: Vec<String> = copy.lost.iter().map(|(from, to)| format!("{from}-{}", to - 1)).collect();
        entry.name = new_name(&entry.name);
        let message = format!(
            "{} of its {size} bytes are lost (bytes {}{}); what is left is in \"{}\", with zeros in between",
            copy.lost_bytes,
            ranges.join(", "),
            if copy.lost.len() == NAMED_RANGES { " and perhaps more" } else { "" },
            String::from_utf8_lossy(&entry.name)
        );
        self.issues.add(&self.path, &message);
        entry.meta.unreliable = true;
        entry.meta.blocks = None;
        entry.body = Body::File { size, content: copy.content.finish(&mut self.out)? };
        Ok(Some(entry))
    }

    fn extents(&mut self, content: &Content, size: u64, copy: &mut Copy) -> Result<()> {
        match content {
            Content::Inline(_) => Ok(()),
            Content::Extents(extents) => extents.iter().try_for_each(|extent| self.extent(extent, copy)),
            Content::List(id) => self.list(*id, size, copy),
        }
    }

    /// Copies what a list page covers: `bytes`, as is said of it.
    fn list(&mut self, id: ChunkId, bytes: u64, copy: &mut Copy) -> Result<()> {
        self.stop.check()?;
        match unless_lost(self.lost.repository.list_page(&id))? {
            None => {
                copy.lose(bytes);
                Ok(())
            }
            Some(ListPage::Extents(extents)) => extents.iter().try_for_each(|extent| self.extent(extent, copy)),
            Some(ListPage::Interior { children, .. }) => {
                children.iter().try_for_each(|child| self.list(child.page, child.bytes, copy))
            }
        }
    }

    fn extent(&mut self, extent: &Extent, copy: &mut Copy) -> Result<()> {
        match extent {
            Extent::Hole(length) => {
                copy.hole = copy.hole.saturating_add(*length);
                copy.at = copy.at.saturating_add(*length);
            }
            Extent::Chunk { id, len } if self.lost.has(id)? => {
                copy.close_hole(&mut self.out)?;
                copy.content.push(*extent, &mut self.out)?;
                copy.kept += 1;
                copy.at = copy.at.saturating_add(u64::from(*len));
            }
            Extent::Chunk { len, .. } => copy.lose(u64::from(*len)),
        }
        Ok(())
    }
}

/// A file being copied.
struct Copy {
    at: u64,
    /// Bytes of the hole that is open.
    hole: u64,
    kept: u64,
    /// The first lost ranges, and all lost bytes.
    lost: Vec<(u64, u64)>,
    lost_bytes: u64,
    content: ContentBuilder,
}

impl Copy {
    fn lose(&mut self, length: u64) {
        let to = self.at.saturating_add(length);
        let count = self.lost.len();
        match self.lost.last_mut() {
            Some((_, end)) if *end == self.at => *end = to,
            _ if count < NAMED_RANGES => self.lost.push((self.at, to)),
            _ => {}
        }
        self.lost_bytes = self.lost_bytes.saturating_add(length);
        self.hole = self.hole.saturating_add(length);
        self.at = to;
    }

    fn close_hole(&mut self, out: &mut Assembler<'_>) -> Result<()> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            length => self.content.push(Extent::Hole(length), out),
        }
    }
}

/// The name with `SUFFIX` behind it; a long one is cut, at the end of a character if it is UTF-8.
fn new_name(name: &[u8]) -> Vec<u8> {
    // Room for what tells it from a file that has this name already.
    let mut end = name.len().min(240);
    while end < name.len() && end > 200 && name[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&name[..end], SUFFIX.as_bytes()].concat()
}
