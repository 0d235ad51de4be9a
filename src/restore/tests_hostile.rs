//! Restores from damaged or lying repositories into traps, and restores that are cut short. Not for: the normal case.

use super::tests::*;
use super::tests_links::restore_beside;
use super::*;
use crate::format::message::ChunkKind;
use crate::format::tree::{Body, Content, Extent, Metadata, Owner};
use crate::id::ChunkId;
use crate::os::{self, FileTime};
use crate::store::{ObjectKind, Operation};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

#[test]
fn symlinks_in_the_target_lead_nowhere() {
    let fixture =
        Fixture::new(vec![dir("d", vec![text("f", "new"), text("g", "new")]), text("top", "new"), text("z", "new")]);
    let plant = |overwrite| {
        drop(fs::remove_dir_all(fixture.at("target")));
        drop(fs::remove_dir_all(fixture.at("outside")));
        fs::create_dir(fixture.at("target")).unwrap();
        fs::create_dir(fixture.at("outside")).unwrap();
        fs::write(fixture.at("outside/top"), "old").unwrap();
        symlink(fixture.at("outside"), fixture.at("target/d")).unwrap();
        symlink(fixture.at("outside/top"), fixture.at("target/top")).unwrap();
        let (report, issues) = fixture.restore("", &RestoreOptions { overwrite, ..fixture.options() });
        assert_eq!(fs::read(fixture.at("outside/top")).unwrap(), b"old");
        assert_eq!(fs::read_dir(fixture.at("outside")).unwrap().count(), 1);
        assert_eq!(fs::read(fixture.at("target/z")).unwrap(), b"new");
        (report.files, issues.len(), fixture.at("target/d").is_symlink(), fixture.at("target/top").is_symlink())
    };
    assert_eq!(plant(Overwrite::Always), (4, 0, false, false));
    assert_eq!(plant(Overwrite::IfChanged), (2, 1, true, false));
    assert_eq!(plant(Overwrite::Never), (1, 2, true, true));
}

#[test]
fn directories_are_never_removed() {
    let fixture = Fixture::new(vec![text("a", "new"), text("b", "new")]);
    fs::create_dir_all(fixture.at("target/a/deep")).unwrap();
    let (report, issues) = fixture.restore("", &RestoreOptions { overwrite: Overwrite::Always, ..fixture.options() });
    assert!(fixture.at("target/a/deep").is_dir());
    assert_eq!((report.files, report.damaged), (1, 0));
    assert!(issues.len() == 1 && issues[0].starts_with("/a: Exists"), "{issues:?}");
}

#[test]
fn a_target_that_cannot_be_one() {
    let fixture = Fixture::new(vec![text("a", "new")]);
    fs::write(fixture.at("file"), "").unwrap();
    for (target, kind) in [("file", ErrorKind::Input), ("file/below", ErrorKind::Failed)] {
        let options = RestoreOptions { target: fixture.at(target), ..fixture.options() };
        let error = run(&fixture.repository, &fixture.snapshot, b"", &options, &Heard::default(), &Stop::new());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.hint().is_some());
    }
}

/// Where the chunk lies: its pack, and the frame's place in it.
fn locate(fixture: &Fixture, chunk: &[u8]) -> (crate::store::ObjectKey, u64, u32) {
    let id = fixture.repository.keyring().chunk_id(ChunkKind::Content, chunk);
    let index = fixture.repository.index().unwrap();
    let mut found = None;
    index.find(&id, &mut |place| found.replace(place).is_none()).unwrap();
    let pack = index.pack(found.unwrap()).unwrap();
    let (offset, length) = pack.frame(found.unwrap().block).unwrap();
    (crate::repository::read::pack_key(&pack), offset, length)
}

#[test]
fn damage_costs_only_what_it_hit() {
    let fixture = Fixture::new(vec![
        file("bad", vec![Piece::Data(noise(1, 200_000)), Piece::Data(noise(2, 200_000))]),
        file("good", vec![Piece::Data(noise(3, 200_000)), Piece::Data(noise(1, 200_000))]),
        file("hard", vec![Piece::Data(noise(2, 200_000))]).with(linked(1)),
        file("link", vec![Piece::Data(noise(2, 200_000))]).with(linked(1)),
    ]);
    fs::create_dir(fixture.at("target")).unwrap();
    fs::write(fixture.at("target/bad"), "before").unwrap();
    fs::write(fixture.at("target/hard"), "before").unwrap();
    let (key, offset, _) = locate(&fixture, &noise(2, 200_000));
    let mut bytes = fixture.store.inner().raw_get(&key).unwrap();
    bytes[offset as usize + 100] ^= 1;
    fixture.store.inner().raw_set(&key, bytes);
    let (report, issues) = fixture.restore("", &fixture.options());
    assert_eq!((report.files, report.verified, report.issues, report.damaged), (1, 1, 3, 3), "{issues:?}");
    assert_eq!(fs::read(fixture.at("target/good")).unwrap(), [noise(3, 200_000), noise(1, 200_000)].concat());
    assert_eq!(fs::read(fixture.at("target/bad")).unwrap(), b"before", "no half file replaces an old one");
    assert!(!fixture.at("target/link").exists(), "an old file is not another name of a lost one");
    fixture.store.inner().raw_remove(&key);
    fs::remove_dir_all(fixture.at("target")).unwrap();
    let (report, _) = fixture.restore("", &fixture.options());
    assert!(report.damaged >= 2 && !fixture.at("target/bad").exists());
}

