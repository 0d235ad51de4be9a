//! Nothing can be changed through a mount, and damage stays where it is. Not for: what is shown.

use super::{Mount, without_fuse};
use crate::support::nasty::Random;
use crate::support::run::{World, patch};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::path::Path;

fn attempts(folder: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let path = |name: &str| folder.join(name);
    let done = |result: Result<(), Errno>| result.map_err(io::Error::from);
    let (file, new) = (path("file"), path("new"));
    let now = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 1 };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    vec![
        ("create", File::create_new(&new).map(drop)),
        ("create over", File::create(&file).map(drop)),
        ("write", File::options().write(true).open(&file).map(drop)),
        ("append", File::options().append(true).open(&file).map(drop)),
        ("read and write", File::options().read(true).write(true).open(&file).map(drop)),
        (
            "truncate",
            rustix::fs::open(&file, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC, Mode::empty())
                .map(drop)
                .map_err(io::Error::from),
        ),
        ("mkdir", fs::create_dir(&new)),
        ("rmdir", fs::remove_dir(path("folder"))),
        ("unlink", fs::remove_file(&file)),
        ("rename", fs::rename(&file, &new)),
        ("rename a folder", fs::rename(path("folder"), &new)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("file", &new)),
        ("mknod", done(rustix::fs::mknodat(CWD, &new, rustix::fs::FileType::Fifo, Mode::RUSR, 0))),
        ("chmod", fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o777))),
        (
            "chown",
            done(rustix::fs::chownat(CWD, &file, Some(Uid::from_raw(1)), Some(Gid::from_raw(1)), AtFlags::empty())),
        ),
        ("utimes", done(rustix::fs::utimensat(CWD, &file, &times, AtFlags::empty()))),
        ("setxattr", done(rustix::fs::lsetxattr(&file, "user.new", b"1", XattrFlags::empty()))),
        ("removexattr", done(rustix::fs::lremovexattr(&file, "user.old"))),
    ]
}

#[test]
fn nothing_can_be_changed() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    world.write("source/file", "text");
    world.write("source/folder/in", "text");
    rustix::fs::lsetxattr(world.path("source/file"), "user.old", b"1", XattrFlags::empty()).unwrap();
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &[&format!("latest:{}", world.text("source"))]);
    for (what, result) in attempts(&mount.path("")) {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    }
    drop(mount);
    let mount = Mount::of(&world, &[]);
    let made = [
        fs::create_dir(mount.path("new")),
        fs::remove_file(mount.path("latest")),
        fs::remove_file(mount.path("README.txt")),
    ];
    for result in made {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS));
    }
}

#[test]
fn damage_hits_only_the_file_it_is_in() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    world.write("source/first", Random(1).bytes(2 << 20));
    world.backup(0, ["source"]);
    let healthy = world.objects("data");
    for (name, seed) in [("second", 2), ("third", 3)] {
        world.write(&format!("source/{name}"), Random(seed).bytes(2 << 20));
    }
    world.write("source/short", "short");
    world.backup(0, ["source"]);
    let new: Vec<_> = world.objects("data").into_iter().filter(|path| !healthy.contains(path)).collect();
    // In the middle of what one file of two put there.
    let largest = new.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    patch(largest, 600_000, |byte| byte ^ 1);
    let address = format!("latest:{}", world.text("source"));
    let mount = Mount::of(&world, &[&address]);
    let read = |name: &str| fs::read(mount.path(name));
    assert!(read("first").unwrap() == Random(1).bytes(2 << 20));
    assert_eq!(read("short").unwrap(), b"short");
    let results = [(2, read("second")), (3, read("third"))];
    let (lost, kept): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_err());
    assert_eq!((lost.len(), kept.len()), (1, 1));
    assert_eq!(lost[0].1.as_ref().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(*kept[0].1.as_ref().unwrap() == Random(kept[0].0).bytes(2 << 20));
    // All of it can still be looked at.
    assert_eq!(fs::read_dir(mount.path("")).unwrap().count(), 4);
    world.run(["umount", mount.path("").to_str().unwrap()]).succeeds();
    let (status, said) = mount.ended();
    let name = if lost[0].0 == 2 { "second" } else { "third" };
    assert!(status.success() && said.contains(name), "{status} {said}");
}
