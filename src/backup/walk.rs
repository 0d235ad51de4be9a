//! Reads the source depth first, names in byte order, as a stream of events. Not for: content, attributes, writing.
//!
//! Memory: the names of one directory and of those above it are held, with 8 bytes per name more than their bytes
//! (1,000,000 names of 24 bytes: 32 MB, 64 MB while the list grows). At most 128 directories below the way-points are
//! open at a time, fewer where few files may be open; those above are opened again on the way back, and known by device and inode number.

use super::content::open_reading;
use super::names::{Hint, NameList, read_names};
use super::own::{self, CACHE_TAG_NAME, Own};
use super::source::{Place, Source};
use crate::error::{Error, Result};
use crate::os::{self, FileType, Stat};
use crate::pattern::{Judgement, Patterns, Verdict};
use rustix::fs::OFlags;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// How deep directories may be below `/` (the format's bound).
pub const MAX_DEPTH: usize = 4096;
const MAX_OPEN: u64 = 128;

/// What a walk leaves out.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stay on the file systems of the named paths; mountpoints are recorded as empty directories.
    pub one_file_system: bool,
    /// The device of that file system, where it is not that of the named path itself.
    pub device: Option<u64>,
    /// Of a directory with a valid `CACHEDIR.TAG` keep only that file.
    pub exclude_caches: bool,
    /// Paths to leave out. Way-points are never left out. Each named path is judged as if it were the first directory.
    pub excludes: Patterns,
    /// Device and inode number of the folder of the repository at hand, which never goes into itself.
    pub repository: Option<(u64, u64)>,
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
    /// The user named it. A directory of which nothing can be read does not count.
    pub named: bool,
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
    /// Something of firn's own.
    Own(Own),
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
    /// Named places that the walk came by.
    met: BTreeSet<Place>,
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
    /// Only what leads to named paths is visited in it.
    hidden: bool,
    /// A link that was followed: neither `..` nor its name leads back to it.
    followed: bool,
    judgement: Judgement,
    device: u64,
    incomplete: bool,
}

// A directory to be entered.
struct Entering {
    /// Where its name is, or the directory itself.
    dir: Arc<OwnedFd>,
    is_open: bool,
    name: Vec<u8>,
    stat: Stat,
    place: Option<Place>,
    waypoint: bool,
    followed: bool,
    judgement: Judgement,
}

// What is to be visited in a directory.
struct Listing {
    names: NameList,
    /// Nothing is missing that should be there.
    complete: bool,
    /// Only what leads to named paths is visited.
    hidden: bool,
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
            let Some(frame) = self.stack.last_mut() else {
                self.tell_unmet();
                return self.pending.pop_front();
            };
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
            met: BTreeSet::new(),
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

    // Named paths that the walk did not come by: what led to them is no directory any more.
    fn tell_unmet(&mut self) {
        let source = self.source.clone();
        source.each_named(&mut |place, path| {
            if self.met.insert(place) {
                let gone = io::Error::from(io::ErrorKind::NotFound);
                let error = Error::io(format!("The source \"{}\" cannot be reached", path.display()), gone);
                self.pending.push_back(Event::Issue { path, error });
            }
        });
    }

    fn start(&mut self) {
        let top = self.source.top();
        let waypoint = !self.source.is_named(top);
        let parent = open_reading(os::CWD, b"/", OFlags::DIRECTORY);
        match parent.and_then(|fd| Ok((os::stat_fd(&fd)?, fd))) {
            Ok((stat, fd)) => {
                self.met.extend((!waypoint).then_some(top));
                self.enter(Entering {
                    dir: Arc::new(fd),
                    is_open: true,
                    name: Vec::new(),
                    stat,
                    place: Some(top),
                    waypoint,
                    followed: false,
                    judgement: Judgement::default(),
                });
            }
            Err(error) => self.issue("cannot be opened", error),
        }
    }

