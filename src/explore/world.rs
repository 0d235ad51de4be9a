//! A point of a run: what is stored, where each actor stands and what it was told, what was promised; and what each choice
//! makes of it. Not for: what an actor does next, which only its code knows (see `gate` for those at work and `script` for what
//! they were seen to do).

use super::oracle::{Breach, Knowledge, Promises, Word};
use super::step::{Change, Choice, Faults, Hash, Objects, Option_, Past, Step, Variant, mix};
use crate::store::{ObjectKey, ObjectKind};
use std::collections::HashSet;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Waiting,
    Done,
    Crashed,
}

#[derive(Clone, Debug)]
struct Actor {
    status: Status,
    at: Option<Arc<Step>>,
    /// How much had changed in the store when the actor came to where it stands.
    since: usize,
    /// All that it was told so far, which decides what it will do.
    history: Hash,
    /// It has put a snapshot.
    has_snapshot: bool,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub objects: Objects,
    contents: Hash,
    /// What came and went, as long as a listing may still lack what came while it ran, or be old.
    changes: Vec<Change>,
    /// How many of them all can see, for somebody has waited since.
    settled: usize,
    actors: Vec<Actor>,
    faults: Faults,
    pub promises: Promises,
}

impl World {
    pub(super) fn new(objects: Objects, actors: usize, faults: Faults, promises: Promises) -> World {
        let contents = objects.values().fold(0, |sum, hash| sum ^ hash);
        let actor = |number: Hash| Actor {
            status: Status::Running,
            at: None,
            since: 0,
            history: mix(number, 1),
            has_snapshot: false,
        };
        let actors = (0..actors as Hash).map(actor).collect();
        World { objects, contents, changes: Vec::new(), settled: 0, actors, faults, promises }
    }

    pub(super) fn status(&self, actor: usize) -> Status {
        self.actors[actor].status
    }

    pub(super) fn history(&self, actor: usize) -> Hash {
        self.actors[actor].history
    }

    pub(super) fn is_any(&self, status: Status) -> bool {
        self.actors.iter().any(|actor| actor.status == status)
    }

    /// Where the actor stands.
    pub(super) fn at(&self, actor: usize) -> Option<&Arc<Step>> {
        self.actors[actor].at.as_ref()
    }

    fn past(&self, actor: usize) -> Past<'_> {
        let since = self.actors[actor].since.min(self.changes.len());
        let unsettled = if self.faults.lags { self.settled } else { self.changes.len() };
        Past { all: &self.changes, since: &self.changes[since..], unsettled: &self.changes[unsettled..] }
    }

    pub(super) fn has_snapshot(&self, actor: usize) -> bool {
        self.actors[actor].has_snapshot
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults
    }

    /// The actor has come to the gate.
    pub(super) fn stand(&mut self, actor: usize, step: Arc<Step>) {
        let since = self.changes.len();
        let actor = &mut self.actors[actor];
        *actor = Actor { status: Status::Waiting, at: Some(step), since, ..*actor };
    }

    /// The actor reads between two steps.
    pub(super) fn read(&mut self, actor: usize, key: &Arc<ObjectKey>) {
        self.actors[actor].history = self.told(actor, &Step::Read(key.clone()), Variant::Go);
    }

    /// The actor says something.
    pub(super) fn say(&mut self, word: &Word) {
        self.promises.take(word);
    }

    /// The actor has come to its end; it does not matter any more what it was told.
    pub(super) fn finish(&mut self, actor: usize) {
        self.actors[actor].status = Status::Done;
        self.actors[actor].history = mix(actor as Hash, 2);
    }

    /// All that may come next, each with the state that it leads to.
    pub(super) fn options(&self) -> Vec<Option_> {
        let mut options = Vec::new();
        for (number, actor) in self.actors.iter().enumerate() {
            let Some(step) = actor.at.as_ref().filter(|_| actor.status == Status::Waiting) else { continue };
            for variant in step.variants(&self.objects, self.past(number), &self.faults) {
                let choice = Choice { actor: number as u8, variant };
                options.push(Option_ { choice, after: self.after(number, step, variant) });
            }
        }
        options
    }

    /// The state after a step: what is stored, what each actor was told, which faults may still come, what was promised.
    fn after(&self, actor: usize, step: &Step, variant: Variant) -> Hash {
        let mut contents = self.contents;
        if let Some((_, hash, _)) = step.change(variant, &self.objects) {
            contents ^= hash;
        }
        let faults = self.faults.after(variant);
        let mut hash = mix(mix(contents, faults.hash()), self.promises.hash());
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
        mix(self.actors[actor].history, step.answer(variant, &self.objects, self.past(actor)))
    }

    /// A line for a person about what the actor does now.
    pub(super) fn describe(&self, actor: usize, variant: Variant, role: &dyn Fn(&ObjectKey) -> String) -> String {
        let at = self.at(actor);
        at.map_or_else(String::new, |step| step.describe(variant, &self.objects, self.past(actor), role))
    }

    /// What a listing leaves out.
    pub(super) fn hidden(&self, actor: usize, variant: Variant) -> Option<Arc<ObjectKey>> {
        self.at(actor)?.hidden(variant, &self.objects, self.past(actor))
    }

    /// What a listing names that has gone.
    pub(super) fn lingering(&self, actor: usize, variant: Variant) -> Option<Arc<ObjectKey>> {
        self.at(actor)?.lingering(variant, &self.objects, self.past(actor))
    }

    /// The actor does what it stands at, or crashes. It is then at work until it comes to the gate again. Returns whether what is
    /// stored has changed.
    pub(super) fn apply(&mut self, choice: Choice) -> bool {
        let actor = usize::from(choice.actor);
        if choice.variant == Variant::Crash {
            self.faults = self.faults.after(choice.variant);
            let crashed = &mut self.actors[actor];
            *crashed = Actor { status: Status::Crashed, at: None, history: mix(actor as Hash, 3), ..*crashed };
            return false;
        }
        let step = self.actors[actor].at.clone().expect("it stands there");
        self.actors[actor].history = self.told(actor, &step, choice.variant);
        self.actors[actor].status = Status::Running;
        self.actors[actor].at = None;
        self.actors[actor].has_snapshot |= matches!(&*step, Step::Put(key, _) if key.kind == ObjectKind::Snapshot);
        if matches!(&*step, Step::Sleep) {
            self.settled = self.settled.max(self.actors[actor].since);
        }
        let mut has_changed = false;
        if let Some((key, hash, is_put)) = step.change(choice.variant, &self.objects) {
            self.contents ^= hash;
            if is_put {
                self.objects.insert(key.clone(), hash);
                self.promises.put(actor, key);
            } else {
                self.objects.remove(key);
            }
            if self.faults.hidden > 0 || self.faults.stale > 0 {
                self.changes.push((key.clone(), is_put));
            }
            has_changed = true;
        }
        self.faults = self.faults.after(choice.variant);
        has_changed
    }

    /// A hash of what judgements depend on: what is stored and what was promised.
    pub(super) fn rest(&self) -> Hash {
        mix(self.contents, self.promises.hash())
    }

    /// The first promise that is broken; not looked for again where `right` tells that none is.
    pub(super) fn judge(&self, knowledge: &Knowledge, right: &mut HashSet<Hash>) -> Option<Breach> {
        let crime = self.promises.crime();
        if crime.is_some() || right.contains(&self.rest()) {
            return crime.cloned();
        }
        let breach = knowledge.judge(&self.promises, &self.objects);
        if breach.is_none() {
            right.insert(self.rest());
        }
        breach
    }
}
