//! What is forgotten and what stays, on real repositories. Not for: single rules (see `policy`).

use super::undelete::{Undeleted, undelete};
use super::*;
use crate::check::fixture::{keys, open, repository as fixture, snapshot};
use crate::progress::Silent;
use crate::prune::{self, PruneOptions};
use crate::store::{MemoryStore, ObjectKey, ObjectKind, Operation, RecordingStore, Store};
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
        (made.time, made.started, made.finished) = (day(text), day(text), day(text));
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

/// What would be forgotten without consent.
fn removed(store: &MemoryStore, options: &ForgetOptions) -> Result<Vec<ObjectName>> {
    let plan = plan(&open(Arc::new(store.clone())), options, &Stop::new())?;
    plan.brake.map_or_else(|| Ok(all_removed(&plan.groups)), Err)
}

fn all_removed(groups: &[Group]) -> Vec<ObjectName> {
    groups.iter().flat_map(|group| group.removed().map(|named| named.name)).collect()
}

fn planned(store: &MemoryStore, options: &ForgetOptions) -> Plan {
    plan(&open(Arc::new(store.clone())), options, &Stop::new()).unwrap()
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
    let options = ForgetOptions { filter, ..ForgetOptions::default() };
    assert_eq!(all_removed(&planned(&store, &options).groups), [names[0]]);
    let untagged = Filter { tags: vec![vec![String::new()]], ..Filter::default() };
    assert_eq!(removed(&store, &ForgetOptions { filter: untagged, ..last.clone() }).unwrap(), [names[1]]);
    let keep = ForgetOptions { keep: [names[0]].into(), ..last };
    assert_eq!(removed(&store, &keep).unwrap(), [names[1]]);
}

#[test]
fn a_policy_that_leaves_nothing_needs_consent() {
    let (store, names) = with_times(&["2026-01-01", "2026-01-02"], |_, _| {});
    let options = ForgetOptions {
        policy: Policy { tags: vec![vec!["x".into()]], ..Policy::default() },
        ..ForgetOptions::default()
    };
    let error = removed(&store, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Brake);
    assert!(error.to_string().contains("all 2 snapshots") && error.hint().unwrap().contains("--yes-really"), "{error}");
    assert_eq!(all_removed(&planned(&store, &options).groups).len(), names.len());
    // A pin keeps one, and so the group.
    open(Arc::new(store.clone())).put_hold(names[0], None).unwrap();
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
    let groups = planned(&store, &within).groups;
    let why = groups[0].verdicts.iter().find(|verdict| verdict.named.name == names[2]).unwrap();
    assert_eq!(why.reasons.len(), 1);
    assert!(why.reasons[0].rule.contains("dated after"), "{:?}", why.reasons);
    // An old one that was imported late is no jump.
    let (store, names) = with_times(&["2024-01-01", "2020-01-02", "2024-01-02"], |number, snapshot| {
        if number == 1 {
            (snapshot.started, snapshot.finished) = (day("2024-01-01"), day("2024-01-01"));
        }
    });
    assert_eq!(removed(&store, &options(&[(Period::Last, 2)])).unwrap(), [names[1]]);
    // The newest of all is years ahead and nothing proves it wrong.
    let (store, _) = with_times(&["2020-01-01", "2020-01-02", "2024-01-01"], |_, _| {});
    let error = removed(&store, &within).unwrap_err();
    assert!(error.kind() == ErrorKind::Brake && error.to_string().contains("clock"), "{error}");
    assert_eq!(all_removed(&planned(&store, &within).groups).len(), 2);
}

#[test]
fn the_newest_backup_stays_whatever_was_dated_before_it() {
    // Stated 20 hours ahead; then an ordinary backup.
    let (store, names) = with_times(&["2026-01-01", "2026-01-02", "2026-01-02"], |number, snapshot| {
        if number == 1 {
            snapshot.time = "2026-01-03T08:00:00Z".parse().unwrap();
        }
    });
    assert_eq!(removed(&store, &options(&[(Period::Last, 1)])).unwrap(), [names[1], names[0]]);
    // The same by a clock that is put right now.
    let (store, names) = with_times(&["2026-01-01", "2026-01-02", "2026-01-02"], |number, snapshot| {
        if number == 1 {
            snapshot.time = "2026-01-03T08:00:00Z".parse().unwrap();
            (snapshot.started, snapshot.finished) = (snapshot.time, snapshot.time);
        }
    });
    assert_eq!(removed(&store, &options(&[(Period::Last, 1)])).unwrap(), [names[1], names[0]]);
}

#[test]
fn a_long_run_or_a_wrong_start_blocks_no_forgetting() {
    let times = ["2026-01-02", "2026-01-03", "2026-01-04", "2026-01-08"];
    for start in ["2026-01-01", "1970-01-02"] {
        // The third one ended last of the first three, and began before them: by its clock.
        let (store, names) = with_times(&times, |number, snapshot| {
            if number == 2 {
                (snapshot.time, snapshot.started) = (day(start), day(start));
                snapshot.finished = day("2026-01-07");
            }
        });
        assert_eq!(removed(&store, &options(&[(Period::Last, 1)])).unwrap(), [names[2], names[1], names[0]], "{start}");
    }
}

