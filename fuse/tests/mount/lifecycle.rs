//! Does mounting explain itself, and does unmounting do what it says, whoever does it and when?

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firn_fuse::{MountError, Options, UnmountError, clear_dead, mount};

use crate::memory::{Body, Object, Shared, Tree, pattern_range};
use crate::support::{Live, needs_fuse, needs_root};

const POINT: &str = "FIRN_FUSE_TEST_POINT";
const USER_POINT: &str = "FIRN_FUSE_TEST_USER_POINT";

fn sample() -> Tree {
    let tree = Tree::new();
    tree.add(1, "f", Object::file(2, 100_000, Body::Pattern));
    tree.add(1, "d", Object::dir(3));
    tree.add(3, "child", Object::bytes(4, b"x"));
    tree
}

fn mount_lines(point: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let wanted = format!(" {} ", point.canonicalize().unwrap_or_else(|_| point.to_owned()).display());
    table.lines().filter(|line| line.contains(&wanted)).map(str::to_owned).collect()
}

/// A process of its own that serves a mount (this test binary again); killed and cleaned up with the test.
struct Served(Child, PathBuf);

impl Served {
    fn new(point: &Path) -> Served {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "lifecycle::helper_that_serves", "--nocapture"]).env(POINT, point);
        let mut served = Served(command.stdout(Stdio::piped()).spawn().unwrap(), point.to_owned());
        let lines = BufReader::new(served.0.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("ready:"));
        assert_eq!(ready.as_deref(), Some("ready: ok"));
        served
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = clear_dead(&self.1, "firn");
    }
}

/// Not a test by itself: serves a mount when called by [`Served::new`].
#[test]
fn helper_that_serves() {
    let Some(point) = std::env::var_os(POINT) else { return };
    match mount(Shared(Arc::new(sample())), Path::new(&point), &Options::default(), |_| ()) {
        Ok(mounted) => {
            println!("\nready: ok");
            mounted.wait().unwrap();
        }
        Err(error) => println!("\nready: {error} / {}", error.hint()),
    }
}

#[test]
fn the_mount_table_says_what_it_is() {
    needs_fuse!();
    let options = Options { fs_name: "my, repo\\s".into(), ..Options::default() };
    let live = Live::with(sample(), &options);
    let lines = mount_lines(live.root());
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("my,\\040repo\\134s "), "{}", lines[0]);
    assert!(lines[0].contains(" fuse.firn ro,nosuid,nodev,noatime"), "{}", lines[0]);
    let error = firn_fuse::check(live.root(), &options).unwrap_err();
    assert!(matches!(&error, MountError::AlreadyMounted { source, .. } if source == "my, repo\\s"), "{error}");
    assert!(error.hint().contains("fusermount3 -u /"), "{}", error.hint());
}

#[test]
fn unmounting_leaves_an_empty_directory() {
    needs_fuse!();
    let mut live = Live::new(sample());
    assert!(live.path("f").exists());
    live.mounted.take().unwrap().unmount().unwrap();
    assert_eq!(fs::read_dir(live.root()).unwrap().count(), 0);
    assert!(mount_lines(live.root()).is_empty());
    assert_eq!(Arc::strong_count(&live.tree), 1, "the tree is still in use");
}

