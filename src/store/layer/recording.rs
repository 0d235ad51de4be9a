//! Counts what is asked of a store, so that tests can assert costs instead of clocks. Not for: disturbing it.

use super::Layer;
use crate::error::Result;
use crate::store::{Listed, ObjectKey, ObjectKind, Operation, Store};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls of one operation on one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All calls, also those that failed.
    pub calls: u64,
    /// The calls that returned an error.
    pub errors: u64,
    /// Bytes of objects that went in or out with success; for listings, `prepare` and `settle`, the number of objects named.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.bytes += other.bytes;
    }
}

/// All calls so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<(Operation, ObjectKind), Count>);

impl Counts {
    /// The calls of `operation` on objects of `kind`.
    pub fn of(&self, operation: Operation, kind: ObjectKind) -> Count {
        self.0.get(&(operation, kind)).copied().unwrap_or_default()
    }

    /// The calls of `operation` on objects of all kinds.
    pub fn total(&self, operation: Operation) -> Count {
        let mut total = Count::default();
        self.0.iter().filter(|((counted, _), _)| *counted == operation).for_each(|(_, count)| total.add(*count));
        total
    }

    /// The number of calls of `operation` on objects of `kind`.
    pub fn calls(&self, operation: Operation, kind: ObjectKind) -> u64 {
        self.of(operation, kind).calls
    }

    /// The bytes that calls of `operation` moved for objects of `kind`.
    pub fn bytes(&self, operation: Operation, kind: ObjectKind) -> u64 {
        self.of(operation, kind).bytes
    }
}

/// One call, in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// Of which kind of objects.
    pub kind: ObjectKind,
    /// Of which object; empty for listings, `prepare` and `settle`.
    pub name: String,
    /// As in [`Count::bytes`].
    pub bytes: u64,
    /// Whether it returned `Ok`.
    pub succeeded: bool,
}

/// A store that counts, around a store that does.
#[derive(Debug)]
pub struct RecordingStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    log: Option<Vec<Call>>,
    /// The longest chain of calls that have ended.
    depth: u64,
}

impl<S: Store> RecordingStore<S> {
    /// Counts from now on.
    pub fn new(inner: S) -> Self {
        RecordingStore { inner, state: Mutex::default() }
    }

    /// Counts from now on and also keeps every call, in the order in which they end; the log grows without bound.
    pub fn with_log(inner: S) -> Self {
        RecordingStore { inner, state: Mutex::new(State { log: Some(Vec::new()), ..State::default() }) }
    }

    /// The store within.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// The calls so far; empty without a log.
    pub fn log(&self) -> Vec<Call> {
        self.lock().log.clone().unwrap_or_default()
    }

    /// The length of the longest chain of calls each of which began when the one before had ended: the round trips that a place
    /// far away would make one wait for. Calls count as beside each other only if they overlap in time, which takes a store that
    /// is not too near (see `DelayStore`).
    pub fn depth(&self) -> u64 {
        self.lock().depth
    }

    /// The place in its chain of a call that begins now.
    fn begin(&self) -> u64 {
        self.lock().depth + 1
    }

    /// Starts anew; returns what was counted until now.
    pub fn reset(&self) -> Counts {
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            log.clear();
        }
        state.depth = 0;
        std::mem::take(&mut state.counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, place: u64, operation: Operation, kind: ObjectKind, name: &str, bytes: u64, succeeded: bool) {
        let mut state = self.lock();
        state.depth = state.depth.max(place);
        let count = Count { calls: 1, errors: u64::from(!succeeded), bytes };
        state.counts.0.entry((operation, kind)).or_default().add(count);
        if let Some(log) = &mut state.log {
            log.push(Call { operation, kind, name: name.to_owned(), bytes, succeeded });
        }
    }

    fn record_kinds(&self, place: u64, operation: Operation, keys: &[ObjectKey], succeeded: bool) {
        for kind in ObjectKind::ALL {
            let named = keys.iter().filter(|key| key.kind == kind).count() as u64;
            if named > 0 {
                self.record(place, operation, kind, "", named, succeeded);
            }
        }
    }

    fn record_one<T>(&self, place: u64, operation: Operation, key: &ObjectKey, bytes: u64, result: &Result<T>) {
        let bytes = if result.is_ok() { bytes } else { 0 };
        self.record(place, operation, key.kind, &key.name, bytes, result.is_ok());
    }
}

