//! What is to be read: the paths a user names become one tree that begins at `/`. Not for: reading it (see `walk`).

use crate::error::{Error, ErrorKind, Result};
use crate::os::{self, FileType, PathNames, join_names as join, path_names as names_of};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The paths to read, normalised, and the way-points that lead to them.
#[derive(Debug)]
pub struct Source {
    roots: Vec<Vec<u8>>,
    missing: Vec<(PathBuf, Error)>,
    /// Named links to directories that are not followed.
    links: Vec<PathBuf>,
    /// Named paths behind a link in another named path, and where they are really.
    moved: Vec<(PathBuf, PathBuf)>,
    // Node 0 is `/`.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Vec<u8>, usize>,
    named: bool,
    /// It is a link to a directory, and the directory is meant.
    followed: bool,
}

/// Paths that exist, and whether each is a link that is followed.
type Found = BTreeMap<PathNames, bool>;

/// A place in the tree of named paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(usize);

impl Source {
    /// The source made of `paths`, relative ones starting from `cwd` (absolute). `.` and `..` are resolved as the kernel does
    /// (`os::resolve_path`). A path that is a symbolic link means the link, with a slash at its end the directory that it leads
    /// to. Paths that cannot be found are in `missing`. Errors: `Input` without paths; of the system's kind if none can be found.
    pub fn new<P: AsRef<Path>>(paths: &[P], cwd: &Path) -> Result<Source> {
        if paths.is_empty() {
            return Err(Error::new(ErrorKind::Input, "There is nothing to back up: no path was given")
                .with_hint("Name at least one file or directory."));
        }
        let (mut found, mut missing, mut links) = (Found::new(), Vec::new(), Vec::new());
        for path in paths {
            check_text(path.as_ref())?;
            let names = match os::resolve_path(path.as_ref(), cwd) {
                Ok(names) => names,
                Err(error) => {
                    let given = cwd.join(path);
                    missing.push((given.clone(), unreadable(&given, error)));
                    continue;
                }
            };
            let absolute = join(&names);
            match look(&absolute, means_directory(path.as_ref())) {
                Ok(Named::Other) => drop(found.entry(names).or_default()),
                Ok(Named::Link) => {
                    found.entry(names).or_default();
                    links.push(shown(&absolute));
                }
                Ok(Named::Followed) => drop(found.insert(names, true)),
                Err(error) => missing.push((shown(&absolute), unreadable(&shown(&absolute), error))),
            }
        }
        if found.is_empty() {
            return Err(none_found(missing));
        }
        links.retain(|link| found.get(&names_of(link)).is_some_and(|followed| !followed));
        let moved = resolve_links(&mut found, &mut missing);
        Ok(Source { missing, links, moved, ..Source::build(&found) })
    }

    fn build(found: &Found) -> Source {
        let roots = found.keys().map(|names| join(names)).collect();
        let mut nodes = vec![Node::default()];
        for (names, followed) in found {
            let mut at = 0;
            for name in names {
                let next = nodes.len();
                let node = *nodes[at].children.entry(name.clone()).or_insert(next);
                if node == next {
                    nodes.push(Node::default());
                }
                at = node;
            }
            (nodes[at].named, nodes[at].followed) = (true, *followed);
        }
        Source { roots, missing: Vec::new(), links: Vec::new(), moved: Vec::new(), nodes }
    }

