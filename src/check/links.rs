//! Entries that are recorded as names of one file and disagree on what it is. Each is restored as what it says itself, so nothing
//! is damaged; but somebody may wonder. Not for: anything that is missing.
//!
//! The pages that lead to linked entries are read once each, to find the groups that are recorded in several ways anywhere. Mostly
//! there is none. Only such groups are then compared within each snapshot, through the pages that lead to one of them.
//!
//! Memory: `MAX_GROUPS` groups and `MAX_PAGES` pages, 24 bytes each in tables that may be half full, and a page for each directory
//! on the way down.

use super::{Affected, MAX_AFFECTED, Pass, Severity};
use crate::error::Result;
use crate::format::page::Page;
use crate::format::tree::{Body, Entry, LinkKey};
use crate::id::ChunkId;
use crate::repository::snapshots::Named;
use std::collections::{HashMap, HashSet};

/// Groups that are compared.
const MAX_GROUPS: usize = 1 << 20;
/// Pages that are remembered.
const MAX_PAGES: usize = 1 << 20;

/// A page that the walk is in.
struct Frame {
    id: ChunkId,
    below: std::vec::IntoIter<Step>,
    path_len: usize,
    has_suspects: bool,
}

/// Something on a page.
enum Step {
    /// A page that is part of the same directory, or the top page of one with this name.
    Page(ChunkId, Option<Vec<u8>>),
    /// A name of a file that has several.
    Name(u64, LinkKey, Vec<u8>),
}

