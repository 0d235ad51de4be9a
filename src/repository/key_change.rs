//! Changes of which key slots there are: one at a time, and never such that something can no longer be opened. Not for: what is in a slot
//! (see `keys`), or which secrets a rotation makes (see `rotate`).
//!
//! A listing that was right a moment ago is no ground to remove a slot: two commands that remove each other's key would leave none. So a
//! change begins by putting a temporary slot, which opens with the credentials in use and states beside which slot it stands, and lists
//! the slots again. Of two changes that put theirs before they list, at least one sees the other's, takes its own back, and has changed
//! nothing. The temporary slot stays until all is done: whatever becomes of the others, the credentials of the one at work open a slot.
//! After every further put and delete the slots are listed again. If that is not as it should be, what was removed is put back, and
//! what was put is removed: only a rotation whose new secret writers may use already has to leave it.
//!
//! A temporary slot that a change left when it was cut off stands in the way of the next one until it is old (by the store's clock, and
//! no change goes on for so long by the machine's clock). Then it is removed by the next change, if it holds nothing of its own.

use super::Repository;
use super::keyring::object_name;
use super::keys::{
    Credentials, Holding, SlotInfo, Slots, create_slot, create_slot_beside, holding, open_secrets, read_slot,
    slot_times,
};
use super::mistake::{self, Mistake};
use crate::chunk::password::Cost;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_KEY_SLOT, MAX_KEY_SLOTS};
use crate::format::key_slot::SlotHead;
use crate::id::ObjectName;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A temporary slot that is older, by the store's clock, was left by a change that was cut off.
pub(super) const ABANDONED_AFTER: Duration = Duration::from_secs(5 * 60);
/// A change that has not come to an end by then does not go on.
const LONGEST_CHANGE: Duration = Duration::from_secs(2 * 60);
/// Others that came too late take back what they have put, for which the one at work waits so long.
const GIVING_WAY: Duration = Duration::from_secs(10);
/// Between two listings.
const TICK: Duration = Duration::from_millis(100);

/// What is to be put and removed.
#[derive(Default)]
pub(super) struct Change {
    /// Slots that stand there for as long as the change lasts, the first of them from its first listing on.
    pub(super) temporary: Vec<Vec<u8>>,
    /// Slots to be removed before any is put that is meant to stay.
    pub(super) removed_first: Vec<ObjectName>,
    /// Slots to be put.
    pub(super) added: Vec<Vec<u8>>,
    /// Slots to be removed then.
    pub(super) removed: Vec<ObjectName>,
    /// Writers may use a secret of what was put as soon as it was: it cannot be taken back.
    pub(super) is_binding: bool,
}

/// What a change of passwords did.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The new slots.
    pub added: Vec<ObjectName>,
    /// The slots that the old password opened.
    pub removed: Vec<ObjectName>,
    /// Slots that need a key file which was not given, so that nobody knows whether the old password opens them.
    pub untried: Vec<ObjectName>,
}

/// What a guess at this slot costs.
pub(super) fn cost_of(head: &SlotHead) -> Cost {
    head.password.map_or(Cost::DEFAULT, |cost| Cost { memory: cost.memory_kib, passes: cost.passes, lanes: cost.lanes })
}

/// What a slot with this head needs of the credentials.
fn needed(head: &SlotHead, credentials: &Credentials) -> Credentials {
    Credentials {
        password: credentials.password.clone().filter(|_| head.password.is_some()),
        key_file: credentials.key_file.clone().filter(|_| head.key_file),
    }
}

/// An error: another command is at work on the keys, or was a moment ago.
pub(super) fn in_company() -> Error {
    Error::new(ErrorKind::InUse, "Another process changes the keys at the same time")
        .with_hint("Try again in a moment. If no other process is at work, one was cut off: try again in 5 minutes.")
}

/// The error of reading a slot that was listed or put: that it is gone means company.
pub(super) fn gone_meanwhile(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound { in_company() } else { error }
}

