//! Index segments: which pack and block hold a chunk. Not for: looking chunks up (see `repository`).

use crate::error::Result;
use crate::format::bounds::{MAX_BODY, MAX_PACK};
use crate::format::bytes::{Put, Reader, unfit};
use crate::format::contents::FRAME_LENS;
use crate::format::header::{HEADER_LEN, Kind};
use crate::id::{ChunkId, ObjectName};

/// An index segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Segments that count as absent because of this one, ascending.
    pub replaces: Vec<ObjectName>,
    /// Packs, ascending by name.
    pub packs: Vec<PackRecord>,
    /// Where chunks are: id, pack (counted from 0 in `packs`), block (counted from 0); ascending, none twice.
    pub chunks: Vec<(ChunkId, u32, u32)>,
}

/// What an index segment says about a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Its name.
    pub name: ObjectName,
    /// A tree pack, else a data pack.
    pub is_tree: bool,
    /// SHA-256 of the stored bytes, for stores that verify with it.
    pub sha256: Option<[u8; 32]>,
    /// The key epoch; 0 for tree packs.
    pub epoch: u16,
    /// Length of the object in bytes.
    pub size: u64,
    /// Lengths of the whole frames of its blocks, in their order.
    pub frames: Vec<u32>,
}

impl PackRecord {
    /// Where the frame of `block` is in the pack: offset and length in bytes; `None` if there is no such block.
    pub fn frame(&self, block: u32) -> Option<(u64, u32)> {
        let block = block as usize;
        let len = *self.frames.get(block)?;
        let before: u64 = self.frames[..block].iter().map(|len| u64::from(*len)).sum();
        Some((HEADER_LEN as u64 + before, len))
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.is_tree && self.epoch != 0 {
            return Err("only data packs have a key epoch");
        }
        if self.size > MAX_PACK {
            return Err("a pack is too long");
        }
        if self.frames.iter().any(|len| !FRAME_LENS.contains(&(*len as usize))) {
            return Err("no frame has the length of a block");
        }
        let frames: u64 = self.frames.iter().map(|len| u64::from(*len)).sum();
        if HEADER_LEN as u64 + frames > self.size {
            return Err("the blocks of a pack do not fit into it");
        }
        Ok(())
    }
}

/// The least lengths of a pack and of a chunk in a segment.
const PACK_LEN: usize = 32 + 1 + 1 + 2 + 8 + 4;
const CHUNK_LEN: usize = 40;

/// Bytes that a pack with so many chunks takes in a segment.
pub fn entry_len(pack: &PackRecord, chunks: usize) -> usize {
    PACK_LEN + 4 * pack.frames.len() + if pack.sha256.is_some() { 32 } else { 0 } + CHUNK_LEN * chunks
}

impl Segment {
    fn check(&self) -> std::result::Result<(), &'static str> {
        if !self.replaces.is_sorted_by(|a, b| a < b) {
            return Err("the replaced segments are not in order");
        }
        if !self.packs.is_sorted_by(|a, b| a.name < b.name) {
            return Err("the packs are not in order");
        }
        if !self.chunks.is_sorted_by(|a, b| a < b) {
            return Err("the chunks are not in order");
        }
        for (_, pack, block) in &self.chunks {
            let blocks = self.packs.get(*pack as usize).map_or(0, |pack| pack.frames.len());
            if *block as usize >= blocks {
                return Err("a chunk is in a block that is not listed");
            }
        }
        Ok(())
    }

    /// Length of the body in bytes. A segment holds at most 16 MiB (`MAX_BODY`).
    pub fn encoded_len(&self) -> usize {
        let packs = self.packs.iter().map(|pack| entry_len(pack, 0));
        12 + 32 * self.replaces.len() + packs.sum::<usize>() + CHUNK_LEN * self.chunks.len()
    }

    /// The body as stored. Fails if it is out of order or too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let len = self.encoded_len();
        if len > MAX_BODY {
            return Err(unfit("index segment", "it is too long"));
        }
        self.check().map_err(|why| unfit("index segment", why))?;
        let mut body = Vec::with_capacity(len);
        body.put_u32(self.replaces.len() as u32);
        for name in &self.replaces {
            body.extend_from_slice(&name.0);
        }
        body.put_u32(self.packs.len() as u32);
        for pack in &self.packs {
            pack.check().map_err(|why| unfit("index segment", why))?;
            body.extend_from_slice(&pack.name.0);
            body.put_u8(if pack.is_tree { Kind::TreePack } else { Kind::DataPack } as u8);
            body.put_u8(u8::from(pack.sha256.is_some()));
            body.put_u16(pack.epoch);
            body.put_u64(pack.size);
            if let Some(hash) = &pack.sha256 {
                body.extend_from_slice(hash);
            }
            body.put_u32(pack.frames.len() as u32);
            for frame in &pack.frames {
                body.put_u32(*frame);
            }
        }
        body.put_u32(self.chunks.len() as u32);
        for (id, pack, block) in &self.chunks {
            body.extend_from_slice(&id.0);
            body.put_u32(*pack);
            body.put_u32(*block);
        }
        Ok(body)
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Segment> {
        let mut reader = Reader::new("index segment", body);
        if body.len() > MAX_BODY {
            return Err(reader.damaged("it is too long"));
        }
        let number = reader.u32()?;
        let number = reader.count(u64::from(number), 32)?;
        let mut replaces = Vec::with_capacity(number);
        for _ in 0..number {
            replaces.push(ObjectName(reader.array()?));
        }
        let number = reader.u32()?;
        let number = reader.count(u64::from(number), PACK_LEN)?;
        let mut packs = Vec::with_capacity(number);
        for _ in 0..number {
            packs.push(read_pack(&mut reader)?);
        }
        let number = reader.u32()?;
        let number = reader.count(u64::from(number), CHUNK_LEN)?;
        let mut chunks = Vec::with_capacity(number);
        for _ in 0..number {
            chunks.push((ChunkId(reader.array()?), reader.u32()?, reader.u32()?));
        }
        let segment = Segment { replaces, packs, chunks };
        segment.check().map_err(|why| reader.damaged(why))?;
        reader.finish()?;
        Ok(segment)
    }
}

