//! Saves every readable block of damaged packs into new ones, and removes the damaged packs once nothing more is to be got from
//! them. Not for: content that cannot be read any more (the next backup stores again what the source still has; see also
//! `snapshots`).
//!
//! Saving works as a backup does: a pin first, the damaged packs count as absent, packs are durable before the index names
//! them. Everything saved is then read back from the store. Only after that, and only if every chunk of a damaged pack is
//! somewhere else, where it was read and found right, is the pack removed, as a prune would do it (CONCURRENCY in `man/firn-repository.7`): a mark first; then
//! the pins, and if there is any, the pack stays for another time; then the index and the marks of others are read again and
//! every chunk is looked up once more; then the index is published without the pack; then it is deleted. A pack that holds the
//! only, unreadable copy of anything stays: another reading, or another program, may yet get it out.
//!
//! Blocks are found by the lengths in the index, else by the pack's contents, else one behind the other by their own heads.
//! Done twice, the second time finds nothing to do.
//!
//! Memory: one block a pack being read, what a writer takes, 100 bytes a pack, and 32 bytes for each chunk in the blocks that hold the
//! other copies.

use crate::error::{Error, ErrorKind, Result};
use crate::format::header::HEADER_LEN;
use crate::id::{ChunkId, ObjectName, SessionId};
use crate::progress::{Progress, Silent, Stop};
use crate::prune::all_whole;
use crate::repository::Repository;
use crate::repository::assemble::store_again;
use crate::repository::coordination::Transient;
use crate::repository::damage::{FreshPack, is_loss};
use crate::repository::index::{Index, Place, StoredPacks, Usable};
use crate::repository::keyring::Opened;
use crate::repository::pack::{Block, open_block, pack_folder, salvage};
use crate::repository::read::{pack_key, pack_kind};
use crate::repository::segments::{OldSegments, SegmentWriter, replace};
use crate::repository::writer::{Writer, WriterOptions};
use crate::store::{ObjectKey, ObjectKind};
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How packs are repaired.
#[derive(Clone, Copy, Debug)]
pub struct PacksOptions {
    /// Only finds out what would be done; nothing is stored or deleted.
    pub dry_run: bool,
    /// Leaves the damaged packs where they are, also when all of them was saved.
    pub keep: bool,
    /// Removes them also if a part cannot be read and is nowhere else.
    pub discard: bool,
    /// Threads that compress and seal.
    pub threads: usize,
}

/// What became of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is not damaged.
    Whole,
    /// Everything in it is elsewhere now, and it is removed.
    Removed,
    /// It stays because that was asked for.
    Kept,
    /// It stays because it holds the only copy of something, though nobody can read it now.
    KeptForLost,
    /// It stays though no snapshot needs what only it holds, which nobody can read, but perhaps forgotten ones; a prune removes it
    /// once they do not.
    KeptForPrune,
    /// It stays because something else is at work in the repository.
    KeptForOthers,
}

/// What a repair did (or would do) with one pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackOutcome {
    /// Its path in the store.
    pub pack: String,
    /// Its blocks, as far as they are known.
    pub blocks: u64,
    /// Those that cannot be read.
    pub unreadable: u64,
    /// Chunks that were saved into new packs; all others that can be read were elsewhere already.
    pub saved: u64,
    /// Their bytes.
    pub saved_bytes: u64,
    /// Chunks that cannot be read and are nowhere else, as far as the index tells.
    pub lost: u64,
    /// What became of it.
    pub fate: Fate,
}

/// A damaged pack.
struct Hurt {
    name: ObjectName,
    is_tree: bool,
    key: ObjectKey,
    frames: Vec<u32>,
    /// There may be more blocks, which nobody can find now.
    is_partial: bool,
    /// Blocks that were read well.
    readable: HashSet<u32>,
    outcome: PackOutcome,
}

