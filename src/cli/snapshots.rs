//! `firn snapshots`: which there are. Not for: what is in them (see `ls`).

use super::context::Context;
use super::text;
use crate::error::Result;
use crate::format::snapshot::Snapshot;
use crate::repository::Repository;
use crate::repository::snapshots::Named;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// List the snapshots, the oldest first
#[derive(Debug, clap::Args)]
#[command(visible_alias = "list")]
pub(crate) struct Args {
    /// Only those of this host
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Option<String>,

    /// Only those with this tag; several: those with all of them
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    tag: Vec<String>,

    /// Those that were forgotten and can still be undeleted
    #[arg(long)]
    forgotten: bool,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        let snapshots = context.snapshots(&repository)?;
        context.warn_of_missing(&repository, &snapshots)?;
        let all = if self.forgotten { &snapshots.forgotten } else { &snapshots.live };
        let wanted: Vec<&Named> = all.iter().filter(|named| self.wants(&named.snapshot)).collect();
        let held = repository.holds()?;
        let mut forgotten = HashMap::new();
        if self.forgotten {
            let tombs = &snapshots.tombs;
            for named in &wanted {
                // Taken back meanwhile, if it is not there.
                if let Some(stored) = tombs.get(&named.name)
                    && let Ok(tomb) = repository.tomb(named.name)
                {
                    let stored = Timestamp::try_from(*stored).unwrap_or(tomb.time);
                    forgotten.insert(named.name, Since { said: tomb.time, stored });
                }
            }
        }
        if context.global.json {
            for named in wanted {
                let mut value = json(named);
                value["pinned"] = json!(held.contains(&named.name));
                if held.contains(&named.name)
                    && let Ok(hold) = repository.hold(named.name)
                {
                    value["pinned_reason"] = json!(hold.reason);
                }
                if let Some(since) = forgotten.get(&named.name) {
                    value["forgotten_at"] = json!(since.said.to_string());
                    value["forgotten_since"] = json!(since.stored.to_string());
                }
                context.print_json(&value)?;
            }
        } else if wanted.is_empty() {
            let why = match (self.forgotten, all.is_empty()) {
                (true, true) => "no forgotten snapshots",
                (false, true) => "no snapshots yet",
                _ => "no such snapshots",
            };
            context.tell(&format!("There are {why}\n"))?;
        } else {
            let notes = |named: &Named| {
                let pinned = held.contains(&named.name).then(|| pinned(&repository, named));
                let forgotten = forgotten.get(&named.name).map(Since::words);
                Some([pinned, forgotten].into_iter().flatten().collect::<Vec<_>>().join(", "))
            };
            context.print(&table(&wanted, &notes))?;
        }
        // What cannot be read was told about; the list is not complete then.
        Ok(if snapshots.damaged.is_empty() { 0 } else { 3 })
    }

    fn wants(&self, snapshot: &Snapshot) -> bool {
        self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.tag.iter().all(|tag| snapshot.tags.contains(tag))
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

fn table(wanted: &[&Named], notes: &dyn Fn(&Named) -> Option<String>) -> String {
    let titles = ["ID", "Time", "Host", "Paths", "Files", "Size", "Tags"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for named in wanted {
        let Named { name, snapshot } = named;
        let mut paths = snapshot.paths.iter().map(|path| text::escape(&path.0));
        rows.push(vec![
            name.short(),
            text::local_time(snapshot.time),
            text::line(&snapshot.host),
            paths.next().unwrap_or_default(),
            snapshot.totals.files.to_string(),
            text::size(snapshot.totals.bytes),
            text::line(&snapshot.tags.join(",")),
            notes(named).unwrap_or_default(),
        ]);
        // One line for each further path.
        rows.extend(paths.map(|path| vec![String::new(), String::new(), String::new(), path]));
    }
    let mut text = text::table(&rows, &[4, 5]);
    let number = text::count(wanted.len() as u64, "snapshot", "snapshots");
    text.push_str(&format!("{number}\n"));
    text
}

/// A snapshot for programs, with restic's names.
pub(crate) fn json(named: &Named) -> Value {
    let Named { name, snapshot } = named;
    let mut summary: Map<String, Value> =
        snapshot.summary.iter().map(|(name, count)| (name.clone(), Value::from(*count))).collect();
    summary.insert("backup_start".into(), json!(snapshot.started.to_string()));
    summary.insert("backup_end".into(), json!(snapshot.finished.to_string()));
    summary.insert("total_files_processed".into(), snapshot.totals.files.into());
    summary.insert("total_bytes_processed".into(), snapshot.totals.bytes.into());
    let paths: Vec<_> = snapshot.paths.iter().map(|path| String::from_utf8_lossy(&path.0)).collect();
    let mut value = json!({
        "time": snapshot.time.to_string(),
        "tree": snapshot.tree,
        "paths": paths,
        "hostname": snapshot.host,
        "username": snapshot.user,
        "uid": snapshot.uid,
        "gid": snapshot.gid,
        "id": name,
        "short_id": name.short(),
        "tags": snapshot.tags,
        "program_version": snapshot.program,
        "summary": summary,
        "excludes": snapshot.excludes,
        "issues_total": snapshot.issues_total,
    });
    let mut set = |name: &str, text: Option<Value>| {
        if let Some(text) = text {
            value[name] = text;
        }
    };
    set("parent", snapshot.parent.map(|parent| json!(parent)));
    set("label", snapshot.label.as_ref().map(|text| json!(text)));
    set("description", snapshot.description.as_ref().map(|text| json!(text)));
    if snapshot.paths.iter().any(|path| std::str::from_utf8(&path.0).is_err()) {
        let exact: Vec<String> = snapshot.paths.iter().map(|path| text::base64(&path.0)).collect();
        set("paths_base64", Some(json!(exact)));
    }
    value
}
