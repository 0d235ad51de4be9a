//! Tests of reading, seeking and read-ahead against plain bytes. Not for: the kernel's side.

use super::*;
use crate::mount::tree::browse::{Node, View};
use crate::progress::Silent;
use crate::store::RecordingStore;
use crate::store::{ObjectKind, Operation};
use crate::view::sample::{Piece, Sample, Thing, bytes_of, dir, noise};

fn open(sample: &Sample, cache: u64, root: &Thing) -> (View, Reader) {
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], root);
    let repository = Sample::open(&sample.store, cache);
    repository.reload_index(&Silent).unwrap();
    let view = View::one(repository.clone(), 8 << 20, named, b"").unwrap();
    (view, Reader::new(repository, 3, cache))
}

fn file(view: &View, name: &str) -> (u64, EntryRef) {
    let node = view.lookup(&view.root(), name.as_bytes()).unwrap().unwrap();
    let Node::Stored(stored) = &node else { panic!() };
    (view.ino(&node).unwrap(), stored.entry.clone())
}

fn read(reader: &Reader, (ino, entry): &(u64, EntryRef), offset: u64, len: u32) -> Vec<u8> {
    let mut replies = Vec::new();
    reader.read(*ino, entry, offset, len, &mut |bytes| replies.push(bytes.to_vec())).unwrap();
    assert_eq!(replies.len(), 1);
    replies.pop().unwrap()
}

fn pieces(count: u64, seed: u64) -> Vec<Piece> {
    (0..count)
        .map(|n| match n % 5 {
            3 => Piece::Hole(1 + (n * 7919 + seed) % 9000),
            _ => Piece::Data(noise(seed + n, 1 + ((n * 104_729 + seed) % 5000) as usize)),
        })
        .collect()
}

#[test]
fn ranges_equal_the_plain_bytes() {
    let (few, many) = (pieces(20, 1), pieces(3000, 2));
    let root = dir([
        ("few", Thing::File(few.clone())),
        ("many", Thing::File(many.clone())),
        ("inline", Thing::Inline(b"0123456789".to_vec())),
        ("empty", Thing::File(Vec::new())),
        ("hole", Thing::File(vec![Piece::Hole(3 << 20)])),
    ]);
    let sample = Sample::new();
    let (view, reader) = open(&sample, 8 << 20, &root);
    let plain = [
        ("few", bytes_of(&few)),
        ("many", bytes_of(&many)),
        ("inline", b"0123456789".to_vec()),
        ("empty", Vec::new()),
        ("hole", vec![0; 3 << 20]),
    ];
    let mut seed = 5u64;
    for (name, bytes) in &plain {
        let file = file(&view, name);
        for round in 0..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = if round == 0 { 0 } else { (seed >> 20) % (bytes.len() as u64 + 10) };
            let len = if round < 3 { 2 << 20 } else { ((seed >> 40) % 20_000) as u32 };
            let from = bytes.len().min(offset as usize);
            let to = bytes.len().min(offset as usize + len as usize);
            assert_eq!(read(&reader, &file, offset, len), bytes[from..to], "{name} {offset} {len}");
        }
        assert_eq!(read(&reader, &file, u64::MAX - 1, u32::MAX), b"");
    }
}

#[test]
fn holes_and_data_are_found() {
    let many = pieces(3000, 3);
    let root = dir([
        ("many", Thing::File(many.clone())),
        ("dense", Thing::File(vec![Piece::Data(noise(1, 3000)), Piece::Data(noise(2, 3000))])),
        ("hole", Thing::File(vec![Piece::Hole(5000)])),
        ("inline", Thing::Inline(b"x".to_vec())),
    ]);
    let sample = Sample::new();
    let (view, reader) = open(&sample, 8 << 20, &root);
    let mut is_hole = Vec::new();
    for piece in &many {
        match piece {
            Piece::Data(bytes) => is_hole.resize(is_hole.len() + bytes.len(), false),
            Piece::Hole(len) => is_hole.resize(is_hole.len() + *len as usize, true),
        }
    }
    let (_, entry) = file(&view, "many");
    for offset in (0..is_hole.len()).step_by(9973).chain([is_hole.len() - 1]) {
        for hole in [false, true] {
            let expected = (offset..is_hole.len()).find(|at| is_hole[*at] == hole).map(|at| at as u64);
            assert_eq!(reader.seek(&entry, offset as u64, hole).unwrap(), expected, "{offset} {hole}");
        }
    }
    let seek = |name, offset, hole| reader.seek(&file(&view, name).1, offset, hole).unwrap();
    assert_eq!((seek("dense", 3500, false), seek("dense", 10, true)), (Some(3500), None));
    assert_eq!((seek("hole", 7, false), seek("hole", 7, true)), (None, Some(7)));
    assert_eq!((seek("inline", 0, false), seek("inline", 0, true)), (Some(0), None));
    assert_eq!(seek("inline", 1, false), None);
    let expected = BlockCounter::count(&many.iter().map(extent).collect::<Vec<_>>());
    assert_eq!(reader.blocks(&entry).unwrap(), expected);
}

