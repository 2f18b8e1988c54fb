//! Points in time as image configurations have them.

use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 3339, section 5.6, in UTC: `2026-11-22T09:40:28.5Z`, to the nanosecond and without zeros at its end, as Go
/// writes it. What is before 1970 becomes 1970.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() > 0 {
        let fraction = format!("{:09}", since.subsec_nanos());
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day of a Gregorian date, given in days since 1970-01-01. Years are counted from March, so that leap
/// days come last.
fn date(days: u64) -> (u64, u64, u64) {
    // Since 0000-03-01, in cycles of 400 years.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month < 10 {
        true => (year, month + 3),
        false => (year + 1, month - 9),
    };
    (400 * cycle + year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_date_prints_them() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_795_340_428, 0, "2026-11-22T09:40:28Z"),
            (1_709_251_199, 123_456_789, "2024-02-29T23:59:59.123456789Z"),
            (1_709_251_200, 500_000_000, "2024-03-01T00:00:00.5Z"),
            (946_684_799, 1, "1999-12-31T23:59:59.000000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
            assert_eq!(rfc3339(time), text);
        }
    }
}
