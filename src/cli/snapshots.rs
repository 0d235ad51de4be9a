//! `firn snapshots`: which there are. Not for: what is in them (see `ls`).

use super::context::Context;
use super::text;
use crate::error::Result;
use crate::format::snapshot::Snapshot;
use crate::repository::snapshots::Named;
use serde_json::{Map, Value, json};

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
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        let snapshots = context.snapshots(&repository)?;
        let wanted: Vec<&Named> = snapshots.live.iter().filter(|named| self.wants(&named.snapshot)).collect();
        if context.global.json {
            for named in wanted {
                context.print_json(&json(named))?;
            }
        } else if wanted.is_empty() {
            let why = if snapshots.live.is_empty() { "no snapshots yet" } else { "no such snapshots" };
            context.tell(&format!("There are {why}\n"))?;
        } else {
            context.print(&table(&wanted))?;
        }
        // What cannot be read was told about; the list is not complete then.
        Ok(if snapshots.damaged.is_empty() { 0 } else { 3 })
    }

    fn wants(&self, snapshot: &Snapshot) -> bool {
        self.host.as_ref().is_none_or(|host| *host == snapshot.host)
            && self.tag.iter().all(|tag| snapshot.tags.contains(tag))
    }
}

fn table(wanted: &[&Named]) -> String {
    let titles = ["ID", "Time", "Host", "Paths", "Files", "Size", "Tags"];
    let mut rows = vec![titles.map(String::from).to_vec()];
    for Named { name, snapshot } in wanted {
        let mut paths = snapshot.paths.iter().map(|path| text::escape(&path.0));
        rows.push(vec![
            name.short(),
            text::local_time(snapshot.time),
            text::line(&snapshot.host),
            paths.next().unwrap_or_default(),
            snapshot.totals.files.to_string(),
            text::size(snapshot.totals.bytes),
            text::line(&snapshot.tags.join(",")),
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
