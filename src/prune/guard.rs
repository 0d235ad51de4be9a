//! What keeps a prune from acting on listings that are old without saying so: its own marks must be listed, and what came shortly
//! before them stays. Not for: the waits by which a place that lags is used rightly (see `pins::outwait`).

use super::{Prune, Victims, pins};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::coordination::{StoredMark, Transient};
use crate::repository::index::StoredPacks;
use crate::repository::mistake::{self, Mistake};
use std::time::{Duration, SystemTime};

/// Where other machines reach the store past this one's caches, packs that were stored so shortly before a prune stay.
const YOUNG: Duration = Duration::from_secs(120);

impl Prune<'_> {
    /// When this prune put its marks, by the store's clock. They must be listed: a listing that lacks them is old, or hides things.
    pub(super) fn marked_at(&self, listed: &[StoredMark], own: &[Transient<'_>]) -> Result<SystemTime> {
        let mut latest = SystemTime::UNIX_EPOCH;
        for key in own.iter().map(Transient::key) {
            if let Some(mark) = listed.iter().find(|mark| mark.key == *key) {
                latest = latest.max(mark.stored);
            } else if self.repository.store().has(key)? {
                // (If it is gone, so are its packs, from the store and from the index, and another prune has cleared it away.)
                let message = "The store does not list what was put a while ago, so nothing was deleted";
                return Err(Error::new(ErrorKind::Brake, message).with_hint(
                    "On a network file system, mount it with shorter cache times (MEDIA ASSUMPTIONS in firn-repository(7)).",
                ));
            }
        }
        Ok(latest)
    }

    /// A second guard where listings pass caches: what came shortly before the marks stays for another time, whatever was listed.
    /// Both times are the store's, so no other clock matters.
    pub(super) fn spare_young(&mut self, stored: &StoredPacks, marked: SystemTime, victims: &mut Victims) {
        let properties = self.repository.store().properties();
        if !properties.is_shared || mistake::made(Mistake::NoAgeGuard) {
            return;
        }
        let bound = marked.checked_sub(YOUNG + 4 * properties.listing_lag).unwrap_or(SystemTime::UNIX_EPOCH);
        victims.retain(|name, victim| {
            let is_young = stored.is_younger(victim.is_tree, name, bound);
            if is_young {
                self.report.young.add(victim.size);
            }
            !is_young
        });
    }

    /// The marks go, once everybody can see that the packs are no longer in the index. After a failure they stay where that takes
    /// time: the next prune deletes the packs, and then the marks.
    pub(super) fn take_away(&self, marks: Vec<Transient<'_>>, deleted: Result<()>) -> Result<()> {
        let seen = deleted.and_then(|()| pins::outwait(self.repository, self.patience, 1));
        if seen.is_err() && !self.repository.listing_lag().is_zero() {
            marks.into_iter().for_each(Transient::leave);
        }
        seen
    }
}
