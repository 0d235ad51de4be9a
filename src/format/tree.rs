//! What a directory holds: entries, their metadata and bodies. Not for: how pages are sealed or stored.

use crate::id::ChunkId;
use std::sync::Arc;

/// A file, directory or other thing in a directory, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Raw bytes, 1 to 255 of them; not `.` or `..`, without `/` and NUL.
    pub name: Vec<u8>,
    /// Everything but name and content.
    pub meta: Metadata,
    /// What it is and what it holds.
    pub body: Body,
}

/// A point in time with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970, may be negative.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10^9.
    pub nanos: u32,
}

/// Owner and group, by number and by name (empty: unknown).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// The user's name, at most 255 bytes.
    pub user: Vec<u8>,
    /// The group's name, at most 255 bytes.
    pub group: Vec<u8>,
}

/// Extended attributes, name and value, sorted by name; POSIX ACLs included. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttributeSet(pub Vec<(Vec<u8>, Vec<u8>)>);

/// Where an entry's attribute set is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attributes {
    /// In the page, encoded in at most 1,024 bytes.
    Inline(AttributeSet),
    /// In a chunk of kind attributes with this id and length.
    Chunk(ChunkId, u32),
}

/// Membership of a group of hard links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HardLink {
    /// Entries of one snapshot with the same group are the same file; never 0.
    pub group: u64,
    /// How many links the source had, at least 1.
    pub links: u32,
}

/// Everything about an entry but its name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, 07777.
    pub mode: u16,
    /// Owner and group.
    pub owner: Arc<Owner>,
    /// Last modification.
    pub mtime: Timestamp,
    /// Birth time, if the source knew it.
    pub btime: Option<Timestamp>,
    /// Extended attributes and ACLs.
    pub attributes: Option<Arc<Attributes>>,
    /// Set for files with several names.
    pub link: Option<HardLink>,
    /// `st_blocks` (512 bytes each) where it differs from the rule of the format page (`Entry::default_blocks`).
    pub blocks: Option<u64>,
    /// File flags (`FS_IOC_GETFLAGS`), 0 if none.
    pub flags: u32,
    /// A directory recorded only because a backed-up path leads through it.
    pub waypoint: bool,
    /// The content changed while it was read.
    pub unreliable: bool,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Its bytes.
        content: Content,
    },
    /// A directory.
    Directory {
        /// `st_size` at the source.
        size: u64,
        /// Its top page.
        page: ChunkId,
        /// Sums over everything below it (itself not counted).
        totals: Totals,
    },
    /// A symbolic link and its target, 1 to 4,095 bytes.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A socket; read, never written.
    Socket,
}

/// Where a regular file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Here: 1 to 128 bytes.
    Inline(Vec<u8>),
    /// In chunks: up to 32 extents (none for an empty file).
    Extents(Vec<Extent>),
    /// In chunks named by a list page; more than 32 extents.
    List(ChunkId),
}

/// A run of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// This many zero bytes that need no storage.
    Hole(u64),
    /// A content chunk.
    Chunk {
        /// Its id.
        id: ChunkId,
        /// Its length in bytes.
        len: u32,
    },
}

impl Extent {
    /// Bytes of the file that it covers.
    pub fn len(&self) -> u64 {
        match self {
            Extent::Hole(len) => *len,
            Extent::Chunk { len, .. } => u64::from(*len),
        }
    }

    /// Never: extents have at least one byte. (Here because `len` is.)
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Sums over the entries of a subtree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All entries.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Sum of the sizes of regular files.
    pub bytes: u64,
    /// Entries in a hard-link group.
    pub linked: u64,
    /// Entries with an attribute set.
    pub attributed: u64,
}
