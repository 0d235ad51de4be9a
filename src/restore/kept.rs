//! What a restore leaves in the target. What looks as recorded gets the recorded metadata back; with `--verify` all of it
//! is read and compared like what was written. Not for: deciding what is left (see `walk`).

use super::compare::{compare_content, differs_in, is_alike, is_theirs, looks_unchanged};
use super::meta::{ACCESS_ACL, Subject, file_time, freezes};
use super::target::{Relative, Target};
use super::{Context, count, show};
use crate::error::{Error, Result};
use crate::format::tree::{Body, Entry, Metadata};
use crate::os::{self, FileType, Stat};
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// One thing that is left.
pub(super) struct Kept {
    /// The path in the snapshot.
    pub(super) path: Vec<u8>,
    pub(super) dir: Relative,
    pub(super) entry: Entry,
    pub(super) origin: Origin,
}

/// Where something comes from that is compared, and what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This restore made it.
    Made,
    /// It was there and looks as recorded; it may need its metadata.
    Looked,
    /// It was there and is not to be touched, whatever it is.
    Untouched,
}

impl Origin {
    fn may_be_touched(self) -> bool {
        self != Origin::Untouched
    }
}

/// A thing in the target, opened as well as it can be.
struct Found {
    handle: OwnedFd,
    stat: Stat,
    /// The handle reads content and takes metadata.
    is_open: bool,
}

