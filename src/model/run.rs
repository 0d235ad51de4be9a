//! Carries steps out and looks at what comes of them. Not for: what was promised (see `world`).

use super::plain::{Copy, Dice, Plain, groups};
use super::script::{Kind, Step};
use super::world::{Outcome, Promise, SILENT, Told, World, describe, is_below, plain};
use crate::check::{self, CheckOptions, Finding, Severity};
use crate::error::{Error, ErrorKind};
use crate::forget;
use crate::format::tree::Body as Recorded;
use crate::mount::tree::browse::{Node, View};
use crate::mount::tree::read::Reader;
use crate::progress::Stop;
use crate::prune::{self, Limit, PruneOptions};
use crate::repair::{RepairOptions, repair_index};
use crate::restore::{self, Overwrite, RestoreOptions};
use crate::store::ObjectKind;
use std::collections::{BTreeMap, BTreeSet};

/// Snapshots that are kept at most.
const MAX_PROMISES: usize = 6;
/// Bytes of the caches of what is read.
const CACHE: u64 = 1 << 20;

/// Carries out these steps in a new world; a line for each, and what is wrong if anything is.
pub(super) fn run(steps: &[Step]) -> (Vec<String>, Outcome) {
    let mut world = World::new();
    let mut trace = Vec::new();
    for step in steps {
        let done = world.step(*step);
        let line = done.as_ref().map_or_else(|_| "fails".to_owned(), Clone::clone);
        trace.push(format!("{:?} {:x}: {line}", step.kind, step.dice));
        if let Err(error) = done {
            return (trace, Err(error));
        }
    }
    (trace, Ok(()))
}

impl World {
    fn step(&mut self, step: Step) -> Outcome<String> {
        let mut dice = Dice::new(step.dice);
        let machine = dice.roll(2) as usize;
        match step.kind {
            Kind::Change => Ok(self.places.change(&mut dice, true)),
            Kind::Backup => self.back_up_and_forget(machine, 0, dice),
            Kind::BackupBeside => {
                let every = 1 + dice.roll(9);
                self.back_up_and_forget(machine, every, dice)
            }
            Kind::Forget => self.forget(machine, dice.roll(MAX_PROMISES as u64) as usize),
            Kind::Prune => self.prune(machine, &mut dice),
            Kind::Damage => self.damage(machine, &mut dice),
            Kind::Check => self.check(machine),
            Kind::Restore => self.restore(machine, false, &mut dice),
            Kind::RestoreOver => self.restore(machine, true, &mut dice),
            Kind::View => self.view(machine, &mut dice),
        }
    }

    fn back_up_and_forget(&mut self, machine: usize, every: u64, dice: Dice) -> Outcome<String> {
        let done = self.back_up(machine, every, dice)?;
        if self.promises.len() > MAX_PROMISES {
            self.forget(machine, 0)?;
        }
        Ok(done)
    }

    fn forget(&mut self, machine: usize, number: usize) -> Outcome<String> {
        if number >= self.promises.len() {
            return Ok("nothing".to_owned());
        }
        let repository = self.open(Some(machine))?;
        let name = self.promises.remove(number).name;
        forget::forget(&repository, &[name], &mut |_| Ok(())).map_err(|error| format!("forget: {}", error.chain()))?;
        Ok(format!("forget {} by {machine}", name.short()))
    }

    fn prune(&mut self, machine: usize, dice: &mut Dice) -> Outcome<String> {
        let repository = self.open(Some(machine))?;
        let max_unused = if dice.roll(2) == 0 { Limit::Bytes(0) } else { Limit::Share(0.3) };
        let options = PruneOptions { max_unused, consent: true, threads: 1, ..prune::thorough() };
        let pruned = prune::run(&repository, &options, &SILENT, &Stop::new());
        let is_lost = self.promises.iter().any(|promise| !promise.lost.is_empty());
        let told = match pruned {
            Ok(report) => format!("{} packs deleted", report.deleted.packs),
            // It refuses where a live snapshot lacks anything.
            Err(error) if is_lost && error.kind() == ErrorKind::Damaged => format!("refused: {}", error.chain()),
            Err(error) => return Err(format!("prune by {machine}: {}", error.chain())),
        };
        self.look(false)?;
        Ok(format!("prune by {machine}: {told}"))
    }

