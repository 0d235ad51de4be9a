//! The layout of key slots and of what is sealed in them. Not for: deriving keys, sealing, or drawing secrets.

use crate::error::Result;
use crate::format::bounds::{MAX_DESCRIPTION, MAX_EPOCHS, MAX_KEY_SLOT, MAX_SECRETS};
use crate::format::bytes::{Put, Reader, unfit};
use crate::format::frame::{NONCE_LEN, TAG_LEN};
use crate::format::header::{Kind, MAGIC, VERSION, read_start};
use crate::format::json::rfc3339;
use crate::id::RepositoryId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of the start of a slot: all that stands before the nonce of the secrets.
pub const SLOT_HEAD_LEN: usize = 96;
/// The plaintext of the secrets is padded to a multiple of this.
const SECRETS_STEP: usize = 512;
/// The plaintext of the description is padded to a multiple of this.
const DESCRIPTION_STEP: usize = 256;

/// What Argon2id is asked to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB: 8 x `lanes` to 4,194,304 (4 GiB).
    pub memory_kib: u32,
    /// Passes over the memory: 1 to 20.
    pub passes: u32,
    /// Lanes: 1 to 64.
    pub lanes: u32,
}

impl Argon2Cost {
    /// Whether the cost is within the bounds of the format.
    pub fn is_valid(&self) -> bool {
        (1..=64).contains(&self.lanes)
            && (8 * self.lanes..=4 << 20).contains(&self.memory_kib)
            && (1..=20).contains(&self.passes)
    }
}

/// The start of a key slot. It is the associated data of both sealed parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHead {
    /// A password is needed, at this cost.
    pub password: Option<Argon2Cost>,
    /// A key file is needed.
    pub key_file: bool,
    /// Length of the secrets' ciphertext without tag, in bytes.
    pub secrets_len: u16,
    /// Length of the description's ciphertext without tag, in bytes.
    pub description_len: u16,
    /// Random.
    pub salt: [u8; 32],
    /// Tells the right key from wrong ones.
    pub commitment: [u8; 32],
}

impl SlotHead {
    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.password.is_none() && !self.key_file {
            return Err("it needs neither password nor key file");
        }
        if self.password.is_some_and(|cost| !cost.is_valid()) {
            return Err("the cost of the password is out of bounds");
        }
        let good =
            |len: u16, step: usize, max: usize| len > 0 && usize::from(len).is_multiple_of(step) && len as usize <= max;
        if !good(self.secrets_len, SECRETS_STEP, MAX_SECRETS)
            || !good(self.description_len, DESCRIPTION_STEP, MAX_DESCRIPTION)
        {
            return Err("the length of a sealed part is out of bounds");
        }
        Ok(())
    }

    /// The bytes as stored. Fails if a bound is broken.
    pub fn encode(&self) -> Result<[u8; SLOT_HEAD_LEN]> {
        self.check().map_err(|why| unfit("key slot", why))?;
        let mut bytes = [0; SLOT_HEAD_LEN];
        bytes[..64].copy_from_slice(&self.key_material());
        bytes[64..].copy_from_slice(&self.commitment);
        Ok(bytes)
    }

    /// The first 64 bytes, which go into the slot's key.
    pub fn key_material(&self) -> [u8; 64] {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u8(Kind::KeySlot as u8);
        bytes.put_u8(u8::from(self.password.is_some()) | u8::from(self.key_file) << 1);
        bytes.put_u8(0);
        let cost = self.password.unwrap_or(Argon2Cost { memory_kib: 0, passes: 0, lanes: 0 });
        bytes.put_u32(cost.memory_kib);
        bytes.put_u32(cost.passes);
        bytes.put_u32(cost.lanes);
        bytes.put_u16(self.secrets_len);
        bytes.put_u16(self.description_len);
        bytes.put_u32(0);
        bytes.extend_from_slice(&self.salt);
        bytes.try_into().expect("the fields have 64 bytes together")
    }

    /// Reads the start of a slot. `Unsupported` for a higher major version. The cost is within bounds afterwards.
    pub fn decode(bytes: &[u8]) -> Result<SlotHead> {
        let mut reader = Reader::new("key slot", bytes);
        if read_start(&mut reader)? != Kind::KeySlot {
            return Err(reader.damaged_at(9, "it is another kind of object"));
        }
        let needs = reader.u8()?;
        if needs > 3 || reader.u8()? != 0 {
            return Err(reader.damaged_at(10, "it needs something unknown"));
        }
        let cost = Argon2Cost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        let password = (needs & 1 != 0).then_some(cost);
        if password.is_none() && cost != (Argon2Cost { memory_kib: 0, passes: 0, lanes: 0 }) {
            return Err(reader.damaged_at(12, "there is a cost without a password"));
        }
        let (secrets_len, description_len) = (reader.u16()?, reader.u16()?);
        if reader.u32()? != 0 {
            return Err(reader.damaged_at(28, "reserved bytes are not zero"));
        }
        let (salt, commitment) = (reader.array()?, reader.array()?);
        let head = SlotHead { password, key_file: needs & 2 != 0, secrets_len, description_len, salt, commitment };
        head.check().map_err(|why| reader.damaged_at(10, why))?;
        Ok(head)
    }
}

