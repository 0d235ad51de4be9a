//! A view of snapshots as `firn_fuse` wants it: attributes, faults, what may wait. Not for: mounting (see `mount`), or what there
//! is to see (see `view`).
//!
//! Link counts of directories: 2 where the sums of the tree say that there is no directory in it, else 1, by which programs that
//! walk trees (`find`, `fts`) understand "not known"; the true number would take a page for each directory shown.

use super::OwnerView;
use super::indexers::{Indexers, Policy};
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Body, Entry};
use crate::progress::Silent;
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::store::ObjectKind;
use crate::view::ahead::Ahead;
use crate::view::browse::{Node, View};
use crate::view::folders::ItemBody;
use crate::view::pages::EntryRef;
use crate::view::read::Reader;
use firn_fuse::{Attr, Fault, FaultKind, Kind, ListItem, ReadOnlyFs, StatFs, Whence, Work};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How often something is tried again with a fresh index: each time a prune may have moved what it needs.
const RELOADS: usize = 3;

/// Reloads of the index because something was missing.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// How many there were.
    count: AtomicU64,
    /// The index segments that were there at the last one, as a hash of their names.
    segments: Mutex<Option<blake3::Hash>>,
}

/// Snapshots to be served.
#[derive(Debug)]
pub(super) struct SnapshotFs {
    pub(super) repository: Arc<Repository>,
    pub(super) view: Arc<View>,
    pub(super) reader: Arc<Reader>,
    pub(super) ahead: Arc<Ahead>,
    pub(super) owner: OwnerView,
    /// User and group who mount.
    pub(super) me: (u32, u32),
    /// Others may look in, so the root of each snapshot keeps its recorded mode, at the price of a page a snapshot listed.
    pub(super) strict: bool,
    /// Something that is or will be shown can have extended attributes.
    pub(super) attributes: bool,
    pub(super) policy: Policy,
    pub(super) indexers: Indexers,
    pub(super) reloads: Reloads,
    /// Set by every request.
    pub(super) asked: Arc<AtomicBool>,
    pub(super) totals: Mutex<Option<(Weak<Index>, StatFs)>>,
}

impl SnapshotFs {
    /// Does something that a client asked for.
    fn guard<T>(&self, node: Option<&Node>, work: impl Fn() -> Result<T>) -> std::result::Result<T, Fault> {
        self.ask();
        self.again(node, work)
    }

    /// Somebody asked for something.
    fn ask(&self) {
        // Mostly it is set already, and then no processor has to hear of it.
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Does something; if bytes are missing, again with a fresh index. What fails then names the node.
    fn again<T>(&self, node: Option<&Node>, work: impl Fn() -> Result<T>) -> std::result::Result<T, Fault> {
        let mut seen = self.reloads.count.load(Ordering::Acquire);
        let mut result = work();
        for _ in 0..RELOADS {
            let is_missing = |error: &Error| matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound);
            if !result.as_ref().is_err_and(is_missing) || !self.renew(seen) {
                break;
            }
            seen = self.reloads.count.load(Ordering::Acquire);
            result = work();
        }
        result.map_err(|error| fault(&error, node.map(|node| self.view.path(node))))
    }

    /// Whether there is an index that work begun after so many reloads has not seen. A prune changes the segments before it
    /// deletes a pack, so a look at their names tells damage, which may be met very often, from what has moved.
    fn renew(&self, seen: u64) -> bool {
        let mut known = self.reloads.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if self.reloads.count.load(Ordering::Acquire) != seen {
            return true;
        }
        let Ok(segments) = self.segments() else { return false };
        if *known == Some(segments) || self.repository.reload_index(&Silent).is_err() {
            return false;
        }
        *known = Some(segments);
        self.reloads.count.fetch_add(1, Ordering::Release);
        true
    }

    fn segments(&self) -> Result<blake3::Hash> {
        let names = self.repository.names(ObjectKind::Index)?;
        Ok(blake3::hash(names.join("\n").as_bytes()))
    }

    fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self.owner {
            OwnerView::Original => (uid, gid),
            OwnerView::Me => self.me,
            OwnerView::Root => (0, 0),
        }
    }

    fn attr_of(&self, node: &Node) -> Result<Attr> {
        let ino = self.view.ino(node)?;
        match node {
            Node::Item(item) => {
                let (kind, mode, size, links) = match &item.body {
                    ItemBody::Folder(_) => (Kind::Directory, 0o555, 0, 1),
                    ItemBody::Link(target) => (Kind::Symlink, 0o777, target.len() as u64, 1),
                    ItemBody::File(text) => (Kind::File, 0o444, text.len() as u64, 1),
                };
                Ok(self.plain(ino, kind, mode, size, links, item.time))
            }
            Node::Top(tree) if tree.is_mounted() => self.recorded(ino, &tree.top()?.entry),
            Node::Top(tree) => {
                // Its time is the snapshot's: that is what one wants to see in a list of snapshots.
                let mut attr = self.plain(ino, Kind::Directory, 0o555, 0, 1, tree.named().snapshot.time);
                if self.strict {
                    // A damaged root must not hide the other snapshots; only root may look into it.
                    let meta = tree.top().ok().map(|top| &top.entry.meta);
                    attr.mode = meta.map_or(0o500, |meta| u32::from(meta.mode));
                    let (uid, gid) = meta.map_or((0, 0), |meta| (meta.owner.uid, meta.owner.gid));
                    (attr.uid, attr.gid) = self.owner(uid, gid);
                }
                Ok(attr)
            }
            Node::Stored(stored) => self.recorded(ino, &stored.entry),
        }
    }

    fn plain(&self, ino: u64, kind: Kind, mode: u32, size: u64, nlink: u32, time: jiff::Timestamp) -> Attr {
        let (uid, gid) = self.owner(self.me.0, self.me.1);
        let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
        Attr {
            ino,
            kind,
            mode,
            nlink,
            uid,
            gid,
            rdev: 0,
            size,
            blocks: if kind == Kind::File { size.div_ceil(512) } else { 0 },
            mtime_secs: time.as_nanosecond().div_euclid(1_000_000_000) as i64,
            mtime_nanos: nanos as u32,
        }
    }

    fn recorded(&self, ino: u64, entry: &Entry) -> Result<Attr> {
        let meta = &entry.meta;
        let (uid, gid) = self.owner(meta.owner.uid, meta.owner.gid);
        let mut rdev = 0;
        let mut nlink = meta.link.map_or(1, |link| link.links);
        let (kind, size) = match &entry.body {
            Body::File { size, .. } => (Kind::File, *size),
            Body::Directory { size, totals, .. } => {
                nlink = if totals.entries == totals.files { 2 } else { 1 };
                (Kind::Directory, *size)
            }
            Body::Symlink(target) => (Kind::Symlink, target.len() as u64),
            Body::Fifo => (Kind::Fifo, 0),
            Body::Socket => (Kind::Socket, 0),
            Body::CharDevice { major, minor } => {
                rdev = rustix::fs::makedev(*major, *minor);
                (Kind::CharDevice, 0)
            }
            Body::BlockDevice { major, minor } => {
                rdev = rustix::fs::makedev(*major, *minor);
                (Kind::BlockDevice, 0)
            }
        };
        Ok(Attr {
            ino,
            kind,
            mode: u32::from(meta.mode),
            nlink,
            uid,
            gid,
            rdev,
            size,
            blocks: self.reader.blocks(entry)?,
            mtime_secs: meta.mtime.seconds,
            mtime_nanos: meta.mtime.nanos,
        })
    }

    fn file<'n>(&self, node: &'n Node) -> Result<&'n EntryRef> {
        node.stored().ok_or_else(|| Error::new(ErrorKind::Input, "only files have contents"))
    }

    fn statfs_now(&self) -> Result<StatFs> {
        let index = self.repository.index()?;
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, totals)) = totals.as_ref()
            && std::ptr::eq(of.as_ptr(), Arc::as_ptr(&index))
        {
            return Ok(*totals);
        }
        let mut sums = StatFs::default();
        let mut seen = HashSet::new();
        index.for_each_pack(&mut |pack| {
            if seen.insert(pack.name) {
                sums.bytes = sums.bytes.saturating_add(pack.size);
            }
            Ok(())
        })?;
        for tree in self.view.snapshots() {
            let below = match tree.is_mounted() || !tree.is_whole() {
                true => tree.top()?.directory.totals,
                false => tree.named().snapshot.totals,
            };
            sums.files = sums.files.saturating_add(below.entries);
        }
        *totals = Some((Arc::downgrade(&index), sums));
        Ok(sums)
    }

    fn set_of(&self, node: &Node) -> Result<Option<crate::format::tree::AttributeSet>> {
        let attributes = node.entry()?.and_then(|entry| entry.meta.attributes.as_ref());
        attributes.map(|attributes| self.repository.attributes(attributes)).transpose()
    }
}

impl ReadOnlyFs for SnapshotFs {
    type Node = Node;

    fn root(&self) -> Node {
        self.view.root()
    }

    fn node(&self, ino: u64) -> std::result::Result<Option<Node>, Fault> {
        self.guard(None, || self.view.node(ino))
    }

    fn attr(&self, node: &Node) -> std::result::Result<Attr, Fault> {
        self.guard(Some(node), || self.attr_of(node))
    }

    fn lookup(&self, dir: &Node, name: &[u8]) -> std::result::Result<Option<(Node, Attr)>, Fault> {
        self.guard(Some(dir), || {
            let Some(node) = self.view.lookup(dir, name)? else { return Ok(None) };
            let attr = self.attr_of(&node)?;
            Ok(Some((node, attr)))
        })
    }

    fn parent(&self, dir: &Node) -> std::result::Result<Node, Fault> {
        self.guard(Some(dir), || self.view.parent(dir))
    }

