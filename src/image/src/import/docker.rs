//! What `docker save` writes: a `manifest.json` that lists images with their configuration and layers, in its old
//! form (`<id>/layer.tar`) and in its new one, which is an OCI layout as well.
//!
//! docker/docker, image/spec/spec-v1.2.md, "Combined Image JSON + Filesystem Changeset Format".

use serde::Deserialize;

use super::contents::Contents;
use super::oci::check_digest;
use super::{Error, Found, FoundLayer};
use crate::digest::Digest;
use crate::error::Cause;
use crate::manifest::{Config, MAX_CONFIG_LEN};

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

/// The images that `manifest.json`, given as bytes, lists.
pub(super) fn images(contents: &Contents, manifest: &[u8]) -> Result<Vec<Found>, Cause> {
    let entries: Vec<Entry> = serde_json::from_slice(manifest).map_err(|source| Error::Syntax {
        name: MANIFEST,
        source,
    })?;
    if entries.is_empty() {
        return Err(Error::Empty.into());
    }
    entries
        .into_iter()
        .map(|entry| image(contents, entry))
        .collect()
}

fn image(contents: &Contents, entry: Entry) -> Result<Found, Cause> {
    let bytes = contents.require(&entry.config, MAX_CONFIG_LEN)?;
    if let Some(expected) = digest_in_name(&entry.config) {
        check_digest(&bytes, &expected)?;
    }
    // Of whatever platform: an archive has no other choice to offer.
    let config = Config::parse_any(bytes)?;
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

/// The digest that a blob's name promises.
fn blob_digest(path: &str) -> Option<Digest> {
    Digest::from_hex(path.strip_prefix("blobs/sha256/")?).ok()
}

/// The digest that a configuration's name promises: `<id>.json`, or a blob's.
fn digest_in_name(path: &str) -> Option<Digest> {
    blob_digest(path).or_else(|| Digest::from_hex(path.strip_suffix(".json")?).ok())
}
