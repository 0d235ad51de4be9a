//! A view of snapshots as `firn_fuse` wants it: attributes, faults, what may wait. Not for: mounting (see `mount`), or what there
//! is to see (see `view`).
//!
//! Link counts of directories: 2 where the sums of the tree say that there is no directory in it, else 1, by which programs that
//! walk trees (`find`, `fts`) understand "not known"; the true number would take a page for each directory shown.

use super::OwnerView;
use super::indexers::{Indexers, Policy};
use super::past::{Child, Face, Folder, Node, Past, Rights, SIGN_TEXT, is_local, of_top};
use super::xattrs;
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Body, Entry};
use crate::mount::tree::ahead::Ahead;
use crate::mount::tree::browse::{self, View};
use crate::mount::tree::folders::ItemBody;
use crate::mount::tree::gathered::Number;
use crate::mount::tree::numbers::{RANK_BITS, SnapshotTree};
use crate::mount::tree::read::Reader;
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::view::pages::EntryRef;
use firn_fuse::{Attr, Fault, FaultKind, Kind, ListItem, ReadOnlyFs, Source, StatFs, Whence, Work, Xattrs};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Snapshots to be served.
#[derive(Debug)]
pub(super) struct SnapshotFs {
    pub(super) repository: Arc<Repository>,
    pub(super) view: Arc<View>,
    pub(super) past: Arc<Past>,
    pub(super) reader: Arc<Reader>,
    pub(super) ahead: Arc<Ahead>,
    pub(super) owner: OwnerView,
    /// User and group who mount.
    pub(super) me: (u32, u32),
    /// Others may look in, so the root of each snapshot keeps its recorded mode, at the price of a page a snapshot listed.
    pub(super) strict: bool,
    /// Something that is or will be shown can have extended attributes.
    pub(super) attributes: bool,
    /// Where what firn knows of files is answered.
    pub(super) known: xattrs::Answered,
    pub(super) policy: Policy,
    pub(super) indexers: Indexers,
    /// Set by every request.
    pub(super) asked: Arc<AtomicBool>,
    pub(super) totals: Mutex<Option<(Weak<Index>, StatFs)>>,
}

impl SnapshotFs {
    /// Does something that a client asked for.
    fn guard<T>(&self, node: Option<&Node>, work: impl FnOnce() -> Result<T>) -> std::result::Result<T, Fault> {
        self.ask();
        self.named(node, work())
    }

    /// A failure names the node.
    fn named<T>(&self, node: Option<&Node>, result: Result<T>) -> std::result::Result<T, Fault> {
        result.map_err(|error| fault(&error, node.map(|node| self.path(node))))
    }

    /// Somebody asked for something.
    fn ask(&self) {
        // Mostly it is set already, and then no processor has to hear of it.
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// The path of a node, for messages.
    fn path(&self, node: &Node) -> String {
        match node {
            Node::Seen(node) => self.view.path(node),
            Node::Folder(folder) => folder.shown(),
            Node::Sign => String::new(),
        }
    }

    fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self.owner {
            OwnerView::Original => (uid, gid),
            OwnerView::Me => self.me,
            OwnerView::Root => (0, 0),
        }
    }

    fn attr_of(&self, node: &Node) -> Result<Attr> {
        match node {
            Node::Seen(node) => self.attr_seen(node),
            Node::Folder(folder) => self.attr_folder(folder, &self.past.face(folder)?),
            Node::Sign => Ok(self.attr_sign()),
        }
    }

    fn attr_sign(&self) -> Attr {
        let size = SIGN_TEXT.len() as u64;
        self.plain(Past::sign_ino(), Kind::File, 0o444, size, 1, jiff::Timestamp::UNIX_EPOCH)
    }

    fn attr_folder(&self, folder: &Folder, face: &Face) -> Result<Attr> {
        let mut attr = match &face.entry {
            Some(entry) => self.recorded(folder.ino, entry)?,
            None => self.plain(folder.ino, Kind::Directory, 0o555, 0, 1, face.time),
        };
        // Not what the last version had, but what is gone from all of them.
        attr.nlink = 1;
        self.close(&mut attr, face.guard);
        Ok(attr)
    }

