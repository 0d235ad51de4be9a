//! The local folder of a repository: where it is, that it belongs to this repository, who this writer is. Not for: what the
//! index tables and the files cache hold. Everything in it can be deleted at any time.
//!
//! The folder is that of a repository's id, and clones have the same. What is in it is either proven by itself wherever it is used
//! (index tables name segments, whose names stand for their bytes; cached files name chunks, which are looked up), or meant for all
//! of them (which snapshots were ever seen), or about the state of stored objects: then it is in a folder of that place.

use crate::error::{Error, ErrorKind, Result};
use crate::id::{RepositoryId, WriterId};
use rustix::fs::Access;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Raised when anything in the folder changes its form; another version's folder is emptied.
const VERSION: &str = "firn cache 3";

/// How the file begins that tells every backup program, this one too, that the folder is a cache (<https://bford.info/cachedir/>).
pub const TAG: &[u8; 78] = b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of firn.\n";
const TAG_NAME: &str = "CACHEDIR.TAG";

/// The file in the folder whose lock is held while the folder is set up.
const LOCK: &str = "lock";

/// How folders begin that hold what is known about the objects of one place.
const PLACE: &str = "place-";

/// How many temporary folders this process has made.
static TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// Where else a temporary folder may be.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

const ANOTHER: &str = "Name another one with --cache-dir or FIRN_CACHE_DIR, or use --no-cache.";

/// Places of one repository that are remembered; of more, those that were not used for the longest time are forgotten.
const MAX_PLACES: usize = 16;

/// A repository's folder in the cache, or a temporary one.
#[derive(Debug)]
pub struct CacheFolder {
    path: PathBuf,
    /// For what is known about the objects of one place.
    place: PathBuf,
    writer: WriterId,
    temporary: bool,
}

/// Where caches may live unless told otherwise, the best place first: `$XDG_CACHE_HOME/firn`, `~/.cache/firn`, for root also
/// `/var/cache/firn`. `$FIRN_CACHE_DIR` is resolved by the caller.
fn default_roots() -> Vec<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // A home that does not exist is nobody's ("/nonexistent" of system users), and must not begin to exist because of a cache.
    let xdg = absolute("XDG_CACHE_HOME").filter(|cache| cache.parent().is_none_or(Path::is_dir));
    let named = xdg.or_else(|| absolute("HOME").filter(|home| home.is_dir()).map(|home| home.join(".cache")));
    let system = crate::os::is_root().then(|| PathBuf::from("/var/cache"));
    named.into_iter().chain(system).map(|path| path.join("firn")).collect()
}

/// The first place where a cache can be, made if it is not there.
pub fn default_root() -> Option<PathBuf> {
    default_roots().into_iter().find(|root| make(root).and_then(|()| check_usable(root)).is_ok())
}

/// An error unless something can be put into this folder.
fn check_usable(path: &Path) -> Result<()> {
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        Error::io(format!("The cache folder \"{}\" cannot be used", path.display()), error).with_hint(ANOTHER)
    })
}

impl CacheFolder {
    /// Opens (or makes) the folder of `repository` below `root`; one of another version or another repository is emptied first.
    /// `place` is that of the store (see `Properties`).
    pub fn open(root: &Path, repository: &RepositoryId, place: &[u8; 32]) -> Result<CacheFolder> {
        let path = root.join(&repository.to_string()[..32]);
        let stamp = format!("{VERSION}\n{repository}\n");
        let mut attempts = 0;
        let writer = loop {
            attempts += 1;
            match stamped(&path, &stamp).map_or_else(|| set_up(&path, &stamp), Ok) {
                Ok(writer) => break writer,
                // Somebody deletes the folder right now.
                Err(error) if error.kind() == ErrorKind::NotFound && attempts < 5 => {}
                Err(error) => return Err(error),
            }
        };
        check_usable(&path)?;
        tag(&path)?;
        let name = format!("{PLACE}{}", crate::id::to_hex(&place[..16]));
        let place = path.join(&name);
        if !place.is_dir() {
            make(&place)?;
            forget_places(&path, &name);
        }
        // A help for those that come later.
        drop(fs::File::open(&place).and_then(|folder| folder.set_modified(std::time::SystemTime::now())));
        Ok(CacheFolder { path, place, writer, temporary: false })
    }

