//! Which packs are stored, and which of their blocks can be read. Not for: whether anything needs them (see `walk`).

use super::objects::{Indexed, IndexedPack, REPAIR, fingerprint};
use super::{Pass, Severity};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_PACK;
use crate::format::header::HEADER_LEN;
use crate::id::{ChunkId, ObjectName};
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::index::StoredPacks;
use crate::repository::keyring::Opened;
use crate::repository::pack::{open_block, salvage};
use crate::repository::read::{pack_key, pack_kind};
use crate::repository::table::PackInfo;
use crate::store::ObjectKey;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read at once, unless one frame is longer.
const PIECE: u64 = 8 << 20;

/// What reading whole packs has shown. A pack's name never comes to mean other bytes, so verdicts outlive a second look.
#[derive(Debug, Default)]
pub(super) struct Verdicts(HashMap<ObjectName, Verdict>);

/// What reading one whole pack has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Stored size when it was read.
    size: u64,
    /// Blocks that cannot be read, and why.
    bad: BTreeMap<u32, String>,
    /// Blocks whose chunks are not those in the index.
    other: Vec<u32>,
    /// The bytes are not those that the name promises.
    wrong_name: bool,
    /// It was gone when it was read.
    gone: bool,
    /// The first reading found damage that the second did not.
    flickered: bool,
    read: u64,
}

/// A pack that cannot be relied on as a whole.
#[derive(Debug)]
pub(super) struct Problem {
    /// Number of the finding about it.
    pub finding: usize,
    missing: bool,
    bad: HashSet<u32>,
}

/// The packs as of one look.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Packs with something wrong.
    pub problems: HashMap<ObjectName, Problem>,
    /// Stored packs that no index segment names, by number.
    pub orphans: Vec<Arc<PackInfo>>,
    /// Where their chunks are: number and block.
    pub orphaned: HashMap<ChunkId, Vec<(u32, u32)>>,
    /// Stored packs that no index segment names and that cannot be read.
    pub unreadable_orphans: u64,
}

/// What to do about a damaged pack.
const DAMAGED: &str =
    "If there is a copy of this object, put it back. Run a backup: it stores again what it finds on the disk.";

impl Packs {
    /// The finding that says why this block cannot be read; `None` if it can.
    pub(super) fn problem(&self, pack: &ObjectName, block: u32) -> Option<usize> {
        let problem = self.problems.get(pack)?;
        (problem.missing || problem.bad.contains(&block)).then_some(problem.finding)
    }
}

