//! Chunk ids: keyed BLAKE3 of a chunk's bytes, with one key for each kind of chunk. Not for: the id types themselves
//! (see `crate::id`), nor object names, which need no key.

use crate::chunk::secret::{Secret, keyed_hash};
use crate::id::ChunkId;

/// The four keys that turn chunks into ids; cheap to share, never to be shown.
#[derive(Clone, Debug)]
pub struct IdKeys {
    content: Secret,
    tree: Secret,
    list: Secret,
    attributes: Secret,
}

impl IdKeys {
    /// The keys that follow from a repository's chunk-id secret.
    pub fn new(chunk_id_secret: &Secret) -> Self {
        let parts: &[&[u8]] = &[chunk_id_secret.bytes()];
        IdKeys {
            content: Secret::kdf("firn v1 chunk id content", parts),
            tree: Secret::kdf("firn v1 chunk id tree", parts),
            list: Secret::kdf("firn v1 chunk id list", parts),
            attributes: Secret::kdf("firn v1 chunk id attributes", parts),
        }
    }

    /// The id of a piece of a file's content. Give the whole chunk at once: small updates are slower.
    pub fn content(&self, chunk: &[u8]) -> ChunkId {
        ChunkId(keyed_hash(&self.content, &[chunk]))
    }

    /// The id of a tree page.
    pub fn tree(&self, page: &[u8]) -> ChunkId {
        ChunkId(keyed_hash(&self.tree, &[page]))
    }

    /// The id of a list page.
    pub fn list(&self, page: &[u8]) -> ChunkId {
        ChunkId(keyed_hash(&self.list, &[page]))
    }

    /// The id of an attribute set.
    pub fn attributes(&self, set: &[u8]) -> ChunkId {
        ChunkId(keyed_hash(&self.attributes, &[set]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Python: blake3(chunk, key=blake3(secret, derive_key_context="firn v1 chunk id content").digest()).hexdigest()
    #[test]
    fn known_answers() {
        let keys = IdKeys::new(&Secret::from_bytes(&[0x11; 32]));
        assert_eq!(
            keys.content(b"firn").to_string(),
            "0e6b0e55d72a2ec938a4e68ed4906a261a605a954ef3703631a0f617f4edbe9a"
        );
        assert_eq!(keys.tree(b"firn").to_string(), "50f47b613b2d560da2e9aa90607652e88b47fc505c34a1128e680935ca4a713f");
        assert_eq!(keys.list(b"firn").to_string(), "5c3189386950bed607e13f18e199b286f93963addea4ae2fc433041020747082");
        assert_eq!(
            keys.attributes(b"firn").to_string(),
            "57e5a6f5b707ef952bc7b95a47e0ac1de0e56a4145a94cc12f5fe7777d20f382"
        );
    }

    #[test]
    fn another_secret_gives_other_ids() {
        let one = IdKeys::new(&Secret::from_bytes(&[1; 32]));
        let other = IdKeys::new(&Secret::from_bytes(&[2; 32]));
        assert_ne!(one.content(b""), other.content(b""));
        assert!(!format!("{one:?}").contains('['));
    }
}
