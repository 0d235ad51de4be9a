//! What is deleted, what is kept, and when nothing is deleted at all. Not for: crashes and interleavings (see `tests/crash`).

mod copies;
mod elsewhere;

use super::*;
use crate::backup::{self, BackupOptions};
use crate::check::fixture::{credentials, keys, open, open_with_cache};
use crate::check::{self, CheckOptions};
use crate::chunk::password::Cost;
use crate::progress::Silent;
use crate::repository::coordination::StoredPin;
use crate::repository::writer::Writer;
use crate::restore::{self, Overwrite, RestoreOptions};
use crate::store::HookedStore;
use crate::store::{Faults, FaultyStore, MemoryStore, Operation, RecordingStore, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A repository and a folder that is backed up into it.
pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) source: tempfile::TempDir,
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl World {
    pub(super) fn new() -> World {
        let store = MemoryStore::new();
        Repository::init(&store, &credentials("one"), Cost::DEFAULT, "one").unwrap();
        World { store, source: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Arc<Repository> {
        open(Arc::new(self.store.clone()))
    }

    /// Writes a file of incompressible bytes.
    pub(super) fn write(&self, name: &str, seed: u64, length: usize) {
        std::fs::write(self.source.path().join(name), noise(seed, length)).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.source.path().join(name)).unwrap();
    }

    pub(super) fn back_up(&self) -> ObjectName {
        back_up(&self.open(), self.source.path())
    }

    pub(super) fn forget(&self, name: ObjectName) {
        self.open().put_tomb(name).unwrap();
    }

    fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        run(&self.open(), options, &Silent, &Stop::new())
    }

    fn packs(&self) -> usize {
        keys(&self.store, ObjectKind::Data).len() + keys(&self.store, ObjectKind::Tree).len()
    }

    /// Everything is found right, and the newest snapshot restores to what the source holds now.
    fn is_whole(&self) {
        let repository = self.open();
        let options = CheckOptions { read_data: true, threads: 2, ..CheckOptions::default() };
        let report = check::run(&repository, &options, &Silent, &Stop::new()).unwrap();
        assert_eq!(report.findings, []);
        let newest = repository.snapshots().unwrap().live.pop().unwrap();
        self.restores(newest.name, self.source.path());
    }

    fn restores(&self, name: ObjectName, like: &Path) {
        let repository = self.open();
        let target = tempfile::tempdir().unwrap();
        let snapshot = repository.snapshot(name).unwrap();
        let options = RestoreOptions {
            target: target.path().to_owned(),
            overwrite: Overwrite::Always,
            include: Vec::new(),
            exclude: Vec::new(),
            dry_run: false,
            verify: false,
            threads: 1,
        };
        restore::run(&repository, &snapshot, &snapshot.paths[0].0, &options, &Silent, &Stop::new()).unwrap();
        let listing = |folder: &Path| {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries
                .map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(listing(like) == listing(target.path()));
    }
}

fn back_up(repository: &Arc<Repository>, source: &Path) -> ObjectName {
    let options = BackupOptions { paths: vec![source.to_owned()], level: 1, threads: 1, ..BackupOptions::default() };
    backup::run(repository, &options, &Silent, &Stop::new()).unwrap().snapshot.unwrap()
}

/// Does something while a prune waits.
struct Meanwhile<F>(Mutex<Option<F>>);

impl<F: FnOnce() -> Answer + Send> Patience for Meanwhile<F> {
    fn wait(&self, _: &[StoredPin]) -> Result<Answer> {
        Ok(self.0.lock().unwrap().take().map_or(Answer::Wait, |action| action()))
    }
    fn sleep(&self, _: Duration) -> Result<()> {
        Ok(())
    }
}

fn meanwhile<F: FnOnce() -> Answer + Send>(action: F) -> Meanwhile<F> {
    Meanwhile(Mutex::new(Some(action)))
}

/// Files of 140,000 bytes, each in a block of its own, so many that packs, to which blocks go at random, hold some of each sort.
const BIG: u64 = 32;

/// A snapshot, and one after half of the big files and one of the small ones have gone; the first one is to be forgotten.
fn changed() -> (World, [ObjectName; 2]) {
    let world = World::new();
    (0..BIG).for_each(|number| world.write(&format!("big{number}"), number, 140_000));
    (0..3).for_each(|number| world.write(&format!("small{number}"), 1000 + number, 3_000));
    let first = world.back_up();
    (0..BIG / 2).for_each(|number| world.remove(&format!("big{number}")));
    world.remove("small0");
    let second = world.back_up();
    (world, [first, second])
}

/// What had gone is there again.
fn bring_back(world: &World) {
    (0..BIG / 2).for_each(|number| world.write(&format!("big{number}"), number, 140_000));
    world.write("small0", 1000, 3_000);
}

#[test]
fn what_nobody_needs_goes_and_the_rest_is_packed_anew() {
    let (world, [first, second]) = changed();
    world.is_whole();
    world.forget(first);
    let before = world.packs();
    let dry = world.prune(&PruneOptions { dry_run: true, ..thorough() }).unwrap();
    assert_eq!(world.packs(), before);
    let report = world.prune(&thorough()).unwrap();
    assert_eq!((report.snapshots_live, &report.snapshots_dropped), (1, &vec![first]));
    assert_eq!((&dry.snapshots_dropped, dry.deleted, dry.chunks), (&vec![first], report.deleted, report.chunks));
    assert_eq!(report.unused, 0);
    assert_eq!(report.before.packs as usize, before);
    // Half of the big files and one of the small ones, give or take the padding of packs.
    let gone = BIG / 2 * 140_000 + 3_000;
    assert!((gone - 100_000..gone + 100_000).contains(&report.freed()), "{report:?}");
    assert!((gone - 100_000..gone + 100_000).contains(&dry.freed()), "{dry:?}");
    world.is_whole();
    assert_eq!(keys(&world.store, ObjectKind::Snapshot).len(), 1);
    // The tomb stays as evidence.
    assert_eq!(keys(&world.store, ObjectKind::Tomb).len(), 1);
    for kind in [ObjectKind::Mark, ObjectKind::Pin, ObjectKind::Revoke] {
        assert_eq!(keys(&world.store, kind), []);
    }
    let size: u64 = keys(&world.store, ObjectKind::Data).iter().map(|key| world.store.size(key).unwrap()).sum();
    assert!((gone + 3_000..gone + 200_000).contains(&size), "{size}");
    // All in one: the next prune and the next backup find nothing to do.
    let recording = Arc::new(RecordingStore::new(world.store.clone()));
    let repository = open(recording.clone());
    let report = run(&repository, &thorough(), &Silent, &Stop::new()).unwrap();
    assert_eq!((report.deleted, report.written, report.snapshots_dropped.len()), (Amount::default(), 0, 0));
    let counts = recording.counts();
    assert_eq!(counts.total(Operation::Put).calls + counts.total(Operation::Delete).calls, 0);
    back_up(&repository, world.source.path());
    let counts = recording.counts();
    assert_eq!(counts.calls(Operation::Put, ObjectKind::Data), 0);
    world.is_whole();
    world.restores(second, world.source.path());
}

#[test]
fn a_snapshot_forgotten_a_moment_ago_is_kept() {
    let (world, [first, _]) = changed();
    world.forget(first);
    let before = world.store.raw_keys();
    let report = world.prune(&PruneOptions { keep_deleted: Duration::from_secs(600), ..thorough() }).unwrap();
    assert_eq!((report.snapshots_live, report.snapshots_waiting, report.deleted.packs), (2, 1, 0));
    assert_eq!(world.store.raw_keys(), before);
}

#[test]
fn limits_are_kept() {
    let (world, [first, _]) = changed();
    world.forget(first);
    let limits = PruneOptions { dry_run: true, ..thorough() };
    // The data pack of the first snapshot is half used; its tree pack is wholly unused.
    for (options, data) in [
        (PruneOptions { max_unused: Limit::Unlimited, ..limits.clone() }, false),
        (PruneOptions { max_unused: Limit::Share(0.9), ..limits.clone() }, false),
        (PruneOptions { max_unused: Limit::Share(0.05), ..limits.clone() }, true),
        // Chance decides how the files are spread over packs, so a pack may have little that is needed.
        (PruneOptions { max_rewrite: Limit::Share(0.0001), ..limits.clone() }, false),
        (PruneOptions { max_rewrite: Limit::Bytes(4 << 20), ..limits.clone() }, true),
        (PruneOptions { rewrite: false, ..limits.clone() }, false),
    ] {
        let report = world.prune(&options).unwrap();
        assert_eq!(report.rewritten.bytes > 1_000_000, data, "{options:?} {report:?}");
        assert_eq!(report.unused > 1_000_000, !data, "{options:?} {report:?}");
        let is_limited = matches!(options.max_rewrite, Limit::Share(_));
        assert_eq!(report.is_limited, is_limited, "{options:?} {report:?}");
    }
    let report = world.prune(&PruneOptions { max_rewrite: Limit::Share(0.1), ..limits.clone() }).unwrap();
    assert!(report.written <= report.before.bytes / 10, "{report:?}");
    // Without writing again nothing but marks is written, and segments in the place of old ones.
    let recording = Arc::new(RecordingStore::new(world.store.clone()));
    let repository = open(recording.clone());
    run(&repository, &PruneOptions { rewrite: false, ..thorough() }, &Silent, &Stop::new()).unwrap();
    let counts = recording.counts();
    assert_eq!(counts.calls(Operation::Put, ObjectKind::Data) + counts.calls(Operation::Put, ObjectKind::Tree), 0);
    assert!(counts.bytes(Operation::Put, ObjectKind::Mark) < 2000);
    world.is_whole();
}

#[test]
fn several_copies_of_a_chunk_become_one() {
    let world = World::new();
    for number in 0..4 {
        world.write(&format!("file{number}"), number, 200_000);
    }
    // Two writers at once, neither of which sees what the other stores.
    let (one, two) = (world.open(), world.open());
    let options = WriterOptions { level: 1, threads: 1, dry_run: false };
    let writer = Writer::begin(&one, options, &Silent).unwrap();
    back_up(&two, world.source.path());
    let known: HashSet<ObjectName> = StoredPacks::list(&world.store).unwrap().iter().map(|(_, name, _)| name).collect();
    writer.abandon().unwrap();
    // The same once more, as if nothing had been there.
    two.store().list(ObjectKind::Data, &mut |_| Ok(())).unwrap();
    known.iter().for_each(|name| two.note_damaged(*name));
    back_up(&two, world.source.path());
    known.iter().for_each(|name| two.forget_damaged(name).unwrap());
    let size = |world: &World| -> u64 {
        keys(&world.store, ObjectKind::Data).iter().map(|key| world.store.size(key).unwrap()).sum()
    };
    assert!(size(&world) > 1_600_000);
    let report = world.prune(&thorough()).unwrap();
    assert!(size(&world) < 900_000, "{report:?}");
    world.is_whole();
}

#[test]
fn a_prune_refuses_what_it_cannot_judge() {
    let (world, [first, second]) = changed();
    world.forget(first);
    let whole: Vec<_> = world.store.raw_keys();
    let without = |left_out: Option<&ObjectKey>| {
        let store = MemoryStore::new();
        for key in whole.iter().filter(|key| Some(*key) != left_out) {
            store.raw_set(key, world.store.raw_get(key).unwrap());
        }
        store
    };
    let refuses = |change: &dyn Fn(&MemoryStore), kind: ErrorKind, words: &str| {
        let store = without(None);
        change(&store);
        let before = store.raw_keys();
        let error = run(&open(Arc::new(store.clone())), &thorough(), &Silent, &Stop::new()).unwrap_err();
        assert_eq!((error.kind(), store.raw_keys() == before), (kind, true), "{}", error.chain());
        assert!(error.chain().contains(words) && error.hint().is_some(), "{}", error.chain());
    };
    let flip = |store: &MemoryStore, key: &ObjectKey| {
        let mut bytes = store.raw_get(key).unwrap();
        bytes[150] ^= 1;
        store.raw_set(key, bytes);
    };
    let snapshot = ObjectKey::new(ObjectKind::Snapshot, second);
    refuses(&|store| flip(store, &snapshot), ErrorKind::Brake, "cannot be read, so what it needs is unknown");
    // Once it was given up there is only the time to wait for, and that can be told.
    let store = without(None);
    flip(&store, &snapshot);
    let repository = open(Arc::new(store.clone()));
    repository.put_tomb(second).unwrap();
    let patient = PruneOptions { keep_deleted: Duration::from_secs(3600), ..thorough() };
    let error = run(&repository, &patient, &Silent, &Stop::new()).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("--keep-deleted 0s")), "{:?}", error.hint());
    run(&repository, &thorough(), &Silent, &Stop::new()).unwrap();
    for key in keys(&world.store, ObjectKind::Index) {
        refuses(&|store| flip(store, &key), ErrorKind::Brake, "index segment");
        // One that is hidden.
        let repository = world.open();
        repository.index().unwrap();
    }
    for kind in [ObjectKind::Data, ObjectKind::Tree] {
        let needed: Vec<_> = keys(&world.store, kind);
        let mut refused = 0;
        for key in needed {
            let store = without(Some(&key));
            match run(&open(Arc::new(store.clone())), &thorough(), &Silent, &Stop::new()) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error.chain());
                    assert!(error.hint().is_some_and(|hint| hint.contains("firn check")));
                    assert_eq!(store.raw_keys().len() + 1, whole.len());
                    refused += 1;
                }
            }
        }
        assert!(refused >= 1);
    }
    // Each segment hidden.
    for key in keys(&world.store, ObjectKind::Index) {
        let store = MemoryStore::new();
        whole
            .iter()
            .filter(|other| **other != key)
            .for_each(|key| store.raw_set(key, world.store.raw_get(key).unwrap()));
        if let Err(error) = run(&open(Arc::new(store.clone())), &thorough(), &Silent, &Stop::new()) {
            assert_eq!((error.kind(), store.raw_keys().len() + 1), (ErrorKind::Damaged, whole.len()));
        } else {
            // Nothing that the second snapshot needs was named only there.
            let world = World { store, source: tempfile::tempdir().unwrap() };
            let report = check::run(
                &world.open(),
                &CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() },
                &Silent,
                &Stop::new(),
            );
            assert!(report.unwrap().findings.iter().all(|finding| finding.severity == check::Severity::Note));
        }
    }
}

