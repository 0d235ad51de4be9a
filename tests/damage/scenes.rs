//! Several objects at once: the whole index, all configs, all keys, all snapshots. Not for: single objects (see `matrix`).

use super::action::Action;
use super::case::Case;
use super::matrix::all;
use super::sample::SAMPLE;
use std::path::PathBuf;

/// Does the same to all objects of a kind.
fn hit_all(case: &Case<'_>, kind: &str, action: Action) -> Vec<PathBuf> {
    let mut hit = Vec::new();
    for added in &SAMPLE.added {
        for (_, path) in added.iter().filter(|(its, _)| *its == kind) {
            let path = case.repository().join(path);
            hit.extend(action.apply(&path, &path, &path));
        }
    }
    assert!(!hit.is_empty());
    hit
}

const ACTIONS: [Action; 5] = [Action::Delete, Action::Empty, Action::Half, Action::Zero, Action::FlipPart(500)];

#[test]
fn the_whole_index() {
    all(&ACTIONS, |action| {
        for warm in [false, true] {
            let case = Case::new(&SAMPLE, format!("whole index {action:?} warm {warm}"), warm);
            hit_all(&case, "index", *action);
            for restored in case.restore_all().iter().filter(|restored| !restored.whole()) {
                assert!(restored.ran.stderr.contains("repair index"), "{}: {:?}", case.name, restored.ran);
            }
            assert!(matches!(case.check().0.code, 4 | 5), "{}", case.name);
            assert_eq!(case.run(&["repair", "index"]).code, 0, "{}", case.name);
            assert!(case.restore_all().iter().all(|restored| restored.whole()), "{}", case.name);
            let check = case.check().0;
            assert_eq!(check.code, 0, "{}: {check:?}", case.name);
        }
    });
}

#[test]
fn all_configs() {
    all(&ACTIONS, |action| {
        let case = Case::new(&SAMPLE, format!("all configs {action:?}"), true);
        hit_all(&case, "config", *action);
        assert!(case.restore_all().iter().all(|restored| restored.whole()), "{}", case.name);
        let refused = case.run(&["backup", &SAMPLE.world.text("source")]);
        assert!(refused.code == 5 && refused.stderr.contains("repair index"), "{}: {refused:?}", case.name);
        assert!(matches!(case.check().0.code, 4 | 5), "{}", case.name);
        assert_eq!(case.run(&["repair", "index"]).code, 0, "{}", case.name);
        assert_eq!(case.run(&["backup", "-q", &SAMPLE.world.text("source")]).code, 0, "{}", case.name);
        assert_eq!(case.check().0.code, 0, "{}", case.name);
    });
}

#[test]
fn all_keys() {
    all(&ACTIONS, |action| {
        let case = Case::new(&SAMPLE, format!("all keys {action:?}"), true);
        let hit = hit_all(&case, "keys", *action);
        let ran = case.run(&["snapshots"]);
        assert!(matches!(ran.code, 5 | 10 | 12), "{}: {ran:?}", case.name);
        let name = &hit[0].file_name().unwrap().to_str().unwrap()[..8];
        assert!(*action == Action::Delete || ran.stderr.contains(name), "{}: {ran:?}", case.name);
        let bytes = case.bytes();
        case.look();
        for arguments in [&["check"][..], &["repair", "index"], &["backup", &SAMPLE.world.text("source")]] {
            assert_eq!(case.run(arguments).code, ran.code, "{}: {arguments:?}", case.name);
        }
        assert!(bytes == case.bytes(), "{}: something was changed", case.name);
    });
}

#[test]
fn all_snapshots() {
    all(&ACTIONS, |action| {
        let case = Case::new(&SAMPLE, format!("all snapshots {action:?}"), true);
        let hit = hit_all(&case, "snapshots", *action);
        assert!(case.restore_all().iter().all(|restored| !restored.whole()));
        let said = case.run(&["snapshots"]).stderr;
        // That of the forgotten one is no loss, so nothing is said of it.
        for name in hit.iter().map(|path| path.file_name().unwrap().to_str().unwrap()) {
            let is_live = SAMPLE.ids.iter().any(|id| id == name);
            // Which ones are gone is known of some only.
            let may_be_unknown = is_live && *action == Action::Delete;
            assert!(may_be_unknown || said.contains(name) == is_live, "{}: {name}: {said}", case.name);
        }
        // Nothing has to be stored again.
        let ran = case.run(&["backup", "--json", &SAMPLE.world.text("source")]);
        let summary = ran.json().pop().unwrap();
        assert!(summary["data_added"].as_u64().unwrap() < 10_000, "{}: {ran:?}", case.name);
        assert!(case.restore(summary["snapshot_id"].as_str().unwrap(), "expected3").whole());
    });
}
