//! Sealing: XChaCha20-Poly1305 under keys that belong to one object, with nonces that depend on the message (SEALED
//! OBJECTS in `man/firn-repository.7`). Not for: where bytes stand in an object; the caller gives associated data.

use crate::chunk::secret::{Secret, keyed_hash, keyed_xof, same};
use crate::error::Error;
use chacha20::{R20, hchacha};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::Zeroize;

/// Bytes of a nonce.
pub const NONCE_SIZE: usize = 24;
/// Bytes of an authentication tag.
pub const TAG_SIZE: usize = 16;

/// Why something sealed does not open. The caller names the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The key does not belong to this object: a wrong key, or a damaged header.
    Commitment,
    /// The bytes are not what was sealed, or not at this place.
    Forged,
    /// The message is longer than the cipher can seal (256 GiB).
    TooLong,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::Commitment => "its key commitment does not agree with the key",
            SealError::Forged => "its sealed bytes were changed or stand in the wrong place",
            SealError::TooLong => "the message is too long to seal",
        })
    }
}

impl std::error::Error for SealError {}

impl From<SealError> for Error {
    fn from(error: SealError) -> Error {
        Error::damaged(error.to_string())
    }
}

/// What stands beside a sealed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The nonce, to be stored.
    pub nonce: [u8; NONCE_SIZE],
    /// The Poly1305 tag, to be stored.
    pub tag: [u8; TAG_SIZE],
}

/// The keys of one object: Ke, Km and Kn of the format page.
pub struct ObjectKeys {
    seal: Secret,
    mask: Secret,
    nonce: Secret,
}

impl fmt::Debug for ObjectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectKeys(..)")
    }
}

impl ObjectKeys {
    /// The key commitment and the keys of an object with these first 64 header bytes.
    pub fn derive(
        secret: &Secret,
        repository: &[u8; 32],
        key_material: &[u8; 64],
        envelope: &[u8],
    ) -> ([u8; 32], ObjectKeys) {
        let parts: &[&[u8]] = &[secret.bytes(), repository, key_material, envelope];
        let commitment = *Secret::kdf("firn v1 object commitment", parts).bytes();
        let key = Secret::kdf("firn v1 object key", parts);
        let keys = ObjectKeys {
            seal: Secret::kdf("firn v1 seal", &[key.bytes()]),
            mask: Secret::kdf("firn v1 mask", &[key.bytes()]),
            nonce: Secret::kdf("firn v1 nonce", &[key.bytes()]),
        };
        (commitment, keys)
    }

    /// As `derive`, but only if the commitment in the object's header agrees (compared in constant time).
    pub fn derive_checked(
        secret: &Secret,
        repository: &[u8; 32],
        key_material: &[u8; 64],
        envelope: &[u8],
        commitment: &[u8; 32],
    ) -> Result<ObjectKeys, SealError> {
        let (expected, keys) = ObjectKeys::derive(secret, repository, key_material, envelope);
        if same(&expected, commitment) { Ok(keys) } else { Err(SealError::Commitment) }
    }

    /// Seals a message in place. The nonce is the first 24 bytes of H(Kn, associated || message), so that without
    /// good random numbers, or in a cloned machine, a nonce can only repeat with the same message.
    pub fn seal(&self, associated: &[u8], message: &mut [u8]) -> Result<Sealed, SealError> {
        let digest = keyed_hash(&self.nonce, &[associated, message]);
        let mut nonce = [0; NONCE_SIZE];
        nonce.copy_from_slice(&digest[..NONCE_SIZE]);
        let (key, short) = fast_cipher(&self.seal, &nonce);
        let tag = key.seal_in_place_separate_tag(short, Aad::from(associated), message);
        let tag = tag.map_err(|_| SealError::TooLong)?;
        Ok(Sealed { nonce, tag: *tag.as_ref().first_chunk().expect("a tag has 16 bytes") })
    }

    /// Opens a sealed message in place. On an error the buffer must not be used: its content is unspecified.
    pub fn open(
        &self,
        associated: &[u8],
        nonce: &[u8; NONCE_SIZE],
        buffer: &mut [u8],
        tag: &[u8; TAG_SIZE],
    ) -> Result<(), SealError> {
        let (key, short) = fast_cipher(&self.seal, nonce);
        key.open_in_place_separate_tag(short, Aad::from(associated), (*tag).into(), buffer, 0..)
            .map(drop)
            .map_err(|_| SealError::Forged)
    }

