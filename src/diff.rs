//! What differs between two snapshots, or between a snapshot and the files that are there now. Not for: how that is printed (`cli`),
//! or the versions of one path (`history`).
//!
//! `trees` walks two snapshots, `live` one and the file system; both hand pairs of entries to a `Job`, which compares them, counts and
//! tells. What is equal on both sides is not read: pages by their ids, contents by those of their chunks.
//!
//! Memory: two pages a level for each directory on the way down; 16 bytes for each of at most `content::TOLD_APART` chunks of the file
//! at hand; with `Options::content` two files of at most `text::MAX_TEXT` bytes, their lines and their difference, and a chunk.

mod content;
mod live;
mod metadata;
#[cfg(test)]
mod tests;
mod text;
mod trees;

use crate::backup::calm::Clocks;
use crate::chunk::pieces::Chunks;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::tree::{Body, Entry};
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::view::pages::below;
pub use live::{Live, with_live};
pub use metadata::Field;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
pub use text::Text;
pub use trees::between;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Tell of metadata as well.
    pub metadata: bool,
    /// Compare the content of text files line by line; with live files, read what is there.
    pub content: bool,
}

/// How something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// What it holds: a file's bytes, where a link points to, the number of a device.
    Content,
    /// A file's bytes, though its size and the time of its last change are the same.
    Unmarked,
    /// It is something else now.
    Kind,
    /// Nothing but metadata.
    Metadata,
}

/// Bytes of files that only one side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// That are new.
    pub added: u64,
    /// That are gone.
    pub removed: u64,
}

/// Something that differs.
#[derive(Debug)]
pub struct Difference<'d> {
    /// Its path, as it is or would be on the second side; empty for "/".
    pub path: &'d [u8],
    /// Whether it is a directory; if it is or was one, for what is of another kind now.
    pub is_directory: bool,
    /// How it differs.
    pub modifier: Modifier,
    /// Which metadata does, if that was asked for.
    pub fields: Vec<Field>,
    /// What a file that changed has more and less.
    pub bytes: Bytes,
    /// The lines that differ, if they were asked for.
    pub text: Text,
}

/// Counts of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes of files: of those that changed only what the other side does not have.
    pub bytes: u64,
}

/// All that differs, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Files whose content differs.
    pub changed_files: u64,
    /// Links and devices that stand for something else.
    pub changed_others: u64,
    /// Entries of which only metadata differs, if that was asked for.
    pub changed_metadata: u64,
    /// What only the second side has.
    pub added: Side,
    /// What only the first side has.
    pub removed: Side,
    /// Things that could not be compared; each was told to `Progress::issue`.
    pub issues: u64,
}

/// What a comparison works with.
pub struct Context<'a> {
    /// Where the snapshots are.
    pub repository: &'a Repository,
    /// What is looked at.
    pub options: Options,
    /// Hears of what could not be compared.
    pub progress: &'a dyn Progress,
    /// Asked often.
    pub stop: &'a Stop,
}

/// Hears of differences, in the order of paths.
pub type Tell<'t> = &'t mut dyn FnMut(&Difference<'_>) -> Result<()>;

/// What two entries of the same kind hold.
enum Held {
    Same,
    Different(Bytes, Text),
    /// It could not be found out, and that was told.
    Unknown,
}

/// Which side something is on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Old,
    New,
}

/// A comparison under way.
struct Job<'a> {
    context: &'a Context<'a>,
    tell: Tell<'a>,
    statistics: Statistics,
    /// Of what is at hand.
    path: Vec<u8>,
    /// Cuts live files; holds its buffer.
    chunks: Chunks,
    buffer: Vec<u8>,
    /// Tells where the stated sizes of live files can be relied on.
    clocks: Clocks,
}

