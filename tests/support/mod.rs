//! What several questions need: trees to back up, comparisons, running the binary. Not for: tests.

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

pub(crate) mod compare;
pub(crate) mod nasty;
pub(crate) mod run;
mod selftest;

/// Whether tests with a mount are to be left out.
pub(crate) fn without_fuse() -> bool {
    is_wished("FIRN_TEST_NO_FUSE")
}

fn is_wished(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// How much of its work a test does: `short` for somebody who waits for an answer, `long` in CI and in the campaigns
/// (`FIRN_TESTS=long`).
pub(crate) fn share<T>(short: T, long: T) -> T {
    if std::env::var_os("FIRN_TESTS").is_some_and(|value| value == "long") { long } else { short }
}

/// Whether tests that need the rights of root are to be left out. Without these rights, and without that wish, they fail.
#[track_caller]
pub(crate) fn without_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    assert!(is_wished("FIRN_TEST_NO_ROOT"), "this test needs root; FIRN_TEST_NO_ROOT=1 leaves such tests out");
    true
}

/// A temporary folder in memory where there is such a place, for tests in which thousands of small files come and go.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A small file system of its own on a new folder, ended with it. Needs the rights of root.
pub(crate) struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    #[track_caller]
    pub(crate) fn on(folder: &std::path::Path) -> Tmpfs {
        std::fs::create_dir_all(folder).unwrap();
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(folder).status().unwrap();
        assert!(mounted.success(), "the administrator can mount a tmpfs");
        Tmpfs(folder.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
