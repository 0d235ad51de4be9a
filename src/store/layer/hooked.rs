//! A store in memory whose calls a test watches, refuses or falsifies. Not for: faults at random (see `faulty`), or counting calls
//! (see `recording`).

use super::Layer;
use crate::error::Result;
use crate::store::{Listed, MemoryStore, ObjectKey, ObjectKind, Operation, Properties, Store};

type Before = Box<dyn Fn(Operation, &ObjectKey) -> Result<()> + Send + Sync>;
type Shown = Box<dyn Fn(Operation, ObjectKind, Vec<Listed>) -> Vec<Listed> + Send + Sync>;
type Said = Box<dyn Fn(Properties) -> Properties + Send + Sync>;

/// See the module.
pub(crate) struct HookedStore {
    inner: MemoryStore,
    before: Before,
    shown: Shown,
    said: Said,
}

impl HookedStore {
    /// With this store below, and no hook.
    pub(crate) fn new(inner: &MemoryStore) -> HookedStore {
        HookedStore {
            inner: inner.clone(),
            before: Box::new(|_, _| Ok(())),
            shown: Box::new(|_, _, listed| listed),
            said: Box::new(|properties| properties),
        }
    }

    /// Called before each call that is about one object; its error is that of the call, which then does nothing.
    pub(crate) fn before(
        mut self,
        hook: impl Fn(Operation, &ObjectKey) -> Result<()> + Send + Sync + 'static,
    ) -> HookedStore {
        self.before = Box::new(hook);
        self
    }

    /// Called with each listing; returns what it shows.
    pub(crate) fn shown(
        mut self,
        hook: impl Fn(Operation, ObjectKind, Vec<Listed>) -> Vec<Listed> + Send + Sync + 'static,
    ) -> HookedStore {
        self.shown = Box::new(hook);
        self
    }

    /// Changes what the store says about itself.
    pub(crate) fn said(mut self, hook: impl Fn(Properties) -> Properties + Send + Sync + 'static) -> HookedStore {
        self.said = Box::new(hook);
        self
    }

    fn list_as(
        &self,
        operation: Operation,
        kind: ObjectKind,
        visit: &mut dyn FnMut(Listed) -> Result<()>,
    ) -> Result<()> {
        let mut listed = Vec::new();
        self.inner.list(kind, &mut |object| {
            listed.push(object);
            Ok(())
        })?;
        (self.shown)(operation, kind, listed).into_iter().try_for_each(visit)
    }
}

impl std::fmt::Debug for HookedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookedStore")
    }
}

impl Layer for HookedStore {
    fn below(&self) -> &dyn Store {
        &self.inner
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        (self.before)(Operation::Put, key)?;
        self.inner.put(key, bytes)
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        (self.before)(Operation::Get, key)?;
        self.inner.get(key, limit)
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (self.before)(Operation::GetRange, key)?;
        self.inner.get_range(key, offset, buffer)
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        (self.before)(Operation::Size, key)?;
        self.inner.size(key)
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(Operation::List, kind, visit)
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(Operation::ListFresh, kind, visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        (self.before)(Operation::Delete, key)?;
        self.inner.delete(key)
    }

    fn properties(&self) -> Properties {
        (self.said)(self.inner.properties())
    }

    fn has(&self, key: &ObjectKey) -> Result<bool> {
        (self.before)(Operation::Size, key)?;
        self.inner.has(key)
    }
}
