//! Takes away what stopped sessions left behind. Not for: packs that no index names, which a prune deletes as all that nobody needs.

use super::Prune;
use crate::error::Result;
use crate::id::ObjectName;
use crate::repository::index::StoredPacks;
use crate::repository::segments::OldSegments;

impl Prune<'_> {
    /// Takes away what stopped sessions left: pins of those that were revoked (with or without a pin they cannot commit), marks of
    /// stopped prunes whose packs are all gone, from the store and from the index, which say nothing any more, and temporary files.
    pub(super) fn clear_leavings(&mut self) -> Result<()> {
        let revoked = self.repository.revoked()?;
        for pin in self.repository.pins()?.iter().filter(|pin| revoked.contains(&pin.session)) {
            pin.keys.iter().try_for_each(|key| self.repository.store().delete(key))?;
        }
        self.clear_marks()?;
        for name in self.repository.damaged_packs()? {
            // A listing may lack what is stored.
            if self.repository.stored_pack(&name)?.is_none() {
                self.repository.forget_damaged(&name)?;
            }
        }
        // Whoever has not come to its end after so long counts as dead here, too.
        match self.repository.store().tidy(self.options.revoke_after) {
            Ok(removed) => self.report.temporary_files_removed = removed,
            Err(error) => self.progress.note(&format!("Temporary files of stopped writers stay: {}", error.chain())),
        }
        Ok(())
    }

    fn clear_marks(&mut self) -> Result<()> {
        let marks = self.repository.marks()?;
        if marks.is_empty() {
            return Ok(());
        }
        let stored = StoredPacks::list(self.repository.store())?;
        let old = OldSegments::read(self.repository, self.stop)?;
        for mark in marks {
            let is_stored =
                |name: &ObjectName| [false, true].iter().any(|is_tree| stored.size(*is_tree, name).is_some());
            let is_over = |name: &ObjectName| !is_stored(name) && !old.names(name);
            let is_old = !mark.mark.packs.is_empty() || self.age(mark.stored) >= self.options.revoke_after;
            if is_old && mark.mark.packs.iter().all(is_over) {
                self.repository.store().delete(&mark.key)?;
                self.report.marks_cleared += 1;
            }
        }
        Ok(())
    }
}
