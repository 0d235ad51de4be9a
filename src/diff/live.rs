//! A snapshot and the files that are there now, seen with the eyes of a backup: the same walk, the same exclude rules. Not for: what
//! is compared of two entries (see `Job::pair`).
//!
//! Memory: what the walk takes, and one page a level of the snapshot's for each directory on the way down.

use super::{Bytes, Context, Counts, Held, Job, Only, Statistics, Tell, Text, end_if_stopped, is_directory};
use crate::backup::content::{Content as LiveFile, link_target, look_again};
use crate::backup::meta::{Reader, timestamp};
use crate::backup::source::Source;
use crate::backup::walk::{self, Event, Handle, Skip, SourceItem, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Attributes, Body, Content, Entry, Metadata, Totals};
use crate::id::ChunkId;
use crate::os::{self, FileType};
use crate::pattern::{Judgement, Verdict};
use crate::repository::tree::Entries;
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in the live file system.
#[derive(Clone, Debug)]
pub struct Live {
    /// What is compared with the snapshot's entry: an absolute path without a slash at the end; empty for "/".
    pub path: Vec<u8>,
    /// What is looked at: this path, or what was backed up below it.
    pub roots: Vec<PathBuf>,
    /// What is left out.
    pub options: walk::Options,
}

/// Tells what differs between an entry of a snapshot, with all below it, and what is there now.
pub fn with_live(context: &Context<'_>, old: &Entry, live: &Live, tell: Tell<'_>) -> Result<Statistics> {
    let source = Source::new(&live.roots, Path::new("/"))?;
    let key = context.repository.keyring().local_secret("firn v1 hard links");
    let mut both = Both {
        job: Job::new(context, tell, &live.path),
        reader: Reader::new(key),
        options: Arc::new(live.options.clone()),
        unknown: BTreeSet::new(),
        frames: Vec::new(),
    };
    for (path, error) in source.missing().iter().filter(|(_, error)| error.kind() != ErrorKind::NotFound) {
        both.unknown.insert(path.as_os_str().as_bytes().to_vec());
        both.job.path = path.as_os_str().as_bytes().to_vec();
        both.job.issue(error);
    }
    let mut begun = false;
    for event in Walk::new(Arc::new(source), both.options.clone()) {
        context.stop.check()?;
        if both.frames.is_empty() {
            if begun {
                break;
            }
            begun = both.begin(event, old, &live.path)?;
        } else {
            both.event(event)?;
        }
    }
    if !begun && both.job.statistics.issues == 0 {
        let shown = String::from_utf8_lossy(&live.path).into_owned();
        return Err(Error::new(ErrorKind::NotFound, format!("There is nothing at \"{shown}\" to compare with"))
            .with_hint("What the exclude rules leave out is not compared."));
    }
    Ok(both.job.statistics)
}

/// A directory that has been entered.
struct Frame<'a> {
    /// What the snapshot has in it and was not met yet; `None` if it has no such directory.
    entries: Option<Peekable<Entries<'a>>>,
    length: usize,
    judgement: Judgement,
    /// Not all that is there was seen, so that what is missing may be there.
    incomplete: bool,
    /// What the snapshot has in it could not be read, so that nothing can be said about what is there.
    lost: bool,
}

struct Both<'a> {
    job: Job<'a>,
    reader: Reader,
    options: Arc<walk::Options>,
    /// Paths of which nothing is known.
    unknown: BTreeSet<Vec<u8>>,
    frames: Vec<Frame<'a>>,
}

/// An absolute path as the walk gives it, without the slash of "/".
fn bytes(path: &Path) -> &[u8] {
    let path = path.as_os_str().as_bytes();
    if path == b"/" { b"" } else { path }
}

