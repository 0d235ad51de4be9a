//! What a disk may hold after the power failed: a model that assumes no more than the format page does. Not for: recording
//! (see `trace`) or judging (see `power`).
//!
//! What fsync reported durable stays: of a file its bytes, of a folder the names in it. Whatever was not made durable may
//! be there or not, each piece for itself: names that were made, changed or removed in any combination, and bytes as
//! written, none, zeros, or half of them. Only a rename within a folder is one piece. After an fsync that failed, nothing
//! of the file counts as durable any more, whatever a later one says.

use super::trace::{Change, Event};
use crate::support::nasty::Random;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The names on a disk: folders, and files with how much is left of them (see `spoil`).
pub(crate) type State = BTreeMap<PathBuf, Option<(usize, u64)>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// So many are durable.
    durable: usize,
    /// An fsync failed.
    lost: bool,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
struct Pending {
    number: usize,
    returned: bool,
    folder: PathBuf,
    changes: Vec<(PathBuf, Option<Node>)>,
}

/// A disk, while a program works on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// As programs see it.
    seen: BTreeMap<PathBuf, Node>,
    /// What will be there in any case.
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Pending>,
    /// For each running fsync, what it covers: the path, and for a file how many bytes.
    syncing: HashMap<usize, Covered>,
    /// What was said on standard output so far.
    pub(crate) said: String,
}

#[derive(Clone, Debug)]
enum Covered {
    File(usize, usize),
    Names(BTreeSet<usize>),
}

