//! Patterns that leave paths out or pick them (`--exclude`, `--include`), on raw bytes. Not for: reading the tree.
//!
//! The rules are restic's. A pattern is split at `/`; each part is a glob: `*` any bytes, `?` one character (or one byte
//! that is not UTF-8), `[a-z]` and `[^a-z]` or `[!a-z]`, `\` takes the next byte as it is. A part `**` stands for any
//! number of parts, at the end for at least one. A pattern with a leading `/` begins at the root; any other begins at any name of the path. What
//! matches a directory matches everything below it. `!` in front undoes earlier patterns; the last that matches decides.
//! One rule is stricter than restic's: a `/` at the end restricts a pattern to directories, as in `.gitignore`.
//! `$VAR` and `~` mean themselves.

use crate::error::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a list of patterns says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No pattern matches.
    Unmatched,
    /// The last pattern that matches is a plain one: excluded, or included.
    Matched,
    /// The last pattern that matches has a `!` in front.
    Negated,
}

/// A verdict and the pattern that gave it; what a directory passes on to the things in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Judgement(usize);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Any,
    /// `[..]`: negated, and ranges of characters with both ends.
    Class(bool, Vec<(u32, u32)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Glob(Vec<Token>),
    /// `**`
    Deep,
}

#[derive(Clone, Debug)]
struct Pattern {
    parts: Vec<Part>,
    anchored: bool,
    negated: bool,
    only_directories: bool,
    used: Used,
}

/// Whether a pattern, or a copy of it, has matched anything.
#[derive(Clone, Debug, Default)]
struct Used(Arc<AtomicBool>);

impl Used {
    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A list of patterns, in order.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    list: Vec<Pattern>,
    // A name, and one more than the index of the last pattern that is just this name. Lists of a thousand names are
    // common, and each would else be tried on each path.
    names: HashMap<Vec<u8>, usize>,
    // Indices of all others, ascending.
    others: Vec<usize>,
    texts: Vec<Vec<u8>>,
}

impl Patterns {
    /// No patterns: nothing matches.
    pub fn new() -> Self {
        Patterns::default()
    }

    /// The patterns of command-line arguments, one each.
    pub fn from_arguments<T: AsRef<[u8]>>(arguments: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut patterns = Patterns::new();
        for argument in arguments {
            patterns.add(argument.as_ref())?;
        }
        Ok(patterns)
    }

    /// Adds the patterns of a file's content, one per line. White space around a line, blank lines and lines that begin
    /// with `#` do not count; `\` in front of `#`, `!` or a space keeps it. `name` is for messages.
    pub fn add_file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        for (number, line) in content.split(|&b| b == b'\n').enumerate() {
            let line = trim(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            self.add(line)
                .map_err(|error| error.context(format!("Line {} of \"{name}\" is no pattern", number + 1)))?;
        }
        Ok(())
    }

