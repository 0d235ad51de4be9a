//! A new key epoch: a fresh secret for the data packs of the future, in new key slots that take the place of the old ones. Not for:
//! writing older packs again under it (see `prune`), or asking for passwords (see `cli`).
//!
//! New slots are durable before anything is removed. Cut off in between, old and new slots are there side by side, each opens, and
//! whoever has the credentials of both gets the newer one (see `keys::unlock`); the next rotation removes what is left over. Before
//! anything is removed the slots are listed once more: a slot that somebody else put meanwhile may hold another secret
//! under the same epoch, so then the new slots go and the old ones stay.
//!
//! Argon2id runs once for each slot and password that is tried, and twice for each slot that is made.

use super::Repository;
use super::keyring::{Keyring, object_name};
use super::keys::{Credentials, Slots, create_slot, open_secrets, read_slot, stated_epoch};
use crate::chunk::password::Cost;
use crate::chunk::secret::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_EPOCHS, MAX_KEY_SLOTS};
use crate::format::key_slot::{Secrets, SlotHead};
use crate::id::ObjectName;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// A password or key file; those that are not the caller's own have a name for messages.
#[derive(Clone)]
struct Item {
    bytes: Zeroizing<Vec<u8>>,
    name: Option<String>,
}

/// Passwords and key files that open slots, in any combination that a slot may need.
#[derive(Clone)]
pub struct Keychain {
    passwords: Vec<Item>,
    key_files: Vec<Item>,
}

/// Which password and which key file of a keychain, by number.
type Choice = (Option<usize>, Option<usize>);

impl Keychain {
    /// What opened the repository.
    pub fn new(own: &Credentials) -> Keychain {
        let items = |bytes: &Option<Zeroizing<Vec<u8>>>| {
            bytes.iter().map(|bytes| Item { bytes: bytes.clone(), name: None }).collect()
        };
        Keychain { passwords: items(&own.password), key_files: items(&own.key_file) }
    }

    /// Adds a password of another slot, with a name for messages.
    pub fn add_password(&mut self, bytes: Zeroizing<Vec<u8>>, name: String) {
        self.passwords.push(Item { bytes, name: Some(name) });
    }

    /// Adds a key file of another slot, with a name for messages.
    pub fn add_key_file(&mut self, bytes: Zeroizing<Vec<u8>>, name: String) {
        self.key_files.push(Item { bytes, name: Some(name) });
    }

    /// All ways to open a slot with this head.
    fn choices(&self, head: &SlotHead) -> Vec<Choice> {
        let some = |needed: bool, count: usize| -> Vec<Option<usize>> {
            if needed { (0..count).map(Some).collect() } else { vec![None] }
        };
        let key_files = some(head.key_file, self.key_files.len());
        let passwords = some(head.password.is_some(), self.passwords.len());
        passwords.iter().flat_map(|password| key_files.iter().map(|file| (*password, *file))).collect()
    }

    fn credentials(&self, (password, key_file): Choice) -> Credentials {
        Credentials {
            password: password.map(|number| self.passwords[number].bytes.clone()),
            key_file: key_file.map(|number| self.key_files[number].bytes.clone()),
        }
    }

    /// The name of something that none of these opens a slot with.
    fn useless(&self, used: &[Mine]) -> Option<&str> {
        let password = |number: &usize| used.iter().all(|slot| slot.choice.0 != Some(*number));
        let key_file = |number: &usize| used.iter().all(|slot| slot.choice.1 != Some(*number));
        let passwords = (0..self.passwords.len()).filter(password).map(|number| &self.passwords[number]);
        let key_files = (0..self.key_files.len()).filter(key_file).map(|number| &self.key_files[number]);
        // One's own may be more than the slot in use needs.
        passwords.chain(key_files).find_map(|item| item.name.as_deref())
    }
}

/// What a rotation did.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The new epoch.
    pub epoch: u16,
    /// The new slots.
    pub added: Vec<ObjectName>,
    /// The slots that are no more.
    pub removed: Vec<ObjectName>,
}

