//! `firn snapshots`: which there are. Not for: what is in them (see `ls`).

use crate::cli::args::grouping;
use crate::cli::args::select::Selection;
use crate::cli::context::Context;
use crate::cli::output::snapshot::{self, common, group_key};
use crate::cli::output::text;
use crate::error::Result;
use crate::forget::Grouping;
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::dates::{Dates, Doubt, is_ahead_of_itself};
use crate::repository::snapshots::Named;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// List the snapshots, the oldest first
///
/// The order is that in which they were made, as far as the dates that they bear can be believed; one that cannot is marked. One
/// is "incomplete" if something could not be read when it was made.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list")]
pub(crate) struct Args {
    /// Those that were forgotten and can still be undeleted
    #[arg(long)]
    forgotten: bool,

    /// Only the newest N of each group; without --group-by of each host and set of paths
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    latest: Option<u32>,

    /// List groups one by one: any of host, paths, tags; "none": all are one group
    #[arg(short = 'g', long, value_name = "WHAT", value_parser = grouping::parse)]
    group_by: Option<Grouping>,

    #[command(flatten)]
    selection: Selection,
}

/// What is shown of snapshots besides what they say themselves.
struct Notes<'a> {
    repository: &'a Repository,
    dates: &'a Dates,
    held: HashSet<ObjectName>,
    forgotten: HashMap<ObjectName, Since>,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let filter = self.selection.filter()?;
        let repository = context.open()?;
        let snapshots = context.all_snapshots(&repository)?;
        context.warn_of_missing(&repository.missing_snapshots(&snapshots)?, "snapshots");
        let all = if self.forgotten { &snapshots.forgotten } else { &snapshots.live };
        let wanted: Vec<&Named> = all.iter().filter(|named| filter.wants(&named.snapshot)).collect();
        let mut notes = Notes {
            repository: &repository,
            dates: &snapshots.dates,
            held: repository.holds()?,
            forgotten: HashMap::new(),
        };
        if self.forgotten {
            for named in &wanted {
                // Taken back meanwhile, if it is not there.
                if let Some(stored) = snapshots.tombs.get(&named.name)
                    && let Ok(tomb) = repository.tomb(named.name)
                {
                    let stored = Timestamp::try_from(*stored).unwrap_or(tomb.time);
                    notes.forgotten.insert(named.name, Since { said: tomb.time, stored });
                }
            }
        }
        let wanted = self.newest(wanted);
        if context.output.json {
            self.print_json(context, &wanted, &notes)?;
        } else if wanted.is_empty() {
            let why = match (self.forgotten, all.is_empty()) {
                (true, true) => "no forgotten snapshots",
                (false, true) => "no snapshots yet",
                _ => "no such snapshots",
            };
            context.tell(&format!("There are {why}\n"))?;
        } else {
            context.print(&self.words(&wanted, &notes))?;
        }
        // What cannot be read was told about; the list is not complete then.
        Ok(if snapshots.is_readable() { 0 } else { 3 })
    }

    /// Those that are the newest of their groups, if that is asked for, in the same order.
    fn newest<'s>(&self, wanted: Vec<&'s Named>) -> Vec<&'s Named> {
        let Some(most) = self.latest else { return wanted };
        let groups = self.group_by.unwrap_or_default().split(wanted.iter().copied());
        let newest: HashSet<ObjectName> =
            groups.values().flat_map(|group| group.iter().rev().take(most as usize)).map(|named| named.name).collect();
        wanted.into_iter().filter(|named| newest.contains(&named.name)).collect()
    }

    fn words(&self, wanted: &[&Named], notes: &Notes<'_>) -> String {
        let Some(grouping) = self.group_by else { return table(wanted, notes) };
        let groups = grouping.split(wanted.iter().copied());
        let mut texts = Vec::with_capacity(groups.len());
        for (key, group) in &groups {
            let about = common(key.host.as_deref(), key.paths.as_deref(), key.tags.as_deref());
            let heading = if about.is_empty() { String::new() } else { format!("{about}:\n") };
            texts.push(format!("{heading}{}", table(group, notes)));
        }
        texts.join("\n")
    }

    fn print_json(&self, context: &Context, wanted: &[&Named], notes: &Notes<'_>) -> Result<()> {
        let Some(grouping) = self.group_by else {
            return wanted.iter().try_for_each(|named| context.print_json(&notes.json(named)));
        };
        for (key, group) in grouping.split(wanted.iter().copied()) {
            let snapshots: Vec<Value> = group.iter().map(|named| notes.json(named)).collect();
            context.print_json(&json!({
                "message_type": "group",
                "group_key": group_key(key.host.as_deref(), key.paths.as_deref(), key.tags.as_deref()),
                "snapshots": snapshots,
            }))?;
        }
        Ok(())
    }
}

