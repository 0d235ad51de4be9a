//! The record of a snapshot. Not for: the tree that it names, or choosing among snapshots.

use crate::error::Result;
use crate::format::bounds::{MAX_ENTRIES, MAX_ISSUES, MAX_UNDONE};
use crate::format::json::{self, PathText, Record, rfc3339};
use crate::format::tree::Totals;
use crate::id::{ChunkId, ObjectName, SessionId, WriterId};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The root of a tree, and when and how it came to be. Writing it is the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// 1.
    pub version: u32,
    /// Name and version of the writing program.
    pub program: String,
    /// Who wrote it.
    pub writer: WriterId,
    /// In which run.
    pub session: SessionId,
    /// Counts this writer's snapshots from 1.
    pub sequence: u64,
    /// This writer's snapshot before this one.
    pub previous: Option<ObjectName>,
    /// The snapshot that this one was compared with.
    pub parent: Option<ObjectName>,
    /// The newest snapshot seen of each writer.
    #[serde(default)]
    pub heads: BTreeMap<WriterId, Head>,
    /// What else the writer has seen that no older state of the store may take back. Left out if there was nothing.
    #[serde(default, skip_serializing_if = "Seen::is_nothing")]
    pub seen: Seen,
    /// The moment that it stands for.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// When the run began, measured.
    #[serde(with = "rfc3339")]
    pub started: Timestamp,
    /// When the run ended, measured.
    #[serde(with = "rfc3339")]
    pub finished: Timestamp,
    /// Name of the machine.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Absolute paths that were backed up.
    pub paths: Vec<PathText>,
    /// Words to choose by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A short name.
    pub label: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// A leaf page with exactly one entry, the directory "root", which stands for "/".
    pub tree: ChunkId,
    /// Sums over everything below "/".
    pub totals: Totals,
    /// The exclude rules in use.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// How far the run went. Left out if it went everywhere.
    #[serde(default, skip_serializing_if = "Scope::is_everything")]
    pub scope: Scope,
    /// Counts of the run, informative; what is not a count is ignored.
    #[serde(default, deserialize_with = "read_counts")]
    pub summary: BTreeMap<String, u64>,
    /// What went wrong, at most 1,000 of them.
    #[serde(default)]
    pub issues: Vec<Issue>,
    /// How many went wrong.
    #[serde(default)]
    pub issues_total: u64,
    /// The chunker's number.
    pub chunker: u32,
    /// Reserved, `None`.
    #[serde(default)]
    pub signature: Option<serde_json::Value>,
}

/// How far a backup goes, beside its exclude rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// It stayed on the file systems of its paths.
    #[serde(default)]
    pub one_file_system: bool,
    /// It left out what is in folders with a `CACHEDIR.TAG`.
    #[serde(default)]
    pub exclude_caches: bool,
    /// Those of its paths that are links and were read as the directories that they lead to.
    #[serde(default)]
    pub followed: Vec<PathText>,
}

impl Scope {
    fn is_everything(&self) -> bool {
        *self == Scope::default()
    }
}

/// What a writer has seen of a repository, beside the newest snapshots: whoever puts older objects back must hide this snapshot, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The newest key epoch.
    #[serde(default)]
    pub epoch: u16,
    /// The names that tombs would have by their bytes (see `object_name`) which were taken back, ascending.
    #[serde(default)]
    pub undone: Vec<ObjectName>,
}

impl Seen {
    fn is_nothing(&self) -> bool {
        *self == Seen::default()
    }
}

/// The newest snapshot of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number among the writer's snapshots.
    pub sequence: u64,
    /// Its name.
    pub snapshot: ObjectName,
}

/// Something that was not backed up as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// Where.
    pub path: PathText,
    /// What.
    pub kind: IssueKind,
    /// A sentence for people.
    pub message: String,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssueKind {
    /// It could not be read.
    Unreadable,
    /// It changed while it was read.
    Changed,
    /// It went away before it could be read.
    Vanished,
    /// It was left out.
    Skipped,
}

/// Counts, without whatever else a later program may put beside them.
fn read_counts<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<BTreeMap<String, u64>, D::Error> {
    let fields = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    Ok(fields.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))).collect())
}

