//! Tests of numbers, names, listings and folders that grow. Not for: content.

use super::*;
use crate::mount::tree::folders::{Change, MARKERS};
use crate::mount::tree::layout::{Style, Template};
use crate::progress::Silent;
use crate::repository::filter::Filter;
use crate::view::sample::{Sample, Thing, dir};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// What a plain walk says: path, rank, rank of the directory, what.
fn naive<'t>(
    entries: &'t BTreeMap<Vec<u8>, Thing>,
    path: &str,
    parent: u64,
    next: &mut u64,
    out: &mut Vec<(String, u64, u64, &'t Thing)>,
) {
    for (name, thing) in entries {
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        let rank = *next;
        *next += 1;
        out.push((path.clone(), rank, parent, thing));
        if let Thing::Dir(below) = thing {
            naive(below, &path, rank, next, out);
        }
    }
}

fn walk_naive(root: &Thing) -> Vec<(String, u64, u64, &Thing)> {
    let Thing::Dir(entries) = root else { panic!() };
    let mut out = Vec::new();
    naive(entries, "", ROOT_RANK, &mut 2, &mut out);
    out
}

/// What the view says, by listing everything.
fn walk_view(view: &View, node: &Node, path: &str, out: &mut Vec<(String, u64)>) {
    let mut found = Vec::new();
    view.list(node, 0, &mut |position, name, node| {
        assert_eq!(position, found.len() as u64);
        found.push((name.to_vec(), node.clone()));
        Ok(true)
    })
    .unwrap();
    for (name, node) in found {
        let path = format!("{path}/{}", String::from_utf8_lossy(&name));
        out.push((path.clone(), view.ino(&node).unwrap()));
        walk_view(view, &node, &path, out);
    }
}

fn random_tree(seed: &mut u64, depth: u32, most: u64) -> Thing {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    };
    let count = next() % most;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let name = format!("{:0width$x}", next() % 4000, width = (next() % 30) as usize).into_bytes();
        let kind = next() % 8;
        let thing = match kind {
            0..=2 if depth > 0 => {
                let mut below = next();
                random_tree(&mut below, depth - 1, most)
            }
            3 => Thing::Symlink(b"t".to_vec()),
            4 => Thing::Fifo,
            _ => Thing::Inline(name.clone()),
        };
        entries.insert(name, thing);
    }
    Thing::Dir(entries)
}

fn open_all(sample: &Sample) -> View {
    View::all(Sample::open(&sample.store, 32 << 20), 8 << 20, TimeZone::UTC, &Silent).unwrap()
}

fn at(view: &View, path: &str) -> Option<Node> {
    let mut node = view.root();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        node = view.lookup(&node, name.as_bytes()).unwrap()?;
    }
    Some(node)
}

fn check_tree(sample: &Sample, root: &Thing, name: &str) {
    let view = open_all(sample);
    let top = at(&view, &format!("snapshots/{name}")).unwrap();
    let base = view.ino(&top).unwrap() - ROOT_RANK;
    let expected = walk_naive(root);
    let mut listed = Vec::new();
    walk_view(&view, &top, "", &mut listed);
    let plain: Vec<_> = expected.iter().map(|(path, rank, ..)| (path.clone(), base + rank)).collect();
    assert_eq!(listed, plain);
    // With a view that has seen nothing yet, every number leads to its entry and to its directory.
    let fresh = open_all(sample);
    for (path, rank, parent, _) in &expected {
        let node = fresh.node(base + rank).unwrap().unwrap();
        assert_eq!(fresh.ino(&node).unwrap(), base + rank);
        assert!(fresh.path(&node).ends_with(path), "{} {path}", fresh.path(&node));
        assert_eq!(fresh.ino(&fresh.parent(&node).unwrap()).unwrap(), base + parent, "{path}");
        assert_eq!(fresh.peek(base + rank).as_deref(), node.entry().unwrap());
        let again = fresh.node(base + rank).unwrap().unwrap();
        assert_eq!(again.entry().unwrap(), node.entry().unwrap());
    }
    for absent in [base, base + 2 + expected.len() as u64, base + (1 << 35), base + (1 << RANK_BITS), u64::MAX, 2] {
        assert!(fresh.node(absent).unwrap().is_none(), "{absent}");
    }
}

