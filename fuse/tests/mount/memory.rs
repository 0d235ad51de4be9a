//! A tree in memory with everything that can go wrong on demand. Not a test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use firn_fuse::{Attr, Fault, FaultKind, Kind, ListItem, ReadOnlyFs, Source, StatFs, Whence, Work, Xattrs};

pub(crate) const CHUNK: u64 = 65_536;

/// Contents of a file.
pub(crate) enum Body {
    None,
    Bytes(Vec<u8>),
    /// Data in `[start, end)` ranges, the rest holes.
    Sparse(Vec<(u64, u64)>),
    /// Bytes computed from their position.
    Pattern,
    /// A pattern whose chunk of this number is damaged.
    Damaged(u64),
    /// Panics when read.
    Panics,
    /// Waits before each answer.
    Slow(Duration),
    /// Gives one byte less than it should.
    Short,
}

pub(crate) struct Object {
    pub(crate) attr: Attr,
    pub(crate) body: Body,
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) parent: u64,
    pub(crate) names: RwLock<Vec<(Vec<u8>, u64)>>,
    pub(crate) mutable: bool,
}

/// Numbers of calls, to see what the kernel asks.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) lookup: AtomicU64,
    pub(crate) attr: AtomicU64,
    pub(crate) list: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) readlink: AtomicU64,
    pub(crate) xattr: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) objects: RwLock<HashMap<u64, Arc<Object>>>,
    pub(crate) calls: Calls,
    /// Any, if nothing else is said.
    pub(crate) xattrs: Option<Xattrs>,
    /// Metadata of these goes to the workers.
    pub(crate) waits: Mutex<Vec<u64>>,
}

