//! A store that breaks on request, for tests of everything above it. Not for: breaking the contract otherwise, except
//! in listings, where real stores do.

use super::Layer;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Listed, ObjectKey, ObjectKind, Operation, Store, no_space, truncated};
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What goes wrong. Probabilities are from 0 (never) to 1 (always); the default is that nothing does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Where the random numbers begin: with one thread, the same seed gives the same faults.
    pub seed: u64,
    /// A put fails and does nothing.
    pub fail_put: f64,
    /// A get fails.
    pub fail_get: f64,
    /// A ranged get fails.
    pub fail_get_range: f64,
    /// A question for the size fails.
    pub fail_size: f64,
    /// A listing fails, at its beginning or after some objects.
    pub fail_list: f64,
    /// A delete fails and does nothing.
    pub fail_delete: f64,
    /// A prepare fails.
    pub fail_prepare: f64,
    /// A settle fails.
    pub fail_settle: f64,
    /// A put is applied but reported as failed.
    pub applied_put: f64,
    /// A delete is applied but reported as failed.
    pub applied_delete: f64,
    /// A get or ranged get receives fewer bytes than the object has; `Damaged`.
    pub short_body: f64,
    /// A listing leaves out an object, for each object.
    pub list_misses: f64,
    /// A listing leaves out an object that is among the last `list_lag` puts, for each such object.
    pub list_misses_recent: f64,
    /// A listing names an object that is gone, for each of the last `list_lag` deletes.
    pub list_shows_deleted: f64,
    /// How many puts and deletes a listing lags behind at most.
    pub list_lag: usize,
    /// Fresh listings miss objects and name others as all listings do: a place that lags without saying so.
    pub fresh_lags: bool,
    /// A call takes longer by a random part of `longest_delay`.
    pub delay: f64,
    /// See `delay`.
    pub longest_delay: Duration,
    /// The n-th put or delete (from 1, counted since the store was made) fails, as does every call afterwards.
    pub crash_at: Option<u64>,
    /// Whether that n-th put or delete is applied before it fails.
    pub crash_applies: bool,
    /// Puts that would bring the bytes put so far, without those deleted, above this number are `Full`.
    pub full_after: Option<u64>,
}

impl Faults {
    fn failing(&self, operation: Operation) -> f64 {
        match operation {
            Operation::Put => self.fail_put,
            Operation::Get => self.fail_get,
            Operation::GetRange => self.fail_get_range,
            Operation::Size => self.fail_size,
            Operation::List | Operation::ListFresh => self.fail_list,
            Operation::Delete => self.fail_delete,
            Operation::Prepare => self.fail_prepare,
            Operation::Settle => self.fail_settle,
        }
    }

    fn applied(&self, operation: Operation) -> f64 {
        match operation {
            Operation::Put => self.applied_put,
            Operation::Delete => self.applied_delete,
            _ => 0.0,
        }
    }
}

/// A store with faults, around one without.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    random: Random,
    mutations: u64,
    crashed: bool,
    /// Bytes put since the store was made, less those deleted.
    used: i64,
    recent_puts: VecDeque<ObjectKey>,
    recent_deletes: VecDeque<(ObjectKind, Listed)>,
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to but not including 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.fraction() < probability
    }

    /// Below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end as u64).max(1)) as usize
    }
}

/// What becomes of one call.
enum Fate {
    Succeeds,
    FailsBefore,
    FailsAfter,
}

