//! Packs: built in memory block by block, verified before they are stored, and read back. Not for: deciding what goes into which pack.

use super::keyring::{Keyring, Opened, decode_message, object_name};
use crate::error::{Error, ErrorKind, Result};
use crate::format::block;
use crate::format::bounds::MAX_PACK;
use crate::format::contents::{BlockContents, Contents};
use crate::format::frame::{FRAME_OVERHEAD, FrameTag, TRAILER_LEN, TRAILER_TAG};
use crate::format::header::{HEADER_LEN, Kind};
use crate::format::message::ChunkKind;
use crate::format::padding::padme;
use crate::id::{ChunkId, ObjectName};
use crate::store::{ObjectKey, ObjectKind, Store};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// A contents list never grows past this (unless one block alone does), so that it stays within its bound of 16 MiB and all that
/// the index says about the pack stands in one segment.
const CONTENTS_TARGET: usize = 8 << 20;

/// A compressed block, ready to be sealed into whatever pack is open.
#[derive(Debug)]
pub struct ReadyBlock {
    /// What its chunks are.
    pub kind: ChunkKind,
    /// The message to seal (head and payload).
    pub message: Vec<u8>,
    /// Length of the body before compression.
    pub body_len: u32,
    /// Ids and lengths of its chunks, in order.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// A pack being filled. Holds at most the target size plus one block in memory.
pub struct PackBuilder {
    object: Opened,
    kind: Kind,
    bytes: Vec<u8>,
    contents: Contents,
    contents_len: usize,
}

/// A finished pack: its bytes and what the index needs to know.
#[derive(Debug)]
pub struct FinishedPack {
    /// BLAKE3 of the bytes.
    pub name: ObjectName,
    /// Data or tree.
    pub kind: Kind,
    /// Key epoch.
    pub epoch: u16,
    /// All bytes to store.
    pub bytes: Vec<u8>,
    /// Its blocks and their chunks.
    pub contents: Contents,
}

impl FinishedPack {
    /// Where it is stored.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(pack_folder(self.kind), self.name)
    }
}

/// The store's folder for packs of `kind`.
pub fn pack_folder(kind: Kind) -> ObjectKind {
    if kind == Kind::TreePack { ObjectKind::Tree } else { ObjectKind::Data }
}

/// Bytes of a block in a contents list.
fn contents_len(block: &ReadyBlock) -> usize {
    13 + 36 * block.chunks.len()
}

impl PackBuilder {
    /// An empty pack of `kind` (data or tree).
    pub fn new(keyring: &Keyring, kind: Kind, target: usize) -> Result<Self> {
        Ok(Self::on(keyring.create(kind)?, kind, target))
    }

    /// An empty pack on a header that is made already.
    pub(crate) fn on(object: Opened, kind: Kind, target: usize) -> Self {
        let mut bytes = Vec::with_capacity(target + target / 8);
        bytes.extend_from_slice(&object.header);
        PackBuilder { object, kind, bytes, contents: Contents { blocks: Vec::new() }, contents_len: 0 }
    }

    /// Whether it holds no block yet.
    pub fn is_empty(&self) -> bool {
        self.contents.blocks.is_empty()
    }

    /// Seals a block into the pack.
    pub fn push(&mut self, keyring: &Keyring, block: ReadyBlock) -> Result<()> {
        let number = self.contents.blocks.len() as u64;
        let from = self.bytes.len();
        keyring.seal_frame(&self.object, FrameTag::Block, number, &block.message, &mut self.bytes)?;
        self.contents_len += contents_len(&block);
        self.contents.blocks.push(BlockContents {
            frame_len: (self.bytes.len() - from) as u32,
            kind: block.kind,
            body_len: block.body_len,
            chunks: block.chunks,
        });
        Ok(())
    }

    /// Whether the contents list has room for this block, too. An empty pack takes any block.
    pub fn has_room(&self, block: &ReadyBlock) -> bool {
        self.is_empty() || self.contents_len + contents_len(block) <= CONTENTS_TARGET
    }

    /// Whether the pack has reached `target` bytes, or its contents their bound.
    pub fn is_full(&self, target: usize) -> bool {
        self.bytes.len() >= target || self.contents_len >= CONTENTS_TARGET
    }

