//! Lists every difference between two trees, with code of its own: nothing of firn's. Not for: changing them.

use rustix::fs::{AtFlags, CWD, SeekFrom};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What to compare besides names, types, content, link targets, device numbers and hard links, which always count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Owner and group numbers.
    pub(crate) owners: bool,
    /// Permission bits (not of symbolic links, which have none).
    pub(crate) modes: bool,
    /// Modification times in nanoseconds, also of directories and links.
    pub(crate) times: bool,
    /// Extended attributes and ACLs.
    pub(crate) attributes: bool,
    /// `st_nlink` of what is not a directory.
    pub(crate) links: bool,
    /// `st_blocks` of what is not a directory.
    pub(crate) blocks: bool,
    /// Where files have holes.
    pub(crate) holes: bool,
    /// Take sockets as absent: no backup keeps them.
    pub(crate) ignore_sockets: bool,
    /// Compare the two top directories themselves as well.
    pub(crate) top: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            owners: true,
            modes: true,
            times: true,
            attributes: true,
            links: true,
            blocks: false,
            holes: false,
            ignore_sockets: true,
            top: true,
        }
    }
}

/// All differences between the trees at `a` and `b`, one line each; empty if they are alike.
pub(crate) fn trees(a: &Path, b: &Path, options: Options) -> Vec<String> {
    let mut found = Vec::new();
    let (left, right) = match (list(a, options), list(b, options)) {
        (Ok(left), Ok(right)) => (left, right),
        (left, right) => return left.err().into_iter().chain(right.err()).collect(),
    };
    for name in left.keys().filter(|name| !right.contains_key(*name)) {
        found.push(format!("{}: only in the first", shown(name)));
    }
    for name in right.keys().filter(|name| !left.contains_key(*name)) {
        found.push(format!("{}: only in the second", shown(name)));
    }
    // Which names of one tree are the same file must be which names of the other are.
    let (left_groups, right_groups) = (groups(&left), groups(&right));
    for (name, one) in &left {
        let Some(other) = right.get(name) else { continue };
        let mut say = |what: String| found.push(format!("{}: {what}", shown(name)));
        if one.mode() & libc::S_IFMT != other.mode() & libc::S_IFMT {
            say(format!("type {:o} became {:o}", one.mode() & libc::S_IFMT, other.mode() & libc::S_IFMT));
            continue;
        }
        if !one.is_dir() && left_groups[&**name] != right_groups[&**name] {
            say(format!("hard link of {} became one of {}", shown(left_groups[&**name]), shown(right_groups[&**name])));
        }
        metadata(one, other, options, &mut say);
        if let Err(error) = deeper(&a.join(name), &b.join(name), one, options, &mut say) {
            say(format!("cannot be compared: {error}"));
        }
    }
    found
}

fn shown(name: &Path) -> String {
    format!("\"{}\"", name.as_os_str().as_bytes().escape_ascii())
}

// All names below `top` (itself: empty), with what lstat says.
fn list(top: &Path, options: Options) -> Result<BTreeMap<PathBuf, fs::Metadata>, String> {
    let mut known = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(name) = open.pop() {
        let path = if name.as_os_str().is_empty() { top.to_path_buf() } else { top.join(&name) };
        let wrong = |error: io::Error| format!("{}: cannot be read: {error}", shown(&path));
        let meta = path.symlink_metadata().map_err(wrong)?;
        if options.ignore_sockets && meta.mode() & libc::S_IFMT == libc::S_IFSOCK {
            continue;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(wrong)? {
                open.push(name.join(entry.map_err(wrong)?.file_name()));
            }
        }
        if options.top || !name.as_os_str().is_empty() {
            known.insert(name, meta);
        }
    }
    Ok(known)
}

// For each name the first one of the same file.
fn groups(tree: &BTreeMap<PathBuf, fs::Metadata>) -> BTreeMap<&Path, &Path> {
    let mut first = BTreeMap::new();
    tree.iter().map(|(name, meta)| (&**name, *first.entry((meta.dev(), meta.ino())).or_insert(&**name))).collect()
}

