//! Deletes what no snapshot needs any more, beside any number of writers, other prunes and readers, without locks and without
//! trusting clocks. Not for: deciding which snapshots are forgotten (see `forget`), or mending damage (see `repair`).
//!
//! The order is that of CONCURRENCY in `man/firn-repository.7`: a list tombs (T0) and snapshots; b write again what is worth it, put
//! marks for the condemned packs; c list pins; d wait until those pins are gone or revoked; e list snapshots again, then the marks of
//! others, then the index; f spare condemned packs of which a live snapshot needs the only copy that nobody has condemned; g publish the
//! index without the doomed packs and drop T0's snapshots; h delete the packs; i take the marks away. Before b, and in f, the copies that
//! stay of what has several are read (see `verify`).
//!
//! Two traps. Snapshots are listed before the index, so that what each needs is known by then. The marks of others are listed
//! before the index in e: a prune that ends between the two has taken its packs out of the index before its marks; the other way
//! round both would be overlooked, and with them the loss of the copy that we rely on.
//!
//! Stopped at any point it leaves at worst marks (writers then store again what is in those packs) and packs that no segment names;
//! the next prune deletes both. Memory: see `live`; besides, 100 bytes a stored pack.

mod brake;
mod guard;
mod leavings;
mod live;
mod options;
mod pins;
mod plan;
mod report;
mod rewrite;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_beside;
mod verify;
mod whole;

use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_RECORD_OBJECT;
use crate::id::{ObjectName, SessionId};
use crate::os::return_memory;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::coordination::Transient;
use crate::repository::index::{Index, StoredPacks};
use crate::repository::mistake::{self, Mistake};
use crate::repository::pack::pack_folder;
use crate::repository::read::pack_kind;
use crate::repository::segments::{OldSegments, SegmentWriter, replace};
use crate::repository::snapshots::{Named, Snapshots};
use crate::repository::table::PackInfo;
use crate::repository::writer::WriterOptions;
use crate::store::{ObjectKey, ObjectKind};
use live::{Live, Rank, Walk};
#[cfg(test)]
pub(crate) use options::thorough;
pub use options::{Limit, PruneOptions};
pub use pins::{Answer, Patience};
use plan::{Plan, Victim, Victims};
pub use report::{Amount, PruneReport};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
pub use whole::{all_whole, whole};

/// Segments with fewer chunks than this count as small, and are merged once there are so many of them.
const SMALL_SEGMENT: usize = 20_000;
const SMALL_SEGMENTS: usize = 32;

/// How often a repository that changes is looked at before a prune gives up.
const SURVEYS: u32 = 6;
/// Names that a store is asked to make durable in one call.
const SETTLED_AT_ONCE: usize = 50_000;

