//! Records ⇄ bytes, exactly as `man/firn-repository.7` says. Not for: keys, input or output.

pub mod attributes;
pub mod block;
pub mod bounds;
pub mod bytes;
pub mod config;
pub mod contents;
pub mod coordination;
pub mod entry;
pub mod frame;
pub mod header;
pub mod index;
pub mod json;
pub mod key_slot;
pub mod list;
pub mod message;
#[cfg(test)]
pub(crate) mod mutation;
pub mod padding;
pub mod page;
pub mod page_builder;
pub mod snapshot;
pub mod tree;
