//! Questions about file systems: of which type is it, does it keep this machine's time? Not for: the files in them (see `files`).

use std::io;
use std::os::fd::AsFd;

/// Whether the open file is on a FUSE file system.
pub fn is_fuse(fd: impl AsFd) -> bool {
    const FUSE: u32 = 0x6573_5546;
    rustix::fs::fstatfs(fd).is_ok_and(|found| found.f_type as u32 == FUSE)
}

/// Whether a file may have another inode number once nobody has it open: FUSE, FAT, exFAT and SMB know none of their own.
pub fn may_renumber(fd: impl AsFd) -> bool {
    const KINDS: [u32; 5] = [0x6573_5546, 0x4d44, 0x2011_bab0, 0xff53_4d42, 0xfe53_4d42];
    rustix::fs::fstatfs(fd).is_ok_and(|found| KINDS.contains(&(found.f_type as u32)))
}

/// The type of the mounted file system of this device, as `/proc/self/mountinfo` has it.
pub fn mount_type(device: u64) -> Option<String> {
    let id = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = std::fs::read(format!("/proc/{}/mountinfo", std::process::id())).ok()?;
    String::from_utf8_lossy(&table).lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_it = before.split(' ').nth(2) == Some(&id);
        is_it.then(|| after.split(' ').next().map(str::to_owned)).flatten()
    })
}

/// Whether the open file is on a file system of this machine's own kernel: it takes times from this machine's clock, and a file's size
/// is what can be read of it. Of network file systems, FUSE and those that make files up (`/proc`), neither is certain.
pub fn is_on_local_disk(fd: impl AsFd) -> io::Result<bool> {
    /// ext2 to ext4, XFS, Btrfs, tmpfs, ramfs, F2FS, ZFS, overlayfs, bcachefs, JFS, ReiserFS, NILFS, FAT, exFAT, NTFS3, HFS+, UDF,
    /// ISO 9660, SquashFS, EROFS.
    const LOCAL: [u32; 20] = [
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
        0x7366_746e,
        0x482b,
        0x1501_3346,
        0x9660,
        0x7371_7368,
        0xe0f5_e1e2,
    ];
    Ok(LOCAL.contains(&(rustix::fs::fstatfs(fd)?.f_type as u32)))
}

/// Waits until no call that writes to the file is under way. Such a call sets the file's times once, when it begins, holds the lock of
/// the inode up to its end, and looking for data takes that lock in ext4, Btrfs, F2FS, tmpfs and overlayfs; in XFS each read takes it.
pub fn wait_for_writes(file: impl AsFd) {
    // What is found does not matter, nor that some file systems cannot look for it.
    drop(super::seek_data(file, 0));
}
