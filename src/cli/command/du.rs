//! `firn du`: what snapshots, and paths in them, take. Not for: finding it out (see `crate::du`).

use crate::cli::args::select::{Selection, require_some};
use crate::cli::context::{Context, parse_address};
use crate::cli::output::past::Lines;
use crate::cli::output::text;
use crate::du::{Sizes, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::tree::{Body, Entry};
use crate::repository::Repository;
use crate::repository::snapshots::{Address, Named, Snapshots};
use crate::repository::tree::Entries;
use crate::view::path::find;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Show how much snapshots, and paths in them, take
///
/// For each snapshot, or the path in it that is named: the bytes of its files when restored; those that its chunks take in the
/// repository, each counted once; and how many of these no other snapshot needs. The last is about what a prune frees once the
/// snapshot is forgotten, and of a path, the part of it that lies there.
///
/// Chunks are content and the metadata that leads to it. Small ones share a block, of which each takes its part; as they compress
/// better together, a prune that takes some of them out may free less than their parts. What packs need
/// besides (a few per cent), the index, and what no snapshot needs any more is not counted. Snapshots share most of their chunks, so
/// the column "Stored" does not add up; the last line says what all snapshots take together. Those that were forgotten do not
/// count. A ">" stands before sizes of what cannot be read as a whole (exit status 3).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Snapshots, and what to look at in them; ":/PATH" alone: in all of them [default: all]
    #[arg(value_name = "SNAPSHOT[:/PATH]")]
    what: Vec<OsString>,

    /// Also each file and folder that lies at most so many levels below
    #[arg(short, long, value_name = "LEVELS", default_value_t = 0)]
    depth: usize,

    #[command(flatten)]
    selection: Selection,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let repository = context.open()?;
        let snapshots = context.all_snapshots(&repository)?;
        context.watch_signals()?;
        let wanted = self.wanted(context, &repository, &snapshots)?;
        let progress = match context.output.json {
            true => crate::cli::output::progress::Reporter::without_bar("du", context.output),
            false => context.progress("du"),
        };
        let mut usage = Usage::find(&repository, &snapshots.live, &progress, &context.stop)?;
        progress.finish();
        let mut table = Table { out: Lines::new(), as_json: context.output.json, has_head: false };
        let mut rows = 0u64;
        for Wanted { named, path, is_sure } in wanted {
            if path.is_empty() {
                table.row(named, &path, &usage.of_snapshot(named)?)?;
                rows += 1;
            }
            if path.is_empty() && self.depth == 0 {
                continue;
            }
            match find(&repository, &named.snapshot, &path) {
                Ok(entry) => rows += self.entry(&repository, &mut usage, &mut table, (named, path, entry))?,
                Err(error) if error.kind() == ErrorKind::NotFound && !is_sure => {}
                // It was told when all snapshots were walked.
                Err(error) if error.kind() == ErrorKind::Damaged && usage.issues > 0 => {}
                Err(error) => return Err(error),
            }
        }
        if rows == 0 && usage.issues == 0 && !self.what.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "That path is in no snapshot")
                .with_hint("\"firn find NAME\" looks for a name in all snapshots."));
        }
        table.finish(usage.stored()?, snapshots.live.len(), context.output.quiet)?;
        let complete = usage.issues == 0 && snapshots.damaged.is_empty();
        Ok(if complete { 0 } else { ErrorKind::Incomplete.exit_code() })
    }

    /// What is to be shown.
    fn wanted<'s>(
        &self,
        context: &Context,
        repository: &Repository,
        snapshots: &'s Snapshots,
    ) -> Result<Vec<Wanted<'s>>> {
        let filter = self.selection.filter()?;
        require_some(&snapshots.live, &filter)?;
        let all = |path: &[u8]| -> Vec<Wanted<'s>> {
            let chosen = snapshots.live.iter().filter(|named| filter.wants(&named.snapshot));
            chosen.map(|named| Wanted { named, path: path.to_vec(), is_sure: false }).collect()
        };
        if self.what.is_empty() {
            return Ok(all(b""));
        }
        let mut wanted = Vec::new();
        for text in &self.what {
            if text.as_bytes().first() == Some(&b':') {
                wanted.extend(all(&Address::parse(&[b"latest", text.as_bytes()].concat())?.path));
                continue;
            }
            let address = parse_address(text)?;
            let named = context.choose(snapshots, &address.snapshot, &address.path, &filter)?;
            // A mistake is told before all snapshots are walked.
            if !address.path.is_empty() {
                find(repository, &named.snapshot, &address.path)?;
                context.warn_of_others(snapshots, named, &address, &filter);
            }
            wanted.push(Wanted { named, path: address.path, is_sure: true });
        }
        Ok(wanted)
    }

    /// The rows of an entry (of a whole snapshot, only those below) and of what lies below it; how many.
    fn entry(
        &self,
        repository: &Repository,
        usage: &mut Usage<'_>,
        table: &mut Table,
        (named, mut path, entry): (&Named, Vec<u8>, Entry),
    ) -> Result<u64> {
        let mut rows = 0;
        if !path.is_empty() {
            table.row(named, &path, &usage.of_entry(&entry)?)?;
            rows += 1;
        }
        let mut open: Vec<(Entries<'_>, usize)> = Vec::new();
        let below = |entry: &Entry, depth: usize| match &entry.body {
            Body::Directory { page, totals, .. } if depth < self.depth.min(MAX_DEPTH) => {
                Some(repository.entries_of(*page, totals))
            }
            _ => None,
        };
        open.extend(below(&entry, 0).map(|entries| (entries, path.len())));
        while let Some((entries, length)) = open.last_mut() {
            path.truncate(*length);
            match entries.next() {
                // It was told when all snapshots were walked.
                None | Some(Err(_)) => drop(open.pop()),
                Some(Ok(entry)) => {
                    path.push(b'/');
                    path.extend_from_slice(&entry.name);
                    table.row(named, &path, &usage.of_entry(&entry)?)?;
                    rows += 1;
                    open.extend(below(&entry, open.len()).map(|entries| (entries, path.len())));
                }
            }
        }
        Ok(rows)
    }
}

