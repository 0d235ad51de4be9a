//! What a restore finds in its target: compared when asked for, put right in place only where nothing else shares it. Not for: what
//! is replaced (see `tests`), and hard links that the snapshot has (see `tests_links`).

use super::tests::*;
use super::tests_links::plant;
use super::*;
use crate::format::tree::{AttributeSet, Attributes, Body, Metadata};
use crate::os;
use rustix::fs::IFlags;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

const SIZE: usize = 3000;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_attribute(path: &Path, name: &[u8]) {
    os::set_xattr(fs::File::open(path).unwrap(), name, b"x").unwrap();
}

fn attribute(path: &Path, name: &[u8]) -> Option<Vec<u8>> {
    os::get_xattr(fs::File::open(path).unwrap(), name).unwrap()
}

/// An access ACL that lets one further user read, as the kernel takes it.
fn acl() -> Vec<u8> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let nobody = u32::MAX;
    let entries =
        [entry(1, 6, nobody), entry(2, 4, 65_534), entry(4, 4, nobody), entry(0x10, 4, nobody), entry(0x20, 0, nobody)];
    [&2u32.to_le_bytes()[..], &entries.concat()].concat()
}

#[test]
fn verifying_compares_what_is_never_overwritten() {
    let fixture = Fixture::new(vec![
        file("file", vec![Piece::Data(noise(1, SIZE))]),
        other("link", Body::Symlink(b"x".to_vec())),
        other("fifo", Body::Fifo),
        dir("dir", vec![]),
    ]);
    let options = RestoreOptions { overwrite: Overwrite::Never, ..fixture.options() };
    let replace = |name: &str| {
        let path = fixture.at("target").join(name);
        drop(fs::remove_file(&path));
        drop(fs::remove_dir(&path));
        path
    };
    let plant_file = |bytes: Vec<u8>| {
        plant(&fixture, "file", &bytes);
        set_mode(&fixture.at("target/file"), 0o640);
    };
    let cases: [(&str, &dyn Fn(PathBuf)); 11] = [
        ("file", &|path| fs::write(path, "another length").unwrap()),
        ("file", &|_| plant_file(noise(2, SIZE))),
        ("file", &|path| fs::write(path, noise(1, SIZE)).unwrap()),
        ("file", &|path| symlink("/etc/passwd", path).unwrap()),
        ("file", &|path| fs::create_dir(path).unwrap()),
        ("file", &|path| rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o640.into()).unwrap()),
        ("file", &|path| {
            plant_file(noise(1, SIZE));
            set_mode(&path, 0o600);
        }),
        ("file", &|path| {
            plant_file(noise(1, SIZE));
            set_attribute(&path, b"user.more");
        }),
        ("link", &|path| symlink("y", path).unwrap()),
        ("fifo", &|path| fs::write(path, "").unwrap()),
        ("dir", &|path| fs::create_dir(path).unwrap()),
    ];
    for (number, (name, change)) in cases.iter().enumerate() {
        drop(fs::remove_dir_all(fixture.at("target")));
        fixture.restore_all(&options);
        change(replace(name));
        let before = fs::symlink_metadata(fixture.at("target").join(name)).unwrap();
        let (report, issues) = fixture.restore("", &options);
        assert_eq!((report.mismatched, issues.len()), (1, 1), "case {number}: {issues:?}");
        let after = fs::symlink_metadata(fixture.at("target").join(name)).unwrap();
        assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()), "case {number} is touched");
    }
    drop(fs::remove_dir_all(fixture.at("target")));
    fixture.restore_all(&options);
    assert_eq!(fixture.restore_all(&options).verified, 1, "what is right passes, and the file was read");
}