fn extent(piece: &Piece) -> Extent {
    match piece {
        Piece::Hole(len) => Extent::Hole(*len),
        Piece::Data(bytes) => Extent::Chunk { id: ChunkId([0; 32]), len: bytes.len() as u32 },
    }
}

/// Block reads so far, each by object and length: no block of noise is as long as another.
fn block_reads(store: &RecordingStore<crate::store::MemoryStore>) -> Vec<(String, u64)> {
    let is_read = |call: &crate::store::Call| {
        call.operation == Operation::GetRange && call.kind == ObjectKind::Data && call.bytes > 1000
    };
    store.log().into_iter().filter(is_read).map(|call| (call.name, call.bytes)).collect()
}

#[test]
fn a_sequential_scan_reads_each_block_once_and_ahead() {
    let count = 60;
    let pieces: Vec<Piece> = (0..count).map(|n| Piece::Data(noise(n, (200 << 10) + n as usize))).collect();
    let bytes = bytes_of(&pieces);
    let sample = Sample::new();
    let cache = 16 << 20;
    let (view, reader) = open(&sample, cache, &dir([("f", Thing::File(pieces))]));
    let file = file(&view, "f");
    sample.store.reset();
    let mut most = 0;
    for offset in (0..bytes.len()).step_by(128 << 10) {
        let to = bytes.len().min(offset + (128 << 10));
        assert_eq!(read(&reader, &file, offset as u64, 128 << 10), bytes[offset..to]);
        most = most.max(reader.ahead());
    }
    assert!((1 << 20..=cache / 2).contains(&most), "{most}");
    let mut reads = block_reads(&sample.store);
    assert_eq!(reads.len(), count as usize);
    reads.sort();
    reads.dedup();
    assert_eq!(reads.len(), count as usize);
    // What was used is no longer counted.
    assert_eq!(reader.ahead(), 0);
}

#[test]
fn what_is_read_ahead_stays_until_it_is_used_in_a_file_larger_than_the_cache() {
    let count = 400;
    let pieces: Vec<Piece> = (0..count).map(|n| Piece::Data(noise(n, (200 << 10) + n as usize))).collect();
    let sample = Sample::new();
    let (view, reader) = open(&sample, 40 << 20, &dir([("f", Thing::File(pieces.clone()))]));
    let file = file(&view, "f");
    sample.store.reset();
    let (mut offset, total) = (0, bytes_of(&pieces).len() as u64);
    while offset < total {
        reader.read(file.0, &file.1, offset, 128 << 10, &mut |_| {}).unwrap();
        offset += 128 << 10;
    }
    let reads = block_reads(&sample.store).len() as u64;
    assert!((count..count + count / 50).contains(&reads), "{reads} reads of {count} blocks");
}

#[test]
fn random_reads_load_nothing_ahead() {
    let pieces: Vec<Piece> = (0..200).map(|n| Piece::Data(noise(n, (130 << 10) + n as usize))).collect();
    let sample = Sample::new();
    let (view, reader) = open(&sample, 16 << 20, &dir([("f", Thing::File(pieces))]));
    let file = file(&view, "f");
    sample.store.reset();
    for offset in [20u64 << 20, 1 << 20, 12 << 20, 7 << 20] {
        assert!(!reader.is_resident(file.0, &file.1, offset, 4096));
        read(&reader, &file, offset, 4096);
        assert!(reader.is_resident(file.0, &file.1, offset, 4096));
    }
    assert_eq!(reader.ahead(), 0);
    assert_eq!(block_reads(&sample.store).len(), 4);
}