    /// Adds one pattern. Errors: `Input` if it is empty or a bracket is not closed.
    pub fn add(&mut self, text: &[u8]) -> Result<()> {
        let pattern = Pattern::parse(text)?;
        let index = self.list.len();
        match &pattern.parts[..] {
            [Part::Literal(name)] if !pattern.anchored && !pattern.only_directories => {
                self.names.insert(name.clone(), index + 1);
            }
            _ => self.others.push(index),
        }
        self.list.push(pattern);
        self.texts.push(text.to_vec());
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The patterns as they were given, for the snapshot's record.
    pub fn texts(&self) -> &[Vec<u8>] {
        &self.texts
    }

    /// Those that have matched nothing so far, each once.
    pub fn unused(&self) -> Vec<&[u8]> {
        let mut unused: Vec<&[u8]> = Vec::new();
        for (pattern, text) in self.list.iter().zip(&self.texts) {
            if !pattern.used.get() && !unused.contains(&text.as_slice()) {
                unused.push(text);
            }
        }
        unused
    }

    /// A sentence about patterns that matched nothing: they may be misspelt.
    pub fn note_of_unused(&self) -> Option<String> {
        const SHOWN: usize = 10;
        let unused = self.unused();
        let mut list: Vec<String> =
            unused.iter().take(SHOWN).map(|text| format!("\"{}\"", String::from_utf8_lossy(text))).collect();
        if unused.len() > SHOWN {
            list.push(format!("and {} more", unused.len() - SHOWN));
        }
        match unused.len() {
            0 => None,
            1 => Some(format!("Nothing matched the pattern {}", list[0])),
            _ => Some(format!("Nothing matched these patterns: {}", list.join(", "))),
        }
    }

    /// What the patterns say about an absolute path (or one relative to the tree's root, which is the same).
    pub fn matches(&self, path: &[u8], is_dir: bool) -> Verdict {
        let mut judgement = Judgement::default();
        if self.is_empty() {
            return Verdict::Unmatched;
        }
        let names = split(path);
        for depth in 1..=names.len() {
            judgement = self.judge_names(&names[..depth], is_dir || depth < names.len(), judgement);
        }
        self.verdict(judgement)
    }

    /// The judgement of a path whose directory was judged as `inherited` (`Judgement::default()` at the root). Gives the
    /// same answers as `matches` for one part of its work.
    pub fn judge(&self, path: &[u8], is_dir: bool, inherited: Judgement) -> Judgement {
        if self.is_empty() { inherited } else { self.judge_names(&split(path), is_dir, inherited) }
    }

    /// What a judgement says.
    pub fn verdict(&self, judgement: Judgement) -> Verdict {
        match judgement.0.checked_sub(1).and_then(|index| self.list.get(index)) {
            None => Verdict::Unmatched,
            Some(pattern) if pattern.negated => Verdict::Negated,
            Some(_) => Verdict::Matched,
        }
    }

    /// Whether something below the directory could be `Matched`, or the directory itself is. A restore that picks paths
    /// need not look into other directories. May say yes too often, never no.
    pub fn could_match_below(&self, dir: &[u8]) -> bool {
        if self.matches(dir, true) == Verdict::Matched {
            return true;
        }
        let names = split(dir);
        self.list.iter().filter(|p| !p.negated).any(|pattern| !pattern.anchored || pattern.leads_below(&names))
    }

    // The highest of: the judgement of the directory, the patterns that match exactly this path.
    fn judge_names(&self, names: &[&[u8]], is_dir: bool, inherited: Judgement) -> Judgement {
        let Some(last) = names.last() else { return inherited };
        let named = self.names.get(*last).copied().unwrap_or(0);
        let mut best = inherited.0.max(named);
        let matches = |pattern: &Pattern| (is_dir || !pattern.only_directories) && pattern.is_match(names);
        for &index in self.others.iter().rev() {
            if index < best {
                break;
            }
            if matches(&self.list[index]) {
                best = index + 1;
                break;
            }
        }
        if named > 0 && !self.list[named - 1].used.get() {
            self.list.iter().filter(|pattern| pattern.is_name(last)).for_each(|pattern| pattern.used.set());
        }
        if best > 0 {
            // Those that another one outdoes match all the same.
            let others = self.others.iter().map(|index| &self.list[*index]);
            others.filter(|pattern| !pattern.used.get() && matches(pattern)).for_each(|pattern| pattern.used.set());
        }
        Judgement(best)
    }
}

impl Pattern {
    fn parse(text: &[u8]) -> Result<Pattern> {
        let (negated, body) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let wrong = |why: &str| {
            let message = format!("\"{}\" is not a pattern: {why}", text.escape_ascii());
            Error::new(ErrorKind::Input, message)
        };
        let names = split(body);
        if names.is_empty() && body != b"/" {
            return Err(wrong("it names nothing"));
        }
        if names.contains(&&b".."[..]) {
            return Err(wrong("\"..\" never occurs in a path"));
        }
        let mut parts: Vec<Part> = Vec::new();
        for name in names {
            let part = if name == b"**" { Part::Deep } else { parse_part(name).map_err(wrong)? };
            // Two in a row mean the same as one.
            if part != Part::Deep || parts.last() != Some(&Part::Deep) {
                parts.push(part);
            }
        }
        let only_directories = body.len() > 1 && body.ends_with(b"/");
        let anchored = body.starts_with(b"/");
        Ok(Pattern { parts, anchored, negated, only_directories, used: Used::default() })
    }

    // Whether it is just this name.
    fn is_name(&self, name: &[u8]) -> bool {
        !self.anchored
            && !self.only_directories
            && matches!(&self.parts[..], [Part::Literal(literal)] if literal.as_slice() == name)
    }

    fn is_match(&self, names: &[&[u8]]) -> bool {
        if self.anchored {
            return match_parts(&self.parts, names);
        }
        if !self.parts.contains(&Part::Deep) {
            // Without `**` only one place can reach exactly to the end.
            return names.len() >= self.parts.len()
                && match_parts(&self.parts, &names[names.len() - self.parts.len()..]);
        }
        (0..names.len()).any(|start| match_parts(&self.parts, &names[start..]))
    }

