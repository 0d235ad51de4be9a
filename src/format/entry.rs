//! Entries and extents ⇄ bytes. Not for: the page they stand in and its tables of owners and attribute sets (see `page`).

use crate::error::Result;
use crate::format::bounds::{MAX_CHUNK, MAX_EXTENTS, MAX_INLINE, MAX_NAME, MAX_TARGET};
use crate::format::bytes::{Put, Reader, unfit};
use crate::format::tree::*;
use crate::id::ChunkId;

/// What is wrong with a value, as half a sentence.
pub(crate) type Check = std::result::Result<(), &'static str>;

mod flag {
    pub(super) const ATTRIBUTES: u64 = 1;
    pub(super) const LINK: u64 = 2;
    pub(super) const BIRTH: u64 = 4;
    pub(super) const WAYPOINT: u64 = 8;
    pub(super) const BLOCKS: u64 = 16;
    pub(super) const UNRELIABLE: u64 = 32;
    pub(super) const FILE_FLAGS: u64 = 64;
    pub(super) const ALL: u64 = 127;
}

/// The least length of an encoded entry: a fifo with a name of one byte.
pub(crate) const ENTRY_LEAST: usize = 8;

/// Whether `name` can be the name of an entry.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| *byte == 0 || *byte == b'/')
}

/// Lengths are at least 1, chunks at most 8 MiB, two holes never touch. Gives the sum of the lengths.
pub(crate) fn check_extents(extents: &[Extent]) -> std::result::Result<u64, &'static str> {
    let mut sum = 0u64;
    let mut after_hole = false;
    for extent in extents {
        match extent {
            Extent::Hole(len) => {
                if *len == 0 || after_hole {
                    return Err("a hole is empty or touches another");
                }
                after_hole = true;
            }
            Extent::Chunk { len, .. } => {
                if *len == 0 || *len as usize > MAX_CHUNK {
                    return Err("a chunk is empty or too long");
                }
                after_hole = false;
            }
        }
        sum = sum.checked_add(extent.len()).ok_or("the extents are longer than any file")?;
    }
    Ok(sum)
}

fn check_content(size: u64, content: &Content) -> Check {
    match content {
        Content::Inline(bytes) => {
            if bytes.is_empty() || bytes.len() > MAX_INLINE || bytes.len() as u64 != size {
                return Err("the content in the entry has a wrong length");
            }
        }
        Content::Extents(extents) => {
            if extents.len() > MAX_EXTENTS {
                return Err("too many extents are in the entry");
            }
            if check_extents(extents)? != size {
                return Err("the extents are not as long as the file");
            }
        }
        Content::List(_) => {
            if size <= MAX_EXTENTS as u64 {
                return Err("a file with a list is too short for one");
            }
        }
    }
    Ok(())
}

fn check_time(time: &Timestamp) -> Check {
    if time.nanos >= 1_000_000_000 { Err("a time has too many nanoseconds") } else { Ok(()) }
}

/// All rules for an entry but those of its owner and attribute set. The decoder uses the same ones.
pub(crate) fn check_entry(entry: &Entry) -> Check {
    let meta = &entry.meta;
    if !is_name(&entry.name) {
        return Err("a name is not one");
    }
    if meta.mode > 0o7777 {
        return Err("the mode has more than permission bits");
    }
    check_time(&meta.mtime)?;
    if let Some(time) = &meta.btime {
        check_time(time)?;
    }
    if meta.link.is_some_and(|link| link.group == 0 || link.links == 0) {
        return Err("a group of hard links is none");
    }
    if meta.link.is_some() && matches!(entry.body, Body::Directory { .. }) {
        return Err("a directory has a hard link");
    }
    if meta.waypoint && !matches!(entry.body, Body::Directory { .. }) {
        return Err("only directories are way-points");
    }
    match &entry.body {
        Body::File { size, content } => check_content(*size, content),
        Body::Symlink(target) if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) => {
            Err("the target of a symbolic link is not one")
        }
        _ => Ok(()),
    }
}

