//! The packs that a store lists, to be compared with those that the index names. Not for: what is in them.

use super::Repository;
use super::index::Index;
use super::read::pack_key;
use super::table::PackInfo;
use crate::error::{ErrorKind, Result};
use crate::id::ObjectName;
use crate::store::{Listed, ObjectKind, Store};
use std::time::SystemTime;

/// Lists the objects of a kind.
type ListKind<'a> = dyn Fn(ObjectKind, &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> + 'a;

/// The packs that a store lists. Memory: 56 bytes a pack.
#[derive(Debug, Default)]
pub struct StoredPacks(Vec<StoredPack>);

#[derive(Debug)]
struct StoredPack {
    is_tree: bool,
    name: ObjectName,
    /// When it was stored, by the store's clock, in seconds since 1970.
    stored: u32,
    size: u64,
    /// See `Listed`.
    mark: u64,
}

impl StoredPacks {
    /// Lists both pack folders.
    pub fn list(store: &dyn Store) -> Result<StoredPacks> {
        StoredPacks::collect(&|kind, visit| store.list(kind, visit))
    }

    /// The same as they are now, as far as a reader can tell: it takes a call more for each of 512 folders where other machines
    /// reach the store, too.
    pub(crate) fn list_latest(repository: &Repository) -> Result<StoredPacks> {
        StoredPacks::collect(&|kind, visit| repository.list_latest(kind, visit))
    }

    fn collect(list: &ListKind<'_>) -> Result<StoredPacks> {
        let mut packs = Vec::new();
        for (kind, is_tree) in [(ObjectKind::Data, false), (ObjectKind::Tree, true)] {
            list(kind, &mut |object| {
                let name = ObjectName::parse(&object.name)?;
                let (stored, size, mark) = (seconds(object.stored), object.size, object.mark);
                packs.push(StoredPack { is_tree, name, stored, size, mark });
                Ok(())
            })?;
        }
        Ok(StoredPacks::sorted(packs))
    }

    /// A listing may lack what is stored, and be older than the index: asks the store by name for the packs of the index that were
    /// not listed.
    pub fn confirm(&mut self, index: &Index, store: &dyn Store) -> Result<()> {
        let mut found = Vec::new();
        index.for_each_pack(&mut |pack| {
            if self.size(pack.is_tree, &pack.name).is_some() {
                return Ok(());
            }
            match store.size(&pack_key(&pack)) {
                Ok(size) => {
                    let (is_tree, name) = (pack.is_tree, pack.name);
                    found.push(StoredPack { is_tree, name, stored: JUST_NOW, size, mark: 0 });
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        })?;
        if !found.is_empty() {
            found.append(&mut self.0);
            *self = StoredPacks::sorted(found);
        }
        Ok(())
    }

    /// What the index says, without a look at the store: a mistake of `mistake`.
    pub(super) fn believed(index: &Index) -> Result<StoredPacks> {
        let mut packs = Vec::new();
        index.for_each_pack(&mut |pack| {
            packs.push(StoredPack {
                is_tree: pack.is_tree,
                name: pack.name,
                stored: JUST_NOW,
                size: pack.size,
                mark: 0,
            });
            Ok(())
        })?;
        Ok(StoredPacks::sorted(packs))
    }

    /// A flat list: a table would take twice as much, and three times while it grows. Of a pack that is listed twice the last counts.
    fn sorted(mut packs: Vec<StoredPack>) -> StoredPacks {
        packs.sort_by_key(|pack| (pack.is_tree, pack.name));
        packs.dedup_by(|later, kept| {
            let is_same = (later.is_tree, later.name) == (kept.is_tree, kept.name);
            if is_same {
                (kept.size, kept.stored, kept.mark) = (later.size, later.stored, later.mark);
            }
            is_same
        });
        StoredPacks(packs)
    }

    fn find(&self, is_tree: bool, name: &ObjectName) -> Option<&StoredPack> {
        let found = self.0.binary_search_by_key(&(is_tree, *name), |pack| (pack.is_tree, pack.name));
        found.ok().map(|at| &self.0[at])
    }

    /// Whether the pack is stored with the size that the index states.
    pub fn has(&self, pack: &PackInfo) -> bool {
        self.size(pack.is_tree, &pack.name) == Some(pack.size)
    }

    /// The size of a stored pack.
    pub fn size(&self, is_tree: bool, name: &ObjectName) -> Option<u64> {
        self.find(is_tree, name).map(|pack| pack.size)
    }

    /// The mark of a stored pack (see `Listed`).
    pub fn mark(&self, is_tree: bool, name: &ObjectName) -> u64 {
        self.find(is_tree, name).map_or(0, |pack| pack.mark)
    }

    /// Whether a pack was stored after a moment of the store's clock; one that was not listed may have been.
    pub fn is_younger(&self, is_tree: bool, name: &ObjectName, than: SystemTime) -> bool {
        self.find(is_tree, name).is_none_or(|pack| pack.stored > seconds(than))
    }

    /// All of them: whether it is a tree pack, its name, its size; in order.
    pub fn iter(&self) -> impl Iterator<Item = (bool, ObjectName, u64)> + '_ {
        self.0.iter().map(|pack| (pack.is_tree, pack.name, pack.size))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of a pack whose time is unknown.
const JUST_NOW: u32 = u32::MAX;

/// Seconds since 1970, rounded down; the nearest that can be told.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().try_into().unwrap_or(JUST_NOW)
}
