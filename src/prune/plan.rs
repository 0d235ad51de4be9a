//! What a prune would do: which packs go, which are written again, which stay. Not for: doing it (see `execute`).

use super::live::{Live, Rank};
use super::{Limit, PruneOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format::header::{HEADER_LEN, Header};
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::index::StoredPacks;
use crate::repository::pack::pack_folder;
use crate::repository::read::pack_kind;
use crate::store::ObjectKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

/// A stored pack that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Victim {
    pub is_tree: bool,
    pub size: u64,
}

pub(super) type Victims = BTreeMap<ObjectName, Victim>;

/// Leaves out the smaller half of what was to go; the next prune finds it.
pub(super) fn keep_larger_half(victims: &mut Victims) {
    let mut sizes: Vec<(u64, ObjectName)> = victims.iter().map(|(name, victim)| (victim.size, *name)).collect();
    sizes.sort_unstable();
    for (_, name) in &sizes[..sizes.len() / 2] {
        victims.remove(name);
    }
}

/// What would be done; packs of the index are named by their numbers in `Live`.
#[derive(Default)]
pub(super) struct Plan {
    /// Nobody needs anything in them.
    pub dead: Vec<usize>,
    /// What is needed of them is written again.
    pub rewrite: Vec<usize>,
    /// Stored, and no segment names them: left behind by whoever was stopped.
    pub orphans: Vec<(bool, ObjectName, u64)>,
    /// Named by the index, not stored, and nobody needs anything in them.
    pub absent: HashSet<ObjectName>,
    /// Bytes that nobody needs and that stay, estimated.
    pub unused: u64,
    /// More would be written again if the limit for that were higher.
    pub is_limited: bool,
}

impl Plan {
    pub(super) fn make(live: &Live, stored: &StoredPacks, options: &PruneOptions) -> Plan {
        let mut plan = Plan::default();
        let mut indexed: Vec<&ObjectName> = live.packs.iter().map(|pack| &pack.name).collect();
        indexed.sort_unstable();
        let mut used = 0;
        let mut candidates = Vec::new();
        for (number, pack) in live.packs.iter().enumerate() {
            match (pack.needed, stored.size(pack.is_tree, &pack.name)) {
                (0, None) => drop(plan.absent.insert(pack.name)),
                (0, Some(_)) => plan.dead.push(number),
                _ => {
                    used += pack.used();
                    plan.unused += pack.unused;
                    if pack.rank == Rank::Good {
                        candidates.push(number);
                    }
                }
            }
        }
        plan.orphans = stored.iter().filter(|(_, name, _)| indexed.binary_search(&name).is_err()).collect();
        if options.rewrite {
            plan.choose(live, candidates, used, options);
        }
        plan
    }

    /// Tree packs first, for what little they cost they make everything quicker; then those data packs of which most is unused.
    fn choose(&mut self, live: &Live, mut candidates: Vec<usize>, used: u64, options: &PruneOptions) {
        let all: u64 = live.packs.iter().filter(|pack| pack.rank != Rank::Absent).map(|pack| pack.size).sum();
        let allowed = match options.max_unused {
            // A share of what the repository will have.
            Limit::Share(share) if share < 1.0 => (used as f64 * share / (1.0 - share)) as u64,
            limit => limit.of(all),
        };
        let mut room = options.max_rewrite.of(all);
        let is_old = |number: &usize| {
            let pack = &live.packs[*number];
            !pack.is_tree && options.rewrite_epochs_below.is_some_and(|epoch| pack.epoch < epoch)
        };
        let share = |number: &usize| {
            let pack = &live.packs[*number];
            pack.unused as u128 * 1_000_000 / u128::from(pack.size.max(1))
        };
        let pack = |number: &usize| &live.packs[*number];
        candidates
            .sort_by_key(|number| (!is_old(number), !pack(number).is_tree, Reverse(share(number)), pack(number).name));
        for number in candidates {
            let pack = &live.packs[number];
            let must = is_old(&number);
            let is_worth_it = pack.unused > 0 && (pack.is_tree || self.unused > allowed);
            if !must && (!is_worth_it || pack.used() > room) {
                self.is_limited |= is_worth_it;
                continue;
            }
            room = room.saturating_sub(pack.used());
            self.unused -= pack.unused;
            self.rewrite.push(number);
        }
        self.is_limited &= self.unused > allowed;
    }

    /// Whether there is nothing to delete.
    pub(super) fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.rewrite.is_empty() && self.orphans.is_empty() && self.absent.is_empty()
    }
}

/// Nothing is known about a pack that no index names but its header: one that was made by a newer program, or under a key epoch
/// that the key in use does not hold, is not ours to delete.
pub(super) fn refuse_foreign(repository: &Repository, orphans: &[(bool, ObjectName, u64)]) -> Result<()> {
    for (is_tree, name, size) in orphans {
        let kind = pack_kind(*is_tree);
        let key = ObjectKey::new(pack_folder(kind), name);
        let mut header = [0; HEADER_LEN];
        if *size < HEADER_LEN as u64 {
            continue;
        }
        let read = repository.store().get_range(&key, 0, &mut header);
        let read = read.and_then(|()| Header::decode(&header));
        match read.and_then(|_| repository.keyring().open(kind, &header)) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return Err(Error::new(
                    ErrorKind::Brake,
                    format!("The pack \"{key}\" was written by a newer firn; nothing was pruned"),
                )
                .with_source(error)
                .with_hint("Prune with a newer firn."));
            }
            Err(error) if error.kind() == ErrorKind::WrongKey => {
                return Err(error.context(format!("The pack \"{key}\" cannot be opened; nothing was pruned")));
            }
            _ => {}
        }
    }
    Ok(())
}
