//! What a tree holds, as lines of text: from a folder on disk, and from a snapshot through the library. Not for: what only one of
//! both knows (birth times, blocks), or sockets, which no backup keeps.
//!
//! Fields, with a tab between them: path, type (`f d l p c b`), mode, uid, gid, mtime in nanoseconds, size, content (BLAKE3; for
//! files above 64 MiB of their non-zero blocks and the offsets of these), target or device, attributes, group of hard links
//! (counted from 1 in the order of paths). A dash stands for what there is not.

use crate::support::compare::{path_of, runs};
use firn::format::message::ChunkKind;
use firn::format::tree::{Body, Content, Entry, Extent};
use firn::repository::Repository;
use firn::view;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Files above this length are mostly holes; reading these would take long.
const SPARSE_FROM: u64 = 64 << 20;
const BLOCK: usize = 4096;

/// The line of each path.
pub(crate) type Manifest = BTreeMap<Vec<u8>, Line>;

/// Everything about a path. Empty is what there is not.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Line {
    /// One letter.
    pub(crate) kind: char,
    /// Permission bits, octal.
    pub(crate) mode: String,
    /// Number of the user.
    pub(crate) uid: u32,
    /// Number of the group.
    pub(crate) gid: u32,
    mtime: i128,
    size: String,
    content: String,
    target: String,
    attributes: String,
    link: String,
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0x21..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                rest = after;
            }
            (b'\\', [b'x', a, b, after @ ..]) => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&[*a, *b]).unwrap(), 16).unwrap());
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// The manifest as text.
pub(crate) fn format(manifest: &Manifest) -> String {
    let dash = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
    let mut out = String::new();
    for (path, line) in manifest {
        let fields = [
            escape(path),
            line.kind.to_string(),
            line.mode.clone(),
            line.uid.to_string(),
            line.gid.to_string(),
            line.mtime.to_string(),
            dash(&line.size),
            dash(&line.content),
            dash(&line.target),
            dash(&line.attributes),
            dash(&line.link),
        ];
        out.push_str(&fields.join("\t"));
        out.push('\n');
    }
    out
}

/// Reads lines as `format` writes them.
pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Manifest {
    let dash = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [path, kind, mode, uid, gid, mtime, size, content, target, attributes, link] = fields[..] else {
                panic!("a line with other fields: {line}");
            };
            let line = Line {
                kind: kind.chars().next().unwrap(),
                mode: mode.to_owned(),
                uid: uid.parse().unwrap(),
                gid: gid.parse().unwrap(),
                mtime: mtime.parse().unwrap(),
                size: dash(size),
                content: dash(content),
                target: dash(target),
                attributes: dash(attributes),
                link: dash(link),
            };
            (unescape(path), line)
        })
        .collect()
}

/// What differs, a line each; for tests that must say what is wrong.
pub(crate) fn differences(expected: &Manifest, found: &Manifest) -> Vec<String> {
    let mut out = Vec::new();
    for (path, line) in expected {
        match found.get(path) {
            None => out.push(format!("{} is missing", escape(path))),
            Some(other) if other != line => out.push(format!("{}: {line:?} expected, found {other:?}", escape(path))),
            Some(_) => {}
        }
    }
    out.extend(found.keys().filter(|path| !expected.contains_key(*path)).map(|p| format!("{} is new", escape(p))));
    out
}

/// The same without what only the administrator can restore: owners, devices.
pub(crate) fn as_restored_by_a_user(mut manifest: Manifest) -> Manifest {
    manifest.retain(|_, line| !matches!(line.kind, 'b' | 'c'));
    for line in manifest.values_mut() {
        (line.uid, line.gid) = (0, 0);
    }
    manifest
}

/// Hashes content that comes in runs.
struct Content64 {
    hasher: blake3::Hasher,
    block: Vec<u8>,
    at: u64,
    sparse: bool,
}