#[test]
fn numbers_equal_a_plain_walk() {
    for seed in 1..12 {
        let sample = Sample::new();
        let root = random_tree(&mut { seed }, 3, 14);
        sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &root);
        check_tree(&sample, &root, "2026-01-01_00-00-00");
    }
}

fn large() -> Thing {
    let entry = |n: u32| {
        let below = dir([("x", Thing::Fifo), ("y", dir([("z", Thing::Inline(b"z".to_vec()))]))]);
        let thing = if n.is_multiple_of(7) { below } else { Thing::Inline(n.to_string().into_bytes()) };
        (format!("entry {:05}", n * 3).into_bytes(), thing)
    };
    dir([(b"a".to_vec(), Thing::Fifo), (b"big".to_vec(), dir((0..5000).map(entry))), (b"c".to_vec(), Thing::Fifo)])
}

#[test]
fn large_directories_are_read_from_any_position_and_by_name() {
    let sample = Sample::new();
    let root = large();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &root);
    check_tree(&sample, &root, "2026-01-01_00-00-00");
    let view = open_all(&sample);
    let big = at(&view, "latest").map(|_| at(&view, "snapshots/2026-01-01_00-00-00/big").unwrap()).unwrap();
    for from in 0..5003u64 {
        let mut names = Vec::new();
        view.list(&big, from, &mut |position, name, _| {
            assert_eq!(position, from + names.len() as u64);
            names.push(String::from_utf8(name.to_vec()).unwrap());
            Ok(names.len() < 2)
        })
        .unwrap();
        let expected: Vec<_> = (from..5000).take(2).map(|n| format!("entry {:05}", n * 3)).collect();
        assert_eq!(names, expected, "{from}");
    }
    for n in [0, 1, 777, 4999] {
        let name = |n: u32| format!("entry {n:05}").into_bytes();
        assert!(view.lookup(&big, &name(n * 3)).unwrap().is_some());
        assert!(view.lookup(&big, &name(n * 3 + 1)).unwrap().is_none());
    }
    for absent in [&b"a"[..], b"zzz", b"entry", &[0xff; 255]] {
        assert!(view.lookup(&big, absent).unwrap().is_none());
    }
}

#[test]
fn hard_links_share_the_number_of_the_first() {
    let linked = |group| Thing::Linked(group, 3, b"same".to_vec());
    let root = dir([
        ("a", dir([("plain", Thing::Fifo), ("one", linked(7))])),
        ("b", dir([("deep", dir([("two", linked(7)), ("other", linked(9))]))])),
        ("c", linked(7)),
        ("d", linked(9)),
    ]);
    let sample = Sample::new();
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &root);
    let view = open_all(&sample);
    let ino =
        |path: &str| view.ino(&at(&view, &format!("snapshots/2026-01-01_00-00-00/{path}")).unwrap()).unwrap() & 0xffff;
    // Asked in another order than that of the walk.
    assert_eq!((ino("c"), ino("b/deep/two"), ino("a/one")), (3, 3, 3));
    assert_eq!((ino("d"), ino("b/deep/other")), (7, 7));
    assert_eq!(ino("a/plain"), 4);
    let one = View::one(Sample::open(&sample.store, 1 << 20), 1 << 20, named, b"/b").unwrap();
    let deep = one.lookup(&one.root(), b"deep").unwrap().unwrap();
    let two = one.lookup(&deep, b"two").unwrap().unwrap();
    let ino = one.ino(&two).unwrap();
    // The first link is not below what is mounted: the first that is counts.
    assert_eq!(ino & 0xffff, 8);
    assert_eq!(one.ino(&one.node(ino).unwrap().unwrap()).unwrap(), ino);
}

#[test]
fn names_that_disagree_have_numbers_of_their_own() {
    let linked = |text: &str| Thing::Linked(7, 2, text.as_bytes().to_vec());
    let root = dir([
        ("a", linked("the old file")),
        ("b", linked("the new one with its number")),
        ("c", linked("the old file")),
        ("d", linked("the new one with its number")),
    ]);
    let sample = Sample::new();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &root);
    let view = open_all(&sample);
    let node = |path: &str| at(&view, &format!("snapshots/2026-01-01_00-00-00/{path}")).unwrap();
    let ino = |path: &str| view.ino(&node(path)).unwrap();
    assert!(ino("a") != ino("b"));
    assert_eq!((ino("a"), ino("b")), (ino("c"), ino("d")));
    for path in ["a", "b", "c", "d"] {
        let again = view.node(ino(path)).unwrap().unwrap();
        let body = |node: &Node| node.entry().unwrap().unwrap().body.clone();
        assert_eq!(body(&again), body(&node(path)), "{path}: what the number leads to is what the name leads to");
    }
}

