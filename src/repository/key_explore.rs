//! Commands that change keys at the same time: all orders of their puts, deletes and listings, and each of them stopped at each of these,
//! over the code itself (tests only). Not for: packs and snapshots under company (see `explore`).
//!
//! Actors run on threads of their own and wait at a gate before each operation; a schedule is the sequence in which they are let through.
//! A state (what is stored, and what each actor was told) that was seen already is not gone on from: the same follows from it.
//! A listing that is not fresh may show an actor what its machine saw last, but for what the actor has changed itself.

use super::keyring::{Keyring, object_name};
use super::keys::{Credentials, create_slot, slot_names};
use super::mistake::{self, Mistake};
use super::rotate::Keychain;
use super::unlock::unlock;
use super::{CacheChoice, OpenOptions, Repository};
use crate::chunk::password::Cost;
use crate::error::{Error, ErrorKind, Result};
use crate::format::header::{HEADER_LEN, Kind};
use crate::id::ObjectName;
use crate::id::random::seeded::{self, Source};
use crate::store::{Listed, MemoryStore, ObjectKey, ObjectKind, Properties, Store};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// How a rotation says that new keys are there and old ones could not be removed.
const IN_PART: &str = "rotated only in part";

const COST: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

/// A command, and whose key files it works with.
#[derive(Clone, Copy, Debug)]
enum Command {
    Add {
        by: u8,
        new: u8,
    },
    /// Removes the slot that key had in the beginning.
    Remove {
        by: u8,
        of: u8,
    },
    /// As a person does it who has no `key passwd`: the new one, then away with the old one.
    Replace {
        by: u8,
        new: u8,
    },
    /// All keys but these are removed.
    Rotate {
        by: u8,
        with: Option<u8>,
    },
    /// Opens the repository and seals a pack.
    Seal {
        by: u8,
    },
}

use Command::{Add, Remove, Replace, Rotate, Seal};

fn credentials(key: u8) -> Credentials {
    Credentials { password: None, key_file: Some(Zeroizing::new(vec![key; 40])) }
}

fn open(store: Arc<dyn Store>, key: u8) -> Result<Repository> {
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
    Repository::open(store, &credentials(key), &options)
}

type Header = [u8; HEADER_LEN];

fn seal(keyring: &Keyring) -> Result<Header> {
    keyring.create(Kind::DataPack).map(|object| object.header)
}

/// The repository of a scenario before anything happens: these keys, and a pack that was sealed.
struct Base {
    keys: Vec<u8>,
    objects: Vec<(ObjectKey, Vec<u8>)>,
    slots: Vec<ObjectName>,
    header: Header,
}

