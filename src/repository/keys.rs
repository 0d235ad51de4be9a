//! Key slots: making, unlocking, listing, removing them. Not for: asking a person for a password (see `cli`).

use super::Repository;
use super::keyring::{Keyring, object_name};
use crate::chunk::password::{Cost, argon2id};
use crate::chunk::seal::{open_with, seal_with};
use crate::chunk::secret::{Secret, hash, same};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_KEY_SLOT, MAX_KEY_SLOTS};
use crate::format::key_slot::{Argon2Cost, Description, KeySlot, Secrets, SlotHead};
use crate::id::ObjectName;
use crate::store::{ObjectKey, ObjectKind, Store};
use std::cmp::Reverse;
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

/// The outcome of unlocking.
pub struct Unlocked {
    /// The secrets.
    pub keyring: Keyring,
    /// The slot that opened.
    pub slot: ObjectName,
    /// Slots that are damaged.
    pub warnings: Vec<Error>,
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

fn description_key(keyring: &Keyring) -> Secret {
    Secret::kdf("firn v1 key slot description", &[keyring.metadata_secret().bytes(), &keyring.repository().0])
}

/// The bytes of a new slot that wraps the keyring's secrets. They are opened again before they are returned.
pub fn create_slot(keyring: &Keyring, credentials: &Credentials, cost: Cost, label: &str) -> Result<Vec<u8>> {
    if credentials.password.is_none() && credentials.key_file.is_none() {
        return Err(Error::new(ErrorKind::Input, "A key slot needs a password or a key file"));
    }
    let description = Description {
        label: label.to_owned(),
        created: jiff::Timestamp::now(),
        host: crate::os::hostname(),
        user: crate::os::username(),
        epoch: keyring.newest_epoch(),
    };
    let mut secrets = keyring.secrets().encode()?;
    let mut description = description.encode()?;
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

/// The first of these damaged slots whose secrets still open: its commitment and the seal vouch for them.
fn unlock_damaged(store: &dyn Store, names: &[ObjectName], credentials: &Credentials) -> Option<(ObjectName, Secrets)> {
    names.iter().take(MAX_KEY_SLOTS).find_map(|name| {
        let bytes = store.get(&ObjectKey::new(ObjectKind::Key, name), MAX_KEY_SLOT as u64).ok()?;
        let secrets = KeySlot::decode(&bytes).and_then(|slot| open_secrets(&slot, credentials)).ok()??;
        Some((*name, secrets))
    })
}

fn slot_names(store: &dyn Store) -> Result<Vec<ObjectName>> {
    let mut names = Vec::new();
    store.list(ObjectKind::Key, &mut |object| {
        names.push(ObjectName::parse(&object.name)?);
        Ok(())
    })?;
    names.sort();
    Ok(names)
}

/// The slot with the newest key epoch that opens with the same credentials: a rotation that was cut off leaves the old slot beside
/// the new one. The descriptions tell which slots have newer epochs, so that Argon2id runs for no others.
fn prefer_newer(store: &dyn Store, names: &[ObjectName], credentials: &Credentials, mut found: Unlocked) -> Unlocked {
    let mut newer: Vec<(u16, ObjectName, KeySlot)> = names
        .iter()
        .filter(|name| **name != found.slot)
        .filter_map(|name| Some((*name, read_slot(store, *name).ok()?)))
        .take(MAX_KEY_SLOTS)
        .filter_map(|(name, slot)| Some((open_description(&found.keyring, &slot).ok()?.epoch, name, slot)))
        .filter(|(epoch, ..)| *epoch > found.keyring.newest_epoch())
        .collect();
    newer.sort_by_key(|(epoch, name, _)| (Reverse(*epoch), *name));
    for (_, name, slot) in newer {
        if let Ok(Some(secrets)) = open_secrets(&slot, credentials)
            && secrets.repository == found.keyring.repository()
        {
            found.keyring = Keyring::new(secrets);
            found.slot = name;
            break;
        }
    }
    found
}

/// What a slot says of itself; any key of the repository opens it.
fn open_description(keyring: &Keyring, slot: &KeySlot) -> Result<Description> {
    let mut text = slot.description.clone();
    let length = text.len() - 16;
    let (text, tag) = text.split_at_mut(length);
    let tag: &[u8; 16] = tag.first_chunk().expect("a sealed part ends with its tag");
    open_with(&description_key(keyring), &slot.description_nonce, &slot.head.encode()?, text, tag)?;
    Description::decode(text)
}

/// Tries the slots in the order of their names, at most `MAX_KEY_SLOTS` whole ones: whoever can write to the store must not be
/// able to keep us computing forever. A damaged slot is a warning as long as another one opens; if none does, those are
/// tried whose name does not agree: what is damaged may be the description alone.
pub fn unlock(store: &dyn Store, credentials: &Credentials) -> Result<Unlocked> {
    let names = slot_names(store)?;
    let mut warnings: Vec<Error> = Vec::new();
    let mut damaged = Vec::new();
    let mut tried = 0;
    for name in &names {
        if tried == MAX_KEY_SLOTS {
            break;
        }
        match read_slot(store, *name).and_then(|slot| open_secrets(&slot, credentials)) {
            Ok(Some(secrets)) => {
                let unlocked = Unlocked { keyring: Keyring::new(secrets), slot: *name, warnings };
                return Ok(prefer_newer(store, &names, credentials, unlocked));
            }
            Ok(None) => tried += 1,
            Err(error) => {
                damaged.extend((error.kind() == ErrorKind::Damaged).then_some(*name));
                warnings.push(error);
            }
        }
    }
    if let Some((slot, secrets)) = unlock_damaged(store, &damaged, credentials) {
        return Ok(Unlocked { keyring: Keyring::new(secrets), slot, warnings });
    }
    if let Some(at) = warnings.iter().position(|error| error.kind() == ErrorKind::Unsupported) {
        return Err(warnings.swap_remove(at));
    }
    let left_out = tried == MAX_KEY_SLOTS && names.len() > MAX_KEY_SLOTS;
    match warnings.into_iter().next() {
        _ if left_out => Err(Error::new(
            ErrorKind::WrongKey,
            format!("Wrong password or key: none of the first {MAX_KEY_SLOTS} key slots opens with it"),
        )
        .with_hint("There are more slots than firn makes or tries: somebody added some. Remove those that are not yours from \"keys\".")),
        _ if names.is_empty() => Err(Error::damaged("The repository has no key slot: nothing in it can be opened")
            .with_hint("If you have a copy of its \"keys\" folder, put it back.")),
        Some(error) if tried == 0 => Err(error
            .context("No key slot of the repository can be read")
            .with_hint("If you have a copy of its \"keys\" folder, put it back.")),
        damaged => {
            let error = Error::new(ErrorKind::WrongKey, "Wrong password or key: no key slot opens with it");
            Err(match damaged {
                Some(damage) => error.with_hint(format!("At least one key slot is damaged as well: {}", damage.chain())),
                None => error.with_hint("Check the password, FIRN_PASSWORD_FILE or --password-command, and that this is the right repository."),
            })
        }
    }
}

impl Repository {
    /// All key slots, damaged ones included.
    pub fn key_slots(&self) -> Result<Slots> {
        let mut slots = Vec::new();
        for name in slot_names(self.store())? {
            let info = read_slot(self.store(), name).map(|slot| {
                let description = open_description(self.keyring(), &slot);
                SlotInfo { name, head: slot.head, description }
            });
            slots.push((name, info));
        }
        Ok(slots)
    }

    /// Adds a slot and returns its name.
    ///
    /// Refused if the repository has `MAX_KEY_SLOTS` already: one more might never be tried.
    pub fn add_key(&self, credentials: &Credentials, cost: Cost, label: &str) -> Result<ObjectName> {
        if slot_names(self.store())?.len() >= MAX_KEY_SLOTS {
            return Err(Error::new(
                ErrorKind::Input,
                format!("The repository has {MAX_KEY_SLOTS} key slots, and no more are tried"),
            )
            .with_hint("Remove one that is no longer needed first."));
        }
        let bytes = create_slot(self.keyring(), credentials, cost, label)?;
        let name = object_name(&bytes);
        self.store().put(&ObjectKey::new(ObjectKind::Key, name), &bytes)?;
        Ok(name)
    }

    /// Removes a slot, unless it is the last one that can be read.
    pub fn remove_key(&self, name: ObjectName) -> Result<()> {
        let slots = self.key_slots()?;
        if !slots.iter().any(|(other, _)| *other == name) {
            return Err(Error::new(ErrorKind::NotFound, format!("There is no key slot \"{name}\"")));
        }
        let others: Vec<u16> =
            slots.iter().filter(|(other, _)| *other != name).filter_map(|(_, info)| stated_epoch(info)).collect();
        if others.is_empty() {
            return Err(Error::new(
                ErrorKind::Brake,
                format!("\"{name}\" is the last key slot that can be read; without it the repository is lost"),
            )
            .with_hint("Add another key first."));
        }
        let epoch = slots.iter().filter(|(other, _)| *other == name).find_map(|(_, info)| stated_epoch(info));
        if epoch > others.into_iter().max() {
            return Err(Error::new(
                ErrorKind::Brake,
                format!(
                    "\"{name}\" is the only key slot that holds the newest key epoch; without it newer backups are lost"
                ),
            )
            .with_hint("Use this key to add another one or to rotate the keys first."));
        }
        self.store().delete(&ObjectKey::new(ObjectKind::Key, name))
    }
}

/// The newest key epoch that a readable slot says it holds.
pub(super) fn stated_epoch(info: &Result<SlotInfo>) -> Option<u16> {
    info.as_ref().ok()?.description.as_ref().ok().map(|description| description.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{CacheChoice, OpenOptions};
    use crate::store::MemoryStore;
    use std::sync::Arc;

    fn key_file(bytes: &[u8]) -> Credentials {
        Credentials { password: None, key_file: Some(Zeroizing::new(bytes.to_vec())) }
    }

    const COST: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

    fn open(store: &MemoryStore, credentials: &Credentials) -> Result<Repository> {
        Repository::open(
            Arc::new(store.clone()),
            credentials,
            &OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 },
        )
    }

    #[test]
    fn a_slot_whose_secrets_are_whole_opens() {
        let store = MemoryStore::new();
        Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
        let key = ObjectKey::new(ObjectKind::Key, slot_names(&store).unwrap()[0]);
        let whole = store.get(&key, MAX_KEY_SLOT as u64).unwrap();
        for (at, opens) in [(8, false), (40, false), (70, false), (200, false), (whole.len() - 1, true)] {
            let mut bytes = whole.clone();
            bytes[at] ^= 8;
            store.raw_set(&key, bytes);
            let unlocked = unlock(&store, &key_file(b"0"));
            assert_eq!(unlocked.is_ok(), opens, "{at}");
            match unlocked {
                Ok(unlocked) => assert_eq!(unlocked.warnings.len(), 1),
                // Damage, not a newer firn.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{at}"),
            }
            assert!(unlock(&store, &key_file(b"1")).is_err());
        }
    }

    #[test]
    fn a_damaged_version_is_damage() {
        let store = MemoryStore::new();
        Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
        let key = ObjectKey::new(ObjectKind::Config, 2);
        let whole = store.get(&key, 1 << 20).unwrap();
        let mut bytes = whole.clone();
        bytes[8] = 9;
        store.raw_set(&key, bytes.clone());
        assert_eq!(open(&store, &key_file(b"0")).unwrap().warnings.len(), 1);
        // One that was really made as version 9 has another commitment, and forbids.
        bytes[70] ^= 1;
        store.raw_set(&key, bytes);
        assert_eq!(open(&store, &key_file(b"0")).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn there_are_no_more_slots_than_are_tried() {
        let store = MemoryStore::new();
        Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
        let repository = open(&store, &key_file(b"0")).unwrap();
        for number in 1..MAX_KEY_SLOTS {
            repository.add_key(&key_file(number.to_string().as_bytes()), COST, "").unwrap();
        }
        for number in 0..MAX_KEY_SLOTS {
            assert!(unlock(&store, &key_file(number.to_string().as_bytes())).is_ok(), "{number}");
        }
        assert_eq!(repository.add_key(&key_file(b"64"), COST, "").unwrap_err().kind(), ErrorKind::Input);
        // Whoever can write to the store can add more; they are tried in the order of their names, and then no more.
        let bytes = create_slot(repository.keyring(), &key_file(b"64"), COST, "").unwrap();
        store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&bytes)), bytes);
        let last = *slot_names(&store).unwrap().last().unwrap();
        let opens = |number: usize| unlock(&store, &key_file(number.to_string().as_bytes()));
        let lost: Vec<Error> = (0..=MAX_KEY_SLOTS).filter_map(|number| opens(number).err()).collect();
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].kind(), ErrorKind::WrongKey);
        assert!((0..=MAX_KEY_SLOTS).filter_map(|number| opens(number).ok()).all(|unlocked| unlocked.slot != last));
        assert!(lost[0].hint().unwrap().contains("more slots"));
    }

    #[test]
    fn damaged_slots_do_not_stand_in_the_way() {
        let store = MemoryStore::new();
        Repository::init(&store, &key_file(b"0"), COST, "").unwrap();
        for number in 0..100_u8 {
            store.raw_set(&ObjectKey::new(ObjectKind::Key, object_name(&[number])), vec![number; 700]);
        }
        assert_eq!(unlock(&store, &key_file(b"1")).err().unwrap().kind(), ErrorKind::WrongKey);
        assert!(unlock(&store, &key_file(b"0")).is_ok());
    }
}
