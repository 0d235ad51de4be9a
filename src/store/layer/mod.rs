//! Stores around other stores, which change or watch what goes through. Not for: places that keep objects (see `place`).

pub(super) mod delay;
pub(super) mod faulty;
#[cfg(test)]
pub(super) mod hooked;
pub(super) mod recording;

use super::{Listed, ObjectKey, ObjectKind, Properties, Store};
use crate::error::Result;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// All methods of [`Store`], passed on. A new one gets its line here, and no layer can forget it.
macro_rules! passed_on {
    ($self:ident, $trait:ident, $to:expr) => {
        /// See [`Store::put`].
        fn put(&$self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
            $trait::put($to, key, bytes)
        }
        /// See [`Store::get`].
        fn get(&$self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
            $trait::get($to, key, limit)
        }
        /// See [`Store::get_range`].
        fn get_range(&$self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
            $trait::get_range($to, key, offset, buffer)
        }
        /// See [`Store::size`].
        fn size(&$self, key: &ObjectKey) -> Result<u64> {
            $trait::size($to, key)
        }
        /// See [`Store::has`].
        fn has(&$self, key: &ObjectKey) -> Result<bool> {
            $trait::has($to, key)
        }
        /// See [`Store::list`].
        fn list(&$self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
            $trait::list($to, kind, visit)
        }
        /// See [`Store::list_fresh`].
        fn list_fresh(&$self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
            $trait::list_fresh($to, kind, visit)
        }
        /// See [`Store::settle`].
        fn settle(&$self, keys: &[ObjectKey]) -> Result<()> {
            $trait::settle($to, keys)
        }
        /// See [`Store::delete`].
        fn delete(&$self, key: &ObjectKey) -> Result<()> {
            $trait::delete($to, key)
        }
        /// See [`Store::tidy`].
        fn tidy(&$self, older_than: Duration) -> Result<u64> {
            $trait::tidy($to, older_than)
        }
        /// See [`Store::keep_room`].
        fn keep_room(&$self) {
            $trait::keep_room($to);
        }
        /// See [`Store::prepare`].
        fn prepare(&$self, keys: &[ObjectKey]) -> Result<()> {
            $trait::prepare($to, keys)
        }
        /// See [`Store::properties`].
        fn properties(&$self) -> Properties {
            $trait::properties($to)
        }
    };
}

/// A store around another one: it implements the methods that it changes, and passes on all others.
pub trait Layer: Send + Sync + Debug {
    /// The store that this one stands around.
    fn below(&self) -> &dyn Store;

    passed_on!(self, Store, self.below());
}

impl<L: Layer> Store for L {
    passed_on!(self, Layer, self);
}

/// Several owners of one store.
impl<S: Store + ?Sized> Store for Arc<S> {
    passed_on!(self, Store, &**self);
}
