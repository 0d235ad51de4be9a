//! What an actor at the gate is about to do, how that may turn out, and what it is told. Not for: doing it (see `gate`).

use crate::store::{ObjectKey, ObjectKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is stored, each with a hash of its name and of what it says.
pub(super) type Objects = BTreeMap<Arc<ObjectKey>, Hash>;

/// An object that came (true) or went.
pub(super) type Change = (Arc<ObjectKey>, bool);

/// A hash of a state or a part of one; 128 bits, so that no two states are ever taken for one another.
pub(super) type Hash = u128;

/// Takes one more thing into a hash.
pub(super) fn mix(hash: Hash, more: Hash) -> Hash {
    const FACTOR: Hash = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let turned = (hash ^ more.wrapping_mul(FACTOR)).wrapping_mul(FACTOR).rotate_left(47);
    (turned ^ (turned >> 64)).wrapping_mul(FACTOR)
}

pub(super) fn of_key(key: &ObjectKey) -> Hash {
    let text = key.name.as_bytes();
    text.chunks(16).fold(mix(5, key.kind as Hash), |hash, part| {
        let mut bytes = [0; 16];
        bytes[..part.len()].copy_from_slice(part);
        mix(hash, Hash::from_le_bytes(bytes))
    })
}

/// An operation that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An object, with the hash that `Objects` will have of it.
    Put(Arc<ObjectKey>, Hash),
    Delete(Arc<ObjectKey>),
    /// All objects of a kind; fresh, or as they may have been long ago.
    List {
        kind: ObjectKind,
        is_fresh: bool,
    },
    Read(Arc<ObjectKey>),
    /// The schedule decides which of so many things to do.
    Pick(usize),
    /// Until one of these pins is gone; or the schedule says that one is revoked.
    Wait(Vec<ObjectKey>),
    /// As long as fresh listings lag: what was put or deleted before this began, all can see once it has ended.
    Sleep,
}

/// What came and went, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past<'a> {
    /// All of it.
    pub all: &'a [Change],
    /// Since the actor came to where it stands.
    pub since: &'a [Change],
    /// What nobody has waited out yet.
    pub unsettled: &'a [Change],
}

/// How an operation turns out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Variant {
    /// As it should.
    Go,
    /// The actor does this one of several things.
    Pick(u8),
    /// It is not done, nor anything else that this actor would do.
    Crash,
    /// It is done, and reported as failed.
    Lost,
    /// It is not done, and reported as failed.
    Refused,
    /// The listing lacks this one of the objects that came while it ran.
    Hidden(u8),
    /// The listing lacks this one of its objects, whenever it came.
    Missing(u8),
    /// The listing is old, and lacks this one of the objects that it may lack.
    Withheld(u8),
    /// The listing is old, and still names this one of those that have gone.
    Lingering(u8),
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Choice {
    pub actor: u8,
    pub variant: Variant,
}

impl Choice {
    /// Whether something goes wrong by it.
    pub(super) fn is_fault(self) -> bool {
        !matches!(self.variant, Variant::Go | Variant::Pick(_))
    }
}

/// A choice that there is, and the state that it leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Option_ {
    pub choice: Choice,
    pub after: Hash,
}

/// What may still go wrong in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Actors that stop for good.
    pub crashes: u8,
    /// Operations that fail, or that are done and reported as failed.
    pub failures: u8,
    /// Listings that lack an object that was put while they ran, which the contract of stores allows.
    pub hidden: u8,
    /// Listings of packs or index segments that lack an object that had been there before, which no contract allows.
    pub missing: u8,
    /// Listings that are old: they lack any one object, of any kind, or name one that has gone. Only those that are not fresh, or
    /// not yet, where `lags` says so.
    pub stale: u8,
    /// Fresh listings, too, are old until somebody has waited for as long as the place says that they lag.
    pub lags: bool,
    /// Pins may be revoked.
    pub revokes: bool,
}

impl Faults {
    pub(super) fn after(&self, variant: Variant) -> Faults {
        let mut left = *self;
        match variant {
            Variant::Go | Variant::Pick(_) => {}
            Variant::Crash => left.crashes = left.crashes.saturating_sub(1),
            Variant::Lost | Variant::Refused => left.failures -= 1,
            Variant::Hidden(_) => left.hidden -= 1,
            Variant::Missing(_) => left.missing -= 1,
            Variant::Withheld(_) | Variant::Lingering(_) => left.stale -= 1,
        }
        left
    }

