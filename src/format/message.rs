//! The eight bytes before the body of every message. Not for: compressing (see `chunk`).

use crate::error::Result;
use crate::format::bounds::MAX_BODY;
use crate::format::bytes::Reader;
use crate::format::frame::FrameTag;

/// Length of the prefix of a message.
pub const MESSAGE_HEAD_LEN: usize = 8;

/// How the body of a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// As one Zstandard frame.
    Zstd = 1,
}

/// What a chunk is a piece of. Each kind has a key of its own for its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// A file's bytes.
    Content = 1,
    /// A page of a directory.
    Tree = 2,
    /// A page of a file's list of extents.
    List = 3,
    /// A set of extended attributes.
    Attributes = 4,
}

impl ChunkKind {
    /// All of them.
    pub const ALL: [ChunkKind; 4] = [ChunkKind::Content, ChunkKind::Tree, ChunkKind::List, ChunkKind::Attributes];

    /// The kind with this number.
    pub fn from_u8(value: u8) -> Option<ChunkKind> {
        ChunkKind::ALL.into_iter().find(|kind| *kind as u8 == value)
    }

    /// The word that stands for it in key contexts.
    pub fn word(self) -> &'static str {
        match self {
            ChunkKind::Content => "content",
            ChunkKind::Tree => "tree",
            ChunkKind::List => "list",
            ChunkKind::Attributes => "attributes",
        }
    }

    /// Whether chunks of this kind go into tree packs.
    pub fn is_tree(self) -> bool {
        self != ChunkKind::Content
    }
}

/// The prefix of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHead {
    /// How the body is written.
    pub codec: Codec,
    /// In blocks, what the chunks are; in other messages nothing.
    pub chunk_kind: Option<ChunkKind>,
    /// Length of the body before compression, at most 16 MiB.
    pub body_len: u32,
}

impl MessageHead {
    /// The bytes as stored.
    pub fn encode(&self) -> [u8; MESSAGE_HEAD_LEN] {
        let [a, b, c, d] = self.body_len.to_le_bytes();
        [self.codec as u8, self.chunk_kind.map_or(0, |kind| kind as u8), 0, 0, a, b, c, d]
    }

    /// Reads the prefix of a whole `message` in a frame with this tag. The body is `message[8..]`.
    pub fn decode(message: &[u8], tag: FrameTag) -> Result<MessageHead> {
        let mut reader = Reader::new("message", message);
        let codec = match reader.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(reader.damaged_at(0, "the codec is unknown")),
        };
        let chunk_kind = match reader.u8()? {
            0 => None,
            value => match ChunkKind::from_u8(value) {
                Some(kind) => Some(kind),
                None => return Err(reader.damaged_at(1, "the chunk kind is unknown")),
            },
        };
        if chunk_kind.is_some() != (tag == FrameTag::Block) {
            return Err(reader.damaged_at(1, "blocks, and only blocks, have a chunk kind"));
        }
        if reader.u16()? != 0 {
            return Err(reader.damaged_at(2, "reserved bytes are not zero"));
        }
        let body_len = reader.u32()?;
        if body_len as usize > MAX_BODY {
            return Err(reader.damaged_at(4, "the body is too long"));
        }
        if codec == Codec::Raw && body_len as usize != reader.remaining() {
            return Err(reader.damaged_at(4, "the body has another length"));
        }
        Ok(MessageHead { codec, chunk_kind, body_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation;

    #[test]
    fn golden() {
        let head = MessageHead { codec: Codec::Zstd, chunk_kind: Some(ChunkKind::List), body_len: 0x0a0b0c };
        assert_eq!(crate::id::to_hex(&head.encode()), "010300000c0b0a00");
        assert_eq!(MessageHead::decode(&head.encode(), FrameTag::Block).unwrap(), head);
        assert!(MessageHead::decode(&head.encode(), FrameTag::Record).is_err());
        let head = MessageHead { codec: Codec::Raw, chunk_kind: None, body_len: 2 };
        let message = [&head.encode()[..], b"{}"].concat();
        assert_eq!(MessageHead::decode(&message, FrameTag::Contents).unwrap(), head);
        assert!(MessageHead::decode(&message, FrameTag::Block).is_err());
        assert!(MessageHead::decode(&message[..9], FrameTag::Record).is_err());
        let head = MessageHead { codec: Codec::Zstd, chunk_kind: None, body_len: MAX_BODY as u32 + 1 };
        assert!(MessageHead::decode(&head.encode(), FrameTag::Record).is_err());
    }

    #[test]
    fn kinds() {
        for kind in ChunkKind::ALL {
            assert_eq!(ChunkKind::from_u8(kind as u8), Some(kind));
        }
        assert_eq!(ChunkKind::from_u8(0), None);
        assert_eq!(ChunkKind::from_u8(5), None);
    }

    #[test]
    fn mutations() {
        for tag in [FrameTag::Block, FrameTag::Record] {
            let mut corpus = Vec::new();
            for len in 0..50u32 {
                for codec in [Codec::Raw, Codec::Zstd] {
                    let chunk_kind = (tag == FrameTag::Block).then(|| ChunkKind::ALL[len as usize % 4]);
                    let head = MessageHead { codec, chunk_kind, body_len: len };
                    corpus.push([&head.encode()[..], &vec![7; len as usize]].concat());
                }
            }
            mutation::exercise(&corpus, |bytes| {
                Some([&MessageHead::decode(bytes, tag).ok()?.encode()[..], &bytes[8..]].concat())
            });
        }
    }
}