fn read_pack(reader: &mut Reader) -> Result<PackRecord> {
    let start = reader.offset();
    let name = ObjectName(reader.array()?);
    let is_tree = match Kind::from_u8(reader.u8()?) {
        Some(Kind::DataPack) => false,
        Some(Kind::TreePack) => true,
        _ => return Err(reader.damaged_at(start + 32, "the kind of a pack is unknown")),
    };
    let hashed = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(reader.damaged_at(start + 33, "neither with nor without a SHA-256")),
    };
    let epoch = reader.u16()?;
    let size = reader.u64()?;
    let sha256 = if hashed { Some(reader.array()?) } else { None };
    let number = reader.u32()?;
    let number = reader.count(u64::from(number), 4)?;
    let mut frames = Vec::with_capacity(number);
    for _ in 0..number {
        frames.push(reader.u32()?);
    }
    let pack = PackRecord { name, is_tree, sha256, epoch, size, frames };
    pack.check().map_err(|why| reader.damaged_at(start, why))?;
    Ok(pack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation::{self, Rng};

    fn generate(rng: &mut Rng) -> Segment {
        let mut replaces: Vec<ObjectName> = (0..rng.below(3)).map(|_| ObjectName(rng.array())).collect();
        replaces.sort();
        let mut packs: Vec<PackRecord> = (0..rng.below(4))
            .map(|_| {
                let is_tree = rng.chance(2);
                let frames: Vec<u32> = (0..rng.below(4)).map(|_| 56 + rng.below(9999) as u32).collect();
                PackRecord {
                    name: ObjectName(rng.array()),
                    is_tree,
                    sha256: if rng.chance(2) { Some(rng.array()) } else { None },
                    epoch: if is_tree { 0 } else { rng.below(3) as u16 },
                    size: 96 + frames.iter().map(|len| u64::from(*len)).sum::<u64>() + rng.below(500) as u64,
                    frames,
                }
            })
            .collect();
        packs.sort_by_key(|pack| pack.name);
        let mut chunks = Vec::new();
        for (pack, record) in packs.iter().enumerate() {
            for block in 0..record.frames.len() {
                let first: [u8; 1] = rng.array();
                chunks.push((ChunkId([first[0]; 32]), pack as u32, block as u32));
                chunks.push((ChunkId(rng.array()), pack as u32, block as u32));
            }
        }
        chunks.sort();
        Segment { replaces, packs, chunks }
    }

    fn golden_segment() -> Segment {
        Segment {
            replaces: vec![ObjectName([1; 32])],
            packs: vec![PackRecord {
                name: ObjectName([2; 32]),
                is_tree: false,
                sha256: Some([3; 32]),
                epoch: 4,
                size: 0x1000,
                frames: vec![0x100, 0x200],
            }],
            chunks: vec![(ChunkId([5; 32]), 0, 1)],
        }
    }

    #[test]
    fn golden() {
        let segment = golden_segment();
        let expected = [
            "01000000".to_string(),
            "01".repeat(32),
            "01000000".into(),
            "02".repeat(32),
            "0301".into(),
            "0400".into(),
            "0010000000000000".into(),
            "03".repeat(32),
            "020000000001000000020000".into(),
            "01000000".into(),
            "05".repeat(32),
            "0000000001000000".into(),
        ]
        .concat();
        assert_eq!(crate::id::to_hex(&segment.encode().unwrap()), expected);
        assert_eq!(segment.encode().unwrap().len(), segment.encoded_len());
        assert_eq!(Segment::decode(&segment.encode().unwrap()).unwrap(), segment);
        assert_eq!(segment.packs[0].frame(0), Some((96, 0x100)));
        assert_eq!(segment.packs[0].frame(1), Some((96 + 0x100, 0x200)));
        assert_eq!(segment.packs[0].frame(2), None);
    }

    #[test]
    fn refuses_disorder_and_dangling_references() {
        let wrong: [fn(&mut Segment); 7] = [
            |segment| segment.chunks[0].1 = 1,
            |segment| segment.chunks[0].2 = 2,
            |segment| segment.chunks.push((ChunkId([5; 32]), 0, 1)),
            |segment| segment.replaces.push(ObjectName([0; 32])),
            |segment| segment.packs.push(segment.packs[0].clone()),
            |segment| segment.packs[0].size = 96 + 0x2ff,
            |segment| segment.packs[0].is_tree = true,
        ];
        for change in wrong {
            let mut segment = golden_segment();
            change(&mut segment);
            assert!(segment.encode().is_err(), "{segment:?}");
        }
    }

    #[test]
    fn mutations() {
        let mut rng = Rng::new(3);
        let corpus: Vec<Vec<u8>> = (0..30).map(|_| generate(&mut rng).encode().unwrap()).collect();
        mutation::exercise(&corpus, |bytes| Some(Segment::decode(bytes).ok()?.encode().unwrap()));
    }
}
