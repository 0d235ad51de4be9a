//! A small repository with everything in it, made once; each case works on a copy. Not for: cases.

use crate::support::run::World;
use firn::format::coordination::Tomb;
use firn::format::header::Kind;
use firn::id::ObjectName;
use firn::repository::keys::Credentials;
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::store::{LocalStore, ObjectKey, ObjectKind, Store};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

/// The kinds of objects that are damaged; "tombs" last.
pub(crate) const KINDS: [&str; 7] = ["config", "keys", "data", "tree", "index", "snapshots", "tombs"];

/// A repository with three snapshots of a growing source and a forgotten one before them; two keys, "key" and "key2".
pub(crate) struct Sample {
    pub(crate) world: World,
    /// The live snapshots' ids, the oldest first.
    pub(crate) ids: Vec<String>,
    /// For each snapshot and kind, the objects that its backup added, as paths below the repository.
    pub(crate) added: Vec<Vec<(&'static str, PathBuf)>>,
}

/// The one sample of this process.
pub(crate) static SAMPLE: LazyLock<Sample> = LazyLock::new(|| Sample::new(30_000));

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Sample {
    /// `size` is that of the larger files.
    pub(crate) fn new(size: usize) -> Sample {
        let world = World::quick();
        world.write("key2", [8; 100]);
        world.run(["key", "add", "-q", "--new-key-file", "key2"]).succeeds();
        let (mut ids, mut added, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (number, name) in ["", "one", "two", "three"].iter().enumerate() {
            let file = |file: &str| format!("source/{}/{file}", if name.is_empty() { "one" } else { name });
            if number != 1 {
                world.write(&file("noise"), noise(number as u64, size));
                world.write(&file("text"), format!("line {number}\n").repeat(size / 40));
                world.write(&file("empty"), []);
                std::os::unix::fs::symlink("noise", world.path(&file("link"))).unwrap();
            }
            let id = snapshot(&world);
            if number == 0 {
                bury(&world, &id);
            } else {
                copy(&world.path("source"), &world.path(&format!("expected{number}")));
                ids.push(id);
            }
            let all = all_objects(&world);
            let new: Vec<_> = all.iter().filter(|object| !known.contains(*object)).cloned().collect();
            known = all;
            // The second backup found everything stored.
            match number {
                1 => added[0] = [std::mem::take(&mut added[0]), new].concat(),
                _ => added.push(new),
            }
        }
        Sample { world, ids, added }
    }

    /// An object of `kind` that came with the snapshot `number` (1 to 3); there are fewer of some kinds.
    pub(crate) fn object(&self, kind: &str, number: usize) -> PathBuf {
        let new =
            |list: &Vec<(&str, PathBuf)>| list.iter().rfind(|(its, _)| *its == kind).map(|(_, path)| path.clone());
        if matches!(kind, "config" | "keys" | "tombs") {
            let all: Vec<_> = self.added[0].iter().filter(|(its, _)| *its == kind).collect();
            return all[number % all.len()].1.clone();
        }
        new(&self.added[number - 1]).unwrap()
    }
}

/// Backs up "source".
pub(crate) fn snapshot(world: &World) -> String {
    let summary = world.run(["backup", "--json", "source"]).succeeds().json().pop().unwrap();
    summary["snapshot_id"].as_str().unwrap().to_owned()
}

fn all_objects(world: &World) -> BTreeSet<(&'static str, PathBuf)> {
    let mut all = BTreeSet::new();
    let below = |path: PathBuf| path.strip_prefix(world.path("repository")).unwrap().to_path_buf();
    for kind in KINDS {
        all.extend(world.objects(kind).into_iter().map(|path| (kind, below(path))));
    }
    all
}

/// Forgets a snapshot.
fn bury(world: &World, id: &str) {
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&world.path("repository")).unwrap());
    let key_file = Some(std::fs::read(world.path("key")).unwrap().into());
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
    let repository = Repository::open(store, &Credentials { password: None, key_file }, &options).unwrap();
    let snapshot = ObjectName::parse(id).unwrap();
    let time = "2026-01-01T00:00:00Z".parse().unwrap();
    let tomb = Tomb { version: 1, snapshot, time, host: "h".into(), undone: None };
    let bytes = repository.keyring().seal_record(Kind::Tomb, &tomb.encode().unwrap()).unwrap();
    repository.store().put(&ObjectKey::new(ObjectKind::Tomb, snapshot), &bytes).unwrap();
}

/// An exact copy of a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}
