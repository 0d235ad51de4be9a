//! Mounting, unmounting and the mount table: by system call where allowed, else through `fusermount3`. It decides nothing.
//!
//! Done here and not by fuser because its handle is gone after the first failed unmounting, detaches where it should say "busy",
//! and may, after an unmounting by others, unmount what has been mounted at the same place since.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};

/// The door to the kernel.
pub(crate) const DEVICE: &str = "/dev/fuse";
/// The set-user-id helper for everyone but root.
const HELPER: &str = "fusermount3";

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// Number of the mount, unique while it exists; given to others right after.
    pub(crate) id: u64,
    /// The mount that this one is on.
    pub(crate) parent: u64,
    /// Device number of the file system as `major:minor`.
    pub(crate) device: String,
    pub(crate) point: PathBuf,
    /// Type with subtype, as in `fuse.firn`.
    pub(crate) fs_type: String,
    /// What is mounted.
    pub(crate) source: String,
}

/// What to mount, and how.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) point: &'a Path,
    pub(crate) fs_name: &'a str,
    pub(crate) subtype: &'a str,
    pub(crate) allow_other: bool,
    pub(crate) no_exec: bool,
    pub(crate) default_permissions: bool,
}

/// The mounts at a path (absolute, without symbolic links), the visible one last.
pub(crate) fn mounts_at(point: &Path) -> io::Result<Vec<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(stacked(table.split(|&b| b == b'\n').filter_map(parse).filter(|entry| entry.point == point).collect()))
}

/// Sorts the mounts at one path so that each stands behind the one it is on. The table has them by age, and a mount can have been put
/// beneath an older one.
fn stacked(mut entries: Vec<MountEntry>) -> Vec<MountEntry> {
    let mut sorted: Vec<MountEntry> = Vec::with_capacity(entries.len());
    while !entries.is_empty() {
        let is_next = |entry: &MountEntry| match sorted.last() {
            Some(last) => entry.parent == last.id,
            None => !entries.iter().any(|other| other.id == entry.parent),
        };
        let at = entries.iter().position(is_next).unwrap_or(0);
        sorted.push(entries.remove(at));
    }
    sorted
}

/// The visible mount at a path.
pub(crate) fn mounted_at(point: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts_at(point)?.pop())
}

/// Reads a line of `/proc/self/mountinfo`; see proc_pid_mountinfo(5).
fn parse(line: &[u8]) -> Option<MountEntry> {
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let dash = fields.iter().position(|&field| field == b"-")?;
    Some(MountEntry {
        id: number(fields.first()?)?,
        parent: number(fields.get(1)?)?,
        device: text(fields.get(2)?),
        point: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        fs_type: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
    })
}

