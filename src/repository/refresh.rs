//! Reading beside a prune: when something is not where the index says, the index is loaded again if the store has a newer
//! one, and the read is repeated. Every reader comes through here. Not for: which copy of a chunk is read (see `read`).
//!
//! A prune publishes the index segments that name the new packs before it deletes the old ones, so a pack that is gone
//! and segments that have not changed mean damage.

use super::Repository;
use super::as_read::AsRead;
use super::index::{Index, Listing, segment_listing};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::store::{Listed, ObjectKind};
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// How often a read is repeated: each time another prune may have moved what it needs.
pub const MAX_REPEATS: usize = 16;

/// What a read did not find as the index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// A pack that is gone, or a block of it that cannot be opened.
    Pack(ObjectName),
    /// The index does not say where it is.
    Row,
}

/// A read that failed with one index.
#[derive(Debug)]
pub struct Miss {
    /// Why.
    pub error: Error,
    /// What a newer index may help with; none if it cannot.
    pub lack: Option<Lack>,
}

impl From<Error> for Miss {
    fn from(error: Error) -> Miss {
        let lack = is_local(&error).then_some(Lack::Row);
        Miss { error, lack }
    }
}

/// Whether an error is about the bytes at one place, of which there may be others elsewhere.
pub(super) fn is_local(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged)
}

impl Repository {
    /// Calls `read` with the index, and again with a newer one for as long as something is missing or damaged and the
    /// store has a newer one.
    pub fn with_index<T>(&self, mut read: impl FnMut(&Arc<Index>) -> std::result::Result<T, Miss>) -> Result<T> {
        let mut index = self.index()?;
        for _ in 0..MAX_REPEATS {
            let miss = match read(&index) {
                Ok(value) => return Ok(value),
                Err(miss) => miss,
            };
            let newer = match miss.lack {
                Some(lack) => self.newer_index(&index, lack)?,
                None => None,
            };
            match newer {
                Some(newer) => index = newer,
                None => return Err(miss.error),
            }
        }
        read(&index).map_err(|miss| miss.error)
    }

    /// The index as it is in the store, if it is newer than `seen`, with which something was lacking.
    pub fn newer_index(&self, seen: &Arc<Index>, lack: Lack) -> Result<Option<Arc<Index>>> {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(loaded) = loaded.filter(|loaded| !Arc::ptr_eq(loaded, seen)) {
            return Ok(Some(loaded));
        }
        if seen.lacks(lack) {
            return Ok(None);
        }
        // Something is about to be called missing or damaged, so it must not be this machine's cache that hides the newer index.
        let list = |visit: &mut dyn FnMut(Listed) -> Result<()>| self.list_latest(ObjectKind::Index, visit);
        if segment_listing(&list)? == seen.listing {
            seen.note_lack(lack);
            return Ok(None);
        }
        self.load_listed(&list, &crate::progress::Silent).map(Some)
    }

    /// Loads the index as it is in the store; the caller holds `loading`.
    pub(super) fn load_index(&self, progress: &dyn crate::progress::Progress) -> Result<Arc<Index>> {
        let again = Cell::new(false);
        // Segments that a listing names and that are gone may only be those of an old listing.
        let list = |visit: &mut dyn FnMut(Listed) -> Result<()>| {
            if again.replace(true) {
                self.list_latest(ObjectKind::Index, visit)
            } else {
                self.list(ObjectKind::Index, visit)
            }
        };
        self.load_listed(&list, progress)
    }

    /// The index as it is in the store now, for a reader that is about to say that something is missing.
    pub(crate) fn latest_index(&self, progress: &dyn crate::progress::Progress) -> Result<Arc<Index>> {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_listed(&|visit| self.list_latest(ObjectKind::Index, visit), progress)
    }

    fn load_listed(&self, list: &Listing<'_>, progress: &dyn crate::progress::Progress) -> Result<Arc<Index>> {
        let mut as_read = AsRead::open(self.cache.segments(), self.acts.load(Ordering::Acquire));
        let folder = self.cache.index();
        let index = Index::load(&self.keyring, self.store.as_ref(), list, (&folder, &mut as_read), progress)?;
        let index = Arc::new(index);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(index.clone());
        Ok(index)
    }
}
