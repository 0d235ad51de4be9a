//! How the library tells what it is doing: a small trait that `cli` implements. Not for: printing.

use crate::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// How a file compares with the last backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It was not there.
    New,
    /// It was there and is different now.
    Changed,
    /// It is the same.
    Unchanged,
}

/// What a restore makes of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Nothing had its name.
    New,
    /// It takes the place of what had its name.
    Replaced,
    /// What is there stays.
    Left,
}

/// Receives what happens during a long operation. Methods are called from several threads, often; they must be quick.
pub trait Progress: Send + Sync {
    /// A new stage begins ("scanning", "restoring"); totals are zero until known.
    fn stage(&self, _name: &str) {}
    /// The work now known to lie ahead: this many more files and bytes.
    fn expect(&self, _files: u64, _bytes: u64) {}
    /// Bytes dealt with since the last call.
    fn bytes(&self, _bytes: u64) {}
    /// A file is being worked on.
    fn file(&self, _path: &Path) {}
    /// Files dealt with since the last call.
    fn files(&self, _files: u64) {}
    /// A backup has dealt with a file of this size. Called in the order of the walk.
    fn compared(&self, _path: &Path, _size: u64, _found: Compared) {}
    /// A restore has dealt with a thing of this size, which is no folder; a dry run would do so.
    fn placed(&self, _path: &Path, _size: u64, _how: Placed) {}
    /// Something was left out or went wrong, and the operation goes on. Counted by the caller as well.
    fn issue(&self, _path: &Path, _error: &Error) {}
    /// Worth knowing, not wrong: a sentence.
    fn note(&self, _message: &str) {}
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {}

/// Asks running operations to stop at the next safe point. The value is the signal's number, or 0.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    /// One that nobody has triggered.
    pub const fn new() -> Self {
        Stop(AtomicU8::new(0))
    }

    /// Asks to stop because of `signal`. Safe in a signal handler.
    pub fn trigger(&self, signal: u8) {
        self.0.store(signal, Ordering::Release);
    }

    /// The signal that asked to stop, if any.
    pub fn signal(&self) -> Option<u8> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// An `Interrupted` error once somebody asked to stop.
    pub fn check(&self) -> crate::error::Result<()> {
        match self.signal() {
            None => Ok(()),
            Some(signal) => Err(Error::new(crate::error::ErrorKind::Interrupted, stopped_by(signal))),
        }
    }

    /// Sleeps for so long; an error as of `check` once somebody asked to stop.
    pub fn sleep(&self, span: Duration) -> crate::error::Result<()> {
        let since = Instant::now();
        loop {
            self.check()?;
            let left = span.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// What a signal means to a person.
fn stopped_by(signal: u8) -> String {
    match signal {
        1 => "Stopped because the terminal was closed (SIGHUP)".to_owned(),
        2 => "Stopped by Ctrl-C (SIGINT)".to_owned(),
        15 => "Stopped by a request to end (SIGTERM)".to_owned(),
        signal => format!("Stopped by signal number {signal}"),
    }
}
