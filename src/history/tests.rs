//! The catalog against a naive oracle that walks every snapshot's whole tree.

use super::query::Seen;
use super::record::State;
use super::*;
use crate::format::tree::Body;
use crate::progress::Silent;
use crate::store::{ObjectKey, ObjectKind};
use crate::view::path::root;
use crate::view::sample::{Dice, Sample, Thing, change, dir};

/// Of a path in a line: the names of its first and last snapshot, and what it was.
type Runs = BTreeMap<(String, Vec<u8>), Vec<(ObjectName, ObjectName, State)>>;

fn live(sample: &Sample) -> Vec<Arc<Named>> {
    sample.repository.snapshots().unwrap().live.into_iter().map(Arc::new).collect()
}

fn states(repository: &Repository, named: &Named) -> BTreeMap<Vec<u8>, State> {
    let top = root(repository, &named.snapshot).unwrap();
    let mut found = BTreeMap::from([(Vec::new(), State::of(&top))]);
    let mut open = vec![(Vec::new(), top)];
    while let Some((path, entry)) = open.pop() {
        let Body::Directory { page, .. } = entry.body else { continue };
        for entry in repository.entries(page) {
            let entry = entry.unwrap();
            let below = [path.as_slice(), b"/", &entry.name].concat();
            found.insert(below.clone(), State::of(&entry));
            open.push((below, entry));
        }
    }
    found
}

fn oracle(sample: &Sample) -> Runs {
    let mut runs = Runs::new();
    let mut last: HashMap<String, ObjectName> = HashMap::new();
    for named in live(sample) {
        let host = named.snapshot.host.clone();
        let before = last.insert(host.clone(), named.name);
        for (path, state) in states(&sample.repository, &named) {
            let list = runs.entry((host.clone(), path)).or_default();
            match list.last_mut() {
                Some((_, last, known)) if Some(*last) == before && *known == state => *last = named.name,
                _ => list.push((named.name, named.name, state)),
            }
        }
    }
    runs
}

fn answer(scope: &Scope<'_>, seen: &[Seen]) -> Vec<(ObjectName, ObjectName, State)> {
    let name = |number| scope.snapshot(number).unwrap().name;
    seen.iter().map(|seen| (name(seen.first), name(seen.last), seen.state)).collect()
}

/// Everything that the catalog says, by walking.
fn told(catalog: &mut Catalog) -> Runs {
    let mut runs = Runs::new();
    let (silent, stop) = (Silent, Stop::new());
    catalog
        .ask_each(
            &silent,
            &stop,
            &mut |catalog, each| {
                runs::Lines::new(catalog, &|_| true).walk(b"", &mut |path, runs| {
                    let mut told: BTreeMap<&str, Vec<_>> = BTreeMap::new();
                    for run in runs {
                        told.entry(run.host()).or_default().push((run.first.name, run.last.name, run.state));
                    }
                    told.into_iter().try_for_each(|(host, list)| each(((host.to_owned(), path.to_vec()), list)))
                })?;
                Ok(())
            },
            &mut |(key, list)| {
                assert!(runs.insert(key, list).is_none(), "told twice");
                Ok(())
            },
        )
        .unwrap();
    runs
}

fn update(catalog: &mut Catalog, sample: &Sample) {
    catalog.update(live(sample), &Silent, &Stop::new()).unwrap();
}

