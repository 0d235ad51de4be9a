//! Answers to the kernel's questions as plain values: time-outs, dot entries, checks of what a tree says, and the net that catches
//! faults and panics. It knows neither reply objects nor threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo};

use crate::errno::errno;
use crate::tree::{Attr, Fault, FaultKind, Kind, ListItem, ROOT_INO, ReadOnlyFs, Source, StatFs, Whence, Work, Xattrs};

/// Life of what never changes. (The kernel turns it into ticks; ten years leave no doubt about overflow.)
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of a directory that can change and of the entries in it.
pub(crate) const SHORT: Duration = Duration::from_secs(1);
/// Longest name Linux can use.
const NAME_MAX: usize = 255;
/// Positions 0 and 1 of a listing are `.` and `..`.
const DOTS: u64 = 2;

/// Receives each fault; called from any thread.
pub(crate) type OnFault = Box<dyn Fn(&Fault) + Send + Sync>;

/// Why there is no answer: a fault, to be reported, or an ordinary error number, which is one.
#[derive(Debug)]
pub(crate) enum No {
    Fault(Fault),
    Errno(Errno),
}

impl From<Fault> for No {
    fn from(fault: Fault) -> No {
        No::Fault(fault)
    }
}

impl From<Errno> for No {
    fn from(errno: Errno) -> No {
        No::Errno(errno)
    }
}

/// Outcome of a look-up.
#[derive(Debug)]
pub(crate) struct Found {
    /// `None`: no such name.
    pub(crate) attr: Option<FileAttr>,
    pub(crate) attr_ttl: Duration,
    /// Zero: the name must be asked for again next time.
    pub(crate) entry_ttl: Duration,
}

/// One entry as the kernel wants it.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Position behind it.
    pub(crate) offset: u64,
    pub(crate) name: &'a [u8],
    pub(crate) attr: &'a FileAttr,
    pub(crate) ttl: Duration,
}

/// A tree and the place its faults go to.
pub(crate) struct Answers<T: ReadOnlyFs> {
    pub(crate) tree: T,
    on_fault: OnFault,
}

impl<T: ReadOnlyFs> Answers<T> {
    pub(crate) fn new(tree: T, on_fault: OnFault) -> Answers<T> {
        Answers { tree, on_fault }
    }