impl Pass<'_> {
    pub(super) fn check_packs(&mut self, mut indexed: Indexed, verdicts: &mut Verdicts) -> Result<Packs> {
        let stored = StoredPacks::list(self.repository.store())?;
        self.report.packs = stored.len() as u64;
        let mut packs = Packs::default();
        self.find_orphans(&stored, &mut indexed, &mut packs)?;
        let mut names: Vec<ObjectName> = indexed.keys().copied().collect();
        names.sort();
        let mut to_read = Vec::new();
        for name in &names {
            let info = &indexed[name][0].info;
            // A listing may miss an object; only a second, direct question makes it missing.
            let size = match stored.size(info.is_tree, name) {
                Some(size) => Some(size),
                None => self.size(&pack_key(info))?,
            };
            let Some(size) = size else {
                let finding = self.missing_pack(info);
                packs.problems.insert(*name, Problem { finding, missing: true, bad: HashSet::new() });
                continue;
            };
            if (info.is_tree || self.options.read_data || size != info.size || indexed[name].len() > 1)
                && !verdicts.0.contains_key(name)
            {
                to_read.push((&indexed[name], size));
            }
        }
        self.read_packs(&to_read, verdicts)?;
        for name in &names {
            if let Some(verdict) = verdicts.0.get(name) {
                self.judge(&indexed[name][0].info, verdict, &mut packs);
            }
        }
        // What was gone may be stored again under the same name only by hand; it is asked again next time.
        verdicts.0.retain(|_, verdict| !verdict.gone);
        Ok(packs)
    }

    fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        match self.repository.store().size(key) {
            Ok(size) => Ok(Some(size)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn missing_pack(&mut self, info: &PackInfo) -> usize {
        let message = format!("The index names a pack of {} bytes that is not stored", info.size);
        self.add(Severity::Note, pack_key(info), message).hint(REPAIR);
        self.report.findings.len() - 1
    }

    /// Reads the contents of stored packs that no segment names, so that what only they hold is not called lost.
    fn find_orphans(&mut self, stored: &StoredPacks, indexed: &mut Indexed, packs: &mut Packs) -> Result<()> {
        let mut orphans: Vec<(bool, ObjectName)> = stored
            .iter()
            .filter(|(is_tree, name, _)| indexed.get(name).is_none_or(|known| known[0].info.is_tree != *is_tree))
            .map(|(is_tree, name, _)| (is_tree, name))
            .collect();
        orphans.sort();
        for (is_tree, name) in orphans {
            self.stop.check()?;
            let key = ObjectKey::new(crate::repository::pack::pack_folder(pack_kind(is_tree)), name);
            match salvage(self.repository.keyring(), self.repository.store(), pack_kind(is_tree), name) {
                Ok(salvaged) => {
                    self.add(Severity::Note, &key, "No index segment names this pack")
                        .hint("It is left over from an interrupted backup, or a backup is writing it; the next backup uses it.");
                    let number = packs.orphans.len() as u32;
                    let mut sums = Vec::new();
                    for (block, listed) in salvaged.contents.blocks.iter().enumerate() {
                        let mut ids: Vec<ChunkId> = listed.chunks.iter().map(|(id, _)| *id).collect();
                        sums.push(sum(&mut ids));
                        for id in ids {
                            packs.orphaned.entry(id).or_default().push((number, block as u32));
                        }
                    }
                    let frames = salvaged.contents.blocks.iter().map(|block| block.frame_len).collect();
                    let info = PackInfo { name, is_tree, epoch: salvaged.epoch, size: salvaged.size, frames };
                    packs.orphans.push(Arc::new(info.clone()));
                    indexed.entry(name).or_insert_with(|| vec![IndexedPack { info, sums: Some(sums) }]);
                }
                Err(error) => {
                    packs.unreadable_orphans += u64::from(error.kind() != ErrorKind::NotFound);
                    let error = error.context("No index segment names this pack, and it cannot be read");
                    self.add_error(
                        Severity::Note,
                        &key,
                        &error,
                        "It does no harm; delete it once nothing is found missing.",
                    );
                }
            }
        }
        Ok(())
    }

    fn read_packs(&mut self, packs: &[(&Vec<IndexedPack>, u64)], verdicts: &mut Verdicts) -> Result<()> {
        if self.options.read_data {
            self.progress.stage("reading packs");
        }
        self.progress.expect(packs.len() as u64, packs.iter().map(|(_, size)| size).sum());
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let (repository, stop, progress) = (self.repository, self.stop, self.progress);
        std::thread::scope(|scope| {
            for _ in 0..self.options.threads.clamp(1, packs.len().max(1)) {
                scope.spawn(|| {
                    while let Some((known, size)) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let verdict = read_twice(repository, known, *size, progress, stop);
                        let ended = verdict.is_err();
                        results
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(verdict.map(|verdict| (known[0].info.name, verdict)));
                        if ended {
                            break;
                        }
                    }
                });
            }
        });
        for result in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let (name, verdict) = result?;
            self.report.packs_read += 1;
            self.report.bytes_read += verdict.read;
            verdicts.0.insert(name, verdict);
        }
        Ok(())
    }

    /// Turns a verdict into a finding; how bad it is shows when the trees are walked.
    fn judge(&mut self, info: &PackInfo, verdict: &Verdict, packs: &mut Packs) {
        let key = pack_key(info);
        if verdict.gone {
            self.vanished = true;
            let finding = self.missing_pack(info);
            packs.problems.insert(info.name, Problem { finding, missing: true, bad: HashSet::new() });
            return;
        }
        let is_whole = verdict.bad.is_empty() && !verdict.wrong_name && verdict.size == info.size;
        if is_whole && verdict.flickered {
            self.add(Severity::Note, &key, "It was read wrong once and right the second time")
                .hint("Test this machine's memory, and the disk and its cable.");
        }
        if is_whole && !verdict.other.is_empty() {
            let message = format!("The index names other chunks than its {} hold", blocks(verdict.other.iter()));
            self.add(Severity::Repairable, &key, message).hint("Run \"firn repair index --read-all-packs\".");
            let finding = self.report.findings.len() - 1;
            packs.problems.insert(info.name, Problem { finding, missing: false, bad: HashSet::new() });
        }
        if is_whole {
            return;
        }
        // The next backup stores again what the source still has.
        self.repository.note_damaged(info.name);
        let mut message = String::from("The pack is damaged");
        if verdict.size != info.size {
            message = format!("The pack has {} bytes and should have {}", verdict.size, info.size);
        }
        match verdict.bad.values().next() {
            None => message.push_str("; all its blocks can be read"),
            Some(why) => message.push_str(&format!(
                "; of its {} blocks, {} cannot be read ({why})",
                info.frames.len(),
                blocks(verdict.bad.keys())
            )),
        }
        // What it holds instead may be the content of another pack.
        let hint = match verdict.bad.is_empty() && !verdict.other.is_empty() {
            true => "Run \"firn repair index --read-all-packs\": it finds out what is in it.",
            false => DAMAGED,
        };
        self.add(Severity::Repairable, &key, message).hint(hint);
        let finding = self.report.findings.len() - 1;
        let bad = verdict.bad.keys().copied().collect();
        packs.problems.insert(info.name, Problem { finding, missing: false, bad });
    }
}

