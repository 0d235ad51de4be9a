//! The power fails between any two system calls of a command, and what was not made durable is lost in every combination.
//! Not for: writes that report an error (see `faults`).
//!
//! Tries a sample of the states from the seed FIRN_SEED; all of them with FIRN_STATES=all.

use super::disk::{Disk, State};
use super::lab::{Acknowledged, Lab, key, open, small_packs};
use super::trace::{self, Change, Event};
use crate::support::nasty::Random;
use crate::support::run::FIRN;
use crate::support::share;
use firn::error::ErrorKind;
use firn::id::ObjectName;
use firn::progress::{Silent, Stop};
use firn::repair::{RepairOptions, repair_index};
use firn::store::{LocalStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Combinations tried at one moment.
const MOST: usize = 64;

/// How many states of one command are tried unless all are, and the seed.
pub(crate) fn most(usual: usize) -> (usize, u64) {
    let all = std::env::var("FIRN_STATES").is_ok_and(|value| value == "all");
    let seed = std::env::var("FIRN_SEED").map_or(1, |text| text.parse().unwrap());
    (if all { usize::MAX } else { share(usual.div_ceil(3), usual) }, seed)
}

/// A random part of a list, in its order.
pub(crate) fn sample<T>(mut list: Vec<T>, most: usize, random: &mut Random) -> Vec<T> {
    while list.len() > most {
        list.remove(random.below(list.len()));
    }
    list
}

/// Runs the program under the recorder in the repository of the lab; its events, and its exit code.
pub(crate) fn record(lab: &Lab, arguments: &[&str], faults: &[String]) -> (Vec<Event>, i32) {
    let file = lab.path("trace");
    let mut command = trace::recorder(&file, faults);
    command.arg(FIRN).args(arguments);
    lab.surround(&mut command);
    let output = command.output().expect("strace must be installed (.ci/setup test)");
    let code = output.status.code().unwrap_or(-1);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{arguments:?}: {output:?}");
    (trace::read(&file, &lab.path("repository")), code)
}

/// The snapshot that a backup of `source` has acknowledged on standard output, if it has.
pub(crate) fn acknowledged(said: &str, source: PathBuf) -> Option<Acknowledged> {
    let line = said.lines().find(|line| line.contains("\"snapshot_id\":\""))?;
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let name = ObjectName::parse(value["snapshot_id"].as_str()?).unwrap();
    Some(Acknowledged { name, source })
}

pub(crate) fn local(path: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::open(path).unwrap())
}

/// A new repository with small packs and snapshots of these folders, made by the program.
pub(crate) fn repository(lab: &Lab, folders: &[&str]) -> Vec<Acknowledged> {
    for name in ["repository", "cache"] {
        drop(std::fs::remove_dir_all(lab.path(name)));
    }
    assert!(lab.firn(&["init", "-q"]).status().unwrap().success());
    small_packs(&local(&lab.path("repository")));
    folders.iter().map(|name| backup(lab, name)).collect()
}

