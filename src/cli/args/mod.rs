//! What is typed: options that several commands share, amounts, filters, and pointers for what other programs call them.
//! Not for: what it does (see `command`).

pub(in crate::cli) mod amount;
pub(in crate::cli) mod exclusion;
pub(in crate::cli) mod global;
pub(in crate::cli) mod grouping;
pub(in crate::cli) mod kdf;
pub(in crate::cli) mod output;
pub(in crate::cli) mod pointers;
pub(in crate::cli) mod prune;
pub(in crate::cli) mod repository;
pub(in crate::cli) mod select;
pub(in crate::cli) mod times;
