//! What stands behind the seal, sealed rightly: blocks, and packs whose frames hold anything. Finds what damage alone
//! never reaches. Not for: asking whether what is read is right.

#![no_main]

use firn::format::frame::FrameTag;
use firn::format::header::Kind;
use firn::format::key_slot::Secrets;
use firn::id::RepositoryId;
use firn::repository::keyring::{Keyring, object_name};
use firn::repository::pack::{open_block, pack_folder, salvage};
use firn::store::{MemoryStore, ObjectKey};
use libfuzzer_sys::fuzz_target;

/// The secrets of the golden vectors, which are the best corpus to start from.
fn keyring() -> Keyring {
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

fuzz_target!(|data: &[u8]| {
    let keyring = keyring();
    let object = keyring.create(Kind::DataPack).expect("there are random numbers");
    let mut pack = object.header.to_vec();
    // The input is cut into messages: a length of two bytes stands before each.
    let (mut rest, mut number) = (data, 0);
    while let [a, b, after @ ..] = rest {
        let (message, after) = after.split_at(usize::from(u16::from_le_bytes([*a, *b])).min(after.len()));
        let from = pack.len();
        keyring.seal_frame(&object, FrameTag::Block, number, message, &mut pack).expect("it is short");
        if let Ok(block) = open_block(&keyring, &object, number as u32, &mut pack[from..].to_vec()) {
            for (id, range) in &block.chunks {
                assert_eq!(keyring.chunk_id(block.kind, &block.body[range.clone()]), *id);
            }
        }
        (rest, number) = (after, number + 1);
    }
    let (store, name) = (MemoryStore::new(), object_name(&pack));
    store.raw_set(&ObjectKey::new(pack_folder(Kind::DataPack), name), pack);
    let found = salvage(&keyring, &store, Kind::DataPack, name).expect("the header is whole");
    assert!(found.damage.is_some() && found.contents.blocks.len() as u64 <= number);
});