#[test]
fn the_catalog_says_what_the_snapshots_hold() {
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let sample = Sample::new();
        let mut trees = [BTreeMap::new(), BTreeMap::new()];
        let mut catalog = Catalog::open(&sample.repository, &Silent).unwrap();
        let mut clock = 100;
        for round in 0..24 {
            let host = dice.roll(2) as usize;
            for _ in 0..dice.roll(4) {
                change(&mut trees[host], &mut dice, 0);
            }
            clock += 10;
            // Sometimes one arrives that belongs between others.
            let time = if dice.roll(6) == 0 { clock - 15 } else { clock };
            let time = format!("2026-01-01T00:{:02}:{:02}Z", time / 60, time % 60);
            sample.snapshot(&time, ["one", "two"][host], &[], &Thing::Dir(trees[host].clone()));
            if dice.roll(4) == 0 {
                let all = live(&sample);
                let victim = &all[dice.roll(all.len() as u64) as usize];
                sample.remove(victim);
            }
            if dice.roll(3) > 0 {
                update(&mut catalog, &sample);
                assert_eq!(told(&mut catalog), oracle(&sample), "seed {seed}, round {round}");
            }
            if dice.roll(5) == 0 {
                drop(catalog);
                catalog = Catalog::open(&sample.repository, &Silent).unwrap();
            }
            if dice.roll(5) == 0 {
                let spare = dice.roll(4) as u8;
                catalog.database().retain(|key| key[31] % 4 != spare);
            }
        }
        update(&mut catalog, &sample);
        let expected = oracle(&sample);
        assert_eq!(told(&mut catalog), expected, "seed {seed}");
        single_questions(&mut catalog, &expected);
    }
}

/// Every path asked for by itself.
fn single_questions(catalog: &mut Catalog, expected: &Runs) {
    let scopes = catalog.scopes(&|_| true);
    for scope in &scopes {
        let newest = scope.line().newest().unwrap();
        for ((host, path), runs) in expected {
            if *host == newest.snapshot.host {
                assert_eq!(answer(scope, &scope.versions(path).unwrap()), *runs);
            }
        }
        assert_eq!(scope.versions(b"/a/b/c/never").unwrap(), []);
    }
}

/// What a backup of these sources holds of a machine's files: the sources, and the folders on the way to them.
fn restricted(tree: &BTreeMap<Vec<u8>, Thing>, sources: &[Vec<Vec<u8>>]) -> Thing {
    let mut kept = BTreeMap::new();
    for (name, thing) in tree {
        let below: Vec<Vec<Vec<u8>>> =
            sources.iter().filter(|source| source.first() == Some(name)).map(|source| source[1..].to_vec()).collect();
        if sources.iter().any(Vec::is_empty) || below.iter().any(Vec::is_empty) {
            kept.insert(name.clone(), thing.clone());
        } else if let (Thing::Dir(tree), false) = (thing, below.is_empty()) {
            kept.insert(name.clone(), restricted(tree, &below));
        }
    }
    Thing::Dir(kept)
}

fn gone_below(catalog: &mut Catalog, all: bool) -> BTreeMap<(String, Vec<u8>), ObjectName> {
    let mut found = BTreeMap::new();
    let mut ask = |catalog: &Catalog| {
        found.clear();
        runs::Lines::new(catalog, &|_| true).walk_gone(b"", all, &mut |path, run| {
            let before = found.insert((run.last.snapshot.host.clone(), path.to_vec()), run.last.name);
            assert!(before.is_none(), "told twice");
            Ok(())
        })
    };
    catalog.ask(&Silent, &Stop::new(), &mut ask).unwrap();
    found
}

