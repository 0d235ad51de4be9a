//! Key slots: making, opening and listing them. Not for: which of them open (see `unlock`), changing which there are (see `key_change`),
//! or asking a person for a password (see `cli`).

use super::Repository;
use super::keyring::{Keyring, object_name};
use super::mistake::{self, Mistake};
use crate::chunk::password::{Cost, argon2id};
use crate::chunk::seal::{open_with, seal_with};
use crate::chunk::secret::{Secret, hash, same};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_KEY_SLOT;
use crate::format::key_slot::{Argon2Cost, Description, KeySlot, Secrets, SlotHead};
use crate::id::{ObjectName, RepositoryId, to_hex};
use crate::store::{Listed, ObjectKey, ObjectKind, Store};
use std::collections::BTreeMap;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// A slot and what is known about it.
pub type Slots = Vec<(ObjectName, Result<SlotInfo>)>;

/// What a person proves to be allowed with. At least one is given.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The password's bytes.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// The bytes of the key file.
    pub key_file: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials(password: {}, key file: {})", self.password.is_some(), self.key_file.is_some())
    }
}

/// A slot as `key list` shows it.
#[derive(Debug)]
pub struct SlotInfo {
    /// The slot.
    pub name: ObjectName,
    /// What it needs.
    pub head: SlotHead,
    /// Label, time, host, user; an error if the slot is damaged.
    pub description: Result<Description>,
}

/// Fresh, independent secrets for a new repository.
pub fn fresh_secrets() -> Result<Secrets> {
    let random = || Secret::random().map(|secret| *secret.bytes());
    Ok(Secrets {
        repository: crate::id::RepositoryId::random()?,
        chunk_id: random()?,
        chunker: random()?,
        metadata: random()?,
        dedup_index: random()?,
        signing_seed: random()?,
        content: vec![(0, random()?)],
    })
}

/// The key of a slot and its commitment, from what the person has. Runs Argon2id: 64 MiB and some tenths of a second by default.
fn slot_key(head: &SlotHead, credentials: &Credentials) -> Result<([u8; 32], Secret)> {
    let missing = |what: &str| Error::new(ErrorKind::WrongKey, format!("This key slot needs a {what}"));
    let password = match head.password {
        None => Secret::from_bytes(&[0; 32]),
        Some(cost) => {
            let password = credentials.password.as_ref().ok_or_else(|| missing("password"))?;
            argon2id(password, &head.salt, Cost { memory: cost.memory_kib, passes: cost.passes, lanes: cost.lanes })?
        }
    };
    let key_file = match head.key_file {
        false => [0; 32],
        true => hash(credentials.key_file.as_ref().ok_or_else(|| missing("key file"))?),
    };
    let key_file = Zeroizing::new(key_file);
    let material = head.key_material();
    let parts: [&[u8]; 3] = [password.bytes(), key_file.as_slice(), &material];
    let commitment = Secret::kdf("firn v1 key slot commitment", &parts);
    Ok((*commitment.bytes(), Secret::kdf("firn v1 key slot", &parts)))
}

/// The oldest secrets are not stated where there is no room for all of them.
fn encode_description(mut description: Description) -> Result<Vec<u8>> {
    loop {
        match description.encode() {
            Err(_) if !description.secrets.is_empty() => drop(description.secrets.remove(0)),
            encoded => return encoded,
        }
    }
}

/// The time, which is always the same where random numbers come again.
pub(super) fn now() -> jiff::Timestamp {
    #[cfg(test)]
    if crate::id::random::seeded::current().is_some() {
        return jiff::Timestamp::UNIX_EPOCH;
    }
    jiff::Timestamp::now()
}

fn description_key(keyring: &Keyring) -> Secret {
    Secret::kdf("firn v1 key slot description", &[keyring.metadata_secret().bytes(), &keyring.repository().0])
}

/// The id of a content secret, for descriptions: it tells secrets apart and says nothing else about them.
pub(super) fn secret_id(repository: &RepositoryId, (epoch, secret): &(u16, [u8; 32])) -> String {
    let id = Secret::kdf("firn v1 content secret id", &[secret, &repository.0, &epoch.to_le_bytes()]);
    format!("{epoch}:{}", to_hex(&id.bytes()[..4]))
}

/// What a slot says that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// The newest epoch.
    pub(super) epoch: u16,
    /// The secrets, by epoch and id; empty in slots of the first versions.
    secrets: Vec<(u16, String)>,
    beside: Option<ObjectName>,
}

impl Holding {
    pub(super) fn of(description: &Description) -> Holding {
        let secret = |text: &String| Some((text.split_once(':')?.0.parse().ok()?, text.clone()));
        Holding {
            epoch: description.epoch,
            secrets: description.secrets.iter().filter_map(secret).collect(),
            beside: description.beside.as_ref().and_then(|name| ObjectName::parse(name).ok()),
        }
    }

