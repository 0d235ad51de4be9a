//! Chooses snapshots to be forgotten and says so in the repository. Not for: freeing space (see `prune`); until then everything can
//! be undeleted.
//!
//! Clocks are not trusted: a snapshot that is dated later than it was stored, or that its writer made before one of an earlier date,
//! is kept and takes no other one's place.

#[cfg(test)]
mod beside_tests;
mod paths;
#[cfg(test)]
mod paths_tests;
pub mod pin;
pub mod policy;
#[cfg(test)]
mod tests;
pub mod undelete;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectName, WriterId};
use crate::progress::Stop;
use crate::repository::Repository;
use crate::repository::filter::Filter;
use crate::repository::snapshots::{Named, Snapshots};
use crate::store::ObjectKind;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use policy::{Candidate, Policy, Reason};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A snapshot may be dated this much later than the store's clock said when it was stored.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// What snapshots of one group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// The host.
    pub host: bool,
    /// The set of paths.
    pub paths: bool,
    /// The set of tags.
    pub tags: bool,
}

impl Default for Grouping {
    fn default() -> Self {
        Grouping { host: true, paths: true, tags: false }
    }
}

/// How snapshots are chosen.
#[derive(Clone, Debug, Default)]
pub struct ForgetOptions {
    /// What is kept of each group.
    pub policy: Policy,
    /// Kept whatever the policy says.
    pub keep: HashSet<ObjectName>,
    /// The last version of every path in every year is kept.
    pub keep_path_yearly: bool,
    /// What makes a group.
    pub grouping: Grouping,
    /// Which snapshots are looked at.
    pub filter: Filter,
}

/// What becomes of one snapshot.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The snapshot.
    pub named: Named,
    /// Why it is kept; nothing: it goes.
    pub reasons: Vec<Reason>,
}

/// Snapshots with something in common, the newest first.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their host, if that is what they have in common.
    pub host: Option<String>,
    /// Their paths.
    pub paths: Option<Vec<Vec<u8>>>,
    /// Their tags.
    pub tags: Option<Vec<String>>,
    /// What becomes of each.
    pub verdicts: Vec<Verdict>,
}

impl Group {
    /// Those that go.
    pub fn removed(&self) -> impl Iterator<Item = &Named> {
        self.verdicts.iter().filter(|verdict| verdict.reasons.is_empty()).map(|verdict| &verdict.named)
    }
}

/// What a policy would do.
#[derive(Debug)]
pub struct Plan {
    /// All snapshots that the filter wants.
    pub groups: Vec<Group>,
    /// Why this must not be done without consent, if so: a group would lose all its snapshots, or its newest one is dated as if a
    /// clock had jumped.
    pub brake: Option<Error>,
}

/// Applies a policy to all snapshots that the filter wants. Nothing is changed.
pub fn plan(repository: &Arc<Repository>, options: &ForgetOptions, stop: &Stop) -> Result<Plan> {
    let snapshots = repository.snapshots()?;
    let stored = stored_times(repository)?;
    let suspect = suspects(&snapshots, &stored);
    let held = repository.holds()?;
    let zone = TimeZone::system();
    let mut groups: BTreeMap<_, Vec<Named>> = BTreeMap::new();
    for named in snapshots.live.into_iter().filter(|named| options.filter.wants(&named.snapshot)) {
        let Grouping { host, paths, tags } = options.grouping;
        let snapshot = &named.snapshot;
        let sorted = |mut list: Vec<Vec<u8>>| {
            list.sort();
            list
        };
        let mut words = snapshot.tags.clone();
        words.sort();
        let key = (
            host.then(|| snapshot.host.clone()),
            paths.then(|| sorted(snapshot.paths.iter().map(|path| path.0.clone()).collect())),
            tags.then_some(words),
        );
        groups.entry(key).or_default().push(named);
    }
    let mut plan = Plan { groups: Vec::new(), brake: None };
    for ((host, paths, tags), mut members) in groups {
        members.sort_by_key(|named| std::cmp::Reverse((named.snapshot.time, named.snapshot.finished, named.name)));
        let mut group = Group { host, paths, tags, verdicts: Vec::new() };
        judge(repository, options, &members, &suspect, &held, &zone, stop, &mut group)?;
        plan.brake = plan.brake.or_else(|| brake(&group, &suspect));
        plan.groups.push(group);
    }
    Ok(plan)
}

#[expect(clippy::too_many_arguments, reason = "each says something else about one group")]
fn judge(
    repository: &Arc<Repository>,
    options: &ForgetOptions,
    members: &[Named],
    suspect: &HashMap<ObjectName, &'static str>,
    held: &HashSet<ObjectName>,
    zone: &TimeZone,
    stop: &Stop,
    group: &mut Group,
) -> Result<()> {
    let trusted: Vec<&Named> = members.iter().filter(|named| !suspect.contains_key(&named.name)).collect();
    let candidates: Vec<_> =
        trusted.iter().map(|named| Candidate { time: named.snapshot.time, tags: &named.snapshot.tags }).collect();
    let mut reasons: HashMap<ObjectName, Vec<Reason>> = HashMap::new();
    for (named, why) in trusted.iter().zip(options.policy.apply(&candidates, zone)) {
        reasons.insert(named.name, why);
    }
    if options.keep_path_yearly {
        for (named, is_last) in trusted.iter().zip(paths::last_of_year(repository, &trusted, zone, stop)?) {
            if is_last {
                reasons.entry(named.name).or_default().push(Reason::plain("last version of a path in its year"));
            }
        }
    }
    for named in members {
        let mut why = reasons.remove(&named.name).unwrap_or_default();
        why.extend(options.keep.contains(&named.name).then(|| Reason::plain("named")));
        why.extend(held.contains(&named.name).then(|| Reason::plain(pinned(repository, named.name))));
        why.extend(suspect.get(&named.name).map(|what| Reason::plain(*what)));
        group.verdicts.push(Verdict { named: named.clone(), reasons: why });
    }
    Ok(())
}

