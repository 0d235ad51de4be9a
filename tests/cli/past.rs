//! What the commands about the past say: history, find, deleted.

use crate::support::run::World;
use serde_json::Value;

/// Three snapshots: a file changes twice, a folder goes, a name comes back as something else.
fn world() -> World {
    let world = World::with_key_file();
    world.write("source/notes.txt", "one\n");
    world.write("source/old/deep/a.bin", [7; 5000]);
    world.write("source/old/b", "b");
    world.write("source/turn", "a file");
    backup(&world, "2026-01-01 10:00:00");
    world.write("source/notes.txt", "two, longer\n");
    std::fs::remove_dir_all(world.path("source/old")).unwrap();
    backup(&world, "2026-01-02 10:00:00");
    std::fs::remove_file(world.path("source/turn")).unwrap();
    world.write("source/turn/inside", "x");
    std::fs::remove_file(world.path("source/notes.txt")).unwrap();
    backup(&world, "2026-01-03 10:00:00");
    world
}

fn backup(world: &World, time: &str) {
    world.run(["backup", "source", "-q", "-H", "here", "--time", time]).succeeds();
}

fn field<'v>(values: &'v [Value], name: &str) -> Vec<&'v str> {
    values.iter().map(|value| value[name].as_str().unwrap()).collect()
}