impl<'a> Job<'a> {
    fn new(context: &'a Context<'a>, tell: Tell<'a>, path: &[u8]) -> Job<'a> {
        let chunks = Chunks::new(Arc::new(context.repository.splitter()));
        let (statistics, path) = (Statistics::default(), path.to_vec());
        Job { context, tell, statistics, path, chunks, buffer: Vec::new(), clocks: Clocks::default() }
    }

    /// Goes on to a name in the directory whose path has this length.
    fn go_to(&mut self, directory: usize, name: &[u8]) {
        self.path.truncate(directory);
        self.path.push(b'/');
        self.path.extend_from_slice(name);
    }

    fn issue(&mut self, error: &Error) {
        self.statistics.issues += 1;
        let path = if self.path.is_empty() { b"/" } else { self.path.as_slice() };
        self.context.progress.issue(Path::new(OsStr::from_bytes(path)), error);
    }

    /// The rest of the directory at hand cannot be told.
    fn incomplete(&mut self, error: Error) {
        let error = error.context("What is in it cannot be compared completely");
        self.issue(&error);
    }

    /// Two files differ, by so many bytes as far as that is known, but how cannot be told.
    fn how_is_unknown(&mut self, error: Error, bytes: Bytes) -> Result<Held> {
        let error = end_if_stopped(self.context.stop, error)?;
        self.issue(&error.context("What differs in it cannot be told"));
        Ok(Held::Different(bytes, Text::None))
    }

    /// Tells of an entry that one side has alone, without what is below it.
    fn alone(&mut self, entry: &Entry, only: Only) -> Result<()> {
        self.count(entry, only);
        let modifier = if only == Only::New { Modifier::Added } else { Modifier::Removed };
        self.say(is_directory(entry), modifier, Vec::new(), Bytes::default(), Text::None)
    }

    fn count(&mut self, entry: &Entry, only: Only) {
        let side = if only == Only::New { &mut self.statistics.added } else { &mut self.statistics.removed };
        match &entry.body {
            Body::File { size, .. } => {
                side.files += 1;
                side.bytes = side.bytes.saturating_add(*size);
            }
            Body::Directory { .. } => side.dirs += 1,
            _ => side.others += 1,
        }
    }

    fn say(
        &mut self,
        is_directory: bool,
        modifier: Modifier,
        fields: Vec<Field>,
        bytes: Bytes,
        text: Text,
    ) -> Result<()> {
        (self.tell)(&Difference { path: &self.path, is_directory, modifier, fields, bytes, text })
    }

    /// Compares two entries with the same place, without what is below them. `held` tells of contents, and is asked of files only.
    fn pair(&mut self, old: &Entry, new: &Entry, held: &mut dyn FnMut(&mut Self) -> Result<Held>) -> Result<()> {
        let fields = metadata::fields(self, old, new);
        if std::mem::discriminant(&old.body) != std::mem::discriminant(&new.body) {
            self.count(old, Only::Old);
            self.count(new, Only::New);
            let is_directory = is_directory(new);
            return self.say(is_directory, Modifier::Kind, fields, Bytes::default(), Text::None);
        }
        let held = match (&old.body, &new.body) {
            (Body::File { .. }, Body::File { .. }) => held(self)?,
            (Body::Directory { .. }, Body::Directory { .. }) => Held::Same,
            (old, new) if old == new => Held::Same,
            _ => Held::Different(Bytes::default(), Text::None),
        };
        match held {
            Held::Different(bytes, text) => {
                let modifier = match (&old.body, &new.body) {
                    (Body::File { size, .. }, Body::File { size: now, .. }) => {
                        self.statistics.changed_files += 1;
                        let is_marked = (size, old.meta.mtime) != (now, new.meta.mtime);
                        if is_marked { Modifier::Content } else { Modifier::Unmarked }
                    }
                    _ => {
                        self.statistics.changed_others += 1;
                        Modifier::Content
                    }
                };
                let Statistics { added, removed, .. } = &mut self.statistics;
                added.bytes = added.bytes.saturating_add(bytes.added);
                removed.bytes = removed.bytes.saturating_add(bytes.removed);
                self.say(false, modifier, fields, bytes, text)
            }
            Held::Same if !fields.is_empty() => {
                self.statistics.changed_metadata += 1;
                self.say(is_directory(new), Modifier::Metadata, fields, Bytes::default(), Text::None)
            }
            Held::Same | Held::Unknown => Ok(()),
        }
    }

    /// Tells of everything below a directory of a snapshot that one side has alone. `wanted` is asked of each entry whether it counts;
    /// what is below one that does not is asked all the same, unless it says so.
    fn subtree(
        &mut self,
        directory: &Entry,
        only: Only,
        wanted: &mut dyn FnMut(&[u8], &Entry) -> Counts,
    ) -> Result<()> {
        let Body::Directory { page, totals, .. } = &directory.body else { return Ok(()) };
        let mut open = vec![(self.context.repository.entries_of(*page, totals), self.path.len())];
        let start = self.path.len();
        while let Some((entries, length)) = open.last_mut() {
            self.context.stop.check()?;
            let length = *length;
            match entries.next() {
                None => drop(open.pop()),
                Some(Err(error)) => {
                    self.path.truncate(length);
                    self.incomplete(error);
                    open.pop();
                }
                Some(Ok(entry)) => {
                    self.go_to(length, &entry.name);
                    let counts = wanted(&self.path, &entry);
                    if counts == Counts::Yes {
                        self.alone(&entry, only)?;
                    }
                    if counts != Counts::NothingOfIt
                        && let Body::Directory { page, totals, .. } = &entry.body
                        && below(&entry) > 0
                    {
                        if open.len() > MAX_DEPTH {
                            self.incomplete(too_deep());
                            continue;
                        }
                        open.push((self.context.repository.entries_of(*page, totals), self.path.len()));
                    }
                }
            }
        }
        self.path.truncate(start);
        Ok(())
    }
}

/// Whether an entry counts as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    Yes,
    /// No, but what is below it may.
    OnlyBelow,
    NothingOfIt,
}

fn is_directory(entry: &Entry) -> bool {
    matches!(entry.body, Body::Directory { .. })
}

fn too_deep() -> Error {
    Error::damaged(format!("folders are nested more than {MAX_DEPTH} deep"))
}

/// A problem with one thing does not end the comparison, a wish to stop does.
fn end_if_stopped(stop: &Stop, error: Error) -> Result<Error> {
    stop.check()?;
    if error.kind() == ErrorKind::Interrupted { Err(error) } else { Ok(error) }
}
