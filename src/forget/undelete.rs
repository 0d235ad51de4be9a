//! Takes back that a snapshot was forgotten, and says so only if it is really there. Not for: snapshots that a prune has deleted.
//!
//! A prune that has begun may already have decided (CONCURRENCY in `man/firn-repository.7`): its marks are looked for after the tomb
//! is gone. If there is none then, no prune can have seen the tomb and go on to delete the snapshot: it looks at the tombs once more
//! after it has put its marks.

use crate::check::{self, CheckOptions, Severity};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::store::{ObjectKey, ObjectKind};
use std::sync::Arc;

/// Undeletes a forgotten snapshot. After `Ok` it is live, whole as far as metadata tells, and no prune is about to delete it.
pub fn undelete(repository: &Arc<Repository>, name: ObjectName, progress: &dyn Progress, stop: &Stop) -> Result<()> {
    repository.check_writable()?;
    repository.snapshot(name)?;
    let store = repository.store();
    store.delete(&ObjectKey::new(ObjectKind::Tomb, name))?;
    let outcome = confirm(repository, name, progress, stop);
    if outcome.is_err() {
        // It is forgotten as before; better that than a snapshot of which nobody knows whether it is whole.
        repository.put_tomb(name)?;
    }
    outcome
}

fn confirm(repository: &Arc<Repository>, name: ObjectName, progress: &dyn Progress, stop: &Stop) -> Result<()> {
    if !repository.names(ObjectKind::Mark)?.is_empty() {
        return Err(Error::new(
            ErrorKind::InUse,
            format!("A prune is at work and may be about to delete the snapshot \"{}\"; it stays forgotten", name.short()),
        )
        .with_hint("Let the prune end (run it again if it was stopped), then see with \"firn snapshots --forgotten\" whether the snapshot is still there."));
    }
    match repository.store().size(&ObjectKey::new(ObjectKind::Snapshot, name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("A prune has just deleted the snapshot \"{}\"", name.short()),
            ));
        }
        other => drop(other?),
    }
    let options = CheckOptions { threads: 1, snapshots: Some(vec![name]), ..CheckOptions::default() };
    repository.reload_index(progress)?;
    let report = check::run(repository, &options, progress, stop)?;
    match report.findings.iter().find(|finding| finding.severity >= Severity::Lost) {
        None => Ok(()),
        Some(finding) => Err(Error::damaged(format!(
            "The snapshot \"{}\" is no longer whole ({}: {}); it stays forgotten",
            name.short(),
            finding.object,
            finding.message
        ))
        .with_hint("A prune was stopped while it deleted what only this snapshot needs.")),
    }
}
