//! Names of files that are not complete yet. They tell which process makes them, so that the next restore can remove what
//! a killed one has left, and nothing that another one is still at work on. Not for: the files themselves (see `job`).

use crate::error::Result;
use rustix::fs::Dir;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};

const BEGIN: &str = ".firn-";
const END: &str = ".partial";

/// In a target for as long as the restore that made it is not done: the one after it finds the folder as new as this one did.
pub const NEW: &[u8] = b".firn-new.partial";

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
        let name = std::str::from_utf8(name).ok()?.strip_prefix(BEGIN)?.strip_suffix(END)?;
        let mut parts = name.split('-');
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
        let salt = crate::id::SessionId::random()?.short();
        Ok(Names { maker: Maker::this(), salt, next: AtomicU64::new(0) })
    }

    /// The next name.
    pub fn next(&self) -> Vec<u8> {
        let Maker { machine, boot, namespace, process, began } = self.maker;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let salt = &self.salt;
        format!("{BEGIN}{machine:x}-{boot:x}-{namespace:x}-{process:x}-{began:x}-{salt}-{number:x}{END}").into_bytes()
    }

    /// Removes from a folder what processes have left that are no more: the user's own files, and as root also those that were given
    /// to others already. Errors leave them.
    pub fn remove_stale(&self, folder: &OwnedFd) -> u64 {
        let mut removed = 0;
        let Ok(entries) = Dir::read_from(folder.as_fd()) else { return 0 };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if !Maker::parse(name).is_some_and(|maker| maker.is_gone(&self.maker)) {
                continue;
            }
            let is_own = |stat: crate::os::Stat| crate::os::is_root() || stat.uid == crate::os::user_id();
            let may_go = crate::os::stat_at(folder, name).is_ok_and(is_own);
            removed += u64::from(may_go && crate::os::unlink_at(folder, name, false).is_ok());
        }
        removed
    }
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
        for name in [".firn-1-2.partial", ".firn-x-1-1-1-1-1-1.partial", "f", ".firn-1-1-1-1-1-1-1-1.partial"] {
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
        let (own, left) = (of(names.next()), of(dead.next()));
        for path in [&own, &left, &folder.path().join("other.partial")] {
            std::fs::write(path, b"x").unwrap();
        }
        if crate::os::is_root() {
            // Killed between giving it its owner and giving it its name.
            std::os::unix::fs::chown(&left, Some(4242), None).unwrap();
        }
        assert_eq!(names.remove_stale(&opened), 1);
        assert!(own.exists() && !left.exists() && folder.path().join("other.partial").exists());
    }
}