#[test]
fn a_wiped_or_rewritten_source_stops_a_prune_until_consent() {
    for is_wiped in [true, false] {
        let world = World::new();
        (0..40).for_each(|number| world.write(&format!("file{number}"), number, 2_000));
        let first = world.back_up();
        for number in 0..30 {
            match is_wiped {
                true => world.remove(&format!("file{number}")),
                false => world.write(&format!("file{number}"), 1000 + number, 2_001),
            }
        }
        world.back_up();
        // Nothing old goes: nothing to stop.
        world.prune(&thorough()).unwrap();
        world.forget(first);
        let before = world.store.raw_keys();
        let error = world.prune(&thorough()).unwrap_err();
        assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Brake, 6));
        assert!(error.hint().unwrap().contains("--yes-really"), "{}", error.chain());
        assert_eq!(world.store.raw_keys(), before);
        let report = world.prune(&PruneOptions { consent: true, ..thorough() }).unwrap();
        assert_eq!(report.snapshots_dropped, [first]);
        world.is_whole();
    }
}

#[test]
fn a_backup_that_relies_on_condemned_packs_is_waited_for_and_they_are_spared() {
    let (world, [first, second]) = changed();
    // Only the first has these, and it is forgotten before the second writer looks for parents.
    world.forget(first);
    bring_back(&world);
    let repository = world.open();
    let writer = Writer::begin(&repository, WriterOptions { level: 1, threads: 1, dry_run: false }, &Silent).unwrap();
    let other = world.open();
    let source = world.source.path().to_owned();
    let patience = meanwhile(move || {
        // It began before the marks were put, so it relies on what they condemn.
        writer.abandon().unwrap();
        Answer::Wait
    });
    // The marks are there when this backup begins: it stores again what they name.
    let report = run_with(&other, &thorough(), &patience, &Silent, &Stop::new()).unwrap();
    assert!(report.deleted.packs > 0 && report.spared.packs == 0);
    back_up(&world.open(), &source);
    world.is_whole();
    (0..BIG / 2).for_each(|number| world.remove(&format!("big{number}")));
    world.remove("small0");
    world.restores(second, world.source.path());
}

