//! The only implementation of `fuser::Filesystem`: which reply carries an answer, and on which thread it is found. What the answer is
//! is decided in `answers.rs`.
//!
//! Stateless: no file handles (`open` and `opendir` say ENOSYS once, after which the kernel opens files without asking and keeps
//! contents and listings), no inode table (`forget` does nothing).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use crate::answers::{Answers, No, Row};
use crate::pool::{Expire, Lane, Pool, Refuse, Ticket, Watchdog};
use crate::tree::{Fault, FaultKind, ReadOnlyFs, Source, Whence, Work};

/// Numbers are never used again for another object, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// `SEEK_DATA` and `SEEK_HOLE` of Linux.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// Requests the kernel may send ahead (read-ahead).
const MAX_BACKGROUND: u16 = 128;

macro_rules! refuse {
    ($($reply:ty),*) => { $(impl Refuse for $reply {
        fn refuse(self, errno: Errno) {
            self.error(errno);
        }
    })* };
}
refuse!(ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyStatfs, ReplyXattr);

/// Serves a tree.
pub(crate) struct Adapter<T: ReadOnlyFs> {
    answers: Arc<Answers<T>>,
    pool: Pool,
    watchdog: Watchdog,
    acl: bool,
    direct_io: bool,
}

impl<T: ReadOnlyFs> Adapter<T> {
    /// Starts `workers` threads for what waits, for at most `patience` per request.
    pub(crate) fn new(
        answers: Arc<Answers<T>>,
        workers: usize,
        patience: Duration,
        acl: bool,
        direct_io: bool,
    ) -> io::Result<Adapter<T>> {
        let weak: Weak<Answers<T>> = Arc::downgrade(&answers);
        let watchdog = Watchdog::start(patience, move || {
            let what = format!("No answer from the storage in {} s", patience.as_secs_f32());
            if let Some(answers) = weak.upgrade() {
                answers.report(&Fault::new(FaultKind::TimedOut, what));
            }
        })?;
        Ok(Adapter { answers, pool: Pool::start(workers)?, watchdog, acl, direct_io })
    }

    /// Does some work with a reply: at once, or on a worker if it may have to wait. The work is told which.
    fn serve<R: Refuse>(
        &self,
        what: Work,
        reply: R,
        work: impl FnOnce(&Answers<T>, &Ticket<R>, bool) + Send + 'static,
    ) {
        if self.answers.may_wait(what) {
            return self.defer(what, reply, work);
        }
        work(&self.answers, &Ticket::new(reply), false);
    }

    /// Has a worker do some work with a reply.
    fn defer<R: Refuse>(
        &self,
        what: Work,
        reply: R,
        work: impl FnOnce(&Answers<T>, &Ticket<R>, bool) + Send + 'static,
    ) {
        let ticket = Ticket::new(reply);
        let weak = Arc::downgrade(&ticket);
        self.watchdog.watch(weak as Weak<dyn Expire>);
        let lane = if matches!(what, Work::Read { .. }) { Lane::Data } else { Lane::Metadata };
        let answers = Arc::clone(&self.answers);
        self.pool.push(lane, Box::new(move || work(&answers, &ticket, true)));
    }

