//! Sizes against an oracle that holds all ids in memory.

use super::*;
use crate::progress::Silent;
use crate::store::{ObjectKind, Operation};
use crate::view::path::find;
use crate::view::references::references;
use crate::view::sample::{Dice, Piece, Sample, Thing, change, dir, noise};
use std::collections::BTreeMap;

/// All chunks below, each once: whether it is of a tree pack, and its length.
fn reach(repository: &Repository, start: Vec<Reference>) -> BTreeMap<ChunkId, (Reference, u64)> {
    let mut found = BTreeMap::new();
    let mut open = start;
    while let Some(reference) = open.pop() {
        let bytes = repository.chunk(reference.kind(), &reference.id).unwrap();
        if reference.is_page() {
            open.extend(references(&reference, &bytes).unwrap().0);
        }
        found.insert(reference.id, (reference, bytes.len() as u64));
    }
    found
}

fn sum<'c>(usage: &Usage<'_>, chunks: impl Iterator<Item = &'c (Reference, u64)>) -> u64 {
    let share = |(reference, length): &(Reference, u64)| {
        let found = usage.locate(reference).unwrap().unwrap();
        usage.share(&found, *length).unwrap()
    };
    (chunks.map(share).sum::<u128>() / PARTS) as u64
}

#[test]
fn random_snapshots_take_what_a_naive_count_says() {
    for seed in 0..25 {
        let mut dice = Dice(seed);
        let sample = Sample::new();
        let repository = &sample.repository;
        let mut tree = BTreeMap::new();
        for round in 0..5 {
            for _ in 0..1 + dice.roll(5) {
                change(&mut tree, &mut dice, 0);
            }
            sample.snapshot(&format!("2026-01-01T00:00:{round:02}Z"), "h", &[], &Thing::Dir(tree.clone()));
        }
        // What no snapshot needs takes a part of its blocks, too.
        sample.remove(&repository.snapshots().unwrap().live[dice.roll(5) as usize]);
        let all = repository.snapshots().unwrap().live;
        let stop = Stop::new();
        let mut usage = Usage::find(repository, &all, &Silent, &stop).unwrap();
        assert_eq!(usage.issues, 0);
        let reached: Vec<_> = all.iter().map(|named| reach(repository, vec![root(named)])).collect();
        let union: BTreeMap<_, _> = reached.iter().flatten().collect();
        let stored = usage.stored().unwrap();
        assert!(stored.abs_diff(sum(&usage, union.into_values())) <= 1, "seed {seed}");
        let mut alone = 0;
        for (at, named) in all.iter().enumerate() {
            let others = || reached.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, chunks)| chunks);
            let expected = |chunks: &BTreeMap<ChunkId, (Reference, u64)>| {
                let own = chunks.iter().filter(|(id, _)| !others().any(|chunks| chunks.contains_key(*id)));
                (sum(&usage, chunks.values()), sum(&usage, own.map(|(_, chunk)| chunk)))
            };
            let mut cases = vec![(named.snapshot.totals.bytes, expected(&reached[at]), None)];
            if let Ok(entry) = find(repository, &named.snapshot, b"/a") {
                let below = reach(repository, entry_references(entry.clone()));
                cases.push((entry.totals().unwrap().bytes, expected(&below), Some(entry)));
            }
            for (restore, expected, entry) in cases {
                let is_whole = entry.is_none();
                let sizes = match entry {
                    None => usage.of_snapshot(named).unwrap(),
                    Some(entry) => usage.of_entry(&entry).unwrap(),
                };
                assert_eq!((sizes.restore, (sizes.stored, sizes.unique)), (restore, expected), "seed {seed}");
                assert!(!sizes.incomplete && sizes.unique <= sizes.stored && sizes.stored <= stored);
                alone += if is_whole { sizes.unique } else { 0 };
            }
        }
        assert!(alone <= stored);
    }
}

#[test]
fn all_of_an_only_snapshot_is_its_own() {
    let sample = Sample::new();
    let pieces = (0..300).map(|seed| Piece::Data(noise(seed % 100, 3000))).collect();
    // More chunks than are taken back one by one.
    let many =
        dir((0..5000u32)
            .map(|number| (number.to_string(), Thing::File(vec![Piece::Data(noise(u64::from(number), 200))]))));
    let tree =
        dir([("list", Thing::File(pieces)), ("many", many), ("again", dir([("x", Thing::Inline(b"x".to_vec()))]))]);
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree);
    let stop = Stop::new();
    let mut usage = Usage::find(&sample.repository, std::slice::from_ref(&named), &Silent, &stop).unwrap();
    for _ in 0..2 {
        let sizes = usage.of_snapshot(&named).unwrap();
        assert_eq!((sizes.stored, sizes.restore), (sizes.unique, 300 * 3000 + 5000 * 200 + 1));
        assert!(usage.stored().unwrap().abs_diff(sizes.stored) <= 1);
        assert!((100 * 3000 + 5000 * 200..1_700_000).contains(&sizes.stored), "{}", sizes.stored);
    }
    let stopped = Stop::new();
    stopped.trigger(2);
    let error = Usage::find(&sample.repository, &[named], &Silent, &stopped).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[test]
fn what_is_lost_is_told_once_and_left_out() {
    let sample = Sample::new();
    let tree =
        |mark: u8| dir([("a", Thing::Inline(vec![mark])), ("b", Thing::File(vec![Piece::Data(noise(1, 4000))]))]);
    let one = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &tree(1));
    let mut two = sample.snapshot("2026-01-02T00:00:00Z", "h", &[], &tree(2));
    two.snapshot.tree = ChunkId([9; 32]);
    let stop = Stop::new();
    let mut usage = Usage::find(&sample.repository, &[one.clone(), two.clone()], &Silent, &stop).unwrap();
    assert_eq!(usage.issues, 1);
    assert!(usage.of_snapshot(&two).unwrap().incomplete && !usage.of_snapshot(&one).unwrap().incomplete);
}

#[test]
fn a_page_is_opened_twice_at_most_however_many_snapshots_have_it() {
    let sample = Sample::new();
    let tree = |mark: u8| {
        let folder = |number: u8| dir([("x", Thing::Inline(vec![if number == 7 { mark } else { 0 }, number]))]);
        dir((0..40u8).map(|number| (number.to_string(), folder(number))))
    };
    for mark in 0..10 {
        sample.snapshot(&format!("2026-01-01T00:00:{mark:02}Z"), "h", &[], &tree(mark));
    }
    // Without a cache each page that is opened is a block that is read.
    let repository = Sample::open(&sample.store, 0);
    let all = repository.snapshots().unwrap().live;
    let pages: HashSet<ChunkId> =
        all.iter().flat_map(|named| reach(&repository, vec![root(named)]).into_keys()).collect();
    repository.index().unwrap();
    sample.store.reset();
    let stop = Stop::new();
    Usage::find(&repository, &all, &Silent, &stop).unwrap();
    let reads = sample.store.counts().calls(Operation::GetRange, ObjectKind::Tree) as usize;
    assert!(pages.len() >= 39 + 3 * 10 && (pages.len()..=2 * pages.len()).contains(&reads), "{} {reads}", pages.len());
}
