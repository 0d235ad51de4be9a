//! Seals and opens objects: which secret, which header, which frame. Not for: where objects are stored, or what packs hold.

use crate::chunk::compress::{Compressor, Decompressor, Encoded};
use crate::chunk::id::IdKeys;
use crate::chunk::seal::ObjectKeys;
use crate::chunk::secret::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::{MAX_BODY, MAX_MESSAGE};
use crate::format::frame::{self, FRAME_OVERHEAD, FrameTag};
use crate::format::header::{HEADER_LEN, Header, Kind};
use crate::format::key_slot::Secrets;
use crate::format::message::{ChunkKind, Codec, MESSAGE_HEAD_LEN, MessageHead};
use crate::format::padding::padme;
use crate::id::{ChunkId, ObjectName, RepositoryId};
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use zeroize::Zeroizing;

thread_local! {
    // Contexts are expensive to make and hold no secrets beyond the call; one of each a thread.
    static DECOMPRESSOR: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
    static RECORD_COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
}

/// The level at which records (index segments, snapshots) are compressed; they are small and read often.
const RECORD_LEVEL: i32 = 3;

/// What to do about packs that are sealed under a newer epoch than the key in use holds.
pub(super) const OTHER_KEY: &str =
    "The keys were rotated. Use one that was made since; \"firn key list\" shows the newest epoch of each.";

/// The unlocked secrets of a repository and what follows from them.
pub struct Keyring {
    repository: RepositoryId,
    held: RwLock<Held>,
    ids: IdKeys,
    renewal: Option<Renewal>,
    /// Held while newer secrets are looked for and added.
    renewing: Mutex<()>,
    /// A test's random numbers, for the salts that the threads of a writer draw.
    #[cfg(test)]
    salts: Option<crate::id::random::seeded::Source>,
}

/// The secrets as far as they are known at a moment: a rotation elsewhere may add some.
#[derive(Clone)]
struct Held {
    secrets: Arc<Secrets>,
    /// New data packs are sealed under this epoch: not the newest as long as slots with the newest are only being put.
    sealing: u16,
    /// Epochs of secrets that key slots hold which do not open with the same credentials.
    elsewhere: Vec<u16>,
}

/// What unlocking found out about the secrets of content.
pub(super) struct Content {
    /// All secrets that the credentials open.
    pub(super) secrets: Secrets,
    /// Under which epoch to seal.
    pub(super) sealing: u16,
    /// Epochs of secrets that are held by others only.
    pub(super) elsewhere: Vec<u16>,
}

/// Looks for secrets that were added since; `None` if there is nothing new.
pub(super) type Renewal = Box<dyn Fn(&Keyring) -> Option<Content> + Send + Sync>;

/// The header of one object, as stored, and the keys that follow from it.
pub struct Opened {
    /// The 96 bytes as stored; they are part of every frame's associated data.
    pub header: [u8; HEADER_LEN],
    /// The header's epoch.
    pub epoch: u16,
    /// The object's keys.
    pub keys: ObjectKeys,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({:?})", self.repository())
    }
}

impl Keyring {
    /// A keyring from the secrets of a key slot.
    pub fn new(secrets: Secrets) -> Self {
        let sealing = secrets.newest_epoch().unwrap_or(0);
        Keyring::of(Content { secrets, sealing, elsewhere: Vec::new() })
    }

    pub(super) fn of(content: Content) -> Self {
        let Content { secrets, sealing, elsewhere } = content;
        let ids = IdKeys::new(&Secret::from_bytes(&secrets.chunk_id));
        Keyring {
            repository: secrets.repository,
            held: RwLock::new(Held { secrets: Arc::new(secrets), sealing, elsewhere }),
            ids,
            renewal: None,
            renewing: Mutex::default(),
            #[cfg(test)]
            salts: crate::id::random::seeded::current(),
        }
    }

