//! The local folder of a repository: where it is, that it belongs to this repository, who this writer is. Not for: what the
//! index tables and the files cache hold. Everything in it can be deleted at any time.

use crate::error::{Error, ErrorKind, Result};
use crate::id::{RepositoryId, WriterId};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Raised when anything in the folder changes its form; another version's folder is emptied.
const VERSION: &str = "firn cache 2";

/// A repository's folder in the cache, or a temporary one.
#[derive(Debug)]
pub struct CacheFolder {
    path: PathBuf,
    writer: WriterId,
    temporary: bool,
}

/// Where caches live unless told otherwise: `$FIRN_CACHE_DIR` is resolved by the caller; else `$XDG_CACHE_HOME/firn` or `~/.cache/firn`.
pub fn default_root() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|path| path.join("firn"))
}

impl CacheFolder {
    /// Opens (or makes) the folder of `repository` below `root`; one of another version or another repository is emptied first.
    pub fn open(root: &Path, repository: &RepositoryId) -> Result<CacheFolder> {
        let path = root.join(&repository.to_string()[..32]);
        make(&path)?;
        let stamp = format!("{VERSION}\n{repository}\n");
        let stamp_path = path.join("VERSION");
        if fs::read(&stamp_path).ok().as_deref() != Some(stamp.as_bytes()) {
            clear(&path)?;
            write_new(&stamp_path, stamp.as_bytes())?;
        }
        let writer = writer_id(&path)?;
        Ok(CacheFolder { path, writer, temporary: false })
    }

    /// A folder that is removed with this value, for runs without a cache. `writer` is the same for all of them on one machine, else
    /// each would add a writer to the heads of all later snapshots.
    pub fn temporary(writer: WriterId) -> Result<CacheFolder> {
        let name = format!("firn-{}", crate::id::SessionId::random()?);
        let path = std::env::temp_dir().join(name);
        make(&path)?;
        Ok(CacheFolder { path, writer, temporary: true })
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
        (!self.temporary).then(|| self.path.join("verified"))
    }

    /// Where the newest snapshot of each writer is noted, a line each.
    pub fn heads(&self) -> PathBuf {
        self.path.join("heads")
    }

    /// Where known damage is noted: names of packs, a line each.
    pub fn damaged(&self) -> PathBuf {
        self.path.join("damaged")
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a run that has no key remembers what it verified of the store at `location`, below `root`. Nothing in it is secret: names
/// of objects, sizes and times.
pub fn keyless_folder(root: &Path, location: &str) -> Result<PathBuf> {
    let name = blake3::Hasher::new_derive_key("firn v1 keyless state").update(location.as_bytes()).finalize().to_hex();
    let path = root.join(format!("scrub-{}", &name[..32]));
    make(&path)?;
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
        Error::io(format!("The cache folder \"{}\" cannot be made", path.display()), error)
            .with_hint("Name another one with --cache-dir or FIRN_CACHE_DIR, or use --no-cache.")
    })
}

fn clear(path: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("The cache folder \"{}\" cannot be emptied", path.display()), error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
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

fn writer_id(folder: &Path) -> Result<WriterId> {
    let path = folder.join("writer");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(writer) = WriterId::parse(text.trim())
    {
        return Ok(writer);
    }
    let writer = WriterId::random()?;
    write_new(&path, format!("{writer}\n").as_bytes())?;
    // Two first runs at once may both draw an id; the one that is there afterwards counts for both from the next run on.
    match fs::read_to_string(&path) {
        Ok(text) => WriterId::parse(text.trim()).map_err(|error| error.with_kind(ErrorKind::Failed)),
        Err(_) => Ok(writer),
    }
}
