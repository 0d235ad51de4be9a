//! From a snapshot and a path to an entry. Not for: listings or content.

use crate::error::{Error, ErrorKind, Result};
use crate::format::page::Page;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Body, Entry, Totals};
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::tree::check_child;

/// The name under which the root directory is recorded.
pub const ROOT_NAME: &[u8] = b"root";

/// The entry of a snapshot's root directory, "/".
pub fn root(repository: &Repository, snapshot: &Snapshot) -> Result<Entry> {
    root_of(repository, snapshot.tree, &snapshot.totals)
}

/// The same, of a snapshot that has this tree and says this of it.
pub fn root_of(repository: &Repository, tree: ChunkId, said: &Totals) -> Result<Entry> {
    let page = repository.page(&tree)?;
    match page {
        Page::Leaf(mut entries)
            if entries.len() == 1
                && entries[0].name == ROOT_NAME
                && matches!(&entries[0].body, Body::Directory { totals, .. } if totals == said) =>
        {
            Ok(entries.swap_remove(0))
        }
        _ => Err(Error::damaged(format!("The tree page \"{tree}\" is not a snapshot's root"))),
    }
}

/// The entry named `name` in the directory with this top page; reads one page a level.
pub fn lookup(repository: &Repository, top: ChunkId, name: &[u8]) -> Result<Option<Entry>> {
    let mut page = repository.page(&top)?;
    let mut before: Option<Vec<u8>> = None;
    loop {
        match page {
            Page::Leaf(mut entries) => {
                let found = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok();
                return Ok(found.map(|at| entries.swap_remove(at)));
            }
            Page::Interior { level, children } => {
                let after = children.partition_point(|child| child.first_name.as_slice() <= name);
                let Some(child) = after.checked_sub(1).map(|at| &children[at]) else { return Ok(None) };
                if let Some(next) = children.get(after) {
                    before = Some(next.first_name.clone());
                }
                page = repository.page(&child.page)?;
                check_child(&page, (page.direct(), &page.totals()?), level - 1, child, before.as_deref())?;
            }
        }
    }
}

/// The entry at an absolute, normalised path (empty or "/": the root). A missing one is `NotFound` and hints at near matches.
pub fn find(repository: &Repository, snapshot: &Snapshot, path: &[u8]) -> Result<Entry> {
    let mut entry = root(repository, snapshot)?;
    let mut walked: Vec<u8> = Vec::new();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let Body::Directory { page, .. } = entry.body else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("\"{}\" is not a directory in this snapshot", String::from_utf8_lossy(&walked)),
            ));
        };
        match lookup(repository, page, name)? {
            Some(found) => entry = found,
            None => return Err(missing(repository, page, &walked, name)),
        }
        walked.push(b'/');
        walked.extend_from_slice(name);
    }
    Ok(entry)
}

/// Entries looked at for a near match; a hint is not worth reading a huge directory.
const NEAR_LIMIT: usize = 10_000;

fn missing(repository: &Repository, page: ChunkId, walked: &[u8], name: &[u8]) -> Error {
    let folder = String::from_utf8_lossy(walked).into_owned();
    let wanted = String::from_utf8_lossy(name).into_owned();
    let error = Error::new(ErrorKind::NotFound, format!("There is no \"{folder}/{wanted}\" in this snapshot"));
    let mut near: Vec<(usize, String)> = repository
        .entries(page)
        .take(NEAR_LIMIT)
        .map_while(Result::ok)
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
        .map(|other| (distance(&wanted.to_lowercase(), &other.to_lowercase()), other))
        .filter(|(distance, other)| *distance <= 1 + wanted.len().max(other.len()) / 3)
        .collect();
    near.sort();
    let list: Vec<String> = near.into_iter().take(3).map(|(_, other)| format!("\"{folder}/{other}\"")).collect();
    match list.is_empty() {
        true => error.with_hint("List the folder above it with \"firn ls\"."),
        false => error.with_hint(format!("Near matches: {}", list.join(", "))),
    }
}

/// Edits that turn one word into the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