/// A slot that opens, and with what.
struct Mine {
    name: ObjectName,
    choice: Choice,
    label: String,
    cost: Cost,
    secrets: Secrets,
}

impl Repository {
    /// Makes a new key epoch. Every slot that opens with something of the keychain (the one in use must) is replaced by one with the
    /// same label, needs and cost; with any others it is refused, or they are removed if `remove_others` says so.
    ///
    /// This repository goes on with the secrets that it was opened with: open it again to write under the new epoch.
    pub fn rotate(&self, keychain: &Keychain, remove_others: bool) -> Result<Rotated> {
        self.check_writable()?;
        self.reload_index(&crate::progress::Silent)?;
        self.check_epochs()?;
        let slots = self.key_slots()?;
        let (mine, others) = self.sort_out(keychain, &slots)?;
        if !others.is_empty() && !remove_others {
            return Err(other_keys(&slots, &others));
        }
        let secrets = self.next_secrets(&slots, &mine)?;
        let epoch = secrets.newest_epoch().unwrap_or(0);
        let new = new_slots(&Keyring::new(secrets), keychain, &mine)?;
        if slots.len() + new.len() > MAX_KEY_SLOTS {
            let message = format!(
                "The repository would have more than {MAX_KEY_SLOTS} key slots meanwhile, and no more are tried"
            );
            return Err(Error::new(ErrorKind::Input, message).with_hint("Remove one that is no longer needed first."));
        }
        let mut added = Vec::new();
        for bytes in &new {
            let name = object_name(bytes);
            self.store().put(&ObjectKey::new(ObjectKind::Key, name), bytes)?;
            added.push(name);
        }
        self.refuse_company(&slots, &added)?;
        let removed: Vec<ObjectName> = mine.iter().map(|slot| slot.name).chain(others).collect();
        for name in &removed {
            self.store().delete(&ObjectKey::new(ObjectKind::Key, name))?;
        }
        Ok(Rotated { epoch, added, removed })
    }

    /// The slots that something of the keychain opens, and the names of all others. Everything in the keychain must open one.
    fn sort_out(&self, keychain: &Keychain, slots: &Slots) -> Result<(Vec<Mine>, Vec<ObjectName>)> {
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for (name, info) in slots {
            let mut found = None;
            if let Ok(info) = info {
                let slot = read_slot(self.store(), *name)?;
                for choice in keychain.choices(&info.head) {
                    let Ok(Some(secrets)) = open_secrets(&slot, &keychain.credentials(choice)) else { continue };
                    let label =
                        info.description.as_ref().map_or(String::new(), |description| description.label.clone());
                    if secrets.repository == self.id() {
                        found = Some(Mine { name: *name, choice, label, cost: cost_of(&info.head), secrets });
                        break;
                    }
                }
            }
            match found {
                Some(slot) => mine.push(slot),
                None => others.push(*name),
            }
        }
        if !mine.iter().any(|slot| slot.name == self.slot()) {
            let message = format!("The key slot \"{}\", which opened the repository, is damaged", self.slot());
            return Err(Error::damaged(message).with_hint("Add another key with \"firn key add\" and use that one."));
        }
        if let Some(name) = keychain.useless(&mine) {
            return Err(Error::new(ErrorKind::WrongKey, format!("{name} opens no key slot; nothing was changed")));
        }
        Ok((mine, others))
    }