#[test]
fn packs_are_read_in_order_and_only_once() {
    let pieces = |seeds: &[u64]| seeds.iter().map(|seed| Piece::Data(noise(*seed, 150_000))).collect::<Vec<_>>();
    let fixture = Fixture::new(vec![
        file("a", pieces(&[1, 2, 3, 4, 5, 6, 7, 8])),
        file("b", pieces(&[8, 7, 6, 5, 4, 3, 2, 1])),
        file("c", pieces(&[1, 1, 1, 1, 1, 9])),
    ]);
    fixture.store.reset();
    let report = fixture.restore_all(&RestoreOptions { verify: false, ..fixture.options() });
    assert_eq!(report.bytes, 22 * 150_000);
    let counts = fixture.store.counts();
    let packs = fixture.repository.index().unwrap();
    let mut data_packs = 0;
    packs
        .for_each_pack(&mut |pack| {
            data_packs += u64::from(!pack.is_tree);
            Ok(())
        })
        .unwrap();
    // Two reads a pack: its header, and its frames in one go.
    assert_eq!(counts.calls(Operation::GetRange, ObjectKind::Data), 2 * data_packs);
    let read = counts.bytes(Operation::GetRange, ObjectKind::Data);
    assert!((9 * 150_000..9 * 150_000 + 20_000).contains(&read), "{read} bytes");
}

/// Asks to stop at the nth file.
struct StopAt<'a>(&'a Stop, AtomicU64);

impl Progress for StopAt<'_> {
    fn bytes(&self, _bytes: u64) {
        if self.1.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.trigger(2);
        }
    }
}

#[test]
fn a_stop_leaves_no_half_file() {
    let names = ["a", "b", "c", "d"];
    let pieces = |seed: u64| (0..4).map(move |n| Piece::Data(noise(seed * 10 + n, 140_000))).collect::<Vec<_>>();
    let fixture = Fixture::new(names.iter().zip(1..).map(|(name, seed)| file(name, pieces(seed))).collect());
    for after in [1, 2, 5, 9, 15] {
        let stop = Stop::new();
        let progress = StopAt(&stop, AtomicU64::new(after));
        let options = RestoreOptions { target: fixture.at(&format!("t{after}")), ..fixture.options() };
        let result = run(&fixture.repository, &fixture.snapshot, b"", &options, &progress, &stop);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
        // It tells the next restore that the folder is as new as it was for this one.
        let mark = partial::marks(&fs::File::open(&options.target).unwrap().into()).pop().unwrap();
        fs::remove_file(options.target.join(as_path(&mark))).unwrap();
        fixture.assert_clean();
        for (name, seed) in names.iter().zip(1..) {
            if let Ok(found) = fs::read(options.target.join(name)) {
                let whole: Vec<u8> = (0..4).flat_map(|n| noise(seed * 10 + n, 140_000)).collect();
                assert!(found == whole, "{name}");
            }
        }
    }
}

#[test]
fn lies_about_totals_end_the_walk() {
    let things = || vec![dir("d", vec![text("a", "1"), text("b", "2")]), text("e", "3"), text("f", "4")];
    let fixture = Fixture::changed(things(), |totals| totals.entries = 3);
    let (report, issues) = fixture.restore("", &fixture.options());
    assert_eq!((report.files, report.damaged), (0, 1), "{issues:?}");
    assert!(issues[0].contains("not what the entry above it says"), "{issues:?}");
    let fixture = Fixture::changed(things(), |totals| totals.bytes = 2);
    assert_eq!(fixture.restore("", &fixture.options()).0.damaged, 1);
}

