//! What becomes of key slots when keys are rotated. Not for: packs under several epochs (see `tests/cli`), or being cut off (see
//! `tests/crash`).

use super::*;
use crate::format::header::Kind;
use crate::id::random::seeded;
use crate::repository::unlock::unlock;
use crate::repository::{CacheChoice, OpenOptions};
use crate::store::{Layer, MemoryStore, ObjectKey, ObjectKind, Operation, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const COST: Cost = Cost { memory: 64, passes: 2, lanes: 1 };

fn file(text: &str) -> Credentials {
    Credentials { password: None, key_file: Some(Zeroizing::new(text.as_bytes().to_vec())) }
}

fn password(text: &str) -> Credentials {
    Credentials { password: Some(Zeroizing::new(text.as_bytes().to_vec())), key_file: None }
}

fn open(store: &MemoryStore, credentials: &Credentials) -> Result<Repository> {
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
    Repository::open(Arc::new(store.clone()), credentials, &options)
}

fn new_repository(credentials: &Credentials) -> MemoryStore {
    let store = MemoryStore::new();
    Repository::init(&store, credentials, COST, "mine").unwrap();
    store
}

fn slots(store: &MemoryStore) -> Vec<ObjectKey> {
    store.raw_keys().into_iter().filter(|key| key.kind == ObjectKind::Key).collect()
}

type Hook = dyn Fn(Operation, &ObjectKey) -> Result<()> + Send + Sync;

/// A store in which something happens: after what is put or deleted, before what is read.
struct Watched(MemoryStore, Box<Hook>);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl Layer for Watched {
    fn below(&self) -> &dyn Store {
        &self.0
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        self.0.put(key, bytes).and_then(|()| self.1(Operation::Put, key))
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        self.1(Operation::Get, key).and_then(|()| self.0.get(key, limit))
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.0.delete(key).and_then(|()| self.1(Operation::Delete, key))
    }
}

fn open_watched(
    store: &MemoryStore,
    credentials: &Credentials,
    hook: impl Fn(Operation, &ObjectKey) -> Result<()> + Send + Sync + 'static,
) -> Repository {
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
    Repository::open(Arc::new(Watched(store.clone(), Box::new(hook))), credentials, &options).unwrap()
}

fn broken() -> Error {
    Error::new(ErrorKind::Failed, "the disk is gone")
}

/// A rotation that removes another key, and somebody who comes while it does and does not give way, or a disk that fails. Until new
/// slots may be in use, all goes back; then the other key is gone, and that is said.
#[test]
fn keys_that_are_removed_come_back_unless_new_ones_are_in_use() {
    // A test's random numbers, so that nobody is waited for.
    seeded::set(Some(seeded::Source::new(b"removed")));
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Trouble {
        ComesAtRemoval,
        ComesAtPut,
        FailsAfterRemoval,
        FailsForGood,
    }
    use Trouble::{ComesAtPut, ComesAtRemoval, FailsAfterRemoval, FailsForGood};
    for trouble in [ComesAtRemoval, ComesAtPut, FailsAfterRemoval, FailsForGood] {
        let store = new_repository(&file("own"));
        let plain = open(&store, &file("own")).unwrap();
        let theirs = plain.add_key(&file("theirs"), COST, "").unwrap();
        let late = create_slot_beside(plain.keyring(), &file("theirs"), COST, "", Some(theirs)).unwrap();
        let (late_key, inner, before) =
            (ObjectKey::new(ObjectKind::Key, object_name(&late)), store.clone(), slots(&store));
        let (puts, key) = (AtomicUsize::new(0), late_key.clone());
        let repository = open_watched(&store, &file("own"), move |operation, at| {
            let is_removal = operation == Operation::Delete && at.name == theirs.to_string();
            let is_return = operation == Operation::Put && at.name == theirs.to_string();
            // The first one put is the temporary one.
            let is_new = operation == Operation::Put && !is_return && puts.fetch_add(1, Ordering::Relaxed) == 1;
            match trouble {
                ComesAtRemoval if is_removal => inner.raw_set(&key, late.clone()),
                ComesAtPut if is_new => inner.raw_set(&key, late.clone()),
                FailsAfterRemoval | FailsForGood if is_removal => return Err(broken()),
                FailsForGood if is_return => {
                    inner.raw_remove(at);
                    return Err(broken());
                }
                _ => {}
            }
            Ok(())
        });
        let error = repository.rotate(&Keychain::new(&file("own")), true).unwrap_err();
        let (said, there) = (error.chain(), slots(&store));
        let is_there = there.iter().any(|slot| slot.name == theirs.to_string());
        let others = there.iter().filter(|slot| **slot != late_key).cloned().collect::<Vec<_>>();
        match trouble {
            ComesAtRemoval | FailsAfterRemoval => {
                assert!(said.contains("The keys stay as they were"), "{trouble:?}: {said}");
                assert!(others == before && open(&store, &file("theirs")).is_ok(), "{trouble:?}: {said}");
            }
            ComesAtPut => assert!(!is_there && said.contains("the key slots to be removed are gone"), "{said}"),
            FailsForGood => assert!(!is_there && said.contains("could not be undone"), "{said}"),
        }
        // Whatever was left, it can be done later.
        for key in slots(&store) {
            store.raw_set_time(&key, std::time::SystemTime::UNIX_EPOCH);
        }
        let own = open(&store, &file("own")).unwrap();
        own.rotate(&Keychain::new(&file("own")), true).unwrap();
        assert_eq!(slots(&store).len(), 1, "{trouble:?}");
    }
    seeded::set(None);
}

/// A mount goes on for weeks: what could not be read once is read the next time.
#[test]
fn a_slot_that_could_not_be_read_for_a_moment_is_tried_again() {
    let store = new_repository(&file("own"));
    let fails = Arc::new(AtomicBool::new(false));
    let disk = fails.clone();
    let old = open_watched(&store, &file("own"), move |operation, _| {
        let is_hurt = operation == Operation::Get && disk.load(Ordering::Relaxed);
        if is_hurt { Err(broken()) } else { Ok(()) }
    });
    open(&store, &file("own")).unwrap().rotate(&Keychain::new(&file("own")), false).unwrap();
    let new = open(&store, &file("own")).unwrap().keyring().create(Kind::DataPack).unwrap().header;
    fails.store(true, Ordering::Relaxed);
    assert_eq!(old.keyring().open(Kind::DataPack, &new).err().unwrap().kind(), ErrorKind::WrongKey);
    fails.store(false, Ordering::Relaxed);
    assert_eq!(old.keyring().open(Kind::DataPack, &new).unwrap().epoch, 1);
}

#[test]
fn a_new_slot_takes_the_place_of_the_old_one() {
    let store = new_repository(&password("p"));
    let old = open(&store, &password("p")).unwrap();
    let rotated = old.rotate(&Keychain::new(&password("p")), false).unwrap();
    assert_eq!((rotated.epoch, &rotated.removed), (1, &vec![old.slot()]));
    let new = open(&store, &password("p")).unwrap();
    assert_eq!((new.slot(), new.keyring().newest_epoch()), (rotated.added[0], 1));
    let (before, after) = (old.keyring().secrets(), new.keyring().secrets());
    assert_eq!(after.content[..1], before.content[..]);
    assert!(after.content[1].1 != after.content[0].1 && after.metadata == before.metadata);
    // Label, needs and cost are those of the old one.
    let listed = new.key_slots().unwrap();
    let [(_, Ok(info))] = &listed[..] else { panic!("{listed:?}") };
    let description = info.description.as_ref().unwrap();
    assert_eq!((description.label.as_str(), description.epoch, info.head.key_file), ("mine", 1, false));
    let cost = info.head.password.unwrap();
    assert_eq!((cost.memory_kib, cost.passes, cost.lanes), (COST.memory, COST.passes, COST.lanes));
}

#[test]
fn other_keys_are_named_taken_along_or_removed() {
    let store = new_repository(&file("own"));
    let repository = open(&store, &file("own")).unwrap();
    let both = Credentials { password: password("p").password, ..file("theirs") };
    repository.add_key(&both, COST, "both").unwrap();
    repository.add_key(&password("q"), COST, "second").unwrap();
    repository.add_key(&file("lost"), COST, "").unwrap();
    let before = slots(&store);
    let mut keychain = Keychain::new(&file("own"));
    let error = repository.rotate(&keychain, false).unwrap_err();
    assert_eq!((error.kind(), slots(&store)), (ErrorKind::Brake, before.clone()));
    assert!(error.to_string().contains("\"both\"") && error.to_string().contains("\"second\""), "{error}");
    keychain.add_password(both.password.clone().unwrap(), "the password".into());
    keychain.add_key_file(both.key_file.clone().unwrap(), "the file".into());
    let mut useless = keychain.clone();
    useless.add_key_file(Zeroizing::new(b"x".to_vec()), "the wrong file".into());
    let error = repository.rotate(&useless, true).unwrap_err();
    assert_eq!((error.kind(), slots(&store)), (ErrorKind::WrongKey, before));
    assert!(error.to_string().contains("the wrong file"), "{error}");
    let rotated = repository.rotate(&keychain, true).unwrap();
    assert_eq!((rotated.added.len(), rotated.removed.len()), (2, 4));
    for credentials in [&file("own"), &both] {
        assert_eq!(open(&store, credentials).unwrap().keyring().newest_epoch(), 1);
    }
    for credentials in [password("p"), file("theirs"), password("q"), file("lost")] {
        assert_eq!(open(&store, &credentials).unwrap_err().kind(), ErrorKind::WrongKey);
    }
}

/// Old slots that come back, as a rotation that is cut off leaves them, or whoever holds the store and a copy.
#[test]
fn the_newer_of_two_slots_opens_and_the_older_one_goes_with_the_next_rotation() {
    let store = new_repository(&file("own"));
    let mut kept = Vec::new();
    for epoch in 1..=4 {
        kept.extend(slots(&store).into_iter().map(|key| (store.raw_get(&key).unwrap(), key)));
        let repository = open(&store, &file("own")).unwrap();
        assert_eq!(repository.rotate(&Keychain::new(&file("own")), false).unwrap().epoch, epoch);
    }
    kept.iter().for_each(|(bytes, key)| store.raw_set(key, bytes.clone()));
    assert_eq!(slots(&store).len(), 5);
    let repository = open(&store, &file("own")).unwrap();
    assert_eq!(repository.keyring().newest_epoch(), 4);
    let rotated = repository.rotate(&Keychain::new(&file("own")), false).unwrap();
    assert_eq!((rotated.epoch, rotated.added.len(), rotated.removed.len(), slots(&store).len()), (5, 1, 5, 1));
}

#[test]
fn no_key_that_holds_the_newest_epoch_alone_is_removed() {
    let store = new_repository(&file("own"));
    open(&store, &file("own")).unwrap().add_key(&file("old"), COST, "").unwrap();
    let old = open(&store, &file("old")).unwrap();
    let copy = store.raw_get(&ObjectKey::new(ObjectKind::Key, old.slot())).unwrap();
    let new = open(&store, &file("own")).unwrap().rotate(&Keychain::new(&file("own")), true).unwrap();
    store.raw_set(&ObjectKey::new(ObjectKind::Key, old.slot()), copy);
    // The other key cannot rotate: packs may be sealed this moment under an epoch that it would use once more.
    let error = old.rotate(&Keychain::new(&file("old")), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Brake, "{error}");
    assert_eq!(old.remove_key(new.added[0]).unwrap_err().kind(), ErrorKind::Brake);
    let new = open(&store, &file("own")).unwrap();
    assert_eq!(new.remove_key(new.slot()).unwrap_err().kind(), ErrorKind::Brake);
    new.remove_key(old.slot()).unwrap();
}

#[test]
fn nothing_is_changed_where_somebody_else_changes_keys() {
    let store = new_repository(&file("own"));
    let repository = open(&store, &file("own")).unwrap();
    let before = repository.key_slots().unwrap();
    repository.add_key(&file("theirs"), COST, "").unwrap();
    let there = slots(&store);
    let slot = |beside| create_slot_beside(repository.keyring(), &file("own"), COST, "", beside).unwrap();
    let change = || Change {
        temporary: vec![slot(Some(repository.slot()))],
        added: vec![slot(None)],
        removed: vec![repository.slot()],
        ..Change::default()
    };
    // The listing is not right any more.
    assert_eq!(repository.change_slots(&before, &change()).unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(slots(&store), there);
    // Somebody is at work, or was cut off a moment ago.
    let temporary = slot(Some(repository.slot()));
    let key = ObjectKey::new(ObjectKind::Key, object_name(&temporary));
    store.put(&key, &temporary).unwrap();
    let there = slots(&store);
    let refusals = [
        repository.add_key(&file("new"), COST, "").map(drop),
        repository.remove_key(open(&store, &file("theirs")).unwrap().slot()),
        repository.rotate(&Keychain::new(&file("own")), true).map(drop),
        repository.change_slots(&repository.key_slots().unwrap(), &change()),
    ];
    for refusal in refusals {
        let error = refusal.unwrap_err();
        assert_eq!((error.kind(), slots(&store)), (ErrorKind::InUse, there.clone()), "{}", error.chain());
    }
    // It is not named as the key in use, and later it does not stand in the way, and goes.
    assert_eq!(open(&store, &file("own")).unwrap().slot(), repository.slot());
    store.raw_set_time(&key, std::time::SystemTime::UNIX_EPOCH);
    repository.add_key(&file("new"), COST, "").unwrap();
    assert_eq!(slots(&store).len(), 3);
    assert!(store.raw_get(&key).is_none() && unlock(&store, &file("new")).is_ok());
}

/// Two rotations of a program that does not look for others: each has put a secret of its own under one epoch.
#[test]
fn several_secrets_of_one_epoch_open_what_each_has_sealed() {
    let store = new_repository(&file("own"));
    let old = open(&store, &file("own")).unwrap();
    let mut headers = vec![old.keyring().create(Kind::DataPack).unwrap().header];
    let mut twins = Vec::new();
    for _ in 0..2 {
        let mut secrets = Secrets::clone(&old.keyring().secrets());
        secrets.content.push((1, *Secret::random().unwrap().bytes()));
        let keyring = Keyring::new(secrets);
        headers.push(keyring.create(Kind::DataPack).unwrap().header);
        twins.push(create_slot(&keyring, &file("own"), COST, "").unwrap());
    }
    for bytes in &twins {
        store.put(&ObjectKey::new(ObjectKind::Key, object_name(bytes)), bytes).unwrap();
    }
    let opens_all = |credentials: &Credentials| {
        let repository = open(&store, credentials).unwrap();
        headers.iter().all(|header| repository.keyring().open(Kind::DataPack, header).is_ok())
    };
    assert!(opens_all(&file("own")));
    // The repository that was opened before finds them with the credentials that it has kept.
    assert!(headers.iter().all(|header| old.keyring().open(Kind::DataPack, header).is_ok()));
    // Neither of them goes without a word, and a new key takes all of them along.
    for bytes in &twins {
        let error = old.remove_key(object_name(bytes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Brake, "{error}");
    }
    old.add_key(&file("new"), COST, "").unwrap();
    assert!(opens_all(&file("new")));
    let mut keychain = Keychain::new(&file("own"));
    keychain.add_key_file(file("new").key_file.unwrap(), "new".into());
    assert_eq!(old.rotate(&keychain, false).unwrap().epoch, 2);
    assert!(opens_all(&file("own")) && opens_all(&file("new")) && slots(&store).len() == 2);
}

/// Whoever holds one of two secrets of an epoch neither calls damaged what the other one sealed, nor writes or removes.
#[test]
fn what_another_secret_of_the_epoch_sealed_is_not_damaged() {
    let store = new_repository(&file("own"));
    let old = open(&store, &file("own")).unwrap();
    let mut headers = Vec::new();
    for text in ["one", "two"] {
        let mut secrets = Secrets::clone(&old.keyring().secrets());
        secrets.content.push((1, *Secret::random().unwrap().bytes()));
        let keyring = Keyring::new(secrets);
        headers.push(keyring.create(Kind::DataPack).unwrap().header);
        let bytes = create_slot(&keyring, &file(text), COST, "").unwrap();
        store.put(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), &bytes).unwrap();
    }
    let one = open(&store, &file("one")).unwrap();
    assert!(one.keyring().open(Kind::DataPack, &headers[0]).is_ok() && !one.keyring().has_epoch(1));
    assert_eq!(one.keyring().open(Kind::DataPack, &headers[1]).err().unwrap().kind(), ErrorKind::WrongKey);
    let two = open(&store, &file("two")).unwrap();
    for refused in [
        one.add_key(&file("new"), COST, "").map(drop),
        one.remove_key(two.slot()),
        one.rotate(&Keychain::new(&file("one")), true).map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Brake);
    }
}

#[test]
fn a_slot_has_room_for_so_many_epochs() {
    let store = new_repository(&file("own"));
    let full = |count: u16| {
        let repository = open(&store, &file("own")).unwrap();
        let mut secrets = Secrets::clone(&repository.keyring().secrets());
        secrets.content = (0..count).map(|epoch| (epoch, [epoch as u8; 32])).collect();
        let bytes = create_slot(&Keyring::new(secrets), &file("own"), COST, "").unwrap();
        slots(&store).iter().for_each(|key| drop(store.raw_remove(key)));
        store.put(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), &bytes).unwrap();
        open(&store, &file("own")).unwrap().rotate(&Keychain::new(&file("own")), false)
    };
    assert_eq!(full(MAX_EPOCHS as u16 - 1).unwrap().epoch, 63);
    let error = full(MAX_EPOCHS as u16).unwrap_err();
    assert_eq!((error.kind(), slots(&store).len()), (ErrorKind::Input, 1));
}
