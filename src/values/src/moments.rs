//! Moments and filters as users write them.

use engine::time;

use crate as values;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A text that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a moment.
    #[error(
        "{0:?} is not a time: a date as 2026-11-28T22:19:28Z (UTC without a zone), seconds since 1970, or how long ago, as \
         10m or 1h30m"
    )]
    Moment(String),
    /// Not a filter.
    #[error("bad format of filter {0:?} (expected name=value)")]
    Filter(String),
}

/// Nanoseconds since the epoch of RFC 3339 (its end may be left out), of seconds since 1970, or of how long ago.
pub fn moment(text: &str) -> Result<u64, Error> {
    moment_at(text, time::now_ns())
}

fn moment_at(text: &str, now_ns: u64) -> Result<u64, Error> {
    const NANOS_PER_MS: u64 = 1_000_000;
    if text.is_empty() {
        return Err(Error::Moment(text.to_owned()));
    }
    if let Some(ns) = seconds(text).or_else(|| date(text)) {
        return Ok(ns);
    }
    match values::duration(text) {
        Ok(ms) => Ok(now_ns.saturating_sub(ms.unwrap_or(0).saturating_mul(NANOS_PER_MS))),
        Err(_) => Err(Error::Moment(text.to_owned())),
    }
}

/// Seconds since the epoch, perhaps with a fraction.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let nanos: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(NANOS_PER_SEC)?
        .checked_add(nanos.parse().ok()?)
}

/// A date of RFC 3339, of which the seconds, the minutes, the time and the zone may be missing.
fn date(text: &str) -> Option<u64> {
    /// What a shorter text lacks, by its length: `2026-11-28`, `2026-11-28T22`, `2026-11-28T22:19`.
    const REST: &str = "0000-00-00T00:00:00";
    let (local, zone) = match text.get(10..)?.find(['Z', 'z', '+', '-']) {
        Some(at) => text.split_at(10 + at),
        None => (text, "Z"),
    };
    match local.len() {
        10 | 13 | 16 => time::parse(&format!("{local}{}{zone}", REST.get(local.len()..)?)),
        _ => time::parse(&format!("{local}{zone}")),
    }
}

/// A filter's name and value.
pub fn filter(text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        }
        _ => Err(Error::Filter(text.to_owned())),
    }
}

/// A label of a filter: `NAME` or `NAME=VALUE`.
pub fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_904_368 * NANOS_PER_SEC;

    #[test]
    fn a_moment_is_a_date_seconds_or_how_long_ago() {
        for (text, seconds) in [
            ("2026-11-28T22:19:28Z", 1_795_904_368),
            ("2026-11-28T23:19:28+01:00", 1_795_904_368),
            ("2026-11-28T22:19:28", 1_795_904_368),
            ("2026-11-28T22:19", 1_795_904_340),
            ("2026-11-28", 1_795_824_000),
            ("1795904368", 1_795_904_368),
            ("10m", 1_795_904_368 - 600),
            ("1h30m", 1_795_904_368 - 5400),
        ] {
            assert_eq!(moment_at(text, NOW), Ok(seconds * NANOS_PER_SEC), "{text}");
        }
        assert_eq!(moment_at("5.25", NOW), Ok(5_250_000_000));
        assert_eq!(moment_at("5.000000001", NOW), Ok(5_000_000_001));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "1.2.3",
            "é026-11-28",
            "99999999999999999999",
        ] {
            assert!(moment_at(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn a_filter_has_a_name_and_a_value() {
        assert_eq!(filter("label=a=b"), Ok(("label".into(), "a=b".into())));
        assert!(filter("label").is_err());
    }
}
