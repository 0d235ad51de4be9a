//! Snapshots that somebody has seen and that are neither stored nor forgotten: lost, or hidden by whoever holds the store. Not for:
//! what is wrong with snapshots that are there (see `check`).
//!
//! Every snapshot names the one before it and the newest of each writer that it saw. When a whole store is set back to an earlier
//! state no snapshot in it tells; therefore the newest of each writer that was ever seen on this machine is noted in the local
//! state as well. That note can be deleted at any time.
//!
//! Once the snapshot behind a lost one was forgotten and pruned, nothing names the lost one any more. Its number is missing all the
//! same: each writer counts from 1, and whatever was forgotten keeps its tomb. Tombs do not tell numbers, so there is an alarm if
//! more numbers are unknown than tombs account for. Memory: 100 bytes a writer, at most `MAX_WRITERS` of which are noted, and
//! 100 bytes a snapshot.

use super::Repository;
use super::snapshots::Snapshots;
use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::{Head, Snapshot};
use crate::id::{ObjectName, WriterId};
use crate::store::{ObjectKey, ObjectKind};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Writers that are noted; one with the local state in a temporary folder is one writer for good, so there are few.
const MAX_WRITERS: usize = 10_000;
/// Snapshots without a name that are told of one by one.
const MAX_NAMELESS: usize = 100;
/// What the note's hash is made with.
const NOTE: &str = "firn v1 noted heads";

/// A snapshot that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The snapshot; if nobody knows its name, a name that stands for it.
    pub name: ObjectName,
    /// Whether that is its name.
    pub is_named: bool,
    /// Its number among those of its writer; without a name it may also be a lower one.
    pub sequence: u64,
    /// The machine of its writer, if any of its snapshots is there.
    pub host: Option<String>,
    /// The snapshot that names it, or none if only this machine remembers it.
    pub seen_by: Option<ObjectName>,
    /// When it was there at the latest.
    pub since: Timestamp,
    /// The store has it all the same: it only does not list it.
    pub is_stored: bool,
}

impl Missing {
    /// A sentence about it.
    pub fn sentence(&self) -> String {
        let Missing { name, sequence, .. } = self;
        let host = self.host.as_ref().map(|host| format!(" of the host \"{host}\"")).unwrap_or_default();
        let since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC");
        let by = match &self.seen_by {
            Some(by) => format!("the snapshot \"{by}\" names it"),
            None => "this machine has seen it".to_owned(),
        };
        match self.is_stored {
            _ if !self.is_named => format!(
                "A snapshot{host} is missing, and nothing tells its id: it was number {sequence} of those made there, or a lower one, and was there before {since}; more are gone than were forgotten"
            ),
            true => format!(
                "The snapshot \"{name}\"{host} is stored, but the store does not list it, so nothing shows it; {by}"
            ),
            false => format!(
                "The snapshot \"{name}\"{host} is missing: it was there on {since} ({by}), and it was not forgotten"
            ),
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        let name = self.name;
        match self.is_stored {
            true => "Repair the store, and prune nothing before that: what only this snapshot needs would count as unneeded.".to_owned(),
            false => format!(
                "Somebody deleted it without \"firn forget\", set the store back, or the store lost it. If there is a copy of this object, put it back; to give it up, run \"firn forget {name}\"."
            ),
        }
    }

    /// As an error or a warning.
    pub fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.sentence()).with_hint(self.hint())
    }
}

/// All that are missing, in a sentence: when a store was set back there may be dozens, and every command finds them.
pub fn summary(missing: &[Missing]) -> Option<Error> {
    let count = missing.len();
    let hosts: BTreeSet<&str> = missing.iter().filter_map(|one| one.host.as_deref()).collect();
    let hosts: Vec<String> = hosts.into_iter().map(|host| format!("\"{host}\"")).collect();
    let of = match hosts[..] {
        [] => String::new(),
        [ref host] => format!(" of the host {host}"),
        _ => format!(" of the hosts {}", hosts.join(", ")),
    };
    let message = match count {
        0 => return None,
        1 => format!("A snapshot{of} is missing, and it was not forgotten"),
        _ => format!("{count} snapshots{of} are missing, and they were not forgotten"),
    };
    let hint = "\"firn check\" names each and says what to do.";
    Some(Error::new(ErrorKind::Damaged, message).with_hint(hint))
}

/// What this machine remembers of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    head: Head,
    since: Timestamp,
}