/// Byte at a position of a pattern.
pub(crate) fn pattern(position: u64) -> u8 {
    (position.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

pub(crate) fn pattern_range(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(pattern).collect()
}

pub(crate) fn attr(ino: u64, kind: Kind) -> Attr {
    let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
    Attr {
        ino,
        kind,
        mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        mtime_secs: 1_600_000_000,
        mtime_nanos: 123_456_789,
    }
}

impl Object {
    pub(crate) fn new(attr: Attr) -> Object {
        Object {
            attr,
            body: Body::None,
            target: Vec::new(),
            xattrs: Vec::new(),
            parent: 1,
            names: RwLock::default(),
            mutable: false,
        }
    }

    pub(crate) fn file(ino: u64, size: u64, body: Body) -> Object {
        Object { body, ..Object::new(Attr { size, blocks: size.div_ceil(512), ..attr(ino, Kind::File) }) }
    }

    pub(crate) fn bytes(ino: u64, bytes: &[u8]) -> Object {
        Object::file(ino, bytes.len() as u64, Body::Bytes(bytes.to_vec()))
    }

    pub(crate) fn dir(ino: u64) -> Object {
        Object::new(attr(ino, Kind::Directory))
    }
}

impl Tree {
    pub(crate) fn new() -> Tree {
        let tree = Tree::default();
        tree.put(Object::dir(1));
        tree
    }

    pub(crate) fn put(&self, object: Object) {
        self.objects.write().unwrap().insert(object.attr.ino, Arc::new(object));
    }

    /// Gives an object a name in a directory.
    pub(crate) fn name(&self, dir: u64, name: impl AsRef<[u8]>, ino: u64) {
        let dir = self.get(dir);
        let mut names = dir.names.write().unwrap();
        names.push((name.as_ref().to_vec(), ino));
        names.sort();
    }

    /// Adds an object to a directory.
    pub(crate) fn add(&self, dir: u64, name: impl AsRef<[u8]>, object: Object) {
        let ino = object.attr.ino;
        self.put(Object { parent: dir, ..object });
        self.name(dir, name, ino);
    }

    fn get(&self, ino: u64) -> Arc<Object> {
        Arc::clone(&self.objects.read().unwrap()[&ino])
    }
}

/// A tree that the test keeps a hand on.
#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Arc<Tree>);

impl ReadOnlyFs for Shared {
    type Node = Arc<Object>;

    fn root(&self) -> Arc<Object> {
        self.0.get(1)
    }

    fn node(&self, ino: u64) -> Result<Option<Arc<Object>>, Fault> {
        Ok(self.0.objects.read().unwrap().get(&ino).cloned())
    }

    fn attr(&self, node: &Arc<Object>) -> Result<Attr, Fault> {
        self.0.calls.attr.fetch_add(1, Ordering::Relaxed);
        Ok(node.attr)
    }

    fn lookup(&self, dir: &Arc<Object>, name: &[u8]) -> Result<Option<(Arc<Object>, Attr)>, Fault> {
        self.0.calls.lookup.fetch_add(1, Ordering::Relaxed);
        assert_ne!(name, b"panic", "expected in this test");
        if name == b"fault" {
            return Err(Fault::new(FaultKind::Damaged, "damaged \"fault\""));
        }
        let names = dir.names.read().unwrap();
        let found = names.binary_search_by(|entry| entry.0.as_slice().cmp(name)).ok();
        Ok(found.map(|at| self.0.get(names[at].1)).map(|object| (Arc::clone(&object), object.attr)))
    }

    fn parent(&self, dir: &Arc<Object>) -> Result<Arc<Object>, Fault> {
        Ok(self.0.get(dir.parent))
    }

    fn list(&self, dir: &Arc<Object>, offset: u64, each: &mut dyn FnMut(ListItem<'_>) -> bool) -> Result<(), Fault> {
        self.0.calls.list.fetch_add(1, Ordering::Relaxed);
        let names = dir.names.read().unwrap();
        for (at, (name, ino)) in names.iter().enumerate().skip(offset as usize) {
            if name == b"~damage" {
                return Err(Fault::new(FaultKind::Damaged, "damaged listing"));
            }
            if !each(ListItem { next: at as u64 + 1, name, attr: self.0.get(*ino).attr }) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, file: &Arc<Object>, offset: u64, len: u32, reply: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
        self.0.calls.read.fetch_add(1, Ordering::Relaxed);
        let end = file.attr.size.min(offset + u64::from(len)).max(offset);
        let range = || pattern_range(offset, (end - offset) as usize);
        match &file.body {
            Body::Bytes(bytes) => {
                reply(&bytes[offset.min(bytes.len() as u64) as usize..end.min(bytes.len() as u64) as usize])
            }
            Body::Sparse(data) => {
                let byte =
                    |at: u64| if data.iter().any(|&(from, to)| (from..to).contains(&at)) { pattern(at) } else { 0 };
                reply(&(offset..end).map(byte).collect::<Vec<u8>>());
            }
            Body::Damaged(chunk) if offset / CHUNK <= *chunk && *chunk * CHUNK < end => {
                return Err(Fault::new(FaultKind::Damaged, format!("chunk {chunk} is damaged")));
            }
            Body::Panics => panic!("expected in this test"),
            Body::Slow(pause) => {
                std::thread::sleep(*pause);
                reply(&range());
            }
            Body::Short => reply(&range()[1..]),
            Body::Pattern | Body::Damaged(_) => reply(&range()),
            Body::None => return Err(Fault::new(FaultKind::Io, "not a file")),
        }
        Ok(())
    }

    fn readlink(&self, link: &Arc<Object>) -> Result<Vec<u8>, Fault> {
        self.0.calls.readlink.fetch_add(1, Ordering::Relaxed);
        Ok(link.target.clone())
    }

    fn xattr(&self, node: &Arc<Object>, name: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.0.calls.xattr.fetch_add(1, Ordering::Relaxed);
        Ok(node.xattrs.iter().find(|entry| entry.0 == name).map(|entry| entry.1.clone()))
    }

    fn xattr_names(&self, node: &Arc<Object>) -> Result<Vec<Vec<u8>>, Fault> {
        self.0.calls.xattr.fetch_add(1, Ordering::Relaxed);
        Ok(node.xattrs.iter().map(|entry| entry.0.clone()).collect())
    }

    fn seek(&self, file: &Arc<Object>, offset: u64, whence: Whence) -> Result<Option<u64>, Fault> {
        let Body::Sparse(data) = &file.body else {
            return Ok(if whence == Whence::Data { Some(offset) } else { None });
        };
        let inside = data.iter().find(|&&(from, to)| (from..to).contains(&offset));
        Ok(match (whence, inside) {
            (Whence::Data, Some(_)) => Some(offset),
            (Whence::Data, None) => data.iter().map(|&(from, _)| from).find(|&from| from >= offset),
            (Whence::Hole, Some(&(_, to))) => Some(to),
            (Whence::Hole, None) => Some(offset),
        })
    }

    fn statfs(&self) -> Result<StatFs, Fault> {
        Ok(StatFs { bytes: 1 << 30, files: 77 })
    }

    fn xattrs(&self) -> Xattrs {
        self.0.xattrs.unwrap_or(Xattrs::Listed)
    }

    fn xattr_source(&self, name: &[u8]) -> Source {
        match name {
            b"user.nowhere" => Source::Nowhere,
            b"user.content" => Source::Content,
            b"user.found" => Source::Found,
            _ => Source::Recorded,
        }
    }

    fn is_mutable(&self, dir: &Arc<Object>) -> bool {
        dir.mutable
    }

    fn may_wait(&self, work: Work) -> bool {
        match work {
            Work::Read { .. } => true,
            Work::Metadata { ino } => self.0.waits.lock().unwrap().contains(&ino),
        }
    }
}