impl<'a> Both<'a> {
    /// On the way to what is compared; whether this is it.
    fn begin(&mut self, event: Event, old: &Entry, path: &[u8]) -> Result<bool> {
        match event {
            Event::Enter(item) if bytes(&item.path) == path => {
                self.job.path = path.to_vec();
                self.enter(Some(old), &item, Judgement::default(), false)?;
                Ok(true)
            }
            Event::Item(item) if bytes(&item.path) == path => {
                self.job.path = path.to_vec();
                self.met(Some(old), &item, Judgement::default())?;
                Ok(true)
            }
            Event::Issue { path, error } => {
                self.job.path = bytes(&path).to_vec();
                self.job.issue(&error);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Enter(item) => {
                let (old, lost, judgement) = self.meet(&item.name)?;
                self.enter(old.as_ref(), &item, judgement, lost)
            }
            Event::Item(item) => {
                let (old, lost, judgement) = self.meet(&item.name)?;
                if lost { Ok(()) } else { self.met(old.as_ref(), &item, judgement) }
            }
            Event::Leave { incomplete } => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.incomplete |= incomplete;
                }
                self.catch_up(None)?;
                drop(self.frames.pop());
                Ok(())
            }
            Event::Skipped { path, reason: Skip::OtherFilesystem | Skip::Cache | Skip::Own(_) } => {
                self.doubt(bytes(&path));
                Ok(())
            }
            // Not there: what the snapshot has of that name is gone.
            Event::Skipped { .. } => Ok(()),
            Event::Issue { path, error } => {
                self.doubt(bytes(&path));
                self.job.path = bytes(&path).to_vec();
                self.job.issue(&error);
                Ok(())
            }
        }
    }

    /// Not all is known of what is at this path.
    fn doubt(&mut self, path: &[u8]) {
        let Some(frame) = self.frames.last_mut() else { return };
        if path.len() == frame.length {
            frame.incomplete = true;
        } else {
            self.unknown.insert(path.to_vec());
        }
    }

    /// The snapshot's entry of this name in the directory at hand, after all that come before it; whether nothing is known of them; and
    /// what the exclude rules say of the directory.
    fn meet(&mut self, name: &[u8]) -> Result<(Option<Entry>, bool, Judgement)> {
        let old = self.catch_up(Some(name))?;
        let Some(frame) = self.frames.last() else { return Ok((None, true, Judgement::default())) };
        let (length, lost, judgement) = (frame.length, frame.lost, frame.judgement);
        self.job.go_to(length, name);
        Ok((old, lost, judgement))
    }

    /// Tells of what the snapshot has before this name (or, without one, of all that is left) that it is gone; the entry of this name.
    fn catch_up(&mut self, name: Option<&[u8]>) -> Result<Option<Entry>> {
        loop {
            self.job.context.stop.check()?;
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            let Some(entries) = &mut frame.entries else { return Ok(None) };
            let is_due = |entry: &Result<Entry>| match (entry, name) {
                (Ok(entry), Some(name)) => entry.name.as_slice() <= name,
                _ => true,
            };
            let (length, judgement, incomplete) = (frame.length, frame.judgement, frame.incomplete);
            match entries.next_if(is_due) {
                None => return Ok(None),
                Some(Ok(entry)) if name == Some(&entry.name) => return Ok(Some(entry)),
                Some(Ok(entry)) => {
                    self.job.go_to(length, &entry.name);
                    if !incomplete {
                        self.gone(&entry, judgement, false)?;
                    }
                }
                Some(Err(error)) => {
                    frame.entries = None;
                    frame.lost = true;
                    self.job.path.truncate(length);
                    let error = end_if_stopped(self.job.context.stop, error)?;
                    self.job.incomplete(error);
                    return Ok(None);
                }
            }
        }
    }

    /// Tells of an entry of the snapshot that is not there any more (unless that was told already: `is_told`), and of all below it, but
    /// for what the exclude rules leave out.
    fn gone(&mut self, entry: &Entry, judgement: Judgement, is_told: bool) -> Result<()> {
        let Both { job, options, unknown, .. } = self;
        // The judgements of the directories on the way down, and the lengths of their paths.
        let mut judged = vec![(0, judgement)];
        let mut counts = |path: &[u8], entry: &Entry| {
            let above = path.len().saturating_sub(entry.name.len() + 1);
            while judged.len() > 1 && judged.last().is_some_and(|(length, _)| *length > above) {
                judged.pop();
            }
            let inherited = judged.last().map_or(judgement, |(_, judgement)| *judgement);
            let own = options.excludes.judge(path, is_directory(entry), inherited);
            judged.push((path.len(), own));
            if options.excludes.verdict(own) == Verdict::Matched || unknown.contains(path) {
                Counts::NothingOfIt
            } else if entry.meta.waypoint && os::stat_at(os::CWD, path).is_ok() {
                // A way-point is not looked at if none of what it leads to is there.
                Counts::OnlyBelow
            } else {
                Counts::Yes
            }
        };
        let own = counts(&job.path, entry);
        if own == Counts::Yes && !is_told {
            job.alone(entry, Only::Old)?;
        }
        if own != Counts::NothingOfIt {
            job.subtree(entry, Only::Old, &mut counts)?;
        }
        Ok(())
    }

    /// A directory begins that is there now.
    fn enter(&mut self, old: Option<&Entry>, item: &SourceItem, judgement: Judgement, lost: bool) -> Result<()> {
        let length = self.job.path.len();
        let judgement = self.options.excludes.judge(&self.job.path, true, judgement);
        if !lost && let Some(new) = self.entry(item, old) {
            match old {
                Some(old) => self.job.pair(old, &new, &mut |_| Ok(Held::Same))?,
                None => self.job.alone(&new, Only::New)?,
            }
        }
        let entries = old.and_then(|old| match &old.body {
            Body::Directory { page, totals, .. } => Some(self.job.context.repository.entries_of(*page, totals)),
            _ => None,
        });
        let entries = entries.map(Iterator::peekable);
        self.frames.push(Frame { entries, length, judgement, incomplete: false, lost });
        Ok(())
    }

    /// Something that is there now and is no directory.
    fn met(&mut self, old: Option<&Entry>, item: &SourceItem, judgement: Judgement) -> Result<()> {
        let Some(new) = self.entry(item, old) else { return Ok(()) };
        let Some(old) = old else { return self.job.alone(&new, Only::New) };
        let mut vanished = false;
        self.job.pair(old, &new, &mut |job| match job.held_live(old, item.clone()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                vanished = true;
                Ok(Held::Unknown)
            }
            other => other,
        })?;
        if vanished {
            return self.gone(old, judgement, false);
        }
        if is_directory(old) { self.gone(old, judgement, true) } else { Ok(()) }
    }

    /// What is there now as an entry, without its content; `None` if it cannot be read, which is told.
    fn entry(&mut self, item: &SourceItem, old: Option<&Entry>) -> Option<Entry> {
        let stat = &item.stat;
        let body = match stat.kind {
            FileType::File => Body::File { size: stat.size, content: Content::Extents(Vec::new()) },
            FileType::Directory => {
                Body::Directory { size: stat.size, page: ChunkId([0; 32]), totals: Totals::default() }
            }
            FileType::Symlink => match link_target(item) {
                Ok(target) => Body::Symlink(target),
                Err(error) => {
                    self.job.issue(&error);
                    return None;
                }
            },
            FileType::CharDevice => Body::CharDevice { major: stat.rdev.0, minor: stat.rdev.1 },
            FileType::BlockDevice => Body::BlockDevice { major: stat.rdev.0, minor: stat.rdev.1 },
            FileType::Fifo => Body::Fifo,
            // The walk gives neither.
            FileType::Socket | FileType::Unknown => Body::Socket,
        };
        let meta = if self.job.context.options.metadata { self.described(item, old) } else { self.seen(item) };
        Some(Entry { name: item.name.clone(), meta, body })
    }

    fn described(&mut self, item: &SourceItem, old: Option<&Entry>) -> Metadata {
        let described = self.reader.describe(item, None);
        described.issues.iter().for_each(|error| self.job.issue(error));
        let mut meta = described.metadata;
        if let Some(set) = described.large {
            meta.attributes = Some(Arc::new(Attributes::Inline(set)));
        }
        if let (Some(old), Handle::In(_)) = (old, &item.handle) {
            meta.flags |= old.meta.flags & !os::STAT_FLAGS;
        }
        meta
    }

    /// What one look tells.
    fn seen(&self, item: &SourceItem) -> Metadata {
        Metadata {
            mode: item.stat.mode,
            owner: self.reader.owner(item.stat.uid, item.stat.gid),
            mtime: timestamp(item.stat.mtime),
            btime: None,
            attributes: None,
            link: self.reader.hard_link(&item.stat),
            blocks: None,
            flags: item.stat.flags,
            waypoint: item.waypoint,
            unreliable: false,
        }
    }
}

