//! What is lost is named in the snapshot that is written anew, and never silent. Not for: finding damage (see `check`).

use super::rewrite::SUFFIX;
use super::snapshots::*;
use crate::check::fixture::{keys, open, open_with_cache, repository};
use crate::check::{CheckOptions, CheckReport, Severity, run};
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Body, Content, Extent};
use crate::id::{ObjectName, SessionId};
use crate::progress::{Silent, Stop};
use crate::repository::Repository;
use crate::repository::read::pack_key;
use crate::repository::snapshots::Snapshots;
use crate::store::{MemoryStore, ObjectKind};
use std::sync::Arc;

const FAST: SnapshotsOptions = SnapshotsOptions { dry_run: false, forget: false, threads: 2 };

fn repair(repository: &Arc<Repository>, options: SnapshotsOptions) -> Vec<SnapshotOutcome> {
    repair_snapshots(repository, None, &options, &Silent, &Stop::new()).unwrap()
}

fn check(repository: &Arc<Repository>, only: Option<ObjectName>) -> CheckReport {
    let options =
        CheckOptions { read_data: true, threads: 1, snapshots: only.map(|name| vec![name]), ..CheckOptions::default() };
    run(repository, &options, &Silent, &Stop::new()).unwrap()
}

/// The file's entry in a snapshot.
fn find(repository: &Repository, snapshot: ObjectName, path: &str) -> crate::error::Result<crate::format::tree::Entry> {
    crate::view::path::find(repository, &repository.snapshot(snapshot)?, path.as_bytes())
}

/// Damages the block that holds the first chunk of a file.
fn hurt(store: &MemoryStore, repository: &Repository, snapshot: ObjectName, path: &str) {
    let Body::File { content, .. } = find(repository, snapshot, path).unwrap().body else { panic!("no file") };
    let Some(Ok(Extent::Chunk { id, .. })) = repository.extents(&content).next() else { panic!("no chunk") };
    let index = repository.index().unwrap();
    index
        .find(&id, &mut |place| {
            let pack = index.pack(place).unwrap();
            let key = pack_key(&pack);
            let mut bytes = store.raw_get(&key).unwrap();
            bytes[pack.frame(place.block).unwrap().0 as usize + 40] ^= 1;
            store.raw_set(&key, bytes);
            repository.note_damaged(pack.name);
            true
        })
        .unwrap();
}

#[test]
fn whole_snapshots_are_left_alone() {
    let (store, [first, second]) = repository();
    let before = store.raw_keys();
    let outcomes = repair(&open(Arc::new(store.clone())), FAST);
    assert_eq!(outcomes.iter().map(|outcome| outcome.snapshot).collect::<Vec<_>>(), [first, second]);
    assert!(outcomes.iter().all(|outcome| outcome.became == Became::Whole && outcome.issues_total == 0));
    assert_eq!(store.raw_keys(), before);
}

#[test]
fn a_lost_range_is_named_flagged_and_under_another_name() {
    let (store, [first, second]) = repository();
    let reader = open(Arc::new(store.clone()));
    hurt(&store, &reader, first, "/home/big");
    // A reader without what the first one has in memory.
    let repository = open(Arc::new(store.clone()));
    assert_eq!(check(&repository, None).worst(), Some(Severity::Lost));
    let before = store.raw_keys();
    let plan = repair(&repository, SnapshotsOptions { dry_run: true, ..FAST });
    assert_eq!(store.raw_keys(), before);
    let outcomes = repair(&repository, FAST);
    // Nothing that was there is gone: a repair has destroyed archives elsewhere.
    assert!(before.iter().all(|key| store.raw_keys().contains(key)));
    for (outcome, old) in outcomes.iter().zip([first, second]) {
        let Became::Rewritten(Some(new)) = outcome.became else { panic!("{outcome:?}") };
        assert!(outcome.issues.iter().any(|issue| issue.path.0 == b"/home/big"), "{outcome:?}");
        assert!(find(&repository, new, "/home/big").is_err());
        let entry = find(&repository, new, &format!("/home/big{SUFFIX}")).unwrap();
        assert!(entry.meta.unreliable);
        let Body::File { size: 600_000, content: Content::Extents(extents) } = &entry.body else { panic!("{entry:?}") };
        assert_eq!(extents[0], Extent::Hole(300_000));
        assert!(matches!(extents[1], Extent::Chunk { len: 300_000, .. }) && extents.len() == 2);
        // Everything else is as it was.
        for path in ["/home/changed", "/home/list", "/home/small"] {
            let is_named = outcome.issues.iter().any(|issue| issue.path.0 == path.as_bytes());
            if !is_named {
                assert_eq!(find(&repository, new, path).unwrap(), find(&repository, old, path).unwrap());
            }
        }
        let (new, old) = (repository.snapshot(new).unwrap(), repository.snapshot(old).unwrap());
        assert_eq!((new.time, new.parent, new.issues_total), (old.time, Some(outcome.snapshot), outcome.issues_total));
        assert!(new.tags.contains(&TAG.to_owned()));
    }
    assert_eq!(
        plan.iter().map(|o| &o.issues).collect::<Vec<_>>(),
        outcomes.iter().map(|o| &o.issues).collect::<Vec<_>>()
    );
    for outcome in &outcomes {
        let Became::Rewritten(Some(new)) = outcome.became else { panic!("{outcome:?}") };
        let report = check(&repository, Some(new));
        assert!(report.findings.iter().all(|finding| finding.severity < Severity::Lost), "{:?}", report.findings);
    }
    // The second time there is nothing to do, and the old ones are still there.
    let before = store.raw_keys();
    let again = repair(&repository, FAST);
    assert!(
        again.iter().all(|outcome| matches!(outcome.became, Became::RewrittenBefore(_) | Became::Whole)),
        "{again:?}"
    );
    assert_eq!(store.raw_keys(), before);
    assert_eq!(check(&repository, None).worst(), Some(Severity::Lost));
    // One that is pinned stays.
    let pinned = again.iter().find(|outcome| outcome.became != Became::Whole).unwrap().snapshot;
    repository.put_hold(pinned, None).unwrap();
    let forgotten = repair(&repository, SnapshotsOptions { forget: true, ..FAST });
    assert_eq!(forgotten.iter().filter(|outcome| outcome.forgotten).count(), 1);
    assert!(forgotten.iter().all(|outcome| outcome.is_pinned == (outcome.snapshot == pinned)));
    assert!(!repository.tombs().unwrap().contains_key(&pinned));
    repository.delete_hold(pinned).unwrap();
    let forgotten = repair(&repository, SnapshotsOptions { forget: true, ..FAST });
    assert_eq!(forgotten.iter().filter(|outcome| outcome.forgotten).count(), 1);
    assert!(check(&repository, None).worst() < Some(Severity::Lost));
}