#[test]
fn versions_of_a_file() {
    let world = world();
    let notes = world.text("source/notes.txt");
    let said = world.run(["history", "source/notes.txt"]).succeeds();
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!((lines.len(), *lines.last().unwrap(), said.stderr.as_str()), (5, "2 versions", ""), "{said:?}");
    assert!(lines[0].starts_with("First seen") && lines[0].ends_with("Snapshot"), "{said:?}");
    assert!(lines[1].starts_with("2026-01-01 10:00:00  2026-01-01 10:00:00  -") && lines[1].contains(" added "));
    assert!(lines[2].contains("12 B") && lines[2].contains(" content "), "{said:?}");
    assert!(lines[3].starts_with("2026-01-03 10:00:00") && lines[3].contains(" removed "), "{said:?}");
    // The last column is what other commands take.
    for (line, bytes) in [(lines[1], "one\n"), (lines[2], "two, longer\n")] {
        let place = line.split_whitespace().last().unwrap();
        assert!(place.ends_with(&format!(":{notes}")), "{line}");
        assert_eq!(world.run(["dump", place]).succeeds().stdout, bytes);
    }
    let events = world.run(["history", "--json", &notes]).succeeds().json();
    assert_eq!(field(&events, "message_type"), ["version", "version", "removed"]);
    assert_eq!(field(&events, "change"), ["added", "content", "removed"]);
    assert_eq!(events[1]["first_seen"], "2026-01-02T10:00:00Z");
    let turned = world.run(["history", "--json", "source/turn"]).succeeds().json();
    assert_eq!(field(&turned, "change"), ["added", "type"]);
    assert_eq!((field(&turned, "type"), &turned[1]["current"]), (vec!["file", "dir"], &true.into()));
    world.run(["history", "source/never"]).fails(1, &["is in no snapshot", "firn find"]);
    // Metadata alone, and what comes back.
    std::fs::write(world.path("source/notes.txt"), "two, longer\n").unwrap();
    backup(&world, "2026-01-04 10:00:00");
    std::fs::set_permissions(world.path("source/notes.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    backup(&world, "2026-01-05 10:00:00");
    let events = world.run(["history", "--json", &notes]).succeeds().json();
    assert_eq!(field(&events, "change"), ["added", "content", "removed", "added", "metadata"]);
    let others = world.run(["history", "--json", "-H", "elsewhere", &notes]);
    others.fails(1, &["no snapshot with the host"]);
}

#[test]
fn what_is_gone() {
    let world = world();
    let gone = world.run(["deleted"]).succeeds().stdout;
    let places: Vec<&str> = gone.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(places.len(), 2, "{gone}");
    assert!(places[0].ends_with("/source/notes.txt") && places[1].ends_with("/source/old/"), "{gone}");
    world.run(["restore", places[1], "-t", "back"]).succeeds();
    assert_eq!(std::fs::read(world.path("back/deep/a.bin")).unwrap(), [7; 5000]);
    let all = world.run(["deleted", "-R", "--json", "source"]).succeeds().json();
    let names: Vec<&str> = field(&all, "path").iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["notes.txt", "old", "b", "deep", "a.bin"]);
    assert_eq!(field(&all, "last_seen")[1], "2026-01-01T10:00:00Z");
    assert_eq!(world.run(["deleted", "source/turn"]).succeeds().stdout, "Nothing is gone\n");
    assert_eq!(world.run(["deleted", "-q", "source/turn"]).succeeds().stdout, "");
    // With the newest snapshot forgotten, less is gone.
    world.run(["forget", "-q", "latest"]).succeeds();
    assert_eq!(world.run(["deleted"]).succeeds().stdout.lines().count(), 1);
}

/// A path that never was is no path from which nothing is gone, and hosts that are misspelt have no past.
#[test]
fn what_never_was_is_not_whole() {
    let world = world();
    world.run(["deleted", "source/never"]).fails(1, &["is in no snapshot", "firn find"]);
    world.run(["deleted", "/nothing/at/all"]).fails(1, &["is in no snapshot"]);
    for command in [&["deleted"][..], &["find", "*.txt"], &["history", "source"], &["du"]] {
        let nobody = command.iter().copied().chain(["--host", "nobody"]);
        world.run(nobody).fails(1, &["There is no snapshot with the host \"nobody\"", "firn snapshots"]);
    }
    world.run(["undelete", "zz"]).fails(1, &["No forgotten snapshot", "firn snapshots --forgotten"]);
    let said = world.run(["undelete", "--all", "--host", "nobody"]).succeeds().stdout;
    assert_eq!(said, "There are no forgotten snapshots with the host \"nobody\"\n");
    let nothing = world.run(["undelete", "--all", "--json"]).succeeds();
    assert!(nothing.stdout.is_empty(), "{nothing:?}");
    // A name that is not there gives no warning of whose it is.
    world.run(["backup", "source", "-q", "-H", "there", "--time", "2026-01-02 11:00:00"]).succeeds();
    let said = world.run(["dump", &format!("latest:{}", world.text("source/nope"))]).fails(1, &["There is no"]).stderr;
    assert!(!said.contains("is taken from"), "{said}");
}

/// A backup of something in a folder is no version of the folder.
#[test]
fn a_folder_on_the_way_to_a_source_is_no_version() {
    let world = World::with_key_file();
    world.write("a/deep/file", "1");
    world.write("a/other", "2");
    backup_of(&world, 1, &["a"]);
    backup_of(&world, 2, &["a/deep"]);
    assert_eq!(told(&world, &["a"]), ["added!"]);
    assert_eq!(told(&world, &["a/deep"]), ["added!"]);
    let version = world.run(["history", "--json", "a"]).succeeds().json().remove(0);
    assert_eq!((&version["size"], &version["last_seen"]), (&2.into(), &"2026-01-01T10:00:00Z".into()), "{version}");
    let found = world.run(["find", "--json", "--all", "a"]).succeeds().json();
    assert_eq!(found.len(), 1, "{found:?}");
    // Above all sources there is nothing but the way.
    assert_eq!(told(&world, &[&world.text(".")]).len(), 2);
}

fn backup_of(world: &World, day: u32, sources: &[&str]) {
    let time = format!("2026-01-{day:02} 10:00:00");
    world.run([&["backup", "-q", "-H", "here", "--time", &time], sources].concat()).succeeds();
}

#[test]
fn looking_for_names() {
    let world = world();
    let find = |arguments: &[&str]| -> Vec<String> {
        let mut all = vec!["find", "--json"];
        all.extend(arguments);
        let found = world.run(all).succeeds().json();
        let source = world.text("source");
        field(&found, "path").iter().map(|path| path.strip_prefix(&source).unwrap_or(path).to_owned()).collect()
    };
    assert_eq!(find(&["*.txt"]), ["/notes.txt"]);
    assert_eq!(find(&["--all", "*.txt"]), ["/notes.txt", "/notes.txt"]);
    assert_eq!(find(&["deep/*", "b"]), ["/old/b", "/old/deep/a.bin"]);
    assert_eq!(find(&["--regex", "O.D/[ab]$", "-i"]), ["/old/b"]);
    assert_eq!(find(&["--regex", r"\.(txt|bin)$"]), ["/notes.txt", "/old/deep/a.bin"]);
    assert_eq!(find(&["turn"]), ["/turn"]);
    assert_eq!(find(&["turn", "--type", "f"]), ["/turn"]);
    assert_eq!(find(&["*", "--type", "f", "--size", "+4k"]), ["/old/deep/a.bin"]);
    assert_eq!(find(&["*", "--type", "f,l", "--size", "-4", "--size", "+2"]), ["/notes.txt"]);
    assert_eq!(find(&["*.txt", "--snapshot", "latest"]), [""; 0]);
    assert_eq!(find(&["*.txt", "--snapshot", "latest~1"]), ["/notes.txt"]);
    assert_eq!(find(&["*.txt", "--older", "2000-01-01"]), [""; 0]);
    assert_eq!(find(&["*.txt", "--newer", "30d"]), ["/notes.txt"]);
    let said = world.run(["find", "*.txt"]).succeeds().stdout;
    let place = said.split_whitespace().last().unwrap();
    assert_eq!(world.run(["dump", place]).succeeds().stdout, "two, longer\n");
    assert_eq!(said.lines().count(), 1);
    let wrong = world.run(["find", "--regex", "("]).fails(1, &["not a regular expression: unclosed group\n"]);
    assert!(!wrong.stderr.contains("\\x0a"), "{wrong:?}");
    assert_eq!(find(&["NOTES.*", "-i"]), ["/notes.txt"]);
    assert_eq!(find(&["**/OLD/*/[A-C].Bin", "--ignore-case"]), ["/old/deep/a.bin"]);
    assert_eq!(find(&["NOTES.*"]), [""; 0]);
    world.run(["find", "x", "--size", "many"]).fails(2, &["many"]);
}

#[test]
fn the_catalog_can_be_deleted_damaged_and_done_without() {
    let world = world();
    let expected = world.run(["deleted", "-R"]).succeeds().stdout;
    let places = || glob(&world.path("cache"), "history");
    let folder = places().pop().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(world.run(["deleted", "-R"]).succeeds().stdout, expected);
    let database = folder.join("db");
    let length = std::fs::metadata(&database).unwrap().len();
    for part in [1, 2, 3] {
        let mut bytes = std::fs::read(&database).unwrap();
        let at = (length / 4 * part) as usize % bytes.len();
        bytes[at] ^= 0x55;
        std::fs::write(&database, bytes).unwrap();
        assert_eq!(world.run(["deleted", "-R"]).succeeds().stdout, expected);
    }
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    assert_eq!(world.run(["deleted", "-R", "--no-cache"]).succeeds().stdout, expected);
    assert!(!world.path("cache").exists());
}

/// Folders of this name, two levels below.
fn glob(root: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join(name));
    entries.filter(|path| path.is_dir()).collect()
}

