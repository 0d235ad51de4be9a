//! Tests of reading single files: when they are read again, when they are remembered. Not for: whole backups.

use super::*;
use crate::backup::walk::Handle;
use crate::check::fixture;
use crate::chunk::secret::Secret;
use crate::os;
use crate::progress::Silent;
use crate::repository::writer::WriterOptions;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn item(dir: &Path, name: &str) -> SourceItem {
    let fd = OwnedFd::from(File::open(dir).unwrap());
    let stat = os::stat_at(&fd, name.as_bytes()).unwrap();
    let handle = Handle::In(Arc::new(fd));
    SourceItem { path: dir.join(name), name: name.into(), stat, handle, waypoint: false, named: false }
}

fn with_filer(test: impl FnOnce(&mut Filer<'_>)) {
    let repository = fixture::open(Arc::new(fixture::repository().0));
    let options = WriterOptions { level: 1, threads: 1, dry_run: true };
    let writer = Writer::begin(&repository, options, &Silent).unwrap();
    let (reader, stop) = (Reader::new(Secret::from_bytes(&[0; 32])), Stop::new());
    let mut filer = Filer {
        writer: &writer,
        assembler: Assembler::new(&writer),
        reader: &reader,
        chunks: Chunks::new(Arc::new(repository.splitter())),
        force: false,
        trust_mtime: false,
        progress: &Silent,
        stop: &stop,
        troubles: Vec::new(),
        clocks: Clocks::default(),
        timeless: None,
    };
    test(&mut filer);
    drop(filer);
    writer.abandon().unwrap();
}

fn remembered(item: &SourceItem, content: &[u8]) -> CachedFile {
    CachedFile {
        name: item.name.clone(),
        size: item.stat.size,
        mtime: timestamp(item.stat.mtime),
        ctime: timestamp(item.stat.ctime),
        inode: item.stat.ino,
        content: Content::Inline(content.to_vec()),
        blocks: Some(77),
        flags: 0x80_0080,
    }
}

fn inline(done: &Done) -> &[u8] {
    match &done.entry.body {
        Body::File { content: Content::Inline(bytes), .. } => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_remembered_is_not_read_again_and_keeps_all_its_flags() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), b"true").unwrap();
    let item = item(dir.path(), "f");
    with_filer(|filer| {
        let known = || Known::Cached(Box::new(remembered(&item, b"kept")));
        let done = filer.item(&item, known()).unwrap().unwrap();
        assert_eq!((inline(&done), done.change), (&b"kept"[..], Some(Compared::Unchanged)));
        assert_eq!((done.entry.meta.flags, done.entry.meta.blocks), (0x80_0080, Some(77)));
        assert_eq!(done.cached.unwrap().flags, 0x80_0080);
        filer.force = true;
        let done = filer.item(&item, known()).unwrap().unwrap();
        assert_eq!((inline(&done), done.entry.meta.flags), (&b"true"[..], item.stat.flags & os::KEPT_FLAGS));
        assert!(done.cached.is_none(), "it is too young");
        assert!(filer.troubles.is_empty());
    });
}

#[test]
fn a_file_that_was_saved_by_renaming_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name| dir.path().join(name);
    fs::write(path("f"), b"old").unwrap();
    let seen = item(dir.path(), "f");
    fs::write(path("new"), b"saved").unwrap();
    fs::rename(path("new"), path("f")).unwrap();
    with_filer(|filer| {
        let done = filer.item(&seen, Known::Nothing).unwrap().unwrap();
        assert_eq!(inline(&done), b"saved");
        assert!(filer.troubles.is_empty() && !done.entry.meta.unreliable);
        fs::remove_file(path("f")).unwrap();
        fs::create_dir(path("f")).unwrap();
        assert!(filer.item(&seen, Known::Nothing).unwrap().is_none());
        assert_eq!(filer.troubles.pop().unwrap().kind, IssueKind::Unreadable);
        fs::remove_dir(path("f")).unwrap();
        assert!(filer.item(&seen, Known::Nothing).unwrap().is_none());
        assert_eq!(filer.troubles.pop().unwrap().kind, IssueKind::Vanished);
        assert!(filer.troubles.is_empty());
    });
}

#[test]
fn the_files_cache_holds_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let stat = os::stat_fd(File::open(dir.path()).unwrap()).unwrap();
    let private = |content, mode| is_private(&content, &Stat { mode, ..stat });
    let inline = || Content::Inline(b"password".to_vec());
    assert!(private(inline(), 0o600) && private(inline(), 0o4700) && private(inline(), 0));
    assert!(!private(inline(), 0o640) && !private(inline(), 0o604) && !private(Content::Inline(Vec::new()), 0o600));
    assert!(!private(Content::Extents(Vec::new()), 0o600));
}

