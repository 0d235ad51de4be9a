//! One file on its way: made under a temporary name, filled from several threads, completed and put in its place by
//! whichever thread writes its last byte. Not for: choosing what is written when (see `batch`).

use super::kept::{Origin, not_restored};
use super::link::{First, Identity};
use super::meta::{Subject, freezes};
use super::target::{Relative, Target};
use super::{Context, as_path, count, show};
use crate::error::{Error, Result};
use crate::format::tree::{Body, Content, Entry, Metadata};
use crate::os;
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A file to be restored.
pub(super) struct FileJob {
    target: Arc<Target>,
    /// Its path in the snapshot.
    pub(super) path: Vec<u8>,
    /// The directory it is in.
    pub(super) dir: Relative,
    /// Its name there.
    pub(super) name: Vec<u8>,
    temporary: Vec<u8>,
    meta: Metadata,
    size: u64,
    /// What it holds; without extents if nobody will ask for them again.
    content: Content,
    inherits: bool,
    replaces: bool,
    /// Chunks still to be written, and one for as long as its list of chunks is being read.
    pending: AtomicU64,
    /// It will not come into being.
    failed: AtomicBool,
    /// Hears of the name that it gets, if the file has several.
    first: Option<Arc<First>>,
    state: Mutex<State>,
}

enum State {
    /// Not made yet.
    New,
    /// Under its temporary name, open.
    Open(Arc<OwnedFd>),
    /// Under its temporary name, closed to save handles; what it was then.
    Closed(Option<Identity>),
    /// In its place.
    Done,
    /// Given up; nothing of it is left.
    Failed,
}

/// What a file is made from.
pub(super) struct NewFile {
    pub(super) path: Vec<u8>,
    pub(super) dir: Relative,
    pub(super) name: Vec<u8>,
    pub(super) meta: Metadata,
    pub(super) size: u64,
    pub(super) content: Content,
    pub(super) inherits: bool,
    /// Something has its name that it is to replace.
    pub(super) replaces: bool,
    pub(super) first: Option<Arc<First>>,
}

/// Files that are open, the one opened first at the front. Bounds the handles in use.
pub(super) struct OpenFiles {
    limit: usize,
    queue: Mutex<VecDeque<Weak<FileJob>>>,
}

impl OpenFiles {
    pub(super) fn new(limit: usize) -> Self {
        OpenFiles { limit, queue: Mutex::default() }
    }

    fn add(&self, job: &Arc<FileJob>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(Arc::downgrade(job));
        let first = if queue.len() > self.limit { queue.pop_front() } else { None };
        drop(queue);
        if let Some(job) = first.and_then(|job| job.upgrade()) {
            let mut state = job.lock();
            if let State::Open(file) = &*state {
                *state = State::Closed(os::stat_fd(file).ok().map(|stat| Identity::of(&stat)));
            }
        }
    }
}

