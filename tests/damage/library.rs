//! Each kind of object, each kind of damage, and each next step, through the library: also what no command can set up (objects
//! hidden from listings), and every byte of a repository in turn. Not for: what is said to people (see `matrix`).

use super::matrix::all;
use super::sample::noise;
use crate::support::{quick_folder, share};
use firn::backup::{self, BackupOptions};
use firn::check::{self, CheckOptions, CheckReport, Severity};
use firn::chunk::password::Cost;
use firn::format::coordination::{Damage, Hold, Mark, Pin, Revoke, Tomb};
use firn::format::header::Kind;
use firn::format::tree::Body;
use firn::id::{ObjectName, SessionId};
use firn::mount::tree::browse::{Node, View};
use firn::mount::tree::read::Reader;
use firn::progress::{Silent, Stop};
use firn::prune::{self, Limit, PruneOptions};
use firn::repair::{self, RepairOptions};
use firn::repository::keys::Credentials;
use firn::repository::snapshots::Named;
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::restore::{self, RestoreOptions};
use firn::store::{Layer, Listed, MemoryStore, ObjectKey, ObjectKind, Store};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// Files by path.
type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store that keeps one object out of its listings; last, the objects in it that are not what they were.
#[derive(Debug)]
struct Hiding(MemoryStore, Option<ObjectKey>, Vec<ObjectKey>);

impl Layer for Hiding {
    fn below(&self) -> &dyn Store {
        &self.0
    }

    fn list(
        &self,
        kind: ObjectKind,
        visit: &mut dyn FnMut(Listed) -> firn::error::Result<()>,
    ) -> firn::error::Result<()> {
        self.0.list(kind, &mut |listed| {
            let hidden = self.1.as_ref().is_some_and(|key| key.kind == kind && key.name == listed.name);
            if hidden { Ok(()) } else { visit(listed) }
        })
    }

    fn list_fresh(
        &self,
        kind: ObjectKind,
        visit: &mut dyn FnMut(Listed) -> firn::error::Result<()>,
    ) -> firn::error::Result<()> {
        Layer::list(self, kind, visit)
    }
}

struct Sample {
    folder: tempfile::TempDir,
    objects: Vec<(ObjectKey, Vec<u8>)>,
    /// The live snapshots, the oldest first, and their files.
    snapshots: Vec<(ObjectName, Files)>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| Sample::new(20_000));

fn open(store: Arc<dyn Store>) -> firn::error::Result<Arc<Repository>> {
    let credentials = Credentials { password: None, key_file: Some(b"key".to_vec().into()) };
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 4 << 20 };
    Repository::open(store, &credentials, &options).map(Arc::new)
}

impl Sample {
    /// Four backups of a growing folder, the first forgotten; two records of each kind of coordination.
    fn new(size: usize) -> Sample {
        let folder = quick_folder();
        let store = MemoryStore::new();
        let credentials = Credentials { password: None, key_file: Some(b"key".to_vec().into()) };
        Repository::init(&store, &credentials, Cost::DEFAULT, "").unwrap();
        let repository = open(Arc::new(store.clone())).unwrap();
        let mut names = Vec::new();
        for number in 0..4u64 {
            let below = folder.path().join(format!("source/{number}"));
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join("noise"), noise(number, size)).unwrap();
            std::fs::write(below.join("text"), format!("line {number}\n").repeat(size / 40)).unwrap();
            std::fs::write(below.join("tiny"), format!("{number}")).unwrap();
            names.push(back_up(&repository, &folder).unwrap());
        }
        coordinate(&repository, &names);
        let objects = store.raw_keys().into_iter().map(|key| (key.clone(), store.raw_get(&key).unwrap())).collect();
        let repository = open(Arc::new(store)).unwrap();
        let live = repository.snapshots().unwrap().live;
        let snapshots = live.into_iter().map(|named| (named.name, whole(&repository, named))).collect();
        Sample { folder, objects, snapshots }
    }

    fn store(&self) -> MemoryStore {
        let store = MemoryStore::new();
        self.objects.iter().for_each(|(key, bytes)| store.raw_set(key, bytes.clone()));
        store
    }

    fn of_kind(&self, kind: ObjectKind) -> Vec<&(ObjectKey, Vec<u8>)> {
        self.objects.iter().filter(|(key, _)| key.kind == kind).collect()
    }
}

