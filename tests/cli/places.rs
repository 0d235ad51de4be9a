//! Where the cache is, for which place it speaks, and where the program stands. Not for: what is in the cache (see `cache`).

use crate::support::run::{FIRN, Ran, World, patch};
use std::process::Command;

fn shell(world: &World, script: &str, variables: &[(&str, Option<&str>)]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-euc", script]);
    let variables: Vec<_> = variables.iter().copied().chain([("FIRN", Some(FIRN))]).collect();
    world.surround(&mut command, &variables);
    Ran::from(command.output().unwrap())
}

fn world_with_snapshot() -> World {
    let world = World::with_key_file();
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    world.write("source/random", bytes);
    world.run(["backup", "-q", "source"]).succeeds();
    world
}

const CHECK: &[&str] = &["check", "-q", "--read-data", "--max-age", "1d"];
const SCRUB: &[&str] = &["scrub", "-q", "--max-age", "1d"];

/// A clone, a moved copy, a copy put in the place of the original, and bytes put into the very file: none of them passes because the
/// original was read before.
#[test]
fn what_was_verified_was_verified_in_that_place_only() {
    for (command, recent) in [(CHECK, "packs_recent"), (SCRUB, "objects_recent")] {
        let world = world_with_snapshot();
        let run = |more: &[&str]| world.run(command.iter().chain(more).copied());
        run(&[]).succeeds();
        let summary = run(&["--json"]).succeeds().json().pop().unwrap();
        assert!(summary[recent].as_u64().unwrap() > 0, "what was read a moment ago is left out: {summary}");
        shell(&world, "cp -a repository clone", &[]).succeeds();
        let damage = |folder: &str| {
            let name = world.objects("data")[0].strip_prefix(world.path("repository")).unwrap().to_owned();
            let path = world.path(folder).join(name);
            let before = std::fs::metadata(&path).unwrap().modified().unwrap();
            patch(&path, 500, |byte| byte ^ 1);
            std::fs::File::open(&path).unwrap().set_modified(before).unwrap();
        };
        damage("clone");
        // The damage of the clone is none of the original, which is not read before: nothing is stored again there.
        let packs = world.objects("data").len();
        let backup_stores_nothing = || {
            world.run(["backup", "-q", "source"]).succeeds();
            assert_eq!(world.objects("data").len(), packs, "{command:?}");
        };
        run(&["--repo", "clone"]).fails(5, &[]);
        backup_stores_nothing();
        run(&[]).succeeds();
        shell(&world, "mv repository aside; mv clone repository", &[]).succeeds();
        run(&[]).fails(5, &[]);
        shell(&world, "mv repository clone; mv aside repository", &[]).succeeds();
        backup_stores_nothing();
        run(&[]).succeeds();
        damage("repository");
        run(&[]).fails(5, &[]);
    }
}

/// What a reader stumbles on is noted on this machine only, for the place where it was read: a backup to another copy, also after the
/// two have changed places, does not store again what is undamaged there.
#[test]
fn what_a_reader_found_is_damage_of_that_place_only() {
    for reader in ["restore", "dump"] {
        let world = world_with_snapshot();
        let stored = |folder: &str| {
            std::fs::read_dir(world.path(folder).join("data"))
                .unwrap()
                .flatten()
                .map(|part| std::fs::read_dir(part.path()).unwrap().count())
                .sum::<usize>()
        };
        shell(&world, "cp -a repository clone", &[]).succeeds();
        let name = world.objects("data")[0].strip_prefix(world.path("repository")).unwrap().to_owned();
        patch(&world.path("clone").join(name), 500, |byte| byte ^ 1);
        let file = format!("latest:{}", world.text("source/random"));
        let arguments: &[&str] = if reader == "dump" { &["dump", &file] } else { &["restore", &file, "-t", "out"] };
        world.run(arguments.iter().copied().chain(["--no-cache", "--repo", "clone"])).fails(5, &[]);
        world.run(arguments.iter().copied().chain(["--repo", "clone"])).fails(5, &[]);
        let backup_stores = |folder: &str, new: usize| {
            let before = stored(folder);
            world.run(["backup", "-q", "source", "--repo", folder]).succeeds();
            assert_eq!(stored(folder) - before, new, "{reader}, {folder}");
        };
        backup_stores("repository", 0);
        shell(&world, "mv repository aside; mv clone repository; mv aside clone", &[]).succeeds();
        backup_stores("clone", 0);
        shell(&world, "mv repository aside; mv clone repository; mv aside clone", &[]).succeeds();
        // Where it was found it counts.
        backup_stores("clone", 1);
    }
}

#[test]
fn without_a_place_for_a_cache_everything_works_and_it_is_said() {
    let world = world_with_snapshot();
    world.write("file", "in the way");
    for cache in [world.text("file"), "/proc/firn".to_owned()] {
        let variables = [("FIRN_CACHE_DIR", Some(cache.as_str()))];
        let commands: [&[&str]; 5] = [
            &["backup", "-q", "source"],
            &["snapshots"],
            &["check", "-q", "--read-data"],
            &["scrub", "-q"],
            &["prune", "-q"],
        ];
        for command in commands {
            let ran = world.run_with(command, &variables).succeeds();
            assert!(ran.stderr.contains("Warning: ") && ran.stderr.contains("--cache-dir"), "{command:?}: {ran:?}");
        }
    }
}

