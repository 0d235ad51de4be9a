//! Which snapshots a command counts, by host, tags and paths, and which one of them an address means: the one way in which all
//! commands choose. Not for: what a policy keeps (see `forget`).

use crate::cli::context::{Context, absolute, parse_address};
use crate::cli::output::message;
use crate::cli::output::text;
use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::filter::{Filter, tag_list};
use crate::repository::snapshots::{Address, LATEST, Named, Snapshots, doubts, is_latest};
use crate::view::path::find;
use serde_json::json;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;

/// Which snapshots count.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub(crate) struct Selection {
    /// Count only snapshots of this host; several times: of any of them
    #[arg(short = 'H', long, value_name = "HOST", help_heading = "Which snapshots count")]
    host: Vec<String>,

    /// Count only snapshots with this tag; with "a,b" those that have both; several times: any of them
    #[arg(long, value_name = "TAGS", help_heading = "Which snapshots count")]
    tag: Vec<String>,

    /// Count only snapshots of this source path; several times: of all of them
    #[arg(id = "backed_up", long = "path", value_name = "PATH", help_heading = "Which snapshots count")]
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    path: Vec<OsString>,
}

impl Selection {
    /// What is typed, resolved.
    pub(crate) fn filter(&self) -> Result<Filter> {
        // Counting for nothing, an unset variable would make a policy forget snapshots of all hosts.
        if self.host.iter().any(|host| host.trim().is_empty()) {
            return Err(Error::new(ErrorKind::Input, "An empty host names no snapshots")
                .with_hint("Leave --host out to count those of all hosts."));
        }
        let source = |path: &OsString| absolute(path).map(|path| if path.is_empty() { b"/".to_vec() } else { path });
        Ok(Filter {
            hosts: self.host.clone(),
            tags: self.tag.iter().map(|text| tag_list(text)).collect(),
            paths: self.path.iter().map(source).collect::<Result<_>>()?,
        })
    }

    /// Whether nothing was typed.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Selection::default()
    }
}

/// An error if a filter fits none of these: a misspelt name must not look like a repository in which there is nothing to tell.
pub(crate) fn require_some(snapshots: &[Named], filter: &Filter) -> Result<()> {
    if filter.is_empty() || snapshots.iter().any(|named| filter.wants(&named.snapshot)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, format!("There is no snapshot with {}", filter.words()))
        .with_hint("\"firn snapshots\" lists those that there are."))
}

