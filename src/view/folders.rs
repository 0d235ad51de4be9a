//! The folders above snapshots in a mount: what is in them, as of one moment. Not for: what is inside snapshots (see `tree`),
//! or noticing changes (see `view`).
//!
//! ```text
//! README.txt   latest → snapshots/…   snapshots/<time>/   hosts/<host>/<time> →   hosts/<host>/latest →
//! tags/<tag>/<time> →   ids/<id> →
//! ```
//!
//! Inode numbers here are below 2^36 and made from the path, for links and files also from what they hold: the kernel keeps
//! what is behind a number for ever. Memory: about 1 KiB a snapshot.

use super::names;
use super::tree::{MOUNT_INO, RANK_BITS, SnapshotTree};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Numbers of folders and links are from here up to 2^36.
const FIRST_INO: u64 = 1 << 20;

const README: &str = "\
This is a firn mount: a read-only view of all snapshots in a backup repository.

snapshots/<time>/     each snapshot, by the time it was taken (local time)
latest                the newest one
hosts/<host>/         the same ones by the machine they were taken on, each with its own \"latest\"
tags/<tag>/           the same ones by tag
ids/<id>              the same ones by id

Copy out of it whatever you need, with any program. Nothing in here can be changed or deleted, and looking
at it costs nothing but time. New snapshots appear by themselves; forgotten ones go away.
";

/// A folder, link or file that is not in any snapshot.
#[derive(Debug)]
pub struct Item {
    /// Inode number.
    pub ino: u64,
    /// Inode number of the folder it is in.
    pub parent: u64,
    /// Path from the mount's root, without a slash at the start.
    pub path: String,
    /// Time of the newest snapshot in it.
    pub time: Timestamp,
    /// What it is.
    pub body: ItemBody,
}

/// What an item is.
#[derive(Debug)]
pub enum ItemBody {
    /// Names in order and what they stand for.
    Folder(Vec<(String, Target)>),
    /// A symbolic link.
    Link(String),
    /// A text.
    File(&'static str),
}

/// What a name in a folder stands for.
#[derive(Clone, Debug)]
pub enum Target {
    /// An item.
    Item(u64),
    /// A snapshot's root.
    Snapshot(Arc<SnapshotTree>),
}

impl Target {
    fn same(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Item(a), Target::Item(b)) => a == b,
            (Target::Snapshot(a), Target::Snapshot(b)) => a.name() == b.name(),
            _ => false,
        }
    }
}

/// All folders of a moment.
#[derive(Debug)]
pub struct Folders {
    items: HashMap<u64, Arc<Item>>,
    /// Inode numbers by what they were made from.
    numbers: HashMap<String, u64>,
    trees: HashMap<u32, Arc<SnapshotTree>>,
    snapshots: u64,
}

/// A folder whose names changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The folder.
    pub ino: u64,
    /// Names that came, went, or stand for something else now.
    pub names: Vec<String>,
}

enum Draft {
    Folder(BTreeMap<String, Draft>, Timestamp),
    Link(String, Timestamp),
    File(&'static str),
    Snapshot(Arc<SnapshotTree>),
}

impl Folders {
    /// Lays out these snapshots. Items that were there `before` keep their inode numbers.
    pub fn new(trees: Vec<Arc<SnapshotTree>>, zone: &TimeZone, before: Option<&Folders>) -> Folders {
        let root = draft(&trees, zone);
        let mut keys = Vec::new();
        collect_keys(&root, "", &mut keys);
        let known = before.map(|before| &before.numbers).cloned().unwrap_or_default();
        let hashed = keys.into_iter().map(|key| {
            let hash = blake3::hash(key.as_bytes());
            let number = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
            (key, number)
        });
        let numbers = names::assign(&known, hashed, FIRST_INO, (1 << RANK_BITS) - FIRST_INO);
        let mut folders = Folders {
            items: HashMap::new(),
            numbers,
            trees: trees.into_iter().map(|tree| (tree.slot(), tree)).collect(),
            snapshots: MOUNT_INO,
        };
        folders.place(root, String::new(), MOUNT_INO);
        folders
    }

    fn place(&mut self, draft: Draft, path: String, parent: u64) -> Option<Target> {
        let (body, time) = match draft {
            Draft::Snapshot(tree) => {
                self.snapshots = parent;
                return Some(Target::Snapshot(tree));
            }
            Draft::Link(target, time) => (ItemBody::Link(target), time),
            Draft::File(text) => (ItemBody::File(text), Timestamp::UNIX_EPOCH),
            Draft::Folder(entries, time) => {
                let ino = self.number(&path, None)?;
                let mut targets = Vec::with_capacity(entries.len());
                for (name, draft) in entries {
                    let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    if let Some(target) = self.place(draft, below, ino) {
                        targets.push((name, target));
                    }
                }
                (ItemBody::Folder(targets), time)
            }
        };
        let ino = match &body {
            ItemBody::Link(target) => self.number(&path, Some(target))?,
            ItemBody::File(text) => self.number(&path, Some(text))?,
            ItemBody::Folder(_) => self.number(&path, None)?,
        };
        self.items.insert(ino, Arc::new(Item { ino, parent, path, time, body }));
        Some(Target::Item(ino))
    }

