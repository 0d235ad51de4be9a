//! Which pages were walked already, and what came of it: a memory of bounded size. Not for: anything that must not be forgotten;
//! a page that is no longer remembered is walked again.
//!
//! Memory: two generations of at most `GENERATION` pages, 17 bytes each in tables that are at least 7/16 full: 80 MB at most.
//! What is asked for stays; the pages high up in trees, which all snapshots ask for, are the last to go.

use crate::view::references::Edges;
use std::collections::HashMap;

/// Pages in one generation.
#[cfg(not(test))]
const GENERATION: usize = 900_000;
#[cfg(test)]
const GENERATION: usize = 8;

/// What came of walking a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of a list page.
    pub edges: Edges,
    /// Something bad can be reached from it.
    pub is_tainted: bool,
}

/// Pages by their keys.
#[derive(Debug, Default)]
pub(super) struct Seen {
    young: HashMap<[u8; 16], u8>,
    old: HashMap<[u8; 16], u8>,
}

impl Seen {
    /// What is remembered of a page.
    pub(super) fn get(&mut self, key: &[u8; 16]) -> Option<Mark> {
        if let Some(bits) = self.young.get(key) {
            return Some(unpack(*bits));
        }
        let bits = *self.old.get(key)?;
        self.insert(*key, bits);
        Some(unpack(bits))
    }

    /// Remembers a page.
    pub(super) fn put(&mut self, key: [u8; 16], mark: Mark) {
        let bits = u8::from(mark.edges.begins) | u8::from(mark.edges.ends) << 1 | u8::from(mark.is_tainted) << 2;
        self.insert(key, bits);
    }

    fn insert(&mut self, key: [u8; 16], bits: u8) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, bits);
    }
}

fn unpack(bits: u8) -> Mark {
    Mark { edges: Edges { begins: bits & 1 != 0, ends: bits & 2 != 0 }, is_tainted: bits & 4 != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_size_is_bounded() {
        let mut seen = Seen::default();
        let mark = Mark { edges: Edges { begins: false, ends: true }, is_tainted: true };
        seen.put([255; 16], mark);
        for n in 0..100 {
            seen.put([n; 16], Mark::default());
            assert_eq!(seen.get(&[255; 16]), Some(mark), "{n}");
            assert!(seen.young.len() + seen.old.len() <= 2 * GENERATION);
        }
        assert_eq!(seen.get(&[0; 16]), None);
        assert_eq!(seen.get(&[99; 16]), Some(Mark::default()));
    }
}