impl Base {
    fn new(keys: &[u8]) -> Base {
        seeded::set(Some(Source::new(b"base")));
        let store = MemoryStore::new();
        Repository::init(&store, &credentials(keys[0]), COST, "").unwrap();
        let repository = open(Arc::new(store.clone()), keys[0]).unwrap();
        for key in &keys[1..] {
            let bytes = create_slot(repository.keyring(), &credentials(*key), COST, "").unwrap();
            store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), bytes);
        }
        let slots = keys.iter().map(|key| unlock(&store, &credentials(*key)).unwrap().slot).collect();
        let header = seal(repository.keyring()).unwrap();
        seeded::set(None);
        let bytes = |key: ObjectKey| (key.clone(), store.raw_get(&key).unwrap());
        Base { keys: keys.to_vec(), objects: store.raw_keys().into_iter().map(bytes).collect(), slots, header }
    }

    /// Where there is one key in the beginning, a rotation that finds another one is to leave it.
    fn removes_others(&self) -> bool {
        self.keys.len() > 1
    }

    fn slot(&self, key: u8) -> ObjectName {
        self.slots[self.keys.iter().position(|other| *other == key).unwrap()]
    }

    fn store(&self) -> MemoryStore {
        let store = MemoryStore::new();
        self.objects.iter().for_each(|(key, bytes)| store.raw_set(key, bytes.clone()));
        store
    }

    /// The header that was sealed, if the command seals one.
    fn run(&self, command: Command, store: Arc<dyn Store>) -> Result<Option<Header>> {
        let changed = match command {
            Add { by, new } => open(store, by)?.add_key(&credentials(new), COST, "").map(drop),
            Remove { by, of } => open(store, by)?.remove_key(self.slot(of)),
            Replace { by, new } => {
                open(store.clone(), by)?.add_key(&credentials(new), COST, "")?;
                open(store, new)?.remove_key(self.slot(by))
            }
            Rotate { by, with } => {
                let mut keychain = Keychain::new(&credentials(by));
                for key in with.iter().copied() {
                    keychain.add_key_file(credentials(key).key_file.unwrap(), key.to_string());
                }
                open(store, by)?.rotate(&keychain, self.removes_others()).map(drop)
            }
            Seal { by } => return seal(open(store, by)?.keyring()).map(Some),
        };
        changed.map(|()| None)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Status {
    Running,
    Waiting,
    Crashed,
    Done(std::result::Result<Option<Header>, String>),
}

struct State {
    store: MemoryStore,
    status: Vec<Status>,
    /// What each actor was told, as a hash.
    told: Vec<blake3::Hash>,
    /// The listing of slots that each actor's machine remembers.
    remembered: Vec<BTreeMap<String, Listed>>,
    /// Whether an actor waits for a listing that may be the remembered one.
    may_be_old: Vec<bool>,
    granted: Option<usize>,
    is_old: bool,
    history: Vec<String>,
    is_over: bool,
}

struct Gate(Mutex<State>, Condvar);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.1.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the actor's turn, and works.
    fn pass<T>(&self, actor: usize, step: &str, work: impl FnOnce(&mut State) -> (Result<T>, String)) -> Result<T> {
        let mut state = self.lock();
        let stopped = || Error::new(ErrorKind::Failed, "the actor has crashed");
        if state.is_over || state.status[actor] == Status::Crashed {
            return Err(stopped());
        }
        state.status[actor] = Status::Waiting;
        self.1.notify_all();
        while state.granted != Some(actor) {
            if state.is_over || state.status[actor] == Status::Crashed {
                return Err(stopped());
            }
            state = self.wait(state);
        }
        let (done, told) = work(&mut state);
        let told = format!("{} {step}: {told}", state.told[actor]);
        state.told[actor] = blake3::hash(told.as_bytes());
        state.history.push(format!("{actor} {step}"));
        state.granted = None;
        state.is_old = false;
        state.status[actor] = Status::Running;
        done
    }
}

/// The store as one actor sees it.
struct GateStore(Arc<Gate>, usize);

impl std::fmt::Debug for GateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GateStore")
    }
}

fn outcome<T>(done: Result<T>) -> (Result<T>, String) {
    let told = if done.is_ok() { "done" } else { "failed" };
    (done, told.into())
}

/// The slots that there are.
fn slots(store: &MemoryStore) -> BTreeMap<String, Listed> {
    let mut found = BTreeMap::new();
    let mut take = |object: Listed| {
        found.insert(object.name.clone(), object);
        Ok(())
    };
    store.list(ObjectKind::Key, &mut take).expect("memory can be listed");
    found
}

impl GateStore {
    /// What this actor did to a slot, its machine remembers as well.
    fn remember(&self, state: &mut State, key: &ObjectKey) {
        let remembered = &mut state.remembered[self.1];
        match slots(&state.store).remove(&key.name) {
            Some(listed) => drop(remembered.insert(key.name.clone(), listed)),
            None => drop(remembered.remove(&key.name)),
        }
    }

    fn list_slots(&self, may_be_old: bool) -> Result<Vec<Listed>> {
        let actor = self.1;
        self.0.lock().may_be_old[actor] = may_be_old;
        self.0.pass(actor, if may_be_old { "lists keys" } else { "lists keys afresh" }, |state| {
            if !state.is_old {
                state.remembered[actor] = slots(&state.store);
            }
            state.may_be_old[actor] = false;
            let names: Vec<String> = state.remembered[actor].keys().cloned().collect();
            (Ok(state.remembered[actor].values().cloned().collect()), names.join(" "))
        })
    }
}

