//! Which snapshots hold the last version of a path in a year: what is in one of them and in no later one of that year. Not for: other
//! rules (see `policy`).
//!
//! A snapshot is compared with the next later one, and only what differs is looked at: the same page means the same below it. What
//! is not in that one is looked for in all later ones of the year. Memory: `PAGES` bytes of decoded pages, a page a level on the way
//! down, and 50 bytes for each later snapshot.

use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::Entry;
use crate::progress::Stop;
use crate::repository::Repository;
use crate::repository::snapshots::Named;
use crate::view::pages::{Directory, Pages};
use crate::view::path::root;
use std::sync::Arc;

/// Bytes of decoded pages kept in memory.
const PAGES: u64 = 32 << 20;
/// Bytes of stack: directories are walked by recursion, at most 4,096 deep, and each level takes less than 16 KiB.
const STACK: usize = 96 << 20;

/// For each snapshot, given from the newest to the oldest with their years, whether it holds the last version of any path in its
/// year.
pub(super) fn last_of_year(
    repository: &Arc<Repository>,
    snapshots: &[&Named],
    years: &[i16],
    stop: &Stop,
) -> Result<Vec<bool>> {
    // A thread of its own has room for the deepest trees.
    std::thread::scope(|scope| {
        let work = || compare(repository, snapshots, years, stop);
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| Error::io("A thread could not be started", error))?;
        thread.join().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Failed, "Comparing snapshots panicked; this is a defect of firn"))
        })
    })
}

fn compare(repository: &Arc<Repository>, snapshots: &[&Named], years: &[i16], stop: &Stop) -> Result<Vec<bool>> {
    let mut walk = Walk { pages: Pages::new(repository.clone(), PAGES), stop, later: Vec::new() };
    let mut last = Vec::with_capacity(snapshots.len());
    for (number, named) in snapshots.iter().enumerate() {
        if number > 0 && years[number] != years[number - 1] {
            walk.later.clear();
        }
        let top = Directory::of(&root(repository, &named.snapshot)?).expect("a root is a directory");
        last.push(match walk.later.last() {
            None => true,
            Some(next) => walk.has_more(&top, next, &mut Vec::new())?,
        });
        walk.later.push(top);
    }
    Ok(last)
}

struct Walk<'a> {
    pages: Pages,
    stop: &'a Stop,
    /// The roots of later snapshots of the year, the newest first.
    later: Vec<Directory>,
}

type Path = Vec<Vec<u8>>;

impl Walk<'_> {
    /// Whether a directory has anything below it that is in no later snapshot. `next` is that directory in the next one, `path` the
    /// names that lead to it.
    fn has_more(&self, directory: &Directory, next: &Directory, path: &mut Path) -> Result<bool> {
        self.stop.check()?;
        if directory.page == next.page {
            return Ok(false);
        }
        let is_all_there = self.pages.scan_apart(directory, next, &mut |entry| {
            let there = self.pages.by_name(next, &entry.name)?;
            let below = there.as_ref().map(|there| Directory::of(&there.entry));
            path.push(entry.name.clone());
            let more = match (Directory::of(entry), below) {
                // A later version of it.
                (None, Some(_)) => false,
                (Some(own), Some(Some(next))) => self.has_more(&own, &next, path)?,
                (_, None | Some(None)) => self.is_gone(entry, path)?,
            };
            path.pop();
            Ok(!more)
        })?;
        Ok(!is_all_there)
    }

    /// The same for an entry that is not in the next snapshot, or is a directory here and something else there.
    fn is_gone(&self, entry: &Entry, path: &Path) -> Result<bool> {
        let own = Directory::of(entry);
        let (mut is_there, mut directories) = (false, Vec::new());
        for top in self.later.iter().rev() {
            self.stop.check()?;
            let Some(found) = self.find(top, path)? else { continue };
            if own.is_none() {
                return Ok(false);
            }
            is_there = true;
            directories.extend(found);
        }
        match own {
            Some(own) if is_there => self.has_more_than_all(&own, &directories),
            _ => Ok(true),
        }
    }

    /// What is at a path: nothing, or something, which may be a directory.
    fn find(&self, top: &Directory, path: &Path) -> Result<Option<Option<Directory>>> {
        let mut at = Some(*top);
        for name in path {
            let Some(directory) = at else { return Ok(None) };
            let Some(found) = self.pages.by_name(&directory, name)? else { return Ok(None) };
            at = Directory::of(&found.entry);
        }
        Ok(Some(at))
    }

    /// Whether a directory has anything below it that none of the others has.
    fn has_more_than_all(&self, own: &Directory, others: &[Directory]) -> Result<bool> {
        self.stop.check()?;
        if others.iter().any(|other| other.page == own.page) {
            return Ok(false);
        }
        let mut has_more = false;
        self.pages.scan(own, 0, &mut |_, child| {
            let (mut is_there, mut below) = (false, Vec::new());
            for other in others {
                let Some(found) = self.pages.by_name(other, &child.entry.name)? else { continue };
                is_there = true;
                below.extend(Directory::of(&found.entry));
            }
            has_more = match Directory::of(&child.entry) {
                Some(child) if is_there => self.has_more_than_all(&child, &below)?,
                _ => !is_there,
            };
            Ok(!has_more)
        })?;
        Ok(has_more)
    }
}
