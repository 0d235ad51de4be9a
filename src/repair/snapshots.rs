//! Writes damaged snapshots anew with what is left of them. Not for: finding damage in data that nobody has read (`check` with
//! the data does that first), or bringing content back.
//!
//! What is lost is never silent. A file of which a part is lost gets another name, with `SUFFIX` behind it, and the flag of
//! unreliable content; zeros stand where the lost bytes were. Under the old name there is nothing, so neither a program nor the
//! next backup can take it for the file. A file of which nothing is left is left out, and so are entries whose page is lost;
//! their folder gets the flag. Each of these is an issue of the new snapshot. Lost attributes are dropped, with the flag.
//!
//! The old snapshot stays unless asked otherwise. The new one has its time, host, paths and tags, names it as parent, and is
//! tagged "repaired". Done twice, the second time finds the same tree and writes nothing.
//!
//! A chunk counts as lost if no stored pack holds it. That the index does not name it proves nothing, so before anything counts as
//! lost, the index is compared with the contents of all packs, and completed. Blocks of packs that are known to be damaged are read before they are
//! believed; all others are trusted, as a backup trusts them.
//!
//! Memory: `MAX_KNOWN` pages at 33 bytes, the repository's caches, and a few pages for each directory on the way down.

use super::rewrite::{Lost, Rewriter};
use super::{RepairOptions, repair_index};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_ISSUES;
use crate::format::json::PathText;
use crate::format::snapshot::{Head, Issue, IssueKind, Snapshot};
use crate::id::{ChunkId, ObjectName};
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::snapshots::{Named, Snapshots};
use crate::repository::writer::{Writer, WriterOptions};
use std::sync::Arc;

/// The tag of snapshots that were written by a repair.
pub const TAG: &str = "repaired";
/// Bytes of a snapshot's issues; JSON writes a byte with at most 6, so that this stays below a snapshot's 16 MiB.
const MAX_ISSUE_BYTES: usize = 2 << 20;
/// Bytes of stack: directories are walked by recursion, at most 4,096 deep, and each level takes less than 16 KiB.
const STACK: usize = 96 << 20;

/// How snapshots are repaired.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotsOptions {
    /// Only finds out what would be done; nothing is stored.
    pub dry_run: bool,
    /// Forgets the damaged snapshots once they are written anew.
    pub forget: bool,
    /// Threads that compress and seal.
    pub threads: usize,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// Nothing that it needs is lost.
    Whole,
    /// It was written anew under this name (or would be).
    Rewritten(Option<ObjectName>),
    /// It had been written anew before, under this name.
    RewrittenBefore(ObjectName),
    /// Its root is lost, or its record; nothing can be written.
    Hopeless(String),
    /// Nothing may be written just now, for this reason; the same repair can succeed later.
    NotNow(String),
}

/// What a repair did (or would do) with one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOutcome {
    /// The damaged snapshot.
    pub snapshot: ObjectName,
    /// What became of it.
    pub became: Became,
    /// What is lost, at most 1,000 of them.
    pub issues: Vec<Issue>,
    /// How many there are.
    pub issues_total: u64,
    /// Whether the old snapshot was forgotten.
    pub forgotten: bool,
    /// Whether it stays though it was to be forgotten, because it is pinned.
    pub is_pinned: bool,
}

/// Collects what is lost, bounded, so that the snapshot can always be written.
#[derive(Debug, Default)]
pub(super) struct Issues {
    kept: Vec<Issue>,
    bytes: usize,
    total: u64,
}

impl Issues {
    pub(super) fn add(&mut self, path: &[u8], message: &str) {
        self.total += 1;
        let path = if path.is_empty() { b"/" } else { &path[..path.len().min(4096)] };
        let message: String = message.chars().take(1000).collect();
        self.bytes += path.len() + message.len();
        if self.kept.len() < MAX_ISSUES && self.bytes <= MAX_ISSUE_BYTES {
            self.kept.push(Issue { path: PathText(path.to_vec()), kind: IssueKind::Unreadable, message });
        }
    }
}

/// Repairs the named snapshots, or all.
pub fn repair_snapshots(
    repository: &Arc<Repository>,
    chosen: Option<&[ObjectName]>,
    options: &SnapshotsOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Vec<SnapshotOutcome>> {
    if options.dry_run {
        repository.check_access()?
    } else {
        repository.check_writable()?
    }
    let mut outcomes = Vec::new();
    let listed = repository.snapshots()?;
    for (name, error) in &listed.damaged {
        if error.kind() == ErrorKind::Unsupported {
            return Err(error
                .copy()
                .context("A snapshot was written by a newer firn; nothing was changed")
                .with_hint("Repair with a newer firn."));
        }
        if chosen.is_none() {
            outcomes.push(outcome(*name, Became::Hopeless(error.chain())));
        }
    }
    let mut is_complete = false;
    let names: Vec<ObjectName> = listed.live.iter().map(|named| named.name).collect();
    for name in names.into_iter().filter(|name| chosen.is_none_or(|chosen| chosen.contains(name))) {
        stop.check()?;
        progress.stage("looking for what is lost");
        // A thread of its own has room for the deepest trees.
        let repaired = std::thread::scope(|scope| {
            let work = || repair_one(repository, name, options, &mut is_complete, progress, stop);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            let thread = thread.map_err(|error| Error::io("A thread could not be started", error))?;
            thread.join().unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Failed, "Repairing a snapshot panicked; this is a defect of firn"))
            })
        })?;
        outcomes.push(repaired);
    }
    Ok(outcomes)
}

fn outcome(snapshot: ObjectName, became: Became) -> SnapshotOutcome {
    SnapshotOutcome { snapshot, became, issues: Vec::new(), issues_total: 0, forgotten: false, is_pinned: false }
}

