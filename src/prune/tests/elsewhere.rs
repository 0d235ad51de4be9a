//! What others do that this machine cannot see, or sees late. Not for: all orders in which that comes about (see `explore`).

use super::*;
use crate::format::coordination::{Pin, Process};
use crate::store::Properties;
use std::time::SystemTime;

#[test]
fn a_pin_of_a_process_that_is_known_to_be_gone_does_not_hold_anybody_up() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let own = crate::os::process_identity().unwrap();
    let process = |boot: &str, namespace, ticks| Some(Process { boot: boot.to_owned(), namespace, ticks });
    let own_number = crate::os::process_id();
    for (pid, process, is_gone) in [
        (child.id(), process(&own.boot, own.namespace, 1), true),
        // Its number was given to another one, which is this.
        (own_number, process(&own.boot, own.namespace, own.started + 1), true),
        (own_number, process(&own.boot, own.namespace, own.started), false),
        // Of these nothing is known: another container, another machine or boot, and a pin that says nothing.
        (child.id(), process(&own.boot, own.namespace + 1, 1), false),
        (child.id(), process("another", own.namespace, 1), false),
        (child.id(), None, false),
    ] {
        let (world, [first, _]) = changed();
        world.forget(first);
        let repository = world.open();
        let session = SessionId([3; 16]);
        let (writer, host, started) = (repository.writer_id(), crate::os::hostname(), jiff::Timestamp::now());
        let pin = Pin { version: 1, session, writer, host, pid, started, process };
        repository.put_json(crate::format::header::Kind::Pin, &ObjectKey::new(ObjectKind::Pin, session), &pin).unwrap();
        let options = PruneOptions { max_wait: Some(Duration::ZERO), ..thorough() };
        let pruned = run(&repository, &options, &Silent, &Stop::new());
        if is_gone {
            let report = pruned.unwrap();
            assert_eq!((report.revoked, report.snapshots_dropped.len()), (1, 1), "{pin:?}");
            assert_eq!(keys(&world.store, ObjectKind::Pin), []);
        } else {
            assert_eq!(pruned.unwrap_err().kind(), ErrorKind::InUse, "{pin:?}");
            assert_eq!(keys(&world.store, ObjectKind::Revoke), []);
        }
        world.is_whole();
    }
}

/// A place that other machines reach as well.
fn shared(world: &World) -> HookedStore {
    HookedStore::new(&world.store).said(|properties| Properties { is_shared: true, ..properties })
}

/// Whatever lists lack, and however they came to: what was stored a moment ago is not deleted where others may have stored it.
#[test]
fn what_came_a_moment_ago_stays_though_no_listing_says_why() {
    for (mistake, survives) in [(None, true), (Some(Mistake::NoAgeGuard), false)] {
        let world = World::new();
        world.write("a", 1, 1000);
        world.back_up();
        for key in world.store.raw_keys() {
            world.store.raw_set_time(&key, SystemTime::now() - Duration::from_secs(3600));
        }
        world.write("b", 2, 500_000);
        let newest = world.back_up();
        mistake::choose(mistake);
        let place = shared(&world).shown(move |_, kind, mut listed| {
            listed.retain(|object| kind != ObjectKind::Snapshot || object.name != newest.to_string());
            listed
        });
        let report = run(&open(Arc::new(place)), &thorough(), &Silent, &Stop::new());
        mistake::choose(None);
        let report = report.unwrap();
        if survives {
            assert!(report.young.packs > 0 && report.deleted.packs == 0, "{report:?}");
            world.is_whole();
            // After a while what nobody needs goes.
            world.forget(newest);
            for key in world.store.raw_keys() {
                world.store.raw_set_time(&key, SystemTime::now() - Duration::from_secs(3600));
            }
            let report = run(&open(Arc::new(shared(&world))), &thorough(), &Silent, &Stop::new()).unwrap();
            assert!(report.young.packs == 0 && report.deleted.packs > 0, "{report:?}");
        } else {
            assert!(report.young.packs == 0 && report.deleted.packs > 0, "{report:?}");
        }
    }
}

#[test]
fn a_place_that_does_not_list_a_prunes_own_marks_is_not_believed() {
    let (world, [first, _]) = changed();
    world.forget(first);
    let before = world.packs();
    let place = shared(&world).shown(|_, kind, listed| if kind == ObjectKind::Mark { Vec::new() } else { listed });
    let options = PruneOptions { rewrite: false, ..thorough() };
    let error = run(&open(Arc::new(place)), &options, &Silent, &Stop::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Brake);
    assert!(error.to_string().contains("does not list"), "{error}");
    assert_eq!((world.packs(), keys(&world.store, ObjectKind::Mark)), (before, Vec::new()));
    world.is_whole();
}

/// What is stored each time a prune waits out the lag.
struct Sleeper(MemoryStore, Mutex<Vec<(usize, usize)>>);

impl Patience for Sleeper {
    fn wait(&self, _: &[StoredPin]) -> Result<Answer> {
        Ok(Answer::Wait)
    }
    fn sleep(&self, span: Duration) -> Result<()> {
        assert_eq!(span, Duration::from_secs(1000));
        let packs = keys(&self.0, ObjectKind::Data).len();
        self.1.lock().unwrap().push((keys(&self.0, ObjectKind::Mark).len(), packs));
        Ok(())
    }
}

