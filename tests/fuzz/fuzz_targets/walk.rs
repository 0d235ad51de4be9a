//! Whole trees of any pages, lists and attribute sets, sealed rightly: views, check and restore agree about them. Not for: what is
//! sealed wrongly (see `pack`).
//!
//! The input is cut into chunks: a kind, a length of two bytes, and bytes in which FE ED n and 29 more stand for the id of
//! chunk n. The last tree page is the directory "/".

#![no_main]

use firn::check::{self, CheckOptions, Severity};
use firn::chunk::password::Cost;
use firn::format::frame::FrameTag;
use firn::format::header::Kind;
use firn::format::index::{PackRecord, Segment};
use firn::format::message::ChunkKind;
use firn::format::page::Page;
use firn::format::page_builder::LeafBuilder;
use firn::format::snapshot::Snapshot;
use firn::format::tree::{Body, Entry, Metadata, Owner, Timestamp, Totals};
use firn::id::{ChunkId, ObjectName, SessionId, WriterId};
use firn::progress::{Silent, Stop};
use firn::repository::keyring::{Keyring, object_name};
use firn::repository::keys::Credentials;
use firn::repository::unlock::unlock;
use firn::repository::pack::pack_folder;
use firn::repository::snapshots::Named;
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::restore::{self, Overwrite, RestoreOptions};
use firn::store::{MemoryStore, ObjectKey, ObjectKind};
use firn::mount::tree::browse::{Node, View};
use firn::mount::tree::read::Reader;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, OnceLock};

/// Entries and bytes that are walked; a few pages can stand for far more.
const ENTRIES: u64 = 2000;
const BYTES: u64 = 8 << 20;

fn credentials() -> Credentials {
    Credentials { password: None, key_file: Some(b"key".to_vec().into()) }
}

/// The objects of an empty repository.
fn empty() -> &'static MemoryStore {
    static EMPTY: OnceLock<MemoryStore> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let store = MemoryStore::new();
        Repository::init(&store, &credentials(), Cost::DEFAULT, "").expect("memory does not fail");
        store
    })
}

/// The chunks of an input.
fn chunks(keyring: &Keyring, mut data: &[u8]) -> Vec<(ChunkKind, ChunkId, Vec<u8>)> {
    let mut chunks: Vec<(ChunkKind, ChunkId, Vec<u8>)> = Vec::new();
    while let [kind, a, b, rest @ ..] = data {
        let (bytes, rest) = rest.split_at(usize::from(u16::from_le_bytes([*a, *b])).min(rest.len()));
        let kind = [ChunkKind::Content, ChunkKind::Tree, ChunkKind::List, ChunkKind::Attributes][usize::from(kind % 4)];
        let mut bytes = bytes.to_vec();
        let mut at = 0;
        while at + 32 <= bytes.len() {
            if bytes[at..at + 2] == [0xfe, 0xed] && usize::from(bytes[at + 2]) < chunks.len() {
                let id = chunks[usize::from(bytes[at + 2])].1;
                bytes[at..at + 32].copy_from_slice(&id.0);
                at += 31;
            }
            at += 1;
        }
        if !bytes.is_empty() && chunks.len() < 200 {
            chunks.push((kind, keyring.chunk_id(kind, &bytes), bytes));
        }
        data = rest;
    }
    chunks
}

fn put(store: &MemoryStore, keyring: &Keyring, kind: Kind, under: ObjectKind, body: &[u8]) -> ObjectName {
    let bytes = keyring.seal_record(kind, body).expect("it is short");
    let name = object_name(&bytes);
    store.raw_set(&ObjectKey::new(under, name), bytes);
    name
}

/// Two packs with a block for each chunk, and their index segment.
fn put_chunks(store: &MemoryStore, keyring: &Keyring, chunks: &[(ChunkKind, ChunkId, Vec<u8>)]) {
    let (mut packs, mut places) = (Vec::new(), Vec::new());
    for is_tree in [false, true] {
        let kind = if is_tree { Kind::TreePack } else { Kind::DataPack };
        let object = keyring.create(kind).expect("there are random numbers");
        let (mut pack, mut frames) = (object.header.to_vec(), Vec::new());
        let mut mine = Vec::new();
        for (kind, id, bytes) in chunks.iter().filter(|(kind, ..)| kind.is_tree() == is_tree) {
            let body = firn::format::block::encode(&[bytes]).expect("a chunk fits");
            let mut message = vec![0, *kind as u8, 0, 0];
            message.extend((body.len() as u32).to_le_bytes());
            message.extend(body);
            let from = pack.len();
            let number = frames.len() as u64;
            keyring.seal_frame(&object, FrameTag::Block, number, &message, &mut pack).expect("it is short");
            frames.push((pack.len() - from) as u32);
            mine.push((*id, number as u32));
        }
        let (name, size) = (object_name(&pack), pack.len() as u64);
        store.raw_set(&ObjectKey::new(pack_folder(kind), name), pack);
        packs.push((PackRecord { name, is_tree, sha256: None, epoch: object.epoch, size, frames }, mine));
    }
    packs.sort_by_key(|(record, _)| record.name);
    for (number, (_, mine)) in packs.iter().enumerate() {
        places.extend(mine.iter().map(|(id, block)| (*id, number as u32, *block)));
    }
    places.sort_unstable();
    places.dedup();
    let packs = packs.into_iter().map(|(record, _)| record).collect();
    let segment = Segment { replaces: Vec::new(), packs, chunks: places };
    put(store, keyring, Kind::IndexSegment, ObjectKind::Index, &segment.encode().expect("it is short"));
}

