//! What was promised, and whether it still holds: looked at after every change, from what is stored alone. Not for: whether
//! bytes are right (see `lab`, which restores at the end of a run).

use super::step::{Hash, mix, of_key};
use crate::format::header::Kind;
use crate::id::{ChunkId, ObjectName};
use crate::repository::Repository;
use crate::repository::index::read_segment;
use crate::repository::pack::read_contents;
use crate::store::{MemoryStore, ObjectKey, ObjectKind};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A file of a tree and the seed of its bytes.
pub(super) type Files = Vec<(String, u64)>;

/// What an object holds. Names stand for bytes, so this is found out once for all runs.
enum Fact {
    Pack(Vec<ChunkId>),
    Segment { replaces: Vec<ObjectName>, packs: Vec<(bool, ObjectName)> },
}

/// What is known of objects and trees, from all runs.
#[derive(Default)]
pub(super) struct Knowledge {
    facts: HashMap<ObjectKey, Fact>,
    trees: HashMap<ChunkId, (Vec<ChunkId>, Files)>,
}

/// The judge of one run.
pub(super) struct Oracle {
    repository: Arc<Repository>,
    knowledge: Arc<Mutex<Knowledge>>,
    /// Snapshots that were there at the beginning or whose backup reported success, less those that a forget has named.
    promised: BTreeMap<ObjectName, ChunkId>,
    forgotten: BTreeSet<ObjectName>,
    names: Vec<String>,
    roles: HashMap<ObjectKey, String>,
    counts: HashMap<(usize, ObjectKind), usize>,
    crime: Option<String>,
}

impl Oracle {
    pub(super) fn new(repository: Arc<Repository>, knowledge: Arc<Mutex<Knowledge>>, names: Vec<String>) -> Oracle {
        Oracle {
            repository,
            knowledge,
            promised: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            names,
            roles: HashMap::new(),
            counts: HashMap::new(),
            crime: None,
        }
    }

    /// What an object is called in a history.
    pub(super) fn call(&mut self, key: &ObjectKey, role: String) {
        self.roles.insert(key.clone(), role);
    }

    pub(super) fn role(&self, key: &ObjectKey) -> String {
        self.roles.get(key).cloned().unwrap_or_else(|| key.to_string())
    }

    /// Names an object after the actor that is about to put it.
    pub(super) fn call_after(&mut self, actor: usize, key: &ObjectKey) {
        let what = match key.kind {
            ObjectKind::Data => "data pack",
            ObjectKind::Tree => "tree pack",
            ObjectKind::Index => "segment",
            ObjectKind::Snapshot => "snapshot",
            ObjectKind::Pin => "pin",
            ObjectKind::Mark => "mark",
            _ => {
                let of = [ObjectKind::Snapshot, ObjectKind::Pin].map(|kind| ObjectKey::new(kind, &key.name));
                let of = of.iter().find_map(|key| self.roles.get(key)).map_or("something", String::as_str);
                let role = format!("the {} of {of}", key.kind.folder().trim_end_matches('s'));
                return self.call(key, role);
            }
        };
        let count = self.counts.entry((actor, key.kind)).or_default();
        *count += 1;
        let number = if *count == 1 { String::new() } else { format!(" {count}") };
        let role = format!("{}'s {what}{number}", self.names[actor]);
        self.call(key, role);
    }

    /// A tree that is about to be stored: the chunks that it needs, and the files in it.
    pub(super) fn learn_tree(&self, tree: ChunkId, needs: Vec<ChunkId>, files: Files) {
        self.knowledge.lock().unwrap_or_else(PoisonError::into_inner).trees.insert(tree, (needs, files));
    }

    /// A backup has reported success.
    pub(super) fn promise(&mut self, snapshot: ObjectName, tree: ChunkId) {
        if !self.forgotten.contains(&snapshot) {
            self.promised.insert(snapshot, tree);
        }
    }

    /// An undelete has reported success.
    pub(super) fn promise_again(&mut self, snapshot: ObjectName, tree: ChunkId) {
        self.claim_back(snapshot);
        self.promise(snapshot, tree);
    }

