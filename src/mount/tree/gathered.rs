//! Numbers and names of what a mount gathers from several snapshots: the folders of a path's versions and of what is gone. Not for:
//! which versions there are (see `history`), or showing them (see `mount`).
//!
//! ```text
//! bits   62 61   60 … 36   35 … 0
//!         0  0    slot      rank            an entry of a snapshot, as everywhere (see `tree`)
//!         0  1    slot      rank            the folder of the versions of the path that this entry has
//!         1  0    slot      rank            the folder of what is gone from that path
//!         1  1    slot      depth, rank     the entry once more, below a folder at that depth that is shown as a version: the depth
//!                                           times one more than the highest rank of the snapshot, and the rank
//! ```
//!
//! So every number leads back to a path through the pages of a snapshot, also after a remount, and there is no table. A directory
//! must not have one number in two places, and one that is a version itself is below versions of the folders above it as well:
//! hence the depth.

use super::layout::Layout;
use super::numbers::{RANK_BITS, ROOT_RANK, SnapshotTree};
use jiff::Timestamp;
use std::collections::HashSet;
use std::sync::Arc;

/// Bits of a snapshot's slot.
pub const SLOT_BITS: u32 = 25;
/// Longest ending that a version takes over from its file, in bytes.
const LONGEST_ENDING: usize = 32;
/// Longest text of a time, in bytes; a number and an ending fit behind it into a name.
const LONGEST_TIME: usize = 200;

/// What an inode number outside of snapshots stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The folder of a path's versions.
    Versions,
    /// The folder of what is gone from a path.
    Deleted,
    /// Something in a folder that is a version.
    Body,
}

/// What an inode number of a class was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Which class.
    pub class: Class,
    /// Of the snapshot.
    pub slot: u32,
    /// Of the entry; of a `Body`, with the depth of the version's folder (see `depth_and_rank`).
    pub rank: u64,
}

impl Number {
    /// The inode number of a folder for the path of this entry.
    pub fn of_folder(class: Class, slot: u32, rank: u64) -> u64 {
        let class = if class == Class::Deleted { 2 } else { 1 };
        class << (RANK_BITS + SLOT_BITS) | u64::from(slot) << RANK_BITS | rank
    }

    /// What a number was made from; `None` for one that is in a snapshot or in the folders around them.
    pub fn parse(ino: u64) -> Option<Number> {
        let slot = ((ino >> RANK_BITS) & ((1 << SLOT_BITS) - 1)) as u32;
        let rank = ino & ((1 << RANK_BITS) - 1);
        let class = match ino >> (RANK_BITS + SLOT_BITS) {
            1 => Class::Versions,
            2 => Class::Deleted,
            3 => Class::Body,
            _ => return None,
        };
        Some(Number { class, slot, rank })
    }
}

/// How many names a path has.
pub fn depth(path: &[u8]) -> u64 {
    path.iter().filter(|byte| **byte == b'/').count() as u64
}

/// How many numbers a snapshot takes at each depth: one more than its highest rank.
fn span(tree: &SnapshotTree) -> u64 {
    tree.named().snapshot.totals.entries.saturating_add(ROOT_RANK + 1)
}

/// The depth of the version's folder and the rank of the entry that the last part of a `Body`'s number was made from, in this snapshot.
pub fn depth_and_rank(tree: &SnapshotTree, rank: u64) -> (u64, u64) {
    (rank / span(tree), rank % span(tree))
}

/// The tree of a snapshot below versions at this depth; `None` if its numbers do not reach so far down: a directory that was numbered
/// like another one would be taken for it.
pub fn body(tree: &SnapshotTree, depth: u64) -> Option<Arc<SnapshotTree>> {
    let span = span(tree);
    let first = depth.checked_mul(span)?;
    if first.checked_add(span)? > 1 << RANK_BITS {
        return None;
    }
    let base = 3 << (RANK_BITS + SLOT_BITS) | u64::from(tree.slot()) << RANK_BITS;
    Some(Arc::new(tree.renumbered(base + first)))
}

/// Makes names of times that are unique in a folder.
#[derive(Debug)]
pub struct VersionNames<'l> {
    layout: &'l Layout,
    ending: Vec<u8>,
    taken: HashSet<Vec<u8>>,
}

