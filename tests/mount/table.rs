//! mount(8), /etc/fstab and mount.fuse3 start a mount. Not for: what the options of `firn mount` do.
//!
//! Needs root. mount(8) looks for its helpers in /sbin alone, so all happens where that is another folder, seen by nobody else.

use super::without_fuse;
use crate::support::run::{ALONE, FIRN, Ran, World};
use crate::support::without_root;
use std::process::{Command, Stdio};

/// Runs a script in a mount namespace whose /usr/sbin has these names for the program, too.
fn aside(world: &World, names: &[&str], script: &str) -> Ran {
    let mut text = "mkdir $W/orig $W/sbin $W/point\nmount --bind /usr/sbin $W/orig\n".to_owned();
    text.push_str("for file in $W/orig/*; do ln -s $file $W/sbin/; done\n");
    for name in names {
        text.push_str(&format!("ln -sf $FIRN $W/sbin/{name}\n"));
    }
    text.push_str("mount --bind $W/sbin /usr/sbin\n");
    text.push_str(script);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", &format!("{ALONE}{text}")]);
    // As little as a service manager leaves.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("W", world.path("")).env("FIRN", FIRN);
    Ran::from(command.stdin(Stdio::null()).current_dir("/").output().unwrap())
}

fn world() -> World {
    let world = World::with_key_file();
    world.write("source/file", "text");
    world.write("source/run", "#!/bin/sh\necho ran\n");
    std::os::unix::fs::lchown(world.path("source/file"), Some(1234), Some(4321)).unwrap();
    std::fs::set_permissions(world.path("source/run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.backup(0, ["source", "--time", "2024-05-06T07:08:09Z"]);
    world
}

fn is_possible() -> bool {
    !(without_fuse() || without_root())
}

#[test]
fn mount_knows_the_type() {
    if !is_possible() {
        return;
    }
    let world = world();
    let script = "
O=key-file=$W/key,cache-dir=$W/cache
mount -t fuse.firn $W/repository $W/point -o ro,$O,owner=root,allow_other,layout=flat,_netdev,nofail,x-systemd.automount
findmnt -no SOURCE,FSTYPE,OPTIONS $W/point
ls $W/point
stat -c %U $W/point/latest/$W/source/file
$W/point/latest/$W/source/run
umount $W/point
mount -t firn $W/repository $W/point -o noexec,$O,snapshot=latest:${W%/}/source
ls $W/point
stat -c %u $W/point/file
! $W/point/run 2>/dev/null
if mount -t fuse.firn $W/repository $W/point -o $O; then exit 9; else echo code $?; fi
$FIRN umount $W/point
if mount -t fuse.firn $W/repository $W/point -o $O,uid=5; then exit 9; else echo code $?; fi
if mount -t fuse.firn $W/repository $W/point -o key-file=$W/smb.conf; then exit 9; else echo code $?; fi
";
    let ran = aside(&world, &["mount.firn", "mount.fuse.firn"], script).succeeds();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let mount = lines[0];
    assert!(mount.starts_with("firn:") && mount.contains(" fuse.firn ro,nosuid,nodev,noatime"), "{mount}");
    assert!(mount.contains("allow_other") && mount.contains("default_permissions"), "{mount}");
    assert_eq!(lines[1..4], ["2024-05-06_07-08-09", "README.txt", "latest"]);
    assert_eq!(lines[4..], ["root", "ran", "file", "run", "1234", "code 32", "code 1", "code 32"]);
    for said in ["is already mounted on", "The option \"uid=5\" is not known", "The key file"] {
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}

#[test]
fn a_line_of_fstab() {
    if !is_possible() {
        return;
    }
    let world = world();
    let table = format!(
        "{} {} fuse.firn noauto,user,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=5min,comment=past,\
         key-file={},cache-dir={},idle-exit=10m,path-template=%h/%t 0 0\n",
        world.text("repository"),
        world.text("point"),
        world.text("key"),
        world.text("cache")
    );
    world.write("fstab", table);
    let script = "
mount --fstab $W/fstab $W/point
findmnt -no OPTIONS $W/point
ls $W/point/*/
$FIRN umount $W/point
mount -f --fstab $W/fstab $W/point
ls $W/point
";
    let ran = aside(&world, &["mount.fuse.firn"], script).succeeds();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    // "user" in a table means that nothing is run from there.
    assert!(lines[0].starts_with("ro,nosuid,nodev,noexec,"), "{ran:?}");
    assert!(lines[1..].contains(&"2024-05-06_07-08-09") && ran.stderr.is_empty(), "{ran:?}");
}

#[test]
fn without_a_helper_of_that_name() {
    if !is_possible() {
        return;
    }
    let world = world();
    // mount.fuse3 starts "firn" then, with a path of its own, and adds options that cannot be.
    let script = "
mount -t fuse.firn $W/repository $W/point -o key-file=$W/key,cache-dir=$W/cache
findmnt -no FSTYPE,OPTIONS $W/point
ls $W/point/snapshots
umount $W/point
";
    let ran = aside(&world, &["firn"], script).succeeds();
    assert!(ran.stdout.contains("fuse.firn ro,nosuid,nodev") && ran.stdout.contains("2024-05-06_07-08-09"), "{ran:?}");
}