#[test]
fn content_that_is_not_there_or_not_as_long_as_stated() {
    let lost = ChunkId([7; 32]);
    let body = |extents: Vec<Extent>, size| Body::File { size, content: Content::Extents(extents) };
    let fixture = Fixture::new(vec![
        other("lost", body(vec![Extent::Hole(5), Extent::Chunk { id: lost, len: 9 }], 14)),
        other("list", Body::File { size: 1000, content: Content::List(lost) }),
        dir(
            "gone",
            vec![other("x", Body::Directory { size: 0, page: lost, totals: Default::default() }), text("y", "y")],
        ),
        text("z", "z"),
    ]);
    let (report, issues) = fixture.restore("", &fixture.options());
    assert_eq!((report.files, report.damaged), (2, 3), "{issues:?}");
    assert!(!fixture.at("target/lost").exists() && !fixture.at("target/list").exists());
    assert_eq!(fs::read(fixture.at("target/gone/y")).unwrap(), b"y");
}

#[test]
fn a_second_restore_needs_no_data() {
    let fixture = Fixture::new(vec![dir("d", vec![file("f", vec![Piece::Data(noise(1, 500_000))])])]);
    fixture.restore_all(&fixture.options());
    fixture.store.reset();
    let report = fixture.restore_all(&fixture.options());
    assert_eq!((report.files, report.skipped, report.bytes), (0, 1, 0));
    assert_eq!(fixture.store.counts().calls(Operation::GetRange, ObjectKind::Data), 0);
}

#[test]
fn a_full_target_ends_the_restore() {
    let fixture = Fixture::new(
        (1..9)
            .zip(["a", "b", "c", "d", "e", "f", "g", "h"])
            .map(|(seed, name)| file(name, vec![Piece::Data(noise(seed, 300_000))]))
            .collect(),
    );
    fs::create_dir(fixture.at("target")).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    // Only root can make a file system that is small enough.
    if rustix::mount::mount("firn-test", fixture.at("target"), "tmpfs", flags, Some(c"size=1m")).is_err() {
        return;
    }
    let result = run(&fixture.repository, &fixture.snapshot, b"", &fixture.options(), &Heard::default(), &Stop::new());
    fixture.assert_clean();
    let whole = fs::read_dir(fixture.at("target")).unwrap().count();
    rustix::mount::unmount(fixture.at("target"), rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Full, Some(libc::ENOSPC)));
    assert!(error.hint().is_some() && (1..=3).contains(&whole), "{whole}");
}

#[test]
fn what_is_restored_has_no_acl_but_its_own() {
    let fixture = Fixture::new(vec![text("f", "x"), dir("d", vec![text("g", "x")]), other("p", Body::Fifo)]);
    fs::create_dir(fixture.at("target")).unwrap();
    // Somebody may do everything with all that is made here: version 2, then tag, permissions, number.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, number) in [(1u16, 7u16, !0u32), (2, 7, 1234), (4, 5, !0), (16, 7, !0), (32, 5, !0)] {
        acl.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &number.to_le_bytes()].concat());
    }
    let target = fs::File::open(fixture.at("target")).unwrap();
    if crate::os::set_xattr(&target, b"system.posix_acl_default", &acl).is_err() {
        return;
    }
    fixture.restore_all(&fixture.options());
    for name in ["f", "d", "d/g", "p"] {
        let path = fixture.at("target").join(name);
        let handle = crate::os::open_path(crate::os::CWD, path.as_os_str().as_encoded_bytes()).unwrap();
        let names = crate::os::list_xattrs(&handle).unwrap();
        assert!(!names.iter().any(|name| name.starts_with(b"system.posix_acl")), "{name}");
    }
}

