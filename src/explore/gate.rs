//! The scheduler: every operation on the store is a point at which an actor waits until it is its turn. Not for: which
//! turn comes next (see `search`), or what actors do (see `actors`).
//!
//! An actor is a writer, a pruner or a forget on a thread of its own (a writer has more below it). All run until they
//! stand at the gate; then one of them is let through, does its operation, and computes until it stands there again. So the
//! sequence of choices is all that decides what happens, and the same choices bring the same run.

mod handle;

use super::oracle::{Files, Knowledge, Roles, Word};
use super::script::{Next, Script};
use super::step::{Choice, Hash, Option_, Step, Variant};
use super::world::{Status, World};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ChunkId;
use crate::store::{MemoryStore, ObjectKey, ObjectKind, Store};
use handle::GateStore;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Decides whose turn it is. `None` ends the run before its end.
pub(super) trait Chooser: Send {
    fn choose(&mut self, options: &[Option_]) -> Option<Choice>;
}

/// How finely operations are interleaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Puts, deletes and listings; an object is read together with the listing that named it.
    Listings,
    /// Reads as well.
    Reads,
}

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Choices from the first on.
    pub choices: Vec<Choice>,
    /// A line for each operation.
    pub history: Vec<String>,
    /// What must not have happened.
    pub violation: Option<String>,
    /// All actors came to their end, by themselves or in a crash.
    pub is_whole: bool,
}

/// What all runs of a scenario add to.
pub(super) struct Shared {
    /// What is known of objects.
    pub knowledge: Knowledge,
    /// What actors were seen to do.
    pub script: Script,
    /// What was stored and promised where no promise was broken.
    pub right: HashSet<Hash>,
}

struct State {
    store: MemoryStore,
    world: World,
    roles: Roles,
    /// For each actor, how its turn comes out, once it has come.
    granted: Vec<Option<Variant>>,
    /// For each actor, what it has said since it was told something.
    words: Vec<Vec<Word>>,
    chooser: Box<dyn Chooser>,
    ending: Ending,
    has_ended: bool,
    told: bool,
}

/// Where all actors of a run wait.
pub(super) struct Gate {
    state: Mutex<State>,
    shared: Arc<Mutex<Shared>>,
    turns: Vec<Condvar>,
    end: Condvar,
    grain: Grain,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Failed, "the actor has crashed")
}

/// Kinds that no actor changes.
fn is_constant(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Config | ObjectKind::Key | ObjectKind::Hold | ObjectKind::Damage)
}

