//! Bad input: each with its message, its hint and its exit code.

use crate::support::run::{World, patch};

#[test]
fn no_repository() {
    let world = World::new();
    world.run(["snapshots"]).fails(10, &["Error: There is no repository at \"", "Hint: Check the path"]);
    world.run_with(["snapshots"], &[("FIRN_REPOSITORY", None)]).fails(1, &["No repository was named", "--repo"]);
    world.run_with(["snapshots"], &[("FIRN_REPOSITORY", Some(""))]).fails(1, &["No repository was named"]);
    world.write("repository/some.txt", "text");
    world.run(["snapshots"]).fails(10, &["is not a firn repository", "Hint: "]);
    world.run(["init"]).fails(1, &["Error: "]);
    let file = world.text("repository/some.txt");
    world.run(["-r", &file, "snapshots"]).fails(10, &["it is not a folder"]);
    world.run(["init", "-r", &world.text("no/such")]).fails(1, &["The folder that shall hold"]);
}

/// No command takes a place elsewhere for a folder of that name, and none is made.
#[test]
fn addresses_of_other_places_are_no_folders() {
    let world = World::new();
    world.write("source/a", "a");
    let commands: &[&[&str]] = &[
        &["init"],
        &["backup", "source"],
        &["snapshots"],
        &["ls"],
        &["dump", "latest:/a"],
        &["history", "a"],
        &["find", "a"],
        &["diff", "latest"],
        &["deleted"],
        &["restore", "latest", "-t", "out"],
        &["mount", "point"],
        &["check"],
        &["scrub"],
        &["key", "list"],
        &["key", "passwd"],
        &["key", "re-encrypt"],
        &["forget", "latest"],
        &["undelete", "--all"],
        &["pin", "latest"],
        &["unpin", "latest"],
        &["prune"],
        &["stats"],
        &["du"],
        &["repair", "index"],
        &["repair", "packs"],
        &["repair", "snapshots"],
    ];
    let addresses = [
        "s3:bucket",
        "s3:https://host/bucket",
        "sftp:me@host:/x",
        "sftp://me@host/x",
        "rest:https://me:secret@host/",
        "rclone:remote:path",
        "b2:bucket:path",
        "gs:bucket:/",
        "azure:container:/",
        "swift:container:/",
        "https://host/x",
        "ssh://me@host/x",
        "me@host:backup",
        "host:/srv/backup",
    ];
    let before = std::fs::read_dir(world.path(".")).unwrap().count();
    for (at, address) in addresses.iter().enumerate() {
        // All commands with two of them, and each with two commands.
        let all = commands.iter().enumerate().filter(|(number, _)| at < 2 || *number < 2);
        for (_, command) in all {
            let ran = world.run(command.iter().copied().chain(["--repo", address]));
            let ran = ran.fails(1, &["in folders only", "Hint: ", "\"./"]);
            assert!(!ran.stderr.contains("secret") && !ran.stderr.contains("firn init"), "{ran:?}");
        }
        world.run_with(["init"], &[("FIRN_REPOSITORY", Some(address))]).fails(1, &["in folders only"]);
    }
    assert_eq!(std::fs::read_dir(world.path(".")).unwrap().count(), before);
    world.run(["init", "-q", "-r", "./s3:bucket"]).succeeds();
    world.run(["snapshots", "-r", &world.text("s3:bucket")]).succeeds();
}

/// What an unset variable in a script leaves is no host, no name and no snapshot.
#[test]
fn empty_values() {
    let world = World::with_key_file();
    world.write("source/a", "a");
    let made = world.run(["backup", "source", "--host", "", "--tag", "", "--label", "", "--description", ""]);
    made.succeeds();
    let snapshot = world.run(["snapshots", "--json"]).succeeds().json().remove(0);
    assert!(!snapshot["hostname"].as_str().unwrap().is_empty(), "{snapshot}");
    assert_eq!((snapshot["tags"].as_array().unwrap().len(), snapshot.get("label")), (0, None), "{snapshot}");
    assert!(snapshot.get("description").is_none(), "{snapshot}");
    // The only snapshot has every beginning.
    for command in
        [&["forget", "--yes-really", ""][..], &["pin", ""], &["unpin", ""], &["check", ""], &["undelete", ""]]
    {
        world.run(command).fails(1, &["is not a snapshot address"]);
    }
    for command in [
        &["forget", "--keep-last", "1", "--host", ""][..],
        &["ls", "-H", " "],
        &["find", "a", "-H", ""],
        &["check", "--host", ""],
        &["mount", "point", "--host", ""],
    ] {
        world.run(command).fails(1, &["An empty host names no snapshots"]);
    }
    assert_eq!(world.run(["snapshots", "--json"]).succeeds().json().len(), 1);
}

