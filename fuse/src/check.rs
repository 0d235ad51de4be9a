//! Can this directory be mounted on, and if not, what should the user do? The system calls themselves answer most of these cases with
//! the same bare "no such file" or "permission denied".

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::kernel;
use crate::presence;
use crate::session::Options;

/// Why a mount cannot be made. [`fmt::Display`] says what is wrong, [`MountError::hint`] what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum MountError {
    /// There is no `/dev/fuse`.
    NoDevice,
    /// `/dev/fuse` may not be opened.
    DeviceDenied,
    /// `fusermount3` is not installed, and only root can do without.
    NoHelper,
    /// The mountpoint does not exist.
    NotFound(PathBuf),
    /// The mountpoint is not a directory.
    NotADirectory(PathBuf),
    /// The mountpoint has something in it, which the mount would hide.
    NotEmpty(PathBuf),
    /// Something of the same kind is mounted there and alive.
    AlreadyMounted {
        /// Where.
        point: PathBuf,
        /// What, as in the mount table.
        source: String,
    },
    /// A mount is there whose program has ended.
    Dead(PathBuf),
    /// The user may not mount there.
    Denied {
        /// Where.
        point: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// `allow_other` needs root or a line in `/etc/fuse.conf`.
    AllowOtherDenied,
    /// The kernel is too old for access control lists.
    NoAcl,
    /// The options or the tree are not usable: an error in the program.
    Invalid(String),
    /// Something else failed.
    Io {
        /// Where.
        point: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::NoDevice => f.write_str("This system has no \"/dev/fuse\", so nothing can be mounted"),
            MountError::DeviceDenied => f.write_str("You are not allowed to open \"/dev/fuse\""),
            MountError::NoHelper => {
                f.write_str("The program \"fusermount3\", which mounts for users other than root, is not installed")
            }
            MountError::NotFound(point) => write!(f, "The mountpoint {point:?} does not exist"),
            MountError::NotADirectory(point) => write!(f, "The mountpoint {point:?} is not a directory"),
            MountError::NotEmpty(point) => {
                write!(f, "The mountpoint {point:?} is not empty; its contents would be hidden")
            }
            MountError::AlreadyMounted { point, source } => write!(f, "{source:?} is already mounted on {point:?}"),
            MountError::Dead(point) => write!(f, "On {point:?} is a mount whose program has ended"),
            MountError::Denied { point, reason } => write!(f, "You are not allowed to mount on {point:?} ({reason})"),
            MountError::AllowOtherDenied => f.write_str("This system does not let you show a mount to other users"),
            MountError::NoAcl => f.write_str("This kernel cannot apply access control lists to a FUSE mount"),
            MountError::Invalid(what) => f.write_str(what),
            MountError::Io { point, reason } => write!(f, "Mounting on {point:?} failed ({reason})"),
        }
    }
}

impl MountError {
    /// What the user can do about it; empty if nothing is known.
    pub fn hint(&self) -> String {
        let quoted = |point: &Path| shell_quoted(&point.to_string_lossy());
        match self {
            MountError::NoDevice => {
                "Load the module with \"modprobe fuse\"; in a container, pass the device in (\"--device /dev/fuse\")."
                    .into()
            }
            MountError::DeviceDenied => {
                "Let your user read and write \"/dev/fuse\" (usually mode 0666, or a group \"fuse\").".into()
            }
            MountError::NoHelper => "Install the package \"fuse3\", or mount as root.".into(),
            MountError::NotFound(point) => format!("Create it: mkdir -p {}", quoted(point)),
            MountError::NotADirectory(_) => "Name a directory.".into(),
            MountError::NotEmpty(_) => "Choose or create an empty directory.".into(),
            MountError::AlreadyMounted { point, .. } => {
                format!("Use that one, or unmount it first: fusermount3 -u {0}, as root: umount {0}", quoted(point))
            }
            MountError::Dead(point) => format!("Remove it: fusermount3 -u {0}, as root: umount -l {0}", quoted(point)),
            MountError::Denied { .. } => "Choose a directory that is yours and that you can write to.".into(),
            MountError::AllowOtherDenied => {
                "Ask the administrator for a line \"user_allow_other\" in \"/etc/fuse.conf\", or do without.".into()
            }
            MountError::NoAcl => "Mount without access control lists, for yourself only.".into(),
            MountError::Invalid(_) | MountError::Io { .. } => String::new(),
        }
    }
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MountError::Denied { reason, .. } | MountError::Io { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// A word for a shell, quoted if it needs to be.
pub fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Checks that a mount with these options can be made on `point`, without making it. The result is the path to use: absolute and without
/// symbolic links. [`crate::mount()`] does this by itself; a program that goes to the background first may want to know before.
///
/// # Errors
/// The first obstacle found.
pub fn check(point: &Path, options: &Options) -> Result<PathBuf, MountError> {
    check_options(options)?;
    let real = check_point(point, options)?;
    match std::fs::File::options().read(true).write(true).open(kernel::DEVICE) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(MountError::DeviceDenied),
        Err(_) => return Err(MountError::NoDevice),
    }
    if !kernel::is_root() && kernel::helper().is_none() {
        return Err(MountError::NoHelper);
    }
    Ok(real)
}

fn check_options(options: &Options) -> Result<(), MountError> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if options.subtype.is_empty() || !options.subtype.chars().all(word) {
        return Err(MountError::Invalid(format!("{:?} cannot be a type of file system", options.subtype)));
    }
    if options.fs_name.is_empty() || options.fs_name.contains(['\0', '\n']) {
        return Err(MountError::Invalid(format!("{:?} cannot be the source of a mount", options.fs_name)));
    }
    Ok(())
}

