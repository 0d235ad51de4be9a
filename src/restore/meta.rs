//! Puts recorded metadata on what was restored, in the order in which one step does not undo another. Not for: content.
//!
//! Owner first (it clears set-user-ID bits and capabilities), then attributes (an ACL changes the mode), then the mode,
//! then the time, and last, once everything has its place, the file flags (one of them forbids all of this).
//!
//! All of it goes by a handle, never by a name: whoever may rename what is in the directory can put another file under the
//! name, which would be given away.

use super::batch::Done;
use super::kept::Origin;
use super::{Context, show};
use crate::error::{Error, ErrorKind};
use crate::format::tree::{Metadata, Timestamp};
use crate::os::{self, FileTime};
use rustix::fs::IFlags;
use std::io;
use std::os::fd::OwnedFd;

pub(super) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
/// Flags under which a file can be neither renamed nor linked.
const FREEZING: u32 = IFlags::IMMUTABLE.union(IFlags::APPEND).bits();
/// The flag that counts only if it is set while a file is empty.
const EARLY: u32 = IFlags::NOCOW.bits();

/// The system's form of a recorded time.
pub(super) fn file_time(time: Timestamp) -> FileTime {
    FileTime { seconds: time.seconds, nanos: time.nanos }
}

/// Something that is to get its metadata.
pub(super) struct Subject<'a> {
    /// Its path in the snapshot, for messages.
    pub(super) path: &'a [u8],
    /// A handle of the thing itself; `O_PATH` unless it is a file or directory.
    pub(super) handle: &'a OwnedFd,
    /// The handle is open, and not `O_PATH`.
    pub(super) is_open: bool,
    /// It is a symbolic link, which has no mode.
    pub(super) symlink: bool,
    /// The directory above may have given it an ACL of its own.
    pub(super) inherits: bool,
}

