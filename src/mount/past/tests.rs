//! What is gathered from the history, against a naive walk of all snapshots; no mounts.

use super::history::Times;
use super::*;
use crate::format::tree::{AttributeSet, Attributes};
use crate::mount::tree::layout::Layout;
use crate::progress::Silent;
use crate::repository::snapshots::Named;
use crate::view::sample::{Sample, Thing, dir};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::time::Duration;

/// A small generator: the same tree for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Opened(Arc<Past>, Arc<History>, Arc<View>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.1.end(Duration::from_secs(5));
    }
}

fn open(sample: &Sample, layout: Layout, strict: bool) -> Opened {
    open_for(sample, layout, strict, Times::default())
}

fn open_for(sample: &Sample, layout: Layout, strict: bool, times: Times) -> Opened {
    let repository = Sample::open(&sample.store, 16 << 20);
    let view = Arc::new(View::all(repository.clone(), 4 << 20, layout, &Silent).unwrap());
    let history = History::with(repository, Box::new(Silent), times);
    Opened(Arc::new(Past::new(view.clone(), history.clone(), strict)), history, view)
}

fn utc() -> Layout {
    Layout::from(TimeZone::UTC)
}

fn root(opened: &Opened, name: &str) -> Folder {
    let node = opened.2.lookup(&opened.2.root(), name.as_bytes()).unwrap().unwrap();
    opened.0.at(&node).unwrap()
}

/// Everything in a folder, asked for a few at a time.
fn list(past: &Past, folder: &Folder, step: u64) -> Vec<(Vec<u8>, Child)> {
    let mut found: Vec<(Vec<u8>, Child)> = Vec::new();
    loop {
        let from = found.len() as u64;
        let mut given = 0;
        past.list(folder, from, None, &mut |position, name, child| {
            if given == step {
                return Ok(false);
            }
            assert_eq!(position, found.len() as u64);
            found.push((name.to_vec(), child.clone()));
            given += 1;
            Ok(true)
        })
        .unwrap();
        if given < step {
            return found;
        }
    }
}

fn folder_in(past: &Past, folder: &Folder, path: &str) -> Option<Child> {
    let mut child = Child::Folder(folder.clone(), past.face(folder).ok()?);
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let Child::Folder(folder, _) = child else { return None };
        child = past.lookup(&folder, name.as_bytes()).unwrap()?;
    }
    Some(child)
}

/// What is in a snapshot, by path.
type Paths = BTreeMap<Vec<u8>, Entry>;

fn naive(sample: &Sample) -> Vec<Paths> {
    let walk = |named: &Named| {
        let top = crate::view::path::root(&sample.repository, &named.snapshot).unwrap();
        let mut found = BTreeMap::new();
        let mut open = vec![(Vec::new(), top)];
        while let Some((path, entry)) = open.pop() {
            let crate::format::tree::Body::Directory { page, .. } = entry.body else { continue };
            for entry in sample.repository.entries(page) {
                let entry = entry.unwrap();
                let below = [path.as_slice(), b"/", &entry.name].concat();
                found.insert(below.clone(), entry.clone());
                open.push((below, entry));
            }
        }
        found
    };
    sample.repository.snapshots().unwrap().live.iter().map(walk).collect()
}

fn is_folder(entry: &Entry) -> bool {
    crate::view::pages::Directory::of(entry).is_some()
}

/// All paths in `deleted/`, with what stands there: of files, what is recorded.
fn deleted(past: &Past, folder: &Folder, path: &[u8], found: &mut BTreeMap<Vec<u8>, Option<Entry>>) {
    for (name, child) in list(past, folder, 3) {
        let path = [path, b"/", &name].concat();
        match &child {
            Child::Folder(below, _) => {
                found.insert(path.clone(), None);
                deleted(past, below, &path, found);
            }
            Child::Entry(stored) => drop(found.insert(path, Some(Entry::clone(&stored.entry)))),
            Child::Sign => panic!("it is ready"),
        }
    }
}

fn expected_deleted(snapshots: &[Paths]) -> BTreeMap<Vec<u8>, Option<Entry>> {
    let newest = snapshots.last().unwrap();
    let mut last = Paths::new();
    snapshots.iter().for_each(|paths| last.extend(paths.clone()));
    let mut expected = BTreeMap::new();
    for (path, entry) in last.iter().filter(|(path, _)| !newest.contains_key(*path)) {
        // Below something that was no folder in the end, there is no way to it.
        let above = (1..path.len()).filter(|at| path[*at] == b'/').map(|at| &path[..at]);
        let hidden = |above: &[u8]| !newest.contains_key(above) && !is_folder(&last[above]);
        if above.clone().any(hidden) {
            continue;
        }
        for above in above {
            expected.insert(above.to_vec(), None);
        }
        let shown = (!is_folder(entry)).then(|| entry.clone());
        expected.entry(path.clone()).or_insert(shown);
    }
    expected
}

