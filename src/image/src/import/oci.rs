//! An OCI layout (image-spec 1.1, image-layout.md): blobs by digest, and an index of images.

use serde::Deserialize;

use super::contents::Contents;
use super::{Error, Found, FoundLayer, Inventory, shown};
use crate::digest::Digest;
use crate::error::Cause;
use crate::manifest::{
    self, Config, Descriptor, Document, MAX_CONFIG_LEN, MAX_MANIFEST_LEN, Platform,
};
use crate::reference::Reference;

pub(super) const LAYOUT: &str = "oci-layout";
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

/// Takes the inventory of a layout: the images for a platform, or for any if it is `None`.
pub(super) fn images(contents: &Contents, wanted: Option<&Platform>) -> Result<Inventory, Cause> {
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
    let Document::Index(index) = Document::parse(&index)? else {
        return Err(manifest::Error::Shape.into());
    };
    if index.entries.is_empty() {
        return Err(Error::Empty.into());
    }
    let mut inventory = Inventory::default();
    for error in &index.unreadable {
        inventory.pass_over("an entry of index.json", error);
    }
    for entry in &index.entries {
        // Each entry is searched by itself, like an index of one entry.
        let found = match manifest::candidates(std::slice::from_ref(entry), wanted) {
            Ok(_) => image(contents, entry, wanted, &mut inventory),
            Err(error) => Err(error.into()),
        };
        inventory.add(found, || described(entry))?;
    }
    if inventory.found.is_empty() {
        // All entries together give a better reason than one of them.
        manifest::candidates(&index.entries, wanted)?;
    }
    Ok(inventory)
}

/// An entry of the index, for messages.
fn described(entry: &Descriptor) -> String {
    match entry
        .annotation(CONTAINERD_NAME)
        .or_else(|| entry.annotation(REF_NAME))
    {
        Some(name) => format!("{} ({})", entry.digest, shown(name)),
        None => entry.digest.to_string(),
    }
}

fn image(
    contents: &Contents,
    entry: &Descriptor,
    wanted: Option<&Platform>,
    inventory: &mut Inventory,
) -> Result<Found, Cause> {
    // `docker save` since version 25 lists all platforms of an image and saves one.
    let mut absent = None;
    let mut fetch = |entry: &Descriptor| -> Result<_, Cause> {
        if contents.open(&path(&entry.digest))?.is_none() {
            absent.get_or_insert(entry.digest);
            return Ok(None);
        }
        Ok(Some(blob(contents, entry, MAX_MANIFEST_LEN)?))
    };
    let resolved = match fetch(entry)? {
        Some(bytes) => manifest::resolve(bytes, wanted, &mut fetch),
        None => Err(manifest::Error::Depth.into()),
    };
    let (bytes, manifest) = match (resolved, absent) {
        (Err(Cause::Manifest(manifest::Error::Depth)), Some(digest)) => {
            return Err(Error::Absent { digest }.into());
        }
        (resolved, _) => resolved?,
    };
    let config = blob(contents, &manifest.config, MAX_CONFIG_LEN)?;
    let config = Config::parse_as(config, wanted)?;
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
        names: name(entry, inventory).into_iter().collect(),
    })
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A small blob; its size and digest are checked.
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

/// The name that the index gives an image. A tag alone is not a name, and the specification allows
/// other text.
fn name(entry: &Descriptor, inventory: &mut Inventory) -> Option<Reference> {
    let whole = |name: &&str| name.contains([':', '/']);
    let name = entry
        .annotation(CONTAINERD_NAME)
        .or_else(|| entry.annotation(REF_NAME).filter(whole))?;
    match name.parse() {
        Ok(reference) => Some(reference),
        Err(error) => {
            inventory.pass_over(&format!("the name \"{}\"", shown(name)), &error);
            None
        }
    }
}
