//! One source item becomes one entry: read, cut, stored, described. Not for: order or directories (see `builder`).

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
use crate::os::{FileType, Stat, stat_fd};
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::assemble::{Assembler, Group};
use crate::repository::files::CachedFile;
use crate::repository::tree::ContentBuilder;
use crate::repository::writer::Writer;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// A file that changes while it is read is read this often before it is recorded as unreliable.
const ATTEMPTS: u32 = 3;
/// A file whose inode changed this short a time before it was read is not remembered, because it may change again unseen:
/// 1. Within the same tick of the file system's clock (up to 2 s), its times stay the same. (The racy-git problem, git's
///    Documentation/technical/racy-git.)
/// 2. Of a file that is mapped into memory, only the first store into a clean page sets its times; further stores into that
///    page leave no trace until the kernel has written it to the disk and protects it again. That happens once it has been
///    dirty for `vm.dirty_expire_centisecs` (30 s), at the next round of `vm.dirty_writeback_centisecs` (5 s).
///
/// This leaves room for a disk that is slow to take what is written. (On tmpfs stores through a mapping never set the times.)
const YOUNG: Duration = Duration::from_secs(60);
/// The step of the clock from which file systems take their times is at most this (a jiffy of 10 ms, with room).
const TICK: Duration = Duration::from_millis(50);
/// File systems that keep whole seconds only.
const COARSE_TICK: Duration = Duration::from_secs(2);
/// Files that are for their owner alone and shorter than this get a padded block of their own.
const PRIVATE_SIZE: u64 = 4096;
/// Folders whose content is private whatever its size below the bound for solid blocks.
const PRIVATE_FOLDERS: [&[u8]; 3] = [b".ssh", b".gnupg", b".password-store"];

/// How a file compares with the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    New,
    /// It was there and is different now.
    Changed,
    /// It is the same.
    Unmodified,
}

