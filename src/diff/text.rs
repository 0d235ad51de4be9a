//! The lines in which two texts differ, as `diff -u` writes them. Not for: where the texts come from.

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline, group_diff_ops};
use std::time::{Duration, Instant};

/// Files with more bytes than this are not compared line by line.
pub(super) const MAX_TEXT: u64 = 1 << 20;
/// A zero byte among this many first ones makes a file binary, as git has it.
const LOOKED_AT: usize = 8000;
/// Lines around a change.
const AROUND: usize = 3;
/// After this long the lines that are left are paired in a simpler way: right, but not the shortest difference.
const PATIENCE: Duration = Duration::from_secs(2);

/// How two files differ, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Nobody asked, or there is nothing to say.
    None,
    /// The hunks of a unified diff, without the two lines that name the files.
    Lines(Vec<u8>),
    /// One of them is not text.
    Binary,
    /// One of them is longer than what is compared.
    TooLarge,
}

/// Compares two files.
pub(super) fn compare(old: &[u8], new: &[u8]) -> Text {
    if is_binary(old) || is_binary(new) {
        return Text::Binary;
    }
    let old: Vec<&[u8]> = old.split_inclusive(|byte| *byte == b'\n').collect();
    let new: Vec<&[u8]> = new.split_inclusive(|byte| *byte == b'\n').collect();
    let operations = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(Instant::now() + PATIENCE));
    let mut out = Vec::new();
    for group in group_diff_ops(operations, AROUND) {
        hunk(&group, &old, &new, &mut out);
    }
    if out.is_empty() { Text::None } else { Text::Lines(out) }
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(LOOKED_AT)].contains(&0)
}

fn hunk(group: &[DiffOp], old: &[&[u8]], new: &[&[u8]], out: &mut Vec<u8>) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    let range = |start: usize, end: usize| match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        lines => format!("{},{lines}", start + 1),
    };
    let before = range(first.old_range().start, last.old_range().end);
    let after = range(first.new_range().start, last.new_range().end);
    out.extend_from_slice(format!("@@ -{before} +{after} @@\n").as_bytes());
    for operation in group {
        let (from, to) = (&old[operation.old_range()], &new[operation.new_range()]);
        if operation.tag() == DiffTag::Equal {
            lines(b' ', from, out);
        } else {
            lines(b'-', from, out);
            lines(b'+', to, out);
        }
    }
}

fn lines(sign: u8, lines: &[&[u8]], out: &mut Vec<u8>) {
    for line in lines {
        out.push(sign);
        out.extend_from_slice(line);
        if line.last() != Some(&b'\n') {
            out.extend_from_slice(b"\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(old: &str, new: &str) -> String {
        match compare(old.as_bytes(), new.as_bytes()) {
            Text::Lines(lines) => String::from_utf8(lines).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    // As GNU diff 3.8 writes it.
    #[test]
    fn as_diff_writes_it() {
        assert_eq!(text("a\n", "a\nb\n"), "@@ -1 +1,2 @@\n a\n+b\n");
        assert_eq!(text("", "x\n"), "@@ -0,0 +1 @@\n+x\n");
        assert_eq!(text("x\ny\n", ""), "@@ -1,2 +0,0 @@\n-x\n-y\n");
        assert_eq!(text("a", "b"), "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n");
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("10\n", "ten\n").replace("\n2\n", "\n");
        assert_eq!(
            text(&old, &new),
            "@@ -1,5 +1,4 @@\n 1\n-2\n 3\n 4\n 5\n@@ -7,7 +6,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n"
        );
    }

    #[test]
    fn what_is_no_text() {
        assert_eq!(compare(b"a\0", b"b"), Text::Binary);
        assert_eq!(compare(b"a", b"\0"), Text::Binary);
        assert_eq!(compare(b"same", b"same"), Text::None);
        assert!(matches!(compare(b"\xff\n", b"\xfe\n"), Text::Lines(_)));
    }
}
