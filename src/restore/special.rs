//! Symbolic links, pipes, sockets and devices. Not for: files and directories.

use super::compare::is_alike;
use super::meta::Subject;
use super::target::Target;
use super::{Context, as_path, count, show};
use crate::error::{Error, Result};
use crate::format::tree::{Body, Entry};
use crate::os::{self, FileType, Stat};
use std::io;
use std::os::fd::OwnedFd;

/// Makes one in this directory (none in a dry run), which may pass an ACL on, or where something is to be replaced. Returns what it is
/// there; `None` where nothing was made.
pub(super) fn make(
    context: &Context<'_>,
    path: &[u8],
    dir: Option<&OwnedFd>,
    entry: &Entry,
    (inherits, replaces): (bool, bool),
) -> Result<Option<Stat>> {
    let is_device = matches!(entry.body, Body::CharDevice { .. } | Body::BlockDevice { .. });
    if is_device && !context.root {
        count(&context.counts.skipped, 1);
        context.note_once("device", || {
            format!("Only root can restore devices; \"{}\" and others are left out", show(path))
        });
        return Ok(None);
    }
    context.progress.file(as_path(path));
    let mut made = None;
    if let (Some(target), Some(dir), false) = (&context.target, dir, context.options.dry_run) {
        let temporary = target.temporary();
        make_node(dir, &temporary, &entry.body).map_err(|error| Error::io("It could not be made", error))?;
        let failed = |error| Error::io("It could not be put in its place", error);
        let handle = os::open_path(dir, &temporary).map_err(failed)?;
        let stat = os::stat_fd(&handle).map_err(failed)?;
        // Whoever may rename what is in the directory can have put something else there, which must not be given away.
        if !is_alike(&stat, &entry.body) || target.able.owners && stat.uid != os::user_id() {
            return Err(failed(io::Error::other("something else has taken its place")));
        }
        let symlink = matches!(entry.body, Body::Symlink(_));
        context.apply(&Subject { path, handle: &handle, is_open: false, symlink, inherits }, &entry.meta);
        let placed = os::stat_fd(&handle).map_err(failed).and_then(|stat| {
            Target::place(dir, &temporary, &entry.name, replaces)?;
            Ok(stat)
        });
        made = Some(placed.inspect_err(|_| drop(os::unlink_at(dir, &temporary, false)))?);
    }
    count(&context.counts.others, 1);
    context.placed(path, 0, replaces);
    Ok(made)
}

fn make_node(dir: &OwnedFd, name: &[u8], body: &Body) -> io::Result<()> {
    match body {
        Body::Symlink(to) => os::symlink_at(to, dir, name),
        Body::Fifo => os::mkfifo_at(dir, name, 0o600),
        Body::Socket => os::mknod_at(dir, name, FileType::Socket, 0o600, (0, 0)),
        Body::CharDevice { major, minor } => os::mknod_at(dir, name, FileType::CharDevice, 0o600, (*major, *minor)),
        Body::BlockDevice { major, minor } => os::mknod_at(dir, name, FileType::BlockDevice, 0o600, (*major, *minor)),
        Body::File { .. } | Body::Directory { .. } => Err(io::ErrorKind::InvalidInput.into()),
    }
}
