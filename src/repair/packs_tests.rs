//! Damaged packs are saved, read back and removed, and never before. Not for: how blocks are found (see `repository::pack`).

use super::packs::*;
use crate::check::fixture::{coordinate, keys, open, repository};
use crate::check::{CheckOptions, Severity, run};
use crate::id::ObjectName;
use crate::progress::{Silent, Stop};
use crate::store::{MemoryStore, ObjectKey, ObjectKind};
use std::sync::Arc;

const FAST: PacksOptions = PacksOptions { dry_run: false, keep: false, discard: false, threads: 2 };

fn repair(store: &MemoryStore, packs: &[ObjectKey], options: PacksOptions) -> Vec<PackOutcome> {
    repair_packs(&open(Arc::new(store.clone())), packs, &options, &Silent, &Stop::new()).unwrap()
}

fn worst(store: &MemoryStore) -> Option<Severity> {
    let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
    run(&open(Arc::new(store.clone())), &options, &Silent, &Stop::new()).unwrap().worst()
}

fn flip(store: &MemoryStore, key: &ObjectKey, at: usize) {
    let mut bytes = store.raw_get(key).unwrap();
    bytes[at] ^= 1;
    store.raw_set(key, bytes);
}

fn packs(store: &MemoryStore) -> Vec<ObjectKey> {
    keys(store, ObjectKind::Data).into_iter().chain(keys(store, ObjectKind::Tree)).collect()
}

#[test]
fn a_pack_that_can_still_be_read_is_replaced_and_nothing_is_lost() {
    let (whole, _) = repository();
    for key in packs(&whole) {
        let (store, _) = repository_of(&whole);
        flip(&store, &key, store.raw_get(&key).unwrap().len() - 1);
        assert_eq!(worst(&store), Some(Severity::Repairable));
        let before = store.raw_keys();
        let plan = repair(&store, std::slice::from_ref(&key), PacksOptions { dry_run: true, ..FAST });
        assert_eq!(store.raw_keys(), before);
        let done = repair(&store, std::slice::from_ref(&key), FAST);
        assert_eq!(plan, done);
        assert_eq!((done[0].unreadable, done[0].lost, done[0].fate), (0, 0, Fate::Removed));
        assert!(done[0].saved > 0 && store.raw_get(&key).is_none(), "{done:?}");
        assert_eq!(worst(&store), None);
        for kind in [ObjectKind::Pin, ObjectKind::Mark] {
            assert_eq!(keys(&store, kind), []);
        }
    }
}

fn repository_of(whole: &MemoryStore) -> (MemoryStore, ()) {
    let store = MemoryStore::new();
    whole.raw_keys().iter().for_each(|key| store.raw_set(key, whole.raw_get(key).unwrap()));
    (store, ())
}

#[test]
fn the_only_copy_of_something_unreadable_stays_and_the_second_time_nothing_is_done() {
    let (whole, _) = repository();
    for key in packs(&whole) {
        let (store, _) = repository_of(&whole);
        flip(&store, &key, 200);
        let done = repair(&store, std::slice::from_ref(&key), FAST);
        assert_eq!((done[0].unreadable, done[0].fate), (1, Fate::KeptForLost), "{done:?}");
        assert!(done[0].lost > 0 && done[0].saved + done[0].lost > 0);
        assert!(store.raw_get(&key).is_some());
        assert_eq!(worst(&store), Some(Severity::Lost));
        let before = store.raw_keys();
        let again = repair(&store, std::slice::from_ref(&key), FAST);
        assert_eq!((again[0].saved, again[0].lost, again[0].fate), (0, done[0].lost, Fate::KeptForLost));
        assert_eq!(store.raw_keys(), before);
        let gone = repair(&store, std::slice::from_ref(&key), PacksOptions { discard: true, ..FAST });
        assert_eq!((gone[0].saved, gone[0].fate), (0, Fate::Removed));
        assert!(store.raw_get(&key).is_none() && worst(&store) == Some(Severity::Lost));
    }
}

