//! Recognises what is firn's own among the files of a source, so that a backup does not take firn in: repositories, mounts, caches,
//! what a restore left unfinished. Not for: leaving it out (see `walk`).

use super::content::open_reading;
use crate::format::header::MAGIC;
use crate::os::{self, FileType, Stat};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// How a file named `CACHEDIR.TAG` begins (<https://bford.info/cachedir/>).
pub(super) const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
pub(super) const CACHE_TAG_NAME: &[u8] = b"CACHEDIR.TAG";
/// Folders that each repository has.
pub(super) const FOLDERS: [&[u8]; 5] = [b"config", b"data", b"index", b"keys", b"snapshots"];
/// The type of file systems that `firn mount` makes.
pub(super) const MOUNT: &str = "fuse.firn";
/// So many files of a folder named "config" are looked at.
const CONFIGS: usize = 16;

/// What of firn's own it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// The content of a repository.
    Repository,
    /// The content of a mount.
    Mount,
    /// The content of a local cache.
    Cache,
    /// A file that a restore was writing when it ended.
    Partial,
}

/// Whether a directory that has the `FOLDERS` is a repository.
pub(super) fn is_repository(dir: &OwnedFd) -> bool {
    let Ok(configs) = open_reading(dir, b"config", OFlags::DIRECTORY) else { return false };
    let mut buffer = vec![MaybeUninit::uninit(); 4096];
    let mut entries = rustix::fs::RawDir::new(&configs, &mut buffer);
    for _ in 0..CONFIGS {
        let Some(Ok(entry)) = entries.next() else { return false };
        let mut start = [0; MAGIC.len()];
        if begins_with(&configs, entry.file_name().to_bytes(), &mut start) && start == MAGIC {
            return true;
        }
    }
    false
}

/// Whether a directory on another device than the one above is a mount of a firn repository. It need not live any more.
pub(super) fn is_mount(stat: &Stat) -> bool {
    os::mount_type(stat.dev).as_deref() == Some(MOUNT)
}

/// Whether a directory with a `CACHEDIR.TAG` is a cache of firn.
pub(super) fn is_cache(dir: &OwnedFd) -> bool {
    let mut start = [0; crate::repository::cache::TAG.len()];
    begins_with(dir, CACHE_TAG_NAME, &mut start) && start == *crate::repository::cache::TAG
}

/// Whether a regular file `CACHEDIR.TAG` with the standard's signature is there.
pub(super) fn has_cache_tag(dir: &OwnedFd) -> bool {
    let mut start = [0; CACHE_TAG.len()];
    begins_with(dir, CACHE_TAG_NAME, &mut start) && start == *CACHE_TAG
}

// Reads the first bytes of a regular file; whether it has so many.
fn begins_with(dir: &OwnedFd, name: &[u8], start: &mut [u8]) -> bool {
    let is_long_enough = |stat: Stat| stat.kind == FileType::File && stat.size >= start.len() as u64;
    if !os::stat_at(dir, name).is_ok_and(is_long_enough) {
        return false;
    }
    let Ok(fd) = open_reading(dir, name, OFlags::empty()) else { return false };
    File::from(fd).read_exact(start).is_ok()
}
