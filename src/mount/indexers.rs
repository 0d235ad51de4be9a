//! Programs that read whatever they find, recognised by their names: thumbnailers, search indexes. Without care, one of them reads
//! all snapshots through a mount. Not for: programs that somebody started to read something.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What such programs get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Names and attributes, but no contents.
    Deny,
    /// Contents as well, if they are in memory already.
    #[default]
    Cache,
    /// What everybody gets.
    Allow,
}

/// How their processes are called, or how their names begin (the kernel keeps 15 bytes).
const NAMES: &[&str] = &[
    "tumblerd",
    "tracker-",
    "localsearch",
    "baloo",
    "updatedb",
    "recollindex",
    "gdk-pixbuf-thum",
    "totem-video-thu",
    "ffmpegthumbnail",
    "evince-thumbnai",
    "thumbnail.so",
];
/// How long an answer about a process is taken for true: its number can be given to another.
const LIFE: Duration = Duration::from_secs(2);
/// Processes remembered.
const KNOWN: usize = 256;

/// Recognises them. Memory: at most `KNOWN` processes.
#[derive(Debug, Default)]
pub(super) struct Indexers {
    known: Mutex<HashMap<u32, (Instant, bool)>>,
}

impl Indexers {
    /// Whether this process or thread belongs to one.
    pub(super) fn is_one(&self, pid: u32) -> bool {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((_, is_one)) = lock().get(&pid).filter(|(seen, _)| now.duration_since(*seen) < LIFE) {
            return *is_one;
        }
        let is_one = is_indexer(&name_of(pid).unwrap_or_default());
        let mut known = lock();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(pid, (now, is_one));
        is_one
    }
}

fn is_indexer(name: &str) -> bool {
    NAMES.iter().any(|known| name.starts_with(known))
}

/// The name of the process that a thread belongs to; none if it is gone, or in a place that cannot be seen from here.
fn name_of(pid: u32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let group: u32 = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    Some(std::fs::read_to_string(format!("/proc/{group}/comm")).ok()?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_known_by_name() {
        for name in ["tumblerd", "tracker-extract", "tracker-miner-f", "baloo_file", "updatedb.plocat", "localsearch-3"]
        {
            assert!(is_indexer(name), "{name}");
        }
        for name in ["cat", "rsync", "thunar", "", "mytracker-x"] {
            assert!(!is_indexer(name), "{name}");
        }
    }

    #[test]
    fn a_thread_is_of_its_process() {
        let own = name_of(std::process::id()).unwrap();
        let in_thread = std::thread::Builder::new().name("tumblerd".to_owned());
        let thread = in_thread.spawn(|| {
            let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            (name_of(id), Indexers::default().is_one(id))
        });
        assert_eq!(thread.unwrap().join().unwrap(), (Some(own), false));
        assert_eq!(name_of(0), None);
    }
}
