//! What people ask about an image: everything of it, where its layers come from, and what it takes of the disk.

use std::collections::HashMap;

use super::image::seconds_of_rfc3339;
use super::{Error, Image, NewName, Result, Store};
use crate::digest::Digest;
use crate::reference::Reference;

/// All that is known of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// The image.
    pub image: Image,
    /// Its configuration, with all its fields, also those that this crate does not know.
    pub config: serde_json::Value,
    /// The layers' diffIDs, bottom first (Docker's `RootFS.Layers`).
    pub diff_ids: Vec<Digest>,
    /// The digest of the manifest that it was pulled or imported with.
    pub manifest: Option<Digest>,
}

/// One step of an image's making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image, for the newest entry.
    pub id: Option<Digest>,
    /// Its tags, for the newest entry.
    pub tags: Vec<Reference>,
    /// When, in seconds since 1970.
    pub created_s: Option<i64>,
    /// The command.
    pub created_by: String,
    /// A remark.
    pub comment: String,
    /// The step made no layer.
    pub empty_layer: bool,
    /// Bytes of the layer's file; 0 if there is none.
    pub size_bytes: u64,
}

/// What an image takes of the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageUsage {
    /// The image, whose `size_bytes` is the sum of the other two.
    pub image: Image,
    /// Bytes of layers that other images have, too.
    pub shared_bytes: u64,
    /// Bytes that would be freed with this image.
    pub unique_bytes: u64,
}

/// What all images take of the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskUsage {
    /// Each image, the newest first.
    pub images: Vec<ImageUsage>,
    /// Bytes of all their layers, each counted once.
    pub layers_bytes: u64,
    /// Bytes of downloads under way or interrupted, and of layers that no image has.
    pub reclaimable_bytes: u64,
}

impl Store {
    /// Gives an image another name, which whatever image has it loses. A digest is no such name: it is refused.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<()> {
        if name.digest().is_some() {
            return Err(Error::DigestAsTag {
                name: name.to_string(),
            });
        }
        let new = NewName::of(name);
        match self.database().put_name(&image.id, &new)? {
            true => Ok(()),
            false => Err(Error::NotFound {
                what: image.id.short(),
            }),
        }
    }

    /// All that is known of an image.
    pub fn details(&self, image: &Image) -> Result<Details> {
        let row = self.database().image(&image.id)?;
        let row = row.ok_or_else(|| Error::NotFound {
            what: image.id.short(),
        })?;
        let manifest = self.database().manifest(&image.id)?;
        Ok(Details {
            // Parsed when the image was entered, and checked against its id when it was found.
            config: serde_json::from_slice(&row.config).unwrap_or_default(),
            diff_ids: self.diff_ids(&image.id)?,
            manifest: manifest.map(|bytes| Digest::of(&bytes)),
            image: image.clone(),
        })
    }

    fn diff_ids(&self, id: &Digest) -> Result<Vec<Digest>> {
        let rows = self.database().layers(id)?;
        Ok(rows.into_iter().map(|row| row.diff_id).collect())
    }

    /// How an image came to be, the newest step first. A configuration may tell fewer steps than it has layers: the
    /// layers that are left are the newest, and nothing is known of them but their sizes.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryEntry>> {
        let rows = self.database().layers(&image.id)?;
        let mut layers = rows.iter().map(|row| row.size_bytes);
        let mut entries = Vec::new();
        for step in image.config.history().iter().flatten() {
            let empty_layer = step.empty_layer().unwrap_or(false);
            let size_bytes = if empty_layer { None } else { layers.next() };
            entries.push(HistoryEntry {
                id: None,
                tags: Vec::new(),
                created_s: step.created().as_deref().and_then(seconds_of_rfc3339),
                created_by: step.created_by().clone().unwrap_or_default(),
                comment: step.comment().clone().unwrap_or_default(),
                empty_layer,
                size_bytes: size_bytes.unwrap_or(0),
            });
        }
        entries.extend(layers.map(|size_bytes| HistoryEntry {
            id: None,
            tags: Vec::new(),
            created_s: None,
            created_by: String::new(),
            comment: String::new(),
            empty_layer: false,
            size_bytes,
        }));
        if let Some(newest) = entries.last_mut() {
            newest.id = Some(image.id);
            newest.tags = image.names.clone();
        }
        entries.reverse();
        Ok(entries)
    }

    /// What the images take of the disk.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let images = self.images()?;
        let mut files = Vec::with_capacity(images.len());
        let mut owners: HashMap<String, (u64, usize)> = HashMap::new();
        for image in &images {
            let mut rows = self.database().layers(&image.id)?;
            // An image may have the same layer twice, and has one file of it.
            rows.sort_by(|a, b| a.file.cmp(&b.file));
            rows.dedup_by(|a, b| a.file == b.file);
            for row in &rows {
                owners
                    .entry(row.file.clone())
                    .or_insert((row.size_bytes, 0))
                    .1 += 1;
            }
            files.push(rows);
        }
        let layers_bytes = owners.values().map(|(size, _)| size).sum();
        let usage = |(mut image, rows): (Image, Vec<super::LayerRow>)| {
            let shared = rows.iter().filter(|row| owners[&row.file].1 > 1);
            let shared_bytes = shared.map(|row| row.size_bytes).sum();
            image.size_bytes = rows.iter().map(|row| row.size_bytes).sum();
            ImageUsage {
                unique_bytes: image.size_bytes - shared_bytes,
                shared_bytes,
                image,
            }
        };
        let stored = self.folder_bytes("layers")?;
        Ok(DiskUsage {
            reclaimable_bytes: self.folder_bytes("partial")? + stored.saturating_sub(layers_bytes),
            layers_bytes,
            images: images.into_iter().zip(files).map(usage).collect(),
        })
    }

    /// The lengths of a folder's files. A file that goes away meanwhile counts nothing.
    fn folder_bytes(&self, name: &str) -> Result<u64> {
        let folder = self.root().join(name);
        let failed = || Error::io("read the folder", &folder);
        let mut sum = 0u64;
        for entry in std::fs::read_dir(&folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            sum = sum.saturating_add(entry.metadata().map_or(0, |file| file.len()));
        }
        Ok(sum)
    }
}
