//! Opens source files safely and reads their data and holes. Not for: splitting or storing what was read.

use super::walk::{Handle, SourceItem};
use crate::chunk::pieces::Segment;
use crate::error::{Error, ErrorKind, Result};
use crate::os::{self, FileType, Stat};
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Opens for reading: follows no link, blocks on nothing, gains no terminal and, where allowed, leaves no access time.
pub(crate) fn open_reading(dir: impl AsFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    match os::open_at(dir.as_fd(), name, flags | OFlags::NOATIME, 0) {
        // Only the owner and the administrator may leave the access time alone.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => os::open_at(dir, name, flags, 0),
        result => result,
    }
}

/// A source file that is being read.
#[derive(Debug)]
pub struct Content {
    file: File,
    stat: Stat,
    offset: u64,
    // Up to where data is known to follow `offset`.
    data_end: u64,
    sparse: bool,
    after_hole: bool,
    // Where reading ends: the stated size, unless more follows there.
    end: u64,
    // Whether anything follows behind the stated size is found out once.
    end_is_known: bool,
}

/// How much is read of a file behind the size that it states; some files of /proc go on for ever.
const MAX_UNSTATED: u64 = 256 << 20;

impl Content {
    /// Opens the regular file `item`. Errors: the system's, and `Failed` if another file has its name by now.
    pub fn open(item: &SourceItem) -> Result<Content> {
        let wrong = |error: io::Error| Error::io(format!("\"{}\" cannot be opened", item.path.display()), error);
        let Handle::In(dir) = &item.handle else { return Err(wrong(io::ErrorKind::IsADirectory.into())) };
        let file = File::from(open_reading(dir, &item.name, OFlags::empty()).map_err(wrong)?);
        let stat = os::stat_fd(&file).map_err(wrong)?;
        if !stat.same_file(&item.stat) || stat.kind != FileType::File {
            let message = format!("\"{}\" was replaced before it could be read", item.path.display());
            return Err(Error::new(ErrorKind::Failed, message));
        }
        Ok(Content::new(file, stat))
    }

    /// Reads an open file of which `stat` is known. Of one that has grown since, `stat.size` bytes; of one that goes on behind the
    /// size that it states even now, all.
    pub fn new(file: File, stat: Stat) -> Content {
        os::advise_sequential(&file);
        let sparse = stat.blocks.saturating_mul(512) < stat.size;
        let end = stat.size;
        Content { file, stat, offset: 0, data_end: 0, sparse, after_hole: false, end, end_is_known: false }
    }

    /// Reads no more than `size` bytes.
    pub fn end_at(&mut self, size: u64) {
        (self.end, self.end_is_known) = (size, true);
    }

    /// Whether more was there than the file states as its size.
    pub fn goes_beyond(&self) -> bool {
        self.end > self.stat.size
    }

    /// Whether the file ends behind exactly so many bytes, whatever size it states.
    pub fn has_length(&self, length: u64) -> io::Result<bool> {
        Ok((length == 0 || self.has_byte(length - 1)?) && !self.has_byte(length)?)
    }

    /// All bytes of the file, whatever size it states; `None` if they are more than `most`.
    pub fn all(&self, most: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            match self.file.read_at(&mut piece, bytes.len() as u64) {
                Ok(0) => return Ok(Some(bytes)),
                Ok(length) => bytes.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if bytes.len() as u64 > most {
                return Ok(None);
            }
        }
    }

