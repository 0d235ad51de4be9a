//! Does damage to any object stay without a wrong byte, without a panic, and named? Not for: crashes (see `crash`).

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

mod action;
mod case;
mod flips;
mod library;
mod matrix;
mod sample;
mod scenes;

pub(crate) use case::files;
pub(crate) use sample::copy;
