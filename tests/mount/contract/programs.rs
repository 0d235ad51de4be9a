//! Programs work with a mount as with the tree itself. Not for: what is below them (see `shape`, `access`).

use super::{Shown, without_fuse};
use crate::mount::exact::a_git_project;
use crate::support::nasty::Random;
use crate::support::run::World;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each prints a line or more for everything in the tree. A directory's own count of links and blocks depends on the file system.
const SCRIPTS: &[&str] = &[
    "find . ! -type d -print0 | sort -z | xargs -0 stat -c '%A %h %u %U %g %G %s %b %B %t %T %Y %y %N'",
    "find . -type d -print0 | sort -z | xargs -0 stat -c '%A %u %U %g %G %Y %y %N'",
    "find . ! -type d -print0 | sort -z | du --files0-from=- | sort",
    "find . ! -type d -print0 | sort -z | du --apparent-size --block-size=1 --files0-from=- | sort",
    "du --count-links --apparent-size --block-size=1 . | sort -k 2; du -s --apparent-size --block-size=1 .",
    "newest=$(find . -type f -printf '%T@ %p\\n' | grep -a '^[0-9.]* [ -~]*$' | sort -n | tail -n 5 | head -n 1 | cut -d' ' -f2-);
     echo \"$newest\"; find . -newer \"$newest\" | sort; find . ! -newer \"$newest\" | wc -l",
    "find . ! -type l -print0 | sort -z | xargs -0 getfacl -n -p | grep -a -v '^# file: \\.$' | sha256sum; getfacl -R -n -p . | sort | sha256sum",
    // Where no snapshot has attributes, the mount says that it does not support them.
    "(getfattr -h -d -m- -R . 2>&1 || true) | (grep -a -v ': Operation not supported$' || true) | tr '\\n' '~' | sed 's/~~/\\n/g' | sort; echo end",
    "tar --sort=name --numeric-owner --acls --pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime -cf - . 2>/dev/null | sha256sum",
];

/// Other trees to compare, by `FIRN_CONTRACT_TREES=/one:/two`.
fn others() -> Vec<PathBuf> {
    let named = std::env::var("FIRN_CONTRACT_TREES").unwrap_or_default();
    named.split(':').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

#[test]
pub(super) fn print_the_same() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    let project = world.path("project");
    a_git_project(&world, &project);
    let checkout = Shown::new(world, &project, &[]);
    let others = others().into_iter().map(|tree| Shown::new(World::with_repository(), &tree, &[]));
    for shown in [Shown::nasty(), checkout].into_iter().chain(others) {
        for script in SCRIPTS {
            shown.same(script);
        }
        eprintln!("contract: {} prints the same", shown.source.display());
    }
}

#[test]
pub(super) fn lock_and_map() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    world.write("source/file", Random(1).bytes(3_000_000));
    let source = world.path("source");
    let shown = Shown::new(world, &source, &[]);
    shown.same("flock --shared --nonblock file sha256sum file");
    // Two may have it for reading; who wants it alone waits.
    shown.same("flock --shared file flock --shared --nonblock file echo both");
    shown.same("flock --shared file flock --exclusive --nonblock file echo alone || echo not alone");
    shown.same(
        "python3 -c '
import hashlib, mmap
with open(\"file\", \"rb\") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as map:
    print(len(map), map[2_999_990:].hex(), map[1_000_000:1_000_010].hex(), hashlib.sha256(map).hexdigest())
with open(\"file\", \"rb\") as file, mmap.mmap(file.fileno(), 8192, flags=mmap.MAP_PRIVATE, offset=4096) as map:
    map[0:4] = b\"mine\"
    print(map[:8].hex())
'",
    );
}

#[test]
pub(super) fn sqlite_reads_a_database() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    let make = "
import sqlite3
for name, mode in ((\"plain\", \"delete\"), (\"ahead\", \"wal\")):
    base = sqlite3.connect(name + \".db\")
    base.execute(\"pragma journal_mode=\" + mode)
    base.execute(\"create table numbers (number integer primary key, square integer, text blob)\")
    base.executemany(\"insert into numbers values (?, ?, ?)\", ((n, n * n, bytes([n % 251]) * 300) for n in range(20_000)))
    base.commit()
    base.close()
";
    std::fs::create_dir(world.path("source")).unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", make]);
    world.surround(&mut command, &[]);
    assert!(command.current_dir(world.path("source")).status().unwrap().success());
    let source = world.path("source");
    let shown = Shown::new(world, &source, &[]);
    for address in ["plain.db?mode=ro", "ahead.db?mode=ro&immutable=1"] {
        shown.same(&format!(
            "python3 -c '
import sqlite3
base = sqlite3.connect(\"file:{address}\", uri=True)
print(base.execute(\"pragma integrity_check\").fetchone())
print(base.execute(\"select sum(square), count(*), sum(length(text)) from numbers where number % 3 = 1\").fetchone())
print(base.execute(\"select hex(text) from numbers where number = 12345\").fetchone())
'"
        ));
    }
    let write = "python3 -c '
import sqlite3
try:
    sqlite3.connect(\"file:plain.db?mode=ro\", uri=True).execute(\"delete from numbers\")
except sqlite3.OperationalError as error:
    print(error)
'";
    shown.same(write);
}

#[test]
pub(super) fn a_video_seeks() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    std::fs::create_dir(world.path("source")).unwrap();
    // Noise, so that the file is long and each frame looks different.
    let make = "ffmpeg -v error -f lavfi -i testsrc2=duration=60:size=320x240:rate=25,noise=alls=40:allf=t -c:v mpeg4 -q:v 3 -g 25 film.mp4";
    let mut command = Command::new("bash");
    command.args(["-c", make]);
    world.surround(&mut command, &[]);
    assert!(command.current_dir(world.path("source")).status().unwrap().success(), "needs the package ffmpeg");
    let source = world.path("source");
    assert!(source.join("film.mp4").metadata().unwrap().len() > 8 << 20);
    let shown = Shown::new(world, &source, &[]);
    shown.same("for at in 55 1.5 30 42.2 0; do ffmpeg -v error -ss $at -i film.mp4 -frames:v 3 -f framemd5 -; done");
    shown.same("ffprobe -v error -show_entries format=duration,size film.mp4");
}

#[test]
pub(super) fn cargo_builds_a_project() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    world.write(
        "source/Cargo.toml",
        "[package]\nname = \"past\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[workspace]\n",
    );
    world.write("source/Cargo.lock", "version = 3\n[[package]]\nname = \"past\"\nversion = \"1.0.0\"\n");
    world.write("source/build.rs", "fn main() { println!(\"cargo::rerun-if-changed=src/word\"); }");
    world.write("source/src/word", "past");
    world.write("source/src/main.rs", "mod words;\nfn main() { println!(\"the {} works\", words::WORD); }");
    world.write("source/src/words.rs", "pub const WORD: &str = include_str!(\"word\");");
    let source = world.path("source");
    let shown = Shown::new(world, &source, &[]);
    let out = shown.world.text("out");
    // The home of the one who runs the test is where cargo finds its compiler.
    let cargo = |command: &str| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([command, "-q", "--offline", "--locked", "--target-dir", &out]).current_dir(shown.mount.path(""));
        let output = cargo.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    cargo("build");
    assert_eq!(cargo("run"), "the past works\n");
    let built = |name: &str| Path::new(&out).join("debug").join(name).metadata().unwrap().modified().unwrap();
    let first = built("past");
    cargo("build");
    assert_eq!(built("past"), first, "nothing changed, so nothing is to be built");
}
