//! Makes repositories that firn's writer would refuse to make: whoever has the key can store any bytes at all. Not for: what
//! firn makes of them.
//!
//! Only what a writer checks is written by hand here (pages, list pages, snapshots, packs); sealing is the real one.

use crate::support::run::World;
use firn::format::frame::FrameTag;
use firn::format::header::Kind;
use firn::format::index::{PackRecord, Segment};
use firn::format::message::ChunkKind;
use firn::id::{ChunkId, ObjectName};
use firn::progress::Silent;
use firn::repository::assemble::{Assembler, Group};
use firn::repository::keyring::object_name;
use firn::repository::keys::Credentials;
use firn::repository::pack::pack_folder;
use firn::repository::writer::{Writer, WriterOptions};
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::store::{LocalStore, ObjectKey, ObjectKind, Store};
use serde_json::{Value, json};
use std::sync::Arc;

/// A repository that takes everything.
pub(crate) struct Forge {
    pub(crate) world: World,
    pub(crate) repository: Arc<Repository>,
}

/// Sums over a subtree: entries, files, bytes, and entries with attributes.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sums(pub(crate) u64, pub(crate) u64, pub(crate) u64, pub(crate) u64);

/// An entry whose every part may be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    name: Vec<u8>,
    kind: u8,
    mode: u64,
    attributes: bool,
    body: Vec<u8>,
    pub(crate) sums: Sums,
}

/// What an interior page says of a page below it.
#[derive(Clone, Debug)]
pub(crate) struct Below {
    pub(crate) first: Vec<u8>,
    pub(crate) page: ChunkId,
    pub(crate) direct: u64,
    pub(crate) sums: Sums,
}

/// A number as the format writes it.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Sums {
    pub(crate) fn plus(self, other: Sums) -> Sums {
        let add = u64::wrapping_add;
        Sums(add(self.0, other.0), add(self.1, other.1), add(self.2, other.2), add(self.3, other.3))
    }

    fn put(self, out: &mut Vec<u8>) {
        for value in [self.0, self.1, self.2, 0, self.3] {
            varint(out, value);
        }
    }
}

impl Raw {
    pub(crate) fn new(name: &[u8], kind: u8, body: Vec<u8>) -> Raw {
        Raw { name: name.to_vec(), kind, mode: 0o644, attributes: false, body, sums: Sums(1, 0, 0, 0) }
    }

    /// A small file with its content in the entry.
    pub(crate) fn file(name: &[u8], text: &[u8]) -> Raw {
        let mut body = Vec::new();
        varint(&mut body, text.len() as u64);
        body.push(0);
        body.extend_from_slice(text);
        Raw { sums: Sums(1, 1, text.len() as u64, 0), ..Raw::new(name, 1, body) }
    }

    /// A file of these extents: a hole where there is no id.
    pub(crate) fn extents(name: &[u8], size: u64, extents: &[(u64, Option<ChunkId>)]) -> Raw {
        let mut body = Vec::new();
        varint(&mut body, size);
        body.push(1);
        varint(&mut body, extents.len() as u64);
        put_extents(&mut body, extents);
        Raw { sums: Sums(1, 1, size, 0), ..Raw::new(name, 1, body) }
    }

    /// A file whose extents are in list pages.
    pub(crate) fn list(name: &[u8], size: u64, page: ChunkId) -> Raw {
        let mut body = Vec::new();
        varint(&mut body, size);
        body.push(2);
        body.extend_from_slice(&page.0);
        Raw { sums: Sums(1, 1, size, 0), ..Raw::new(name, 1, body) }
    }

    pub(crate) fn dir(name: &[u8], page: ChunkId, below: Sums) -> Raw {
        let mut body = Vec::new();
        varint(&mut body, 4096);
        body.extend_from_slice(&page.0);
        below.put(&mut body);
        Raw { mode: 0o755, sums: below.plus(Sums(1, 0, 0, 0)), ..Raw::new(name, 2, body) }
    }

    pub(crate) fn link(name: &[u8], target: &[u8]) -> Raw {
        let mut body = Vec::new();
        varint(&mut body, target.len() as u64);
        body.extend_from_slice(target);
        Raw::new(name, 3, body)
    }

    pub(crate) fn mode(self, mode: u64) -> Raw {
        Raw { mode, ..self }
    }

