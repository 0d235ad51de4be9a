//! Every operation of every command is cut off at each of its writes to the store: the n-th put or delete fails, applied or
//! not, and nothing reaches the store any more. Not for: what becomes of a single write on a disk (see `power`).

use super::lab::{Acknowledged, COST, Lab, init, key, open, twin};
use firn::error::{ErrorKind, Result};
use firn::progress::{Silent, Stop};
use firn::prune::{self, Limit, PruneOptions};
use firn::repair::{RepairOptions, repair_index};
use firn::repository::Repository;
use firn::repository::rotate::Keychain;
use firn::store::{Faults, FaultyStore, MemoryStore, ObjectKey, ObjectKind, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What an operation acknowledged, if it got that far.
type Said = Option<Acknowledged>;

/// An operation on a store, with a folder for local state.
type Operation<'a> = dyn Fn(Arc<dyn Store>, &Path) -> Result<Said> + 'a;

/// Judges a store after a crash, with the local state that is left, if any, what was acknowledged, and words for the moment.
type Oracle<'a> = dyn Fn(MemoryStore, Option<&Path>, Said, &str) + 'a;

/// A repository before an operation, and what it must go on holding.
struct Scene {
    store: MemoryStore,
    acknowledged: Vec<Acknowledged>,
}

impl Scene {
    /// A repository with snapshots of these folders.
    fn with(lab: &Lab, folders: &[&str]) -> Scene {
        Scene::on(lab.repository(), lab, folders)
    }

    /// The same in packs of the usual size, so that most packs hold something of several snapshots.
    fn with_large_packs(lab: &Lab, folders: &[&str]) -> Scene {
        let store = MemoryStore::new();
        init(&store).unwrap();
        Scene::on(store, lab, folders)
    }

    fn on(store: MemoryStore, lab: &Lab, folders: &[&str]) -> Scene {
        let repository = open(Arc::new(store.clone()), &key(1), None).unwrap();
        let acknowledged = folders.iter().map(|name| lab.backup(&repository, name).unwrap()).collect();
        Scene { store, acknowledged }
    }
}

/// Runs `operation` with a crash at each of its writes and asks `oracle` after each; returns how many crashes that were.
fn crash_everywhere(lab: &Lab, name: &str, scene: &Scene, operation: &Operation<'_>, oracle: &Oracle<'_>) -> u64 {
    let mut crashes = 0;
    for applies in [false, true] {
        for moment in 1.. {
            let store = twin(&scene.store);
            let faults = Faults { crash_at: Some(moment), crash_applies: applies, ..Faults::default() };
            let faulty = Arc::new(FaultyStore::new(store.clone(), faults));
            let cache = lab.fresh("cache");
            let outcome = operation(faulty.clone(), &cache);
            let how = if applies { "applied" } else { "not applied" };
            let text = format!("{name}, write {moment} of the store, {how}");
            if !faulty.has_crashed() {
                outcome.unwrap_or_else(|error| panic!("{text}, without a crash: {}", error.chain()));
                break;
            }
            crashes += 1;
            // The one who goes on may or may not have the local state of the one who was stopped.
            let cache = (moment % 2 == 0).then_some(cache.as_path());
            oracle(store, cache, outcome.ok().flatten(), &text);
        }
    }
    println!("{name}: {crashes} crashes");
    crashes
}

/// As `crash_everywhere`, for what must leave the snapshots of the scene and be followed by work as usual.
fn leaves_all_whole(lab: &Lab, name: &str, scene: &Scene, operation: &Operation<'_>) -> u64 {
    crash_everywhere(lab, name, scene, operation, &|store, cache, said, moment| {
        let repository = open(Arc::new(store), &key(1), cache);
        let repository = repository.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        let acknowledged: Vec<_> = scene.acknowledged.iter().cloned().chain(said).collect();
        lab.is_whole(&repository, &acknowledged, moment);
    })
}

#[test]
fn init_can_be_cut_off() {
    let lab = Lab::new();
    let scene = Scene { store: MemoryStore::new(), acknowledged: Vec::new() };
    let operation = |store: Arc<dyn Store>, _: &Path| init(store.as_ref()).map(|()| None);
    let crashes = crash_everywhere(&lab, "init", &scene, &operation, &|store, _, _, moment| {
        if store.raw_keys().is_empty() {
            // As if nothing had been asked.
            init(&store).unwrap();
        }
        let mut repository = open(Arc::new(store.clone()), &key(1), None).unwrap();
        if store.raw_keys().iter().all(|key| key.kind != ObjectKind::Config) {
            // The message names the way out.
            let error = repository.check_writable().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{moment}");
            assert!(error.hint().is_some_and(|hint| hint.contains("repair index")), "{moment}: {error:?}");
        }
        // With one config of two it works, and check says what to do for the other.
        let options = RepairOptions { dry_run: false, read_all: false, keep_missing: false, threads: 2 };
        repair_index(&repository, &options, &Silent, &Stop::new()).unwrap();
        repository = open(Arc::new(store), &key(1), None).unwrap();
        lab.is_whole(&repository, &[], moment);
    });
    assert_eq!(crashes, 6);
}

#[test]
fn backups_can_be_cut_off() {
    let lab = Lab::new();
    let backup = |name: &'static str| {
        let lab = &lab;
        move |store: Arc<dyn Store>, cache: &Path| {
            let repository = open(store, &key(1), Some(cache))?;
            lab.backup(&repository, name).map(Some)
        }
    };
    let first = leaves_all_whole(&lab, "first backup", &Scene::with(&lab, &[]), &backup("a"));
    // Pin, at least four packs, index, snapshot, and the pin again.
    assert!(first >= 16, "{first}");
    let second = leaves_all_whole(&lab, "second backup", &Scene::with(&lab, &["a"]), &backup("b"));
    assert!(second >= 12, "{second}");
    let nothing_new = leaves_all_whole(&lab, "backup of what is known", &Scene::with(&lab, &["a", "b"]), &backup("b"));
    assert!(nothing_new >= 6, "{nothing_new}");
    // Cut off in turn: whoever goes on has the leavings of others in the way.
    let scene = Scene::with(&lab, &["a"]);
    let third = leaves_all_whole(&lab, "backup after one that was cut off", &scene, &|store, cache| {
        for stop in 2..5 {
            let faults = Faults { crash_at: Some(stop), crash_applies: stop % 2 == 1, ..Faults::default() };
            let repository = open(Arc::new(FaultyStore::new(store.clone(), faults)), &key(1), Some(cache))?;
            assert!(lab.backup(&repository, "c").is_err());
        }
        lab.backup(&open(store, &key(1), Some(cache))?, "c").map(Some)
    });
    assert!(third >= 20, "{third}");
}

