//! Reading chunks: which copy, through which cache, verified how. Not for: what chunks mean (see `view`).
//!
//! Memory: the block cache's bound, plus one block a reading thread. Concurrent requests for a block are joined.

use super::Repository;
use super::index::{Index, Place};
use super::keyring::{Keyring, Opened};
use super::pack::{Block, header_error, open_block, pack_folder};
use super::refresh::{Lack, Miss, is_local};
use super::table::PackInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::TAG_LEN;
use crate::format::header::{HEADER_LEN, Kind};
use crate::format::message::ChunkKind;
use crate::id::{ChunkId, ObjectName};
use crate::store::ObjectKey;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use std::borrow::Cow;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A decoded block, its chunks sorted by id.
#[derive(Debug)]
pub struct ReadBlock {
    kind: ChunkKind,
    body: Vec<u8>,
    chunks: Vec<(ChunkId, Range<usize>)>,
}

impl ReadBlock {
    fn new(kind: ChunkKind, body: Vec<u8>, mut chunks: Vec<(ChunkId, Range<usize>)>) -> Self {
        chunks.sort_by_key(|(id, _)| *id);
        ReadBlock { kind, body, chunks }
    }

    /// Of a frame that it keeps: what was not compressed is not copied.
    fn open(keyring: &Keyring, opened: &Opened, number: u32, mut frame: Vec<u8>) -> Result<Self> {
        let Block { kind, body, mut chunks } = open_block(keyring, opened, number, &mut frame)?;
        let stored = match body {
            Cow::Owned(body) => return Ok(ReadBlock::new(kind, body, chunks)),
            Cow::Borrowed(body) => body.len(),
        };
        let before = frame.len() - TAG_LEN - stored;
        for (_, range) in &mut chunks {
            *range = range.start + before..range.end + before;
        }
        Ok(ReadBlock::new(kind, frame, chunks))
    }

    /// The chunk with this id and kind, if the block holds it.
    pub fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Option<&[u8]> {
        self.range(kind, id).map(|range| &self.body[range])
    }

    /// Bytes of all its chunks.
    pub fn content_bytes(&self) -> u64 {
        self.chunks.iter().map(|(_, range)| range.len() as u64).sum()
    }

    fn range(&self, kind: ChunkKind, id: &ChunkId) -> Option<Range<usize>> {
        if self.kind != kind {
            return None;
        }
        let at = self.chunks.binary_search_by_key(id, |(id, _)| *id).ok()?;
        Some(self.chunks[at].1.clone())
    }
}

/// A chunk's verified bytes, kept alive by the block they lie in.
#[derive(Clone, Debug)]
pub struct ChunkData {
    block: Arc<ReadBlock>,
    range: Range<usize>,
}

impl Deref for ChunkData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block.body[self.range.clone()]
    }
}

#[derive(Clone)]
pub(super) struct BlockWeight;

impl Weighter<(ObjectName, u32), Arc<ReadBlock>> for BlockWeight {
    fn weight(&self, _: &(ObjectName, u32), block: &Arc<ReadBlock>) -> u64 {
        (block.body.capacity() + 48 * block.chunks.capacity() + 128) as u64
    }
}

pub(super) type BlockCache = Cache<(ObjectName, u32), Arc<ReadBlock>, BlockWeight>;

/// Share of the cache for blocks that were used again. What was read ahead is in the rest until it is used: there must be room for all
/// of it, or it would be read and decoded twice (readers ahead may take half of the cache, see `view::prefetch`).
const USED_AGAIN: f64 = 0.4;