    /// From now on, asks for newer secrets where one is missing.
    pub(super) fn renew_by(&mut self, renewal: Renewal) {
        self.renewal = Some(renewal);
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for secrets that were added since. Returns whether there are any, or whether others were found to be elsewhere.
    /// Threads that ask at the same time wait for the one that looks: what it finds is there when they go on.
    pub(super) fn renew(&self) -> bool {
        let _turn = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(content) = self.renewal.as_ref().and_then(|renewal| renewal(self)) else { return false };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut secrets = Secrets::clone(&held.secrets);
        let is_new = secrets.merge_content(&content.secrets);
        // Whoever puts older slots back cannot take back what is held, and what was sealed under it since.
        let sealing = held.sealing.max(content.sealing);
        *held = Held { secrets: Arc::new(secrets), sealing, elsewhere: content.elsewhere };
        is_new
    }

    /// The secrets, to wrap them for another key slot.
    pub fn secrets(&self) -> Arc<Secrets> {
        self.held().secrets
    }

    /// The repository these keys belong to.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// A copy of the metadata secret.
    pub fn metadata_secret(&self) -> Secret {
        Secret::from_bytes(&self.secrets().metadata)
    }

    /// A copy of the secret from which the chunker's table and the page cuts follow.
    pub fn chunker_secret(&self) -> Secret {
        Secret::from_bytes(&self.secrets().chunker)
    }

    /// A secret for local state that never leaves this machine (names in the cache, hard-link groups).
    pub fn local_secret(&self, context: &'static str) -> Secret {
        Secret::kdf(context, &[&self.secrets().metadata, &self.repository.0])
    }

    /// The newest key epoch, as far as new data packs may be sealed under it.
    pub fn newest_epoch(&self) -> u16 {
        self.held().sealing
    }

    /// The ids of the secrets of an epoch that are held.
    pub(super) fn secret_ids(&self, epoch: u16) -> Vec<String> {
        let secrets = self.secrets();
        let of_epoch = secrets.content.iter().filter(|(number, _)| *number == epoch);
        of_epoch.map(|secret| super::keys::secret_id(&self.repository, secret)).collect()
    }

    /// Whether a key slot that does not open states a secret of this epoch.
    pub fn is_elsewhere(&self, epoch: u16) -> bool {
        self.held().elsewhere.contains(&epoch)
    }

    /// Whether all content that is sealed under this epoch can be opened.
    pub fn has_epoch(&self, epoch: u16) -> bool {
        let held = self.held();
        held.secrets.content_secrets(epoch).next().is_some() && !held.elsewhere.contains(&epoch)
    }

    /// The id of a chunk.
    pub fn chunk_id(&self, kind: ChunkKind, chunk: &[u8]) -> ChunkId {
        match kind {
            ChunkKind::Content => self.ids.content(chunk),
            ChunkKind::Tree => self.ids.tree(chunk),
            ChunkKind::List => self.ids.list(chunk),
            ChunkKind::Attributes => self.ids.attributes(chunk),
        }
    }

    /// The secrets that a header of this kind and epoch may have been made with.
    fn secrets_of(&self, kind: Kind, epoch: u16) -> Vec<Secret> {
        let held = self.held();
        match kind {
            Kind::DataPack => held.secrets.content_secrets(epoch).map(Secret::from_bytes).collect(),
            _ => vec![Secret::from_bytes(&held.secrets.metadata)],
        }
    }

    fn derive(&self, secret: &Secret, header: &Header) -> ([u8; 32], ObjectKeys) {
        ObjectKeys::derive(secret, &self.repository.0, &header.key_material(), &[])
    }

    /// The keys of an object whose header was made with a secret that is held: its commitment tells with which one.
    fn matching(&self, header: &Header) -> Option<ObjectKeys> {
        self.secrets_of(header.kind, header.epoch).iter().find_map(|secret| {
            let (commitment, keys) = self.derive(secret, header);
            crate::chunk::secret::same(&commitment, &header.commitment).then_some(keys)
        })
    }

    /// A fresh object of `kind` with a random salt.
    pub fn create(&self, kind: Kind) -> Result<Opened> {
        #[cfg(test)]
        if let Some(salts) = &self.salts {
            let mut salt = [0; 32];
            salts.fill(&mut salt);
            return self.create_with_salt(kind, salt);
        }
        self.create_with_salt(kind, *Secret::random()?.bytes())
    }

    /// An object with this salt. All objects but those of tests take `create`: no salt may come twice.
    pub(crate) fn create_with_salt(&self, kind: Kind, salt: [u8; 32]) -> Result<Opened> {
        let epoch = if kind == Kind::DataPack { self.newest_epoch() } else { 0 };
        let mut header = Header { kind, epoch, salt, commitment: [0; 32] };
        let secrets = self.secrets_of(kind, epoch);
        let secret = secrets.first().ok_or_else(|| missing_epoch(epoch))?;
        let (commitment, keys) = self.derive(secret, &header);
        header.commitment = commitment;
        Ok(Opened { header: header.encode(), epoch, keys })
    }

    /// Reads the header of a stored object and derives its keys; the commitment must agree.
    pub fn open(&self, kind: Kind, bytes: &[u8]) -> Result<Opened> {
        let raw = bytes.first_chunk::<HEADER_LEN>().ok_or_else(|| Error::damaged("it is shorter than a header"))?;
        let header = Header::decode(raw).map_err(|error| match error.kind() {
            ErrorKind::Unsupported if self.is_only_the_version_damaged(raw) => {
                Error::damaged("a header is damaged at offset 8: it was made as version 1")
            }
            _ => error,
        })?;
        if header.kind != kind {
            return Err(Error::damaged(format!("it says it is a {:?}, not a {kind:?}", header.kind)));
        }
        if let Some(keys) = self.matching(&header) {
            return Ok(Opened { header: *raw, epoch: header.epoch, keys });
        }
        let foreign = || Error::damaged("its header was not made with this repository's keys");
        if kind != Kind::DataPack {
            return Err(foreign());
        }
        if self.is_only_the_epoch_damaged(&header) {
            return Err(Error::damaged("a header is damaged at offset 10: it was made under another key epoch"));
        }
        // Keys may have been rotated since, and the credentials in memory open the new ones as well.
        self.renew();
        // Asked before the keys are tried: another thread may add the secret in between.
        let is_known = self.has_epoch(header.epoch);
        match self.matching(&header) {
            Some(keys) => Ok(Opened { header: *raw, epoch: header.epoch, keys }),
            None if is_known => Err(foreign()),
            None => Err(missing_epoch(header.epoch)),
        }
    }

    /// Whether a header of an unknown version is one of ours with another byte there: then the commitment agrees once the
    /// byte is put back. So damage is not taken for a newer firn, which would forbid everything.
    fn is_only_the_version_damaged(&self, raw: &[u8; HEADER_LEN]) -> bool {
        let mut raw = *raw;
        raw[8] = crate::format::header::VERSION;
        Header::decode(&raw).is_ok_and(|header| self.matching(&header).is_some())
    }

    /// The same for an epoch that this keyring lacks: whether the header was made under one that it holds.
    fn is_only_the_epoch_damaged(&self, header: &Header) -> bool {
        let secrets = self.secrets();
        secrets.content.iter().any(|(epoch, _)| {
            *epoch != header.epoch && self.matching(&Header { epoch: *epoch, ..header.clone() }).is_some()
        })
    }

    /// Appends one sealed frame holding `message` to `out`.
    pub fn seal_frame(
        &self,
        object: &Opened,
        tag: FrameTag,
        number: u64,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let associated = frame::associated_data(tag, &self.repository(), &object.header, number);
        let length = message.len() as u64;
        let mask = object.keys.mask(tag as u8, number);
        let check = object.keys.check(tag as u8, number, length);
        out.reserve(message.len() + FRAME_OVERHEAD);
        for (byte, mask) in (message.len() as u32).to_le_bytes().iter().zip(&mask) {
            out.push(byte ^ mask);
        }
        out.extend_from_slice(&check[..4]);
        let nonce_at = out.len();
        out.extend_from_slice(&[0; 24]);
        out.extend_from_slice(message);
        let sealed = object.keys.seal(&associated, &mut out[nonce_at + 24..])?;
        out[nonce_at..nonce_at + 24].copy_from_slice(&sealed.nonce);
        out.extend_from_slice(&sealed.tag);
        Ok(())
    }

    /// The message length of the frame that begins with these eight bytes, or `None` if no such frame begins here.
    pub fn frame_length(&self, object: &Opened, tag: FrameTag, number: u64, masked: &[u8; 8]) -> Option<u32> {
        let mask = object.keys.mask(tag as u8, number);
        let mut length = [0; 4];
        for (out, (byte, mask)) in length.iter_mut().zip(masked.iter().zip(&mask)) {
            *out = byte ^ mask;
        }
        let length = u32::from_le_bytes(length);
        let check = object.keys.check(tag as u8, number, u64::from(length));
        (check[..4] == masked[4..] && (MESSAGE_HEAD_LEN..=MAX_MESSAGE).contains(&(length as usize))).then_some(length)
    }

    /// Opens a whole frame in place and returns its message, still compressed.
    pub fn open_frame<'a>(
        &self,
        object: &Opened,
        tag: FrameTag,
        number: u64,
        frame: &'a mut [u8],
    ) -> Result<&'a mut [u8]> {
        let masked = frame.first_chunk::<8>().ok_or_else(|| Error::damaged("a frame is cut short"))?;
        let length = self
            .frame_length(object, tag, number, masked)
            .ok_or_else(|| Error::damaged(format!("no frame begins where frame {number} should")))?;
        if frame.len() != length as usize + FRAME_OVERHEAD {
            return Err(Error::damaged(format!("frame {number} has another length than its contents say")));
        }
        let associated = frame::associated_data(tag, &self.repository(), &object.header, number);
        let (head, rest) = frame.split_at_mut(32);
        let (text, poly) = rest.split_at_mut(length as usize);
        let nonce: &[u8; 24] = head[8..].first_chunk().expect("a frame's head has 32 bytes");
        let poly: &[u8; 16] = poly.first_chunk().expect("what remains of a frame is its tag");
        object
            .keys
            .open(&associated, nonce, text, poly)
            .map_err(|_| Error::damaged(format!("frame {number} does not authenticate")))?;
        Ok(text)
    }

    /// Seals a record: header, one frame, padding.
    pub fn seal_record(&self, kind: Kind, body: &[u8]) -> Result<Vec<u8>> {
        if body.len() > MAX_BODY {
            return Err(Error::new(
                crate::error::ErrorKind::Failed,
                format!("a record of {} bytes is larger than the format allows", body.len()),
            ));
        }
        let message = RECORD_COMPRESSOR.with_borrow_mut(|slot| encode_message(slot, RECORD_LEVEL, None, body))?;
        self.seal_record_message(&self.create(kind)?, &message)
    }

    /// A record object of a message that is encoded already.
    pub(crate) fn seal_record_message(&self, object: &Opened, message: &[u8]) -> Result<Vec<u8>> {
        let mut out = object.header.to_vec();
        self.seal_frame(object, FrameTag::Record, 0, message, &mut out)?;
        let padded = padme(out.len() as u64) as usize;
        let from = out.len();
        out.resize(padded, 0);
        object.keys.padding(&mut out[from..]);
        Ok(out)
    }

    /// Opens a record of `kind` and returns its body.
    pub fn open_record(&self, kind: Kind, bytes: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
        // It is opened in place, and a key slot holds secrets.
        let mut bytes = Zeroizing::new(bytes);
        let object = self.open(kind, &bytes)?;
        let masked = bytes[HEADER_LEN..].first_chunk::<8>().ok_or_else(|| Error::damaged("it is cut short"))?;
        let length = self
            .frame_length(&object, FrameTag::Record, 0, masked)
            .ok_or_else(|| Error::damaged("no record follows its header"))? as usize;
        let end = HEADER_LEN + FRAME_OVERHEAD + length;
        if bytes.len() as u64 != padme(end as u64) {
            return Err(Error::damaged("its size does not fit its content"));
        }
        let message = self.open_frame(&object, FrameTag::Record, 0, &mut bytes[HEADER_LEN..end])?;
        let (_, body) = decode_message(message, FrameTag::Record)?;
        Ok(Zeroizing::new(body.into_owned()))
    }
}

