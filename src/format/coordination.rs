//! Records by which writers and pruners tell one another what they do. Not for: the order of steps (see `repository`).

use crate::error::Result;
use crate::format::json::{self, Record, rfc3339};
use crate::id::{ObjectName, SessionId, WriterId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A writer is at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// 1.
    pub version: u32,
    /// Its run.
    pub session: SessionId,
    /// Who it is.
    pub writer: WriterId,
    /// On which machine.
    pub host: String,
    /// Number of the process.
    pub pid: u32,
    /// Since when.
    #[serde(with = "rfc3339")]
    pub started: Timestamp,
    /// What tells the process from others with its number, where the system says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
}

/// A process among all of all machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The kernel's id of the boot.
    pub boot: String,
    /// The number of the namespace that the process number is from.
    pub namespace: u64,
    /// When the process was started, in the kernel's ticks since the boot.
    pub ticks: u64,
}

/// A writer's session may no longer commit. The fields are those of its pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revoke(pub Pin);

/// A snapshot is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tomb {
    /// 1.
    pub version: u32,
    /// Which.
    pub snapshot: ObjectName,
    /// Since when.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// By which machine.
    pub host: String,
    /// In a tomb that says no more than that another one was taken back: the name which that one would have by its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<ObjectName>,
}

/// A snapshot is never forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// 1.
    pub version: u32,
    /// Which.
    pub snapshot: ObjectName,
    /// Since when.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// By which machine.
    pub host: String,
    /// Why, if anybody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A pack was found damaged: not all of its bytes are what its name promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// 1.
    pub version: u32,
    /// Which.
    pub pack: ObjectName,
    /// Since when that is known.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// By which machine it was found.
    pub host: String,
}

/// Packs condemned by a prune.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// 1.
    pub version: u32,
    /// The pruner's run.
    pub prune: SessionId,
    /// The packs.
    pub packs: Vec<ObjectName>,
    /// Since when.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// The forgotten snapshots that it is about to delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<ObjectName>,
}

macro_rules! record {
    ($name:ident, $what:literal, $version:expr) => {
        impl Record for $name {
            const WHAT: &'static str = $what;

            fn check(&self) -> std::result::Result<(), &'static str> {
                let version: fn(&$name) -> u32 = $version;
                if version(self) == 1 { Ok(()) } else { Err("the version is not 1") }
            }
        }

        impl $name {
            /// The body as stored. Fails if it breaks a rule of the format.
            pub fn encode(&self) -> Result<Vec<u8>> {
                json::encode(self)
            }

            /// Reads a body. `Unsupported` for a higher version.
            pub fn decode(body: &[u8]) -> Result<$name> {
                json::decode(body)
            }
        }
    };
}

record!(Pin, "pin", |pin| pin.version);
record!(Revoke, "revoke", |revoke| revoke.0.version);
record!(Tomb, "tomb", |tomb| tomb.version);
record!(Mark, "mark", |mark| mark.version);
record!(Hold, "hold", |hold| hold.version);
record!(Damage, "damage record", |damage| damage.version);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::format::mutation;

    fn time() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn pin() -> Pin {
        let (session, writer) = (SessionId([1; 16]), WriterId([2; 16]));
        Pin { version: 1, session, writer, host: "h".into(), pid: 3, started: time(), process: None }
    }

    fn tomb() -> Tomb {
        Tomb { version: 1, snapshot: ObjectName([4; 32]), time: time(), host: "h".into(), undone: None }
    }

    fn hold(reason: Option<&str>) -> Hold {
        let reason = reason.map(str::to_owned);
        Hold { version: 1, snapshot: ObjectName([4; 32]), time: time(), host: "h".into(), reason }
    }

    fn damage() -> Damage {
        Damage { version: 1, pack: ObjectName([7; 32]), time: time(), host: "h".into() }
    }

    fn mark() -> Mark {
        Mark {
            version: 1,
            prune: SessionId([5; 16]),
            packs: vec![ObjectName([6; 32])],
            time: time(),
            snapshots: Vec::new(),
        }
    }

    #[test]
    fn golden() {
        let text = |body: Result<Vec<u8>>| String::from_utf8(body.unwrap()).unwrap();
        let time = "\"2026-01-02T03:04:05Z\"";
        let expected = format!(
            "{{\"version\":1,\"session\":\"{}\",\"writer\":\"{}\",\"host\":\"h\",\"pid\":3,\"started\":{time}}}",
            "01".repeat(16),
            "02".repeat(16)
        );
        assert_eq!(text(pin().encode()), expected);
        assert_eq!(text(Revoke(pin()).encode()), expected);
        let process = Process { boot: "b".into(), namespace: 4, ticks: 5 };
        let known = Pin { process: Some(process), ..pin() };
        let expected = expected.replace('}', ",\"process\":{\"boot\":\"b\",\"namespace\":4,\"ticks\":5}}");
        assert_eq!(text(known.encode()), expected);
        assert_eq!(Pin::decode(expected.as_bytes()).unwrap(), known);
        let expected = format!("{{\"version\":1,\"snapshot\":\"{}\",\"time\":{time},\"host\":\"h\"}}", "04".repeat(32));
        assert_eq!(text(tomb().encode()), expected);
        let undone = expected.replace('}', &format!(",\"undone\":\"{}\"}}", "08".repeat(32)));
        assert_eq!(text(Tomb { undone: Some(ObjectName([8; 32])), ..tomb() }.encode()), undone);
        assert_eq!(text(hold(None).encode()), expected);
        let expected = expected.replace('}', ",\"reason\":\"r\"}");
        assert_eq!(text(hold(Some("r")).encode()), expected);
        let expected = format!("{{\"version\":1,\"pack\":\"{}\",\"time\":{time},\"host\":\"h\"}}", "07".repeat(32));
        assert_eq!(text(damage().encode()), expected);
        let (prune, pack) = ("05".repeat(16), "06".repeat(32));
        let expected = format!("{{\"version\":1,\"prune\":\"{prune}\",\"packs\":[\"{pack}\"],\"time\":{time}}}");
        assert_eq!(text(mark().encode()), expected);
        let expected = expected.replace('}', &format!(",\"snapshots\":[\"{}\"]}}", "09".repeat(32)));
        let mark = Mark { snapshots: vec![ObjectName([9; 32])], ..mark() };
        assert_eq!(text(mark.encode()), expected);
        assert_eq!(Mark::decode(expected.as_bytes()).unwrap(), mark);
    }

    #[test]
    fn newer_versions_are_refused() {
        assert_eq!(Pin::decode(b"{\"version\":2}").unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(Pin { version: 2, ..pin() }.encode().is_err());
        assert_eq!(Tomb::decode(b"{\"version\":1}").unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn mutations() {
        macro_rules! exercise {
            ($type:ident, $value:expr) => {
                mutation::exercise(&[$value.encode().unwrap()], |bytes| {
                    let value = $type::decode(bytes).ok()?;
                    assert_eq!($type::decode(&value.encode().unwrap()).unwrap(), value);
                    Some(bytes.to_vec())
                });
            };
        }
        exercise!(Pin, pin());
        exercise!(Pin, Pin { process: Some(Process { boot: "b".into(), namespace: 4, ticks: 5 }), ..pin() });
        exercise!(Revoke, Revoke(pin()));
        exercise!(Tomb, tomb());
        exercise!(Tomb, Tomb { undone: Some(ObjectName([8; 32])), ..tomb() });
        exercise!(Mark, mark());
        exercise!(Hold, hold(Some("r")));
        exercise!(Damage, damage());
    }
}
