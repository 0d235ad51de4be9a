//! What a mount shows in `versions/` and `deleted/`: folders that are gathered from the history of all snapshots. Not for: which
//! versions there are (see `crate::history`), or what is in a snapshot (see `crate::view`).
//!
//! A path is a folder in `versions/`, in which are the names that ever were below it, and its versions: a file is that of the first
//! snapshot that has it, a folder is that snapshot's with everything in it. What is gone is in `deleted/` as it was in the last
//! snapshot that had it, in the folders that it was in.
//!
//! Memory: `CURSORS` parts of records for each line, `LISTS` lists of versions, `LISTED` and `GONE` numbers.

mod asked;
pub(super) mod history;
mod rights;
#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::Entry;
use crate::history::query::Broken;
use crate::history::record::Kind;
use crate::history::runs::Lines;
use crate::id::ObjectName;
use crate::mount::tree::browse::{self, View};
use crate::mount::tree::folders::{DELETED, Folders, VERSIONS};
use crate::mount::tree::gathered::{self, Class, Number};
use crate::mount::tree::numbers::{SnapshotTree, Stored};
use crate::repository::snapshots::Named;
pub(super) use asked::is_local;
use asked::{Asked, Cursor, Version};
use history::{History, Live};
use jiff::Timestamp;
pub(super) use rights::{Rights, of_top};
use rights::{closer, rights};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Folders that somebody is going through.
const CURSORS: usize = 8;
/// Lists of versions kept.
const LISTS: usize = 32;
/// Folders that the kernel may have kept the listings of.
const LISTED: usize = 1 << 16;
/// Folders of which it is known whether anything is gone from them.
const GONE: usize = 1 << 16;
/// Folders of which it is known that something cannot be shown in them; more than that only if so many are looked at within
/// `MISSING_FOR`.
const MISSING: usize = 1024;
/// So long a listing may take from there to its end, where it fails.
const MISSING_FOR: Duration = Duration::from_secs(120);
/// Trees below versions kept.
const BODIES: usize = 256;

/// The times of the first and the last snapshot that have something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// The snapshot of a folder that stands for one.
    pub(super) shown: Option<ObjectName>,
}

impl Life {
    fn new(first: &Named, last: &Named) -> Life {
        Life { first: first.snapshot.time, last: last.snapshot.time, shown: None }
    }
}

/// What is served: something of the view, or a folder that is gathered here.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// In the view, or below a version.
    Seen(browse::Node),
    /// A folder of versions or of what is gone.
    Folder(Folder),
    /// The file that is there while nothing else can be told.
    Sign,
}

/// A folder of versions or of what is gone.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    /// Its inode number.
    pub(super) ino: u64,
    class: Class,
    /// Absolute path in the snapshots.
    path: Arc<[u8]>,
}

impl Folder {
    /// Whether it is one of what is gone.
    pub(super) fn is_deleted(&self) -> bool {
        self.class == Class::Deleted
    }

    /// As it is named in messages.
    pub(super) fn shown(&self) -> String {
        let name = if self.class == Class::Deleted { DELETED } else { VERSIONS };
        format!("{name}{}", String::from_utf8_lossy(&self.path))
    }
}

/// What a folder looks like.
#[derive(Clone, Debug)]
pub(super) struct Face {
    /// When its newest version appeared.
    pub(super) time: Timestamp,
    /// Of what is gone, what is recorded of the last version.
    pub(super) entry: Option<Box<Entry>>,
    /// Mode, owner and group that let nobody in who was kept out of any version.
    pub(super) guard: Option<Rights>,
}

/// Something in such a folder.
#[derive(Clone, Debug)]
pub(super) enum Child {
    Folder(Folder, Face),
    Entry(Stored),
    Sign,
}

impl Child {
    pub(super) fn node(&self) -> Node {
        match self {
            Child::Folder(folder, _) => Node::Folder(folder.clone()),
            Child::Entry(stored) => Node::Seen(browse::Node::Stored(stored.clone())),
            Child::Sign => Node::Sign,
        }
    }
}

/// Takes position, name and what it stands for; says whether to go on. It must not ask for anything here.
pub(super) type Each<'a> = dyn FnMut(u64, &[u8], &Child) -> Result<bool> + 'a;

/// The state of catalog and view that something was made of.
type Stamp = (u64, u64);
type Lists = VecDeque<((Stamp, Arc<[u8]>), Arc<Vec<Version>>)>;

/// The snapshots of a moment, by name.
struct Moment {
    number: u64,
    folders: Arc<Folders>,
    live: Arc<Live>,
    trees: HashMap<ObjectName, Arc<SnapshotTree>>,
}

