//! The history catalog: which versions of every path there are in the snapshots, kept on this machine. Not for: contents and
//! attributes, which are read from the snapshot that a version names: nothing in here is trusted for more than finding it.
//!
//! Snapshots form lines (`lines`). Each line has one record for each directory path, which lists the versions of all names that
//! ever were in it (`record`, `shelf`). The next snapshot of a line is added by walking its tree and the one before it together,
//! where they differ (`step`). Snapshots that are forgotten stay in the records and vanish when they are asked
//! (`query`). A snapshot that comes in the middle of its line, a record that is missing or damaged, or another version of all
//! this: the line is built anew. It can be deleted at any time.
//!
//! Memory: what the single parts say, which is a few MiB; the database's cache; the list of snapshots.

pub mod lines;
pub mod query;
pub mod record;
pub mod runs;
#[cfg(test)]
mod scale;
pub mod shelf;
pub mod step;
#[cfg(test)]
mod tests;

use crate::chunk::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bytes::Reader;
use crate::id::ObjectName;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::cache::CacheFolder;
use crate::repository::database::Database;
use crate::repository::snapshots::Named;
use lines::{Header, Line, LineId, line_of};
use query::{Broken, Scope};
use shelf::{Generation, Shelf};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use step::{Step, Trouble};

/// Raised when anything in the records changes its form.
const FORMAT: &[u8] = b"firn history 1";
/// The key under which the lines are.
const LINES: [u8; 32] = [0; 32];
/// Snapshots taken in between two moments at which all is durable.
const CHECKPOINT: usize = 64;
/// How often a line is built before giving up.
const ATTEMPTS: usize = 3;

/// Takes answers one by one.
pub type Answers<'a, T> = dyn FnMut(T) -> Result<()> + 'a;

/// Asks the catalog something that has many answers.
pub type Question<'a, T> = dyn FnMut(&Catalog, &mut Answers<'_, T>) -> Result<(), Broken> + 'a;

/// The versions of every path in a repository's snapshots.
#[derive(Debug)]
pub struct Catalog {
    repository: Arc<Repository>,
    /// `None` only while it is dropped.
    database: Option<Database>,
    folder: PathBuf,
    secret: Secret,
    /// Removed at the end, if the cache's own folder could not be used.
    _temporary: Option<CacheFolder>,
    live: Vec<Arc<Named>>,
    /// The place of each of them.
    ranks: HashMap<ObjectName, u32>,
    lines: Vec<Line>,
}

impl Drop for Catalog {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            database.close();
        }
    }
}

impl Catalog {
    /// Opens the catalog of a repository, which says nothing before the first `update`. If another process uses it, this one
    /// is built in a temporary folder.
    pub fn open(repository: &Arc<Repository>, progress: &dyn Progress) -> Result<Catalog> {
        let secret = repository.keyring().local_secret("firn v1 history catalog");
        let folder = repository.cache().path().join("history");
        let (database, folder, temporary) = match Database::open(&folder) {
            Some(database) => (database, folder, None),
            None => {
                progress.note("The history catalog is in use by another process, so one is built for this run alone");
                temporary(repository)?
            }
        };
        let repository = repository.clone();
        Ok(Catalog {
            repository,
            database: Some(database),
            folder,
            secret,
            _temporary: temporary,
            live: Vec::new(),
            ranks: HashMap::new(),
            lines: Vec::new(),
        })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("it is there until this is dropped")
    }

