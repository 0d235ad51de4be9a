//! Which packs are stored, and which of their blocks can be read. Not for: whether anything needs them (see `walk`), or how one
//! pack is read (see `reading`).

use super::objects::{Home, Indexed, Known, REPAIR};
use super::reading::{Verdict, read_twice};
use super::scrub::Turn;
use super::{Pass, Severity, Subset};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, ObjectName};
use crate::repository::damage::is_loss;
use crate::repository::index::{Index, StoredPacks};
use crate::repository::ledger::{Ledger, is_recent};
use crate::repository::pack::{Salvaged, pack_folder, salvage};
use crate::repository::read::pack_kind;
use crate::repository::segments::{rows, sum};
use crate::repository::table::{PackInfo, prefix};
use crate::store::ObjectKey;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Packs with a finding of their own.
const MAX_PACK_FINDINGS: usize = 10_000;
/// Chunks that are kept of packs that no segment names, 24 bytes each.
#[cfg(not(test))]
const MAX_ORPHANED: usize = 2_000_000;
#[cfg(test)]
const MAX_ORPHANED: usize = 4;

/// Packs whose contents are compared with the index at the same time.
const COMPARED_AT_ONCE: usize = 64;

/// What reading whole packs has shown. A pack's name never comes to mean other bytes, so verdicts outlive a second look.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Packs that are as they should be.
    whole: HashSet<ObjectName>,
    /// All others that were read.
    others: HashMap<ObjectName, Verdict>,
}

impl Verdicts {
    fn has(&self, name: &ObjectName) -> bool {
        self.whole.contains(name) || self.others.contains_key(name)
    }
}

/// A pack that cannot be relied on as a whole.
#[derive(Debug)]
pub(super) struct Problem {
    /// Number of the finding about it.
    pub finding: usize,
    missing: bool,
    bad: HashSet<u32>,
}

/// The packs as of one look.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Packs with something wrong.
    pub problems: HashMap<ObjectName, Problem>,
    /// Stored packs that no index segment names, by number.
    pub orphans: Vec<Arc<PackInfo>>,
    /// Where their chunks are: the beginning of the id, number and block; ascending.
    orphaned: Vec<([u8; 16], u32, u32)>,
    /// Stored packs that no index segment names and that cannot be read.
    pub unreadable_orphans: u64,
    /// Stored packs that no index segment names and that were not looked into, because there are too many or the key is another.
    pub unread_orphans: u64,
    findings: usize,
    /// The finding that stands for all packs that have none of their own.
    shared: usize,
}

/// What a look at the packs has shown, and what is needed for reading more of them.
#[derive(Debug)]
pub(super) struct Looked {
    /// The index that all places are of.
    pub index: Arc<Index>,
    pub packs: Packs,
    indexed: Indexed,
    stored: StoredPacks,
}

/// What to do about a damaged pack.
pub(super) const DAMAGED: &str = "If there is a copy of this object, put it back. Run a backup: it stores again what it finds on the disk. \
    Then \"firn repair packs\" saves the rest.";

/// What to do about a pack that no key slot opens.
const LOCKED: &str = "If there is a copy of the key slots that were made with that epoch, put it back into the folder \"keys\" of the repository.";

impl Packs {
    /// The finding that says why this block cannot be read; `None` if it can.
    pub(super) fn problem(&self, pack: &ObjectName, block: u32) -> Option<usize> {
        let problem = self.problems.get(pack)?;
        (problem.missing || problem.bad.contains(&block)).then_some(problem.finding)
    }

    /// The copies of a chunk in packs that no segment names: number of the pack, and block.
    pub(super) fn orphaned(&self, id: &ChunkId) -> Vec<(u32, u32)> {
        let wanted = prefix(id);
        let from = self.orphaned.partition_point(|(prefix, _, _)| *prefix < wanted);
        let copies = self.orphaned[from..].iter().take_while(|(prefix, _, _)| *prefix == wanted);
        copies.map(|(_, number, block)| (*number, *block)).collect()
    }
}

