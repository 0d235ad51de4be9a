//! Writes the index (and the config's copies) again from what is stored. Not for: finding out what is damaged (see `check`),
//! or bringing back content that is gone.
//!
//! It works as a writer does (CONCURRENCY in `man/firn-repository.7`): a pin first, then the marks, then the index, then the
//! packs. A pack condemned by a prune is not put into the index; what readable segments say about it stays, because the
//! prune may yet spare it. New segments are durable before old ones go, and only the last of them says which old ones it
//! replaces, so that at no moment a chunk is without an entry.
//!
//! That a segment names a pack does not prove that the index has all of it: older programs spread packs over segments. So what the
//! index says is compared with the contents of every pack, also where nothing shows that a segment is missing.
//!
//! Memory: one segment being built (16 MiB), the names of packs (100 bytes each), and a pack's contents a thread.

pub mod packs;
#[cfg(test)]
mod packs_tests;
mod rewrite;
pub mod snapshots;
#[cfg(test)]
mod snapshots_tests;
#[cfg(test)]
mod tests;

use crate::error::{ErrorKind, Result};
use crate::format::bounds::MAX_RECORD_OBJECT;
use crate::format::config::Config;
use crate::format::header::{HEADER_LEN, Header, Kind};
use crate::format::index::PackRecord;
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::index::StoredPacks;
use crate::repository::pack::{Salvaged, pack_folder, salvage, salvage_verified};
use crate::repository::read::pack_kind;
use crate::repository::segments::{OldSegments, Print, Rows, Said, SegmentWriter, pack_record, replace, rows, tidy};
use crate::store::{ObjectKey, ObjectKind};
use rayon::prelude::*;
pub use rewrite::SUFFIX as DAMAGED_SUFFIX;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How an index is repaired.
#[derive(Clone, Copy, Debug)]
pub struct RepairOptions {
    /// Only finds out what would be done; nothing is stored or deleted.
    pub dry_run: bool,
    /// Reads all blocks of all packs and writes the whole index anew, instead of believing the packs' lists and keeping good segments.
    pub read_all: bool,
    /// Only adds to the index: what it says about packs that are gone stays, for they may be put back.
    pub keep_missing: bool,
    /// Packs that are looked at the same time.
    pub threads: usize,
}

/// What a repair did (or would do).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Packs that are stored.
    pub packs: u64,
    /// Packs whose contents were read.
    pub scanned: u64,
    /// Packs of which the index lacked something, or said something else.
    pub indexed: u64,
    /// Packs among those read whose list of contents was damaged, so that their blocks were read one by one.
    pub salvaged: Vec<String>,
    /// Packs that could not be read, and why; they are left alone.
    pub lost: Vec<(String, String)>,
    /// Packs that were left out because a prune is about to delete them.
    pub condemned: u64,
    /// Chunks in new segments, counting copies.
    pub chunks: u64,
    /// Good segments that were left as they are.
    pub segments_kept: u64,
    /// New segments.
    pub segments_written: u64,
    /// Old segments that were removed.
    pub segments_removed: u64,
    /// Config copies that were written.
    pub configs_written: u64,
    /// Damaged config copies that were removed.
    pub configs_removed: u64,
}

/// Makes the index name every chunk that is stored. Fails before anything is changed if any pack, segment, mark or config
/// was written by a newer firn, or if a mark cannot be read.
pub fn repair_index(
    repository: &Repository,
    options: &RepairOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<RepairReport> {
    let may_write = if options.dry_run { repository.check_access() } else { repository.check_writable() };
    match may_write {
        // Only a lost config is for us to mend.
        Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
        _ => {}
    }
    let pinned = if options.dry_run { None } else { Some(repository.pinned()?) };
    let marked = repository.marked_packs()?;
    let old = OldSegments::read(repository, stop)?;
    let mut repair = Repair { repository, options, progress, stop, old: &old, report: RepairReport::default() };
    let stored = StoredPacks::list_latest(repository)?;
    repair.report.packs = stored.len() as u64;
    let todo = repair.choose(&stored, &marked);
    repair.refuse_foreign(&todo)?;
    repair.repair_configs()?;
    if !options.dry_run {
        // A durable segment must not name a pack whose name is not durable: writers rely on what the index names.
        let keys: Vec<_> =
            todo.iter().map(|(is_tree, name)| ObjectKey::new(pack_folder(pack_kind(*is_tree)), name)).collect();
        repository.store().settle(&keys)?;
    }
    let mut writer = SegmentWriter::new(repository, options.dry_run);
    let (done, missing) = (repair.scan(&todo, &mut writer)?, repair.confirm_missing(&stored)?);
    repair.report.indexed = done.len() as u64;
    repair.replace(&done, &missing, writer)?;
    drop(pinned);
    if !options.dry_run {
        repository.reload_index(progress)?;
    }
    Ok(repair.report)
}

struct Repair<'a> {
    repository: &'a Repository,
    options: &'a RepairOptions,
    progress: &'a dyn Progress,
    stop: &'a Stop,
    old: &'a OldSegments,
    report: RepairReport,
}

