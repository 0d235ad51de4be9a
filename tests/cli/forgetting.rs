//! What forgetting, undeleting and pinning say where something is unusual: damage, brakes, a prune at work, an older repository.

use crate::support::run::{World, patch};
use serde_json::Value;

/// Days before today, at noon: nothing is dated in the future.
fn day(ago: u64) -> String {
    let days = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400 - ago;
    let day = format!("@{}", days * 86_400);
    let date = std::process::Command::new("date").args(["-u", "-d", &day, "+%Y-%m-%d 12:00:00"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

/// A repository with a snapshot of each of these days.
fn world(days_ago: &[u64]) -> (World, Vec<String>) {
    let world = World::with_key_file();
    for ago in days_ago {
        world.write("source/file", format!("{ago} days ago\n").repeat(100));
        world.run(["backup", "-q", "source", "-H", "here", "--time", &day(*ago)]).succeeds();
    }
    let ids = ids(&world);
    (world, ids)
}

fn ids(world: &World) -> Vec<String> {
    let lines = world.run(["snapshots", "--json"]).succeeds().json();
    lines.iter().map(|line| line["snapshot_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn groups_for_programs_have_the_names_of_restic() {
    let (world, ids) = world(&[3, 2, 1]);
    let ran = world.run(["forget", "--json", "-n", "--keep-daily", "3", "--keep-last", "1", "--keep-yearly", "all"]);
    let groups = ran.succeeds().json();
    let [group] = &groups[..] else { panic!("{groups:?}") };
    assert_eq!((&group["group_key"]["hostname"], &group["group_key"]["tags"]), (&"here".into(), &Value::Null));
    assert_eq!(group["group_key"]["paths"], serde_json::json!([world.text("source")]));
    let list = |what: &str| -> Vec<String> {
        group[what]
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| snapshot["snapshot_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(list("keep"), [ids[2].clone(), ids[1].clone(), ids[0].clone()]);
    assert!(list("remove").is_empty());
    let reasons = group["reasons"].as_array().unwrap();
    assert_eq!(reasons[0]["snapshot"]["snapshot_id"], ids[2]);
    assert_eq!(
        reasons[0]["matches"],
        serde_json::json!(["last snapshot", "daily snapshot", "yearly snapshot"]),
        "{reasons:?}"
    );
    assert_eq!(reasons[0]["counters"], serde_json::json!({ "last": 0, "daily": 2, "yearly": -1 }));
    assert_eq!(reasons[1]["counters"]["daily"], 1);
    let one = &world.run(["forget", "--json", &ids[0]]).succeeds().json()[0];
    assert_eq!((&one["message_type"], &one["snapshot"]["snapshot_id"]), (&"forgotten".into(), &ids[0].clone().into()));
}

#[test]
fn a_brake_changes_nothing_and_shows_what_it_stopped_if_asked() {
    let (world, ids) = world(&[2, 1]);
    let none = ["forget", "--keep-tag", "none"];
    let ran = world.run(none).fails(6, &["would forget all 2 snapshots", "nothing was forgotten", "--yes-really"]);
    assert!(ran.stdout.is_empty(), "{ran:?}");
    for option in ["--dry-run", "--explain"] {
        let ran = world.run(none.iter().copied().chain([option])).fails(6, &["nothing was forgotten"]);
        assert!(ran.stdout.contains("would forget 2") && ran.stdout.contains("no rule keeps it"), "{ran:?}");
    }
    assert_eq!(self::ids(&world), ids);
    let said = world.run(none.iter().copied().chain(["--yes-really"])).succeeds().stdout;
    assert!(said.contains("kept 0 snapshots, forgot 2"), "{said}");
    world.run(["forget", "latest"]).fails(1, &["holds no snapshot", "2 forgotten"]);
    let quiet = world.run(["undelete", "-q", "--all"]).succeeds();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    assert_eq!(self::ids(&world), ids);
}

#[test]
fn snapshots_dated_in_the_future_are_kept_and_take_nobodys_place() {
    let (world, ids) = world(&[3, 2]);
    world.run(["backup", "-q", "source", "-H", "here", "--time", "2999-01-01 00:00:00"]).succeeds();
    let said = world.run(["forget", "--explain", "--keep-last", "2", "--keep-within", "7d"]).succeeds().stdout;
    assert!(said.contains("kept 3 snapshots, forgot 0") && said.contains("dated in the future"), "{said}");
    assert_eq!(self::ids(&world)[..2], ids);
}

#[test]
fn a_damaged_snapshot_goes_only_by_its_whole_id() {
    let (world, ids) = world(&[3, 2, 1]);
    patch(&world.path("repository/snapshots").join(&ids[0]), 120, |byte| byte ^ 1);
    world.run(["forget", "--keep-last", "1"]).fails(0, &["Warning: "]);
    assert_eq!(world.objects("tombs").len(), 1, "a policy does not touch what it cannot read");
    world.run(["prune", "--keep-deleted", "0s"]).fails(6, &["cannot be read", "firn forget"]);
    world.run(["forget", &ids[0][..8]]).fails(5, &["cannot be read"]);
    let said = world.run(["forget", &ids[0]]).fails(0, &[]).stdout;
    assert!(said.contains("Forgot the damaged or missing snapshot") && said.contains(&ids[0]), "{said}");
    world.run(["prune", "--keep-deleted", "0s"]).fails(0, &[]);
    world.run(["check", "-q", "--read-data"]).succeeds();
    assert_eq!(self::ids(&world), ids[2..]);
}

#[test]
fn undelete_promises_nothing_beside_a_prune_and_goes_on_behind_what_is_lost() {
    let (world, ids) = world(&[3, 2, 1]);
    world.run(["forget", &ids[0], &ids[1]]).succeeds();
    // As a prune that was stopped left it.
    world.write("repository/marks/00000000000000000000000000000001-1", "whatever");
    world.run(["undelete", &ids[0]]).fails(11, &["may be about to delete", "stays forgotten", "Wait for the prune"]);
    assert_eq!(self::ids(&world), ids[2..]);
    std::fs::remove_file(world.path("repository/marks/00000000000000000000000000000001-1")).unwrap();
    world.run(["undelete", &ids[2]]).fails(1, &["is not forgotten"]);
    world.run(["undelete", "latest", "--all"]).fails(2, &["cannot be used with"]);
    // The oldest pack holds what only the first snapshot needs.
    let packs = world.objects("data");
    let age = |pack: &&std::path::PathBuf| pack.metadata().unwrap().modified().unwrap();
    let pack = packs.iter().min_by_key(age).unwrap();
    let bytes = std::fs::read(pack).unwrap();
    std::fs::remove_file(pack).unwrap();
    let ran = world.run(["undelete", "--all"]).fails(5, &["no longer whole", "stays forgotten"]);
    assert!(ran.stdout.contains(&ids[1][..8]), "{ran:?}");
    assert_eq!(self::ids(&world), ids[1..]);
    std::fs::write(pack, bytes).unwrap();
    world.run(["undelete", "latest"]).succeeds();
    assert_eq!(self::ids(&world), ids);
}

#[test]
fn forgotten_and_pinned_ones_say_since_when_and_why() {
    let (world, ids) = world(&[3, 2, 1]);
    // A repository that was made before there were pins of snapshots has no folder for them.
    drop(std::fs::remove_dir(world.path("repository/holds")));
    assert_eq!(self::ids(&world), ids);
    world.run(["pin", &ids[0][..10], "--reason", "taxes of\x1b[2J 2020"]).succeeds();
    let table = world.run(["snapshots"]).succeeds().stdout;
    assert!(table.contains("pinned: taxes of\\x1b[2J 2020") && !table.contains('\x1b'), "{table}");
    let line = &world.run(["snapshots", "--json"]).succeeds().json()[0];
    assert_eq!((&line["pinned"], &line["pinned_reason"]), (&true.into(), &"taxes of\x1b[2J 2020".into()));
    world.run(["forget", &ids[1], &ids[0]]).fails(6, &["is pinned", "nothing was forgotten", "firn unpin"]);
    assert_eq!(self::ids(&world), ids);
    let said = world.run(["forget", "--keep-last", "1", "--explain"]).succeeds().stdout;
    assert!(said.contains("pinned: taxes") && said.contains("forgot 1"), "{said}");
    let line = &world.run(["snapshots", "--forgotten", "--json"]).succeeds().json()[0];
    assert_eq!(line["snapshot_id"], ids[1]);
    assert!(line["forgotten_at"].is_string() && line["forgotten_since"].is_string(), "{line}");
    let table = world.run(["snapshots", "--forgotten"]).succeeds().stdout;
    assert!(table.contains("forgotten 20") && !table.contains("(stored"), "{table}");
    let tomb = &world.objects("tombs")[0];
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    std::fs::File::open(tomb).unwrap().set_modified(long_ago).unwrap();
    let table = world.run(["snapshots", "--forgotten"]).succeeds().stdout;
    assert!(table.contains("(stored 20"), "{table}");
    world.run(["unpin", "latest~1"]).succeeds();
    world.run(["unpin", "latest~1"]).fails(1, &["is not pinned"]);
    world.run(["check", "-q", "--read-data"]).succeeds();
}