#[test]
fn changes_of_keys_can_be_cut_off() {
    let lab = Lab::new();
    let scene = Scene::with(&lab, &["a"]);
    let crashes = leaves_all_whole(&lab, "key add", &scene, &|store, cache| {
        open(store, &key(1), Some(cache))?.add_key(&key(2), COST, "second").map(|_| None)
    });
    // A temporary slot comes first and goes last.
    assert_eq!(crashes, 6);
    // As the command does it: at no moment is there no key.
    let passwd = |store: Arc<dyn Store>, cache: &Path| {
        let repository = open(store, &key(1), Some(cache))?;
        repository.add_key(&key(2), COST, "")?;
        repository.remove_key(repository.slot()).map(|()| None)
    };
    let crashes = crash_everywhere(&lab, "key passwd", &scene, &passwd, &|store, _, _, moment| {
        let repository = opens(&store, 2).or_else(|_| opens(&store, 1));
        let repository = repository.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        lab.is_whole(&repository, &scene.acknowledged, moment);
    });
    assert_eq!(crashes, 12);
    let two = Scene::with(&lab, &["a"]);
    opens(&two.store, 1).unwrap().add_key(&key(2), COST, "").unwrap();
    let crashes = leaves_all_whole(&lab, "key remove", &two, &|store, cache| {
        let other = open(store.clone(), &key(2), Some(cache))?.slot();
        open(store, &key(1), Some(cache))?.remove_key(other).map(|()| None)
    });
    assert_eq!(crashes, 6);
}