/// Walks `versions/` and compares the versions of each path with those of a naive walk.
fn check_versions(past: &Past, folder: &Folder, path: &[u8], snapshots: &[Paths]) -> usize {
    let mut expected: Vec<Entry> = Vec::new();
    let mut before: Option<&Entry> = None;
    for paths in snapshots {
        let entry = paths.get(path);
        if entry != before {
            expected.extend(entry.cloned());
        }
        before = entry;
    }
    let below = |name: &Vec<u8>| [path, b"/", name].concat();
    let was = |path: &Vec<u8>| snapshots.iter().any(|paths| paths.contains_key(path));
    let (names, versions): (Vec<_>, Vec<_>) =
        list(past, folder, 2).into_iter().partition(|(name, _)| was(&below(name)));
    if !path.is_empty() {
        let shown: Vec<Entry> = versions
            .iter()
            .map(|(name, child)| {
                let Child::Entry(stored) = child else { panic!("a version is an entry") };
                let again = past.lookup(folder, name).unwrap();
                let Some(Child::Entry(again)) = again else { panic!("what is listed is found") };
                assert_eq!(again.ino().unwrap(), stored.ino().unwrap());
                Entry::clone(&stored.entry)
            })
            .collect();
        assert_eq!(shown, expected, "{}", path.escape_ascii());
    }
    let mut count = 1;
    for (name, child) in names {
        let Child::Folder(folder, face) = &child else { panic!("a name is a folder") };
        let node = past.node(Number::parse(folder.ino).unwrap()).unwrap().unwrap();
        let Node::Folder(again) = node else { panic!("a number leads back") };
        assert_eq!((again.ino, &again.path), (folder.ino, &folder.path));
        assert_eq!(past.face(folder).unwrap().time, face.time);
        count += check_versions(past, folder, &below(&name), snapshots);
    }
    let all: std::collections::BTreeSet<_> = snapshots.iter().flat_map(|paths| paths.keys()).collect();
    if path.is_empty() {
        assert_eq!(count, all.len() + 1);
    }
    count
}

fn thing(dice: &mut Dice, depth: u64) -> Thing {
    match dice.roll(5) {
        0 | 1 if depth < 4 => Thing::Dir((0..dice.roll(4)).map(|_| (name(dice), thing(dice, depth + 1))).collect()),
        2 => Thing::Symlink(name(dice)),
        _ => Thing::Inline(name(dice)),
    }
}

fn name(dice: &mut Dice) -> Vec<u8> {
    vec![b'a' + dice.roll(5) as u8]
}

fn change(tree: &mut BTreeMap<Vec<u8>, Thing>, dice: &mut Dice, depth: u64) {
    let name = name(dice);
    if dice.roll(3) > 0
        && let Some(Thing::Dir(below)) = tree.get_mut(&name)
    {
        return change(below, dice, depth + 1);
    }
    match dice.roll(3) {
        0 => drop(tree.remove(&name)),
        _ => drop(tree.insert(name, thing(dice, depth))),
    }
}

#[test]
fn a_naive_walk_finds_the_same() {
    for seed in 0..10 {
        let mut dice = Dice(seed);
        let sample = Sample::new();
        let mut tree = BTreeMap::new();
        for round in 0..12 {
            for _ in 0..1 + dice.roll(4) {
                change(&mut tree, &mut dice, 0);
            }
            sample.snapshot(&format!("2026-01-01T00:00:{round:02}Z"), "h", &[], &Thing::Dir(tree.clone()));
        }
        let snapshots = naive(&sample);
        let opened = open(&sample, utc(), seed % 2 == 1);
        check_versions(&opened.0, &root(&opened, "versions"), b"", &snapshots);
        let mut found = BTreeMap::new();
        deleted(&opened.0, &root(&opened, "deleted"), b"", &mut found);
        assert_eq!(found, expected_deleted(&snapshots), "seed {seed}");
    }
}

