//! Identifiers, a type for each thing they identify. Not for: computing them (see `chunk`).

pub(crate) mod random;

use crate::error::{Error, ErrorKind, Result};
use std::fmt;

/// Lower-case hexadecimal of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// The bytes of exactly `N` lower-case hexadecimal pairs, or `None`.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// Reads lower-case hexadecimal digits, all of them.
            pub fn parse(text: &str) -> Result<Self> {
                from_hex(text).map($name).ok_or_else(|| {
                    Error::new(ErrorKind::Input, format!("\"{text}\" is not {} hexadecimal digits", 2 * $size))
                })
            }

            /// A fresh one from the operating system's random numbers.
            pub fn random() -> Result<Self> {
                let mut bytes = [0; $size];
                random::fill(&mut bytes)?;
                Ok($name(bytes))
            }

            /// The first eight digits, enough for a person to tell one from another.
            pub fn short(&self) -> String {
                to_hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                from_hex(&text).map($name).ok_or_else(|| serde::de::Error::custom("not an id in hexadecimal"))
            }
        }
    };
}

id_type!(
    /// Names a stored object: BLAKE3-256 of its stored bytes.
    ObjectName,
    32
);
id_type!(
    /// Identifies a chunk: keyed BLAKE3-256 of its plaintext, with one key per chunk kind.
    ChunkId,
    32
);
id_type!(
    /// Identifies a repository, drawn at init; bound into every key and every sealed frame.
    RepositoryId,
    32
);
id_type!(
    /// Identifies a writer: one local state folder of one user on one machine.
    WriterId,
    16
);
id_type!(
    /// Identifies one run of a writer or pruner.
    SessionId,
    16
);
