//! Whether something in the target is what was recorded. Not for: what is done if it is not (see `job`, `link`).

use super::meta::file_time;
use super::{Context, job::failed_to};
use crate::error::{Error, ErrorKind, Result};
use crate::format::message::ChunkKind;
use crate::format::tree::{Body, Content, Entry, Extent};
use crate::os::{self, FileType, Stat};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Reads a file of the target from its beginning to its end; an error says how it differs from what was recorded.
pub(super) fn compare_content(context: &Context<'_>, file: &File, size: u64, content: &Content) -> Result<()> {
    let length = file.metadata().map_err(failed_to("read back"))?.len();
    if length != size {
        return Err(differs_in(&format!("it has {length} bytes instead of {size}")));
    }
    if let Content::Inline(bytes) = content {
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, 0).map_err(failed_to("read back"))?;
        return if found == *bytes { Ok(()) } else { Err(differs_in("its content differs")) };
    }
    let mut offset = 0u64;
    let mut buffer = Vec::new();
    for extent in context.repository.extents(content) {
        context.stop.check()?;
        let extent = extent?;
        match extent {
            Extent::Hole(len) => compare_hole(context, file, offset, offset.saturating_add(len))?,
            Extent::Chunk { id, len } => {
                buffer.resize(len as usize, 0);
                file.read_exact_at(&mut buffer, offset).map_err(failed_to("read back"))?;
                if context.repository.keyring().chunk_id(ChunkKind::Content, &buffer) != id {
                    return Err(differs_in(&format!("its content differs after byte {offset}")));
                }
            }
        }
        offset = offset.saturating_add(extent.len());
    }
    if offset != size {
        return Err(Error::damaged("its list of chunks does not have the length of the file"));
    }
    Ok(())
}

fn compare_hole(context: &Context<'_>, file: &File, from: u64, to: u64) -> Result<()> {
    let mut offset = from;
    let mut buffer = vec![0; 1 << 16];
    while offset < to {
        context.stop.check()?;
        match os::seek_data(file, offset).map_err(failed_to("read back"))? {
            Some(data) if data < to => offset = data.max(offset),
            _ => return Ok(()),
        }
        let step = (to - offset).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..step], offset).map_err(failed_to("read back"))?;
        if buffer[..step].iter().any(|byte| *byte != 0) {
            return Err(differs_in(&format!("there is something after byte {offset}, where a hole should be")));
        }
        offset += step as u64;
    }
    Ok(())
}

/// Something in the target is not what it should be.
pub(super) fn differs_in(how: &str) -> Error {
    let (first, rest) = how.split_at(how.chars().next().map_or(0, char::len_utf8));
    Error::new(ErrorKind::Failed, format!("{}{rest}", first.to_uppercase()))
}

/// Whether it is of the recorded type, size and device; where a link leads is not looked at.
pub(super) fn is_alike(stat: &Stat, body: &Body) -> bool {
    match body {
        Body::File { size, .. } => stat.kind == FileType::File && stat.size == *size,
        Body::Symlink(_) => stat.kind == FileType::Symlink,
        Body::Fifo => stat.kind == FileType::Fifo,
        Body::Socket => stat.kind == FileType::Socket,
        Body::CharDevice { major, minor } => stat.kind == FileType::CharDevice && stat.rdev == (*major, *minor),
        Body::BlockDevice { major, minor } => stat.kind == FileType::BlockDevice && stat.rdev == (*major, *minor),
        Body::Directory { .. } => false,
    }
}

/// Whether something of this name looks as recorded: type, size (or link target, or device) and time.
pub(super) fn looks_unchanged(context: &Context<'_>, dir: Option<&OwnedFd>, stat: &Stat, entry: &Entry) -> bool {
    let leads_there = match (&entry.body, dir) {
        (Body::Symlink(to), Some(dir)) => os::read_link_at(dir, &entry.name).is_ok_and(|found| found == *to),
        (Body::Symlink(_), None) => false,
        _ => true,
    };
    let able = context.target.as_ref().map(|target| target.able).unwrap_or_default();
    is_alike(stat, &entry.body) && leads_there && able.has_time(stat.mtime, file_time(entry.meta.mtime))
}

/// Whether it belongs to somebody else than what is recorded, as far as root can set that right. Somebody may have put it there to be
/// given it.
pub(super) fn is_theirs(context: &Context<'_>, stat: &Stat, entry: &Entry) -> bool {
    let keeps_owners = context.target.as_ref().is_some_and(|target| target.able.owners);
    context.root && keeps_owners && stat.uid != entry.meta.owner.uid
}