    /// With the attribute set of its page.
    pub(crate) fn with_attributes(self) -> Raw {
        Raw { attributes: true, sums: self.sums.plus(Sums(0, 0, 0, 1)), ..self }
    }
}

fn put_extents(out: &mut Vec<u8>, extents: &[(u64, Option<ChunkId>)]) {
    for (length, id) in extents {
        out.push(u8::from(id.is_some()));
        varint(out, *length);
        out.extend(id.iter().flat_map(|id| id.0));
    }
}

/// A leaf page of these entries, in this order, and its sums. `set`: its one attribute set, encoded.
pub(crate) fn leaf(entries: &[Raw], set: Option<&[u8]>) -> (Vec<u8>, Sums) {
    let mut page = vec![0, u8::from(!entries.is_empty())];
    if !entries.is_empty() {
        page.extend([0, 0, 0, 0]);
    }
    page.push(u8::from(set.is_some()));
    if let Some(set) = set {
        page.push(0);
        varint(&mut page, set.len() as u64);
        page.extend_from_slice(set);
    }
    varint(&mut page, entries.len() as u64);
    for entry in entries {
        page.push(entry.name.len() as u8);
        page.extend_from_slice(&entry.name);
        page.extend([entry.kind, u8::from(entry.attributes)]);
        varint(&mut page, entry.mode);
        page.extend([0, 0, 0]);
        if entry.attributes {
            page.push(0);
        }
        page.extend_from_slice(&entry.body);
    }
    (page, entries.iter().fold(Sums::default(), |sums, entry| sums.plus(entry.sums)))
}

/// An interior page.
pub(crate) fn interior(level: u8, children: &[Below]) -> (Vec<u8>, Sums) {
    let mut page = vec![level];
    varint(&mut page, children.len() as u64);
    for child in children {
        page.push(child.first.len() as u8);
        page.extend_from_slice(&child.first);
        page.extend_from_slice(&child.page.0);
        varint(&mut page, child.direct);
        child.sums.put(&mut page);
    }
    (page, children.iter().fold(Sums::default(), |sums, child| sums.plus(child.sums)))
}

/// A list page of extents.
pub(crate) fn list_leaf(extents: &[(u64, Option<ChunkId>)]) -> Vec<u8> {
    let mut page = vec![0];
    varint(&mut page, extents.len() as u64);
    put_extents(&mut page, extents);
    page
}

/// A list page of pages: id, bytes, extents.
pub(crate) fn list_interior(level: u8, children: &[(ChunkId, u64, u64)]) -> Vec<u8> {
    let mut page = vec![level];
    varint(&mut page, children.len() as u64);
    for (id, bytes, extents) in children {
        page.extend_from_slice(&id.0);
        varint(&mut page, *bytes);
        varint(&mut page, *extents);
    }
    page
}

/// Stores chunks of all kinds.
pub(crate) struct Chunks<'a, 'w> {
    out: &'a mut Assembler<'w>,
    repository: &'a Repository,
}

impl Chunks<'_, '_> {
    fn add(&mut self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        let group = if kind == ChunkKind::Content { Group::Owner(0) } else { Group::Metadata };
        self.out.add(kind, group, bytes).unwrap().0
    }

    /// A pack with one block of any message, and an index segment that says that this chunk is in it.
    pub(crate) fn message(&mut self, tree: bool, message: &[u8], id: ChunkId) {
        let (keyring, store) = (self.repository.keyring(), self.repository.store());
        let kind = if tree { Kind::TreePack } else { Kind::DataPack };
        let opened = keyring.create(kind).unwrap();
        let mut pack = opened.header.to_vec();
        let header = pack.len();
        keyring.seal_frame(&opened, FrameTag::Block, 0, message, &mut pack).unwrap();
        let (name, frames) = (object_name(&pack), vec![(pack.len() - header) as u32]);
        store.put(&ObjectKey::new(pack_folder(kind), name), &pack).unwrap();
        let size = pack.len() as u64;
        let record = PackRecord { name, is_tree: tree, sha256: None, epoch: opened.epoch, size, frames };
        let segment = Segment { replaces: Vec::new(), packs: vec![record], chunks: vec![(id, 0, 0)] };
        let bytes = keyring.seal_record(Kind::IndexSegment, &segment.encode().unwrap()).unwrap();
        store.put(&ObjectKey::new(ObjectKind::Index, object_name(&bytes)), &bytes).unwrap();
    }

