//! Images into an archive: what `docker save` writes since version 25, which is an OCI layout with a `manifest.json`
//! beside its `index.json`, so that old and new readers find their way.
//!
//! ```text
//! blobs/sha256/<digest>   layers (plain tars, so that their digests are their diffIDs), configurations, manifests
//! oci-layout, index.json  OCI image-spec 1.1, image-layout.md
//! manifest.json           docker/docker, image/spec/spec-v1.2.md
//! ```
//!
//! Invariants: a layer or configuration that several images have is written once; the same images give the same bytes;
//! every layer's tar is verified by its diffID while it is written. Deliberately absent: the file `repositories`, which
//! no reader since Docker 1.10 needs.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Read, Write};

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::{Cause, Error as TopError};
use crate::manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use crate::progress::{Event, LayerName, Progress};
use crate::reference::Reference;
use crate::store::{self, Image, Lease, Store};

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output could not be written.
    #[error("cannot write the archive")]
    Output(#[source] io::Error),
    /// A layer's tar could not be rebuilt.
    #[error("cannot rebuild layer {diff_id} of image {image}")]
    Layer {
        /// Name or id of the image.
        image: String,
        /// Which layer.
        diff_id: Digest,
        /// Why not.
        source: io::Error,
    },
}

/// An image to be saved, with the tags that go with it.
struct Selected {
    image: Image,
    tags: Vec<Reference>,
    _lease: Lease,
}

impl Store {
    /// Writes images into one archive. Each of `names` is a name with a tag, a repository's name, which means all its
    /// tags here, or an id, with which no tag is saved. After an error the output holds a part of an archive.
    pub fn save(
        &self,
        names: &[&str],
        output: &mut dyn Write,
        progress: &dyn Progress,
    ) -> crate::Result<()> {
        self.save_images(names, output, progress)
            .map_err(|source| TopError::Save {
                names: names.join(", "),
                source: source.into(),
            })
    }

    fn save_images(
        &self,
        names: &[&str],
        output: &mut dyn Write,
        progress: &dyn Progress,
    ) -> Result<(), Cause> {
        let mut selected: Vec<Selected> = Vec::new();
        for name in names {
            self.select(name, &mut selected)?;
        }
        let mut archive = Archive {
            tar: tar::Builder::new(output),
            written: HashSet::new(),
        };
        for folder in ["blobs/", "blobs/sha256/"] {
            archive.folder(folder)?;
        }
        let (mut entries, mut manifests) = (Vec::new(), Vec::new());
        for selected in &selected {
            let manifest = self.save_image(&mut archive, selected, progress)?;
            entries.extend(index_entries(selected, &manifest));
            manifests.push(docker_entry(
                selected,
                &self.store_diff_ids(&selected.image)?,
            ));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        for (name, document) in [
            ("index.json", index),
            ("manifest.json", Value::Array(manifests)),
            ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
        ] {
            archive.file(name, document.to_string().as_bytes())?;
        }
        archive.tar.finish().map_err(Error::Output)?;
        let output = archive.tar.into_inner().map_err(Error::Output)?;
        Ok(output.flush().map_err(Error::Output)?)
    }

    /// Adds what a name means.
    fn select(&self, name: &str, selected: &mut Vec<Selected>) -> Result<(), Cause> {
        let reference = name.parse::<Reference>().ok();
        // Docker: a name without a tag means all tags.
        if let Some(reference) = &reference
            && !has_tag_or_digest(name)
        {
            let tags = self.tags_of(reference)?;
            for (tag, id) in &tags {
                self.select_one(&id.hex(), Some(tag.clone()), selected)?;
            }
            if !tags.is_empty() {
                return Ok(());
            }
        }
        let tag = match reference {
            Some(reference) if self.image(&reference)?.is_some() => {
                reference.digest().is_none().then_some(reference)
            }
            _ => None,
        };
        self.select_one(name, tag, selected)
    }

    fn select_one(
        &self,
        text: &str,
        tag: Option<Reference>,
        selected: &mut Vec<Selected>,
    ) -> Result<(), Cause> {
        let image = self.find(text)?.ok_or_else(|| store::Error::NotFound {
            what: text.to_owned(),
        })?;
        let at = match selected.iter().position(|known| known.image.id == image.id) {
            Some(at) => at,
            None => {
                selected.push(Selected {
                    _lease: self.lease(&image)?,
                    image,
                    tags: Vec::new(),
                });
                selected.len() - 1
            }
        };
        let tags = &mut selected[at].tags;
        tags.extend(tag.filter(|tag| !tags.contains(tag)));
        Ok(())
    }

    /// Writes an image's blobs. Returns the descriptor of its manifest.
    fn save_image(
        &self,
        archive: &mut Archive<'_>,
        selected: &Selected,
        progress: &dyn Progress,
    ) -> Result<Value, Cause> {
        let image = &selected.image;
        let mut layers = Vec::new();
        for (index, row) in self.layer_rows(image)?.iter().enumerate() {
            let layer = LayerName {
                index,
                digest: Some(row.diff_id),
            };
            let tar = self.layer_tar(row, &image.display_name())?;
            let size_bytes = tar.size_bytes();
            layers.push(descriptor(OCI_LAYER, &row.diff_id, size_bytes));
            if archive.written.insert(row.diff_id) {
                progress.event(Event::Saving {
                    layer,
                    total_bytes: size_bytes,
                });
                archive
                    .blob(&row.diff_id, size_bytes, tar)?
                    .map_err(|source| Error::Layer {
                        image: image.display_name(),
                        diff_id: row.diff_id,
                        source,
                    })?;
            }
            progress.event(Event::Saved(layer));
        }
        let config = self.config_of(image)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &image.id, config.len() as u64),
            "layers": layers,
        })
        .to_string();
        for document in [&config[..], manifest.as_bytes()] {
            let digest = Digest::of(document);
            if archive.written.insert(digest) {
                archive.file(&blob_path(&digest), document)?;
            }
        }
        let digest = Digest::of(manifest.as_bytes());
        Ok(descriptor(OCI_MANIFEST, &digest, manifest.len() as u64))
    }

    fn store_diff_ids(&self, image: &Image) -> Result<Vec<Digest>, store::Error> {
        Ok(self
            .layer_rows(image)?
            .iter()
            .map(|row| row.diff_id)
            .collect())
    }
}

