//! Which packs are known to be damaged, here and by everybody, and reading blocks from the store itself before a copy is relied on. Not
//! for: looking for damage (see `check`), or mending it (see `repair`).
//!
//! What was confirmed is an object in the repository: writers on all machines store again what is in such a pack, and a prune gives
//! other copies precedence. What a reader stumbles on is noted in the local state first, since a reader writes nothing; the next
//! backup, check or prune with that state reads the pack and, if it is damaged indeed, puts the object. A false alarm only costs space.

use super::keyring::Opened;
use super::pack::{open_block, pack_folder};
use super::read::{pack_key, pack_kind};
use super::table::PackInfo;
use super::{Repository, cache};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_PACK;
use crate::format::coordination::Damage;
use crate::format::header::{HEADER_LEN, Kind};
use crate::format::message::ChunkKind;
use crate::id::{ChunkId, ObjectName};
use crate::progress::Stop;
use crate::store::{ObjectKey, ObjectKind, Store};
use std::collections::HashSet;
use std::io::Write;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;

/// Whether an error means that something is lost, and not that the store cannot be reached now.
pub(crate) fn is_loss(error: &Error) -> bool {
    error.kind() == ErrorKind::Damaged || error.raw_os_error() == Some(libc::EIO)
}

/// The error of a read once more, if it means that an object is damaged. Otherwise it is an error of the caller as well: an object
/// that is gone, that may not be read, or in a store that cannot be reached is not damaged. A broken connection looks like a bad
/// sector to some network file systems, but then the object cannot be asked for its size, either.
pub(crate) fn loss(store: &dyn Store, key: &ObjectKey, error: Error) -> Result<Error> {
    if !is_loss(&error) {
        return Err(error);
    }
    if error.kind() != ErrorKind::Damaged {
        store.size(key)?;
    }
    Ok(error)
}

impl Repository {
    /// Remembers on this machine that a pack seems to be damaged. Errors are of no consequence: the damage is found again.
    pub fn note_damaged(&self, pack: ObjectName) {
        if !self.noted_damage().contains(&pack) {
            let file = std::fs::File::options().append(true).create(true).open(self.cache().damaged());
            drop(file.and_then(|mut file| file.write_all(format!("{pack}\n").as_bytes())));
        }
    }

    /// Tells everybody that a pack is damaged, which was confirmed by reading it twice. Should that fail, it is noted here.
    pub fn report_damaged(&self, pack: ObjectName) -> Result<()> {
        self.note_damaged(pack);
        self.check_writable()?;
        let damage = Damage { version: 1, pack, time: jiff::Timestamp::now(), host: crate::os::hostname() };
        match self.put_json(Kind::Damage, &ObjectKey::new(ObjectKind::Damage, pack), &damage) {
            // It was said before; the name alone says it, whatever became of the rest.
            Err(error) if error.kind() == ErrorKind::Exists => {}
            put => put?,
        }
        self.unnote_damaged(&pack);
        Ok(())
    }

    /// Confirms and tells everybody what was noted on this machine. A pack whose bytes are right stays noted here alone.
    pub fn publish_damage(&self, stop: &Stop) -> Result<()> {
        for pack in self.noted_damage() {
            if let Some(key) = self.stored_pack(&pack)? {
                if !self.has_right_bytes(&key, stop)? && !self.has_right_bytes(&key, stop)? {
                    self.report_damaged(pack)?;
                }
            } else {
                self.unnote_damaged(&pack);
            }
        }
        Ok(())
    }

