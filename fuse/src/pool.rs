//! Who waits for slow storage, and how long: a fixed number of workers, two queues, and a watchdog that answers for whoever waits
//! too long. It knows nothing of trees.
//!
//! Questions about names and attributes go before contents, and some workers never touch contents, so that `ls` stays quick beside
//! many streams. A full queue holds up the thread that takes requests from the kernel, which then stops sending more.
//!
//! A client that was killed still waits for its reply in the kernel and cannot go away before; hence the watchdog.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fuser::Errno;

/// Longest queue. One entry is a few hundred bytes; the kernel sends at most 128 requests ahead, the rest are waiting programs.
const QUEUE: usize = 4096;
/// The list of watched requests is cleaned of answered ones when it has doubled, but not below this length.
const WATCHED: usize = 1024;

/// Work for a worker.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Which queue work goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Names, attributes, listings: first.
    Metadata,
    /// Contents.
    Data,
}

/// A reply that can say no.
pub(crate) trait Refuse: Send + 'static {
    /// Ends the request with this error.
    fn refuse(self, errno: Errno);
}

/// A reply that is given once, by whoever comes first: the work or the watchdog.
pub(crate) struct Ticket<R>(Mutex<Option<R>>);

impl<R: Refuse> Ticket<R> {
    pub(crate) fn new(reply: R) -> Arc<Ticket<R>> {
        Arc::new(Ticket(Mutex::new(Some(reply))))
    }

    /// The reply, if nobody has given it yet.
    pub(crate) fn take(&self) -> Option<R> {
        lock(&self.0).take()
    }

    /// Answers with an error, if nobody has answered yet.
    pub(crate) fn refuse(&self, errno: Errno) {
        if let Some(reply) = self.take() {
            reply.refuse(errno);
        }
    }
}

/// Something the watchdog can end.
pub(crate) trait Expire: Send + Sync {
    /// Answers "timed out", if nobody has answered yet.
    fn expire(&self) -> bool;
}

impl<R: Refuse> Expire for Ticket<R> {
    fn expire(&self) -> bool {
        self.take().map(|reply| reply.refuse(Errno::ETIMEDOUT)).is_some()
    }
}

#[derive(Default)]
struct Queues {
    metadata: VecDeque<Job>,
    data: VecDeque<Job>,
    closed: bool,
}

impl Queues {
    fn len(&self) -> usize {
        self.metadata.len() + self.data.len()
    }
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// Wakes workers that do everything.
    any: Condvar,
    /// Wakes workers that do metadata only.
    metadata: Condvar,
    /// Wakes whoever waits for room in the queues.
    room: Condvar,
}

/// Workers; they end when it is dropped (after the work they are at, for which nobody waits).
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Starts `workers` threads (at least one), and a quarter as many again for metadata alone.
    pub(crate) fn start(workers: usize) -> io::Result<Pool> {
        let pool = Pool { shared: Arc::default() };
        let workers = workers.max(1);
        for number in 0..workers + workers.div_ceil(4) {
            let shared = Arc::clone(&pool.shared);
            let metadata_only = number >= workers;
            // An error drops the pool and so ends the threads started before.
            thread::Builder::new().name(format!("fuse-work-{number}")).spawn(move || work(&shared, metadata_only))?;
        }
        Ok(pool)
    }

    /// Queues work, waiting while the queues are full.
    pub(crate) fn push(&self, lane: Lane, job: Job) {
        let mut queues = lock(&self.shared.queues);
        while queues.len() >= QUEUE && !queues.closed {
            queues = self.shared.room.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
        match lane {
            Lane::Metadata => {
                queues.metadata.push_back(job);
                self.shared.metadata.notify_one();
            }
            Lane::Data => queues.data.push_back(job),
        }
        drop(queues);
        self.shared.any.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queues = lock(&self.shared.queues);
        queues.closed = true;
        // Replies that are dropped unanswered are answered with an I/O error.
        let (metadata, data) = (std::mem::take(&mut queues.metadata), std::mem::take(&mut queues.data));
        drop(queues);
        drop((metadata, data));
        self.shared.any.notify_all();
        self.shared.metadata.notify_all();
        self.shared.room.notify_all();
    }
}