    /// Finds an answer and sends it.
    fn ask<R: Refuse, V>(
        &self,
        (name, ino): (&'static str, u64),
        reply: R,
        find: impl FnOnce(&Answers<T>) -> Result<V, No> + Send + 'static,
        send: impl FnOnce(R, V) + Send + 'static,
    ) {
        self.serve(Work::Metadata { ino }, reply, answer((name, ino), find, send));
    }

    /// Fills a directory reply, which is itself the buffer.
    fn fill<R: Refuse>(
        &self,
        ino: u64,
        offset: u64,
        reply: R,
        add: impl Fn(&mut R, &Row<'_>) -> bool + Send + 'static,
        send: impl FnOnce(R) + Send + 'static,
    ) {
        self.serve(Work::Metadata { ino }, reply, move |answers, ticket, waits| {
            if waits {
                // Wait for the first entry while the watchdog still has the reply.
                let first = answers.guard("list", ino, || answers.list(ino, offset.max(2), &mut |_| true).map(drop));
                // The dots can be shown even if nothing else can; then the next request meets the fault again.
                if let (Err(errno), true) = (first, offset >= 2) {
                    return ticket.refuse(errno);
                }
            }
            let Some(mut reply) = ticket.take() else { return };
            match answers.guard("list", ino, || answers.list(ino, offset, &mut |row| add(&mut reply, &row))) {
                Ok(()) => send(reply),
                Err(errno) => reply.refuse(errno),
            }
        });
    }
}

/// Work that finds an answer and sends it.
fn answer<T: ReadOnlyFs, R: Refuse, V>(
    (name, ino): (&'static str, u64),
    find: impl FnOnce(&Answers<T>) -> Result<V, No> + Send + 'static,
    send: impl FnOnce(R, V) + Send + 'static,
) -> impl FnOnce(&Answers<T>, &Ticket<R>, bool) + Send + 'static {
    move |answers, ticket, _| match answers.guard(name, ino, || find(answers)) {
        Ok(value) => {
            if let Some(reply) = ticket.take() {
                send(reply, value);
            }
        }
        Err(errno) => ticket.refuse(errno),
    }
}

/// An answer with the size or the bytes, as `getxattr` and `listxattr` want it.
fn send_xattr(reply: ReplyXattr, room: u32, bytes: &[u8]) {
    match u32::try_from(bytes.len()) {
        Ok(size) if room == 0 => reply.size(size),
        Ok(size) if size <= room => reply.data(bytes),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(_) => reply.error(Errno::E2BIG),
    }
}

impl<T: ReadOnlyFs> Filesystem for Adapter<T> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each of these only makes it quicker (or, for NFS, possible); an old kernel does without.
        for wish in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_EXPORT_SUPPORT,
        ] {
            let _ = config.add_capabilities(wish);
        }
        // Without this one, access would be granted or denied wrongly: that is not a matter of speed.
        if self.acl && config.add_capabilities(InitFlags::FUSE_POSIX_ACL).is_err() {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::OPNOTSUPP.raw_os_error()));
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (parent.0, name.as_bytes().to_vec());
        self.ask(
            ("lookup", parent),
            reply,
            move |answers| answers.lookup(parent, &name),
            |reply, found| match found.attr {
                Some(attr) => reply.entry_with_ttls(&found.attr_ttl, &found.entry_ttl, &attr, GENERATION),
                // A name that will never exist: number 0 with a life makes the kernel remember it.
                None if !found.entry_ttl.is_zero() => {
                    reply.entry_with_ttls(&found.attr_ttl, &found.entry_ttl, &NOTHING, GENERATION);
                }
                None => reply.error(Errno::ENOENT),
            },
        );
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let ino = ino.0;
        self.ask(
            ("getattr", ino),
            reply,
            move |answers| answers.getattr(ino),
            |reply, (attr, ttl)| reply.attr(&ttl, &attr),
        );
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let ino = ino.0;
        self.ask(("readlink", ino), reply, move |answers| answers.readlink(ino), |reply, target| reply.data(&target));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & (OFlags::TRUNC.bits() as i32) != 0 {
            reply.error(Errno::EROFS);
        } else if self.direct_io {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
        } else {
            // "No need to ask": from now on the kernel opens by itself, with what it has cached.
            reply.error(Errno::ENOSYS);
        }
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let ino = ino.0;
        let work = Work::Read { ino, offset, len: size };
        if self.answers.refuses(req.pid(), work) {
            return reply.error(Errno::EACCES);
        }
        self.serve(work, reply, move |answers, ticket, _| {
            let send = &mut |bytes: &[u8]| {
                if let Some(reply) = ticket.take() {
                    reply.data(bytes);
                }
            };
            if let Err(errno) = answers.guard("read", ino, || answers.read(ino, offset, size, send)) {
                ticket.refuse(errno);
            }
        });
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let add = |reply: &mut ReplyDirectory, row: &Row<'_>| {
            reply.add(row.attr.ino, row.offset, row.attr.kind, OsStr::from_bytes(row.name))
        };
        self.fill(ino.0, offset, reply, add, ReplyDirectory::ok);
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let add = |reply: &mut ReplyDirectoryPlus, row: &Row<'_>| {
            let name = OsStr::from_bytes(row.name);
            reply.add(row.attr.ino, row.offset, name, &row.ttl, row.attr, GENERATION)
        };
        self.fill(ino.0, offset, reply, add, ReplyDirectoryPlus::ok);
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        self.ask(("statfs", ino.0), reply, Answers::statfs, |reply, total| {
            reply.statfs(total.bytes.div_ceil(u64::from(BLOCK)), 0, 0, total.files, 0, BLOCK, 255, BLOCK);
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (ino, name) = (ino.0, name.as_bytes().to_vec());
        let source = self.answers.xattr_source(&name);
        let work = match source {
            Source::Content => Work::Read { ino, offset: 0, len: u32::MAX },
            _ => Work::Metadata { ino },
        };
        if source == Source::Content && self.answers.refuses(req.pid(), work) {
            return reply.error(Errno::EACCES);
        }
        let find = move |answers: &Answers<T>| answers.xattr(ino, &name);
        let answer = answer(("getxattr", ino), find, move |reply, value: Vec<u8>| send_xattr(reply, size, &value));
        match source {
            // Most are asked for in vain, and then this is all it takes.
            Source::Nowhere => answer(&self.answers, &Ticket::new(reply), false),
            Source::Recorded => self.serve(work, reply, answer),
            Source::Found | Source::Content => self.defer(work, reply, answer),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let ino = ino.0;
        self.ask(
            ("listxattr", ino),
            reply,
            move |answers| answers.xattr_names(ino),
            move |reply, names| send_xattr(reply, size, &names),
        );
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let whence = match whence {
            SEEK_DATA => Whence::Data,
            SEEK_HOLE => Whence::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let ino = ino.0;
        self.ask(("lseek", ino), reply, move |answers| answers.seek(ino, offset, whence), ReplyLseek::offset);
    }

    // Nothing to do, and nothing to be told again.

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    // Writes. A read-only mount lets none of them through; should it be remounted, they meet the same answer here.

    fn setattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}

/// Attributes of a name that does not exist.
const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};
