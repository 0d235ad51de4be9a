//! A mount from beginning to end: options, mounting, and handles to end it. Signals, going to the background and words for the user
//! are the caller's business; a crash leaves a visibly dead mount on purpose (an empty directory could be mistaken for the contents).

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuser::{Config, INodeNo, Session, SessionACL};

use crate::adapter::Adapter;
use crate::answers::Answers;
use crate::check::{MountError, check};
use crate::holders::{Holder, holders};
use crate::kernel::{self, MountEntry};
use crate::presence;
use crate::tree::{Fault, ROOT_INO, ReadOnlyFs};

/// How to mount. Always read-only, without devices, set-id bits and access times.
#[derive(Clone, Debug)]
pub struct Options {
    /// Source shown in the mount table.
    pub fs_name: String,
    /// Type shown in the mount table, behind `fuse.`: letters, digits, `-` and `_`.
    pub subtype: String,
    /// Show the mount to users other than the one who mounts. Alone, this shows every file to everyone: set `acl`, too, or at least
    /// `default_permissions`.
    pub allow_other: bool,
    /// Let no program be started from the mount.
    pub no_exec: bool,
    /// Let the kernel apply owner, group and mode.
    pub default_permissions: bool,
    /// Let the kernel apply owner, group, mode and the access control lists in `system.posix_acl_*` attributes.
    pub acl: bool,
    /// Mount even if the mountpoint has something in it.
    pub allow_non_empty: bool,
    /// Threads that take requests from the kernel and answer what needs no waiting.
    pub threads: usize,
    /// Threads that wait for storage.
    pub workers: usize,
    /// Longest wait for storage; after that the client gets "timed out".
    pub patience: Duration,
    /// Bypass the kernel's cache of contents: less work for what is read once in large pieces, more for everything else.
    pub direct_io: bool,
    /// How far the kernel reads ahead in KiB. Only root can set it; for others, and with `None`, the kernel's value stays (mostly 128).
    pub read_ahead_kib: Option<u32>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fs_name: "firn".to_owned(),
            subtype: "firn".to_owned(),
            allow_other: false,
            no_exec: false,
            default_permissions: false,
            acl: false,
            allow_non_empty: false,
            threads: 2,
            workers: 16,
            patience: Duration::from_secs(60),
            direct_io: false,
            // Twice the throughput of the kernel's 128 KiB when each request is handed to a worker.
            read_ahead_kib: Some(1024),
        }
    }
}

/// Mounts a tree on an empty directory and serves it on threads of its own. When this returns, the mount can be used.
///
/// `on_fault` is called, from any thread, for every [`Fault`] a client runs into. It must not touch the mount.
///
/// # Errors
/// A [`MountError`] that tells the user what to do; nothing stays mounted then.
pub fn mount<T: ReadOnlyFs>(
    tree: T,
    mountpoint: &Path,
    options: &Options,
    on_fault: impl Fn(&Fault) + Send + Sync + 'static,
) -> Result<Mounted, MountError> {
    let point = check(mountpoint, options)?;
    let failed = |reason: io::Error| MountError::Io { point: point.clone(), reason };
    let answers = Arc::new(Answers::new(tree, Box::new(on_fault)));
    check_root(&answers)?;
    let acl = options.acl;
    let adapter = Adapter::new(answers, options.workers, options.patience, acl, options.direct_io).map_err(failed)?;
    let device = kernel::mount(&request(&point, options)).map_err(|reason| refused(&point, options, reason))?;
    // From here on, whatever fails must not leave the mount behind.
    let started = start(adapter, device, &point, options, || Ok(()));
    started.map_err(|reason| {
        let _ = kernel::unmount(&point, true);
        match reason.raw_os_error() {
            Some(errno) if acl && errno == rustix::io::Errno::OPNOTSUPP.raw_os_error() => MountError::NoAcl,
            _ => failed(reason),
        }
    })
}

fn request<'a>(point: &'a Path, options: &'a Options) -> kernel::Request<'a> {
    kernel::Request {
        point,
        fs_name: &options.fs_name,
        subtype: &options.subtype,
        allow_other: options.allow_other,
        no_exec: options.no_exec,
        default_permissions: options.default_permissions || options.acl,
    }
}

/// Whether [`renew`] can work here: for root, since Linux 6.5.
pub fn can_renew() -> bool {
    kernel::can_mount_beneath()
}

