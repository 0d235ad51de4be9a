//! Runs a scenario under a schedule, as often as is asked for, and looks at what remains. Not for: choosing schedules (see
//! `search`).

use super::actors::{Actor, LEVEL, Role, Stuff, all_at_once, length, noise, record, write_tree};
use super::gate::{Chooser, Ending, Gate, Grain};
use super::oracle::{Files, Knowledge, Oracle};
use super::search::{Everything, Random, Replay, Shared, show};
use super::step::Faults;
use crate::check::{self, CheckOptions, Severity};
use crate::chunk::password::Cost;
use crate::error::{Error, Result};
use crate::id::ObjectName;
use crate::id::random::seeded::{self, Source};
use crate::progress::{Silent, Stop};
use crate::prune;
use crate::repository::keys::Credentials;
use crate::repository::mistake::{self, Mistake};
use crate::repository::writer::Writer;
use crate::repository::{CacheChoice, OpenOptions, Repository};
use crate::store::{MemoryStore, ObjectKey, ObjectKind, Store};
use crate::view::path::find;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Who is at work, on what, and what may go wrong.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub name: &'static str,
    pub stuff: Stuff,
    /// Copies of everything in the repository at the beginning.
    pub copies: usize,
    /// The first snapshot is forgotten already.
    pub is_forgotten: bool,
    pub roles: Vec<Role>,
    pub grain: Grain,
    pub faults: Faults,
    pub mistake: Option<Mistake>,
}

/// A scenario and what all of its runs share.
pub(super) struct Lab {
    scenario: Scenario,
    store: MemoryStore,
    snapshot: ObjectName,
    repository: Arc<Repository>,
    knowledge: Arc<Mutex<Knowledge>>,
    folder: tempfile::TempDir,
    quiet: HashSet<Vec<ObjectKey>>,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub schedules: u64,
    pub states: u64,
    /// All schedules were tried.
    pub is_complete: bool,
    pub violation: Option<String>,
}

fn credentials() -> Credentials {
    Credentials { password: None, key_file: Some(b"key".to_vec().into()) }
}

fn open(store: Arc<dyn Store>, cache: Option<&Path>) -> Result<Arc<Repository>> {
    let cache = cache.map_or(CacheChoice::None, |root| CacheChoice::Root(root.to_owned()));
    let options = OpenOptions { cache, block_cache: 1 << 20 };
    Repository::open(store, &credentials(), &options).map(Arc::new)
}

/// A folder in memory, where the machine has such a thing: each run writes a dozen small files.
fn folder() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.unwrap()
}

impl Lab {
    pub(super) fn new(scenario: Scenario) -> Lab {
        seeded::set(Some(Source::new(b"base")));
        let folder = folder();
        let store = MemoryStore::new();
        Repository::init(&store, &credentials(), Cost::DEFAULT, "").unwrap();
        let repository = open(Arc::new(store.clone()), Some(&folder.path().join("base"))).unwrap();
        let knowledge = Arc::default();
        let oracle = Oracle::new(repository.clone(), Arc::clone(&knowledge), Vec::new());
        let files: Files = vec![("a".into(), 1)];
        // All begin before any of them has stored something: so there are copies.
        let writers: Vec<Writer> =
            (0..scenario.copies).map(|_| Writer::begin(&repository, LEVEL, &Silent).unwrap()).collect();
        let mut snapshot = None;
        for (number, writer) in writers.into_iter().enumerate() {
            let tree = write_tree(&writer, &files, scenario.stuff).unwrap();
            oracle.learn_tree(tree.id, tree.needs, files.clone());
            if number == 0 {
                let session = writer.session();
                let none = Default::default();
                let build = |_| record(&repository, session, 0, tree.id, tree.totals, &none);
                snapshot = Some(writer.commit(build).unwrap().0);
            } else {
                writer.abandon().unwrap();
            }
        }
        let snapshot = snapshot.expect("there is a first writer");
        if scenario.is_forgotten {
            repository.put_tomb(snapshot).unwrap();
        }
        seeded::set(None);
        for key in store.raw_keys() {
            oracle.learn(&key, &store);
        }
        Lab { scenario, store, snapshot, repository, knowledge, folder, quiet: HashSet::new() }
    }

