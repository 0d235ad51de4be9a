//! Putting, listing and taking back pins, marks and revokes. Not for: the order of steps in which they are used (`writer`, and
//! the commands that delete), or how they are encoded (`format`).

use super::Repository;
use super::mistake::{self, Mistake};
use crate::error::{Error, ErrorKind, Result};
use crate::format::coordination::{Mark, Pin, Process, Revoke};
use crate::format::header::Kind;
use crate::id::{ObjectName, SessionId};
use crate::store::{ObjectKey, ObjectKind};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

/// Packs, and as many snapshots, named by one mark, 67 bytes each: its body has 13.4 MB at most, below the bound of a record.
const MARK_NAMES: usize = 100_000;

/// An object that goes when the work ends, however it ends.
#[derive(Debug)]
pub struct Transient<'a> {
    repository: &'a Repository,
    key: ObjectKey,
    stays: bool,
}

impl Transient<'_> {
    /// The object.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The object stays.
    pub fn leave(mut self) {
        self.stays = true;
    }
}

impl Drop for Transient<'_> {
    fn drop(&mut self) {
        if !self.stays {
            // A pin left behind only makes a prune wait, a mark only makes writers store again.
            drop(self.repository.store().delete(&self.key));
        }
    }
}

/// A pin as it is stored.
#[derive(Clone, Debug)]
pub struct StoredPin {
    /// Its name, which is what counts.
    pub session: SessionId,
    /// When its session last gave a sign of life, by the store's clock.
    pub stored: SystemTime,
    /// The pin itself and the signs of life that followed it.
    pub keys: Vec<ObjectKey>,
    /// What it says, if it can be read.
    pub pin: Option<Pin>,
}

/// A mark as it is stored.
#[derive(Clone, Debug)]
pub struct StoredMark {
    /// Where.
    pub key: ObjectKey,
    /// When it was stored, by the store's clock.
    pub stored: SystemTime,
    /// What it says.
    pub mark: Mark,
}

impl Repository {
    /// The names of all objects of a kind, in order.
    pub fn names(&self, kind: ObjectKind) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.list(kind, &mut |object| {
            names.push(object.name);
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }

    /// Says that this session is at work.
    pub(crate) fn put_pin(&self, session: SessionId) -> Result<ObjectKey> {
        self.put_pin_as(ObjectKey::new(ObjectKind::Pin, session), session)
    }

    /// Says that it still is, for the time of that number, from 1.
    pub(crate) fn put_sign_of_life(&self, session: SessionId, number: u64) -> Result<ObjectKey> {
        self.put_pin_as(ObjectKey::new(ObjectKind::Pin, format!("{session}-{number}")), session)
    }

    fn put_pin_as(&self, key: ObjectKey, session: SessionId) -> Result<ObjectKey> {
        let body = Pin {
            version: 1,
            session,
            writer: self.writer_id(),
            host: crate::os::hostname(),
            pid: crate::os::process_id(),
            started: jiff::Timestamp::now(),
            process: crate::os::process_identity().map(|identity| Process {
                boot: identity.boot,
                namespace: identity.namespace,
                ticks: identity.started,
            }),
        };
        self.put_json(Kind::Pin, &key, &body)?;
        Ok(key)
    }

    /// The same for as long as the returned value lives.
    pub fn pinned(&self) -> Result<Transient<'_>> {
        Ok(Transient { repository: self, key: self.put_pin(SessionId::random()?)?, stays: false })
    }

    /// All sessions that are pinned; pins that cannot be read count as well. Memory: 200 bytes for each pin and sign of life.
    pub fn pins(&self) -> Result<Vec<StoredPin>> {
        let mut listed: BTreeMap<SessionId, Vec<(ObjectKey, SystemTime)>> = BTreeMap::new();
        self.list(ObjectKind::Pin, &mut |object| {
            let session = object.name.split('-').next().unwrap_or_default();
            let key = ObjectKey::new(ObjectKind::Pin, &object.name);
            listed.entry(SessionId::parse(session)?).or_default().push((key, object.stored));
            Ok(())
        })?;
        let read = |(session, mut keys): (SessionId, Vec<(ObjectKey, SystemTime)>)| {
            keys.sort();
            let pin = keys.iter().find_map(|(key, _)| self.get_json(Kind::Pin, key).ok());
            let stored = keys.iter().map(|(_, stored)| *stored).max().expect("each session has a key");
            StoredPin { session, stored, keys: keys.into_iter().map(|(key, _)| key).collect(), pin }
        };
        Ok(listed.into_iter().map(read).collect())
    }

