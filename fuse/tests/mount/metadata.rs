//! Are attributes, links, extended attributes and absence shown as they are, and kept by the kernel?

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use firn_fuse::{Attr, Kind, Options, Xattrs};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::memory::{Object, Tree, attr};
use crate::support::{Live, errno, needs_fuse, needs_root};

#[test]
fn every_attribute_of_every_kind() {
    needs_fuse!();
    let tree = Tree::new();
    let kinds =
        [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice];
    let mut expected = Vec::new();
    for (n, kind) in kinds.into_iter().enumerate() {
        let n = n as u64;
        let rdev = if n >= 5 { rustix::fs::makedev(259, 0x1_2345) } else { 0 };
        let object = Attr {
            ino: (1 << 60) + n,
            kind,
            mode: [0o644, 0o1777, 0o777, 0o600, 0o4711, 0o2660, 0o000][n as usize],
            nlink: 1 + n as u32,
            uid: 1000 + n as u32,
            gid: u32::MAX - 1 - n as u32,
            rdev,
            size: 5 + (n << 33),
            blocks: 77 + n,
            mtime_secs: [0, -1, -5_000_000_000, 1_600_000_000, 4_000_000_000, 20_000_000_000, 1][n as usize],
            mtime_nanos: [0, 999_999_999, 1, 123_456_789, 0, 5, 500_000_000][n as usize],
        };
        let object = Object { target: b"x".to_vec(), ..Object::new(object) };
        expected.push((format!("o{n}"), object.attr));
        tree.add(1, format!("o{n}"), object);
    }
    let live = Live::new(tree);
    for (name, attr) in expected {
        let meta = fs::symlink_metadata(live.path(&name)).unwrap();
        assert_eq!(meta.ino(), attr.ino, "{name}");
        assert_eq!((meta.mode() & 0o7777, meta.nlink()), (attr.mode, u64::from(attr.nlink)), "{name}");
        assert_eq!((meta.uid(), meta.gid(), meta.rdev()), (attr.uid, attr.gid, attr.rdev), "{name}");
        assert_eq!((meta.len(), meta.blocks()), (attr.size, attr.blocks), "{name}");
        for time in
            [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()), (meta.atime(), meta.atime_nsec())]
        {
            assert_eq!(time, (attr.mtime_secs, i64::from(attr.mtime_nanos)), "{name}");
        }
        let kind = meta.file_type();
        let shown = [
            kind.is_file(),
            kind.is_dir(),
            kind.is_symlink(),
            kind.is_fifo(),
            kind.is_socket(),
            kind.is_char_device(),
            kind.is_block_device(),
        ];
        assert_eq!(shown.iter().position(|&is| is), kinds.iter().position(|&kind| kind == attr.kind));
    }
}

#[test]
fn hard_links_are_one_file() {
    needs_fuse!();
    let tree = Tree::new();
    let file = Object::bytes(5, b"same");
    tree.add(1, "a", Object { attr: Attr { nlink: 2, ..file.attr }, ..file });
    tree.name(1, "b", 5);
    let live = Live::new(tree);
    let (a, b) = (fs::metadata(live.path("a")).unwrap(), fs::metadata(live.path("b")).unwrap());
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(live.root()).arg(copy.path().join("c")).status();
    assert!(status.unwrap().success());
    let ino = |name: &str| fs::metadata(copy.path().join("c").join(name)).unwrap().ino();
    assert_eq!(ino("a"), ino("b"));
}

#[test]
fn symbolic_links_are_kept() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "target", Object::bytes(2, b"there"));
    tree.add(
        1,
        "link",
        Object { target: b"target".to_vec(), ..Object::new(Attr { size: 6, ..attr(3, Kind::Symlink) }) },
    );
    let long = vec![b'y'; 4000];
    tree.add(1, "long", Object { target: long.clone(), ..Object::new(Attr { size: 4000, ..attr(4, Kind::Symlink) }) });
    let live = Live::new(tree);
    for _ in 0..20 {
        assert_eq!(fs::read_link(live.path("link")).unwrap(), Path::new("target"));
    }
    assert_eq!(live.tree.calls.readlink.load(Ordering::Relaxed), 1);
    assert_eq!(fs::read(live.path("link")).unwrap(), b"there");
    assert_eq!(fs::read_link(live.path("long")).unwrap().as_os_str().len(), long.len());
}

