//! What others do that this machine cannot see, or sees late. Not for: all orders in which that comes about (see `explore`).

use super::*;
use crate::format::coordination::{Pin, Process};
use crate::store::{Listed, Properties};
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

/// A place that other machines reach as well, which lags so much, and never lists these objects.
#[derive(Debug)]
struct Place {
    inner: MemoryStore,
    withheld: Vec<ObjectKey>,
    withheld_kind: Option<ObjectKind>,
    lag: Duration,
    /// Deletes of packs fail.
    is_broken: bool,
}

impl Place {
    fn of(world: &World) -> Place {
        let inner = world.store.clone();
        Place { inner, withheld: Vec::new(), withheld_kind: None, lag: Duration::ZERO, is_broken: false }
    }
}

impl Store for Place {
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        self.inner.put(key, bytes)
    }
    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        self.inner.get(key, limit)
    }
    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.inner.get_range(key, offset, buffer)
    }
    fn size(&self, key: &ObjectKey) -> Result<u64> {
        self.inner.size(key)
    }
    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.inner.list(kind, &mut |object| {
            let is_withheld = self.withheld.contains(&ObjectKey::new(kind, &object.name));
            if is_withheld || self.withheld_kind == Some(kind) { Ok(()) } else { visit(object) }
        })
    }
    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list(kind, visit)
    }
    fn delete(&self, key: &ObjectKey) -> Result<()> {
        if self.is_broken && matches!(key.kind, ObjectKind::Data | ObjectKind::Tree) {
            return Err(Error::new(ErrorKind::Failed, "the connection broke"));
        }
        self.inner.delete(key)
    }
    fn properties(&self) -> Properties {
        Properties { listing_lag: self.lag, is_shared: true, ..self.inner.properties() }
    }
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
        let withheld = vec![ObjectKey::new(ObjectKind::Snapshot, newest)];
        mistake::choose(mistake);
        let place = Place { withheld, ..Place::of(&world) };
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
            let report = run(&open(Arc::new(Place::of(&world))), &thorough(), &Silent, &Stop::new()).unwrap();
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
    let place = Place { withheld_kind: Some(ObjectKind::Mark), ..Place::of(&world) };
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
        let place = Place { lag: Duration::from_secs(1000), is_broken, ..Place::of(&world) };
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