#[test]
fn a_lag_is_waited_out_before_others_are_looked_for_and_before_the_marks_go() {
    for is_broken in [false, true] {
        let world = World::new();
        world.write("a", 1, 300_000);
        let first = world.back_up();
        world.remove("a");
        world.write("b", 2, 300_000);
        world.back_up();
        world.forget(first);
        for key in world.store.raw_keys() {
            world.store.raw_set_time(&key, SystemTime::now() - Duration::from_secs(86_400));
        }
        let before = keys(&world.store, ObjectKind::Data).len();
        let sleeper = Sleeper(world.store.clone(), Mutex::default());
        let place = HookedStore::new(&world.store)
            .said(|properties| Properties { listing_lag: Duration::from_secs(1000), is_shared: true, ..properties })
            .before(move |operation, key| {
                let is_pack = matches!(key.kind, ObjectKind::Data | ObjectKind::Tree);
                if is_broken && is_pack && operation == Operation::Delete {
                    return Err(Error::new(ErrorKind::Failed, "the connection broke"));
                }
                Ok(())
            });
        let options = PruneOptions { rewrite: false, ..thorough() };
        let pruned = run_with(&open(Arc::new(place)), &options, &sleeper, &Silent, &Stop::new());
        let after = keys(&world.store, ObjectKind::Data).len();
        let slept = sleeper.1.into_inner().unwrap();
        if is_broken {
            // The index is without the packs, which not everybody can see yet.
            pruned.unwrap_err();
            assert_eq!(slept, [(1, before); 3]);
            assert_eq!(keys(&world.store, ObjectKind::Mark).len(), 1);
            world.prune(&options).unwrap();
        } else {
            pruned.unwrap();
            assert!(after < before);
            assert_eq!(slept, [(1, before), (1, before), (1, before), (1, after)]);
        }
        assert_eq!(keys(&world.store, ObjectKind::Mark), []);
        world.is_whole();
    }
}

/// Local tables name what a segment that was damaged since then named, and hide that: nobody else could tell what is needed.
#[test]
fn a_damaged_segment_that_local_tables_hide_is_left_to_a_repair() {
    let (world, [first, _]) = changed();
    let cache = tempfile::tempdir().unwrap();
    let repository = open_with_cache(Arc::new(world.store.clone()), cache.path());
    repository.index().unwrap();
    world.forget(first);
    for key in keys(&world.store, ObjectKind::Index) {
        let whole = world.store.raw_get(&key).unwrap();
        let mut bytes = whole.clone();
        bytes[200] ^= 1;
        world.store.raw_set(&key, bytes);
        let before = world.packs();
        let options = PruneOptions { rewrite: false, ..thorough() };
        let error = run(&repository, &options, &Silent, &Stop::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Brake, "{error}");
        assert!(world.store.raw_get(&key).is_some());
        assert_eq!((world.packs(), keys(&world.store, ObjectKind::Mark)), (before, Vec::new()));
        world.store.raw_set(&key, whole);
    }
    world.is_whole();
}

/// A mark says which packs may go at any time. That a listing lacks them proves nothing.
#[test]
fn the_mark_of_another_prune_stays_as_long_as_its_packs_are_stored() {
    let (world, [first, _]) = changed();
    world.forget(first);
    let segments = keys(&world.store, ObjectKind::Index);
    let packs = keys(&world.store, ObjectKind::Data);
    let name = ObjectName::parse(&packs[0].name).unwrap();
    // Its prune has published the index without the pack, and was stopped before it deleted it.
    let repository = world.open();
    repository.mark(SessionId([5; 16]), &[name], &[]).unwrap().into_iter().for_each(Transient::leave);
    for key in segments {
        let segment = crate::repository::index::read_segment(
            repository.keyring(),
            &world.store,
            ObjectName::parse(&key.name).unwrap(),
        )
        .unwrap();
        if segment.packs.iter().any(|pack| pack.name == name) {
            world.store.raw_remove(&key);
        }
    }
    let stale = HookedStore::new(&world.store).shown(move |_, kind, mut listed| {
        listed.retain(|object| kind != ObjectKind::Data || object.name != packs[0].name);
        listed
    });
    let repository = open(Arc::new(stale));
    let (report, bad, read) = Default::default();
    let (options, stop) = (thorough(), Stop::new());
    let patience = pins::Usual::new(&repository, options.revoke_after, options.max_wait, &Silent, &stop);
    let mut prune = Prune {
        repository: &repository,
        options: &options,
        patience: &patience,
        progress: &Silent,
        stop: &stop,
        report,
        bad,
        read,
    };
    prune.clear_leavings().unwrap();
    assert_eq!(keys(&world.store, ObjectKind::Mark).len(), 1);
    world.store.raw_remove(&ObjectKey::new(ObjectKind::Data, name));
    prune.clear_leavings().unwrap();
    assert_eq!((keys(&world.store, ObjectKind::Mark), prune.report.marks_cleared), (Vec::new(), 1));
}