impl<S: Store> FaultyStore<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, faults: Faults) -> Self {
        let state = State {
            random: Random(faults.seed),
            faults,
            mutations: 0,
            crashed: false,
            used: 0,
            recent_puts: VecDeque::new(),
            recent_deletes: VecDeque::new(),
        };
        FaultyStore { inner, state: Mutex::new(state) }
    }

    /// The store within, which has no faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Other faults from now on; the random numbers begin anew, the counters go on. A crashed store stays crashed.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.lock();
        state.random = Random(faults.seed);
        state.faults = faults;
    }

    /// How many puts and deletes were called so far, including failed ones, without those after a crash.
    pub fn mutations(&self) -> u64 {
        self.lock().mutations
    }

    /// Whether `crash_at` was reached.
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a call and waits if it shall be slow.
    fn decide(&self, operation: Operation) -> Fate {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.crashed {
            return Fate::FailsBefore;
        }
        if operation.is_mutating() {
            state.mutations += 1;
            if state.faults.crash_at.is_some_and(|last| state.mutations >= last) {
                state.crashed = true;
                return if state.faults.crash_applies { Fate::FailsAfter } else { Fate::FailsBefore };
            }
        }
        let delay = state.random.chance(state.faults.delay).then(|| state.random.fraction());
        let delay = delay.map(|part| state.faults.longest_delay.mul_f64(part));
        let fate = if state.random.chance(state.faults.failing(operation)) {
            Fate::FailsBefore
        } else if state.random.chance(state.faults.applied(operation)) {
            Fate::FailsAfter
        } else {
            Fate::Succeeds
        };
        drop(guard);
        if let Some(delay) = delay {
            std::thread::sleep(delay);
        }
        fate
    }

    /// As `decide`, for calls that change nothing.
    fn decide_read(&self, operation: Operation, what: &str) -> Result<()> {
        match self.decide(operation) {
            Fate::FailsBefore => Err(injected(operation, what)),
            Fate::Succeeds | Fate::FailsAfter => Ok(()),
        }
    }

    /// Takes space for a put, or says that there is none.
    fn take_space(&self, key: &ObjectKey, length: u64) -> Result<()> {
        let mut state = self.lock();
        let used = state.used.saturating_add_unsigned(length);
        if state.faults.full_after.is_some_and(|most| used > most.try_into().unwrap_or(i64::MAX)) {
            return Err(no_space(key, &self.inner.properties().location));
        }
        state.used = used;
        Ok(())
    }

    fn give_space(&self, length: u64) {
        let mut state = self.lock();
        state.used = state.used.saturating_sub_unsigned(length);
    }

    /// How many bytes of `length` arrive, if they do not all.
    fn short_body(&self, length: usize) -> Option<usize> {
        let mut guard = self.lock();
        let state = &mut *guard;
        (length > 0 && state.random.chance(state.faults.short_body)).then(|| state.random.below(length))
    }

    /// The listing that a store shows which misses some objects and still names others.
    fn distort(&self, kind: ObjectKind, listing: Vec<Listed>) -> Vec<Listed> {
        let mut guard = self.lock();
        let State { faults, random, recent_puts, recent_deletes, .. } = &mut *guard;
        let recent: HashSet<&str> =
            recent_puts.iter().filter(|key| key.kind == kind).map(|key| key.name.as_str()).collect();
        let present: HashSet<String> = listing.iter().map(|entry| entry.name.clone()).collect();
        let mut shown: Vec<Listed> = listing
            .into_iter()
            .filter(|entry| {
                let missed_recent = recent.contains(entry.name.as_str()) && random.chance(faults.list_misses_recent);
                !missed_recent && !random.chance(faults.list_misses)
            })
            .collect();
        for (deleted_kind, entry) in recent_deletes.iter() {
            let is_gone = *deleted_kind == kind && !present.contains(&entry.name);
            if is_gone && random.chance(faults.list_shows_deleted) {
                shown.push(entry.clone());
            }
        }
        shown
    }

    fn note_put(&self, key: &ObjectKey) {
        let mut state = self.lock();
        state.recent_deletes.retain(|(kind, entry)| *kind != key.kind || entry.name != key.name);
        let lag = state.faults.list_lag;
        state.recent_puts.push_back(key.clone());
        while state.recent_puts.len() > lag {
            state.recent_puts.pop_front();
        }
    }

    fn note_delete(&self, key: &ObjectKey, size: u64) {
        let mut state = self.lock();
        let lag = state.faults.list_lag;
        let entry = Listed { name: key.name.clone(), size, stored: SystemTime::now(), mark: 0 };
        state.recent_deletes.push_back((key.kind, entry));
        while state.recent_deletes.len() > lag {
            state.recent_deletes.pop_front();
        }
    }
}

impl<S: Store> FaultyStore<S> {
    fn list_as(
        &self,
        operation: Operation,
        kind: ObjectKind,
        visit: &mut dyn FnMut(Listed) -> Result<()>,
    ) -> Result<()> {
        let fails = self.decide_read(operation, kind.folder());
        if self.has_crashed() {
            return fails;
        }
        let mut shown = Vec::new();
        let mut note = |entry| {
            shown.push(entry);
            Ok(())
        };
        if operation == Operation::List || self.lock().faults.fresh_lags {
            self.inner.list(kind, &mut note)?;
            shown = self.distort(kind, shown);
        } else {
            self.inner.list_fresh(kind, &mut note)?;
        }
        if fails.is_err() {
            let some = self.lock().random.below(shown.len() + 1);
            shown.truncate(some);
        }
        shown.into_iter().try_for_each(visit)?;
        fails
    }
}

