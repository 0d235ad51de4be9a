//! What a directory holds: entries, their metadata and bodies. Not for: how pages are sealed or stored.

use crate::error::{Error, Result};
use crate::id::ChunkId;
use std::hash::{Hash, Hasher};
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
    /// Entries of one snapshot with the same group are the same file if they agree (see `LinkKey`); never 0.
    pub group: u64,
    /// How many links the source had, at least 1.
    pub links: u32,
}

/// What names of one file have in common: a hash of the group and of all that the entry says of the file.
///
/// A group alone does not make one file of two names: its number stands for an inode, which is used again once its file is gone,
/// and whose file may be changed after one of its names was read. Names that disagree are files of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(pub [u8; 16]);

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Here: 1 to 128 bytes.
    Inline(Vec<u8>),
    /// In chunks: up to 32 extents (none for an empty file).
    Extents(Vec<Extent>),
    /// In chunks named by a list page; more than 32 extents.
    List(ChunkId),
}

/// A run of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
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

impl Totals {
    /// The sum, or `None` where a count exceeds 64 bits.
    pub fn checked_add(&self, other: &Totals) -> Option<Totals> {
        Some(Totals {
            entries: self.entries.checked_add(other.entries)?,
            files: self.files.checked_add(other.files)?,
            bytes: self.bytes.checked_add(other.bytes)?,
            linked: self.linked.checked_add(other.linked)?,
            attributed: self.attributed.checked_add(other.attributed)?,
        })
    }

    /// Adds `other`; sums beyond 64 bits cannot come from real files and are damage.
    pub fn add(&mut self, other: &Totals) -> Result<()> {
        *self = self
            .checked_add(other)
            .ok_or_else(|| Error::damaged("the totals of a directory are larger than any can be"))?;
        Ok(())
    }
}

impl Entry {
    /// What this entry adds to the totals of the directory it is in: itself and everything below it. `Damaged` if the sum
    /// exceeds 64 bits.
    pub fn totals(&self) -> Result<Totals> {
        let mut totals = Totals {
            entries: 1,
            files: 0,
            bytes: 0,
            linked: u64::from(self.meta.link.is_some()),
            attributed: u64::from(self.meta.attributes.is_some()),
        };
        match &self.body {
            Body::File { size, .. } => {
                totals.files = 1;
                totals.bytes = *size;
            }
            Body::Directory { totals: below, .. } => totals.add(below)?,
            _ => {}
        }
        Ok(totals)
    }

    /// What this entry has in common with the other names of its file; `None` if it is in no group, or a directory.
    ///
    /// Left out is what may differ between two looks at one unchanged file: the number of its names, its allocated blocks, and
    /// whether it kept still while it was read.
    pub fn link_key(&self) -> Option<LinkKey> {
        let link = self.meta.link.filter(|_| !matches!(self.body, Body::Directory { .. }))?;
        let Metadata { mode, owner, mtime, btime, attributes, flags, .. } = &self.meta;
        let mut digest = Digest(blake3::Hasher::new());
        (link.group, mode, owner, mtime, btime, attributes, flags, &self.body).hash(&mut digest);
        Some(LinkKey(*digest.0.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")))
    }

    /// `st_blocks` of this entry: as recorded, else by the rule (`default_blocks`).
    pub fn blocks(&self, extents: Option<&[Extent]>) -> Option<u64> {
        self.meta.blocks.or_else(|| default_blocks(&self.body, extents))
    }
}

/// Takes in values as they are hashed by the standard library, which puts lengths before what has any length.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        u64::from_le_bytes(*self.0.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// `st_blocks` (512 bytes each) of a thing that does not record it. The extents of a file whose content is a list have to be
/// given in `extents`, or the answer is `None`; for all others `extents` is ignored.
pub fn default_blocks(body: &Body, extents: Option<&[Extent]>) -> Option<u64> {
    match body {
        Body::Directory { size, .. } => Some(size.div_ceil(512)),
        Body::File { content: Content::Inline(bytes), .. } => Some(run_blocks(bytes.len() as u64)),
        Body::File { content: Content::Extents(extents), .. } => Some(BlockCounter::count(extents)),
        Body::File { content: Content::List(_), .. } => extents.map(BlockCounter::count),
        _ => Some(0),
    }
}

/// 8 for each 4,096 bytes, rounded up.
fn run_blocks(len: u64) -> u64 {
    len.div_ceil(4096).saturating_mul(8)
}

/// Counts `st_blocks` from extents as they come: each run of data between holes is rounded up to 4,096 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockCounter {
    blocks: u64,
    run: u64,
}

impl BlockCounter {
    /// Takes in the next extent.
    pub fn push(&mut self, extent: &Extent) {
        match extent {
            Extent::Hole(_) => {
                self.blocks = self.finish();
                self.run = 0;
            }
            Extent::Chunk { len, .. } => self.run = self.run.saturating_add(u64::from(*len)),
        }
    }

