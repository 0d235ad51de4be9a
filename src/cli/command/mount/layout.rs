//! Arguments of `firn mount` that say which snapshots stand where. Not for: what comes of them (see `crate::mount::tree::layout`).

use crate::cli::args::select::{Selection, has_to_do};
use crate::cli::context::absolute;
use crate::cli::output::text;
use crate::error::{Error, Result};
use crate::mount::tree::layout::{GMT_TIME, Layout, Style, Template};
use crate::repository::filter::Filter;
use crate::repository::snapshots::{Named, Snapshots};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct LayoutArgs {
    /// Show this folder of each snapshot that has it, and nothing around it; with "flat" as the layout if none is named
    ///
    /// "firn mount --root ~ ~/.snapshots" puts the past of the home folder into it: ~/.snapshots/TIME/Documents.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::DirPath)]
    root: Option<PathBuf>,

    /// What the folders around the snapshots look like
    #[arg(long, value_name = "LAYOUT", value_enum, conflicts_with = "path_template")]
    layout: Option<Choice>,

    /// Where snapshots stand: %t time, %h host, %T tag, %u user, %i short id, %I id; several times: the first is the place, the
    /// others get links to it
    #[arg(long, value_name = "TEMPLATE")]
    path_template: Vec<String>,

    /// How times are written, with the letters of date(1)
    #[arg(long, value_name = "TEMPLATE")]
    time_template: Option<String>,

    #[command(flatten)]
    pub(crate) selection: Selection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// The folders latest, snapshots, hosts, tags, ids, versions and deleted
    Default,
    /// The times at the root, and latest
    Flat,
    /// As Samba wants it for Previous Versions in Windows: @GMT-YYYY.MM.DD-hh.mm.ss at the root
    PreviousVersions,
}

impl LayoutArgs {
    /// The layout that is asked for.
    pub(crate) fn layout(&self) -> Result<Layout> {
        let style = match (self.layout, &self.root) {
            (Some(Choice::Default), _) | (None, None) => Style::Default,
            (Some(Choice::Flat), _) | (None, Some(_)) => Style::Flat,
            (Some(Choice::PreviousVersions), _) => Style::PreviousVersions,
        };
        let mut layout = Layout::of(style, TimeZone::system());
        if !self.path_template.is_empty() {
            let templates = self.path_template.iter().map(|text| Template::parse(text)).collect::<Result<_>>()?;
            layout = layout.with_templates(templates);
        }
        if let Some(format) = &self.time_template {
            if style == Style::PreviousVersions {
                return Err(Error::new(
                    crate::error::ErrorKind::Input,
                    "Times in the layout \"previous-versions\" are written as Samba wants them",
                )
                .with_hint("Leave --time-template out, or use the layout \"flat\"."));
            }
            layout = layout.with_time(format)?;
        }
        if let Some(root) = &self.root {
            layout = layout.with_root(absolute(root.as_os_str())?);
        }
        Ok(layout.with_filter(self.selection.filter()?))
    }

    /// Whose snapshot "latest" shows, if there are those of other hosts as well.
    pub(crate) fn whose_latest(&self, snapshots: &Snapshots, filter: &Filter) -> Result<Option<String>> {
        let layout = self.layout()?;
        let elsewhere = match layout.style() {
            Style::Default => "\"hosts/HOST/latest\" shows that of each host",
            Style::Flat => "--host chooses",
            Style::PreviousVersions | Style::Templates => return Ok(None),
        };
        let is_shown = |named: &&Named| {
            filter.wants(&named.snapshot) && (self.root.is_none() || has_to_do(&named.snapshot, layout.root()))
        };
        let shown: Vec<&Named> = snapshots.live.iter().filter(is_shown).collect();
        let hosts: BTreeSet<&str> = shown.iter().map(|named| named.snapshot.host.as_str()).collect();
        let Some(latest) = shown.last() else { return Ok(None) };
        let host = latest.snapshot.host.as_str();
        let quoted = |host: &&str| format!("\"{}\"", text::line(host));
        let others: Vec<String> = hosts.iter().filter(|other| **other != host).map(quoted).collect();
        Ok((!others.is_empty()).then(|| {
            let (host, others) = (quoted(&host), others.join(", "));
            format!("\"latest\" shows the newest snapshot, of the host {host}; there are also snapshots from {others} ({elsewhere})")
        }))
    }

    /// What smb.conf needs, for this mountpoint and root if they are given.
    pub(crate) fn samba_help(&self, mountpoint: Option<&Path>) -> Result<String> {
        let full = |path: Option<&Path>, example: &str| match path {
            Some(path) => absolute(path.as_os_str()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            None => Ok(example.to_owned()),
        };
        let root = full(self.root.as_deref(), "/srv/share")?;
        let point = full(mountpoint, "/srv/past")?;
        let [root_word, point_word] = [&root, &point].map(|path| text::shell(Path::new(path)));
        Ok(format!(
            "\
# Windows shows the snapshots of \"{root}\" as \"Previous Versions\" when they are mounted as root with
#   firn mount --layout previous-versions --root {root_word} --allow-other --daemon {point_word}
# and this is in smb.conf, where [share] and its path are the share's own:
[share]
    path = {root}
    vfs objects = shadow_copy2
    shadow:snapdir = {point}
    shadow:basedir = {root}
    shadow:mountpoint = {root}
    shadow:format = {GMT_TIME}
    shadow:localtime = no
    shadow:sort = desc
"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        layout: LayoutArgs,
    }

    fn parsed(arguments: &[&str]) -> LayoutArgs {
        Line::try_parse_from(["firn"].iter().chain(arguments)).unwrap().layout
    }

    #[test]
    fn a_root_makes_it_flat_unless_a_layout_is_named() {
        let style = |arguments: &[&str]| parsed(arguments).layout().unwrap().style();
        assert_eq!(style(&[]), Style::Default);
        assert_eq!(style(&["--root", "/a"]), Style::Flat);
        assert_eq!(style(&["--root", "/a", "--layout", "default"]), Style::Default);
        assert_eq!(style(&["--layout", "previous-versions"]), Style::PreviousVersions);
        assert_eq!(style(&["--path-template", "%h/%t", "--root", "/a"]), Style::Templates);
        assert_eq!(parsed(&["--root", "/a/./b/../c/"]).layout().unwrap().root(), b"/a/c");
        assert_eq!(parsed(&["--root", "/"]).layout().unwrap().root(), b"");
        assert!(parsed(&["--layout", "previous-versions", "--time-template", "%Y"]).layout().is_err());
    }

    #[test]
    fn the_words_for_samba_name_what_was_given() {
        let spaced = parsed(&["--root", "/srv/my docs"]).samba_help(Some(Path::new("/mnt/the past"))).unwrap();
        assert!(spaced.contains("--root '/srv/my docs' --allow-other --daemon '/mnt/the past'\n"), "{spaced}");
        assert!(spaced.contains("shadow:snapdir = /mnt/the past\n"), "{spaced}");
        let text = parsed(&["--root", "/srv/./docs"]).samba_help(Some(Path::new("/mnt/past"))).unwrap();
        for line in
            ["shadow:snapdir = /mnt/past\n", "shadow:basedir = /srv/docs\n", "format = @GMT-%Y.%m.%d-%H.%M.%S\n"]
        {
            assert!(text.contains(line), "{text}");
        }
    }
}
