//! The port: what a tree must be able to do to be served. No FUSE types and no errno appear here.

use std::fmt;

/// Inode number the kernel gives to the root of every FUSE mount.
pub(crate) const ROOT_INO: u64 = 1;

/// A read-only tree of files.
///
/// Every method may be called from several threads at once and may block; which thread waits is decided by
/// [`ReadOnlyFs::may_wait`]. **Absence is a value** (`None`), so a [`Fault`] always means damage or a failed store: it is
/// reported through the callback given to [`crate::mount()`] and reaches the client as an error, for this one request only.
/// A panic is treated likewise.
///
/// Except for directories that say [`ReadOnlyFs::is_mutable`], everything behind an inode number is immutable for ever: the kernel
/// keeps names, attributes, listings, link targets and contents without asking again.
pub trait ReadOnlyFs: Send + Sync + 'static {
    /// A cheap-to-clone handle of an object, found again by its inode number alone: `node(attr(n)?.ino)` is an equal node, also
    /// after a remount and after any time.
    type Node: Clone + Send + Sync + 'static;

    /// The root directory. Its inode number must be 1, and no other object may have 0 or 1.
    fn root(&self) -> Self::Node;

    /// The object with this inode number; `None` if there is none (the client sees ESTALE). No table is kept on this side and no
    /// object is ever "forgotten": numbers are computed by the tree.
    fn node(&self, ino: u64) -> Result<Option<Self::Node>, Fault>;

    /// Attributes of an object.
    fn attr(&self, node: &Self::Node) -> Result<Attr, Fault>;

    /// The object called `name` in `dir`. Never called with `.`, `..`, an empty name or one above 255 bytes.
    fn lookup(&self, dir: &Self::Node, name: &[u8]) -> Result<Option<(Self::Node, Attr)>, Fault>;

    /// The directory that holds `dir`; the root is its own parent. Used for `..`, and for file handles (NFS).
    fn parent(&self, dir: &Self::Node) -> Result<Self::Node, Fault>;

    /// Calls `each` for the entries of `dir` (without `.` and `..`) beginning at position `offset`, 0 being the start, until it
    /// returns `false` or the end is reached. The entry for which it returned `false` counts as not delivered. Positions
    /// ([`ListItem::next`]) stay valid for ever in an immutable directory: ordinal numbers are fine.
    fn list(&self, dir: &Self::Node, offset: u64, each: &mut dyn FnMut(ListItem<'_>) -> bool) -> Result<(), Fault>;

    /// Calls `reply` exactly once with the bytes `offset .. min(offset + len, size)` of a regular file, straight from wherever
    /// they lie: the slice goes to the kernel without being copied. Fewer bytes than that are never passed on (the kernel would
    /// show zeros in their place): the client gets an I/O error instead. [`ReadOnlyFs::attr`] may be called from inside `reply`, so
    /// no lock that it needs may be held.
    fn read(&self, file: &Self::Node, offset: u64, len: u32, reply: &mut dyn FnMut(&[u8])) -> Result<(), Fault>;

    /// Target of a symbolic link.
    fn readlink(&self, link: &Self::Node) -> Result<Vec<u8>, Fault>;

    /// Value of an extended attribute; `None` if the object has none of that name (ENODATA).
    fn xattr(&self, node: &Self::Node, name: &[u8]) -> Result<Option<Vec<u8>>, Fault>;

    /// What is known of all extended attributes of a name without looking at an object. Asked before each [`ReadOnlyFs::xattr`].
    fn xattr_source(&self, name: &[u8]) -> Source {
        let _ = name;
        Source::Recorded
    }

    /// Names of all extended attributes of an object.
    fn xattr_names(&self, node: &Self::Node) -> Result<Vec<Vec<u8>>, Fault>;

    /// First position at or behind `offset` (always below the size) that is data or a hole. `None` for [`Whence::Data`]: only a
    /// hole follows (ENXIO); `None` for [`Whence::Hole`]: the only hole is the one every file has at its end.
    fn seek(&self, file: &Self::Node, offset: u64, whence: Whence) -> Result<Option<u64>, Fault>;

    /// Totals of the tree.
    fn statfs(&self) -> Result<StatFs, Fault>;

    /// Which extended attributes anything that will ever be visible in this mount can have. What nothing has, the kernel stops asking
    /// for: that holds for the whole mount once it was said.
    fn xattrs(&self) -> Xattrs {
        Xattrs::Listed
    }

    /// Whether the entries of this directory can change. Its entries get a short life in the kernel, absent names none; its cached
    /// listing is renewed by [`crate::Notifier::directory_changed`].
    fn is_mutable(&self, dir: &Self::Node) -> bool {
        let _ = dir;
        false
    }

    /// Whether a process, given by the number of one of its threads, gets "permission denied" instead of this content. Asked before
    /// each read that the kernel does not answer from what it keeps.
    fn refuses(&self, pid: u32, work: Work) -> bool {
        let _ = (pid, work);
        false
    }

    /// Whether this work may have to wait for storage: if so it goes to a worker, else it is done at once on the thread that takes
    /// requests from the kernel, which is quicker but holds up all others meanwhile. A cheap guess without any waiting.
    fn may_wait(&self, work: Work) -> bool {
        matches!(work, Work::Read { .. })
    }
}

/// Something about to be asked of a tree; see [`ReadOnlyFs::may_wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Attributes, look-ups, listings, link targets, holes: everything but contents.
    Metadata {
        /// The object asked about (for a look-up: the directory).
        ino: u64,
    },
    /// A range of a file.
    Read {
        /// The file.
        ino: u64,
        /// First byte.
        offset: u64,
        /// Number of bytes, possibly beyond the end.
        len: u32,
    },
}

