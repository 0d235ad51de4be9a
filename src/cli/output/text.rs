//! How values look to a person: names, sizes, times, modes, tables. Not for: what is printed (see the commands).

use crate::format::tree::{Body, Entry, Timestamp};
use serde_json::{Value, json};
use std::fmt::Write;

/// A name or path as one line that cannot drive a terminal: control characters, characters that turn the direction of
/// writing, and bytes that are not UTF-8 are written as `\xNN` or `\u{N}`, a backslash as two.
pub(crate) fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                letter => push_safe(&mut text, letter),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
    text
}

/// Sets a field for programs to a name or path; one that is not UTF-8 is given once more, exactly, in a field with `_base64` behind.
pub(crate) fn set_path(object: &mut Value, field: &str, path: &[u8]) {
    object[field] = json!(String::from_utf8_lossy(path));
    if std::str::from_utf8(path).is_err() {
        object[format!("{field}_base64")] = json!(base64(path));
    }
}

/// The same with a list of paths: if any is not UTF-8, all are given once more.
pub(crate) fn set_paths(object: &mut Value, field: &str, paths: &[&[u8]]) {
    object[field] = paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
    if paths.iter().any(|path| std::str::from_utf8(path).is_err()) {
        object[format!("{field}_base64")] = paths.iter().map(|path| base64(path)).collect();
    }
}

/// A sentence as one line that cannot drive a terminal. Backslashes stay, because most of what is said is not a name.
pub(crate) fn line(sentence: &str) -> String {
    let mut text = String::with_capacity(sentence.len());
    sentence.chars().for_each(|letter| push_safe(&mut text, letter));
    text
}

/// A path as a word of a command that can be pasted into a shell.
pub(crate) fn shell(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    // What begins with a dash would be an option.
    let before = if text.starts_with('-') { "./" } else { "" };
    line(&crate::mount::shell_quoted(&format!("{before}{text}")))
}

fn push_safe(text: &mut String, letter: char) {
    let code = u32::from(letter);
    match letter {
        letter if letter.is_ascii_control() => write!(text, "\\x{code:02x}"),
        letter if letter.is_control() || is_invisible(letter) => write!(text, "\\u{{{code:x}}}"),
        letter => {
            text.push(letter);
            Ok(())
        }
    }
    .expect("a String takes everything");
}

/// Characters that change how their neighbours look, or look like nothing: line separators and direction marks.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A number of bytes in binary units, with three or four digits.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be written as "1024" belongs to the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value {
        value if value < 9.995 => format!("{value:.2} {}", UNITS[unit]),
        value if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        value => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A number with its noun: "1 file", "2 files".
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Hours, minutes and seconds.
pub(crate) fn duration(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02} h", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// A span of time as people say it: the largest unit of which it is a whole number.
pub(crate) fn span(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "day", "days"), (3600, "hour", "hours"), (60, "minute", "minutes")];
    let unit = units.into_iter().find(|(length, ..)| seconds >= *length && seconds.is_multiple_of(*length));
    let (length, one, many) = unit.unwrap_or((1, "second", "seconds"));
    count(seconds / length, one, many)
}

/// A moment in this machine's time zone.
pub(crate) fn local_time(time: jiff::Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A recorded time in this machine's time zone; seconds since 1970 where the calendar ends.
pub(crate) fn file_time(time: Timestamp) -> String {
    match jiff::Timestamp::new(time.seconds, time.nanos as i32) {
        Ok(time) => local_time(time),
        Err(_) => format!("@{}", time.seconds),
    }
}

/// A recorded time as RFC 3339 in UTC with nanoseconds, for programs; `None` where the calendar ends.
pub(crate) fn rfc3339(time: Timestamp) -> Option<String> {
    jiff::Timestamp::new(time.seconds, time.nanos as i32).ok().map(|time| time.to_string())
}

/// Type and permissions as `ls -l` writes them.
pub(crate) fn mode(entry: &Entry) -> String {
    let letter = match entry.body {
        Body::File { .. } => '-',
        Body::Directory { .. } => 'd',
        Body::Symlink(_) => 'l',
        Body::Fifo => 'p',
        Body::CharDevice { .. } => 'c',
        Body::BlockDevice { .. } => 'b',
        Body::Socket => 's',
    };
    let mut text = String::from(letter);
    for (shift, special, on, off) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = entry.meta.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (entry.meta.mode & special != 0, bits & 1 != 0) {
            (true, true) => on,
            (true, false) => off,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().enumerate().fold(0, |value, (at, byte)| value | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            match at <= group.len() {
                true => text.push(char::from(LETTERS[(value >> (18 - 6 * at) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

/// Rows in columns as wide as their widest cell; the last column is not padded. Columns in `right` are aligned to the right.
pub(crate) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |cell: &String| cell.chars().count();
    let widths: Vec<usize> =
        (0..columns).map(|at| rows.iter().filter_map(|row| row.get(at)).map(width).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut written = String::new();
        for (at, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[at] - width(cell));
            match right.contains(&at) {
                true => written.extend([padding.as_str(), cell]),
                false => written.extend([cell, padding.as_str()]),
            }
            written.push_str("  ");
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_cannot_drive_a_terminal() {
        assert_eq!(escape(b"a\x1b[2J\nb\xff\\"), "a\\x1b[2J\\x0ab\\xff\\\\");
        assert_eq!(escape("ä\u{9b}x\u{202e}y".as_bytes()), "ä\\u{9b}x\\u{202e}y");
        assert_eq!(escape(b"plain name.txt"), "plain name.txt");
        assert_eq!(line("\"C:\\x\"\x07\n"), "\"C:\\x\"\\x07\\x0a");
    }

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_235, "10.0 KiB"),
            (1 << 20, "1.00 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (123 << 20, "123 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn undecodable_paths_are_given_exactly() {
        let mut object = json!({});
        set_path(&mut object, "path", b"/a");
        set_paths(&mut object, "paths", &[b"/a"]);
        assert_eq!(object, json!({ "path": "/a", "paths": ["/a"] }));
        set_path(&mut object, "path", b"/\xff");
        set_paths(&mut object, "paths", &[b"/\xff", b"/a"]);
        assert_eq!((&object["path"], &object["path_base64"]), (&json!("/\u{fffd}"), &json!("L/8=")));
        assert_eq!(object["paths_base64"], json!(["L/8=", "L2E="]));
    }

    #[test]
    fn spans() {
        for (seconds, words) in [(604_800, "7 days"), (86_400, "1 day"), (90_000, "25 hours"), (90, "90 seconds")] {
            assert_eq!(span(std::time::Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(61)), "1:01 min");
        assert_eq!(duration(Duration::from_secs(3600 + 62)), "1:01:02 h");
    }

    // The test vectors of RFC 4648, section 10.
    #[test]
    fn base64_vectors() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(b"\xff\xfe\xfd"), "//79");
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["ID".into(), "Size".into(), "x".into()], vec!["abc".into(), "1".into(), "long".into()]];
        assert_eq!(table(&rows, &[1]), "ID   Size  x\nabc     1  long\n");
        assert_eq!(table(&[], &[]), "");
    }

    #[test]
    fn times_beyond_the_calendar() {
        assert_eq!(file_time(Timestamp { seconds: i64::MAX, nanos: 0 }), format!("@{}", i64::MAX));
        assert_eq!(rfc3339(Timestamp { seconds: i64::MAX, nanos: 0 }), None);
        assert_eq!(rfc3339(Timestamp { seconds: -1, nanos: 500_000_000 }).as_deref(), Some("1969-12-31T23:59:59.5Z"));
    }
}