    /// The pack, if it is there; no listing is asked.
    pub(crate) fn stored_pack(&self, pack: &ObjectName) -> Result<Option<ObjectKey>> {
        for is_tree in [false, true] {
            let key = ObjectKey::new(pack_folder(pack_kind(is_tree)), pack);
            if self.store().has(&key)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Takes back that a pack is damaged: it was found right, or is no more.
    pub fn forget_damaged(&self, pack: &ObjectName) -> Result<()> {
        self.check_writable()?;
        self.unnote_damaged(pack);
        self.store().delete(&ObjectKey::new(ObjectKind::Damage, pack))
    }

    /// The packs that are known to be damaged: by what the repository says, and by what was noted on this machine.
    pub fn damaged_packs(&self) -> Result<HashSet<ObjectName>> {
        let mut packs = self.reported_damage()?;
        packs.extend(self.noted_damage());
        Ok(packs)
    }

    /// Those that the repository names. The names of the records are those of the packs, and count alone: a record that cannot be
    /// read must neither stop a backup nor make anybody rely on its pack. One that is wrong costs space.
    pub fn reported_damage(&self) -> Result<HashSet<ObjectName>> {
        self.names(ObjectKind::Damage)?.iter().map(|name| ObjectName::parse(name)).collect()
    }

    fn noted_damage(&self) -> HashSet<ObjectName> {
        let text = std::fs::read_to_string(self.cache().damaged()).unwrap_or_default();
        text.lines().filter_map(|line| ObjectName::parse(line).ok()).collect()
    }

    fn unnote_damaged(&self, pack: &ObjectName) {
        let mut packs = self.noted_damage();
        if packs.remove(pack) {
            let text: String = packs.iter().map(|name| format!("{name}\n")).collect();
            // What was noted meanwhile may be lost with this; it is found again.
            drop(cache::replace(&self.cache().damaged(), text.as_bytes()));
        }
    }

    /// Whether the bytes of a pack are those that its name promises. What the disk refuses to read is not.
    pub(crate) fn has_right_bytes(&self, key: &ObjectKey, stop: &Stop) -> Result<bool> {
        let name = ObjectName::parse(&key.name)?;
        let size = self.store().size(key)?;
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        let mut buffer = vec![0; PIECE as usize];
        while at < size.min(MAX_PACK + 1) {
            stop.check()?;
            let piece = &mut buffer[..(size - at).min(PIECE) as usize];
            if let Err(error) = self.store().get_range(key, at, piece) {
                return loss(self.store(), key, error).map(|_| false);
            }
            hasher.update(piece);
            at += piece.len() as u64;
        }
        Ok(*hasher.finalize().as_bytes() == name.0)
    }
}

/// A pack whose blocks are read from the store itself, past everything that is kept in memory.
pub(crate) struct FreshPack<'a> {
    repository: &'a Repository,
    info: &'a PackInfo,
    opened: Option<Opened>,
}

impl<'a> FreshPack<'a> {
    pub(crate) fn new(repository: &'a Repository, info: &'a PackInfo) -> FreshPack<'a> {
        FreshPack { repository, info, opened: None }
    }

    /// Kind and ids of the chunks that a block holds, recomputed from its bytes, ascending. It is read twice before it is called lost
    /// (see `is_loss`).
    pub(crate) fn chunks(&mut self, block: u32) -> Result<(ChunkKind, Vec<ChunkId>)> {
        self.read(block).or_else(|error| if is_loss(&error) { self.read(block) } else { Err(error) })
    }

    fn read(&mut self, block: u32) -> Result<(ChunkKind, Vec<ChunkId>)> {
        let key = pack_key(self.info);
        let keyring = self.repository.keyring();
        let (offset, length) = self.info.frame(block).ok_or_else(|| {
            Error::damaged(format!("The index names block {block} of the pack \"{key}\", which has fewer"))
        })?;
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => {
                let mut header = [0; HEADER_LEN];
                self.repository.store().get_range(&key, 0, &mut header)?;
                keyring.open(pack_kind(self.info.is_tree), &header)?
            }
        };
        let mut frame = vec![0; length as usize];
        self.repository.store().get_range(&key, offset, &mut frame)?;
        let read = open_block(keyring, &opened, block, &mut frame)?;
        let mut ids: Vec<ChunkId> = read.chunks.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        let kind = read.kind;
        self.opened = Some(opened);
        Ok((kind, ids))
    }
}
