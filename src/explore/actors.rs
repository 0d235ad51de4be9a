//! What the actors of a run do: the real writer with what a backup does around it, a pruner, a forget. Not for: when they do
//! it (see `gate`).

use super::gate::Gate;
use super::oracle::{Files, Word};
use crate::error::Result;
use crate::forget;
use crate::forget::undelete::Undeleted;
use crate::format::message::ChunkKind;
use crate::format::snapshot::Snapshot;
use crate::format::tree::{Body, Content, Entry, Extent, Metadata, Owner, Timestamp, Totals};
use crate::id::{ChunkId, ObjectName, SessionId};
use crate::progress::{Silent, Stop};
use crate::prune::{self, Answer, Patience, PruneOptions};
use crate::repository::Repository;
use crate::repository::assemble::{Assembler, Group};
use crate::repository::coordination::StoredPin;
use crate::repository::tree::{DirectoryBuilder, PageCut};
use crate::repository::writer::{Writer, WriterOptions};
use crate::store::{ObjectKey, ObjectKind};
use std::sync::Arc;
use std::time::Duration;

/// One of those at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Backs up what the first snapshot holds.
    Writer,
    /// The same, and a file that nobody else has.
    WriterOfMore,
    /// Takes the newest snapshot's tree over as it is. It does so even where packs are marked, which the protocol does not allow:
    /// pruners are safe from that as long as nobody undeletes. Without a snapshot, a writer as any other.
    Heir,
    /// The same, where no pack is marked.
    CarefulHeir,
    /// Prunes.
    Pruner,
    /// Forgets one snapshot.
    Forget,
    /// Takes one tomb back.
    Undelete,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Writer | Role::WriterOfMore | Role::Heir | Role::CarefulHeir => "writer",
            Role::Pruner => "pruner",
            Role::Forget => "forget",
            Role::Undelete => "undelete",
        }
    }
}

/// What all backups hold: a file small enough to stand in its entry leaves only metadata to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuff {
    /// One chunk of content, in a data pack; pages, in a tree pack.
    Content,
    /// Pages alone.
    Inline,
}

pub(super) const LEVEL: WriterOptions = WriterOptions { level: 1, threads: 1, dry_run: false };

/// Bytes that do not compress and differ from seed to seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(super) fn length(stuff: Stuff) -> usize {
    if stuff == Stuff::Content { 300 } else { 60 }
}

fn metadata() -> Metadata {
    Metadata {
        mode: 0o644,
        owner: Arc::new(Owner { uid: 1, gid: 2, user: b"u".to_vec(), group: b"g".to_vec() }),
        mtime: Timestamp::default(),
        btime: None,
        attributes: None,
        link: None,
        blocks: None,
        flags: 0,
        waypoint: false,
        unreliable: false,
    }
}

/// A tree as it was handed to a writer.
pub(super) struct Tree {
    pub id: ChunkId,
    pub totals: Totals,
    pub needs: Vec<ChunkId>,
}

/// Hands these files to the writer.
pub(super) fn write_tree(writer: &Writer, files: &Files, stuff: Stuff) -> Result<Tree> {
    let cut = PageCut::new(writer.repository().keyring());
    let mut out = Assembler::new(writer);
    let mut needs = Vec::new();
    let mut folder = DirectoryBuilder::default();
    for (name, seed) in files {
        let bytes = noise(*seed, length(stuff));
        let size = bytes.len() as u64;
        let content = match stuff {
            Stuff::Inline => Content::Inline(bytes),
            Stuff::Content => {
                let (id, _) = out.add(ChunkKind::Content, Group::Owner(1), &bytes)?;
                needs.push(id);
                Content::Extents(vec![Extent::Chunk { id, len: size as u32 }])
            }
        };
        let body = Body::File { size, content };
        folder.push(&Entry { name: name.as_bytes().to_vec(), meta: metadata(), body }, &cut, &mut out)?;
    }
    let (page, totals) = folder.finish(&cut, &mut out)?;
    let mut root = DirectoryBuilder::default();
    let body = Body::Directory { size: 0, page, totals };
    root.push(&Entry { name: b"root".to_vec(), meta: metadata(), body }, &cut, &mut out)?;
    let (id, _) = root.finish(&cut, &mut out)?;
    out.flush()?;
    needs.extend([page, id]);
    Ok(Tree { id, totals, needs })
}

/// The record of a snapshot; times follow from `number`, so that a name follows from what was done.
pub(super) fn record(
    repository: &Repository,
    session: SessionId,
    number: i64,
    tree: ChunkId,
    totals: Totals,
    heads: &crate::repository::snapshots::Snapshots,
) -> Snapshot {
    let time = jiff::Timestamp::from_second(1_700_000_000 + number).expect("a time of our days");
    let writer = repository.writer_id();
    let heads = heads.heads();
    let own = heads.get(&writer).copied();
    Snapshot {
        sequence: own.map_or(1, |head| head.sequence + 1),
        previous: own.map(|head| head.snapshot),
        heads,
        ..Snapshot::of_tests((writer, session), time, tree, totals)
    }
}

