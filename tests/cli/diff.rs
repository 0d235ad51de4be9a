//! What `firn diff` says, of two snapshots and of a snapshot and what is there now.

use crate::support::run::{Ran, World};
use crate::support::{Tmpfs, without_root};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A source with some of everything.
fn world() -> World {
    let world = World::with_key_file();
    world.write("source/notes.txt", "one\ntwo\nthree\n");
    world.write("source/old/deep/a.bin", [7; 5000]);
    world.write("source/turn", "a file");
    world.write("source/still/b.txt", "b");
    world.write("source/picture", [0, 1, 2, 3]);
    std::fs::write(world.path("source").join(OsStr::from_bytes(b"o\x1b\nd\xff")), "odd").unwrap();
    symlink("here", world.path("source/link")).unwrap();
    symlink("loop", world.path("source/loop")).unwrap();
    world
}

fn change(world: &World) {
    world.write("source/notes.txt", "one\n2\nthree\nfour");
    std::fs::remove_dir_all(world.path("source/old")).unwrap();
    std::fs::remove_file(world.path("source/turn")).unwrap();
    world.write("source/turn/inside", "xx");
    world.write("source/picture", [0, 1, 2, 3, 4]);
    std::fs::remove_file(world.path("source/link")).unwrap();
    symlink("there", world.path("source/link")).unwrap();
    std::fs::set_permissions(world.path("source/still/b.txt"), PermissionsExt::from_mode(0o600)).unwrap();
}

const CHANGES: [&str; 8] =
    ["M link", "M notes.txt", "- old/", "- old/deep/", "- old/deep/a.bin", "M picture", "T turn/", "+ turn/inside"];

