//! What a backup takes and leaves, and what it notes of itself. Not for: what goes wrong.

use super::names;
use crate::mount::Mount;
use crate::support::run::World;
use crate::support::{Tmpfs, without_fuse, without_root};
use std::fs;
use std::process::Command;

/// Names below "source" in the newest snapshot, which were backed up with these options.
fn taken(world: &World, options: &[&str]) -> Vec<String> {
    world.backup(0, ["source"].iter().chain(options));
    let out = world.path("out");
    drop(fs::remove_dir_all(&out));
    world.run(["restore", &format!("latest:{}", world.text("source")), "-t", "out"]).succeeds();
    names(&out)
}

#[test]
fn patterns() {
    let world = World::with_repository();
    for name in ["a.o", "a.c", "keep.o", "sub/b.o", "sub/b.c", "sub/tmp/x", "tmp"] {
        world.write(&format!("source/{name}"), name);
    }
    assert_eq!(taken(&world, &["-e", "*.o"]), ["a.c", "sub", "sub/b.c", "sub/tmp", "sub/tmp/x", "tmp"]);
    assert_eq!(
        taken(&world, &["-e", "*.o", "--exclude", "!keep.o", "-e", "tmp/"]),
        ["a.c", "keep.o", "sub", "sub/b.c", "tmp"]
    );
    world.write("patterns", "# no objects\n*.o\n\ntmp\n");
    assert_eq!(taken(&world, &["--exclude-file", "patterns"]), ["a.c", "sub", "sub/b.c"]);
    assert_eq!(taken(&world, &["--exclude-file", "patterns", "-e", "!keep.o"]), ["a.c", "keep.o", "sub", "sub/b.c"]);
    let absolute = world.text("source/sub");
    assert_eq!(taken(&world, &["-e", &absolute]), ["a.c", "a.o", "keep.o", "tmp"]);
    let noted = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!(noted.last().unwrap()["excludes"][0], absolute);
    // What a pattern leaves out is not forgotten once the pattern is gone.
    assert_eq!(taken(&world, &[]).len(), 9);
}

#[test]
fn caches_are_left_out_on_demand() {
    let world = World::with_repository();
    world.write("source/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# more");
    world.write("source/cache/big", "x");
    world.write("source/false/CACHEDIR.TAG", "something else");
    world.write("source/false/big", "x");
    assert_eq!(taken(&world, &[]).len(), 6);
    let left = taken(&world, &["--exclude-caches"]);
    assert!(!left.contains(&"cache/big".to_owned()) && left.contains(&"false/big".to_owned()), "{left:?}");
    assert!(left.contains(&"cache/CACHEDIR.TAG".to_owned()), "the tag tells why the folder is empty: {left:?}");
}

#[test]
fn other_file_systems() {
    if without_root() {
        return;
    }
    let world = World::with_repository();
    world.write("source/a", "a");
    let _other = Tmpfs::on(&world.path("source/other"));
    world.write("source/other/b", "b");
    assert_eq!(taken(&world, &[]), ["a", "other", "other/b"]);
    // The folder stays, as that to mount on again.
    assert_eq!(taken(&world, &["--one-file-system"]), ["a", "other"]);
    world.backup(0, ["source", "source/other", "--one-file-system"]);
    let listed = world.run(["ls", "-R", &format!("latest:{}", world.text("source"))]).succeeds().stdout;
    assert!(listed.contains("other/b"), "a root of its own: {listed}");
}

#[test]
fn notes_of_the_snapshot() {
    let world = World::with_repository();
    world.write("source/a", "a");
    let options = ["source", "--tag", "one,two", "--tag", "three", "--host", "alpha", "--time", "2020-02-29T12:34:56Z"];
    let more = ["--label", "first", "--description", "before the move"];
    let made = world.backup(0, options.iter().chain(&more));
    let noted = &world.run(["snapshots", "--json"]).succeeds().json()[0];
    assert_eq!(noted["snapshot_id"], made["snapshot_id"]);
    assert_eq!(noted["tags"], serde_json::json!(["one", "two", "three"]));
    assert_eq!((&noted["hostname"], &noted["time"]), (&"alpha".into(), &"2020-02-29T12:34:56Z".into()));
    assert_eq!((&noted["label"], &noted["description"]), (&"first".into(), &"before the move".into()));
    // Another machine's snapshot is nobody's parent.
    assert!(world.backup(0, ["source", "--host", "beta"])["parent"].is_null());
    assert_eq!(world.backup(0, ["source", "--host", "alpha"])["parent"], made["snapshot_id"]);
}

