//! Forgetting, undeleting, pinning and pruning as a person does it, and whether policies mean what they mean to restic.

// Its figures are collected.
#![allow(clippy::print_stdout)]

use crate::support::run::{Ran, World};
use crate::support::share;
use std::collections::BTreeSet;
use std::process::Command;

/// A day's number as a time that both programs take.
fn time(hour: u64) -> String {
    // From 2024-01-01 on, without a calendar: `date` knows it.
    let seconds = 1_704_067_200 + hour * 3600;
    let date = Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d %H:%M:%S"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

fn ids(ran: &Ran) -> Vec<String> {
    ran.json().iter().map(|line| line["snapshot_id"].as_str().unwrap().to_owned()).collect()
}

fn three() -> (World, Vec<String>) {
    let world = World::with_repository();
    for number in 0..3 {
        world.write("source/file", format!("version {number}\n").repeat(100));
        world.write(&format!("source/only-{number}"), vec![number as u8; 1000]);
        world.run(["backup", "-q", "source", "--time", &time(24 * number)]).succeeds();
        std::fs::remove_file(world.path(&format!("source/only-{number}"))).unwrap();
    }
    let ids = ids(&world.run(["snapshots", "--json"]).succeeds());
    (world, ids)
}

#[test]
fn what_is_forgotten_comes_back_until_it_is_pruned() {
    let (world, all) = three();
    let said = world.run(["forget", &all[0][..8]]).succeeds().stdout;
    assert!(said.starts_with("Forgot ") && said.contains(&all[0][..8]), "{said}");
    assert_eq!(ids(&world.run(["snapshots", "--json"]).succeeds()), all[1..]);
    let forgotten = world.run(["snapshots", "--forgotten", "--json"]).succeeds();
    assert_eq!(ids(&forgotten), all[..1]);
    assert!(forgotten.json()[0]["forgotten_since"].is_string());
    // A usual prune leaves it alone.
    let said = world.run(["prune"]).succeeds().stdout;
    assert!(said.contains("Can be undeleted:"), "{said}");
    world.run(["undelete", &all[0]]).succeeds();
    assert_eq!(ids(&world.run(["snapshots", "--json"]).succeeds()), all);
    world.run(["undelete", &all[0]]).fails(1, &["is not forgotten"]);
    world.run(["forget", "-q", "latest~2"]).succeeds();
    let plan = world.run(["prune", "-n", "--keep-deleted", "0s"]).succeeds().stdout;
    assert!(plan.contains("Would free:") && plan.contains("Forgotten for good:  1 snapshot"), "{plan}");
    assert_eq!(ids(&world.run(["snapshots", "--forgotten", "--json"]).succeeds()), all[..1]);
    let quiet = world.run(["prune", "-q", "--keep-deleted", "0s"]).succeeds();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    world.run(["undelete", &all[0]]).fails(1, &["No forgotten snapshot"]);
    assert!(world.run(["undelete", "--all"]).succeeds().stdout.contains("no forgotten snapshots"));
    world.run(["check", "--read-data", "-q"]).succeeds();
    world.run(["restore", "-q", "latest", "-t", "out"]).succeeds();
}

/// An older copy of the repository, or of a part of it, is put over this one.
#[test]
fn a_tomb_that_was_taken_back_and_comes_again_does_not_count() {
    let (world, all) = three();
    let tomb = world.path(&format!("repository/tombs/{}", all[0]));
    world.run(["forget", "-q", &all[0]]).succeeds();
    let bytes = std::fs::read(&tomb).unwrap();
    world.run(["undelete", "-q", &all[0]]).succeeds();
    let marker = world.objects("tombs");
    assert_eq!(marker.len(), 1);
    std::fs::write(&tomb, &bytes).unwrap();
    let words = ["was taken back with \"firn undelete\"", "does not count"];
    let still_there = |world: &World, what: &str, more: &[&str]| {
        let ran = world.run(["check", "-q"].iter().chain(more)).fails(4, &[]);
        assert!(words.iter().all(|word| ran.stdout.contains(word)), "{what}: {ran:?}");
        let listed = world.run(["snapshots", "--json"].iter().chain(more)).succeeds();
        assert_eq!(ids(&listed)[..3], all[..], "{what}");
    };
    // Any machine notices.
    still_there(&world, "stranger", &["--cache-dir", "elsewhere"]);
    // If what says so is taken away, the machine that has seen it notices.
    let kept = std::fs::read(&marker[0]).unwrap();
    std::fs::remove_file(&marker[0]).unwrap();
    still_there(&world, "this machine", &[]);
    // And whoever sees a snapshot that was made since.
    world.run(["backup", "-q", "source", "--time", &time(100)]).succeeds();
    still_there(&world, "stranger without marker", &["--cache-dir", "another"]);
    std::fs::write(&marker[0], kept).unwrap();
    // A prune keeps the snapshot, and the tomb: a new one could have taken its place. Undeleting takes it away.
    world.run(["prune", "-q", "--keep-deleted", "0s", "--cache-dir", "third"]).succeeds();
    assert!(tomb.exists());
    world.run(["undelete", &all[0]]).succeeds();
    assert!(!tomb.exists());
    let target = format!("{}:{}", all[0], world.text("source"));
    world.run(["restore", "-q", &target, "-t", "out"]).succeeds();
    let quiet = world.run(["check", "-q", "--read-data"]).succeeds();
    assert!(quiet.stdout.is_empty(), "{quiet:?}");
    // Forgetting it anew does count, also where the old tomb is in the way.
    std::fs::write(&tomb, &bytes).unwrap();
    world.run(["forget", "-q", &all[0]]).succeeds();
    assert_eq!(ids(&world.run(["snapshots", "--forgotten", "--json"]).succeeds()), all[..1]);
    world.run(["prune", "-q", "--keep-deleted", "0s"]).succeeds();
    assert!(!world.path(&format!("repository/snapshots/{}", all[0])).exists());
}

#[test]
fn pins_and_brakes_hold() {
    let (world, all) = three();
    world.run(["pin", "latest~2"]).succeeds();
    assert!(world.run(["snapshots"]).succeeds().stdout.contains("pinned"));
    world.run(["forget", &all[0]]).fails(6, &["is pinned", "firn unpin"]);
    let said = world.run(["forget", "--keep-last", "1", "--explain"]).succeeds().stdout;
    assert!(
        said.contains("pinned") && said.contains("no rule keeps it") && said.contains("last snapshot (1 of 1)"),
        "{said}"
    );
    assert_eq!(ids(&world.run(["snapshots", "--json"]).succeeds()).len(), 2);
    world.run(["unpin", &all[0]]).succeeds();
    world.run(["unpin", &all[0]]).fails(1, &["is not pinned"]);
    world.run(["forget", "--keep-tag", "nothing"]).fails(6, &["would forget all 2 snapshots", "--yes-really"]);
    world.run(["forget", "latest", "latest~1"]).fails(6, &["would forget all snapshots"]);
    world.run(["forget"]).fails(2, &["Nothing says which", "--keep-daily"]);
    world.run(["forget", "latest", "--keep-last", "1"]).fails(2, &["Give one or the other"]);
    world.run(["forget", "--keep-daily", "0"]).fails(2, &["keeping none is no rule"]);
    world.run(["forget", "--keep-within", "soon"]).fails(2, &["is no stretch of time"]);
    world.run(["forget", "--keep-last", "1", "-g", "size"]).fails(2, &["nothing to group by"]);
    world.run(["forget", "ffff"]).fails(1, &["There is no snapshot \"ffff\""]);
    world.run(["prune", "--max-unused", "5"]).fails(2, &["is no limit"]);
    let said = world.run(["forget", "--keep-last", "1", "--prune", "--keep-deleted", "0s"]).succeeds().stdout;
    assert!(said.contains("forgot 1") && said.contains("Freed:"), "{said}");
    assert_eq!(ids(&world.run(["snapshots", "--json"]).succeeds()), all[2..]);
    world.run(["check", "--read-data", "-q"]).succeeds();
}

/// The whole repository, in bytes on the disk.
fn stored(world: &World) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1", &world.text("repository")]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// The times of snapshots that are kept for nothing but being the oldest.
fn only_oldest(groups: &serde_json::Value) -> Vec<String> {
    let reasons = groups.as_array().unwrap().iter().flat_map(|group| group["reasons"].as_array().unwrap());
    let is_only = |reason: &&serde_json::Value| {
        reason["matches"].as_array().unwrap().iter().all(|text| text.as_str().unwrap().starts_with("oldest "))
    };
    reasons.filter(is_only).map(|reason| reason["snapshot"]["time"].as_str().unwrap()[..19].replace('T', " ")).collect()
}

/// Both programs, and the times of the snapshots that each would keep.
fn same_as_restic(count: u64, spacing: &[u64]) {
    let world = World::with_key_file();
    let restic = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.args(["-r", &world.text("restic"), "--no-cache", "-q"]).args(arguments);
        command.env("RESTIC_PASSWORD", "x").env("TZ", "UTC").env("HOME", world.path("home"));
        let output = command.output().expect("restic must be installed (.ci/setup bench)");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    restic(&["init"]);
    let (mut hour, mut copies) = (0, Vec::new());
    for number in 0..count {
        hour += spacing[(number % spacing.len() as u64) as usize];
        world.write("source/number", format!("{number} ").repeat(100));
        world.write(&format!("source/{}", number % 7), vec![number as u8; 3000 + number as usize]);
        let tags = if number % 10 == 0 { "ten" } else { "other" };
        world.run(["backup", "-q", "source", "--time", &time(hour), "--tag", tags]).succeeds();
        restic(&["backup", &world.text("source"), "--time", &time(hour), "--tag", tags, "--host", "one"]);
        let name = format!("copies/{number}");
        std::fs::create_dir_all(world.path("copies")).unwrap();
        crate::damage::copy(&world.path("source"), &world.path(&name));
        copies.push((time(hour), name));
    }
    let times = |value: &serde_json::Value, what: &str| -> BTreeSet<String> {
        let groups = value.as_array().unwrap();
        let list = groups.iter().flat_map(|group| group[what].as_array().into_iter().flatten());
        list.map(|snapshot| snapshot["time"].as_str().unwrap()[..19].replace('T', " ")).collect()
    };
    let policies: &[&[&str]] = &[
        &["--keep-daily", "7", "--keep-weekly", "4"],
        &["--keep-last", "5"],
        &["--keep-hourly", "24", "--keep-daily", "30", "--keep-monthly", "12", "--keep-yearly", "10"],
        &["--keep-yearly", "100"],
        &["--keep-monthly", "1", "--keep-tag", "ten"],
        &["--keep-within", "1m7d"],
        &["--keep-within-daily", "14d", "--keep-within-weekly", "2m", "--keep-within-monthly", "1y"],
        &["--keep-weekly", "3", "--keep-last", "2", "--keep-within-hourly", "36h"],
    ];
    for policy in policies {
        let arguments = [&["forget", "--dry-run", "--json"], *policy].concat();
        let ours: serde_json::Value = world.run(&arguments).succeeds().json().into();
        let theirs = restic(&[&["forget", "--dry-run", "--json"], *policy].concat());
        let theirs: serde_json::Value = serde_json::from_str(&theirs).unwrap();
        let (mut keep, mut remove) = (times(&ours, "keep"), times(&ours, "remove"));
        if times(&theirs, "keep") != keep {
            // Before 0.16 restic did not keep the oldest one while a rule had some of its number left.
            for time in only_oldest(&ours) {
                keep.remove(&time);
                remove.insert(time);
            }
        }
        assert_eq!(keep, times(&theirs, "keep"), "{policy:?}");
        assert_eq!(remove, times(&theirs, "remove"), "{policy:?}");
    }
    let before = stored(&world);
    let kept = world.run(["forget", "--json", "--keep-daily", "7", "--keep-weekly", "4"]).succeeds();
    let kept = times(&kept.json().into(), "keep");
    world.run(["prune", "-q", "--keep-deleted", "0s", "--max-unused", "0", "--max-repack", "unlimited"]).succeeds();
    let after = stored(&world);
    assert!(after < before, "{before} {after}");
    world.run(["check", "-q", "--read-data"]).succeeds();
    let listed = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!(listed.len(), kept.len());
    for snapshot in listed {
        let time = snapshot["time"].as_str().unwrap()[..19].replace('T', " ");
        let (_, copy) = copies.iter().find(|(other, _)| *other == time).unwrap();
        drop(std::fs::remove_dir_all(world.path("out")));
        let address = format!("{}:{}", snapshot["snapshot_id"].as_str().unwrap(), world.text("source"));
        world.run(["restore", "-q", &address, "-t", "out"]).succeeds();
        assert_eq!(crate::damage::files(&world.path(copy)), crate::damage::files(&world.path("out")), "{time}");
    }
    println!(
        "policies: {count} snapshots, {} policies as restic, {} kept and restored bit for bit, {before} bytes stored became {after}",
        policies.len(),
        kept.len()
    );
}

#[test]
fn policies_keep_what_restic_keeps() {
    let count = std::env::var("FIRN_POLICY_SNAPSHOTS").map_or(share(20, 40), |text| text.parse().unwrap());
    same_as_restic(count, &[1, 5, 18, 30, 2, 100]);
}
