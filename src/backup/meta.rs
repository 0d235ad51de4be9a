//! Turns what the system says about a source item into the metadata of an entry. Not for: content.

use super::walk::{Handle, SourceItem};
use crate::chunk::secret::Secret;
use crate::error::Error;
use crate::format::bounds::{MAX_ATTRIBUTE_SET, MAX_ATTRIBUTE_VALUE, MAX_INLINE_ATTRIBUTES};
use crate::format::tree::{AttributeSet, Attributes, HardLink, Metadata, Owner, Timestamp};
use crate::os::{self, FileTime, FileType, Names, Stat};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Reads metadata; keeps the names of owners. One for each backup, used by all its threads.
#[derive(Debug)]
pub struct Reader {
    key: Secret,
    names: Names,
    owners: Mutex<HashMap<(u32, u32), Arc<Owner>>>,
}

/// The metadata of an item.
#[derive(Debug)]
pub struct Described {
    /// Complete but for `blocks` and `unreliable`, and for `attributes` if `large` is set.
    pub metadata: Metadata,
    /// An attribute set too large for a tree page: store it as a chunk and set `metadata.attributes`.
    pub large: Option<AttributeSet>,
    /// What could not be read.
    pub issues: Vec<Error>,
}

impl Reader {
    /// A reader whose hard-link groups are numbered under the secret `key`.
    pub fn new(key: Secret) -> Self {
        Reader { key, names: Names::default(), owners: Mutex::default() }
    }

    /// Describes `item`. If its content is open, `open` spares another look and tells all file flags; else only
    /// those that `statx` knows.
    pub fn describe(&self, item: &SourceItem, open: Option<BorrowedFd<'_>>) -> Described {
        let mut issues = Vec::new();
        let mut complain = |what: &str, error: io::Error| {
            issues.push(Error::io(format!("{what} of \"{}\" cannot be read", item.path.display()), error));
        };
        let set = match read_attributes(item, open, &mut complain) {
            Ok(set) => set,
            Err(error) => {
                complain("The extended attributes", error);
                None
            }
        };
        let readable = match (&open, &item.handle) {
            (Some(fd), _) => Some(*fd),
            (None, Handle::Itself(fd)) => Some(fd.as_fd()),
            _ => None,
        };
        let mut flags = item.stat.flags;
        if let Some(fd) = readable {
            match os::get_file_flags(fd) {
                Ok(all) => flags |= all,
                Err(error) => complain("The file flags", error),
            }
        }
        let (attributes, large) = match set {
            Some(set) if set.encoded_len() > MAX_INLINE_ATTRIBUTES => (None, Some(set)),
            Some(set) => (Some(Arc::new(Attributes::Inline(set))), None),
            None => (None, None),
        };
        let stat = &item.stat;
        let metadata = Metadata {
            mode: stat.mode,
            owner: self.owner(stat.uid, stat.gid),
            mtime: timestamp(stat.mtime),
            btime: stat.btime.map(timestamp),
            attributes,
            link: self.hard_link(stat),
            blocks: None,
            flags,
            waypoint: item.waypoint,
            unreliable: false,
        };
        Described { metadata, large, issues }
    }

    /// Owner and group with their names.
    pub fn owner(&self, uid: u32, gid: u32) -> Arc<Owner> {
        if let Some(owner) = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(&(uid, gid)) {
            return owner.clone();
        }
        let (user, group) = (self.names.user(uid).to_vec(), self.names.group(gid).to_vec());
        let owner = Arc::new(Owner { uid, gid, user, group });
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).entry((uid, gid)).or_insert(owner).clone()
    }

    /// The group of hard links, if the file has several names: a keyed hash of device, inode number and time of birth, so that
    /// it tells nothing about them and is the same in each backup with the same key. An inode number alone is used again as soon
    /// as its file is gone, also during a backup.
    pub fn hard_link(&self, stat: &Stat) -> Option<HardLink> {
        if stat.nlink <= 1 || stat.kind == FileType::Directory {
            return None;
        }
        let mut hasher = blake3::Hasher::new_keyed(self.key.bytes());
        hasher.update(&stat.dev.to_le_bytes());
        hasher.update(&stat.ino.to_le_bytes());
        if let Some(birth) = stat.btime {
            hasher.update(&birth.seconds.to_le_bytes());
            hasher.update(&birth.nanos.to_le_bytes());
        }
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        Some(HardLink { group: u64::from_le_bytes(bytes).max(1), links: stat.nlink })
    }
}