impl Disk {
    /// A disk that holds what is in a folder, all of it durable.
    pub(crate) fn holding(root: &Path) -> Disk {
        let mut disk = Disk::default();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let Ok(listing) = std::fs::read_dir(&folder) else { continue };
            disk.seen.insert(folder.strip_prefix(root).unwrap().to_path_buf(), Node::Folder);
            for entry in listing {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = std::fs::read(&path).unwrap();
                    disk.files.push(File { durable: bytes.len(), bytes, lost: false });
                    disk.seen.insert(path.strip_prefix(root).unwrap().to_path_buf(), Node::File(disk.files.len() - 1));
                }
            }
        }
        disk.durable = disk.seen.clone();
        disk
    }

    /// Takes note of an event; true if the disk may now hold something else than before.
    pub(crate) fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::Change { number, change } => self.change(*number, change),
            Event::Returned { number } => {
                self.pending.iter_mut().filter(|one| one.number == *number).for_each(|one| one.returned = true);
                return false;
            }
            Event::SyncBegins { number, path } => {
                let covered = match self.seen.get(path) {
                    Some(Node::File(file)) => Covered::File(*file, self.files[*file].bytes.len()),
                    _ => {
                        let done = self.pending.iter().filter(|one| one.returned && one.folder == *path);
                        Covered::Names(done.map(|one| one.number).collect())
                    }
                };
                self.syncing.insert(*number, covered);
                return false;
            }
            Event::SyncEnds { number, succeeded } => match (self.syncing.remove(number), succeeded) {
                (Some(Covered::File(file, _)), false) => self.files[file].lost = true,
                (Some(Covered::File(file, length)), true) if !self.files[file].lost => {
                    self.files[file].durable = self.files[file].durable.max(length);
                }
                (Some(Covered::Names(numbers)), true) => self.settle(&numbers),
                _ => return false,
            },
            Event::Said(text) => self.said.push_str(text),
        }
        true
    }

    /// The process is killed: what it asked for last may be carried out or not, but nothing becomes durable any more by itself.
    pub(crate) fn stop(&mut self) {
        self.syncing.clear();
        // A later fsync of the folder covers whatever was carried out.
        self.pending.iter_mut().for_each(|one| one.returned = true);
    }

    fn change(&mut self, number: usize, change: &Change) {
        let changes = match change {
            Change::Create(path) => {
                self.files.push(File::default());
                vec![(path.clone(), Some(Node::File(self.files.len() - 1)))]
            }
            Change::Append(path, bytes) => {
                let Some(Node::File(file)) = self.seen.get(path) else { panic!("{path:?} is written and not there") };
                self.files[*file].bytes.extend_from_slice(bytes);
                return;
            }
            Change::Rename(from, to) => {
                let node = *self.seen.get(from).unwrap_or_else(|| panic!("{from:?} is renamed and not there"));
                vec![(from.clone(), None), (to.clone(), Some(node))]
            }
            Change::Remove(path) => vec![(path.clone(), None)],
            Change::Folder(path) => vec![(path.clone(), Some(Node::Folder))],
        };
        apply(&mut self.seen, &changes);
        let folder = changes[0].0.parent().map(Path::to_path_buf).unwrap_or_default();
        self.pending.push(Pending { number, returned: false, folder, changes });
    }

    fn settle(&mut self, numbers: &BTreeSet<usize>) {
        for one in std::mem::take(&mut self.pending) {
            if numbers.contains(&one.number) {
                apply(&mut self.durable, &one.changes);
            } else {
                self.pending.push(one);
            }
        }
    }

    /// As programs see it now; what a process finds that comes after one that was killed.
    pub(crate) fn seen(&self) -> State {
        layout(&self.seen, &|_| 3)
    }

    /// What may be on the disk if the power fails now: every combination of what is not durable, or `most` of them.
    pub(crate) fn states(&self, most: usize, random: &mut Random) -> BTreeSet<State> {
        let open: Vec<usize> =
            (0..self.files.len()).filter(|file| self.files[*file].durable < self.files[*file].bytes.len()).collect();
        let bits = (self.pending.len() + 2 * open.len()) as u32;
        let all = 1_u64.checked_shl(bits).filter(|all| *all <= most as u64);
        let mut states = BTreeSet::new();
        for turn in 0..all.unwrap_or(most as u64) {
            let seed = random.next();
            let bit = |at: usize| match (all, turn) {
                (Some(_), _) => turn >> at & 1,
                // Nothing and everything are always among them.
                (None, 0) => 0,
                (None, 1) => 1,
                (None, _) => Random(seed ^ (at as u64 + 1).wrapping_mul(0x9e37_79b9)).next() & 1,
            };
            let mut names = self.durable.clone();
            let chosen = self.pending.iter().enumerate().filter(|(at, _)| bit(*at) == 1);
            chosen.for_each(|(_, one)| apply(&mut names, &one.changes));
            states.insert(layout(&names, &|file| {
                let at = open.iter().position(|one| *one == file).map(|at| self.pending.len() + 2 * at);
                at.map_or(3, |at| bit(at) | bit(at + 1) << 1)
            }));
        }
        states
    }

    /// Makes a folder hold exactly this.
    pub(crate) fn write(&self, state: &State, root: &Path) {
        drop(std::fs::remove_dir_all(root));
        for (path, content) in state {
            let path = root.join(path);
            match content {
                None => std::fs::create_dir_all(path).unwrap(),
                Some((file, left)) => std::fs::write(path, spoil(&self.files[*file], *left)).unwrap(),
            }
        }
    }
}

/// Names whose folders are there, and what is left of their files.
fn layout(names: &BTreeMap<PathBuf, Node>, left: &dyn Fn(usize) -> u64) -> State {
    let mut state = State::new();
    for (path, node) in names {
        let is_top = path.as_os_str().is_empty();
        if is_top || path.parent().is_some_and(|parent| matches!(state.get(parent), Some(None))) {
            let content = match node {
                Node::Folder => None,
                Node::File(file) => Some((*file, left(*file))),
            };
            state.insert(path.clone(), content);
        }
    }
    state
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, changes: &[(PathBuf, Option<Node>)]) {
    for (path, node) in changes {
        match node {
            Some(node) => drop(names.insert(path.clone(), *node)),
            None => drop(names.remove(path)),
        }
    }
}

/// What may be left of a file: what is durable, and of the rest nothing, zeros, half, or all.
fn spoil(file: &File, variant: u64) -> Vec<u8> {
    let (length, durable) = (file.bytes.len(), file.durable);
    let mut bytes = file.bytes.clone();
    match variant {
        0 => bytes.truncate(durable),
        1 => bytes[durable..].fill(0),
        2 => bytes.truncate(durable + (length - durable) / 2),
        _ => {}
    }
    bytes
}
