//! Plain copies of folders, and random changes to folders. Not for: what is made of them (see `world`).

use crate::os::{self, FileTime, FileType};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed ^ 0x9e37_79b9_7f4a_7c15);
        dice.next();
        dice
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to one less than `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    pub(super) fn pick<'t, T>(&mut self, from: &'t [T]) -> Option<&'t T> {
        from.get(self.roll(from.len() as u64) as usize)
    }
}

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    File(Vec<u8>),
    Link(Vec<u8>),
    Folder,
}

/// A file, folder or link, but for what a restore cannot bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) body: Body,
    pub(super) mode: u16,
    /// Only of files: those of folders change with every name in them.
    pub(super) time: Option<FileTime>,
}

impl Plain {
    /// Whether a restore takes one for the other, without looking into them.
    pub(super) fn looks_like(&self, other: &Plain) -> bool {
        let same = match (&self.body, &other.body) {
            (Body::File(one), Body::File(two)) => one.len() == two.len(),
            (one, two) => one == two,
        };
        same && self.time == other.time
    }

    /// For messages.
    pub(super) fn describe(&self) -> String {
        let body = match &self.body {
            Body::File(bytes) => format!("file of {} bytes {}", bytes.len(), &blake3::hash(bytes).to_hex()[..8]),
            Body::Link(to) => format!("link to {}", to.escape_ascii()),
            Body::Folder => "folder".to_owned(),
        };
        let time = self.time.map(|time| format!("{}.{:09}", time.seconds, time.nanos)).unwrap_or_default();
        format!("{body}, mode {:o}, {time}", self.mode)
    }
}

/// A folder by the paths in it ("/a/b"), with the number of the file behind each.
#[derive(Clone, Debug, Default)]
pub(super) struct Copy {
    pub(super) paths: BTreeMap<Vec<u8>, Plain>,
    pub(super) files: BTreeMap<Vec<u8>, u64>,
}

impl Copy {
    /// A folder as it is now.
    pub(super) fn of(folder: &Path) -> Copy {
        let mut copy = Copy::default();
        copy.take(folder, &mut Vec::new());
        copy
    }

    fn take(&mut self, folder: &Path, path: &mut Vec<u8>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(entry.file_name().as_bytes());
            let at = entry.path();
            let stat = os::stat_at(os::CWD, at.as_os_str().as_bytes()).unwrap();
            let body = match stat.kind {
                FileType::File => Body::File(fs::read(&at).unwrap()),
                FileType::Symlink => Body::Link(fs::read_link(&at).unwrap().as_os_str().as_bytes().to_vec()),
                _ => Body::Folder,
            };
            if body == Body::Folder {
                self.take(&at, path);
            } else {
                self.files.insert(path.clone(), stat.ino);
            }
            let mode = if stat.kind == FileType::Symlink { 0o777 } else { stat.mode };
            let time = (stat.kind == FileType::File).then_some(stat.mtime);
            self.paths.insert(path.clone(), Plain { body, mode, time });
            path.truncate(length);
        }
    }
}

/// Which of these paths are the same file, told by the first path of each.
pub(super) fn groups<'p>(files: impl Iterator<Item = (&'p Vec<u8>, u64)>) -> BTreeMap<&'p Vec<u8>, &'p Vec<u8>> {
    let mut first: BTreeMap<u64, &Vec<u8>> = BTreeMap::new();
    files.map(|(path, file)| (path, *first.entry(file).or_insert(path))).collect()
}

/// Bytes that do not compress and differ from seed to seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Lengths around all that is treated in another way: none, in the entry, in a block with others, in one of its own.
const LENGTHS: [usize; 8] = [0, 5, 128, 129, 3000, 3000, 20_000, 140_000];
const FOLDERS: [&str; 6] = ["", "", "d", "d/e", "k", "z"];
const NAMES: [&str; 6] = ["a", "b", "c", "m", "y", "zz"];

/// Changes of the folder that is backed up, and of one beside it where its files may have further names.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) source: PathBuf,
    pub(super) beside: PathBuf,
}

impl Places {
    fn name(&self, dice: &mut Dice) -> PathBuf {
        let (folder, name) = (FOLDERS[dice.roll(6) as usize], NAMES[dice.roll(6) as usize]);
        let folder = self.source.join(folder);
        drop(fs::create_dir_all(&folder));
        folder.join(name)
    }

    /// A file that is there, or a name that none may have.
    fn file(&self, dice: &mut Dice) -> PathBuf {
        let copy = Copy::of(&self.source);
        let files: Vec<_> = copy.files.keys().collect();
        match dice.pick(&files) {
            Some(path) => self.at(path),
            None => self.name(dice),
        }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.source.join(std::ffi::OsStr::from_bytes(&path[1..]))
    }

    /// One change, of files only unless `folders`. What cannot be done is left; the same dice do the same to the same folder.
    pub(super) fn change(&self, dice: &mut Dice, folders: bool) -> String {
        match self.try_change(dice, folders) {
            Ok(text) => text,
            Err(error) => format!("nothing ({error})"),
        }
    }

    fn try_change(&self, dice: &mut Dice, folders: bool) -> std::io::Result<String> {
        let seed = dice.next();
        let bytes = noise(seed, *dice.pick(&LENGTHS).unwrap_or(&0));
        let (path, to) = (self.file(dice), self.name(dice));
        let shown = |path: &Path| path.strip_prefix(&self.source).unwrap_or(path).display().to_string();
        let both = format!("{} → {}", shown(&path), shown(&to));
        Ok(match dice.roll(20) {
            0..=2 => {
                drop(fs::remove_file(&to));
                fs::write(&to, &bytes)?;
                set_time(&to, dice)?;
                format!("make {} of {} bytes", shown(&to), bytes.len())
            }
            3 | 4 => {
                self.replace(&path, &bytes, dice)?;
                format!("replace {} by {} bytes, as editors do", shown(&path), bytes.len())
            }
            5 | 6 => {
                let length = fs::metadata(&path)?.len();
                let at = dice.roll(length + 1);
                let mut file = OpenOptions::new().write(true).open(&path)?;
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&bytes[..bytes.len().min(50)])?;
                format!("write into {} at {at}", shown(&path))
            }
            7 => {
                let time = os::stat_at(os::CWD, path.as_os_str().as_bytes())?.mtime;
                let length = fs::metadata(&path)?.len() as usize;
                OpenOptions::new().write(true).open(&path)?.write_all(&noise(seed, length))?;
                os::set_times_at(os::CWD, path.as_os_str().as_bytes(), time)?;
                format!("change {} and put its time back", shown(&path))
            }
            8..=10 => {
                fs::hard_link(&path, &to)?;
                format!("link {both}")
            }
            11 => {
                fs::hard_link(&path, self.beside.join(seed.to_string()))?;
                format!("link {} from outside", shown(&path))
            }
            12 | 13 => {
                fs::remove_file(&path)?;
                format!("remove {}", shown(&path))
            }
            14 => {
                fs::rename(&path, &to)?;
                format!("rename {both}")
            }
            15 => self.reuse(&path, &to, &bytes, dice)?,
            16 if !folders => "nothing".to_owned(),
            16 => {
                let (from, to) = (self.source.join("d"), self.source.join("k"));
                if dice.roll(2) == 0 {
                    fs::remove_dir_all(&to)?;
                }
                fs::rename(from, to)?;
                "rename d → k".to_owned()
            }
            17 => {
                let mode = [0o600, 0o644, 0o755, 0o640][dice.roll(4) as usize];
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                format!("mode of {} {mode:o}", shown(&path))
            }
            18 => {
                symlink(seed.to_string(), &to)?;
                format!("symbolic link {}", shown(&to))
            }
            _ => {
                set_time(&path, dice)?;
                format!("time of {}", shown(&path))
            }
        })
    }

    /// A new file takes a name, and the old one gets another one first.
    fn replace(&self, path: &Path, bytes: &[u8], dice: &mut Dice) -> std::io::Result<()> {
        let (temporary, backup) = (self.source.join(".new"), path.with_extension("bak"));
        fs::write(&temporary, bytes)?;
        set_time(&temporary, dice)?;
        drop(fs::remove_file(&backup));
        drop(fs::hard_link(path, &backup));
        fs::rename(&temporary, path)
    }

    /// A file goes with all its names, and new ones with two names each come: one of them gets its inode number on many file systems.
    fn reuse(&self, path: &Path, to: &Path, bytes: &[u8], dice: &mut Dice) -> std::io::Result<String> {
        let file = fs::symlink_metadata(path)?;
        for folder in [&self.source, &self.beside] {
            for (name, number) in Copy::of(folder).files {
                if number == std::os::unix::fs::MetadataExt::ino(&file) {
                    drop(fs::remove_file(folder.join(std::ffi::OsStr::from_bytes(&name[1..]))));
                }
            }
        }
        drop(fs::remove_file(to));
        fs::write(to, bytes)?;
        set_time(to, dice)?;
        fs::hard_link(to, to.with_extension("two"))?;
        Ok(format!("remove all of {}, make {} with two names", path.display(), to.display()))
    }
}

/// A time of few that there are, so that other files have the same.
fn set_time(path: &Path, dice: &mut Dice) -> std::io::Result<()> {
    let time = FileTime { seconds: 1_000_000_000 + dice.roll(3) as i64, nanos: 7 };
    os::set_times_fd(&File::open(path)?, time)
}
