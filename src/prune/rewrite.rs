//! Writes what is needed of packs again, into new ones, as a writer does. Not for: which packs (see `plan`), or deleting them.
//!
//! Memory: what a writer takes, and one block a thread.

use super::live::Live;
use crate::error::{Error, ErrorKind, Result};
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::assemble::store_again;
use crate::repository::keyring::{Opened, encode_message};
use crate::repository::pack::{Block, PackBuilder, ReadyBlock, open_block};
use crate::repository::read::{pack_key, pack_kind};
use crate::repository::table::PackInfo;
use crate::repository::writer::{Writer, WriterOptions, Written};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What writing again did.
#[derive(Default)]
pub(super) struct Rewritten {
    /// Packs of which everything needed is elsewhere now.
    pub done: Vec<usize>,
    pub written: Written,
    /// Bytes of chunks that were read.
    pub read: u64,
}

/// Nothing in the packs `absent` counts as stored, for all of them are about to go.
pub(super) fn rewrite(
    repository: &Arc<Repository>,
    live: &Live,
    packs: &[usize],
    absent: HashSet<ObjectName>,
    options: &WriterOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Rewritten> {
    let mut writer = Writer::begin_without(repository, options.clone(), absent, progress)?;
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new((Rewritten::default(), Ok(())));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, packs.len().max(1)) {
            scope.spawn(|| {
                while let Some(number) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    let copied = copy_pack(repository, &writer, live, *number, stop);
                    progress.files(1);
                    progress.bytes(live.packs[*number].used());
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    match copied {
                        Ok(bytes) => {
                            results.0.done.push(*number);
                            results.0.read += bytes;
                        }
                        // Another prune has done with it.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        // It stays as it is.
                        Err(error) if error.kind() == ErrorKind::Damaged => {
                            progress.note(&format!("A pack is not written again: {}", error.chain()));
                        }
                        Err(error) => {
                            ended.store(true, Ordering::Relaxed);
                            results.1 = Err(error);
                        }
                    }
                }
            });
        }
    });
    let (mut rewritten, outcome) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let flushed = writer.flush();
    // Whatever went wrong, what is stored is indexed and the pin goes.
    let written = writer.abandon();
    outcome.and(flushed)?;
    rewritten.written = written?;
    rewritten.done.sort_unstable();
    Ok(rewritten)
}

/// Bytes of blocks with which the speed is measured.
const SAMPLE: u64 = 8 << 20;

/// How long one thread would need to write all this again: some blocks are read, decoded, compressed and sealed, and no more.
pub(super) fn estimate(
    repository: &Repository,
    live: &Live,
    packs: &[usize],
    level: i32,
    stop: &Stop,
) -> Result<Duration> {
    let (started, mut sampled, mut compressor) = (Instant::now(), 0, None);
    let all: u64 = packs.iter().map(|number| live.packs[*number].used()).sum();
    'sample: for number in packs {
        let info = live.info(*number)?;
        let Ok(opened) = repository.opened(&info) else { continue };
        let mut pack = PackBuilder::new(repository.keyring(), pack_kind(info.is_tree), SAMPLE as usize)?;
        for block in live.needed_blocks(&live.packs[*number]) {
            stop.check()?;
            let Ok((block, length)) = read_block(repository, &info, &opened, block) else { continue };
            let message = encode_message(&mut compressor, level, Some(block.kind), &block.body)?;
            let body_len = block.body.len() as u32;
            pack.push(repository.keyring(), ReadyBlock { kind: block.kind, message, body_len, chunks: Vec::new() })?;
            sampled += length;
            if sampled >= SAMPLE {
                break 'sample;
            }
        }
    }
    // Each new pack is decoded once more before it is stored, which takes about as long as the reading did.
    let share = if sampled == 0 { 0.0 } else { all as f64 / sampled as f64 };
    Ok(started.elapsed().mul_f64(1.5 * share))
}

/// A block, and the length of its frame.
fn read_block(repository: &Repository, info: &PackInfo, opened: &Opened, number: u32) -> Result<(Block<'static>, u64)> {
    let (offset, length) =
        info.frame(number).ok_or_else(|| Error::damaged("The index names a block that its pack does not have"))?;
    let mut frame = vec![0; length as usize];
    repository.store().get_range(&pack_key(info), offset, &mut frame)?;
    let block = open_block(repository.keyring(), opened, number, &mut frame)
        .map(Block::into_owned)
        .inspect_err(|_| repository.note_damaged(info.name))
        .map_err(|error| error.context(format!("Block {number} of \"{}\" is damaged", pack_key(info))))?;
    Ok((block, u64::from(length)))
}

fn copy_pack(repository: &Repository, writer: &Writer, live: &Live, number: usize, stop: &Stop) -> Result<u64> {
    let info = live.info(number)?;
    let opened = repository.opened(&info)?;
    let mut bytes = 0;
    for block in live.needed_blocks(&live.packs[number]) {
        stop.check()?;
        let (block, _) = read_block(repository, &info, &opened, block)?;
        bytes += block.body.len() as u64;
        store_again(writer, block, &|id| live.needs(number, id))?;
    }
    Ok(bytes)
}
