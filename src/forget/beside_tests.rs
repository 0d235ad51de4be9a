//! Undeleting, forgetting and pinning beside a prune, in every order of their calls to the store: what was said is true. Not for:
//! crashes (see `tests/crash`).

use super::pin::pin;
use super::undelete::undelete;
use super::*;
use crate::check::fixture::{back_up, open, repository as fixture};
use crate::check::{self, CheckOptions};
use crate::error::Result;
use crate::progress::Silent;
use crate::prune::{self, Limit, PruneOptions};
use crate::repository::mistake::{self, Mistake};
use crate::store::{Layer, MemoryStore, ObjectKey, ObjectKind, Properties, Store};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

type Action = Box<dyn FnOnce() + Send>;

/// Does something between two calls.
struct Between {
    inner: MemoryStore,
    calls: AtomicU64,
    at: u64,
    action: Mutex<Option<Action>>,
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Between {
    fn new(inner: &MemoryStore, at: u64, action: impl FnOnce() + Send + 'static) -> Arc<Between> {
        let action = Mutex::new(Some(Box::new(action) as Action));
        Arc::new(Between { inner: inner.clone(), calls: AtomicU64::new(0), at, action })
    }

    fn call(&self) -> &MemoryStore {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            let action = self.action.lock().unwrap().take();
            action.expect("a number comes once")();
        }
        &self.inner
    }

    /// Whether its moment came.
    fn has_acted(&self) -> bool {
        self.action.lock().unwrap().is_none()
    }
}

impl Layer for Between {
    fn below(&self) -> &dyn Store {
        self.call()
    }

    fn properties(&self) -> Properties {
        self.inner.properties()
    }
}

fn prune_all(store: Arc<dyn Store>) -> Result<()> {
    let options = PruneOptions {
        keep_deleted: Duration::ZERO,
        // Whoever was stopped has left a pin.
        revoke_after: Duration::ZERO,
        max_unused: Limit::Bytes(0),
        max_rewrite: Limit::Unlimited,
        level: 1,
        threads: 1,
        ..PruneOptions::default()
    };
    prune::run(&open(store), &options, &Silent, &Stop::new()).map(drop)
}

fn is_whole(store: &MemoryStore, moment: &str) {
    let options = CheckOptions { read_data: true, threads: 1, ..CheckOptions::default() };
    let report = check::run(&open(Arc::new(store.clone())), &options, &Silent, &Stop::new()).unwrap();
    let worst: Vec<_> = report.findings.iter().filter(|one| one.severity > check::Severity::Note).collect();
    assert!(worst.is_empty(), "{moment}: {worst:#?}");
}

/// What was said of a snapshot.
type Heard = std::result::Result<(), ErrorKind>;

/// The same, if anything was said by now.
type Said = Arc<Mutex<Option<Heard>>>;

/// Looks at a store at the end, with what the first one returned, what the second one said, and words for the moment.
type Judge<'a> = dyn Fn(&MemoryStore, Result<()>, Option<Heard>, &str) + 'a;

fn say(said: &Said, result: Result<()>) {
    *said.lock().unwrap() = Some(result.map_err(|error| error.kind()));
}

fn twin(store: &MemoryStore) -> MemoryStore {
    let other = MemoryStore::new();
    store.raw_keys().iter().for_each(|key| other.raw_set(key, store.raw_get(key).expect("it was just listed")));
    other
}

/// Runs `first` on a store in which `second` comes between two calls, for every two calls; `judge` looks at each end. How many.
fn in_every_order(
    scene: &MemoryStore,
    first: &dyn Fn(Arc<dyn Store>) -> Result<()>,
    second: fn(MemoryStore, &Said),
    judge: &Judge<'_>,
) -> u64 {
    for at in 0.. {
        let store = twin(scene);
        let (said, other) = (Said::default(), store.clone());
        let heard = said.clone();
        let between = Between::new(&store, at, move || second(other, &heard));
        let result = first(between.clone());
        if !between.has_acted() {
            result.unwrap();
            return at;
        }
        let said = said.lock().unwrap().take();
        judge(&store, result, said, &format!("at call {at}"));
    }
    unreachable!("some run ends before its moment comes");
}

