//! What the commands about the past have in common: the catalog brought up to date, the choice of snapshots, lines of output. Not
//! for: one command's words (see `history`, `find`, `deleted`).

use crate::cli::context::Context;
use crate::cli::output::message::output_failed;
use crate::cli::output::progress::Reporter;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::history::Catalog;
use crate::history::record::{Kind, State};
use crate::history::runs::Run;
use crate::repository::snapshots::{Named, Snapshots};
use serde_json::{Value, json};
use std::io::{BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::Arc;

/// The past, ready to be asked.
pub(crate) struct Past {
    pub(crate) catalog: Catalog,
    pub(crate) snapshots: Snapshots,
    pub(crate) reporter: Reporter,
}

impl Past {
    /// Opens the repository and brings the catalog up to date, which the first time takes a while.
    pub(crate) fn open(context: &Context, during: &'static str) -> Result<Past> {
        let repository = context.open()?;
        let snapshots = context.all_snapshots(&repository)?;
        context.watch_signals()?;
        // Objects about progress would only be in the way of the answers.
        let reporter = match context.output.json {
            true => Reporter::without_bar(during, context.output),
            false => context.progress(during),
        };
        let mut catalog = Catalog::open(&repository, &reporter)?;
        let live = snapshots.live.iter().cloned().map(Arc::new).collect();
        catalog.update(live, &reporter, &context.stop)?;
        reporter.finish();
        Ok(Past { catalog, snapshots, reporter })
    }

    /// The exit code of a command that found what it could.
    pub(crate) fn code(&self) -> u8 {
        let complete = self.snapshots.damaged.is_empty() && self.catalog.left_out() == 0;
        if complete { 0 } else { ErrorKind::Incomplete.exit_code() }
    }
}

/// An error: no snapshot that counts has ever had this path.
pub(crate) fn in_no_snapshot(path: &[u8]) -> Error {
    let shown = if path.is_empty() { "/".into() } else { text::escape(path) };
    Error::new(ErrorKind::NotFound, format!("\"{shown}\" is in no snapshot"))
        .with_hint("\"firn find NAME\" looks for a name in all snapshots.")
}

/// Standard output, a line at a time.
pub(crate) struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Lines {
    pub(crate) fn new() -> Lines {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        Lines { out: BufWriter::with_capacity(1 << 16, stdout.lock()), terminal }
    }

    /// A line that ends with `SNAPSHOT:/PATH`, as other commands take it.
    pub(crate) fn place(&mut self, before: &str, named: &Named, path: &[u8], behind: &str) -> Result<()> {
        let path = if path.is_empty() { b"/" } else { path };
        self.line(&format!("{before}{}:", named.name.short()), path, behind)
    }

    /// A line that ends with a path.
    pub(crate) fn path(&mut self, before: &str, path: &[u8]) -> Result<()> {
        self.line(before, path, "")
    }

    fn line(&mut self, before: &str, path: &[u8], behind: &str) -> Result<()> {
        let mut line = before.as_bytes().to_vec();
        match self.terminal {
            true => line.extend_from_slice(text::escape(path).as_bytes()),
            false => line.extend_from_slice(path),
        }
        line.extend_from_slice(behind.as_bytes());
        line.push(b'\n');
        self.out.write_all(&line).map_err(output_failed)
    }

    /// Lines of somebody's file. On a terminal they cannot drive it.
    pub(crate) fn lines(&mut self, lines: &[u8]) -> Result<()> {
        if !self.terminal {
            return self.out.write_all(lines).map_err(output_failed);
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
            let safe: Vec<String> = text.split('\t').map(text::line).collect();
            writeln!(self.out, "{}", safe.join("\t")).map_err(output_failed)?;
        }
        Ok(())
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes()).map_err(output_failed)
    }

    pub(crate) fn json(&mut self, value: &Value) -> Result<()> {
        writeln!(self.out, "{value}").map_err(output_failed)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(output_failed)
    }
}

/// The letter that `ls -l` has for it.
pub(crate) fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Socket => 's',
    }
}

/// As `ls --json` calls it.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "dir",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::CharDevice => "chardev",
        Kind::BlockDevice => "dev",
        Kind::Socket => "socket",
    }
}

/// A version with its first and last snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) state: State,
    pub(crate) first: Arc<Named>,
    pub(crate) last: Arc<Named>,
    /// It is not gone, nor is there another one.
    pub(crate) current: bool,
}

impl Told {
    /// What a run says.
    pub(crate) fn new(run: &Run, current: bool) -> Told {
        Told { state: run.state, first: run.first.clone(), last: run.last.clone(), current }
    }

    /// For programs.
    pub(crate) fn json(&self, message: &str, path: &[u8]) -> Value {
        let state = &self.state;
        let path = if path.is_empty() { b"/" } else { path };
        let mut value = json!({
            "message_type": message,
            "type": kind_name(state.kind),
            "size": state.size,
            "mtime": text::rfc3339(state.mtime),
            "first_seen": self.first.snapshot.time.to_string(),
            "last_seen": self.last.snapshot.time.to_string(),
            "first_snapshot_id": self.first.name,
            "snapshot_id": self.last.name,
            "short_id": self.last.name.short(),
            "hostname": self.last.snapshot.host,
            "current": self.current,
        });
        text::set_path(&mut value, "path", path);
        value
    }
}
