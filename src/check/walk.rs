//! Whether every chunk that a live snapshot needs can be read, and which files it hits where not. Not for: reading content.
//!
//! Each distinct page is decoded once: what is below a page is the same wherever it hangs. Pages from which something bad
//! can be reached are remembered, and a second walk through only those says which paths of which snapshots are hit.

use super::lengths::Lengths;
use super::objects::REPAIR;
use super::packs::Packs;
use super::{Affected, MAX_AFFECTED, MAX_AFFECTED_REPORT, Pass, Severity};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::list::{ListChild, ListPage};
use crate::format::message::ChunkKind;
use crate::format::page::{Child, Page};
use crate::format::tree::{Attributes, Body, Content, Entry, Extent, Totals};
use crate::id::{ChunkId, ObjectName};
use crate::repository::index::Index;
use crate::repository::read::{ReadBlock, pack_key};
use crate::repository::snapshots::Named;
use crate::repository::tree::{check_child, decode_attributes};
use crate::view::content::check_length;
use crate::view::path::ROOT_NAME;
use quick_cache::sync::Cache;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// Decoded blocks kept of packs that no segment names.
const CACHED_ORPHANS: usize = 32;
/// Ids of lost chunks listed in a message.
const LISTED_CHUNKS: usize = 10;
/// Damaged pages with a finding of their own.
const MAX_PAGE_FINDINGS: usize = 1000;

/// What a page, or a snapshot, says about what it names.
#[derive(Clone, Debug)]
enum Claim {
    /// A snapshot's root page.
    Root(Totals),
    /// The top page of a directory.
    Top(Totals),
    /// A page below another one of the same directory.
    Child { level: u8, child: Child, before: Option<Vec<u8>> },
    /// The top list page of a file of this size.
    List(u64),
    /// A list page below another one.
    ListChild { level: u8, bytes: u64, extents: u64 },
    /// A chunk of content of this length.
    Content(u32),
    /// An attribute set of this length.
    Attributes(u32),
}

#[derive(Clone, Debug)]
struct Reference {
    id: ChunkId,
    claim: Claim,
    /// The entry's name, on the way from a leaf page to what belongs to the entry.
    name: Option<Rc<[u8]>>,
}

impl Reference {
    fn kind(&self) -> ChunkKind {
        match self.claim {
            Claim::Root(_) | Claim::Top(_) | Claim::Child { .. } => ChunkKind::Tree,
            Claim::List(_) | Claim::ListChild { .. } => ChunkKind::List,
            Claim::Content(_) => ChunkKind::Content,
            Claim::Attributes(_) => ChunkKind::Attributes,
        }
    }

    fn is_page(&self) -> bool {
        matches!(self.kind(), ChunkKind::Tree | ChunkKind::List)
    }

    /// The finding that says that the chunk is not as long as stated here.
    fn is_lie(&self, lies: &HashMap<(ChunkId, u32), usize>) -> Option<usize> {
        match self.claim {
            Claim::Content(len) | Claim::Attributes(len) => lies.get(&(self.id, len)).copied(),
            _ => None,
        }
    }

