//! One snapshot as a tree of numbered files. Not for: the folders that snapshots are shown in (see `folders`), or contents.
//!
//! A number is a rank: the position in a walk that names each directory before what is in it, the snapshot's root being 1.
//! What is in a directory of rank `r` begins at `r + 1`; an entry that follows one of rank `r` with `n` entries below it has
//! `r + 1 + n`. So every number is computed from the sums in the pages, both ways, and there is no table of inodes.
//! All names of one file have the number of the first of them: those of a group of hard links that agree in what they say of it.
//!
//! Memory: 32 bytes a group of hard links, of those snapshots in which somebody looked at one.

use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Entry, LinkKey, Metadata};
use crate::id::{ChunkId, ObjectName};
use crate::repository::snapshots::Named;
use crate::view::pages::{Directory, EntryRef, Found, Pages, entry_at};
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bits of an inode number that hold the rank.
pub const RANK_BITS: u32 = 36;
/// Rank of a snapshot's root directory.
pub const ROOT_RANK: u64 = 1;
/// Inode number of the directory that is mounted.
pub const MOUNT_INO: u64 = 1;

/// Where the entry of an inode number was found before.
#[derive(Clone, Copy, Debug)]
pub struct Location {
    page: ChunkId,
    at: u32,
    parent: u64,
}

/// Places of entries asked for lately, by inode number; 64 bytes each.
pub type Locations = Cache<u64, Location>;

/// A snapshot, or a directory of one, as a tree of numbered files.
#[derive(Debug)]
pub struct SnapshotTree {
    pages: Arc<Pages>,
    locations: Arc<Locations>,
    named: Arc<Named>,
    /// The first of its inode numbers, less its rank.
    base: u64,
    /// Names from the root to the directory that is shown; empty for the root itself.
    path: Vec<Vec<u8>>,
    /// The directory shown is the mount's root.
    mounted: bool,
    top: OnceLock<Top>,
    links: OnceLock<HashMap<LinkKey, u64>>,
    linking: Mutex<()>,
}

/// The directory that is shown.
#[derive(Clone, Debug)]
pub struct Top {
    /// Its entry.
    pub entry: Entry,
    /// Its rank.
    pub rank: u64,
    /// Its pages.
    pub directory: Directory,
    /// What is recorded of the directories above it, from the snapshot's root on: they are not shown, and may keep people out.
    pub above: Vec<Metadata>,
}

/// An entry below the directory that is shown.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The snapshot it is in.
    pub tree: Arc<SnapshotTree>,
    /// Itself.
    pub entry: EntryRef,
    /// Its own rank, also if it is one of several links.
    pub rank: u64,
    /// Rank of the directory it is in.
    pub parent: u64,
}

/// A directory and the rank that everything in it is counted from.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Rank of the directory.
    pub rank: u64,
    /// Its pages.
    pub directory: Directory,
}

impl Stored {
    /// As a directory, if it is one.
    pub fn place(&self) -> Option<Place> {
        Directory::of(&self.entry).map(|directory| Place { rank: self.rank, directory })
    }

    /// Its inode number.
    pub fn ino(&self) -> Result<u64> {
        self.tree.ino(self.rank, &self.entry)
    }
}

impl SnapshotTree {
    /// The tree of a directory of a snapshot, given by its path; empty for the root.
    pub fn new(
        pages: Arc<Pages>,
        locations: Arc<Locations>,
        named: Arc<Named>,
        slot: u32,
        path: &[u8],
    ) -> SnapshotTree {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        SnapshotTree {
            pages,
            locations,
            named,
            base: u64::from(slot) << RANK_BITS,
            path: names.map(<[u8]>::to_vec).collect(),
            mounted: false,
            top: OnceLock::new(),
            links: OnceLock::new(),
            linking: Mutex::new(()),
        }
    }

    /// The tree of a directory of a snapshot, to be mounted itself. Fails if the path is not a directory.
    pub fn mounted(
        pages: Arc<Pages>,
        locations: Arc<Locations>,
        named: Arc<Named>,
        slot: u32,
        path: &[u8],
    ) -> Result<SnapshotTree> {
        let mut tree = SnapshotTree::new(pages, locations, named, slot, path);
        tree.mounted = true;
        tree.top()?;
        Ok(tree)
    }

    /// The same tree with other inode numbers: `base` and the rank.
    pub fn renumbered(&self, base: u64) -> SnapshotTree {
        let mut tree = SnapshotTree::new(self.pages.clone(), self.locations.clone(), self.named.clone(), 0, b"");
        (tree.base, tree.path) = (base, self.path.clone());
        tree
    }

