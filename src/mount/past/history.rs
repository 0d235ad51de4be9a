//! The history catalog as a mount uses it: opened when somebody first looks, brought up to date by a thread of its own, closed when
//! nobody looks any more, so that other commands can have it. Not for: what is asked (see `past`).
//!
//! Whoever asks waits a while for the catalog, but only some at once: the rest of the mount has to go on.

use crate::error::{Error, ErrorKind, Result};
use crate::history::Catalog;
use crate::history::lines::LineId;
use crate::history::query::Broken;
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::snapshots::Named;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How many may wait at once; fewer than there are threads for what waits.
const WAITING: usize = 10;
/// How long a failure is the answer before it is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// What takes longer than this is told of.
const LONG: Duration = Duration::from_secs(2);
/// How often somebody who asks has records built anew.
const ATTEMPTS: usize = 4;

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// So long somebody who asks waits for the catalog.
    pub(super) patience: Duration,
    /// The catalog is closed when nobody has asked for so long.
    pub(super) idle: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times { patience: Duration::from_secs(15), idle: Duration::from_secs(60) }
    }
}

/// The snapshots of a moment.
#[derive(Debug)]
pub(super) struct Live {
    /// All of the repository, the oldest first.
    pub(super) all: Arc<Vec<Arc<Named>>>,
    /// Those that are shown.
    pub(super) shown: HashSet<ObjectName>,
}

/// A line whose records are lost, and the catalog of which that is so.
type LostAt = (LineId, u64);

struct Open {
    catalog: Catalog,
    /// The snapshots that it was brought up to date with.
    live: HashSet<ObjectName>,
    /// Another one after each change.
    epoch: u64,
}

#[derive(Default)]
struct State {
    /// What the thread is to do next.
    wanted: Option<(Arc<Live>, Option<LostAt>)>,
    /// The thread is there.
    running: bool,
    /// It is at work.
    busy: bool,
    waiting: usize,
    used: Option<Instant>,
    failed: Option<(Instant, ErrorKind, String)>,
    epoch: u64,
}

/// Called when the catalog is ready.
type Ready = Box<dyn Fn() + Send + Sync>;

/// See the top of the file.
pub(in crate::mount) struct History {
    repository: Arc<Repository>,
    progress: Box<dyn Progress>,
    times: Times,
    stop: Stop,
    open: RwLock<Option<Open>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Snapshots read for the catalog that is being built.
    read: AtomicU64,
    ready: Mutex<Option<Ready>>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

/// Counts snapshots, says so when it takes long, and passes the rest on.
struct Counting<'h> {
    history: &'h History,
    started: Instant,
    told: AtomicBool,
}

impl Counting<'_> {
    fn takes_long(&self) -> bool {
        self.started.elapsed() >= LONG
    }
}

impl Progress for Counting<'_> {
    fn files(&self, files: u64) {
        self.history.read.fetch_add(files, Ordering::Relaxed);
        if self.takes_long() && !self.told.swap(true, Ordering::Relaxed) {
            self.note("The history of the snapshots is being read; the first time, this takes a while");
        }
    }

    fn issue(&self, _: &Path, error: &Error) {
        self.note(&error.chain());
    }

    fn note(&self, message: &str) {
        self.history.progress.note(message);
    }
}

impl History {
    /// Of a repository; what is worth knowing is told to `progress`.
    pub(in crate::mount) fn new(repository: Arc<Repository>, progress: Box<dyn Progress>) -> Arc<History> {
        History::with(repository, progress, Times::default())
    }

    pub(super) fn with(repository: Arc<Repository>, progress: Box<dyn Progress>, times: Times) -> Arc<History> {
        Arc::new(History {
            repository,
            progress,
            times,
            stop: Stop::new(),
            open: RwLock::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            read: AtomicU64::new(0),
            ready: Mutex::default(),
        })
    }

    /// Has this called each time that the catalog is ready after somebody had to wait for it.
    pub(super) fn connect(&self, ready: Ready) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(ready);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks something about these snapshots. `None`: the catalog is not ready yet. Whatever is told of an answer has to be right
    /// also if it is asked once more. The question gets a number that changes with the catalog.
    pub(super) fn ask<T>(
        self: &Arc<Self>,
        live: &Arc<Live>,
        question: &mut dyn FnMut(&Catalog, u64) -> Result<T, Broken>,
    ) -> Result<Option<T>> {
        for _ in 0..ATTEMPTS {
            let mut lost = None;
            if let Some(open) = &*self.open.read().unwrap_or_else(PoisonError::into_inner)
                && live.shown.is_subset(&open.live)
            {
                self.state().used = Some(Instant::now());
                match question(&open.catalog, open.epoch) {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(Broken::Failed(error)) => return Err(error),
                    Err(Broken::Lost(line)) => lost = Some((line, open.epoch)),
                }
            }
            if !self.wait(live, lost)? {
                return Ok(None);
            }
        }
        Err(Error::new(ErrorKind::Failed, "The history catalog loses what is put into it"))
    }

