//! Is everything right whatever the local state holds? Not for: damage to the repository (see `damage`).

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

use crate::damage::{copy, files};
use crate::support::compare;
use crate::support::nasty::Random;
use crate::support::run::{ALONE, FIRN, Ran, World};
use crate::support::share;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with two snapshots, and the cache of both.
fn world(seed: u64) -> World {
    let world = World::quick();
    for number in 0..40 {
        let bytes = Random(seed + number).bytes(3000);
        world.write(&format!("source/{}/{number}", number % 4), bytes);
    }
    world.run(["backup", "-q", "source"]).succeeds();
    world.write("source/0/0", format!("other {seed}"));
    world.run(["backup", "-q", "source"]).succeeds();
    world
}

/// Changes the source, and sees that everything is right whatever happened to the cache.
fn all_is_right(world: &World, what: &str, turn: u64) {
    let changed = Random(turn).bytes(3000);
    world.write("source/1/1", changed);
    let runs: [&[&str]; 4] = [
        &["check", "-q", "--read-data"],
        &["backup", "-q", "source"],
        &["restore", "-q", "latest", "-t", "out"],
        &["check", "-q"],
    ];
    for arguments in runs {
        let ran = world.run(arguments);
        assert!(ran.code == 0 && !ran.stderr.contains("panicked"), "{what}: {arguments:?}: {ran:?}");
    }
    let out = world.path("out");
    let deep = out.join(world.path("source").strip_prefix("/").unwrap());
    let differences = compare::trees(&world.path("source"), &deep, compare::Options::default());
    assert!(differences.is_empty(), "{what}: {differences:?}");
    std::fs::remove_dir_all(out).unwrap();
}

fn folder(world: &World) -> PathBuf {
    let mut entries = std::fs::read_dir(world.path("cache")).unwrap();
    entries.next().unwrap().unwrap().path()
}

#[test]
fn the_cache_of_another_repository() {
    let (one, other) = (world(1), world(1000));
    let (mine, theirs) = (folder(&one), folder(&other));
    // With the other's stamp, and with mine.
    let stamp = std::fs::read(mine.join("VERSION")).unwrap();
    for with_stamp in [false, true] {
        std::fs::remove_dir_all(&mine).unwrap();
        copy(&theirs, &mine);
        if with_stamp {
            std::fs::write(mine.join("VERSION"), &stamp).unwrap();
        }
        all_is_right(&one, &format!("another's cache, my stamp {with_stamp}"), u64::from(with_stamp));
    }
}

/// What happens to a file with these bytes.
type Damage<'a> = dyn Fn(&Path, Vec<u8>) + 'a;

#[test]
fn each_file_of_the_cache_cut_short_or_garbage() {
    let world = world(2);
    copy(&world.path("cache"), &world.path("kept"));
    let names: Vec<PathBuf> = files(&world.path("cache")).into_keys().collect();
    let mut turn = 0;
    let mut try_with = |what: &str, damage: &Damage<'_>, names: &[PathBuf]| {
        std::fs::remove_dir_all(world.path("cache")).unwrap();
        copy(&world.path("kept"), &world.path("cache"));
        for name in names {
            let path = world.path("cache").join(name);
            let bytes = std::fs::read(&path).unwrap();
            damage(&path, bytes);
        }
        turn += 1;
        all_is_right(&world, &format!("{what} {names:?}"), turn);
    };
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    let half = |path: &Path, bytes: Vec<u8>| write(path, &bytes[..bytes.len() / 2]);
    let empty = |path: &Path, _: Vec<u8>| write(path, &[]);
    let garbage = |path: &Path, bytes: Vec<u8>| write(path, &Random(9).bytes(bytes.len()));
    let flip = |path: &Path, mut bytes: Vec<u8>| {
        let at = bytes.len() / 2;
        // The lock has no bytes.
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 4;
        }
        write(path, &bytes);
    };
    let gone = |path: &Path, _: Vec<u8>| std::fs::remove_file(path).unwrap();
    let folder = |path: &Path, _: Vec<u8>| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    };
    let damages: [(&str, &Damage<'_>); 6] = [
        ("half", &half),
        ("empty", &empty),
        ("garbage", &garbage),
        ("flip", &flip),
        ("gone", &gone),
        ("folder", &folder),
    ];
    for (turn, (what, damage)) in damages.into_iter().enumerate() {
        // Another third of the files for each damage.
        for name in names.iter().skip(turn % share(3, 1)).step_by(share(3, 1)) {
            try_with(what, damage, std::slice::from_ref(name));
        }
        try_with(what, damage, &names);
    }
}

#[test]
fn the_cache_deleted_between_commands() {
    let world = world(3);
    for turn in 0..2 {
        std::fs::remove_dir_all(world.path("cache")).unwrap();
        all_is_right(&world, "no cache", turn);
        std::fs::remove_dir_all(folder(&world).join("index")).unwrap();
        all_is_right(&world, "no index tables", 10 + turn);
        std::fs::remove_dir_all(folder(&world).join("files")).unwrap();
        all_is_right(&world, "no files cache", 20 + turn);
    }
}

#[test]
fn a_cache_that_cannot_be_written() {
    let world = world(4);
    // A file where the folder should be: the command goes on without a cache, and says so.
    world.write("plain", "not a folder");
    let ran = world.run(["snapshots", "--cache-dir", "plain"]);
    assert!(ran.code == 0 && ran.stderr.contains("No cache is used") && ran.stderr.contains("--no-cache"), "{ran:?}");
    // A read-only file system: with the index of before, and with a snapshot that the cache has not seen.
    let script = r#"
        mount -t tmpfs none /mnt 2>/dev/null || { echo left out; exit 0; }
        mount --bind -o ro cache cache
        for turn in 1 2; do
            for command in "check -q --read-data" "backup -q source" "restore -q latest -t out$turn"; do
                code=0; "$FIRN" $command 2>said || code=$?
                if [ $code != 0 ] && ! grep -q -e --no-cache said; then echo "$command: $code"; cat said; fi
                if grep -q panicked said; then cat said; fi
            done
            echo "more $turn" > source/more
            "$FIRN" backup -q --no-cache source
        done
        "$FIRN" check -q --read-data --no-cache
        echo done
    "#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc", &format!("{ALONE}{script}")]);
    world.surround(&mut command, &[("FIRN", Some(FIRN))]);
    let ran = Ran::from(command.output().unwrap());
    assert!(ran.stdout == "done\n" || ran.stdout == "left out\n" || ran.stderr.contains("unshare"), "{ran:?}");
}
