//! Disks that are full or read-only. Not for: processes that are killed (see `kills`).

use crate::support::compare;
use crate::support::nasty::Random;
use crate::support::run::{ALONE, FIRN, Ran, World};
use crate::support::without_root;
use std::process::Command;

/// Runs a script in a mount namespace of its own, so that nothing stays mounted. `None` where that is not allowed: then there is nothing to test.
fn in_namespace(world: &World, script: &str) -> Option<Ran> {
    let may = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc", &format!("{ALONE}{script}")]);
    world.surround(&mut command, &[("FIRN", Some(FIRN))]);
    Some(Ran::from(command.output().unwrap()))
}

fn noise(world: &World, name: &str, seed: u64, length: usize) {
    world.write(name, Random(seed).bytes(length));
}

#[test]
fn the_repository_is_on_a_full_disk() {
    let world = World::with_key_file();
    noise(&world, "source/one", 1, 1 << 20);
    noise(&world, "more/large", 2, 12 << 20);
    noise(&world, "next/two", 3, 1 << 20);
    std::fs::create_dir(world.path("disk")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=8m none disk
        export FIRN_REPOSITORY=disk/repository
        "$FIRN" init -q
        "$FIRN" backup -q source
        head -c 3000000 /dev/zero > disk/ballast
        code=0; "$FIRN" backup -q more || code=$?
        echo "full $code"
        "$FIRN" check -q --read-data && echo clean
        "$FIRN" restore -q "latest:$PWD/source" -t out1 && echo restored
        "$FIRN" snapshots --json | grep -c short_id | sed 's/^/snapshots /'
        rm disk/ballast
        "$FIRN" backup -q next && echo next
        "$FIRN" restore -q "latest:$PWD/next" -t out2
        "$FIRN" check -q --read-data && echo clean again
    "#;
    let Some(ran) = in_namespace(&world, script) else { return };
    let ran = ran.succeeds();
    for line in ["full 14", "clean", "restored", "next", "clean again"] {
        assert!(ran.stdout.lines().any(|said| said == line), "{line:?}: {ran:?}");
    }
    assert!(ran.stderr.contains("Hint: "), "{ran:?}");
    for (from, out) in [("source", "out1"), ("next", "out2")] {
        let differences = compare::trees(&world.path(from), &restored(&world, from, out), compare::Options::default());
        assert!(differences.is_empty(), "{differences:?}");
    }
}

/// No space at all, or no inode: what frees space works, with writing packs again and without.
#[test]
fn forgetting_and_pruning_on_a_full_disk() {
    let (space, inodes) = ("size=16m", "size=64m,nr_inodes=730");
    for (limit, prune) in [(space, ""), (space, "--no-repack"), (inodes, ""), (inodes, "--no-repack")] {
        let world = World::with_key_file();
        noise(&world, "source/stays", 1, 1 << 20);
        for number in 0..9 {
            noise(&world, &format!("once{number}/file"), 10 + number, 200_000);
        }
        std::fs::create_dir(world.path("disk")).unwrap();
        let script = r#"
            mount -t tmpfs -o LIMIT none disk
            export FIRN_REPOSITORY=disk/repository
            "$FIRN" init -q
            for number in 0 1 2 3 4 5 6 7 8; do "$FIRN" backup -q source once$number; done
            "$FIRN" backup -q source
            mkdir disk/filling
            for size in 1048576 65536 4096 1; do
                i=0; while head -c $size /dev/zero > disk/filling/$size-$i 2>/dev/null; do i=$((i+1)); done
            done
            code=0; "$FIRN" backup -q once0 || code=$?
            echo "full $code"
            "$FIRN" forget -q --keep-last 1 --group-by host && echo forgotten
            "$FIRN" prune -q PRUNE --keep-deleted 0s && echo pruned
            "$FIRN" snapshots --json | grep -c short_id | sed 's/^/snapshots /'
            "$FIRN" check -q --read-data && echo clean
            "$FIRN" restore -q "latest:$PWD/source" -t out && echo restored
            rm -r disk/filling
            "$FIRN" prune -q --keep-deleted 0s && "$FIRN" check -q --read-data && echo clean again
            ls disk/repository/spare | wc -l | sed 's/^/spare /'
        "#;
        let script = script.replace("LIMIT", limit).replace("PRUNE", prune);
        let Some(ran) = in_namespace(&world, &script) else { return };
        let said: Vec<&str> = ran.stdout.lines().collect();
        let expected =
            ["full 14", "forgotten", "pruned", "snapshots 1", "clean", "restored", "clean again", "spare 128"];
        assert_eq!(said, expected, "{limit} {prune}: {ran:?}");
    }
}

#[test]
fn packs_are_not_sealed_anew_on_a_full_disk() {
    let world = World::with_key_file();
    noise(&world, "source/large", 1, 6 << 20);
    std::fs::create_dir(world.path("disk")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=12m none disk
        export FIRN_REPOSITORY=disk/repository
        "$FIRN" init -q
        "$FIRN" backup -q source
        "$FIRN" key rotate -q
        code=0; "$FIRN" key re-encrypt -q || code=$?
        echo "full $code"
        "$FIRN" check -q --read-data && echo clean
        mount -o remount,size=30m disk
        "$FIRN" key re-encrypt -q && echo done
        "$FIRN" check -q --read-data && echo clean again
    "#;
    let Some(ran) = in_namespace(&world, script) else { return };
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), ["full 14", "clean", "done", "clean again"], "{ran:?}");
    assert!(ran.stderr.contains("There was no room") && !ran.stderr.contains("damaged"), "{ran:?}");
}