#[test]
fn a_pack_without_header_holds_nothing_readable_and_stays() {
    let (store, _) = repository();
    let key = keys(&store, ObjectKind::Data).remove(0);
    flip(&store, &key, 40);
    let done = repair(&store, std::slice::from_ref(&key), FAST);
    assert_eq!((done[0].saved, done[0].fate), (0, Fate::KeptForLost));
    assert_eq!(done[0].unreadable, done[0].blocks);
}

#[test]
fn without_an_index_blocks_are_found_by_the_pack_itself() {
    let (store, _) = repository();
    let key = keys(&store, ObjectKind::Data).remove(0);
    flip(&store, &key, store.raw_get(&key).unwrap().len() - 1);
    keys(&store, ObjectKind::Index).iter().for_each(|key| drop(store.raw_remove(key)));
    let done = repair(&store, std::slice::from_ref(&key), FAST);
    assert_eq!((done[0].unreadable, done[0].lost, done[0].fate), (0, 0, Fate::Removed), "{done:?}");
    assert_eq!(worst(&store), None);
}

#[test]
fn while_somebody_writes_nothing_is_removed() {
    let (store, _) = repository();
    coordinate(&open(Arc::new(store.clone())), vec![ObjectName([8; 32])]);
    let key = keys(&store, ObjectKind::Data).remove(0);
    flip(&store, &key, store.raw_get(&key).unwrap().len() - 1);
    let marks = keys(&store, ObjectKind::Mark);
    let done = repair(&store, std::slice::from_ref(&key), FAST);
    assert_eq!(done[0].fate, Fate::KeptForOthers);
    assert!(store.raw_get(&key).is_some());
    assert_eq!((keys(&store, ObjectKind::Mark), keys(&store, ObjectKind::Pin).len()), (marks, 1));
    // Once they have ended it goes, and nothing needs to be saved again.
    keys(&store, ObjectKind::Pin).iter().for_each(|key| drop(store.raw_remove(key)));
    let done = repair(&store, std::slice::from_ref(&key), FAST);
    assert_eq!((done[0].saved, done[0].fate), (0, Fate::Removed));
    assert_eq!(worst(&store), None);
}

#[test]
fn copies_that_a_prune_is_about_to_delete_do_not_count() {
    let (store, _) = repository();
    let key = keys(&store, ObjectKind::Data).remove(0);
    flip(&store, &key, store.raw_get(&key).unwrap().len() - 1);
    assert_eq!(repair(&store, std::slice::from_ref(&key), PacksOptions { keep: true, ..FAST })[0].fate, Fate::Kept);
    // The saved copy is condemned by a prune that has not ended.
    let new: Vec<ObjectName> =
        keys(&store, ObjectKind::Data).iter().map(|key| ObjectName::parse(&key.name).unwrap()).collect();
    coordinate(&open(Arc::new(store.clone())), new);
    keys(&store, ObjectKind::Pin).iter().for_each(|key| drop(store.raw_remove(key)));
    let done = repair(&store, std::slice::from_ref(&key), FAST);
    assert!(done[0].saved > 0 && done[0].fate == Fate::Removed, "{done:?}");
}

#[test]
fn what_is_not_damaged_is_left_alone() {
    let (store, _) = repository();
    let repository = open(Arc::new(store.clone()));
    let key = keys(&store, ObjectKind::Data).remove(0);
    repository.note_damaged(ObjectName::parse(&key.name).unwrap());
    assert_eq!(choose(&repository, &[]).unwrap(), std::slice::from_ref(&key));
    let before = store.raw_keys();
    let done = repair_packs(&repository, std::slice::from_ref(&key), &FAST, &Silent, &Stop::new()).unwrap();
    assert_eq!((done[0].fate, store.raw_keys()), (Fate::Whole, before));
    assert_eq!(choose(&repository, &[]).unwrap(), []);
    assert_eq!(choose(&repository, &[key.path()]).unwrap(), std::slice::from_ref(&key));
    assert_eq!(choose(&repository, &[key.name[..10].to_owned()]).unwrap(), std::slice::from_ref(&key));
    assert!(choose(&repository, &["x".into()]).is_err() && choose(&repository, &["".into()]).is_err());
}