fn root(page: ChunkId, totals: Totals) -> Vec<u8> {
    let owner = Owner { uid: 0, gid: 0, user: Vec::new(), group: Vec::new() };
    let meta = Metadata {
        mode: 0o755,
        owner: Arc::new(owner),
        mtime: Timestamp::default(),
        btime: None,
        attributes: None,
        link: None,
        blocks: None,
        flags: 0,
        waypoint: false,
        unreliable: false,
    };
    let mut leaf = LeafBuilder::new();
    let entry = Entry { name: b"root".to_vec(), meta, body: Body::Directory { size: 0, page, totals } };
    leaf.push(&entry).expect("an entry fits");
    leaf.finish().bytes
}

fn snapshot(tree: ChunkId, totals: Totals) -> Snapshot {
    let time = jiff_time();
    Snapshot {
        version: 1,
        program: String::new(),
        writer: WriterId([1; 16]),
        session: SessionId([2; 16]),
        sequence: 1,
        previous: None,
        parent: None,
        heads: Default::default(),
        seen: Default::default(),
        time,
        started: time,
        finished: time,
        host: String::new(),
        user: String::new(),
        uid: 0,
        gid: 0,
        paths: Vec::new(),
        tags: Vec::new(),
        label: None,
        description: None,
        tree,
        totals,
        excludes: Vec::new(),
        scope: Default::default(),
        summary: Default::default(),
        issues: Vec::new(),
        issues_total: 0,
        chunker: 1,
        signature: None,
    }
}

fn jiff_time() -> jiff::Timestamp {
    jiff::Timestamp::UNIX_EPOCH
}

/// Everything that a mount would show; false if anything could not be.
fn look(repository: &Arc<Repository>, named: Named) -> bool {
    let Ok(view) = View::one(repository.clone(), 1 << 20, named, b"") else { return false };
    let reader = Reader::new(repository.clone(), 1, 1 << 20);
    let (mut whole, mut steps) = (true, 0);
    let mut folders = vec![view.root()];
    while let Some(folder) = folders.pop() {
        let listed = view.list(&folder, 0, &mut |_, name, node| {
            steps += 1;
            assert!(steps <= ENTRIES, "more entries than stated");
            assert!(firn::format::entry::is_name(name));
            let found = view.lookup(&folder, name).expect("what is listed can be looked up");
            assert_eq!(view.ino(&found.expect("it is there"))?, view.ino(node)?);
            let Node::Stored(stored) = node else { return Ok(true) };
            whole &= reader.blocks(&stored.entry).is_ok();
            match &stored.entry.body {
                Body::Directory { .. } => folders.push(node.clone()),
                Body::File { size, .. } if *size <= BYTES => {
                    let mut length = 0;
                    let read = reader.read(view.ino(node)?, &stored.entry, 0, *size as u32, &mut |bytes| length = bytes.len() as u64);
                    assert!(read.is_err() || length == *size);
                    whole &= read.is_ok();
                }
                _ => {}
            }
            if let Some(attributes) = stored.entry.meta.attributes.as_deref() {
                whole &= repository.attributes(attributes).is_ok();
            }
            Ok(true)
        });
        whole &= listed.is_ok();
    }
    whole
}

fuzz_target!(|data: &[u8]| {
    let store = MemoryStore::new();
    for key in empty().raw_keys() {
        store.raw_set(&key, empty().raw_get(&key).expect("it was listed"));
    }
    let keyring = unlock(&store, &credentials()).expect("the key is ours").keyring;
    let mut chunks = chunks(&keyring, data);
    let Some((_, top, bytes)) = chunks.iter().rfind(|(kind, ..)| *kind == ChunkKind::Tree) else { return };
    let Ok(totals) = Page::decode(bytes).and_then(|page| page.totals()) else { return };
    let bytes = root(*top, totals);
    let tree = keyring.chunk_id(ChunkKind::Tree, &bytes);
    chunks.push((ChunkKind::Tree, tree, bytes));
    put_chunks(&store, &keyring, &chunks);
    let Ok(body) = snapshot(tree, totals).encode() else { return };
    put(&store, &keyring, Kind::Snapshot, ObjectKind::Snapshot, &body);
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
    let repository = Arc::new(Repository::open(Arc::new(store), &credentials(), &options).expect("it is whole"));
    let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
    let report = check::run(&repository, &options, &Silent, &Stop::new()).expect("it can be checked");
    let lost = report.worst() == Some(Severity::Lost);
    let named = repository.snapshots().expect("memory does not fail").live.remove(0);
    if totals.entries > ENTRIES || totals.bytes > BYTES {
        return;
    }
    let options = RestoreOptions {
        target: "/nonexistent/firn-fuzz".into(),
        overwrite: Overwrite::Never,
        include: Vec::new(),
        exclude: Vec::new(),
        dry_run: true,
        verify: false,
        threads: 1,
    };
    let restored = restore::run(&repository, &named.snapshot, b"", &options, &Silent, &Stop::new());
    let issues = restored.map_or(1, |report| report.issues);
    let whole = look(&repository, named);
    assert!(lost || (whole && issues == 0), "a check finds nothing: {whole} {issues} {report:?}");
});