    /// The absolute paths that are read, sorted; some may be inside others.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(|path| Path::new(OsStr::from_bytes(path)))
    }

    /// The paths that were named but cannot be found, and why.
    pub fn missing(&self) -> &[(PathBuf, Error)] {
        &self.missing
    }

    /// The named links to directories of which only the link is read.
    pub fn links(&self) -> &[PathBuf] {
        &self.links
    }

    /// The named paths that are read somewhere else, because a link that is read as such leads to them; and where.
    pub fn moved(&self) -> &[(PathBuf, PathBuf)] {
        &self.moved
    }

    /// The named links that are read as the directories that they lead to.
    pub fn followed(&self) -> Vec<&Path> {
        let is_followed = |path: &&Path| {
            let place = names_of(path).iter().try_fold(self.top(), |place, name| self.child(place, name));
            place.is_some_and(|place| self.is_followed(place))
        };
        self.paths().filter(is_followed).collect()
    }

    /// The place of `/`.
    pub(crate) fn top(&self) -> Place {
        Place(0)
    }

    /// Whether the user named this path (also one inside another that was named).
    pub(crate) fn is_named(&self, place: Place) -> bool {
        self.nodes[place.0].named
    }

    /// Whether a named path is below.
    pub(crate) fn leads(&self, place: Place) -> bool {
        !self.nodes[place.0].children.is_empty()
    }

    /// Whether it is a link that means the directory it leads to.
    pub(crate) fn is_followed(&self, place: Place) -> bool {
        self.nodes[place.0].followed
    }

    /// Calls back with all places that the user named, and their paths.
    pub(crate) fn each_named(&self, visit: &mut dyn FnMut(Place, PathBuf)) {
        for path in self.paths() {
            let place = names_of(path).iter().try_fold(self.top(), |place, name| self.child(place, name));
            if let Some(place) = place {
                visit(place, path.to_owned());
            }
        }
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

/// What a path that was named stands for.
enum Named {
    /// A link to a directory, and only the link is meant.
    Link,
    /// A link to a directory, and the directory is meant.
    Followed,
    Other,
}

// Whether the text says that the directory is meant that a link leads to.
fn means_directory(path: &Path) -> bool {
    let given = path.as_os_str().as_bytes();
    given.ends_with(b"/") || given.ends_with(b"/.") || given.ends_with(b"/..")
}

fn look(absolute: &[u8], directory: bool) -> std::io::Result<Named> {
    if os::stat_at(os::CWD, absolute)?.kind != FileType::Symlink {
        return Ok(Named::Other);
    }
    match (std::fs::metadata(OsStr::from_bytes(absolute)), directory) {
        (Ok(target), true) if target.is_dir() => Ok(Named::Followed),
        (Ok(target), false) if target.is_dir() => Ok(Named::Link),
        (Ok(_), true) => Err(std::io::ErrorKind::NotADirectory.into()),
        (Err(error), true) => Err(error),
        (_, false) => Ok(Named::Other),
    }
}

fn none_found(missing: Vec<(PathBuf, Error)>) -> Error {
    let list: Vec<String> = missing.iter().map(|(path, _)| format!("\"{}\"", path.display())).collect();
    let list = list.join(", ");
    // One that is there and cannot be reached tells more than those that are not.
    match missing.into_iter().find(|(_, error)| error.kind() != ErrorKind::NotFound) {
        Some((_, error)) => error.context(format!("None of the sources can be read: {list}")),
        None => Error::new(ErrorKind::NotFound, format!("None of the sources exists: {list}"))
            .with_hint("Check the spelling, and that the file system is mounted."),
    }
}

/// A link that is read as a link cannot be a directory in the same snapshot. Named paths behind one, below another named path, are
/// replaced by where they are really.
fn resolve_links(found: &mut Found, missing: &mut Vec<(PathBuf, Error)>) -> Vec<(PathBuf, PathBuf)> {
    let mut moved = Vec::new();
    for (names, followed) in found.clone() {
        let Some(outer) = (0..names.len()).find(|length| found.contains_key(&names[..*length])) else { continue };
        // The outer one may itself be a link that is read as such.
        let is_link = |length: &usize| {
            let prefix = &names[..*length];
            let is_followed = *length == outer && found.get(prefix) == Some(&true);
            !is_followed && os::stat_at(os::CWD, &join(prefix)).is_ok_and(|stat| stat.kind == FileType::Symlink)
        };
        let last = if followed { names.len() } else { names.len() - 1 };
        if !(outer..=last).any(|length| is_link(&length)) {
            continue;
        }
        found.remove(&names);
        let given = shown(&join(&names));
        let real = match (followed, given.parent(), given.file_name()) {
            (false, Some(above), Some(name)) => std::fs::canonicalize(above).map(|above| above.join(name)),
            _ => std::fs::canonicalize(&given),
        };
        match real {
            Ok(real) => {
                found.entry(names_of(&real)).or_default();
                moved.push((given, real));
            }
            Err(error) => {
                let error = unreadable(&given, error);
                missing.push((given, error));
            }
        }
    }
    moved
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("The source \"{}\" cannot be read", path.display()), error)
}

