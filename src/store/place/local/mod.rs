//! Objects as files of a local folder. Not for: what the files hold, nor for locks between processes (the format needs
//! none).
//!
//! Everything goes through one file descriptor of the repository's folder: if the disk is unmounted or the folder is
//! renamed meanwhile, nothing is ever written to (or missed in) whatever has taken its place.

mod handles;
mod shared;
mod spare;
mod temps;

use crate::error::{Error, ErrorKind, Result};
use crate::id::to_hex;
use crate::store::{Listed, ObjectKey, ObjectKind, Properties, Store};
use crate::store::{check_key, check_limit, check_range, exists, missing, no_space, reserve, truncated};
use handles::Handles;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use shared::{Probe, Sharing, may_list_again};
use spare::must_go_in;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use temps::{is_temp_name, temp_name};

const FOLDER_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A repository in a local folder: one file for each object, below a folder for each kind.
#[derive(Debug)]
pub struct LocalStore {
    root: OwnedFd,
    /// As the user wrote it.
    location: String,
    /// Without symbolic links.
    folder: PathBuf,
    handles: Handles,
    sharing: Sharing,
}

impl LocalStore {
    /// Makes the folders of a new, empty repository. `path` must be absent (its parent must be there) or empty; what an
    /// interrupted `create` left counts as empty. A repository that is there is `Exists`, other content is `Input`.
    pub fn create(path: &Path) -> Result<Self> {
        let is_new = match std::fs::DirBuilder::new().mode(FOLDER_MODE.bits()).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                check_vacant(path)?;
                false
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("The folder that shall hold \"{}\" does not exist", path.display());
                return Err(Error::new(ErrorKind::Input, message)
                    .with_hint("Create it first, or see whether its disk is mounted."));
            }
            Err(error) => return Err(Error::io(format!("Cannot create the folder \"{}\"", path.display()), error)),
        };
        let store = Self::attach(path)?;
        // Keys and config come last: without them this is no repository yet, and a second attempt is possible.
        for kind in ObjectKind::ALL.into_iter().rev() {
            store.make_folder(kind.folder())?;
            if kind.is_fanned_out() {
                for number in 0..=255_u8 {
                    store.make_folder(&fan_folder(kind, number))?;
                }
                let folder = store.open_folder(kind.folder())?.ok_or_else(|| store.gone())?;
                store.sync_folder(&folder, kind.folder())?;
            }
        }
        store.sync_folder(&store.root, ".")?;
        if is_new {
            store.sync_parent()?;
        }
        Ok(store)
    }

    /// The repository at `path`; `NoRepository` if there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let store = Self::attach(path)?;
        if store.has_folder("config")? && store.has_folder("keys")? {
            return Ok(store);
        }
        let message = format!("The folder \"{}\" is not a firn repository", path.display());
        Err(Error::new(ErrorKind::NoRepository, message)
            .with_hint("A repository holds the folders \"config\" and \"keys\"; \"firn init\" makes a new one."))
    }

    fn attach(path: &Path) -> Result<Self> {
        let shown = path.display();
        let root = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty()).map_err(|error| match error {
            Errno::NOENT => Error::new(ErrorKind::NoRepository, format!("There is no repository at \"{shown}\""))
                .with_hint("Check the path, and whether its disk is mounted; \"firn init\" makes a new repository."),
            Errno::NOTDIR => Error::new(
                ErrorKind::NoRepository,
                format!("There is no repository at \"{shown}\": it is not a folder"),
            ),
            error => Error::io(format!("Cannot open the folder \"{shown}\""), error),
        })?;
        let folder = std::fs::canonicalize(path)
            .map_err(|error| Error::io(format!("Cannot find the full path of \"{shown}\""), error))?;
        let sharing = Sharing::of(&root);
        Ok(LocalStore { root, location: shown.to_string(), folder, handles: Handles::default(), sharing })
    }

    /// The path alone is not enough: the next disk is mounted in the same place. Nor are path and inode, for new file systems count alike.
    #[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between machines")]
    fn place(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("firn v1 place of a store");
        hasher.update(self.folder.as_os_str().as_encoded_bytes());
        // The file system's own id stays the same when its disk is plugged in again; the device's number need not.
        let system = rustix::fs::fstatvfs(&self.root).map_or(0, |system| system.f_fsid as u64);
        if let Ok(stat) = rustix::fs::fstat(&self.root) {
            let device = if system == 0 { stat.st_dev as u64 } else { system };
            hasher.update(&device.to_le_bytes()).update(&(stat.st_ino as u64).to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    fn failed(&self, verb: &str, what: &str, error: impl Into<std::io::Error>) -> Error {
        Error::io(format!("Cannot {verb} \"{what}\" in \"{}\"", self.location), error)
    }

    /// An error of a put before or after the object was written. `NotFound` and `Exists` would say something about the
    /// object that is not meant.
    fn put_failed(&self, key: &ObjectKey, verb: &str, error: impl Into<std::io::Error>) -> Error {
        let error = self.failed(verb, &key.path(), error);
        match error.kind() {
            ErrorKind::Full => no_space(key, &self.location).with_source(error),
            ErrorKind::NotFound | ErrorKind::Exists => error.with_kind(ErrorKind::Failed),
            ErrorKind::Denied => error.with_hint("Check that you may write there and that the disk is not read-only."),
            _ => error,
        }
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::NoRepository, format!("The repository at \"{}\" is no longer there", self.location))
            .with_hint("See whether its disk is mounted.")
    }

    /// An object is not there; or is it the repository?
    fn missing(&self, key: &ObjectKey) -> Error {
        match self.check_present() {
            Ok(()) => missing(key, &self.location),
            Err(error) => error,
        }
    }

    /// An empty listing of a repository that was removed would be a lie.
    fn check_present(&self) -> Result<()> {
        if self.has_folder("config")? { Ok(()) } else { Err(self.gone()) }
    }

    fn has_folder(&self, folder: &str) -> Result<bool> {
        match rustix::fs::statat(&self.root, folder, AtFlags::empty()) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(self.failed("look at", folder, error)),
        }
    }

    /// `None` if there is no such folder.
    fn open_folder(&self, folder: &str) -> Result<Option<OwnedFd>> {
        match rustix::fs::openat(&self.root, folder, FOLDER_FLAGS, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("open", folder, error)),
        }
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        match rustix::fs::mkdirat(&self.root, folder, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(self.failed("create", folder, error)),
        }
    }

    /// The folder for a new object; made anew if somebody tidied it away, unless the whole repository has gone.
    fn folder_for(&self, key: &ObjectKey) -> Result<OwnedFd> {
        let folder = folder_of(key);
        if let Some(fd) = self.open_folder(&folder)? {
            return Ok(fd);
        }
        let kind = key.kind.folder();
        if !self.has_folder("config")? || !self.has_folder("keys")? {
            return Err(self.gone());
        }
        self.make_folder(kind)?;
        self.sync_folder(&self.root, ".")?;
        if key.kind.is_fanned_out() {
            let parent = self.open_folder(kind)?.ok_or_else(|| self.gone())?;
            self.make_folder(&folder)?;
            self.sync_folder(&parent, kind)?;
        }
        self.open_folder(&folder)?.ok_or_else(|| self.gone())
    }

    /// Makes the names in a folder durable. `fd` should be open since before they changed: the system reports an error
    /// of writing back only to those who were there.
    fn sync_folder(&self, fd: impl AsFd, folder: &str) -> Result<()> {
        match rustix::fs::fsync(fd) {
            // Some network file systems have no such thing for folders; their servers do it unasked.
            Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(self.failed("make durable", folder, error)),
        }
    }

    /// Makes the name of the repository's folder itself durable.
    fn sync_parent(&self) -> Result<()> {
        let Some(parent) = self.folder.parent() else {
            return Ok(());
        };
        match rustix::fs::open(parent, FOLDER_FLAGS, Mode::empty()) {
            Ok(fd) => self.sync_folder(fd, ".."),
            // A folder that one may write to but not read cannot be synced by anybody.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(self.failed("open", "..", error)),
        }
    }

    /// Opens an object; whatever is not a plain file is no object, and is neither followed nor waited for.
    fn open_object(&self, key: &ObjectKey) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.root, key.path(), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Err(self.missing(key)),
            Err(error) => return Err(self.failed("open", &key.path(), error)),
        };
        let metadata = file.metadata().map_err(|error| self.failed("look at", &key.path(), error))?;
        if metadata.is_file() { Ok(file) } else { Err(self.missing(key)) }
    }

    /// An open file of the object, kept for the next call.
    fn keep_open(&self, key: &ObjectKey) -> Result<(Arc<File>, u64)> {
        if let Some(file) = self.handles.find(key) {
            // Another process may have deleted the object; on a network file system this call then fails.
            match file.metadata() {
                Ok(metadata) if metadata.nlink() > 0 => return Ok((file, metadata.len())),
                _ => self.handles.forget(key),
            }
        }
        let moment = self.handles.moment();
        let file = Arc::new(self.open_object(key)?);
        let metadata = file.metadata().map_err(|error| self.failed("look at", &key.path(), error))?;
        self.handles.keep(key, &file, moment);
        Ok((file, metadata.len()))
    }

    /// The names in a folder that are `wanted` and may be those of plain files. They are read before anything is done about them, which
    /// would disturb the reading on some file systems.
    fn names_in(&self, fd: &OwnedFd, folder: &str, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(fd).map_err(|error| self.failed("list", folder, error))? {
            let entry = entry.map_err(|error| self.failed("list", folder, error))?;
            let may_be_file = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
            match entry.file_name().to_str() {
                Ok(name) if may_be_file && wanted(name) => names.push(name.to_owned()),
                _ => {}
            }
        }
        Ok(names)
    }

    /// The same as of now, past what this machine has cached of the folder: a listing that shows the file which was just created
    /// there is no older than that.
    fn fresh_names_in(&self, fd: &OwnedFd, folder: &str, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let since = Instant::now();
        loop {
            let probe = Probe::put(fd, temp_name()?).map_err(|error| {
                self.failed("refresh the listing of", folder, error)
                    .with_hint("On a network file system this takes the right to create files there.")
            })?;
            let mut names = self.names_in(fd, folder, &|name| wanted(name) || probe.name.as_deref() == Some(name))?;
            let at = names.iter().position(|name| probe.name.as_ref() == Some(name));
            match at {
                Some(at) => {
                    names.swap_remove(at);
                    return Ok(names);
                }
                None if probe.name.is_none() => return Ok(names),
                None if may_list_again(since) => {}
                None => {
                    let message =
                        format!("The folder \"{folder}\" in \"{}\" is listed as it was minutes ago", self.location);
                    return Err(Error::new(ErrorKind::Failed, message)
                        .with_hint("Mount the network file system with shorter cache times for folders."));
                }
            }
        }
    }

    /// Calls `visit` for each of these that is a plain file.
    fn each_named(
        &self,
        fd: &OwnedFd,
        folder: &str,
        names: Vec<String>,
        visit: &mut dyn FnMut(&str, &Stat) -> Result<()>,
    ) -> Result<()> {
        for name in names {
            match rustix::fs::statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => visit(&name, &stat)?,
                // No file; or deleted meanwhile.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(self.failed("look at", &format!("{folder}/{name}"), error)),
            }
        }
        Ok(())
    }

    /// With `anew`, past what this machine has cached of the folders.
    fn list_as(&self, kind: ObjectKind, anew: bool, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.check_present()?;
        let mut list_folder = |folder: &str, prefix: &str| {
            let Some(fd) = self.open_folder(folder)? else {
                return Ok(());
            };
            let wanted = |name: &str| name.starts_with(prefix) && kind.accepts(name);
            let names =
                if anew { self.fresh_names_in(&fd, folder, &wanted)? } else { self.names_in(&fd, folder, &wanted)? };
            self.each_named(&fd, folder, names, &mut |name, stat| {
                let (size, stored, mark) = (bytes_of(stat), modified(stat), mark_of(stat));
                visit(Listed { name: name.to_owned(), size, stored, mark })
            })
        };
        if !kind.is_fanned_out() {
            return list_folder(kind.folder(), "");
        }
        (0..=255_u8).try_for_each(|number| list_folder(&fan_folder(kind, number), &to_hex(&[number])))
    }

    /// Writes a temporary file and gives it the object's name. On an error the temporary file is still there.
    fn write_and_name(&self, key: &ObjectKey, folder: &OwnedFd, temp: &str, bytes: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(folder, temp, flags, FILE_MODE)
            .map_err(|error| self.put_failed(key, "create", error))?;
        let mut file = File::from(fd);
        file.write_all(bytes).map_err(|error| self.put_failed(key, "write", error))?;
        // Not `sync_all`, which tries again after an interruption: after an error a second fsync returns Ok although
        // the bytes are lost.
        rustix::fs::fsync(&file).map_err(|error| self.put_failed(key, "make durable", error))?;
        drop(file);
        match name_without_replacing(folder, temp, &key.name) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(exists(key, &self.location)),
            Err(error @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)) => {
                let hint = "This file system may be unable to rename files without replacing others";
                Err(self.put_failed(key, "name", error).with_hint(hint))
            }
            Err(error) => Err(self.put_failed(key, "name", error)),
        }
    }
}

