//! Makes the golden repository: run once for each format version, as root, never again for the same one.
//! `cargo test --test all -- --ignored make_the_golden_repository`. Not for: testing anything.

use super::{GOLDEN, PASSWORD, golden_folder, manifest, open};
use crate::support::compare::{path_of, set_mtime};
use crate::support::nasty::{Random, acl};
use firn::backup::{BackupOptions, run};
use firn::chunk::password::Cost;
use firn::format::coordination::Tomb;
use firn::format::header::Kind;
use firn::progress::{Silent, Stop};
use firn::repository::Repository;
use firn::repository::keys::Credentials;
use firn::store::{LocalStore, ObjectKey, ObjectKind, Store};
use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags, makedev};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the golden repositories hold; the path stands in their snapshots.
pub(crate) const SOURCE: &str = "/tmp/golden";

#[test]
#[ignore = "makes files that are committed"]
fn make_the_golden_repository() {
    let target = golden_folder().join(GOLDEN.last().unwrap());
    assert!(!target.exists(), "golden repositories are never made again");
    let source = Path::new(SOURCE);
    fs::create_dir(source).unwrap();
    let credentials = Credentials { password: Some(PASSWORD.as_bytes().to_vec().into()), key_file: None };
    let store = LocalStore::create(&target).unwrap();
    Repository::init(&store, &credentials, Cost { memory: 64, passes: 1, lanes: 1 }, "golden").unwrap();
    small_packs(&open(&target, PASSWORD), &store);
    let repository = Arc::new(open(&target, PASSWORD));
    let mut text = format!("# password: {PASSWORD}\n");
    for step in 0..3 {
        build(source, step);
        let options = BackupOptions {
            paths: vec![PathBuf::from(SOURCE)],
            host: Some("golden".into()),
            tags: vec![format!("step-{step}")],
            label: (step == 2).then(|| "last".into()),
            level: 19,
            threads: 1,
            ..BackupOptions::default()
        };
        let report = run(&repository, &options, &Silent, &Stop::new()).unwrap();
        assert_eq!(report.issues, 0);
        let name = report.snapshot.unwrap();
        if step == 0 {
            let time = jiff::Timestamp::now();
            let tomb = Tomb { version: 1, snapshot: name, time, host: "golden".into(), undone: None };
            let bytes = repository.keyring().seal_record(Kind::Tomb, &tomb.encode().unwrap()).unwrap();
            store.put(&ObjectKey::new(ObjectKind::Tomb, name), &bytes).unwrap();
        } else {
            text.push_str(&format!("snapshot {name}\n{}", manifest::format(&manifest::of_folder(source))));
        }
    }
    fs::write(target.with_extension("manifest"), text).unwrap();
    fs::remove_dir_all(source).unwrap();
}

/// A third config, which counts: packs of some KiB, so that there are several.
fn small_packs(repository: &Repository, store: &LocalStore) {
    let mut config = repository.config().clone();
    (config.data_pack, config.tree_pack) = (24 << 10, 8 << 10);
    let bytes = repository.keyring().seal_record(Kind::Config, &config.encode().unwrap()).unwrap();
    store.put(&ObjectKey::new(ObjectKind::Config, 3), &bytes).unwrap();
}

fn write(path: PathBuf, bytes: &[u8], owner: u32) {
    fs::write(&path, bytes).unwrap();
    lchown(&path, Some(owner), Some(owner / 10)).unwrap();
    set_mtime(&path, 1_700_000_000 + i64::from(owner), 123_456_789);
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn sparse(path: PathBuf, size: u64, data: impl Iterator<Item = (u64, Vec<u8>)>) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in data {
        file.write_all_at(&bytes, offset).unwrap();
    }
    // Else space is reserved later and holes are not yet where they will be.
    file.sync_all().unwrap();
}

