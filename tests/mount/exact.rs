//! What a mount shows is what was backed up, to every program that compares. Not for: refusals, or beginning and end.

use super::{Mount, without_fuse};
use crate::support::compare::{Options, trees};
use crate::support::nasty;
use crate::support::run::World;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXACT: Options = Options {
    owners: true,
    modes: true,
    times: true,
    attributes: true,
    links: true,
    blocks: true,
    holes: true,
    ignore_sockets: true,
    top: true,
};

fn nasty_world() -> World {
    let world = World::with_repository();
    fs::create_dir(world.path("source")).unwrap();
    nasty::build(&world.path("source"));
    world.backup(0, ["source"]);
    world
}

/// Where `source` is in a mount of all snapshots.
fn below_latest(mount: &Mount, source: &Path) -> PathBuf {
    mount.path("latest").join(source.strip_prefix("/").unwrap())
}

/// Differences, but for written zeros: where they are, is where a mount shows a hole.
fn differences(a: &Path, b: &Path) -> Vec<String> {
    let mut found = trees(a, b, EXACT);
    found.retain(|line| !(line.contains("zeros\": data at [(0, ") && line.ends_with("became data at []")));
    found
}

#[track_caller]
fn silent(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{program}: {output:?}");
    output
}

#[test]
pub(super) fn the_nasty_tree() {
    if without_fuse() {
        return;
    }
    let world = nasty_world();
    let mount = Mount::of(&world, &[]);
    let (source, shown) = (world.path("source"), below_latest(&mount, &world.path("source")));
    assert_eq!(differences(&source, &shown), Vec::<String>::new());
    // The second time the kernel answers much of it by itself.
    assert_eq!(differences(&source, &shown), Vec::<String>::new());
    drop(mount);
    let part = Mount::of(&world, &[&format!("latest:{}", source.display())]);
    assert_eq!(differences(&source, &part.path("")), Vec::<String>::new());
}

#[test]
fn the_nasty_tree_as_a_version_and_when_it_is_gone() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    nasty::build(&source);
    world.backup(0, ["source", "--time", "2024-01-01T00:00:00Z"]);
    fs::remove_dir_all(&source).unwrap();
    world.write("source/left", "");
    world.backup(0, ["source", "--time", "2024-02-01T00:00:00Z"]);
    let mount = Mount::of(&world, &[]);
    let below = |folder: &str| mount.below(&world, folder, "source");
    let there = below("snapshots/2024-01-01_00-00-00");
    let version = below("versions").join("2024-01-01_00-00-00");
    assert_eq!(trees(&there, &version, EXACT), Vec::<String>::new());
    let options = Options { top: false, ..EXACT };
    assert_eq!(trees(&there, &below("deleted"), options), Vec::<String>::new());
}

#[test]
pub(super) fn programs_find_no_difference() {
    if without_fuse() {
        return;
    }
    let world = nasty_world();
    // Sockets are not kept, and devices are nothing to compare by reading.
    let source = world.path("source");
    fs::remove_dir_all(source.join("special")).unwrap();
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &[]);
    let shown = below_latest(&mount, &source);
    let (one, other) = (format!("{}/", source.display()), format!("{}/", shown.display()));
    silent("rsync", &["-aHAXn", "--checksum", "--delete", "--itemize-changes", &one, &other]);
    silent("rsync", &["-aHAXn", "--checksum", "--delete", "--itemize-changes", &other, &one]);
    let out = world.path("copy");
    silent("cp", &["-a", &other, out.to_str().unwrap()]);
    let options = Options { blocks: false, holes: false, ..EXACT };
    assert_eq!(trees(&source, &out, options), Vec::<String>::new());
    // diff takes pipes for something that it cannot compare.
    for pipe in ["links/one/pipe", "links/two/pipe"] {
        fs::remove_file(source.join(pipe)).unwrap();
    }
    let same = Command::new("diff").args(["-r", "--no-dereference", &one, &other]).output().unwrap();
    let said = String::from_utf8_lossy(&same.stdout);
    assert!(said.lines().all(|line| line.starts_with("Only in ") && line.ends_with(": pipe")), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}{}", String::from_utf8_lossy(&same.stderr));
}

/// Inode numbers of all names below a folder.
fn numbers(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), meta.ino(), "{:?}", entry.path());
            if meta.is_dir() {
                open.push(entry.path());
            }
            found.insert(entry.path().strip_prefix(folder).unwrap().to_path_buf(), meta.ino());
        }
    }
    found
}

#[test]
pub(super) fn inode_numbers_stay() {
    if without_fuse() {
        return;
    }
    let world = nasty_world();
    let mount = Mount::of(&world, &["--refresh", "0"]);
    let before = numbers(&mount.path("snapshots"));
    drop(mount);
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &["--no-cache"]);
    let after = numbers(&mount.path("snapshots"));
    assert!(before.len() > 3000 && after.len() > before.len());
    for (name, ino) in &before {
        assert_eq!(after.get(name), Some(ino), "{name:?}");
    }
    let shown = below_latest(&mount, &world.path("source"));
    let ino = |name: &str| shown.join(name).symlink_metadata().unwrap().ino();
    assert_eq!(ino("links/one/a"), ino("links/two/deeper/b"));
    assert_eq!(ino("links/one/a"), ino("links/c"));
    assert_ne!(ino("links/one/a"), ino("links/alike"));
}

/// git with the arguments, which must succeed; what it prints.
fn git(world: &World, place: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("git");
    command.arg("-C").arg(place).args(["-c", "user.name=A", "-c", "user.email=a@example.org"]).args(arguments);
    command.env("HOME", world.path("home")).env("GIT_CONFIG_NOSYSTEM", "1");
    // As command-line options do not count for this one.
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

/// Makes a checkout with some history, packed and not, in a folder of the world.
pub(super) fn a_git_project(world: &World, project: &Path) {
    fs::create_dir(project).unwrap();
    git(world, project, &["init", "-q", "-b", "main"]);
    fs::create_dir(project.join("folder")).unwrap();
    for number in 0..8_u64 {
        fs::write(project.join("text"), format!("line {number}\n").repeat(500)).unwrap();
        fs::write(project.join(format!("folder/{number}")), nasty::Random(number).bytes(20_000)).unwrap();
        git(world, project, &["add", "-A"]);
        git(world, project, &["commit", "-q", "-m", &format!("commit {number}")]);
        if number == 5 {
            git(world, project, &["gc", "-q"]);
        }
    }
}

#[test]
pub(super) fn git_works_in_the_past() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    let project = world.path("project");
    a_git_project(&world, &project);
    world.backup(0, ["project"]);
    let mount = Mount::of(&world, &[]);
    let shown = below_latest(&mount, &project);
    let same = |arguments: &[&str]| git(&world, &shown, arguments) == git(&world, &project, arguments);
    git(&world, &shown, &["fsck", "--full", "--strict"]);
    assert!(same(&["log", "-p"]));
    assert!(git(&world, &shown, &["show", "HEAD~3:folder/2"]) == nasty::Random(2).bytes(20_000));
    assert!(git(&world, &shown, &["--no-optional-locks", "status", "--porcelain"]).is_empty());
}
