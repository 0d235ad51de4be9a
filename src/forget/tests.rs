//! What is forgotten and what stays, on real repositories. Not for: single rules (see `policy`).

use super::undelete::undelete;
use super::*;
use crate::backup::{self, BackupOptions};
use crate::check::fixture::{keys, open, repository as fixture, snapshot};
use crate::progress::Silent;
use crate::prune::{self, PruneOptions};
use crate::store::{MemoryStore, ObjectKey, Store};
use policy::{Count, Period};
use std::sync::Arc;
use std::time::Duration;

fn day(text: &str) -> Timestamp {
    format!("{text}T12:00:00Z").parse().unwrap()
}

/// Snapshots of the same tree at these times; what a test changes in each.
fn with_times(
    times: &[&str],
    change: impl Fn(usize, &mut crate::format::snapshot::Snapshot),
) -> (MemoryStore, Vec<ObjectName>) {
    let (store, [first, second]) = fixture();
    let repository = open(Arc::new(store.clone()));
    let like = repository.snapshot(first).unwrap();
    let mut names = Vec::new();
    for (number, text) in times.iter().enumerate() {
        let mut made = snapshot(like.writer, like.session, number as u64 + 1, None, like.tree, like.totals);
        (made.time, made.started) = (day(text), day(text));
        change(number, &mut made);
        names.push(repository.put_snapshot(&made).unwrap());
    }
    for name in [first, second] {
        store.delete(&ObjectKey::new(ObjectKind::Snapshot, name)).unwrap();
    }
    (store, names)
}

fn options(counts: &[(Period, u32)]) -> ForgetOptions {
    let counts = counts.iter().map(|(period, most)| (*period, Count::Most(*most))).collect();
    ForgetOptions { policy: Policy { counts, ..Policy::default() }, ..ForgetOptions::default() }
}

fn removed(store: &MemoryStore, options: &ForgetOptions) -> Result<Vec<ObjectName>> {
    let groups = plan(&open(Arc::new(store.clone())), options, &Stop::new())?;
    Ok(groups.iter().flat_map(|group| group.removed().map(|named| named.name)).collect())
}

#[test]
fn groups_are_judged_one_by_one() {
    let times = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"];
    let (store, names) = with_times(&times, |number, snapshot| {
        snapshot.host = if number % 2 == 0 { "even".into() } else { "odd".into() };
        snapshot.tags = if number == 0 { vec!["a".into(), "b".into()] } else { Vec::new() };
    });
    let last = options(&[(Period::Last, 1)]);
    assert_eq!(removed(&store, &last).unwrap(), [names[0], names[1]]);
    let none = Grouping { host: false, paths: false, tags: false };
    assert_eq!(removed(&store, &ForgetOptions { grouping: none, ..last.clone() }).unwrap().len(), 3);
    let tags = Grouping { tags: true, ..none };
    assert_eq!(removed(&store, &ForgetOptions { grouping: tags, ..last.clone() }).unwrap(), [names[2], names[1]]);
    let filter = Filter { hosts: vec!["odd".into()], ..Filter::default() };
    assert_eq!(removed(&store, &ForgetOptions { filter, ..last.clone() }).unwrap(), [names[1]]);
    let filter = Filter { tags: vec![vec!["b".into(), "a".into()], vec!["c".into()]], ..Filter::default() };
    let options = ForgetOptions { filter, consent: true, ..ForgetOptions::default() };
    assert_eq!(removed(&store, &options).unwrap(), [names[0]]);
    let keep = ForgetOptions { keep: [names[0]].into(), ..last };
    assert_eq!(removed(&store, &keep).unwrap(), [names[1]]);
}

