//! Whether every object still has the bytes that its name promises. Needs no key, so that a server that cannot read anything
//! can do it too. Not for: what the bytes mean, or whether anything is missing (see `check`).
//!
//! Objects whose names are no hashes (configs, pins, marks, tombs, revokes) can only be told right or wrong with a key.
//! Objects are looked at in the order in which they were last found right, those that never were in a random order first, so
//! that runs that are cut short get to everything in the end.
//!
//! Memory: 72 bytes an object, and 1 MiB a thread, whatever the objects' sizes.

use super::{Finding, Severity};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectName, SessionId};
use crate::progress::{Progress, Stop};
use crate::repository::damage::loss;
use crate::repository::ledger::{Ledger, is_recent};
use crate::store::{ObjectKey, ObjectKind, Store};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Findings in one report; further ones are only counted.
pub const MAX_FINDINGS: usize = 10_000;

/// The kinds of objects whose names are the hashes of their bytes.
pub const NAMED: [ObjectKind; 5] =
    [ObjectKind::Key, ObjectKind::Snapshot, ObjectKind::Index, ObjectKind::Tree, ObjectKind::Data];

/// How a store is scrubbed.
#[derive(Clone, Debug, Default)]
pub struct ScrubOptions {
    /// Objects that are read at the same time.
    pub threads: usize,
    /// Nothing new is begun after this moment.
    pub deadline: Option<Instant>,
    /// What was found right within this time is left out.
    pub max_age: Option<Duration>,
    /// The folder that remembers what was found right when, in this place and no other.
    pub state: Option<PathBuf>,
}

/// What a scrub found out.
#[derive(Clone, Debug, Default)]
pub struct ScrubReport {
    /// Objects whose bytes are not those that their names promise.
    pub findings: Vec<Finding>,
    /// How many there are; `findings` has at most `MAX_FINDINGS`.
    pub damaged: u64,
    /// Objects that are stored, of the kinds that can be verified.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were read.
    pub read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Objects left out because they were found right lately.
    pub recent: u64,
    /// Objects that time did not suffice for.
    pub left: u64,
    /// Objects that were gone when they were to be read: something deletes what is no longer needed.
    pub gone: u64,
    /// Objects that only a key can verify.
    pub unnamed: u64,
    /// Whether what was found right is remembered for the next run.
    pub remembers: bool,
}

impl ScrubReport {
    /// How bad the worst finding is.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// An object to be read.
struct Item {
    kind: ObjectKind,
    name: ObjectName,
    size: u64,
    mark: u64,
    /// When it was last found right.
    last: Option<u64>,
}

/// Reads objects and compares them with their names. An error means that the store cannot be listed or
/// read, or a wish to stop.
pub fn scrub(store: &dyn Store, options: &ScrubOptions, progress: &dyn Progress, stop: &Stop) -> Result<ScrubReport> {
    let ledger = options.state.as_deref().and_then(Ledger::open);
    let mut report = ScrubReport { remembers: ledger.is_some(), ..ScrubReport::default() };
    let items = list(store, options, ledger.as_ref(), &mut report)?;
    progress.stage("reading objects");
    progress.expect(items.len() as u64, items.iter().map(|item| item.size).sum());
    let next = AtomicUsize::new(0);
    let shared = Mutex::new(report);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                let mut buffer = vec![0; PIECE];
                while options.deadline.is_none_or(|deadline| Instant::now() < deadline) {
                    let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    let key = ObjectKey::new(item.kind, item.name);
                    // Read again before damage is believed: memory and cables fail as well as disks.
                    let mut verify = || verify(store, &key, item.name, &mut buffer, progress, stop);
                    let read = verify().or_else(|error| if is_final(&error) { Err(error) } else { verify() });
                    if stop.signal().is_some() {
                        break;
                    }
                    let read = match judged(store, &key, read) {
                        Ok(read) => read,
                        Err(error) => {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            next.store(items.len(), Ordering::Relaxed);
                            break;
                        }
                    };
                    progress.files(1);
                    if let Some(ledger) = &ledger {
                        match &read {
                            Ok(size) => ledger.note(&item.name, (*size, item.mark)),
                            Err(_) => ledger.forget(&item.name),
                        }
                    }
                    shared.lock().unwrap_or_else(PoisonError::into_inner).take(&key, item.size, read);
                }
            });
        }
    });
    // What was read so far is remembered, also when somebody asked to stop.
    if let Some(ledger) = ledger {
        ledger.close();
    }
    stop.check()?;
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut report = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.left = items.len() as u64 - report.read - report.gone;
    report.findings.sort_by(|a, b| (b.severity, &a.object).cmp(&(a.severity, &b.object)));
    Ok(report)
}

fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound)
}

