//! `firn forget`: its arguments, and what is kept and dropped in words. Not for: freeing space (see `prune`).

use super::context::Context;
use super::{message, prune, snapshots, text};
use crate::error::{Error, ErrorKind, Result};
use crate::forget::policy::{Count, Period, Policy, Stretch};
use crate::forget::{Filter, ForgetOptions, Group, Grouping, Verdict};
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::snapshots::{Named, Snapshots};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Forget snapshots, by name or by a policy
///
/// Forgotten snapshots are no longer listed, but stay in the repository until a prune deletes them; until then "firn undelete" takes
/// them back. A policy looks at the snapshots of each group (see --group-by) from the newest to the oldest. A rule like
/// --keep-daily 7 keeps the newest snapshot of each of the last 7 days that have any; while a rule has some of its number left, the
/// oldest snapshot is kept as well. What no rule keeps is forgotten. Pinned snapshots and those whose date cannot be right are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Snapshots to forget
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,

    #[command(flatten)]
    rules: Rules,

    /// Look only at snapshots of this host
    #[arg(short = 'H', long, value_name = "HOST", help_heading = "Which snapshots a policy looks at")]
    host: Vec<String>,

    /// Look only at snapshots with this tag; with "a,b" those that have both; several times: any of them
    #[arg(long, value_name = "TAGS", help_heading = "Which snapshots a policy looks at")]
    tag: Vec<String>,

    /// Look only at snapshots of this path
    #[arg(long, value_name = "PATH", help_heading = "Which snapshots a policy looks at")]
    path: Vec<OsString>,

    /// What the snapshots of a group have in common: any of host, paths, tags, or nothing
    #[arg(short = 'g', long, value_name = "WHAT", default_value = "host,paths", value_parser = grouping)]
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
    settings: prune::Settings,
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
            tags: tag_lists(&self.keep_tag),
        }
    }
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        if let Some(error) = self.contradiction() {
            message::fatal(&error, 2, context.global.json);
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
        let has_filters = !self.host.is_empty() || !self.tag.is_empty() || !self.path.is_empty();
        let (message, hint) = match (self.snapshots.is_empty(), has_rules) {
            (true, true) => return None,
            (true, false) => (
                "Nothing says which snapshots to forget",
                "Name snapshots, or rules by which some are kept, such as --keep-daily 7 --keep-weekly 4.",
            ),
            (false, true) => ("Snapshots are named, and rules are given", "Give one or the other."),
            (false, false) if has_filters => (
                "Snapshots are named, and hosts, tags or paths to look at",
                "The latter go with rules such as --keep-daily 7.",
            ),
            (false, false) => return None,
        };
        Some(Error::new(ErrorKind::Input, message).with_hint(hint))
    }

    /// Whether anything was forgotten, or would be.
    fn by_name(&self, context: &Context, repository: &Repository, snapshots: &Snapshots) -> Result<bool> {
        let mut chosen: Vec<Named> = Vec::new();
        for text in &self.snapshots {
            let named = match snapshots.resolve(text) {
                Ok(named) => named,
                Err(error) => {
                    self.give_up(context, repository, snapshots, text, error)?;
                    continue;
                }
            };
            if chosen.iter().all(|other| other.name != named.name) {
                chosen.push(named.clone());
            }
        }
        if !chosen.is_empty() && chosen.len() == snapshots.live.len() && !self.yes_really {
            return Err(Error::new(ErrorKind::Brake, "That would forget all snapshots; nothing was forgotten")
                .with_hint("If that is what you want, say --yes-really."));
        }
        if !self.dry_run {
            crate::forget::forget(repository, &chosen)?;
        }
        for named in &chosen {
            if context.global.json {
                let value =
                    json!({ "message_type": "forgotten", "dry_run": self.dry_run, "snapshot": snapshots::json(named) });
                context.print_json(&value)?;
            } else {
                let verb = if self.dry_run { "Would forget" } else { "Forgot" };
                context.tell(&format!("{verb} {}\n", text::line(&crate::repository::snapshots::describe(named))))?;
            }
        }
        Ok(true)
    }

    /// A snapshot that is missing, named by its whole id, is given up: with a tomb nobody misses it any more. So is a damaged one.
    fn give_up(
        &self,
        context: &Context,
        repository: &Repository,
        snapshots: &Snapshots,
        text: &str,
        error: Error,
    ) -> Result<()> {
        let Ok(name) = ObjectName::parse(text) else { return Err(error) };
        let is_damaged = snapshots.damaged.iter().any(|(damaged, _)| *damaged == name);
        let is_missing = || -> Result<bool> {
            Ok(repository
                .missing_snapshots(snapshots)?
                .iter()
                .any(|missing| missing.name == name && !missing.is_stored))
        };
        if !is_damaged && !is_missing()? {
            return Err(error);
        }
        repository.check_writable()?;
        if !self.dry_run {
            repository.put_tomb(name)?;
        }
        match context.global.json {
            true => {
                context.print_json(&json!({ "message_type": "given_up", "dry_run": self.dry_run, "snapshot_id": name }))
            }
            false => context.tell(&format!("Gave up the snapshot {name}\n")),
        }
    }

    fn by_policy(&self, context: &Context, repository: &Repository, snapshots: &Snapshots) -> Result<bool> {
        let keep: HashSet<_> = self
            .rules
            .keep_id
            .iter()
            .map(|text| snapshots.resolve(text).map(|named| named.name))
            .collect::<Result<_>>()?;
        let options = ForgetOptions {
            policy: self.rules.policy(),
            keep,
            keep_path_yearly: self.rules.keep_path_yearly,
            grouping: self.group_by,
            filter: Filter {
                hosts: self.host.clone(),
                tags: tag_lists(&self.tag),
                paths: self.path.iter().map(|path| path.clone().into_vec()).collect(),
            },
            consent: self.yes_really,
        };
        let groups = crate::forget::plan(repository, &options, &context.stop)?;
        let removed: Vec<Named> = groups.iter().flat_map(Group::removed).cloned().collect();
        if !self.dry_run {
            crate::forget::forget(repository, &removed)?;
        }
        if context.global.json {
            for group in &groups {
                context.print_json(&group_json(group, self.dry_run))?;
            }
        } else {
            let words: String = groups.iter().map(|group| self.words(group)).collect();
            if self.explain || self.dry_run {
                context.print(&words)?
            } else {
                context.tell(&words)?
            }
            if groups.is_empty() {
                context.tell("There are no such snapshots\n")?;
            }
        }
        Ok(!removed.is_empty())
    }

    fn words(&self, group: &Group) -> String {
        let mut about = Vec::new();
        about.extend(group.host.as_ref().map(|host| format!("host {}", text::line(host))));
        about.extend(group.paths.iter().flatten().map(|path| text::escape(path)));
        about.extend(group.tags.as_ref().map(|tags| format!("tags [{}]", text::line(&tags.join(", ")))));
        let removed = group.removed().count();
        let kept = group.verdicts.len() - removed;
        let verb = if self.dry_run { "would forget" } else { "forgot" };
        let mut words = match about.is_empty() {
            true => String::new(),
            false => format!("{}: ", about.join(" ")),
        };
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
    vec![
        if is_kept { "keep" } else { "forget" }.to_owned(),
        verdict.named.name.short(),
        text::local_time(snapshot.time),
        text::line(&snapshot.tags.join(",")),
        if is_kept { text::line(&verdict.reasons.join("; ")) } else { "no rule keeps it".to_owned() },
    ]
}

