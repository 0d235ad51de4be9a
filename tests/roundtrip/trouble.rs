//! Sources that cannot be read, change, or are not there: told, never hidden. Not for: a damaged repository.

use super::names;
use crate::mount::Mount;
use crate::support::nasty::Random;
use crate::support::run::World;
use crate::support::without_fuse;
use rustix::process::{Signal, kill_process};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_kept() {
    let world = World::with_repository();
    for name in ["a", "locked", "sub/b", "closed/c"] {
        world.write(&format!("source/{name}"), name);
    }
    for name in ["source/locked", "source/closed"] {
        fs::set_permissions(world.path(name), Permissions::from_mode(0o000)).unwrap();
    }
    let ran = world.run_as_nobody(&["backup", "--json", "source"]).fails(3, &["source/locked", "source/closed"]);
    assert_eq!(ran.json().last().unwrap()["error_count"], 2, "{ran:?}");
    let items: Vec<_> = ran.json_errors().iter().map(|line| line["item"].as_str().unwrap().to_owned()).collect();
    assert!(items.contains(&world.text("source/locked")), "{items:?}");
    let noted = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!(noted[0]["issues_total"], 2);
    world.run(["restore", &format!("latest:{}", world.text("source")), "-t", "out"]).succeeds();
    fs::set_permissions(world.path("out/closed"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(names(&world.path("out")), ["a", "closed", "sub", "sub/b"]);
    let said = world.run_as_nobody(&["backup", "source"]).fails(3, &["Warning: ", "The snapshot is not complete"]);
    assert!(said.stdout.contains("Made the snapshot"), "{said:?}");
}

#[test]
fn missing_roots() {
    let world = World::with_repository();
    world.write("source/a", "a");
    let ran = world.run(["backup", "nothing", "nor/this"]).fails(1, &["nothing", "nor/this"]);
    assert!(!ran.stdout.contains("Made the snapshot"), "{ran:?}");
    assert!(world.objects("snapshots").is_empty());
    let half = world.backup(3, ["source", "nothing"]);
    assert_eq!((&half["error_count"], &half["files_new"]), (&1.into(), &1.into()));
    let noted = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!((noted.len(), &noted[0]["issues_total"]), (1, &1.into()));
}

#[test]
fn an_only_source_that_cannot_be_read_makes_no_snapshot() {
    let world = World::with_key_file();
    for name in ["a", "closed/f", "closed/g/h"] {
        world.write(&format!("source/{name}"), name);
    }
    world.backup(0, ["source"]);
    for name in ["source/a", "source/closed"] {
        fs::set_permissions(world.path(name), Permissions::from_mode(0o000)).unwrap();
    }
    // Neither is a file missing that may not be looked for.
    let named =
        [&["source/closed/f"][..], &["source/closed/g/h"], &["source/closed"], &["source/a"], &["source/a", "no/such"]];
    for paths in named {
        let ran = world.run_as_nobody(&[&["backup"], paths].concat()).fails(1, &[paths[0], "ermission denied"]);
        assert!(!ran.stdout.contains("Made the snapshot"), "{ran:?}");
        let said = ran.stderr.to_lowercase();
        assert!(!said.contains("exist") && !said.contains("there is no") || paths.len() > 1, "{ran:?}");
        assert_eq!(world.objects("snapshots").len(), 1, "{paths:?}: what is \"latest\" stays");
    }
    world.write("source/b", "b");
    let ran = world.run_as_nobody(&["backup", "source/b", "source/closed/f"]);
    ran.fails(3, &["source/closed/f", "ermission denied"]);
    fs::set_permissions(world.path("source/closed"), Permissions::from_mode(0o700)).unwrap();
}

/// Runs `work` while another thread writes to a file, again and again.
fn while_written(file: &File, write: impl Fn(&File, u64) + Sync, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| (1..).take_while(|_| !stop.load(Relaxed)).for_each(|round| write(file, round)));
        work();
        stop.store(true, Relaxed);
    });
}

