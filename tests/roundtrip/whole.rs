//! Whole trees, twice: everything that backups stumble over, and what is counted. Not for: choosing parts.

use super::{names, restores, same};
use crate::support::run::World;
use crate::support::{compare, nasty, share};
use rustix::fs::inotify;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;

#[test]
fn the_nasty_tree_and_its_changes() {
    let world = World::with_repository();
    let (source, before) = (world.path("source"), world.path("before"));
    fs::create_dir(&source).unwrap();
    nasty::build(&source);
    let first = world.backup(0, ["source"]);
    assert_eq!((&first["error_count"], &first["files_changed"]), (&0.into(), &0.into()), "{first}");
    let address = format!("latest:{}", source.display());
    restores(&world, &address, "out-1", &source);
    // Space is only comparable where both trees are on one file system, as here; ext4 counts the map of a file with very
    // many parts once it is on the disk.
    fs::File::open(world.path("out-1/sparse/comb")).unwrap().sync_all().unwrap();
    let options = compare::Options { blocks: true, holes: false, ..super::EXACT };
    let mut found = compare::trees(&source, &world.path("out-1"), options);
    found.retain(|line| !line.contains("zeros\": blocks"));
    assert_eq!(found, Vec::<String>::new());
    let copied = Command::new("cp").args(["-a", "--sparse=auto"]).args([&source, &before]).status().unwrap();
    assert!(copied.success());
    let rounds = share(1, 3);
    for seed in 1..=rounds {
        let said = nasty::change(&source, seed);
        let summary = world.backup(0, ["source"]);
        assert_eq!(summary["error_count"], 0, "{said:?}");
        restores(&world, &address, &format!("changed-{seed}"), &source);
    }
    restores(&world, &format!("latest~{rounds}:{}", source.display()), "out-2", &world.path("out-1"));
    let options = compare::Options { holes: false, ..super::EXACT };
    assert_eq!(compare::trees(&before, &world.path("out-2"), options), Vec::<String>::new());
    let deeper = world.run(["restore", "latest", "-t", "all", "--verify"]).succeeds();
    assert!(deeper.stdout.contains("Read again and compared"), "{deeper:?}");
    same(&source, &world.path("all").join(source.strip_prefix("/").unwrap()));
    world.run(["check", "--read-data", "-q"]).succeeds();
}