/// A file that only root may read, in a folder of somebody who may rename what is in it.
fn secret(fixture: &Fixture, name: &str, bytes: &[u8]) -> PathBuf {
    let path = fixture.at(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn owner_and_mode(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.mode() & 0o7777)
}

fn theirs(meta: &mut Metadata) {
    meta.owner = Arc::new(Owner { uid: 4242, ..(*meta.owner).clone() });
}

#[test]
fn what_took_the_place_of_something_kept_is_not_given_away() {
    if !os::is_root() {
        return;
    }
    let fixture = Fixture::new(vec![other("a-pipe", Body::Fifo).with(theirs), text("notes", "text").with(theirs)]);
    let (pipe, notes) = (fixture.at("target/a-pipe"), fixture.at("target/notes"));
    fs::create_dir(fixture.at("target")).unwrap();
    let open = fs::File::open(fixture.at("target")).unwrap();
    os::mkfifo_at(&open, b"a-pipe", 0o600).unwrap();
    os::mkfifo_at(&open, b"secret-pipe", 0o600).unwrap();
    fs::write(&notes, "text").unwrap();
    for name in [&pipe, &notes] {
        chown(name, Some(4242), None).unwrap();
        let name = name.file_name().unwrap().as_encoded_bytes();
        os::set_times_at(&open, name, FileTime { seconds: 1_500_000, nanos: 123_456_789 }).unwrap();
    }
    let (hidden, hidden_pipe) = (secret(&fixture, "target/secret", b"more"), fixture.at("target/secret-pipe"));
    // What is kept has been chosen, and not been touched yet.
    let (report, told) = restore_beside(&fixture, || {
        drop(fs::rename(&hidden, &notes));
        drop(fs::rename(&hidden_pipe, &pipe));
    });
    assert_eq!((owner_and_mode(&notes), owner_and_mode(&pipe)), ((0, 0o600), (0, 0o600)), "{told:?}");
    assert_eq!((fs::read(&notes).unwrap(), report.mismatched), (b"more".to_vec(), 2), "{told:?}");
    assert!(told.iter().all(|text| text.contains("omething else has taken its place")), "{told:?}");
}

/// Does something when so many pieces have been written.
struct AtPiece<F: Fn() + Send + Sync>(u64, F, AtomicU64);

impl<F: Fn() + Send + Sync> Progress for AtPiece<F> {
    fn bytes(&self, _bytes: u64) {
        if self.2.fetch_add(1, Ordering::Relaxed) + 1 == self.0 {
            (self.1)();
        }
    }
}

#[test]
fn what_took_the_place_of_an_unfinished_file_is_not_written_to() {
    if !os::is_root() {
        return;
    }
    let piece = |seed| Piece::Data(noise(seed, 200_000));
    // Each block goes into both files, of which only one may be open.
    let fixture = Fixture::new(vec![
        file("a", vec![piece(1), piece(2)]).with(theirs),
        file("b", vec![piece(1), piece(2)]).with(|meta| meta.mode = 0o600),
    ]);
    fs::create_dir(fixture.at("target")).unwrap();
    let secrets = ["1", "2"].map(|name| secret(&fixture, &format!("target/{name}"), &noise(7, 500_000)));
    let inodes: Vec<u64> = secrets.iter().map(|path| fs::metadata(path).unwrap().ino()).collect();
    let folder = fixture.at("target");
    let progress = AtPiece(
        2,
        || {
            let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let partial = names.filter(|path| path.to_str().unwrap().ends_with(".partial"));
            partial.zip(&secrets).for_each(|(partial, secret)| fs::rename(secret, partial).unwrap());
        },
        AtomicU64::new(0),
    );
    let options = RestoreOptions { verify: false, threads: 1, ..fixture.options() };
    let limits = batch::Limits { open_files: 1, ..batch::Limits::DEFAULT };
    let report =
        run_within(&fixture.repository, &fixture.snapshot, b"", &options, &progress, &Stop::new(), limits).unwrap();
    assert_eq!((report.files, report.issues), (1, 1));
    let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<PathBuf> = left.filter(|path| inodes.contains(&fs::metadata(path).unwrap().ino())).collect();
    for path in &left {
        assert_eq!(owner_and_mode(path), (0, 0o600));
        assert!(fs::read(path).unwrap() == noise(7, 500_000));
    }
    assert!(!left.is_empty());
}

#[test]
fn what_has_the_name_of_the_mark_of_new_targets_stays() {
    let fixture = Fixture::new(vec![text("a", "1")]);
    fs::create_dir(fixture.at("target")).unwrap();
    fs::set_permissions(fixture.at("target"), fs::Permissions::from_mode(0o700)).unwrap();
    let name = String::from_utf8(partial::Names::new().unwrap().mark()).unwrap();
    let mark = secret(&fixture, &format!("target/{name}"), b"not empty");
    let alike = secret(&fixture, "target/.firn-new.partial", b"");
    let options = RestoreOptions { verify: false, ..fixture.options() };
    run(&fixture.repository, &fixture.snapshot, b"", &options, &Heard::default(), &Stop::new()).unwrap();
    assert_eq!(fs::read(&mark).unwrap(), b"not empty");
    assert!(alike.exists());
    assert_eq!(owner_and_mode(&fixture.at("target")).1, 0o700, "it was there before");
    // An empty one is the mark of a restore that was cut off.
    fs::write(&mark, b"").unwrap();
    run(&fixture.repository, &fixture.snapshot, b"", &options, &Heard::default(), &Stop::new()).unwrap();
    assert!(!mark.exists() && alike.exists());
    assert_eq!(owner_and_mode(&fixture.at("target")).1, 0o755);
}
