//! Whether a repository is whole: what is damaged or missing, how badly, and which files it hits. Not for: mending (see
//! `repair`), or printing.
//!
//! Three layers, each trusting only those before it: `objects` (every small object opens, and its name is the hash of its
//! bytes), `packs` (which packs are stored, and which of their blocks can be read), `walk` (every chunk that a live snapshot
//! needs is in a readable block). Tree packs are always read whole, data packs only with `read_data`.
//!
//! Anything may change meanwhile. Snapshots are listed before the index and the index before packs, so what a snapshot
//! needs is known by then. An alarm that goes together with a changed listing is looked at again from the start, since a
//! prune may have moved the chunks; verdicts about packs are kept, since a name never comes to mean other bytes.
//!
//! What cannot be noticed: that the newest snapshot of a writer was deleted, if no other snapshot names it.

mod lengths;
mod links;
mod objects;
mod packs;
mod reading;
pub mod scrub;
mod seen;
mod walk;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::damage::is_loss;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Affected files listed with one finding.
pub const MAX_AFFECTED: usize = 100;
/// Affected files listed in one report; further ones are only counted.
const MAX_AFFECTED_REPORT: usize = 20_000;
/// How often a repository that changes while alarms are raised is looked at.
const ATTEMPTS: usize = 4;

/// How a repository is checked.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Reads and verifies data packs as well, not only tree packs.
    pub read_data: bool,
    /// Packs that are read at the same time; each takes at most about 50 MiB.
    pub threads: usize,
    /// Only a part of the data packs.
    pub subset: Option<Subset>,
    /// Data packs that were found right within this time are left out.
    pub max_age: Option<Duration>,
    /// Nothing new is begun after this moment.
    pub deadline: Option<Instant>,
    /// Only what these snapshots need, if any are named.
    pub snapshots: Option<Vec<ObjectName>>,
}

impl CheckOptions {
    /// Whether all data of the repository is read.
    pub fn is_whole(&self) -> bool {
        // Nothing was found right within no time.
        let is_aged = self.max_age.is_some_and(|age| !age.is_zero());
        let is_limited = self.subset.is_some() || is_aged || self.deadline.is_some();
        self.read_data && !is_limited && self.snapshots.is_none()
    }
}

/// A part of the data packs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subset {
    /// The packs whose names fall into one of so many parts; parts count from 1.
    Part {
        /// Which part.
        part: u64,
        /// Of how many.
        of: u64,
    },
    /// This share of all bytes, from 0 to 1: the packs that have waited the longest.
    Share(f64),
    /// About so many bytes: the packs that have waited the longest.
    Bytes(u64),
}

/// How bad a finding is; ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing, not wrong.
    Note,
    /// Something is damaged, and all that snapshots need is still there.
    Repairable,
    /// Content or metadata is gone.
    Lost,
}

/// A file or folder that a finding hits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affected {
    /// In which snapshot.
    pub snapshot: ObjectName,
    /// Absolute path; with a folder, everything below it may be hit.
    pub path: Vec<u8>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object's path in the store, or what stands for several.
    pub object: String,
    /// A sentence.
    pub message: String,
    /// What to do, if anything can be done.
    pub hint: Option<String>,
    /// What is hit, at most `MAX_AFFECTED`.
    pub affected: Vec<Affected>,
    /// How many there are; at least, if there are millions.
    pub affected_total: u64,
}

/// What a check found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// Live snapshots whose trees were walked.
    pub snapshots: u64,
    /// Index segments that were read.
    pub segments: u64,
    /// Packs that are stored.
    pub packs: u64,
    /// Packs of which every byte was read.
    pub packs_read: u64,
    /// Distinct pages of directories and of lists.
    pub tree_pages: u64,
    /// References to chunks of content and attributes that were followed.
    pub chunks: u64,
    /// Bytes of packs that were read for verifying them.
    pub bytes_read: u64,
    /// Data packs that were left out because they were found right lately.
    pub packs_recent: u64,
    /// Data packs that the key in use does not open, so that they were not looked into.
    pub packs_locked: u64,
    /// Packs that there was no time for.
    pub packs_left: u64,
    /// Snapshots that there was no time for.
    pub snapshots_left: u64,
}

