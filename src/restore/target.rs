//! The target folder: handles of the directories below it, temporary names, and putting things in place. Not for:
//! deciding what is put there (see `walk`).
//!
//! Nothing here follows a symbolic link below the target.

use super::{Overwrite, RestoreOptions, as_path};
use crate::error::{Error, ErrorKind, Result};
use crate::os::{self, Stat};
use quick_cache::sync::Cache;
use rustix::fs::OFlags;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The kernel takes paths up to this length in one step.
const LONG: usize = 4000;

/// A directory relative to the target; empty for the target itself.
pub(super) type Relative = Arc<[u8]>;

/// The folder that is restored into.
pub(super) struct Target {
    root: Arc<OwnedFd>,
    /// It did not exist before.
    pub(super) created: bool,
    /// Handles (`O_PATH`) of directories in use, the least used closed first.
    handles: Cache<Relative, Arc<OwnedFd>>,
    salt: String,
    next: AtomicU64,
}

impl Target {
    /// Opens the target, and makes it if it is missing; in a dry run a missing one is `None`.
    pub(super) fn open(options: &RestoreOptions, open_files: usize) -> Result<Option<Target>> {
        let path = &options.target;
        let shown = path.display();
        let hint = "Name a folder that you may write to.";
        let exists = path.metadata();
        let created = match exists {
            Ok(found) if !found.is_dir() => {
                let message = format!("The target \"{shown}\" is not a folder");
                return Err(Error::new(ErrorKind::Input, message).with_hint(hint));
            }
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if options.dry_run {
                    return Ok(None);
                }
                let made = std::fs::create_dir_all(path);
                made.map_err(|error| {
                    Error::io(format!("The target \"{shown}\" cannot be created"), error).with_hint(hint)
                })?;
                true
            }
            Err(error) => {
                return Err(Error::io(format!("The target \"{shown}\" cannot be used"), error).with_hint(hint));
            }
        };
        let failed =
            |error: io::Error| Error::io(format!("The target \"{shown}\" cannot be opened"), error).with_hint(hint);
        let root = std::fs::File::open(path).map_err(failed)?;
        let salt = crate::id::SessionId::random()?.short();
        let handles = (open_files / 8).clamp(4, 256);
        let target = Target {
            root: Arc::new(root.into()),
            created,
            handles: Cache::new(handles),
            salt,
            next: AtomicU64::new(0),
        };
        if !options.dry_run {
            target.probe().map_err(|error| {
                Error::io(format!("Nothing can be written into the target \"{shown}\""), error).with_hint(hint)
            })?;
        }
        Ok(Some(target))
    }

    /// Finds out at once, not after minutes, whether files can be made.
    fn probe(&self) -> io::Result<()> {
        let name = self.temporary();
        drop(os::open_at(&self.root, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)?);
        os::unlink_at(&self.root, &name, false)
    }

    /// A handle of a directory. `NotFound`, `ENOTDIR` or `ELOOP` if there is none on this path, or a symbolic link.
    pub(super) fn directory(&self, path: &Relative) -> io::Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(handle) = self.handles.get(path) {
            return Ok(handle);
        }
        if path.len() > LONG {
            self.approach(path)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let above = split(path).and_then(|(above, name)| Some((self.handles.get(&Relative::from(above))?, name)));
        self.handles.get_or_insert_with(path, || {
            let opened = match &above {
                Some((above, name)) => os::open_at(above, name, flags, 0),
                None => os::open_beneath(&self.root, path, flags),
            };
            opened.map(Arc::new)
        })
    }

    /// Has handles of the directories above ready. Without them a path of thousands of names takes as many steps from the top,
    /// and each directory of such a chain again; so as many as there are handles share one way down.
    fn approach(&self, path: &[u8]) -> io::Result<()> {
        let mut missing: Vec<&[u8]> = Vec::new();
        let mut above = split(path).map(|(above, _)| above);
        while let Some(path) = above.filter(|path| path.len() > LONG) {
            if self.handles.get(&Relative::from(path)).is_some() {
                break;
            }
            missing.push(path);
            above = split(path).map(|(above, _)| above);
        }
        let mut last: Option<Arc<OwnedFd>> = above.and_then(|path| self.handles.get(&Relative::from(path)));
        for path in missing.into_iter().rev() {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = match (&last, split(path)) {
                (Some(last), Some((_, name))) => os::open_at(last, name, flags, 0),
                _ => os::open_beneath(&self.root, path, flags),
            };
            let handle = Arc::new(opened?);
            self.handles.insert(path.into(), handle.clone());
            last = Some(handle);
        }
        Ok(())
    }

    /// Opens a directory for its metadata.
    pub(super) fn open_directory(&self, path: &Relative) -> io::Result<OwnedFd> {
        os::open_at(&*self.directory(path)?, b".", OFlags::RDONLY | OFlags::DIRECTORY, 0)
    }

    /// A name that nothing else has.
    pub(super) fn temporary(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!(".firn-{}-{number:x}.partial", self.salt).into_bytes()
    }

    /// Gives what is complete its own name, in place of whatever has it now, or (`Never`) only if nothing has.
    pub(super) fn place(dir: &OwnedFd, temporary: &[u8], name: &[u8], overwrite: Overwrite) -> io::Result<()> {
        if overwrite != Overwrite::Never {
            return os::rename_at(dir, temporary, dir, name, true);
        }
        match os::rename_at(dir, temporary, dir, name, false) {
            // A file system that cannot rename so: a second name never replaces anything either.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                os::link_at(dir, temporary, dir, name)?;
                os::unlink_at(dir, temporary, false)
            }
            result => result,
        }
    }

    /// Writes everything so far to the disk, as well as that can be asked for.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }
}

/// A folder that belongs to somebody who is not to meddle with what is restored into it: until this is dropped, it is root's.
pub(super) struct Closed {
    folder: Arc<OwnedFd>,
    before: Stat,
}

impl Target {
    /// Closes a target that was there before to an owner to whom it did not belong when it was backed up. Somebody who owns a
    /// folder can replace what is in it at any moment, also a new folder that only root may enter.
    pub(super) fn close_to_others(&self, recorded: u32) -> io::Result<Option<Closed>> {
        let before = os::stat_fd(&self.root)?;
        if self.created || [recorded, os::user_id()].contains(&before.uid) {
            return Ok(None);
        }
        close(&self.root)?;
        Ok(Some(Closed { folder: self.root.clone(), before }))
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let Stat { uid, gid, mode, .. } = self.before;
        // If it cannot be given back, it stays closed.
        if os::chown_at(&self.folder, b"", uid, gid).is_ok() {
            drop(os::chmod_at(&self.folder, b".", mode));
        }
    }
}

/// Makes a folder root's own, and lets nobody else in: the owner first, who could undo all else.
pub(super) fn close(folder: &OwnedFd) -> io::Result<()> {
    os::chown_at(folder, b"", os::user_id(), os::group_id())?;
    os::chmod_at(folder, b".", 0o700)
}

/// A path of at least two names, cut before the last.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..at], &path[at + 1..]))
}

/// What has this name, if anything does.
pub(super) fn existing(dir: &OwnedFd, name: &[u8]) -> Result<Option<Stat>> {
    match os::stat_at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Error::io(format!("\"{}\" in the target cannot be looked at", as_path(name).display()), error))
        }
    }
}
