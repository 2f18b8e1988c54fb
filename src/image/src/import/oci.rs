//! An OCI layout (image-spec 1.1, image-layout.md): blobs by digest, and an index of images.

use serde::Deserialize;

use super::contents::Contents;
use super::{Error, Found, FoundLayer};
use crate::digest::Digest;
use crate::error::Cause;
use crate::manifest::{
    self, Config, Descriptor, Document, MAX_CONFIG_LEN, MAX_INDEX_DEPTH, MAX_MANIFEST_LEN,
    Manifest, Platform,
};
use crate::reference::Reference;

const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
/// annotations.md; often a mere tag, sometimes a whole reference.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's whole reference.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// The images for this platform, or this machine if it is `None`, in a layout. Entries that say they are for others are
/// passed over, and so are those whose parts are not there (`docker save` since version 25 lists all platforms and
/// saves one), unless nothing else is there. Where no platform was asked for, the only one that is there will do.
pub(super) fn images(contents: &Contents, wanted: Option<&Platform>) -> Result<Vec<Found>, Cause> {
    let layout = contents
        .read(LAYOUT, MAX_MANIFEST_LEN)?
        .ok_or(Error::NotAnImage)?;
    let layout: Layout = serde_json::from_slice(&layout).map_err(|source| Error::Syntax {
        name: LAYOUT,
        source,
    })?;
    if layout.image_layout_version != "1.0.0" {
        return Err(Error::LayoutVersion {
            version: layout.image_layout_version,
        }
        .into());
    }
    let index = contents.require(INDEX, MAX_MANIFEST_LEN)?;
    let Document::Index(entries) = Document::parse(&index)? else {
        return Err(manifest::Error::Shape.into());
    };
    if entries.is_empty() {
        return Err(Error::Empty.into());
    }
    let native = Platform::native();
    let choices: &[Option<&Platform>] = match &wanted {
        Some(platform) => &[Some(platform)],
        None => &[Some(&native), None],
    };
    let mut failure: Cause = match manifest::select_for(&entries, wanted.unwrap_or(&native)) {
        Err(error) => error.into(),
        Ok(_) => Error::Empty.into(),
    };
    for choice in choices {
        let mut found = Vec::new();
        for entry in &entries {
            if !entry.is_index() && !entry.suits(*choice) {
                continue;
            }
            match image(contents, entry, *choice) {
                Ok(image) => found.push(image),
                Err(Cause::Archive(error @ Error::Missing { .. })) => failure = error.into(),
                Err(Cause::Manifest(error @ manifest::Error::Platform { .. })) => {
                    failure = error.into();
                }
                Err(error) => return Err(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(failure)
}

fn image(
    contents: &Contents,
    entry: &Descriptor,
    wanted: Option<&Platform>,
) -> Result<Found, Cause> {
    let (bytes, manifest) = resolve(contents, entry, wanted)?;
    let config = blob(contents, &manifest.config, MAX_CONFIG_LEN)?;
    let config = match wanted {
        Some(platform) => Config::parse_for(config, platform)?,
        None => Config::parse_any(config)?,
    };
    config.check_layers(manifest.layers.len())?;
    let layers = manifest
        .layers
        .iter()
        .map(|layer| FoundLayer {
            path: path(&layer.digest),
            stated: Some((layer.digest, layer.size)),
        })
        .collect();
    Ok(Found {
        config,
        manifest: Some(bytes),
        layers,
        names: names(entry)?,
    })
}

/// Follows indexes to the manifest for a platform, or to one that is there.
fn resolve(
    contents: &Contents,
    entry: &Descriptor,
    wanted: Option<&Platform>,
) -> Result<(Vec<u8>, Manifest), Cause> {
    let mut bytes = blob(contents, entry, MAX_MANIFEST_LEN)?;
    for _ in 0..=MAX_INDEX_DEPTH {
        match Document::parse(&bytes)? {
            Document::Manifest(manifest) => return Ok((bytes, manifest)),
            Document::Index(entries) => {
                let entry = match wanted {
                    Some(platform) => manifest::select_for(&entries, platform)?,
                    None => first_there(contents, &entries)?,
                };
                bytes = blob(contents, entry, MAX_MANIFEST_LEN)?;
            }
        }
    }
    Err(manifest::Error::Depth.into())
}

/// The first entry that is an image's and whose blob the archive has.
fn first_there<'a>(
    contents: &Contents,
    entries: &'a [Descriptor],
) -> Result<&'a Descriptor, Cause> {
    for entry in entries.iter().filter(|entry| entry.suits(None)) {
        if contents.open(&path(&entry.digest))?.is_some() {
            return Ok(entry);
        }
    }
    Err(Error::Empty.into())
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A small blob, with its size and digest checked.
fn blob(contents: &Contents, descriptor: &Descriptor, max: u64) -> Result<Vec<u8>, Error> {
    let name = path(&descriptor.digest);
    let bytes = contents.require(&name, max)?;
    let (expected, actual) = (descriptor.size, bytes.len() as u64);
    if expected != actual {
        return Err(Error::Size {
            name,
            expected,
            actual,
        });
    }
    check_digest(&bytes, &descriptor.digest)?;
    Ok(bytes)
}

pub(super) fn check_digest(bytes: &[u8], expected: &Digest) -> Result<(), Error> {
    let actual = Digest::of(bytes);
    match actual == *expected {
        true => Ok(()),
        false => Err(Error::Digest {
            expected: *expected,
            actual,
        }),
    }
}

/// The name that the index gives an image, if it is a whole one: a tag alone names nothing.
fn names(entry: &Descriptor) -> Result<Vec<Reference>, Error> {
    let whole = |name: &&str| name.contains([':', '/']);
    let name = entry
        .annotation(CONTAINERD_NAME)
        .or_else(|| entry.annotation(REF_NAME).filter(whole));
    let Some(name) = name else {
        return Ok(Vec::new());
    };
    let reference = name.parse().map_err(|source| Error::Name {
        name: name.chars().take(300).collect(),
        source,
    })?;
    Ok(vec![reference])
}
