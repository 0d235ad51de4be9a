//! Tests of who is worked ahead for, what is given, and how much at most. Not for: the kernel's side.

use super::*;
use crate::mount::tree::browse::{Node, View};
use crate::progress::Silent;
use crate::store::{ObjectKind, Operation};
use crate::view::sample::{Piece, Sample, Thing, dir, noise};
use std::collections::BTreeMap;
use std::time::Duration;

type Given = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

struct Scene {
    sample: Sample,
    view: View,
    ahead: Ahead,
    given: Given,
}

fn content(folder: u64, file: u64) -> Vec<u8> {
    noise(folder * 1000 + file, (20 << 10) + file as usize)
}

/// Folders `000`, `001` … with files `000`, `001` … of about 20 KiB.
fn scene(folders: u64, files: u64) -> Scene {
    let thing = |folder, file| Thing::File(vec![Piece::Data(content(folder, file))]);
    let folder =
        |folder: u64| (format!("{folder:03}"), dir((0..files).map(|file| (format!("{file:03}"), thing(folder, file)))));
    let sample = Sample::new();
    let named = sample.snapshot("2026-01-01T00:00:00Z", "h", &[], &dir((0..folders).map(folder)));
    let repository = Sample::open(&sample.store, 64 << 20);
    repository.reload_index(&Silent).unwrap();
    let view = View::one(repository.clone(), 8 << 20, named, b"").unwrap();
    let ahead = Ahead::new(Arc::new(Reader::new(repository, 2, 64 << 20)));
    let given = Given::default();
    let taker = given.clone();
    ahead.connect(Box::new(move |ino, bytes| lock(&taker).push((ino, bytes.to_vec()))));
    sample.store.reset();
    Scene { sample, view, ahead, given }
}

impl Scene {
    fn node(&self, folder: u64, file: Option<u64>) -> Node {
        let below = self.view.lookup(&self.view.root(), format!("{folder:03}").as_bytes()).unwrap().unwrap();
        match file {
            Some(file) => self.view.lookup(&below, format!("{file:03}").as_bytes()).unwrap().unwrap(),
            None => below,
        }
    }

    fn list(&self, folder: u64) {
        let node = self.node(folder, None);
        let (tree, place) = self.view.place(&node).unwrap().unwrap();
        self.ahead.listed(tree, place);
    }

    fn open(&self, folder: u64, file: u64) {
        let Node::Stored(stored) = self.node(folder, Some(file)) else { panic!() };
        self.ahead.opened(&stored);
    }

    /// What was given, once nothing is at work any more.
    fn calm(&self) -> BTreeMap<u64, Vec<u8>> {
        loop {
            std::thread::sleep(Duration::from_millis(5));
            if !lock(&self.ahead.shared.state).folders.iter().any(|folder| folder.busy) {
                break;
            }
        }
        let given = lock(&self.given);
        let all: BTreeMap<u64, Vec<u8>> = given.iter().cloned().collect();
        assert_eq!(all.len(), given.len(), "something was given twice");
        all
    }

    /// Exactly these files were given, each with its bytes.
    fn assert_given(&self, files: impl IntoIterator<Item = (u64, u64)>) {
        let expected: BTreeMap<u64, Vec<u8>> = files
            .into_iter()
            .map(|(folder, file)| (self.view.ino(&self.node(folder, Some(file))).unwrap(), content(folder, file)))
            .collect();
        let given = self.calm();
        assert!(
            given == expected,
            "given: {:?}, expected: {:?}",
            given.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
    }

    fn data_reads(&self) -> usize {
        let log = self.sample.store.log();
        log.iter().filter(|call| call.operation == Operation::GetRange && call.kind == ObjectKind::Data).count()
    }
}

#[test]
fn who_looks_at_names_alone_costs_no_data() {
    let scene = scene(30, 10);
    for folder in 0..30 {
        scene.list(folder);
    }
    // One file of each is no order either.
    scene.open(3, 4);
    scene.open(9, 1);
    scene.open(9, 0);
    assert!(scene.calm().is_empty());
    assert_eq!(scene.data_reads(), 0);
}

#[test]
fn files_read_in_order_bring_the_next_along_in_growing_batches() {
    let scene = scene(1, 200);
    scene.open(0, 0);
    assert!(scene.calm().is_empty());
    scene.open(0, 1);
    scene.assert_given((2..2 + 2 * FIRST as u64).map(|file| (0, file)).take(FIRST));
    // The first that was not given shows that all before were used.
    scene.open(0, 18);
    scene.assert_given((2..18).chain(19..19 + 32).map(|file| (0, file)));
    // Going back brings nothing.
    scene.open(0, 5);
    assert_eq!(scene.calm().len(), 16 + 32);
}

#[test]
fn whoever_goes_through_a_tree_finds_each_folder_there_until_he_stops() {
    let scene = scene(40, 5);
    scene.open(0, 0);
    scene.open(0, 1);
    scene.calm();
    let first: Vec<(u64, u64)> = (2..5).map(|file| (0, file)).collect();
    scene.assert_given(first.clone());
    for folder in 1..40 {
        scene.list(folder);
        scene.calm();
    }
    // Nobody asked for the files left out, so it ended.
    let whole = (1..=u64::from(CREDIT - LOW)).flat_map(|folder| (0..5).map(move |file| (folder, file)));
    let probing =
        (u64::from(CREDIT - LOW) + 1..=u64::from(CREDIT)).flat_map(|folder| (0..4).map(move |file| (folder, file)));
    scene.assert_given(first.into_iter().chain(whole).chain(probing));
    // Asking for one shows that somebody still goes through the tree.
    scene.open(u64::from(CREDIT), 4);
    for _ in 0..2 {
        scene.list(30);
        assert_eq!(scene.calm().len(), 3 + 5 * 3 + 4 * 5 + 5);
    }
}

#[test]
fn what_follows_is_decoded_ahead_within_bounds() {
    let scene = scene(60, 40);
    scene.open(0, 0);
    scene.open(0, 1);
    scene.calm();
    let reader = &scene.ahead.shared.reader;
    for _ in 0..500 {
        if scene.data_reads() > 10 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // All of it has 48 MiB in blocks of half a MiB.
    let (most, reads) = (AHEAD + BLOCK, scene.data_reads());
    assert!(reader.ahead() <= most, "{}", reader.ahead());
    assert!((10..2 * (most / BLOCK) as usize).contains(&reads), "{reads}");
}
