//! System calls on files: directory handles, raw names, no link followed. Not for: processes and users (see `os`).
//!
//! Names are relative to the given directory handle (or absolute), at most 4,095 bytes. Nothing here follows a symbolic
//! link at the last component unless its description says so. Errors are the system's own; callers add the sentence.

use rustix::fs::{AtFlags, FileType as RawType, IFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A point in time as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime {
    /// Seconds since 1970, may be negative.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10^9.
    pub nanos: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
    /// Something this kernel knows and firn does not.
    Unknown,
}

/// What `statx` says of a file, the access time left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileType,
    /// Permission bits, 07777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// The file system it is on (as `st_dev`).
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
    /// `st_size` in bytes.
    pub size: u64,
    /// `st_blocks` in units of 512 bytes.
    pub blocks: u64,
    /// Last change of content.
    pub mtime: FileTime,
    /// Last change of content or metadata.
    pub ctime: FileTime,
    /// Birth, if the file system records it.
    pub btime: Option<FileTime>,
    /// Major and minor number of the device that it stands for.
    pub rdev: (u32, u32),
    /// Immutable, append-only and no-dump, in the bits of `FS_IOC_GETFLAGS`, as far as `statx` tells them.
    pub flags: u32,
}

impl Stat {
    /// Whether both are the same file (not: the same content). An inode number that was used again is told by the time of birth,
    /// where the file system records it.
    pub fn same_file(&self, other: &Stat) -> bool {
        let births = self.btime.zip(other.btime);
        (self.dev, self.ino, self.kind) == (other.dev, other.ino, other.kind) && births.is_none_or(|(a, b)| a == b)
    }
}

/// The file flags worth keeping: those a user or administrator sets on purpose, alike on all file systems that have them.
pub const KEPT_FLAGS: u32 =
    IFlags::IMMUTABLE.union(IFlags::APPEND).union(IFlags::NODUMP).union(IFlags::NOATIME).union(IFlags::NOCOW).bits();

/// Those of them that `statx` tells, of a file that is not open.
pub const STAT_FLAGS: u32 = IFlags::IMMUTABLE.union(IFlags::APPEND).union(IFlags::NODUMP).bits();

/// The directory that relative names start from if no other is given.
pub use rustix::fs::CWD;

/// Describes `name` in `dir`; an empty `name` is `dir` itself. Triggers no automount.
pub fn stat_at(dir: impl AsFd, name: &[u8]) -> io::Result<Stat> {
    let empty = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
    let at = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | empty;
    let raw = rustix::fs::statx(dir, name, at, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let time = |t: rustix::fs::StatxTimestamp| FileTime { seconds: t.tv_sec, nanos: t.tv_nsec.min(999_999_999) };
    let has_btime = raw.stx_mask & StatxFlags::BTIME.bits() != 0;
    let mut flags = IFlags::empty();
    flags.set(IFlags::IMMUTABLE, raw.stx_attributes.contains(StatxAttributes::IMMUTABLE));
    flags.set(IFlags::APPEND, raw.stx_attributes.contains(StatxAttributes::APPEND));
    flags.set(IFlags::NODUMP, raw.stx_attributes.contains(StatxAttributes::NODUMP));
    Ok(Stat {
        kind: match RawType::from_raw_mode(raw.stx_mode.into()) {
            RawType::RegularFile => FileType::File,
            RawType::Directory => FileType::Directory,
            RawType::Symlink => FileType::Symlink,
            RawType::Fifo => FileType::Fifo,
            RawType::CharacterDevice => FileType::CharDevice,
            RawType::BlockDevice => FileType::BlockDevice,
            RawType::Socket => FileType::Socket,
            RawType::Unknown => FileType::Unknown,
        },
        mode: raw.stx_mode & 0o7777,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        nlink: raw.stx_nlink,
        dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        ino: raw.stx_ino,
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        mtime: time(raw.stx_mtime),
        ctime: time(raw.stx_ctime),
        btime: has_btime.then(|| time(raw.stx_btime)),
        rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
        flags: flags.bits(),
    })
}

/// Describes the open file (also one opened with `O_PATH`).
pub fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    stat_at(fd, b"")
}

