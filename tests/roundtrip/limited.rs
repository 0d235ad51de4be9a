//! Targets on file systems that keep less than a snapshot holds: exFAT, served by a program from a file. Not for: what other
//! file systems lack.

use crate::support::run::World;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A file system of this kind in a file, as a block device, mounted until it is dropped.
struct Mounted {
    folder: PathBuf,
    device: String,
}

impl Mounted {
    fn exfat(world: &World) -> Mounted {
        let (image, folder) = (world.path("image"), world.path("limited"));
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(&folder).unwrap();
        let run = |program: &str, path: &Path| {
            let status = Command::new(program).arg(path).stdout(Stdio::null()).status().expect("see .ci/setup");
            assert!(status.success(), "{program}");
        };
        run("mkfs.exfat", &image);
        let device = Command::new("losetup").args(["--find", "--show"]).arg(&image).output().unwrap();
        assert!(device.status.success(), "{device:?}");
        let mounted = Mounted { folder, device: String::from_utf8(device.stdout).unwrap().trim().to_owned() };
        let mut serve = Command::new("mount.exfat-fuse");
        serve.arg(&mounted.device).arg(&mounted.folder).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(serve.status().expect("see .ci/setup").success());
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        let is_away = || Command::new("umount").arg(&self.folder).stderr(Stdio::null()).status().unwrap().success();
        while !is_away() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(Command::new("losetup").arg("--detach").arg(&self.device).status());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort_by_key(|name| name.to_lowercase());
    found
}

#[test]
fn names_that_fall_together_are_told() {
    let world = World::with_repository();
    for (name, text) in [("Makefile", "1"), ("makefile", "22"), ("Dir/a", "333"), ("dir/b", "4444"), ("x", "5")] {
        world.write(&format!("source/{name}"), text.as_bytes());
    }
    world.backup(0, ["source"]);
    let address = format!("latest:{}", world.text("source"));
    let mounted = Mounted::exfat(&world);
    let out = mounted.folder.join("out");
    // Into a new folder, into one that holds the first half, and so with each way to treat what is there.
    for (number, overwrite) in ["never", "if-changed", "always", "never"].into_iter().enumerate() {
        let ran = world.run(["restore", &address, "-t", out.to_str().unwrap(), "--overwrite", overwrite]).fails(3, &[]);
        for name in ["makefile", "dir"] {
            let told = ran.stderr.matches("does not tell its name from that of something else").count();
            assert!(told == 2 && ran.stderr.to_lowercase().contains(name), "{overwrite}: {ran:?}");
        }
        let count = if number == 0 { "Restored 3 files" } else { "" };
        assert!(ran.stdout.contains(count), "{ran:?}");
        assert_eq!(names(&out).iter().map(|name| name.to_lowercase()).collect::<Vec<_>>(), ["dir", "makefile", "x"]);
        // One of both, whole.
        let text = fs::read_to_string(out.join("makefile")).unwrap();
        assert!(text == "1" || text == "22", "{text}");
        assert_eq!(fs::read_to_string(out.join("x")).unwrap(), "5");
    }
    // Into one that holds the second half: what has its name is the first half's, too.
    for (number, overwrite) in ["never", "if-changed", "always"].into_iter().enumerate() {
        let out = mounted.folder.join(format!("second{number}"));
        for folder in [&out, &out.join("dir")] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(out.join("makefile"), "22").unwrap();
        let recorded = fs::metadata(world.path("source/makefile")).unwrap().modified().unwrap();
        fs::File::options().write(true).open(out.join("makefile")).unwrap().set_modified(recorded).unwrap();
        // The second time everything is there.
        for _ in 0..2 {
            let ran =
                world.run(["restore", &address, "-t", out.to_str().unwrap(), "--overwrite", overwrite]).fails(3, &[]);
            let told = ran.stderr.matches("does not tell its name from that of something else").count();
            assert_eq!(told, 2, "{overwrite}: {ran:?}");
            for what in ["/source/makefile\" could not be restored", "/source/dir\" and what is in it could not be"] {
                assert!(ran.stderr.contains(what), "{overwrite}: {ran:?}");
            }
            assert_eq!(
                names(&out).iter().map(|name| name.to_lowercase()).collect::<Vec<_>>(),
                ["dir", "makefile", "x"]
            );
            assert_eq!(names(&out.join("dir")), ["a"], "{overwrite}");
            let text = fs::read_to_string(out.join("makefile")).unwrap();
            assert_eq!(text, if overwrite == "never" { "22" } else { "1" });
        }
    }
    // What does not fall together comes back without a word, and compares, times of two seconds and all.
    let other = mounted.folder.join("other");
    let ran =
        world.run(["restore", &address, "-t", other.to_str().unwrap(), "--verify", "--exclude", "[mdMD]*"]).succeeds();
    assert!(ran.stdout.contains("compared 1 file"), "{ran:?}");
    let again =
        world.run(["restore", &address, "-t", other.to_str().unwrap(), "--verify", "--exclude", "[mdMD]*"]).succeeds();
    assert!(again.stdout.contains("Restored 0 files") && again.stdout.contains("compared 1 file"), "{again:?}");
}
