//! Commands about the repository itself, and what they say about damage.

use crate::support::run::{World, patch};

fn world_with_snapshot() -> World {
    let world = World::with_repository();
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    world.write("source/random", bytes);
    world.run(["backup", "-q", "source"]).succeeds();
    world
}

#[test]
fn a_whole_repository_checks_clean() {
    let world = world_with_snapshot();
    assert!(world.run(["check"]).succeeds().stdout.contains("the data itself was not read"));
    assert!(world.run(["check", "--read-data"]).succeeds().stdout.ends_with("Everything is there and undamaged\n"));
    let quiet = world.run(["check", "-q"]).succeeds();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    let lines = world.run(["check", "--json"]).succeeds().json();
    assert_eq!(lines.last().unwrap()["error_count"], 0);
}

#[test]
fn lost_data_is_named() {
    let world = world_with_snapshot();
    std::fs::remove_file(&world.objects("data")[0]).unwrap();
    let ran = world.run(["check", "-q"]).fails(5, &[]);
    assert!(ran.stdout.contains("Lost: ") && ran.stdout.contains("source/random"), "{ran:?}");
    let lines = world.run(["check", "--json"]).fails(5, &[]).json();
    let finding = lines.iter().find(|line| line["severity"] == "lost").unwrap();
    assert_eq!(finding["affected"][0]["path"], world.text("source/random"));
    world.run(["dump", &format!("latest:{}", world.text("source/random"))]).fails(5, &["was not written completely"]);
    world.run(["restore", "latest", "-t", "out"]).fails(5, &["random", "The restore is not complete"]);
}

#[test]
fn a_lost_index_is_written_again() {
    let world = world_with_snapshot();
    for segment in world.objects("index") {
        patch(&segment, 100, |byte| byte ^ 1);
    }
    world.run(["check"]).fails(4, &[]);
    let said = world.run(["repair", "index", "-n"]).succeeds().stdout;
    assert!(said.contains("Would write"), "{said}");
    world.run(["check"]).fails(4, &[]);
    world.run(["repair", "index"]).succeeds();
    world.run(["check", "--read-data"]).succeeds();
}

/// What only this machine's tables still know of the index is no ground for a snapshot.
#[test]
fn a_backup_does_not_rely_on_index_segments_that_only_its_cache_has() {
    for is_cut in [false, true] {
        let world = world_with_snapshot();
        for segment in world.objects("index") {
            let length = std::fs::metadata(&segment).unwrap().len();
            std::fs::write(&segment, vec![0; if is_cut { 10 } else { length as usize }]).unwrap();
        }
        let ran = world.run(["backup", "source"]).succeeds();
        assert!(ran.stderr.contains("The index segment") && ran.stderr.contains("firn repair index"), "{ran:?}");
        // On another machine, and nothing was stored twice.
        let elsewhere = ["--cache-dir", "elsewhere"];
        world.run(["restore", "-q", "latest", "-t", "out"].iter().chain(&elsewhere)).succeeds();
        assert_eq!(world.objects("data").len(), 1);
        world.run(["check", "-q"].iter().chain(&elsewhere)).fails(4, &[]);
        world.run(["repair", "index", "-q"]).succeeds();
        world.run(["check", "-q", "--read-data"]).succeeds();
        // What is as it was read is not read again.
        let quiet = world.run(["backup", "-q", "source"]).succeeds();
        assert!(quiet.stderr.is_empty(), "{quiet:?}");
    }
}