/// A writer in a process of its own that has a file mapped and stores into it at a word.
struct Mapped {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Mapped {
    fn new(path: &Path) -> Mapped {
        let script = "import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 0)\n\
            for line in sys.stdin:\n    a, b, c = line.split()\n    m[int(a):int(b)] = c.encode() * (int(b) - int(a))\n    \
            print(flush=True)\n";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Mapped { process, said }
    }

    /// Returns once the bytes are there.
    fn store(&mut self, from: usize, to: usize, byte: char) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{from} {to} {byte}").unwrap();
        let mut line = String::new();
        assert_eq!(self.said.read_line(&mut line).unwrap(), 1);
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

#[test]
fn a_file_that_changes_without_a_trace_is_read_until_it_keeps_still() {
    const LEN: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), [b'-'; LEN]).unwrap();
    let mut writer = Mapped::new(&dir.path().join("f"));
    // The page is dirty: what is stored into it from now on leaves no trace in the file's times.
    writer.store(0, LEN, 'a');
    with_filer(|filer| {
        writer.store(0, 50, 'b');
        let mut done = filer.item(&item(dir.path(), "f"), Known::Nothing).unwrap().unwrap();
        assert_eq!(inline(&done), [[b'b'; 50], [b'a'; 50]].concat(), "half of it is new");
        let doubt = done.doubt.take().expect("somebody has it open");
        writer.store(50, LEN, 'b');
        let Resolved::Different(Some(mut again)) = filer.resolve(&doubt, &done.entry, false).unwrap() else {
            panic!("the second half changed")
        };
        assert_eq!(inline(&again), [b'b'; LEN]);
        let doubt = again.doubt.take().expect("still open");
        assert!(matches!(filer.resolve(&doubt, &again.entry, true).unwrap(), Resolved::Same));
        writer.store(99, LEN, 'c');
        assert!(matches!(filer.resolve(&doubt, &again.entry, true).unwrap(), Resolved::Different(None)));
        assert!(filer.troubles.is_empty());
        filer.give_up(&doubt, &mut again.entry);
        assert!(again.entry.meta.unreliable && filer.troubles.pop().unwrap().kind == IssueKind::Changed);
        writer.end();
        let done = filer.item(&item(dir.path(), "f"), Known::Nothing).unwrap().unwrap();
        assert!(done.doubt.is_none(), "nobody has it open, and it is as it was before it was opened");
    });
}

#[test]
fn a_doubtful_file_that_grows_is_kept_as_it_was_and_one_that_is_replaced_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "line 1\n").unwrap();
    let mut log = File::options().append(true).open(&path).unwrap();
    with_filer(|filer| {
        let mut done = filer.item(&item(dir.path(), "f"), Known::Nothing).unwrap().unwrap();
        let doubt = done.doubt.take().expect("it is open for writing");
        log.write_all(b"line 2\n").unwrap();
        assert!(matches!(filer.resolve(&doubt, &done.entry, true).unwrap(), Resolved::Same));
        fs::write(dir.path().join("g"), "other\n").unwrap();
        fs::rename(dir.path().join("g"), &path).unwrap();
        let Resolved::Different(Some(again)) = filer.resolve(&doubt, &done.entry, false).unwrap() else { panic!() };
        assert!(inline(&again) == b"other\n" && again.doubt.is_none());
        fs::remove_file(&path).unwrap();
        assert!(matches!(filer.resolve(&doubt, &done.entry, false).unwrap(), Resolved::Different(None)));
        assert!(filer.troubles.is_empty());
    });
}

#[test]
fn a_stated_size_of_nothing_is_not_believed() {
    for (dir, name) in [("/proc/sys/kernel", "ostype"), ("/sys/devices/system/cpu", "possible")] {
        let expected = fs::read(Path::new(dir).join(name)).unwrap();
        with_filer(|filer| {
            let item = item(Path::new(dir), name);
            assert_ne!(item.stat.size, expected.len() as u64, "{name}");
            let done = filer.item(&item, Known::Nothing).unwrap().unwrap();
            assert_eq!(inline(&done), expected, "{name}");
            let Body::File { size, .. } = done.entry.body else { panic!() };
            assert!(size == expected.len() as u64 && !done.entry.meta.unreliable && done.cached.is_none());
            assert!(filer.troubles.is_empty(), "{name}");
            // What was remembered of it as empty, as its stated size has it, is not believed either.
            let cached = CachedFile { size: item.stat.size, ..remembered(&item, b"") };
            let done = filer.item(&item, Known::Cached(Box::new(cached))).unwrap().unwrap();
            assert!(item.stat.size > 0 || inline(&done) == expected, "{name}");
        });
    }
}
