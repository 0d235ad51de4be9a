//! Keys in memory, and the BLAKE3 functions that are used with them (NOTATION in `man/firn-repository.7`). Not for:
//! which key seals what (see `seal`), nor how keys are stored.

use crate::error::Result;
use std::fmt;
use zeroize::Zeroize;

/// 32 secret bytes, wiped when dropped. Boxed, so that moving a secret does not leave copies on the stack.
#[derive(Clone)]
pub struct Secret(Box<[u8; 32]>);

impl Secret {
    /// A fresh secret from the operating system's random numbers; `Failed` if it has none.
    pub fn random() -> Result<Self> {
        let mut secret = Secret(Box::new([0; 32]));
        crate::id::random::fill(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// A secret of these bytes; the caller wipes its own copy.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut secret = Secret(Box::new([0; 32]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// The secret bytes. Never log them; wipe every copy.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `KDF(context, parts[0] || parts[1] || ...)`: BLAKE3 in key-derivation mode.
    pub fn kdf(context: &'static str, parts: &[&[u8]]) -> Secret {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in parts {
            hasher.update(part);
        }
        let mut secret = Secret(Box::new([0; 32]));
        let mut output = hasher.finalize_xof();
        output.fill(secret.0.as_mut_slice());
        output.zeroize();
        hasher.zeroize();
        secret
    }

    /// A secret that the caller fills in place.
    pub(crate) fn fill_with<E>(fill: impl FnOnce(&mut [u8; 32]) -> std::result::Result<(), E>) -> Option<Secret> {
        let mut secret = Secret(Box::new([0; 32]));
        fill(&mut secret.0).ok().map(|()| secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// `HASH(data)`: BLAKE3-256, unkeyed. For key files and object names.
pub fn hash(data: &[u8]) -> [u8; 32] {
    *blake3::hash(data).as_bytes()
}

/// `H(key, parts[0] || parts[1] || ...)`, 32 bytes.
///
/// The hasher's state on the stack is not wiped: that would cost as much as hashing a small file, and the key itself
/// stays in memory beside it.
pub fn keyed_hash(key: &Secret, parts: &[&[u8]]) -> [u8; 32] {
    match parts {
        [whole] => *blake3::keyed_hash(key.bytes(), whole).as_bytes(),
        parts => *keyed(key, parts).finalize().as_bytes(),
    }
}

/// `H(key, parts[0] || parts[1] || ...)`, as many bytes as `out` holds.
pub fn keyed_xof(key: &Secret, parts: &[&[u8]], out: &mut [u8]) {
    let mut output = keyed(key, parts).finalize_xof();
    output.fill(out);
    output.zeroize();
}

/// Whether two public values (commitments, tags) are equal, in constant time.
pub fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    // blake3::Hash promises a comparison in constant time.
    blake3::Hash::from_bytes(*one) == blake3::Hash::from_bytes(*other)
}

fn keyed(key: &Secret, parts: &[&[u8]]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(key.bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::to_hex;

    /// Bytes 0, 1, 2 ... 31.
    fn counting() -> Secret {
        Secret::from_bytes(&std::array::from_fn(|i| i as u8))
    }

    // Python: blake3(data, derive_key_context=context).hexdigest(); blake3(data, key=key).digest(length=...).hex()
    #[test]
    fn known_answers() {
        let derived = Secret::kdf("firn v1 object key", &[counting().bytes(), b"firn"]);
        assert_eq!(to_hex(derived.bytes()), "e564392f8bd95e7141208fcb2f1dca927326babc0331501cf661325c1636b2d4");
        assert_eq!(
            to_hex(&keyed_hash(&counting(), &[b"snow", b"flake"])),
            "2480b3b1e4065b7333652c061a217c58c8dfd697da88a2342fc8b457673183a6"
        );
        let mut long = [0; 40];
        keyed_xof(&counting(), &[b"snowflake"], &mut long);
        assert_eq!(to_hex(&long), "2480b3b1e4065b7333652c061a217c58c8dfd697da88a2342fc8b457673183a68ed653baa90674f3");
        assert_eq!(to_hex(&hash(b"firn")), "44ca5bcb5ad76c96cb16a20eb5a4e0b6cbdf84e06b56b8d1861fc2cca4383d62");
    }

    #[test]
    fn parts_are_concatenated() {
        let key = counting();
        assert_eq!(keyed_hash(&key, &[b"ab", b"", b"c"]), keyed_hash(&key, &[b"abc"]));
        assert_eq!(Secret::kdf("test", &[b"ab", b"c"]).bytes(), Secret::kdf("test", &[b"abc"]).bytes());
        let mut short = [0; 32];
        keyed_xof(&key, &[b"a", b"bc"], &mut short);
        assert_eq!(short, keyed_hash(&key, &[b"abc"]));
    }

    #[test]
    fn random_secrets_differ_and_do_not_show() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_ne!(one.bytes(), other.bytes());
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }

    #[test]
    fn comparison_sees_every_byte() {
        let one = [7; 32];
        assert!(same(&one, &[7; 32]));
        for i in 0..32 {
            let mut other = one;
            other[i] ^= 0x80;
            assert!(!same(&one, &other));
        }
    }
}
