//! Members that held one value at most in earlier versions, and hold a list now: one value is written and read as it was.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes nothing as null, one value as itself, and several as a list.
pub(super) fn write<T: Serialize, S: Serializer>(all: &[T], to: S) -> Result<S::Ok, S::Error> {
    match all {
        [] => to.serialize_none(),
        [one] => one.serialize(to),
        several => several.serialize(to),
    }
}

/// Reads what [`write`] wrote.
pub(super) fn read<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        One(Option<T>),
        Several(Vec<T>),
    }
    Ok(match Either::deserialize(from)? {
        Either::One(one) => one.into_iter().collect(),
        Either::Several(all) => all,
    })
}