impl CheckReport {
    /// The severity of the worst finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// Checks a repository. An error means that the check itself could not go on (stopped, or the store cannot be listed).
///
/// Memory: 250 bytes a pack (names, sizes and sums; a pack has 32 MiB, or 8 for trees), 80 MB for pages, 70 MB for hard links, 50 MB for lost chunks and
/// for chunks that no segment names each (see `MAX_BAD` and `MAX_ORPHANED`), `threads` × 50 MiB while packs are read, 16 MiB for
/// an index segment, the index's filters, and the repository's block cache. Nothing grows with the number of chunks but the filters.
pub fn run(
    repository: &Arc<Repository>,
    options: &CheckOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<CheckReport> {
    let mut verdicts = packs::Verdicts::default();
    let mut attempt = 1;
    loop {
        let before = Listing::take(repository)?;
        let (report, is_last) = (CheckReport::default(), attempt == ATTEMPTS);
        let mut pass = Pass {
            repository,
            options,
            progress,
            stop,
            report,
            failure: None,
            vanished: false,
            is_again: attempt > 1,
            is_last,
        };
        pass.look(&mut verdicts)?;
        let alarm = pass.report.worst() > Some(Severity::Note);
        let moved = pass.vanished || (alarm && Listing::take(repository)? != before);
        if moved && attempt == ATTEMPTS {
            pass.add(Severity::Note, "repository", "The repository kept changing while it was checked")
                .hint("Check it again while no prune runs.");
        }
        if !moved || attempt == ATTEMPTS {
            return Ok(pass.report);
        }
        attempt += 1;
        progress.note("The repository changed while it was checked, so it is looked at again");
    }
}

/// The names whose change can explain an alarm. No name is ever used twice, so equal listings mean that nothing happened.
#[derive(PartialEq, Eq)]
struct Listing(BTreeSet<ObjectKey>);

impl Listing {
    fn take(repository: &Repository) -> Result<Listing> {
        let mut names = BTreeSet::new();
        for kind in [ObjectKind::Snapshot, ObjectKind::Tomb, ObjectKind::Index] {
            repository.list_latest(kind, &mut |object| {
                names.insert(ObjectKey::new(kind, &object.name));
                Ok(())
            })?;
        }
        Ok(Listing(names))
    }
}

/// One look at the whole repository.
struct Pass<'a> {
    repository: &'a Arc<Repository>,
    options: &'a CheckOptions,
    progress: &'a dyn Progress,
    stop: &'a Stop,
    report: CheckReport,
    /// What may not be read, or not be reached. It is no damage, and without it nothing can be said.
    failure: Option<Error>,
    /// Something that had been listed was gone when it was read, or something that is there was not listed.
    vanished: bool,
    /// An alarm was raised before; this time all is listed fresh.
    is_again: bool,
    /// What is still not listed now never is.
    is_last: bool,
}

impl Pass<'_> {
    fn look(&mut self, verdicts: &mut packs::Verdicts) -> Result<()> {
        self.progress.stage("checking keys, snapshots and index");
        self.check_configs()?;
        self.check_keys()?;
        self.check_coordination()?;
        let mut snapshots = self.check_snapshots()?;
        if let Some(chosen) = &self.options.snapshots {
            snapshots.live.retain(|named| chosen.contains(&named.name));
        }
        let (indexed, index) = self.check_segments()?;
        self.stop.check()?;
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let looked = self.check_packs(indexed, index, verdicts)?;
        self.progress.stage("checking trees");
        self.check_trees(&snapshots.live, looked, verdicts)?;
        self.check_links(&snapshots.live)?;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Whether the time is over.
    fn is_over(&self) -> bool {
        self.options.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn add(&mut self, severity: Severity, object: impl ToString, message: impl Into<String>) -> &mut Finding {
        self.report.findings.push(Finding {
            severity,
            object: object.to_string(),
            message: message.into(),
            hint: None,
            affected: Vec::new(),
            affected_total: 0,
        });
        self.report.findings.last_mut().expect("a finding was just added")
    }

    /// Turns an error of reading `key` into a finding; an object that is gone is none, and one of a newer firn is no damage.
    fn add_error(&mut self, severity: Severity, key: &ObjectKey, error: &Error, hint: &str) {
        match error.kind() {
            ErrorKind::NotFound => self.vanished = true,
            ErrorKind::Unsupported => {
                self.add(Severity::Note, key, format!("It was not checked: {}", error.chain()))
                    .hint("Check with a newer firn.");
            }
            ErrorKind::WrongKey => {
                let finding = self.add(Severity::Note, key, format!("It was not looked into: {}", error.chain()));
                finding.hint(error.hint().unwrap_or_default());
            }
            _ if !is_loss(error) => {
                self.failure.get_or_insert_with(|| error.copy());
            }
            _ => {
                self.add(severity, key, error.chain()).hint(hint);
            }
        }
    }

    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectKey>> {
        let mut keys = Vec::new();
        self.repository.list_latest(kind, &mut |object| {
            keys.push(ObjectKey::new(kind, &object.name));
            Ok(())
        })?;
        keys.sort();
        keys.dedup();
        Ok(keys)
    }
}

impl Finding {
    fn hint(&mut self, hint: &str) -> &mut Finding {
        self.hint = (!hint.is_empty()).then(|| hint.to_owned());
        self
    }
}

/// Reads again before damage is believed: memory and cables fail as well as disks.
fn twice<T>(read: impl Fn() -> Result<T>) -> Result<T> {
    match read() {
        Err(error) if error.kind() == ErrorKind::Damaged => read(),
        other => other,
    }
}