impl Store for GateStore {
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        self.0.pass(self.1, &format!("puts {key}"), |state| {
            let done = outcome(state.store.put(key, bytes));
            self.remember(state, key);
            done
        })
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        self.0.lock().store.get(key, limit)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.lock().store.get_range(key, offset, buffer)
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        self.0.lock().store.size(key)
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        match kind {
            ObjectKind::Key => self.list_slots(true)?.into_iter().try_for_each(visit),
            _ => self.0.lock().store.list(kind, visit),
        }
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        match kind {
            ObjectKind::Key => self.list_slots(false)?.into_iter().try_for_each(visit),
            _ => self.0.lock().store.list_fresh(kind, visit),
        }
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.0.pass(self.1, &format!("deletes {key}"), |state| {
            let done = outcome(state.store.delete(key));
            self.remember(state, key);
            done
        })
    }

    fn properties(&self) -> Properties {
        Properties { location: "gate".into(), ..Properties::default() }
    }
}

/// Lets this actor go on, with an old listing, or stop for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Go(usize),
    Old(usize),
    Crash(usize),
}

struct Scenario {
    base: Base,
    commands: Vec<Command>,
    crashes: usize,
    has_old_listings: bool,
    mistake: Option<Mistake>,
}

#[derive(Debug, Default)]
struct Found {
    states: usize,
    ends: usize,
    violation: Option<String>,
}

impl Scenario {
    fn new(keys: &[u8], commands: &[Command], crashes: usize) -> Scenario {
        let (base, commands) = (Base::new(keys), commands.to_vec());
        Scenario { base, commands, crashes, has_old_listings: true, mistake: None }
    }

    fn explore(&self) -> Found {
        self.explore_up_to(usize::MAX)
    }

    /// The same, of about so many states at most: branches are then taken in a random order that is always the same.
    fn explore_up_to(&self, most: usize) -> Found {
        let (mut found, mut seen, mut judged) = (Found::default(), HashSet::new(), HashSet::new());
        let mut todo = vec![Vec::new()];
        let mut random = 1u64;
        while let Some(last) = todo.len().checked_sub(1).filter(|_| seen.len() < most) {
            // The constants of Knuth's MMIX.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = if most == usize::MAX { last } else { (random >> 33) as usize % todo.len() };
            let prefix = todo.swap_remove(at);
            let (state, choices) = self.run(&prefix, &mut seen, &mut todo);
            let is_end = state.status.iter().all(|status| !matches!(status, Status::Running | Status::Waiting));
            if !is_end {
                continue;
            }
            found.ends += 1;
            // What was left by others in the same way was looked at.
            if !judged.insert(blake3::hash(format!("{:?} {:?}", state.store.raw_keys(), state.status).as_bytes())) {
                continue;
            }
            if let Err(why) = self.judge(&state) {
                let history = state.history.join("\n  ");
                found.violation = Some(format!("{why}\n  {history}\n  {:?}\n  {choices:?}", state.status));
                break;
            }
        }
        found.states = seen.len();
        found
    }