#[test]
fn a_snapshot_that_is_hidden_meanwhile_stays_known() {
    let (store, [first, second]) = repository();
    let root = tempfile::tempdir().unwrap();
    let reader = open(Arc::new(store.clone()));
    hurt(&store, &reader, first, "/home/big");
    let repository = open_with_cache(Arc::new(store.clone()), root.path());
    check(&repository, None);
    // This machine has stored a snapshot that the store does not show.
    let hidden = ObjectName([9; 32]);
    let known = Snapshot { writer: repository.writer_id(), sequence: 7, ..repository.snapshot(second).unwrap() };
    repository.note_head(&known, hidden);
    let outcomes = repair(&repository, FAST);
    let Became::Rewritten(Some(new)) = outcomes[0].became else { panic!("{outcomes:?}") };
    let new = repository.snapshot(new).unwrap();
    assert_eq!((new.sequence, new.previous), (8, Some(hidden)));
    assert!(new.heads.values().any(|head| head.snapshot == hidden));
    // What was written counts as the newest from then on.
    let newest = repository.heads(&Snapshots::default())[&repository.writer_id()];
    assert_eq!(newest.sequence, 9);
    assert_eq!(outcomes[1].became, Became::Rewritten(Some(newest.snapshot)));
}

#[test]
fn files_without_anything_left_are_left_out_and_named() {
    let (store, _) = repository();
    keys(&store, ObjectKind::Data).iter().for_each(|key| drop(store.raw_remove(key)));
    let repository = open(Arc::new(store.clone()));
    for outcome in repair(&repository, FAST) {
        let Became::Rewritten(Some(new)) = outcome.became else { panic!("{outcome:?}") };
        assert_eq!(outcome.issues_total, 4);
        assert!(outcome.issues.iter().all(|issue| issue.message.contains("left out")), "{outcome:?}");
        let Body::Directory { totals, .. } = find(&repository, new, "/home").unwrap().body else { panic!("no folder") };
        assert_eq!(totals.entries, 0);
        assert_eq!(check(&repository, Some(new)).worst().filter(|worst| *worst > Severity::Note), None);
    }
}

#[test]
fn a_lost_root_is_hopeless_and_nothing_is_written() {
    let (store, _) = repository();
    keys(&store, ObjectKind::Tree).iter().for_each(|key| drop(store.raw_remove(key)));
    let before = store.raw_keys();
    let outcomes = repair(&open(Arc::new(store.clone())), FAST);
    assert!(outcomes.iter().all(|outcome| matches!(outcome.became, Became::Hopeless(_))), "{outcomes:?}");
    assert_eq!(store.raw_keys(), before);
}

#[test]
fn nothing_is_taken_over_while_packs_are_condemned() {
    let (store, _) = repository();
    keys(&store, ObjectKind::Data).iter().for_each(|key| drop(store.raw_remove(key)));
    let repository = open(Arc::new(store.clone()));
    // Whatever it is, it is not looked at: what needs it may be live for a moment only.
    let marks = repository.mark(SessionId([1; 16]), &[ObjectName([2; 32])], &[]).unwrap();
    let before = store.raw_keys();
    for outcome in repair(&repository, FAST) {
        let Became::NotNow(why) = outcome.became else { panic!("{outcome:?}") };
        assert!(why.contains("prune"), "{why}");
    }
    assert_eq!(store.raw_keys(), before);
    drop(marks);
    assert!(repair(&repository, FAST).iter().all(|outcome| matches!(outcome.became, Became::Rewritten(Some(_)))));
}