    /// Stands for the page and what is said about it: the same page under another claim is looked at again.
    fn key(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.id.0).update(format!("{:?}", self.claim).as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// Whether what a list page covers begins and ends with a hole.
#[derive(Clone, Copy, Default)]
struct Edges {
    begins: bool,
    ends: bool,
}

struct Frame {
    key: [u8; 32],
    page: Reference,
    /// Of a list page: of what was seen of it so far.
    edges: Option<Edges>,
    below: std::vec::IntoIter<Reference>,
    is_tainted: bool,
    path_len: usize,
    depth: usize,
}

/// What is bad about one finding's chunks.
#[derive(Default)]
struct Loss {
    count: u64,
    listed: Vec<ChunkId>,
    elsewhere: bool,
    last: Option<(ObjectName, Vec<u8>)>,
}

struct Walk<'p, 'a> {
    pass: &'p mut Pass<'a>,
    packs: Packs,
    index: Arc<Index>,
    orphan_blocks: Cache<(u32, u32), Arc<ReadBlock>>,
    lengths: Lengths,
    visited: HashMap<[u8; 32], Edges>,
    tainted: HashSet<[u8; 32]>,
    /// Chunks that no snapshot can get, and the finding that says why.
    bad: HashMap<ChunkId, usize>,
    /// Chunks of which something states this length, which is not theirs.
    lies: HashMap<(ChunkId, u32), usize>,
    losses: BTreeMap<usize, Loss>,
    /// The findings about chunks that no segment names: those found in stored packs, and those found nowhere.
    unindexed: Option<usize>,
    nowhere: Option<usize>,
    page_findings: usize,
    listed: usize,
}

/// Where a chunk is.
enum Found {
    Indexed(crate::repository::index::Place),
    Orphan(u32, u32),
    Bad(usize),
}

impl Pass<'_> {
    pub(super) fn check_trees(&mut self, snapshots: &[Named], packs: Packs) -> Result<()> {
        let index = self.repository.index()?;
        let mut walk = Walk {
            pass: self,
            packs,
            index,
            orphan_blocks: Cache::new(CACHED_ORPHANS),
            lengths: Lengths::new(),
            visited: HashMap::new(),
            tainted: HashSet::new(),
            bad: HashMap::new(),
            lies: HashMap::new(),
            losses: BTreeMap::new(),
            unindexed: None,
            nowhere: None,
            page_findings: 0,
            listed: 0,
        };
        for named in snapshots {
            walk.find_bad(named)?;
        }
        if !walk.bad.is_empty() || !walk.lies.is_empty() {
            for named in snapshots {
                walk.find_paths(named)?;
            }
        }
        walk.report();
        Ok(())
    }
}

fn root(named: &Named) -> Reference {
    Reference { id: named.snapshot.tree, claim: Claim::Root(named.snapshot.totals), name: None }
}

impl Walk<'_, '_> {
    /// The first walk: every page once.
    fn find_bad(&mut self, named: &Named) -> Result<()> {
        let mut stack: Vec<Frame> = Vec::new();
        let mut next = Some(root(named));
        loop {
            if let Some(reference) = next.take() {
                let depth =
                    stack.last().map_or(0, |frame| frame.depth) + usize::from(matches!(reference.claim, Claim::Top(_)));
                match self.visit(&reference, depth)? {
                    Visit::Enter(frame) => stack.push(*frame),
                    Visit::Clean(edges) => self.join(&mut stack, edges),
                    Visit::Tainted => {
                        if let Some(above) = stack.last_mut() {
                            above.is_tainted = true;
                        }
                    }
                }
            }
            let Some(top) = stack.last_mut() else { return Ok(()) };
            next = top.below.next();
            if next.is_none() {
                let done = stack.pop().expect("the stack has a top");
                if let (Some(edges), Some(known)) = (done.edges, self.visited.get_mut(&done.key)) {
                    *known = edges;
                }
                if let Claim::ListChild { .. } = done.page.claim {
                    self.join(&mut stack, done.edges);
                }
                if done.is_tainted {
                    self.tainted.insert(done.key);
                    if let Some(above) = stack.last_mut() {
                        above.is_tainted = true;
                    }
                }
            }
        }
    }

    /// A list page below the top of the stack has these edges: two holes never touch.
    fn join(&mut self, stack: &mut [Frame], edges: Option<Edges>) {
        let (Some(edges), Some(above)) = (edges, stack.last_mut()) else { return };
        let before = above.edges.get_or_insert(Edges { begins: edges.begins, ends: false });
        if before.ends && edges.begins {
            above.is_tainted = true;
            self.bad_page(&above.page, &Error::damaged("two holes of a file touch across list pages"));
        }
        before.ends = edges.ends;
    }

    fn visit(&mut self, reference: &Reference, depth: usize) -> Result<Visit> {
        if !reference.is_page() {
            self.pass.report.chunks += 1;
            return Ok(if self.check_chunk(reference)? { Visit::Clean(None) } else { Visit::Tainted });
        }
        let key = reference.key();
        if let Some(edges) = self.visited.get(&key).copied() {
            let is_bad = self.tainted.contains(&key) || self.bad.contains_key(&reference.id);
            let below_another = matches!(reference.claim, Claim::ListChild { .. });
            return Ok(if is_bad { Visit::Tainted } else { Visit::Clean(below_another.then_some(edges)) });
        }
        self.visited.insert(key, Edges::default());
        self.pass.stop.check()?;
        if self.bad.contains_key(&reference.id) {
            return Ok(Visit::Tainted);
        }
        self.pass.report.tree_pages += 1;
        if depth > MAX_DEPTH {
            self.bad_page(reference, &Error::damaged("directories are nested deeper than the format allows"));
            return Ok(Visit::Tainted);
        }
        let below = match self.locate(reference)? {
            Found::Bad(finding) => {
                self.lose(reference.id, finding);
                return Ok(Visit::Tainted);
            }
            found => self.read(reference, &found).and_then(|bytes| references(reference, &bytes)),
        };
        match below {
            Ok((below, edges)) => {
                let (below, page) = (below.into_iter(), reference.clone());
                Ok(Visit::Enter(Box::new(Frame { key, page, edges, below, is_tainted: false, path_len: 0, depth })))
            }
            Err(error) => {
                self.bad_page(reference, &error);
                Ok(Visit::Tainted)
            }
        }
    }

