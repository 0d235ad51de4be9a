//! Contents that cannot be: lengths, holes, lists of lists. Not for: directories (see `pages`).

use super::forge::{Chunks, Forge, Raw, list_interior, list_leaf};
use super::oracle::{Told, of, refused};
use firn::id::ChunkId;

/// Everything a person may do with a snapshot of one file, "/d/f", beside "/good".
pub(super) fn told(all: bool, file: impl FnOnce(&mut Chunks<'_, '_>) -> Raw) -> (Forge, Vec<Told>) {
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| {
        let file = file(chunks);
        let (page, sums) = chunks.folder(&[file]);
        chunks.folder(&[Raw::dir(b"d", page, sums), Raw::file(b"good", b"good")])
    });
    let told = if all { forge.everything(&id, "/d/f") } else { forge.most(&id, "/d/f") };
    (forge, told)
}

/// `by_data`: only a check that reads all data can know.
#[track_caller]
pub(super) fn is_refused(what: &str, by_data: bool, file: impl FnOnce(&mut Chunks<'_, '_>) -> Raw) {
    let (forge, mut told) = told(what.contains("chunk") || what == "a page twice", file);
    if by_data {
        told.retain(|told| told.name != "check");
        told.push(Told { name: "check", ran: forge.bounded(&["check", "--read-data"]) });
    }
    refused(&told);
    let check = of(&told, "check");
    assert!(check.code == 5 && check.stdout.contains("/d"), "{what}: {check:?}");
    assert_ne!(of(&told, "dump").code, 0, "{what}");
    assert!(!forge.world.path("inner/dumped").exists(), "{what}");
    assert!(!forge.world.path("inner/target/d/f").exists(), "{what}");
    assert_eq!(std::fs::read(forge.world.path("inner/target/good")).unwrap(), b"good", "{what}");
}

#[test]
fn lengths_that_lie() {
    let noise = |length: usize| vec![7; length];
    is_refused("shorter chunk", true, |chunks| {
        let id = chunks.content(&noise(100));
        Raw::extents(b"f", 200, &[(200, Some(id))])
    });
    is_refused("longer chunk", true, |chunks| {
        let id = chunks.content(&noise(300_000));
        Raw::extents(b"f", 200, &[(200, Some(id))])
    });
    is_refused("in a list", true, |chunks| {
        let id = chunks.content(&noise(100));
        let mut extents = vec![(100, Some(id)); 40];
        extents[20].0 = 101;
        let page = chunks.list(&list_leaf(&extents));
        Raw::list(b"f", 4001, page)
    });
    is_refused("file's size", false, |chunks| {
        let id = chunks.content(&noise(100));
        Raw::extents(b"f", 101, &[(100, Some(id))])
    });
    is_refused("list's size", false, |chunks| {
        let id = chunks.content(&noise(100));
        let page = chunks.list(&list_leaf(&[(100, Some(id)); 40]));
        Raw::list(b"f", 4001, page)
    });
    is_refused("no such chunk", false, |_| Raw::extents(b"f", 9, &[(9, Some(ChunkId([9; 32])))]));
    is_refused("chunk of 4 GiB", false, |chunks| {
        let id = chunks.content(&noise(100));
        Raw::extents(b"f", u64::from(u32::MAX), &[(u64::from(u32::MAX), Some(id))])
    });
    is_refused("inline", false, |_| {
        let mut body = vec![5, 0];
        body.extend_from_slice(b"long");
        Raw::new(b"f", 1, body)
    });
    is_refused("of another kind", false, |chunks| {
        let id = chunks.list(&noise(100));
        Raw::extents(b"f", 100, &[(100, Some(id))])
    });
}

#[test]
fn holes_that_touch() {
    is_refused("in the entry", false, |_| Raw::extents(b"f", 20, &[(10, None), (10, None)]));
    let touching = |chunks: &mut Chunks<'_, '_>, level: u8| {
        let id = chunks.content(&[1; 100]);
        let left = chunks.list(&list_leaf(&[(100, Some(id)), (50, None)]));
        let right = chunks.list(&list_leaf(&[(50, None), (100, Some(id))]));
        let mut children = vec![(left, 150, 2), (right, 150, 2)];
        for level in 1..level {
            children =
                children.into_iter().map(|child| (chunks.list(&list_interior(level, &[child])), 150, 2)).collect();
        }
        let top = chunks.list(&list_interior(level, &children));
        Raw::list(b"f", 300, top)
    };
    is_refused("across pages", false, |chunks| touching(chunks, 1));
    is_refused("across pages of pages", false, |chunks| touching(chunks, 3));
    is_refused("a page twice", false, |chunks| {
        let page = chunks.list(&list_leaf(&[(1 << 40, None)]));
        let top = chunks.list(&list_interior(1, &[(page, 1 << 40, 1), (page, 1 << 40, 1)]));
        Raw::list(b"f", 2 << 40, top)
    });
}

#[test]
fn lists_that_lie() {
    let leaf = |chunks: &mut Chunks<'_, '_>| {
        let id = chunks.content(&[1; 100]);
        chunks.list(&list_leaf(&[(100, Some(id)); 40]))
    };
    for (what, level, child) in [
        ("level", 2, (4000, 40)),
        ("level 17", 17, (4000, 40)),
        ("bytes", 1, (4001, 40)),
        ("extents", 1, (4000, 41)),
        ("no extents", 1, (4000, 0)),
        ("sum", 1, (u64::MAX - 3999, 40)),
    ] {
        is_refused(what, false, |chunks| {
            let page = leaf(chunks);
            let top = chunks.list(&list_interior(level, &[(page, 4000, 40), (page, child.0, child.1)]));
            Raw::list(b"f", 4000u64.wrapping_add(child.0), top)
        });
    }
    is_refused("empty", false, |chunks| {
        let page = chunks.list(&[0, 0]);
        Raw::list(b"f", 1, page)
    });
    is_refused("a tree page", false, |chunks| {
        let page = chunks.folder(&[Raw::file(b"a", b"b")]).0;
        Raw::list(b"f", 4000, page)
    });
    is_refused("many", false, |chunks| {
        let page = chunks.list(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        Raw::list(b"f", 4000, page)
    });
}

/// A file of 10^16 extents, told truly: looking at it is quick, and whoever wants all of it may stop.
#[test]
fn a_bomb_of_list_pages() {
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| {
        let chunk = chunks.content(b"x");
        let mut page = chunks.list(&list_leaf(&[(1, Some(chunk)); 1000]));
        let mut covered = 1000;
        for level in 1..=4 {
            page = chunks.list(&list_interior(level, &vec![(page, covered, covered); 1000]));
            covered *= 1000;
        }
        chunks.folder(&[Raw::list(b"f", covered, page), Raw::file(b"good", b"good")])
    });
    for arguments in [&["ls", "-l", &id][..], &["check"], &["check", "--read-data"], &["stats", "--deep"]] {
        assert_eq!(forge.bounded(arguments).code, 0, "{arguments:?}");
    }
}
