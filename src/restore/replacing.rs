//! Files that replace others get their names only once they are on the disk: a power cut leaves the old content or the new
//! one, and never an empty file. Not for: files whose names are new.
//!
//! One flush of the file system stands for many files, so they wait for each other: at most `MAX_FILES`, or `MAX_BYTES` of
//! content, for which the target needs room besides what is replaced.

use super::Context;
use super::job::FileJob;
use crate::error::Error;
use crate::os;
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Files that wait at most.
const MAX_FILES: usize = 256;
/// Bytes that wait at most, if it is more than one file.
const MAX_BYTES: u64 = 64 << 20;

/// Files that are complete but for their names.
#[derive(Default)]
pub(super) struct Replacing(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    files: Vec<(Arc<FileJob>, Arc<OwnedFd>)>,
    bytes: u64,
}

impl Context<'_> {
    /// Gives a file its name soon.
    pub(super) fn replace_soon(&self, job: &Arc<FileJob>, file: Arc<OwnedFd>, size: u64) {
        let full = {
            let mut waiting = self.replacing.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.files.push((job.clone(), file));
            waiting.bytes = waiting.bytes.saturating_add(size);
            let is_full = waiting.files.len() >= MAX_FILES.min(self.open_files) || waiting.bytes >= MAX_BYTES;
            is_full.then(|| std::mem::take(&mut *waiting))
        };
        if let Some(full) = full {
            self.place_all(full);
        }
    }

    /// Gives all that wait their names.
    pub(super) fn replace_now(&self) {
        let waiting = std::mem::take(&mut *self.replacing.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.place_all(waiting);
    }

    fn place_all(&self, waiting: Waiting) {
        let mut flushed = HashSet::new();
        for (_, file) in &waiting.files {
            let done = flush(file, &mut flushed);
            if let Err(error) = done {
                // Which of them it hit is not said, and an error is said only once: none of them counts as written.
                let error = Error::io("The files could not be written to the disk", error);
                waiting.files.iter().for_each(|(job, _)| job.fail(self, error.copy()));
                return;
            }
        }
        for (job, file) in &waiting.files {
            job.put_in_place(self, file);
        }
    }

    /// Has everything on the disk in the file systems of these directories.
    pub(super) fn flush_directories<'d>(&self, directories: impl Iterator<Item = &'d super::target::Relative>) {
        let Some(target) = &self.target else { return };
        let mut flushed = HashSet::new();
        for directory in directories {
            let done = target.open_directory(directory).and_then(|opened| flush(&opened, &mut flushed));
            if let Err(error) = done {
                self.issue(directory, Error::io("What was restored could not be written to the disk", error));
            }
        }
    }
}

/// Flushes the file system of a file unless that was done; a file of a file system in user space by itself, because nothing
/// else reaches what is behind it.
fn flush(file: &OwnedFd, flushed: &mut HashSet<u64>) -> io::Result<()> {
    if os::is_fuse(file) {
        return Ok(rustix::fs::fsync(file)?);
    }
    if flushed.insert(os::stat_fd(file)?.dev) {
        rustix::fs::syncfs(file)?;
    }
    Ok(())
}
