//! Pins snapshots, so that they are never forgotten. Not for: pins of writers at work (see `repository::coordination`).

use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::store::{ObjectKey, ObjectKind};

/// Pins a snapshot. After `Ok` no policy, no name and no prune makes it go.
///
/// The pin is put before tombs are listed, and whoever forgets lists pins after the tomb is put: at least one of the two sees the
/// other. A prune lists tombs before pins.
pub fn pin(repository: &Repository, name: ObjectName, reason: Option<String>) -> Result<()> {
    repository.check_writable()?;
    repository.put_hold(name, reason)?;
    if repository.tombs()?.contains_key(&name) {
        let message = format!("The snapshot \"{}\" has just been forgotten", name.short());
        return Err(Error::new(ErrorKind::Failed, message)
            .with_hint("Its pin keeps it, unless a prune had decided before; take it back with \"firn undelete\"."));
    }
    match repository.store().size(&ObjectKey::new(ObjectKind::Snapshot, name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            repository.delete_hold(name)?;
            Err(error.context(format!("The snapshot \"{}\" has just been deleted", name.short())))
        }
        other => other.map(drop),
    }
}
