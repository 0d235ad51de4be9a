//! What a local folder promises beyond the contract of all stores. Not for: that contract (see `conformance`).

use super::*;
use crate::store::conformance::{check, key, listing};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn new_store() -> (tempfile::TempDir, PathBuf, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let store = LocalStore::create(&path).unwrap();
    (dir, path, store)
}

/// All files below a folder, by their path in it.
fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}

fn set_age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let number = Cell::new(0);
    check(&|| {
        number.set(number.get() + 1);
        Box::new(LocalStore::create(&dir.path().join(number.get().to_string())).unwrap())
    });
    for file in files_below(dir.path()) {
        assert!(!file.contains("/."), "{file}");
    }
}

#[test]
fn create_makes_private_folders_and_open_finds_them() {
    let (_dir, path, store) = new_store();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for kind in ObjectKind::ALL {
        assert_eq!(mode(&path.join(kind.folder())), 0o700);
        let below = fs::read_dir(path.join(kind.folder())).unwrap().count();
        assert_eq!(below, if kind.is_fanned_out() { 256 } else { 0 });
    }
    assert_eq!(mode(&path), 0o700);
    let object = key(ObjectKind::Data, 0);
    store.put(&object, b"x").unwrap();
    assert_eq!(mode(&path.join(object.path())), 0o600);
    let other = LocalStore::open(&path).unwrap();
    assert_eq!(other.get(&object, 1).unwrap(), b"x");
    let properties = other.properties();
    assert_eq!(properties.location, path.display().to_string());
    assert_eq!(properties.folder, Some(fs::canonicalize(&path).unwrap()));
}

#[test]
fn create_takes_only_vacant_places() {
    let (dir, path, store) = new_store();
    let kind_at = |path: &Path| LocalStore::create(path).unwrap_err().kind();
    // Nothing was put yet: a second attempt after an interruption.
    fs::remove_dir(path.join("config")).unwrap();
    fs::remove_dir(path.join("tree/77")).unwrap();
    LocalStore::create(&path).unwrap();
    assert!(path.join("tree/77").is_dir() && path.join("config").is_dir());
    // Nor was it if the power failed in the middle of the first `put`.
    fs::write(path.join("keys").join(temp_name().unwrap()), b"").unwrap();
    LocalStore::create(&path).unwrap();
    fs::write(path.join("keys/.firn-short.tmp"), b"").unwrap();
    assert_eq!(kind_at(&path), ErrorKind::Exists);
    fs::remove_file(path.join("keys/.firn-short.tmp")).unwrap();
    store.put(&key(ObjectKind::Key, 0), b"x").unwrap();
    assert_eq!(kind_at(&path), ErrorKind::Exists);
    store.delete(&key(ObjectKind::Key, 0)).unwrap();
    store.put(&key(ObjectKind::Data, 0), b"x").unwrap();
    assert_eq!(kind_at(&path), ErrorKind::Exists);

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    LocalStore::create(&empty).unwrap();
    let full = dir.path().join("full");
    fs::create_dir_all(full.join("photos")).unwrap();
    assert_eq!(kind_at(&full), ErrorKind::Input);
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    assert_eq!(kind_at(&file), ErrorKind::Input);
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    assert_eq!(kind_at(&dir.path().join("dangling")), ErrorKind::Input);
    let error = LocalStore::create(&dir.path().join("absent/repo")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.hint().is_some());
    assert!(!dir.path().join("absent").exists());
}

#[test]
fn open_says_what_is_not_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    let absent = LocalStore::open(&dir.path().join("absent")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NoRepository);
    assert!(absent.to_string().starts_with("There is no repository at \""), "{absent}");
    let folder = LocalStore::open(dir.path()).unwrap_err();
    assert_eq!(folder.kind(), ErrorKind::NoRepository);
    assert!(folder.to_string().contains("not a firn repository") && folder.hint().is_some());
    fs::write(dir.path().join("file"), b"").unwrap();
    assert_eq!(LocalStore::open(&dir.path().join("file")).unwrap_err().kind(), ErrorKind::NoRepository);
}

