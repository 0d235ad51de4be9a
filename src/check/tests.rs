//! Damage of every kind to objects of every kind. Not for: how records are decoded (see `format`).

use super::fixture::{PATHS, coordinate, keys, open, repository};
use super::*;
use crate::progress::Silent;
use crate::store::HookedStore;
use crate::store::{Layer, Listed, MemoryStore, Operation, RecordingStore, Store};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

fn check_with(repository: &Arc<Repository>, read_data: bool) -> CheckReport {
    run(repository, &CheckOptions { read_data, threads: 2, ..CheckOptions::default() }, &Silent, &Stop::new()).unwrap()
}

fn copy(store: &MemoryStore) -> MemoryStore {
    let other = MemoryStore::new();
    store.raw_keys().iter().for_each(|key| other.raw_set(key, store.raw_get(key).unwrap()));
    other
}

/// What can happen to an object; the offset of the flipped bit lies in the first block of a pack.
fn damage(store: &MemoryStore, key: &ObjectKey, how: &str) {
    let mut bytes = store.raw_get(key).unwrap();
    match how {
        "delete" => drop(store.raw_remove(key)),
        "truncate" => store.raw_set(key, &bytes[..bytes.len() / 2]),
        "empty" => store.raw_set(key, Vec::new()),
        "zero" => store.raw_set(key, vec![0; bytes.len()]),
        _ => {
            bytes[200] ^= 4;
            store.raw_set(key, bytes);
        }
    }
}

#[test]
fn a_clean_repository_has_no_findings_and_no_data_is_read() {
    let (store, _) = repository();
    coordinate(&open(Arc::new(store.clone())), vec![ObjectName([8; 32])]);
    let recording = Arc::new(RecordingStore::new(store.clone()));
    let repository = open(recording.clone());
    recording.reset();
    let report = check_with(&repository, false);
    assert_eq!(report.findings, []);
    assert_eq!((report.snapshots, report.segments), (2, 2));
    assert_eq!(report.packs_read, keys(&store, ObjectKind::Tree).len() as u64);
    // Of each snapshot: root, "/", "/home"; the list's pages once.
    assert!((7..12).contains(&report.tree_pages), "{}", report.tree_pages);
    let counts = recording.counts();
    assert_eq!(counts.calls(Operation::Get, ObjectKind::Data) + counts.calls(Operation::GetRange, ObjectKind::Data), 0);
    assert_eq!(counts.total(Operation::Put).calls + counts.total(Operation::Delete).calls, 0);
    let report = check_with(&repository, true);
    assert_eq!(report.findings, []);
    assert_eq!(report.packs_read, report.packs);
    let stored = |kind| keys(&store, kind).iter().map(|key| store.raw_get(key).unwrap().len() as u64).sum::<u64>();
    let headers = report.packs * 96;
    assert_eq!(report.bytes_read, stored(ObjectKind::Data) + stored(ObjectKind::Tree) - headers);
}