/// A whole key slot, still sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// Its start.
    pub head: SlotHead,
    /// Nonce of the secrets.
    pub secrets_nonce: [u8; NONCE_LEN],
    /// Sealed secrets, with tag.
    pub secrets: Vec<u8>,
    /// Nonce of the description.
    pub description_nonce: [u8; NONCE_LEN],
    /// Sealed description, with tag.
    pub description: Vec<u8>,
}

impl KeySlot {
    /// The object as stored. Fails if a bound is broken or a length does not agree with the head.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let head = self.head.encode()?;
        if self.secrets.len() != usize::from(self.head.secrets_len) + TAG_LEN
            || self.description.len() != usize::from(self.head.description_len) + TAG_LEN
        {
            return Err(unfit("key slot", "a sealed part has another length"));
        }
        let parts = [&head[..], &self.secrets_nonce, &self.secrets, &self.description_nonce, &self.description];
        Ok(parts.concat())
    }

    /// Takes an object apart. `Unsupported` for a higher major version.
    pub fn decode(bytes: &[u8]) -> Result<KeySlot> {
        let mut reader = Reader::new("key slot", bytes);
        let head = SlotHead::decode(bytes)?;
        if bytes.len() > MAX_KEY_SLOT {
            return Err(reader.damaged("it is too long"));
        }
        reader.bytes(SLOT_HEAD_LEN)?;
        let secrets_nonce = reader.array()?;
        let secrets = reader.bytes(usize::from(head.secrets_len) + TAG_LEN)?.to_vec();
        let description_nonce = reader.array()?;
        let description = reader.bytes(usize::from(head.description_len) + TAG_LEN)?.to_vec();
        reader.finish()?;
        Ok(KeySlot { head, secrets_nonce, secrets, description_nonce, description })
    }
}

/// The secrets of a repository. They are wiped from memory when dropped, and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// The repository that they belong to; not secret.
    #[zeroize(skip)]
    pub repository: RepositoryId,
    /// Key of chunks' ids.
    pub chunk_id: [u8; 32],
    /// Key of where files and pages are cut.
    pub chunker: [u8; 32],
    /// Key of everything but file content.
    pub metadata: [u8; 32],
    /// Reserved.
    pub dedup_index: [u8; 32],
    /// Reserved.
    pub signing_seed: [u8; 32],
    /// Keys of file content by epoch, ascending by epoch and then by their bytes; 1 to 64 of them. Two rotations that did not see each
    /// other leave several of one epoch; the key commitment in a pack's header tells which one fits.
    pub content: Vec<(u16, [u8; 32])>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({:?}, {} epochs)", self.repository, self.content.len())
    }
}

impl Secrets {
    /// The content secrets of an epoch; mostly there is one.
    pub fn content_secrets(&self, epoch: u16) -> impl Iterator<Item = &[u8; 32]> {
        self.content.iter().filter(move |(number, _)| *number == epoch).map(|(_, secret)| secret)
    }

    /// Takes the content secrets of `other` along that are not held yet. Returns whether there were any.
    pub fn merge_content(&mut self, other: &Secrets) -> bool {
        let before = self.content.len();
        // Allocated once, so that growing leaves no copies behind.
        let mut merged = Vec::with_capacity(before + other.content.len());
        merged.extend(self.content.iter().chain(&other.content).copied());
        merged.sort_unstable();
        merged.dedup();
        std::mem::swap(&mut self.content, &mut merged);
        merged.zeroize();
        self.content.len() > before
    }