#[test]
fn one_directory_can_be_the_root() {
    let root = large();
    let sample = Sample::new();
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &root);
    let repository = || Sample::open(&sample.store, 1 << 20);
    let view = View::one(repository(), 1 << 20, named.clone(), b"/big/entry 00021").unwrap();
    assert_eq!(view.ino(&view.root()).unwrap(), MOUNT_INO);
    let y = view.lookup(&view.root(), b"y").unwrap().unwrap();
    let z = view.lookup(&y, b"z").unwrap().unwrap();
    assert_eq!(view.ino(&view.parent(&z).unwrap()).unwrap(), view.ino(&y).unwrap());
    assert_eq!(view.ino(&view.parent(&y).unwrap()).unwrap(), MOUNT_INO);
    assert_eq!(view.ino(&view.parent(&view.root()).unwrap()).unwrap(), MOUNT_INO);
    let inside = view.ino(&z).unwrap();
    assert!(view.node(inside).unwrap().is_some());
    for outside in [inside + 1, inside - 4, (inside >> RANK_BITS) << RANK_BITS | 1] {
        assert!(view.node(outside).unwrap().is_none());
    }
    let whole = View::one(repository(), 1 << 20, named.clone(), b"").unwrap();
    assert!(at(&whole, "big/entry 00003").is_some());
    assert_eq!(View::one(repository(), 1 << 20, named.clone(), b"/a").unwrap_err().kind(), ErrorKind::Input);
    assert_eq!(View::one(repository(), 1 << 20, named, b"/bag").unwrap_err().kind(), ErrorKind::NotFound);
}

/// The names at the root, behind those that tell programs not to index it.
fn root_names(view: &View) -> Vec<String> {
    let mut names = names(view, "");
    assert_eq!(names.drain(..MARKERS.len()).collect::<Vec<_>>(), MARKERS);
    names
}

fn names(view: &View, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    let list = |_, name: &[u8], _: &Node| {
        names.push(String::from_utf8(name.to_vec()).unwrap());
        Ok(true)
    };
    view.list(&at(view, path).unwrap(), 0, &mut { list }).unwrap();
    names
}

fn link(view: &View, path: &str) -> String {
    match at(view, path) {
        Some(Node::Item(item)) => match &item.body {
            ItemBody::Link(target) => target.clone(),
            _ => panic!("{path} is no link"),
        },
        _ => panic!("{path} is not there"),
    }
}

