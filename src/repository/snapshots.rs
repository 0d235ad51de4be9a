//! Listing, loading and addressing snapshots. Not for: what is inside their trees.

use super::Repository;
use super::dates::{Dates, SLACK, is_ahead_of_itself};
use super::filter::Filter;
use super::tombs::Tombs;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_RECORD_OBJECT;
use crate::format::coordination::Hold;
use crate::format::header::Kind;
use crate::format::snapshot::{Head, Snapshot};
use crate::id::{ObjectName, WriterId};
use crate::store::{ObjectKey, ObjectKind};
use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

/// A snapshot and its name.
#[derive(Clone, Debug)]
pub struct Named {
    /// The object's name.
    pub name: ObjectName,
    /// What it holds.
    pub snapshot: Snapshot,
}

impl AsRef<Named> for Named {
    fn as_ref(&self) -> &Named {
        self
    }
}

/// The snapshots of a repository as of one moment.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Those that count (no tomb), the oldest first by `dates`.
    pub live: Vec<Named>,
    /// Those with a tomb, in the same order.
    pub forgotten: Vec<Named>,
    /// Those that cannot be read, and why.
    pub damaged: Vec<(ObjectName, Error)>,
    /// What has a tomb, stored or not, and since when by the store's clock.
    pub tombs: BTreeMap<ObjectName, SystemTime>,
    /// Snapshots whose tombs were taken back and are there again, so that they do not count.
    pub replayed: Vec<ObjectName>,
    /// When those that count were made.
    pub dates: Dates,
}

/// What a person calls the newest snapshot.
pub const LATEST: &str = "latest";

/// A snapshot as a person names it, and an optional path in it: `latest`, `latest~2`, an id's first digits, each with `:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Which snapshot.
    pub snapshot: String,
    /// The absolute path in it, normalised, without a slash at the end; empty for the root.
    pub path: Vec<u8>,
}

impl Address {
    /// Splits `SNAPSHOT[:/PATH]`.
    pub fn parse(text: &[u8]) -> Result<Address> {
        let (snapshot, path) = match text.iter().position(|byte| *byte == b':') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &b""[..]),
        };
        let snapshot = std::str::from_utf8(snapshot)
            .ok()
            .filter(|snapshot| !snapshot.is_empty())
            .ok_or_else(|| bad(text, "it names no snapshot"))?;
        let mut normal = Vec::new();
        if !path.is_empty() && path[0] != b'/' {
            return Err(bad(text, "the path after the colon must begin with \"/\""));
        }
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
            if part == b".." {
                return Err(bad(text, "the path must not contain \"..\""));
            }
            normal.push(b'/');
            normal.extend_from_slice(part);
        }
        Ok(Address { snapshot: snapshot.to_owned(), path: normal })
    }
}

fn bad(text: &[u8], why: &str) -> Error {
    Error::new(ErrorKind::Input, format!("\"{}\" is not a snapshot address: {why}", String::from_utf8_lossy(text)))
        .with_hint("Write \"latest\", \"latest~1\" or the first digits of an id, then optionally \":/path\".")
}

