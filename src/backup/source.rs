//! What is to be read: the paths a user names become one tree that begins at `/`. Not for: reading it (see `walk`).

use crate::error::{Error, ErrorKind, Result};
use crate::os;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The paths to read, normalised, and the way-points that lead to them.
#[derive(Debug)]
pub struct Source {
    roots: Vec<Vec<u8>>,
    missing: Vec<(PathBuf, Error)>,
    // Node 0 is `/`.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Vec<u8>, usize>,
    named: bool,
}

/// A place in the tree of named paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Source {
    /// The source made of `paths`, relative ones starting from `cwd` (absolute). `.` and `..` are resolved by the text
    /// alone. A path that is a symbolic link means the link. Paths that cannot be found are in `missing`; a path inside
    /// another is part of that one. Errors: `Input` without paths, `NotFound` if none of them exists.
    pub fn new<P: AsRef<Path>>(paths: &[P], cwd: &Path) -> Result<Source> {
        if paths.is_empty() {
            return Err(Error::new(ErrorKind::Input, "There is nothing to back up: no path was given")
                .with_hint("Name at least one file or directory"));
        }
        let mut found: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut missing = Vec::new();
        for path in paths {
            let names = normalise(path.as_ref(), cwd)?;
            let absolute = join(&names);
            match os::stat_at(os::CWD, &absolute) {
                Ok(_) => found.push(names),
                Err(error) => {
                    let shown = PathBuf::from(OsStr::from_bytes(&absolute));
                    let message = format!("The source \"{}\" cannot be read", shown.display());
                    missing.push((shown, Error::io(message, error)));
                }
            }
        }
        if found.is_empty() {
            let list: Vec<String> = missing.iter().map(|(path, _)| format!("\"{}\"", path.display())).collect();
            return Err(Error::new(ErrorKind::NotFound, format!("None of the sources exists: {}", list.join(", ")))
                .with_hint("Check the spelling, and that the file system is mounted"));
        }
        Ok(Source::build(found, missing))
    }

    fn build(mut found: Vec<Vec<Vec<u8>>>, missing: Vec<(PathBuf, Error)>) -> Source {
        found.sort();
        found.dedup();
        let mut source = Source { roots: Vec::new(), missing, nodes: vec![Node::default()] };
        let mut outer: Option<&[Vec<u8>]> = None;
        for names in &found {
            if !outer.is_some_and(|outer| names.starts_with(outer)) {
                source.roots.push(join(names));
                outer = Some(names);
            }
            let mut at = 0;
            for name in names {
                let next = source.nodes.len();
                let node = *source.nodes[at].children.entry(name.clone()).or_insert(next);
                if node == next {
                    source.nodes.push(Node::default());
                }
                at = node;
            }
            source.nodes[at].named = true;
        }
        source
    }

    /// The absolute paths that are read, sorted, none inside another.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|path| Path::new(OsStr::from_bytes(path)))
    }

    /// The paths that were named but cannot be found, and why.
    pub fn missing(&self) -> &[(PathBuf, Error)] {
        &self.missing
    }

    /// The place of `/`.
    pub(crate) fn top(&self) -> Place {
        Place(0)
    }

    /// Whether the user named this path (also one inside another that was named).
    pub(crate) fn is_named(&self, place: Place) -> bool {
        self.nodes[place.0].named
    }

    /// The place of `name` below `place`, if a named path is there or leads through it.
    pub(crate) fn child(&self, place: Place, name: &[u8]) -> Option<Place> {
        self.nodes[place.0].children.get(name).copied().map(Place)
    }

    /// The names below a way-point, sorted.
    pub(crate) fn children(&self, place: Place) -> impl Iterator<Item = &[u8]> {
        self.nodes[place.0].children.keys().map(Vec::as_slice)
    }
}

// The names of an absolute path, `.` and `..` resolved.
fn normalise(path: &Path, cwd: &Path) -> Result<Vec<Vec<u8>>> {
    let given = path.as_os_str().as_bytes();
    let wrong = |why: &str| Error::new(ErrorKind::Input, format!("\"{}\" is not a source: {why}", path.display()));
    if given.is_empty() {
        return Err(wrong("a path has at least one character"));
    }
    if given.contains(&0) {
        return Err(wrong("a path has no zero byte"));
    }
    let mut names: Vec<Vec<u8>> = Vec::new();
    for name in cwd.join(path).as_os_str().as_bytes().split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name.to_vec()),
        }
    }
    Ok(names)
}

fn join(names: &[Vec<u8>]) -> Vec<u8> {
    if names.is_empty() {
        return b"/".to_vec();
    }
    names.iter().flat_map(|name| [&b"/"[..], name]).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &Source) -> Vec<&Path> {
        source.paths().collect()
    }

    #[test]
    fn paths_become_absolute_sorted_and_distinct() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        for name in ["a", "a/b", "a-b", "c"] {
            std::fs::create_dir(base.join(name)).unwrap();
        }
        let given: &[&Path] = &[
            Path::new("c/"),
            Path::new("./a//b"),
            Path::new("a/../a-b/."),
            &base.join("a"),
            Path::new("c"),
            Path::new("../../../../../../.."),
        ];
        let source = Source::new(&given[..5], base).unwrap();
        assert_eq!(paths(&source), [base.join("a"), base.join("a-b"), base.join("c")]);
        assert!(source.missing().is_empty());
        let all = Source::new(given, base).unwrap();
        assert_eq!(paths(&all), [Path::new("/")]);
        assert!(all.is_named(all.top()));
    }

    #[test]
    fn way_points_lead_to_the_paths() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("x/y")).unwrap();
        std::fs::write(dir.path().join("x/f"), b"").unwrap();
        let source = Source::new(&[dir.path().join("x/y"), dir.path().join("x/f")], dir.path()).unwrap();
        let mut place = source.top();
        for name in dir.path().join("x").iter().skip(1) {
            assert!(!source.is_named(place));
            place = source.child(place, name.as_bytes()).expect("a way-point");
        }
        assert_eq!(source.children(place).collect::<Vec<_>>(), [b"f", b"y"]);
        assert!(source.is_named(source.child(place, b"y").unwrap()));
        assert_eq!(source.child(place, b"z"), None);
    }

    #[test]
    fn missing_paths_are_told_and_all_missing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let source = Source::new(&["link", "gone"], dir.path()).unwrap();
        assert_eq!(paths(&source), [dir.path().join("link")], "a dangling link is there");
        assert_eq!(source.missing().len(), 1);
        assert_eq!(source.missing()[0].1.kind(), ErrorKind::NotFound);
        let error = Source::new(&["gone", "link/x"], dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with("None of the sources exists"), "{error}");
    }

    #[test]
    fn what_is_no_source() {
        let none: [&str; 0] = [];
        assert_eq!(Source::new(&none, Path::new("/")).unwrap_err().kind(), ErrorKind::Input);
        assert_eq!(Source::new(&["/", ""], Path::new("/")).unwrap_err().kind(), ErrorKind::Input);
        assert_eq!(Source::new(&["a\0b"], Path::new("/")).unwrap_err().kind(), ErrorKind::Input);
    }
}
