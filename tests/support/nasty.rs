//! Builds a tree with everything that backups stumble over, and changes trees at random. Not for: comparing them.

use super::compare::{path_of, set_mtime};
use rustix::fs::{AtFlags, CWD, Dev, FileType, Gid, Mode, Uid, XattrFlags, makedev};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Random numbers that are the same for the same seed (Steele and others' SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// That many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn write(path: PathBuf, bytes: &[u8]) {
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mknod(path: &Path, kind: FileType, device: Dev) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

fn link(old: &Path, new: &Path) {
    rustix::fs::linkat(CWD, old, CWD, new, AtFlags::empty()).unwrap();
}

fn set(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
}

/// Makes the tree in `dir`, an empty directory. As the administrator there is more in it: devices, owners, attributes
/// of all name spaces. Content is the same each time.
pub(crate) fn build(dir: &Path) {
    let make = |name: &str| {
        fs::create_dir(dir.join(name)).unwrap();
        dir.join(name)
    };
    contents(&make("contents"));
    sparse(&make("sparse"));
    names(&make("names"));
    links(&make("links"));
    special(&make("special"));
    modes(&make("modes"));
    attributes(&make("attributes"));
    owners(&make("owners"));
    large(&make("large"));
    make("empty");
    let keys = make(".ssh");
    write(keys.join("id_ed25519"), b"-----BEGIN OPENSSH PRIVATE KEY-----\nnot one\n");
    write(keys.join("config"), b"Host *\n");
    for name in ["id_ed25519", "config"] {
        chmod(&keys.join(name), 0o600);
    }
    chmod(&keys, 0o700);
    // Last, as making entries changes the times of directories.
    times(&make("times"));
    set_mtime(&dir.join("empty"), 1, 1);
    set_mtime(&keys, 1_234_567_890, 123_456_789);
    set_mtime(dir, 1_600_000_000, 987_654_321);
}

fn contents(dir: &Path) {
    let mut random = Random(1);
    for len in [0, 1, 127, 128, 129, 4095, 4096, 4097, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 512 << 10, 5 << 20]
    {
        write(dir.join(format!("random-{len}")), &random.bytes(len));
    }
    write(dir.join("zeros"), &vec![0; 3 << 20]);
    write(dir.join("zeros-1"), &[0]);
    write(dir.join("text"), "All work and no play makes Jack a dull boy.\n".repeat(20_000).as_bytes());
    let block = random.bytes(1 << 20);
    write(dir.join("twin-1"), &block);
    write(dir.join("twin-2"), &block);
    write(dir.join("twice"), &[&block[..], &block].concat());
    write(dir.join("shifted"), &[b"x", &block[..]].concat());
}

fn sparse(dir: &Path) {
    const K: u64 = 65_536;
    let make = |name: &str, size: u64, data: &[(u64, u64)]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(size).unwrap();
        for &(offset, len) in data {
            file.write_all_at(&Random(offset).bytes(len as usize), offset).unwrap();
        }
        // Else space is reserved later and holes are not yet where they will be.
        file.sync_all().unwrap();
    };
    make("leading", 4 * K, &[(3 * K, K)]);
    make("middle", 5 * K, &[(0, K), (4 * K, K)]);
    make("trailing", 9 * K, &[(0, 2 * K)]);
    make("odd", 3 * K + 77, &[(0, 10), (2 * K, K + 77)]);
    make("only-hole", K, &[]);
    make("tiny-hole", 100, &[]);
    make("gigabyte", 1 << 30, &[(512 << 20, K)]);
    make("comb", 80 * K, &(0..40).map(|tooth| (2 * tooth * K, K)).collect::<Vec<_>>());
    // Zeros that were written are not a hole.
    write(dir.join("written-zeros"), &vec![0; 4 * K as usize]);
    File::open(dir.join("written-zeros")).unwrap().sync_all().unwrap();
}

fn names(dir: &Path) {
    let long = [b'n'; 255];
    let list: [&[u8]; 22] = [
        b"\xff\xfe\x80",
        b"new\nline",
        b"\n",
        b"tab\t",
        b"back\\slash",
        b"\\x41",
        b"-rf",
        b"--help",
        b"'",
        b"\"quotes\"",
        b" ",
        b" around ",
        b"*",
        b"$HOME",
        b"~",
        b"...",
        b"\x01\x7f",
        "ä-composed".as_bytes(),
        "a\u{308}-decomposed".as_bytes(),
        "雪".as_bytes(),
        b"CASE",
        b"case",
    ];
    for name in list.into_iter().chain([&long[..], b"a", b"a.b", b"a-b"]) {
        write(dir.join(path_of(name)), name);
    }
    for name in [&b"dir\xc3"[..], b"dir\nline", &[0xe9; 255]] {
        fs::create_dir(dir.join(path_of(name))).unwrap();
        write(dir.join(path_of(name)).join("in"), b"x");
    }
}