    /// The secrets with one epoch more.
    fn next_secrets(&self, slots: &Slots, mine: &[Mine]) -> Result<Secrets> {
        let mut secrets = self.keyring().secrets().clone();
        for slot in mine {
            for (epoch, secret) in &slot.secrets.content {
                match secrets.content_secret(*epoch) {
                    Some(known) if known == secret => {}
                    Some(_) => {
                        let message =
                            format!("Two key slots hold different secrets for key epoch {epoch}; nothing was changed");
                        return Err(Error::new(ErrorKind::Brake, message)
                            .with_hint("Two rotations may have run at the same time. Run \"firn check --read-data\" with each key."));
                    }
                    None => {
                        let at = secrets.content.partition_point(|(other, _)| other < epoch);
                        secrets.content.insert(at, (*epoch, *secret));
                    }
                }
            }
        }
        let newest = secrets.newest_epoch().unwrap_or(0);
        // Packs may be sealed under it this moment.
        if let Some((name, _)) = slots.iter().find(|(_, info)| stated_epoch(info) > Some(newest)) {
            let message = format!(
                "The key slot \"{name}\" holds a newer key epoch than any key that was given; nothing was changed"
            );
            return Err(Error::new(ErrorKind::Brake, message).with_hint("Use that key to rotate the keys."));
        }
        let (Some(epoch), true) = (newest.checked_add(1), secrets.content.len() < MAX_EPOCHS) else {
            let message =
                format!("The keys were rotated {} times already, and a key slot has no room for more", MAX_EPOCHS - 1);
            return Err(Error::new(ErrorKind::Input, message).with_hint("Start a new repository."));
        };
        secrets.content.push((epoch, *Secret::random()?.bytes()));
        Ok(secrets)
    }

    /// Takes the new slots back if they cannot be read, or if others came at the same time.
    fn refuse_company(&self, before: &Slots, added: &[ObjectName]) -> Result<()> {
        let look = || -> Result<()> {
            added.iter().try_for_each(|name| read_slot(self.store(), *name).map(drop))?;
            let is_known = |name: &ObjectName| added.contains(name) || before.iter().any(|(other, _)| other == name);
            match self.key_slots()?.iter().map(|(name, _)| *name).find(|name| !is_known(name)) {
                None => Ok(()),
                Some(name) => {
                    let message = format!("Somebody else added the key slot \"{name}\" just now; nothing was changed");
                    Err(Error::new(ErrorKind::Brake, message)
                        .with_hint("Rotate the keys again once nobody else changes them."))
                }
            }
        };
        look().inspect_err(|_| {
            // Unless the old one is gone, too.
            let is_there = self.store().size(&ObjectKey::new(ObjectKind::Key, self.slot())).is_ok();
            for name in added.iter().filter(|_| is_there) {
                drop(self.store().delete(&ObjectKey::new(ObjectKind::Key, name)));
            }
        })
    }
}

/// What a guess at this slot costs.
fn cost_of(head: &SlotHead) -> Cost {
    head.password.map_or(Cost::DEFAULT, |cost| Cost { memory: cost.memory_kib, passes: cost.passes, lanes: cost.lanes })
}

/// One new slot for each way in which the old ones open.
fn new_slots(keyring: &Keyring, keychain: &Keychain, mine: &[Mine]) -> Result<Vec<Vec<u8>>> {
    let mut done = BTreeSet::new();
    let mut new = Vec::new();
    for slot in mine {
        if done.insert(slot.choice) {
            new.push(create_slot(keyring, &keychain.credentials(slot.choice), slot.cost, &slot.label)?);
        }
    }
    Ok(new)
}

fn other_keys(slots: &Slots, others: &[ObjectName]) -> Error {
    let named = slots.iter().filter(|(name, _)| others.contains(name)).map(|(name, info)| {
        let label =
            info.as_ref().ok().and_then(|info| info.description.as_ref().ok().map(|found| found.label.as_str()));
        match label {
            None => format!("{} (damaged)", name.short()),
            Some("") => name.short(),
            Some(label) => format!("{} \"{label}\"", name.short()),
        }
    });
    let list = named.collect::<Vec<_>>().join(", ");
    Error::new(ErrorKind::Brake, format!("Other keys open the repository and would not get the new secret: {list}; nothing was changed"))
        .with_hint("Name their passwords and key files with --other-password-file and --other-key-file, or give --remove-other-keys to remove them.")
}

#[cfg(test)]
#[path = "rotate_tests.rs"]
mod tests;