#[test]
fn absent_names_are_asked_for_once() {
    needs_fuse!();
    let live = Live::new(Tree::new());
    for _ in 0..50 {
        assert_eq!(errno(fs::metadata(live.path("absent"))), Errno::NOENT.raw_os_error());
    }
    assert_eq!(live.tree.calls.lookup.load(Ordering::Relaxed), 1);
    assert_eq!(errno(fs::metadata(live.path(&"n".repeat(256)))), Errno::NAMETOOLONG.raw_os_error());
    assert!(live.faults().is_empty());
}

#[test]
fn attributes_are_asked_for_once() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "f", Object::bytes(2, b"x"));
    let live = Live::new(tree);
    fs::metadata(live.path("f")).unwrap();
    let asked = || live.tree.calls.lookup.load(Ordering::Relaxed) + live.tree.calls.attr.load(Ordering::Relaxed);
    let before = asked();
    for _ in 0..50 {
        fs::metadata(live.path("f")).unwrap();
        fs::File::open(live.path("f")).unwrap();
    }
    assert!(asked() - before <= 1, "{}", asked() - before);
}

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 70_000];
    let len = rustix::fs::getxattr(path, name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

#[test]
fn extended_attributes() {
    needs_fuse!();
    let tree = Tree::new();
    let xattrs = vec![
        (b"user.a".to_vec(), b"one\0two".to_vec()),
        (b"user.big".to_vec(), vec![7; 60_000]),
        (b"user.empty".to_vec(), vec![]),
    ];
    tree.add(1, "f", Object { xattrs, ..Object::bytes(2, b"") });
    tree.add(1, "none", Object::bytes(3, b""));
    let live = Live::new(tree);
    let file = live.path("f");
    assert_eq!(get(&file, "user.a").unwrap(), b"one\0two");
    assert_eq!(get(&file, "user.big").unwrap(), vec![7; 60_000]);
    assert_eq!(get(&file, "user.empty").unwrap(), b"");
    assert_eq!(rustix::fs::getxattr_query(&file, "user.a"), Ok(7));
    assert_eq!(rustix::fs::getxattr(&file, "user.a", &mut [0_u8; 3][..]), Err(Errno::RANGE));
    // A missing one must not switch off the others.
    for _ in 0..3 {
        assert_eq!(get(&file, "user.missing"), Err(Errno::NODATA));
        assert_eq!(get(&live.path("none"), "user.a"), Err(Errno::NODATA));
    }
    let mut list = vec![0; 1000];
    let len = rustix::fs::listxattr(&file, &mut list).unwrap();
    assert_eq!(&list[..len], b"user.a\0user.big\0user.empty\0");
    assert_eq!(rustix::fs::listxattr(live.path("none"), &mut list), Ok(0));
}

#[test]
fn a_mount_without_extended_attributes_is_asked_once() {
    needs_fuse!();
    let tree = Tree { xattrs: Some(Xattrs::None), ..Tree::new() };
    tree.add(1, "f", Object::bytes(2, b""));
    let live = Live::new(tree);
    for _ in 0..10 {
        assert_eq!(get(&live.path("f"), "user.a"), Err(Errno::OPNOTSUPP));
    }
    assert_eq!(live.tree.calls.xattr.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_not_listed_is_answered_by_name() {
    needs_fuse!();
    let tree = Tree { xattrs: Some(Xattrs::Named), ..Tree::new() };
    let xattrs = ["user.a", "user.found", "user.nowhere"].map(|name| (name.as_bytes().to_vec(), b"x".to_vec()));
    tree.add(1, "f", Object { xattrs: xattrs.to_vec(), ..Object::bytes(2, b"") });
    let live = Live::new(tree);
    let file = live.path("f");
    assert_eq!((get(&file, "user.a"), get(&file, "user.found")), (Ok(b"x".to_vec()), Ok(b"x".to_vec())));
    let before = live.tree.calls.xattr.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(rustix::fs::listxattr(&file, &mut [0; 100][..]), Err(Errno::OPNOTSUPP));
        assert_eq!(get(&file, "user.nowhere"), Err(Errno::OPNOTSUPP));
    }
    assert_eq!(live.tree.calls.xattr.load(Ordering::Relaxed), before);
    assert_eq!(get(&file, "user.content"), Err(Errno::NODATA));
}

#[test]
fn access_control_lists_are_applied() {
    needs_root!();
    // owner rw, user 65534 r, group none, mask r, other none: the bytes of acl(5) version 2.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 65_534), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let tree = Tree::new();
    let secret = Object::bytes(2, b"for one");
    let attr = Attr { mode: 0o640, uid: 1, gid: 1, ..secret.attr };
    tree.add(1, "listed", Object { attr, xattrs: vec![(b"system.posix_acl_access".to_vec(), acl)], ..secret });
    let closed = Object::bytes(3, b"for none");
    tree.add(1, "closed", Object { attr: Attr { ino: 3, mode: 0o600, ..closed.attr }, ..closed });
    let live = Live::with(tree, &Options { allow_other: true, acl: true, ..Options::default() });
    let other = |name: &str| {
        use std::os::unix::process::CommandExt;
        fs::set_permissions(live.root().parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
            .unwrap();
        std::process::Command::new("cat")
            .arg(live.path(name))
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(other("listed"));
    assert!(!other("closed"));
    assert_eq!(fs::read(live.path("closed")).unwrap(), b"for none");
}

#[test]
fn nothing_can_be_written() {
    needs_fuse!();
    let tree = Tree::new();
    tree.add(1, "f", Object::bytes(2, b"x"));
    tree.add(1, "d", Object::dir(3));
    let live = Live::new(tree);
    let (file, dir, new) = (live.path("f"), live.path("d"), live.path("new"));
    let rofs = Errno::ROFS;
    let open = |flags| rustix::fs::open(&file, flags, Mode::empty()).unwrap_err();
    assert_eq!(open(OFlags::WRONLY), rofs);
    assert_eq!(open(OFlags::RDWR), rofs);
    assert_eq!(open(OFlags::WRONLY | OFlags::TRUNC), rofs);
    assert_eq!(rustix::fs::open(&new, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap_err(), rofs);
    let denied = [
        errno(fs::create_dir(&new)),
        errno(fs::remove_file(&file)),
        errno(fs::remove_dir(&dir)),
        errno(fs::rename(&file, &new)),
        errno(fs::hard_link(&file, &new)),
        errno(std::os::unix::fs::symlink("f", &new)),
        errno(fs::set_permissions(&file, fs::metadata(&dir).unwrap().permissions())),
        errno(std::os::unix::fs::chown(&file, Some(7), Some(7))),
    ];
    assert_eq!(denied, [rofs.raw_os_error(); 8]);
    let fifo = rustix::fs::mknodat(rustix::fs::CWD, &new, rustix::fs::FileType::Fifo, Mode::RUSR, 0);
    assert_eq!(fifo, Err(rofs));
    assert_eq!(rustix::fs::setxattr(&file, "user.x", b"y", XattrFlags::empty()), Err(rofs));
    assert_eq!(rustix::fs::removexattr(&file, "user.x"), Err(rofs));
    let times = rustix::fs::Timestamps { last_access: now(), last_modification: now() };
    assert_eq!(rustix::fs::utimensat(rustix::fs::CWD, &file, &times, rustix::fs::AtFlags::empty()), Err(rofs));
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

fn now() -> rustix::fs::Timespec {
    rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW }
}

#[test]
fn totals() {
    needs_fuse!();
    let live = Live::new(Tree::new());
    let total = rustix::fs::statvfs(live.root()).unwrap();
    assert_eq!((total.f_blocks * total.f_frsize, total.f_bfree, total.f_files, total.f_namemax), (1 << 30, 0, 77, 255));
    assert!(total.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY | rustix::fs::StatVfsMountFlags::NOSUID));
}