impl Repository {
    /// The snapshots that are missing, as far as those that are there and this machine can tell. What is seen here is noted.
    pub fn missing_snapshots(&self, snapshots: &Snapshots) -> Result<Vec<Missing>> {
        let stored: HashSet<ObjectName> = snapshots.names().collect();
        let is_known = |name: &ObjectName| stored.contains(name) || snapshots.tombs.contains_key(name);
        let mut missing: BTreeMap<ObjectName, Missing> = BTreeMap::new();
        let mut hosts: HashMap<WriterId, &str> = HashMap::new();
        let mut found = |head: Head, writer: WriterId, seen_by, since, hosts: &HashMap<WriterId, &str>| {
            if !is_known(&head.snapshot) {
                missing.entry(head.snapshot).or_insert_with(|| Missing {
                    name: head.snapshot,
                    is_named: true,
                    sequence: head.sequence,
                    host: hosts.get(&writer).map(|host| (*host).to_owned()),
                    seen_by,
                    since,
                    is_stored: false,
                });
            }
        };
        let all = || snapshots.live.iter().chain(&snapshots.forgotten);
        hosts.extend(all().map(|named| (named.snapshot.writer, named.snapshot.host.as_str())));
        for named in all() {
            for (writer, head) in named_by(&named.snapshot) {
                found(head, writer, Some(named.name), named.snapshot.finished, &hosts);
            }
        }
        let notes = self.noted_heads();
        for (writer, note) in &notes {
            found(note.head, *writer, None, note.since, &hosts);
        }
        let mut missing: Vec<Missing> = missing.into_values().collect();
        for one in &mut missing {
            // A listing may miss what was put while it ran.
            one.is_stored = self.store().has(&ObjectKey::new(ObjectKind::Snapshot, one.name))?;
        }
        if !missing.is_empty() {
            // Put or forgotten since the snapshots were listed, most likely: then that shows now.
            let listed: HashSet<String> = self.names(ObjectKind::Snapshot)?.into_iter().collect();
            let tombs = self.tombs()?;
            missing.retain(|one| !tombs.contains_key(&one.name) && !listed.contains(&one.name.to_string()));
        }
        self.note_heads(&notes, snapshots, &missing);
        missing.extend(self.nameless(snapshots, &notes)?);
        Ok(missing)
    }

    /// Those that nothing names, under names that stand for them.
    fn nameless(&self, snapshots: &Snapshots, notes: &BTreeMap<WriterId, Note>) -> Result<Vec<Missing>> {
        let mut found = gaps(snapshots, notes);
        if !found.is_empty() {
            // A listing may lack what was put while it ran, and show what came after it.
            let again = gaps(&self.snapshots()?, notes);
            found.retain(|one| again.iter().any(|other| other.name == one.name));
        }
        Ok(found)
    }

    /// The newest snapshot of each writer, also of those that only this machine has seen.
    pub fn heads(&self, snapshots: &Snapshots) -> BTreeMap<WriterId, Head> {
        let mut heads = snapshots.heads();
        for (writer, note) in self.noted_heads() {
            let newest = heads.entry(writer).or_insert(note.head);
            if newest.sequence < note.head.sequence {
                *newest = note.head;
            }
        }
        heads
    }

    /// Notes a snapshot that was just acknowledged.
    pub fn note_head(&self, snapshot: &Snapshot, name: ObjectName) {
        let mut notes = self.noted_heads();
        let head = Head { sequence: snapshot.sequence, snapshot: name };
        let note = notes.entry(snapshot.writer).or_insert(Note { head, since: Timestamp::now() });
        // What is missing stays noted: the new snapshot names it as the one before, or as a head.
        if note.head.sequence < head.sequence {
            *note = Note { head, since: Timestamp::now() };
        }
        self.write_notes(&notes);
    }

    fn noted_heads(&self) -> BTreeMap<WriterId, Note> {
        let text = self.read_note(&self.cache().heads(), NOTE).unwrap_or_default();
        text.lines().take(MAX_WRITERS).filter_map(parse).collect()
    }

    /// Raises what is noted to what is seen; it is a help, so an error is none. What only this machine misses stays noted.
    fn note_heads(&self, before: &BTreeMap<WriterId, Note>, snapshots: &Snapshots, missing: &[Missing]) {
        let is_missed = |name: &ObjectName| missing.iter().any(|one| one.name == *name && one.seen_by.is_none());
        let mut notes = before.clone();
        let now = Timestamp::now();
        for named in snapshots.live.iter().chain(&snapshots.forgotten) {
            let head = Head { sequence: named.snapshot.sequence, snapshot: named.name };
            if notes.len() >= MAX_WRITERS && !notes.contains_key(&named.snapshot.writer) {
                continue;
            }
            let note = notes.entry(named.snapshot.writer).or_insert(Note { head, since: now });
            if note.head.sequence < head.sequence && !is_missed(&note.head.snapshot) {
                *note = Note { head, since: now };
            }
        }
        if notes != *before {
            self.write_notes(&notes);
        }
    }