impl LocalStore {
    fn put_once(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        let folder = self.folder_for(key).map_err(|error| match error.kind() {
            ErrorKind::Full => no_space(key, &self.location).with_source(error),
            ErrorKind::NotFound | ErrorKind::Exists => error.with_kind(ErrorKind::Failed),
            _ => error,
        })?;
        let temp = temp_name()?;
        if let Err(error) = self.write_and_name(key, &folder, &temp, bytes) {
            // What cannot be removed now is a stale temporary file later.
            let _ = rustix::fs::unlinkat(&folder, &temp, AtFlags::empty());
            return Err(error);
        }
        // If this fails the object may not last, and the session fails. It stays nonetheless: it is listed, so another writer may have
        // made the folder durable since, and may rely on it.
        self.sync_folder(&folder, &folder_of(key))
    }
}

impl Store for LocalStore {
    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> Result<()> {
        check_key(key)?;
        loop {
            let is_full = |error: &Error| error.kind() == ErrorKind::Full;
            match self.put_once(key, bytes) {
                Err(error) if is_full(&error) && must_go_in(key.kind) && self.give_spare(bytes.len()) => {}
                put => return put,
            }
        }
    }

    fn keep_room(&self) {
        // Without it things go on as they did before there was any.
        drop(self.fill_spare());
    }

