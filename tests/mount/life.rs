//! Layout, new snapshots, owners, beginning and end of a mount. Not for: contents.

use super::{Mount, is_mounted, listed, top, without_fuse};
use crate::support::run::World;
use crate::support::without_root;
use rustix::process::{Signal, kill_process};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn world() -> World {
    let world = World::with_repository();
    world.write("source/file", "text");
    let first = ["source", "--host", "alpha", "--tag", "daily,odd/one", "--time", "2024-05-06T07:08:09Z"];
    world.backup(0, first);
    world.backup(0, ["source", "--host", "beta", "--time", "2025-01-02T03:04:05Z"]);
    world
}

#[test]
fn layout() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &[]);
    let names = ["README.txt", "deleted", "hosts", "ids", "latest", "snapshots", "tags", "versions"];
    assert_eq!(top(&mount.path("")), names);
    let times = listed(&mount.path("snapshots"));
    assert!(times.len() == 2 && times[0].starts_with("2024-05-06") && times[1].starts_with("2025-01-02"), "{times:?}");
    assert_eq!(fs::read_link(mount.path("latest")).unwrap(), Path::new("snapshots").join(&times[1]));
    assert_eq!(listed(&mount.path("hosts")), ["alpha", "beta"]);
    assert_eq!(listed(&mount.path("hosts/alpha")), [times[0].clone(), "latest".into()]);
    assert_eq!(listed(&mount.path("ids")).len(), 2);
    let tags = listed(&mount.path("tags"));
    assert!(tags.len() == 2 && tags.contains(&"daily".to_owned()), "a tag with a slash is one folder: {tags:?}");
    let file = world.path("source/file");
    let file = file.strip_prefix("/").unwrap();
    let places =
        ["hosts/alpha/latest".to_owned(), format!("tags/daily/{}", times[0]), format!("snapshots/{}", times[0])];
    let ids = listed(&mount.path("ids")).into_iter().map(|id| format!("ids/{id}"));
    for place in places.into_iter().chain(ids) {
        assert_eq!(fs::read(mount.path(&place).join(file)).unwrap(), b"text", "{place}");
    }
    assert!(fs::read_to_string(mount.path("README.txt")).unwrap().contains("read-only"));
}

#[test]
fn new_snapshots_appear() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &["--refresh", "1"]);
    assert_eq!(listed(&mount.path("snapshots")).len(), 2);
    let old = fs::read_link(mount.path("latest")).unwrap();
    world.write("source/newer", "newer");
    world.backup(0, ["source", "--host", "gamma"]);
    let deadline = Instant::now() + Duration::from_secs(15);
    while listed(&mount.path("snapshots")).len() < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(listed(&mount.path("hosts")), ["alpha", "beta", "gamma"]);
    assert_ne!(fs::read_link(mount.path("latest")).unwrap(), old);
    assert_eq!(fs::read(mount.below(&world, "latest", "source/newer")).unwrap(), b"newer");
}

#[test]
fn owners() {
    if without_fuse() || without_root() {
        return;
    }
    let world = World::with_repository();
    world.write("source/file", "text");
    std::os::unix::fs::lchown(world.path("source/file"), Some(1234), Some(4321)).unwrap();
    world.backup(0, ["source"]);
    let address = format!("latest:{}", world.text("source"));
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for (who, owner) in [("original", (1234, 4321)), ("root", (0, 0)), ("me", me)] {
        let mount = Mount::of(&world, &[&address, "--owner", who]);
        let meta = mount.path("file").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), owner, "{who}");
    }
}

