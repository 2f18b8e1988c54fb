//! An image's document, in the shape of Docker's API.

use engine::Engine;
use engine::image::Image;
use engine::images::Error;
use engine::time;
use serde_json::{Value, json};

/// The document of the image with this name or identifier.
pub fn find(engine: &Engine, name: &str) -> Result<Option<Value>, engine::Error> {
    let image = engine.images()?.find(name).map_err(Error::from)?;
    Ok(image.map(|image| document(&image)))
}

/// What is known of an image.
pub(crate) fn document(image: &Image) -> Value {
    // Its own document has Docker's members already, in the spelling of the OCI.
    let own = serde_json::to_value(&image.config).unwrap_or_default();
    let mut config = own["config"].clone();
    if config.is_null() {
        config = json!({});
    }
    if let Some(check) = &image.docker.healthcheck {
        config["Healthcheck"] = serde_json::to_value(check).unwrap_or_default();
    }
    if let Some(shell) = &image.docker.shell {
        config["Shell"] = json!(shell);
    }
    let names = |names: &[engine::image::Reference]| {
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let layers = image.layers.iter().map(|layer| layer.diff_id.to_string());
    let diff_ids = match &own["rootfs"]["diff_ids"] {
        Value::Array(ids) => json!(ids),
        _ => json!(layers.collect::<Vec<_>>()),
    };
    let created = image
        .created_s
        .and_then(|seconds| u64::try_from(seconds).ok());
    json!({
        "Id": image.id.to_string(),
        "RepoTags": names(&image.names),
        "RepoDigests": names(&image.digests),
        "Parent": "",
        "Comment": "",
        "Created": created.map(|seconds| time::format(seconds.saturating_mul(1_000_000_000))),
        "Author": own["author"].as_str().unwrap_or_default(),
        "Config": config,
        "Architecture": own["architecture"],
        "Os": own["os"],
        "Variant": own["variant"],
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "erofs", "Data": null},
        "RootFS": {"Type": "layers", "Layers": diff_ids},
        "Metadata": {"LastTagTime": time::format(u64::try_from(image.stored_s).unwrap_or(0).saturating_mul(1_000_000_000))},
    })
}
