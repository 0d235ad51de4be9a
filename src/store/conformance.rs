//! The contract of `Store` as tests that every implementation must pass. Not for: what one place alone promises.

use super::{Listed, ObjectKey, ObjectKind, Store};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Runs the whole suite; `make` gives a new, empty store each time.
pub(crate) fn check(make: &dyn Fn() -> Box<dyn Store>) {
    round_trip_of_all_kinds(&*make());
    nothing_is_replaced(&*make());
    missing_objects(&*make());
    limits(&*make());
    ranges(&*make());
    empty_objects(&*make());
    large_objects(&*make());
    listings(&*make());
    listing_ends_with_the_visitors_error(&*make());
    visitors_may_use_the_store(&*make());
    deletions(&*make());
    bad_names(&*make());
    one_of_many_puts_wins(&*make());
    many_threads(&*make());
    pointers(make());
}

/// The `number`-th name of `kind`, spread over the fan-out folders.
pub(crate) fn key(kind: ObjectKind, number: u64) -> ObjectKey {
    let hash = blake3::hash(&number.to_le_bytes()).to_hex();
    match kind {
        ObjectKind::Config => ObjectKey::new(kind, number + 1),
        ObjectKind::Pin | ObjectKind::Revoke => ObjectKey::new(kind, &hash[..32]),
        ObjectKind::Mark => ObjectKey::new(kind, format!("{}-{}", &hash[..32], number + 1)),
        _ => ObjectKey::new(kind, hash),
    }
}

fn kind_of<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// The listing by name; a name listed twice is a failure. Nobody else may be at work, so that a fresh one shows the same.
pub(crate) fn listing(store: &dyn Store, kind: ObjectKind) -> BTreeMap<String, Listed> {
    let [all, fresh] = [false, true].map(|is_fresh| listing_as(store, kind, is_fresh));
    assert_eq!(all, fresh);
    all
}

fn listing_as(store: &dyn Store, kind: ObjectKind, is_fresh: bool) -> BTreeMap<String, Listed> {
    let mut all = BTreeMap::new();
    let mut visit = |entry: Listed| {
        assert!(kind.accepts(&entry.name), "{}", entry.name);
        assert!(all.insert(entry.name.clone(), entry).is_none(), "listed twice");
        Ok(())
    };
    let listed = if is_fresh { store.list_fresh(kind, &mut visit) } else { store.list(kind, &mut visit) };
    listed.unwrap();
    all
}

fn round_trip_of_all_kinds(store: &dyn Store) {
    for kind in ObjectKind::ALL {
        for number in 0..3 {
            store.put(&key(kind, number), format!("{kind:?} {number}").as_bytes()).unwrap();
        }
    }
    for kind in ObjectKind::ALL {
        for number in 0..3 {
            let expected = format!("{kind:?} {number}").into_bytes();
            assert_eq!(store.get(&key(kind, number), 100).unwrap(), expected);
            assert_eq!(store.size(&key(kind, number)).unwrap(), expected.len() as u64);
        }
        assert_eq!(listing(store, kind).len(), 3);
    }
    assert!(!store.properties().location.is_empty());
    store.prepare(&[key(ObjectKind::Data, 0)]).unwrap();
}

fn nothing_is_replaced(store: &dyn Store) {
    for kind in ObjectKind::ALL {
        let key = key(kind, 0);
        store.put(&key, b"first").unwrap();
        assert_eq!(kind_of(store.put(&key, b"second, longer")), ErrorKind::Exists);
        assert_eq!(kind_of(store.put(&key, b"first")), ErrorKind::Exists);
        assert_eq!(kind_of(store.put(&key, b"")), ErrorKind::Exists);
        assert_eq!(store.get(&key, 100).unwrap(), b"first");
    }
}

fn missing_objects(store: &dyn Store) {
    for kind in ObjectKind::ALL {
        let key = key(kind, 0);
        assert_eq!(kind_of(store.get(&key, 100)), ErrorKind::NotFound);
        assert_eq!(kind_of(store.get_range(&key, 0, &mut [0])), ErrorKind::NotFound);
        assert_eq!(kind_of(store.get_range(&key, 0, &mut [])), ErrorKind::NotFound);
        assert_eq!(kind_of(store.size(&key)), ErrorKind::NotFound);
        let message = store.size(&key).unwrap_err().to_string();
        assert!(message.contains(&format!("\"{key}\"")), "{message}");
    }
}