fn restored(world: &World, from: &str, out: &str) -> std::path::PathBuf {
    let deep = world.path(out).join(world.path(from).strip_prefix("/").unwrap());
    if deep.exists() { deep } else { world.path(out) }
}

#[test]
fn the_target_of_a_restore_is_full() {
    let world = World::with_key_file();
    noise(&world, "source/one", 1, 3 << 20);
    noise(&world, "source/two", 2, 3 << 20);
    world.run(["backup", "-q", "source"]).succeeds();
    std::fs::create_dir(world.path("disk")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=4m none disk
        code=0; "$FIRN" restore -q latest -t disk/out || code=$?
        echo "full $code"
        find disk -type f -name '[a-z]*' -size -3M | sed 's/^/half /'
    "#;
    let Some(ran) = in_namespace(&world, script) else { return };
    assert_eq!(ran.stdout, "full 14\n", "{ran:?}");
    assert!(ran.stderr.contains("Hint: "), "{ran:?}");
}

/// A cache that may only be read, or no home folder at all, costs time only; root has another place, and uses it without a word.
#[test]
fn the_cache_may_only_be_read() {
    let world = World::with_key_file();
    world.write("source/file", "text");
    let script = r#"
        mount -t tmpfs none /var/cache
        mkdir own; mount -t tmpfs none own
        export HOME=$PWD/own; unset FIRN_CACHE_DIR XDG_CACHE_HOME
        "$FIRN" backup -q source; ls -d own/.cache/firn
        mount -o remount,ro own
        named() { "$FIRN" --cache-dir own/.cache/firn "$@" 2>&1 | grep -c "No cache is used"; }
        named backup -q source; named check -q --read-data; named prune -q
        test ! -e /var/cache/firn; "$FIRN" backup -q source; stat -c "%a %n" /var/cache/firn
        rm -r /var/cache/firn; unset HOME; "$FIRN" backup -q source; stat -c "%a %n" /var/cache/firn
        "$FIRN" check -q --read-data && "$FIRN" snapshots --json | grep -c short_id
    "#;
    let Some(ran) = in_namespace(&world, script) else { return };
    let expected = "own/.cache/firn\n1\n1\n1\n700 /var/cache/firn\n700 /var/cache/firn\n4\n";
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expected, ""), "{ran:?}");
}

#[test]
fn a_repository_that_may_only_be_read() {
    let world = World::with_key_file();
    world.write("source/file", "text");
    world.run(["backup", "-q", "source"]).succeeds();
    let script = r#"
        mount --bind -o ro repository repository
        code=0; "$FIRN" backup source || code=$?
        echo "refused $code"
        "$FIRN" check -q --read-data && echo clean
        "$FIRN" restore -q latest -t out && echo restored
    "#;
    let Some(ran) = in_namespace(&world, script) else { return };
    assert_eq!(ran.stdout, "refused 1\nclean\nrestored\n", "{ran:?}");
    assert!(ran.stderr.contains("Error: ") && ran.stderr.contains("repository"), "{ran:?}");
}

#[test]
fn a_repository_of_somebody_else() {
    if without_root() {
        return;
    }
    let world = World::with_key_file();
    world.write("source/file", "text");
    world.run(["backup", "-q", "source"]).succeeds();
    // Others may read it, and keep a cache, but not write.
    let script = r#"
        chmod 755 . ; chmod -R a+rX repository source key; chmod -R a-w repository
        mkdir -m 777 theirs
        export FIRN_CACHE_DIR=$PWD/theirs
        as="setpriv --reuid=65534 --regid=65534 --clear-groups"
        cp "$FIRN" ./firn-copy; chmod 755 firn-copy
        code=0; $as ./firn-copy backup source || code=$?
        echo "refused $code"
        $as ./firn-copy check -q --read-data && echo clean
        $as ./firn-copy dump "latest:$PWD/source/file"
    "#;
    let mut command = Command::new("sh");
    command.args(["-euc", script]);
    world.surround(&mut command, &[("FIRN", Some(FIRN))]);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.stdout, "refused 1\nclean\ntext", "{ran:?}");
    assert!(ran.stderr.contains("Error: ") && ran.stderr.contains("Permission denied"), "{ran:?}");
}