    /// Whether a chunk of content or attributes can be had and is as long as stated; attributes are read, since they are
    /// metadata.
    fn check_chunk(&mut self, reference: &Reference) -> Result<bool> {
        if self.bad.contains_key(&reference.id) || reference.is_lie(&self.lies).is_some() {
            return Ok(false);
        }
        let found = match self.locate(reference)? {
            Found::Bad(finding) => {
                self.lose(reference.id, finding);
                return Ok(false);
            }
            found => found,
        };
        let (checked, stated) = match reference.claim {
            Claim::Attributes(stated) => {
                let decoded = self.read(reference, &found).and_then(|bytes| decode_attributes(&bytes, stated));
                (decoded.map(|_| ()), stated)
            }
            Claim::Content(stated) if self.pass.options.read_data => {
                (self.length(reference, &found).and_then(|length| check_length(length, stated)), stated)
            }
            _ => return Ok(true),
        };
        let Err(error) = checked else { return Ok(true) };
        if error.kind() != ErrorKind::Damaged {
            return Err(error);
        }
        let object = format!("{} chunk {}", reference.kind().word(), reference.id);
        self.pass.add(Severity::Lost, object, error.chain());
        self.lies.insert((reference.id, stated), self.pass.report.findings.len() - 1);
        Ok(false)
    }

    fn length(&self, reference: &Reference, found: &Found) -> Result<usize> {
        match found {
            Found::Indexed(place) => {
                let length = self.lengths.of(self.pass.repository, &self.index, *place, &reference.id)?;
                Ok(length as usize)
            }
            _ => self.read(reference, found).map(|bytes| bytes.len()),
        }
    }

    /// The first good copy of a chunk; else what is wrong with the first one.
    fn locate(&mut self, reference: &Reference) -> Result<Found> {
        let index = self.index.clone();
        let mut places = Vec::new();
        index.find(&reference.id, &mut |place| {
            places.push(place);
            true
        })?;
        let mut wrong: Option<usize> = None;
        let mut good = None;
        for place in places {
            let pack = index.pack(place)?;
            if pack.is_tree != reference.kind().is_tree() {
                continue;
            }
            match self.packs.problem(&pack.name, place.block) {
                Some(finding) => {
                    wrong.get_or_insert(finding);
                }
                None => good = good.or(Some(Found::Indexed(place))),
            }
        }
        let mut orphaned = None;
        for (number, block) in self.packs.orphaned.get(&reference.id).into_iter().flatten() {
            let name = self.packs.orphans[*number as usize].name;
            match self.packs.problem(&name, *block) {
                Some(finding) => {
                    wrong.get_or_insert(finding);
                }
                None => orphaned = orphaned.or(Some(Found::Orphan(*number, *block))),
            }
        }
        if let (Some(finding), true) = (wrong, good.is_some() || orphaned.is_some()) {
            self.losses.entry(finding).or_default().elsewhere = true;
        }
        Ok(match (good, orphaned, wrong) {
            (Some(good), _, _) => good,
            (None, Some(orphaned), _) => {
                self.note_unindexed();
                orphaned
            }
            (None, None, Some(finding)) => Found::Bad(finding),
            (None, None, None) => Found::Bad(self.nowhere()),
        })
    }

    fn note_unindexed(&mut self) {
        if self.unindexed.is_none() {
            let message = "Chunks that snapshots need are in stored packs that no index segment names";
            self.pass.add(Severity::Repairable, "index", message).hint(REPAIR);
            self.unindexed = Some(self.pass.report.findings.len() - 1);
        }
    }

    fn nowhere(&mut self) -> usize {
        *self.nowhere.get_or_insert_with(|| {
            let unreadable = self.packs.unreadable_orphans;
            let mut message = String::from("Chunks that snapshots need are in no index segment and in no stored pack");
            if unreadable > 0 {
                message.push_str(&format!(" that can be read ({unreadable} stored packs cannot)"));
            }
            self.pass.add(Severity::Lost, "index", message)
                .hint("If packs or index segments were moved away, put them back. Run a backup: it stores again what it finds on the disk.");
            self.pass.report.findings.len() - 1
        })
    }

