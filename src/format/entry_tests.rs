//! Random entries for the tests of pages, and tests of the rules for entries. Not for: whole pages.

use super::*;
use crate::format::mutation::Rng;
use std::sync::Arc;

pub(crate) fn extents(rng: &mut Rng, number: usize) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for _ in 0..number {
        let hole = rng.chance(4) && !matches!(extents.last(), Some(Extent::Hole(_)));
        extents.push(if hole {
            Extent::Hole((1 + rng.number()) >> 20 | 1)
        } else {
            Extent::Chunk { id: ChunkId(rng.array()), len: 1 + rng.below(MAX_CHUNK) as u32 }
        });
    }
    extents
}

fn content(rng: &mut Rng) -> Body {
    let content = match rng.below(4) {
        0 => {
            let len = 1 + rng.below(128);
            Content::Inline(rng.bytes(len))
        }
        1 => return Body::File { size: 33 + (rng.number() >> 8), content: Content::List(ChunkId(rng.array())) },
        _ => {
            let number = if rng.chance(10) { rng.below(33) } else { rng.below(3) };
            Content::Extents(extents(rng, number))
        }
    };
    let size = match &content {
        Content::Inline(bytes) => bytes.len() as u64,
        Content::Extents(extents) => check_extents(extents).unwrap(),
        Content::List(_) => unreachable!(),
    };
    Body::File { size, content }
}

pub(crate) fn totals(rng: &mut Rng) -> Totals {
    let mut number = || rng.number() >> 16;
    Totals { entries: 1 + number(), files: number(), bytes: number(), linked: number(), attributed: number() }
}

fn time(rng: &mut Rng) -> Timestamp {
    Timestamp { seconds: rng.number() as i64 - 1000, nanos: rng.below(1_000_000_000) as u32 }
}

pub(crate) fn owner(rng: &mut Rng) -> Owner {
    let name: &[u8] = [&b""[..], b"root", b"someone", &[0xff; 255]][rng.below(4)];
    Owner { uid: rng.number() as u32, gid: rng.below(3) as u32, user: name.to_vec(), group: b"group".to_vec() }
}

pub(crate) fn generate(rng: &mut Rng, name: Vec<u8>, owners: &[Owner], sets: &[Attributes]) -> Entry {
    let body = match rng.below(12) {
        0 => Body::Directory { size: rng.number(), page: ChunkId(rng.array()), totals: totals(rng) },
        1 => {
            let len = 1 + rng.below(60);
            Body::Symlink(rng.bytes(len).into_iter().map(|byte| byte | 1).collect())
        }
        2 => Body::Fifo,
        3 => Body::CharDevice { major: rng.next() as u32, minor: 0 },
        4 => Body::BlockDevice { major: 8, minor: rng.number() as u32 },
        5 => Body::Socket,
        _ => content(rng),
    };
    let meta = Metadata {
        mode: rng.below(0o10000) as u16,
        owner: Arc::new(owners[rng.below(owners.len())].clone()),
        mtime: time(rng),
        btime: rng.chance(3).then(|| time(rng)),
        attributes: (rng.chance(3) && !sets.is_empty()).then(|| Arc::new(sets[rng.below(sets.len())].clone())),
        link: (rng.chance(5) && !matches!(body, Body::Directory { .. }))
            .then(|| HardLink { group: 1 + rng.number() / 2, links: 1 + rng.below(9) as u32 }),
        blocks: rng.chance(5).then(|| rng.number()),
        flags: if rng.chance(6) { rng.number() as u32 } else { 0 },
        waypoint: matches!(body, Body::Directory { .. }) && rng.chance(3),
        unreliable: rng.chance(9),
    };
    Entry { name, meta, body }
}

fn file(size: u64, content: Content) -> Entry {
    let owner = Owner { uid: 0, gid: 0, user: vec![], group: vec![] };
    let meta = Metadata {
        mode: 0o644,
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
    Entry { name: b"a".to_vec(), meta, body: Body::File { size, content } }
}

#[test]
fn names() {
    for good in [&b"a"[..], b"...", b"..a", &[0xff; 255], b"a b\n"] {
        assert!(is_name(good));
    }
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'a'; 256]] {
        assert!(!is_name(bad));
    }
}

