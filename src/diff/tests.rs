//! Comparisons against a naive oracle that reads everything, and what they cost.

use super::*;
use crate::backup::walk;
use crate::id::ChunkId;
use crate::progress::Silent;
use crate::repository::snapshots::Named;
use crate::repository::tree::PAGES_READ;
use crate::store::{ObjectKind, Operation};
use crate::view::path::root;
use crate::view::sample::{Dice, Piece, Sample, Thing, change, dir, metadata, noise};
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

type Told = BTreeMap<String, (Modifier, usize, Bytes)>;

fn told(repository: &Repository, old: &Named, new: &Named, options: Options) -> (Told, Statistics) {
    let mut told = Told::new();
    let mut last = Vec::new();
    let stop = Stop::new();
    let context = Context { repository, options, progress: &Silent, stop: &stop };
    let [old, new] = [old, new].map(|named| root(repository, &named.snapshot).unwrap());
    let statistics = between(&context, &old, &new, b"", &mut |difference| {
        let order = difference.path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert!(last <= order, "in the order of paths");
        last = order;
        let path = String::from_utf8_lossy(difference.path).into_owned();
        let what = (difference.modifier, difference.fields.len(), difference.bytes);
        assert!(told.insert(path, what).is_none(), "told twice");
        Ok(())
    });
    (told, statistics.unwrap())
}

fn all(repository: &Repository, named: &Named) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), root(repository, &named.snapshot).unwrap())];
    while let Some((path, entry)) = open.pop() {
        if let Body::Directory { page, .. } = entry.body {
            for entry in repository.entries(page) {
                let entry = entry.unwrap();
                open.push((format!("{path}/{}", String::from_utf8_lossy(&entry.name)), entry));
            }
        }
        found.insert(path, entry);
    }
    found
}

fn oracle(repository: &Repository, old: &Named, new: &Named) -> BTreeMap<String, Modifier> {
    let (old, new) = (all(repository, old), all(repository, new));
    let mut expected = BTreeMap::new();
    for (path, entry) in &old {
        let modifier = match new.get(path) {
            None => Modifier::Removed,
            Some(after) if std::mem::discriminant(&after.body) != std::mem::discriminant(&entry.body) => Modifier::Kind,
            Some(after) if is_directory(after) => continue,
            Some(after) if after.body == entry.body && after.meta.attributes == entry.meta.attributes => continue,
            Some(after) if after.body == entry.body => Modifier::Metadata,
            Some(after) => match (&after.body, &entry.body) {
                (Body::File { size, .. }, Body::File { size: before, .. }) if size == before => Modifier::Unmarked,
                _ => Modifier::Content,
            },
        };
        expected.insert(path.clone(), modifier);
    }
    expected.extend(new.keys().filter(|path| !old.contains_key(*path)).map(|path| (path.clone(), Modifier::Added)));
    expected
}

#[test]
fn random_trees_differ_as_a_naive_look_says() {
    let options = Options { metadata: true, content: true };
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let sample = Sample::new();
        let mut tree = BTreeMap::new();
        let mut snapshots = Vec::new();
        for round in 0..5 {
            for _ in 0..1 + dice.roll(6) {
                change(&mut tree, &mut dice, 0);
            }
            let time = format!("2026-01-01T00:00:{round:02}Z");
            snapshots.push(sample.snapshot(&time, "h", &[], &Thing::Dir(tree.clone())));
        }
        for pair in snapshots.windows(2).chain([&[snapshots[4].clone(), snapshots[0].clone()][..]]) {
            let (found, statistics) = told(&sample.repository, &pair[0], &pair[1], options);
            let modifiers: BTreeMap<_, _> = found.iter().map(|(path, (what, ..))| (path.clone(), *what)).collect();
            assert_eq!(modifiers, oracle(&sample.repository, &pair[0], &pair[1]), "seed {seed}");
            let totals = |named: &Named| named.snapshot.totals;
            let (before, after) = (totals(&pair[0]), totals(&pair[1]));
            let sum = |side: &Side| side.files + side.dirs + side.others;
            assert_eq!(before.entries + sum(&statistics.added), after.entries + sum(&statistics.removed));
            assert_eq!(before.files + statistics.added.files, after.files + statistics.removed.files);
        }
    }
}

