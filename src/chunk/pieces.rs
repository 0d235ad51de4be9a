//! A file becomes chunks and holes, in bounded memory: runs of zeros are left out, the rest is cut. Not for: finding
//! the file system's holes or opening files (the caller's `Source` does), nor the rule of cutting (see `split`).
//!
//! What comes out depends only on the bytes and on holes that are not aligned, never on the sizes of reads. Every
//! aligned 64 KiB of zeros in data become part of a hole, so for aligned holes it also does not matter whether zeros
//! were stored or not. At most 8 MiB of the file are in memory; bytes move at most once after they were read.

use crate::chunk::split::{MAX_CHUNK, Splitter};
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

/// Zeros of this size and alignment (of the file's offset) become holes.
pub const ZERO_BLOCK: usize = 64 << 10;
/// The most that is read at once: it should still be in the CPU's cache when it is cut and hashed.
const READ_STEP: usize = 1 << 20;
/// The buffer: a longest chunk, what is not yet looked at, a read, and room so that bytes seldom move.
const BUFFER_SIZE: usize = 2 * MAX_CHUNK;
/// With this much data most cuts are found at the first try.
const FIRST_TRY: usize = 2 << 20;

/// What comes next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This many bytes can be read; `u64::MAX`: all until the end.
    Data(u64),
    /// This many bytes are a hole; the source goes on reading behind it.
    Hole(u64),
}

/// Where content comes from.
///
/// `segment` is called at the start and whenever the last data segment was read to its end, until it says `None`.
/// `read` is called only in a data segment and asks for no more than remains of it; it may return less, and 0 means
/// that the content ends here, whatever the segment promised (the file was cut short meanwhile).
pub trait Source {
    /// The next segment, or `None` at the end of the content. Neighbours of the same kind are allowed.
    fn segment(&mut self) -> io::Result<Option<Segment>>;
    /// Reads as `std::io::Read` does.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A reader as one segment of data until its end: a pipe, or a file without holes.
#[derive(Debug)]
pub struct Whole<R> {
    reader: R,
    begun: bool,
}

impl<R: Read> Whole<R> {
    /// All that `reader` gives.
    pub fn new(reader: R) -> Self {
        Whole { reader, begun: false }
    }
}

impl<R: Read> Source for Whole<R> {
    fn segment(&mut self) -> io::Result<Option<Segment>> {
        let first = !std::mem::replace(&mut self.begun, true);
        Ok(first.then_some(Segment::Data(u64::MAX)))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// A piece of a file, in order; together they cover it without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A chunk of 1 ... 4 MiB (less at the end of a run of data); borrowed until the next call.
    Data(&'a [u8]),
    /// This many zeros that are not stored; two holes never follow one another.
    Hole(u64),
}

/// Cuts one file after the other with the same buffer.
pub struct Chunks {
    splitter: Arc<Splitter>,
    /// Empty until first used. `start <= ready <= end`: data from `start` to `ready` was looked at and is to be cut;
    /// data up to `end` was read.
    buffer: Vec<u8>,
    start: usize,
    ready: usize,
    end: usize,
    /// The file's offset of `buffer[0]`; only its remainder by `ZERO_BLOCK` matters.
    base: u64,
    /// `ready` stands before a block of zeros.
    zeros: bool,
    /// Looking for a cut in less than a longest chunk was in vain.
    tried: bool,
    /// A hole that was not yet handed out.
    hole: u64,
    /// What remains of the segment that is being read.
    left: u64,
    /// No more data follows directly on the buffered data, but a hole of `after` bytes or the end.
    closed: bool,
    after: u64,
    ended: bool,
    offset: u64,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Chunks {
    /// Ready for a first file.
    pub fn new(splitter: Arc<Splitter>) -> Self {
        Chunks {
            splitter,
            buffer: Vec::new(),
            start: 0,
            ready: 0,
            end: 0,
            base: 0,
            zeros: false,
            tried: false,
            hole: 0,
            left: 0,
            closed: false,
            after: 0,
            ended: false,
            offset: 0,
        }
    }

    /// Forgets the file at hand, finished or not; the next call of `next` begins another.
    pub fn restart(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        *self = Chunks { buffer, ..Chunks::new(Arc::clone(&self.splitter)) };
    }

    /// How many bytes of the file were handed out, holes included. At the end: the length that was really there.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece, or `None` at the end. After an error of the source only `restart` makes sense.
    pub fn next(&mut self, source: &mut impl Source) -> io::Result<Option<Piece<'_>>> {
        loop {
            let length = self.ready - self.start;
            let complete = self.zeros || (self.closed && self.ready == self.end);
            if length > 0 {
                if self.hole > 0 {
                    return Ok(Some(self.take_hole()));
                }
                if let Some(cut) = self.try_cut(complete) {
                    return Ok(Some(self.take_data(cut)));
                }
            } else if self.zeros {
                self.zeros = false;
                self.hole = self.hole.saturating_add(ZERO_BLOCK as u64);
                self.ready += ZERO_BLOCK;
                self.start = self.ready;
                self.classify();
                continue;
            } else if complete {
                self.hole = self.hole.saturating_add(self.after);
                self.base = self.base.wrapping_add(self.end as u64).wrapping_add(self.after);
                (self.start, self.ready, self.end, self.after) = (0, 0, 0, 0);
                if self.ended {
                    return Ok(if self.hole > 0 { Some(self.take_hole()) } else { None });
                }
                self.closed = false;
            }
            self.fill(source)?;
        }
    }

    fn take_hole(&mut self) -> Piece<'_> {
        let hole = std::mem::take(&mut self.hole);
        self.offset = self.offset.saturating_add(hole);
        Piece::Hole(hole)
    }

    fn take_data(&mut self, length: usize) -> Piece<'_> {
        let start = self.start;
        self.start += length;
        self.offset = self.offset.saturating_add(length as u64);
        self.tried = false;
        Piece::Data(&self.buffer[start..self.start])
    }

