//! `firn history`: the versions of one path. Not for: looking for paths (see `find`, `deleted`).

use super::context::{Context, absolute};
use super::past::{Lines, Past, Told, letter};
use super::select::Selection;
use super::text;
use crate::error::{Error, ErrorKind, Result};
use crate::history::query::{Scope, Seen};
use crate::history::record::State;
use crate::repository::snapshots::Named;
use serde_json::json;
use std::ffi::OsString;
use std::sync::Arc;

/// List the versions of a file or folder
///
/// For each version that is in any snapshot: when it was first and last seen, its size, when it was modified, what is different from
/// the version before, and where to get it: "firn restore" and "firn dump" take the last column as it stands. A folder is another
/// version if anything in it is. The first run reads all snapshots and notes what changed in them, later ones only what is new.
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
        let lines = past.catalog.ask(&past.reporter, &context.stop, &mut |catalog| {
            let mut lines = Vec::new();
            for scope in catalog.scopes(&|named| filter.wants(&named.snapshot)) {
                let seen = scope.versions(&path)?;
                if let (false, Some(newest)) = (seen.is_empty(), scope.line().newest()) {
                    lines.push((newest.clone(), events(&scope, &seen)));
                }
            }
            Ok(lines)
        })?;
        if lines.is_empty() {
            let shown = if path.is_empty() { "/".into() } else { text::escape(&path) };
            return Err(Error::new(ErrorKind::NotFound, format!("\"{shown}\" is in no snapshot"))
                .with_hint("\"firn find NAME\" looks for a name in all snapshots."));
        }
        let mut out = Lines::new();
        let several = lines.len() > 1;
        for (newest, events) in &lines {
            if context.global.json {
                for event in events {
                    out.json(&event.json(newest, &path))?;
                }
                continue;
            }
            if several {
                out.text(&heading(newest))?;
            }
            print(&mut out, events, &path)?;
        }
        out.finish()?;
        Ok(past.code())
    }
}

fn events(scope: &Scope<'_>, seen: &[Seen]) -> Vec<Event> {
    let mut events = Vec::with_capacity(seen.len());
    let mut before: Option<&Seen> = None;
    for (at, version) in seen.iter().enumerate() {
        let change = before.map_or("added", |before| difference(&before.state, &version.state));
        events.extend(Told::new(scope, version).map(|told| Event::Version(told, change)));
        let after = scope.after(version.last);
        before = Some(version);
        if after.is_some() && seen.get(at + 1).map(|next| next.first) != after {
            events.extend(after.and_then(|after| scope.snapshot(after)).cloned().map(Event::Removed));
            before = None;
        }
    }
    events
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
    fn json(&self, newest: &Named, path: &[u8]) -> serde_json::Value {
        match self {
            Event::Version(told, change) => {
                let mut value = told.json("version", path);
                value["change"] = json!(change);
                value
            }
            Event::Removed(named) => json!({
                "message_type": "removed",
                "path": String::from_utf8_lossy(path),
                "change": "removed",
                "first_seen": named.snapshot.time.to_string(),
                "snapshot_id": named.name,
                "short_id": named.name.short(),
                "hostname": newest.snapshot.host,
            }),
        }
    }
}

fn heading(newest: &Named) -> String {
    let paths: Vec<String> = newest.snapshot.paths.iter().map(|path| text::escape(&path.0)).collect();
    format!("Snapshots of \"{}\" from the host \"{}\":\n", paths.join(" "), text::line(&newest.snapshot.host))
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
    use crate::cli::past::kind_name;
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
