//! What a mount gathers from the history: `versions/` and `deleted/`. Not for: the history on the command line (see `tests/cli`).

use super::{Mount, listed, without_fuse};
use crate::support::compare::{Options, trees};
use crate::support::run::World;
use crate::support::without_root;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TIMES: [&str; 4] =
    ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z", "2024-04-01T00:00:00Z"];
const NAMES: [&str; 4] = ["2024-01-01_00-00-00", "2024-02-01_00-00-00", "2024-03-01_00-00-00", "2024-04-01_00-00-00"];

/// Four snapshots of a folder in which files are changed, deleted and become something else.
fn world() -> World {
    let world = World::with_repository();
    world.write("source/a.txt", "one");
    world.write("source/old/deep/b.tar.gz", "b");
    world.write("source/old/c", "c");
    world.write("source/same/d", "d");
    world.write("source/turn", "a file");
    backup(&world, 0);
    world.write("source/a.txt", "two, longer");
    fs::remove_file(world.path("source/turn")).unwrap();
    world.write("source/turn/inside", "now a folder");
    backup(&world, 1);
    fs::remove_file(world.path("source/old/c")).unwrap();
    fs::remove_dir_all(world.path("source/turn")).unwrap();
    world.write("source/turn", "a file again");
    backup(&world, 2);
    fs::remove_dir_all(world.path("source/old")).unwrap();
    world.write("source/a.txt", "one");
    backup(&world, 3);
    world
}

fn backup(world: &World, number: usize) {
    world.backup(0, ["source", "--host", "alpha", "--time", TIMES[number]]);
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn ino(path: impl AsRef<Path>) -> u64 {
    path.as_ref().symlink_metadata().unwrap().ino()
}

#[test]
fn every_version_of_a_path() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &[]);
    let at = |name: &str| mount.below(&world, "versions", name);
    // On the way down are the names and the versions of the folders, but no versions of the root.
    assert_eq!(listed(&mount.path("versions")).len(), 1);
    let mut names: Vec<&str> = NAMES.to_vec();
    names.extend(["a.txt", "old", "same", "turn"]);
    assert_eq!(listed(&at("source")), names);
    let files = ["2024-01-01_00-00-00.txt", "2024-02-01_00-00-00.txt", "2024-04-01_00-00-00.txt"];
    assert_eq!(listed(&at("source/a.txt")), files);
    assert_eq!(files.map(|name| text(at("source/a.txt").join(name))), ["one", "two, longer", "one"]);
    assert_eq!(listed(&at("source/old/deep/b.tar.gz")), ["2024-01-01_00-00-00.tar.gz"]);
    assert_eq!(listed(&at("source/turn")), [NAMES[0], NAMES[1], NAMES[2], "inside"]);
    assert_eq!(text(at("source/turn").join(NAMES[2])), "a file again");
    // A version of a folder is the folder, with everything in it.
    assert_eq!(listed(&at("source/old")), [NAMES[0], NAMES[2], "c", "deep"]);
    assert_eq!(listed(&at("source/old").join(NAMES[2])), ["deep"]);
    assert_eq!(text(at("source/old").join(NAMES[0]).join("deep/b.tar.gz")), "b");
    let whole = at("source").join(NAMES[1]);
    let same = mount.below(&world, &format!("snapshots/{}", NAMES[1]), "source");
    assert_eq!(trees(&same, &whole, Options::default()), Vec::<String>::new());
    // The same folder on two ways has two numbers: else one of them would disappear under the other.
    let two = [at("source/turn").join(NAMES[1]), whole.join("turn"), same.join("turn")].map(ino);
    assert!(two[0] != two[1] && two[1] != two[2] && two[0] != two[2], "{two:?}");
    assert_eq!(fs::canonicalize(whole.join("turn")).unwrap(), whole.join("turn"));
    assert_eq!(listed(&whole.join("turn")), ["inside"]);
    // The folder itself is as new as the newest snapshot.
    assert_eq!(mount.path("versions").metadata().unwrap().mtime(), mount.path("snapshots").metadata().unwrap().mtime());
    // What never was is not there.
    for absent in ["source/a.txt/2024-03-01_00-00-00.txt", "source/a.txt/a.txt", "source/nothing", "nothing"] {
        assert!(at(absent).symlink_metadata().is_err(), "{absent}");
    }
    assert!(!mount.path("versions/nothing").exists());
}

