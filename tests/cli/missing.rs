//! Snapshots that vanish without having been forgotten: who says so, and how they are given up.

use crate::support::run::World;

#[test]
fn a_hidden_snapshot_is_missed_by_all_and_can_be_given_up() {
    let world = World::with_key_file();
    let mut ids = Vec::new();
    for number in 0..3 {
        world.write("source/file", format!("{number}"));
        let summary = world.backup(0, ["source"]);
        ids.push(summary["snapshot_id"].as_str().unwrap().to_owned());
    }
    // The newest one: nothing in the repository names it, this machine does.
    let hidden = world.path(&format!("repository/snapshots/{}", ids[2]));
    std::fs::rename(&hidden, world.path("hidden")).unwrap();
    let words = ["of the host \"", "is missing", "this machine has seen it", &ids[2]];
    let ran = world.run(["snapshots", "-v"]).succeeds();
    assert!(words.iter().all(|word| ran.stderr.contains(word)), "{ran:?}");
    let ran = world.run(["check"]).fails(5, &[]);
    assert!(words.iter().all(|word| ran.stdout.contains(word)), "{ran:?}");
    world.run(["prune"]).fails(6, &["Something hides snapshots", &ids[2]]);
    let ran = world.run(["backup", "-q", "source"]).succeeds();
    assert!(ran.stderr.contains("is missing") && !ran.stderr.contains(&ids[2]), "{ran:?}");
    // Now the new snapshot says so to every machine.
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    let ran = world.run(["check"]).fails(5, &[]);
    assert!(ran.stdout.contains(&ids[2]) && ran.stdout.contains("names it"), "{ran:?}");
    world.run(["forget", &ids[2][..12]]).fails(1, &["There is no snapshot"]);
    let said = world.run(["forget", &ids[2]]).succeeds().stdout;
    assert!(said.contains("Forgot the damaged or missing snapshot"), "{said}");
    let quiet = world.run(["check", "-q"]).succeeds();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    world.run(["prune", "-q"]).succeeds();
    let quiet = world.run(["backup", "-q", "source"]).succeeds();
    assert!(quiet.stderr.is_empty(), "{quiet:?}");
}

/// A store that is set back by many snapshots: one sentence in each command, and all of it where it is asked for.
#[test]
fn a_store_that_is_set_back_floods_nothing() {
    let world = World::with_key_file();
    let mut hidden = Vec::new();
    for number in 0..6 {
        world.write("source/file", format!("{number}"));
        let summary = world.backup(0, ["source", "-H", "vm"]);
        hidden.push(summary["snapshot_id"].as_str().unwrap().to_owned());
    }
    for id in &hidden[1..] {
        std::fs::remove_file(world.path(&format!("repository/snapshots/{id}"))).unwrap();
    }
    for command in [&["snapshots"][..], &["snapshots", "-q"], &["backup", "-q", "source", "-H", "vm"]] {
        let said = world.run(command).succeeds().stderr;
        let counts = said.matches("Warning: ").count() == 1 && said.matches("Hint: ").count() == 1;
        assert!(counts && said.contains("of the host \"vm\"") && said.contains("\"firn check\""), "{said}");
        assert!(!said.contains("firn forget") && !said.contains("tomb") && !said.contains("writer"), "{said}");
    }
    let said = world.run(["snapshots", "-v"]).succeeds().stderr;
    assert!(said.matches("Warning: ").count() > 1 && said.contains("firn forget"), "{said}");
}

#[test]
fn a_hidden_snapshot_that_nothing_names_any_more_is_missed_by_its_number() {
    let world = World::with_key_file();
    let mut ids = Vec::new();
    for number in 0..6 {
        world.write("source/file", format!("{number}"));
        let time = format!("2026-03-{:02} 10:00:00", number + 1);
        let summary = world.run(["backup", "--json", "source", "--time", &time]).succeeds().json();
        ids.push(summary.last().unwrap()["snapshot_id"].as_str().unwrap().to_owned());
    }
    // All but the first, the third and the last go for good, as with any policy.
    world.run(["forget", "-q", &ids[1], &ids[3], &ids[4]]).succeeds();
    world.run(["prune", "-q", "--keep-deleted", "0s", "--yes-really"]).succeeds();
    // On a machine that has never seen any of it.
    let stranger = ["--cache-dir", "elsewhere"];
    world.run(["check", "-q"].iter().chain(&stranger)).succeeds();
    let hidden = world.path(&format!("repository/snapshots/{}", ids[2]));
    std::fs::rename(&hidden, world.path("hidden")).unwrap();
    let words = ["nothing tells its id: it was number 4 of", "more are gone than were forgotten"];
    let ran = world.run(["check"].iter().chain(&stranger)).fails(5, &[]);
    assert!(words.iter().all(|word| ran.stdout.contains(word)), "{ran:?}");
    world.run(["prune"].iter().chain(&stranger)).fails(6, &["Something hides snapshots"]);
    let ran = world.run(["backup", "-v", "source"]).succeeds();
    assert!(words.iter().all(|word| ran.stderr.contains(word)), "{ran:?}");
    // Back in its place it is no longer missed; gone for good, it is given up under the name that the hint gives.
    std::fs::rename(world.path("hidden"), &hidden).unwrap();
    world.run(["check", "-q"].iter().chain(&stranger)).succeeds();
    std::fs::remove_file(&hidden).unwrap();
    let said = world.run(["check"].iter().chain(&stranger)).fails(5, &[]).stdout;
    let id = said.split("run \"firn forget ").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert!(id.len() == 64 && id != ids[2], "{said}");
    world.run(["forget", &id]).succeeds();
    let quiet = world.run(["check", "-q"].iter().chain(&stranger)).succeeds();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    world.run(["prune", "-q"]).succeeds();
}
