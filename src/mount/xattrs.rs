//! Extended attributes that firn makes of what it knows of a file: where and when it was seen, what it takes. Not for: those that were
//! backed up (see `fs`).
//!
//! A program that copies attributes would copy these as well, and compare them. So they are answered to whoever asks for one by its
//! name, and listed only if that is wanted. All links of a file have one inode, so they have what the first of them has.

use super::fs::SnapshotFs;
use super::past::Node;
use crate::error::{Error, ErrorKind, Result};
use crate::format::message::ChunkKind;
use crate::format::tree::{Body, Content, Extent, Totals};
use crate::mount::tree::browse;
use crate::mount::tree::read::{MAX_WALK, Reader};
use crate::repository::Repository;
use crate::repository::assemble::SOLID_LIMIT;
use crate::repository::index::Index;
use crate::view::pages::{Directory, EntryRef};
use firn_fuse::Source;
use std::collections::HashSet;

/// Before all names.
const PREFIX: &[u8] = b"user.firn.";
/// So many chunks of a file are told apart; beyond that, what comes twice counts twice. 64 bytes each.
const TOLD_APART: usize = 1 << 16;
/// Of larger files the hash is not known: it is recorded nowhere, and nobody waits for one to be read.
const HASHED: u64 = 16 << 20;
/// It is read in parts of so many bytes.
const PART: u32 = 1 << 20;

/// Where what firn knows is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answered {
    /// By name, in a mount that has to be asked for attributes anyway. Elsewhere the kernel is told not to ask at all: else programs
    /// that look for access control lists (`cp -a`, `rsync -A`) ask once for every file, some 20 µs each.
    #[default]
    Auto,
    /// By name, in every mount.
    Named,
    /// In every mount, and listed.
    Listed,
}

/// One of these attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The id of the snapshot.
    Snapshot,
    /// The time of the first snapshot that has it as it is here.
    First,
    /// The time of the last one.
    Last,
    /// Of a file: bytes that its content takes in the repository.
    SizeStored,
    /// Of a file that is not large: the hash of its content.
    Blake3,
    /// Of a folder: files below it.
    Files,
    /// Of a folder: their bytes.
    Bytes,
}

const ALL: [Known; 7] =
    [Known::Snapshot, Known::First, Known::Last, Known::SizeStored, Known::Blake3, Known::Files, Known::Bytes];

impl Known {
    pub(super) fn name(self) -> &'static str {
        match self {
            Known::Snapshot => "user.firn.snapshot",
            Known::First => "user.firn.first",
            Known::Last => "user.firn.last",
            Known::SizeStored => "user.firn.size_stored",
            Known::Blake3 => "user.firn.blake3",
            Known::Files => "user.firn.files",
            Known::Bytes => "user.firn.bytes",
        }
    }

    pub(super) fn parse(name: &[u8]) -> Option<Known> {
        if !name.starts_with(PREFIX) {
            return None;
        }
        ALL.into_iter().find(|known| known.name().as_bytes() == name)
    }

    pub(super) fn source(self) -> Source {
        match self {
            Known::Snapshot | Known::Files | Known::Bytes => Source::Recorded,
            Known::First | Known::Last | Known::SizeStored => Source::Found,
            Known::Blake3 => Source::Content,
        }
    }
}

impl SnapshotFs {
    /// The value of one of them; `None` if the node has none of that name.
    pub(super) fn value(&self, node: &Node, known: Known) -> Result<Option<Vec<u8>>> {
        let text = match node {
            Node::Seen(node) => self.value_seen(node, known)?,
            Node::Folder(folder) => match self.past.life_of(folder)? {
                None => None,
                Some(life) => match known {
                    Known::First => Some(life.first.to_string()),
                    Known::Last => Some(life.last.to_string()),
                    Known::Snapshot => life.shown.map(|name| name.to_string()),
                    _ => None,
                },
            },
            Node::Sign => None,
        };
        Ok(text.map(String::into_bytes))
    }

    fn value_seen(&self, node: &browse::Node, known: Known) -> Result<Option<String>> {
        let (tree, rank) = match node {
            browse::Node::Item(_) => return Ok(None),
            browse::Node::Top(tree) => (tree, None),
            browse::Node::Stored(stored) => (&stored.tree, Some(stored.rank)),
        };
        Ok(match known {
            Known::Snapshot => Some(tree.name().to_string()),
            Known::First | Known::Last => {
                let life = self.past.life(tree, rank.map_or_else(|| tree.top().map(|top| top.rank), Ok)?)?;
                life.map(|life| if known == Known::First { life.first } else { life.last }.to_string())
            }
            Known::SizeStored => match node.entry()?.map(|entry| &entry.body) {
                Some(Body::File { content, .. }) => Some(stored_bytes(&self.repository, content)?.to_string()),
                _ => None,
            },
            Known::Blake3 => match node.stored().and_then(|entry| Some((entry, hashed(&entry.body)?))) {
                Some((entry, size)) => Some(hash(&self.reader, self.view.ino(node)?, entry, size)?),
                None => None,
            },
            Known::Files | Known::Bytes => {
                let number = |totals: Totals| if known == Known::Files { totals.files } else { totals.bytes };
                node.entry()?.and_then(Directory::of).map(|directory| number(directory.totals).to_string())
            }
        })
    }

