//! Entries in walk order become directories, bottom up. Not for: reading the source.
//!
//! Memory: for each directory on the way down, one page a level of its tree and one record of the files cache; the path once.

use super::known::{extend, shown};
use super::pipeline::Finished;
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::{Body, Entry, Metadata, Totals};
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::repository::assemble::Assembler;
use crate::repository::files::{CachedFile, FilesCache, RECORD_FILES};
use crate::repository::tree::{DirectoryBuilder, PageCut};
use crate::view::path::ROOT_NAME;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many directories came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryCounts {
    /// Not there the last time.
    pub new: u64,
    /// With other entries than the last time.
    pub changed: u64,
    /// As the last time.
    pub unmodified: u64,
}

/// Builds the tree of one backup.
pub struct TreeBuilder<'a> {
    cut: PageCut,
    out: Assembler<'a>,
    files: Option<&'a FilesCache>,
    progress: &'a dyn Progress,
    /// The last directory's path (at least; see `path_len`), without a slash for "/".
    path: Vec<u8>,
    stack: Vec<Open>,
    root: Option<(ChunkId, Totals)>,
    /// Counts so far.
    pub counts: DirectoryCounts,
}

struct Open {
    /// How much of the one path is this directory's.
    path_len: usize,
    name: Vec<u8>,
    size: u64,
    meta: Metadata,
    known: bool,
    pages: DirectoryBuilder,
    record: Vec<CachedFile>,
    records: u32,
}

impl<'a> TreeBuilder<'a> {
    /// Sends its pages through `out`; remembers files in `files`; tells of each file.
    pub fn new(cut: PageCut, out: Assembler<'a>, files: Option<&'a FilesCache>, progress: &'a dyn Progress) -> Self {
        let (path, stack, counts) = (Vec::new(), Vec::new(), DirectoryCounts::default());
        TreeBuilder { cut, out, files, progress, path, stack, root: None, counts }
    }

    /// Takes the next thing in walk order.
    pub fn take(&mut self, finished: Finished) -> Result<()> {
        match finished {
            Finished::Enter { name, size, meta, known } => {
                if let Some(above) = self.stack.last() {
                    extend(&mut self.path, above.path_len, &name);
                }
                let (path_len, pages) = (self.path.len(), DirectoryBuilder::default());
                self.stack.push(Open { path_len, name, size, meta, known, pages, record: Vec::new(), records: 0 });
                Ok(())
            }
            Finished::Entry { entry, cached, change } => {
                let open = self.stack.last_mut().ok_or_else(out_of_order)?;
                if let (Some(change), Body::File { size, .. }) = (change, &entry.body) {
                    extend(&mut self.path, open.path_len, &entry.name);
                    self.progress.compared(Path::new(OsStr::from_bytes(&self.path)), *size, change);
                }
                open.pages.push(&entry, &self.cut, &mut self.out)?;
                if let (Some(files), Some(cached)) = (self.files, cached) {
                    open.record.push(cached);
                    if open.record.len() == RECORD_FILES {
                        files.put(shown(&self.path[..open.path_len]), open.records, &open.record);
                        open.record.clear();
                        open.records += 1;
                    }
                }
                Ok(())
            }
            Finished::Leave => self.leave(),
        }
    }

    fn leave(&mut self) -> Result<()> {
        let mut open = self.stack.pop().ok_or_else(out_of_order)?;
        if let Some(files) = self.files {
            let path = shown(&self.path[..open.path_len]);
            // An empty record tells the next run that the directory is known and holds no file worth remembering.
            if !open.record.is_empty() || open.records == 0 {
                files.put(path, open.records, &open.record);
                open.records += 1;
            }
            let mut stale = open.records;
            while files.remove(path, stale) {
                stale += 1;
            }
        }
        let before = self.out.new_chunks();
        let (page, totals) = open.pages.finish(&self.cut, &mut self.out)?;
        match (open.known, self.out.new_chunks() > before) {
            (false, _) => self.counts.new += 1,
            (true, true) => self.counts.changed += 1,
            (true, false) => self.counts.unmodified += 1,
        }
        open.meta.blocks = open.meta.blocks.filter(|blocks| *blocks != open.size.div_ceil(512));
        let body = Body::Directory { size: open.size, page, totals };
        if let Some(above) = self.stack.last_mut() {
            return above.pages.push(&Entry { name: open.name, meta: open.meta, body }, &self.cut, &mut self.out);
        }
        // The root: a page of its own with one entry.
        let mut top = DirectoryBuilder::default();
        top.push(&Entry { name: ROOT_NAME.to_vec(), meta: open.meta, body }, &self.cut, &mut self.out)?;
        let (id, _) = top.finish(&self.cut, &mut self.out)?;
        self.root = Some((id, totals));
        Ok(())
    }

    /// Ends the tree: the id of the snapshot's root page and the totals below "/".
    pub fn finish(mut self) -> Result<(ChunkId, Totals, DirectoryCounts)> {
        self.out.flush()?;
        let (id, totals) = self.root.ok_or_else(out_of_order)?;
        Ok((id, totals, self.counts))
    }
}

fn out_of_order() -> Error {
    Error::new(
        ErrorKind::Failed,
        "The walk of the source ended before the root directory did; this is a defect of firn",
    )
}
