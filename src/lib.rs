//! firn keeps encrypted, deduplicated snapshots of files and shows them as folders.
//!
//! The layers, each of which may only look downwards:
//!
//! ```text
//! main → cli → backup · restore · diff · check · repair · forget · prune · stats · du · mount ──→ firn-fuse → fuser
//!                └──→ history → view → repository → format · chunk · store → os · id · error · progress
//! ```
//!
//! `format` (records ⇄ bytes), `chunk` (content ⇄ sealed blocks) and `store` (named objects somewhere) do not know one
//! another; `repository` is the only place where a record is encoded, sealed and stored.

pub mod backup;
pub mod check;
pub mod chunk;
pub mod cli;
pub mod diff;
pub mod du;
pub mod error;
#[cfg(test)]
mod explore;
pub mod forget;
pub mod format;
pub mod history;
pub mod id;
#[cfg(test)]
mod model;
pub mod mount;
pub mod os;
pub mod pattern;
pub mod progress;
pub mod prune;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod stats;
pub mod store;
#[cfg(test)]
mod testing;
pub mod view;
