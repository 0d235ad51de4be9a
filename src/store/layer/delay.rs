//! A store that is far away: each call takes a round trip, and bytes share a line. Not for: failing (see `faulty`).

use super::Layer;
use crate::error::Result;
use crate::store::{Listed, ObjectKey, ObjectKind, Store};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distance {
    /// What each call takes at least. Calls at the same time do not wait for one another.
    pub round_trip: Duration,
    /// Bytes a second that all calls share in each direction; `None` is no limit.
    pub bytes_per_second: Option<u64>,
    /// A listing takes a round trip for each so many objects, as with services that list in pages.
    pub listing_page: u64,
}

/// A store at a distance, around one that is near.
#[derive(Debug)]
pub struct DelayStore<S> {
    near: S,
    distance: Distance,
    sent: Line,
    received: Line,
}

/// One direction of the line: until when the bytes are under way that calls have handed over so far.
#[derive(Debug, Default)]
struct Line(Mutex<Option<Instant>>);

impl Line {
    /// Returns when the last of so many bytes arrive, behind those of earlier calls.
    fn take(&self, bytes: u64, per_second: Option<u64>) -> Instant {
        let now = Instant::now();
        let Some(per_second) = per_second else { return now };
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let began = free.map_or(now, |free| free.max(now));
        let ended = began + Duration::from_secs_f64(bytes as f64 / per_second.max(1) as f64);
        *free = Some(ended);
        ended
    }
}

impl<S: Store> DelayStore<S> {
    /// Moves `near` away.
    pub fn new(near: S, distance: Distance) -> DelayStore<S> {
        DelayStore { near, distance, sent: Line::default(), received: Line::default() }
    }

    /// The store within, which is near.
    pub fn near(&self) -> &S {
        &self.near
    }

    fn trip(&self) {
        std::thread::sleep(self.distance.round_trip);
    }

    fn carry(&self, line: &Line, bytes: usize) {
        let arrives = line.take(bytes as u64, self.distance.bytes_per_second);
        std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
    }

    fn list_as(&self, is_fresh: bool, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.trip();
        let mut shown = 0u64;
        let mut visit = |entry| {
            if shown > 0 && shown.is_multiple_of(self.distance.listing_page.max(1)) {
                self.trip();
            }
            shown += 1;
            visit(entry)
        };
        if is_fresh { self.near.list_fresh(kind, &mut visit) } else { self.near.list(kind, &mut visit) }
    }
}

impl<S: Store> Layer for DelayStore<S> {
    fn below(&self) -> &dyn Store {
        &self.near
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        self.carry(&self.sent, bytes.len());
        self.trip();
        self.near.put(key, bytes)
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        self.trip();
        let bytes = self.near.get(key, limit)?;
        self.carry(&self.received, bytes.len());
        Ok(bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.trip();
        self.near.get_range(key, offset, buffer)?;
        self.carry(&self.received, buffer.len());
        Ok(())
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        self.trip();
        self.near.size(key)
    }

    fn has(&self, key: &ObjectKey) -> Result<bool> {
        self.trip();
        self.near.has(key)
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(false, kind, visit)
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(true, kind, visit)
    }

    fn settle(&self, keys: &[ObjectKey]) -> Result<()> {
        self.trip();
        self.near.settle(keys)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.trip();
        self.near.delete(key)
    }

    fn tidy(&self, older_than: Duration) -> Result<u64> {
        self.trip();
        self.near.tidy(older_than)
    }

    fn prepare(&self, keys: &[ObjectKey]) -> Result<()> {
        self.trip();
        self.near.prepare(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::{DelayStore, Distance, Line};
    use crate::store::{MemoryStore, ObjectKind, RecordingStore, Store, conformance};
    use std::time::{Duration, Instant};

    const NEAR: Distance =
        Distance { round_trip: Duration::from_micros(50), bytes_per_second: Some(1 << 30), listing_page: 7 };

    #[test]
    fn keeps_the_contract() {
        conformance::check(&|| Box::new(DelayStore::new(MemoryStore::new(), NEAR)));
    }

    /// Whether calls depend on one another shows in the length of the longest chain, which is that of round trips.
    #[test]
    fn chains_of_calls_are_told_from_calls_beside_each_other() {
        let far = Distance { round_trip: Duration::from_millis(100), bytes_per_second: None, listing_page: 1000 };
        let store = RecordingStore::new(DelayStore::new(MemoryStore::new(), far));
        let key = |number: u64| conformance::key(ObjectKind::Data, number);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (store, key) = (&store, &key);
                scope.spawn(move || store.put(&key(number), b"x").unwrap());
            }
        });
        assert_eq!((store.counts().total(crate::store::Operation::Put).calls, store.depth()), (8, 1));
        for number in 0..3 {
            store.get(&key(number), 1).unwrap();
        }
        assert_eq!(store.depth(), 4);
        store.reset();
        assert_eq!(store.depth(), 0);
    }

    #[test]
    fn bytes_of_all_calls_share_the_line() {
        let line = Line::default();
        let begun = Instant::now();
        let ends = [1000, 500, 0].map(|bytes| line.take(bytes, Some(1000)) - begun);
        assert!(ends[0] >= Duration::from_secs(1) && ends[1] >= Duration::from_millis(1500) && ends[2] >= ends[1]);
        assert!(Line::default().take(u64::MAX, None) - begun < Duration::from_secs(60));
    }
}