    fn copy_of_store(&self) -> MemoryStore {
        let copy = MemoryStore::new();
        for key in self.store.raw_keys() {
            copy.raw_set(&key, self.store.raw_get(&key).expect("it is listed"));
        }
        copy
    }

    fn names(&self) -> Vec<String> {
        let roles = &self.scenario.roles;
        let name = |(number, role): (usize, &Role)| {
            let before = roles[..number].iter().filter(|other| other.name() == role.name()).count();
            format!("{} {}", role.name(), before + 1)
        };
        roles.iter().enumerate().map(name).collect()
    }

    fn oracle(&self) -> Oracle {
        let mut oracle = Oracle::new(self.repository.clone(), self.knowledge.clone(), self.names());
        let tree = self.repository.snapshot(self.snapshot).unwrap().tree;
        if !self.scenario.is_forgotten {
            oracle.promise(self.snapshot, tree);
        }
        let mut counts = [0; 5];
        for key in self.store.raw_keys() {
            let (at, what) = match key.kind {
                ObjectKind::Data => (0, "data pack"),
                ObjectKind::Tree => (1, "tree pack"),
                ObjectKind::Index => (2, "segment"),
                ObjectKind::Snapshot => (3, "snapshot"),
                ObjectKind::Tomb => (4, "tomb"),
                _ => continue,
            };
            counts[at] += 1;
            oracle.call(&key, format!("old {what} {}", counts[at]));
        }
        oracle
    }

    fn cache_of(&self, actor: usize) -> PathBuf {
        self.folder.path().join(actor.to_string())
    }

    /// One run. `told` makes a history of it.
    pub(super) fn run(&mut self, chooser: Box<dyn Chooser>, told: bool) -> Ending {
        let store = self.copy_of_store();
        let scenario = &self.scenario;
        let oracle = self.oracle();
        let gate = Gate::new(store.clone(), self.names(), scenario.grain, scenario.faults, oracle, chooser, told);
        let gate = Arc::new(gate);
        let mut ending = std::thread::scope(|scope| {
            for number in 0..scenario.roles.len() {
                let (gate, cache) = (gate.clone(), self.cache_of(number));
                scope.spawn(move || act(scenario, &gate, number, &cache));
            }
            gate.ended()
        });
        for number in 0..scenario.roles.len() {
            drop(std::fs::remove_dir_all(self.cache_of(number)));
        }
        // A mistake shows in the run itself.
        let is_right = ending.violation.is_none() && self.scenario.mistake.is_none();
        if ending.is_whole && is_right && self.quiet.insert(store.raw_keys()) {
            let promised = gate.promised();
            ending.violation = self.look_at(store, &promised).err().map(|error| error.chain());
        }
        ending
    }

    /// All that was promised is there bit for bit; and when nobody is at work any more, a prune runs through and nothing is
    /// wrong with what it leaves.
    fn look_at(&self, store: MemoryStore, promised: &[(ObjectName, Files)]) -> Result<()> {
        self.restore(&store, promised)?;
        for key in store.raw_keys().iter().filter(|key| key.kind == ObjectKind::Pin) {
            store.raw_remove(key);
        }
        let repository = open(Arc::new(store.clone()), None)?;
        // A writer that was revoked and stopped before its tomb leaves a snapshot that nobody was promised; a person forgets it.
        let revoked = repository.revoked()?;
        for named in repository.snapshots()?.live {
            if revoked.contains(&named.snapshot.session) && promised.iter().all(|(name, _)| *name != named.name) {
                repository.put_tomb(named.name)?;
            }
        }
        let pruned = prune::run(&repository, &all_at_once(), &Silent, &Stop::new());
        pruned.map_err(|error| error.context("the last prune failed"))?;
        let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
        let report = check::run(&repository, &options, &Silent, &Stop::new())?;
        if let Some(finding) = report.findings.iter().find(|finding| finding.severity > Severity::Note) {
            return Err(Error::damaged(format!("check says of {}: {}", finding.object, finding.message)));
        }
        self.restore(&store, promised)
    }