    /// Adds contents, padding and trailer; then opens, decodes and re-hashes everything from the finished bytes, so that
    /// an error of memory, compressor or cipher is noticed while the source still exists.
    pub fn finish(self, keyring: &Keyring) -> Result<FinishedPack> {
        self.finish_encoded(keyring, |body| super::keyring::encode_message(&mut None, 1, None, body))
    }

    /// The same with another way to make a message of the contents body.
    pub(crate) fn finish_encoded(
        mut self,
        keyring: &Keyring,
        encode: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
    ) -> Result<FinishedPack> {
        let at = self.bytes.len();
        let message = encode(&self.contents.encode()?)?;
        keyring.seal_frame(&self.object, FrameTag::Contents, 0, &message, &mut self.bytes)?;
        let unpadded = self.bytes.len() + TRAILER_LEN;
        let padding_from = self.bytes.len();
        self.bytes.resize(padding_from + padme(unpadded as u64) as usize - unpadded, 0);
        self.object.keys.padding(&mut self.bytes[padding_from..]);
        let trailer = trailer(&self.object, at as u64);
        self.bytes.extend_from_slice(&trailer);
        let pack = FinishedPack {
            name: object_name(&self.bytes),
            kind: self.kind,
            epoch: self.object.epoch,
            bytes: self.bytes,
            contents: self.contents,
        };
        verify(keyring, &pack)?;
        Ok(pack)
    }
}

fn trailer(object: &Opened, contents_at: u64) -> [u8; TRAILER_LEN] {
    let mask = object.keys.mask(TRAILER_TAG, 0);
    let check = object.keys.check(TRAILER_TAG, 0, contents_at);
    let mut bytes = [0; TRAILER_LEN];
    for (out, (byte, mask)) in bytes.iter_mut().zip(contents_at.to_le_bytes().iter().zip(&mask)) {
        *out = byte ^ mask;
    }
    bytes[8..].copy_from_slice(&check[..8]);
    bytes
}

fn verify(keyring: &Keyring, pack: &FinishedPack) -> Result<()> {
    let fail = |error: Error| {
        error.with_kind(crate::error::ErrorKind::Failed).context("A finished pack did not verify before it was stored").with_hint(
            "Nothing wrong was stored. This points to faulty memory or a faulty processor: test the machine, then run the backup again.",
        )
    };
    let object = keyring.open(pack.kind, &pack.bytes).map_err(fail)?;
    let mut at = HEADER_LEN;
    let mut places = Vec::with_capacity(pack.contents.blocks.len());
    for listed in &pack.contents.blocks {
        places.push((places.len() as u32, at, listed));
        at += listed.frame_len as usize;
    }
    // Blocks are independent, and whoever waits for the last packs of a backup waits for this.
    places.par_iter().try_for_each_init(Vec::new, |frame, (number, at, listed)| {
        frame.clear();
        frame.extend_from_slice(&pack.bytes[*at..*at + listed.frame_len as usize]);
        let block = open_block(keyring, &object, *number, frame).map_err(fail)?;
        let chunks = block.chunks.iter().map(|(id, range)| (*id, range.len() as u32));
        if block.kind != listed.kind || !chunks.eq(listed.chunks.iter().copied()) {
            return Err(fail(Error::damaged(format!("block {number} decodes to other chunks"))));
        }
        Ok(())
    })?;
    verify_contents(keyring, &object, pack, at).map_err(fail)
}

fn verify_contents(keyring: &Keyring, object: &Opened, pack: &FinishedPack, at: usize) -> Result<()> {
    if pack.bytes.last_chunk::<TRAILER_LEN>() != Some(&trailer(object, at as u64)) {
        return Err(Error::damaged("the trailer does not point at the contents"));
    }
    let masked = pack.bytes[at..].first_chunk().ok_or_else(|| Error::damaged("the contents are missing"))?;
    let length = keyring
        .frame_length(object, FrameTag::Contents, 0, masked)
        .ok_or_else(|| Error::damaged("no contents follow the blocks"))?;
    let mut frame = pack.bytes[at..at + length as usize + FRAME_OVERHEAD].to_vec();
    let message = keyring.open_frame(object, FrameTag::Contents, 0, &mut frame)?;
    let (_, body) = decode_message(message, FrameTag::Contents)?;
    if Contents::decode(&body)? != pack.contents {
        return Err(Error::damaged("the contents decode to something else"));
    }
    Ok(())
}