fn repair_one(
    repository: &Arc<Repository>,
    name: ObjectName,
    options: &SnapshotsOptions,
    is_complete: &mut bool,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<SnapshotOutcome> {
    let snapshot = repository.snapshot(name)?;
    // The first look needs no pin and no writer: most snapshots are whole.
    if Lost::look(repository)?.is_clean(&snapshot, stop)? {
        return Ok(outcome(name, Became::Whole));
    }
    if !*is_complete {
        complete_index(repository, options, progress, stop)?;
        *is_complete = true;
        if Lost::look(repository)?.is_clean(&snapshot, stop)? {
            return Ok(outcome(name, Became::Whole));
        }
    }
    progress.stage("writing a snapshot anew");
    let writer_options = WriterOptions { level: 3, threads: options.threads, dry_run: options.dry_run };
    let writer = Writer::begin(repository, writer_options, progress)?;
    // Behind the pin everything is read anew: who takes whole folders over must have listed snapshots and tombs after it.
    let made = make(repository, &writer, name, stop);
    let (snapshots, old, made) = match made {
        Ok(Ok(made)) => made,
        Ok(Err(why)) => {
            drop(writer.abandon());
            return Ok(outcome(name, why));
        }
        Err(error) => {
            drop(writer.abandon());
            return Err(error);
        }
    };
    let (tree, totals, issues) = made;
    let mut done = outcome(name, Became::Rewritten(None));
    (done.issues, done.issues_total) = (issues.kept.clone(), issues.total);
    let before = snapshots.live.iter().find(|named| named.snapshot.parent == Some(name) && named.snapshot.tree == tree);
    if let Some(before) = before {
        done.became = Became::RewrittenBefore(before.name);
        writer.abandon()?;
    } else {
        let session = writer.session();
        let snapshot = successor(repository, &snapshots, &old, name, tree, totals, session, issues);
        let (new, _, _) = writer.commit(|_| snapshot.clone())?;
        if !options.dry_run {
            repository.note_head(&snapshot, new);
        }
        done.became = Became::Rewritten((!options.dry_run).then_some(new));
    }
    if options.forget && !options.dry_run {
        match crate::forget::forget(repository, &[name], &mut |_| Ok(())) {
            Ok(()) => done.forgotten = true,
            Err(error) if error.kind() == ErrorKind::Brake => done.is_pinned = true,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Makes sure that the index names all that is stored. Without being allowed to write it cannot, so it fails where something is missing.
fn complete_index(
    repository: &Repository,
    options: &SnapshotsOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<()> {
    let (dry_run, threads) = (options.dry_run, options.threads);
    let index = RepairOptions { dry_run, read_all: false, keep_missing: true, threads };
    let report = repair_index(repository, &index, progress, stop)?;
    match (report.indexed, dry_run) {
        (0, _) => Ok(()),
        (_, true) => Err(Error::damaged("The index lacks chunks that are stored, so it cannot be told what is lost")
            .with_hint("Run \"firn repair index\", then again what you wanted.")),
        (_, false) => {
            progress.note("The index lacked chunks that are stored; it was written again from the packs");
            Ok(())
        }
    }
}

type Made = (ChunkId, crate::format::tree::Totals, Issues);

/// The tree of what is left, or what becomes of the snapshot instead.
fn make(
    repository: &Arc<Repository>,
    writer: &Writer,
    name: ObjectName,
    stop: &Stop,
) -> Result<std::result::Result<(Snapshots, Snapshot, Made), Became>> {
    let hopeless = |why: &str| Ok(Err(Became::Hopeless(why.to_owned())));
    let snapshots = repository.snapshots()?;
    let Some(Named { snapshot, .. }) = snapshots.live.iter().find(|named| named.name == name) else {
        return hopeless("It was forgotten meanwhile");
    };
    let snapshot = snapshot.clone();
    if writer.is_revoked(snapshot.session)? {
        return hopeless("A prune has revoked the backup that wrote it");
    }
    // Folders in which nothing is lost are taken over whole.
    if writer.is_beside_prune() {
        let why =
            "A prune has condemned packs and may be about to delete them; let it end, or prune again if it was stopped";
        return Ok(Err(Became::NotNow(why.to_owned())));
    }
    let lost = Lost::look(repository)?;
    let mut rewriter = Rewriter::new(writer, lost, stop);
    let Some((tree, totals)) = rewriter.root(&snapshot)? else { return hopeless("Its root folder is lost") };
    let issues = rewriter.finish()?;
    Ok(Ok((snapshots, snapshot, (tree, totals, issues))))
}

/// What is written instead of `old`.
#[allow(clippy::too_many_arguments)]
fn successor(
    repository: &Repository,
    snapshots: &Snapshots,
    old: &Snapshot,
    name: ObjectName,
    tree: ChunkId,
    totals: crate::format::tree::Totals,
    session: crate::id::SessionId,
    issues: Issues,
) -> Snapshot {
    let writer = repository.writer_id();
    let heads = repository.heads(snapshots);
    let own: Option<Head> = heads.get(&writer).copied();
    let mut tags = old.tags.clone();
    if !tags.iter().any(|tag| tag == TAG) {
        tags.push(TAG.into());
    }
    let started = jiff::Timestamp::now();
    Snapshot {
        program: concat!("firn ", env!("CARGO_PKG_VERSION")).to_owned(),
        writer,
        session,
        sequence: own.map_or(1, |head| head.sequence + 1),
        previous: own.map(|head| head.snapshot),
        parent: Some(name),
        heads,
        seen: repository.seen(),
        // Measured: the time that it stands for is the old one.
        started,
        finished: started,
        tags,
        tree,
        totals,
        issues_total: issues.total,
        issues: issues.kept,
        ..old.clone()
    }
}
