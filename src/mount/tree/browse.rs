//! Everything that a mount shows as one tree of numbered nodes: all snapshots in their folders, or one directory of one snapshot.
//! Not for: the kernel's types (see `mount`), or bytes of files (see `read`).

use super::folders::{Change, Folders, Item, ItemBody, Target, find};
use super::gathered::SLOT_BITS;
use super::layout::{Layout, Style};
use super::names;
use super::numbers::{Locations, MOUNT_INO, Place, RANK_BITS, ROOT_RANK, SnapshotTree, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::Entry;
use crate::id::ObjectName;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::dates::Dates;
use crate::repository::snapshots::{Named, doubts};
use crate::view::pages::{Directory, EntryRef, Pages};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// Bytes of decoded pages kept in memory unless told otherwise.
pub const DEFAULT_PAGE_CACHE: u64 = 32 << 20;
/// Places of entries kept in memory.
const LOCATIONS: usize = 1 << 16;
/// Threads that look for the directory to show in many snapshots.
const LOOKERS: usize = 4;
/// Slots of snapshots: 1 up to this. What has larger ones is not shown by a view (see `past`).
const SLOTS: u64 = (1 << SLOT_BITS) - 1;

/// A directory, file or anything else in a mount. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Node {
    /// A folder, link or text outside of all snapshots.
    Item(Arc<Item>),
    /// The top directory of a snapshot or of the mount.
    Top(Arc<SnapshotTree>),
    /// Anything below it.
    Stored(Stored),
}

/// Takes position, name and node of an entry; says whether to go on.
pub type Each<'a> = dyn FnMut(u64, &[u8], &Node) -> Result<bool> + 'a;

/// All snapshots of a repository, or one directory.
#[derive(Debug)]
pub struct View {
    pages: Arc<Pages>,
    locations: Arc<Locations>,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    All(Box<All>),
    One(Arc<SnapshotTree>),
}

#[derive(Debug)]
struct All {
    layout: Layout,
    /// Nothing with extended attributes may be shown.
    plain: AtomicBool,
    folders: RwLock<Arc<Folders>>,
    /// All snapshots that count, shown or not, the oldest first; at least as new as the folders.
    live: RwLock<Arc<Vec<Arc<Named>>>>,
    known: Mutex<Known>,
}

/// Which snapshots were there when last looked.
#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<ObjectName>,
    snapshots: HashMap<ObjectName, Arc<Named>>,
    slots: HashMap<ObjectName, u64>,
    /// Those that do not have the directory that is shown.
    bare: HashSet<ObjectName>,
    /// Those whose dates were told of.
    doubted: HashSet<ObjectName>,
}

impl View {
    /// All snapshots, laid out in this way.
    pub fn all(
        repository: Arc<Repository>,
        cache: u64,
        layout: impl Into<Layout>,
        progress: &dyn Progress,
    ) -> Result<View> {
        let (pages, locations) = caches(repository, cache);
        let layout = layout.into();
        let folders = RwLock::new(Arc::new(Folders::new(Vec::new(), &layout, &Dates::default(), None)));
        let (plain, live, known) = (AtomicBool::new(false), RwLock::default(), Mutex::default());
        let shown = Shown::All(Box::new(All { layout, plain, folders, live, known }));
        let view = View { pages, locations, shown };
        view.refresh(progress)?;
        Ok(view)
    }

    /// One directory of one snapshot, given by its absolute path (empty: the root).
    pub fn one(repository: Arc<Repository>, cache: u64, named: Named, path: &[u8]) -> Result<View> {
        let (pages, locations) = caches(repository, cache);
        let slot = 1 + slot_hash(&named.name) % SLOTS;
        let tree = SnapshotTree::mounted(pages.clone(), locations.clone(), Arc::new(named), slot as u32, path)?;
        Ok(View { pages, locations, shown: Shown::One(Arc::new(tree)) })
    }

    /// Whether any file that is shown has extended attributes.
    pub fn has_attributes(&self) -> bool {
        self.snapshots().iter().any(|tree| tree.named().snapshot.totals.attributed > 0)
    }