impl FileJob {
    pub(super) fn new(target: Arc<Target>, file: NewFile) -> Self {
        FileJob {
            temporary: target.temporary(),
            target,
            path: file.path,
            dir: file.dir,
            name: file.name,
            meta: file.meta,
            size: file.size,
            content: file.content,
            inherits: file.inherits,
            replaces: file.replaces,
            pending: AtomicU64::new(1),
            failed: AtomicBool::new(false),
            first: file.first,
            state: Mutex::new(State::New),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk more is to be written.
    pub(super) fn expect_chunk(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// A chunk less, or the list of chunks has been read; true if that was the last.
    pub(super) fn release(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether it has been given up.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether it has its place.
    pub(super) fn is_done(&self) -> bool {
        matches!(*self.lock(), State::Done)
    }

    /// Gives the file up: what there is of it is removed, and the reason told, once.
    pub(super) fn fail(&self, context: &Context<'_>, error: Error) {
        let mut state = self.lock();
        if matches!(*state, State::Failed | State::Done) {
            return;
        }
        self.discard(&mut state);
        drop(state);
        context.issue(&self.path, error.context(format!("\"{}\" could not be restored", show(&self.path))));
    }

    fn discard(&self, state: &mut State) {
        let made = matches!(state, State::Open(_) | State::Closed(_));
        *state = State::Failed;
        self.failed.store(true, Ordering::Release);
        if made && let Ok(dir) = self.target.directory(&self.dir) {
            drop(os::unlink_at(&dir, &self.temporary, false));
        }
    }

    /// The file's handle; makes the file at the first call. `None` if it has been given up.
    fn open(self: &Arc<Self>, context: &Context<'_>, open: &OpenFiles) -> Result<Option<Arc<OwnedFd>>> {
        let mut state = self.lock();
        let file = match &*state {
            State::Open(file) => return Ok(Some(file.clone())),
            State::Done | State::Failed => return Ok(None),
            State::Closed(made) => self.open_again(*made)?,
            State::New => self.create(context, &mut state)?,
        };
        let file = Arc::new(file);
        *state = State::Open(file.clone());
        drop(state);
        open.add(self);
        Ok(Some(file))
    }

    // Somebody else may write to the directory too, and have put something in its place.
    fn open_again(&self, made: Option<Identity>) -> Result<OwnedFd> {
        let dir = self.directory()?;
        let opened = os::open_at(&dir, &self.temporary, OFlags::WRONLY | OFlags::NONBLOCK, 0);
        let file = opened.map_err(failed_to("opened again"))?;
        let stat = os::stat_fd(&file).map_err(failed_to("opened again"))?;
        if !made.is_some_and(|made| made.is_of(&file, &stat)) {
            return Err(Error::new(crate::error::ErrorKind::Denied, "Somebody else has replaced the unfinished file"));
        }
        Ok(file)
    }

    fn directory(&self) -> Result<Arc<OwnedFd>> {
        self.target.directory(&self.dir).map_err(failed_to("reached in its directory"))
    }

    fn create(&self, context: &Context<'_>, state: &mut State) -> Result<OwnedFd> {
        context.progress.file(as_path(&self.path));
        let dir = self.directory()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = os::open_at(&dir, &self.temporary, flags, 0o600).map_err(failed_to("made"))?;
        *state = State::Closed(None);
        context.apply_early_flags(&self.path, &file, &self.meta);
        // Before any content: holes come into being by themselves, and the file system can plan.
        os::set_len(&file, self.size).map_err(failed_to("given its length"))?;
        Ok(file)
    }

    /// Writes bytes at an offset.
    pub(super) fn write(
        self: &Arc<Self>,
        context: &Context<'_>,
        open: &OpenFiles,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let Some(file) = self.open(context, open)? else { return Ok(()) };
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&file, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(failed_to("written")(io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed_to("written")(error.into())),
            }
        }
        count(&context.counts.bytes, bytes.len() as u64);
        context.progress.bytes(bytes.len() as u64);
        Ok(())
    }

    /// Makes a file without chunks: empty, only holes, or with its bytes in the entry.
    pub(super) fn write_small(self: &Arc<Self>, context: &Context<'_>, open: &OpenFiles) {
        let written = match &self.content {
            Content::Inline(bytes) => self.write(context, open, 0, bytes),
            _ => self.open(context, open).map(drop),
        };
        match written {
            Ok(()) => self.complete(context, open),
            Err(error) => self.fail(context, error),
        }
    }

    /// All content is there: metadata, then the name.
    pub(super) fn complete(self: &Arc<Self>, context: &Context<'_>, open: &OpenFiles) {
        if let Err(error) = self.try_complete(context, open) {
            self.fail(context, error);
        }
    }

    fn try_complete(self: &Arc<Self>, context: &Context<'_>, open: &OpenFiles) -> Result<()> {
        let Some(file) = self.open(context, open)? else { return Ok(()) };
        context.apply(
            &Subject { path: &self.path, handle: &file, is_open: true, symlink: false, inherits: self.inherits },
            &self.meta,
        );
        if self.replaces {
            context.replace_soon(self, file, self.size);
            return Ok(());
        }
        self.place(context, &file)
    }

    /// Gives the complete file its name.
    pub(super) fn put_in_place(self: &Arc<Self>, context: &Context<'_>, file: &OwnedFd) {
        if let Err(error) = self.place(context, file) {
            self.fail(context, error);
        }
    }

    fn place(&self, context: &Context<'_>, file: &OwnedFd) -> Result<()> {
        let dir = self.directory()?;
        let mut state = self.lock();
        if matches!(*state, State::Failed | State::Done) {
            return Ok(());
        }
        Target::place(&dir, &self.temporary, &self.name, self.replaces)?;
        *state = State::Done;
        drop(state);
        if let (Some(first), Ok(stat)) = (&self.first, os::stat_fd(file)) {
            first.made(&self.dir, &self.name, &stat);
        }
        if self.late_flags() == 0 {
            context.apply_flags(&self.path, file, self.meta.flags);
        }
        count(&context.counts.files, 1);
        context.progress.files(1);
        context.placed(&self.path, self.size, self.replaces);
        Ok(())
    }

    /// Flags that must wait until the file has all its names; 0 if none must.
    pub(super) fn late_flags(&self) -> u32 {
        if self.meta.link.is_some() && freezes(&self.meta) { self.meta.flags } else { 0 }
    }

    /// Reads the file back and compares it with what was recorded.
    pub(super) fn verify(&self, context: &Context<'_>) {
        let body = Body::File { size: self.size, content: self.content.clone() };
        let entry = Entry { name: self.name.clone(), meta: self.meta.clone(), body };
        match self.directory().and_then(|dir| context.verify_found(&self.target, &dir, &entry, Origin::Made)) {
            Ok(()) => count(&context.counts.verified, 1),
            Err(_) if !context.goes_on() => {}
            Err(error) => context.mismatch(&self.path, not_restored(&self.path, error)),
        }
    }
}

impl Drop for FileJob {
    fn drop(&mut self) {
        let state = std::mem::replace(self.state.get_mut().unwrap_or_else(PoisonError::into_inner), State::Done);
        let mut state = state;
        if matches!(state, State::Open(_) | State::Closed(_)) {
            self.discard(&mut state);
        }
    }
}

/// An error of the system about the file at hand; whoever knows its name adds it.
pub(super) fn failed_to(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::io(format!("The file could not be {what}"), error)
}