#[test]
fn a_repository_is_made_once() {
    let world = World::new();
    let said = world.run(["init"]).succeeds().stdout;
    assert!(said.contains("Made the repository") && said.contains("your backups are lost"), "{said}");
    let keys = world.objects("keys");
    world.run(["init"]).fails(1, &["There is a repository already in \"", "nothing was changed"]);
    assert_eq!(world.objects("keys"), keys);
}

#[test]
fn wrong_and_missing_passwords() {
    let world = World::with_repository();
    let wrong = [("FIRN_PASSWORD", Some("wrong"))];
    world.run_with(["snapshots"], &wrong).fails(12, &["Error: Wrong password", "Hint: "]);
    let none = [("FIRN_PASSWORD", None)];
    world.run_with(["snapshots"], &none).fails(1, &["no terminal to ask", "--password-file", "--key-file"]);
    // The hint names what was given, and what a key needs besides.
    world.write("key", [7; 64]);
    world.run_with(["snapshots"], &wrong).fails(12, &["Check the password (FIRN_PASSWORD,"]);
    let file = [("FIRN_PASSWORD", None), ("FIRN_KEY_FILE", Some("key"))];
    world.run_with(["snapshots"], &file).fails(12, &["Check the key file (--key-file or FIRN_KEY_FILE)"]);
    let both = [("FIRN_KEY_FILE", Some("key"))];
    world.run_with(["snapshots"], &[wrong[0], both[0]]).fails(12, &["Check the password (", " and the key file ("]);
    world.run(["key", "add", "-q", "--new-password-command", "echo two", "--new-key-file", "key"]).succeeds();
    let said = world.run_with(["snapshots"], &[("FIRN_PASSWORD", Some("two"))]);
    said.fails(12, &["There is a key that needs a key file, too: name the key file (--key-file or FIRN_KEY_FILE)."]);
    world.run_with(["snapshots"], &[("FIRN_PASSWORD", Some(""))]).fails(1, &["is empty"]);
    let both = [("FIRN_PASSWORD_FILE", Some("/x"))];
    world.run_with(["snapshots"], &both).fails(1, &["More than one of FIRN_PASSWORD"]);
    world.run(["snapshots", "-p", &world.text("nothing")]).fails(1, &["The password file \""]);
    world.run(["snapshots", "--password-command", "exit 3"]).fails(1, &["The password command failed"]);
    // A flag counts more than the environment.
    world.write("password", format!("{}\r\nmore\n", crate::support::run::PASSWORD));
    world.run_with(["snapshots", "-p", &world.text("password")], &wrong).succeeds();
    world.run_with(["snapshots", "--password-command", "cat password"], &wrong).succeeds();
}

#[test]
fn newer_and_damaged_repositories() {
    let world = World::with_repository();
    for config in world.objects("config") {
        patch(&config, 8, |version| version + 1);
        // Whatever vouches for it is another's as well; else it is a damaged one of today.
        patch(&config, 64, |byte| byte ^ 1);
    }
    world.run(["snapshots"]).fails(1, &["Error: ", "newer"]);
    let world = World::with_repository();
    let slot = &world.objects("keys")[0];
    patch(slot, 8, |version| version + 1);
    world.run(["snapshots"]).fails(5, &["does not have the bytes that its name promises"]);
    let name = blake3::hash(&std::fs::read(slot).unwrap()).to_hex();
    std::fs::rename(slot, slot.with_file_name(name.as_str())).unwrap();
    world.run(["snapshots"]).fails(1, &["newer"]);
    let world = World::with_repository();
    patch(&world.objects("keys")[0], 100, |byte| byte ^ 1);
    let ran = world.run(["snapshots"]);
    assert!(ran.code == 5 || ran.code == 12, "{ran:?}");
    let world = World::with_repository();
    patch(&world.objects("config")[1], 100, |byte| byte ^ 1);
    world.run(["snapshots"]).fails(0, &["Warning: The config \""]);
}

