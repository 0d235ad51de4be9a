//! The layout of sealed frames and of a pack's trailer, and the byte strings that keys are applied to. Not for: keys,
//! hashing and sealing (see `chunk`).

use crate::error::Result;
use crate::format::bytes::{Reader, unfit};
use crate::format::header::HEADER_LEN;
use crate::format::message::MESSAGE_HEAD_LEN;
use crate::id::RepositoryId;

pub use crate::format::bounds::MAX_MESSAGE;

/// What a sealed frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameTag {
    /// A block of chunks.
    Block = 1,
    /// The list of a pack's blocks.
    Contents = 2,
    /// A record that fills an object.
    Record = 3,
}

/// The tag that masks a pack's trailer, which is no frame.
pub const TRAILER_TAG: u8 = 4;
/// Length of a pack's trailer.
pub const TRAILER_LEN: usize = 16;
/// The masked length and its check at the start of a frame.
pub const FRAME_PREFIX: usize = 8;
/// Length of a frame's nonce.
pub const NONCE_LEN: usize = 24;
/// Length of a frame's authentication tag.
pub const TAG_LEN: usize = 16;
/// By how much a frame is longer than its message.
pub const FRAME_OVERHEAD: usize = FRAME_PREFIX + NONCE_LEN + TAG_LEN;
/// Length of the associated data.
pub const ASSOCIATED_LEN: usize = 1 + 32 + HEADER_LEN + 8;

/// The associated data A of frame `n` with this tag in the object with this header.
pub fn associated_data(
    tag: FrameTag,
    repository: &RepositoryId,
    header: &[u8; HEADER_LEN],
    n: u64,
) -> [u8; ASSOCIATED_LEN] {
    let mut data = [0; ASSOCIATED_LEN];
    data[0] = tag as u8;
    data[1..33].copy_from_slice(&repository.0);
    data[33..33 + HEADER_LEN].copy_from_slice(header);
    data[33 + HEADER_LEN..].copy_from_slice(&n.to_le_bytes());
    data
}

/// What H(Km, ·) is applied to for the mask M of a length (or, with `TRAILER_TAG`, of an offset).
pub fn mask_input(tag: u8, n: u64) -> [u8; 13] {
    let mut input = *b"mask\0\0\0\0\0\0\0\0\0";
    input[4] = tag;
    input[5..].copy_from_slice(&n.to_le_bytes());
    input
}

/// What H(Km, ·) is applied to for the check C of a length (or, with `TRAILER_TAG`, of an offset).
pub fn check_input(tag: u8, n: u64, value: u64) -> [u8; 22] {
    let mut input = *b"check\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    input[5] = tag;
    input[6..14].copy_from_slice(&n.to_le_bytes());
    input[14..].copy_from_slice(&value.to_le_bytes());
    input
}

/// The first eight bytes of a frame: `message_len` under the first four bytes of the mask M, then the first four of the
/// check C.
pub fn prefix(message_len: u32, mask: &[u8; 32], check: &[u8; 32]) -> [u8; FRAME_PREFIX] {
    let mut bytes = [0; FRAME_PREFIX];
    bytes[..4].copy_from_slice(&message_len.to_le_bytes());
    for (byte, mask) in bytes.iter_mut().zip(&mask[..4]) {
        *byte ^= mask;
    }
    bytes[4..].copy_from_slice(&check[..4]);
    bytes
}

/// The message length in a frame's prefix, or `None` if no message has it. Means nothing before `prefix_agrees`.
pub fn prefix_len(prefix: &[u8; FRAME_PREFIX], mask: &[u8; 32]) -> Option<u32> {
    let len = u32::from_le_bytes(std::array::from_fn(|i| prefix[i] ^ mask[i]));
    (MESSAGE_HEAD_LEN..=MAX_MESSAGE).contains(&(len as usize)).then_some(len)
}

/// Whether the check in a frame's prefix is the one computed from the length.
pub fn prefix_agrees(prefix: &[u8; FRAME_PREFIX], check: &[u8; 32]) -> bool {
    prefix[4..] == check[..4]
}