    /// Does some work; a fault or a panic is reported and becomes an error number, so that the mount goes on.
    pub(crate) fn guard<V>(
        &self,
        what: &'static str,
        ino: u64,
        work: impl FnOnce() -> Result<V, No>,
    ) -> Result<V, Errno> {
        // What a panic leaves half done stays inside the tree, whose own locks are poisoned and whose next answer is checked again.
        let fault = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(No::Errno(errno))) => return Err(errno),
            Ok(Err(No::Fault(fault))) => fault,
            Err(panic) => Fault::new(
                FaultKind::Panicked,
                format!("Internal error in \"{what}\" of inode {ino}: {}", panic_text(&*panic)),
            ),
        };
        self.report(&fault);
        Err(errno(fault.kind))
    }

    /// Hands a fault to the callback, whose own panics must not reach a FUSE thread either.
    pub(crate) fn report(&self, fault: &Fault) {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_fault)(fault)));
    }

    /// Whether to leave this to a worker.
    pub(crate) fn may_wait(&self, work: Work) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.tree.may_wait(work))).unwrap_or(true)
    }

    /// Where attributes of this name come from.
    pub(crate) fn xattr_source(&self, name: &[u8]) -> Source {
        catch_unwind(AssertUnwindSafe(|| self.tree.xattr_source(name))).unwrap_or(Source::Found)
    }

    /// Whether this process is not to have this.
    pub(crate) fn refuses(&self, pid: u32, work: Work) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.tree.refuses(pid, work))).unwrap_or(false)
    }

    fn node(&self, ino: u64) -> Result<T::Node, No> {
        if ino == ROOT_INO {
            return Ok(self.tree.root());
        }
        self.tree.node(ino)?.ok_or(No::Errno(Errno::ESTALE))
    }

    fn attr_ttl(&self, node: &T::Node, attr: &Attr) -> Duration {
        if attr.kind == Kind::Directory && self.tree.is_mutable(node) { SHORT } else { FOREVER }
    }

    pub(crate) fn getattr(&self, ino: u64) -> Result<(FileAttr, Duration), No> {
        let node = self.node(ino)?;
        let attr = self.tree.attr(&node)?;
        Ok((file_attr(&attr)?, self.attr_ttl(&node, &attr)))
    }

    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Found, No> {
        let dir = self.node(parent)?;
        // The kernel resolves these itself, except when it turns a file handle back into a file; "." is then asked of files too.
        if name == b"." || name == b".." {
            let node = if name == b"." { dir } else { self.tree.parent(&dir)? };
            let attr = self.tree.attr(&node)?;
            let attr_ttl = self.attr_ttl(&node, &attr);
            return Ok(Found { attr: Some(file_attr(&attr)?), attr_ttl, entry_ttl: FOREVER });
        }
        if name.len() > NAME_MAX {
            return Err(No::Errno(Errno::ENAMETOOLONG));
        }
        let mutable = self.tree.is_mutable(&dir);
        match self.tree.lookup(&dir, name)? {
            Some((node, attr)) => Ok(Found {
                attr: Some(file_attr(&attr)?),
                attr_ttl: self.attr_ttl(&node, &attr),
                entry_ttl: if mutable { SHORT } else { FOREVER },
            }),
            None => Ok(Found {
                attr: None,
                attr_ttl: Duration::ZERO,
                entry_ttl: if mutable { Duration::ZERO } else { FOREVER },
            }),
        }
    }

    /// Gives the entries of a directory from a position on to `add`, until that says the buffer is full.
    ///
    /// A fault behind the first delivered entry is kept for the next request, which begins there: a listing shows what can be read.
    pub(crate) fn list(&self, ino: u64, offset: u64, add: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), No> {
        let dir = self.node(ino)?;
        let ttl = if self.tree.is_mutable(&dir) { SHORT } else { FOREVER };
        let mut delivered = false;
        if offset < DOTS {
            let own = file_attr(&self.tree.attr(&dir)?)?;
            if offset == 0 && add(Row { offset: 1, name: b".", attr: &own, ttl }) {
                return Ok(());
            }
            let up = self.dotdot(&dir, &own);
            if add(Row { offset: DOTS, name: b"..", attr: &up, ttl }) {
                return Ok(());
            }
            delivered = true;
        }
        let listed = self.tree.list(&dir, offset.saturating_sub(DOTS), &mut |item| match self.row(&item, ino) {
            Some(attr) => {
                // With a short life for the name, the attributes of a directory that changes live as short, too.
                let full = add(Row { offset: item.next.saturating_add(DOTS), name: item.name, attr: &attr, ttl });
                delivered |= !full;
                !full
            }
            None => true,
        });
        match listed {
            Err(fault) if !delivered => Err(No::Fault(fault)),
            _ => Ok(()),
        }
    }

    /// Attributes for `..`. Only number and kind are used; a damaged way up must not hide the listing.
    fn dotdot(&self, dir: &T::Node, own: &FileAttr) -> FileAttr {
        let up = self.tree.parent(dir).and_then(|parent| self.tree.attr(&parent)).and_then(|attr| file_attr(&attr));
        up.unwrap_or_else(|fault| {
            self.report(&fault);
            *own
        })
    }

    /// Checks an entry: one that the kernel refuses would make the whole listing fail.
    fn row(&self, item: &ListItem<'_>, dir: u64) -> Option<FileAttr> {
        let name = item.name;
        let dots = name == b"." || name == b"..";
        if name.is_empty() || name.len() > NAME_MAX || dots || name.iter().any(|&b| b == b'/' || b == 0) {
            let shown = String::from_utf8_lossy(&name[..name.len().min(NAME_MAX)]).escape_debug().to_string();
            let what = format!("Left out of directory inode {dir}: \"{shown}\" cannot be the name of a file");
            self.report(&Fault::new(FaultKind::Damaged, what));
            return None;
        }
        file_attr(&item.attr).map_err(|fault| self.report(&fault)).ok()
    }

    /// Reads a range and passes it to `reply`, but only if it is complete: the kernel shows zeros where bytes are missing.
    pub(crate) fn read(&self, ino: u64, offset: u64, len: u32, reply: &mut dyn FnMut(&[u8])) -> Result<(), No> {
        let file = self.node(ino)?;
        let mut outcome = None;
        let read = self.tree.read(&file, offset, len, &mut |bytes| {
            if outcome.is_none() {
                let checked = self.check_length(&file, offset, len, bytes.len());
                if checked.is_ok() {
                    reply(bytes);
                }
                outcome = Some(checked);
            }
        });
        read?;
        let none = || Err(Fault::new(FaultKind::Io, format!("No bytes came for inode {ino} at {offset}")));
        Ok(outcome.unwrap_or_else(none)?)
    }

    fn check_length(&self, file: &T::Node, offset: u64, len: u32, got: usize) -> Result<(), Fault> {
        if got as u64 == u64::from(len) {
            return Ok(());
        }
        let attr = self.tree.attr(file)?;
        let due = attr.size.saturating_sub(offset).min(u64::from(len));
        if got as u64 == due {
            return Ok(());
        }
        let ino = attr.ino;
        Err(Fault::new(FaultKind::Io, format!("{got} bytes instead of {due} came for inode {ino} at {offset}")))
    }

    pub(crate) fn readlink(&self, ino: u64) -> Result<Vec<u8>, No> {
        Ok(self.tree.readlink(&self.node(ino)?)?)
    }

    pub(crate) fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, No> {
        // Only a mount without any attribute may say ENOSYS: the kernel would never ask for one again.
        if self.tree.xattrs() == Xattrs::None {
            return Err(No::Errno(Errno::ENOSYS));
        }
        if self.tree.xattr_source(name) == Source::Nowhere {
            // As the kernel says after ENOSYS, and other than "not here": `ls` asks no more in this mount then.
            return Err(No::Errno(Errno::ENOTSUP));
        }
        self.tree.xattr(&self.node(ino)?, name)?.ok_or(No::Errno(Errno::NO_XATTR))
    }

    /// All names, each ended by a NUL.
    pub(crate) fn xattr_names(&self, ino: u64) -> Result<Vec<u8>, No> {
        if self.tree.xattrs() != Xattrs::Listed {
            return Err(No::Errno(Errno::ENOSYS));
        }
        let mut list = Vec::new();
        for name in self.tree.xattr_names(&self.node(ino)?)? {
            // The kernel refuses the whole list for the sake of one such name.
            if !name.is_empty() && !name.contains(&0) {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        Ok(list)
    }

    pub(crate) fn seek(&self, ino: u64, offset: i64, whence: Whence) -> Result<i64, No> {
        let file = self.node(ino)?;
        let size = self.tree.attr(&file)?.size;
        let Some(offset) = u64::try_from(offset).ok().filter(|&offset| offset < size) else {
            return Err(No::Errno(Errno::ENXIO));
        };
        let position = match (self.tree.seek(&file, offset, whence)?, whence) {
            (Some(position), _) => position.min(size),
            (None, Whence::Hole) => size,
            (None, Whence::Data) => return Err(No::Errno(Errno::ENXIO)),
        };
        i64::try_from(position).map_err(|_| No::Errno(Errno::EOVERFLOW))
    }

    pub(crate) fn statfs(&self) -> Result<StatFs, No> {
        Ok(self.tree.statfs()?)
    }
}

/// Turns attributes into what the kernel wants, and refuses what would be taken for something else.
pub(crate) fn file_attr(attr: &Attr) -> Result<FileAttr, Fault> {
    // Number 0 in a reply means "no such name", and sizes above this one make the kernel refuse the whole reply.
    if attr.ino == 0 || attr.size > i64::MAX as u64 {
        let what = format!("Impossible attributes: inode {} with {} bytes", attr.ino, attr.size);
        return Err(Fault::new(FaultKind::Damaged, what));
    }
    let mtime = system_time(attr.mtime_secs, attr.mtime_nanos);
    Ok(FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: kernel_rdev(attr.rdev),
        blksize: 4096,
        flags: 0,
    })
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// `st_rdev` in the 32 bits the FUSE protocol has for it (`new_encode_dev` of the kernel: 12 bits major, 20 bits minor).
fn kernel_rdev(dev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// A point in time; one that the system cannot express becomes 1970.
fn system_time(secs: i64, nanos: u32) -> SystemTime {
    let whole = Duration::from_secs(secs.unsigned_abs());
    let base = if secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    let nanos = Duration::from_nanos(u64::from(nanos.min(999_999_999)));
    base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "unknown reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr() -> Attr {
        Attr {
            ino: 5,
            kind: Kind::File,
            mode: 0o104_755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 1,
            blocks: 1,
            mtime_secs: 0,
            mtime_nanos: 0,
        }
    }

    /// Inode 1 is a directory with one entry, `file`, which is inode 5; it can change if this is true.
    struct Tiny(bool);

    impl ReadOnlyFs for Tiny {
        type Node = u64;

        fn root(&self) -> u64 {
            1
        }
        fn node(&self, ino: u64) -> Result<Option<u64>, Fault> {
            Ok(Some(ino).filter(|&ino| ino == 5))
        }
        fn attr(&self, &ino: &u64) -> Result<Attr, Fault> {
            Ok(Attr { ino, kind: if ino == 1 { Kind::Directory } else { Kind::File }, ..attr() })
        }
        fn lookup(&self, _dir: &u64, name: &[u8]) -> Result<Option<(u64, Attr)>, Fault> {
            Ok((name == b"file").then(|| (5, attr())))
        }
        fn parent(&self, _dir: &u64) -> Result<u64, Fault> {
            Ok(1)
        }
        fn list(&self, _: &u64, offset: u64, each: &mut dyn FnMut(ListItem<'_>) -> bool) -> Result<(), Fault> {
            if offset == 0 {
                each(ListItem { next: 1, name: b"file", attr: attr() });
            }
            Ok(())
        }
        fn read(&self, _: &u64, _: u64, _: u32, _: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
            Ok(())
        }
        fn readlink(&self, _: &u64) -> Result<Vec<u8>, Fault> {
            panic!("expected in this test")
        }
        fn xattr(&self, _: &u64, _: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
            Ok(None)
        }
        fn xattr_names(&self, _: &u64) -> Result<Vec<Vec<u8>>, Fault> {
            Ok(vec![b"user.a".to_vec(), Vec::new(), b"b\0".to_vec()])
        }
        fn seek(&self, _: &u64, _: u64, _: Whence) -> Result<Option<u64>, Fault> {
            Ok(None)
        }
        fn statfs(&self) -> Result<StatFs, Fault> {
            Ok(StatFs::default())
        }
        fn is_mutable(&self, _: &u64) -> bool {
            self.0
        }
    }

    fn tiny(mutable: bool) -> Answers<Tiny> {
        Answers::new(Tiny(mutable), Box::new(|_| ()))
    }

    #[test]
    fn file_handles_are_resolved_by_dot_even_for_files() {
        let number = |name: &[u8], ino| tiny(false).lookup(ino, name).unwrap().attr.unwrap().ino.0;
        assert_eq!((number(b".", 5), number(b".", 1), number(b"..", 1), number(b"..", 5)), (5, 1, 1, 1));
        assert!(matches!(tiny(false).lookup(6, b"."), Err(No::Errno(Errno::ESTALE))));
    }

    #[test]
    fn only_what_cannot_change_lives_for_ever() {
        let lives = |mutable, name: &[u8]| {
            let found = tiny(mutable).lookup(1, name).unwrap();
            (found.attr.is_some(), found.entry_ttl)
        };
        assert_eq!(lives(false, b"file"), (true, FOREVER));
        assert_eq!(lives(false, b"absent"), (false, FOREVER));
        assert_eq!(lives(true, b"file"), (true, SHORT));
        assert_eq!(lives(true, b"absent"), (false, Duration::ZERO));
        assert_eq!(tiny(true).getattr(1).unwrap().1, SHORT);
        assert_eq!(tiny(true).getattr(5).unwrap().1, FOREVER);
    }

    #[test]
    fn a_listing_can_be_taken_up_at_every_position() {
        let from = |offset| {
            let mut seen = Vec::new();
            tiny(false)
                .list(1, offset, &mut |row| {
                    seen.push((row.offset, row.name.to_vec()));
                    false
                })
                .unwrap();
            seen
        };
        let all = [(1, b".".to_vec()), (2, b"..".to_vec()), (3, b"file".to_vec())];
        for offset in 0..=3 {
            assert_eq!(from(offset as u64), all[offset..], "{offset}");
        }
    }

    #[test]
    fn silence_and_panics_are_errors() {
        let answers = tiny(false);
        assert!(matches!(answers.read(5, 0, 1, &mut |_| ()), Err(No::Fault(_))));
        assert_eq!(answers.guard("readlink", 5, || answers.readlink(5)), Err(Errno::EIO));
        assert_eq!(answers.xattr_names(5).unwrap(), b"user.a\0");
    }

    #[test]
    fn attributes_that_would_lie_are_refused() {
        assert!(file_attr(&Attr { ino: 0, ..attr() }).is_err());
        assert!(file_attr(&Attr { size: 1 << 63, ..attr() }).is_err());
        assert_eq!(file_attr(&attr()).unwrap().perm, 0o4755);
    }

    #[test]
    fn times_before_1970_count_backwards() {
        let before = system_time(-2, 800_000_000);
        assert_eq!(UNIX_EPOCH.duration_since(before).unwrap(), Duration::new(1, 200_000_000));
        assert_eq!(system_time(i64::MAX, u32::MAX).duration_since(UNIX_EPOCH).unwrap().subsec_nanos(), 999_999_999);
        let _ = system_time(i64::MIN, 0);
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_does() {
        assert_eq!(kernel_rdev(rustix::fs::makedev(8, 1)), 0x801);
        assert_eq!(kernel_rdev(rustix::fs::makedev(259, 0x1_2345)), 0x1231_0345);
    }
}
