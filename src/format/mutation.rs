//! Damages valid records in many ways and feeds them to a decoder (tests only). Not for: finding all bugs; the rounds are
//! few unless `FIRN_FUZZ_ROUNDS` asks for more.

/// A small generator of reproducible random numbers (SplitMix64, Steele and others 2014).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }

    /// Mostly small, sometimes as large as can be.
    pub(crate) fn number(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }
}

/// How many damaged inputs each decoder gets.
pub(crate) fn rounds() -> usize {
    std::env::var("FIRN_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000)
}

/// One damaged input made of the `corpus`.
pub(crate) fn mutate(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    const INTERESTING: [u8; 12] = [0, 1, 2, 3, 4, 0x1f, 0x20, 0x7f, 0x80, 0x81, 0xfe, 0xff];
    let mut bytes = corpus[rng.below(corpus.len())].clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = INTERESTING[rng.below(INTERESTING.len())],
            2 => bytes.truncate(at),
            3 => {
                let len = 1 + rng.below(9);
                let insert = rng.bytes(len);
                bytes.splice(at..at, insert);
            }
            4 => {
                let end = (at + 1 + rng.below(40)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            5 => {
                let other = &corpus[rng.below(corpus.len())];
                let from = rng.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 => {
                // A length field with an extreme value.
                let value = [u32::MAX, 0x8000_0000, 0, 1, 0x0100_0001][rng.below(5)].to_le_bytes();
                for (byte, new) in bytes.iter_mut().skip(at).zip(value) {
                    *byte = new;
                }
            }
            _ => {
                let end = (at + 1 + rng.below(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

/// Every record of the `corpus` must be accepted, no damaged one may panic, and whatever is accepted must be what the
/// encoder would have written. `again` decodes and encodes again; `None` means rejected.
pub(crate) fn exercise(corpus: &[Vec<u8>], again: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    assert!(!corpus.is_empty());
    for bytes in corpus {
        assert_eq!(again(bytes).as_ref(), Some(bytes), "a valid record was changed or rejected");
    }
    let mut rng = Rng::new(0x6669_726e);
    for round in 0..rounds() {
        let bytes = mutate(corpus, &mut rng);
        if let Some(encoded) = again(&bytes) {
            assert_eq!(encoded, bytes, "round {round}: accepted, but not as the encoder writes it");
        }
    }
}