    fn lose(&mut self, id: ChunkId, finding: usize) {
        if self.bad.insert(id, finding).is_none() {
            let loss = self.losses.entry(finding).or_default();
            loss.count += 1;
            if loss.listed.len() < LISTED_CHUNKS {
                loss.listed.push(id);
            }
        }
    }

    /// A page or attribute set that could be read and is not what it must be.
    fn bad_page(&mut self, reference: &Reference, error: &Error) {
        self.page_findings += 1;
        if self.page_findings <= MAX_PAGE_FINDINGS {
            let object = format!("{} chunk {}", reference.kind().word(), reference.id);
            self.pass.add(Severity::Lost, object, error.chain());
        }
        // Beyond that many, the last one stands for all.
        let finding = self.pass.report.findings.len() - 1;
        self.lose(reference.id, finding);
    }

    fn read(&self, reference: &Reference, found: &Found) -> Result<Vec<u8>> {
        let block = match found {
            Found::Indexed(place) => self.pass.repository.block(&self.index, *place)?,
            Found::Orphan(number, block) => self.orphan_blocks.get_or_insert_with(&(*number, *block), || {
                let info = &self.packs.orphans[*number as usize];
                let (offset, length) = info.frame(*block).ok_or_else(|| Error::damaged("the pack has fewer blocks"))?;
                let mut frame = vec![0; length as usize];
                self.pass.repository.store().get_range(&pack_key(info), offset, &mut frame)?;
                self.pass.repository.decode_block(info, *block, &mut frame).map(Arc::new)
            })?,
            Found::Bad(_) => return Err(Error::damaged("it cannot be read")),
        };
        let chunk = block.chunk(reference.kind(), &reference.id);
        chunk.map(<[u8]>::to_vec).ok_or_else(|| Error::damaged("the index names a block that does not hold it"))
    }

