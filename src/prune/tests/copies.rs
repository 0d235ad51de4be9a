//! Whoever lets one of several copies of a chunk go, whoever knows of damage and wherever that is: everything restores bit for bit. And
//! what a forgotten snapshot lacks does not cost the rest of it.

use super::*;
use crate::check::fixture::open_with_cache;
use crate::id::ChunkId;
use crate::repair::packs::{PacksOptions, repair_packs};
use crate::repair::{RepairOptions, repair_index};
use crate::repository::rotate::Keychain;

/// Who lets copies go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deleter {
    Prune,
    ThoroughPrune,
    Reencrypt,
    RepairPacks,
}

/// Whose local state says what is damaged, at the beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Knower {
    /// That of the deleter.
    Deleter,
    /// That of another machine.
    Other,
    Nobody,
}

/// Which copy is damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damaged {
    First,
    Second,
    /// The first copy of one chunk and the second copy of another one.
    OneOfEach,
}

const FILES: u64 = 4;

/// Two copies of every chunk of content, each in packs of its own.
struct Twins {
    world: World,
    snapshots: [ObjectName; 2],
    first: HashSet<ObjectName>,
    /// Each copy: chunk, pack, and a place in the block.
    copies: Vec<(ChunkId, ObjectName, usize)>,
}