/// Whether another listing may be tried. Not where all orders of steps are: a later listing is one of them.
fn may_wait(begun: Duration) -> bool {
    #[cfg(test)]
    if crate::id::random::seeded::current().is_some() {
        return false;
    }
    crate::os::boot_time().saturating_sub(begun) < GIVING_WAY
}

fn key_of(name: &ObjectName) -> ObjectKey {
    ObjectKey::new(ObjectKind::Key, name)
}

/// A change at work.
struct Turn<'a> {
    repository: &'a Repository,
    /// The machine's time at which it began, which goes on while the machine sleeps.
    begun: Duration,
    expected: BTreeSet<ObjectName>,
    own: Option<ObjectName>,
    /// Temporary slots of others.
    others: Vec<ObjectName>,
}

/// Why slots were not removed.
struct Failure {
    error: Error,
    /// All of them are there.
    are_back: bool,
}

impl Turn<'_> {
    fn put(&mut self, slots: &[Vec<u8>]) -> Result<()> {
        for bytes in slots {
            let name = object_name(bytes);
            self.expected.insert(name);
            self.repository.store().put(&key_of(&name), bytes)?;
            read_slot(self.repository.store(), name).map_err(gone_meanwhile)?;
        }
        Ok(())
    }

    fn delete(&mut self, names: &[ObjectName]) -> Result<()> {
        for name in names {
            self.expected.remove(name);
            self.repository.store().delete(&key_of(name))?;
        }
        Ok(())
    }

    /// Removes slots and lists what is there then. If that fails, all of them are put back.
    fn remove(&mut self, names: &[ObjectName]) -> std::result::Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        // One that cannot be read cannot be put back either; it opens nothing.
        let kept: Vec<_> = names.iter().map(|name| (*name, self.repository.bytes_of(name))).collect();
        self.others.retain(|name| !names.contains(name));
        let removed = self.delete(names).and_then(|()| self.look_patiently());
        removed.map_err(|error| {
            // All of them, also after one that could not be put back.
            let missing = kept.iter().filter(|(name, bytes)| !self.put_back(name, bytes.as_deref()));
            Failure { error, are_back: missing.count() == 0 }
        })
    }

    /// Returns whether the slot is there.
    fn put_back(&self, name: &ObjectName, bytes: Option<&[u8]>) -> bool {
        let key = key_of(name);
        match bytes {
            // One that was not removed yet, or that somebody else has put back, exists.
            Some(bytes) => match self.repository.store().put(&key, bytes) {
                Err(error) if error.kind() != ErrorKind::Exists => false,
                _ => self.repository.bytes_of(name).is_some_and(|found| found == bytes),
            },
            None => self.repository.store().size(&key).is_ok(),
        }
    }

    /// As `look`, for a change that was alone when it began. Whoever came since sees its temporary slot and gives way. Breaking off at
    /// once would leave a rotation half done for nothing.
    fn look_patiently(&self) -> Result<()> {
        let begun = crate::os::boot_time();
        loop {
            match self.look() {
                Err(error) if error.kind() == ErrorKind::InUse && may_wait(begun) => std::thread::sleep(TICK),
                looked => return looked,
            }
        }
    }

    /// Removes what this change has put. Returns whether all of it is gone.
    fn take_back(&mut self, slots: &[Vec<u8>]) -> bool {
        // All of them, also after one that could not be removed.
        let failed = slots.iter().filter(|bytes| self.delete(&[object_name(bytes)]).is_err());
        failed.count() == 0
    }

    /// Lists the slots. An error if they are not those that this change leaves there, or if another one is at work.
    fn look(&self) -> Result<()> {
        if mistake::made(Mistake::KeysNotListedAgain) {
            return Ok(());
        }
        let found = slot_times(self.repository.store())?;
        let own = self.own.and_then(|own| found.get(&own));
        let is_young = |other: &ObjectName| match (found.get(other), own) {
            (Some(other), Some(own)) => own.duration_since(*other).unwrap_or_default() < ABANDONED_AFTER,
            _ => true,
        };
        let is_alone = found.keys().eq(&self.expected) && !self.others.iter().any(is_young);
        if !is_alone {
            return Err(in_company());
        }
        match crate::os::boot_time().saturating_sub(self.begun) > LONGEST_CHANGE {
            // Others may take this one for cut off soon.
            true => Err(Error::new(ErrorKind::Failed, "It took longer than 2 minutes").with_hint("Try again.")),
            false => Ok(()),
        }
    }
}