/// A snapshot and a path in it.
struct Wanted<'s> {
    named: &'s Named,
    path: Vec<u8>,
    /// Somebody said that it is there.
    is_sure: bool,
}

/// The columns before the last one.
fn columns(restored: &str, stored: &str, unique: &str, time: &str) -> String {
    format!("{restored:>9}  {stored:>10}  {unique:>10}  {time:<19}")
}

struct Table {
    out: Lines,
    as_json: bool,
    /// Whether the titles are printed, which waits for the first row.
    has_head: bool,
}

impl Table {
    fn row(&mut self, named: &Named, path: &[u8], sizes: &Sizes) -> Result<()> {
        if self.as_json {
            return self.out.json(&object(named, path, sizes));
        }
        self.head()?;
        let restored = text::size(sizes.restore);
        // More than what could be read.
        let more = if sizes.incomplete { ">" } else { "" };
        let [stored, unique] = [sizes.stored, sizes.unique].map(|bytes| format!("{more}{}", text::size(bytes)));
        let time = text::local_time(named.snapshot.time);
        self.out.place(&format!("{}  ", columns(&restored, &stored, &unique, &time)), named, path, "")
    }

    fn head(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.has_head, true) {
            true => Ok(()),
            false => self.out.text(&format!("{}  Snapshot\n", columns("Restored", "Stored", "Unique", "Time"))),
        }
    }

    fn finish(mut self, stored: u64, snapshots: usize, quiet: bool) -> Result<()> {
        if self.as_json {
            let sum = json!({ "message_type": "summary", "stored_size": stored, "snapshots_count": snapshots });
            self.out.json(&sum)?;
        } else if !quiet {
            self.head()?;
            let all = text::count(snapshots as u64, "snapshot", "snapshots");
            self.out.text(&format!("{}  {all}\n", columns("", &text::size(stored), "", "all together")))?;
        }
        self.out.finish()
    }
}

fn object(named: &Named, path: &[u8], sizes: &Sizes) -> Value {
    let path = if path.is_empty() { b"/" } else { path };
    let mut value = json!({
        "message_type": "usage",
        "snapshot_id": named.name,
        "short_id": named.name.short(),
        "time": named.snapshot.time.to_string(),
        "hostname": named.snapshot.host,
        "restore_size": sizes.restore,
        "file_count": sizes.files,
        "stored_size": sizes.stored,
        "unique_size": sizes.unique,
        "incomplete": sizes.incomplete,
    });
    text::set_path(&mut value, "path", path);
    value
}
