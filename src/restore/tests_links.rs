//! Names of one file, in targets and from snapshots where they are not one file any more. Not for: honest cases (see `tests`).

use super::tests::*;
use super::*;
use crate::format::tree::{Body, HardLink, Metadata, Owner, Timestamp};
use crate::os::{self, FileTime};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::atomic::AtomicBool;

fn read(fixture: &Fixture, name: &str) -> Vec<u8> {
    fs::read(fixture.at("target").join(name)).unwrap()
}

fn inode(fixture: &Fixture, name: &str) -> u64 {
    fs::symlink_metadata(fixture.at("target").join(name)).unwrap().ino()
}

/// A file in the target that looks like one that was recorded by `file` with content of this length.
pub(super) fn plant(fixture: &Fixture, name: &str, bytes: &[u8]) {
    fs::create_dir_all(fixture.at("target").join(name).parent().unwrap()).unwrap();
    fs::write(fixture.at("target").join(name), bytes).unwrap();
    let file = fs::File::open(fixture.at("target").join(name)).unwrap();
    os::set_times_fd(&file, FileTime { seconds: 1_000_000, nanos: 123_456_789 }).unwrap();
}

/// Hears of everything, and does something each time that a file is done.
struct Meddler<F: Fn() + Send + Sync>(F, Mutex<Vec<String>>);

impl<F: Fn() + Send + Sync> Progress for Meddler<F> {
    fn files(&self, _: u64) {
        (self.0)();
    }

    fn note(&self, message: &str) {
        self.1.lock().unwrap().push(message.to_owned());
    }

    fn issue(&self, _: &Path, error: &Error) {
        self.1.lock().unwrap().push(error.chain());
    }
}

pub(super) fn restore_beside(fixture: &Fixture, meddle: impl Fn() + Send + Sync) -> (RestoreReport, Vec<String>) {
    let meddler = Meddler(meddle, Mutex::default());
    let options = RestoreOptions { verify: false, threads: 1, ..fixture.options() };
    let report = run(&fixture.repository, &fixture.snapshot, b"", &options, &meddler, &Stop::new()).unwrap();
    fixture.assert_clean();
    (report, meddler.1.into_inner().unwrap())
}

#[test]
fn names_that_disagree_are_files_of_their_own() {
    let data = |seed| vec![Piece::Data(noise(seed, 3000))];
    let fixture = Fixture::new(vec![
        file("a", data(1)).with(linked(1)),
        file("b", data(2)).with(linked(1)),
        file("c", data(1)).with(linked(1)),
        file("d", data(2)).with(linked(1)),
        file("mode", data(1)).with(linked(1)).with(|meta| meta.mode = 0o600),
        file("time", data(1)).with(linked(1)).with(|meta| meta.mtime.seconds = 7),
        file("birth", data(1)).with(linked(1)).with(|meta| meta.btime = Some(Timestamp { seconds: 1, nanos: 2 })),
        other("pipe", Body::Fifo).with(linked(1)),
        text("small", "x").with(linked(1)),
    ]);
    let (report, notes) = restore_beside(&fixture, || {});
    assert_eq!((report.files, report.hard_links, report.others), (6, 2, 1));
    assert!(notes.len() == 1 && notes[0].contains("as a file of its own"), "{notes:?}");
    for (name, seed) in [("a", 1), ("b", 2), ("c", 1), ("d", 2), ("mode", 1), ("time", 1), ("birth", 1)] {
        assert!(read(&fixture, name) == noise(seed, 3000), "{name}");
    }
    assert_eq!((read(&fixture, "small"), inode(&fixture, "a")), (b"x".to_vec(), inode(&fixture, "c")));
    assert_eq!(inode(&fixture, "b"), inode(&fixture, "d"));
    let mode = |name: &str| fs::metadata(fixture.at("target").join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("mode")), (0o640, 0o600));
    assert_eq!(fixture.restore_all(&fixture.options()).files, 0, "all is there");
}

#[test]
fn what_only_looks_unchanged_is_not_linked_to() {
    let data = || vec![Piece::Data(noise(3, 200_000))];
    let three = |meta: &mut Metadata| meta.link = Some(HardLink { group: 1, links: 3 });
    let things = || {
        vec![
            file("a", data()).with(three),
            dir("d", vec![file("b", data()).with(three), file("c", data()).with(three)]),
        ]
    };
    let fixture = Fixture::new(things());
    plant(&fixture, "a", &noise(4, 200_000));
    let (report, issues) = fixture.restore("", &RestoreOptions { verify: false, ..fixture.options() });
    assert_eq!((report.files, report.hard_links, report.skipped), (1, 1, 1));
    assert!(issues.len() == 1 && issues[0].contains("is not as recorded; it was left"), "{issues:?}");
    assert!(read(&fixture, "d/b") == noise(3, 200_000) && read(&fixture, "d/c") == noise(3, 200_000));
    assert_eq!(inode(&fixture, "d/b"), inode(&fixture, "d/c"));
    assert!(read(&fixture, "a") == noise(4, 200_000));
    // What is as recorded is linked to.
    let fixture = Fixture::new(things());
    plant(&fixture, "a", &noise(3, 200_000));
    let report = fixture.restore_all(&fixture.options());
    assert_eq!((report.files, report.hard_links, report.skipped), (0, 2, 1));
    assert_eq!(inode(&fixture, "a"), inode(&fixture, "d/c"));
    assert_eq!(fixture.restore_all(&fixture.options()).skipped, 3);
}

