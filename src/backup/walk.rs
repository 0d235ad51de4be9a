//! Reads the source depth first, names in byte order, as a stream of events. Not for: content, attributes, writing.
//!
//! Memory: the names of one directory and of those above it are held, with 8 bytes per name more than their bytes
//! (1,000,000 names of 24 bytes: 32 MB, 64 MB while the list grows). At most 128 directories below the way-points are
//! open at a time, fewer where few files may be open; those above are opened again on the way back, and known by device and inode number.

use super::content::open_reading;
use super::source::{Place, Source};
use crate::error::{Error, Result};
use crate::os::{self, FileType, Stat};
use crate::pattern::{Judgement, Patterns, Verdict};
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// How deep directories may be below `/` (the format's bound).
pub const MAX_DEPTH: usize = 4096;
const MAX_OPEN: u64 = 128;
/// How a file named `CACHEDIR.TAG` begins (<https://bford.info/cachedir/>).
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
const CACHE_TAG_NAME: &[u8] = b"CACHEDIR.TAG";

/// What a walk leaves out.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stay on the file systems of the named paths; mountpoints are recorded as empty directories.
    pub one_file_system: bool,
    /// Of a directory with a valid `CACHEDIR.TAG` keep only that file.
    pub exclude_caches: bool,
    /// Paths to leave out. Way-points are never left out.
    pub excludes: Patterns,
}

/// How to reach the thing again, whatever was renamed above it meanwhile.
#[derive(Clone, Debug)]
pub enum Handle {
    /// A directory, opened for reading.
    Itself(Arc<OwnedFd>),
    /// By its name in this directory.
    In(Arc<OwnedFd>),
}

/// Something the walk came by.
#[derive(Clone, Debug)]
pub struct SourceItem {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its name; empty for `/`.
    pub name: Vec<u8>,
    /// What it was when the walk came by.
    pub stat: Stat,
    /// How to reach it.
    pub handle: Handle,
    /// A directory that only leads to a named path. Symbolic links on the way are followed and recorded as directories.
    pub waypoint: bool,
}

/// Why something is not in the stream, without that being a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Sockets are made by the programs that listen to them.
    Socket,
    /// It was gone when the walk came to it.
    Vanished,
    /// A named path that an exclude pattern matches. (Others are left out silently.)
    Excluded,
    /// The content of a mountpoint.
    OtherFilesystem,
    /// The content of a directory with a `CACHEDIR.TAG`.
    Cache,
}

/// What a walk tells.
#[derive(Debug)]
pub enum Event {
    /// A directory begins; what follows up to its `Leave` is in it. The first one is `/`.
    Enter(SourceItem),
    /// The last directory that was entered ends. `incomplete`: not all that is in it was seen, see the issues.
    Leave {
        /// Whether something in it (not further below) may be missing for another reason than an exclude rule.
        incomplete: bool,
    },
    /// Anything but a directory or socket.
    Item(SourceItem),
    /// Left out, and why.
    Skipped {
        /// Its absolute path.
        path: PathBuf,
        /// Why.
        reason: Skip,
    },
    /// Left out or read in part because of an error.
    Issue {
        /// Its absolute path.
        path: PathBuf,
        /// What went wrong.
        error: Error,
    },
}

/// The walk, an iterator of events. Between `Enter` and `Leave`, names come in ascending byte order, none twice.
#[derive(Debug)]
pub struct Walk {
    source: Arc<Source>,
    options: Arc<Options>,
    stack: Vec<Frame>,
    // Of the thing at hand, without a slash at the end; empty for `/`.
    path: Vec<u8>,
    pending: VecDeque<Event>,
    started: bool,
    max_open: usize,
}

// A directory that has been entered.
#[derive(Debug)]
struct Frame {
    names: NameList,
    next: usize,
    fd: Option<Arc<OwnedFd>>,
    stat: Stat,
    path_len: usize,
    place: Option<Place>,
    waypoint: bool,
    judgement: Judgement,
    device: u64,
    incomplete: bool,
}

// What is known of an entry before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    Unknown,
    Directory,
    Other,
}

// Names in one allocation; each with the offset of its first byte, its length and its hint.
#[derive(Debug, Default)]
struct NameList {
    bytes: Vec<u8>,
    index: Vec<(u32, u8, Hint)>,
}

