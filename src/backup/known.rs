//! What the walk knows of each file from the last time: the files cache, and the parent snapshot where the cache knows nothing.
//! Not for: deciding whether a file is read again (see `file`).
//!
//! Memory: one record of the files cache and one tree page for each directory on the way down, and the path once.

use crate::format::tree::{Body, Entry, Timestamp};
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::files::{CachedFile, FilesCache};
use crate::repository::tree::Entries;
use crate::view::path::lookup;
use std::iter::Peekable;

/// What is known of a file.
#[derive(Clone, Debug)]
pub enum Known {
    /// Nothing: it is new.
    Nothing,
    /// What the files cache says.
    Cached(Box<CachedFile>),
    /// The parent snapshot has a file of that name, with this size and time.
    Recorded {
        /// Bytes.
        size: u64,
        /// Last modification.
        mtime: Timestamp,
    },
}

/// Follows the walk through cache and parent.
pub struct Memory<'a> {
    repository: &'a Repository,
    files: Option<&'a FilesCache>,
    /// The last directory's path (at least; see `path_len`), without a slash for "/".
    path: Vec<u8>,
    stack: Vec<Directory<'a>>,
    root: Option<ChunkId>,
}

struct Directory<'a> {
    /// How much of the one path is this directory's: full paths would take memory by the square of the depth.
    path_len: usize,
    name: Vec<u8>,
    /// The record of the files cache at hand, its number, and whether there may be a next one.
    record: Vec<CachedFile>,
    number: u32,
    at: usize,
    cached: bool,
    parent: Parent<'a>,
}

enum Parent<'a> {
    Unknown,
    Absent,
    Page(ChunkId),
    Entries(ChunkId, Box<Peekable<Entries<'a>>>),
}

impl Parent<'_> {
    fn page(&self) -> Option<ChunkId> {
        match self {
            Parent::Page(page) | Parent::Entries(page, _) => Some(*page),
            _ => None,
        }
    }
}

impl<'a> Memory<'a> {
    /// `root` is the top page of the parent snapshot's "/".
    pub fn new(repository: &'a Repository, files: Option<&'a FilesCache>, root: Option<ChunkId>) -> Self {
        Memory { repository, files, path: Vec::new(), stack: Vec::new(), root }
    }

    /// A directory begins, in the last one that did; the first is "/". Returns whether it is known from the last time, by the
    /// cache or the parent.
    pub fn enter(&mut self, name: &[u8]) -> bool {
        if let Some(above) = self.stack.last() {
            extend(&mut self.path, above.path_len, name);
        }
        let record = self.files.and_then(|files| files.get(shown(&self.path), 0));
        let cached = record.is_some();
        let parent =
            if self.stack.is_empty() { self.root.map_or(Parent::Absent, Parent::Page) } else { Parent::Unknown };
        self.stack.push(Directory {
            path_len: self.path.len(),
            name: name.to_vec(),
            record: record.unwrap_or_default(),
            number: 0,
            at: 0,
            cached,
            parent,
        });
        if cached {
            return true;
        }
        let depth = self.stack.len() - 1;
        self.resolve(depth);
        self.stack[depth].parent.page().is_some()
    }

    /// The directory ends.
    pub fn leave(&mut self) {
        self.stack.pop();
    }

    /// Finds the directory's page in the parent snapshot, and those above it. A parent that cannot be read is no parent.
    fn resolve(&mut self, depth: usize) {
        if !matches!(self.stack[depth].parent, Parent::Unknown) {
            return;
        }
        self.resolve(depth - 1);
        let found = self.stack[depth - 1].parent.page().and_then(|above| {
            match lookup(self.repository, above, &self.stack[depth].name).ok()?.map(|entry| entry.body)? {
                Body::Directory { page, .. } => Some(page),
                _ => None,
            }
        });
        self.stack[depth].parent = found.map_or(Parent::Absent, Parent::Page);
    }

    /// What is known of the file `name` in the directory at hand. Names must come in ascending order.
    pub fn file(&mut self, name: &[u8]) -> Known {
        let Some(directory) = self.stack.last_mut() else { return Known::Nothing };
        if directory.cached
            && let Some(file) = directory.cached_file(self.files, &self.path, name)
        {
            return Known::Cached(Box::new(file));
        }
        // New, or not remembered because it might have changed unseen: the parent tells which.
        let depth = self.stack.len() - 1;
        self.resolve(depth);
        let directory = &mut self.stack[depth];
        if let Parent::Page(page) = directory.parent {
            directory.parent = Parent::Entries(page, Box::new(self.repository.entries(page).peekable()));
        }
        match &mut directory.parent {
            Parent::Entries(_, entries) => recorded_file(entries, name),
            _ => Known::Nothing,
        }
    }
}