impl Looked {
    fn info(&self, known: &Known) -> Result<Arc<PackInfo>> {
        match known.home {
            Home::Table(place) => self.index.pack(place),
            Home::Orphan(number) => Ok(self.packs.orphans[number as usize].clone()),
            Home::Unknown => Err(Error::new(ErrorKind::Failed, "A pack without a record; this is a defect of firn")),
        }
    }
}

/// A pack to be read, and its stored size.
struct Job {
    info: Arc<PackInfo>,
    /// What each record of it says it holds.
    sums: Vec<u64>,
    size: u64,
}

impl Pass<'_> {
    /// Finds out which packs are missing, and reads tree packs and those that cannot be whole. Data packs come later.
    pub(super) fn check_packs(
        &mut self,
        mut indexed: Indexed,
        index: Arc<Index>,
        verdicts: &mut Verdicts,
    ) -> Result<Looked> {
        // What was not listed is asked for by its name before it is called missing.
        let stored = match self.is_again {
            false => StoredPacks::list(self.repository.store())?,
            true => StoredPacks::list_latest(self.repository)?,
        };
        self.report.packs = stored.len() as u64;
        let mut packs = Packs::default();
        self.find_orphans(&stored, &mut indexed, &mut packs)?;
        let damaged = self.repository.damaged_packs()?;
        let mut to_read = Vec::new();
        let mut names = Vec::new();
        for known in indexed.each() {
            let Known { name, is_tree, size: stated, .. } = known[0];
            // A listing may miss an object; only a second, direct question makes it missing.
            let key = key_of(is_tree, name);
            let size = match stored.size(is_tree, &name) {
                Some(size) => Some(size),
                None => self.size(&key)?,
            };
            let Some(size) = size else {
                let finding = self.missing_pack(&mut packs, &key, stated);
                packs.problems.insert(name, Problem { finding, missing: true, bad: HashSet::new() });
                continue;
            };
            if is_tree || size != stated || known.len() > 1 || damaged.contains(&name) {
                names.push(name);
                if !verdicts.has(&name) {
                    to_read.push((name, size));
                }
            }
        }
        let mut looked = Looked { index, packs, indexed, stored };
        self.progress.stage("reading tree packs");
        self.read_packs(&looked, &to_read, verdicts, None)?;
        self.judge_all(&names, &mut looked, verdicts)?;
        self.forget_mended(&damaged, verdicts);
        self.find_locked(&mut looked)?;
        Ok(looked)
    }

    /// Reads data packs: those that are wanted, as many as there is time for. `needed`: no others than these.
    pub(super) fn check_data(
        &mut self,
        looked: &mut Looked,
        needed: Option<&HashSet<ObjectName>>,
        verdicts: &mut Verdicts,
    ) -> Result<()> {
        let ledger = self.repository.cache().verified().and_then(|folder| Ledger::open(&folder));
        if let Some(ledger) = &ledger {
            ledger.retain(|name| looked.stored.size(false, name).is_some());
        } else if self.options.max_age.is_some() {
            self.progress.note("Nothing is known of earlier checks, so no pack is left out");
        }
        let turn = Turn::new()?;
        let mut wanted = Vec::new();
        let mut all = 0;
        for known in looked.indexed.each() {
            let name = known[0].name;
            let Some(size) = looked.stored.size(false, &name).filter(|_| !known[0].is_tree) else { continue };
            if needed.is_some_and(|needed| !needed.contains(&name)) {
                continue;
            }
            all += size;
            let last =
                ledger.as_ref().and_then(|ledger| ledger.verified(&name, (size, looked.stored.mark(false, &name))));
            if is_recent(last, self.options.max_age) {
                self.report.packs_recent += 1;
            } else if !verdicts.has(&name) {
                wanted.push((turn.of(&name, last), name, size));
            }
        }
        wanted.sort_unstable();
        let chosen = choose(wanted, all, self.options.subset);
        self.progress.stage("reading packs");
        let outcome = self.read_packs(looked, &chosen, verdicts, ledger.as_ref());
        if let Some(ledger) = ledger {
            ledger.close();
        }
        outcome?;
        let mut names: Vec<ObjectName> = chosen.into_iter().map(|(name, _)| name).collect();
        // What an earlier look has read.
        names.extend(verdicts.others.keys().filter(|name| {
            looked.indexed.get(name).first().is_some_and(|known| !known.is_tree)
                && !looked.packs.problems.contains_key(name)
        }));
        names.sort();
        names.dedup();
        self.judge_all(&names, looked, verdicts)
    }

    /// Counts the packs that are sealed under key epochs which the key in use does not hold. If no other key states that it holds an epoch,
    /// nobody can read what is in its packs.
    fn find_locked(&mut self, looked: &mut Looked) -> Result<()> {
        let (keyring, mut locked) = (self.repository.keyring(), BTreeMap::new());
        let Looked { index, stored, packs, .. } = looked;
        index.for_each_pack(&mut |pack| {
            let is_whole = !pack.is_tree && stored.size(false, &pack.name) == Some(pack.size);
            if is_whole && !keyring.has_epoch(pack.epoch) && !packs.problems.contains_key(&pack.name) {
                locked.insert(pack.name, pack.epoch);
            }
            Ok(())
        })?;
        self.report.packs_locked = locked.len() as u64;
        for (name, epoch) in locked.into_iter().filter(|(_, epoch)| !keyring.is_elsewhere(*epoch)) {
            let message =
                format!("The pack is sealed under key epoch {epoch}, and no key slot holds a secret of that epoch");
            let finding = self.add_pack(packs, Severity::Note, &key_of(false, name), message, LOCKED);
            packs.problems.insert(name, Problem { finding, missing: true, bad: HashSet::new() });
        }
        Ok(())
    }

    fn judge_all(&mut self, names: &[ObjectName], looked: &mut Looked, verdicts: &mut Verdicts) -> Result<()> {
        for name in names {
            if let Some(verdict) = verdicts.others.get(name) {
                let known = &looked.indexed.get(name)[0];
                let blocks = looked.info(known)?.frames.len();
                let (key, size) = (key_of(known.is_tree, *name), known.size);
                self.judge(*name, &key, (size, blocks), verdict, &mut looked.packs);
            }
        }
        // What was gone may be stored again under the same name only by hand; it is asked again next time.
        verdicts.others.retain(|_, verdict| !verdict.gone);
        Ok(())
    }

    /// A pack that was put back from a copy is damaged no longer.
    fn forget_mended(&self, damaged: &HashSet<ObjectName>, verdicts: &Verdicts) {
        for name in damaged.intersection(&verdicts.whole) {
            if let Err(error) = self.repository.forget_damaged(name) {
                self.progress.note(&format!("A pack is noted as damaged though it is not: {}", error.chain()));
            }
        }
    }

    fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        match self.repository.store().size(key) {
            Ok(size) => Ok(Some(size)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a finding about a pack; beyond `MAX_PACK_FINDINGS`, one stands for all further packs.
    fn add_pack(
        &mut self,
        packs: &mut Packs,
        severity: Severity,
        key: &ObjectKey,
        message: String,
        hint: &str,
    ) -> usize {
        packs.findings += 1;
        if packs.findings <= MAX_PACK_FINDINGS {
            self.add(severity, key, message).hint(hint);
        } else if packs.findings == MAX_PACK_FINDINGS + 1 {
            self.add(severity, "packs", "More packs are missing or damaged than are listed here").hint(hint);
            packs.shared = self.report.findings.len() - 1;
        }
        if packs.findings <= MAX_PACK_FINDINGS { self.report.findings.len() - 1 } else { packs.shared }
    }

    fn missing_pack(&mut self, packs: &mut Packs, key: &ObjectKey, size: u64) -> usize {
        let message = format!("The index names a pack of {size} bytes that is not stored");
        self.add_pack(packs, Severity::Note, key, message, REPAIR)
    }

    /// Reads the contents of stored packs that no segment names, so that what only they hold is not called lost.
    fn find_orphans(&mut self, stored: &StoredPacks, indexed: &mut Indexed, packs: &mut Packs) -> Result<()> {
        let is_known =
            |is_tree: bool, name: &ObjectName| indexed.get(name).first().is_some_and(|known| known.is_tree == is_tree);
        let mut orphans: Vec<(bool, ObjectName)> = stored
            .iter()
            .filter(|(is_tree, name, _)| !is_known(*is_tree, name))
            .map(|(is_tree, name, _)| (is_tree, name))
            .collect();
        // Tree packs first: without them nothing below them can be looked at.
        orphans.sort_by_key(|(is_tree, name)| (!is_tree, *name));
        let mut found = Vec::new();
        for (is_tree, name) in orphans {
            self.stop.check()?;
            if packs.orphaned.len() >= MAX_ORPHANED {
                packs.unread_orphans += 1;
                continue;
            }
            let key = key_of(is_tree, name);
            match salvage(self.repository.keyring(), self.repository.store(), pack_kind(is_tree), name) {
                Ok(salvaged) => {
                    self.add_pack(packs, Severity::Note, &key, "No index segment names this pack".into(),
                        "It is left over from an interrupted backup, or a backup is writing it; the next backup uses it.");
                    let number = packs.orphans.len() as u32;
                    let rows = rows(&salvaged.contents);
                    packs.orphaned.extend(rows.iter().map(|(id, block)| (prefix(id), number, *block)));
                    let info = info_of(name, is_tree, &salvaged);
                    packs.orphans.push(Arc::new(info.clone()));
                    found.push((info, sum(&rows)));
                }
                Err(error) if error.kind() == ErrorKind::WrongKey => {
                    packs.unread_orphans += 1;
                    self.add_error(Severity::Note, &key, &error, "");
                }
                Err(error) => {
                    packs.unreadable_orphans += u64::from(error.kind() != ErrorKind::NotFound);
                    let error = error.context("No index segment names this pack, and it cannot be read");
                    self.add_error(
                        Severity::Note,
                        &key,
                        &error,
                        "It does no harm; delete it once nothing is found missing.",
                    );
                }
            }
        }
        packs.orphaned.sort_unstable();
        indexed.add_orphans(found);
        Ok(())
    }

    /// Compares the contents of all packs with what the index says of them, and keeps the chunks of those that it does not name
    /// whole, as if no segment named them: whatever was in a lost segment is not lost.
    pub(super) fn find_unnamed(&mut self, looked: &mut Looked) -> Result<()> {
        self.progress.stage("comparing the index with packs");
        let is_stored = |known: &Known| looked.stored.size(known.is_tree, &known.name).is_some();
        let named = looked.indexed.each().filter(|known| !matches!(known[0].home, Home::Orphan(_)));
        let wanted: Vec<_> =
            named.filter(|known| is_stored(&known[0])).map(|known| (known[0].is_tree, known[0].name)).collect();
        for part in wanted.chunks(COMPARED_AT_ONCE) {
            self.stop.check()?;
            let (keyring, store) = (self.repository.keyring(), self.repository.store());
            let read = |(is_tree, name): &(bool, ObjectName)| salvage(keyring, store, pack_kind(*is_tree), *name);
            let contents: Vec<_> = part.par_iter().map(read).collect();
            for ((is_tree, name), salvaged) in part.iter().zip(contents) {
                let packs = &mut looked.packs;
                let salvaged = match salvaged {
                    Ok(salvaged) => salvaged,
                    Err(error) if error.kind() == ErrorKind::WrongKey => {
                        packs.unread_orphans += 1;
                        continue;
                    }
                    Err(error) if is_loss(&error) => {
                        packs.unreadable_orphans += 1;
                        continue;
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.vanished = true;
                        continue;
                    }
                    // What it holds is unknown, so nothing can be called lost.
                    Err(error) => return Err(error),
                };
                let rows = rows(&salvaged.contents);
                let total = sum(&rows);
                if looked.indexed.get(name).iter().any(|known| known.sum == Some(total)) {
                    continue;
                }
                if packs.orphaned.len() >= MAX_ORPHANED {
                    packs.unread_orphans += 1;
                    continue;
                }
                let number = packs.orphans.len() as u32;
                packs.orphaned.extend(rows.iter().map(|(id, block)| (prefix(id), number, *block)));
                packs.orphans.push(Arc::new(info_of(*name, *is_tree, &salvaged)));
            }
        }
        looked.packs.orphaned.sort_unstable();
        Ok(())
    }

    /// Reads whole packs, each once more if anything is wrong with it, until the time is over.
    fn read_packs(
        &mut self,
        looked: &Looked,
        packs: &[(ObjectName, u64)],
        verdicts: &mut Verdicts,
        ledger: Option<&Ledger>,
    ) -> Result<()> {
        self.progress.expect(packs.len() as u64, packs.iter().map(|(_, size)| size).sum());
        let next = AtomicUsize::new(0);
        let results = Mutex::new((Vec::new(), 0u64, 0u64));
        let failure = Mutex::new(None);
        let pass = &*self;
        std::thread::scope(|scope| {
            for _ in 0..pass.options.threads.clamp(1, packs.len().max(1)) {
                scope.spawn(|| {
                    while !pass.is_over() {
                        let Some((name, size)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                        let verdict = pass.job(looked, name, *size).and_then(|job| {
                            read_twice(pass.repository, &job.info, &job.sums, job.size, pass.progress, pass.stop)
                        });
                        let verdict = match verdict {
                            Ok(verdict) => verdict,
                            Err(error) => {
                                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                                next.store(packs.len(), Ordering::Relaxed);
                                break;
                            }
                        };
                        let is_right = verdict.is_whole(looked.indexed.get(name)[0].size);
                        match ledger {
                            Some(ledger) if is_right => ledger.note(name, (*size, looked.stored.mark(false, name))),
                            Some(ledger) => ledger.forget(name),
                            None => {}
                        }
                        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                        results.1 += 1;
                        results.2 += verdict.read;
                        results.0.push((*name, (!is_right).then_some(verdict)));
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let (found, read, bytes) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.report.packs_read += read;
        self.report.bytes_read += bytes;
        self.report.packs_left += packs.len() as u64 - read;
        for (name, verdict) in found {
            match verdict {
                None => drop(verdicts.whole.insert(name)),
                Some(verdict) => drop(verdicts.others.insert(name, verdict)),
            }
        }
        Ok(())
    }

    fn job(&self, looked: &Looked, name: &ObjectName, size: u64) -> Result<Job> {
        let known = looked.indexed.get(name);
        let info = looked.info(&known[0])?;
        Ok(Job { info, sums: known.iter().filter_map(|known| known.sum).collect(), size })
    }

    /// Turns a verdict into a finding; how bad it is shows when the trees are walked.
    fn judge(
        &mut self,
        name: ObjectName,
        key: &ObjectKey,
        (size, count): (u64, usize),
        verdict: &Verdict,
        packs: &mut Packs,
    ) {
        if verdict.gone {
            self.vanished = true;
            let finding = self.missing_pack(packs, key, size);
            packs.problems.insert(name, Problem { finding, missing: true, bad: HashSet::new() });
            return;
        }
        let is_whole = verdict.bad.is_empty() && !verdict.wrong_name && verdict.size == size;
        if is_whole && verdict.flickered {
            self.add(Severity::Note, key, "It was read wrong once and right the second time")
                .hint("Test this machine's memory, and the disk and its cable.");
        }
        if is_whole && verdict.other {
            let message = "The index does not name exactly the chunks that it holds, whole in each segment".into();
            let finding = self.add_pack(packs, Severity::Repairable, key, message, REPAIR);
            packs.problems.insert(name, Problem { finding, missing: false, bad: HashSet::new() });
        }
        if let (true, Some(why)) = (is_whole, &verdict.locked) {
            let message = format!("Its bytes are right, and it was not looked into: {why}");
            self.add_pack(
                packs,
                Severity::Note,
                key,
                message,
                "Check with a key that was made since the keys were rotated.",
            );
        }
        if is_whole {
            return;
        }
        // The next backup, wherever that runs, stores again what its source still has.
        if let Err(error) = self.repository.report_damaged(name) {
            let why = error.chain();
            self.progress
                .note(&format!("The damage could not be noted in the repository, so only this machine knows: {why}"));
        }
        let mut message = String::from("The pack is damaged");
        if verdict.size != size {
            message = format!("The pack has {} bytes and should have {size}", verdict.size);
        }
        match verdict.bad.values().next() {
            None => message.push_str("; all its blocks can be read"),
            Some(why) => {
                let bad = blocks(verdict.bad.keys());
                message.push_str(&format!("; of its {count} blocks, {bad} cannot be read ({why})"));
            }
        }
        // What it holds instead may be the content of another pack.
        let hint = match verdict.bad.is_empty() && verdict.other {
            true => "Run \"firn repair index --read-all-packs\": it finds out what is in it.",
            false => DAMAGED,
        };
        let finding = self.add_pack(packs, Severity::Repairable, key, message, hint);
        let bad = verdict.bad.keys().copied().collect();
        packs.problems.insert(name, Problem { finding, missing: false, bad });
    }
}

/// Which of the wanted packs are read; `all` is the size of all that could be. The first in line come first.
fn choose(wanted: Vec<((u64, u64), ObjectName, u64)>, all: u64, subset: Option<Subset>) -> Vec<(ObjectName, u64)> {
    let wanted = wanted.into_iter().map(|(_, name, size)| (name, size));
    let mut room = match subset {
        None => return wanted.collect(),
        Some(Subset::Part { part, of }) => {
            return wanted.filter(|(name, _)| part_of(name, of) == part).collect();
        }
        Some(Subset::Share(share)) => (all as f64 * share) as u64,
        Some(Subset::Bytes(bytes)) => bytes,
    };
    let mut chosen = Vec::new();
    for (name, size) in wanted {
        if room == 0 {
            break;
        }
        room = room.saturating_sub(size);
        chosen.push((name, size));
    }
    chosen
}

/// The part, from 1 to `of`, that a pack belongs to; by its name alone, so that all machines agree.
fn part_of(name: &ObjectName, of: u64) -> u64 {
    u64::from_be_bytes(*name.0.first_chunk().expect("a name has 32 bytes")) % of + 1
}

fn key_of(is_tree: bool, name: ObjectName) -> ObjectKey {
    ObjectKey::new(pack_folder(pack_kind(is_tree)), name)
}

fn info_of(name: ObjectName, is_tree: bool, salvaged: &Salvaged) -> PackInfo {
    let frames = salvaged.contents.blocks.iter().map(|block| block.frame_len).collect();
    PackInfo { name, is_tree, epoch: salvaged.epoch, size: salvaged.size, frames }
}

/// "block 3", "blocks 3, 4, 9", "blocks 1, 2, … (40 in all)".
fn blocks<'b>(numbers: impl ExactSizeIterator<Item = &'b u32>) -> String {
    let count = numbers.len();
    let list: Vec<String> = numbers.take(10).map(u32::to_string).collect();
    match count {
        1 => format!("block {}", list[0]),
        2..=10 => format!("blocks {}", list.join(", ")),
        _ => format!("blocks {}, … ({count} in all)", list.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_packs_once_and_shares_are_taken_from_the_front() {
        let wanted: Vec<_> = (0..100u8).map(|n| ((0, u64::from(n)), ObjectName([n; 32]), 10)).collect();
        let mut seen: Vec<ObjectName> = Vec::new();
        for part in 1..=7 {
            let chosen = choose(wanted.clone(), 1000, Some(Subset::Part { part, of: 7 }));
            seen.extend(chosen.iter().map(|(name, _)| *name));
        }
        seen.sort();
        assert_eq!(seen, wanted.iter().map(|(_, name, _)| *name).collect::<Vec<_>>());
        assert_eq!(choose(wanted.clone(), 1000, Some(Subset::Share(0.05))).len(), 5);
        assert_eq!(choose(wanted.clone(), 1000, Some(Subset::Bytes(11))).len(), 2);
        assert_eq!(choose(wanted.clone(), 1000, None).len(), 100);
        assert_eq!(choose(wanted, 1000, Some(Subset::Share(1.0))).len(), 100);
    }
}
