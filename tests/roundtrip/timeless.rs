//! Sources on file systems that have no change times of their own: what was replaced there is noticed. Not for: repositories on such
//! file systems (see `together`).

use crate::support::run::{Sshfs, World};
use std::fs::{self, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// The folder "server" of a world, mounted without any caches.
fn mounted(world: &World) -> Sshfs {
    world.mount_sshfs("server", "mounted", "dir_cache=no,attr_timeout=0,entry_timeout=0")
}

/// Puts another file in the place of one, as `cp -p` does, with the same time.
fn replace(world: &World, name: &str, content: &str) {
    world.write("new", content);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_880_000);
    let file = fs::File::options().write(true).open(world.path("new")).unwrap();
    file.set_times(FileTimes::new().set_modified(old)).unwrap();
    fs::rename(world.path("new"), world.path("server").join(name)).unwrap();
}

#[test]
fn a_file_without_a_change_time_is_read_again_unless_that_is_not_wanted() {
    let world = World::with_key_file();
    fs::create_dir(world.path("server")).unwrap();
    for (name, content) in [("kept", "kept"), ("replaced", "before"), ("one", "first"), ("two", "other")] {
        replace(&world, name, content);
    }
    let mount = mounted(&world);
    let found = fs::metadata(mount.0.join("kept")).unwrap();
    assert_eq!((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()), "sshfs has no change times");
    let backup = |options: &[&str]| {
        let ran = world.run(["backup", "--json", "mounted"].iter().chain(options)).succeeds();
        let summary = ran.json().pop().unwrap();
        ((summary["files_changed"].clone(), summary["files_unmodified"].clone()), ran.stderr)
    };
    let content = |name: &str| {
        let address = format!("latest:{}/{name}", mount.0.display());
        world.run(["dump", &address]).succeeds().stdout
    };
    let (_, said) = backup(&[]);
    assert!(!said.contains("read again"), "all are new: {said}");
    // On the server one is replaced, and two change places.
    replace(&world, "replaced", "behind");
    for (from, to) in [("one", "aside"), ("two", "one"), ("aside", "two")] {
        fs::rename(world.path("server").join(from), world.path("server").join(to)).unwrap();
    }
    let (counts, said) = backup(&[]);
    assert_eq!(["replaced", "one", "two"].map(content), ["behind", "other", "first"]);
    assert_eq!(counts, (3.into(), 1.into()));
    assert!(said.contains("were read again") && said.contains("--trust-mtime"), "{said}");
    // That is the user's choice, also where files have other numbers after the next mount.
    drop(mount);
    fs::remove_dir(world.path("mounted")).unwrap();
    let mount = mounted(&world);
    replace(&world, "replaced", "missed");
    replace(&world, "kept", "longer");
    let (counts, said) = backup(&["--trust-mtime"]);
    assert_eq!(counts, (1.into(), 3.into()));
    assert!(!said.contains("read again"), "{said}");
    let content = |name: &str| world.run(["dump", &format!("latest:{}/{name}", mount.0.display())]).succeeds().stdout;
    assert_eq!(["replaced", "kept"].map(content), ["behind", "longer"]);
    let (counts, _) = backup(&[]);
    assert_eq!((content("replaced"), counts), ("missed".into(), (1.into(), 3.into())));
}