#[test]
fn every_kind_of_damage_to_every_kind_of_object_is_found_and_rated() {
    let (whole, [first, second]) = repository();
    coordinate(&open(Arc::new(whole.clone())), vec![ObjectName([8; 32])]);
    for key in whole.raw_keys() {
        for how in ["delete", "truncate", "empty", "zero", "flip"] {
            let store = copy(&whole);
            let repository = open(Arc::new(store.clone()));
            damage(&store, &key, how);
            let report = check_with(&repository, true);
            let expected = match (key.kind, how) {
                (ObjectKind::Data | ObjectKind::Tree, _) => Some(Severity::Lost),
                (ObjectKind::Snapshot, "delete") if key.name == second.to_string() => None,
                (ObjectKind::Snapshot, _) => Some(Severity::Lost),
                (ObjectKind::Config | ObjectKind::Index, _) => Some(Severity::Repairable),
                // Nobody can know that one of these ever was.
                (_, "delete") => None,
                _ => Some(Severity::Repairable),
            };
            let seen = report.worst().filter(|worst| *worst > Severity::Note);
            assert_eq!(seen, expected, "{how} {key}: {:#?}", report.findings);
            for finding in &report.findings {
                assert!(finding.severity != Severity::Repairable || finding.hint.is_some(), "{finding:?}");
                assert!(finding.affected.len() as u64 <= finding.affected_total);
            }
            let lost: Vec<&Finding> = report.findings.iter().filter(|f| f.severity == Severity::Lost).collect();
            if matches!(key.kind, ObjectKind::Data | ObjectKind::Tree) {
                assert_eq!(lost.len(), 1, "{how} {key}: {:#?}", report.findings);
                assert_eq!(lost[0].object, key.path());
                assert!(lost[0].affected_total >= 1 && lost[0].message.contains("lost chunks"), "{lost:?}");
                for affected in &lost[0].affected {
                    let path = String::from_utf8(affected.path.clone()).unwrap();
                    assert!(path == "/" || PATHS.contains(&path.as_str()), "{path}");
                    assert!([first, second].contains(&affected.snapshot));
                }
            } else if let [finding] = lost[..] {
                assert_eq!(finding.object, key.path());
                assert_eq!(finding.affected[0].snapshot.to_string(), key.name);
            }
        }
    }
}

#[test]
fn a_changed_file_hits_one_snapshot_and_a_shared_one_both() {
    let (store, [first, second]) = repository();
    let repository = open(Arc::new(store.clone()));
    for key in keys(&store, ObjectKind::Data) {
        store.raw_remove(&key);
    }
    let report = check_with(&repository, false);
    let hit = |snapshot: ObjectName| {
        let mut paths: Vec<String> = report
            .findings
            .iter()
            .flat_map(|finding| &finding.affected)
            .filter(|affected| affected.snapshot == snapshot)
            .map(|affected| String::from_utf8(affected.path.clone()).unwrap())
            .collect();
        paths.sort();
        paths.dedup();
        paths
    };
    let files = &PATHS[1..];
    assert_eq!(hit(first), files);
    assert_eq!(hit(second), files);
    assert_eq!(report.worst(), Some(Severity::Lost));
}

#[test]
fn swapped_objects_are_noticed() {
    let (whole, _) = repository();
    for kind in [ObjectKind::Data, ObjectKind::Tree, ObjectKind::Index, ObjectKind::Snapshot, ObjectKind::Key] {
        let store = copy(&whole);
        let repository = open(Arc::new(store.clone()));
        let objects = keys(&store, kind);
        let (one, other) = (store.raw_get(&objects[0]).unwrap(), store.raw_get(&objects[1]).unwrap());
        store.raw_set(&objects[0], other);
        store.raw_set(&objects[1], one);
        let report = check_with(&repository, true);
        let expected = if kind == ObjectKind::Index { Severity::Repairable } else { Severity::Lost };
        assert_eq!(report.worst(), Some(expected), "{kind:?}: {:#?}", report.findings);
    }
}

#[test]
fn damage_outside_blocks_and_flipped_data_without_reading_it() {
    let (store, _) = repository();
    let key = keys(&store, ObjectKind::Data).remove(0);
    let mut bytes = store.raw_get(&key).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    store.raw_set(&key, bytes);
    let repository = open(Arc::new(store.clone()));
    assert_eq!(check_with(&repository, false).findings, []);
    let report = check_with(&repository, true);
    assert_eq!(report.worst(), Some(Severity::Repairable));
    assert!(report.findings[0].message.contains("all its blocks can be read"), "{:?}", report.findings);
    assert_eq!(report.findings[0].affected_total, 0);
}

#[test]
fn what_nothing_needs_is_a_note() {
    let (store, [first, second]) = repository();
    let repository = open(Arc::new(store.clone()));
    repository.put_tomb(first).unwrap();
    repository.put_tomb(second).unwrap();
    for key in keys(&store, ObjectKind::Data) {
        store.raw_remove(&key);
    }
    let report = check_with(&repository, true);
    assert_eq!((report.worst(), report.snapshots), (Some(Severity::Note), 0), "{:?}", report.findings);
    // A pruned snapshot keeps its tomb, and the chain is whole.
    store.raw_remove(&ObjectKey::new(ObjectKind::Snapshot, first));
    assert_eq!(check_with(&repository, true).worst(), Some(Severity::Note));
}