    /// Says that these packs are condemned, and these snapshots about to be deleted. The marks go when the returned values do.
    pub fn mark(&self, prune: SessionId, packs: &[ObjectName], snapshots: &[ObjectName]) -> Result<Vec<Transient<'_>>> {
        let mut marks = Vec::new();
        let (mut packs, mut snapshots) = (packs.chunks(MARK_NAMES), snapshots.chunks(MARK_NAMES));
        // No pack at all is also worth a mark: it says that snapshots are about to go.
        for number in 1.. {
            let (packs, snapshots) = (packs.next(), snapshots.next());
            if number > 1 && packs.is_none() && snapshots.is_none() {
                break;
            }
            let key = ObjectKey::new(ObjectKind::Mark, format!("{prune}-{number}"));
            let (packs, snapshots) = (packs.unwrap_or_default().to_vec(), snapshots.unwrap_or_default().to_vec());
            let mark = Mark { version: 1, prune, packs, time: jiff::Timestamp::now(), snapshots };
            // Made first: a put that is said to have failed may have been done all the same.
            let transient = Transient { repository: self, key: key.clone(), stays: false };
            self.put_json(Kind::Mark, &key, &mark)?;
            marks.push(transient);
        }
        Ok(marks)
    }

    /// All marks. One that cannot be read condemns unknown packs: writing or deleting then is not safe.
    pub fn marks(&self) -> Result<Vec<StoredMark>> {
        let mut listed = Vec::new();
        self.list(ObjectKind::Mark, &mut |object| {
            listed.push((ObjectKey::new(ObjectKind::Mark, &object.name), object.stored));
            Ok(())
        })?;
        let mut marks = Vec::new();
        for (key, stored) in listed {
            match self.get_json::<Mark>(Kind::Mark, &key) {
                Ok(mark) => marks.push(StoredMark { key, stored, mark }),
                // Removed between listing and reading: its prune has ended, and what it deleted is no longer listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error
                        .context(format!("The mark \"{key}\" of a prune cannot be read, so it is unknown which packs are about to be deleted"))
                        .with_hint("Let the prune finish or run it again; then remove the damaged mark."));
                }
            }
        }
        Ok(marks)
    }

    /// The packs that unfinished prunes have condemned.
    pub fn marked_packs(&self) -> Result<HashSet<ObjectName>> {
        Ok(self.marks()?.into_iter().flat_map(|stored| stored.mark.packs).collect())
    }

    /// Says that a session may no longer commit. One that was revoked before stays so.
    pub fn revoke(&self, pin: &StoredPin) -> Result<()> {
        let body = pin.pin.clone().unwrap_or_else(|| Pin {
            version: 1,
            session: pin.session,
            writer: self.writer_id(),
            host: String::new(),
            pid: 0,
            started: jiff::Timestamp::now(),
            process: None,
        });
        let put = self.put_json(Kind::Revoke, &ObjectKey::new(ObjectKind::Revoke, pin.session), &Revoke(body));
        match put {
            Err(error) if error.kind() == ErrorKind::Exists => Ok(()),
            other => other,
        }
    }

    /// The sessions that may no longer commit.
    pub fn revoked(&self) -> Result<HashSet<SessionId>> {
        self.names(ObjectKind::Revoke)?.iter().map(|name| SessionId::parse(name)).collect()
    }

    /// How long after a put an object may be missing from a fresh listing. Who is about to delete waits that out.
    pub fn listing_lag(&self) -> Duration {
        if mistake::made(Mistake::NoLagWait) { Duration::ZERO } else { self.store().properties().listing_lag }
    }

    /// An error unless this program may delete here.
    pub fn check_prunable(&self, dry_run: bool) -> Result<()> {
        if dry_run {
            self.check_access()?
        } else {
            self.check_writable()?
        }
        match self.access {
            crate::format::config::Access::Full => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "This repository uses features that this firn does not know, so it may not delete from it",
            )
            .with_hint("Use a newer firn to prune it.")),
        }
    }
}
