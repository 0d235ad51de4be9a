//! A few open files of a local store, so that many ranged reads of one object open it once. Not for: writing.

use crate::store::ObjectKey;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many files stay open at most. Few enough to search one by one.
const MOST: usize = 64;

/// The files read last.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The file used last is at the end.
    open: Vec<(ObjectKey, Arc<File>)>,
    /// How often something was forgotten.
    forgotten: u64,
}

/// A moment, taken before a file is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

impl Handles {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file of `key`, if there is one.
    pub(super) fn find(&self, key: &ObjectKey) -> Option<Arc<File>> {
        let mut state = self.lock();
        let at = state.open.iter().rposition(|(open, _)| open == key)?;
        let entry = state.open.remove(at);
        let file = Arc::clone(&entry.1);
        state.open.push(entry);
        Some(file)
    }

    /// To be taken before opening a file that shall be kept.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.lock().forgotten)
    }

    /// Keeps `file`, opened after `opened`, unless something was forgotten since: it might be this very object, deleted
    /// between the opening and now, which must not come back to life.
    pub(super) fn keep(&self, key: &ObjectKey, file: &Arc<File>, opened: Moment) {
        let mut state = self.lock();
        if state.forgotten != opened.0 || state.open.iter().any(|(open, _)| open == key) {
            return;
        }
        if state.open.len() == MOST {
            state.open.remove(0);
        }
        state.open.push((key.clone(), Arc::clone(file)));
    }

    /// Closes the file of `key` once nobody reads it any more.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let mut state = self.lock();
        state.forgotten += 1;
        state.open.retain(|(open, _)| open != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ObjectKind;

    fn key(number: usize) -> ObjectKey {
        ObjectKey::new(ObjectKind::Config, number)
    }

    #[test]
    fn the_least_recently_used_file_goes_first() {
        let handles = Handles::default();
        let file = Arc::new(tempfile::tempfile().unwrap());
        for number in 1..=MOST {
            handles.keep(&key(number), &file, handles.moment());
        }
        assert!(handles.find(&key(1)).is_some());
        handles.keep(&key(MOST + 1), &file, handles.moment());
        assert!(handles.find(&key(1)).is_some());
        assert!(handles.find(&key(2)).is_none());
        assert!(handles.find(&key(MOST + 1)).is_some());
        assert_eq!(Arc::strong_count(&file), MOST + 1);
    }

    #[test]
    fn a_file_opened_before_a_deletion_is_not_kept() {
        let handles = Handles::default();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let opened = handles.moment();
        handles.forget(&key(1));
        handles.keep(&key(1), &file, opened);
        assert!(handles.find(&key(1)).is_none());
        handles.keep(&key(1), &file, handles.moment());
        assert!(handles.find(&key(1)).is_some());
        handles.forget(&key(1));
        assert!(handles.find(&key(1)).is_none());
    }
}