#[test]
fn other_sources_make_no_new_version() {
    let sample = Sample::new();
    let file = |text: &str| Thing::Inline(text.as_bytes().to_vec());
    let lists = [vec!["/d".to_owned()], vec!["/d".to_owned(), "/e".to_owned()]];
    // What `/d/f` was, in snapshots of the one list of sources and the other by turns.
    let texts = [Some("1"), Some("1"), Some("1"), Some("2"), Some("2"), None, None, Some("2"), Some("2"), Some("1")];
    for (number, text) in texts.iter().enumerate() {
        let folder = text.map(|text| (b"f".to_vec(), file(text))).into_iter().collect();
        let root = dir([("d", Thing::Dir(folder)), ("e", file("e"))]);
        sample.snapshot_of(&format!("2026-01-01T00:00:0{number}Z"), "h", &lists[number % 2], &root);
    }
    let opened = open(&sample, utc(), false);
    let Some(Child::Folder(versions, _)) = folder_in(&opened.0, &root(&opened, "versions"), "d/f") else { panic!() };
    let names: Vec<_> = list(&opened.0, &versions, 9).into_iter().map(|(name, _)| name).collect();
    let expected = ["00", "03", "07", "09"].map(|second| format!("2026-01-01_00-00-{second}").into_bytes());
    assert_eq!(names, expected);
}

#[test]
fn a_name_like_that_of_a_version_stays_what_it_is() {
    let sample = Sample::new();
    let file = |text: &str| Thing::Inline(text.as_bytes().to_vec());
    let clash = "2026-01-01_00-00-00";
    sample.snapshot(
        "2026-01-01T00:00:00Z",
        "h",
        &[],
        &dir([("d", dir([(clash, file("x")), ("2026-01-01_00-00-00_2", file("y"))]))]),
    );
    let opened = open(&sample, utc(), false);
    let past = &opened.0;
    let Some(Child::Folder(folder, _)) = folder_in(past, &root(&opened, "versions"), "d") else { panic!() };
    let names: Vec<Vec<u8>> = list(past, &folder, 9).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [b"2026-01-01_00-00-00_3".to_vec(), clash.into(), b"2026-01-01_00-00-00_2".to_vec()]);
    assert!(matches!(past.lookup(&folder, clash.as_bytes()).unwrap(), Some(Child::Folder(..))));
    assert!(matches!(past.lookup(&folder, &names[0]).unwrap(), Some(Child::Entry(_))));
}

#[test]
fn of_several_lines_the_newest_of_a_host_decides() {
    let sample = Sample::new();
    let file = |text: &str| Thing::Inline(text.as_bytes().to_vec());
    let tree = |names: &[&str]| dir(names.iter().map(|name| (*name, file(name))));
    sample.snapshot("2026-01-01T00:00:00Z", "one", &[], &tree(&["both", "gone on one", "x"]));
    sample.snapshot("2026-01-02T00:00:00Z", "two", &[], &tree(&["both", "gone on one", "x"]));
    sample.snapshot("2026-01-03T00:00:00Z", "one", &[], &tree(&["both", "x"]));
    sample.snapshot("2026-01-04T00:00:00Z", "two", &[], &tree(&["both"]));
    let names = |opened: &Opened, of: &str, path: &str| -> Vec<String> {
        let Some(Child::Folder(folder, _)) = folder_in(&opened.0, &root(opened, of), path) else { panic!() };
        list(&opened.0, &folder, 9).into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
    };
    let opened = open(&sample, utc(), false);
    assert_eq!(names(&opened, "versions", "both"), ["2026-01-01_00-00-00"]);
    assert_eq!(names(&opened, "deleted", ""), ["gone on one", "x"]);
    let filter = |host: &str| crate::repository::filter::Filter { hosts: vec![host.into()], ..Default::default() };
    let opened = open(&sample, utc().with_filter(filter("two")), false);
    assert_eq!(names(&opened, "versions", "x"), ["2026-01-02_00-00-00"]);
    assert_eq!(names(&opened, "deleted", ""), ["gone on one", "x"]);
}

#[test]
fn records_that_are_lost_are_built_anew() {
    let sample = Sample::new();
    for (number, text) in ["1", "2"].iter().enumerate() {
        let file = Thing::Inline(text.as_bytes().to_vec());
        sample.snapshot(&format!("2026-01-01T00:00:0{number}Z"), "h", &[], &dir([("d", dir([("a", file)]))]));
    }
    let opened = open(&sample, utc(), false);
    let names = || {
        let Some(Child::Folder(folder, _)) = folder_in(&opened.0, &root(&opened, "versions"), "d/a") else { panic!() };
        list(&opened.0, &folder, 1).len()
    };
    assert_eq!(names(), 2);
    opened.1.lose();
    assert_eq!(names(), 2);
}

fn one_file() -> Sample {
    let sample = Sample::new();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir([("a", Thing::Inline(b"1".to_vec()))]));
    sample
}

fn wait_until(mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not come");
}

