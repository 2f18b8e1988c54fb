//! The tars of stored layers: rebuilt from their images and the records in `records/`.
//!
//! A record is made durable before its layer is, and has the name of the layer's file: a record without a row in the
//! database is swept as a layer's file without one is. Layers that were stored before there were records have none;
//! they run, and the next pull or import of them stores them anew.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::{Damage, Error, Image, LayerRow, Result, Store};
use crate::digest::{Digest, HashingReader};
use crate::layer::RebuiltTar;
use crate::reference::Reference;

/// What the bytes of a layer's file have come to differ in.
#[derive(Debug, thiserror::Error)]
#[error("layer {diff_id} is damaged: its tar comes out with digest {actual}")]
struct WrongTar {
    diff_id: Digest,
    actual: Digest,
}

/// A layer's tar. Reading it to the end fails unless it is the very tar of which the layer was made.
pub(crate) struct LayerTar {
    inner: Option<HashingReader<RebuiltTar>>,
    diff_id: Digest,
    size_bytes: u64,
}

impl LayerTar {
    /// Bytes of the tar.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Read for LayerTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else {
            return Ok(0);
        };
        let count = inner.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let (diff_id, actual) = (
            self.diff_id,
            self.inner.take().map(|inner| inner.finish().0),
        );
        match actual {
            Some(actual) if actual != diff_id => {
                let error = WrongTar { diff_id, actual };
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
            _ => Ok(0),
        }
    }
}

impl Store {
    pub(super) fn records_folder(&self) -> PathBuf {
        self.root().join("records")
    }

    /// The record of a layer's tar.
    pub(super) fn record_path(&self, layer: &LayerRow) -> PathBuf {
        self.records_folder().join(&layer.file)
    }

    /// Whether the layer's tar can be rebuilt, so far as names tell.
    pub(super) fn has_record(&self, layer: &LayerRow) -> bool {
        std::fs::symlink_metadata(self.record_path(layer)).is_ok_and(|file| file.is_file())
    }

    /// An image's layers, bottom first.
    pub(crate) fn layer_rows(&self, image: &Image) -> Result<Vec<LayerRow>> {
        self.database().layers(&image.id)
    }

    /// The bytes of an image's configuration.
    pub(crate) fn config_of(&self, image: &Image) -> Result<Vec<u8>> {
        self.config_bytes(&image.id)?
            .ok_or_else(|| Error::NotFound {
                what: image.id.short(),
            })
    }

    /// The tags of a repository, whatever tag or digest `name` has, with their images.
    pub(crate) fn tags_of(&self, name: &Reference) -> Result<Vec<(Reference, Digest)>> {
        let tags = self.database().tags(&name.full_repository())?;
        // Names in the database were references when they were put there.
        let parsed = tags.into_iter();
        Ok(parsed
            .filter_map(|(name, id)| Some((name.parse().ok()?, id)))
            .collect())
    }

    /// The layer's tar, from its beginning. `image` is its name for messages.
    pub(crate) fn layer_tar(&self, layer: &LayerRow, image: &str) -> Result<LayerTar> {
        let (path, record) = (self.layer_path(layer), self.record_path(layer));
        let damaged = |path: PathBuf, damage| Error::Damaged {
            image: image.to_owned(),
            path,
            damage,
        };
        self.check_layer(layer)
            .map_err(|damage| damaged(path.clone(), damage))?;
        let opened = match File::open(&record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(record, Damage::NoRecord));
            }
            result => result.map_err(Error::io("open the record", &record))?,
        };
        let file = File::open(&path).map_err(Error::io("open the layer", path))?;
        let tar = RebuiltTar::open(file, opened).map_err(Error::io("read the record", record))?;
        Ok(LayerTar {
            size_bytes: tar.tar_bytes(),
            inner: Some(HashingReader::new(tar)),
            diff_id: layer.diff_id,
        })
    }
}