    fn check(&mut self, machine: usize) -> Outcome<String> {
        let repository = self.open(Some(machine))?;
        let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
        let report = check::run(&repository, &options, &SILENT, &Stop::new());
        let report = report.map_err(|error| format!("check: {}", error.chain()))?;
        let bad = || report.findings.iter().filter(|finding| finding.severity > Severity::Note);
        let words = |finding: &Finding| format!("{}: {}", finding.object, finding.message);
        if let Some(finding) = bad().next().filter(|_| !self.blemished) {
            return Err(format!("check finds something though nothing is damaged: {}", words(finding)));
        }
        let lost = || self.promises.iter().flat_map(|promise| promise.lost.iter().map(move |path| (promise, path)));
        let top = self.top();
        for (promise, path) in lost() {
            let full = [&top[..], path].concat();
            let names = |finding: &Finding| {
                let mut hit = finding.affected.iter().filter(|affected| affected.snapshot == promise.name);
                let is_hit = hit
                    .any(|affected| affected.path == b"/" || is_below(&BTreeSet::from([affected.path.clone()]), &full));
                finding.severity == Severity::Lost && (is_hit || finding.affected_total > finding.affected.len() as u64)
            };
            if !report.findings.iter().any(names) {
                let found: Vec<_> = report.findings.iter().map(words).collect();
                let path = path.escape_ascii();
                return Err(format!("check does not name {}:{path}, which is lost: {found:?}", promise.name.short()));
            }
        }
        if lost().next().is_none()
            && let Some(finding) = bad().find(|finding| finding.severity == Severity::Lost)
        {
            return Err(format!("check takes something for lost that is there: {}", words(finding)));
        }
        let findings = bad().count();
        self.blemished &= findings > 0;
        self.knows[machine] = true;
        Ok(format!("check by {machine}: {findings} findings"))
    }

    /// Damages something; then one machine looks for it, backs up what there still is, and perhaps the other one prunes.
    fn damage(&mut self, machine: usize, dice: &mut Dice) -> Outcome<String> {
        let kinds = [ObjectKind::Data, ObjectKind::Tree, ObjectKind::Index];
        let kind = *dice.pick(&kinds).expect("there are some");
        let objects = self.objects(|key| key.kind == kind);
        let Some(key) = dice.pick(&objects) else { return Ok("nothing".to_owned()) };
        let (how, at) = (dice.roll(3), dice.next());
        let mut bytes = self.store.raw_get(key).unwrap_or_default();
        match how {
            0 => drop(self.store.raw_remove(key)),
            _ => {
                let at = at as usize % bytes.len().max(1);
                bytes[at] ^= 0x10;
                self.store.raw_set(key, bytes);
            }
        }
        (self.blemished, self.knows) = (true, [false; 2]);
        let mut told = vec![format!("{} {key}", if how == 0 { "remove" } else { "flip a bit of" })];
        if kind == ObjectKind::Index {
            let repository = self.open(Some(machine))?;
            let options = RepairOptions { dry_run: false, read_all: false, keep_missing: false, threads: 1 };
            let repaired = repair_index(&repository, &options, &SILENT, &Stop::new());
            repaired.map_err(|error| format!("repair index: {}", error.chain()))?;
            self.look(false)?;
            told.push(format!("repair index by {machine}"));
        }
        self.look(true)?;
        told.push(self.check(machine)?);
        let hit: Vec<usize> = (0..self.promises.len()).filter(|at| !self.promises[*at].lost.is_empty()).collect();
        if let Some(number) = dice.pick(&hit) {
            told.push(format!("{} snapshots are hit", hit.len()));
            told.push(self.restore_one(machine, *number, false, dice)?);
        }
        if dice.roll(4) > 0 {
            told.push(self.back_up(machine, 0, dice.clone())?);
            self.look(false)?;
        }
        if dice.roll(3) > 0 {
            while let Some(number) = self.promises.iter().position(|promise| !promise.lost.is_empty()) {
                told.push(self.forget(1 - machine, number)?);
            }
        }
        if dice.roll(2) > 0 {
            told.push(self.prune(1 - machine, dice)?);
        }
        Ok(told.join("; "))
    }