#[test]
fn what_is_gone_as_a_tree() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &[]);
    let at = |name: &str| mount.below(&world, "deleted", name);
    assert_eq!(listed(&mount.path("deleted")).len(), 1);
    assert_eq!(listed(&at("source")), ["old", "turn"]);
    assert_eq!(listed(&at("source/old")), ["c", "deep"]);
    assert_eq!((text(at("source/old/c")), text(at("source/old/deep/b.tar.gz"))), ("c".into(), "b".into()));
    // There is a file of that name now; what was in the folder is gone.
    assert_eq!(listed(&at("source/turn")), ["inside"]);
    assert!(!at("source/same").exists() && !at("source/a.txt").exists());
    // It can be copied like any tree, with the times that the folders had.
    let recorded = mount.below(&world, &format!("snapshots/{}", NAMES[2]), "source/old").metadata().unwrap();
    let shown = at("source/old").metadata().unwrap();
    assert_eq!((shown.mtime(), shown.mtime_nsec()), (recorded.mtime(), recorded.mtime_nsec()));
    assert_eq!((shown.mode(), shown.uid()), (recorded.mode(), recorded.uid()));
    let copied = std::process::Command::new("cp").arg("-a").arg(at("source/old")).arg(world.path("copy")).status();
    assert!(copied.unwrap().success());
    assert_eq!(text(world.path("copy/deep/b.tar.gz")), "b");
}

#[test]
fn both_follow_a_running_mount() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &["--refresh", "1"]);
    let versions = mount.below(&world, "versions", "source/a.txt");
    let deleted = mount.below(&world, "deleted", "source");
    assert_eq!((listed(&versions).len(), listed(&deleted).len()), (3, 2));
    world.write("source/a.txt", "three");
    fs::remove_dir_all(world.path("source/same")).unwrap();
    world.backup(0, ["source", "--host", "alpha", "--time", "2024-05-01T00:00:00Z"]);
    let deadline = Instant::now() + Duration::from_secs(15);
    while (listed(&versions).len(), listed(&deleted).len()) != (4, 3) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(text(versions.join("2024-05-01_00-00-00.txt")), "three");
    assert_eq!(listed(&deleted), ["old", "same", "turn"]);
    // With the newest ones forgotten, what was in the older ones is there again.
    world.run(["forget", "-q", "latest", "latest~1", "latest~2"]).succeeds();
    while (listed(&versions).len(), listed(&mount.path("deleted")).len()) != (2, 0) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(listed(&versions), ["2024-01-01_00-00-00.txt", "2024-02-01_00-00-00.txt"]);
    assert_eq!(listed(&mount.below(&world, "versions", "source/turn")), [NAMES[0], NAMES[1], "inside"]);
    assert_eq!(listed(&mount.path("deleted")), [""; 0]);
}

#[test]
fn root_filters_and_times_hold() {
    if without_fuse() {
        return;
    }
    let world = world();
    world.write("source/only beta", "b");
    world.backup(0, ["source", "--host", "beta", "--tag", "t", "--time", "2024-06-01T00:00:00Z"]);
    let root = world.text("source");
    let mount = Mount::of(&world, &["--root", &root, "--layout", "default", "--time-template", "%b %d/%H"]);
    assert_eq!(listed(&mount.path("versions")), ["a.txt", "old", "only beta", "same", "turn"]);
    // Of two hosts: what is the same at the same time is one version.
    assert_eq!(
        listed(&mount.path("versions/a.txt")),
        ["Apr 01_00.txt", "Feb 01_00.txt", "Jan 01_00.txt", "Jun 01_00.txt"]
    );
    assert_eq!(listed(&mount.path("deleted")), ["old", "turn"]);
    assert_eq!(fs::canonicalize(mount.path("versions/old/deep/..")).unwrap(), mount.path("versions/old"));
    drop(mount);
    let mount = Mount::of(&world, &["--host", "beta", "--owner", "me"]);
    assert_eq!(
        listed(&mount.below(&world, "versions", "source")),
        ["2024-06-01_00-00-00", "a.txt", "only beta", "same", "turn"]
    );
    assert!(listed(&mount.path("deleted")).is_empty());
    let owner = |path: PathBuf| path.symlink_metadata().unwrap().uid();
    assert_eq!(owner(mount.path("versions")), rustix::process::getuid().as_raw());
    drop(mount);
    // Other layouts do not have them.
    for layout in [["--layout", "flat"], ["--path-template", "%h/%t"], ["--layout", "previous-versions"]] {
        let mount = Mount::of(&world, &layout);
        assert!(!mount.path("versions").exists() && !mount.path("deleted").exists(), "{layout:?}");
    }
}

