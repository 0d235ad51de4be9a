//! Named objects somewhere: the contract, and the places that fulfil it. Not for: what is inside the objects.

#[cfg(test)]
mod conformance;
mod layer;
mod location;
mod place;

pub use layer::Layer;
pub use layer::delay::{DelayStore, Distance};
pub use layer::faulty::{Faults, FaultyStore};
#[cfg(test)]
pub(crate) use layer::hooked::HookedStore;
pub use layer::recording::{Call, Count, Counts, RecordingStore};
pub use location::Location;
pub use place::local::LocalStore;
pub use place::memory::MemoryStore;

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::time::{Duration, SystemTime};

/// The kinds of objects a store keeps, one folder each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `config/<n>`
    Config,
    /// `keys/<name>`
    Key,
    /// `data/<xx>/<name>`
    Data,
    /// `tree/<xx>/<name>`
    Tree,
    /// `index/<name>`
    Index,
    /// `snapshots/<name>`
    Snapshot,
    /// `pins/<session>`
    Pin,
    /// `marks/<prune>-<n>`
    Mark,
    /// `tombs/<snapshot>`
    Tomb,
    /// `revokes/<session>`
    Revoke,
    /// `holds/<snapshot>`
    Hold,
    /// `damage/<pack>`
    Damage,
}

impl ObjectKind {
    /// All kinds, in the order of the format page.
    pub const ALL: [ObjectKind; 12] = [
        ObjectKind::Config,
        ObjectKind::Key,
        ObjectKind::Data,
        ObjectKind::Tree,
        ObjectKind::Index,
        ObjectKind::Snapshot,
        ObjectKind::Pin,
        ObjectKind::Mark,
        ObjectKind::Tomb,
        ObjectKind::Revoke,
        ObjectKind::Hold,
        ObjectKind::Damage,
    ];

    /// The folder in which objects of this kind live.
    pub fn folder(self) -> &'static str {
        match self {
            ObjectKind::Config => "config",
            ObjectKind::Key => "keys",
            ObjectKind::Data => "data",
            ObjectKind::Tree => "tree",
            ObjectKind::Index => "index",
            ObjectKind::Snapshot => "snapshots",
            ObjectKind::Pin => "pins",
            ObjectKind::Mark => "marks",
            ObjectKind::Tomb => "tombs",
            ObjectKind::Revoke => "revokes",
            ObjectKind::Hold => "holds",
            ObjectKind::Damage => "damage",
        }
    }

    /// Whether objects are spread over 256 folders by the first two digits of their names.
    pub fn is_fanned_out(self) -> bool {
        matches!(self, ObjectKind::Data | ObjectKind::Tree)
    }

    /// Whether `name` has the shape that the format page gives to names of this kind.
    pub fn accepts(self, name: &str) -> bool {
        let is_hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_number = |text: &str| {
            !text.is_empty() && text.len() <= 18 && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
        };
        let is_numbered =
            |text: &str| text.split_once('-').is_some_and(|(session, number)| is_hex(session, 32) && is_number(number));
        match self {
            ObjectKind::Config => is_number(name),
            ObjectKind::Revoke => is_hex(name, 32),
            ObjectKind::Pin => is_hex(name, 32) || is_numbered(name),
            ObjectKind::Mark => is_numbered(name),
            _ => is_hex(name, 64),
        }
    }
}

/// The full name of an object: its kind and its name within the kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Which folder.
    pub kind: ObjectKind,
    /// The name within the folder, without the two-digit fan-out; `kind.accepts(name)` holds.
    pub name: String,
}

impl ObjectKey {
    /// The object `name` of `kind`.
    pub fn new(kind: ObjectKind, name: impl fmt::Display) -> Self {
        ObjectKey { kind, name: name.to_string() }
    }

