//! `firn forget`: its arguments, and what is kept and dropped in words. Not for: freeing space (see `prune`).

use crate::cli::args::grouping;
use crate::cli::args::prune::PruneArgs;
use crate::cli::args::select::Selection;
use crate::cli::command::prune;
use crate::cli::context::Context;
use crate::cli::output::message;
use crate::cli::output::snapshot::{self, common};
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::forget::policy::{Count, Period, Policy, Reason, Stretch};
use crate::forget::{ForgetOptions, Group, Grouping, Plan, Verdict};
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::filter::tag_list;
use crate::repository::snapshots::{Named, Snapshots, describe};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Forget snapshots, by name or by a policy
///
/// Forgotten snapshots are no longer listed, but stay in the repository until a prune deletes them; until then "firn undelete" takes
/// them back. A policy looks at the snapshots of each group (see --group-by) from the newest to the oldest. A rule like
/// --keep-daily 7 keeps the newest snapshot of each of the last 7 days that have any; while a rule has some of its number left, the
/// oldest snapshot is kept as well. What no rule keeps is forgotten. Pinned snapshots and those whose date cannot be right are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Snapshots to forget; a damaged or missing one by its whole id
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    #[command(flatten)]
    rules: Rules,

    #[command(flatten)]
    selection: Selection,

    /// What the snapshots of a group have in common: any of host, paths, tags; "none": all are one group
    #[arg(short = 'g', long, value_name = "WHAT", default_value = "host,paths", value_parser = grouping::parse)]
    group_by: Grouping,

    /// Tell what would be forgotten, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Tell for each snapshot which rules keep it
    #[arg(long)]
    explain: bool,

    /// Forget even if nothing of a group is left, or if its newest snapshot is dated as if a clock had jumped
    #[arg(long)]
    yes_really: bool,

    /// Prune afterwards, if anything was forgotten
    #[arg(long)]
    prune: bool,

    #[command(flatten)]
    settings: PruneArgs,
}

/// The rules of a policy.
#[derive(Debug, Default, PartialEq, clap::Args)]
struct Rules {
    /// Keep the newest N snapshots (or "all")
    #[arg(short = 'l', long, value_name = "N", value_parser = count)]
    keep_last: Option<Count>,
    /// Keep the newest of each of the last N minutes
    #[arg(long, value_name = "N", value_parser = count)]
    keep_minutely: Option<Count>,
    /// Keep the newest of each of the last N hours
    #[arg(long, value_name = "N", value_parser = count)]
    keep_hourly: Option<Count>,
    /// Keep the newest of each of the last N days
    #[arg(short = 'd', long, value_name = "N", value_parser = count)]
    keep_daily: Option<Count>,
    /// Keep the newest of each of the last N weeks
    #[arg(short = 'w', long, value_name = "N", value_parser = count)]
    keep_weekly: Option<Count>,
    /// Keep the newest of each of the last N months
    #[arg(short = 'm', long, value_name = "N", value_parser = count)]
    keep_monthly: Option<Count>,
    /// Keep the newest of each of the last N quarters
    #[arg(long, value_name = "N", value_parser = count)]
    keep_quarterly: Option<Count>,
    /// Keep the newest of each of the last N half-years
    #[arg(long, value_name = "N", value_parser = count)]
    keep_half_yearly: Option<Count>,
    /// Keep the newest of each of the last N years
    #[arg(short = 'y', long, value_name = "N", value_parser = count)]
    keep_yearly: Option<Count>,
    /// Keep all within this time before the newest snapshot (for example 1y5m7d2h)
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within: Option<Stretch>,
    /// Keep the newest of each minute within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_minutely: Option<Stretch>,
    /// Keep the newest of each hour within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_hourly: Option<Stretch>,
    /// Keep the newest of each day within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_daily: Option<Stretch>,
    /// Keep the newest of each week within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_weekly: Option<Stretch>,
    /// Keep the newest of each month within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_monthly: Option<Stretch>,
    /// Keep the newest of each quarter within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_quarterly: Option<Stretch>,
    /// Keep the newest of each half-year within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_half_yearly: Option<Stretch>,
    /// Keep the newest of each year within this time
    #[arg(long, value_name = "DURATION", value_parser = stretch)]
    keep_within_yearly: Option<Stretch>,
    /// Keep snapshots with this tag; with "a,b" those that have both; several times: any of them
    #[arg(long, value_name = "TAGS")]
    keep_tag: Vec<String>,
    /// Keep this snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    keep_id: Vec<String>,
    /// Keep each snapshot that holds the last version of any path in a year
    #[arg(long)]
    keep_path_yearly: bool,
}