    /// Lets in only who may be let in.
    fn close(&self, attr: &mut Attr, guard: Option<Rights>) {
        if let Some((mode, uid, gid)) = guard {
            attr.mode = u32::from(mode);
            (attr.uid, attr.gid) = self.owner(uid, gid);
        }
    }

    fn attr_seen(&self, node: &browse::Node) -> Result<Attr> {
        let ino = self.view.ino(node)?;
        match node {
            browse::Node::Item(item) => {
                let (kind, mode, size, links) = match &item.body {
                    ItemBody::Folder(_) => (Kind::Directory, 0o555, 0, 1),
                    ItemBody::Link(target) => (Kind::Symlink, 0o777, target.len() as u64, 1),
                    ItemBody::File(text) => (Kind::File, 0o444, text.len() as u64, 1),
                };
                let mut attr = self.plain(ino, kind, mode, size, links, item.time);
                if self.strict && self.past.is_root(ino) {
                    self.close(&mut attr, self.past.top_guard()?);
                }
                Ok(attr)
            }
            browse::Node::Top(tree) if tree.is_mounted() => {
                let mut attr = self.recorded(ino, &tree.top()?.entry)?;
                self.close(&mut attr, self.closed_above(tree));
                Ok(attr)
            }
            browse::Node::Top(tree) => {
                // Its time is the snapshot's: that is what one wants to see in a list of snapshots.
                let mut attr = self.plain(ino, Kind::Directory, 0o555, 0, 1, tree.named().snapshot.time);
                if self.strict {
                    // A damaged root must not hide the other snapshots; only root may look into it.
                    let meta = tree.top().ok().map(|top| &top.entry.meta);
                    attr.mode = meta.map_or(0o500, |meta| u32::from(meta.mode));
                    let (uid, gid) = meta.map_or((0, 0), |meta| (meta.owner.uid, meta.owner.gid));
                    (attr.uid, attr.gid) = self.owner(uid, gid);
                    self.close(&mut attr, self.closed_above(tree));
                }
                Ok(attr)
            }
            browse::Node::Stored(stored) => self.recorded(ino, &stored.entry),
        }
    }

    /// Whom directories above keep out that are not shown; only root is let in if that cannot be read.
    fn closed_above(&self, tree: &SnapshotTree) -> Option<Rights> {
        let top = tree.top().ok().filter(|_| self.strict)?;
        of_top(&self.repository, top).unwrap_or(Some((0o500, 0, 0)))
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
        let stored = if let Node::Seen(node) = node { node.stored() } else { None };
        stored.ok_or_else(|| Error::new(ErrorKind::Input, "only files have contents"))
    }

    /// As what a node is a folder that is gathered from the history, if it is one.
    fn gathered(&self, node: &Node) -> Option<Folder> {
        match node {
            Node::Seen(node) => self.past.at(node),
            Node::Folder(folder) => Some(folder.clone()),
            Node::Sign => None,
        }
    }

    fn attr_child(&self, child: &Child) -> Result<Attr> {
        match child {
            Child::Folder(folder, face) => self.attr_folder(folder, face),
            Child::Entry(stored) => self.recorded(stored.ino()?, &stored.entry),
            Child::Sign => Ok(self.attr_sign()),
        }
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
        let face;
        let entry = match node {
            Node::Seen(node) => node.entry()?,
            Node::Folder(folder) => {
                face = self.past.face(folder)?;
                // A list that lets somebody in must not go past what keeps them out.
                face.entry.as_deref().filter(|_| face.guard.is_none())
            }
            Node::Sign => None,
        };
        let attributes = entry.and_then(|entry| entry.meta.attributes.as_ref());
        attributes.map(|attributes| self.repository.attributes(attributes)).transpose()
    }
}

impl ReadOnlyFs for SnapshotFs {
    type Node = Node;

    fn root(&self) -> Node {
        Node::Seen(self.view.root())
    }

    fn node(&self, ino: u64) -> std::result::Result<Option<Node>, Fault> {
        self.guard(None, || match Number::parse(ino) {
            Some(number) => self.past.node(number),
            None => Ok(self.view.node(ino)?.map(Node::Seen)),
        })
    }

    fn attr(&self, node: &Node) -> std::result::Result<Attr, Fault> {
        self.guard(Some(node), || self.attr_of(node))
    }