    fn settle(&self, keys: &[ObjectKey]) -> Result<()> {
        keys.iter().try_for_each(check_key)?;
        // Each folder once, however many of its objects are meant.
        let folders: BTreeMap<String, &ObjectKey> = keys.iter().map(|key| (folder_of(key), key)).collect();
        for (name, key) in folders {
            let folder = self.folder_for(key)?;
            self.sync_folder(&folder, &name)?;
        }
        Ok(())
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>> {
        check_key(key)?;
        let file = self.open_object(key)?;
        let size = file.metadata().map_err(|error| self.failed("look at", &key.path(), error))?.len();
        check_limit(key, size, limit)?;
        let mut bytes = reserve(key, size)?;
        file.take(size).read_to_end(&mut bytes).map_err(|error| self.failed("read", &key.path(), error))?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(truncated(key, size, bytes.len() as u64)) }
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, buffer: &mut [u8]) -> Result<()> {
        check_key(key)?;
        let (file, size) = self.keep_open(key)?;
        check_range(key, size, offset, buffer.len())?;
        file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::damaged(format!("The object \"{key}\" became shorter than {size} bytes while it was read"))
            }
            _ => self.failed("read", &key.path(), error),
        })
    }

    fn size(&self, key: &ObjectKey) -> Result<u64> {
        check_key(key)?;
        match rustix::fs::statat(&self.root, key.path(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(bytes_of(&stat)),
            Ok(_) | Err(Errno::NOENT) => Err(self.missing(key)),
            Err(error) => Err(self.failed("look at", &key.path(), error)),
        }
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(kind, false, visit)
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        self.list_as(kind, self.sharing.is_shared, visit)
    }

    fn delete(&self, key: &ObjectKey) -> Result<()> {
        check_key(key)?;
        let name = folder_of(key);
        let Some(folder) = self.open_folder(&name)? else {
            return self.check_present();
        };
        let result = rustix::fs::unlinkat(&folder, &key.name, AtFlags::empty());
        self.handles.forget(key);
        match result {
            // Also if it was missing: an earlier delete may have failed to make that durable.
            Ok(()) | Err(Errno::NOENT) => self.sync_folder(&folder, &name),
            Err(error) => Err(self.failed("delete", &key.path(), error)),
        }
    }

    fn tidy(&self, older_than: Duration) -> Result<u64> {
        self.remove_stale_temps(older_than)
    }

    fn properties(&self) -> Properties {
        Properties {
            location: self.location.clone(),
            folder: Some(self.folder.clone()),
            place: self.place(),
            wants_sha256: false,
            listing_lag: self.sharing.lag,
            is_shared: self.sharing.is_shared,
        }
    }
}

