//! What a run of the program did to the files of a repository, call by call, from the system's own record. Not for: what
//! that means for a disk (see `disk`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that happened, in the order of time.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A call that changes something; from here on, it may have been carried out. `number` is its own.
    Change { number: usize, change: Change },
    /// The call of this number has returned.
    Returned { number: usize },
    /// An fsync of this path begins.
    SyncBegins { number: usize, path: PathBuf },
    /// It has returned, with success or an error.
    SyncEnds { number: usize, succeeded: bool },
    /// This was written to standard output: it is promised.
    Said(String),
}

impl Event {
    /// The same with other numbers, for a second record behind a first.
    pub(crate) fn numbered_from(&self, first: usize) -> Event {
        let mut event = self.clone();
        match &mut event {
            Event::Change { number, .. }
            | Event::Returned { number }
            | Event::SyncBegins { number, .. }
            | Event::SyncEnds { number, .. } => *number += first,
            Event::Said(_) => {}
        }
        event
    }
}

/// What a call changes; paths are relative to the repository.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A new, empty file.
    Create(PathBuf),
    /// Bytes at the end of a file.
    Append(PathBuf, Vec<u8>),
    /// Another name in the same folder.
    Rename(PathBuf, PathBuf),
    /// A name goes.
    Remove(PathBuf),
    /// A new folder.
    Folder(PathBuf),
}

/// The calls that change files or make them durable, and a few that must not occur at all.
const CALLS: &str = "openat,write,pwrite64,writev,pwritev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,\
                     mkdirat,link,linkat,symlinkat,ftruncate,fallocate";

/// A command that runs `program` and records what it does into `file`. `faults` are further options of strace.
pub(crate) fn recorder(file: &Path, faults: &[String]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-xx", "-s", "100000000", "-o"]).arg(file).args(["-e", &format!("trace={CALLS}")]);
    command.args(faults);
    command
}

/// Reads a record; what does not concern the folder `root` or standard output is left out.
pub(crate) fn read(file: &Path, root: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut events = Vec::new();
    let mut waiting: HashMap<&str, (String, Option<usize>)> = HashMap::new();
    let mut next = 0;
    for line in text.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            next += 1;
            let begins = begin(begun, root, next);
            let number = begins.is_some().then_some(next);
            events.extend(begins);
            waiting.insert(thread, (begun.to_owned(), number));
        } else if call.starts_with("<... ") {
            let Some((begun, number)) = waiting.remove(thread) else { continue };
            let rest = call.split_once("resumed>").unwrap().1;
            // A new file is known by its answer only if its name was not complete before; it always is.
            match number {
                Some(number) => end(&mut events, &begun, rest, number),
                None => assert!(begin(&format!("{begun}{rest}"), root, 0).is_none(), "{line}"),
            }
        } else if let Some(begins) = begin(call, root, next + 1) {
            next += 1;
            events.push(begins);
            end(&mut events, call, call, next);
        }
    }
    events
}

/// What begins with a call; `None` if it is none of ours.
fn begin(call: &str, root: &Path, number: usize) -> Option<Event> {
    let (name, rest) = call.split_once('(')?;
    let paths = Arguments::read(rest);
    if name == "write" && paths.number == Some(1) {
        return Some(Event::Said(String::from_utf8_lossy(&paths.strings[0]).into_owned()));
    }
    let inside = |path: PathBuf| path.strip_prefix(root).ok().map(Path::to_path_buf);
    let change = match name {
        "openat" if call.contains("O_CREAT") => Change::Create(inside(paths.at(0))?),
        "openat" => return None,
        "write" => Change::Append(inside(paths.folders.first()?.clone())?, paths.strings[0].clone()),
        "renameat2" => {
            let (from, to) = (inside(paths.at(0))?, inside(paths.at(1))?);
            assert!(call.contains("RENAME_NOREPLACE") && from.parent() == to.parent(), "{call}");
            Change::Rename(from, to)
        }
        "unlinkat" => Change::Remove(inside(paths.at(0))?),
        "mkdirat" => Change::Folder(inside(paths.at(0))?),
        "mkdir" => Change::Folder(inside(PathBuf::from(text(&paths.strings[0])))?),
        "fsync" => return Some(Event::SyncBegins { number, path: inside(paths.folders.first()?.clone())? }),
        _ => {
            let named = paths.folders.iter().cloned().chain(paths.strings.iter().map(|name| PathBuf::from(text(name))));
            let ours: Vec<_> = named.filter_map(inside).collect();
            assert!(ours.is_empty(), "{name} of {ours:?} is not expected here");
            return None;
        }
    };
    Some(Event::Change { number, change })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The call has returned: a change that failed never was one.
fn end(events: &mut Vec<Event>, begun: &str, rest: &str, number: usize) {
    let answer = rest.rsplit_once(" = ").map_or("?", |(_, answer)| answer.trim());
    let succeeded = !answer.starts_with(['-', '?']);
    let at = events.iter().rposition(|event| match event {
        Event::Change { number: its, .. } | Event::SyncBegins { number: its, .. } => *its == number,
        _ => false,
    });
    let Some(at) = at else { return };
    match &mut events[at] {
        Event::SyncBegins { .. } => events.push(Event::SyncEnds { number, succeeded }),
        // Killed within the call: it may have been carried out.
        _ if answer.starts_with('?') => {}
        Event::Change { change: Change::Append(_, bytes), .. } if succeeded => {
            bytes.truncate(answer.parse().unwrap_or_else(|_| panic!("{begun} = {answer}")));
            events.push(Event::Returned { number });
        }
        _ if succeeded => events.push(Event::Returned { number }),
        _ => drop(events.remove(at)),
    }
}

/// The parts of a call's text.
struct Arguments {
    /// The first descriptor.
    number: Option<u32>,
    /// What the descriptors stand for.
    folders: Vec<PathBuf>,
    /// What stands in quotation marks.
    strings: Vec<Vec<u8>>,
}

impl Arguments {
    fn read(text: &str) -> Arguments {
        let number = text.split(|letter: char| !letter.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
        let mut arguments = Arguments { number, folders: Vec::new(), strings: Vec::new() };
        let mut rest = text.split(" = ").next().unwrap_or(text);
        while let Some(at) = rest.find(['"', '<']) {
            let close = if rest.as_bytes()[at] == b'"' { '"' } else { '>' };
            let Some((inner, after)) = rest[at + 1..].split_once(close) else { break };
            if close == '"' {
                arguments.strings.push(unhex(inner));
            } else {
                let bytes = unhex(inner);
                arguments.folders.push(PathBuf::from(String::from_utf8_lossy(&bytes).into_owned()));
            }
            rest = after;
        }
        arguments
    }

    /// The n-th name, in the folder of its descriptor.
    fn at(&self, number: usize) -> PathBuf {
        let name = PathBuf::from(text(&self.strings[number]));
        self.folders.get(number).map_or(name.clone(), |folder| folder.join(name))
    }
}

/// `\x41\x42` and plain text, as bytes.
fn unhex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\\' && after.first() == Some(&b'x') {
            let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
            bytes.push(digit(after[1]) << 4 | digit(after[2]));
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    bytes
}