/// Mounts a tree in place of a running mount, so that at no moment anything else is seen there. Programs that use files of the old
/// mount go on with it; who comes by path finds the new one. The old one is to be kept until it has ended.
///
/// # Errors
/// As [`mount`]; the old mount stays then.
pub fn renew<T: ReadOnlyFs>(
    old: &Mounted,
    tree: T,
    options: &Options,
    on_fault: impl Fn(&Fault) + Send + Sync + 'static,
) -> Result<Mounted, MountError> {
    let point = old.mountpoint().to_owned();
    let failed = |reason: io::Error| MountError::Io { point: point.clone(), reason };
    let answers = Arc::new(Answers::new(tree, Box::new(on_fault)));
    check_root(&answers)?;
    let adapter =
        Adapter::new(answers, options.workers, options.patience, options.acl, options.direct_io).map_err(failed)?;
    let (mount, device) = kernel::mount_nowhere(&request(&point, options)).map_err(failed)?;
    let swap = || {
        kernel::put_beneath(&mount, &point)?;
        old.unmounter.detach().map_err(io::Error::other)
    };
    start(adapter, device, &point, options, swap).map_err(failed)
}

fn check_root<T: ReadOnlyFs>(answers: &Answers<T>) -> Result<(), MountError> {
    let (attr, _) = answers
        .guard("getattr", ROOT_INO, || answers.getattr(ROOT_INO))
        .map_err(|errno| MountError::Invalid(format!("The root cannot be read (error {})", errno.code())))?;
    if attr.ino.0 != ROOT_INO || attr.kind != fuser::FileType::Directory {
        return Err(MountError::Invalid(format!("The root is a {:?} with inode number {}", attr.kind, attr.ino.0)));
    }
    Ok(())
}

fn refused(point: &Path, options: &Options, reason: io::Error) -> MountError {
    match reason.kind() {
        io::ErrorKind::PermissionDenied if options.allow_other && reason.to_string().contains("user_allow_other") => {
            MountError::AllowOtherDenied
        }
        io::ErrorKind::PermissionDenied => MountError::Denied { point: point.to_owned(), reason },
        _ => MountError::Io { point: point.to_owned(), reason },
    }
}

/// Serves a connection; `show` makes its mount visible once the kernel has been spoken to.
fn start<T: ReadOnlyFs>(
    adapter: Adapter<T>,
    device: OwnedFd,
    point: &Path,
    options: &Options,
    show: impl FnOnce() -> io::Result<()>,
) -> io::Result<Mounted> {
    let connection = device.try_clone()?;
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let audience = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    let session = Session::from_fd(adapter, device, audience, config)?;
    let notifier = Notifier(session.notifier());
    show()?;
    // The table is the only witness of which mount is ours; without it, unmounting goes by path alone.
    let entry = kernel::mounted_at(point).ok().flatten().filter(|entry| entry.fs_type.starts_with("fuse"));
    if let (Some(entry), Some(kib)) = (&entry, options.read_ahead_kib) {
        let _ = kernel::set_read_ahead(&entry.device, kib);
    }
    if let Some(entry) = &entry {
        presence::announce(&entry.device);
    }
    let place = Arc::new(Place { point: point.to_owned(), entry, connection: Mutex::new(Some(connection)) });
    let served = Arc::clone(&place);
    let thread = thread::Builder::new().name("fuse-session".to_owned()).spawn(move || {
        // Also after a panic: a connection that nobody serves must end, or every client would wait for ever.
        let _close = CloseOnDrop(served);
        session.run()
    })?;
    Ok(Mounted { unmounter: Unmounter { place }, notifier, thread: Some(thread) })
}

/// Where we are mounted.
struct Place {
    point: PathBuf,
    /// Our line of the mount table.
    entry: Option<MountEntry>,
    /// Our end of the connection to the kernel, while it is served.
    connection: Mutex<Option<OwnedFd>>,
}

impl Place {
    fn connection(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ended(&self) -> bool {
        !self.connection().as_ref().is_some_and(kernel::is_connected)
    }
}

struct CloseOnDrop(Arc<Place>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.connection().take();
    }
}

/// A running mount.
///
/// Dropping it unmounts, lazily if it is busy – but not while the thread panics: a mount that ends by an error stays visibly broken.
pub struct Mounted {
    unmounter: Unmounter,
    notifier: Notifier,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Mounted {
    /// Absolute path of the mountpoint.
    pub fn mountpoint(&self) -> &Path {
        &self.unmounter.place.point
    }

    /// A handle to end the mount from another thread.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// A handle to tell the kernel about changes.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// Whether the mount has ended.
    pub fn is_ended(&self) -> bool {
        self.unmounter.place.is_ended()
    }

    /// Waits until the mount has ended: through an [`Unmounter`], `fusermount3 -u` or `umount`; after a lazy unmounting, until the last
    /// user is gone.
    ///
    /// # Errors
    /// The connection to the kernel failed.
    pub fn wait(mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread that serves the mount panicked")),
            None => Ok(()),
        }
    }

