//! The store as one actor sees it: through the gate. Not for: whose turn it is.

use super::{Gate, is_constant};
use crate::error::{Error, ErrorKind, Result};
use crate::explore::step::{Step, Variant};
use crate::store::{Listed, ObjectKey, ObjectKind, Properties, Store};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One actor's handle of the store.
#[derive(Debug)]
pub(super) struct GateStore {
    pub(super) gate: Arc<Gate>,
    pub(super) actor: usize,
}

/// What a lost acknowledgement looks like.
fn lost(key: &ObjectKey) -> Error {
    Error::new(ErrorKind::Failed, format!("the connection broke while \"{key}\" was changed"))
}

impl GateStore {
    /// Changes one object, as the schedule lets it come out.
    fn change(&self, key: &ObjectKey, step: Step, work: impl FnOnce(&dyn Store) -> Result<()>) -> Result<()> {
        self.gate.pass(self.actor, step, |state, variant| {
            if variant == Variant::Refused {
                return Err(lost(key));
            }
            let changed = work(&state.store);
            if variant == Variant::Lost { Err(lost(key)) } else { changed }
        })
    }
}

impl GateStore {
    fn list_as(&self, kind: ObjectKind, is_fresh: bool, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        if is_constant(kind) {
            let store = self.gate.lock().store.clone();
            return store.list(kind, visit);
        }
        let listed = self.gate.pass(self.actor, Step::List { kind, is_fresh }, |state, variant| {
            let mut listed = Vec::new();
            let hidden = state.world.hidden(self.actor, variant);
            state.store.list(kind, &mut |object| {
                if hidden.as_ref().is_none_or(|key| key.name != object.name) {
                    listed.push(object);
                }
                Ok(())
            })?;
            if let Some(key) = state.world.lingering(self.actor, variant) {
                let size = self.gate.shared().knowledge.size(&key);
                listed.push(Listed { name: key.name.clone(), size, stored: SystemTime::UNIX_EPOCH, mark: 0 });
            }
            Ok(listed)
        })?;
        listed.into_iter().try_for_each(visit)
    }
}

impl Store for GateStore {
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        let step = Step::Put(Arc::new(key.clone()), self.gate.learn(key, bytes));
        self.change(key, step, |store| store.put(key, bytes))
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        self.gate.read(self.actor, key, |store| store.get(key, limit))
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.gate.read(self.actor, key, |store| store.get_range(key, offset, buffer))
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        self.gate.read(self.actor, key, |store| store.size(key))
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(kind, false, visit)
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(kind, true, visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.change(key, Step::Delete(Arc::new(key.clone())), |store| store.delete(key))
    }

    fn properties(&self) -> Properties {
        let lags = self.gate.lock().world.faults().lags;
        // How long that is does not matter: nobody's clock is asked.
        let listing_lag = if lags { Duration::from_secs(1) } else { Duration::ZERO };
        Properties { location: "gate".into(), listing_lag, ..Properties::default() }
    }
}