    fn restore(&mut self, machine: usize, over: bool, dice: &mut Dice) -> Outcome<String> {
        match self.promises.len() as u64 {
            0 => Ok("nothing".to_owned()),
            count => {
                let number = dice.roll(count) as usize;
                self.restore_one(machine, number, over, dice)
            }
        }
    }

    fn restore_one(&mut self, machine: usize, number: usize, over: bool, dice: &mut Dice) -> Outcome<String> {
        let repository = self.open(Some(machine))?;
        let promise = &self.promises[number];
        let target = self.fast.path().join(if over { "over" } else { "fresh" });
        let overwrite = if over && dice.roll(2) == 0 { Overwrite::Always } else { Overwrite::IfChanged };
        let options = RestoreOptions {
            target: target.clone(),
            overwrite,
            include: vec![],
            exclude: vec![],
            dry_run: false,
            verify: dice.roll(2) == 0,
            threads: 1 + dice.roll(2) as usize,
        };
        let before = Copy::of(&target);
        let told = Told::default();
        let named = self.named(&repository, promise)?;
        let report = restore::run(&repository, &named.snapshot, &self.top(), &options, &told, &Stop::new());
        let after = Copy::of(&target);
        if !over || dice.roll(5) == 0 {
            // It may not have come into being.
            drop(std::fs::remove_dir_all(&target));
        }
        let told = told.0.into_inner().unwrap();
        let words = format!("restore {} by {machine}, {overwrite:?}", promise.name.short());
        match report {
            Ok(report) if report.issues != told.len() as u64 => return Err(format!("{words}: {report:?} {told:?}")),
            Err(error) if promise.lost.is_empty() => return Err(format!("{words}: {}", error.chain())),
            // The folder itself is lost.
            Err(error) => return Ok(format!("{words} fails: {}", error.chain())),
            Ok(_) => {}
        }
        let named: BTreeSet<Vec<u8>> = told.iter().map(|(path, _)| self.relative(path)).collect();
        self.compare_restored(promise, &before, &after, &named, over)
            .map_err(|error| format!("{words}: {error}; {told:?}"))?;
        Ok(words)
    }

    fn compare_restored(
        &self,
        promise: &Promise,
        before: &Copy,
        after: &Copy,
        named: &BTreeSet<Vec<u8>>,
        over: bool,
    ) -> Outcome {
        for (path, states) in &promise.allowed {
            let (found, shown) = (after.paths.get(path), path.escape_ascii());
            let is_named = named.contains(&b""[..]) || is_below(named, path);
            if is_named && !over && !promise.lost.contains(path) {
                return Err(format!("{shown} could not be restored, though it can be read"));
            }
            // What looks as recorded is left as it is, and with what is in the way nothing is done.
            let is_left = |was: &&Plain| {
                let looks_right = states.iter().flatten().any(|state| state.looks_like(was));
                looks_right && found.is_some_and(|found| found.body == was.body)
            };
            let is_excused = is_named || before.paths.get(path).filter(is_left).is_some();
            let is_none = over && states.contains(&None);
            if !promise.allows(path, found) && !is_excused && !is_none {
                return Err(format!("{shown} is {} instead of {}", describe(found), promise.expected(path)));
            }
        }
        if over {
            return Ok(());
        }
        if let Some(path) = after.paths.keys().find(|path| !promise.allowed.contains_key(*path)) {
            return Err(format!("{} was never there", path.escape_ascii()));
        }
        compare_groups(promise, after.files.iter().map(|(path, file)| (path, *file)))
    }

