//! Archives of `docker save`: a `manifest.json` that lists images with their configuration and
//! layers, in its old form (`<id>/layer.tar`) and in its new one, which is an OCI layout as well.
//!
//! docker/docker, image/spec/spec-v1.2.md, "Combined Image JSON + Filesystem Changeset Format".

use serde::Deserialize;

use super::contents::Contents;
use super::oci::check_digest;
use super::{Error, Found, FoundLayer, Inventory, shown};
use crate::digest::Digest;
use crate::error::Cause;
use crate::manifest::{Config, MAX_CONFIG_LEN, Platform};

/// The list of images.
pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Takes the inventory of an archive from the bytes of its `manifest.json`.
pub(super) fn images(
    contents: &Contents,
    manifest: &[u8],
    wanted: Option<&Platform>,
) -> Result<Inventory, Cause> {
    let entries: Vec<Entry> = serde_json::from_slice(manifest).map_err(|source| Error::Syntax {
        name: MANIFEST,
        source,
    })?;
    if entries.is_empty() {
        return Err(Error::Empty.into());
    }
    let mut inventory = Inventory::default();
    for entry in entries {
        let tag = entry.repo_tags.as_ref().and_then(|tags| tags.first());
        let described = shown(tag.unwrap_or(&entry.config));
        inventory.add(image(contents, entry, wanted), || described)?;
    }
    Ok(inventory)
}

fn image(contents: &Contents, entry: Entry, wanted: Option<&Platform>) -> Result<Found, Cause> {
    let bytes = contents.require(&entry.config, MAX_CONFIG_LEN)?;
    if let Some(expected) = digest_in_name(&entry.config) {
        check_digest(&bytes, &expected)?;
    }
    let config = Config::parse_as(bytes, wanted)?;
    config.check_layers(entry.layers.len())?;
    let names = entry.repo_tags.unwrap_or_default();
    let names = names
        .into_iter()
        .map(|name| match name.parse() {
            Ok(reference) => Ok(reference),
            Err(source) => Err(Error::Name {
                name: name.chars().take(300).collect(),
                source,
            }),
        })
        .collect::<Result<_, _>>()?;
    let layers = entry
        .layers
        .into_iter()
        .map(|path| {
            let stated = blob_digest(&path);
            let size = contents.open(&path)?.map(|(_, size)| size);
            Ok(FoundLayer {
                path,
                stated: stated.zip(size),
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(Found {
        config,
        manifest: None,
        layers,
        names,
    })
}

/// The digest in a blob's name.
fn blob_digest(path: &str) -> Option<Digest> {
    Digest::from_hex(path.strip_prefix("blobs/sha256/")?).ok()
}

/// The digest in a configuration's name: `<id>.json`, or that of a blob.
fn digest_in_name(path: &str) -> Option<Digest> {
    blob_digest(path).or_else(|| Digest::from_hex(path.strip_suffix(".json")?).ok())
}
