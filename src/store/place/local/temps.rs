//! Temporary files: their names, and removing those that stopped writers left. Not for: any other file of the folder.

use super::{FILE_MODE, LocalStore, fan_folders, modified};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{from_hex, to_hex};
use crate::store::ObjectKind;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

/// Temporary files are `.firn-<32 digits>.tmp`; nothing else that starts with a dot is ever touched.
const PREFIX: &str = ".firn-";
const SUFFIX: &str = ".tmp";

pub(super) fn temp_name() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(ErrorKind::Failed, format!("The system gave no random numbers: {error}")))?;
    Ok(format!("{PREFIX}{}{SUFFIX}", to_hex(&random)))
}

pub(super) fn is_temp_name(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    digits.is_some_and(|digits| from_hex::<16>(digits).is_some())
}

impl LocalStore {
    /// Removes temporary files that no writer has touched for `older_than`, and returns how many there were. Both times are the store's.
    pub(super) fn remove_stale_temps(&self, older_than: Duration) -> Result<u64> {
        let mut removed = 0;
        let mut newest = None;
        for kind in ObjectKind::ALL {
            for folder in std::iter::once(kind.folder().to_owned()).chain(fan_folders(kind)) {
                let Some(fd) = self.open_folder(&folder)? else {
                    continue;
                };
                let names = self.names_in(&fd, &folder, &is_temp_name)?;
                if names.is_empty() {
                    continue;
                }
                let newest = match newest {
                    Some(newest) => newest,
                    None => *newest.insert(self.clock(&fd, &folder)?.checked_sub(older_than)),
                };
                self.each_named(&fd, &folder, names, &mut |name, stat| {
                    if newest.is_none_or(|newest| modified(stat) > newest) {
                        return Ok(());
                    }
                    match rustix::fs::unlinkat(&fd, name, AtFlags::empty()) {
                        Ok(()) => removed += 1,
                        // Somebody else tidies up, too.
                        Err(Errno::NOENT) => {}
                        Err(error) => return Err(self.failed("remove", &format!("{folder}/{name}"), error)),
                    }
                    Ok(())
                })?;
            }
        }
        Ok(removed)
    }

    /// The time as the store counts it: that of a file which it has just made.
    fn clock(&self, fd: &OwnedFd, folder: &str) -> Result<SystemTime> {
        let name = temp_name()?;
        let failed = |error| self.failed("create", &format!("{folder}/{name}"), error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(fd, &name, flags, FILE_MODE).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed);
        let _ = rustix::fs::unlinkat(fd, &name, AtFlags::empty());
        Ok(modified(&stat?))
    }
}