    fn list(
        &self,
        dir: &Node,
        offset: u64,
        each: &mut dyn FnMut(ListItem<'_>) -> bool,
    ) -> std::result::Result<(), Fault> {
        // Goes on where it was if it has to be repeated with a fresh index.
        let next = std::cell::Cell::new(offset);
        let each = std::cell::RefCell::new(each);
        let any = std::cell::Cell::new(false);
        self.guard(Some(dir), || {
            self.view.list(dir, next.get(), &mut |position, name, node| {
                any.set(true);
                let attr = self.attr_of(node)?;
                let go_on = (each.borrow_mut())(ListItem { next: position + 1, name, attr });
                next.set(position + 1);
                Ok(go_on)
            })
        })?;
        // Asked for more behind the last entry, the kernel has taken over all of them.
        if !any.get()
            && offset > 0
            && let Ok(Some((tree, place))) = self.view.place(dir)
        {
            self.ahead.listed(tree, place);
        }
        Ok(())
    }

    fn read(&self, file: &Node, offset: u64, len: u32, reply: &mut dyn FnMut(&[u8])) -> std::result::Result<(), Fault> {
        if let Node::Item(item) = file {
            self.ask();
            if let ItemBody::File(text) = &item.body {
                let from = text.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
                let to = text.len().min(from + len as usize);
                reply(&text.as_bytes()[from..to]);
            }
            return Ok(());
        }
        if let (0, Node::Stored(stored)) = (offset, file) {
            self.ahead.opened(stored);
        }
        let reply = std::cell::RefCell::new(reply);
        self.guard(Some(file), || {
            let ino = self.view.ino(file)?;
            // It replies at its very end, so a repetition after an error does not reply twice.
            self.reader.read(ino, self.file(file)?, offset, len, &mut |bytes| (reply.borrow_mut())(bytes))
        })
    }

    fn readlink(&self, link: &Node) -> std::result::Result<Vec<u8>, Fault> {
        self.guard(Some(link), || match (link, link.entry()?.map(|entry| &entry.body)) {
            (_, Some(Body::Symlink(target))) => Ok(target.clone()),
            (Node::Item(item), _) if matches!(item.body, ItemBody::Link(_)) => match &item.body {
                ItemBody::Link(target) => Ok(target.clone().into_bytes()),
                _ => Ok(Vec::new()),
            },
            _ => Err(Error::new(ErrorKind::Input, "only symbolic links have a target")),
        })
    }

    fn xattr(&self, node: &Node, name: &[u8]) -> std::result::Result<Option<Vec<u8>>, Fault> {
        self.guard(Some(node), || {
            let set = self.set_of(node)?;
            Ok(set.and_then(|set| set.0.into_iter().find(|(other, _)| other == name)).map(|(_, value)| value))
        })
    }

    fn xattr_names(&self, node: &Node) -> std::result::Result<Vec<Vec<u8>>, Fault> {
        self.guard(Some(node), || {
            let set = self.set_of(node)?;
            Ok(set.map_or_else(Vec::new, |set| set.0.into_iter().map(|(name, _)| name).collect()))
        })
    }

    fn seek(&self, file: &Node, offset: u64, whence: Whence) -> std::result::Result<Option<u64>, Fault> {
        if let Node::Item(_) = file {
            return Ok((whence == Whence::Data).then_some(offset));
        }
        self.guard(Some(file), || self.reader.seek(self.file(file)?, offset, whence == Whence::Hole))
    }

    fn statfs(&self) -> std::result::Result<StatFs, Fault> {
        // Desktops ask for this every few seconds, about a mount that nobody uses.
        self.again(None, || self.statfs_now())
    }

    fn has_xattrs(&self) -> bool {
        self.attributes
    }

    fn is_mutable(&self, dir: &Node) -> bool {
        matches!(dir, Node::Item(_))
    }

    fn refuses(&self, pid: u32, work: Work) -> bool {
        match self.policy {
            Policy::Allow => false,
            Policy::Cache => self.indexers.is_one(pid) && self.may_wait(work),
            Policy::Deny => self.indexers.is_one(pid),
        }
    }

    fn may_wait(&self, work: Work) -> bool {
        match work {
            Work::Metadata { ino } => !self.view.is_resident(ino),
            Work::Read { ino, offset, len } => match self.view.peek(ino) {
                Some(entry) => !self.reader.is_resident(ino, &entry, offset, len),
                // The text at the root is not stored anywhere.
                None => !self.view.is_resident(ino),
            },
        }
    }
}

/// What a client sees of an error.
fn fault(error: &Error, path: Option<String>) -> Fault {
    let kind = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::Damaged, _) => FaultKind::Damaged,
        (_, Some(libc::ETIMEDOUT)) => FaultKind::TimedOut,
        (_, Some(libc::ENOMEM)) => FaultKind::NoMemory,
        (_, Some(libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESTALE | libc::ENOTCONN)) => FaultKind::Offline,
        (ErrorKind::NotFound | ErrorKind::NoRepository, _) => FaultKind::Missing,
        (ErrorKind::Unsupported, _) => FaultKind::Unsupported,
        (ErrorKind::Denied | ErrorKind::WrongKey, _) => FaultKind::Denied,
        _ => FaultKind::Io,
    };
    let message = match path {
        Some(path) => format!("\"{path}\": {}", error.chain()),
        None => error.chain(),
    };
    Fault::new(kind, message)
}
