//! A volume's document, in the shape of Docker's API.

use engine::Engine;
use engine::protocol::record::Volume;
use engine::volumes::DRIVER;
use serde_json::{Value, json};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Everything that is known of a volume.
pub fn document(engine: &Engine, volume: &Volume) -> Value {
    let map = |map: &std::collections::BTreeMap<String, String>| match map.is_empty() {
        true => Value::Null,
        false => json!(map),
    };
    json!({
        "CreatedAt": engine::time::format(volume.created_ns / NANOS_PER_SEC * NANOS_PER_SEC),
        "Driver": DRIVER,
        "Labels": map(&volume.labels),
        "Mountpoint": engine.mountpoint(volume).display().to_string(),
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    })
}