#[test]
fn stopping_is_an_error() {
    let (store, _) = repository();
    let stop = Stop::new();
    stop.trigger(2);
    let result = run(
        &open(Arc::new(store)),
        &CheckOptions { read_data: true, threads: 2, ..CheckOptions::default() },
        &Silent,
        &stop,
    );
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
}

type Act = Box<dyn FnOnce(&MemoryStore) + Send>;

/// Does something to the store when packs are listed for the first time, and may read one piece of data wrong once.
struct Moving(MemoryStore, Mutex<Option<Act>>, AtomicBool);

impl std::fmt::Debug for Moving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moving")
    }
}

impl Layer for Moving {
    fn below(&self) -> &dyn Store {
        &self.0
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.get_range(key, offset, buffer)?;
        if key.kind == ObjectKind::Data && buffer.len() > 1000 && self.2.swap(false, Ordering::Relaxed) {
            buffer[500] ^= 1;
        }
        Ok(())
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        if kind == ObjectKind::Data
            && let Some(act) = self.1.lock().unwrap().take()
        {
            act(&self.0);
        }
        self.0.list(kind, visit)
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        Layer::list(self, kind, visit)
    }
}

#[test]
fn a_prune_meanwhile_is_no_alarm() {
    let (store, _) = repository();
    let before = store.raw_keys();
    let plain = open(Arc::new(store.clone()));
    let third = super::fixture::back_up(&plain, 3000, 3, None);
    let act: Act = Box::new(move |store| {
        open(Arc::new(store.clone())).put_tomb(third).unwrap();
        let new: Vec<ObjectKey> =
            store.raw_keys().into_iter().filter(|key| !before.contains(key) && key.kind != ObjectKind::Tomb).collect();
        assert!(new.len() >= 4);
        new.iter().for_each(|key| drop(store.raw_remove(key)));
    });
    let moving = open(Arc::new(Moving(store, Mutex::new(Some(act)), AtomicBool::new(false))));
    let report = check_with(&moving, true);
    assert_eq!((report.findings, report.snapshots), (vec![], 2));
}

#[test]
fn what_was_read_wrong_only_once_is_not_condemned() {
    let (store, _) = repository();
    let flickering = open(Arc::new(Moving(store, Mutex::new(None), AtomicBool::new(true))));
    let report = check_with(&flickering, true);
    assert_eq!((report.worst(), report.findings.len()), (Some(Severity::Note), 1), "{:?}", report.findings);
    assert!(report.findings[0].message.contains("right the second time"));
}

fn check_as(repository: &Arc<Repository>, options: CheckOptions) -> CheckReport {
    run(repository, &CheckOptions { read_data: true, threads: 2, ..options }, &Silent, &Stop::new()).unwrap()
}

#[test]
fn parts_together_read_every_pack_once() {
    let (store, _) = repository();
    let repository = open(Arc::new(store.clone()));
    let data = keys(&store, ObjectKind::Data).len() as u64;
    let trees = keys(&store, ObjectKind::Tree).len() as u64;
    let read = |part| {
        let report =
            check_as(&repository, CheckOptions { subset: Some(Subset::Part { part, of: 3 }), ..Default::default() });
        assert_eq!(report.findings, []);
        report.packs_read - trees
    };
    assert_eq!((1..=3).map(read).sum::<u64>(), data);
    let all = check_as(&repository, CheckOptions { subset: Some(Subset::Share(1.0)), ..Default::default() });
    assert_eq!(all.packs_read, data + trees);
    let one = check_as(&repository, CheckOptions { subset: Some(Subset::Bytes(1)), ..Default::default() });
    assert_eq!(one.packs_read, 1 + trees);
}