impl Repository {
    /// All snapshots. One that cannot be read is set apart, never an error of the whole listing.
    pub fn snapshots(&self) -> Result<Snapshots> {
        let stored = self.snapshot_names()?;
        let listed = self.listed_tombs()?;
        let mut snapshots = Snapshots::default();
        // In an order that every run has: tests replay runs.
        let mut names: Vec<ObjectName> = stored.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            match self.snapshot(name) {
                Ok(snapshot) => {
                    self.note_seen(name, &snapshot.seen);
                    snapshots.live.push(Named { name, snapshot });
                }
                // Deleted between listing and reading.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    snapshots.damaged.push((name, error));
                }
                Err(error) => return Err(error),
            }
        }
        // Only now it is known which tombs were taken back.
        let Tombs { counting: tombs, replayed } = self.judge_tombs(&listed);
        (snapshots.forgotten, snapshots.live) =
            std::mem::take(&mut snapshots.live).into_iter().partition(|named| tombs.contains_key(&named.name));
        // A listing must not grow with what went wrong in each run; `snapshot(name)` has it all.
        snapshots.live.iter_mut().for_each(|named| named.snapshot.issues.clear());
        let dated = |list: &[Named]| Dates::new(list.iter().map(|named| (named.name, &named.snapshot)), &stored);
        snapshots.dates = dated(&snapshots.live);
        snapshots.live.sort_by_cached_key(|named| snapshots.dates.key(named));
        let dates = dated(&snapshots.forgotten);
        snapshots.forgotten.sort_by_cached_key(|named| dates.key(named));
        snapshots.damaged.sort_by_key(|(name, _)| *name);
        (snapshots.tombs, snapshots.replayed) = (tombs, replayed);
        Ok(snapshots)
    }

    /// The names of the snapshots that are stored, and since when by the store's clock.
    pub fn snapshot_names(&self) -> Result<BTreeMap<ObjectName, SystemTime>> {
        let mut names = BTreeMap::new();
        self.list(ObjectKind::Snapshot, &mut |object| {
            names.insert(ObjectName::parse(&object.name)?, object.stored);
            Ok(())
        })?;
        Ok(names)
    }

    /// Snapshots that are never forgotten. What stands in the way of deleting counts by its name alone.
    pub fn holds(&self) -> Result<HashSet<ObjectName>> {
        self.names(ObjectKind::Hold)?.iter().map(|name| ObjectName::parse(name)).collect()
    }

    /// What was said when a snapshot was pinned.
    pub fn hold(&self, snapshot: ObjectName) -> Result<Hold> {
        self.get_json(Kind::Hold, &ObjectKey::new(ObjectKind::Hold, snapshot))
    }

    /// Sees to it that a snapshot is never forgotten. Done twice, it is done, and the first reason stays.
    pub fn put_hold(&self, snapshot: ObjectName, reason: Option<String>) -> Result<()> {
        let hold = Hold { version: 1, snapshot, time: jiff::Timestamp::now(), host: crate::os::hostname(), reason };
        let key = ObjectKey::new(ObjectKind::Hold, snapshot);
        match self.put_json(Kind::Hold, &key, &hold) {
            Err(error) if error.kind() == ErrorKind::Exists => self.store().settle(&[key]),
            other => other,
        }
    }

    /// Lets a snapshot be forgotten again.
    pub fn delete_hold(&self, snapshot: ObjectName) -> Result<()> {
        self.store().delete(&ObjectKey::new(ObjectKind::Hold, snapshot))
    }

    /// One snapshot by its full name.
    pub fn snapshot(&self, name: ObjectName) -> Result<Snapshot> {
        let key = ObjectKey::new(ObjectKind::Snapshot, name);
        let bytes = self.store().get(&key, MAX_RECORD_OBJECT)?;
        if super::keyring::object_name(&bytes) != name {
            return Err(Error::damaged(format!(
                "The snapshot \"{name}\" does not have the bytes that its name promises"
            )));
        }
        let body = self.keyring().open_record(Kind::Snapshot, bytes);
        body.and_then(|body| Snapshot::decode(&body))
            .map_err(|error| error.context(format!("The snapshot \"{name}\" cannot be read")))
    }

    /// Stores a snapshot: the commit. A failure leaves it unknown whether it was stored; its packs stay indexed either way.
    pub fn put_snapshot(&self, snapshot: &Snapshot) -> Result<ObjectName> {
        let bytes = self.keyring().seal_record(Kind::Snapshot, &snapshot.encode()?)?;
        let name = super::keyring::object_name(&bytes);
        self.store().put(&ObjectKey::new(ObjectKind::Snapshot, name), &bytes)?;
        Ok(name)
    }
}

