//! How `firn diff` says what differs, to people and to programs. Not for: finding it out (see `crate::diff`).

use crate::cli::output::past::Lines;
use crate::cli::output::text;
use crate::diff::{Bytes, Difference, Field, Modifier, Side, Statistics, Text};
use crate::error::Result;
use crate::id::ObjectName;
use serde_json::{Map, Value, json};

/// Says what differs, a line or an object each.
pub(crate) struct Words {
    out: Lines,
    as_json: bool,
}

impl Words {
    pub(crate) fn new(as_json: bool) -> Words {
        Words { out: Lines::new(), as_json }
    }

    pub(crate) fn tell(&mut self, difference: &Difference<'_>) -> Result<()> {
        if self.as_json {
            return self.out.json(&object(difference));
        }
        let path = shown(difference);
        self.out.path(&format!("{:<5}", letters(difference.modifier)), &path)?;
        for field in &difference.fields {
            let (name, before, after) = sides(field);
            self.out.text(&format!("     {name}: {before} -> {after}\n"))?;
        }
        match &difference.text {
            Text::None => Ok(()),
            Text::Lines(lines) => {
                self.out.path("--- a", difference.path)?;
                self.out.path("+++ b", difference.path)?;
                self.out.lines(lines)
            }
            Text::Binary => self.out.text(&format!("     binary: {}\n", amounts(difference.bytes))),
            Text::TooLarge => self.out.text(&format!("     too large to show lines: {}\n", amounts(difference.bytes))),
        }
    }

    pub(crate) fn finish(
        mut self,
        statistics: &Statistics,
        source: ObjectName,
        target: Option<ObjectName>,
        quiet: bool,
    ) -> Result<()> {
        if self.as_json {
            self.out.json(&summary(statistics, source, target))?;
        } else if !quiet {
            self.out.text(&sums(statistics))?;
        }
        self.out.finish()
    }
}

/// restic's letters.
fn letters(modifier: Modifier) -> &'static str {
    match modifier {
        Modifier::Added => "+",
        Modifier::Removed => "-",
        Modifier::Content => "M",
        Modifier::Unmarked => "M?",
        Modifier::Kind => "T",
        Modifier::Metadata => "U",
    }
}

/// The path, with a slash behind a directory.
fn shown(difference: &Difference<'_>) -> Vec<u8> {
    let mut path = difference.path.to_vec();
    if difference.is_directory || path.is_empty() {
        path.push(b'/');
    }
    path
}

fn amounts(bytes: Bytes) -> String {
    format!("{} added, {} removed", text::size(bytes.added), text::size(bytes.removed))
}

/// The name of what differs, and how it was and is.
fn sides(field: &Field) -> (String, String, String) {
    let person = |(id, name): &(u32, Vec<u8>)| match name.as_slice() {
        b"" => id.to_string(),
        name => format!("{} ({id})", text::escape(name)),
    };
    let value = |value: &Option<Vec<u8>>| match value {
        None => "none".to_owned(),
        Some(value) if value.len() <= 100 => format!("\"{}\"", text::escape(value)),
        Some(value) => text::size(value.len() as u64),
    };
    match field {
        Field::Mode(before, after) => ("mode".into(), format!("{before:04o}"), format!("{after:04o}")),
        Field::User(before, after) => ("owner".into(), person(before), person(after)),
        Field::Group(before, after) => ("group".into(), person(before), person(after)),
        Field::Mtime(before, after) => {
            let (mut one, mut other) = (text::file_time(*before), text::file_time(*after));
            if one == other {
                one.push_str(&format!(".{:09}", before.nanos));
                other.push_str(&format!(".{:09}", after.nanos));
            }
            ("modified".into(), one, other)
        }
        Field::Links(before, after) => ("links".into(), before.to_string(), after.to_string()),
        Field::Flags(before, after) => ("flags".into(), format!("{before:#x}"), format!("{after:#x}")),
        Field::Attribute(name, before, after) => {
            (format!("attribute {}", text::escape(name)), value(before), value(after))
        }
    }
}

fn sums(statistics: &Statistics) -> String {
    let Statistics { added, removed, .. } = statistics;
    let row = |what: &str, new: u64, gone: u64, changed: String| {
        vec![what.to_owned(), format!("{new} new,"), format!("{gone} removed{changed}")]
    };
    let rows = [
        row("Files:", added.files, removed.files, format!(", {} changed", statistics.changed_files)),
        row("Folders:", added.dirs, removed.dirs, String::new()),
        row("Others:", added.others, removed.others, format!(", {} changed", statistics.changed_others)),
    ];
    let mut text = text::table(&rows, &[1]);
    if statistics.changed_metadata > 0 {
        text.push_str(&format!("Only metadata: {}\n", statistics.changed_metadata));
    }
    text.push_str(&format!("Added:   {}\nRemoved: {}\n", text::size(added.bytes), text::size(removed.bytes)));
    text
}