fn check_point(point: &Path, options: &Options) -> Result<PathBuf, MountError> {
    let failed = |error: io::Error| match error.kind() {
        _ if is_dead(&error) => MountError::Dead(dead_ancestor(point)),
        io::ErrorKind::NotFound => MountError::NotFound(point.to_owned()),
        io::ErrorKind::NotADirectory => MountError::NotADirectory(point.to_owned()),
        io::ErrorKind::PermissionDenied => MountError::Denied { point: point.to_owned(), reason: error },
        _ => MountError::Io { point: point.to_owned(), reason: error },
    };
    let real = point.canonicalize().map_err(failed)?;
    if is_dead_at(&real) {
        return Err(MountError::Dead(dead_ancestor(&real)));
    }
    // Without a mount table (no /proc), the other checks still protect what is there.
    if let Ok(Some(entry)) = kernel::mounted_at(&real)
        && entry.fs_type == format!("fuse.{}", options.subtype)
    {
        return Err(MountError::AlreadyMounted { point: real, source: entry.source });
    }
    if !std::fs::metadata(&real).map_err(failed)?.is_dir() {
        return Err(MountError::NotADirectory(real));
    }
    let mut entries = std::fs::read_dir(&real).map_err(failed)?;
    if !options.allow_non_empty && entries.next().is_some() {
        return Err(MountError::NotEmpty(real));
    }
    Ok(real)
}

/// "Transport endpoint is not connected": the program behind a FUSE mount has ended; or its connection was aborted.
fn is_dead(error: &io::Error) -> bool {
    let dead = [rustix::io::Errno::NOTCONN, rustix::io::Errno::CONNABORTED].map(rustix::io::Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| dead.contains(&errno))
}

/// Whether a path lies in a dead mount. Asks for the totals of the file system, which the kernel never keeps: it answers most other
/// questions about a dead mount from what it has kept.
fn is_dead_at(path: &Path) -> bool {
    rustix::fs::statfs(path).is_err_and(|error| is_dead(&error.into()))
}

/// The dead mountpoint on the way to a path: the shortest part of it that cannot be reached.
fn dead_ancestor(point: &Path) -> PathBuf {
    let point = std::path::absolute(point).unwrap_or_else(|_| point.to_owned());
    point.ancestors().filter(|path| is_dead_at(path)).last().unwrap_or(&point).to_owned()
}

/// Removes the mount of an ended program from `point`, if there is one of this subtype. True if there was.
///
/// # Errors
/// It is there but cannot be removed.
pub fn clear_dead(point: &Path, subtype: &str) -> io::Result<bool> {
    if !is_dead_at(point) {
        return Ok(false);
    }
    let real = real_path_of_dead(point)?;
    match kernel::mounted_at(&real)? {
        Some(entry) if entry.fs_type == format!("fuse.{subtype}") => {
            kernel::unmount(&real, true)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Without symbolic links. The last component of a dead mountpoint cannot be resolved any more, those before it can.
fn real_path_of_dead(point: &Path) -> io::Result<PathBuf> {
    let point = std::path::absolute(point)?;
    match (point.parent(), point.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(point),
    }
}

/// A mount that is visible at some place.
#[derive(Clone, Debug)]
pub struct Found {
    device: String,
}

impl Found {
    /// Whether its program lives, also when the mount has ended. False where that cannot be told.
    pub fn is_served(&self) -> bool {
        presence::is_announced(&self.device).unwrap_or(false)
    }
}

/// The visible mount of this subtype at `point`, if there is one.
///
/// # Errors
/// The path or the table of mounts cannot be read.
pub fn find(point: &Path, subtype: &str) -> io::Result<Option<Found>> {
    let real = if is_dead_at(point) { real_path_of_dead(point)? } else { point.canonicalize()? };
    let entry = kernel::mounted_at(&real)?.filter(|entry| entry.fs_type == format!("fuse.{subtype}"));
    Ok(entry.map(|entry| Found { device: entry.device }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_has_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::default();
        let missing = check_point(&dir.path().join("missing"), &options).unwrap_err();
        assert!(matches!(&missing, MountError::NotFound(_)), "{missing:?}");
        assert!(missing.hint().starts_with("Create it: mkdir -p /"), "{}", missing.hint());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(check_point(&file, &options), Err(MountError::NotADirectory(_))));
        assert!(matches!(check_point(&file.join("below"), &options), Err(MountError::NotADirectory(_))));
        assert!(matches!(check_point(dir.path(), &options), Err(MountError::NotEmpty(_))));
        assert!(check_point(dir.path(), &Options { allow_non_empty: true, ..options }).is_ok());
    }

    #[test]
    fn options_cannot_smuggle_in_others() {
        let bad = Options { subtype: "firn,dev".into(), ..Options::default() };
        assert!(matches!(check_options(&bad), Err(MountError::Invalid(_))));
        assert!(check_options(&Options::default()).is_ok());
    }

    #[test]
    fn commands_in_hints_can_be_pasted() {
        assert_eq!(shell_quoted("/mnt/a-b"), "/mnt/a-b");
        assert_eq!((shell_quoted(""), shell_quoted("~a")), ("''".into(), "'~a'".into()));
        assert_eq!(shell_quoted("/mnt/it's here"), r"'/mnt/it'\''s here'");
    }

    #[test]
    fn a_living_directory_is_not_cleared() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!clear_dead(dir.path(), "firn").unwrap());
        assert!(!clear_dead(&dir.path().join("missing"), "firn").unwrap());
    }
}