impl Snapshots {
    /// The names of all that are stored.
    pub fn names(&self) -> impl Iterator<Item = ObjectName> + '_ {
        let readable = self.live.iter().chain(&self.forgotten).map(|named| named.name);
        readable.chain(self.damaged.iter().map(|(name, _)| *name))
    }

    /// Whether all can be read that are not forgotten.
    pub fn is_readable(&self) -> bool {
        self.damaged.iter().all(|(name, _)| self.tombs.contains_key(name))
    }

    /// Finds the snapshot that a person named; "latest" is that of those that the filter wants. Errors list candidates and near
    /// misses.
    pub fn resolve(&self, text: &str, filter: &Filter) -> Result<&Named> {
        // An unset variable must not stand for the only snapshot that there is.
        if text.is_empty() {
            return Err(bad(b"", "it is empty"));
        }
        if self.live.is_empty() {
            return Err(self.nothing_here());
        }
        if let Some(back) = latest_offset(text) {
            let back = back.ok_or_else(|| bad(text.as_bytes(), "after \"latest~\" comes a number"))?;
            let wanted = || self.live.iter().rev().filter(|named| filter.wants(&named.snapshot));
            return wanted().nth(back).ok_or_else(|| match (wanted().count(), filter.is_empty()) {
                (0, _) => {
                    let error =
                        Error::new(ErrorKind::NotFound, format!("There is no snapshot with {}", filter.words()));
                    error.with_hint("\"firn snapshots\" lists those that there are.")
                }
                (count, true) => {
                    let message = format!("\"{text}\" goes back too far: the repository has {count} snapshots");
                    Error::new(ErrorKind::NotFound, message)
                }
                (count, false) => {
                    let message = format!("\"{text}\" goes back too far: {count} snapshots have {}", filter.words());
                    Error::new(ErrorKind::NotFound, message)
                }
            });
        }
        let named = self.by_digits(text)?;
        if filter.wants(&named.snapshot) {
            return Ok(named);
        }
        let message = format!("The snapshot \"{}\" does not have {}", named.name.short(), filter.words());
        Err(Error::new(ErrorKind::Input, message).with_hint("An id alone says which snapshot is meant."))
    }

    /// The one whose id begins with these digits.
    fn by_digits(&self, text: &str) -> Result<&Named> {
        let digits = text.to_ascii_lowercase();
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let found: Vec<&Named> = match is_hex {
            true => self.live.iter().filter(|named| named.name.to_string().starts_with(&digits)).collect(),
            false => Vec::new(),
        };
        match found[..] {
            [one] => Ok(one),
            [] => Err(self.not_found(text, is_hex)),
            _ => {
                let list: Vec<String> = found.iter().take(10).map(|named| describe(named)).collect();
                Err(Error::new(
                    ErrorKind::Input,
                    format!("\"{text}\" is ambiguous: {} snapshots begin with it", found.len()),
                )
                .with_hint(format!("Write more digits. Candidates:\n{}", list.join("\n"))))
            }
        }
    }

    fn nothing_here(&self) -> Error {
        let error = Error::new(ErrorKind::NotFound, "The repository holds no snapshot");
        match (self.damaged.len(), self.forgotten.len()) {
            (0, 0) => error.with_hint("Make one with \"firn backup\"."),
            (0, n) => error.with_hint(format!("{n} forgotten snapshots are still stored.")),
            (n, _) => error.with_hint(format!("{n} stored snapshots are damaged; \"firn check\" names them.")),
        }
    }

    fn not_found(&self, text: &str, is_hex: bool) -> Error {
        let error = Error::new(ErrorKind::NotFound, format!("There is no snapshot \"{text}\""));
        let digits = text.to_ascii_lowercase();
        if let Some((name, damage)) =
            self.damaged.iter().find(|(name, _)| is_hex && name.to_string().starts_with(&digits))
        {
            return Error::new(
                damage.kind(),
                format!("The snapshot \"{name}\" exists but cannot be read: {}", damage.chain()),
            );
        }
        if let Some(named) = self.forgotten.iter().find(|named| is_hex && named.name.to_string().starts_with(&digits)) {
            return error.with_hint(format!("It was forgotten: {}", describe(named)));
        }
        let near: Vec<String> =
            self.live.iter().rev().filter(|named| is_near(named, &digits)).take(3).map(describe).collect();
        match near.is_empty() {
            true => error.with_hint("\"firn snapshots\" lists those that there are."),
            false => error.with_hint(format!("Near matches:\n{}", near.join("\n"))),
        }
    }

    /// The newest snapshot of each writer, by sequence number; forgotten ones count, and those that others have seen: what the store
    /// hides must not be forgotten with the last snapshot that still tells of it.
    pub fn heads(&self) -> BTreeMap<WriterId, Head> {
        let mut heads: BTreeMap<WriterId, Head> = BTreeMap::new();
        for named in self.live.iter().chain(&self.forgotten) {
            let own = Head { sequence: named.snapshot.sequence, snapshot: named.name };
            let seen = named.snapshot.heads.iter().map(|(writer, head)| (*writer, *head));
            for (writer, head) in seen.chain([(named.snapshot.writer, own)]) {
                let newest = heads.entry(writer).or_insert(head);
                if newest.sequence <= head.sequence {
                    *newest = head;
                }
            }
        }
        heads
    }
}

