//! Parts of a snapshot: paths, patterns, what exists already, single files, listings. Not for: whole trees.

use super::{names, same};
use crate::support::compare::{self, set_mtime};
use crate::support::nasty;
use crate::support::run::World;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

fn world() -> World {
    let world = World::with_repository();
    for (name, text) in
        [("a.txt", "a"), ("b.log", "b"), ("sub/c.txt", "c"), ("sub/deep/d.txt", "d"), ("sub/e.log", "e")]
    {
        world.write(&format!("source/{name}"), text);
    }
    world.backup(0, ["source"]);
    world
}

fn restored(world: &World, below: &str, options: &[&str]) -> Vec<String> {
    let out = world.path("out");
    drop(fs::remove_dir_all(&out));
    let address = format!("latest:{}", world.text(&format!("source{below}")));
    world.run(["restore", &address, "-t", "out"].iter().chain(options)).succeeds();
    if out.exists() { names(&out) } else { Vec::new() }
}

#[test]
fn a_part_of_a_snapshot() {
    let world = world();
    assert_eq!(restored(&world, "/sub", &[]), ["c.txt", "deep", "deep/d.txt", "e.log"]);
    same(&world.path("source/sub"), &world.path("out"));
    assert_eq!(restored(&world, "/sub/deep/", &[]), ["d.txt"]);
    assert_eq!(restored(&world, "/sub/e.log", &[]), ["e.log"]);
    let txt = ["a.txt", "sub", "sub/c.txt", "sub/deep", "sub/deep/d.txt"];
    assert_eq!(restored(&world, "", &["--include", "*.txt"]), txt);
    assert_eq!(restored(&world, "", &["-e", "*.log"]), txt);
    assert_eq!(restored(&world, "", &["-i", "*.txt", "-e", "deep"]), ["a.txt", "sub", "sub/c.txt"]);
    let absolute = world.text("source/sub/deep");
    assert_eq!(restored(&world, "", &["-i", &absolute]), ["sub", "sub/deep", "sub/deep/d.txt"]);
    assert_eq!(restored(&world, "", &["--dry-run"]), Vec::<String>::new());
}

#[test]
fn what_is_named_and_not_there_is_an_error() {
    let world = world();
    for address in ["latest:/no/such", &format!("latest:{}", world.text("source/a.tx"))] {
        world.run(["restore", address, "-t", "none"]).fails(1, &["There is no \""]);
        assert!(!world.path("none").exists());
    }
    // Of several, the others come back.
    let absent = world.text("source/gone");
    for options in [vec!["-i", &absent, "-i", "*.log"], vec!["-i", "*.log", "-i", &absent, "-n"]] {
        drop(fs::remove_dir_all(world.path("out")));
        let address = format!("latest:{}", world.text("source"));
        let ran = world.run(["restore", &address, "-t", "out"].iter().chain(&options));
        let ran = ran.fails(3, &[&format!("Nothing matched the pattern \"{absent}\"")]);
        assert!(ran.stdout.contains("estore 2 files") || ran.stdout.contains("estored 2 files"), "{ran:?}");
        assert!(options.contains(&"-n") || names(&world.path("out")) == ["b.log", "sub", "sub/e.log"]);
    }
    // What is to be left out and is not there harms nobody.
    assert_eq!(restored(&world, "/sub", &["-e", "none", "-i", "c.txt", "-i", "*.txt", "-i", "!none"]).len(), 3);
}

