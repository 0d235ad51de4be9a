//! Real mounts of a tree in memory: does the kernel, and do programs, see what the tree says? One binary; each file is a question.
//!
//! Without a usable /dev/fuse these tests fail. FIRN_TEST_NO_FUSE=1 says that this is known and skips them; FIRN_TEST_NO_ROOT=1 does so
//! for the few that only root can do.

// The helpers of tests are tests, too: a failed one ends here.
#![allow(clippy::unwrap_used)]

mod content;
mod faults;
mod lifecycle;
mod listing;
mod memory;
mod metadata;
mod support;
