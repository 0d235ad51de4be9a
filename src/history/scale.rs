//! A repository with very many snapshots of very many files, and what the catalog says of it. Not for: right answers in small (see
//! `tests`).
//!
//! Run by hand: `FIRN_SCALE=1000 cargo test --release --lib -- --ignored --nocapture history::scale`. With `FIRN_SCALE_MAKE` it only
//! leaves the repository in that folder, as the key file "one" opens it.

use super::query::Seen;
use super::*;
use crate::chunk::password::Cost;
use crate::format::tree::{Body, Entry};
use crate::progress::Silent;
use crate::repository::assemble::Assembler;
use crate::repository::keys::Credentials;
use crate::repository::tree::{DirectoryBuilder, PageCut};
use crate::repository::writer::{Writer, WriterOptions};
use crate::repository::{CacheChoice, OpenOptions};
use crate::store::LocalStore;
use crate::view::pages::Directory;
use crate::view::sample::{inline, metadata, record};
use std::time::Instant;

const FOLDERS: usize = 1000;
const FILES: usize = 100;
/// Folders that change from one snapshot to the next.
const CHANGING: usize = 10;

fn credentials() -> Credentials {
    Credentials { password: None, key_file: Some(b"one".to_vec().into()) }
}

fn open(folder: &Path) -> Arc<Repository> {
    let store = Arc::new(LocalStore::open(&folder.join("repository")).unwrap());
    let options = OpenOptions { cache: CacheChoice::Root(folder.join("cache")), block_cache: 64 << 20 };
    Arc::new(Repository::open(store, &credentials(), &options).unwrap())
}

/// A folder of files, each with the number of the snapshot that changed it last; 0: it is gone.
fn folder(number: usize, files: &[u32], cut: &PageCut, out: &mut Assembler<'_>) -> Entry {
    let mut builder = DirectoryBuilder::default();
    for (file, version) in files.iter().enumerate().filter(|(_, version)| **version > 0) {
        let body = inline(format!("version {version}").as_bytes());
        let entry = Entry { name: format!("file{file:02}.txt").into_bytes(), meta: metadata(), body };
        builder.push(&entry, cut, out).unwrap();
    }
    directory(&name_of(number), builder, cut, out)
}

fn directory(name: &[u8], entries: DirectoryBuilder, cut: &PageCut, out: &mut Assembler<'_>) -> Entry {
    let (page, totals) = entries.finish(cut, out).unwrap();
    Entry { name: name.to_vec(), meta: metadata(), body: Body::Directory { size: 4096, page, totals } }
}

fn name_of(folder: usize) -> Vec<u8> {
    format!("folder{folder:04}").into_bytes()
}

/// Which folders and which file of each a snapshot changes; the file of the first one goes or comes back.
fn changes(snapshot: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..CHANGING).map(move |n| ((snapshot * CHANGING + n * 97) % FOLDERS, (snapshot / 7 + n) % FILES))
}

/// Makes the repository.
fn make(at: &Path, snapshots: usize) {
    let store = LocalStore::create(&at.join("repository")).unwrap();
    Repository::init(&store, &credentials(), Cost::DEFAULT, "one").unwrap();
    let repository = open(at);
    let cut = PageCut::new(repository.keyring());
    let mut files = vec![[1u32; FILES]; FOLDERS];
    let mut folders: Vec<Option<Entry>> = vec![None; FOLDERS];
    let begin: jiff::Timestamp = "2020-01-01T12:00:00Z".parse().unwrap();
    for snapshot in 1..=snapshots {
        let options = WriterOptions { level: 1, threads: 1, dry_run: false };
        let writer = Writer::begin(&repository, options, &Silent).unwrap();
        let mut out = Assembler::new(&writer);
        for (n, (changed, file)) in changes(snapshot).enumerate() {
            let version = &mut files[changed][file];
            *version = if n == 0 && *version > 0 { 0 } else { snapshot as u32 };
            folders[changed] = None;
        }
        let mut top = DirectoryBuilder::default();
        for (number, (entry, files)) in folders.iter_mut().zip(&files).enumerate() {
            let entry = entry.get_or_insert_with(|| folder(number, files, &cut, &mut out));
            top.push(entry, &cut, &mut out).unwrap();
        }
        let root = directory(b"root", top, &cut, &mut out);
        let totals = Directory::of(&root).unwrap().totals;
        let mut above = DirectoryBuilder::default();
        above.push(&root, &cut, &mut out).unwrap();
        let (tree, _) = above.finish(&cut, &mut out).unwrap();
        out.flush().unwrap();
        drop(out);
        let by = (repository.writer_id(), writer.session());
        let time = begin + jiff::SignedDuration::from_hours(24 * snapshot as i64);
        writer.commit(|_| record(by, time, "h", &[], tree, totals)).unwrap();
    }
}

#[test]
#[ignore = "takes minutes; run by hand"]
fn many_snapshots_of_many_files() {
    let snapshots: usize = std::env::var("FIRN_SCALE").map_or(200, |text| text.parse().unwrap());
    if let Some(at) = std::env::var_os("FIRN_SCALE_MAKE") {
        return make(Path::new(&at), snapshots);
    }
    let temporary = tempfile::tempdir().unwrap();
    make(temporary.path(), snapshots);
    let repository = open(temporary.path());
    let live = repository.snapshots().unwrap().live.into_iter().map(Arc::new).collect();
    let mut catalog = Catalog::open(&repository, &Silent).unwrap();
    let begun = Instant::now();
    catalog.update(live, &Silent, &Stop::new()).unwrap();
    println!(
        "history: {snapshots} snapshots of {} files, catalog in {:.1} s",
        FOLDERS * FILES,
        begun.elapsed().as_secs_f64()
    );
    // Every file that was ever changed has a version for each change, less those by which it only went.
    for (number, file) in changes(snapshots).chain([(0, 0)]) {
        let (mut is_there, mut versions) = (true, 1);
        for snapshot in 1..=snapshots {
            for (n, _) in changes(snapshot).enumerate().filter(|(_, change)| *change == (number, file)) {
                is_there = n > 0 || !is_there;
                versions += usize::from(is_there);
            }
        }
        let path = [b"/", name_of(number).as_slice(), b"/", format!("file{file:02}.txt").as_bytes()].concat();
        let ask = &mut |catalog: &Catalog| {
            let scopes = catalog.scopes(&|_| true);
            scopes.iter().map(|scope| scope.versions(&path)).collect::<Result<Vec<Vec<Seen>>, Broken>>()
        };
        let seen = catalog.ask(&Silent, &Stop::new(), ask).unwrap();
        // What changed in the first snapshot already had no other version before.
        let first = usize::from(changes(1).skip(1).any(|change| change == (number, file)));
        assert_eq!(seen.concat().len(), versions - first, "{number} {file}");
    }
}
