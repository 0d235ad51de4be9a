//! Zstandard with reused contexts, and the rule that spares incompressible data. Not for: what a message looks like
//! around its body (see `format`).

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::io::Cursor;
use zstd::bulk;
use zstd::zstd_safe;

/// The longest body that is compressed or decompressed, 16 MiB.
pub const MAX_BODY: usize = 1 << 24;
/// The largest window a reader accepts, as a power of two.
const WINDOW_LOG: u32 = 24;
/// Below this size the noise test would cost more than it saves.
const PROBE_FROM: usize = 4096;
/// Spread samples that are looked at: their number, and the size of each in bytes.
const SAMPLES: usize = 16;
const SAMPLE_SIZE: usize = 2048;
/// Zstandard's level for the second opinion: only long matches, above 3 GB/s on noise.
const PROBE_LEVEL: i32 = -5;

/// How a body was encoded; the message says so in its codec byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// As it is.
    Raw,
    /// One Zstandard frame, smaller than the body by at least 1/64.
    Zstd,
}

/// Instead of a level: everything is stored as it is.
pub const OFF: i32 = i32::MIN;

/// What a compressor has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bodies stored compressed.
    pub compressed: u64,
    /// Bodies left as they are after compression at the full level did not pay.
    pub unprofitable: u64,
    /// Bodies left as they are because samples and the fast level both said "noise".
    pub skipped: u64,
}

/// Compresses bodies, one after the other, with the same memory.
pub struct Compressor {
    /// `None`: everything is stored as it is.
    full: Option<bulk::Compressor<'static>>,
    probe: bulk::Compressor<'static>,
    counts: Counts,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor of this Zstandard level, −7 ... 19 (0 is Zstandard's default, 3), or `OFF`; `Input` for any other.
    pub fn new(level: i32) -> Result<Self> {
        if level != OFF && !(-7..=19).contains(&level) {
            return Err(Error::new(ErrorKind::Input, format!("\"{level}\" is not a compression level"))
                .with_hint("Levels go from -7 (fastest) to 19 (smallest); 3 is the default."));
        }
        let failed = |error| Error::io("Zstandard could not be set up", error);
        Ok(Compressor {
            full: if level == OFF { None } else { Some(bulk::Compressor::new(level).map_err(failed)?) },
            probe: bulk::Compressor::new(PROBE_LEVEL).map_err(failed)?,
            counts: Counts::default(),
        })
    }

    /// Appends the encoded body to `out`, whose bytes before it stay.
    ///
    /// A body is left raw when compression saves less than 1/64 of it, and also when Zstandard fails (no memory, or
    /// longer than `MAX_BODY`): storing it raw is never wrong.
    pub fn compress(&mut self, body: &[u8], out: &mut Vec<u8>) -> Encoded {
        let start = out.len();
        let Some(full) = &mut self.full else {
            out.extend_from_slice(body);
            return Encoded::Raw;
        };
        if body.len() >= PROBE_FROM && looks_like_noise(body) {
            let compressible = attempt(&mut self.probe, body, out);
            out.truncate(start);
            if !compressible {
                self.counts.skipped += 1;
                out.extend_from_slice(body);
                return Encoded::Raw;
            }
        }
        if attempt(full, body, out) {
            self.counts.compressed += 1;
            return Encoded::Zstd;
        }
        out.truncate(start);
        self.counts.unprofitable += 1;
        out.extend_from_slice(body);
        Encoded::Raw
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Appends one Zstandard frame of `body` to `out`; false if that does not pay or fails (`out` then has some tail).
fn attempt(compressor: &mut bulk::Compressor<'_>, body: &[u8], out: &mut Vec<u8>) -> bool {
    if body.is_empty() || body.len() > MAX_BODY {
        return false;
    }
    let start = out.len();
    out.reserve(zstd_safe::compress_bound(body.len()));
    let mut cursor = Cursor::new(&mut *out);
    cursor.set_position(start as u64);
    match compressor.compress_to_buffer(body, &mut cursor) {
        Ok(written) => written <= body.len() - body.len().div_ceil(64),
        Err(_) => false,
    }
}

/// Whether spread samples have a byte histogram so even that no byte-wise code could save 1/64.
///
/// The sum of squared frequencies, without the bias of small samples, gives the collision entropy, which is never
/// above Shannon's: log2(256 x sum) bounds the bits a byte that a code can save. Here 256 x sum < 1 + 1/16, less than
/// 0.088 bits, 1.1 %. Repetitions do not show in a histogram: that is what the fast level is for.
fn looks_like_noise(body: &[u8]) -> bool {
    let mut histogram = [0_u32; 256];
    let mut count = |sample: &[u8]| sample.iter().for_each(|byte| histogram[usize::from(*byte)] += 1);
    let seen = if body.len() <= SAMPLES * SAMPLE_SIZE {
        count(body);
        body.len()
    } else {
        let step = (body.len() - SAMPLE_SIZE) / (SAMPLES - 1);
        for i in 0..SAMPLES {
            count(&body[i * step..][..SAMPLE_SIZE]);
        }
        SAMPLES * SAMPLE_SIZE
    };
    let pairs: u64 = histogram.iter().map(|&n| u64::from(n) * u64::from(n.saturating_sub(1))).sum();
    let seen = seen as u64;
    pairs * 256 * 16 < seen * (seen - 1) * 17
}

/// Why a body does not decompress. The caller names the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not one whole Zstandard frame, or one that does not decode.
    Frame,
    /// The frame wants a window above 2^24.
    Window,
    /// The content does not have the length it should have, or that length is above `MAX_BODY`.
    Length,
    /// The system has no memory for the content.
    Memory,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Frame => "its compressed bytes are not one valid Zstandard frame",
            DecodeError::Window => "its compressed bytes want a window larger than the format allows",
            DecodeError::Length => "its content does not have the stated length",
            DecodeError::Memory => "there is no memory to decompress it",
        })
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Error {
        match error {
            DecodeError::Memory => Error::new(ErrorKind::Failed, error.to_string()),
            _ => Error::damaged(error.to_string()),
        }
    }
}