/// All that was said of a path, in order: the versions that count as current marked with a "!".
fn told(world: &World, arguments: &[&str]) -> Vec<String> {
    let events = world.run([&["history", "--json"], arguments].concat()).succeeds().json();
    let word = |event: &Value| event["change"].as_str().unwrap().to_owned();
    events.iter().map(|event| word(event) + if event["current"] == true { "!" } else { "" }).collect()
}

/// The list of sources changes, and one backup is of something else alone.
#[test]
fn snapshots_of_other_sources_tell_what_became_of_a_path() {
    let world = World::with_key_file();
    let backup = |day: u32, sources: &[&str]| {
        let time = format!("2026-01-{day:02} 10:00:00");
        world.run([&["backup", "-q", "-H", "here", "--time", &time], sources].concat()).succeeds();
    };
    for name in ["a/stays", "a/goes", "a/returns", "b/file"] {
        world.write(name, name);
    }
    backup(1, &["a"]);
    std::fs::remove_file(world.path("a/goes")).unwrap();
    std::fs::remove_file(world.path("a/returns")).unwrap();
    backup(2, &["a", "b"]);
    world.write("a/returns", "another");
    backup(3, &["a", "b"]);
    backup(4, &["b"]);
    assert_eq!(told(&world, &["a/stays"]), ["added!"]);
    assert_eq!(told(&world, &["a/goes"]), ["added", "removed"]);
    assert_eq!(told(&world, &["a/returns"]), ["added", "removed", "added!"]);
    assert_eq!(told(&world, &["b/file"]), ["added!"]);
    let gone = world.run(["deleted", "--json"]).succeeds().json();
    assert_eq!(field(&gone, "path"), [world.text("a/goes")]);
    let removed = world.run(["history", "--json", "a/goes"]).succeeds().json();
    assert_eq!(removed[1]["first_seen"], "2026-01-02T10:00:00Z");
    let found = world.run(["find", "--json", "/**/a/*"]).succeeds().json();
    let current = found.iter().map(|found| found["current"] == true).collect::<Vec<_>>();
    assert_eq!(field(&found, "path"), ["a/goes", "a/returns", "a/stays"].map(|name| world.text(name)));
    assert_eq!(current, [false, true, true], "{found:?}");
    assert_eq!(field(&found, "last_seen")[2], "2026-01-03T10:00:00Z");
    // Once for each host.
    world.run(["backup", "-q", "-H", "there", "--time", "2026-01-05 10:00:00", "a"]).succeeds();
    assert_eq!(told(&world, &["a/stays"]), ["added!", "added!"]);
    let said = world.run(["history", "a/stays"]).succeeds().stdout;
    assert!(said.starts_with("On the host \"here\":\n") && said.contains("\nOn the host \"there\":\n"), "{said}");
    assert_eq!(world.run(["find", "stays"]).succeeds().stdout.lines().count(), 2);
}