#[test]
fn what_took_the_place_of_a_first_name_is_not_linked_to() {
    let data = || vec![Piece::Data(noise(3, 5000))];
    // Replaced by another file; removed, so that the next file may get its inode number; and replaced by a symbolic link.
    let swaps: [&(dyn Fn(&Path) + Send + Sync); 3] = [
        &|first| {
            fs::write(first.with_file_name("other"), noise(9, 5000)).unwrap();
            fs::rename(first.with_file_name("other"), first).unwrap();
        },
        &|first| {
            fs::remove_file(first).unwrap();
            // Beyond a tick of the clock that times of birth are taken from.
            std::thread::sleep(Duration::from_millis(30));
            fs::write(first, noise(9, 5000)).unwrap();
        },
        &|first| {
            fs::write(first.with_file_name("other"), noise(9, 5000)).unwrap();
            fs::remove_file(first).unwrap();
            std::os::unix::fs::symlink("other", first).unwrap();
        },
    ];
    for (number, swap) in swaps.iter().enumerate() {
        let fixture = Fixture::new(vec![
            file("a", data()).with(linked(1)),
            dir("closed", vec![file("b", data()).with(linked(1))]).with(|meta| meta.mode = 0o700),
        ]);
        let first = fixture.at("target/a");
        let swapped = AtomicBool::new(false);
        let (report, notes) = restore_beside(&fixture, || {
            if !swapped.swap(true, Ordering::Relaxed) {
                swap(&first);
            }
        });
        assert_eq!((report.files, report.hard_links, report.issues), (2, 0, 0), "{number}");
        assert!(read(&fixture, "closed/b") == noise(3, 5000), "{number}");
        assert!(notes.iter().any(|note| note.contains("something else has taken its place")), "{notes:?}");
        assert!(inode(&fixture, "closed/b") != inode(&fixture, "a"));
    }
}

#[test]
fn a_first_name_that_is_gone_costs_nothing() {
    let fixture = Fixture::new(vec![
        file("a", vec![Piece::Data(noise(3, 5000)), Piece::Hole(70_000)]).with(linked(1)),
        text("b", "in the entry").with(linked(2)),
        file("c", vec![Piece::Data(noise(3, 5000)), Piece::Hole(70_000)]).with(linked(1)),
        text("d", "in the entry").with(linked(2)),
        other("e", Body::Symlink(b"to".to_vec())).with(linked(3)),
        other("f", Body::Symlink(b"to".to_vec())).with(linked(3)),
    ]);
    let (a, b, e) = (fixture.at("target/a"), fixture.at("target/b"), fixture.at("target/e"));
    let (report, _) = restore_beside(&fixture, || {
        [&a, &b, &e].into_iter().for_each(|path| drop(fs::remove_file(path)));
    });
    assert_eq!((report.files, report.others, report.hard_links, report.issues), (4, 2, 0, 0));
    assert!(read(&fixture, "c") == [noise(3, 5000), vec![0; 70_000]].concat());
    assert_eq!(read(&fixture, "d"), b"in the entry");
    assert_eq!(fs::read_link(fixture.at("target/f")).unwrap(), Path::new("to"));
}

#[test]
fn a_file_that_must_not_be_linked_is_written_again() {
    if !os::is_root() {
        return;
    }
    let data = || vec![Piece::Data(noise(3, 5000))];
    let fixture = Fixture::new(vec![file("a", data()).with(linked(1)), file("b", data()).with(linked(1))]);
    plant(&fixture, "a", &noise(3, 5000));
    let file = fs::File::open(fixture.at("target/a")).unwrap();
    // A file system without this flag would do what the test above sees to.
    let frozen = os::set_file_flags(&file, rustix::fs::IFlags::IMMUTABLE.bits()).is_ok();
    let (report, notes) = restore_beside(&fixture, || {});
    drop(os::set_file_flags(&file, 0));
    assert_eq!((report.files, report.hard_links), if frozen { (1, 0) } else { (0, 1) });
    let told = notes.iter().filter(|note| note.contains("could not be linked"));
    assert_eq!(told.count(), usize::from(frozen), "{notes:?}");
    assert!(read(&fixture, "b") == noise(3, 5000));
}

