//! The folder that is restored into: who may enter it and when, what a killed restore leaves in it, what stays in it and
//! what is put back. Not for: what is restored (see `whole`).

use super::{names, same};
use crate::support::run::World;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

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
        world.run(["restore", &address, "-t", target.to_str().unwrap()]).succeeds();
        same(&world.path("source"), &target);
        assert_eq!((partial(&target), mode(&target)), (0, 0o755));
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
        let made = trace.find(&format!("above/{name}\", 0700")).unwrap_or_else(|| panic!("{trace}"));
        let last = trace.rfind("renameat2").unwrap();
        let opened = trace.rfind("0755").unwrap();
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
    let file = world.text("out/0/f0");
    let dumped = trace(&["dump", &format!("{address}/0/f0"), "-o", &file]);
    let flushed = dumped.lines().position(|line| line.contains("fsync")).unwrap();
    let placed = dumped.lines().position(|line| line.contains("f0\"")).unwrap();
    assert!(flushed < placed, "{dumped}");
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
        assert!(ran.stdout.contains("compared 40 files"), "{ran:?}");
        let ran = world.run(["restore", &address, "-t", "out", "--verify", "--overwrite", "always"]).succeeds();
        assert!(ran.stdout.contains("compared 41 files"), "{ran:?}");
    }
    // What was asked to be kept, whatever it is, is not judged.
    tamper(&out.join("small"));
    world.run(["restore", &address, "-t", "out", "--verify", "--overwrite", "never"]).succeeds();
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
        let told = world.run(["restore", &address, "-t", "out", "--overwrite", "never", "--verify"]).succeeds();
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
