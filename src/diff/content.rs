//! What the contents of two files have in common, told by the ids of their chunks. Not for: lines of text (see `text`).
//!
//! A live file is compared without fetching a byte of the snapshot's: it is read along the borders of the recorded chunks, and the id
//! of each is computed anew, which only the same bytes can have. So it works while the content is on a medium that is not at hand.

use super::text::{MAX_TEXT, Text, compare};
use super::{Bytes, Job};
use crate::backup::content::Content as LiveFile;
use crate::backup::feed::Feed;
use crate::chunk::pieces::{Piece, is_zero};
use crate::error::{Error, Result};
use crate::format::bounds::MAX_CHUNK;
use crate::format::message::ChunkKind;
use crate::format::tree::{Content, Extent};
use crate::id::ChunkId;
use crate::os;
use crate::progress::{Silent, Stop};
use crate::repository::Repository;
use crate::view::content::copy;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;

/// Chunks that only one of two files has so far are told apart up to this many; then it is taken as settled that they differ. That
/// is 256 GiB of ordinary chunks.
pub(super) const TOLD_APART: usize = 1 << 18;
/// Bytes read at a time where zeros are expected.
const ZEROS: u64 = 256 << 10;

/// Counts chunks: how much more often the second file has each than the first.
#[derive(Default)]
struct Balance {
    open: HashMap<[u8; 8], (i32, u64)>,
    settled: Bytes,
}

impl Balance {
    fn add(&mut self, id: &ChunkId, length: u64, by: i32) {
        // Ids are keyed hashes: eight bytes tell the chunks of a file apart.
        let key = *id.0.first_chunk().expect("an id has 32 bytes");
        let (times, _) = self.open.entry(key).or_insert((0, length));
        *times = times.saturating_add(by);
        if *times == 0 {
            self.open.remove(&key);
        }
        if self.open.len() >= TOLD_APART {
            self.settle();
        }
    }

    fn settle(&mut self) {
        for (times, length) in std::mem::take(&mut self.open).into_values() {
            let sum = length.saturating_mul(u64::from(times.unsigned_abs()));
            let side = if times > 0 { &mut self.settled.added } else { &mut self.settled.removed };
            *side = side.saturating_add(sum);
        }
    }

    fn bytes(mut self) -> Bytes {
        self.settle();
        self.settled
    }
}

/// The chunks of a content and their lengths, holes left out; what is kept in the entry counts as a chunk.
fn chunks<'r>(repository: &'r Repository, content: &Content) -> Box<dyn Iterator<Item = Result<(ChunkId, u64)>> + 'r> {
    if let Content::Inline(bytes) = content {
        let id = repository.keyring().chunk_id(ChunkKind::Content, bytes);
        return Box::new(std::iter::once(Ok((id, bytes.len() as u64))));
    }
    Box::new(repository.extents(content).filter_map(|extent| match extent {
        Ok(Extent::Chunk { id, len }) => Some(Ok((id, u64::from(len)))),
        Ok(Extent::Hole(_)) => None,
        Err(error) => Some(Err(error)),
    }))
}

/// The bytes of chunks that only one of two contents has.
pub(super) fn bytes_between(repository: &Repository, old: &Content, new: &Content, stop: &Stop) -> Result<Bytes> {
    let (mut old, mut new) = (chunks(repository, old), chunks(repository, new));
    let mut balance = Balance::default();
    loop {
        stop.check()?;
        // In turns, so that what both have does not pile up.
        let (before, after) = (old.next().transpose()?, new.next().transpose()?);
        if before.is_none() && after.is_none() {
            return Ok(balance.bytes());
        }
        if let Some((id, length)) = before {
            balance.add(&id, length, -1);
        }
        if let Some((id, length)) = after {
            balance.add(&id, length, 1);
        }
    }
}

/// The lines that differ between two files of snapshots.
pub(super) fn text_between(repository: &Repository, old: (u64, &Content), new: (u64, &Content)) -> Result<Text> {
    if old.0.max(new.0) > MAX_TEXT {
        return Ok(Text::TooLarge);
    }
    Ok(compare(&recorded(repository, old)?, &recorded(repository, new)?))
}

