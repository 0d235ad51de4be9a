//! Blocks, packs and index segments that are sealed rightly and cannot be: bombs, and lengths that are far too large. Not for:
//! what is in whole blocks (see `pages`, `lists`).

use super::forge::{Forge, Raw, Sums};
use super::lists;
use super::oracle::{of, refused};
use firn::format::header::Kind;
use firn::id::ChunkId;
use firn::store::ObjectKind;

/// A message: codec, chunk kind, stated length, and what stands behind.
fn message(codec: u8, kind: u8, length: u32, rest: &[u8]) -> Vec<u8> {
    [&[codec, kind, 0, 0][..], &length.to_le_bytes(), rest].concat()
}

/// A Zstandard frame of so many zeros.
fn zeros(megabytes: usize, window: Option<u32>) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    if let Some(window) = window {
        encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(window)).unwrap();
    }
    let piece = vec![0; 1 << 20];
    for _ in 0..megabytes {
        std::io::Write::write_all(&mut encoder, &piece).unwrap();
    }
    encoder.finish().unwrap()
}

/// The head of a block's body that states so many chunks of this length.
fn head(number: u32, stated: u32, length: u32) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    (0..stated).for_each(|_| body.extend(length.to_le_bytes()));
    body
}

fn messages(kind: u8) -> Vec<(&'static str, Vec<u8>)> {
    const MAX: u32 = 16 << 20;
    vec![
        ("256 MiB of zeros", message(1, kind, MAX, &zeros(256, None))),
        ("a window of 128 MiB", message(1, kind, MAX, &zeros(16, Some(27)))),
        ("less than stated", message(1, kind, MAX, &zeros(1, None))),
        ("16 MiB stated of 5 bytes", message(0, kind, MAX, b"short")),
        ("4 GiB stated", message(0, kind, u32::MAX, b"short")),
        ("not Zstandard", message(1, kind, 100, &[0x55; 50])),
        ("no such codec", message(9, kind, 4, &head(0, 0, 0))),
        ("no chunks", message(0, kind, 4, &head(0, 0, 0))),
        ("2^32 chunks", message(0, kind, 4, &head(u32::MAX, 0, 0))),
        ("262,144 chunks of 8 MiB", message(0, kind, 4 + (1 << 20), &head(1 << 18, 1 << 18, 8 << 20))),
        ("a chunk of 8 MiB", message(0, kind, 8, &head(1, 1, 8 << 20))),
        ("another kind", message(0, 5 - kind, 108, &[&head(1, 1, 100)[..], &[7; 100]].concat())),
    ]
}

#[test]
fn blocks_of_content() {
    let id = ChunkId([0x3c; 32]);
    for (what, message) in messages(1) {
        lists::is_refused(what, true, |chunks| {
            chunks.message(false, &message, id);
            Raw::extents(b"f", 100, &[(100, Some(id))])
        });
    }
}

#[test]
fn blocks_of_pages() {
    let id = ChunkId([0x3d; 32]);
    for (what, message) in messages(2) {
        let forge = Forge::new();
        let snapshot = forge.snapshot(|chunks| {
            chunks.message(true, &message, id);
            chunks.folder(&[Raw::dir(b"d", id, Sums(1, 1, 1, 0)), Raw::file(b"good", b"good")])
        });
        let told = forge.most(&snapshot, "/good");
        refused(&told);
        assert_eq!(std::fs::read(forge.world.path("inner/target/good")).unwrap(), b"good", "{what}");
    }
}

/// The body of an index segment that states so many of everything.
fn segment(replaced: u32, packs: u32, frames: &[u32], stated: u32, chunks: u32) -> Vec<u8> {
    let mut body = [replaced.to_le_bytes(), packs.to_le_bytes()].concat();
    body.extend([7; 32]);
    body.extend([3, 0, 0, 0]);
    body.extend((900u64 << 20).to_le_bytes());
    body.extend(stated.to_le_bytes());
    frames.iter().for_each(|frame| body.extend(frame.to_le_bytes()));
    body.extend(chunks.to_le_bytes());
    body.extend([9; 32]);
    body.extend([0; 8]);
    body
}

#[test]
fn index_segments() {
    for (what, body) in [
        ("2^32 replaced", segment(u32::MAX, 1, &[100], 1, 1)),
        ("2^32 packs", segment(0, u32::MAX, &[100], 1, 1)),
        ("2^32 blocks", segment(0, 1, &[100], u32::MAX, 1)),
        ("a block of 4 GiB", segment(0, 1, &[u32::MAX], 1, 1)),
        ("2^32 chunks", segment(0, 1, &[100], 1, u32::MAX)),
        ("a short block", segment(0, 1, &[1], 1, 1)),
        ("nothing", Vec::new()),
        // One that is as it must be, about a pack that is not there.
        ("a pack of 900 MiB that is not there", segment(0, 1, &[8 << 20], 1, 1)),
    ] {
        let forge = Forge::new();
        let id = forge.snapshot(|chunks| chunks.folder(&[Raw::file(b"good", b"good")]));
        forge.put_record(Kind::IndexSegment, ObjectKind::Index, None, &body);
        let told = forge.everything(&id, "/good");
        for name in ["ls", "restore", "dump", "backup", "check again"] {
            assert_eq!(of(&told, name).code, 0, "{what}: {name}: {:?}", of(&told, name));
        }
        let check = of(&told, "check");
        assert!(check.code == 4 || what.ends_with("not there"), "{what}: {check:?}");
    }
}