/// A decoded block whose chunk ids were recomputed from its bytes.
#[derive(Debug)]
pub struct Block<'a> {
    /// What its chunks are.
    pub kind: ChunkKind,
    /// The decompressed body; in the frame itself if it was not compressed.
    pub body: Cow<'a, [u8]>,
    /// Ids and places in `body`, in stored order.
    pub chunks: Vec<(ChunkId, Range<usize>)>,
}

impl Block<'_> {
    /// The same block without the frame.
    pub fn into_owned(self) -> Block<'static> {
        Block { kind: self.kind, body: Cow::Owned(self.body.into_owned()), chunks: self.chunks }
    }
}

/// Opens the frame of a block (in place), decompresses it and recomputes the ids of its chunks.
pub fn open_block<'a>(keyring: &Keyring, object: &Opened, number: u32, frame: &'a mut [u8]) -> Result<Block<'a>> {
    let message = keyring.open_frame(object, FrameTag::Block, u64::from(number), frame)?;
    let (kind, body) = decode_message(message, FrameTag::Block)?;
    let kind = kind.expect("a block's message has a chunk kind");
    let ranges = block::decode(&body)?;
    let chunks = ranges.into_iter().map(|range| (keyring.chunk_id(kind, &body[range.clone()]), range)).collect();
    Ok(Block { kind, body, chunks })
}

/// What of a pack can be read back without an index.
#[derive(Debug)]
pub struct Salvaged {
    /// The readable blocks, in order from the first; frames beyond a damaged one are lost unless the contents name them.
    pub contents: Contents,
    /// Key epoch.
    pub epoch: u16,
    /// Stored size.
    pub size: u64,
    /// What was wrong, if the contents frame could not be used and the frames were walked.
    pub damage: Option<Error>,
    /// The walk ended at something that is no frame, so that there may be more blocks than these.
    pub ends_early: bool,
}

/// An error of opening a pack's header, in a wider sentence.
pub(super) fn header_error(error: Error, key: &ObjectKey) -> Error {
    match error.kind() {
        ErrorKind::WrongKey => error.context(format!("The pack \"{key}\" cannot be opened")),
        _ => error.context(format!("The header of the pack \"{key}\" is damaged")),
    }
}

/// Reads a pack's contents frame through its trailer: two or three small reads.
pub fn read_contents(keyring: &Keyring, store: &dyn Store, kind: Kind, name: ObjectName) -> Result<Salvaged> {
    let key = ObjectKey::new(pack_folder(kind), name);
    let size = store.size(&key)?;
    if size > MAX_PACK || size < (HEADER_LEN + TRAILER_LEN) as u64 {
        return Err(Error::damaged(format!("\"{key}\" cannot be a pack: it has {size} bytes")));
    }
    let mut head = [0; HEADER_LEN];
    store.get_range(&key, 0, &mut head)?;
    let object = keyring.open(kind, &head).map_err(|e| header_error(e, &key))?;
    let mut stored = [0; TRAILER_LEN];
    store.get_range(&key, size - TRAILER_LEN as u64, &mut stored)?;
    let mask = object.keys.mask(TRAILER_TAG, 0);
    let mut at = [0; 8];
    for (out, (byte, mask)) in at.iter_mut().zip(stored.iter().zip(&mask)) {
        *out = byte ^ mask;
    }
    let at = u64::from_le_bytes(at);
    if trailer(&object, at) != stored {
        return Err(Error::damaged(format!("The trailer of \"{key}\" is damaged")));
    }
    let contents =
        read_frame(store, &key, size, at, |masked| keyring.frame_length(&object, FrameTag::Contents, 0, masked))
            .and_then(|mut frame| {
                let message = keyring.open_frame(&object, FrameTag::Contents, 0, &mut frame)?;
                let (_, body) = decode_message(message, FrameTag::Contents)?;
                Contents::decode(&body)
            })
            .map_err(|e| e.context(format!("The contents of \"{key}\" are damaged")))?;
    let frames: u64 = contents.blocks.iter().map(|block| u64::from(block.frame_len)).sum();
    if HEADER_LEN as u64 + frames != at {
        return Err(Error::damaged(format!("The contents of \"{key}\" do not add up to its size")));
    }
    Ok(Salvaged { contents, epoch: object.epoch, size, damage: None, ends_early: false })
}

