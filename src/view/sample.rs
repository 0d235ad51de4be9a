//! Repositories in memory for tests of views and mounts. Not for: anything else.

use crate::chunk::password::Cost;
use crate::format::json::PathText;
use crate::format::message::ChunkKind;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{
    AttributeSet, Attributes, Body, Content, Entry, Extent, HardLink, Metadata, Owner, Timestamp, Totals,
};
use crate::id::{ChunkId, SessionId, WriterId};
use crate::progress::Silent;
use crate::repository::assemble::{Assembler, Group};
use crate::repository::keys::Credentials;
use crate::repository::snapshots::Named;
use crate::repository::tree::{ContentBuilder, DirectoryBuilder, PageCut};
use crate::repository::writer::{Writer, WriterOptions};
use crate::repository::{CacheChoice, OpenOptions, Repository};
use crate::store::MemoryStore;
use crate::store::RecordingStore;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A repository and the store that counts what is asked of it.
pub(crate) struct Sample {
    pub(crate) store: Arc<RecordingStore<MemoryStore>>,
    pub(crate) repository: Arc<Repository>,
}

/// Something to be put into a snapshot.
#[derive(Clone, Debug)]
pub(crate) enum Thing {
    Dir(BTreeMap<Vec<u8>, Thing>),
    File(Vec<Piece>),
    Inline(Vec<u8>),
    Linked(u64, u32, Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    WithAttributes(Vec<(Vec<u8>, Vec<u8>)>),
}

/// A run of a file's bytes: one chunk, or a hole.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

pub(crate) fn dir<N: Into<Vec<u8>>>(entries: impl IntoIterator<Item = (N, Thing)>) -> Thing {
    Thing::Dir(entries.into_iter().map(|(name, thing)| (name.into(), thing)).collect())
}

/// Bytes that do not compress and differ from seed to seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn metadata() -> Metadata {
    Metadata {
        mode: 0o640,
        owner: Arc::new(Owner { uid: 1000, gid: 1001, user: b"u".to_vec(), group: b"g".to_vec() }),
        mtime: Timestamp { seconds: -5, nanos: 123_456_789 },
        btime: None,
        attributes: None,
        link: None,
        blocks: None,
        flags: 0,
        waypoint: false,
        unreliable: false,
    }
}

impl Sample {
    pub(crate) fn new() -> Sample {
        Sample::with_cache(32 << 20)
    }

    pub(crate) fn with_cache(block_cache: u64) -> Sample {
        let store = Arc::new(RecordingStore::with_log(MemoryStore::new()));
        Sample::init(&store);
        Sample { repository: Sample::open(&store, block_cache), store }
    }

    fn credentials() -> Credentials {
        Credentials { password: Some(b"x".to_vec().into()), key_file: None }
    }

    fn init(store: &Arc<RecordingStore<MemoryStore>>) {
        let cost = Cost { memory: 8, passes: 1, lanes: 1 };
        Repository::init(store.as_ref(), &Sample::credentials(), cost, "").unwrap();
    }

    /// The repository opened once more, with nothing in its caches.
    pub(crate) fn open(store: &Arc<RecordingStore<MemoryStore>>, block_cache: u64) -> Arc<Repository> {
        let options = OpenOptions { cache: CacheChoice::None, block_cache };
        Arc::new(Repository::open(store.clone(), &Sample::credentials(), &options).unwrap())
    }

    /// Stores a snapshot of this.
    pub(crate) fn snapshot(&self, time: &str, host: &str, tags: &[&str], root: &Thing) -> Named {
        self.store_snapshot(time, (host, tags, &["/".to_owned()]), root)
    }

    /// Stores a snapshot of this, as one of these sources.
    pub(crate) fn snapshot_of(&self, time: &str, host: &str, sources: &[String], root: &Thing) -> Named {
        self.store_snapshot(time, (host, &[], sources), root)
    }

    fn store_snapshot(&self, time: &str, (host, tags, sources): (&str, &[&str], &[String]), root: &Thing) -> Named {
        let options = WriterOptions { level: 1, threads: 1, dry_run: false };
        let writer = Writer::begin(&self.repository, options, &Silent).unwrap();
        let cut = PageCut::new(self.repository.keyring());
        let mut out = Assembler::new(&writer);
        let Thing::Dir(_) = root else { panic!("a snapshot is of a directory") };
        let entry = put(b"root", root, &cut, &mut out);
        let mut top = DirectoryBuilder::default();
        top.push(&entry, &cut, &mut out).unwrap();
        let (tree, _) = top.finish(&cut, &mut out).unwrap();
        out.flush().unwrap();
        drop(out);
        let Body::Directory { totals, .. } = entry.body else { unreachable!() };
        let session = writer.session();
        let by = (self.repository.writer_id(), session);
        let build = |_| Snapshot {
            paths: sources.iter().map(|source| PathText(source.clone().into_bytes())).collect(),
            ..record(by, time.parse().unwrap(), host, tags, tree, totals)
        };
        let (name, snapshot, _) = writer.commit(build).unwrap();
        Named { name, snapshot }
    }

