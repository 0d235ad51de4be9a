//! Tests of the served tree, with real mounts where FUSE is to be had. Not for: the view below it.

use super::*;
use crate::store::{ObjectKey, ObjectKind, Store};
use crate::view::sample::{Piece, Sample, Thing, bytes_of, dir, noise};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::PoisonError;

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Said {
    fn all(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Progress for Said {
    fn issue(&self, _: &Path, error: &Error) {
        self.0.lock().unwrap().push(format!("{:?}: {error}", error.kind()));
    }

    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

/// Mounts where FUSE is to be had, lets `work` use the mount, and ends it. Returns what was said.
fn mounted(
    sample: &Sample,
    change: impl FnOnce(&mut MountOptions),
    work: impl FnOnce(&Path, &MountOptions, &Stop),
) -> Option<String> {
    let place = tempfile::tempdir().unwrap();
    let mut options = MountOptions::new(place.path().to_owned());
    options.refresh = Duration::from_millis(50);
    change(&mut options);
    if fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return None;
    }
    let (stop, said) = (Stop::new(), Said::default());
    let repository = Sample::open(&sample.store, 16 << 20);
    let (ready, is_ready) = bounded(1);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| run(repository, &options, &said, &stop, &mut || ready.send(()).unwrap()));
        match is_ready.recv_timeout(Duration::from_secs(20)) {
            Ok(()) => {
                let worked =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(place.path(), &options, &stop)));
                stop.trigger(15);
                let served = serving.join().unwrap();
                if let Err(panic) = worked {
                    std::panic::resume_unwind(panic);
                }
                served.unwrap();
            }
            Err(_) => panic!("{:?}", serving.join().unwrap()),
        }
    });
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    Some(said.all())
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}");
}

fn root() -> (Thing, Vec<u8>) {
    let pieces: Vec<Piece> = (0..40)
        .map(|n| if n == 20 { Piece::Hole(1 << 20) } else { Piece::Data(noise(n, (150 << 10) + n as usize)) })
        .collect();
    let bytes = bytes_of(&pieces);
    let many = dir((0..3000).map(|n| (format!("{n:05}"), Thing::Inline(n.to_string().into_bytes()))));
    let linked = || Thing::Linked(4, 2, b"linked".to_vec());
    let attributes = vec![(b"user.one".to_vec(), b"1".to_vec())];
    let tree = dir([
        ("large", Thing::File(pieces)),
        ("many", many),
        ("link", Thing::Symlink(b"many/00007".to_vec())),
        ("one", linked()),
        ("two", dir([("other", linked())])),
        ("attr", Thing::WithAttributes(attributes)),
        ("pipe", Thing::Fifo),
    ]);
    (tree, bytes)
}

#[test]
fn programs_see_snapshots_as_files() {
    let sample = Sample::new();
    let (tree, bytes) = root();
    sample.snapshot("2026-01-01T00:00:00Z", "host", &["tag"], &tree);
    let said = mounted(
        &sample,
        |_| {},
        |point, _, _| {
            let top = point.join("latest");
            assert_eq!(fs::read(top.join("large")).unwrap(), bytes);
            let large = fs::metadata(top.join("large")).unwrap();
            assert_eq!(
                (large.len(), large.mode(), large.uid(), large.gid()),
                (bytes.len() as u64, 0o100_640, 1000, 1001)
            );
            assert_eq!((large.mtime(), large.mtime_nsec()), (-5, 123_456_789));
            assert!(large.blocks() * 512 < large.len());
            let file = fs::File::open(top.join("large")).unwrap();
            let mut some = vec![0; 300 << 10];
            file.read_exact_at(&mut some, 2 << 20).unwrap();
            assert_eq!(some, bytes[2 << 20..(2 << 20) + some.len()]);
            let hole: usize = (0..20).map(|n| (150 << 10) + n).sum();
            assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(5)).unwrap(), hole as u64);
            assert_eq!(
                rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole as u64)).unwrap(),
                (hole + (1 << 20)) as u64
            );
            let names: Vec<_> = fs::read_dir(top.join("many")).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names.len(), 3000);
            assert_eq!(fs::read(top.join("link")).unwrap(), b"7");
            let (one, other) = (fs::metadata(top.join("one")).unwrap(), fs::metadata(top.join("two/other")).unwrap());
            assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
            assert_eq!(fs::metadata(top.join("many")).unwrap().nlink(), 2);
            assert_eq!(fs::metadata(&top).unwrap().nlink(), 1);
            let mut value = [0u8; 8];
            let got = rustix::fs::getxattr(top.join("attr"), "user.one", &mut value[..]).unwrap();
            assert_eq!(&value[..got], b"1");
            assert!(fs::read_to_string(point.join("README.txt")).unwrap().contains("read-only"));
            for dir in ["hosts/host", "tags/tag", "ids"] {
                for entry in fs::read_dir(point.join(dir)).unwrap() {
                    assert!(entry.unwrap().path().join("pipe").symlink_metadata().is_ok());
                }
            }
            assert!(fs::write(top.join("new"), "x").is_err());
            assert!(rustix::fs::statvfs(point).unwrap().f_files > 3000);
        },
    );
    assert!(said.is_none_or(|said| said.is_empty()));
}

