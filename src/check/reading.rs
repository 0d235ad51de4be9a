//! Reading one whole pack: every byte, every block, and whether it holds what the index says. Not for: which packs.

use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_PACK;
use crate::format::header::HEADER_LEN;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::damage::loss;
use crate::repository::keyring::Opened;
use crate::repository::pack::open_block;
use crate::repository::read::{pack_key, pack_kind};
use crate::repository::segments::{Rows, sum, tidy};
use crate::repository::table::PackInfo;
use crate::store::ObjectKey;
use std::collections::BTreeMap;

/// Bytes read at once, unless one frame is longer.
const PIECE: u64 = 8 << 20;

/// What reading one whole pack has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Stored size when it was read.
    pub size: u64,
    /// Blocks that cannot be read, and why.
    pub bad: BTreeMap<u32, String>,
    /// Its chunks are not those in the index.
    pub other: bool,
    /// The bytes are not those that the name promises.
    pub wrong_name: bool,
    /// Why it cannot be looked into: it is sealed under a key epoch that the key in use does not hold. No damage.
    pub locked: Option<String>,
    /// It was gone when it was read.
    pub gone: bool,
    /// The first reading found damage that the second did not.
    pub flickered: bool,
    /// Bytes that were read.
    pub read: u64,
}

impl Verdict {
    /// Whether nothing at all is to be said about a pack that should have this size.
    pub(super) fn is_whole(&self, size: u64) -> bool {
        let is_right = self.bad.is_empty() && !self.wrong_name && !self.other && self.size == size;
        is_right && !self.gone && !self.flickered && self.locked.is_none()
    }
}

/// Reads a pack; if anything is wrong, reads it once more and believes only what is wrong both times. What may not be read, or is in a
/// store that cannot be reached, is an error and no damage.
pub(super) fn read_twice(
    repository: &Repository,
    info: &PackInfo,
    sums: &[u64],
    size: u64,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Verdict> {
    let read = || -> Result<Verdict> {
        let mut reader = PackReader {
            repository,
            info,
            stop,
            progress,
            hasher: blake3::Hasher::new(),
            sum: 0,
            verdict: Verdict { size, ..Verdict::default() },
        };
        match reader.read() {
            // A pack stands whole in one segment, or in several.
            Ok(()) if reader.verdict.bad.is_empty() && reader.verdict.locked.is_none() => {
                reader.verdict.other = !sums.is_empty() && !sums.iter().all(|sum| *sum == reader.sum);
            }
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) if error.kind() == ErrorKind::NotFound => reader.verdict.gone = true,
            Err(error) => {
                let error = loss(repository.store(), &pack_key(info), error)?;
                reader.all_bad(&error);
            }
        }
        Ok(reader.verdict)
    };
    let first = read()?;
    progress.files(1);
    if first.gone || (first.bad.is_empty() && !first.wrong_name) {
        return Ok(first);
    }
    let mut again = read()?;
    again.read += first.read;
    again.flickered = first.bad != again.bad || first.wrong_name != again.wrong_name;
    again.bad.retain(|block, _| first.bad.contains_key(block));
    again.wrong_name &= first.wrong_name;
    Ok(again)
}

struct PackReader<'a> {
    repository: &'a Repository,
    info: &'a PackInfo,
    progress: &'a dyn Progress,
    stop: &'a Stop,
    hasher: blake3::Hasher,
    /// Of what was decoded so far.
    sum: u64,
    verdict: Verdict,
}