    /// A folder that is removed with this value, for runs without a cache. `writer` is the same for all of them on one machine, else
    /// each would add a writer to the heads of all later snapshots.
    pub fn temporary(writer: WriterId) -> Result<CacheFolder> {
        // Also where random numbers come again, as in tests, no two are the same.
        let number = TEMPORARIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("firn-{}-{}-{number}", crate::id::SessionId::random()?, std::process::id());
        let mut made = make(&std::env::temp_dir().join(&name)).map(|()| std::env::temp_dir().join(&name));
        for other in TEMPORARY {
            made = made.or_else(|error| {
                make(&Path::new(other).join(&name)).map_err(|_| error).map(|()| Path::new(other).join(&name))
            });
        }
        let path = made?;
        tag(&path)?;
        Ok(CacheFolder { place: path.clone(), path, writer, temporary: true })
    }

    /// The id of the writer that this folder stands for; a lost folder means a new writer, which is harmless.
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Where the index tables are.
    pub fn index(&self) -> PathBuf {
        self.path.join("index")
    }

    /// Where the files cache is; none for a temporary folder, where it would never be read again.
    pub fn files(&self) -> Option<PathBuf> {
        (!self.temporary).then(|| self.path.join("files"))
    }

    /// Where it is noted what was verified when; none for a temporary folder.
    pub fn verified(&self) -> Option<PathBuf> {
        (!self.temporary).then(|| self.place.join("verified"))
    }

    /// Where the newest snapshot of each writer is noted, a line each.
    pub fn heads(&self) -> PathBuf {
        self.path.join("heads")
    }

    /// Where the newest key epoch is noted.
    pub fn epoch(&self) -> PathBuf {
        self.path.join("epoch")
    }

    /// Where the tombs are noted that were taken back.
    pub fn undone(&self) -> PathBuf {
        self.path.join("undone")
    }

    /// Where it is noted which index segments of this place are as they were read; none for a temporary folder.
    pub fn segments(&self) -> Option<PathBuf> {
        (!self.temporary).then(|| self.place.join("segments"))
    }

    /// Where known damage of this place is noted: names of packs, a line each.
    pub fn damaged(&self) -> PathBuf {
        self.place.join("damaged")
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a run that has no key remembers what it verified of the store of that place, below `root`. Nothing in it is secret: names
/// of objects, sizes and times.
pub fn keyless_folder(root: &Path, place: &[u8; 32]) -> Result<PathBuf> {
    let path = root.join(format!("scrub-{}", crate::id::to_hex(&place[..16])));
    make(&path)?;
    check_usable(&path)?;
    tag(&path)?;
    Ok(path)
}

impl Drop for CacheFolder {
    fn drop(&mut self) {
        if self.temporary {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

fn make(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Error::io(format!("The cache folder \"{}\" cannot be made", path.display()), error).with_hint(ANOTHER)
    })
}

/// Forgets the places that were not used for the longest time, if there are too many: disks that are plugged in no more.
fn forget_places(path: &Path, but: &str) {
    let Ok(entries) = fs::read_dir(path) else { return };
    let is_place =
        |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PLACE) && name != but);
    let time = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut places: Vec<_> = entries.flatten().filter(is_place).filter_map(time).collect();
    places.sort();
    for (_, place) in places.iter().take((places.len() + 1).saturating_sub(MAX_PLACES)) {
        drop(fs::remove_dir_all(place));
    }
}

/// Marks a folder, which is nobody's but firn's, as a cache.
fn tag(path: &Path) -> Result<()> {
    let path = path.join(TAG_NAME);
    if path.exists() { Ok(()) } else { write_new(&path, TAG) }
}

fn clear(path: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("The cache folder \"{}\" cannot be emptied", path.display()), error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() == LOCK {
            continue;
        }
        let removed = if entry.file_type().map_err(failed)?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Replaces a small file of the local state as a whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    write_new(path, bytes)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| {
        Error::io(format!("\"{}\" cannot be written", path.display()), error)
            .with_hint("Name another folder with --cache-dir or FIRN_CACHE_DIR, or use --no-cache.")
    };
    let temporary = path.with_extension(format!("{}.new", crate::id::SessionId::random()?));
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    let renamed = fs::rename(&temporary, path);
    if renamed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::IsADirectory) {
        // Not ours; nothing in here is worth keeping.
        drop(fs::remove_dir_all(path));
        return fs::rename(&temporary, path).map_err(failed);
    }
    renamed.map_err(failed)
}