#[test]
fn pinned_snapshots_are_not_forgotten_by_name_either_and_survive_a_prune_with_a_tomb() {
    let (store, names) = with_times(&["2026-01-01", "2026-01-02"], |_, _| {});
    let repository = open(Arc::new(store.clone()));
    pin::pin(&repository, names[0], Some("taxes".into())).unwrap();
    pin::pin(&repository, names[0], None).unwrap();
    let groups = planned(&store, &options(&[(Period::Last, 1)])).groups;
    assert_eq!(groups[0].verdicts[1].reasons, [policy::Reason::plain("pinned: taxes")]);
    let error = forget(&repository, &names, &mut |_| panic!("nothing is forgotten")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Brake);
    assert_eq!(keys(&store, ObjectKind::Tomb), []);
    // Somebody pinned it just after another one had forgotten it.
    repository.put_tomb(names[0]).unwrap();
    let error = pin::pin(&repository, names[0], None).unwrap_err();
    assert!(error.to_string().contains("forgotten"), "{error}");
    let options = PruneOptions { keep_deleted: Duration::ZERO, ..PruneOptions::default() };
    prune::run(&repository, &options, &Silent, &Stop::new()).unwrap();
    assert!(repository.snapshot(names[0]).is_ok());
    repository.delete_hold(names[0]).unwrap();
    prune::run(&repository, &options, &Silent, &Stop::new()).unwrap();
    assert_eq!(repository.snapshot(names[0]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(pin::pin(&repository, ObjectName([3; 32]), None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(keys(&store, ObjectKind::Hold), [], "nothing that is not there is pinned");
}

/// One of the two notices, in whichever order they come.
#[test]
fn a_pin_while_a_snapshot_is_forgotten_does_not_go_unnoticed() {
    let (store, names) = with_times(&["2026-01-01", "2026-01-02"], |_, _| {});
    let repository = open(Arc::new(store.clone()));
    let other = open(Arc::new(store.clone()));
    let mut told = None;
    let error = forget(&repository, &names[..1], &mut |name| {
        told = Some(pin::pin(&other, name, None).unwrap_err().kind());
        Ok(())
    });
    assert_eq!((error.unwrap_err().kind(), told), (ErrorKind::Brake, Some(ErrorKind::Failed)));
    assert_eq!(repository.snapshots().unwrap().live.len(), 2);
    let options = PruneOptions { keep_deleted: Duration::ZERO, ..PruneOptions::default() };
    prune::run(&repository, &options, &Silent, &Stop::new()).unwrap();
    assert_eq!(repository.snapshots().unwrap().live.len(), 2);
}

#[test]
fn undelete_says_when_the_backup_may_still_forget_its_snapshot() {
    let (store, [first, _]) = fixture();
    let repository = open(Arc::new(store.clone()));
    let session = repository.snapshot(first).unwrap().session;
    let undelete = || {
        repository.put_tomb(first).unwrap();
        undelete(&repository, first, &Silent, &Stop::new()).unwrap()
    };
    for kind in [ObjectKind::Pin, ObjectKind::Revoke] {
        let key = ObjectKey::new(kind, session);
        store.raw_set(&key, Vec::new());
        assert_eq!(undelete(), Undeleted::MayBeWithdrawn, "{kind:?}");
        store.raw_remove(&key);
        // That of another backup says nothing.
        let other = ObjectKey::new(kind, crate::id::SessionId([7; 16]));
        store.raw_set(&other, Vec::new());
        assert_eq!(undelete(), Undeleted::Stays, "{kind:?}");
        store.raw_remove(&other);
    }
}

#[test]
fn undelete_takes_back_and_says_so_only_if_it_is_true() {
    let (store, [first, _]) = fixture();
    let repository = open(Arc::new(store.clone()));
    let undelete = |name| undelete(&repository, name, &Silent, &Stop::new());
    repository.put_tomb(first).unwrap();
    assert_eq!(undelete(first).unwrap(), Undeleted::Stays);
    assert_eq!(repository.snapshots().unwrap().live.len(), 2);
    // A prune may be about to delete it.
    repository.put_tomb(first).unwrap();
    let marks = repository.mark(crate::id::SessionId([1; 16]), &[], &[]).unwrap();
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
    // What is stored and in no index would be deleted by the next prune.
    let segments: Vec<_> = keys(&store, ObjectKind::Index);
    let kept: Vec<_> = segments.iter().map(|key| store.raw_remove(key).unwrap()).collect();
    assert_eq!(undelete(first).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(repository.snapshots().unwrap().forgotten.len(), 1);
    segments.iter().zip(kept).for_each(|(key, bytes)| store.raw_set(key, bytes));
    undelete(first).unwrap();
    repository.put_tomb(first).unwrap();
    let options = PruneOptions { keep_deleted: Duration::ZERO, ..PruneOptions::default() };
    prune::run(&repository, &options, &Silent, &Stop::new()).unwrap();
    assert_eq!(undelete(first).unwrap_err().kind(), ErrorKind::NotFound);
}

/// What is forgotten by a policy depends on what else there is, so nothing that is listed for it may be old.
#[test]
fn a_policy_that_will_be_applied_goes_by_fresh_listings() {
    let (store, _) = fixture();
    for (dry_run, is_fresh) in [(false, true), (true, false)] {
        let recording = Arc::new(RecordingStore::new(store.clone()));
        let repository = open(recording.clone());
        recording.reset();
        let options = ForgetOptions { dry_run, ..options(&[(Period::Last, 1)]) };
        let plan = plan(&repository, &options, &Stop::new()).unwrap();
        assert_eq!(plan.groups.iter().flat_map(Group::removed).count(), 1);
        for kind in [ObjectKind::Snapshot, ObjectKind::Tomb, ObjectKind::Hold] {
            let calls = |operation| recording.counts().calls(operation, kind) > 0;
            assert_eq!((calls(Operation::List), calls(Operation::ListFresh)), (!is_fresh, is_fresh), "{kind:?}");
        }
    }
}
