//! Many processes at once on one repository, killed and paused at random, or left in peace for a long time; a ledger that is
//! none of firn's keeps a plain copy of whatever was acknowledged. Not for: one kill at one moment (see `kills`).
//!
//! The storm raises FIRN_STORM kills and pauses (30 unless told otherwise) from the seed FIRN_SEED; the soak takes FIRN_SOAK
//! seconds (15). The system decides how the processes take turns, so a seed repeats what is asked, not each interleaving.

use crate::damage::copy;
use crate::support::compare;
use crate::support::nasty::Random;
use crate::support::run::{Ran, World};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Folders that are backed up, each by one process at a time.
const FOLDERS: usize = 3;
/// Processes at the same time.
const PROCESSES: usize = 4;
/// What is run beside the backups.
const UPKEEP: [&[&str]; 6] = [
    &["prune", "-q", "--keep-deleted", "0s", "--max-unused", "0", "--max-repack", "unlimited"],
    &["check", "-q"],
    &["prune", "-q", "--keep-deleted", "0s", "--no-repack"],
    &["check", "-q", "--read-data"],
    &["prune", "-q", "--keep-deleted", "0s", "--max-unused", "0", "--max-repack", "unlimited"],
    &["repair", "index", "-q", "--read-all-packs"],
];
/// Snapshots that are not forgotten before there are so many.
const KEPT: usize = 6;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// What was acknowledged: the snapshot, the folder's name then, and a copy of it.
struct Entry {
    id: String,
    folder: PathBuf,
    copy: String,
}

struct Ledger {
    world: World,
    random: Random,
    entries: Vec<Entry>,
    copies: usize,
    forgotten: usize,
    moment: String,
}

impl Ledger {
    fn new(seed: u64) -> Ledger {
        let mut ledger = Ledger {
            world: World::with_key_file(),
            random: Random(seed),
            entries: Vec::new(),
            copies: 0,
            forgotten: 0,
            moment: format!("seed {seed}"),
        };
        for folder in 0..FOLDERS {
            for file in 0..8 {
                ledger.change(folder, file);
            }
        }
        ledger
    }

    /// Gives a file other content; some of it is in other files, too.
    fn change(&mut self, folder: usize, file: usize) {
        let (seed, length) = (self.random.below(40) as u64, 1 + self.random.below(60_000));
        self.world.write(&format!("sources/{folder}/{}/{file}", file % 3), Random(seed).bytes(length));
    }

    /// Changes a folder, keeps a copy, and starts to back it up.
    fn back_up(&mut self, folder: usize) -> (Child, String) {
        for _ in 0..1 + self.random.below(2) {
            let file = self.random.below(8);
            self.change(folder, file);
        }
        self.copies += 1;
        let name = format!("copies/{}", self.copies);
        std::fs::create_dir_all(self.world.path("copies")).unwrap();
        copy(&self.world.path(&format!("sources/{folder}")), &self.world.path(&name));
        (self.start(&["backup", "--json", &format!("sources/{folder}")]), name)
    }

