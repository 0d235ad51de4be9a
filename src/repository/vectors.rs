//! Golden vectors (tests only): one object of each kind, sealed with known secrets and salts, in `tests/golden/vectors`.
//! Uncompressed ones are made again, byte for byte; compressed ones and the key slot (random nonces) are only read, as no
//! later Zstandard need write the same bytes. Not for: repositories as a whole (see `tests/format`).

use super::keyring::{Keyring, encode_message, object_name};
use super::keys::{self, Credentials};
use super::pack::{self, FinishedPack, PackBuilder, ReadyBlock};
use super::unlock::unlock;
use crate::chunk::password::Cost;
use crate::error::Result;
use crate::format::block;
use crate::format::config::{Chunker, Config, Features};
use crate::format::coordination::{Damage, Hold, Mark, Pin, Revoke, Tomb};
use crate::format::header::Kind;
use crate::format::index::{PackRecord, Segment};
use crate::format::key_slot::Secrets;
use crate::format::message::{ChunkKind, Codec, MessageHead};
use crate::format::page::Page;
use crate::format::snapshot::{Head, Issue, IssueKind, Snapshot};
use crate::format::tree::Totals;
use crate::id::{ChunkId, ObjectName, RepositoryId, SessionId, WriterId};
use crate::store::{MemoryStore, ObjectKey, ObjectKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The secrets of all vectors and of the mutation tests.
pub(crate) fn keyring() -> Keyring {
    Keyring::new(Secrets {
        repository: RepositoryId([1; 32]),
        chunk_id: [2; 32],
        chunker: [3; 32],
        metadata: [4; 32],
        dedup_index: [5; 32],
        signing_seed: [6; 32],
        content: vec![(0, [7; 32]), (3, [8; 32])],
    })
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vectors").join(name)
}

fn load(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn raw(kind: Option<ChunkKind>, body: &[u8]) -> Vec<u8> {
    let head = MessageHead { codec: Codec::Raw, chunk_kind: kind, body_len: body.len() as u32 };
    [&head.encode()[..], body].concat()
}

fn message(zstd: bool, kind: Option<ChunkKind>, body: &[u8]) -> Vec<u8> {
    if !zstd {
        return raw(kind, body);
    }
    let message = encode_message(&mut None, 3, kind, body).unwrap();
    assert_eq!(message[0], Codec::Zstd as u8, "a vector that does not shrink is none of Zstandard");
    message
}

/// The bodies of all kinds of records.
fn records() -> Vec<(&'static str, Kind, Vec<u8>)> {
    let time = "2026-01-02T03:04:05.678Z".parse().unwrap();
    let (session, writer) = (SessionId([9; 16]), WriterId([10; 16]));
    let pin = Pin { version: 1, session, writer, host: "höst".into(), pid: 7, started: time, process: None };
    let config = Config {
        version: 1,
        repository: RepositoryId([1; 32]),
        created: time,
        chunker: Chunker::default(),
        data_pack: 32 << 20,
        tree_pack: 8 << 20,
        features: Features { compat: vec!["something".into()], ..Features::default() },
    };
    let packs = [false, true].map(|is_tree| PackRecord {
        name: ObjectName([if is_tree { 12 } else { 11 }; 32]),
        is_tree,
        sha256: (!is_tree).then_some([13; 32]),
        epoch: if is_tree { 0 } else { 3 },
        size: 1 << 20,
        frames: vec![100, 2000, 56],
    });
    let segment = Segment {
        replaces: vec![ObjectName([14; 32]), ObjectName([15; 32])],
        packs: packs.into(),
        chunks: (0..40).map(|n| (ChunkId([n; 32]), u32::from(n) % 2, u32::from(n) % 3)).collect(),
    };
    let snapshot = Snapshot {
        version: 1,
        program: "firn 0".into(),
        writer,
        session,
        sequence: 2,
        previous: Some(ObjectName([16; 32])),
        parent: None,
        heads: BTreeMap::from([(writer, Head { sequence: 1, snapshot: ObjectName([16; 32]) })]),
        seen: Default::default(),
        time,
        started: time,
        finished: time,
        host: "höst".into(),
        user: "root".into(),
        uid: 0,
        gid: 0,
        paths: vec![crate::format::json::PathText(b"/a\\b\xff".to_vec())],
        tags: vec!["tag".into()],
        label: Some("label".into()),
        description: None,
        tree: ChunkId([17; 32]),
        totals: Totals { entries: 5, files: 4, bytes: 3, linked: 2, attributed: 1 },
        excludes: vec!["*.o".into()],
        scope: Default::default(),
        summary: BTreeMap::from([("files_new".into(), 4)]),
        issues: vec![Issue {
            path: crate::format::json::PathText(b"/\x80".to_vec()),
            kind: IssueKind::Vanished,
            message: "gone".into(),
        }],
        issues_total: 1,
        chunker: 1,
        signature: None,
    };
    let tomb = Tomb { version: 1, snapshot: ObjectName([16; 32]), time, host: "höst".into(), undone: None };
    let hold = Hold { version: 1, snapshot: ObjectName([16; 32]), time, host: "höst".into(), reason: None };
    let damage = Damage { version: 1, pack: ObjectName([11; 32]), time, host: "höst".into() };
    let mark = Mark { version: 1, prune: session, packs: vec![ObjectName([11; 32])], time, snapshots: Vec::new() };
    vec![
        ("config", Kind::Config, config.encode().unwrap()),
        ("index", Kind::IndexSegment, segment.encode().unwrap()),
        ("snapshot", Kind::Snapshot, snapshot.encode().unwrap()),
        ("pin", Kind::Pin, pin.encode().unwrap()),
        ("mark", Kind::Mark, mark.encode().unwrap()),
        ("tomb", Kind::Tomb, tomb.encode().unwrap()),
        ("hold", Kind::Hold, hold.encode().unwrap()),
        ("damage", Kind::Damage, damage.encode().unwrap()),
        ("revoke", Kind::Revoke, Revoke(pin).encode().unwrap()),
    ]
}

/// Decodes the body of a record and encodes it again.
fn again(kind: Kind, body: &[u8]) -> Result<Vec<u8>> {
    match kind {
        Kind::Config => Config::decode(body)?.encode(),
        Kind::IndexSegment => Segment::decode(body)?.encode(),
        Kind::Snapshot => Snapshot::decode(body)?.encode(),
        Kind::Pin => Pin::decode(body)?.encode(),
        Kind::Mark => Mark::decode(body)?.encode(),
        Kind::Tomb => Tomb::decode(body)?.encode(),
        Kind::Hold => Hold::decode(body)?.encode(),
        Kind::Damage => Damage::decode(body)?.encode(),
        _ => Revoke::decode(body)?.encode(),
    }
}

fn seal(kind: Kind, body: &[u8], zstd: bool) -> Vec<u8> {
    let keyring = keyring();
    let object = keyring.create_with_salt(kind, [0xa0 + kind as u8; 32]).unwrap();
    keyring.seal_record_message(&object, &message(zstd, None, body)).unwrap()
}

/// The chunks of the blocks of a small pack.
fn blocks(kind: Kind) -> Vec<(ChunkKind, Vec<Vec<u8>>)> {
    let text = |word: &str| word.repeat(40).into_bytes();
    if kind == Kind::DataPack {
        let chunks = vec![vec![text("firn "), text("snow ")], vec![b"x".to_vec()], vec![text("ice"), text("firn ")]];
        chunks.into_iter().map(|chunks| (ChunkKind::Content, chunks)).collect()
    } else {
        let empty = Page::Leaf(Vec::new()).encode().unwrap();
        vec![
            (ChunkKind::Tree, vec![empty, text("no page, but a chunk")]),
            (ChunkKind::List, vec![text("list")]),
            (ChunkKind::Attributes, vec![text("attributes"), text("set")]),
        ]
    }
}

/// A small pack; the second block is padded on purpose.
pub(crate) fn small_pack(kind: Kind, zstd: bool) -> FinishedPack {
    let keyring = keyring();
    let object = keyring.create_with_salt(kind, [0xa0 + kind as u8; 32]).unwrap();
    let mut builder = PackBuilder::on(object, kind, 1 << 16);
    for (number, (chunk_kind, chunks)) in blocks(kind).into_iter().enumerate() {
        let mut body = block::encode(&chunks).unwrap();
        if number == 1 {
            body.resize(512, 0);
        }
        let chunks = chunks.iter().map(|chunk| (keyring.chunk_id(chunk_kind, chunk), chunk.len() as u32)).collect();
        let message = message(zstd, Some(chunk_kind), &body);
        let block = ReadyBlock { kind: chunk_kind, message, body_len: body.len() as u32, chunks };
        builder.push(&keyring, block).unwrap();
    }
    if zstd { builder.finish(&keyring) } else { builder.finish_encoded(&keyring, |body| Ok(raw(None, body))) }.unwrap()
}

const PACKS: [(&str, Kind); 2] = [("data-pack", Kind::DataPack), ("tree-pack", Kind::TreePack)];

/// A store that holds nothing but this pack, and the pack's name.
pub(crate) fn store_of(kind: Kind, bytes: &[u8]) -> (MemoryStore, ObjectName) {
    let (store, name) = (MemoryStore::new(), object_name(bytes));
    store.raw_set(&ObjectKey::new(pack::pack_folder(kind), name), bytes);
    (store, name)
}

fn slot_credentials() -> Credentials {
    Credentials { password: Some(b"geheim".to_vec().into()), key_file: Some(b"key file".to_vec().into()) }
}

#[test]
#[ignore = "makes files that are committed"]
fn make_vectors() {
    // Those that are there are never made again.
    let put = |name: String, bytes: &[u8]| {
        if !path(&name).exists() {
            std::fs::write(path(&name), bytes).unwrap();
        }
    };
    for (name, kind, body) in records() {
        put(format!("{name}-raw"), &seal(kind, &body, false));
        put(format!("{name}-zstd"), &seal(kind, &body, true));
    }
    for (name, kind) in PACKS {
        put(format!("{name}-raw"), &small_pack(kind, false).bytes);
        put(format!("{name}-zstd"), &small_pack(kind, true).bytes);
    }
    let cost = Cost { memory: 64, passes: 1, lanes: 1 };
    put("key-slot".into(), &keys::create_slot(&keyring(), &slot_credentials(), cost, "golden").unwrap());
}

#[test]
fn records_are_sealed_as_ever() {
    for (name, kind, body) in records() {
        assert_eq!(seal(kind, &body, false), load(&format!("{name}-raw")), "{name}");
    }
}

#[test]
fn records_open_as_ever() {
    for (name, kind, body) in records() {
        for codec in ["raw", "zstd"] {
            let opened = keyring().open_record(kind, load(&format!("{name}-{codec}"))).unwrap();
            assert_eq!(*opened, body, "{name} {codec}");
            assert_eq!(again(kind, &opened).unwrap(), body, "{name}");
        }
    }
}

#[test]
fn packs_are_sealed_as_ever() {
    for (name, kind) in PACKS {
        assert_eq!(small_pack(kind, false).bytes, load(&format!("{name}-raw")), "{name}");
    }
}

#[test]
fn packs_open_as_ever() {
    for (name, kind) in PACKS {
        for codec in ["raw", "zstd"] {
            let bytes = load(&format!("{name}-{codec}"));
            let (store, object) = store_of(kind, &bytes);
            let found = pack::read_contents(&keyring(), &store, kind, object).unwrap();
            assert_eq!(found.epoch, if kind == Kind::DataPack { 3 } else { 0 });
            let opened = keyring().open(kind, &bytes).unwrap();
            let mut at = 96;
            for ((number, (chunk_kind, chunks)), contents) in
                blocks(kind).iter().enumerate().zip(&found.contents.blocks)
            {
                let mut frame = bytes[at..at + contents.frame_len as usize].to_vec();
                at += frame.len();
                let block = pack::open_block(&keyring(), &opened, number as u32, &mut frame).unwrap();
                assert_eq!((block.kind, contents.kind), (*chunk_kind, *chunk_kind));
                assert!(block.chunks.iter().map(|(_, range)| &block.body[range.clone()]).eq(chunks), "{name} {number}");
                assert!(block.chunks.iter().map(|(id, range)| (*id, range.len() as u32)).eq(contents.chunks.clone()));
            }
        }
    }
}

#[test]
fn the_key_slot_opens_as_ever() {
    let bytes = load("key-slot");
    let store = MemoryStore::new();
    store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), bytes);
    let unlocked = unlock(&store, &slot_credentials()).unwrap();
    assert!(unlocked.keyring.secrets() == keyring().secrets());
    for missing in [
        Credentials { password: None, ..slot_credentials() },
        Credentials { key_file: None, ..slot_credentials() },
        Credentials { password: Some(b"geheim\n".to_vec().into()), ..slot_credentials() },
    ] {
        assert!(unlock(&store, &missing).is_err());
    }
}
