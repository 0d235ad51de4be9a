//! What a mount says of files in `user.firn.*`: right, for whoever asks by name, and invisible for everybody else. Not for: the
//! attributes that were backed up (see `contract`).

use super::{Mount, listed, without_fuse};
use crate::support::nasty::Random;
use crate::support::run::World;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const TIMES: [&str; 3] = ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"];
const NAMES: [&str; 3] = ["2024-01-01_00-00-00", "2024-02-01_00-00-00", "2024-03-01_00-00-00"];

/// Three snapshots: one file changes with the third, one is deleted with it, a folder with the second.
fn world() -> World {
    let world = World::with_repository();
    world.write("source/a.txt", Random(1).bytes(3000));
    world.write("source/zeros", vec![0; 300_000]);
    world.write("source/tiny", "tiny");
    world.write("source/gone/soon", "soon");
    world.write("source/late", "late");
    std::os::unix::fs::symlink("a.txt", world.path("source/link")).unwrap();
    backup(&world, 0);
    fs::remove_dir_all(world.path("source/gone")).unwrap();
    backup(&world, 1);
    fs::remove_file(world.path("source/late")).unwrap();
    world.write("source/a.txt", "short now");
    backup(&world, 2);
    world
}

fn backup(world: &World, number: usize) {
    world.backup(0, ["source", "--host", "alpha", "--time", TIMES[number]]);
}

/// An attribute of firn's; or why there is none.
fn known(path: &Path, name: &str) -> Result<String, rustix::io::Errno> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::lgetxattr(path, format!("user.firn.{name}"), &mut value)?;
    value.truncate(length);
    Ok(String::from_utf8(value).unwrap())
}

