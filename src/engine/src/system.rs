//! The whole system: what takes how much of the disk, and what there is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use image::Image;
use protocol::record::Status;

use crate::engine::Engine;
use crate::error::Error;
use crate::list::{ListOptions, Listed};
use crate::volumes::{ListedVolume, VolumeFilters};

/// Of st_blocks (inode(7)).
const BLOCK_BYTES: u64 = 512;

/// What takes how much of the disk.
#[derive(Debug)]
pub struct DiskUsage {
    /// Images, with the number of containers that use each.
    pub images: Vec<(Image, usize)>,
    /// All layers' files together; images share them.
    pub layers_bytes: u64,
    /// Containers, with their sizes.
    pub containers: Vec<Listed>,
    /// Volumes, with their sizes.
    pub volumes: Vec<ListedVolume>,
    /// Saved VMs, which are made again when they are missing.
    pub templates_bytes: u64,
}

/// How much there is of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Containers.
    pub containers: usize,
    /// Of these, running.
    pub running: usize,
    /// Of these, paused.
    pub paused: usize,
    /// Of these, neither.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// Pods.
    pub pods: usize,
}

impl Engine {
    /// What `system df` shows.
    pub fn disk_usage(&self) -> Result<DiskUsage, Error> {
        let in_use = self.images_in_use()?;
        let images = self
            .images()?
            .images()
            .map_err(crate::images::Error::from)?;
        let count = |image: &Image| {
            in_use
                .get(&image.id.to_string())
                .map_or(0, |users| users.len())
        };
        let all = ListOptions {
            all: true,
            sizes: true,
            ..Default::default()
        };
        let mut volumes = self.volumes(&VolumeFilters::default())?;
        self.measure_volumes(&mut volumes);
        Ok(DiskUsage {
            images: images
                .into_iter()
                .map(|image| (count(&image), image))
                .map(|(count, image)| (image, count))
                .collect(),
            layers_bytes: disk_bytes(&self.layout().images().join("layers")),
            containers: self.list(&all)?,
            volumes,
            templates_bytes: disk_bytes(&self.layout().templates()),
        })
    }

    /// What `info` counts.
    pub fn info(&self) -> Result<Info, Error> {
        let all = ListOptions {
            all: true,
            ..Default::default()
        };
        let containers = self.list(&all)?;
        let count = |wanted: Status| {
            containers
                .iter()
                .filter(|c| c.state.status == wanted)
                .count()
        };
        let (running, paused) = (count(Status::Running), count(Status::Paused));
        let images = self
            .images()?
            .images()
            .map_err(crate::images::Error::from)?;
        Ok(Info {
            containers: containers.len(),
            running,
            paused,
            stopped: containers.len() - running - paused,
            images: images.len(),
            pods: self.pods()?.len(),
        })
    }
}

/// What the files below a folder take of the disk. What vanishes meanwhile, or cannot be read, counts nothing.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests;
