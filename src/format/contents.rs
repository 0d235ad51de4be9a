//! The contents of a pack: which chunks each of its blocks holds. Not for: finding the contents frame.

use crate::error::Result;
use crate::format::block;
use crate::format::bounds::{MAX_BLOCK_CHUNKS, MAX_BODY, MAX_CHUNK, MAX_MESSAGE, MAX_PACK, MAX_PACK_ENTRY};
use crate::format::bytes::{Put, Reader, unfit};
use crate::format::frame::FRAME_OVERHEAD;
use crate::format::header::HEADER_LEN;
use crate::format::message::{ChunkKind, MESSAGE_HEAD_LEN};
use crate::id::ChunkId;

/// The blocks of a pack, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The blocks; all of one pack are content, or none is.
    pub blocks: Vec<BlockContents>,
}

/// One block of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockContents {
    /// Length of the whole frame in bytes.
    pub frame_len: u32,
    /// What its chunks are.
    pub kind: ChunkKind,
    /// Length of the body before compression in bytes.
    pub body_len: u32,
    /// Its chunks: id and length in bytes.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// The shortest and the longest frame.
pub(crate) const FRAME_LENS: std::ops::RangeInclusive<usize> =
    FRAME_OVERHEAD + MESSAGE_HEAD_LEN..=FRAME_OVERHEAD + MAX_MESSAGE;

impl BlockContents {
    fn check(&self) -> std::result::Result<(), &'static str> {
        if !FRAME_LENS.contains(&(self.frame_len as usize)) {
            return Err("no frame has the length of a block");
        }
        if !(1..=MAX_BLOCK_CHUNKS).contains(&self.chunks.len()) {
            return Err("a block has no chunks, or too many");
        }
        if self.chunks.iter().any(|(_, len)| !(1..=MAX_CHUNK).contains(&(*len as usize))) {
            return Err("a chunk is empty or too long");
        }
        let chunks: u64 = self.chunks.iter().map(|(_, len)| u64::from(*len)).sum();
        let least = block::body_len(&[]) + 4 * self.chunks.len() as u64 + chunks;
        if u64::from(self.body_len) < least || self.body_len as usize > MAX_BODY {
            return Err("the chunks of a block do not fit into it");
        }
        Ok(())
    }
}

