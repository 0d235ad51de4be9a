//! Walks the recorded tree, decides what is restored, makes directories and the things without content, and collects
//! files into batches. Not for: content (see `batch`, `job`).

use super::batch::Batch;
use super::job::{FileJob, NewFile};
use super::kept::{Kept, Origin};
use super::link::{First, Groups, Link};
use super::meta;
use super::spelling::{Met, falls_together, meets};
use super::target::{Relative, close, existing, keep_own, same_name};
use super::{Context, Overwrite, as_path, count, join, show, special};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::tree::{Body, Content, Entry, Extent, Metadata, Totals};
use crate::os::{self, FileType, Stat};
use crate::pattern::{Judgement, Patterns, Verdict};
use crate::repository::tree::Entries;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A directory that the walk is in.
struct Frame<'a> {
    source: Source<'a>,
    /// How much of the walk's `relative` leads to it: full paths would take memory by the square of the depth.
    relative_len: usize,
    name: Vec<u8>,
    /// `None` for a target that existed before.
    meta: Option<Metadata>,
    /// It is to be restored itself, not only because something in it is.
    selected: bool,
    included: Judgement,
    excluded: Judgement,
    made: Made,
    met: Met,
}

enum Source<'a> {
    Tree(Entries<'a>),
    One(Option<Entry>),
}

/// How far a directory has come in the target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// It is made once something in it is.
    NotYet,
    /// It does not exist, and this is a dry run.
    Absent,
    /// It exists: whether this restore made it, and whether it gives new things an ACL.
    There { fresh: bool, inherits: bool },
}

/// Flags that forbid further names, to be set at the very end.
struct LateFlags {
    path: Vec<u8>,
    dir: Relative,
    name: Vec<u8>,
    flags: u32,
}

/// Where the next thing goes.
struct Spot {
    path: Vec<u8>,
    dir: Relative,
    /// `None` in a dry run where the directory does not exist.
    handle: Option<Arc<OwnedFd>>,
    fresh: bool,
    inherits: bool,
}

