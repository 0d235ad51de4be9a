//! The small objects: configs, key slots, coordination records, snapshots and their chains, index segments. Not for: packs.

use super::{Affected, Pass, Severity, twice};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_RECORD_OBJECT;
use crate::format::config::Config;
use crate::format::coordination::{Damage, Hold, Mark, Pin, Revoke, Tomb};
use crate::format::header::Kind;
use crate::format::index::Segment;
use crate::format::json::Record;
use crate::id::ObjectName;
use crate::repository::index::{Index, Place, read_segment};
use crate::repository::segments::{Print, shape, unfold};
use crate::repository::snapshots::Snapshots;
use crate::repository::table::PackInfo;
use crate::repository::tombs::replayed_sentence;
use crate::store::{ObjectKey, ObjectKind};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) const REPAIR: &str = "Run \"firn repair index\".";

/// What the index says about one pack; 100 bytes.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub name: ObjectName,
    pub is_tree: bool,
    pub size: u64,
    /// Where its frames can be looked up.
    pub home: Home,
    /// Stands for the whole record; segments may contradict one another.
    shape: u64,
    /// The sum of what its chunks and their blocks stand for; `None` if only local tables know the pack.
    pub sum: Option<u64>,
    /// The number of the segment that says so.
    by: u32,
}

/// Where a pack's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Nowhere yet.
    Unknown,
    /// In a local table.
    Table(Place),
    /// Among the packs that no segment names.
    Orphan(u32),
}

/// All packs that the index names, by name; a pack of which segments say different things stands there several times.
#[derive(Debug, Default)]
pub(super) struct Indexed(Vec<Known>);

impl Indexed {
    /// What is said about one pack.
    pub(super) fn get(&self, name: &ObjectName) -> &[Known] {
        let from = self.0.partition_point(|known| known.name < *name);
        let to = from + self.0[from..].iter().take_while(|known| known.name == *name).count();
        &self.0[from..to]
    }

    /// All packs, each with what is said about it.
    pub(super) fn each(&self) -> impl Iterator<Item = &[Known]> {
        self.0.chunk_by(|a, b| a.name == b.name)
    }

    /// Adds a stored pack that no segment names.
    pub(super) fn add_orphans(&mut self, orphans: Vec<(PackInfo, u64)>) {
        for (number, (info, sum)) in orphans.into_iter().enumerate() {
            let (by, shape) = (u32::MAX, 0);
            let home = Home::Orphan(number as u32);
            self.0.push(Known {
                name: info.name,
                is_tree: info.is_tree,
                size: info.size,
                home,
                shape,
                sum: Some(sum),
                by,
            });
        }
        self.sort();
    }

    fn sort(&mut self) {
        self.0.sort_unstable_by_key(|known| (known.name, known.shape, known.sum, known.by));
    }

    /// Finds the records of all packs in the local tables; adds those that only the tables know. Returns whether the index has
    /// changed since its segments were read.
    fn settle(&mut self, index: &Index) -> Result<bool> {
        let mut more = Vec::new();
        index.for_each_pack_at(&mut |place, info| {
            let from = self.0.partition_point(|known| known.name < info.name);
            let said = self.0[from..].iter_mut().take_while(|known| known.name == info.name);
            let of_record = shape(info.is_tree, info.epoch, info.size, &info.frames);
            let (mut is_known, home) = (false, Home::Table(place));
            for known in said {
                is_known = true;
                if known.home == Home::Unknown && known.shape == of_record {
                    known.home = home;
                }
            }
            if !is_known {
                let PackInfo { name, is_tree, size, .. } = info;
                more.push(Known { name, is_tree, size, home, shape: of_record, sum: None, by: u32::MAX });
            }
            Ok(())
        })?;
        let before = self.0.len();
        self.0.retain(|known| known.home != Home::Unknown);
        let has_changed = self.0.len() < before;
        self.0.append(&mut more);
        self.sort();
        self.0.dedup_by_key(|known| (known.name, known.shape, known.sum));
        Ok(has_changed)
    }
}