/// Which extended attributes there can be in a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xattrs {
    /// None: the kernel asks neither for lists nor for values.
    None,
    /// Such as are asked for by name, but not listed: the kernel does not ask for lists.
    Named,
    /// Any.
    Listed,
}

/// Where the value of an extended attribute comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// No object has one.
    Nowhere,
    /// It is stored with the object.
    Recorded,
    /// It has to be found out, which may take time: left to a worker.
    Found,
    /// It is made of the content, which a worker has to read: [`ReadOnlyFs::refuses`] is asked as for a read of the whole file.
    Content,
}

/// What kind of object something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// Attributes of an object. Access and change time are shown equal to `mtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number: unique in the mount, shared only by hard links.
    pub ino: u64,
    /// Kind of object.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits (07777); other bits are ignored.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file as in `st_rdev`, else 0.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes. `cp` and `grep` take less than the size to mean "has holes".
    pub blocks: u64,
    /// Modification time: seconds since 1970, negative before.
    pub mtime_secs: i64,
    /// Nanoseconds to add to the seconds (below 1,000,000,000).
    pub mtime_nanos: u32,
}

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct ListItem<'a> {
    /// Position behind this entry, to go on from. Below 2^62, never 0.
    pub next: u64,
    /// Name: 1 to 255 bytes without `/` and NUL. (Others are reported and left out.)
    pub name: &'a [u8],
    /// Attributes.
    pub attr: Attr,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// `SEEK_DATA`.
    Data,
    /// `SEEK_HOLE`.
    Hole,
}

/// Totals of a tree, as `df` shows them. Nothing is ever free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes in all.
    pub bytes: u64,
    /// Objects in all.
    pub files: u64,
}

/// Why something that exists cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Stored bytes are not what was stored.
    Damaged,
    /// Something that must be there is gone from the store. (Not: a name that does not exist, which is a `None`.)
    Missing,
    /// The store failed.
    Io,
    /// The store refuses access.
    Denied,
    /// The store did not answer in time.
    TimedOut,
    /// The medium is not there, or the data must be thawed first.
    Offline,
    /// Stored in a way this program does not know.
    Unsupported,
    /// Not enough memory.
    NoMemory,
    /// The tree panicked: an error in the program.
    Panicked,
}

/// Something that exists cannot be shown: damage or a failed store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault; decides what the client sees.
    pub kind: FaultKind,
    /// A sentence for the log that names the object.
    pub message: String,
}

impl Fault {
    /// A fault of this kind with a sentence for the log.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault { kind, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