impl<S: Store> Layer for RecordingStore<S> {
    fn below(&self) -> &dyn Store {
        &self.inner
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        let place = self.begin();
        let result = self.inner.put(key, bytes);
        self.record_one(place, Operation::Put, key, bytes.len() as u64, &result);
        result
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        let place = self.begin();
        let result = self.inner.get(key, limit);
        let length = result.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.record_one(place, Operation::Get, key, length, &result);
        result
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let place = self.begin();
        let result = self.inner.get_range(key, offset, buffer);
        self.record_one(place, Operation::GetRange, key, buffer.len() as u64, &result);
        result
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        let place = self.begin();
        let result = self.inner.size(key);
        self.record_one(place, Operation::Size, key, 0, &result);
        result
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        let mut listed = 0;
        let place = self.begin();
        let result = self.inner.list(kind, &mut |entry| {
            listed += 1;
            visit(entry)
        });
        self.record(place, Operation::List, kind, "", listed, result.is_ok());
        result
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        let mut listed = 0;
        let place = self.begin();
        let result = self.inner.list_fresh(kind, &mut |entry| {
            listed += 1;
            visit(entry)
        });
        self.record(place, Operation::ListFresh, kind, "", listed, result.is_ok());
        result
    }

    /// Counted once for each kind among the keys.
    fn settle(&self, keys: &[ObjectKey]) -> Result<()> {
        let place = self.begin();
        let result = self.inner.settle(keys);
        self.record_kinds(place, Operation::Settle, keys, result.is_ok());
        result
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        let place = self.begin();
        let result = self.inner.delete(key);
        self.record_one(place, Operation::Delete, key, 0, &result);
        result
    }

    /// Counted once for each kind among the keys.
    fn prepare(&self, keys: &[ObjectKey]) -> Result<()> {
        let place = self.begin();
        let result = self.inner.prepare(keys);
        self.record_kinds(place, Operation::Prepare, keys, result.is_ok());
        result
    }

    /// Counted as a question for the size.
    fn has(&self, key: &ObjectKey) -> Result<bool> {
        let place = self.begin();
        let result = self.inner.has(key);
        self.record_one(place, Operation::Size, key, 0, &result);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Counts, RecordingStore};
    use crate::store::{MemoryStore, ObjectKey, ObjectKind, Operation, Store};

    #[test]
    fn keeps_the_contract() {
        crate::store::conformance::check(&|| Box::new(RecordingStore::with_log(MemoryStore::new())));
    }

    #[test]
    fn counts_calls_errors_and_bytes() {
        let store = RecordingStore::with_log(MemoryStore::new());
        let key = ObjectKey::new(ObjectKind::Config, 1);
        let absent = ObjectKey::new(ObjectKind::Pin, "a".repeat(32));
        store.put(&key, b"12345").unwrap();
        store.put(&key, b"123").unwrap_err();
        store.get(&key, 9).unwrap();
        store.get(&key, 1).unwrap_err();
        store.get_range(&key, 1, &mut [0; 3]).unwrap();
        store.size(&absent).unwrap_err();
        store.list(ObjectKind::Config, &mut |_| Ok(())).unwrap();
        store.prepare(&[key.clone(), absent.clone(), key.clone()]).unwrap();
        store.delete(&absent).unwrap();

        let counts = store.counts();
        let count = |calls, errors, bytes| Count { calls, errors, bytes };
        assert_eq!(counts.of(Operation::Put, ObjectKind::Config), count(2, 1, 5));
        assert_eq!(counts.of(Operation::Get, ObjectKind::Config), count(2, 1, 5));
        assert_eq!(counts.of(Operation::GetRange, ObjectKind::Config), count(1, 0, 3));
        assert_eq!(counts.of(Operation::Size, ObjectKind::Pin), count(1, 1, 0));
        assert_eq!(counts.of(Operation::List, ObjectKind::Config), count(1, 0, 1));
        assert_eq!(counts.total(Operation::Prepare), count(2, 0, 3));
        assert_eq!(counts.calls(Operation::Delete, ObjectKind::Pin), 1);
        assert_eq!(counts.bytes(Operation::Put, ObjectKind::Data), 0);
        let log = store.log();
        assert_eq!(log.len(), 10);
        let second = &log[1];
        assert_eq!((second.operation, second.name.as_str(), second.succeeded), (Operation::Put, "1", false));
        assert_eq!(store.reset(), counts);
        assert_eq!(store.counts(), Counts::default());
        assert!(store.log().is_empty());
    }
}