fn work(shared: &Shared, metadata_only: bool) {
    while let Some(job) = next(shared, metadata_only) {
        // Jobs catch the panics of trees themselves; this keeps the worker even if a reply panics.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

fn next(shared: &Shared, metadata_only: bool) -> Option<Job> {
    let mut queues = lock(&shared.queues);
    loop {
        if queues.closed {
            return None;
        }
        let job = match queues.metadata.pop_front() {
            None if !metadata_only => queues.data.pop_front(),
            job => job,
        };
        if job.is_some() {
            if queues.len() + 1 >= QUEUE {
                shared.room.notify_one();
            }
            return job;
        }
        let bell = if metadata_only { &shared.metadata } else { &shared.any };
        queues = bell.wait(queues).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Ends requests that have waited too long; its thread ends when it is dropped.
pub(crate) struct Watchdog {
    patience: Duration,
    shared: Arc<(Mutex<Watched>, Condvar)>,
}

#[derive(Default)]
struct Watched {
    /// In the order of their ends, since all have the same patience.
    list: VecDeque<(Instant, Weak<dyn Expire>)>,
    clean_at: usize,
    closed: bool,
}

impl Watchdog {
    /// Starts the watchdog; `on_expired` is called after each request it has ended.
    pub(crate) fn start(patience: Duration, on_expired: impl Fn() + Send + 'static) -> io::Result<Watchdog> {
        let dog = Watchdog { patience, shared: Arc::default() };
        let shared = Arc::clone(&dog.shared);
        thread::Builder::new().name("fuse-deadline".to_owned()).spawn(move || watch(&shared, &on_expired))?;
        Ok(dog)
    }

    /// Watches a request from now on.
    pub(crate) fn watch(&self, ticket: Weak<dyn Expire>) {
        let mut watched = lock(&self.shared.0);
        let idle = watched.list.is_empty();
        watched.list.push_back((Instant::now() + self.patience, ticket));
        if watched.list.len() > watched.clean_at {
            watched.list.retain(|(_, ticket)| ticket.strong_count() > 0);
            watched.clean_at = WATCHED.max(2 * watched.list.len());
        }
        drop(watched);
        if idle {
            self.shared.1.notify_one();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.shared.0).closed = true;
        self.shared.1.notify_one();
    }
}

fn watch(shared: &(Mutex<Watched>, Condvar), on_expired: &dyn Fn()) {
    let mut watched = lock(&shared.0);
    while !watched.closed {
        while watched.list.front().is_some_and(|(_, ticket)| ticket.strong_count() == 0) {
            watched.list.pop_front();
        }
        let Some(end) = watched.list.front().map(|&(end, _)| end) else {
            watched = shared.1.wait(watched).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = end.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            watched = shared.1.wait_timeout(watched, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let ticket = watched.list.pop_front().and_then(|(_, ticket)| ticket.upgrade());
        drop(watched);
        if ticket.is_some_and(|ticket| ticket.expire()) {
            on_expired();
        }
        watched = lock(&shared.0);
    }
}

/// Locks even after a panic elsewhere: every value guarded here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    impl Refuse for Sender<i32> {
        fn refuse(self, errno: Errno) {
            let _ = self.send(errno.code());
        }
    }

    /// Occupies all workers that do everything until the returned sender is dropped.
    fn occupy(pool: &Pool, workers: usize) -> Sender<()> {
        let (hold, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (started, starts) = channel();
        for _ in 0..workers {
            let (held, started) = (Arc::clone(&held), started.clone());
            pool.push(
                Lane::Data,
                Box::new(move || {
                    started.send(()).unwrap();
                    let _ = lock(&held).recv();
                }),
            );
        }
        for _ in 0..workers {
            starts.recv_timeout(LONG).unwrap();
        }
        hold
    }

    #[test]
    fn metadata_is_answered_while_every_other_worker_is_stuck() {
        let pool = Pool::start(2).unwrap();
        let hold = occupy(&pool, 2);
        let (done, dones) = channel();
        let late = done.clone();
        pool.push(Lane::Data, Box::new(move || late.send("data").unwrap()));
        pool.push(Lane::Metadata, Box::new(move || done.send("metadata").unwrap()));
        assert_eq!(dones.recv_timeout(LONG), Ok("metadata"));
        drop(hold);
        assert_eq!(dones.recv_timeout(LONG), Ok("data"));
    }

    #[test]
    fn a_panicking_job_costs_no_worker() {
        let pool = Pool::start(1).unwrap();
        for _ in 0..5 {
            pool.push(Lane::Data, Box::new(|| panic!("expected in this test")));
        }
        let (done, dones) = channel();
        pool.push(Lane::Data, Box::new(move || done.send(()).unwrap()));
        dones.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn a_full_queue_holds_up_the_giver_and_loses_nothing() {
        let pool = Pool::start(1).unwrap();
        let hold = occupy(&pool, 1);
        let (done, dones) = channel();
        thread::scope(|scope| {
            let giver = scope.spawn(|| {
                for _ in 0..QUEUE + 100 {
                    let done = done.clone();
                    pool.push(Lane::Data, Box::new(move || done.send(()).unwrap()));
                }
            });
            while lock(&pool.shared.queues).len() < QUEUE {
                thread::yield_now();
            }
            assert!(!giver.is_finished());
            drop(hold);
        });
        for _ in 0..QUEUE + 100 {
            dones.recv_timeout(LONG).unwrap();
        }
    }

    #[test]
    fn the_watchdog_answers_once_and_only_for_those_who_wait() {
        let (expired, expirations) = channel();
        let dog = Watchdog::start(Duration::from_millis(50), move || expired.send(()).unwrap()).unwrap();
        let (reply, replies): (Sender<i32>, Receiver<i32>) = channel();
        let slow = Ticket::new(reply.clone());
        let quick = Ticket::new(reply);
        for ticket in [&quick, &slow] {
            let ticket: Arc<dyn Expire> = Arc::clone(ticket) as _;
            dog.watch(Arc::downgrade(&ticket));
        }
        assert!(quick.take().is_some());
        assert_eq!(replies.recv_timeout(LONG), Ok(Errno::ETIMEDOUT.code()));
        expirations.recv_timeout(LONG).unwrap();
        slow.refuse(Errno::EIO);
        assert!(replies.recv_timeout(Duration::from_millis(200)).is_err(), "answered twice");
    }

    #[test]
    fn answered_requests_do_not_pile_up_at_the_watchdog() {
        let dog = Watchdog::start(Duration::from_secs(3600), || ()).unwrap();
        let (reply, _replies) = channel::<i32>();
        let stuck: Arc<dyn Expire> = Ticket::new(reply.clone());
        dog.watch(Arc::downgrade(&stuck));
        for _ in 0..10 * WATCHED {
            let done: Arc<dyn Expire> = Ticket::new(reply.clone());
            dog.watch(Arc::downgrade(&done));
        }
        assert!(lock(&dog.shared.0).list.len() <= 2 * WATCHED);
    }
}
