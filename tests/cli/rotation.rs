//! Rotated keys: what a new epoch changes, and what a key from before it may still do. Not for: being cut off (see `crash`).

use crate::support::compare;
use crate::support::nasty::Random;
use crate::support::run::{Ran, World, patch};
use firn::backup::{self, BackupOptions};
use firn::progress::{Silent, Stop};
use firn::repository::keys::Credentials;
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::store::LocalStore;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The key epochs that the headers of data packs state.
fn epochs(world: &World) -> Vec<u16> {
    let header = |path: &PathBuf| std::fs::read(path).unwrap()[10..12].try_into().unwrap();
    world.objects("data").iter().map(|path| u16::from_le_bytes(header(path))).collect()
}

/// Everything in the repository.
fn objects(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    ["config", "keys", "data", "tree", "index", "snapshots", "pins", "marks", "tombs", "revokes"]
        .into_iter()
        .flat_map(|kind| world.objects(kind))
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Two keys, "key" and "other", and a snapshot.
fn world_with_two_keys() -> World {
    let world = World::with_key_file();
    world.write("other", [8; 100]);
    world.run(["key", "add", "-q", "--label", "of somebody else", "--new-key-file", "other"]).succeeds();
    world.write("source/large", Random(1).bytes(3_000_000));
    world.write("source/small", "small enough to be shared with others\n".repeat(10));
    world.run(["backup", "-q", "source"]).succeeds();
    world
}

#[test]
fn new_data_gets_a_new_secret_and_old_data_when_it_is_asked_for() {
    let world = world_with_two_keys();
    let keys = world.objects("keys");
    world.run(["key", "rotate"]).fails(6, &["of somebody else", "nothing was changed", "--remove-other-keys"]);
    assert_eq!(world.objects("keys"), keys);
    world.write("wrong", [9; 100]);
    world.run(["key", "rotate", "--other-key-file", "wrong"]).fails(12, &["\"wrong\" opens no key slot"]);
    assert_eq!(world.objects("keys"), keys);
    let said = world.run(["key", "rotate", "--other-key-file", "other"]).succeeds().stdout;
    assert!(said.contains("key epoch 1") && said.contains("firn key re-encrypt"), "{said}");
    let listed = world.run(["key", "list", "--json"]).succeeds().json();
    assert!(listed.len() == 2 && listed.iter().all(|key| key["epoch"] == 1), "{listed:?}");
    assert!(listed.iter().any(|key| key["label"] == "of somebody else"), "{listed:?}");

    // Only what is new is sealed under it.
    world.write("source/new", Random(2).bytes(1_000_000));
    world.run(["backup", "-q", "source"]).succeeds();
    let old = epochs(&world).iter().filter(|epoch| **epoch == 0).count();
    assert!(old > 0 && epochs(&world).iter().all(|epoch| *epoch <= 1) && epochs(&world).len() > old);
    std::fs::remove_file(world.path("source/small")).unwrap();
    world.run(["backup", "-q", "source"]).succeeds();

    let before = objects(&world);
    let would = world.run(["key", "re-encrypt", "-n"]).succeeds().stdout;
    assert!(would.contains(&format!("Would write again under key epoch 1: {old} pack")), "{would}");
    assert_eq!(objects(&world), before);
    let done = world.run(["key", "re-encrypt", "--json"]).succeeds().json().pop().unwrap();
    assert_eq!(
        (&done["epoch"], &done["rewritten"]["packs"], &done["older_epochs"]["packs"]),
        (&1.into(), &old.into(), &0.into())
    );
    assert!(done["bytes_written"].as_u64().unwrap() >= 3_000_000, "{done}");
    assert!(epochs(&world).iter().all(|epoch| *epoch == 1));

    // All is as it was, for both keys, and nothing is stored again.
    let packs = world.objects("data");
    let same = world.backup(0, ["source"]);
    assert_eq!(same["files_unmodified"], 2);
    world.run(["backup", "-q", "--force", "source"]).succeeds();
    assert_eq!(world.objects("data"), packs);
    for (snapshot, key) in [("latest", "key"), ("latest~1", "other")] {
        let target = format!("out-{key}");
        let with = [("FIRN_KEY_FILE", Some(key))];
        world.run_with(["restore", &format!("{snapshot}:{}", world.text("source")), "-t", &target], &with).succeeds();
        let differences = compare::trees(&world.path("source"), &world.path(&target), compare::Options::default());
        assert!(differences.is_empty(), "{differences:?}");
    }
    let first = format!("latest~4:{}/small", world.text("source"));
    assert!(world.run(["dump", &first]).succeeds().stdout.starts_with("small enough"));
    world.run(["check", "--read-data"]).succeeds();
    let again = world.run(["key", "re-encrypt", "--json"]).succeeds().json().pop().unwrap();
    assert_eq!(again["rewritten"]["packs"], 0, "{again}");
}

#[test]
fn both_in_one_go_and_the_others_removed() {
    let world = world_with_two_keys();
    let said = world.run(["key", "rotate", "--re-encrypt", "--remove-other-keys"]).succeeds().stdout;
    assert!(said.contains("Written again under key epoch 1: "), "{said}");
    let all_have = |wanted: u16| !epochs(&world).is_empty() && epochs(&world).iter().all(|epoch| *epoch == wanted);
    assert!(all_have(1) && world.objects("keys").len() == 1);
    world.run_with(["snapshots"], &[("FIRN_KEY_FILE", Some("other"))]).fails(12, &["Wrong password or key"]);
    world.run(["check", "--read-data"]).succeeds();
    let quiet = world.run(["key", "rotate", "-q", "--re-encrypt"]).succeeds();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    assert!(all_have(2));
}

#[test]
fn whoever_opened_the_repository_before_goes_on() {
    let world = world_with_two_keys();
    let open = || {
        let store = Arc::new(LocalStore::open(&world.path("repository")).unwrap());
        let key = Credentials { password: None, key_file: Some(vec![7; 100].into()) };
        let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
        Arc::new(Repository::open(store, &key, &options).unwrap())
    };
    let backup = |repository: &Arc<Repository>, seed: u64| {
        world.write("source/changes", Random(seed).bytes(100_000));
        let options = BackupOptions { paths: vec![world.path("source")], threads: 1, ..BackupOptions::default() };
        backup::run(repository, &options, &Silent, &Stop::new())
    };
    let (before, reader) = (open(), open());
    world.run(["key", "rotate", "-q", "--remove-other-keys"]).succeeds();
    backup(&before, 5).unwrap();
    assert!(epochs(&world).iter().all(|epoch| *epoch == 0));
    world.run(["key", "re-encrypt", "-q"]).succeeds();
    assert!(epochs(&world).iter().all(|epoch| *epoch == 1));
    // All that there is can be opened only with what came after they had begun: their credentials open it.
    let snapshot = reader.snapshots().unwrap().live.pop().unwrap();
    reader.reload_index(&Silent).unwrap();
    let path = format!("{}/large", world.text("source"));
    let entry = firn::view::path::find(&reader, &snapshot.snapshot, path.as_bytes()).unwrap();
    let firn::format::tree::Body::File { size, content } = entry.body else { panic!("it is a file") };
    let mut bytes = Vec::new();
    firn::view::content::copy(&reader, size, &content, &mut bytes).unwrap();
    assert!(bytes == Random(1).bytes(3_000_000));
    backup(&before, 6).unwrap();
    assert!(world.objects("pins").is_empty() && epochs(&world).iter().all(|epoch| *epoch == 1));
    world.run(["check", "--read-data"]).succeeds();
}

/// A mount shows everything while keys are rotated and packs written again under it.
#[test]
fn a_mount_goes_on_while_keys_are_rotated() {
    let world = world_with_two_keys();
    let shown = format!("latest:{}", world.text("source"));
    // The mountpoint is made.
    world.run(["mount", "-q", "-d", "past", &shown]).succeeds();
    let small = std::fs::read(world.path("past/small"));
    world.run(["key", "rotate", "-q", "--re-encrypt", "--remove-other-keys"]).succeeds();
    let large = std::fs::read(world.path("past/large"));
    world.run(["umount", "past"]).succeeds();
    assert!(small.unwrap().starts_with(b"small enough") && large.unwrap() == Random(1).bytes(3_000_000));
    world.run(["umount", "past"]).fails(1, &["no firn mount is there"]);
}

/// Removes all key slots and puts these in their place.
fn set_keys(world: &World, slots: &BTreeMap<PathBuf, Vec<u8>>) {
    world.objects("keys").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    slots.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
}

fn keys(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    world.objects("keys").into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// Whoever was shut out by a rotation puts the slots from before it back.
#[test]
fn older_key_slots_that_are_put_back_stop_whoever_has_seen_newer_ones() {
    let world = world_with_two_keys();
    let old = keys(&world);
    world.run(["key", "rotate", "-q", "--remove-other-keys"]).succeeds();
    let new = keys(&world);
    set_keys(&world, &old);
    world.write("source/secret", Random(3).bytes(500_000));
    let before = objects(&world);
    let words = ["has seen key epoch 1", "older key slots back", "firn key rotate --yes-really"];
    for arguments in [
        &["backup", "source"][..],
        &["backup", "-n", "source"],
        &["prune"],
        &["key", "add", "--new-key-file", "other"],
        &["key", "rotate", "--remove-other-keys"],
        &["key", "re-encrypt"],
        &["repair", "index"],
    ] {
        world.run(arguments).fails(6, &words);
        assert!(objects(&world) == before, "{arguments:?}");
    }
    let ran = world.run(["snapshots"]).succeeds();
    assert!(words.iter().all(|word| ran.stderr.contains(word)), "{ran:?}");
    let ran = world.run(["check", "--read-data"]).fails(4, &[]);
    assert!(words.iter().all(|word| ran.stdout.contains(word)), "{ran:?}");
    // With the newer ones all is well.
    set_keys(&world, &new);
    let quiet = world.run(["backup", "-q", "source"]).succeeds();
    assert!(quiet.stderr.is_empty(), "{quiet:?}");
    assert!(world.run(["check", "--read-data"]).succeeds().stdout.ends_with("Everything is there and undamaged\n"));
    // Without them, a pack that no key opens is lost, and nothing may take it for undamaged.
    set_keys(&world, &old);
    let ran = world.run(["check"]).fails(5, &[]);
    let said = ["no key slot holds a secret of that epoch", "source/secret", "All that"];
    assert!(ran.stdout.contains(said[0]) && ran.stdout.contains(said[1]) && !ran.stdout.contains(said[2]), "{ran:?}");
    assert_eq!(world.run(["check", "--json"]).fails(5, &[]).json().pop().unwrap()["packs_locked"], 1);
}

#[test]
fn the_owner_of_older_key_slots_makes_a_newer_epoch_and_snapshots_tell_every_machine_of_it() {
    let world = world_with_two_keys();
    let old = keys(&world);
    world.run(["key", "rotate", "-q", "--remove-other-keys"]).succeeds();
    set_keys(&world, &old);
    // Another one than the epoch that is lost.
    let said = world.run(["key", "rotate", "--remove-other-keys", "--yes-really"]).succeeds().stdout;
    assert!(said.contains("key epoch 2"), "{said}");
    // Nothing new, so no pack tells of the epoch.
    let quiet = world.run(["backup", "-q", "source"]).succeeds();
    assert!(quiet.stderr.is_empty() && epochs(&world).iter().all(|epoch| *epoch == 0), "{quiet:?}");
    world.run(["check", "-q"]).succeeds();
    set_keys(&world, &old);
    world.write("source/secret", Random(3).bytes(500_000));
    let before = world.objects("data");
    let elsewhere = ["--cache-dir", "elsewhere"];
    let words = ["The snapshot \"", "tells of key epoch 2"];
    world.run(["backup", "source"].iter().chain(&elsewhere)).fails(6, &words);
    world.run(["prune"].iter().chain(&elsewhere)).fails(6, &words);
    let ran = world.run(["check"].iter().chain(&elsewhere)).fails(4, &[]);
    assert!(words.iter().all(|word| ran.stdout.contains(word)), "{ran:?}");
    assert_eq!(world.objects("data"), before);
}

/// Somebody whose key was removed, with a copy of its slot and access to the store.
struct Former(World);

impl Former {
    /// The keys are rotated without them, and the repository goes on.
    fn new() -> Former {
        let world = world_with_two_keys();
        let before: BTreeMap<PathBuf, Vec<u8>> =
            world.objects("keys").into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
        let old_one = world.run(["key", "list", "--json"]).succeeds().json();
        let theirs = old_one.iter().find(|key| key["label"] == "of somebody else").unwrap()["key_id"].clone();
        world.run(["key", "rotate", "-q", "--remove-other-keys"]).succeeds();
        world.write("source/new", Random(2).bytes(1_000_000));
        world.run(["backup", "-q", "source"]).succeeds();
        let (path, bytes) = before.into_iter().find(|(path, _)| path.ends_with(theirs.as_str().unwrap())).unwrap();
        std::fs::write(path, bytes).unwrap();
        Former(world)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let cache = self.0.text("their cache");
        self.0.run_with(arguments, &[("FIRN_KEY_FILE", Some("other")), ("FIRN_CACHE_DIR", Some(&cache))])
    }

    /// It is refused because of the key, and nothing was changed.
    #[track_caller]
    fn refuses(&self, arguments: &[&str]) {
        let before = objects(&self.0);
        self.run(arguments)
            .fails(12, &["key epoch", "which the key in use does not hold", "Hint: The keys were rotated"]);
        assert!(objects(&self.0) == before, "{arguments:?}");
        assert!(!self.calls_anything_damaged(), "{arguments:?}");
    }

    fn calls_anything_damaged(&self) -> bool {
        let mut folders = vec![self.0.path("their cache")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name == "damaged")
                    && !std::fs::read(&path).unwrap().is_empty()
                {
                    return true;
                }
            }
        }
        false
    }

    /// The pack under the new epoch.
    fn locked(&self) -> PathBuf {
        let is_new = |path: &PathBuf| std::fs::read(path).unwrap()[10] == 1;
        self.0.objects("data").into_iter().find(is_new).unwrap()
    }
}

