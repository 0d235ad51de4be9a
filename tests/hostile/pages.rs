//! Directories that cannot be: names, orders, sums, levels, and far too many of everything. Not for: contents (see `lists`).

use super::forge::{Below, Chunks, Forge, Raw, Sums, interior, leaf};
use super::oracle::{Told, accepted, of, refused};
use firn::id::ChunkId;

/// What a person may do with a snapshot of this one directory, "/d", beside which "/good" lies.
fn told(all: bool, directory: impl FnOnce(&mut Chunks<'_, '_>) -> (ChunkId, Sums)) -> (Forge, Vec<Told>) {
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| {
        let (page, sums) = directory(chunks);
        chunks.folder(&[Raw::dir(b"d", page, sums), Raw::file(b"good", b"good")])
    });
    let told = if all { forge.everything(&id, "/good") } else { forge.most(&id, "/good") };
    (forge, told)
}

#[track_caller]
fn is_refused(what: &str, directory: impl FnOnce(&mut Chunks<'_, '_>) -> (ChunkId, Sums)) {
    let (forge, told) = told(what.starts_with("name \"..") || what == "overlap" || what == "sums", directory);
    refused(&told);
    // What is beside it is there, and nothing of what is wrong.
    assert_eq!(std::fs::read(forge.world.path("inner/target/good")).unwrap(), b"good", "{what}");
    assert_eq!(std::fs::read(forge.world.path("inner/dumped")).unwrap(), b"good", "{what}");
    let check = of(&told, "check");
    assert!(check.stdout.contains("/d") || check.stderr.contains("/d"), "{what}: {check:?}");
}

#[test]
fn an_honest_forgery_is_a_backup() {
    let (forge, told) = told(true, |chunks| {
        let (page, sums) = chunks.folder(&[Raw::file(b"a", b"1")]);
        let (other, more) = chunks.folder(&[Raw::file(b"b", b"2"), Raw::link(b"c", b"../../outside/sentinel")]);
        let child = |first: &[u8], page, direct, sums| Below { first: first.to_vec(), page, direct, sums };
        let (top, sums) = interior(1, &[child(b"a", page, 1, sums), child(b"b", other, 2, more)]);
        (chunks.tree(&top), sums)
    });
    accepted(&told);
    assert_eq!(std::fs::read(forge.world.path("inner/target/d/b")).unwrap(), b"2");
}

#[test]
fn names_that_lead_elsewhere() {
    let names: [&[u8]; 10] =
        [b"..", b".", b"/", b"", b"a/b", b"../../outside/x", b"/tmp/x", b"a\0b", b"\0", b"x/../../outside/y"];
    for name in names {
        let what = format!("name {:?}", name.escape_ascii().to_string());
        is_refused(&what, |chunks| chunks.folder(&[Raw::file(name, b"evil")]));
    }
    // As directories, which are entered, and as links.
    for name in [&b".."[..], b"a/b"] {
        is_refused("directory", |chunks| {
            let (page, sums) = chunks.folder(&[Raw::file(b"inside", b"evil")]);
            chunks.folder(&[Raw::dir(name, page, sums)])
        });
        is_refused("link", |chunks| chunks.folder(&[Raw::link(name, b"/etc")]));
    }
}

