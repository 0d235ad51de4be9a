//! Packs and records whose key is known: contents frames, walks over damaged packs. Not for: asking whether what is
//! read is right.

#![no_main]

use firn::format::header::Kind;
use firn::format::key_slot::Secrets;
use firn::id::RepositoryId;
use firn::repository::keyring::{Keyring, object_name};
use firn::repository::pack::{pack_folder, read_contents, salvage};
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
    for kind in [Kind::DataPack, Kind::TreePack] {
        let (store, name) = (MemoryStore::new(), object_name(data));
        store.raw_set(&ObjectKey::new(pack_folder(kind), name), data);
        let contents = read_contents(&keyring, &store, kind, name);
        if let Ok(found) = salvage(&keyring, &store, kind, name) {
            assert_eq!(found.damage.is_none(), contents.is_ok());
            let end: u64 = found.contents.blocks.iter().map(|block| u64::from(block.frame_len)).sum();
            assert!(96 + end <= data.len() as u64);
        }
    }
    for kind in [Kind::Config, Kind::IndexSegment, Kind::Snapshot, Kind::Tomb] {
        let _ = keyring.open_record(kind, data.to_vec());
    }
});
