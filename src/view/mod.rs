//! What snapshots look like as files: the one place that turns trees into paths, attributes, listings and byte ranges.
//! Mount, restore, ls, dump use it. Not for: how trees are stored (`repository`), or the kernel's rules (`firn-fuse`).
//!
//! | file | question it answers |
//! |---|---|
//! | `path.rs` | which entry is at a path of a snapshot? |
//! | `content.rs` | which bytes does a file have? |
//! | `changes.rs` | what differs between two directories? |
//! | `pages.rs` | which entry of a directory has this name, rank or position? |
//! | `tree.rs` | which file of a snapshot has this number, and back? |
//! | `names.rs` | what are snapshots called, and which numbers do they get? |
//! | `layout.rs` | where do snapshots stand, and which of them? |
//! | `folders.rs` | which folders are around the snapshots? |
//! | `browse.rs` | all of this as one tree that follows the repository |
//! | `past.rs` | which numbers and names has what is gathered from several snapshots? |
//! | `read.rs` | a range of a file now, and what will be wanted next |
//! | `ahead.rs` | who goes through a tree, and what will such a reader want next? |
//! | `prefetch.rs` | reading ahead, within bounds |
//! | `references.rs` | what do pages say about what they name, and is it so? |

pub mod ahead;
pub mod browse;
pub mod changes;
pub mod content;
pub mod folders;
pub mod layout;
pub mod names;
pub mod pages;
pub mod past;
pub mod path;
pub mod prefetch;
pub mod read;
pub(crate) mod references;
#[cfg(test)]
pub(crate) mod sample;
pub mod tree;
