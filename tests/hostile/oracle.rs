//! What must hold whatever is in a repository: bounded memory and time, a documented end, no panic, nothing outside the
//! target. Not for: making such repositories (see `forge`).

use super::forge::Forge;
use crate::support::run::{FIRN, Ran};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// Address space of a run. What firn takes by its settings (96 MiB of blocks, stacks, allocators' reserves) fits in easily;
/// what a lie makes it allocate does not.
const MEMORY: u64 = 3 << 29;
/// Seconds of processor time of a run.
const SECONDS: u32 = 20;

/// Codes that a person may meet (see the manual page).
const CODES: [i32; 9] = [0, 1, 3, 4, 5, 6, 10, 12, 14];

/// What each run ended with.
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) ran: Ran,
}

impl Forge {
    /// Runs firn within bounds.
    pub(crate) fn bounded(&self, arguments: &[&str]) -> Ran {
        self.bounded_command(Command::new("prlimit"), arguments)
    }

    /// As `bounded`, by a command that runs another one.
    pub(crate) fn bounded_command(&self, mut command: Command, arguments: &[&str]) -> Ran {
        command.arg(format!("--as={MEMORY}")).arg(format!("--cpu={SECONDS}")).arg("--core=0").arg(FIRN);
        command.args(["--threads", "2"]).args(arguments);
        self.world.surround(&mut command, &[]);
        let ran = Ran::from(command.output().unwrap());
        let short: String = ran.stderr.chars().take(3000).collect();
        assert!(CODES.contains(&ran.code), "{arguments:?}: {} {short}", ran.code);
        for word in ["panicked", "overflowed its stack", "memory allocation of", "is a defect"] {
            assert!(!ran.stderr.contains(word), "{arguments:?}: {} {short}", ran.code);
        }
        assert!(ran.code == 0 || !ran.stderr.is_empty() || arguments.contains(&"check"), "{arguments:?}: {ran:?}");
        ran
    }

    /// What a person does first with the snapshot `id`; `file` is a path in it.
    pub(crate) fn most(&self, id: &str, file: &str) -> Vec<Told> {
        self.runs(id, file, &["ls", "restore", "dump", "check"])
    }

    /// Everything a person may do with it.
    pub(crate) fn everything(&self, id: &str, file: &str) -> Vec<Told> {
        self.runs(id, file, &[])
    }

    /// All runs, or only those with these names.
    fn runs(&self, id: &str, file: &str, only: &[&str]) -> Vec<Told> {
        self.world.write("source/f", b"of the source");
        self.world.write("outside/sentinel", b"untouched");
        let target = self.world.text("inner/target");
        std::fs::create_dir_all(self.world.path("inner")).unwrap();
        let (restored, dumped) = (format!("{id}:/"), format!("{id}:{file}"));
        let out = self.world.text("inner/dumped");
        let source = self.world.text("source");
        let before = self.outside();
        let mut told = Vec::new();
        let runs: [(&str, Vec<&str>); 12] = [
            ("snapshots", vec!["snapshots"]),
            ("ls", vec!["ls", "-R", "-l", id]),
            ("restore", vec!["restore", &restored, "-t", &target, "--verify"]),
            ("again", vec!["restore", &restored, "-t", &target, "--overwrite", "always"]),
            ("dump", vec!["dump", &dumped, "-o", &out]),
            ("check", vec!["check"]),
            ("check all", vec!["check", "--read-data"]),
            ("stats", vec!["stats", "--deep"]),
            ("repair", vec!["repair", "index", "--read-all-packs"]),
            ("backup", vec!["backup", &source]),
            ("second backup", vec!["backup", &source]),
            ("check again", vec!["check", "--read-data"]),
        ];
        for (name, arguments) in runs.into_iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
            told.push(Told { name, ran: self.bounded(&arguments) });
        }
        let left: BTreeSet<_> = files(&self.world.path("inner"), 1);
        let allowed = ["target", "dumped"].map(|name| self.world.path("inner").join(name));
        assert!(left.iter().all(|path| allowed.contains(path)), "{left:?}");
        assert_eq!(before, self.outside(), "something was made outside the target");
        told
    }

    /// All that is in the world beside the repository, the cache and the target.
    fn outside(&self) -> BTreeSet<PathBuf> {
        let mut found = files(&self.world.path(""), 1);
        for name in ["source", "outside", "home"] {
            found.extend(files(&self.world.path(name), 9));
        }
        assert_eq!(std::fs::read(self.world.path("outside/sentinel")).unwrap(), b"untouched");
        found.remove(&self.world.path("cache"));
        found
    }
}

/// Paths below a folder, so many levels deep.
pub(crate) fn files(top: &std::path::Path, levels: usize) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(top).unwrap() {
        let path = entry.unwrap().path();
        if levels > 1 && path.is_dir() && !path.is_symlink() {
            found.extend(files(&path, levels - 1));
        }
        found.insert(path);
    }
    found
}

/// The run of this name.
pub(crate) fn of<'t>(told: &'t [Told], name: &str) -> &'t Ran {
    &told.iter().find(|told| told.name == name).unwrap().ran
}

/// What is not as it must be was refused by everything that looked at it, and found by a check; a new backup works.
#[track_caller]
pub(crate) fn refused(told: &[Told]) {
    for Told { name, ran } in told {
        match *name {
            "restore" | "again" | "check" | "check all" => assert!(matches!(ran.code, 3..=5), "{name}: {ran:?}"),
            "snapshots" | "stats" | "backup" | "second backup" => assert_eq!(ran.code, 0, "{name}: {ran:?}"),
            _ => {}
        }
    }
}

/// Nothing is wrong with it.
#[track_caller]
pub(crate) fn accepted(told: &[Told]) {
    for Told { name, ran } in told {
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
    }
}
