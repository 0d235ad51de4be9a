//! Objects in memory, for tests: also of damage, hence the raw access. Not for: keeping anything.

use crate::error::Result;
use crate::store::{Listed, ObjectKey, ObjectKind, Properties, Store};
use crate::store::{check_key, check_limit, check_range, exists, missing, reserve};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

const LOCATION: &str = "memory";

/// A store in memory. Clones are handles of the same store.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Objects>>);

type Objects = BTreeMap<ObjectKey, Object>;

struct Object {
    bytes: Vec<u8>,
    stored: SystemTime,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of an object, past the contract.
    pub fn raw_get(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        self.lock().get(key).map(|object| object.bytes.clone())
    }

    /// Writes or overwrites an object; one that is there keeps its time.
    pub fn raw_set(&self, key: &ObjectKey, bytes: impl Into<Vec<u8>>) {
        let mut objects = self.lock();
        let stored = objects.get(key).map_or_else(SystemTime::now, |object| object.stored);
        objects.insert(key.clone(), Object { bytes: bytes.into(), stored });
    }

    /// Says that an object was stored at another time; false if there is none.
    pub fn raw_set_time(&self, key: &ObjectKey, stored: SystemTime) -> bool {
        self.lock().get_mut(key).map(|object| object.stored = stored).is_some()
    }

    /// Removes an object and returns its bytes, if there is one.
    pub fn raw_remove(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        self.lock().remove(key).map(|object| object.bytes)
    }

    /// The keys of all objects, in order of kind and name.
    pub fn raw_keys(&self) -> Vec<ObjectKey> {
        self.lock().keys().cloned().collect()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} objects)", self.lock().len())
    }
}

impl Store for MemoryStore {
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        check_key(key)?;
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Err(exists(key, LOCATION));
        }
        objects.insert(key.clone(), Object { bytes: bytes.to_vec(), stored: SystemTime::now() });
        Ok(())
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        check_key(key)?;
        let objects = self.lock();
        let object = objects.get(key).ok_or_else(|| missing(key, LOCATION))?;
        check_limit(key, object.bytes.len() as u64, limit)?;
        let mut bytes = reserve(key, object.bytes.len() as u64)?;
        bytes.extend_from_slice(&object.bytes);
        Ok(bytes)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_key(key)?;
        let objects = self.lock();
        let object = objects.get(key).ok_or_else(|| missing(key, LOCATION))?;
        check_range(key, object.bytes.len() as u64, offset, buffer.len())?;
        // Within the object, so it fits an index.
        let start = offset as usize;
        buffer.copy_from_slice(&object.bytes[start..start + buffer.len()]);
        Ok(())
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        check_key(key)?;
        self.lock().get(key).map(|object| object.bytes.len() as u64).ok_or_else(|| missing(key, LOCATION))
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        // Copied, because `visit` may call this store.
        let listed: Vec<Listed> = self
            .lock()
            .range(ObjectKey::new(kind, "")..)
            .take_while(|(key, _)| key.kind == kind)
            .filter(|(key, _)| kind.accepts(&key.name))
            .map(|(key, object)| Listed {
                name: key.name.clone(),
                size: object.bytes.len() as u64,
                stored: object.stored,
                mark: 0,
            })
            .collect();
        listed.into_iter().try_for_each(visit)
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list(kind, visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        check_key(key)?;
        self.lock().remove(key);
        Ok(())
    }

    fn properties(&self) -> Properties {
        // Clones of a handle are one place, and copies of its objects are another.
        let place = *blake3::hash(&(Arc::as_ptr(&self.0) as usize).to_le_bytes()).as_bytes();
        Properties { location: LOCATION.into(), place, ..Properties::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn keeps_the_contract() {
        crate::store::conformance::check(&|| Box::new(MemoryStore::new()));
    }

    #[test]
    fn clones_share_and_raw_access_goes_past_the_contract() {
        let store = MemoryStore::new();
        let other = store.clone();
        let key = ObjectKey::new(ObjectKind::Config, 1);
        store.put(&key, b"one").unwrap();
        assert_eq!(other.raw_get(&key).unwrap(), b"one");
        let time = UNIX_EPOCH + Duration::from_secs(5);
        assert!(other.raw_set_time(&key, time));
        other.raw_set(&key, *b"other");
        assert_eq!(store.get(&key, 10).unwrap(), b"other");
        other.raw_set(&ObjectKey::new(ObjectKind::Config, "foreign"), *b"");
        let mut listed = Vec::new();
        let mut visit = |entry| {
            listed.push(entry);
            Ok(())
        };
        store.list(ObjectKind::Config, &mut visit).unwrap();
        assert_eq!(listed, [Listed { name: "1".into(), size: 5, stored: time, mark: 0 }]);
        assert_eq!(other.raw_keys().len(), 2);
        assert_eq!(other.raw_remove(&key).unwrap(), b"other");
        assert!(!other.raw_set_time(&key, time));
        assert_eq!(store.get(&key, 10).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