    /// Blocks of all extents so far, in units of 512 bytes.
    pub fn finish(&self) -> u64 {
        self.blocks.saturating_add(run_blocks(self.run))
    }

    /// Blocks of these extents.
    pub fn count(extents: &[Extent]) -> u64 {
        let mut counter = BlockCounter::default();
        for extent in extents {
            counter.push(extent);
        }
        counter.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn chunk(len: u32) -> Extent {
        Extent::Chunk { id: ChunkId([0; 32]), len }
    }

    #[test]
    fn blocks_by_rule() {
        assert_eq!(BlockCounter::count(&[]), 0);
        assert_eq!(BlockCounter::count(&[chunk(1)]), 8);
        assert_eq!(BlockCounter::count(&[chunk(4096), chunk(4096)]), 16);
        assert_eq!(BlockCounter::count(&[chunk(1), chunk(1)]), 8);
        assert_eq!(BlockCounter::count(&[chunk(1), Extent::Hole(65_536), chunk(1)]), 16);
        assert_eq!(BlockCounter::count(&[Extent::Hole(u64::MAX)]), 0);
        let list = Body::File { size: 1, content: Content::List(ChunkId([0; 32])) };
        assert_eq!(default_blocks(&list, None), None);
        assert_eq!(default_blocks(&list, Some(&[chunk(5000)])), Some(16));
        let inline = Body::File { size: 3, content: Content::Inline(vec![1, 2, 3]) };
        assert_eq!(default_blocks(&inline, None), Some(8));
        let directory = Body::Directory { size: 513, page: ChunkId([0; 32]), totals: Totals::default() };
        assert_eq!(default_blocks(&directory, None), Some(2));
        assert_eq!(default_blocks(&Body::Symlink(b"x".to_vec()), None), Some(0));
    }

    #[test]
    fn names_of_one_file_have_one_key() {
        let owner = |uid| Arc::new(Owner { uid, gid: 2, user: b"me".to_vec(), group: b"us".to_vec() });
        let inline = |text: &str| Body::File { size: text.len() as u64, content: Content::Inline(text.into()) };
        let entry = |change: &dyn Fn(&mut Entry)| {
            let meta = Metadata {
                mode: 0o644,
                owner: owner(1),
                mtime: Timestamp { seconds: 5, nanos: 6 },
                btime: Some(Timestamp { seconds: 3, nanos: 4 }),
                attributes: None,
                link: Some(HardLink { group: 7, links: 2 }),
                blocks: None,
                flags: 0,
                waypoint: false,
                unreliable: false,
            };
            let mut entry = Entry { name: b"a".to_vec(), meta, body: inline("text") };
            change(&mut entry);
            entry
        };
        let key = entry(&|_| {}).link_key();
        let agrees: [&dyn Fn(&mut Entry); 4] = [
            &|entry| entry.name = b"b".to_vec(),
            &|entry| entry.meta.link = Some(HardLink { group: 7, links: 3 }),
            &|entry| entry.meta.blocks = Some(16),
            &|entry| entry.meta.unreliable = true,
        ];
        for change in agrees {
            assert_eq!(entry(change).link_key(), key, "{:?}", entry(change));
        }
        let set = AttributeSet(vec![(b"user.x".to_vec(), b"y".to_vec())]);
        let differs: [&dyn Fn(&mut Entry); 11] = [
            &|entry| entry.meta.link = Some(HardLink { group: 8, links: 2 }),
            &|entry| entry.meta.mode = 0o600,
            &|entry| entry.meta.owner = owner(9),
            &|entry| entry.meta.mtime.nanos = 7,
            &|entry| entry.meta.btime = None,
            &|entry| entry.meta.btime = Some(Timestamp { seconds: 3, nanos: 5 }),
            &|entry| entry.meta.attributes = Some(Arc::new(Attributes::Inline(set.clone()))),
            &|entry| entry.meta.flags = 0x10,
            &|entry| entry.body = inline("Text"),
            &|entry| entry.body = Body::File { size: 4, content: Content::Extents(vec![chunk(4)]) },
            &|entry| entry.body = Body::Symlink(b"text".to_vec()),
        ];
        let mut keys = vec![key];
        for change in differs {
            let key = entry(change).link_key();
            assert!(key.is_some() && !keys.contains(&key), "{:?}", entry(change));
            keys.push(key);
        }
        assert_eq!(entry(&|entry| entry.meta.link = None).link_key(), None);
        let folder = Body::Directory { size: 0, page: ChunkId([0; 32]), totals: Totals::default() };
        assert_eq!(entry(&|entry| entry.body = folder.clone()).link_key(), None);
    }

    #[test]
    fn totals_do_not_overflow() {
        let mut totals = Totals { entries: 1, bytes: u64::MAX, ..Totals::default() };
        let before = totals;
        let error = totals.add(&Totals { bytes: 1, ..Totals::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(totals, before);
        totals.add(&Totals { entries: 4, files: 3, ..Totals::default() }).unwrap();
        assert_eq!((totals.entries, totals.files), (5, 3));
    }
}