type Todo = Vec<(bool, ObjectName)>;

impl Repair<'_> {
    /// The packs whose contents must be read.
    fn choose(&mut self, stored: &StoredPacks, marked: &HashSet<ObjectName>) -> Todo {
        let (condemned, packs): (Todo, Todo) =
            stored.iter().map(|(is_tree, name, _)| (is_tree, name)).partition(|(_, name)| marked.contains(name));
        self.report.condemned = condemned.len() as u64;
        packs
    }

    /// Packs of a newer firn, or under a key epoch that the key in use does not hold, would be called lost.
    fn refuse_foreign(&self, todo: &Todo) -> Result<()> {
        todo.par_iter().try_for_each(|(is_tree, name)| {
            self.stop.check()?;
            let kind = pack_kind(*is_tree);
            let key = ObjectKey::new(pack_folder(kind), name);
            let mut header = [0; HEADER_LEN];
            let read = self.repository.store().get_range(&key, 0, &mut header);
            let read = read.and_then(|()| Header::decode(&header));
            match read.and_then(|_| self.repository.keyring().open(kind, &header)) {
                Err(error) if error.kind() == ErrorKind::Unsupported => Err(error
                    .context(format!("The pack \"{key}\" was written by a newer firn; nothing was changed"))
                    .with_hint("Repair the index with a newer firn.")),
                Err(error) if error.kind() == ErrorKind::WrongKey => {
                    Err(error.context(format!("The pack \"{key}\" cannot be opened; nothing was changed")))
                }
                _ => Ok(()),
            }
        })
    }

    /// Reads contents in parallel and hands them to the segment writer; returns the packs that now have an entry.
    fn scan(&mut self, todo: &Todo, writer: &mut SegmentWriter<'_>) -> Result<HashSet<ObjectName>> {
        self.progress.stage("reading the contents of packs");
        self.progress.expect(todo.len() as u64, 0);
        let threads = self.options.threads.clamp(1, todo.len().max(1));
        let (results, received) = crossbeam_channel::bounded(threads);
        let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (repository, stop) = (self.repository, self.stop);
        let read = if self.options.read_all { salvage_verified } else { salvage };
        let mut done = HashSet::new();
        let outcome = std::thread::scope(|scope| {
            for _ in 0..threads {
                let results = results.clone();
                let (next, ended) = (&next, &ended);
                scope.spawn(move || {
                    while let Some((is_tree, name)) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if ended.load(Ordering::Relaxed) || stop.signal().is_some() {
                            break;
                        }
                        let read = read(repository.keyring(), repository.store(), pack_kind(*is_tree), *name);
                        if results.send((*is_tree, *name, read)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(results);
            let mut outcome = Ok(());
            while let Ok((is_tree, name, read)) = received.recv() {
                self.progress.files(1);
                if outcome.is_ok() {
                    outcome = self.take(is_tree, name, read, writer, &mut done);
                    ended.store(outcome.is_err(), Ordering::Relaxed);
                }
            }
            outcome
        });
        outcome.and_then(|()| self.stop.check()).map(|()| done)
    }

    fn take(
        &mut self,
        is_tree: bool,
        name: ObjectName,
        read: Result<Salvaged>,
        writer: &mut SegmentWriter<'_>,
        done: &mut HashSet<ObjectName>,
    ) -> Result<()> {
        let key = ObjectKey::new(pack_folder(pack_kind(is_tree)), name).to_string();
        let salvaged = match read {
            Ok(salvaged) => salvaged,
            // Deleted by a prune that did not need it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                self.report.scanned += 1;
                self.report.lost.push((key, error.chain()));
                return Ok(());
            }
        };
        self.report.scanned += 1;
        let frames = salvaged.contents.blocks.iter().map(|block| block.frame_len).collect();
        let (mut record, mut rows) =
            (pack_record(name, is_tree, salvaged.epoch, salvaged.size, frames), rows(&salvaged.contents));
        if let Some(damage) = salvaged.damage {
            if rows.is_empty() {
                self.report.lost.push((key, damage.chain()));
                return Ok(());
            }
            self.report.salvaged.push(key);
            (record, rows) = self.with_known(record, rows)?;
        }
        if !self.options.read_all && self.old.is_said(&name, Print::of(&record, &rows)) {
            return Ok(());
        }
        done.insert(name);
        writer.push(record, rows)
    }

    /// What was salvaged of a damaged pack, and what only the index knows of it: chunks in blocks that could not be found without it,
    /// and unless every block was read, all others.
    fn with_known(&self, record: PackRecord, mut rows: Rows) -> Result<(PackRecord, Rows)> {
        let found = record.frames.len() as u32;
        for (known, more) in self.old.gather(self.repository, &record.name)? {
            let agree = known.frames.starts_with(&record.frames) || record.frames.starts_with(&known.frames);
            if agree && (known.is_tree, known.size) == (record.is_tree, record.size) {
                rows.extend(more.into_iter().filter(|(_, block)| !self.options.read_all || *block >= found));
                tidy(&mut rows);
                return Ok((if known.frames.len() > record.frames.len() { known } else { record }, rows));
            }
        }
        Ok((record, rows))
    }

    /// Packs of the index that are really not stored: a listing alone proves nothing.
    fn confirm_missing(&self, stored: &StoredPacks) -> Result<HashSet<ObjectName>> {
        let mut missing = HashSet::new();
        if self.options.keep_missing {
            return Ok(missing);
        }
        for said in self.old.packs() {
            let is_listed = said.iter().any(|said| stored.size(said.is_tree, &said.name).is_some());
            if !is_listed && !self.is_any_stored(said)? {
                missing.insert(said[0].name);
            }
        }
        Ok(missing)
    }

    fn is_any_stored(&self, said: &[Said]) -> Result<bool> {
        for said in said {
            let key = ObjectKey::new(pack_folder(pack_kind(said.is_tree)), said.name);
            if self.repository.store().has(&key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Carries over what old segments say about packs that were not read, writes the rest, and removes what is replaced.
    fn replace(
        &mut self,
        done: &HashSet<ObjectName>,
        missing: &HashSet<ObjectName>,
        writer: SegmentWriter<'_>,
    ) -> Result<()> {
        let old = self.old;
        let is_meant = |name: &ObjectName| missing.contains(name) || done.contains(name);
        // A segment is kept unless it names a pack that is gone or was read anew.
        let dirty = if self.options.read_all { old.readable.clone() } else { old.naming(is_meant) };
        let replaced = replace(self.repository, old, &dirty, is_meant, writer, self.stop)?;
        self.report.segments_kept = (old.readable.len() - dirty.len()) as u64;
        self.report.segments_written = replaced.written;
        self.report.chunks = replaced.chunks;
        self.report.segments_removed = replaced.removed;
        Ok(())
    }

    /// Brings the config back to two readable copies, and removes damaged ones afterwards.
    fn repair_configs(&mut self) -> Result<()> {
        let (mut readable, mut damaged, mut highest) = (0u64, Vec::new(), 0u64);
        for name in self.repository.names(ObjectKind::Config)? {
            highest = highest.max(name.parse().unwrap_or(0));
            let key = ObjectKey::new(ObjectKind::Config, &name);
            let read = || {
                let bytes = self.repository.store().get(&key, MAX_RECORD_OBJECT)?;
                Config::decode(&self.repository.keyring().open_record(Kind::Config, bytes)?)
            };
            match read().or_else(|_| read()) {
                Ok(_) => readable += 1,
                Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(key),
                Err(error) => return Err(error),
            }
        }
        self.report.configs_written = 2u64.saturating_sub(readable);
        self.report.configs_removed = damaged.len() as u64;
        if self.options.dry_run {
            return Ok(());
        }
        if readable > 0 || !self.repository.repair_config()? {
            for number in 1..=self.report.configs_written {
                let body = self.repository.config().encode()?;
                let bytes = self.repository.keyring().seal_record(Kind::Config, &body)?;
                self.repository.store().put(&ObjectKey::new(ObjectKind::Config, highest + number), &bytes)?;
            }
        }
        damaged.iter().try_for_each(|key| self.repository.store().delete(key))
    }
}