/// With restic's names where they mean the same.
fn object(difference: &Difference<'_>) -> Value {
    let path = if difference.path.is_empty() { b"/" } else { difference.path };
    let mut value = json!({
        "message_type": "change",
        "modifier": letters(difference.modifier),
    });
    text::set_path(&mut value, "path", path);
    if matches!(difference.modifier, Modifier::Content | Modifier::Unmarked) {
        value["bytes_added"] = json!(difference.bytes.added);
        value["bytes_removed"] = json!(difference.bytes.removed);
    }
    if !difference.fields.is_empty() {
        let mut fields = Map::new();
        for field in &difference.fields {
            let (name, before, after) = plain(field);
            fields.insert(name, json!({ "before": before, "after": after }));
        }
        value["metadata"] = fields.into();
    }
    match &difference.text {
        Text::None => {}
        Text::Lines(lines) => value["diff"] = json!(String::from_utf8_lossy(lines)),
        Text::Binary => value["binary"] = json!(true),
        Text::TooLarge => value["too_large"] = json!(true),
    }
    value
}

/// As `sides`, for programs.
fn plain(field: &Field) -> (String, Value, Value) {
    let person = |(id, name): &(u32, Vec<u8>)| json!({ "id": id, "name": String::from_utf8_lossy(name) });
    let value = |value: &Option<Vec<u8>>| value.as_ref().map(|value| text::base64(value));
    match field {
        Field::User(before, after) => ("user".into(), person(before), person(after)),
        Field::Group(before, after) => ("group".into(), person(before), person(after)),
        Field::Mtime(before, after) => ("mtime".into(), json!(text::rfc3339(*before)), json!(text::rfc3339(*after))),
        Field::Links(before, after) => ("links".into(), json!(before), json!(after)),
        Field::Flags(before, after) => ("flags".into(), json!(before), json!(after)),
        Field::Attribute(name, before, after) => {
            // Two names may differ in nothing but bytes that are not UTF-8.
            let name = std::str::from_utf8(name).map_or_else(|_| text::escape(name), str::to_owned);
            (format!("xattr:{name}"), json!(value(before)), json!(value(after)))
        }
        Field::Mode(before, after) => ("mode".into(), json!(before), json!(after)),
    }
}

fn summary(statistics: &Statistics, source: ObjectName, target: Option<ObjectName>) -> Value {
    let side =
        |side: &Side| json!({ "files": side.files, "dirs": side.dirs, "others": side.others, "bytes": side.bytes });
    let mut value = json!({
        "message_type": "statistics",
        "source_snapshot_id": source,
        "changed_files": statistics.changed_files,
        "changed_others": statistics.changed_others,
        "changed_metadata": statistics.changed_metadata,
        "added": side(&statistics.added),
        "removed": side(&statistics.removed),
        "error_count": statistics.issues,
    });
    if let Some(target) = target {
        value["target_snapshot_id"] = json!(target);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::Timestamp;

    fn difference(modifier: Modifier, fields: Vec<Field>) -> Difference<'static> {
        let bytes = Bytes { added: 5, removed: 3 };
        Difference { path: b"/a\xff", is_directory: false, modifier, fields, bytes, text: Text::None }
    }

    #[test]
    fn objects_have_what_lines_have() {
        let fields = vec![
            Field::Mode(0o644, 0o4755),
            Field::User((0, b"root".to_vec()), (7, Vec::new())),
            Field::Attribute(b"user.a".to_vec(), None, Some(b"x".to_vec())),
        ];
        let value = object(&difference(Modifier::Metadata, fields.clone()));
        assert_eq!((&value["modifier"], &value["path_base64"]), (&json!("U"), &json!("L2H/")));
        assert_eq!(value["metadata"]["mode"], json!({ "before": 0o644, "after": 0o4755 }));
        assert_eq!(value["metadata"]["user"]["after"], json!({ "id": 7, "name": "" }));
        assert_eq!(value["metadata"]["xattr:user.a"], json!({ "before": null, "after": "eA==" }));
        assert!(value.get("bytes_added").is_none());
        assert_eq!(object(&difference(Modifier::Unmarked, Vec::new()))["bytes_removed"], 3);
        let lines: Vec<_> = fields.iter().map(sides).collect();
        assert_eq!(lines[1], ("owner".into(), "root (0)".into(), "7".into()));
        assert_eq!(lines[2], ("attribute user.a".into(), "none".into(), "\"x\"".into()));
    }

    #[test]
    fn times_that_look_the_same_show_their_nanoseconds() {
        let time = |nanos| Timestamp { seconds: 0, nanos };
        let (_, before, after) = sides(&Field::Mtime(time(1), time(20)));
        assert!(before.ends_with(".000000001") && after.ends_with(".000000020"), "{before} {after}");
        let (_, before, _) = sides(&Field::Mtime(time(1), Timestamp { seconds: 9, nanos: 1 }));
        assert!(!before.contains('.'), "{before}");
    }
}
