//! Each kind of object, each kind of damage, and everything that a person may do next. Not for: several objects at once.

use super::action::{ACTIONS, Action};
use super::case::{Case, Restored};
use super::sample::{KINDS, SAMPLE};
use crate::support::share;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Works on all of `cells` with two threads, and fails with all that failed.
pub(crate) fn all<T: Sync>(cells: &[T], work: impl Fn(&T) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let turn = || {
        while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(cell))) {
                failed.lock().unwrap().push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(turn);
        scope.spawn(turn);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cells.len(), failed.join("\n\n"));
}

struct Cell {
    kind: &'static str,
    action: Action,
    /// Which snapshot's object: 1 to 3.
    number: usize,
    warm: bool,
}

fn cells(kinds: &[&'static str]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (at, action) in ACTIONS.iter().enumerate() {
        for kind in kinds {
            let at = at + cells.len() / (kinds.len() * 2);
            cells.push(Cell { kind, action: *action, number: at % 3 + 1, warm: (at / 3).is_multiple_of(2) });
        }
    }
    // Another third of the actions for each kind.
    let every = share(3, 1);
    let (width, mut at) = (kinds.len(), 0..);
    cells.retain(|_| at.next().is_some_and(|at| (at / width + at % width).is_multiple_of(every)));
    cells
}

#[test]
fn packs() {
    all(&cells(&["data", "tree"]), one);
}

#[test]
fn everything_else() {
    let others: Vec<_> = KINDS.into_iter().filter(|kind| !matches!(*kind, "data" | "tree")).collect();
    all(&cells(&others), one);
}

fn one(cell: &Cell) {
    let Cell { kind, action, number, warm } = *cell;
    let mut case = Case::new(&SAMPLE, format!("{kind} {number} {action:?} warm {warm}"), warm);
    let object = |kind: &str, number: usize| case.repository().join(SAMPLE.object(kind, number));
    let other = if kind == "data" { object("tree", number) } else { object("data", number) };
    let hit = action.apply(&object(kind, number), &object(kind, number % 3 + 1), &other);
    if kind == "keys" {
        case.key = usable_key(&case, &hit);
    }
    let before = case.restore_all();
    reachable(&case, cell, &before);
    named(&case, cell, &hit, &before);
    case.look();
    let check = case.check_knows(&before);
    if !matches!(action, Action::Delete) && matches!(check.code, 0 | 4 | 5) {
        for path in &hit {
            let name = path.file_name().unwrap().to_str().unwrap();
            let said = check.stdout.contains(name) || check.stderr.contains(name);
            assert!(said || !covered(kind, action), "{}: not found: {check:?}", case.name);
        }
    }
    let repair_first = !number.is_multiple_of(2);
    if repair_first {
        repair(&case, &before, check.code);
    }
    again(&case, cell, repair_first);
    if !repair_first {
        repair(&case, &before, check.code);
    }
}

/// Whether anything covers all bytes: a config and a tomb are not named by their bytes, so nothing vouches for their padding;
/// and both configs say the same.
fn covered(kind: &str, action: Action) -> bool {
    let padding = matches!(action, Action::FlipPart(900..) | Action::FlipEnd(_));
    !(matches!(kind, "config" | "tombs") && (padding || action == Action::Swap))
}

/// The key file whose slot was not hit, if one was not.
fn usable_key(case: &Case<'_>, hit: &[PathBuf]) -> &'static str {
    let opens = |key: &'static str| {
        let mut copy = Case::new(case.sample, String::new(), false);
        copy.key = key;
        for path in hit {
            drop(std::fs::remove_file(copy.repository().join(path.strip_prefix(case.repository()).unwrap())));
        }
        copy.run(&["snapshots"]).code == 0
    };
    if opens("key") { "key" } else { "key2" }
}