impl Record for Snapshot {
    const WHAT: &'static str = "snapshot";

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.version != 1 {
            return Err("the version is not 1");
        }
        if self.sequence == 0 || self.heads.values().any(|head| head.sequence == 0) {
            return Err("sequence numbers begin at 1");
        }
        if self.paths.iter().any(|path| path.0.first() != Some(&b'/')) {
            return Err("a path is not absolute");
        }
        if self.totals.entries >= MAX_ENTRIES {
            return Err("it holds more entries than a snapshot can");
        }
        if self.seen.undone.len() > MAX_UNDONE {
            return Err("it names more tombs that were taken back than it may");
        }
        if self.issues.len() > MAX_ISSUES || self.issues.len() as u64 > self.issues_total {
            return Err("the number of issues is wrong");
        }
        Ok(())
    }
}

impl Snapshot {
    /// The body as stored. Fails if it breaks a rule of the format.
    pub fn encode(&self) -> Result<Vec<u8>> {
        json::encode(self)
    }

    /// Reads a body. `Unsupported` for a higher version.
    pub fn decode(body: &[u8]) -> Result<Snapshot> {
        json::decode(body)
    }
}

#[cfg(test)]
impl Snapshot {
    /// A writer's first snapshot as tests need it, with nothing in it that was not given.
    pub(crate) fn of_tests(
        (writer, session): (WriterId, SessionId),
        time: Timestamp,
        tree: ChunkId,
        totals: Totals,
    ) -> Snapshot {
        Snapshot {
            version: 1,
            program: "test".into(),
            writer,
            session,
            sequence: 1,
            previous: None,
            parent: None,
            heads: BTreeMap::new(),
            seen: Seen::default(),
            time,
            started: time,
            finished: time,
            host: "h".into(),
            user: "u".into(),
            uid: 0,
            gid: 0,
            paths: Vec::new(),
            tags: Vec::new(),
            label: None,
            description: None,
            tree,
            totals,
            excludes: Vec::new(),
            scope: Scope::default(),
            summary: BTreeMap::new(),
            issues: Vec::new(),
            issues_total: 0,
            chunker: 1,
            signature: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::format::mutation;

    fn snapshot() -> Snapshot {
        let time: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        Snapshot {
            version: 1,
            program: "firn 0.1.0".into(),
            writer: WriterId([1; 16]),
            session: SessionId([2; 16]),
            sequence: 3,
            previous: Some(ObjectName([4; 32])),
            parent: None,
            heads: [(WriterId([1; 16]), Head { sequence: 2, snapshot: ObjectName([4; 32]) })].into(),
            seen: Seen::default(),
            time,
            started: time,
            finished: time,
            host: "h".into(),
            user: "u".into(),
            uid: 5,
            gid: 6,
            paths: vec![PathText(b"/\xff\\".to_vec())],
            tags: vec!["t".into()],
            label: None,
            description: Some("d".into()),
            tree: ChunkId([7; 32]),
            totals: Totals { entries: 1, files: 2, bytes: 3, linked: 4, attributed: 5 },
            excludes: vec!["*.o".into()],
            scope: Scope::default(),
            summary: [("new_files".to_string(), 8)].into(),
            issues: vec![Issue { path: PathText(b"/a".to_vec()), kind: IssueKind::Vanished, message: "gone".into() }],
            issues_total: 9,
            chunker: 1,
            signature: None,
        }
    }

    #[test]
    fn golden() {
        let body = snapshot().encode().unwrap();
        let text = String::from_utf8(body.clone()).unwrap();
        let time = "\"2026-01-02T03:04:05.678Z\"";
        let (one, four) = ("01".repeat(16), "04".repeat(32));
        let expected = [
            format!("{{\"version\":1,\"program\":\"firn 0.1.0\",\"writer\":\"{one}\","),
            format!("\"session\":\"{}\",\"sequence\":3,\"previous\":\"{four}\",\"parent\":null,", "02".repeat(16)),
            format!("\"heads\":{{\"{one}\":{{\"sequence\":2,\"snapshot\":\"{four}\"}}}},"),
            format!("\"time\":{time},\"started\":{time},\"finished\":{time},"),
            "\"host\":\"h\",\"user\":\"u\",\"uid\":5,\"gid\":6,\"paths\":[\"/\\\\xff\\\\\\\\\"],".into(),
            "\"tags\":[\"t\"],\"label\":null,\"description\":\"d\",".into(),
            format!("\"tree\":\"{}\",", "07".repeat(32)),
            "\"totals\":{\"entries\":1,\"files\":2,\"bytes\":3,\"linked\":4,\"attributed\":5},".into(),
            "\"excludes\":[\"*.o\"],\"summary\":{\"new_files\":8},".into(),
            "\"issues\":[{\"path\":\"/a\",\"kind\":\"vanished\",\"message\":\"gone\"}],\"issues_total\":9,".into(),
            "\"chunker\":1,\"signature\":null}".into(),
        ];
        assert_eq!(text, expected.concat());
        assert_eq!(Snapshot::decode(&body).unwrap(), snapshot());
    }

    #[test]
    fn golden_scope() {
        let scope = Scope { one_file_system: true, exclude_caches: false, followed: vec![PathText(b"/a".to_vec())] };
        let narrow = Snapshot { scope, ..snapshot() };
        let text = String::from_utf8(narrow.encode().unwrap()).unwrap();
        let expected = "\"excludes\":[\"*.o\"],\"scope\":{\"one_file_system\":true,\"exclude_caches\":false,\
                        \"followed\":[\"/a\"]},\"summary\"";
        assert!(text.contains(expected), "{text}");
        assert_eq!(Snapshot::decode(text.as_bytes()).unwrap(), narrow);
        let less = text.replace("\"exclude_caches\":false,", "");
        assert_eq!(Snapshot::decode(less.as_bytes()).unwrap(), narrow);
    }

    #[test]
    fn golden_seen() {
        let seen = Seen { epoch: 3, undone: vec![ObjectName([5; 32])] };
        let wiser = Snapshot { seen, ..snapshot() };
        let text = String::from_utf8(wiser.encode().unwrap()).unwrap();
        let expected = format!("\"seen\":{{\"epoch\":3,\"undone\":[\"{}\"]}},\"time\"", "05".repeat(32));
        assert!(text.contains(&expected), "{text}");
        assert_eq!(Snapshot::decode(text.as_bytes()).unwrap(), wiser);
        let less = text.replace("\"epoch\":3,", "");
        assert_eq!(Snapshot::decode(less.as_bytes()).unwrap().seen.epoch, 0);
        let seen = Seen { epoch: 0, undone: vec![ObjectName([5; 32]); MAX_UNDONE + 1] };
        assert!(Snapshot { seen, ..snapshot() }.encode().is_err());
    }

    #[test]
    fn unknown_fields_are_ignored_and_newer_versions_refused() {
        let text = String::from_utf8(snapshot().encode().unwrap()).unwrap();
        let more = text.replace("{\"new_files\":8}", "{\"new_files\":8,\"deep\":{\"x\":[1]}}");
        let more = more.replace("\"uid\":5", "\"uid\":5,\"later\":[1,2]");
        assert_eq!(Snapshot::decode(more.as_bytes()).unwrap(), snapshot());
        for (version, kind) in [("0", ErrorKind::Damaged), ("2", ErrorKind::Unsupported), ("-1", ErrorKind::Damaged)] {
            let other = text.replace("\"version\":1", &format!("\"version\":{version}"));
            assert_eq!(Snapshot::decode(other.as_bytes()).unwrap_err().kind(), kind);
        }
        assert_eq!(Snapshot::decode(b"{\"version\":7}").unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(Snapshot::decode(&vec![b' '; crate::format::bounds::MAX_BODY + 1]).is_err());
        assert!(Snapshot::decode("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn refuses_what_cannot_be() {
        let wrong: [fn(&mut Snapshot); 5] = [
            |snapshot| snapshot.sequence = 0,
            |snapshot| snapshot.paths.push(PathText(b"a".to_vec())),
            |snapshot| snapshot.issues_total = 0,
            |snapshot| snapshot.version = 2,
            |snapshot| {
                snapshot.issues = vec![snapshot.issues[0].clone(); 1001];
                snapshot.issues_total = 1001;
            },
        ];
        for change in wrong {
            let mut bad = snapshot();
            change(&mut bad);
            assert!(bad.encode().is_err());
        }
    }

    #[test]
    fn mutations() {
        let body = snapshot().encode().unwrap();
        mutation::exercise(std::slice::from_ref(&body), |bytes| {
            // JSON has many forms; what must be stable is the value.
            let value = Snapshot::decode(bytes).ok()?;
            assert_eq!(Snapshot::decode(&value.encode().unwrap()).unwrap(), value);
            Some(bytes.to_vec())
        });
    }
}
