//! Backups and restores that are killed or asked to stop at random moments. Not for: full disks (see `disks`).

use crate::damage::{copy, files};
use crate::support::compare;
use crate::support::nasty::Random;
use crate::support::run::{Ran, World};
use crate::support::share;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// More than one pack of data, and some metadata.
fn world() -> World {
    let world = World::with_key_file();
    let mut random = Random(11);
    for number in 0..100 {
        world.write(&format!("source/large/{number}"), random.bytes(1 << 20));
    }
    for number in 0..800 {
        let text = format!("{}\n", random.next()).repeat(1 + random.below(60));
        world.write(&format!("source/small/{}/{number}", number % 20), text);
    }
    world.write("before/file", "what was there before");
    world.run(["backup", "-q", "before"]).succeeds();
    copy(&world.path("repository"), &world.path("first"));
    world
}

/// As after the first snapshot, without a cache.
fn again_as_before(world: &World) {
    for name in ["repository", "cache", "out", "old"] {
        drop(std::fs::remove_dir_all(world.path(name)));
    }
    copy(&world.path("first"), &world.path("repository"));
}

fn start(world: &World, arguments: &[&str]) -> Child {
    world.direct(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Bytes that a process has read so far; all there are once it has ended.
fn has_read(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// No damage, the earlier snapshot is whole, and the next backup succeeds and restores bit for bit. Returns its summary.
fn goes_on(world: &World, moment: &str) -> serde_json::Value {
    let check = world.run(["check", "--read-data", "-q"]);
    assert_eq!(check.code, 0, "{moment}: {check:?}");
    let address = format!("latest:{}", world.text("before"));
    if world.run(["snapshots", "--json"]).succeeds().json().len() == 1 {
        world.run(["restore", "-q", &address, "-t", "old"]).succeeds();
        let differences = same(world, "before", "old");
        assert!(differences.is_empty(), "{moment}: {differences:?}");
    }
    let summary = world.run(["backup", "--json", "source"]).succeeds().json().pop().unwrap();
    world.run(["restore", "-q", "latest", "-t", "out"]).succeeds();
    let differences = same(world, "source", "out");
    assert!(differences.is_empty(), "{moment}: {differences:?}");
    let check = world.run(["check", "-q"]);
    assert_eq!(check.code, 0, "{moment}: {check:?}");
    summary
}

/// What differs between a folder and what was restored of it.
fn same(world: &World, name: &str, restored: &str) -> Vec<String> {
    let deep = world.path(restored).join(world.path(name).strip_prefix("/").unwrap());
    let restored = if deep.exists() { deep } else { world.path(restored) };
    compare::trees(&world.path(name), &restored, compare::Options::default())
}

fn added(summary: &serde_json::Value) -> (u64, u64) {
    let number = |name: &str| summary[name].as_u64().unwrap();
    (number("data_added"), number("total_bytes_processed"))
}

fn is_pack(path: &std::path::Path) -> bool {
    !path.file_name().unwrap().to_str().unwrap().starts_with('.')
}

/// Takes some moments, or as many as FIRN_KILLS says, from the seed FIRN_SEED.
#[test]
fn kill_at_any_moment() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (kills, seed) = (number("FIRN_KILLS", share(5, 15)), number("FIRN_SEED", 1));
    let mut random = Random(seed);
    let world = world();
    let started = Instant::now();
    world.run(["backup", "-q", "source"]).succeeds();
    let mut whole = started.elapsed();
    let mut reused = 0;
    for round in 0..kills {
        again_as_before(&world);
        let mut child = start(&world, &["backup", "-q", "source"]);
        // Evenly over the run, and a little behind its end.
        let part = (round as f64 + random.below(1000) as f64 / 1000.0) / kills as f64 * 1.05;
        let started = Instant::now();
        std::thread::sleep(whole.mul_f64(part));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        let moment = format!("seed {seed}, round {round}, {part:.3} of {whole:?}");
        // The first backup left one; what has its final name is complete.
        let packs = world.objects("data").into_iter().filter(|path| is_pack(path)).count();
        let summary = goes_on(&world, &moment);
        let (added, total) = added(&summary);
        assert!(packs < 2 || added < total, "{moment}: all was stored again: {summary}");
        reused += u64::from(added < total && !ended);
        if ended {
            whole = whole.min(started.elapsed());
        }
    }
    println!("{kills} kills, {reused} with something to reuse, a whole backup takes {whole:?}");
}

/// A backup that gets a signal when it has read so much.
fn stopped_after(world: &World, bytes: u64, which: Signal) -> Ran {
    again_as_before(world);
    let child = start(world, &["backup", "source"]);
    let patience = Instant::now();
    while has_read(&child) < bytes && patience.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, which);
    Ran::from(child.wait_with_output().unwrap())
}

#[test]
fn asked_to_stop() {
    let world = world();
    for (which, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut ran = stopped_after(&world, 50 << 20, which);
        let mut most = 0.75;
        // On a busy machine the signal may come when all is done; then it has to come sooner, and less may be stored by then.
        for sooner in 1..=6 {
            if ran.code == 0 {
                ran = stopped_after(&world, (50 << 20) >> sooner, which);
                most = 1.0;
            }
        }
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(world.objects("snapshots").len(), 1, "{ran:?}");
        let summary = goes_on(&world, "asked to stop");
        let (added, total) = added(&summary);
        assert!(added as f64 <= total as f64 * most + 65_536.0, "all was stored again: {summary}");
    }
}

#[test]
fn a_killed_restore_leaves_no_half_file() {
    let world = world();
    world.run(["backup", "-q", "source"]).succeeds();
    let source = files(&world.path("source"));
    let mut random = Random(5);
    for round in 0..4 {
        let mut child = start(&world, &["restore", "-q", "latest", "-t", "out"]);
        std::thread::sleep(Duration::from_millis(5 + round * 25 + random.below(25) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let deep = world.path("out").join(world.path("source").strip_prefix("/").unwrap());
        if deep.exists() {
            for (name, bytes) in files(&deep) {
                let whole = source.get(&name).is_none_or(|whole| *whole == bytes);
                let file = name.file_name().unwrap().to_str().unwrap();
                assert!(whole && (source.contains_key(&name) || file.starts_with('.')), "{name:?} is half a file");
            }
        }
    }
    // The same command again makes it whole; what the killed ones left under temporary names is all that is more.
    world.run(["restore", "-q", "latest", "-t", "out"]).succeeds();
    let differences = same(&world, "source", "out");
    let wrong = |line: &&String| !line.contains("only in the second") && !line.contains("time");
    assert!(!differences.iter().any(|line| wrong(&line)), "{differences:?}");
}