    fn restore(&self, store: &MemoryStore, promised: &[(ObjectName, Files)]) -> Result<()> {
        let repository = open(Arc::new(store.clone()), None)?;
        for (name, files) in promised {
            let snapshot = repository.snapshot(*name)?;
            for (file, seed) in files {
                let entry = find(&repository, &snapshot, format!("/{file}").as_bytes())?;
                let crate::format::tree::Body::File { size, content } = entry.body else {
                    return Err(Error::damaged("a file has become something else"));
                };
                let mut bytes = Vec::new();
                crate::view::content::copy(&repository, size, &content, &mut bytes)?;
                if bytes != noise(*seed, length(self.scenario.stuff)) {
                    return Err(Error::damaged(format!("\"{file}\" has other bytes")));
                }
            }
        }
        Ok(())
    }

    /// All schedules, or as many as `limit` allows; with a bound, those with so many pauses at most.
    pub(super) fn explore(&mut self, bound: Option<u32>, limit: u64) -> Found {
        let everything = Arc::new(Mutex::new(Everything::new(bound)));
        let lock = || everything.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (has_next, schedules, states) = {
                let mut everything = lock();
                let has_next = everything.next();
                (has_next, everything.schedules, everything.states())
            };
            if !has_next || schedules > limit {
                return Found { schedules, states, is_complete: !has_next, violation: None };
            }
            let ending = self.run(Box::new(Shared(everything.clone())), false);
            if let Some(violation) = ending.violation {
                let violation = Some(self.tell(&ending.choices, &violation, "all"));
                return Found { schedules, states, is_complete: false, violation };
            }
        }
    }

    /// Schedules that follow from these seeds.
    pub(super) fn sample(&mut self, seeds: std::ops::Range<u64>) -> Found {
        let actors = self.scenario.roles.len();
        self.sample_by(seeds, |seed| Box::new(Random::new(seed, actors)))
    }

    /// Schedules that a chooser makes of these seeds.
    pub(super) fn sample_by(
        &mut self,
        seeds: std::ops::Range<u64>,
        chooser: impl Fn(u64) -> Box<dyn Chooser>,
    ) -> Found {
        let mut schedules = 0;
        let mut states = 0;
        for seed in seeds {
            schedules += 1;
            let ending = self.run(chooser(seed), false);
            states += ending.choices.len() as u64;
            if let Some(violation) = ending.violation {
                let violation = Some(self.tell(&ending.choices, &violation, &format!("seed {seed}")));
                return Found { schedules, states, is_complete: false, violation };
            }
        }
        Found { schedules, states, is_complete: false, violation: None }
    }

    /// What happened, a line for each operation, and how to see it again.
    fn tell(&mut self, choices: &[super::step::Choice], violation: &str, by: &str) -> String {
        self.quiet.clear();
        let again = self.run(Box::new(Replay(choices.iter().copied().collect())), true);
        let history = again.history.join("\n  ");
        let violation = again.violation.unwrap_or_else(|| format!("{violation} (not again when replayed)"));
        let name = self.scenario.name;
        format!("{name} ({by}): {violation}\n  {history}\n  choices: {}", show(choices))
    }
}

/// What an actor's thread does.
fn act(scenario: &Scenario, gate: &Arc<Gate>, number: usize, cache: &Path) {
    seeded::set(Some(Source::new(&[b'a', number as u8])));
    mistake::choose(scenario.mistake);
    let work = || {
        let repository = open(gate.store(number), Some(cache))?;
        let role = scenario.roles[number];
        Actor { number, role, gate: gate.clone(), repository, stuff: scenario.stuff }.work()
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => gate.finish(number, ""),
        Ok(Err(error)) => gate.finish(number, &format!("fails: {}", error.chain())),
        Err(_) => gate.accuse(format!("actor {number} panicked")),
    }
}
