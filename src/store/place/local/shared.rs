//! What kind of file system a repository is on: whether other machines reach it past this one's caches, and how far listings
//! then lag behind. Not for: the listings themselves (see `local`).
//!
//! A file system that is not in these tables counts as one of those whose caches are unknown.

use crate::os;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a folder is listed again until the client's caches have given way.
const LONGEST_REFRESH: Duration = Duration::from_secs(120);
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// What unknown file systems are given to show what other machines did.
const UNKNOWN_LAG: Duration = Duration::from_secs(60);

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
    pub(super) fn of(root: &OwnedFd) -> Sharing {
        let shared = |lag| Sharing { is_shared: true, lag };
        match os::system_type(root) {
            Err(_) => shared(UNKNOWN_LAG),
            Ok(_) if os::is_fuse(root) => Sharing::in_user_space(mount_type(root).as_deref().unwrap_or_default()),
            Ok(_) if os::is_on_local_disk(root).unwrap_or(false) => Sharing::LOCAL,
            Ok(kind) if REFRESHED.contains(&kind) => shared(Duration::ZERO),
            Ok(_) => shared(UNKNOWN_LAG),
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

/// The type of the mount that holds an open folder.
fn mount_type(folder: &OwnedFd) -> Option<String> {
    os::mount_type(rustix::fs::fstat(folder).ok()?.st_dev)
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
