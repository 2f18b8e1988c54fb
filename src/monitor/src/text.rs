//! Text of strangers', made fit for a person's eyes.

/// At most `max` characters of `text`, without those that drive a terminal.
pub(crate) fn printable(text: &str, max: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .take(max)
        .collect()
}