fn fan_folder(kind: ObjectKind, number: u8) -> String {
    format!("{}/{number:02x}", kind.folder())
}

/// The folders below the folder of a kind; none if it is not fanned out.
fn fan_folders(kind: ObjectKind) -> impl Iterator<Item = String> {
    kind.is_fanned_out().then_some(0..=255_u8).into_iter().flatten().map(move |number| fan_folder(kind, number))
}

/// The folder of an object whose key was checked.
fn folder_of(key: &ObjectKey) -> String {
    let path = key.path();
    path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned())
}

/// Renames within a folder; `EXIST` if the new name is taken.
fn name_without_replacing(folder: &OwnedFd, temp: &str, name: &str) -> std::result::Result<(), Errno> {
    match rustix::fs::renameat_with(folder, temp, folder, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_without_replacing(folder, temp, name),
        result => result,
    }
}

/// The same with a link, for file systems whose rename can only replace (NFS, many in user space).
fn link_without_replacing(folder: &OwnedFd, temp: &str, name: &str) -> std::result::Result<(), Errno> {
    if let Err(error) = rustix::fs::linkat(folder, temp, folder, name, AtFlags::empty()) {
        // When the answer of an NFS server is lost, the repeated request finds the link of the first one.
        let identity = |name: &str| {
            let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        let is_ours = error == Errno::EXIST && identity(name).is_some() && identity(name) == identity(temp);
        if !is_ours {
            return Err(error);
        }
    }
    // The object is in place; should its other name stay, it is a stale temporary file.
    let _ = rustix::fs::unlinkat(folder, temp, AtFlags::empty());
    Ok(())
}

fn bytes_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// What tells a file from another one, and from itself with other bytes: copies have another inode, and whatever is done to a file
/// sets its time of change, which no program can set back.
#[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between machines")]
fn mark_of(stat: &Stat) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for number in [stat.st_ino as u64, stat.st_ctime as u64, stat.st_ctime_nsec as u64] {
        hasher.update(&number.to_le_bytes());
    }
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// When a file was modified last; 1970 if that is beyond what can be told.
#[allow(clippy::unnecessary_cast, reason = "the types of these fields differ between machines")]
fn modified(stat: &Stat) -> SystemTime {
    let (seconds, nanos) = (stat.st_mtime as i64, stat.st_mtime_nsec as u64);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    time.and_then(|time| time.checked_add(Duration::from_nanos(nanos))).unwrap_or(UNIX_EPOCH)
}

/// Checks that a folder is empty, or holds no more than the empty folders of an interrupted `create`.
fn check_vacant(path: &Path) -> Result<()> {
    let shown = path.display();
    let entries = std::fs::read_dir(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::Input, format!("\"{shown}\" is there, but it is not a folder"))
        }
        _ => Error::io(format!("Cannot list the folder \"{shown}\""), error),
    })?;
    let cannot = |error: std::io::Error| Error::io(format!("Cannot list the folder \"{shown}\""), error);
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let kind = ObjectKind::ALL.into_iter().find(|kind| entry.file_name() == kind.folder());
        let is_folder = entry.file_type().map_err(cannot)?.is_dir();
        if is_folder && kind.is_some() && holds_only_empty_folders(&entry.path()).map_err(cannot)? {
            continue;
        }
        if path.join("config").is_dir() && path.join("keys").is_dir() {
            let message = format!("There is a repository at \"{shown}\" already");
            return Err(Error::new(ErrorKind::Exists, message).with_hint("Choose another folder, or use this one."));
        }
        return Err(Error::new(ErrorKind::Input, format!("The folder \"{shown}\" is not empty"))
            .with_hint("Choose a new or an empty folder, for example one inside it."));
    }
    Ok(())
}

/// What a `put` that was cut off has left counts as nothing.
fn holds_only_empty_folders(folder: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_temp_name) && entry.file_type()?.is_file() {
            continue;
        }
        if !entry.file_type()?.is_dir() || std::fs::read_dir(entry.path())?.next().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