impl PackReader<'_> {
    fn all_bad(&mut self, error: &Error) {
        self.verdict.wrong_name = true;
        for block in 0..self.info.frames.len() as u32 {
            self.verdict.bad.entry(block).or_insert_with(|| error.chain());
        }
    }

    fn read(&mut self) -> Result<()> {
        let key = pack_key(self.info);
        if self.verdict.size > MAX_PACK {
            return Err(Error::damaged("it is larger than any pack"));
        }
        let mut header = [0; HEADER_LEN];
        self.repository.store().get_range(&key, 0, &mut header)?;
        self.hasher.update(&header);
        let opened = self.repository.keyring().open(pack_kind(self.info.is_tree), &header);
        if let Err(error) = &opened
            && error.kind() == ErrorKind::WrongKey
        {
            self.verdict.locked = Some(error.chain());
        }
        let mut at = HEADER_LEN as u64;
        let mut block = 0;
        let mut buffer = Vec::new();
        while block < self.info.frames.len() {
            // As many frames as fit into a piece, at least one.
            let frames = &self.info.frames[block..];
            let mut length = 0;
            let count = frames
                .iter()
                .take_while(|frame| {
                    length += u64::from(**frame);
                    length <= PIECE
                })
                .count()
                .max(1);
            let lengths: Vec<u32> = frames[..count].to_vec();
            let total: u64 = lengths.iter().map(|frame| u64::from(*frame)).sum();
            if at + total > self.verdict.size && count == 1 {
                self.bad(block, "it lies beyond the end of the pack".into());
                at = at.saturating_add(total);
                block += 1;
                continue;
            }
            self.read_group(&key, &opened, at, block, &lengths, &mut buffer)?;
            at += total;
            block += count;
        }
        while at < self.verdict.size {
            let step = (self.verdict.size - at).min(PIECE);
            self.fetch(&key, at, step, &mut buffer)?;
            self.hasher.update(&buffer);
            at += step;
        }
        self.verdict.wrong_name |= *self.hasher.finalize().as_bytes() != self.info.name.0;
        Ok(())
    }

    fn bad(&mut self, block: usize, why: String) {
        self.verdict.wrong_name = true;
        self.verdict.bad.insert(block as u32, why);
    }

    fn fetch(&mut self, key: &ObjectKey, at: u64, length: u64, buffer: &mut Vec<u8>) -> Result<()> {
        self.stop.check()?;
        buffer.resize(length as usize, 0);
        self.repository.store().get_range(key, at, buffer)?;
        self.verdict.read += length;
        self.progress.bytes(length);
        Ok(())
    }

    /// Reads some frames at once, or one by one where that fails, so that a bad sector costs one block.
    fn read_group(
        &mut self,
        key: &ObjectKey,
        opened: &Result<Opened>,
        at: u64,
        first: usize,
        lengths: &[u32],
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        match self.fetch(key, at, total, buffer) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => return Err(error),
            Err(error) if lengths.len() == 1 => {
                let error = loss(self.repository.store(), key, error)?;
                self.bad(first, error.chain());
                return Ok(());
            }
            Err(_) => {
                let mut at = at;
                for (number, length) in lengths.iter().enumerate() {
                    self.read_group(key, opened, at, first + number, &[*length], buffer)?;
                    at += u64::from(*length);
                }
                return Ok(());
            }
        }
        self.hasher.update(buffer);
        let opened = match opened {
            Ok(opened) => opened,
            // Its bytes tell whether it is whole.
            Err(_) if self.verdict.locked.is_some() => return Ok(()),
            Err(error) => {
                (first..first + lengths.len())
                    .for_each(|block| self.bad(block, format!("its header is damaged: {}", error.chain())));
                return Ok(());
            }
        };
        let mut rest = &mut buffer[..];
        for (number, length) in lengths.iter().enumerate() {
            let (frame, after) = rest.split_at_mut(*length as usize);
            rest = after;
            self.open(opened, first + number, frame);
        }
        Ok(())
    }

    fn open(&mut self, opened: &Opened, block: usize, frame: &mut [u8]) {
        match open_block(self.repository.keyring(), opened, block as u32, frame) {
            Err(error) => self.bad(block, error.chain()),
            Ok(decoded) => {
                let mut rows: Rows = decoded.chunks.into_iter().map(|(id, _)| (id, block as u32)).collect();
                tidy(&mut rows);
                self.sum = self.sum.wrapping_add(sum(&rows));
            }
        }
    }
}