#[test]
fn a_check_of_one_snapshot_reads_and_blames_only_what_it_needs() {
    let (store, [first, second]) = repository();
    let repository = open(Arc::new(store.clone()));
    let only = |name| CheckOptions { snapshots: Some(vec![name]), ..Default::default() };
    // What the second has added is not needed by the first.
    let both = check_as(&repository, CheckOptions::default());
    let old = check_as(&repository, only(first));
    assert!(old.packs_read < both.packs_read && old.snapshots == 1, "{old:?}");
    for key in keys(&store, ObjectKind::Data) {
        let mut bytes = store.raw_get(&key).unwrap();
        bytes[200] ^= 4;
        store.raw_set(&key, bytes);
    }
    for name in [first, second] {
        let report = check_as(&repository, only(name));
        assert_eq!(report.worst(), Some(Severity::Lost));
        let hit: Vec<_> = report.findings.iter().flat_map(|finding| &finding.affected).collect();
        assert!(!hit.is_empty() && hit.iter().all(|affected| affected.snapshot == name), "{hit:?}");
    }
}

#[test]
fn packs_found_right_are_left_out_next_time_and_damaged_ones_never() {
    let (store, _) = repository();
    let folder = tempfile::tempdir().unwrap();
    let repository = super::fixture::open_with_cache(Arc::new(store.clone()), folder.path());
    let data = keys(&store, ObjectKind::Data);
    let mut bytes = store.raw_get(&data[0]).unwrap();
    bytes[200] ^= 4;
    store.raw_set(&data[0], bytes);
    let lately = || CheckOptions { max_age: Some(Duration::from_secs(3600)), ..Default::default() };
    let first = check_as(&repository, lately());
    assert_eq!((first.packs_recent, first.worst()), (0, Some(Severity::Lost)));
    let second = check_as(&repository, lately());
    assert_eq!(second.packs_recent, data.len() as u64 - 1);
    assert_eq!(second.worst(), Some(Severity::Lost), "what is damaged is read again");
    // Without an age everything is read, whatever is remembered.
    let third = check_as(&repository, CheckOptions::default());
    assert_eq!((third.packs_recent, third.packs_read), (0, third.packs));
}

#[test]
fn time_that_is_over_is_told_and_nothing_is_claimed() {
    let (store, _) = repository();
    let report =
        check_as(&open(Arc::new(store)), CheckOptions { deadline: Some(Instant::now()), ..Default::default() });
    assert_eq!((report.findings, report.packs_read, report.snapshots), (Vec::new(), 0, 0));
    assert_eq!((report.packs_left, report.snapshots_left), (report.packs, 2));
}

#[test]
fn more_unindexed_packs_than_fit_into_memory_are_no_loss() {
    let (store, _) = repository();
    for key in keys(&store, ObjectKind::Index) {
        store.raw_remove(&key);
    }
    let report = check_as(&open(Arc::new(store)), CheckOptions::default());
    assert_eq!(report.worst(), Some(Severity::Repairable), "{:?}", report.findings);
    let open = report.findings.iter().find(|finding| finding.message.contains("not looked into")).unwrap();
    assert!(open.hint.as_deref().unwrap().contains("firn repair index"));
}

/// A store in which reading packs of content fails so, and perhaps every question for an object, too.
fn failing(store: &MemoryStore, errno: i32, all: bool) -> HookedStore {
    let from = AtomicBool::new(false);
    HookedStore::new(store).before(move |operation, key| {
        let is_data = key.kind == ObjectKind::Data;
        if is_data && operation == Operation::GetRange {
            from.store(true, Ordering::Relaxed);
        }
        match is_data && (operation == Operation::GetRange || all && from.load(Ordering::Relaxed)) {
            true => Err(Error::io("The object cannot be read", std::io::Error::from_raw_os_error(errno))),
            false => Ok(()),
        }
    })
}

