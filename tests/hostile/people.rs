//! Snapshots, keys and coordination records full of nonsense, sealed rightly. Not for: trees (see `pages`).

use super::forge::{Forge, Raw};
use super::oracle::of;
use crate::support::run::{Ran, World};
use firn::format::header::Kind;
use firn::store::ObjectKind;
use serde_json::{Value, json};
use std::process::Command;

/// A repository with an honest snapshot; its id.
fn honest() -> (Forge, String) {
    let forge = Forge::new();
    let id = forge.snapshot(|chunks| chunks.folder(&[Raw::file(b"good", b"good")]));
    (forge, id)
}

/// Whatever else is there, the honest snapshot can be seen and restored, and a backup works.
#[track_caller]
fn still_usable(what: &str, forge: &Forge, id: &str) -> Ran {
    let told = forge.everything(id, "/good");
    for name in ["ls", "restore", "dump", "backup"] {
        assert_eq!(of(&told, name).code, 0, "{what}: {name}: {:?}", of(&told, name));
    }
    for arguments in [&["snapshots", "--json"][..], &["ls", "latest"]] {
        forge.bounded(arguments);
    }
    forge.bounded(&["snapshots"])
}

#[test]
fn bodies_that_are_no_snapshots() {
    let (forge, id) = honest();
    let deep = "[".repeat(1 << 20);
    let bodies: [&[u8]; 8] = [
        b"",
        b"{}",
        b"null",
        b"{\"version\":1e400}",
        b"{\"version\":-1}",
        b"{\"version\":1,\"version\":1}",
        b"\xff\xfe",
        deep.as_bytes(),
    ];
    let names = bodies.map(|body| forge.put_snapshot(body));
    let shown = still_usable("bodies", &forge, &id);
    for name in &names {
        assert!(shown.stderr.contains(&name[..8]), "{name}: {shown:?}");
        assert_eq!(forge.bounded(&["ls", name]).code, 5);
    }
    // Newer is not damaged, and nothing is written beside it that it might not understand.
    let newer = forge.put_snapshot(b"{\"version\":2}");
    let ran = forge.bounded(&["ls", &newer]);
    assert!(ran.code != 0 && ran.stderr.contains("format version 2"), "{ran:?}");
}

/// Changes the record of a snapshot.
type Change = fn(&mut Value);

#[test]
fn fields_without_bounds() {
    let changes: [(&str, Change); 12] = [
        ("tags", |record| record["tags"] = (0..100_000).map(|n| format!("tag{n}")).collect()),
        ("a long tag", |record| record["tags"] = json!(["t".repeat(1 << 20)])),
        ("slashes", |record| {
            record["tags"] = json!(["../../outside", "/", "", ".", "a/b", "\u{1b}[2J", "\u{0}"]);
            record["host"] = json!("../../../outside/host");
        }),
        ("paths", |record| {
            record["paths"] = json!(["/", "/../..", "//", "/a\nb", "/\u{1b}]0;x\u{7}", "/".repeat(100_000)])
        }),
        ("times", |record| {
            record["time"] = json!("9999-12-30T22:00:00Z");
            record["started"] = json!("-009999-01-02T01:59:59Z");
        }),
        ("numbers", |record| {
            record["sequence"] = json!(u64::MAX);
            record["summary"] = json!({"x": u64::MAX, "y": -1, "z": 1e300, "w": "text", "v": {"deep": []}});
            record["issues_total"] = json!(u64::MAX);
            record["uid"] = json!(u32::MAX);
        }),
        ("heads", |record| {
            let head = json!({"sequence": u64::MAX, "snapshot": "ab".repeat(32)});
            let heads = (0..20_000u32).map(|n| (format!("{n:032x}"), head.clone()));
            record["heads"] = Value::Object(heads.collect());
        }),
        ("itself", |record| {
            record["previous"] = json!("cd".repeat(32));
            record["parent"] = json!("ef".repeat(32));
        }),
        ("text", |record| {
            record["description"] = json!("d".repeat(4 << 20));
            record["label"] = json!("\u{1b}[31m\r\n");
            record["user"] = json!("\u{202e}resu");
        }),
        ("issues", |record| {
            let issue = json!({"path": "/\u{1b}[2J", "kind": "unreadable", "message": "m".repeat(10_000)});
            record["issues"] = json!(vec![issue; 1000]);
            record["issues_total"] = json!(1000);
        }),
        ("excludes", |record| record["excludes"] = json!(vec!["*".repeat(1000); 5000])),
        ("totals", |record| record["totals"]["bytes"] = json!(u64::MAX)),
    ];
    for (what, change) in changes {
        let (forge, id) = honest();
        forge.snapshot_with(|chunks| chunks.folder(&[Raw::file(b"other", b"other")]), change);
        let shown = still_usable(what, &forge, &id);
        assert!(!shown.stdout.contains('\x1b') && !shown.stdout.contains('\x07'), "{what} drives the terminal");
    }
}