impl Contents {
    fn check(&self) -> std::result::Result<(), &'static str> {
        let frames: u64 = self.blocks.iter().map(|block| u64::from(block.frame_len)).sum();
        if frames + HEADER_LEN as u64 > MAX_PACK {
            return Err("the blocks are too long for a pack");
        }
        // What it takes in an index segment, with a SHA-256.
        let entry = 80 + self.blocks.iter().map(|block| 4 + 40 * block.chunks.len()).sum::<usize>();
        if entry > MAX_PACK_ENTRY {
            return Err("the chunks are too many for an index segment");
        }
        let tree = self.blocks.first().is_some_and(|block| block.kind.is_tree());
        if self.blocks.iter().any(|block| block.kind.is_tree() != tree) {
            return Err("blocks of content and of trees are in one pack");
        }
        Ok(())
    }

    /// Length of the body in bytes.
    pub fn encoded_len(&self) -> usize {
        4 + self.blocks.iter().map(|block| 13 + 36 * block.chunks.len()).sum::<usize>()
    }

    /// The body as stored. Fails if it does not follow the format's bounds.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let len = self.encoded_len();
        if len > MAX_BODY {
            return Err(unfit("pack's contents list", "it is too long"));
        }
        self.check().map_err(|why| unfit("pack's contents list", why))?;
        let mut body = Vec::with_capacity(len);
        body.put_u32(self.blocks.len() as u32);
        for block in &self.blocks {
            block.check().map_err(|why| unfit("pack's contents list", why))?;
            body.put_u32(block.frame_len);
            body.put_u8(block.kind as u8);
            body.put_u32(block.body_len);
            body.put_u32(block.chunks.len() as u32);
            for (id, len) in &block.chunks {
                body.extend_from_slice(&id.0);
                body.put_u32(*len);
            }
        }
        Ok(body)
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Contents> {
        let mut reader = Reader::new("pack's contents list", body);
        if body.len() > MAX_BODY {
            return Err(reader.damaged("it is too long"));
        }
        let number = reader.u32()?;
        let number = reader.count(u64::from(number), 13 + 36)?;
        let mut blocks = Vec::with_capacity(number);
        for _ in 0..number {
            let start = reader.offset();
            let frame_len = reader.u32()?;
            let Some(kind) = ChunkKind::from_u8(reader.u8()?) else {
                return Err(reader.damaged("the chunk kind is unknown"));
            };
            let body_len = reader.u32()?;
            let chunk_number = reader.u32()?;
            let chunk_number = reader.count(u64::from(chunk_number), 36)?;
            let mut chunks = Vec::with_capacity(chunk_number);
            for _ in 0..chunk_number {
                chunks.push((ChunkId(reader.array()?), reader.u32()?));
            }
            let block = BlockContents { frame_len, kind, body_len, chunks };
            block.check().map_err(|why| reader.damaged_at(start, why))?;
            blocks.push(block);
        }
        let contents = Contents { blocks };
        contents.check().map_err(|why| reader.damaged_at(0, why))?;
        reader.finish()?;
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation::{self, Rng};

    pub(crate) fn generate(rng: &mut Rng) -> Contents {
        let tree = rng.chance(2);
        let blocks = (0..rng.below(5))
            .map(|_| {
                let chunks: Vec<(ChunkId, u32)> =
                    (0..=rng.below(4)).map(|_| (ChunkId(rng.array()), 1 + rng.below(1000) as u32)).collect();
                let lens: Vec<u32> = chunks.iter().map(|(_, len)| *len).collect();
                BlockContents {
                    frame_len: 56 + rng.below(5000) as u32,
                    kind: if tree { ChunkKind::ALL[1 + rng.below(3)] } else { ChunkKind::Content },
                    body_len: block::body_len(&lens) as u32 + if rng.chance(4) { 100 } else { 0 },
                    chunks,
                }
            })
            .collect();
        Contents { blocks }
    }

    #[test]
    fn golden() {
        let contents = Contents {
            blocks: vec![BlockContents {
                frame_len: 0x100,
                kind: ChunkKind::Tree,
                body_len: 13,
                chunks: vec![(ChunkId([0xab; 32]), 5)],
            }],
        };
        let expected = format!("0100000000010000020d00000001000000{}05000000", "ab".repeat(32));
        assert_eq!(crate::id::to_hex(&contents.encode().unwrap()), expected);
        assert_eq!(Contents::decode(&contents.encode().unwrap()).unwrap(), contents);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let good =
            BlockContents { frame_len: 56, kind: ChunkKind::Tree, body_len: 13, chunks: vec![(ChunkId([1; 32]), 5)] };
        let one = |block: BlockContents| Contents { blocks: vec![block] }.encode();
        assert!(one(good.clone()).is_ok());
        assert!(one(BlockContents { frame_len: 55, ..good.clone() }).is_err());
        assert!(one(BlockContents { body_len: 12, ..good.clone() }).is_err());
        assert!(one(BlockContents { body_len: MAX_BODY as u32 + 1, ..good.clone() }).is_err());
        assert!(one(BlockContents { chunks: vec![], ..good.clone() }).is_err());
        assert!(one(BlockContents { chunks: vec![(ChunkId([1; 32]), 0)], ..good.clone() }).is_err());
        let content = BlockContents { kind: ChunkKind::Content, ..good.clone() };
        assert!(Contents { blocks: vec![good, content] }.encode().is_err());
    }

    #[test]
    fn mutations() {
        let mut rng = Rng::new(2);
        let corpus: Vec<Vec<u8>> = (0..30).map(|_| generate(&mut rng).encode().unwrap()).collect();
        mutation::exercise(&corpus, |bytes| Some(Contents::decode(bytes).ok()?.encode().unwrap()));
    }
}
