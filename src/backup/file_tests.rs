//! Tests of reading single files: when they are read again, when they are remembered. Not for: whole backups.

use super::*;
use crate::backup::walk::Handle;
use crate::check::fixture;
use crate::chunk::secret::Secret;
use crate::os::{self, FileTime};
use crate::progress::Silent;
use crate::repository::writer::WriterOptions;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::UNIX_EPOCH;

fn item(dir: &Path, name: &str) -> SourceItem {
    let fd = OwnedFd::from(File::open(dir).unwrap());
    let stat = os::stat_at(&fd, name.as_bytes()).unwrap();
    let handle = Handle::In(Arc::new(fd));
    SourceItem { path: dir.join(name), name: name.into(), stat, handle, waypoint: false }
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
        progress: &Silent,
        stop: &stop,
        troubles: Vec::new(),
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
        assert_eq!((inline(&done), done.change), (&b"kept"[..], Some(Change::Unmodified)));
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
fn what_changed_within_the_last_minute_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let stat = os::stat_fd(std::fs::File::open(dir.path()).unwrap()).unwrap();
    let racy = |seconds, nanos| is_racy(&Stat { ctime: FileTime { seconds, nanos }, ..stat }, begun, YOUNG);
    assert!(!racy(-5, 0) && !racy(999_000, 0) && !racy(999_940, 0));
    assert!(racy(999_940, 1) && racy(999_965, 0), "a page that is dirty takes further stores without a trace");
    assert!(racy(1_000_000, 0) && racy(1_000_000, 1) && racy(2_000_000, 0), "the clock of a server may be ahead");
    assert!(is_racy(&stat, SystemTime::UNIX_EPOCH - Duration::from_secs(1), YOUNG));
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

#[test]
fn a_kernel_that_writes_late_makes_files_stay_young_for_longer() {
    assert_eq!(young_for([3000, 500]), YOUNG);
    assert_eq!(young_for([0, 0]), YOUNG);
    assert_eq!(young_for([6000, 6000]), Duration::from_secs(180));
    assert!(young_for([u32::MAX, u32::MAX]) > YOUNG);
    assert!(young() >= YOUNG);
}

#[test]
fn a_file_that_was_just_changed_is_given_a_tick() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "text").unwrap();
    let mut stat = stat_fd(std::fs::File::open(path).unwrap()).unwrap();
    let time = |seconds: i64, nanos: u32| crate::os::FileTime { seconds, nanos };
    let now = UNIX_EPOCH + Duration::from_millis(1_000_000_500);
    let tick = Some(Duration::from_millis(50));
    // Changed 30 ms ago, 60 ms ago, and by a clock that is ahead.
    for (millis, wait) in [(470, tick), (440, None), (900, tick)] {
        stat.ctime = time(1_000_000, millis * 1_000_000);
        assert_eq!(time_to_settle(&stat, now), wait, "{millis}");
    }
    (stat.ctime, stat.mtime) = (time(999_999, 0), time(999_999, 0));
    assert_eq!(time_to_settle(&stat, now), Some(Duration::from_secs(2)), "whole seconds");
    stat.ctime = time(1_000_100, 5);
    assert_eq!(time_to_settle(&stat, now), None, "a clock that was set back");
    stat.ctime = time(1_000_000, 490_000_000);
    stat.size = 0;
    assert_eq!(time_to_settle(&stat, now), None, "empty");
}
