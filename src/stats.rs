//! Counts what a repository holds and how well it packs. Not for: whether it is whole (see `check`).

use crate::error::{ErrorKind, Result};
use crate::format::message::ChunkKind;
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::index::StoredPacks;
use crate::repository::pack::salvage;
use crate::repository::read::pack_kind;
use crate::store::ObjectKind;

/// How much is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatsOptions {
    /// Reads every pack's list of contents (three small reads a pack) to count chunks and their sizes.
    pub deep: bool,
}

/// Number and bytes of some objects, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Chunks, counted once however often they are stored or used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeepStats {
    /// Distinct chunks of content.
    pub content_chunks: u64,
    /// Their bytes before compression.
    pub content_bytes: u64,
    /// Distinct chunks of trees, lists and attribute sets.
    pub metadata_chunks: u64,
    /// Their bytes before compression.
    pub metadata_bytes: u64,
    /// Bytes of further copies of chunks, before compression.
    pub copied_bytes: u64,
    /// Bytes of the blocks that hold all these, sealed, without padding.
    pub sealed_bytes: u64,
    /// Packs whose contents could not be read; they are not counted.
    pub unreadable_packs: u64,
}

/// What a repository holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live snapshots.
    pub snapshots: u64,
    /// Forgotten snapshots that are still stored.
    pub forgotten: u64,
    /// Snapshots that cannot be read.
    pub damaged: u64,
    /// Packs of content.
    pub data_packs: Objects,
    /// Packs of trees, lists and attribute sets.
    pub tree_packs: Objects,
    /// Index segments.
    pub segments: Objects,
    /// Everything else: configs, keys, snapshots, coordination.
    pub others: Objects,
    /// Entries of the index; more than distinct chunks if some are stored twice.
    pub index_entries: u64,
    /// Bytes of the files of the newest snapshot.
    pub restore_latest: u64,
    /// Bytes of the files of all live snapshots.
    pub restore_all: u64,
    /// Files of all live snapshots.
    pub files_all: u64,
    /// Only with `deep`.
    pub deep: Option<DeepStats>,
}

impl Stats {
    /// All bytes in the store.
    pub fn stored(&self) -> u64 {
        [self.data_packs, self.tree_packs, self.segments, self.others].iter().map(|objects| objects.bytes).sum()
    }

    /// Chunks' bytes before compression for each stored byte of packs' blocks; `None` without `deep` or without chunks.
    pub fn compression(&self) -> Option<f64> {
        let deep = self.deep.as_ref().filter(|deep| deep.sealed_bytes > 0)?;
        Some((deep.content_bytes + deep.metadata_bytes + deep.copied_bytes) as f64 / deep.sealed_bytes as f64)
    }

    /// Bytes of all snapshots' files for each byte of distinct content; `None` without `deep` or without content.
    /// Holes and files kept in tree pages count as files' bytes only.
    pub fn deduplication(&self) -> Option<f64> {
        let deep = self.deep.as_ref().filter(|deep| deep.content_bytes > 0)?;
        Some(self.restore_all as f64 / deep.content_bytes as f64)
    }
}

/// Counts. Memory: what `StoredPacks` takes, and one pack's contents at a time.
pub fn run(repository: &Repository, options: &StatsOptions, progress: &dyn Progress, stop: &Stop) -> Result<Stats> {
    let mut stats = Stats::default();
    let snapshots = repository.snapshots()?;
    stats.snapshots = snapshots.live.len() as u64;
    stats.forgotten = snapshots.forgotten.len() as u64;
    stats.damaged = snapshots.damaged.len() as u64;
    let totals = || snapshots.live.iter().map(|named| named.snapshot.totals);
    stats.restore_latest = totals().next_back().map_or(0, |totals| totals.bytes);
    stats.restore_all = totals().fold(0, |sum: u64, totals| sum.saturating_add(totals.bytes));
    stats.files_all = totals().fold(0, |sum: u64, totals| sum.saturating_add(totals.files));
    for kind in ObjectKind::ALL {
        let objects = match kind {
            ObjectKind::Data => &mut stats.data_packs,
            ObjectKind::Tree => &mut stats.tree_packs,
            ObjectKind::Index => &mut stats.segments,
            _ => &mut stats.others,
        };
        repository.store().list(kind, &mut |object| {
            objects.count += 1;
            objects.bytes += object.size;
            Ok(())
        })?;
    }
    repository.reload_index(progress)?;
    stats.index_entries = repository.index()?.rows();
    if options.deep {
        stats.deep = Some(deep(repository, progress, stop)?);
    }
    Ok(stats)
}

