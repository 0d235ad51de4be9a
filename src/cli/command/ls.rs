//! `firn ls`: what is in a snapshot. Not for: contents (see `dump`).

use crate::cli::args::select::Selection;
use crate::cli::context::{Context, join_address};
use crate::cli::output::message::output_failed;
use crate::cli::output::{snapshot, text};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::tree::{Body, Entry};
use crate::repository::Repository;
use crate::repository::tree::Entries;
use crate::view::path::find;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufWriter, IsTerminal, Write};

/// List what is in a snapshot
///
/// Prints the names in a folder, or complete paths with --recursive. On a terminal, characters that could drive it are
/// written as "\xNN"; elsewhere names come out exactly as they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The snapshot, and what to list in it
    #[arg(value_name = "SNAPSHOT[:/PATH]", default_value = "latest")]
    address: OsString,

    /// The path, if it does not stand behind the snapshot
    #[arg(value_name = "PATH")]
    path: Option<OsString>,

    /// Also type, permissions, links, owner, group, size and time
    #[arg(short, long)]
    long: bool,

    /// Also everything in the folders below
    #[arg(short = 'R', long)]
    recursive: bool,

    #[command(flatten)]
    selection: Selection,
}

struct Listing<'a, W: Write> {
    args: &'a Args,
    as_json: bool,
    terminal: bool,
    out: W,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let address = join_address(&self.address, self.path.as_deref())?;
        let repository = context.open()?;
        let (named, path) = context.resolve(&repository, &address, &self.selection)?;
        context.watch_signals()?;
        let entry = find(&repository, &named.snapshot, &path)?;
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let out = BufWriter::with_capacity(1 << 16, stdout.lock());
        let mut listing = Listing { args: &self, as_json: context.output.json, terminal, out };
        if context.output.json {
            let head = snapshot::json(&named);
            listing.line(head.to_string().as_bytes())?;
        }
        let damaged = listing.show(&repository, context, &entry, path)?;
        listing.out.flush().map_err(output_failed)?;
        // Damaged folders were told about; what could be listed was.
        Ok(if damaged > 0 { ErrorKind::Damaged.exit_code() } else { 0 })
    }
}

impl<W: Write> Listing<'_, W> {
    /// Lists what is at `path`; how many folders could not be read to their end.
    fn show(&mut self, repository: &Repository, context: &Context, entry: &Entry, mut path: Vec<u8>) -> Result<u64> {
        let Body::Directory { page, totals, .. } = &entry.body else {
            self.entry(entry, &path)?;
            return Ok(0);
        };
        let mut damaged = 0;
        // The folders that are being listed, the innermost last, and how much of `path` leads to each: full paths would take
        // memory by the square of the depth.
        let mut open: Vec<(Entries<'_>, usize)> = vec![(repository.entries_of(*page, totals), path.len())];
        while let Some((entries, length)) = open.last_mut() {
            context.stop.check()?;
            path.truncate(*length);
            let entry = match entries.next() {
                None => {
                    open.pop();
                    continue;
                }
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    self.incomplete(&path, error)?;
                    damaged += 1;
                    open.pop();
                    continue;
                }
            };
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            self.entry(&entry, &path)?;
            match &entry.body {
                Body::Directory { .. } if self.args.recursive && open.len() > MAX_DEPTH => {
                    self.incomplete(&path, Error::damaged(format!("folders are nested more than {MAX_DEPTH} deep")))?;
                    damaged += 1;
                }
                Body::Directory { page, totals, .. } if self.args.recursive => {
                    open.push((repository.entries_of(*page, totals), path.len()));
                }
                _ => {}
            }
        }
        Ok(damaged)
    }

    fn incomplete(&mut self, folder: &[u8], error: Error) -> Result<()> {
        self.out.flush().map_err(output_failed)?;
        let error = error.context(format!("The folder \"{}/\" cannot be listed completely", text::escape(folder)));
        crate::cli::output::message::failure(&error, "ls", &text::escape(folder), self.as_json);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        if self.as_json {
            return self.line(json(entry, path).to_string().as_bytes());
        }
        let name = if self.args.recursive { path } else { entry.name.as_slice() };
        let mut line = Vec::new();
        if self.args.long {
            line.extend_from_slice(long(entry).as_bytes());
        }
        self.push_name(&mut line, name);
        if let (true, Body::Symlink(target)) = (self.args.long, &entry.body) {
            line.extend_from_slice(b" -> ");
            self.push_name(&mut line, target);
        }
        self.line(&line)
    }

    fn push_name(&self, line: &mut Vec<u8>, name: &[u8]) {
        match self.terminal {
            true => line.extend_from_slice(text::escape(name).as_bytes()),
            false => line.extend_from_slice(name),
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        let written = self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(output_failed)
    }
}

