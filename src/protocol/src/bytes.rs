//! Bytes in a document, as base64: an array of numbers takes twice the room and 200 instructions for each byte to read.
//! For `#[serde(with = …)]` of an `Option<Vec<u8>>`, whose field is also `default`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(
    bytes: &Option<Vec<u8>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => serializer.serialize_some(&STANDARD.encode(bytes)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<u8>>, D::Error> {
    deserializer.deserialize_any(Bytes)
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text, or nothing")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        STANDARD.decode(text).map(Some).map_err(E::custom)
    }

    /// As version 1 of the records has it.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "super", default)]
        bytes: Option<Vec<u8>>,
    }

    fn read(text: &str) -> Result<Option<Vec<u8>>, serde_json::Error> {
        serde_json::from_str::<Holder>(text).map(|holder| holder.bytes)
    }

    #[test]
    fn bytes_are_written_as_text_and_read_as_text_or_numbers() {
        let holder = Holder {
            bytes: Some(vec![6, 0, 255]),
        };
        let text = serde_json::to_string(&holder).unwrap();
        assert_eq!(text, r#"{"bytes":"BgD/"}"#);
        assert_eq!(read(&text).unwrap(), holder.bytes);
        assert_eq!(read(r#"{"bytes":[6,0,255]}"#).unwrap(), holder.bytes);
        assert_eq!(read(r#"{"bytes":null}"#).unwrap(), None);
        assert_eq!(read("{}").unwrap(), None);
    }

    #[test]
    fn other_text_and_other_numbers_are_refused() {
        for text in [r#"{"bytes":"BgD"}"#, r#"{"bytes":[256]}"#, r#"{"bytes":1}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