impl Content64 {
    fn new(size: u64) -> Self {
        Content64 { hasher: blake3::Hasher::new(), block: Vec::new(), at: 0, sparse: size > SPARSE_FROM }
    }

    fn data(&mut self, data: &[u8]) {
        if !self.sparse {
            self.hasher.update(data);
            return;
        }
        for byte in data {
            self.block.push(*byte);
            if self.block.len() == BLOCK {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if self.block.iter().any(|byte| *byte != 0) {
            self.hasher.update(&self.at.to_le_bytes());
            self.hasher.update(&self.block);
        }
        self.at += self.block.len() as u64;
        self.block.clear();
    }

    fn hole(&mut self, mut len: u64) {
        let zeros = [0; BLOCK];
        while len > 0 {
            if self.sparse && self.block.is_empty() && len >= BLOCK as u64 {
                self.at += len / BLOCK as u64 * BLOCK as u64;
                len %= BLOCK as u64;
                continue;
            }
            let step = len.min((BLOCK - self.block.len()) as u64);
            self.data(&zeros[..step as usize]);
            len -= step;
        }
    }

    fn finish(mut self) -> String {
        self.close();
        self.hasher.finalize().to_hex().to_string()
    }
}

#[derive(Default)]
struct Links<K>(HashMap<K, usize>);

impl<K: std::hash::Hash + Eq> Links<K> {
    /// The groups' numbers as they come; in the end they are numbered anew in the order of paths.
    fn number(&mut self, key: K) -> String {
        let next = self.0.len() + 1;
        self.0.entry(key).or_insert(next).to_string()
    }
}

// A group with one name here (the others were not backed up) is none.
fn number_links(manifest: &mut Manifest) {
    let mut members: HashMap<String, usize> = HashMap::new();
    for line in manifest.values() {
        *members.entry(line.link.clone()).or_default() += 1;
    }
    for line in manifest.values_mut().filter(|line| members[&line.link] == 1) {
        line.link.clear();
    }
    let mut links = Links::default();
    for line in manifest.values_mut().filter(|line| !line.link.is_empty()) {
        line.link = links.number(line.link.clone());
    }
}

fn attributes_text(set: &[(Vec<u8>, Vec<u8>)]) -> String {
    let each = |(name, value): &(Vec<u8>, Vec<u8>)| format!("{}={}", escape(name), blake3::hash(value).to_hex());
    set.iter().map(each).collect::<Vec<_>>().join(",")
}

/// What is in `top` on disk; `top` itself has an empty path.
pub(crate) fn of_folder(top: &Path) -> Manifest {
    let mut manifest = Manifest::new();
    add_path(top, Vec::new(), &mut Links::default(), &mut manifest);
    number_links(&mut manifest);
    manifest
}

fn add_path(path: &Path, name: Vec<u8>, links: &mut Links<(u64, u64)>, out: &mut Manifest) {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let mut line = Line {
        kind: match () {
            () if kind.is_file() => 'f',
            () if kind.is_dir() => 'd',
            () if kind.is_symlink() => 'l',
            () if kind.is_fifo() => 'p',
            () if kind.is_char_device() => 'c',
            () if kind.is_block_device() => 'b',
            () => return,
        },
        mode: format!("{:04o}", meta.mode() & 0o7777),
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        attributes: attributes_text(&attributes_on_disk(path)),
        ..Line::default()
    };
    if meta.nlink() > 1 && !kind.is_dir() {
        line.link = links.number((meta.dev(), meta.ino()));
    }
    match line.kind {
        'f' => {
            line.size = meta.len().to_string();
            let mut content = Content64::new(meta.len());
            // Who is not the administrator needs the right to read, also in own files.
            let locked = meta.mode() & 0o400 == 0;
            if locked {
                fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
            }
            let (file, mut at) = (fs::File::open(path).unwrap(), 0);
            for (start, end) in runs(path).unwrap() {
                content.hole(start - at);
                let mut data = vec![0; (end - start) as usize];
                file.read_exact_at(&mut data, start).unwrap();
                content.data(&data);
                at = end;
            }
            content.hole(meta.len() - at);
            if locked {
                fs::set_permissions(path, meta.permissions()).unwrap();
            }
            line.content = content.finish();
        }
        'l' => line.target = escape(fs::read_link(path).unwrap().as_os_str().as_bytes()),
        'c' | 'b' => line.target = format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())),
        _ => {}
    }
    out.insert(name.clone(), line);
    if kind.is_dir() {
        // Through an open folder, as paths may be longer than the system takes.
        let folder = fs::File::open(path).unwrap();
        let here = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
        for entry in fs::read_dir(&here).unwrap() {
            let child = entry.unwrap().file_name();
            add_path(&here.join(&child), [&name[..], b"/", child.as_bytes()].concat(), links, out);
        }
    }
}

