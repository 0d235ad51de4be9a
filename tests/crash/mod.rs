//! Does a process that is killed, or a disk that fills up, leave everything as it must be? Not for: damage to objects (see `damage`).

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod disk;
mod disks;
mod faults;
mod kills;
mod lab;
mod operations;
mod power;
mod storm;
mod trace;