/// Every step follows what the one before has said.
#[test]
fn damage_is_found_healed_by_the_next_backup_and_cleaned_up() {
    let world = world_with_snapshot();
    let pack = world.objects("data")[0].clone();
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    patch(&pack, 5000, |byte| byte ^ 1);
    let found = world.run(["check", "--read-data"]).fails(5, &[]);
    assert!(found.stdout.contains("source/random") && found.stdout.contains("Run a backup"), "{found:?}");
    let kept = world.run(["repair", "packs"]).fails(5, &[]);
    assert!(kept.stdout.contains(&name) && kept.stdout.contains("It stays"), "{kept:?}");
    assert!(kept.stdout.contains("Run a backup"), "{kept:?}");
    world.run(["backup", "-q", "source"]).succeeds();
    // Now what is damaged is also stored elsewhere.
    world.run(["check", "--read-data"]).fails(4, &[]);
    let plan = world.run(["repair", "packs", "-n"]).succeeds().stdout;
    assert!(plan.contains("Would be removed") && pack.exists(), "{plan}");
    let done = world.run(["repair", "packs", &name[..12]]).succeeds().stdout;
    assert!(done.contains("Removed") && !pack.exists(), "{done}");
    let clean = world.run(["check", "--read-data"]).succeeds().stdout;
    assert!(clean.ends_with("Everything is there and undamaged\n"), "{clean}");
    world.run(["restore", "latest~1", "-t", "out"]).succeeds();
    let said = world.run(["repair", "packs"]).succeeds().stdout;
    assert!(said.contains("No pack is known to be damaged"), "{said}");
}

#[test]
fn a_snapshot_is_written_anew_without_what_is_lost() {
    let world = world_with_snapshot();
    world.write("source/small", "whole\n".repeat(50));
    world.run(["backup", "-q", "source"]).succeeds();
    // The large file is in the first pack.
    let pack = world.objects("data").into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    patch(&pack, 5000, |byte| byte ^ 1);
    world.run(["check", "--read-data"]).fails(5, &[]);
    std::fs::remove_file(world.path("source/random")).unwrap();
    let plan = world.run(["repair", "snapshots", "-n"]).fails(5, &[]).stdout;
    assert!(plan.contains("Would write") && plan.contains("source/random: Its content"), "{plan}");
    let done = world.run(["repair", "snapshots", "--forget"]).fails(5, &[]).stdout;
    assert!(done.contains("Wrote the snapshot") && done.contains("Forgot the snapshot"), "{done}");
    let list = world.run(["ls", &format!("latest:{}", world.text("source"))]).succeeds().stdout;
    assert!(list.contains("small") && !list.contains("random"), "{list}");
    world.run(["repair", "snapshots"]).succeeds();
    world.run(["restore", "latest", "-t", "out"]).succeeds();
}

#[test]
fn a_part_of_the_data_or_of_the_snapshots_is_checked() {
    let world = world_with_snapshot();
    let said = world.run(["check", "--read-data-subset", "100%"]).succeeds().stdout;
    assert!(said.contains("what was read is undamaged"), "{said}");
    let again = world.run(["check", "--max-age", "1d", "--json"]).succeeds().json().pop().unwrap();
    assert!(again["packs_recent"].as_u64() > Some(0) && again["complete"] == true, "{again}");
    let none = world.run(["check", "--max-time", "0s"]).succeeds().stdout;
    assert!(none.contains("The time was over"), "{none}");
    world.run(["check", "latest", "--read-data"]).succeeds();
    world.run(["check", "ffffffff"]).fails(1, &["There is no snapshot"]);
    world.run(["check", "--read-data-subset", "9/7"]).fails(2, &["is no part of the data"]);
}