    /// Whether anything may go wrong but for pins being revoked.
    pub(super) fn is_any(&self) -> bool {
        *self != Faults { revokes: self.revokes, lags: self.lags, ..Faults::default() }
    }

    pub(super) fn hash(&self) -> Hash {
        [self.crashes, self.failures, self.hidden, self.missing, self.stale]
            .iter()
            .fold(7, |hash, left| mix(hash, Hash::from(*left)))
    }
}

impl Step {
    /// The ways in which this may turn out now.
    pub(super) fn variants(&self, keys: &Objects, past: Past<'_>, faults: &Faults) -> Vec<Variant> {
        let mut variants = Vec::new();
        match self {
            Step::Pick(count) => variants.extend((0..*count).map(|n| Variant::Pick(n as u8))),
            Step::Wait(pins) => {
                // Looking again brings nothing new before one of them is gone or revoked by somebody else.
                let is_over = |pin: &ObjectKey| {
                    !keys.contains_key(pin) || keys.contains_key(&ObjectKey::new(ObjectKind::Revoke, &pin.name))
                };
                if pins.iter().any(is_over) {
                    variants.push(Variant::Go);
                }
                if faults.revokes {
                    variants.extend((0..pins.len()).filter(|n| !is_over(&pins[*n])).map(|n| Variant::Pick(n as u8)));
                }
            }
            _ => variants.push(Variant::Go),
        }
        if faults.crashes > 0 {
            variants.push(Variant::Crash);
        }
        match self {
            Step::Put(..) | Step::Delete(_) if faults.failures > 0 => {
                variants.extend([Variant::Lost, Variant::Refused]);
            }
            Step::List { kind, .. } => {
                if faults.hidden > 0 {
                    let new = came(past.since, *kind, keys);
                    variants.extend((0..new.count()).map(|n| Variant::Hidden(n as u8)));
                }
                if faults.stale > 0 {
                    let (withheld, lingering) = self.outdated(keys, past);
                    variants.extend((0..withheld.len()).map(|n| Variant::Withheld(n as u8)));
                    variants.extend((0..lingering.len()).map(|n| Variant::Lingering(n as u8)));
                }
                if faults.missing > 0 && matches!(kind, ObjectKind::Data | ObjectKind::Tree | ObjectKind::Index) {
                    variants.extend((0..of_kind(keys, *kind).count()).map(|n| Variant::Missing(n as u8)));
                }
            }
            _ => {}
        }
        variants
    }

    /// What this does to the store: the key, its hash, and whether it is put.
    pub(super) fn change(&self, variant: Variant, keys: &Objects) -> Option<(&Arc<ObjectKey>, Hash, bool)> {
        match (self, variant) {
            (_, Variant::Crash | Variant::Refused) => None,
            (Step::Put(key, hash), _) => (!keys.contains_key(key)).then_some((key, *hash, true)),
            (Step::Delete(key), _) => keys.get(key).map(|hash| (key, *hash, false)),
            _ => None,
        }
    }

    /// What an old listing may leave out, and what it may still name. One that is fresh is only so old that nobody has waited since,
    /// which is nothing but where listings lag.
    fn outdated(&self, keys: &Objects, past: Past<'_>) -> (Vec<Arc<ObjectKey>>, Vec<Arc<ObjectKey>>) {
        let Step::List { kind, is_fresh } = self else { return (Vec::new(), Vec::new()) };
        let gone = |changes: &[Change]| {
            let gone = changes.iter().filter(|(key, is_put)| !is_put && key.kind == *kind && !keys.contains_key(key));
            gone.map(|(key, _)| key.clone()).collect()
        };
        if *is_fresh {
            return (came(past.unsettled, *kind, keys).cloned().collect(), gone(past.unsettled));
        }
        (of_kind(keys, *kind).map(|(key, _)| key.clone()).collect(), gone(past.all))
    }

