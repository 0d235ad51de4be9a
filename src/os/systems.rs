//! Questions about file systems: of which type is one, does it keep this machine's time, how full is it? Not for: the files in
//! them (see `files`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// File systems in user space, virtiofs among them.
const FUSE: u32 = 0x6573_5546;

/// File systems of this machine's own kernel, to which no other machine writes: ext2 to ext4, XFS, Btrfs, tmpfs, ramfs, F2FS, ZFS,
/// overlayfs, bcachefs, JFS, ReiserFS, NILFS, FAT, exFAT, NTFS (two drivers), HFS+, UDF, ISO 9660, SquashFS, EROFS, UBIFS.
const LOCAL: [u32; 22] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0x794c_7630,
    0xca45_1a4e,
    0x3153_464a,
    0x5265_4973,
    0x3434,
    0x4d44,
    0x2011_bab0,
    0x5346_544e,
    0x7366_746e,
    0x482b,
    0x1501_3346,
    0x9660,
    0x7371_7368,
    0xe0f5_e1e2,
    0x2405_1905,
];

/// Those among them that store no change time, or take what is in an image: FAT, exFAT, ISO 9660, SquashFS, EROFS.
const LOCAL_WITHOUT_CHANGE_TIMES: [u32; 5] = [0x4d44, 0x2011_bab0, 0x9660, 0x7371_7368, 0xe0f5_e1e2];

/// Network file systems whose servers keep change times that no program can set: NFS, SMB (three drivers), Ceph, Lustre, GPFS, OCFS2,
/// GFS2.
const REMOTE_WITH_CHANGE_TIMES: [u32; 9] =
    [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x517b, 0x00c3_6400, 0x0bd0_0bd0, 0x4750_4653, 0x7461_636f, 0x0116_1970];

/// The type of the file system that the open file is on, as the kernel numbers them.
pub fn system_type(fd: impl AsFd) -> io::Result<u32> {
    #[allow(clippy::unnecessary_cast, reason = "the type of this field differs between machines")]
    Ok(rustix::fs::fstatfs(fd)?.f_type as u32)
}

/// Whether the open file is on a FUSE file system.
pub fn is_fuse(fd: impl AsFd) -> bool {
    system_type(fd).is_ok_and(|kind| kind == FUSE)
}

/// Whether a file may have another inode number once nobody has it open: FUSE, FAT, exFAT and SMB know none of their own.
pub fn may_renumber(fd: impl AsFd) -> bool {
    const KINDS: [u32; 5] = [FUSE, 0x4d44, 0x2011_bab0, 0xff53_4d42, 0xfe53_4d42];
    system_type(fd).is_ok_and(|kind| KINDS.contains(&kind))
}

/// The type of the mounted file system of this device, as `/proc/self/mountinfo` has it.
pub fn mount_type(device: u64) -> Option<String> {
    let id = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    find_type(&String::from_utf8_lossy(&mount_table()?), &id)
}

fn mount_table() -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/{}/mountinfo", std::process::id())).ok()
}

/// A mount, as `/proc/self/mountinfo` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountBelow {
    /// The type of its file system.
    pub kind: String,
    /// Whether that is another one than the file system of the directory that it is in.
    pub is_other: bool,
}

/// What is mounted on this name of an open directory. Its root is not touched, so that it need not be one that can be examined.
pub fn mount_below(directory: impl AsFd, name: &[u8]) -> Option<MountBelow> {
    let (process, fd) = (std::process::id(), directory.as_fd().as_raw_fd());
    let path = std::fs::read_link(format!("/proc/{process}/fd/{fd}")).ok()?.join(OsStr::from_bytes(name));
    let about = std::fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).ok()?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    find_mount(&mount_table()?, path.as_os_str().as_bytes(), mount.as_bytes())
}

/// The visible mount at a path, which is in the mount with this number.
fn find_mount(table: &[u8], path: &[u8], around: &[u8]) -> Option<MountBelow> {
    let rows = || table.split(|byte| *byte == b'\n').map(|row| row.split(|byte| *byte == b' ').collect::<Vec<_>>());
    let path = escape_mountpoint(path);
    // Of several at one path the last one made lies above the others.
    let row = rows().rfind(|row| row.get(4).is_some_and(|point| *point == path))?;
    let kind = row.iter().skip_while(|field| **field != b"-").nth(1)?;
    let outer = rows().find(|row| row.first().is_some_and(|id| *id == around))?;
    Some(MountBelow { kind: String::from_utf8_lossy(kind).into_owned(), is_other: outer.get(2) != row.get(2) })
}

/// A path as the table of mounts has it.
fn escape_mountpoint(path: &[u8]) -> Vec<u8> {
    let letter = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    path.iter().flat_map(letter).collect()
}

fn find_type(table: &str, device: &str) -> Option<String> {
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let (_, rest) = line.split_once(" - ")?;
    rest.split(' ').next().map(str::to_owned)
}