fn limits(store: &dyn Store) {
    let key = key(ObjectKind::Index, 0);
    store.put(&key, &[7; 100]).unwrap();
    assert_eq!(store.get(&key, 100).unwrap(), [7; 100]);
    assert_eq!(store.get(&key, u64::MAX).unwrap(), [7; 100]);
    assert_eq!(kind_of(store.get(&key, 99)), ErrorKind::Damaged);
    assert_eq!(kind_of(store.get(&key, 0)), ErrorKind::Damaged);
}

fn ranges(store: &dyn Store) {
    let key = key(ObjectKind::Data, 0);
    let bytes: Vec<u8> = (0..=255).collect();
    store.put(&key, &bytes).unwrap();
    for (offset, length) in [(0, 256), (0, 1), (255, 1), (100, 50), (0, 0), (256, 0), (3, 253)] {
        let mut buffer = vec![0xee; length];
        store.get_range(&key, offset as u64, &mut buffer).unwrap();
        assert_eq!(buffer, bytes[offset..offset + length]);
    }
    let past = [(0, 257), (256, 1), (257, 0), (255, 2), (1 << 40, 1), (i64::MAX as u64, 1), (u64::MAX, 1)];
    for (offset, length) in past {
        let result = store.get_range(&key, offset, &mut vec![0; length]);
        assert_eq!(kind_of(result), ErrorKind::Damaged, "{offset} {length}");
    }
}

fn empty_objects(store: &dyn Store) {
    for kind in ObjectKind::ALL {
        let key = key(kind, 0);
        store.put(&key, b"").unwrap();
        assert_eq!(store.get(&key, 0).unwrap(), b"");
        assert_eq!(store.size(&key).unwrap(), 0);
        store.get_range(&key, 0, &mut []).unwrap();
        assert_eq!(kind_of(store.get_range(&key, 0, &mut [0])), ErrorKind::Damaged);
        assert_eq!(kind_of(store.put(&key, b"x")), ErrorKind::Exists);
        assert_eq!(listing(store, kind)[&key.name].size, 0);
    }
}

fn large_objects(store: &dyn Store) {
    let key = key(ObjectKind::Data, 0);
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
    store.put(&key, &bytes).unwrap();
    assert!(store.get(&key, 1 << 30).unwrap() == bytes);
    let mut buffer = vec![0; 1_000_000];
    store.get_range(&key, 2_000_001, &mut buffer).unwrap();
    assert!(buffer == bytes[2_000_001..]);
}

fn listings(store: &dyn Store) {
    let before = SystemTime::now() - Duration::from_secs(5);
    for kind in ObjectKind::ALL {
        assert!(listing(store, kind).is_empty());
    }
    for number in 0..60 {
        store.put(&key(ObjectKind::Tree, number), &vec![1; number as usize]).unwrap();
    }
    let all = listing(store, ObjectKind::Tree);
    assert_eq!(all.len(), 60);
    let after = SystemTime::now() + Duration::from_secs(5);
    for number in 0..60 {
        let entry = &all[&key(ObjectKind::Tree, number).name];
        assert_eq!(entry.size, number);
        assert!(before <= entry.stored && entry.stored <= after);
    }
    assert!(listing(store, ObjectKind::Data).is_empty());
}

fn listing_ends_with_the_visitors_error(store: &dyn Store) {
    for number in 0..5 {
        store.put(&key(ObjectKind::Data, number), b"x").unwrap();
    }
    let mut calls = 0;
    let result = store.list(ObjectKind::Data, &mut |_| {
        calls += 1;
        if calls == 2 { Err(Error::new(ErrorKind::Interrupted, "enough")) } else { Ok(()) }
    });
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str(), calls), (ErrorKind::Interrupted, "enough", 2));
}

fn visitors_may_use_the_store(store: &dyn Store) {
    for number in 0..20 {
        store.put(&key(ObjectKind::Index, number), b"x").unwrap();
    }
    let mut visited = 0;
    store
        .list(ObjectKind::Index, &mut |entry| {
            visited += 1;
            let key = ObjectKey::new(ObjectKind::Index, entry.name);
            store.get(&key, 1)?;
            store.delete(&key)
        })
        .unwrap();
    assert_eq!(visited, 20);
    assert!(listing(store, ObjectKind::Index).is_empty());
}

