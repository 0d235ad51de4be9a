//! A repository, two machines, the folder that they back up, and what was promised. Not for: which steps are taken (see `script`).

use super::plain::{Body, Copy, Dice, Places, Plain};
use crate::backup::{self, BackupOptions};
use crate::chunk::password::Cost;
use crate::format::tree::{Body as Recorded, Entry};
use crate::id::ObjectName;
use crate::os::FileTime;
use crate::progress::{Progress, Silent, Stop};
use crate::repository::keys::Credentials;
use crate::repository::snapshots::Named;
use crate::repository::{CacheChoice, OpenOptions, Repository};
use crate::store::{MemoryStore, ObjectKey};
use crate::view::content::copy;
use crate::view::path::find;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How a step found something wrong.
pub(super) type Outcome<T = ()> = Result<T, String>;

/// What a backup has acknowledged.
pub(super) struct Promise {
    pub(super) name: ObjectName,
    /// The states that each path had during the backup, also that there was nothing.
    pub(super) allowed: BTreeMap<Vec<u8>, Vec<Option<Plain>>>,
    /// The folder, if nothing changed during the backup.
    pub(super) still: Option<Copy>,
    /// Paths that the backup told about.
    told: BTreeSet<Vec<u8>>,
    /// Paths that could not be read when everything was last read.
    pub(super) lost: BTreeSet<Vec<u8>>,
}

impl Promise {
    /// Whether a path may be like this.
    pub(super) fn allows(&self, path: &[u8], found: Option<&Plain>) -> bool {
        let is_right = match self.allowed.get(path) {
            Some(states) => states.iter().any(|state| state.as_ref() == found),
            None => found.is_none(),
        };
        is_right || is_below(&self.told, path)
    }

    /// For messages.
    pub(super) fn expected(&self, path: &[u8]) -> String {
        let states = self.allowed.get(path).map(Vec::as_slice).unwrap_or_default();
        let states = states.iter().map(|state| describe(state.as_ref()));
        states.collect::<Vec<_>>().join(" or ")
    }
}

pub(super) fn describe(found: Option<&Plain>) -> String {
    found.map_or_else(|| "nothing".to_owned(), Plain::describe)
}

/// Whether the path or a folder above it is among these.
pub(super) fn is_below(named: &BTreeSet<Vec<u8>>, path: &[u8]) -> bool {
    named.iter().any(|above| path == above || path.strip_prefix(&above[..]).is_some_and(|rest| rest.starts_with(b"/")))
}

pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) places: Places,
    pub(super) promises: Vec<Promise>,
    /// Objects in the order in which they came.
    objects: Vec<ObjectKey>,
    /// Something may be damaged.
    pub(super) blemished: bool,
    /// Machines that have looked for damage since the last one.
    pub(super) knows: [bool; 2],
    _folder: tempfile::TempDir,
    /// Caches and restored files, in memory where the machine has such a thing.
    pub(super) fast: tempfile::TempDir,
}

/// Hears of issues, and changes files each time that the backup has got a bit further.
struct Beside<'w> {
    places: &'w Places,
    changes: Mutex<(Dice, Vec<Copy>)>,
    every: u64,
    calls: AtomicU64,
    told: Mutex<Vec<PathBuf>>,
}

impl Beside<'_> {
    fn tick(&self) {
        if self.every > 0 && self.calls.fetch_add(1, Ordering::Relaxed) % self.every == self.every - 1 {
            let mut changes = self.changes.lock().unwrap();
            if changes.1.len() < 8 {
                self.places.change(&mut changes.0, false);
                let copy = Copy::of(&self.places.source);
                changes.1.push(copy);
            }
        }
    }
}

impl Progress for Beside<'_> {
    fn file(&self, _: &Path) {
        self.tick();
    }

    fn files(&self, _: u64) {
        self.tick();
    }

    fn bytes(&self, _: u64) {
        self.tick();
    }

    fn issue(&self, path: &Path, _: &crate::error::Error) {
        self.told.lock().unwrap().push(path.to_owned());
    }
}

fn credentials() -> Credentials {
    Credentials { password: None, key_file: Some(b"key".to_vec().into()) }
}