    /// The length of the next chunk; `complete`: the run of data ends at `ready`.
    fn try_cut(&mut self, complete: bool) -> Option<usize> {
        let data = &self.buffer[self.start..self.ready];
        let enough = data.len() >= MAX_CHUNK || (data.len() >= FIRST_TRY && !self.tried);
        if !complete && !enough {
            return None;
        }
        let cut = self.splitter.cut(data, complete);
        self.tried = cut.is_none();
        cut
    }

    /// Reads once, or learns what follows the segment that was read.
    fn fill(&mut self, source: &mut impl Source) -> io::Result<()> {
        if self.left == 0 {
            match source.segment()? {
                Some(Segment::Data(length)) => self.left = length,
                Some(Segment::Hole(length)) => (self.closed, self.after) = (true, length),
                None => (self.closed, self.ended) = (true, true),
            }
            self.classify();
            return Ok(());
        }
        self.make_room();
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(READ_STEP).min(BUFFER_SIZE - self.end);
        let read = loop {
            match source.read(&mut self.buffer[self.end..self.end + most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?.min(most),
            }
        };
        if read == 0 {
            (self.left, self.closed, self.ended) = (0, true, true);
        }
        self.end += read;
        self.left -= read as u64;
        self.classify();
        Ok(())
    }

    /// Moves what is buffered to the front when the next read would not fit behind it.
    fn make_room(&mut self) {
        if self.buffer.is_empty() {
            // Zeroed memory comes from the system page by page: small files never touch most of it.
            self.buffer = vec![0; BUFFER_SIZE];
        }
        if self.start == self.end || BUFFER_SIZE - self.end < READ_STEP {
            self.buffer.copy_within(self.start..self.end, 0);
            self.base = self.base.wrapping_add(self.start as u64);
            self.ready -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Looks at the aligned blocks that have been read, up to the first of zeros.
    fn classify(&mut self) {
        while !self.zeros && self.ready < self.end {
            let rest = self.end - self.ready;
            let into = (self.base.wrapping_add(self.ready as u64) % ZERO_BLOCK as u64) as usize;
            if into > 0 {
                // Data that begins within a block, behind a hole, never makes a whole block.
                self.ready += rest.min(ZERO_BLOCK - into);
            } else if rest >= ZERO_BLOCK {
                if is_zero(&self.buffer[self.ready..self.ready + ZERO_BLOCK]) {
                    self.zeros = true;
                } else {
                    self.ready += ZERO_BLOCK;
                }
            } else if self.closed {
                self.ready = self.end;
            } else {
                return;
            }
        }
    }
}

/// Whether all bytes are zero. Most data shows that it is not in its first bytes.
pub fn is_zero(data: &[u8]) -> bool {
    // Groups without an exit inside, so that the compiler uses wide registers.
    data.chunks(256).all(|group| group.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::secret::Secret;
    use std::collections::VecDeque;

    /// Serves segments of given bytes, at most `step` bytes a read (in a pattern that is not regular).
    struct Script {
        segments: VecDeque<Segment>,
        data: VecDeque<Vec<u8>>,
        step: usize,
        reads: usize,
    }

    #[derive(Clone)]
    enum Part {
        Data(Vec<u8>),
        Hole(u64),
    }

    fn script(parts: &[Part], step: usize) -> Script {
        let mut script = Script { segments: VecDeque::new(), data: VecDeque::new(), step, reads: 0 };
        for part in parts {
            match part {
                Part::Hole(length) => script.segments.push_back(Segment::Hole(*length)),
                Part::Data(bytes) => {
                    script.segments.push_back(Segment::Data(bytes.len() as u64));
                    script.data.push_back(bytes.clone());
                }
            }
        }
        script
    }

    impl Source for Script {
        fn segment(&mut self) -> io::Result<Option<Segment>> {
            let next = self.segments.pop_front();
            assert!(!matches!(next, Some(Segment::Data(_))) || self.data.front().is_some());
            Ok(next)
        }

        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads += 1;
            if self.reads % 5 == 3 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            while self.data.front().is_some_and(Vec::is_empty) {
                self.data.pop_front();
            }
            let Some(data) = self.data.front_mut() else { return Ok(0) };
            let step = 1 + self.reads.wrapping_mul(2_654_435_761) % self.step;
            let length = buffer.len().min(step).min(data.len());
            buffer[..length].copy_from_slice(&data[..length]);
            data.drain(..length);
            Ok(length)
        }
    }

    fn chunks() -> Chunks {
        Chunks::new(Arc::new(Splitter::new(&Secret::from_bytes(&[3; 32]))))
    }

    /// Lengths of the pieces, holes negative; the bytes must be those of the parts.
    fn pieces(parts: &[Part], step: usize) -> Vec<i64> {
        pieces_of(&mut chunks(), parts, step)
    }

    fn pieces_of(chunks: &mut Chunks, parts: &[Part], step: usize) -> Vec<i64> {
        let (mut source, mut lengths, mut bytes) = (script(parts, step), Vec::new(), Vec::new());
        chunks.restart();
        while let Some(piece) = chunks.next(&mut source).unwrap() {
            match piece {
                Piece::Data(data) => {
                    assert!((1..=MAX_CHUNK).contains(&data.len()));
                    lengths.push(data.len() as i64);
                    bytes.extend_from_slice(data);
                }
                Piece::Hole(length) => {
                    assert!(length > 0 && lengths.last().is_none_or(|last| *last > 0), "two holes in a row");
                    lengths.push(-(length as i64));
                    bytes.resize(bytes.len() + length as usize, 0);
                }
            }
            assert_eq!(chunks.offset(), bytes.len() as u64);
        }
        assert!(matches!(chunks.next(&mut source), Ok(None)));
        assert!(chunks.buffer.len() <= BUFFER_SIZE);
        let expected: Vec<u8> = parts
            .iter()
            .flat_map(|part| match part {
                Part::Data(bytes) => bytes.clone(),
                Part::Hole(length) => vec![0; *length as usize],
            })
            .collect();
        assert!(bytes == expected);
        lengths
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"split").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn data(length: usize) -> Part {
        Part::Data(noise(length))
    }

    const K: usize = 1 << 10;

    #[test]
    fn the_same_bytes_give_the_same_cuts() {
        let bytes = noise(8_000_001);
        let expected = [1_450_914, 1_056_347, 2_085_257, 1_263_648, 1_600_315, 543_520];
        for step in [9_000_000, 1 << 20, 100_003, 4096, 777] {
            assert_eq!(pieces(&[Part::Data(bytes.clone())], step), expected, "step {step}");
        }
        let (one, other) = bytes.split_at(3_333_333);
        assert_eq!(pieces(&[Part::Data(one.into()), Part::Data(other.into())], 500_000), expected);
        let mut whole = Vec::new();
        let (mut chunks, mut source) = (chunks(), Whole::new(&bytes[..]));
        while let Some(Piece::Data(data)) = chunks.next(&mut source).unwrap() {
            whole.push(data.len() as i64);
        }
        assert_eq!(whole, expected);
    }

    #[test]
    fn data_without_cuts_is_cut_at_the_longest() {
        let parts = [Part::Data(vec![1; 10 << 20])];
        for step in [1 << 20, 33_333] {
            assert_eq!(pieces(&parts, step), [4 << 20, 4 << 20, 2 << 20]);
        }
    }

    #[test]
    fn small_files() {
        assert_eq!(pieces(&[], 10), [0; 0]);
        assert_eq!(pieces(&[Part::Data(vec![]), Part::Hole(0), Part::Data(vec![])], 10), [0; 0]);
        for length in [1, 100, 64 * K, 64 * K + 1, 512 * K] {
            assert_eq!(pieces(&[data(length)], 1 << 20), [length as i64]);
        }
        // A small file asks for as little as possible.
        let mut source = script(&[data(100)], 1 << 20);
        source.step = usize::MAX >> 1;
        let mut chunks = chunks();
        while chunks.next(&mut source).unwrap().is_some() {}
        assert_eq!(source.reads, 1);
    }

    #[test]
    fn only_aligned_blocks_of_zeros_become_holes() {
        let k64 = 64 * K as i64;
        let zeros = |length: usize| Part::Data(vec![0; length]);
        assert_eq!(pieces(&[zeros(64 * K - 1)], 10_000), [k64 - 1]);
        assert_eq!(pieces(&[zeros(64 * K)], 10_000), [-k64]);
        assert_eq!(pieces(&[zeros(100 * K)], 10_000), [-k64, 36 * 1024]);
        assert_eq!(pieces(&[data(1), zeros(128 * K - 1)], 10_000), [k64, -k64]);
        assert_eq!(pieces(&[data(1), zeros(128 * K - 2)], 10_000), [2 * k64 - 1]);
        assert_eq!(pieces(&[data(64 * K), zeros(20 << 20), data(5)], 1 << 20), [k64, -(20 << 20), 5]);
        // Data at the end of a hole that is not aligned does not make a whole block.
        assert_eq!(pieces(&[Part::Hole(1000), zeros(128 * K)], 5000), [-1000, k64 - 1000, -k64, 1000]);
    }

    #[test]
    fn holes_and_stored_zeros_are_the_same() {
        let layout = [(3, true), (1, false), (2, true), (40, false), (90, true), (1, false), (1, false), (10, true)];
        let length = |blocks: usize| blocks * 64 * K;
        let mut expected = None;
        for mask in 0_u32..256 {
            let parts: Vec<Part> = layout
                .iter()
                .enumerate()
                .map(|(i, &(blocks, is_data))| match is_data {
                    true => data(length(blocks)),
                    false if mask >> i & 1 == 1 => Part::Hole(length(blocks) as u64),
                    false => Part::Data(vec![0; length(blocks)]),
                })
                .collect();
            if (mask & 0b1001_0101) != 0 {
                // Only the bits of zero parts differ.
                continue;
            }
            let lengths = pieces(&parts, 300_000);
            assert_eq!(expected.get_or_insert(lengths.clone()), &lengths, "mask {mask:b}");
        }
        assert_eq!(expected.unwrap().iter().filter(|length| **length < 0).count(), 3);
    }

    #[test]
    fn holes_that_are_not_aligned_stay_as_they_are() {
        let parts = [data(5000), Part::Hole(123), data(70_000), Part::Hole(1), Part::Hole(2), data(9)];
        assert_eq!(pieces(&parts, 4000), [5000, -123, 70_000, -3, 9]);
        assert_eq!(pieces(&[Part::Hole(7), Part::Hole(64 * K as u64)], 1), [-(7 + 64 * K as i64)]);
        // Zeros next to a hole join it.
        let zeros = Part::Data(vec![0; 64 * K]);
        assert_eq!(pieces(&[zeros.clone(), Part::Hole(100)], 9999), [-(64 * K as i64) - 100]);
        assert_eq!(pieces(&[Part::Hole(64 * K as u64), zeros, data(1)], 9999), [-(128 * K as i64), 1]);
    }

    #[test]
    fn a_buffer_used_again_changes_nothing() {
        let mut chunks = chunks();
        let parts = [data(3_000_000), Part::Hole(64 * K as u64), data(900_000)];
        let first = pieces_of(&mut chunks, &parts, 70_000);
        let mut abandoned = script(&parts, 70_000);
        chunks.restart();
        chunks.next(&mut abandoned).unwrap();
        assert_eq!(pieces_of(&mut chunks, &parts, 123_456), first);
    }

    #[test]
    fn content_that_ends_early_ends_there() {
        let mut source = script(&[data(100_000)], 1 << 20);
        source.segments = [Segment::Data(150_000), Segment::Hole(5)].into();
        let mut chunks = chunks();
        assert!(matches!(chunks.next(&mut source), Ok(Some(Piece::Data(data))) if data.len() == 100_000));
        assert!(matches!(chunks.next(&mut source), Ok(None)));
        assert_eq!(chunks.offset(), 100_000);
    }

    #[test]
    fn errors_come_through() {
        struct Broken;
        impl Source for Broken {
            fn segment(&mut self) -> io::Result<Option<Segment>> {
                Ok(Some(Segment::Data(10)))
            }
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        assert_eq!(chunks().next(&mut Broken).unwrap_err().raw_os_error(), Some(5));
    }

    #[test]
    fn zero_means_every_byte() {
        let mut data = vec![0; 1000];
        assert!(is_zero(&data) && is_zero(&[]));
        for i in [0, 1, 255, 256, 511, 999] {
            data[i] = 1;
            assert!(!is_zero(&data));
            data[i] = 0;
        }
    }
}
