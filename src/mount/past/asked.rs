//! Answers about folders that are gathered from the history, while the catalog is at hand. Not for: waiting for it (see `history`), or
//! what the kernel keeps (see `past`).

use super::rights::{closer, rights};
use super::{CURSORS, Child, Each, Face, Folder, GONE, LISTS, Moment, Past, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree;
use crate::history::query::Broken;
use crate::history::record::Kind;
use crate::history::runs::{Lines, Names, Run, was_folder};
use crate::id::ObjectName;
use crate::mount::tree::gathered::{self, Class, Number, VersionNames};
use crate::mount::tree::numbers::{Place, SnapshotTree, Stored};
use crate::repository::snapshots::Named;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Whether a failure is one of something stored, and not of the store.
pub(in crate::mount) fn is_local(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}

/// What is to be listed; of what cannot be read, nothing, if that is to be passed over.
fn readable(passing: bool, child: Result<Option<Child>, Broken>) -> Result<Option<Child>, Broken> {
    match child {
        Err(Broken::Failed(error)) if passing && is_local(&error) => Ok(None),
        other => other,
    }
}

/// Finds the path that it is about in a snapshot.
type Find<'f> = dyn FnMut(&Named) -> Result<Option<Stored>> + 'f;
/// A folder in a snapshot.
type TreePlace = (Arc<SnapshotTree>, Place);

/// A version as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) name: Vec<u8>,
    pub(super) run: Run,
}

/// How far somebody has come in a folder.
pub(super) struct Cursor {
    ino: u64,
    next: u64,
    stamp: Stamp,
    names: Names,
    /// It has passed over something that cannot be read, which who goes on with it must get to know.
    passed: bool,
}

/// A question while it is answered.
pub(super) struct Asked<'q> {
    pub(super) past: &'q Past,
    pub(super) moment: &'q Moment,
    pub(super) lines: Lines<'q>,
    pub(super) stamp: Stamp,
}