    /// From now on, a snapshot with extended attributes is not shown; `refresh` tells of it instead.
    pub fn stay_plain(&self) {
        if let Shown::All(all) = &self.shown {
            all.plain.store(true, Ordering::Relaxed);
        }
    }

    /// Looks for snapshots that came or went, by their names; only if there are any are they read and the index with them.
    /// `None`: there is one that a plain view may not show, and all stays as it was.
    pub fn refresh(&self, progress: &dyn Progress) -> Result<Option<Vec<Change>>> {
        let Shown::All(all) = &self.shown else { return Ok(Some(Vec::new())) };
        let repository = self.pages.repository();
        let mut known = all.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = live_names(repository)?;
        let names: BTreeSet<ObjectName> = stored.keys().copied().collect();
        let first = known.names.is_empty() && known.slots.is_empty();
        if !first && names == known.names {
            return Ok(Some(Vec::new()));
        }
        let mut snapshots = HashMap::with_capacity(names.len());
        let mut has_new = first;
        for name in &names {
            if let Some(named) = known.snapshots.get(name) {
                snapshots.insert(*name, named.clone());
                continue;
            }
            match repository.snapshot(*name) {
                Ok(snapshot) => {
                    let wanted = all.layout.filter.wants(&snapshot);
                    if wanted && snapshot.totals.attributed > 0 && all.plain.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    has_new = true;
                    snapshots.insert(*name, Arc::new(Named { name: *name, snapshot }));
                }
                // Deleted between listing and reading.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    progress.note(&format!("A snapshot is not shown: {}", error.chain()));
                }
                Err(error) => return Err(error),
            }
        }
        // After the snapshots were listed: then every snapshot that is shown is covered.
        if has_new {
            repository.reload_index(progress)?;
        }
        let dates = Dates::new(snapshots.values().map(|named| (named.name, &named.snapshot)), &stored);
        let wanted = || snapshots.values().map(Arc::as_ref).filter(|named| all.layout.filter.wants(&named.snapshot));
        if let Some(newest) = wanted().max_by_key(|named| dates.key(named)) {
            let found = doubts(&dates, newest, wanted());
            for (name, doubt) in found {
                if known.doubted.insert(name) {
                    progress.note(&doubt.to_string());
                }
            }
        }
        Ok(Some(self.show(all, &mut known, names, snapshots, &dates)))
    }

    fn show(
        &self,
        all: &All,
        known: &mut Known,
        names: BTreeSet<ObjectName>,
        snapshots: HashMap<ObjectName, Arc<Named>>,
        dates: &Dates,
    ) -> Vec<Change> {
        let wanted = snapshots.values().filter(|named| all.layout.filter.wants(&named.snapshot));
        let mut order: Vec<&Arc<Named>> = wanted.collect();
        order.sort_by_key(|named| (named.snapshot.time, named.name));
        let keys = order.iter().map(|named| (named.name, slot_hash(&named.name)));
        let slots = names::assign(&known.slots, keys, 1, SLOTS);
        let before = all.folders.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut trees: Vec<Arc<SnapshotTree>> = order
            .iter()
            .map(|named| {
                // A slot has 27 bits.
                let slot = slots[&named.name] as u32;
                before.tree(slot).filter(|tree| tree.name() == named.name).cloned().unwrap_or_else(|| {
                    let (pages, locations) = (self.pages.clone(), self.locations.clone());
                    Arc::new(SnapshotTree::new(pages, locations, Arc::clone(named), slot, all.layout.root()))
                })
            })
            .collect();
        known.bare.retain(|name| names.contains(name));
        trees.retain(|tree| !known.bare.contains(&tree.name()));
        let bare = without_top(&trees, &all.layout);
        trees.retain(|tree| !bare.contains(&tree.name()));
        known.bare.extend(bare);
        let folders = Arc::new(Folders::new(trees, &all.layout, dates, Some(&before)));
        let mut live: Vec<Arc<Named>> = snapshots.values().cloned().collect();
        live.sort_by_cached_key(|named| dates.key(named));
        *all.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        let changes = folders.changes_since(&before);
        *all.folders.write().unwrap_or_else(PoisonError::into_inner) = folders;
        (known.names, known.snapshots, known.slots) = (names, snapshots, slots);
        changes
    }

    /// Whether snapshots can come and go.
    pub fn is_growing(&self) -> bool {
        matches!(self.shown, Shown::All(_))
    }

    /// The snapshots that are shown now.
    pub fn snapshots(&self) -> Vec<Arc<SnapshotTree>> {
        match &self.shown {
            Shown::One(tree) => vec![tree.clone()],
            Shown::All(all) => folders(all).trees().cloned().collect(),
        }
    }

    /// The layout, if there are folders for what is gathered from several snapshots.
    pub fn past_layout(&self) -> Option<&Layout> {
        match &self.shown {
            Shown::All(all) if all.layout.style() == Style::Default => Some(&all.layout),
            _ => None,
        }
    }

    /// The folders of this moment; `None` if one snapshot is shown.
    pub fn folders(&self) -> Option<Arc<Folders>> {
        match &self.shown {
            Shown::All(all) => Some(folders(all)),
            Shown::One(_) => None,
        }
    }

    /// All snapshots that count, shown or not, the oldest first; at least as new as `folders` was before this was asked.
    pub fn live(&self) -> Arc<Vec<Arc<Named>>> {
        match &self.shown {
            Shown::All(all) => all.live.read().unwrap_or_else(PoisonError::into_inner).clone(),
            Shown::One(_) => Arc::default(),
        }
    }

    /// The mount's root.
    pub fn root(&self) -> Node {
        match &self.shown {
            Shown::One(tree) => Node::Top(tree.clone()),
            Shown::All(all) => {
                let folders = folders(all);
                Node::Item(folders.item(MOUNT_INO).expect("every layout has a root").clone())
            }
        }
    }

    /// The node with this inode number; `None` if there is none (any more).
    pub fn node(&self, ino: u64) -> Result<Option<Node>> {
        if ino == MOUNT_INO {
            return Ok(Some(self.root()));
        }
        let (slot, rank) = ((ino >> RANK_BITS) as u32, ino & ((1 << RANK_BITS) - 1));
        let tree = match &self.shown {
            Shown::One(tree) if slot == tree.slot() => tree.clone(),
            Shown::One(_) => return Ok(None),
            Shown::All(all) if slot == 0 => return Ok(folders(all).item(ino).cloned().map(Node::Item)),
            Shown::All(all) => match folders(all).tree(slot) {
                Some(tree) if rank == ROOT_RANK => return Ok(Some(Node::Top(tree.clone()))),
                Some(tree) => tree.clone(),
                None => return Ok(None),
            },
        };
        if rank == 0 {
            return Ok(None);
        }
        Ok(tree.by_rank(rank)?.map(Node::Stored))
    }

    /// The entry of something below a snapshot's top, if it can be had without waiting for storage.
    pub fn peek(&self, ino: u64) -> Option<EntryRef> {
        let (slot, rank) = ((ino >> RANK_BITS) as u32, ino & ((1 << RANK_BITS) - 1));
        match &self.shown {
            Shown::All(all) => folders(all).tree(slot)?.peek(rank),
            Shown::One(tree) => tree.peek(rank),
        }
    }

    /// Whether a node, and its listing, can be had without waiting for storage.
    pub fn is_resident(&self, ino: u64) -> bool {
        let is_top = match &self.shown {
            Shown::All(_) if ino >> RANK_BITS == 0 => return true,
            Shown::All(_) => ino & ((1 << RANK_BITS) - 1) == ROOT_RANK,
            Shown::One(_) => ino == MOUNT_INO,
        };
        if is_top {
            let tree = match &self.shown {
                Shown::All(all) => folders(all).tree((ino >> RANK_BITS) as u32).cloned(),
                Shown::One(tree) => Some(tree.clone()),
            };
            return tree
                .is_none_or(|tree| tree.known_top().is_some_and(|top| self.pages.is_listing_resident(&top.directory)));
        }
        self.peek(ino).is_some_and(|entry| self.is_listing_resident(&entry))
    }

    /// Whether the listing of an entry, if it is a directory, can be had without waiting for storage.
    pub fn is_listing_resident(&self, entry: &Entry) -> bool {
        Directory::of(entry).is_none_or(|directory| self.pages.is_listing_resident(&directory))
    }

    /// A node's inode number.
    pub fn ino(&self, node: &Node) -> Result<u64> {
        match node {
            Node::Item(item) => Ok(item.ino),
            Node::Top(tree) if tree.is_mounted() => Ok(MOUNT_INO),
            Node::Top(tree) => tree.number(ROOT_RANK),
            Node::Stored(stored) => stored.ino(),
        }
    }

    /// The directory that holds a node; the root is its own.
    pub fn parent(&self, node: &Node) -> Result<Node> {
        match (node, &self.shown) {
            (Node::Item(item), Shown::All(all)) => {
                Ok(folders(all).item(item.parent).cloned().map_or_else(|| self.root(), Node::Item))
            }
            (Node::Top(tree), Shown::All(all)) => {
                let folders = folders(all);
                Ok(folders.item(folders.home(tree.slot())).cloned().map_or_else(|| self.root(), Node::Item))
            }
            (Node::Stored(stored), _) if stored.parent == stored.tree.top()?.rank => Ok(Node::Top(stored.tree.clone())),
            (Node::Stored(stored), _) => match stored.tree.by_rank(stored.parent)? {
                Some(parent) => Ok(Node::Stored(parent)),
                None => Err(Error::damaged("a directory was found once and not again")),
            },
            _ => Ok(self.root()),
        }
    }

    /// The node of this name in a directory.
    pub fn lookup(&self, node: &Node, name: &[u8]) -> Result<Option<Node>> {
        if let Node::Item(item) = node {
            // A mutable directory's handle may be older than its newest names.
            let item = self.newest(item);
            let ItemBody::Folder(entries) = &item.body else { return Ok(None) };
            let target = std::str::from_utf8(name).ok().and_then(|name| find(entries, name));
            return Ok(target.and_then(|target| self.target(target)));
        }
        let Some((tree, place)) = place(node)? else { return Ok(None) };
        Ok(tree.lookup(&place, name)?.map(Node::Stored))
    }

    /// Calls `each` with position, name and node of a directory's entries from a position on, until it returns `false`.
    pub fn list(&self, node: &Node, from: u64, each: &mut Each<'_>) -> Result<()> {
        if let Node::Item(item) = node {
            let item = self.newest(item);
            let ItemBody::Folder(entries) = &item.body else { return Ok(()) };
            for (position, (name, target)) in (0u64..).zip(entries).skip(usize::try_from(from).unwrap_or(usize::MAX)) {
                if let Some(node) = self.target(target)
                    && !each(position, name.as_bytes(), &node)?
                {
                    break;
                }
            }
            return Ok(());
        }
        let Some((tree, place)) = place(node)? else { return Ok(()) };
        tree.list(&place, from, &mut |position, stored| {
            let entry = stored.entry.clone();
            each(position, &entry.name, &Node::Stored(stored))
        })
    }

    fn newest(&self, item: &Arc<Item>) -> Arc<Item> {
        match &self.shown {
            Shown::All(all) => folders(all).item(item.ino).unwrap_or(item).clone(),
            Shown::One(_) => item.clone(),
        }
    }

    fn target(&self, target: &Target) -> Option<Node> {
        match (target, &self.shown) {
            (Target::Snapshot(tree), _) => Some(Node::Top(tree.clone())),
            (Target::Item(ino), Shown::All(all)) => folders(all).item(*ino).cloned().map(Node::Item),
            (Target::Item(_), Shown::One(_)) => None,
        }
    }

    /// A directory's place in its snapshot; `None` for everything else.
    pub fn place<'n>(&self, node: &'n Node) -> Result<Option<(&'n Arc<SnapshotTree>, Place)>> {
        place(node)
    }

    /// The path of a node in the mount, for messages.
    pub fn path(&self, node: &Node) -> String {
        let (tree, path) = match node {
            Node::Item(item) => return item.path.clone(),
            Node::Top(tree) => (tree, Vec::new()),
            Node::Stored(stored) => (&stored.tree, stored.tree.path_of(stored.rank)),
        };
        format!("{}:{}", tree.name().short(), String::from_utf8_lossy(&path))
    }

    /// The pages behind this.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }
}

