//! The target folder: handles of the directories below it, temporary names, and putting things in place. Not for:
//! deciding what is put there (see `walk`).
//!
//! Nothing here follows a symbolic link below the target.

use super::partial::{Names, marks};
use super::spelling::in_capitals;
use super::{RestoreOptions, as_path};
use crate::error::{Error, ErrorKind, Result};
use crate::os::{self, FileTime, Stat};
use quick_cache::sync::Cache;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The kernel takes paths up to this length in one step.
const LONG: usize = 4000;
/// Directories that are kept in mind, 40 bytes each, beyond those of one batch and those above.
const MAX_KNOWN: usize = 100_000;

/// A directory relative to the target; empty for the target itself.
pub(super) type Relative = Arc<[u8]>;

/// What a file system keeps of what is set, as tried in the target itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    pub(super) owners: bool,
    pub(super) modes: bool,
    /// To the nanosecond; others keep times to two seconds at worst.
    times: bool,
}

impl Default for Abilities {
    fn default() -> Abilities {
        Abilities { owners: true, modes: true, times: true }
    }
}

impl Abilities {
    /// Whether a time is as recorded, as well as it can be kept.
    pub(super) fn has_time(self, found: FileTime, recorded: FileTime) -> bool {
        let nanos = |time: FileTime| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        found == recorded || !self.times && (nanos(found) - nanos(recorded)).abs() <= 2_000_000_000
    }
}

/// The folder that is restored into.
pub(super) struct Target {
    root: Arc<OwnedFd>,
    /// It did not exist before.
    pub(super) made: bool,
    /// It did not, or is what a restore that did not come to its end has made. Until it is done, only its owner may enter.
    pub(super) created: bool,
    /// It got the rights that it is to have.
    opened: AtomicBool,
    /// It does not tell all names apart.
    pub(super) folds: bool,
    /// What it can keep of metadata.
    pub(super) able: Abilities,
    /// Handles (`O_PATH`) of directories in use, the least used closed first.
    handles: Cache<Relative, Arc<OwnedFd>>,
    /// What is known of directories whose handles may be closed, by a hash of their path.
    known: Mutex<HashMap<u64, Known>>,
    hasher: RandomState,
    names: Names,
    /// Files in the target for as long as the restore that made it is not done: the one after it finds the folder as new as this
    /// one did.
    marks: Vec<Vec<u8>>,
    removed: Mutex<Removed>,
}

/// Files that earlier restores have left, and that were removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Removed {
    pub(super) count: u64,
    /// The path of the first, below the target.
    pub(super) first: Vec<u8>,
}

/// What a directory was when it was first met. A path leads to something else once somebody has renamed what is on it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    dev: u64,
    ino: u64,
    /// Bytes of its path.
    len: usize,
}

impl Target {
    /// Opens the target, and makes it if it is missing; in a dry run a missing one is `None`.
    pub(super) fn open(options: &RestoreOptions, open_files: usize) -> Result<Option<Target>> {
        let path = &options.target;
        let shown = path.display();
        let hint = "Name a folder that you may write to.";
        let failed =
            |error: io::Error| Error::io(format!("The target \"{shown}\" cannot be opened"), error).with_hint(hint);
        let (root, created) = match path.metadata() {
            Ok(found) if !found.is_dir() => {
                let message = format!("The target \"{shown}\" is not a folder");
                return Err(Error::new(ErrorKind::Input, message).with_hint(hint));
            }
            Ok(_) => (std::fs::File::open(path).map_err(failed)?.into(), false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if options.dry_run {
                    return Ok(None);
                }
                let made = create(path).map_err(|error| {
                    Error::io(format!("The target \"{shown}\" cannot be created"), error).with_hint(hint)
                })?;
                (made, true)
            }
            Err(error) => {
                return Err(Error::io(format!("The target \"{shown}\" cannot be used"), error).with_hint(hint));
            }
        };
        let handles = (open_files / 8).clamp(4, 256);
        let mut target = Target {
            root: Arc::new(root),
            made: created,
            created,
            opened: AtomicBool::new(false),
            folds: false,
            able: Abilities::default(),
            handles: Cache::new(handles),
            known: Mutex::default(),
            hasher: RandomState::new(),
            names: Names::new()?,
            marks: Vec::new(),
            removed: Mutex::default(),
        };
        if !options.dry_run {
            target.begin().map_err(|error| {
                Error::io(format!("Nothing can be written into the target \"{shown}\""), error).with_hint(hint)
            })?;
        }
        Ok(Some(target))
    }

