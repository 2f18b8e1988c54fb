//! Manifests, indexes and image configurations, from registries and archives. They are checked
//! before anything that they refer to is fetched.
//!
//! OCI image-spec 1.1 (manifest.md, image-index.md, config.md) and Docker's image manifest version
//! 2, schema 2, which differ in media types only.

mod select;

mod platform;

use std::collections::HashMap;
use std::fmt;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

pub use platform::{Platform, PlatformError};
pub(crate) use select::{candidates, resolve};

use crate::digest::Digest;

/// The largest manifest or index, in bytes: what registries accept (distribution-spec 1.1, "Pushing
/// Manifests").
pub(crate) const MAX_MANIFEST_LEN: u64 = 4 << 20;
/// The largest image configuration, in bytes. Real ones are below 100 KiB; history is what grows.
pub(crate) const MAX_CONFIG_LEN: u64 = 8 << 20;
/// The largest compressed layer, in bytes: bounds what one descriptor can make us store.
pub(crate) const MAX_LAYER_LEN: u64 = 256 << 30;
/// The most layers of an image: one with more cannot be run.
pub(crate) const MAX_LAYERS: usize = protocol::vmm::MAX_LAYERS;
/// Indexes within indexes: the specification allows any number, builders make one.
pub(crate) const MAX_INDEX_DEPTH: usize = 3;

/// The Accept header of requests for manifests.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

const CONFIG_TYPES: [&str; 2] = [OCI_CONFIG, "application/vnd.docker.container.image.v1+json"];
/// What configurations are called that old Docker pushed, or that lost their type in a registry
/// (distribution/distribution, issue 1621). Docker takes them too; the configuration itself tells
/// whether it is one.
const OLD_CONFIG_TYPES: [&str; 4] = [
    "",
    "application/json",
    "application/octet-stream",
    "text/html",
];
const MANIFEST_TYPES: [&str; 2] = [
    OCI_MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
];
const INDEX_TYPES: [&str; 2] = [
    OCI_INDEX,
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const LAYER_TYPES: [&str; 9] = [
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// The media type of a layer in an OCI manifest, in which skopeo and others refuse Docker's.
pub(crate) fn oci_layer_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => OCI_LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => OCI_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => OCI_LAYER_ZSTD,
        other => other,
    }
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or fields are missing or wrong.
    #[error("the {document} is malformed")]
    Syntax {
        /// "manifest", "image configuration", …
        document: &'static str,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A document that claims to be both an index and a manifest, or is neither.
    #[error("the manifest is neither an image manifest nor an index, or claims to be both")]
    Shape,
    /// Docker's first schema, which registries stopped serving.
    #[error("the manifest has schema version {version}; only 2 is supported")]
    SchemaVersion {
        /// Its number.
        version: u32,
    },
    /// A chart, a signature or the like.
    #[error("it is not a container image but of type {media_type:?}")]
    NotAnImage {
        /// The media type of the artifact or of its configuration.
        media_type: String,
    },
    /// A layer that is encrypted or for another system, or what is called a layer of something
    /// else.
    #[error("a layer has media type {media_type:?}, which is not supported")]
    MediaType {
        /// Its media type.
        media_type: String,
    },
    /// No variant for the platform that was asked for.
    #[error("the image has no variant for {wanted}; it has {available}")]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Platforms,
    },
    /// Indexes nested too deep.
    #[error("the image's indexes are nested more than {MAX_INDEX_DEPTH} deep")]
    Depth,
    /// More layers than a VM can be given.
    #[error("the image has {count} layers, and hull runs images of at most {MAX_LAYERS}")]
    TooManyLayers {
        /// How many.
        count: usize,
    },
    /// No layers.
    #[error("the image has no layers")]
    NoLayers,
    /// The configuration and the manifest disagree.
    #[error("the manifest lists {layers} layers, but the image configuration {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// A size beyond any bound.
    #[error("the {what} claims a size of {bytes} bytes, more than the {max} that are accepted")]
    Size {
        /// Of what.
        what: &'static str,
        /// The claim.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// A diffID that is not a digest.
    #[error("the image configuration names a layer by a malformed digest")]
    DiffId(#[from] crate::digest::Error),
}

/// The platforms that an index offers, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platforms(pub Vec<String>);

impl fmt::Display for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Untrusted text that is printed to a terminal.
        match self.0.is_empty() {
            true => f.write_str("none"),
            false => write!(f, "{}", self.0.join(", ").escape_debug()),
        }
    }
}

/// A reference to content by digest (descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) artifact_type: Option<String>,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<HashMap<String, String>>,
}