#[test]
fn while_nothing_can_be_told_there_is_a_sign() {
    let times = Times { patience: Duration::ZERO, ..Times::default() };
    let opened = open_for(&one_file(), utc(), false, times);
    let (past, folder) = (&opened.0, root(&opened, "versions"));
    let renewed = Arc::new(Mutex::new(Vec::new()));
    let seen = renewed.clone();
    past.connect(move |ino| seen.lock().unwrap().push(ino));
    let names = || -> Vec<Vec<u8>> { list(past, &folder, 9).into_iter().map(|(name, _)| name).collect() };
    let first = names();
    assert_eq!(first, [SIGN]);
    wait_until(|| names() == [b"a"]);
    assert!(past.lookup(&folder, SIGN).unwrap().is_none());
    wait_until(|| renewed.lock().unwrap().contains(&folder.ino));
    assert!(matches!(past.node(Number::parse(Past::sign_ino()).unwrap()).unwrap(), Some(Node::Sign)));
}

#[test]
fn no_folder_has_the_number_of_another_however_deep() {
    const LEVELS: usize = 80;
    let tree = |text: &[u8]| {
        let bottom = dir([("f", Thing::Inline(text.to_vec()))]);
        (0..LEVELS).fold(bottom, |below, _| dir([("d", below), ("e", Thing::Fifo)]))
    };
    let sample = Sample::new();
    for (day, text) in [("01", b"1"), ("02", b"2")] {
        sample.snapshot(&format!("2026-01-{day}T00:00:00Z"), "h", &[], &tree(text));
    }
    let opened = open(&sample, utc(), false);
    let past = &opened.0;
    // Each folder by the way that leads to it, also those in the versions of the folders above it.
    let mut places: BTreeMap<u64, String> = BTreeMap::new();
    let mut folder = root(&opened, "versions");
    let mut path = String::new();
    for level in 0..LEVELS {
        for (name, child) in list(past, &folder, 9) {
            let Child::Entry(stored) = child else { continue };
            let name = String::from_utf8(name).unwrap();
            let (mut place, mut inside) = (format!("{path}/{name}"), stored);
            loop {
                let ino = inside.ino().unwrap();
                let before = places.insert(ino, place.clone());
                assert_eq!(before, None, "{ino:x} is {place} as well");
                let node = past.node(Number::parse(ino).unwrap()).unwrap();
                let Some(Node::Seen(browse::Node::Stored(again))) = node else { panic!("{ino:x} leads to {node:?}") };
                assert_eq!((again.rank, again.ino().unwrap()), (inside.rank, ino), "{place}");
                let is_version = place.matches('/').count() == level + 1;
                assert_eq!(past.parent_of(&inside).unwrap().is_some(), is_version, "{place}");
                let Some(below) = inside.tree.lookup(&inside.place().unwrap(), b"d").unwrap() else { break };
                if below.place().is_none() {
                    break;
                }
                (place, inside) = (format!("{place}/d"), below);
            }
        }
        let Some(Child::Folder(below, _)) = past.lookup(&folder, b"d").unwrap() else { break };
        folder = below;
        path.push_str("/d");
    }
    assert!(places.len() > LEVELS * LEVELS / 2, "{}", places.len());
}

#[test]
fn a_catalog_that_nobody_uses_is_closed() {
    let times = Times { idle: Duration::from_millis(300), ..Times::default() };
    let opened = open_for(&one_file(), utc(), false, times);
    for _ in 0..2 {
        assert_eq!(list(&opened.0, &root(&opened, "versions"), 9).len(), 1);
        assert!(opened.1.is_open());
        wait_until(|| !opened.1.is_open());
    }
}

#[test]
fn nobody_is_let_in_who_was_kept_out() {
    let closer = |one, other| closer(Some(one), other);
    assert_eq!(closer((0o555, 1, 1), (0o550, 1, 1)), (0o550, 1, 1));
    assert_eq!(closer((0o555, 1, 1), (0o555, 2, 1)), (0o555, 0, 0));
    assert_eq!(closer((0o500, 1, 1), (0o500, 2, 2)), (0o500, 0, 0));
    assert_eq!(closer((0o505, 1, 1), (0o555, 2, 2)), (0o500, 0, 0));
    let mut meta = crate::view::sample::metadata();
    let sample = Sample::new();
    meta.mode = 0o770;
    assert_eq!(rights(&sample.repository, &meta).unwrap().0, 0o550);
    let set = AttributeSet(vec![(b"system.posix_acl_access".to_vec(), vec![2])]);
    meta.attributes = Some(Arc::new(Attributes::Inline(set)));
    assert_eq!(rights(&sample.repository, &meta).unwrap().0, 0o500);
}
