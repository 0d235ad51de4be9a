//! Room kept aside in a local repository, so that forgetting and pruning, which free space, also work where none is left. Not for:
//! anything that only takes space.
//!
//! The folder `spare` holds small files without meaning. When the disk is full, or has no inode left, one of them makes room for
//! each page of an object that must go in. Nothing reads them, and they may be deleted at any time.

use super::{FILE_MODE, LocalStore};
use crate::error::Result;
use crate::store::ObjectKind;
use rustix::fs::{AtFlags, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;

/// The folder.
const FOLDER: &str = "spare";
/// As many objects can go in when there is no inode left.
const FILES: usize = 128;
/// A block of most file systems.
const BYTES: usize = 4096;

/// Whether an object of this kind goes in although everything else must wait: without them nothing can be freed.
pub(super) fn must_go_in(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Tomb | ObjectKind::Mark | ObjectKind::Revoke)
}

impl LocalStore {
    /// Makes the files that are not there. They need not be durable: after a power cut some may be empty, and are made again.
    pub(super) fn fill_spare(&self) -> Result<()> {
        self.make_folder(FOLDER)?;
        let Some(folder) = self.open_folder(FOLDER)? else { return Ok(()) };
        let mut there = BTreeSet::new();
        let names = self.names_in(&folder, FOLDER, &|_| true)?;
        self.each_named(&folder, FOLDER, names, &mut |name, stat| {
            match super::bytes_of(stat) == BYTES as u64 {
                true => drop(there.insert(name.to_owned())),
                false => drop(rustix::fs::unlinkat(&folder, name, AtFlags::empty())),
            }
            Ok(())
        })?;
        for name in (0..FILES).map(|number| format!("{number:03}")).filter(|name| !there.contains(name)) {
            // Nothing that a file system could store as less than it is.
            let mut bytes = [0; BYTES];
            let _ = getrandom::fill(&mut bytes);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&folder, &name, flags, FILE_MODE);
            let mut file = File::from(file.map_err(|error| self.failed("create", FOLDER, error))?);
            file.write_all(&bytes).map_err(|error| self.failed("write", FOLDER, error))?;
        }
        Ok(())
    }

    /// Makes room for an object of so many bytes. Returns whether there was anything to give.
    pub(super) fn give_spare(&self, bytes: usize) -> bool {
        let Ok(Some(folder)) = self.open_folder(FOLDER) else { return false };
        let Ok(names) = self.names_in(&folder, FOLDER, &|_| true) else { return false };
        let names: BTreeSet<String> = names.into_iter().collect();
        let mut given = 0;
        for name in names.iter().rev().take(bytes.div_ceil(BYTES).max(1)) {
            given += usize::from(rustix::fs::unlinkat(&folder, name, AtFlags::empty()).is_ok());
        }
        // Some file systems give blocks back only with the next commit of their journal.
        drop(self.sync_folder(&folder, FOLDER));
        given > 0
    }
}