/// A frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameParts<'a> {
    /// The masked length and the check.
    pub prefix: [u8; FRAME_PREFIX],
    /// The nonce.
    pub nonce: [u8; NONCE_LEN],
    /// The sealed message.
    pub ciphertext: &'a [u8],
    /// The authentication tag.
    pub tag: [u8; TAG_LEN],
}

impl<'a> FrameParts<'a> {
    /// Takes apart exactly one whole frame.
    pub fn split(frame: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new("frame", frame);
        let len = frame.len().saturating_sub(FRAME_OVERHEAD);
        if !(MESSAGE_HEAD_LEN..=MAX_MESSAGE).contains(&len) {
            return Err(reader.damaged("no frame has this length"));
        }
        Ok(FrameParts {
            prefix: reader.array()?,
            nonce: reader.array()?,
            ciphertext: reader.bytes(len)?,
            tag: reader.array()?,
        })
    }

    /// Puts the frame together again.
    pub fn join(&self) -> Result<Vec<u8>> {
        if !(MESSAGE_HEAD_LEN..=MAX_MESSAGE).contains(&self.ciphertext.len()) {
            return Err(unfit("frame", "no message has this length"));
        }
        Ok([&self.prefix[..], &self.nonce, self.ciphertext, &self.tag].concat())
    }
}

/// A pack's trailer: `offset` of the contents frame under the first eight bytes of the mask M, then the first eight of the
/// check C.
pub fn trailer(offset: u64, mask: &[u8; 32], check: &[u8; 32]) -> [u8; TRAILER_LEN] {
    let mut bytes = [0; TRAILER_LEN];
    for (i, byte) in offset.to_le_bytes().into_iter().enumerate() {
        bytes[i] = byte ^ mask[i];
    }
    bytes[8..].copy_from_slice(&check[..8]);
    bytes
}

/// The offset in a pack's trailer. Means nothing before `trailer_agrees`.
pub fn trailer_offset(trailer: &[u8; TRAILER_LEN], mask: &[u8; 32]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| trailer[i] ^ mask[i]))
}

/// Whether the check in a pack's trailer is the one computed from the offset.
pub fn trailer_agrees(trailer: &[u8; TRAILER_LEN], check: &[u8; 32]) -> bool {
    trailer[8..] == check[..8]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation;
    use crate::id::to_hex;

    #[test]
    fn golden_inputs() {
        assert_eq!(FRAME_OVERHEAD, 48);
        assert_eq!(MAX_MESSAGE, 16_842_752);
        assert_eq!(to_hex(&mask_input(1, 0x0203)), "6d61736b010302000000000000");
        assert_eq!(to_hex(&check_input(4, 1, 0x0a0b)), "636865636b0401000000000000000b0a000000000000");
        let data = associated_data(FrameTag::Record, &RepositoryId([7; 32]), &[8; 96], 9);
        assert_eq!(to_hex(&data), format!("03{}{}0900000000000000", "07".repeat(32), "08".repeat(96)));
    }

    #[test]
    fn prefix_and_trailer_round_trip() {
        let (mask, check) = ([0x5a; 32], [0xc3; 32]);
        let bytes = prefix(1000, &mask, &check);
        assert_eq!(prefix_len(&bytes, &mask), Some(1000));
        assert!(prefix_agrees(&bytes, &check) && !prefix_agrees(&bytes, &mask));
        for (len, good) in [(7, false), (8, true), (MAX_MESSAGE as u32, true), (MAX_MESSAGE as u32 + 1, false)] {
            assert_eq!(prefix_len(&prefix(len, &mask, &check), &mask).is_some(), good);
        }
        let bytes = trailer(0x0102_0304_0506, &mask, &check);
        assert_eq!(trailer_offset(&bytes, &mask), 0x0102_0304_0506);
        assert!(trailer_agrees(&bytes, &check) && !trailer_agrees(&bytes, &mask));
    }

    #[test]
    fn mutations() {
        let corpus: Vec<Vec<u8>> = (8..40).map(|len| vec![len as u8; FRAME_OVERHEAD + len]).collect();
        mutation::exercise(&corpus, |bytes| FrameParts::split(bytes).ok()?.join().ok());
        assert!(FrameParts::split(&vec![0; FRAME_OVERHEAD + MAX_MESSAGE + 1]).is_err());
    }
}
