//! From the store to a registry: layers that it does not have are rebuilt as tars, packed and sent, several at once;
//! then the configuration, then the manifest.
//!
//! ```text
//!  for each layer: known there? -> in another of its repositories? -> tar -> gzip -> spool -> there after all? -> send
//!  then: configuration -> manifest under its tag
//! ```
//!
//! A packed layer goes through a file without a name in the store's folder: its digest is known before it is sent, so
//! that nothing is sent that is there, and a transfer that breaks off begins anew without packing again. An image whose
//! layers are all at the registry as it was pulled keeps its manifest, and with it its digest.

mod layers;

use std::sync::atomic::AtomicBool;

use layers::LayerPushes;

use crate::digest::Digest;
use crate::error::{Cause, Error as TopError};
use crate::manifest::{Descriptor, Document, OCI_CONFIG, OCI_MANIFEST};
use crate::progress::Progress;
use crate::pull::PullOptions;
use crate::reference::Reference;
use crate::registry::{Blob, Client, Retry};
use crate::store::{self, BlobRow, Image, Store};

/// How to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOptions {
    /// How to speak to the registry; what is only about pulling has no effect.
    pub connection: PullOptions,
    /// Layers that are packed and sent at once; Docker's default is 5.
    pub parallel_uploads: usize,
}

impl Default for PushOptions {
    fn default() -> PushOptions {
        PushOptions {
            connection: PullOptions::default(),
            parallel_uploads: 5,
        }
    }
}

/// What a push put at the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Under which name.
    pub name: Reference,
    /// The digest of the manifest, by which it can be pulled.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size_bytes: u64,
}

impl Store {
    /// Sends the image of this name to the registry that the name says, under this name. A digest is no such name.
    pub fn push(
        &self,
        name: &Reference,
        options: &PushOptions,
        progress: &dyn Progress,
    ) -> crate::Result<Pushed> {
        let push = || {
            let client = Client::connect(name, &options.connection)?;
            self.push_image(&client, name, options, progress)
        };
        push().map_err(|source| TopError::Push {
            name: name.to_string(),
            source: Box::new(source),
        })
    }

    /// Sends every tag that a repository has here. The tag or digest of `name` has no effect.
    pub fn push_all(
        &self,
        name: &Reference,
        options: &PushOptions,
        progress: &dyn Progress,
    ) -> crate::Result<Vec<Pushed>> {
        let push = || -> Result<Vec<Pushed>, Cause> {
            let tags = self.tags_of(name)?;
            if tags.is_empty() {
                let what = name.full_repository();
                return Err(store::Error::NotFound { what }.into());
            }
            let client = Client::connect(name, &options.connection)?;
            tags.iter()
                .map(|(tag, _)| self.push_image(&client, tag, options, progress))
                .collect()
        };
        push().map_err(|source| TopError::Push {
            name: name.to_string(),
            source: Box::new(source),
        })
    }

    fn push_image(
        &self,
        client: &Client,
        name: &Reference,
        options: &PushOptions,
        progress: &dyn Progress,
    ) -> Result<Pushed, Cause> {
        if name.digest().is_some() {
            let name = name.to_string();
            return Err(store::Error::DigestAsTag { name }.into());
        }
        let _session = self.session()?;
        let image = self.image(name)?.ok_or_else(|| store::Error::NotFound {
            what: name.to_string(),
        })?;
        let _lease = self.lease(&image)?;
        let cancelled = AtomicBool::new(false);
        let rows = self.layer_rows(&image)?;
        let layers = LayerPushes {
            store: self,
            client,
            name,
            image: &image,
            options,
            progress,
            cancelled: &cancelled,
        }
        .run(&rows)?;
        let retry = || Retry::new(&options.connection, None, progress, &cancelled);
        let config = self.config_of(&image)?;
        retry().run(|| client.reached(), || send_config(client, &config))?;
        let (media_type, manifest) = self.manifest_of(&image, &config, &layers)?;
        let digest = retry().run(
            || client.reached(),
            || client.put_manifest(&name.manifest(), &media_type, &manifest),
        )?;
        let repository = name.full_repository();
        let blobs: Vec<(Digest, BlobRow)> = rows
            .iter()
            .zip(&layers)
            .map(|(row, layer)| (row.diff_id, BlobRow::of(layer, &repository)))
            .collect();
        self.put_pushed(&image, &name.at(digest), &blobs)?;
        Ok(Pushed {
            name: name.clone(),
            digest,
            size_bytes: manifest.len() as u64,
        })
    }

    /// The manifest to push: the one that the image came with if it says the same, else a new one. With its media type.
    fn manifest_of(
        &self,
        image: &Image,
        config: &[u8],
        layers: &[Descriptor],
    ) -> Result<(String, Vec<u8>), store::Error> {
        if let Some(bytes) = self.stored_manifest(image)?
            && let Ok(Document::Manifest(manifest)) = Document::parse(&bytes)
        {
            let known = manifest.layers.iter().map(|layer| layer.digest);
            if known.eq(layers.iter().map(|layer| layer.digest)) {
                return Ok((media_type(&bytes), bytes));
            }
        }
        let describe = |media_type: &str, digest: &Digest, size: u64| serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size });
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| describe(&layer.media_type, &layer.digest, layer.size))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": describe(OCI_CONFIG, &image.id, config.len() as u64),
            "layers": layers,
        });
        Ok((OCI_MANIFEST.to_owned(), manifest.to_string().into_bytes()))
    }
}

/// The media type that a manifest says it has; in OCI's it may be left out.
fn media_type(manifest: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(manifest).unwrap_or_default();
    let stated = document.get("mediaType").and_then(|value| value.as_str());
    stated.unwrap_or(OCI_MANIFEST).to_owned()
}

fn send_config(client: &Client, config: &[u8]) -> Result<(), crate::registry::Error> {
    let digest = Digest::of(config);
    if client.has_blob(&digest)? {
        return Ok(());
    }
    let open = |start: u64, length: u64| {
        let (start, length) = (start as usize, length as usize);
        Box::new(&config[start..start + length]) as Box<dyn std::io::Read>
    };
    let blob = Blob {
        digest,
        size_bytes: config.len() as u64,
        open: &open,
    };
    client.send_blob(&blob, None)
}