fn attributes_on_disk(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut set = Vec::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(path, path_of(name), &mut value[..]).unwrap();
        set.push((name.to_vec(), value[..len].to_vec()));
    }
    set.sort();
    set
}

/// What is below `path` in a snapshot, and `path` itself with an empty path, as the library reads it.
pub(crate) fn of_snapshot(repository: &Repository, name: &str, path: &[u8]) -> Manifest {
    let snapshots = repository.snapshots().unwrap();
    let named = snapshots.resolve(name, &Default::default()).unwrap();
    let top = view::path::find(repository, &named.snapshot, path).unwrap();
    let mut manifest = Manifest::new();
    add_entry(repository, &top, Vec::new(), &mut Links::default(), &mut manifest);
    number_links(&mut manifest);
    manifest
}

fn add_entry(repository: &Repository, entry: &Entry, name: Vec<u8>, links: &mut Links<u64>, out: &mut Manifest) {
    let meta = &entry.meta;
    let mut line = Line {
        mode: format!("{:04o}", meta.mode),
        uid: meta.owner.uid,
        gid: meta.owner.gid,
        mtime: i128::from(meta.mtime.seconds) * 1_000_000_000 + i128::from(meta.mtime.nanos),
        ..Line::default()
    };
    if let Some(link) = meta.link {
        line.link = links.number(link.group);
    }
    if let Some(attributes) = &meta.attributes {
        line.attributes = attributes_text(&repository.attributes(attributes).unwrap().0);
    }
    let mut below = None;
    match &entry.body {
        Body::File { size, content } => {
            line.kind = 'f';
            line.size = size.to_string();
            line.content = content_of(repository, *size, content);
        }
        Body::Directory { page, .. } => {
            line.kind = 'd';
            below = Some(*page);
        }
        Body::Symlink(target) => {
            line.kind = 'l';
            line.target = escape(target);
        }
        Body::Fifo => line.kind = 'p',
        Body::CharDevice { major, minor } => {
            line.kind = 'c';
            line.target = format!("{major}:{minor}");
        }
        Body::BlockDevice { major, minor } => {
            line.kind = 'b';
            line.target = format!("{major}:{minor}");
        }
        Body::Socket => return,
    }
    out.insert(name.clone(), line);
    for child in below.into_iter().flat_map(|page| repository.entries(page)) {
        let child = child.unwrap();
        add_entry(repository, &child, [&name[..], b"/", &child.name].concat(), links, out);
    }
}

fn content_of(repository: &Repository, size: u64, content: &Content) -> String {
    if size <= SPARSE_FROM {
        let mut bytes = Vec::new();
        view::content::copy(repository, size, content, &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        return blake3::hash(&bytes).to_hex().to_string();
    }
    let mut sum = Content64::new(size);
    for extent in repository.extents(content) {
        match extent.unwrap() {
            Extent::Hole(len) => sum.hole(len),
            Extent::Chunk { id, len } => {
                let chunk = repository.chunk(ChunkKind::Content, &id).unwrap();
                assert_eq!(chunk.len(), len as usize);
                sum.data(&chunk);
            }
        }
    }
    sum.finish()
}
