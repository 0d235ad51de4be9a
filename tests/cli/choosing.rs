//! Which snapshots commands choose: every command that takes a snapshot with every filter, and dates that cannot be right.

use crate::support::run::{Ran, World};
use std::collections::BTreeMap;

/// The snapshots of two hosts with two source lists each, by a word for each; the last one made is "two both".
fn world() -> (World, BTreeMap<&'static str, String>) {
    let world = World::with_key_file();
    world.write("a/file", "");
    world.write("b/other", "");
    let mut ids = BTreeMap::new();
    for (name, host, tags, sources) in [
        ("one both", "one", "x, y", &["a", "b"][..]),
        ("one a", "one", "x", &["a"]),
        ("two a", "two", "y", &["a"]),
        ("two both", "two", "z", &["a", "b"]),
    ] {
        world.write("a/file", name);
        let mut arguments = vec!["-H", host, "--tag", tags];
        arguments.extend(sources);
        ids.insert(name, world.backup(0, arguments)["snapshot_id"].as_str().unwrap().to_owned());
    }
    (world, ids)
}

/// What filters choose.
const FILTERS: [(&[&str], &str); 9] = [
    (&[], "two both"),
    (&["--host", "one"], "one a"),
    (&["-H", "one", "-H", "two"], "two both"),
    (&["--tag", " y , x"], "one both"),
    (&["--tag", "x", "--tag", "y"], "two a"),
    (&["--path", "b"], "two both"),
    (&["--path", "b", "--path", "a", "-H", "one"], "one both"),
    (&["--host", "one", "--tag", "x", "--path", "a"], "one a"),
    (&["--host", "two", "--tag", "y"], "two a"),
];

#[test]
fn every_command_chooses_by_every_filter() {
    let (world, ids) = world();
    let file = world.text("a/file");
    let at_file = format!("latest:{file}");
    for (filter, chosen) in FILTERS {
        let with = |arguments: &[&str]| world.run(arguments.iter().chain(filter).copied()).succeeds();
        let says = |ran: &Ran| {
            let note = format!("is the snapshot {}", &ids[chosen][..8]);
            assert!(ran.stderr.contains(&note), "{filter:?} chooses {chosen}: {ran:?}");
        };
        let dumped = with(&["dump", &at_file]);
        says(&dumped);
        assert_eq!(dumped.stdout, chosen, "{filter:?}");
        says(&with(&["ls"]));
        says(&with(&["diff", "latest", "latest"]));
        says(&with(&["find", "file", "--snapshot", "latest"]));
        says(&with(&["du", "latest"]));
        says(&with(&["pin", "latest"]));
        says(&with(&["unpin", "latest"]));
        says(&with(&["check", "latest"]));
        says(&with(&["repair", "snapshots", "-n", "latest"]));
        says(&with(&["forget", "-n", "latest"]));
        std::fs::remove_dir_all(world.path("out")).ok();
        says(&with(&["restore", &format!("latest:{}", world.text("a")), "-t", "out"]));
        assert_eq!(std::fs::read_to_string(world.path("out/file")).unwrap(), chosen, "{filter:?}");
        // What looks at all that count ends with the same one.
        let seen = with(&["history", "--json", &file]).json();
        let newest = seen.iter().max_by_key(|version| version["last_seen"].as_str().unwrap().to_owned()).unwrap();
        assert_eq!(newest["snapshot_id"].as_str().unwrap(), ids[chosen], "{filter:?}");
        let listed = with(&["snapshots", "--json", "--latest", "1", "-g", "none"]).json();
        assert_eq!(listed[0]["snapshots"][0]["snapshot_id"].as_str().unwrap(), ids[chosen], "{filter:?}");
        let plan = with(&["forget", "-n", "--json", "-g", "", "--keep-last", "1"]).json();
        assert_eq!(
            (plan.len(), plan[0]["keep"][0]["snapshot_id"].as_str().unwrap()),
            (1, ids[chosen].as_str()),
            "{filter:?}"
        );
    }
    for arguments in [&["ls", "latest"][..], &["dump", &at_file], &["restore", "latest", "-t", "none"]] {
        let nothing = ["--host", "three", "--tag", "x"];
        world
            .run(arguments.iter().chain(&nothing).copied())
            .fails(1, &["no snapshot with the host \"three\"", "\"x\""]);
    }
    // An id says which one; a filter that does not fit is no decoration.
    world.run(["ls", &ids["one a"], "--host", "two"]).fails(1, &["does not have the host \"two\""]);
    world.run(["ls", &ids["one a"], "--host", "one"]).succeeds();
    world.run(["ls", "latest~1", "--host", "one"]).succeeds();
    world.run(["ls", "latest~2", "--host", "one"]).fails(1, &["goes back too far", "2 snapshots have the host"]);
}

#[test]
fn it_is_said_whose_the_latest_is() {
    let (world, _) = world();
    let place = format!("latest:{}", world.text("a/file"));
    let said = world.run(["dump", &place]).succeeds();
    assert!(said.warnings().contains("host \"two\"; there are also snapshots of that path from \"one\""), "{said:?}");
    for named in [&["--host", "one"][..], &["--tag", "z"]] {
        let said = world.run(["dump", &place].iter().chain(named).copied()).succeeds();
        assert_eq!(said.warnings(), "", "{named:?}");
    }
    let quiet = world.run(["dump", "-q", "--host", "one", &place]).succeeds();
    assert_eq!(quiet.stderr, "");
    // The latest may have nothing to do with the path.
    world.backup(0, ["b", "-H", "one"]);
    world.run(["dump", &place]).fails(1, &["is not of", "The latest one that is"]);
    assert_eq!(world.run(["dump", &place, "--path", "a", "-H", "one"]).succeeds().stdout, "one a");
}