/// Whether the open file is on a file system of this machine's own kernel: it takes times from this machine's clock, and a file's size
/// is what can be read of it. Of network file systems, FUSE and those that make files up (`/proc`), neither is certain.
pub fn is_on_local_disk(fd: impl AsFd) -> io::Result<bool> {
    Ok(LOCAL.contains(&system_type(fd)?))
}

/// Whether the file system of the open file records, by itself, when each file was changed. Others, as FUSE and 9p, may repeat the
/// modification time in place of the change time, and that any program can set.
pub fn keeps_change_times(fd: impl AsFd) -> bool {
    let keeps = |kind| {
        LOCAL.contains(&kind) && !LOCAL_WITHOUT_CHANGE_TIMES.contains(&kind) || REMOTE_WITH_CHANGE_TIMES.contains(&kind)
    };
    system_type(fd).is_ok_and(keeps)
}

/// Whether an open directory has the flag of ext4, F2FS and tmpfs that it does not tell small letters from capitals.
pub fn has_casefold_flag(directory: impl AsFd) -> bool {
    const FS_CASEFOLD_FL: u32 = 0x4000_0000;
    rustix::fs::ioctl_getflags(directory).is_ok_and(|flags| flags.bits() & FS_CASEFOLD_FL != 0)
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that this process may still use.
    pub available: u64,
}

/// How full the file system is that holds the open file.
pub fn space(fd: impl AsFd) -> io::Result<Space> {
    let raw = rustix::fs::fstatvfs(fd)?;
    let bytes = |blocks: u64| blocks.saturating_mul(raw.f_frsize);
    Ok(Space { total: bytes(raw.f_blocks), available: bytes(raw.f_bavail) })
}

/// What is known of calls that write to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// No process has it open for writing.
    None,
    /// Those that had begun have ended.
    Ended,
    /// One goes on.
    Going,
    /// One goes on, and reading waits for it as well.
    Blocking,
}

/// Waits until no call that writes to the file is under way, no longer than `longest`. Such a call sets the file's times once, when it
/// begins, holds the lock of the inode up to its end, and looking for data takes that lock in ext4, Btrfs, F2FS, tmpfs and overlayfs; in
/// XFS each read takes it.
///
/// Nothing ends this wait early, so a thread of its own does it. One that waits for too long is left behind, and may keep the process
/// from going away until that call ends.
pub fn wait_for_writes(file: impl AsFd, longest: Duration) -> Writes {
    if super::has_no_writer(&file) == Some(true) {
        return Writes::None;
    }
    let Ok(copy) = file.as_fd().try_clone_to_owned() else { return Writes::Ended };
    let (steps, done) = std::sync::mpsc::channel();
    let wait = move || {
        // What is found does not matter, nor that some file systems cannot look for it.
        let _ = rustix::io::pread(&copy, &mut [0], 0);
        let _ = steps.send(());
        let _ = super::seek_data(&copy, 0);
        let _ = steps.send(());
    };
    if std::thread::Builder::new().stack_size(64 << 10).spawn(wait).is_err() {
        return Writes::Ended;
    }
    let begun = Instant::now();
    if done.recv_timeout(longest).is_err() {
        return Writes::Blocking;
    }
    match done.recv_timeout(longest.saturating_sub(begun.elapsed())) {
        Ok(()) => Writes::Ended,
        Err(_) => Writes::Going,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_mounts_are_found_by_their_device() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            42 27 0:39 / /mnt/a\\040b rw,nosuid - fuse.sshfs host:/x rw,user_id=0\n\
            43 27 0:40 / /mnt/c rw - fuse x rw\n";
        assert_eq!(find_type(mounts, "0:39").as_deref(), Some("fuse.sshfs"));
        assert_eq!(find_type(mounts, "8:1").as_deref(), Some("ext4"));
        assert_eq!(find_type(mounts, "0:3"), None);
        assert_eq!(find_type("42 27 0:39 / /mnt rw\n", "0:39"), None);
    }

    #[test]
    fn mounts_are_found_by_their_path() {
        let mounts = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            42 22 0:39 / /mnt/a\\040b rw,nosuid - tmpfs x rw\n\
            43 42 0:40 / /mnt/a\\040b rw - fuse.firn x rw\n\
            44 22 8:1 /home /mnt/c rw - ext4 /dev/sda1 rw\n";
        let found = |path: &str| find_mount(mounts, path.as_bytes(), b"22").map(|mount| (mount.kind, mount.is_other));
        assert_eq!(found("/mnt/a b"), Some(("fuse.firn".into(), true)));
        assert_eq!(found("/mnt/c"), Some(("ext4".into(), false)));
        assert_eq!(found("/mnt/a"), None);
        let root = std::fs::File::open("/").unwrap();
        assert_eq!(mount_below(&root, b"proc").unwrap().kind, "proc");
        assert_eq!(mount_below(&root, b"proc/no such"), None);
    }
}
