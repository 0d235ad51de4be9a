//! Tests of the writer's protocol, of reading back, and of trees, over a store in memory. Not for: single files of this folder.

use super::assemble::{Assembler, Group};
use super::keys::Credentials;
use super::tree::{ContentBuilder, DirectoryBuilder, PageCut};
use super::writer::{Writer, WriterOptions, Written};
use super::*;
use crate::chunk::password::Cost;
use crate::format::coordination::{Mark, Pin, Revoke};
use crate::format::message::ChunkKind;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Body, Content, Entry, Extent, Metadata, Owner, Timestamp, Totals};
use crate::id::{ChunkId, SessionId};
use crate::progress::Silent;
use crate::store::HookedStore;
use crate::store::{Faults, FaultyStore, Listed, MemoryStore, ObjectKind, Operation, RecordingStore};
use crate::view::path::{ROOT_NAME, find, lookup};

fn credentials(password: &str) -> Credentials {
    Credentials { password: Some(password.as_bytes().to_vec().into()), key_file: None }
}

const COST: Cost = Cost { memory: 8, passes: 1, lanes: 1 };

pub(super) fn new_store() -> MemoryStore {
    let store = MemoryStore::new();
    Repository::init(&store, &credentials("p"), COST, "test").unwrap();
    store
}

fn open_any(store: Arc<dyn Store>) -> Result<Arc<Repository>> {
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 8 << 20 };
    Repository::open(store, &credentials("p"), &options).map(Arc::new)
}

pub(super) fn open(store: &MemoryStore) -> Arc<Repository> {
    open_any(Arc::new(store.clone())).unwrap()
}

