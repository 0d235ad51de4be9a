//! The system calls that `std` lacks, as safe functions; the only file with `unsafe`. Not for: deciding what to do with
//! the answers.

#![allow(unsafe_code)]

mod files;
mod partial;
mod paths;
mod systems;
pub use files::*;
pub use partial::*;
pub use paths::*;
pub use systems::*;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Raises the limit of open files to what the administrator allows; how many that is.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // A refusal leaves the old limit, which is good enough to work with.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Keeps threads from having heaps of their own, which is what GNU's allocator gives each: blocks of half a MiB that one thread
/// frees would not serve the next, and a mount with thirty threads takes a third more memory. To be called before any thread begins.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a number in the allocator; no other thread runs yet. A refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 4);
    }
}

/// Set where thousands of small stages follow each other in one process: the allocator looks through all that was ever freed, which
/// takes longer than they do.
#[cfg(test)]
pub(crate) static KEEP_MEMORY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Gives back to the system what was freed, which GNU's allocator otherwise keeps: for the end of a stage that needed much.
pub fn return_memory() {
    #[cfg(test)]
    if KEEP_MEMORY.load(std::sync::atomic::Ordering::Relaxed) {
        return;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps the memory of this process out of core files, which would hold its secrets. Returns whether it worked.
pub fn forbid_core_files() -> bool {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_ok()
}

/// The time since the machine was started, in which it may have slept.
pub fn boot_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    std::time::Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The most memory that this process ever had resident, in bytes. (Not `getrusage`: that survives `execve`.)
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The memory of this machine, or of the container if that is less, in bytes.
pub fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = (info.totalram as u64).saturating_mul(info.mem_unit.into());
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    limit.and_then(|text| text.trim().parse().ok()).map_or(machine, |limit: u64| limit.min(machine))
}

/// How many processors this process may use, at least 1.
pub fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether this process acts as the administrator.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The number of the user for whom this process acts.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The number of the group for which this process acts.
pub fn group_id() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Whether no process of this machine has the regular file, opened for reading, open for writing or mapped so. `None` where this
/// cannot be told: the file is of another user, or its file system has no leases.
///
/// The kernel grants a lease for reading exactly if there is no writer. It is returned at once; a process that opens the file for
/// writing in that very moment waits for this.
pub fn has_no_writer(file: impl AsFd) -> Option<bool> {
    /// Not in the `libc` crate.
    const F_SETSIG: libc::c_int = 10;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: these commands take a number and touch no memory of this process; the descriptor lives through the calls. The signal
    // that tells of a writer is one that does nothing, where SIGIO would end the process.
    let lease = |kind: libc::c_int| unsafe { libc::fcntl(fd, libc::F_SETLEASE, kind) };
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) } != 0 {
        return None;
    }
    if lease(libc::F_RDLCK) == 0 {
        return (lease(libc::F_UNLCK) == 0).then_some(true);
    }
    (io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)).then_some(false)
}

/// The number of this process.
pub fn process_id() -> u32 {
    std::process::id()
}

/// Whether there is a process with this number; one that may not be seen counts.
fn is_process(number: u32) -> bool {
    let pid = i32::try_from(number).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// What tells a process from any other, of whatever machine: process numbers are given again, and mean nothing in another container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The kernel's id of this boot.
    pub boot: String,
    /// The namespace of the process number.
    pub namespace: u64,
    /// When it was started, in the kernel's ticks since the boot.
    pub started: u64,
}

/// Of this process; nothing where the system does not tell.
pub fn process_identity() -> Option<ProcessIdentity> {
    use std::os::unix::fs::MetadataExt;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
    Some(ProcessIdentity { boot, namespace, started: start_ticks("self")? })
}

/// Whether the process that had this number and identity is still there. Only a process that could be seen from here can be missed:
/// one of another boot or namespace counts as there.
pub fn is_alive(number: u32, identity: &ProcessIdentity) -> bool {
    let Some(own) = process_identity() else { return true };
    if (&own.boot, own.namespace) != (&identity.boot, identity.namespace) {
        return true;
    }
    if !is_process(number) {
        return false;
    }
    // /proc may be that of another namespace, where the number belongs to somebody else.
    let shown = std::fs::read_link("/proc/self").ok();
    let is_ours = shown.is_some_and(|shown| shown.as_os_str() == process_id().to_string().as_str());
    !is_ours || start_ticks(&number.to_string()).is_none_or(|started| started == identity.started)
}

