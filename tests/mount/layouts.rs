//! Layouts, roots, templates and filters of a mount, followed while snapshots come and go. Not for: contents, or Samba (see `samba`).

use super::{Mount, listed, top, without_fuse};
use crate::support::run::World;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FIRST: &str = "2024-05-06T07:08:09Z";

fn world() -> World {
    let world = World::with_repository();
    world.write("home/me/Documents/letter", "first");
    world.write("home/me/odd: [name]", "odd");
    world.write("other/file", "other");
    world.backup(0, ["home", "--host", "alpha", "--tag", "daily", "--time", FIRST]);
    world.write("home/me/Documents/letter", "second");
    world.backup(0, ["home", "--host", "beta", "--time", "2025-01-02T03:04:05Z"]);
    world.backup(0, ["other", "--host", "alpha", "--time", "2025-06-01T00:00:00Z"]);
    world
}

fn target(path: PathBuf) -> String {
    fs::read_link(path).unwrap().to_str().unwrap().to_owned()
}

fn below(world: &World, name: &str) -> PathBuf {
    world.path(name).strip_prefix("/").unwrap().to_owned()
}

#[test]
fn the_past_of_a_folder_inside_it() {
    if without_fuse() {
        return;
    }
    let world = world();
    let point = world.path("home/me/.snapshots");
    fs::create_dir(&point).unwrap();
    let root = world.text("home/me");
    let mount = Mount::on(&world, &point, &["--root", &root, "--refresh", "1"]);
    // The snapshot that does not have the folder is not there.
    assert_eq!(top(&point), ["2024-05-06_07-08-09", "2025-01-02_03-04-05", "README.txt", "latest"]);
    assert_eq!(target(mount.path("latest")), "2025-01-02_03-04-05");
    assert_eq!(fs::read(mount.path("2024-05-06_07-08-09/Documents/letter")).unwrap(), b"first");
    assert_eq!(fs::read(mount.path("latest/Documents/letter")).unwrap(), b"second");
    assert_eq!(listed(&mount.path("latest")), ["Documents", "odd: [name]"]);
    assert_eq!(fs::canonicalize(mount.path("latest/Documents/..")).unwrap(), mount.path("2025-01-02_03-04-05"));
    let kept = ino(&mount.path("latest/Documents/letter"));
    // A backup of the folder leaves out its own past, which is another file system; and "latest" moves.
    world.write("home/me/Documents/letter", "third");
    world.backup(0, ["home", "--one-file-system", "--time", "2026-02-03T04:05:06Z"]);
    let deadline = Instant::now() + Duration::from_secs(15);
    while target(mount.path("latest")) != "2026-02-03_04-05-06" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(fs::read(mount.path("latest/Documents/letter")).unwrap(), b"third");
    assert_eq!(fs::read_dir(mount.path("latest/.snapshots")).unwrap().count(), 0);
    assert_eq!(ino(&mount.path("2025-01-02_03-04-05/Documents/letter")), kept);
    drop(mount);
    // With a layout that was asked for, the times are where that puts them.
    let mount = Mount::on(&world, &point, &["--root", &root, "--layout", "default"]);
    assert_eq!(listed(&mount.path("snapshots")).len(), 3);
    assert_eq!(fs::read(mount.path("hosts/alpha/latest/Documents/letter")).unwrap(), b"first");
    assert_eq!(ino(&mount.path("snapshots/2025-01-02_03-04-05/Documents/letter")), kept);
}

fn ino(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap())
}

#[test]
fn templates_and_filters() {
    if without_fuse() {
        return;
    }
    let world = world();
    let arguments =
        ["--path-template", "%h/%t", "--path-template", "%T/%i", "--time-template", "%Y/%m-%d", "--refresh", "1"];
    let mount = Mount::of(&world, &arguments);
    assert_eq!(top(&mount.path("")), ["README.txt", "alpha", "beta", "daily", "latest"]);
    assert_eq!(listed(&mount.path("alpha/2024")), ["05-06", "latest"]);
    assert_eq!(target(mount.path("latest")), "alpha/2025/06-01");
    assert_eq!(target(mount.path("alpha/2025/latest")), "06-01");
    let short = listed(&mount.path("daily"));
    assert!(short.len() == 1 && short[0].len() == 8, "{short:?}");
    assert_eq!(target(mount.path("daily").join(&short[0])), "../alpha/2024/05-06");
    let letter = below(&world, "home/me/Documents/letter");
    assert_eq!(fs::read(mount.path("daily").join(&short[0]).join(&letter)).unwrap(), b"first");
    assert!(!mount.path("alpha/2025/06-01").join(&letter).exists());
    // Two of a day get different names, also in a mount that runs.
    world.backup(0, ["other", "--host", "alpha", "--time", "2025-06-01T10:00:00Z"]);
    let deadline = Instant::now() + Duration::from_secs(15);
    while listed(&mount.path("alpha/2025")).len() < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(listed(&mount.path("alpha/2025")), ["06-01", "06-01_2", "latest"]);
    assert_eq!(target(mount.path("latest")), "alpha/2025/06-01_2");
    drop(mount);

    let shown = |arguments: &[&str]| {
        let mount = Mount::of(&world, &[&["--layout", "flat"], arguments].concat());
        listed(&mount.path("")).into_iter().filter(|name| name.starts_with("20")).collect::<Vec<_>>()
    };
    let (a, b, c, d) = ("2024-05-06_07-08-09", "2025-01-02_03-04-05", "2025-06-01_00-00-00", "2025-06-01_10-00-00");
    assert_eq!(shown(&["--host", "alpha"]), [a, c, d]);
    assert_eq!(shown(&["--host", "alpha", "--host", "beta", "--tag", "daily"]), [a]);
    assert_eq!(shown(&["--path", &world.text("home")]), [a, b]);
    assert_eq!(shown(&["--host", "gamma"]), [""; 0]);
    let mount = Mount::of(&world, &["--layout", "previous-versions", "--path", &world.text("home")]);
    assert_eq!(listed(&mount.path("")), ["@GMT-2024.05.06-07.08.09", "@GMT-2025.01.02-03.04.05"]);
}

#[test]
fn refusals() {
    let world = World::with_repository();
    fs::create_dir(world.path("empty")).unwrap();
    let refused = |code: i32, arguments: &[&str], said: &[&str]| {
        drop(world.run(["mount", "empty"].iter().chain(arguments)).fails(code, said));
    };
    refused(1, &["--path-template", "%x"], &["\"%x\" stands for nothing", "Hint: An example: \"%h/%t\""]);
    refused(1, &["--path-template", "../%t"], &["lead downwards"]);
    refused(1, &["--time-template", "%!"], &["is not a template of a time", "Hint: The usual one is"]);
    refused(1, &["--layout", "previous-versions", "--time-template", "%Y"], &["as Samba wants them", "Hint: "]);
    refused(2, &["--layout", "flat", "--path-template", "%t"], &["--path-template"]);
    refused(2, &["latest", "--root", "/"], &["--root"]);
    // With a snapshot, a host says whose latest one is meant.
    refused(1, &["latest", "--host", "a"], &["Error: "]);
    assert!(listed(&world.path("empty")).is_empty());
}
