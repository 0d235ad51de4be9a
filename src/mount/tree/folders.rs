//! The folders above snapshots in a mount: what is in them, as of one moment. Not for: what is inside snapshots (see `tree`),
//! or noticing changes (see `view`).
//!
//! ```text
//! README.txt   .nomedia and so on   latest → snapshots/…   snapshots/<time>/   hosts/<host>/<time> →   hosts/<host>/latest →
//! tags/<tag>/<time> →   ids/<id> →   versions/   deleted/
//! ```
//!
//! That is the usual layout; `layout` has others.
//!
//! Inode numbers here are below 2^36 and made from the path, for links and files also from what they hold: the kernel keeps
//! what is behind a number for ever. Memory: about 1 KiB a snapshot.

use super::layout::{Layout, Style};
use super::names;
use super::numbers::{MOUNT_INO, RANK_BITS, SnapshotTree};
use crate::repository::dates::{Dates, OrderKey};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The folder of the versions of every path. What is in it is not known here.
pub const VERSIONS: &str = "versions";
/// The folder of what is gone. What is in it is not known here.
pub const DELETED: &str = "deleted";
/// Empty files at the root by which programs that index whatever they find know that they are not wanted: tracker and scanners of
/// media, and Spotlight on a machine that has this by NFS.
pub const MARKERS: [&str; 3] = [".metadata_never_index", ".nomedia", ".trackerignore"];
/// Numbers of folders and links are from here up to 2^36.
const FIRST_INO: u64 = 1 << 20;

const README: &str = "\
This is a firn mount: a read-only view of all snapshots in a backup repository.

snapshots/<time>/     each snapshot, by the time it was taken (local time)
latest                the newest one
hosts/<host>/         the same ones by the machine they were taken on, each with its own \"latest\"
tags/<tag>/           the same ones by tag
ids/<id>              the same ones by id
versions/<path>/      every version of the file or folder with this path, by the time it first appeared
deleted/<path>        the last version of everything that is not in the newest snapshots any more

Copy out of it whatever you need, with any program. Nothing in here can be changed or deleted, and looking
at it costs nothing but time. New snapshots appear by themselves; forgotten ones go away.
";

const SHORT_README: &str = "\
This is a firn mount: a read-only view of snapshots in a backup repository. Each folder named by a time, or by
what was asked for, is one snapshot, and \"latest\" is the newest one.

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
    /// The folder that holds a snapshot, by its slot.
    homes: HashMap<u32, u64>,
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
    /// Lays out these snapshots, of which `dates` says which is the latest. Items that were there `before` keep their inode numbers.
    pub fn new(trees: Vec<Arc<SnapshotTree>>, layout: &Layout, dates: &Dates, before: Option<&Folders>) -> Folders {
        let root = draft(&trees, layout, dates);
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
            homes: HashMap::new(),
        };
        folders.place(root, String::new(), MOUNT_INO);
        folders
    }

    fn place(&mut self, draft: Draft, path: String, parent: u64) -> Option<Target> {
        let (body, time) = match draft {
            Draft::Snapshot(tree) => {
                self.homes.insert(tree.slot(), parent);
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

    /// The folder that holds the snapshot of this slot.
    pub fn home(&self, slot: u32) -> u64 {
        self.homes.get(&slot).copied().unwrap_or(MOUNT_INO)
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

fn draft(trees: &[Arc<SnapshotTree>], layout: &Layout, dates: &Dates) -> Draft {
    let folder = || Draft::Folder(BTreeMap::new(), Timestamp::UNIX_EPOCH);
    let by_name: HashMap<_, _> = trees.iter().map(|tree| (tree.name(), tree)).collect();
    let named: Vec<_> = trees.iter().map(|tree| tree.named()).collect();
    let mut root = folder();
    let mut newest: BTreeMap<Vec<String>, (OrderKey, Vec<String>, Timestamp)> = BTreeMap::new();
    if layout.style() == Style::Default {
        for name in ["snapshots", "hosts", "tags", "ids"] {
            add(&mut root, &[name.to_owned()], folder(), Timestamp::UNIX_EPOCH);
        }
        let newest = named.iter().map(|named| named.snapshot.time).max().unwrap_or_default();
        for name in [VERSIONS, DELETED] {
            add(&mut root, &[name.to_owned()], Draft::Folder(BTreeMap::new(), newest), newest);
        }
    }
    for places in layout.places(&named) {
        let mut paths = places.paths.into_iter();
        let (Some((home, latest)), Some(tree)) = (paths.next(), by_name.get(&places.name)) else { continue };
        add(&mut root, &home, Draft::Snapshot(Arc::clone(tree)), places.time);
        let above = |path: &[String]| path[..path.len().saturating_sub(1)].to_vec();
        let key = dates.key(tree.named());
        let mut note = |folder: Vec<String>| {
            if newest.get(&folder).is_none_or(|(other, ..)| *other < key) {
                newest.insert(folder, (key, home.clone(), places.time));
            }
        };
        note(Vec::new());
        if latest {
            note(above(&home));
        }
        for (path, latest) in paths {
            let folder = above(&path);
            add(&mut root, &path, Draft::Link(relative(&folder, &home), places.time), places.time);
            if latest {
                note(folder);
            }
        }
    }
    if layout.style() == Style::PreviousVersions {
        return root;
    }
    for (mut path, (_, home, time)) in newest {
        let link = Draft::Link(relative(&path, &home), time);
        path.push("latest".to_owned());
        add(&mut root, &path, link, time);
    }
    let text = if layout.style() == Style::Default { README } else { SHORT_README };
    for (name, text) in MARKERS.map(|name| (name, "")).into_iter().chain([("README.txt", text)]) {
        add(&mut root, &[name.to_owned()], Draft::File(text), Timestamp::UNIX_EPOCH);
    }
    root
}

/// The way from a folder to a path, both from the root.
fn relative(folder: &[String], path: &[String]) -> String {
    let shared = folder.iter().zip(path).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n("..", folder.len() - shared);
    up.chain(path[shared..].iter().map(String::as_str)).collect::<Vec<_>>().join("/")
}

/// Puts something into a folder under a path, making the folders on the way. What is there already stays.
fn add(folder: &mut Draft, path: &[String], draft: Draft, time: Timestamp) {
    let (Draft::Folder(entries, newest), Some((name, rest))) = (folder, path.split_first()) else { return };
    *newest = time.max(*newest);
    if rest.is_empty() {
        entries.entry(name.clone()).or_insert(draft);
    } else {
        let below =
            entries.entry(name.clone()).or_insert_with(|| Draft::Folder(BTreeMap::new(), Timestamp::UNIX_EPOCH));
        add(below, rest, draft, time);
    }
}
