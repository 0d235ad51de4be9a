//! The files cache: what each directory's files looked like when they were last read, so that unchanged ones are not read again.
//! Not for: anything whose loss or staleness could do harm: every chunk that a record names is looked up in the index before
//! it is relied on.

use super::database::Database;
use crate::chunk::secret::Secret;
use crate::format::bytes::{Put, Reader};
use crate::format::tree::{Content, Extent, Timestamp};
use crate::id::ChunkId;
use std::path::Path;

/// Files in one record; a larger directory has several. Bounds what is held for one directory to about 1 MiB.
pub const RECORD_FILES: usize = 2048;

/// What a file looked like, and what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// Name in its directory.
    pub name: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Last modification.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Inode number.
    pub inode: u64,
    /// Where its bytes are stored.
    pub content: Content,
    /// `blocks` override of its entry.
    pub blocks: Option<u64>,
    /// All its file flags; without the open file only some of them can be told. A change of them is one of `ctime`.
    pub flags: u32,
}

/// The files of each directory as they were last read.
#[derive(Debug)]
pub struct FilesCache {
    database: Database,
    key: Secret,
}

impl FilesCache {
    /// Opens the database in `folder`; `None` if another process uses it: this run reads all files.
    pub fn open(folder: &Path, key: Secret) -> Option<FilesCache> {
        Some(FilesCache { database: Database::open(folder)?, key })
    }

    fn record_key(&self, directory: &[u8], number: u32) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(self.key.bytes());
        hasher.update(&number.to_le_bytes()).update(directory);
        *hasher.finalize().as_bytes()
    }

    /// Record `number` (from 0) of a directory, its files sorted by name; `None` if there is none that can be trusted.
    pub fn get(&self, directory: &[u8], number: u32) -> Option<Vec<CachedFile>> {
        let value = self.database.get(&self.record_key(directory, number))?;
        decode_files(&mut Reader::new("files cache record", &value)).ok()
    }

    /// Replaces record `number` of a directory.
    pub fn put(&self, directory: &[u8], number: u32, files: &[CachedFile]) {
        self.database.put(&self.record_key(directory, number), encode(files));
    }

    /// Removes record `number`, so that a directory that shrank leaves nothing behind. Returns whether there was one.
    pub fn remove(&self, directory: &[u8], number: u32) -> bool {
        self.database.remove(&self.record_key(directory, number))
    }

    /// Makes everything durable and closes the database; a broken one is deleted.
    pub fn close(self) {
        self.database.close();
    }
}

fn encode(files: &[CachedFile]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(files.len() as u64);
    for file in files {
        out.put_varint(file.name.len() as u64);
        out.extend_from_slice(&file.name);
        out.put_varint(file.size);
        for time in [file.mtime, file.ctime] {
            out.put_svarint(time.seconds);
            out.put_varint(u64::from(time.nanos));
        }
        out.put_varint(file.inode);
        out.put_varint(file.blocks.map_or(0, |blocks| blocks.saturating_add(1)));
        out.put_varint(u64::from(file.flags));
        match &file.content {
            Content::Inline(bytes) => {
                out.put_u8(0);
                out.put_varint(bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Content::Extents(extents) => {
                out.put_u8(1);
                out.put_varint(extents.len() as u64);
                for extent in extents {
                    encode_extent(&mut out, extent);
                }
            }
            Content::List(id) => {
                out.put_u8(2);
                out.extend_from_slice(&id.0);
            }
        }
    }
    out
}

fn encode_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Hole(length) => {
            out.put_u8(0);
            out.put_varint(*length);
        }
        Extent::Chunk { id, len } => {
            out.put_u8(1);
            out.put_varint(u64::from(*len));
            out.extend_from_slice(&id.0);
        }
    }
}

fn decode_files(input: &mut Reader<'_>) -> crate::error::Result<Vec<CachedFile>> {
    let count = input.varint()?;
    let mut files = Vec::with_capacity((count as usize).min(RECORD_FILES));
    for _ in 0..count {
        let length = input.varint()? as usize;
        let name = input.bytes(length)?.to_vec();
        let size = input.varint()?;
        let mtime = Timestamp { seconds: input.svarint()?, nanos: input.varint()? as u32 };
        let ctime = Timestamp { seconds: input.svarint()?, nanos: input.varint()? as u32 };
        let inode = input.varint()?;
        let blocks = input.varint()?.checked_sub(1);
        let flags = input.varint()? as u32;
        let content = match input.u8()? {
            0 => {
                let length = input.varint()? as usize;
                Content::Inline(input.bytes(length)?.to_vec())
            }
            1 => {
                let mut extents = Vec::new();
                for _ in 0..input.varint()? {
                    extents.push(match input.u8()? {
                        0 => Extent::Hole(input.varint()?),
                        _ => {
                            let len = input.varint()? as u32;
                            Extent::Chunk { id: ChunkId(input.array()?), len }
                        }
                    });
                }
                Content::Extents(extents)
            }
            _ => Content::List(ChunkId(input.array()?)),
        };
        files.push(CachedFile { name, size, mtime, ctime, inode, content, blocks, flags });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Secret {
        Secret::from_bytes(&[1; 32])
    }

    fn file(n: u8) -> CachedFile {
        let time = Timestamp { seconds: -5, nanos: 7 };
        let content = match n % 3 {
            0 => Content::Inline(vec![n; 5]),
            1 => Content::Extents(vec![Extent::Hole(9), Extent::Chunk { id: ChunkId([n; 32]), len: 77 }]),
            _ => Content::List(ChunkId([n; 32])),
        };
        CachedFile {
            name: vec![n, b'x'],
            size: 86,
            mtime: time,
            ctime: time,
            inode: 12,
            content,
            blocks: (n > 3).then_some(0),
            flags: u32::from(n) << 28 | 1,
        }
    }

    #[test]
    fn records_come_back_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("files");
        let files: Vec<_> = (0..9).map(file).collect();
        let cache = FilesCache::open(&path, key()).unwrap();
        assert_eq!(cache.get(b"/a", 0), None);
        cache.put(b"/a", 0, &files);
        cache.close();
        let cache = FilesCache::open(&path, key()).unwrap();
        assert_eq!(cache.get(b"/a", 0), Some(files));
        assert_eq!(cache.get(b"/a", 1), None);
        assert!(cache.remove(b"/a", 0));
        assert_eq!(cache.get(b"/a", 0), None);
    }

    #[test]
    fn a_second_process_goes_without() {
        let folder = tempfile::tempdir().unwrap();
        let first = FilesCache::open(folder.path(), key()).unwrap();
        first.put(b"/a", 0, &[file(1)]);
        assert!(FilesCache::open(folder.path(), key()).is_none());
        assert_eq!(first.get(b"/a", 0), Some(vec![file(1)]));
    }

    #[test]
    fn damage_costs_records_never_the_run() {
        for at in [0usize, 20, 100, 1000, 5000] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("files");
            let cache = FilesCache::open(&path, key()).unwrap();
            for n in 0..200u32 {
                cache.put(b"/a", n, &(0..20).map(file).collect::<Vec<_>>());
            }
            cache.close();
            let database = path.join("db");
            let mut bytes = std::fs::read(&database).unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 0x55;
            std::fs::write(&database, &bytes).unwrap();
            let Some(cache) = FilesCache::open(&path, key()) else { continue };
            for n in 0..200 {
                if let Some(files) = cache.get(b"/a", n) {
                    assert_eq!(files, (0..20).map(file).collect::<Vec<_>>());
                }
            }
            cache.put(b"/b", 0, &[file(1)]);
            cache.close();
        }
    }
}