#[test]
fn entries_out_of_order() {
    let file = |name: &[u8]| Raw::file(name, b"evil");
    is_refused("twice", |chunks| chunks.folder(&[file(b"a"), file(b"a")]));
    is_refused("unsorted", |chunks| chunks.folder(&[file(b"b"), file(b"a")]));
    // A link, and a file that would be written through it.
    is_refused("through", |chunks| {
        chunks.folder(&[Raw::link(b"a", b"/"), Raw::dir(b"a", ChunkId([1; 32]), Sums(1, 1, 1, 0))])
    });
    is_refused("mode", |chunks| chunks.folder(&[file(b"a").mode(0o100_644)]));
    is_refused("type", |chunks| chunks.folder(&[Raw::new(b"a", 9, vec![])]));
    is_refused("rest", |chunks| {
        let (mut page, sums) = leaf(&[file(b"a")], None);
        page.push(0);
        (chunks.tree(&page), sums)
    });
    is_refused("many", |chunks| {
        let (mut page, sums) = leaf(&[file(b"a")], None);
        // The number of entries stands behind one owner and no sets.
        page.splice(7..8, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        (chunks.tree(&page), sums)
    });
    is_refused("owners", |chunks| {
        let (mut page, sums) = leaf(&[file(b"a")], None);
        page.splice(1..2, [0xff, 0xff, 0xff, 0xff, 0xf]);
        (chunks.tree(&page), sums)
    });
    is_refused("too long", |chunks| {
        let entries: Vec<Raw> = (10_000..20_000).map(|n| file(n.to_string().as_bytes())).collect();
        chunks.folder(&entries)
    });
    is_refused("of another kind", |chunks| (chunks.content(&leaf(&[file(b"a")], None).0), Sums(1, 1, 4, 0)));
}

/// Changes the level and the children of an interior page.
type Lie = fn(&mut u8, &mut [Below]);

/// An interior page over two leaves, after `change`.
fn two_leaves(
    chunks: &mut Chunks<'_, '_>,
    names: [&[&[u8]]; 2],
    change: impl FnOnce(&mut u8, &mut [Below]),
) -> (ChunkId, Sums) {
    let mut children = names.map(|names| {
        let entries: Vec<Raw> = names.iter().map(|name| Raw::file(name, b"evil")).collect();
        let (page, sums) = chunks.folder(&entries);
        Below { first: names[0].to_vec(), page, direct: names.len() as u64, sums }
    });
    let mut level = 1;
    change(&mut level, &mut children);
    let (page, sums) = interior(level, &children);
    (chunks.tree(&page), sums)
}

#[test]
fn pages_that_lie() {
    let names: [&[&[u8]]; 2] = [&[b"a", b"b"], &[b"c", b"d"]];
    let lies: [(&str, Lie); 9] = [
        ("level", |level, _| *level = 2),
        ("level 17", |level, _| *level = 17),
        ("level 255", |level, _| *level = 255),
        ("first name", |_, below| below[1].first = b"bb".to_vec()),
        ("direct", |_, below| below[0].direct = 1),
        ("nothing", |_, below| below[0].direct = 0),
        ("order", |_, below| below.swap(0, 1)),
        ("sums", |_, below| below[1].sums.0 = 3),
        ("bytes", |_, below| below[1].sums.2 = u64::MAX - 100),
    ];
    for (what, lie) in lies {
        is_refused(what, |chunks| two_leaves(chunks, names, lie));
    }
    is_refused("overlap", |chunks| two_leaves(chunks, [&[b"a", b"c"], &[b"b", b"d"]], |_, _| {}));
    is_refused("the same name", |chunks| two_leaves(chunks, [&[b"a", b"c"], &[b"c", b"d"]], |_, _| {}));
    is_refused("directory's sums", |chunks| {
        let (page, sums) = chunks.folder(&[Raw::file(b"a", b"evil")]);
        let (above, _) = chunks.folder(&[Raw::dir(b"e", page, Sums(7, 7, 7, 0))]);
        (above, sums.plus(Sums(1, 0, 0, 0)))
    });
    is_refused("no children", |chunks| (chunks.tree(&[1, 0]), Sums::default()));
}

/// Overlapping pages whose overlap only the page two levels above tells.
#[test]
fn pages_that_overlap_across_levels() {
    is_refused("cousins", |chunks| {
        let mut sides = Vec::new();
        for names in [[&[&b"a"[..]][..], &[&b"b"[..], b"x"]], [&[&b"m"[..]][..], &[b"z"]]] {
            let (page, sums) = two_leaves(chunks, names, |_, _| {});
            sides.push(Below { first: names[0][0].to_vec(), page, direct: sums.0, sums });
        }
        let (page, sums) = interior(2, &sides);
        (chunks.tree(&page), sums)
    });
}

/// Directories within directories, each twice in the one above.
fn bomb(chunks: &mut Chunks<'_, '_>, levels: u32) -> (ChunkId, Sums) {
    let (mut page, mut sums) = chunks.folder(&[Raw::file(b"f", b"boom")]);
    for _ in 0..levels {
        (page, sums) = chunks.folder(&[Raw::dir(b"a", page, sums), Raw::dir(b"b", page, sums)]);
    }
    (page, sums)
}

#[test]
fn bombs_of_directories() {
    // More than any snapshot can have, and stated: the snapshot is refused as such.
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| bomb(chunks, 60));
    let told = forge.everything(&id, "/a");
    for name in ["ls", "restore", "dump", "check", "check all"] {
        assert_ne!(of(&told, name).code, 0, "{name}: {:?}", of(&told, name));
    }
    assert!(of(&told, "ls").stdout.len() < 1000);
    // As many, under a root that claims little.
    is_refused("under a lie", |chunks| {
        let (page, _) = bomb(chunks, 60);
        (page, Sums(100, 10, 40, 0))
    });
    is_refused("under a lie further down", |chunks| {
        let (page, _) = bomb(chunks, 50);
        let (page, sums) = chunks.folder(&[Raw::dir(b"a", page, Sums(9, 9, 36, 0))]);
        chunks.folder(&[Raw::dir(b"b", page, sums)])
    });
    // A truthful one that a snapshot can have: whoever looks for everything in it must wait, a check need not.
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| bomb(chunks, 33));
    for arguments in [&["snapshots"][..], &["ls", "-l", &id], &["check"], &["check", "--read-data"], &["stats"]] {
        assert_eq!(forge.bounded(arguments).code, 0, "{arguments:?}");
    }
}

#[test]
fn directories_too_deep() {
    let chain = |chunks: &mut Chunks<'_, '_>, depth: usize, name: &[u8]| {
        let (mut page, mut sums) = chunks.folder(&[Raw::file(b"f", b"deep")]);
        for _ in 0..depth {
            (page, sums) = chunks.folder(&[Raw::dir(name, page, sums)]);
        }
        (page, sums)
    };
    is_refused("too deep", |chunks| chain(chunks, 4200, b"d"));
    // The longest paths that there can be: 4,096 names of 255 bytes.
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| chain(chunks, 4090, &[b'n'; 255]));
    let listed = forge.bounded(&["ls", "-R", &id]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert_eq!(forge.bounded(&["check"]).code, 0);
}
