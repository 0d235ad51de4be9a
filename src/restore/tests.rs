//! Restores of what was recorded: every kind of thing, its metadata, and what is there already. Not for: hostile targets
//! and damaged repositories (see `tests_hostile`).

use super::batch::Limits;
use super::*;
use crate::chunk::password::Cost;
use crate::format::message::ChunkKind;
use crate::format::page_builder::LeafBuilder;
use crate::format::tree::*;
use crate::id::{ChunkId, SessionId, WriterId};
use crate::os::{self, FileTime, FileType};
use crate::repository::assemble::{Assembler, Group};
use crate::repository::keys::Credentials;
use crate::repository::tree::{ContentBuilder, DirectoryBuilder, PageCut};
use crate::repository::writer::{Writer, WriterOptions};
use crate::repository::{CacheChoice, OpenOptions};
use crate::store::{MemoryStore, RecordingStore};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A repository in memory that counts, a snapshot, and an empty folder to restore into.
pub(super) struct Fixture {
    pub(super) store: Arc<RecordingStore<MemoryStore>>,
    pub(super) repository: Arc<Repository>,
    pub(super) snapshot: Snapshot,
    pub(super) folder: tempfile::TempDir,
}

/// Something to be recorded.
pub(super) struct Thing {
    name: &'static str,
    pub(super) meta: Metadata,
    what: What,
}

enum What {
    Directory(Vec<Thing>),
    Pieces(Vec<Piece>),
    Other(Body),
}

/// A part of a file.
pub(super) enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

/// Bytes that do not compress, the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn meta(mode: u16, seconds: i64) -> Metadata {
    Metadata {
        mode,
        owner: Arc::new(Owner {
            uid: os::user_id(),
            gid: rustix::process::getegid().as_raw(),
            user: vec![],
            group: vec![],
        }),
        mtime: Timestamp { seconds, nanos: 123_456_789 },
        btime: None,
        attributes: None,
        link: None,
        blocks: None,
        flags: 0,
        waypoint: false,
        unreliable: false,
    }
}

pub(super) fn file(name: &'static str, pieces: Vec<Piece>) -> Thing {
    Thing { name, meta: meta(0o640, 1_000_000), what: What::Pieces(pieces) }
}

pub(super) fn text(name: &'static str, text: &str) -> Thing {
    let content = Content::Inline(text.as_bytes().to_vec());
    other(name, Body::File { size: text.len() as u64, content })
}

pub(super) fn dir(name: &'static str, things: Vec<Thing>) -> Thing {
    Thing { name, meta: meta(0o750, 2_000_000), what: What::Directory(things) }
}

pub(super) fn other(name: &'static str, body: Body) -> Thing {
    Thing { name, meta: meta(0o644, 1_500_000), what: What::Other(body) }
}

impl Thing {
    pub(super) fn with(mut self, change: impl FnOnce(&mut Metadata)) -> Thing {
        change(&mut self.meta);
        self
    }
}

fn record(thing: &Thing, cut: &PageCut, out: &mut Assembler<'_>) -> Entry {
    let body = match &thing.what {
        What::Other(body) => body.clone(),
        What::Directory(things) => {
            let (page, totals) = record_all(things, cut, out);
            Body::Directory { size: 4096, page, totals }
        }
        What::Pieces(pieces) => {
            let (mut builder, mut size) = (ContentBuilder::default(), 0);
            for piece in pieces {
                let extent = match piece {
                    Piece::Hole(length) => Extent::Hole(*length),
                    Piece::Data(bytes) => {
                        let (id, _) = out.add(ChunkKind::Content, Group::Owner(0), bytes).unwrap();
                        Extent::Chunk { id, len: bytes.len() as u32 }
                    }
                };
                size += extent.len();
                builder.push(extent, out).unwrap();
            }
            Body::File { size, content: builder.finish(out).unwrap() }
        }
    };
    Entry { name: thing.name.as_bytes().to_vec(), meta: thing.meta.clone(), body }
}

fn record_all(things: &[Thing], cut: &PageCut, out: &mut Assembler<'_>) -> (ChunkId, Totals) {
    let mut entries: Vec<Entry> = things.iter().map(|thing| record(thing, cut, out)).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut builder = DirectoryBuilder::default();
    for entry in &entries {
        builder.push(entry, cut, out).unwrap();
    }
    builder.finish(cut, out).unwrap()
}

