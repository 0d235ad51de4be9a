//! Does what went in come out again, bit for bit? Not for: mounts, or what the program says.

// Clippy takes only what carries #[test] for a test.
#![allow(clippy::unwrap_used)]

mod choice;
mod limited;
mod pick;
mod sparse;
mod target;
mod timeless;
mod trouble;
mod whole;

use crate::support::compare::{Options, trees};
use crate::support::run::World;
use std::path::Path;

/// Everything that a restored tree has in common with the one that was backed up.
const EXACT: Options = Options {
    owners: true,
    modes: true,
    times: true,
    attributes: true,
    links: true,
    blocks: false,
    holes: true,
    ignore_sockets: true,
    top: true,
};

/// Restores `address` into the new folder `name` and compares it with `source`.
#[track_caller]
fn restores(world: &World, address: &str, name: &str, source: &Path) {
    world.run(["restore", address, "-t", name, "-q"]).succeeds();
    same(source, &world.path(name));
}

#[track_caller]
fn same(a: &Path, b: &Path) {
    let mut found = trees(a, b, EXACT);
    // Long runs of zeros that were written come back as holes; `st_blocks` in the snapshot tells the difference.
    found.retain(|line| !(line.contains("zeros\": data at [(0, ") && line.ends_with("became data at []")));
    assert_eq!(found, Vec::<String>::new());
}

/// All names below a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}
