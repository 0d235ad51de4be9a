//! Targets that do not tell all names apart: exFAT, vfat, folders of ext4 that fold case, shares. Two things of one
//! directory whose names are one there would become one thing, so the second is refused. Not for: names that such a target
//! cannot hold at all, which is an error of the system.
//!
//! What this restore makes where nothing was is never put over anything (see `Target::place`), which finds most of it,
//! whatever the target's rules are. Here are the names of what was there before, of which the rules do not show.
//!
//! Memory: 16 bytes for each name of the directories that the walk is in, if their file system folds names.

use rustix::fs::Dir;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

/// Names of one directory that were met so far, all letters alike; none where names are told apart.
pub(super) type Met = Option<HashSet<u128>>;

/// Whether a directory has this name in this very spelling. It is only asked where two names fall together.
pub(super) fn is_spelt(directory: &OwnedFd, name: &[u8]) -> bool {
    let Ok(entries) = Dir::read_from(directory.as_fd()) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_bytes() == name)
}

/// Notes a name; true if one was met before that a target may take for the same.
pub(super) fn meets_another(met: &mut Met, name: &[u8]) -> bool {
    met.as_mut().is_some_and(|met| !met.insert(folded(name)))
}

fn folded(name: &[u8]) -> u128 {
    let hash = match std::str::from_utf8(name) {
        Ok(name) => {
            let folded: String = name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
            // Windows' file systems do not keep these at the end.
            blake3::hash(folded.trim_end_matches(['.', ' ']).as_bytes())
        }
        Err(_) => blake3::hash(name),
    };
    u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The other spelling of a name in small letters.
pub(super) fn in_capitals(name: &[u8]) -> Vec<u8> {
    name.to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_together() {
        let mut met = Some(HashSet::new());
        assert!(!meets_another(&mut met, b"Makefile") && meets_another(&mut met, b"makefile"));
        assert!(!meets_another(&mut met, "É".as_bytes()) && meets_another(&mut met, "é".as_bytes()));
        assert!(!meets_another(&mut met, b"a") && meets_another(&mut met, b"a. "));
        assert!(!meets_another(&mut met, b"\xff") && !meets_another(&mut met, b"\xfe"));
        assert!(!meets_another(&mut None, b"x") && !meets_another(&mut None, b"x"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"").unwrap();
        let opened: OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        assert!(is_spelt(&opened, b"a") && !is_spelt(&opened, b"A"));
    }
}