/// Decompresses bodies, one after the other, with the same memory.
pub struct Decompressor(bulk::Decompressor<'static>);

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor(..)")
    }
}

impl Decompressor {
    /// A decompressor.
    pub fn new() -> Result<Self> {
        let failed = |error| Error::io("Zstandard could not be set up", error);
        let mut decompressor = bulk::Decompressor::new().map_err(failed)?;
        decompressor.set_parameter(zstd_safe::DParameter::WindowLogMax(WINDOW_LOG)).map_err(failed)?;
        Ok(Decompressor(decompressor))
    }

    /// Replaces the content of `out` with that of one Zstandard frame, which must be exactly `length` bytes.
    ///
    /// Allocates nothing above `length`, whatever the frame says. On an error `out` is empty.
    pub fn decompress(
        &mut self,
        frame: &[u8],
        length: usize,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), DecodeError> {
        out.clear();
        if length > MAX_BODY {
            return Err(DecodeError::Length);
        }
        check_frame(frame, length)?;
        out.try_reserve_exact(length).map_err(|_| DecodeError::Memory)?;
        let result = match self.0.decompress_to_buffer(frame, out) {
            Ok(written) if written == length && out.len() == length => Ok(()),
            Ok(_) => Err(DecodeError::Length),
            Err(_) => Err(DecodeError::Frame),
        };
        if result.is_err() {
            out.clear();
        }
        result
    }
}

