//! A new key epoch: a fresh secret for the data packs of the future, in new key slots that take the place of the old ones. Not for:
//! writing older packs again under it (see `prune`), or asking for passwords (see `cli`).
//!
//! The new secret comes in two steps. First it is put in temporary slots, one for each password or key file that is kept: whoever has
//! one of these can then read what is sealed under it, but no writer seals under it yet (see `unlock`), so that the slots can be taken
//! back if somebody else changes keys at the same time (see `key_change`), as slots of keys that are not kept are put back. Only when
//! these are gone and nobody came meanwhile, follow the slots that are meant to stay; then the old ones go. Cut off in between, each key that is left opens everything, and
//! the next rotation takes along the secrets of all slots that it opens.
//!
//! Argon2id runs once for each slot and password that is tried, and four times for each slot that is replaced.

use super::Repository;
use super::key_change::{Change, check_room, cost_of, gone_meanwhile, in_company};
use super::keyring::{Keyring, object_name};
use super::keys::{Credentials, Slots, create_slot, create_slot_beside, holding, open_secrets, read_slot};
use crate::chunk::password::Cost;
use crate::chunk::secret::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_EPOCHS;
use crate::format::key_slot::{Secrets, SlotHead};
use crate::id::ObjectName;
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
        self.keyring().renew();
        let slots = self.fresh_key_slots()?;
        if !slots.iter().any(|(name, _)| *name == self.slot()) {
            // Replaced since it opened the repository.
            return Err(in_company());
        }
        let (mine, others) = self.sort_out(keychain, &slots)?;
        if !others.is_empty() && !remove_others {
            return Err(other_keys(&slots, &others));
        }
        let secrets = self.next_secrets(&slots, &mine)?;
        let epoch = secrets.newest_epoch().unwrap_or(0);
        let keyring = Keyring::new(secrets);
        let temporary = new_slots(&keyring, keychain, &mine, true)?;
        let added = new_slots(&keyring, keychain, &mine, false)?;
        check_room(slots.len() + temporary.len() + added.len())?;
        let names = added.iter().map(|bytes| object_name(bytes)).collect();
        let old: Vec<ObjectName> = mine.iter().map(|slot| slot.name).collect();
        let removed = old.iter().chain(&others).copied().collect();
        let change = Change { temporary, removed_first: others, added, removed: old, is_binding: true };
        self.change_slots(&slots, &change)?;
        self.note_epoch(&keyring);
        Ok(Rotated { epoch, added: names, removed })
    }

    /// The slots that something of the keychain opens, and the names of all others. Everything in the keychain must open one.
    fn sort_out(&self, keychain: &Keychain, slots: &Slots) -> Result<(Vec<Mine>, Vec<ObjectName>)> {
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for (name, info) in slots {
            let mut found = None;
            if let Ok(info) = info {
                let slot = read_slot(self.store(), *name).map_err(gone_meanwhile)?;
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

    /// All secrets that the slots hold, and one epoch more.
    fn next_secrets(&self, slots: &Slots, mine: &[Mine]) -> Result<Secrets> {
        let mut secrets = Secrets::clone(&self.keyring().secrets());
        for slot in mine {
            secrets.merge_content(&slot.secrets);
        }
        let newest = secrets.newest_epoch().unwrap_or(0);
        // Packs may be sealed under what only that slot holds.
        let is_ahead =
            |info| holding(info).is_some_and(|held| held.epoch > newest || held.missing_in(&secrets).next().is_some());
        if let Some((name, _)) = slots.iter().find(|(_, info)| is_ahead(info)) {
            let message = format!(
                "The key slot \"{name}\" holds a secret of a key epoch that no key holds which was given; nothing was changed"
            );
            return Err(Error::new(ErrorKind::Brake, message).with_hint("Use that key to rotate the keys."));
        }
        // One that is lost is not used again: its packs are not those of the new one.
        let newest = newest.max(self.newest_epoch_seen());
        let (Some(epoch), true) = (newest.checked_add(1), secrets.content.len() < MAX_EPOCHS) else {
            let message =
                format!("The keys were rotated {} times already, and a key slot has no room for more", MAX_EPOCHS - 1);
            return Err(Error::new(ErrorKind::Input, message).with_hint("Start a new repository."));
        };
        secrets.content.push((epoch, *Secret::random()?.bytes()));
        Ok(secrets)
    }
}

/// One new slot for each way in which the old ones open: to stay, or to stand beside the old one while they are replaced.
fn new_slots(keyring: &Keyring, keychain: &Keychain, mine: &[Mine], is_temporary: bool) -> Result<Vec<Vec<u8>>> {
    let mut done = BTreeSet::new();
    let mut new = Vec::new();
    for slot in mine {
        if done.insert(slot.choice) {
            let (credentials, label) = (keychain.credentials(slot.choice), &slot.label);
            new.push(match is_temporary {
                true => create_slot_beside(keyring, &credentials, slot.cost, label, Some(slot.name))?,
                false => create_slot(keyring, &credentials, slot.cost, label)?,
            });
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