impl<'l> VersionNames<'l> {
    /// For the versions of something of this name.
    pub fn new(layout: &'l Layout, name: &[u8]) -> VersionNames<'l> {
        VersionNames { layout, ending: ending(name).to_vec(), taken: HashSet::new() }
    }

    /// A time as it begins a name.
    pub fn time(layout: &Layout, time: Timestamp) -> String {
        let mut text = layout.written(time).replace(|c: char| c == '/' || c.is_control(), "_");
        while text.len() > LONGEST_TIME {
            text.pop();
        }
        if matches!(text.as_str(), "" | "." | "..") { format!("_{text}") } else { text }
    }

    /// The name of the version that appeared at this time, as a file with its own ending: what is taken gets `_2` and so on.
    pub fn name(&mut self, time: Timestamp, is_file: bool, is_taken: &dyn Fn(&[u8]) -> bool) -> Vec<u8> {
        let text = VersionNames::time(self.layout, time);
        let ending: &[u8] = if is_file { &self.ending } else { b"" };
        let mut number = 1u64;
        loop {
            let behind = if number == 1 { String::new() } else { format!("_{number}") };
            let name = [text.as_bytes(), behind.as_bytes(), ending].concat();
            if !is_taken(&name) && self.taken.insert(name.clone()) {
                return name;
            }
            number += 1;
        }
    }
}

/// The time that a name begins with, if it can be that of a version: it stands alone or with a number behind it.
pub fn time_of(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte == b'_') {
        Some(at) if at + 1 < name.len() && name[at + 1..].iter().all(u8::is_ascii_digit) => &name[..at],
        _ => name,
    }
}

/// The ending by which programs know a file's type, with the dot: `.txt`, `.tar.gz`; none of `.profile`.
fn ending(name: &[u8]) -> &[u8] {
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0) else { return b"" };
    let stem = &name[..dot];
    let start = if stem.len() > 4 && stem.ends_with(b".tar") { dot - 4 } else { dot };
    match &name[start..] {
        b"." => b"",
        ending if ending.len() > LONGEST_ENDING || ending.contains(&b' ') => b"",
        ending => ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    #[test]
    fn numbers_lead_back() {
        let most = (1 << SLOT_BITS) - 1;
        for (class, slot, rank) in [(Class::Versions, 1, 2), (Class::Deleted, most, (1 << RANK_BITS) - 1)] {
            let ino = Number::of_folder(class, slot, rank);
            assert_eq!(Number::parse(ino), Some(Number { class, slot, rank }));
            assert!(i64::try_from(ino).is_ok());
        }
        let body = 3u64 << 61 | u64::from(most) << 36 | 31 << 31 | 77;
        let expected = Number { class: Class::Body, slot: most, rank: 31 << 31 | 77 };
        assert_eq!(Number::parse(body), Some(expected));
        for other in [0, 1, u64::from(most) << RANK_BITS | 5, u64::MAX, 1 << 63] {
            assert_eq!(Number::parse(other), None, "{other}");
        }
        assert_eq!((depth(b""), depth(b"/a/b"), depth(&b"/a".repeat(100))), (0, 2, 100));
    }

    #[test]
    fn endings_are_those_that_programs_know() {
        for (name, expected) in [
            (&b"a.txt"[..], &b".txt"[..]),
            (b"a.b.tar.gz", b".tar.gz"),
            (b".tar.gz", b".gz"),
            (b".profile", b""),
            (b"Makefile", b""),
            (b"ends.", b""),
            (b"1. What I did", b""),
            (b"x.\xff", b".\xff"),
        ] {
            assert_eq!(ending(name), expected, "{}", name.escape_ascii());
        }
        assert_eq!(ending(&[b"a.", "x".repeat(99).as_bytes()].concat()), b"");
    }

    #[test]
    fn names_of_versions_are_unique() {
        let layout = Layout::from(TimeZone::UTC);
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (one, two) = (time("2026-01-01T00:00:00.1Z"), time("2026-01-01T00:00:00.9Z"));
        let mut names = VersionNames::new(&layout, b"a.txt");
        let none = |_: &[u8]| false;
        assert_eq!(names.name(one, true, &none), b"2026-01-01_00-00-00.txt");
        assert_eq!(names.name(two, true, &none), b"2026-01-01_00-00-00_2.txt");
        assert_eq!(names.name(two, false, &|name| name == b"2026-01-01_00-00-00"), b"2026-01-01_00-00-00_2");
        let layout = layout.with_time("%Y/%m").unwrap();
        let mut names = VersionNames::new(&layout, b"a.txt");
        assert_eq!(names.name(one, true, &none), b"2026_01.txt");
        let layout = layout.with_time(&"%Y".repeat(100)).unwrap();
        let mut names = VersionNames::new(&layout, b"a.txt");
        assert_eq!((names.name(one, true, &none).len(), names.name(one, true, &none).len()), (204, 206));
        assert_eq!(
            (time_of(b"2026-01_2"), time_of(b"2026_x"), time_of(b"_")),
            (&b"2026-01"[..], &b"2026_x"[..], &b"_"[..])
        );
    }
}