#[test]
fn a_busy_mount_says_by_whom_and_goes_on() {
    needs_fuse!();
    let mut live = Live::new(sample());
    let file = File::open(live.path("f")).unwrap();
    let (mounted, error) = live.mounted.take().unwrap().unmount().unwrap_err();
    let UnmountError::Busy { holders, .. } = &error else { panic!("{error}") };
    assert!(holders.iter().any(|holder| holder.pid == std::process::id() && holder.path.ends_with("f")), "{holders:?}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    // It is unharmed; and trying again is allowed.
    assert!(fs::read(live.path("f")).unwrap() == pattern_range(0, 100_000));
    let unmounter = mounted.unmounter();
    assert!(matches!(unmounter.unmount(), Err(UnmountError::Busy { .. })));
    // Out of sight at once, but the open file works to the end.
    unmounter.detach().unwrap();
    assert_eq!(fs::read_dir(live.root()).unwrap().count(), 0);
    let mut bytes = [0; 100];
    file.read_exact_at(&mut bytes, 99_900).unwrap();
    assert_eq!(bytes[..], pattern_range(99_900, 100));
    assert!(!mounted.is_ended());
    unmounter.unmount().unwrap();
    drop(file);
    mounted.wait().unwrap();
}

#[test]
fn waiting_ends_when_others_unmount() {
    needs_root!();
    for program in [&["umount"][..], &["fusermount3", "-u"]] {
        let mut live = Live::new(sample());
        let point = live.root().to_owned();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            Command::new(program[0]).args(&program[1..]).arg(point).status().unwrap().success()
        });
        let mounted = live.mounted.take().unwrap();
        let unmounter = mounted.unmounter();
        mounted.wait().unwrap();
        assert!(thread.join().unwrap());
        // Nothing left to do is success.
        unmounter.unmount().unwrap();
        unmounter.detach().unwrap();
    }
}

#[test]
fn what_others_mounted_since_is_not_unmounted() {
    needs_root!();
    let mut live = Live::new(sample());
    let old = live.mounted.take().unwrap();
    assert!(Command::new("umount").arg(live.root()).status().unwrap().success());
    let again = mount(Shared(Arc::new(sample())), live.root(), &Options::default(), |_| ()).unwrap();
    old.unmounter().unmount().unwrap();
    old.unmounter().detach().unwrap();
    drop(old);
    assert!(live.path("f").exists());
    again.unmount().unwrap();
}

#[test]
fn something_mounted_on_top_is_named() {
    needs_root!();
    let live = Live::new(sample());
    let top = Command::new("mount").args(["-t", "tmpfs", "on-top"]).arg(live.root()).status().unwrap();
    assert!(top.success());
    let result = live.mounted().unmounter().unmount();
    assert!(Command::new("umount").arg(live.root()).status().unwrap().success());
    assert!(matches!(&result, Err(UnmountError::Covered { source, .. }) if source == "on-top"), "{result:?}");
}