#[test]
fn what_exists_already() {
    let world = world();
    let text = |name: &str| fs::read_to_string(world.path("out").join(name)).unwrap();
    let address = format!("latest:{}", world.text("source"));
    let restore = |mode: &str| world.run(["restore", &address, "-t", "out", "--overwrite", mode, "--json"]).succeeds();
    restore("if-changed");
    // One of another size, one of another time, one with other bytes of the same size and time, and one of our own.
    let time = |name: &str| {
        let meta = fs::metadata(world.path("source").join(name)).unwrap();
        (std::os::unix::fs::MetadataExt::mtime(&meta), std::os::unix::fs::MetadataExt::mtime_nsec(&meta))
    };
    let damage = || {
        for (name, text) in [("a.txt", "other size"), ("b.log", "x"), ("sub/c.txt", "y"), ("mine", "mine")] {
            fs::write(world.path("out").join(name), text).unwrap();
        }
        let (seconds, nanos) = time("sub/c.txt");
        set_mtime(&world.path("out/sub/c.txt"), seconds, nanos);
    };
    let state = || ["a.txt", "b.log", "sub/c.txt", "mine"].map(text).join(" ");
    damage();
    restore("never");
    assert_eq!(state(), "other size x y mine");
    let told = restore("if-changed").json().pop().unwrap();
    assert_eq!((state().as_str(), &told["files_restored"]), ("a b y mine", &2.into()));
    restore("always");
    assert_eq!(state(), "a b c mine");
    fs::remove_file(world.path("out/mine")).unwrap();
    restore("always");
    // The target itself was there before and is not changed.
    let options = compare::Options { top: false, ..super::EXACT };
    assert_eq!(compare::trees(&world.path("source"), &world.path("out"), options), Vec::<String>::new());
    // A folder with something in it is never replaced by a file.
    fs::remove_file(world.path("out/a.txt")).unwrap();
    world.write("out/a.txt/precious", "precious");
    world.run(["restore", &address, "-t", "out", "--overwrite", "always"]).fails(3, &["a.txt"]);
    assert_eq!(text("a.txt/precious"), "precious");
}

#[test]
fn dump_gives_the_bytes() {
    let world = World::with_repository();
    fs::create_dir(world.path("source")).unwrap();
    let files = [("empty", Vec::new()), ("short", b"\0\xff".to_vec()), ("long", nasty::Random(3).bytes(5_000_000))];
    for (name, bytes) in &files {
        world.write(&format!("source/{name}"), bytes);
    }
    let sparse = fs::File::create(world.path("source/sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();
    world.backup(0, ["source"]);
    for (name, bytes) in files.iter().cloned().chain([("sparse", vec![0; 3_000_000])]) {
        let address = format!("latest:{}", world.text(&format!("source/{name}")));
        let output = world.command(["dump", &address], &[]).output().unwrap();
        assert!(output.status.success() && output.stdout == bytes, "{name}: {} bytes", output.stdout.len());
    }
    // A reader that goes away early is no failure to shout about.
    let address = format!("latest:{}", world.text("source/long"));
    let mut child =
        world.command(["dump", &address], &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let is_note = said.starts_with("Note: ") && said.contains("\"latest\"") && said.lines().count() == 1;
    assert!(is_note && output.status.code() == Some(141), "{output:?}");
    let mut child =
        world.command(["dump", "-q", &address], &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty() && output.status.code() == Some(141), "{output:?}");
}

#[test]
fn ls_lists_everything() {
    let world = World::with_repository();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    nasty::build(&source);
    world.backup(0, ["source"]);
    let mut wanted = BTreeSet::new();
    let mut open = vec![source.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            if !std::os::unix::fs::FileTypeExt::is_socket(&entry.file_type().unwrap()) {
                wanted.insert(String::from_utf8_lossy(entry.path().as_os_str().as_bytes()).into_owned());
            }
        }
    }
    let lines = world.run(["ls", "-R", "--json", &format!("latest:{}", source.display())]).succeeds().json();
    let nodes = lines.iter().filter(|line| line["message_type"] == "node" && line["path"] != source.to_str().unwrap());
    let found: Vec<String> = nodes.map(|line| line["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found.len(), wanted.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    let fifo = lines.iter().find(|line| line["name"] == "fifo").unwrap();
    assert_eq!(fifo["type"], "fifo");
    let text = world.run(["ls", "-l", &format!("latest:{}", world.text("source/links"))]).succeeds().stdout;
    assert!(text.contains("dangling -> nowhere"), "{text}");
}