/// That a snapshot is pinned, and why, if that can be read; it is pinned all the same if not.
fn pinned(repository: &Repository, name: ObjectName) -> String {
    let reason = repository.hold(name).ok().and_then(|hold| hold.reason);
    reason.map_or_else(|| "pinned".to_owned(), |reason| format!("pinned: {reason}"))
}

/// A policy that leaves nothing of a group, or that measures time from a date that may be wrong, needs consent.
fn brake(group: &Group, suspect: &HashMap<ObjectName, &'static str>) -> Option<Error> {
    group.removed().next()?;
    let name = match (&group.host, &group.paths) {
        (Some(host), Some(paths)) => {
            let paths: Vec<_> = paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
            format!("\"{}\" of \"{host}\"", paths.join(" "))
        }
        (Some(host), None) => format!("\"{host}\""),
        _ => "a group".to_owned(),
    };
    let trusted: Vec<_> = group.verdicts.iter().filter(|verdict| !suspect.contains_key(&verdict.named.name)).collect();
    if trusted.iter().all(|verdict| verdict.reasons.is_empty()) {
        let message =
            format!("The policy would forget all {} snapshots of {name}; nothing was forgotten", trusted.len());
        let error = Error::new(ErrorKind::Brake, message);
        return Some(error.with_hint("Choose rules that keep some, or say --yes-really."));
    }
    let [newest, before, ..] = trusted[..] else { return None };
    let gap = newest.named.snapshot.time.duration_since(before.named.snapshot.time);
    if gap > SignedDuration::from_hours(24 * 400) {
        let error = Error::new(
            ErrorKind::Brake,
            format!(
                "The newest snapshot \"{}\" of {name} is dated {} days after the one before it, as if a clock had jumped; nothing was forgotten",
                newest.named.name.short(),
                gap.as_hours() / 24
            ),
        );
        let hint =
            "If that date is right, say --yes-really. Otherwise forget that snapshot by its id, or make another one.";
        return Some(error.with_hint(hint));
    }
    None
}

/// Forgets snapshots; what was forgotten before stays so. Pinned ones are refused before anything is done. Calls `each` with the
/// name of every snapshot once that it is forgotten is durable.
pub fn forget(
    repository: &Repository,
    names: &[ObjectName],
    each: &mut dyn FnMut(ObjectName) -> Result<()>,
) -> Result<()> {
    repository.check_writable()?;
    let held = repository.holds()?;
    if let Some(name) = names.iter().find(|name| held.contains(name)) {
        let message = format!("The snapshot \"{}\" is pinned; nothing was forgotten", name.short());
        return Err(Error::new(ErrorKind::Brake, message).with_hint("Run \"firn unpin\" on it first."));
    }
    for name in names {
        repository.put_tomb(*name)?;
        each(*name)?;
    }
    // Whoever pins looks for tombs after putting the pin (see `pin`).
    let held = repository.holds()?;
    let mut outcome = Ok(());
    for name in names.iter().filter(|name| held.contains(name)) {
        let message = format!("The snapshot \"{}\" was pinned while it was forgotten", name.short());
        let error = Error::new(ErrorKind::Brake, message);
        outcome = Err(match undelete::undelete(repository, *name, &crate::progress::Silent, &Stop::new()) {
            Ok(_) => error.with_hint("It stays. What else was to be forgotten is forgotten."),
            Err(cause) => error.with_source(cause).with_hint(
                "It is not listed any more. Look with \"firn snapshots --forgotten\" whether it is still there, then run \"firn undelete\".",
            ),
        });
    }
    outcome
}

/// When the store says that each snapshot was stored.
fn stored_times(repository: &Repository) -> Result<HashMap<ObjectName, Timestamp>> {
    let mut times = HashMap::new();
    repository.store().list(ObjectKind::Snapshot, &mut |object| {
        if let Ok(time) = Timestamp::try_from(object.stored) {
            times.insert(ObjectName::parse(&object.name)?, time);
        }
        Ok(())
    })?;
    Ok(times)
}

/// Snapshots whose dates cannot be right, and why.
fn suspects(snapshots: &Snapshots, stored: &HashMap<ObjectName, Timestamp>) -> HashMap<ObjectName, &'static str> {
    let now = Timestamp::now();
    let mut suspect = HashMap::new();
    let mut writers: BTreeMap<WriterId, Vec<&Named>> = BTreeMap::new();
    for named in &snapshots.live {
        let limit = stored.get(&named.name).copied().unwrap_or(now).min(now);
        if named.snapshot.time.duration_since(limit) > TOLERANCE {
            suspect.insert(named.name, "dated in the future");
        }
        writers.entry(named.snapshot.writer).or_default().push(named);
    }
    for mut own in writers.into_values() {
        own.sort_by_key(|named| std::cmp::Reverse(named.snapshot.sequence));
        // When the clock of those that came later stood at its earliest.
        let mut earliest: Option<Timestamp> = None;
        for named in own {
            let started = named.snapshot.started;
            let is_of_its_time = named.snapshot.time.duration_since(started) > -TOLERANCE;
            if is_of_its_time && earliest.is_some_and(|later| started.duration_since(later) > TOLERANCE) {
                suspect.entry(named.name).or_insert("dated after snapshots that were made later");
            }
            earliest = Some(earliest.map_or(started, |later| later.min(started)));
        }
    }
    suspect
}