    /// Finds out at once, not after minutes, whether files can be made.
    fn begin(&mut self) -> io::Result<()> {
        let before = os::stat_fd(&self.root)?;
        self.able = self.probe()?;
        self.folds = self.folds_names(&self.root)?;
        if self.created {
            // It has these from the folder that it is in, and would pass them on.
            drop(super::meta::disinherit(&self.root));
            let mark = self.names.mark();
            drop(os::open_at(&self.root, &mark, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)?);
            self.marks.push(mark);
        } else {
            let is_own = before.uid == os::user_id();
            let is_closed = is_own && (before.mode & 0o077 == 0 || !self.able.modes);
            self.marks = if is_closed { marks(&self.root) } else { Vec::new() };
            self.created = !self.marks.is_empty();
            self.remove_stale(&self.root, b"");
            // What was only tried is no change.
            drop(os::set_times_fd(&self.root, before.mtime));
        }
        Ok(())
    }

    /// Makes a file and looks what becomes of its metadata.
    fn probe(&self) -> io::Result<Abilities> {
        let name = self.temporary();
        let file = os::open_at(&self.root, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)?;
        let stat = || os::stat_fd(&file);
        let keeps_mode = |mode| os::chmod_fd(&file, mode).is_ok() && stat().is_ok_and(|stat| stat.mode == mode);
        let time = FileTime { seconds: 1_000_000_001, nanos: 123_456_789 };
        let able = Abilities {
            modes: keeps_mode(0o640) && keeps_mode(0o751),
            times: os::set_times_fd(&file, time).is_ok() && stat().is_ok_and(|stat| stat.mtime == time),
            owners: !os::is_root() || os::chown_at(&file, b"", 1, 1).is_ok() && stat().is_ok_and(|stat| stat.uid == 1),
        };
        drop(os::chown_at(&file, b"", os::user_id(), os::group_id()));
        os::unlink_at(&self.root, &name, false)?;
        Ok(able)
    }

    /// Whether a directory takes names in small letters and in capitals for the same.
    pub(super) fn folds_names(&self, directory: &OwnedFd) -> io::Result<bool> {
        let (name, before) = (self.temporary(), os::stat_fd(directory)?);
        drop(os::open_at(directory, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)?);
        let folds = os::stat_at(directory, &in_capitals(&name)).is_ok();
        os::unlink_at(directory, &name, false)?;
        drop(os::set_times_at(directory, b".", before.mtime));
        Ok(folds)
    }

    /// Removes what killed restores have left in a directory that was there before. Returns whether it takes names for the same, as the
    /// one above does (`folds`); it is tried only where that may differ, because it is a change in the directory. `is_alone`: it is
    /// on another file system.
    pub(super) fn tidy(&self, path: &Relative, directory: &OwnedFd, folds: bool, is_alone: bool) -> bool {
        let opened = self.open_directory(path);
        if let Ok(opened) = &opened {
            self.remove_stale(opened, path);
        }
        match opened {
            Ok(opened) if !folds && !is_alone => os::has_casefold_flag(&opened),
            _ => self.folds_names(directory).unwrap_or(folds),
        }
    }

    fn remove_stale(&self, directory: &OwnedFd, path: &[u8]) {
        self.names.remove_stale(directory, &mut |name| {
            let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
            if removed.count == 0 {
                removed.first = super::join(path, name);
            }
            removed.count += 1;
        });
    }