#[test]
fn signals_end_it() {
    if without_fuse() {
        return;
    }
    let world = world();
    for (signal, code) in [(Signal::INT, 0), (Signal::TERM, 0)] {
        let mount = Mount::of(&world, &["--host", "beta"]);
        let point = mount.point.clone();
        assert!(is_mounted(&point));
        kill_process(mount.program(), signal).unwrap();
        let (status, said) = mount.ended();
        assert_eq!((status.code(), said.as_str()), (Some(code), ""), "{signal:?}");
        assert!(!is_mounted(&point));
        assert!(listed(&point).is_empty());
    }
    // One that is in use goes on, says so, and leaves when asked again.
    let mount = Mount::of(&world, &[]);
    let held = fs::File::open(mount.path("README.txt")).unwrap();
    kill_process(mount.program(), Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(listed(&mount.path("hosts")), ["alpha", "beta"]);
    kill_process(mount.program(), Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(std::io::read_to_string(&held).unwrap().contains("read-only"), "what is open can be read on");
    drop(held);
    let (status, said) = mount.ended();
    assert!(status.success() && said.contains("ask again"), "{status} {said}");
}

#[test]
fn what_a_killed_program_leaves_is_no_obstacle() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &[]);
    let point = mount.point.clone();
    kill_process(mount.program(), Signal::KILL).unwrap();
    mount.forget();
    // Some kernels leave a dead mount, as does a helper that was killed too.
    let mount = Mount::on(&world, &point, &[]);
    assert_eq!(listed(&mount.path("hosts")), ["alpha", "beta"]);
}

#[test]
fn in_the_background() {
    if without_fuse() {
        return;
    }
    let world = world();
    fs::create_dir(world.path("past")).unwrap();
    // Relative, and from a program that waits for its output to be closed.
    let address = format!("latest:{}", world.text("source"));
    let said = world.run(["mount", "--daemon", "past", &address]).succeeds().stdout;
    assert!(said.contains("firn umount past"), "{said}");
    assert_eq!(fs::read(world.path("past/file")).unwrap(), b"text");
    world.run(["umount", "past"]).succeeds();
    assert!(listed(&world.path("past")).is_empty());
    // A name that fits nothing: the mount may fill later, and it is said that nothing is there now.
    let empty = world.run(["mount", "-d", "past", "--host", "zz"]).succeeds();
    assert!(empty.stderr.contains("There is no snapshot with the host \"zz\", so the mount shows none"), "{empty:?}");
    world.run(["umount", "past"]).succeeds();
    let said = world.run(["mount", "-d", "past", "--json"]).succeeds();
    assert!(
        said.stdout.is_empty() && said.json_errors().iter().all(|object| object["message_type"] == "note"),
        "{said:?}"
    );
    world.run(["umount", "past"]).succeeds();
    world.run(["mount", "-d", "past", "-q"]).succeeds();
    let ended = Command::new("fusermount3").arg("-u").arg(world.path("past")).status().unwrap();
    assert!(ended.success());
    // What is to be typed can be pasted.
    let said = world.run(["mount", "-d", "a b"]).succeeds().stdout;
    let hint = said.lines().find_map(|line| line.strip_prefix("End it with \"")?.strip_suffix('"')).unwrap();
    assert_eq!(hint, "firn umount 'a b'");
    let twice = world.run(["mount", "a b"]).fails(11, &["Hint: Use that one, or unmount it first: \"firn umount '"]);
    assert!(twice.stderr.contains("/a b'\"."), "{twice:?}");
    let script = hint.replacen("firn", "\"$0\"", 1);
    let pasted =
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_firn")]).current_dir(world.path("")).status();
    assert!(pasted.unwrap().success() && listed(&world.path("a b")).is_empty());
}

#[test]
fn it_is_said_whose_the_latest_is() {
    if without_fuse() {
        return;
    }
    let world = world();
    let said = |options: &[&str]| {
        let ran = world.run(["mount", "-d", "past"].iter().chain(options)).succeeds();
        world.run(["umount", "past"]).succeeds();
        ran.stderr
    };
    let note = "\"latest\" shows the newest snapshot, of the host \"beta\"; there are also snapshots from \"alpha\"";
    let all = said(&[]);
    assert_eq!((all.matches(note).count(), all.contains("hosts/HOST/latest")), (1, true), "{all}");
    assert!(said(&["--layout", "flat"]).contains(note));
    for one in [&["--host", "alpha"][..], &["--tag", "daily"], &["--layout", "previous-versions"], &["-q"]] {
        assert!(!said(one).contains("newest snapshot"), "{one:?}");
    }
    let elsewhere = said(&["--root", "/somewhere/else"]);
    assert!(!elsewhere.contains("newest snapshot"), "{elsewhere}");
}