/// A plain model: a path is gone from a host if one of its snapshots, later than the last one with the path, has a source at or above.
#[test]
fn what_is_gone_is_judged_by_the_newest_snapshot_of_a_path() {
    let names = |path: &str| -> Vec<Vec<u8>> { path.bytes().map(|letter| vec![letter]).collect() };
    let lists: [&[&str]; 8] =
        [&[""], &["a"], &["a", "b"], &["ab"], &["ab", "c", "d"], &["abc"], &["b", "e"], &["ac", "ad"]];
    let mut seen_gone = 0;
    for seed in 0..25 {
        let mut dice = Dice(seed);
        let sample = Sample::new();
        let mut trees = [BTreeMap::new(), BTreeMap::new()];
        for tree in &mut trees {
            (0..40).for_each(|_| change(tree, &mut dice, 0));
        }
        for round in 0..14 {
            let host = dice.roll(2) as usize;
            (0..2 + dice.roll(6)).for_each(|_| change(&mut trees[host], &mut dice, 0));
            let sources: Vec<Vec<Vec<u8>>> = lists[dice.roll(8) as usize].iter().map(|source| names(source)).collect();
            let paths: Vec<String> = sources.iter().map(|source| String::from_utf8(path_of(source)).unwrap()).collect();
            let time = format!("2026-01-01T00:00:{round:02}Z");
            let tree = restricted(&trees[host], &sources);
            sample.snapshot_of(&time, ["one", "two"][host], &paths, &tree);
        }
        let all = live(&sample);
        let within =
            |path: &[u8], above: &[u8]| above == b"/" || path == above || path.starts_with(&[above, b"/"].concat());
        let states: Vec<_> = all.iter().map(|named| states(&sample.repository, named)).collect();
        let mut expected = BTreeMap::new();
        for host in ["one", "two"] {
            let own: Vec<usize> = (0..all.len()).filter(|at| all[*at].snapshot.host == host).collect();
            let paths: std::collections::BTreeSet<_> = own.iter().flat_map(|at| states[*at].keys()).collect();
            for path in paths {
                let last = *own.iter().rfind(|at| states[**at].contains_key(path)).unwrap();
                let judges = |at: &&usize| **at > last && all[**at].snapshot.paths.iter().any(|s| within(path, &s.0));
                if own.iter().any(|at| judges(&at)) {
                    expected.insert((host.to_owned(), path.clone()), all[last].name);
                }
            }
        }
        let mut catalog = Catalog::open(&sample.repository, &Silent).unwrap();
        update(&mut catalog, &sample);
        assert_eq!(gone_below(&mut catalog, true), expected, "seed {seed}");
        seen_gone += expected.len();
        let is_top = |((host, path), _): &(&(String, Vec<u8>), &ObjectName)| {
            let above = (0..path.len()).filter(|at| path[*at] == b'/').map(|at| path[..at].to_vec());
            above.into_iter().all(|above| !expected.contains_key(&(host.clone(), above)))
        };
        let tops: BTreeMap<_, _> = expected.iter().filter(is_top).map(|(key, name)| (key.clone(), *name)).collect();
        assert_eq!(gone_below(&mut catalog, false), tops, "seed {seed}");
        // Whether anything is gone from a folder, as a mount asks.
        let every: std::collections::BTreeSet<_> = states.iter().flat_map(BTreeMap::keys).collect();
        let lines = runs::Lines::new(&catalog, &|_| true);
        for path in every {
            let runs = lines.runs(path).unwrap();
            let below = [path.as_slice(), b"/"].concat();
            let has = expected.keys().any(|(_, gone)| gone.starts_with(&below));
            if runs::was_folder(&runs) {
                assert_eq!(lines.has_gone(path, &runs, &|| Ok(())).unwrap(), has, "{seed}: {}", path.escape_ascii());
            }
        }
    }
    assert!(seen_gone > 100, "{seen_gone}");
}

fn path_of(names: &[Vec<u8>]) -> Vec<u8> {
    if names.is_empty() {
        b"/".to_vec()
    } else {
        names.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect()
    }
}

#[test]
fn a_large_folder_of_which_nothing_is_gone_is_not_shown_as_if_something_were() {
    let sample = Sample::new();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir([("d", flat(21_000, 0))]));
    sample.snapshot("2026-01-01T00:00:01Z", "h", &[], &dir([("d", flat(21_000, 7))]));
    let mut catalog = Catalog::open(&sample.repository, &Silent).unwrap();
    let has_gone = |catalog: &Catalog| {
        let lines = runs::Lines::new(catalog, &|_| true);
        lines.has_gone(b"", &lines.runs(b"").unwrap(), &|| Ok(())).unwrap()
    };
    update(&mut catalog, &sample);
    assert!(!has_gone(&catalog) && gone_below(&mut catalog, true).is_empty());
    sample.snapshot("2026-01-01T00:00:02Z", "h", &[], &dir([("d", flat(20_999, 7))]));
    update(&mut catalog, &sample);
    assert!(has_gone(&catalog));
    assert_eq!(gone_below(&mut catalog, false).len(), 1);
}

fn flat(count: u32, change: u32) -> Thing {
    let file = |n: u32| Thing::Inline(vec![u8::from(n == change); 3]);
    dir((0..count).map(|n| (format!("{n:06}"), file(n))))
}

