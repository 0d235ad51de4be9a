//! Does the program say what it should, and end with the right code? Not for: whether data survives (other folders).

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

mod choosing;
mod copies;
mod diff;
mod du;
mod forgetting;
mod json;
mod keeping;
mod limits;
mod man;
mod missing;
mod past;
mod places;
mod readme;
mod refusals;
mod rotation;
mod upkeep;
mod words;
