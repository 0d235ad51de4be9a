//! What snapshots look like as files: the one place that turns trees into paths, listings and bytes. Mount, restore, ls, dump use it. Not for: how trees are stored (`repository`), or the kernel's rules (`firn-fuse`).
//!
//! | file | question it answers |
//! |---|---|
//! | `path.rs` | which entry is at a path of a snapshot? |
//! | `content.rs` | which bytes does a file have? |
//! | `changes.rs` | what differs between two directories? |
//! | `pages.rs` | which entry of a directory has this name, rank or position? |
//! | `references.rs` | what do pages say about what they name, and is it so? |

pub mod changes;
pub mod content;
pub mod pages;
pub mod path;
pub(crate) mod references;
#[cfg(test)]
pub(crate) mod sample;
