//! One source item becomes one entry: read, cut, stored, described. Not for: order or directories (see `builder`).

use super::calm::{Clocks, time_to_settle};
use super::content::{Content as SourceFile, changed, link_target, look_again};
use super::feed::Feed;
use super::known::Known;
use super::meta::{self, Reader, blocks_given, timestamp};
use super::walk::SourceItem;
use crate::chunk::pieces::{Chunks, Piece};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_EXTENTS, MAX_INLINE};
use crate::format::list::ListPage;
use crate::format::message::ChunkKind;
use crate::format::snapshot::IssueKind;
use crate::format::tree::{AttributeSet, Attributes, Body, Content, Entry, Extent, Metadata};
use crate::id::ChunkId;
use crate::os::{FileType, Stat, Writes, stat_fd};
use crate::progress::{Compared, Progress, Silent, Stop};
use crate::repository::Repository;
use crate::repository::assemble::{Assembler, Group};
use crate::repository::files::CachedFile;
use crate::repository::tree::ContentBuilder;
use crate::repository::writer::Writer;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

/// A file that changes while it is read is read this often before it is recorded as unreliable.
const ATTEMPTS: u32 = 3;
/// Files that are for their owner alone and shorter than this get a padded block of their own.
const PRIVATE_SIZE: u64 = 4096;
/// Folders whose content is private whatever its size below the bound for solid blocks.
const PRIVATE_FOLDERS: [&[u8]; 3] = [b".ssh", b".gnupg", b".password-store"];

/// An item that is done.
pub struct Done {
    /// The entry.
    pub entry: Entry,
    /// What to remember of a regular file.
    pub cached: Option<CachedFile>,
    /// How a regular file compares with the last time.
    pub change: Option<Compared>,
    /// What was read may be a state that never was: to be read again after a while.
    pub doubt: Option<Doubt>,
}

/// A file that somebody may have been writing to while it was read, without a trace in its times.
#[derive(Debug)]
pub struct Doubt {
    /// The file, as it was when it was read.
    item: SourceItem,
    /// When it was read.
    pub read: Instant,
}

impl Doubt {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.item.path
    }
}

/// What became of a doubt.
pub enum Resolved {
    /// What was read is there still.
    Same,
    /// It differs, or is gone: this was read now, and may be doubtful in turn.
    Different(Option<Box<Done>>),
}

/// Something to report; the run goes on.
pub struct Trouble {
    /// What kind of thing.
    pub kind: IssueKind,
    /// The whole story.
    pub error: Error,
}

/// What a thread needs to turn items into entries.
pub struct Filer<'a> {
    /// Where to look chunks up.
    pub writer: &'a Writer,
    /// Takes new chunks.
    pub assembler: Assembler<'a>,
    /// Describes items.
    pub reader: &'a Reader,
    /// Cuts content.
    pub chunks: Chunks,
    /// Read everything again.
    pub force: bool,
    /// Where there are no change times, size and modification time decide.
    pub trust_mtime: bool,
    /// Told of bytes.
    pub progress: &'a dyn Progress,
    /// Asked before each read.
    pub stop: &'a Stop,
    /// Filled with what went wrong.
    pub troubles: Vec<Trouble>,
    /// Which file systems can be trusted how far.
    pub clocks: Clocks,
    /// The first file that was read again only because it has no change time.
    pub timeless: Option<PathBuf>,
}