impl Gate {
    /// With `told`, the run has a history.
    pub(super) fn new(
        shared: Arc<Mutex<Shared>>,
        world: World,
        roles: Roles,
        grain: Grain,
        chooser: Box<dyn Chooser>,
        told: bool,
    ) -> Gate {
        let store = shared.lock().unwrap_or_else(PoisonError::into_inner).knowledge.store_of(&world.objects);
        let count = roles.actors();
        let state = State {
            store,
            world,
            roles,
            granted: vec![None; count],
            words: vec![Vec::new(); count],
            chooser,
            ending: Ending::default(),
            has_ended: false,
            told,
        };
        let turns = (0..count).map(|_| Condvar::new()).collect();
        Gate { state: Mutex::new(state), shared, turns, end: Condvar::new(), grain }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store as this actor sees it.
    pub(super) fn store(self: &Arc<Gate>, actor: usize) -> Arc<dyn Store> {
        Arc::new(GateStore { gate: self.clone(), actor })
    }

    /// Asks the schedule: which of `count` things the actor does.
    pub(super) fn pick(&self, actor: usize, count: usize) -> Result<usize> {
        self.pass(actor, Step::Pick(count), |_, variant| match variant {
            Variant::Pick(picked) => Ok(usize::from(picked)),
            _ => Err(stopped()),
        })
    }

    /// The pruner waits for these pins. Returns the one that it revokes instead, or nothing when it is worth looking again.
    pub(super) fn wait(&self, actor: usize, pins: Vec<ObjectKey>) -> Result<Option<usize>> {
        self.pass(actor, Step::Wait(pins), |_, variant| match variant {
            Variant::Pick(picked) => Ok(Some(picked.into())),
            _ => Ok(None),
        })
    }

    /// The pruner waits as long as listings lag.
    pub(super) fn sleep(&self, actor: usize) -> Result<()> {
        self.pass(actor, Step::Sleep, |_, _| Ok(()))
    }

    /// A tree that the actor is about to store: the chunks that it needs, and the files in it.
    pub(super) fn learn_tree(&self, tree: ChunkId, needs: Vec<ChunkId>, files: Files) {
        self.shared().knowledge.learn_tree(tree, needs, files);
    }

    /// The actor says something.
    pub(super) fn say(&self, actor: usize, word: Word) {
        let mut state = self.lock();
        if !state.is_over(actor) {
            state.world.say(&word);
            state.words[actor].push(word);
            state.note(actor, word.describe());
            self.judge(&mut state);
        }
    }

    /// The actor has come to its end.
    pub(super) fn finish(&self, actor: usize, outcome: &str) {
        let mut state = self.lock();
        if !state.is_over(actor) {
            state.note(actor, outcome);
            self.take_down(&mut state, actor, Next::End);
            state.world.finish(actor);
            self.advance(&mut state);
        }
    }

    /// Something that is never right.
    pub(super) fn accuse(&self, violation: String) {
        let mut state = self.lock();
        state.ending.violation.get_or_insert(violation);
        self.stop(&mut state);
    }

    /// Waits for the end of the run. Returns what was left as well.
    pub(super) fn ended(&self) -> (Ending, World) {
        let mut state = self.lock();
        while !state.has_ended {
            state = self.end.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (std::mem::take(&mut state.ending), state.world.clone())
    }

    fn stop(&self, state: &mut State) {
        state.has_ended = true;
        self.turns.iter().for_each(Condvar::notify_all);
        self.end.notify_all();
    }

    fn judge(&self, state: &mut State) {
        if state.ending.violation.is_none() {
            let Shared { knowledge, right, .. } = &mut *self.shared();
            let breach = state.world.judge(knowledge, right);
            state.ending.violation = breach.map(|breach| state.roles.describe(&breach));
        }
    }

    /// What the actor does, having been told what it was.
    fn take_down(&self, state: &mut State, actor: usize, next: Next) {
        let words = std::mem::take(&mut state.words[actor]);
        self.shared().script.note(actor, state.world.history(actor), words, next);
    }

    /// Lets the next actor through, once all stand at the gate.
    fn advance(&self, state: &mut State) {
        loop {
            if state.has_ended || state.world.is_any(Status::Running) {
                return;
            }
            if state.ending.violation.is_some() {
                return self.stop(state);
            }
            let options = state.world.options();
            if options.is_empty() {
                state.ending.is_whole = !state.world.is_any(Status::Waiting);
                return self.stop(state);
            }
            let Some(choice) = state.chooser.choose(&options) else {
                return self.stop(state);
            };
            state.ending.choices.push(choice);
            let actor = usize::from(choice.actor);
            if choice.variant == Variant::Crash {
                state.note(actor, "crashes");
                state.world.apply(choice);
                self.turns[actor].notify_all();
                continue;
            }
            state.granted[actor] = Some(choice.variant);
            self.turns[actor].notify_all();
            return;
        }
    }

    /// Waits for the actor's turn and then works on the store.
    fn pass<T>(&self, actor: usize, step: Step, work: impl FnOnce(&mut State, Variant) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        if state.is_over(actor) {
            return Err(stopped());
        }
        assert!(state.world.at(actor).is_none(), "an actor does one thing at a time: {step:?}");
        let step = Arc::new(step);
        self.take_down(&mut state, actor, Next::Step(step.clone()));
        state.world.stand(actor, step);
        self.advance(&mut state);
        loop {
            if state.is_over(actor) {
                return Err(stopped());
            }
            if let Some(variant) = state.granted[actor].take() {
                state.note_step(actor, variant);
                let done = work(&mut state, variant);
                if state.world.apply(Choice { actor: actor as u8, variant }) {
                    self.judge(&mut state);
                }
                return done;
            }
            state = self.turns[actor].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An object that is about to be put; a hash of what it says.
    fn learn(&self, key: &ObjectKey, bytes: &[u8]) -> Hash {
        self.shared().knowledge.learn(key, bytes)
    }

    /// Reads: a point of its own only where that is asked for, yet always part of what the actor was told.
    fn read<T>(&self, actor: usize, key: &ObjectKey, work: impl FnOnce(&MemoryStore) -> Result<T>) -> Result<T> {
        if is_constant(key.kind) {
            return work(&self.lock().store);
        }
        let key = Arc::new(key.clone());
        if self.grain == Grain::Reads {
            return self.pass(actor, Step::Read(key), |state, _| work(&state.store));
        }
        let mut state = self.lock();
        if state.is_over(actor) {
            return Err(stopped());
        }
        self.take_down(&mut state, actor, Next::Read(key.clone()));
        state.world.read(actor, &key);
        work(&state.store)
    }
}

impl State {
    fn is_over(&self, actor: usize) -> bool {
        self.has_ended || matches!(self.world.status(actor), Status::Crashed | Status::Done)
    }

    fn note(&mut self, actor: usize, line: &str) {
        if self.told && !line.is_empty() {
            self.ending.history.push(format!("{:<9} {line}", self.roles.actor(actor)));
        }
    }

    fn note_step(&mut self, actor: usize, variant: Variant) {
        if self.told {
            if let Some(Step::Put(key, _)) = self.world.at(actor).map(AsRef::as_ref) {
                self.roles.call_after(actor, key);
            }
            let line = self.world.describe(actor, variant, &|key| self.roles.object(key));
            self.note(actor, &line);
        }
    }
}
