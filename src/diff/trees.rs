//! Two snapshots, or two places in snapshots. Not for: what is compared of two entries (see `Job::pair`).

use super::content::{bytes_between, text_between};
use super::{Bytes, Context, Counts, Held, Job, Only, Statistics, Tell, Text, end_if_stopped, is_directory, too_deep};
use crate::error::Result;
use crate::format::bounds::MAX_DEPTH;
use crate::format::tree::{Body, Entry};
use crate::view::changes::{Changes, Failed};
use crate::view::pages::Directory;

/// Tells what differs between two entries and all that is below them; `path` is that of the second one.
pub fn between(context: &Context<'_>, old: &Entry, new: &Entry, path: &[u8], tell: Tell<'_>) -> Result<Statistics> {
    let mut job = Job::new(context, tell, path);
    let mut open: Vec<(Changes<'_>, usize)> = Vec::new();
    open.extend(job.entries(old, new)?.map(|changes| (changes, path.len())));
    while let Some((changes, length)) = open.last_mut() {
        context.stop.check()?;
        let length = *length;
        let change = match changes.advance() {
            Ok(Some(change)) => change,
            Ok(None) => {
                open.pop();
                continue;
            }
            Err(Failed::Old(error) | Failed::New(error)) => {
                job.path.truncate(length);
                let error = end_if_stopped(context.stop, error)?;
                job.incomplete(error);
                open.pop();
                continue;
            }
        };
        let below = match (&change.old, &change.new) {
            (Some(old), Some(new)) => {
                job.go_to(length, &new.name);
                job.entries(old, new)?
            }
            (Some(entry), None) | (None, Some(entry)) => {
                let only = if change.old.is_some() { Only::Old } else { Only::New };
                job.go_to(length, &entry.name);
                job.alone(entry, only)?;
                job.subtree(entry, only, &mut |_, _| Counts::Yes)?;
                None
            }
            (None, None) => None,
        };
        if let Some(below) = below {
            if open.len() > MAX_DEPTH {
                job.incomplete(too_deep());
                continue;
            }
            open.push((below, job.path.len()));
        }
    }
    Ok(job.statistics)
}

impl<'a> Job<'a> {
    /// Compares two entries; what is to be compared below them.
    fn entries(&mut self, old: &Entry, new: &Entry) -> Result<Option<Changes<'a>>> {
        self.pair(old, new, &mut |job| job.held(old, new))?;
        match (Directory::of(old), Directory::of(new)) {
            (Some(before), Some(after)) if before.page == after.page => Ok(None),
            (Some(before), Some(after)) => Ok(Some(Changes::new(self.context.repository, Some(before), Some(after)))),
            _ => {
                if is_directory(old) {
                    self.subtree(old, Only::Old, &mut |_, _| Counts::Yes)?;
                }
                if is_directory(new) {
                    self.subtree(new, Only::New, &mut |_, _| Counts::Yes)?;
                }
                Ok(None)
            }
        }
    }

    /// How the contents of two files compare.
    fn held(&mut self, old: &Entry, new: &Entry) -> Result<Held> {
        let (Body::File { size, content }, Body::File { size: now, content: after }) = (&old.body, &new.body) else {
            return Ok(Held::Same);
        };
        if content == after {
            return Ok(Held::Same);
        }
        let repository = self.context.repository;
        let bytes = match bytes_between(repository, content, after, self.context.stop) {
            Ok(bytes) => bytes,
            Err(error) => return self.how_is_unknown(error, Bytes::default()),
        };
        if !self.context.options.content {
            return Ok(Held::Different(bytes, Text::None));
        }
        let text = text_between(repository, (*size, content), (*now, after));
        text.map(|text| Held::Different(bytes, text)).or_else(|error| self.how_is_unknown(error, bytes))
    }
}