fn coordinate(repository: &Repository, names: &[ObjectName]) {
    let time = "2026-01-01T00:00:00Z".parse().unwrap();
    let put = |kind, under, name: String, body: Vec<u8>| {
        let bytes = repository.keyring().seal_record(kind, &body).unwrap();
        repository.store().put(&ObjectKey::new(under, name), &bytes).unwrap();
    };
    for (number, snapshot) in [names[0], ObjectName([9; 32])].into_iter().enumerate() {
        let session = SessionId([number as u8 + 1; 16]);
        let pin = Pin {
            version: 1,
            session,
            writer: repository.writer_id(),
            host: "h".into(),
            pid: 1,
            started: time,
            process: None,
        };
        put(Kind::Pin, ObjectKind::Pin, session.to_string(), pin.encode().unwrap());
        put(Kind::Revoke, ObjectKind::Revoke, session.to_string(), Revoke(pin).encode().unwrap());
        let mark = Mark { version: 1, prune: session, packs: vec![ObjectName([8; 32])], time, snapshots: Vec::new() };
        put(Kind::Mark, ObjectKind::Mark, format!("{session}-1"), mark.encode().unwrap());
        let tomb = Tomb { version: 1, snapshot, time, host: "h".into(), undone: None };
        put(Kind::Tomb, ObjectKind::Tomb, snapshot.to_string(), tomb.encode().unwrap());
        let pack = ObjectName([number as u8 + 6; 32]);
        let damage = Damage { version: 1, pack, time, host: "h".into() };
        put(Kind::Damage, ObjectKind::Damage, pack.to_string(), damage.encode().unwrap());
        let held = [names[1], names[2]][number];
        let hold = Hold { version: 1, snapshot: held, time, host: "h".into(), reason: Some("for good".into()) };
        put(Kind::Hold, ObjectKind::Hold, held.to_string(), hold.encode().unwrap());
    }
}

fn back_up(repository: &Arc<Repository>, folder: &tempfile::TempDir) -> firn::error::Result<ObjectName> {
    let paths = vec![folder.path().join("source")];
    let options = BackupOptions { paths, level: 1, threads: 1, ..BackupOptions::default() };
    Ok(backup::run(repository, &options, &Silent, &Stop::new())?.snapshot.unwrap())
}

/// The files of a snapshot as a mount shows them, and what went wrong.
fn shown(repository: &Arc<Repository>, named: Named) -> (Files, Vec<String>) {
    let (mut files, mut told) = (Files::new(), Vec::new());
    let view = match View::one(repository.clone(), 1 << 20, named, b"") {
        Ok(view) => view,
        Err(error) => return (files, vec![error.chain()]),
    };
    let reader = Reader::new(repository.clone(), 1, 4 << 20);
    let mut folders = vec![(Vec::new(), view.root())];
    while let Some((path, folder)) = folders.pop() {
        let mut steps = 0;
        let listed = view.list(&folder, 0, &mut |_, name, node| {
            steps += 1;
            assert!(steps < 10_000, "a listing without an end");
            let path = [&path[..], b"/", name].concat();
            let Node::Stored(stored) = node else { return Ok(true) };
            match &stored.entry.body {
                Body::Directory { .. } => folders.push((path, node.clone())),
                Body::File { size, .. } => {
                    let mut bytes = Vec::new();
                    let ino = view.ino(node)?;
                    let read = reader.read(ino, &stored.entry, 0, *size as u32, &mut |some| bytes = some.to_vec());
                    match read {
                        Ok(()) => drop(files.insert(path, bytes)),
                        Err(error) => told.push(error.chain()),
                    }
                }
                _ => {}
            }
            Ok(true)
        });
        told.extend(listed.err().map(|error| error.chain()));
    }
    (files, told)
}

fn whole(repository: &Arc<Repository>, named: Named) -> Files {
    let (files, told) = shown(repository, named);
    assert!(told.is_empty() && files.len() >= 3, "{told:?}");
    files
}

/// What a step made of the damage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// All is as before.
    Irrelevant,
    Detected,
    /// A snapshot is not listed; this step cannot know that there was one, and a check does.
    ByCheck,
}

/// What `files` lack of `expected`; any wrong byte is the end.
fn lacks(files: &Files, expected: &Files, case: &str) -> bool {
    for (path, bytes) in files {
        assert!(expected.get(path) == Some(bytes), "{case}: {} has other bytes", path.escape_ascii());
    }
    files.len() < expected.len()
}

