//! Who may read what in a mount. Not for: how owners look (see `life`).

use super::{Mount, without_fuse};
use crate::support::run::{ALONE, FIRN, World};
use crate::support::without_root;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A tree of root's, closed to others in every way, but for what is open.
fn closed_world() -> World {
    let world = World::with_key_file();
    for (name, mode) in [("open/file", 0o644), ("open/own", 0o600), ("open/listed", 0o600), ("private/file", 0o644)] {
        world.write(&format!("source/{name}"), name);
        fs::set_permissions(world.path(&format!("source/{name}")), Permissions::from_mode(mode)).unwrap();
    }
    for (name, mode) in [("source/private", 0o700), ("source/open", 0o755), ("source", 0o755)] {
        fs::set_permissions(world.path(name), Permissions::from_mode(mode)).unwrap();
    }
    let set = Command::new("setfacl").args(["-m", "u:65534:r"]).arg(world.path("source/open/listed")).status();
    assert!(set.unwrap().success());
    world.backup(0, ["source"]);
    // Whoever mounts has to reach the mount point.
    fs::set_permissions(world.path(""), Permissions::from_mode(0o755)).unwrap();
    world
}

/// What nobody reads of a file: its content or that they may not.
fn nobody_reads(path: &Path) -> Result<String, String> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "cat"]).arg(path);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
}

#[test]
pub(super) fn the_recorded_owners_count() {
    if without_fuse() || without_root() {
        return;
    }
    let world = closed_world();
    let address = format!("latest:{}", world.text("source"));
    let mount = Mount::of(&world, &[&address, "--allow-other", "--owner", "original"]);
    let reads = |name: &str| nobody_reads(&mount.path(name));
    assert_eq!(reads("open/file"), Ok("open/file".to_owned()));
    assert_eq!(reads("open/listed"), Ok("open/listed".to_owned()));
    for name in ["open/own", "private/file"] {
        assert!(reads(name).is_err_and(|said| said.contains("Permission denied")), "{name}");
    }
    for name in ["open/own", "private/file"] {
        assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), name);
    }
    drop(mount);
    // Without --allow-other nobody but who mounted it gets in at all.
    let mount = Mount::of(&world, &[&address]);
    assert!(nobody_reads(&mount.path("open/file")).is_err_and(|said| said.contains("Permission denied")));
}

#[test]
pub(super) fn the_owner_of_the_mount_passes() {
    if without_fuse() || without_root() {
        return;
    }
    let world = closed_world();
    fs::copy(FIRN, world.path("firn")).unwrap();
    // In a mount namespace of its own, where whoever is no root may use the device, as on a usual system.
    let script = format!(
        "{ALONE}set -euo pipefail
        mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse
        mkdir past; chown -R 65534:65534 past repository key home; mkdir cache-2; chown 65534:65534 cache-2
        export FIRN_CACHE_DIR=$PWD/cache-2
        nobody() {{ setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"; }}
        for owner in original me root; do
            nobody ./firn mount --daemon --owner $owner past
            where=past/latest$PWD/source
            for name in open/file open/own open/listed private/file; do
                [[ $(nobody cat $where/$name) == $name ]] || {{ echo \"$owner: $name\"; exit 1; }}
            done
            [[ $(nobody ls $where/private) == file ]]
            echo \"$owner $(nobody stat -c '%u %a' $where/open/own) $(nobody stat -c '%u %a' $where/private)\"
            nobody ./firn umount past
        done"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", &script]);
    world.surround(&mut command, &[]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("Mounted") && !line.starts_with("End it")).collect();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lines, ["original 0 600 0 700", "me 65534 600 65534 700", "root 0 600 0 700"], "{output:?}");
    // Root shows all of it to all.
    let mount = Mount::of(&world, &[&format!("latest:{}", world.text("source")), "--allow-other", "--owner", "me"]);
    assert_eq!(nobody_reads(&mount.path("open/file")), Ok("open/file".to_owned()));
}
