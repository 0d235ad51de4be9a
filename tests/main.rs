//! The one integration-test binary; each folder beside this file is a question that it answers.
#![allow(clippy::unwrap_used)] // A test that cannot go on must stop.

mod cache;
mod cli;
mod crash;
mod damage;
mod format;
mod hostile;
mod mount;
mod roundtrip;
mod support;
mod tidy;
mod together;