    /// What a mount shows.
    fn view(&mut self, machine: usize, dice: &mut Dice) -> Outcome<String> {
        let Some(promise) = dice.pick(&self.promises) else { return Ok("nothing".to_owned()) };
        let repository = self.open(Some(machine))?;
        let named = self.named(&repository, promise)?;
        let words = format!("view {} by {machine}", promise.name.short());
        let mut seen = Seen::default();
        let reader = Reader::new(repository.clone(), 1, CACHE);
        let shown = View::one(repository.clone(), CACHE, named, &self.top()).and_then(|view| {
            let root = view.root();
            seen.walk(&view, &reader, &root, Vec::new())
        });
        match shown {
            Ok(()) => {}
            Err(_) if !promise.lost.is_empty() => return Ok(format!("{words} fails")),
            Err(error) => return Err(format!("{words}: {}", error.chain())),
        }
        if let Some(path) = seen.other.first() {
            return Err(format!("{words}: the number of {} leads to something else", path.escape_ascii()));
        }
        let paths: BTreeSet<&Vec<u8>> = promise.allowed.keys().chain(seen.found.keys()).collect();
        for path in paths.into_iter().filter(|path| !seen.failed.contains(*path)) {
            let found = seen.found.get(path);
            if !promise.allows(path, found) {
                let (found, expected) = (describe(found), promise.expected(path));
                return Err(format!("{words}: {} is {found} instead of {expected}", path.escape_ascii()));
            }
        }
        if let Some(path) = seen.failed.iter().find(|path| !promise.lost.contains(*path)) {
            return Err(format!("{words}: {} cannot be read", path.escape_ascii()));
        }
        compare_groups(promise, seen.numbers.iter().map(|(path, number)| (path, *number)))
            .map_err(|error| format!("{words}: {error}"))?;
        Ok(words)
    }
}

/// What was seen in a view.
#[derive(Default)]
struct Seen {
    found: BTreeMap<Vec<u8>, Plain>,
    numbers: BTreeMap<Vec<u8>, u64>,
    failed: BTreeSet<Vec<u8>>,
    /// Paths whose numbers lead to other things.
    other: Vec<Vec<u8>>,
}

impl Seen {
    fn walk(&mut self, view: &View, reader: &Reader, folder: &Node, path: Vec<u8>) -> Result<(), Error> {
        let mut below = Vec::new();
        view.list(folder, 0, &mut |_, name, node| {
            below.push(([&path, &b"/"[..], name].concat(), node.clone()));
            Ok(true)
        })?;
        for (path, node) in below {
            let Some(entry) = node.stored().cloned() else { continue };
            let number = view.ino(&node)?;
            let again = view.node(number)?.and_then(|node| node.stored().cloned());
            if again.is_none_or(|again| again.body != entry.body || again.meta.mode != entry.meta.mode) {
                self.other.push(path.clone());
            }
            let mut content = Vec::new();
            if let Recorded::File { size, .. } = &entry.body {
                let read = reader.read(number, &entry, 0, *size as u32, &mut |bytes| content = bytes.to_vec());
                if read.is_err() {
                    self.failed.insert(path);
                    continue;
                }
            }
            let thing = plain(&entry, content);
            if matches!(entry.body, Recorded::Directory { .. }) {
                self.walk(view, reader, &node, path.clone())?;
            } else {
                self.numbers.insert(path.clone(), number);
            }
            self.found.insert(path, thing);
        }
        Ok(())
    }
}

/// The same names are names of the same file as in the folder, if it stood still and nothing is lost.
fn compare_groups<'p>(promise: &'p Promise, found: impl Iterator<Item = (&'p Vec<u8>, u64)>) -> Outcome {
    let Some(still) = promise.still.as_ref().filter(|_| promise.lost.is_empty()) else { return Ok(()) };
    let (found, expected) = (groups(found), groups(still.files.iter().map(|(path, file)| (path, *file))));
    match expected.iter().find(|(path, first)| found.get(*path) != Some(*first)) {
        None => Ok(()),
        Some((path, first)) => {
            let (path, first) = (path.escape_ascii(), first.escape_ascii());
            Err(format!("{path} and {first} are not the same file any more, or others are"))
        }
    }
}