    fn visit(&mut self, name: Vec<u8>, hint: Hint) {
        let Some(frame) = self.stack.last() else { return };
        let Some(dir) = frame.fd.clone() else { return };
        let place = frame.place.and_then(|place| self.source.child(place, &name));
        let named = place.is_some_and(|place| self.source.is_named(place));
        let leads = place.is_some_and(|place| self.source.leads(place));
        // The rules that hide what is around it do not hold for what was named.
        let inherited = if named { Judgement::default() } else { frame.judgement };
        if !named && (frame.waypoint || frame.hidden && leads) {
            return self.visit_waypoint(&dir, name, place);
        }
        self.met.extend(place.filter(|_| named));
        if let Some(place) = place
            && self.source.is_followed(place)
        {
            return self.visit_followed(&dir, name, place);
        }
        let judge = |walk: &Walk, is_dir| walk.options.excludes.judge(&walk.path, is_dir, inherited);
        let excluded = |walk: &Walk, judgement| walk.options.excludes.verdict(judgement) == Verdict::Matched;
        // What is excluded is not touched if the listing told what it is: it may be a dead network mount.
        if hint != Hint::Unknown && excluded(self, judge(self, hint == Hint::Directory)) {
            return self.leave_out(&dir, name, place);
        }
        let stat = match os::stat_at(&dir, &name) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return self.skip(Skip::Vanished),
            Err(error) => return self.unseen(&dir, &name, place, error),
        };
        let judgement = judge(self, stat.kind == FileType::Directory);
        if excluded(self, judgement) {
            return self.leave_out(&dir, name, place);
        }
        match stat.kind {
            FileType::Directory => {
                let (is_open, waypoint, followed) = (false, false, false);
                self.enter(Entering { dir, is_open, name, stat, place, waypoint, followed, judgement });
            }
            FileType::Socket if named => {
                self.lost(
                    "cannot be backed up",
                    io::Error::other("sockets are made by the programs that listen to them"),
                );
            }
            FileType::Socket => self.skip(Skip::Socket),
            FileType::Unknown => self.lost("is of an unknown type", io::ErrorKind::Unsupported.into()),
            _ if !named && os::partial_text(&name).is_some() => self.skip(Skip::Own(Own::Partial)),
            _ => {
                let (path, handle) = (self.shown(), Handle::In(dir));
                self.pending.push_back(Event::Item(SourceItem { path, name, stat, handle, waypoint: false, named }));
            }
        }
    }

    // The root of a mount that is left out anyway need not be seen: nobody sees that of a dead one, nor root that of another user.
    fn unseen(&mut self, dir: &OwnedFd, name: &[u8], place: Option<Place>, error: io::Error) {
        match os::mount_below(dir, name).filter(|_| place.is_none()) {
            Some(mount) if self.options.one_file_system && mount.is_other => self.skip(Skip::OtherFilesystem),
            Some(mount) if mount.kind == own::MOUNT => self.skip(Skip::Own(Own::Mount)),
            _ => self.lost("cannot be examined", error),
        }
    }

    // An exclude rule matches. Named paths below are visited all the same.
    fn leave_out(&mut self, dir: &OwnedFd, name: Vec<u8>, place: Option<Place>) {
        if place.is_some_and(|place| self.source.is_named(place)) {
            self.skip(Skip::Excluded);
        }
        if place.is_some_and(|place| self.source.leads(place)) {
            self.visit_waypoint(dir, name, place);
        }
    }

    // A directory on the way; a symbolic link is followed, as the user wrote it.
    fn visit_waypoint(&mut self, dir: &OwnedFd, name: Vec<u8>, place: Option<Place>) {
        self.follow(dir, name, place, None);
    }

    // A named link to a directory that stands for the directory.
    fn visit_followed(&mut self, dir: &OwnedFd, name: Vec<u8>, place: Place) {
        let judgement = self.options.excludes.judge(&self.path, true, Judgement::default());
        if self.options.excludes.verdict(judgement) == Verdict::Matched {
            return self.leave_out(dir, name, Some(place));
        }
        self.follow(dir, name, Some(place), Some(judgement));
    }

    // Enters a directory, or the one that a link leads to; without a judgement it is a way-point.
    fn follow(&mut self, dir: &OwnedFd, name: Vec<u8>, place: Option<Place>, judgement: Option<Judgement>) {
        match open_following(dir, &name) {
            Ok((stat, fd)) => self.enter(Entering {
                dir: Arc::new(fd),
                is_open: true,
                name,
                stat,
                place,
                waypoint: judgement.is_none(),
                followed: judgement.is_some(),
                judgement: judgement.unwrap_or_default(),
            }),
            Err(error) => self.lost("cannot be opened", error),
        }
    }

    fn enter(&mut self, entering: Entering) {
        let Entering { dir, is_open, name, mut stat, place, waypoint, followed, judgement } = entering;
        let named = place.is_some_and(|place| self.source.is_named(place));
        let above = self.stack.last();
        let home = self.options.device.unwrap_or(stat.dev);
        let device = above.filter(|_| !named && !waypoint).map_or(home, |frame| frame.device);
        let crosses = !named && !waypoint && above.is_some_and(|frame| frame.stat.dev != stat.dev);
        let leads = place.is_some_and(|place| self.source.leads(place));
        let is_foreign = |stat: &Stat| self.options.one_file_system && stat.dev != device;
        let opened = if is_open {
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
        let at = self.pending.len();
        self.pending.push_back(Event::Enter(SourceItem { path: self.shown(), name, stat, handle, waypoint, named }));
        let path_len = self.path.len();
        let (listing, fd) = match opened {
            Ok(fd) => {
                let listing = match () {
                    () if waypoint => self.only_leading(place, None),
                    () if foreign => self.only_leading(place, Some(Skip::OtherFilesystem)),
                    () if crosses && own::is_mount(&stat) => self.only_leading(place, Some(Skip::Own(Own::Mount))),
                    () => self.names(&fd, &stat, place, named),
                };
                (listing, Some(fd))
            }
            Err(None) => (self.only_leading(None, Some(Skip::OtherFilesystem)), None),
            Err(Some(_)) if crosses && !leads && own::is_mount(&stat) => {
                (self.only_leading(None, Some(Skip::Own(Own::Mount))), None)
            }
            Err(Some(error)) => {
                self.issue("cannot be read, it is recorded without what is in it", error);
                (Listing { names: NameList::default(), complete: false, hidden: false }, None)
            }
        };
        let Listing { names, complete, hidden } = listing;
        if let Some(Event::Enter(item)) = self.pending.get_mut(at) {
            item.named &= complete || names.len() > 0;
        }
        self.stack.push(Frame {
            names,
            next: 0,
            fd,
            stat,
            path_len,
            place,
            waypoint,
            hidden,
            followed,
            judgement,
            device,
            incomplete: !complete,
        });
        self.close_distant();
    }

    // Of a directory that is left out for this reason, or is a way-point: what leads to named paths.
    fn only_leading(&mut self, place: Option<Place>, reason: Option<Skip>) -> Listing {
        if let Some(reason) = reason {
            self.skip(reason);
        }
        let mut names = NameList::default();
        let source = self.source.clone();
        for name in place.into_iter().flat_map(|place| source.children(place)) {
            if let Err(why) = names.push(name, Hint::Unknown) {
                self.issue("cannot be read", io::Error::other(format!("a name {why}")));
            }
        }
        Listing { names, complete: true, hidden: true }
    }

    // What is to be visited in a directory.
    fn names(&mut self, fd: &OwnedFd, stat: &Stat, place: Option<Place>, named: bool) -> Listing {
        if self.options.exclude_caches && own::has_cache_tag(fd) {
            return self.only_tag(place, Skip::Cache);
        }
        let mut names = NameList::default();
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
        if self.options.repository == Some((stat.dev, stat.ino)) && named {
            self.issue("cannot go into itself", io::Error::other("it is the repository of this backup"));
            let hidden = self.only_leading(place, None);
            return Listing { complete: false, ..hidden };
        }
        let is_repository = || {
            let is_like_one = own::FOLDERS.iter().all(|name| names.has(name));
            self.options.repository == Some((stat.dev, stat.ino)) || is_like_one && own::is_repository(fd)
        };
        match named {
            false if is_repository() => self.only_leading(place, Some(Skip::Own(Own::Repository))),
            false if names.has(CACHE_TAG_NAME) && own::is_cache(fd) => self.only_tag(place, Skip::Own(Own::Cache)),
            _ => Listing { names, complete, hidden: false },
        }
    }

    // Of a cache the file that says so stays.
    fn only_tag(&mut self, place: Option<Place>, reason: Skip) -> Listing {
        let mut listing = self.only_leading(place, Some(reason));
        listing.complete &= listing.names.push(CACHE_TAG_NAME, Hint::Other).is_ok();
        listing.names.sort();
        listing
    }

    fn close_distant(&mut self) {
        // The frame 0 stays open for `reopen`, and so do way-points: a link on the way has no `..` that leads back.
        if let Some(far) = self.stack.len().checked_sub(self.max_open + 1)
            && far > 0
            && !self.stack[far].waypoint
            && !self.stack[far].followed
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
                if frame.next < frame.names.len() {
                    frame.next = frame.names.len();
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

// Opens a directory, or the one that a link leads to.
fn open_following(dir: &OwnedFd, name: &[u8]) -> io::Result<(Stat, OwnedFd)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = |flags| rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty());
    // A directory that may only be passed through leads on all the same.
    let fd = open(flags).or_else(|_| open(OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC))?;
    Ok((os::stat_fd(&fd)?, fd))
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
