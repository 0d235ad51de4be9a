//! What was promised, and whether it still holds: looked at after every change, from what is stored alone. Not for: whether
//! bytes are right (see `lab`, which restores at the end of a run).

use super::step::{Hash, Objects, mix, of_key};
use crate::format::coordination::Mark;
use crate::format::header::Kind;
use crate::id::{ChunkId, ObjectName};
use crate::repository::Repository;
use crate::repository::index::read_segment;
use crate::repository::pack::read_contents;
use crate::store::{MemoryStore, ObjectKey, ObjectKind};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A file of a tree and the seed of its bytes.
pub(super) type Files = Vec<(String, u64)>;

/// What an object holds that promises depend on.
enum Fact {
    Pack(Vec<ChunkId>),
    Segment { replaces: Vec<ObjectName>, packs: Vec<(bool, ObjectName)> },
}

/// What is known of objects and trees, from all runs of a scenario.
pub(super) struct Knowledge {
    repository: Arc<Repository>,
    bytes: HashMap<Hash, Vec<u8>>,
    facts: HashMap<Hash, Fact>,
    trees: HashMap<ChunkId, (Vec<ChunkId>, Files)>,
}

impl Knowledge {
    pub(super) fn new(repository: Arc<Repository>) -> Knowledge {
        Knowledge { repository, bytes: HashMap::new(), facts: HashMap::new(), trees: HashMap::new() }
    }

    /// A tree that is about to be stored: the chunks that it needs, and the files in it.
    pub(super) fn learn_tree(&mut self, tree: ChunkId, needs: Vec<ChunkId>, files: Files) {
        self.trees.insert(tree, (needs, files));
    }

    /// Finds out what an object holds. Returns a hash of its name and of what it says: times apart, names stand for bytes, except
    /// where they are those of sessions or snapshots.
    pub(super) fn learn(&mut self, key: &ObjectKey, bytes: &[u8]) -> Hash {
        let keyring = self.repository.keyring();
        let mut hash = of_key(key);
        if key.kind == ObjectKind::Mark {
            let body = keyring.open_record(Kind::Mark, bytes.to_vec()).expect("the mark is whole");
            let mark = Mark::decode(&body).expect("the mark is whole");
            hash =
                mark.packs.iter().fold(hash, |hash, pack| mix(hash, of_key(&ObjectKey::new(ObjectKind::Data, pack))));
        }
        if key.kind == ObjectKind::Tomb {
            // A new tomb is not the one that was taken back.
            let bytes = *blake3::hash(bytes).as_bytes();
            hash = mix(hash, bytes.first_chunk().map_or(0, |part| Hash::from_le_bytes(*part)));
        }
        if let Some(known) = self.bytes.get(&hash) {
            let may_differ = matches!(key.kind, ObjectKind::Pin | ObjectKind::Mark | ObjectKind::Revoke);
            assert!(may_differ || known == bytes, "two objects have the name \"{key}\"");
            return hash;
        }
        let store = MemoryStore::new();
        store.raw_set(key, bytes);
        let name = || ObjectName::parse(&key.name).expect("the store accepts it");
        let fact = match key.kind {
            ObjectKind::Data | ObjectKind::Tree => {
                let kind = if key.kind == ObjectKind::Data { Kind::DataPack } else { Kind::TreePack };
                let contents = read_contents(keyring, &store, kind, name()).expect("the pack is whole").contents;
                Some(Fact::Pack(contents.blocks.iter().flat_map(|block| &block.chunks).map(|(id, _)| *id).collect()))
            }
            ObjectKind::Index => {
                let segment = read_segment(keyring, &store, name()).expect("the segment is whole");
                let packs = segment.packs.iter().map(|pack| (pack.is_tree, pack.name)).collect();
                Some(Fact::Segment { replaces: segment.replaces, packs })
            }
            _ => None,
        };
        self.facts.extend(fact.map(|fact| (hash, fact)));
        self.bytes.insert(hash, bytes.to_vec());
        hash
    }

