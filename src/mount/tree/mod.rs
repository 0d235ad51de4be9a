//! The tree that a mount shows: snapshots as folders in which everything has a number. Not for: the kernel (`firn_fuse`), or paths
//! and content of one snapshot (`view`).
//!
//! | file | question it answers |
//! |---|---|
//! | `numbers.rs` | which file of a snapshot has this number, and back? |
//! | `names.rs` | what are snapshots called, and which numbers do they get? |
//! | `layout.rs` | where do snapshots stand, and which of them? |
//! | `folders.rs` | which folders are around the snapshots? |
//! | `browse.rs` | all of this as one tree that follows the repository |
//! | `gathered.rs` | which numbers and names has what is gathered from several snapshots? |
//! | `read.rs` | a range of a file now, and what will be wanted next |
//! | `ahead.rs` | who goes through a tree, and what will such a reader want next? |
//! | `prefetch.rs` | reading ahead, within bounds |

pub mod ahead;
pub mod browse;
pub mod folders;
pub mod gathered;
pub mod layout;
pub mod names;
pub mod numbers;
pub mod prefetch;
pub mod read;