#[test]
fn folders_follow_the_repository() {
    let sample = Sample::new();
    let view = open_all(&sample);
    assert_eq!(root_names(&view), ["README.txt", "deleted", "hosts", "ids", "snapshots", "tags", "versions"]);
    let first = sample.snapshot("2026-01-01T00:00:00.2Z", "a/b", &["x", "y"], &dir([("f", Thing::Fifo)]));
    assert!(!view.refresh(&Silent).unwrap().unwrap().is_empty());
    assert!(view.refresh(&Silent).unwrap().unwrap().is_empty());
    assert_eq!(names(&view, "snapshots"), ["2026-01-01_00-00-00"]);
    assert_eq!(names(&view, "hosts/a_b"), ["2026-01-01_00-00-00", "latest"]);
    assert_eq!(link(&view, "tags/y/2026-01-01_00-00-00"), "../../snapshots/2026-01-01_00-00-00");
    assert_eq!(link(&view, &format!("ids/{}", first.name.short())), "../snapshots/2026-01-01_00-00-00");
    let latest = view.ino(&at(&view, "latest").unwrap()).unwrap();
    let kept = view.ino(&at(&view, "snapshots/2026-01-01_00-00-00/f").unwrap()).unwrap();

    let second = sample.snapshot("2026-01-01T00:00:00.7Z", "c", &["x"], &dir([("g", Thing::Fifo)]));
    let changes = view.refresh(&Silent).unwrap().unwrap();
    let change = |ino: u64, names: &[&str]| Change { ino, names: names.iter().map(|n| (*n).to_owned()).collect() };
    let ino = |path: &str| view.ino(&at(&view, path).unwrap()).unwrap();
    assert!(changes.contains(&change(MOUNT_INO, &["latest"])), "{changes:?}");
    assert!(changes.contains(&change(ino("snapshots"), &["2026-01-01_00-00-00_2"])), "{changes:?}");
    assert!(changes.contains(&change(ino("hosts"), &["c"])), "{changes:?}");
    assert!(!changes.iter().any(|change| change.ino == ino("hosts/a_b")));
    assert_eq!(link(&view, "latest"), "snapshots/2026-01-01_00-00-00_2");
    assert_eq!(link(&view, "hosts/a_b/latest"), "../../snapshots/2026-01-01_00-00-00");
    // A link that leads elsewhere is another file, or the kernel would go on with the old one.
    assert_ne!(ino("latest"), latest);
    assert_eq!(ino("snapshots/2026-01-01_00-00-00/f"), kept);
    assert!(at(&view, "snapshots/2026-01-01_00-00-00_2/g").is_some());

    // After a remount all numbers are the same.
    let again = open_all(&sample);
    for path in ["latest", "hosts/c/latest", "tags/x", "snapshots/2026-01-01_00-00-00_2/g", "README.txt"] {
        assert_eq!(again.ino(&at(&again, path).unwrap()).unwrap(), ino(path), "{path}");
    }

    sample.remove(&second);
    assert!(!view.refresh(&Silent).unwrap().unwrap().is_empty());
    assert_eq!(names(&view, "snapshots"), ["2026-01-01_00-00-00"]);
    assert_eq!(view.ino(&at(&view, "latest").unwrap()).unwrap(), latest);
    assert_eq!(names(&view, "tags/x"), ["2026-01-01_00-00-00"]);
    let top = at(&view, "snapshots/2026-01-01_00-00-00").unwrap();
    assert_eq!(view.ino(&view.parent(&top).unwrap()).unwrap(), view.ino(&at(&view, "snapshots").unwrap()).unwrap());
}

fn with_layout(sample: &Sample, layout: Layout) -> View {
    View::all(Sample::open(&sample.store, 32 << 20), 8 << 20, layout, &Silent).unwrap()
}

#[test]
fn a_directory_of_each_snapshot_can_be_shown_alone() {
    let inside = dir([("f", Thing::Inline(b"f".to_vec())), ("g", dir([("h", Thing::Fifo)]))]);
    let whole = dir([("a", Thing::Fifo), ("me", dir([("past", inside)])), ("z", Thing::Fifo)]);
    let sample = Sample::new();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &whole);
    sample.snapshot("2026-01-02T00:00:00Z", "h", &[], &dir([("me", dir([("past", Thing::Fifo)]))]));
    sample.snapshot("2026-01-03T00:00:00Z", "h", &[], &dir([("you", Thing::Fifo)]));
    let layout = || Layout::of(Style::Flat, TimeZone::UTC).with_root(b"/me/past".to_vec());
    let view = with_layout(&sample, layout());
    // Those that do not have it, or have something else there, are left out.
    assert_eq!(root_names(&view), ["2026-01-01_00-00-00", "README.txt", "latest"]);
    assert_eq!(link(&view, "latest"), "2026-01-01_00-00-00");
    assert_eq!(names(&view, "2026-01-01_00-00-00"), ["f", "g"]);
    let top = at(&view, "2026-01-01_00-00-00").unwrap();
    let deep = at(&view, "2026-01-01_00-00-00/g/h").unwrap();
    assert_eq!(view.ino(&view.parent(&top).unwrap()).unwrap(), MOUNT_INO);
    let above = view.parent(&view.parent(&deep).unwrap()).unwrap();
    assert_eq!(view.ino(&above).unwrap(), view.ino(&top).unwrap());
    // Every number leads back, and there are none for what is around it.
    let mut listed = Vec::new();
    walk_view(&view, &top, "", &mut listed);
    let fresh = with_layout(&sample, layout());
    for (path, ino) in &listed {
        let node = fresh.node(*ino).unwrap().unwrap();
        assert!(fresh.ino(&node).unwrap() == *ino && fresh.path(&node).ends_with(&format!("/me/past{path}")));
    }
    let (first, last) = (listed[0].1, listed[listed.len() - 1].1);
    assert!(fresh.node(first - 2).unwrap().is_none() && fresh.node(last + 1).unwrap().is_none());
    // The same file has the same number where all is shown.
    let all = open_all(&sample);
    assert_eq!(all.ino(&at(&all, "snapshots/2026-01-01_00-00-00/me/past/g/h").unwrap()).unwrap(), listed[2].1);

    let newer = sample.snapshot("2026-01-04T00:00:00Z", "h", &[], &whole);
    let changes = view.refresh(&Silent).unwrap().unwrap();
    let expected = ["2026-01-04_00-00-00", "latest"].map(str::to_owned).to_vec();
    assert_eq!(changes, [Change { ino: MOUNT_INO, names: expected }]);
    assert_eq!(link(&view, "latest"), "2026-01-04_00-00-00");
    sample.remove(&newer);
    view.refresh(&Silent).unwrap();
    assert_eq!(root_names(&view), ["2026-01-01_00-00-00", "README.txt", "latest"]);
}