impl Rules {
    fn policy(&self) -> Policy {
        let counts = [
            (Period::Last, self.keep_last),
            (Period::Minutely, self.keep_minutely),
            (Period::Hourly, self.keep_hourly),
            (Period::Daily, self.keep_daily),
            (Period::Weekly, self.keep_weekly),
            (Period::Monthly, self.keep_monthly),
            (Period::Quarterly, self.keep_quarterly),
            (Period::HalfYearly, self.keep_half_yearly),
            (Period::Yearly, self.keep_yearly),
        ];
        let within = [
            (Period::Minutely, self.keep_within_minutely),
            (Period::Hourly, self.keep_within_hourly),
            (Period::Daily, self.keep_within_daily),
            (Period::Weekly, self.keep_within_weekly),
            (Period::Monthly, self.keep_within_monthly),
            (Period::Quarterly, self.keep_within_quarterly),
            (Period::HalfYearly, self.keep_within_half_yearly),
            (Period::Yearly, self.keep_within_yearly),
        ];
        Policy {
            counts: counts.into_iter().filter_map(|(period, count)| Some((period, count?))).collect(),
            within: self.keep_within,
            within_periods: within.into_iter().filter_map(|(period, stretch)| Some((period, stretch?))).collect(),
            tags: self.keep_tag.iter().map(|text| tag_list(text)).collect(),
        }
    }
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        if let Some(error) = self.contradiction() {
            message::fatal(&error, 2, context.output.json);
            return Ok(2);
        }
        let repository = context.open()?;
        context.watch_signals()?;
        let snapshots = context.snapshots(&repository)?;
        let forgotten = if self.snapshots.is_empty() {
            self.by_policy(context, &repository, &snapshots)?
        } else {
            self.by_name(context, &repository, &snapshots)?
        };
        if self.prune && forgotten {
            let options = self.settings.options(self.dry_run, self.yes_really, context);
            return prune::prune(context, &repository, &options);
        }
        Ok(0)
    }

    /// What to forget is said in exactly one way.
    fn contradiction(&self) -> Option<Error> {
        let has_rules = self.rules != Rules::default();
        let (message, hint) = match (self.snapshots.is_empty(), has_rules) {
            (true, true) => return None,
            (true, false) => (
                "Nothing says which snapshots to forget",
                "Name snapshots, or rules by which some are kept, such as --keep-daily 7 --keep-weekly 4.",
            ),
            (false, true) => ("Snapshots are named, and rules are given", "Give one or the other."),
            (false, false) => return None,
        };
        Some(Error::new(ErrorKind::Input, message).with_hint(hint))
    }

    /// Whether anything was forgotten, or would be.
    fn by_name(&self, context: &Context, repository: &Repository, snapshots: &Snapshots) -> Result<bool> {
        let filter = self.selection.filter()?;
        let mut chosen: Vec<(ObjectName, Option<&Named>)> = Vec::new();
        for text in &self.snapshots {
            let found = match given_up(repository, snapshots, text)? {
                Some(name) => (name, None),
                None => context.choose(snapshots, text, b"", &filter).map(|named| (named.name, Some(named)))?,
            };
            if chosen.iter().all(|other| other.0 != found.0) {
                chosen.push(found);
            }
        }
        let readable = chosen.iter().filter(|(_, named)| named.is_some()).count();
        if readable > 0 && readable == snapshots.live.len() && !self.yes_really {
            return Err(Error::new(ErrorKind::Brake, "That would forget all snapshots; nothing was forgotten")
                .with_hint("If that is what you want, say --yes-really."));
        }
        let mut tell = |name: ObjectName| {
            let named = chosen.iter().find(|chosen| chosen.0 == name).and_then(|chosen| chosen.1);
            if context.output.json {
                let snapshot = named.map_or_else(|| json!({ "snapshot_id": name, "damaged": true }), snapshot::json);
                let value = json!({ "message_type": "forgotten", "dry_run": self.dry_run, "snapshot": snapshot });
                return context.print_json(&value);
            }
            let verb = if self.dry_run { "Would forget" } else { "Forgot" };
            let what = named.map_or_else(|| format!("the damaged or missing snapshot \"{name}\""), describe);
            context.tell(&format!("{verb} {}\n", text::line(&what)))
        };
        let names: Vec<ObjectName> = chosen.iter().map(|chosen| chosen.0).collect();
        match self.dry_run {
            true => names.into_iter().try_for_each(&mut tell)?,
            false => crate::forget::forget(repository, &names, &mut tell)?,
        }
        Ok(true)
    }

    fn by_policy(&self, context: &Context, repository: &Arc<Repository>, snapshots: &Snapshots) -> Result<bool> {
        let filter = self.selection.filter()?;
        let resolve = |text: &String| context.choose(snapshots, text, b"", &filter).map(|named| named.name);
        let options = ForgetOptions {
            policy: self.rules.policy(),
            keep: self.rules.keep_id.iter().map(resolve).collect::<Result<_>>()?,
            keep_path_yearly: self.rules.keep_path_yearly,
            grouping: self.group_by,
            filter: filter.clone(),
            dry_run: self.dry_run,
        };
        let Plan { groups, brake } = crate::forget::plan(repository, &options, &context.stop)?;
        let removed: Vec<ObjectName> = groups.iter().flat_map(Group::removed).map(|named| named.name).collect();
        let brake = brake.filter(|_| !self.yes_really);
        // With a brake, nothing is done; what would be done is still worth seeing if it was asked for.
        let tense = match (&brake, self.dry_run) {
            (None, false) => Tense::Done,
            _ => Tense::Would,
        };
        if tense == Tense::Done {
            crate::forget::forget(repository, &removed, &mut |_| Ok(()))?;
        }
        if brake.is_none() || self.dry_run || self.explain {
            self.show(context, &groups, &options, tense)?;
        }
        brake.map_or(Ok(!removed.is_empty()), Err)
    }

    fn show(&self, context: &Context, groups: &[Group], options: &ForgetOptions, tense: Tense) -> Result<()> {
        if context.output.json {
            return groups.iter().try_for_each(|group| context.print_json(&group_json(group, &options.policy, tense)));
        }
        let words: String = groups.iter().map(|group| self.words(group, tense)).collect();
        if self.explain || self.dry_run {
            context.print(&words)?;
        } else {
            context.tell(&words)?;
        }
        if groups.is_empty() { context.tell("There are no such snapshots\n") } else { Ok(()) }
    }

    fn words(&self, group: &Group, tense: Tense) -> String {
        let about = common(group.host.as_deref(), group.paths.as_deref(), group.tags.as_deref());
        let removed = group.removed().count();
        let kept = group.verdicts.len() - removed;
        let verb = if tense == Tense::Would { "would forget" } else { "forgot" };
        let mut words = if about.is_empty() { String::new() } else { format!("{about}: ") };
        words.push_str(&format!("kept {}, {verb} {removed}\n", text::count(kept as u64, "snapshot", "snapshots")));
        if self.explain || self.dry_run {
            let titles = ["", "ID", "Time", "Tags", "Why"];
            let mut rows = vec![titles.map(String::from).to_vec()];
            rows.extend(group.verdicts.iter().map(row));
            words.push_str(&text::table(&rows, &[]));
        }
        words
    }
}