fn links(dir: &Path) {
    for (name, target) in [
        ("dangling", b"nowhere".to_vec()),
        ("absolute", b"/etc/passwd".to_vec()),
        ("upwards", b"../contents/text".to_vec()),
        ("directory", b"../contents".to_vec()),
        ("loop", b"loop".to_vec()),
        ("ping", b"pong".to_vec()),
        ("pong", b"ping".to_vec()),
        ("odd", b"\xff\n\\".to_vec()),
        ("dot", b".".to_vec()),
        ("longest", b"./".repeat(2047).into_iter().chain(*b"x").collect()),
    ] {
        symlink(path_of(&target), dir.join(name)).unwrap();
    }
    for name in ["one", "two/deeper"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    write(dir.join("one/a"), &Random(9).bytes(200_000));
    link(&dir.join("one/a"), &dir.join("two/deeper/b"));
    link(&dir.join("one/a"), &dir.join("c"));
    write(dir.join("one/empty"), b"");
    link(&dir.join("one/empty"), &dir.join("two/empty"));
    link(&dir.join("dangling"), &dir.join("two/linked-link"));
    mknod(&dir.join("one/pipe"), FileType::Fifo, 0);
    link(&dir.join("one/pipe"), &dir.join("two/pipe"));
    // Same bytes, but two files.
    write(dir.join("alike"), &Random(9).bytes(200_000));
}

fn special(dir: &Path) {
    mknod(&dir.join("fifo"), FileType::Fifo, 0);
    mknod(&dir.join("socket"), FileType::Socket, 0);
    if is_root() {
        mknod(&dir.join("null"), FileType::CharacterDevice, makedev(1, 3));
        mknod(&dir.join("large-numbers"), FileType::CharacterDevice, makedev(4095, 1_048_575));
        mknod(&dir.join("loop7"), FileType::BlockDevice, makedev(7, 7));
    }
}

fn modes(dir: &Path) {
    for mode in [0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777] {
        let path = dir.join(format!("{mode:04o}"));
        write(path.clone(), b"x");
        chmod(&path, mode);
        let path = dir.join(format!("dir-{mode:04o}"));
        fs::create_dir(&path).unwrap();
        chmod(&path, mode | 0o700);
    }
    // Only the administrator can read these.
    if is_root() {
        write(dir.join("0000"), b"locked");
        chmod(&dir.join("0000"), 0);
        fs::create_dir(dir.join("dir-0000")).unwrap();
        write(dir.join("dir-0000/in"), b"x");
        chmod(&dir.join("dir-0000"), 0);
    }
}

/// An access control list in the kernel's form: a named user may read.
pub(crate) fn acl(user: u32) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, user), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn attributes(dir: &Path) {
    for name in ["small", "many", "medium", "huge", "acl", "capability"] {
        write(dir.join(name), b"x");
    }
    fs::create_dir(dir.join("folder")).unwrap();
    symlink("small", dir.join("link")).unwrap();
    assert!(set(&dir.join("small"), "user.comment", b"\x00\xff binary"), "the file system keeps attributes");
    set(&dir.join("small"), "user.empty", b"");
    for number in 0..20 {
        set(&dir.join("many"), &format!("user.number-{number}"), &[b'v'; 30]);
    }
    set(&dir.join("medium"), "user.medium", &Random(3).bytes(2000));
    // ext4 keeps no more than a block; tmpfs and xfs keep this.
    set(&dir.join("huge"), "user.huge", &Random(4).bytes(60 << 10));
    set(&dir.join("folder"), "user.on-a-folder", b"yes");
    set(&dir.join("folder"), "system.posix_acl_default", &acl(1234));
    set(&dir.join("folder"), "system.posix_acl_access", &acl(4321));
    set(&dir.join("acl"), "system.posix_acl_access", &acl(65_533));
    if is_root() {
        set(&dir.join("link"), "trusted.on-a-link", b"yes");
        set(&dir.join("small"), "trusted.t", b"t");
        // Version 2: permitted is CAP_NET_BIND_SERVICE, effective.
        let capability: Vec<u8> =
            [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        set(&dir.join("capability"), "security.capability", &capability);
    }
}

fn owners(dir: &Path) {
    for number in 0..30_u32 {
        let path = dir.join(format!("file-{number}"));
        write(path.clone(), b"x");
        if is_root() {
            lchown(&path, Some(number * 1000), Some(number * 77)).unwrap();
        }
    }
    symlink("file-0", dir.join("link")).unwrap();
    if is_root() {
        lchown(dir.join("link"), Some(4_000_000_000), Some(5)).unwrap();
        let (uid, gid) = (Uid::from_raw(12), Gid::from_raw(34));
        rustix::fs::chownat(CWD, dir, Some(uid), Some(gid), AtFlags::empty()).unwrap();
    }
}

fn large(dir: &Path) {
    fs::create_dir(dir.join("many")).unwrap();
    for number in 0..3000 {
        write(dir.join(format!("many/{number:x}")), &Random(number).bytes(number as usize % 300));
    }
    let mut deep = dir.to_path_buf();
    for level in 0..300 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
        if level % 50 == 0 {
            write(deep.join("file"), format!("level {level}").as_bytes());
        }
    }
    write(deep.join("bottom"), b"x");
}