/// The 22nd field of `stat`; the second, in parentheses, may hold anything.
fn start_ticks(process: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// The name of this machine; bytes that are not UTF-8 are replaced.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of the user for whom this process acts; the number if it has none.
pub fn username() -> String {
    let uid = user_id();
    let name = user_name(uid);
    if name.is_empty() { uid.to_string() } else { String::from_utf8_lossy(&name).into_owned() }
}

// Calls one of the re-entrant look-ups of the C library with a buffer that grows as it asks; `None`: no such name or
// number, or the name service failed (which a backup treats the same: it keeps the number).
fn look_up<R, T>(
    mut call: impl FnMut(*mut R, *mut libc::c_char, usize, *mut *mut R) -> libc::c_int,
    take: impl FnOnce(&R) -> T,
) -> Option<T> {
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let mut record = std::mem::MaybeUninit::<R>::zeroed();
        let mut found = std::ptr::null_mut();
        match call(record.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) {
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            0 if !found.is_null() => {
                // SAFETY: the call succeeded, so `found` points to `record`, whose strings are in `buffer`; both live on.
                return Some(take(unsafe { &*found }));
            }
            _ => return None,
        }
    }
}

// SAFETY (of the caller): `text` is null or a C string that lives through the call.
unsafe fn short_name(text: *const libc::c_char) -> Vec<u8> {
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: not null, and a C string as promised by the caller.
    let name = unsafe { CStr::from_ptr(text) }.to_bytes();
    if name.len() > 255 { Vec::new() } else { name.to_vec() }
}

/// The name of a user, empty if unknown or longer than 255 bytes.
pub fn user_name(uid: u32) -> Vec<u8> {
    // SAFETY: the pointers are those of a live record, a live buffer of that length, and a live result.
    let call = |record, buffer, len, found| unsafe { libc::getpwuid_r(uid, record, buffer, len, found) };
    // SAFETY: a record that was found has a C string there.
    look_up(call, |record: &libc::passwd| unsafe { short_name(record.pw_name) }).unwrap_or_default()
}

/// The name of a group, empty if unknown or longer than 255 bytes.
pub fn group_name(gid: u32) -> Vec<u8> {
    // SAFETY: the pointers are those of a live record, a live buffer of that length, and a live result.
    let call = |record, buffer, len, found| unsafe { libc::getgrgid_r(gid, record, buffer, len, found) };
    // SAFETY: a record that was found has a C string there.
    look_up(call, |record: &libc::group| unsafe { short_name(record.gr_name) }).unwrap_or_default()
}

fn find_user(name: &[u8]) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: as in `user_name`, and `name` lives through the call.
    let call = |record, buffer, len, found| unsafe { libc::getpwnam_r(name.as_ptr(), record, buffer, len, found) };
    look_up(call, |record: &libc::passwd| record.pw_uid)
}

fn find_group(name: &[u8]) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: as in `group_name`, and `name` lives through the call.
    let call = |record, buffer, len, found| unsafe { libc::getgrnam_r(name.as_ptr(), record, buffer, len, found) };
    look_up(call, |record: &libc::group| record.gr_gid)
}

// What the name service said, kept for the length of one operation.
type Known<K, V> = Mutex<HashMap<K, V>>;

fn remember<K: Clone + Eq + std::hash::Hash, V: Clone>(known: &Known<K, V>, key: K, ask: impl FnOnce() -> V) -> V {
    if let Some(value) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return value.clone();
    }
    // Asked without the lock: a name service may take seconds, and two threads that ask twice do no harm.
    let value = ask();
    known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value.clone());
    value
}

/// Names of users and groups and back, each asked of the system once.
#[derive(Debug, Default)]
pub struct Names {
    users: Known<u32, Arc<[u8]>>,
    groups: Known<u32, Arc<[u8]>>,
    user_ids: Known<Vec<u8>, Option<u32>>,
    group_ids: Known<Vec<u8>, Option<u32>>,
}

impl Names {
    /// The name of a user, empty if unknown.
    pub fn user(&self, uid: u32) -> Arc<[u8]> {
        remember(&self.users, uid, || user_name(uid).into())
    }

    /// The name of a group, empty if unknown.
    pub fn group(&self, gid: u32) -> Arc<[u8]> {
        remember(&self.groups, gid, || group_name(gid).into())
    }

    /// The number of the user with this name.
    pub fn user_id(&self, name: &[u8]) -> Option<u32> {
        remember(&self.user_ids, name.to_vec(), || find_user(name))
    }