/// Snapshots, ls, mount and read.
fn read(store: &Arc<Hiding>, sample: &Sample, case: &str) -> Seen {
    let repository = match open(store.clone()) {
        Ok(repository) => repository,
        Err(error) => {
            assert!(!error.chain().is_empty());
            return Seen::Detected;
        }
    };
    let Ok(snapshots) = repository.snapshots() else { return Seen::Detected };
    let mut seen = if repository.warnings.is_empty() { Seen::Irrelevant } else { Seen::Detected };
    let mut live: BTreeMap<_, _> = snapshots.live.into_iter().map(|named| (named.name, named)).collect();
    for (name, expected) in &sample.snapshots {
        match live.remove(name) {
            Some(named) => {
                let (files, told) = shown(&repository, named);
                assert!(!lacks(&files, expected, case) || !told.is_empty(), "{case}: silent: files of {name} are gone");
                if !told.is_empty() {
                    seen = Seen::Detected;
                }
            }
            None if snapshots.damaged.is_empty() => seen = Seen::ByCheck,
            None => seen = Seen::Detected,
        }
    }
    // What shows besides can only be the one that was forgotten.
    assert!(live.len() <= 1, "{case}: {live:?}");
    seen
}

fn restore_newest(store: &Arc<Hiding>, sample: &Sample, case: &str) -> Seen {
    let Ok(repository) = open(store.clone()) else { return Seen::Detected };
    let Ok(snapshots) = repository.snapshots() else { return Seen::Detected };
    let (name, expected) = sample.snapshots.last().unwrap();
    let Some(named) = snapshots.live.iter().find(|named| named.name == *name) else {
        return if snapshots.damaged.is_empty() { Seen::ByCheck } else { Seen::Detected };
    };
    let folder = quick_folder();
    let options = RestoreOptions {
        target: folder.path().join("target"),
        overwrite: restore::Overwrite::Always,
        include: Vec::new(),
        exclude: Vec::new(),
        dry_run: false,
        verify: false,
        threads: 1,
    };
    let report = restore::run(&repository, &named.snapshot, b"", &options, &Silent, &Stop::new());
    let told = report.as_ref().map_or(1, |report| report.issues);
    std::fs::create_dir_all(folder.path().join("target")).unwrap();
    let restored: Files = super::files(&folder.path().join("target"))
        .into_iter()
        .map(|(path, bytes)| ([b"/", path.as_os_str().as_encoded_bytes()].concat(), bytes))
        .collect();
    assert!(!lacks(&restored, expected, case) || told > 0, "{case}: silent: {report:?}");
    if told > 0 { Seen::Detected } else { Seen::Irrelevant }
}

fn checked(store: &Arc<Hiding>) -> Option<CheckReport> {
    let repository = open(store.clone()).ok()?;
    check::run(
        &repository,
        &CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() },
        &Silent,
        &Stop::new(),
    )
    .ok()
}

fn checks(store: &Arc<Hiding>) -> (Seen, String) {
    match checked(store) {
        None => (Seen::Detected, String::new()),
        Some(report) => {
            let told = report.worst() > Some(Severity::Note);
            (if told { Seen::Detected } else { Seen::Irrelevant }, format!("{:?}", report.findings))
        }
    }
}

/// A backup works or says why not; what it reports is there, or a look at it tells.
fn back_up_again(store: &Arc<Hiding>, sample: &Sample, case: &str) -> Seen {
    let Ok(repository) = open(store.clone()) else { return Seen::Detected };
    let Ok(name) = back_up(&repository, &sample.folder) else { return Seen::Detected };
    let repository = open(store.clone()).unwrap();
    let live = repository.snapshots().unwrap().live;
    let named = live.into_iter().find(|named| named.name == name).expect("what was acknowledged is there");
    let (files, told) = shown(&repository, named);
    assert!(!lacks(&files, &sample.snapshots.last().unwrap().1, case) || !told.is_empty(), "{case}: silent");
    if told.is_empty() { Seen::Irrelevant } else { Seen::Detected }
}

fn repaired(store: &Arc<Hiding>, sample: &Sample, case: &str, before: Seen) -> Seen {
    let Ok(repository) = open(store.clone()) else { return Seen::Detected };
    let options = RepairOptions { dry_run: false, read_all: true, keep_missing: false, threads: 1 };
    let done = repair::repair_index(&repository, &options, &Silent, &Stop::new());
    drop(repository);
    let after = read(store, sample, case);
    assert!(before != Seen::Irrelevant || after == Seen::Irrelevant, "{case}: repair made it worse: {done:?}");
    if done.is_err() { Seen::Detected } else { after }
}