    /// The first 8 bytes of H(Km, "mask" || tag || number): hides a length or an offset.
    pub fn mask(&self, tag: u8, number: u64) -> [u8; 8] {
        self.eight(&[b"mask", &[tag], &number.to_le_bytes()])
    }

    /// The first 8 bytes of H(Km, "check" || tag || number || value): proves that a masked value was read rightly.
    pub fn check(&self, tag: u8, number: u64, value: u64) -> [u8; 8] {
        self.eight(&[b"check", &[tag], &number.to_le_bytes(), &value.to_le_bytes()])
    }

    /// Fills `out` with padding, which nobody without the key can tell from sealed bytes.
    pub fn padding(&self, out: &mut [u8]) {
        keyed_xof(&self.mask, &[b"padding"], out);
    }

    fn eight(&self, parts: &[&[u8]]) -> [u8; 8] {
        let mut first = [0; 8];
        first.copy_from_slice(&keyed_hash(&self.mask, parts)[..8]);
        first
    }
}

/// XChaCha20-Poly1305 for one message by a faster library: ChaCha20-Poly1305 (RFC 8439) under the key that HChaCha20 makes of the key
/// and the first 16 bytes of the nonce, with the other 8 behind four zeros (draft-irtf-cfrg-xchacha-03, 2.3). The key made for the
/// message is not wiped by that library; the one that it was made from stays in memory beside it for as long.
fn fast_cipher(key: &Secret, nonce: &[u8; NONCE_SIZE]) -> (LessSafeKey, Nonce) {
    let (first, last) = nonce.split_at(16);
    let first: &[u8; 16] = first.first_chunk().expect("16 bytes were split off");
    let mut own = hchacha::<R20>(key.bytes().into(), first.into());
    let cipher = UnboundKey::new(&CHACHA20_POLY1305, &own).expect("the cipher takes keys of 32 bytes");
    own.zeroize();
    let mut short = [0; 12];
    short[4..].copy_from_slice(last);
    (LessSafeKey::new(cipher), Nonce::assume_unique_for_key(short))
}

/// Seals in place with a key of its own and a nonce that the caller never uses twice (key slots: a random one).
pub fn seal_with(
    key: &Secret,
    nonce: &[u8; NONCE_SIZE],
    associated: &[u8],
    message: &mut [u8],
) -> Result<[u8; TAG_SIZE], SealError> {
    let nonce = XNonce::from(*nonce);
    let tag = cipher(key).encrypt_inout_detached(&nonce, associated, message.into()).map_err(|_| SealError::TooLong)?;
    Ok(tag.into())
}

/// Opens what `seal_with` sealed, in place. On an error the buffer's content is unspecified.
pub fn open_with(
    key: &Secret,
    nonce: &[u8; NONCE_SIZE],
    associated: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_SIZE],
) -> Result<(), SealError> {
    let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
    cipher(key).decrypt_inout_detached(&nonce, associated, buffer.into(), &tag).map_err(|_| SealError::Forged)
}

