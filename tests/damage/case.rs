//! A copy of the sample with some damage, and what everything that a person may do next must keep to. Not for: which damage.

use super::sample::{Sample, copy};
use crate::support::compare;
use crate::support::quick_folder;
use crate::support::run::{Ran, World};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A damaged copy.
pub(crate) struct Case<'a> {
    pub(crate) sample: &'a Sample,
    /// What messages begin with.
    pub(crate) name: String,
    pub(crate) folder: tempfile::TempDir,
    /// Which key file is used.
    pub(crate) key: &'static str,
    targets: std::cell::Cell<u32>,
}

/// What a restore left.
pub(crate) struct Restored {
    pub(crate) ran: Ran,
    /// Files of the source that are not there, as absolute paths of the source.
    pub(crate) missing: BTreeSet<PathBuf>,
}

impl Restored {
    pub(crate) fn whole(&self) -> bool {
        self.ran.code == 0
    }
}

impl<'a> Case<'a> {
    /// `warm`: the local state of before is still there; else there is none.
    pub(crate) fn new(sample: &'a Sample, name: String, warm: bool) -> Case<'a> {
        let folder = quick_folder();
        copy(&sample.world.path("repository"), &folder.path().join("repository"));
        if warm {
            copy(&sample.world.path("cache"), &folder.path().join("cache"));
        }
        Case { sample, name, folder, key: "key", targets: Default::default() }
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// Runs firn; whatever is damaged, it ends with a documented code, says something if it fails, and never panics.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let world: &World = &self.sample.world;
        let repository = self.repository().display().to_string();
        let cache = self.folder.path().join("cache").display().to_string();
        let key = world.text(self.key);
        let mut all = vec!["--repo", &repository, "--cache-dir", &cache, "--key-file", &key, "--threads", "2"];
        all.extend(arguments);
        let ran = Ran::from(world.direct(&all).output().unwrap());
        assert!(matches!(ran.code, 0 | 1 | 3 | 4 | 5 | 10 | 12), "{}: {arguments:?}: {ran:?}", self.name);
        assert!(!ran.stderr.contains("panicked"), "{}: {arguments:?}: {ran:?}", self.name);
        assert!(ran.code == 0 || !ran.stderr.is_empty() || !ran.stdout.is_empty(), "{}: {arguments:?}", self.name);
        ran
    }

    /// Restores snapshot `id` and compares with `expected` (below the sample's world): what is there is right, and what
    /// is not was reported.
    pub(crate) fn restore(&self, id: &str, expected: &str) -> Restored {
        let world = &self.sample.world;
        self.targets.set(self.targets.get() + 1);
        let target = self.folder.path().join(format!("out{}", self.targets.get()));
        let address = format!("{id}:{}", world.text("source"));
        let ran = self.run(&["restore", &address, "-t", target.to_str().unwrap()]);
        let expected = world.path(expected);
        let restored = self.top_of(&target);
        let mut missing = BTreeSet::new();
        for (path, bytes) in files(&expected) {
            match std::fs::read(restored.join(&path)) {
                Ok(found) => assert!(found == bytes, "{}: {path:?} has other bytes: {ran:?}", self.name),
                Err(_) => drop(missing.insert(world.path("source").join(path))),
            }
        }
        if ran.code == 0 {
            let differences = compare::trees(&expected, &restored, compare::Options::default());
            assert!(differences.is_empty(), "{}: {id}: {differences:?}\n{ran:?}", self.name);
        } else {
            assert!(ran.stderr.contains("rror") || ran.stderr.contains("arning"), "{}: {ran:?}", self.name);
        }
        Restored { ran, missing }
    }

    /// Where the source is in a restored folder.
    fn top_of(&self, target: &Path) -> PathBuf {
        let deep = target.join(self.sample.world.path("source").strip_prefix("/").unwrap());
        if deep.exists() { deep } else { target.to_path_buf() }
    }

    /// Restores all three snapshots.
    pub(crate) fn restore_all(&self) -> Vec<Restored> {
        let restore = |number: usize| self.restore(&self.sample.ids[number], &format!("expected{}", number + 1));
        (0..3).map(restore).collect()
    }

    /// Lists, and dumps every file of the newest snapshot: each byte is right, and fewer than all are reported.
    pub(crate) fn look(&self) {
        self.run(&["snapshots"]);
        self.run(&["ls", "-R", "latest"]);
        self.run(&["key", "list"]);
        self.run(&["check"]);
        for (path, bytes) in
            files(&self.sample.world.path("expected3")).into_iter().filter(|(_, bytes)| bytes.len() > 500)
        {
            let path = self.sample.world.path("source").join(path).display().to_string();
            let target = self.folder.path().join("dumped");
            let ran = self.run(&["dump", &format!("{}:{path}", self.sample.ids[2]), "-o", target.to_str().unwrap()]);
            let found = std::fs::read(&target).ok();
            assert_eq!(ran.code == 0, found.is_some(), "{}: {path}: {ran:?}", self.name);
            assert!(found.is_none_or(|found| found == bytes), "{}: {path} dumped wrong: {ran:?}", self.name);
            drop(std::fs::remove_file(target));
        }
    }

    /// Checks with all data; returns what was found as text and the paths that it hits.
    pub(crate) fn check(&self) -> (Ran, BTreeSet<PathBuf>) {
        let ran = self.run(&["check", "--read-data", "--json"]);
        let lines = ran.json();
        let affected = lines.iter().filter_map(|line| line["affected"].as_array()).flatten();
        let paths = affected.map(|hit| PathBuf::from(hit["path"].as_str().unwrap())).collect();
        (ran, paths)
    }

    /// What is not restored must be found by a check that reads everything.
    pub(crate) fn check_knows(&self, restored: &[Restored]) -> Ran {
        let (check, affected) = self.check();
        for restored in restored {
            assert!(restored.whole() || check.code != 0, "{}: not found: {:?} {check:?}", self.name, restored.ran);
            // Of what can be repaired, nothing is hit in the end.
            for path in restored.missing.iter().filter(|_| check.code == 5 && !check.stdout.is_empty()) {
                let known = affected.iter().any(|hit| path.starts_with(hit));
                assert!(known, "{}: {path:?} is hit, but not named: {check:?}", self.name);
            }
        }
        check
    }

    /// Each byte of the repository, by path.
    pub(crate) fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.repository())
    }
}

/// The regular files below a folder with their content.
pub(crate) fn files(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let name = entry.path().strip_prefix(top).unwrap().to_path_buf();
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}
