//! Indexes lost, damaged and condemned. Not for: what check says about them otherwise (see `check`).

use super::*;
use crate::check::fixture::{coordinate, keys, open, repository};
use crate::check::{CheckOptions, CheckReport, Severity, run};
use crate::id::ChunkId;
use crate::progress::Silent;
use crate::repair::snapshots::{Became, SnapshotsOptions, repair_snapshots};
use crate::repository::index::read_segment;
use crate::repository::segments;
use crate::store::HookedStore;
use crate::store::{Layer, Listed, MemoryStore, Operation, RecordingStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const FAST: RepairOptions = RepairOptions { dry_run: false, read_all: false, keep_missing: false, threads: 2 };

fn repair(store: &MemoryStore, options: RepairOptions) -> Result<RepairReport> {
    repair_index(&open(Arc::new(store.clone())), &options, &Silent, &Stop::new())
}

fn check(store: &MemoryStore) -> CheckReport {
    let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
    run(&open(Arc::new(store.clone())), &options, &Silent, &Stop::new()).unwrap()
}

fn rows(store: &MemoryStore) -> u64 {
    open(Arc::new(store.clone())).index().unwrap().rows()
}

fn flip(store: &MemoryStore, key: &ObjectKey, at: usize) {
    let mut bytes = store.raw_get(key).unwrap();
    bytes[at] ^= 1;
    store.raw_set(key, bytes);
}

#[test]
fn a_whole_index_is_left_alone() {
    let (store, _) = repository();
    let before = store.raw_keys();
    let report = repair(&store, FAST).unwrap();
    let packs = report.packs;
    assert_eq!(report, RepairReport { packs, scanned: packs, segments_kept: 2, ..RepairReport::default() });
    assert_eq!(store.raw_keys(), before);
}

#[test]
fn lost_and_damaged_segments_come_back_from_the_packs() {
    for (delete, read_all) in [(true, false), (false, false), (true, true), (false, true)] {
        let (store, _) = repository();
        let chunks = rows(&store);
        for key in keys(&store, ObjectKind::Index) {
            if delete { drop(store.raw_remove(&key)) } else { flip(&store, &key, 150) }
        }
        assert_eq!(check(&store).worst(), Some(Severity::Repairable));
        let before = store.raw_keys();
        let plan = repair(&store, RepairOptions { dry_run: true, read_all, ..FAST }).unwrap();
        assert_eq!(store.raw_keys(), before);
        let report = repair(&store, RepairOptions { read_all, ..FAST }).unwrap();
        assert_eq!(plan, report);
        assert_eq!((report.segments_written, report.scanned, report.chunks), (1, report.packs, chunks));
        assert_eq!(check(&store).findings, []);
        assert_eq!(rows(&store), chunks);
        assert_eq!(keys(&store, ObjectKind::Pin), []);
    }
}

#[test]
fn one_damaged_segment_costs_only_its_packs() {
    let (store, _) = repository();
    let chunks = rows(&store);
    flip(&store, &keys(&store, ObjectKind::Index)[0], 150);
    let report = repair(&store, FAST).unwrap();
    assert_eq!((report.segments_kept, report.segments_written, report.segments_removed), (1, 1, 1));
    assert!(report.indexed < report.packs);
    assert_eq!(check(&store).findings, []);
    assert_eq!(rows(&store), chunks);
}

#[test]
fn an_old_listing_hides_no_pack_from_the_new_index() {
    let (store, _) = repository();
    let chunks = rows(&store);
    keys(&store, ObjectKind::Index).iter().for_each(|key| drop(store.raw_remove(key)));
    let hidden = HookedStore::new(&store).shown(|operation, kind, mut listed| {
        if operation == Operation::List && matches!(kind, ObjectKind::Data | ObjectKind::Tree) {
            listed.pop();
        }
        listed
    });
    repair_index(&open(Arc::new(hidden)), &FAST, &Silent, &Stop::new()).unwrap();
    assert_eq!((rows(&store), check(&store).findings), (chunks, vec![]));
}

#[test]
fn everything_anew_replaces_all_segments() {
    let (store, _) = repository();
    let chunks = rows(&store);
    let report = repair(&store, RepairOptions { read_all: true, ..FAST }).unwrap();
    assert_eq!((report.segments_kept, report.segments_written, report.segments_removed), (0, 1, 2));
    assert_eq!(check(&store).findings, []);
    assert_eq!(rows(&store), chunks);
}

#[test]
fn a_pack_without_contents_is_salvaged_by_its_blocks() {
    let (store, _) = repository();
    let chunks = rows(&store);
    let pack = keys(&store, ObjectKind::Data).remove(0);
    let last = store.raw_get(&pack).unwrap().len() - 1;
    flip(&store, &pack, last);
    keys(&store, ObjectKind::Index).iter().for_each(|key| drop(store.raw_remove(key)));
    let report = repair(&store, FAST).unwrap();
    assert_eq!(report.salvaged, [pack.path()]);
    assert_eq!((report.lost.len(), report.chunks), (0, chunks));
    // The pack is still not what its name says, and nothing is lost.
    let report = check(&store);
    assert_eq!((report.worst(), report.findings.len()), (Some(Severity::Repairable), 1));
}

#[test]
fn packs_are_durable_before_a_segment_names_them() {
    let (store, _) = repository();
    keys(&store, ObjectKind::Index).iter().for_each(|key| drop(store.raw_remove(key)));
    let packs = keys(&store, ObjectKind::Data).len() + keys(&store, ObjectKind::Tree).len();
    let recording = Arc::new(RecordingStore::with_log(store));
    repair_index(&open(recording.clone()), &FAST, &Silent, &Stop::new()).unwrap();
    let log = recording.log();
    let settles = || log.iter().filter(|call| call.operation == Operation::Settle);
    assert_eq!(settles().map(|call| call.bytes).sum::<u64>(), packs as u64);
    let named = log.iter().position(|call| call.operation == Operation::Put && call.kind == ObjectKind::Index).unwrap();
    assert!(log[named..].iter().all(|call| call.operation != Operation::Settle));
}

#[test]
fn lost_packs_are_named_and_left_alone() {
    let (store, _) = repository();
    let pack = keys(&store, ObjectKind::Data).remove(0);
    flip(&store, &pack, 40);
    for read_all in [false, true] {
        let report = repair(&store, RepairOptions { read_all, ..FAST }).unwrap();
        let lost: Vec<String> = report.lost.into_iter().map(|(key, _)| key).collect();
        assert_eq!(lost, [pack.path()]);
        // What is known about it stays known, so that check goes on naming it.
        assert!(check(&store).findings.iter().any(|finding| finding.object == pack.path()));
    }
    assert!(store.raw_get(&pack).is_some());
}

#[test]
fn packs_that_are_gone_leave_the_index() {
    let (store, _) = repository();
    let pack = keys(&store, ObjectKind::Data).remove(0);
    store.raw_remove(&pack);
    let report = repair(&store, FAST).unwrap();
    assert_eq!((report.indexed, report.segments_kept, report.segments_removed), (0, 1, 1));
    let findings = check(&store).findings;
    assert!(findings.iter().all(|finding| finding.object == "index"), "{findings:?}");
    assert_eq!(repair(&store, FAST).unwrap().segments_kept, 1 + report.segments_written);
}

#[test]
fn condemned_packs_are_not_indexed_anew_and_stay_where_they_are() {
    let (store, _) = repository();
    let chunks = rows(&store);
    let packs = keys(&store, ObjectKind::Data).into_iter().chain(keys(&store, ObjectKind::Tree));
    let names = packs.map(|key| ObjectName::parse(&key.name).unwrap()).collect();
    coordinate(&open(Arc::new(store.clone())), names);
    let report = repair(&store, RepairOptions { read_all: true, ..FAST }).unwrap();
    assert_eq!((report.condemned, report.scanned, report.chunks), (report.packs, 0, chunks));
    keys(&store, ObjectKind::Index).iter().for_each(|key| drop(store.raw_remove(key)));
    let report = repair(&store, FAST).unwrap();
    assert_eq!((report.condemned, report.segments_written), (report.packs, 0));
    flip(&store, &keys(&store, ObjectKind::Mark)[0], 120);
    assert_eq!(repair(&store, FAST).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn newer_packs_stop_it_before_anything_changes() {
    let (store, _) = repository();
    keys(&store, ObjectKind::Index).iter().for_each(|key| drop(store.raw_remove(key)));
    let pack = keys(&store, ObjectKind::Tree).remove(0);
    let mut bytes = store.raw_get(&pack).unwrap();
    bytes[8] = 2;
    store.raw_set(&pack, bytes);
    let before = store.raw_keys();
    assert_eq!(repair(&store, FAST).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(store.raw_keys(), before);
}

#[test]
fn configs_come_back() {
    for damaged in [1, 2] {
        let (store, _) = repository();
        for key in keys(&store, ObjectKind::Config).iter().take(damaged) {
            flip(&store, key, 120);
        }
        assert_eq!(check(&store).worst(), Some(Severity::Repairable));
        let report = repair(&store, FAST).unwrap();
        assert_eq!((report.configs_written, report.configs_removed), (damaged as u64, damaged as u64));
        assert_eq!(check(&store).findings, []);
    }
}

fn chunk(n: u32) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

#[test]
fn a_pack_stands_whole_in_one_segment_however_many_chunks_it_has() {
    let (store, _) = repository();
    let repository = open(Arc::new(store));
    let mut writer = SegmentWriter::new(&repository, false);
    let mut next = 0;
    // Around the number at which a segment is full, and the most that a pack can have.
    let sizes = [segments::SEGMENT_CHUNKS - 1, segments::SEGMENT_CHUNKS, 5, 230_000, 262_144, 90_000, 90_000, 7];
    for (number, size) in sizes.into_iter().enumerate() {
        let mut rows: Rows = (next..next + size as u32).map(|n| (chunk(n), n % 2)).collect();
        next += size as u32;
        tidy(&mut rows);
        writer.push(pack_record(ObjectName([number as u8; 32]), false, 0, 1000, vec![100, 100]), rows).unwrap();
    }
    let written = writer.finish(&BTreeSet::from([ObjectName([3; 32])])).unwrap();
    assert_eq!(written.chunks, u64::from(next));
    let mut found = BTreeMap::new();
    for (number, name) in written.names.iter().enumerate() {
        let segment = read_segment(repository.keyring(), repository.store(), *name).unwrap();
        // Only the last one replaces.
        assert_eq!(segment.replaces.len(), usize::from(number == written.names.len() - 1));
        for (record, rows) in segments::unfold(segment) {
            assert_eq!(found.insert(record.name, rows.len()), None);
        }
    }
    assert_eq!(found.into_values().collect::<Vec<_>>(), sizes);
    let mut writer = SegmentWriter::new(&repository, true);
    let rows = (0..400_000).map(|n| (chunk(n), 0)).collect();
    let refused = writer.push(pack_record(ObjectName([1; 32]), false, 0, 1000, vec![100]), rows);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Damaged);
}

/// Puts the index as a program before this one may have done: what it says about each pack, spread over two segments.
fn split(store: &MemoryStore) -> Vec<ObjectKey> {
    let repository = open(Arc::new(store.clone()));
    let old = keys(store, ObjectKind::Index);
    let mut halves = [SegmentWriter::new(&repository, false), SegmentWriter::new(&repository, false)];
    for key in &old {
        let name = ObjectName::parse(&key.name).unwrap();
        let segment = read_segment(repository.keyring(), repository.store(), name).unwrap();
        for (record, mut rows) in segments::unfold(segment) {
            let rest = rows.split_off(rows.len() / 2);
            halves[0].push(record.clone(), rows).unwrap();
            halves[1].push(record, rest).unwrap();
        }
    }
    old.iter().for_each(|key| drop(store.raw_remove(key)));
    let written = halves.into_iter().flat_map(|half| half.finish(&BTreeSet::new()).unwrap().names);
    written.map(|name| ObjectKey::new(ObjectKind::Index, name)).collect()
}

#[test]
fn parts_of_packs_are_read_and_joined_when_they_are_written_again() {
    let (store, _) = repository();
    let chunks = rows(&store);
    split(&store);
    assert_eq!(rows(&store), chunks);
    assert_eq!(check(&store).worst(), Some(Severity::Repairable));
    // Whoever replaces any of them joins them: one pack is left out, and all others of its segments are carried over.
    let repository = open(Arc::new(store.clone()));
    let old = OldSegments::read(&repository, &Stop::new()).unwrap();
    let writer = SegmentWriter::new(&repository, false);
    replace(&repository, &old, &old.readable, |_| false, writer, &Stop::new()).unwrap();
    assert_eq!(rows(&store), chunks);
    assert_eq!(check(&store).findings, []);
    // So does a repair, also of a single one.
    let parts = split(&store);
    flip(&store, &parts[0], 150);
    let report = repair(&store, FAST).unwrap();
    assert!(report.indexed > 1, "{report:?}");
    assert_eq!((report.chunks, report.segments_removed), (chunks, 2));
    assert_eq!(check(&store).findings, []);
    assert_eq!(rows(&store), chunks);
}

/// Whatever is left of the index: no chunk that a stored pack holds is ever called lost, and no file is dropped for it.
#[test]
fn a_part_of_the_index_is_never_taken_for_the_whole() {
    for delete in [false, true] {
        for which in 0..2 {
            let (store, named) = repository();
            let chunks = rows(&store);
            let parts = split(&store);
            if delete {
                drop(store.raw_remove(&parts[which]))
            } else {
                flip(&store, &parts[which], 150)
            }
            let report = check(&store);
            assert_eq!(report.worst(), Some(Severity::Repairable), "{delete} {which}: {:?}", report.findings);
            let options = SnapshotsOptions { dry_run: true, forget: true, threads: 1 };
            let repository = open(Arc::new(store.clone()));
            let repair =
                |options: &SnapshotsOptions| repair_snapshots(&repository, None, options, &Silent, &Stop::new());
            assert!(repair(&options).is_err(), "{delete} {which}");
            let outcomes = repair(&SnapshotsOptions { dry_run: false, ..options }).unwrap();
            let whole: Vec<_> = outcomes.iter().map(|one| (one.snapshot, one.became.clone(), one.forgotten)).collect();
            let expected: Vec<_> = named.iter().map(|name| (*name, Became::Whole, false)).collect();
            assert!(expected.iter().all(|one| whole.contains(one)) && whole.len() == expected.len(), "{whole:?}");
            assert_eq!((rows(&store), check(&store).findings), (chunks, vec![]), "{delete} {which}");
        }
    }
}

/// A pack whose list of contents is damaged, and any block before its end as well: what only the index says stays.
#[test]
fn what_the_index_knows_of_a_damaged_pack_is_kept() {
    let (store, _) = repository();
    let chunks = rows(&store);
    let index = open(Arc::new(store.clone())).index().unwrap();
    let mut packs = Vec::new();
    let mut keep = |pack| {
        packs.push(pack);
        Ok(())
    };
    index.for_each_pack(&mut keep).unwrap();
    let pack = packs.into_iter().max_by_key(|pack| pack.frames.len()).expect("a pack");
    assert!(pack.frames.len() > 2);
    let key = crate::repository::read::pack_key(&pack);
    let last = store.raw_get(&key).unwrap().len() - 1;
    flip(&store, &key, last);
    let mut at = HEADER_LEN;
    for (number, frame) in pack.frames.iter().enumerate() {
        // The length of a frame: without the index nothing behind it is found.
        flip(&store, &key, at);
        for _ in 0..2 {
            let report = repair(&store, FAST).unwrap();
            let found = (report.lost.len(), report.salvaged.len(), report.indexed);
            assert_eq!(found, (usize::from(number == 0), usize::from(number > 0), 0), "{number}");
            assert_eq!(rows(&store), chunks, "{number}");
        }
        flip(&store, &key, at);
        at += *frame as usize;
    }
}

/// Lists only a part of what is there, as some servers do for a while.
#[derive(Debug)]
struct Forgetful(MemoryStore);

impl Layer for Forgetful {
    fn below(&self) -> &dyn Store {
        &self.0
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        match kind {
            ObjectKind::Data | ObjectKind::Tree => Ok(()),
            _ => self.0.list(kind, visit),
        }
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        Layer::list(self, kind, visit)
    }
}

/// Once everything is read, or once a new segment is stored, another repair runs from its beginning to its end.
#[derive(Debug)]
struct Overtaken {
    store: MemoryStore,
    after_put: bool,
    reads: std::sync::atomic::AtomicU64,
    overtaken: std::sync::atomic::AtomicBool,
}

impl Overtaken {
    fn overtake(&self) {
        if !self.overtaken.swap(true, Ordering::Relaxed) {
            repair(&self.store, RepairOptions { read_all: true, ..FAST }).unwrap();
        }
    }
}

impl Layer for Overtaken {
    fn below(&self) -> &dyn Store {
        &self.store
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        self.store.put(key, bytes)?;
        if self.after_put && key.kind == ObjectKind::Index {
            self.overtake();
        }
        Ok(())
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        // Each of the two segments is read once to find out what it names, and then once more to be replaced.
        let reads = self.reads.fetch_add(u64::from(key.kind == ObjectKind::Index), Ordering::Relaxed);
        if !self.after_put && key.kind == ObjectKind::Index && reads == 2 {
            self.overtake();
        }
        self.store.get(key, limit)
    }
}

#[test]
fn a_repair_that_another_one_overtakes_ends_well() {
    for after_put in [false, true] {
        let (store, _) = repository();
        let chunks = rows(&store);
        let (reads, overtaken) = Default::default();
        let slow = Arc::new(Overtaken { store: store.clone(), after_put, reads, overtaken });
        repair_index(&open(slow.clone()), &RepairOptions { read_all: true, ..FAST }, &Silent, &Stop::new()).unwrap();
        assert!(slow.overtaken.load(Ordering::Relaxed), "{after_put}");
        assert_eq!(check(&store).findings, [], "{after_put}");
        assert!(rows(&store) >= chunks, "{after_put}");
    }
}

/// restic#3273 and #3317: an incomplete listing made a rebuilt index forget packs.
#[test]
fn packs_that_a_listing_misses_stay_in_the_index() {
    for read_all in [false, true] {
        let (store, _) = repository();
        let chunks = rows(&store);
        let forgetful = open(Arc::new(Forgetful(store.clone())));
        let report = repair_index(&forgetful, &RepairOptions { read_all, ..FAST }, &Silent, &Stop::new()).unwrap();
        assert_eq!((report.packs, report.scanned), (0, 0));
        assert_eq!(rows(&store), chunks);
        assert_eq!(check(&store).findings, []);
    }
}

/// kopia: an index object without any byte stopped everything.
#[test]
fn an_empty_index_object_is_damage_like_any_other_and_repairing_twice_does_nothing() {
    let (store, _) = repository();
    let key = keys(&store, ObjectKind::Index).remove(0);
    store.raw_set(&key, Vec::new());
    assert_eq!(check(&store).worst(), Some(Severity::Repairable));
    assert_eq!(repair(&store, FAST).unwrap().segments_removed, 1);
    assert_eq!(check(&store).findings, []);
    let before = store.raw_keys();
    let again = repair(&store, FAST).unwrap();
    assert_eq!((again.segments_written, again.segments_removed), (0, 0));
    assert_eq!(store.raw_keys(), before);
}

/// Segments that are listed and taken away, one more at each attempt to read them: by a repair that has many to take away.
#[derive(Debug)]
struct Vanishing(MemoryStore, BTreeSet<String>);

impl Layer for Vanishing {
    fn below(&self) -> &dyn Store {
        &self.0
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        if key.kind == ObjectKind::Index && self.1.contains(&key.name) {
            self.0.delete(key)?;
        }
        self.0.get(key, limit)
    }
}

#[test]
fn readers_do_not_mind_how_long_a_repair_takes_old_segments_away() {
    let (store, _) = repository();
    let repository = open(Arc::new(store.clone()));
    let put = |replaced: &BTreeSet<ObjectName>, n: u8| {
        let mut writer = SegmentWriter::new(&repository, false);
        let id = crate::id::ChunkId([n; 32]);
        writer.push(pack_record(ObjectName([n; 32]), false, 0, 1000, vec![100]), vec![(id, 0)]).unwrap();
        writer.finish(replaced).unwrap().names
    };
    let old: BTreeSet<ObjectName> = (0..40).flat_map(|n| put(&BTreeSet::new(), n)).collect();
    put(&old, 41);
    let left = rows(&store);
    let names = old.iter().map(ToString::to_string).collect();
    assert_eq!(open(Arc::new(Vanishing(store.clone(), names))).index().unwrap().rows(), left);
}