#[test]
fn snapshots_come_and_go_in_a_running_mount() {
    let sample = Sample::new();
    let said = mounted(
        &sample,
        |options| options.owner = OwnerView::Me,
        |point, _, _| {
            assert_eq!(fs::read_dir(point.join("snapshots")).unwrap().count(), 0);
            assert!(!point.join("latest").exists());
            let first = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir([("a", Thing::Inline(b"1".to_vec()))]));
            wait_until("the first comes", || fs::read(point.join("latest/a")).is_ok());
            assert_eq!(fs::metadata(point.join("latest/a")).unwrap().uid(), crate::os::user_id());
            sample.snapshot("2026-02-01T00:00:00Z", "h", &[], &dir([("a", Thing::Inline(b"2".to_vec()))]));
            wait_until("the second comes", || fs::read(point.join("latest/a")).is_ok_and(|bytes| bytes == b"2"));
            assert_eq!(fs::read_dir(point.join("snapshots")).unwrap().count(), 2);
            sample.remove(&first);
            wait_until("the first goes", || fs::read_dir(point.join("snapshots")).unwrap().count() == 1);
        },
    );
    assert!(said.is_none_or(|said| said.is_empty()));
}

#[test]
fn a_mount_without_attributes_is_renewed_when_some_come() {
    use std::sync::atomic::{AtomicBool, Ordering};
    if !firn_fuse::can_renew() {
        return;
    }
    let sample = Sample::new();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir([("a", Thing::Inline(b"1".to_vec()))]));
    let said = mounted(
        &sample,
        |_| {},
        |point, _, _| {
            let mut value = [0u8; 8];
            let refused = rustix::fs::getxattr(point.join("latest/a"), "user.one", &mut value[..]);
            assert_eq!(refused, Err(rustix::io::Errno::OPNOTSUPP));
            let open = fs::File::open(point.join("latest/a")).unwrap();
            let (done, gap) = (AtomicBool::new(false), AtomicBool::new(false));
            std::thread::scope(|scope| {
                // At no moment is the place empty.
                scope.spawn(|| {
                    let end = Instant::now() + Duration::from_secs(15);
                    while !done.load(Ordering::Relaxed) && Instant::now() < end {
                        if fs::symlink_metadata(point.join("README.txt")).is_err() {
                            gap.store(true, Ordering::Relaxed);
                        }
                    }
                });
                let attributes = vec![(b"user.one".to_vec(), b"1".to_vec())];
                let tree = dir([("a", Thing::Inline(b"2".to_vec())), ("b", Thing::WithAttributes(attributes))]);
                sample.snapshot("2026-02-01T00:00:00Z", "h", &[], &tree);
                wait_until("the second comes", || fs::read(point.join("latest/a")).is_ok_and(|bytes| bytes == b"2"));
                done.store(true, Ordering::Relaxed);
            });
            assert!(!gap.load(Ordering::Relaxed));
            let got = rustix::fs::getxattr(point.join("latest/b"), "user.one", &mut value[..]).unwrap();
            assert_eq!(&value[..got], b"1");
            let none = rustix::fs::getxattr(point.join("latest/a"), "user.one", &mut value[..]);
            assert_eq!(none, Err(rustix::io::Errno::NODATA));
            // Who had a file open goes on with the mount of before.
            let mut byte = [0];
            open.read_exact_at(&mut byte, 0).unwrap();
            assert_eq!(byte, *b"1");
        },
    );
    assert!(said.is_none_or(|said| said.is_empty()));
}

