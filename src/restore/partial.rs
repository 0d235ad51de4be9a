//! Names of files that are not complete yet. They tell which process makes them, so that the next restore can remove what
//! a killed one has left, and nothing that another one is still at work on, nor anything that firn did not make (see
//! `os::partial_name`). Not for: the files themselves (see `job`).

use crate::error::Result;
use crate::os::{self, FileType, Stat, partial_name, partial_text};
use rustix::fs::Dir;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Marks the text of a name that is no file's but a folder's (see `Names::mark`).
const MARK: &str = "new-";

/// A process on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Maker {
    machine: u32,
    boot: u32,
    /// Process numbers count only within it.
    namespace: u32,
    process: u32,
    /// When it began: numbers are used again.
    began: u64,
}

fn hash(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

impl Maker {
    /// This process.
    fn this() -> Maker {
        let read = |path: &str| std::fs::read(path).unwrap_or_default();
        let machine = [&read("/etc/machine-id")[..], b"\0", crate::os::hostname().as_bytes()].concat();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let process = crate::os::process_id();
        Maker {
            machine: hash(&machine),
            boot: hash(&read("/proc/sys/kernel/random/boot_id")),
            namespace: hash(namespace.as_os_str().as_bytes()),
            process,
            began: began(process).unwrap_or(0),
        }
    }

    /// Of a name that was given by `Names`.
    fn parse(name: &[u8]) -> Option<Maker> {
        let mut parts = partial_text(name)?.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() <= digits)?;
            u64::from_str_radix(part, 16).ok()
        };
        let mut short = || number(8).map(|number| number as u32);
        let (machine, boot, namespace, process) = (short()?, short()?, short()?, short()?);
        let maker = Maker { machine, boot, namespace, process, began: number(16)? };
        // What makes it one of many.
        (parts.count() == 2).then_some(maker)
    }

    /// Whether it ended without taking its files away, as far as that can be told from `here`.
    fn is_gone(&self, here: &Maker) -> bool {
        if self.machine != here.machine {
            return false;
        }
        if self.boot != here.boot {
            return true;
        }
        self.namespace == here.namespace && began(self.process) != Some(self.began)
    }
}

/// When a process began, in ticks since the machine did; `None` if there is no such process.
fn began(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program before the last parenthesis may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Gives names that nothing else has.
pub struct Names {
    maker: Maker,
    salt: String,
    next: AtomicU64,
}

impl Names {
    /// Of this process.
    pub fn new() -> Result<Names> {
        let salt = crate::id::SessionId::random()?.to_string();
        Ok(Names { maker: Maker::this(), salt, next: AtomicU64::new(0) })
    }

    /// The next name.
    pub fn next(&self) -> Vec<u8> {
        let Maker { machine, boot, namespace, process, began } = self.maker;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let salt = &self.salt;
        partial_name(&format!("{machine:x}-{boot:x}-{namespace:x}-{process:x}-{began:x}-{salt}-{number:x}"))
    }

    /// The name of a file that marks a folder as new: no process removes it as its own.
    pub fn mark(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        partial_name(&format!("{MARK}{}-{number:x}", self.salt))
    }

    /// Removes from a folder what processes have left that are no more: the user's own files, and as root also those that were given
    /// to others already. Errors leave them. Calls back with the name of each.
    pub fn remove_stale(&self, folder: &OwnedFd, removed: &mut dyn FnMut(&[u8])) {
        let Ok(entries) = Dir::read_from(folder.as_fd()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            let is_stale = Maker::parse(name).is_some_and(|maker| maker.is_gone(&self.maker));
            let is_own = |stat: Stat| os::is_root() || stat.uid == os::user_id();
            let may_go = is_stale && os::stat_at(folder, name).is_ok_and(is_own);
            if may_go && os::unlink_at(folder, name, false).is_ok() {
                removed(name);
            }
        }
    }
}

/// The marks in a folder, which are this user's own empty files.
pub fn marks(folder: &OwnedFd) -> Vec<Vec<u8>> {
    let Ok(entries) = Dir::read_from(folder.as_fd()) else { return Vec::new() };
    let is_mark = |name: &Vec<u8>| {
        let is_own = |stat: Stat| stat.uid == os::user_id() && stat.kind == FileType::File && stat.size == 0;
        partial_text(name).is_some_and(|text| text.starts_with(MARK)) && os::stat_at(folder, name).is_ok_and(is_own)
    };
    entries.flatten().map(|entry| entry.file_name().to_bytes().to_vec()).filter(is_mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_left_behind_goes() {
        let names = Names::new().unwrap();
        let here = names.maker;
        assert_eq!(Maker::parse(&names.next()), Some(here));
        assert!(names.next() != names.next() && !here.is_gone(&here));
        assert!(Maker { began: here.began + 1, ..here }.is_gone(&here), "the number was used again");
        assert!(Maker { boot: !here.boot, ..here }.is_gone(&here), "before the machine was started again");
        let elsewhere =
            [Maker { machine: !here.machine, boot: 0, ..here }, Maker { namespace: !here.namespace, began: 0, ..here }];
        for maker in elsewhere {
            assert!(!maker.is_gone(&here), "{maker:?}");
        }
        for text in ["1-2", "x-1-1-1-1-1-1", "1-1-1-1-1-1-1-1"] {
            assert_eq!(Maker::parse(&partial_name(text)), None, "{text}");
        }
        assert_eq!(Maker::parse(&names.mark()), None, "a mark is no file that was being written");
        for name in ["f", ".firn-78f2c413-c25c308a-d1020ae5-ca0-131b17-ea170566-0.partial"] {
            assert_eq!(Maker::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_folder_is_tidied() {
        let folder = tempfile::tempdir().unwrap();
        let opened: OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        let names = Names::new().unwrap();
        let dead = Names { maker: Maker { began: 1, ..names.maker }, salt: "x".into(), next: AtomicU64::new(0) };
        let of = |name: Vec<u8>| folder.path().join(std::ffi::OsStr::from_bytes(&name));
        let (own, stale, mark) = (of(names.next()), dead.next(), dead.mark());
        let left = of(stale.clone());
        // The name of a file that merely looks so.
        let other = of(String::from_utf8(dead.next()).unwrap().replace("-x-", "-y-").into_bytes());
        std::fs::write(of(mark.clone()), b"").unwrap();
        for path in [&own, &left, &other] {
            std::fs::write(path, b"x").unwrap();
        }
        if os::is_root() {
            // Killed between giving it its owner and giving it its name.
            std::os::unix::fs::chown(&left, Some(4242), None).unwrap();
        }
        let mut removed = Vec::new();
        names.remove_stale(&opened, &mut |name| removed.push(name.to_vec()));
        assert_eq!(removed, [stale]);
        assert!(own.exists() && !left.exists() && other.exists());
        assert_eq!(marks(&opened), [mark]);
    }
}
