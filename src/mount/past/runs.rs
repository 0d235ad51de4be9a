//! What the history catalog says of a path over all lines of snapshots that are shown: its versions, whether it is gone. Not for:
//! how that is shown (see `past`).
//!
//! Lines are put together: what is the same at the same time on two lines is one version, and of the lines of a host the newest one
//! that ever had a path decides whether it is still there.

use crate::history::Catalog;
use crate::history::lines::line_of;
use crate::history::query::{Broken, Children, NameSeen, Scope, Seen};
use crate::history::record::{Kind, State};
use crate::id::ObjectName;
use crate::repository::snapshots::Named;
use jiff::Timestamp;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// How many names are looked at to know whether something is gone from a folder; then it counts as if something were.
const LOOKED: usize = 20_000;

/// A run of snapshots of a line in which a path stayed the same.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The first of them.
    pub(super) first: Arc<Named>,
    /// The last of them.
    pub(super) last: Arc<Named>,
    /// What it was.
    pub(super) state: State,
    /// It is in the newest snapshot of its line.
    pub(super) current: bool,
    line: usize,
}

impl Run {
    /// Whether another one is a part of this.
    pub(super) fn covers(&self, other: &Run) -> bool {
        let (from, to) = (moment(&self.first), moment(&self.last));
        self.state == other.state && from <= moment(&other.first) && moment(&other.last) <= to
    }
}

/// When a snapshot was taken, in the order in which they form lines.
pub(super) fn moment(named: &Named) -> (Timestamp, Timestamp, ObjectName) {
    (named.snapshot.time, named.snapshot.finished, named.name)
}

/// The lines of snapshots that are shown.
pub(super) struct Lines<'c> {
    scopes: Vec<Scope<'c>>,
}

impl<'c> Lines<'c> {
    pub(super) fn new(catalog: &'c Catalog, wanted: &dyn Fn(&Named) -> bool) -> Lines<'c> {
        Lines { scopes: catalog.scopes(wanted) }
    }

    fn runs_of(&self, line: usize, seen: &[Seen], runs: &mut Vec<Run>) {
        let scope = &self.scopes[line];
        for one in seen {
            if let (Some(first), Some(last)) = (scope.snapshot(one.first), scope.snapshot(one.last)) {
                let current = scope.newest() == Some(one.last);
                runs.push(Run { first: first.clone(), last: last.clone(), state: one.state, current, line });
            }
        }
    }

    /// All runs of a path (empty: "/"), line by line.
    pub(super) fn runs(&self, path: &[u8]) -> Result<Vec<Run>, Broken> {
        let mut runs = Vec::new();
        for (line, scope) in self.scopes.iter().enumerate() {
            self.runs_of(line, &scope.versions(path)?, &mut runs);
        }
        Ok(runs)
    }

    /// The names that ever were in a folder.
    pub(super) fn names(&self, path: &[u8]) -> Result<Names, Broken> {
        let mut names = Names { parts: Vec::new(), heads: Vec::new(), next: None };
        for scope in &self.scopes {
            let mut children = scope.children(path)?;
            names.heads.push(scope.next_child(&mut children, path)?);
            names.parts.push(children);
        }
        Ok(names)
    }

    /// The last version of what is gone: `None` if it is still there.
    pub(super) fn gone<'r>(&self, runs: &'r [Run]) -> Option<&'r Run> {
        let newest = |run: &Run| self.scopes[run.line].line().newest().map(|named| moment(named));
        let host = |run: &Run| self.scopes[run.line].line().newest().map(|named| named.snapshot.host.as_str());
        let is_gone = |run: &&Run| {
            let of_host = runs.iter().filter(|other| host(other) == host(run));
            let judge = of_host.max_by_key(|other| (newest(other), moment(&other.last)));
            judge.is_some_and(|judge| !judge.current)
        };
        runs.iter().filter(is_gone).max_by_key(|run| moment(&run.last))
    }

    /// The run that a snapshot is in.
    pub(super) fn run_of<'r>(&self, runs: &'r [Run], named: &Named) -> Option<&'r Run> {
        let line = line_of(&named.snapshot);
        let of_line = |run: &&Run| self.scopes[run.line].line().id == line;
        let mut of_line = runs.iter().filter(of_line);
        of_line.find(|run| (moment(&run.first)..=moment(&run.last)).contains(&moment(named)))
    }

    /// Whether anything is gone from a folder, at any depth, of which these are the runs.
    pub(super) fn has_gone(&self, path: &[u8], runs: &[Run]) -> Result<bool, Broken> {
        let mut open = VecDeque::new();
        if !self.is_steady(runs) {
            open.push_back(path.to_vec());
        }
        let mut looked = 0;
        while let Some(folder) = open.pop_front() {
            let mut names = self.names(&folder)?;
            while let Some((name, runs)) = names.advance(self, &folder)? {
                looked += 1;
                if looked > LOOKED || self.gone(&runs).is_some() {
                    return Ok(true);
                }
                if was_folder(&runs) && !self.is_steady(&runs) {
                    open.push_back([&folder, b"/".as_slice(), &name].concat());
                }
            }
        }
        Ok(false)
    }

    /// Whether something is as it always was, with all that is in it.
    fn is_steady(&self, runs: &[Run]) -> bool {
        let mut lines = HashSet::new();
        runs.iter().all(|run| run.current && lines.insert(run.line))
    }
}

/// A name in a folder and its runs.
pub(super) type NameRuns = (Vec<u8>, Vec<Run>);

/// Goes through names of several lines in order. Memory: one part of a record for each line.
#[derive(Debug)]
pub(super) struct Names {
    parts: Vec<Children>,
    heads: Vec<Option<NameSeen>>,
    next: Option<NameRuns>,
}

impl Names {
    /// The next name.
    pub(super) fn advance(&mut self, lines: &Lines<'_>, path: &[u8]) -> Result<Option<NameRuns>, Broken> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        let Some(name) = self.heads.iter().flatten().map(|(name, _)| name).min().cloned() else { return Ok(None) };
        let mut runs = Vec::new();
        for (line, head) in self.heads.iter_mut().enumerate() {
            if let Some((_, seen)) = head.take_if(|(other, _)| *other == name) {
                lines.runs_of(line, &seen, &mut runs);
                *head = lines.scopes[line].next_child(&mut self.parts[line], path)?;
            }
        }
        Ok(Some((name, runs)))
    }

    /// Gives back what was not used.
    pub(super) fn put_back(&mut self, name: Vec<u8>, runs: Vec<Run>) {
        self.next = Some((name, runs));
    }
}

/// Whether it was a folder in any of these runs.
pub(super) fn was_folder(runs: &[Run]) -> bool {
    runs.iter().any(|run| run.state.kind == Kind::Directory)
}

/// The versions of a path in order of their first snapshots: runs of several lines that are the same and overlap are one.
pub(super) fn versions(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by_key(|run| moment(&run.first));
    let mut versions: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        let same = |other: &&mut Run| {
            other.state == run.state && other.line != run.line && moment(&run.first) <= moment(&other.last)
        };
        match versions.iter_mut().rev().find(same) {
            Some(other) if moment(&run.last) > moment(&other.last) => other.last = run.last,
            Some(_) => {}
            None => versions.push(run),
        }
    }
    versions
}