#[test]
fn rotations_can_be_cut_off() {
    let lab = Lab::new();
    let scene = Scene::with(&lab, &["a", "b"]);
    opens(&scene.store, 1).unwrap().add_key(&key(2), COST, "second").unwrap();
    opens(&scene.store, 1).unwrap().add_key(&key(3), COST, "third").unwrap();
    // The second key is replaced as well, the third one goes.
    let rotate = |store: Arc<dyn Store>, cache: &Path| {
        let repository = open(store, &key(1), Some(cache))?;
        let mut keychain = Keychain::new(&key(1));
        keychain.add_key_file(key(2).key_file.unwrap(), "the second".into());
        repository.rotate(&keychain, true).map(|_| None)
    };
    let newest = |store: &MemoryStore, number| opens(store, number).unwrap().keyring().newest_epoch();
    let crashes = crash_everywhere(&lab, "key rotate", &scene, &rotate, &|store, cache, _, moment| {
        // Whoever had a key has one, and whoever could not write to the new epoch still can to the old one.
        for number in [1, 2] {
            let repository = opens(&store, number).unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
            repository.check_epochs().unwrap();
        }
        let repository = open(Arc::new(store.clone()), &key(1), cache).unwrap();
        lab.is_whole(&repository, &scene.acknowledged, moment);
        // Somebody may still be at work; after a while it is clear that nobody is.
        for key in store.raw_keys().iter().filter(|key| key.kind == ObjectKind::Key) {
            store.raw_set_time(key, std::time::SystemTime::UNIX_EPOCH);
        }
        // Done once more, it leaves one key a person, and all is written under a newer epoch.
        rotate(Arc::new(store.clone()), &lab.path("cache"))
            .unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        let kept = opens(&store, 1).unwrap().key_slots().unwrap();
        assert_eq!(kept.len(), 2, "{moment}");
        assert!(newest(&store, 1) == newest(&store, 2) && newest(&store, 1) >= 1, "{moment}");
        assert!(opens(&store, 3).is_err(), "{moment}");
        lab.is_whole(&opens(&store, 2).unwrap(), &scene.acknowledged, moment);
    });
    // Two slots are put and three are removed, and two temporary ones come and go.
    assert_eq!(crashes, 18);
}

#[test]
fn writing_again_under_a_new_epoch_can_be_cut_off() {
    let lab = Lab::new();
    let scene = Scene::with(&lab, &["a", "b", "c"]);
    opens(&scene.store, 1).unwrap().rotate(&Keychain::new(&key(1)), false).unwrap();
    let re_encrypt = |store: Arc<dyn Store>, cache: &Path| {
        let repository = open(store, &key(1), Some(cache))?;
        let options = PruneOptions {
            rewrite_epochs_below: Some(repository.keyring().newest_epoch()),
            max_unused: Limit::Unlimited,
            max_rewrite: Limit::Bytes(0),
            revoke_after: Duration::ZERO,
            ..PruneOptions::default()
        };
        prune::run(&repository, &options, &Silent, &Stop::new())?;
        assert_eq!(repository.older_epochs()?, (0, 0));
        Ok(None)
    };
    let crashes = crash_everywhere(&lab, "key re-encrypt", &scene, &re_encrypt, &|store, cache, _, moment| {
        let repository = open(Arc::new(store.clone()), &key(1), cache).unwrap();
        lab.is_clean(&repository, firn::check::Severity::Note, moment);
        scene.acknowledged.iter().for_each(|one| lab.restores(&repository, one, moment));
        re_encrypt(Arc::new(store.clone()), &lab.path("cache"))
            .unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        assert!(epochs(&store).iter().all(|epoch| *epoch == 1), "{moment}: {:?}", epochs(&store));
        // What is known is not stored again.
        let packs = epochs(&store).len();
        let repository = open(Arc::new(store.clone()), &key(1), cache).unwrap();
        lab.backup(&repository, "c").unwrap();
        assert_eq!(epochs(&store).len(), packs, "{moment}");
        lab.is_whole(&repository, &scene.acknowledged, moment);
    });
    assert!(crashes >= 20, "{crashes}");
}

fn opens(store: &MemoryStore, number: u8) -> Result<Arc<Repository>> {
    open(Arc::new(store.clone()), &key(number), None)
}

/// The epochs that the headers of data packs state.
fn epochs(store: &MemoryStore) -> Vec<u16> {
    let data = store.raw_keys().into_iter().filter(|key| key.kind == ObjectKind::Data);
    data.map(|key| u16::from_le_bytes(store.raw_get(&key).unwrap()[10..12].try_into().unwrap())).collect()
}

