//! Further names of files. A name is linked only to what this restore made, or to what was there and was read and found to be as
//! recorded; where that is gone, replaced or out of reach, the content is written once more. Not for: deciding what is restored
//! (see `walk`).
//!
//! Memory: `MAX_GROUP_BYTES`.

use super::compare::{compare_content, is_theirs, looks_unchanged};
use super::job::{FileJob, NewFile, OpenFiles};
use super::kept::{Kept, Origin};
use super::target::{Relative, Target};
use super::{Context, Overwrite, count, join, show, special};
use crate::error::{Error, ErrorKind, Result};
use crate::format::message::ChunkKind;
use crate::format::tree::{Body, Content, Entry, Extent, LinkKey};
use crate::os::{self, FileTime, FileType, Stat};
use crate::view::content::check_length;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that the first names of hard-link groups may take until all their names were met. Names of groups beyond become
/// files of their own, which is told. A group takes 256 bytes and its path, so this is about a million of them.
const MAX_GROUP_BYTES: usize = 256 << 20;
/// Names of one file that further ones are linked to: several, where it is on several file systems or has too many links.
const MAX_NAMES: usize = 4;

/// A further name of a file.
pub(super) struct Link {
    /// The path in the snapshot.
    pub(super) path: Vec<u8>,
    pub(super) dir: Relative,
    /// What is recorded under this name, which agrees with what is recorded under the first.
    pub(super) entry: Entry,
    /// The directory may give new things an ACL of its own.
    pub(super) inherits: bool,
    /// Something has its name that it is to replace.
    pub(super) replaces: bool,
    pub(super) first: Arc<First>,
}

impl Link {
    pub(super) fn size(&self) -> u64 {
        if let Body::File { size, .. } = &self.entry.body { *size } else { 0 }
    }
}

impl Link {
    /// What is left to do with it once it is made: what was there before may need metadata, and all is compared if asked for.
    pub(super) fn into_kept(self, context: &Context<'_>) -> Option<Kept> {
        let Link { path, dir, entry, replaces, .. } = self;
        // What could not be made has been told.
        let target = context.target.as_ref().filter(|_| replaces || context.options.verify)?;
        let there = target.directory(&dir).and_then(|dir| os::stat_at(&dir, &entry.name)).ok()?;
        let is_it = looks_unchanged(context, None, &there, &entry) && !is_theirs(context, &there, &entry);
        let origin = if replaces { Origin::Looked } else { Origin::Made };
        is_it.then_some(Kept { path, dir, entry, origin })
    }
}

/// Names that a file has in the target.
#[derive(Default)]
pub(super) struct First {
    names: Mutex<Names>,
    /// Held by who writes the content once more, so that others can link to that.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Names {
    /// Under which this restore made the file, or found it to be as recorded.
    sure: Vec<Name>,
    /// How many there ever were of these.
    count: u64,
    /// Under which something was left in the target because it looks as recorded.
    kept: Option<(Relative, Vec<u8>)>,
}

#[derive(Clone)]
struct Name {
    dir: Relative,
    name: Vec<u8>,
    file: Identity,
}

/// What tells a file from one that somebody has put in its place. An inode number does not: it is used again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    dev: u64,
    ino: u64,
    kind: FileType,
    birth: Option<FileTime>,
    owner: u32,
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Identity {
        Identity { dev: stat.dev, ino: stat.ino, kind: stat.kind, birth: stat.btime, owner: stat.uid }
    }

    /// Whether an open file is it, as far as its file system can tell.
    pub(super) fn is_of(self, file: &OwnedFd, stat: &Stat) -> bool {
        let found = Identity::of(stat);
        found == self || stat.nlink == 1 && Identity { ino: self.ino, ..found } == self && os::may_renumber(file)
    }
}