impl Filer<'_> {
    fn repository(&self) -> &Arc<Repository> {
        self.writer.repository()
    }

    fn trouble(&mut self, kind: IssueKind, error: Error) {
        self.troubles.push(Trouble { kind, error });
    }

    /// The entry of anything but a directory; `None` if it had to be left out (see `troubles`). An error ends the backup.
    pub fn item(&mut self, item: &SourceItem, known: Known) -> Result<Option<Done>> {
        let body = match item.stat.kind {
            FileType::File => return self.file(item, known),
            FileType::Symlink => match link_target(item) {
                Ok(target) => Body::Symlink(target),
                Err(error) => {
                    self.trouble(IssueKind::Unreadable, error);
                    return Ok(None);
                }
            },
            FileType::Fifo => Body::Fifo,
            FileType::CharDevice => Body::CharDevice { major: item.stat.rdev.0, minor: item.stat.rdev.1 },
            FileType::BlockDevice => Body::BlockDevice { major: item.stat.rdev.0, minor: item.stat.rdev.1 },
            FileType::Directory | FileType::Socket | FileType::Unknown => {
                self.trouble(
                    IssueKind::Skipped,
                    Error::new(ErrorKind::Failed, "It is of a kind that is not backed up"),
                );
                return Ok(None);
            }
        };
        let mut meta = self.describe(item, None)?;
        meta.blocks = blocks_given(&item.stat);
        let entry = Entry { name: item.name.clone(), meta, body };
        Ok(Some(Done { entry, cached: None, change: None, doubt: None }))
    }

    /// The metadata of any item, large attribute sets stored.
    pub fn describe(&mut self, item: &SourceItem, open: Option<std::os::fd::BorrowedFd<'_>>) -> Result<Metadata> {
        let described = self.reader.describe(item, open);
        for error in described.issues {
            self.trouble(IssueKind::Unreadable, error);
        }
        let mut meta = described.metadata;
        if let Some(set) = described.large {
            meta.attributes = Some(Arc::new(self.store_attributes(&set)?));
        }
        Ok(meta)
    }

    fn store_attributes(&mut self, set: &AttributeSet) -> Result<Attributes> {
        let bytes = set.encode()?;
        let (id, _) = self.assembler.add(ChunkKind::Attributes, Group::Metadata, &bytes)?;
        Ok(Attributes::Chunk(id, bytes.len() as u32))
    }

    fn file(&mut self, item: &SourceItem, known: Known) -> Result<Option<Done>> {
        if let Known::Cached(cached) = &known
            && !self.force
            && self.is_same(cached, item)
            // Where sizes cannot be relied on, a file that says 0 may have content by now.
            && (item.stat.size > 0 || self.clocks.is_local(item))
            && self.is_present(&cached.content)
        {
            let mut meta = self.describe(item, None)?;
            meta.blocks = cached.blocks;
            // The change time is the same, so they are too.
            meta.flags |= cached.flags;
            self.progress.bytes(item.stat.size);
            let body = Body::File { size: cached.size, content: cached.content.clone() };
            let entry = Entry { name: item.name.clone(), meta, body };
            let (cached, change) = (Some((**cached).clone()), Some(Compared::Unchanged));
            return Ok(Some(Done { entry, cached, change, doubt: None }));
        }
        let change = match &known {
            Known::Nothing => Compared::New,
            Known::Cached(cached) if (cached.size, cached.mtime) == (item.stat.size, timestamp(item.stat.mtime)) => {
                Compared::Unchanged
            }
            Known::Recorded { size, mtime } if (*size, *mtime) == (item.stat.size, timestamp(item.stat.mtime)) => {
                Compared::Unchanged
            }
            _ => Compared::Changed,
        };
        let done = self.read_in_attempts(item)?;
        // Of a file that was replaced, size and time may be the same.
        let is_other = |done: &Done| match (&known, &done.entry.body) {
            (Known::Cached(cached), Body::File { content, .. }) => *content != cached.content,
            _ => false,
        };
        Ok(done.map(|done| Done { change: Some(if is_other(&done) { Compared::Changed } else { change }), ..done }))
    }

    /// Whether a file is certain to be as it was, and to be the same file; with `trust_mtime` it may only seem to be.
    fn is_same(&mut self, cached: &CachedFile, item: &SourceItem) -> bool {
        let stat = &item.stat;
        if (cached.size, cached.mtime) != (stat.size, timestamp(stat.mtime)) {
            return false;
        }
        if self.clocks.has_change_time(item) {
            return (cached.ctime, cached.inode) == (timestamp(stat.ctime), stat.ino);
        }
        // Most of these file systems number their files anew with each mount.
        if !self.trust_mtime {
            self.timeless.get_or_insert_with(|| item.path.clone());
        }
        self.trust_mtime
    }

    /// Says, in one of the threads, that files were read again only because they have no change time.
    pub fn note_timeless(&mut self, noted: &AtomicBool) {
        let Some(path) = self.timeless.take() else { return };
        if !noted.swap(true, Ordering::Relaxed) {
            let path = path.display();
            self.progress.note(&format!(
                "\"{path}\" and others like it were read again though they seem unmodified: their file system has no change times \
                 that would prove it. See \"--trust-mtime\""
            ));
        }
    }

    /// Reads a file, again if it changes meanwhile. `None` if it had to be left out (see `troubles`).
    fn read_in_attempts(&mut self, item: &SourceItem) -> Result<Option<Done>> {
        let mut item = item.clone();
        for attempt in 1..=ATTEMPTS {
            let seen = if attempt == 1 { Ok(()) } else { look_again(&mut item).map_err(FileError::from_source) };
            match seen.and_then(|()| self.read_file(&mut item, attempt == ATTEMPTS)) {
                Ok(Some(done)) => return Ok(Some(done)),
                // Changed while it was read: once more.
                Ok(None) => {}
                Err(FileError::Fatal(error)) => return Err(error),
                Err(FileError::Gone(error)) => {
                    self.trouble(IssueKind::Vanished, error);
                    return Ok(None);
                }
                Err(FileError::Source(error)) if attempt == ATTEMPTS || !may_pass(&error) => {
                    self.trouble(IssueKind::Unreadable, error);
                    return Ok(None);
                }
                Err(FileError::Source(_)) => {}
            }
        }
        unreachable!("the last attempt returns")
    }

    /// One attempt at reading a file. `None` if it changed meanwhile and this was not the last attempt.
    fn read_file(&mut self, item: &mut SourceItem, last: bool) -> std::result::Result<Option<Done>, FileError> {
        let mut source = SourceFile::open(item).map_err(FileError::from_source)?;
        item.stat = *source.stat();
        let path = item.path.clone();
        let look = |source: &SourceFile| {
            let failed = |error| FileError::Source(Error::io(format!("\"{}\" cannot be read", path.display()), error));
            stat_fd(source.file()).map_err(failed)
        };
        let mut calm = true;
        if let Some(wait) = time_to_settle(&item.stat, SystemTime::now()) {
            std::thread::sleep(wait);
            calm = !changed(&item.stat, &look(&source)?);
        }
        // Before the first byte: a writer that opens the file later changes its times.
        let writes = self.clocks.wait_for_writes(item, source.file());
        if writes == Writes::Blocking {
            return Err(FileError::Source(cannot_be_waited_for(item)));
        }
        // Waiting once more would take as long again.
        let (calm, last) = (calm && writes != Writes::Going, last || writes == Writes::Going);
        let begun = SystemTime::now();
        let doubtful = self.clocks.is_doubtful(item, writes, begun);
        let (size, content, rule) = self.read_content(item, &mut source)?;
        let after = look(&source)?;
        // Files of /proc, /sys and some of FUSE state a size that is not theirs.
        let is_misstated =
            size != after.size && after.size == item.stat.size && (source.goes_beyond() || !self.clocks.is_local(item));
        let unreliable = !calm || (changed(&item.stat, &after) || size != after.size) && !is_misstated;
        if unreliable && !last {
            return Ok(None);
        }
        let as_read = item.clone();
        item.stat = after;
        item.stat.size = size;
        let mut meta = self.describe(item, Some(source.file().as_fd())).map_err(FileError::Fatal)?;
        meta.blocks = rule.given(&after);
        meta.unreliable = unreliable;
        if unreliable {
            self.trouble(IssueKind::Changed, changed_while_read(item));
        }
        item.stat = after;
        let is_kept = !unreliable
            && !is_misstated
            && !self.clocks.is_young(item, begun)
            && (size > 0 || self.clocks.is_local(item))
            && !is_private(&content, &after);
        let cached = is_kept.then(|| CachedFile {
            name: item.name.clone(),
            size,
            mtime: timestamp(after.mtime),
            ctime: timestamp(after.ctime),
            inode: after.ino,
            content: content.clone(),
            blocks: meta.blocks,
            flags: meta.flags,
        });
        let doubt = (doubtful && !unreliable && !is_misstated).then(|| Doubt { item: as_read, read: Instant::now() });
        let entry = Entry { name: item.name.clone(), meta, body: Body::File { size, content } };
        Ok(Some(Done { entry, cached, change: None, doubt }))
    }

    /// Reads a doubtful file again, as far as it went, and all of it anew if that differs from `entry`. (A log that grows is a
    /// beginning of itself.) The `last` time it is not read anew. An error ends the backup.
    pub fn resolve(&mut self, doubt: &Doubt, entry: &Entry, last: bool) -> Result<Resolved> {
        let silent: &'static dyn Progress = &Silent;
        let progress = std::mem::replace(&mut self.progress, silent);
        let resolved = self.resolve_silently(doubt, entry, last);
        self.progress = progress;
        resolved
    }

    fn resolve_silently(&mut self, doubt: &Doubt, entry: &Entry, last: bool) -> Result<Resolved> {
        match self.is_there_still(&doubt.item, entry) {
            Ok(true) => return Ok(Resolved::Same),
            Err(FileError::Fatal(error)) => return Err(error),
            Ok(false) | Err(FileError::Gone(_) | FileError::Source(_)) if last => return Ok(Resolved::Different(None)),
            Ok(false) | Err(FileError::Gone(_) | FileError::Source(_)) => {}
        }
        let mut item = doubt.item.clone();
        let before = self.troubles.len();
        let again = match look_again(&mut item) {
            Ok(()) => self.read_in_attempts(&item)?,
            Err(_) => None,
        };
        if again.is_none() {
            // Why it cannot be read any more does not matter: something was read of it.
            self.troubles.truncate(before);
        }
        Ok(Resolved::Different(again.map(Box::new)))
    }

    /// Whether the file still begins with what was read of it.
    fn is_there_still(&mut self, item: &SourceItem, entry: &Entry) -> std::result::Result<bool, FileError> {
        let Body::File { size, content } = &entry.body else { return Ok(true) };
        let mut source = SourceFile::open(item).map_err(FileError::from_source)?;
        if source.stat().size < *size {
            return Ok(false);
        }
        source.end_at(*size);
        let (read, again, _) = self.read_content(item, &mut source)?;
        Ok(read == *size && again == *content)
    }

    /// Marks what was read of a file that would not keep still.
    pub fn give_up(&mut self, doubt: &Doubt, entry: &mut Entry) {
        entry.meta.unreliable = true;
        self.trouble(IssueKind::Changed, changed_while_read(&doubt.item));
    }

    fn read_content(
        &mut self,
        item: &SourceItem,
        source: &mut SourceFile,
    ) -> std::result::Result<(u64, Content, meta::BlockRule), FileError> {
        let failed =
            |error| FileError::from_source(Error::io(format!("\"{}\" cannot be read", item.path.display()), error));
        let group = group_of(item);
        let mut builder = ContentBuilder::default();
        let mut rule = meta::BlockRule::default();
        let mut size = 0u64;
        let mut inline = None;
        self.chunks.restart();
        let stop = self.stop;
        let mut feed = Feed::new(source, self.progress, stop);
        loop {
            let piece = match self.chunks.next(&mut feed) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    stop.check().map_err(FileError::Fatal)?;
                    return Err(failed(error));
                }
            };
            let extent = match piece {
                Piece::Hole(length) => {
                    rule.hole();
                    Extent::Hole(length)
                }
                Piece::Data(data) => {
                    rule.data(data.len() as u64);
                    if size == 0 && data.len() <= MAX_INLINE {
                        inline = Some(data.to_vec());
                        size = data.len() as u64;
                        continue;
                    }
                    let (id, _) = self.assembler.add(ChunkKind::Content, group, data).map_err(FileError::Fatal)?;
                    Extent::Chunk { id, len: data.len() as u32 }
                }
            };
            if let Some(first) = inline.take() {
                // More follows on what looked like all of it.
                let (id, _) = self.assembler.add(ChunkKind::Content, group, &first).map_err(FileError::Fatal)?;
                let extent = Extent::Chunk { id, len: first.len() as u32 };
                builder.push(extent, &mut self.assembler).map_err(FileError::Fatal)?;
            }
            size += extent.len();
            builder.push(extent, &mut self.assembler).map_err(FileError::Fatal)?;
        }
        let content = match inline {
            Some(bytes) => Content::Inline(bytes),
            None => builder.finish(&mut self.assembler).map_err(FileError::Fatal)?,
        };
        Ok((size, content, rule))
    }

    /// Whether every chunk of a remembered content is stored where it may be relied on. Any doubt means no.
    fn is_present(&self, content: &Content) -> bool {
        match content {
            Content::Inline(_) => true,
            Content::Extents(extents) => extents.len() <= MAX_EXTENTS && self.are_present(extents),
            Content::List(id) => self.is_list_present(id, 0),
        }
    }

    fn are_present(&self, extents: &[Extent]) -> bool {
        extents.iter().all(|extent| match extent {
            Extent::Hole(_) => true,
            Extent::Chunk { id, .. } => self.writer.has(id).unwrap_or(false),
        })
    }

    fn is_list_present(&self, id: &ChunkId, depth: u8) -> bool {
        if depth > crate::format::bounds::MAX_LEVEL || !self.writer.has(id).unwrap_or(false) {
            return false;
        }
        match self.repository().list_page(id) {
            Ok(ListPage::Extents(extents)) => self.are_present(&extents),
            Ok(ListPage::Interior { children, .. }) => {
                children.iter().all(|child| self.is_list_present(&child.page, depth + 1))
            }
            Err(_) => false,
        }
    }
}