/// Whether a name says more than its repository.
fn has_tag_or_digest(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.contains([':', '@'])
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn descriptor(media_type: &str, digest: &Digest, size_bytes: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size_bytes })
}

/// What the index says of an image: an entry for each tag, or one without a name.
fn index_entries(selected: &Selected, manifest: &Value) -> Vec<Value> {
    let platform = selected.image.platform();
    let mut entry = manifest.clone();
    entry["platform"] = json!({ "os": platform.os, "architecture": platform.architecture });
    if let Some(variant) = platform.variant {
        entry["platform"]["variant"] = variant.into();
    }
    let named = |tag: &Reference| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({
            "io.containerd.image.name": tag.canonical(),
            "org.opencontainers.image.ref.name": tag.tag().unwrap_or_default(),
        });
        entry
    };
    match selected.tags.is_empty() {
        true => vec![entry],
        false => selected.tags.iter().map(named).collect(),
    }
}

/// What `manifest.json` says of an image.
fn docker_entry(selected: &Selected, diff_ids: &[Digest]) -> Value {
    let tags: Vec<String> = selected.tags.iter().map(Reference::to_string).collect();
    json!({
        "Config": blob_path(&selected.image.id),
        "RepoTags": if tags.is_empty() { Value::Null } else { tags.into() },
        "Layers": diff_ids.iter().map(blob_path).collect::<Vec<_>>(),
    })
}

/// The archive as it is written.
struct Archive<'a> {
    tar: tar::Builder<&'a mut dyn Write>,
    /// The blobs that are in it.
    written: HashSet<Digest>,
}

impl Archive<'_> {
    fn folder(&mut self, path: &str) -> Result<(), Error> {
        let mut header = header(0, 0o755);
        header.set_entry_type(tar::EntryType::Directory);
        self.tar
            .append_data(&mut header, path, io::empty())
            .map_err(Error::Output)
    }

    fn file(&mut self, path: &str, contents: &[u8]) -> Result<(), Error> {
        let mut header = header(contents.len() as u64, 0o644);
        self.tar
            .append_data(&mut header, path, contents)
            .map_err(Error::Output)
    }

    /// Copies a blob. The inner error is the reader's.
    fn blob(
        &mut self,
        digest: &Digest,
        size_bytes: u64,
        reader: impl Read,
    ) -> Result<io::Result<()>, Error> {
        let failed = Cell::new(false);
        let reader = Noting {
            inner: reader,
            failed: &failed,
        };
        let mut header = header(size_bytes, 0o644);
        match self.tar.append_data(&mut header, blob_path(digest), reader) {
            Ok(()) => Ok(Ok(())),
            Err(error) if failed.get() => Ok(Err(error)),
            Err(error) => Err(Error::Output(error)),
        }
    }
}

fn header(size_bytes: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size_bytes);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

/// A reader that notes its own failure, to be told from the writer's.
struct Noting<'a, R> {
    inner: R,
    failed: &'a Cell<bool>,
}

impl<R: Read> Read for Noting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        if let Err(error) = &result {
            self.failed.set(error.kind() != io::ErrorKind::Interrupted);
        }
        result
    }
}
