//! Tables like Docker's: columns three spaces apart, headings in capitals; and the forms of times and sizes in them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Lays out `rows` below `headings`.
pub(crate) fn render<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.into_iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(headings);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    text
}

/// How long ago a moment was, in Docker's words.
pub(crate) fn ago(seconds_since_1970: i64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let then = u64::try_from(seconds_since_1970).unwrap_or(0);
    format!("{} ago", span(now.saturating_sub(then)))
}

fn span(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".into(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        HOUR..7200 => "About an hour".into(),
        7200..172_800 => format!("{} hours", seconds / HOUR),
        172_800..1_209_600 => format!("{} days", seconds / DAY),
        1_209_600..5_184_000 => format!("{} weeks", seconds / (7 * DAY)),
        5_184_000..63_072_000 => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    }
}

/// A size in Docker's decimal units, at most three digits long.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes}B");
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let digits = format!("{value:.decimals$}");
    let digits = match decimals {
        0 => digits.as_str(),
        _ => digits.trim_end_matches('0').trim_end_matches('.'),
    };
    format!("{digits}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "bbbb".into()], ["cc".into(), "d".into()]];
        assert_eq!(
            render(["ONE", "TWO"], &rows),
            "ONE   TWO\na     bbbb\ncc    d\n"
        );
    }

    #[test]
    fn sizes_have_at_most_three_digits() {
        assert_eq!(size(4096), "4.1kB");
        assert_eq!(size(5_000_000), "5MB");
        assert_eq!(size(999), "999B");
        assert_eq!(size(1_234), "1.23kB");
        assert_eq!(size(7_340_000), "7.34MB");
        assert_eq!(size(124_900_000), "125MB");
        assert_eq!(size(99_960_000_000), "100GB");
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        assert_eq!(span(59), "59 seconds");
        assert_eq!(span(3700), "About an hour");
        assert_eq!(span(86_400 * 3), "3 days");
        assert_eq!(span(86_400 * 30), "4 weeks");
    }
}