/// A prune that frees what it can hurts nobody: what could be read still can, and once the damaged objects are as they were,
/// so can everything.
fn pruned(store: &Arc<Hiding>, sample: &Sample, case: &str, before: Seen) -> Seen {
    let Ok(repository) = open(store.clone()) else { return Seen::Detected };
    let options = PruneOptions {
        max_unused: Limit::Bytes(0),
        max_rewrite: Limit::Unlimited,
        keep_deleted: Duration::ZERO,
        revoke_after: Duration::ZERO,
        max_wait: Some(Duration::ZERO),
        consent: true,
        level: 1,
        threads: 1,
        ..PruneOptions::default()
    };
    let done = prune::run(&repository, &options, &Silent, &Stop::new());
    drop(repository);
    let after = read(store, sample, case);
    assert!(before != Seen::Irrelevant || after == Seen::Irrelevant, "{case}: prune made it worse: {done:?}");
    let healed = store.0.clone();
    store.2.iter().for_each(|key| drop(healed.raw_remove(key)));
    for (key, bytes) in &sample.objects {
        let is_hit = store.1.as_ref() == Some(key) || store.2.contains(key);
        if is_hit {
            healed.raw_set(key, bytes.clone());
        }
    }
    let whole = read(&Arc::new(Hiding(healed, None, Vec::new())), sample, case);
    assert_eq!(whole, Seen::Irrelevant, "{case}: prune took what was only damaged: {done:?}");
    if done.is_err() { Seen::Detected } else { Seen::Irrelevant }
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Delete,
    Hide,
    Truncate(usize),
    ShortBy(usize),
    Zero,
    Flip(usize),
    FlipEnd(usize),
    Swap,
    Older,
    Other,
    Duplicate,
    Grow(usize),
}

const ACTIONS: [Action; 24] = [
    Action::Delete,
    Action::Hide,
    Action::Truncate(0),
    Action::Truncate(50),
    Action::Truncate(95),
    Action::Truncate(97),
    Action::Truncate(150),
    Action::ShortBy(1),
    Action::ShortBy(16),
    Action::Zero,
    Action::Flip(0),
    Action::Flip(9),
    Action::Flip(33),
    Action::Flip(70),
    Action::Flip(97),
    Action::Flip(105),
    Action::Flip(140),
    Action::FlipEnd(1),
    Action::FlipEnd(30),
    Action::Swap,
    Action::Older,
    Action::Other,
    Action::Duplicate,
    Action::Grow(1),
];

/// Does it to the object at `at` of its kind; the name of what is hit.
fn apply(action: Action, sample: &Sample, kind: ObjectKind, at: usize) -> Arc<Hiding> {
    let store = sample.store();
    let objects = sample.of_kind(kind);
    let (key, bytes) = objects[at].clone();
    let (other, theirs) = objects[(at + 1) % objects.len()].clone();
    let mut changed = bytes.clone();
    let mut hit = vec![key.clone()];
    match action {
        Action::Delete => drop(store.raw_remove(&key)),
        Action::Hide => return Arc::new(Hiding(store, Some(key), Vec::new())),
        Action::Truncate(length) => changed.truncate(length),
        Action::ShortBy(short) => changed.truncate(bytes.len() - short),
        Action::Zero => changed.fill(0),
        Action::Flip(offset) => changed[offset] ^= 8,
        Action::FlipEnd(back) => changed[bytes.len() - back] ^= 1,
        Action::Swap => {
            store.raw_set(&other, bytes);
            hit.push(other);
            changed = theirs;
        }
        Action::Older => changed = theirs,
        Action::Other => changed = sample.objects.iter().find(|(other, _)| other.kind != kind).unwrap().1.clone(),
        Action::Duplicate => {
            let name = match kind {
                ObjectKind::Config => "77".into(),
                ObjectKind::Pin | ObjectKind::Revoke => "7".repeat(32),
                ObjectKind::Mark => format!("{}-7", "7".repeat(32)),
                _ => "7".repeat(64),
            };
            let twin = ObjectKey::new(kind, name);
            store.raw_set(&twin, bytes);
            hit.push(twin);
        }
        Action::Grow(more) => changed.resize(bytes.len() + more, 0x55),
    }
    if action != Action::Delete {
        store.raw_set(&key, changed);
    }
    Arc::new(Hiding(store, None, hit))
}

const STEPS: [&str; 6] = ["read", "restore", "check", "backup", "repair", "prune"];

/// Counts of a kind: cells, then detected, irrelevant and known to a check only, for all steps.
type Counts = BTreeMap<&'static str, [usize; 4]>;

