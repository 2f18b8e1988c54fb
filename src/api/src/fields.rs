//! JSON objects of which every member is taken, or refused by name.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Failure;

/// The members of an object that have not been taken yet.
#[derive(Debug, Default)]
pub struct Fields {
    /// Of the object itself, for messages: empty, or with a dot behind.
    prefix: String,
    members: Map<String, Value>,
}

impl Fields {
    /// Reads a body; an empty one has no members.
    pub fn parse(body: &[u8]) -> Result<Fields, Failure> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Fields::default());
        }
        match serde_json::from_slice::<Option<Map<String, Value>>>(body) {
            Ok(members) => Ok(Fields {
                prefix: String::new(),
                members: members.unwrap_or_default(),
            }),
            Err(error) => Err(Failure::invalid(format!("invalid JSON: {error}"))),
        }
    }

    /// Takes a member; `null` is none.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let value = self.members.remove(name).unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|error| {
            Failure::invalid(format!("invalid value of {}{name}: {error}", self.prefix))
        })
    }

    /// Takes a member; one that is not there is the type's default.
    pub fn get<T: DeserializeOwned + Default>(&mut self, name: &str) -> Result<T, Failure> {
        Ok(self.take(name)?.unwrap_or_default())
    }

    /// Takes a text that is not empty.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        Ok(self.take::<String>(name)?.filter(|text| !text.is_empty()))
    }

    /// Takes an object.
    pub fn object(&mut self, name: &str) -> Result<Fields, Failure> {
        Ok(Fields {
            members: self.get(name)?,
            prefix: format!("{}{name}.", self.prefix),
        })
    }

    /// Takes a list of objects.
    pub fn objects(&mut self, name: &str) -> Result<Vec<Fields>, Failure> {
        let all: Vec<Map<String, Value>> = self.get(name)?;
        let prefix = format!("{}{name}.", self.prefix);
        let fields = |members| Fields {
            prefix: prefix.clone(),
            members,
        };
        Ok(all.into_iter().map(fields).collect())
    }

    /// Takes all members that are left, by name.
    pub fn rest(&mut self) -> Vec<(String, Fields)> {
        let members = std::mem::take(&mut self.members);
        let fields = |(name, value)| {
            let prefix = format!("{}{name}.", self.prefix);
            let members = match value {
                Value::Object(members) => members,
                Value::Null => Map::new(),
                other => Map::from_iter([(String::new(), other)]),
            };
            (name, Fields { prefix, members })
        };
        members.into_iter().map(fields).collect()
    }

    /// Refuses what is left, by name, unless it says nothing.
    pub fn end(self) -> Result<(), Failure> {
        match self.members.iter().find(|(_, value)| !says_nothing(value)) {
            None => Ok(()),
            Some((name, _)) => Err(Failure::new(
                501,
                format!(
                    "{}{name} is not something that hull can do: leave it out",
                    self.prefix
                ),
            )),
        }
    }
}

/// Whether a value is what Docker's clients write for a member that is not asked for.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.values().all(says_nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_refused_by_name_unless_it_says_nothing() {
        let body = br#"{"A": "x", "B": {"C": 1, "D": [], "E": {"F": null}}, "G": 0, "H": false}"#;
        let mut fields = Fields::parse(body).unwrap();
        assert_eq!(fields.text("A").unwrap().as_deref(), Some("x"));
        let inner = fields.object("B").unwrap();
        fields.end().unwrap();
        let refused = inner.end().unwrap_err();
        assert_eq!(refused.status, 501);
        assert!(refused.message.starts_with("B.C "), "{}", refused.message);
    }

    #[test]
    fn members_of_another_type_and_bodies_that_are_none_are_refused() {
        let mut fields = Fields::parse(br#"{"A": 1, "N": null}"#).unwrap();
        assert_eq!(fields.text("A").unwrap_err().status, 400);
        assert_eq!(fields.text("N").unwrap(), None);
        assert!(Fields::parse(b" ").is_ok() && Fields::parse(b"null").is_ok());
        assert!(Fields::parse(b"[]").is_err());
        let deep = "[".repeat(100_000);
        assert!(Fields::parse(format!("{{\"A\": {deep}").as_bytes()).is_err());
    }
}
