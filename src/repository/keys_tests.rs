//! Tests of opening and adding key slots. Not for: several commands at once (see `key_explore`), or rotation (see `rotate_tests`).

use super::*;
use crate::format::bounds::MAX_KEY_SLOTS;
use crate::repository::keyring::object_name;
use crate::repository::unlock::unlock;
use crate::repository::{CacheChoice, OpenOptions};
use crate::store::MemoryStore;
use std::sync::Arc;

fn key_file(bytes: &[u8]) -> Credentials {
    Credentials { password: None, key_file: Some(Zeroizing::new(bytes.to_vec())) }
}

const COST: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

fn open(store: &MemoryStore, credentials: &Credentials) -> Result<Repository> {
    Repository::open(
        Arc::new(store.clone()),
        credentials,
        &OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 },
    )
}

#[test]
fn a_slot_whose_secrets_are_whole_opens() {
    let store = MemoryStore::new();
    Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
    let key = ObjectKey::new(ObjectKind::Key, slot_names(&store).unwrap()[0]);
    let whole = store.get(&key, MAX_KEY_SLOT as u64).unwrap();
    for (at, opens) in [(8, false), (40, false), (70, false), (200, false), (whole.len() - 1, true)] {
        let mut bytes = whole.clone();
        bytes[at] ^= 8;
        store.raw_set(&key, bytes);
        let unlocked = unlock(&store, &key_file(b"0"));
        assert_eq!(unlocked.is_ok(), opens, "{at}");
        match unlocked {
            Ok(unlocked) => assert_eq!(unlocked.warnings.len(), 1),
            // Damage, not a newer firn.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{at}"),
        }
        assert!(unlock(&store, &key_file(b"1")).is_err());
    }
}

#[test]
fn a_damaged_version_is_damage() {
    let store = MemoryStore::new();
    Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
    let key = ObjectKey::new(ObjectKind::Config, 2);
    let whole = store.get(&key, 1 << 20).unwrap();
    let mut bytes = whole.clone();
    bytes[8] = 9;
    store.raw_set(&key, bytes.clone());
    assert_eq!(open(&store, &key_file(b"0")).unwrap().warnings.len(), 1);
    // One that was really made as version 9 has another commitment, and forbids.
    bytes[70] ^= 1;
    store.raw_set(&key, bytes);
    assert_eq!(open(&store, &key_file(b"0")).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn there_are_no_more_slots_than_are_tried() {
    let store = MemoryStore::new();
    Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
    let repository = open(&store, &key_file(b"0")).unwrap();
    // A temporary one must fit beside them.
    for number in 1..MAX_KEY_SLOTS - 1 {
        repository.add_key(&key_file(number.to_string().as_bytes()), COST, "").unwrap();
    }
    let refused = repository.add_key(&key_file(b"63"), COST, "").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Input);
    let bytes = create_slot(repository.keyring(), &key_file(b"63"), COST, "").unwrap();
    store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), bytes);
    for number in 0..MAX_KEY_SLOTS {
        assert!(unlock(&store, &key_file(number.to_string().as_bytes())).is_ok(), "{number}");
    }
    // Whoever can write to the store can add more; they are tried in the order of their names, and then no more.
    let bytes = create_slot(repository.keyring(), &key_file(b"64"), COST, "").unwrap();
    store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), bytes);
    let last = *slot_names(&store).unwrap().last().unwrap();
    let opens = |number: usize| unlock(&store, &key_file(number.to_string().as_bytes()));
    let lost: Vec<Error> = (0..=MAX_KEY_SLOTS).filter_map(|number| opens(number).err()).collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].kind(), ErrorKind::WrongKey);
    assert!((0..=MAX_KEY_SLOTS).filter_map(|number| opens(number).ok()).all(|unlocked| unlocked.slot != last));
    assert!(lost[0].hint().unwrap().contains("more slots"));
}

#[test]
fn damaged_slots_do_not_stand_in_the_way() {
    let store = MemoryStore::new();
    Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
    for number in 0..100_u8 {
        store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&[number])), vec![number; 700]);
    }
    assert_eq!(unlock(&store, &key_file(b"1")).err().unwrap().kind(), ErrorKind::WrongKey);
    assert!(unlock(&store, &key_file(b"0")).is_ok());
}