    /// Removes a snapshot as a forget would, without asking.
    pub(crate) fn remove(&self, named: &Named) {
        let key = ObjectKey::new(ObjectKind::Snapshot, named.name);
        crate::store::Store::delete(self.store.as_ref(), &key).unwrap();
    }
}

/// A snapshot's record, by this writer in this session.
pub(crate) fn record(
    (writer, session): (WriterId, SessionId),
    time: jiff::Timestamp,
    host: &str,
    tags: &[&str],
    tree: ChunkId,
    totals: Totals,
) -> Snapshot {
    Snapshot {
        host: host.into(),
        paths: vec![PathText(b"/".to_vec())],
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..Snapshot::of_tests((writer, session), time, tree, totals)
    }
}

fn put(name: &[u8], thing: &Thing, cut: &PageCut, out: &mut Assembler<'_>) -> Entry {
    let mut meta = metadata();
    let body = match thing {
        Thing::Dir(entries) => {
            let mut builder = DirectoryBuilder::default();
            for (name, thing) in entries {
                let entry = put(name, thing, cut, out);
                builder.push(&entry, cut, out).unwrap();
            }
            let (page, totals) = builder.finish(cut, out).unwrap();
            Body::Directory { size: 4096, page, totals }
        }
        Thing::File(pieces) => {
            let mut builder = ContentBuilder::default();
            let mut size = 0;
            for piece in pieces {
                let extent = match piece {
                    Piece::Hole(len) => Extent::Hole(*len),
                    Piece::Data(bytes) => {
                        let (id, _) = out.add(ChunkKind::Content, Group::Owner(0), bytes).unwrap();
                        Extent::Chunk { id, len: bytes.len() as u32 }
                    }
                };
                size += extent.len();
                builder.push(extent, out).unwrap();
            }
            Body::File { size, content: builder.finish(out).unwrap() }
        }
        Thing::Inline(bytes) => inline(bytes),
        Thing::Linked(group, links, bytes) => {
            meta.link = Some(HardLink { group: *group, links: *links });
            inline(bytes)
        }
        Thing::WithAttributes(set) => {
            meta.attributes = Some(Arc::new(Attributes::Inline(AttributeSet(set.clone()))));
            inline(b"x")
        }
        Thing::Symlink(target) => Body::Symlink(target.clone()),
        Thing::Fifo => Body::Fifo,
    };
    Entry { name: name.to_vec(), meta, body }
}

pub(crate) fn inline(bytes: &[u8]) -> Body {
    Body::File { size: bytes.len() as u64, content: Content::Inline(bytes.to_vec()) }
}

/// The bytes of a file.
pub(crate) fn bytes_of(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(data),
            Piece::Hole(len) => bytes.resize(bytes.len() + *len as usize, 0),
        }
    }
    bytes
}

/// A small generator: the same tree for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number from 0 to one less than `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn thing(dice: &mut Dice, depth: u64) -> Thing {
    match dice.roll(7) {
        0 | 1 if depth < 4 => Thing::Dir((0..dice.roll(4)).map(|_| (name(dice), thing(dice, depth + 1))).collect()),
        2 => Thing::Symlink(name(dice)),
        3 => Thing::Fifo,
        4 => Thing::File(vec![Piece::Data(noise(dice.roll(5), 300)), Piece::Hole(4096)]),
        5 => Thing::WithAttributes(vec![(b"user.a".to_vec(), name(dice))]),
        _ => Thing::Inline(name(dice)),
    }
}

fn name(dice: &mut Dice) -> Vec<u8> {
    vec![b'a' + dice.roll(5) as u8]
}

/// A change somewhere: something new, gone, renamed or of another type.
pub(crate) fn change(tree: &mut BTreeMap<Vec<u8>, Thing>, dice: &mut Dice, depth: u64) {
    let name = name(dice);
    if dice.roll(3) > 0
        && let Some(Thing::Dir(below)) = tree.get_mut(&name)
    {
        return change(below, dice, depth + 1);
    }
    match dice.roll(4) {
        0 => drop(tree.remove(&name)),
        1 => {
            if let Some(moved) = tree.remove(&name) {
                tree.insert(self::name(dice), moved);
            }
        }
        _ => drop(tree.insert(name, thing(dice, depth))),
    }
}