/// A group for programs, with restic's names.
fn group_json(group: &Group, dry_run: bool) -> Value {
    let list = |is_kept: bool| -> Vec<Value> {
        let chosen = group.verdicts.iter().filter(|verdict| verdict.reasons.is_empty() != is_kept);
        chosen.map(|verdict| snapshots::json(&verdict.named)).collect()
    };
    let reasons: Vec<Value> = group
        .verdicts
        .iter()
        .filter(|verdict| !verdict.reasons.is_empty())
        .map(|verdict| json!({ "snapshot": snapshots::json(&verdict.named), "matches": verdict.reasons }))
        .collect();
    let paths: Option<Vec<_>> =
        group.paths.as_ref().map(|paths| paths.iter().map(|path| String::from_utf8_lossy(path)).collect());
    json!({
        "message_type": "group",
        "dry_run": dry_run,
        "tags": group.tags,
        "host": group.host,
        "paths": paths,
        "keep": list(true),
        "remove": list(false),
        "reasons": reasons,
    })
}

/// Lists of tags, each written with commas.
fn tag_lists(texts: &[String]) -> Vec<Vec<String>> {
    texts.iter().map(|text| text.split(',').map(str::to_owned).collect()).collect()
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

fn grouping(text: &str) -> std::result::Result<Grouping, String> {
    let mut grouping = Grouping { host: false, paths: false, tags: false };
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "host" => grouping.host = true,
            "paths" | "path" => grouping.paths = true,
            "tags" | "tag" => grouping.tags = true,
            _ => {
                return Err(format!(
                    "\"{word}\" is nothing to group by; write host, paths, tags or several with commas"
                ));
            }
        }
    }
    Ok(grouping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!((count("7"), count("all")), (Ok(Count::Most(7)), Ok(Count::All)));
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
        assert_eq!(grouping(""), Ok(Grouping { host: false, paths: false, tags: false }));
        assert_eq!(grouping("tags,host"), Ok(Grouping { host: true, paths: false, tags: true }));
        assert!(grouping("size").is_err() && stretch("5m3x").is_err());
        assert_eq!(tag_lists(&["a,b".into(), "c".into()]), [vec!["a", "b"], vec!["c"]]);
    }
}