/// Backs up a folder with the program.
pub(crate) fn backup(lab: &Lab, name: &str) -> Acknowledged {
    let output = lab.firn(&["backup", "--json", name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    acknowledged(&String::from_utf8(output.stdout).unwrap(), lab.source(name)).unwrap()
}

/// Takes the note of the newest snapshots that were seen from the local state in "warm".
///
/// The local state there is that of the whole run, also at moments before the snapshot was stored. Most of it claims too much
/// then, which must do no harm; but a run notes its snapshot only once that is durable, and whoever claims to have seen it
/// before rightly hears that it is missing.
fn forget_heads(lab: &Lab) {
    for entry in std::fs::read_dir(lab.path("warm")).unwrap() {
        drop(std::fs::remove_file(entry.unwrap().path().join("heads")));
    }
}

/// The repository in "state" is whole; the local state of the interrupted run is there, or none at all; `said` if the run
/// has acknowledged its snapshot.
pub(crate) fn judge(lab: &Lab, acknowledged: &[Acknowledged], warm: bool, said: bool, moment: &str) {
    let cache = warm.then(|| {
        lab.fresh("warm");
        let copied = std::process::Command::new("cp").arg("-rT").arg(lab.path("cache")).arg(lab.path("warm")).status();
        assert!(copied.unwrap().success());
        if !said {
            forget_heads(lab);
        }
        lab.path("warm")
    });
    let repository = open(local(&lab.path("state")), &key(1), cache.as_deref());
    let repository = repository.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
    lab.is_whole(&repository, acknowledged, moment);
}

/// Every state that the disk may be in if the power fails at any moment of a command, with what is acknowledged by then.
fn states(disk: &Disk, events: &[Event], random: &mut Random) -> Vec<(usize, Disk, State, bool)> {
    let mut disk = disk.clone();
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    for (moment, event) in events.iter().enumerate() {
        if !disk.note(event) {
            continue;
        }
        for state in disk.states(MOST, random) {
            let said = disk.said.contains("\"snapshot_id\":\"");
            if known.insert((state.clone(), said)) {
                found.push((moment, disk.clone(), state, said));
            }
        }
    }
    found
}

/// The power fails at any moment of a command that takes from `before` nothing that was acknowledged.
fn fails_everywhere(lab: &Lab, name: &str, arguments: &[&str], before: &[Acknowledged], usual: usize) -> usize {
    let (most, seed) = most(usual);
    let mut random = Random(seed);
    let disk = Disk::holding(&lab.path("repository"));
    let (events, code) = record(lab, arguments, &[]);
    assert_eq!(code, 0, "{name}");
    let all = states(&disk, &events, &mut random);
    let (count, moments) = (all.len(), events.len());
    let mut tried = 0;
    for (moment, disk, state, said) in sample(all, most, &mut random) {
        disk.write(&state, &lab.path("state"));
        let mut expected = before.to_vec();
        if said {
            expected.extend(acknowledged(&disk.said, lab.source(arguments.last().unwrap())));
        }
        let text = format!("{name}, seed {seed}, after event {moment} {:?}", shorten(&events[moment]));
        judge(lab, &expected, tried % 2 == 1, said, &text);
        tried += 1;
    }
    println!("{name}: {tried} of {count} states at {moments} events");
    count
}

/// Without the bytes.
fn shorten(event: &Event) -> String {
    let text = format!("{event:?}");
    text.chars().take(300).collect()
}

#[test]
fn power_fails_during_backups() {
    let lab = Lab::new();
    let none = repository(&lab, &[]);
    let states = fails_everywhere(&lab, "first backup", &["backup", "--json", "a"], &none, 25);
    assert!(states > 30, "{states}");
    let first = repository(&lab, &["a"]);
    let states = fails_everywhere(&lab, "second backup", &["backup", "--json", "b"], &first, 25);
    assert!(states > 20, "{states}");
}

#[test]
fn power_fails_during_changes_of_keys_and_repair() {
    let lab = Lab::new();
    let before = repository(&lab, &["a"]);
    let second = lab.path("second").display().to_string();
    std::fs::write(&second, [1; 100]).unwrap();
    let add = ["key", "add", "-q", "--new-key-file", &second];
    let states = fails_everywhere(&lab, "key add", &add, &before, 10);
    assert!(states >= 6, "{states}");
    let passwd = ["key", "passwd", "-q", "--new-key-file", &second];
    let states = fails_everywhere(&lab, "key passwd", &passwd, &before, 10);
    assert!(states >= 7, "{states}");
    let repair = ["repair", "index", "-q", "--read-all-packs"];
    let states = fails_everywhere(&lab, "repair index", &repair, &before, 15);
    assert!(states >= 10, "{states}");
}

#[test]
fn power_fails_during_init() {
    let lab = Lab::new();
    let (most, seed) = most(20);
    let mut random = Random(seed);
    let (events, code) = record(&lab, &["init", "-q"], &[]);
    assert_eq!(code, 0);
    let all = states(&Disk::default(), &events, &mut random);
    let count = all.len();
    let mut tried = 0;
    for (moment, disk, state, _) in sample(all, most, &mut random) {
        let text = format!("init, seed {seed}, after event {moment} {}", shorten(&events[moment]));
        disk.write(&state, &lab.path("repository"));
        drop(std::fs::remove_dir_all(lab.path("cache")));
        // Whoever asks again gets a repository, or hears that there is one.
        let again = lab.firn(&["init", "-q"]).output().unwrap();
        let store = LocalStore::open(&lab.path("repository"));
        let store = store.unwrap_or_else(|error| panic!("{text}: {} {again:?}", error.chain()));
        let opened = open(Arc::new(store), &key(1), None);
        let repository = opened.unwrap_or_else(|error| panic!("{text}: {} {again:?}", error.chain()));
        if let Err(error) = repository.check_writable() {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{text}");
        }
        let options = RepairOptions { dry_run: false, read_all: false, keep_missing: false, threads: 2 };
        repair_index(&repository, &options, &Silent, &Stop::new()).unwrap();
        let repository = open(local(&lab.path("repository")), &key(1), None).unwrap();
        lab.is_whole(&repository, &[], &text);
        tried += 1;
    }
    println!("init: {tried} of {count} states at {} events", events.len());
    assert!(count > 100, "{count}");
}

/// One process is killed at any moment, another one backs up and acknowledges, then the power fails: what the first one left
/// undurable and the second one relied on must be there.
#[test]
fn power_fails_after_a_kill_and_a_backup() {
    let lab = Lab::new();
    let (most, seed) = most(12);
    let mut random = Random(seed);
    let before = repository(&lab, &["a"]);
    let start = Disk::holding(&lab.path("repository"));
    let (events, code) = record(&lab, &["backup", "--json", "b"], &[]);
    assert_eq!(code, 0);
    let mut disk = start.clone();
    let mut moments: BTreeMap<usize, Disk> = BTreeMap::new();
    for (moment, event) in events.iter().enumerate() {
        let is_change = matches!(event, Event::Change { .. });
        if disk.note(event) && is_change {
            moments.insert(moment, disk.clone());
        }
    }
    let count = moments.len();
    let (mut tried, mut states) = (0, 0);
    for (moment, mut disk) in sample(moments.into_iter().collect(), most, &mut random) {
        // No call of the killed process goes on.
        disk.stop();
        disk.write(&disk.seen(), &lab.path("repository"));
        drop(std::fs::remove_dir_all(lab.path("cache")));
        let (next, code) = record(&lab, &["backup", "--json", "b"], &[]);
        let text = format!("seed {seed}, killed after event {moment} {}", shorten(&events[moment]));
        assert_eq!(code, 0, "{text}");
        disk.said.clear();
        for event in &next {
            disk.note(&event.numbered_from(1_000_000));
        }
        let said = acknowledged(&disk.said, lab.source("b")).unwrap();
        let expected: Vec<_> = before.iter().cloned().chain([said]).collect();
        for state in disk.states(MOST, &mut random) {
            disk.write(&state, &lab.path("state"));
            judge(&lab, &expected, false, true, &text);
            states += 1;
        }
        tried += 1;
    }
    println!("backup after a kill: {tried} of {count} kills, {states} states after it");
}

/// As above, at the moment that matters most: the killed process has named its index segment and not made the name durable, and
/// the next one stores nothing of its own beside the snapshot.
#[test]
fn power_fails_after_a_backup_that_relies_on_a_killed_one() {
    let lab = Lab::new();
    let before = repository(&lab, &["a"]);
    let start = Disk::holding(&lab.path("repository"));
    let names_index =
        |event: &Event| matches!(event, Event::Change { change: Change::Rename(_, to), .. } if to.starts_with("index"));
    for _ in 0..40 {
        let mut disk = start.clone();
        disk.write(&disk.seen(), &lab.path("repository"));
        let (events, _) = record(&lab, &["backup", "--json", "b"], &[]);
        let end = events.iter().position(names_index).expect("a backup of something new stores an index segment");
        for event in &events[..=end] {
            disk.note(event);
        }
        disk.stop();
        disk.said.clear();
        disk.write(&disk.seen(), &lab.path("repository"));
        drop(std::fs::remove_dir_all(lab.path("cache")));
        let (next, code) = record(&lab, &["backup", "--json", "b"], &[]);
        assert_eq!(code, 0);
        // Other tests make folders beside those of the lab, and the times of folders above are in the snapshot.
        if next.iter().any(names_index) {
            continue;
        }
        for event in &next {
            disk.note(&event.numbered_from(1_000_000));
        }
        let said = acknowledged(&disk.said, lab.source("b")).unwrap();
        let expected: Vec<_> = before.iter().cloned().chain([said]).collect();
        for state in disk.states(MOST, &mut Random(1)) {
            disk.write(&state, &lab.path("state"));
            judge(&lab, &expected, false, true, "the segment of a killed backup");
        }
        return;
    }
    panic!("the folders above the lab never stood still between two backups");
}
