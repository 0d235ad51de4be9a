//! What is said of snapshots and of groups of them. Not for: choosing them (see `args`).

use super::text;
use crate::repository::snapshots::Named;
use serde_json::{Map, Value, json};

/// What the snapshots of a group have in common, in words; nothing if they are grouped by nothing.
pub(in crate::cli) fn common(host: Option<&str>, paths: Option<&[Vec<u8>]>, tags: Option<&[String]>) -> String {
    let mut about = Vec::new();
    about.extend(host.map(|host| format!("host {}", text::line(host))));
    about.extend(paths.into_iter().flatten().map(|path| text::escape(path)));
    about.extend(tags.map(|tags| format!("tags [{}]", text::line(&tags.join(", ")))));
    about.join(" ")
}

/// What the snapshots of a group have in common, for programs; null is what they are not grouped by.
pub(in crate::cli) fn group_key(host: Option<&str>, paths: Option<&[Vec<u8>]>, tags: Option<&[String]>) -> Value {
    let mut key = json!({ "hostname": host, "paths": null, "tags": tags });
    if let Some(paths) = paths {
        text::set_paths(&mut key, "paths", &paths.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    key
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
    let mut value = json!({
        "time": snapshot.time.to_string(),
        "tree": snapshot.tree,
        "hostname": snapshot.host,
        "username": snapshot.user,
        "uid": snapshot.uid,
        "gid": snapshot.gid,
        "message_type": "snapshot",
        "snapshot_id": name,
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
    let paths: Vec<&[u8]> = snapshot.paths.iter().map(|path| path.0.as_slice()).collect();
    text::set_paths(&mut value, "paths", &paths);
    value
}