#[test]
fn refusals() {
    if without_fuse() {
        return;
    }
    let world = world();
    world.write("full/file", "text");
    fs::create_dir(world.path("empty")).unwrap();
    fs::create_dir(world.path("repository/inside")).unwrap();
    let refused = |code: i32, arguments: &[&str], said: &[&str]| {
        drop(world.run(["mount"].iter().chain(arguments)).fails(code, said));
    };
    refused(1, &["missing/folder"], &["Error: The mountpoint ", "does not exist", "Hint: Create it: mkdir -p"]);
    refused(1, &["full"], &["is not empty", "Hint: Choose or create an empty directory"]);
    refused(1, &["full/file"], &["is not a directory", "Hint: "]);
    refused(1, &["repository/inside"], &["it overlaps the repository", "Hint: "]);
    refused(1, &["empty", "latest~7"], &["goes back too far"]);
    refused(1, &["empty", "latest:/no/such"], &["There is no \"", "Hint: "]);
    refused(1, &["empty", &format!("latest:{}", world.text("source/file"))], &["file"]);
    refused(2, &["empty", "--owner", "you"], &["--owner"]);
    let mount = Mount::of(&world, &[]);
    let point = mount.point.to_str().unwrap().to_owned();
    refused(11, &[&point], &["is already mounted on", "Hint: Use that one, or unmount it first: \"firn umount "]);
    refused(1, &[mount.path("snapshots").to_str().unwrap()], &["Error: "]);
    assert!(listed(&world.path("empty")).is_empty());
}

#[test]
fn no_core_file_holds_secrets() {
    if without_fuse() {
        return;
    }
    let mount = Mount::of(&world(), &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", mount.program().as_raw_nonzero())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

/// The repository is on a disk that somebody wants to take out.
#[test]
fn umount_ends_when_nothing_is_in_use_any_more() {
    if without_fuse() || without_root() {
        return;
    }
    let world = world();
    fs::create_dir(world.path("past")).unwrap();
    for _ in 0..5 {
        world.run(["mount", "-d", "-q", "past"]).succeeds();
        let repository = world.path("repository");
        let is_in_it = |to: std::path::PathBuf| to.starts_with(&repository);
        let servers = || {
            let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let folders = ids.map(|id| Path::new("/proc").join(id)).filter(|folder| folder.join("fd").exists());
            let uses = |folder: &std::path::PathBuf| {
                let open = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
                open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(is_in_it)
            };
            folders.filter(uses).count()
        };
        assert!(servers() > 0);
        fs::read(world.path("past/latest").join(world.path("source/file").strip_prefix("/").unwrap())).unwrap();
        world.run(["umount", "past"]).succeeds();
        assert_eq!(servers(), 0);
    }
}

#[test]
fn umount_quotes_what_keeps_it_from_working() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &[]);
    let open = fs::File::open(mount.path("snapshots")).unwrap();
    let point = mount.path("");
    let ran = world.run(["umount", point.to_str().unwrap()]).fails(11, &["could not be unmounted", "--lazy"]);
    // In the words of the helper, quoted.
    let quoted = ran.stderr.lines().find(|line| line.contains("busy")).unwrap_or_default().to_owned();
    assert!(quoted.contains("\"fusermount3: ") && quoted.trim_end().ends_with('"'), "{ran:?}");
    drop(open);
    world.run(["umount", point.to_str().unwrap()]).succeeds();
    drop(mount);
    // What is not firn's stays.
    world.run(["umount", "/proc"]).fails(1, &["no firn mount is there"]);
    assert!(fs::read_dir("/proc/self").is_ok());
}
