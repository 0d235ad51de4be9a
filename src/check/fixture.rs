//! A small repository with everything in it, for tests of check, repair and stats. Not for: anything else.

use crate::chunk::password::Cost;
use crate::format::coordination::{Mark, Pin, Revoke};
use crate::format::header::Kind;
use crate::format::message::ChunkKind;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{AttributeSet, Attributes, Body, Entry, Extent, Metadata, Owner, Timestamp, Totals};
use crate::id::{ChunkId, ObjectName, SessionId, WriterId};
use crate::progress::Silent;
use crate::repository::assemble::{Assembler, Group};
use crate::repository::keys::Credentials;
use crate::repository::tree::{ContentBuilder, DirectoryBuilder, PageCut};
use crate::repository::writer::{Writer, WriterOptions};
use crate::repository::{CacheChoice, OpenOptions, Repository};
use crate::store::{MemoryStore, ObjectKey, ObjectKind, Store};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The files below "/home"; those of the second snapshot differ in "changed".
pub(crate) const PATHS: [&str; 5] = ["/home", "/home/big", "/home/changed", "/home/list", "/home/small"];

pub(crate) fn credentials(text: &str) -> Credentials {
    Credentials { password: None, key_file: Some(Zeroizing::new(text.as_bytes().to_vec())) }
}

/// Opens without a cache.
pub(crate) fn open(store: Arc<dyn Store>) -> Arc<Repository> {
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 16 << 20 };
    Arc::new(Repository::open(store, &credentials("one"), &options).unwrap())
}

/// Opens with a cache below `root`.
pub(crate) fn open_with_cache(store: Arc<dyn Store>, root: &std::path::Path) -> Arc<Repository> {
    let options = OpenOptions { cache: CacheChoice::Root(root.to_owned()), block_cache: 16 << 20 };
    Arc::new(Repository::open(store, &credentials("one"), &options).unwrap())
}

/// Bytes that do not compress and depend on the seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn entry(name: &str, body: Body, attributes: Option<Arc<Attributes>>) -> Entry {
    let owner = Owner { uid: 1, gid: 2, user: b"u".to_vec(), group: b"g".to_vec() };
    let meta = Metadata {
        mode: 0o644,
        owner: Arc::new(owner),
        mtime: Timestamp::default(),
        btime: None,
        attributes,
        link: None,
        blocks: None,
        flags: 0,
        waypoint: false,
        unreliable: false,
    };
    Entry { name: name.as_bytes().to_vec(), meta, body }
}

fn file(out: &mut Assembler<'_>, seed: u64, pieces: usize, length: usize) -> Body {
    let mut content = ContentBuilder::default();
    for piece in 0..pieces {
        let bytes = noise(seed + piece as u64, length);
        let (id, _) = out.add(ChunkKind::Content, Group::Owner(1), &bytes).unwrap();
        content.push(Extent::Chunk { id, len: length as u32 }, out).unwrap();
    }
    let size = (pieces * length) as u64;
    Body::File { size, content: content.finish(out).unwrap() }
}

/// One backup session; the seed makes "changed".
pub(crate) fn back_up(
    repository: &Arc<Repository>,
    seed: u64,
    sequence: u64,
    previous: Option<ObjectName>,
) -> ObjectName {
    let options = WriterOptions { level: 3, threads: 1, dry_run: false };
    let writer = Writer::begin(repository, options, &Silent).unwrap();
    let cut = PageCut::new(repository.keyring());
    let mut out = Assembler::new(&writer);
    let set = AttributeSet(vec![(b"user.x".to_vec(), noise(7, 3000))]).encode().unwrap();
    let (id, _) = out.add(ChunkKind::Attributes, Group::Metadata, &set).unwrap();
    let attributes = Some(Arc::new(Attributes::Chunk(id, set.len() as u32)));
    let mut home = DirectoryBuilder::default();
    for (name, body, attributes) in [
        ("big", file(&mut out, 100, 2, 300_000), None),
        ("changed", file(&mut out, seed, 1, 200_000), None),
        ("list", file(&mut out, 300, 50, 2_000), None),
        ("small", file(&mut out, 400, 1, 5_000), attributes),
    ] {
        home.push(&entry(name, body, attributes), &cut, &mut out).unwrap();
    }
    let (page, totals) = home.finish(&cut, &mut out).unwrap();
    let mut top = DirectoryBuilder::default();
    top.push(&entry("home", Body::Directory { size: 4096, page, totals }, None), &cut, &mut out).unwrap();
    let (page, totals) = top.finish(&cut, &mut out).unwrap();
    let mut root = DirectoryBuilder::default();
    root.push(&entry("root", Body::Directory { size: 4096, page, totals }, None), &cut, &mut out).unwrap();
    let (tree, _) = root.finish(&cut, &mut out).unwrap();
    out.flush().unwrap();
    drop(out);
    let (session, id) = (writer.session(), repository.writer_id());
    writer.commit(|_| snapshot(id, session, sequence, previous, tree, totals)).unwrap().0
}

/// The record of a snapshot.
pub(crate) fn snapshot(
    writer: WriterId,
    session: SessionId,
    sequence: u64,
    previous: Option<ObjectName>,
    tree: ChunkId,
    totals: Totals,
) -> Snapshot {
    Snapshot {
        sequence,
        previous,
        parent: previous,
        ..Snapshot::of_tests((writer, session), jiff::Timestamp::now(), tree, totals)
    }
}

/// Two snapshots, the second naming the first as the one before; two keys.
pub(crate) fn repository() -> (MemoryStore, [ObjectName; 2]) {
    let store = MemoryStore::new();
    Repository::init(&store, &credentials("one"), Cost::DEFAULT, "one").unwrap();
    let repository = open(Arc::new(store.clone()));
    repository.add_key(&credentials("two"), Cost::DEFAULT, "two").unwrap();
    let first = back_up(&repository, 1000, 1, None);
    let second = back_up(&repository, 2000, 2, Some(first));
    (store, [first, second])
}

/// One pin, mark, tomb and revoke each.
pub(crate) fn coordinate(repository: &Repository, marked: Vec<ObjectName>) {
    let time = jiff::Timestamp::now();
    let session = SessionId([7; 16]);
    let pin = Pin {
        version: 1,
        session,
        writer: repository.writer_id(),
        host: "h".into(),
        pid: 1,
        started: time,
        process: None,
    };
    let name = |kind, name: String| ObjectKey::new(kind, name);
    repository.put_json(Kind::Pin, &name(ObjectKind::Pin, session.to_string()), &pin).unwrap();
    repository.put_json(Kind::Revoke, &name(ObjectKind::Revoke, session.to_string()), &Revoke(pin)).unwrap();
    let mark = Mark { version: 1, prune: session, packs: marked, time, snapshots: Vec::new() };
    repository.put_json(Kind::Mark, &name(ObjectKind::Mark, format!("{session}-1")), &mark).unwrap();
    repository.put_tomb(ObjectName([9; 32])).unwrap();
}

/// All objects of a kind.
pub(crate) fn keys(store: &MemoryStore, kind: ObjectKind) -> Vec<ObjectKey> {
    store.raw_keys().into_iter().filter(|key| key.kind == kind).collect()
}