fn snapshot_of(tree: ChunkId, totals: Totals) -> Snapshot {
    Snapshot::of_tests((WriterId([1; 16]), SessionId([1; 16])), jiff::Timestamp::now(), tree, totals)
}

impl Fixture {
    pub(super) fn new(things: Vec<Thing>) -> Fixture {
        Fixture::changed(things, |_| {})
    }

    /// As `new`, with a root directory that says something else about what it holds.
    pub(super) fn changed(things: Vec<Thing>, change: impl FnOnce(&mut Totals)) -> Fixture {
        let store = Arc::new(RecordingStore::with_log(MemoryStore::new()));
        let credentials = || Credentials { password: Some(b"word".to_vec().into()), key_file: None };
        let cost = Cost { memory: 8, passes: 1, lanes: 1 };
        Repository::init(store.as_ref(), &credentials(), cost, "test").unwrap();
        let options = OpenOptions { cache: CacheChoice::None, block_cache: 8 << 20 };
        let repository = Arc::new(Repository::open(store.clone(), &credentials(), &options).unwrap());
        let options = WriterOptions { level: 1, threads: 1, dry_run: false };
        let writer = Writer::begin(&repository, options, &crate::progress::Silent).unwrap();
        let cut = PageCut::new(repository.keyring());
        let mut out = Assembler::new(&writer);
        let (page, mut totals) = record_all(&things, &cut, &mut out);
        change(&mut totals);
        let root =
            Entry { name: b"root".to_vec(), meta: meta(0o755, 9), body: Body::Directory { size: 0, page, totals } };
        let mut leaf = LeafBuilder::new();
        leaf.push(&root).unwrap();
        let (tree, _) = out.add(ChunkKind::Tree, Group::Metadata, &leaf.finish().bytes).unwrap();
        out.flush().unwrap();
        drop(out);
        let (_, snapshot, _) = writer.commit(|_| snapshot_of(tree, totals)).unwrap();
        repository.reload_index(&crate::progress::Silent).unwrap();
        Fixture { store, repository, snapshot, folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(super) fn options(&self) -> RestoreOptions {
        RestoreOptions {
            target: self.at("target"),
            overwrite: Overwrite::IfChanged,
            include: vec![],
            exclude: vec![],
            dry_run: false,
            verify: true,
            threads: 2,
        }
    }

    pub(super) fn restore(&self, path: &str, options: &RestoreOptions) -> (RestoreReport, Vec<String>) {
        let heard = Heard::default();
        let report = run(&self.repository, &self.snapshot, path.as_bytes(), options, &heard, &Stop::new()).unwrap();
        self.assert_clean();
        let issues = heard.0.into_inner().unwrap();
        assert_eq!(report.issues, issues.len() as u64, "{issues:?}");
        (report, issues)
    }

    /// Restores all; nothing may go wrong.
    pub(super) fn restore_all(&self, options: &RestoreOptions) -> RestoreReport {
        let (report, issues) = self.restore("", options);
        assert_eq!(issues, [""; 0]);
        report
    }

    /// No temporary file is left anywhere.
    pub(super) fn assert_clean(&self) {
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
                assert!(!entry.file_name().to_string_lossy().contains(".partial"), "{:?}", entry.path());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
    }
}

/// Keeps the issues.
#[derive(Default)]
pub(super) struct Heard(pub(super) Mutex<Vec<String>>);

impl Progress for Heard {
    fn issue(&self, path: &Path, error: &Error) {
        self.0.lock().unwrap().push(format!("{}: {:?}: {}", path.display(), error.kind(), error.chain()));
    }
}

pub(super) fn linked(group: u64) -> impl FnOnce(&mut Metadata) {
    move |meta| meta.link = Some(HardLink { group, links: 2 })
}

fn stat(path: &Path) -> os::Stat {
    os::stat_at(os::CWD, path.as_os_str().as_encoded_bytes()).unwrap()
}

fn seconds(path: &Path) -> i64 {
    stat(path).mtime.seconds
}

#[test]
fn everything_comes_back_with_its_metadata() {
    let attributes = AttributeSet(vec![(b"user.colour".to_vec(), b"blue".to_vec())]);
    let fixture = Fixture::new(vec![
        dir(
            "home",
            vec![
                file(
                    "large",
                    vec![Piece::Data(noise(1, 300_000)), Piece::Data(noise(2, 200_000)), Piece::Data(vec![7; 10])],
                )
                .with(|meta| meta.mode = 0o4751),
                text("small", "hello").with(|meta| meta.attributes = Some(Arc::new(Attributes::Inline(attributes)))),
                file("empty", vec![]),
                other("link", Body::Symlink(b"../nowhere".to_vec())),
                other("pipe", Body::Fifo),
                other("socket", Body::Socket),
                dir("closed", vec![text("inside", "x")]).with(|meta| meta.mode = 0o500),
            ],
        )
        .with(|meta| meta.mtime.seconds = -77),
        other("null", Body::CharDevice { major: 1, minor: 3 }),
    ]);
    let report = fixture.restore_all(&fixture.options());
    let target = |path: &str| fixture.at("target").join(path);
    let large = [noise(1, 300_000), noise(2, 200_000), vec![7; 10]].concat();
    assert_eq!(fs::read(target("home/large")).unwrap(), large);
    assert_eq!(fs::read(target("home/small")).unwrap(), b"hello");
    assert_eq!(fs::read(target("home/empty")).unwrap(), b"");
    assert_eq!(fs::read_link(target("home/link")).unwrap(), Path::new("../nowhere"));
    assert_eq!(stat(&target("home/pipe")).kind, FileType::Fifo);
    assert_eq!(stat(&target("home/socket")).kind, FileType::Socket);
    let found = stat(&target("home/large"));
    assert_eq!((found.mode, found.mtime), (0o4751, FileTime { seconds: 1_000_000, nanos: 123_456_789 }));
    for (path, mode, time) in [
        ("home", 0o750, -77),
        ("home/closed", 0o500, 2_000_000),
        ("home/closed/inside", 0o644, 1_500_000),
        ("home/pipe", 0o644, 1_500_000),
        ("", 0o755, 9),
    ] {
        assert_eq!((stat(&target(path)).mode, seconds(&target(path))), (mode, time), "{path}");
    }
    assert_eq!(seconds(&target("home/link")), 1_500_000);
    let small = fs::File::open(target("home/small")).unwrap();
    assert_eq!(os::get_xattr(&small, b"user.colour").unwrap().unwrap(), b"blue");
    let devices = u64::from(os::is_root());
    if os::is_root() {
        assert_eq!(stat(&target("null")).rdev, (1, 3));
    }
    let expected = RestoreReport {
        files: 4,
        directories: 3,
        others: 3 + devices,
        bytes: 500_010 + 5 + 1,
        skipped: 1 - devices,
        verified: 4,
        elapsed: report.elapsed,
        ..RestoreReport::default()
    };
    assert_eq!(report, expected);
}

#[test]
fn owners_need_root() {
    let strange = Arc::new(Owner { uid: 4242, gid: 4343, user: vec![], group: vec![] });
    let set = |meta: &mut Metadata| (meta.mode, meta.owner) = (0o6755, strange);
    let fixture = Fixture::new(vec![file("f", vec![Piece::Data(vec![1])]).with(set)]);
    fixture.restore_all(&fixture.options());
    let found = stat(&fixture.at("target/f"));
    match os::is_root() {
        true => assert_eq!((found.uid, found.gid, found.mode), (4242, 4343, 0o6755)),
        false => assert_eq!((found.uid, found.mode), (os::user_id(), 0o755), "no set-user-ID for the wrong user"),
    }
}

#[test]
fn holes_stay_holes() {
    let hole = 64 << 20;
    let pieces = vec![Piece::Hole(hole), Piece::Data(noise(1, 4096)), Piece::Hole(hole)];
    let fixture = Fixture::new(vec![file("sparse", pieces), file("nothing", vec![Piece::Hole(1 << 40)])]);
    let report = fixture.restore_all(&fixture.options());
    let found = fs::metadata(fixture.at("target/sparse")).unwrap();
    assert_eq!(found.len(), 2 * hole + 4096);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
    assert_eq!(fs::metadata(fixture.at("target/nothing")).unwrap().len(), 1 << 40);
    assert_eq!((report.bytes, report.verified), (4096, 2));
}

#[test]
fn names_of_one_file_are_one_file() {
    let data = || vec![Piece::Data(noise(3, 200_000))];
    let flagged = |meta: &mut Metadata| (meta.link, meta.flags) = (Some(HardLink { group: 9, links: 2 }), 0x10);
    let fixture = Fixture::new(vec![
        dir("a", vec![file("one", data()).with(linked(5)), file("hard", data()).with(flagged)]),
        dir("b", vec![file("two", data()).with(linked(5)), file("soft", data()).with(flagged)]),
        other("p", Body::Fifo).with(linked(6)),
        other("q", Body::Fifo).with(linked(6)),
    ]);
    let report = fixture.restore_all(&fixture.options());
    for (one, two) in [("a/one", "b/two"), ("a/hard", "b/soft"), ("p", "q")] {
        let one = stat(&fixture.at("target").join(one));
        let two = stat(&fixture.at("target").join(two));
        assert!(one.same_file(&two) && one.nlink == 2);
    }
    // So that the folder can be removed.
    if let Ok(file) = fs::File::open(fixture.at("target/a/hard")) {
        drop(os::set_file_flags(&file, 0));
    }
    assert_eq!((report.files, report.others, report.hard_links), (2, 1, 3));
    let times = (seconds(&fixture.at("target/a")), seconds(&fixture.at("target/b")));
    assert_eq!(times, (2_000_000, 2_000_000), "directories are finished after links");
    let mut again = fixture.options();
    assert_eq!(fixture.restore_all(&again).skipped, 6, "all is there");
    again.exclude = vec!["/a/one".into()];
    again.target = fixture.at("part");
    fixture.restore_all(&again);
    assert_eq!(fs::read(fixture.at("part/b/two")).unwrap(), noise(3, 200_000));
    let file = fs::File::open(fixture.at("part/a/hard")).unwrap();
    drop(os::set_file_flags(&file, 0));
}

#[test]
fn what_exists_is_treated_as_asked() {
    let fixture = Fixture::new(vec![
        dir("d", vec![text("same", "12345"), text("other", "12345"), text("new", "12345")]),
        other("link", Body::Symlink(b"x".to_vec())),
    ]);
    let plant = |overwrite| {
        drop(fs::remove_dir_all(fixture.at("target")));
        fs::create_dir_all(fixture.at("target/d")).unwrap();
        fs::write(fixture.at("target/d/same"), "ABCDE").unwrap();
        let file = fs::File::open(fixture.at("target/d/same")).unwrap();
        os::set_times_fd(&file, FileTime { seconds: 1_500_000, nanos: 123_456_789 }).unwrap();
        fs::write(fixture.at("target/d/other"), "ABCDE").unwrap();
        fs::write(fixture.at("target/link"), "a file").unwrap();
        let report = fixture.restore_all(&RestoreOptions { overwrite, verify: false, ..fixture.options() });
        let read = |name: &str| fs::read_to_string(fixture.at("target").join(name)).unwrap();
        let is_link = fixture.at("target/link").is_symlink();
        let mode = stat(&fixture.at("target/d")).mode;
        (report.skipped, [read("d/same"), read("d/other"), read("d/new")], is_link, mode == 0o750)
    };
    let [old, new] = ["ABCDE", "12345"].map(str::to_owned);
    assert_eq!(plant(Overwrite::Always), (0, [new.clone(), new.clone(), new.clone()], true, true));
    assert_eq!(plant(Overwrite::IfChanged), (1, [old.clone(), new.clone(), new.clone()], true, true));
    assert_eq!(plant(Overwrite::Never), (3, [old.clone(), old, new], false, false));
}

#[test]
fn a_kept_file_is_not_linked_to_as_if_it_were_the_recorded_one() {
    let data = || vec![Piece::Data(noise(3, 2000))];
    let fixture = Fixture::new(vec![file("a", data()).with(linked(1)), file("b", data()).with(linked(1))]);
    fs::create_dir(fixture.at("target")).unwrap();
    fs::write(fixture.at("target/a"), "mine").unwrap();
    let never = RestoreOptions { overwrite: Overwrite::Never, ..fixture.options() };
    assert_eq!(fixture.restore("", &never).0.mismatched, 1);
    assert_eq!(fs::read(fixture.at("target/a")).unwrap(), b"mine");
    assert_eq!(fs::read(fixture.at("target/b")).unwrap(), noise(3, 2000));
}

#[test]
fn parts_of_a_snapshot() {
    let fixture = Fixture::new(vec![dir(
        "home",
        vec![
            dir("me", vec![text("a.txt", "1"), text("b.jpg", "2"), dir("sub", vec![text("c.txt", "3")])]),
            dir("you", vec![text("d.jpg", "4")]),
        ],
    )]);
    let restore = |path: &str, include: &[&str], exclude: &[&str]| {
        drop(fs::remove_dir_all(fixture.at("target")));
        let options = RestoreOptions {
            include: include.iter().map(|text| text.to_string()).collect(),
            exclude: exclude.iter().map(|text| text.to_string()).collect(),
            ..fixture.options()
        };
        let (_, issues) = fixture.restore(path, &options);
        assert_eq!(issues, [""; 0]);
        let mut found = Vec::new();
        let mut folders = vec![fixture.at("target")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                found.push(entry.strip_prefix(fixture.at("target")).unwrap().display().to_string());
                if entry.is_dir() {
                    folders.push(entry);
                }
            }
        }
        found.sort();
        found.join(" ")
    };
    assert_eq!(restore("/home/me", &[], &[]), "a.txt b.jpg sub sub/c.txt");
    assert_eq!(restore("/home/me/sub/c.txt", &[], &[]), "c.txt");
    assert_eq!(restore("", &["*.jpg"], &[]), "home home/me home/me/b.jpg home/you home/you/d.jpg");
    assert_eq!(restore("", &["/home/me/sub"], &[]), "home home/me home/me/sub home/me/sub/c.txt");
    assert_eq!(seconds(&fixture.at("target/home/me")), 2_000_000, "also of folders on the way");
    assert_eq!(restore("", &["*.txt"], &["sub"]), "home home/me home/me/a.txt");
    assert_eq!(restore("/home", &[], &["/home/me"]), "you you/d.jpg");
    assert_eq!(restore("/home/me", &["/home/me/a.txt"], &[]), "a.txt");
    let missing =
        run(&fixture.repository, &fixture.snapshot, b"/none", &fixture.options(), &Heard::default(), &Stop::new());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let bad = RestoreOptions { include: vec!["[".into()], ..fixture.options() };
    let bad = run(&fixture.repository, &fixture.snapshot, b"", &bad, &Heard::default(), &Stop::new());
    assert_eq!(bad.unwrap_err().kind(), ErrorKind::Input);
}

#[test]
fn a_dry_run_counts_and_touches_nothing() {
    let fixture = Fixture::new(vec![
        dir("d", vec![file("f", vec![Piece::Data(noise(1, 1000))]).with(linked(2)), text("t", "x")]),
        file("g", vec![Piece::Data(noise(1, 1000))]).with(linked(2)),
        other("l", Body::Symlink(b"x".to_vec())),
    ]);
    let dry = RestoreOptions { dry_run: true, verify: false, ..fixture.options() };
    let foreseen = fixture.restore_all(&dry);
    assert!(!fixture.at("target").exists());
    let done = fixture.restore_all(&RestoreOptions { verify: false, ..fixture.options() });
    assert_eq!(RestoreReport { elapsed: done.elapsed, ..foreseen }, done);
    let again = fixture.restore_all(&dry);
    assert_eq!((again.files, again.skipped, again.bytes), (0, 3, 0), "a dry run sees what is there");
}

#[test]
fn small_batches_and_few_handles_give_the_same() {
    let pieces = |seed: u64| (0..50).map(move |n| Piece::Data(noise(seed * 100 + n, 3000))).collect::<Vec<_>>();
    let fixture = Fixture::new(vec![
        dir(
            "a",
            vec![file("long", pieces(1)).with(linked(1)), dir("b", vec![file("longer", pieces(2)), text("t", "t")])],
        ),
        dir("c", vec![file("again", pieces(1)).with(linked(1)), file("same", pieces(2))]),
        file("last", vec![Piece::Data(noise(100, 3000)), Piece::Hole(5000)]),
    ]);
    let content = |seed: u64| (0..50).flat_map(|n| noise(seed * 100 + n, 3000)).collect::<Vec<u8>>();
    for (chunks, items) in [(1, 1000), (7, 2), (50, 1000), (1000, 1)] {
        let limits = Limits { chunks, items, weight: 1 << 20, open_files: 1 };
        let options = RestoreOptions { target: fixture.at(&format!("target-{chunks}")), ..fixture.options() };
        let (heard, stop) = (Heard::default(), Stop::new());
        let report = run_within(&fixture.repository, &fixture.snapshot, b"", &options, &heard, &stop, limits).unwrap();
        fixture.assert_clean();
        assert_eq!((report.issues, report.files, report.verified, report.hard_links), (0, 5, 5, 1));
        for (path, seed) in [("a/long", 1), ("a/b/longer", 2), ("c/again", 1), ("c/same", 2)] {
            assert!(fs::read(options.target.join(path)).unwrap() == content(seed), "{path}");
        }
        for path in ["a", "a/b", "c"] {
            assert_eq!(seconds(&options.target.join(path)), 2_000_000, "{path}");
        }
    }
}