    /// Unmounts and waits for the end. If it is busy, the mount is handed back unharmed, with the reason.
    ///
    /// # Errors
    /// As [`Unmounter::unmount`].
    pub fn unmount(self) -> Result<(), (Mounted, UnmountError)> {
        match self.unmounter.unmount() {
            Ok(()) => {
                // The mount is gone; how the connection ended no longer matters to anyone.
                let _ = self.wait();
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() && self.unmounter.unmount().is_err() {
            let _ = self.unmounter.detach();
        }
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mounted({:?})", self.mountpoint())
    }
}

/// Ends a mount; may be used from any thread and as often as needed.
#[derive(Clone)]
pub struct Unmounter {
    place: Arc<Place>,
}

impl Unmounter {
    /// Unmounts. Success also if the mount has ended already; never touches what others have mounted at the same place since.
    ///
    /// # Errors
    /// [`UnmountError::Busy`]: files are in use, and the mount goes on.
    pub fn unmount(&self) -> Result<(), UnmountError> {
        self.end(false)
    }

    /// Takes the mount out of sight at once; programs that use files in it can go on, and it ends with the last of them.
    ///
    /// # Errors
    /// Any but [`UnmountError::Busy`].
    pub fn detach(&self) -> Result<(), UnmountError> {
        self.end(true)
    }

    /// Programs that keep the mount busy, as far as this user may know.
    pub fn holders(&self) -> Vec<Holder> {
        holders(&self.place.point)
    }

    fn end(&self, lazily: bool) -> Result<(), UnmountError> {
        if self.place.is_ended() {
            return Ok(());
        }
        // While the connection lives, nobody else can have got both numbers.
        if let (Some(own), Ok(mut mounts)) = (&self.place.entry, kernel::mounts_at(&self.place.point)) {
            let is_own = |mount: &MountEntry| (mount.id, &mount.device) == (own.id, &own.device);
            let listed = mounts.iter().any(is_own);
            match mounts.pop() {
                Some(top) if is_own(&top) => {}
                Some(top) if listed => {
                    return Err(UnmountError::Covered { point: self.place.point.clone(), source: top.source });
                }
                // Unmounted or detached before; what is at this place now belongs to others.
                _ => return Ok(()),
            }
        }
        kernel::unmount(&self.place.point, lazily).map_err(|reason| {
            if reason.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) {
                UnmountError::Busy { point: self.place.point.clone(), holders: self.holders() }
            } else {
                UnmountError::Io { point: self.place.point.clone(), reason }
            }
        })
    }
}

impl fmt::Debug for Unmounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unmounter({:?})", self.place.point)
    }
}

/// Why a mount could not be ended. It goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum UnmountError {
    /// Files or directories in it are in use.
    Busy {
        /// Where.
        point: PathBuf,
        /// By whom, as far as is known.
        holders: Vec<Holder>,
    },
    /// Something else is mounted on top of it.
    Covered {
        /// Where.
        point: PathBuf,
        /// What, as in the mount table.
        source: String,
    },
    /// Something else failed.
    Io {
        /// Where.
        point: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

impl fmt::Display for UnmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnmountError::Busy { point, holders } => {
                write!(f, "The mount on {point:?} is in use")?;
                for (number, holder) in holders.iter().enumerate() {
                    let before = if number == 0 { " by " } else { ", " };
                    write!(f, "{before}\"{}\" (process {}: {:?})", holder.name, holder.pid, holder.path)?;
                }
                Ok(())
            }
            UnmountError::Covered { point, source } => {
                write!(f, "{source:?} is mounted on top of the mount on {point:?}")
            }
            UnmountError::Io { point, reason } => write!(f, "The mount on {point:?} could not be ended ({reason})"),
        }
    }
}

impl std::error::Error for UnmountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UnmountError::Io { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// Tells the kernel about changes in mutable directories.
///
/// Never call it from inside a method of the tree or under a lock that those take: the kernel may wait for an answer of theirs first.
#[derive(Clone, Debug)]
pub struct Notifier(fuser::Notifier);

impl Notifier {
    /// The entries of this mutable directory have changed: forget its listing and attributes.
    ///
    /// # Errors
    /// The mount has ended.
    pub fn directory_changed(&self, ino: u64) -> io::Result<()> {
        self.0.inval_inode(INodeNo(ino), 0, 0)
    }

    /// Puts the whole contents of a small file into the kernel's cache, so that reading it needs no request. The kernel must know the
    /// inode already, from a look-up or a listing, and takes what it is given for the truth: it must be complete and right.
    ///
    /// It may wait for requests that are being answered: never call it on a thread that those need.
    ///
    /// # Errors
    /// The kernel does not know the inode, or the mount has ended.
    pub fn contents(&self, ino: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.store(INodeNo(ino), 0, bytes)
    }

    /// This name in a mutable directory now means something else, or nothing, or something for the first time.
    ///
    /// # Errors
    /// The mount has ended, or the name is too long.
    pub fn entry_changed(&self, dir: u64, name: &[u8]) -> io::Result<()> {
        self.0.inval_entry(INodeNo(dir), OsStr::from_bytes(name))
    }
}