impl Descriptor {
    /// Of a layer.
    pub(crate) fn layer(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            artifact_type: None,
            digest,
            size,
            platform: None,
            annotations: None,
        }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

/// A manifest document.
#[derive(Debug)]
pub(crate) enum Document {
    /// A list of manifests.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// A list of manifests.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) entries: Vec<Descriptor>,
    /// What is wrong with the others, such as a digest by another algorithm.
    pub(crate) unreadable: Vec<serde_json::Error>,
}

/// An image's parts, checked for type and size.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    manifests: Option<Vec<serde_json::Value>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a manifest or an index. A document that is both is refused: two clients could see two
    /// images in it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Document, Error> {
        let syntax = |source| Error::Syntax {
            document: "manifest",
            source,
        };
        let raw: Raw = serde_json::from_slice(bytes).map_err(syntax)?;
        if raw.schema_version != 2 {
            return Err(Error::SchemaVersion {
                version: raw.schema_version,
            });
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => index(manifests).map(Document::Index).map_err(syntax),
            (None, Some(config), Some(layers)) => Ok(Document::Manifest(checked(config, layers)?)),
            _ => Err(Error::Shape),
        }
    }
}

/// An index of the entries that can be read; the first error if none can.
fn index(manifests: Vec<serde_json::Value>) -> Result<Index, serde_json::Error> {
    let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
    for entry in manifests {
        match serde_json::from_value(entry) {
            Ok(entry) => entries.push(entry),
            Err(error) => unreadable.push(error),
        }
    }
    match unreadable.is_empty() || !entries.is_empty() {
        true => Ok(Index {
            entries,
            unreadable,
        }),
        false => Err(unreadable.swap_remove(0)),
    }
}

fn is_config_type(media_type: &str) -> bool {
    CONFIG_TYPES.contains(&media_type) || OLD_CONFIG_TYPES.contains(&media_type)
}

fn checked(config: Descriptor, layers: Vec<Descriptor>) -> Result<Manifest, Error> {
    if !is_config_type(&config.media_type) {
        return Err(Error::NotAnImage {
            media_type: config.media_type,
        });
    }
    check_size("image configuration", config.size, MAX_CONFIG_LEN)?;
    check_layer_count(layers.len())?;
    for layer in &layers {
        if !LAYER_TYPES.contains(&layer.media_type.as_str()) {
            let media_type = layer.media_type.clone();
            return Err(Error::MediaType { media_type });
        }
        check_size("layer", layer.size, MAX_LAYER_LEN)?;
    }
    Ok(Manifest { config, layers })
}

pub(crate) fn check_layer_count(count: usize) -> Result<(), Error> {
    match count {
        0 => Err(Error::NoLayers),
        1..=MAX_LAYERS => Ok(()),
        _ => Err(Error::TooManyLayers { count }),
    }
}

pub(crate) fn check_size(what: &'static str, bytes: u64, max: u64) -> Result<(), Error> {
    match bytes <= max {
        true => Ok(()),
        false => Err(Error::Size { what, bytes, max }),
    }
}

/// An image's configuration, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) bytes: Vec<u8>,
    pub(crate) diff_ids: Vec<Digest>,
}

impl Config {
    /// Reads a configuration and checks that it is for this machine.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Config, Error> {
        Config::parse_for(bytes, &Platform::native())
    }

    /// Reads a configuration and checks that it is for this platform, whatever its variant.
    pub(crate) fn parse_for(bytes: Vec<u8>, wanted: &Platform) -> Result<Config, Error> {
        let parsed = parse_config(&bytes)?;
        let platform = Platform::of(&parsed);
        match (&platform.os, &platform.architecture) == (&wanted.os, &wanted.architecture) {
            true => Config::parse_any(bytes),
            false => Err(Error::Platform {
                wanted: wanted.clone(),
                available: Platforms(vec![platform.to_string()]),
            }),
        }
    }

    /// Reads a configuration for this platform, or for whatever it is if that is `None`.
    pub(crate) fn parse_as(bytes: Vec<u8>, wanted: Option<&Platform>) -> Result<Config, Error> {
        match wanted {
            Some(platform) => Config::parse_for(bytes, platform),
            None => Config::parse_any(bytes),
        }
    }

    /// Reads a configuration, for whatever platform it is.
    pub(crate) fn parse_any(bytes: Vec<u8>) -> Result<Config, Error> {
        let parsed = parse_config(&bytes)?;
        check_layer_count(parsed.rootfs().diff_ids().len())?;
        let diff_ids = parsed
            .rootfs()
            .diff_ids()
            .iter()
            .map(|id| id.parse())
            .collect::<Result<_, _>>()?;
        Ok(Config { bytes, diff_ids })
    }

    /// The image's id: the digest of its configuration (config.md, "ImageID").
    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The chainID of every layer, bottom first (config.md, "Layer ChainID").
    pub(crate) fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Option<Digest> = None;
        let next = |diff_id: &Digest| {
            let id = match chain {
                None => *diff_id,
                Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            };
            chain = Some(id);
            id
        };
        self.diff_ids.iter().map(next).collect()
    }

    /// Fails unless the manifest has as many layers.
    pub(crate) fn check_layers(&self, layers: usize) -> Result<(), Error> {
        match self.diff_ids.len() == layers {
            true => Ok(()),
            false => Err(Error::LayerCount {
                layers,
                diff_ids: self.diff_ids.len(),
            }),
        }
    }
}

/// Reads an image configuration.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Syntax {
        document: "image configuration",
        source,
    })
}

#[cfg(test)]
mod tests;
