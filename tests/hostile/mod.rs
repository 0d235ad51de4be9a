//! Does firn stay within bounds, honest and inside the target whatever a repository holds, written by somebody with its key?
//! Not for: damage by chance (see `damage`), decoders alone (see `fuzz` and the tests beside them).

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

mod forge;
mod lists;
mod oracle;
mod packs;
mod pages;
mod people;
mod targets;
