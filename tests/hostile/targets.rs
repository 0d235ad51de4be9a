//! Restores into targets that somebody else plays with, and of things that only root may have. Not for: what a restore makes
//! of honest snapshots (see `roundtrip`).

use super::forge::{Forge, Raw, leaf};
use super::oracle::{accepted, of};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

/// A snapshot of "/d/e" with many small files.
fn many(forge: &Forge) -> String {
    forge.snapshot(|chunks| {
        let names: Vec<String> = (0..300).map(|number| format!("f{number:03}")).collect();
        let entries: Vec<Raw> = names.iter().map(|name| Raw::file(name.as_bytes(), b"restored")).collect();
        let (page, sums) = chunks.folder(&entries);
        let (page, sums) = chunks.folder(&[Raw::dir(b"e", page, sums), Raw::file(b"x", b"restored")]);
        chunks.folder(&[Raw::dir(b"d", page, sums)])
    })
}

#[test]
fn a_link_that_comes_and_goes() {
    let forge = Forge::new();
    let id = many(&forge);
    forge.world.write("outside/e/f000", b"untouched");
    forge.world.write("target/d/e/f000", b"old");
    let done = AtomicBool::new(false);
    let (target, outside) = (forge.world.path("target"), forge.world.path("outside"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Errors are the point: the restore makes and replaces these names at the same time.
                drop(fs::rename(target.join("d"), target.join("away")));
                drop(symlink(&outside, target.join("d")));
                drop(fs::remove_file(target.join("d")));
                drop(fs::rename(target.join("away"), target.join("d")));
                drop(fs::rename(target.join("d/e"), target.join("d/away")));
                drop(symlink(outside.join("e"), target.join("d/e")));
                drop(fs::remove_file(target.join("d/e")));
                drop(fs::rename(target.join("d/away"), target.join("d/e")));
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        });
        for _ in 0..8 {
            let address = format!("{id}:/");
            forge.bounded(&["restore", &address, "-t", target.to_str().unwrap(), "--overwrite", "always"]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read(outside.join("e/f000")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(outside.join("e")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn links_that_were_there_before() {
    let forge = Forge::new();
    let id = many(&forge);
    forge.world.write("outside/sentinel", b"untouched");
    fs::create_dir_all(forge.world.path("inner/target/d/e")).unwrap();
    let e = forge.world.path("inner/target/d/e");
    fs::hard_link(forge.world.path("outside/sentinel"), e.join("f000")).unwrap();
    symlink(forge.world.path("outside/sentinel"), e.join("f001")).unwrap();
    symlink("/nowhere/at/all", e.join("f002")).unwrap();
    symlink("f004", e.join("f003")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, e.join("f005"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let told = forge.everything(&id, "/d/x");
    accepted(&told);
    for name in ["f000", "f001", "f002", "f003", "f004", "f005"] {
        assert_eq!(fs::read(e.join(name)).unwrap(), b"restored", "{name}");
        assert!(fs::symlink_metadata(e.join(name)).unwrap().is_file(), "{name}");
    }
    assert_eq!(fs::metadata(forge.world.path("outside/sentinel")).unwrap().nlink(), 1);
}

/// Names and values of attributes that a kernel refuses, gives a meaning, or has never heard of.
fn attributes() -> Vec<u8> {
    let pairs: [(&[u8], &[u8]); 9] = [
        (b"nonsense", b"1"),
        (b"security.capability", &[1, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        (b"security.selinux", b"u:r:x:s0"),
        (b"system.posix_acl_access", b"garbage"),
        (b"system.posix_acl_default", &[2, 0, 0, 0, 0xff]),
        (b"trusted.overlay.redirect", b"/outside"),
        (b"user.", b"1"),
        (b"user.fine", b"yes"),
        (b"\xff\xfe.x", b"1"),
    ];
    let mut set = vec![pairs.len() as u8];
    for (name, value) in pairs {
        set.push(name.len() as u8);
        set.extend_from_slice(name);
        set.push(value.len() as u8);
        set.extend_from_slice(value);
    }
    set
}

#[test]
fn what_only_root_may_have() {
    let forge = Forge::new();
    let device = |name: &[u8], kind| Raw::new(name, kind, vec![1, 3]);
    let id = forge.snapshot(|chunks| {
        let entries = [
            device(b"block", 6),
            device(b"character", 5),
            Raw::new(b"fifo", 4, vec![]),
            Raw::file(b"setuid", b"#!").mode(0o6755),
            Raw::new(b"socket", 7, vec![]),
        ];
        chunks.folder(&entries)
    });
    let world = &forge.world;
    // The world belongs to nobody then; owners in the snapshot are root.
    let ran = world.run_as_nobody(&["restore", &format!("{id}:/"), "-t", "target"]);
    assert!(matches!(ran.code, 0 | 3) && !ran.stderr.contains("panicked"), "{ran:?}");
    assert!(!world.path("target/block").exists() && !world.path("target/character").exists());
    assert!(fs::metadata(world.path("target/fifo")).unwrap().file_type().is_fifo());
    let setuid = fs::metadata(world.path("target/setuid")).unwrap();
    assert_eq!(setuid.mode() & 0o7777, 0o755, "a program of root's does not become one of somebody else's");
}

#[test]
fn attributes_of_every_kind() {
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| {
        let (page, sums) = leaf(&[Raw::file(b"f", b"content").with_attributes()], Some(&attributes()));
        let page = chunks.tree(&page);
        chunks.folder(&[Raw::dir(b"d", page, sums)])
    });
    let told = forge.everything(&id, "/d/f");
    // As root, what the kernel refuses is told; the content is there.
    assert!(matches!(of(&told, "restore").code, 0 | 3), "{:?}", of(&told, "restore"));
    assert_eq!(fs::read(forge.world.path("inner/target/d/f")).unwrap(), b"content");
    assert_eq!(of(&told, "check all").code, 0, "{:?}", of(&told, "check all"));
    let ran = forge.world.run_as_nobody(&["restore", &format!("{id}:/"), "-t", "theirs"]);
    assert!(matches!(ran.code, 0 | 3) && !ran.stderr.contains("panicked"), "{ran:?}");
    assert_eq!(fs::read(forge.world.path("theirs/d/f")).unwrap(), b"content");
}
