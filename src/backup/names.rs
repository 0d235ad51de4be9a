//! The names of one directory, in one allocation, sorted. Not for: what they stand for (see `walk`).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

// What is known of an entry before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    Unknown,
    Directory,
    Other,
}

// Names in one allocation; each with the offset of its first byte, its length and its hint.
#[derive(Debug, Default)]
pub(super) struct NameList {
    bytes: Vec<u8>,
    index: Vec<(u32, u8, Hint)>,
}

impl NameList {
    pub(super) fn push(&mut self, name: &[u8], hint: Hint) -> std::result::Result<(), &'static str> {
        let len = u8::try_from(name.len()).map_err(|_| "is longer than 255 bytes")?;
        let start = u32::try_from(self.bytes.len()).map_err(|_| "has too many neighbours: 4 GiB of names")?;
        self.bytes.extend_from_slice(name);
        self.index.push((start, len, hint));
        Ok(())
    }

    pub(super) fn name(&self, (start, len, _): (u32, u8, Hint)) -> &[u8] {
        &self.bytes[start as usize..start as usize + usize::from(len)]
    }

    pub(super) fn get(&self, number: usize) -> Option<(&[u8], Hint)> {
        let entry = *self.index.get(number)?;
        Some((self.name(entry), entry.2))
    }

    /// Whether a sorted list has this name.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.index.binary_search_by(|entry| self.name(*entry).cmp(name)).is_ok()
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn sort(&mut self) {
        let mut index = std::mem::take(&mut self.index);
        index.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        // A network file system may list a name twice while the directory changes.
        index.dedup_by(|a, b| self.name(*a) == self.name(*b));
        self.index = index;
    }
}

// Adds the names in a directory to the list, `.` and `..` left out. `refuse` hears of names that cannot be kept.
pub(super) fn read_names(dir: &OwnedFd, names: &mut NameList, refuse: &mut dyn FnMut(&[u8], &str)) -> io::Result<()> {
    use rustix::fs::FileType as Raw;
    let mut buffer = vec![MaybeUninit::uninit(); 32_768];
    let mut entries = rustix::fs::RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let hint = match entry.file_type() {
            Raw::Unknown => Hint::Unknown,
            Raw::Directory => Hint::Directory,
            _ => Hint::Other,
        };
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if name.is_empty() || name.contains(&b'/') => refuse(name, "is not a valid name"),
            name => {
                if let Err(why) = names.push(name, hint) {
                    refuse(name, why);
                }
            }
        }
    }
    Ok(())
}