    /// How large an object is, or was.
    pub(super) fn size(&self, key: &ObjectKey) -> u64 {
        self.bytes.get(&of_key(key)).map_or(0, |bytes| bytes.len() as u64)
    }

    /// A store that holds these.
    pub(super) fn store_of(&self, objects: &Objects) -> MemoryStore {
        let store = MemoryStore::new();
        for (key, hash) in objects {
            store.raw_set(key, self.bytes[hash].as_slice());
        }
        store
    }

    /// The files of these snapshots.
    pub(super) fn files(&self, promises: &Promises) -> Vec<(ObjectName, Files)> {
        promises.promised.iter().map(|(name, tree)| (*name, self.trees[tree].1.clone())).collect()
    }

    /// The first promise that is broken.
    pub(super) fn judge(&self, promises: &Promises, objects: &Objects) -> Option<Breach> {
        let mut replaced = HashSet::new();
        let mut segments = Vec::new();
        for (key, hash) in objects.iter().filter(|(key, _)| key.kind == ObjectKind::Index) {
            if let Some(Fact::Segment { replaces, packs }) = self.facts.get(hash) {
                replaced.extend(replaces.iter().map(|name| name.to_string()));
                segments.push((&key.name, packs));
            }
        }
        let mut found: HashSet<ChunkId> = HashSet::new();
        for (is_tree, pack) in segments.iter().filter(|(name, _)| !replaced.contains(*name)).flat_map(|(_, p)| *p) {
            let key = ObjectKey::new(if *is_tree { ObjectKind::Tree } else { ObjectKind::Data }, pack);
            if let Some(Fact::Pack(chunks)) = objects.get(&key).and_then(|hash| self.facts.get(hash)) {
                found.extend(chunks);
            }
        }
        for (name, tree) in &promises.promised {
            let key = ObjectKey::new(ObjectKind::Snapshot, name);
            if !objects.contains_key(&key) {
                return Some(Breach::Gone(key));
            }
            let lost = self.trees[tree].0.iter().filter(|id| !found.contains(id)).count();
            if lost > 0 {
                return Some(Breach::Lacks(key, lost));
            }
        }
        None
    }
}

/// A broken promise.
#[derive(Clone, Debug)]
pub(super) enum Breach {
    Gone(ObjectKey),
    Lacks(ObjectKey, usize),
    /// An actor withdraws what was promised.
    Forgotten(usize, ObjectKey),
}

/// What an actor says of its own accord, beside what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A backup reports success.
    Promise(ObjectName, ChunkId),
    /// An undelete reports success.
    PromiseAgain(ObjectName, ChunkId),
    /// Nobody wants this snapshot gone any more; what is promised of it is up to its backup.
    ClaimBack(ObjectName),
    /// Somebody asks to forget this snapshot.
    Release(ObjectName),
}

impl Word {
    /// A line for a person, where there is something to say.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Word::Promise(..) | Word::PromiseAgain(..) => "reports success",
            Word::ClaimBack(_) => "reports success, until its backup withdraws it",
            Word::Release(_) => "",
        }
    }
}

/// What has to be restorable at a point of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises {
    /// Snapshots that were there at the beginning or whose backup reported success, less those that a forget has named.
    promised: BTreeMap<ObjectName, ChunkId>,
    forgotten: BTreeSet<ObjectName>,
    crime: Option<Breach>,
}

impl Promises {
    pub(super) fn take(&mut self, word: &Word) {
        match *word {
            Word::Promise(snapshot, tree) => {
                if !self.forgotten.contains(&snapshot) {
                    self.promised.insert(snapshot, tree);
                }
            }
            Word::PromiseAgain(snapshot, tree) => {
                self.forgotten.remove(&snapshot);
                self.promised.insert(snapshot, tree);
            }
            Word::ClaimBack(snapshot) => {
                self.forgotten.remove(&snapshot);
            }
            Word::Release(snapshot) => {
                self.forgotten.insert(snapshot);
                self.promised.remove(&snapshot);
            }
        }
    }

