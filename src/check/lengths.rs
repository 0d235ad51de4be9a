//! How long content chunks are, as the packs that hold them say, so that files that state something else are found before a
//! restore finds them. Not for: whether chunks can be read (see `packs`).
//!
//! Asked only when all data is read anyway: it takes the contents frame of each data pack, which may lie in a drawer.
//! Memory: `BYTES`, and the contents of one pack.

use crate::error::{Error, ErrorKind, Result};
use crate::format::message::ChunkKind;
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::index::{Index, Place};
use crate::repository::pack::read_contents;
use crate::repository::read::pack_kind;
use crate::repository::segments::fingerprint;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Bytes kept: the chunks of about 600 packs of small files, which were stored in the order in which they are asked for.
const BYTES: u64 = 32 << 20;

/// The chunks of a pack: fingerprint and length, ascending.
type Listed = Arc<Vec<(u64, u32)>>;

#[derive(Clone)]
struct Weight;

impl Weighter<(u32, u32), Listed> for Weight {
    fn weight(&self, _: &(u32, u32), listed: &Listed) -> u64 {
        (listed.capacity() * size_of::<(u64, u32)>() + 128) as u64
    }
}

/// The lengths of the chunks of some packs.
pub(super) struct Lengths(Cache<(u32, u32), Listed, Weight>);

impl Lengths {
    pub(super) fn new() -> Lengths {
        Lengths(Cache::with_weighter(1024, BYTES, Weight))
    }

    /// The length of a chunk that is in the block at `place`.
    pub(super) fn of(&self, repository: &Repository, index: &Index, place: Place, id: &ChunkId) -> Result<u32> {
        let listed = self.0.get_or_insert_with(&(place.table, place.pack), || -> Result<Listed> {
            let pack = index.pack(place)?;
            let read = read_contents(repository.keyring(), repository.store(), pack_kind(pack.is_tree), pack.name);
            let contents = match read {
                Ok(read) => read.contents,
                // Blocks tell, too. What is wrong with the pack is found by what reads all of it.
                // The block fails then as well, with a better word for it.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::WrongKey) => {
                    return Ok(Arc::default());
                }
                Err(error) => return Err(error),
            };
            let chunks = contents.blocks.iter().flat_map(|block| &block.chunks);
            let mut listed: Vec<_> = chunks.map(|(id, length)| (fingerprint(id), *length)).collect();
            listed.sort_unstable();
            listed.shrink_to_fit();
            Ok(Arc::new(listed))
        })?;
        match listed.binary_search_by_key(&fingerprint(id), |(print, _)| *print) {
            Ok(at) => Ok(listed[at].1),
            Err(_) => {
                let block = repository.block(index, place)?;
                let chunk = block.chunk(ChunkKind::Content, id);
                let chunk = chunk.ok_or_else(|| Error::damaged("the index names a block that does not hold it"))?;
                Ok(chunk.len() as u32)
            }
        }
    }
}
