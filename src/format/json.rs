//! What all records with a JSON body share: bounds, versions, times, paths. Not for: any record's fields.

use crate::error::{Error, Result};
use crate::format::bounds::MAX_BODY;
use crate::format::bytes::unfit;
use crate::format::header::{VERSION, newer_version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A record with a JSON body.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Its name in messages.
    const WHAT: &'static str;

    /// What is wrong with its values, as half a sentence.
    fn check(&self) -> std::result::Result<(), &'static str>;
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// Reads a body; fields that this program does not know are ignored. `Unsupported` for a higher version.
pub(crate) fn decode<T: Record>(body: &[u8]) -> Result<T> {
    let what = T::WHAT;
    if body.len() > MAX_BODY {
        return Err(Error::damaged(format!("a {what} is too long ({} bytes)", body.len())));
    }
    let damaged = |error: serde_json::Error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::damaged(format!("a {what} is damaged at {place}: it is not what it must be")).with_source(error)
    };
    // First only the version: a newer one may have other fields.
    let version = serde_json::from_slice::<Versioned>(body).map_err(damaged)?.version;
    if version > u64::from(VERSION) {
        return Err(newer_version(what, version));
    }
    if version == 0 {
        return Err(Error::damaged(format!("a {what} is damaged: there is no version 0")));
    }
    let record: T = serde_json::from_slice(body).map_err(damaged)?;
    record.check().map_err(|why| Error::damaged(format!("a {what} is damaged: {why}")))?;
    Ok(record)
}

/// The body as stored. Fails if it breaks a rule of the format.
pub(crate) fn encode<T: Record>(record: &T) -> Result<Vec<u8>> {
    record.check().map_err(|why| unfit(T::WHAT, why))?;
    let body = serde_json::to_vec(record).map_err(|error| unfit(T::WHAT, "it is not JSON").with_source(error))?;
    if body.len() > MAX_BODY {
        return Err(unfit(T::WHAT, "it is too long"));
    }
    Ok(body)
}

/// Times as RFC 3339, for `#[serde(with = "…")]`. Read with any offset, written in UTC.
pub(crate) mod rfc3339 {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        time: &jiff::Timestamp,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<jiff::Timestamp, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("not a time as in RFC 3339"))
    }
}

/// A path of any bytes, written as a string (`escape_path`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PathText(pub Vec<u8>);

impl std::fmt::Display for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&escape_path(&self.0))
    }
}

impl std::fmt::Debug for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", escape_path(&self.0))
    }
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape_path(&self.0))
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        unescape_path(&text).map(PathText).map_err(serde::de::Error::custom)
    }
}

/// The path as a string: a backslash becomes two, a byte that is not part of valid UTF-8 becomes `\xHH`.
pub fn escape_path(path: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter == '\\' {
                text.push('\\');
            }
            text.push(letter);
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
    text
}

/// The bytes of a path written by `escape_path`. `Damaged` for what that does not write.
pub fn unescape_path(text: &str) -> Result<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            path.push(*first);
            continue;
        }
        match rest {
            [b'\\', after @ ..] => {
                path.push(b'\\');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                let digits = [*high, *low];
                let byte = std::str::from_utf8(&digits).ok().and_then(crate::id::from_hex::<1>);
                let Some([byte]) = byte else { return Err(bad_path(text)) };
                path.push(byte);
                rest = after;
            }
            _ => return Err(bad_path(text)),
        }
    }
    if escape_path(&path) != text {
        return Err(bad_path(text));
    }
    Ok(path)
}

#[cold]
fn bad_path(text: &str) -> Error {
    Error::damaged(format!("\"{}\" is not a path as firn writes it", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mutation::{self, Rng};

    #[test]
    fn paths() {
        for (path, text) in [
            (&b"/a b"[..], "/a b"),
            (b"/a\\b", "/a\\\\b"),
            (b"/\xff\xc3\xa4\x80", "/\\xff\u{e4}\\x80"),
            (b"/\\xff", "/\\\\xff"),
            (b"", ""),
        ] {
            assert_eq!(escape_path(path), text);
            assert_eq!(unescape_path(text).unwrap(), path);
        }
        for bad in ["\\", "\\x", "\\xf", "\\xFF", "\\x41", "\\n", "a\\", "\\xc3\\xa4", "\\x\u{e4}"] {
            assert!(unescape_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mutated_paths() {
        let mut rng = Rng::new(11);
        let corpus: Vec<Vec<u8>> = (1..30).map(|len| escape_path(&rng.bytes(len)).into_bytes()).collect();
        mutation::exercise(&corpus, |bytes| {
            let text = std::str::from_utf8(bytes).ok()?;
            Some(escape_path(&unescape_path(text).ok()?).into_bytes())
        });
    }
}