/// Prunes. Fails with `Brake` before anything is deleted if something looks wrong, with `Damaged` if a live snapshot lacks anything.
pub fn run(
    repository: &Arc<Repository>,
    options: &PruneOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<PruneReport> {
    let patience = pins::Usual::new(repository, options.revoke_after, options.max_wait, progress, stop);
    run_with(repository, options, &patience, progress, stop)
}

/// The same with another way to wait for writers.
pub fn run_with(
    repository: &Arc<Repository>,
    options: &PruneOptions,
    patience: &dyn Patience,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<PruneReport> {
    repository.check_prunable(options.dry_run)?;
    let (report, bad, read) = Default::default();
    let mut prune = Prune { repository, options, patience, progress, stop, report, bad, read };
    prune.run()?;
    Ok(prune.report)
}

struct Prune<'a> {
    repository: &'a Arc<Repository>,
    options: &'a PruneOptions,
    patience: &'a dyn Patience,
    progress: &'a dyn Progress,
    stop: &'a Stop,
    report: PruneReport,
    /// Packs that this prune has found damaged or gone.
    bad: HashSet<ObjectName>,
    /// Blocks that it has read and found right.
    read: HashSet<(ObjectName, u32)>,
}

/// The snapshots as of one moment, as a prune sees them.
struct Scene {
    /// Those whose chunks are needed; forgotten ones among them.
    live: Vec<Named>,
    /// Those that need not be whole.
    tolerated: HashSet<ObjectName>,
    /// Those whose sessions were revoked, so that they may never have been acknowledged.
    unsure: HashSet<ObjectName>,
    /// Forgotten long enough.
    doomed: BTreeSet<ObjectName>,
    /// All that are stored or forgotten.
    known: HashSet<ObjectName>,
}

impl<'a> Prune<'a> {
    fn run(&mut self) -> Result<()> {
        self.progress.stage("finding what snapshots need");
        if !self.options.dry_run {
            self.publish_damage()?;
        }
        // a
        let marked = self.repository.marked_packs()?;
        let scene = self.look(None)?;
        // Snapshots may tell of newer keys.
        self.repository.check_keys_are_newest()?;
        let (live, mut plan) = loop {
            let (stored, live) = self.survey(&scene, &HashSet::new(), &marked)?;
            let mut plan = Plan::make(&live, &stored, self.options);
            if self.confirms_plan(&live, &mut plan)? {
                stored.iter().for_each(|(_, _, size)| self.report.before.add(size));
                break (live, plan);
            }
        };
        self.report.chunks = live.chunks;
        plan::refuse_foreign(self.repository, &plan.orphans)?;
        self.leave_running_ones(&mut plan, &scene)?;
        self.describe(&live, &plan, &scene);
        if self.options.dry_run {
            let of = rewrite::estimate(self.repository, &live, &plan.rewrite, self.options.level, self.stop)?;
            self.report.estimate = Some(of / self.options.threads.max(1) as u32);
        }
        if self.options.dry_run || (plan.is_empty() && scene.doomed.is_empty()) {
            if !self.options.dry_run {
                self.clear_leavings()?;
            }
            return Ok(());
        }
        // b
        let mut victims = Victims::new();
        for number in &plan.dead {
            let pack = &live.packs[*number];
            victims.insert(pack.name, Victim { is_tree: pack.is_tree, size: pack.size });
        }
        victims.extend(
            plan.orphans.iter().map(|(is_tree, name, size)| (*name, Victim { is_tree: *is_tree, size: *size })),
        );
        self.rewrite(&live, &plan, &mut victims)?;
        drop(live);
        return_memory();
        let (prune, marks) = self.mark(&mut victims, &scene)?;
        // c, d
        self.progress.stage("waiting for others");
        pins::outwait(self.repository, self.patience, 2)?;
        self.report.revoked = pins::drain(self.repository, self.patience)?.len() as u64;
        pins::outwait(self.repository, self.patience, 1)?;
        // e, f
        let doomed = self.look_again(prune, &marks, scene, &mut plan, &mut victims)?;
        return_memory();
        // g, h, i
        self.stop.check()?;
        self.progress.stage("deleting");
        let deleted = self.delete(&plan, &doomed, &victims);
        self.take_away(marks, deleted)?;
        self.repository.store().keep_room();
        self.repository.reload_index(&crate::progress::Silent)?;
        self.clear_leavings()
    }

    /// Lists snapshots, tombs and revokes. `before` is what was seen the first time; only tombs seen then count.
    fn look(&mut self, before: Option<&Scene>) -> Result<Scene> {
        let snapshots = self.repository.snapshots()?;
        let tombs = &snapshots.tombs;
        let revoked = self.repository.revoked()?;
        let stored: HashSet<ObjectName> = snapshots.names().collect();
        let held = self.repository.holds()?;
        let is_old = |(name, since): &(&ObjectName, &SystemTime)| {
            stored.contains(*name) && !held.contains(*name) && self.is_old(**since)
        };
        let doomed: BTreeSet<ObjectName> = match before {
            None => tombs.iter().filter(is_old).map(|(name, _)| *name).collect(),
            Some(_) if mistake::made(Mistake::YoungTombs) => tombs.keys().copied().collect(),
            // One that was undeleted or pinned meanwhile is spared.
            Some(before) => {
                let is_still = |name: &&ObjectName| tombs.contains_key(*name) && !held.contains(*name);
                before.doomed.iter().filter(is_still).copied().collect()
            }
        };
        self.refuse_unreadable(&snapshots, &doomed)?;
        let known: HashSet<ObjectName> = stored.iter().chain(tombs.keys()).copied().collect();
        if let Some(before) = before
            && let Some(lost) = before.known.iter().find(|name| !known.contains(*name))
        {
            return Err(Error::new(
                ErrorKind::Brake,
                format!("The snapshot \"{lost}\" was listed a moment ago and is listed no longer; nothing was deleted"),
            )
            .with_hint("The store does not list what it holds. Find out why, then run \"firn check\"."));
        }
        if before.is_none() {
            self.refuse_missing(&snapshots)?;
        }
        let Snapshots { live, forgotten, .. } = snapshots;
        if before.is_none() {
            self.report.snapshots_waiting =
                forgotten.iter().filter(|named| !doomed.contains(&named.name)).count() as u64;
            self.report.snapshots_dropped = doomed.iter().copied().collect();
            if !self.options.consent {
                brake::check(&live, &forgotten, &doomed)?;
            }
        }
        let tolerated: HashSet<ObjectName> = forgotten.iter().map(|named| named.name).collect();
        // Not those of revoked sessions: one may have reported success just before it was revoked.
        let is_revoked = |named: &&Named| revoked.contains(&named.snapshot.session);
        let unsure = live.iter().filter(is_revoked).map(|named| named.name).collect();
        let live = live.into_iter().chain(forgotten).filter(|named| !doomed.contains(&named.name)).collect();
        Ok(Scene { live, tolerated, unsure, doomed, known })
    }

    fn is_old(&self, since: SystemTime) -> bool {
        self.age(since) >= self.options.keep_deleted
    }

    /// Only comfort depends on it, never safety. What lies ahead is new.
    fn age(&self, since: SystemTime) -> Duration {
        SystemTime::now().duration_since(since).unwrap_or_default()
    }

    /// What a snapshot needs that is hidden would count as unneeded.
    fn refuse_missing(&self, snapshots: &Snapshots) -> Result<()> {
        match self.repository.missing_snapshots(snapshots)?.first() {
            Some(missing) => {
                Err(missing.error(ErrorKind::Brake).context("Something hides snapshots, so nothing was pruned"))
            }
            None => Ok(()),
        }
    }

    /// What a snapshot needs that cannot be read is unknown.
    fn refuse_unreadable(&self, snapshots: &Snapshots, doomed: &BTreeSet<ObjectName>) -> Result<()> {
        let Some((name, error)) = snapshots.damaged.iter().find(|(name, _)| !doomed.contains(name)) else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Brake, format!("The snapshot \"{name}\" cannot be read, so what it needs is unknown; nothing was deleted"))
            .with_source(error.copy())
            .with_hint(match error.kind() {
                ErrorKind::Unsupported => "It was written by a newer firn; prune with that one.",
                _ if snapshots.tombs.contains_key(name) => "It was forgotten, and is kept for a while in case a copy of it turns up. Prune after that time, or now with \"--keep-deleted 0s\".",
                _ => "If there is a copy of this object, put it back. To give it up, run \"firn forget\" with its full id, then prune again.",
            }))
    }

    /// Lists the index and the packs, and finds what is needed. Nobody waits for a prune that only looks, so another one may have moved
    /// something between the two listings: before something is called missing, both are looked at again as long as they change.
    fn survey(
        &self,
        scene: &Scene,
        own: &HashSet<ObjectName>,
        marked: &HashSet<ObjectName>,
    ) -> Result<(StoredPacks, Live)> {
        let mut before = None;
        for _ in 0..SURVEYS {
            self.repository.reload_index(self.progress)?;
            let index = self.repository.index()?;
            let mut segments = index.segments.clone();
            segments.sort();
            let mut stored = StoredPacks::list(self.repository.store())?;
            stored.confirm(&index, self.repository.store())?;
            match self.find_live(&index, scene, &stored, own, marked) {
                Err(error) if error.kind() == ErrorKind::Damaged && before.as_ref() != Some(&segments) => {
                    before = Some(segments);
                }
                found => return Ok((stored, found?)),
            }
        }
        Err(Error::new(
            ErrorKind::InUse,
            "The repository changed again and again while it was looked at; nothing was deleted",
        )
        .with_hint("Run the prune again when less is going on."))
    }

    fn find_live(
        &self,
        index: &Arc<Index>,
        scene: &Scene,
        stored: &StoredPacks,
        own: &HashSet<ObjectName>,
        marked: &HashSet<ObjectName>,
    ) -> Result<Live> {
        if let Some((name, error)) = index.damaged.first() {
            return Err(Error::new(
                ErrorKind::Brake,
                format!("The index segment \"{name}\" cannot be read; nothing was deleted"),
            )
            .with_source(error.copy())
            .with_hint("Run \"firn repair index\", then prune again."));
        }
        self.repository.check_epochs()?;
        let damaged = self.repository.damaged_packs()?;
        let rank = |pack: &PackInfo| match () {
            () if stored.size(pack.is_tree, &pack.name).is_none() => Rank::Absent,
            () if !stored.has(pack) => Rank::Cut,
            () if self.bad.contains(&pack.name) || damaged.contains(&pack.name) => Rank::Damaged,
            () if marked.contains(&pack.name) => Rank::Marked,
            () if own.contains(&pack.name) => Rank::Condemned,
            () => Rank::Good,
        };
        let walk = Walk {
            repository: self.repository,
            progress: self.progress,
            stop: self.stop,
            tolerated: &scene.tolerated,
            unsure: &scene.unsure,
        };
        let live = Live::find(&walk, index.clone(), &rank, &scene.live)?;
        for (name, error, count) in &live.holes {
            let more = if *count > 1 { format!(" ({} in all)", count) } else { String::new() };
            let what = error.chain();
            self.progress.note(&format!("The forgotten snapshot \"{name}\" is not whole{more}: {what}"));
        }
        Ok(live)
    }

    /// Packs that no index names may be those of a backup that runs. If nothing else is to be deleted it is not waited for.
    fn leave_running_ones(&self, plan: &mut Plan, scene: &Scene) -> Result<()> {
        let is_only_orphans = plan.dead.is_empty() && plan.rewrite.is_empty() && scene.doomed.is_empty();
        if is_only_orphans && !plan.orphans.is_empty() {
            let revoked = self.repository.revoked()?;
            if self.repository.pins()?.iter().any(|pin| !revoked.contains(&pin.session)) {
                plan.orphans.clear();
            }
        }
        Ok(())
    }

    fn describe(&mut self, live: &Live, plan: &Plan, scene: &Scene) {
        let report = &mut self.report;
        report.snapshots_live = scene.live.len() as u64;
        plan.dead.iter().for_each(|number| report.dead.add(live.packs[*number].size));
        plan.orphans.iter().for_each(|(_, _, size)| report.orphans.add(*size));
        for number in &plan.rewrite {
            report.rewritten.add(live.packs[*number].size);
            report.written += live.packs[*number].used();
        }
        report.unlisted = plan.absent.len() as u64;
        report.unused = plan.unused;
        report.is_limited = plan.is_limited;
        for amount in [report.dead, report.orphans, report.rewritten] {
            report.deleted.packs += amount.packs;
            report.deleted.bytes += amount.bytes;
        }
    }

    /// Writes again what is needed of the packs that the plan names, and condemns them.
    fn rewrite(&mut self, live: &Live, plan: &Plan, victims: &mut Victims) -> Result<()> {
        self.report.rewritten = Amount::default();
        self.report.written = 0;
        if plan.rewrite.is_empty() {
            return Ok(());
        }
        self.progress.stage("writing again what is needed");
        let bytes = plan.rewrite.iter().map(|number| live.packs[*number].used()).sum();
        self.progress.expect(plan.rewrite.len() as u64, bytes);
        let mut absent: HashSet<ObjectName> = victims.keys().copied().collect();
        absent.extend(plan.rewrite.iter().map(|number| live.packs[*number].name));
        let options = WriterOptions { level: self.options.level, threads: self.options.threads, dry_run: false };
        let rewritten =
            rewrite::rewrite(self.repository, live, &plan.rewrite, absent, &options, self.progress, self.stop);
        let rewritten = match rewritten {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.report.is_full = true;
                self.progress.note(
                    "There is no room to write packs again, so only those of which nothing is needed are deleted",
                );
                return Ok(());
            }
            rewritten => rewritten?,
        };
        self.report.written = rewritten.written.stored;
        for number in rewritten.done {
            let pack = &live.packs[number];
            self.report.rewritten.add(pack.size);
            victims.insert(pack.name, Victim { is_tree: pack.is_tree, size: pack.size });
        }
        Ok(())
    }

    /// Puts the marks, under an id that is returned. On a full store snapshots that are to be dropped make room for them; if that does
    /// not suffice, only the larger half of the packs goes now.
    fn mark(&self, victims: &mut Victims, scene: &Scene) -> Result<(SessionId, Vec<Transient<'a>>)> {
        let mut doomed = scene.doomed.iter();
        loop {
            let names: Vec<ObjectName> = victims.keys().copied().collect();
            let snapshots: Vec<ObjectName> = scene.doomed.iter().copied().collect();
            let prune = SessionId::random()?;
            let error = match self.repository.mark(prune, &names, &snapshots) {
                Ok(marks) => return Ok((prune, marks)),
                Err(error) if error.kind() == ErrorKind::Full => error,
                Err(error) => return Err(error),
            };
            match doomed.next() {
                Some(name) => self.sacrifice(name)?,
                None if victims.len() > 1 => plan::keep_larger_half(victims),
                None => return Err(error),
            }
        }
    }

    /// Drops a forgotten snapshot before its time. Nobody who undeletes it sees a mark yet, so it is put back if its tomb has gone.
    fn sacrifice(&self, name: &ObjectName) -> Result<()> {
        let store = self.repository.store();
        let key = ObjectKey::new(ObjectKind::Snapshot, name);
        let bytes = match store.get(&key, MAX_RECORD_OBJECT) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        store.delete(&key)?;
        pins::outwait(self.repository, self.patience, 1)?;
        if self.repository.tombs()?.contains_key(name) { Ok(()) } else { store.put(&key, &bytes) }
    }

    /// Steps e and f: which snapshots are dropped after all; condemned packs that are needed leave `victims`.
    fn look_again(
        &mut self,
        prune: SessionId,
        own_marks: &[Transient<'_>],
        before: Scene,
        plan: &mut Plan,
        victims: &mut Victims,
    ) -> Result<BTreeSet<ObjectName>> {
        self.progress.stage("making sure that nothing is needed");
        let scene = self.look(Some(&before))?;
        let marks = self.repository.marks()?;
        let marked = self.marked_at(&marks, own_marks)?;
        let others: HashSet<ObjectName> = marks
            .into_iter()
            .filter(|stored| stored.mark.prune != prune && !mistake::made(Mistake::OthersMarks))
            .flat_map(|stored| stored.mark.packs)
            .collect();
        let own: HashSet<ObjectName> = victims.keys().copied().collect();
        let (stored, live) = loop {
            let (stored, live) = self.survey(&scene, &own, &others)?;
            if self.confirms_victims(&live, victims)? {
                break (stored, live);
            }
        };
        for pack in live.packs.iter().filter(|pack| pack.needed > 0) {
            plan.absent.remove(&pack.name);
        }
        self.spare_young(&stored, marked, victims);
        self.settle(&live, &scene)?;
        Ok(scene.doomed)
    }

    /// What is relied on when something else is deleted must outlive a power cut, too: the copies that are kept, the index that finds
    /// them, and the tombs that tell why a snapshot is not there. Their writers may have been stopped before they made them durable.
    fn settle(&self, live: &Live, scene: &Scene) -> Result<()> {
        let segments = live.index.segments.iter().map(|name| ObjectKey::new(ObjectKind::Index, name));
        let tombs = scene.doomed.iter().map(|name| ObjectKey::new(ObjectKind::Tomb, name));
        let packs = live.packs.iter().filter(|pack| pack.needed > 0);
        let packs = packs.map(|pack| ObjectKey::new(pack_folder(pack_kind(pack.is_tree)), pack.name));
        let mut keys = segments.chain(tombs).chain(packs).peekable();
        while keys.peek().is_some() {
            let part: Vec<ObjectKey> = keys.by_ref().take(SETTLED_AT_ONCE).collect();
            self.repository.store().settle(&part)?;
        }
        Ok(())
    }

    /// Steps g and h. Without room for new segments the packs go first: the marks keep writers away from them until the index, too, is
    /// without them.
    fn delete(&mut self, plan: &Plan, doomed: &BTreeSet<ObjectName>, victims: &Victims) -> Result<()> {
        let published = self.publish(plan, victims);
        let is_full = published.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full);
        if !is_full {
            published?;
        }
        self.drop_snapshots(doomed)?;
        self.report.snapshots_dropped.retain(|name| doomed.contains(name));
        self.report.deleted = Amount::default();
        self.progress.expect(victims.len() as u64, 0);
        for (name, victim) in victims {
            // What is condemned may go at any time, also by the next prune.
            self.stop.check()?;
            self.repository.store().delete(&ObjectKey::new(pack_folder(pack_kind(victim.is_tree)), name))?;
            self.report.deleted.add(victim.size);
            self.progress.files(1);
        }
        if is_full { self.publish(plan, victims) } else { Ok(()) }
    }

    /// The index without the doomed packs and those that are not stored; small segments become larger ones.
    fn publish(&mut self, plan: &Plan, victims: &Victims) -> Result<()> {
        let old = OldSegments::read(self.repository, self.stop)?;
        old.refuse_damaged()?;
        let is_gone = |name: &ObjectName| victims.contains_key(name) || plan.absent.contains(name);
        let mut dirty = old.naming(is_gone);
        let is_small = |name: &&ObjectName| old.chunks.get(*name).is_some_and(|chunks| *chunks < SMALL_SEGMENT);
        let small: Vec<ObjectName> = old.readable.iter().filter(is_small).copied().collect();
        if small.len() >= SMALL_SEGMENTS && self.options.rewrite {
            dirty.extend(small);
        }
        let writer = SegmentWriter::new(self.repository, false);
        let replaced = replace(self.repository, &old, &dirty, is_gone, writer, self.stop)?;
        self.report.segments_written += replaced.written;
        self.report.segments_removed += replaced.removed;
        Ok(())
    }

    /// The snapshots go, their tombs stay: they say that nobody hid the snapshots.
    fn drop_snapshots(&self, doomed: &BTreeSet<ObjectName>) -> Result<()> {
        doomed.iter().try_for_each(|name| self.repository.store().delete(&ObjectKey::new(ObjectKind::Snapshot, name)))
    }
}