#[test]
fn a_small_change_reads_little_of_a_large_directory() {
    let sample = Sample::new();
    let time = |n: u32| format!("2026-01-01T00:00:{n:02}Z");
    sample.snapshot(&time(0), "h", &[], &flat(8000, 0));
    let mut catalog = Catalog::open(&sample.repository, &Silent).unwrap();
    update(&mut catalog, &sample);
    let writes = |folder: &Path| std::fs::metadata(folder.join("db")).map_or(0, |meta| meta.len());
    assert!(writes(catalog.folder()) > 0);
    for n in 1..4 {
        sample.snapshot(&time(n), "h", &[], &flat(8000, n * 1000));
    }
    update(&mut catalog, &sample);
    assert_eq!(told(&mut catalog), oracle(&sample));
    // Pages that both have are passed over: far fewer changes are looked at than there are entries.
    let all = live(&sample);
    let directory = |named: &Named| {
        let top = root(&sample.repository, &named.snapshot).unwrap();
        crate::view::pages::Directory::of(&top)
    };
    let mut changes = crate::view::changes::Changes::new(&sample.repository, directory(&all[1]), directory(&all[2]));
    let mut names = Vec::new();
    while let Some(change) = changes.advance().unwrap() {
        names.push(change.new.unwrap().name);
    }
    assert_eq!(names, [b"001000".to_vec(), b"002000".to_vec()]);
}

#[test]
fn what_is_equal_after_a_forget_is_one_version() {
    let sample = Sample::new();
    let tree = |byte: u8| dir([("a", Thing::Inline(vec![byte]))]);
    let made: Vec<_> = [1, 2, 1]
        .iter()
        .enumerate()
        .map(|(n, byte)| sample.snapshot(&format!("2026-01-01T00:00:0{n}Z"), "h", &[], &tree(*byte)))
        .collect();
    let mut catalog = Catalog::open(&sample.repository, &Silent).unwrap();
    update(&mut catalog, &sample);
    let versions = |catalog: &Catalog| catalog.scopes(&|_| true)[0].versions(b"/a").unwrap().len();
    assert_eq!(versions(&catalog), 3);
    assert_eq!(catalog.scopes(&|named| named.name != made[0].name)[0].versions(b"/a").unwrap().len(), 2);
    sample.remove(&made[1]);
    update(&mut catalog, &sample);
    assert_eq!(versions(&catalog), 1);
    sample.remove(&made[0]);
    sample.remove(&made[2]);
    update(&mut catalog, &sample);
    assert!(catalog.scopes(&|_| true).is_empty());
}

#[test]
fn a_folder_that_comes_back_without_its_record() {
    let sample = Sample::new();
    let tree = |name: &str| dir([("d", dir([(name, Thing::Fifo)]))]);
    let empty = || dir([("x", Thing::Fifo)]);
    let mut catalog = Catalog::open(&sample.repository, &Silent).unwrap();
    for (n, thing) in [tree("old"), empty()].iter().enumerate() {
        sample.snapshot(&format!("2026-01-01T00:00:0{n}Z"), "h", &[], thing);
    }
    update(&mut catalog, &sample);
    let generation = catalog.lines[0].generation;
    assert!(catalog.database().remove(&catalog.shelf(generation).key(b"/d", 0)));
    sample.snapshot("2026-01-01T00:00:05Z", "h", &[], &tree("new"));
    update(&mut catalog, &sample);
    assert_eq!(told(&mut catalog), oracle(&sample));
}

#[test]
fn two_processes_and_other_versions() {
    let sample = Sample::new();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir([("a", Thing::Fifo)]));
    let mut first = Catalog::open(&sample.repository, &Silent).unwrap();
    update(&mut first, &sample);
    let mut second = Catalog::open(&sample.repository, &Silent).unwrap();
    assert_ne!(first.folder(), second.folder());
    update(&mut second, &sample);
    assert_eq!(told(&mut second), oracle(&sample));
    let folder = second.folder().to_owned();
    drop(second);
    assert!(!folder.exists());
    // What another version has left is not looked at.
    first.database().put(&LINES, b"firn history 0 and so on".to_vec());
    update(&mut first, &sample);
    assert_eq!(told(&mut first), oracle(&sample));
}