impl World {
    pub(super) fn new() -> World {
        crate::os::KEEP_MEMORY.store(true, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let shared = Path::new("/dev/shm");
        let fast = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
        let places = Places { source: folder.path().join("source"), beside: folder.path().join("beside") };
        std::fs::create_dir(&places.source).unwrap();
        std::fs::create_dir(&places.beside).unwrap();
        let store = MemoryStore::new();
        Repository::init(&store, &credentials(), Cost::DEFAULT, "").unwrap();
        World {
            store,
            places,
            promises: Vec::new(),
            objects: Vec::new(),
            blemished: false,
            knows: [true; 2],
            _folder: folder,
            fast: fast.unwrap(),
        }
    }

    /// As one of the machines has it; without one, as somebody has it who knows nothing yet.
    pub(super) fn open(&self, machine: Option<usize>) -> Outcome<Arc<Repository>> {
        let cache = machine.map(|number| self.fast.path().join(format!("cache-{number}")));
        let options = OpenOptions { cache: cache.map_or(CacheChoice::None, CacheChoice::Root), block_cache: 4 << 20 };
        let opened = Repository::open(Arc::new(self.store.clone()), &credentials(), &options);
        opened.map(Arc::new).map_err(|error| format!("the repository does not open: {}", error.chain()))
    }

    /// The path of the source in snapshots.
    pub(super) fn top(&self) -> Vec<u8> {
        self.places.source.as_os_str().as_bytes().to_vec()
    }

    /// A path below the source as it is called here; the source itself and what is above it is "".
    pub(super) fn relative(&self, path: &Path) -> Vec<u8> {
        path.as_os_str().as_bytes().strip_prefix(&self.top()[..]).unwrap_or_default().to_vec()
    }

    /// The objects of some kinds, in the order in which they came.
    pub(super) fn objects(&mut self, wanted: impl Fn(&ObjectKey) -> bool) -> Vec<ObjectKey> {
        let keys: BTreeSet<_> = self.store.raw_keys().into_iter().collect();
        self.objects.retain(|key| keys.contains(key));
        let mut new: Vec<_> = keys.into_iter().filter(|key| !self.objects.contains(key)).collect();
        new.sort_by_key(|key| (key.kind, self.store.raw_get(key).map_or(0, |bytes| bytes.len())));
        self.objects.extend(new);
        self.objects.iter().filter(|key| wanted(key)).cloned().collect()
    }

    /// Backs up. `every`: after so many calls of its progress something changes; 0: nothing does.
    pub(super) fn back_up(&mut self, machine: usize, every: u64, dice: Dice) -> Outcome<String> {
        let repository = self.open(Some(machine))?;
        let before = Copy::of(&self.places.source);
        let changes = Mutex::new((dice, Vec::new()));
        let (calls, told) = (AtomicU64::new(0), Mutex::default());
        let beside = Beside { places: &self.places, changes, every, calls, told };
        let options = BackupOptions {
            paths: vec![self.places.source.clone()],
            host: Some("host".to_owned()),
            level: 1,
            threads: 1,
            ..BackupOptions::default()
        };
        let report = backup::run(&repository, &options, &beside, &Stop::new());
        let report = report.map_err(|error| format!("the backup fails: {}", error.chain()))?;
        let told: BTreeSet<_> = beside.told.into_inner().unwrap().iter().map(|path| self.relative(path)).collect();
        let copies = beside.changes.into_inner().unwrap().1;
        if copies.is_empty() && (report.issues > 0 || !told.is_empty()) {
            return Err(format!("the backup tells of {told:?} though nothing happened"));
        }
        let all: Vec<&Copy> = std::iter::once(&before).chain(&copies).collect();
        let paths: BTreeSet<&Vec<u8>> = all.iter().flat_map(|copy| copy.paths.keys()).collect();
        let states = |path: &Vec<u8>| all.iter().map(|copy| copy.paths.get(path).cloned()).collect();
        let allowed = paths.into_iter().map(|path| (path.clone(), states(path))).collect();
        let still = copies.is_empty().then_some(before.clone());
        let name = report.snapshot.ok_or("the backup names no snapshot")?;
        self.promises.push(Promise { name, allowed, still, told, lost: BTreeSet::new() });
        // Who has not looked for damage may rely on what is damaged.
        let may_lose = self.blemished && !self.knows[machine];
        self.look_at(self.promises.len() - 1, may_lose)?;
        if self.promises.iter().any(|promise| !promise.lost.is_empty()) {
            // What it stored anew may be what older snapshots lacked.
            self.look(false)?;
        }
        Ok(format!("backup {} by {machine}, {} changes beside it", name.short(), copies.len()))
    }

    /// Reads everything that was promised: what could be read before still can.
    pub(super) fn look(&mut self, may_lose: bool) -> Outcome {
        (0..self.promises.len()).try_for_each(|number| self.look_at(number, may_lose))
    }

    fn look_at(&mut self, number: usize, may_lose: bool) -> Outcome {
        let repository = self.open(None)?;
        let top = self.top();
        let promise = &mut self.promises[number];
        let shown = promise.name.short();
        let mut found = BTreeMap::new();
        let mut broken = BTreeSet::new();
        match repository.snapshot(promise.name).and_then(|snapshot| find(&repository, &snapshot, &top)) {
            Ok(entry) => read(&repository, &entry, Vec::new(), &mut found, &mut broken),
            Err(error) => drop(broken.insert((Vec::new(), error.chain()))),
        }
        let (broken, reasons): (BTreeSet<_>, Vec<_>) = broken.into_iter().unzip();
        let paths: BTreeSet<Vec<u8>> = promise.allowed.keys().chain(found.keys()).cloned().collect();
        let mut lost = BTreeSet::new();
        for path in paths {
            let path_shown = path.escape_ascii();
            if is_below(&broken, &path) || broken.contains(&Vec::new()) {
                if !may_lose && !promise.lost.contains(&path) {
                    return Err(format!("{shown}:{path_shown} could be read before: {}", reasons.join(", ")));
                }
                lost.insert(path);
            } else if !promise.allows(&path, found.get(&path)) {
                let (found, expected) = (describe(found.get(&path)), promise.expected(&path));
                return Err(format!("{shown}:{path_shown} is {found} instead of {expected}"));
            }
        }
        promise.lost = lost;
        Ok(())
    }

    pub(super) fn named(&self, repository: &Repository, promise: &Promise) -> Outcome<Named> {
        let snapshot = repository.snapshot(promise.name).map_err(|error| error.chain())?;
        Ok(Named { name: promise.name, snapshot })
    }
}

/// An entry as a plain thing, with this content.
pub(super) fn plain(entry: &Entry, content: Vec<u8>) -> Plain {
    let time = FileTime { seconds: entry.meta.mtime.seconds, nanos: entry.meta.mtime.nanos };
    let (body, mode, time) = match &entry.body {
        Recorded::File { .. } => (Body::File(content), entry.meta.mode, Some(time)),
        Recorded::Symlink(to) => (Body::Link(to.clone()), 0o777, None),
        _ => (Body::Folder, entry.meta.mode, None),
    };
    Plain { body, mode, time }
}

/// Reads a folder of a snapshot with everything in it, in the plainest way that there is.
fn read(
    repository: &Repository,
    entry: &Entry,
    path: Vec<u8>,
    found: &mut BTreeMap<Vec<u8>, Plain>,
    broken: &mut BTreeSet<(Vec<u8>, String)>,
) {
    let Recorded::Directory { page, .. } = &entry.body else { return };
    for entry in repository.entries(*page) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                broken.insert((path.clone(), error.chain()));
                return;
            }
        };
        let below = [&path, &b"/"[..], &entry.name].concat();
        let mut content = Vec::new();
        if let Recorded::File { size, content: recorded } = &entry.body
            && let Err(error) = copy(repository, *size, recorded, &mut content)
        {
            broken.insert((below, error.chain()));
            continue;
        }
        found.insert(below.clone(), plain(&entry, content));
        read(repository, &entry, below, found, broken);
    }
}

/// Says nothing and remembers what was told of which path.
#[derive(Default)]
pub(super) struct Told(pub(super) Mutex<Vec<(PathBuf, String)>>);

impl Progress for Told {
    fn issue(&self, path: &Path, error: &crate::error::Error) {
        self.0.lock().unwrap().push((path.to_owned(), error.chain()));
    }
}

/// As `Silent`, for those who need one that lives on.
pub(super) static SILENT: Silent = Silent;