fn injected(operation: Operation, what: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("An injected fault made \"{operation}\" of \"{what}\" fail"))
}

impl<S: Store> Layer for FaultyStore<S> {
    fn below(&self) -> &dyn Store {
        &self.inner
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        let fate = self.decide(Operation::Put);
        if let Fate::FailsBefore = fate {
            return Err(injected(Operation::Put, &key.to_string()));
        }
        self.take_space(key, bytes.len() as u64)?;
        if let Err(error) = self.inner.put(key, bytes) {
            self.give_space(bytes.len() as u64);
            return Err(error);
        }
        self.note_put(key);
        match fate {
            Fate::FailsAfter => Err(injected(Operation::Put, &key.to_string())),
            _ => Ok(()),
        }
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        self.decide_read(Operation::Get, &key.to_string())?;
        let mut bytes = self.inner.get(key, limit)?;
        let expected = bytes.len();
        if let Some(received) = self.short_body(expected) {
            bytes.truncate(received);
        }
        if bytes.len() < expected {
            return Err(truncated(key, expected as u64, bytes.len() as u64));
        }
        Ok(bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.decide_read(Operation::GetRange, &key.to_string())?;
        match self.short_body(buffer.len()) {
            None => self.inner.get_range(key, offset, buffer),
            Some(received) => {
                // What did arrive is in the buffer, as it would be after a lost connection.
                self.inner.get_range(key, offset, &mut buffer[..received])?;
                Err(truncated(key, buffer.len() as u64, received as u64))
            }
        }
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        self.decide_read(Operation::Size, &key.to_string())?;
        self.inner.size(key)
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(Operation::List, kind, visit)
    }

    /// It fails as `list` does, and what it shows is right unless `fresh_lags` says otherwise.
    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(Operation::ListFresh, kind, visit)
    }

    fn settle(&self, keys: &[ObjectKey]) -> Result<()> {
        self.decide_read(Operation::Settle, &format!("{} objects", keys.len()))?;
        self.inner.settle(keys)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        let fate = self.decide(Operation::Delete);
        if let Fate::FailsBefore = fate {
            return Err(injected(Operation::Delete, &key.to_string()));
        }
        let size = self.inner.size(key);
        self.inner.delete(key)?;
        if let Ok(size) = size {
            self.give_space(size);
            self.note_delete(key, size);
        }
        match fate {
            Fate::FailsAfter => Err(injected(Operation::Delete, &key.to_string())),
            _ => Ok(()),
        }
    }

    fn prepare(&self, keys: &[ObjectKey]) -> Result<()> {
        self.decide_read(Operation::Prepare, &format!("{} objects", keys.len()))?;
        self.inner.prepare(keys)
    }

    /// It fails as a question for the size does.
    fn has(&self, key: &ObjectKey) -> Result<bool> {
        self.decide_read(Operation::Size, &key.to_string())?;
        self.inner.has(key)
    }
}

#[cfg(test)]
mod tests {
    use super::{Faults, FaultyStore};
    use crate::error::ErrorKind;
    use crate::store::{Listed, MemoryStore, ObjectKey, ObjectKind, Store};
    use std::time::Duration;

    fn key(number: u64) -> ObjectKey {
        ObjectKey::new(ObjectKind::Config, number)
    }

    fn faulty(faults: Faults) -> FaultyStore<MemoryStore> {
        FaultyStore::new(MemoryStore::new(), faults)
    }

    fn names(store: &dyn Store) -> Vec<String> {
        let mut names = Vec::new();
        let mut visit = |entry: Listed| {
            names.push(entry.name);
            Ok(())
        };
        store.list(ObjectKind::Config, &mut visit).unwrap();
        names
    }

    #[test]
    fn without_faults_it_keeps_the_contract() {
        crate::store::conformance::check(&|| Box::new(faulty(Faults::default())));
    }

    #[test]
    fn a_seed_repeats_its_faults_and_rates_are_kept() {
        let run = |seed| {
            let store = faulty(Faults { seed, fail_put: 0.3, ..Faults::default() });
            (1..=1000).map(|n| store.put(&key(n), b"x").is_ok()).collect::<Vec<_>>()
        };
        let first = run(7);
        assert_eq!(first, run(7));
        assert_ne!(first, run(8));
        let good = first.iter().filter(|good| **good).count();
        assert!((600..800).contains(&good), "{good}");
    }

