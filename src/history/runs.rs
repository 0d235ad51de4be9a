//! What the catalog says of a path over several lines of snapshots: its versions, whether it is gone. Not for: one line alone (see
//! `query`), or how that is shown.
//!
//! What is the same at the same time on two lines is one version. A path is gone from a host if one of its snapshots that is newer
//! than the last one with the path has a source at or above it: so a snapshot of `/etc` says nothing about `/home`, and one of both
//! says what became of what a snapshot of `/home` alone had. Newer is what `Catalog::update` was given later.

use super::Catalog;
use super::lines::line_of;
use super::query::{Broken, Children, NameSeen, Scope, Seen};
use super::record::{Kind, State};
use crate::error::Result;
use crate::repository::snapshots::Named;
use std::sync::Arc;

/// A run of snapshots of a line in which a path stayed the same.
#[derive(Clone, Debug)]
pub struct Run {
    /// The first of them.
    pub first: Arc<Named>,
    /// The last of them.
    pub last: Arc<Named>,
    /// What it was.
    pub state: State,
    /// The place of the first one among all snapshots.
    pub first_rank: u32,
    /// That of the last one.
    pub last_rank: u32,
    line: usize,
}

impl Run {
    /// Whether another one is a part of this.
    pub fn covers(&self, other: &Run) -> bool {
        self.state == other.state && self.first_rank <= other.first_rank && other.last_rank <= self.last_rank
    }

    fn host(&self) -> &str {
        &self.last.snapshot.host
    }
}

/// What the newest snapshot of a line can judge.
struct Judge<'c> {
    host: &'c str,
    /// Without the slash of "/".
    sources: Vec<&'c [u8]>,
    rank: u32,
}

/// Whether a path is another one, or below it.
fn is_within(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The lines of the snapshots that count.
pub struct Lines<'c> {
    catalog: &'c Catalog,
    scopes: Vec<Scope<'c>>,
    judges: Vec<Judge<'c>>,
}

impl<'c> Lines<'c> {
    /// As if there were only those snapshots that are `wanted`.
    pub fn new(catalog: &'c Catalog, wanted: &dyn Fn(&Named) -> bool) -> Lines<'c> {
        let scopes = catalog.scopes(wanted);
        let judge = |scope: &Scope<'c>| {
            let newest = scope.snapshot(scope.newest()?)?;
            let source = |path: &'c [u8]| if path == b"/" { b"" } else { path };
            let sources = newest.snapshot.paths.iter().map(|path| source(path.0.as_slice())).collect();
            Some(Judge { host: &newest.snapshot.host, sources, rank: catalog.rank(&newest.name)? })
        };
        let judges = scopes.iter().filter_map(judge).collect();
        Lines { catalog, scopes, judges }
    }

    fn runs_of(&self, line: usize, seen: &[Seen], runs: &mut Vec<Run>) {
        let scope = &self.scopes[line];
        for one in seen {
            let (Some(first), Some(last)) = (scope.snapshot(one.first), scope.snapshot(one.last)) else { continue };
            let ranks = self.catalog.rank(&first.name).zip(self.catalog.rank(&last.name));
            let Some((first_rank, last_rank)) = ranks else { continue };
            runs.push(Run { first: first.clone(), last: last.clone(), state: one.state, first_rank, last_rank, line });
        }
    }

    /// All runs of a path (empty: "/"), line by line.
    pub fn runs(&self, path: &[u8]) -> Result<Vec<Run>, Broken> {
        let mut runs = Vec::new();
        for (line, scope) in self.scopes.iter().enumerate() {
            self.runs_of(line, &scope.versions(path)?, &mut runs);
        }
        Ok(runs)
    }

    /// The names that ever were in a folder.
    pub fn names(&self, path: &[u8]) -> Result<Names, Broken> {
        let mut names = Names { parts: Vec::new(), heads: Vec::new(), next: None };
        for scope in &self.scopes {
            let mut children = scope.children(path)?;
            names.heads.push(scope.next_child(&mut children, path)?);
            names.parts.push(children);
        }
        Ok(names)
    }