#[test]
fn a_policy_that_leaves_nothing_needs_consent() {
    let (store, names) = with_times(&["2026-01-01", "2026-01-02"], |_, _| {});
    let mut options = ForgetOptions {
        policy: Policy { tags: vec![vec!["x".into()]], ..Policy::default() },
        ..ForgetOptions::default()
    };
    let error = removed(&store, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Brake);
    assert!(error.to_string().contains("all 2 snapshots") && error.hint().unwrap().contains("--yes-really"), "{error}");
    options.consent = true;
    assert_eq!(removed(&store, &options).unwrap().len(), names.len());
    // A pin keeps one, and so the group.
    open(Arc::new(store.clone())).put_hold(names[0]).unwrap();
    options.consent = false;
    assert_eq!(removed(&store, &options).unwrap(), [names[1]]);
}

#[test]
fn dates_that_cannot_be_right_push_nobody_out() {
    let year = Timestamp::now().to_zoned(TimeZone::UTC).year();
    let future = format!("{}-01-01", year + 2);
    // The third was made while the clock was wrong by years; what it says of its own date is believed by nobody.
    let times = ["2026-01-01", "2026-01-02", future.as_str(), "2026-01-03"];
    let (store, names) = with_times(&times, |_, _| {});
    assert_eq!(removed(&store, &options(&[(Period::Last, 2)])).unwrap(), [names[0]]);
    let within = Policy { within: policy::Stretch::parse("36h"), ..Policy::default() };
    let within = ForgetOptions { policy: within, ..ForgetOptions::default() };
    assert_eq!(removed(&store, &within).unwrap(), [names[0]]);
    // A clock that had jumped back to the past by now: the store says nothing, the order of the writer does.
    let times = ["2020-01-01", "2020-01-02", "2024-01-01", "2020-01-03"];
    let (store, names) = with_times(&times, |_, _| {});
    assert_eq!(removed(&store, &within).unwrap(), [names[0]]);
    let groups = plan(&open(Arc::new(store.clone())), &within, &Stop::new()).unwrap();
    let why = &groups[0].verdicts[0];
    assert_eq!((why.named.name, why.reasons.len()), (names[2], 1));
    assert!(why.reasons[0].contains("dated after"), "{:?}", why.reasons);
    // An old one that was imported late is no jump.
    let (store, names) = with_times(&["2024-01-01", "2020-01-02", "2024-01-02"], |number, snapshot| {
        if number == 1 {
            snapshot.started = day("2024-01-01");
        }
    });
    assert_eq!(removed(&store, &options(&[(Period::Last, 2)])).unwrap(), [names[1]]);
    // The newest of all is years ahead and nothing proves it wrong.
    let (store, _) = with_times(&["2020-01-01", "2020-01-02", "2024-01-01"], |_, _| {});
    let error = removed(&store, &within).unwrap_err();
    assert!(error.kind() == ErrorKind::Brake && error.to_string().contains("clock"), "{error}");
    assert_eq!(removed(&store, &ForgetOptions { consent: true, ..within }).unwrap().len(), 2);
}

