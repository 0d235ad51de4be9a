//! The one table from faults to the error numbers clients see. Nothing else in this crate chooses an errno for a fault.

use fuser::Errno;

use crate::tree::FaultKind;

/// Error number for a fault.
///
/// `Missing` is EIO, never ENOENT: a program that copies or compares must not take lost data for a file that never was.
pub(crate) fn errno(kind: FaultKind) -> Errno {
    match kind {
        FaultKind::Damaged | FaultKind::Missing | FaultKind::Io | FaultKind::Panicked => Errno::EIO,
        FaultKind::Denied => Errno::EACCES,
        FaultKind::TimedOut => Errno::ETIMEDOUT,
        FaultKind::Offline => Errno::from_i32(rustix::io::Errno::NOMEDIUM.raw_os_error()),
        FaultKind::Unsupported => Errno::EOPNOTSUPP,
        FaultKind::NoMemory => Errno::ENOMEM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fault_looks_like_absence_or_like_a_missing_operation() {
        let all = [
            FaultKind::Damaged,
            FaultKind::Missing,
            FaultKind::Io,
            FaultKind::Denied,
            FaultKind::TimedOut,
            FaultKind::Offline,
            FaultKind::Unsupported,
            FaultKind::NoMemory,
            FaultKind::Panicked,
        ];
        for kind in all {
            // ENOENT and ENODATA say "does not exist"; ENOSYS makes the kernel never ask again; EAGAIN and EINTR make clients spin.
            for wrong in [Errno::ENOENT, Errno::ENODATA, Errno::ENOSYS, Errno::EAGAIN, Errno::EINTR, Errno::ENXIO] {
                assert_ne!(errno(kind), wrong, "{kind:?}");
            }
        }
        assert_eq!(errno(FaultKind::Offline).code(), 123);
    }
}
