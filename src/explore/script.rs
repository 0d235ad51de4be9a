//! What actors were seen to do: for all that one can have been told, what it does next. Not for: choosing whose turn it is.
//!
//! An actor's code sees the others only through the store, so what it was told decides what it does; this is asserted each time
//! it is seen again. Therefore its code need not run again for each state of the others.

use super::oracle::Word;
use super::reach::Kinds;
use super::step::{Hash, Step};
use super::world::World;
use crate::store::ObjectKey;
use std::collections::HashMap;
use std::sync::Arc;

/// What an actor does once it was told so much.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It comes to the gate with this.
    Step(Arc<Step>),
    /// It reads this, where reads are no steps of their own.
    Read(Arc<ObjectKey>),
    /// It comes to its end.
    End,
}

/// What an actor did on its way to the gate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// It said something.
    pub has_said: bool,
    /// Kinds of objects that it read.
    pub read: Kinds,
}

/// What it says first, and what it does then.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    words: Vec<Word>,
    next: Next,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Script(HashMap<(usize, Hash), Line>);

impl Script {
    /// Takes down what an actor does that was told `history`.
    pub(super) fn note(&mut self, actor: usize, history: Hash, words: Vec<Word>, next: Next) {
        let line = Line { words, next };
        match self.0.get(&(actor, history)) {
            Some(known) => assert_eq!(*known, line, "actor {actor} was told the same and does something else"),
            None => drop(self.0.insert((actor, history), line)),
        }
    }

    /// Lets an actor go on to the gate or to its end; nothing if it is not known what it does, and then the world is not to be used.
    pub(super) fn go_on(&self, world: &mut World, actor: usize) -> Option<Passed> {
        let mut passed = Passed::default();
        loop {
            let line = self.0.get(&(actor, world.history(actor)))?;
            for word in &line.words {
                world.say(word);
            }
            passed.has_said |= !line.words.is_empty();
            match &line.next {
                Next::Read(key) => {
                    passed.read = passed.read.and(key.kind);
                    world.read(actor, key);
                }
                Next::Step(step) => {
                    world.stand(actor, step.clone());
                    return Some(passed);
                }
                Next::End => {
                    world.finish(actor);
                    return Some(passed);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
