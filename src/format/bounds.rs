//! The greatest lengths that a reader accepts (BOUNDS of `man/firn-repository.7`). Not for: targets a writer aims at.

/// Header and envelope of an object.
pub const MAX_HEADER: usize = 4096;
/// Body of a message: a block, a contents list or a record.
pub const MAX_BODY: usize = 16 << 20;
/// Length of a message (prefix and body, compressed or not).
pub const MAX_MESSAGE: usize = MAX_BODY + (64 << 10);
/// Binary logarithm of the window of a Zstandard frame.
pub const MAX_WINDOW_LOG: u32 = 24;
/// A whole pack, padding included.
pub const MAX_PACK: u64 = 1 << 30;
/// A whole object that is a record: header, one frame of the longest message, and its padding.
pub const MAX_RECORD_OBJECT: u64 = (16 << 20) + (512 << 10);
/// What a pack takes in an index segment, its chunks included. It stands whole in one, so it holds no more chunks than that.
pub const MAX_PACK_ENTRY: usize = 12 << 20;
/// One chunk.
pub const MAX_CHUNK: usize = 8 << 20;
/// Chunks in one block.
pub const MAX_BLOCK_CHUNKS: usize = 262_144;
/// A tree page or list page.
pub const MAX_PAGE: usize = 65_536;
/// The highest level of a page.
pub const MAX_LEVEL: u8 = 16;
/// The name of an entry or of an extended attribute.
pub const MAX_NAME: usize = 255;
/// Entries of a snapshot are fewer than this: so many a mount can number.
pub const MAX_ENTRIES: u64 = 1 << 36;
/// Directories within directories.
pub const MAX_DEPTH: usize = 4096;
/// Target of a symbolic link.
pub const MAX_TARGET: usize = 4095;
/// Content kept in the entry itself.
pub const MAX_INLINE: usize = 128;
/// Extents kept in the entry itself.
pub const MAX_EXTENTS: usize = 32;
/// Value of an extended attribute.
pub const MAX_ATTRIBUTE_VALUE: usize = 65_536;
/// An encoded attribute set.
pub const MAX_ATTRIBUTE_SET: usize = 8 << 20;
/// An encoded attribute set that stands in a page; longer ones are chunks.
pub const MAX_INLINE_ATTRIBUTES: usize = 1024;
/// Issues listed in a snapshot.
pub const MAX_ISSUES: usize = 1000;
/// Tombs that were taken back, listed in a snapshot.
pub const MAX_UNDONE: usize = 1000;
/// Key slots that are tried, in the order of their names, and that a repository may have.
pub const MAX_KEY_SLOTS: usize = 64;
/// A key slot.
pub const MAX_KEY_SLOT: usize = 4096;
/// Ciphertext of a key slot's secrets, without tag.
pub const MAX_SECRETS: usize = 3072;
/// Ciphertext of a key slot's description, without tag.
pub const MAX_DESCRIPTION: usize = 768;
/// Key epochs in a key slot.
pub const MAX_EPOCHS: usize = 64;
