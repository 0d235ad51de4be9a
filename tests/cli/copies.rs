//! Damage, told by one command and mended by the next: what one machine knows must not cost another one's data, and the command that is
//! named is the one that helps. Not for: which copies may go (see the library's tests of `prune`).

use crate::support::run::{Ran, World, patch};
use std::path::{Path, PathBuf};

fn noise(seed: u32, length: u32) -> Vec<u8> {
    let next = |number: u32| (number ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761).rotate_left(13);
    (0..length / 4).flat_map(|number| next(next(number)).to_le_bytes()).collect()
}

fn flip_two_bytes(pack: &Path) {
    patch(pack, 5000, |byte| byte ^ 1);
    patch(pack, 5001, |byte| byte ^ 0x80);
}

/// The one pack of data that is not among these.
fn new_pack(world: &World, before: &[PathBuf]) -> PathBuf {
    let packs = world.objects("data");
    packs.into_iter().find(|pack| !before.contains(pack)).unwrap()
}

fn prunes(world: &World, arguments: &[&str]) -> Ran {
    let mut line = vec!["prune", "--yes-really", "--revoke-after", "1s"];
    line.extend(arguments);
    world.run(line).succeeds()
}

/// A machine has found damage, and a backup has healed it; then one that knows nothing of either prunes.
#[test]
fn a_prune_without_this_machines_cache_keeps_the_good_copy() {
    let lost: [fn(&World) -> Vec<String>; 4] = [
        |world| vec!["--cache-dir".into(), world.text("fresh")],
        |_| vec!["--no-cache".into()],
        |world| {
            std::fs::remove_dir_all(world.path("cache")).unwrap();
            vec![]
        },
        // Whoever keeps the store has hidden what the other machine said.
        |world| {
            world.objects("damage").iter().for_each(|object| std::fs::remove_file(object).unwrap());
            vec!["--cache-dir".into(), world.text("fresh")]
        },
    ];
    for lose in lost {
        for seed in 0..2 {
            let world = World::with_key_file();
            world.write("source/random", noise(seed, 400_000));
            world.run(["backup", "-q", "source"]).succeeds();
            let damaged = world.objects("data")[0].clone();
            flip_two_bytes(&damaged);
            world.run(["check", "-q", "--read-data"]).fails(5, &[]);
            world.run(["backup", "-q", "source"]).succeeds();
            let arguments = lose(&world);
            prunes(&world, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(!damaged.exists());
            for (number, snapshot) in ["latest", "latest~1"].iter().enumerate() {
                let target = format!("out{number}");
                world.run(["restore", snapshot, "-t", &target]).succeeds();
                let restored = world.path(&target).join(world.path("source/random").strip_prefix("/").unwrap());
                assert!(std::fs::read(restored).unwrap() == noise(seed, 400_000));
            }
            world.run(["check", "--read-data"]).succeeds();
            assert_eq!(world.objects("damage").len(), 0);
        }
    }
}

/// Only a forgotten snapshot needs what cannot be read.
#[test]
fn where_nothing_is_lost_check_names_the_prune() {
    let world = World::with_key_file();
    world.write("source/random", noise(1, 400_000));
    world.run(["backup", "-q", "source"]).succeeds();
    let damaged = world.objects("data")[0].clone();
    world.write("source/random", noise(2, 400_000));
    world.run(["backup", "-q", "source"]).succeeds();
    flip_two_bytes(&damaged);
    // As long as a snapshot needs it, no prune helps.
    let found = world.run(["check", "--read-data"]).fails(5, &[]).stdout;
    assert!(found.contains("Run a backup") && !found.contains("firn prune"), "{found}");
    world.run(["repair", "packs"]).fails(5, &[]);
    world.run(["forget", "-q", "latest~1"]).succeeds();
    let found = world.run(["check", "--read-data"]).fails(4, &[]).stdout;
    assert!(found.contains("Run \"firn prune\"") && !found.contains("Run a backup"), "{found}");
    let part = world.run(["check", "--read-data", "latest"]).fails(4, &[]).stdout;
    assert!(!part.contains("firn prune"), "what others need was not looked at: {part}");
    let kept = world.run(["repair", "packs"]).fails(4, &[]).stdout;
    assert!(kept.contains("Run \"firn prune\"") && damaged.exists(), "{kept}");
    // It can still be undeleted, so it stays for a while; this is what was said.
    prunes(&world, &[]);
    assert!(damaged.exists());
    world.run(["check", "-q"]).fails(4, &[]);
    prunes(&world, &["--keep-deleted", "0s"]);
    assert!(!damaged.exists());
    let clean = world.run(["check", "--read-data"]).succeeds().stdout;
    assert!(clean.ends_with("Everything is there and undamaged\n"), "{clean}");
}

/// The damaged pack also holds the only copy of what a snapshot needs, in another block.
#[test]
fn what_can_be_read_of_a_damaged_pack_is_saved_before_the_prune() {
    let world = World::with_key_file();
    (0..20).for_each(|number| world.write(&format!("source/file{number}"), noise(10 + number, 200_000)));
    world.run(["backup", "-q", "source"]).succeeds();
    let first = world.objects("data");
    let damaged = first.iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    assert!(damaged.metadata().unwrap().len() > 400_000, "it holds several files");
    flip_two_bytes(damaged);
    let found = world.run(["check", "--read-data", "--json"]).fails(5, &[]).json();
    let lost = found.iter().find(|finding| finding["severity"] == "lost").unwrap();
    assert_eq!(lost["affected_total"], 1);
    let hit = lost["affected"][0]["path"].as_str().unwrap();
    assert_eq!(world.objects("damage").len(), 1);
    // Someone puts the pack back; otherwise the next backup would store all of it again.
    flip_two_bytes(damaged);
    world.run(["check", "--read-data"]).succeeds();
    assert_eq!(world.objects("damage").len(), 0);
    std::fs::remove_file(hit).unwrap();
    world.run(["backup", "-q", "source"]).succeeds();
    world.run(["forget", "-q", "latest~1"]).succeeds();
    assert_eq!(world.objects("data"), first);
    flip_two_bytes(damaged);
    let found = world.run(["check", "--read-data"]).fails(4, &[]).stdout;
    assert!(found.contains("Run \"firn repair packs\"") && found.contains("\"firn prune\""), "{found}");
    let kept = world.run(["repair", "packs"]).fails(4, &[]).stdout;
    assert!(kept.contains("saved ") && kept.contains("Run \"firn prune\""), "{kept}");
    let saved = new_pack(&world, &first);
    let found = world.run(["check", "--read-data"]).fails(4, &[]).stdout;
    assert!(found.contains("Run \"firn prune\""), "{found}");
    prunes(&world, &["--keep-deleted", "0s"]);
    assert!(!damaged.exists() && saved.exists());
    world.run(["check", "--read-data"]).succeeds();
    world.run(["restore", "latest", "-t", "out", "--verify"]).succeeds();
}

#[test]
fn repairing_leaves_a_pinned_snapshot_and_says_so() {
    let world = World::with_key_file();
    world.write("source/random", noise(5, 400_000));
    world.write("source/small", "whole\n".repeat(50));
    world.run(["backup", "-q", "source"]).succeeds();
    let id = world.run(["snapshots", "--json"]).succeeds().json()[0]["snapshot_id"].as_str().unwrap().to_owned();
    world.run(["pin", "-q", &id]).succeeds();
    std::fs::remove_file(world.path("source/random")).unwrap();
    // Which pack holds which file, and comes first, is random.
    let packs = world.objects("data").into_iter();
    flip_two_bytes(&packs.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap());
    world.run(["check", "-q", "--read-data"]).fails(5, &[]);
    let done = world.run(["repair", "snapshots", "--forget"]).fails(5, &[]).stdout;
    assert!(done.contains("is pinned and stays") && !done.contains("Forgot the snapshot"), "{done}");
    let list = || world.run(["snapshots", "--json"]).succeeds().stdout;
    assert!(list().contains(&id));
    // The words name what helps.
    world.run(["unpin", "-q", &id]).succeeds();
    let done = world.run(["repair", "snapshots", "--forget"]).fails(5, &[]).stdout;
    assert!(done.contains("Forgot the snapshot"), "{done}");
    assert_eq!(world.run(["snapshots", "--json"]).succeeds().json().len(), 1);
    assert_eq!(world.objects("tombs").len(), 1);
}

#[test]
fn a_damaged_snapshot_that_was_forgotten_is_no_failure() {
    let world = World::with_key_file();
    world.write("source/small", "one");
    world.run(["backup", "-q", "source"]).succeeds();
    let damaged = world.objects("snapshots")[0].clone();
    world.write("source/small", "two");
    world.run(["backup", "-q", "source"]).succeeds();
    patch(&damaged, 100, |byte| byte ^ 1);
    world.run(["snapshots"]).fails(3, &["Error: The snapshot"]);
    let name = damaged.file_name().unwrap().to_str().unwrap();
    world.run(["forget", "-q", name]).succeeds();
    let list = world.run(["snapshots"]).succeeds();
    assert!(list.stdout.contains("1 snapshot") && list.stderr.is_empty(), "{list:?}");
    prunes(&world, &["--keep-deleted", "0s"]);
    assert!(!damaged.exists());
    world.run(["check", "--read-data"]).succeeds();
}