impl Job<'_> {
    /// How a live file compares with the recorded one. `NotFound` if it is gone by now.
    fn held_live(&mut self, old: &Entry, mut item: SourceItem) -> Result<Held> {
        let Body::File { size, content } = &old.body else { return Ok(Held::Same) };
        if !self.context.options.content {
            if (*size, old.meta.mtime) == (item.stat.size, timestamp(item.stat.mtime)) {
                return Ok(Held::Same);
            }
            // Files that are made up as they are read state sizes and times that mean nothing. They have no blocks.
            if item.stat.blocks > 0 || self.clocks.is_local(&item) {
                // All of it may be different.
                return Ok(Held::Different(Bytes { added: item.stat.size, removed: *size }, Text::None));
            }
        }
        let mut compared = self.compare_live((*size, content), &item);
        if compared.is_err() && look_again(&mut item).is_ok() {
            // Programs save a file by renaming a new one over it.
            compared = self.compare_live((*size, content), &item);
        }
        compared.or_else(|error| {
            let error = end_if_stopped(self.context.stop, error)?;
            if error.kind() == ErrorKind::NotFound {
                return Err(error);
            }
            self.issue(&error.context("Its content cannot be compared"));
            Ok(Held::Unknown)
        })
    }

    fn compare_live(&mut self, (size, content): (u64, &Content), item: &SourceItem) -> Result<Held> {
        let mut file = LiveFile::open(item)?;
        // What can be read counts, whatever the file states.
        let failed = |error| Error::io("The file cannot be read", error);
        if (file.stat().size == size || file.has_length(size).map_err(failed)?)
            && self.is_as_recorded(content, &file)?
        {
            return Ok(Held::Same);
        }
        let text = match self.context.options.content {
            true => self.text_to_live((size, content), &file),
            false => Ok(Text::None),
        };
        let bytes = match self.bytes_to_live(content, &mut file) {
            Ok(bytes) => bytes,
            Err(error) => return self.how_is_unknown(error, Bytes::default()),
        };
        text.map(|text| Held::Different(bytes, text)).or_else(|error| self.how_is_unknown(error, bytes))
    }
}