impl Node {
    /// The entry of something in a snapshot; of its top only if that is the mount's root.
    pub fn entry(&self) -> Result<Option<&Entry>> {
        match self {
            Node::Item(_) => Ok(None),
            Node::Top(tree) => tree.top().map(|top| Some(&top.entry)),
            Node::Stored(stored) => Ok(Some(&stored.entry)),
        }
    }

    /// The entry of something below a snapshot's top.
    pub fn stored(&self) -> Option<&EntryRef> {
        match self {
            Node::Stored(stored) => Some(&stored.entry),
            _ => None,
        }
    }
}

/// The tree and place of a directory in a snapshot.
fn place(node: &Node) -> Result<Option<(&Arc<SnapshotTree>, Place)>> {
    match node {
        Node::Item(_) => Ok(None),
        Node::Top(tree) => {
            let top = tree.top()?;
            Ok(Some((tree, Place { rank: top.rank, directory: top.directory })))
        }
        Node::Stored(stored) => Ok(stored.place().map(|place| (&stored.tree, place))),
    }
}

/// Those that do not have the directory that is shown. Only what the records leave open is looked for, by several threads: it
/// takes a page a folder on the way, which snapshots that are alike share. What cannot be read is shown, and fails loudly there.
fn without_top(trees: &[Arc<SnapshotTree>], layout: &Layout) -> HashSet<ObjectName> {
    let open =
        |tree: &&Arc<SnapshotTree>| tree.known_top().is_none() && !layout.surely_has_root(&tree.named().snapshot);
    let open: Vec<&Arc<SnapshotTree>> = trees.iter().filter(open).collect();
    let is_without = |tree: &Arc<SnapshotTree>| match tree.top() {
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Input),
        Ok(_) => false,
    };
    let look = |trees: &[&Arc<SnapshotTree>]| -> Vec<ObjectName> {
        trees.iter().filter(|tree| is_without(tree)).map(|tree| tree.name()).collect()
    };
    let part = open.len().div_ceil(LOOKERS).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = open.chunks(part).map(|part| scope.spawn(move || look(part))).collect();
        // A thread that panicked has looked at nothing: what it had is shown.
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

/// The directory whose sums say what a mount can show, if it shows one snapshot.
pub fn top_directory(tree: &SnapshotTree) -> Result<Directory> {
    tree.top().map(|top| top.directory)
}

fn folders(all: &All) -> Arc<Folders> {
    all.folders.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn caches(repository: Arc<Repository>, bytes: u64) -> (Arc<Pages>, Arc<Locations>) {
    (Arc::new(Pages::new(repository, bytes)), Arc::new(Locations::new(LOCATIONS)))
}

fn slot_hash(name: &ObjectName) -> u64 {
    // A name is a hash already.
    u64::from_le_bytes(*name.0.first_chunk().expect("a name has 32 bytes"))
}

/// The names of the snapshots that count, and since when they are stored.
fn live_names(repository: &Repository) -> Result<BTreeMap<ObjectName, SystemTime>> {
    let mut names = repository.snapshot_names()?;
    let tombs = repository.tombs()?;
    names.retain(|name, _| !tombs.contains_key(name));
    Ok(names)
}

#[cfg(test)]
#[path = "browse_tests.rs"]
mod tests;
