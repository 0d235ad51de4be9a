//! `firn deleted`: what is gone from the newest snapshots. Not for: getting it back (see `restore`).

use crate::cli::args::select::{Selection, require_some};
use crate::cli::context::{Context, absolute};
use crate::cli::output::past::{Lines, Past, Told, in_no_snapshot, letter};
use crate::cli::output::text;
use crate::error::Result;
use crate::history::record::Kind;
use crate::history::runs;
use std::ffi::OsString;

/// List what was deleted: what is in older snapshots and no longer in the newest one of the same path
///
/// For each thing that is gone: when it was last seen, its size, when it was modified, and where its last version is; "firn restore"
/// takes the last column as it stands. What counts is, for each path and host, the newest snapshot that has the path among its sources
/// or below one of them. Of a folder that is gone as a whole, only the folder is listed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what is gone from this folder
    #[arg(value_name = "PATH", default_value = "/", value_hint = clap::ValueHint::AnyPath)]
    path: OsString,

    /// Also everything in folders that are gone
    #[arg(short = 'R', long)]
    recursive: bool,

    #[command(flatten)]
    selection: Selection,
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let path = absolute(&self.path)?;
        let filter = self.selection.filter()?;
        let mut past = Past::open(context, "deleted")?;
        require_some(&past.snapshots.live, &filter)?;
        let is_known = past.catalog.ask(&past.reporter, &context.stop, &mut |catalog| {
            Ok(!runs::Lines::new(catalog, &|named| filter.wants(&named.snapshot)).runs(&path)?.is_empty())
        })?;
        if !is_known {
            return Err(in_no_snapshot(&path));
        }
        let mut out = Lines::new();
        let mut number = 0;
        past.catalog.ask_each(
            &past.reporter,
            &context.stop,
            &mut |catalog, each| {
                let lines = runs::Lines::new(catalog, &|named| filter.wants(&named.snapshot));
                lines.walk_gone(&path, self.recursive, &mut |path, run| {
                    context.stop.check()?;
                    each((path.to_vec(), Told::new(run, false)))
                })
            },
            &mut |(path, told)| {
                number += 1;
                if context.output.json {
                    return out.json(&told.json("deleted", &path));
                }
                let state = &told.state;
                let before = format!(
                    "{}  {} {:>9}  {}  ",
                    text::local_time(told.last.snapshot.time),
                    letter(state.kind),
                    text::size(state.size),
                    text::file_time(state.mtime),
                );
                let behind = if state.kind == Kind::Directory { "/" } else { "" };
                out.place(&before, &told.last, &path, behind)
            },
        )?;
        out.finish()?;
        if number == 0 && !context.output.json {
            context.tell("Nothing is gone\n")?;
        }
        Ok(past.code())
    }
}