/// A cache of this many bytes.
pub(super) fn block_cache(bytes: u64) -> BlockCache {
    let items = (bytes / (256 << 10)).max(64) as usize;
    let options = OptionsBuilder::new()
        .estimated_items_capacity(items)
        .weight_capacity(bytes)
        .hot_allocation(USED_AGAIN)
        .build()
        .expect("all that it asks for is given");
    Cache::with_options(options, BlockWeight, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

/// Headers of packs whose keys are kept: about 300 bytes each.
pub(super) const CACHED_HEADERS: usize = 8192;

impl Repository {
    /// Empties the block cache, to make room for something else; what is needed again is read again.
    pub(crate) fn forget_blocks(&self) {
        self.blocks.clear();
    }

    /// The bytes of a chunk, authenticated and with its id recomputed. Every stored copy is tried before an error is
    /// returned, also those that only a newer index names.
    pub fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Result<ChunkData> {
        self.with_index(|index| self.chunk_in(index, kind, id)).map_err(|error| {
            let kind = if error.kind() == ErrorKind::NotFound { ErrorKind::Damaged } else { error.kind() };
            error.with_kind(kind)
        })
    }

    fn chunk_in(&self, index: &Index, kind: ChunkKind, id: &ChunkId) -> std::result::Result<ChunkData, Miss> {
        let mut places = Vec::new();
        index.find(id, &mut |place| {
            places.push(place);
            true
        })?;
        let (mut first_error, mut lack): (Option<Error>, Option<Lack>) = (None, None);
        for place in places {
            let pack = index.pack(place)?;
            let error = match self.block(index, place) {
                Ok(block) => match block.range(kind, id) {
                    Some(range) => return Ok(ChunkData { block, range }),
                    None => Error::damaged(format!(
                        "Block {} of the pack \"{}\" does not hold it, but the index says so",
                        place.block,
                        pack_key(&pack)
                    )),
                },
                Err(error) => error,
            };
            if is_local(&error) {
                lack.get_or_insert(Lack::Pack(pack.name));
            }
            // A copy that another key opens is not lost, whatever became of the others.
            if first_error.is_none() || error.kind() == ErrorKind::WrongKey {
                first_error = Some(error);
            }
        }
        Err(match first_error {
            Some(error) => Miss { error: error.context(format!("The chunk \"{id}\" cannot be read")), lack },
            None => Error::damaged(format!("The chunk \"{id}\" is not in the index"))
                .with_hint(
                    "Run \"firn check\" to see what is damaged, and \"firn repair index\" if index segments were lost.",
                )
                .into(),
        })
    }

    /// The decoded block at a place, from the cache or the store.
    pub fn block(&self, index: &Index, place: Place) -> Result<Arc<ReadBlock>> {
        let pack = index.pack(place)?;
        self.blocks.get_or_insert_with(&(pack.name, place.block), || self.load_block(&pack, place.block).map(Arc::new))
    }

    /// Pack and block of a chunk's first copy.
    pub fn place(&self, chunk: &ChunkId) -> Option<(ObjectName, u32)> {
        let index = self.index().ok()?;
        let mut first = None;
        index
            .find(chunk, &mut |place| {
                first = Some(place);
                false
            })
            .ok()?;
        let place = first?;
        Some((index.pack(place).ok()?.name, place.block))
    }

    /// Whether a chunk can be had without waiting for storage.
    pub fn is_at_hand(&self, chunk: &ChunkId) -> bool {
        self.place(chunk).is_some_and(|(pack, block)| self.is_cached(&pack, block))
    }

    /// Whether a block is in the cache already.
    pub fn is_cached(&self, pack: &ObjectName, block: u32) -> bool {
        self.blocks.contains_key(&(*pack, block))
    }

    fn load_block(&self, pack: &PackInfo, block: u32) -> Result<ReadBlock> {
        let (offset, length) = pack.frame(block).ok_or_else(|| {
            Error::damaged(format!("The index names block {block} of the pack \"{}\", which has fewer", pack.name))
        })?;
        let mut frame = vec![0; length as usize];
        self.store().get_range(&pack_key(pack), offset, &mut frame)?;
        let opened = self.opened(pack)?;
        self.readable(pack, block, ReadBlock::open(self.keyring(), &opened, block, frame))
    }

    /// Decodes a frame that was read from `pack` (the frame is consumed in place).
    pub fn decode_block(&self, pack: &PackInfo, block: u32, frame: &mut [u8]) -> Result<ReadBlock> {
        let opened = self.opened(pack)?;
        let read = open_block(self.keyring(), &opened, block, frame)
            .map(|block| ReadBlock::new(block.kind, block.body.into_owned(), block.chunks));
        self.readable(pack, block, read)
    }

    /// What does not open is noted and named.
    fn readable(&self, pack: &PackInfo, block: u32, read: Result<ReadBlock>) -> Result<ReadBlock> {
        read.inspect_err(|_| self.note_damaged(pack.name))
            .map_err(|error| error.context(format!("Block {block} of the pack \"{}\" is damaged", pack_key(pack))))
    }

    /// The header and keys of a pack.
    pub fn opened(&self, pack: &PackInfo) -> Result<Arc<Opened>> {
        self.headers.get_or_insert_with(&pack.name, || {
            let key = pack_key(pack);
            let mut header = [0; HEADER_LEN];
            self.store().get_range(&key, 0, &mut header)?;
            // The index tells what was sealed under which epoch; its word is authentic. Asked first: another thread may add the
            // secret after the header was tried.
            let is_known = self.keyring().has_epoch(pack.epoch);
            self.keyring()
                .open(pack_kind(pack.is_tree), &header)
                .map(Arc::new)
                .map_err(|error| match error.kind() {
                    ErrorKind::WrongKey if is_known => error.with_kind(ErrorKind::Damaged),
                    _ => error,
                })
                .inspect_err(|error| {
                    if error.kind() == ErrorKind::Damaged {
                        self.note_damaged(pack.name);
                    }
                })
                .map_err(|error| header_error(error, &key))
        })
    }
}

/// The header kind of a pack.
pub fn pack_kind(is_tree: bool) -> Kind {
    if is_tree { Kind::TreePack } else { Kind::DataPack }
}

/// Where a pack is stored.
pub fn pack_key(pack: &PackInfo) -> ObjectKey {
    ObjectKey::new(pack_folder(pack_kind(pack.is_tree)), pack.name)
}