impl Pass<'_> {
    pub(super) fn check_links(&mut self, snapshots: &[Named]) -> Result<()> {
        let (suspects, is_complete) = self.find_suspects(snapshots)?;
        if !is_complete {
            let message = "There are more hard links than can be compared; some groups were not";
            self.add(Severity::Note, "hard links", message);
        }
        if suspects.is_empty() {
            return Ok(());
        }
        let (mut affected, mut total, mut clean) = (Vec::new(), 0, HashSet::new());
        for named in snapshots {
            if self.is_over() {
                break;
            }
            self.compare_links(named, &suspects, &mut clean, &mut |path| {
                total += 1;
                if affected.len() < MAX_AFFECTED {
                    affected.push(Affected { snapshot: named.name, path });
                }
            })?;
        }
        if total > 0 {
            let message = "Names are recorded as further names of files that are recorded otherwise: the files were changed or replaced \
                during the backup. Each name is restored as a file of its own";
            let finding = self.add(Severity::Note, "hard links", message);
            (finding.affected, finding.affected_total) = (affected, total);
        }
        Ok(())
    }

    /// What a page has that leads to linked entries. One that cannot be read has been told about.
    fn linked(&self, id: &ChunkId) -> Vec<Step> {
        let step = |entry: Entry| match (&entry.body, entry.link_key(), entry.meta.link) {
            (Body::Directory { page, totals, .. }, ..) if totals.linked > 0 => {
                Some(Step::Page(*page, Some(entry.name)))
            }
            (_, Some(key), Some(link)) => Some(Step::Name(link.group, key, entry.name)),
            _ => None,
        };
        match self.repository.page(id) {
            Ok(Page::Leaf(entries)) => entries.into_iter().filter_map(step).collect(),
            Ok(Page::Interior { children, .. }) => {
                let linked = children.into_iter().filter(|child| child.totals.linked > 0);
                linked.map(|child| Step::Page(child.page, None)).collect()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Groups that are recorded in several ways in all snapshots together, and whether all were looked at.
    fn find_suspects(&self, snapshots: &[Named]) -> Result<(HashSet<u64>, bool)> {
        let (mut first, mut suspects, mut met) = (HashMap::new(), HashSet::new(), HashSet::new());
        let mut is_complete = true;
        for named in snapshots.iter().filter(|named| named.snapshot.totals.linked > 0) {
            let mut open = vec![named.snapshot.tree];
            while let Some(id) = open.pop() {
                self.stop.check()?;
                if self.is_over() {
                    return Ok((suspects, true));
                }
                if met.len() >= MAX_PAGES || first.len() >= MAX_GROUPS {
                    return Ok((suspects, false));
                }
                if !met.insert(short(&id)) {
                    continue;
                }
                for step in self.linked(&id) {
                    match step {
                        Step::Page(id, _) => open.push(id),
                        Step::Name(group, key, _) => {
                            let key = u64::from_le_bytes(*key.0.first_chunk().expect("a key has 16 bytes"));
                            if *first.entry(group).or_insert(key) != key {
                                suspects.insert(group);
                            }
                        }
                    }
                }
            }
            is_complete &= met.len() < MAX_PAGES;
        }
        Ok((suspects, is_complete))
    }

    /// Calls `each` with the path of every name that disagrees with the first one of its group.
    fn compare_links(
        &self,
        named: &Named,
        suspects: &HashSet<u64>,
        clean: &mut HashSet<u64>,
        each: &mut dyn FnMut(Vec<u8>),
    ) -> Result<()> {
        let mut first: HashMap<u64, LinkKey> = HashMap::new();
        let mut path: Vec<u8> = Vec::new();
        let enter =
            |id: ChunkId, path_len| Frame { id, below: self.linked(&id).into_iter(), path_len, has_suspects: false };
        let mut stack = vec![enter(named.snapshot.tree, 0)];
        while let Some(top) = stack.last_mut() {
            self.stop.check()?;
            match top.below.next() {
                Some(Step::Page(id, _)) if clean.contains(&short(&id)) => {}
                Some(Step::Page(id, name)) => {
                    let path_len = path.len();
                    // The root's own entry names "/".
                    if let Some(name) = name.filter(|_| stack.len() > 1) {
                        path.push(b'/');
                        path.extend_from_slice(&name);
                    }
                    stack.push(enter(id, path_len));
                }
                Some(Step::Name(group, key, name)) if suspects.contains(&group) => {
                    top.has_suspects = true;
                    if *first.entry(group).or_insert(key) != key {
                        each([&path, &b"/"[..], &name].concat());
                    }
                }
                Some(Step::Name(..)) => {}
                None => {
                    let Some(done) = stack.pop() else { break };
                    path.truncate(done.path_len);
                    if let Some(above) = stack.last_mut() {
                        above.has_suspects |= done.has_suspects;
                    }
                    if !done.has_suspects && clean.len() < MAX_PAGES {
                        clean.insert(short(&done.id));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Enough of an id, which is a keyed hash, to tell pages apart.
fn short(id: &ChunkId) -> u64 {
    u64::from_le_bytes(*id.0.first_chunk().expect("an id has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::super::{CheckOptions, run};
    use super::*;
    use crate::progress::{Silent, Stop};
    use crate::view::sample::{Sample, Thing, dir};

    #[test]
    fn groups_that_disagree_are_named() {
        let linked = |group: u64, text: &str| Thing::Linked(group, 2, text.as_bytes().to_vec());
        let tree = |old: &str, new: &str| {
            let many =
                (0..3000).map(|n| (format!("entry {n:05}"), if n == 2900 { linked(9, new) } else { Thing::Fifo }));
            dir([
                ("a", dir([("one", linked(7, old)), ("same", linked(8, "same"))])),
                ("b", dir([("deep", dir([("two", linked(7, new)), ("same", linked(8, "same"))]))])),
                ("c", linked(9, old)),
                ("d", dir(many)),
            ])
        };
        let sample = Sample::new();
        let check = || run(&sample.repository, &CheckOptions::default(), &Silent, &Stop::new()).unwrap();
        // Another content in another snapshot is what a change between two backups looks like.
        sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree("old", "old"));
        sample.snapshot("2026-01-02T00:00:00Z", "h", &[], &tree("new", "new"));
        assert_eq!(check().findings, []);
        let named = sample.snapshot("2026-01-03T00:00:00Z", "h", &[], &tree("old", "new"));
        let report = check();
        let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
        let hit = |path: &[u8]| Affected { snapshot: named.name, path: path.to_vec() };
        assert_eq!((finding.severity, finding.affected_total), (Severity::Note, 2));
        assert_eq!(finding.affected, [hit(b"/b/deep/two"), hit(b"/d/entry 02900")]);
    }
}