/// Whether somebody may have meant this one: digits from its middle, or one digit wrong at the beginning of its id; or its label.
fn is_near(named: &Named, typed: &str) -> bool {
    const FEWEST: usize = 4;
    let id = named.name.to_string();
    let wrong = id.bytes().zip(typed.bytes()).filter(|(one, other)| one != other).count();
    let is_label = named.snapshot.label.as_ref().is_some_and(|label| label.eq_ignore_ascii_case(typed));
    is_label || typed.len() >= FEWEST && (id.contains(typed) || typed.len() <= id.len() && wrong <= 1)
}

/// Whether it depends on what else there is which snapshot a name stands for.
pub fn is_latest(name: &str) -> bool {
    latest_offset(name).is_some()
}

fn latest_offset(text: &str) -> Option<Option<usize>> {
    let rest = text.strip_prefix(LATEST)?;
    match rest.strip_prefix('~') {
        Some(number) => Some(number.parse().ok()),
        None if rest.is_empty() => Some(Some(0)),
        None => Some(None),
    }
}

/// Why the newest of some snapshots may not be what somebody means by "latest": because of its date, or that of others.
pub fn doubts<'n>(dates: &Dates, newest: &Named, all: impl Iterator<Item = &'n Named>) -> Vec<(ObjectName, Error)> {
    let wrong = |named: &Named, what: &str| {
        let (name, time) = (named.name.short(), named.snapshot.time.strftime("%Y-%m-%d %H:%M:%S"));
        let why = match dates.of(&named.name, &named.snapshot).doubt {
            Some(doubt) => doubt.words(),
            None if is_ahead_of_itself(&named.snapshot) => "dated later than it was made",
            None => "dated after snapshots that were made later",
        };
        let message = format!("The snapshot \"{name}\" is {why} ({time} UTC), {what}");
        let hint = "If that is not the snapshot that you mean, name it by its id.";
        (named.name, Error::new(ErrorKind::Input, message).with_hint(hint))
    };
    let mut found = Vec::new();
    if dates.of(&newest.name, &newest.snapshot).doubt.is_some() || is_ahead_of_itself(&newest.snapshot) {
        found.push(wrong(newest, "and counts as the latest, because none was made after it"));
    }
    let (time, key) = (newest.snapshot.time.min(newest.snapshot.finished), dates.key(newest));
    let passed = all.filter(|named| dates.key(named) < key && named.snapshot.time.duration_since(time) > SLACK);
    found.extend(passed.map(|named| wrong(named, "so it does not count as the latest")));
    found
}

/// A line by which a person recognises a snapshot.
pub fn describe(named: &Named) -> String {
    let paths: Vec<String> =
        named.snapshot.paths.iter().map(|path| String::from_utf8_lossy(&path.0).into_owned()).collect();
    format!(
        "{} {} {} {}",
        named.name.short(),
        named.snapshot.time.strftime("%Y-%m-%d %H:%M:%S"),
        named.snapshot.host,
        paths.join(" ")
    )
}