#[test]
fn a_million_issues_are_refused() {
    let (forge, id) = honest();
    let bad = forge.snapshot_with(
        |chunks| chunks.folder(&[Raw::file(b"other", b"other")]),
        |record| {
            let issue = json!({"path": "/", "kind": "changed", "message": ""});
            record["issues"] = json!(vec![issue; 300_000]);
            record["issues_total"] = json!(300_000);
        },
    );
    let shown = still_usable("issues", &forge, &id);
    assert!(shown.stderr.contains(&bad[..8]), "{shown:?}");
}

#[test]
fn coordination_that_says_nothing() {
    let (forge, id) = honest();
    let name = "05".repeat(16);
    for body in [&b"{}"[..], b"", b"null", &[b'['; 100_000]] {
        let tomb = firn::repository::keyring::object_name(body).to_string();
        forge.put_record(Kind::Tomb, ObjectKind::Tomb, Some(&tomb), body);
    }
    forge.put_record(Kind::Pin, ObjectKind::Pin, Some(&name), b"{}");
    forge.put_record(Kind::Revoke, ObjectKind::Revoke, Some(&name), &[0; 1 << 20]);
    still_usable("coordination", &forge, &id);
    // A mark that says nothing may condemn anything: nothing is written until somebody has looked.
    let (forge, id) = honest();
    forge.put_record(Kind::Mark, ObjectKind::Mark, Some(&format!("{name}-1")), b"{}");
    let told = forge.everything(&id, "/good");
    assert_eq!(of(&told, "restore").code, 0);
    let backup = of(&told, "backup");
    assert!(backup.code == 5 && backup.stderr.contains(&name), "{backup:?}");
}

/// Slots that would cost 4 GiB and 20 passes, or more than any: the honest one opens, whatever stands before it.
#[test]
fn keys_that_cost_too_much() {
    let world = World::with_repository();
    let slot = std::fs::read(&world.objects("keys")[0]).unwrap();
    for number in 0..6u8 {
        let mut slot = slot.clone();
        slot[40] ^= number + 1;
        let memory = if number < 4 { 4_194_304u32 } else { u32::MAX };
        slot[12..16].copy_from_slice(&memory.to_le_bytes());
        slot[16..20].copy_from_slice(&(if number < 4 { 20u32 } else { u32::MAX }).to_le_bytes());
        let name = firn::repository::keyring::object_name(&slot).to_string();
        world.write(&format!("repository/keys/{name}"), slot);
    }
    let mut command = Command::new("prlimit");
    command.args(["--as=1610612736", "--cpu=20", "--core=0", crate::support::run::FIRN, "snapshots"]);
    world.surround(&mut command, &[]);
    Ran::from(command.output().unwrap()).succeeds();
    // With another password it ends as well.
    let mut command = Command::new("prlimit");
    command.args(["--as=1610612736", "--cpu=20", "--core=0", crate::support::run::FIRN, "snapshots"]);
    world.surround(&mut command, &[("FIRN_PASSWORD", Some("another"))]);
    Ran::from(command.output().unwrap()).fails(12, &["password"]);
}