/// What may not be read, or is in a store that cannot be reached, is not damaged, and nobody is told that it is.
#[test]
fn a_store_that_cannot_be_read_is_not_damaged() {
    let (whole, _) = repository();
    for (errno, all, is_damage) in [
        (libc::EACCES, false, false),
        (libc::ETIMEDOUT, false, false),
        (libc::ENOTCONN, true, false),
        // A connection that breaks looks like a bad sector to sshfs.
        (libc::EIO, true, false),
        (libc::EIO, false, true),
    ] {
        let store = copy(&whole);
        let options = CheckOptions { read_data: true, threads: 2, ..CheckOptions::default() };
        let repository = open(Arc::new(failing(&store, errno, all)));
        let checked = run(&repository, &options, &Silent, &Stop::new());
        assert_eq!(checked.is_ok(), is_damage, "{errno} {all}: {checked:?}");
        assert_eq!(keys(&store, ObjectKind::Damage).is_empty(), !is_damage, "{errno} {all}");
        let scrubbed = scrub::scrub(&failing(&store, errno, all), &Default::default(), &Silent, &Stop::new());
        assert_eq!(scrubbed.is_ok_and(|report| report.damaged > 0), is_damage, "{errno} {all}");
        let packs = keys(&store, ObjectKind::Data);
        let options = crate::repair::packs::PacksOptions { dry_run: true, keep: true, discard: false, threads: 1 };
        let repaired = crate::repair::packs::repair_packs(&repository, &packs, &options, &Silent, &Stop::new());
        assert_eq!(repaired.is_ok(), is_damage, "{errno} {all}: {repaired:?}");
        // Nor is it damage noted by a reader.
        packs.iter().for_each(|key| repository.note_damaged(ObjectName::parse(&key.name).unwrap()));
        assert_eq!(repository.publish_damage(&Stop::new()).is_ok(), is_damage, "{errno} {all}");
    }
}

/// The same for a snapshot or another small object.
#[test]
fn a_small_object_that_may_not_be_read_is_not_damaged() {
    for kind in [ObjectKind::Snapshot, ObjectKind::Index, ObjectKind::Tomb, ObjectKind::Pin, ObjectKind::Revoke] {
        let (store, _) = repository();
        coordinate(&open(Arc::new(store.clone())), vec![ObjectName([8; 32])]);
        let open_to = open(Arc::new(HookedStore::new(&store).before(move |operation, key| {
            match key.kind == kind && matches!(operation, Operation::Get | Operation::GetRange) {
                true => Err(Error::io("The object cannot be read", std::io::Error::from_raw_os_error(libc::EACCES))),
                false => Ok(()),
            }
        })));
        let checked = run(&open_to, &CheckOptions { threads: 1, ..CheckOptions::default() }, &Silent, &Stop::new());
        assert_eq!(checked.map_err(|error| error.kind()).unwrap_err(), ErrorKind::Denied, "{kind:?}");
    }
}

/// The index is loaded anew by whatever reads meanwhile; a check goes on with the one with which it began.
#[test]
fn an_index_that_is_loaded_anew_during_a_check_is_no_alarm() {
    let (store, _) = repository();
    let repository = open(Arc::new(store.clone()));
    let (options, stop) = (CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() }, Stop::new());
    let (report, failure) = (CheckReport::default(), None);
    let mut pass = Pass {
        repository: &repository,
        options: &options,
        progress: &Silent,
        stop: &stop,
        report,
        failure,
        vanished: false,
        is_again: false,
        is_last: true,
    };
    let snapshots = pass.check_snapshots().unwrap();
    let (indexed, index) = pass.check_segments().unwrap();
    // Many more packs come, and all of them are numbered anew.
    let others = open(Arc::new(store.clone()));
    let mut before = None;
    for number in 0..4 {
        before = Some(super::fixture::back_up(&others, 5000 + number, 1 + number, before));
    }
    let all = crate::repair::RepairOptions { dry_run: false, read_all: true, keep_missing: false, threads: 1 };
    crate::repair::repair_index(&others, &all, &Silent, &stop).unwrap();
    repository.reload_index(&Silent).unwrap();
    let mut verdicts = packs::Verdicts::default();
    let looked = pass.check_packs(indexed, index, &mut verdicts).unwrap();
    pass.check_trees(&snapshots.live, looked, &mut verdicts).unwrap();
    let bad: Vec<_> = pass.report.findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert_eq!(bad, Vec::<&Finding>::new());
    assert!(!pass.vanished);
}