    fn has_byte(&self, offset: u64) -> io::Result<bool> {
        loop {
            match self.file.read_at(&mut [0], offset) {
                Ok(length) => return Ok(length > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What the file was when it was opened; before its first byte was read.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How many bytes of the file were read or known to be holes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether content or metadata changed since the file was opened.
    pub fn has_changed(&self) -> io::Result<bool> {
        Ok(changed(&self.stat, &os::stat_fd(&self.file)?) || self.offset != self.stat.size)
    }

    /// What follows: the length of a hole, which counts as read, or of a run of data, to be taken with `read`. `None` at the
    /// end. Two holes never touch.
    pub fn segment(&mut self) -> io::Result<Option<Segment>> {
        if self.offset >= self.end {
            return self.beyond();
        }
        let data = self.next_data()?;
        if data > self.offset && !self.after_hole {
            let length = data - self.offset;
            self.offset = data;
            self.after_hole = true;
            return Ok(Some(Segment::Hole(length)));
        }
        self.data_end = self.next_hole(self.offset)?;
        self.after_hole = false;
        Ok(Some(Segment::Data(self.data_end - self.offset)))
    }

    /// Reads from the run of data at hand. 0 means that the file ends here, before its time if the run was longer (the file
    /// was cut meanwhile).
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.data_end - self.offset).unwrap_or(usize::MAX));
        loop {
            match self.file.read_at(&mut buffer[..want], self.offset) {
                Ok(length) => {
                    self.offset += length as u64;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    // What follows the stated size: sizes are made up in /proc and /sys, and by file systems that make content on demand.
    fn beyond(&mut self) -> io::Result<Option<Segment>> {
        if self.goes_beyond() {
            let most = MAX_UNSTATED >> 20;
            return Err(io::Error::other(format!("it goes on for more than {most} MiB behind its stated size")));
        }
        if std::mem::replace(&mut self.end_is_known, true) {
            return Ok(None);
        }
        self.data_end = self.offset + 1;
        let more = self.read(&mut [0])?;
        self.offset -= more as u64;
        // One that has grown states another size by now; that is seen to by whoever compares the times.
        if more == 0 || os::stat_fd(&self.file)?.size != self.stat.size {
            return Ok(None);
        }
        self.end = self.offset + MAX_UNSTATED;
        (self.data_end, self.after_hole) = (self.end, false);
        Ok(Some(Segment::Data(MAX_UNSTATED)))
    }

    // Where data begins, at or behind `offset`; at most the file's size.
    fn next_data(&mut self) -> io::Result<u64> {
        if !self.sparse {
            return Ok(self.offset);
        }
        match os::seek_data(&self.file, self.offset) {
            Ok(found) => Ok(found.unwrap_or(self.end).clamp(self.offset, self.end)),
            Err(error) if is_unsupported(&error) => {
                self.sparse = false;
                Ok(self.offset)
            }
            Err(error) => Err(error),
        }
    }

    // Where data ends that begins at `start`; at least one byte further (a hole may have been punched meanwhile).
    fn next_hole(&mut self, start: u64) -> io::Result<u64> {
        if !self.sparse {
            return Ok(self.end);
        }
        match os::seek_hole(&self.file, start) {
            Ok(found) => Ok(found.unwrap_or(self.end).clamp(start + 1, self.end)),
            Err(error) if is_unsupported(&error) => {
                self.sparse = false;
                Ok(self.end)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY))
}

/// Whether a file changed between two looks: its size, or one of the times that change with content and metadata.
pub fn changed(before: &Stat, after: &Stat) -> bool {
    (before.size, before.mtime, before.ctime) != (after.size, after.mtime, after.ctime)
}

/// Looks at the regular file `item` again: programs save a file by renaming a new one over it, and that one is what counts.
/// Whatever is no regular file any more is left as it was seen. Errors: the system's; `NotFound` if nothing has the name.
pub fn look_again(item: &mut SourceItem) -> Result<()> {
    let Handle::In(dir) = &item.handle else { return Ok(()) };
    let stat = os::stat_at(dir, &item.name)
        .map_err(|error| Error::io(format!("\"{}\" cannot be examined", item.path.display()), error))?;
    if stat.kind == FileType::File {
        item.stat = stat;
    }
    Ok(())
}

/// The target of the symbolic link `item`, 1 to 4,095 bytes.
pub fn link_target(item: &SourceItem) -> Result<Vec<u8>> {
    let wrong = |error: io::Error| Error::io(format!("The link \"{}\" cannot be read", item.path.display()), error);
    let Handle::In(dir) = &item.handle else { return Err(wrong(io::ErrorKind::IsADirectory.into())) };
    let target = os::read_link_at(dir, &item.name).map_err(wrong)?;
    match target.len() {
        1..=4095 => Ok(target),
        _ => Err(wrong(io::Error::other("its target is empty or longer than 4,095 bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;

    fn item(dir: &Path, name: &str) -> SourceItem {
        let fd = OwnedFd::from(File::open(dir).unwrap());
        let stat = os::stat_at(&fd, name.as_bytes()).unwrap();
        let handle = Handle::In(Arc::new(fd));
        SourceItem { path: dir.join(name), name: name.into(), stat, handle, waypoint: false, named: false }
    }

    // All pieces, neighbouring data joined, and the bytes they stand for.
    fn read(content: &mut Content, buffer: usize) -> (Vec<(bool, u64)>, Vec<u8>) {
        let mut buffer = vec![0; buffer];
        let (mut map, mut bytes) = (Vec::<(bool, u64)>::new(), Vec::new());
        while let Some(segment) = content.segment().unwrap() {
            let (data, len) = match segment {
                Segment::Data(len) => (true, len),
                Segment::Hole(len) => (false, len),
            };
            match map.last_mut() {
                Some(last) if last.0 == data => {
                    assert!(data, "two holes touch");
                    last.1 += len;
                }
                _ => map.push((data, len)),
            }
            let end = bytes.len() + len as usize;
            if !data {
                bytes.resize(end, 0);
            }
            while bytes.len() < end {
                match content.read(&mut buffer).unwrap() {
                    0 => return (map, bytes),
                    len => bytes.extend(&buffer[..len]),
                }
            }
        }
        (map, bytes)
    }

    #[test]
    fn data_and_holes_exactly() {
        const K: u64 = 65_536;
        let dir = tempfile::tempdir().unwrap();
        let maps: [&[(bool, u64)]; 8] = [
            &[],
            &[(true, 5)],
            &[(true, 3 * K + 1)],
            &[(false, K)],
            &[(false, 1 << 30)],
            &[(false, 2 * K), (true, K)],
            &[(true, K), (false, K), (true, 2 * K), (false, 4096)],
            &[(false, K), (true, K), (false, 3 * K), (true, 77)],
        ];
        for (number, map) in maps.iter().enumerate() {
            let name = number.to_string();
            let file = File::create(dir.path().join(&name)).unwrap();
            file.set_len(map.iter().map(|run| run.1).sum()).unwrap();
            let mut offset = 0;
            for &(data, len) in *map {
                if data {
                    file.write_all_at(&vec![number as u8 + 1; len as usize], offset).unwrap();
                }
                offset += len;
            }
            file.sync_all().unwrap();
            let mut content = Content::open(&item(dir.path(), &name)).unwrap();
            if offset < 1 << 30 {
                let (found, bytes) = read(&mut content, 1000);
                assert_eq!(found, *map, "file {number}");
                assert!(bytes == std::fs::read(dir.path().join(&name)).unwrap(), "file {number}");
            } else {
                assert_eq!(content.segment().unwrap(), Some(Segment::Hole(1 << 30)));
                assert_eq!(content.segment().unwrap(), None);
            }
            assert_eq!(content.offset(), offset);
            assert!(!content.has_changed().unwrap());
        }
    }

    #[test]
    fn zeros_that_were_written_are_data() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), vec![0; 100_000]).unwrap();
        File::open(dir.path().join("f")).unwrap().sync_all().unwrap();
        let mut content = Content::open(&item(dir.path(), "f")).unwrap();
        assert_eq!(read(&mut content, 1 << 20).0, [(true, 100_000)]);
    }

    #[test]
    fn files_that_change_while_they_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [1; 5000]).unwrap();
        let mut grown = Content::open(&item(dir.path(), "f")).unwrap();
        std::fs::write(&path, [1; 9000]).unwrap();
        assert_eq!(read(&mut grown, 800).1.len(), 5000, "what it had when it was opened");
        assert!(grown.has_changed().unwrap());
        let mut cut = Content::open(&item(dir.path(), "f")).unwrap();
        std::fs::write(&path, [1; 100]).unwrap();
        assert_eq!(read(&mut cut, 800).1.len(), 100);
        assert_eq!(cut.offset(), 100);
        assert!(cut.has_changed().unwrap());
        let before = os::stat_fd(cut.file()).unwrap();
        assert!(!changed(&before, &before));
        let later = os::FileTime { nanos: before.ctime.nanos ^ 1, ..before.ctime };
        assert!(changed(&before, &Stat { ctime: later, ..before }));
        assert!(changed(&before, &Stat { mtime: later, ..before }));
        assert!(changed(&before, &Stat { size: 1, ..before }));
        assert!(!changed(&before, &Stat { uid: 77, ..before }), "the change time tells of owners");
    }

    #[test]
    fn what_replaced_a_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"old").unwrap();
        std::fs::write(dir.path().join("g"), b"new").unwrap();
        let seen = item(dir.path(), "f");
        std::fs::rename(dir.path().join("g"), dir.path().join("f")).unwrap();
        assert!(Content::open(&seen).unwrap_err().to_string().contains("was replaced"));
        let mut again = seen.clone();
        look_again(&mut again).unwrap();
        assert_eq!(read(&mut Content::open(&again).unwrap(), 100).1, b"new");
        std::fs::remove_file(dir.path().join("f")).unwrap();
        assert_eq!(Content::open(&seen).unwrap_err().kind(), ErrorKind::NotFound);
        os::symlink_at(b"/etc/passwd", os::CWD, dir.path().join("f").as_os_str().as_encoded_bytes()).unwrap();
        assert!(Content::open(&seen).is_err(), "links are not followed");
        look_again(&mut again).unwrap();
        assert!(Content::open(&again).is_err(), "not by the second look either");
        std::fs::remove_file(dir.path().join("f")).unwrap();
        // Opening a pipe for reading waits for a writer, unless one takes care.
        os::mkfifo_at(os::CWD, dir.path().join("f").as_os_str().as_encoded_bytes(), 0o600).unwrap();
        assert!(Content::open(&seen).is_err());
    }

    #[test]
    fn link_targets() {
        let dir = tempfile::tempdir().unwrap();
        let target = vec![b'/'; 4095];
        let fd = File::open(dir.path()).unwrap();
        os::symlink_at(&target, &fd, b"long").unwrap();
        os::symlink_at(b"\xff\n", &fd, b"odd").unwrap();
        assert_eq!(link_target(&item(dir.path(), "long")).unwrap(), target);
        assert_eq!(link_target(&item(dir.path(), "odd")).unwrap(), b"\xff\n");
        std::fs::write(dir.path().join("file"), b"").unwrap();
        assert!(link_target(&item(dir.path(), "file")).is_err());
    }

    #[test]
    fn what_follows_the_stated_size_is_read_unless_the_file_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "0123456789").unwrap();
        let file = File::open(dir.path().join("f")).unwrap();
        let stat = os::stat_fd(&file).unwrap();
        let mut grown = Content::new(file.try_clone().unwrap(), Stat { size: 4, ..stat });
        assert_eq!(read(&mut grown, 3).1, b"0123");
        let mut limited = Content::new(file, stat);
        limited.end_at(6);
        assert_eq!(read(&mut limited, 4).1, b"012345");
        let stated = File::open("/proc/sys/kernel/ostype").unwrap();
        let stat = os::stat_fd(&stated).unwrap();
        let mut content = Content::new(stated, stat);
        assert_eq!((stat.size, read(&mut content, 4096).1), (0, std::fs::read("/proc/sys/kernel/ostype").unwrap()));
        assert!(content.goes_beyond());
        // One that never ends is an error, not a full repository.
        let endless = File::open("/dev/zero").unwrap();
        let stat = Stat { size: 0, ..os::stat_fd(&endless).unwrap() };
        let mut content = Content::new(endless, stat);
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        let error = loop {
            match content.segment() {
                Ok(Some(Segment::Data(mut left))) => {
                    while left > 0 {
                        left -= content.read(&mut buffer).unwrap() as u64;
                    }
                    total = content.offset();
                }
                Ok(_) => panic!("it never ends"),
                Err(error) => break error,
            }
        };
        assert!(total == MAX_UNSTATED && error.to_string().contains("256 MiB"), "{error}");
    }
}
