//! Are directories listed completely, in any size, and kept by the kernel?

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::sync::atomic::Ordering;

use firn_fuse::FaultKind;
use rustix::fs::{Dir, Mode, OFlags};

use crate::memory::{Object, Tree};
use crate::support::{Live, needs_fuse};

fn open_dir(path: &std::path::Path) -> Dir {
    Dir::new(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()).unwrap()
}

#[test]
fn a_hundred_thousand_entries() {
    needs_fuse!();
    let count = 100_000_u64;
    let tree = Tree::new();
    tree.add(1, "big", Object::dir(2));
    {
        let big = std::sync::Arc::clone(&tree.objects.read().unwrap()[&2]);
        for n in 0..count {
            tree.put(Object { parent: 2, ..Object::bytes(10 + n, b"x") });
            big.names
                .write()
                .unwrap()
                .push((format!("entry {n:06} {}", "x".repeat((n % 90) as usize)).into_bytes(), 10 + n));
        }
    }
    let live = Live::new(tree);
    let names: BTreeSet<_> = fs::read_dir(live.path("big")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len() as u64, count);
    // Names and attributes came along: neither the second listing nor the attributes ask anything.
    let asked =
        |live: &Live| live.tree.calls.lookup.load(Ordering::Relaxed) + live.tree.calls.list.load(Ordering::Relaxed);
    let before = asked(&live);
    let mut sizes = 0;
    for entry in fs::read_dir(live.path("big")).unwrap() {
        sizes += entry.unwrap().metadata().unwrap().len();
    }
    assert_eq!(sizes, count);
    assert!(asked(&live) - before <= 2, "{} questions", asked(&live) - before);
}

#[test]
fn positions_in_a_listing_can_be_returned_to() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "d", Object::dir(2));
    for n in 0..3000_u64 {
        tree.add(2, format!("{n:05}"), Object::bytes(10 + n, b""));
    }
    let live = Live::new(tree);
    for _warm in 0..2 {
        let mut dir = open_dir(&live.path("d"));
        let entries: Vec<_> = dir.by_ref().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 3002);
        for at in [0, 1, 2, 3, 500, 2999, 3000] {
            // The position of an entry is that behind it.
            dir.seek(entries[at].offset()).unwrap();
            let next = dir.read().unwrap().unwrap();
            assert_eq!(next.file_name(), entries[at + 1].file_name());
        }
        dir.seek(entries[3001].offset()).unwrap();
        assert!(dir.read().is_none());
        dir.rewind();
        assert_eq!(dir.by_ref().count(), 3002);
    }
}

#[test]
fn dot_entries_and_their_numbers() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "a", Object::dir(2));
    tree.add(2, "b", Object::dir(3));
    tree.add(3, "c", Object::bytes(4, b""));
    let live = Live::new(tree);
    let entries: Vec<_> = open_dir(&live.path("a/b")).map(|entry| entry.unwrap()).collect();
    let seen: Vec<_> = entries.iter().map(|entry| (entry.file_name().to_bytes(), entry.ino())).collect();
    assert_eq!(seen, [(&b"."[..], 3), (&b".."[..], 2), (&b"c"[..], 4)]);
    assert_eq!(fs::metadata(live.path("a/b/..")).unwrap().ino(), 2);
    assert_eq!(fs::metadata(live.path("a/..")).unwrap().ino(), 1);
    assert_eq!(fs::read_dir(live.path("a")).unwrap().next().unwrap().unwrap().ino(), 3);
}

#[test]
fn any_bytes_in_names_but_none_that_would_break_the_listing() {
    needs_fuse!();
    let tree = Tree::new();
    let long = vec![b'n'; 255];
    for (n, name) in [&b"\xff\xfe"[..], b"new\nline", b" ", &long].iter().enumerate() {
        tree.add(1, name, Object::bytes(10 + n as u64, b"x"));
    }
    for (n, name) in [&b""[..], b"a/b", b"a\0b", b"..", &[b'n'; 256]].iter().enumerate() {
        tree.add(1, name, Object::bytes(20 + n as u64, b"x"));
    }
    let live = Live::new(tree);
    let names: BTreeSet<_> =
        fs::read_dir(live.root()).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec()).collect();
    assert_eq!(names, BTreeSet::from([b"\xff\xfe".to_vec(), b"new\nline".to_vec(), b" ".to_vec(), long.clone()]));
    for name in names {
        assert_eq!(fs::read(live.root().join(std::ffi::OsStr::from_bytes(&name))).unwrap(), b"x");
    }
    let faults = live.faults();
    assert!(faults.len() >= 5 && faults.iter().all(|fault| fault.kind == FaultKind::Damaged), "{faults:?}");
}

#[test]
fn a_damaged_listing_shows_what_can_be_read_and_then_fails() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "d", Object::dir(2));
    for (n, name) in ["a", "b", "~damage", "~z"].iter().enumerate() {
        tree.add(2, name, Object::bytes(10 + n as u64, b"x"));
    }
    let live = Live::new(tree);
    for _again in 0..2 {
        let entries: Vec<_> = fs::read_dir(live.path("d")).unwrap().collect();
        let names: Vec<_> = entries.iter().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["a", "b"]);
        let error = entries.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    }
    assert_eq!(fs::read(live.path("d/~z")).unwrap(), b"x");
    assert!(!live.faults().is_empty());
}

#[test]
fn a_growing_directory_is_seen() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "snapshots", Object { mutable: true, ..Object::dir(2) });
    tree.add(2, "one", Object::dir(3));
    let live = Live::new(tree);
    let count = || fs::read_dir(live.path("snapshots")).unwrap().count();
    assert_eq!((count(), count()), (1, 1));
    assert!(!live.path("snapshots/two").exists());
    live.tree.add(2, "two", Object::dir(4));
    // An absent name is never kept; a listing is until the kernel is told.
    assert!(live.path("snapshots/two").exists());
    live.mounted().notifier().directory_changed(2).unwrap();
    assert_eq!(count(), 2);
    // A name that goes away, or means something else.
    let object = std::sync::Arc::clone(&live.tree.objects.read().unwrap()[&2]);
    object.names.write().unwrap().retain(|(name, _)| name != b"one");
    live.mounted().notifier().directory_changed(2).unwrap();
    live.mounted().notifier().entry_changed(2, b"one").unwrap();
    assert!(!live.path("snapshots/one").exists());
    assert_eq!(count(), 1);
    // Telling about what the kernel does not know is no error.
    live.mounted().notifier().directory_changed(99).unwrap();
}