impl Repository {
    /// Makes a change to slots that were these when it was planned. In company it fails and has changed nothing, unless the company
    /// came late and did not give way: it was cut off, or does not follow the same rules.
    pub(super) fn change_slots(&self, before: &Slots, change: &Change) -> Result<()> {
        let is_temporary = |info: &Result<SlotInfo>| holding(info).is_some_and(|held| held.is_temporary());
        let left_behind = self.left_behind(before, change);
        let mut turn = Turn {
            repository: self,
            begun: crate::os::boot_time(),
            expected: before.iter().map(|(name, _)| *name).collect(),
            own: change.temporary.first().map(|bytes| object_name(bytes)),
            others: before.iter().filter(|(_, info)| is_temporary(info)).map(|(name, _)| *name).collect(),
        };
        // Until slots are put that are meant to stay, nobody uses a secret that only the temporary ones hold.
        let begun = turn.put(&change.temporary).and_then(|()| turn.look());
        let begun = begun.map_err(|error| Failure { error, are_back: true });
        if let Err(Failure { error, are_back }) = begun.and_then(|()| turn.remove(&change.removed_first)) {
            return Err(undone(&mut turn, error, are_back, &change.temporary));
        }
        let put = turn.put(&change.added).and_then(|()| turn.look_patiently());
        let put = put.map_err(|error| Failure { error, are_back: true });
        if let Err(Failure { error, are_back }) = put.and_then(|()| turn.remove(&change.removed)) {
            return Err(match change.is_binding {
                true => bound(error, change),
                false => undone(&mut turn, error, are_back, &[&change.added[..], &change.temporary].concat()),
            });
        }
        let temporary: Vec<ObjectName> = change.temporary.iter().map(|bytes| object_name(bytes)).collect();
        turn.delete(&temporary).and_then(|()| turn.delete(&left_behind)).map_err(|error| {
            error.context("The keys were changed as wanted, but a temporary key slot could not be removed").with_hint(
                "It opens with the same password or key file as the one in use. The next change of keys, in 5 minutes or later, removes it.",
            )
        })
    }

    fn bytes_of(&self, name: &ObjectName) -> Option<Vec<u8>> {
        self.store().get(&key_of(name), MAX_KEY_SLOT as u64).ok()
    }

    /// Temporary slots that a change left which was cut off, and that hold nothing which would be missed.
    fn left_behind(&self, before: &Slots, change: &Change) -> Vec<ObjectName> {
        let stays = |name: &ObjectName| !change.removed.contains(name) && !change.removed_first.contains(name);
        let held: Vec<(ObjectName, Holding)> = before
            .iter()
            .filter_map(|(name, info)| Some((*name, holding(info)?)))
            .filter(|(name, _)| stays(name))
            .collect();
        let is_covered = |temporary: &Holding| held.iter().any(|(_, one)| !one.is_temporary() && one.covers(temporary));
        let is_needless = |temporary: &Holding| match temporary.beside() {
            None => false,
            // Its owner may have nothing else that holds as much.
            Some(name) => match before.iter().find(|(other, _)| *other == name) {
                Some((_, info)) => holding(info).is_some_and(|one| one.covers(temporary)),
                None => is_covered(temporary),
            },
        };
        held.iter().filter(|(_, one)| is_needless(one) && is_covered(one)).map(|(name, _)| *name).collect()
    }

    /// A slot for the credentials in use, for as long as slots are being changed.
    fn stand_in(&self, slots: &Slots) -> Result<Vec<u8>> {
        let info = slots.iter().find(|(name, _)| *name == self.slot()).and_then(|(_, info)| info.as_ref().ok());
        let (credentials, cost) = match info {
            Some(info) => (needed(&info.head, self.credentials()), cost_of(&info.head)),
            None => (self.credentials().clone(), Cost::DEFAULT),
        };
        create_slot_beside(self.keyring(), &credentials, cost, "", Some(self.slot()))
    }