#[test]
fn damage_is_an_error_for_what_it_hits_only() {
    let sample = Sample::new();
    let (tree, bytes) = root();
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree);
    let key = sample.store.inner().raw_keys().into_iter().find(|key| key.kind == ObjectKind::Data).unwrap();
    let mut pack = sample.store.inner().raw_get(&key).unwrap();
    let middle = pack.len() / 2;
    pack[middle] ^= 1;
    sample.store.inner().raw_set(&key, pack);
    let what = What::One { snapshot: Box::new(named), path: Vec::new() };
    let said = mounted(
        &sample,
        |options| options.what = what,
        |point, _, _| {
            let file = fs::File::open(point.join("large")).unwrap();
            let mut failed = 0;
            for offset in (0..bytes.len()).step_by(64 << 10) {
                let to = bytes.len().min(offset + (64 << 10));
                let mut buffer = vec![0; to - offset];
                match file.read_exact_at(&mut buffer, offset as u64) {
                    Ok(()) => assert!(buffer == bytes[offset..to], "wrong bytes at {offset}"),
                    Err(_) => failed += 1,
                }
            }
            assert!((1..=10).contains(&failed), "{failed}");
            assert_eq!(fs::read(point.join("many/00001")).unwrap(), b"1");
        },
    );
    assert!(said.is_none_or(|said| said.contains("Damaged: ") && said.contains(":/large\"")));
}

#[test]
fn a_busy_mount_goes_on_until_it_is_detached() {
    let sample = Sample::new();
    let (tree, bytes) = root();
    sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree);
    let mut open = None;
    let said = mounted(
        &sample,
        |_| {},
        |point, options, stop| {
            let file = fs::File::open(point.join("latest/large")).unwrap();
            stop.trigger(2);
            std::thread::sleep(Duration::from_millis(500));
            assert!(point.join("latest/large").exists());
            options.detach.trigger(2);
            wait_until("it is out of sight", || !point.join("README.txt").exists());
            let mut buffer = vec![0; 1 << 20];
            file.read_exact_at(&mut buffer, 3 << 20).unwrap();
            assert!(buffer == bytes[3 << 20..4 << 20]);
            open = Some(());
        },
    );
    let pid = std::process::id().to_string();
    assert!(said.is_none_or(|said| said.contains("in use") && said.contains(&pid)));
}

#[test]
fn obstacles_are_explained_before() {
    let sample = Sample::new();
    let place = tempfile::tempdir().unwrap();
    let check = |point: &Path| {
        let options = MountOptions::new(point.to_owned());
        prepare(&sample.repository, &options, &crate::progress::Silent).unwrap_err()
    };
    let missing = check(&place.path().join("missing"));
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.hint().unwrap().contains("mkdir"));
    fs::write(place.path().join("file"), "").unwrap();
    assert_eq!(check(&place.path().join("file")).kind(), ErrorKind::Input);
    assert_eq!(check(place.path()).kind(), ErrorKind::Input);
    let inside = sample.repository.cache().path().join("point");
    fs::create_dir(&inside).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o700)).unwrap();
    if fs::File::options().read(true).write(true).open("/dev/fuse").is_ok() {
        let overlap = check(&inside);
        assert!(overlap.to_string().contains("overlaps the cache folder"), "{overlap}");
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_is_named_and_left_out() {
    let sample = Sample::new();
    let bad = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir([("a", Thing::Fifo)]));
    sample.snapshot("2026-01-02T00:00:00Z", "h", &[], &dir([("b", Thing::Fifo)]));
    let key = ObjectKey::new(ObjectKind::Snapshot, bad.name);
    let mut bytes = sample.store.get(&key, 1 << 20).unwrap();
    bytes[100] ^= 1;
    sample.store.inner().raw_set(&key, bytes);
    let said = Said::default();
    let repository = Sample::open(&sample.store, 1 << 20);
    let view = View::all(repository, 1 << 20, jiff::tz::TimeZone::UTC, &said).unwrap();
    assert_eq!(view.snapshots().len(), 1);
    assert!(said.all().contains(&bad.name.to_string()), "{}", said.all());
}
