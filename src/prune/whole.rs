//! Whether snapshots have all that they need where no prune is about to delete it. Not for: reading content, or finding out what is
//! damaged (see `check`).

use super::live::{Live, Rank, Walk};
use crate::error::{ErrorKind, Result};
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::index::StoredPacks;
use crate::repository::snapshots::Named;
use crate::repository::table::PackInfo;
use std::collections::HashSet;

/// An error of kind `Damaged` unless every chunk that the snapshot needs is in a pack that the index names, that is stored with the
/// size it must have, that nobody has condemned, and that is not known to be damaged. Reads each of its pages once, and no content.
pub fn whole(repository: &Repository, named: &Named, progress: &dyn Progress, stop: &Stop) -> Result<()> {
    complete(repository, std::slice::from_ref(named), &HashSet::new(), progress, stop)
}

/// Whether that is so for all snapshots that are not forgotten, if the packs in `without` are no more.
pub fn all_whole(
    repository: &Repository,
    without: &HashSet<ObjectName>,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<bool> {
    progress.stage("finding what snapshots need");
    let snapshots = repository.snapshots()?;
    if snapshots.damaged.iter().any(|(name, _)| !snapshots.tombs.contains_key(name)) {
        return Ok(false);
    }
    match complete(repository, &snapshots.live, without, progress, stop) {
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(false),
        complete => complete.map(|()| true),
    }
}

fn complete(
    repository: &Repository,
    snapshots: &[Named],
    without: &HashSet<ObjectName>,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<()> {
    let marked = repository.marked_packs()?;
    repository.reload_index(progress)?;
    let index = repository.index()?;
    let mut stored = StoredPacks::list(repository.store())?;
    stored.confirm(&index, repository.store())?;
    let damaged = repository.damaged_packs()?;
    let is_out = |name: &ObjectName| marked.contains(name) || damaged.contains(name) || without.contains(name);
    let is_bad = |pack: &PackInfo| !stored.has(pack) || is_out(&pack.name);
    let rank = |pack: &PackInfo| if is_bad(pack) { Rank::Absent } else { Rank::Good };
    let nobody = HashSet::new();
    let walk = Walk { repository, progress, stop, tolerated: &nobody, unsure: &nobody };
    Live::complete(&walk, index, &rank, snapshots)
}