impl NameList {
    fn push(&mut self, name: &[u8], hint: Hint) -> std::result::Result<(), &'static str> {
        let len = u8::try_from(name.len()).map_err(|_| "is longer than 255 bytes")?;
        let start = u32::try_from(self.bytes.len()).map_err(|_| "has too many neighbours: 4 GiB of names")?;
        self.bytes.extend_from_slice(name);
        self.index.push((start, len, hint));
        Ok(())
    }

    fn name(&self, (start, len, _): (u32, u8, Hint)) -> &[u8] {
        &self.bytes[start as usize..start as usize + usize::from(len)]
    }

    fn get(&self, number: usize) -> Option<(&[u8], Hint)> {
        let entry = *self.index.get(number)?;
        Some((self.name(entry), entry.2))
    }

    fn sort(&mut self) {
        let mut index = std::mem::take(&mut self.index);
        index.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        // A network file system may list a name twice while the directory changes.
        index.dedup_by(|a, b| self.name(*a) == self.name(*b));
        self.index = index;
    }
}

impl Iterator for Walk {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if !self.started {
                self.started = true;
                self.start();
                continue;
            }
            let frame = self.stack.last_mut()?;
            let Some((name, hint)) = frame.names.get(frame.next) else {
                self.leave();
                continue;
            };
            self.path.truncate(frame.path_len);
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            let name = name.to_vec();
            frame.next += 1;
            self.visit(name, hint);
        }
    }
}

impl Walk {
    /// A walk through `source`; nothing is read before the first `next`.
    pub fn new(source: Arc<Source>, options: Arc<Options>) -> Walk {
        let max_open = (os::raise_open_files() / 4).clamp(4, MAX_OPEN) as usize;
        Walk {
            source,
            options,
            stack: Vec::new(),
            path: Vec::new(),
            pending: VecDeque::new(),
            started: false,
            max_open,
        }
    }

    fn shown(&self) -> PathBuf {
        if self.path.is_empty() { PathBuf::from("/") } else { PathBuf::from(OsStr::from_bytes(&self.path)) }
    }

    fn skip(&mut self, reason: Skip) {
        let path = self.shown();
        self.pending.push_back(Event::Skipped { path, reason });
    }

    fn issue(&mut self, what: &str, error: io::Error) {
        let path = self.shown();
        let error = Error::io(format!("\"{}\" {what}", path.display()), error);
        self.pending.push_back(Event::Issue { path, error });
    }

    // Something in the last frame could not be seen.
    fn lost(&mut self, what: &str, error: io::Error) {
        self.issue(what, error);
        if let Some(frame) = self.stack.last_mut() {
            frame.incomplete = true;
        }
    }

    fn start(&mut self) {
        let top = self.source.top();
        let waypoint = !self.source.is_named(top);
        let parent = open_reading(os::CWD, b"/", OFlags::DIRECTORY);
        match parent.and_then(|fd| Ok((os::stat_fd(&fd)?, fd))) {
            Ok((stat, fd)) => self.enter(Arc::new(fd), Vec::new(), stat, Some(top), waypoint, Judgement::default()),
            Err(error) => self.issue("cannot be opened", error),
        }
    }

    fn visit(&mut self, name: Vec<u8>, hint: Hint) {
        let Some(frame) = self.stack.last() else { return };
        let Some(dir) = frame.fd.clone() else { return };
        let place = frame.place.and_then(|place| self.source.child(place, &name));
        let named = place.is_some_and(|place| self.source.is_named(place));
        if frame.waypoint && !named {
            return self.visit_waypoint(&dir, name, place);
        }
        let inherited = frame.judgement;
        let judge = |walk: &Walk, is_dir| walk.options.excludes.judge(&walk.path, is_dir, inherited);
        let excluded = |walk: &Walk, judgement| walk.options.excludes.verdict(judgement) == Verdict::Matched;
        // What is excluded is not touched if the listing told what it is: it may be a dead network mount.
        if hint != Hint::Unknown && excluded(self, judge(self, hint == Hint::Directory)) {
            return if named {
                self.skip(Skip::Excluded)
            };
        }
        let stat = match os::stat_at(&dir, &name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return self.skip(Skip::Vanished),
            Err(error) => return self.lost("cannot be examined", error),
        };
        let judgement = judge(self, stat.kind == FileType::Directory);
        if excluded(self, judgement) {
            return if named {
                self.skip(Skip::Excluded)
            };
        }
        match stat.kind {
            FileType::Directory => self.enter(dir, name, stat, place, false, judgement),
            FileType::Socket => self.skip(Skip::Socket),
            FileType::Unknown => self.lost("is of an unknown type", io::ErrorKind::Unsupported.into()),
            _ => {
                let item = SourceItem { path: self.shown(), name, stat, handle: Handle::In(dir), waypoint: false };
                self.pending.push_back(Event::Item(item));
            }
        }
    }

