//! Is a mount exact, read-only, and well-behaved from start to end? Not for: the kernel's protocol (`fuse/` has tests).
//!
//! Needs /dev/fuse. Where there is none, `FIRN_TEST_NO_FUSE=1` skips these tests; without it they fail.

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

mod closed;
mod contract;
mod exact;
mod layouts;
mod life;
mod living;
mod managers;
mod nfs;
mod past;
mod samba;
mod table;
mod xattrs;

use crate::support::run::World;
use rustix::process::Pid;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub(crate) use crate::support::without_fuse;

/// A mount by the program in the foreground, ended with it.
pub(crate) struct Mount {
    child: Child,
    point: PathBuf,
}

impl Mount {
    /// Mounts on a new folder of the world, with more arguments behind the folder.
    #[track_caller]
    pub(crate) fn of(world: &World, arguments: &[&str]) -> Mount {
        let point = (0..).map(|number| world.path(&format!("mount-{number}"))).find(|path| !path.exists()).unwrap();
        std::fs::create_dir(&point).unwrap();
        Mount::on(world, &point, arguments)
    }

    /// Mounts on this folder.
    #[track_caller]
    pub(crate) fn on(world: &World, point: &Path, arguments: &[&str]) -> Mount {
        let mut command = world.command(["mount", point.to_str().unwrap()].iter().chain(arguments), &[]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if !line.starts_with("Mounted on ") {
            let output = child.wait_with_output().unwrap();
            panic!("{line}{}", String::from_utf8_lossy(&output.stderr));
        }
        Mount { child, point: point.to_path_buf() }
    }

    /// A path in the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// What a snapshot or another folder of the mount has of a path of the world.
    pub(crate) fn below(&self, world: &World, folder: &str, name: &str) -> PathBuf {
        self.path(folder).join(world.path(name).strip_prefix("/").unwrap())
    }

    /// The program's process: the one that `setsid` became, or its child.
    pub(crate) fn program(&self) -> Pid {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let child = children.split_whitespace().next().and_then(|text| text.parse().ok());
        Pid::from_raw(child.unwrap_or(id as i32)).unwrap()
    }

    /// Waits for the process to end and leaves what is on the folder as it is.
    fn forget(mut self) {
        self.child.wait().unwrap();
        self.point = PathBuf::new();
    }

    /// Waits for the end; with everything that was said on standard error.
    #[track_caller]
    fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    let state = std::fs::read_to_string(format!("/proc/{}/status", self.program().as_raw_nonzero()));
                    drop(Command::new("umount").arg("-l").arg(&self.point).status());
                    let _ = rustix::process::kill_process(self.program(), rustix::process::Signal::KILL);
                    let mut said = String::new();
                    std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut said).unwrap();
                    panic!("the mount does not end: {said}{state:?}");
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut said = String::new();
        std::io::Read::read_to_string(self.child.stderr.as_mut().unwrap(), &mut said).unwrap();
        (status, said)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if is_mounted(&self.point) {
            drop(Command::new("fusermount3").args(["-u", "-z"]).arg(&self.point).status());
        }
        drop(self.child.wait());
    }
}

/// Another project's server that gives a mount on, reached from this machine alone; ended with it.
struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// A port that nobody uses.
    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// Starts it and waits until it answers on this port.
    fn start(command: &mut Command, port: u16, log: PathBuf) -> Server {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Server { child, port, log };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{}", server.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// What it wrote into its log.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The names in a folder, sorted.
fn listed(path: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(path).unwrap().map(name).collect();
    names.sort();
    names
}

/// The names at the root of a mount of snapshots, without those that tell programs not to index it, which are there.
#[track_caller]
fn top(path: &Path) -> Vec<String> {
    let mut names = listed(path);
    let markers: Vec<String> = names.drain(..3).collect();
    assert_eq!(markers, [".metadata_never_index", ".nomedia", ".trackerignore"]);
    for marker in markers {
        let known = path.join(marker).metadata().unwrap();
        assert_eq!((known.len(), known.permissions().readonly()), (0, true));
    }
    names
}

/// Whether something is mounted there.
fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    table.lines().any(|line| line.split(' ').nth(1) == point.to_str())
}