impl Twins {
    fn new() -> Twins {
        let world = World::new();
        (0..FILES).for_each(|number| world.write(&format!("file{number}"), number, 140_000));
        let before = world.back_up();
        let first: HashSet<ObjectName> =
            keys(&world.store, ObjectKind::Data).iter().map(|key| ObjectName::parse(&key.name).unwrap()).collect();
        // As if these packs had been damaged: another machine stores all of it again.
        let repository = world.open();
        first.iter().for_each(|name| repository.note_damaged(*name));
        let after = back_up(&repository, world.source.path());
        let mut copies = Vec::new();
        let index = world.open().index().unwrap();
        index
            .scan(&mut |place, id| {
                let pack = index.pack(place)?;
                if !pack.is_tree {
                    let (offset, length) = pack.frame(place.block).unwrap();
                    copies.push((id, pack.name, (offset + u64::from(length) / 2) as usize));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(copies.len() as u64, 2 * FILES);
        Twins { world, snapshots: [before, after], first, copies }
    }

    fn copy(&self) -> Twins {
        let (store, of) = (MemoryStore::new(), &self.world.store);
        of.raw_keys().iter().for_each(|key| store.raw_set(key, of.raw_get(key).unwrap()));
        let world = World { store, source: tempfile::tempdir().unwrap() };
        (0..FILES).for_each(|number| world.write(&format!("file{number}"), number, 140_000));
        Twins { world, snapshots: self.snapshots, first: self.first.clone(), copies: self.copies.clone() }
    }

    /// Damages some copies; returns the packs that are hit.
    fn damage(&self, which: Damaged) -> Vec<ObjectKey> {
        let chunks: BTreeSet<ChunkId> = self.copies.iter().map(|(id, ..)| *id).collect();
        let (one, other) = (*chunks.first().unwrap(), *chunks.last().unwrap());
        let is_hit = |id: &ChunkId, pack: &ObjectName| match which {
            Damaged::First => *id == one && self.first.contains(pack),
            Damaged::Second => *id == one && !self.first.contains(pack),
            Damaged::OneOfEach => *id == (if self.first.contains(pack) { one } else { other }),
        };
        let hit = self.copies.iter().filter(|(id, pack, _)| is_hit(id, pack)).map(|(_, pack, at)| {
            let key = ObjectKey::new(ObjectKind::Data, pack);
            let mut bytes = self.world.store.raw_get(&key).unwrap();
            bytes[*at] ^= 1;
            bytes[*at + 1] ^= 0x80;
            self.world.store.raw_set(&key, bytes);
            key
        });
        hit.collect()
    }

    fn check(&self, cache: &Path) {
        let options = CheckOptions { read_data: true, threads: 2, ..CheckOptions::default() };
        let repository = open_with_cache(Arc::new(self.world.store.clone()), cache);
        let report = check::run(&repository, &options, &Silent, &Stop::new()).unwrap();
        assert_eq!(report.worst(), Some(check::Severity::Repairable), "{report:?}");
    }

    fn delete(&self, deleter: Deleter, damaged: &[ObjectKey], cache: Option<&Path>) {
        let open = || match cache {
            Some(cache) => open_with_cache(Arc::new(self.world.store.clone()), cache),
            None => self.world.open(),
        };
        let prune = |options: PruneOptions| run(&open(), &options, &Silent, &Stop::new()).unwrap();
        match deleter {
            Deleter::Prune => drop(prune(PruneOptions { level: 1, ..PruneOptions::default() })),
            Deleter::ThoroughPrune => drop(prune(thorough())),
            Deleter::Reencrypt => {
                let epoch = open().rotate(&Keychain::new(&credentials("one")), true).unwrap().epoch;
                prune(PruneOptions { rewrite_epochs_below: Some(epoch), ..thorough() });
            }
            Deleter::RepairPacks => {
                let options = PacksOptions { dry_run: false, keep: false, discard: false, threads: 2 };
                repair_packs(&open(), &damaged[..1], &options, &Silent, &Stop::new()).unwrap();
            }
        }
    }

    fn try_all(&self, deleter: Deleter, knower: Knower, damaged: Damaged) {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let hit = self.damage(damaged);
        match knower {
            Knower::Deleter => self.check(own.path()),
            Knower::Other => self.check(other.path()),
            Knower::Nobody => {}
        }
        let before = self.world.packs();
        self.delete(deleter, &hit, (knower == Knower::Deleter).then_some(own.path()));
        self.snapshots.iter().for_each(|name| self.world.restores(*name, self.world.source.path()));
        // Another machine goes on from there.
        self.delete(Deleter::ThoroughPrune, &hit, None);
        self.snapshots.iter().for_each(|name| self.world.restores(*name, self.world.source.path()));
        if matches!(deleter, Deleter::Prune | Deleter::ThoroughPrune) && damaged != Damaged::OneOfEach {
            assert!(self.world.packs() < before, "{deleter:?} {knower:?} {damaged:?}");
        }
    }
}

#[test]
fn the_copy_that_stays_is_good_whoever_lets_the_other_one_go() {
    // Which copy is preferred is left to chance.
    let twins = Twins::new();
    for deleter in [Deleter::Prune, Deleter::ThoroughPrune, Deleter::Reencrypt, Deleter::RepairPacks] {
        for knower in [Knower::Deleter, Knower::Other, Knower::Nobody] {
            for damaged in [Damaged::First, Damaged::Second, Damaged::OneOfEach] {
                twins.copy().try_all(deleter, knower, damaged);
            }
        }
    }
}

#[test]
fn a_copy_that_was_not_read_is_noticed() {
    let whole = Twins::new();
    // The copy that is preferred is one of the two.
    let is_lost = [Damaged::First, Damaged::Second].iter().any(|damaged| {
        let twins = whole.copy();
        twins.damage(*damaged);
        mistake::choose(Some(Mistake::UnreadCopy));
        twins.delete(Deleter::Prune, &[], None);
        mistake::choose(None);
        let restore = || twins.world.restores(twins.snapshots[1], twins.world.source.path());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(restore)).is_err()
    });
    assert!(is_lost);
}

#[test]
fn what_is_found_while_copies_are_read_is_told_to_everybody() {
    let (mut told, whole) = (0, Twins::new());
    for damaged in [Damaged::First, Damaged::Second] {
        let twins = whole.copy();
        let hit = twins.damage(damaged);
        twins.delete(Deleter::Prune, &[], None);
        let is_gone = twins.world.store.raw_get(&hit[0]).is_none();
        let known = twins.world.open().reported_damage().unwrap();
        // What is no longer stored is no longer said to be damaged.
        assert!(known.len() == usize::from(!is_gone), "{known:?}");
        told += usize::from(is_gone);
    }
    assert!(told > 0);
}

#[test]
fn a_record_of_damage_counts_and_stops_nobody_whatever_is_in_it() {
    let (others, other) = (World::new(), ObjectName([7; 32]));
    others.open().report_damaged(other).unwrap();
    let foreign = others.store.raw_get(&ObjectKey::new(ObjectKind::Damage, other)).unwrap();
    for (number, rotten) in [Vec::new(), vec![7; 200], foreign].into_iter().enumerate() {
        let world = World::new();
        world.write("file", 1, 140_000);
        world.back_up();
        let packs = keys(&world.store, ObjectKind::Data);
        let pack = ObjectName::parse(&packs[0].name).unwrap();
        let record = ObjectKey::new(ObjectKind::Damage, pack);
        world.store.raw_set(&record, rotten.clone());
        // Nobody may read it, either.
        let place = || {
            open(Arc::new(HookedStore::new(&world.store).before(|operation, key| {
                if key.kind == ObjectKind::Damage && matches!(operation, Operation::Get | Operation::GetRange) {
                    return Err(Error::io(
                        "The object cannot be read",
                        std::io::Error::from_raw_os_error(libc::EACCES),
                    ));
                }
                Ok(())
            })))
        };
        assert_eq!(place().damaged_packs().unwrap(), HashSet::from([pack]), "{number}");
        place().report_damaged(pack).unwrap();
        // The pack itself is good; the backup does not take that for granted, and a prune reads before it lets a copy go.
        let again = back_up(&place(), world.source.path());
        assert!(keys(&world.store, ObjectKind::Data).len() > packs.len(), "{number}");
        run(&place(), &thorough(), &Silent, &Stop::new()).unwrap();
        world.restores(again, world.source.path());
        assert_eq!(keys(&world.store, ObjectKind::Damage), [], "its pack is gone");
        // Of the pack that is left it is told once, and taken back, for it is found right.
        let left = ObjectKey { kind: ObjectKind::Damage, ..keys(&world.store, ObjectKind::Data)[0].clone() };
        world.store.raw_set(&left, rotten);
        let options = CheckOptions { threads: 1, ..CheckOptions::default() };
        let report = check::run(&world.open(), &options, &Silent, &Stop::new()).unwrap();
        let told: Vec<_> = report.findings.iter().map(|finding| (finding.severity, finding.object.clone())).collect();
        assert_eq!(told, [(check::Severity::Repairable, left.to_string())], "{number}");
        world.is_whole();
        assert_eq!(keys(&world.store, ObjectKind::Damage), []);
    }
}

#[test]
fn a_good_pack_that_is_said_to_be_damaged_costs_space_only() {
    let world = World::new();
    world.write("file", 1, 140_000);
    world.back_up();
    let (repository, packs) = (world.open(), keys(&world.store, ObjectKind::Data));
    let pack = ObjectName::parse(&packs[0].name).unwrap();
    // Two machines may say the same.
    repository.report_damaged(pack).unwrap();
    world.open().report_damaged(pack).unwrap();
    let again = world.back_up();
    assert!(keys(&world.store, ObjectKind::Data).len() > packs.len());
    let before = world.store.raw_keys();
    world.prune(&PruneOptions { dry_run: true, ..thorough() }).unwrap();
    assert_eq!(before, world.store.raw_keys(), "a dry run writes nothing");
    world.prune(&thorough()).unwrap();
    world.restores(again, world.source.path());
    assert!(world.open().reported_damage().unwrap().is_empty());
}

/// A thousand records cost a listing, and none of them is read.
#[test]
fn many_records_of_damage_cost_one_listing() {
    let world = World::new();
    world.write("file", 1, 140_000);
    let snapshot = world.back_up();
    let repository = world.open();
    for number in 0..1000_u16 {
        let mut name = [9; 32];
        name[..2].copy_from_slice(&number.to_be_bytes());
        repository.report_damaged(ObjectName(name)).unwrap();
    }
    let recording = Arc::new(RecordingStore::new(world.store.clone()));
    let calls = |operation| recording.counts().calls(operation, ObjectKind::Damage);
    back_up(&open(recording.clone()), world.source.path());
    assert_eq!((calls(Operation::Get), calls(Operation::GetRange), calls(Operation::Size)), (0, 0, 0));
    assert!(calls(Operation::List) + calls(Operation::ListFresh) <= 2);
    recording.reset();
    run(&open(recording.clone()), &thorough(), &Silent, &Stop::new()).unwrap();
    assert_eq!((calls(Operation::Get), calls(Operation::Delete)), (0, 1000));
    assert!(calls(Operation::List) + calls(Operation::ListFresh) <= 6);
    let packs = recording.counts();
    assert!(packs.calls(Operation::Size, ObjectKind::Data) <= 1100, "each is asked for once");
    world.restores(snapshot, world.source.path());
}

#[test]
fn the_only_good_copy_may_be_in_a_pack_that_no_index_names() {
    let twins = Twins::new();
    let hit = twins.damage(Damaged::First);
    // The second backup was stopped before it wrote its index; its snapshot is not there, either.
    let store = &twins.world.store;
    let second = |pack: &ObjectName| !twins.first.contains(pack);
    for key in keys(store, ObjectKind::Index) {
        let name = ObjectName::parse(&key.name).unwrap();
        let repository = twins.world.open();
        let segment = crate::repository::index::read_segment(repository.keyring(), store, name).unwrap();
        if segment.packs.iter().any(|pack| !pack.is_tree && second(&pack.name)) {
            store.raw_remove(&key);
        }
    }
    store.raw_remove(&ObjectKey::new(ObjectKind::Snapshot, twins.snapshots[1]));
    let dry = PruneOptions { dry_run: true, ..thorough() };
    let consent = |options: PruneOptions| PruneOptions { consent: true, ..options };
    for options in [dry, thorough()] {
        twins.world.prune(&consent(options)).unwrap();
        let kept = twins.copies.iter().filter(|(_, pack, _)| second(pack));
        let key = |pack: &ObjectName| ObjectKey::new(ObjectKind::Data, pack);
        let kept = kept.filter(|(_, pack, _)| store.raw_get(&key(pack)).is_some()).count();
        assert!(kept > 0 && store.raw_get(&hit[0]).is_some());
    }
    let options = RepairOptions { dry_run: false, read_all: false, keep_missing: false, threads: 1 };
    repair_index(&twins.world.open(), &options, &Silent, &Stop::new()).unwrap();
    twins.world.restores(twins.snapshots[0], twins.world.source.path());
}

#[test]
fn a_hole_in_a_forgotten_snapshot_does_not_cost_the_rest_of_it() {
    let world = World::new();
    let backup_with = |numbers: std::ops::Range<u64>| {
        numbers.for_each(|number| world.write(&format!("file{number}"), number, 140_000));
        world.back_up()
    };
    // Packs of their own hold what each snapshot added.
    let snapshots = [backup_with(0..2), backup_with(2..4), backup_with(4..6)];
    let whole = tempfile::tempdir().unwrap();
    (0..6).for_each(|n| std::fs::write(whole.path().join(format!("file{n}")), noise(n, 140_000)).unwrap());
    (2..6).for_each(|number| world.remove(&format!("file{number}")));
    let newest = world.back_up();
    snapshots.iter().for_each(|name| world.forget(*name));
    let mut tried = 0;
    for key in keys(&world.store, ObjectKind::Data) {
        let store = MemoryStore::new();
        world.store.raw_keys().iter().for_each(|key| store.raw_set(key, world.store.raw_get(key).unwrap()));
        let pack = store.raw_remove(&key).unwrap();
        let holed = World { store, source: tempfile::tempdir().unwrap() };
        let young = PruneOptions { keep_deleted: Duration::from_secs(3600), ..thorough() };
        match holed.prune(&young) {
            // The snapshot that is not forgotten needs something of it.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged),
            Ok(_) => {
                tried += 1;
                holed.store.raw_set(&key, pack);
                let options = RepairOptions { dry_run: false, read_all: false, keep_missing: false, threads: 1 };
                repair_index(&holed.open(), &options, &Silent, &Stop::new()).unwrap();
                holed.restores(snapshots[2], whole.path());
                holed.restores(newest, world.source.path());
            }
        }
    }
    assert!(tried >= 2);
}
