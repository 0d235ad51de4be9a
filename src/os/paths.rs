//! Turns a path as a person types it into an absolute one, with the kernel's meaning of `..`. Not for: paths in snapshots, which
//! contain no `..`.

use super::{CWD, FileType, stat_at};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The names of an absolute path.
pub type PathNames = Vec<Vec<u8>>;

/// The names of the path that `path` means, relative to `folder`, without `.` and `..`. After a symbolic link `..` is the folder
/// above the one that the link leads to, as for the kernel; all other links stay as they are named, also the last name. A folder that
/// does not exist is left by its text. Errors: a link before `..` leads to no folder, or cannot be examined.
pub fn resolve_path(path: &Path, folder: &Path) -> io::Result<PathNames> {
    let mut names = PathNames::new();
    for name in folder.join(path).as_os_str().as_bytes().split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => go_up(&mut names)?,
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

fn go_up(names: &mut PathNames) -> io::Result<()> {
    let here = join_names(names);
    let is_link = match stat_at(CWD, &here) {
        Ok(stat) => stat.kind == FileType::Symlink,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
        Err(error) => return Err(error),
    };
    if is_link {
        let real = std::fs::canonicalize(OsStr::from_bytes(&here))?;
        if !real.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        *names = path_names(&real);
    }
    names.pop();
    Ok(())
}

/// The names of an absolute path without `.` and `..`.
pub fn path_names(path: &Path) -> PathNames {
    let names = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// The absolute path of these names.
pub fn join_names(names: &[Vec<u8>]) -> Vec<u8> {
    if names.is_empty() {
        return b"/".to_vec();
    }
    names.iter().flat_map(|name| [&b"/"[..], name]).collect::<Vec<_>>().concat()
}

/// The folder in which the program stands. A deleted one keeps the path that it had, as long as nothing else has that path: what was
/// in it may still be in snapshots.
pub fn current_folder() -> io::Result<PathBuf> {
    let error = match std::env::current_dir() {
        Ok(folder) => return Ok(folder),
        Err(error) => error,
    };
    let link = std::fs::read_link("/proc/self/cwd").unwrap_or_default();
    match link.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(gone) if stat_at(CWD, gone).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) => {
            Ok(PathBuf::from(OsStr::from_bytes(gone)))
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_above_is_that_of_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let base = &folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("far/place/in")).unwrap();
        std::fs::create_dir(base.join("near")).unwrap();
        for name in ["a", "far/a", "near/a", "far/place/a"] {
            std::fs::write(base.join(name), name).unwrap();
        }
        for (to, name) in
            [("../far/place", "near/link"), ("link", "near/twice"), ("nowhere", "near/dangling"), ("a", "near/file")]
        {
            std::os::unix::fs::symlink(to, base.join(name)).unwrap();
        }
        let resolved = |path: &str| resolve_path(Path::new(path), &base.join("near"));
        let at = |path: &str| {
            let path = PathBuf::from(OsStr::from_bytes(&join_names(&resolved(path).unwrap())));
            path.strip_prefix(base).unwrap().to_str().unwrap().to_owned()
        };
        for (path, expected) in [
            ("a", "near/a"),
            ("../a", "a"),
            ("link/../a", "far/a"),
            ("link/..//./place/../a", "far/a"),
            ("twice/../a", "far/a"),
            ("link/in/../a", "near/link/a"),
            ("link/in/../../a", "far/a"),
        ] {
            assert_eq!(at(path), expected, "{path}");
            let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
            assert_eq!(read(base.join("near").join(path)), read(base.join(expected)), "{path}, as the kernel has it");
        }
        // What is named stays as it is named, and what is gone is left by its text.
        for (path, expected) in [
            ("link", "near/link"),
            ("link/", "near/link"),
            ("dangling", "near/dangling"),
            ("gone/../a", "near/a"),
            ("gone/deep/../../a", "near/a"),
            ("link/gone/../a", "near/link/a"),
            ("a/../a", "near/a"),
        ] {
            assert_eq!(at(path), expected, "{path}");
        }
        assert_eq!(resolved("dangling/../a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(resolved("file/../a").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(join_names(&resolve_path(Path::new("../../x"), Path::new("/")).unwrap()), b"/x");
    }
}
