//! Where content is cut: FastCDC with a secret table, "Chunker 1" of `man/firn-repository.7` (Xia et al., 2016 and
//! 2020). Not for: reading, holes and zero runs (see `pieces`).

use crate::chunk::secret::{Secret, keyed_xof};
use std::fmt;
use zeroize::Zeroize;

/// The shortest chunk, in bytes, except at the end of a run of data.
pub const MIN_CHUNK: usize = 512 << 10;
/// The size that cuts tend to, in bytes.
pub const AVG_CHUNK: usize = 1 << 20;
/// The longest chunk, in bytes.
pub const MAX_CHUNK: usize = 4 << 20;

/// Stricter mask below the average, looser one above.
const MASK_S: u64 = 0x0000_d917_6753_7000;
const MASK_L: u64 = 0x0000_d917_0753_7000;

/// Finds cuts. The table is a secret, so that chunk sizes do not give known content away.
pub struct Splitter(Box<Tables>);

struct Tables {
    gear: [u64; 256],
    /// Each entry of `gear` shifted left by one, for the odd steps of the 2020 algorithm.
    shifted: [u64; 256],
}

impl Splitter {
    /// The splitter that follows from a repository's chunker secret.
    pub fn new(chunker_secret: &Secret) -> Self {
        let key = Secret::kdf("firn v1 chunker table", &[chunker_secret.bytes()]);
        let mut bytes = [0; 2048];
        keyed_xof(&key, &[], &mut bytes);
        let mut tables = Box::new(Tables { gear: [0; 256], shifted: [0; 256] });
        for (i, entry) in bytes.as_chunks::<8>().0.iter().enumerate() {
            tables.gear[i] = u64::from_le_bytes(*entry);
            tables.shifted[i] = tables.gear[i] << 1;
        }
        bytes.zeroize();
        Splitter(tables)
    }

    /// The length of the first chunk of `data`, or `None` if more data must be seen first.
    ///
    /// `last` says that the run of data ends with `data`; then the answer is at most `data.len()` and never `None`
    /// unless `data` is empty. The answer does not depend on how much data beyond the cut is given: a cut found
    /// before the end of `data` is the cut that all longer data has (one in the last two bytes is not yet found).
    pub fn cut(&self, data: &[u8], last: bool) -> Option<usize> {
        let (_, length) = fastcdc::v2020::cut_gear(
            data,
            MIN_CHUNK,
            AVG_CHUNK,
            MAX_CHUNK,
            MASK_S,
            MASK_L,
            MASK_S << 1,
            MASK_L << 1,
            &self.0.gear,
            &self.0.shifted,
        );
        let found = length < data.len() || length >= MAX_CHUNK || (last && length > 0);
        found.then_some(length)
    }
}

impl Drop for Splitter {
    fn drop(&mut self) {
        self.0.gear.zeroize();
        self.0.shifted.zeroize();
    }
}

impl fmt::Debug for Splitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Splitter(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter() -> Splitter {
        Splitter::new(&Secret::from_bytes(&[3; 32]))
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"split").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(splitter: &Splitter, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = splitter.cut(data, true) {
            lengths.push(length);
            data = &data[length..];
        }
        assert!(data.is_empty());
        lengths
    }

    // Python: the table from the first 2,048 bytes of blake3(b"", key=kdf("firn v1 chunker table", secret)), then the
    // plain one-byte-a-step gear loop over blake3(b"split")'s extended output.
    #[test]
    fn known_answers() {
        let splitter = splitter();
        assert_eq!(splitter.0.gear[0], 0x1a72_b946_a579_ee1f);
        assert_eq!(splitter.0.gear[255], 0x9744_d3e4_cc04_5ab6);
        assert_eq!(
            cuts(&splitter, &noise(8_000_001)),
            [1_450_914, 1_056_347, 2_085_257, 1_263_648, 1_600_315, 543_520]
        );
    }

    #[test]
    fn sizes_are_bounded_and_near_the_average() {
        let lengths = cuts(&splitter(), &noise(64 << 20));
        let (last, others) = lengths.split_last().unwrap();
        assert!(others.iter().all(|length| (MIN_CHUNK..=MAX_CHUNK).contains(length)) && *last <= MAX_CHUNK);
        let mean = (64 << 20) / lengths.len();
        assert!((AVG_CHUNK * 3 / 4..AVG_CHUNK * 3 / 2).contains(&mean), "{mean}");
        // Data without any cut: all bytes equal.
        assert_eq!(cuts(&splitter(), &vec![1; 9 << 20]), [MAX_CHUNK, MAX_CHUNK, 1 << 20]);
    }

    #[test]
    fn more_data_does_not_move_a_cut() {
        let (splitter, data) = (splitter(), noise(6 << 20));
        let whole = splitter.cut(&data, true).unwrap();
        for seen in [0, 1, MIN_CHUNK, whole - 1, whole] {
            assert_eq!(splitter.cut(&data[..seen], false), None, "{seen}");
        }
        for seen in [whole + 2, whole + 3, whole + 1001, MAX_CHUNK, MAX_CHUNK + 1] {
            assert_eq!(splitter.cut(&data[..seen], false), Some(whole), "{seen}");
        }
        assert_eq!(splitter.cut(&[], true), None);
        assert_eq!(splitter.cut(&[5], true), Some(1));
    }

    #[test]
    fn most_chunks_survive_a_change() {
        let (splitter, data) = (splitter(), noise(32 << 20));
        let chunks = |data: &[u8]| -> Vec<blake3::Hash> {
            let mut start = 0;
            let cut = |length| {
                start += length;
                blake3::hash(&data[start - length..start])
            };
            cuts(&splitter, data).into_iter().map(cut).collect()
        };
        let before = chunks(&data);
        let lost = |changed: &[u8]| {
            let after = chunks(changed);
            before.iter().filter(|chunk| !after.contains(chunk)).count()
        };
        assert_eq!(lost(&data), 0);
        for at in [0, 1, 600_001, 1_000_000, 20_000_001, data.len()] {
            let mut changed = data.clone();
            changed.insert(at, 0x77);
            assert!((1..=4).contains(&lost(&changed)), "a byte inserted at {at}: {}", lost(&changed));
        }
        for removed in [1, 300_000, 700_001, 5_000_000] {
            let gone = before.len() - chunks(&data[removed..]).len();
            assert!(lost(&data[removed..]) <= gone + 5, "{removed} bytes removed: {}", lost(&data[removed..]));
        }
    }

    #[test]
    fn another_secret_cuts_elsewhere() {
        let data = noise(16 << 20);
        let other = Splitter::new(&Secret::from_bytes(&[4; 32]));
        assert_ne!(cuts(&splitter(), &data), cuts(&other, &data));
    }
}
