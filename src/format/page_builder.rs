//! Builds pages of a directory one entry or child at a time. Not for: where pages are cut (the writer's business), ids.

use crate::error::Result;
use crate::format::bounds::{MAX_INLINE_ATTRIBUTES, MAX_LEVEL, MAX_NAME, MAX_PAGE};
use crate::format::bytes::{Put, unfit, varint_len};
use crate::format::entry::{put_entry, put_totals};
use crate::format::page::{Child, check_attributes};
use crate::format::tree::{Attributes, Entry, Owner, Totals};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// A finished page and what the page above says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltPage {
    /// The page as stored.
    pub bytes: Vec<u8>,
    /// Name of its first entry; empty for the page of an empty directory.
    pub first_name: Vec<u8>,
    /// Entries of this directory in and below it.
    pub direct: u64,
    /// Sums over all entries in and below it.
    pub totals: Totals,
}

/// A table of a page while it grows: each different item once, in the order of first use.
struct Table<T> {
    numbers: HashMap<Arc<T>, u64>,
    bytes: Vec<u8>,
    /// The item looked up last; neighbours mostly have the same owner.
    last: Option<(Arc<T>, u64)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { numbers: HashMap::new(), bytes: Vec::new(), last: None }
    }
}

impl<T: Hash + Eq> Table<T> {
    /// The item's number; appends it if it is new, and says so.
    fn number(&mut self, item: &Arc<T>, put: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<(u64, bool)> {
        if let Some((last, number)) = &self.last
            && (Arc::ptr_eq(last, item) || last == item)
        {
            return Ok((*number, false));
        }
        let (number, new) = match self.numbers.get(item) {
            Some(number) => (*number, false),
            None => {
                put(&mut self.bytes)?;
                let number = self.numbers.len() as u64;
                self.numbers.insert(Arc::clone(item), number);
                (number, true)
            }
        };
        self.last = Some((Arc::clone(item), number));
        Ok((number, new))
    }

    fn remove_last(&mut self, item: &Arc<T>, len: usize) {
        self.numbers.remove(item);
        self.bytes.truncate(len);
        self.last = None;
    }

    fn len(&self) -> usize {
        varint_len(self.numbers.len() as u64) + self.bytes.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_varint(self.numbers.len() as u64);
        out.extend_from_slice(&self.bytes);
    }
}

fn put_owner(out: &mut Vec<u8>, owner: &Owner) -> Result<()> {
    if owner.user.len() > MAX_NAME || owner.group.len() > MAX_NAME {
        return Err(unfit("owner", "the name of a user or group is too long"));
    }
    out.put_varint(u64::from(owner.uid));
    out.put_varint(u64::from(owner.gid));
    out.put_short(&owner.user);
    out.put_short(&owner.group);
    Ok(())
}

fn put_attributes(out: &mut Vec<u8>, set: &Attributes) -> Result<()> {
    check_attributes(set).map_err(|why| unfit("set of attributes", why))?;
    match set {
        Attributes::Inline(set) => {
            let bytes = set.encode()?;
            if bytes.len() > MAX_INLINE_ATTRIBUTES {
                return Err(unfit("set of attributes", "it is too long to stand in a page"));
            }
            out.put_u8(0);
            out.put_varint(bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
        Attributes::Chunk(id, len) => {
            out.put_u8(1);
            out.extend_from_slice(&id.0);
            out.put_varint(u64::from(*len));
        }
    }
    Ok(())
}

/// Builds leaf pages. After `finish` it is empty and can be used again.
#[derive(Default)]
pub struct LeafBuilder {
    owners: Table<Owner>,
    sets: Table<Attributes>,
    entries: Vec<u8>,
    number: u64,
    first_name: Vec<u8>,
    last_name: Vec<u8>,
    totals: Totals,
}

impl LeafBuilder {
    /// One without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.number == 0
    }

    /// How many entries it has.
    pub fn entries(&self) -> u64 {
        self.number
    }

    /// Length of the page in bytes if it was finished now.
    pub fn encoded_len(&self) -> usize {
        1 + self.owners.len() + self.sets.len() + varint_len(self.number) + self.entries.len()
    }

    /// Whether the page would become longer than 65,536 bytes with this entry. An entry always fits into an empty page.
    /// Fails if the format cannot hold the entry.
    pub fn would_exceed(&mut self, entry: &Entry) -> Result<bool> {
        self.append(entry, false).map(|fits| !fits)
    }

    /// Appends an entry if the page does not become too long by it, and says whether it did. Its name must come behind the
    /// one before. An error (the format cannot hold the entry) leaves the builder as it was.
    pub fn try_push(&mut self, entry: &Entry) -> Result<bool> {
        if !self.is_empty() && self.last_name >= entry.name {
            return Err(unfit("tree page", "the entries are not in order"));
        }
        self.append(entry, true)
    }

    /// Appends an entry. Like `try_push`, but it is an error if the page would become too long.
    pub fn push(&mut self, entry: &Entry) -> Result<()> {
        if self.try_push(entry)? { Ok(()) } else { Err(unfit("tree page", "it would be too long")) }
    }

    fn append(&mut self, entry: &Entry, keep: bool) -> Result<bool> {
        let (owners_len, sets_len, entries_len) = (self.owners.bytes.len(), self.sets.bytes.len(), self.entries.len());
        let (mut new_owner, mut new_set) = (false, false);
        let result = self.append_bytes(entry, &mut new_owner, &mut new_set);
        self.number += 1;
        let fits = self.encoded_len() <= MAX_PAGE;
        let totals = entry.totals().map(|totals| self.totals.checked_add(&totals));
        if keep
            && fits
            && result.is_ok()
            && let Ok(Some(totals)) = totals
        {
            self.totals = totals;
            self.last_name.clone_from(&entry.name);
            if self.number == 1 {
                self.first_name.clone_from(&entry.name);
            }
            return Ok(true);
        }
        self.number -= 1;
        self.entries.truncate(entries_len);
        if new_owner {
            self.owners.remove_last(&entry.meta.owner, owners_len);
        }
        if let (true, Some(set)) = (new_set, &entry.meta.attributes) {
            self.sets.remove_last(set, sets_len);
        }
        result?;
        if totals?.is_none() {
            return Err(unfit("tree page", "the totals are larger than any can be"));
        }
        Ok(fits)
    }

    fn append_bytes(&mut self, entry: &Entry, new_owner: &mut bool, new_set: &mut bool) -> Result<()> {
        let owner = &entry.meta.owner;
        let owner_number;
        (owner_number, *new_owner) = self.owners.number(owner, |out| put_owner(out, owner))?;
        let mut set_number = None;
        if let Some(set) = &entry.meta.attributes {
            let (number, new) = self.sets.number(set, |out| put_attributes(out, set))?;
            (set_number, *new_set) = (Some(number), new);
        }
        put_entry(&mut self.entries, entry, owner_number, set_number)
    }

    /// The page of the entries so far. The builder is empty afterwards.
    pub fn finish(&mut self) -> BuiltPage {
        let built = std::mem::take(self);
        let mut bytes = Vec::with_capacity(built.encoded_len());
        bytes.put_u8(0);
        built.owners.write(&mut bytes);
        built.sets.write(&mut bytes);
        bytes.put_varint(built.number);
        bytes.extend_from_slice(&built.entries);
        BuiltPage { bytes, first_name: built.first_name, direct: built.number, totals: built.totals }
    }
}

/// Builds interior pages of one level. After `finish` it is empty and can be used again.
pub struct InteriorBuilder {
    level: u8,
    children: Vec<u8>,
    number: u64,
    first_name: Vec<u8>,
    last_name: Vec<u8>,
    direct: u64,
    totals: Totals,
}

impl InteriorBuilder {
    /// One without children. Fails if `level` is not 1 to 16.
    pub fn new(level: u8) -> Result<Self> {
        if !(1..=MAX_LEVEL).contains(&level) {
            return Err(unfit("tree page", "a directory has too many levels of pages"));
        }
        Ok(InteriorBuilder {
            level,
            children: Vec::new(),
            number: 0,
            first_name: Vec::new(),
            last_name: Vec::new(),
            direct: 0,
            totals: Totals::default(),
        })
    }

    /// Its level.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// How many children it has.
    pub fn children(&self) -> u64 {
        self.number
    }

    /// Whether it has no children.
    pub fn is_empty(&self) -> bool {
        self.number == 0
    }

    /// Length of the page in bytes if it was finished now.
    pub fn encoded_len(&self) -> usize {
        1 + varint_len(self.number) + self.children.len()
    }

    /// Whether the page would become longer than 65,536 bytes with this child.
    pub fn would_exceed(&self, child: &Child) -> bool {
        let totals = &child.totals;
        let numbers = [child.direct, totals.entries, totals.files, totals.bytes, totals.linked, totals.attributed];
        let len = 1 + child.first_name.len() + 32 + numbers.into_iter().map(varint_len).sum::<usize>();
        1 + varint_len(self.number + 1) + self.children.len() + len > MAX_PAGE
    }

    /// Appends a child, whose first name must come behind that of the one before. Fails, without a change, if the page would
    /// become too long or the format cannot hold it.
    pub fn push(&mut self, child: &Child) -> Result<()> {
        child.check().map_err(|why| unfit("tree page", why))?;
        if !self.is_empty() && self.last_name >= child.first_name {
            return Err(unfit("tree page", "the children are not in order"));
        }
        if self.would_exceed(child) {
            return Err(unfit("tree page", "it would be too long"));
        }
        let Some(totals) = self.totals.checked_add(&child.totals) else {
            return Err(unfit("tree page", "the totals are larger than any can be"));
        };
        self.children.put_short(&child.first_name);
        self.children.extend_from_slice(&child.page.0);
        self.children.put_varint(child.direct);
        put_totals(&mut self.children, &child.totals);
        self.totals = totals;
        // At most `totals.entries`, which has been checked.
        self.direct += child.direct;
        self.last_name.clone_from(&child.first_name);
        if self.number == 0 {
            self.first_name.clone_from(&child.first_name);
        }
        self.number += 1;
        Ok(())
    }

    /// The page of the children so far. The builder is empty afterwards. Without children the page is not valid.
    pub fn finish(&mut self) -> BuiltPage {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.put_u8(self.level);
        bytes.put_varint(self.number);
        bytes.append(&mut self.children);
        self.number = 0;
        self.last_name.clear();
        BuiltPage {
            bytes,
            first_name: std::mem::take(&mut self.first_name),
            direct: std::mem::take(&mut self.direct),
            totals: std::mem::take(&mut self.totals),
        }
    }
}
