//! Query strings, and the filters in them.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::Failure;

/// The most parameters of a request: what is behind them is refused.
const MAX_PARAMETERS: usize = 256;

/// A query string's parameters, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what is behind the `?`.
    pub fn parse(text: &str) -> Result<Query, Failure> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let decoded = percent_decode_str(&text).decode_utf8();
            decoded
                .map(|text| text.into_owned())
                .map_err(|_| Failure::invalid("the query string is not UTF-8"))
        };
        let mut all = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if all.len() == MAX_PARAMETERS {
                return Err(Failure::invalid("the query string has too many parameters"));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            all.push((decode(name)?, decode(value)?));
        }
        Ok(Query(all))
    }

    /// A parameter that is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        let named = self.0.iter().filter(move |(known, _)| *known == name);
        named.map(|(_, value)| value.as_str())
    }

    /// A boolean, false if it is not there. As Docker has it, any other word than one for false is true.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The same with another default.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(value) => !matches!(
                value.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "f" | "no" | "false" | "none"
            ),
        }
    }

    /// An integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Failure> {
        let parse = |text: &str| {
            let number = text.parse::<i64>();
            number
                .map_err(|_| Failure::invalid(format!("invalid {name}: {text:?} is not a number")))
        };
        self.get(name).map(parse).transpose()
    }

    /// A moment, in nanoseconds since the epoch; 0 is Docker's word for none.
    pub fn moment(&self, name: &str) -> Result<Option<u64>, Failure> {
        match self.get(name) {
            None | Some("0") => Ok(None),
            Some(text) => match values::moments::moment(text) {
                Ok(ns) => Ok(Some(ns)),
                Err(error) => Err(Failure::invalid(format!("invalid {name}: {error}"))),
            },
        }
    }

    /// The parameter `filters`.
    pub fn filters(&self) -> Result<Vec<(String, String)>, Failure> {
        filters(self.get("filters").unwrap_or_default())
    }
}

/// Filters in either of Docker's encodings: `{"label": ["a=b"]}` or `{"label": {"a=b": true}}`. Anything else is refused, so
/// that no filter is ever taken for none.
pub fn filters(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let invalid = || Failure::invalid("invalid filter");
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Ok(Value::Object(keys)) = serde_json::from_str::<Value>(text) else {
        return Err(invalid());
    };
    let mut all = Vec::new();
    for (key, values) in keys {
        match values {
            Value::Array(values) => {
                for value in values {
                    match value {
                        Value::String(value) => all.push((key.clone(), value)),
                        _ => return Err(invalid()),
                    }
                }
            }
            Value::Object(values) => {
                for (value, is_there) in values {
                    match is_there {
                        Value::Bool(_) => all.push((key.clone(), value)),
                        _ => return Err(invalid()),
                    }
                }
            }
            _ => return Err(invalid()),
        }
    }
    Ok(all)
}

/// A filter's boolean, in any of Go's spellings.
pub fn boolean(key: &str, value: &str) -> Result<bool, Failure> {
    let refused = |_| Failure::invalid(format!("invalid filter '{key}=[{value}]'"));
    values::boolean(value).map_err(refused)
}

/// A filter that there is not.
pub fn unknown(key: &str) -> Failure {
    Failure::invalid(format!("invalid filter '{key}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        all.iter().map(own).collect()
    }

    #[test]
    fn b2_16_filters_have_two_encodings() {
        let expected = pairs(&[("label", "a=b"), ("label", "c"), ("status", "exited")]);
        let list = r#"{"label": ["a=b", "c"], "status": ["exited"]}"#;
        let map = r#"{"label": {"a=b": true, "c": true}, "status": {"exited": true}}"#;
        assert_eq!(filters(list).unwrap(), expected);
        assert_eq!(filters(map).unwrap(), expected);
        assert_eq!(filters("").unwrap(), []);
    }

    #[test]
    fn b2_16_a_filter_that_is_none_is_refused_and_never_passed_over() {
        for text in [
            "[]",
            "x",
            "{",
            r#"{"a": 1}"#,
            r#"{"a": [1]}"#,
            r#"{"a": {"b": 1}}"#,
            "null",
        ] {
            assert_eq!(filters(text).unwrap_err().status, 400, "{text}");
        }
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert!(boolean("dangling", text).unwrap());
        }
        assert!(!boolean("dangling", "False").unwrap());
        assert!(boolean("dangling", "yes").is_err());
    }

    #[test]
    fn parameters_are_decoded_and_flags_read_as_docker_reads_them() {
        let query = Query::parse("a=1&b=False&c&d=x%2Fy+z&e=none&d=2").unwrap();
        assert!(query.flag("a") && !query.flag("b") && !query.flag("c") && !query.flag("e"));
        assert!(query.flag_or("nope", true));
        assert_eq!(query.get("d"), Some("x/y z"));
        assert_eq!(query.all("d").count(), 2);
        assert!(query.integer("d").is_err());
        assert_eq!(Query::parse("a=%ff").unwrap_err().status, 400);
        assert!(Query::parse(&"a&".repeat(1000)).is_err());
    }
}