    pub(crate) fn tree(&mut self, page: &[u8]) -> ChunkId {
        self.add(ChunkKind::Tree, page)
    }

    pub(crate) fn list(&mut self, page: &[u8]) -> ChunkId {
        self.add(ChunkKind::List, page)
    }

    pub(crate) fn content(&mut self, bytes: &[u8]) -> ChunkId {
        self.add(ChunkKind::Content, bytes)
    }

    /// A directory of one leaf page.
    pub(crate) fn folder(&mut self, entries: &[Raw]) -> (ChunkId, Sums) {
        let (page, sums) = leaf(entries, None);
        (self.tree(&page), sums)
    }
}

impl Forge {
    pub(crate) fn new() -> Forge {
        let world = World::quick();
        let store: Arc<dyn Store> = Arc::new(LocalStore::open(&world.path("repository")).unwrap());
        let key_file = Some(std::fs::read(world.path("key")).unwrap().into());
        let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
        let repository = Repository::open(store, &Credentials { password: None, key_file }, &options).unwrap();
        Forge { world, repository: Arc::new(repository) }
    }

    /// Stores chunks, and a snapshot whose "/" is the directory that `work` returns.
    pub(crate) fn snapshot(&self, work: impl FnOnce(&mut Chunks<'_, '_>) -> (ChunkId, Sums)) -> String {
        self.snapshot_with(work, |_| {})
    }

    /// As `snapshot`; `change` may do anything to the record.
    pub(crate) fn snapshot_with(
        &self,
        work: impl FnOnce(&mut Chunks<'_, '_>) -> (ChunkId, Sums),
        change: impl FnOnce(&mut Value),
    ) -> String {
        let mut record = self.record(work);
        change(&mut record);
        self.put_snapshot(record.to_string().as_bytes())
    }

    /// Stores the chunks; the record of a snapshot that would name them.
    pub(crate) fn record(&self, work: impl FnOnce(&mut Chunks<'_, '_>) -> (ChunkId, Sums)) -> Value {
        let options = WriterOptions { level: 1, threads: 1, dry_run: false };
        let writer = Writer::begin(&self.repository, options, &Silent).unwrap();
        let mut out = Assembler::new(&writer);
        let mut chunks = Chunks { out: &mut out, repository: &self.repository };
        let (page, sums) = work(&mut chunks);
        let tree = chunks.folder(&[Raw::dir(b"root", page, sums)]).0;
        out.flush().unwrap();
        drop(out);
        writer.abandon().unwrap();
        let source = self.world.text("source");
        let Sums(entries, files, bytes, attributed) = sums;
        json!({
            "version": 1, "program": "forge", "writer": "07".repeat(16), "session": "08".repeat(16), "sequence": 1,
            "time": "2026-01-02T03:04:05Z", "started": "2026-01-02T03:04:05Z", "finished": "2026-01-02T03:04:06Z",
            "host": firn::os::hostname(), "user": "u", "uid": 0, "gid": 0, "paths": [source], "tree": tree.to_string(),
            "totals": {"entries": entries, "files": files, "bytes": bytes, "linked": 0, "attributed": attributed}, "chunker": 1,
            "previous": null, "parent": null, "label": null, "description": null
        })
    }

    /// Seals anything as a snapshot.
    pub(crate) fn put_snapshot(&self, body: &[u8]) -> String {
        let bytes = self.repository.keyring().seal_record(Kind::Snapshot, body).unwrap();
        let name = object_name(&bytes);
        self.repository.store().put(&ObjectKey::new(ObjectKind::Snapshot, name), &bytes).unwrap();
        name.to_string()
    }

    /// Seals anything as a record under a name of its own choice.
    pub(crate) fn put_record(&self, kind: Kind, under: ObjectKind, name: Option<&str>, body: &[u8]) {
        let bytes = self.repository.keyring().seal_record(kind, body).unwrap();
        let hash: ObjectName = object_name(&bytes);
        let key = ObjectKey::new(under, name.map_or_else(|| hash.to_string(), str::to_owned));
        self.repository.store().put(&key, &bytes).unwrap();
    }
}