impl Notes<'_> {
    fn json(&self, named: &Named) -> Value {
        let mut value = snapshot::json(named);
        value["pinned"] = json!(self.held.contains(&named.name));
        if self.held.contains(&named.name)
            && let Ok(hold) = self.repository.hold(named.name)
        {
            value["pinned_reason"] = json!(hold.reason);
        }
        if let Some(since) = self.forgotten.get(&named.name) {
            value["forgotten_at"] = json!(since.said.to_string());
            value["forgotten_since"] = json!(since.stored.to_string());
        }
        if let Some(doubt) = self.doubt(named) {
            value["date_doubt"] = json!(doubt);
        }
        value
    }

    fn doubt(&self, named: &Named) -> Option<&'static str> {
        let date = self.dates.of(&named.name, &named.snapshot);
        date.doubt
            .map(Doubt::words)
            .or_else(|| is_ahead_of_itself(&named.snapshot).then_some("dated later than it was made"))
    }

    fn words(&self, named: &Named) -> String {
        let problems = named.snapshot.issues_total;
        let notes = [
            (problems > 0).then(|| format!("incomplete: {}", text::count(problems, "problem", "problems"))),
            self.doubt(named).map(str::to_owned),
            self.held.contains(&named.name).then(|| pinned(self.repository, named)),
            self.forgotten.get(&named.name).map(Since::words),
        ];
        notes.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// When a snapshot was forgotten: by the clock of the machine that did it, and by that of the store.
struct Since {
    said: Timestamp,
    stored: Timestamp,
}

impl Since {
    fn words(&self) -> String {
        let said = format!("forgotten {}", text::local_time(self.said));
        match self.said.duration_since(self.stored).as_secs().abs() {
            0..120 => said,
            _ => format!("{said} (stored {})", text::local_time(self.stored)),
        }
    }
}

/// That a snapshot is pinned, and why, if that can be read; it is pinned all the same if not.
fn pinned(repository: &Repository, named: &Named) -> String {
    let reason = repository.hold(named.name).ok().and_then(|hold| hold.reason);
    reason.map_or_else(|| "pinned".to_owned(), |reason| format!("pinned: {}", text::line(&reason)))
}

fn table(wanted: &[&Named], notes: &Notes<'_>) -> String {
    let has_labels = wanted.iter().any(|named| named.snapshot.label.is_some());
    let mut titles = ["ID", "Time", "Host", "Paths", "Files", "Size", "Tags"].map(String::from).to_vec();
    titles.extend(has_labels.then(|| "Label".to_owned()));
    let mut rows = vec![titles];
    for named in wanted {
        let Named { name, snapshot } = named;
        let mut paths = snapshot.paths.iter().map(|path| text::escape(&path.0));
        let mut row = vec![
            name.short(),
            text::local_time(snapshot.time),
            text::line(&snapshot.host),
            paths.next().unwrap_or_default(),
            snapshot.totals.files.to_string(),
            text::size(snapshot.totals.bytes),
            text::line(&snapshot.tags.join(",")),
        ];
        row.extend(has_labels.then(|| text::line(snapshot.label.as_deref().unwrap_or_default())));
        row.push(notes.words(named));
        rows.push(row);
        // One line for each further path.
        rows.extend(paths.map(|path| vec![String::new(), String::new(), String::new(), path]));
    }
    let mut text = text::table(&rows, &[4, 5]);
    let number = text::count(wanted.len() as u64, "snapshot", "snapshots");
    text.push_str(&format!("{number}\n"));
    text
}