/// The part of a long line before the name.
fn long(entry: &Entry) -> String {
    let owner = &entry.meta.owner;
    let name = |name: &[u8], id: u32| if name.is_empty() { id.to_string() } else { text::escape(name) };
    let size = match &entry.body {
        Body::File { size, .. } | Body::Directory { size, .. } => size.to_string(),
        Body::Symlink(target) => target.len().to_string(),
        Body::CharDevice { major, minor } | Body::BlockDevice { major, minor } => format!("{major}, {minor}"),
        Body::Fifo | Body::Socket => "0".into(),
    };
    format!(
        "{} {:>2} {:<8} {:<8} {:>12} {} ",
        text::mode(entry),
        entry.meta.link.map_or(1, |link| link.links),
        name(&owner.user, owner.uid),
        name(&owner.group, owner.gid),
        size,
        text::file_time(entry.meta.mtime),
    )
}

/// An entry for programs, with restic's names. `mode` has Go's bits, as there; `permissions` are its letters.
fn json(entry: &Entry, path: &[u8]) -> Value {
    let kind = match entry.body {
        Body::File { .. } => "file",
        Body::Directory { .. } => "dir",
        Body::Symlink(_) => "symlink",
        Body::Fifo => "fifo",
        Body::Socket => "socket",
        Body::CharDevice { .. } => "chardev",
        Body::BlockDevice { .. } => "dev",
    };
    let path = if path.is_empty() { b"/" } else { path };
    let owner = &entry.meta.owner;
    let mut value = json!({
        "type": kind,
        "uid": owner.uid,
        "gid": owner.gid,
        "user": String::from_utf8_lossy(&owner.user),
        "group": String::from_utf8_lossy(&owner.group),
        "mode": entry.meta.mode & 0o7777,
        "permissions": text::mode(entry),
        "mtime": text::rfc3339(entry.meta.mtime),
        "links": entry.meta.link.map_or(1, |link| link.links),
        "message_type": "node",
    });
    match &entry.body {
        Body::File { size, .. } => value["size"] = json!(size),
        Body::Symlink(target) => text::set_path(&mut value, "linktarget", target),
        Body::CharDevice { major, minor } | Body::BlockDevice { major, minor } => {
            value["major"] = json!(major);
            value["minor"] = json!(minor);
        }
        _ => {}
    }
    text::set_path(&mut value, "name", &entry.name);
    text::set_path(&mut value, "path", path);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::{Content, Metadata, Owner, Timestamp};
    use std::sync::Arc;

    fn entry(name: &[u8], mode: u16, body: Body) -> Entry {
        let owner = Owner { uid: 0, gid: 7, user: b"root".to_vec(), group: Vec::new() };
        let meta = Metadata {
            mode,
            owner: Arc::new(owner),
            mtime: Timestamp { seconds: 1, nanos: 500_000_000 },
            btime: None,
            attributes: None,
            link: None,
            blocks: None,
            flags: 0,
            waypoint: false,
            unreliable: false,
        };
        Entry { name: name.to_vec(), meta, body }
    }

    #[test]
    fn lines_for_people_and_programs() {
        let file = entry(b"a\xff", 0o4755, Body::File { size: 3, content: Content::Inline(b"abc".to_vec()) });
        assert!(long(&file).starts_with("-rwsr-xr-x  1 root     7                   3 1970-01-01 "), "{}", long(&file));
        let value = json(&file, b"/d/a\xff");
        assert_eq!(value["path_base64"], "L2QvYf8=");
        assert_eq!(value["mtime"], "1970-01-01T00:00:01.5Z");
        assert_eq!((&value["type"], &value["size"]), (&json!("file"), &json!(3)));
        let device = entry(b"sda", 0o660, Body::BlockDevice { major: 8, minor: 1 });
        assert!(long(&device).contains(" 8, 1 "));
    }

    #[test]
    fn a_terminal_is_not_driven() {
        let selection = Selection::default();
        let args = Args { address: "latest".into(), path: None, long: false, recursive: false, selection };
        let link = entry(b"\x1b[2J", 0o777, Body::Symlink(b"x".to_vec()));
        for (terminal, text) in [(true, &b"\\x1b[2J\n"[..]), (false, b"\x1b[2J\n")] {
            let mut listing = Listing { args: &args, as_json: false, terminal, out: Vec::new() };
            listing.entry(&link, b"/\x1b[2J").unwrap();
            assert_eq!(listing.out, text);
        }
    }
}
