//! The golden repositories through the library. Not for: making them (`maker`).

use super::maker::SOURCE;
use super::manifest::{self, Manifest};
use super::{GOLDEN, PASSWORD, golden_folder, open};
use std::collections::BTreeMap;
use std::fs;

/// The manifest of each snapshot of a golden repository.
pub(crate) fn manifests(folder: &str) -> BTreeMap<String, Manifest> {
    let text = fs::read_to_string(golden_folder().join(folder).with_extension("manifest")).unwrap();
    let mut parts = text.split("\nsnapshot ");
    assert_eq!(parts.next(), Some(&*format!("# password: {PASSWORD}")));
    parts
        .map(|part| {
            let mut lines = part.lines();
            (lines.next().unwrap().to_owned(), manifest::parse(lines))
        })
        .collect()
}

#[test]
fn every_golden_repository_is_tested() {
    let mut found: Vec<String> = fs::read_dir(golden_folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, [&GOLDEN[..], &["vectors"]].concat());
}

#[test]
fn golden_repositories_read_as_they_were_written() {
    for folder in GOLDEN {
        let repository = open(&golden_folder().join(folder), PASSWORD);
        assert!(repository.warnings.is_empty(), "{:?}", repository.warnings);
        repository.check_writable().unwrap();
        let snapshots = repository.snapshots().unwrap();
        assert!(snapshots.damaged.is_empty(), "{:?}", snapshots.damaged);
        assert_eq!(snapshots.forgotten.len(), 1, "one has a tomb");
        let expected = manifests(folder);
        let names: Vec<String> = snapshots.live.iter().map(|named| named.name.to_string()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.iter().eq(expected.keys()) || names.iter().rev().eq(expected.keys()));
        for (name, expected) in &expected {
            let found = manifest::of_snapshot(&repository, name, SOURCE.as_bytes());
            assert_eq!(manifest::differences(expected, &found), Vec::<String>::new(), "{folder} {name}");
            assert!(found.len() > 700);
        }
        assert!(repository.index().unwrap().damaged.is_empty());
    }
}

/// The tree must hold what it was made to hold, or the tests around it prove little.
#[test]
fn golden_repositories_hold_the_hard_cases() {
    use firn::format::list::ListPage;
    use firn::format::page::Page;
    use firn::format::tree::{Attributes, Body, Content};
    for folder in GOLDEN {
        let repository = open(&golden_folder().join(folder), PASSWORD);
        let snapshots = repository.snapshots().unwrap();
        let newest = &snapshots.resolve("latest", &Default::default()).unwrap().snapshot;
        let find =
            |path: &str| firn::view::path::find(&repository, newest, format!("{SOURCE}/{path}").as_bytes()).unwrap();
        let Body::Directory { page, .. } = find("many").body else { panic!("many is a folder") };
        assert!(matches!(repository.page(&page).unwrap(), Page::Interior { children, .. } if children.len() > 2));
        let Body::File { content: Content::List(list), .. } = find("sparse/long-comb").body else { panic!("no list") };
        assert!(matches!(repository.list_page(&list).unwrap(), ListPage::Interior { level: 1, .. }));
        let Body::File { content: Content::List(list), .. } = find("sparse/comb").body else { panic!("no list") };
        assert!(matches!(repository.list_page(&list).unwrap(), ListPage::Extents(extents) if extents.len() > 32));
        let set = find("special/attribute").meta.attributes.unwrap();
        assert!(matches!(&*set, Attributes::Chunk(_, 1025..)));
        let count = |kind: &str| walk(&golden_folder().join(folder).join(kind));
        assert!(count("data").0 >= 3 && count("tree").0 >= 3 && count("index").0 >= 3 && count("tombs").0 == 1);
        let size = walk(&golden_folder().join(folder)).1;
        assert!(size < 300 << 10, "{size} bytes");
    }
}

fn walk(folder: &std::path::Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let meta = entry.metadata().unwrap();
        let (count, size) = if meta.is_dir() { walk(&entry.path()) } else { (1, meta.len()) };
        sum = (sum.0 + count, sum.1 + size);
    }
    sum
}
