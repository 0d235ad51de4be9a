//! Shows that the comparer finds each kind of difference, and that the nasty tree is what it says. Not for: firn itself.

use super::compare::{Options, runs, set_mtime, trees};
use super::{nasty, share, without_root};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

const ALL: Options = Options {
    owners: true,
    modes: true,
    times: true,
    attributes: true,
    links: true,
    blocks: true,
    holes: true,
    ignore_sockets: false,
    top: true,
};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--sparse=auto").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
    for path in [from, to] {
        assert!(Command::new("sync").arg("-f").arg(path).status().expect("sync runs").success());
    }
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
}

#[test]
fn a_true_copy_of_the_nasty_tree_is_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    nasty::build(&a);
    copy(&a, &b);
    // What cp makes of holes is its own affair.
    let options = Options { blocks: false, holes: false, ..ALL };
    assert_eq!(trees(&a, &b, options), Vec::<String>::new());
    assert_eq!(trees(&a, &a, ALL), Vec::<String>::new());
    assert_eq!(runs(&a.join("sparse/middle")).unwrap(), [(0, 65_536), (4 * 65_536, 5 * 65_536)]);
    assert_eq!(runs(&a.join("sparse/only-hole")).unwrap(), []);
    // Each seed changes something, says so, and is found; the same seed does the same.
    let (c, d) = (dir.path().join("c"), dir.path().join("d"));
    for seed in 0..share(2, 6) {
        copy(&a, &c);
        let said = nasty::change(&c, seed);
        let found = trees(&a, &c, options);
        assert!(!said.is_empty() && !found.is_empty(), "seed {seed}: {said:?}");
        if seed == 0 {
            copy(&a, &d);
            let again = nasty::change(&d, seed);
            let strip = |list: &[String], base: &Path| {
                list.iter().map(|s| s.replace(base.to_str().unwrap(), "")).collect::<Vec<_>>()
            };
            assert_eq!(strip(&said, &c), strip(&again, &d));
            assert_eq!(trees(&c, &d, Options { times: false, ..options }), Vec::<String>::new());
        }
        remove(&c);
    }
}

// A small tree with one of each; `b` is a copy of it.
fn pair(dir: &Path) {
    let a = dir.join("a");
    fs::create_dir_all(a.join("folder")).unwrap();
    fs::write(a.join("file"), [1; 200_000]).unwrap();
    fs::write(a.join("other"), [1; 200_000]).unwrap();
    fs::hard_link(a.join("file"), a.join("folder/hard")).unwrap();
    symlink("file", a.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, a.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    File::create(a.join("hole")).unwrap().set_len(200_000).unwrap();
    rustix::fs::setxattr(a.join("file"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(a.join("file"), "user.b", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    copy(&a, &dir.join("b"));
}

#[test]
fn each_kind_of_difference_is_found() {
    type Change = fn(&Path);
    let root = rustix::process::geteuid().is_root();
    let table: &[(&str, bool, Change)] = &[
        ("\"file\": content differs from byte 199999", true, |b| {
            File::options().write(true).open(b.join("file")).unwrap().write_all_at(&[2], 199_999).unwrap()
        }),
        ("\"other\": size 200000 became 200001", true, |b| {
            File::options().write(true).open(b.join("other")).unwrap().set_len(200_001).unwrap()
        }),
        ("\"other\": only in the first", true, |b| fs::remove_file(b.join("other")).unwrap()),
        ("\"new\\nline\": only in the second", true, |b| fs::write(b.join("new\nline"), "").unwrap()),
        ("\"other\": mode 644 became 4755", true, |b| {
            fs::set_permissions(b.join("other"), Permissions::from_mode(0o4755)).unwrap()
        }),
        ("\"folder\": mode", true, |b| fs::set_permissions(b.join("folder"), Permissions::from_mode(0o1700)).unwrap()),
        ("\"link\": mtime", true, |b| set_mtime(&b.join("link"), 5, 1)),
        ("\"folder\": mtime", true, |b| set_mtime(&b.join("folder"), -5, 1)),
        ("\"\": mtime", true, |b| set_mtime(b, 5, 1)),
        ("\"link\": target \"file\" became \"other\"", true, |b| {
            fs::remove_file(b.join("link")).unwrap();
            symlink("other", b.join("link")).unwrap();
        }),
        ("\"pipe\": type 10000 became 100000", true, |b| {
            fs::remove_file(b.join("pipe")).unwrap();
            fs::write(b.join("pipe"), "").unwrap();
        }),
        ("\"folder/hard\": hard link of \"file\" became one of \"folder/hard\"", true, |b| {
            fs::remove_file(b.join("folder/hard")).unwrap();
            fs::copy(b.join("file"), b.join("folder/hard")).unwrap();
        }),
        ("\"other\": hard link of \"other\" became one of \"file\"", true, |b| {
            fs::remove_file(b.join("other")).unwrap();
            fs::hard_link(b.join("file"), b.join("other")).unwrap();
        }),
        ("\"other\": nlink 1 became 2", true, |b| {
            fs::hard_link(b.join("other"), b.parent().unwrap().join("outside")).unwrap()
        }),
        ("\"hole\": data at [] became data at [(65536, ", true, |b| {
            let file = File::options().write(true).open(b.join("hole")).unwrap();
            file.write_all_at(&[0; 65_536], 65_536).unwrap();
            file.sync_all().unwrap();
        }),
        ("\"hole\": blocks 0 became", true, |b| fs::write(b.join("hole"), [0; 200_000]).unwrap()),
        ("\"file\": attribute user.a \"1\" became \"2\"", true, |b| {
            rustix::fs::setxattr(b.join("file"), "user.a", b"2", rustix::fs::XattrFlags::empty()).unwrap()
        }),
        ("\"file\": attribute user.b \"1\" became absent", true, |b| {
            rustix::fs::removexattr(b.join("file"), "user.b").unwrap()
        }),
        ("\"folder\": attribute system.posix_acl_default absent became", true, |b| {
            let name = "system.posix_acl_default";
            rustix::fs::setxattr(b.join("folder"), name, &nasty::acl(7), rustix::fs::XattrFlags::empty()).unwrap()
        }),
        ("\"link\": owner 0:0 became 5:6", root, |b| {
            std::os::unix::fs::lchown(b.join("link"), Some(5), Some(6)).unwrap()
        }),
        ("\"link\": attribute trusted.t absent became", root, |b| {
            rustix::fs::lsetxattr(b.join("link"), "trusted.t", b"1", rustix::fs::XattrFlags::empty()).unwrap()
        }),
    ];
    for (expected, possible, change) in table.iter().filter(|line| line.1) {
        let dir = tempfile::tempdir().unwrap();
        pair(dir.path());
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(trees(&a, &b, ALL), Vec::<String>::new(), "before: {expected}");
        change(&b);
        let found = trees(&a, &b, ALL);
        assert!(*possible && found.iter().any(|line| line.starts_with(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn device_numbers_count() {
    if without_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (tree, minor) in [("a", 3), ("b", 5)] {
        fs::create_dir(dir.path().join(tree)).unwrap();
        let (kind, device) = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, minor));
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join(tree).join("x"), kind, 0o600.into(), device).unwrap();
    }
    let options = Options { times: false, ..Options::default() };
    let found = trees(&dir.path().join("a"), &dir.path().join("b"), options);
    assert!(found.len() == 1 && found[0].starts_with("\"x\": device"), "{found:?}");
}