/// Inode numbers of all names below a folder.
fn numbers(folder: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for name in listed(folder) {
        let path = folder.join(name);
        found.push((path.clone(), ino(&path)));
        if path.symlink_metadata().unwrap().is_dir() {
            numbers(&path, found);
        }
    }
}

#[test]
fn numbers_stay_over_a_remount_and_without_a_catalog() {
    if without_fuse() {
        return;
    }
    let world = world();
    let point = world.path("point");
    fs::create_dir(&point).unwrap();
    let seen = |arguments: &[&str]| {
        let mount = Mount::on(&world, &point, arguments);
        let mut found = Vec::new();
        numbers(&mount.path("versions"), &mut found);
        numbers(&mount.path("deleted"), &mut found);
        found
    };
    let before = seen(&[]);
    assert_eq!(seen(&["--no-cache"]), before);
    assert!(before.len() > 60, "{}", before.len());
    // A newer snapshot changes none of them.
    world.write("source/a.txt", "later");
    world.backup(0, ["source", "--host", "alpha", "--time", "2024-05-01T00:00:00Z"]);
    let after = seen(&[]);
    let changed: Vec<_> = before.iter().filter(|one| !after.contains(one)).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

/// What a folder shows before it fails, if it does.
fn shown(folder: &Path) -> (Vec<String>, Option<i32>) {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        match entry {
            Ok(entry) => names.push(entry.file_name().into_string().unwrap()),
            Err(error) => return (names, error.raw_os_error()),
        }
    }
    (names, None)
}

#[test]
fn a_damaged_snapshot_hides_no_other() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    world.write("source/a.txt", "one");
    world.write("source/gone first", "");
    world.write("source/gone second", "");
    backup(&world, 0);
    let before = world.objects("tree");
    world.write("source/a.txt", "two");
    fs::remove_file(world.path("source/gone first")).unwrap();
    backup(&world, 1);
    let damaged: Vec<_> = world.objects("tree").into_iter().filter(|pack| !before.contains(pack)).collect();
    world.write("source/a.txt", "three");
    fs::remove_file(world.path("source/gone second")).unwrap();
    backup(&world, 2);
    // What is known of the snapshots before is known still.
    world.run(["deleted"]).succeeds();
    let whole: Vec<_> = damaged.iter().map(|pack| fs::read(pack).unwrap()).collect();
    for (pack, bytes) in damaged.iter().zip(&whole) {
        fs::write(pack, bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()).unwrap();
    }
    let mount = Mount::of(&world, &[]);
    let at = |folder: &str, name: &str| mount.below(&world, folder, name);
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let failed = Some(libc::EIO);
    // What is behind it is there, and the end is no end.
    for _ in 0..2 {
        let expected = [NAMES[0], NAMES[2], "a.txt", "gone first", "gone second"];
        assert_eq!(shown(&at("versions", "source")), (names(&expected), failed));
        let files = [NAMES[0], NAMES[2]].map(|name| format!("{name}.txt"));
        assert_eq!(shown(&at("versions", "source/a.txt")), (files.to_vec(), failed));
        assert_eq!(shown(&at("deleted", "source")), (names(&["gone first"]), failed));
    }
    let version = at("versions", "source/a.txt").join(format!("{}.txt", NAMES[1]));
    assert_eq!(fs::read(&version).unwrap_err().raw_os_error(), failed);
    assert_eq!(text(version.with_file_name(format!("{}.txt", NAMES[2]))), "three");
    // Once it is whole again, so is what is shown.
    for (pack, bytes) in damaged.iter().zip(&whole) {
        fs::write(pack, bytes).unwrap();
    }
    assert_eq!(text(&version), "two");
    drop(mount);
    let mount = Mount::of(&world, &[]);
    let (mut all, error) = shown(&mount.below(&world, "versions", "source/a.txt"));
    all.sort();
    assert_eq!((all, error), (NAMES[..3].iter().map(|name| format!("{name}.txt")).collect(), None));
}

