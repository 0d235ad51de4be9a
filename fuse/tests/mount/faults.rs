//! Does damage, and do errors in the tree itself, cost exactly what is damaged?

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use firn_fuse::{FaultKind, Options};
use rustix::io::Errno;

use crate::memory::{Body, CHUNK, Object, Tree, pattern_range};
use crate::support::{Live, errno, needs_fuse};

const EIO: i32 = Errno::IO.raw_os_error();

#[test]
fn damage_costs_its_own_range_only() {
    needs_fuse!();
    let size = 10 * CHUNK;
    for direct_io in [false, true] {
        let tree = Tree::new();
        tree.add(1, "f", Object::file(2, size, Body::Damaged(4)));
        tree.add(1, "whole", Object::file(3, size, Body::Pattern));
        let live = Live::with(tree, &Options { direct_io, ..Options::default() });
        let file = File::open(live.path("f")).unwrap();
        let mut page = vec![0; 4096];
        for at in (0..size).step_by(4096) {
            let read = file.read_exact_at(&mut page, at);
            if at / CHUNK == 4 {
                assert_eq!(errno(read), EIO, "{at}");
            } else {
                read.unwrap();
                assert!(page == pattern_range(at, 4096), "{at}");
            }
        }
        // Backwards, too, and in one go.
        file.read_exact_at(&mut page, 5 * CHUNK).unwrap();
        assert_eq!(errno(fs::read(live.path("f"))), EIO);
        assert!(fs::read(live.path("whole")).unwrap() == pattern_range(0, size as usize));
        assert!(live.faults().iter().any(|fault| fault.message == "chunk 4 is damaged"));
    }
}

#[test]
fn a_panic_costs_one_request() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "bad", Object::file(2, 4096, Body::Panics));
    tree.add(1, "good", Object::bytes(3, b"fine"));
    let live = Live::with(tree, &Options { threads: 1, workers: 1, ..Options::default() });
    for n in 0..5 {
        assert_eq!(errno(fs::read(live.path("bad"))), EIO);
        assert_eq!(errno(fs::metadata(live.path("panic"))), EIO);
        live.tree.add(1, format!("good{n}"), Object::bytes(10 + n, b"fine"));
        assert_eq!(fs::read(live.path(&format!("good{n}"))).unwrap(), b"fine");
    }
    assert_eq!(fs::read(live.path("good")).unwrap(), b"fine");
    let faults = live.faults();
    assert!(faults.len() >= 10 && faults.iter().all(|fault| fault.kind == FaultKind::Panicked), "{faults:?}");
    assert!(faults[0].message.contains("expected in this test"), "{}", faults[0].message);
}

#[test]
fn a_fault_is_not_taken_for_absence() {
    needs_fuse!();
    let live = Live::new(Tree::new());
    for _ in 0..3 {
        assert_eq!(errno(fs::metadata(live.path("fault"))), EIO);
    }
    assert_eq!(live.faults().len(), 3);
}

#[test]
fn too_few_bytes_are_an_error_and_not_zeros() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "short", Object::file(2, 10_000, Body::Short));
    let live = Live::new(tree);
    assert_eq!(errno(fs::read(live.path("short"))), EIO);
    assert_eq!(fs::metadata(live.path("short")).unwrap().len(), 10_000);
    assert!(live.faults()[0].message.contains("instead of"), "{:?}", live.faults());
}

#[test]
fn a_callback_that_panics_harms_nothing() {
    needs_fuse!();
    let tree = std::sync::Arc::new(Tree::new());
    tree.add(1, "good", Object::bytes(3, b"fine"));
    let dir = tempfile::tempdir().unwrap();
    let mounted = firn_fuse::mount(crate::memory::Shared(tree), dir.path(), &Options::default(), |_| {
        panic!("expected in this test")
    });
    let mounted = mounted.unwrap();
    assert_eq!(errno(fs::metadata(dir.path().join("fault"))), EIO);
    assert_eq!(fs::read(dir.path().join("good")).unwrap(), b"fine");
    mounted.unmount().unwrap();
}

#[test]
fn an_object_that_is_gone_is_stale() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "f", Object::file(2, 4096, Body::Pattern));
    let live = Live::new(tree);
    let file = File::open(live.path("f")).unwrap();
    live.tree.objects.write().unwrap().remove(&2);
    assert_eq!(errno(file.read_at(&mut [0; 10], 0)), Errno::STALE.raw_os_error());
    assert!(live.faults().is_empty());
}