#[derive(Default)]
struct Kept {
    cursors: VecDeque<Cursor>,
    lists: Lists,
    listed: HashSet<u64>,
    gone: (Stamp, HashMap<Vec<u8>, bool>),
    bodies: HashMap<(u32, u64), Arc<SnapshotTree>>,
    moment: Option<Arc<Moment>>,
    /// Why something is missing in the listing of a folder, and since when, by its number.
    missing: HashMap<u64, (Instant, ErrorKind, String)>,
}

/// See the top of the file.
pub(super) struct Past {
    view: Arc<View>,
    history: Arc<History>,
    /// Others may look in, so what was closed to them has to be.
    strict: bool,
    /// The numbers of the two folders.
    roots: Vec<u64>,
    renew: OnceLock<Box<dyn Fn(u64) + Send + Sync>>,
    kept: Mutex<Kept>,
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Past").finish_non_exhaustive()
    }
}

impl Past {
    pub(super) fn new(view: Arc<View>, history: Arc<History>, strict: bool) -> Past {
        let find = |name: &str| view.lookup(&view.root(), name.as_bytes()).ok().flatten();
        let folders = view.past_layout().into_iter().flat_map(|_| [VERSIONS, DELETED]).filter_map(find);
        let roots = folders.filter_map(|node| view.ino(&node).ok()).collect();
        Past { view, history, strict, roots, renew: OnceLock::new(), kept: Mutex::default() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how listings that the kernel keeps are renewed, which happens each time that the catalog is ready.
    pub(super) fn connect(self: &Arc<Self>, renew: impl Fn(u64) + Send + Sync + 'static) {
        // There is one mount for each of these.
        drop(self.renew.set(Box::new(renew)));
        let past = Arc::downgrade(self);
        self.history.connect(Box::new(move || {
            if let Some(past) = past.upgrade() {
                past.renew_listings();
            }
        }));
    }

    /// The listings that the kernel keeps are not right any more.
    pub(super) fn renew_listings(&self) {
        let listed = std::mem::take(&mut self.kept().listed);
        if let Some(renew) = self.renew.get() {
            listed.into_iter().for_each(renew);
        }
    }

    /// The number of the file that is there while nothing else can be told.
    pub(super) fn sign_ino() -> u64 {
        Number::of_folder(Class::Versions, 0, 1)
    }

    /// The snapshots that are shown now.
    fn moment(&self) -> Option<Arc<Moment>> {
        let folders = self.view.folders()?;
        let mut kept = self.kept();
        let number = match &kept.moment {
            Some(moment) if Arc::ptr_eq(&moment.folders, &folders) => return Some(moment.clone()),
            before => before.as_ref().map_or(0, |before| before.number + 1),
        };
        let all = self.view.live();
        let trees: HashMap<_, _> = folders.trees().map(|tree| (tree.name(), tree.clone())).collect();
        // What went meanwhile is not shown for long either.
        let shown = all.iter().map(|named| named.name).filter(|name| trees.contains_key(name)).collect();
        let moment = Arc::new(Moment { number, folders, live: Arc::new(Live { all, shown }), trees });
        kept.moment = Some(moment.clone());
        kept.bodies.clear();
        Some(moment)
    }

    /// The directory of each snapshot that is shown.
    fn top(&self) -> &[u8] {
        self.view.past_layout().map_or(b"", |layout| layout.root())
    }

    /// Asks the catalog; `None`: it is not ready yet.
    fn ask<T>(&self, question: &mut dyn FnMut(&Asked<'_>) -> Result<T, Broken>) -> Result<Option<T>> {
        let Some(moment) = self.moment() else { return Ok(None) };
        self.history.ask(&moment.live, &mut |catalog, epoch| {
            let lines = Lines::new(catalog, &|named| moment.live.shown.contains(&named.name));
            question(&Asked { past: self, moment: &moment, lines, stamp: (epoch, moment.number) })
        })
    }

    /// As `ask`, where waiting longer is the only way.
    fn demand<T>(&self, question: &mut dyn FnMut(&Asked<'_>) -> Result<T, Broken>) -> Result<T> {
        self.ask(question)?.ok_or_else(|| {
            let read = self.history.read();
            let error = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
            Error::io(format!("The history is still being read, {read} snapshots so far; look again later"), error)
        })
    }

    /// Whether this is the number of one of the two folders that are gathered here.
    pub(super) fn is_root(&self, ino: u64) -> bool {
        self.roots.contains(&ino)
    }

    /// The folder that stands for a folder of the view, if it is one of the two that are gathered here.
    pub(super) fn at(&self, node: &browse::Node) -> Option<Folder> {
        let browse::Node::Item(item) = node else { return None };
        if !self.is_root(item.ino) {
            return None;
        }
        let class = match item.path.as_str() {
            VERSIONS => Class::Versions,
            DELETED => Class::Deleted,
            _ => return None,
        };
        Some(Folder { ino: item.ino, class, path: self.top().into() })
    }

    /// What has a number that is not of the view; `None` if there is nothing (any more).
    pub(super) fn node(&self, number: Number) -> Result<Option<Node>> {
        let Some(moment) = self.moment() else { return Ok(None) };
        if number == (Number { class: Class::Versions, slot: 0, rank: 1 }) {
            return Ok(Some(Node::Sign));
        }
        let Some(tree) = moment.folders.tree(number.slot) else { return Ok(None) };
        if number.class == Class::Body {
            let (depth, rank) = gathered::depth_and_rank(tree, number.rank);
            let Some(tree) = self.body(tree, depth) else { return Ok(None) };
            return Ok(tree.by_rank(rank)?.map(|stored| Node::Seen(browse::Node::Stored(stored))));
        }
        let ino = Number::of_folder(number.class, number.slot, number.rank);
        let path = tree.path_at(number.rank)?.filter(|path| path.len() > self.top().len());
        Ok(path.map(|path| Node::Folder(Folder { ino, class: number.class, path: path.into() })))
    }

    /// An entry below a version, if it can be had without waiting.
    pub(super) fn peek(&self, number: Number) -> Option<crate::view::pages::EntryRef> {
        if number.class != Class::Body {
            return None;
        }
        let kept = self.kept();
        let tree = kept.moment.as_ref()?.folders.tree(number.slot)?;
        let (depth, rank) = gathered::depth_and_rank(tree, number.rank);
        let tree = kept.bodies.get(&(number.slot, depth)).cloned();
        drop(kept);
        tree?.peek(rank)
    }

    /// The tree of a snapshot below versions at a depth.
    fn body(&self, tree: &SnapshotTree, depth: u64) -> Option<Arc<SnapshotTree>> {
        let key = (tree.slot(), depth);
        let mut kept = self.kept();
        if let Some(body) = kept.bodies.get(&key) {
            return Some(body.clone());
        }
        let body = gathered::body(tree, depth)?;
        if kept.bodies.len() >= BODIES {
            kept.bodies.clear();
        }
        kept.bodies.insert(key, body.clone());
        Some(body)
    }

    /// The folder of the same kind at a path.
    fn folder_at(&self, class: Class, path: &[u8]) -> Result<Option<Node>> {
        if path.len() <= self.top().len() {
            let name = if class == Class::Deleted { DELETED } else { VERSIONS };
            let root = self.view.root();
            return Ok(Some(self.view.lookup(&root, name.as_bytes())?.map_or(Node::Seen(root), Node::Seen)));
        }
        self.demand(&mut |asked| {
            let runs = asked.lines.runs(path)?;
            let ino = asked.number(class, path, &runs)?;
            Ok(ino.map(|ino| Node::Folder(Folder { ino, class, path: path.into() })))
        })
    }

    /// The folder that a folder is in.
    pub(super) fn parent(&self, folder: &Folder) -> Result<Node> {
        let above = folder.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Ok(self.folder_at(folder.class, &folder.path[..above])?.unwrap_or_else(|| Node::Seen(self.view.root())))
    }

    /// The folder that something is in which is a version itself; `None` for everything else.
    pub(super) fn parent_of(&self, stored: &Stored) -> Result<Option<Node>> {
        let Some(number) = Number::parse(stored.tree.number(stored.rank)?) else { return Ok(None) };
        match stored.tree.path_at(stored.rank)? {
            Some(path) if gathered::depth(&path) <= gathered::depth_and_rank(&stored.tree, number.rank).0 => {
                self.folder_at(Class::Versions, &path)
            }
            _ => Ok(None),
        }
    }

    /// What a folder looks like.
    pub(super) fn face(&self, folder: &Folder) -> Result<Face> {
        self.demand(&mut |asked| asked.face(folder.class, &folder.path, &asked.lines.runs(&folder.path)?))
    }

    /// How long something in a snapshot was as it is there; `None`: nobody knows.
    pub(super) fn life(&self, tree: &Arc<SnapshotTree>, rank: u64) -> Result<Option<Life>> {
        if self.view.folders().is_none() {
            return Ok(None);
        }
        let Some(path) = tree.path_at(rank)? else { return Ok(None) };
        self.demand(&mut |asked| {
            let runs = asked.lines.runs(&path)?;
            let run = asked.lines.run_of(&runs, tree.named()).cloned();
            let all = asked.lines.versions(&path, &runs);
            let whole = run.and_then(|run| all.into_iter().find(|version| version.covers(&run)));
            Ok(whole.map(|version| Life::new(&version.first, &version.last)))
        })
    }

    /// How long there was something at a path, whatever it was; of what is gone, the folder that is shown.
    pub(super) fn life_of(&self, folder: &Folder) -> Result<Option<Life>> {
        self.demand(&mut |asked| {
            let mut runs = asked.lines.runs(&folder.path)?;
            if folder.is_deleted() {
                runs.retain(|run| run.state.kind == Kind::Directory);
            }
            let first = runs.iter().min_by_key(|run| run.first_rank).map(|run| &run.first);
            let last = runs.iter().max_by_key(|run| run.last_rank).map(|run| &run.last);
            Ok(first.zip(last).map(|(first, last)| Life {
                shown: folder.is_deleted().then_some(last.name),
                ..Life::new(first, last)
            }))
        })
    }

    /// What lets nobody into the two folders who is kept out of the directory that is shown.
    pub(super) fn top_guard(&self) -> Result<Option<Rights>> {
        let Some(moment) = self.moment().filter(|_| self.strict) else { return Ok(None) };
        let repository = self.view.pages().repository();
        let mut guard = None;
        for tree in moment.trees.values() {
            // A damaged root must not hide the other snapshots; only root may look into it.
            let own = match tree.top() {
                Err(_) => (0, 0, 0),
                Ok(top) => match of_top(repository, top)? {
                    Some(closed) => closed,
                    None => rights(repository, &top.entry.meta)?,
                },
            };
            guard = Some(closer(guard, own));
        }
        Ok(guard)
    }

    /// What has this name in a folder.
    pub(super) fn lookup(&self, folder: &Folder, name: &[u8]) -> Result<Option<Child>> {
        if folder.path.len() <= self.top().len() && name == SIGN {
            return Ok(self.ask(&mut |_| Ok(()))?.is_none().then_some(Child::Sign));
        }
        let path = [&folder.path, b"/".as_slice(), name].concat();
        self.demand(&mut |asked| {
            let runs = asked.lines.runs(&path)?;
            if !runs.is_empty() {
                return asked.child(folder.class, &path, &runs, &mut |run| asked.stored(run, &path));
            }
            let versions = asked.versions(folder)?;
            let Some(version) = versions.iter().find(|version| version.name == name) else { return Ok(None) };
            asked.version(&folder.path, version)
        })
    }

    /// Calls `each` with what is in a folder from a position on, until it says no. What cannot be read is an error where it would
    /// stand; or, if a first one is given, all of it is passed over, and the listing fails at its end. So it hides nothing else.
    pub(super) fn list(&self, folder: &Folder, from: u64, passing: Option<&Error>, each: &mut Each<'_>) -> Result<()> {
        self.will_be_kept(folder.ino);
        if let Some(error) = passing {
            let mut kept = self.kept();
            if kept.missing.len() >= MISSING {
                kept.missing.retain(|_, (since, ..)| since.elapsed() < MISSING_FOR);
            }
            kept.missing.insert(folder.ino, (Instant::now(), error.kind(), error.chain()));
        }
        let mut next = from;
        let mut list = |asked: &Asked<'_>| asked.list(folder, &mut next, passing.is_some(), each);
        let at_end = match self.ask(&mut list)? {
            Some(at_end) => at_end,
            None if folder.path.len() > self.top().len() => self.demand(&mut list)?,
            None => from > 0 || each(0, SIGN, &Child::Sign)?,
        };
        if at_end { self.missing(folder.ino).map_or(Ok(()), Err) } else { Ok(()) }
    }

    /// Why something is missing in the listing of a folder.
    fn missing(&self, ino: u64) -> Option<Error> {
        let kept = self.kept();
        let (_, kind, said) = kept.missing.get(&ino).filter(|(since, ..)| since.elapsed() < MISSING_FOR)?;
        Some(Error::new(*kind, said.clone()))
    }

    /// The kernel may keep the listing of a folder from now on.
    fn will_be_kept(&self, ino: u64) {
        if self.kept().listed.len() >= LISTED {
            self.renew_listings();
        }
        self.kept().listed.insert(ino);
    }
}

/// The name and the text of the file that is there while the history is being read.
pub(super) const SIGN: &[u8] = b"The history is being read.txt";
pub(super) const SIGN_TEXT: &str = "\
The history of the snapshots is being read. The first time this takes a while; look into this folder again later.
";
