//! One file per command: its arguments, and what it asks of the library. Not for: doing the work, or how results look (see `output`).

pub(in crate::cli) mod backup;
pub(in crate::cli) mod check;
pub(in crate::cli) mod deleted;
pub(in crate::cli) mod diff;
pub(in crate::cli) mod du;
pub(in crate::cli) mod dump;
pub(in crate::cli) mod find;
pub(in crate::cli) mod forget;
pub(in crate::cli) mod history;
pub(in crate::cli) mod init;
pub(in crate::cli) mod key;
pub(in crate::cli) mod ls;
pub(in crate::cli) mod mount;
pub(in crate::cli) mod prune;
pub(in crate::cli) mod repair;
pub(in crate::cli) mod restore;
pub(in crate::cli) mod scrub;
pub(in crate::cli) mod snapshots;
pub(in crate::cli) mod stats;
pub(in crate::cli) mod umount;
pub(in crate::cli) mod undelete;