/// The ids of all snapshots, the oldest first.
fn ids(world: &World) -> Vec<String> {
    let said = world.run(["snapshots", "--json"]).succeeds();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
    let mut known: Vec<(String, String)> =
        said.json().iter().map(|value| (text(value, "time"), text(value, "snapshot_id"))).collect();
    known.sort();
    assert!(known.iter().map(|(time, _)| time.as_str()).eq(TIMES));
    known.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn where_and_when_a_file_was_seen() {
    if without_fuse() {
        return;
    }
    let world = world();
    let ids = ids(&world);
    let mount = Mount::of(&world, &["--xattrs", "named"]);
    let seen = |folder: &str, name: &str| {
        let path = mount.below(&world, folder, name);
        let found = ["snapshot", "first", "last"].map(|name| known(&path, name));
        found.map(|value| value.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    let expected = |snapshot: usize, first: usize, last: usize| {
        [ids[snapshot].clone(), TIMES[first].to_owned(), TIMES[last].to_owned()]
    };
    let in_first = format!("snapshots/{}", NAMES[0]);
    assert_eq!(seen(&in_first, "source/a.txt"), expected(0, 0, 1));
    assert_eq!(seen(&in_first, "source/tiny"), expected(0, 0, 2));
    assert_eq!(seen(&in_first, "source/gone"), expected(0, 0, 0));
    assert_eq!(seen(&format!("snapshots/{}", NAMES[1]), "source/a.txt"), expected(1, 0, 1));
    assert_eq!(seen("latest", "source/a.txt"), expected(2, 2, 2));
    assert_eq!(seen("latest", "source/tiny"), expected(2, 0, 2));
    // What a version's name says is when it began.
    let versions = mount.below(&world, "versions", "source/a.txt");
    assert_eq!(listed(&versions), [format!("{}.txt", NAMES[0]), format!("{}.txt", NAMES[2])]);
    let version = |number: usize| format!("source/a.txt/{}.txt", NAMES[number]);
    assert_eq!(seen("versions", &version(0)), expected(0, 0, 1));
    assert_eq!(seen("versions", &version(2)), expected(2, 2, 2));
    assert_eq!(seen("versions", &format!("source/{}", NAMES[1])), expected(1, 1, 1));
    assert_eq!(seen("versions", &format!("source/{}/tiny", NAMES[1])), expected(1, 0, 2));
    assert_eq!(seen("deleted", "source/late"), expected(1, 0, 1));
    assert_eq!(seen("deleted", "source/gone/soon"), expected(0, 0, 0));
    assert_eq!(seen("deleted", "source/gone"), expected(0, 0, 0));
    // The folder of all versions is in no snapshot.
    let error = known(&versions, "snapshot").unwrap_err();
    assert_eq!(error, rustix::io::Errno::NODATA);
    assert_eq!(
        (known(&versions, "first").unwrap(), known(&versions, "last").unwrap()),
        (TIMES[0].into(), TIMES[2].into())
    );
    // The snapshots themselves, and what is in none.
    assert_eq!(known(&mount.path(&in_first), "snapshot").unwrap(), ids[0]);
    assert_eq!(known(&mount.path(""), "snapshot").unwrap_err(), rustix::io::Errno::NODATA);
    assert_eq!(known(&mount.path("README.txt"), "blake3").unwrap_err(), rustix::io::Errno::NODATA);
    let mut getfattr = Command::new("getfattr");
    let shown = getfattr
        .args(["-n", "user.firn.snapshot", "--only-values"])
        .arg(mount.below(&world, "latest", "source/tiny"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), ids[2]);
}

#[test]
fn what_two_hosts_have_at_the_same_time_lives_once() {
    if without_fuse() {
        return;
    }
    let world = world();
    world.backup(0, ["source", "--host", "beta", "--time", "2024-02-15T00:00:00Z"]);
    let mount = Mount::of(&world, &["--xattrs", "named"]);
    let lives = |folder: &str, name: &str| {
        let path = mount.below(&world, folder, name);
        (known(&path, "first").unwrap(), known(&path, "last").unwrap())
    };
    let whole = (TIMES[0].to_owned(), TIMES[2].to_owned());
    for folder in ["snapshots/2024-02-15_00-00-00", "hosts/beta/latest", "hosts/alpha/latest", "latest"] {
        assert_eq!(lives(folder, "source/tiny"), whole, "{folder}");
    }
    assert_eq!(listed(&mount.below(&world, "versions", "source/tiny")), [NAMES[0]]);
    assert_eq!(lives("versions", &format!("source/tiny/{}", NAMES[0])), whole);
}

#[test]
fn what_a_file_takes_and_has() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    let contents =
        [("small", 3000), ("middle", 200_000), ("large", 9_000_000), ("most", 16 << 20), ("more", (16 << 20) + 1)];
    for (number, (name, length)) in (1..).zip(contents) {
        world.write(&format!("source/files/{name}"), Random(number).bytes(length));
    }
    world.write("source/files/empty", "");
    world.write("source/files/tiny", "tiny");
    world.write("source/again", Random(1).bytes(3000));
    world.write("source/zeros", vec![b'x'; 300_000]);
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &["--xattrs", "named"]);
    let at = |name: &str| mount.below(&world, "latest", &format!("source/{name}"));
    let number = |name: &str, what: &str| known(&at(name), what).unwrap().parse::<u64>().unwrap();
    for (name, _) in &contents[..4] {
        let bytes = fs::read(world.path(&format!("source/files/{name}"))).unwrap();
        assert_eq!(known(&at(&format!("files/{name}")), "blake3").unwrap(), blake3::hash(&bytes).to_string(), "{name}");
    }
    assert_eq!(known(&at("files/empty"), "blake3").unwrap(), blake3::hash(b"").to_string());
    assert_eq!(known(&at("files/tiny"), "blake3").unwrap(), blake3::hash(b"tiny").to_string());
    for (name, what) in [("files/more", "blake3"), ("files", "blake3"), ("files", "size_stored"), ("again", "files")] {
        assert_eq!(known(&at(name), what).unwrap_err(), rustix::io::Errno::NODATA, "{name} {what}");
    }
    // Noise takes what it has, and all files together what there is.
    let mut sum = 0;
    for (name, length) in contents {
        let stored = number(&format!("files/{name}"), "size_stored");
        assert!((length as u64..length as u64 + length as u64 / 50 + 200).contains(&stored), "{name}: {stored}");
        sum += stored;
    }
    assert_eq!(number("again", "size_stored"), number("files/small", "size_stored"));
    assert_eq!((number("files/empty", "size_stored"), number("files/tiny", "size_stored")), (0, 0));
    assert!(number("zeros", "size_stored") < 2000);
    sum += number("zeros", "size_stored");
    let packs = world.run(["stats", "--json"]).succeeds().json()[0]["data_packs"]["bytes"].as_u64().unwrap();
    assert!(sum <= packs && packs - sum < 1 << 20, "{sum} {packs}");
    let below: u64 = contents.iter().map(|(_, length)| *length as u64).sum::<u64>() + 4;
    assert_eq!((number("files", "files"), number("files", "bytes")), (7, below));
    assert_eq!((number("", "files"), number("", "bytes")), (9, below + 303_000));
}

#[test]
fn they_are_copied_and_listed_only_if_that_is_wanted() {
    if without_fuse() {
        return;
    }
    let world = world();
    let file = |mount: &Mount| mount.below(&world, "latest", "source/a.txt");
    let names = |path: &Path| {
        let output = Command::new("getfattr").args(["-m-", "--absolute-names"]).arg(path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let copied = |mount: &Mount, to: &str| {
        let status = Command::new("cp").arg("-a").arg(file(mount)).arg(world.path(to)).status().unwrap();
        assert!(status.success());
        names(&world.path(to))
    };
    // Without any attribute the kernel does not even ask.
    let mount = Mount::of(&world, &[]);
    assert_eq!(known(&file(&mount), "snapshot").unwrap_err(), rustix::io::Errno::OPNOTSUPP);
    drop(mount);
    let mount = Mount::of(&world, &["--xattrs", "named"]);
    assert!(known(&file(&mount), "snapshot").is_ok());
    assert_eq!((names(&file(&mount)), copied(&mount, "copy-1")), (vec![], vec![]));
    drop(mount);
    let all = ["blake3", "first", "last", "size_stored", "snapshot"].map(|name| format!("user.firn.{name}"));
    let mount = Mount::of(&world, &["--xattrs", "listed"]);
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(names(&file(&mount))), all);
    assert_eq!(sorted(copied(&mount, "copy-2")), all);
    let folder = mount.below(&world, "latest", "source");
    let of_folder = ["bytes", "files", "first", "last", "snapshot"].map(|name| format!("user.firn.{name}"));
    assert_eq!(sorted(names(&folder)), of_folder);
    for listed in of_folder.iter().map(|name| name.strip_prefix("user.firn.").unwrap()) {
        assert!(known(&folder, listed).is_ok(), "{listed}");
    }
    assert_eq!(names(&mount.path("README.txt")), [""; 0]);
    drop(mount);
    // One that was backed up is what it was; and where there are any, firn's are answered without being asked to.
    rustix::fs::setxattr(world.path("source/a.txt"), "user.firn.snapshot", b"mine", rustix::fs::XattrFlags::empty())
        .unwrap();
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &[]);
    assert_eq!(known(&file(&mount), "snapshot").unwrap(), "mine");
    assert_eq!(names(&file(&mount)), ["user.firn.snapshot"]);
    assert_eq!(known(&mount.below(&world, "latest", "source/tiny"), "snapshot").unwrap().len(), 64);
    assert_eq!(
        known(&mount.below(&world, "latest", "source/link"), "snapshot").unwrap_err(),
        rustix::io::Errno::NODATA
    );
    drop(mount);
    // A mount of one snapshot has no history.
    let mount = Mount::of(&world, &["--xattrs", "listed", &format!("latest:{}", world.text("source"))]);
    assert_eq!(
        sorted(names(&mount.path("tiny"))),
        ["blake3", "size_stored", "snapshot"].map(|name| format!("user.firn.{name}"))
    );
    assert_eq!(known(&mount.path("tiny"), "first").unwrap_err(), rustix::io::Errno::NODATA);
    assert_eq!(known(&mount.path(""), "files").unwrap(), "3");
}

#[test]
fn damage_is_an_error_of_what_needs_it() {
    if without_fuse() {
        return;
    }
    let world = world();
    let ids = ids(&world);
    // Whatever holds contents is gone; the trees are there.
    for pack in world.objects("data") {
        fs::remove_file(pack).unwrap();
    }
    let mount = Mount::of(&world, &["--xattrs", "listed"]);
    let old = mount.below(&world, &format!("snapshots/{}", NAMES[0]), "source/a.txt");
    assert_eq!(known(&old, "blake3").unwrap_err(), rustix::io::Errno::IO);
    assert_eq!(known(&old, "size_stored").unwrap_err(), rustix::io::Errno::IO);
    assert_eq!(known(&old, "snapshot").unwrap(), ids[0]);
    assert_eq!((known(&old, "first").unwrap(), known(&old, "last").unwrap()), (TIMES[0].into(), TIMES[1].into()));
    let tiny = mount.below(&world, "latest", "source/tiny");
    assert_eq!(known(&tiny, "blake3").unwrap(), blake3::hash(b"tiny").to_string());
}

#[test]
fn an_indexer_gets_no_hash_that_takes_a_read() {
    if without_fuse() {
        return;
    }
    let world = world();
    fs::copy("/usr/bin/getfattr", world.path("tumblerd")).unwrap();
    let mount = Mount::of(&world, &["--xattrs", "named"]);
    let file = mount.below(&world, &format!("snapshots/{}", NAMES[0]), "source/a.txt");
    let asks = |name: &str| {
        let mut command = Command::new(world.path("tumblerd"));
        let output = command.args(["--only-values", "-n", name]).arg(&file).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).contains("Permission denied"))
    };
    assert_eq!(asks("user.firn.blake3"), (false, true));
    assert_eq!(asks("user.firn.snapshot"), (true, false));
    assert!(known(&file, "blake3").is_ok());
}