#[test]
fn what_is_equal_is_not_read() {
    let sample = Sample::new();
    let many = |mark: u8| {
        let entries = (0..20_000u32).map(|number| {
            let bytes = if number == 7_000 { vec![mark] } else { number.to_le_bytes().to_vec() };
            (format!("{number:06}"), Thing::Inline(bytes))
        });
        dir(entries)
    };
    let tree = |mark| dir([("many", many(mark)), ("still", dir([("below", many(9))])), ("other", many(8))]);
    let one = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree(1));
    let two = sample.snapshot("2026-01-02T00:00:00Z", "h", &[], &tree(2));
    let pages = || PAGES_READ.replace(0);
    all(&sample.repository, &one);
    let whole = pages();
    assert!(whole > 300, "{whole}");
    let (found, statistics) = told(&sample.repository, &one, &two, Options::default());
    let expected = (Modifier::Unmarked, 0, Bytes { added: 1, removed: 1 });
    assert_eq!(found, BTreeMap::from([("/many/007000".to_owned(), expected)]));
    assert_eq!((statistics.changed_files, statistics.added.files), (1, 0));
    // Of each side: the root's page, that of "/", and the way through "many". Where pages end depends on a random secret: there are
    // one or two levels above the leaves, now and then three or four.
    let read = pages();
    assert!((8..=14).contains(&read), "{read}");
    let (found, _) = told(&sample.repository, &one, &one, Options { metadata: true, content: true });
    assert!(found.is_empty());
    assert_eq!(pages(), 2, "the two roots");
}

#[test]
fn bytes_of_a_long_file_are_those_of_its_chunks() {
    let sample = Sample::new();
    let pieces = |from: u64, to: u64| (from..to).map(|seed| Piece::Data(noise(seed, 1000))).collect::<Vec<_>>();
    let file = |pieces| dir([("long", Thing::File(pieces))]);
    let one = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &file(pieces(0, 200)));
    let two = sample.snapshot("2026-01-02T00:00:00Z", "h", &[], &file(pieces(3, 210)));
    sample.store.reset();
    let (found, statistics) = told(&sample.repository, &one, &two, Options::default());
    let bytes = Bytes { added: 10_000, removed: 3_000 };
    assert_eq!(found["/long"], (Modifier::Content, 0, bytes));
    assert_eq!((statistics.added.bytes, statistics.removed.bytes), (10_000, 3_000));
    assert_eq!(sample.store.counts().calls(Operation::GetRange, ObjectKind::Data), 0, "ids tell it");
}

#[test]
fn damage_hides_one_directory_only() {
    let sample = Sample::new();
    let tree = |mark: u8| {
        let some = || dir([("x", Thing::Inline(vec![mark; usize::from(mark)]))]);
        dir([("a", some()), ("b", some()), ("c", some())])
    };
    let one = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree(1));
    let two = sample.snapshot("2026-01-02T00:00:00Z", "h", &[], &tree(2));
    // An entry that names a page which is not there.
    let broken = root(&sample.repository, &two.snapshot).unwrap();
    let healthy = root(&sample.repository, &one.snapshot).unwrap();
    let lost = Body::Directory { size: 0, page: ChunkId([9; 32]), totals: Default::default() };
    let lost = Entry { name: b"lost".to_vec(), meta: metadata(), body: lost };
    let stop = Stop::new();
    let options = Options::default();
    let context = Context { repository: &sample.repository, options, progress: &Silent, stop: &stop };
    let mut paths = Vec::new();
    let statistics = between(&context, &lost, &healthy, b"", &mut |difference| {
        paths.push(difference.path.to_vec());
        Ok(())
    });
    assert_eq!((statistics.unwrap().issues, paths.len()), (1, 0));
    let statistics = between(&context, &healthy, &broken, b"", &mut |_| Ok(())).unwrap();
    assert_eq!((statistics.issues, statistics.changed_files), (0, 3));
    stop.trigger(2);
    assert!(between(&context, &healthy, &broken, b"", &mut |_| Ok(())).is_err());
}