    /// Runs all actors along these choices, and from there on to an end or to a state that was seen. Other choices on that way are to
    /// be tried later.
    fn run(
        &self,
        prefix: &[Choice],
        seen: &mut HashSet<blake3::Hash>,
        todo: &mut Vec<Vec<Choice>>,
    ) -> (State, Vec<Choice>) {
        let count = self.commands.len();
        let store = self.base.store();
        let state = State {
            remembered: vec![slots(&store); count],
            may_be_old: vec![false; count],
            is_old: false,
            store,
            status: vec![Status::Running; count],
            told: vec![blake3::hash(b""); count],
            granted: None,
            history: Vec::new(),
            is_over: false,
        };
        let gate = Arc::new(Gate(Mutex::new(state), Condvar::new()));
        let mut choices = Vec::new();
        std::thread::scope(|scope| {
            for actor in 0..count {
                let gate = gate.clone();
                scope.spawn(move || self.act(&gate, actor));
            }
            let mut state = gate.lock();
            loop {
                while state.granted.is_some() || state.status.contains(&Status::Running) {
                    state = gate.wait(state);
                }
                let waiting = |state: &State| (0..count).filter(|one| state.status[*one] == Status::Waiting).collect();
                let waiting: Vec<usize> = waiting(&state);
                let crashed = state.status.iter().filter(|status| **status == Status::Crashed).count();
                let mut options: Vec<Choice> = waiting.iter().map(|actor| Choice::Go(*actor)).collect();
                if self.has_old_listings {
                    let now = slots(&state.store);
                    let is_other = |one: &usize| !state.remembered[*one].keys().eq(now.keys());
                    let may_be_old = waiting.iter().filter(|one| state.may_be_old[**one] && is_other(one));
                    options.extend(may_be_old.map(|actor| Choice::Old(*actor)));
                }
                if crashed < self.crashes {
                    options.extend(waiting.iter().map(|actor| Choice::Crash(*actor)));
                }
                let Some(first) = options.first().copied() else { break };
                let choice = match prefix.get(choices.len()) {
                    Some(choice) => *choice,
                    None if !seen.insert(fingerprint(&state)) => break,
                    None => {
                        todo.extend(options[1..].iter().map(|other| [&choices[..], &[*other]].concat()));
                        first
                    }
                };
                choices.push(choice);
                match choice {
                    Choice::Go(actor) => state.granted = Some(actor),
                    Choice::Old(actor) => {
                        (state.granted, state.is_old) = (Some(actor), true);
                        state.history.push(format!("{actor} gets an old listing"));
                    }
                    Choice::Crash(actor) => {
                        state.status[actor] = Status::Crashed;
                        state.history.push(format!("{actor} crashes"));
                    }
                }
                gate.1.notify_all();
            }
            state.is_over = true;
            gate.1.notify_all();
        });
        let state = Arc::into_inner(gate).expect("all threads have ended").0;
        (state.into_inner().unwrap_or_else(PoisonError::into_inner), choices)
    }

    fn act(&self, gate: &Arc<Gate>, actor: usize) {
        seeded::set(Some(Source::new(&[b'a', actor as u8])));
        mistake::choose(self.mistake);
        let store = Arc::new(GateStore(gate.clone(), actor));
        let done = self.base.run(self.commands[actor], store).map_err(|error| error.chain());
        let mut state = gate.lock();
        if !state.is_over && state.status[actor] != Status::Crashed {
            state.status[actor] = Status::Done(done);
            gate.1.notify_all();
        }
    }

    /// Whether a command says that it has done what it does to the keys that it removes. A rotation that was done only in part has.
    fn has_removed(command: &Command, status: &Status) -> bool {
        match status {
            Status::Done(Ok(_)) => true,
            Status::Done(Err(why)) => matches!(command, Rotate { .. }) && why.contains(IN_PART),
            _ => false,
        }
    }

