//! The store as one actor sees it: through the gate. Not for: whose turn it is.

use super::{Gate, is_constant};
use crate::error::{Error, ErrorKind, Result};
use crate::explore::step::{Step, Variant};
use crate::store::{Listed, ObjectKey, ObjectKind, Properties, Store};
use std::sync::Arc;

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
        if is_constant(kind) {
            let store = self.gate.lock().store.clone();
            return store.list(kind, visit);
        }
        let listed = self.gate.pass(self.actor, Step::List(kind), |state, variant| {
            let mut listed = Vec::new();
            let hidden = state.world.hidden(self.actor, variant);
            state.store.list(kind, &mut |object| {
                if hidden.as_ref().is_none_or(|key| key.name != object.name) {
                    listed.push(object);
                }
                Ok(())
            })?;
            Ok(listed)
        })?;
        listed.into_iter().try_for_each(visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.change(key, Step::Delete(Arc::new(key.clone())), |store| store.delete(key))
    }

    fn properties(&self) -> Properties {
        Properties { location: "gate".into(), ..Properties::default() }
    }
}