    /// Those that a node has. Only files and folders can have any that begin with `user.`: Linux sees to that.
    pub(super) fn known_of(&self, node: &Node) -> Result<Vec<Known>> {
        let mut all = Vec::new();
        match node {
            Node::Sign | Node::Seen(browse::Node::Item(_)) => return Ok(all),
            Node::Folder(folder) => {
                all.extend([Known::First, Known::Last]);
                all.extend(folder.is_deleted().then_some(Known::Snapshot));
                return Ok(all);
            }
            Node::Seen(node) => match node.entry()?.map(|entry| &entry.body) {
                Some(body @ Body::File { .. }) => {
                    all.extend([Known::Snapshot, Known::SizeStored]);
                    all.extend(hashed(body).map(|_| Known::Blake3));
                }
                Some(Body::Directory { .. }) => all.extend([Known::Snapshot, Known::Files, Known::Bytes]),
                _ => return Ok(all),
            },
        }
        if self.view.folders().is_some() {
            all.extend([Known::First, Known::Last]);
        }
        Ok(all)
    }
}

/// The size of a file of which the hash is known.
fn hashed(body: &Body) -> Option<u64> {
    match body {
        Body::File { size, .. } => Some(*size).filter(|size| *size <= HASHED),
        _ => None,
    }
}

/// The hash of a file's content. It is read by a worker, as if somebody read the file.
fn hash(reader: &Reader, ino: u64, entry: &EntryRef, size: u64) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < size {
        reader.read(ino, entry, at, PART, &mut |bytes| {
            hasher.update(bytes);
        })?;
        at += u64::from(PART);
    }
    if hasher.count() != size {
        return Err(Error::damaged(format!("{} bytes were read of {size}", hasher.count())));
    }
    Ok(hasher.finalize().to_string())
}

/// Bytes that a file's content takes in the repository: of a block that it shares with other files, its part.
fn stored_bytes(repository: &Repository, content: &Content) -> Result<u64> {
    if let Content::Inline(_) = content {
        return Ok(0);
    }
    // What was added up with an index that turns out to be old is added up again.
    repository.with_index(|index| Ok(stored_in(repository, index, content)?))
}

fn stored_in(repository: &Repository, index: &Index, content: &Content) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut sum = 0u64;
    for (number, extent) in repository.extents(content).enumerate() {
        if number == MAX_WALK {
            return Err(Error::new(ErrorKind::Unsupported, "The file has too many parts for them to be added up"));
        }
        let Extent::Chunk { id, len } = extent? else { continue };
        if seen.contains(&id) {
            continue;
        }
        if seen.len() < TOLD_APART {
            seen.insert(id);
        }
        let mut found = None;
        index.find(&id, &mut |place| {
            found = Some(place);
            false
        })?;
        let place = found.ok_or_else(|| Error::damaged(format!("The chunk \"{id}\" is not in the index")))?;
        let pack = index.pack(place)?;
        let none = || Error::damaged(format!("The pack \"{}\" has no block {}", pack.name, place.block));
        let frame = pack.frame(place.block).map(|(_, length)| u64::from(length)).ok_or_else(none)?;
        let part = if len as usize >= SOLID_LIMIT {
            frame
        } else {
            let block = repository.block(index, place)?;
            let missing = || Error::damaged(format!("The chunk \"{id}\" is not in its block"));
            let own = block.chunk(ChunkKind::Content, &id).ok_or_else(missing)?.len() as u64;
            (frame * own).div_ceil(block.content_bytes().max(1))
        };
        sum = sum.saturating_add(part);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::sample::{Piece, Sample, Thing, dir, noise};

    #[test]
    fn names_come_back() {
        for known in ALL {
            assert_eq!(Known::parse(known.name().as_bytes()), Some(known));
        }
        assert_eq!((Known::parse(b"user.firn."), Known::parse(b"user.firn.other")), (None, None));
    }

    #[test]
    fn a_file_takes_its_part_of_what_it_shares() {
        let sample = Sample::new();
        let (small, large) = (noise(1, 1000), noise(2, 300 << 10));
        let other = noise(3, 3000);
        let file = |pieces: Vec<Piece>| Thing::File(pieces);
        let twice = vec![Piece::Data(large.clone()), Piece::Hole(1 << 20), Piece::Data(large.clone())];
        let named = sample.snapshot(
            "2026-01-01T00:00:00Z",
            "h",
            &[],
            &dir([
                ("large", file(twice)),
                ("other", file(vec![Piece::Data(other)])),
                ("small", file(vec![Piece::Data(small)])),
                ("inline", Thing::Inline(b"x".to_vec())),
            ]),
        );
        let repository = Sample::open(&sample.store, 16 << 20);
        let stored = |path: &str| {
            let entry = crate::view::path::find(&repository, &named.snapshot, path.as_bytes()).unwrap();
            let Body::File { content, .. } = entry.body else { panic!() };
            stored_bytes(&repository, &content).unwrap()
        };
        // Noise does not shrink; what surrounds a block is some 60 bytes.
        assert!((300 << 10..(300 << 10) + 200).contains(&stored("/large")), "{}", stored("/large"));
        let (small, other) = (stored("/small"), stored("/other"));
        assert!((1000..1100).contains(&small) && (3000..3200).contains(&other), "{small} {other}");
        assert_eq!(stored("/inline"), 0);
    }
}