pub(super) struct Walk<'a> {
    context: &'a Context<'a>,
    /// The path in the snapshot that stands for the target.
    base: Vec<u8>,
    include: Patterns,
    exclude: Patterns,
    stack: Vec<Frame<'a>>,
    /// Where the last directory is below the target (at least; see `relative_len`).
    relative: Vec<u8>,
    /// The same to be shared, once something in that directory needs it.
    here: Option<Relative>,
    batch: Batch,
    groups: Groups,
    late: Vec<LateFlags>,
    /// What the tree says it holds; more would be a page that is used again and again to fill the disk.
    allowed: Totals,
    seen: Totals,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        entry: Entry,
        path: &[u8],
        include: Patterns,
        exclude: Patterns,
    ) -> Result<Self> {
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let (made, created) = match &context.target {
            None => (Made::Absent, true),
            Some(target) => {
                let root =
                    target.directory(&Relative::from([])).map_err(|error| Error::io("The target is gone", error))?;
                (Made::There { fresh: target.made, inherits: meta::passes_acl_on(&root) }, target.created)
            }
        };
        let (source, meta, allowed) = match &entry.body {
            Body::Directory { page, totals, .. } => {
                // Only a target that is new becomes what the directory was.
                let meta = (created && !entry.meta.waypoint).then(|| entry.meta.clone());
                (Source::Tree(context.repository.entries_of(*page, totals)), meta, *totals)
            }
            _ => {
                names.pop();
                let totals = entry.totals()?;
                (Source::One(Some(entry)), None, totals)
            }
        };
        let (mut included, mut excluded) = (Judgement::default(), Judgement::default());
        let mut base = Vec::new();
        for name in names {
            base = [&base, &b"/"[..], name].concat();
            included = include.judge(&base, true, included);
            excluded = exclude.judge(&base, true, excluded);
        }
        if include.is_empty() && exclude.is_empty() {
            context.progress.expect(allowed.files, allowed.bytes);
        }
        let met = context.target.as_ref().filter(|target| target.folds).map(|_| HashMap::new());
        let top =
            Frame { source, relative_len: 0, name: Vec::new(), meta, selected: true, included, excluded, made, met };
        Ok(Walk {
            context,
            base,
            include,
            exclude,
            stack: vec![top],
            relative: Vec::new(),
            here: None,
            batch: Batch::new(context.open_files),
            groups: Groups::default(),
            late: Vec::new(),
            allowed,
            seen: Totals::default(),
        })
    }

    fn relative(&self, frame: &Frame<'_>) -> &[u8] {
        &self.relative[..frame.relative_len]
    }

    fn last_path(&self) -> Vec<u8> {
        self.snapshot_path(self.stack.last().map_or(&[], |frame| self.relative(frame)))
    }

    fn snapshot_path(&self, relative: &[u8]) -> Vec<u8> {
        match relative.is_empty() {
            true if self.base.is_empty() => b"/".to_vec(),
            true => self.base.clone(),
            false => [&self.base, &b"/"[..], relative].concat(),
        }
    }

    /// Restores everything.
    pub(super) fn run(mut self) -> Result<()> {
        while let Some(frame) = self.stack.last_mut() {
            self.context.check()?;
            let next = match &mut frame.source {
                Source::Tree(entries) => entries.next(),
                Source::One(entry) => entry.take().map(Ok),
            };
            match next {
                None => self.leave(),
                Some(Ok(entry)) if self.exceeds(&entry) => self.give_up(),
                Some(Ok(entry)) => self.visit(entry)?,
                Some(Err(error)) => {
                    let path = self.last_path();
                    let message = format!("The rest of the directory \"{}\" cannot be read", show(&path));
                    self.context.issue(&path, error.context(message));
                }
            }
            if self.batch.is_full(&self.context.limits) {
                self.batch.execute(self.context, None)?;
                if let (Some(target), Some(top)) = (&self.context.target, self.stack.last()) {
                    target.forget_but(self.relative(top));
                }
            }
        }
        self.batch.execute(self.context, None)?;
        self.set_late_flags();
        Ok(())
    }

    fn exceeds(&mut self, entry: &Entry) -> bool {
        let size = if let Body::File { size, .. } = &entry.body { *size } else { 0 };
        self.seen.entries += 1;
        self.seen.bytes = self.seen.bytes.saturating_add(size);
        self.seen.entries > self.allowed.entries || self.seen.bytes > self.allowed.bytes
    }

    fn give_up(&mut self) {
        let message =
            "The tree holds more than its directory says; the restore ends here, what was restored so far stays";
        self.context.issue(&self.last_path(), Error::damaged(message));
        while !self.stack.is_empty() {
            self.leave();
        }
    }

    /// The directory is done, but for what waits in the batch.
    fn leave(&mut self) {
        let Some(frame) = self.stack.pop() else { return };
        self.here = None;
        let relative = self.relative(&frame);
        let overwrite = self.context.options.overwrite;
        let Some(meta) = frame.meta else { return };
        // That of the target is there if the target is new, or if the restore that made it was cut off.
        let is_target = self.stack.is_empty();
        let wanted = is_target
            || match frame.made {
                Made::NotYet => false,
                Made::Absent | Made::There { fresh: true, .. } => true,
                Made::There { fresh: false, .. } => frame.selected && overwrite != Overwrite::Never && !meta.waypoint,
            };
        let dry_run = self.context.options.dry_run;
        if wanted {
            count(&self.context.counts.directories, 1);
            if !dry_run {
                let origin =
                    if matches!(frame.made, Made::There { fresh: true, .. }) { Origin::Made } else { Origin::Looked };
                self.batch.add_directory(self.snapshot_path(relative), relative.into(), meta, origin);
            }
        } else if self.context.options.verify && !dry_run && frame.selected && !meta.waypoint {
            // Only with "--overwrite never" is a selected one left that was there.
            if matches!(frame.made, Made::There { .. }) {
                self.batch.add_directory(self.snapshot_path(relative), relative.into(), meta, Origin::Untouched);
            }
        }
    }

    fn visit(&mut self, entry: Entry) -> Result<()> {
        let Some(top) = self.stack.last() else { return Ok(()) };
        let relative = join(self.relative(top), &entry.name);
        let path = self.snapshot_path(&relative);
        let is_directory = matches!(entry.body, Body::Directory { .. });
        // Both, so that each notes what it matches.
        let excluded = self.exclude.judge(&path, is_directory, top.excluded);
        let included = self.include.judge(&path, is_directory, top.included);
        if self.exclude.verdict(excluded) == Verdict::Matched {
            return Ok(());
        }
        let selected = self.include.is_empty() || self.include.verdict(included) == Verdict::Matched;
        let Body::Directory { page, totals, .. } = entry.body else {
            return if selected { self.restore(entry, path) } else { Ok(()) };
        };
        if !selected && !self.include.could_match_below(&path) {
            return Ok(());
        }
        if self.stack.len() > MAX_DEPTH {
            self.context.issue(&path, Error::damaged(format!("Directories are nested more than {MAX_DEPTH} deep")));
            return Ok(());
        }
        self.here = None;
        self.relative = relative;
        self.stack.push(Frame {
            source: Source::Tree(self.context.repository.entries_of(page, &totals)),
            relative_len: self.relative.len(),
            name: entry.name,
            meta: Some(entry.meta),
            selected,
            included,
            excluded,
            made: Made::NotYet,
            met: None,
        });
        if selected {
            self.make_directories();
        }
        Ok(())
    }

    /// Makes the directories that the walk is in; false, and the walk is out of them, if one cannot be made.
    fn make_directories(&mut self) -> bool {
        let first = self.stack.iter().rposition(|frame| frame.made != Made::NotYet).map_or(0, |at| at + 1);
        for at in first..self.stack.len() {
            let name = self.stack[at].name.clone();
            let others = at.checked_sub(1).map(|above| meets(&mut self.stack[above].met, &name));
            match self.make_directory(at, &others.unwrap_or_default()) {
                Ok((made, folds)) => {
                    self.stack[at].made = made;
                    self.stack[at].met = folds.then(HashMap::new);
                }
                Err(error) => {
                    let path = self.snapshot_path(self.relative(&self.stack[at]));
                    let message = format!("The directory \"{}\" and what is in it could not be restored", show(&path));
                    self.context.issue(&path, error.context(message));
                    self.stack.truncate(at);
                    self.here = None;
                    return false;
                }
            }
        }
        true
    }

    /// Makes one; what became of it, and whether names fall together in it. `others`: names with which its own may do so.
    fn make_directory(&self, at: usize, others: &[u8]) -> Result<(Made, bool)> {
        let absent = Ok((Made::Absent, false));
        let (Some(above), Some(target)) = (at.checked_sub(1), &self.context.target) else { return absent };
        let Made::There { inherits, fresh: is_new } = self.stack[above].made else { return absent };
        let folds = self.stack[above].met.is_some();
        let frame = &self.stack[at];
        let failed = |error| Error::io("It could not be made", error);
        let parent = target.directory(&self.relative(&self.stack[above]).into()).map_err(failed)?;
        if self.context.options.dry_run {
            return match existing(&parent, &frame.name)? {
                Some(stat) if stat.kind == FileType::Directory => {
                    Ok((Made::There { fresh: false, inherits: false }, false))
                }
                Some(_) if self.context.options.overwrite != Overwrite::Always => Err(in_the_way()),
                _ => absent,
            };
        }
        match os::mkdir_at(&parent, &frame.name, 0o700) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let stat = os::stat_at(&parent, &frame.name).map_err(failed)?;
                // What is in a directory that this restore made is there under another name.
                if is_new || self.falls_together(&self.relative(&self.stack[above]).into(), others, &frame.name) {
                    return Err(same_name());
                }
                if stat.kind == FileType::Directory {
                    let (made, handle) = self.enter_existing(&parent, frame, &stat)?;
                    let is_alone = os::stat_fd(&parent).map_err(failed)?.dev != stat.dev;
                    return Ok((made, target.tidy(&self.relative(frame).into(), &handle, folds, is_alone)));
                }
                if self.context.options.overwrite != Overwrite::Always {
                    return Err(in_the_way());
                }
                os::unlink_at(&parent, &frame.name, false).map_err(failed)?;
                os::mkdir_at(&parent, &frame.name, 0o700).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let handle = target.directory(&self.relative(frame).into()).map_err(failed)?;
        if self.context.root {
            keep_own(&parent, &handle).map_err(failed)?;
        }
        let inherits = inherits && meta::disinherit(&handle).is_err();
        Ok((Made::There { fresh: true, inherits }, folds))
    }

    fn falls_together(&self, directory: &Relative, others: &[u8], name: &[u8]) -> bool {
        let Some(target) = self.context.target.as_ref().filter(|_| !others.is_empty()) else { return false };
        target.open_directory(directory).map_or(true, |opened| falls_together(&opened, others, name))
    }

    fn enter_existing(&self, parent: &OwnedFd, frame: &Frame<'_>, stat: &Stat) -> Result<(Made, Arc<OwnedFd>)> {
        let gets_meta = frame.selected
            && self.context.options.overwrite != Overwrite::Never
            && frame.meta.as_ref().is_some_and(|meta| !meta.waypoint);
        if gets_meta && !self.context.root && stat.uid == os::user_id() && stat.mode & 0o700 != 0o700 {
            // Its owner may; its recorded mode comes back at the end. If this fails, what follows tells.
            drop(os::chmod_at(parent, &frame.name, stat.mode | 0o700));
        }
        let handle = os::open_at(parent, &frame.name, OFlags::PATH | OFlags::DIRECTORY, 0);
        let handle = match &self.context.target {
            Some(target) => handle.and_then(|handle| target.recognize(self.relative(frame), handle)),
            None => handle.map(Arc::new),
        };
        let handle = handle.map_err(|error| Error::io("It could not be opened", error))?;
        if gets_meta && self.context.root {
            self.tighten(&handle, frame, stat)?;
        }
        Ok((Made::There { fresh: false, inherits: meta::passes_acl_on(&handle) }, handle))
    }

    /// Keeps those out of a folder who will not be let in by what is recorded of it; that comes back at the end, with its owner.
    fn tighten(&self, handle: &OwnedFd, frame: &Frame<'_>, stat: &Stat) -> Result<()> {
        let Some(meta) = &frame.meta else { return Ok(()) };
        let failed = |error| Error::io("It belongs to another user and could not be closed to that user", error);
        if ![meta.owner.uid, os::user_id()].contains(&stat.uid) {
            return close(handle).map_err(failed);
        }
        let kept = stat.mode & !(0o022 & !meta.mode);
        if kept == stat.mode { Ok(()) } else { os::chmod_at(handle, b".", kept).map_err(failed) }
    }

    /// Restores something that is not a directory.
    fn restore(&mut self, entry: Entry, path: Vec<u8>) -> Result<()> {
        if !self.make_directories() {
            return Ok(());
        }
        if let Body::File { size, .. } = &entry.body
            && !(self.include.is_empty() && self.exclude.is_empty())
        {
            self.context.progress.expect(1, *size);
        }
        let (group, key) = (entry.meta.link.map(|link| link.group), entry.link_key());
        match self.place(entry, path.clone()) {
            Err(error) if error.kind() == ErrorKind::Interrupted || !self.context.goes_on() => return Err(error),
            Err(error) => {
                let message = format!("\"{}\" could not be restored", show(&path));
                self.context.issue(&path, error.context(message));
            }
            Ok(()) => {}
        }
        self.groups.met(group, key);
        Ok(())
    }

    fn place(&mut self, entry: Entry, path: Vec<u8>) -> Result<()> {
        let spot = self.spot(path)?;
        let found = match &spot.handle {
            Some(handle) if !spot.fresh => existing(handle, &entry.name)?,
            _ => None,
        };
        let others = self.stack.last_mut().map(|top| meets(&mut top.met, &entry.name)).unwrap_or_default();
        if found.is_some() && self.falls_together(&spot.dir, &others, &entry.name) {
            return Err(same_name());
        }
        let replaces = found.is_some();
        let overwrite = self.context.options.overwrite;
        let kept = match &found {
            None => false,
            Some(_) if overwrite == Overwrite::Never => true,
            Some(stat) if stat.kind == FileType::Directory => {
                return Err(Error::new(ErrorKind::Exists, "A directory in the target has its name")
                    .with_hint("Move it away or restore into another folder."));
            }
            Some(stat) => overwrite == Overwrite::IfChanged && self.context.stays(spot.handle.as_deref(), stat, &entry),
        };
        let size = if let Body::File { size, .. } = &entry.body { *size } else { 0 };
        if let Some(first) = self.groups.first(&entry)
            && !(kept && overwrite == Overwrite::Never)
        {
            if self.context.options.dry_run {
                count(&self.context.counts.hard_links, 1);
                self.context.placed(&spot.path, size, replaces);
                self.pass(size);
            } else {
                let Spot { path, dir, inherits, .. } = spot;
                self.batch.add_link(Link { path, dir, entry, inherits, replaces, first });
            }
            return Ok(());
        }
        if kept {
            count(&self.context.counts.skipped, 1);
            self.context.left(&spot.path, size);
            if matches!(entry.body, Body::File { .. }) {
                self.pass(size);
            }
            let mut origin = Origin::Untouched;
            // What is kept whatever it holds is not what the other names stand for.
            if overwrite != Overwrite::Never {
                let first = Arc::new(First::kept(spot.dir.clone(), entry.name.clone()));
                self.groups.remember(self.context, &entry, &spot.path, &first);
                origin = Origin::Looked;
            }
            let options = &self.context.options;
            if !options.dry_run && (origin == Origin::Looked || options.verify) {
                self.batch.add_kept(self.context, Kept { path: spot.path, dir: spot.dir, entry, origin });
            }
            return Ok(());
        }
        match entry.body {
            Body::File { .. } => self.add_file(spot, entry, replaces),
            _ => self.make_other(&spot, &entry, replaces),
        }
    }

    /// A file that needs no work.
    fn pass(&self, size: u64) {
        self.context.progress.bytes(size);
        self.context.progress.files(1);
    }

    fn spot(&mut self, path: Vec<u8>) -> Result<Spot> {
        let gone = || Error::new(ErrorKind::Failed, "Its directory is gone");
        let top = self.stack.last().ok_or_else(gone)?;
        let dir = self.here.get_or_insert_with(|| self.relative[..top.relative_len].into()).clone();
        let (fresh, inherits) = match top.made {
            Made::There { fresh, inherits } => (fresh, inherits),
            Made::NotYet | Made::Absent => return Ok(Spot { path, dir, handle: None, fresh: true, inherits: false }),
        };
        let target = self.context.target.as_ref().ok_or_else(gone)?;
        let handle = target.directory(&dir).map_err(|error| Error::io("Its directory could not be opened", error))?;
        Ok(Spot { path, dir, handle: Some(handle), fresh, inherits })
    }

    fn add_file(&mut self, spot: Spot, entry: Entry, replaces: bool) -> Result<()> {
        let first = Arc::new(First::default());
        self.groups.remember(self.context, &entry, &spot.path, &first);
        let Entry { name, meta, body: Body::File { size, content } } = entry else { return Ok(()) };
        let Some(target) = self.context.target.as_ref().filter(|_| !self.context.options.dry_run) else {
            self.context.progress.file(as_path(&spot.path));
            count(&self.context.counts.files, 1);
            count(&self.context.counts.bytes, size);
            self.context.placed(&spot.path, size, replaces);
            self.pass(size);
            return Ok(());
        };
        let keeps_content = self.context.options.verify || matches!(content, Content::Inline(_));
        let kept = if keeps_content { content.clone() } else { Content::Extents(Vec::new()) };
        let Spot { path, dir, inherits, .. } = spot;
        let first = meta.link.map(|_| first);
        let file = NewFile { path, dir: dir.clone(), name, meta, size, content: kept, inherits, replaces, first };
        let job = Arc::new(FileJob::new(target.clone(), file));
        if job.late_flags() != 0 {
            let (path, name, flags) = (job.path.clone(), job.name.clone(), job.late_flags());
            self.late.push(LateFlags { path, dir, name, flags });
        }
        self.batch.add_file(job.clone(), &content);
        self.add_content(&job, size, &content)
    }

    fn add_content(&mut self, job: &Arc<FileJob>, size: u64, content: &Content) -> Result<()> {
        if matches!(content, Content::Inline(_)) {
            self.batch.add_small(job.clone());
            return Ok(());
        }
        let context = self.context;
        let mut offset = 0u64;
        for extent in context.repository.extents(content) {
            let extent = match extent {
                Ok(extent) if offset.checked_add(extent.len()).is_some_and(|end| end <= size) => extent,
                Ok(_) => {
                    job.fail(context, Error::damaged("its list of chunks is longer than the file"));
                    break;
                }
                Err(error) => {
                    job.fail(context, error);
                    break;
                }
            };
            match extent {
                Extent::Hole(len) => context.progress.bytes(len),
                Extent::Chunk { id, len } => self.batch.add_chunk(id, len, offset),
            }
            offset += extent.len();
            if self.batch.is_full(&self.context.limits) {
                self.batch.execute(context, Some(job))?;
            }
            if job.has_failed() {
                break;
            }
        }
        if offset != size {
            job.fail(context, Error::damaged("its list of chunks is shorter than the file"));
        }
        if job.release() {
            self.batch.add_small(job.clone());
        }
        Ok(())
    }

    fn make_other(&mut self, spot: &Spot, entry: &Entry, replaces: bool) -> Result<()> {
        let made = special::make(self.context, &spot.path, spot.handle.as_deref(), entry, (spot.inherits, replaces))?;
        if self.context.options.dry_run || made.is_some() {
            let first = Arc::new(First::default());
            if let Some(stat) = made {
                first.made(&spot.dir, &entry.name, &stat);
            }
            self.groups.remember(self.context, entry, &spot.path, &first);
        }
        if self.context.options.verify && made.is_some() {
            let (path, dir) = (spot.path.clone(), spot.dir.clone());
            self.batch.add_kept(self.context, Kept { path, dir, entry: entry.clone(), origin: Origin::Made });
        }
        Ok(())
    }

    fn set_late_flags(&self) {
        let Some(target) = &self.context.target else { return };
        for late in &self.late {
            let opened = target
                .directory(&late.dir)
                .and_then(|dir| os::open_at(&dir, &late.name, OFlags::RDONLY | OFlags::NONBLOCK, 0));
            // If it is not there, that has been told.
            if let Ok(file) = opened {
                self.context.apply_flags(&late.path, &file, late.flags);
            }
        }
    }
}

fn in_the_way() -> Error {
    Error::new(ErrorKind::Exists, "Something in the target that is not a directory has its name")
        .with_hint("Move it away, or let the restore replace it with \"--overwrite always\".")
}
