//! Moments in time as people write them. Not for: spans of time (see `amount`).

use jiff::Timestamp;

/// A time as people write it: RFC 3339, or a date with or without a time in this machine's zone.
pub(in crate::cli) fn parse(text: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong = |_| "it is written as 2026-01-31, \"2026-01-31 12:00:00\" or 2026-01-31T12:00:00Z".to_owned();
    let local = text.parse::<jiff::civil::DateTime>().map_err(wrong)?;
    let zoned = local.to_zoned(jiff::tz::TimeZone::system()).map_err(|error| error.to_string())?;
    Ok(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        assert_eq!(parse("2026-01-02T03:04:05Z").unwrap().as_second(), 1_767_323_045);
        assert!(parse("2026-01-02 03:04:05").is_ok());
        assert!(parse("2026-01-02").is_ok());
        assert!(parse("yesterday").is_err());
    }
}
