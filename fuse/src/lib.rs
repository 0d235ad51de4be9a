//! Serves any read-only tree to the Linux kernel through FUSE; what the tree means (backups, archives, …) is not known here.
//!
//! | file | question it answers |
//! |---|---|
//! | `tree.rs` | what must a tree be able to do? ([`ReadOnlyFs`], the only thing to implement) |
//! | `errno.rs` | which error number does a client see for which fault? |
//! | `answers.rs` | what is the answer to a kernel request, without any FUSE type of reply? |
//! | `adapter.rs` | which reply carries it, on which thread? (the only `impl fuser::Filesystem`) |
//! | `pool.rs` | who waits for slow storage, and how long? |
//! | `check.rs` | can this directory be mounted on, and if not, what should the user do? |
//! | `kernel.rs` | mounting, unmounting and the mount table |
//! | `holders.rs` | who keeps a mount busy? |
//! | `session.rs` | options, [`mount()`], [`renew`], and the handle of a running mount |

mod adapter;
mod answers;
mod check;
mod errno;
mod holders;
mod kernel;
mod pool;
mod presence;
mod session;
mod tree;

pub use check::{Found, MountError, check, clear_dead, find, shell_quoted};
pub use holders::Holder;
pub use session::{Mounted, Notifier, Options, UnmountError, Unmounter, can_renew, mount, renew};
pub use tree::{Attr, Fault, FaultKind, Kind, ListItem, ReadOnlyFs, Source, StatFs, Whence, Work, Xattrs};
