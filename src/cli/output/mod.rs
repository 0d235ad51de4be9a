//! How results look: messages, progress, lists, tables, JSON. Not for: finding them.

pub(in crate::cli) mod finding;
pub(in crate::cli) mod listing;
pub(in crate::cli) mod message;
pub(in crate::cli) mod past;
pub(in crate::cli) mod progress;
pub(in crate::cli) mod snapshot;
pub(in crate::cli) mod text;