#[test]
fn repair_index_can_be_cut_off() {
    let lab = Lab::new();
    let options = RepairOptions { dry_run: false, read_all: false, keep_missing: false, threads: 2 };
    let operation = |options: RepairOptions| {
        move |store: Arc<dyn Store>, cache: &Path| {
            let repository = open(store, &key(1), Some(cache))?;
            repair_index(&repository, &options, &Silent, &Stop::new()).map(|_| None)
        }
    };
    // A healthy one is written anew: its old segments go one by one, and nothing is ever missing.
    let scene = Scene::with(&lab, &["a", "b"]);
    let all = RepairOptions { read_all: true, ..options };
    let crashes = leaves_all_whole(&lab, "repair index --read-all", &scene, &operation(all));
    assert!(crashes >= 10, "{crashes}");
    // One that lacks its index and its config is no worse afterwards; once more, and it is whole.
    let scene = Scene::with(&lab, &["a", "b"]);
    let lost = |key: &&ObjectKey| matches!(key.kind, ObjectKind::Index | ObjectKind::Config);
    scene.store.raw_keys().iter().filter(lost).for_each(|key| drop(scene.store.raw_remove(key)));
    let crashes = crash_everywhere(&lab, "repair index", &scene, &operation(options), &|store, cache, _, moment| {
        let repair = operation(options);
        repair(Arc::new(store.clone()), &lab.path("cache"))
            .unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        let repository = open(Arc::new(store), &key(1), cache).unwrap();
        lab.is_whole(&repository, &scene.acknowledged, moment);
    });
    assert!(crashes >= 10, "{crashes}");
}

/// Deletes what was forgotten a moment ago, packs everything anew, and revokes whoever was stopped.
fn thorough() -> PruneOptions {
    PruneOptions {
        keep_deleted: Duration::ZERO,
        revoke_after: Duration::ZERO,
        max_unused: Limit::Bytes(0),
        max_rewrite: Limit::Unlimited,
        ..PruneOptions::default()
    }
}

#[test]
fn forgetting_and_pruning_can_be_cut_off() {
    let lab = Lab::new();
    let small = Scene::with(&lab, &["a", "b", "c"]);
    let scene = &small;
    let [first, second, third] = [0, 1, 2].map(|number: usize| scene.acknowledged[number].clone());
    let forget =
        |store: Arc<dyn Store>, cache: &Path| open(store, &key(1), Some(cache))?.put_tomb(first.name).map(|()| None);
    // A snapshot is forgotten or it is not.
    let crashes = crash_everywhere(&lab, "forget", scene, &forget, &|store, cache, _, moment| {
        let repository = open(Arc::new(store), &key(1), cache).unwrap();
        lab.is_whole(&repository, &[second.clone(), third.clone()], moment);
        let snapshots = repository.snapshots().unwrap();
        assert_eq!(snapshots.live.len() + snapshots.forgotten.len(), 4, "{moment}");
    });
    assert_eq!(crashes, 2);
    for name in [first.name, second.name] {
        open(Arc::new(scene.store.clone()), &key(1), None).unwrap().put_tomb(name).unwrap();
    }
    let large = Scene::with_large_packs(&lab, &["a", "b", "c"]);
    for one in &large.acknowledged[..2] {
        open(Arc::new(large.store.clone()), &key(1), None).unwrap().put_tomb(one.name).unwrap();
    }
    let sparing = PruneOptions { rewrite: false, ..thorough() };
    for (name, scene, options, least) in [
        ("prune of small packs", scene, thorough(), 20),
        ("prune", &large, thorough(), 20),
        ("prune --no-repack", &large, sparing, 10),
    ] {
        let third = &scene.acknowledged[2];
        let prune = |store: Arc<dyn Store>, cache: &Path| {
            let repository = open(store, &key(1), Some(cache))?;
            prune::run(&repository, &options, &Silent, &Stop::new()).map(|_| None)
        };
        let crashes = crash_everywhere(&lab, name, scene, &prune, &|store, cache, _, moment| {
            let repository = open(Arc::new(store.clone()), &key(1), cache);
            let repository = repository.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
            lab.is_clean(&repository, firn::check::Severity::Note, moment);
            // The next prune ends what this one began, and leaves nothing of it.
            let report = prune::run(&repository, &thorough(), &Silent, &Stop::new());
            let report = report.unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
            assert_eq!(report.unused, 0, "{moment}");
            let left = |key: &ObjectKey| matches!(key.kind, ObjectKind::Mark | ObjectKind::Pin);
            let left: Vec<_> = store.raw_keys().into_iter().filter(|key| left(key)).collect();
            assert!(left.is_empty(), "{moment}: {left:?}");
            lab.is_whole(&repository, std::slice::from_ref(third), moment);
            let report = prune::run(&repository, &thorough(), &Silent, &Stop::new()).unwrap();
            assert_eq!(report.orphans.packs, 0, "{moment}");
        });
        assert!(crashes >= least, "{name}: {crashes}");
    }
}