    /// Whether the slot is there for a change of slots only.
    pub(super) fn is_temporary(&self) -> bool {
        self.beside.is_some()
    }

    /// The slot beside which a temporary one stands.
    pub(super) fn beside(&self) -> Option<ObjectName> {
        self.beside
    }

    /// Whether the slot may hold a secret that is not among these.
    pub(super) fn may_add_to(&self, secrets: &Secrets) -> bool {
        match self.secrets[..] {
            // All slots hold the first one.
            [] => self.epoch > 0,
            _ => self.missing_in(secrets).next().is_some(),
        }
    }

    /// The epochs of secrets that are not among these, as far as the slot states its secrets.
    pub(super) fn missing_in(&self, secrets: &Secrets) -> impl Iterator<Item = u16> {
        let known: Vec<String> = secrets.content.iter().map(|secret| secret_id(&secrets.repository, secret)).collect();
        self.secrets.iter().filter(move |(_, id)| !known.contains(id)).map(|(epoch, _)| *epoch)
    }

    /// The newest epoch of a secret that is among these and in the slot.
    pub(super) fn newest_of(&self, secrets: &Secrets) -> Option<u16> {
        let is_held = |secret: &&(u16, [u8; 32])| match self.secrets[..] {
            [] => secret.0 == self.epoch,
            _ => self.secrets.iter().any(|(_, id)| *id == secret_id(&secrets.repository, secret)),
        };
        secrets.content.iter().rev().find(is_held).map(|(epoch, _)| *epoch)
    }

    /// Whether the slot holds all that another one does, as far as it can be told.
    pub(super) fn covers(&self, other: &Holding) -> bool {
        let oldest = self.secrets.first().map_or(0, |(epoch, _)| *epoch);
        let holds = |one: &(u16, String)| one.0 < oldest || self.secrets.contains(one);
        self.epoch >= other.epoch && (self.secrets.is_empty() || other.secrets.iter().all(holds))
    }
}

/// The bytes of a new slot that wraps the keyring's secrets.
pub fn create_slot(keyring: &Keyring, credentials: &Credentials, cost: Cost, label: &str) -> Result<Vec<u8>> {
    create_slot_beside(keyring, credentials, cost, label, None)
}

/// The same, for a slot that stands beside another one only while slots are being changed, if one is named. The bytes are opened again
/// before they are returned.
pub(super) fn create_slot_beside(
    keyring: &Keyring,
    credentials: &Credentials,
    cost: Cost,
    label: &str,
    beside: Option<ObjectName>,
) -> Result<Vec<u8>> {
    if credentials.password.is_none() && credentials.key_file.is_none() {
        return Err(Error::new(ErrorKind::Input, "A key slot needs a password or a key file"));
    }
    let held = keyring.secrets();
    let description = Description {
        label: label.to_owned(),
        created: now(),
        host: crate::os::hostname(),
        user: crate::os::username(),
        epoch: held.newest_epoch().unwrap_or(0),
        secrets: held.content.iter().map(|secret| secret_id(&held.repository, secret)).collect(),
        beside: beside.map(|name| name.to_string()),
    };
    let mut secrets = held.encode()?;
    let mut description = encode_description(description)?;
    let password = credentials.password.is_some().then_some(Argon2Cost {
        memory_kib: cost.memory,
        passes: cost.passes,
        lanes: cost.lanes,
    });
    let mut head = SlotHead {
        password,
        key_file: credentials.key_file.is_some(),
        secrets_len: secrets.len() as u16,
        description_len: description.len() as u16,
        salt: *Secret::random()?.bytes(),
        commitment: [0; 32],
    };
    let (commitment, key) = slot_key(&head, credentials)?;
    head.commitment = commitment;
    let associated = head.encode()?;
    let nonce = || Secret::random().map(|random| *random.bytes().first_chunk::<24>().expect("a secret has 32 bytes"));
    let (secrets_nonce, description_nonce) = (nonce()?, nonce()?);
    let tag = seal_with(&key, &secrets_nonce, &associated, &mut secrets)?;
    let mut sealed_secrets = secrets.to_vec();
    sealed_secrets.extend_from_slice(&tag);
    let tag = seal_with(&description_key(keyring), &description_nonce, &associated, &mut description)?;
    description.extend_from_slice(&tag);
    let slot = KeySlot { head, secrets_nonce, secrets: sealed_secrets, description_nonce, description };
    let bytes = slot.encode()?;
    // A slot that does not open would lock its owner out for good.
    let again = KeySlot::decode(&bytes)?;
    if open_secrets(&again, credentials)?.is_none_or(|found| found.repository != keyring.repository()) {
        return Err(Error::new(ErrorKind::Failed, "A new key slot did not open again before it was stored"));
    }
    Ok(bytes)
}

