//! Before one of several copies of a chunk goes, the one that stays is read from the store and verified. Not for: which copies go (see
//! `live` and `plan`), or looking for other damage (see `check`).
//!
//! Which copy is good is never taken from what this machine happens to know. A pack whose copy turns out bad is reported to everybody
//! and counts as damaged from then on, so that the next look keeps another copy. Only chunks with several copies cost a reading, each
//! block once a prune. Memory: a byte a block, 40 bytes for each block read, and a block a thread.

use super::Prune;
use super::live::{Beside, Live};
use super::plan::{Plan, Victims};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ChunkId, ObjectName};
use crate::repository::damage::{FreshPack, is_loss};
use crate::repository::mistake::{self, Mistake};
use crate::repository::pack::salvage;
use crate::repository::read::{pack_key, pack_kind};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Packs that are about to go and that no index names.
type Orphans<'o> = &'o [(bool, ObjectName)];

impl Prune<'_> {
    /// Tells everybody of damage that was noted on this machine. On a full store that has to wait.
    pub(super) fn publish_damage(&self) -> Result<()> {
        match self.repository.publish_damage(self.stop) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                self.progress.note(&format!("Known damage could not be noted in the repository: {}", error.chain()));
                Ok(())
            }
            published => published,
        }
    }

    /// Reads the copies that stay where the plan lets others go. Returns whether all of them are good; if not, another plan is needed.
    pub(super) fn confirms_plan(&mut self, live: &Live, plan: &mut Plan) -> Result<bool> {
        let going: HashSet<usize> = plan.dead.iter().chain(&plan.rewrite).copied().collect();
        let orphans: Vec<_> = plan.orphans.iter().map(|(is_tree, name, _)| (*is_tree, *name)).collect();
        let Some(needed) = self.confirms(live, &|number| going.contains(&number), &orphans)? else { return Ok(false) };
        plan.orphans.retain(|(_, name, _)| !needed.contains(name));
        Ok(true)
    }

    /// The same for packs that are condemned already. Those that are needed after all leave `victims` once all copies are good.
    pub(super) fn confirms_victims(&mut self, live: &Live, victims: &mut Victims) -> Result<bool> {
        let is_going = |number: usize| live.packs[number].needed == 0 && victims.contains_key(&live.packs[number].name);
        let indexed: HashSet<ObjectName> = live.packs.iter().map(|pack| pack.name).collect();
        let orphans = victims.iter().filter(|(name, _)| !indexed.contains(*name));
        let orphans: Vec<_> = orphans.map(|(name, victim)| (victim.is_tree, *name)).collect();
        let Some(mut spared) = self.confirms(live, &is_going, &orphans)? else { return Ok(false) };
        spared.extend(live.packs.iter().filter(|pack| pack.needed > 0).map(|pack| pack.name));
        for name in spared {
            if let Some(victim) = victims.remove(&name) {
                self.report.spared.add(victim.size);
            }
        }
        Ok(true)
    }

    /// The orphans that must stay; `None` if a copy that was to stay is bad.
    fn confirms(
        &mut self,
        live: &Live,
        is_going: &dyn Fn(usize) -> bool,
        orphans: Orphans<'_>,
    ) -> Result<Option<HashSet<ObjectName>>> {
        let mut beside = live.beside(is_going)?;
        let needed = self.needed_orphans(live, is_going, orphans, &mut beside)?;
        if mistake::made(Mistake::UnreadCopy) {
            return Ok(Some(needed));
        }
        let bad = self.read(live, &beside)?;
        for (name, error) in &bad {
            self.progress.note(&format!("A copy that was to be kept is damaged: {}", error.chain()));
            self.bad.insert(*name);
            if !self.options.dry_run
                && is_loss(error)
                && let Err(error) = self.repository.report_damaged(*name)
            {
                self.progress.note(&format!("That could not be noted in the repository: {}", error.chain()));
            }
        }
        Ok(bad.is_empty().then_some(needed))
    }

    /// Orphans that hold what may be missed: what has no good copy in any pack that the index names. What they hold of chunks that have
    /// one is added to `beside`.
    fn needed_orphans(
        &self,
        live: &Live,
        is_going: &dyn Fn(usize) -> bool,
        orphans: Orphans<'_>,
        beside: &mut Beside,
    ) -> Result<HashSet<ObjectName>> {
        // What a forgotten snapshot lacks may be in any of them.
        if !live.holes.is_empty() && !orphans.is_empty() {
            self.progress.note("What no index names stays, since a forgotten snapshot lacks something; \"firn repair index\" looks into it");
            return Ok(orphans.iter().map(|(_, name)| *name).collect());
        }
        let mut needed = HashSet::new();
        for (is_tree, name) in orphans {
            self.stop.check()?;
            let kind = pack_kind(*is_tree);
            let salvaged = match salvage(self.repository.keyring(), self.repository.store(), kind, *name) {
                Ok(salvaged) => salvaged,
                // Nothing is to be got from it, or it is gone.
                Err(error) if is_loss(&error) || error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for (id, _) in salvaged.contents.blocks.iter().flat_map(|block| &block.chunks) {
                if live.has_only_doubtful(id)? {
                    needed.insert(*name);
                } else {
                    live.add_kept(id, is_going, beside)?;
                }
            }
        }
        if !needed.is_empty() {
            self.progress.note("A pack that no index names stays, since it may hold the only good copy of something; \"firn repair index\" adds it to the index");
        }
        Ok(needed)
    }

    /// Reads blocks that were not read before; the packs of which one is bad, and why.
    fn read(&mut self, live: &Live, beside: &Beside) -> Result<Vec<(ObjectName, Error)>> {
        let mut work: Vec<(usize, Vec<u32>)> = Vec::new();
        // Each look must end with fewer packs that are relied on.
        let packs = live.packs.iter().enumerate().filter(|(_, pack)| !self.bad.contains(&pack.name));
        for (number, pack) in packs {
            let mut blocks = live.blocks_beside(number, beside);
            blocks.retain(|block| !self.read.contains(&(pack.name, *block)));
            if !blocks.is_empty() {
                work.push((number, blocks));
            }
        }
        if work.is_empty() {
            return Ok(Vec::new());
        }
        self.progress.stage("verifying the copies that stay");
        self.progress.expect(work.len() as u64, 0);
        let (next, results) = (AtomicUsize::new(0), Mutex::new((Vec::new(), Ok(()))));
        let prune = &*self;
        std::thread::scope(|scope| {
            let run = || {
                while let Some((number, blocks)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = prune.read_pack(live, *number, blocks);
                    prune.progress.files(1);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    match read {
                        Ok(()) => {}
                        Err(error) if is_loss(&error) || error.kind() == ErrorKind::NotFound => {
                            results.0.push((live.packs[*number].name, error));
                        }
                        Err(error) => {
                            next.store(work.len(), Ordering::Relaxed);
                            results.1 = Err(error);
                        }
                    }
                }
            };
            for _ in 1..prune.options.threads.clamp(1, work.len()) {
                scope.spawn(run);
            }
            run();
        });
        let (bad, outcome) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome?;
        let names: HashSet<ObjectName> = bad.iter().map(|(name, _)| *name).collect();
        for (number, blocks) in work {
            let name = live.packs[number].name;
            if !names.contains(&name) {
                self.read.extend(blocks.into_iter().map(|block| (name, block)));
            }
        }
        Ok(bad)
    }

    fn read_pack(&self, live: &Live, number: usize, blocks: &[u32]) -> Result<()> {
        let info = live.info(number)?;
        let mut pack = FreshPack::new(self.repository, &info);
        for block in blocks {
            self.stop.check()?;
            let context = |error: Error| error.context(format!("Block {block} of \"{}\"", pack_key(&info)));
            let (_, ids): (_, Vec<ChunkId>) = pack.chunks(*block).map_err(context)?;
            if !live.is_all(number, *block, &ids)? {
                return Err(context(Error::damaged("It does not hold what the index says")));
            }
        }
        Ok(())
    }
}