/// Counts what is told to be wrong.
#[derive(Default)]
struct Told(std::sync::atomic::AtomicU64);

impl Progress for Told {
    fn issue(&self, _: &Path, error: &Error) {
        assert!(error.to_string().contains("leaves out the snapshot"), "{error}");
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

fn tree_packs(sample: &Sample) -> Vec<String> {
    let mut names = Vec::new();
    let list = &mut |object: crate::store::Listed| {
        names.push(object.name.to_owned());
        Ok(())
    };
    crate::store::Store::list(sample.store.as_ref(), ObjectKind::Tree, list).unwrap();
    names
}

#[test]
fn a_snapshot_that_cannot_be_read_is_left_out() {
    let sample = Sample::new();
    let below = || dir([("x", Thing::Inline(vec![7; 9]))]);
    let tree = |n: u8, more: &[(&str, Thing)]| {
        let mut entries = vec![("a", Thing::Inline(vec![n])), ("b", dir([("y", Thing::Inline(vec![n; 9]))]))];
        entries.extend(more.iter().cloned());
        dir(entries)
    };
    let time = |n: u8| format!("2026-01-01T00:00:0{n}Z");
    sample.snapshot(&time(0), "h", &[], &tree(1, &[]));
    let before = tree_packs(&sample);
    let other = sample.snapshot(&time(0), "other", &[], &dir([("d", below())]));
    let doomed: Vec<_> = tree_packs(&sample).into_iter().filter(|name| !before.contains(name)).collect();
    // Its changes are found one after the other until the page is missing that only the other one's pack has.
    let wrong = sample.snapshot(&time(1), "h", &[], &tree(2, &[("c", Thing::Fifo), ("d", below())]));
    sample.snapshot(&time(2), "h", &[], &tree(1, &[]));
    sample.remove(&other);
    for name in &doomed {
        let key = ObjectKey::new(ObjectKind::Tree, ObjectName::parse(name).unwrap());
        crate::store::Store::delete(sample.store.as_ref(), &key).unwrap();
    }
    assert!(!doomed.is_empty());
    let repository = Sample::open(&sample.store, 1 << 20);
    let mut catalog = Catalog::open(&repository, &Silent).unwrap();
    let told_of = Told::default();
    for round in 0..3 {
        if round == 2 {
            sample.remove(&wrong);
        }
        catalog.update(live(&sample), &told_of, &Stop::new()).unwrap();
        let said = told(&mut catalog);
        assert_eq!(said[&("h".to_owned(), b"/a".to_vec())].len(), 1);
        assert!(!said.keys().any(|(_, path)| path.starts_with(b"/c") || path.starts_with(b"/d")));
        assert_eq!(catalog.left_out(), usize::from(round < 2));
        if round == 2 {
            assert_eq!(said, oracle(&sample));
        }
    }
    assert_eq!(told_of.0.into_inner(), 2, "it is told each time");
}

#[test]
fn a_stop_loses_nothing() {
    let sample = Sample::new();
    let tree = |n: u8| dir((0..n + 2).map(|m| (vec![b'a' + m], dir([("x", Thing::Inline(vec![n; 2]))]))));
    for n in 0..9 {
        sample.snapshot(&format!("2026-01-01T00:00:0{n}Z"), "h", &[], &tree(n));
    }
    let mut catalog = Catalog::open(&sample.repository, &Silent).unwrap();
    /// Asks to stop after so many snapshots.
    struct After(std::sync::atomic::AtomicU64, Stop);
    impl Progress for After {
        fn files(&self, _: u64) {
            if self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1 {
                self.1.trigger(2);
            }
        }
    }
    for snapshots in [1, 3, 8] {
        let after = After(snapshots.into(), Stop::new());
        let stopped = catalog.update(live(&sample), &after, &after.1).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Interrupted);
    }
    update(&mut catalog, &sample);
    assert_eq!(told(&mut catalog), oracle(&sample));
}