    fn write_notes(&self, notes: &BTreeMap<WriterId, Note>) {
        let line = |(writer, note): (&WriterId, &Note)| {
            format!("{writer} {} {} {}\n", note.head.sequence, note.head.snapshot, note.since.as_second())
        };
        let text: String = notes.iter().map(line).collect();
        self.write_note(&self.cache().heads(), NOTE, &text);
    }
}

/// Those that a snapshot names: the one before it, and the newest of each writer that it saw.
fn named_by(snapshot: &Snapshot) -> impl Iterator<Item = (WriterId, Head)> {
    let sequence = snapshot.sequence.saturating_sub(1);
    let before = snapshot.previous.map(|name| (snapshot.writer, Head { sequence, snapshot: name }));
    before.into_iter().chain(snapshot.heads.iter().map(|(writer, head)| (*writer, *head)))
}

/// Who says that a writer has come to a number, and when that was.
type Teller = (Option<ObjectName>, Timestamp);

/// The numbers of each writer that nothing accounts for.
fn gaps(snapshots: &Snapshots, notes: &BTreeMap<WriterId, Note>) -> Vec<Missing> {
    let all = || snapshots.live.iter().chain(&snapshots.forgotten);
    let mut numbers: BTreeMap<WriterId, BTreeMap<u64, Teller>> = BTreeMap::new();
    let mut told: HashSet<ObjectName> = HashSet::new();
    let mut note = |writer: WriterId, head: Head, teller: Teller| {
        told.insert(head.snapshot);
        numbers.entry(writer).or_default().insert(head.sequence, teller);
    };
    notes.iter().for_each(|(writer, noted)| note(*writer, noted.head, (None, noted.since)));
    for named in all() {
        let (snapshot, teller) = (&named.snapshot, (Some(named.name), named.snapshot.started));
        named_by(snapshot).filter(|(_, head)| head.sequence > 0).for_each(|(writer, head)| note(writer, head, teller));
        note(snapshot.writer, Head { sequence: snapshot.sequence, snapshot: named.name }, teller);
    }
    let others: HashSet<&ObjectName> =
        snapshots.tombs.keys().chain(snapshots.damaged.iter().map(|(name, _)| name)).collect();
    let excuses = others.iter().filter(|name| !told.contains(**name)).count() as u64;
    // Numbers begin with 1, so no more are known than the highest one.
    let unknown = |numbers: &BTreeMap<u64, Teller>| {
        numbers.last_key_value().map_or(0, |(highest, _)| highest.saturating_sub(numbers.len() as u64))
    };
    let unknown: u64 = numbers.values().map(unknown).fold(0, u64::saturating_add);
    let count = unknown.saturating_sub(excuses).min(MAX_NAMELESS as u64) as usize;
    let mut found = Vec::new();
    for (writer, numbers) in &numbers {
        let host = all().find(|named| named.snapshot.writer == *writer).map(|named| named.snapshot.host.clone());
        let mut known = numbers.iter().rev().peekable();
        while let Some((number, (seen_by, since))) = known.next() {
            let below = known.peek().map_or(0, |(below, _)| **below);
            // Ends after as many steps as there are tombs and nameless ones to be told of.
            let gap = (below + 1..*number).rev().map(|sequence| (sequence, stand_in(*writer, sequence)));
            let gap = gap.filter(|(_, name)| !snapshots.tombs.contains_key(name)).take(count - found.len());
            found.extend(gap.map(|(sequence, name)| Missing {
                name,
                is_named: false,
                sequence,
                host: host.clone(),
                seen_by: *seen_by,
                since: *since,
                is_stored: false,
            }));
        }
    }
    found
}

/// The name under which the snapshot with this number is given up if nobody knows its own.
fn stand_in(writer: WriterId, number: u64) -> ObjectName {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"firn v1 nameless snapshot").update(&writer.0).update(&number.to_le_bytes());
    ObjectName(*hasher.finalize().as_bytes())
}

