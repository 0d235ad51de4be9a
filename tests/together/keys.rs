//! Commands that change keys at the same time, as processes. Not for: every order of their steps (see the library's exploration).

use crate::support::run::{Ran, World};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Stdio};

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

/// The slots that are there, without those that are being written.
fn there(world: &World) -> Vec<PathBuf> {
    let mut slots = world.objects("keys");
    slots.retain(|slot| slot.file_name().is_some_and(|name| name.len() == 64));
    slots
}

/// Stops a rotation of both keys between its first put and its last delete, when there are more slots than the two.
fn stopped_rotation(world: &World) -> (Child, Pid) {
    // Each that goes by unseen is an epoch, of which there are 64.
    for _ in 0..40 {
        let mut command = world.direct(["key", "rotate", "-q", "--other-key-file", "other"]);
        command.current_dir(world.path("")).env("FIRN_KEY_FILE", world.path("key"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = Pid::from_child(&child);
        while there(world).len() == 2 && child.try_wait().unwrap().is_none() {}
        // It may have come to its end.
        if kill_process(id, Signal::STOP).is_ok() {
            let stat = || std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).unwrap_or_default();
            while !stat().contains(") T ") && child.try_wait().unwrap().is_none() {}
            if there(world).len() > 2 {
                return (child, id);
            }
            kill_process(id, Signal::CONT).ok();
        }
        assert!(child.wait().unwrap().success());
    }
    panic!("no rotation was met half way");
}

#[test]
fn nobody_changes_keys_while_somebody_rotates() {
    let world = world();
    run(&world, "key", &["key", "add", "-q", "--new-key-file", "other"]).succeeds();
    add_file(&world, "third", 9);
    let listed = run(&world, "key", &["key", "list", "--json"]).succeeds().json();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let (child, id) = stopped_rotation(&world);
    let before = there(&world);
    for (key, arguments) in [
        ("key", &["key", "add", "-q", "--new-key-file", "third"][..]),
        ("other", &["key", "remove", "-q", &slot(&world, "key")]),
        ("other", &["key", "passwd", "-q", "--new-key-file", "third"]),
        ("key", &["key", "rotate", "-q", "--other-key-file", "other"]),
        ("other", &["key", "rotate", "-q", "--remove-other-keys"]),
    ] {
        let refused = run(&world, key, arguments);
        // A key that was made already, whose secret the other one does not hold yet, stops some.
        assert!([COMPANY, STOPPED].contains(&refused.code), "{arguments:?}: {refused:?}");
        assert_eq!(there(&world), before, "{arguments:?}: {refused:?}");
    }
    kill_process(id, Signal::CONT).unwrap();
    Ran::from(child.wait_with_output().unwrap()).succeeds();
    world.write("source/more", "sealed under what is the newest secret now\n".repeat(1000));
    world.run(["backup", "-q", "source"]).succeeds();
    ["key", "other"].iter().for_each(|key| opens_everything(&world, key));
    assert!(!opens(&world, "third") && there(&world).len() == 2);
}
