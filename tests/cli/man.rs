//! The manual pages in the repository are those of the program.

use crate::support::run::World;
use std::collections::BTreeMap;
use std::path::Path;

fn pages(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let name = |entry: &std::fs::DirEntry| entry.file_name().into_string().unwrap();
    entries
        .filter(|entry| name(entry).ends_with(".1"))
        .map(|entry| (name(&entry), std::fs::read_to_string(entry.path()).unwrap()))
        .collect()
}

#[test]
fn the_pages_are_up_to_date() {
    let world = World::new();
    std::fs::create_dir(world.path("man")).unwrap();
    world.run(["man", &world.text("man")]).succeeds();
    let made = pages(&world.path("man"));
    let kept = pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("man"));
    assert_eq!(made.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>(), "run: cargo run -- man man");
    for (name, page) in &made {
        assert!(*page == kept[name], "man/{name} is not up to date; run: cargo run -- man man");
    }
}