fn cell(action: Action, kind: ObjectKind, at: usize, counts: &Mutex<Counts>) {
    let sample = &*SAMPLE;
    let fresh = || apply(action, sample, kind, at);
    let case = format!("{kind:?} {at} {action:?}");
    let looked = read(&fresh(), sample, &case);
    let restored = restore_newest(&fresh(), sample, &case);
    let (found, said) = checks(&fresh());
    // Whatever hurts anybody is found by a check, which names it.
    if looked != Seen::Irrelevant || restored != Seen::Irrelevant {
        assert_eq!(found, Seen::Detected, "{case}: a check finds nothing: {said}");
        let name = &sample.of_kind(kind)[at].0.name;
        let key = matches!(kind, ObjectKind::Key);
        assert!(
            key || said.is_empty() || said.contains(&name[..8.min(name.len())]) || kind == ObjectKind::Index,
            "{case}: {said}"
        );
    }
    let again = back_up_again(&fresh(), sample, &case);
    let mended = repaired(&fresh(), sample, &case, looked);
    let pruned = pruned(&fresh(), sample, &case, looked);
    let mut counts = counts.lock().unwrap();
    let row = counts.entry(kind.folder()).or_default();
    row[0] += STEPS.len();
    for seen in [looked, restored, found, again, mended, pruned] {
        row[match seen {
            Seen::Detected => 1,
            Seen::Irrelevant => 2,
            Seen::ByCheck => 3,
        }] += 1;
    }
}

#[test]
fn every_cell_is_detected_or_irrelevant() {
    let every = std::env::var_os("FIRN_DAMAGE_ALL").is_some_and(|value| value == "1");
    let mut cells = Vec::new();
    for kind in ObjectKind::ALL {
        let number = SAMPLE.of_kind(kind).len();
        assert!(number > 0, "{kind:?}");
        for (turn, action) in ACTIONS.into_iter().enumerate() {
            if !(turn + kind as usize).is_multiple_of(share(3, 1)) {
                continue;
            }
            let objects = if every { (0..number).collect() } else { vec![turn % number] };
            // That the newest snapshot is gone cannot be known: nothing names it yet, and this machine remembers nothing.
            let newest = SAMPLE.snapshots.last().unwrap().0.to_string();
            let unknowable = |at: &usize| {
                matches!(action, Action::Delete | Action::Hide) && SAMPLE.of_kind(kind)[*at].0.name == newest
            };
            let objects = objects.into_iter().map(|at| if unknowable(&at) { (at + 1) % number } else { at });
            cells.extend(objects.map(|at| (action, kind, at)));
        }
    }
    let counts = Mutex::new(Counts::new());
    all(&cells, |(action, kind, at)| cell(*action, *kind, *at, &counts));
    println!("{} cases of {} steps; none silent", cells.len(), STEPS.len());
    println!("{:10} {:>6} {:>9} {:>11} {:>9}", "kind", "cells", "detected", "irrelevant", "by check");
    for (kind, [cells, detected, irrelevant, by_check]) in counts.into_inner().unwrap() {
        println!("{kind:10} {cells:>6} {detected:>9} {irrelevant:>11} {by_check:>9}");
    }
}

/// The whole of a small repository, byte by byte (a share of the bytes unless FIRN_FLIP_ALL=1 asks for all): read, and checked with
/// all data.
#[test]
fn no_flipped_byte_is_silent() {
    let sample = Sample::new(150);
    let every = std::env::var_os("FIRN_FLIP_ALL").is_some_and(|value| value == "1");
    let total: usize = sample.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    // Not a multiple of anything in the format.
    let step = if every { 1 } else { (total / share(250, 800)).max(1) | 1 };
    let mut flips = Vec::new();
    let mut at = 0;
    for (number, (_, bytes)) in sample.objects.iter().enumerate() {
        flips.extend(
            (0..bytes.len()).filter(|offset| (at + offset).is_multiple_of(step)).map(|offset| (number, offset)),
        );
        at += bytes.len();
    }
    let (detected, irrelevant) = (AtomicUsize::new(0), AtomicUsize::new(0));
    all(&flips, |(number, offset)| {
        let store = sample.store();
        let (key, bytes) = &sample.objects[*number];
        let mut bytes = bytes.clone();
        bytes[*offset] ^= 1 << (offset % 8);
        store.raw_set(key, bytes);
        let store = Arc::new(Hiding(store, None, Vec::new()));
        let case = format!("{key} at {offset}");
        let looked = read(&store, &sample, &case);
        let (found, said) = checks(&store);
        assert!(found == Seen::Detected || looked == Seen::Irrelevant, "{case}: a check finds nothing: {said}");
        match found {
            Seen::Detected => detected.fetch_add(1, Ordering::Relaxed),
            _ => irrelevant.fetch_add(1, Ordering::Relaxed),
        };
    });
    let (detected, irrelevant) = (detected.into_inner(), irrelevant.into_inner());
    println!("{} of {total} bytes flipped: {detected} detected, {irrelevant} irrelevant, 0 silent", flips.len());
    assert_eq!(detected + irrelevant, flips.len());
}
