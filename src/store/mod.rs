//! Named objects somewhere: the contract, and the places that fulfil it. Not for: what is inside the objects.

use crate::error::Result;
use std::fmt;
use std::time::SystemTime;

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
}

impl ObjectKind {
    /// All kinds, in the order of the format page.
    pub const ALL: [ObjectKind; 10] = [
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
        match self {
            ObjectKind::Config => is_number(name),
            ObjectKind::Pin | ObjectKind::Revoke => is_hex(name, 32),
            ObjectKind::Mark => {
                name.split_once('-').is_some_and(|(prune, number)| is_hex(prune, 32) && is_number(number))
            }
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
            format!("{}/{}/{}", self.kind.folder(), &self.name[..2], self.name)
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
}

/// What a store says about itself.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    /// Where it is, as a person would write it.
    pub location: String,
    /// The local folder that holds it, if there is one (a mountpoint inside it is refused).
    pub folder: Option<std::path::PathBuf>,
    /// Whether packs should carry a SHA-256 in the index, because the store can attest one.
    pub wants_sha256: bool,
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
/// - `list` calls back once for each object, in no promised order; it may miss objects that were put while it runs.
///   Foreign and temporary files are not listed. A listing is never proof of absence for anything that destroys.
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

    /// Calls `visit` for each object of `kind`; an error of `visit` ends the listing and is returned.
    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()>;

    /// Removes an object durably.
    fn delete(&self, key: &ObjectKey) -> Result<()>;

    /// Makes objects readable soon (thaws them, asks for a medium) and waits for it. Nothing to do where all is online.
    fn prepare(&self, _keys: &[ObjectKey]) -> Result<()> {
        Ok(())
    }

    /// What the store says about itself.
    fn properties(&self) -> Properties;
}
