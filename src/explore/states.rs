//! The search of all schedules of a scenario, state by state. Not for: schedules at random (see `search`).
//!
//! A state is what is stored, what each actor was told and what was promised; what happens from there on depends on it alone,
//! so each is looked at once, however many schedules lead to it. An actor's code runs once for all that it can have been told
//! (see `script`), in a run of all actors from the beginning; and some of the ends that were found this way are come to by such
//! a run as well, which asserts each state on the way.
//!
//! A step that no other actor has to do with is taken at once (see `reach`), which leaves out orders that differ in nothing.
//!
//! With a bound it is a search of all schedules in which an actor that could go on is made to pause at most so many times
//! (Musuvathi and Qadeer, Iterative Context Bounding for Systematic Testing of Multithreaded Programs, 2007). The actor that went
//! last is then part of the state, a state is looked at again if fewer pauses lead to it, and no step is taken before its turn.

use super::gate::{Chooser, Shared};
use super::lab::{Found, Lab, lock};
use super::oracle::Breach;
use super::reach::Reach;
use super::script::Passed;
use super::step::{Choice, Hash, Option_, Variant, mix};
use super::world::{Status, World};
use std::collections::{HashMap, VecDeque};

/// So many ends are come to by real runs, then every second of the next ones, every fourth, and so on.
const SPOT_CHECKS: u64 = 64;

/// A choice, the state it leads to, that state as the search knows it, and the pauses up to there.
#[derive(Clone, Copy)]
struct Tried {
    choice: Choice,
    after: Hash,
    state: Hash,
    pauses: u32,
}

/// States that were come to, 16 bytes each: a part of the hash, long enough that among a thousand million states no two are taken for
/// one another; and with a bound the fewest pauses up to there, else the binary logarithm of how many schedules go on from there.
#[derive(Default)]
struct Seen(HashMap<[u32; 3], f32>);

impl Seen {
    fn short(state: Hash) -> [u32; 3] {
        [0, 32, 64].map(|from| (state >> from) as u32)
    }

    fn get(&self, state: Hash) -> Option<f32> {
        self.0.get(&Self::short(state)).copied()
    }

    fn set(&mut self, state: Hash, what: f32) {
        self.0.insert(Self::short(state), what);
    }
}

/// A state on the way to where the search is.
struct Frame {
    world: World,
    came: Option<Tried>,
    rest: Vec<Tried>,
    ways: f64,
}

pub(super) struct Search<'a> {
    lab: &'a mut Lab,
    bound: Option<u32>,
    seen: Seen,
    path: Vec<Frame>,
    ends: u64,
    stride: u64,
    found: Found,
}

