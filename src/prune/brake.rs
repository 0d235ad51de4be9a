//! Signs that the newest snapshot should not take the place of the older ones: that most of what was there is gone or was
//! rewritten, as by a disk that was not mounted, a wiped folder or a program that encrypts files for ransom. Not for: what the
//! store may have lost.

use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::repository::dates::Dates;
use crate::repository::snapshots::Named;
use std::collections::{BTreeMap, BTreeSet};

/// Fewer files than this say nothing.
const FEW: u64 = 20;

/// Stops a prune that would delete older snapshots of a source (`doomed`) whose newest snapshot looks wrong.
pub(super) fn check(live: &[Named], forgotten: &[Named], doomed: &BTreeSet<ObjectName>) -> Result<()> {
    let all = || live.iter().chain(forgotten);
    let dates = Dates::new(all().map(|named| (named.name, &named.snapshot)), &BTreeMap::new());
    let mut sources: BTreeMap<(&str, Vec<&[u8]>), Vec<&Named>> = BTreeMap::new();
    for named in all() {
        let paths = named.snapshot.paths.iter().map(|path| path.0.as_slice()).collect();
        sources.entry((&named.snapshot.host, paths)).or_default().push(named);
    }
    for snapshots in sources.values_mut().filter(|all| all.iter().any(|named| doomed.contains(&named.name))) {
        snapshots.sort_by_cached_key(|named| dates.key(named));
        let [.., before, newest] = snapshots[..] else { continue };
        if doomed.contains(&newest.name) {
            continue;
        }
        if let Some(what) = suspicion(before, newest) {
            return Err(Error::new(
                ErrorKind::Brake,
                format!("The newest snapshot \"{}\" of \"{}\" {what}; nothing was deleted", newest.name.short(), newest.snapshot.host),
            )
            .with_hint("Look at what happened there while the older snapshots can still be undeleted. If all is as it should be, run the prune again with --yes-really."));
        }
    }
    Ok(())
}

fn suspicion(before: &Named, newest: &Named) -> Option<String> {
    let (old, new) = (&before.snapshot.totals, &newest.snapshot.totals);
    if old.files >= FEW && new.files < old.files / 2 {
        return Some(format!("has {} files, and the one before it had {}", new.files, old.files));
    }
    if old.files >= FEW && new.bytes < old.bytes / 2 {
        return Some(format!("has {} bytes, and the one before it had {}", new.bytes, old.bytes));
    }
    let count = |name: &str| newest.snapshot.summary.get(name).copied().unwrap_or(0);
    let (changed, same) = (count("files_changed"), count("files_unmodified"));
    // Only a snapshot that was compared with another one knows what changed.
    if newest.snapshot.parent.is_some() && changed >= FEW && changed > same {
        return Some(format!("found {changed} files changed and only {same} as they were"));
    }
    None
}
