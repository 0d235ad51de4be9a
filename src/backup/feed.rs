//! Hands an open source file to the chunker: data, and the holes of the file system. Not for: deciding what is read.

use super::content::Content;
use crate::chunk::pieces::{Segment, Source};
use crate::progress::{Progress, Stop};
use std::io;

/// A source file as the chunker wants it. Counts what was read.
pub struct Feed<'a> {
    content: &'a mut Content,
    progress: &'a dyn Progress,
    stop: &'a Stop,
}

impl<'a> Feed<'a> {
    /// Reads `content` from its start.
    pub fn new(content: &'a mut Content, progress: &'a dyn Progress, stop: &'a Stop) -> Self {
        Feed { content, progress, stop }
    }
}

impl Source for Feed<'_> {
    fn segment(&mut self) -> io::Result<Option<Segment>> {
        self.content.segment()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.signal().is_some() {
            return Err(io::Error::other("stopped"));
        }
        let length = self.content.read(buffer)?;
        self.progress.bytes(length as u64);
        Ok(length)
    }
}