    /// What an actor has done that none may do.
    pub(super) fn crime(&self) -> Option<&Breach> {
        self.crime.as_ref()
    }

    /// An object is put.
    pub(super) fn put(&mut self, actor: usize, key: &ObjectKey) {
        if key.kind == ObjectKind::Tomb {
            let name = ObjectName::parse(&key.name).expect("the store accepts it");
            if self.promised.contains_key(&name) {
                self.crime = Some(Breach::Forgotten(actor, ObjectKey::new(ObjectKind::Snapshot, name)));
            }
        }
    }

    pub(super) fn hash(&self) -> Hash {
        self.promised.keys().fold(9, |hash, name| {
            let [one, two] = [0, 16].map(|at| name.0[at..].first_chunk().map_or(0, |part| Hash::from_le_bytes(*part)));
            hash ^ mix(mix(3, one), two)
        })
    }
}

/// What actors and objects are called in a history.
pub(super) struct Roles {
    names: Vec<String>,
    roles: HashMap<ObjectKey, String>,
    counts: HashMap<(usize, ObjectKind), usize>,
}

impl Roles {
    /// For these actors, and for what is stored at the beginning.
    pub(super) fn new(names: Vec<String>, objects: &Objects) -> Roles {
        let mut roles = Roles { names, roles: HashMap::new(), counts: HashMap::new() };
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for key in objects.keys() {
            let Some(what) = Self::what(key.kind) else { continue };
            let count = counts.entry(what).or_default();
            *count += 1;
            roles.roles.insert(ObjectKey::clone(key), format!("old {what} {count}"));
        }
        roles
    }

    fn what(kind: ObjectKind) -> Option<&'static str> {
        Some(match kind {
            ObjectKind::Data => "data pack",
            ObjectKind::Tree => "tree pack",
            ObjectKind::Index => "segment",
            ObjectKind::Snapshot => "snapshot",
            ObjectKind::Pin => "pin",
            ObjectKind::Mark => "mark",
            _ => return None,
        })
    }

    pub(super) fn actors(&self) -> usize {
        self.names.len()
    }

    pub(super) fn actor(&self, actor: usize) -> &str {
        &self.names[actor]
    }

    pub(super) fn object(&self, key: &ObjectKey) -> String {
        self.roles.get(key).cloned().unwrap_or_else(|| key.to_string())
    }

    /// Names an object after the actor that is about to put it.
    pub(super) fn call_after(&mut self, actor: usize, key: &ObjectKey) {
        let role = if let Some(what) = Self::what(key.kind) {
            let count = self.counts.entry((actor, key.kind)).or_default();
            *count += 1;
            let number = if *count == 1 { String::new() } else { format!(" {count}") };
            format!("{}'s {what}{number}", self.names[actor])
        } else {
            let of = [ObjectKind::Snapshot, ObjectKind::Pin].map(|kind| ObjectKey::new(kind, &key.name));
            let of = of.iter().find_map(|key| self.roles.get(key)).map_or("something", String::as_str);
            format!("the {} of {of}", key.kind.folder().trim_end_matches('s'))
        };
        self.roles.insert(key.clone(), role);
    }

    /// A line for a person.
    pub(super) fn describe(&self, breach: &Breach) -> String {
        match breach {
            Breach::Gone(key) => format!("{} is gone and nobody has forgotten it", self.object(key)),
            Breach::Lacks(key, lost) => {
                format!("{} needs {lost} chunks that are in no pack that the index names", self.object(key))
            }
            Breach::Forgotten(actor, key) => format!("{} forgets {} on its own", self.actor(*actor), self.object(key)),
        }
    }
}
