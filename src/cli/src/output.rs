//! What commands print: listings in the form that `--format` asks for, documents, and times and texts in Docker's words.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::format::{Error, Template, tabs};

/// A row of a listing.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// An object: its fields, by Docker's names.
    pub(crate) fields: Value,
    /// What `{{.Label "name"}}` finds.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Row {
    /// Of fields and their texts.
    pub(crate) fn new<const N: usize>(fields: [(&str, String); N]) -> Row {
        let fields = fields
            .into_iter()
            .map(|(name, text)| (name.to_owned(), Value::String(text)));
        Row {
            fields: fields.collect(),
            labels: BTreeMap::new(),
        }
    }

    /// The same with labels, which are a field too.
    pub(crate) fn labelled(mut self, labels: &BTreeMap<String, String>) -> Row {
        let pairs: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        self.fields["Labels"] = Value::String(pairs.join(","));
        self.labels = labels.clone();
        self
    }
}

/// How a kind of listing looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    /// The template of a row, with tabs between the columns.
    pub(crate) table: &'static str,
    /// What `--quiet` prints of a row.
    pub(crate) quiet: &'static str,
    /// Each field's heading.
    pub(crate) headings: &'static [(&'static str, &'static str)],
}

/// Prints rows as `--format` says: `table`, `table TEMPLATE`, `json`, `TEMPLATE`, or the default.
pub(crate) fn listing(
    columns: Columns,
    format: Option<&str>,
    quiet: bool,
    rows: &[Row],
) -> Result<String, Error> {
    let unescaped = format
        .unwrap_or("table")
        .replace("\\t", "\t")
        .replace("\\n", "\n");
    let (table, template) = match unescaped.as_str() {
        "table" | "" if quiet => (false, columns.quiet),
        "table" | "" => (true, columns.table),
        "json" => (false, "{{json .}}"),
        format => match format.strip_prefix("table ") {
            Some(template) => (true, template.trim()),
            None => (false, format),
        },
    };
    let template = Template::parse(template)?;
    let mut text = String::new();
    if table {
        let headings = columns.headings.iter();
        let headings = headings.map(|(name, heading)| ((*name).to_owned(), Value::from(*heading)));
        text.push_str(&template.headings(&Value::Object(headings.collect()))?);
        text.push('\n');
    }
    for row in rows {
        text.push_str(&template.render_labelled(&row.fields, &row.labels)?);
        text.push('\n');
    }
    Ok(match table {
        true => tabs::layout(&text),
        false => text,
    })
}

/// One document as `--format` says: a template or `json`; `None` without one.
pub(crate) fn document(format: Option<&str>, value: &Value) -> Result<Option<String>, Error> {
    let template = match format {
        None | Some("") => return Ok(None),
        Some("json") => "{{json .}}",
        Some(template) => template,
    };
    let text = Template::parse(template)?.render(value)?;
    Ok(Some(format!("{text}\n")))
}

/// A document as `docker inspect` prints it: indented by four blanks.
pub(crate) fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        // A value's keys are texts, and a vector takes every byte.
        Err(_) => value.to_string(),
    }
}

/// A text in double quotes with what cannot be shown escaped, as Go's `strconv.Quote`.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A text of at most so many characters, the last of which says that it was cut.
pub(crate) fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// The beginning of an identifier, as listings show it.
pub(crate) fn short_id(id: &str) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.chars().take(12).collect()
}

/// A moment as Go prints it: `2026-11-28 22:19:28 +0000 UTC`.
pub(crate) fn moment(ns: u64) -> String {
    let text = engine::time::format_nano(ns);
    let date = text.get(..10).unwrap_or_default();
    let time = text.get(11..19).unwrap_or_default();
    format!("{date} {time} +0000 UTC")
}

/// How long before `now_ns` a moment was, in Docker's words.
pub(crate) fn ago(ns: u64, now_ns: u64) -> String {
    const NANOS_PER_SEC: u64 = 1_000_000_000;
    let seconds = now_ns.saturating_sub(ns) / NANOS_PER_SEC;
    format!("{} ago", engine::list::duration_text(seconds))
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

/// A size in binary units with four digits, as `docker stats` shows memory: `1.944GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{}{}", significant(value, 4), UNITS[unit])
}

/// A number with so many significant digits and no trailing zeros, as Go's `%.4g` for what is below 1024.
fn significant(value: f64, digits: usize) -> String {
    let before = match value {
        v if v < 10.0 => 1,
        v if v < 100.0 => 2,
        v if v < 1000.0 => 3,
        _ => 4,
    };
    let text = format!("{value:.*}", digits.saturating_sub(before));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns = Columns {
        table: "{{.ID}}\t{{.Names}}",
        quiet: "{{.ID}}",
        headings: &[
            ("ID", "CONTAINER ID"),
            ("Names", "NAMES"),
            ("Labels", "LABELS"),
        ],
    };

    fn rows() -> Vec<Row> {
        let labels = BTreeMap::from([("tier".to_owned(), "web".to_owned())]);
        vec![Row::new([("ID", "0123456789ab".into()), ("Names", "one".into())]).labelled(&labels)]
    }

    fn list(format: Option<&str>, quiet: bool) -> String {
        listing(COLUMNS, format, quiet, &rows()).unwrap()
    }

    #[test]
    fn a_listing_is_a_table_identifiers_json_or_what_its_template_says() {
        assert_eq!(
            list(None, false),
            "CONTAINER ID   NAMES\n0123456789ab   one\n"
        );
        assert_eq!(list(Some("table"), true), "0123456789ab\n");
        assert_eq!(
            list(Some("json"), true),
            "{\"ID\":\"0123456789ab\",\"Labels\":\"tier=web\",\"Names\":\"one\"}\n"
        );
        assert_eq!(
            list(Some("{{.Names}}: {{.Label \"tier\"}}"), false),
            "one: web\n"
        );
    }

    #[test]
    fn a_table_of_ones_own_has_headings_that_functions_leave_alone() {
        assert_eq!(
            list(
                Some(r#"table {{upper .Names}}\t{{.Label "a.tier_name"}}"#),
                false
            ),
            "NAMES     tier name\nONE       \n"
        );
    }

    #[test]
    fn sizes_of_memory_have_four_digits() {
        assert_eq!(binary_size(0), "0B");
        assert_eq!(binary_size(2_087_354_368), "1.944GiB");
        assert_eq!(binary_size(512 << 20), "512MiB");
        assert_eq!(binary_size(1023), "1023B");
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
    fn texts_are_quoted_and_cut_as_in_go() {
        assert_eq!(quoted("a\"\\\n\u{1b}é"), r#""a\"\\\n\x1bé""#);
        assert_eq!(
            ellipsis("/docker-entrypoint.sh postgres", 20),
            "/docker-entrypoint.…"
        );
        assert_eq!(ellipsis("sh", 20), "sh");
    }

    #[test]
    fn moments_are_as_go_prints_them() {
        assert_eq!(
            moment(1_795_904_368_000_000_001),
            "2026-11-28 22:19:28 +0000 UTC"
        );
    }
}
