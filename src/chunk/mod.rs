//! Content ⇄ sealed blocks: pure functions on bytes. Not for: byte layouts (`format`), places (`store`), or files.
//!
//! From a file to a pack: `pieces` reads and leaves zeros out, `split` says where to cut, `id` names the chunks,
//! `compress` and `seal` make blocks of them. `secret` and `password` are where their keys come from.

pub mod compress;
pub mod id;
pub mod password;
pub mod pieces;
pub mod seal;
pub mod secret;
pub mod split;

pub use compress::{Compressor, DecodeError, Decompressor, Encoded};
pub use id::IdKeys;
pub use pieces::{Chunks, Piece, Segment, Source, Whole};
pub use seal::{ObjectKeys, SealError, Sealed};
pub use secret::Secret;
pub use split::Splitter;