impl Search<'_> {
    pub(super) fn new(lab: &mut Lab, bound: Option<u32>) -> Search<'_> {
        let found = Found::default();
        Search { lab, bound, seen: Seen::default(), path: Vec::new(), ends: 0, stride: 1, found }
    }

    /// Looks at all states, or at as many as `limit` allows.
    pub(super) fn run(mut self, limit: u64) -> Found {
        match self.search(limit) {
            Ok(true) => self.found.is_complete = true,
            Ok(false) => self.found.schedules = self.ends as f64,
            Err(violation) => self.found.violation = Some(violation),
        }
        self.found.states = self.seen.0.len() as u64 + 1;
        self.found.lines = lock(&self.lab.shared).script.len() as u64;
        self.found
    }

    fn search(&mut self, limit: u64) -> Result<bool, String> {
        let world = self.begin()?;
        self.enter(world, None)?;
        while let Some(frame) = self.path.last_mut() {
            let Some(tried) = frame.rest.pop() else {
                let frame = self.path.pop().expect("it is the last one");
                self.leave(&frame);
                continue;
            };
            match (self.seen.get(tried.state), self.bound) {
                (Some(ways), None) => {
                    frame.ways += f64::from(ways).exp2();
                    continue;
                }
                (Some(pauses), Some(_)) if pauses <= tried.pauses as f32 => continue,
                _ => {}
            }
            if self.seen.0.len() as u64 >= limit {
                return Ok(false);
            }
            self.seen.set(tried.state, tried.pauses as f32);
            let world = self.follow(tried)?;
            self.enter(world, Some(tried))?;
        }
        Ok(true)
    }

    /// The first state: all actors stand at the gate for the first time.
    fn begin(&mut self) -> Result<World, String> {
        let at_the_gate = |lab: &Lab| {
            let mut world = lab.world();
            let shared = lock(&lab.shared);
            let is_known = (0..lab.actors()).all(|actor| shared.script.go_on(&mut world, actor).is_some());
            is_known.then_some(world)
        };
        if let Some(world) = at_the_gate(self.lab) {
            return Ok(world);
        }
        self.really_run(VecDeque::new())?;
        Ok(at_the_gate(self.lab).expect("all of them were seen there"))
    }

    /// The state after a choice, all actors at the gate again.
    fn follow(&mut self, tried: Tried) -> Result<World, String> {
        if let Some(world) = self.after(tried)? {
            return Ok(world);
        }
        self.really_run(self.steps(Some(tried)))?;
        Ok(self.after(tried)?.expect("it was seen what the actor does"))
    }

    fn after(&mut self, tried: Tried) -> Result<Option<World>, String> {
        let before = &self.path.last().expect("there is a state to go on from").world;
        match self.foretell(before, tried.choice) {
            Ok(known) => Ok(known.map(|(world, _)| world)),
            Err(breach) => {
                let choices = self.choices(Some(tried));
                Err(self.lab.tell(&choices, &format!("{breach:?}"), "all"))
            }
        }
    }

    /// The same, if it is known what the actor does then.
    fn foretell(&self, before: &World, choice: Choice) -> Result<Option<(World, Passed)>, Breach> {
        let actor = usize::from(choice.actor);
        let step = before.at(actor).expect("it stands there");
        let mut world = before.clone();
        let Shared { knowledge, script, right } = &mut *lock(&self.lab.shared);
        let mut judge = |world: &World| world.judge(knowledge, right).map_or(Ok(()), Err);
        if world.apply(choice) {
            judge(&world)?;
        }
        if choice.variant == Variant::Crash {
            return Ok(Some((world, Passed::default())));
        }
        let Some(passed) = script.go_on(&mut world, actor) else {
            return Ok(None);
        };
        if passed.has_said {
            judge(&world)?;
        }
        let reach = self.lab.reach(before, actor);
        assert!(
            Reach::of_step(step, passed.read).is_within(reach),
            "actor {actor} goes beyond its reach: {step:?}, {passed:?}"
        );
        Ok(Some((world, passed)))
    }

    /// An actor all of whose choices nobody else has to do with, if there is one.
    fn alone(&mut self, world: &World, came: Option<Tried>, options: &[Option_]) -> Result<Option<u8>, String> {
        if self.bound.is_some() || world.faults().is_any() {
            return Ok(None);
        }
        for own in options.chunk_by(|one, two| one.choice.actor == two.choice.actor) {
            let actor = own[0].choice.actor;
            let others = (0..self.lab.actors()).filter(|other| *other != usize::from(actor));
            let others = others.map(|other| self.lab.reach(world, other)).fold(Reach::default(), Reach::with);
            let step = world.at(actor.into()).expect("it stands there").clone();
            let is_alone =
                |passed: Passed| !passed.has_said && Reach::of_step(&step, passed.read).is_independent_of(others);
            let mut are_alone = is_alone(Passed::default());
            for option in own {
                are_alone = are_alone && is_alone(self.passed(world, came, option)?);
            }
            if are_alone {
                return Ok(Some(actor));
            }
        }
        Ok(None)
    }

    /// What an actor does on its way to the gate if it is let through here. A broken promise is left to the search.
    fn passed(&mut self, world: &World, came: Option<Tried>, option: &Option_) -> Result<Passed, String> {
        let passed = |known: Result<Option<(World, Passed)>, Breach>| match known {
            Ok(known) => known.map(|(_, passed)| passed),
            Err(_) => Some(Passed { has_said: true, ..Passed::default() }),
        };
        if let Some(passed) = passed(self.foretell(world, option.choice)) {
            return Ok(passed);
        }
        let mut path = self.steps(came);
        path.push_back((option.choice, option.after));
        self.really_run(path)?;
        Ok(passed(self.foretell(world, option.choice)).expect("it was seen what the actor does"))
    }

    /// Takes up a new state: what can come next, or what is left if that is nothing.
    fn enter(&mut self, world: World, came: Option<Tried>) -> Result<(), String> {
        let options = world.options();
        if options.is_empty() {
            self.ends += 1;
            if !world.is_any(Status::Waiting) {
                let wrong = self.lab.look_at_end(&world);
                wrong.map_err(|violation| self.lab.tell(&self.choices(came), &violation, "all"))?;
            }
            if self.ends.is_multiple_of(self.stride) {
                self.really_run(self.steps(came))?;
                self.stride <<= u32::from(self.ends / self.stride >= SPOT_CHECKS);
            }
        }
        let bound = self.bound.unwrap_or(u32::MAX);
        let alone = self.alone(&world, came, &options)?;
        let all = options.iter().map(|option| self.tried(came, option, &options));
        let is_tried = |tried: &Tried| tried.pauses <= bound && alone.is_none_or(|actor| tried.choice.actor == actor);
        let mut rest: Vec<Tried> = all.filter(is_tried).collect();
        rest.reverse();
        let ways = f64::from(u8::from(options.is_empty()));
        self.path.push(Frame { world, came, rest, ways });
        Ok(())
    }

    /// All that comes after this state was looked at.
    fn leave(&mut self, frame: &Frame) {
        match frame.came {
            Some(came) if self.bound.is_none() => self.seen.set(came.state, frame.ways.log2() as f32),
            Some(_) => {}
            None => self.found.schedules = frame.ways,
        }
        if let Some(before) = self.path.last_mut() {
            before.ways += frame.ways;
        }
    }

    fn tried(&self, came: Option<Tried>, option: &Option_, options: &[Option_]) -> Tried {
        let Option_ { choice, after } = *option;
        if self.bound.is_none() {
            return Tried { choice, after, state: after, pauses: 0 };
        }
        let pauses = came.map_or(0, |came| {
            let last = came.choice.actor;
            let could_go_on = options.iter().any(|option| option.choice.actor == last);
            came.pauses + u32::from(choice.actor != last && could_go_on)
        });
        Tried { choice, after, state: mix(after, choice.actor.into()), pauses }
    }

    /// The choices up to where the search is, and this one.
    fn choices(&self, tried: Option<Tried>) -> Vec<Choice> {
        self.steps(tried).into_iter().map(|(choice, _)| choice).collect()
    }

    /// The same, each with the state that it leads to.
    fn steps(&self, tried: Option<Tried>) -> VecDeque<(Choice, Hash)> {
        let tried = self.path.iter().filter_map(|frame| frame.came).chain(tried);
        tried.map(|tried| (tried.choice, tried.after)).collect()
    }

    /// Brings all actors along a path, and lets them go on as the search will, so that what they do next is known as well.
    fn really_run(&mut self, path: VecDeque<(Choice, Hash)>) -> Result<(), String> {
        self.found.runs += 1;
        let (ending, _) = self.lab.really_run(Box::new(Ahead(path)), false);
        match ending.violation {
            Some(violation) => Err(self.lab.tell(&ending.choices, &violation, "all")),
            None => Ok(()),
        }
    }
}

/// Choices that must lead to these states; then the first one without a fault, again and again.
struct Ahead(VecDeque<(Choice, Hash)>);

impl Chooser for Ahead {
    fn choose(&mut self, options: &[Option_]) -> Option<Choice> {
        let Some((choice, after)) = self.0.pop_front() else {
            return options.iter().map(|option| option.choice).find(|choice| !choice.is_fault());
        };
        let same = options.iter().find(|option| option.choice == choice);
        assert_eq!(same.map(|option| option.after), Some(after), "the same choices must lead to the same state");
        Some(choice)
    }
}
