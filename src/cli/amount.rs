//! Spans of time, amounts of data and parts of a whole, as people write them. Not for: how they are shown (see `text`).

use std::time::Duration;

/// A span of time: numbers with units, the larger ones first if there are several: "90s", "30m", "1h30m", "14d", "2w", "1y".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no span of time; write for example 30m, 12h or 14d (s, m, h, d, w, y)");
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 7 * 86_400,
            b'y' => 365 * 86_400,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    match text.is_empty() {
        true => Err(wrong()),
        false => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("14d", 1_209_600), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in
            ["", "5", "m", "5x", "-5m", "5 m", "1.5h", "99999999999999999999s", "9999999999999999999w", "5\u{e9}"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