/// All bytes of a short file of a snapshot.
fn recorded(repository: &Repository, (size, content): (u64, &Content)) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    copy(repository, size, content, &mut bytes)?;
    Ok(bytes)
}

impl Job<'_> {
    /// Whether a live file of the recorded size has, byte for byte, the recorded content.
    pub(super) fn is_as_recorded(&mut self, content: &Content, file: &LiveFile) -> Result<bool> {
        let repository = self.context.repository;
        if let Content::Inline(bytes) = content {
            return Ok(self.fill(file, 0, bytes.len())? && self.buffer == *bytes);
        }
        let mut offset = 0u64;
        for extent in repository.extents(content) {
            self.context.stop.check()?;
            let extent = extent?;
            let is_same = match extent {
                Extent::Hole(length) => self.has_zeros(file, offset, offset.saturating_add(length))?,
                Extent::Chunk { id, len } if len as usize <= MAX_CHUNK => {
                    self.fill(file, offset, len as usize)?
                        && repository.keyring().chunk_id(ChunkKind::Content, &self.buffer) == id
                }
                Extent::Chunk { .. } => return Err(Error::damaged("A chunk is longer than any can be")),
            };
            if !is_same {
                return Ok(false);
            }
            offset = offset.saturating_add(extent.len());
        }
        Ok(true)
    }

    /// Reads into the buffer; `false` if the file ends before.
    fn fill(&mut self, file: &LiveFile, offset: u64, length: usize) -> Result<bool> {
        self.buffer.resize(length, 0);
        match file.file().read_exact_at(&mut self.buffer, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(unreadable(error)),
        }
    }

    fn has_zeros(&mut self, file: &LiveFile, from: u64, to: u64) -> Result<bool> {
        let mut offset = from;
        while offset < to {
            self.context.stop.check()?;
            match os::seek_data(file.file(), offset) {
                Ok(None) => return Ok(true),
                Ok(Some(data)) if data > offset => {
                    offset = data;
                    continue;
                }
                // Also where holes are not known.
                Ok(Some(_)) | Err(_) => {}
            }
            let length = (to - offset).min(ZEROS);
            if !self.fill(file, offset, length as usize)? || !is_zero(&self.buffer) {
                return Ok(false);
            }
            offset += length;
        }
        Ok(true)
    }

    /// The bytes of chunks that only one of the recorded content and a live file has, which is cut as a backup would.
    pub(super) fn bytes_to_live(&mut self, content: &Content, file: &mut LiveFile) -> Result<Bytes> {
        let repository = self.context.repository;
        let mut balance = Balance::default();
        let mut recorded = chunks(repository, content);
        self.chunks.restart();
        let mut feed = Feed::new(file, &Silent, self.context.stop);
        loop {
            let Some(piece) = self.chunks.next(&mut feed).map_err(unreadable)? else { break };
            if let Piece::Data(data) = piece {
                balance.add(&repository.keyring().chunk_id(ChunkKind::Content, data), data.len() as u64, 1);
            }
            if let Some((id, length)) = recorded.next().transpose()? {
                balance.add(&id, length, -1);
            }
        }
        for chunk in recorded {
            self.context.stop.check()?;
            let (id, length) = chunk?;
            balance.add(&id, length, -1);
        }
        Ok(balance.bytes())
    }

    /// The lines that differ between a recorded file and a live one.
    pub(super) fn text_to_live(&mut self, old: (u64, &Content), file: &LiveFile) -> Result<Text> {
        if old.0 > MAX_TEXT {
            return Ok(Text::TooLarge);
        }
        // Not the stated size: files of /proc have more.
        let Some(now) = file.all(MAX_TEXT).map_err(unreadable)? else { return Ok(Text::TooLarge) };
        Ok(compare(&recorded(self.context.repository, old)?, &now))
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::io("The file cannot be read", error)
}