    /// The path below the root of a store: `data/0f/0f3a…`, `snapshots/77…`.
    pub fn path(&self) -> String {
        if self.kind.is_fanned_out() {
            // Error messages also name keys that were refused, so a name that is too short must not be sliced.
            let prefix = self.name.get(..2).unwrap_or(&self.name);
            format!("{}/{prefix}/{}", self.kind.folder(), self.name)
        } else {
            format!("{}/{}", self.kind.folder(), self.name)
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The object's name within its kind; it has the right shape.
    pub name: String,
    /// Its stored size in bytes.
    pub size: u64,
    /// When the store says it was stored, by the store's clock.
    pub stored: SystemTime,
    /// A number that is another one if something else was put in its place or its bytes were changed by a program, as far as
    /// the store can tell; 0 if it cannot.
    pub mark: u64,
}

/// What a store says about itself.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    /// Where it is, as a person would write it.
    pub location: String,
    /// The local folder that holds it, if there is one (a mountpoint inside it is refused).
    pub folder: Option<std::path::PathBuf>,
    /// Stands for this very place: a clone, a copy or a moved folder has another one. What a cache says about the state of stored
    /// objects holds only there.
    pub place: [u8; 32],
    /// Whether packs should carry a SHA-256 in the index, because the store can attest one.
    pub wants_sha256: bool,
    /// How long after its put an object may still be missing from `list_fresh`, and after its delete still be named by it.
    pub listing_lag: Duration,
    /// Whether listings pass caches that other machines do not know of: then a second guard, by age, is in place.
    pub is_shared: bool,
}

/// A place that keeps named objects.
///
/// The contract, checked for every implementation by the conformance suite:
///
/// - `put` is all or nothing and never replaces: afterwards either the whole object is there or nothing is. When it
///   returns `Ok`, the object survives a power cut. An object that exists is an error of kind `Exists`, its bytes
///   untouched. After any other error the object may or may not be there ("applied but reported failed"); a retry uses a
///   new name. No space is `Full`.
/// - `get` and `get_range` return exactly the stored bytes; a missing object is `NotFound`. They never return fewer or
///   other bytes than asked for: an object that ends before the range does is `Damaged`.
/// - `list` calls back once for each object, in no promised order; it may miss objects that were put while it runs, and
///   behind a cache it may show the folder as it was minutes ago. Foreign and temporary files are not listed. It is never proof
///   of absence for anything that destroys.
/// - `list_fresh` shows what `list` shows, and it names every object whose put had returned, on whichever machine, before it was
///   called, and none whose delete had. A place that cannot give that declares in `Properties::listing_lag` by how much it lags at
///   most. It may have to write to the store for that. Everything by which sessions agree who may rely on what and who may delete
///   what (marks, pins, revokes, tombs, snapshots, the index, key slots) is listed in this way.
/// - `delete` of a missing object is `Ok`; when it returns, later `get`s fail.
/// - All methods may be called from any number of threads.
pub trait Store: Send + Sync + fmt::Debug {
    /// Stores a new object durably.
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()>;

    /// The whole object, if it has at most `limit` bytes; a larger one is `Damaged`, before anything is allocated.
    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>>;

    /// Fills `buffer` with the object's bytes from `offset` on.
    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// The object's stored size; `NotFound` if there is none.
    fn size(&self, key: &ObjectKey) -> Result<u64>;

    /// Whether there is such an object, which a listing does not prove.
    fn has(&self, key: &ObjectKey) -> Result<bool> {
        match self.size(key) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            size => size.map(|_| true),
        }
    }

    /// Calls `visit` for each object of `kind`; an error of `visit` ends the listing and is returned.
    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()>;

    /// As `list`, of a folder as it is now: nothing that was put before the call is missing, whoever put it.
    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()>;

    /// Makes sure that objects which are listed would also survive a power cut: their writer may have been stopped, or be just now,
    /// between giving them their names and making those durable. Nothing to do where listed means durable.
    fn settle(&self, _keys: &[ObjectKey]) -> Result<()> {
        Ok(())
    }

    /// Removes an object durably.
    fn delete(&self, key: &ObjectKey) -> Result<()>;

    /// Removes what stopped writers left of objects that never came to be, and have not touched for so long by the store's own
    /// clock; returns how many there were. Nothing to do where a put leaves nothing behind.
    fn tidy(&self, _older_than: Duration) -> Result<u64> {
        Ok(0)
    }

    /// Keeps a little room aside for objects without which nothing can be freed, so that these go in where the place is full. Of no
    /// consequence where that is not possible.
    fn keep_room(&self) {}

    /// Makes objects readable soon (thaws them, asks for a medium) and waits for it. Nothing to do where all is online.
    fn prepare(&self, _keys: &[ObjectKey]) -> Result<()> {
        Ok(())
    }

    /// What the store says about itself.
    fn properties(&self) -> Properties;
}

/// The operations of a store, for wrappers that count or disturb them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Store::put`]
    Put,
    /// [`Store::get`]
    Get,
    /// [`Store::get_range`]
    GetRange,
    /// [`Store::size`]
    Size,
    /// [`Store::list`]
    List,
    /// [`Store::list_fresh`]
    ListFresh,
    /// [`Store::delete`]
    Delete,
    /// [`Store::prepare`]
    Prepare,
    /// [`Store::settle`]
    Settle,
}

