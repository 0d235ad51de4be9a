//! The protocol of CONCURRENCY in `man/firn-repository.7`, explored over the code itself: writers, pruners and forgets work on
//! one store under a scheduler that tries all orders of their operations, or many at random. Not for: threads within one actor,
//! or the store's own durability.
//!
//! `actors` do the work and `gate` holds them at each operation (`step`) until `search` lets one go on; `world` is what a choice
//! changes, and `lab` runs a scenario. `oracle` says what must hold after every change: what was promised is still there, and only
//! a forget takes it back. `states` looks at all states that there are, by what `script` knows of each actor.
//!
//! `FIRN_EXPLORE=full` runs everything; without it the tests take a share of some seconds, with `FIRN_TESTS=long` a longer one.

mod actors;
mod gate;
mod lab;
mod oracle;
mod reach;
mod script;
mod search;
mod states;
mod step;
mod tests;
mod world;