fn parse(line: &str) -> Option<(WriterId, Note)> {
    let mut words = line.split(' ');
    let writer = WriterId::parse(words.next()?).ok()?;
    let sequence = words.next()?.parse().ok().filter(|sequence| *sequence > 0)?;
    let snapshot = ObjectName::parse(words.next()?).ok()?;
    let since = Timestamp::from_second(words.next()?.parse().ok()?).ok()?;
    Some((writer, Note { head: Head { sequence, snapshot }, since }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::{back_up, open, open_with_cache, repository};
    use crate::store::{MemoryStore, Store};
    use std::sync::Arc;

    fn missing(repository: &Repository) -> Vec<Missing> {
        repository.missing_snapshots(&repository.snapshots().unwrap()).unwrap()
    }

    fn hide(store: &MemoryStore, name: ObjectName) {
        store.delete(&ObjectKey::new(ObjectKind::Snapshot, name)).unwrap();
    }

    #[test]
    fn what_another_snapshot_names_is_missed_unless_it_has_a_tomb() {
        let (store, [first, second]) = repository();
        let repository = open(Arc::new(store.clone()));
        assert_eq!(missing(&repository), []);
        hide(&store, first);
        let found = missing(&repository);
        assert_eq!((found.len(), found[0].name, found[0].sequence, found[0].seen_by), (1, first, 1, Some(second)));
        assert!(
            found[0].sentence().contains("of the host \"h\" is missing") && found[0].hint().contains("firn forget")
        );
        repository.put_tomb(first).unwrap();
        assert_eq!(missing(&repository), []);
        // Nobody names the newest one, and this run keeps no local state.
        hide(&store, second);
        assert_eq!(missing(&open(Arc::new(store))), []);
    }

    #[test]
    fn numbers_without_names_are_missed_unless_tombs_account_for_them() {
        let (store, [first, second]) = repository();
        let repository = open(Arc::new(store.clone()));
        let mut taken = vec![first, second];
        for number in 3..=6 {
            taken.push(back_up(&repository, 3000 + number, number, taken.last().copied()));
        }
        // What a prune leaves of a forgotten snapshot is its tomb.
        for number in [0, 1, 3] {
            repository.put_tomb(taken[number]).unwrap();
            hide(&store, taken[number]);
        }
        let stranger = || open(Arc::new(store.clone()));
        assert_eq!(missing(&stranger()), []);
        // The fourth names the third; with the fourth gone nobody does.
        hide(&store, taken[2]);
        let found = missing(&stranger());
        assert_eq!((found.len(), found[0].sequence, found[0].seen_by), (1, 3, Some(taken[4])), "{found:?}");
        assert!(found[0].sentence().contains("nothing tells its id: it was number 3 of"), "{found:?}");
        assert!(found[0].hint().contains(&found[0].name.to_string()));
        // It is given up by its own name, or by the one that stands for it.
        let tomb = ObjectKey::new(ObjectKind::Tomb, taken[2]);
        for name in [taken[2], found[0].name] {
            repository.put_tomb(name).unwrap();
            assert_eq!(missing(&stranger()), [], "{name}");
            drop(store.delete(&tomb));
        }
        // Another one then is another one.
        hide(&store, taken[4]);
        let found = missing(&stranger());
        assert!(found.len() == 1 && found[0].is_named && found[0].name == taken[4], "{found:?}");
    }

    #[test]
    fn a_store_that_is_set_back_is_noticed_where_it_was_seen_before() {
        let (store, _) = repository();
        let cache = tempfile::tempdir().unwrap();
        let repository = open_with_cache(Arc::new(store.clone()), cache.path());
        // By a writer of its own.
        let third = back_up(&repository, 3000, 1, None);
        assert_eq!(missing(&repository), []);
        hide(&store, third);
        let found = missing(&repository);
        assert_eq!((found.len(), found[0].name, found[0].seen_by), (1, third, None));
        assert!(found[0].sentence().contains("this machine has seen it"), "{}", found[0].sentence());
        // It stays missing, the next snapshot says so to everybody, and no number is given twice.
        let heads = repository.heads(&repository.snapshots().unwrap());
        assert_eq!(heads[&repository.writer_id()], Head { sequence: 1, snapshot: third });
        assert_eq!(missing(&repository).len(), 1);
        // Without the note nothing tells; a damaged one is none.
        std::fs::write(repository.cache().heads(), "nonsense\n\u{1}").unwrap();
        assert_eq!(missing(&repository), []);
        std::fs::remove_file(repository.cache().heads()).unwrap();
        assert_eq!(missing(&repository), []);
        repository.put_tomb(third).unwrap();
        assert_eq!(missing(&repository), []);
    }
}