/// Not damage: nothing may be deleted or stored again because of it.
fn missing_epoch(epoch: u16) -> Error {
    Error::new(
        ErrorKind::WrongKey,
        format!("it is sealed under a secret of key epoch {epoch}, which the key in use does not hold"),
    )
    .with_hint(OTHER_KEY)
}

/// Compresses `body` and puts the message head before it.
pub(crate) fn encode_message(
    slot: &mut Option<Compressor>,
    level: i32,
    kind: Option<ChunkKind>,
    body: &[u8],
) -> Result<Vec<u8>> {
    let compressor = match slot {
        Some(compressor) => compressor,
        None => slot.insert(Compressor::new(level)?),
    };
    // The compressor appends behind the head, so that the result is never copied.
    let mut message = vec![0; MESSAGE_HEAD_LEN];
    let codec = match compressor.compress(body, &mut message) {
        Encoded::Zstd => Codec::Zstd,
        Encoded::Raw => Codec::Raw,
    };
    let head = MessageHead { codec, chunk_kind: kind, body_len: body.len() as u32 };
    message[..MESSAGE_HEAD_LEN].copy_from_slice(&head.encode());
    Ok(message)
}

/// The message of a body that must not be compressed (private blocks, whose length must say nothing).
pub(super) fn raw_message(kind: ChunkKind, body: &[u8]) -> Vec<u8> {
    let head = MessageHead { codec: Codec::Raw, chunk_kind: Some(kind), body_len: body.len() as u32 };
    let mut message = head.encode().to_vec();
    message.extend_from_slice(body);
    message
}