/// An item that is done.
pub struct Done {
    /// The entry.
    pub entry: Entry,
    /// What to remember of a regular file.
    pub cached: Option<CachedFile>,
    /// How a regular file compares with the last time.
    pub change: Option<Change>,
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
    /// Told of bytes.
    pub progress: &'a dyn Progress,
    /// Asked before each read.
    pub stop: &'a Stop,
    /// Filled with what went wrong.
    pub troubles: Vec<Trouble>,
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
        Ok(Some(Done { entry: Entry { name: item.name.clone(), meta, body }, cached: None, change: None }))
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
            && is_same(cached, &item.stat)
            && self.is_present(&cached.content)
        {
            let mut meta = self.describe(item, None)?;
            meta.blocks = cached.blocks;
            // The change time is the same, so they are too.
            meta.flags |= cached.flags;
            self.progress.bytes(item.stat.size);
            let body = Body::File { size: cached.size, content: cached.content.clone() };
            let entry = Entry { name: item.name.clone(), meta, body };
            return Ok(Some(Done { entry, cached: Some((**cached).clone()), change: Some(Change::Unmodified) }));
        }
        let change = match &known {
            Known::Nothing => Change::New,
            Known::Cached(cached) if (cached.size, cached.mtime) == (item.stat.size, timestamp(item.stat.mtime)) => {
                Change::Unmodified
            }
            Known::Recorded { size, mtime } if (*size, *mtime) == (item.stat.size, timestamp(item.stat.mtime)) => {
                Change::Unmodified
            }
            _ => Change::Changed,
        };
        let mut item = item.clone();
        for attempt in 1..=ATTEMPTS {
            let seen = if attempt == 1 { Ok(()) } else { look_again(&mut item).map_err(FileError::from_source) };
            match seen.and_then(|()| self.read_file(&mut item, attempt == ATTEMPTS)) {
                Ok(Some((entry, cached))) => return Ok(Some(Done { entry, cached, change: Some(change) })),
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
    fn read_file(
        &mut self,
        item: &mut SourceItem,
        last: bool,
    ) -> std::result::Result<Option<(Entry, Option<CachedFile>)>, FileError> {
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
        let begun = SystemTime::now();
        let (size, content, rule) = self.read_content(item, &mut source)?;
        let after = look(&source)?;
        let unreliable = !calm || changed(&item.stat, &after) || size != after.size;
        if unreliable && !last {
            return Ok(None);
        }
        item.stat = after;
        item.stat.size = size;
        let mut meta = self.describe(item, Some(source.file().as_fd())).map_err(FileError::Fatal)?;
        meta.blocks = rule.given(&after);
        meta.unreliable = unreliable;
        if unreliable {
            let text = format!("\"{}\" changed while it was read; what was read is kept", item.path.display());
            self.trouble(IssueKind::Changed, Error::new(ErrorKind::Failed, text));
        }
        let cached =
            (!unreliable && !is_racy(&after, begun, young()) && !is_private(&content, &after)).then(|| CachedFile {
                name: item.name.clone(),
                size,
                mtime: timestamp(after.mtime),
                ctime: timestamp(after.ctime),
                inode: after.ino,
                content: content.clone(),
                blocks: meta.blocks,
                flags: meta.flags,
            });
        Ok(Some((Entry { name: item.name.clone(), meta, body: Body::File { size, content } }, cached)))
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
                    if size == 0 && data.len() <= MAX_INLINE && item.stat.size == data.len() as u64 {
                        inline = Some(data.to_vec());
                        size = data.len() as u64;
                        continue;
                    }
                    let (id, _) = self.assembler.add(ChunkKind::Content, group, data).map_err(FileError::Fatal)?;
                    Extent::Chunk { id, len: data.len() as u32 }
                }
            };
            if let Some(first) = inline.take() {
                // The file grew behind what looked like all of it.
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

/// Whether reading again may help: a replaced file, an I/O error of a disk or network.
fn may_pass(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Denied)
}

fn is_same(cached: &CachedFile, stat: &Stat) -> bool {
    cached.size == stat.size
        && cached.mtime == timestamp(stat.mtime)
        && cached.ctime == timestamp(stat.ctime)
        && cached.inode == stat.ino
}

/// The step of the clock that file systems use, or of those that keep whole seconds only.
fn tick(stat: &Stat) -> Duration {
    let coarse = stat.ctime.nanos == 0 && stat.mtime.nanos == 0;
    if coarse { COARSE_TICK } else { TICK }
}

/// How long to wait before a file is read that was changed just now. A call that writes sets the times when it begins, so
/// that bytes may still change behind times that stay: a state that never was would be kept without a word. If the times
/// are the same after a tick, such a call is over. An empty file has nothing to be torn.
fn time_to_settle(stat: &Stat, now: SystemTime) -> Option<Duration> {
    // Times further in the future come from a clock that was wrong, and waiting for each such file would take for ever.
    let is_ahead = is_racy(stat, now + COARSE_TICK, Duration::ZERO);
    (stat.size > 0 && is_racy(stat, now, tick(stat)) && !is_ahead).then(|| tick(stat))
}

/// Whether a file that was read from `begun` on may change, or have changed, without another change time.
fn is_racy(stat: &Stat, begun: SystemTime, young: Duration) -> bool {
    let Ok(begun) = begun.duration_since(SystemTime::UNIX_EPOCH) else { return true };
    let changed = i128::from(stat.ctime.seconds) * 1_000_000_000 + i128::from(stat.ctime.nanos);
    changed + young.as_nanos() as i128 > begun.as_nanos() as i128
}

/// Whether a record of the files cache would hold what only the file's owner may read. Such a file is short to read again.
fn is_private(content: &Content, stat: &Stat) -> bool {
    matches!(content, Content::Inline(bytes) if !bytes.is_empty()) && stat.mode & 0o077 == 0
}

/// How long a change may go unseen here: longer than usual where writing waits longer, as power-saving laptops have it.
fn young() -> Duration {
    static YOUNG_HERE: OnceLock<Duration> = OnceLock::new();
    *YOUNG_HERE.get_or_init(|| {
        let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/vm/{name}")).ok()?.trim().parse().ok();
        let wait = ["dirty_expire_centisecs", "dirty_writeback_centisecs"].map(|name| setting(name).unwrap_or(0));
        young_for(wait)
    })
}

fn young_for(centiseconds: [u32; 2]) -> Duration {
    let wait: u64 = centiseconds.iter().map(|part| u64::from(*part) * 10).sum();
    YOUNG.max(Duration::from_millis(wait) * 3 / 2)
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