fn cipher(key: &Secret) -> XChaCha20Poly1305 {
    // By reference, so that no copy of the key stays behind; the cipher wipes its own.
    let key: &Key = key.bytes().into();
    XChaCha20Poly1305::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::to_hex;

    fn keys() -> ([u8; 32], ObjectKeys) {
        let material: [u8; 64] = std::array::from_fn(|i| i as u8);
        ObjectKeys::derive(&Secret::from_bytes(&[1; 32]), &[2; 32], &material, b"")
    }

    /// Both libraries agree at every length around what is padded or done at once, and neither takes what was changed.
    #[test]
    fn the_fast_cipher_is_the_same_cipher() {
        let (_, keys) = keys();
        for length in (0..700).chain([4095, 4096, 65_537, 1 << 20, (1 << 20) + 17]) {
            let message: Vec<u8> = (0..length).map(|i| (i * 7 + i / 251) as u8).collect();
            let associated = &message[..length.min(40)];
            let mut text = message.clone();
            let sealed = keys.seal(associated, &mut text).unwrap();
            let mut reference = message.clone();
            let tag = seal_with(&keys.seal, &sealed.nonce, associated, &mut reference).unwrap();
            assert_eq!((tag, &reference), (sealed.tag, &text), "{length}");
            keys.open(associated, &sealed.nonce, &mut reference, &tag).unwrap();
            assert_eq!(reference, message);
            for at in [0, length / 2, length.saturating_sub(1)].into_iter().filter(|at| *at < length) {
                let mut forged = text.clone();
                forged[at] ^= 0x10;
                assert_eq!(keys.open(associated, &sealed.nonce, &mut forged, &tag), Err(SealError::Forged));
            }
            let (mut nonce, mut other) = (sealed.nonce, tag);
            nonce[length % NONCE_SIZE] ^= 1;
            other[length % TAG_SIZE] ^= 0x80;
            for (associated, nonce, tag) in
                [(&b"other"[..], &sealed.nonce, &tag), (associated, &nonce, &tag), (associated, &sealed.nonce, &other)]
            {
                assert_eq!(keys.open(associated, nonce, &mut text.clone(), tag), Err(SealError::Forged));
            }
        }
    }

    // Python: ikm = secret + repository + material; kdf and keyed BLAKE3 as in the format page;
    // nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(message, associated, nonce, Ke)
    #[test]
    fn known_answers() {
        let (commitment, keys) = keys();
        assert_eq!(to_hex(&commitment), "54b87c5c4e76fdac0d0ce2956d49af36bc91de8ed244de8e6c74a09f1c72c0f5");
        let mut message = *b"eternal snow";
        let sealed = keys.seal(b"associated", &mut message).unwrap();
        assert_eq!(to_hex(&sealed.nonce), "345735adc3159702318cf947fa423473a1c24c7579299a4e");
        assert_eq!(to_hex(&message), "4d2539cc0bd0fe42a540fd6d");
        assert_eq!(to_hex(&sealed.tag), "80cdaa79aa2cebfccdde6043cbc201cf");
        assert_eq!(to_hex(&keys.mask(1, 5)), "a8259861bf4b8636");
        assert_eq!(to_hex(&keys.check(1, 5, 1000)), "78153271d96a8f7a");
        let mut padding = [0; 20];
        keys.padding(&mut padding);
        assert_eq!(to_hex(&padding), "d3208725d0acf477a091bf755bc3f1f316d5492c");
    }

    #[test]
    fn the_nonce_depends_on_message_and_associated_data_only() {
        let (_, keys) = keys();
        let seal = |associated: &[u8], message: &[u8]| keys.seal(associated, &mut message.to_vec()).unwrap();
        let first = seal(b"a", b"message");
        assert_eq!(first, seal(b"a", b"message"));
        assert_ne!(first.nonce, seal(b"b", b"message").nonce);
        assert_ne!(first.nonce, seal(b"a", b"messagf").nonce);
        let digest = keyed_hash(&keys.nonce, &[b"amessage"]);
        assert_eq!(first.nonce, digest[..NONCE_SIZE]);
    }

    /// RFC 8439, 2.3: the block of this number, from HChaCha20's key (draft-irtf-cfrg-xchacha, 2.2) and the rest of the nonce.
    fn plain_xchacha20(key: &[u8; 32], nonce: &[u8; 24], number: u32) -> [u8; 64] {
        fn rounds(state: &mut [u32; 16]) {
            for round in 0..20 {
                for n in 0..4 {
                    // Columns and diagonals in turn.
                    let [a, b, c, d] = std::array::from_fn(|row| 4 * row + (n + round % 2 * row) % 4);
                    for (x, y, z, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
                        state[x] = state[x].wrapping_add(state[y]);
                        state[z] = (state[z] ^ state[x]).rotate_left(turn);
                    }
                }
            }
        }
        fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
            bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        }
        let start = |parts: [&[u8]; 3]| -> [u32; 16] {
            words(b"expand 32-byte k").chain(parts.into_iter().flat_map(words)).collect::<Vec<_>>().try_into().unwrap()
        };
        let mut inner = start([key, &nonce[..16], &[]]);
        rounds(&mut inner);
        let inner: Vec<u8> = inner[..4].iter().chain(&inner[12..]).flat_map(|word| word.to_le_bytes()).collect();
        let first = start([&inner, &number.to_le_bytes(), &[&[0; 4], &nonce[16..]].concat()]);
        let mut last = first;
        rounds(&mut last);
        let mut block = [0; 64];
        for (out, (one, other)) in block.chunks_exact_mut(4).zip(first.iter().zip(&last)) {
            out.copy_from_slice(&one.wrapping_add(*other).to_le_bytes());
        }
        block
    }

    // The crate has other code for each kind of processor, and for whole groups of blocks and what is left over.
    #[test]
    fn the_cipher_is_that_of_its_specification_at_every_length() {
        let (key, nonce) = (Secret::from_bytes(&std::array::from_fn(|i| i as u8)), [0xa5; NONCE_SIZE]);
        let longest = 5000;
        let stream: Vec<u8> =
            (1..=longest / 64 + 1).flat_map(|n| plain_xchacha20(key.bytes(), &nonce, n as u32)).collect();
        for length in (0..1100).chain([2047, 2048, 2049, 4095, 4096, 4097, longest]) {
            let mut message = vec![0; length];
            let tag = seal_with(&key, &nonce, b"", &mut message).unwrap();
            assert_eq!(message, stream[..length], "{length}");
            open_with(&key, &nonce, b"", &mut message, &tag).unwrap();
            assert!(message.iter().all(|byte| *byte == 0), "{length}");
        }
        let mut long = vec![0; 1 << 20];
        seal_with(&key, &nonce, b"", &mut long).unwrap();
        for number in [1, 15, 16, 17, 10_000, long.len() / 64] {
            assert_eq!(long[64 * (number - 1)..64 * number], plain_xchacha20(key.bytes(), &nonce, number as u32));
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let (_, keys) = keys();
        let mut frame = b"a small message".to_vec();
        let length = frame.len();
        let sealed = keys.seal(b"where", &mut frame).unwrap();
        frame.extend_from_slice(&sealed.nonce);
        frame.extend_from_slice(&sealed.tag);
        let open = |frame: &[u8], associated: &[u8]| {
            let (mut buffer, rest) = (frame[..length].to_vec(), &frame[length..]);
            let (nonce, tag) = rest.split_at(NONCE_SIZE);
            keys.open(associated, nonce.try_into().unwrap(), &mut buffer, tag.try_into().unwrap()).map(|()| buffer)
        };
        assert_eq!(open(&frame, b"where").unwrap(), b"a small message");
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&frame, b"where"), Err(SealError::Forged), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        for other in [&b"wherf"[..], b"wher", b"where\0", b""] {
            assert_eq!(open(&frame, other), Err(SealError::Forged));
        }
    }

    #[test]
    fn keys_belong_to_one_object() {
        let (commitment, _) = keys();
        let material: [u8; 64] = std::array::from_fn(|i| i as u8);
        let secret = Secret::from_bytes(&[1; 32]);
        let derive = |repository: &[u8; 32], material: &[u8; 64], envelope: &[u8]| {
            ObjectKeys::derive_checked(&secret, repository, material, envelope, &commitment).err()
        };
        assert_eq!(derive(&[2; 32], &material, b""), None);
        assert_eq!(derive(&[3; 32], &material, b""), Some(SealError::Commitment));
        assert_eq!(derive(&[2; 32], &material, b"e"), Some(SealError::Commitment));
        for i in 0..64 {
            let mut other = material;
            other[i] ^= 1;
            assert_eq!(derive(&[2; 32], &other, b""), Some(SealError::Commitment));
        }
    }

    #[test]
    fn a_key_of_its_own() {
        let (key, nonce) = (Secret::from_bytes(&[9; 32]), [8; NONCE_SIZE]);
        let mut buffer = b"secrets".to_vec();
        let tag = seal_with(&key, &nonce, b"slot", &mut buffer).unwrap();
        assert_ne!(buffer, b"secrets");
        assert!(open_with(&Secret::from_bytes(&[7; 32]), &nonce, b"slot", &mut buffer.clone(), &tag).is_err());
        open_with(&key, &nonce, b"slot", &mut buffer, &tag).unwrap();
        assert_eq!(buffer, b"secrets");
    }
}
