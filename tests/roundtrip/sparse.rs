//! A file far larger than the disk has room for: only its data counts. Not for: small holes (see the nasty tree).

use super::restores;
use crate::mount::{Mount, without_fuse};
use crate::support::compare::runs;
use crate::support::nasty::Random;
use crate::support::run::World;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

const SIZE: u64 = 20 << 30;

#[test]
fn twenty_gibibytes_of_hole() {
    let world = World::with_repository();
    std::fs::create_dir(world.path("source")).unwrap();
    let path = world.path("source/image");
    let file = File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    for part in 0..10 {
        file.write_all_at(&Random(part).bytes(1 << 20), part * (SIZE / 10) + (1 << 20)).unwrap();
    }
    file.sync_all().unwrap();
    let clock = Instant::now();
    let made = world.backup(0, ["source"]);
    let taken = clock.elapsed();
    assert!(taken < Duration::from_secs(10), "{taken:?}");
    let added = made["data_added"].as_u64().unwrap();
    assert!((10 << 20..11 << 20).contains(&added), "{made}");
    assert_eq!(made["total_bytes_processed"], SIZE);
    let address = format!("latest:{}", world.text("source"));
    restores(&world, &address, "out", &world.path("source"));
    assert!(world.path("out/image").metadata().unwrap().blocks() * 512 < 12 << 20);
    if without_fuse() {
        return;
    }
    let mount = Mount::of(&world, &[&address]);
    let shown = mount.path("image");
    assert_eq!(runs(&shown).unwrap(), runs(&path).unwrap());
    let (one, other) = (shown.metadata().unwrap(), path.metadata().unwrap());
    assert_eq!((one.size(), one.blocks()), (other.size(), other.blocks()));
    let (mut left, mut right) = (vec![0; 3 << 20], vec![0; 3 << 20]);
    let (shown, file) = (File::open(shown).unwrap(), File::open(path).unwrap());
    for part in 0..10 {
        shown.read_exact_at(&mut left, part * (SIZE / 10)).unwrap();
        file.read_exact_at(&mut right, part * (SIZE / 10)).unwrap();
        assert!(left == right, "part {part}");
    }
}