#[test]
fn a_key_from_before_reads_what_is_older_and_changes_nothing() {
    let former = Former::new();
    let source = former.0.text("source");
    former.run(&["snapshots"]).succeeds();
    former.run(&["restore", &format!("latest~1:{source}"), "-t", "old"]).succeeds();
    former.run(&["restore", &format!("latest:{source}"), "-t", "new"]).fails(3, &["key epoch 1", "not complete"]);
    former.run(&["dump", &format!("latest:{source}/new")]).fails(12, &["key epoch 1"]);
    assert!(!former.calls_anything_damaged());
    let name = former.locked().file_name().unwrap().to_str().unwrap().to_owned();
    for arguments in [
        &["backup", "source"][..],
        &["backup", "-n", "source"],
        &["prune"],
        &["prune", "--no-repack"],
        &["key", "rotate", "--remove-other-keys"],
        &["key", "re-encrypt"],
        &["repair", "index", "--read-all-packs"],
    ] {
        former.refuses(arguments);
    }
    let before = objects(&former.0);
    former.run(&["repair", "packs", &name]).succeeds();
    former.run(&["repair", "snapshots"]).succeeds();
    former.run(&["scrub"]).succeeds();
    former.run(&["check"]).succeeds();
    let said = former.run(&["check", "--read-data"]).succeeds();
    assert!(said.stdout.contains("was not looked into") && said.stdout.contains("key epoch 1"), "{said:?}");
    // It is not remembered as found right, either.
    let said = former.run(&["check", "--read-data", "--max-age", "1d"]).succeeds();
    assert!(said.stdout.contains("was not looked into"), "{said:?}");
    assert!(!former.calls_anything_damaged());
    assert!(objects(&former.0) == before);
    former.0.run(["check", "--read-data"]).succeeds();
}

