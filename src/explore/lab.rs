//! Runs a scenario under a schedule, as often as is asked for, and looks at what remains. Not for: choosing schedules (see
//! `search`).

use super::actors::{Actor, LEVEL, Role, Stuff, all_at_once, length, noise, record, write_tree};
use super::gate::{Chooser, Ending, Gate, Grain, Shared};
use super::oracle::{Files, Knowledge, Promises, Roles, Word};
use super::reach::Reach;
use super::script::Script;
use super::search::{Random, Replay, show};
use super::states::Search;
use super::step::{Choice, Faults, Hash};
use super::world::{Status, World};
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    begin: World,
    pub(super) shared: Arc<Mutex<Shared>>,
    folder: tempfile::TempDir,
    quiet: HashSet<Hash>,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// How often all actors ran.
    pub runs: u64,
    /// Schedules that were run; or, of a search of all states, all that lead through them, which can be too many for a whole number.
    pub schedules: f64,
    pub states: u64,
    /// What actors do, for all that each was told.
    pub lines: u64,
    /// All schedules were tried.
    pub is_complete: bool,
    pub violation: Option<String>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        crate::os::KEEP_MEMORY.store(true, std::sync::atomic::Ordering::Relaxed);
        seeded::set(Some(Source::new(b"base")));
        let folder = folder();
        let store = MemoryStore::new();
        Repository::init(&store, &credentials(), Cost::DEFAULT, "").unwrap();
        let repository = open(Arc::new(store.clone()), Some(&folder.path().join("base"))).unwrap();
        let mut knowledge = Knowledge::new(repository.clone());
        let mut promises = Promises::default();
        let files: Files = vec![("a".into(), 1)];
        // All begin before any of them has stored something: so there are copies.
        let writers: Vec<Writer> =
            (0..scenario.copies).map(|_| Writer::begin(&repository, LEVEL, &Silent).unwrap()).collect();
        for (number, writer) in writers.into_iter().enumerate() {
            let tree = write_tree(&writer, &files, scenario.stuff).unwrap();
            knowledge.learn_tree(tree.id, tree.needs, files.clone());
            if number > 0 {
                writer.abandon().unwrap();
                continue;
            }
            let session = writer.session();
            let build = |_| record(&repository, session, 0, tree.id, tree.totals, &Default::default());
            let snapshot = writer.commit(build).unwrap().0;
            if !scenario.is_forgotten {
                promises.take(&Word::Promise(snapshot, tree.id));
            } else {
                repository.put_tomb(snapshot).unwrap();
            }
        }
        seeded::set(None);
        let learn = |key: ObjectKey| {
            let hash = knowledge.learn(&key, &store.raw_get(&key).expect("it is listed"));
            (Arc::new(key), hash)
        };
        let objects = store.raw_keys().into_iter().map(learn).collect();
        let begin = World::new(objects, scenario.roles.len(), scenario.faults, promises);
        let shared = Arc::new(Mutex::new(Shared { knowledge, script: Script::default(), right: HashSet::new() }));
        Lab { scenario, begin, shared, folder, quiet: HashSet::new() }
    }

    pub(super) fn actors(&self) -> usize {
        self.scenario.roles.len()
    }

    /// What an actor can still do, if it has not come to its end.
    pub(super) fn reach(&self, world: &World, actor: usize) -> Reach {
        match world.status(actor) {
            Status::Done | Status::Crashed => Reach::default(),
            Status::Running | Status::Waiting => {
                let has_content = self.scenario.stuff == Stuff::Content;
                Reach::of(self.scenario.roles[actor], world.has_snapshot(actor), has_content)
            }
        }
    }

    /// The state before any actor has come to the gate.
    pub(super) fn world(&self) -> World {
        self.begin.clone()
    }

    fn names(&self) -> Vec<String> {
        let roles = &self.scenario.roles;
        let name = |(number, role): (usize, &Role)| {
            let before = roles[..number].iter().filter(|other| other.name() == role.name()).count();
            format!("{} {}", role.name(), before + 1)
        };
        roles.iter().enumerate().map(name).collect()
    }

    fn cache_of(&self, actor: usize) -> PathBuf {
        self.folder.path().join(actor.to_string())
    }

    /// One run, and what is left then. `told` makes a history of it.
    pub(super) fn really_run(&self, chooser: Box<dyn Chooser>, told: bool) -> (Ending, World) {
        let scenario = &self.scenario;
        let roles = Roles::new(self.names(), &self.begin.objects);
        let gate = Gate::new(self.shared.clone(), self.world(), roles, scenario.grain, chooser, told);
        let gate = Arc::new(gate);
        let ended = std::thread::scope(|scope| {
            for number in 0..self.actors() {
                let (gate, cache) = (gate.clone(), self.cache_of(number));
                scope.spawn(move || act(scenario, &gate, number, &cache));
            }
            gate.ended()
        });
        for number in 0..self.actors() {
            drop(std::fs::remove_dir_all(self.cache_of(number)));
        }
        ended
    }

    /// The same; and looks at what is left, if it went to its end.
    pub(super) fn run(&mut self, chooser: Box<dyn Chooser>, told: bool) -> Ending {
        let (mut ending, world) = self.really_run(chooser, told);
        if ending.is_whole && ending.violation.is_none() {
            ending.violation = self.look_at_end(&world).err();
        }
        ending
    }

    /// All that was left at the ends of runs; it will be looked at again if it is left again.
    pub(super) fn take_ends(&mut self) -> HashSet<Hash> {
        std::mem::take(&mut self.quiet)
    }

    /// What is wrong with what is left when all have come to their ends; each such thing is looked at once.
    pub(super) fn look_at_end(&mut self, world: &World) -> Result<(), String> {
        // A mistake shows in the run itself.
        if self.scenario.mistake.is_some() || !self.quiet.insert(world.rest()) {
            return Ok(());
        }
        let (store, promised) = {
            let shared = lock(&self.shared);
            (shared.knowledge.store_of(&world.objects), shared.knowledge.files(&world.promises))
        };
        self.look_at(store, &promised).map_err(|error| error.chain())
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

    /// All states that schedules lead to, or as many as `limit` allows; with a bound, schedules with so many pauses at most.
    pub(super) fn explore(&mut self, bound: Option<u32>, limit: u64) -> Found {
        Search::new(self, bound).run(limit)
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
        let mut found = Found::default();
        for seed in seeds {
            found.runs += 1;
            found.schedules += 1.0;
            let ending = self.run(chooser(seed), false);
            found.states += ending.choices.len() as u64;
            if let Some(violation) = ending.violation {
                found.violation = Some(self.tell(&ending.choices, &violation, &format!("seed {seed}")));
                break;
            }
        }
        found.lines = lock(&self.shared).script.len() as u64;
        found
    }

    /// What happened, a line for each operation, and how to see it again.
    pub(super) fn tell(&mut self, choices: &[Choice], violation: &str, by: &str) -> String {
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
