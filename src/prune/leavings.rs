//! Takes away what stopped sessions left behind. Not for: packs that no index names, which a prune deletes as all that nobody needs.

use super::Prune;
use crate::error::Result;
use crate::id::ObjectName;
use crate::repository::mistake::{self, Mistake};
use crate::repository::segments::OldSegments;
use crate::store::{ObjectKey, ObjectKind};

impl Prune<'_> {
    /// Takes away what stopped sessions left: pins of those that were revoked (with or without a pin they cannot commit), marks of
    /// stopped prunes of which nothing is left to say, and temporary files. Not tombs that were taken back and came again: a new one may
    /// take their place at any moment.
    pub(super) fn clear_leavings(&mut self) -> Result<()> {
        let revoked = self.repository.revoked()?;
        for pin in self.repository.pins()?.iter().filter(|pin| revoked.contains(&pin.session)) {
            pin.keys.iter().try_for_each(|key| self.repository.store().delete(key))?;
        }
        self.clear_marks()?;
        self.clear_damage()?;
        // Whoever has not come to its end after so long counts as dead here, too.
        match self.repository.store().tidy(self.options.revoke_after) {
            Ok(removed) => self.report.temporary_files_removed = removed,
            Err(error) => self.progress.note(&format!("Temporary files of stopped writers stay: {}", error.chain())),
        }
        Ok(())
    }

    /// What is said of packs that are no more. Those that the index names need not be asked for.
    fn clear_damage(&self) -> Result<()> {
        let mut damaged = self.repository.damaged_packs()?;
        if !damaged.is_empty() {
            self.repository.index()?.for_each_pack(&mut |pack| {
                damaged.remove(&pack.name);
                Ok(())
            })?;
        }
        for name in damaged {
            // A listing may lack what is stored.
            if self.repository.stored_pack(&name)?.is_none() {
                self.repository.forget_damaged(&name)?;
            }
        }
        Ok(())
    }

    /// A mark says nothing any more once all its packs are gone, from the store and from the index, and all its snapshots. While a
    /// snapshot is there its prune may only be slow, and delete it yet: somebody who undeletes it must see the mark. No listing tells
    /// that something is gone: each is asked for by its name.
    fn clear_marks(&mut self) -> Result<()> {
        let marks = self.repository.marks()?;
        if marks.is_empty() {
            return Ok(());
        }
        let old = OldSegments::read(self.repository, self.stop)?;
        for mark in marks {
            let is_old = !mark.mark.packs.is_empty() || self.age(mark.stored) >= self.options.revoke_after;
            if is_old && self.are_over(&old, &mark.mark.packs)? && self.are_gone(&mark.mark.snapshots)? {
                self.repository.store().delete(&mark.key)?;
                self.report.marks_cleared += 1;
            }
        }
        Ok(())
    }

    fn are_gone(&self, snapshots: &[ObjectName]) -> Result<bool> {
        if mistake::made(Mistake::MarksOfPacksAlone) {
            return Ok(true);
        }
        for name in snapshots {
            self.stop.check()?;
            if self.repository.store().has(&ObjectKey::new(ObjectKind::Snapshot, name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether these packs are gone from the store and from the index.
    fn are_over(&self, old: &OldSegments, packs: &[ObjectName]) -> Result<bool> {
        for name in packs {
            self.stop.check()?;
            if old.names(name) || self.repository.stored_pack(name)?.is_some() {
                return Ok(false);
            }
        }
        // A segment that cannot be read may name any of them.
        Ok(!old.has_damaged())
    }
}