pub(super) fn begin(repository: &Arc<Repository>) -> Result<Writer> {
    Writer::begin(repository, WriterOptions { level: 1, threads: 2, dry_run: false }, &Silent)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn file(name: &str, content: Content, size: u64) -> Entry {
    Entry { name: name.as_bytes().to_vec(), meta: metadata(), body: Body::File { size, content } }
}

fn metadata() -> Metadata {
    Metadata {
        mode: 0o644,
        owner: Arc::new(Owner { uid: 1, gid: 2, user: b"me".to_vec(), group: b"us".to_vec() }),
        mtime: Timestamp { seconds: 5, nanos: 6 },
        btime: None,
        attributes: None,
        link: None,
        blocks: None,
        flags: 0,
        waypoint: false,
        unreliable: false,
    }
}

fn snapshot(repository: &Repository, session: SessionId, tree: ChunkId, totals: Totals) -> Snapshot {
    Snapshot::of_tests((repository.writer_id(), session), jiff::Timestamp::now(), tree, totals)
}

/// Files of many sizes, as a directory below the root.
fn write_files(writer: &Writer, seeds: std::ops::Range<u64>) -> Result<(ChunkId, Totals)> {
    let cut = PageCut::new(writer.repository().keyring());
    let mut out = Assembler::new(writer);
    let mut directory = DirectoryBuilder::default();
    for seed in seeds {
        let bytes = noise(seed, 1000 + (seed as usize * 7919) % 300_000);
        let (id, _) = out.add(ChunkKind::Content, Group::Owner(0), &bytes)?;
        let content = Content::Extents(vec![Extent::Chunk { id, len: bytes.len() as u32 }]);
        directory.push(&file(&format!("{seed:05}"), content, bytes.len() as u64), &cut, &mut out)?;
    }
    let (page, totals) = directory.finish(&cut, &mut out)?;
    let mut root = DirectoryBuilder::default();
    let body = Body::Directory { size: 0, page, totals };
    root.push(&Entry { name: ROOT_NAME.to_vec(), meta: metadata(), body }, &cut, &mut out)?;
    let (id, _) = root.finish(&cut, &mut out)?;
    out.flush()?;
    Ok((id, totals))
}

fn backup(repository: &Arc<Repository>, seeds: std::ops::Range<u64>) -> Result<(ObjectName, Written)> {
    let writer = begin(repository)?;
    let session = writer.session();
    let (tree, totals) = match write_files(&writer, seeds) {
        Ok(written) => written,
        Err(error) => {
            drop(writer.abandon());
            return Err(error);
        }
    };
    let (name, _, written) = writer.commit(|_| snapshot(repository, session, tree, totals))?;
    Ok((name, written))
}

fn verify(repository: &Repository, name: ObjectName, seeds: std::ops::Range<u64>) {
    let snapshot = repository.snapshot(name).unwrap();
    for seed in seeds {
        let entry = find(repository, &snapshot, format!("/{seed:05}").as_bytes()).unwrap();
        let Body::File { size, content } = entry.body else { panic!("not a file") };
        let mut bytes = Vec::new();
        crate::view::content::copy(repository, size, &content, &mut bytes).unwrap();
        assert!(bytes == noise(seed, bytes.len()) && bytes.len() as u64 == size, "file {seed}");
    }
}

#[test]
fn what_was_committed_reads_back_and_is_stored_once() {
    let store = new_store();
    let (first, written) = backup(&open(&store), 0..60).unwrap();
    // Sixty files, and a few pages: where a directory is cut depends on the secret.
    assert!((62..=68).contains(&written.chunks), "{written:?}");
    let (second, written) = backup(&open(&store), 0..61).unwrap();
    // The new file, a page or two of its directory, the root's page.
    assert!((3..=6).contains(&written.chunks), "{written:?}");
    let repository = open(&store);
    verify(&repository, first, 0..60);
    verify(&repository, second, 0..61);
    assert!(open_any(Arc::new(store)).is_ok());
}

#[test]
fn a_wrong_password_opens_nothing_and_keys_can_be_changed() {
    let store = new_store();
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
    let wrong = Repository::open(Arc::new(store.clone()), &credentials("q"), &options).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongKey);
    let repository = open(&store);
    assert_eq!(repository.remove_key(repository.slot()).unwrap_err().kind(), ErrorKind::Brake);
    let added = repository.add_key(&credentials("q"), COST, "second").unwrap();
    let labels: Vec<String> =
        repository.key_slots().unwrap().into_iter().map(|(_, info)| info.unwrap().description.unwrap().label).collect();
    assert_eq!(labels.len(), 2);
    assert!(labels.contains(&"second".to_owned()));
    repository.remove_key(repository.slot()).unwrap();
    assert_eq!(open_any(Arc::new(store.clone())).unwrap_err().kind(), ErrorKind::WrongKey);
    let again = Repository::open(Arc::new(store), &credentials("q"), &options).unwrap();
    assert_eq!(again.slot(), added);
}

#[test]
fn the_order_of_steps_is_that_of_the_protocol() {
    let store = Arc::new(RecordingStore::with_log(new_store()));
    let repository = open_any(store.clone()).unwrap();
    store.reset();
    backup(&repository, 0..20).unwrap();
    let log = store.log();
    let first = |operation: Operation, kind: ObjectKind| {
        log.iter().position(|call| call.operation == operation && call.kind == kind).unwrap()
    };
    let last = |operation: Operation, kind: ObjectKind| {
        log.iter().rposition(|call| call.operation == operation && call.kind == kind).unwrap()
    };
    assert_eq!(first(Operation::Put, ObjectKind::Pin), 0, "the pin comes before everything");
    assert!(first(Operation::ListFresh, ObjectKind::Mark) < first(Operation::ListFresh, ObjectKind::Index));
    assert!(first(Operation::ListFresh, ObjectKind::Index) < first(Operation::Put, ObjectKind::Data));
    let packs = last(Operation::Put, ObjectKind::Data).max(last(Operation::Put, ObjectKind::Tree));
    assert!(packs < last(Operation::Put, ObjectKind::Index));
    assert!(last(Operation::Put, ObjectKind::Index) < first(Operation::Put, ObjectKind::Snapshot));
    assert!(first(Operation::Put, ObjectKind::Snapshot) < last(Operation::ListFresh, ObjectKind::Revoke));
    assert!(last(Operation::ListFresh, ObjectKind::Revoke) < last(Operation::Delete, ObjectKind::Pin));
}