    /// The second walk: only through pages from which something bad can be reached, each as often as it hangs somewhere.
    fn find_paths(&mut self, named: &Named) -> Result<()> {
        let mut path: Vec<u8> = Vec::new();
        let mut stack: Vec<Frame> = Vec::new();
        let mut next = Some(root(named));
        loop {
            if let Some(reference) = next.take() {
                let path_len = path.len();
                // The root's own entry names "/".
                if let Some(name) = reference.name.as_ref().filter(|_| stack.len() > 1) {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
                let lie = reference.is_lie(&self.lies);
                if let Some(finding) = self.bad.get(&reference.id).copied().or(lie) {
                    self.affect(finding, named.name, &path);
                }
                let key = if reference.is_page() { reference.key() } else { [0; 32] };
                if reference.is_page() && self.tainted.contains(&key) {
                    self.pass.stop.check()?;
                    let found = self.locate(&reference)?;
                    let below = self.read(&reference, &found).and_then(|bytes| references(&reference, &bytes));
                    let below = below.unwrap_or_default().0.into_iter();
                    let (edges, depth, is_tainted) = (None, 0, false);
                    stack.push(Frame { key, page: reference, edges, below, is_tainted, path_len, depth });
                } else {
                    path.truncate(path_len);
                }
            }
            let Some(top) = stack.last_mut() else { return Ok(()) };
            next = top.below.next();
            if next.is_none() {
                path.truncate(top.path_len);
                stack.pop();
            }
        }
    }

    fn affect(&mut self, finding: usize, snapshot: ObjectName, path: &[u8]) {
        let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
        let hit = (snapshot, path);
        let loss = self.losses.entry(finding).or_default();
        // A file's chunks come one after another, so this counts it once.
        if loss.last.as_ref() == Some(&hit) {
            return;
        }
        let finding = &mut self.pass.report.findings[finding];
        finding.affected_total += 1;
        if finding.affected.len() < MAX_AFFECTED && self.listed < MAX_AFFECTED_REPORT {
            self.listed += 1;
            finding.affected.push(Affected { snapshot, path: hit.1.clone() });
        }
        loss.last = Some(hit);
    }

    /// Says how bad each pack's damage has turned out to be.
    fn report(self) {
        for (finding, loss) in self.losses {
            let finding = &mut self.pass.report.findings[finding];
            if loss.count > 0 {
                let mut ids: Vec<String> = loss.listed.iter().map(ChunkId::to_string).collect();
                if loss.count > ids.len() as u64 {
                    ids.push("…".into());
                }
                finding.severity = Severity::Lost;
                finding.message.push_str(&format!(
                    "; lost chunks that snapshots need: {} ({})",
                    loss.count,
                    ids.join(", ")
                ));
                finding.hint.get_or_insert_with(|| "If there is a copy of this object, put it back.".into());
            } else if loss.elsewhere {
                finding.severity = finding.severity.max(Severity::Repairable);
                finding.message.push_str("; what snapshots need of it is also stored elsewhere");
            }
        }
    }
}

enum Visit {
    Enter(Box<Frame>),
    /// The edges of what is a list page below another one.
    Clean(Option<Edges>),
    Tainted,
}

/// What a page names, after checking it against what was said about it; and the edges of a list page that has extents.
fn references(reference: &Reference, bytes: &[u8]) -> Result<(Vec<Reference>, Option<Edges>)> {
    let wrong = || Error::damaged("a page is not what the one above it says");
    if reference.kind() == ChunkKind::List {
        let page = ListPage::decode(bytes)?;
        let (bytes, extents) = page.totals()?;
        let agrees = match &reference.claim {
            Claim::List(size) => *size == bytes,
            Claim::ListChild { level, bytes: stated, extents: number } => {
                (page.level(), bytes, extents) == (*level, *stated, *number)
            }
            _ => false,
        };
        if !agrees {
            return Err(wrong());
        }
        return Ok(match page {
            ListPage::Extents(extents) => {
                let is_hole = |extent: Option<&Extent>| matches!(extent, Some(Extent::Hole(_)));
                let edges = Edges { begins: is_hole(extents.first()), ends: is_hole(extents.last()) };
                (extents.iter().filter_map(|extent| content(extent, None)).collect(), Some(edges))
            }
            ListPage::Interior { level, children } => {
                let claim = |child: &ListChild| {
                    let ListChild { bytes, extents, .. } = *child;
                    Claim::ListChild { level: level - 1, bytes, extents }
                };
                let below = children.iter().map(|child| Reference { id: child.page, claim: claim(child), name: None });
                (below.collect(), None)
            }
        });
    }
    let page = Page::decode(bytes)?;
    match &reference.claim {
        Claim::Root(totals) => {
            let is_root = matches!(&page, Page::Leaf(entries) if entries.len() == 1 && entries[0].name == ROOT_NAME
                && matches!(&entries[0].body, Body::Directory { totals: stated, .. } if stated == totals));
            if !is_root {
                return Err(Error::damaged("the page is not a snapshot's root"));
            }
        }
        Claim::Top(totals) if page.totals()? != *totals => return Err(wrong()),
        Claim::Child { level, child, before } => {
            check_child(&page, (page.direct(), &page.totals()?), *level, child, before.as_deref())?;
        }
        _ => {}
    }
    let behind = if let Claim::Child { before, .. } = &reference.claim { before.clone() } else { None };
    let below = match page {
        Page::Leaf(entries) => entries.into_iter().flat_map(entry_references).collect(),
        Page::Interior { level, children } => {
            let next: Vec<_> = children.iter().skip(1).map(|next| Some(next.first_name.clone())).collect();
            let below = children.into_iter().zip(next.into_iter().chain([behind]));
            below
                .map(|(child, before)| {
                    let (id, level) = (child.page, level - 1);
                    Reference { id, claim: Claim::Child { level, child, before }, name: None }
                })
                .collect()
        }
    };
    Ok((below, None))
}

fn content(extent: &Extent, name: Option<Rc<[u8]>>) -> Option<Reference> {
    match extent {
        Extent::Hole(_) => None,
        Extent::Chunk { id, len } => Some(Reference { id: *id, claim: Claim::Content(*len), name }),
    }
}

fn entry_references(entry: Entry) -> Vec<Reference> {
    let name: Rc<[u8]> = entry.name.into();
    let mut below = Vec::new();
    if let Some(Attributes::Chunk(id, len)) = entry.meta.attributes.as_deref() {
        below.push(Reference { id: *id, claim: Claim::Attributes(*len), name: Some(name.clone()) });
    }
    match entry.body {
        Body::File { content: Content::Extents(extents), .. } => {
            below.extend(extents.iter().filter_map(|extent| content(extent, Some(name.clone()))));
        }
        Body::File { size, content: Content::List(id) } => {
            below.push(Reference { id, claim: Claim::List(size), name: Some(name) });
        }
        Body::Directory { page, totals, .. } => {
            below.push(Reference { id: page, claim: Claim::Top(totals), name: Some(name) });
        }
        _ => {}
    }
    below
}
