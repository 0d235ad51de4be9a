//! Whether one snapshot has all that it needs where no prune is about to delete it. Not for: reading content, or finding out what is
//! damaged (see `check`).

use super::live::{Live, Rank, Walk};
use crate::error::Result;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::index::StoredPacks;
use crate::repository::snapshots::Named;
use crate::repository::table::PackInfo;
use std::collections::HashSet;

/// An error of kind `Damaged` unless every chunk that the snapshot needs is in a pack that the index names, that is stored with the
/// size it must have, that nobody has condemned, and that is not known to be damaged. Reads each of its pages once, and no content.
pub fn whole(repository: &Repository, named: &Named, progress: &dyn Progress, stop: &Stop) -> Result<()> {
    let marked = repository.marked_packs()?;
    repository.reload_index(progress)?;
    let stored = StoredPacks::list(repository.store())?;
    let damaged = repository.damaged_packs();
    let is_bad = |pack: &PackInfo| !stored.has(pack) || marked.contains(&pack.name) || damaged.contains(&pack.name);
    let rank = |pack: &PackInfo| if is_bad(pack) { Rank::Absent } else { Rank::Good };
    let nobody = HashSet::new();
    let walk = Walk { repository, progress, stop, tolerated: &nobody, unsure: &nobody };
    Live::complete(&walk, repository.index()?, &rank, named)
}