#[test]
fn a_dead_mount_is_explained_and_can_be_cleared() {
    needs_fuse!();
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::new(dir.path());
    assert!(fs::read(dir.path().join("f")).unwrap() == pattern_range(0, 100_000));
    let alive = firn_fuse::check(dir.path(), &Options::default()).unwrap_err();
    assert!(matches!(alive, MountError::AlreadyMounted { .. }), "{alive}");
    assert!(!clear_dead(dir.path(), "firn").unwrap(), "a living mount was cleared");
    // What the kernel keeps must not make a dead mount look alive.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    served.kill();
    // It stays visibly broken.
    assert!(fs::metadata(dir.path().join("absent")).is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound));
    let point = dir.path().canonicalize().unwrap_or_else(|_| dir.path().to_owned());
    for path in [point.clone(), point.join("d")] {
        let error = mount(Shared(Arc::new(sample())), &path, &Options::default(), |_| ()).unwrap_err();
        assert!(matches!(&error, MountError::Dead(dead) if *dead == point), "{error}");
        assert!(error.hint().contains(&format!("umount -l {}", point.display())), "{}", error.hint());
    }
    assert!(!clear_dead(dir.path(), "other").unwrap());
    assert!(clear_dead(dir.path(), "firn").unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The device is only root's on some machines, so that user gets one in a mount namespace of its own.
#[test]
fn a_user_mounts_through_the_helper() {
    needs_root!();
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
        set -e
        chmod 755 "$DIR"; mkdir "$DIR/mine"; chown 65534:65534 "$DIR/mine"
        cp "$BINARY" "$DIR/binary"; chmod 755 "$DIR/binary"
        mknod "$DIR/fuse" c 10 229; chmod 666 "$DIR/fuse"
        mount --bind "$DIR/fuse" /dev/fuse
        cd /
        exec setpriv --reuid 65534 --regid 65534 --clear-groups "$DIR/binary" --exact lifecycle::helper_that_is_a_user --nocapture
    "#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .env("DIR", dir.path())
        .env("BINARY", std::env::current_exe().unwrap())
        .env(USER_POINT, dir.path().join("mine"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("all is well"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Not a test by itself: what a user other than root sees.
#[test]
fn helper_that_is_a_user() {
    let Some(point) = std::env::var_os(USER_POINT) else { return };
    let point = Path::new(&point);
    let options = Options { fs_name: "my, repo".into(), ..Options::default() };
    let serve = |options: &Options, point: &Path| mount(Shared(Arc::new(sample())), point, options, |_| ());
    let mounted = serve(&options, point).unwrap();
    let lines = mount_lines(point);
    assert!(lines.len() == 1 && lines[0].contains(" fuse.firn ro,nosuid,nodev,noatime"), "{lines:?}");
    assert!(lines[0].starts_with("my,\\040repo ") && lines[0].contains("user_id=65534"), "{lines:?}");
    let file = File::open(point.join("f")).unwrap();
    let (mounted, error) = mounted.unmount().unwrap_err();
    assert!(matches!(error, UnmountError::Busy { .. }), "{error}");
    drop(file);
    mounted.unmount().unwrap();
    let mounted = serve(&options, point).unwrap();
    let file = File::open(point.join("f")).unwrap();
    mounted.unmounter().detach().unwrap();
    assert!(mount_lines(point).is_empty());
    drop(file);
    mounted.wait().unwrap();
    let other = serve(&Options { allow_other: true, ..options.clone() }, point);
    if !fs::read_to_string("/etc/fuse.conf").unwrap_or_default().lines().any(|line| line.trim() == "user_allow_other") {
        assert!(matches!(other, Err(MountError::AllowOtherDenied)), "{other:?}");
    }
    drop(other);
    let foreign = point.parent().unwrap().join("foreign");
    assert!(matches!(serve(&options, &foreign), Err(MountError::NotFound(_))));
    let error = serve(&Options { allow_non_empty: true, ..options }, point.parent().unwrap()).unwrap_err();
    assert!(matches!(error, MountError::Denied { .. }), "{error:?}");
    println!("all is well");
}

#[test]
fn numbers_are_the_same_after_a_remount() {
    needs_fuse!();
    let numbers = |live: &Live| ["", "f", "d", "d/child"].map(|name| fs::metadata(live.path(name)).unwrap().ino());
    let mut live = Live::new(sample());
    let before = numbers(&live);
    assert_eq!(before, [1, 2, 3, 4]);
    live.mounted.take().unwrap().unmount().unwrap();
    let again = mount(Shared(Arc::new(sample())), live.root(), &Options::default(), |_| ()).unwrap();
    assert_eq!(numbers(&live), before);
    again.unmount().unwrap();
}

#[test]
fn a_tree_without_a_proper_root_is_not_mounted() {
    needs_fuse!();
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::default();
    let root = Object::dir(1);
    let attr = firn_fuse::Attr { ino: 7, ..root.attr };
    tree.objects.write().unwrap().insert(1, Arc::new(Object { attr, ..root }));
    let error = mount(Shared(Arc::new(tree)), dir.path(), &Options::default(), |_| ()).unwrap_err();
    assert!(matches!(error, MountError::Invalid(_)), "{error}");
    assert!(mount_lines(dir.path()).is_empty());
}

#[test]
fn dropping_the_handle_unmounts_even_a_busy_mount() {
    needs_fuse!();
    let mut live = Live::new(sample());
    let file = File::open(live.path("f")).unwrap();
    drop(live.mounted.take());
    assert!(mount_lines(live.root()).is_empty());
    drop(file);
}

#[test]
fn mounting_is_quick() {
    needs_fuse!();
    let start = Instant::now();
    for _ in 0..10 {
        let mut live = Live::new(sample());
        assert!(live.path("f").exists());
        live.mounted.take().unwrap().unmount().unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
