//! Is a prune right about writers that it sees late, or whose processes it cannot see: machines that share a repository by a network
//! file system, and containers with one host name? Not for: processes that see one another.

use crate::support::nasty::Random;
use crate::support::run::{Ran, Sshfs, World};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder as another machine sees it: a mount by sshfs with its own caches.
struct Machine(Sshfs);

impl Machine {
    fn new(world: &World, name: &str) -> Machine {
        // As old as it likes, so that no test passes because it was slow.
        Machine(world.mount_sshfs("repository", name, "dcache_timeout=3600"))
    }

    /// Fills the caches with all that is there now but for the packs.
    fn list(&self) {
        for kind in ["snapshots", "index", "pins", "marks", "tombs", "revokes"] {
            for entry in std::fs::read_dir(self.0.0.join(kind)).unwrap() {
                entry.unwrap().metadata().unwrap();
            }
        }
    }

    fn run(&self, world: &World, arguments: &[&str]) -> Ran {
        let folder = &self.0.0;
        let cache = world.text(&format!("cache of {}", folder.file_name().unwrap().display()));
        world.run_with(arguments, &[("FIRN_REPOSITORY", folder.to_str()), ("FIRN_CACHE_DIR", Some(&cache))])
    }
}

/// A backup that was stopped in its midst, and goes on when told to.
struct Stopped(Child);

impl Stopped {
    /// Of the folder "source", which holds far more than a pack; stopped once the backup has stored one. Until then it has listed
    /// all that it relies on.
    fn begin(world: &World, mut command: Command) -> Stopped {
        let before = world.objects("data").len();
        let child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stopped = Stopped(child);
        let since = Instant::now();
        let packs = || world.objects("data").iter().filter(|path| path.extension().is_none()).count();
        while packs() == before {
            assert!(since.elapsed() < Duration::from_secs(300), "the backup stores nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        stopped.signal("STOP");
        assert_eq!(world.objects("pins").len(), 1, "the backup must not have come to its end");
        stopped
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.0.id());
        assert!(Command::new("kill").args(["-s", name, "--", &group]).status().unwrap().success());
    }

    fn goes_on(mut self) -> Ran {
        self.signal("CONT");
        let (stdout, stderr) = (self.0.stdout.take().unwrap(), self.0.stderr.take().unwrap());
        let texts = [std::io::read_to_string(stdout).unwrap(), std::io::read_to_string(stderr).unwrap()];
        let code = self.0.wait().unwrap().code().unwrap_or(-1);
        let [stdout, stderr] = texts;
        Ran { code, stdout, stderr }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal("KILL");
            drop(self.0.wait());
        }
    }
}

/// The newest snapshot has all that "source" holds.
#[track_caller]
fn restores(world: &World) {
    world.run(["restore", "-q", "latest", "-t", "out"]).succeeds();
    let source = world.path("source");
    let restored = world.path("out").join(source.strip_prefix("/").unwrap());
    for name in names(&source) {
        assert!(std::fs::read(source.join(&name)).unwrap() == std::fs::read(restored.join(&name)).unwrap(), "{name}");
    }
    assert_eq!(names(&source), names(&restored));
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// A forgotten snapshot of the file "old", which the next one has again beside so much else that it takes a while.
fn forgotten_and_wanted_again(world: &World) {
    world.write("source/old", Random(1).bytes(3_000_000));
    world.run(["backup", "-q", "source"]).succeeds();
    world.run(["forget", "-q", "--yes-really", "latest"]).succeeds();
    world.write("source/new", Random(2).bytes(100_000_000));
}

const AT_ONCE: [&str; 4] = ["prune", "--keep-deleted=0s", "--max-wait=0s", "--yes-really"];

#[test]
fn a_prune_on_another_machine_spares_what_was_stored_a_moment_ago() {
    let world = World::with_key_file();
    let (one, two) = (Machine::new(&world, "one"), Machine::new(&world, "two"));
    world.write("source/a", Random(1).bytes(500_000));
    one.run(&world, &["backup", "-q", "source"]).succeeds();
    two.run(&world, &["snapshots", "-q"]).succeeds();
    two.list();
    world.write("source/b", Random(2).bytes(500_000));
    one.run(&world, &["backup", "-q", "source"]).succeeds();
    two.run(&world, &AT_ONCE).succeeds();
    restores(&world);
    world.run(["check", "-q", "--read-data"]).succeeds();
    // And where a machine wrote before, it knows what others did.
    two.run(&world, &["backup", "-q", "source"]).succeeds();
    assert_eq!(world.run(["snapshots", "--json"]).succeeds().json().len(), 3);
    for kind in ["snapshots", "index", "pins", "marks"] {
        assert!(world.objects(kind).iter().all(|path| path.extension().is_none()), "a probe stays in {kind}");
    }
}

#[test]
fn a_prune_on_another_machine_sees_a_backup_that_has_just_begun() {
    let world = World::with_key_file();
    let two = Machine::new(&world, "two");
    forgotten_and_wanted_again(&world);
    two.list();
    let backup = Stopped::begin(&world, world.direct(["backup", "-q", "source"]));
    two.run(&world, &AT_ONCE).fails(11, &["still runs"]);
    backup.goes_on().succeeds();
    restores(&world);
    let machine = Machine::new(&world, "three");
    machine.run(&world, &AT_ONCE).succeeds();
    restores(&world);
}

/// Process numbers mean nothing in another container, though it has the name of this machine and uses this cache.
#[test]
fn a_prune_does_not_take_a_backup_in_another_container_for_dead() {
    let world = World::with_key_file();
    forgotten_and_wanted_again(&world);
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    // Under a number that no process here has.
    let free = (20_000..).find(|number| !Path::new(&format!("/proc/{number}")).exists()).unwrap();
    let script = format!("echo {} > /proc/sys/kernel/ns_last_pid; \"$@\"; exit $?", free - 1);
    command.args(["--pid", "--fork", "--kill-child", "sh", "-ec", &script, "sh", crate::support::run::FIRN]);
    command.args(["backup", "-q", "source"]);
    world.surround(&mut command, &[]);
    let backup = Stopped::begin(&world, command);
    assert!(!Path::new(&format!("/proc/{free}")).exists());
    world.run(AT_ONCE).fails(11, &["still runs"]);
    assert_eq!(world.objects("revokes"), Vec::<PathBuf>::new());
    backup.goes_on().succeeds();
    restores(&world);
    // One of this machine that was killed is known to be dead.
    std::fs::remove_file(world.path("source/old")).unwrap();
    world.write("source/newer", Random(3).bytes(100_000_000));
    world.run(["forget", "-q", "--yes-really", "latest"]).succeeds();
    let killed = Stopped::begin(&world, world.direct(["backup", "-q", "source"]));
    drop(killed);
    assert_eq!(world.objects("pins").len(), 1);
    world.run(AT_ONCE).succeeds();
    assert_eq!((world.objects("pins").len(), world.objects("revokes").len()), (0, 1));
}