#[test]
fn what_a_snapshot_relies_on_is_made_durable_first() {
    let store = new_store();
    backup(&open(&store), 0..20).unwrap();
    let recording = Arc::new(RecordingStore::with_log(store.clone()));
    // Nothing new is stored: the snapshot relies on the segment of the other writer, who may have been stopped right after naming it.
    let (_, written) = backup(&open_any(recording.clone()).unwrap(), 0..20).unwrap();
    assert_eq!(written.chunks, 0);
    let log = recording.log();
    let at = |operation: Operation, kind: ObjectKind| {
        log.iter().position(|call| call.operation == operation && call.kind == kind).unwrap()
    };
    let settled = at(Operation::Settle, ObjectKind::Index);
    assert_eq!(log[settled].bytes, 1);
    assert!(
        at(Operation::ListFresh, ObjectKind::Index) < settled && settled < at(Operation::Put, ObjectKind::Snapshot)
    );
    let faults = Faults { fail_settle: 1.0, ..Faults::default() };
    assert!(begin(&open_any(Arc::new(FaultyStore::new(store, faults))).unwrap()).is_err());
}

#[test]
fn marked_packs_are_not_relied_on() {
    let store = new_store();
    let (_, first) = backup(&open(&store), 0..30).unwrap();
    let repository = open(&store);
    let packs: Vec<ObjectName> = store
        .raw_keys()
        .into_iter()
        .filter(|key| matches!(key.kind, ObjectKind::Data | ObjectKind::Tree))
        .map(|key| ObjectName::parse(&key.name).unwrap())
        .collect();
    let prune = SessionId::random().unwrap();
    let mark = Mark { version: 1, prune, packs: packs.clone(), time: jiff::Timestamp::now(), snapshots: Vec::new() };
    let key = ObjectKey::new(ObjectKind::Mark, format!("{prune}-1"));
    repository.put_json(Kind::Mark, &key, &mark).unwrap();
    let (name, second) = backup(&repository, 0..30).unwrap();
    assert_eq!(second.chunks, first.chunks, "everything is stored again");
    // Now the prune may delete what it condemned.
    for pack in packs {
        store.raw_remove(&ObjectKey::new(ObjectKind::Data, pack));
        store.raw_remove(&ObjectKey::new(ObjectKind::Tree, pack));
    }
    verify(&open(&store), name, 0..30);
}

#[test]
fn an_unreadable_mark_stops_a_writer_before_it_relies_on_anything() {
    let store = new_store();
    let key = ObjectKey::new(ObjectKind::Mark, format!("{}-1", SessionId::random().unwrap()));
    store.raw_set(&key, vec![1, 2, 3]);
    assert!(begin(&open(&store)).is_err());
    assert!(store.raw_keys().iter().all(|key| key.kind != ObjectKind::Pin), "the pin is taken back");
}

#[test]
fn a_revoked_session_fails_and_its_snapshot_does_not_count() {
    let store = new_store();
    let repository = open(&store);
    let writer = begin(&repository).unwrap();
    let session = writer.session();
    let pin = Pin {
        version: 1,
        session,
        writer: repository.writer_id(),
        host: String::new(),
        pid: 1,
        started: jiff::Timestamp::now(),
        process: None,
    };
    repository.put_json(Kind::Revoke, &ObjectKey::new(ObjectKind::Revoke, session), &Revoke(pin)).unwrap();
    let (tree, totals) = write_files(&writer, 0..5).unwrap();
    assert!(writer.commit(|_| snapshot(&repository, session, tree, totals)).is_err());
    let snapshots = repository.snapshots().unwrap();
    assert_eq!((snapshots.live.len(), snapshots.forgotten.len()), (0, 1));
}

