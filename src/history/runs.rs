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
use std::collections::BTreeSet;
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

    /// The host of its snapshots.
    pub fn host(&self) -> &str {
        &self.last.snapshot.host
    }
}

/// What became of a path on a host.
#[derive(Clone, Debug)]
pub enum Event {
    /// A version of it.
    Version {
        /// Where it is.
        run: Run,
        /// Whether it is there still, as far as the snapshots say.
        is_current: bool,
    },
    /// It was no more, in this snapshot for the first time.
    Removed(Arc<Named>),
}

/// What the snapshots of a line can judge.
struct Judge<'c> {
    host: &'c str,
    /// Without the slash of "/".
    sources: Vec<&'c [u8]>,
    /// The rank of the newest.
    rank: u32,
    /// All of them that count, with their ranks.
    snapshots: Vec<(u32, &'c Arc<Named>)>,
}

impl Judge<'_> {
    fn has_source(&self, is_wanted: impl Fn(&[u8]) -> bool) -> bool {
        self.sources.iter().any(|source| is_wanted(source))
    }
}

/// Whether a path is another one, or below it.
fn is_within(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Takes a path and its runs.
pub type PathVisitor<'a> = dyn FnMut(&[u8], &[Run]) -> Result<()> + 'a;

/// Takes a path, its runs and its depth.
type Visitor<'a> = dyn FnMut(&[u8], &[Run], usize) -> Result<bool> + 'a;

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
            let mut snapshots = Vec::new();
            let mut at = scope.first();
            while let Some(number) = at {
                let named = scope.snapshot(number);
                snapshots.extend(named.and_then(|named| Some((catalog.rank(&named.name)?, named))));
                at = scope.after(number);
            }
            Some(Judge { host: &newest.snapshot.host, sources, rank: catalog.rank(&newest.name)?, snapshots })
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
        newer.into_iter().any(|judge| judge.has_source(&has_source))
    }

    /// The last version of a path on each host that it is gone from. These are its runs.
    pub fn gone<'r>(&self, path: &[u8], runs: &'r [Run]) -> Vec<&'r Run> {
        let mut last = Lines::last_runs(runs);
        last.retain(|run| self.is_judged(run, |source| is_within(path, source)));
        last
    }

    /// The first snapshot of a host behind this rank that has a source at or above a path.
    fn first_judge(&self, host: &str, path: &[u8], rank: u32) -> Option<(u32, &'c Arc<Named>)> {
        let of_host = self.judges.iter().filter(|judge| judge.host == host);
        let judging = of_host.filter(|judge| judge.has_source(|source| is_within(path, source)));
        let first = |judge: &Judge<'c>| {
            judge.snapshots.get(judge.snapshots.partition_point(|(other, _)| *other <= rank)).copied()
        };
        judging.filter_map(first).min_by_key(|(rank, _)| *rank)
    }

    /// The versions of a path, of which these are the runs, in order of their first snapshots. What goes on in snapshots of other
    /// sources, or of another host at the same time, is one version.
    pub fn versions(&self, path: &[u8], runs: &[Run]) -> Vec<Run> {
        let version = |event| match event {
            Event::Version { run, .. } => Some(run),
            Event::Removed(_) => None,
        };
        versions(self.events(path, runs).into_iter().flatten().filter_map(version).collect())
    }

    /// What became of a path, of which these are the runs, for one host after the other.
    pub fn events(&self, path: &[u8], runs: &[Run]) -> Vec<Vec<Event>> {
        let hosts: BTreeSet<&str> = runs.iter().map(Run::host).collect();
        let runs = backed_up(path, runs);
        let of = |host: &&str| versions(runs.iter().copied().filter(|run| run.host() == *host).cloned().collect());
        hosts.iter().map(|host| self.events_of(path, host, of(host))).collect()
    }

    fn events_of(&self, path: &[u8], host: &str, versions: Vec<Run>) -> Vec<Event> {
        let last = versions.iter().map(|run| run.last_rank).max();
        let is_gone = last.is_some_and(|last| self.first_judge(host, path, last).is_some());
        let mut events: Vec<Event> = Vec::with_capacity(versions.len() + 1);
        let mut end = None;
        for run in versions {
            let gap = end.and_then(|end| self.first_judge(host, path, end));
            let removed = gap.filter(|(rank, _)| *rank < run.first_rank);
            events.extend(removed.map(|(_, named)| Event::Removed(named.clone())));
            end = end.max(Some(run.last_rank));
            let is_current = !is_gone && last == Some(run.last_rank);
            match events.last_mut() {
                // It went on in snapshots of other sources.
                Some(Event::Version { run: before, is_current: current }) if before.state == run.state => {
                    if run.last_rank > before.last_rank {
                        (before.last, before.last_rank, *current) = (run.last, run.last_rank, is_current);
                    }
                }
                _ => events.push(Event::Version { run, is_current }),
            }
        }
        let removed = end.and_then(|end| self.first_judge(host, path, end));
        events.extend(removed.map(|(_, named)| Event::Removed(named.clone())));
        events
    }

    /// Calls `each` with a path, its runs and how deep it is below the start, folders before what is in them; it says whether to look
    /// into a folder.
    ///
    /// Memory: for each folder on the way down, one part of a record for each line.
    fn descend(&self, start: &[u8], each: &mut Visitor<'_>) -> Result<(), Broken> {
        let mut path = start.to_vec();
        let mut open: Vec<(Names, usize)> = Vec::new();
        let mut next = Some(self.runs(start)?);
        loop {
            if let Some(runs) = next.take()
                && each(&path, &runs, open.len())?
                && was_folder(&runs)
            {
                open.push((self.names(&path)?, path.len()));
            }
            let Some((names, length)) = open.last_mut() else { return Ok(()) };
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

    /// Calls `each` with a path and everything that ever was below it, and with its runs; folders come before what is in them.
    pub fn walk(&self, start: &[u8], each: &mut PathVisitor<'_>) -> Result<(), Broken> {
        self.descend(start, &mut |path, runs, _| {
            if !runs.is_empty() {
                each(path, runs)?;
            }
            Ok(true)
        })
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

    /// Whether anything is gone from a folder, at any depth, of which these are the runs: what is near is looked at first. `check` ends
    /// it with an error.
    ///
    /// Memory: the paths of changed folders in the folders on the way down.
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
    pub fn walk_gone(
        &self,
        start: &[u8],
        all: bool,
        each: &mut dyn FnMut(&[u8], &Run) -> Result<()>,
    ) -> Result<(), Broken> {
        // The hosts that the folders on the way down are gone from.
        let mut way: Vec<Vec<String>> = Vec::new();
        self.descend(start, &mut |path, runs, depth| {
            way.truncate(depth);
            let mut hosts = way.last().cloned().unwrap_or_default();
            let above = hosts.len();
            for run in self.gone(path, runs) {
                if all || !hosts[..above].iter().any(|host| host == run.host()) {
                    each(path, run)?;
                }
                hosts.push(run.host().to_owned());
            }
            let is_of_interest = all || runs.iter().any(|run| !hosts.iter().any(|host| host == run.host()));
            way.push(hosts);
            Ok(is_of_interest && was_folder(runs) && !self.is_steady(path, runs))
        })
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

/// Those runs in whose snapshots the path was backed up. In others it is a folder that only leads to a source, and says nothing of what
/// was in it; if a host has none but these, they are all that there is.
fn backed_up<'r>(path: &[u8], runs: &'r [Run]) -> Vec<&'r Run> {
    let has_source = |run: &Run| {
        let source = |source: &[u8]| is_within(path, if source == b"/" { b"" } else { source });
        run.last.snapshot.paths.iter().any(|one| source(&one.0))
    };
    let (counting, others): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| has_source(run));
    let is_alone = |run: &&Run| !counting.iter().any(|other| other.host() == run.host());
    let alone: Vec<&Run> = others.into_iter().filter(is_alone).collect();
    counting.into_iter().chain(alone).collect()
}

/// Runs in order of their first snapshots: those of several lines that are the same and overlap are one.
fn versions(mut runs: Vec<Run>) -> Vec<Run> {
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