/// The same point in time as the format writes it.
pub fn timestamp(time: FileTime) -> Timestamp {
    Timestamp { seconds: time.seconds, nanos: time.nanos }
}

// Whether attributes of this name belong to the file, and not to the way its file system works.
fn is_kept(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 4] = [b"user.", b"security.", b"trusted.", b"btrfs."];
    const NAMES: [&[u8]; 4] =
        [b"system.posix_acl_access", b"system.posix_acl_default", b"system.nfs4_acl", b"system.richacl"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

fn read_attributes(
    item: &SourceItem,
    open: Option<BorrowedFd<'_>>,
    complain: &mut dyn FnMut(&str, io::Error),
) -> io::Result<Option<AttributeSet>> {
    let path_handle;
    let fd = match (open, &item.handle) {
        (Some(fd), _) => fd,
        (None, Handle::Itself(fd)) => fd.as_fd(),
        (None, Handle::In(dir)) => {
            path_handle = os::open_path(dir, &item.name)?;
            if !os::stat_fd(&path_handle)?.same_file(&item.stat) {
                return Err(io::Error::other("another file has this name by now"));
            }
            path_handle.as_fd()
        }
    };
    let mut set = Vec::new();
    let mut total = 0;
    for name in os::list_xattrs(fd)? {
        if !is_kept(&name) || name.len() > 255 {
            continue;
        }
        let shown = || format!("The attribute \"{}\"", String::from_utf8_lossy(&name));
        match os::get_xattr(fd, &name) {
            Ok(Some(value))
                if value.len() <= MAX_ATTRIBUTE_VALUE && total + value.len() + name.len() + 16 <= MAX_ATTRIBUTE_SET =>
            {
                total += value.len() + name.len() + 16;
                set.push((name, value));
            }
            Ok(Some(_)) => complain(&shown(), io::Error::other("there is more than 8 MiB of attributes")),
            // Gone meanwhile.
            Ok(None) => {}
            // Listed, but of no use to anybody here.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => complain(&shown(), error),
        }
    }
    set.sort();
    set.dedup_by(|a, b| a.0 == b.0);
    Ok((!set.is_empty()).then_some(AttributeSet(set)))
}

/// Counts `st_blocks` by the format's default rule: 8 for each 4,096 bytes of data, each run rounded up on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockRule {
    blocks: u64,
    run: u64,
}

impl BlockRule {
    /// Data of this many bytes follows.
    pub fn data(&mut self, len: u64) {
        self.run = self.run.saturating_add(len);
    }

    /// A hole follows; the run of data ends.
    pub fn hole(&mut self) {
        self.blocks = self.blocks.saturating_add(self.run.div_ceil(4096).saturating_mul(8));
        self.run = 0;
    }

    /// The number of blocks.
    pub fn finish(mut self) -> u64 {
        self.hole();
        self.blocks
    }

    /// The value for `Metadata::blocks` of a file: what `stat` says, unless the rule says the same.
    pub fn given(self, stat: &Stat) -> Option<u64> {
        (stat.blocks != self.finish()).then_some(stat.blocks)
    }
}