/// Step 0 makes the tree, the others change something.
fn build(top: &Path, step: u64) {
    let make = |name: &str| {
        let path = top.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let mut random = Random(step + 1);
    write(make("content").join(format!("new-{step}")), &random.bytes(3000), 1000);
    if step > 0 {
        let path = top.join(format!("many/{step:03}"));
        write(path, b"changed", 0);
        if step == 2 {
            fs::remove_file(top.join("content/new-0")).unwrap();
        }
        set_mtime(top, 1_600_000_000 + step as i64, 5);
        return;
    }
    let dir = make("content");
    for (len, owner) in [(0, 0), (1, 0), (128, 0), (129, 1000), (4097, 2000), (9000, 1000), (9000, 2000)] {
        write(dir.join(format!("random-{len}-{owner}")), &random.bytes(len), owner);
    }
    write(dir.join("text"), "All work and no play makes Jack a dull boy.\n".repeat(8000).as_bytes(), 1000);
    write(dir.join("zeros"), &vec![0; 300_000], 0);
    let dir = make("sparse");
    sparse(dir.join("gigabyte"), 1 << 30, [(512 << 20, vec![b'x'; 5000])].into_iter());
    sparse(dir.join("only-hole"), 1 << 20, [].into_iter());
    sparse(dir.join("comb"), 40 * 65_536 + 77, (0..40).map(|tooth| (tooth * 65_536, vec![tooth as u8 + 1; 4096])));
    // So many extents that their list has more than one page; all teeth are one chunk.
    sparse(dir.join("long-comb"), 2000 * 8192, (0..2000).map(|tooth| (tooth * 8192 + 4096, vec![b'c'; 4096])));
    let dir = make("many");
    for number in 0..700 {
        write(dir.join(format!("{number:03}")), format!("file {number}").as_bytes(), number % 3 * 1000);
    }
    names(&make("names"));
    special(top, &make("special"));
    let dir = make(".ssh");
    write(dir.join("id_ed25519"), b"-----BEGIN OPENSSH PRIVATE KEY-----\nnot one\n", 0);
    write(dir.join("known_hosts"), &b"a line that is longer than what stands in an entry itself\n".repeat(9), 0);
    for name in ["id_ed25519", "known_hosts"] {
        fs::set_permissions(dir.join(name), Permissions::from_mode(0o600)).unwrap();
    }
    let mut deep = make("deep");
    for _ in 0..30 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    write(deep.join("bottom"), b"!", 0);
    make("empty");
    for name in ["content", "sparse", "many", "names", "special", ".ssh", "deep", "empty"] {
        set_mtime(&top.join(name), 1_500_000_000, 987_654_321);
    }
    set_mtime(top, 1_600_000_000, 5);
}

fn names(dir: &Path) {
    let long = [b'n'; 255];
    for name in [&b"\xff\xfe\x80"[..], b"new\nline", b"back\\slash", b"\\x41", b" ", b"*", "ä".as_bytes(), &long] {
        write(dir.join(path_of(name)), name, 0);
    }
    fs::create_dir(dir.join(path_of(b"folder\xc3"))).unwrap();
    set_mtime(&dir.join(path_of(b"folder\xc3")), -1, 999_999_999);
}

fn special(top: &Path, dir: &Path) {
    let link = |old: &Path, new: &str| rustix::fs::linkat(CWD, old, CWD, dir.join(new), AtFlags::empty()).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
        set_mtime(&dir.join(name), 1, 2);
    };
    node("fifo", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, makedev(1, 3));
    node("block", FileType::BlockDevice, makedev(259, 70_000));
    for (name, target) in [("dangling", &b"nowhere"[..]), ("odd", b"\xff\n\\"), ("absolute", b"/etc/passwd")] {
        symlink(path_of(target), dir.join(name)).unwrap();
        set_mtime(&dir.join(name), -86_400, 222_222_222);
    }
    link(&top.join("content/random-9000-1000"), "hard");
    link(&top.join("content/random-0-0"), "hard-empty");
    link(&dir.join("fifo"), "hard-fifo");
    link(&dir.join("dangling"), "hard-symlink");
    for (name, mode) in [("setuid", 0o4755), ("none", 0), ("sticky", 0o1777)] {
        write(dir.join(name), b"x", 0);
        fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
    }
    for (name, value) in [("user.a", &b""[..]), ("user.b", b"\x00\xff binary")] {
        set(&dir.join("setuid"), name, value);
        set(&dir.join("sticky"), name, value);
    }
    // So large that it is a chunk of its own.
    write(dir.join("attribute"), b"x", 0);
    set(&dir.join("attribute"), "user.large", &Random(7).bytes(1500));
    write(dir.join("acl"), b"x", 0);
    set(&dir.join("acl"), "system.posix_acl_access", &acl(65_533));
}