/// Decodes a message of a frame with this tag: the chunk kind that a block states, and the body, which is copied only if it was
/// compressed.
pub(super) fn decode_message(message: &[u8], tag: FrameTag) -> Result<(Option<ChunkKind>, Cow<'_, [u8]>)> {
    let head = MessageHead::decode(message, tag)?;
    let payload = &message[MESSAGE_HEAD_LEN..];
    let body = match head.codec {
        Codec::Raw => {
            if payload.len() != head.body_len as usize {
                return Err(Error::damaged("an uncompressed body has another length than stated"));
            }
            Cow::Borrowed(payload)
        }
        Codec::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| -> Result<_> {
            let decompressor = match slot {
                Some(decompressor) => decompressor,
                None => slot.insert(Decompressor::new()?),
            };
            let mut body = Vec::new();
            decompressor.decompress(payload, head.body_len as usize, &mut body)?;
            Ok(Cow::Owned(body))
        })?,
    };
    Ok((head.chunk_kind, body))
}

/// The name under which these bytes are stored.
pub fn object_name(bytes: &[u8]) -> ObjectName {
    ObjectName(*blake3::hash(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::vectors::keyring;

    /// Many threads meet a pack under a secret that came after they had begun. One finds the secret; no other one may call the pack
    /// damaged, or closed to it, because there is nothing new when its turn comes.
    #[test]
    fn threads_that_find_no_newer_secret_use_the_one_that_another_has_found() {
        let ours = keyring();
        let header = ours.create(Kind::DataPack).unwrap().header;
        let mut older = Secrets::clone(&ours.secrets());
        older.content.pop();
        for _ in 0..20 {
            let mut keyring = Keyring::new(older.clone());
            let (asked, secrets) = (std::sync::atomic::AtomicBool::new(false), Secrets::clone(&ours.secrets()));
            keyring.renew_by(Box::new(move |_| {
                let is_first = !asked.swap(true, std::sync::atomic::Ordering::Relaxed);
                if is_first {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                is_first.then(|| Content { secrets: secrets.clone(), sealing: 3, elsewhere: Vec::new() })
            }));
            let keyring = &keyring;
            std::thread::scope(|scope| {
                let opens = || keyring.open(Kind::DataPack, &header).map(|opened| opened.epoch);
                let all: Vec<_> = (0..8).map(|_| scope.spawn(opens)).collect();
                all.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap().unwrap(), 3));
            });
        }
    }

    #[test]
    fn an_epoch_that_the_key_lacks_is_no_damage_unless_the_header_was_made_under_another() {
        let ours = keyring();
        let header = ours.create(Kind::DataPack).unwrap().header;
        assert_eq!(ours.open(Kind::DataPack, &header).unwrap().epoch, 3);
        let mut older = Secrets::clone(&ours.secrets());
        older.content.pop();
        let older = Keyring::new(older);
        assert!(older.has_epoch(0) && !older.has_epoch(3));
        let error = older.open(Kind::DataPack, &header).err().unwrap();
        assert_eq!((error.kind(), error.hint()), (ErrorKind::WrongKey, Some(OTHER_KEY)));
        // Of several secrets of one epoch each fits its own packs, and whoever lacks one does not call its packs damaged.
        let mut several = Secrets::clone(&ours.secrets());
        several.content[1].1 = [77; 32];
        let theirs = Keyring::new(several.clone());
        several.merge_content(&ours.secrets());
        assert_eq!(several.content.len(), 3);
        let both = Keyring::new(several);
        let foreign = theirs.create(Kind::DataPack).unwrap().header;
        for header in [header, foreign, both.create(Kind::DataPack).unwrap().header] {
            assert_eq!(both.open(Kind::DataPack, &header).unwrap().epoch, 3);
        }
        assert_eq!(ours.open(Kind::DataPack, &foreign).err().unwrap().kind(), ErrorKind::Damaged);
        let secrets = Secrets::clone(&ours.secrets());
        let warned = Keyring::of(Content { secrets, sealing: 3, elsewhere: vec![3] });
        assert_eq!(warned.open(Kind::DataPack, &foreign).err().unwrap().kind(), ErrorKind::WrongKey);
        assert!(warned.open(Kind::DataPack, &header).is_ok() && !warned.has_epoch(3));
        // Every other epoch in its place is damage for the one who can tell.
        for (at, bit) in (10..12).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut hurt = header;
            hurt[at] ^= 1 << bit;
            assert_eq!(ours.open(Kind::DataPack, &hurt).err().unwrap().kind(), ErrorKind::Damaged, "{at}.{bit}");
        }
    }
}
