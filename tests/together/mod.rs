//! Do several processes work on one repository at once without harm? Not for: one process (other folders).

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

mod elsewhere;
mod keys;

use crate::support::compare;
use crate::support::nasty::Random;
use crate::support::run::{Ran, World};
use std::process::{Child, Stdio};

fn start(world: &World, arguments: &[&str]) -> Child {
    world.direct(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn three_trees(world: &World) {
    for tree in 0..3 {
        for number in 0..60 {
            // Half of the files are in all three trees.
            let seed = if number % 2 == 0 { number } else { number + 1000 * tree };
            world.write(&format!("tree{tree}/{}/{number}", number % 5), Random(seed).bytes(40_000));
        }
    }
}

/// Three backups, a check, and a walk through a mount, all at once.
fn all_at_once(separate: bool) {
    let world = World::with_key_file();
    three_trees(&world);
    world.write("before/file", "before");
    world.run(["backup", "-q", "before"]).succeeds();
    let mounts = !crate::support::without_fuse();
    if mounts {
        std::fs::create_dir(world.path("past")).unwrap();
        world.run(["mount", "-q", "--daemon", "past"]).succeeds();
    }
    let caches: Vec<String> =
        (0..3).map(|tree| world.text(&if separate { format!("cache{tree}") } else { "cache".into() })).collect();
    let backup =
        |tree: usize| start(&world, &["backup", "--json", "--cache-dir", &caches[tree], &format!("tree{tree}")]);
    let backups: Vec<Child> = (0..3).map(backup).collect();
    let mut checks = Vec::new();
    while checks.len() < 2 {
        let ran = world.run(["check", "--read-data"]);
        let walked =
            !mounts || std::fs::read_dir(world.path("past").join("snapshots")).is_ok_and(|list| list.count() > 0);
        checks.push((ran, walked));
    }
    let ended: Vec<Ran> = backups.into_iter().map(|child| Ran::from(child.wait_with_output().unwrap())).collect();
    if mounts {
        let file = world.path("past").join("latest");
        let readable = std::fs::read_dir(file).is_ok();
        world.run(["umount", "past"]).succeeds();
        assert!(readable);
    }
    for (check, walked) in checks {
        assert!(check.code == 0 && walked, "{check:?}");
    }
    for (tree, ran) in ended.into_iter().enumerate() {
        let id = ran.succeeds().json().pop().unwrap()["snapshot_id"].as_str().unwrap().to_owned();
        let out = format!("out{tree}");
        world.run(["restore", "-q", &id, "-t", &out]).succeeds();
        let source = world.path(&format!("tree{tree}"));
        let restored = world.path(&out).join(source.strip_prefix("/").unwrap());
        let differences = compare::trees(&source, &restored, compare::Options::default());
        assert!(differences.is_empty(), "{tree}: {differences:?}");
    }
    world.run(["check", "-q", "--read-data"]).succeeds();
}

#[test]
fn with_a_cache_for_each() {
    all_at_once(true);
}

#[test]
fn with_one_cache_for_all() {
    all_at_once(false);
}