impl Context<'_> {
    /// Owner, attributes, mode and time.
    pub(super) fn apply(&self, subject: &Subject<'_>, meta: &Metadata) {
        let owned = self.apply_owner(subject, meta);
        self.apply_attributes(subject, meta, owned);
        if !subject.symlink {
            // With these bits a program runs as its owner: only ever as the recorded one.
            let mode = if owned { meta.mode } else { meta.mode & !0o6000 };
            if mode != meta.mode {
                self.note_once("set-user-ID", || {
                    format!(
                        "\"{}\" is recorded with set-user-ID bits, which are restored only together with the owner; others like it are not told",
                        show(subject.path)
                    )
                });
            }
            let done = if subject.is_open {
                os::chmod_fd(subject.handle, mode)
            } else {
                os::chmod_handle(subject.handle, mode)
            };
            self.tell(subject.path, "mode", "permissions", done);
        }
        let time = file_time(meta.mtime);
        let done = if subject.is_open {
            os::set_times_fd(subject.handle, time)
        } else {
            os::set_times_handle(subject.handle, time)
        };
        self.tell(subject.path, "time", "modification time", done);
    }

    fn apply_owner(&self, subject: &Subject<'_>, meta: &Metadata) -> bool {
        let owner = &meta.owner;
        if !self.root && owner.uid != os::user_id() {
            self.note_once("owner", || {
                "Only root can restore owners; what belonged to others now belongs to you".to_owned()
            });
            return false;
        }
        let done = os::chown_at(subject.handle, b"", owner.uid, owner.gid);
        let owned = done.is_ok();
        self.tell(subject.path, "owner", "owner and group", done);
        owned
    }

    fn apply_attributes(&self, subject: &Subject<'_>, meta: &Metadata, owned: bool) {
        let set = match meta.attributes.as_deref().map(|attributes| self.repository.attributes(attributes)) {
            None => None,
            Some(Ok(set)) => Some(set),
            Some(Err(error)) => {
                self.issue(
                    subject.path,
                    error.context(format!("The attributes of \"{}\" are lost", show(subject.path))),
                );
                None
            }
        };
        let pairs = set.map(|set| set.0).unwrap_or_default();
        if subject.inherits && !subject.symlink && !pairs.iter().any(|(name, _)| name == ACCESS_ACL) {
            self.tell(
                subject.path,
                "acl",
                "inherited ACL (to be removed)",
                os::remove_xattr(subject.handle, ACCESS_ACL),
            );
        }
        for (name, value) in pairs {
            if name == CAPABILITY && !owned {
                continue;
            }
            let done = os::set_xattr(subject.handle, &name, &value);
            self.tell(subject.path, family(&name), &format!("attribute \"{}\"", show(&name)), done);
        }
    }

    /// Metadata that could not be set: for users who may not, and file systems that cannot, worth one note; else an issue.
    fn tell(&self, path: &[u8], kind: &'static str, what: &str, done: io::Result<()>) {
        let Err(error) = done else { return };
        let able = self.target.as_ref().map(|target| target.able).unwrap_or_default();
        let lacks = kind == "owner" && !able.owners || kind == "mode" && !able.modes;
        let cannot = lacks || matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY));
        if cannot || !self.root {
            return self.note_once(kind, || {
                format!("The {what} of \"{}\" could not be restored ({error}); others like it are not told", show(path))
            });
        }
        // A disk that is full of attributes is no reason to end: the content is there.
        let message = format!("The {what} of \"{}\" could not be restored", show(path));
        let error = Error::io(message, error);
        let kind = if error.kind() == ErrorKind::Full { ErrorKind::Failed } else { error.kind() };
        self.issue(path, error.with_kind(kind));
    }

    /// The flag that must be there before content is.
    pub(super) fn apply_early_flags(&self, path: &[u8], file: &OwnedFd, meta: &Metadata) {
        if meta.flags & EARLY != 0 {
            self.tell(path, "flags", "file flags", os::set_file_flags(file, EARLY));
        }
    }

    /// The file flags of an open file or directory that is in its place.
    pub(super) fn apply_flags(&self, path: &[u8], file: &OwnedFd, flags: u32) {
        if flags & os::KEPT_FLAGS != 0 {
            self.tell(path, "flags", "file flags", os::set_file_flags(file, flags));
        }
    }

    /// A directory that has all its content.
    pub(super) fn finish_directory(&self, done: &Done) {
        let Some(target) = &self.target else { return };
        let Done { path, relative, meta, origin } = done;
        match target.open_directory(relative) {
            Ok(handle) => {
                if relative.is_empty() {
                    target.open_up();
                }
                // One that is immutable takes no metadata, and needs none if it is right.
                let is_right = *origin == Origin::Looked && self.is_as_recorded(target, &handle, meta);
                if *origin != Origin::Untouched && !is_right {
                    self.remove_further_attributes(path, &handle, meta);
                    let subject = Subject { path, handle: &handle, is_open: true, symlink: false, inherits: false };
                    self.apply(&subject, meta);
                    self.apply_flags(path, &handle, meta.flags);
                }
                if self.options.verify {
                    self.verify_directory(target, path, handle, meta, *origin);
                }
            }
            Err(error) => {
                let message = format!("The metadata of the directory \"{}\" could not be restored", show(path));
                self.issue(path, Error::io(message, error));
            }
        }
    }

    /// Names of attributes that something in the target has and that are not recorded. Those that only tell how a system works, as
    /// labels of SELinux, do not count.
    pub(super) fn further_attributes(&self, handle: &OwnedFd, set: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
        let counts = |name: &[u8]| {
            let is_for_all = name.starts_with(b"user.") || [ACCESS_ACL, DEFAULT_ACL].contains(&name);
            is_for_all || self.root && (name.starts_with(b"trusted.") || name == CAPABILITY)
        };
        let is_recorded = |name: &[u8]| set.iter().any(|(recorded, _)| recorded == name);
        let mut names = os::list_xattrs(handle).unwrap_or_default();
        names.retain(|name| counts(name) && !is_recorded(name));
        names
    }

    /// Takes from something that was there the attributes and ACLs that are not recorded.
    pub(super) fn remove_further_attributes(&self, path: &[u8], handle: &OwnedFd, meta: &Metadata) {
        let set = match meta.attributes.as_deref().map(|attributes| self.repository.attributes(attributes)) {
            None => Vec::new(),
            Some(Ok(set)) => set.0,
            // That they are lost is told when they are set.
            Some(Err(_)) => return,
        };
        for name in self.further_attributes(handle, &set) {
            let what = format!("attribute \"{}\" (to be removed)", show(&name));
            self.tell(path, "further attribute", &what, os::remove_xattr(handle, &name));
        }
    }
}

/// What an attribute is for: who may not restore one of a family is told so once for each.
fn family(name: &[u8]) -> &'static str {
    match name.split(|byte| *byte == b'.').next() {
        Some(b"user") => "user attribute",
        Some(b"trusted") => "trusted attribute",
        Some(b"security") if name == CAPABILITY => "capability",
        Some(b"security") => "security attribute",
        Some(b"system") => "system attribute",
        _ => "attribute",
    }
}

/// Whether the flags keep a file from getting further names; such flags wait until the end.
pub(super) fn freezes(meta: &Metadata) -> bool {
    meta.flags & FREEZING != 0
}

/// Takes away the ACLs that a new directory has from the one above.
pub(super) fn disinherit(directory: &OwnedFd) -> io::Result<()> {
    os::remove_xattr(directory, DEFAULT_ACL)?;
    os::remove_xattr(directory, ACCESS_ACL)
}

/// Whether new things in the directory get an ACL from it.
pub(super) fn passes_acl_on(directory: &OwnedFd) -> bool {
    match os::get_xattr(directory, DEFAULT_ACL) {
        Ok(acl) => acl.is_some(),
        // If it cannot be told, it is safe to assume so.
        Err(error) => error.raw_os_error() != Some(libc::EOPNOTSUPP),
    }
}