/// A file system of its own, and the same in a snapshot.
fn live(folder: &Path, old: &Entry, repository: &Repository, options: Options, rules: &[&str]) -> (Told, Statistics) {
    let excludes = crate::pattern::Patterns::from_arguments(rules).unwrap();
    let live = Live {
        path: folder.as_os_str().as_bytes().to_vec(),
        roots: vec![PathBuf::from(folder)],
        options: walk::Options { excludes, ..walk::Options::default() },
    };
    let stop = Stop::new();
    let mut told = Told::new();
    let context = Context { repository, options, progress: &Silent, stop: &stop };
    let statistics = with_live(&context, old, &live, &mut |difference| {
        let path = Path::new(OsStr::from_bytes(difference.path)).strip_prefix(folder).unwrap();
        let what = (difference.modifier, difference.fields.len(), difference.bytes);
        assert!(told.insert(path.to_str().unwrap().to_owned(), what).is_none(), "told twice");
        Ok(())
    });
    (told, statistics.unwrap())
}

#[test]
fn live_files_are_compared_by_their_bytes_without_fetching_any() {
    let sample = Sample::new();
    let data = [noise(1, 5000), vec![0; 70_000], noise(2, 3000)];
    let pieces = vec![Piece::Data(data[0].clone()), Piece::Hole(70_000), Piece::Data(data[2].clone())];
    let tree = dir([
        ("same", Thing::File(pieces.clone())),
        ("other", Thing::File(pieces)),
        ("short", Thing::Inline(b"abc".to_vec())),
        ("gone", dir([("out", dir([("x", Thing::Fifo)])), ("in", Thing::Fifo)])),
        ("turn", dir([("x", Thing::Fifo)])),
        ("link", Thing::Symlink(b"there".to_vec())),
    ]);
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree);
    let old = root(&sample.repository, &named.snapshot).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bytes = data.concat();
    std::fs::write(path("same"), &bytes).unwrap();
    let mut other = bytes.clone();
    other[40_000] = 1;
    std::fs::write(path("other"), &other).unwrap();
    std::fs::write(path("short"), "abc").unwrap();
    std::fs::write(path("turn"), "").unwrap();
    symlink("there", path("link")).unwrap();
    std::fs::create_dir_all(path("new/below")).unwrap();
    std::fs::write(path("out"), "").unwrap();
    sample.store.reset();
    let options = Options { content: true, metadata: false };
    let (found, statistics) = live(folder.path(), &old, &sample.repository, options, &["out"]);
    let modifiers: Vec<_> = found.iter().map(|(path, (what, ..))| (path.as_str(), *what)).collect();
    assert_eq!(
        modifiers,
        [
            ("gone", Modifier::Removed),
            ("gone/in", Modifier::Removed),
            ("new", Modifier::Added),
            ("new/below", Modifier::Added),
            ("other", Modifier::Content),
            ("turn", Modifier::Kind),
            ("turn/x", Modifier::Removed),
        ]
    );
    assert_eq!(statistics.issues, 0);
    assert_eq!(statistics.removed.dirs, 2);
    assert!(found["other"].2.added > 0);
    // Only "other" was fetched, to be compared line by line.
    assert!(sample.store.counts().calls(Operation::GetRange, ObjectKind::Data) <= 2 + 1);
    // Without a look at the bytes, times decide.
    let (found, _) = live(folder.path(), &old, &sample.repository, Options::default(), &["out"]);
    assert_eq!(found["short"], (Modifier::Content, 0, Bytes { added: 3, removed: 3 }));
    assert!(!found.contains_key("link"));
}