#[test]
fn folders_of_others_are_closed_before_anything_is_in_them() {
    if !os::is_root() {
        return;
    }
    let fixture = Fixture::new(vec![
        dir("mine", vec![text("f", "1")]).with(|meta| meta.mode = 0o700),
        dir("open", vec![text("g", "2")]).with(|meta| meta.mode = 0o755),
    ]);
    for name in ["target", "target/mine", "target/open"] {
        fs::create_dir(fixture.at(name)).unwrap();
        fs::set_permissions(fixture.at(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    for name in ["target", "target/mine"] {
        chown(fixture.at(name), Some(4242), Some(4242)).unwrap();
    }
    let state = |name: &str| {
        let found = fs::metadata(fixture.at(name)).unwrap();
        (found.uid(), found.mode() & 0o7777)
    };
    let seen = Mutex::new(Vec::new());
    let (_, notes) = restore_beside(&fixture, || {
        seen.lock().unwrap().push([state("target"), state("target/mine"), state("target/open")]);
    });
    assert_eq!(*seen.lock().unwrap(), [[(0, 0o700), (0, 0o700), (0, 0o755)]; 2]);
    assert_eq!(state("target"), (4242, 0o777), "it is given back");
    assert_eq!((state("target/mine"), state("target/open")), ((0, 0o700), (0, 0o755)));
    assert!(notes.len() == 1 && notes[0].contains("only root can use it"), "{notes:?}");
}

/// Somebody who may rename what is in a folder puts own folders in the place of those that were just made for others only.
#[test]
fn folders_that_took_the_place_of_new_ones_get_nothing() {
    if !os::is_root() {
        return;
    }
    // More than there are handles for.
    const COUNT: usize = 300;
    let theirs = |meta: &mut Metadata| meta.owner = Arc::new(Owner { uid: 4242, ..(*meta.owner).clone() });
    let secret = |number: usize| {
        let name: &'static str = format!("secret{number:03}").leak();
        dir(name, vec![text("f", "secret"), dir("deep", vec![text("g", "secret")])]).with(|meta| meta.mode = 0o700)
    };
    let fixture = Fixture::new(vec![text("a", "1"), dir("home", (0..COUNT).map(secret).collect()).with(theirs)]);
    let home = fixture.at("target/home");
    fs::create_dir_all(&home).unwrap();
    chown(&home, Some(4242), Some(4242)).unwrap();
    let place = |kind: &str, number: usize| home.join(format!("{kind}{number:03}"));
    let swapped = AtomicBool::new(false);
    let (report, told) = restore_beside(&fixture, || {
        if swapped.swap(true, Ordering::Relaxed) {
            return;
        }
        for number in 0..COUNT {
            fs::rename(place("secret", number), place("moved", number)).unwrap();
            for name in [place("secret", number), place("secret", number).join("deep")] {
                fs::create_dir(&name).unwrap();
                chown(&name, Some(4242), Some(4242)).unwrap();
                fs::set_permissions(&name, fs::Permissions::from_mode(0o711)).unwrap();
            }
        }
    });
    let mut files = 1;
    for number in 0..COUNT {
        let name = place("secret", number);
        for (folder, names) in [(&name, 1), (&name.join("deep"), 0)] {
            let found = fs::metadata(folder).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o7777), (4242, 0o711), "{folder:?}");
            assert_eq!(fs::read_dir(folder).unwrap().count(), names, "{folder:?}");
        }
        let moved = place("moved", number);
        files += [moved.join("f"), moved.join("deep/g")].iter().filter(|path| path.exists()).count();
    }
    assert_eq!(report.files, files as u64, "what has not come into a folder that root made has not come anywhere");
    assert!(files < 2 * COUNT && report.issues as usize >= 2 * COUNT + 1 - files, "{report:?}");
    assert_eq!(told.len() as u64, report.issues);
    assert!(told.iter().all(|message| message.contains("another directory has taken its place")), "{told:?}");
}

#[test]
fn a_new_folder_is_of_root_or_becomes_so() {
    if !os::is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    fs::create_dir(&made).unwrap();
    let handle = |path: &Path| os::open_path(os::CWD, path.as_os_str().as_encoded_bytes()).unwrap();
    chown(&made, Some(4242), Some(4242)).unwrap();
    super::target::keep_own(&handle(folder.path()), &handle(&made)).unwrap();
    let found = fs::metadata(&made).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (os::user_id(), 0o700));
    // On another file system it cannot be what was made in that folder.
    let shared = tempfile::tempdir_in("/dev/shm").unwrap();
    chown(shared.path(), Some(4242), None).unwrap();
    assert!(super::target::keep_own(&handle(folder.path()), &handle(shared.path())).is_err());
}
