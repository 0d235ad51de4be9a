//! Whether every chunk that a live snapshot needs can be read, and which files it hits where not. Not for: reading content.
//!
//! Each distinct page is decoded once, as long as it is remembered: what is below a page is the same wherever it hangs. A
//! second walk, through only those pages from which something bad can be reached, says which paths of which snapshots are hit.
//!
//! Memory: what `Seen` is bounded by, `MAX_BAD` lost chunks, and a page for each directory on the way down.

use super::lengths::Lengths;
use super::objects::REPAIR;
use super::packs::{DAMAGED, Looked, Verdicts};
use super::seen::{Mark, Seen};
use super::{Affected, MAX_AFFECTED, MAX_AFFECTED_REPORT, Pass, Severity};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::id::{ChunkId, ObjectName};
use crate::repository::index::Index;
use crate::repository::read::{ReadBlock, pack_key};
use crate::repository::snapshots::Named;
use crate::repository::tree::decode_attributes;
use crate::view::content::check_length;
use crate::view::references::{Claim, Edges, Reference, references, root};
use quick_cache::sync::Cache;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Decoded blocks kept of packs that no segment names.
const CACHED_ORPHANS: usize = 32;
/// What to do about a missing pack that snapshots need.
const MISSING: &str = "If it was moved away, put it back. Run a backup: it stores again what it finds on the disk; then run \
    \"firn repair index\".";
/// What to do about a damaged pack of which snapshots need nothing, and about one that holds the only good copy of something.
const UNNEEDED: &str = "Run \"firn prune\": it removes the pack once no forgotten snapshot needs it, either.";
const HOLDS: &str = "Run \"firn repair packs\": it saves what snapshots need of it. Then \"firn prune\" removes the pack, should it stay.";
/// Ids of lost chunks listed in a message.
const LISTED_CHUNKS: usize = 3;
/// Damaged pages with a finding of their own.
const MAX_PAGE_FINDINGS: usize = 1000;
/// Lost chunks that are remembered one by one, 50 bytes each; of more, some are counted more than once.
const MAX_BAD: usize = 900_000;
/// Pages that the second walk enters; a folder that hangs in very many places has more paths than anybody can count.
const MAX_STEPS: u64 = 5_000_000;

struct Frame {
    key: [u8; 16],
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
    looked: Looked,
    index: Arc<Index>,
    orphan_blocks: Cache<(u32, u32), Arc<ReadBlock>>,
    lengths: Lengths,
    seen: Seen,
    /// The packs that were needed so far, if only those are to be read.
    needed: Option<HashSet<ObjectName>>,
    /// Chunks that no snapshot can get, and the finding that says why.
    bad: HashMap<ChunkId, usize>,
    /// Chunks of which something states this length, which is not theirs.
    lies: HashMap<(ChunkId, u32), usize>,
    losses: BTreeMap<usize, Loss>,
    /// Findings about packs that hold, in blocks that can be read, the only good copy of what snapshots need.
    holding: HashSet<usize>,
    /// The findings about chunks that no segment names: those found in stored packs, and those found nowhere.
    unindexed: Option<usize>,
    nowhere: Option<usize>,
    /// The contents of all packs were compared with the index.
    compared: bool,
    page_findings: usize,
    listed: usize,
    steps: u64,
}

/// Where a chunk is.
enum Found {
    Indexed(crate::repository::index::Place),
    Orphan(u32, u32),
    Bad(usize),
}

impl Pass<'_> {
    pub(super) fn check_trees(&mut self, snapshots: &[Named], looked: Looked, verdicts: &mut Verdicts) -> Result<()> {
        let index = looked.index.clone();
        let needed = self.options.snapshots.is_some().then(HashSet::new);
        let mut walk = Walk {
            pass: self,
            looked,
            index,
            orphan_blocks: Cache::new(CACHED_ORPHANS),
            lengths: Lengths::new(),
            seen: Seen::default(),
            needed,
            bad: HashMap::new(),
            lies: HashMap::new(),
            losses: BTreeMap::new(),
            holding: HashSet::new(),
            unindexed: None,
            nowhere: None,
            compared: false,
            page_findings: 0,
            listed: 0,
            steps: 0,
        };
        // When everything is read anyway, what is known about packs is complete before the only walk.
        let is_whole = walk.pass.options.is_whole();
        if is_whole {
            walk.pass.check_data(&mut walk.looked, None, verdicts)?;
        }
        let before = walk.pass.report.findings.len();
        let mut walked = walk.find_all(snapshots)?;
        if walk.pass.options.read_data && !is_whole {
            let found = walk.pass.report.findings.split_off(before);
            walk.pass.check_data(&mut walk.looked, walk.needed.as_ref(), verdicts)?;
            if walk.pass.report.findings.len() == before {
                walk.pass.report.findings.extend(found);
            } else {
                // Now that more is known about packs, all that is said about chunks is said anew.
                walk.forget();
                walked = walk.find_all(snapshots)?;
            }
        }
        if !walk.bad.is_empty() || !walk.lies.is_empty() {
            for named in &snapshots[..walked] {
                walk.find_paths(named)?;
            }
        }
        walk.report();
        Ok(())
    }
}

