//! The form of what a mount shows: holes, links, directories, figures of the file system. Not for: whose it is (see `access`).

use super::{Mount, Shown, without_fuse};
use crate::support::compare::{Options, trees};
use crate::support::run::World;
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[test]
pub(super) fn holes() {
    if without_fuse() {
        return;
    }
    let shown = Shown::nasty();
    let (ours, theirs) = (shown.world.text("ours"), shown.world.text("theirs"));
    for (from, to) in [(shown.source.clone(), &theirs), (shown.mount.path(""), &ours)] {
        let copied =
            std::process::Command::new("cp").args(["-a", "--sparse=auto"]).arg(from.join("sparse")).arg(to).output();
        assert!(copied.as_ref().unwrap().status.success(), "{copied:?}");
    }
    let options = Options { blocks: true, holes: true, ..Options::default() };
    // Zeros that were written are no hole in the source, and may be one in the mount.
    let mut found = trees(Path::new(&theirs), Path::new(&ours), options);
    found.retain(|line| !line.contains("zeros"));
    assert_eq!(found, Vec::<String>::new());
    let blocks =
        |folder: &str| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks()).max();
    assert!(blocks(&ours) > Some(0));
}

#[test]
pub(super) fn hard_links() {
    if without_fuse() {
        return;
    }
    let shown = Shown::nasty();
    let groups = "find . ! -type d -links +1 -printf '%i %n %p\\n' | sort -k 3 | awk '{
        if (!($1 in first)) first[$1] = $3; number = $2; $1 = $2 = \"\"; print number, $0 }'";
    shown.same(groups);
}

/// Names and the cookies behind them, from where a directory is opened or from a cookie on.
fn entries(folder: &Path, from: Option<u64>, room: usize) -> Vec<(Vec<u8>, u64)> {
    let file = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    if let Some(cookie) = from {
        rustix::fs::seek(&file, SeekFrom::Start(cookie)).unwrap();
    }
    let mut buffer = vec![MaybeUninit::uninit(); room];
    let mut listing = RawDir::new(&file, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry.unwrap();
        found.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    found
}

#[test]
pub(super) fn places_in_directories() {
    if without_fuse() {
        return;
    }
    let shown = Shown::nasty();
    let large = "large/many";
    let before = entries(&shown.mount.path(large), None, 1 << 15);
    assert!(before.len() > 2_000, "{}", before.len());
    let cookies: BTreeSet<u64> = before.iter().map(|(_, cookie)| *cookie).collect();
    assert_eq!(cookies.len(), before.len());
    let Shown { world, source, mount } = shown;
    drop(mount);
    let mount = Mount::of(&world, &["--no-cache", &format!("latest:{}", source.display())]);
    let folder = mount.path(large);
    for at in [0, 1, 500, before.len() / 2, before.len() - 2, before.len() - 1] {
        assert!(entries(&folder, Some(before[at].1), 1 << 12) == before[at + 1..], "from {at} on");
    }
    assert!(entries(&folder, None, 1 << 12) == before);
}

#[test]
pub(super) fn statfs() {
    if without_fuse() {
        return;
    }
    let world = World::with_repository();
    world.write("source/file", crate::support::nasty::Random(1).bytes(30 << 20));
    world.write("source/folder/other", "text");
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &[]);
    let figures = rustix::fs::statvfs(mount.path("")).unwrap();
    let packs: u64 =
        ["data", "tree"].iter().flat_map(|kind| world.objects(kind)).map(|path| path.metadata().unwrap().len()).sum();
    assert!(packs > 30 << 20);
    assert_eq!(figures.f_blocks, packs.div_ceil(figures.f_frsize));
    assert_eq!((figures.f_bfree, figures.f_bavail, figures.f_ffree), (0, 0, 0));
    let one = figures.f_files;
    assert!(one >= 4, "the file, the folder and what is in it, the folders above: {one}");
    drop(mount);
    // A second snapshot of the same has as many files again, and takes nearly nothing.
    world.backup(0, ["source"]);
    let mount = Mount::of(&world, &[]);
    let figures = rustix::fs::statvfs(mount.path("")).unwrap();
    assert_eq!(figures.f_files, 2 * one);
    assert!(figures.f_blocks * figures.f_frsize < packs + (1 << 20));
    assert_eq!(figures.f_namemax, 255);
    assert!(figures.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}
