//! What several questions need: trees to back up, comparisons, running the binary. Not for: tests.

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

pub(crate) mod compare;
pub(crate) mod nasty;
pub(crate) mod run;
mod selftest;

/// Whether tests that need the rights of root are to be left out. Without these rights, and without that wish, they fail.
#[track_caller]
pub(crate) fn without_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let wish = std::env::var_os("FIRN_TEST_NO_ROOT").is_some_and(|value| value == "1");
    assert!(wish, "this test needs root; FIRN_TEST_NO_ROOT=1 leaves such tests out");
    true
}
