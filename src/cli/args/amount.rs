//! Spans of time, amounts of data and parts of a whole, as people write them. Not for: how they are shown (see `text`).

use crate::check::Subset;
use crate::prune::Limit;
use std::time::Duration;

/// A span of time: numbers with units, the larger ones first if there are several: "90s", "30m", "1h30m", "14d", "2w", "1y".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no span of time; write for example 30m, 12h or 14d (s, m, h, d, w, y)");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
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

/// An amount of data: a number and a unit, B, K, M, G or T (of 1,024; "KiB" and "kb" are the same).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no amount of data; write for example 500M or 20G");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let power = match text[digits..].to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << (10 * power)).ok_or_else(wrong)
}

/// A part of all packs: "2/7" (by name), "5%" or "20G" (those that have waited the longest).
pub(crate) fn subset(text: &str) -> Result<Subset, String> {
    let wrong = || format!("\"{text}\" is no part of the data; write for example 2/7, 5% or 20G");
    if let Some((part, of)) = text.split_once('/') {
        let (part, of) = (part.parse::<u64>().map_err(|_| wrong())?, of.parse::<u64>().map_err(|_| wrong())?);
        return if (1..=of).contains(&part) { Ok(Subset::Part { part, of }) } else { Err(wrong()) };
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| wrong())?;
        return if percent > 0.0 && percent <= 100.0 { Ok(Subset::Share(percent / 100.0)) } else { Err(wrong()) };
    }
    match size(text) {
        Ok(bytes) if bytes > 0 => Ok(Subset::Bytes(bytes)),
        _ => Err(wrong()),
    }
}

/// A limit: a share ("5%"), an amount of data ("20G") or "unlimited".
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    let wrong = || format!("\"{text}\" is no limit; write for example 5%, 20G or unlimited");
    if text == "unlimited" {
        return Ok(Limit::Unlimited);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| wrong())?;
        return if (0.0..=100.0).contains(&percent) { Ok(Limit::Share(percent / 100.0)) } else { Err(wrong()) };
    }
    if text == "0" { Ok(Limit::Bytes(0)) } else { size(text).map(Limit::Bytes).map_err(|_| wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_data() {
        for (text, bytes) in [("5b", 5), ("500M", 500 << 20), ("20GiB", 20 << 30), ("1kb", 1024), ("0k", 0)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "5", "G", "1.5G", "-1G", "99999999999T", "5x"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_of_the_data() {
        assert_eq!(subset("2/7"), Ok(Subset::Part { part: 2, of: 7 }));
        assert_eq!(subset("50%"), Ok(Subset::Share(0.5)));
        assert_eq!(subset("1G"), Ok(Subset::Bytes(1 << 30)));
        for wrong in ["", "0/7", "8/7", "1/0", "/", "0%", "101%", "NaN%", "0G", "all"] {
            assert!(subset(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(limit("5%"), Ok(Limit::Share(0.05)));
        assert_eq!(limit("1G"), Ok(Limit::Bytes(1 << 30)));
        assert_eq!(limit("unlimited"), Ok(Limit::Unlimited));
        assert_eq!((limit("0"), limit("0%")), (Ok(Limit::Bytes(0)), Ok(Limit::Share(0.0))));
        for wrong in ["", "101%", "NaN%", "-1%", "5", "all", "%"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_of_time() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("14d", 1_209_600), ("0s", 0), ("0", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in
            ["", "5", "m", "5x", "-5m", "5 m", "1.5h", "99999999999999999999s", "9999999999999999999w", "5\u{e9}"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
