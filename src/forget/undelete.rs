//! Takes back that a snapshot was forgotten, and says so only if it is really there. Not for: snapshots that a prune has deleted.
//!
//! A prune that has begun may already have decided (CONCURRENCY in `man/firn-repository.7`): marks are looked for after the tomb is
//! gone. If there is none then, a prune either has not put its marks yet, and so will look at the tombs once more and spare the
//! snapshot; or it has ended. One that ended has deleted the snapshot, or it was stopped before that; then it may have changed the
//! index, which is why that is compared.
//!
//! The backup that made the snapshot can still take it back, if it has stored it and not yet come to its end: should a prune have
//! given that backup up meanwhile, it forgets its own snapshot. That is told, not prevented.
//!
//! All that can be refused is refused before the tomb goes, so that whoever is killed in between has taken back what was whole.

use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::prune::whole;
use crate::repository::Repository;
use crate::repository::snapshots::Named;
use crate::store::{ObjectKey, ObjectKind};

/// What an undelete can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeleted {
    /// The snapshot stays.
    Stays,
    /// It stays unless the backup that made it still is at work, or paused, and forgets it.
    MayBeWithdrawn,
}

/// Undeletes a forgotten snapshot. After `Ok` it is live, whole as far as metadata tells, and no prune is about to delete it. After
/// `InUse` (a prune is at work), `NotFound` (a prune has deleted it) and `Damaged` (it has begun to) it is forgotten as before.
pub fn undelete(repository: &Repository, name: ObjectName, progress: &dyn Progress, stop: &Stop) -> Result<Undeleted> {
    repository.check_writable()?;
    refuse_beside_prune(repository, name)?;
    let snapshot = repository.snapshot(name).map_err(|error| match error.kind() {
        ErrorKind::NotFound => deleted(name),
        _ => error,
    })?;
    let named = Named { name, snapshot };
    if repository.remove_replayed_tomb(name)? {
        return outlook(repository, &named);
    }
    progress.stage("making sure that nothing is missing");
    let index = repository.names(ObjectKind::Index)?;
    complete(repository, &named, progress, stop)?;
    repository.take_tomb_back(name)?;
    let confirmed = confirm(repository, &named, &index, progress, stop).and_then(|()| outlook(repository, &named));
    confirmed.map_err(|error| match repository.put_tomb(name) {
        Ok(()) => error,
        Err(failed) => failed.context(format!(
            "The snapshot \"{}\" is not forgotten any more, and it is unknown whether it is whole ({})",
            name.short(),
            error.chain()
        )),
    })
}

/// What is true once the tomb is gone.
fn confirm(
    repository: &Repository,
    named: &Named,
    index: &[String],
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<()> {
    refuse_beside_prune(repository, named.name)?;
    if is_gone(repository, named.name)? {
        return Err(deleted(named.name));
    }
    if repository.names(ObjectKind::Index)? == index { Ok(()) } else { complete(repository, named, progress, stop) }
}

/// Whether the backup that made the snapshot has ended. One that ended well has removed its pin, and nothing can make it forget its
/// snapshot after that; a prune that gives a backup up puts the revoke before it removes the pin. So pins are looked at first.
fn outlook(repository: &Repository, named: &Named) -> Result<Undeleted> {
    let session = named.snapshot.session;
    let is_at_work = repository.names(ObjectKind::Pin)?.iter().any(|pin| pin.starts_with(&session.to_string()));
    let is_settled = !is_at_work && !repository.revoked()?.contains(&session);
    Ok(if is_settled { Undeleted::Stays } else { Undeleted::MayBeWithdrawn })
}

fn refuse_beside_prune(repository: &Repository, name: ObjectName) -> Result<()> {
    if repository.names(ObjectKind::Mark)?.is_empty() {
        return Ok(());
    }
    let message =
        format!("A prune is at work and may be about to delete the snapshot \"{}\"; it stays forgotten", name.short());
    Err(Error::new(ErrorKind::InUse, message).with_hint(
        "Wait for the prune to end, then look with \"firn snapshots --forgotten\" whether the snapshot is still there. If \
        that prune was stopped and none is at work anywhere, remove what is in the folder \"marks\" of the repository and try again.",
    ))
}

fn is_gone(repository: &Repository, name: ObjectName) -> Result<bool> {
    Ok(!repository.store().has(&ObjectKey::new(ObjectKind::Snapshot, name))?)
}

fn deleted(name: ObjectName) -> Error {
    Error::new(ErrorKind::NotFound, format!("A prune has deleted the snapshot \"{}\"", name.short()))
}

fn complete(repository: &Repository, named: &Named, progress: &dyn Progress, stop: &Stop) -> Result<()> {
    whole(repository, named, progress, stop).map_err(|error| match error.kind() {
        ErrorKind::Damaged if is_gone(repository, named.name).unwrap_or(false) => deleted(named.name),
        ErrorKind::Damaged => error
            .context(format!("The snapshot \"{}\" is no longer whole; it stays forgotten", named.name.short()))
            .with_hint(
                "A prune was stopped while it deleted what only this snapshot needs, or something is damaged. \"firn repair index\" \
                finds what is stored and in no index; then try again.",
            ),
        _ => error,
    })
}