#[test]
fn a_dry_run_stores_nothing() {
    let world = World::with_repository();
    world.write("source/a", vec![7; 300_000]);
    let all = || names(&world.path("repository"));
    let before = all();
    let told = world.backup(0, ["source", "--dry-run"]);
    assert!(told["snapshot_id"].is_null() && told["files_new"] == 1 && told["data_added"].as_u64() > Some(0), "{told}");
    assert_eq!(all(), before);
    world.backup(0, ["source"]);
    world.write("source/b", vec![8; 300_000]);
    let before = all();
    let said = world.run(["backup", "-n", "source"]).succeeds().stdout;
    assert!(said.contains("Would add") && said.contains("1 new,") && said.contains("Made no snapshot"), "{said}");
    assert_eq!(all(), before);
    let made = world.backup(0, ["source"]);
    assert_eq!(made["files_new"], 1, "a dry run must not count as having seen the file: {made}");
}

#[test]
fn what_is_named_is_there_or_the_status_says_so() {
    let world = World::with_repository();
    for name in ["x/a/f", "x/a/g", "elsewhere/c/f", "only"] {
        world.write(&format!("source/{name}"), name);
    }
    std::os::unix::fs::symlink("../elsewhere", world.path("source/x/link")).unwrap();
    let listed = || world.run(["ls", "-R", "latest"]).succeeds().stdout;
    world.backup(0, ["source/x", "source/x/link/c"]);
    assert!(listed().contains("elsewhere/c/f"), "{}", listed());
    world.backup(0, ["source/x", "source/x/a/f", "-e", "a"]);
    assert!(listed().contains("x/a/f") && !listed().contains("x/a/g"), "{}", listed());
    world.backup(3, ["source/x", "source/only", "-e", "only"]);
    // Nothing that was named can be there: no snapshot.
    let before = world.objects("snapshots").len();
    world.run(["backup", "source/only", "-e", "only"]).fails(1, &["Nothing was backed up", "source/only"]);
    assert_eq!(world.objects("snapshots").len(), before);
    let inner = world.text("source/x/**");
    world.backup(0, ["source/x", "-e", &inner]);
    assert!(listed().contains("source/x") && !listed().contains("x/a"), "the folder itself: {}", listed());
}

#[test]
fn a_link_to_a_folder_is_followed_with_a_slash() {
    let world = World::with_repository();
    world.write("source/real/f", "f");
    std::os::unix::fs::symlink("real", world.path("source/link")).unwrap();
    let said = world.run(["backup", "source/link"]).succeeds();
    assert!(said.stderr.contains("only the link was backed up") && said.stderr.contains("slash"), "{said:?}");
    let said = world.run(["backup", "source/link/"]).succeeds();
    assert!(!said.stderr.contains("link was backed up"), "{said:?}");
    assert!(world.run(["ls", "-R", "latest"]).succeeds().stdout.contains("link/f"));
    // Compared through the link as well.
    let same = world.run(["diff", "latest"]).succeeds().stdout;
    assert!(!same.contains("source/link"), "{same}");
    world.write("source/real/g", "g");
    assert!(world.run(["diff", "latest"]).succeeds().stdout.contains("link/g"));
}

/// Names that look like those of unfinished files.
pub(super) const LOOK_ALIKES: [&str; 4] = [
    ".firn-new.partial",
    ".firn-0123456789abcdef-1.partial",
    ".firn-78f2c413-c25c308a-d1020ae5-ca0-131b17-ea170566-0.partial",
    ".firn-1-2-3-4-5-6-7-0123456789abcdef.partial",
];