    #[test]
    fn every_operation_can_fail() {
        let store = faulty(Faults::default());
        store.put(&key(1), b"x").unwrap();
        store.set_faults(Faults {
            fail_put: 1.0,
            fail_get: 1.0,
            fail_get_range: 1.0,
            fail_size: 1.0,
            fail_list: 1.0,
            fail_delete: 1.0,
            fail_prepare: 1.0,
            delay: 1.0,
            longest_delay: Duration::from_micros(10),
            ..Faults::default()
        });
        assert_eq!(store.put(&key(2), b"x").unwrap_err().kind(), ErrorKind::Failed);
        store.get(&key(1), 9).unwrap_err();
        store.get_range(&key(1), 0, &mut [0]).unwrap_err();
        store.size(&key(1)).unwrap_err();
        store.list(ObjectKind::Config, &mut |_| Ok(())).unwrap_err();
        store.delete(&key(1)).unwrap_err();
        store.prepare(&[]).unwrap_err();
        assert_eq!(store.inner().raw_keys(), [key(1)]);
    }

    #[test]
    fn applied_but_reported_failed() {
        let store = faulty(Faults { applied_put: 1.0, applied_delete: 1.0, ..Faults::default() });
        assert_eq!(store.put(&key(1), b"x").unwrap_err().kind(), ErrorKind::Failed);
        assert_eq!(store.inner().raw_get(&key(1)).unwrap(), b"x");
        assert_eq!(store.put(&key(1), b"y").unwrap_err().kind(), ErrorKind::Exists);
        assert_eq!(store.delete(&key(1)).unwrap_err().kind(), ErrorKind::Failed);
        assert!(store.inner().raw_keys().is_empty());
    }

    #[test]
    fn short_bodies_are_damage() {
        let store = faulty(Faults { short_body: 1.0, ..Faults::default() });
        store.put(&key(1), b"abcdef").unwrap();
        store.put(&key(2), b"").unwrap();
        assert_eq!(store.get(&key(1), 9).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(store.get_range(&key(1), 1, &mut [0; 3]).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(store.get(&key(2), 9).unwrap(), b"");
    }

    #[test]
    fn listings_lag_behind() {
        let faults = Faults { list_misses_recent: 1.0, list_shows_deleted: 1.0, list_lag: 2, ..Faults::default() };
        let store = faulty(faults);
        for number in 1..=4 {
            store.put(&key(number), b"x").unwrap();
        }
        assert_eq!(names(&store), ["1", "2"]);
        store.delete(&key(1)).unwrap();
        assert_eq!(names(&store), ["2", "1"]);
        store.set_faults(Faults { list_misses: 1.0, ..Faults::default() });
        assert!(names(&store).is_empty());
    }

    #[test]
    fn after_a_crash_nothing_works() {
        for applies in [false, true] {
            let store = faulty(Faults { crash_at: Some(3), crash_applies: applies, ..Faults::default() });
            store.put(&key(1), b"x").unwrap();
            store.delete(&key(9)).unwrap();
            assert!(!store.has_crashed());
            store.put(&key(2), b"x").unwrap_err();
            store.put(&key(3), b"x").unwrap_err();
            store.delete(&key(1)).unwrap_err();
            store.get(&key(1), 9).unwrap_err();
            store.size(&key(1)).unwrap_err();
            store.list(ObjectKind::Config, &mut |_| panic!("nothing is listed")).unwrap_err();
            assert!(store.has_crashed());
            assert_eq!(store.mutations(), 3);
            let expected = if applies { vec![key(1), key(2)] } else { vec![key(1)] };
            assert_eq!(store.inner().raw_keys(), expected);
        }
    }

    #[test]
    fn full_until_something_is_deleted() {
        let store = faulty(Faults { full_after: Some(10), ..Faults::default() });
        store.put(&key(1), &[0; 6]).unwrap();
        assert_eq!(store.put(&key(2), &[0; 5]).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(store.put(&key(1), &[0; 1]).unwrap_err().kind(), ErrorKind::Exists);
        store.put(&key(3), &[0; 4]).unwrap();
        store.delete(&key(1)).unwrap();
        store.put(&key(2), &[0; 5]).unwrap();
    }
}
