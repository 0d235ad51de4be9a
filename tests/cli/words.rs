//! When all is well: what the commands print, for people and for programs.

use crate::support::run::World;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

fn world_with_snapshot() -> World {
    let world = World::with_repository();
    world.write("source/a.txt", "first\n");
    world.write("source/deep/b.txt", "second\n");
    let odd = world.path("source").join(OsStr::from_bytes(b"o\x1b[2Jd\xff"));
    std::fs::write(odd, "odd").unwrap();
    world.run(["backup", "source", "--tag", "one,two", "-H", "here"]).succeeds();
    world
}

#[test]
fn quiet_means_nothing_at_all() {
    let world = World::new();
    world.write("source/a", "a");
    for arguments in [
        &["-q", "init"][..],
        &["backup", "-q", "source"],
        &["restore", "latest", "-t", "out", "-q"],
        &["key", "add", "-q", "--new-password-command", "echo other"],
    ] {
        let ran = world.run(arguments).succeeds();
        assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn the_main_job_for_people() {
    let world = world_with_snapshot();
    let said = world.run(["backup", "source", "-H", "here"]).succeeds();
    assert!(said.stdout.contains("3 unmodified") && said.stdout.contains("Made the snapshot "), "{said:?}");
    assert!(said.stderr.is_empty(), "{said:?}");
    let table = world.run(["snapshots"]).succeeds().stdout;
    assert!(table.starts_with("ID") && table.contains("one,two") && table.ends_with("2 snapshots\n"), "{table}");
    let filtered = world.run(["list", "--tag", "one"]).succeeds().stdout;
    assert!(filtered.ends_with("1 snapshot\n"), "{filtered}");
    let top = world.run(["ls", &format!("latest~1:{}", world.text("source"))]).succeeds().stdout;
    assert_eq!(top.lines().filter(|line| *line == "a.txt" || *line == "deep").count(), 2, "{top}");
    let all = world.run(["ls", "-R", "-l"]).succeeds().stdout;
    assert!(all.contains(&format!(" {}\n", world.text("source/deep/b.txt"))), "{all}");
    let file = format!("latest:{}", world.text("source/a.txt"));
    assert_eq!(world.run(["dump", &file]).succeeds().stdout, "first\n");
    world.run(["cat", &file, "-o", "copy"]).succeeds();
    assert_eq!(std::fs::read(world.path("copy")).unwrap(), b"first\n");
    let said = world.run(["restore", &format!("latest:{}", world.text("source")), "-t", "out"]).succeeds().stdout;
    assert!(said.starts_with("Restored 3 files"), "{said}");
    assert_eq!(std::fs::read(world.path("out/deep/b.txt")).unwrap(), b"second\n");
}

#[test]
fn the_main_job_for_programs() {
    let world = world_with_snapshot();
    let lines = world.run(["--json", "backup", "source", "-H", "here"]).succeeds().json();
    let summary = lines.last().unwrap();
    assert_eq!(summary["message_type"], "summary");
    for name in ["files_new", "files_changed", "files_unmodified", "dirs_new", "data_added", "total_bytes_processed"] {
        assert!(summary[name].is_u64(), "{name}: {summary}");
    }
    let id = summary["snapshot_id"].as_str().unwrap();
    let snapshots = world.run(["snapshots", "--json"]).succeeds().json();
    assert_eq!(snapshots[1]["snapshot_id"], id);
    assert_eq!(snapshots[1]["parent"], snapshots[0]["snapshot_id"]);
    assert_eq!((&snapshots[0]["hostname"], &snapshots[0]["tags"][1]), (&"here".into(), &"two".into()));
    let nodes = world.run(["ls", "-R", "--json"]).succeeds().json();
    assert_eq!(nodes[0]["message_type"], "snapshot");
    let odd = nodes.iter().find(|node| node.get("path_base64").is_some()).unwrap();
    assert!(odd["name"].as_str().unwrap().starts_with("o\u{1b}[2Jd\u{fffd}"), "{odd}");
    let file = nodes.iter().find(|node| node["name"] == "a.txt").unwrap();
    assert_eq!((&file["type"], &file["size"], &file["message_type"]), (&"file".into(), &6.into(), &"node".into()));
    let lines = world.run(["restore", "--json", "latest", "-t", "out"]).succeeds().json();
    assert_eq!(lines.last().unwrap()["files_restored"], 3);
}

#[test]
fn keys_come_and_go() {
    let world = World::with_repository();
    world.write("new", "another\n");
    world.run(["key", "add", "--label", "spare", "--new-password-file", "new"]).succeeds();
    let other = [("FIRN_PASSWORD", Some("another"))];
    let keys = world.run_with(["key", "list", "--json"], &other).succeeds().json();
    let current = keys.iter().find(|key| key["current"] == true).unwrap();
    assert_eq!((keys.len(), &current["label"]), (2, &"spare".into()));
    let id = current["key_id"].as_str().unwrap();
    world.run_with(["key", "remove", id], &other).fails(1, &["the one that opened the repository"]);
    world.run(["key", "remove", "xyz"]).fails(1, &["There is no key \"xyz\""]);
    world.run(["key", "remove", id]).succeeds();
    world.run_with(["key", "list"], &other).fails(12, &["Wrong password"]);
    world.run(["key", "passwd", "--new-password-file", "new"]).succeeds();
    world.run(["key", "list"]).fails(12, &["Wrong password"]);
    let table = world.run_with(["key", "list"], &other).succeeds().stdout;
    assert!(table.lines().count() == 2 && table.contains("\n*"), "{table}");
    let last = world.run_with(["key", "list", "--json"], &other).json()[0]["key_id"].as_str().unwrap().to_owned();
    world.run_with(["key", "remove", &last], &other).fails(6, &["last key slot"]);
}

/// The password changes, and nothing but the password: whatever else is given opens what it did.
#[test]
fn a_new_password_takes_the_place_of_the_old_one_only() {
    let world = World::with_repository();
    world.write("new", "another\n");
    world.write("key", [7; 64]);
    // One slot for the key file alone, two for the password, one for both, whatever their order.
    let label = |label, new: &[&str]| {
        let arguments =
            ["key", "add", "-q", "--kdf-memory", "64", "--label", label].into_iter().chain(new.iter().copied());
        world.run(arguments.collect::<Vec<_>>()).succeeds();
    };
    let old = "echo \"$FIRN_PASSWORD\"";
    label("twice", &["--new-password-command", old]);
    label("both", &["--new-password-command", old, "--new-key-file", "key"]);
    world.run_with(["key", "add", "-q", "--label", "file", "--new-key-file", "key"], &[]).succeeds();
    let labels = |password: Option<&str>, file: Option<&str>| {
        let with = [("FIRN_PASSWORD", password), ("FIRN_KEY_FILE", file)];
        let mut labels: Vec<String> = world
            .run_with(["key", "list", "--json"], &with)
            .succeeds()
            .json()
            .iter()
            .map(|key| key["label"].as_str().unwrap().to_owned())
            .collect();
        labels.sort();
        labels
    };
    assert_eq!(labels(None, Some("key")), ["", "both", "file", "twice"]);
    let file = [("FIRN_KEY_FILE", Some("key"))];
    let passwd = ["key", "passwd", "--kdf-memory", "64", "--new-password-file", "new"];
    world
        .run_with(passwd, &[("FIRN_PASSWORD", Some("wrong")), file[0]])
        .fails(12, &["opens no key slot", "nothing was"]);
    let said = world.run_with(passwd, &file).succeeds().stdout;
    assert!(said.contains("replace") && said.matches(", ").count() == 3, "{said}");
    // The key file opens it still, the old password does not, with or without the file.
    assert_eq!(labels(None, Some("key")).len(), 3);
    assert_eq!(labels(Some("another"), None).len(), 3);
    world.run(["key", "list"]).fails(12, &["Wrong password"]);
    let warned = world
        .run_with(["key", "passwd", "--new-password-command", "echo third"], &[("FIRN_PASSWORD", Some("another"))]);
    let warned = warned.succeeds();
    assert!(warned.stderr.contains("may still open"), "{warned:?}");
    // Keys that become one keep a label.
    let kept = labels(Some("third"), None);
    assert!(kept.contains(&"twice".to_owned()) && kept.contains(&"both".to_owned()), "{kept:?}");
    // Without a terminal, where a new password can come from.
    let error = world.run_with(["key", "add"], &[("FIRN_PASSWORD", Some("third"))]).fails(1, &["--new-password-file"]);
    drop(error);
}

#[test]
fn key_files() {
    let world = World::new();
    world.write("key", [7; 64]);
    let none = [("FIRN_PASSWORD", None)];
    world.run_with(["init", "--key-file", "nothing"], &none).fails(1, &["The key file \"nothing\"", "urandom"]);
    world.run_with(["init", "--key-file", "key"], &none).succeeds();
    world.run_with(["snapshots"], &[("FIRN_PASSWORD", None), ("FIRN_KEY_FILE", Some("key"))]).succeeds();
    world.run(["snapshots"]).fails(12, &["Wrong password or key"]);
}

#[test]
fn nobody_reads_the_output() {
    let world = world_with_snapshot();
    let mut child = world.command(["ls", "-qR"], &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(141), ""));
}

/// As restic's users write it, and where a file goes to standard output.
#[test]
fn paths_behind_a_snapshot_and_a_dash() {
    let world = world_with_snapshot();
    let (file, folder) = (world.text("source/a.txt"), world.text("source/deep"));
    assert_eq!(world.run(["dump", "-q", "latest", &file]).succeeds().stdout, "first\n");
    assert_eq!(world.run(["ls", "-q", "latest", &folder]).succeeds().stdout, "b.txt\n");
    let twice = format!("latest:{file}");
    world.run(["dump", &twice, &file]).fails(1, &["is one path too many", "Hint: "]);
    world.run(["ls", "latest", "source/deep"]).fails(1, &["begin with \"/\"", &format!("\"latest:{folder}\"")]);
    assert_eq!(world.run(["dump", "-q", &twice, "-o", "-"]).succeeds().stdout, "first\n");
    world.run(["restore", "latest", "-t", "-"]).fails(1, &["firn dump", "\"./-\""]);
    assert!(!world.path("-").exists());
    world.run(["cat", "config"]).fails(1, &["names no file in a snapshot", "firn stats"]);
}

/// Nothing is said of what was not looked at, or not done.
#[test]
fn no_more_is_claimed_than_was_done() {
    let world = world_with_snapshot();
    let said = world.run(["scrub"]).succeeds().stdout;
    assert!(said.contains("Not verified were 2 objects") && said.contains("\"firn check\""), "{said}");
    // The config, the pin and the forgotten snapshot have names that are no hashes.
    world.run(["backup", "-q", "source"]).succeeds();
    world.run(["pin", "-q", "latest"]).succeeds();
    world.run(["forget", "-q", "latest~1"]).succeeds();
    let summary = world.run(["scrub", "--json"]).succeeds().json().pop().unwrap();
    assert_eq!(summary["objects_without_hash"], 4, "{summary}");
    world.write("source/new", "new");
    let dry = world.run(["backup", "-n", "source"]).succeeds().stdout;
    assert!(dry.contains("Would add ") && !dry.contains("stored as"), "{dry}");
    let dry = world.run(["backup", "-n", "--json", "source"]).succeeds().json().pop().unwrap();
    assert!(dry["data_added"].as_u64().unwrap() > 0 && dry["data_added_packed"].is_null(), "{dry}");
    world.write("out/source/a.txt", "longer than it was");
    let dry = world.run(["restore", &format!("latest:{}", world.text("source")), "-t", "out/source", "-n"]);
    let dry = dry.succeeds().stdout;
    assert!(dry.contains("replace    ") && !dry.contains("replaced"), "{dry}");
    let all = world.run(["check", "--read-data", "--max-age", "0d"]).succeeds().stdout;
    assert!(all.contains("Everything is there and undamaged"), "{all}");
    let nothing = world.run(["du", ":/nope"]).fails(1, &["in no snapshot"]);
    assert!(nothing.stdout.is_empty(), "{nothing:?}");
    world.run(["backup", "source", "--time", "yesterday"]).fails(2, &["\"2026-01-31 12:00:00\""]);
    let changes = world.run(["diff", "--json", "latest"]).succeeds().json();
    let with_slash = |change: &&serde_json::Value| change["path"].as_str().is_some_and(|path| path.ends_with('/'));
    assert!(changes.len() > 1 && !changes.iter().any(|change| with_slash(&change)), "{changes:?}");
}

#[test]
fn completions_for_each_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(["completions", shell]).succeeds().stdout;
        assert!(script.contains("snapshots"), "{shell}");
        world.write(shell, script);
    }
    // What each shell itself says of its script, and what it then offers.
    let asked = |shell: &str, line: &str| {
        let output =
            std::process::Command::new(shell).args(["-c", line]).current_dir(world.path(".")).output().unwrap();
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && wrong.is_empty(), "{shell}: {wrong}");
        said.into_owned()
    };
    let offered = asked(
        "fish",
        "source fish; complete -C 'firn s'; complete -C 'firn mount --layout '; complete -C 'firn key r'",
    );
    for word in ["snapshots", "scrub", "stats", "previous-versions", "rotate"] {
        assert!(offered.lines().any(|line| line.split('\t').next() == Some(word)), "{word}: {offered}");
    }
    asked("zsh", "zsh -n zsh");
    let line = "source ./bash; COMP_WORDS=(firn sn); COMP_CWORD=1; _firn firn sn firn; echo ${COMPREPLY[*]}";
    assert_eq!(asked("bash", line).trim(), "snapshots");
}
