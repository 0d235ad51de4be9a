//! Damages small objects that are really sealed and reads them with their key (tests only): nothing panics, and no other bytes
//! are ever accepted. Not for: decoders of what is inside (see `format::mutation`, which also tells how many rounds).

use super::pack::{self, Salvaged};
use super::vectors::{keyring, small_pack, store_of};
use crate::format::header::Kind;
use crate::format::mutation::{Rng, mutate, rounds};
use crate::id::ChunkId;
use std::collections::HashSet;

const KINDS: [Kind; 2] = [Kind::DataPack, Kind::TreePack];

/// The chunks that a pack truly holds.
fn truth(kind: Kind) -> HashSet<(ChunkId, u32)> {
    small_pack(kind, false).contents.blocks.into_iter().flat_map(|block| block.chunks).collect()
}

fn is_true(found: &Salvaged, truth: &HashSet<(ChunkId, u32)>) -> bool {
    found.contents.blocks.iter().flat_map(|block| &block.chunks).all(|chunk| truth.contains(chunk))
}

#[test]
fn packs_give_what_is_true_or_nothing() {
    let keyring = keyring();
    for kind in KINDS {
        let truth = truth(kind);
        let corpus = [small_pack(kind, false).bytes, small_pack(kind, true).bytes];
        let mut rng = Rng::new(0x7061_636b);
        let (mut whole, mut walked, mut lost) = (0, 0, 0);
        for _ in 0..rounds() {
            let bytes = mutate(&corpus, &mut rng);
            let (store, name) = store_of(kind, &bytes);
            match pack::salvage(&keyring, &store, kind, name) {
                Ok(found) if found.damage.is_none() => {
                    whole += 1;
                    assert!(is_true(&found, &truth));
                }
                Ok(found) => {
                    walked += 1;
                    assert!(is_true(&found, &truth));
                    let end: u64 = found.contents.blocks.iter().map(|block| u64::from(block.frame_len)).sum();
                    assert!(96 + end <= bytes.len() as u64, "blocks lie in their pack");
                }
                Err(_) => lost += 1,
            }
        }
        assert!(whole > 0 && walked > 0 && lost > 0, "{whole} {walked} {lost}: all ways are tried");
    }
}

#[test]
fn blocks_give_their_own_bytes_or_none() {
    let keyring = keyring();
    for kind in KINDS {
        for zstd in [false, true] {
            let pack = small_pack(kind, zstd);
            let opened = keyring.open(kind, &pack.bytes).unwrap();
            let mut frames = Vec::new();
            let mut at = 96;
            for block in &pack.contents.blocks {
                frames.push(pack.bytes[at..at + block.frame_len as usize].to_vec());
                at += block.frame_len as usize;
            }
            let mut rng = Rng::new(0x626c_6f63);
            for _ in 0..rounds() / 4 {
                let bytes = mutate(&frames, &mut rng);
                let number = rng.below(frames.len());
                let opens = pack::open_block(&keyring, &opened, number as u32, &mut bytes.clone()).is_ok();
                assert_eq!(opens, bytes == frames[number], "a frame opens only where it belongs, and unchanged");
            }
        }
    }
}

#[test]
fn records_give_their_own_body_or_none() {
    let keyring = keyring();
    let bodies = [&b"{}"[..], &b"a record ".repeat(100), &[0; 3000]];
    let corpus: Vec<Vec<u8>> = bodies.iter().map(|body| keyring.seal_record(Kind::Snapshot, body).unwrap()).collect();
    let end = |number: usize| {
        let masked = corpus[number][96..].first_chunk().unwrap();
        let opened = keyring.open(Kind::Snapshot, &corpus[number]).unwrap();
        let length = keyring.frame_length(&opened, crate::format::frame::FrameTag::Record, 0, masked).unwrap();
        96 + 48 + length as usize
    };
    let mut rng = Rng::new(0x7265_636f);
    for _ in 0..rounds() {
        let bytes = mutate(&corpus, &mut rng);
        if let Ok(body) = keyring.open_record(Kind::Snapshot, bytes.clone()) {
            let number = bodies.iter().position(|other| **other == **body).expect("a body of the corpus");
            // Only the padding may differ; the name covers it.
            assert_eq!(bytes[..end(number)], corpus[number][..end(number)]);
            assert_eq!(bytes.len(), corpus[number].len());
        }
        for other in [Kind::Config, Kind::IndexSegment, Kind::Tomb, Kind::DataPack] {
            assert!(keyring.open_record(other, bytes.clone()).is_err());
        }
    }
}

#[test]
fn key_slots_give_their_own_secrets_or_none() {
    use super::keyring::object_name;
    use super::keys::{Credentials, create_slot};
    use super::unlock::unlock;
    use crate::store::{MemoryStore, ObjectKey, ObjectKind};
    let credentials = Credentials { password: None, key_file: Some(b"key".to_vec().into()) };
    let cost = crate::chunk::password::Cost { memory: 64, passes: 1, lanes: 1 };
    let corpus = [create_slot(&keyring(), &credentials, cost, "one").unwrap()];
    let mut rng = Rng::new(0x736c_6f74);
    for _ in 0..rounds() / 4 {
        let bytes = mutate(&corpus, &mut rng);
        let store = MemoryStore::new();
        store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), bytes.clone());
        if let Ok(unlocked) = unlock(&store, &credentials) {
            assert!(unlocked.keyring.secrets() == keyring().secrets());
            // The description has a nonce and a tag of its own.
            let secrets = 120 + usize::from(u16::from_le_bytes([bytes[24], bytes[25]])) + 16;
            assert_eq!(bytes[..secrets], corpus[0][..secrets]);
        }
    }
}

#[test]
fn messages_have_their_stated_length_or_are_refused() {
    use super::keyring::{decode_message, encode_message};
    use crate::format::frame::FrameTag;
    let mut random = Rng::new(5);
    let bodies = [vec![], b"firn ".repeat(300), random.bytes(500), [random.bytes(700), vec![0; 5000]].concat()];
    let corpus: Vec<Vec<u8>> = bodies.iter().map(|body| encode_message(&mut None, 3, None, body).unwrap()).collect();
    for (body, message) in bodies.iter().zip(&corpus) {
        assert_eq!(decode_message(message, FrameTag::Record).unwrap().1, *body);
    }
    let mut rng = Rng::new(0x6d65_7373);
    for _ in 0..rounds() {
        let bytes = mutate(&corpus, &mut rng);
        if let Ok((_, out)) = decode_message(&bytes, FrameTag::Record) {
            assert_eq!(bytes[4..8], (out.len() as u32).to_le_bytes());
            assert!(bytes[0] == 1 || bytes[8..] == out[..]);
        }
    }
}
