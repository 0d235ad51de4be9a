//! The folder that is restored into: who may enter it and when, what a killed restore leaves in it, what stays in it and
//! what is put back. Not for: what is restored (see `whole`).

use super::choice::LOOK_ALIKES;
use super::{names, same};
use crate::support::run::World;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Runs the program under strace with these options, and returns what it recorded.
fn traced(world: &World, options: &[&str], arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "trace"]).args(options).arg(env!("CARGO_BIN_EXE_firn")).args(arguments);
    world.surround(&mut command, &[]);
    let output = command.output().expect("strace must be installed (.ci/setup test)");
    (output, fs::read_to_string(world.path("trace")).unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn many(world: &World) -> String {
    for number in 0..40 {
        world.write(&format!("source/{}/f{number}", number % 4), format!("file {number}").repeat(1 + number * 500));
    }
    fs::set_permissions(world.path("source"), Permissions::from_mode(0o755)).unwrap();
    world.backup(0, ["source"]);
    format!("latest:{}", world.text("source"))
}

#[test]
fn what_a_killed_restore_leaves_goes_with_the_next() {
    let world = World::with_key_file();
    let address = many(&world);
    let partial = |folder: &Path| names(folder).iter().filter(|name| name.contains(".firn-")).count();
    for (round, when) in ["3", "20"].into_iter().enumerate() {
        let target = world.path(&format!("out-{round}"));
        // Killed at this rename, when files wait for their names and some have them.
        let kill = format!("--inject=renameat2:signal=KILL:when={when}");
        let (output, _) =
            traced(&world, &["-e", "trace=renameat2", &kill], &["restore", &address, "-t", target.to_str().unwrap()]);
        assert!(!output.status.success());
        assert!(partial(&target) > 0, "the test needs something that is left");
        assert_eq!(mode(&target), 0o700, "nobody else may enter it yet");
        // None of it is taken into a backup.
        let ran = world.run(["backup", "--dry-run", &format!("out-{round}")]).succeeds();
        assert!(ran.stderr.contains("was left unfinished by a restore"), "{ran:?}");
        assert!(!ran.stdout.contains(".firn-"), "{ran:?}");
        let said = world.run(["restore", &address, "-t", target.to_str().unwrap()]).succeeds().stderr;
        assert!(said.contains("Removed \"") && said.contains("left unfinished"), "{said}");
        same(&world.path("source"), &target);
        assert_eq!((partial(&target), mode(&target)), (0, 0o755));
    }
}

/// A file that only looks like one of firn's unfinished ones is a file like any other.
#[test]
fn what_looks_unfinished_is_the_users_own() {
    let world = World::with_key_file();
    for name in LOOK_ALIKES {
        world.write(&format!("source/{name}"), format!("precious {name}"));
        world.write(&format!("source/below/{name}"), "precious");
        world.write(&format!("there/{name}"), "was there");
        world.write(&format!("there/below/{name}"), "was there");
    }
    let said = world.run(["backup", "source"]).succeeds().stderr;
    assert!(!said.contains("left out"), "{said}");
    let address = format!("latest:{}", world.text("source"));
    for target in ["new", "new"] {
        world.run(["restore", &address, "-t", target]).succeeds();
        same(&world.path("source"), &world.path(target));
    }
    world.write("a", "a");
    world.write("there/below/b", "b");
    world.run(["backup", "-q", "a", "there/below/b", "--host", "other"]).succeeds();
    let below = format!("latest:{}", world.text(""));
    world.run(["restore", &below, "-t", ".", "--host", "other"]).succeeds();
    let dumped = format!("latest:{}", world.text("a"));
    world.run(["dump", &dumped, "--host", "other", "-o", "there/a"]).succeeds();
    for name in LOOK_ALIKES {
        for folder in ["there", "there/below"] {
            assert_eq!(fs::read(world.path(folder).join(name)).unwrap(), b"was there", "{folder}/{name}");
        }
    }
}

#[test]
fn a_new_target_is_open_only_at_the_end() {
    let world = World::with_key_file();
    let address = many(&world);
    fs::create_dir(world.path("above")).unwrap();
    let given = Command::new("setfacl").args(["-d", "-m", "u:65534:rwx"]).arg(world.path("above")).status();
    assert!(given.expect("setfacl must be installed (.ci/setup test)").success());
    for (name, address) in [("folder", address.clone()), ("file", format!("{address}/0/f0"))] {
        let target = world.path(&format!("above/{name}"));
        let (output, trace) = traced(
            &world,
            &["-e", "trace=mkdir,mkdirat,fchmod,fchmodat,renameat2"],
            &["restore", &address, "-t", target.to_str().unwrap()],
        );
        assert!(output.status.success(), "{output:?}");
        let made = trace.find(&format!("\"{name}\", 0700")).unwrap_or_else(|| panic!("{trace}"));
        let last = trace.rfind("renameat2").unwrap();
        let opened = trace.find("0755").unwrap();
        assert!(made < last && last < opened, "{trace}");
        assert_eq!(mode(&target), 0o755);
        let list = Command::new("getfacl").args(["-cE"]).arg(&target).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        assert!(!list.contains("65534") && !list.contains("nobody") && !list.contains("default"), "{list}");
    }
}

#[test]
fn what_is_replaced_goes_only_once_the_new_is_on_the_disk() {
    let world = World::with_key_file();
    let address = many(&world);
    let trace = |arguments: &[&str]| {
        let (output, trace) = traced(&world, &["-e", "trace=fsync,syncfs,rename,renameat2"], arguments);
        assert!(output.status.success(), "{output:?}");
        trace
    };
    let target = world.text("out");
    // Nothing is replaced here, so nothing has to be waited for.
    let first = trace(&["restore", &address, "-t", &target]);
    assert!(first.contains("\"f39\"") && !first.contains("syncfs"), "{first}");
    let again = trace(&["restore", &address, "-t", &target, "--overwrite", "always"]);
    let flushed = again.lines().position(|line| line.contains("syncfs")).unwrap();
    let placed = again.lines().position(|line| line.contains(", \"f")).unwrap();
    assert!(flushed < placed, "{again}");
    // A further name replaces something although the file is new.
    world.write("linked/one", "text");
    fs::hard_link(world.path("linked/one"), world.path("linked/two")).unwrap();
    world.backup(0, ["linked"]);
    world.write("links/two", "other");
    let linked = trace(&["restore", &format!("latest:{}", world.text("linked")), "-t", &world.text("links")]);
    let flushed = linked.lines().position(|line| line.contains("syncfs"));
    let placed = linked.lines().position(|line| line.contains(", \"two\""));
    assert!(flushed.is_some() && flushed < placed, "{linked}");
    world.backup(0, ["source"]);
    let file = world.text("out/0/f0");
    let dumped = trace(&["dump", &format!("{address}/0/f0"), "-o", &file]);
    let flushed = dumped.lines().position(|line| line.contains("fsync")).unwrap();
    let placed = dumped.lines().position(|line| line.contains("f0\"")).unwrap();
    assert!(flushed < placed, "{dumped}");
}

/// Runs `meddle` again and again until it has done something, while the program works, whose calls of these kinds take long.
fn beside(world: &World, calls: &str, arguments: &[&str], meddle: impl Fn() -> bool + Sync) -> Output {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) && !meddle() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let delay = format!("--inject={calls}:delay_exit=1000000");
        let (output, _) = traced(world, &["-e", &format!("trace={calls}"), &delay], arguments);
        done.store(true, Relaxed);
        output
    })
}

