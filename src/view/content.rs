//! Byte ranges of recorded files. Not for: caching blocks (`repository`), or prefetch policy.

use crate::error::{Error, Result};
use crate::format::list::ListPage;
use crate::format::message::ChunkKind;
use crate::format::tree::{Content, Extent};
use crate::repository::Repository;
use std::io::{self, Write};

/// Where a file's bytes go.
pub trait Sink: Write {
    /// So many zeros.
    fn zeros(&mut self, length: u64) -> io::Result<()> {
        let zeros = [0; 1 << 16];
        let mut left = length;
        while left > 0 {
            let step = left.min(zeros.len() as u64);
            self.write_all(&zeros[..step as usize])?;
            left -= step;
        }
        Ok(())
    }
}

impl Sink for Vec<u8> {}

/// Writes a file's bytes to `out`. Every byte is verified before it is written.
pub fn copy(repository: &Repository, size: u64, content: &Content, out: &mut dyn Sink) -> Result<()> {
    let failed = |error| Error::io("The output could not be written", error);
    if let Content::Inline(bytes) = content {
        return out.write_all(bytes).map_err(failed);
    }
    let mut written = 0u64;
    for extent in repository.extents(content) {
        let extent = extent?;
        match extent {
            Extent::Hole(length) => out.zeros(length).map_err(failed)?,
            Extent::Chunk { id, len } => {
                let chunk = repository.chunk(ChunkKind::Content, &id)?;
                check_length(chunk.len(), len)?;
                out.write_all(&chunk).map_err(failed)?;
            }
        }
        written = written.saturating_add(extent.len());
    }
    if written != size {
        return Err(Error::damaged(format!("a file's chunks have {written} bytes together, its entry says {size}")));
    }
    Ok(())
}

/// A chunk must have the length that its extent states.
pub fn check_length(length: usize, stated: u32) -> Result<()> {
    if length != stated as usize {
        return Err(Error::damaged(format!("a chunk has {length} bytes where its file says {stated}")));
    }
    Ok(())
}

/// An extent and where in the file it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset in the file.
    pub offset: u64,
    /// What is there.
    pub extent: Extent,
}

impl Placed {
    /// Offset behind it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.extent.len())
    }
}

/// The extents that overlap `from..to`, in order, found through the list pages without reading those before it.
/// At most `limit` of them.
pub fn extents_in(repository: &Repository, content: &Content, from: u64, to: u64, limit: usize) -> Result<Vec<Placed>> {
    let mut found = Vec::new();
    match content {
        Content::Inline(_) => {}
        Content::Extents(extents) => collect(extents, 0, from, to, limit, &mut found),
        Content::List(id) => {
            // Pages still to look at, the next one last, with the offset at which each begins.
            let mut stack = vec![(*id, 0u64, None)];
            while let Some((id, base, expected)) = stack.pop() {
                if found.len() >= limit {
                    break;
                }
                let page = repository.list_page(&id)?;
                let (bytes, extents) = page.totals()?;
                if expected.is_some_and(|expected| expected != (page.level(), bytes, extents)) {
                    return Err(Error::damaged(format!("The list page \"{id}\" is not what the page above it says")));
                }
                match page {
                    ListPage::Extents(extents) => collect(&extents, base, from, to, limit, &mut found),
                    ListPage::Interior { level, children } => {
                        let mut offset = base;
                        let mut below = Vec::new();
                        for child in children {
                            let end = offset.saturating_add(child.bytes);
                            if end > from && offset < to {
                                below.push((child.page, offset, Some((level - 1, child.bytes, child.extents))));
                            }
                            offset = end;
                        }
                        stack.extend(below.into_iter().rev());
                    }
                }
            }
        }
    }
    // Only pages can be the reason: within one, and within an entry, the decoder sees to it.
    let is_hole = |placed: &Placed| matches!(placed.extent, Extent::Hole(_));
    if found.windows(2).any(|pair| pair.iter().all(is_hole)) {
        return Err(Error::damaged("two holes of a file touch across list pages"));
    }
    Ok(found)
}

fn collect(extents: &[Extent], base: u64, from: u64, to: u64, limit: usize, found: &mut Vec<Placed>) {
    let mut offset = base;
    for extent in extents {
        let end = offset.saturating_add(extent.len());
        if end > from && offset < to && found.len() < limit {
            found.push(Placed { offset, extent: *extent });
        }
        offset = end;
    }
}
