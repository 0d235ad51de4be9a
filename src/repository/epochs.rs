//! Whether the key in use holds every key epoch under which packs are sealed. Not for: making a new epoch (see `rotate`).
//!
//! A key that lacks one was made before the keys were rotated. Whoever holds it can read what older packs hold, but must not write
//! or delete: it would take for missing what it cannot open.

use super::Repository;
use super::keyring::OTHER_KEY;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

impl Repository {
    /// Number and bytes of data packs that the index, as loaded last, names under older epochs than the newest.
    pub fn older_epochs(&self) -> Result<(u64, u64)> {
        let mut packs = BTreeMap::new();
        self.index()?.for_each_pack(&mut |pack| {
            if !pack.is_tree && pack.epoch < self.keyring().newest_epoch() {
                packs.insert(pack.name, pack.size);
            }
            Ok(())
        })?;
        Ok((packs.len() as u64, packs.values().sum()))
    }

    /// Packs that the index names under key epochs that the key in use does not hold.
    fn unknown_epochs(&self) -> Result<BTreeMap<u16, u64>> {
        let mut unknown: BTreeMap<u16, u64> = BTreeMap::new();
        self.index()?.for_each_pack(&mut |pack| {
            if !pack.is_tree && !self.keyring().has_epoch(pack.epoch) {
                *unknown.entry(pack.epoch).or_default() += 1;
            }
            Ok(())
        })?;
        Ok(unknown)
    }

    /// An error of kind `WrongKey` if the index, as loaded last, names packs under key epochs that the key in use does not hold, not
    /// even after a look for newer slots that its credentials open.
    pub fn check_epochs(&self) -> Result<()> {
        let mut unknown = self.unknown_epochs()?;
        if !unknown.is_empty() && self.keyring().renew() {
            unknown = self.unknown_epochs()?;
        }
        match unknown.last_key_value() {
            None => Ok(()),
            Some((epoch, _)) => {
                let count: u64 = unknown.values().sum();
                let packs = if count == 1 { "1 pack is".to_owned() } else { format!("{count} packs are") };
                Err(Error::new(
                    ErrorKind::WrongKey,
                    format!("{packs} sealed under key epochs up to {epoch}, which the key in use does not hold; nothing was changed"),
                )
                .with_hint(OTHER_KEY))
            }
        }
    }
}
