//! Chooses snapshots to be forgotten and says so in the repository. Not for: freeing space (see `prune`); until then everything can
//! be undeleted.
//!
//! Clocks are not trusted: snapshots are judged in the order in which they were made (`repository::dates`), and one whose date cannot
//! be right, or is later than that of storing it, is kept and takes no other one's place.

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
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::progress::Stop;
use crate::repository::Repository;
use crate::repository::dates::{Dates, TOLERANCE};
use crate::repository::filter::Filter;
use crate::repository::snapshots::{Named, Snapshots};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use policy::{Candidate, Policy, Reason};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

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

/// What the snapshots of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Their host, if they are grouped by that.
    pub host: Option<String>,
    /// Their paths, in order.
    pub paths: Option<Vec<Vec<u8>>>,
    /// Their tags, in order.
    pub tags: Option<Vec<String>>,
}

impl Grouping {
    /// The group that a snapshot belongs to.
    fn key(self, snapshot: &Snapshot) -> Key {
        let paths = || {
            let mut paths: Vec<Vec<u8>> = snapshot.paths.iter().map(|path| path.0.clone()).collect();
            paths.sort();
            paths
        };
        let tags = || {
            let mut tags: Vec<String> = snapshot.tags.iter().map(|tag| tag.trim().to_owned()).collect();
            tags.sort();
            tags
        };
        Key {
            host: self.host.then(|| snapshot.host.clone()),
            paths: self.paths.then(paths),
            tags: self.tags.then(tags),
        }
    }

    /// Snapshots by the groups that they belong to, in the order in which they come. By nothing, all are one group.
    pub fn split<N: AsRef<Named>>(self, snapshots: impl Iterator<Item = N>) -> BTreeMap<Key, Vec<N>> {
        let mut groups: BTreeMap<Key, Vec<N>> = BTreeMap::new();
        for named in snapshots {
            groups.entry(self.key(&named.as_ref().snapshot)).or_default().push(named);
        }
        groups
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
    /// Nothing will be done about it, so it may be what a listing of some time ago says.
    pub dry_run: bool,
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
    if options.dry_run {
        repository.check_access()?;
    } else {
        repository.check_writable()?;
    }
    let snapshots = repository.snapshots()?;
    let suspect = suspects(&snapshots, &stored_times(repository)?);
    let dates = snapshots.dates;
    let held = repository.holds()?;
    let zone = TimeZone::system();
    let wanted = snapshots.live.into_iter().filter(|named| options.filter.wants(&named.snapshot));
    let groups = options.grouping.split(wanted);
    let mut plan = Plan { groups: Vec::new(), brake: None };
    for (Key { host, paths, tags }, mut members) in groups {
        members.sort_by_cached_key(|named| std::cmp::Reverse(dates.key(named)));
        let mut group = Group { host, paths, tags, verdicts: Vec::new() };
        judge(repository, options, &members, (&dates, &suspect), &held, &zone, stop, &mut group)?;
        plan.brake = plan.brake.or_else(|| brake(&group, &dates, &suspect));
        plan.groups.push(group);
    }
    Ok(plan)
}

#[expect(clippy::too_many_arguments, reason = "each says something else about one group")]
fn judge(
    repository: &Arc<Repository>,
    options: &ForgetOptions,
    members: &[Named],
    (dates, suspect): (&Dates, &HashMap<ObjectName, &'static str>),
    held: &HashSet<ObjectName>,
    zone: &TimeZone,
    stop: &Stop,
    group: &mut Group,
) -> Result<()> {
    let trusted: Vec<&Named> = members.iter().filter(|named| !suspect.contains_key(&named.name)).collect();
    let moment = |named: &Named| dates.of(&named.name, &named.snapshot).moment;
    let candidates: Vec<_> =
        trusted.iter().map(|named| Candidate { time: moment(named), tags: &named.snapshot.tags }).collect();
    let mut reasons: HashMap<ObjectName, Vec<Reason>> = HashMap::new();
    for (named, why) in trusted.iter().zip(options.policy.apply(&candidates, zone)) {
        reasons.insert(named.name, why);
    }
    if options.keep_path_yearly {
        let years: Vec<i16> = candidates.iter().map(|candidate| candidate.time.to_zoned(zone.clone()).year()).collect();
        for (named, is_last) in trusted.iter().zip(paths::last_of_year(repository, &trusted, &years, stop)?) {
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
fn brake(group: &Group, dates: &Dates, suspect: &HashMap<ObjectName, &'static str>) -> Option<Error> {
    group.removed().next()?;
    let name = match (&group.host, &group.paths) {
        (Some(host), Some(paths)) if !host.is_empty() => {
            let paths: Vec<_> = paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
            format!("\"{}\" of \"{host}\"", paths.join(" "))
        }
        (Some(host), None) if !host.is_empty() => format!("\"{host}\""),
        _ => "a group".to_owned(),
    };
    let trusted: Vec<_> = group.verdicts.iter().filter(|verdict| !suspect.contains_key(&verdict.named.name)).collect();
    if trusted.iter().all(|verdict| verdict.reasons.is_empty()) {
        let all = match trusted.len() {
            1 => "the only snapshot".to_owned(),
            number => format!("all {number} snapshots"),
        };
        let message = format!("The policy would forget {all} of {name}; nothing was forgotten");
        let error = Error::new(ErrorKind::Brake, message);
        return Some(error.with_hint("Choose rules that keep some, or say --yes-really."));
    }
    let [newest, before, ..] = trusted[..] else { return None };
    let moment = |verdict: &Verdict| dates.of(&verdict.named.name, &verdict.named.snapshot).moment;
    let gap = moment(newest).duration_since(moment(before));
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
    let times = repository.snapshot_names()?.into_iter();
    Ok(times.filter_map(|(name, time)| Some((name, Timestamp::try_from(time).ok()?))).collect())
}

/// Snapshots whose dates cannot be right, and why.
fn suspects(snapshots: &Snapshots, stored: &HashMap<ObjectName, Timestamp>) -> HashMap<ObjectName, &'static str> {
    let now = Timestamp::now();
    let mut suspect = HashMap::new();
    for named in &snapshots.live {
        let date = snapshots.dates.of(&named.name, &named.snapshot);
        let limit = stored.get(&named.name).copied().unwrap_or(now).min(now);
        let why = match date.doubt {
            Some(doubt) => Some(doubt.words()),
            None if date.moment.duration_since(limit) > TOLERANCE => Some("dated in the future"),
            None => None,
        };
        suspect.extend(why.map(|why| (named.name, why)));
    }
    suspect
}