#[test]
fn without_a_home_everything_works_and_it_is_said() {
    let world = world_with_snapshot();
    // Root has another place, which is not for tests to write to.
    let script = r#"
        as=; if [ "$(id -u)" = 0 ]; then as="setpriv --reuid=65534 --regid=65534 --clear-groups"; fi
        chmod 755 .; chmod -R a+rwX repository source key; cp "$FIRN" ./firn-copy; chmod 755 firn-copy
        $as ./firn-copy backup -q source && echo stored
        $as ./firn-copy check -q --no-cache && echo clean
    "#;
    let ran = shell(&world, script, &[("HOME", None), ("FIRN_CACHE_DIR", None), ("XDG_CACHE_HOME", None)]).succeeds();
    assert_eq!(ran.stdout, "stored\nclean\n");
    assert_eq!(ran.stderr.matches("Warning: There is no place for a cache").count(), 1, "{ran:?}");
}

/// Neither a home that does not exist nor the place of its caches begins to exist because of a backup.
#[test]
fn a_home_that_does_not_exist_is_not_made() {
    let world = world_with_snapshot();
    let nowhere = world.text("no/body");
    for (home, cache) in [(Some(nowhere.as_str()), None), (Some(nowhere.as_str()), Some(nowhere.as_str()))] {
        let variables = [("HOME", home), ("XDG_CACHE_HOME", cache), ("FIRN_CACHE_DIR", None)];
        world.run_with(["snapshots", "-q"], &variables).succeeds();
        assert!(!world.path("no").exists(), "{cache:?}");
    }
}

#[test]
fn where_the_program_stands_may_be_gone() {
    let world = world_with_snapshot();
    let script = r#"
        here=$PWD; mkdir gone; cd gone; rmdir ../gone
        "$FIRN" backup -q "$here/source" && echo stored
        "$FIRN" restore -q latest -t "$here/out" && echo restored
        "$FIRN" ls "latest:$here/source" | grep -c random
        "$FIRN" prune -q && "$FIRN" check -q && echo clean
        code=0; "$FIRN" backup source || code=$?
        echo "refused $code"
    "#;
    let ran = shell(&world, script, &[]).succeeds();
    assert_eq!(ran.stdout, "stored\nrestored\n1\nclean\nrefused 1\n", "{ran:?}");
    assert!(ran.stderr.contains("Hint: "), "{ran:?}");
}

/// Behind a symbolic link, ".." is the folder above the one that it leads to: for every command that takes a path.
#[test]
fn dot_dot_behind_a_link_is_where_the_kernel_goes() {
    let world = World::with_key_file();
    world.write("far/a", "right");
    world.write("far/place/inside", "");
    world.write("source/a", "the wrong one");
    std::os::unix::fs::symlink(world.path("far/place"), world.path("source/link")).unwrap();
    let (typed, meant) = ("source/link/../a", world.text("far/a"));
    world.run(["backup", "-q", typed]).succeeds();
    let listed = world.run(["ls", "-R", "latest"]).succeeds().stdout;
    assert!(listed.contains("far/a") && !listed.contains("source/a"), "{listed}");
    assert_eq!(world.run(["dump", &format!("latest:{meant}")]).succeeds().stdout, "right");
    // What is compared is the file that was backed up.
    let address = format!("latest:{meant}");
    let summary = |path: &str| world.run(["diff", "--json", &address, path]).json().pop().unwrap();
    assert_eq!(summary(typed), summary("far/a"));
    assert_ne!(summary(typed), summary("source/a"));
    let same = |arguments: &[&str], option: &str| {
        let run = |path: &str| {
            world.run(arguments.iter().copied().chain(Some(option).filter(|o| !o.is_empty())).chain([path]))
        };
        let (behind, plain) = (run(typed), run("far/a"));
        assert_eq!((behind.code, &behind.stdout), (plain.code, &plain.stdout), "{arguments:?}: {behind:?}");
        plain
    };
    same(&["history"], "").succeeds();
    assert!(same(&["snapshots", "--json"], "--path").succeeds().stdout.contains("snapshot_id"));
    assert!(same(&["mount", "--samba-help"], "--root").succeeds().stdout.contains("far/a"));
    std::fs::remove_file(world.path("far/a")).unwrap();
    world.write("far/b", "b");
    world.run(["backup", "-q", "source/link/.."]).succeeds();
    world.run(["history", typed]).succeeds();
    let deleted = world.run(["deleted", "source/link/.."]).succeeds().stdout;
    assert!(deleted.contains(&meant), "{deleted}");
    // A link that leads nowhere is no way to guess at; without it the text counts.
    std::fs::rename(world.path("far/place"), world.path("elsewhere")).unwrap();
    world.run(["backup", "-q", typed]).fails(1, &["None of the sources exists", "source/link/../a"]);
    world.run(["history", typed]).fails(1, &["The full path of", "Hint: "]);
    std::fs::remove_dir_all(world.path("source")).unwrap();
    world.run(["history", "source/link/../../far/a"]).succeeds();
    // So it does in a folder that was deleted while the program stands in it.
    let script = "mkdir -p far/gone; cd far/gone; rmdir ../gone; \"$FIRN\" history ../a; ! \"$FIRN\" history a";
    let gone = shell(&world, script, &[]).succeeds();
    assert!(gone.stderr.contains("far/gone/a\" is in no snapshot"), "{gone:?}");
}