/// Undoes `\040` and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|code| first == b'\\' && code.iter().all(|b| (b'0'..=b'7').contains(b)));
        match code {
            Some(code) => {
                out.push(code.iter().fold(0_u8, |sum, digit| sum.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Whether this process may mount without the helper.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the helper is, if it is installed.
pub(crate) fn helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(HELPER)).find(|file| file.is_file())
}

/// Mounts; the result is the connection to the kernel. Without the right to mount, the helper does it.
pub(crate) fn mount(request: &Request<'_>) -> io::Result<OwnedFd> {
    match mount_by_call(request) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && helper().is_some() => {
            mount_by_helper(request)
        }
        result => result,
    }
}

fn mount_by_call(request: &Request<'_>) -> io::Result<OwnedFd> {
    let device = OwnedFd::from(std::fs::File::options().read(true).write(true).open(DEVICE)?);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", device.as_raw_fd());
    for option in kernel_options(request) {
        data.push(',');
        data.push_str(&option);
    }
    let mut flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    flags.set(MountFlags::NOEXEC, request.no_exec);
    let data = CString::new(data)?;
    rustix::mount::mount(request.fs_name, request.point, "fuse", flags, data.as_c_str())?;
    Ok(device)
}

/// Whether a mount can be put beneath another one (Linux 6.5) by this process.
pub(crate) fn can_mount_beneath() -> bool {
    use rustix::fs::CWD;
    // There is no empty path; a kernel that does not know the flag says so before it looks.
    is_root() && rustix::mount::move_mount(CWD, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_BENEATH) == Err(Errno::NOENT)
}

/// A mount that is nowhere yet, and its connection to the kernel.
pub(crate) fn mount_nowhere(request: &Request<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let device = OwnedFd::from(std::fs::File::options().read(true).write(true).open(DEVICE)?);
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(&context, key, value);
    set("source", request.fs_name)?;
    set("fd", &device.as_raw_fd().to_string())?;
    set("rootmode", "40000")?;
    set("user_id", &rustix::process::getuid().as_raw().to_string())?;
    set("group_id", &rustix::process::getgid().as_raw().to_string())?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    for option in kernel_options(request) {
        match option.split_once('=') {
            Some((key, value)) => set(key, value)?,
            None => rustix::mount::fsconfig_set_flag(&context, &*option)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, request.no_exec);
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok((mount, device))
}

/// Puts such a mount beneath the one that is visible at a path.
pub(crate) fn put_beneath(mount: &OwnedFd, point: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    Ok(rustix::mount::move_mount(mount, "", rustix::fs::CWD, point, flags)?)
}

fn kernel_options(request: &Request<'_>) -> Vec<String> {
    let mut options = vec![format!("subtype={}", request.subtype)];
    if request.allow_other {
        options.push("allow_other".to_owned());
    }
    if request.default_permissions {
        options.push("default_permissions".to_owned());
    }
    options
}

/// The helper mounts and sends the connection through a socket, which it gets as its standard input.
fn mount_by_helper(request: &Request<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let name = request.fs_name.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = vec!["ro,nodev,nosuid,noatime".to_owned(), format!("fsname={name}")];
    options.extend(request.no_exec.then(|| "noexec".to_owned()));
    options.extend(kernel_options(request));
    let child = Command::new(helper().ok_or(io::ErrorKind::NotFound)?)
        .arg("-o")
        .arg(options.join(","))
        .arg("--")
        .arg(request.point)
        .env("_FUSE_COMMFD", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // (The command, and with it our copy of the other end, is gone here: a dead helper ends the waiting.)
    let device = receive(&ours);
    let output = child.wait_with_output()?;
    match device? {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(helper_error(&output.stderr)),
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    loop {
        match rustix::net::recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        break;
    }
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fds)
}

/// Unmounts the topmost mount at a path; `lazily` takes it out of sight at once and ends it when its last user is gone.
pub(crate) fn unmount(point: &Path, lazily: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazily {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(point, flags) {
        Err(Errno::PERM) => unmount_by_helper(point, lazily),
        result => Ok(result?),
    }
}

fn unmount_by_helper(point: &Path, lazily: bool) -> io::Result<()> {
    let output = Command::new(helper().ok_or(io::ErrorKind::NotFound)?)
        .arg(if lazily { "-uz" } else { "-u" })
        .arg("--")
        .arg(point)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() { Ok(()) } else { Err(helper_error(&output.stderr)) }
}

/// What the helper complained about, as the error the system call would have given where that matters.
fn helper_error(complaint: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(complaint).trim().to_owned();
    if text.ends_with("Device or resource busy") {
        return Errno::BUSY.into();
    }
    let kind = if text.contains("user_allow_other")
        || text.contains("Permission denied")
        || text.contains("no write access")
    {
        io::ErrorKind::PermissionDenied
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, if text.is_empty() { format!("\"{HELPER}\" failed") } else { text })
}

/// Whether the kernel still holds the other end of a connection. Ends at once when the file system is unmounted by whomever.
pub(crate) fn is_connected(device: &OwnedFd) -> bool {
    let mut wait = [PollFd::new(device, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut wait, Some(&at_once)) {
        Ok(_) => !wait[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
        Err(_) => true,
    }
}

/// Lets the kernel read further ahead than its default of 128 KiB; only root may. Failure only means less speed.
pub(crate) fn set_read_ahead(device: &str, kib: u32) -> io::Result<()> {
    let file = Path::new("/sys/class/bdi").join(OsStr::from_bytes(device.as_bytes())).join("read_ahead_kb");
    std::fs::write(file, kib.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_understood() {
        let line = br"36 35 0:98 / /mnt/a\040b\134c rw,noatime master:1 shared:2 - fuse.firn my\040repo rw,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.point, Path::new("/mnt/a b\\c"));
        assert_eq!((entry.id, entry.parent, entry.device.as_str()), (36, 35, "0:98"));
        assert_eq!((entry.fs_type.as_str(), entry.source.as_str()), ("fuse.firn", "my repo"));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 0:98 / /mnt rw -"), None);
    }

    #[test]
    fn the_visible_mount_is_the_last_however_old_it_is() {
        let table = [(40, 30), (41, 40), (42, 41), (50, 29), (30, 50)];
        let line =
            |(id, parent): &(u64, u64)| parse(format!("{id} {parent} 0:1 / /m rw - fuse x rw").as_bytes()).unwrap();
        let ids = |entries: Vec<MountEntry>| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(stacked(table.iter().map(line).collect())), [50, 30, 40, 41, 42]);
        // Nonsense ends, too.
        assert_eq!(stacked([(1, 2), (2, 1)].iter().map(line).collect()).len(), 2);
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescape(br"a\04"), br"a\04");
        assert_eq!(unescape(br"\999\"), br"\999\");
        assert_eq!(unescape(br"\777x"), b"\xffx");
    }

    #[test]
    fn the_root_is_in_the_mount_table() {
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
        assert_eq!(mounted_at(Path::new("/nowhere at all")).unwrap(), None);
    }

    #[test]
    fn complaints_of_the_helper_become_errors() {
        let busy = helper_error(b"fusermount3: failed to unmount /m: Device or resource busy\n");
        assert_eq!(busy.raw_os_error(), Some(Errno::BUSY.raw_os_error()));
        let other = helper_error(
            b"fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
        );
        assert_eq!(other.kind(), io::ErrorKind::PermissionDenied);
    }
}
