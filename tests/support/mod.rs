//! What several questions need: trees to back up, comparisons, running the binary. Not for: tests.

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

pub(crate) mod compare;
pub(crate) mod nasty;
pub(crate) mod run;
mod selftest;
