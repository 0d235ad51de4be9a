//! What the manual page of `firn mount` promises, each sentence with its test. Not for: what is promised nowhere (see `exact`).

mod access;
mod programs;
mod shape;

use super::{Mount, exact, without_fuse};
use crate::support::nasty;
use crate::support::run::{Ran, World};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sentences of the page, in their order, and what shows that they hold.
const PROMISES: &[(&str, fn())] = &[
    (
        "rsync \\-aHAXn \\-\\-checksum finds nothing to copy, in either direction, and diff \\-r no difference.",
        exact::programs_find_no_difference,
    ),
    (
        "stat, du, du \\-\\-apparent\\-size, find \\-newer, getfacl \\-R, getfattr \\-Rd \\-m\\- and tar print what they print for what was backed up.",
        programs::print_the_same,
    ),
    (
        "Where a file has a hole it has one in the mount, for SEEK_HOLE, SEEK_DATA and cp \\-\\-sparse=auto.",
        shape::holes,
    ),
    ("Hard links of one file have the same inode number, and their count is the recorded one.", shape::hard_links),
    (
        "Names can be anything the system allows: 255 bytes long, with newlines, without being UTF\\-8.",
        exact::the_nasty_tree,
    ),
    ("Inode numbers are the same after the next mount,", exact::inode_numbers_stay),
    ("and so are the places in a directory at which a program goes on to list it.", shape::places_in_directories),
    ("df shows what the repository takes on its disk, and how many files the snapshots have.", shape::statfs),
    (
        "With \\-\\-owner original in a mount by root, the system itself checks permissions, access control lists too.",
        access::the_recorded_owners_count,
    ),
    (
        "Whoever mounts without being root can read everything, also below folders that were closed to them; so can all others with \\-\\-owner me.",
        access::the_owner_of_the_mount_passes,
    ),
    ("Files can be locked for reading (flock) and mapped into memory (mmap).", programs::lock_and_map),
    (
        "SQLite opens a database with mode=ro, and one that has a write\\-ahead log with immutable=1.",
        programs::sqlite_reads_a_database,
    ),
    ("Players seek in videos.", programs::a_video_seeks),
    ("git status, git fsck and git log work.", exact::git_works_in_the_past),
    ("cargo builds a project, given a place for its output (\\-\\-target\\-dir).", programs::cargo_builds_a_project),
];

#[test]
fn every_sentence_of_the_page_has_its_test() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("man/firn-mount.1")).unwrap();
    let section = page.split("\n.SH \"WHAT A MOUNT PROMISES\"\n").nth(1).expect("the page has the section");
    let section = section.split("\n.SH").next().unwrap();
    let bullets = section.split("\n.IP \\(bu 2\n").skip(1);
    let said: Vec<String> = bullets.map(|text| text.split("\n.PP").next().unwrap().trim().replace('\n', " ")).collect();
    let shown: Vec<&str> = PROMISES.iter().map(|(sentence, _)| *sentence).collect();
    assert_eq!(said, shown);
}

/// A tree, and the mount of its snapshot.
struct Shown {
    world: World,
    source: PathBuf,
    mount: Mount,
}

impl Shown {
    /// The tree at `source`, which may be in the world or elsewhere.
    fn new(world: World, source: &Path, arguments: &[&str]) -> Shown {
        world.backup(0, [source]);
        let address = format!("latest:{}", source.display());
        let all: Vec<&str> = [address.as_str()].iter().chain(arguments).copied().collect();
        let mount = Mount::of(&world, &all);
        Shown { source: source.to_owned(), mount, world }
    }

    /// The tree of everything that is hard to keep, but for sockets, which are not kept.
    fn nasty() -> Shown {
        let world = World::with_repository();
        let source = world.path("source");
        fs::create_dir(&source).unwrap();
        nasty::build(&source);
        let gone = Command::new("find").arg(&source).args(["-type", "s", "-delete"]).status();
        assert!(gone.unwrap().success());
        Shown::new(world, &source, &[])
    }

    /// What a script prints, run in the source and in the mount.
    #[track_caller]
    fn both(&self, script: &str) -> (Ran, Ran) {
        let ran = |folder: &Path| {
            let mut command = Command::new("bash");
            command.args(["-c", &format!("set -euo pipefail; export LC_ALL=C; {script}")]);
            self.world.surround(&mut command, &[]);
            let ran = Ran::from(command.current_dir(folder).output().unwrap());
            assert!(ran.code == 0 && ran.stderr.is_empty(), "{script}: {}: {ran:?}", folder.display());
            ran
        };
        (ran(&self.source), ran(&self.mount.path("")))
    }

    /// The script prints the same for both, and something.
    #[track_caller]
    fn same(&self, script: &str) {
        let (one, other) = self.both(script);
        let differs = one.stdout.lines().zip(other.stdout.lines()).find(|(one, other)| one != other);
        let source = self.source.display();
        assert!(one.stdout == other.stdout, "{script}: {source}: {differs:?}");
        assert!(!one.stdout.trim().is_empty(), "{script}: {source}: nothing was said");
    }
}