/// Whoever owns the folder that is restored into may rename what is in it at any moment.
#[test]
fn what_took_the_place_of_something_new_is_not_given_away() {
    let world = World::with_key_file();
    let (source, target) = (world.path("source"), world.path("out"));
    fs::create_dir(&source).unwrap();
    assert!(Command::new("mkfifo").arg(source.join("pipe")).status().unwrap().success());
    world.write("out/secret", "secret");
    fs::set_permissions(target.join("secret"), Permissions::from_mode(0o600)).unwrap();
    for path in [&source, &source.join("pipe"), &target] {
        chown(path, Some(4242), Some(4242)).unwrap();
    }
    world.backup(0, ["source"]);
    let address = format!("latest:{}", world.text("source"));
    let swap = || {
        let entries = fs::read_dir(&target).unwrap().flatten();
        let mut pipes = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_fifo()));
        pipes.next().is_some_and(|pipe| fs::rename(target.join("secret"), pipe.path()).is_ok())
    };
    let output = beside(&world, "mknodat", &["restore", &address, "-t", target.to_str().unwrap()], swap);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("something else has taken its place"), "{output:?}");
    let left: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!((left.len(), fs::read_to_string(&left[0]).unwrap().as_str()), (1, "secret"));
    let found = fs::metadata(&left[0]).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600));
}