/// The writer of a folder that is set up, if it is.
fn stamped(path: &Path, stamp: &str) -> Option<WriterId> {
    let is_ours = fs::read(path.join("VERSION")).is_ok_and(|found| found == stamp.as_bytes());
    let writer = fs::read_to_string(path.join("writer")).ok()?;
    is_ours.then(|| WriterId::parse(writer.trim()).ok()).flatten()
}

/// Makes a folder, or one of another version or repository, into one of this. Of several first runs at once one does; the others
/// must not empty what that one, or a run after it, already uses. The stamp comes last: with it the rest is there.
fn set_up(path: &Path, stamp: &str) -> Result<WriterId> {
    make(path)?;
    let _turn = lock(path)?;
    if let Some(writer) = stamped(path, stamp) {
        return Ok(writer);
    }
    if fs::read(path.join("VERSION")).ok().as_deref() != Some(stamp.as_bytes()) {
        clear(path)?;
    }
    let writer = WriterId::random()?;
    write_new(&path.join("writer"), format!("{writer}\n").as_bytes())?;
    write_new(&path.join("VERSION"), stamp.as_bytes())?;
    Ok(writer)
}

/// What is returned holds the lock; it goes with the process however that ends.
fn lock(folder: &Path) -> Result<fs::File> {
    let path = folder.join(LOCK);
    let failed = |error: std::io::Error| {
        Error::io(format!("\"{}\" cannot be locked", path.display()), error)
            .with_hint("Name another folder with --cache-dir or FIRN_CACHE_DIR, or use --no-cache.")
    };
    let open = || fs::File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let opened = open().or_else(|error| {
        // A folder in its place is not ours; nothing in here is worth keeping.
        if error.kind() == std::io::ErrorKind::IsADirectory {
            fs::remove_dir_all(&path).and_then(|()| open())
        } else {
            Err(error)
        }
    });
    let file = opened.map_err(failed)?;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            // A file system without locks: first runs that meet there are rarer still.
            Ok(()) | Err(rustix::io::Errno::NOLCK | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                return Ok(file);
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_first_runs_at_once_one_sets_the_folder_up() {
        for round in 0..50 {
            let root = tempfile::tempdir().expect("a folder");
            let id = RepositoryId::random().expect("an id");
            if round % 2 == 1 {
                let folder = CacheFolder::open(root.path(), &id, &[0; 32]).expect("a first run");
                fs::write(folder.path().join("VERSION"), "firn cache 1\n").expect("an older version's");
                fs::create_dir(folder.index()).expect("what it left");
            }
            let start = std::sync::Barrier::new(8);
            let writers: Vec<WriterId> = std::thread::scope(|scope| {
                let run = || {
                    start.wait();
                    let folder = CacheFolder::open(root.path(), &id, &[0; 32]).expect("a first run among others");
                    // What a run has put there, no other one may take away.
                    let own = folder.path().join(format!("{:?}", std::thread::current().id()));
                    fs::write(&own, "").expect("a note");
                    (folder.writer(), own)
                };
                let runs: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
                let done: Vec<_> = runs.into_iter().map(|run| run.join().expect("a run")).collect();
                assert!(done.iter().all(|(_, own)| own.exists()), "round {round}");
                done.into_iter().map(|(writer, _)| writer).collect()
            });
            assert!(writers.iter().all(|writer| *writer == writers[0]), "round {round}: {writers:?}");
        }
    }
}