impl Pass<'_> {
    pub(super) fn check_configs(&mut self) -> Result<()> {
        let mut readable = 0;
        for key in self.names(ObjectKind::Config)? {
            let read = twice(|| {
                let bytes = self.repository.store().get(&key, MAX_RECORD_OBJECT)?;
                let body = self.repository.keyring().open_record(Kind::Config, bytes)?;
                let config = Config::decode(&body)?;
                if config.repository != self.repository.id() {
                    return Err(Error::damaged("it belongs to another repository"));
                }
                Ok(())
            });
            match read {
                Ok(()) => readable += 1,
                Err(error) => {
                    let error = error.context("This config cannot be read");
                    self.add_error(Severity::Repairable, &key, &error, "Run \"firn repair index\": it writes a copy.");
                }
            }
        }
        match readable {
            0 => self.add(Severity::Repairable, "config", "No config can be read; reading works, writing does not"),
            1 => self.add(Severity::Repairable, "config", "Only one config can be read, and there should be two"),
            _ => return Ok(()),
        }
        .hint("Run \"firn repair index\": it writes a copy.");
        Ok(())
    }

    pub(super) fn check_keys(&mut self) -> Result<()> {
        let mut readable = 0;
        for (name, slot) in self.repository.key_slots()? {
            let key = ObjectKey::new(ObjectKind::Key, name);
            match slot.and_then(|slot| slot.description) {
                Ok(_) => readable += 1,
                Err(error) => self.add_error(
                    Severity::Repairable,
                    &key,
                    &error,
                    "It no longer opens the repository. Add a key with \"firn key add\", then remove this one.",
                ),
            }
        }
        if readable == 0 {
            self.add(Severity::Lost, "keys", "No key slot can be read: nobody will be able to open this repository")
                .hint("Put back a copy of its \"keys\" folder before this machine forgets the keys.");
        }
        Ok(())
    }

    pub(super) fn check_coordination(&mut self) -> Result<()> {
        self.check_json::<Pin>(
            Kind::Pin,
            ObjectKind::Pin,
            |pin| pin.session.to_string(),
            "It only makes a prune wait. Delete it once no backup runs.",
        )?;
        self.check_json::<Revoke>(
            Kind::Revoke,
            ObjectKind::Revoke,
            |revoke| revoke.0.session.to_string(),
            "It still counts by its name.",
        )?;
        self.check_json::<Tomb>(
            Kind::Tomb,
            ObjectKind::Tomb,
            |tomb| tomb.snapshot.to_string(),
            "It does not count: its snapshot stays. Delete it; the snapshot can be forgotten again.",
        )?;
        self.check_json::<Hold>(
            Kind::Hold,
            ObjectKind::Hold,
            |hold| hold.snapshot.to_string(),
            "It still counts by its name.",
        )?;
        self.check_json::<Damage>(
            Kind::Damage,
            ObjectKind::Damage,
            |damage| damage.pack.to_string(),
            "It still counts by its name, until the pack is found right or a prune has removed it.",
        )?;
        self.check_json::<Mark>(
            Kind::Mark,
            ObjectKind::Mark,
            |mark| mark.prune.to_string(),
            "Backups wait for it. Run the prune again, then delete the damaged mark.",
        )
    }

    fn check_json<T: Record>(
        &mut self,
        kind: Kind,
        folder: ObjectKind,
        name: impl Fn(&T) -> String,
        hint: &str,
    ) -> Result<()> {
        for key in self.names(folder)? {
            let read = twice(|| {
                let value: T = self.repository.get_json(kind, &key)?;
                // A mark's name goes on with a number.
                if key.name.split('-').next() != Some(name(&value).as_str()) {
                    return Err(Error::damaged(format!("\"{key}\" has the content of another object")));
                }
                Ok(())
            });
            if let Err(error) = read {
                // A pin that is gone belongs to a backup that has ended.
                if error.kind() != ErrorKind::NotFound {
                    self.add_error(Severity::Repairable, &key, &error, hint);
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_snapshots(&mut self) -> Result<Snapshots> {
        let mut snapshots = self.repository.snapshots()?;
        let tombs = snapshots.tombs.clone();
        for (name, error) in std::mem::take(&mut snapshots.damaged) {
            let key = ObjectKey::new(ObjectKind::Snapshot, name);
            // Read again before it is condemned.
            let error = match self.repository.snapshot(name) {
                Ok(snapshot) => {
                    let list = if tombs.contains_key(&name) { &mut snapshots.forgotten } else { &mut snapshots.live };
                    list.push(crate::repository::snapshots::Named { name, snapshot });
                    continue;
                }
                Err(again) if again.kind() == ErrorKind::NotFound => again,
                Err(_) => error,
            };
            let before = self.report.findings.len();
            if tombs.contains_key(&name) {
                self.add_error(Severity::Note, &key, &error, "It is forgotten, so nothing is lost.");
            } else {
                self.add_error(
                    Severity::Lost,
                    &key,
                    &error,
                    "Its files may still be in other snapshots; if there is a copy of this object, put it back.",
                );
            }
            if let Some(finding) = self.report.findings.get_mut(before)
                && finding.severity == Severity::Lost
            {
                finding.affected.push(Affected { snapshot: name, path: b"/".to_vec() });
                finding.affected_total = 1;
            }
            snapshots.damaged.push((name, error));
        }
        // Also by what snapshots tell.
        if let Some(error) = self.repository.keys_set_back() {
            let is_other = error.kind() == ErrorKind::WrongKey;
            let severity = if is_other { Severity::Note } else { Severity::Repairable };
            self.add(severity, "keys", error.chain()).hint(error.hint().unwrap_or_default());
        }
        for name in &snapshots.replayed {
            self.add(Severity::Repairable, ObjectKey::new(ObjectKind::Tomb, name), replayed_sentence(name)).hint(&format!(
                "Find out who did that. \"firn undelete {}\" removes the tomb; older programs take it for a new one.",
                name.short()
            ));
        }
        self.check_chains(&snapshots)?;
        self.report.snapshots = snapshots.live.len() as u64;
        Ok(snapshots)
    }

    /// A snapshot that another one names must be stored or have a tomb; tombs stay when a prune deletes what they name.
    fn check_chains(&mut self, snapshots: &Snapshots) -> Result<()> {
        let mut stored: HashMap<ObjectName, Option<u64>> =
            snapshots.damaged.iter().map(|(name, _)| (*name, None)).collect();
        let all = || snapshots.live.iter().chain(&snapshots.forgotten);
        stored.extend(all().map(|named| (named.name, Some(named.snapshot.sequence))));
        for named in all() {
            let snapshot = &named.snapshot;
            let gap = snapshot.previous.and_then(|name| stored.get(&name).copied().flatten());
            if gap.is_some_and(|before| before.checked_add(1) != Some(snapshot.sequence)) {
                let key = ObjectKey::new(ObjectKind::Snapshot, named.name);
                self.add(
                    Severity::Note,
                    key,
                    "Its number does not follow that of the snapshot it names as the one before",
                );
            }
        }
        for missing in self.repository.missing_snapshots(snapshots)? {
            let key = ObjectKey::new(ObjectKind::Snapshot, missing.name);
            if missing.is_stored {
                self.vanished = true;
                if self.is_last {
                    self.add(Severity::Repairable, key, missing.sentence()).hint(&missing.hint());
                }
                continue;
            }
            let finding = self.add(Severity::Lost, key, missing.sentence());
            finding.hint(&missing.hint());
            finding.affected.push(Affected { snapshot: missing.name, path: b"/".to_vec() });
            finding.affected_total = 1;
        }
        Ok(())
    }

    /// Reads every segment from the store (local tables may hide that one is damaged) and keeps what they say about packs; with it
    /// comes the index in whose terms it is told. No other one may be used with it.
    pub(super) fn check_segments(&mut self) -> Result<(Indexed, Arc<Index>)> {
        let mut replaced = HashSet::new();
        let mut damaged = Vec::new();
        let mut sources: Vec<ObjectName> = Vec::new();
        let mut indexed = Indexed::default();
        for key in self.names(ObjectKind::Index)? {
            self.stop.check()?;
            let name = ObjectName::parse(&key.name)?;
            match twice(|| read_segment(self.repository.keyring(), self.repository.store(), name)) {
                Ok(segment) => {
                    replaced.extend(segment.replaces.iter().copied());
                    indexed.0.extend(records(segment, sources.len() as u32));
                    sources.push(name);
                }
                Err(error) => damaged.push((name, key, error)),
            }
        }
        self.report.segments = sources.len() as u64;
        for (name, key, error) in damaged {
            let severity = if replaced.contains(&name) { Severity::Note } else { Severity::Repairable };
            self.add_error(severity, &key, &error, REPAIR);
        }
        indexed.0.retain(|known| !replaced.contains(&sources[known.by as usize]));
        indexed.sort();
        indexed.0.dedup_by_key(|known| (known.name, known.shape, known.sum));
        let index = self.repository.latest_index(self.progress)?;
        self.vanished |= indexed.settle(&index)?;
        Ok((indexed, index))
    }
}

fn records(segment: Segment, by: u32) -> impl Iterator<Item = Known> {
    unfold(segment).map(move |(pack, rows)| {
        let Print { shape, sum } = Print::of(&pack, &rows);
        let (name, is_tree, size) = (pack.name, pack.is_tree, pack.size);
        Known { name, is_tree, size, home: Home::Unknown, shape, sum: Some(sum), by }
    })
}