fn shown(absolute: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(absolute))
}

fn check_text(path: &Path) -> Result<()> {
    let given = path.as_os_str().as_bytes();
    let wrong = |why: &str| Error::new(ErrorKind::Input, format!("\"{}\" is not a source: {why}", path.display()));
    if given.is_empty() {
        return Err(wrong("a path has at least one character"));
    }
    if given.contains(&0) {
        return Err(wrong("a path has no zero byte"));
    }
    Ok(())
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
        assert_eq!(paths(&source), [base.join("a"), base.join("a/b"), base.join("a-b"), base.join("c")]);
        assert!(source.missing().is_empty());
        let all = Source::new(given, base).unwrap();
        assert_eq!(paths(&all)[..2], [Path::new("/"), &base.join("a")]);
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
    fn links_are_meant_or_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = &dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("real/c")).unwrap();
        std::fs::create_dir(base.join("x")).unwrap();
        std::fs::write(base.join("file"), "").unwrap();
        for (target, name) in [("real", "link"), ("file", "to-file"), ("nowhere", "dangling"), ("../real", "x/link")] {
            std::os::unix::fs::symlink(target, base.join(name)).unwrap();
        }
        let named = |given: &[&str]| {
            let source = Source::new(given, base).unwrap();
            let short = |path: &Path| path.strip_prefix(base).unwrap().display().to_string();
            let all = |paths: &[&Path]| paths.iter().map(|path| short(path)).collect::<Vec<_>>().join(" ");
            let links: Vec<&Path> = source.links().iter().map(PathBuf::as_path).collect();
            let (moved, missing) = (source.moved().len(), source.missing().len());
            (all(&paths(&source)), all(&source.followed()), all(&links), moved, missing)
        };
        let (is, none) = (String::from, String::new);
        assert_eq!(named(&["link"]), (is("link"), none(), is("link"), 0, 0));
        for slash in ["link/", "link/.", "./link//", "link/c/.."] {
            assert_eq!(named(&[slash]), (is("link"), is("link"), none(), 0, 0));
        }
        assert_eq!(named(&["link", "link/"]), (is("link"), is("link"), none(), 0, 0));
        assert_eq!(named(&["link/", "link/c"]), (is("link link/c"), is("link"), none(), 0, 0));
        assert_eq!(named(&["to-file", "dangling"]), (is("dangling to-file"), none(), none(), 0, 0));
        assert_eq!(named(&["to-file/", "dangling/", "x"]), (is("x"), none(), none(), 0, 2));
        // A link below a named path is read as a link; what lies behind it is read where it is.
        assert_eq!(named(&["x", "x/link/c"]), (is("real/c x"), none(), none(), 1, 0));
        assert_eq!(named(&["x", "x/link/"]), (is("real x"), none(), none(), 1, 0));
        assert_eq!(named(&["x", "x/link"]), (is("x x/link"), none(), is("x/link"), 0, 0));
        assert_eq!(named(&["link", "link/c"]), (is("link real/c"), none(), is("link"), 1, 0));
        assert_eq!(named(&["link/c"]), (is("link/c"), none(), none(), 0, 0), "followed on the way");
    }

    #[test]
    fn what_is_no_source() {
        let none: [&str; 0] = [];
        assert_eq!(Source::new(&none, Path::new("/")).unwrap_err().kind(), ErrorKind::Input);
        assert_eq!(Source::new(&["/", ""], Path::new("/")).unwrap_err().kind(), ErrorKind::Input);
        assert_eq!(Source::new(&["a\0b"], Path::new("/")).unwrap_err().kind(), ErrorKind::Input);
    }
}