impl Operation {
    /// Whether it changes what the store holds.
    pub fn is_mutating(self) -> bool {
        matches!(self, Operation::Put | Operation::Delete)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::GetRange => "get_range",
            Operation::Size => "size",
            Operation::List => "list",
            Operation::ListFresh => "list_fresh",
            Operation::Delete => "delete",
            Operation::Prepare => "prepare",
            Operation::Settle => "settle",
        })
    }
}

// What every place says in the same words.

/// Refuses a key whose name has not the shape of its kind, before it becomes part of a path.
fn check_key(key: &ObjectKey) -> Result<()> {
    if key.kind.accepts(&key.name) {
        Ok(())
    } else {
        let folder = key.kind.folder();
        Err(Error::new(ErrorKind::Input, format!("\"{}\" is not a name for an object in \"{folder}\"", key.name)))
    }
}

fn missing(key: &ObjectKey, location: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("There is no object \"{key}\" in \"{location}\""))
}

fn exists(key: &ObjectKey, location: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("The object \"{key}\" exists already in \"{location}\""))
}

fn no_space(key: &ObjectKey, location: &str) -> Error {
    Error::new(ErrorKind::Full, format!("No space is left for \"{key}\" in \"{location}\""))
        .with_hint(match key.kind {
            ObjectKind::Tomb | ObjectKind::Mark | ObjectKind::Revoke => {
                "Free some space there: what was kept aside for this is used up, too. \"firn prune --keep-deleted 0s\" frees what forgotten snapshots hold."
            }
            _ => "Free some space there, or run \"firn forget --prune\" with what may go: that works on a full disk.",
        })
}

fn truncated(key: &ObjectKey, expected: u64, received: u64) -> Error {
    Error::damaged(format!("The object \"{key}\" ended after {received} bytes where {expected} were expected"))
}

fn check_limit(key: &ObjectKey, size: u64, limit: u64) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::damaged(format!("The object \"{key}\" has {size} bytes, more than the {limit} that are possible")))
}

/// Checks that an object of `size` bytes holds `length` bytes from `offset` on.
fn check_range(key: &ObjectKey, size: u64, offset: u64, length: usize) -> Result<()> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Error::damaged(format!(
            "The object \"{key}\" has {size} bytes and ends before the {length} bytes at offset {offset}"
        ))),
    }
}

/// A buffer for `size` bytes, or an error where an allocation would abort the process.
fn reserve(key: &ObjectKey, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    usize::try_from(size).ok().and_then(|size| bytes.try_reserve_exact(size).ok()).ok_or_else(|| {
        Error::new(ErrorKind::Failed, format!("There is not enough memory for the {size} bytes of \"{key}\""))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_format_page() {
        let name = format!("0f{}", "a".repeat(62));
        assert_eq!(ObjectKey::new(ObjectKind::Data, &name).path(), format!("data/0f/{name}"));
        assert_eq!(ObjectKey::new(ObjectKind::Snapshot, &name).path(), format!("snapshots/{name}"));
        assert_eq!(ObjectKey::new(ObjectKind::Config, 12).path(), "config/12");
    }

    #[test]
    fn only_names_of_the_right_shape_are_accepted() {
        let long = "a".repeat(64);
        let session = "b".repeat(32);
        assert!(ObjectKind::Data.accepts(&long) && !ObjectKind::Data.accepts(&session));
        assert!(ObjectKind::Pin.accepts(&session) && !ObjectKind::Pin.accepts(&long));
        assert!(
            ObjectKind::Pin.accepts(&format!("{session}-7")) && !ObjectKind::Revoke.accepts(&format!("{session}-7"))
        );
        assert!(ObjectKind::Mark.accepts(&format!("{session}-7")) && !ObjectKind::Mark.accepts(&session));
        for bad in ["", "0", "01", "-1", "+1", "1 ", "../1", ".1", "9999999999999999999"] {
            assert!(!ObjectKind::Config.accepts(bad), "{bad}");
        }
        assert!(!ObjectKind::Tree.accepts(&"A".repeat(64)));
        assert_eq!(check_key(&ObjectKey::new(ObjectKind::Data, "x")).unwrap_err().kind(), ErrorKind::Input);
    }

    #[test]
    fn ranges_cannot_overflow() {
        let key = ObjectKey::new(ObjectKind::Config, 1);
        assert!(check_range(&key, 10, 4, 6).is_ok());
        assert!(check_range(&key, 10, 10, 0).is_ok());
        for (offset, length) in [(4, 7), (11, 0), (u64::MAX, 1), (u64::MAX, usize::MAX)] {
            assert_eq!(check_range(&key, 10, offset, length).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }
}