impl Context<'_> {
    /// Puts the metadata of something that is left right, and compares it.
    pub(super) fn settle_kept(&self, kept: &Kept) {
        let Some(target) = &self.target else { return };
        let done = self.try_settle(target, kept);
        match done {
            Ok(()) => {}
            Err(_) if !self.goes_on() => {}
            Err(error) if kept.origin != Origin::Made => {
                self.mismatch(&kept.path, left_otherwise(&kept.path, error));
            }
            Err(error) => self.mismatch(&kept.path, not_restored(&kept.path, error)),
        }
    }

    fn try_settle(&self, target: &Target, kept: &Kept) -> Result<()> {
        let Kept { path, dir, entry, origin } = kept;
        let failed = |error: io::Error| Error::io("It cannot be looked at", error);
        let folder = target.directory(dir).map_err(failed)?;
        let found = look(&folder, entry).map_err(failed)?;
        // Whoever may rename what is in the directory can have put another file there, which must not be given away.
        let was_looked_at = *origin == Origin::Looked;
        if was_looked_at
            && (is_theirs(self, &found.stat, entry) || !looks_unchanged(self, Some(&folder), &found.stat, entry))
        {
            return Err(differs_in("something else has taken its place"));
        }
        if was_looked_at && self.differs(target, &found, &entry.meta, false).is_some() {
            // Those that this restore has made are among the recorded ones.
            if found.stat.nlink > names_of(entry) {
                return Err(differs_in(
                    "it has names that are not recorded, perhaps outside of the target, and other metadata",
                ));
            }
            self.remove_further_attributes(path, &found.handle, &entry.meta);
            let inherits = os::get_xattr(&found.handle, ACCESS_ACL).is_ok_and(|acl| acl.is_some());
            let (symlink, is_open) = (found.stat.kind == FileType::Symlink, found.is_open);
            self.apply(&Subject { path, handle: &found.handle, is_open, symlink, inherits }, &entry.meta);
            // Flags that forbid further names wait until the file has them all.
            if found.is_open && !(entry.meta.link.is_some() && freezes(&entry.meta)) {
                self.apply_flags(path, &found.handle, entry.meta.flags);
            }
            let stat = os::stat_fd(&found.handle).map_err(failed)?;
            let is_right = self.differs(target, &Found { stat, ..found }, &entry.meta, false).is_none();
            count(&self.counts.updated, u64::from(is_right));
        }
        if self.options.verify {
            let is_file = matches!(entry.body, Body::File { .. });
            if *origin == Origin::Untouched && is_file && !found.is_open && found.stat.kind == FileType::File {
                return Err(differs_in("it may not be read"));
            }
            self.verify_found(target, &folder, entry, *origin)?;
            count(&self.counts.verified, u64::from(is_file && *origin != Origin::Made));
        }
        Ok(())
    }

    /// Compares something in the target with what is recorded: a file's content, and the metadata of all.
    pub(super) fn verify_found(&self, target: &Target, folder: &OwnedFd, entry: &Entry, origin: Origin) -> Result<()> {
        let failed = |error: io::Error| Error::io("It cannot be read back", error);
        let mut found = look(folder, entry).map_err(failed)?;
        let mode = found.stat.mode;
        if let Body::File { size, content } = &entry.body {
            if !found.is_open && found.stat.kind == FileType::File {
                // Its owner may have no right to read it.
                os::chmod_handle(&found.handle, mode | 0o400).map_err(failed)?;
                let opened = look(folder, entry);
                drop(os::chmod_handle(&found.handle, mode));
                let opened = opened.map_err(failed)?;
                if !opened.stat.same_file(&found.stat) {
                    return Err(differs_in("something else has taken its place"));
                }
                found = opened;
            }
            let Found { handle, stat, .. } = found;
            let file = File::from(handle);
            if stat.kind != FileType::File {
                return Err(differs_in("it is something else"));
            }
            // Read from the disk what the disk has, as far as the kernel lets go of its copy.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            compare_content(self, &file, *size, content)?;
            found = Found { handle: file.into(), stat: Stat { mode, ..stat }, is_open: true };
        }
        if !matches!(entry.body, Body::File { .. }) && !is_alike(&found.stat, &entry.body) {
            return Err(differs_in("it is something else"));
        }
        if let Body::Symlink(to) = &entry.body
            && !os::read_link_at(folder, &entry.name).is_ok_and(|found| found == *to)
        {
            return Err(differs_in("it points elsewhere"));
        }
        match self.differs(target, &found, &entry.meta, origin.may_be_touched()) {
            Some(how) => Err(differs_in(&how)),
            None => Ok(()),
        }
    }

    /// Compares a directory that has its metadata, or that was left as it was.
    pub(super) fn verify_directory(
        &self,
        target: &Target,
        path: &[u8],
        handle: OwnedFd,
        meta: &Metadata,
        origin: Origin,
    ) {
        let found = os::stat_fd(&handle).map(|stat| Found { handle, stat, is_open: true });
        let how = found.map(|found| self.differs(target, &found, meta, origin.may_be_touched()));
        let how = how.unwrap_or_else(|error| Some(error.to_string()));
        let Some(how) = how else { return };
        let error = differs_in(&how);
        self.mismatch(
            path,
            if origin == Origin::Untouched { left_otherwise(path, error) } else { not_restored(path, error) },
        );
    }

    /// Whether a directory that was there has all its metadata already: one that may not be changed is right as it is.
    pub(super) fn is_as_recorded(&self, target: &Target, directory: &OwnedFd, meta: &Metadata) -> bool {
        let handle = directory.try_clone();
        let found = handle.and_then(|handle| Ok(Found { stat: os::stat_fd(&handle)?, handle, is_open: true }));
        found.is_ok_and(|found| self.differs(target, &found, meta, false).is_none())
    }

    /// Whether what is there is left: it looks as recorded, and is not somebody else's, who could have put it there to be given it, nor
    /// shared with names elsewhere.
    pub(super) fn stays(&self, folder: Option<&OwnedFd>, stat: &Stat, entry: &Entry) -> bool {
        !is_theirs(self, stat, entry)
            && looks_unchanged(self, folder, stat, entry)
            && !folder.is_some_and(|folder| self.is_entangled(folder, stat, entry))
    }

    /// Whether a file that looks as recorded has more names than its metadata can be changed under: names that are not recorded, or,
    /// where metadata must change, any. They may lie outside of the target, where nothing may change; such a file is replaced.
    fn is_entangled(&self, folder: &OwnedFd, stat: &Stat, entry: &Entry) -> bool {
        if stat.nlink <= 1 || stat.nlink > names_of(entry) {
            return stat.nlink > 1;
        }
        let Some(target) = &self.target else { return false };
        look(folder, entry).is_ok_and(|found| self.differs(target, &found, &entry.meta, false).is_some())
    }

    /// How the metadata of something in the target differs from what is recorded, as far as this user and this file system
    /// can have it as recorded. `is_final`: attributes that cannot be kept here do not count; that was told when they were
    /// set, and is found out by setting them once more.
    fn differs(&self, target: &Target, found: &Found, meta: &Metadata, is_final: bool) -> Option<String> {
        let stat = &found.stat;
        let able = target.able;
        // Without the owner a program does not get the bits to run as that owner.
        let looked_at = if self.root && able.owners { 0o7777 } else { 0o1777 };
        let (mode, wanted) = (stat.mode & looked_at, meta.mode & looked_at);
        if stat.kind != FileType::Symlink && able.modes && mode != wanted {
            return Some(format!("its permissions are {mode:o} instead of {wanted:o}"));
        }
        if self.root && able.owners && (stat.uid, stat.gid) != (meta.owner.uid, meta.owner.gid) {
            let owner = &meta.owner;
            return Some(format!("it belongs to {}:{} instead of {}:{}", stat.uid, stat.gid, owner.uid, owner.gid));
        }
        if !able.has_time(stat.mtime, file_time(meta.mtime)) {
            return Some("its modification time is another".to_owned());
        }
        if meta.flags & os::KEPT_FLAGS != 0 && found.is_open && self.root {
            let flags = os::get_file_flags(&found.handle).unwrap_or(meta.flags);
            // Those that wait for the end are not there yet.
            if !freezes(meta) && flags & os::KEPT_FLAGS != meta.flags & os::KEPT_FLAGS {
                return Some("its file flags are others".to_owned());
            }
        }
        let set = match meta.attributes.as_deref() {
            Some(attributes) => self.repository.attributes(attributes).ok()?.0,
            None => Vec::new(),
        };
        if let Some(name) = self.further_attributes(&found.handle, &set).into_iter().next() {
            return Some(format!("it has an attribute \"{}\" that is not recorded", show(&name)));
        }
        let lacks = |(name, value): &&(Vec<u8>, Vec<u8>)| {
            let is_for_all = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl");
            (self.root || is_for_all)
                && os::get_xattr(&found.handle, name).is_ok_and(|there| there.as_ref() != Some(value))
                && !(is_final && cannot_have(&found.handle, name, value))
        };
        let (name, _) = set.iter().find(lacks)?;
        Some(format!("its attribute \"{}\" is another", show(name)))
    }
}