#[test]
fn snapshots_that_come_while_a_prune_waits_keep_what_they_need() {
    let (world, [first, _]) = changed();
    world.forget(first);
    bring_back(&world);
    // This one has its pin, and has listed marks, before the prune puts its own.
    let gate = Arc::new(std::sync::Barrier::new(2));
    let source = world.source.path().to_owned();
    let (passed, stopper) = (AtomicBool::new(false), gate.clone());
    let slow = HookedStore::new(&world.store).shown(move |_, kind, listed| {
        // It has listed the index and the packs, and goes on when somebody lets it.
        if kind == ObjectKind::Revoke && !passed.swap(true, Ordering::Relaxed) {
            stopper.wait();
            stopper.wait();
        }
        listed
    });
    let repository = open(Arc::new(slow));
    let backing_up = std::thread::spawn(move || back_up(&repository, &source));
    gate.wait();
    let patience = meanwhile(|| {
        gate.wait();
        Answer::Wait
    });
    let report = run_with(&world.open(), &thorough(), &patience, &Silent, &Stop::new());
    let third = backing_up.join().unwrap();
    let report = report.unwrap();
    assert!(report.spared.packs > 0, "{report:?}");
    world.restores(third, world.source.path());
    world.is_whole();
}

#[test]
fn a_tomb_that_comes_while_a_prune_waits_does_not_count_yet_and_one_that_goes_spares() {
    let (world, [first, second]) = changed();
    world.forget(first);
    let repository = world.open();
    let pin = world.open();
    let pin = pin.pinned().unwrap();
    let patience = meanwhile(|| {
        // Forgotten while it waits, and the other one undeleted.
        repository.put_tomb(second).unwrap();
        repository.store().delete(&ObjectKey::new(ObjectKind::Tomb, first)).unwrap();
        drop(pin);
        Answer::Wait
    });
    let report = run_with(&world.open(), &thorough(), &patience, &Silent, &Stop::new()).unwrap();
    assert_eq!(report.snapshots_dropped, []);
    world.store.delete(&ObjectKey::new(ObjectKind::Tomb, second)).unwrap();
    assert_eq!(world.open().snapshots().unwrap().live.len(), 2);
    world.is_whole();
}

