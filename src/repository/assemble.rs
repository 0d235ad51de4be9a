//! Collects small chunks into solid blocks, each thread for itself. Not for: compressing, sealing or storing them (see `writer`).
//!
//! Memory: at most `OPEN_BLOCKS` unfinished blocks of 512 KiB a thread.

use super::pack::Block;
use super::writer::Writer;
use crate::error::Result;
use crate::format::block;
use crate::format::message::ChunkKind;
use crate::id::ChunkId;

/// A chunk of at least this many bytes has a block of its own.
pub const SOLID_LIMIT: usize = 128 << 10;
/// A solid block is closed once its chunks have this many bytes.
pub const SOLID_TARGET: usize = 512 << 10;
/// And once it has this many chunks, so that decoding one stays quick.
const SOLID_CHUNKS: usize = 4096;
/// Unfinished blocks of different groups kept open by one thread.
const OPEN_BLOCKS: usize = 4;
/// Private chunks are padded to a power of two of at least this many bytes.
const PRIVATE_MIN: usize = 4096;

/// Chunks of different groups never share a block: compressing the files of strangers together would tell each of them
/// something about the other's (as CRIME did).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Content owned by this user.
    Owner(u32),
    /// Content whose very length is a secret (keys, password files): a padded, uncompressed block of its own.
    Private,
    /// Tree pages, list pages, attribute sets.
    Metadata,
}

/// What a thread of a backup hands its chunks to.
#[derive(Debug)]
pub struct Assembler<'w> {
    writer: &'w Writer,
    open: Vec<Open>,
    new_chunks: u64,
}

#[derive(Debug)]
struct Open {
    group: Group,
    kind: ChunkKind,
    bytes: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

/// A block whose body is complete, to be compressed and sealed.
#[derive(Debug)]
pub struct RawBlock {
    /// What its chunks are.
    pub kind: ChunkKind,
    /// The body, padding included.
    pub body: Vec<u8>,
    /// Ids and lengths of its chunks.
    pub chunks: Vec<(ChunkId, u32)>,
    /// Must not be compressed.
    pub private: bool,
}

/// Hands over those chunks of a stored block that are wanted and that the repository lacks: how many, and their bytes. They stay
/// together, so that nothing comes to share a block with what it was kept apart from.
pub fn store_again(writer: &Writer, block: Block, wanted: &dyn Fn(&ChunkId) -> Result<bool>) -> Result<(u64, u64)> {
    let mut lacking = Vec::new();
    for (id, range) in &block.chunks {
        if wanted(id)? && writer.claim(id, range.len())? {
            lacking.push((*id, range.clone()));
        }
    }
    if lacking.is_empty() {
        return Ok((0, 0));
    }
    let end = block.chunks.iter().map(|(_, range)| range.end).max().unwrap_or(0);
    // Only private blocks are padded.
    let private = end < block.body.len();
    let chunks: Vec<(ChunkId, u32)> = lacking.iter().map(|(id, range)| (*id, range.len() as u32)).collect();
    let saved = (chunks.len() as u64, chunks.iter().map(|(_, length)| u64::from(*length)).sum());
    let body = if lacking.len() == block.chunks.len() {
        block.body.into_owned()
    } else {
        block::encode(&lacking.iter().map(|(_, range)| &block.body[range.clone()]).collect::<Vec<_>>())?
    };
    writer.deliver(RawBlock { kind: block.kind, body, chunks, private })?;
    Ok(saved)
}

impl<'w> Assembler<'w> {
    /// One for the calling thread.
    pub fn new(writer: &'w Writer) -> Self {
        Assembler { writer, open: Vec::new(), new_chunks: 0 }
    }

    /// Computes the chunk's id and stores the chunk unless the repository has it. Returns the id and whether it is new.
    pub fn add(&mut self, kind: ChunkKind, group: Group, chunk: &[u8]) -> Result<(ChunkId, bool)> {
        let id = self.writer.repository().keyring().chunk_id(kind, chunk);
        if !self.writer.claim(&id, chunk.len())? {
            return Ok((id, false));
        }
        self.new_chunks += 1;
        let entry = (id, chunk.len() as u32);
        if group == Group::Private && chunk.len() < SOLID_LIMIT {
            let mut body = block::encode_head(&[entry.1])?;
            body.extend_from_slice(chunk);
            body.resize(body.len().next_power_of_two().max(PRIVATE_MIN), 0);
            self.writer.deliver(RawBlock { kind, body, chunks: vec![entry], private: true })?;
        } else if chunk.len() >= SOLID_LIMIT {
            let mut body = block::encode_head(&[entry.1])?;
            body.reserve_exact(chunk.len());
            body.extend_from_slice(chunk);
            self.writer.deliver(RawBlock { kind, body, chunks: vec![entry], private: false })?;
        } else {
            self.add_solid(kind, group, chunk, entry)?;
        }
        Ok((id, true))
    }

    fn add_solid(&mut self, kind: ChunkKind, group: Group, chunk: &[u8], entry: (ChunkId, u32)) -> Result<()> {
        let at = match self.open.iter().position(|open| open.group == group && open.kind == kind) {
            Some(at) => at,
            None => {
                if self.open.len() == OPEN_BLOCKS {
                    let oldest = self.open.remove(0);
                    self.writer.deliver(oldest.close()?)?;
                }
                self.open.push(Open { group, kind, bytes: Vec::with_capacity(SOLID_TARGET), chunks: Vec::new() });
                self.open.len() - 1
            }
        };
        let open = &mut self.open[at];
        open.bytes.extend_from_slice(chunk);
        open.chunks.push(entry);
        if open.bytes.len() >= SOLID_TARGET || open.chunks.len() >= SOLID_CHUNKS {
            let full = self.open.remove(at);
            self.writer.deliver(full.close()?)?;
        }
        Ok(())
    }

    /// Chunks added here that the repository lacked.
    pub fn new_chunks(&self) -> u64 {
        self.new_chunks
    }

    /// Closes all unfinished blocks.
    pub fn flush(&mut self) -> Result<()> {
        for open in self.open.drain(..) {
            self.writer.deliver(open.close()?)?;
        }
        Ok(())
    }
}

impl Open {
    fn close(self) -> Result<RawBlock> {
        let lengths: Vec<u32> = self.chunks.iter().map(|(_, length)| *length).collect();
        let mut body = block::encode_head(&lengths)?;
        body.extend_from_slice(&self.bytes);
        Ok(RawBlock { kind: self.kind, body, chunks: self.chunks, private: false })
    }
}
