//! A mount lives with what happens around it: nobody uses it, somebody does while it shall end, it is killed, a prune moves all
//! data. Not for: layouts, or what is shown (see `layouts`, `exact`).

use super::{Mount, is_mounted, listed, top, without_fuse};
use crate::support::nasty::Random;
use crate::support::run::World;
use rustix::process::{Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn world() -> World {
    let world = World::with_repository();
    world.write("source/file", "text");
    world.write("source/folder/deep", "deep");
    world.write("source/large", Random(1).bytes(12 << 20));
    world.backup(0, ["source"]);
    world
}

/// Reads a file from the mount itself, not from what the kernel has kept of it.
fn read_anew(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

/// Whether nothing is said but which snapshot `latest` is.
fn is_which_snapshot(said: &str) -> bool {
    said.lines().count() <= 1 && said.lines().all(|line| line.starts_with("Note: \"latest\" is the snapshot "))
}

#[test]
fn it_ends_when_nobody_uses_it() {
    if without_fuse() {
        return;
    }
    let world = world();
    let address = format!("latest:{}", world.text("source"));
    let mount = Mount::of(&world, &[&address, "--idle-exit", "1s"]);
    let point = mount.path("");
    let held = File::open(mount.path("file")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    // Nothing was asked for, but a file is open.
    assert_eq!(std::io::read_to_string(&held).unwrap(), "text");
    assert!(is_mounted(point.as_path().components().as_path()));
    drop(held);
    let (status, said) = mount.ended();
    assert!(status.code() == Some(0) && is_which_snapshot(&said), "{said}");
    assert!(listed(&point).is_empty());
    // Also in the background, where nobody else would end it.
    fs::create_dir(world.path("past")).unwrap();
    world.run(["mount", "--daemon", "--idle-exit", "1s", "past"]).succeeds();
    assert!(world.path("past/latest").exists());
    let deadline = Instant::now() + Duration::from_secs(20);
    while is_mounted(&world.path("past")) {
        assert!(Instant::now() < deadline, "it goes on and on");
        std::thread::sleep(Duration::from_millis(100));
    }
    world.run(["mount", "past", "--idle-exit", "soon"]).fails(2, &["is no span of time"]);
}

#[test]
fn readers_come_to_their_end_before_it_does() {
    if without_fuse() {
        return;
    }
    let world = world();
    let expected = Random(1).bytes(12 << 20);
    let mount = Mount::of(&world, &[&format!("latest:{}", world.text("source"))]);
    let point = mount.point.clone();
    let (half, right) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let file = File::open(point.join("large")).unwrap();
                let mut buffer = vec![0; 1 << 20];
                for step in 0..12_usize {
                    file.read_exact_at(&mut buffer, (step << 20) as u64).unwrap();
                    right.fetch_add(u64::from(buffer == expected[step << 20..(step + 1) << 20]), Ordering::Relaxed);
                    half.fetch_or(step == 5, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        while !half.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(mount.program(), Signal::TERM).unwrap();
    });
    assert_eq!(right.load(Ordering::Relaxed), 36);
    let (status, said) = mount.ended();
    assert!(status.success() && said.contains("in use") && !is_mounted(&point), "{status} {said}");
}

#[test]
fn a_killed_one_is_no_empty_folder() {
    if without_fuse() {
        return;
    }
    let world = world();
    let mount = Mount::of(&world, &[&format!("latest:{}", world.text("source"))]);
    let point = mount.point.clone();
    let copy = world.text("copy");
    let mirror = || {
        let from = format!("{}/", point.display());
        Command::new("rsync").args(["-a", "--delete", &from, &copy]).output().unwrap().status
    };
    assert!(mirror().success());
    kill_process(mount.program(), Signal::KILL).unwrap();
    mount.forget();
    // What the kernel has kept is right, and all else is an error: nothing is ever missing.
    for name in ["large", "folder/deep"] {
        let error = read_anew(&point.join(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN), "{name}: {error}");
    }
    assert_eq!(rustix::fs::statfs(&point).unwrap_err(), rustix::io::Errno::NOTCONN);
    // Who mirrors it loses nothing.
    fs::remove_file(world.path("copy/large")).unwrap();
    assert!(!mirror().success());
    assert_eq!(listed(Path::new(&copy)), ["file", "folder"]);
    world.run(["umount", point.to_str().unwrap()]).succeeds();
    assert!(listed(&point).is_empty());
    // The next one clears it away, and says so.
    let mount = Mount::on(&world, &point, &[]);
    kill_process(mount.program(), Signal::KILL).unwrap();
    mount.forget();
    let said = world.run(["mount", "--daemon", point.to_str().unwrap()]).succeeds();
    assert!(said.stderr.contains("The dead mount at") && said.stderr.contains("was removed"), "{said:?}");
    let names = ["README.txt", "deleted", "hosts", "ids", "latest", "snapshots", "tags", "versions"];
    assert_eq!(top(&point), names);
    world.run(["umount", point.to_str().unwrap()]).succeeds();
}

#[test]
fn who_reads_whatever_there_is_gets_little() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    for name in ["one", "two", "three"] {
        world.write(&format!("source/{name}/picture"), Random(name.len() as u64).bytes(300_000));
    }
    world.backup(0, ["source"]);
    // A thumbnailer, as far as anybody can see.
    fs::copy("/bin/cat", world.path("tumblerd")).unwrap();
    let address = format!("latest:{}", world.text("source"));
    let reads = |mount: &Mount, program: &str, name: &str| {
        let output = Command::new(program).arg(mount.path(name)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || said.contains("Permission denied"), "{said}");
        output.status.success().then_some(output.stdout)
    };
    let tumblerd = world.text("tumblerd");
    for (policy, expected) in [("deny", false), ("cache", false), ("allow", true)] {
        let mount = Mount::of(&world, &[&address, "--indexers", policy]);
        assert_eq!(reads(&mount, &tumblerd, "one/picture").is_some(), expected, "{policy}");
        assert_eq!(listed(&mount.path("one")), ["picture"]);
        // Others are not hindered, also not by what was refused before.
        assert!(reads(&mount, "/bin/cat", "one/picture").unwrap() == Random(3).bytes(300_000));
    }
    // The usual policy; the last file is in memory by then for whoever wants it.
    let mount = Mount::of(&world, &[&address]);
    assert_eq!(reads(&mount, &tumblerd, "two/picture"), None);
    assert!(reads(&mount, "/bin/cat", "two/picture").is_some() && reads(&mount, &tumblerd, "two/picture").is_some());
}

/// Sets a flag at the end, whatever the end is.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is in one part of the source that stays.
fn part(number: u64) -> Vec<(PathBuf, Vec<u8>)> {
    let small = (0..30).map(|at| (format!("small-{at}"), Random(100 * number + at).bytes(5000)));
    let large = ("large".to_owned(), Random(100 * number + 99).bytes(3 << 20));
    small.chain([large]).map(|(name, bytes)| (PathBuf::from(format!("part-{number}/{name}")), bytes)).collect()
}

#[test]
fn a_prune_may_move_everything_meanwhile() {
    if without_fuse() {
        return;
    }
    const PRUNES: u64 = 3;
    let world = World::with_repository();
    for number in 0..=PRUNES {
        for (name, bytes) in part(number) {
            world.write(&format!("source/{}", name.display()), bytes);
        }
        // Enough pieces that each pack has some.
        for at in 0..40 {
            world.write(&format!("source/drop-{number}/{at}"), Random(1000 * (1 + number) + at).bytes(140_000));
        }
    }
    for number in 0..=PRUNES {
        world.backup(0, ["source"]);
        fs::remove_dir_all(world.path(&format!("source/drop-{number}"))).unwrap();
    }
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &[&format!("latest:{}", world.text("source")), "--refresh", "0"]);
    let check = |number: u64| {
        for (name, bytes) in part(number) {
            let read = read_anew(&mount.path(name.to_str().unwrap()));
            assert!(read.unwrap_or_else(|error| panic!("{name:?}: {error}")) == bytes, "{name:?}");
        }
    };
    check(0);
    let held = File::open(mount.path(&format!("part-{PRUNES}/large"))).unwrap();
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                check(0);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let end = Done(&done);
        for number in 1..=PRUNES {
            let before = world.objects("data");
            world.run(["forget", &format!("latest~{}", PRUNES + 2 - number)]).succeeds();
            world.run(["prune", "--keep-deleted", "0s", "--max-unused", "0", "--max-repack", "unlimited"]).succeeds();
            let kept = before.iter().filter(|path| path.exists()).count();
            assert_eq!(kept, 0, "the prune was to write all of {before:?} anew");
            // Nobody has read these yet, so they are where the index of the mount does not look for them.
            check(number);
        }
        drop(end);
        reader.join().unwrap();
    });
    assert!(rounds.load(Ordering::Relaxed) > 0);
    let mut tail = vec![0; 1 << 20];
    held.read_exact_at(&mut tail, 2 << 20).unwrap();
    assert!(tail == part(PRUNES).pop().unwrap().1[2 << 20..]);
    drop(held);
    world.run(["umount", mount.path("").to_str().unwrap()]).succeeds();
    let (status, said) = mount.ended();
    assert!(status.code() == Some(0) && is_which_snapshot(&said), "{said}");
}
