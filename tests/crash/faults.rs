//! System calls that fail: fsync, write and rename of the real program answer EIO or ENOSPC at the n-th call of a thread. Not
//! for: a disk that is really full (see `disks`), or the power (see `power`).
//!
//! After each, the repository is judged as it is seen, and as the disk may hold it: after a failed fsync nothing of the file
//! counts. Tries a sample from the seed FIRN_SEED; all of them with FIRN_STATES=all.

use super::disk::Disk;
use super::lab::{Acknowledged, Lab};
use super::power::{acknowledged, judge, most, record, repository, sample};
use crate::support::nasty::Random;
use std::process::Command;

/// Which calls fail how, and up to which number of a thread's calls.
const FAULTS: [(&str, &str, usize); 7] = [
    ("fsync", "EIO", 14),
    ("fsync", "ENOSPC", 8),
    ("write", "ENOSPC", 14),
    ("write", "EIO", 6),
    ("renameat2", "EIO", 6),
    ("unlinkat", "EIO", 4),
    ("openat", "EMFILE", 80),
];

/// Runs a command once for each fault and judges; returns how many runs there were and how many of them did not succeed.
fn fail_everywhere(lab: &Lab, name: &str, arguments: &[&str], before: &[Acknowledged], usual: usize) -> (usize, usize) {
    let (most, seed) = most(usual);
    let mut random = Random(seed);
    let saved = lab.path("saved");
    copy(&lab.path("repository"), &saved);
    let mut faults = Vec::new();
    for (call, error, last) in FAULTS {
        // Of the many calls to open, each eleventh, and none of those that load the program.
        let step = if last > 20 { 11 } else { 1 };
        faults.extend((1..=last).step_by(step).map(|at| (call, error, if step > 1 { at + 30 } else { at })));
    }
    let (mut runs, mut failed) = (0, 0);
    for (call, error, at) in sample(faults, most, &mut random) {
        let text = format!("{name}, seed {seed}, {call} number {at} of each thread answers {error}");
        copy(&saved, &lab.path("repository"));
        drop(std::fs::remove_dir_all(lab.path("cache")));
        let mut disk = Disk::holding(&saved);
        let inject = ["-e".to_owned(), format!("inject={call}:error={error}:when={at}")];
        let (events, code) = record(lab, arguments, &inject);
        for event in &events {
            disk.note(event);
        }
        let said = acknowledged(&disk.said, lab.source(arguments.last().unwrap()));
        // Success is promised with a snapshot, and no snapshot without success.
        if arguments[0] == "backup" {
            assert_eq!(code == 0, said.is_some(), "{text}: code {code}, {}", disk.said);
        }
        let expected: Vec<_> = before.iter().cloned().chain(said).collect();
        let mut states: Vec<_> = disk.states(8, &mut random).into_iter().collect();
        states.push(disk.seen());
        for state in states {
            disk.write(&state, &lab.path("state"));
            judge(lab, &expected, code == 0, true, &format!("{text}, code {code}"));
        }
        runs += 1;
        failed += usize::from(code != 0);
    }
    println!("{name}: {runs} runs with faults, {failed} of them failed");
    (runs, failed)
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    drop(std::fs::remove_dir_all(to));
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn calls_fail_during_a_backup() {
    let lab = Lab::new();
    let before = repository(&lab, &["a"]);
    let (runs, failed) = fail_everywhere(&lab, "backup", &["backup", "--json", "b"], &before, 16);
    assert!(failed * 4 > runs, "{failed} of {runs}");
}

/// An object whose folder could not be made durable may be listed, and another writer may have made it durable since: whoever put it
/// fails, and leaves it.
#[test]
fn an_object_whose_name_may_not_last_stays() {
    let world = crate::support::run::World::with_key_file();
    for (number, kind) in ["index", "snapshots"].into_iter().enumerate() {
        world.write("source/file", Random(number as u64).bytes(300_000));
        let before = world.objects(kind).len();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(world.path("trace")).arg("-P").arg(world.path("repository").join(kind));
        command.args(["-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]);
        command.arg(crate::support::run::FIRN).args(["backup", "-q", "source"]);
        world.surround(&mut command, &[]);
        let failed = command.output().expect("strace must be installed (.ci/setup test)");
        let said = String::from_utf8_lossy(&failed.stderr);
        assert!(failed.status.code() == Some(1) && said.contains("make durable"), "{kind}: {said}");
        assert_eq!(world.objects(kind).len(), before + 1, "{kind}");
        assert_eq!(world.objects("pins"), Vec::<std::path::PathBuf>::new());
        world.run(["backup", "-q", "source"]).succeeds();
        world.run(["check", "-q", "--read-data"]).succeeds();
    }
}