#[test]
fn a_file_that_grows_is_a_beginning_of_itself() {
    let world = World::with_repository();
    let text =
        |from: u64, len: usize| -> Vec<u8> { (from..).flat_map(|n| (n as u32).to_le_bytes()).take(len).collect() };
    world.write("source/log", text(0, 4 << 20));
    world.write("source/calm", "calm");
    let log = File::options().write(true).open(world.path("source/log")).unwrap();
    let grow = |file: &File, round: u64| {
        let from = (1 << 20) + (round - 1) * 256;
        if round < 20_000 {
            file.write_all_at(&text(from, 1024), from * 4).unwrap();
        }
    };
    while_written(&log, grow, || {
        let ran = world.run(["backup", "source"]);
        assert!(ran.code == 0 || ran.code == 3 && ran.stderr.contains("changed while it was read"), "{ran:?}");
    });
    world.run(["restore", &format!("latest:{}", world.text("source")), "-t", "out"]).succeeds();
    let kept = fs::read(world.path("out/log")).unwrap();
    assert!(kept.len() >= 4 << 20 && kept == text(0, kept.len()), "{} bytes", kept.len());
    assert_eq!(fs::read(world.path("out/calm")).unwrap(), b"calm");
}

#[test]
fn a_file_is_never_torn_in_silence() {
    const LEN: usize = 1 << 20;
    let world = World::with_repository();
    world.write("source/torn", vec![0; LEN]);
    let file = File::options().write(true).open(world.path("source/torn")).unwrap();
    // In two halves, so that a reader between them sees a state that never was.
    let rewrite = |file: &File, round: u64| {
        let half = vec![round as u8; LEN / 2];
        file.write_all_at(&half, 0).unwrap();
        file.write_all_at(&half, LEN as u64 / 2).unwrap();
        // As programs that copy do; the change time cannot be set.
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let mut codes = Vec::new();
    while_written(&file, rewrite, || codes.extend((0..4).map(|_| world.run(["backup", "source"]).code)));
    let noted = world.run(["snapshots", "--json"]).succeeds().json();
    for (at, code) in codes.iter().enumerate() {
        let told = noted[at]["issues_total"] == 1;
        assert!(*code == 3 && told || *code == 0 && !told, "{codes:?} {noted:?}");
        let address = format!("{}:{}", noted[at]["snapshot_id"].as_str().unwrap(), world.text("source"));
        let out = format!("out-{at}");
        world.run(["restore", &address, "-t", &out]).succeeds();
        let kept = fs::read(world.path(&out).join("torn")).unwrap();
        let torn = kept.len() != LEN || kept.iter().any(|byte| *byte != kept[0]);
        assert!(!torn || told, "run {at} kept a torn file and said nothing");
    }
    // Once it is calm, it is kept as it is, though its size never changed.
    world.backup(0, ["source"]);
    world.run(["restore", &format!("latest:{}", world.text("source")), "-t", "calm"]).succeeds();
    assert_eq!(fs::read(world.path("calm/torn")).unwrap(), fs::read(world.path("source/torn")).unwrap());
}

#[test]
fn a_mapped_file_is_never_torn_in_silence() {
    const LEN: usize = 8 << 20;
    let world = World::with_repository();
    world.write("source/torn", vec![0; LEN]);
    // Stores into a mapping set no times until the kernel has written the page: nothing but the content tells of them.
    let script = "import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nh = len(m) // 2\n\
        k = 0\nprint(flush=True)\nwhile True:\n    k = (k + 1) % 256\n    m[:h] = bytes([k]) * h\n    \
        m[h:] = bytes([k]) * h\n";
    let mut writer = Command::new("python3")
        .args(["-c", script])
        .arg(world.path("source/torn"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let ran = world.run(["backup", "source"]);
    let gone = writer.try_wait().unwrap();
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(gone.is_none(), "the writer writes on");
    ran.fails(3, &["source/torn", "changed while it was read"]);
    let noted = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!(noted[0]["issues_total"], 1, "told once");
    // With no writer it is what it is, at once.
    world.backup(0, ["source"]);
    world.run(["restore", &format!("latest:{}", world.text("source")), "-t", "calm"]).succeeds();
    assert_eq!(fs::read(world.path("calm/torn")).unwrap(), fs::read(world.path("source/torn")).unwrap());
}

/// A call that writes all of a file, and gets no further while the mount is stopped that its bytes come from.
struct LongWrite {
    mount: Mount,
    writer: Child,
    file: File,
    new: Vec<u8>,
}

impl LongWrite {
    const LEN: usize = 8 << 20;
    const OLD: u8 = 7;

    /// Over `source/file`; it has begun, and stands still.
    fn begin(world: &World) -> LongWrite {
        let new = Random(8).bytes(LongWrite::LEN);
        world.write("slow/new", &new);
        world.backup(0, ["slow"]);
        fs::remove_dir_all(world.path("slow")).unwrap();
        world.write("source/file", vec![LongWrite::OLD; LongWrite::LEN]);
        let mount = Mount::of(world, &[&format!("latest:{}", world.text("slow"))]);
        let script = "import mmap, os, sys\nf = os.open(sys.argv[1], os.O_RDONLY)\ng = os.open(sys.argv[2], os.O_WRONLY)\n\
            m = mmap.mmap(f, 0, prot=mmap.PROT_READ)\nassert m[0] == int(sys.argv[3])\nprint(flush=True)\n\
            sys.stdin.read()\nassert os.pwrite(g, m, 0) == len(m)\n";
        let mut writer = Command::new("python3");
        writer.args(["-c", script]).arg(mount.path("new")).arg(world.path("source/file")).arg(new[0].to_string());
        let mut writer = writer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writer.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        kill_process(mount.program(), Signal::STOP).unwrap();
        drop(writer.stdin.take());
        let file = File::open(world.path("source/file")).unwrap();
        let write = LongWrite { mount, writer, file, new };
        while write.byte(0) == LongWrite::OLD {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        write
    }

    fn byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset).unwrap();
        byte[0]
    }

    fn stands_still(&mut self) -> bool {
        self.writer.try_wait().unwrap().is_none() && self.byte(LongWrite::LEN as u64 - 1) == LongWrite::OLD
    }

    fn end(&mut self) {
        kill_process(self.mount.program(), Signal::CONT).unwrap();
        assert!(self.writer.wait().unwrap().success());
    }
}

impl Drop for LongWrite {
    fn drop(&mut self) {
        let _ = kill_process(self.mount.program(), Signal::CONT);
        drop(self.writer.wait());
    }
}

/// The file in the latest snapshot.
fn kept(world: &World, name: &str) -> Vec<u8> {
    world.run(["restore", &format!("latest:{}", world.text("source")), "-t", name]).succeeds();
    fs::read(world.path(name).join("file")).unwrap()
}

#[test]
fn one_long_write_is_never_torn_in_silence() {
    if without_fuse() {
        return;
    }
    let world = World::with_key_file();
    let mut write = LongWrite::begin(&world);
    let mut backup = world.direct(["backup", "source"]).stdout(Stdio::null()).spawn().unwrap();
    // It may end now, or wait for the write.
    for _ in 0..40 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        if backup.try_wait().unwrap().is_some() {
            break;
        }
    }
    let stood_still = write.stands_still();
    write.end();
    let code = backup.wait().unwrap().code();
    assert!(stood_still, "the write was to stop on its way");
    let found = kept(&world, "out");
    let is_told = world.run(["snapshots", "--json"]).succeeds().json().last().unwrap()["issues_total"] == 1;
    let is_whole = found == write.new || found.iter().all(|byte| *byte == LongWrite::OLD);
    assert!(code == Some(3) && is_told || code == Some(0) && !is_told && is_whole, "{code:?}");
    // Whatever is remembered of it, in the end it is what it is.
    world.backup(0, ["source"]);
    assert!(kept(&world, "calm") == write.new);
}

#[test]
fn a_write_that_goes_no_further_does_not_hold_up_a_backup() {
    if without_fuse() {
        return;
    }
    let world = World::with_key_file();
    let mut write = LongWrite::begin(&world);
    world.write("source/other", "other");
    let before = world.objects("snapshots").len();
    let mut backup = world.direct(["backup", "source"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // How long it waits is its own affair; here it matters that this ends.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(240);
    while world.objects("snapshots").len() == before && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let (stood_still, made) = (write.stands_still(), world.objects("snapshots").len() - before);
    write.end();
    assert_eq!((stood_still, made, backup.wait().unwrap().code()), (true, 1, Some(3)));
    let noted = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!(noted.last().unwrap()["issues_total"], 1, "told once");
    kept(&world, "out");
    assert_eq!(fs::read_to_string(world.path("out/other")).unwrap(), "other");
}

#[test]
fn files_that_state_no_size_have_their_content() {
    let world = World::with_repository();
    let files = ["/proc/sys/kernel/ostype", "/proc/version", "/sys/devices/system/cpu/possible"];
    for _ in 0..2 {
        world.backup(0, files);
        for file in files {
            let kept = world.run(["dump", &format!("latest:{file}")]).succeeds().stdout;
            assert_eq!(kept, fs::read_to_string(file).unwrap(), "{file}");
        }
    }
}