    /// Starts to forget the oldest snapshot, if there are enough. Whether it is done in time or not, nothing is asked of it any more.
    fn forget(&mut self) -> Option<Child> {
        if self.entries.len() < KEPT {
            return None;
        }
        let entry = self.entries.remove(0);
        std::fs::remove_dir_all(self.world.path(&entry.copy)).unwrap();
        self.forgotten += 1;
        Some(self.start(&["forget", "-q", &entry.id]))
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.world.direct(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A backup has ended: success is noted, anything else forgotten. Only who was killed may fail.
    fn ended(&mut self, child: Child, folder: usize, copy: String, killed: bool) {
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert!(!ran.stderr.contains("panicked") && (killed || ran.code == 0), "{}: {ran:?}", self.moment);
        let lines = ran.stdout.lines().rev();
        let said = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).next();
        match said.filter(|said| said["message_type"] == "summary") {
            Some(said) => self.entries.push(Entry {
                id: said["snapshot_id"].as_str().unwrap().to_owned(),
                folder: self.world.path(&format!("sources/{folder}")),
                copy,
            }),
            None => {
                assert!(killed, "{}: success without a summary: {ran:?}", self.moment);
                std::fs::remove_dir_all(self.world.path(&copy)).unwrap();
            }
        }
    }

    /// A check of every byte is clean, and the last `most` acknowledged snapshots are there, bit for bit.
    fn nothing_is_lost(&self, most: usize) {
        let check = self.world.run(["check", "-q", "--read-data"]);
        assert_eq!(check.code, 0, "{}: {check:?}", self.moment);
        for entry in self.entries.iter().rev().take(most) {
            drop(std::fs::remove_dir_all(self.world.path("out")));
            let address = format!("{}:{}", entry.id, entry.folder.display());
            let ran = self.world.run(["restore", "-q", &address, "-t", "out"]);
            assert_eq!(ran.code, 0, "{}: {} is lost: {ran:?}", self.moment, entry.id);
            let differences =
                compare::trees(&self.world.path(&entry.copy), &self.world.path("out"), compare::Options::default());
            assert!(differences.is_empty(), "{}: {}: {differences:?}", self.moment, entry.id);
        }
    }
}

/// A process of the storm.
struct Running {
    child: Child,
    /// What it was told to do, besides backups.
    command: String,
    /// A backup's folder and the copy of it.
    backup: Option<(usize, String)>,
    paused_until: Option<Instant>,
    killed: bool,
}

impl Running {
    fn signal(&self, which: Signal) {
        // It is our child and was not waited for, so the number is still its own.
        let _ = kill_process(Pid::from_child(&self.child), which);
    }
}

#[test]
fn a_storm_of_kills_and_pauses_loses_nothing() {
    let (total, seed) = (number("FIRN_STORM", 30), number("FIRN_SEED", 1));
    let mut ledger = Ledger::new(seed);
    let mut running: Vec<Running> = Vec::new();
    let (mut kills, mut pauses, mut ended) = (0, 0, 0);
    let mut next_look = total / 5;
    while kills + pauses < total || !running.is_empty() {
        ledger.moment = format!("seed {seed}, after {kills} kills and {pauses} pauses");
        let goes_on = kills + pauses < total;
        while goes_on && running.len() < PROCESSES && kills + pauses < next_look.max(1) {
            let folder = ledger.random.below(FOLDERS * 2);
            let is_free =
                |folder: usize| running.iter().all(|one| one.backup.as_ref().is_none_or(|its| its.0 != folder));
            let mut command = String::new();
            let (child, backup) = if folder < FOLDERS && is_free(folder) {
                let (child, copy) = ledger.back_up(folder);
                (child, Some((folder, copy)))
            } else {
                let arguments = UPKEEP[ledger.random.below(UPKEEP.len())];
                let forgetting = if ledger.random.below(3) == 0 { ledger.forget() } else { None };
                command = if forgetting.is_some() { "forget".to_owned() } else { arguments.join(" ") };
                (forgetting.unwrap_or_else(|| ledger.start(arguments)), None)
            };
            running.push(Running { child, command, backup, paused_until: None, killed: false });
        }
        std::thread::sleep(Duration::from_millis(ledger.random.below(60) as u64));
        let now = Instant::now();
        for one in running.iter_mut().filter(|one| one.paused_until.is_some_and(|until| until <= now)) {
            one.paused_until = None;
            one.signal(Signal::CONT);
        }
        if goes_on && kills + pauses < next_look.max(1) && !running.is_empty() {
            let which = ledger.random.below(running.len());
            let (dies, rest) = (ledger.random.below(3) == 0, ledger.random.below(300) as u64);
            let one = &mut running[which];
            if dies {
                one.signal(Signal::KILL);
                (one.killed, kills) = (true, kills + 1);
            } else if one.paused_until.is_none() && !one.killed {
                one.signal(Signal::STOP);
                (one.paused_until, pauses) = (Some(now + Duration::from_millis(rest)), pauses + 1);
            }
        }
        for one in std::mem::take(&mut running) {
            let mut one = one;
            if one.child.try_wait().unwrap().is_none() {
                running.push(one);
                continue;
            }
            ended += 1;
            match one.backup {
                Some((folder, copy)) => ledger.ended(one.child, folder, copy, one.killed),
                None => {
                    let ran = Ran::from(one.child.wait_with_output().unwrap());
                    let fine = (one.killed || ran.code == 0) && !ran.stderr.contains("panicked");
                    assert!(fine, "{}: {}: {ran:?}", ledger.moment, one.command);
                }
            }
        }
        if running.is_empty() && kills + pauses >= next_look {
            ledger.nothing_is_lost(5);
            next_look = (next_look + total / 5).max(next_look + 1);
        }
    }
    ledger.nothing_is_lost(usize::MAX);
    println!(
        "storm: {kills} kills, {pauses} pauses, {ended} processes, {} snapshots acknowledged, {} of them forgotten, 0 lost",
        ledger.entries.len() + ledger.forgotten,
        ledger.forgotten
    );
    assert!(!ledger.entries.is_empty());
}

#[test]
fn backups_and_upkeep_side_by_side_end_clean() {
    let (seconds, seed) = (number("FIRN_SOAK", 15), number("FIRN_SEED", 1));
    let mut ledger = Ledger::new(seed);
    let started = Instant::now();
    let (mut rounds, mut upkeep) = (0, 0_usize);
    let mut third: Option<Child> = None;
    while started.elapsed() < Duration::from_secs(seconds) {
        ledger.moment = format!("seed {seed}, round {rounds}");
        let both: Vec<_> = (0..2).map(|folder| (folder, ledger.back_up(folder))).collect();
        if third.is_none() {
            third = Some(ledger.start(UPKEEP[upkeep % UPKEEP.len()]));
        }
        for (folder, (child, copy)) in both {
            ledger.ended(child, folder, copy, false);
        }
        if third.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
            let ran = third.take().map(|child| Ran::from(child.wait_with_output().unwrap())).unwrap();
            assert_eq!(ran.code, 0, "{}: {ran:?}", ledger.moment);
            upkeep += 1;
        }
        while rounds % 2 == 0
            && let Some(child) = ledger.forget()
        {
            let ran = Ran::from(child.wait_with_output().unwrap());
            assert_eq!(ran.code, 0, "{}: {ran:?}", ledger.moment);
        }
        rounds += 1;
    }
    if let Some(child) = third {
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{}: {ran:?}", ledger.moment);
    }
    ledger.nothing_is_lost(usize::MAX);
    println!(
        "soak: {rounds} rounds of two backups, {} forgotten, {upkeep} runs of upkeep beside them, 0 lost",
        ledger.forgotten
    );
    assert!(rounds > 0 && upkeep > 0, "{rounds} {upkeep}");
}
