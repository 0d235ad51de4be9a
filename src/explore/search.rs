//! Schedules at random, or by a plan, or as they were before. Not for: all of them (see `states`), or running them (see `lab`).

use super::gate::Chooser;
use super::step::{Choice, Option_, Variant};
use crate::id::random::seeded::Source;
use std::collections::VecDeque;

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