/// The lines that name something, shortened.
fn lines(world: &World, ran: &Ran) -> Vec<String> {
    let source = world.text("source/");
    let lines = ran
        .stdout
        .lines()
        .filter(|line| line.contains(&source) && !line.starts_with("---") && !line.starts_with("+++"));
    lines.map(|line| line.replace(&source, "").split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn two_snapshots() {
    let world = world();
    world.backup(0, ["source"]);
    change(&world);
    world.backup(0, ["source"]);
    let said = world.run(["diff", "latest~1", "latest"]).succeeds();
    assert_eq!(lines(&world, &said), CHANGES, "{said:?}");
    assert!(
        said.stdout.ends_with(
            "Files:    1 new,  2 removed, 2 changed\nFolders:  1 new,  2 removed\n\
             Others:   0 new,  0 removed, 1 changed\nAdded:   23 B\nRemoved: 4.91 KiB\n"
        ),
        "{said:?}"
    );
    assert_eq!(said.warnings(), "");
    // The other way round, everything is the other way round.
    let back = world.run(["diff", "-q", "latest", "latest~1"]).succeeds();
    let turned: Vec<String> = CHANGES[2..5].iter().map(|line| line.replace('-', "+")).collect();
    assert_eq!(lines(&world, &back)[2..5], turned);
    // A path for one counts for both; a file is compared with a file.
    let notes = format!("latest:{}", world.text("source/notes.txt"));
    assert_eq!(lines(&world, &world.run(["diff", "-q", "latest~1", &notes])), ["M notes.txt"]);
    let still = format!("latest~1:{}", world.text("source/still"));
    assert_eq!(world.run(["diff", "-q", &still, "latest"]).succeeds().stdout, "");
    let said = world.run(["diff", "-q", "--metadata", &still, "latest"]).succeeds().stdout;
    assert_eq!(said, format!("U    {}\n     mode: 0644 -> 0600\n", world.text("source/still/b.txt")));
    world
        .run(["diff", "latest~1:/nothing", "latest"])
        .fails(1, &["\"/nothing\" in the snapshot", "cannot be compared"]);
    world.run(["diff", "latest", "source"]).fails(1, &["no snapshot \"source\"", "write \"./source\""]);
    world.run(["diff", "latest", "latest~1", "-e", "a"]).fails(1, &["without exclude rules"]);
    world.run(["diff", "latest~7"]).fails(1, &["goes back too far"]);
}

#[test]
fn lines_of_text_can_be_applied() {
    let world = world();
    world.backup(0, ["source"]);
    change(&world);
    world.backup(0, ["source"]);
    let said = world.run(["diff", "--content", "latest~1", "latest"]).succeeds().stdout;
    let notes = world.text("source/notes.txt");
    let expected = format!(
        "M    {notes}\n--- a{notes}\n+++ b{notes}\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n\\ No newline at end of file\n"
    );
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("picture\n     binary: 5 B added, 4 B removed\n"), "{said}");
    assert_eq!(world.run(["diff", "-c"].into_iter().chain(["latest~1"])).succeeds().stdout, said, "as it is now");
    world.run(["restore", "-q", "latest~1", "-t", "copy"]).succeeds();
    world.write("patch", said.split("M    ").find(|part| part.contains("\n@@ ")).unwrap());
    let root = world.path("copy");
    let apply = Command::new("patch").args(["-p1", "-s", "-i"]).arg(world.path("patch")).current_dir(&root).status();
    assert!(apply.unwrap().success());
    let copied = root.join(notes.trim_start_matches('/'));
    assert_eq!(std::fs::read(copied).unwrap(), std::fs::read(world.path("source/notes.txt")).unwrap());
}

#[test]
fn objects_for_programs() {
    let world = world();
    world.backup(0, ["source"]);
    change(&world);
    std::fs::remove_file(world.path("source").join(OsStr::from_bytes(b"o\x1b\nd\xff"))).unwrap();
    world.backup(0, ["source"]);
    let events = world.run(["diff", "--json", "-m", "-c", "latest~1", "latest"]).succeeds().json();
    let find = |name: &str| -> &Value {
        let is_it = |event: &&Value| event["path"].as_str().is_some_and(|path| path.ends_with(name));
        events.iter().find(is_it).unwrap_or_else(|| panic!("{name}: {events:?}"))
    };
    assert_eq!((&find("/picture")["modifier"], &find("/picture")["binary"]), (&"M".into(), &true.into()));
    assert_eq!(find("/b.txt")["metadata"]["mode"]["after"], 0o600);
    assert!(find("/notes.txt")["diff"].as_str().unwrap().contains("-two\n+2\n"));
    let odd = events.iter().find(|event| event.get("path_base64").is_some()).unwrap();
    assert_eq!(odd["modifier"], "-");
    let last = events.last().unwrap();
    assert_eq!((&last["message_type"], &last["changed_files"]), (&"statistics".into(), &2.into()));
    assert_eq!((&last["added"]["files"], &last["removed"]["dirs"]), (&1.into(), &2.into()));
    assert!(last["source_snapshot_id"].is_string() && last["target_snapshot_id"].is_string());
}

#[test]
fn files_that_are_there_now() {
    let world = world();
    world.write("source/junk/skipped.o", "x");
    world.backup(0, ["source", "-e", "*.o"]);
    let nothing = |arguments: &[&str]| {
        let said = world.run(arguments.iter().copied()).succeeds();
        assert_eq!((lines(&world, &said).len(), said.warnings().as_str()), (0, ""), "{said:?}");
    };
    nothing(&["diff", "latest"]);
    nothing(&["diff", "latest", "--content", "--metadata"]);
    nothing(&["diff", "latest", "source/"]);
    // Folders that only lead there are of no interest, nor is what else is in them.
    world.write("beside", "x");
    nothing(&["diff", "latest", "."]);
    change(&world);
    assert_eq!(lines(&world, &world.run(["diff", "latest"]).succeeds()), CHANGES);
    let excluded = world.run(["diff", "latest", "./source", "-e", "turn", "-e", "deep/*"]).succeeds();
    assert_eq!(lines(&world, &excluded), ["M link", "M notes.txt", "- old/", "- old/deep/", "M picture"]);
    // What has been touched seems changed; a look at the bytes tells.
    let world = self::world();
    world.backup(0, ["source"]);
    let touch =
        Command::new("touch").args(["-d", "2020-01-01", "source/notes.txt"]).current_dir(world.path("")).status();
    assert!(touch.unwrap().success());
    assert_eq!(lines(&world, &world.run(["diff", "latest"]).succeeds()), ["M notes.txt"]);
    assert!(lines(&world, &world.run(["diff", "latest", "-c"]).succeeds()).is_empty());
    assert_eq!(lines(&world, &world.run(["diff", "latest", "-c", "-m"]).succeeds()), ["U notes.txt"]);
    // And what changed without a trace.
    world.backup(0, ["source"]);
    let time = std::fs::metadata(world.path("source/notes.txt")).unwrap().modified().unwrap();
    world.write("source/notes.txt", "one\nTWO\nthree\n");
    std::fs::File::open(world.path("source/notes.txt")).unwrap().set_modified(time).unwrap();
    assert!(lines(&world, &world.run(["diff", "latest"]).succeeds()).is_empty());
    assert_eq!(lines(&world, &world.run(["diff", "latest", "-c"]).succeeds()), ["M? notes.txt"]);
    world.run(["backup", "-q", "-H", "elsewhere", "source"]).succeeds();
    let said = world.run(["diff", "latest"]).succeeds().stderr;
    assert!(said.ends_with("Note: The snapshot is of another machine, \"elsewhere\"\n"), "{said}");
    // All that was backed up is gone: that is a difference, too.
    std::fs::remove_dir_all(world.path("source/still")).unwrap();
    let said = world.run(["diff", "latest"]).succeeds();
    assert_eq!(lines(&world, &said), ["- still/", "- still/b.txt"]);
}

#[test]
fn a_restored_copy_is_compared_with_its_original() {
    let world = world();
    let fifo = Command::new("mkfifo").arg(world.path("source/fifo")).status();
    assert!(fifo.unwrap().success());
    world.backup(0, ["source"]);
    world.run(["restore", "-q", &format!("latest:{}", world.text("source")), "-t", "copy"]).succeeds();
    let original = format!("latest:{}", world.text("source"));
    let said = world.run(["diff", "-q", "-m", "-c", &original, "./copy"]).succeeds();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
    world.run(["diff", "latest", "./copy"]).fails(1, &["cannot be compared", "where the original was"]);
    world.write("copy/notes.txt", "changed");
    let said = world.run(["diff", "-q", &original, "copy/"]).succeeds().stdout;
    assert_eq!(said, format!("M    {}\n", world.text("copy/notes.txt")));
    let one = format!("latest:{}", world.text("source/turn"));
    assert_eq!(world.run(["diff", "-q", &one, "copy/turn"]).succeeds().stdout, "");
}

#[test]
fn caches_that_the_backup_left_out_are_no_difference() {
    let world = World::with_key_file();
    world.write("source/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    world.write("source/cache/big", "x");
    world.write("source/a", "a");
    let compared = || lines(&world, &world.run(["diff", "latest"]).succeeds());
    world.backup(0, ["source", "--exclude-caches"]);
    assert!(compared().is_empty(), "{:?}", compared());
    world.write("source/a", "changed");
    assert_eq!(compared(), ["M a"]);
    world.backup(0, ["source"]);
    world.write("source/cache/more", "x");
    assert_eq!(compared(), ["+ cache/more"], "this one took the cache in");
}

#[test]
fn other_file_systems_that_the_backup_left_out_are_no_difference() {
    if without_root() {
        return;
    }
    let world = World::with_key_file();
    world.write("source/a", "a");
    let _other = Tmpfs::on(&world.path("source/other"));
    world.write("source/other/b", "b");
    let compared = || lines(&world, &world.run(["diff", "latest"]).succeeds());
    world.backup(0, ["source", "--one-file-system"]);
    assert!(compared().is_empty(), "{:?}", compared());
    world.backup(0, ["source"]);
    world.write("source/other/c", "c");
    assert_eq!(compared(), ["+ other/c"], "this one took the other file system in");
}

#[test]
fn another_file_system_that_the_backup_left_out_is_no_difference_by_itself() {
    if without_root() {
        return;
    }
    let world = World::with_key_file();
    world.write("source/a", "a");
    let _other = Tmpfs::on(&world.path("source/other"));
    world.write("source/other/sub/b", "b");
    world.backup(0, ["source", "-x"]);
    let place = format!("latest:{}", world.text("source/other"));
    let compared = |arguments: &[&str]| {
        let said = world.run(["diff"].iter().chain(arguments)).succeeds();
        assert_eq!(said.warnings(), "", "{said:?}");
        lines(&world, &said)
    };
    for arguments in [&[place.as_str(), "./source/other"][..], &["latest", "source/other/"], &[&place]] {
        assert!(compared(arguments).is_empty(), "{arguments:?}: {:?}", compared(arguments));
    }
    // A copy elsewhere is compared, and so is what the backup took in.
    world.write("copy/new", "x");
    let said = world.run(["diff", "-q", &place, "./copy"]).succeeds().stdout;
    assert_eq!(said, format!("+    {}\n", world.text("copy/new")));
    world.backup(0, ["source", "source/other", "-x"]);
    world.write("source/other/c", "c");
    assert_eq!(compared(&["latest", "./source/other"]), ["+ other/c"]);
    world.write("source/other/sub/d", "d");
    assert_eq!(compared(&["latest", "./source/other/sub"]), ["+ other/sub/d"]);
    world.backup(0, ["source"]);
    world.write("source/other/sub/e", "e");
    assert_eq!(compared(&["latest", "./source/other/sub"]), ["+ other/sub/e"]);
}

#[test]
fn files_that_state_no_size_are_compared_by_what_can_be_read() {
    let world = World::with_key_file();
    let same = ["/proc/sys/kernel/ostype", "/proc/version", "/sys/devices/system/cpu/possible"];
    world.backup(0, same);
    for options in [&["diff", "latest"][..], &["diff", "latest", "--content"]] {
        let said = world.run(options).succeeds().stdout;
        assert!(!same.iter().any(|path| said.contains(path)), "{said}");
    }
    world.backup(0, ["/proc/uptime"]);
    let said = world.run(["diff", "latest"]).succeeds().stdout;
    assert!(said.starts_with("M    /proc/uptime\n") && said.contains("1 changed"), "{said}");
    let said = world.run(["diff", "latest", "--content"]).succeeds().stdout;
    assert!(said.contains("--- a/proc/uptime\n+++ b/proc/uptime\n@@ -1 +1 @@\n-"), "{said}");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_compared() {
    let world = world();
    world.write("source/closed/secret", "x");
    world.backup(0, ["source"]);
    change(&world);
    std::fs::set_permissions(world.path("source/closed"), PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::set_permissions(world.path("source/picture"), PermissionsExt::from_mode(0o000)).unwrap();
    let ran =
        world.run_as_nobody(&["diff", "latest", "--content"]).fails(3, &["/source/closed\"", "/source/picture\""]);
    let expected: Vec<&str> = CHANGES.into_iter().filter(|line| !line.ends_with("picture")).collect();
    assert_eq!(lines(&world, &ran), expected, "{ran:?}");
    std::fs::set_permissions(world.path("source/closed"), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn damage_is_named() {
    let world = world();
    world.backup(0, ["source"]);
    let before = world.objects("tree");
    // All entries that change later change now, so that none is in a page of the first backup.
    world.write("source/notes.txt", "four\n");
    world.write("source/turn", "one more");
    std::fs::set_permissions(world.path("source/still"), PermissionsExt::from_mode(0o700)).unwrap();
    world.backup(0, ["source"]);
    world.write("source/notes.txt", "fifth\n");
    world.write("source/still/c.txt", "c");
    world.write("source/turn", "another");
    world.backup(0, ["source"]);
    // The page of "still" as it was is lost, which hides what became of that folder and nothing else.
    before.iter().for_each(|pack| damage(pack));
    let ran = world.run(["diff", "latest~1", "latest"]);
    let ran = ran.fails(3, &["source/still\"", "What is in it cannot be compared completely", "cannot be read"]);
    assert_eq!(lines(&world, &ran), ["M notes.txt", "M turn"]);
    let ran = world.run(["diff", "latest~1", "-q", "--json"]).fails(3, &["source/still\""]);
    // Live files are compared with all pages: that of "old" is lost as well.
    assert_eq!(
        (ran.json_errors()[0]["during"].clone(), ran.json().last().unwrap()["error_count"].clone()),
        ("diff".into(), 2.into())
    );
    // Without the root there is nothing to compare.
    world.run(["diff", "latest", "latest~2"]).fails(5, &["cannot be compared", "is damaged"]);
}

fn damage(pack: &Path) {
    std::fs::set_permissions(pack, PermissionsExt::from_mode(0o600)).unwrap();
    let length = std::fs::metadata(pack).unwrap().len() as usize;
    std::fs::write(pack, vec![0; length]).unwrap();
}