/// The number of names that are recorded of a file.
fn names_of(entry: &Entry) -> u32 {
    entry.meta.link.map_or(1, |link| link.links)
}

/// About something that was there before.
fn left_otherwise(path: &[u8], error: Error) -> Error {
    let error = error.context(format!("\"{}\" was left in the target and is not as recorded", show(path)));
    error.with_hint("Restore it with \"--overwrite always\".")
}

/// Whether the system refuses an attribute of this name or value.
fn cannot_have(handle: &OwnedFd, name: &[u8], value: &[u8]) -> bool {
    use libc::{E2BIG, EINVAL, ENOSPC, EOPNOTSUPP, ERANGE};
    let refused = os::set_xattr(handle, name, value).err().and_then(|error| error.raw_os_error());
    matches!(refused, Some(EOPNOTSUPP | EINVAL | ERANGE | E2BIG | ENOSPC))
}

/// About something that this restore wrote.
pub(super) fn not_restored(path: &[u8], error: Error) -> Error {
    let error = error.context(format!("\"{}\" was not restored as recorded", show(path)));
    error.with_hint("The disk, its cable or the memory may be failing.")
}

fn look(folder: &OwnedFd, entry: &Entry) -> io::Result<Found> {
    let opened = match &entry.body {
        // Opening something else can have effects of its own.
        Body::File { .. } if os::stat_at(folder, &entry.name)?.kind == FileType::File => {
            os::open_at(folder, &entry.name, OFlags::RDONLY | OFlags::NONBLOCK, 0).ok()
        }
        _ => None,
    };
    let is_open = opened.is_some();
    let handle = match opened {
        Some(handle) => handle,
        None => os::open_path(folder, &entry.name)?,
    };
    let stat = os::stat_fd(&handle)?;
    Ok(Found { handle, stat, is_open })
}