    fn lookup(&self, dir: &Node, name: &[u8]) -> std::result::Result<Option<(Node, Attr)>, Fault> {
        self.guard(Some(dir), || {
            if let Some(folder) = self.gathered(dir) {
                let child = self.past.lookup(&folder, name)?;
                return child.map(|child| Ok((child.node(), self.attr_child(&child)?))).transpose();
            }
            let Node::Seen(dir) = dir else { return Ok(None) };
            let Some(node) = self.view.lookup(dir, name)? else { return Ok(None) };
            let attr = self.attr_seen(&node)?;
            Ok(Some((Node::Seen(node), attr)))
        })
    }

    fn parent(&self, dir: &Node) -> std::result::Result<Node, Fault> {
        self.guard(Some(dir), || match dir {
            Node::Folder(folder) => self.past.parent(folder),
            Node::Sign => Ok(self.root()),
            Node::Seen(node) => {
                if let browse::Node::Stored(stored) = node
                    && let Some(parent) = self.past.parent_of(stored)?
                {
                    return Ok(parent);
                }
                self.view.parent(node).map(Node::Seen)
            }
        })
    }

    fn list(
        &self,
        dir: &Node,
        offset: u64,
        each: &mut dyn FnMut(ListItem<'_>) -> bool,
    ) -> std::result::Result<(), Fault> {
        // Goes on where it was if something is passed over.
        let next = std::cell::Cell::new(offset);
        let each = std::cell::RefCell::new(each);
        let any = std::cell::Cell::new(false);
        let deliver = |position: u64, name: &[u8], attr: Attr| {
            any.set(true);
            let go_on = (each.borrow_mut())(ListItem { next: position + 1, name, attr });
            next.set(position + 1);
            Ok(go_on)
        };
        let list = |passing: Option<&Error>| {
            if let Some(folder) = self.gathered(dir) {
                return self.past.list(&folder, next.get(), passing, &mut |position, name, child| {
                    deliver(position, name, self.attr_child(child)?)
                });
            }
            let Node::Seen(node) = dir else { return Ok(()) };
            self.view.list(node, next.get(), &mut |position, name, node| deliver(position, name, self.attr_seen(node)?))
        };
        let failed = std::cell::RefCell::new(None);
        let remember = |error: &Error| *failed.borrow_mut() = Some(Error::new(error.kind(), error.chain()));
        let listed = self.guard(Some(dir), || list(None).inspect_err(remember));
        // One snapshot that is damaged must not hide the others: what cannot be read is passed over.
        match (listed, failed.take().filter(is_local)) {
            (Err(_), Some(error)) if self.gathered(dir).is_some() => self.guard(Some(dir), || list(Some(&error))),
            (listed, _) => listed,
        }?;
        // Asked for more behind the last entry, the kernel has taken over all of them.
        if !any.get()
            && offset > 0
            && let Node::Seen(node) = dir
            && let Ok(Some((tree, place))) = self.view.place(node)
        {
            self.ahead.listed(tree, place);
        }
        Ok(())
    }

    fn read(&self, file: &Node, offset: u64, len: u32, reply: &mut dyn FnMut(&[u8])) -> std::result::Result<(), Fault> {
        if let Some(text) = text(file) {
            self.ask();
            let from = text.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
            let to = text.len().min(from + len as usize);
            reply(&text.as_bytes()[from..to]);
            return Ok(());
        }
        if let (0, Node::Seen(browse::Node::Stored(stored))) = (offset, file) {
            self.ahead.opened(stored);
        }
        self.guard(Some(file), || {
            let Node::Seen(node) = file else { return Err(Error::new(ErrorKind::Input, "only files have contents")) };
            let ino = self.view.ino(node)?;
            self.reader.read(ino, self.file(file)?, offset, len, reply)
        })
    }

    fn readlink(&self, link: &Node) -> std::result::Result<Vec<u8>, Fault> {
        self.guard(Some(link), || {
            let none = || Error::new(ErrorKind::Input, "only symbolic links have a target");
            let Node::Seen(node) = link else { return Err(none()) };
            if let browse::Node::Item(item) = node {
                return if let ItemBody::Link(target) = &item.body {
                    Ok(target.clone().into_bytes())
                } else {
                    Err(none())
                };
            }
            match node.entry()?.map(|entry| &entry.body) {
                Some(Body::Symlink(target)) => Ok(target.clone()),
                _ => Err(none()),
            }
        })
    }

    fn xattr(&self, node: &Node, name: &[u8]) -> std::result::Result<Option<Vec<u8>>, Fault> {
        self.guard(Some(node), || {
            let set = self.set_of(node)?;
            let recorded = set.and_then(|set| set.0.into_iter().find(|(other, _)| other == name));
            // What was backed up is shown, whatever it is called.
            match (recorded, xattrs::Known::parse(name)) {
                (Some((_, value)), _) => Ok(Some(value)),
                (None, Some(known)) => self.value(node, known),
                (None, None) => Ok(None),
            }
        })
    }

    fn xattr_names(&self, node: &Node) -> std::result::Result<Vec<Vec<u8>>, Fault> {
        self.guard(Some(node), || {
            let set = self.set_of(node)?;
            let mut names: Vec<Vec<u8>> =
                set.map_or_else(Vec::new, |set| set.0.into_iter().map(|(name, _)| name).collect());
            if self.known == xattrs::Answered::Listed {
                let known = self.known_of(node)?.into_iter().map(|known| known.name().as_bytes().to_vec());
                let new: Vec<_> = known.filter(|name| !names.contains(name)).collect();
                names.extend(new);
            }
            Ok(names)
        })
    }

    fn xattr_source(&self, name: &[u8]) -> Source {
        match xattrs::Known::parse(name) {
            Some(known) => known.source(),
            None if self.attributes => Source::Recorded,
            None => Source::Nowhere,
        }
    }

    fn seek(&self, file: &Node, offset: u64, whence: Whence) -> std::result::Result<Option<u64>, Fault> {
        if text(file).is_some() {
            return Ok((whence == Whence::Data).then_some(offset));
        }
        self.guard(Some(file), || self.reader.seek(self.file(file)?, offset, whence == Whence::Hole))
    }

    fn statfs(&self) -> std::result::Result<StatFs, Fault> {
        // Desktops ask for this every few seconds, about a mount that nobody uses.
        self.named(None, self.statfs_now())
    }

    fn xattrs(&self) -> Xattrs {
        match (self.attributes, self.known) {
            (false, xattrs::Answered::Auto) => Xattrs::None,
            (false, xattrs::Answered::Named) => Xattrs::Named,
            _ => Xattrs::Listed,
        }
    }

    fn is_mutable(&self, dir: &Node) -> bool {
        matches!(dir, Node::Seen(browse::Node::Item(_)) | Node::Folder(_))
    }

    fn refuses(&self, pid: u32, work: Work) -> bool {
        match self.policy {
            Policy::Allow => false,
            Policy::Cache => self.indexers.is_one(pid) && self.may_wait(work),
            Policy::Deny => self.indexers.is_one(pid),
        }
    }

    fn may_wait(&self, work: Work) -> bool {
        let (Work::Metadata { ino } | Work::Read { ino, .. }) = work;
        let gathered = Number::parse(ino);
        let entry = match gathered {
            Some(number) => self.past.peek(number),
            None => self.view.peek(ino),
        };
        match (work, entry) {
            (Work::Read { ino, offset, len }, Some(entry)) => !self.reader.is_resident(ino, &entry, offset, len),
            (Work::Metadata { .. }, Some(entry)) if gathered.is_some() => !self.view.is_listing_resident(&entry),
            (_, None) if gathered.is_some() => true,
            // The folders around the snapshots are in memory, and the texts in them not stored anywhere; but what is gathered from
            // the history has to be asked for, and if others look in, the roots of snapshots.
            _ => !self.view.is_resident(ino) || self.past.is_root(ino) || (self.strict && ino >> RANK_BITS == 0),
        }
    }
}

/// What is in a file that is not stored anywhere.
fn text(file: &Node) -> Option<&'static str> {
    match file {
        Node::Sign => Some(SIGN_TEXT),
        Node::Seen(browse::Node::Item(item)) => Some(if let ItemBody::File(text) = item.body { text } else { "" }),
        _ => None,
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