fn row(verdict: &Verdict) -> Vec<String> {
    let snapshot = &verdict.named.snapshot;
    let is_kept = !verdict.reasons.is_empty();
    let reasons: Vec<String> = verdict.reasons.iter().map(Reason::to_string).collect();
    vec![
        if is_kept { "keep" } else { "forget" }.to_owned(),
        verdict.named.name.short(),
        text::local_time(snapshot.time),
        text::line(&snapshot.tags.join(",")),
        if is_kept { text::line(&reasons.join("; ")) } else { "no rule keeps it".to_owned() },
    ]
}

/// A snapshot that cannot be read, or is missing, and that is named by its whole id: with a tomb nobody misses it any more.
fn given_up(repository: &Repository, snapshots: &Snapshots, text: &str) -> Result<Option<ObjectName>> {
    if let Some(name) = damaged(snapshots, text) {
        return Ok(Some(name));
    }
    let Ok(name) = ObjectName::parse(text) else { return Ok(None) };
    if snapshots.names().any(|stored| stored == name) {
        return Ok(None);
    }
    let is_it = |missing: &crate::repository::missing::Missing| missing.name == name && !missing.is_stored;
    Ok(repository.missing_snapshots(snapshots)?.iter().any(is_it).then_some(name))
}

/// A damaged snapshot is forgotten only by those who write its whole id.
fn damaged(snapshots: &Snapshots, text: &str) -> Option<ObjectName> {
    let name = ObjectName::parse(text).ok()?;
    snapshots.damaged.iter().any(|(other, _)| *other == name).then_some(name)
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tense {
    Done,
    Would,
}

/// A group for programs, with restic's names. Counters tell what is left of each rule's number after the snapshot.
fn group_json(group: &Group, policy: &Policy, tense: Tense) -> Value {
    let list = |is_kept: bool| -> Vec<Value> {
        let chosen = group.verdicts.iter().filter(|verdict| verdict.reasons.is_empty() != is_kept);
        chosen.map(|verdict| snapshot::json(&verdict.named)).collect()
    };
    let mut left: Map<String, Value> = policy
        .counts
        .iter()
        .map(|(period, count)| {
            let number = if let Count::Most(most) = count { i64::from(*most) } else { -1 };
            (period.word().replace('-', "_"), number.into())
        })
        .collect();
    let mut reasons = Vec::new();
    for verdict in group.verdicts.iter().filter(|verdict| !verdict.reasons.is_empty()) {
        let matches: Vec<&str> = verdict.reasons.iter().map(|reason| reason.rule.as_str()).collect();
        for nth in verdict.reasons.iter().filter_map(|reason| reason.nth) {
            if let Some(of) = nth.of {
                left.insert(nth.period.word().replace('-', "_"), (of - nth.number).into());
            }
        }
        let snapshot = snapshot::json(&verdict.named);
        reasons.push(json!({ "snapshot": snapshot, "matches": matches, "counters": left }));
    }
    json!({
        "message_type": "group",
        "dry_run": tense == Tense::Would,
        "group_key": snapshot::group_key(group.host.as_deref(), group.paths.as_deref(), group.tags.as_deref()),
        "keep": list(true),
        "remove": list(false),
        "reasons": reasons,
    })
}

fn count(text: &str) -> std::result::Result<Count, String> {
    match text.parse() {
        _ if text == "all" => Ok(Count::All),
        Ok(0) => Err("keeping none is no rule; leave it out".into()),
        Ok(number) => Ok(Count::Most(number)),
        Err(_) => Err(format!("\"{text}\" is no number; write for example 7, or all")),
    }
}

fn stretch(text: &str) -> std::result::Result<Stretch, String> {
    let wrong = || format!("\"{text}\" is no stretch of time; write for example 14d or 1y6m (y, m, w, d, h)");
    Stretch::parse(text).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!((count("7"), count("all")), (Ok(Count::Most(7)), Ok(Count::All)));
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
        assert!(stretch("5m3x").is_err());
    }
}