/// Makes the first `above` bytes of `path`, a directory's, the path of `name` in it.
pub(super) fn extend(path: &mut Vec<u8>, above: usize, name: &[u8]) {
    path.truncate(above);
    path.push(b'/');
    path.extend_from_slice(name);
}

/// The path as the files cache knows it.
pub(super) fn shown(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"/" } else { path }
}

fn recorded_file(entries: &mut Peekable<Entries<'_>>, name: &[u8]) -> Known {
    while entries.next_if(|entry| entry.as_ref().is_ok_and(|entry| entry.name.as_slice() < name)).is_some() {}
    match entries.peek() {
        Some(Ok(Entry { name: found, meta, body: Body::File { size, .. } })) if found == name => {
            Known::Recorded { size: *size, mtime: meta.mtime }
        }
        _ => Known::Nothing,
    }
}

impl Directory<'_> {
    fn cached_file(&mut self, files: Option<&FilesCache>, path: &[u8], name: &[u8]) -> Option<CachedFile> {
        loop {
            while let Some(file) = self.record.get(self.at) {
                if file.name.as_slice() >= name {
                    return (file.name == name).then(|| file.clone());
                }
                self.at += 1;
            }
            if self.record.is_empty() {
                return None;
            }
            self.number += 1;
            self.at = 0;
            self.record = files?.get(shown(&path[..self.path_len]), self.number).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture;
    use crate::chunk::secret::Secret;
    use crate::format::tree::Content;
    use crate::repository::files::RECORD_FILES;
    use std::sync::Arc;

    fn cached(name: &[u8]) -> CachedFile {
        let time = Timestamp::default();
        let content = Content::Inline(Vec::new());
        let name = name.to_vec();
        CachedFile { name, size: 0, mtime: time, ctime: time, inode: 1, content, blocks: None, flags: 0 }
    }

    fn knows(memory: &mut Memory<'_>, name: &[u8]) -> bool {
        matches!(memory.file(name), Known::Cached(file) if file.name == name)
    }

    #[test]
    fn records_are_found_by_path_on_the_way_down_and_up() {
        let repository = fixture::open(Arc::new(fixture::repository().0));
        let folder = tempfile::tempdir().unwrap();
        let files = FilesCache::open(folder.path(), Secret::from_bytes(&[1; 32])).unwrap();
        let many: Vec<_> = (0..RECORD_FILES).map(|n| cached(format!("c{n:05}").as_bytes())).collect();
        files.put(b"/", 0, &[cached(b"root")]);
        files.put(b"/a", 0, &many);
        files.put(b"/a", 1, &[cached(b"d")]);
        files.put(b"/a/b", 0, &[cached(b"deep")]);
        files.put(b"/b", 0, &[]);
        let mut memory = Memory::new(&repository, Some(&files), None);
        assert!(memory.enter(b"") && memory.enter(b"a") && memory.enter(b"b"));
        assert!(knows(&mut memory, b"deep") && !knows(&mut memory, b"root"));
        assert!(!memory.enter(b"none") && !knows(&mut memory, b"deep"));
        memory.leave();
        memory.leave();
        assert!(knows(&mut memory, b"c00007") && !knows(&mut memory, b"c00007x"));
        assert!(knows(&mut memory, b"d"), "in the second record, after the directories below");
        memory.leave();
        assert!(memory.enter(b"b") && !knows(&mut memory, b"deep"));
        memory.leave();
        assert!(knows(&mut memory, b"root"));
    }

    #[test]
    fn deep_directories_take_memory_by_their_depth_only() {
        let repository = fixture::open(Arc::new(fixture::repository().0));
        let mut memory = Memory::new(&repository, None, None);
        memory.enter(b"");
        for _ in 0..1000 {
            memory.enter(&[b'n'; 255]);
        }
        assert_eq!(memory.path.len(), 256_000);
        let names: usize = memory.stack.iter().map(|directory| directory.name.capacity()).sum();
        assert!(names <= 256_000 && size_of::<Directory<'_>>() <= 160, "{names}");
        for _ in 0..1000 {
            memory.leave();
        }
        memory.enter(b"x");
        assert_eq!(memory.path, b"/x");
    }
}
