//! Waiting for writers that may rely on condemned packs, and deciding when to wait no longer. Not for: why waiting is needed (see
//! CONCURRENCY in `man/firn-repository.7`).
//!
//! Revoking is always safe, also when it is wrong: a revoked session finds that out before it reports success, and fails.

use crate::error::{Error, ErrorKind, Result};
use crate::format::coordination::{Pin, Process};
use crate::id::{SessionId, WriterId};
use crate::os::ProcessIdentity;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::coordination::StoredPin;
use crate::repository::mistake::{self, Mistake};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How often pins are listed while waiting: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// What to do about pins that are still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Look again.
    Wait,
    /// These may no longer commit; look again.
    Revoke(Vec<SessionId>),
    /// Delete nothing this time.
    GiveUp,
}

/// Decides how long a prune waits for writers.
pub trait Patience: Send + Sync {
    /// Called each time these pins, all of which were there when the prune put its marks, are still there. Sleeps as it likes.
    fn wait(&self, pins: &[StoredPin]) -> Result<Answer>;

    /// Waits until what was put in a place whose listings lag can be seen by all.
    fn sleep(&self, span: Duration) -> Result<()>;
}

/// What happened while it waited.
struct State {
    /// The next one.
    pause: Duration,
    /// Of these it was said that they are waited for.
    told: HashSet<SessionId>,
    /// These were revoked. A listing may show that late, and only what it shows stops a writer.
    revoked: HashSet<SessionId>,
}

/// The patience of a person's prune: waits for whoever shows signs of life.
pub(super) struct Usual<'a> {
    writer: WriterId,
    host: String,
    /// A pin without a sign of life for so long, by the store's clock, is revoked.
    revoke_after: Duration,
    max_wait: Option<Duration>,
    since: Instant,
    state: std::sync::Mutex<State>,
    has_explained: AtomicBool,
    progress: &'a dyn Progress,
    stop: &'a Stop,
}

impl<'a> Usual<'a> {
    pub(super) fn new(
        repository: &Repository,
        revoke_after: Duration,
        max_wait: Option<Duration>,
        progress: &'a dyn Progress,
        stop: &'a Stop,
    ) -> Usual<'a> {
        Usual {
            writer: repository.writer_id(),
            host: crate::os::hostname(),
            revoke_after,
            max_wait,
            since: Instant::now(),
            state: std::sync::Mutex::new(State { pause: FIRST_PAUSE, told: HashSet::new(), revoked: HashSet::new() }),
            has_explained: AtomicBool::new(false),
            progress,
            stop,
        }
    }

    /// Whether whoever put it shows no sign of life.
    fn is_dead(&self, pin: &StoredPin) -> bool {
        let age = SystemTime::now().duration_since(pin.stored).unwrap_or_default();
        age >= self.revoke_after || pin.pin.as_ref().is_some_and(|pin| self.has_ended(pin))
    }
}

impl Usual<'_> {
    /// Whether the process that put a pin is known to be no more. A name of a machine and a process number do not tell, for
    /// containers share both; where the pin says no more than that, only its age counts.
    fn has_ended(&self, pin: &Pin) -> bool {
        let Some(Process { boot, namespace, ticks }) = &pin.process else { return false };
        let identity = ProcessIdentity { boot: boot.clone(), namespace: *namespace, started: *ticks };
        pin.writer == self.writer && pin.host == self.host && !crate::os::is_alive(pin.pid, &identity)
    }
}

impl Patience for Usual<'_> {
    fn wait(&self, pins: &[StoredPin]) -> Result<Answer> {
        self.stop.check()?;
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let State { pause, told, revoked } = &mut *state;
        let dead = pins.iter().filter(|pin| self.is_dead(pin)).map(|pin| pin.session);
        let dead: Vec<SessionId> = dead.filter(|session| revoked.insert(*session)).collect();
        if !dead.is_empty() {
            return Ok(Answer::Revoke(dead));
        }
        if self.max_wait.is_some_and(|most| self.since.elapsed() >= most) {
            return Ok(Answer::GiveUp);
        }
        for pin in pins {
            // Most pins are gone a moment later.
            if *pause > Duration::from_millis(400) && told.insert(pin.session) {
                self.progress.note(&format!("Waiting for {} to end", describe(pin)));
            }
        }
        self.stop.sleep(*pause)?;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(Answer::Wait)
    }

    fn sleep(&self, span: Duration) -> Result<()> {
        if !self.has_explained.swap(true, Ordering::Relaxed) {
            self.progress.note(&format!(
                "Listings here may be {} seconds old, so this prune pauses several times for as long",
                span.as_secs()
            ));
        }
        self.stop.sleep(span)
    }
}

/// Whose pin it is, as a person knows it.
pub(super) fn describe(pin: &StoredPin) -> String {
    match &pin.pin {
        Some(body) => format!(
            "the backup of \"{}\" (process {}, since {})",
            body.host,
            body.pid,
            body.started.strftime("%Y-%m-%d %H:%M:%S UTC")
        ),
        None => format!("the session \"{}\", whose pin cannot be read,", pin.session),
    }
}

/// Waits as many times as long as listings lag. Whatever was put before one such wait began is listed for everybody after it.
pub(super) fn outwait(repository: &Repository, patience: &dyn Patience, times: u32) -> Result<()> {
    let lag = repository.listing_lag();
    if lag.is_zero() {
        return Ok(());
    }
    (0..times).try_for_each(|_| patience.sleep(lag))
}

/// Waits until all sessions that are pinned now have ended or may no longer commit. Returns those that were revoked.
pub(super) fn drain(repository: &Repository, patience: &dyn Patience) -> Result<Vec<SessionId>> {
    let mut waiting: Vec<StoredPin> = repository.pins()?;
    let mut revoked = Vec::new();
    while !waiting.is_empty() && !mistake::made(Mistake::NoWait) {
        let listed: HashSet<SessionId> = repository.pins()?.into_iter().map(|pin| pin.session).collect();
        let harmless = repository.revoked()?;
        waiting.retain(|pin| listed.contains(&pin.session) && !harmless.contains(&pin.session));
        if waiting.is_empty() {
            break;
        }
        match patience.wait(&waiting)? {
            Answer::Wait => {}
            Answer::Revoke(sessions) => {
                for pin in waiting.iter().filter(|pin| sessions.contains(&pin.session)) {
                    repository.revoke(pin)?;
                    revoked.push(pin.session);
                }
                // Until all can see it, these may still commit.
                outwait(repository, patience, 2)?;
            }
            Answer::GiveUp => {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("{} still runs, so nothing was deleted", capital(&describe(&waiting[0]))),
                )
                .with_hint("Run the prune again later, or without --max-wait."));
            }
        }
    }
    Ok(revoked)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
