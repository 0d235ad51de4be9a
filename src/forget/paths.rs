//! Which snapshots hold the last version of a path in a year: what is in one of them and in no later one of that year. Not for: other
//! rules (see `policy`).
//!
//! A tree is compared with all later ones of its year at once, and left as soon as one of them has the same page. Memory: a page a
//! level, and an entry for each later snapshot.

use crate::error::Result;
use crate::format::tree::{Body, Entry};
use crate::id::ChunkId;
use crate::progress::Stop;
use crate::repository::Repository;
use crate::repository::snapshots::Named;
use crate::view::path::{lookup, root};
use jiff::tz::TimeZone;

/// For each snapshot, given from the newest to the oldest, whether it holds the last version of any path in its year.
pub(super) fn last_of_year(
    repository: &Repository,
    snapshots: &[&Named],
    zone: &TimeZone,
    stop: &Stop,
) -> Result<Vec<bool>> {
    let mut last = vec![false; snapshots.len()];
    let year = |named: &Named| named.snapshot.time.to_zoned(zone.clone()).year();
    // Of the current year, the newest first.
    let mut later: Vec<(ChunkId, Entry)> = Vec::new();
    for (number, named) in snapshots.iter().enumerate() {
        if number == 0 || year(named) != year(snapshots[number - 1]) {
            later.clear();
        }
        stop.check()?;
        let top = root(repository, &named.snapshot)?;
        let compared: Vec<&Entry> = later.iter().rev().map(|(_, entry)| entry).collect();
        last[number] = later.is_empty() || has_more(repository, &top, &compared, stop)?;
        later.push((named.snapshot.tree, top));
    }
    Ok(last)
}

/// Whether a directory has anything below it that none of the others has.
fn has_more(repository: &Repository, entry: &Entry, others: &[&Entry], stop: &Stop) -> Result<bool> {
    let page_of = |entry: &Entry| if let Body::Directory { page, .. } = &entry.body { Some(*page) } else { None };
    let Some(page) = page_of(entry) else { return Ok(others.is_empty()) };
    let pages: Vec<ChunkId> = others.iter().filter_map(|other| page_of(other)).collect();
    if pages.contains(&page) {
        return Ok(false);
    }
    for child in repository.entries(page) {
        let child = child?;
        stop.check()?;
        let mut found = Vec::new();
        let mut is_same = false;
        for other in &pages {
            let Some(other) = lookup(repository, *other, &child.name)? else { continue };
            let is_directory = page_of(&child).is_some();
            // A file of that name is a later version; of a directory all below it counts.
            is_same = !is_directory || page_of(&other) == page_of(&child);
            if is_same {
                break;
            }
            found.push(other);
        }
        if is_same {
            continue;
        }
        let found: Vec<&Entry> = found.iter().collect();
        if found.is_empty() || has_more(repository, &child, &found, stop)? {
            return Ok(true);
        }
    }
    Ok(false)
}