    // A directory on the way; a symbolic link is followed, as the user wrote it.
    fn visit_waypoint(&mut self, dir: &OwnedFd, name: Vec<u8>, place: Option<Place>) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |flags| rustix::fs::openat(dir, name.as_slice(), flags, rustix::fs::Mode::empty());
        // A directory that may only be passed through leads on all the same.
        let opened = open(flags).or_else(|_| open(OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC));
        match opened.map_err(io::Error::from).and_then(|fd| Ok((os::stat_fd(&fd)?, fd))) {
            Ok((stat, fd)) => self.enter(Arc::new(fd), name, stat, place, true, Judgement::default()),
            Err(error) => self.lost("cannot be opened", error),
        }
    }

    // Enters a directory. `dir` is its parent; for way-points and `/` it is the directory itself.
    fn enter(
        &mut self,
        dir: Arc<OwnedFd>,
        name: Vec<u8>,
        mut stat: Stat,
        place: Option<Place>,
        waypoint: bool,
        judgement: Judgement,
    ) {
        let named = place.is_some_and(|place| self.source.is_named(place));
        let mut device = self.stack.last().filter(|_| !named).map_or(stat.dev, |frame| frame.device);
        if waypoint {
            device = stat.dev;
        }
        let leads = place.is_some_and(|place| self.source.children(place).next().is_some());
        let is_foreign = |stat: &Stat| self.options.one_file_system && stat.dev != device;
        let opened = if waypoint || self.stack.is_empty() {
            Ok(dir.clone())
        } else if is_foreign(&stat) && !leads {
            Err(None)
        } else if self.stack.len() >= MAX_DEPTH {
            Err(Some(io::Error::other("directories are nested too deeply")))
        } else {
            open_reading(&dir, &name, OFlags::DIRECTORY).map(Arc::new).map_err(Some)
        };
        let opened = opened.and_then(|fd| {
            // What was opened counts, should it have been replaced meanwhile.
            stat = os::stat_fd(&fd).map_err(Some)?;
            if is_foreign(&stat) && !leads { Err(None) } else { Ok(fd) }
        });
        // A foreign file system is read only as far as it leads to named paths.
        let foreign = is_foreign(&stat);
        if let Err(Some(error)) = &opened
            && error.kind() == io::ErrorKind::NotFound
            && !named
        {
            return self.skip(Skip::Vanished);
        }
        let handle = opened.as_ref().map_or_else(|_| Handle::In(dir), |fd| Handle::Itself(fd.clone()));
        self.pending.push_back(Event::Enter(SourceItem { path: self.shown(), name, stat, handle, waypoint }));
        let path_len = self.path.len();
        let (names, fd, incomplete) = match opened {
            Ok(fd) => {
                if foreign {
                    self.skip(Skip::OtherFilesystem);
                }
                let (names, complete) = self.names(&fd, place, waypoint || foreign);
                (names, Some(fd), !complete)
            }
            Err(None) => {
                self.skip(Skip::OtherFilesystem);
                (NameList::default(), None, false)
            }
            Err(Some(error)) => {
                self.issue("cannot be read, it is recorded without what is in it", error);
                (NameList::default(), None, true)
            }
        };
        self.stack.push(Frame { names, next: 0, fd, stat, path_len, place, waypoint, judgement, device, incomplete });
        self.close_distant();
    }

    // What is to be visited in a directory, and whether that is all.
    fn names(&mut self, fd: &OwnedFd, place: Option<Place>, only_named: bool) -> (NameList, bool) {
        let mut names = NameList::default();
        if let (true, Some(place)) = (only_named, place) {
            for name in self.source.clone().children(place) {
                if let Err(why) = names.push(name, Hint::Unknown) {
                    self.issue("cannot be read", io::Error::other(format!("a name {why}")));
                }
            }
            return (names, true);
        }
        if self.options.exclude_caches && has_cache_tag(fd) {
            self.skip(Skip::Cache);
            let fits = names.push(CACHE_TAG_NAME, Hint::Other).is_ok();
            return (names, fits);
        }
        let mut complete = true;
        if let Err(error) = read_names(fd, &mut names, &mut |name, why| {
            complete = false;
            let shown = String::from_utf8_lossy(name).into_owned();
            self.issue("has an entry that cannot be kept", io::Error::other(format!("\"{shown}\" {why}")));
        }) {
            complete = false;
            self.issue("cannot be listed to its end", error);
        }
        names.sort();
        (names, complete)
    }

    fn close_distant(&mut self) {
        // The frame 0 stays open for `reopen`, and so do way-points: a link on the way has no `..` that leads back.
        if let Some(far) = self.stack.len().checked_sub(self.max_open + 1)
            && far > 0
            && !self.stack[far].waypoint
            && !self.stack[far - 1].waypoint
        {
            self.stack[far].fd = None;
        }
    }

    fn leave(&mut self) {
        let Some(done) = self.stack.pop() else { return };
        self.path.truncate(done.path_len);
        self.pending.push_back(Event::Leave { incomplete: done.incomplete });
        let depth = self.stack.len();
        let Some(frame) = self.stack.last() else { return };
        self.path.truncate(frame.path_len);
        // A directory that is done is opened too: its parent is reached through it.
        if frame.fd.is_some() {
            return;
        }
        let expected = frame.stat;
        let up = done.fd.and_then(|fd| open_reading(&*fd, b"..", OFlags::DIRECTORY).ok());
        let up = up.filter(|fd| os::stat_fd(fd).is_ok_and(|stat| stat.same_file(&expected)));
        let opened = match up {
            Some(fd) => Ok(Arc::new(fd)),
            None => self.reopen(),
        };
        match opened {
            Ok(fd) => self.stack[depth - 1].fd = Some(fd),
            Err(error) => {
                let frame = &mut self.stack[depth - 1];
                if frame.next < frame.names.index.len() {
                    frame.next = frame.names.index.len();
                    self.lost("was moved while it was read, the rest of it is missing", error);
                }
            }
        }
    }

    // Opens the last frame's directory again by the names that led to it.
    fn reopen(&self) -> io::Result<Arc<OwnedFd>> {
        let from = self.stack.iter().rposition(|frame| frame.fd.is_some()).ok_or(io::ErrorKind::NotFound)?;
        let mut fd = self.stack[from].fd.clone().ok_or(io::ErrorKind::NotFound)?;
        for pair in self.stack[from..].windows(2) {
            let name = &self.path[pair[0].path_len + 1..pair[1].path_len];
            let next = open_reading(&*fd, name, OFlags::DIRECTORY)?;
            if !os::stat_fd(&next)?.same_file(&pair[1].stat) {
                return Err(io::ErrorKind::NotFound.into());
            }
            fd = Arc::new(next);
        }
        Ok(fd)
    }
}