#[test]
fn stray_things_are_not_listed() {
    let (_dir, path, store) = new_store();
    let object = key(ObjectKind::Data, 0);
    store.put(&object, b"x").unwrap();
    store.put(&key(ObjectKind::Snapshot, 0), b"x").unwrap();
    let fan = path.join("data").join(&object.name[..2]);
    let same_folder = |rest: &str| format!("{}{}", &object.name[..2], rest.repeat(62));
    fs::write(fan.join("notes.txt"), b"x").unwrap();
    fs::write(fan.join(temp_name().unwrap()), b"x").unwrap();
    fs::write(fan.join(format!("{}.bak", object.name)), b"x").unwrap();
    fs::write(path.join("data").join(&object.name), b"x").unwrap();
    let wrong = if object.name.starts_with("00") { "01" } else { "00" };
    fs::write(path.join("data").join(wrong).join(&object.name), b"x").unwrap();
    fs::create_dir(fan.join(same_folder("d"))).unwrap();
    symlink(fan.join(&object.name), fan.join(same_folder("e"))).unwrap();
    fs::create_dir(path.join("data/x1")).unwrap();
    fs::create_dir(path.join("x")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, fan.join(same_folder("f")), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    fs::write(path.join("snapshots").join("README"), b"x").unwrap();

    let names: Vec<String> = listing(&store, ObjectKind::Data).into_keys().collect();
    assert_eq!(names.join(" "), object.name);
    assert_eq!(listing(&store, ObjectKind::Snapshot).len(), 1);
    for rest in ["d", "e", "f"] {
        let stray = ObjectKey::new(ObjectKind::Data, same_folder(rest));
        assert_eq!(store.get(&stray, 10).unwrap_err().kind(), ErrorKind::NotFound, "{rest}");
        assert_eq!(store.get_range(&stray, 0, &mut [0]).unwrap_err().kind(), ErrorKind::NotFound, "{rest}");
        assert_eq!(store.size(&stray).unwrap_err().kind(), ErrorKind::NotFound, "{rest}");
        assert_eq!(store.put(&stray, b"y").unwrap_err().kind(), ErrorKind::Exists, "{rest}");
    }
    assert_eq!(fs::read(fan.join(&object.name)).unwrap(), b"x");
}

#[test]
fn a_failed_put_leaves_no_temporary_file() {
    let (_dir, path, store) = new_store();
    let object = key(ObjectKind::Snapshot, 0);
    fs::create_dir(path.join(object.path())).unwrap();
    assert_eq!(store.put(&object, b"x").unwrap_err().kind(), ErrorKind::Exists);
    fs::remove_dir(path.join(object.path())).unwrap();
    assert!(files_below(&path).is_empty());
    // A kind's folder that cannot be one.
    fs::remove_dir(path.join("pins")).unwrap();
    fs::write(path.join("pins"), b"").unwrap();
    assert_eq!(store.put(&key(ObjectKind::Pin, 0), b"x").unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!(files_below(&path), ["pins"]);
}

#[test]
fn errors_of_a_put_have_the_kind_that_callers_act_on() {
    // What a write to a full disk returns.
    let (_dir, _path, store) = new_store();
    let object = key(ObjectKind::Data, 0);
    let error = File::options().write(true).open("/dev/full").unwrap().write_all(b"x").unwrap_err();
    let error = store.put_failed(&object, "write", error);
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains(&store.location), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    for errno in [Errno::NOENT, Errno::EXIST, Errno::IO] {
        assert_eq!(store.put_failed(&object, "write", errno).kind(), ErrorKind::Failed);
    }
}

#[test]
fn names_are_never_replaced_also_by_links() {
    let (_dir, path, store) = new_store();
    let folder = store.open_folder("index").unwrap().unwrap();
    fs::write(path.join("index/temp"), b"new").unwrap();
    fs::write(path.join("index/taken"), b"old").unwrap();
    for rename in [name_without_replacing, link_without_replacing] {
        assert_eq!(rename(&folder, "temp", "taken"), Err(Errno::EXIST));
        assert_eq!(fs::read(path.join("index/taken")).unwrap(), b"old");
        assert_eq!(fs::read(path.join("index/temp")).unwrap(), b"new");
        rename(&folder, "temp", "free").unwrap();
        assert!(!path.join("index/temp").exists());
        fs::rename(path.join("index/free"), path.join("index/temp")).unwrap();
    }
    // The link of a request whose answer was lost.
    fs::hard_link(path.join("index/temp"), path.join("index/ours")).unwrap();
    link_without_replacing(&folder, "temp", "ours").unwrap();
    assert!(!path.join("index/temp").exists());
    assert_eq!(fs::read(path.join("index/ours")).unwrap(), b"new");
}

#[test]
fn only_old_temporary_files_of_our_own_are_removed() {
    let (_dir, path, store) = new_store();
    let day = Duration::from_secs(86_400);
    let object = key(ObjectKind::Tree, 0);
    store.put(&object, b"x").unwrap();
    set_age(&path.join(object.path()), 2 * day);
    let (old, young) = (temp_name().unwrap(), temp_name().unwrap());
    for folder in ["data/0f", "tree", "pins"] {
        for name in [&old, &young, ".firn-short.tmp", ".hidden", ".nfs0001"] {
            fs::write(path.join(folder).join(name), b"x").unwrap();
            set_age(&path.join(folder).join(name), if *name == young { day / 2 } else { 2 * day });
        }
    }
    symlink("/etc/hostname", path.join("marks").join(&old)).unwrap();
    let before = files_below(&path).len();
    assert_eq!(store.tidy(day).unwrap(), 3);
    assert_eq!(store.tidy(day).unwrap(), 0);
    assert_eq!(store.tidy(Duration::MAX).unwrap(), 0);
    assert_eq!(files_below(&path).len(), before - 3);
    assert!(path.join("data/0f").join(&young).exists() && !path.join("data/0f").join(&old).exists());
    assert!(path.join(object.path()).exists());
}

#[test]
fn folders_tidied_away_come_back() {
    let (_dir, path, store) = new_store();
    fs::remove_dir_all(path.join("data")).unwrap();
    fs::remove_dir(path.join("pins")).unwrap();
    let store = LocalStore::open(&path).map(|other| (store, other)).unwrap().1;
    assert!(listing(&store, ObjectKind::Data).is_empty());
    assert_eq!(store.get(&key(ObjectKind::Data, 0), 1).unwrap_err().kind(), ErrorKind::NotFound);
    store.delete(&key(ObjectKind::Data, 0)).unwrap();
    for kind in [ObjectKind::Data, ObjectKind::Pin] {
        store.put(&key(kind, 0), b"x").unwrap();
        assert_eq!(listing(&store, kind).len(), 1);
    }
}

#[test]
fn a_repository_that_vanishes_is_not_an_empty_one() {
    let (_dir, path, store) = new_store();
    let object = key(ObjectKind::Data, 0);
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(store.list(ObjectKind::Data, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::NoRepository);
    assert_eq!(store.get(&object, 1).unwrap_err().kind(), ErrorKind::NoRepository);
    assert_eq!(store.delete(&object).unwrap_err().kind(), ErrorKind::NoRepository);
    assert_eq!(store.put(&object, b"x").unwrap_err().kind(), ErrorKind::NoRepository);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn a_renamed_repository_is_still_the_one_that_was_opened() {
    let (dir, path, store) = new_store();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    let object = key(ObjectKind::Index, 0);
    store.put(&object, b"x").unwrap();
    assert!(dir.path().join("moved").join(object.path()).exists() && !path.exists());
}

#[test]
fn ranges_notice_deletion_and_truncation_by_others() {
    let (_dir, path, store) = new_store();
    let (first, second) = (key(ObjectKind::Data, 0), key(ObjectKind::Data, 1));
    for object in [&first, &second] {
        store.put(object, &[7; 100]).unwrap();
        store.get_range(object, 0, &mut [0; 100]).unwrap();
    }
    LocalStore::open(&path).unwrap().delete(&first).unwrap();
    assert_eq!(store.get_range(&first, 0, &mut [0]).unwrap_err().kind(), ErrorKind::NotFound);
    File::options().write(true).open(path.join(second.path())).unwrap().set_len(50).unwrap();
    assert_eq!(store.get_range(&second, 0, &mut [0; 100]).unwrap_err().kind(), ErrorKind::Damaged);
    store.get_range(&second, 0, &mut [0; 50]).unwrap();
}

#[test]
fn times_before_1970_are_times_too() {
    let (_dir, path, store) = new_store();
    let object = key(ObjectKind::Snapshot, 0);
    store.put(&object, b"x").unwrap();
    for time in [UNIX_EPOCH - Duration::from_millis(1500), UNIX_EPOCH + Duration::from_nanos(1_500_000_001)] {
        File::options().write(true).open(path.join(object.path())).unwrap().set_modified(time).unwrap();
        assert_eq!(listing(&store, ObjectKind::Snapshot)[&object.name].stored, time);
    }
}

#[test]
fn fresh_listings_of_a_shared_folder_ask_it_and_leave_nothing() {
    let (_dir, path, mut store) = new_store();
    assert_eq!(store.sharing, Sharing::LOCAL, "tests run on a local disk");
    store.sharing = Sharing { is_shared: true, lag: Duration::from_secs(7) };
    let (pin, tree) = (key(ObjectKind::Pin, 0), key(ObjectKind::Tree, 0));
    for object in [&pin, &tree] {
        store.put(object, b"x").unwrap();
        assert!(listing(&store, object.kind).into_keys().eq([object.name.clone()]));
    }
    assert_eq!(files_below(&path).len(), 2);
    let changed = |folder: &str| fs::metadata(path.join(folder)).unwrap().modified().unwrap();
    let (before, elsewhere) = (changed("marks"), changed("tombs"));
    assert!(listing(&store, ObjectKind::Mark).is_empty());
    assert!(changed("marks") > before && changed("tombs") == elsewhere);
    assert_eq!((store.properties().listing_lag.as_secs(), store.properties().is_shared), (7, true));
    // Where nothing may be created, nothing is known to be new.
    fs::remove_dir(path.join("marks")).unwrap();
    symlink("/proc/self", path.join("marks")).unwrap();
    store.list(ObjectKind::Mark, &mut |_| Ok(())).unwrap();
    let error = store.list_fresh(ObjectKind::Mark, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("refresh the listing of \"marks\""), "{error}");
}