#[test]
fn other_commands_can_have_the_catalog_in_their_turn() {
    if without_fuse() {
        return;
    }
    let world = world();
    // One that is in use by a mount is left alone; the mount uses what a command has made.
    world.run(["deleted"]).succeeds();
    let mount = Mount::of(&world, &[]);
    let at = mount.below(&world, "versions", "source/a.txt");
    assert_eq!(listed(&at).len(), 3);
    let said = world.run(["deleted", "-R"]).succeeds();
    assert!(said.stderr.contains("in use by another process"), "{said:?}");
    assert_eq!(listed(&at).len(), 3);
}

#[test]
fn who_was_kept_out_of_any_version_is_kept_out() {
    use std::os::unix::fs::PermissionsExt;
    if without_fuse() || without_root() {
        return;
    }
    let world = World::with_repository();
    let mode = |name: &str, mode: u32| fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    world.write("source/closed once/secret/x", "secret");
    world.write("source/open/y", "everybody's");
    mode("source/closed once", 0o700);
    world.backup(0, ["source", "--time", TIMES[0]]);
    mode("source/closed once", 0o755);
    fs::remove_file(world.path("source/open/y")).unwrap();
    fs::remove_dir_all(world.path("source/closed once/secret")).unwrap();
    world.backup(0, ["source", "--time", TIMES[1]]);
    let place = tempfile::tempdir().unwrap();
    let root = world.text("source");
    let mount = Mount::on(&world, place.path(), &["--allow-other", "--root", &root, "--layout", "default"]);
    let others_see = |name: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "ls"]).arg(mount.path(name));
        command.output().unwrap().status.success()
    };
    for (name, seen) in [
        ("snapshots", true),
        ("versions/open/y", true),
        ("deleted/open/y", true),
        ("versions/closed once", false),
        ("versions/closed once/secret", false),
        ("deleted/closed once", false),
    ] {
        assert!(mount.path(name).symlink_metadata().is_ok(), "{name}");
        assert_eq!(others_see(name), seen, "{name}");
    }
    drop(mount);
    // And of the folder that is shown.
    mode("source", 0o700);
    world.backup(0, ["source", "--time", TIMES[2]]);
    let mount = Mount::on(&world, place.path(), &["--allow-other", "--root", &root, "--layout", "default"]);
    for name in ["versions", "deleted"] {
        assert_eq!(mount.path(name).metadata().unwrap().mode() & 0o777, 0o500 & 0o555);
    }
}

#[test]
fn parents_that_are_not_shown_keep_out_whom_they_kept_out() {
    use std::os::unix::fs::PermissionsExt;
    if without_fuse() || without_root() {
        return;
    }
    let world = World::with_repository();
    let mode = |name: &str, mode: u32| fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    world.write("source/closed/child/file", "secret");
    world.write("source/closed/child/gone", "also secret");
    mode("source/closed/child", 0o755);
    mode("source/closed", 0o755);
    mode("", 0o755);
    let place = tempfile::tempdir().unwrap();
    let root = world.text("source/closed/child");
    let layouts: [&[&str]; 3] = [
        &["--root", &root, "--layout", "default"],
        &["--root", &root, "--layout", "previous-versions"],
        &[&format!("latest:{root}")],
    ];
    for (closed, time) in [(0o755, TIMES[0]), (0o700, TIMES[1])] {
        mode("source/closed", closed);
        world.backup(0, ["source", "--time", time]);
        if closed == 0o755 {
            fs::remove_file(world.path("source/closed/child/gone")).unwrap();
        }
        for layout in layouts {
            let mount = Mount::on(&world, place.path(), &[&["--allow-other"], layout].concat());
            let below = match layout[0] {
                "--root" if layout[3] == "default" => "latest/file".to_owned(),
                "--root" => format!("{}/file", listed(&mount.path("")).pop().unwrap()),
                _ => "file".to_owned(),
            };
            let reads = |user: &str, name: &str| {
                let mut command = std::process::Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--clear-groups", "cat"]).arg(mount.path(name));
                let output = command.output().unwrap();
                (output.status.success(), String::from_utf8(output.stdout).unwrap())
            };
            assert_eq!(reads("0", &below), (true, "secret".into()), "{layout:?} {below}");
            let others = if closed == 0o755 { (true, "secret".into()) } else { (false, String::new()) };
            assert_eq!(reads("65534", &below), others, "{layout:?} {closed:o}");
            if closed == 0o700 && layout.contains(&"default") {
                assert_eq!(reads("0", "deleted/gone").1, "also secret");
                assert_eq!(reads("65534", "deleted/gone"), (false, String::new()));
            }
        }
    }
}
