//! A repository of very many chunks, of which only the metadata exists, and what checking it takes. Not for: finding damage.
//!
//! Run by hand: `FIRN_SCALE=10000000 cargo test --lib -- --ignored --nocapture check::scale`.

use super::*;
use crate::chunk::password::Cost;
use crate::format::header::Kind;
use crate::format::index::{PackRecord, Segment};
use crate::format::tree::{Body, Content, Extent};
use crate::id::ChunkId;
use crate::progress::Silent;
use crate::prune::PruneOptions;
use crate::repository::assemble::Assembler;
use crate::repository::keyring::object_name;
use crate::repository::tree::{DirectoryBuilder, PageCut};
use crate::repository::writer::{Writer, WriterOptions};
use crate::repository::{CacheChoice, OpenOptions};
use crate::store::{Layer, Listed, LocalStore, Store};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Chunks in a pack, each in a block of its own.
const PER_PACK: u64 = 32;
const CHUNK: u32 = 1_000_000;
const FRAME: u32 = CHUNK + 56;
const PACK: u64 = 96 + PER_PACK * FRAME as u64 + 4096;

/// Data packs are only said to be there.
#[derive(Debug)]
struct Vast(LocalStore, u64);

fn pack_name(number: u64) -> ObjectName {
    ObjectName(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn chunk_id(number: u64) -> ChunkId {
    ChunkId(*blake3::Hasher::new().update(b"chunk").update(&number.to_le_bytes()).finalize().as_bytes())
}

impl Layer for Vast {
    fn below(&self) -> &dyn Store {
        &self.0
    }

    fn list(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        if kind != ObjectKind::Data {
            return self.0.list(kind, visit);
        }
        (0..self.1).try_for_each(|number| {
            visit(Listed { name: pack_name(number).to_string(), size: PACK, stored: SystemTime::UNIX_EPOCH, mark: 0 })
        })
    }

    fn list_fresh(&self, kind: ObjectKind, visit: &mut dyn FnMut(Listed) -> Result<()>) -> Result<()> {
        Layer::list(self, kind, visit)
    }
}

fn vast(folder: &Path, chunks: u64) -> Arc<Repository> {
    let store = Arc::new(Vast(LocalStore::open(&folder.join("repository")).unwrap(), chunks / PER_PACK));
    let options = OpenOptions { cache: CacheChoice::Root(folder.join("cache")), block_cache: 96 << 20 };
    Arc::new(Repository::open(store, &fixture::credentials("one"), &options).unwrap())
}

/// Writes index segments of all chunks, and a tree of files of 32 chunks each, 1,000 to a folder.
fn make(folder: &Path, chunks: u64) {
    let path = folder.join("repository");
    let store = LocalStore::create(&path).unwrap();
    Repository::init(&store, &fixture::credentials("one"), Cost::DEFAULT, "one").unwrap();
    let repository = vast(folder, chunks);
    for part in (0..chunks / PER_PACK).collect::<Vec<_>>().chunks(3000) {
        let mut segment = Segment::default();
        let mut numbers = part.to_vec();
        numbers.sort_by_key(|number| pack_name(*number));
        for (at, number) in numbers.iter().enumerate() {
            let frames = vec![FRAME; PER_PACK as usize];
            segment.packs.push(PackRecord {
                name: pack_name(*number),
                is_tree: false,
                sha256: None,
                epoch: 0,
                size: PACK,
                frames,
            });
            segment
                .chunks
                .extend((0..PER_PACK).map(|block| (chunk_id(number * PER_PACK + block), at as u32, block as u32)));
        }
        segment.chunks.sort_unstable();
        let bytes = repository.keyring().seal_record(Kind::IndexSegment, &segment.encode().unwrap()).unwrap();
        store.put(&ObjectKey::new(ObjectKind::Index, object_name(&bytes)), &bytes).unwrap();
    }
    let writer = Writer::begin(&repository, WriterOptions { level: 1, threads: 2, dry_run: false }, &Silent).unwrap();
    let cut = PageCut::new(repository.keyring());
    let mut out = Assembler::new(&writer);
    let mut top = DirectoryBuilder::default();
    let files: Vec<u64> = (0..chunks / PER_PACK).collect();
    for (number, files) in files.chunks(1000).enumerate() {
        let mut directory = DirectoryBuilder::default();
        for file in files {
            let extents =
                (0..PER_PACK).map(|block| Extent::Chunk { id: chunk_id(file * PER_PACK + block), len: CHUNK });
            let body = Body::File { size: PER_PACK * u64::from(CHUNK), content: Content::Extents(extents.collect()) };
            directory.push(&fixture::entry(&format!("{file:012}"), body, None), &cut, &mut out).unwrap();
        }
        let (page, totals) = directory.finish(&cut, &mut out).unwrap();
        let body = Body::Directory { size: 4096, page, totals };
        top.push(&fixture::entry(&format!("{number:012}"), body, None), &cut, &mut out).unwrap();
    }
    let (page, totals) = top.finish(&cut, &mut out).unwrap();
    let mut root = DirectoryBuilder::default();
    root.push(&fixture::entry("root", Body::Directory { size: 4096, page, totals }, None), &cut, &mut out).unwrap();
    let (tree, _) = root.finish(&cut, &mut out).unwrap();
    out.flush().unwrap();
    drop(out);
    let (session, id) = (writer.session(), repository.writer_id());
    writer.commit(|_| fixture::snapshot(id, session, 1, None, tree, totals)).unwrap();
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn memory_does_not_grow_with_chunks() {
    let chunks: u64 = std::env::var("FIRN_SCALE").map_or(1_000_000, |text| text.parse().unwrap());
    // Made by a process of its own, whose memory does not count.
    if let Some(folder) = std::env::var_os("FIRN_SCALE_MAKE") {
        return make(Path::new(&folder), chunks);
    }
    let temporary =
        tempfile::tempdir_in(std::env::var_os("FIRN_SCALE_DIR").map_or("/var/tmp".into(), PathBuf::from)).unwrap();
    let made = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "check::scale::memory_does_not_grow_with_chunks"])
        .env("FIRN_SCALE_MAKE", temporary.path())
        .status();
    assert!(made.unwrap().success());
    for round in ["check, first", "check, with tables built"] {
        forget_peak();
        let repository = vast(temporary.path(), chunks);
        let started = Instant::now();
        let report =
            run(&repository, &CheckOptions { threads: 2, ..CheckOptions::default() }, &Silent, &Stop::new()).unwrap();
        assert_eq!((report.findings, report.chunks), (vec![], chunks / PER_PACK * PER_PACK));
        tell(round, chunks, started);
    }
    // A stray pack makes a prune go all the way, and so walk twice.
    let stray = ObjectKey::new(ObjectKind::Tree, "0".repeat(64));
    LocalStore::open(&temporary.path().join("repository")).unwrap().put(&stray, &[0; 5000]).unwrap();
    forget_peak();
    let repository = vast(temporary.path(), chunks);
    let started = Instant::now();
    let report = crate::prune::run(&repository, &PruneOptions::default(), &Silent, &Stop::new()).unwrap();
    assert_eq!((report.orphans.packs, report.deleted.packs, report.dead.packs), (1, 1, 0));
    assert!(report.chunks >= chunks / PER_PACK * PER_PACK);
    tell("prune", chunks, started);
}

/// From here on the most memory counts anew.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn tell(what: &str, chunks: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let peak = crate::os::peak_rss().unwrap();
    println!(
        "{what}: {chunks} chunks: peak {} MiB, {seconds:.1} s, {:.2} s a million",
        peak >> 20,
        seconds * 1e6 / chunks as f64
    );
    assert!(peak < 300 << 20, "{} MiB", peak >> 20);
}