/// Names of the files below `folder` that are opened while `work` runs.
fn opened(folder: &Path, work: impl FnOnce()) -> Vec<String> {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, folder, inotify::WatchFlags::OPEN).unwrap();
    work();
    let mut buffer = [MaybeUninit::uninit(); 1 << 16];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut found = Vec::new();
    while let Ok(event) = events.next() {
        if let Some(name) = event.file_name()
            && !event.events().contains(inotify::ReadFlags::ISDIR)
        {
            found.push(name.to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Only files that have been left alone for a minute are remembered, so this looks at some that nobody touches.
#[test]
fn what_is_remembered_is_not_opened() {
    use std::os::unix::fs::MetadataExt;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    let youngest =
        fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().metadata().unwrap().ctime()).max().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    std::thread::sleep(std::time::Duration::from_secs((youngest as u64 + 62).saturating_sub(now).min(62)));
    let world = World::with_repository();
    let first = opened(&source, || drop(world.backup(0, [&source])));
    assert!(first.len() > 5, "{first:?}");
    let second = opened(&source, || {
        let again = world.backup(0, [&source]);
        assert_eq!(again["files_unmodified"], first.len(), "{again}");
    });
    assert_eq!(second, Vec::<String>::new());
}

#[test]
fn what_is_unchanged_is_not_stored_again() {
    let world = World::with_repository();
    let source = world.path("source");
    for (name, len) in [("a", 10), ("b", 300_000), ("c", 3_000_000)] {
        world.write(&format!("source/{name}"), nasty::Random(len).bytes(len as usize));
    }
    world.backup(0, ["source"]);
    let data = world.objects("data");
    let again = world.backup(0, ["source"]);
    assert_eq!(
        (&again["files_unmodified"], &again["files_new"], &again["files_changed"]),
        (&3.into(), &0.into(), &0.into())
    );
    fs::write(source.join("a"), "another").unwrap();
    let again = world.backup(0, ["source"]);
    assert_eq!((&again["files_unmodified"], &again["files_changed"]), (&2.into(), &1.into()), "{again}");
    let data_before = world.objects("data");
    assert_eq!(data, data_before, "a short file is kept in its folder's entry");
    let seen = opened(&source, || drop(world.backup(0, ["--force", "source"])));
    assert_eq!(seen, ["a", "b", "c"], "--force");
    for cache in fs::read_dir(world.path("cache")).unwrap() {
        fs::remove_dir_all(cache.unwrap().path().join("files")).unwrap();
    }
    let seen = opened(&source, || {
        let again = world.backup(0, ["source"]);
        assert_eq!((&again["files_unmodified"], &again["dirs_new"]), (&3.into(), &0.into()), "{again}");
    });
    assert_eq!(seen, ["a", "b", "c"], "without the files cache");
    assert_eq!(world.objects("data"), data_before);
    restores(&world, &format!("latest:{}", source.display()), "out", &source);
}

/// Runs `work` until nobody has changed the folders above `path` meanwhile: they are recorded too, and in the common
/// folder for temporary files other tests are at work.
fn while_above_is_calm<T>(path: &Path, mut work: impl FnMut() -> T) -> T {
    let times =
        || path.ancestors().skip(1).map(|above| above.metadata().unwrap().modified().unwrap()).collect::<Vec<_>>();
    for _ in 0..100 {
        let before = times();
        let result = work();
        if times() == before {
            return result;
        }
    }
    panic!("other programs keep changing a folder above \"{}\"", path.display());
}

#[test]
fn a_run_without_changes_adds_nothing_at_all() {
    let world = World::with_repository();
    let source = world.path("source");
    world.write("source/sub/long", nasty::Random(1).bytes(1 << 20));
    world.write("source/short", "x");
    let first = world.backup(0, ["source"]);
    assert!(first["data_added"].as_u64().unwrap() >= 1 << 20, "{first}");
    let again = while_above_is_calm(&source, || {
        world.backup(0, ["source"]);
        world.backup(0, ["source"])
    });
    let added = (&again["data_added"], &again["data_added_packed"], &again["dirs_changed"]);
    assert_eq!(added, (&0.into(), &0.into(), &0.into()), "{again}");
    let again = while_above_is_calm(&source, || {
        world.backup(0, ["source"]);
        for cache in fs::read_dir(world.path("cache")).unwrap() {
            fs::remove_dir_all(cache.unwrap().path().join("files")).unwrap();
        }
        world.backup(0, ["source"])
    });
    assert_eq!((&again["data_added"], &again["files_unmodified"]), (&0.into(), &2.into()), "{again}");
    world.run(["check", "--read-data", "-q"]).succeeds();
}

#[test]
fn counts() {
    let world = World::with_repository();
    for name in ["source/a", "source/sub/b", "source/sub/c", "source/gone/d"] {
        world.write(name, name);
    }
    let counted = |summary: &serde_json::Value| {
        ["files_new", "files_changed", "files_unmodified", "total_files_processed", "total_bytes_processed"]
            .map(|name| summary[name].as_u64().unwrap())
    };
    assert_eq!(counted(&world.backup(0, ["source"])), [4, 0, 0, 4, 8 + 12 + 12 + 13]);
    world.write("source/a", "longer than it was");
    world.write("source/sub/new", "");
    fs::remove_dir_all(world.path("source/gone")).unwrap();
    assert_eq!(counted(&world.backup(0, ["source"])), [1, 1, 2, 4, 18 + 12 + 12]);
    let listed = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!((listed.len(), &listed[1]["summary"]["files_changed"]), (2, &1.into()));
}

#[test]
fn roots_of_all_kinds() {
    let world = World::with_repository();
    for name in ["one/a", "two/sub/b", "two/other", "three/c"] {
        world.write(name, name);
    }
    // Several, one inside another, a file, and a path that goes up.
    world.backup(0, ["one", "two/sub", "./two/../three/c"]);
    world.run(["restore", "latest", "-t", "out"]).succeeds();
    let inside = world.path("out").join(world.path("").strip_prefix("/").unwrap());
    assert_eq!(names(&inside), ["one", "one/a", "three", "three/c", "two", "two/sub", "two/sub/b"]);
    same(&world.path("one"), &inside.join("one"));
    world.backup(0, ["two", "two/sub"]);
    restores(&world, &format!("latest:{}", world.text("two")), "out-2", &world.path("two"));
    world.backup(0, [world.text("three/c")]);
    world.run(["restore", &format!("latest:{}", world.text("three/c")), "-t", "file"]).succeeds();
    assert_eq!(names(&world.path("file")), ["c"]);
    // A symbolic link as a root is the link, not what is behind it, unless a slash says so.
    std::os::unix::fs::symlink("one", world.path("link")).unwrap();
    world.backup(0, ["link"]);
    world.run(["restore", "latest", "-t", "linked"]).succeeds();
    let inside = world.path("linked").join(world.path("link").strip_prefix("/").unwrap());
    assert_eq!(fs::read_link(inside).unwrap(), Path::new("one"));
}