#[test]
fn a_scrub_needs_no_password_and_remembers() {
    let world = world_with_snapshot();
    let scrub = |arguments: &[&str]| {
        let mut line = vec!["scrub", "--password-file", "/nowhere"];
        line.extend(arguments);
        world.run(line)
    };
    let first = scrub(&["--json", "--max-age", "1d"]).succeeds().json().pop().unwrap();
    assert_eq!((&first["error_count"], &first["objects_recent"]), (&0.into(), &0.into()));
    assert_eq!(first["objects_read"], first["objects"]);
    let second = scrub(&["--json", "--max-age", "1d"]).succeeds().json().pop().unwrap();
    assert_eq!((&second["objects_read"], &second["objects_recent"]), (&0.into(), &first["objects"]));
    let pack = &world.objects("data")[0];
    patch(pack, 5000, |byte| byte ^ 1);
    let ran = scrub(&["-q"]).fails(5, &[]);
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(ran.stdout.contains(name) && ran.stdout.contains("a pack of file content"), "{ran:?}");
    assert!(ran.stdout.contains("Hint: If there is a copy"), "{ran:?}");
    for segment in world.objects("index") {
        patch(&segment, 100, |byte| byte ^ 1);
    }
    patch(pack, 5000, |byte| byte ^ 1);
    scrub(&["--max-time", "1h"]).fails(4, &[]);
    let none = scrub(&["--max-time", "0s"]).succeeds().stdout;
    assert!(none.contains("The time was over before"), "{none}");
    scrub(&["--max-time", "soon"]).fails(2, &["is no span of time"]);
}

#[test]
fn stats() {
    let world = world_with_snapshot();
    let table = world.run(["stats", "--deep"]).succeeds().stdout;
    assert!(table.contains("Size of latest") && table.contains("391 KiB"), "{table}");
    let stats = &world.run(["stats", "--json"]).succeeds().json()[0];
    assert_eq!((&stats["snapshots_count"], &stats["total_restore_size"]), (&1.into(), &400_000.into()));
}

#[test]
fn mounting_in_the_background() {
    if crate::support::without_fuse() {
        return;
    }
    let world = world_with_snapshot();
    std::fs::create_dir(world.path("past")).unwrap();
    let said = world.run(["mount", "--daemon", "past"]).succeeds().stdout;
    assert!(said.starts_with("Mounted on \"past\""), "{said}");
    let file = world.path("past").join("latest").join(world.path("source/random").strip_prefix("/").unwrap());
    let same = std::fs::read(file).unwrap() == std::fs::read(world.path("source/random")).unwrap();
    let again = world.run(["mount", "--daemon", "past"]);
    world.run(["umount", "past"]).succeeds();
    assert!(same && again.code == 11, "{again:?}");
    world.run(["mount", "-d", "past", "latest~5"]).fails(1, &["goes back too far"]);
    // Without a cache on disk, the waiting process must not take the temporary one away.
    world.run(["mount", "--daemon", "--no-cache", "past", "latest", "-q"]).succeeds();
    let below = world.path("past").join(world.path("source").strip_prefix("/").unwrap());
    let listed = std::fs::read_dir(below).map(Iterator::count);
    world.run(["umount", "past"]).succeeds();
    assert_eq!(listed.unwrap(), 1);
}

#[test]
fn a_prune_removes_what_killed_writers_left_of_objects() {
    let world = world_with_snapshot();
    let temporary = |folder: &str, digit: &str, days: u64| {
        let path = format!("repository/{folder}/.firn-{}.tmp", digit.repeat(32));
        world.write(&path, "part");
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
        std::fs::File::options().write(true).open(world.path(&path)).unwrap().set_modified(time).unwrap();
        world.path(&path)
    };
    let old = [temporary("data/0f", "1", 8), temporary("snapshots", "2", 8), temporary("tree/ff", "3", 30)];
    let young = [temporary("data/0f", "4", 6), temporary("pins", "5", 0)];
    let dry = world.run(["prune", "-n", "--json"]).succeeds().json();
    assert_eq!(dry.last().unwrap()["temporary_files_removed"], 0);
    assert!(old.iter().chain(&young).all(|path| path.exists()));
    let lines = world.run(["prune", "--json"]).succeeds().json();
    assert_eq!(lines.last().unwrap()["temporary_files_removed"], 3);
    assert!(young.iter().all(|path| path.exists()) && !old.iter().any(|path| path.exists()));
    world.run(["prune", "-q", "--revoke-after=1h"]).succeeds();
    assert!(!young[0].exists() && young[1].exists());
}
