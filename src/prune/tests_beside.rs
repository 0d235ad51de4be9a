//! Readers beside a prune that writes all packs anew: whatever is read, and whenever the prune comes, nothing fails.
//! Not for: mounts, which read the same way (see `tests/mount`), or writers, for which a prune waits.

use super::tests::World;
use super::*;
use crate::check::fixture::open;
use crate::check::{self, CheckOptions};
use crate::diff;
use crate::du::Usage;
use crate::format::snapshot::Snapshot;
use crate::format::tree::Body;
use crate::progress::Silent;
use crate::restore::{self, Overwrite, RestoreOptions};
use crate::store::HookedStore;
use crate::store::{Listed, MemoryStore, Operation};
use crate::view::content::copy;
use crate::view::path::find;
use std::sync::Mutex;

type Hook = Box<dyn FnOnce() + Send>;

/// How many reads of packs are left until something happens just before one, and what that is.
type Left = Arc<Mutex<(u32, Option<Hook>)>>;

/// A store in which that happens. All its listings are as old as this, but for those that are fresh.
fn interrupted(inner: &MemoryStore, left: &Left) -> HookedStore {
    let (left, old) = (left.clone(), inner.raw_keys());
    HookedStore::new(inner)
        .before(move |operation, key| {
            let mut left = left.lock().unwrap();
            if operation == Operation::GetRange && matches!(key.kind, ObjectKind::Data | ObjectKind::Tree) {
                left.0 = left.0.saturating_sub(1);
                if left.0 == 0
                    && let Some(hook) = left.1.take()
                {
                    hook();
                }
            }
            Ok(())
        })
        .shown(move |operation, kind, listed| {
            if operation == Operation::ListFresh {
                return listed;
            }
            let like = |key: &ObjectKey| {
                let now = listed.iter().find(|object| object.name == key.name).cloned();
                let gone = Listed { name: key.name.clone(), size: 1, stored: SystemTime::UNIX_EPOCH, mark: 0 };
                now.unwrap_or(gone)
            };
            old.iter().filter(|key| key.kind == kind).map(like).collect()
        })
}

/// The files of the snapshot that stays.
const FILES: u64 = 12;

fn name_of(number: u64) -> String {
    format!("{}f{number}", if number.is_multiple_of(3) { "below/" } else { "" })
}

/// Two snapshots. The packs of the first, of trees as well as of content, hold what the second needs and what it does not.
fn scene() -> (World, [ObjectName; 2]) {
    let world = World::new();
    std::fs::create_dir(world.source.path().join("below")).unwrap();
    (0..FILES).for_each(|number| world.write(&name_of(number), number, 140_000 - 60_000 * (number as usize % 2)));
    (0..FILES).for_each(|number| world.write(&format!("gone{number}"), 1000 + number, 140_000));
    let first = world.back_up();
    (0..FILES).for_each(|number| world.remove(&format!("gone{number}")));
    let second = world.back_up();
    (world, [first, second])
}

/// Calls `read` with a repository in which a prune writes all packs anew before the first read of a pack, then with one where
/// it does so before the second, and so on, until there are no more reads.
fn at_every_read(read: &dyn Fn(&World, &Arc<Repository>, &Snapshot)) {
    let mut moment = 1;
    loop {
        let (world, [first, second]) = scene();
        world.forget(first);
        let left = Left::default();
        let repository = open(Arc::new(interrupted(&world.store, &left)));
        let snapshot = repository.snapshot(second).unwrap();
        repository.index().unwrap();
        let pruned = world.store.clone();
        let hook = move || {
            let options = PruneOptions { consent: true, ..thorough() };
            let report = run(&open(Arc::new(pruned)), &options, &Silent, &Stop::new()).unwrap();
            assert!(report.rewritten.packs > 0);
        };
        *left.lock().unwrap() = (moment, Some(Box::new(hook)));
        read(&world, &repository, &snapshot);
        if left.lock().unwrap().1.is_some() {
            assert!(moment > 2, "there was not much to read");
            return;
        }
        // All reads of a large repository would take too long.
        moment += 1 + moment / 8;
    }
}

#[test]
fn a_restore_goes_on_beside_a_prune() {
    for threads in [1, 3] {
        at_every_read(&|world, repository, snapshot| {
            let target = tempfile::tempdir().unwrap();
            let options = RestoreOptions {
                target: target.path().to_owned(),
                overwrite: Overwrite::Always,
                include: Vec::new(),
                exclude: Vec::new(),
                dry_run: false,
                verify: true,
                threads,
            };
            let path = &snapshot.paths[0].0;
            let report = restore::run(repository, snapshot, path, &options, &Silent, &Stop::new()).unwrap();
            assert_eq!((report.issues, report.files, report.verified), (0, FILES, FILES));
            for name in (0..FILES).map(name_of) {
                let read = |folder: &std::path::Path| std::fs::read(folder.join(&name)).unwrap();
                assert!(read(target.path()) == read(world.source.path()), "{name}");
            }
        });
    }
}

#[test]
fn what_reads_trees_and_files_goes_on_beside_a_prune() {
    at_every_read(&|world, repository, snapshot| {
        let folder = find(repository, snapshot, &snapshot.paths[0].0).unwrap();
        let Body::Directory { page, totals, .. } = &folder.body else { panic!("a folder was backed up") };
        assert_eq!(
            repository.entries_of(*page, totals).filter(|entry| entry.is_ok()).count() as u64,
            1 + FILES * 2 / 3
        );
        for name in (0..FILES).map(name_of) {
            let path = [&snapshot.paths[0].0, b"/".as_slice(), name.as_bytes()].concat();
            let file = find(repository, snapshot, &path).unwrap();
            let Body::File { size, content } = &file.body else { panic!("{name} is a file") };
            let mut bytes = Vec::new();
            copy(repository, *size, content, &mut bytes).unwrap();
            assert!(bytes == std::fs::read(world.source.path().join(&name)).unwrap(), "{name}");
        }
    });
}

#[test]
fn a_comparison_a_measurement_and_a_check_go_on_beside_a_prune() {
    at_every_read(&|world, repository, snapshot| {
        let path = &snapshot.paths[0].0;
        let entry = find(repository, snapshot, path).unwrap();
        let options = diff::Options { content: true, ..diff::Options::default() };
        let stop = Stop::new();
        let context = diff::Context { repository, options, progress: &Silent, stop: &stop };
        let roots = vec![world.source.path().to_owned()];
        let live = diff::Live { path: path.clone(), roots, options: crate::backup::walk::Options::default() };
        let mut found = 0;
        let mut tell = |_: &diff::Difference<'_>| {
            found += 1;
            Ok(())
        };
        let statistics = diff::with_live(&context, &entry, &live, &mut tell).unwrap();
        assert_eq!((statistics.issues, found), (0, 0));
    });
    at_every_read(&|_, repository, _| {
        let live = repository.snapshots().unwrap().live;
        let stop = Stop::new();
        let mut usage = Usage::find(repository, &live, &Silent, &stop).unwrap();
        assert!(usage.of_snapshot(live.last().unwrap()).is_ok() && usage.issues == 0);
    });
    at_every_read(&|_, repository, _| {
        let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
        let report = check::run(repository, &options, &Silent, &Stop::new()).unwrap();
        assert_eq!(report.findings, []);
    });
}