    /// The keys of the beginning that a command removes.
    fn removes(&self, command: &Command) -> Vec<u8> {
        match *command {
            Remove { of, .. } => vec![of],
            Replace { by, .. } => vec![by],
            Rotate { by, with } if self.base.removes_others() => {
                self.base.keys.iter().copied().filter(|key| *key != by && Some(*key) != with).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Keys that must still open everything: those that were there or that were promised, and that nobody took away. What a command
    /// takes away that failed must be there, but not if it was stopped.
    fn expected(&self, state: &State) -> Vec<u8> {
        let mut keys = self.base.keys.clone();
        let mut gone = Vec::new();
        for (command, status) in self.commands.iter().zip(&state.status) {
            if let (Add { new, .. } | Replace { new, .. }, Status::Done(Ok(_))) = (command, status) {
                keys.push(*new);
                // A rotation that found it may have removed it.
                let others = self.commands.iter().zip(&state.status);
                let is_removed = |(other, status): (&Command, &Status)| match other {
                    Rotate { .. } => {
                        self.base.removes_others() && (Self::has_removed(other, status) || *status == Status::Crashed)
                    }
                    _ => false,
                };
                gone.extend(others.into_iter().any(is_removed).then_some(*new));
            }
            if Self::has_removed(command, status) || *status == Status::Crashed {
                gone.extend(self.removes(command));
            }
        }
        keys.retain(|key| !gone.contains(key));
        keys
    }

    /// What was said to be removed is not there, and opens nothing more unless one who works with it was stopped.
    fn judge_removals(&self, state: &State) -> std::result::Result<(), String> {
        let is_by = |command: &Command, key: u8| match *command {
            Add { by, .. } | Remove { by, .. } | Replace { by, .. } | Rotate { by, .. } | Seal { by } => by == key,
        };
        for (command, status) in self.commands.iter().zip(&state.status) {
            if !Self::has_removed(command, status) {
                continue;
            }
            for key in self.removes(command) {
                if slot_names(&state.store).is_ok_and(|names| names.contains(&self.base.slot(key))) {
                    return Err(format!("key {key} was removed and is there"));
                }
                let mut all = self.commands.iter().zip(&state.status);
                let is_left = all.any(|(other, status)| is_by(other, key) && *status == Status::Crashed);
                if !is_left && unlock(&state.store, &credentials(key)).is_ok() {
                    return Err(format!("key {key} was removed and opens"));
                }
            }
        }
        Ok(())
    }

    fn judge(&self, state: &State) -> std::result::Result<(), String> {
        let open = |key: u8| unlock(&state.store, &credentials(key)).map_err(|error| format!("key {key}: {error}"));
        let expected = self.expected(state);
        let mut headers = vec![self.base.header];
        for status in &state.status {
            if let Status::Done(Ok(Some(header))) = status {
                headers.push(*header);
            }
        }
        for key in &expected {
            headers.push(seal(&open(*key)?.keyring).map_err(|error| error.chain())?);
        }
        let reads_all = |key: u8| -> std::result::Result<(), String> {
            let keyring = open(key)?.keyring;
            let read = headers.iter().try_for_each(|header| keyring.open(Kind::DataPack, header).map(drop));
            read.map_err(|error| format!("key {key} does not open a pack: {}", error.chain()))
        };
        expected.iter().try_for_each(|key| reads_all(*key))?;
        let able: Vec<u8> = (0..=9).filter(|key| reads_all(*key).is_ok()).collect();
        self.judge_removals(state)?;
        // A command that was cut off may have left a newer secret that one of them alone has: that one can go on.
        let mut why = "no key opens everything".to_owned();
        for best in able {
            match self.goes_on(state, best, &expected, &headers) {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Whatever was left, the keys can be rotated later, and what was left goes.
    fn goes_on(&self, state: &State, best: u8, expected: &[u8], headers: &[Header]) -> std::result::Result<(), String> {
        let store = MemoryStore::new();
        for key in state.store.raw_keys() {
            store.raw_set(&key, state.store.raw_get(&key).expect("it was just listed"));
            if key.kind == ObjectKind::Key {
                store.raw_set_time(&key, SystemTime::UNIX_EPOCH);
            }
        }
        let mut keychain = Keychain::new(&credentials(best));
        for key in expected.iter().filter(|key| **key != best) {
            keychain.add_key_file(credentials(*key).key_file.expect("it is one"), key.to_string());
        }
        let later = self::open(Arc::new(store.clone()), best).and_then(|repository| {
            repository.rotate(&keychain, true)?;
            for key in expected.iter().chain([&best]) {
                let keyring = unlock(&store, &credentials(*key))?.keyring;
                headers.iter().try_for_each(|header| keyring.open(Kind::DataPack, header).map(drop))?;
            }
            let count = slot_names(&store)?.len();
            let wanted = expected.iter().chain([&best]).collect::<HashSet<_>>().len();
            if count == wanted { Ok(()) } else { Err(Error::damaged(format!("{count} slots for {wanted} keys"))) }
        });
        later.map_err(|error| format!("the keys cannot be rotated afterwards: {}", error.chain()))
    }
}

/// What decides about all that can follow.
fn fingerprint(state: &State) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for key in state.store.raw_keys() {
        hasher.update(key.path().as_bytes());
    }
    for (status, told) in state.status.iter().zip(&state.told) {
        hasher.update(told.as_bytes());
        hasher.update(format!("{status:?}").as_bytes());
    }
    for remembered in &state.remembered {
        remembered.keys().for_each(|name| {
            hasher.update(name.as_bytes());
        });
        hasher.update(b"/");
    }
    hasher.finalize()
}

#[path = "key_explore_tests.rs"]
mod tests;