impl First {
    /// Something that was left in the target because it looks as recorded.
    pub(super) fn kept(dir: Relative, name: Vec<u8>) -> First {
        let names = Names { sure: Vec::new(), count: 0, kept: Some((dir, name)) };
        First { names: Mutex::new(names), writing: Mutex::default() }
    }

    /// The file has been made, and has this name.
    pub(super) fn made(&self, dir: &Relative, name: &[u8], stat: &Stat) {
        let mut names = self.lock();
        names.count += 1;
        names.sure.truncate(MAX_NAMES - 1);
        names.sure.insert(0, Name { dir: dir.clone(), name: name.to_vec(), file: Identity::of(stat) });
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files with several names, until all of them were met.
#[derive(Default)]
pub(super) struct Groups {
    by_number: HashMap<u64, Vec<Group>>,
    bytes: usize,
}

struct Group {
    key: LinkKey,
    first: Arc<First>,
    left: u32,
    weight: usize,
}

impl Groups {
    /// The names that this file has so far.
    pub(super) fn first(&self, entry: &Entry) -> Option<Arc<First>> {
        let (key, link) = (entry.link_key()?, entry.meta.link?);
        let group = self.by_number.get(&link.group)?.iter().find(|group| group.key == key)?;
        Some(group.first.clone())
    }

    /// Keeps the first name of a file that has several.
    pub(super) fn remember(&mut self, context: &Context<'_>, entry: &Entry, path: &[u8], first: &Arc<First>) {
        let Some(link) = entry.meta.link.filter(|link| link.links > 1) else { return };
        let Some(key) = entry.link_key() else { return };
        let weight = 256 + path.len();
        if self.bytes + weight > MAX_GROUP_BYTES {
            context.note_once("groups", || {
                "There are too many hard links to keep in mind; some names become files of their own".to_owned()
            });
            return;
        }
        let groups = self.by_number.entry(link.group).or_default();
        if !groups.is_empty() && groups.iter().all(|group| group.key != key) {
            context.note_once("disagree", || {
                format!(
                    "\"{}\" is recorded as a further name of a file that is recorded otherwise: it was changed or replaced during \
                     the backup. It is restored as a file of its own; others like it are not told",
                    show(path)
                )
            });
        }
        groups.push(Group { key, first: first.clone(), left: link.links, weight });
        self.bytes += weight;
    }

    /// One name less to come of this file; one all of whose names were met is forgotten.
    pub(super) fn met(&mut self, group: Option<u64>, key: Option<LinkKey>) {
        let (Some(number), Some(key)) = (group, key) else { return };
        let Some(groups) = self.by_number.get_mut(&number) else { return };
        let Some(at) = groups.iter().position(|group| group.key == key) else { return };
        groups[at].left = groups[at].left.saturating_sub(1);
        if groups[at].left == 0 {
            self.bytes = self.bytes.saturating_sub(groups.swap_remove(at).weight);
            if groups.is_empty() {
                self.by_number.remove(&number);
            }
        }
    }
}

/// What came of a further name.
enum Linked {
    Made,
    /// It was there already.
    There,
    /// There is nothing in reach to link it to, and why.
    Not(Option<(Vec<u8>, io::Error)>),
}

/// Makes a further name. Returns a file that had to be written once more.
pub(super) fn make_link(context: &Context<'_>, open: &OpenFiles, link: &Link) -> Option<Arc<FileJob>> {
    let before = link.first.lock().count;
    let mut linked = try_link(context, link);
    let mut writing = None;
    if let Ok(Linked::Not(_)) = linked {
        writing = Some(link.first.writing.lock().unwrap_or_else(PoisonError::into_inner));
        if link.first.lock().count != before {
            linked = try_link(context, link);
        }
    }
    let counter = match linked {
        Ok(Linked::Made) => {
            context.placed(&link.path, link.size(), link.replaces);
            &context.counts.hard_links
        }
        Ok(Linked::There) => {
            context.left(&link.path, link.size());
            &context.counts.skipped
        }
        Ok(Linked::Not(reason)) => {
            if let Some((first, error)) = reason {
                context.note_once("link", || {
                    format!(
                        "\"{}\" could not be linked to \"{}\" ({error}) and becomes a file of its own; others like it are not told",
                        show(&link.path),
                        show(&first)
                    )
                });
            }
            return write_again(context, open, link);
        }
        Err(error) => {
            context.issue(&link.path, error.context(format!("\"{}\" could not be restored", show(&link.path))));
            return None;
        }
    };
    drop(writing);
    count(counter, 1);
    context.progress.bytes(link.size());
    context.progress.files(1);
    None
}

fn try_link(context: &Context<'_>, link: &Link) -> Result<Linked> {
    let Some(target) = &context.target else { return Ok(Linked::Made) };
    let to = target.directory(&link.dir).map_err(|error| Error::io("Its directory could not be opened", error))?;
    let there = os::stat_at(&to, &link.entry.name).ok();
    let names = {
        let mut names = link.first.lock();
        if let Some((dir, name)) = names.kept.take() {
            let found = target.directory(&dir).and_then(|from| os::stat_at(&from, &name)).ok();
            if there.zip(found).is_some_and(|(there, found)| there.same_file(&found)) {
                names.kept = Some((dir, name));
                return Ok(Linked::There);
            }
            if let Some(stat) = verified(context, target, &dir, &name, link)? {
                names.sure.push(Name { dir, name, file: Identity::of(&stat) });
            }
        }
        names.sure.clone()
    };
    let mut reason = None;
    let looks_unchanged = there.is_some_and(|stat| {
        looks_unchanged(context, Some(&*to), &stat, &link.entry) && !is_theirs(context, &stat, &link.entry)
    });
    for first in names {
        if there.is_some_and(|there| Identity::of(&there) == first.file) {
            // A rename between two names of one file does nothing, and would leave the temporary one.
            return Ok(Linked::There);
        }
        let temporary = target.temporary();
        match link_to(target, &first, &to, &temporary) {
            Ok(()) => {}
            Err(error) => {
                reason.get_or_insert((join(&first.dir, &first.name), error));
                continue;
            }
        }
        let placed = Target::place(&to, &temporary, &link.entry.name, link.replaces);
        if placed.is_err() {
            drop(os::unlink_at(&to, &temporary, false));
        }
        placed?;
        return Ok(Linked::Made);
    }
    // Where nothing can be linked, a file of its own is as good as one gets, also the next time.
    let stays = looks_unchanged && context.options.overwrite == Overwrite::IfChanged;
    Ok(if stays { Linked::There } else { Linked::Not(reason) })
}

/// Gives a file another name, if it still is the file that it was.
fn link_to(target: &Target, first: &Name, to: &OwnedFd, temporary: &[u8]) -> io::Result<()> {
    let from = target.directory(&first.dir)?;
    os::link_at(&from, &first.name, to, temporary)?;
    // Who owns the directory of the first name may put something else there at any moment: only what has got the new name counts.
    match os::stat_at(to, temporary) {
        Ok(stat) if Identity::of(&stat) == first.file => Ok(()),
        found => {
            drop(os::unlink_at(to, temporary, false));
            found.and(Err(io::Error::other("something else has taken its place")))
        }
    }
}

/// What something is that was left in the target because it looks as recorded; `None` if it is not as recorded.
fn verified(context: &Context<'_>, target: &Target, dir: &Relative, name: &[u8], link: &Link) -> Result<Option<Stat>> {
    let path = join(dir, name);
    let result = try_verify(context, target, dir, name, link);
    match result {
        Ok(stat) => Ok(stat),
        Err(_) if !context.goes_on() => {
            context.stop.check()?;
            Ok(None)
        }
        Err(error) => {
            let message = format!(
                "\"{}\" in the target has the recorded size and time, but is not as recorded; it was left, and \"{}\" was not \
                 linked to it",
                show(&path),
                show(&link.path)
            );
            let error = error.context(message).with_hint("Restore it with \"--overwrite always\".");
            context.issue(&path, error.with_kind(ErrorKind::Exists));
            Ok(None)
        }
    }
}

fn try_verify(
    context: &Context<'_>,
    target: &Target,
    dir: &Relative,
    name: &[u8],
    link: &Link,
) -> Result<Option<Stat>> {
    let failed = |error| Error::io("It cannot be read", error);
    let from = target.directory(dir).map_err(failed)?;
    let stat = match &link.entry.body {
        Body::File { size, content } => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let file = File::from(os::open_at(&from, name, flags, 0).map_err(failed)?);
            let stat = os::stat_fd(&file).map_err(failed)?;
            if stat.kind == FileType::File {
                compare_content(context, &file, *size, content)?;
            }
            stat
        }
        _ => os::stat_at(&from, name).map_err(failed)?,
    };
    let entry = Entry { name: name.to_vec(), meta: link.entry.meta.clone(), body: link.entry.body.clone() };
    // Whose file it is decides who may change it, now and later.
    let is_it = looks_unchanged(context, Some(&*from), &stat, &entry) && !is_theirs(context, &stat, &entry);
    Ok(is_it.then_some(stat))
}

/// Writes the content once more, under this name. Returns the file if there may be something to compare.
fn write_again(context: &Context<'_>, open: &OpenFiles, link: &Link) -> Option<Arc<FileJob>> {
    let target = context.target.as_ref()?;
    let Link { path, dir, entry, inherits, replaces, first } = link;
    let Body::File { size, content } = &entry.body else {
        let made = target.directory(dir).map_err(|error| Error::io("Its directory could not be opened", error));
        match made.and_then(|handle| special::make(context, path, Some(&*handle), entry, (*inherits, *replaces))) {
            Ok(Some(stat)) => first.made(dir, &entry.name, &stat),
            Ok(None) => {}
            Err(error) => context.issue(path, error.context(format!("\"{}\" could not be restored", show(path)))),
        }
        return None;
    };
    // It gets its flags at once, as if it had no further names: those may have to be written as well.
    let meta = crate::format::tree::Metadata { link: None, ..entry.meta.clone() };
    let job = Arc::new(FileJob::new(
        target.clone(),
        NewFile {
            path: path.clone(),
            dir: dir.clone(),
            name: entry.name.clone(),
            meta,
            size: *size,
            content: content.clone(),
            inherits: *inherits,
            replaces: *replaces,
            first: Some(first.clone()),
        },
    ));
    if matches!(content, Content::Inline(_)) {
        job.write_small(context, open);
        return Some(job);
    }
    match write_chunks(context, open, &job, *size, content) {
        Ok(()) => job.complete(context, open),
        Err(error) => job.fail(context, error),
    }
    Some(job)
}

fn write_chunks(
    context: &Context<'_>,
    open: &OpenFiles,
    job: &Arc<FileJob>,
    size: u64,
    content: &Content,
) -> Result<()> {
    let mut offset = 0u64;
    for extent in context.repository.extents(content) {
        context.stop.check()?;
        let extent = extent?;
        match extent {
            Extent::Hole(len) => context.progress.bytes(len),
            Extent::Chunk { id, len } => {
                let bytes = context.repository.chunk(ChunkKind::Content, &id).map_err(|error| {
                    // An error of the repository says nothing about space in the target.
                    let kind = if error.kind() == ErrorKind::Full { ErrorKind::Failed } else { error.kind() };
                    error.with_kind(kind)
                })?;
                check_length(bytes.len(), len)?;
                job.write(context, open, offset, &bytes)?;
            }
        }
        offset = offset.saturating_add(extent.len());
    }
    if offset != size {
        return Err(Error::damaged("its list of chunks does not have the length of the file"));
    }
    Ok(())
}