#[test]
fn a_date_in_the_future_makes_no_latest() {
    let world = World::with_key_file();
    world.write("a/file", "early");
    world.backup(0, ["a", "--time", "2999-01-01", "-H", "h", "--label", "of tomorrow"]);
    let only = world.run(["dump", &format!("latest:{}", world.text("a/file"))]).succeeds();
    assert!(only.stdout == "early" && only.warnings().contains("dated in the future"), "{only:?}");
    world.write("a/file", "late");
    world.backup(0, ["a", "-H", "h"]);
    let said = world.run(["dump", &format!("latest:{}", world.text("a/file"))]).succeeds();
    assert_eq!(said.stdout, "late");
    assert!(said.warnings().contains("dated in the future") && said.warnings().contains("2999"), "{said:?}");
    let listed = world.run(["snapshots"]).succeeds().stdout;
    assert!(
        listed.contains("dated in the future") && listed.contains("of tomorrow") && listed.contains("Label"),
        "{listed}"
    );
    // The same in a policy: the newest backup stays.
    let plan = world.run(["forget", "-n", "--json", "--keep-last", "1"]).succeeds().json();
    assert_eq!(plan[0]["keep"].as_array().unwrap().len(), 2, "{plan:?}");
}

/// Without names the filters choose all that they fit, and what fits nothing is a mistake rather than nothing wrong.
#[test]
fn what_filters_choose_is_all_that_counts() {
    let (world, ids) = world();
    let checked = |filter: &[&str]| {
        let check = ["check", "--json"];
        world.run(check.iter().chain(filter).copied()).succeeds().json().pop().unwrap()["snapshots"].as_u64().unwrap()
    };
    assert_eq!((checked(&[]), checked(&["--host", "one"]), checked(&["--path", "b", "--tag", "z"])), (4, 2, 1));
    let repaired = world.run(["repair", "snapshots", "-n", "--json", "--host", "two"]).succeeds().json();
    let count = repaired.iter().filter(|object| object["message_type"] == "repaired").count();
    assert_eq!(count, 2, "{repaired:?}");
    for command in [&["check"][..], &["repair", "snapshots"]] {
        world
            .run(command.iter().chain(&["--host", "nobody"]).copied())
            .fails(1, &["no snapshot with the host \"nobody\""]);
    }
    // Forgotten snapshots are chosen by the same words.
    world.run(["forget", "-q", &ids["one a"], &ids["two a"], &ids["one both"]]).succeeds();
    let undeleted = |arguments: &[&str]| -> Vec<String> {
        let all = world.run(["undelete", "--json"].iter().chain(arguments).copied()).succeeds().json();
        let is_meant = |object: &&serde_json::Value| object["message_type"] == "undeleted";
        all.iter().filter(is_meant).map(|object| object["snapshot_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(undeleted(&["latest", "--host", "one"]), [ids["one a"].clone()]);
    assert_eq!(undeleted(&["--all", "--host", "two"]), [ids["two a"].clone()]);
    world.run(["undelete", "beef"]).fails(1, &["No forgotten snapshot \"beef\"", "firn snapshots --forgotten"]);
    assert_eq!(undeleted(&["--all"]), [ids["one both"].clone()]);
    let nothing = world.run(["undelete", "beef"]).fails(1, &["firn snapshots --forgotten"]);
    assert!(!nothing.stderr.contains("firn backup"), "{nothing:?}");
}

#[test]
fn lists_of_snapshots() {
    let (world, ids) = world();
    let list = |arguments: &[&str]| -> Vec<String> {
        let all = world.run(["snapshots", "--json"].iter().chain(arguments).copied()).succeeds().json();
        all.iter().map(|snapshot| snapshot["snapshot_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(list(&["--latest", "1"]).len(), 4, "each host and set of paths");
    assert_eq!(
        list(&["--host", "one", "--latest", "1", "--tag", "x"]),
        [ids["one both"].clone(), ids["one a"].clone()]
    );
    assert_eq!(list(&["--path", "b"]), [ids["one both"].clone(), ids["two both"].clone()]);
    let groups = world.run(["snapshots", "--json", "-g", "host", "--latest", "1"]).succeeds().json();
    let of = |at: usize| (&groups[at]["group_key"]["hostname"], &groups[at]["snapshots"][0]["snapshot_id"]);
    assert_eq!(groups.len(), 2);
    assert_eq!(of(0), (&"one".into(), &ids["one a"].clone().into()));
    assert_eq!(of(1), (&"two".into(), &ids["two both"].clone().into()));
    let said = world.run(["snapshots", "--group-by", "tags"]).succeeds().stdout;
    assert!(said.contains("tags [x, y]:\n") && said.contains("tags [z]:\n"), "{said}");
    for nothing in ["--group-by=", "--group-by=none"] {
        let said = world.run(["snapshots", nothing]).succeeds().stdout;
        assert!(said.starts_with("ID ") && said.ends_with("4 snapshots\n"), "{said}");
        let said = world.run(["forget", "-n", "--keep-last", "1", nothing]).succeeds().stdout;
        assert!(said.starts_with("kept 1 snapshot, would forget 3\n"), "{said}");
    }
    world.run(["snapshots", "--latest", "0"]).fails(2, &["--latest"]);
    // One that is not complete is marked.
    world.backup(3, ["a", "missing", "-H", "one"]);
    let said = world.run(["snapshots", "--host", "one"]).succeeds().stdout;
    assert!(said.contains("incomplete: 1 problem"), "{said}");
}