#[test]
fn firn_does_not_take_itself_in() {
    let world = World::with_repository();
    world.write("a", "a");
    // As a restore names it (see `target`), and as somebody else may.
    world.write(&crate::support::run::partial_name("1-2-3-4-5-6-7"), "half");
    for name in LOOK_ALIKES {
        world.write(name, "whole");
    }
    let run = |paths: &[&str], code: u8| {
        let ran = world.run([&["backup"], paths].concat());
        assert_eq!(ran.code, i32::from(code), "{ran:?}");
        (ran.stderr.clone(), world.run(["ls", "-R", "latest"]).succeeds().stdout)
    };
    let (said, listed) = run(&["."], 0);
    assert!(listed.contains("/a") && !listed.contains("repository/config"), "{listed}");
    assert_eq!(listed.matches(".partial").count(), LOOK_ALIKES.len(), "{listed}");
    assert!(said.contains("is a firn repository") && said.contains("left unfinished by a restore"), "{said}");
    // Itself never; that is an error if it was named.
    let (said, listed) = run(&[".", "repository"], 3);
    assert!(said.contains("cannot go into itself") && !listed.contains("repository/config"), "{said}");
}

/// The names of a snapshot of the whole world, and how many notes of the backup have this in them; three times.
fn three_times(world: &World, note: &str) -> Vec<(String, usize)> {
    let run = |_| {
        let ran = world.run(["backup", "."]).succeeds();
        let notes = ran.stderr.lines().filter(|line| line.starts_with("Note: ") && line.contains(note)).count();
        (world.run(["ls", "-R", "latest"]).succeeds().stdout, notes)
    };
    (0..3).map(run).collect()
}

#[test]
fn repositories_below_the_source_do_not_grow_by_themselves() {
    let world = World::with_key_file();
    world.write("a", vec![7; 100_000]);
    // What is known of the cache after the first run is known before it.
    world.backup(0, ["a"]);
    let copied = Command::new("cp").arg("-a").arg(world.path("repository")).arg(world.path("copy")).status();
    assert!(copied.unwrap().success());
    let runs = three_times(&world, "is a firn repository");
    assert!(runs[0].0.contains("/a\n") && !runs[0].0.contains("/keys"), "{}", runs[0].0);
    for run in &runs {
        assert_eq!((run.0.lines().count(), run.1), (runs[0].0.lines().count(), 2), "{} {}", runs[0].0, run.0);
    }
    let last = world.backup(0, ["."]);
    assert!(last["data_added"].as_u64() < Some(20_000), "{last}");
}

#[test]
fn mounts_below_the_source_do_not_multiply() {
    if without_fuse() {
        return;
    }
    let world = World::with_key_file();
    world.write("a", "a");
    world.backup(0, ["a"]);
    let mount = Mount::of(&world, &["--refresh", "0"]);
    assert!(mount.path("latest").exists());
    let runs = three_times(&world, "is a mount of firn");
    let count = |run: &(String, usize)| (run.0.lines().filter(|line| line.ends_with("/a")).count(), run.1);
    for run in &runs {
        assert_eq!(count(run), (1, 1), "{}", run.0);
        assert_eq!(run.0.lines().count(), runs[0].0.lines().count(), "{}", run.0);
    }
    // One that is named is taken.
    let inner = mount.below(&world, "latest", "a");
    world.backup(0, [&inner]);
    let listed = world.run(["ls", "-R", "latest"]).succeeds().stdout;
    assert!(listed.contains(inner.to_str().unwrap()), "{listed}");
}

/// A mount of type fuse.firn whose root root cannot examine; ended with it.
struct ClosedMount {
    point: std::path::PathBuf,
    /// Without it the mount is dead.
    _connection: Option<fs::File>,
}