    fn shelf(&self, generation: Generation) -> Shelf<'_> {
        Shelf { database: self.database(), secret: &self.secret, generation }
    }

    /// Brings it up to date with these snapshots, the oldest first. What cannot be read of them is reported and left out.
    pub fn update(&mut self, live: Vec<Arc<Named>>, progress: &dyn Progress, stop: &Stop) -> Result<()> {
        let mut groups: BTreeMap<LineId, Vec<Arc<Named>>> = BTreeMap::new();
        for named in &live {
            groups.entry(line_of(&named.snapshot)).or_default().push(named.clone());
        }
        self.ranks = live.iter().zip(0..).map(|(named, rank)| (named.name, rank)).collect();
        self.live = live;
        let mut known = self.read_lines();
        let before = known.clone();
        known.retain(|id, _| groups.contains_key(id));
        for id in groups.keys() {
            if !known.contains_key(id) {
                known.insert(*id, fresh()?);
            }
        }
        if known != before {
            self.write_lines(&known);
        }
        let mut lines = Vec::with_capacity(groups.len());
        for (id, group) in &groups {
            let generation = known[id];
            let line = self.update_line(*id, generation, group, progress, stop)?;
            known.insert(*id, line.generation);
            lines.push(line);
        }
        // Lines that are gone, and what a line had before it was built anew.
        if before.iter().any(|(id, generation)| known.get(id) != Some(generation)) {
            let keep: Vec<Generation> = known.values().copied().collect();
            self.database().retain(|key| key == LINES || keep.iter().any(|generation| key.starts_with(generation)));
        }
        self.database().flush();
        self.lines = lines;
        Ok(())
    }

    fn update_line(
        &self,
        id: LineId,
        mut generation: Generation,
        live: &[Arc<Named>],
        progress: &dyn Progress,
        stop: &Stop,
    ) -> Result<Line> {
        let mut skipped = Vec::new();
        for _ in 0..ATTEMPTS {
            let shelf = self.shelf(generation);
            let usable = Header::read(&shelf).filter(|header| header.missing(live).is_some());
            let mut header = match usable {
                Some(header) => header,
                None => {
                    generation = self.renew(&id)?;
                    Header { skipped: std::mem::take(&mut skipped), ..Header::default() }
                }
            };
            let Some(missing) = header.missing(live) else { continue };
            match self.take_in(&self.shelf(generation), &mut header, missing, progress, stop)? {
                true => {
                    let left_out = live.iter().filter(|named| header.skipped.contains(&named.name));
                    left_out.for_each(|named| tell_left_out(named, progress));
                    return Ok(line(id, generation, &header, live));
                }
                false => {
                    skipped = header.skipped;
                    generation = self.renew(&id)?;
                }
            }
        }
        Err(Error::new(
            ErrorKind::Failed,
            format!("The history catalog in \"{}\" does not keep what is put into it", self.folder.display()),
        )
        .with_hint("Use --no-cache, or another folder with --cache-dir."))
    }

    /// Takes snapshots into the records of a line; `false` if these turn out to be of no use.
    fn take_in(
        &self,
        shelf: &Shelf<'_>,
        header: &mut Header,
        missing: &[Arc<Named>],
        progress: &dyn Progress,
        stop: &Stop,
    ) -> Result<bool> {
        if missing.is_empty() {
            return Ok(true);
        }
        progress.stage("reading snapshots");
        for batch in missing.chunks(CHECKPOINT) {
            header.plan = batch.iter().map(|named| named.name).collect();
            header.write(shelf);
            shelf.database.flush();
            for named in batch {
                let new = (named.snapshot.tree, named.snapshot.totals);
                let ordinal = header.done.len() as u32;
                let step = Step { repository: &self.repository, shelf: *shelf, ordinal, stop, undo: false };
                match step.apply(header.base.as_ref(), &new) {
                    Ok(()) => {
                        header.done.push(named.name);
                        header.base = Some(new);
                    }
                    Err(Trouble::Stopped(error)) => return Err(error),
                    Err(Trouble::Old(_) | Trouble::Lost) => return Ok(false),
                    Err(Trouble::New(error)) if is_damage(&error) => {
                        progress.note(&format!("The snapshot \"{}\": {}", named.name.short(), error.chain()));
                        header.skipped.push(named.name);
                        let undo = Step { undo: true, ..step };
                        match undo.apply(header.base.as_ref(), &new) {
                            Ok(()) | Err(Trouble::New(_)) => {}
                            Err(Trouble::Stopped(error)) => return Err(error),
                            Err(_) => return Ok(false),
                        }
                    }
                    Err(Trouble::New(error)) => return Err(error),
                }
                progress.files(1);
            }
            // The records first: a header never promises more than there is.
            shelf.database.flush();
            header.plan.clear();
            header.write(shelf);
        }
        shelf.database.flush();
        Ok(true)
    }

    /// A new generation of a line's records, the old ones being left behind.
    fn renew(&self, id: &LineId) -> Result<Generation> {
        let mut known = self.read_lines();
        let generation = fresh()?;
        known.insert(*id, generation);
        self.write_lines(&known);
        Ok(generation)
    }

    fn read_lines(&self) -> BTreeMap<LineId, Generation> {
        let read = || -> Option<BTreeMap<LineId, Generation>> {
            let value = self.database().get(&LINES)?;
            let list = value.strip_prefix(FORMAT)?;
            let mut reader = Reader::new("list of lines", list);
            let mut lines = BTreeMap::new();
            while reader.remaining() > 0 {
                lines.insert(reader.array().ok()?, reader.array().ok()?);
            }
            Some(lines)
        };
        read().unwrap_or_else(|| {
            // Of another version, or of none that is known.
            self.database().retain(|_| false);
            BTreeMap::new()
        })
    }

    fn write_lines(&self, lines: &BTreeMap<LineId, Generation>) {
        let mut value = FORMAT.to_vec();
        for (id, generation) in lines {
            value.extend_from_slice(id);
            value.extend_from_slice(generation);
        }
        self.database().put(&LINES, value);
    }

    /// The place of a snapshot among all that it was brought up to date with.
    pub fn rank(&self, name: &ObjectName) -> Option<u32> {
        self.ranks.get(name).copied()
    }

    /// All lines, each with those of its snapshots that are `wanted`; lines that have none are left out.
    pub fn scopes(&self, wanted: &dyn Fn(&Named) -> bool) -> Vec<Scope<'_>> {
        let scopes = self.lines.iter().map(|line| Scope::new(line, self.shelf(line.generation), wanted));
        scopes.filter(|scope| scope.newest().is_some()).collect()
    }

    /// Loses all records of directories.
    #[cfg(test)]
    pub(crate) fn lose(&mut self) {
        self.database().retain(|key| key == LINES);
    }

    /// How many snapshots are left out because their trees cannot be read.
    pub fn left_out(&self) -> usize {
        let within: usize = self.lines.iter().map(|line| line.snapshots.iter().flatten().count()).sum();
        self.live.len().saturating_sub(within)
    }

    /// Asks something; where records turn out to be lost, they are built anew and it is asked once more.
    pub fn ask<T>(
        &mut self,
        progress: &dyn Progress,
        stop: &Stop,
        question: &mut dyn FnMut(&Catalog) -> Result<T, Broken>,
    ) -> Result<T> {
        let mut attempts = 0;
        loop {
            match question(self) {
                Ok(answer) => return Ok(answer),
                Err(Broken::Failed(error)) => return Err(error),
                Err(Broken::Lost(id)) => {
                    attempts += 1;
                    if attempts > ATTEMPTS {
                        return Err(Error::new(ErrorKind::Failed, "The history catalog cannot be built")
                            .with_hint("Use --no-cache, or another folder with --cache-dir."));
                    }
                    if attempts == ATTEMPTS {
                        // The place itself is not to be trusted.
                        let (database, folder, kept) = temporary(&self.repository)?;
                        if let Some(old) = self.database.replace(database) {
                            old.close();
                        }
                        (self.folder, self._temporary) = (folder, kept);
                    }
                    self.renew(&id)?;
                    let live = std::mem::take(&mut self.live);
                    self.update(live, progress, stop)?;
                }
            }
        }
    }

    /// As `ask`, for a question whose answers come one by one and always in the same order: none is given twice.
    pub fn ask_each<T>(
        &mut self,
        progress: &dyn Progress,
        stop: &Stop,
        question: &mut Question<'_, T>,
        each: &mut Answers<'_, T>,
    ) -> Result<()> {
        let mut given = 0u64;
        self.ask(progress, stop, &mut |catalog| {
            let mut at = 0u64;
            question(catalog, &mut |answer| {
                at += 1;
                if at <= given {
                    return Ok(());
                }
                given = at;
                each(answer)
            })
        })
    }
}