/// The stored packs that a person named by path, name or the first digits of it; with no name, those known to be damaged here.
pub fn choose(repository: &Repository, texts: &[String]) -> Result<Vec<ObjectKey>> {
    let stored = StoredPacks::list_latest(repository)?;
    let key = |is_tree: bool, name: ObjectName| ObjectKey::new(pack_folder(pack_kind(is_tree)), name);
    let damaged = repository.damaged_packs()?;
    let mut chosen = BTreeSet::new();
    if texts.is_empty() {
        let known = stored.iter().filter(|(_, name, _)| damaged.contains(name));
        chosen.extend(known.map(|(is_tree, name, _)| key(is_tree, name)));
    }
    for text in texts {
        let digits = text.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let found: Vec<_> = stored
            .iter()
            .filter(|(_, name, _)| is_hex && name.to_string().starts_with(&digits))
            .map(|(is_tree, name, _)| key(is_tree, name))
            .collect();
        match found[..] {
            [ref one] => drop(chosen.insert(one.clone())),
            [] => {
                return Err(Error::new(ErrorKind::NotFound, format!("No pack \"{text}\" is stored"))
                    .with_hint("\"firn check --read-data\" names damaged packs; a pack that is missing altogether cannot be repaired."));
            }
            _ => {
                let message = format!("\"{text}\" is ambiguous: the names of {} packs begin with it", found.len());
                return Err(Error::new(ErrorKind::Input, message).with_hint("Write more digits."));
            }
        }
    }
    Ok(chosen.into_iter().collect())
}

/// Saves what these packs hold. Fails before anything is changed if one was written by a newer firn.
pub fn repair_packs(
    repository: &Arc<Repository>,
    packs: &[ObjectKey],
    options: &PacksOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Vec<PackOutcome>> {
    if options.dry_run {
        repository.check_access()?
    } else {
        repository.check_writable()?
    }
    repository.reload_index(progress)?;
    let frames = frames_of(repository, packs)?;
    let work = Work { repository, options, progress, stop, frames, copies: RefCell::default() };
    progress.stage("looking at packs");
    let (mut hurt, mut outcomes) = (Vec::new(), Vec::new());
    for key in packs {
        stop.check()?;
        match work.look(key)? {
            Some(pack) => hurt.push(pack),
            None => outcomes.push(PackOutcome::of(key, Fate::Whole)),
        }
    }
    if !options.dry_run {
        let damaged = repository.damaged_packs()?;
        for outcome in &outcomes {
            let name = name_of(&outcome.pack)?;
            if damaged.contains(&name) {
                repository.forget_damaged(&name)?;
            }
        }
    }
    if !hurt.is_empty() {
        // From here on no writer takes anything in them for granted.
        hurt.iter().for_each(|pack| work.report(pack.name));
        work.save(&mut hurt)?;
        // Where a copy that was relied on turned out to be damaged, too, its pack does not count any more.
        while !options.dry_run && !work.read_back(&mut hurt)? {
            work.save(&mut hurt)?;
        }
        let condemned: HashSet<ObjectName> = hurt.iter().map(|pack| pack.name).collect();
        work.count_lost(&mut hurt, &condemned, &HashSet::new())?;
        work.remove(&mut hurt)?;
    }
    outcomes.extend(hurt.into_iter().map(|pack| pack.outcome));
    outcomes.sort_by(|a, b| a.pack.cmp(&b.pack));
    Ok(outcomes)
}

fn name_of(path: &str) -> Result<ObjectName> {
    ObjectName::parse(path.rsplit('/').next().unwrap_or_default())
}

impl PackOutcome {
    fn of(key: &ObjectKey, fate: Fate) -> PackOutcome {
        PackOutcome { pack: key.path(), blocks: 0, unreadable: 0, saved: 0, saved_bytes: 0, lost: 0, fate }
    }
}

/// The blocks of these packs, as far as the index names them; in one look at it.
fn frames_of(repository: &Repository, packs: &[ObjectKey]) -> Result<HashMap<ObjectKey, Vec<u32>>> {
    let wanted: HashSet<&ObjectKey> = packs.iter().collect();
    let mut frames = HashMap::new();
    repository.index()?.for_each_pack(&mut |info| {
        let key = pack_key(&info);
        if wanted.contains(&key) {
            frames.insert(key, info.frames);
        }
        Ok(())
    })?;
    Ok(frames)
}

struct Work<'a> {
    repository: &'a Arc<Repository>,
    options: &'a PacksOptions,
    progress: &'a dyn Progress,
    stop: &'a Stop,
    /// The blocks of the packs, as the index has them.
    frames: HashMap<ObjectKey, Vec<u32>>,
    copies: RefCell<CopyReader>,
}

/// The beginning of a chunk's id, by which the index finds it.
type Prefix = [u8; 16];

/// Reads the copies that are relied on, each block once.
#[derive(Default)]
struct CopyReader {
    /// The chunks of each block that was read; none of one that cannot be.
    blocks: HashMap<(ObjectName, u32), HashSet<Prefix>>,
    /// Packs in which a copy turned out to be damaged.
    bad: HashSet<ObjectName>,
}