    /// Nobody wants this snapshot gone any more; what is promised of it is up to its backup.
    pub(super) fn claim_back(&mut self, snapshot: ObjectName) {
        self.forgotten.remove(&snapshot);
    }

    /// Somebody asks to forget this snapshot.
    pub(super) fn release(&mut self, snapshot: ObjectName) {
        self.forgotten.insert(snapshot);
        self.promised.remove(&snapshot);
    }

    /// What has to be restorable.
    pub(super) fn promised(&self) -> Vec<(ObjectName, Files)> {
        let knowledge = self.knowledge.lock().unwrap_or_else(PoisonError::into_inner);
        self.promised.iter().map(|(name, tree)| (*name, knowledge.trees[tree].1.clone())).collect()
    }

    pub(super) fn hash(&self) -> Hash {
        self.promised.keys().fold(9, |hash, name| hash ^ mix(3, of_key(&ObjectKey::new(ObjectKind::Snapshot, name))))
    }

    /// An object was put.
    pub(super) fn put(&mut self, actor: usize, key: &ObjectKey, store: &MemoryStore) {
        if key.kind == ObjectKind::Tomb {
            let name = ObjectName::parse(&key.name).expect("the store accepted it");
            if self.promised.contains_key(&name) {
                self.crime = Some(format!("{} forgets {} on its own", self.names[actor], self.role(key)));
            }
        }
        self.learn(key, store);
    }

    /// Finds out what a stored object holds.
    pub(super) fn learn(&self, key: &ObjectKey, store: &MemoryStore) {
        let mut knowledge = self.knowledge.lock().unwrap_or_else(PoisonError::into_inner);
        if knowledge.facts.contains_key(key) {
            return;
        }
        let keyring = self.repository.keyring();
        let name = || ObjectName::parse(&key.name).expect("the store accepted it");
        let fact = match key.kind {
            ObjectKind::Data | ObjectKind::Tree => {
                let kind = if key.kind == ObjectKind::Data { Kind::DataPack } else { Kind::TreePack };
                let contents = read_contents(keyring, store, kind, name()).expect("the pack is whole").contents;
                Fact::Pack(contents.blocks.iter().flat_map(|block| &block.chunks).map(|(id, _)| *id).collect())
            }
            ObjectKind::Index => {
                let segment = read_segment(keyring, store, name()).expect("the segment is whole");
                let packs = segment.packs.iter().map(|pack| (pack.is_tree, pack.name)).collect();
                Fact::Segment { replaces: segment.replaces, packs }
            }
            _ => return,
        };
        knowledge.facts.insert(key.clone(), fact);
    }

    /// The first promise that is broken.
    pub(super) fn judge(&self, keys: &BTreeSet<ObjectKey>) -> Option<String> {
        if self.crime.is_some() {
            return self.crime.clone();
        }
        let knowledge = self.knowledge.lock().unwrap_or_else(PoisonError::into_inner);
        let mut replaced = HashSet::new();
        let mut segments = Vec::new();
        for key in keys.iter().filter(|key| key.kind == ObjectKind::Index) {
            if let Some(Fact::Segment { replaces, packs }) = knowledge.facts.get(key) {
                replaced.extend(replaces.iter().map(|name| name.to_string()));
                segments.push((&key.name, packs));
            }
        }
        let mut found: HashSet<ChunkId> = HashSet::new();
        for (is_tree, pack) in segments.iter().filter(|(name, _)| !replaced.contains(*name)).flat_map(|(_, p)| *p) {
            let key = ObjectKey::new(if *is_tree { ObjectKind::Tree } else { ObjectKind::Data }, pack);
            if let (true, Some(Fact::Pack(chunks))) = (keys.contains(&key), knowledge.facts.get(&key)) {
                found.extend(chunks);
            }
        }
        for (name, tree) in &self.promised {
            let key = ObjectKey::new(ObjectKind::Snapshot, name);
            if !keys.contains(&key) {
                return Some(format!("{} is gone and nobody has forgotten it", self.role(&key)));
            }
            let lost = knowledge.trees[tree].0.iter().filter(|id| !found.contains(id)).count();
            if lost > 0 {
                return Some(format!(
                    "{} needs {lost} chunks that are in no pack that the index names",
                    self.role(&key)
                ));
            }
        }
        None
    }
}
