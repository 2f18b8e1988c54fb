//! Moments as text: RFC 3339 in UTC, as Docker's log files and API have them.
//!
//! Deliberately absent: time zones by name, and anything relative to now, which front ends parse.

const NANOS_PER_SEC: u64 = 1_000_000_000;
const SECS_PER_DAY: i64 = 86_400;

/// Now, in nanoseconds since the epoch.
pub fn now_ns() -> u64 {
    sys::clock::realtime_ns()
}

/// `2026-11-28T22:19:28.000000001Z` with as many digits as are needed (none for whole seconds). 0 is Docker's "never",
/// `0001-01-01T00:00:00Z`.
pub fn format(ns: u64) -> String {
    if ns == 0 {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    let text = format_nano(ns);
    let trimmed = text.trim_end_matches('Z').trim_end_matches('0');
    format!("{}Z", trimmed.trim_end_matches('.'))
}

/// The same with nine digits always, as `docker logs -t` prints.
pub fn format_nano(ns: u64) -> String {
    let seconds = (ns / NANOS_PER_SEC) as i64;
    let (year, month, day) = civil(seconds.div_euclid(SECS_PER_DAY));
    let second = seconds.rem_euclid(SECS_PER_DAY);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        ns % NANOS_PER_SEC
    )
}

/// Nanoseconds since the epoch of an RFC 3339 text (section 5.6); `None` if it is not one. Moments before the epoch are 0.
pub fn parse(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        let all = digits.bytes().all(|b| b.is_ascii_digit());
        all.then(|| digits.parse().ok()).flatten()
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|b| allowed.contains(b));
    let punctuated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let sensible = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !punctuated || !sensible {
        return None;
    }
    let (nanos, zone) = fraction(text.get(19..)?)?;
    let seconds = days(year, month, day) * SECS_PER_DAY + hour * 3600 + minute * 60 + second
        - offset_s(zone)?;
    match u64::try_from(seconds) {
        Ok(seconds) => seconds.checked_mul(NANOS_PER_SEC)?.checked_add(nanos),
        Err(_) => Some(0),
    }
}

/// Nanoseconds of `.5`, and what follows. Digits beyond the ninth are cut off.
fn fraction(rest: &str) -> Option<(u64, &str)> {
    let Some(rest) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let len = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, zone) = rest.split_at(len);
    let digits = digits
        .get(..len.min(9))
        .filter(|digits| !digits.is_empty())?;
    let scale = 10u64.pow(9 - digits.len() as u32);
    Some((digits.parse::<u64>().ok()? * scale, zone))
}

fn offset_s(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let two = |text: &str| -> Option<i64> {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
    };
    Some(sign * (two(hours)? * 3600 + two(minutes)? * 60))
}

/// Days since 1970-01-01 of a Gregorian date. Years are counted from March, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (y, m) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day
        - 1
        - 719_468
}

/// The inverse of [`days`], for days from the epoch on.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * of_year + 2) / 153;
    let day = of_year - (153 * m + 2) / 5 + 1;
    let (month, carry) = if m < 10 { (m + 3, 0) } else { (m - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_as_docker_writes_them() {
        assert_eq!(format(0), "0001-01-01T00:00:00Z");
        assert_eq!(format(1_795_340_428_500_000_000), "2026-11-22T09:40:28.5Z");
        assert_eq!(format(1_795_340_428_000_000_000), "2026-11-22T09:40:28Z");
        assert_eq!(
            format_nano(1_709_251_199_000_000_001),
            "2024-02-29T23:59:59.000000001Z"
        );
    }

    #[test]
    fn offsets_and_fractions_of_any_length_are_read() {
        let base = 1_709_249_400_000_000_000;
        assert_eq!(parse("2024-03-01T01:30:00+02:00"), Some(base));
        assert_eq!(parse("2024-02-29T23:30:00.25z"), Some(base + 250_000_000));
        assert_eq!(
            parse("2024-02-29T23:30:00.1234567899Z"),
            Some(base + 123_456_789)
        );
        assert_eq!(parse("0001-01-01T00:00:00Z"), Some(0));
    }

    #[test]
    fn what_is_not_a_moment_is_refused() {
        for text in [
            "",
            "now",
            "2026-13-01T00:00:00Z",
            "2026-11-22T09:40:28",
            "2026-11-22T09:40:28.Z",
            "é026",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_again(ns in 1..i64::MAX as u64) {
            prop_assert_eq!(parse(&format(ns)), Some(ns));
            prop_assert_eq!(parse(&format_nano(ns)), Some(ns));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
