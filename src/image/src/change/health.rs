//! HEALTHCHECK.

use serde_json::{Value, json};

use super::exec_form;
use crate::docker::duration_ns;

/// `NONE`, or options and `CMD` with a command; `None` if it is neither.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut check = json!({});
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace)?;
        let (name, value) = option.split_once('=')?;
        rest = after.trim_start();
        match name {
            "interval" => check["Interval"] = nanoseconds(value)?.into(),
            "timeout" => check["Timeout"] = nanoseconds(value)?.into(),
            "start-period" => check["StartPeriod"] = nanoseconds(value)?.into(),
            "start-interval" => check["StartInterval"] = nanoseconds(value)?.into(),
            "retries" => check["Retries"] = value.parse::<u32>().ok()?.into(),
            _ => return None,
        }
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    check["Test"] = match (kind.to_ascii_uppercase().as_str(), command.is_empty()) {
        ("NONE", true) => json!(["NONE"]),
        ("CMD", false) => match exec_form(command) {
            Some(words) => json!([vec!["CMD".to_owned()], words].concat()),
            None => json!(["CMD-SHELL", command]),
        },
        _ => return None,
    };
    Some(check)
}

/// A duration of at least a millisecond, as Docker asks for; 0 is the default.
fn nanoseconds(text: &str) -> Option<u64> {
    let duration = u64::try_from(duration_ns(text)?).ok()?;
    (duration == 0 || duration >= 1_000_000).then_some(duration)
}