impl Walk<'_, '_> {
    /// Walks all snapshots, or those that there is time for; how many.
    fn find_all(&mut self, snapshots: &[Named]) -> Result<usize> {
        let mut walked = 0;
        for named in snapshots {
            if !self.find_bad(named)? {
                break;
            }
            walked += 1;
        }
        self.pass.report.snapshots_left = (snapshots.len() - walked) as u64;
        self.pass.report.snapshots = walked as u64;
        Ok(walked)
    }

    fn forget(&mut self) {
        (self.seen, self.bad, self.lies, self.losses) = Default::default();
        (self.unindexed, self.nowhere, self.page_findings) = (None, None, 0);
        self.holding.clear();
        (self.pass.report.tree_pages, self.pass.report.chunks) = (0, 0);
    }

    /// The first walk: every page once. Returns whether there was time for all of it.
    fn find_bad(&mut self, named: &Named) -> Result<bool> {
        let mut stack: Vec<Frame> = Vec::new();
        let mut next = Some(root(named));
        loop {
            if self.pass.is_over() {
                return Ok(false);
            }
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
            let Some(top) = stack.last_mut() else { return Ok(true) };
            next = top.below.next();
            if next.is_none() {
                let done = stack.pop().expect("the stack has a top");
                let mark = Mark { edges: done.edges.unwrap_or_default(), is_tainted: done.is_tainted };
                self.seen.put(done.key, mark);
                if let Claim::ListChild { .. } = done.page.claim {
                    self.join(&mut stack, done.edges);
                }
                if let Some(above) = stack.last_mut() {
                    above.is_tainted |= done.is_tainted;
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
        if let Some(mark) = self.seen.get(&key) {
            let is_bad = mark.is_tainted || self.bad.contains_key(&reference.id);
            let below_another = matches!(reference.claim, Claim::ListChild { .. });
            return Ok(if is_bad { Visit::Tainted } else { Visit::Clean(below_another.then_some(mark.edges)) });
        }
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
        if self.bad.contains_key(&reference.id) || self.is_lie(reference).is_some() {
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
            Claim::Content(stated) if self.pass.options.is_whole() => {
                (self.length(reference, &found).and_then(|length| check_length(length, stated)), stated)
            }
            _ => return Ok(true),
        };
        let Err(error) = checked else { return Ok(true) };
        // It is named among the packs that were not looked into.
        if error.kind() == ErrorKind::WrongKey {
            return Ok(true);
        }
        if error.kind() == ErrorKind::NotFound {
            // A prune has taken its pack since packs were listed; if it was no prune, the next look finds the pack missing.
            self.pass.vanished = true;
        } else if error.kind() != ErrorKind::Damaged {
            return Err(error);
        }
        let object = format!("{} chunk {}", reference.kind().word(), reference.id);
        self.pass.add(Severity::Lost, object, error.chain());
        self.lies.insert((reference.id, stated), self.pass.report.findings.len() - 1);
        Ok(false)
    }

    /// The finding that says that the chunk is not as long as stated here.
    fn is_lie(&self, reference: &Reference) -> Option<usize> {
        match reference.claim {
            Claim::Content(len) | Claim::Attributes(len) => self.lies.get(&(reference.id, len)).copied(),
            _ => None,
        }
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

    /// The first good copy of a chunk; else what is wrong with the first one. That the index does not name a chunk proves nothing:
    /// then the packs themselves are asked, once.
    fn locate(&mut self, reference: &Reference) -> Result<Found> {
        let mut found = self.look_up(reference)?;
        if matches!(found, None | Some(Found::Bad(_))) && !std::mem::replace(&mut self.compared, true) {
            self.pass.find_unnamed(&mut self.looked)?;
            found = self.look_up(reference)?;
        }
        Ok(found.unwrap_or_else(|| Found::Bad(self.nowhere())))
    }

    /// The same, as far as is known; `None` if nothing is known of the chunk.
    fn look_up(&mut self, reference: &Reference) -> Result<Option<Found>> {
        let index = self.index.clone();
        let mut places = Vec::new();
        index.find(&reference.id, &mut |place| {
            places.push(place);
            true
        })?;
        let mut wrong: Option<usize> = None;
        let mut good = None;
        let (mut is_in_whole_pack, mut holding) = (false, None);
        for place in places {
            let pack = index.pack(place)?;
            if pack.is_tree != reference.kind().is_tree() {
                continue;
            }
            match self.looked.packs.problem(&pack.name, place.block) {
                Some(finding) => {
                    wrong.get_or_insert(finding);
                }
                None => {
                    if let Some(needed) = &mut self.needed {
                        needed.insert(pack.name);
                    }
                    good = good.or(Some(Found::Indexed(place)));
                    match self.looked.packs.problems.get(&pack.name) {
                        Some(problem) => holding = Some(problem.finding),
                        None => is_in_whole_pack = true,
                    }
                }
            }
        }
        self.holding.extend(holding.filter(|_| !is_in_whole_pack));
        let mut orphaned = None;
        for (number, block) in self.looked.packs.orphaned(&reference.id) {
            let name = self.looked.packs.orphans[number as usize].name;
            match self.looked.packs.problem(&name, block) {
                Some(finding) => {
                    wrong.get_or_insert(finding);
                }
                None => orphaned = orphaned.or(Some(Found::Orphan(number, block))),
            }
        }
        if let (Some(finding), true) = (wrong, good.is_some() || orphaned.is_some()) {
            self.losses.entry(finding).or_default().elsewhere = true;
        }
        Ok(match (good, orphaned, wrong) {
            (Some(good), _, _) => Some(good),
            (None, Some(orphaned), _) => {
                self.note_unindexed();
                Some(orphaned)
            }
            (None, None, wrong) => wrong.map(Found::Bad),
        })
    }

    fn note_unindexed(&mut self) {
        if self.unindexed.is_none() {
            let message = "Chunks that snapshots need are in stored packs, and no index segment says so";
            self.pass.add(Severity::Repairable, "index", message).hint(REPAIR);
            self.unindexed = Some(self.pass.report.findings.len() - 1);
        }
    }

    fn nowhere(&mut self) -> usize {
        *self.nowhere.get_or_insert_with(|| {
            let packs = &self.looked.packs;
            let mut message = String::from("Chunks that snapshots need are in no index segment");
            if packs.unread_orphans > 0 {
                message.push_str(&format!(
                    "; they may be in {} stored packs that no segment names and that were not looked into",
                    packs.unread_orphans
                ));
                self.pass.add(Severity::Repairable, "index", message).hint("Run \"firn repair index\" with the newest key, then check again.");
                return self.pass.report.findings.len() - 1;
            }
            message.push_str(" and in no stored pack");
            if packs.unreadable_orphans > 0 {
                message.push_str(&format!(" that can be read ({} stored packs cannot)", packs.unreadable_orphans));
            }
            self.pass.add(Severity::Lost, "index", message)
                .hint("If packs or index segments were moved away, put them back. Run a backup: it stores again what it finds on the disk.");
            self.pass.report.findings.len() - 1
        })
    }

    fn lose(&mut self, id: ChunkId, finding: usize) {
        let is_new = match self.bad.len() < MAX_BAD {
            true => self.bad.insert(id, finding).is_none(),
            false => !self.bad.contains_key(&id),
        };
        if is_new {
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
                let info = &self.looked.packs.orphans[*number as usize];
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
                let lie = self.is_lie(&reference);
                let mut finding = self.bad.get(&reference.id).copied().or(lie);
                if finding.is_none() && self.bad.len() >= MAX_BAD {
                    finding = match self.locate(&reference)? {
                        Found::Bad(finding) => Some(finding),
                        _ => None,
                    };
                }
                if let Some(finding) = finding {
                    self.affect(finding, named.name, &path);
                }
                let key = if reference.is_page() { reference.key() } else { [0; 16] };
                // What is no longer remembered may lead to something bad.
                let leads_on = reference.is_page()
                    && self.seen.get(&key).map_or(finding.is_none(), |mark| mark.is_tainted)
                    && self.steps < MAX_STEPS;
                if leads_on {
                    self.steps += 1;
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

    /// Says how bad each pack's damage has turned out to be, and which command helps.
    fn report(self) {
        let (report, options) = (&mut self.pass.report, self.pass.options);
        // A prune refuses to work where anything is lost.
        let is_lost = self.losses.values().any(|loss| loss.count > 0) || report.worst() == Some(Severity::Lost);
        let is_whole = options.snapshots.is_none() && report.snapshots_left == 0 && !is_lost;
        for (number, finding) in report.findings.iter_mut().enumerate() {
            if is_whole && finding.hint.as_deref() == Some(DAMAGED) {
                finding.hint(if self.holding.contains(&number) { HOLDS } else { UNNEEDED });
            }
        }
        for (number, loss) in self.losses {
            let finding = &mut self.pass.report.findings[number];
            // Only with unread packs is it unknown whether anything is lost.
            let is_open = Some(number) == self.nowhere && self.looked.packs.unread_orphans > 0;
            if loss.count > 0 && !is_open {
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
                if finding.hint.as_deref() == Some(REPAIR) {
                    finding.hint = Some(MISSING.into());
                }
                finding.hint.get_or_insert_with(|| "If there is a copy of this object, put it back.".into());
            } else if loss.elsewhere {
                // Nothing is wrong with an index that names what a prune has deleted: when several are at work on it, one may carry over
                // what another is just taking out.
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
