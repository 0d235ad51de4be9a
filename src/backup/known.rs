//! What the walk knows of each file from the last time: the files cache, and the parent snapshot where the cache knows nothing.
//! Not for: deciding whether a file is read again (see `file`).
//!
//! Memory: one record of the files cache and one tree page for each directory on the way down.

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
    stack: Vec<Directory<'a>>,
    root: Option<ChunkId>,
}

struct Directory<'a> {
    path: Vec<u8>,
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
        Memory { repository, files, stack: Vec::new(), root }
    }

    /// A directory begins. Returns whether it is known from the last time, by the cache or the parent.
    pub fn enter(&mut self, path: &[u8], name: &[u8]) -> bool {
        let record = self.files.and_then(|files| files.get(path, 0));
        let cached = record.is_some();
        let parent =
            if self.stack.is_empty() { self.root.map_or(Parent::Absent, Parent::Page) } else { Parent::Unknown };
        self.stack.push(Directory {
            path: path.to_vec(),
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
            && let Some(file) = directory.cached_file(self.files, name)
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
    fn cached_file(&mut self, files: Option<&FilesCache>, name: &[u8]) -> Option<CachedFile> {
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
            self.record = files?.get(&self.path, self.number).unwrap_or_default();
        }
    }
}
