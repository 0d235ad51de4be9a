//! Targets that do not tell all names apart: exFAT, vfat, folders of ext4 that fold case, shares. Two things of one
//! directory whose names are one there would become one thing, so the second is refused. Not for: names that such a target
//! cannot hold at all, which is an error of the system.
//!
//! What this restore makes where nothing was is never put over anything (see `Target::place`), which finds most of it,
//! whatever the target's rules are. Here are the names of what was there before, of which the rules do not show.
//!
//! Memory: each name of the directories that the walk is in, and 48 bytes with it, if their file system folds names.

use crate::os;
use rustix::fs::Dir;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

/// Names of one directory that were met so far, by what they are with all letters alike; none where names are told apart. Several
/// that are alike have a slash between them.
pub(super) type Met = Option<HashMap<u128, Vec<u8>>>;

/// Notes a name. Returns those met before that a target may take for the same, with a slash between them; often none.
pub(super) fn meets(met: &mut Met, name: &[u8]) -> Vec<u8> {
    let Some(met) = met else { return Vec::new() };
    let alike = met.entry(folded(name)).or_default();
    let before = alike.clone();
    if !before.is_empty() {
        alike.push(b'/');
    }
    alike.extend_from_slice(name);
    before
}

/// Whether what a directory has under this name is what it has under one of the others (see `meets`), whichever of them it is
/// spelt like there. It is only asked where something has the name.
pub(super) fn falls_together(directory: &OwnedFd, others: &[u8], name: &[u8]) -> bool {
    let Ok(found) = os::stat_at(directory, name) else { return false };
    // Some file systems have another inode number for each spelling.
    let has_numbers = !os::may_renumber(directory);
    let is_it =
        |other: &&[u8]| os::stat_at(directory, other).is_ok_and(|other| !has_numbers || other.same_file(&found));
    let mut unlisted: HashSet<&[u8]> =
        others.split(|byte| *byte == b'/').filter(|other| !other.is_empty() && *other != name).filter(is_it).collect();
    if unlisted.is_empty() {
        return false;
    }
    // Two names that are listed are two things, or a file that has both.
    unlisted.insert(name);
    let Ok(entries) = Dir::read_from(directory.as_fd()) else { return true };
    for entry in entries.flatten() {
        unlisted.remove(entry.file_name().to_bytes());
    }
    !unlisted.is_empty()
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

    fn meets_another(met: &mut Met, name: &[u8]) -> bool {
        !meets(met, name).is_empty()
    }

    #[test]
    fn names_fall_together() {
        let mut met = Some(HashMap::new());
        assert!(!meets_another(&mut met, b"Makefile") && meets_another(&mut met, b"makefile"));
        assert_eq!(meets(&mut met, b"MAKEFILE"), b"Makefile/makefile");
        assert!(!meets_another(&mut met, "É".as_bytes()) && meets_another(&mut met, "é".as_bytes()));
        assert!(!meets_another(&mut met, b"a") && meets_another(&mut met, b"a. "));
        assert!(!meets_another(&mut met, b"\xff") && !meets_another(&mut met, b"\xfe"));
        assert!(!meets_another(&mut None, b"x") && !meets_another(&mut None, b"x"));
    }

    #[test]
    fn what_is_told_apart_does_not_fall_together() {
        let folder = tempfile::tempdir().unwrap();
        let opened: OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a"), b"").unwrap();
        assert!(!falls_together(&opened, b"A", b"a"), "the other is not there");
        std::fs::write(at("A"), b"").unwrap();
        assert!(!falls_together(&opened, b"A", b"a"), "two files");
        std::fs::hard_link(at("a"), at("a.")).unwrap();
        std::os::unix::fs::symlink("a", at("A.")).unwrap();
        assert!(!falls_together(&opened, b"A/a./A.", b"a"), "one file with two names, and a link to it");
        assert!(!falls_together(&opened, b"", b"a") && !falls_together(&opened, b"b", b"B"));
        // A file system that does not know its letters apart is not always at hand; a path leads to one thing without being a name.
        assert!(falls_together(&opened, b"a", b"./a"));
    }
}