    /// What was removed so far of what killed restores have left.
    pub(super) fn removed(&self) -> Removed {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A target that this restore made gets its rights, from whoever calls, next.
    pub(super) fn open_up(&self) {
        self.opened.store(true, Ordering::Relaxed);
        for mark in &self.marks {
            drop(os::unlink_at(&self.root, mark, false));
        }
    }

    /// If the target was made for something that says nothing of it, lets in whoever may enter new folders.
    pub(super) fn finish(&self) -> io::Result<()> {
        if !self.created || self.opened.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.open_up();
        os::chmod_fd(&self.root, 0o777 & !(os::umask() as u16))
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
            opened.and_then(|handle| self.recognize(path, handle))
        })
    }

    /// An error if this is not the directory that was first met on this path, and somebody else may have seen to that.
    pub(super) fn recognize(&self, path: &[u8], handle: OwnedFd) -> io::Result<Arc<OwnedFd>> {
        let (stat, key) = (os::stat_fd(&handle)?, self.hasher.hash_one(path));
        let met = Known { dev: stat.dev, ino: stat.ino, len: path.len() };
        let known = *self.known().entry(key).or_insert(met);
        if known != met {
            let is_renumbered = known.dev == met.dev && os::may_renumber(&handle);
            if !is_renumbered && self.is_contested(path)? {
                return Err(io::Error::other("another directory has taken its place"));
            }
            self.known().insert(key, met);
        }
        Ok(Arc::new(handle))
    }

    /// Whether somebody else may rename what is on this path.
    fn is_contested(&self, path: &[u8]) -> io::Result<bool> {
        let mut above = os::open_at(&self.root, b".", OFlags::PATH | OFlags::DIRECTORY, 0)?;
        for name in path.split(|byte| *byte == b'/') {
            let stat = os::stat_fd(&above)?;
            if ![0, os::user_id()].contains(&stat.uid) || stat.mode & 0o022 != 0 {
                return Ok(true);
            }
            above = os::open_at(&above, name, OFlags::PATH | OFlags::DIRECTORY, 0)?;
        }
        Ok(false)
    }

    /// Forgets directories that nothing more will come into, if there are many: all but those on this path.
    pub(super) fn forget_but(&self, path: &[u8]) {
        let mut known = self.known();
        if known.len() > MAX_KNOWN {
            known.retain(|key, one| path.get(..one.len).is_some_and(|above| self.hasher.hash_one(above) == *key));
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
            let handle = self.recognize(path, opened?)?;
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
        self.names.next()
    }

    /// Gives what is complete its own name: in place of what was there (`replaces`), or only if nothing has it.
    pub(super) fn place(dir: &OwnedFd, temporary: &[u8], name: &[u8], replaces: bool) -> Result<()> {
        Target::try_place(dir, temporary, name, replaces).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => same_name(),
            _ => Error::io("It could not be put in its place", error),
        })
    }

    fn try_place(dir: &OwnedFd, temporary: &[u8], name: &[u8], replaces: bool) -> io::Result<()> {
        if replaces {
            return os::rename_at(dir, temporary, dir, name, true);
        }
        match os::rename_at(dir, temporary, dir, name, false) {
            // A file system that cannot rename so: a second name never replaces anything either.
            Err(error) if cannot(&error) => {}
            result => return result,
        }
        match os::link_at(dir, temporary, dir, name) {
            Ok(()) => return os::unlink_at(dir, temporary, false),
            Err(error) if cannot(&error) => {}
            Err(error) => return Err(error),
        }
        // Nor has it second names, as exFAT and vfat: then what another program puts there between these two is replaced.
        match os::stat_at(dir, name) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => os::rename_at(dir, temporary, dir, name, true),
            Err(error) => Err(error),
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
        if self.made || [recorded, os::user_id()].contains(&before.uid) {
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

/// Something is not put where something else is that was not there before, or that another name leads to.
pub(super) fn same_name() -> Error {
    let message = "The target does not tell its name from that of something else that is restored, or another program has used it";
    Error::new(ErrorKind::Exists, message).with_hint(
        "Restore into a folder of a file system that tells such names apart, or this one alone into another folder.",
    )
}

/// Whether a file system says that it has no such operation.
fn cannot(error: &io::Error) -> bool {
    use libc::{EINVAL, ENOSYS, EOPNOTSUPP, EPERM};
    matches!(error.raw_os_error(), Some(EINVAL | ENOSYS | EOPNOTSUPP | EPERM))
}

/// Makes a folder, and those above it; nobody else may enter it yet. Whoever may rename what is in the folder above can put something
/// else in its place: a symbolic link is refused, and a folder becomes root's own before anything is in it.
fn create(path: &Path) -> io::Result<OwnedFd> {
    let name = path.file_name().ok_or(io::ErrorKind::NotFound)?.as_bytes();
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(above)?;
    let above: OwnedFd = std::fs::File::options().read(true).custom_flags(libc::O_PATH).open(above)?.into();
    os::mkdir_at(&above, name, 0o700)?;
    let made = os::open_at(&above, name, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    if os::is_root() {
        keep_own(&above, &made)?;
    }
    Ok(made)
}

/// Makes sure that a directory which root has just made is not one that the owner of the directory above has put in its place.
pub(super) fn keep_own(above: &OwnedFd, made: &OwnedFd) -> io::Result<()> {
    let stat = os::stat_fd(made)?;
    if stat.uid == os::user_id() {
        return Ok(());
    }
    if stat.dev != os::stat_fd(above)?.dev {
        return Err(io::Error::other("another directory has taken its place"));
    }
    // Where owners can be set it is root's own from now on; elsewhere there are none.
    drop(close(made));
    Ok(())
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