fn read_frame(
    store: &dyn Store,
    key: &ObjectKey,
    size: u64,
    at: u64,
    length: impl Fn(&[u8; 8]) -> Option<u32>,
) -> Result<Vec<u8>> {
    let mut masked = [0; 8];
    if at.checked_add(FRAME_OVERHEAD as u64).is_none_or(|end| end > size) {
        return Err(Error::damaged("a frame would lie outside its object"));
    }
    store.get_range(key, at, &mut masked)?;
    let length = length(&masked).ok_or_else(|| Error::damaged("no frame begins there"))?;
    let whole = u64::from(length) + FRAME_OVERHEAD as u64;
    if at + whole > size {
        return Err(Error::damaged("a frame would lie outside its object"));
    }
    let mut frame = vec![0; whole as usize];
    store.get_range(key, at, &mut frame)?;
    Ok(frame)
}

/// As `salvage`, and every block is decoded: one that does not hold what the contents say keeps its place, without chunks.
pub fn salvage_verified(keyring: &Keyring, store: &dyn Store, kind: Kind, name: ObjectName) -> Result<Salvaged> {
    let mut salvaged = salvage(keyring, store, kind, name)?;
    if salvaged.damage.is_some() {
        return Ok(salvaged);
    }
    let key = ObjectKey::new(pack_folder(kind), name);
    let mut head = [0; HEADER_LEN];
    store.get_range(&key, 0, &mut head)?;
    let object = keyring.open(kind, &head)?;
    let mut at = HEADER_LEN as u64;
    for (number, listed) in salvaged.contents.blocks.iter_mut().enumerate() {
        let mut frame = vec![0; listed.frame_len as usize];
        store.get_range(&key, at, &mut frame)?;
        at += u64::from(listed.frame_len);
        let opened = open_block(keyring, &object, number as u32, &mut frame);
        let is_right = opened
            .as_ref()
            .is_ok_and(|block| block.chunks.iter().map(|(id, _)| id).eq(listed.chunks.iter().map(|(id, _)| id)));
        if !is_right {
            listed.chunks.clear();
            salvaged.damage = Some(Error::damaged(format!("Block {number} of \"{key}\" is damaged")));
        }
    }
    Ok(salvaged)
}

/// Finds out what a pack holds, by its contents frame or, when that is damaged, by walking and decoding its block frames.
/// Only a pack whose header is lost yields nothing (`Err`).
pub fn salvage(keyring: &Keyring, store: &dyn Store, kind: Kind, name: ObjectName) -> Result<Salvaged> {
    let damage = match read_contents(keyring, store, kind, name) {
        Ok(salvaged) => return Ok(salvaged),
        Err(error) if error.kind() == ErrorKind::Damaged => error,
        Err(error) => return Err(error),
    };
    let key = ObjectKey::new(pack_folder(kind), name);
    let size = store.size(&key)?;
    let mut head = [0; HEADER_LEN];
    store.get_range(&key, 0, &mut head)?;
    let object = keyring.open(kind, &head).map_err(|e| header_error(e, &key))?;
    let mut at = HEADER_LEN as u64;
    let mut contents = Contents { blocks: Vec::new() };
    loop {
        let number = contents.blocks.len() as u32;
        let Ok(mut frame) = read_frame(store, &key, size, at, |masked| {
            keyring.frame_length(&object, FrameTag::Block, u64::from(number), masked)
        }) else {
            break;
        };
        let frame_len = frame.len() as u32;
        // A damaged block in the middle keeps its place (its length was checked by itself), without chunks.
        let (kind, body_len, chunks) = match open_block(keyring, &object, number, &mut frame) {
            Ok(block) => {
                let chunks = block.chunks.iter().map(|(id, range)| (*id, range.len() as u32)).collect();
                (block.kind, block.body.len() as u32, chunks)
            }
            Err(_) => (if kind == Kind::TreePack { ChunkKind::Tree } else { ChunkKind::Content }, 0, Vec::new()),
        };
        contents.blocks.push(BlockContents { frame_len, kind, body_len, chunks });
        at += u64::from(frame_len);
    }
    let mut masked = [0; 8];
    let ends_early = store.get_range(&key, at, &mut masked).is_err()
        || keyring.frame_length(&object, FrameTag::Contents, 0, &masked).is_none();
    Ok(Salvaged { contents, epoch: object.epoch, size, damage: Some(damage), ends_early })
}