/// A prune that waits for nothing but pins: it acts on young tombs, and rewrites whatever is worth it.
pub(super) fn all_at_once() -> PruneOptions {
    PruneOptions { consent: true, threads: 1, ..prune::thorough() }
}

/// The patience that the schedule has.
struct Scheduled {
    gate: Arc<Gate>,
    actor: usize,
}

impl Patience for Scheduled {
    fn wait(&self, pins: &[StoredPin]) -> Result<Answer> {
        let keys = pins.iter().map(|pin| ObjectKey::new(ObjectKind::Pin, pin.session)).collect();
        Ok(match self.gate.wait(self.actor, keys)? {
            Some(turn) => Answer::Revoke(vec![pins[turn].session]),
            None => Answer::Wait,
        })
    }

    fn sleep(&self, _: Duration) -> Result<()> {
        self.gate.sleep(self.actor)
    }
}

/// An actor at work.
pub(super) struct Actor {
    pub number: usize,
    pub role: Role,
    pub gate: Arc<Gate>,
    pub repository: Arc<Repository>,
    pub stuff: Stuff,
}

impl Actor {
    pub(super) fn work(&self) -> Result<()> {
        match self.role {
            Role::Writer | Role::WriterOfMore | Role::Heir | Role::CarefulHeir => self.back_up(),
            Role::Pruner => self.prune(),
            Role::Forget => self.forget(),
            Role::Undelete => self.undelete(),
        }
    }

    fn prune(&self) -> Result<()> {
        let patience = Scheduled { gate: self.gate.clone(), actor: self.number };
        prune::run_with(&self.repository, &all_at_once(), &patience, &Silent, &Stop::new()).map(drop)
    }

    /// The steps of `backup::run`.
    fn back_up(&self) -> Result<()> {
        // Known from before, and no longer to be believed.
        if crate::repository::mistake::made(crate::repository::mistake::Mistake::StaleIndex) {
            self.repository.index()?;
        }
        let mut writer = Writer::begin(&self.repository, LEVEL, &Silent)?;
        let stored = self.store(&writer).and_then(|stored| writer.flush().map(|()| stored));
        let (tree, totals, snapshots) = match stored {
            Ok(stored) => stored,
            Err(error) => {
                drop(writer.abandon());
                return Err(error);
            }
        };
        let session = writer.session();
        let number = self.number as i64 + 10;
        let build = |_| record(&self.repository, session, number, tree, totals, &snapshots);
        let (name, _, _) = writer.commit(build)?;
        self.gate.say(self.number, Word::Promise(name, tree));
        Ok(())
    }

    fn store(&self, writer: &Writer) -> Result<(ChunkId, Totals, crate::repository::snapshots::Snapshots)> {
        let snapshots = self.repository.snapshots()?;
        let parent = match snapshots.live.last() {
            Some(newest) if !writer.is_revoked(newest.snapshot.session)? => Some(newest),
            _ => None,
        };
        // What a prune has condemned may be about to go although its snapshot is live: an undelete that came too late takes the tomb
        // away and puts it back.
        let takes_over = self.role == Role::Heir || self.role == Role::CarefulHeir && !writer.is_beside_prune();
        if let (true, Some(parent)) = (takes_over, parent) {
            return Ok((parent.snapshot.tree, parent.snapshot.totals, snapshots));
        }
        let mut files = vec![("a".to_owned(), 1)];
        if self.role == Role::WriterOfMore {
            files.push(("b".to_owned(), 100 + self.number as u64));
        }
        let tree = write_tree(writer, &files, self.stuff)?;
        self.gate.learn_tree(tree.id, tree.needs, files);
        Ok((tree.id, tree.totals, snapshots))
    }

    fn forget(&self) -> Result<()> {
        let snapshots = self.repository.snapshots()?;
        if snapshots.live.is_empty() {
            return Ok(());
        }
        let chosen = self.gate.pick(self.number, snapshots.live.len())?;
        let name = snapshots.live[chosen].name;
        self.gate.say(self.number, Word::Release(name));
        forget::forget(&self.repository, &[name], &mut |_| Ok(()))
    }

    fn undelete(&self) -> Result<()> {
        let mut tombs: Vec<ObjectName> = self.repository.tombs()?.into_keys().collect();
        tombs.sort();
        if tombs.is_empty() {
            return Ok(());
        }
        let name = tombs[self.gate.pick(self.number, tombs.len())?];
        let tree = self.repository.snapshot(name)?.tree;
        let undeleted = forget::undelete::undelete(&self.repository, name, &Silent, &Stop::new())?;
        let word = match undeleted {
            Undeleted::Stays => Word::PromiseAgain(name, tree),
            Undeleted::MayBeWithdrawn => Word::ClaimBack(name),
        };
        self.gate.say(self.number, word);
        Ok(())
    }
}