/// What reading an object has shown about it. An error that is not about the object, as of a store that cannot be reached, is one of
/// the scrub.
fn judged(store: &dyn Store, key: &ObjectKey, read: Result<u64>) -> Result<Result<u64>> {
    match read {
        Err(error) if error.kind() != ErrorKind::NotFound => loss(store, key, error).map(Err),
        read => Ok(read),
    }
}

/// All objects that are to be read, in the order in which they are.
fn list(
    store: &dyn Store,
    options: &ScrubOptions,
    ledger: Option<&Ledger>,
    report: &mut ScrubReport,
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for kind in ObjectKind::ALL {
        store.list(kind, &mut |object| {
            if !NAMED.contains(&kind) {
                report.unnamed += 1;
                return Ok(());
            }
            let (name, size) = (ObjectName::parse(&object.name)?, object.size);
            items.push(Item { kind, name, size, mark: object.mark, last: None });
            Ok(())
        })?;
    }
    report.objects = items.len() as u64;
    report.bytes = items.iter().map(|item| item.size).sum();
    if let Some(ledger) = ledger {
        // What is no longer listed is forgotten; if a listing missed it, it is read once more.
        let listed: std::collections::HashSet<ObjectName> = items.iter().map(|item| item.name).collect();
        ledger.retain(|name| listed.contains(name));
        items.iter_mut().for_each(|item| item.last = ledger.verified(&item.name, (item.size, item.mark)));
    }
    items.retain(|item| !is_recent(item.last, options.max_age));
    report.recent = report.objects - items.len() as u64;
    let turn = Turn::new()?;
    items.sort_by_cached_key(|item| turn.of(&item.name, item.last));
    Ok(items)
}

/// In which order objects have their turn: those that were never found right first, at random, then the others by age.
pub(super) struct Turn(u64);

impl Turn {
    pub(super) fn new() -> Result<Turn> {
        Ok(Turn(u64::from_le_bytes(*SessionId::random()?.0.first_chunk().expect("a session has 16 bytes"))))
    }

    pub(super) fn of(&self, name: &ObjectName, last: Option<u64>) -> (u64, u64) {
        let start = u64::from_le_bytes(*name.0.first_chunk().expect("a name has 32 bytes"));
        // Names are hashes, so another number and a multiplication suffice to mix them.
        (last.unwrap_or(0), (start ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32))
    }
}

/// Hashes an object in pieces; the size that it has if all is well.
fn verify(
    store: &dyn Store,
    key: &ObjectKey,
    name: ObjectName,
    buffer: &mut [u8],
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<u64> {
    let size = store.size(key)?;
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < size {
        stop.check()?;
        let piece = &mut buffer[..(size - at).min(PIECE as u64) as usize];
        store.get_range(key, at, piece)?;
        hasher.update(piece);
        progress.bytes(piece.len() as u64);
        at += piece.len() as u64;
    }
    match *hasher.finalize().as_bytes() == name.0 {
        true => Ok(size),
        false => Err(Error::damaged("Its bytes are not those that its name promises")),
    }
}

impl ScrubReport {
    fn take(&mut self, key: &ObjectKey, size: u64, read: Result<u64>) {
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => self.gone += 1,
            Ok(size) => {
                self.read += 1;
                self.bytes_read += size;
            }
            Err(error) => {
                self.read += 1;
                self.bytes_read += size;
                self.damaged += 1;
                if self.findings.len() < MAX_FINDINGS {
                    self.findings.push(finding(key, &error));
                }
            }
        }
    }
}