fn deletions(store: &dyn Store) {
    for kind in ObjectKind::ALL {
        let (gone, stays) = (key(kind, 0), key(kind, 1));
        store.delete(&gone).unwrap();
        store.put(&gone, b"gone").unwrap();
        store.put(&stays, b"stays").unwrap();
        store.get_range(&gone, 0, &mut [0; 4]).unwrap();
        store.delete(&gone).unwrap();
        assert_eq!(kind_of(store.get(&gone, 100)), ErrorKind::NotFound);
        assert_eq!(kind_of(store.get_range(&gone, 0, &mut [0; 4])), ErrorKind::NotFound);
        assert_eq!(kind_of(store.size(&gone)), ErrorKind::NotFound);
        store.delete(&gone).unwrap();
        assert_eq!(store.get(&stays, 100).unwrap(), b"stays");
        assert_eq!(listing(store, kind).into_keys().collect::<Vec<_>>(), [stays.name]);
    }
}

fn bad_names(store: &dyn Store) {
    let long = "a".repeat(63);
    let names = ["", "a", "é", "..", "../x", "a/b", ".", "nul\0", long.as_str(), &format!(".{long}")];
    for kind in ObjectKind::ALL {
        for name in names {
            // Made by hand: not even the key's path may be asked for.
            let key = ObjectKey { kind, name: name.to_owned() };
            assert!(matches!(kind_of(store.put(&key, b"x")), ErrorKind::Input), "{name:?}");
            assert!(matches!(kind_of(store.get(&key, 9)), ErrorKind::Input), "{name:?}");
            assert!(matches!(kind_of(store.get_range(&key, 0, &mut [0])), ErrorKind::Input), "{name:?}");
            assert!(matches!(kind_of(store.size(&key)), ErrorKind::Input), "{name:?}");
            assert!(matches!(kind_of(store.delete(&key)), ErrorKind::Input), "{name:?}");
        }
    }
}

fn one_of_many_puts_wins(store: &dyn Store) {
    for round in 0..8 {
        let key = key(ObjectKind::Mark, round);
        let barrier = std::sync::Barrier::new(8);
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let (key, barrier) = (&key, &barrier);
            let put = |thread: u8| {
                barrier.wait();
                store.put(key, &vec![thread; 5000 + usize::from(thread)])
            };
            let threads: Vec<_> = (0..8_u8).map(|thread| scope.spawn(move || put(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..8).filter(|thread| results[*thread].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(results.into_iter().all(|result| result.is_ok() || kind_of(result) == ErrorKind::Exists));
        assert_eq!(store.get(&key, 10_000).unwrap(), vec![winners[0] as u8; 5000 + winners[0]]);
    }
}

fn many_threads(store: &dyn Store) {
    let body = |number: u64| vec![number as u8; 100 + number as usize];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in (0..30).map(|n| n * 4 + thread) {
                    let key = key(ObjectKind::Data, number);
                    store.put(&key, &body(number)).unwrap();
                    let mut range = [0; 50];
                    store.get_range(&key, 50, &mut range).unwrap();
                    assert_eq!(range, [number as u8; 50]);
                    if number % 3 == 0 {
                        store.delete(&key).unwrap();
                        assert_eq!(kind_of(store.get_range(&key, 50, &mut range)), ErrorKind::NotFound);
                    }
                }
            });
        }
        scope.spawn(|| {
            for round in 0..6 {
                // Temporary files are no objects, and objects are whole as soon as they are seen.
                for (name, entry) in listing_as(store, ObjectKind::Data, round % 2 == 0) {
                    assert!(entry.size >= 100, "{name}");
                }
            }
        });
    });
    let left = listing(store, ObjectKind::Data);
    assert_eq!(left.len(), (0..120).filter(|number| number % 3 != 0).count());
    for number in (0..120).filter(|number| number % 3 != 0) {
        assert_eq!(store.get(&key(ObjectKind::Data, number), 1000).unwrap(), body(number));
    }
}

fn pointers(store: Box<dyn Store>) {
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::from(store);
    let key = key(ObjectKind::Key, 0);
    Store::put(&store, &key, b"x").unwrap();
    assert_eq!(Store::get(&store, &key, 1).unwrap(), b"x");
    assert_eq!(listing(&store, ObjectKind::Key).len(), 1);
}