    /// The newest epoch, with which new packs are written.
    pub fn newest_epoch(&self) -> Option<u16> {
        self.content.last().map(|(epoch, _)| *epoch)
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if !(1..=MAX_EPOCHS).contains(&self.content.len()) {
            return Err("the number of key epochs is out of bounds");
        }
        if !self.content.is_sorted_by(|a, b| a < b) {
            return Err("the key epochs are not in order");
        }
        Ok(())
    }

    /// The bytes to be sealed, padded. Fails if there are no key epochs, too many, or out of order.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        self.check().map_err(|why| unfit("set of secrets", why))?;
        // Allocated once, so that growing leaves no copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRETS));
        bytes.extend_from_slice(&self.repository.0);
        for secret in [&self.chunk_id, &self.chunker, &self.metadata, &self.dedup_index, &self.signing_seed] {
            bytes.extend_from_slice(secret);
        }
        bytes.put_u16(self.content.len() as u16);
        for (epoch, secret) in &self.content {
            bytes.put_u16(*epoch);
            bytes.extend_from_slice(secret);
        }
        let len = bytes.len().next_multiple_of(SECRETS_STEP);
        bytes.resize(len, 0);
        Ok(bytes)
    }

    /// Reads the unsealed bytes.
    pub fn decode(bytes: &[u8]) -> Result<Secrets> {
        let mut reader = Reader::new("set of secrets", bytes);
        let repository = RepositoryId(reader.array()?);
        let mut secrets = Secrets {
            repository,
            chunk_id: reader.array()?,
            chunker: reader.array()?,
            metadata: reader.array()?,
            dedup_index: reader.array()?,
            signing_seed: reader.array()?,
            content: Vec::new(),
        };
        let number = usize::from(reader.u16()?);
        if number > MAX_EPOCHS {
            return Err(reader.damaged("there are too many key epochs"));
        }
        secrets.content.reserve_exact(number);
        for _ in 0..number {
            secrets.content.push((reader.u16()?, reader.array()?));
        }
        secrets.check().map_err(|why| reader.damaged(why))?;
        let padding = reader.offset().next_multiple_of(SECRETS_STEP) - reader.offset();
        if reader.bytes(padding)?.iter().any(|byte| *byte != 0) {
            return Err(reader.damaged("the padding is not zero"));
        }
        reader.finish()?;
        Ok(secrets)
    }
}

/// What people may want to know about a key slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// A name for the slot.
    pub label: String,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Timestamp,
    /// On which machine.
    pub host: String,
    /// By whom.
    pub user: String,
    /// The newest key epoch among the slot's secrets.
    #[serde(default, skip_serializing_if = "is_first_epoch")]
    pub epoch: u16,
    /// Which content secrets the slot holds, oldest first: `EPOCH:ID`. Empty in slots of the first versions; the oldest are left out
    /// where there is no room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// The slot that this one stands beside while slots are being changed; a slot that is meant to stay has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
}

fn is_first_epoch(epoch: &u16) -> bool {
    *epoch == 0
}

impl Description {
    /// The bytes to be sealed, padded with spaces. Fails if the texts are too long (768 bytes as JSON).
    pub fn encode(&self) -> Result<Vec<u8>> {
        let not_json =
            |error: serde_json::Error| unfit("description of a key slot", "it is not JSON").with_source(error);
        let mut bytes = serde_json::to_vec(self).map_err(not_json)?;
        bytes.resize(bytes.len().next_multiple_of(DESCRIPTION_STEP), b' ');
        if bytes.len() > MAX_DESCRIPTION {
            return Err(unfit("description of a key slot", "label, host and user are too long together"));
        }
        Ok(bytes)
    }

    /// Reads the unsealed bytes; unknown fields are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Description> {
        let reader = Reader::new("description of a key slot", bytes);
        if bytes.is_empty() || bytes.len() > MAX_DESCRIPTION || !bytes.len().is_multiple_of(DESCRIPTION_STEP) {
            return Err(reader.damaged("it has a wrong length"));
        }
        serde_json::from_slice(bytes).map_err(|error| reader.damaged("it is not what it must be").with_source(error))
    }
}

#[cfg(test)]
#[path = "key_slot_tests.rs"]
mod tests;