/// "block 3", "blocks 3, 4, 9", "blocks 1, 2, … (40 in all)".
fn blocks<'b>(numbers: impl ExactSizeIterator<Item = &'b u32>) -> String {
    let count = numbers.len();
    let list: Vec<String> = numbers.take(10).map(u32::to_string).collect();
    match count {
        1 => format!("block {}", list[0]),
        2..=10 => format!("blocks {}", list.join(", ")),
        _ => format!("blocks {}, … ({count} in all)", list.join(", ")),
    }
}

/// The sum of the fingerprints of distinct ids.
fn sum(ids: &mut Vec<ChunkId>) -> u64 {
    ids.sort_unstable();
    ids.dedup();
    ids.iter().fold(0, |sum, id| sum.wrapping_add(fingerprint(id)))
}

/// Reads a pack; if anything is wrong, reads it once more and believes only what is wrong both times.
fn read_twice(
    repository: &Repository,
    known: &[IndexedPack],
    size: u64,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Verdict> {
    let read = || -> Result<Verdict> {
        let mut reader = PackReader {
            repository,
            known,
            stop,
            progress,
            hasher: blake3::Hasher::new(),
            verdict: Verdict { size, ..Verdict::default() },
        };
        match reader.read() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) if error.kind() == ErrorKind::NotFound => reader.verdict.gone = true,
            Err(error) => reader.all_bad(&error),
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
    known: &'a [IndexedPack],
    progress: &'a dyn Progress,
    stop: &'a Stop,
    hasher: blake3::Hasher,
    verdict: Verdict,
}

impl PackReader<'_> {
    fn info(&self) -> &PackInfo {
        &self.known[0].info
    }

    fn all_bad(&mut self, error: &Error) {
        self.verdict.wrong_name = true;
        for block in 0..self.info().frames.len() as u32 {
            self.verdict.bad.entry(block).or_insert_with(|| error.chain());
        }
    }

    fn read(&mut self) -> Result<()> {
        let key = pack_key(self.info());
        if self.verdict.size > MAX_PACK {
            return Err(Error::damaged("it is larger than any pack"));
        }
        let mut header = [0; HEADER_LEN];
        self.repository.store().get_range(&key, 0, &mut header)?;
        self.hasher.update(&header);
        let opened = self.repository.keyring().open(pack_kind(self.info().is_tree), &header);
        let mut at = HEADER_LEN as u64;
        let mut block = 0;
        let mut buffer = Vec::new();
        while block < self.info().frames.len() {
            // As many frames as fit into a piece, at least one.
            let frames = &self.info().frames[block..];
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
        self.verdict.wrong_name |= *self.hasher.finalize().as_bytes() != self.info().name.0;
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
                let mut ids = decoded.chunks.into_iter().map(|(id, _)| id).collect();
                let sum = sum(&mut ids);
                let stated = || self.known.iter().filter_map(|known| known.sums.as_ref()?.get(block).copied());
                // Several segments may name a pack each for itself, or share its chunks.
                let agrees = stated().next().is_none()
                    || stated().any(|stated| stated == sum)
                    || stated().fold(0, u64::wrapping_add) == sum;
                if !agrees {
                    self.verdict.other.push(block as u32);
                }
            }
        }
    }
}