    /// The number of the group with this name.
    pub fn group_id(&self, name: &[u8]) -> Option<u32> {
        remember(&self.group_ids, name.to_vec(), || find_group(name))
    }
}

/// Which of the two processes this is after `fork_into_background`.
#[derive(Debug)]
pub enum Forked {
    /// The old one: it waits for word and then exits.
    Parent(Background),
    /// The new one: it works on and gives word once.
    Child(Readiness),
}

/// The parent's view of the process in the background.
#[derive(Debug)]
pub struct Background {
    /// Its number.
    pub pid: u32,
    pipe: std::fs::File,
}

/// What became of the process in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Ready,
    /// It gave up with this exit code (not 0) and message.
    Failed(u8, String),
    /// It ended without a word.
    Died,
}

impl Background {
    /// Waits until the other process gives word or ends.
    pub fn wait(self) -> io::Result<Outcome> {
        let mut said = Vec::new();
        self.pipe.take(65_536).read_to_end(&mut said)?;
        Ok(match said.split_first() {
            None => Outcome::Died,
            Some((0, _)) => Outcome::Ready,
            Some((code, text)) => Outcome::Failed(*code, String::from_utf8_lossy(text).into_owned()),
        })
    }
}

/// The child's end of the pipe. Dropped unused, it tells the parent that the child died.
#[derive(Debug)]
pub struct Readiness(std::fs::File);

impl Readiness {
    /// Lets go of the terminal (standard streams become `/dev/null`) and tells the parent that all is well.
    pub fn ready(mut self) -> io::Result<()> {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        self.0.write_all(&[0])
    }

    /// Tells the parent to print `message` and to exit with `code` (0 is taken as 1).
    pub fn failed(mut self, code: u8, message: &str) -> io::Result<()> {
        let text = &message.as_bytes()[..message.len().min(65_535)];
        self.0.write_all(&[&[code.max(1)], text].concat())
    }
}

/// Splits this process in two; the child leads a session of its own and stands in `/`.
///
/// Must be called while this process has a single thread: a child of `fork` has no other threads, but keeps their locks.
/// Refused (`ErrorKind::Other`) if `/proc` shows more than one.
pub fn fork_into_background() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::other("a process with several threads cannot go into the background"));
    }
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: there is only this thread (checked above, and demanded), so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            rustix::process::setsid()?;
            rustix::process::chdir(c"/")?;
            Ok(Forked::Child(Readiness(write.into())))
        }
        pid => Ok(Forked::Parent(Background { pid: pid.unsigned_abs(), pipe: read.into() })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_both_ways() {
        let names = Names::default();
        assert_eq!(&*names.user(0), b"root");
        assert_eq!(&*names.group(0), b"root");
        assert_eq!(names.user_id(b"root"), Some(0));
        assert_eq!(names.group_id(b"root"), Some(0));
        assert_eq!(&*names.user(3_987_654_321), b"", "nobody has this number");
        assert_eq!(names.user_id(b"no-such-user-here"), None);
        assert_eq!(names.user_id(b"ro\0ot"), None);
        assert_eq!(names.users.lock().unwrap().len(), 2, "answers are kept, also empty ones");
    }

    #[test]
    fn the_machine_has_memory_processors_and_a_name() {
        assert!(total_memory() > 1 << 20);
        assert!(available_cpus() >= 1);
        assert!(!hostname().is_empty() && !username().is_empty());
        assert!(raise_open_files() >= 256);
        let before = peak_rss().expect("/proc is mounted");
        let block = vec![7_u8; 96 << 20];
        assert!(block.iter().step_by(4096).all(|&b| b == 7));
        assert!(peak_rss().unwrap() >= before.max(96 << 20));
    }

    #[test]
    fn the_background_gives_word_or_not() {
        let heard = |say: &dyn Fn(Readiness)| {
            let (read, write) = rustix::pipe::pipe().unwrap();
            say(Readiness(write.into()));
            Background { pid: 1, pipe: read.into() }.wait().unwrap()
        };
        assert_eq!(heard(&drop), Outcome::Died);
        assert_eq!(heard(&|r| r.failed(11, "in use").unwrap()), Outcome::Failed(11, "in use".into()));
        assert_eq!(heard(&|r| r.failed(0, "").unwrap()), Outcome::Failed(1, String::new()));
        assert_eq!(heard(&|mut r| r.0.write_all(&[0]).unwrap()), Outcome::Ready);
        assert!(fork_into_background().is_err(), "tests run in threads");
    }
}
