//! The 96 bytes at the start of every sealed object. Not for: key slots' own layout (see `key_slot`), deriving keys.

use crate::error::{Error, ErrorKind, Result};
use crate::format::bytes::Reader;

/// The first bytes of every object: "firn", CR, LF, SUB, LF; transfers in text mode destroy it visibly.
pub const MAGIC: [u8; 8] = *b"firn\r\n\x1a\n";
/// The major version of the format that this program writes, and the highest that it reads.
pub const VERSION: u8 = 1;
/// Length of a header.
pub const HEADER_LEN: usize = 96;
/// XChaCha20-Poly1305 and keyed BLAKE3.
pub const SUITE: u8 = 1;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Settings of the repository.
    Config = 1,
    /// What unlocks the repository; has a layout of its own.
    KeySlot = 2,
    /// Blocks of file content.
    DataPack = 3,
    /// Blocks of tree pages, list pages and attribute sets.
    TreePack = 4,
    /// Where chunks are.
    IndexSegment = 5,
    /// The root of a tree, and when and how it came to be.
    Snapshot = 6,
    /// A writer is at work.
    Pin = 7,
    /// Packs condemned by a prune.
    Mark = 8,
    /// A snapshot is forgotten.
    Tomb = 9,
    /// A session may no longer commit.
    Revoke = 10,
    /// A snapshot is never forgotten.
    Hold = 11,
    /// A pack was found damaged.
    Damage = 12,
}

impl Kind {
    /// The kind with this number.
    pub fn from_u8(value: u8) -> Option<Kind> {
        Some(match value {
            1 => Kind::Config,
            2 => Kind::KeySlot,
            3 => Kind::DataPack,
            4 => Kind::TreePack,
            5 => Kind::IndexSegment,
            6 => Kind::Snapshot,
            7 => Kind::Pin,
            8 => Kind::Mark,
            9 => Kind::Tomb,
            10 => Kind::Revoke,
            11 => Kind::Hold,
            12 => Kind::Damage,
            _ => return None,
        })
    }

    /// Whether it holds blocks (and not one record).
    pub fn is_pack(self) -> bool {
        matches!(self, Kind::DataPack | Kind::TreePack)
    }
}

/// The header of a sealed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the object is; not `KeySlot`.
    pub kind: Kind,
    /// Which content secret its key comes from; 0 unless it is a data pack.
    pub epoch: u16,
    /// Random, makes the object's key unique.
    pub salt: [u8; 32],
    /// Tells the right key from wrong ones.
    pub commitment: [u8; 32],
}

impl Header {
    /// The bytes as stored.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        debug_assert!(self.kind != Kind::KeySlot && (self.epoch == 0 || self.kind == Kind::DataPack));
        let mut bytes = [0; HEADER_LEN];
        bytes[..64].copy_from_slice(&self.key_material());
        bytes[64..].copy_from_slice(&self.commitment);
        bytes
    }

    /// The first 64 bytes, which go into the object's key.
    pub fn key_material(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = VERSION;
        bytes[9] = self.kind as u8;
        bytes[10..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12] = SUITE;
        bytes[32..].copy_from_slice(&self.salt);
        bytes
    }

    /// Reads the header at the start of `bytes`, which may go on behind it.
    ///
    /// `Unsupported` for a higher major version, else `Damaged`.
    pub fn decode(bytes: &[u8]) -> Result<Header> {
        let mut reader = Reader::new("header", bytes);
        let kind = read_start(&mut reader)?;
        if kind == Kind::KeySlot {
            return Err(reader.damaged_at(9, "it belongs to a key slot"));
        }
        let epoch = reader.u16()?;
        if epoch != 0 && kind != Kind::DataPack {
            return Err(reader.damaged_at(10, "only data packs have a key epoch"));
        }
        if reader.u8()? != SUITE {
            return Err(reader.damaged_at(12, "the suite is unknown"));
        }
        if reader.u8()? != 0 {
            return Err(reader.damaged_at(13, "the envelope type is unknown"));
        }
        if reader.u16()? != 0 {
            return Err(reader.damaged_at(14, "there must not be an envelope"));
        }
        if reader.array::<16>()? != [0; 16] {
            return Err(reader.damaged_at(16, "reserved bytes are not zero"));
        }
        Ok(Header { kind, epoch, salt: reader.array()?, commitment: reader.array()? })
    }
}

/// Reads magic, major version and kind, with which every object begins.
pub(crate) fn read_start(reader: &mut Reader) -> Result<Kind> {
    if reader.array::<8>()? != MAGIC {
        return Err(reader.damaged_at(0, "it does not begin like an object of firn"));
    }
    match reader.u8()? {
        VERSION => {}
        0 => return Err(reader.damaged_at(8, "there is no version 0")),
        newer => return Err(newer_version("object", u64::from(newer))),
    }
    match Kind::from_u8(reader.u8()?) {
        Some(kind) => Ok(kind),
        None => Err(reader.damaged_at(9, "the kind of object is unknown")),
    }
}

/// The error for something written by a newer program; it is not damage.
#[cold]
pub(crate) fn newer_version(what: &str, version: u64) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the {what} has format version {version}, and this firn reads versions up to {VERSION}"),
    )
    .with_hint("Use a newer firn; nothing is damaged.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation;

    fn header() -> Header {
        Header { kind: Kind::DataPack, epoch: 0x0102, salt: [0xaa; 32], commitment: [0xbb; 32] }
    }

    #[test]
    fn golden() {
        let expected =
            format!("6669726e0d0a1a0a01030201010000{}{}{}", "00".repeat(17), "aa".repeat(32), "bb".repeat(32));
        assert_eq!(crate::id::to_hex(&header().encode()), expected);
        assert_eq!(header().encode()[..64], header().key_material());
        assert_eq!(Header::decode(&header().encode()).unwrap(), header());
    }

    #[test]
    fn strict() {
        let good = header().encode();
        for at in (0..8).chain(12..32) {
            let mut bad = good;
            bad[at] ^= 4;
            assert_eq!(Header::decode(&bad).unwrap_err().kind(), ErrorKind::Damaged, "{at}");
        }
        for (at, value, kind) in [
            (8, 0, ErrorKind::Damaged),
            (8, 2, ErrorKind::Unsupported),
            (8, 255, ErrorKind::Unsupported),
            (9, 0, ErrorKind::Damaged),
            (9, 2, ErrorKind::Damaged),
            (9, 4, ErrorKind::Damaged),
            (9, 11, ErrorKind::Damaged),
        ] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Header::decode(&bad).unwrap_err().kind(), kind, "{at} {value}");
        }
        assert!(Header::decode(&good[..95]).is_err());
    }

    #[test]
    fn mutations() {
        let mut corpus: Vec<Vec<u8>> = (1..=12)
            .filter_map(Kind::from_u8)
            .filter(|kind| *kind != Kind::KeySlot)
            .map(|kind| Header { kind, epoch: 0, ..header() }.encode().to_vec())
            .collect();
        corpus.push(header().encode().to_vec());
        mutation::exercise(&corpus, |bytes| {
            let header = Header::decode(bytes).ok()?;
            // What follows the header is not its business.
            Some([&header.encode()[..], &bytes[HEADER_LEN..]].concat())
        });
    }
}