fn kind_number(body: &Body) -> u8 {
    match body {
        Body::File { .. } => 1,
        Body::Directory { .. } => 2,
        Body::Symlink(_) => 3,
        Body::Fifo => 4,
        Body::CharDevice { .. } => 5,
        Body::BlockDevice { .. } => 6,
        Body::Socket => 7,
    }
}

pub(crate) fn put_totals(out: &mut Vec<u8>, totals: &Totals) {
    for value in [totals.entries, totals.files, totals.bytes, totals.linked, totals.attributed] {
        out.put_varint(value);
    }
}

pub(crate) fn read_totals(reader: &mut Reader) -> Result<Totals> {
    Ok(Totals {
        entries: reader.varint()?,
        files: reader.varint()?,
        bytes: reader.varint()?,
        linked: reader.varint()?,
        attributed: reader.varint()?,
    })
}

pub(crate) fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Hole(len) => {
            out.put_u8(0);
            out.put_varint(*len);
        }
        Extent::Chunk { id, len } => {
            out.put_u8(1);
            out.put_varint(u64::from(*len));
            out.extend_from_slice(&id.0);
        }
    }
}

pub(crate) fn read_extent(reader: &mut Reader) -> Result<Extent> {
    match reader.u8()? {
        0 => Ok(Extent::Hole(reader.varint()?)),
        1 => {
            let len = reader.varint_u32()?;
            Ok(Extent::Chunk { len, id: ChunkId(reader.array()?) })
        }
        _ => Err(reader.damaged("the kind of an extent is unknown")),
    }
}

fn put_time(out: &mut Vec<u8>, time: &Timestamp) {
    out.put_svarint(time.seconds);
    out.put_varint(u64::from(time.nanos));
}

fn read_time(reader: &mut Reader) -> Result<Timestamp> {
    Ok(Timestamp { seconds: reader.svarint()?, nanos: reader.varint_u32()? })
}

/// Appends an entry whose owner and attribute set have these numbers in the page. Fails, before anything is appended, if the
/// format cannot hold it.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry, owner: u64, attributes: Option<u64>) -> Result<()> {
    check_entry(entry)
        .map_err(|why| unfit("entry", why).context(format!("\"{}\" cannot be recorded", entry.name.escape_ascii())))?;
    let meta = &entry.meta;
    out.put_short(&entry.name);
    out.put_u8(kind_number(&entry.body));
    let mut flags = 0;
    for (set, flag) in [
        (attributes.is_some(), flag::ATTRIBUTES),
        (meta.link.is_some(), flag::LINK),
        (meta.btime.is_some(), flag::BIRTH),
        (meta.waypoint, flag::WAYPOINT),
        (meta.blocks.is_some(), flag::BLOCKS),
        (meta.unreliable, flag::UNRELIABLE),
        (meta.flags != 0, flag::FILE_FLAGS),
    ] {
        if set {
            flags |= flag;
        }
    }
    out.put_varint(flags);
    out.put_varint(u64::from(meta.mode));
    out.put_varint(owner);
    put_time(out, &meta.mtime);
    if let Some(time) = &meta.btime {
        put_time(out, time);
    }
    if let Some(number) = attributes {
        out.put_varint(number);
    }
    if let Some(link) = &meta.link {
        out.put_u64(link.group);
        out.put_varint(u64::from(link.links));
    }
    if let Some(blocks) = meta.blocks {
        out.put_varint(blocks);
    }
    if meta.flags != 0 {
        out.put_varint(u64::from(meta.flags));
    }
    put_body(out, &entry.body);
    Ok(())
}

fn put_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::File { size, content } => {
            out.put_varint(*size);
            match content {
                Content::Inline(bytes) => {
                    out.put_u8(0);
                    out.extend_from_slice(bytes);
                }
                Content::Extents(extents) => {
                    out.put_u8(1);
                    out.put_varint(extents.len() as u64);
                    for extent in extents {
                        put_extent(out, extent);
                    }
                }
                Content::List(page) => {
                    out.put_u8(2);
                    out.extend_from_slice(&page.0);
                }
            }
        }
        Body::Directory { size, page, totals } => {
            out.put_varint(*size);
            out.extend_from_slice(&page.0);
            put_totals(out, totals);
        }
        Body::Symlink(target) => {
            out.put_varint(target.len() as u64);
            out.extend_from_slice(target);
        }
        Body::CharDevice { major, minor } | Body::BlockDevice { major, minor } => {
            out.put_varint(u64::from(*major));
            out.put_varint(u64::from(*minor));
        }
        Body::Fifo | Body::Socket => {}
    }
}

