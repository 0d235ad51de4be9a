//! Which snapshots hold the last version of a path in a year. Not for: other rules (see `policy`).

use super::paths::last_of_year;
use super::*;
use crate::backup::{self, BackupOptions};
use crate::check::fixture::{keys, open, repository as fixture};
use crate::progress::Silent;
use crate::store::{ObjectKind, Operation, Store};
use crate::view::sample::{Sample, Thing, dir};
use std::collections::BTreeSet;

fn day(text: &str) -> Timestamp {
    format!("{text}T12:00:00Z").parse().unwrap()
}

fn last(repository: &Arc<Repository>, newest_first: &[Named]) -> Vec<bool> {
    let named: Vec<&Named> = newest_first.iter().collect();
    {
        let years: Vec<i16> = named.iter().map(|named| named.snapshot.time.to_zoned(TimeZone::UTC).year()).collect();
        last_of_year(repository, &named, &years, &Stop::new()).unwrap()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A small tree of few names, so that things come back, also as something else.
fn tree(random: &mut Random, depth: u64) -> Thing {
    let mut entries = Vec::new();
    for name in ["a", "b", "c"] {
        let thing = match random.below(4) {
            0 => continue,
            1 => Thing::Inline(vec![b'0' + random.below(2) as u8]),
            _ if depth == 0 => Thing::Symlink(b"x".to_vec()),
            _ => tree(random, depth - 1),
        };
        entries.push((name, thing));
    }
    dir(entries)
}

fn paths(thing: &Thing, at: &str, found: &mut BTreeSet<String>) {
    if let Thing::Dir(entries) = thing {
        for (name, below) in entries {
            let path = format!("{at}/{}", String::from_utf8_lossy(name));
            found.insert(path.clone());
            paths(below, &path, found);
        }
    }
}

/// Against sets of all paths.
#[test]
fn random_trees_agree_with_a_model() {
    let mut kinds = [0; 2];
    for seed in 0..30 {
        let mut random = Random(seed);
        let sample = Sample::new();
        let (mut named, mut sets) = (Vec::new(), Vec::new());
        let mut trees = Vec::new();
        for number in 0..12 {
            // Some trees come again as a whole.
            let thing = match random.below(3) {
                0 if number > 0 => random.below(number as u64) as usize,
                _ => {
                    trees.push(tree(&mut random, 2));
                    trees.len() - 1
                }
            };
            let thing = &trees[thing.min(trees.len() - 1)];
            let year = 2022 - number / 8;
            named.push(sample.snapshot(&format!("{year}-12-{:02}T00:00:00Z", 28 - number), "h", &[], thing));
            let mut set = BTreeSet::new();
            paths(thing, "", &mut set);
            sets.push((year, set));
        }
        let expected: Vec<bool> = (0..12)
            .map(|at| {
                let later: Vec<_> = sets[..at].iter().filter(|(year, _)| *year == sets[at].0).collect();
                later.is_empty() || sets[at].1.iter().any(|path| later.iter().all(|(_, set)| !set.contains(path)))
            })
            .collect();
        expected.iter().for_each(|is_last| kinds[usize::from(*is_last)] += 1);
        assert_eq!(last(&sample.repository, &named), expected, "seed {seed}: {sets:?}");
    }
    assert!(kinds.iter().all(|count| *count > 60), "{kinds:?}");
}

/// Pages that are the same in the next snapshot are not read, neither of folders nor of one large folder.
#[test]
fn only_what_differs_is_read() {
    const SNAPSHOTS: u64 = 30;
    let file = |text: String| Thing::Inline(text.into_bytes());
    let sample = Sample::new();
    let mut named = Vec::new();
    for number in 0..SNAPSHOTS {
        let large =
            (0..4000).map(|at| (format!("{at:05}"), file(if at == 100 * number { "new" } else { "old" }.into())));
        let folders = (0..300).map(|at| {
            let text = if at == number { "new" } else { "old" };
            (format!("folder {at}"), dir((0..10).map(|file_at| (file_at.to_string(), file(format!("{at} {text}"))))))
        });
        let all = dir([("large", dir(large)), ("folders", dir(folders))]);
        named.push(sample.snapshot(&format!("2022-01-{:02}T00:00:00Z", number + 1), "h", &[], &all));
    }
    named.reverse();
    // Without a cache of blocks each page that is looked at is one read, for decoded ones are kept.
    let repository = Sample::open(&sample.store, 0);
    repository.index().unwrap();
    let before = sample.store.counts().calls(Operation::GetRange, ObjectKind::Tree);
    let expected: Vec<bool> = (0..SNAPSHOTS).map(|at| at == 0).collect();
    assert_eq!(last(&repository, &named), expected);
    let reads = sample.store.counts().calls(Operation::GetRange, ObjectKind::Tree) - before;
    println!("{reads} reads for {SNAPSHOTS} snapshots with 7,300 entries in 300 folders");
    // Of each snapshot: its top, its root, the pages of both folders on the way to what has changed, and a folder. All of its
    // pages are about 340.
    assert!(reads < SNAPSHOTS * 50, "{reads}");
}

#[test]
fn the_last_version_of_each_path_in_each_year_can_be_kept() {
    let (store, _) = fixture();
    let repository = open(Arc::new(store.clone()));
    for key in keys(&store, ObjectKind::Snapshot) {
        store.delete(&key).unwrap();
    }
    let source = tempfile::tempdir().unwrap();
    let path = |name: &str| source.path().join(name);
    let back_up = |date: &str| {
        let options = BackupOptions {
            paths: vec![source.path().to_owned()],
            time: Some(day(date)),
            level: 1,
            threads: 1,
            ..BackupOptions::default()
        };
        backup::run(&repository, &options, &Silent, &Stop::new()).unwrap().snapshot.unwrap()
    };
    std::fs::create_dir_all(path("folder/below")).unwrap();
    for name in ["always", "changes", "folder/below/early", "folder/comes back", "folder/old"] {
        std::fs::write(path(name), name).unwrap();
    }
    let mut kept = Vec::new();
    // The last one with "folder/below".
    kept.push(back_up("2020-01-01"));
    std::fs::remove_dir_all(path("folder/below")).unwrap();
    std::fs::remove_file(path("folder/comes back")).unwrap();
    let mut dropped = vec![back_up("2020-02-01")];
    std::fs::write(path("changes"), "other").unwrap();
    std::fs::write(path("folder/comes back"), "again").unwrap();
    dropped.push(back_up("2020-03-01"));
    std::fs::write(path("changes"), "another").unwrap();
    // The last one with "folder/old".
    kept.push(back_up("2020-04-01"));
    std::fs::remove_file(path("folder/old")).unwrap();
    kept.push(back_up("2020-12-31"));
    // Another year: the last of it, and that with what goes.
    dropped.push(back_up("2021-01-01"));
    std::fs::write(path("short"), "here for a day").unwrap();
    kept.push(back_up("2021-05-05"));
    std::fs::remove_file(path("short")).unwrap();
    kept.push(back_up("2021-06-06"));
    let options = ForgetOptions { keep_path_yearly: true, ..ForgetOptions::default() };
    let mut gone = {
        let groups = plan(&repository, &options, &Stop::new()).unwrap().groups;
        groups.iter().flat_map(|group| group.removed().map(|named| named.name).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    gone.sort();
    dropped.sort();
    assert_eq!(gone, dropped);
    assert_eq!(plan(&repository, &options, &Stop::new()).unwrap().groups[0].verdicts.len(), kept.len() + dropped.len());
}
