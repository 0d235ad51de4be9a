//! What kind of file system a repository is on: whether other machines reach it past this one's caches, and how far listings
//! then lag behind. Not for: the listings themselves (see `local`).
//!
//! A file system that is not in these tables counts as one of those whose caches are unknown.

use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a folder is listed again until the client's caches have given way.
const LONGEST_REFRESH: Duration = Duration::from_secs(120);
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// What unknown file systems are given to show what other machines did.
const UNKNOWN_LAG: Duration = Duration::from_secs(60);

/// Type of all file systems in user space, also of virtiofs.
const FUSE: u32 = 0x6573_5546;

/// File systems that only this machine's kernel writes to, so that each listing shows all that was put: ext, XFS, Btrfs, tmpfs,
/// ramfs, ZFS, F2FS, overlayfs, FAT, exFAT, NTFS (two drivers), JFS, ReiserFS, NILFS, bcachefs, HFS+, UDF, ISO 9660, SquashFS, UBIFS.
const LOCAL: [u32; 20] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0x2fc1_2fc1,
    0xf2f5_2010,
    0x794c_7630,
    0x4d44,
    0x2011_bab0,
    0x5346_544e,
    0x7366_746e,
    0x3153_464a,
    0x5265_4973,
    0x3434,
    0xca45_1a4e,
    0x482b,
    0x1501_3346,
    0x7371_7368,
    0x2405_1905,
];

/// File systems whose clients ask the server again once a name was created in the folder: NFS, SMB (three drivers), Ceph, Lustre,
/// GPFS, OCFS2, GFS2.
const REFRESHED: [u32; 9] =
    [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x517b, 0x00c3_6400, 0x0bd0_0bd0, 0x4750_4653, 0x7461_636f, 0x0116_1970];

/// How listings of a place come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    /// Whether other machines may change the folder, so that its cached listing must be refreshed.
    pub is_shared: bool,
    /// How much later than its put an object may still be missing from a refreshed listing.
    pub lag: Duration,
}

impl Sharing {
    pub(super) const LOCAL: Sharing = Sharing { is_shared: false, lag: Duration::ZERO };

    /// Of the file system that holds an open folder.
    #[allow(clippy::unnecessary_cast, reason = "the type of this field differs between machines")]
    pub(super) fn of(root: &OwnedFd) -> Sharing {
        let shared = |lag| Sharing { is_shared: true, lag };
        let kind = match rustix::fs::fstatfs(root) {
            Ok(stat) => stat.f_type as u32,
            Err(_) => return shared(UNKNOWN_LAG),
        };
        match kind {
            FUSE => Sharing::in_user_space(mount_type(root).as_deref().unwrap_or_default()),
            kind if LOCAL.contains(&kind) => Sharing::LOCAL,
            kind if REFRESHED.contains(&kind) => shared(Duration::ZERO),
            _ => shared(UNKNOWN_LAG),
        }
    }

    /// Of a file system with a type that begins with "fuse", or virtiofs.
    fn in_user_space(kind: &str) -> Sharing {
        let lag = match kind {
            // Drivers of local disks, NTFS above all.
            "fuseblk" => return Sharing::LOCAL,
            // A name that is created in a folder makes these forget its listing.
            "fuse.sshfs" | "virtiofs" => Duration::ZERO,
            // Adds names that are created to a listing that it keeps for five minutes, unless told otherwise.
            "fuse.rclone" => Duration::from_secs(330),
            _ => UNKNOWN_LAG,
        };
        Sharing { is_shared: true, lag }
    }
}

/// The type of the mount that holds an open folder, as in /proc/self/mountinfo.
fn mount_type(folder: &OwnedFd) -> Option<String> {
    let device = rustix::fs::fstat(folder).ok()?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = std::fs::read_to_string(Path::new("/proc/self/mountinfo")).ok()?;
    find_type(&mounts, &device)
}

fn find_type(mounts: &str, device: &str) -> Option<String> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let (_, rest) = line.split_once(" - ")?;
    rest.split(' ').next().map(str::to_owned)
}

/// A file that is created in a folder so that its listing is made anew, and removed again.
pub(super) struct Probe<'a> {
    folder: BorrowedFd<'a>,
    /// The name that a listing must show to count as new; none if the folder was touched in another way.
    pub name: Option<String>,
}

impl<'a> Probe<'a> {
    /// `name` must be that of a temporary file.
    pub(super) fn put(folder: &'a OwnedFd, name: String) -> Result<Probe<'a>, Errno> {
        use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(folder, &name, flags, super::FILE_MODE) {
            Ok(_) => Ok(Probe { folder: folder.as_fd(), name: Some(name) }),
            // A prune must work on a full disk; new times of the folder need no room and are as good for most clients.
            Err(Errno::NOSPC | Errno::DQUOT) => {
                let time = |nanos| Timespec { tv_sec: 0, tv_nsec: nanos };
                let times = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
                rustix::fs::futimens(folder, &times)?;
                Ok(Probe { folder: folder.as_fd(), name: None })
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // One that stays is a stale temporary file.
            let _ = rustix::fs::unlinkat(self.folder, name, rustix::fs::AtFlags::empty());
        }
    }
}

/// Waits a moment before a folder is listed again, unless that was done for long enough.
pub(super) fn may_list_again(since: Instant) -> bool {
    let goes_on = since.elapsed() < LONGEST_REFRESH;
    if goes_on {
        std::thread::sleep(REFRESH_PAUSE);
    }
    goes_on
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
    fn what_is_not_known_to_be_local_lags() {
        assert_eq!(Sharing::in_user_space("fuseblk"), Sharing::LOCAL);
        let lag = |kind| {
            let sharing = Sharing::in_user_space(kind);
            assert!(sharing.is_shared, "{kind}");
            sharing.lag.as_secs()
        };
        assert_eq!(
            [lag("fuse.sshfs"), lag("fuse.rclone"), lag("fuse.other"), lag("fuse"), lag("")],
            [0, 330, 60, 60, 60]
        );
    }
}
