//! Which schedules are run: all that lead to states not seen before, or many at random. Not for: running them (see `lab`).

use super::gate::Chooser;
use super::step::{Choice, Hash, Option_, Variant, mix};
use crate::id::random::seeded::Source;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// A search of all schedules, depth first. Threads cannot be rewound, so each run starts again and repeats the choices up to
/// where another one is tried. A choice is tried only if it leads to a state that no run has been in: what happens from there
/// on depends on the state alone.
///
/// With a bound it is a search of all schedules in which an actor that could go on is made to pause at most so many times
/// (Musuvathi and Qadeer, Iterative Context Bounding for Systematic Testing of Multithreaded Programs, 2007). The actor that went
/// last is then part of the state, and a state is looked at again if fewer pauses lead to it.
#[derive(Default)]
pub(super) struct Everything {
    bound: Option<u32>,
    /// The fewest pauses with which a state was come to.
    seen: HashMap<Hash, u32>,
    path: Vec<Tried>,
    /// What is still to be tried at each step of the path.
    rest: Vec<Vec<Tried>>,
    depth: usize,
    pub schedules: u64,
}

/// A choice, the state it leads to, and the pauses up to there.
#[derive(Clone, Copy)]
struct Tried {
    choice: Choice,
    after: Hash,
    pauses: u32,
}

impl Everything {
    pub(super) fn new(bound: Option<u32>) -> Everything {
        Everything { bound, ..Everything::default() }
    }

    pub(super) fn states(&self) -> u64 {
        self.seen.len() as u64 + 1
    }

    /// Turns to the next schedule; false when there is none.
    pub(super) fn next(&mut self) -> bool {
        self.depth = 0;
        if self.schedules == 0 {
            self.schedules = 1;
            return true;
        }
        while let Some(rest) = self.rest.last_mut() {
            self.path.pop();
            while let Some(tried) = rest.pop() {
                if is_new(&self.seen, &tried) {
                    self.seen.insert(tried.after, tried.pauses);
                    self.path.push(tried);
                    self.schedules += 1;
                    return true;
                }
            }
            self.rest.pop();
        }
        false
    }

    fn choose(&mut self, options: &[Option_]) -> Option<Choice> {
        if let Some(tried) = self.path.get(self.depth) {
            let same = options.iter().find(|option| option.choice == tried.choice);
            let after = same.map(|option| self.tried(option, options).after);
            assert_eq!(after, Some(tried.after), "the same choices must bring the same run");
            self.depth += 1;
            return Some(tried.choice);
        }
        let all = options.iter().map(|option| self.tried(option, options));
        let bound = self.bound.unwrap_or(u32::MAX);
        let mut new: Vec<Tried> = all.filter(|tried| tried.pauses <= bound && is_new(&self.seen, tried)).collect();
        new.reverse();
        let tried = new.pop()?;
        self.seen.insert(tried.after, tried.pauses);
        self.path.push(tried);
        self.rest.push(new);
        self.depth += 1;
        Some(tried.choice)
    }

    /// One of the options at this depth of the path.
    fn tried(&self, option: &Option_, options: &[Option_]) -> Tried {
        let Option_ { choice, after } = *option;
        if self.bound.is_none() {
            return Tried { choice, after, pauses: 0 };
        }
        let before = self.depth.checked_sub(1).map(|depth| self.path[depth]);
        let pauses = before.map_or(0, |before| {
            let last = before.choice.actor;
            let could_go_on = options.iter().any(|option| option.choice.actor == last);
            before.pauses + u32::from(choice.actor != last && could_go_on)
        });
        Tried { choice, after: mix(after, choice.actor.into()), pauses }
    }
}

fn is_new(seen: &HashMap<Hash, u32>, tried: &Tried) -> bool {
    seen.get(&tried.after).is_none_or(|pauses| *pauses > tried.pauses)
}

/// The search as the gate sees it.
pub(super) struct Shared(pub Arc<Mutex<Everything>>);

impl Chooser for Shared {
    fn choose(&mut self, options: &[Option_]) -> Option<Choice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).choose(options)
    }
}

/// A schedule that follows from a seed. Half of them let an actor go on for a while before the next one comes; the others
/// run the actor of the highest priority, which drops to the lowest at a few moments (Burckhardt et al., A Randomized
/// Scheduler with Probabilistic Guarantees of Finding Bugs, 2010). Both ways actors pause for as long as it takes.
pub(super) struct Random {
    source: Source,
    priorities: Option<Vec<u32>>,
    last: u8,
    lowest: u32,
    /// An actor goes on for so many steps, on average.
    breath: u32,
}