/// The value for `Metadata::blocks` of anything but a regular file.
pub fn blocks_given(stat: &Stat) -> Option<u64> {
    let default = if stat.kind == FileType::Directory { stat.size.div_ceil(512) } else { 0 };
    (stat.blocks != default).then_some(stat.blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    fn keyed(key: u8) -> Reader {
        Reader::new(Secret::from_bytes(&[key; 32]))
    }

    fn item(dir: &Path, name: &str) -> SourceItem {
        let fd = OwnedFd::from(File::open(dir).unwrap());
        let stat = os::stat_at(&fd, name.as_bytes()).unwrap();
        let handle = Handle::In(Arc::new(fd));
        SourceItem { path: dir.join(name), name: name.into(), stat, handle, waypoint: false, named: false }
    }

    fn attributes(described: &Described) -> Vec<(&[u8], &[u8])> {
        let set = match (&described.metadata.attributes, &described.large) {
            (Some(inline), None) => match &**inline {
                Attributes::Inline(set) => set,
                Attributes::Chunk(..) => panic!("nobody stored a chunk"),
            },
            (None, Some(set)) => set,
            (None, None) => return Vec::new(),
            _ => panic!("either inline or large"),
        };
        set.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect()
    }

    #[test]
    fn attributes_and_lists_of_all_kinds() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"").unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        os::symlink_at(b"f", File::open(dir.path()).unwrap(), b"l").unwrap();
        let reader = keyed(7);
        assert_eq!(reader.describe(&item(dir.path(), "f"), None).metadata.attributes, None);
        let file = File::open(dir.path().join("f")).unwrap();
        // Version 2; user, a named user, group, mask, others.
        let acl =
            |tag: u16, bits: u16, id: u32| [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat();
        let list = [
            2_u32.to_le_bytes().to_vec(),
            acl(1, 6, u32::MAX),
            acl(2, 4, 12),
            acl(4, 4, u32::MAX),
            acl(16, 4, u32::MAX),
            acl(32, 0, u32::MAX),
        ]
        .concat();
        os::set_xattr(&file, b"user.b", b"2").unwrap();
        os::set_xattr(&file, b"user.a", b"").unwrap();
        os::set_xattr(&file, b"system.posix_acl_access", &list).unwrap();
        let folder = os::open_path(os::CWD, dir.path().join("d").as_os_str().as_encoded_bytes()).unwrap();
        os::set_xattr(&folder, b"system.posix_acl_default", &list).unwrap();
        let expected = [(&b"system.posix_acl_access"[..], &list[..]), (b"user.a", b""), (b"user.b", b"2")];
        for open in [None, Some(file.as_fd())] {
            let described = reader.describe(&item(dir.path(), "f"), open);
            assert_eq!(attributes(&described), expected);
            assert!(described.issues.is_empty() && described.large.is_none());
        }
        let described = reader.describe(&item(dir.path(), "d"), None);
        assert_eq!(attributes(&described), [(&b"system.posix_acl_default"[..], &list[..])]);
        if os::is_root() {
            let link = os::open_path(os::CWD, dir.path().join("l").as_os_str().as_encoded_bytes()).unwrap();
            os::set_xattr(&link, b"trusted.x", b"y").unwrap();
            assert_eq!(attributes(&reader.describe(&item(dir.path(), "l"), None)), [(&b"trusted.x"[..], &b"y"[..])]);
        }
        os::set_xattr(&file, b"user.a", &[5; 1100]).unwrap();
        let described = reader.describe(&item(dir.path(), "f"), None);
        assert!(described.large.is_some());
        assert_eq!(attributes(&described)[1], (&b"user.a"[..], &[5; 1100][..]));
    }

    #[test]
    fn attributes_of_a_file_that_was_replaced_are_an_issue() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"").unwrap();
        let seen = item(dir.path(), "f");
        std::fs::write(dir.path().join("g"), b"").unwrap();
        std::fs::rename(dir.path().join("g"), dir.path().join("f")).unwrap();
        assert_eq!(keyed(0).describe(&seen, None).issues.len(), 1);
    }

    #[test]
    fn the_rest_of_the_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let fd = File::open(dir.path()).unwrap();
        os::mkfifo_at(&fd, b"p", 0o600).unwrap();
        os::chmod_at(&fd, b"p", 0o6751).unwrap();
        os::set_times_at(&fd, b"p", FileTime { seconds: -1, nanos: 5 }).unwrap();
        let seen = item(dir.path(), "p");
        let reader = keyed(0);
        let meta = reader.describe(&seen, None).metadata;
        assert_eq!((meta.mode, meta.mtime), (0o6751, Timestamp { seconds: -1, nanos: 5 }));
        assert_eq!((meta.owner.uid, meta.owner.gid), (seen.stat.uid, seen.stat.gid));
        assert_eq!(meta.btime.is_some(), seen.stat.btime.is_some());
        assert!(meta.link.is_none() && meta.blocks.is_none() && !meta.waypoint && !meta.unreliable);
        assert!(Arc::ptr_eq(&meta.owner, &reader.describe(&seen, None).metadata.owner), "owners are shared");
        let root = reader.owner(0, 0);
        assert_eq!((&root.user[..], &root.group[..]), (&b"root"[..], &b"root"[..]));
        assert_eq!(reader.owner(4_000_000_001, 4_000_000_001).user, b"");
    }

    #[test]
    fn hard_links_form_groups() {
        let dir = tempfile::tempdir().unwrap();
        let fd = File::open(dir.path()).unwrap();
        os::symlink_at(b"x", &fd, b"a").unwrap();
        os::link_at(&fd, b"a", &fd, b"b").unwrap();
        std::fs::write(dir.path().join("c"), b"").unwrap();
        os::link_at(&fd, b"c", &fd, b"d").unwrap();
        std::fs::create_dir_all(dir.path().join("e/f")).unwrap();
        let reader = keyed(1);
        let group = |reader: &Reader, name: &str| reader.hard_link(&item(dir.path(), name).stat);
        let (a, c) = (group(&reader, "a").unwrap(), group(&reader, "c").unwrap());
        assert_eq!(group(&reader, "b"), Some(a));
        assert_eq!(group(&reader, "d"), Some(c));
        assert!(a.group != c.group && a.group != 0 && a.links == 2);
        let stat = item(dir.path(), "a").stat;
        let born_later = Stat { btime: Some(FileTime { seconds: 1 << 40, nanos: 0 }), ..stat };
        assert_ne!(reader.hard_link(&born_later), Some(a), "another file with the same inode number");
        assert_eq!(reader.hard_link(&Stat { ctime: born_later.ctime, nlink: 2, ..stat }), Some(a));
        assert_eq!(group(&reader, "e"), None, "directories have several links, but one name");
        assert_ne!(group(&keyed(2), "a").unwrap().group, a.group, "the key matters");
        assert_eq!(group(&keyed(1), "a"), Some(a), "nothing else does");
    }

    #[test]
    fn the_rule_for_blocks_is_that_of_the_format() {
        use crate::format::tree::{Body, Content, Extent, default_blocks};
        let mut seed = 1_u64;
        let mut random = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        for _ in 0..2000 {
            let (mut rule, mut extents) = (BlockRule::default(), Vec::new());
            for _ in 0..random(8) {
                if random(3) == 0 && !matches!(extents.last(), Some(Extent::Hole(_))) {
                    rule.hole();
                    extents.push(Extent::Hole(1 + random(1 << 30)));
                } else {
                    let most = if random(2) == 0 { 9000 } else { 8 << 20 };
                    let len = 1 + random(most);
                    rule.data(len);
                    extents.push(Extent::Chunk { id: crate::id::ChunkId([0; 32]), len: len as u32 });
                }
            }
            let size = extents.iter().map(Extent::len).sum();
            let body = Body::File { size, content: Content::Extents(extents.clone()) };
            assert_eq!(default_blocks(&body, None), Some(rule.finish()), "{extents:?}");
            let list = Body::File { size, content: Content::List(crate::id::ChunkId([0; 32])) };
            assert_eq!(default_blocks(&list, Some(&extents)), Some(rule.finish()));
        }
        for len in 1..=128 {
            let mut rule = BlockRule::default();
            rule.data(len);
            let body = Body::File { size: len, content: Content::Inline(vec![0; len as usize]) };
            assert_eq!(default_blocks(&body, None), Some(rule.finish()));
        }
    }

    #[test]
    fn lengths_and_blocks_follow_the_format() {
        let set = |sizes: &[usize]| AttributeSet(sizes.iter().map(|&len| (b"user.x".to_vec(), vec![0; len])).collect());
        assert_eq!(set(&[0]).encoded_len(), 1 + 1 + 6 + 1);
        assert_eq!(set(&[127, 128]).encoded_len(), 1 + (1 + 6 + 1 + 127) + (1 + 6 + 2 + 128));
        assert_eq!(set(&[16_384]).encoded_len(), 1 + 1 + 6 + 3 + 16_384);
        let blocks = |runs: &[i64]| {
            let mut rule = BlockRule::default();
            for &run in runs {
                if run < 0 { rule.hole() } else { rule.data(run.unsigned_abs()) }
            }
            rule.finish()
        };
        assert_eq!(blocks(&[]), 0);
        assert_eq!(blocks(&[1]), 8);
        assert_eq!(blocks(&[4000, 96, 1]), 16, "chunks that touch are one run");
        assert_eq!(blocks(&[1, -1, 1, -1]), 16, "runs are rounded on their own");
        assert_eq!(blocks(&[-1]), 0);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let stat = Stat { size: 4097, blocks: 9, ..item(dir.path(), "d").stat };
        assert_eq!(blocks_given(&stat), None);
        assert_eq!(blocks_given(&Stat { blocks: 8, ..stat }), Some(8));
        let mut rule = BlockRule::default();
        rule.data(4097);
        assert_eq!(rule.given(&Stat { blocks: 16, kind: FileType::File, ..stat }), None);
        assert_eq!(rule.given(&Stat { blocks: 24, kind: FileType::File, ..stat }), Some(24));
    }
}