#[test]
fn templates_and_filters_follow_the_repository() {
    let sample = Sample::new();
    let templates = ["%h/%t", "tagged/%T/%i"].map(|text| Template::parse(text).unwrap()).to_vec();
    let filter = Filter { hosts: vec!["a".into(), "b".into()], ..Filter::default() };
    let view = with_layout(&sample, Layout::from(TimeZone::UTC).with_templates(templates).with_filter(filter));
    assert_eq!(root_names(&view), ["README.txt"]);
    sample.snapshot("2026-01-01T00:00:00Z", "a", &[], &dir([("f", Thing::Fifo)]));
    sample.snapshot("2026-01-05T00:00:00Z", "c", &["x"], &dir([("f", Thing::Fifo)]));
    view.refresh(&Silent).unwrap();
    assert_eq!(root_names(&view), ["README.txt", "a", "latest"]);
    assert_eq!(names(&view, "a"), ["2026-01-01_00-00-00", "latest"]);
    assert_eq!(
        (link(&view, "latest"), link(&view, "a/latest")),
        ("a/2026-01-01_00-00-00".into(), "2026-01-01_00-00-00".into())
    );
    let tagged = sample.snapshot("2026-01-02T00:00:00Z", "b", &["x"], &dir([("g", Thing::Fifo)]));
    view.refresh(&Silent).unwrap();
    assert_eq!(link(&view, "latest"), "b/2026-01-02_00-00-00");
    assert_eq!(link(&view, &format!("tagged/x/{}", tagged.name.short())), "../../b/2026-01-02_00-00-00");
    let top = at(&view, "b/2026-01-02_00-00-00").unwrap();
    assert_eq!(view.ino(&view.parent(&top).unwrap()).unwrap(), view.ino(&at(&view, "b").unwrap()).unwrap());
    // Nothing but the snapshots where Samba looks for them.
    let gmt = with_layout(&sample, Layout::of(Style::PreviousVersions, TimeZone::UTC));
    let expected = ["@GMT-2026.01.01-00.00.00", "@GMT-2026.01.02-00.00.00", "@GMT-2026.01.05-00.00.00"];
    assert_eq!(names(&gmt, ""), expected);
}

#[test]
fn folders_whose_pages_share_a_block_are_listed_without_waiting_once_one_was() {
    let folder = |n: u32| (format!("d{n:02}"), dir([(format!("file{n}"), Thing::Inline(b"x".to_vec()))]));
    let sample = Sample::new();
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir((0..50).map(folder)));
    let view = View::one(Sample::open(&sample.store, 32 << 20), 8 << 20, named, b"").unwrap();
    let root = view.root();
    let folder = |n: u32| view.ino(&view.lookup(&root, format!("d{n:02}").as_bytes()).unwrap().unwrap()).unwrap();
    let numbers: Vec<u64> = (0..50).map(folder).collect();
    sample.store.reset();
    assert!(numbers.iter().all(|ino| view.is_resident(*ino)));
    assert_eq!(sample.store.log().len(), 0);
    // A small cache of blocks holds none of them, and then storage has to be asked.
    let repository = Sample::open(&sample.store, 0);
    let named = view.snapshots()[0].named().clone();
    let view = View::one(repository, 8 << 20, named, b"").unwrap();
    view.list(&view.root(), 0, &mut |_, _, _| Ok(true)).unwrap();
    assert!(numbers.iter().all(|ino| !view.is_resident(*ino)));
}