/// Checks what Zstandard's one-pass decoder does not: a single frame that is no skippable one, the window, the length.
///
/// Frame header as in RFC 8878, 3.1.1.1: magic, descriptor (bit 5: single segment), window descriptor.
fn check_frame(frame: &[u8], length: usize) -> std::result::Result<(), DecodeError> {
    let (Some(magic), Some(&descriptor)) = (frame.first_chunk::<4>(), frame.get(4)) else {
        return Err(DecodeError::Frame);
    };
    if u32::from_le_bytes(*magic) != 0xfd2f_b528 {
        return Err(DecodeError::Frame);
    }
    // A single segment's window is its content size, which is checked below and always present.
    if descriptor & 0x20 == 0 {
        let window = *frame.get(5).ok_or(DecodeError::Frame)?;
        let base = 1_u64 << (10 + (window >> 3));
        if base + base / 8 * u64::from(window & 7) > 1 << WINDOW_LOG {
            return Err(DecodeError::Window);
        }
    }
    match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) if size != length as u64 => return Err(DecodeError::Length),
        Ok(_) => {}
        Err(_) => return Err(DecodeError::Frame),
    }
    match zstd_safe::find_frame_compressed_size(frame) {
        Ok(size) if size == frame.len() => Ok(()),
        _ => Err(DecodeError::Frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn text(length: usize) -> Vec<u8> {
        (0_u64..).flat_map(|i| format!("line {} says {}\n", i, i * i % 9973).into_bytes()).take(length).collect()
    }

    fn hex_of_noise(length: usize) -> Vec<u8> {
        crate::id::to_hex(&noise(length / 2, b"hex")).into_bytes()
    }

    fn round_trip(compressor: &mut Compressor, body: &[u8]) -> (Encoded, usize) {
        let mut out = b"head".to_vec();
        let encoded = compressor.compress(body, &mut out);
        assert_eq!(&out[..4], b"head");
        let stored = &out[4..];
        match encoded {
            Encoded::Raw => assert_eq!(stored, body),
            Encoded::Zstd => {
                assert!(stored.len() <= body.len() - body.len().div_ceil(64));
                let mut back = b"old".to_vec();
                Decompressor::new().unwrap().decompress(stored, body.len(), &mut back).unwrap();
                assert!(back == body);
            }
        }
        (encoded, stored.len())
    }

    #[test]
    fn round_trips_and_what_is_skipped() {
        let mut compressor = Compressor::new(3).unwrap();
        let mib = 1 << 20;
        assert_eq!(round_trip(&mut compressor, &text(mib)).0, Encoded::Zstd);
        assert_eq!(round_trip(&mut compressor, &vec![0; mib]).0, Encoded::Zstd);
        assert_eq!(compressor.counts(), Counts { compressed: 2, unprofitable: 0, skipped: 0 });
        for size in [4096, 5000, 40_000, mib, 4 * mib + 1] {
            assert_eq!(round_trip(&mut compressor, &noise(size, b"n")), (Encoded::Raw, size));
        }
        assert_eq!(compressor.counts(), Counts { compressed: 2, unprofitable: 0, skipped: 5 });
        for size in [0, 1, 63, 64, 100, 4095] {
            assert_eq!(round_trip(&mut compressor, &noise(size, b"s")), (Encoded::Raw, size));
        }
        assert_eq!(compressor.counts(), Counts { compressed: 2, unprofitable: 6, skipped: 5 });
    }

    #[test]
    fn what_only_looks_like_noise_is_compressed() {
        let mut compressor = Compressor::new(3).unwrap();
        // Even histogram, but everything repeats.
        let repeated = noise(1 << 16, b"r").repeat(16);
        assert!(looks_like_noise(&repeated));
        assert!(round_trip(&mut compressor, &repeated).1 < 70_000);
        // Nothing repeats, but only 16 of 256 bytes occur.
        assert!(round_trip(&mut compressor, &hex_of_noise(1 << 20)).1 < 620_000);
        // Text between the samples only.
        let mut mixed = noise(1 << 20, b"m");
        mixed[4096..36_864].copy_from_slice(&text(32_768));
        assert!(looks_like_noise(&mixed));
        assert_eq!(round_trip(&mut compressor, &mixed).0, Encoded::Zstd);
        // Half and half, in either order.
        let half = [text(1 << 19), noise(1 << 19, b"h")].concat();
        assert!(round_trip(&mut compressor, &half).1 < 700_000);
        assert_eq!(compressor.counts(), Counts { compressed: 4, unprofitable: 0, skipped: 0 });
    }

    #[test]
    fn switched_off_it_leaves_everything_as_it_is() {
        let mut compressor = Compressor::new(OFF).unwrap();
        let mut out = vec![7];
        assert_eq!(compressor.compress(&[0; 10_000], &mut out), Encoded::Raw);
        assert!(out[0] == 7 && out[1..] == [0; 10_000]);
    }

    #[test]
    fn levels_and_sizes() {
        assert!(Compressor::new(20).is_err() && Compressor::new(-8).is_err());
        let body = [text(300_000), hex_of_noise(100_000)].concat();
        for level in [-7, -1, 0, 1, 3, 9, 19] {
            assert_eq!(round_trip(&mut Compressor::new(level).unwrap(), &body).0, Encoded::Zstd);
        }
        assert_eq!(round_trip(&mut Compressor::new(19).unwrap(), &vec![0; MAX_BODY]).0, Encoded::Zstd);
        let mut compressor = Compressor::new(1).unwrap();
        for size in [1, 2, 10, 127, 128, 129, 65_535, 65_536, 65_537, MAX_BODY] {
            round_trip(&mut compressor, &text(size));
        }
        let too_long = vec![0; MAX_BODY + 1];
        assert_eq!(compressor.compress(&too_long, &mut Vec::new()), Encoded::Raw);
    }

    #[test]
    fn recycled_buffers_change_nothing() {
        let (mut compressor, mut decompressor) = (Compressor::new(3).unwrap(), Decompressor::new().unwrap());
        let (mut out, mut back) = (Vec::new(), Vec::new());
        for size in [1 << 20, 5000, 300_000, 200] {
            let body = text(size);
            out.clear();
            assert_eq!(compressor.compress(&body, &mut out), Encoded::Zstd);
            let mut fresh = Vec::new();
            Compressor::new(3).unwrap().compress(&body, &mut fresh);
            assert!(out == fresh);
            decompressor.decompress(&out, size, &mut back).unwrap();
            assert!(back == body);
        }
    }

    #[test]
    fn wrong_lengths_and_damage_are_refused() {
        let body = text(100_000);
        let frame = bulk::compress(&body, 3).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let mut decode = |frame: &[u8], length| {
            let mut out = Vec::new();
            let result = decompressor.decompress(frame, length, &mut out);
            assert!(out.capacity() <= length && (result.is_ok() || out.is_empty()));
            result
        };
        assert_eq!(decode(&frame, 100_000), Ok(()));
        for length in [0, 1, 99_999, 100_001, MAX_BODY] {
            assert_eq!(decode(&frame, length), Err(DecodeError::Length));
        }
        let mut out = Vec::new();
        assert_eq!(Decompressor::new().unwrap().decompress(&frame, usize::MAX, &mut out), Err(DecodeError::Length));
        for cut in 0..frame.len() {
            assert!(decode(&frame[..cut], 100_000).is_err());
        }
        let twice = [&frame[..], &frame].concat();
        assert_eq!(decode(&twice, 200_000), Err(DecodeError::Length));
        assert_eq!(decode(&twice, 100_000), Err(DecodeError::Frame));
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
        assert_eq!(decode(&skippable, 0), Err(DecodeError::Frame));
        assert_eq!(decode(&[&skippable[..], &frame].concat(), 100_000), Err(DecodeError::Frame));
        let trailing = [&frame[..], &skippable].concat();
        assert_eq!(decode(&trailing, 100_000), Err(DecodeError::Frame));
    }

    /// A frame without content size whose one RLE block (a few bytes) says `length` times "x".
    fn bomb(window: u8, length: u32) -> Vec<u8> {
        let block = (length << 3 | 1 << 1 | 1).to_le_bytes();
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, window][..], &block[..3], b"x"].concat()
    }

    #[test]
    fn bombs_are_refused() {
        let mut decompressor = Decompressor::new().unwrap();
        // Declared small, really large: with the size in the header, and without.
        let frame = bulk::compress(&vec![0; 8 << 20], 3).unwrap();
        let mut out = Vec::new();
        assert_eq!(decompressor.decompress(&frame, 100, &mut out), Err(DecodeError::Length));
        assert_eq!(out.capacity(), 0);
        let window = (20 - 10) << 3;
        assert_eq!(decompressor.decompress(&bomb(window, 100), 100, &mut out), Ok(()));
        assert_eq!(out, [b'x'; 100]);
        let mut out = Vec::new();
        assert_eq!(decompressor.decompress(&bomb(window, 131_072), 100, &mut out), Err(DecodeError::Frame));
        assert!(out.capacity() <= 100 && out.is_empty());
        // The same into a recycled buffer that would have room.
        let mut out = Vec::with_capacity(1 << 20);
        assert_eq!(decompressor.decompress(&bomb(window, 131_072), 100, &mut out), Err(DecodeError::Length));
        assert!(out.is_empty());
        // Windows: 2^24 passes, everything above does not.
        assert_eq!(decompressor.decompress(&bomb((24 - 10) << 3, 9), 9, &mut out), Ok(()));
        for window in [(24 - 10) << 3 | 1, (25 - 10) << 3, 31 << 3 | 7] {
            assert_eq!(decompressor.decompress(&bomb(window, 9), 9, &mut out), Err(DecodeError::Window));
        }
    }
}