/// Three snapshots, the first of which is forgotten and has content that no other one has.
fn scene() -> (MemoryStore, ObjectName) {
    let (store, [first, second]) = fixture();
    let repository = open(Arc::new(store.clone()));
    back_up(&repository, 3000, 3, Some(second));
    repository.put_tomb(first).unwrap();
    (store, first)
}

/// The forgotten one is that of the scene: the second call finds it.
fn forgotten(store: &MemoryStore) -> ObjectName {
    open(Arc::new(store.clone())).snapshots().unwrap().forgotten[0].name
}

fn undelete_it(store: MemoryStore, said: &Said) {
    let snapshots = open(Arc::new(store.clone())).snapshots().unwrap();
    let Some(named) = snapshots.forgotten.first() else {
        return say(said, Err(Error::new(ErrorKind::NotFound, "gone")));
    };
    say(said, undelete(&open(Arc::new(store)), named.name, &Silent, &Stop::new()).map(drop));
}

/// The snapshot is live exactly if that was said, and everything that is live is whole, also after another prune.
fn judge_undelete(store: &MemoryStore, name: ObjectName, said: Heard, moment: &str) {
    let is_live = || open(Arc::new(store.clone())).snapshots().unwrap().live.iter().any(|named| named.name == name);
    match said {
        Ok(()) => assert!(is_live(), "{moment}: it was said to be undeleted"),
        Err(ErrorKind::InUse | ErrorKind::NotFound | ErrorKind::Damaged) => {
            assert!(!is_live(), "{moment}: it was said to be forgotten");
        }
        Err(kind) => panic!("{moment}: {kind:?}"),
    }
    is_whole(store, moment);
    prune_all(Arc::new(store.clone())).unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
    assert_eq!(is_live(), said.is_ok(), "{moment}");
    is_whole(store, moment);
}

#[test]
fn undelete_in_the_middle_of_a_prune() {
    let (scene, name) = scene();
    let mut heard = BTreeMap::new();
    let heard_by = Mutex::new(&mut heard);
    let orders = in_every_order(&scene, &prune_all, undelete_it, &|store, result, said, moment| {
        result.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        let said = said.expect("it was asked");
        *heard_by.lock().unwrap().entry(format!("{said:?}")).or_insert(0) += 1;
        judge_undelete(store, name, said, moment);
    });
    println!("{orders} orders: {heard:?}");
    assert!(orders > 60, "{orders}");
    assert!(["Ok(())", "Err(InUse)"].iter().all(|what| heard[*what] > 5), "{heard:?}");
}

#[test]
fn prune_in_the_middle_of_an_undelete() {
    let (scene, name) = scene();
    let undelete = |store: Arc<dyn Store>| undelete(&open(store), name, &Silent, &Stop::new()).map(drop);
    let mut heard = BTreeMap::new();
    let heard_by = Mutex::new(&mut heard);
    let prune_it = |store: MemoryStore, said: &Said| say(said, prune_all(Arc::new(store)));
    let orders = in_every_order(&scene, &undelete, prune_it, &|store, result, said, moment| {
        assert_eq!(said, Some(Ok(())), "{moment}");
        let result = result.map_err(|error| error.kind());
        *heard_by.lock().unwrap().entry(format!("{result:?}")).or_insert(0) += 1;
        judge_undelete(store, name, result, moment);
    });
    println!("{orders} orders: {heard:?}");
    assert!(orders > 15, "{orders}");
    assert!(["Ok(())", "Err(NotFound)"].iter().all(|what| heard[*what] > 1), "{heard:?}");
}

/// As a prune that keeps what was forgotten, and undeletes it once its work is done.
fn prune_carefully_and_undelete_it(store: MemoryStore, said: &Said) {
    let options = PruneOptions { threads: 1, rewrite: false, ..PruneOptions::default() };
    let pruned = prune::run(&open(Arc::new(store.clone())), &options, &Silent, &Stop::new()).map(drop);
    match pruned {
        Ok(()) => undelete_it(store, said),
        error => say(said, error),
    }
}