    /// The last run of each host.
    fn last_runs<'r>(runs: &'r [Run]) -> Vec<&'r Run> {
        let mut last: Vec<&'r Run> = Vec::new();
        for run in runs {
            match last.iter_mut().find(|other| other.host() == run.host()) {
                Some(other) if other.last_rank < run.last_rank => *other = run,
                Some(_) => {}
                None => last.push(run),
            }
        }
        last
    }

    /// Whether a snapshot of the host of this run that is newer than it has a source for which this holds.
    fn is_judged(&self, run: &Run, has_source: impl Fn(&[u8]) -> bool) -> bool {
        let newer = self.judges.iter().filter(|judge| judge.rank > run.last_rank && judge.host == run.host());
        newer.flat_map(|judge| &judge.sources).any(|source| has_source(source))
    }

    /// The last version of a path on each host that it is gone from. These are its runs.
    pub fn gone<'r>(&self, path: &[u8], runs: &'r [Run]) -> Vec<&'r Run> {
        let mut last = Lines::last_runs(runs);
        last.retain(|run| self.is_judged(run, |source| is_within(path, source)));
        last
    }

    /// The run that a snapshot is in.
    pub fn run_of<'r>(&self, runs: &'r [Run], named: &Named) -> Option<&'r Run> {
        let (line, rank) = (line_of(&named.snapshot), self.catalog.rank(&named.name)?);
        let of_line = |run: &&Run| self.scopes[run.line].line().id == line;
        runs.iter().filter(of_line).find(|run| (run.first_rank..=run.last_rank).contains(&rank))
    }

    /// Whether nothing can be gone from a folder, of which these are the runs: on each host all that is in it is as it always was,
    /// and nothing newer says otherwise.
    fn is_steady(&self, path: &[u8], runs: &[Run]) -> bool {
        let last = Lines::last_runs(runs);
        let same = |run: &Run| {
            let newest = last.iter().find(|other| other.host() == run.host());
            newest.is_some_and(|newest| (newest.state.kind, newest.state.body) == (run.state.kind, run.state.body))
        };
        runs.iter().all(same)
            && !last.iter().any(|run| self.is_judged(run, |source| is_within(path, source) || is_within(source, path)))
    }

    /// Whether anything is gone from a folder, at any depth, of which these are the runs. `check` ends it with an error.
    pub fn has_gone(&self, path: &[u8], runs: &[Run], check: &dyn Fn() -> Result<()>) -> Result<bool, Broken> {
        let mut open = Vec::new();
        if !self.is_steady(path, runs) {
            open.push(path.to_vec());
        }
        while let Some(folder) = open.pop() {
            let mut names = self.names(&folder)?;
            let mut below = folder.clone();
            while let Some((name, runs)) = names.advance(self, &folder)? {
                check()?;
                below.truncate(folder.len());
                below.push(b'/');
                below.extend_from_slice(&name);
                if !self.gone(&below, &runs).is_empty() {
                    return Ok(true);
                }
                if was_folder(&runs) && !self.is_steady(&below, &runs) {
                    open.push(below.clone());
                }
            }
        }
        Ok(false)
    }

    /// Calls `each` with what is at or below a path and gone, and its last version on that host: of a folder that is gone only
    /// itself, unless `all` is wanted.
    ///
    /// Memory: for each folder on the way down, one part of a record for each line.
    pub fn walk_gone(
        &self,
        start: &[u8],
        all: bool,
        each: &mut dyn FnMut(&[u8], &Run) -> Result<()>,
    ) -> Result<(), Broken> {
        let mut path = start.to_vec();
        // Folders that are being listed, the hosts that they are gone from, and how long their paths are.
        let mut open: Vec<(Names, Vec<String>, usize)> = Vec::new();
        let mut next = Some(self.runs(start)?);
        loop {
            if let Some(runs) = next.take() {
                let above = open.last().map_or(&[][..], |(_, hosts, _)| hosts);
                let mut hosts = above.to_vec();
                for run in self.gone(&path, &runs) {
                    if all || !above.iter().any(|host| host == run.host()) {
                        each(&path, run)?;
                    }
                    hosts.push(run.host().to_owned());
                }
                let is_of_interest = all || runs.iter().any(|run| !hosts.iter().any(|host| host == run.host()));
                if is_of_interest && was_folder(&runs) && !self.is_steady(&path, &runs) {
                    open.push((self.names(&path)?, hosts, path.len()));
                }
            }
            let Some((names, _, length)) = open.last_mut() else { return Ok(()) };
            path.truncate(*length);
            match names.advance(self, &path)? {
                None => drop(open.pop()),
                Some((name, runs)) => {
                    path.push(b'/');
                    path.extend_from_slice(&name);
                    next = Some(runs);
                }
            }
        }
    }
}

/// A name in a folder and its runs.
pub type NameRuns = (Vec<u8>, Vec<Run>);

/// Goes through names of several lines in order. Memory: one part of a record for each line.
#[derive(Debug)]
pub struct Names {
    parts: Vec<Children>,
    heads: Vec<Option<NameSeen>>,
    next: Option<NameRuns>,
}

impl Names {
    /// The next name.
    pub fn advance(&mut self, lines: &Lines<'_>, path: &[u8]) -> Result<Option<NameRuns>, Broken> {
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
    pub fn put_back(&mut self, name: Vec<u8>, runs: Vec<Run>) {
        self.next = Some((name, runs));
    }
}

/// Whether it was a folder in any of these runs.
pub fn was_folder(runs: &[Run]) -> bool {
    runs.iter().any(|run| run.state.kind == Kind::Directory)
}

/// The versions of a path in order of their first snapshots: runs of several lines that are the same and overlap are one.
pub fn versions(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by_key(|run| run.first_rank);
    let mut versions: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        let same =
            |other: &&mut Run| other.state == run.state && other.line != run.line && run.first_rank <= other.last_rank;
        match versions.iter_mut().rev().find(same) {
            Some(other) if run.last_rank > other.last_rank => (other.last, other.last_rank) = (run.last, run.last_rank),
            Some(_) => {}
            None => versions.push(run),
        }
    }
    versions
}