// Whether a regular file `CACHEDIR.TAG` with the standard's signature is there.
fn has_cache_tag(dir: &OwnedFd) -> bool {
    let Ok(stat) = os::stat_at(dir, CACHE_TAG_NAME) else { return false };
    if stat.kind != FileType::File || stat.size < CACHE_TAG.len() as u64 {
        return false;
    }
    let Ok(fd) = open_reading(dir, CACHE_TAG_NAME, OFlags::empty()) else { return false };
    let mut start = [0; CACHE_TAG.len()];
    std::fs::File::from(fd).read_exact(&mut start).is_ok() && start == *CACHE_TAG
}

// Adds the names in a directory to the list, `.` and `..` left out. `refuse` hears of names that cannot be kept.
fn read_names(dir: &OwnedFd, names: &mut NameList, refuse: &mut dyn FnMut(&[u8], &str)) -> io::Result<()> {
    use rustix::fs::FileType as Raw;
    let mut buffer = vec![MaybeUninit::uninit(); 32_768];
    let mut entries = rustix::fs::RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let hint = match entry.file_type() {
            Raw::Unknown => Hint::Unknown,
            Raw::Directory => Hint::Directory,
            _ => Hint::Other,
        };
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if name.is_empty() || name.contains(&b'/') => refuse(name, "is not a valid name"),
            name => {
                if let Err(why) = names.push(name, hint) {
                    refuse(name, why);
                }
            }
        }
    }
    Ok(())
}

/// The number of entries and the bytes of files that a walk would find: what progress bars want to know.
pub fn count(walk: Walk, stop: &crate::progress::Stop) -> Result<(u64, u64)> {
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    for event in walk {
        match event {
            Event::Item(item) => {
                entries += 1;
                bytes = bytes.saturating_add(if item.stat.kind == FileType::File { item.stat.size } else { 0 });
            }
            Event::Enter(_) => entries += 1,
            _ => {}
        }
        if entries % 1024 == 0 {
            stop.check()?;
        }
    }
    Ok((entries, bytes))
}

#[cfg(test)]
mod tests;
