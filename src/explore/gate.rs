//! The scheduler: every operation on the store is a point at which an actor waits until it is its turn. Not for: which
//! turn comes next (see `search`), or what actors do (see `actors`).
//!
//! An actor is a writer, a pruner or a forget on a thread of its own (a writer has more below it). All run until they
//! stand at the gate; then one of them is let through, does its operation, and computes until it stands there again. So the
//! sequence of choices is all that decides what happens, and the same choices bring the same run.

mod handle;

use super::oracle::{Files, Oracle};
use super::step::{Choice, Faults, Hash, Option_, Step, Variant, mix, of_key};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::store::{MemoryStore, ObjectKey, ObjectKind, Store};
use handle::GateStore;
use std::collections::BTreeSet;
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Running,
    Waiting,
    Done,
    Crashed,
}

#[derive(Debug)]
struct Actor {
    name: String,
    status: Status,
    at: Option<Step>,
    /// How much had changed in the store when the actor came to where it stands.
    since: usize,
    granted: Option<Variant>,
    /// All that it was told so far, which decides what it will do.
    history: Hash,
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

struct State {
    store: MemoryStore,
    keys: BTreeSet<ObjectKey>,
    contents: Hash,
    /// Keys that were put and deleted, in order.
    changes: Vec<(ObjectKey, bool)>,
    actors: Vec<Actor>,
    faults: Faults,
    oracle: Oracle,
    chooser: Box<dyn Chooser>,
    ending: Ending,
    has_ended: bool,
    told: bool,
}

/// Where all actors of a run wait.
pub(super) struct Gate {
    state: Mutex<State>,
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
    matches!(kind, ObjectKind::Config | ObjectKind::Key | ObjectKind::Hold)
}

impl Gate {
    pub(super) fn new(
        store: MemoryStore,
        actors: Vec<String>,
        grain: Grain,
        faults: Faults,
        oracle: Oracle,
        chooser: Box<dyn Chooser>,
        told: bool,
    ) -> Gate {
        let keys: BTreeSet<ObjectKey> = store.raw_keys().into_iter().collect();
        let contents = keys.iter().fold(0, |sum, key| sum ^ of_key(key));
        let turns = actors.iter().map(|_| Condvar::new()).collect();
        let actors = (0..).zip(actors);
        let actors = actors.map(|(number, name): (Hash, String)| Actor {
            name,
            status: Status::Running,
            at: None,
            since: 0,
            granted: None,
            history: mix(number, 1),
        });
        let state = State {
            store,
            keys,
            contents,
            changes: Vec::new(),
            actors: actors.collect(),
            faults,
            oracle,
            chooser,
            ending: Ending::default(),
            has_ended: false,
            told,
        };
        Gate { state: Mutex::new(state), turns, end: Condvar::new(), grain }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What the oracle wants to know of an actor.
    pub(super) fn tell(&self, actor: usize, tell: impl FnOnce(&mut Oracle) -> String) {
        let mut state = self.lock();
        if !state.is_over(actor) {
            let line = tell(&mut state.oracle);
            state.note(actor, &line);
            state.judge();
        }
    }

    /// The actor has come to its end.
    pub(super) fn finish(&self, actor: usize, outcome: &str) {
        let mut state = self.lock();
        if !state.is_over(actor) {
            state.note(actor, outcome);
            state.actors[actor].status = Status::Done;
            state.actors[actor].history = mix(actor as Hash, 2);
            self.advance(&mut state);
        }
    }

    /// Something that is never right.
    pub(super) fn accuse(&self, violation: String) {
        let mut state = self.lock();
        state.ending.violation.get_or_insert(violation);
        self.stop(&mut state);
    }

    /// What has to be restorable now.
    pub(super) fn promised(&self) -> Vec<(ObjectName, Files)> {
        self.lock().oracle.promised()
    }

    /// Waits for the end of the run.
    pub(super) fn ended(&self) -> Ending {
        let mut state = self.lock();
        while !state.has_ended {
            state = self.end.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.ending)
    }

    fn stop(&self, state: &mut State) {
        state.has_ended = true;
        self.turns.iter().for_each(Condvar::notify_all);
        self.end.notify_all();
    }

    /// Lets the next actor through, once all stand at the gate.
    fn advance(&self, state: &mut State) {
        loop {
            if state.has_ended || state.actors.iter().any(|actor| actor.status == Status::Running) {
                return;
            }
            if state.ending.violation.is_some() {
                return self.stop(state);
            }
            let options = state.options();
            if options.is_empty() {
                state.ending.is_whole = state.actors.iter().all(|actor| actor.status != Status::Waiting);
                return self.stop(state);
            }
            let Some(choice) = state.chooser.choose(&options) else {
                return self.stop(state);
            };
            state.ending.choices.push(choice);
            let actor = usize::from(choice.actor);
            if choice.variant == Variant::Crash {
                state.faults.crashes -= 1;
                state.note(actor, "crashes");
                state.actors[actor].status = Status::Crashed;
                state.actors[actor].history = mix(actor as Hash, 3);
                self.turns[actor].notify_all();
                continue;
            }
            state.actors[actor].status = Status::Running;
            state.actors[actor].granted = Some(choice.variant);
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
        assert!(state.actors[actor].at.is_none(), "an actor does one thing at a time: {step:?}");
        state.actors[actor].status = Status::Waiting;
        state.actors[actor].since = state.changes.len();
        state.actors[actor].at = Some(step);
        self.advance(&mut state);
        loop {
            if state.is_over(actor) {
                return Err(stopped());
            }
            if let Some(variant) = state.actors[actor].granted.take() {
                let step = state.actors[actor].at.take().expect("it stands there");
                state.apply(actor, &step, variant);
                return work(&mut state, variant);
            }
            state = self.turns[actor].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads: a point of its own only where that is asked for, yet always part of what the actor was told.
    fn read<T>(&self, actor: usize, key: &ObjectKey, work: impl FnOnce(&MemoryStore) -> Result<T>) -> Result<T> {
        if is_constant(key.kind) {
            return work(&self.lock().store);
        }
        if self.grain == Grain::Reads {
            return self.pass(actor, Step::Read(key.clone()), |state, _| work(&state.store));
        }
        let mut state = self.lock();
        if state.is_over(actor) {
            return Err(stopped());
        }
        let step = Step::Read(key.clone());
        state.actors[actor].history = state.told(actor, &step, Variant::Go);
        work(&state.store)
    }
}

impl State {
    fn is_over(&self, actor: usize) -> bool {
        self.has_ended || matches!(self.actors[actor].status, Status::Crashed | Status::Done)
    }

    /// All that may come next, each with the state that it leads to.
    fn options(&self) -> Vec<Option_> {
        let mut options = Vec::new();
        for (number, actor) in self.actors.iter().enumerate() {
            let Some(step) = actor.at.as_ref().filter(|_| actor.status == Status::Waiting) else { continue };
            let since = &self.changes[actor.since..];
            for variant in step.variants(&self.keys, since, &self.faults) {
                let choice = Choice { actor: number as u8, variant };
                options.push(Option_ { choice, after: self.after(number, step, variant) });
            }
        }
        options
    }

    /// The state after a step: what is stored, what each actor was told, which faults may still come, what was promised.
    fn after(&self, actor: usize, step: &Step, variant: Variant) -> Hash {
        let mut contents = self.contents;
        if let Some((key, _)) = step.change(variant, &self.keys) {
            contents ^= of_key(key);
        }
        let faults = self.faults.after(variant);
        let mut hash = mix(mix(contents, faults.hash()), self.oracle.hash());
        for (number, other) in self.actors.iter().enumerate() {
            let history = match variant {
                _ if number != actor => other.history,
                Variant::Crash => mix(actor as Hash, 3),
                _ => self.told(actor, step, variant),
            };
            hash = mix(hash, history);
        }
        hash
    }

    /// What the actor will have been told after the step.
    fn told(&self, actor: usize, step: &Step, variant: Variant) -> Hash {
        let since = &self.changes[self.actors[actor].since.min(self.changes.len())..];
        mix(self.actors[actor].history, step.answer(variant, &self.keys, since))
    }

    /// Does the step.
    fn apply(&mut self, actor: usize, step: &Step, variant: Variant) {
        if self.told {
            if let Step::Put(key) = step {
                self.oracle.call_after(actor, key);
            }
            let since = &self.changes[self.actors[actor].since..];
            let line = step.describe(variant, &self.keys, since, &mut |key| self.oracle.role(key));
            self.note(actor, &line);
        }
        self.actors[actor].history = self.told(actor, step, variant);
        self.faults = self.faults.after(variant);
        if let Some((key, is_put)) = step.change(variant, &self.keys) {
            self.contents ^= of_key(key);
            self.changes.push((key.clone(), is_put));
            if is_put {
                self.keys.insert(key.clone());
            } else {
                self.keys.remove(key);
            }
        }
    }

    fn note(&mut self, actor: usize, line: &str) {
        if self.told && !line.is_empty() {
            self.ending.history.push(format!("{:<9} {line}", self.actors[actor].name));
        }
    }

    fn judge(&mut self) {
        if self.ending.violation.is_none() {
            self.ending.violation = self.oracle.judge(&self.keys);
        }
    }
}
