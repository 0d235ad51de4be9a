//! Who keeps a mount busy: an answer for people, gathered from `/proc`. Incomplete without the right to look at others' processes.

use std::fs;
use std::path::{Path, PathBuf};

/// A process that uses something below a mountpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Name of its program.
    pub name: String,
    /// What it uses: an open file or its working directory.
    pub path: PathBuf,
}

/// At most this many are listed.
const MOST: usize = 20;

/// Processes that use something below `point`, by working directory, root, open files, or mapped files. Touches no file of the mount itself.
pub(crate) fn holders(point: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(path) = used_below(&process.path(), point) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(Holder { pid, name: name.trim_end().to_owned(), path });
        }
        if found.len() == MOST {
            break;
        }
    }
    found
}

fn used_below(process: &Path, point: &Path) -> Option<PathBuf> {
    let places = ["cwd", "root", "exe"].map(|link| process.join(link));
    let lists = ["fd", "map_files"].map(|dir| process.join(dir));
    let files = lists.into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten().map(|file| file.path());
    places.into_iter().chain(files).filter_map(|link| fs::read_link(link).ok()).find(|target| target.starts_with(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_names_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap();
        let mine = |list: Vec<Holder>| list.into_iter().find(|holder| holder.pid == std::process::id());
        assert_eq!(mine(holders(&point)), None);
        let file = fs::File::create(point.join("open")).unwrap();
        assert_eq!(mine(holders(&point)).unwrap().path, point.join("open"));
        drop(file);
    }
}