fn tell_left_out(named: &Named, progress: &dyn Progress) {
    let name = named.name.short();
    let error = Error::new(
        ErrorKind::Incomplete,
        format!("The history leaves out the snapshot \"{name}\", whose tree cannot be read completely"),
    );
    progress.issue(Path::new(&name), &error.with_hint("\"firn check\" tells more."));
}

fn line(id: LineId, generation: Generation, header: &Header, live: &[Arc<Named>]) -> Line {
    let by_name: HashMap<ObjectName, &Arc<Named>> = live.iter().map(|named| (named.name, named)).collect();
    let snapshots = header.done.iter().map(|name| by_name.get(name).map(|named| Arc::clone(named))).collect();
    Line { id, generation, snapshots }
}

fn temporary(repository: &Repository) -> Result<(Database, PathBuf, Option<CacheFolder>)> {
    let place = CacheFolder::temporary(repository.writer_id())?;
    let folder = place.path().join("history");
    let database = Database::open(&folder).ok_or_else(|| {
        Error::new(ErrorKind::Failed, format!("No history catalog can be made in \"{}\"", folder.display()))
    })?;
    Ok((database, folder, Some(place)))
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Unsupported)
}

fn fresh() -> Result<Generation> {
    // A session's id is as random as anything.
    let random = crate::id::SessionId::random()?;
    let mut generation: Generation = *random.0.first_chunk().expect("a session's id has 16 bytes");
    // Never that of the list of lines.
    generation[0] |= 1;
    Ok(generation)
}