impl CopyReader {
    fn holds(&mut self, work: &Work<'_>, index: &Index, place: Place, id: &ChunkId) -> Result<bool> {
        let pack = index.pack(place)?;
        let key = (pack.name, place.block);
        if let Entry::Vacant(vacant) = self.blocks.entry(key) {
            work.stop.check()?;
            let ids = match FreshPack::new(work.repository, &pack).chunks(place.block) {
                Ok((_, ids)) => ids.iter().map(prefix).collect(),
                Err(error) if is_loss(&error) || error.kind() == ErrorKind::NotFound => HashSet::new(),
                Err(error) => return Err(error),
            };
            vacant.insert(ids);
        }
        let is_there = self.blocks[&key].contains(&prefix(id));
        if !is_there && self.bad.insert(pack.name) {
            work.report(pack.name);
        }
        Ok(is_there)
    }
}

impl Work<'_> {
    /// Tells everybody of a damaged pack; should that fail, it is noted on this machine.
    fn report(&self, pack: ObjectName) {
        if !self.options.dry_run
            && let Err(error) = self.repository.report_damaged(pack)
        {
            self.progress.note(&format!("The damage could not be noted in the repository: {}", error.chain()));
        }
    }

    /// Whether any of the copies that may be relied on was read and is right.
    fn has_copy(&self, index: &Index, usable: &Usable, id: &ChunkId) -> Result<bool> {
        for place in copies(index, usable, id)? {
            if self.copies.borrow_mut().holds(self, index, place, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A pack that is damaged indeed; `None` if all its bytes are right.
    fn look(&self, key: &ObjectKey) -> Result<Option<Hurt>> {
        let (name, is_tree) = (ObjectName::parse(&key.name)?, key.kind == ObjectKind::Tree);
        let is_right = || self.repository.has_right_bytes(key, self.stop);
        if is_right()? || is_right()? {
            return Ok(None);
        }
        match self.header(key, is_tree) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return Err(error
                    .context(format!("The pack \"{key}\" was written by a newer firn; nothing was changed"))
                    .with_hint("Repair it with a newer firn."));
            }
            Err(error) if error.kind() == ErrorKind::WrongKey => {
                return Err(error.context(format!("The pack \"{key}\" cannot be opened; nothing was changed")));
            }
            _ => {}
        }
        let mut is_partial = false;
        let frames = match self.frames.get(key) {
            Some(frames) => frames.clone(),
            None => match salvage(self.repository.keyring(), self.repository.store(), pack_kind(is_tree), name) {
                Ok(salvaged) => {
                    is_partial = salvaged.ends_early;
                    salvaged.contents.blocks.iter().map(|block| block.frame_len).collect()
                }
                Err(error) if error.kind() == ErrorKind::Damaged => Vec::new(),
                Err(error) => return Err(error),
            },
        };
        let outcome = PackOutcome { blocks: frames.len() as u64, ..PackOutcome::of(key, Fate::Kept) };
        Ok(Some(Hurt { name, is_tree, key: key.clone(), frames, is_partial, readable: HashSet::new(), outcome }))
    }

    fn header(&self, key: &ObjectKey, is_tree: bool) -> Result<Opened> {
        let mut header = [0; HEADER_LEN];
        self.repository.store().get_range(key, 0, &mut header)?;
        self.repository.keyring().open(pack_kind(is_tree), &header)
    }

    /// Calls `each` with every block that can be read, each tried twice.
    fn blocks(&self, pack: &mut Hurt, each: &mut dyn FnMut(Block<'_>) -> Result<()>) -> Result<()> {
        pack.readable.clear();
        let Ok(opened) = self.header(&pack.key, pack.is_tree).or_else(|_| self.header(&pack.key, pack.is_tree)) else {
            return Ok(());
        };
        let mut at = HEADER_LEN as u64;
        for (number, length) in pack.frames.iter().enumerate() {
            self.stop.check()?;
            let read = || {
                let mut frame = vec![0; *length as usize];
                self.repository.store().get_range(&pack.key, at, &mut frame)?;
                open_block(self.repository.keyring(), &opened, number as u32, &mut frame).map(Block::into_owned)
            };
            if let Ok(block) = read().or_else(|_| read()) {
                pack.readable.insert(number as u32);
                each(block)?;
            }
            at += u64::from(*length);
        }
        Ok(())
    }

    /// Stores every readable chunk that is nowhere else, and reads it back.
    fn save(&self, hurt: &mut [Hurt]) -> Result<()> {
        self.progress.stage("saving blocks");
        let (threads, dry_run) = (self.options.threads, self.options.dry_run);
        let options = WriterOptions { level: 3, threads, dry_run };
        let mut writer = Writer::begin_without(self.repository, options, hurt.iter().map(|p| p.name), self.progress)?;
        let mut outcome = Ok(());
        for pack in hurt.iter_mut() {
            let (mut saved, mut bytes) = (0, 0);
            let stored = self.blocks(pack, &mut |block| {
                let (chunks, length) = store_again(&writer, block, &|_| Ok(true))?;
                (saved, bytes) = (saved + chunks, bytes + length);
                Ok(())
            });
            pack.outcome.saved += saved;
            pack.outcome.saved_bytes += bytes;
            pack.outcome.unreadable = pack.outcome.blocks - pack.readable.len() as u64;
            outcome = stored;
            if outcome.is_err() {
                break;
            }
        }
        let flushed = writer.flush();
        // Whatever went wrong, what is stored is indexed and the pin goes.
        drop(writer.abandon());
        outcome.and(flushed)
    }

    /// Everything that was readable must now be readable elsewhere, from the store itself. Returns false if some of it was only in packs
    /// that turned out to be damaged, too.
    fn read_back(&self, hurt: &mut [Hurt]) -> Result<bool> {
        self.progress.stage("reading back what was saved");
        let condemned: HashSet<ObjectName> = hurt.iter().map(|pack| pack.name).collect();
        let (index, usable) = self.usable(&condemned)?;
        let known = self.copies.borrow().bad.len();
        let mut is_complete = true;
        for pack in hurt.iter_mut() {
            let (key, before) = (pack.key.clone(), pack.readable.clone());
            self.blocks(pack, &mut |block| {
                for (id, _) in &block.chunks {
                    if self.has_copy(&index, &usable, id)? {
                        continue;
                    }
                    is_complete = false;
                    if self.copies.borrow().bad.len() == known {
                        return Err(Error::new(ErrorKind::Failed, format!("The chunk \"{id}\" of the pack \"{key}\" was saved but cannot be read back; nothing was removed"))
                            .with_hint("Run \"firn check --read-data\", then repair the packs again."));
                    }
                }
                Ok(())
            })?;
            pack.readable = pack.readable.intersection(&before).copied().collect();
        }
        Ok(is_complete)
    }

    /// The index as of now, and which packs may be relied on: stored, not condemned by a prune, not known to be damaged, none of
    /// `without`. Marks are listed before the index: a prune takes its packs out of the index before it takes its marks away.
    fn usable(&self, without: &HashSet<ObjectName>) -> Result<(Arc<Index>, Usable)> {
        let mut marked = self.repository.marked_packs()?;
        self.repository.reload_index(&Silent)?;
        let index = self.repository.index()?;
        marked.extend(without);
        marked.extend(self.repository.damaged_packs()?);
        let usable = index.usable(&StoredPacks::list_latest(self.repository)?, &marked)?;
        Ok((index, usable))
    }

    /// Counts for each pack the chunks that the index places in unreadable blocks and that are nowhere else. With `readable`,
    /// chunks in readable blocks have to be elsewhere as well.
    fn count_lost(&self, hurt: &mut [Hurt], condemned: &HashSet<ObjectName>, must: &HashSet<ObjectName>) -> Result<()> {
        let (index, usable) = self.usable(condemned)?;
        let mut numbers: HashMap<(u32, u32), usize> = HashMap::new();
        let by_name: HashMap<ObjectName, usize> = hurt.iter().enumerate().map(|(at, pack)| (pack.name, at)).collect();
        index.for_each_pack_at(&mut |place, info| {
            if let Some(at) = by_name.get(&info.name) {
                numbers.insert((place.table, place.pack), *at);
            }
            Ok(())
        })?;
        hurt.iter_mut().for_each(|pack| pack.outcome.lost = 0);
        index.scan(&mut |place, start| {
            if let Some(at) = numbers.get(&(place.table, place.pack)) {
                let pack = &mut hurt[*at];
                let counts = !pack.readable.contains(&place.block) || must.contains(&pack.name);
                if counts && !self.has_copy(&index, &usable, &start)? {
                    pack.outcome.lost += 1;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Removes the packs of which nothing is lost, unless something else is at work.
    fn remove(&self, hurt: &mut [Hurt]) -> Result<()> {
        let mut condemned = BTreeSet::new();
        let indexed = self.indexed(hurt)?;
        for pack in hurt.iter_mut() {
            // Unreadable blocks may hold anything, unless the index names all that is in the pack.
            let is_unknown = pack.outcome.blocks == 0
                || pack.is_partial
                || pack.outcome.unreadable > 0 && !indexed.contains(&pack.name);
            pack.outcome.fate = match self.options {
                PacksOptions { keep: true, .. } => Fate::Kept,
                PacksOptions { discard: false, .. } if pack.outcome.lost > 0 || is_unknown => Fate::KeptForLost,
                _ => Fate::Removed,
            };
            if pack.outcome.fate == Fate::Removed {
                condemned.insert(pack.name);
            }
        }
        self.look_for_need(hurt)?;
        if condemned.is_empty() || self.options.dry_run {
            return Ok(());
        }
        self.progress.stage("removing damaged packs");
        let names: Vec<ObjectName> = condemned.iter().copied().collect();
        let marks = self.repository.mark(SessionId::random()?, &names, &[])?;
        let lag = self.repository.listing_lag();
        let removed = self.remove_marked(hurt, &condemned, lag);
        // Where listings lag, others may still see the index that names the packs: until they cannot, the marks stay.
        let removed =
            removed.and_then(|removed| self.stop.sleep(if removed { lag } else { Duration::ZERO }).map(|()| removed));
        if removed.is_err() && !lag.is_zero() {
            marks.into_iter().for_each(Transient::leave);
        } else {
            drop(marks);
        }
        if !removed? {
            for pack in hurt.iter_mut().filter(|pack| pack.outcome.fate == Fate::Removed) {
                pack.outcome.fate = Fate::KeptForOthers;
            }
        }
        Ok(())
    }

    /// Says of packs that stay for what is lost whether any snapshot needs that.
    fn look_for_need(&self, hurt: &mut [Hurt]) -> Result<()> {
        let without: HashSet<ObjectName> = hurt.iter().map(|pack| pack.name).collect();
        let mut kept = hurt.iter_mut().filter(|pack| pack.outcome.fate == Fate::KeptForLost).peekable();
        if kept.peek().is_some() && all_whole(self.repository, &without, self.progress, self.stop)? {
            kept.for_each(|pack| pack.outcome.fate = Fate::KeptForPrune);
        }
        Ok(())
    }

    /// Those of these packs of which the index names all.
    fn indexed(&self, hurt: &[Hurt]) -> Result<HashSet<ObjectName>> {
        let index = self.repository.index()?;
        let mut found = HashSet::new();
        if !index.damaged.is_empty() {
            return Ok(found);
        }
        let names: HashSet<ObjectName> = hurt.iter().map(|pack| pack.name).collect();
        index.for_each_pack(&mut |info| {
            found.extend(names.get(&info.name));
            Ok(())
        })?;
        Ok(found)
    }

    /// The steps of a prune behind its mark. Returns whether it could be done.
    fn remove_marked(&self, hurt: &mut [Hurt], condemned: &BTreeSet<ObjectName>, lag: Duration) -> Result<bool> {
        self.stop.sleep(2 * lag)?;
        if !self.repository.names(ObjectKind::Pin)?.is_empty() {
            return Ok(false);
        }
        self.stop.sleep(lag)?;
        // Who pins from now on sees the mark. What others have condemned meanwhile counts as gone.
        let names: HashSet<ObjectName> = condemned.iter().copied().collect();
        let lost: Vec<u64> = hurt.iter().map(|pack| pack.outcome.lost).collect();
        self.count_lost(hurt, &names, &names)?;
        let has_more =
            hurt.iter().zip(lost).any(|(pack, before)| names.contains(&pack.name) && pack.outcome.lost > before);
        if has_more {
            return Ok(false);
        }
        let mut old = OldSegments::read(self.repository, self.stop)?;
        // Damaged segments are for "repair index", which reads the packs that they named.
        old.useless.clear();
        let dirty = old.naming(|name| names.contains(name));
        let writer = SegmentWriter::new(self.repository, false);
        replace(self.repository, &old, &dirty, |name| names.contains(name), writer, self.stop)?;
        for pack in hurt.iter().filter(|pack| names.contains(&pack.name)) {
            self.repository.store().delete(&pack.key)?;
            self.repository.forget_damaged(&pack.name)?;
        }
        self.repository.reload_index(&Silent)?;
        Ok(true)
    }
}

fn prefix(id: &ChunkId) -> Prefix {
    *id.0.first_chunk().expect("an id has 32 bytes")
}

/// The places of a chunk in packs that may be relied on.
fn copies(index: &Index, usable: &Usable, id: &ChunkId) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    index.find(id, &mut |place| {
        if usable.contains(place) {
            places.push(place);
        }
        true
    })?;
    Ok(places)
}
