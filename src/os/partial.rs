//! Names of files that firn makes for a while only. A checksum in the name proves that firn made it up, so that no file of a user
//! that merely looks like one is left out or removed. Not for: making or removing them (see `restore`).

const BEGIN: &str = ".firn-";
const END: &str = ".partial";
/// Digits of the checksum: 64 bits.
const DIGITS: usize = 16;

/// A name that says `text`, which has no slash.
pub fn partial_name(text: &str) -> Vec<u8> {
    format!("{BEGIN}{text}-{}{END}", checksum(text)).into_bytes()
}

/// What a name that firn made up says; `None` of every other name.
pub fn partial_text(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let (text, found) = name.rsplit_once('-')?;
    (found == checksum(text)).then_some(text)
}

fn checksum(text: &str) -> String {
    let hash = blake3::derive_key("firn 2026-12-01 name of a partial file", text.as_bytes());
    hash[..DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_passes_that_firn_did_not_make_up() {
        let name = partial_name("78f2c413-ca0-0");
        assert_eq!(partial_text(&name), Some("78f2c413-ca0-0"));
        assert!(name.len() < 140, "encrypted file systems allow no more");
        for at in BEGIN.len()..name.len() {
            let mut other = name.clone();
            other[at] ^= 1;
            assert_eq!(partial_text(&other), None, "{}", String::from_utf8_lossy(&other));
        }
        assert_eq!(partial_text(&[&name[..], b"~"].concat()), None);
        assert_eq!(partial_text(&name.to_ascii_uppercase()), None);
        for name in
            [".firn-new.partial", ".firn-78f2c413-c25c308a-d1020ae5-ca0-131b17-ea170566-0.partial", ".firn-.partial"]
        {
            assert_eq!(partial_text(name.as_bytes()), None, "{name}");
        }
    }
}