#[test]
fn a_tomb_that_was_not_sealed_here_hides_nothing() {
    let store = new_store();
    let (name, _) = backup(&open(&store), 0..2).unwrap();
    store.raw_set(&ObjectKey::new(ObjectKind::Tomb, name), vec![0; 500]);
    assert_eq!(open(&store).snapshots().unwrap().live.len(), 1);
}

#[test]
fn packs_of_an_interrupted_run_are_found_again() {
    let store = new_store();
    backup(&open(&store), 0..40).unwrap();
    // As if the process had been killed after its packs were stored: neither index nor snapshot.
    for key in store.raw_keys() {
        if matches!(key.kind, ObjectKind::Index | ObjectKind::Snapshot) {
            store.raw_remove(&key);
        }
    }
    let (name, written) = backup(&open(&store), 0..40).unwrap();
    assert_eq!(written.chunks, 0, "nothing is stored twice");
    verify(&open(&store), name, 0..40);
}

#[test]
fn a_lost_or_shortened_pack_is_stored_again() {
    for shorten in [false, true] {
        let store = new_store();
        backup(&open(&store), 0..20).unwrap();
        for key in store.raw_keys().into_iter().filter(|key| key.kind == ObjectKind::Data) {
            let mut bytes = store.raw_get(&key).unwrap();
            bytes.truncate(bytes.len() - 1);
            if shorten { store.raw_set(&key, bytes) } else { drop(store.raw_remove(&key)) }
        }
        let (name, written) = backup(&open(&store), 0..20).unwrap();
        assert_eq!(written.chunks, 20);
        verify(&open(&store), name, 0..20);
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    let total = {
        let store = Arc::new(FaultyStore::new(new_store(), Faults::default()));
        let repository = open_any(store.clone()).unwrap();
        backup(&repository, 0..12).unwrap();
        store.mutations()
    };
    assert!(total >= 6, "pin, packs, segment, snapshot, pin: {total}");
    for applies in [false, true] {
        for at in 1..=total {
            let base = new_store();
            let (before, _) = backup(&open(&base), 0..6).unwrap();
            let faulty = Arc::new(FaultyStore::new(base.clone(), Faults::default()));
            let repository = open_any(faulty.clone()).unwrap();
            faulty.set_faults(Faults {
                crash_at: Some(faulty.mutations() + at),
                crash_applies: applies,
                ..Faults::default()
            });
            let crashed = backup(&repository, 0..12);
            let repository = open(&base);
            let snapshots = repository.snapshots().unwrap();
            assert!(snapshots.damaged.is_empty());
            verify(&repository, before, 0..6);
            if let Ok((name, _)) = crashed {
                verify(&repository, name, 0..12);
            }
            for named in snapshots.live.iter().filter(|named| named.name != before) {
                verify(&repository, named.name, 0..12);
            }
            let (again, _) = backup(&repository, 0..12).unwrap();
            verify(&open(&base), again, 0..12);
        }
    }
}

#[test]
fn large_directories_are_looked_up_and_change_little() {
    let store = new_store();
    let repository = open(&store);
    let writer = begin(&repository).unwrap();
    let cut = PageCut::new(repository.keyring());
    let build = |skip: Option<u32>, out: &mut Assembler<'_>| {
        let mut directory = DirectoryBuilder::default();
        for number in (0..30_000u32).filter(|number| Some(*number) != skip) {
            let content = Content::Inline(number.to_le_bytes().to_vec());
            directory.push(&file(&format!("f{number:08}"), content, 4), &cut, out).unwrap();
        }
        directory.finish(&cut, out).unwrap()
    };
    let mut out = Assembler::new(&writer);
    let (full, totals) = build(None, &mut out);
    let pages = out.new_chunks();
    let (less, _) = build(Some(17_000), &mut out);
    assert!(pages > 100 && out.new_chunks() - pages <= 3, "{pages} pages, {} new", out.new_chunks() - pages);
    out.flush().unwrap();
    writer.abandon().unwrap();
    let repository = open(&store);
    assert_eq!(totals, Totals { entries: 30_000, files: 30_000, bytes: 120_000, linked: 0, attributed: 0 });
    let names: Vec<Vec<u8>> = repository.entries(full).map(|entry| entry.unwrap().name).collect();
    assert!(names.len() == 30_000 && names.is_sorted());
    for number in [0u32, 1, 16_999, 17_000, 29_999] {
        let name = format!("f{number:08}");
        let found = lookup(&repository, full, name.as_bytes()).unwrap();
        assert_eq!(found.map(|entry| entry.name), Some(name.clone().into_bytes()));
        assert_eq!(lookup(&repository, less, name.as_bytes()).unwrap().is_none(), number == 17_000);
    }
    for absent in ["", "a", "f", "f000170000", "z"] {
        assert!(lookup(&repository, full, absent.as_bytes()).unwrap().is_none());
    }
}