enum FileError {
    /// This file cannot be read.
    Source(Error),
    /// It is not there any more.
    Gone(Error),
    /// The backup cannot go on.
    Fatal(Error),
}

impl FileError {
    fn from_source(error: Error) -> FileError {
        if error.kind() == ErrorKind::NotFound { FileError::Gone(error) } else { FileError::Source(error) }
    }
}

fn changed_while_read(item: &SourceItem) -> Error {
    let text = format!("\"{}\" changed while it was read; what was read is kept", item.path.display());
    Error::new(ErrorKind::Failed, text)
}

fn cannot_be_waited_for(item: &SourceItem) -> Error {
    let text =
        format!("\"{}\" cannot be read: another program has been writing to it for a while", item.path.display());
    Error::new(ErrorKind::InUse, text)
}

/// Whether reading again may help: a replaced file, an I/O error of a disk or network.
fn may_pass(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Denied | ErrorKind::InUse)
}

/// Whether a record of the files cache would hold what only the file's owner may read. Such a file is short to read again.
fn is_private(content: &Content, stat: &Stat) -> bool {
    matches!(content, Content::Inline(bytes) if !bytes.is_empty()) && stat.mode & 0o077 == 0
}

fn group_of(item: &SourceItem) -> Group {
    use std::os::unix::ffi::OsStrExt;
    let owner_only = item.stat.mode & 0o077 == 0;
    let folder =
        || item.path.as_os_str().as_bytes().split(|byte| *byte == b'/').any(|part| PRIVATE_FOLDERS.contains(&part));
    if owner_only && (item.stat.size < PRIVATE_SIZE || folder()) { Group::Private } else { Group::Owner(item.stat.uid) }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