impl ClosedMount {
    /// Mounts by hand for this user on a new folder; for root the connection ends at once, as if the program was killed.
    fn on(point: std::path::PathBuf, user: u32) -> ClosedMount {
        fs::create_dir(&point).unwrap();
        let connection = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&connection);
        let options = std::ffi::CString::new(format!("fd={fd},rootmode=40000,user_id={user},group_id={user}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("firn-test", &point, "fuse.firn", flags, options.as_c_str()).unwrap();
        ClosedMount { point, _connection: Some(connection).filter(|_| user != 0) }
    }
}

impl Drop for ClosedMount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A mount that root cannot look at: that of another user, or one whose server is gone.
#[test]
fn mounts_that_cannot_be_looked_at_are_left_out_with_a_note() {
    if without_fuse() || crate::support::without_root() {
        return;
    }
    let world = World::with_key_file();
    world.write("source/a", "a");
    world.write("source/z", "z");
    let closed = [("source/a mount", 0), ("source/another mount", 65_534)]
        .map(|(name, user)| ClosedMount::on(world.path(name), user));
    for mount in &closed {
        assert!(mount.point.symlink_metadata().is_err());
    }
    for (options, notes) in [(&["backup", "source"][..], 2), (&["backup", "-x", "source"], 0)] {
        let ran = world.run(options).succeeds();
        assert_eq!(ran.stderr.matches(" mount\" is a mount of firn").count(), notes, "{ran:?}");
        assert!(!ran.stderr.contains("Error"), "{ran:?}");
        let listed = world.run(["ls", "-R", "latest"]).succeeds().stdout;
        assert!(listed.contains("source/a\n") && listed.contains("source/z\n"), "{listed}");
    }
    // What was named is missing, and that is told.
    world.backup(3, ["source", "source/a mount"]);
}

#[test]
fn patterns_that_match_nothing_are_told() {
    let world = World::with_repository();
    world.write("source/a.o", "a");
    let said = world.run(["backup", "source", "-e", "*.o", "-e", "*.oo"]).succeeds().stderr;
    assert!(said.contains("Nothing matched the pattern \"*.oo\""), "{said}");
    world.run(["restore", "latest", "-t", "out", "-i", "*.txt"]).fails(3, &["Nothing matched the pattern \"*.txt\""]);
}

#[test]
fn files_are_listed() {
    let world = World::with_repository();
    world.write("source/a", "a");
    world.backup(0, ["source"]);
    world.write("source/a", "changed");
    world.write("source/b", "b");
    let said = world.run(["backup", "-n", "source"]).succeeds().stdout;
    assert!(said.contains(&format!("changed    {}", world.text("source/a"))), "{said}");
    assert!(said.contains(&format!("new        {}", world.text("source/b"))), "{said}");
    world.backup(0, ["source"]);
    assert!(!world.run(["backup", "source"]).succeeds().stdout.contains("source/a"));
    let address = format!("latest:{}", world.text("source"));
    let restore =
        |options: &[&str]| world.run(["restore", &address, "-t", "out"].iter().chain(options)).succeeds().stdout;
    let line = |word: &str, name: &str| format!("{word:<10} {}\n", world.text(&format!("source/{name}")));
    assert!(restore(&["-n"]).starts_with(&(line("new", "a") + &line("new", "b"))));
    assert!(!world.path("out").exists() && !restore(&[]).contains("source"));
    world.write("out/b", "other");
    assert!(restore(&["-n"]).starts_with(&(line("replace", "b") + "Would restore 1 file")));
    for (options, word) in [(vec!["-n", "-v"], "replace"), (vec!["-v"], "replaced")] {
        let said = restore(&options);
        assert!(said.contains(&line("left", "a")) && said.contains(&line(word, "b")), "{said}");
    }
    let said = world.run(["restore", &address, "-t", "out", "-v", "--overwrite", "always"]).succeeds().stdout;
    assert!(said.contains(&line("replaced", "a")) && said.contains(&line("replaced", "b")), "{said}");
    let said = world.run(["backup", "-v", "source", "--compression", "off"]).succeeds().stdout;
    assert!(said.contains(&format!("unchanged  {}", world.text("source/a"))), "{said}");
}
