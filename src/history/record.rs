//! What the catalog says of the names in a directory ⇄ bytes. Not for: which record a name is in (see `shelf`).

use crate::error::Result;
use crate::format::bytes::{Put, Reader};
use crate::format::tree::{Attributes, Body, Content, Entry, Extent, Timestamp};
use std::collections::BTreeMap;

/// `Version::last` of what is still there in the newest snapshot of its line.
pub const STILL: u32 = u32::MAX;

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
}

const KINDS: [Kind; 7] =
    [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::CharDevice, Kind::BlockDevice, Kind::Socket];

/// What an entry was, as far as the catalog tells one version from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// What kind of thing.
    pub kind: Kind,
    /// Bytes of a file, of all files below a directory, of a link's target.
    pub size: u64,
    /// Last modification.
    pub mtime: Timestamp,
    /// Stands for what it holds; of a directory, for everything below it.
    pub body: [u8; 8],
    /// Stands for mode, owner, attributes and the like.
    pub meta: [u8; 8],
}

/// A run of snapshots of a line in which an entry stayed the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The first of them, counted from the line's beginning.
    pub first: u32,
    /// The last of them, or `STILL`.
    pub last: u32,
    /// What it was.
    pub state: State,
}

/// Names and their versions, the oldest first.
pub type Names = BTreeMap<Vec<u8>, Vec<Version>>;

impl State {
    /// That of a recorded entry.
    pub fn of(entry: &Entry) -> State {
        let mut body = blake3::Hasher::new();
        let (kind, size) = match &entry.body {
            Body::File { size, content } => {
                hash_content(&mut body, content);
                (Kind::File, *size)
            }
            Body::Directory { page, totals, .. } => {
                body.update(&page.0);
                (Kind::Directory, totals.bytes)
            }
            Body::Symlink(target) => {
                body.update(target);
                (Kind::Symlink, target.len() as u64)
            }
            Body::Fifo => (Kind::Fifo, 0),
            Body::CharDevice { major, minor } => {
                body.update(&major.to_le_bytes()).update(&minor.to_le_bytes());
                (Kind::CharDevice, 0)
            }
            Body::BlockDevice { major, minor } => {
                body.update(&major.to_le_bytes()).update(&minor.to_le_bytes());
                (Kind::BlockDevice, 0)
            }
            Body::Socket => (Kind::Socket, 0),
        };
        State { kind, size, mtime: entry.meta.mtime, body: short(&body), meta: hash_metadata(entry) }
    }
}

fn short(hasher: &blake3::Hasher) -> [u8; 8] {
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn hash_content(hasher: &mut blake3::Hasher, content: &Content) {
    match content {
        Content::Inline(bytes) => drop(hasher.update(b"i").update(bytes)),
        Content::List(id) => drop(hasher.update(b"l").update(&id.0)),
        Content::Extents(extents) => {
            for extent in extents {
                match extent {
                    Extent::Hole(len) => drop(hasher.update(b"h").update(&len.to_le_bytes())),
                    Extent::Chunk { id, .. } => drop(hasher.update(b"c").update(&id.0)),
                }
            }
        }
    }
}

/// All that a change of which is one of the entry, but time and content.
fn hash_metadata(entry: &Entry) -> [u8; 8] {
    let meta = &entry.meta;
    let mut fixed = Vec::with_capacity(64);
    fixed.put_u16(meta.mode);
    fixed.put_u32(meta.owner.uid);
    fixed.put_u32(meta.owner.gid);
    fixed.put_short(&meta.owner.user);
    fixed.put_short(&meta.owner.group);
    fixed.put_u32(meta.flags);
    fixed.put_u32(meta.link.map_or(0, |link| link.links));
    fixed.put_u8(u8::from(meta.waypoint) | u8::from(meta.unreliable) << 1);
    if let Some(born) = meta.btime {
        fixed.put_svarint(born.seconds);
        fixed.put_u32(born.nanos);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fixed);
    match meta.attributes.as_deref() {
        None => {}
        Some(Attributes::Chunk(id, _)) => drop(hasher.update(b"chunk").update(&id.0)),
        Some(Attributes::Inline(set)) => {
            for (name, value) in &set.0 {
                for part in [name, value] {
                    hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
                }
            }
        }
    }
    short(&hasher)
}

/// Appends a name and its versions.
pub fn encode_name(out: &mut Vec<u8>, name: &[u8], versions: &[Version]) {
    out.put_short(name);
    out.put_varint(versions.len() as u64);
    for version in versions {
        out.put_varint(u64::from(version.first));
        out.put_varint(if version.last == STILL { 0 } else { u64::from(version.last - version.first) + 1 });
        let State { kind, size, mtime, body, meta } = &version.state;
        out.put_u8(*kind as u8);
        out.put_varint(*size);
        out.put_svarint(mtime.seconds);
        out.put_varint(u64::from(mtime.nanos));
        out.extend_from_slice(body);
        out.extend_from_slice(meta);
    }
}

/// Least bytes of a version.
const LEAST: usize = 2 + 1 + 3 + 16;

/// All names up to the end of the record.
pub fn decode_names(reader: &mut Reader<'_>) -> Result<Names> {
    let mut names = Names::new();
    while reader.remaining() > 0 {
        let name = reader.short()?.to_vec();
        let count = reader.varint()?;
        let count = reader.count(count, LEAST)?;
        let mut versions: Vec<Version> = Vec::with_capacity(count);
        for _ in 0..count {
            let version = decode_version(reader)?;
            if versions.last().is_some_and(|before| before.last >= version.first) {
                return Err(reader.damaged("versions overlap"));
            }
            versions.push(version);
        }
        names.insert(name, versions);
    }
    Ok(names)
}

fn decode_version(reader: &mut Reader<'_>) -> Result<Version> {
    let first = reader.varint_to(u64::from(STILL - 1))? as u32;
    let last = match reader.varint_to(u64::from(STILL - first))? as u32 {
        0 => STILL,
        length => first + (length - 1),
    };
    let kind = *KINDS.get(usize::from(reader.u8()?)).ok_or_else(|| reader.damaged("a kind is not one"))?;
    let size = reader.varint()?;
    let mtime = Timestamp { seconds: reader.svarint()?, nanos: reader.varint_u32()? };
    let state = State { kind, size, mtime, body: reader.array()?, meta: reader.array()? };
    Ok(Version { first, last, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_any_change_is_survived() {
        let state = |n: u8| State {
            kind: KINDS[usize::from(n) % KINDS.len()],
            size: u64::MAX >> n,
            mtime: Timestamp { seconds: -i64::from(n), nanos: 999_999_999 },
            body: [n; 8],
            meta: [n + 1; 8],
        };
        let mut names = Names::new();
        for n in 0..9u8 {
            let versions = (0..u32::from(n)).map(|at| Version { first: at * 3, last: at * 3 + 1, state: state(n) });
            names.insert(vec![n, b'x'], versions.collect());
        }
        names.insert(b"still".to_vec(), vec![Version { first: STILL - 1, last: STILL, state: state(1) }]);
        let mut bytes = Vec::new();
        names.iter().for_each(|(name, versions)| encode_name(&mut bytes, name, versions));
        let decode = |bytes: &[u8]| decode_names(&mut Reader::new("test", bytes));
        assert_eq!(decode(&bytes).unwrap(), names);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x55;
            // What counts is that it neither panics nor takes memory; the database's checksum finds the change.
            drop(decode(&other));
            assert!(decode(&bytes[..at]).map_or(true, |fewer| fewer.len() < names.len()));
        }
    }
}
