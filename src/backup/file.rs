//! One source item becomes one entry: read, cut, stored, described. Not for: order or directories (see `builder`).

use super::content::{Content as SourceFile, changed, link_target};
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
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A file that changes while it is read is read this often before it is recorded as unreliable.
const ATTEMPTS: u32 = 3;
/// A file whose inode changed this short a time before it was read is not remembered: another change within the same tick of
/// the file system's clock would go unseen. (The racy-git problem, git's Documentation/technical/racy-git.)
const TICK_NANOS: i128 = 50_000_000;
/// File systems that keep whole seconds only.
const COARSE_TICK_NANOS: i128 = 2_000_000_000;
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
            match self.read_file(&mut item, attempt == ATTEMPTS) {
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
        let cached = (!unreliable && !is_racy(&after, begun)).then(|| CachedFile {
            name: item.name.clone(),
            size,
            mtime: timestamp(after.mtime),
            ctime: timestamp(after.ctime),
            inode: after.ino,
            content: content.clone(),
            blocks: meta.blocks,
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

fn tick(stat: &Stat) -> i128 {
    let coarse = stat.ctime.nanos == 0 && stat.mtime.nanos == 0;
    if coarse { COARSE_TICK_NANOS } else { TICK_NANOS }
}

fn is_racy(stat: &Stat, begun: SystemTime) -> bool {
    let nanos = |seconds: i64, nanos: u32| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let begun = match begun.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(_) => return true,
    };
    nanos(stat.ctime.seconds, stat.ctime.nanos) + tick(stat) > begun
}

/// How long to wait before a file is read that was changed just now. A call that writes sets the times when it begins, so
/// that bytes may still change behind times that stay: a state that never was would be kept without a word. If the times
/// are the same after a tick, such a call is over. An empty file has nothing to be torn.
fn time_to_settle(stat: &Stat, now: SystemTime) -> Option<Duration> {
    (stat.size > 0 && is_racy(stat, now)).then(|| Duration::from_nanos(tick(stat) as u64))
}

fn group_of(item: &SourceItem) -> Group {
    use std::os::unix::ffi::OsStrExt;
    let owner_only = item.stat.mode & 0o077 == 0;
    let folder =
        || item.path.as_os_str().as_bytes().split(|byte| *byte == b'/').any(|part| PRIVATE_FOLDERS.contains(&part));
    if owner_only && (item.stat.size < PRIVATE_SIZE || folder()) { Group::Private } else { Group::Owner(item.stat.uid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_file_that_was_just_changed_is_given_a_tick() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        let mut stat = stat_fd(std::fs::File::open(path).unwrap()).unwrap();
        let time = |seconds: i64, nanos: u32| crate::os::FileTime { seconds, nanos };
        let now = UNIX_EPOCH + Duration::from_millis(1_000_000_500);
        let tick = Some(Duration::from_millis(50));
        // Changed 30 ms ago, 60 ms ago, and by a clock that is ahead.
        for (millis, wait) in [(470, tick), (440, None), (900, tick)] {
            stat.ctime = time(1_000_000, millis * 1_000_000);
            assert_eq!(time_to_settle(&stat, now), wait, "{millis}");
        }
        (stat.ctime, stat.mtime) = (time(999_999, 0), time(999_999, 0));
        assert_eq!(time_to_settle(&stat, now), Some(Duration::from_secs(2)), "whole seconds");
        stat.size = 0;
        assert_eq!(time_to_settle(&stat, now), None, "empty");
    }
}