/// Two prunes condemn the same pack; the one that ends first is followed by an undelete, while the other one goes on.
fn undelete_beside_two_prunes() -> u64 {
    let (scene, name) = scene();
    // A pack that nothing needs, in the index: that of a backup that never came to its end.
    let repository = open(Arc::new(scene.clone()));
    let known: Vec<ObjectKey> = scene.raw_keys();
    back_up(&repository, 9000, 9, None);
    let new = scene.raw_keys().into_iter().find(|key| key.kind == ObjectKind::Snapshot && !known.contains(key));
    scene.raw_remove(&new.expect("it was just made"));
    // Neither writes packs again, so neither waits for the other.
    let options = PruneOptions { keep_deleted: Duration::ZERO, threads: 1, rewrite: false, ..PruneOptions::default() };
    let prune = |store| prune::run(&open(store), &options, &Silent, &Stop::new()).map(drop);
    in_every_order(&scene, &prune, prune_carefully_and_undelete_it, &|store, result, said, moment| {
        result.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        let said = said.expect("it was asked");
        judge_undelete(store, name, said, moment);
    })
}

/// A mark whose packs are gone still tells of snapshots that are about to go.
#[test]
fn undelete_in_the_middle_of_a_prune_that_another_one_overtook() {
    assert!(undelete_beside_two_prunes() > 60);
}

#[test]
#[should_panic(expected = "it was said to be undeleted")]
fn marks_that_others_take_away_too_soon_are_found() {
    mistake::choose(Some(Mistake::MarksOfPacksAlone));
    // What packs hold depends on random secrets: in about one repository of six the mistake does not show.
    for _ in 0..10 {
        undelete_beside_two_prunes();
    }
}

/// A prune that was stopped in between has said nothing, and may have changed the index.
#[test]
fn a_stopped_prune_in_the_middle_of_an_undelete() {
    let (scene, name) = scene();
    let undelete = |store: Arc<dyn Store>| undelete(&open(store), name, &Silent, &Stop::new()).map(drop);
    for moment in 1.. {
        let stopped = twin(&scene);
        let faults = crate::store::Faults { crash_at: Some(moment), ..Default::default() };
        let faulty = Arc::new(crate::store::FaultyStore::new(stopped.clone(), faults));
        let result = prune_all(faulty.clone());
        if !faulty.has_crashed() {
            result.unwrap();
            break;
        }
        // A prune that ends on its own takes its marks away; one that is killed cannot.
        for takes_marks in [false, true] {
            let store = twin(&stopped);
            let marks = store.raw_keys().into_iter().filter(|key| takes_marks && key.kind == ObjectKind::Mark);
            marks.for_each(|key| drop(store.raw_remove(&key)));
            let said = undelete(Arc::new(store.clone())).map_err(|error| error.kind());
            judge_undelete(&store, name, said, &format!("stopped at write {moment}, marks taken: {takes_marks}"));
        }
    }
}

#[test]
fn pin_in_the_middle_of_forget_and_prune() {
    let (scene, name) = scene();
    let store = twin(&scene);
    undelete(&open(Arc::new(store.clone())), name, &Silent, &Stop::new()).unwrap();
    let forget_and_prune = |store: Arc<dyn Store>| {
        let oldest = open(store.clone()).snapshots()?.live[0].name;
        let forgotten = forget(&open(store.clone()), &[oldest], &mut |_| Ok(()));
        prune_all(store)?;
        forgotten
    };
    let pin_it = |store: MemoryStore, said: &Said| {
        let oldest = open(Arc::new(store.clone())).snapshots().unwrap().live[0].name;
        say(said, pin(&open(Arc::new(store)), oldest, None));
    };
    let mut pinned = 0;
    let orders = in_every_order(&store, &forget_and_prune, pin_it, &|store, result, said, moment| {
        let snapshots = open(Arc::new(store.clone())).snapshots().unwrap();
        // Once it is no longer listed another one is the oldest.
        let holds = open(Arc::new(store.clone())).holds().unwrap();
        if said == Some(Ok(())) && holds.contains(&name) {
            assert!(snapshots.live.iter().any(|named| named.name == name), "{moment}: it was said to be pinned");
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Brake, "{moment}");
        }
        is_whole(store, moment);
    });
    pinned += orders;
    assert!(pinned > 60 && forgotten(&scene) == name, "{pinned}");
}