#[test]
fn a_session_that_is_revoked_fails_and_one_that_lives_is_waited_for() {
    let (world, [first, _]) = changed();
    world.forget(first);
    let repository = world.open();
    let writer = Writer::begin(&repository, WriterOptions { level: 1, threads: 1, dry_run: false }, &Silent).unwrap();
    let session = writer.session();
    // Nobody waits longer than this.
    let before = world.packs();
    let error = world.prune(&PruneOptions { max_wait: Some(Duration::ZERO), ..thorough() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("still runs"), "{error}");
    assert_eq!(keys(&world.store, ObjectKind::Mark), []);
    // What was written again stays for the next time; nothing is deleted.
    assert!(world.packs() >= before);
    let report = world.prune(&PruneOptions { revoke_after: Duration::ZERO, ..thorough() }).unwrap();
    assert_eq!((report.revoked, report.snapshots_dropped.len()), (1, 1));
    let listed = repository.snapshots().unwrap();
    let old = listed.live[0].snapshot.clone();
    let error = writer.commit(|_| crate::format::snapshot::Snapshot { session, ..old }).unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    assert_eq!(world.open().snapshots().unwrap().live.len(), 1);
    world.is_whole();
}

#[test]
fn leavings_of_a_stopped_prune_are_cleared_away() {
    let (world, [first, _]) = changed();
    world.forget(first);
    let mut moments = 0;
    let whole: Vec<_> =
        world.store.raw_keys().into_iter().map(|key| (key.clone(), world.store.raw_get(&key).unwrap())).collect();
    for moment in 1.. {
        let store = MemoryStore::new();
        whole.iter().for_each(|(key, bytes)| store.raw_set(key, bytes.clone()));
        let faults = Faults { crash_at: Some(moment), crash_applies: moment % 2 == 0, ..Faults::default() };
        let faulty = Arc::new(FaultyStore::new(store.clone(), faults));
        let outcome = run(&open(faulty.clone()), &thorough(), &Silent, &Stop::new());
        if !faulty.has_crashed() {
            outcome.unwrap();
            break;
        }
        moments += 1;
        let left = World { store, source: tempfile::tempdir().unwrap() };
        left.restores_newest(&world);
        // The pin of the one who was stopped is of this very process.
        keys(&left.store, ObjectKind::Pin).iter().for_each(|key| left.store.delete(key).unwrap());
        let report = left.prune(&thorough()).unwrap();
        for kind in [ObjectKind::Mark, ObjectKind::Pin] {
            assert_eq!(keys(&left.store, kind), [], "{moment} {report:?}");
        }
        left.restores_newest(&world);
        let packs = StoredPacks::list(&left.store).unwrap();
        assert!(packs.iter().map(|(_, _, size)| size).sum::<u64>() < BIG / 2 * 140_000 + 200_000, "{moment}");
        let again = left.prune(&thorough()).unwrap();
        assert_eq!((again.deleted.packs, again.unlisted), (0, 0), "{moment}");
    }
    assert!(moments >= 10, "{moments}");
}

impl World {
    /// The newest snapshot is whole and like the source of another world.
    fn restores_newest(&self, other: &World) {
        let repository = self.open();
        let report = check::run(
            &repository,
            &CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() },
            &Silent,
            &Stop::new(),
        )
        .unwrap();
        assert!(
            report.findings.iter().all(|finding| finding.severity == check::Severity::Note),
            "{:?}",
            report.findings
        );
        let newest = repository.snapshots().unwrap().live.pop().unwrap().name;
        self.restores(newest, other.source.path());
    }
}

#[test]
fn a_full_store_can_be_pruned() {
    for rewrite in [false, true] {
        let (world, [first, _]) = changed();
        world.forget(first);
        let stray = ObjectKey::new(ObjectKind::Tree, ObjectName([5; 32]));
        world.store.raw_set(&stray, [0; 5000]);
        // Not a byte is left until something is deleted.
        let full = Faults { full_after: Some(0), ..Faults::default() };
        let faulty = Arc::new(FaultyStore::new(world.store.clone(), full));
        let report = run(&open(faulty), &PruneOptions { rewrite, ..thorough() }, &Silent, &Stop::new()).unwrap();
        assert_eq!(report.snapshots_dropped, [first]);
        assert!(report.deleted.packs >= 1, "{report:?}");
        assert_eq!((keys(&world.store, ObjectKind::Mark), keys(&world.store, ObjectKind::Pin)), (vec![], vec![]));
        world.is_whole();
    }
}
