//! `firn history`: the versions of one path. Not for: looking for paths (see `find`, `deleted`).

use crate::cli::args::select::{Selection, require_some};
use crate::cli::context::{Context, absolute};
use crate::cli::output::past::{Lines, Past, Told, in_no_snapshot, letter};
use crate::cli::output::text;
use crate::error::Result;
use crate::history::record::State;
use crate::history::runs;
use crate::repository::snapshots::Named;
use serde_json::json;
use std::ffi::OsString;
use std::sync::Arc;

/// List the versions of a file or folder
///
/// For each version that is in any snapshot: when it was first and last seen, its size, when it was modified, what is different from
/// the version before, and where to get it: "firn restore" and "firn dump" take the last column as it stands. A folder is another
/// version if anything in it is. It counts as removed if a later snapshot of the host lacks it that has the path among its sources or
/// below one of them. The first run reads all snapshots and notes what changed in them, later ones only what is new.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The path, as it was on the machine that was backed up
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    path: OsString,

    #[command(flatten)]
    selection: Selection,
}

/// Something that happened to a path.
enum Event {
    /// Another version, and what it has of another kind than the one before.
    Version(Told, &'static str),
    /// It is not there any more, from this snapshot on.
    Removed(Arc<Named>),
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let path = absolute(&self.path)?;
        let filter = self.selection.filter()?;
        let mut past = Past::open(context, "history")?;
        let hosts = past.catalog.ask(&past.reporter, &context.stop, &mut |catalog| {
            let lines = runs::Lines::new(catalog, &|named| filter.wants(&named.snapshot));
            Ok(lines.events(&path, &lines.runs(&path)?))
        })?;
        if hosts.is_empty() {
            require_some(&past.snapshots.live, &filter)?;
            return Err(in_no_snapshot(&path));
        }
        let mut out = Lines::new();
        let several = hosts.len() > 1;
        for events in hosts {
            let events = with_changes(events);
            if context.output.json {
                for event in &events {
                    out.json(&event.json(&path))?;
                }
                continue;
            }
            if let (true, Some(Event::Version(told, _))) = (several, events.first()) {
                out.text(&format!("On the host \"{}\":\n", text::line(&told.last.snapshot.host)))?;
            }
            print(&mut out, &events, &path)?;
        }
        out.finish()?;
        Ok(past.code())
    }
}

/// Says of each version what is different from the one before.
fn with_changes(events: Vec<runs::Event>) -> Vec<Event> {
    let mut before: Option<State> = None;
    let with_change = |event| match event {
        runs::Event::Version { run, is_current } => {
            let change = before.map_or("added", |before| difference(&before, &run.state));
            before = Some(run.state);
            Event::Version(Told::new(&run, is_current), change)
        }
        runs::Event::Removed(named) => {
            before = None;
            Event::Removed(named)
        }
    };
    events.into_iter().map(with_change).collect()
}

/// What is different, in a word.
fn difference(before: &State, after: &State) -> &'static str {
    if before.kind != after.kind {
        "type"
    } else if (before.body, before.size) != (after.body, after.size) {
        "content"
    } else {
        "metadata"
    }
}

impl Event {
    fn json(&self, path: &[u8]) -> serde_json::Value {
        match self {
            Event::Version(told, change) => {
                let mut value = told.json("version", path);
                value["change"] = json!(change);
                value
            }
            Event::Removed(named) => {
                let mut value = json!({
                    "message_type": "removed",
                    "change": "removed",
                    "first_seen": named.snapshot.time.to_string(),
                    "snapshot_id": named.name,
                    "short_id": named.name.short(),
                    "hostname": named.snapshot.host,
                });
                text::set_path(&mut value, "path", if path.is_empty() { b"/" } else { path });
                value
            }
        }
    }
}

fn print(out: &mut Lines, events: &[Event], path: &[u8]) -> Result<()> {
    let titles = ["First seen", "Last seen", "T", "Size", "Modified", "Change"].map(String::from).to_vec();
    let row = |event: &Event| match event {
        Event::Version(told, change) => vec![
            text::local_time(told.first.snapshot.time),
            text::local_time(told.last.snapshot.time),
            letter(told.state.kind).to_string(),
            text::size(told.state.size),
            text::file_time(told.state.mtime),
            (*change).to_owned(),
        ],
        Event::Removed(named) => {
            let time = text::local_time(named.snapshot.time);
            [&time, "", "", "", "", "removed"].map(String::from).to_vec()
        }
    };
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(events.iter().map(row)).collect();
    let table = text::table(&rows, &[3]);
    let mut lines = table.lines();
    let width = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    out.text(&format!("{:width$}  Snapshot\n", lines.next().unwrap_or_default()))?;
    let mut versions = 0;
    for (line, event) in lines.zip(events) {
        match event {
            Event::Version(told, _) => {
                versions += 1;
                out.place(&format!("{line:width$}  "), &told.last, path, "")?;
            }
            Event::Removed(named) => out.text(&format!("{line:width$}  {}\n", named.name.short()))?,
        }
    }
    out.text(&format!("{}\n", text::count(versions, "version", "versions")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::past::kind_name;
    use crate::format::tree::Timestamp;
    use crate::history::record::Kind;

    #[test]
    fn what_is_different_in_a_word() {
        let state = State { kind: Kind::File, size: 1, mtime: Timestamp::default(), body: [1; 8], meta: [1; 8] };
        let later = State { mtime: Timestamp { seconds: 1, nanos: 0 }, ..state };
        assert_eq!(difference(&state, &later), "metadata");
        assert_eq!(difference(&state, &State { body: [2; 8], ..later }), "content");
        assert_eq!(difference(&state, &State { kind: Kind::Fifo, ..state }), "type");
        assert_eq!((kind_name(Kind::Fifo), letter(Kind::Directory)), ("fifo", 'd'));
    }
}
