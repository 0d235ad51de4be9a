//! Where snapshots stand in a mount: styles, templates of paths and times, filters. Pure functions. Not for: the folders that
//! come of it (see `folders`).

use super::names::{self, DEFAULT_TIME};
use crate::error::{Error, ErrorKind, Result};
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::repository::filter::Filter;
use crate::repository::snapshots::Named;
use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap};

/// How Samba wants to find versions for Windows, in UTC.
pub const GMT_TIME: &str = "@GMT-%Y.%m.%d-%H.%M.%S";
/// Longest name that is made here, in bytes; leaves room for a number behind it.
const LONGEST: usize = 240;

/// What the folders around the snapshots look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// All snapshots by time, and links to them by host, tag and id.
    #[default]
    Default,
    /// The snapshots by time, at the root.
    Flat,
    /// The snapshots at the root and nothing else, with the names by which Samba finds the versions of a share.
    PreviousVersions,
    /// By templates that the user gave.
    Templates,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Time,
    Host,
    Tag,
    User,
    ShortId,
    Id,
}

/// A path with places for what is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// The folder that it leads to gets a link to the newest one in it.
    latest: bool,
}

impl Template {
    /// Reads `%t` (time), `%h` (host), `%T` (a tag), `%u` (user), `%i` (short id), `%I` (id) and `%%`.
    pub fn parse(text: &str) -> Result<Template> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Input, format!("\"{text}\" is not a template of a path: {why}"))
                .with_hint("An example: \"%h/%t\". %t time, %h host, %T tag, %u user, %i short id, %I id.")
        };
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let part = match rest.next() {
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some('t') => Part::Time,
                Some('h') => Part::Host,
                Some('T') => Part::Tag,
                Some('u') => Part::User,
                Some('i') => Part::ShortId,
                Some('I') => Part::Id,
                Some(other) => return Err(wrong(&format!("\"%{other}\" stands for nothing"))),
                None => return Err(wrong("a \"%\" at the end stands for nothing")),
            };
            parts.extend((!plain.is_empty()).then(|| Part::Text(std::mem::take(&mut plain))));
            parts.push(part);
        }
        parts.extend((!plain.is_empty()).then_some(Part::Text(plain)));
        let (last, folders) = match text.rsplit_once('/') {
            Some((folders, last)) => (last, folders),
            None => (text, ""),
        };
        if last.is_empty() || folders.split('/').chain([last]).any(|name| matches!(name, "." | "..")) {
            return Err(wrong("it has to lead downwards and end in a name"));
        }
        if text.contains(char::is_control) {
            return Err(wrong("it has a character that is not printable"));
        }
        Ok(Template { latest: last.contains("%t"), parts })
    }

    fn plain(parts: &[Part], latest: bool) -> Template {
        Template { parts: parts.to_vec(), latest }
    }

    /// The paths of a snapshot: one, or one for each tag; none if it has no tag and one is wanted.
    fn paths(&self, snapshot: &Snapshot, time: &str, short: &str, id: &ObjectName) -> Vec<Vec<String>> {
        let with = |tag: Option<&String>| {
            let mut text = String::new();
            for part in &self.parts {
                match part {
                    Part::Text(plain) => text.push_str(plain),
                    Part::Time => text.push_str(time),
                    Part::Host => text.push_str(&names::safe_name(&snapshot.host)),
                    Part::Tag => text.push_str(&tag.map_or_else(String::new, |tag| names::safe_name(tag))),
                    Part::User => text.push_str(&names::safe_name(&snapshot.user)),
                    Part::ShortId => text.push_str(short),
                    Part::Id => text.push_str(&id.to_string()),
                }
            }
            split(&text)
        };
        match self.parts.contains(&Part::Tag) {
            true => snapshot.tags.iter().map(|tag| with(Some(tag))).collect(),
            false => vec![with(None)],
        }
    }
}