    /// Has the thread do what is needed and waits for it; `false` if that takes too long.
    fn wait(self: &Arc<Self>, live: &Arc<Live>, lost: Option<LostAt>) -> Result<bool> {
        let mut state = self.state();
        if let Some((when, kind, said)) = &state.failed
            && when.elapsed() < PAUSE
        {
            return Err(Error::new(*kind, said.clone()));
        }
        if state.wanted.is_none() && (!state.busy || lost.is_some()) {
            state.wanted = Some((live.clone(), lost));
            if !state.running {
                let history = self.clone();
                let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || history.serve());
                thread.map_err(|error| Error::io("No thread could be started to read the history", error))?;
                state.running = true;
            }
            self.changed.notify_all();
        }
        if state.waiting >= WAITING {
            return Ok(false);
        }
        state.waiting += 1;
        let deadline = Instant::now() + self.times.patience;
        while (state.wanted.is_some() || state.busy) && self.stop.signal().is_none() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        self.stop.check()?;
        Ok(state.wanted.is_none() && !state.busy)
    }

    /// Whether it goes on: not if the mount ends.
    pub(super) fn check(&self) -> Result<()> {
        self.stop.check()
    }

    /// How many snapshots were read for the catalog that is not ready.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The thread: builds when it is told to, and ends when nobody has asked for a while.
    fn serve(&self) {
        loop {
            let mut state = self.state();
            let next = loop {
                if self.stop.signal().is_some() {
                    break None;
                }
                if let Some(next) = state.wanted.take() {
                    break Some(next);
                }
                let idle = state.used.map_or(self.times.idle, |used| used.elapsed());
                let Some(left) = self.times.idle.checked_sub(idle).filter(|left| !left.is_zero()) else { break None };
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            };
            let Some((live, lost)) = next else {
                // Whoever asks holds the catalog before the state, so not the other way round here.
                drop(state);
                drop(self.open.write().unwrap_or_else(PoisonError::into_inner).take());
                let mut state = self.state();
                if state.wanted.is_some() && self.stop.signal().is_none() {
                    continue;
                }
                state.running = false;
                self.changed.notify_all();
                return;
            };
            state.busy = true;
            drop(state);
            self.read.store(0, Ordering::Relaxed);
            let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.build(&live, lost)));
            let failed = match built {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((Instant::now(), error.kind(), error.chain())),
                Err(_) => Some((Instant::now(), ErrorKind::Failed, "The history could not be read".to_owned())),
            };
            let mut state = self.state();
            (state.busy, state.used, state.failed) = (false, Some(Instant::now()), failed);
            self.changed.notify_all();
            drop(state);
            if let Some(ready) = &*self.ready.lock().unwrap_or_else(PoisonError::into_inner) {
                ready();
            }
        }
    }

    fn build(&self, live: &Live, lost: Option<LostAt>) -> Result<()> {
        let taken = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        let progress = Counting { history: self, started: Instant::now(), told: AtomicBool::new(false) };
        let (mut catalog, epoch) = match taken {
            Some(open) => (open.catalog, open.epoch),
            None => (Catalog::open(&self.repository, &progress)?, 0),
        };
        catalog.update(live.all.to_vec(), &progress, &self.stop)?;
        if let Some((line, at)) = lost
            && at == epoch
        {
            // Only the first answer: then the records are there again.
            let mut lost = Some(line);
            catalog.ask(&progress, &self.stop, &mut |_| lost.take().map_or(Ok(()), |line| Err(Broken::Lost(line))))?;
        }
        let read = self.read();
        if progress.takes_long() && read > 0 {
            let seconds = progress.started.elapsed().as_secs_f64();
            progress.note(&format!("The history of {read} snapshots was read in {seconds:.1} s"));
        }
        let mut state = self.state();
        state.epoch += 1;
        let open = Open { catalog, live: live.all.iter().map(|named| named.name).collect(), epoch: state.epoch };
        drop(state);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(())
    }

    /// Loses what is in the catalog, as a database does that is damaged.
    #[cfg(test)]
    pub(super) fn lose(&self) {
        if let Some(open) = &mut *self.open.write().unwrap_or_else(PoisonError::into_inner) {
            open.catalog.lose();
        }
    }

    /// Whether nobody else can have the catalog.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Ends what is going on, and closes the catalog. It may be busy with a slow store, which is not waited for very long.
    pub(in crate::mount) fn end(&self, most: Duration) {
        self.stop.trigger(0xff);
        let mut state = self.state();
        self.changed.notify_all();
        let deadline = Instant::now() + most;
        while state.running {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