/// Snapshots that do not need what is damaged are whole.
fn reachable(case: &Case<'_>, cell: &Cell, restored: &[Restored]) {
    let swapped = if cell.action == Action::Swap { cell.number % 3 + 1 } else { cell.number };
    for (at, restored) in restored.iter().enumerate() {
        let snapshot = at + 1;
        let must = match cell.kind {
            "config" | "tombs" => true,
            // Where two slots changed places, each opens all the same.
            "keys" => true,
            "data" | "tree" => snapshot < cell.number.min(swapped),
            "snapshots" => snapshot != cell.number && snapshot != swapped,
            // The local table still knows.
            "index" => cell.warm && cell.action != Action::Swap && cell.action != Action::Delete,
            _ => unreachable!(),
        };
        assert!(restored.whole() || !must, "{}: snapshot {snapshot}: {:?}", case.name, restored.ran);
        // In a snapshot that is hit, the files of the others are there.
        if cell.kind == "data" {
            let others = |path: &PathBuf| {
                let folders = ["one", "two", "three"].map(|name| case.sample.world.path("source").join(name));
                !path.starts_with(&folders[cell.number - 1]) && !path.starts_with(&folders[swapped - 1])
            };
            assert!(!restored.missing.iter().any(others), "{}: {:?}", case.name, restored.missing);
        }
    }
}

/// Where a restore failed, the message names what is damaged, or says what to do.
fn named(case: &Case<'_>, cell: &Cell, hit: &[PathBuf], restored: &[Restored]) {
    for restored in restored.iter().filter(|restored| !restored.whole()) {
        let text = &restored.ran.stderr;
        let names = || hit.iter().any(|path| text.contains(&path.file_name().unwrap().to_str().unwrap()[..8]));
        let advice = match cell.kind {
            "index" => text.contains("repair index"),
            "snapshots" if cell.action == Action::Delete => text.contains("There is no snapshot"),
            _ => false,
        };
        assert!(names() || advice, "{}: neither names nor advises: {:?}", case.name, restored.ran);
    }
}

/// Repairing changes nothing in a dry run, makes nothing worse, and all whole if the check said that it can.
fn repair(case: &Case<'_>, before: &[Restored], check: i32) {
    let bytes = case.bytes();
    case.run(&["repair", "index", "--dry-run"]);
    assert!(bytes == case.bytes(), "{}: a dry run changed something", case.name);
    match case.name.contains("Swap") {
        // No pack lacks anything; only reading tells that they are others.
        true => case.run(&["repair", "index", "--read-all-packs"]),
        false => case.run(&["repair", "index"]),
    };
    let after = case.restore_all();
    for (before, after) in before.iter().zip(&after) {
        assert!(after.whole() || !before.whole(), "{}: repair made it worse: {:?}", case.name, after.ran);
        assert!(after.missing.is_subset(&before.missing), "{}: repair lost {:?}", case.name, after.missing);
        assert!(after.whole() || !matches!(check, 0 | 4), "{}: not repaired: {:?}", case.name, after.ran);
    }
    let check = case.check_knows(&after);
    assert!(check.code == 0 || !case.name.starts_with("index"), "{}: {check:?}", case.name);
}

/// A backup of the source, which is still there, works; where the damage shows in a listing, or in a tree that a repair has
/// looked at, it stores again what is lost. (What only reading finds is taken as stored: `check --read-data` is there for it.)
fn again(case: &Case<'_>, cell: &Cell, repaired: bool) {
    let ran = case.run(&["backup", "--json", &case.sample.world.text("source")]);
    if ran.code != 0 {
        let opens = case.run(&["snapshots"]).code == 0;
        assert!(!opens, "{}: no new snapshot: {ran:?}", case.name);
        return;
    }
    let id = ran.json().pop().unwrap()["snapshot_id"].as_str().unwrap().to_owned();
    let restored = case.restore(&id, "expected3");
    let must = match cell.kind {
        "data" => cell.action.shows_in_a_listing(),
        "tree" => cell.action.shows_in_a_listing() || repaired,
        _ => true,
    };
    assert!(restored.whole() || !must, "{}: the new snapshot: {:?}", case.name, restored.ran);
    case.check_knows(&[restored]);
}