/// A handle that names a file without opening it (`O_PATH`): enough for `stat_fd`, attributes and
/// `chmod_handle`.
pub fn open_path(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens with these flags; `O_NOFOLLOW` and `O_CLOEXEC` are added.
pub fn open_at(dir: impl AsFd, name: &[u8], flags: OFlags, mode: u16) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(mode.into());
    Ok(rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)?)
}

/// Opens a relative path of any length below `root`, refusing every symbolic link and `..` on the way and at the end.
pub fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let all = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o600) } else { Mode::empty() };
    match rustix::fs::openat2(root.as_fd(), path, all, mode, resolve) {
        Ok(fd) => return Ok(fd),
        // No such call (before Linux 5.6, or filtered), a path beyond PATH_MAX, a rename while we looked.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::NAMETOOLONG | rustix::io::Errno::AGAIN) => {}
        Err(error) => return Err(error.into()),
    }
    let mut names: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    if path.starts_with(b"/") || names.contains(&&b".."[..]) {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    let last = names.pop().unwrap_or(b".");
    let mut dir = rustix::fs::openat(root, c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for name in names {
        dir = open_at(&dir, name, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    }
    let opened = open_at(&dir, last, flags, mode.bits() as u16)?;
    if flags.contains(OFlags::PATH) && stat_fd(&opened)?.kind == FileType::Symlink {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    Ok(opened)
}

/// The target of a symbolic link.
pub fn read_link_at(dir: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

// The name under which the kernel reaches an open file, also one opened with O_PATH and also a symbolic link itself.
fn proc_path(fd: impl AsFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into_bytes()
}

// Runs `by_path`; without /proc the call on the handle itself, which fails for O_PATH handles only.
fn by_proc<T>(
    fd: impl AsFd,
    by_path: impl FnOnce(&[u8]) -> rustix::io::Result<T>,
    by_fd: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match by_path(&proc_path(fd)) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => by_fd(),
        result => result,
    }
}

/// The longest value of an attribute and the longest list of names that Linux knows, in bytes.
const XATTR_MAX: usize = 65_536;

/// The names of all readable extended attributes of the file (an `O_PATH` handle will do), in the kernel's order.
/// Empty where the file system has none.
pub fn list_xattrs(fd: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let fd = fd.as_fd();
    let read = |buffer: &mut [u8]| {
        let cell = std::cell::RefCell::new(buffer);
        by_proc(
            fd,
            |path| rustix::fs::listxattr(path, &mut **cell.borrow_mut()),
            || rustix::fs::flistxattr(fd, &mut **cell.borrow_mut()),
        )
    };
    let mut small = [0; 512];
    let mut large = Vec::new();
    let list = match read(&mut small) {
        Ok(len) => &small[..len],
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(rustix::io::Errno::RANGE) => {
            large.resize(XATTR_MAX, 0);
            let len = read(&mut large)?;
            &large[..len]
        }
        Err(error) => return Err(error.into()),
    };
    Ok(list.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The value of an extended attribute, or `None` if it has none of this name. At most 65,536 bytes.
pub fn get_xattr(fd: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let fd = fd.as_fd();
    let read = |buffer: &mut [u8]| {
        let cell = std::cell::RefCell::new(buffer);
        by_proc(
            fd,
            |path| rustix::fs::getxattr(path, name, &mut **cell.borrow_mut()),
            || rustix::fs::fgetxattr(fd, name, &mut **cell.borrow_mut()),
        )
    };
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(len) => Ok(Some(small[..len].to_vec())),
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(rustix::io::Errno::RANGE) => {
            let mut large = vec![0; XATTR_MAX];
            let len = read(&mut large)?;
            large.truncate(len);
            large.shrink_to_fit();
            Ok(Some(large))
        }
        Err(error) => Err(error.into()),
    }
}

/// Sets an extended attribute, new or not (an `O_PATH` handle will do).
pub fn set_xattr(fd: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd();
    let flags = rustix::fs::XattrFlags::empty();
    Ok(by_proc(
        fd,
        |path| rustix::fs::setxattr(path, name, value, flags),
        || rustix::fs::fsetxattr(fd, name, value, flags),
    )?)
}

/// Removes an extended attribute; it is no error if there is none of this name.
pub fn remove_xattr(fd: impl AsFd, name: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd();
    match by_proc(fd, |path| rustix::fs::removexattr(path, name), || rustix::fs::fremovexattr(fd, name)) {
        Err(rustix::io::Errno::NODATA) => Ok(()),
        result => Ok(result?),
    }
}

/// The kept file flags of an open file (not `O_PATH`); 0 where the file system has none.
pub fn get_file_flags(fd: impl AsFd) -> io::Result<u32> {
    match rustix::fs::ioctl_getflags(fd) {
        Ok(flags) => Ok(flags.bits() & KEPT_FLAGS),
        Err(rustix::io::Errno::NOTTY | rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => Ok(0),
        // Some file systems answer unknown requests with these.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::BADF) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Sets the kept file flags of an open file to exactly `flags`; its other flags stay.
pub fn set_file_flags(fd: impl AsFd, flags: u32) -> io::Result<()> {
    let fd = fd.as_fd();
    let now = rustix::fs::ioctl_getflags(fd)?.bits();
    let next = now & !KEPT_FLAGS | flags & KEPT_FLAGS;
    if now != next {
        rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(next))?;
    }
    Ok(())
}

/// Where the next data at or after `offset` begins; `None` if only a hole follows.
pub fn seek_data(fd: impl AsFd, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(fd, rustix::fs::SeekFrom::Data(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where the next hole at or after `offset` begins (the end of the file counts as one); `None` beyond the end.
pub fn seek_hole(fd: impl AsFd, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(fd, rustix::fs::SeekFrom::Hole(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a range of an open file a hole, its size unchanged. Where that is not possible: `ErrorKind::Unsupported`.
pub fn punch_hole(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(fd, mode, offset, len)?)
}

/// Cuts or extends (by a hole) an open file.
pub fn set_len(fd: impl AsFd, len: u64) -> io::Result<()> {
    Ok(rustix::fs::ftruncate(fd, len)?)
}

/// Tells the kernel that the file will be read once from front to back; a hint, so errors do not matter.
pub fn advise_sequential(fd: impl AsFd) {
    let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::Sequential);
}

/// Creates a character or block device.
pub fn mknod_at(dir: impl AsFd, name: &[u8], kind: FileType, mode: u16, device: (u32, u32)) -> io::Result<()> {
    let raw = match kind {
        FileType::CharDevice => RawType::CharacterDevice,
        FileType::BlockDevice => RawType::BlockDevice,
        FileType::Socket => RawType::Socket,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let device = rustix::fs::makedev(device.0, device.1);
    Ok(rustix::fs::mknodat(dir, name, raw, Mode::from_raw_mode(mode.into()), device)?)
}

/// Creates a named pipe.
pub fn mkfifo_at(dir: impl AsFd, name: &[u8], mode: u16) -> io::Result<()> {
    Ok(rustix::fs::mknodat(dir, name, RawType::Fifo, Mode::from_raw_mode(mode.into()), 0)?)
}

/// Creates a directory.
pub fn mkdir_at(dir: impl AsFd, name: &[u8], mode: u16) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode.into()))?)
}

/// Creates a symbolic link `name` to `target`.
pub fn symlink_at(target: &[u8], dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(target, dir, name)?)
}

/// Gives a file another name. A symbolic link is linked itself.
pub fn link_at(old_dir: impl AsFd, old: &[u8], new_dir: impl AsFd, new: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::linkat(old_dir, old, new_dir, new, AtFlags::empty())?)
}

/// Removes a name that is not a directory's, or an empty directory if `directory`.
pub fn unlink_at(dir: impl AsFd, name: &[u8], directory: bool) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?)
}

/// Gives a name to something else, replacing nothing unless `replace`.
pub fn rename_at(old_dir: impl AsFd, old: &[u8], new_dir: impl AsFd, new: &[u8], replace: bool) -> io::Result<()> {
    let flags = if replace { rustix::fs::RenameFlags::empty() } else { rustix::fs::RenameFlags::NOREPLACE };
    Ok(rustix::fs::renameat_with(old_dir, old, new_dir, new, flags)?)
}

/// Sets owner and group of `name` (empty: of `dir` itself). Clears set-user-ID bits, so `chmod` comes later.
pub fn chown_at(dir: impl AsFd, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
    let (Some(uid), Some(gid)) = (valid_id(uid), valid_id(gid)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let empty = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW | empty)?)
}

// 2^32 - 1 means "leave it" to the kernel and is nobody's number.
fn valid_id(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

/// Sets the permission bits (07777) of `name`. A symbolic link has none: `EOPNOTSUPP`.
pub fn chmod_at(dir: impl AsFd, name: &[u8], mode: u16) -> io::Result<()> {
    chmod_handle(open_path(dir, name)?, mode)
}

/// Sets the permission bits (07777) of what a handle stands for, also one opened with `O_PATH`. A symbolic link has none:
/// `EOPNOTSUPP`.
pub fn chmod_handle(fd: impl AsFd, mode: u16) -> io::Result<()> {
    let fd = fd.as_fd();
    if stat_fd(fd)?.kind == FileType::Symlink {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    let mode = Mode::from_raw_mode(mode.into());
    Ok(rustix::fs::chmodat(CWD, proc_path(fd), mode, AtFlags::empty())?)
}

/// Sets the permission bits (07777) of an open file (not `O_PATH`).
pub fn chmod_fd(fd: impl AsFd, mode: u16) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode.into()))?)
}