impl Asked<'_> {
    /// The tree of a snapshot, and the place of a folder in it.
    fn place(&self, named: &Named, path: &[u8]) -> Result<Option<TreePlace>> {
        let Some(tree) = self.moment.trees.get(&named.name) else { return Ok(None) };
        let place = match path.len() <= self.past.top().len() {
            true => tree.top().map(|top| Some(Place { rank: top.rank, directory: top.directory }))?,
            false => tree.by_path(path)?.and_then(|stored| stored.place()),
        };
        Ok(place.map(|place| (tree.clone(), place)))
    }

    /// A path in a snapshot that is shown.
    pub(super) fn stored(&self, named: &Named, path: &[u8]) -> Result<Option<Stored>> {
        self.moment.trees.get(&named.name).map_or(Ok(None), |tree| tree.by_path(path))
    }

    /// The number of a path's folder: made from the oldest snapshot that has the path and can be read.
    pub(super) fn number(&self, class: Class, path: &[u8], runs: &[Run]) -> Result<Option<u64>, Broken> {
        self.number_by(class, runs, &mut |named| self.stored(named, path))
    }

    fn number_by(&self, class: Class, runs: &[Run], find: &mut Find<'_>) -> Result<Option<u64>, Broken> {
        let mut oldest: Vec<&Run> = runs.iter().collect();
        oldest.sort_by_key(|run| run.first_rank);
        let mut failed = None;
        for run in oldest {
            match find(&run.first) {
                Ok(Some(stored)) => return Ok(Some(Number::of_folder(class, stored.tree.slot(), stored.rank))),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), |error| Err(Broken::Failed(error)))
    }

    /// What a name in a folder of this class stands for.
    pub(super) fn child(
        &self,
        class: Class,
        path: &[u8],
        runs: &[Run],
        find: &mut Find<'_>,
    ) -> Result<Option<Child>, Broken> {
        if class == Class::Deleted {
            let gone = self.lines.gone(path, runs).into_iter().max_by_key(|run| run.last_rank);
            if let Some(run) = gone.filter(|run| run.state.kind != Kind::Directory) {
                return Ok(find(&run.last)?.map(Child::Entry));
            }
            if gone.is_none() && !(was_folder(runs) && self.has_gone(path, runs)?) {
                return Ok(None);
            }
        }
        let Some(ino) = self.number_by(class, runs, find)? else { return Ok(None) };
        let face = self.face_by(class, path, runs, find)?;
        Ok(Some(Child::Folder(Folder { ino, class, path: path.into() }, face)))
    }

    fn has_gone(&self, path: &[u8], runs: &[Run]) -> Result<bool, Broken> {
        {
            let mut kept = self.past.kept();
            let (stamp, known) = &mut kept.gone;
            if *stamp != self.stamp || known.len() >= GONE {
                (*stamp, *known) = (self.stamp, HashMap::new());
            }
            if let Some(gone) = known.get(path) {
                return Ok(*gone);
            }
        }
        let gone = self.lines.has_gone(path, runs, &|| self.past.history.check())?;
        let mut kept = self.past.kept();
        if kept.gone.0 == self.stamp {
            kept.gone.1.insert(path.to_vec(), gone);
        }
        Ok(gone)
    }

    pub(super) fn face(&self, class: Class, path: &[u8], runs: &[Run]) -> Result<Face, Broken> {
        self.face_by(class, path, runs, &mut |named| self.stored(named, path))
    }

    fn face_by(&self, class: Class, path: &[u8], runs: &[Run], find: &mut Find<'_>) -> Result<Face, Broken> {
        let time = runs.iter().map(|run| run.first.snapshot.time).max().unwrap_or_default();
        let folders = || runs.iter().filter(|run| run.state.kind == Kind::Directory);
        let mut face = Face { time, entry: None, guard: None };
        if class == Class::Deleted
            && let Some(last) = folders().max_by_key(|run| run.last_rank)
        {
            face.entry = find(&last.last)?.map(|stored| Box::new(tree::Entry::clone(&stored.entry)));
        }
        if self.past.strict {
            let mut seen = HashSet::new();
            let repository = self.past.view.pages().repository();
            for run in folders().filter(|run| seen.insert(run.state.meta)) {
                let stored = self.moment.trees.get(&run.first.name).map_or(Ok(None), |tree| tree.by_path(path));
                let found = match stored {
                    Ok(Some(stored)) => rights(repository, &stored.entry.meta)?,
                    _ => (0, 0, 0),
                };
                face.guard = Some(closer(face.guard, found));
            }
        }
        Ok(face)
    }

    /// The versions of a folder's own path; none of the directory that is shown, of which each snapshot is one.
    pub(super) fn versions(&self, folder: &Folder) -> Result<Arc<Vec<Version>>, Broken> {
        let layout = match self.past.view.past_layout() {
            Some(layout) if folder.class == Class::Versions && folder.path.len() > self.past.top().len() => layout,
            _ => return Ok(Arc::default()),
        };
        let key = (self.stamp, folder.path.clone());
        if let Some((_, list)) = self.past.kept().lists.iter().find(|(other, _)| *other == key) {
            return Ok(list.clone());
        }
        let runs = self.lines.runs(&folder.path)?;
        let is_folder = was_folder(&runs);
        let versions = self.lines.versions(&folder.path, &runs);
        let name = folder.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mut taken = HashSet::new();
        if is_folder {
            // A name below goes before one of a version: there is no other way to it.
            let time = |run: &Run| VersionNames::time(layout, run.first.snapshot.time).into_bytes();
            let times: HashSet<Vec<u8>> = versions.iter().map(time).collect();
            let mut names = self.lines.names(&folder.path)?;
            while let Some((name, _)) = names.advance(&self.lines, &folder.path)? {
                if times.contains(&name) || times.contains(gathered::time_of(&name)) {
                    taken.insert(name);
                }
            }
        }
        let mut names = VersionNames::new(layout, name);
        let named = versions.into_iter().map(|run| {
            let is_file = run.state.kind == Kind::File;
            Version { name: names.name(run.first.snapshot.time, is_file, &|name| taken.contains(name)), run }
        });
        let list: Arc<Vec<Version>> = Arc::new(named.collect());
        let mut kept = self.past.kept();
        kept.lists.truncate(LISTS - 1);
        kept.lists.push_front((key, list.clone()));
        Ok(list)
    }

    /// A version of a path: a folder as the top of a tree of its own.
    pub(super) fn version(&self, path: &[u8], version: &Version) -> Result<Option<Child>, Broken> {
        let Some(stored) = self.stored(&version.run.first, path)? else { return Ok(None) };
        if stored.place().is_none() {
            return Ok(Some(Child::Entry(stored)));
        }
        let body = self.past.body(&stored.tree, gathered::depth(path));
        Ok(body.map(|tree| Child::Entry(Stored { tree, ..stored })))
    }

    /// Whether it came to the end.
    pub(super) fn list(
        &self,
        folder: &Folder,
        next: &mut u64,
        passing: bool,
        each: &mut Each<'_>,
    ) -> Result<bool, Broken> {
        let versions = self.versions(folder)?;
        let count = versions.len() as u64;
        while *next < count {
            let version = &versions[*next as usize];
            if let Some(child) = readable(passing, self.version(&folder.path, version))?
                && !each(*next, &version.name, &child)?
            {
                return Ok(false);
            }
            *next += 1;
        }
        let mut cursor = self.cursor(folder, *next)?;
        let mut places: HashMap<ObjectName, Option<TreePlace>> = HashMap::new();
        let mut path = Vec::new();
        let is_sure = folder.class == Class::Versions;
        let mut at_end = true;
        while let Some((name, runs)) = cursor.names.advance(&self.lines, &folder.path)? {
            if is_sure && cursor.next < *next {
                cursor.next += 1;
                continue;
            }
            path.clear();
            path.extend_from_slice(&folder.path);
            path.push(b'/');
            path.extend_from_slice(&name);
            let child = self.child(folder.class, &path, &runs, &mut |named| {
                let place = match places.entry(named.name) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(free) => free.insert(self.place(named, &folder.path)?),
                };
                place.as_ref().map_or(Ok(None), |(tree, place)| tree.lookup(place, &name))
            });
            cursor.passed |= passing && child.is_err();
            let child = readable(passing, child)?;
            if child.is_none() && !is_sure {
                continue;
            }
            // Before it was counted, it is passed over; behind that it is what is asked for.
            if cursor.next >= *next {
                if let Some(child) = child
                    && !each(*next, &name, &child)?
                {
                    cursor.names.put_back(name, runs);
                    at_end = false;
                    break;
                }
                *next += 1;
            }
            cursor.next += 1;
        }
        let mut kept = self.past.kept();
        kept.cursors.truncate(CURSORS - 1);
        kept.cursors.push_front(cursor);
        Ok(at_end)
    }

    /// The one that stands at this position, or one at the beginning of the names.
    fn cursor(&self, folder: &Folder, next: u64) -> Result<Cursor, Broken> {
        let is_missing = self.past.missing(folder.ino).is_some();
        let mut kept = self.past.kept();
        kept.cursors.retain(|cursor| cursor.stamp == self.stamp);
        let fits = |cursor: &Cursor| cursor.ino == folder.ino && cursor.next == next && (is_missing || !cursor.passed);
        let at = kept.cursors.iter().position(fits);
        if let Some(cursor) = at.and_then(|at| kept.cursors.remove(at)) {
            return Ok(cursor);
        }
        drop(kept);
        let first = self.versions(folder)?.len() as u64;
        Ok(Cursor {
            ino: folder.ino,
            next: first,
            stamp: self.stamp,
            names: self.lines.names(&folder.path)?,
            passed: false,
        })
    }
}