    fn number(&self, path: &str, content: Option<&str>) -> Option<u64> {
        if path.is_empty() { Some(MOUNT_INO) } else { self.numbers.get(&key(path, content)).copied() }
    }

    /// The folder, link or file with this inode number.
    pub fn item(&self, ino: u64) -> Option<&Arc<Item>> {
        self.items.get(&ino)
    }

    /// The snapshot whose inode numbers begin with this slot.
    pub fn tree(&self, slot: u32) -> Option<&Arc<SnapshotTree>> {
        self.trees.get(&slot)
    }

    /// All snapshots, in no order.
    pub fn trees(&self) -> impl Iterator<Item = &Arc<SnapshotTree>> {
        self.trees.values()
    }

    /// The folder that holds the snapshots.
    pub fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// What changed between `before` and this, for folders that are in both.
    pub fn changes_since(&self, before: &Folders) -> Vec<Change> {
        let mut changes = Vec::new();
        for (ino, item) in &self.items {
            let (ItemBody::Folder(new), Some(ItemBody::Folder(old))) =
                (&item.body, before.items.get(ino).map(|item| &item.body))
            else {
                continue;
            };
            let missing = |from: &[(String, Target)], other: &[(String, Target)]| -> Vec<String> {
                let differs = |(name, target): &&(String, Target)| !find(other, name).is_some_and(|o| o.same(target));
                from.iter().filter(differs).map(|(name, _)| name.clone()).collect()
            };
            let mut names = missing(new, old);
            names.extend(missing(old, new));
            names.sort();
            names.dedup();
            if !names.is_empty() {
                changes.push(Change { ino: *ino, names });
            }
        }
        changes.sort_by_key(|change| change.ino);
        changes
    }
}

/// What a name in a folder stands for.
pub fn find<'a>(entries: &'a [(String, Target)], name: &str) -> Option<&'a Target> {
    entries.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok().map(|at| &entries[at].1)
}

fn key(path: &str, content: Option<&str>) -> String {
    match content {
        Some(content) => format!("{path}\0{content}"),
        None => path.to_owned(),
    }
}

fn collect_keys(draft: &Draft, path: &str, keys: &mut Vec<String>) {
    match draft {
        Draft::Folder(entries, _) => {
            if !path.is_empty() {
                keys.push(key(path, None));
            }
            for (name, draft) in entries {
                let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                collect_keys(draft, &below, keys);
            }
        }
        Draft::Link(target, _) => keys.push(key(path, Some(target))),
        Draft::File(text) => keys.push(key(path, Some(text))),
        Draft::Snapshot(_) => {}
    }
}

fn draft(trees: &[Arc<SnapshotTree>], zone: &TimeZone) -> Draft {
    let mut sorted: Vec<&Arc<SnapshotTree>> = trees.iter().collect();
    sorted.sort_by_key(|tree| (tree.named().snapshot.time, tree.name()));
    let moments: Vec<_> = sorted.iter().map(|tree| (tree.named().snapshot.time, tree.name())).collect();
    let times = names::time_names(&moments, zone);
    let ids: Vec<_> = sorted.iter().map(|tree| tree.name()).collect();
    let short = names::short_names(&ids);
    let newest = moments.last().map_or(Timestamp::UNIX_EPOCH, |(time, _)| *time);
    let folder = || Draft::Folder(BTreeMap::new(), Timestamp::UNIX_EPOCH);
    let mut root = BTreeMap::from([("README.txt".to_owned(), Draft::File(README))]);
    let (mut snapshots, mut hosts, mut tags, mut by_id) = (folder(), folder(), folder(), folder());
    for tree in sorted {
        let snapshot = &tree.named().snapshot;
        let (name, time) = (&times[&tree.name()], snapshot.time);
        root.insert("latest".to_owned(), Draft::Link(format!("snapshots/{name}"), time));
        add(&mut snapshots, &[name], Draft::Snapshot(tree.clone()), time);
        let link = |up: &str| Draft::Link(format!("{up}snapshots/{name}"), time);
        let host = names::safe_name(&snapshot.host);
        add(&mut hosts, &[&host, name], link("../../"), time);
        add(&mut hosts, &[&host, "latest"], link("../../"), time);
        for tag in &snapshot.tags {
            add(&mut tags, &[&names::safe_name(tag), name], link("../../"), time);
        }
        add(&mut by_id, &[&short[&tree.name()]], link("../"), time);
    }
    for (name, draft) in [("snapshots", snapshots), ("hosts", hosts), ("tags", tags), ("ids", by_id)] {
        root.insert(name.to_owned(), draft);
    }
    Draft::Folder(root, newest)
}

/// Puts something into a folder under a path, making the folders on the way.
fn add(folder: &mut Draft, path: &[&str], draft: Draft, time: Timestamp) {
    let (Draft::Folder(entries, newest), Some((name, rest))) = (folder, path.split_first()) else { return };
    *newest = time.max(*newest);
    if rest.is_empty() {
        entries.insert((*name).to_owned(), draft);
    } else {
        let below =
            entries.entry((*name).to_owned()).or_insert_with(|| Draft::Folder(BTreeMap::new(), Timestamp::UNIX_EPOCH));
        add(below, rest, draft, time);
    }
}