fn finding(key: &ObjectKey, error: &Error) -> Finding {
    let (severity, what, hint) = match key.kind {
        ObjectKind::Data => (
            Severity::Lost,
            "a pack of file content",
            "If there is a copy of this object, put it back. Else, with the key: \"firn check --read-data\" names the files that are hit, the next \"firn backup\" stores again what it finds on the disk, and \"firn repair packs\" saves what can still be read.",
        ),
        ObjectKind::Tree => (
            Severity::Lost,
            "a pack of folders and lists",
            "If there is a copy of this object, put it back. Else, with the key: \"firn check\" names the folders that are hit, the next \"firn backup\" stores again what it finds on the disk, and \"firn repair packs\" saves what can still be read.",
        ),
        ObjectKind::Snapshot => (
            Severity::Lost,
            "a snapshot",
            "If there is a copy of this object, put it back. Its files may also be in other snapshots.",
        ),
        ObjectKind::Index => (
            Severity::Repairable,
            "a part of the index",
            "With the key: \"firn repair index\" writes it again from the packs.",
        ),
        _ => (
            Severity::Repairable,
            "a key slot",
            "It may no longer open the repository. While another one does: add a key with \"firn key add\", then remove this one.",
        ),
    };
    Finding {
        severity,
        object: key.to_string(),
        message: format!("\"{key}\" is damaged ({what}): {}", error.chain()),
        hint: Some(hint.into()),
        affected: Vec::new(),
        affected_total: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::{keys, repository};
    use crate::progress::Silent;
    use crate::store::{MemoryStore, Operation, RecordingStore};

    fn run(store: &dyn Store, options: &ScrubOptions) -> ScrubReport {
        scrub(store, options, &Silent, &Stop::new()).unwrap()
    }

    #[test]
    fn every_byte_of_every_named_object_is_read_and_nothing_else() {
        let (store, _) = repository();
        let recording = RecordingStore::new(store.clone());
        let report = run(&recording, &ScrubOptions { threads: 3, ..ScrubOptions::default() });
        let named: Vec<_> = NAMED.iter().flat_map(|kind| keys(&store, *kind)).collect();
        let bytes: u64 = named.iter().map(|key| store.raw_get(key).unwrap().len() as u64).sum();
        assert_eq!((report.damaged, report.read, report.bytes_read), (0, named.len() as u64, bytes));
        assert_eq!((report.objects, report.bytes, report.left, report.recent), (named.len() as u64, bytes, 0, 0));
        assert_eq!(report.unnamed, 2, "two configs");
        let counts = recording.counts();
        assert_eq!(counts.total(Operation::Put).calls + counts.total(Operation::Delete).calls, 0);
        assert_eq!(counts.calls(Operation::GetRange, ObjectKind::Config), 0);
    }

    fn hurt(store: &MemoryStore, key: &ObjectKey, how: &str) {
        let mut bytes = store.raw_get(key).unwrap();
        match how {
            "truncate" => bytes.truncate(bytes.len() / 2),
            "empty" => bytes.clear(),
            "grow" => bytes.push(0),
            _ => *bytes.last_mut().unwrap() ^= 1,
        }
        store.raw_set(key, bytes);
    }

    #[test]
    fn each_damaged_object_is_named_with_what_it_is() {
        let (whole, _) = repository();
        for key in NAMED.iter().map(|kind| keys(&whole, *kind).remove(0)) {
            for how in ["truncate", "empty", "grow", "flip"] {
                let store = MemoryStore::new();
                whole.raw_keys().iter().for_each(|key| store.raw_set(key, whole.raw_get(key).unwrap()));
                hurt(&store, &key, how);
                let report = run(&store, &ScrubOptions { threads: 2, ..ScrubOptions::default() });
                assert_eq!(report.damaged, 1, "{how} {key}");
                assert_eq!(report.findings[0].object, key.to_string());
                let is_lost = !matches!(key.kind, ObjectKind::Index | ObjectKind::Key);
                assert_eq!(report.worst() == Some(Severity::Lost), is_lost, "{how} {key}");
            }
        }
    }

    #[test]
    fn what_was_found_right_is_remembered_and_what_was_not_is_read_again() {
        let (store, _) = repository();
        let folder = tempfile::tempdir().unwrap();
        let key = keys(&store, ObjectKind::Data).remove(0);
        hurt(&store, &key, "flip");
        let hour = Some(Duration::from_secs(3600));
        let state = Some(folder.path().join("s"));
        let options = ScrubOptions { threads: 1, max_age: hour, state, ..ScrubOptions::default() };
        let first = run(&store, &options);
        assert_eq!((first.read, first.damaged, first.remembers), (first.objects, 1, true));
        let second = run(&store, &options);
        assert_eq!((second.read, second.damaged, second.recent), (1, 1, first.objects - 1));
        let all = run(&store, &ScrubOptions { max_age: None, ..options.clone() });
        assert_eq!(all.read, all.objects);
        // An object of another size is not the one that was verified.
        hurt(&store, &keys(&store, ObjectKind::Tree)[0], "grow");
        assert_eq!(run(&store, &options).damaged, 2);
    }

    #[test]
    fn time_that_is_over_leaves_the_rest_for_the_next_run() {
        let (store, _) = repository();
        let past = Some(Instant::now());
        let report = run(&store, &ScrubOptions { threads: 1, deadline: past, ..ScrubOptions::default() });
        assert_eq!((report.read, report.left, report.worst()), (0, report.objects, None));
    }

    #[test]
    fn a_wish_to_stop_ends_it() {
        let (store, _) = repository();
        let stop = Stop::new();
        stop.trigger(2);
        let ended = scrub(&store, &ScrubOptions { threads: 1, ..ScrubOptions::default() }, &Silent, &stop);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn those_never_read_come_first_and_then_the_oldest() {
        let turn = Turn::new().unwrap();
        let (never, old, new) = (ObjectName([1; 32]), ObjectName([2; 32]), ObjectName([3; 32]));
        assert!(turn.of(&never, None) < turn.of(&old, Some(5)) && turn.of(&old, Some(5)) < turn.of(&new, Some(6)));
    }
}
