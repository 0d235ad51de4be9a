//! `firn find`: looks for paths in all snapshots at once. Not for: the versions of one path (see `history`).

use crate::cli::args::amount;
use crate::cli::args::select::{Selection, require_some};
use crate::cli::args::times;
use crate::cli::context::Context;
use crate::cli::output::past::{Lines, Past, Told, letter};
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::format::tree::Timestamp;
use crate::history::record::{Kind, State};
use crate::history::runs::{self, Event, Run};
use crate::id::ObjectName;
use crate::pattern::{Judgement, Patterns, Verdict, fold_case};
use crate::repository::filter::Filter;
use crate::repository::snapshots::{Named, Snapshots};
use regex::bytes::{RegexSet, RegexSetBuilder};
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Look for files and folders in all snapshots
///
/// A pattern is a name with "*", "?" and "[a-z]", or with a "/" in it the end of a path ("work/*.txt"; with a "/" in front the whole
/// path; "**" stands for any number of folders). For each path that matches, its newest version is listed: what it is, its size, when
/// it was modified and last seen, and where it is; "firn restore" and "firn dump" take the last column as it stands.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to look for; several: any of them
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<OsString>,

    /// Patterns are regular expressions that match any part of the path
    #[arg(long)]
    regex: bool,

    /// Letters match in both cases
    #[arg(short, long)]
    ignore_case: bool,

    /// Only files of at least (+10M), at most (-10M) or exactly this size
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    size: Vec<Size>,

    /// Only what was modified later than this: a time, or a span of time ago (14d)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    newer: Option<jiff::Timestamp>,

    /// Only what was modified earlier than this
    #[arg(long, value_name = "TIME", value_parser = moment)]
    older: Option<jiff::Timestamp>,

    /// Only things of this type; several: any of them
    #[arg(long = "type", value_name = "TYPE", value_enum, value_delimiter = ',')]
    kind: Vec<Type>,

    /// List every version that matches, not only the newest
    #[arg(short, long)]
    all: bool,

    /// Look only at this snapshot
    #[arg(short, long, value_name = "SNAPSHOT", help_heading = "Which snapshots count")]
    snapshot: Option<String>,

    #[command(flatten)]
    selection: Selection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    AtLeast(u64),
    AtMost(u64),
    Exactly(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Type {
    /// Files
    #[value(name = "f")]
    File,
    /// Folders
    #[value(name = "d")]
    Directory,
    /// Symbolic links
    #[value(name = "l")]
    Symlink,
    /// Named pipes
    #[value(name = "p")]
    Fifo,
    /// Sockets
    #[value(name = "s")]
    Socket,
    /// Character devices
    #[value(name = "c")]
    CharDevice,
    /// Block devices
    #[value(name = "b")]
    BlockDevice,
}

impl Type {
    fn is(self, kind: Kind) -> bool {
        kind == match self {
            Type::File => Kind::File,
            Type::Directory => Kind::Directory,
            Type::Symlink => Kind::Symlink,
            Type::Fifo => Kind::Fifo,
            Type::Socket => Kind::Socket,
            Type::CharDevice => Kind::CharDevice,
            Type::BlockDevice => Kind::BlockDevice,
        }
    }
}

fn size(text: &str) -> std::result::Result<Size, String> {
    let (make, amount): (fn(u64) -> Size, &str) = match text.as_bytes().first() {
        Some(b'+') => (Size::AtLeast, &text[1..]),
        Some(b'-') => (Size::AtMost, &text[1..]),
        _ => (Size::Exactly, text),
    };
    match amount.parse() {
        Ok(bytes) if amount.bytes().all(|byte| byte.is_ascii_digit()) => Ok(make(bytes)),
        _ => amount::size(amount).map(make),
    }
}

fn moment(text: &str) -> std::result::Result<jiff::Timestamp, String> {
    if let Ok(ago) = amount::duration(text) {
        return jiff::Timestamp::now().checked_sub(ago).map_err(|error| error.to_string());
    }
    times::parse(text).map_err(|why| format!("{why}, or as a span of time like 14d"))
}

/// What paths must match.
enum Wanted {
    Globs(Patterns),
    /// The same in one case, as paths are made for it.
    Folded(Patterns),
    Expressions(RegexSet),
}

impl Wanted {
    fn matches(&self, path: &[u8], runs: &[Run]) -> bool {
        let path = if path.is_empty() { b"/" } else { path };
        match self {
            Wanted::Globs(patterns) => matches(patterns, path, runs),
            Wanted::Folded(patterns) => matches(patterns, &fold_case(path), runs),
            Wanted::Expressions(set) => set.is_match(path),
        }
    }
}

/// Of this path alone: what is in a folder that matches does not match for that.
fn matches(patterns: &Patterns, path: &[u8], runs: &[Run]) -> bool {
    let judgement = patterns.judge(path, runs::was_folder(runs), Judgement::default());
    patterns.verdict(judgement) == Verdict::Matched
}

impl Args {
    pub(crate) fn run(self, context: &Context) -> Result<u8> {
        let wanted = self.wanted()?;
        let filter = self.selection.filter()?;
        let mut past = Past::open(context, "find")?;
        require_some(&past.snapshots.live, &filter)?;
        let only = self.only(context, &past.snapshots, &filter)?;
        let counts = |named: &Named| only.is_none_or(|name| name == named.name) && filter.wants(&named.snapshot);
        let mut out = Lines::new();
        past.catalog.ask_each(
            &past.reporter,
            &context.stop,
            &mut |catalog, each| {
                let lines = runs::Lines::new(catalog, &counts);
                lines.walk(b"", &mut |path, runs| {
                    context.stop.check()?;
                    if wanted.matches(path, runs) {
                        lines.events(path, runs).into_iter().try_for_each(|events| self.pick(path, events, each))?;
                    }
                    Ok(())
                })
            },
            &mut |(path, told, versions)| show(&mut out, context.output.json, &path, &told, versions),
        )?;
        out.finish()?;
        Ok(past.code())
    }

    fn wanted(&self) -> Result<Wanted> {
        if self.ignore_case && !self.regex {
            let folded = self.patterns.iter().map(|text| fold_case(text.as_bytes()));
            return Patterns::from_arguments(folded).map(Wanted::Folded);
        }
        if !self.regex {
            return Patterns::from_arguments(self.patterns.iter().map(|text| text.as_bytes())).map(Wanted::Globs);
        }
        let texts = self.patterns.iter().map(|text| {
            text.to_str().ok_or_else(|| Error::new(ErrorKind::Input, "A regular expression must be UTF-8"))
        });
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let set = RegexSetBuilder::new(texts).case_insensitive(self.ignore_case).dot_matches_new_line(true).build();
        set.map(Wanted::Expressions).map_err(|error| {
            // The library draws a picture of several lines, of which the last one says why.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Error::new(ErrorKind::Input, format!("A pattern is not a regular expression: {why}"))
                .with_hint("Without --regex, patterns are names with \"*\" and \"?\".")
        })
    }

    fn only(&self, context: &Context, snapshots: &Snapshots, filter: &Filter) -> Result<Option<ObjectName>> {
        let choose = |text: &String| context.choose(snapshots, text, b"", filter).map(|named| named.name);
        self.snapshot.as_ref().map(choose).transpose()
    }

    /// The versions of a path on a host that match.
    fn pick(
        &self,
        path: &[u8],
        events: Vec<Event>,
        each: &mut dyn FnMut((Vec<u8>, Told, usize)) -> Result<()>,
    ) -> Result<()> {
        let matching = |event| match event {
            Event::Version { run, is_current } if self.fits(&run.state) => Some(Told::new(&run, is_current)),
            _ => None,
        };
        let matching: Vec<Told> = events.into_iter().filter_map(matching).collect();
        let count = matching.len();
        let from = if self.all { 0 } else { count.saturating_sub(1) };
        matching.into_iter().skip(from).try_for_each(|told| each((path.to_vec(), told, count)))
    }

    fn fits(&self, state: &State) -> bool {
        let mtime = state.mtime;
        // Times beyond the calendar are later, or earlier, than all others.
        let since = |time: &jiff::Timestamp| Timestamp {
            seconds: time.as_nanosecond().div_euclid(1_000_000_000) as i64,
            nanos: time.as_nanosecond().rem_euclid(1_000_000_000) as u32,
        };
        (self.kind.is_empty() || self.kind.iter().any(|kind| kind.is(state.kind)))
            && self.newer.as_ref().is_none_or(|time| mtime > since(time))
            && self.older.as_ref().is_none_or(|time| mtime < since(time))
            && (self.size.is_empty() || state.kind == Kind::File)
            && self.size.iter().all(|size| match size {
                Size::AtLeast(bytes) => state.size >= *bytes,
                Size::AtMost(bytes) => state.size <= *bytes,
                Size::Exactly(bytes) => state.size == *bytes,
            })
    }
}

fn show(out: &mut Lines, as_json: bool, path: &[u8], told: &Told, versions: usize) -> Result<()> {
    if as_json {
        let mut value = told.json("match", path);
        value["versions"] = json!(versions);
        return out.json(&value);
    }
    let state = &told.state;
    let before = format!(
        "{} {:>12}  {}  {}  ",
        letter(state.kind),
        state.size,
        text::file_time(state.mtime),
        text::local_time(told.last.snapshot.time),
    );
    out.place(&before, &told.last, path, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(size("+10k"), Ok(Size::AtLeast(10 << 10)));
        assert_eq!((size("-5"), size("7b")), (Ok(Size::AtMost(5)), Ok(Size::Exactly(7))));
        for wrong in ["", "+", "+-5", "++5", "x", "5x"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(moment("2026-01-02T03:04:05Z").unwrap().as_second(), 1_767_323_045);
        let ago = jiff::Timestamp::now().as_second() - moment("1d").unwrap().as_second();
        assert!((86_400..86_500).contains(&ago));
        assert!(moment("soon").is_err());
    }
}