fn deep(repository: &Repository, progress: &dyn Progress, stop: &Stop) -> Result<DeepStats> {
    let index = repository.index()?;
    let mut deep = DeepStats::default();
    let mut packs: Vec<(bool, ObjectName)> =
        StoredPacks::list(repository.store())?.iter().map(|(is_tree, name, _)| (is_tree, name)).collect();
    packs.sort();
    progress.stage("reading the contents of packs");
    progress.expect(packs.len() as u64, 0);
    for (is_tree, name) in packs {
        stop.check()?;
        progress.files(1);
        let contents = match salvage(repository.keyring(), repository.store(), pack_kind(is_tree), name) {
            Ok(salvaged) => salvaged.contents,
            // A prune deleted it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => {
                deep.unreadable_packs += 1;
                continue;
            }
        };
        for (number, block) in contents.blocks.iter().enumerate() {
            deep.sealed_bytes += u64::from(block.frame_len);
            for (id, length) in &block.chunks {
                // A chunk counts where the index finds it first; that needs no memory.
                let mut first = None;
                index.find(id, &mut |place| {
                    first = Some(place);
                    false
                })?;
                let is_first = match first {
                    Some(place) => place.block == number as u32 && index.pack(place)?.name == name,
                    None => true,
                };
                let length = u64::from(*length);
                let (chunks, bytes) = match (is_first, block.kind) {
                    (false, _) => {
                        deep.copied_bytes += length;
                        continue;
                    }
                    (true, ChunkKind::Content) => (&mut deep.content_chunks, &mut deep.content_bytes),
                    (true, _) => (&mut deep.metadata_chunks, &mut deep.metadata_bytes),
                };
                *chunks += 1;
                *bytes += length;
            }
        }
    }
    Ok(deep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::{keys, open, repository};
    use crate::progress::Silent;
    use std::sync::Arc;

    const SHARED: u64 = 2 * 300_000 + 50 * 2_000 + 5_000;

    #[test]
    fn counts_what_was_stored() {
        let (store, _) = repository();
        let stats = run(&open(Arc::new(store.clone())), &StatsOptions { deep: true }, &Silent, &Stop::new()).unwrap();
        assert_eq!((stats.snapshots, stats.files_all), (2, 8));
        assert_eq!((stats.restore_latest, stats.restore_all), (SHARED + 200_000, 2 * (SHARED + 200_000)));
        let deep = stats.deep.unwrap();
        assert_eq!((deep.content_chunks, deep.content_bytes), (2 + 50 + 1 + 2, SHARED + 400_000));
        assert_eq!((deep.copied_bytes, deep.unreadable_packs), (0, 0));
        assert_eq!(stats.index_entries, deep.content_chunks + deep.metadata_chunks);
        assert!(stats.compression().unwrap() > 0.9 && stats.deduplication().unwrap() > 1.4);
        let all: usize = store.raw_keys().iter().map(|key| store.raw_get(key).unwrap().len()).sum();
        assert_eq!(stats.stored(), all as u64);
        assert_eq!(stats.tree_packs.count, keys(&store, ObjectKind::Tree).len() as u64);
    }

    #[test]
    fn a_damaged_pack_is_counted_apart() {
        let (store, _) = repository();
        let pack = keys(&store, ObjectKind::Data).remove(0);
        store.raw_set(&pack, [0; 500]);
        let repository = open(Arc::new(store));
        let stats = run(&repository, &StatsOptions { deep: true }, &Silent, &Stop::new()).unwrap();
        assert_eq!(stats.deep.unwrap().unreadable_packs, 1);
        let stats = run(&repository, &StatsOptions::default(), &Silent, &Stop::new()).unwrap();
        assert_eq!((stats.deep, stats.compression()), (None, None));
    }
}