#[test]
fn pinned_snapshots_are_not_forgotten_by_name_either_and_survive_a_prune_with_a_tomb() {
    let (store, names) = with_times(&["2026-01-01", "2026-01-02"], |_, _| {});
    let repository = open(Arc::new(store.clone()));
    repository.put_hold(names[0]).unwrap();
    repository.put_hold(names[0]).unwrap();
    let snapshots = repository.snapshots().unwrap();
    let error = forget(&repository, &snapshots.live).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Brake);
    assert_eq!(keys(&store, ObjectKind::Tomb), []);
    // Somebody pinned it just after another one had forgotten it.
    repository.put_tomb(names[0]).unwrap();
    let options = PruneOptions { keep_deleted: Duration::ZERO, ..PruneOptions::default() };
    prune::run(&repository, &options, &Silent, &Stop::new()).unwrap();
    assert!(repository.snapshot(names[0]).is_ok());
    repository.delete_hold(names[0]).unwrap();
    prune::run(&repository, &options, &Silent, &Stop::new()).unwrap();
    assert_eq!(repository.snapshot(names[0]).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn undelete_takes_back_and_says_so_only_if_it_is_true() {
    let (store, [first, _]) = fixture();
    let repository = open(Arc::new(store.clone()));
    let undelete = |name| undelete(&repository, name, &Silent, &Stop::new());
    repository.put_tomb(first).unwrap();
    undelete(first).unwrap();
    assert_eq!(repository.snapshots().unwrap().live.len(), 2);
    // A prune may be about to delete it.
    repository.put_tomb(first).unwrap();
    let marks = repository.mark(crate::id::SessionId([1; 16]), &[]).unwrap();
    assert_eq!(undelete(first).unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(repository.snapshots().unwrap().forgotten.len(), 1);
    drop(marks);
    // What a prune has begun to delete is not called whole.
    let packs: Vec<_> = keys(&store, ObjectKind::Tree);
    let kept: Vec<_> = packs.iter().map(|key| store.raw_remove(key).unwrap()).collect();
    let error = undelete(first).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error.chain());
    assert_eq!(repository.snapshots().unwrap().forgotten.len(), 1);
    packs.iter().zip(kept).for_each(|(key, bytes)| store.raw_set(key, bytes));
    undelete(first).unwrap();
    repository.put_tomb(first).unwrap();
    let options = PruneOptions { keep_deleted: Duration::ZERO, ..PruneOptions::default() };
    prune::run(&repository, &options, &Silent, &Stop::new()).unwrap();
    assert_eq!(undelete(first).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_last_version_of_each_path_in_each_year_can_be_kept() {
    let (store, _) = fixture();
    let repository = open(Arc::new(store.clone()));
    for key in keys(&store, ObjectKind::Snapshot) {
        store.delete(&key).unwrap();
    }
    let source = tempfile::tempdir().unwrap();
    let path = |name: &str| source.path().join(name);
    let back_up = |date: &str| {
        let options = BackupOptions {
            paths: vec![source.path().to_owned()],
            time: Some(day(date)),
            level: 1,
            threads: 1,
            ..BackupOptions::default()
        };
        backup::run(&repository, &options, &Silent, &Stop::new()).unwrap().snapshot.unwrap()
    };
    std::fs::create_dir_all(path("folder/below")).unwrap();
    for name in ["always", "changes", "folder/below/early", "folder/comes back", "folder/old"] {
        std::fs::write(path(name), name).unwrap();
    }
    let mut kept = Vec::new();
    // The last one with "folder/below".
    kept.push(back_up("2020-01-01"));
    std::fs::remove_dir_all(path("folder/below")).unwrap();
    std::fs::remove_file(path("folder/comes back")).unwrap();
    let mut dropped = vec![back_up("2020-02-01")];
    std::fs::write(path("changes"), "other").unwrap();
    std::fs::write(path("folder/comes back"), "again").unwrap();
    dropped.push(back_up("2020-03-01"));
    std::fs::write(path("changes"), "another").unwrap();
    // The last one with "folder/old".
    kept.push(back_up("2020-04-01"));
    std::fs::remove_file(path("folder/old")).unwrap();
    kept.push(back_up("2020-12-31"));
    // Another year: the last of it, and that with what goes.
    dropped.push(back_up("2021-01-01"));
    std::fs::write(path("short"), "here for a day").unwrap();
    kept.push(back_up("2021-05-05"));
    std::fs::remove_file(path("short")).unwrap();
    kept.push(back_up("2021-06-06"));
    let options = ForgetOptions { keep_path_yearly: true, ..ForgetOptions::default() };
    let mut gone = removed(&store, &options).unwrap();
    gone.sort();
    dropped.sort();
    assert_eq!(gone, dropped);
    let groups = plan(&repository, &options, &Stop::new()).unwrap();
    assert_eq!(groups[0].verdicts.len(), kept.len() + dropped.len());
}