fn times(dir: &Path) {
    symlink("x", dir.join("link")).unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    for (name, seconds, nanos) in [
        ("epoch", 0, 0),
        ("just-before", -1, 999_999_999),
        ("1953", -536_457_599, 1),
        ("2040", 2_208_988_800, 500),
        ("2300", 10_413_792_000, 999_999_999),
        ("link", 1_111_111_111, 111_111_111),
        ("folder", -86_400, 222_222_222),
    ] {
        if name != "link" && name != "folder" {
            write(dir.join(name), name.as_bytes());
        }
        set_mtime(&dir.join(name), seconds, nanos);
    }
}

/// Changes one to ten things in a tree, the same for the same tree and seed; says what it did. Names a change, at least.
pub(crate) fn change(dir: &Path, seed: u64) -> Vec<String> {
    let mut random = Random(seed);
    let wanted = 1 + random.below(10);
    let mut said = Vec::new();
    for _ in 0..wanted * 20 {
        if said.len() == wanted {
            break;
        }
        let mut all = Vec::new();
        gather(dir, &mut all);
        all.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        let path = if all.is_empty() { dir.to_path_buf() } else { all[random.below(all.len())].clone() };
        if let Some(what) = change_one(dir, &path, &mut random) {
            said.push(format!("{what} \"{}\"", path.as_os_str().as_bytes().escape_ascii()));
        }
    }
    said
}

fn gather(dir: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.map_while(Result::ok) {
        all.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            gather(&entry.path(), all);
        }
    }
}

// `None`: this kind of change is not possible for `path`.
fn change_one(top: &Path, path: &Path, random: &mut Random) -> Option<&'static str> {
    let meta = path.symlink_metadata().ok()?;
    let folder = if meta.is_dir() { path } else { path.parent()? };
    let fresh = format!("new-{:08x}", random.next() as u32);
    match random.below(9) {
        0 if meta.is_file() && meta.size() > 0 => {
            let file = File::options().read(true).write(true).open(path).ok()?;
            let mut byte = [0];
            let at = random.next() % meta.size();
            file.read_exact_at(&mut byte, at).ok()?;
            file.write_all_at(&[byte[0] ^ 0x55], at).ok()?;
            Some("modify")
        }
        1 if meta.is_file() => {
            let size = meta.size() + 1 + random.next() % 100_000;
            File::options().write(true).open(path).ok()?.set_len(size).ok()?;
            Some("extend")
        }
        2 if path != top => {
            if meta.is_dir() {
                fs::remove_dir_all(path).ok()?
            } else {
                fs::remove_file(path).ok()?
            }
            Some("delete")
        }
        3 => {
            let len = random.below(300_000);
            fs::write(folder.join(fresh), random.bytes(len)).ok()?;
            Some("add in the folder of")
        }
        4 if path != top => {
            fs::rename(path, path.with_file_name(fresh)).ok()?;
            Some("rename")
        }
        5 if !meta.is_symlink() => {
            // Never without the owner's rights on folders: the next change may be in there.
            let keep = if meta.is_dir() { 0o700 } else { 0 };
            let mode = (meta.mode() & 0o7777) ^ [0o001, 0o020, 0o040][random.below(3)] | keep;
            fs::set_permissions(path, Permissions::from_mode(mode)).ok()?;
            Some("chmod")
        }
        6 => {
            set_mtime(path, (random.next() % 2_000_000_000) as i64, (random.next() % 1_000_000_000) as i64);
            Some("touch")
        }
        7 if path != top => {
            if meta.is_dir() {
                fs::remove_dir_all(path).ok()?
            } else {
                fs::remove_file(path).ok()?
            }
            match meta.is_dir() {
                true => fs::write(path, random.bytes(99)).ok()?,
                false if meta.is_symlink() => fs::create_dir(path).ok()?,
                false => symlink("replaced", path).ok()?,
            }
            Some("replace")
        }
        8 => {
            symlink(&fresh, folder.join(&fresh)).ok()?;
            Some("link in the folder of")
        }
        _ => None,
    }
}