/// The names of a path, made safe; at least one.
fn split(text: &str) -> Vec<String> {
    let names = text.split('/').filter(|name| !name.is_empty()).map(|name| match name {
        "." | ".." => format!("_{name}"),
        name => {
            let mut name = name.replace(char::is_control, "_");
            while name.len() > LONGEST {
                name.pop();
            }
            name
        }
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() { vec!["_".to_owned()] } else { names }
}

/// Which snapshots are shown, and where.
#[derive(Clone, Debug)]
pub struct Layout {
    style: Style,
    templates: Vec<Template>,
    time: String,
    zone: TimeZone,
    root: Vec<u8>,
    /// Which snapshots are shown.
    pub filter: Filter,
}

impl From<TimeZone> for Layout {
    fn from(zone: TimeZone) -> Layout {
        Layout {
            style: Style::Default,
            templates: templates(Style::Default),
            time: DEFAULT_TIME.to_owned(),
            zone,
            root: Vec::new(),
            filter: Filter::default(),
        }
    }
}

impl Default for Layout {
    fn default() -> Layout {
        Layout::from(TimeZone::system())
    }
}

impl Layout {
    /// The usual folders of a style.
    pub fn of(style: Style, zone: TimeZone) -> Layout {
        let mut layout = Layout::from(zone);
        layout.style = style;
        layout.templates = templates(style);
        if style == Style::PreviousVersions {
            (layout.time, layout.zone) = (GMT_TIME.to_owned(), TimeZone::UTC);
        }
        layout
    }

    /// By these templates: the first path of a snapshot is where it stands, all others are links.
    pub fn with_templates(mut self, templates: Vec<Template>) -> Layout {
        (self.style, self.templates) = (Style::Templates, templates);
        self
    }

    /// With times written in this way, as by `date`.
    pub fn with_time(mut self, format: &str) -> Result<Layout> {
        let sample = Timestamp::UNIX_EPOCH.to_zoned(self.zone.clone());
        let wrong = |why: String| {
            Error::new(ErrorKind::Input, format!("\"{format}\" is not a template of a time: {why}"))
                .with_hint(format!("The usual one is \"{DEFAULT_TIME}\"; the letters are those of date(1)."))
        };
        let written = strtime::format(format, &sample).map_err(|error| wrong(error.to_string()))?;
        if written.is_empty() || written.contains(char::is_control) {
            return Err(wrong("it writes nothing that can be a name".to_owned()));
        }
        format.clone_into(&mut self.time);
        Ok(self)
    }

    /// With this directory of each snapshot, absolute and normalised, in place of its root.
    pub fn with_root(mut self, path: Vec<u8>) -> Layout {
        self.root = path;
        self
    }

    /// With these snapshots only.
    pub fn with_filter(mut self, filter: Filter) -> Layout {
        self.filter = filter;
        self
    }

    /// The directory of each snapshot that is shown; empty for the root.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// What the folders look like.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Whether each snapshot that is meant surely has the directory that is shown. If not, one has to look.
    pub fn surely_has_root(&self, snapshot: &Snapshot) -> bool {
        // What leads to a path that was backed up is there; the path itself may be a file.
        let leads = |path: &[u8]| path.strip_prefix(self.root.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
        self.root.is_empty() || snapshot.paths.iter().any(|path| leads(&path.0) && snapshot.totals.entries > 0)
    }

    /// Names for snapshots by their times, unique. The later one of two that would be called the same gets `_2`, and so on;
    /// Samba takes whole times only, so there it gets the next second that is free.
    fn times(&self, sorted: &[&Named]) -> HashMap<ObjectName, String> {
        let mut moments: Vec<_> = sorted.iter().map(|named| (named.snapshot.time, named.name)).collect();
        moments.sort();
        if self.style == Style::PreviousVersions {
            let mut before = i64::MIN;
            for (time, _) in &mut moments {
                before = time.as_second().max(before.saturating_add(1));
                *time = Timestamp::from_second(before).unwrap_or(*time);
            }
        }
        names::unique_times(&moments, &|time| self.written(time))
    }

    /// A time as it is written here.
    pub fn written(&self, time: Timestamp) -> String {
        // The format was tried before; what is odd about one time shall not hide the others.
        let written = strtime::format(&self.time, &time.to_zoned(self.zone.clone()));
        written.unwrap_or_else(|_| names::time_name(time, &self.zone))
    }

    /// Where each of these snapshots stands. Snapshots that no template gives a path are left out.
    pub fn places(&self, snapshots: &[&Named]) -> Vec<Places> {
        let mut sorted = snapshots.to_vec();
        sorted.sort_by_key(|named| (named.snapshot.time, named.name));
        let times = self.times(&sorted);
        let ids: Vec<_> = sorted.iter().map(|named| named.name).collect();
        let short = names::short_names(&ids);
        let mut taken = Taken::default();
        let mut found = Vec::with_capacity(sorted.len());
        for named in sorted {
            let mut paths = Vec::new();
            for template in &self.templates {
                let (time, short) = (&times[&named.name], &short[&named.name]);
                for mut path in template.paths(&named.snapshot, time, short, &named.name) {
                    taken.take(&mut path);
                    paths.push((path, template.latest));
                }
            }
            if !paths.is_empty() {
                found.push(Places { name: named.name, time: named.snapshot.time, paths });
            }
        }
        found
    }
}

/// Where a snapshot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The snapshot.
    pub name: ObjectName,
    /// Its time.
    pub time: Timestamp,
    /// Names from the mount's root on, and whether the folder before the last one wants a link to the newest in it. The first
    /// path is where the snapshot is, the others are links. Never empty.
    pub paths: Vec<(Vec<String>, bool)>,
}

/// Paths in use: `true` for what stands for a snapshot, `false` for folders.
#[derive(Default)]
struct Taken(BTreeMap<String, bool>);

impl Taken {
    /// Takes a path, with numbers behind names that stand for something else.
    fn take(&mut self, path: &mut [String]) {
        let mut above = String::new();
        let last = path.len().saturating_sub(1);
        for (at, name) in path.iter_mut().enumerate() {
            let mut number = 1;
            let below = loop {
                let tried = if number == 1 { name.clone() } else { format!("{name}_{number}") };
                let below = format!("{above}/{tried}");
                match self.0.get(&below) {
                    None => {
                        self.0.insert(below.clone(), at == last);
                    }
                    Some(false) if at < last => {}
                    Some(_) => {
                        number += 1;
                        continue;
                    }
                }
                *name = tried;
                break below;
            };
            above = below;
        }
    }
}

fn templates(style: Style) -> Vec<Template> {
    let text = |text: &str| Part::Text(text.to_owned());
    match style {
        Style::Flat => vec![Template::plain(&[Part::Time], true)],
        Style::PreviousVersions => vec![Template::plain(&[Part::Time], false)],
        Style::Default | Style::Templates => vec![
            Template::plain(&[text("snapshots/"), Part::Time], false),
            Template::plain(&[text("hosts/"), Part::Host, text("/"), Part::Time], true),
            Template::plain(&[text("tags/"), Part::Tag, text("/"), Part::Time], false),
            Template::plain(&[text("ids/"), Part::ShortId], false),
        ],
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