#[test]
fn long_lists_of_chunks_come_back_and_change_little() {
    let store = new_store();
    let repository = open(&store);
    let writer = begin(&repository).unwrap();
    for count in [0u64, 1, 32, 33, 34, 700, 5000, 40_000] {
        let extents = |changed: Option<u64>| -> Vec<Extent> {
            (0..count)
                .map(|n| match n % 5 {
                    3 => Extent::Hole(4096 + n),
                    _ => Extent::Chunk {
                        id: ChunkId(
                            *blake3::hash(&[n, u64::from(Some(n) == changed)].map(u64::to_le_bytes).concat())
                                .as_bytes(),
                        ),
                        len: 9,
                    },
                })
                .collect()
        };
        let build = |extents: &[Extent], out: &mut Assembler<'_>| {
            let mut builder = ContentBuilder::default();
            extents.iter().for_each(|extent| builder.push(*extent, out).unwrap());
            builder.finish(out).unwrap()
        };
        let mut out = Assembler::new(&writer);
        let content = build(&extents(None), &mut out);
        let pages = out.new_chunks();
        build(&extents(Some(count / 2 - count / 2 % 5)), &mut out);
        assert!(out.new_chunks() - pages <= 4, "{count}: {pages} pages, {} new", out.new_chunks() - pages);
        out.flush().unwrap();
        drop(out);
        assert_eq!(matches!(content, Content::List(_)), count > 32);
        let session = begin(&repository).unwrap();
        session.abandon().unwrap();
        contents_equal(&writer, content, extents(None), &store);
    }
    writer.abandon().unwrap();
}

fn contents_equal(writer: &Writer, content: Content, expected: Vec<Extent>, store: &MemoryStore) {
    if matches!(content, Content::List(_)) {
        // Pages are readable once their pack is stored, which only the end of a session makes sure of.
        let repository = open(store);
        let again = begin(&repository).unwrap();
        let mut out = Assembler::new(&again);
        let mut builder = ContentBuilder::default();
        expected.iter().for_each(|extent| builder.push(*extent, &mut out).unwrap());
        assert_eq!(builder.finish(&mut out).unwrap(), content, "the same extents give the same pages");
        out.flush().unwrap();
        again.abandon().unwrap();
        let repository = open(store);
        let found: Result<Vec<Extent>> = repository.extents(&content).collect();
        assert_eq!(found.unwrap(), expected);
    } else {
        assert_eq!(content, Content::Extents(expected));
    }
    assert!(writer.written().stored < u64::MAX);
}