    // Whether a path below the directory with these names could match an anchored pattern.
    fn leads_below(&self, names: &[&[u8]]) -> bool {
        for (index, name) in names.iter().enumerate() {
            match self.parts.get(index) {
                None => return false,
                Some(Part::Deep) => return true,
                Some(part) if !part.is_match(name) => return false,
                Some(_) => {}
            }
        }
        self.parts.len() > names.len()
    }
}

// Matches all names against all parts; `**` stands for any number of names. Linear in time, like `match_glob`.
fn match_parts(parts: &[Part], names: &[&[u8]]) -> bool {
    let (mut part, mut name) = (0, 0);
    let mut retry = None;
    loop {
        match parts.get(part) {
            // What is below a directory, not the directory itself.
            Some(Part::Deep) if part + 1 == parts.len() => return name < names.len(),
            Some(Part::Deep) => {
                retry = Some((part + 1, name));
                part += 1;
                continue;
            }
            Some(next) if name < names.len() && next.is_match(names[name]) => {
                part += 1;
                name += 1;
                continue;
            }
            None if name == names.len() => return true,
            _ => {}
        }
        match &mut retry {
            Some((after, from)) if *from < names.len() => {
                *from += 1;
                (part, name) = (*after, *from);
            }
            _ => return false,
        }
    }
}

impl Part {
    fn is_match(&self, name: &[u8]) -> bool {
        match self {
            Part::Deep => true,
            Part::Literal(text) => text == name,
            Part::Glob(tokens) => match_glob(tokens, name),
        }
    }
}

// Matches with a single point of return, the last star: time is at most the product of both lengths.
fn match_glob(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match tokens.get(token) {
            Some(Token::Any) => {
                retry = Some((token + 1, at));
                token += 1;
                continue;
            }
            None if at == name.len() => return true,
            Some(_) if at == name.len() => None,
            Some(Token::Byte(byte)) => (name[at] == *byte).then_some(1),
            Some(Token::One) => Some(character(&name[at..]).1),
            Some(Token::Class(negated, ranges)) => {
                let (value, len) = character(&name[at..]);
                let inside = ranges.iter().any(|&(low, high)| low <= value && value <= high);
                (inside != *negated).then_some(len)
            }
            None => None,
        };
        if let Some(len) = step {
            token += 1;
            at += len;
            continue;
        }
        match &mut retry {
            // Stars move on by bytes: what begins in the middle of a character cannot be reached by `?` alone.
            Some((after, from)) if *from < name.len() => {
                *from += character(&name[*from..]).1;
                (token, at) = (*after, *from);
            }
            _ => return false,
        }
    }
}

/// Values above all characters stand for bytes that are not UTF-8.
const RAW_BYTE: u32 = 0x11_0000;

// The first character of non-empty `bytes` and its length; a byte that begins none counts as one of its own.
fn character(bytes: &[u8]) -> (u32, usize) {
    let len = match bytes[0] {
        0..=0x7f => return (bytes[0].into(), 1),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return (RAW_BYTE + u32::from(bytes[0]), 1),
    };
    let text = bytes.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match text.and_then(|text| text.chars().next()) {
        Some(c) => (c.into(), len),
        None => (RAW_BYTE + u32::from(bytes[0]), 1),
    }
}

fn parse_part(text: &[u8]) -> std::result::Result<Part, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'*' if tokens.last() == Some(&Token::Any) => {}
            b'*' => tokens.push(Token::Any),
            b'?' => tokens.push(Token::One),
            b'[' => {
                let (class, after) = parse_class(rest)?;
                tokens.push(class);
                rest = after;
            }
            b'\\' => {
                let (&byte, after) = rest.split_first().ok_or("a backslash at the end stands for nothing")?;
                tokens.push(Token::Byte(byte));
                rest = after;
            }
            byte => tokens.push(Token::Byte(byte)),
        }
    }
    let literal = tokens.iter().map(|token| match token {
        Token::Byte(byte) => Some(*byte),
        _ => None,
    });
    match literal.collect::<Option<Vec<u8>>>() {
        Some(bytes) => Ok(Part::Literal(bytes)),
        None => Ok(Part::Glob(tokens)),
    }
}

// What follows `[`, up to and with `]`; also returns what is left. A `]` that comes first is a member.
fn parse_class(text: &[u8]) -> std::result::Result<(Token, &[u8]), &'static str> {
    const OPEN: &str = "a bracket is not closed";
    let (negated, mut rest) = match text.first() {
        Some(b'^' | b'!') => (true, &text[1..]),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    let member = |rest: &mut &[u8]| {
        if rest.first() == Some(&b'\\') {
            *rest = &rest[1..];
        }
        if rest.is_empty() {
            return Err(OPEN);
        }
        let (value, len) = character(rest);
        *rest = &rest[len..];
        Ok(value)
    };
    loop {
        match rest.first() {
            None => return Err(OPEN),
            Some(b']') if !ranges.is_empty() => return Ok((Token::Class(negated, ranges), &rest[1..])),
            Some(_) => {}
        }
        let low = member(&mut rest)?;
        let is_range = rest.first() == Some(&b'-') && rest.get(1).is_some_and(|&next| next != b']');
        let high = if is_range {
            rest = &rest[1..];
            member(&mut rest)?
        } else {
            low
        };
        if high < low {
            return Err("a range in brackets runs backwards");
        }
        ranges.push((low, high));
    }
}

/// A pattern or a path with all letters in one case, for comparisons in which case does not count. Bytes that are not UTF-8 stay.
pub fn fold_case(text: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        folded.extend_from_slice(chunk.valid().to_lowercase().as_bytes());
        folded.extend_from_slice(chunk.invalid());
    }
    folded
}

// The names of a path, without empty ones and `.`. (A bracket or backslash never hides a `/`.)
fn split(path: &[u8]) -> Vec<&[u8]> {
    path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".").collect()
}

// Without white space around, except behind a backslash.
fn trim(line: &[u8]) -> &[u8] {
    let mut line = line.trim_ascii_start();
    while let [rest @ .., b' ' | b'\t' | b'\r'] = line {
        let backslashes = rest.iter().rev().take_while(|&&b| b == b'\\').count();
        if backslashes % 2 == 1 {
            break;
        }
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests;