fn metadata(one: &fs::Metadata, other: &fs::Metadata, options: Options, say: &mut impl FnMut(String)) {
    let mut check = |wanted: bool, what: &str, one: String, other: String| {
        if wanted && one != other {
            say(format!("{what} {one} became {other}"));
        }
    };
    let owners = |meta: &fs::Metadata| format!("{}:{}", meta.uid(), meta.gid());
    check(options.owners, "owner", owners(one), owners(other));
    let modes = |meta: &fs::Metadata| format!("{:o}", meta.mode() & 0o7777);
    check(options.modes && !one.is_symlink(), "mode", modes(one), modes(other));
    let times = |meta: &fs::Metadata| format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
    check(options.times, "mtime", times(one), times(other));
    let special = matches!(one.mode() & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
    check(special, "device", one.rdev().to_string(), other.rdev().to_string());
    // The number of links and the space of a directory are its file system's affair.
    check(options.links && !one.is_dir(), "nlink", one.nlink().to_string(), other.nlink().to_string());
    check(options.blocks && !one.is_dir(), "blocks", one.blocks().to_string(), other.blocks().to_string());
    check(!one.is_dir(), "size", one.size().to_string(), other.size().to_string());
}

// What takes more than lstat.
fn deeper(a: &Path, b: &Path, meta: &fs::Metadata, options: Options, say: &mut impl FnMut(String)) -> io::Result<()> {
    if meta.is_symlink() {
        let (one, other) = (fs::read_link(a)?, fs::read_link(b)?);
        if one != other {
            say(format!("target {} became {}", shown(&one), shown(&other)));
        }
    }
    if options.attributes {
        let (one, other) = (attributes(a)?, attributes(b)?);
        for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
            let (before, after) = (one.get(name), other.get(name));
            if before != after {
                let brief = |value: Option<&Vec<u8>>| match value {
                    None => "absent".to_owned(),
                    Some(value) if value.len() > 40 => format!("{} bytes", value.len()),
                    Some(value) => format!("\"{}\"", value.escape_ascii()),
                };
                say(format!("attribute {} {} became {}", name.escape_ascii(), brief(before), brief(after)));
            }
        }
    }
    if meta.is_file() {
        // As long as one fits the other, the rest is compared through the maps of holes: 1 GiB of zeros takes no time.
        let (one, other) = (runs(a)?, runs(b)?);
        if options.holes && one != other {
            say(format!("data at {one:?} became data at {other:?}"));
        }
        if let Some(offset) = first_difference(a, b, &one, &other)? {
            say(format!("content differs from byte {offset} on"));
        }
    }
    Ok(())
}

fn attributes(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 65_536];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        result => result?,
    };
    let mut known = BTreeMap::new();
    for name in names[..len].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        known.insert(name.to_vec(), value);
    }
    Ok(known)
}

/// The runs of data in a file: offset and end of each.
pub(crate) fn runs(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let file = File::open(path)?;
    let mut runs = Vec::new();
    let mut at = 0;
    loop {
        match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) => {
                at = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
                runs.push((start, at));
            }
            Err(rustix::io::Errno::NXIO) => return Ok(runs),
            Err(error) => return Err(error.into()),
        }
    }
}

// Compares what is data in either file; all else is zeros in both. Lengths are compared elsewhere.
fn first_difference(a: &Path, b: &Path, one: &[(u64, u64)], other: &[(u64, u64)]) -> io::Result<Option<u64>> {
    let (mut left, mut right) = (File::open(a)?, File::open(b)?);
    let (mut x, mut y) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut all: Vec<_> = one.iter().chain(other).copied().collect();
    all.sort_unstable();
    let mut done = 0;
    for (start, end) in all {
        let mut at = start.max(done);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(x.len());
            let (p, q) = (fill(&mut left, at, &mut x[..want])?, fill(&mut right, at, &mut y[..want])?);
            if let Some(index) = (0..p.min(q)).find(|&index| x[index] != y[index]) {
                return Ok(Some(at + index as u64));
            }
            if p != q {
                return Ok(Some(at + p.min(q) as u64));
            }
            at += want as u64;
        }
        done = done.max(end);
    }
    Ok(None)
}

fn fill(file: &mut File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    file.seek(io::SeekFrom::Start(at))?;
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            len => filled += len,
        }
    }
    Ok(filled)
}

/// Sets the modification time of `path`, of a link itself.
pub(crate) fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("the time can be set");
}

/// A path from bytes.
pub(crate) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