#[test]
fn contents() {
    let chunk = |len| Extent::Chunk { id: ChunkId([0; 32]), len };
    let good = [
        (0, Content::Extents(vec![])),
        (1, Content::Inline(vec![0])),
        (128, Content::Inline(vec![0; 128])),
        (7, Content::Extents(vec![Extent::Hole(7)])),
        (3, Content::Extents(vec![Extent::Hole(1), chunk(1), Extent::Hole(1)])),
        (32, Content::Extents(vec![chunk(1); 32])),
        (33, Content::List(ChunkId([0; 32]))),
    ];
    for (size, content) in good {
        assert_eq!(check_entry(&file(size, content.clone())), Ok(()), "{content:?}");
    }
    let bad = [
        (0, Content::Inline(vec![])),
        (129, Content::Inline(vec![0; 129])),
        (2, Content::Inline(vec![0])),
        (0, Content::Extents(vec![Extent::Hole(0)])),
        (1, Content::Extents(vec![])),
        (2, Content::Extents(vec![Extent::Hole(1), Extent::Hole(1)])),
        (0, Content::Extents(vec![chunk(0)])),
        (MAX_CHUNK as u64 + 1, Content::Extents(vec![chunk(MAX_CHUNK as u32 + 1)])),
        (1, Content::Extents(vec![Extent::Hole(u64::MAX), chunk(2)])),
        (33, Content::Extents(vec![chunk(1); 33])),
        (32, Content::List(ChunkId([0; 32]))),
    ];
    for (size, content) in bad {
        assert!(check_entry(&file(size, content.clone())).is_err(), "{content:?}");
    }
}

#[test]
fn metadata() {
    let wrong: [fn(&mut Entry); 8] = [
        |entry| entry.meta.mode = 0o10000,
        |entry| entry.meta.mtime.nanos = 1_000_000_000,
        |entry| entry.meta.btime = Some(Timestamp { seconds: 0, nanos: u32::MAX }),
        |entry| entry.meta.link = Some(HardLink { group: 0, links: 1 }),
        |entry| entry.meta.link = Some(HardLink { group: 1, links: 0 }),
        |entry| entry.meta.waypoint = true,
        |entry| entry.body = Body::Symlink(vec![]),
        |entry| entry.body = Body::Symlink(vec![b'a'; 4096]),
    ];
    let mut folder = file(0, Content::Extents(vec![]));
    folder.body = Body::Directory { size: 0, page: ChunkId([0; 32]), totals: Totals::default() };
    assert!(check_entry(&folder).is_ok());
    folder.meta.link = Some(HardLink { group: 1, links: 2 });
    assert!(check_entry(&folder).is_err(), "directories have one name");
    for change in wrong {
        let mut entry = file(0, Content::Extents(vec![]));
        change(&mut entry);
        assert!(check_entry(&entry).is_err(), "{entry:?}");
        let mut out = Vec::new();
        assert!(put_entry(&mut out, &entry, 0, None).is_err());
        assert!(out.is_empty());
    }
}

#[test]
fn totals_of_an_entry() {
    let mut entry = file(33, Content::List(ChunkId([0; 32])));
    entry.meta.link = Some(HardLink { group: 1, links: 2 });
    assert_eq!(entry.totals().unwrap(), Totals { entries: 1, files: 1, bytes: 33, linked: 1, attributed: 0 });
    let below = Totals { entries: 5, files: 2, bytes: 9, linked: 1, attributed: 1 };
    entry.body = Body::Directory { size: 0, page: ChunkId([0; 32]), totals: below };
    assert_eq!(entry.totals().unwrap(), Totals { entries: 6, files: 2, bytes: 9, linked: 2, attributed: 1 });
    entry.body = Body::Directory { size: 0, page: ChunkId([0; 32]), totals: Totals { entries: u64::MAX, ..below } };
    assert!(entry.totals().is_err());
}