    /// What a listing leaves out.
    pub(super) fn hidden(&self, variant: Variant, keys: &Objects, past: Past<'_>) -> Option<Arc<ObjectKey>> {
        let Step::List { kind, .. } = self else { return None };
        match variant {
            Variant::Hidden(n) => came(past.since, *kind, keys).nth(n.into()).cloned(),
            Variant::Missing(n) => of_kind(keys, *kind).nth(n.into()).map(|(key, _)| key.clone()),
            Variant::Withheld(n) => self.outdated(keys, past).0.get(usize::from(n)).cloned(),
            _ => None,
        }
    }

    /// What a listing names that has gone.
    pub(super) fn lingering(&self, variant: Variant, keys: &Objects, past: Past<'_>) -> Option<Arc<ObjectKey>> {
        match variant {
            Variant::Lingering(n) => self.outdated(keys, past).1.get(usize::from(n)).cloned(),
            _ => None,
        }
    }

    /// A hash of all that the actor learns by this.
    pub(super) fn answer(&self, variant: Variant, keys: &Objects, past: Past<'_>) -> Hash {
        let failed = Hash::from(matches!(variant, Variant::Lost | Variant::Refused));
        match self {
            Step::Put(key, hash) => mix(mix(11, *hash), failed + 2 * Hash::from(keys.contains_key(key))),
            Step::Delete(_) => mix(12, failed),
            Step::List { kind, .. } => {
                let hidden = self.hidden(variant, keys, past);
                let lingering = self.lingering(variant, keys, past).map_or(0, |key| mix(16, of_key(&key)));
                let listed = of_kind(keys, *kind).filter(|(key, _)| Some(*key) != hidden.as_ref());
                mix(13, listed.fold(lingering, |sum, (_, hash)| sum ^ hash))
            }
            Step::Sleep => 17,
            Step::Read(key) => mix(14, keys.get(key).copied().unwrap_or_default()),
            Step::Pick(_) | Step::Wait(_) => match variant {
                Variant::Pick(n) => mix(15, Hash::from(n) + 1),
                _ => mix(15, 0),
            },
        }
    }

    /// A line for a person.
    pub(super) fn describe(
        &self,
        variant: Variant,
        keys: &Objects,
        past: Past<'_>,
        role: &dyn Fn(&ObjectKey) -> String,
    ) -> String {
        let mut line = match self {
            Step::Put(key, _) => format!("puts {}", role(key)),
            Step::Delete(key) => format!("deletes {}", role(key)),
            Step::Read(key) => format!("reads {}", role(key)),
            Step::List { kind, is_fresh } => {
                let hidden = self.hidden(variant, keys, past);
                let names: Vec<String> = of_kind(keys, *kind)
                    .map(|(key, _)| key)
                    .filter(|key| Some(*key) != hidden.as_ref())
                    .map(|key| role(key))
                    .collect();
                let without = hidden.map(|key| format!(", not {}", role(&key))).unwrap_or_default();
                let with =
                    self.lingering(variant, keys, past).map(|key| format!(", and {}, which is gone", role(&key)));
                let how = if *is_fresh { "" } else { " (not fresh)" };
                format!("lists {}: {}{without}{}{how}", kind.folder(), names.join(", "), with.unwrap_or_default())
            }
            Step::Sleep => "waits as long as listings lag".to_owned(),
            Step::Pick(_) => String::new(),
            Step::Wait(pins) => match variant {
                Variant::Pick(n) => format!("revokes {}", role(&pins[usize::from(n)])),
                _ => "looks at the pins again".to_owned(),
            },
        };
        match variant {
            Variant::Lost => line.push_str(", and is told that this failed"),
            Variant::Refused => line.push_str(", which fails"),
            _ => {}
        }
        line
    }
}

/// Objects of a kind that came, and are there.
fn came<'a>(changes: &'a [Change], kind: ObjectKind, keys: &'a Objects) -> impl Iterator<Item = &'a Arc<ObjectKey>> {
    let is_meant = move |(key, is_put): &&Change| *is_put && key.kind == kind && keys.contains_key(key);
    changes.iter().filter(is_meant).map(|(key, _)| key)
}

fn of_kind(keys: &Objects, kind: ObjectKind) -> impl Iterator<Item = (&Arc<ObjectKey>, &Hash)> {
    keys.range::<ObjectKey, _>(ObjectKey::new(kind, "")..).take_while(move |(key, _)| key.kind == kind)
}