/// The secrets of a slot; `None` if the credentials are not its.
pub(super) fn open_secrets(slot: &KeySlot, credentials: &Credentials) -> Result<Option<Secrets>> {
    let fits = (slot.head.password.is_none() || credentials.password.is_some())
        && (!slot.head.key_file || credentials.key_file.is_some());
    if !fits {
        return Ok(None);
    }
    let (commitment, key) = slot_key(&slot.head, credentials)?;
    if !same(&commitment, &slot.head.commitment) {
        return Ok(None);
    }
    let mut text = Zeroizing::new(slot.secrets.clone());
    let length = text.len() - 16;
    let (text, tag) = text.split_at_mut(length);
    let tag: &[u8; 16] = tag.first_chunk().expect("a sealed part ends with its tag");
    open_with(&key, &slot.secrets_nonce, &slot.head.encode()?, text, tag)?;
    Secrets::decode(text).map(Some)
}

pub(super) fn read_slot(store: &dyn Store, name: ObjectName) -> Result<KeySlot> {
    let key = ObjectKey::new(ObjectKind::Key, name);
    let bytes = store.get(&key, MAX_KEY_SLOT as u64)?;
    // Before its version is looked at: a damaged slot is not one of a newer firn.
    if object_name(&bytes) != name {
        return Err(Error::damaged(format!("The key slot \"{key}\" does not have the bytes that its name promises")));
    }
    KeySlot::decode(&bytes).map_err(|error| error.context(format!("The key slot \"{key}\" is damaged")))
}

/// The name of every slot, sorted, as a listing shows them that may be old: enough to try credentials.
pub(super) fn slot_names(store: &dyn Store) -> Result<Vec<ObjectName>> {
    let mut names = Vec::new();
    store.list(ObjectKind::Key, &mut |object| {
        names.push(ObjectName::parse(&object.name)?);
        Ok(())
    })?;
    names.sort();
    Ok(names)
}

/// When each slot was stored, by the store's clock. None that is there is missing.
pub(super) fn slot_times(store: &dyn Store) -> Result<BTreeMap<ObjectName, SystemTime>> {
    let mut found = BTreeMap::new();
    let mut take = |object: Listed| {
        found.insert(ObjectName::parse(&object.name)?, object.stored);
        Ok(())
    };
    if mistake::made(Mistake::StaleListings) {
        store.list(ObjectKind::Key, &mut take)?;
    } else {
        store.list_fresh(ObjectKind::Key, &mut take)?;
    }
    Ok(found)
}

/// The name of every slot, sorted: of those that there are now, unless the store cannot tell because nothing can be written to it.
pub(super) fn fresh_slot_names(store: &dyn Store) -> Result<Vec<ObjectName>> {
    match slot_times(store) {
        Ok(found) => Ok(found.into_keys().collect()),
        Err(_) => slot_names(store),
    }
}

/// What a slot says of itself; any key of the repository opens it.
pub(super) fn open_description(keyring: &Keyring, slot: &KeySlot) -> Result<Description> {
    let mut text = slot.description.clone();
    let length = text.len() - 16;
    let (text, tag) = text.split_at_mut(length);
    let tag: &[u8; 16] = tag.first_chunk().expect("a sealed part ends with its tag");
    open_with(&description_key(keyring), &slot.description_nonce, &slot.head.encode()?, text, tag)?;
    Description::decode(text)
}

impl Repository {
    /// All key slots, damaged ones included, as a listing shows them that may be old.
    pub fn key_slots(&self) -> Result<Slots> {
        self.slots_of(slot_names(self.store())?)
    }

    /// All key slots that there are now.
    pub(super) fn fresh_key_slots(&self) -> Result<Slots> {
        self.slots_of(slot_times(self.store())?.into_keys())
    }

    fn slots_of(&self, names: impl IntoIterator<Item = ObjectName>) -> Result<Slots> {
        let mut slots = Vec::new();
        for name in names {
            let info = read_slot(self.store(), name).map(|slot| {
                let description = open_description(self.keyring(), &slot);
                SlotInfo { name, head: slot.head, description }
            });
            // One that went since it was listed is none.
            if !info.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                slots.push((name, info));
            }
        }
        Ok(slots)
    }
}

/// What a slot states that it holds; `None` if it cannot be read.
pub(super) fn holding(info: &Result<SlotInfo>) -> Option<Holding> {
    info.as_ref().ok()?.description.as_ref().ok().map(Holding::of)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
