//! What `firn du` says, and whether forgetting frees what it promises.

use crate::support::run::World;
use serde_json::Value;
use std::path::Path;

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Three snapshots: something stays, something changes each time, large and small.
fn world() -> World {
    let world = World::with_key_file();
    world.write("source/stays/large", noise(1, 900_000));
    for number in 0..40 {
        world.write(&format!("source/stays/small{number}"), noise(100 + number, 3_000));
    }
    for round in 0..3u64 {
        world.write("source/changes/large", noise(10 + round, 400_000));
        for number in 0..20 {
            world.write(&format!("source/changes/small{number}"), noise(1_000 + round * 100 + number, 2_000));
        }
        world.write("source/tiny", [round as u8]);
        world.backup(0, ["source"]);
    }
    world
}

fn rows(world: &World, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["du", "--json"];
    all.extend(arguments);
    world.run(all).succeeds().json()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name}: {value}"))
}

fn stored(world: &World) -> u64 {
    let sizes = ["data", "tree"].map(|kind| world.objects(kind));
    sizes.iter().flatten().map(|path| std::fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn sizes_of_snapshots_and_paths() {
    let world = world();
    let all = rows(&world, &[]);
    assert_eq!((all.len(), &all[3]["message_type"], &all[3]["snapshots_count"]), (4, &"summary".into(), &3.into()));
    let together = number(&all[3], "stored_size");
    assert!(together <= stored(&world) && together > 900_000 + 120_000 + 3 * 440_000, "{together}");
    let mut unique = 0;
    for row in &all[..3] {
        let files: u64 = sizes_in(&world.path("source"));
        assert_eq!((number(row, "restore_size"), number(row, "file_count")), (files, 63));
        assert!(number(row, "stored_size") < together && number(row, "unique_size") >= 440_000, "{row}");
        unique += number(row, "unique_size");
    }
    assert!(unique < together);
    // What stays is in all, so that it is nobody's alone.
    let stays = world.text("source/stays");
    let paths = rows(&world, &[&format!(":{stays}")]);
    assert_eq!(paths.len(), 4);
    assert!(paths[..3].iter().all(|row| number(row, "unique_size") == 0 && number(row, "stored_size") > 1_020_000));
    let deep = rows(&world, &["-d", "2", &format!("latest:{}", world.text("source"))]);
    let names: Vec<&str> = deep.iter().filter_map(|row| row["path"].as_str()).collect();
    assert_eq!(
        (names.len(), names[0], names[1]),
        (1 + 3 + 21 + 41, &*world.text("source"), &*world.text("source/changes"))
    );
    let of = |name: &str| deep.iter().find(|row| row["path"] == world.text(name)).unwrap();
    assert_eq!(number(of("source/tiny"), "stored_size"), 0, "it is kept in the page of its folder");
    let large = number(of("source/changes/large"), "stored_size");
    assert!((400_000..400_500).contains(&large), "{large}");
    assert_eq!(large, number(of("source/changes/large"), "unique_size"));
    let parts: u64 = deep[2..23].iter().map(|row| number(row, "stored_size")).sum();
    let whole = number(of("source/changes"), "stored_size");
    assert!(parts <= whole && whole < parts + 20_000, "{parts} {whole}: a folder has its pages as well");
    // For people: a line each, the last column as other commands take it.
    let said = world.run(["du", "latest", "latest~1"]).succeeds().stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0].split_whitespace().last()), (4, Some("Snapshot")), "{said}");
    assert!(lines[1].ends_with(":/") && lines[3].ends_with("3 snapshots"), "{said}");
    world.run(["ls", lines[1].split_whitespace().last().unwrap()]).succeeds();
    world.run(["du", ":/nothing"]).fails(1, &["in no snapshot"]);
    world.run(["du", "latest:/nothing"]).fails(1, &["/nothing"]);
    world.run(["du", "-H", "elsewhere"]).fails(1, &["no snapshot with the host \"elsewhere\""]);
}

fn sizes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| if entry.path().is_dir() { sizes_in(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

#[test]
fn forgetting_frees_what_is_unique() {
    for victim in ["latest", "latest~1", "latest~2"] {
        let world = world();
        let promised = number(&rows(&world, &[victim])[0], "unique_size");
        let before = stored(&world);
        world.run(["forget", "-q", victim]).succeeds();
        world.run(["prune", "-q", "--max-unused", "0", "--max-repack", "unlimited", "--keep-deleted", "0s"]).succeeds();
        let freed = before - stored(&world);
        // Packs are padded by up to 6 %, and blocks written again are not quite as long as their parts were.
        assert!(freed.abs_diff(promised) < promised / 10, "{victim}: {promised} promised, {freed} freed");
    }
    let world = World::with_key_file();
    world.write("source/file", noise(1, 300_000));
    world.backup(0, ["source"]);
    let only = &rows(&world, &[])[0];
    assert_eq!(number(only, "unique_size"), number(only, "stored_size"));
}

#[test]
fn damage_is_told_and_the_rest_counted() {
    let world = world();
    let first = world.objects("tree").len();
    world.write("source/tiny", "more");
    world.backup(0, ["source"]);
    assert!(world.objects("tree").len() > first);
    // Newest first: only the last snapshot needs its pages.
    let newest =
        world.objects("tree").into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap());
    std::fs::remove_file(newest.unwrap()).unwrap();
    let ran = world.run(["du", "--json"]).fails(3, &["cannot be read"]);
    let all = ran.json();
    let incomplete: Vec<bool> = all[..4].iter().map(|row| row["incomplete"] == true).collect();
    assert_eq!(incomplete, [false, false, false, true], "{ran:?}");
    assert_eq!(ran.json_errors().len(), 1);
    let said = world.run(["du", "latest"]).fails(3, &[]).stdout;
    assert_eq!(said.lines().nth(1).unwrap().matches('>').count(), 2, "{said}");
}