impl Random {
    pub(super) fn new(seed: u64, actors: usize) -> Random {
        let source = Source::new(&seed.to_le_bytes());
        let mut random = Random { source, priorities: None, last: 0, lowest: 1 << 20, breath: 0 };
        random.breath = 4 << random.below(4);
        if random.below(2) == 0 {
            random.priorities = Some((0..actors).map(|_| (1 << 21) + random.below(1 << 20)).collect());
        }
        random
    }

    fn below(&mut self, bound: u32) -> u32 {
        let mut bytes = [0; 4];
        self.source.fill(&mut bytes);
        u32::from_le_bytes(bytes) % bound
    }
}

impl Chooser for Random {
    fn choose(&mut self, options: &[Option_]) -> Option<Choice> {
        let mut actors: Vec<u8> = options.iter().map(|option| option.choice.actor).collect();
        actors.dedup();
        let goes_on = self.below(self.breath) > 0;
        let actor = match &mut self.priorities {
            Some(priorities) => {
                let first = *actors.iter().max_by_key(|actor| priorities[usize::from(**actor)])?;
                if !goes_on {
                    self.lowest -= 1;
                    priorities[usize::from(first)] = self.lowest;
                }
                first
            }
            None if goes_on && actors.contains(&self.last) => self.last,
            None => {
                let turn = self.below(actors.len() as u32);
                actors[turn as usize]
            }
        };
        self.last = actor;
        let fails = self.below(12) == 0;
        let mut own: Vec<Choice> = options.iter().map(|o| o.choice).filter(|c| c.actor == actor).collect();
        // An actor that waits can only go on by a fault at times; then that has to do.
        if own.iter().any(|choice| choice.is_fault() == fails) {
            own.retain(|choice| choice.is_fault() == fails);
        }
        let turn = self.below(own.len() as u32);
        Some(own[turn as usize])
    }
}

/// The actors take turns in this order, for random numbers of steps; those that are left then go on to their ends. For what only
/// comes to light when many turns come in one order, which chance alone does not bring about.
pub(super) struct Legs {
    source: Random,
    legs: VecDeque<Leg>,
    steps: u32,
}

/// Whose turn, and for how many steps at most; with `None`, for as long as it goes on without a fault.
pub(super) type Leg = (u8, Option<u32>);

impl Legs {
    pub(super) fn new(seed: u64, legs: &[Leg]) -> Legs {
        let mut legs = Legs { source: Random::new(seed, 0), legs: legs.iter().copied().collect(), steps: 0 };
        legs.draw();
        legs
    }

    fn draw(&mut self) {
        self.steps = match self.legs.front() {
            Some((_, Some(most))) => self.source.below(*most) + 1,
            _ => u32::MAX,
        };
    }
}

impl Chooser for Legs {
    fn choose(&mut self, options: &[Option_]) -> Option<Choice> {
        let mut own = Vec::new();
        while let Some((actor, _)) = self.legs.front() {
            own = options.iter().map(|o| o.choice).filter(|c| c.actor == *actor && !c.is_fault()).collect();
            if self.steps > 0 && !own.is_empty() {
                self.steps -= 1;
                break;
            }
            own.clear();
            self.legs.pop_front();
            self.draw();
        }
        if own.is_empty() {
            own = options.iter().map(|option| option.choice).filter(|choice| !choice.is_fault()).collect();
        }
        if own.is_empty() {
            own = options.iter().map(|option| option.choice).collect();
        }
        let turn = self.source.below(own.len() as u32);
        Some(own[turn as usize])
    }
}

/// The choices of an earlier run once more.
pub(super) struct Replay(pub VecDeque<Choice>);

impl Chooser for Replay {
    fn choose(&mut self, options: &[Option_]) -> Option<Choice> {
        let choice = self.0.pop_front()?;
        assert!(options.iter().any(|option| option.choice == choice), "the same choices must bring the same run");
        Some(choice)
    }
}

/// Choices as a person can copy them.
pub(super) fn show(choices: &[Choice]) -> String {
    let word = |choice: &Choice| match choice.variant {
        Variant::Go => choice.actor.to_string(),
        variant => format!("{}:{variant:?}", choice.actor),
    };
    choices.iter().map(word).collect::<Vec<_>>().join(" ")
}