#[test]
fn attributes_that_are_not_recorded_are_found_and_go() {
    let recorded = AttributeSet(vec![(b"user.colour".to_vec(), b"blue".to_vec())]);
    let with = |meta: &mut Metadata| meta.attributes = Some(Arc::new(Attributes::Inline(recorded.clone())));
    let fixture = Fixture::new(vec![
        file("file", vec![Piece::Data(noise(1, SIZE))]).with(with),
        dir("dir", vec![text("in", "it")]),
    ]);
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        fixture.restore_all(&fixture.options());
        let [file, dir] = ["target/file", "target/dir"].map(|path| fixture.at(path));
        let names: [&[u8]; 3] = [b"user.more", b"system.posix_acl_access", b"system.posix_acl_default"];
        set_attribute(&file, names[0]);
        set_attribute(&dir, names[0]);
        os::set_xattr(fs::File::open(&file).unwrap(), names[1], &acl()).unwrap();
        os::set_xattr(fs::File::open(&dir).unwrap(), names[2], &acl()).unwrap();
        let never = RestoreOptions { overwrite: Overwrite::Never, ..fixture.options() };
        os::set_xattr(fs::File::open(&file).unwrap(), b"user.colour", b"red").unwrap();
        assert_eq!(fixture.restore("", &never).0.mismatched, 2);
        assert_eq!(attribute(&file, b"user.colour").as_deref(), Some(&b"red"[..]), "it was only looked at");
        fixture.restore_all(&RestoreOptions { overwrite, ..fixture.options() });
        assert_eq!(attribute(&file, b"user.colour").as_deref(), Some(&b"blue"[..]));
        for (path, name) in [(&file, names[0]), (&dir, names[0]), (&file, names[1]), (&dir, names[2])] {
            assert_eq!(attribute(path, name), None, "{overwrite:?} {path:?}");
        }
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    }
}

#[test]
fn nothing_changes_under_a_name_outside_the_target() {
    let pieces = || vec![Piece::Data(noise(1, SIZE))];
    let fixture = Fixture::new(vec![
        file("alone", pieces()),
        file("one", pieces()).with(linked(1)),
        file("two", pieces()).with(linked(1)),
    ]);
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        fixture.restore_all(&fixture.options());
        for name in ["alone", "one"] {
            let outside = fixture.at(name);
            drop(fs::remove_file(&outside));
            fs::hard_link(fixture.at("target").join(name), &outside).unwrap();
            set_mode(&outside, 0o4755);
            // One name in the target, one outside: as many as are recorded.
            drop(fs::remove_file(fixture.at("target/two")));
        }
        fixture.restore_all(&RestoreOptions { overwrite, ..fixture.options() });
        for name in ["alone", "one"] {
            let [outside, inside] =
                [fixture.at(name), fixture.at("target").join(name)].map(|path| fs::metadata(path).unwrap());
            assert_eq!((outside.mode() & 0o7777, inside.mode() & 0o7777), (0o4755, 0o640), "{name} {overwrite:?}");
            assert_ne!(outside.ino(), inside.ino());
        }
    }
}

#[test]
fn files_that_are_apart_are_not_left_as_one() {
    let fixture =
        Fixture::new(vec![file("p", vec![Piece::Data(noise(1, SIZE))]), file("q", vec![Piece::Data(noise(1, SIZE))])]);
    fixture.restore_all(&fixture.options());
    fs::remove_file(fixture.at("target/q")).unwrap();
    fs::hard_link(fixture.at("target/p"), fixture.at("target/q")).unwrap();
    fixture.restore_all(&fixture.options());
    let inode = |name: &str| fs::metadata(fixture.at("target").join(name)).unwrap().ino();
    assert_ne!(inode("p"), inode("q"));
}

#[test]
fn what_may_not_be_changed_and_is_right_is_no_issue() {
    let frozen = IFlags::IMMUTABLE.bits();
    let fixture = Fixture::new(vec![dir("dir", vec![text("in", "it")]).with(|meta| meta.flags = frozen)]);
    let (first, _) = fixture.restore("", &fixture.options());
    let path = fixture.at("target/dir");
    let is_frozen = os::get_file_flags(fs::File::open(&path).unwrap()).unwrap() & frozen != 0;
    let again =
        run(&fixture.repository, &fixture.snapshot, b"", &fixture.options(), &crate::progress::Silent, &Stop::new());
    if is_frozen {
        os::set_file_flags(fs::File::open(&path).unwrap(), 0).unwrap();
    }
    // Who is not root, or on a file system without such flags, has nothing to be right.
    assert!(again.unwrap().issues == 0 || !is_frozen && first.issues > 0);
}