#[test]
fn a_key_from_before_does_not_call_lost_what_only_the_index_named() {
    let former = Former::new();
    former.0.objects("index").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    // Repairable, not lost.
    let said = former.run(&["check"]).fails(4, &[]);
    assert!(!said.stdout.contains("Lost") && said.stdout.contains("key epoch 1"), "{said:?}");
    former.refuses(&["repair", "index"]);
    let before = objects(&former.0);
    former.run(&["prune"]).fails(12, &["key epoch 1", "nothing was changed"]);
    assert!(objects(&former.0) == before);
    former.0.run(["repair", "index"]).succeeds();
    former.0.run(["check", "--read-data"]).succeeds();
}

#[test]
fn damage_stays_damage_for_a_key_from_before() {
    let former = Former::new();
    let locked = former.locked();
    let name = locked.file_name().unwrap().to_str().unwrap().to_owned();
    // Bytes that are not right need no key, but only the right one tells what can be saved.
    patch(&locked, 5000, |byte| byte ^ 1);
    former.run(&["scrub"]).fails(5, &[]);
    let said = former.run(&["check", "--read-data"]).fails(4, &[]);
    assert!(said.stdout.contains("The pack is damaged"), "{said:?}");
    let before = objects(&former.0);
    former.run(&["repair", "packs", &name]).fails(12, &["key epoch 1", "nothing was changed"]);
    assert!(objects(&former.0) == before);
    // A header whose epoch alone was hit is damage for whoever holds the epoch under which it was made.
    let world = world_with_two_keys();
    patch(&world.objects("data")[0], 10, |_| 7);
    let said = world.run(["check", "--read-data"]).fails(5, &[]);
    assert!(said.stdout.contains("made under another key epoch"), "{said:?}");
}