#[test]
fn usage() {
    let world = World::new();
    world.run(["nonsense"]).fails(2, &["unrecognized subcommand"]);
    world.run(["snapshots", "--nonsense"]).fails(2, &["--nonsense"]);
    world.run(["backup"]).fails(2, &["<PATH>"]);
    world.run(["restore", "latest"]).fails(2, &["--target"]);
    world.run(["init", "--kdf-memory", "1"]).fails(2, &["64..=4096"]);
    world.run::<&str>([]).fails(2, &["Usage:"]);
    assert!(world.run(["--version"]).succeeds().stdout.starts_with("firn "));
}

#[test]
fn snapshots_and_paths_that_are_not_there() {
    let world = World::with_repository();
    world.run(["ls"]).fails(1, &["The repository holds no snapshot", "firn backup"]);
    world.write("source/report.txt", "text");
    world.run(["backup", "source", "--tag", "one"]).succeeds();
    world.run(["ls", "zzz"]).fails(1, &["There is no snapshot \"zzz\"", "firn snapshots"]);
    world.run(["ls", "latest~1"]).fails(1, &["goes back too far"]);
    world.run(["ls", "/home"]).fails(1, &["is a path", "latest:/home"]);
    world.run(["ls", "latest:home"]).fails(1, &["must begin with"]);
    let near = format!("latest:{}", world.text("source/repart.txt"));
    world.run(["dump", &near]).fails(1, &["There is no \"", "Near matches", "report.txt"]);
    let folder = format!("latest:{}", world.text("source"));
    world.run(["dump", &folder]).fails(1, &["is a folder", "firn restore"]);
    // Seventeen snapshots: two of them share their first digit.
    for _ in 0..16 {
        world.run(["backup", "-q", "source"]).succeeds();
    }
    let all = world.run(["snapshots", "--json"]).succeeds().json();
    let first = |at: usize| all[at]["snapshot_id"].as_str().unwrap()[..1].to_owned();
    let twice = (0..17).map(first).find(|digit| (0..17).filter(|at| first(*at) == *digit).count() > 1).unwrap();
    world.run(["ls", &twice]).fails(1, &["is ambiguous", "Candidates"]);
}

#[test]
fn sources_that_cannot_be_read() {
    let world = World::with_repository();
    world.run(["backup", "nothing"]).fails(1, &["nothing"]);
    assert!(world.objects("snapshots").is_empty(), "without any source there must be no snapshot");
    world.write("source/a", "a");
    world.run(["backup", "-q", "nothing", "source"]).fails(3, &["nothing"]);
    assert_eq!(world.objects("snapshots").len(), 1);
    world.run(["backup", "source", "-e", "[a"]).fails(1, &["[a"]);
    world.run(["backup", "source", "--exclude-file", "none"]).fails(1, &["The file with patterns \"none\""]);
    world.run(["backup", "source", "--time", "soon"]).fails(2, &["--time"]);
}

#[test]
fn mountpoints() {
    let world = World::with_repository();
    // One that is missing is made, but not what is above it.
    world.run(["mount", &world.text("no/such")]).fails(1, &["Error: ", "no/such"]);
    assert!(!world.path("no").exists());
    world.write("full/a", "a");
    world.run(["mount", &world.text("full")]).fails(1, &["Error: ", "empty"]);
    let inside = world.text("repository/data/00");
    world.run(["mount", &inside]).fails(1, &["Error: "]);
    world.run(["umount", &world.text("full")]).fails(1, &["could not be unmounted"]);
}

#[test]
fn errors_for_programs() {
    let world = World::new();
    let ran = world.run(["--json", "snapshots"]).fails(10, &[]);
    let errors = ran.json_errors();
    assert_eq!(errors.len(), 1);
    assert_eq!((&errors[0]["message_type"], &errors[0]["code"]), (&"exit_error".into(), &10.into()));
    assert!(errors[0]["hint"].is_string() && ran.stdout.is_empty());
}