/// Sets the modification time of `name`, and the access time to the same.
pub fn set_times_at(dir: impl AsFd, name: &[u8], mtime: FileTime) -> io::Result<()> {
    Ok(rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the modification time of an open file (not `O_PATH`), and the access time to the same.
pub fn set_times_fd(fd: impl AsFd, mtime: FileTime) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &times(mtime))?)
}

/// Sets the modification time of what a handle stands for, also one opened with `O_PATH`, and the access time to the same.
pub fn set_times_handle(fd: impl AsFd, mtime: FileTime) -> io::Result<()> {
    let (fd, times) = (fd.as_fd(), times(mtime));
    Ok(by_proc(
        fd,
        |path| rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()),
        || rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH),
    )?)
}

fn times(time: FileTime) -> rustix::fs::Timestamps {
    let spec = rustix::fs::Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    rustix::fs::Timestamps { last_access: spec, last_modification: spec }
}

/// The rights that new files of this process do not get.
pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stated = status.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok());
    stated.unwrap_or_else(|| {
        // Else it can only be asked for by setting it, to the strictest meanwhile.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        rustix::process::umask(mask);
        mask.bits()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    fn folder() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let fd = File::open(dir.path()).unwrap();
        (dir, fd)
    }

    #[test]
    fn stat_says_what_std_says() {
        let (dir, fd) = folder();
        std::fs::write(dir.path().join("f"), b"hello").unwrap();
        symlink("f", dir.path().join("l")).unwrap();
        let stat = stat_at(&fd, b"f").unwrap();
        let std = dir.path().join("f").metadata().unwrap();
        assert_eq!((stat.kind, stat.size, stat.ino, stat.dev), (FileType::File, 5, std.ino(), std.dev()));
        assert_eq!((stat.mtime.seconds, i64::from(stat.mtime.nanos)), (std.mtime(), std.mtime_nsec()));
        assert_eq!((stat.uid, stat.nlink, stat.blocks), (std.uid(), 1, std.blocks()));
        assert_eq!(stat_at(&fd, b"l").unwrap().kind, FileType::Symlink, "links are not followed");
        assert_eq!(stat_fd(&fd).unwrap().kind, FileType::Directory);
        assert_eq!(stat_at(&fd, b"none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read_link_at(&fd, b"l").unwrap(), b"f");
    }

    #[test]
    fn special_files_modes_and_times() {
        let (dir, fd) = folder();
        mkfifo_at(&fd, b"p", 0o600).unwrap();
        chmod_at(&fd, b"p", 0o4751).unwrap();
        set_times_at(&fd, b"p", FileTime { seconds: -5, nanos: 999_999_999 }).unwrap();
        let meta = dir.path().join("p").symlink_metadata().unwrap();
        assert!(meta.file_type().is_fifo());
        assert_eq!(meta.permissions().mode() & 0o7777, 0o4751);
        assert_eq!(stat_at(&fd, b"p").unwrap().mtime, FileTime { seconds: -5, nanos: 999_999_999 });
        symlink_at(b"nowhere", &fd, b"s").unwrap();
        assert_eq!(chmod_at(&fd, b"s", 0o600).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        set_times_at(&fd, b"s", FileTime { seconds: 1, nanos: 2 }).unwrap();
        assert_eq!(stat_at(&fd, b"s").unwrap().mtime, FileTime { seconds: 1, nanos: 2 });
        for (name, mode) in [(b"s", 0o777), (b"p", 0o640)] {
            let handle = open_path(&fd, name).unwrap();
            set_times_handle(&handle, FileTime { seconds: 3, nanos: 4 }).unwrap();
            assert_eq!(chmod_handle(&handle, 0o640).is_ok(), name == b"p");
            let stat = stat_fd(&handle).unwrap();
            assert_eq!((stat.mtime, stat.mode), (FileTime { seconds: 3, nanos: 4 }, mode), "the link itself");
        }
        link_at(&fd, b"s", &fd, b"t").unwrap();
        assert_eq!(stat_at(&fd, b"t").unwrap().nlink, 2, "the link itself got a second name");
        assert!(rename_at(&fd, b"t", &fd, b"p", false).is_err());
        unlink_at(&fd, b"t", false).unwrap();
        assert!(chown_at(&fd, b"p", u32::MAX, 0).is_err(), "the number that means: leave it");
        if crate::os::is_root() {
            mknod_at(&fd, b"c", FileType::CharDevice, 0o600, (1, 3)).unwrap();
            chown_at(&fd, b"s", 4_000_000_000, 7).unwrap();
            assert_eq!(stat_at(&fd, b"c").unwrap().rdev, (1, 3));
            let owner = stat_at(&fd, b"s").unwrap();
            assert_eq!((owner.uid, owner.gid), (4_000_000_000, 7));
        }
        assert!(mknod_at(&fd, b"d", FileType::Directory, 0o600, (0, 0)).is_err());
        assert!(crate::os::space(&fd).unwrap().total > 0);
    }

    #[test]
    fn attributes_of_files_and_of_links_themselves() {
        let (dir, fd) = folder();
        std::fs::write(dir.path().join("f"), b"").unwrap();
        symlink("f", dir.path().join("l")).unwrap();
        let file = open_path(&fd, b"f").unwrap();
        set_xattr(&file, b"user.a", b"1").unwrap();
        set_xattr(&file, b"user.empty", b"").unwrap();
        let mut names = list_xattrs(&file).unwrap();
        names.retain(|name| name.starts_with(b"user."));
        names.sort();
        assert_eq!(names, [b"user.a".to_vec(), b"user.empty".to_vec()]);
        assert_eq!(get_xattr(&file, b"user.empty").unwrap(), Some(Vec::new()));
        assert_eq!(get_xattr(&file, b"user.none").unwrap(), None);
        let long = vec![9; 2000];
        set_xattr(&file, b"user.a", &long).unwrap();
        assert_eq!(get_xattr(&file, b"user.a").unwrap(), Some(long));
        remove_xattr(&file, b"user.a").unwrap();
        remove_xattr(&file, b"user.a").unwrap();
        assert_eq!(get_xattr(&file, b"user.a").unwrap(), None);
        let link = open_path(&fd, b"l").unwrap();
        assert!(!list_xattrs(&link).unwrap().contains(&b"user.empty".to_vec()), "of the link, not of its target");
        if crate::os::is_root() {
            set_xattr(&link, b"trusted.l", b"x").unwrap();
            assert_eq!(get_xattr(&link, b"trusted.l").unwrap(), Some(b"x".to_vec()));
            assert_eq!(get_xattr(&file, b"trusted.l").unwrap(), None);
        }
    }

    #[test]
    fn beneath_means_beneath_and_without_links() {
        let (dir, fd) = folder();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/f"), b"x").unwrap();
        symlink("b", dir.path().join("a/l")).unwrap();
        assert_eq!(stat_fd(open_beneath(&fd, b"a/b/f", OFlags::RDONLY).unwrap()).unwrap().size, 1);
        for path in [&b"a/l/f"[..], b"a/l", b"../etc", b"/etc", b"a/../../etc", b"a/b/none"] {
            assert!(open_beneath(&fd, path, OFlags::RDONLY).is_err(), "{}", path.escape_ascii());
        }
        // Beyond PATH_MAX the way is walked name by name, under the same rules.
        let long = |end: &str| [&b"a/"[..], &b"./".repeat(3000), end.as_bytes()].concat();
        assert_eq!(stat_fd(open_beneath(&fd, &long("b/f"), OFlags::RDONLY).unwrap()).unwrap().size, 1);
        for end in ["l/f", "l", "../a/b/f", "none"] {
            assert!(open_beneath(&fd, &long(end), OFlags::RDONLY).is_err(), "{end}");
            assert!(open_beneath(&fd, &long(end), OFlags::PATH).is_err(), "{end}");
        }
    }

    #[test]
    fn holes_are_found_and_made() {
        let (dir, _) = folder();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("f")).unwrap();
        set_len(&file, 1 << 20).unwrap();
        assert_eq!(seek_data(&file, 0).unwrap(), None);
        assert_eq!(seek_hole(&file, 0).unwrap(), Some(0));
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 65_536], 65_536 * 2).unwrap();
        assert_eq!(seek_data(&file, 0).unwrap(), Some(65_536 * 2));
        assert_eq!(seek_hole(&file, 65_536 * 2).unwrap(), Some(65_536 * 3));
        punch_hole(&file, 65_536 * 2, 65_536).unwrap();
        assert_eq!(seek_data(&file, 0).unwrap(), None);
        assert_eq!(seek_hole(&file, 2 << 20).unwrap(), None, "beyond the end");
        advise_sequential(&file);
    }

    #[test]
    fn file_flags_come_back_where_there_are_any() {
        let (dir, fd) = folder();
        std::fs::write(dir.path().join("f"), b"x").unwrap();
        let file = open_at(&fd, b"f", OFlags::RDONLY, 0).unwrap();
        if set_file_flags(&file, IFlags::NODUMP.bits()).is_ok() {
            assert_eq!(get_file_flags(&file).unwrap(), IFlags::NODUMP.bits());
            assert_eq!(stat_fd(&file).unwrap().flags, IFlags::NODUMP.bits());
            set_file_flags(&file, 0).unwrap();
        }
        assert_eq!(get_file_flags(&file).unwrap(), 0);
        assert_eq!(get_file_flags(open_at(CWD, b"/proc", OFlags::RDONLY, 0).unwrap()).unwrap(), 0);
    }
}