#[test]
fn a_new_target_is_the_folder_that_was_made() {
    let world = World::with_key_file();
    let address = many(&world);
    fs::create_dir_all(world.path("elsewhere")).unwrap();
    fs::create_dir(world.path("above")).unwrap();
    chown(world.path("above"), Some(4242), Some(4242)).unwrap();
    let target = world.path("above/new");
    let swap = || {
        let is_moved = fs::rename(&target, world.path("above/moved")).is_ok();
        is_moved && std::os::unix::fs::symlink(world.path("elsewhere"), &target).is_ok()
    };
    let before = mode(&world.path("elsewhere"));
    let output = beside(&world, "mkdir,mkdirat", &["restore", &address, "-t", target.to_str().unwrap()], swap);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!((names(&world.path("elsewhere")).len(), mode(&world.path("elsewhere"))), (0, before));
}

/// Folders that are as they should be are looked at, and nothing is tried in them.
#[test]
fn a_restore_that_changes_nothing_makes_nothing() {
    let world = World::with_key_file();
    let address = many(&world);
    let target = world.text("out");
    world.run(["restore", &address, "-t", &target]).succeeds();
    let (output, trace) = traced(&world, &["-e", "trace=openat"], &["restore", &address, "-t", &target]);
    assert!(output.status.success(), "{output:?}");
    let made: Vec<&str> = trace.lines().filter(|line| line.contains("O_CREAT") && line.contains(".partial")).collect();
    assert_eq!(made.len(), 2, "what the target can do is tried once: {made:?}");
}

/// Changes a file's content, but neither its size nor its time.
fn tamper(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn verify_compares_what_was_left_as_well() {
    let world = World::with_repository();
    let address = many(&world);
    world.write("source/small", "x");
    world.backup(0, ["source"]);
    let out = world.path("out");
    world.run(["restore", &address, "-t", "out", "--verify"]).succeeds();
    for name in ["3/f39", "small"] {
        tamper(&out.join(name));
        let ran = world.run(["restore", &address, "-t", "out", "--verify"]);
        let ran = ran.fails(5, &[name, "was left in the target and is not as recorded", "--overwrite always"]);
        assert!(ran.stdout.contains("found 40 files as recorded, and 1 thing otherwise"), "{ran:?}");
        let ran = world.run(["restore", &address, "-t", "out", "--verify", "--overwrite", "always"]).succeeds();
        assert!(ran.stdout.contains("compared 41 files"), "{ran:?}");
    }
    // What was asked to be kept, whatever it is, is kept and compared.
    tamper(&out.join("small"));
    let ran = world.run(["restore", &address, "-t", "out", "--verify", "--overwrite", "never"]);
    ran.fails(5, &["small", "was left in the target and is not as recorded"]);
}

#[test]
fn metadata_comes_back_where_content_is_left() {
    let world = World::with_repository();
    let address = many(&world);
    let source = world.path("source");
    let attribute = |path: &Path, value: &str| {
        let set = Command::new("setfattr").args(["-n", "user.x", "-v", value]).arg(path).status();
        assert!(set.expect("setfattr must be installed (.ci/setup test)").success());
    };
    attribute(&source.join("2/f2"), "right");
    std::os::unix::fs::symlink("elsewhere", source.join("link")).unwrap();
    chown(source.join("3/f3"), Some(1234), Some(5678)).unwrap();
    fs::set_permissions(source.join("1/f1"), Permissions::from_mode(0o4750)).unwrap();
    world.backup(0, ["source"]);
    world.run(["restore", &address, "-t", "out"]).succeeds();
    let out = world.path("out");
    for change in 0..4 {
        match change {
            0 => fs::set_permissions(out.join("1/f1"), Permissions::from_mode(0o777)).unwrap(),
            1 => attribute(&out.join("2/f2"), "wrong"),
            2 => fs::set_permissions(out.join("1"), Permissions::from_mode(0o777)).unwrap(),
            _ => chown(out.join("3/f3"), Some(1234), Some(1)).unwrap(),
        }
        let told = world.run(["restore", &address, "-t", "out", "--overwrite", "never", "--verify"]);
        let told = told.fails(5, &["was left in the target and is not as recorded"]);
        assert!(told.stdout.contains("Left 41 things"), "{told:?}");
        let ran = world.run(["restore", &address, "-t", "out"]).succeeds();
        assert!(ran.stdout.contains("Restored 0 files"), "{ran:?}");
        assert_eq!(ran.stdout.contains("Put back the metadata of 1 thing"), change != 2, "{ran:?}");
        same(&source, &out);
    }
    // What belongs to somebody else is not given away, but made anew.
    chown(out.join("3/f3"), Some(4321), Some(5678)).unwrap();
    let ran = world.run(["restore", &address, "-t", "out"]).succeeds();
    assert!(ran.stdout.contains("Restored 1 file,"), "{ran:?}");
    same(&source, &out);
}