#[test]
fn many_tiny_chunks_never_make_a_segment_too_long() {
    let store = new_store();
    let repository = open(&store);
    let writer = Writer::begin(&repository, WriterOptions { level: 1, threads: 8, dry_run: false }, &Silent).unwrap();
    let mut out = Assembler::new(&writer);
    for seed in 0..1_000_000_u64 {
        out.add(ChunkKind::Content, Group::Owner(0), &seed.to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
    drop(out);
    let session = writer.session();
    writer.commit(|_| snapshot(&repository, session, ChunkId([0; 32]), Totals::default())).unwrap();
}

#[test]
fn pages_that_overlap_are_refused() {
    use crate::format::page::Child;
    use crate::format::page_builder::{InteriorBuilder, LeafBuilder};
    let store = new_store();
    let repository = open(&store);
    let writer = begin(&repository).unwrap();
    let mut out = Assembler::new(&writer);
    let mut top = InteriorBuilder::new(1).unwrap();
    for names in [["a", "z"], ["b", "z"]] {
        let mut leaf = LeafBuilder::default();
        for name in names {
            leaf.push(&file(name, Content::Inline(b"x".to_vec()), 1)).unwrap();
        }
        let page = leaf.finish();
        let (id, _) = out.add(ChunkKind::Tree, Group::Metadata, &page.bytes).unwrap();
        let (first_name, direct, totals) = (page.first_name, page.direct, page.totals);
        top.push(&Child { first_name, page: id, direct, totals }).unwrap();
    }
    let (id, _) = out.add(ChunkKind::Tree, Group::Metadata, &top.finish().bytes).unwrap();
    out.flush().unwrap();
    drop(out);
    writer.abandon().unwrap();
    repository.reload_index(&Silent).unwrap();
    let names: Result<Vec<_>> = repository.entries(id).map(|entry| entry.map(|entry| entry.name)).collect();
    assert!(names.is_err(), "{names:?}");
}

#[test]
fn known_damage_is_stored_again_by_the_next_backup() {
    let store = new_store();
    backup(&open(&store), 0..20).unwrap();
    for key in store.raw_keys().into_iter().filter(|key| key.kind == ObjectKind::Data) {
        let mut bytes = store.raw_get(&key).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store.raw_set(&key, bytes);
    }
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { cache: CacheChoice::Root(folder.path().into()), block_cache: 8 << 20 };
    let open_cached = || Arc::new(Repository::open(Arc::new(store.clone()), &credentials("p"), &options).unwrap());
    let repository = open_cached();
    let check = crate::check::CheckOptions { read_data: true, threads: 1, ..Default::default() };
    let report = crate::check::run(&repository, &check, &Silent, &crate::progress::Stop::new()).unwrap();
    assert_eq!(report.worst(), Some(crate::check::Severity::Lost));
    drop(repository);
    let (name, written) = backup(&open_cached(), 0..20).unwrap();
    assert_eq!(written.chunks, 20, "all chunks of the damaged packs");
    verify(&open(&store), name, 0..20);
}

#[test]
fn heads_remember_what_the_store_hides() {
    let store = new_store();
    let repository = open(&store);
    let (name, _) = backup(&repository, 0..2).unwrap();
    let mut second = repository.snapshot(name).unwrap();
    let (hidden, writer) = (ObjectName([7; 32]), crate::id::WriterId([8; 16]));
    second.heads.insert(writer, crate::format::snapshot::Head { sequence: 5, snapshot: hidden });
    repository.put_snapshot(&second).unwrap();
    let heads = repository.snapshots().unwrap().heads();
    assert_eq!(heads[&writer].snapshot, hidden);
    assert_eq!(heads[&repository.writer_id()].sequence, 1);
}

#[test]
fn an_old_listing_of_the_index_is_no_damage() {
    let memory = new_store();
    let gone = Listed { name: "a".repeat(64), size: 100, stored: std::time::SystemTime::now(), mark: 0 };
    let store = HookedStore::new(&memory).shown(move |operation, kind, mut listed| {
        if (operation, kind) == (Operation::List, ObjectKind::Index) {
            listed.push(gone.clone());
        }
        listed
    });
    open_any(Arc::new(store)).unwrap().index().unwrap();
}