    /// The snapshot.
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// The first part of its inode numbers.
    pub fn slot(&self) -> u32 {
        // It has 27 bits.
        (self.base >> RANK_BITS) as u32
    }

    /// Its pages.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Whether its top directory is the mount's root.
    pub fn is_mounted(&self) -> bool {
        self.mounted
    }

    /// Whether all of the snapshot is shown.
    pub fn is_whole(&self) -> bool {
        self.path.is_empty()
    }

    /// The directory that is shown.
    pub fn top(&self) -> Result<&Top> {
        if let Some(top) = self.top.get() {
            return Ok(top);
        }
        let top = self.find_top()?;
        Ok(self.top.get_or_init(|| top))
    }

    /// The directory that is shown, if it was looked at before.
    pub fn known_top(&self) -> Option<&Top> {
        self.top.get()
    }

    fn find_top(&self) -> Result<Top> {
        let entry = crate::view::path::root(self.pages.repository(), &self.named.snapshot)?;
        let mut top = Top { directory: self.directory(&entry)?, entry, rank: ROOT_RANK, above: Vec::new() };
        if top.directory.totals.entries >> RANK_BITS != 0 {
            let name = self.named.name.short();
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("The snapshot \"{name}\" has more files than a mount can number"),
            ));
        }
        for name in &self.path {
            let Some(found) = self.pages.by_name(&top.directory, name)? else {
                // For the words, with near matches; the answer is the same.
                let entry =
                    crate::view::path::find(self.pages.repository(), &self.named.snapshot, &self.path.join(&b'/'))?;
                return Err(Error::damaged(format!("\"{}\" was not found twice", entry.name.escape_ascii())));
            };
            let mut above = top.above;
            above.push(top.entry.meta);
            top = Top {
                above,
                directory: self.directory(&found.entry)?,
                entry: Entry::clone(&found.entry),
                rank: top.rank + 1 + found.rank,
            };
        }
        Ok(top)
    }

    fn directory(&self, entry: &Entry) -> Result<Directory> {
        Directory::of(entry).ok_or_else(|| {
            let path = String::from_utf8_lossy(&self.path.join(&b'/')).into_owned();
            let part = entry.name.escape_ascii();
            Error::new(ErrorKind::Input, format!("\"{part}\" in \"/{path}\" is not a directory and cannot be mounted"))
                .with_hint("Name the directory that it is in.")
        })
    }

    /// The inode number of an entry.
    pub fn ino(&self, rank: u64, entry: &Entry) -> Result<u64> {
        let rank = match entry.link_key() {
            Some(key) => self.links()?.get(&key).copied().unwrap_or(rank),
            None => rank,
        };
        self.number(rank)
    }

    /// The inode number that belongs to a rank.
    pub fn number(&self, rank: u64) -> Result<u64> {
        if self.mounted && self.top()?.rank == rank {
            return Ok(MOUNT_INO);
        }
        Ok(self.base + rank)
    }

    /// First rank of each file with several names. The walk leaves out subtrees without links. A damaged page is passed over (what
    /// it holds keeps its own numbers, for the life of this mount); any other failure is an error, and the walk is made again.
    fn links(&self) -> Result<&HashMap<LinkKey, u64>> {
        if let Some(links) = self.links.get() {
            return Ok(links);
        }
        let _one_at_a_time = self.linking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(links) = self.links.get() {
            return Ok(links);
        }
        let top = self.top()?;
        let mut links = HashMap::new();
        self.pages.walk(
            &top.directory,
            top.rank + 1,
            &|totals| totals.linked > 0,
            &mut |rank, entry| {
                if let Some(key) = entry.link_key() {
                    let first = links.entry(key).or_insert(rank);
                    *first = rank.min(*first);
                }
            },
            &mut |error| if error.kind() == ErrorKind::Damaged { Ok(()) } else { Err(error) },
        )?;
        links.shrink_to_fit();
        Ok(self.links.get_or_init(|| links))
    }

    /// The entry of this name in a directory.
    pub fn lookup(self: &Arc<Self>, place: &Place, name: &[u8]) -> Result<Option<Stored>> {
        let Some(found) = self.pages.by_name(&place.directory, name)? else { return Ok(None) };
        let stored = self.stored(place.rank, found);
        self.remember(&stored)?;
        Ok(Some(stored))
    }

    /// Calls `each` with the entries of a directory from a position on, until it returns `false`.
    pub fn list(
        self: &Arc<Self>,
        place: &Place,
        from: u64,
        each: &mut dyn FnMut(u64, Stored) -> Result<bool>,
    ) -> Result<()> {
        self.pages.scan(&place.directory, from, &mut |position, found| each(position, self.stored(place.rank, found)))
    }

    fn stored(self: &Arc<Self>, parent: u64, found: Found) -> Stored {
        Stored { tree: self.clone(), entry: found.entry, rank: parent + 1 + found.rank, parent }
    }

    fn remember(&self, stored: &Stored) -> Result<()> {
        let location = Location { page: stored.entry.page().id(), at: stored.entry.at(), parent: stored.parent };
        self.locations.insert(self.number(stored.rank)?, location);
        Ok(())
    }

    /// The entry of this rank below the top; `None` if there is none.
    pub fn by_rank(self: &Arc<Self>, rank: u64) -> Result<Option<Stored>> {
        let number = self.number(rank)?;
        if let Some(location) = self.locations.get(&number) {
            let page = self.pages.get(&location.page)?;
            if let Some(entry) = entry_at(page, location.at) {
                return Ok(Some(Stored { tree: self.clone(), entry, rank, parent: location.parent }));
            }
        }
        let found = self.descend(rank, &mut |_| {})?;
        if let Some(stored) = &found {
            self.remember(stored)?;
        }
        Ok(found)
    }

    /// The directory of this rank; `None` if there is none.
    pub fn place_of(self: &Arc<Self>, rank: u64) -> Result<Option<Place>> {
        let top = self.top()?;
        if rank == top.rank {
            return Ok(Some(Place { rank, directory: top.directory }));
        }
        Ok(self.by_rank(rank)?.and_then(|stored| stored.place()))
    }

    /// Walks down to a rank, calling `each` with the name of every entry on the way.
    fn descend(self: &Arc<Self>, rank: u64, each: &mut dyn FnMut(&[u8])) -> Result<Option<Stored>> {
        let top = self.top()?;
        let mut place = Place { rank: top.rank, directory: top.directory };
        while rank > place.rank {
            let Some(found) = self.pages.by_rank(&place.directory, rank - place.rank - 1)? else { return Ok(None) };
            each(&found.entry.name);
            let stored = self.stored(place.rank, found);
            match stored.place() {
                _ if stored.rank == rank => return Ok(Some(stored)),
                Some(below) => place = below,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The entry of a rank if it can be had without waiting.
    pub fn peek(&self, rank: u64) -> Option<EntryRef> {
        let top = self.top.get()?;
        let mut place = Place { rank: top.rank, directory: top.directory };
        while rank > place.rank {
            let found = self.pages.peek_rank(&place.directory, rank - place.rank - 1)?;
            let reached = place.rank + 1 + found.rank;
            if reached == rank {
                let numbered = found.entry.meta.link.is_none() || self.links.get().is_some();
                return numbered.then_some(found.entry);
            }
            place = Place { rank: reached, directory: Directory::of(&found.entry)? };
        }
        None
    }

    /// The entry at an absolute path below the top; `None` if there is none.
    pub fn by_path(self: &Arc<Self>, path: &[u8]) -> Result<Option<Stored>> {
        let top = self.top()?;
        let below =
            path.strip_prefix(self.top_path().as_slice()).filter(|below| below.first().is_none_or(|c| *c == b'/'));
        let Some(below) = below else { return Ok(None) };
        let (mut place, mut found) = (Some(Place { rank: top.rank, directory: top.directory }), None);
        for name in below.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let Some(folder) = place else { return Ok(None) };
            found = self.lookup(&folder, name)?;
            place = found.as_ref().and_then(Stored::place);
        }
        Ok(found)
    }

    /// The path of an entry from the snapshot's root; `None` if there is none of this rank.
    pub fn path_at(self: &Arc<Self>, rank: u64) -> Result<Option<Vec<u8>>> {
        let mut path = self.top_path();
        let found = self.descend(rank, &mut |name| push(&mut path, name))?;
        Ok((found.is_some() || rank == self.top()?.rank).then_some(path))
    }

    /// The path of an entry from the snapshot's root, for messages; as much of it as can be found.
    pub fn path_of(self: &Arc<Self>, rank: u64) -> Vec<u8> {
        let mut path = self.top_path();
        // Half a path is better than none in a message about damage.
        drop(self.descend(rank, &mut |name| push(&mut path, name)));
        path
    }

    /// The absolute path of the directory that is shown; empty for the root.
    pub fn top_path(&self) -> Vec<u8> {
        let mut path = Vec::new();
        self.path.iter().for_each(|name| push(&mut path, name));
        path
    }

    /// The snapshot's name.
    pub fn name(&self) -> ObjectName {
        self.named.name
    }
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    path.push(b'/');
    path.extend_from_slice(name);
}
