//! Commands that change keys at the same time, as processes. Not for: every order of their steps (see the library's exploration).

use crate::support::run::{Ran, World};
use std::process::Stdio;

const ROUNDS: usize = 20;
/// Another process changes keys.
const COMPANY: i32 = 11;
/// Another key is there that a rotation would leave behind; or none that a removal would leave.
const STOPPED: i32 = 6;

/// A repository with a snapshot that "key" opens.
fn world() -> World {
    let world = World::with_key_file();
    add_file(&world, "other", 8);
    world.write("source/file", "what all of this is for\n".repeat(1000));
    world.run(["backup", "-q", "source"]).succeeds();
    world
}

fn add_file(world: &World, name: &str, byte: u8) {
    use std::os::unix::fs::PermissionsExt;
    world.write(name, [byte; 100]);
    std::fs::set_permissions(world.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn run(world: &World, key: &str, arguments: &[&str]) -> Ran {
    world.run_with(arguments, &[("FIRN_KEY_FILE", Some(&world.text(key)))])
}

/// Two commands at once, each with a key file.
fn both(world: &World, commands: [(&str, &[&str]); 2]) -> [Ran; 2] {
    let started = commands.map(|(key, arguments)| {
        let mut command = world.direct(arguments);
        command.env("FIRN_KEY_FILE", world.path(key)).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    started.map(|child| Ran::from(child.wait_with_output().unwrap()))
}

fn opens(world: &World, key: &str) -> bool {
    let ran = run(world, key, &["snapshots", "-q"]);
    assert!([0, 12].contains(&ran.code), "{ran:?}");
    ran.code == 0
}

/// The slot that a key opens.
fn slot(world: &World, key: &str) -> String {
    let listed = run(world, key, &["key", "list", "--json"]).succeeds().json();
    listed.iter().find(|slot| slot["current"] == true).unwrap()["key_id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn opens_everything(world: &World, key: &str) {
    run(world, key, &["check", "-q", "--read-data"]).succeeds();
}

#[test]
fn each_removes_the_key_of_the_other() {
    let world = world();
    let mut removed = 0;
    for round in 0..ROUNDS {
        for (name, by) in [("other", "key"), ("key", "other")] {
            if !opens(&world, name) {
                run(&world, by, &["key", "add", "-q", "--new-key-file", name]).succeeds();
            }
        }
        let (first, second) = (slot(&world, "key"), slot(&world, "other"));
        let ran =
            both(&world, [("key", &["key", "remove", "-q", &second]), ("other", &["key", "remove", "-q", &first])]);
        for (one, other) in [(&ran[0], "other"), (&ran[1], "key")] {
            assert!([0, COMPANY, STOPPED, 12].contains(&one.code), "{round}: {ran:?}");
            // What was said is so, and nothing else happened.
            assert_eq!(opens(&world, other), one.code != 0, "{round}: {ran:?}");
            removed += usize::from(one.code == 0);
        }
        let left: Vec<&str> = ["key", "other"].into_iter().filter(|key| opens(&world, key)).collect();
        assert!(!left.is_empty(), "{round}: {ran:?}");
        left.iter().for_each(|key| opens_everything(&world, key));
    }
    println!("{removed} keys removed in {ROUNDS} rounds");
}

#[test]
fn two_rotate() {
    let world = world();
    let mut rotated = 0;
    for round in 0..ROUNDS {
        let ran = both(&world, [("key", &["key", "rotate", "-q"]), ("key", &["key", "rotate", "-q"])]);
        assert!(ran.iter().all(|ran| ran.code == 0 || ran.code == COMPANY), "{round}: {ran:?}");
        rotated += ran.iter().filter(|ran| ran.code == 0).count();
        // Sealed under whatever is the newest secret now.
        world.write(&format!("source/{round}"), format!("{round}\n").repeat(2000));
        world.run(["backup", "-q", "source"]).succeeds();
        opens_everything(&world, "key");
    }
    let listed = world.run(["key", "list", "--json"]).succeeds().json();
    assert_eq!((listed.len(), listed[0]["epoch"].as_u64()), (1, Some(rotated as u64)), "{listed:?}");
}

#[test]
fn one_adds_and_one_rotates() {
    let world = world();
    for round in 0..ROUNDS {
        let ran = both(
            &world,
            [("key", &["key", "add", "-q", "--new-key-file", "other"]), ("key", &["key", "rotate", "-q"])],
        );
        assert!(ran.iter().all(|ran| [0, COMPANY, STOPPED].contains(&ran.code)), "{round}: {ran:?}");
        world.write(&format!("source/{round}"), format!("{round}\n").repeat(2000));
        world.run(["backup", "-q", "source"]).succeeds();
        opens_everything(&world, "key");
        assert_eq!(opens(&world, "other"), ran[0].code == 0, "{round}: {ran:?}");
        if ran[0].code == 0 {
            opens_everything(&world, "other");
            world.run(["key", "remove", "-q", &slot(&world, "other")]).succeeds();
        }
    }
}