    /// An error if a slot holds secrets that are not known here: a slot made now would not open everything.
    fn check_holds_all(&self, slots: &Slots) -> Result<()> {
        let secrets = self.keyring().secrets();
        let newest = secrets.newest_epoch().unwrap_or(0);
        let is_ahead =
            |held: Holding| !held.is_temporary() && (held.epoch > newest || held.missing_in(&secrets).next().is_some());
        match slots.iter().find(|(_, info)| holding(info).is_some_and(is_ahead)) {
            None => Ok(()),
            Some((name, _)) => Err(Error::new(
                ErrorKind::Brake,
                format!("The key slot \"{name}\" holds secrets that the key in use does not hold, and a new key would lack them; nothing was changed"),
            )
            .with_hint("Use that key, or one that was made since the keys were rotated.")),
        }
    }

    /// The slots, on the point of being changed, when so many are to be added.
    fn slots_to_change(&self, more: usize) -> Result<Slots> {
        self.keyring().renew();
        self.check_keys_are_newest()?;
        let slots = self.fresh_key_slots()?;
        if more > 0 {
            check_room(slots.len() + more)?;
            self.check_holds_all(&slots)?;
        }
        Ok(slots)
    }

    /// Adds a slot and returns its name.
    ///
    /// Refused if the repository has `MAX_KEY_SLOTS` already: one more might never be tried.
    pub fn add_key(&self, credentials: &Credentials, cost: Cost, label: &str) -> Result<ObjectName> {
        let slots = self.slots_to_change(2)?;
        let bytes = create_slot(self.keyring(), credentials, cost, label)?;
        let name = object_name(&bytes);
        let temporary = vec![self.stand_in(&slots)?];
        self.change_slots(&slots, &Change { temporary, added: vec![bytes], ..Change::default() })?;
        Ok(name)
    }

    /// Removes a slot, unless it is the last one that can be read or holds a secret that no other one holds.
    pub fn remove_key(&self, name: ObjectName) -> Result<()> {
        let slots = self.slots_to_change(0)?;
        if !slots.iter().any(|(other, _)| *other == name) {
            return Err(Error::new(ErrorKind::NotFound, format!("There is no key slot \"{name}\"")));
        }
        // What opens with the same credentials and was left behind goes with it.
        let is_beside = |info: &Result<SlotInfo>| holding(info).is_some_and(|held| held.beside() == Some(name));
        let removed: Vec<ObjectName> =
            slots.iter().filter(|(other, info)| *other == name || is_beside(info)).map(|(name, _)| *name).collect();
        check_removal(&slots, name, &removed)?;
        let temporary = vec![self.stand_in(&slots)?];
        self.change_slots(&slots, &Change { temporary, removed, ..Change::default() })
    }