/// Reads an entry; `owner` and `attributes` give what stands in the page's tables under a number.
#[inline]
pub(crate) fn read_entry<'a, O, A>(reader: &mut Reader<'a>, mut owner: O, mut attributes: A) -> Result<Entry>
where
    O: FnMut(&Reader<'a>, u64) -> Result<std::sync::Arc<Owner>>,
    A: FnMut(&Reader<'a>, u64) -> Result<std::sync::Arc<Attributes>>,
{
    let start = reader.offset();
    let name = reader.short()?.to_vec();
    let kind = reader.u8()?;
    let flags = reader.varint()?;
    if flags & !flag::ALL != 0 {
        return Err(reader.damaged("an entry has unknown flags"));
    }
    let has = |flag| flags & flag != 0;
    let mode = reader.varint_to(0o7777)? as u16;
    let number = reader.varint()?;
    let meta = Metadata {
        mode,
        owner: owner(reader, number)?,
        mtime: read_time(reader)?,
        btime: if has(flag::BIRTH) { Some(read_time(reader)?) } else { None },
        attributes: if has(flag::ATTRIBUTES) {
            let number = reader.varint()?;
            Some(attributes(reader, number)?)
        } else {
            None
        },
        link: if has(flag::LINK) { Some(HardLink { group: reader.u64()?, links: reader.varint_u32()? }) } else { None },
        blocks: if has(flag::BLOCKS) { Some(reader.varint()?) } else { None },
        flags: if has(flag::FILE_FLAGS) { reader.varint_u32()? } else { 0 },
        waypoint: has(flag::WAYPOINT),
        unreliable: has(flag::UNRELIABLE),
    };
    if has(flag::FILE_FLAGS) && meta.flags == 0 {
        return Err(reader.damaged("an entry announces file flags and has none"));
    }
    let entry = Entry { name, meta, body: read_body(reader, kind)? };
    check_entry(&entry).map_err(|why| reader.damaged_at(start, why))?;
    Ok(entry)
}

fn read_body(reader: &mut Reader, kind: u8) -> Result<Body> {
    Ok(match kind {
        1 => {
            let size = reader.varint()?;
            let content = match reader.u8()? {
                0 if size <= MAX_INLINE as u64 => Content::Inline(reader.bytes(size as usize)?.to_vec()),
                1 => {
                    let number = reader.varint_to(MAX_EXTENTS as u64)?;
                    let number = reader.count(number, 2)?;
                    let mut extents = Vec::with_capacity(number);
                    for _ in 0..number {
                        extents.push(read_extent(reader)?);
                    }
                    Content::Extents(extents)
                }
                2 => Content::List(ChunkId(reader.array()?)),
                _ => return Err(reader.damaged("the content of a file is of no known kind")),
            };
            Body::File { size, content }
        }
        2 => {
            let size = reader.varint()?;
            Body::Directory { size, page: ChunkId(reader.array()?), totals: read_totals(reader)? }
        }
        3 => {
            let len = reader.varint_to(MAX_TARGET as u64)?;
            Body::Symlink(reader.bytes(len as usize)?.to_vec())
        }
        4 => Body::Fifo,
        5 => Body::CharDevice { major: reader.varint_u32()?, minor: reader.varint_u32()? },
        6 => Body::BlockDevice { major: reader.varint_u32()?, minor: reader.varint_u32()? },
        7 => Body::Socket,
        _ => return Err(reader.damaged("the type of an entry is unknown")),
    })
}

#[cfg(test)]
#[path = "entry_tests.rs"]
pub(crate) mod tests;
