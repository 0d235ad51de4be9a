//! Do programs read the bytes that are there, all of them and no others?

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use firn_fuse::Options;
use rustix::io::Errno;

use crate::memory::{Body, Object, Tree, pattern_range};
use crate::support::{Live, errno, needs_fuse, needs_root};

#[test]
fn small_and_empty_files() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "empty", Object::bytes(2, b""));
    tree.add(1, "small", Object::bytes(3, b"hello"));
    let live = Live::new(tree);
    assert_eq!(fs::read(live.path("empty")).unwrap(), b"");
    assert_eq!(fs::read(live.path("small")).unwrap(), b"hello");
    // A second time, the kernel has it.
    let before = live.tree.calls.read.load(Ordering::Relaxed);
    assert_eq!(fs::read(live.path("small")).unwrap(), b"hello");
    assert_eq!(live.tree.calls.read.load(Ordering::Relaxed), before);
}

#[test]
fn ranges_anywhere_and_across_the_end() {
    needs_fuse!();
    let size = 5_000_003;
    for direct_io in [false, true] {
        let tree = Tree::new();
        tree.add(1, "f", Object::file(2, size, Body::Pattern));
        let live = Live::with(tree, &Options { direct_io, ..Options::default() });
        let file = File::open(live.path("f")).unwrap();
        for offset in [0, 1, 4095, 4096, 131_071, 131_072, 1_048_575, 3_333_333, size - 1] {
            for len in [1, 2, 4095, 4097, 131_073, 2_000_000] {
                let due = len.min((size - offset) as usize);
                let mut bytes = vec![0; due];
                file.read_exact_at(&mut bytes, offset).unwrap();
                assert!(bytes == pattern_range(offset, due), "{offset} {len}");
            }
        }
        for behind in [size, size + 1, size + 1_000_000] {
            assert_eq!(file.read_at(&mut [0; 10], behind).unwrap(), 0);
        }
        assert!(fs::read(live.path("f")).unwrap() == pattern_range(0, size as usize));
        assert!(live.faults().is_empty(), "{:?}", live.faults());
    }
}

#[test]
fn many_readers_at_once() {
    needs_fuse!();
    let (size, files) = (700_001, 8_u64);
    let tree = Tree::new();
    for n in 0..files {
        tree.add(1, format!("f{n}"), Object::file(10 + n, size + n, Body::Pattern));
    }
    let live = Live::new(tree);
    std::thread::scope(|scope| {
        for reader in 0..16_u64 {
            let live = &live;
            scope.spawn(move || {
                for round in 0..files {
                    let n = (reader + round) % files;
                    let bytes = fs::read(live.path(&format!("f{n}"))).unwrap();
                    assert!(bytes == pattern_range(0, (size + n) as usize));
                }
            });
        }
    });
}

#[test]
fn holes_are_found_and_read_as_zeros() {
    needs_fuse!();
    let mib = 1 << 20;
    let tree = Tree::new();
    let sparse = Object::file(2, 10 * mib, Body::Sparse(vec![(mib, 2 * mib), (5 * mib, 6 * mib)]));
    tree.add(1, "sparse", Object { attr: firn_fuse::Attr { blocks: 4096, ..sparse.attr }, ..sparse });
    tree.add(1, "dense", Object::file(3, mib, Body::Pattern));
    let live = Live::new(tree);
    let file = File::open(live.path("sparse")).unwrap();
    assert_eq!((file.metadata().unwrap().blocks(), file.metadata().unwrap().len()), (4096, 10 * mib));
    let data = |at| rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at));
    let hole = |at| rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(at));
    assert_eq!(data(0), Ok(mib));
    assert_eq!(data(mib + 5), Ok(mib + 5));
    assert_eq!(data(2 * mib), Ok(5 * mib));
    assert_eq!(data(6 * mib), Err(Errno::NXIO));
    assert_eq!(hole(0), Ok(0));
    assert_eq!(hole(mib), Ok(2 * mib));
    assert_eq!(hole(6 * mib), Ok(6 * mib));
    assert_eq!(hole(10 * mib), Err(Errno::NXIO));
    assert_eq!(data(11 * mib), Err(Errno::NXIO));
    let mut zeros = vec![1; 4096];
    file.read_exact_at(&mut zeros, 3 * mib).unwrap();
    assert!(zeros.iter().all(|&byte| byte == 0));
    let dense = File::open(live.path("dense")).unwrap();
    assert_eq!(rustix::fs::seek(&dense, rustix::fs::SeekFrom::Hole(5)), Ok(mib));
    // A copying program keeps the holes.
    let copy = tempfile::NamedTempFile::new().unwrap();
    let status =
        std::process::Command::new("cp").arg("--sparse=auto").arg(live.path("sparse")).arg(copy.path()).status();
    assert!(status.unwrap().success());
    assert!(copy.as_file().metadata().unwrap().blocks() <= 4096 + 64);
    assert!(fs::read(copy.path()).unwrap() == fs::read(live.path("sparse")).unwrap());
}

#[test]
fn ordinary_seeking_works_without_open_requests() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "f", Object::file(2, 100_000, Body::Pattern));
    let live = Live::new(tree);
    let mut file = File::open(live.path("f")).unwrap();
    assert_eq!(file.seek(SeekFrom::End(-10)).unwrap(), 99_990);
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, pattern_range(99_990, 10));
}

#[test]
fn look_ups_are_quick_while_all_readers_wait() {
    needs_fuse!();
    let tree = Tree::new();
    for n in 0..8 {
        tree.add(1, format!("slow{n}"), Object::file(10 + n, 4096, Body::Slow(Duration::from_millis(1500))));
    }
    tree.add(1, "quick", Object::bytes(5, b"x"));
    tree.add(1, "dir", Object::dir(6));
    tree.add(6, "child", Object::bytes(7, b"x"));
    tree.waits.lock().unwrap().push(6);
    let options = Options { workers: 4, ..Options::default() };
    let live = Live::with(tree, &options);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = live.path(&format!("slow{n}"));
            scope.spawn(move || fs::read(path).unwrap());
        }
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        for n in 0..200 {
            let _ = fs::metadata(live.path(&format!("absent{n}")));
        }
        assert!(fs::metadata(live.path("quick")).is_ok());
        // This one waits for storage, too, but not behind the contents.
        assert!(fs::metadata(live.path("dir/child")).is_ok());
        assert_eq!(fs::read_dir(live.path("dir")).unwrap().count(), 1);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    });
}

#[test]
fn a_hung_store_ends_in_a_time_out() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "slow", Object::file(2, 4096, Body::Slow(Duration::from_secs(4))));
    let options = Options { patience: Duration::from_millis(300), ..Options::default() };
    let live = Live::with(tree, &options);
    let start = Instant::now();
    assert_eq!(errno(fs::read(live.path("slow"))), Errno::TIMEDOUT.raw_os_error());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(live.faults().iter().any(|fault| fault.kind == firn_fuse::FaultKind::TimedOut));
}

#[test]
fn large_files_are_read_in_large_pieces() {
    needs_root!();
    let size = 32 << 20;
    let tree = Tree::new();
    tree.add(1, "f", Object::bytes(2, &vec![7; size]));
    let live = Live::new(tree);
    assert_eq!(fs::read(live.path("f")).unwrap().len(), size);
    let reads = live.tree.calls.read.load(Ordering::Relaxed);
    assert!(reads <= 64, "{reads} requests for 32 MiB");
}