    /// Replaces every slot that the password of the credentials in use opens (with their key file, where one is needed) by one with the
    /// new credentials; without a password, every slot that the key file alone opens. Where a key file was needed and no new one is
    /// given, it is still needed.
    pub fn change_password(&self, new: &Credentials, cost: Cost) -> Result<Replaced> {
        let slots = self.slots_to_change(3)?;
        let own = self.credentials();
        // By whether they need a key file.
        let mut wanted: BTreeMap<bool, (Credentials, String)> = BTreeMap::new();
        let mut replaced = Replaced { added: Vec::new(), removed: Vec::new(), untried: Vec::new() };
        let with = |key_file| Credentials { password: new.password.clone(), key_file };
        for (name, info) in &slots {
            let Ok(info) = info else { continue };
            let needs = (info.head.password.is_some(), info.head.key_file);
            match (own.password.is_some(), own.key_file.is_some(), needs) {
                (true, _, (false, _)) => continue,
                (true, false, (true, true)) | (false, _, (true, true)) => {
                    replaced.untried.push(*name);
                    continue;
                }
                (false, _, (true, false)) => continue,
                _ => {}
            }
            let opened = read_slot(self.store(), *name).and_then(|slot| open_secrets(&slot, own));
            if !opened.is_ok_and(|secrets| secrets.is_some_and(|secrets| secrets.repository == self.id())) {
                continue;
            }
            replaced.removed.push(*name);
            let key_file = new.key_file.clone().or_else(|| own.key_file.clone().filter(|_| info.head.key_file));
            let Some(description) = info.description.as_ref().ok().filter(|one| one.beside.is_none()) else {
                if info.description.is_err() {
                    wanted.entry(key_file.is_some()).or_insert_with(|| (with(key_file), String::new()));
                }
                continue;
            };
            let (_, label) = wanted.entry(key_file.is_some()).or_insert_with(|| (with(key_file), String::new()));
            // Several keys become one, which is known by the label that any of them had.
            if label.is_empty() {
                label.clone_from(&description.label);
            }
        }
        if wanted.is_empty() {
            let what = if own.password.is_some() { "password" } else { "key file alone" };
            let message = format!("The {what} opens no key slot; nothing was changed");
            return Err(
                Error::new(ErrorKind::WrongKey, message).with_hint("\"firn key list\" shows what each key needs.")
            );
        }
        let added = wanted.values().map(|(new, label)| create_slot(self.keyring(), new, cost, label));
        let added: Vec<Vec<u8>> = added.collect::<Result<_>>()?;
        replaced.added = added.iter().map(|bytes| object_name(bytes)).collect();
        let (temporary, removed) = (vec![self.stand_in(&slots)?], replaced.removed.clone());
        self.change_slots(&slots, &Change { temporary, added, removed, ..Change::default() })?;
        Ok(replaced)
    }
}

/// Ends a change in the middle. What was put goes, unless it may have become the only one to hold something.
fn undone(turn: &mut Turn<'_>, error: Error, are_back: bool, put: &[Vec<u8>]) -> Error {
    if are_back && turn.take_back(put) {
        return error.context("The keys stay as they were");
    }
    error
        .context("The keys were changed in part, and that could not be undone")
        .with_hint("\"firn key list\" shows what is there.")
}

/// Ends a rotation in the middle whose new slots have to stay: packs may have been sealed under the secret that only they hold.
fn bound(error: Error, change: &Change) -> Error {
    let told = match change.removed_first.is_empty() {
        true => {
            "The keys were rotated only in part: old and new key slots are there, and each key opens the repository"
        }
        false => {
            "The keys were rotated only in part: the key slots to be removed are gone; of the others, old and new ones are there, and each key opens the repository"
        }
    };
    error
        .context(told)
        .with_hint("Rotate the keys again once nobody else changes them; \"firn key list\" shows what is there.")
}

/// An error if there would be more slots than are tried, temporary ones included.
pub(super) fn check_room(count: usize) -> Result<()> {
    if count <= MAX_KEY_SLOTS {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Input,
        format!("The repository would have {count} key slots for a moment, and no more than {MAX_KEY_SLOTS} are tried"),
    )
    .with_hint("Remove one that is no longer needed first."))
}

fn check_removal(slots: &Slots, name: ObjectName, removed: &[ObjectName]) -> Result<()> {
    let others: Vec<Holding> = slots
        .iter()
        .filter(|(other, _)| !removed.contains(other))
        .filter_map(|(_, info)| holding(info))
        .filter(|held| !held.is_temporary())
        .collect();
    if others.is_empty() {
        return Err(Error::new(
            ErrorKind::Brake,
            format!("\"{name}\" is the last key slot that can be read; without it the repository is lost"),
        )
        .with_hint("Add another key first."));
    }
    let lost = slots.iter().filter(|(other, _)| removed.contains(other)).filter_map(|(_, info)| holding(info));
    for held in lost {
        if !others.iter().any(|other| other.covers(&held)) {
            return Err(Error::new(
                ErrorKind::Brake,
                format!(
                    "No other key slot holds all secrets that \"{name}\" holds; without it newer backups may be lost"
                ),
            )
            .with_hint("Use this key to add another one or to rotate the keys first."));
        }
    }
    Ok(())
}