/// Whether a snapshot's sources hold a path, or lie below it.
pub(crate) fn has_to_do(snapshot: &Snapshot, path: &[u8]) -> bool {
    let is_below = |path: &[u8], above: &[u8]| {
        above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    snapshot.paths.iter().any(|source| {
        let source = if source.0 == b"/" { b"" } else { source.0.as_slice() };
        is_below(path, source) || is_below(source, path)
    })
}

impl Context {
    /// The snapshot and the path in it that a person wrote as `SNAPSHOT[:/PATH]`.
    pub(crate) fn resolve(
        &self,
        repository: &Repository,
        text: &OsStr,
        selection: &Selection,
    ) -> Result<(Named, Vec<u8>)> {
        let address = parse_address(text)?;
        let filter = selection.filter()?;
        let snapshots = self.snapshots(repository)?;
        let named = self.choose(&snapshots, &address.snapshot, &address.path, &filter)?;
        if find(repository, &named.snapshot, &address.path).is_ok() {
            self.warn_of_others(&snapshots, named, &address, &filter);
        }
        Ok((named.clone(), address.path))
    }

    /// The snapshots of these names or, if there are none, all that the selection counts; `None` if nothing was typed at all.
    pub(crate) fn choose_all(
        &self,
        repository: &Repository,
        names: &[String],
        selection: &Selection,
    ) -> Result<Option<Vec<ObjectName>>> {
        let filter = selection.filter()?;
        if names.is_empty() && selection.is_empty() {
            return Ok(None);
        }
        let snapshots = self.snapshots(repository)?;
        if !names.is_empty() {
            let named = names.iter().map(|name| Ok(self.choose(&snapshots, name, b"", &filter)?.name));
            return named.collect::<Result<_>>().map(Some);
        }
        let counted = snapshots.live.iter().filter(|named| filter.wants(&named.snapshot));
        let chosen: Vec<ObjectName> = counted.map(|named| named.name).collect();
        require_some(&snapshots.live, &filter)?;
        Ok(Some(chosen))
    }

    /// The snapshot of this name among those that the filter wants; `path` is what is wanted of it. If the name is one that depends
    /// on what else there is, this tells which snapshot it stands for, and where somebody may mean another one.
    pub(crate) fn choose<'s>(
        &self,
        snapshots: &'s Snapshots,
        name: &str,
        path: &[u8],
        filter: &Filter,
    ) -> Result<&'s Named> {
        let chosen = snapshots.resolve(name, filter)?;
        if !is_latest(name) {
            return Ok(chosen);
        }
        self.tell_chosen(name, chosen);
        let warn = |error: &Error| message::warning(error, "choosing a snapshot", self.output.json);
        if name == LATEST {
            let wanted = snapshots.live.iter().filter(|named| filter.wants(&named.snapshot));
            doubts(&snapshots.dates, chosen, wanted).iter().for_each(|(_, doubt)| warn(doubt));
        }
        if path.is_empty() {
            return Ok(chosen);
        }
        let mut wanted = snapshots.live.iter().rev().filter(|named| filter.wants(&named.snapshot));
        if !has_to_do(&chosen.snapshot, path)
            && let Some(other) = wanted.find(|named| has_to_do(&named.snapshot, path))
        {
            let shown = text::escape(path);
            let message = format!("The latest snapshot, \"{}\", is not of \"{shown}\"", chosen.name.short());
            let hint = format!("The latest one that is: \"{}:{shown}\". --path chooses by source.", other.name.short());
            warn(&Error::new(ErrorKind::Input, message).with_hint(hint));
        }
        Ok(chosen)
    }

    /// Warns where a path is taken from the latest snapshot and somebody may mean that of another host. For paths that are there.
    pub(crate) fn warn_of_others(&self, snapshots: &Snapshots, chosen: &Named, address: &Address, filter: &Filter) {
        let path = address.path.as_slice();
        if path.is_empty()
            || !is_latest(&address.snapshot)
            || !filter.hosts.is_empty()
            || !has_to_do(&chosen.snapshot, path)
        {
            return;
        }
        let with_path =
            snapshots.live.iter().filter(|named| filter.wants(&named.snapshot) && has_to_do(&named.snapshot, path));
        let others: BTreeSet<&str> =
            with_path.map(|named| named.snapshot.host.as_str()).filter(|host| *host != chosen.snapshot.host).collect();
        if others.is_empty() {
            return;
        }
        let list: Vec<String> = others.iter().map(|host| format!("\"{}\"", text::line(host))).collect();
        let message = format!(
            "\"{}\" is taken from the snapshot of the host \"{}\"; there are also snapshots of that path from {}",
            text::escape(path),
            text::line(&chosen.snapshot.host),
            list.join(", ")
        );
        let warning = Error::new(ErrorKind::Input, message).with_hint("Choose with --host.");
        message::warning(&warning, "choosing a snapshot", self.output.json);
    }

    fn tell_chosen(&self, name: &str, chosen: &Named) {
        if self.output.quiet {
            return;
        }
        let Named { name: id, snapshot } = chosen;
        let paths: Vec<String> = snapshot.paths.iter().map(|path| text::escape(&path.0)).collect();
        let message = format!(
            "\"{name}\" is the snapshot {} of {} from the host \"{}\" ({})",
            id.short(),
            text::local_time(snapshot.time),
            text::line(&snapshot.host),
            paths.join(" ")
        );
        let line = if self.output.json {
            json!({ "message_type": "note", "message": message, "snapshot_id": id, "hostname": snapshot.host })
                .to_string()
        } else {
            format!("Note: {message}")
        };
        // Nobody is left to tell if this cannot be written.
        drop(writeln!(std::io::stderr().lock(), "{line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json::PathText;
    use crate::format::tree::Totals;
    use crate::id::{ChunkId, SessionId, WriterId};

    #[test]
    fn paths_and_sources_that_have_to_do_with_each_other() {
        let by = (WriterId([1; 16]), SessionId([1; 16]));
        let mut snapshot = Snapshot::of_tests(by, jiff::Timestamp::UNIX_EPOCH, ChunkId([0; 32]), Totals::default());
        snapshot.paths = vec![PathText(b"/home/me".to_vec()), PathText(b"/etc".to_vec())];
        for path in ["", "/home", "/home/me", "/home/me/x", "/etc/y"] {
            assert!(has_to_do(&snapshot, path.as_bytes()), "{path}");
        }
        for path in ["/home/m", "/home/me2", "/usr", "/etcetera"] {
            assert!(!has_to_do(&snapshot, path.as_bytes()), "{path}");
        }
        snapshot.paths = vec![PathText(b"/".to_vec())];
        assert!(has_to_do(&snapshot, b"/usr") && has_to_do(&snapshot, b""));
    }

    #[test]
    fn what_is_typed_becomes_a_filter() {
        let selection =
            Selection { host: vec!["a".into()], tag: vec!["x, y".into()], path: vec!["/a/./b/".into(), "/".into()] };
        let filter = selection.filter().unwrap();
        assert_eq!(
            (filter.tags, filter.paths),
            (vec![vec!["x".to_owned(), "y".to_owned()]], vec![b"/a/b".to_vec(), b"/".to_vec()])
        );
        assert!(!selection.is_empty() && Selection::default().is_empty());
        assert!(Selection { path: vec!["".into()], ..Selection::default() }.filter().is_err());
    }
}
