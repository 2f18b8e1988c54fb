//! The layers' EROFS images: each mounted once, shared by all containers that are made of it.
//!
//! One is a partition of the layer device, made while the machine runs, or a file of the machine. A layer that no container
//! uses any more stays mounted until its place is needed, since the next container is often of the same image.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use container::rootfs;
use protocol::agent::{Layer, LayerExtent};
use sys::partition;

use crate::LAYER_SERIAL;
use crate::disks::{Disks, make_dir};
use crate::failure::Refusal;
use crate::older;

/// As many as one device has partitions.
const MAX_MOUNTED: usize = partition::MAX_NUMBER as usize;

/// The layers that are mounted.
pub(crate) struct Layers {
    mounts_dir: PathBuf,
    mounted: BTreeMap<Layer, Mounted>,
}

struct Mounted {
    /// The partition's, and the name of the directory.
    number: i32,
    path: PathBuf,
    /// Containers that are made of it.
    users: usize,
}

impl Layers {
    /// None yet; they will be mounted in a directory of their own.
    pub(crate) fn new(mounts_dir: PathBuf) -> Layers {
        Layers {
            mounts_dir,
            mounted: BTreeMap::new(),
        }
    }

    /// Where a layer is mounted. It stays until it is released as often.
    pub(crate) fn acquire(&mut self, layer: &Layer, disks: &Disks) -> Result<PathBuf, Refusal> {
        if !self.mounted.contains_key(layer) {
            let number = self.free_number(disks)?;
            let path = self.mounts_dir.join(number.to_string());
            make_dir(&path)?;
            match layer {
                Layer::Extent(extent) => mount_extent(extent, number, disks, &path)?,
                Layer::File { path: image } => mount_file(Path::new(image), &path)?,
            }
            let mounted = Mounted {
                number,
                path,
                users: 0,
            };
            self.mounted.insert(layer.clone(), mounted);
        }
        let mounted = self.mounted.get_mut(layer).expect("mounted above");
        mounted.users += 1;
        Ok(mounted.path.clone())
    }

    /// A container that was made of a layer is gone.
    pub(crate) fn release(&mut self, layer: &Layer) {
        if let Some(mounted) = self.mounted.get_mut(layer) {
            mounted.users = mounted.users.saturating_sub(1);
        }
    }

    /// A number that no layer has; one that is not used gives its up if all are taken.
    fn free_number(&mut self, disks: &Disks) -> Result<i32, Refusal> {
        if self.mounted.len() >= MAX_MOUNTED {
            let idle = self.mounted.iter().find(|(_, mounted)| mounted.users == 0);
            let idle = idle.map(|(layer, _)| layer.clone());
            let layer = idle.ok_or(Refusal::TooManyLayers(MAX_MOUNTED))?;
            if let Some(mounted) = self.mounted.remove(&layer) {
                rootfs::unmount(&mounted.path)?;
                remove_partition(&layer, &mounted, disks);
            }
        }
        let is_taken = |number: &i32| self.mounted.values().any(|m| m.number == *number);
        (1..=partition::MAX_NUMBER)
            .find(|number| !is_taken(number))
            .ok_or(Refusal::TooManyLayers(MAX_MOUNTED))
    }

    /// Unmounts all layers. What is still in use stays, and goes with the machine.
    pub(crate) fn unmount_all(&mut self, disks: &Disks) {
        for (layer, mounted) in std::mem::take(&mut self.mounted) {
            let _ = rootfs::unmount(&mounted.path);
            remove_partition(&layer, &mounted, disks);
        }
    }
}

fn mount_extent(
    extent: &LayerExtent,
    number: i32,
    disks: &Disks,
    target: &Path,
) -> Result<(), Refusal> {
    let device = disks.with_serial(LAYER_SERIAL)?;
    let LayerExtent {
        offset_bytes,
        len_bytes,
    } = *extent;
    let refuse = |source| Refusal::Partition {
        disk: device.to_owned(),
        offset_bytes,
        len_bytes,
        source,
    };
    let disk = File::open(device).map_err(refuse)?;
    // One that a failed mount has left would be in the way.
    let _ = partition::remove(&disk, number);
    partition::add(&disk, number, offset_bytes, len_bytes).map_err(refuse)?;
    Ok(rootfs::mount_erofs(
        &partition_path(device, number),
        target,
    )?)
}

fn mount_file(image: &Path, target: &Path) -> Result<(), Refusal> {
    match rootfs::mount_erofs(image, target) {
        Err(error) if older::needs_device(&error) => older::mount_erofs(image, target),
        mounted => Ok(mounted?),
    }
}

/// A partition that is in use stays: its number is asked to be removed again before it is used anew.
fn remove_partition(layer: &Layer, mounted: &Mounted, disks: &Disks) {
    if let (Layer::Extent(_), Ok(device)) = (layer, disks.with_serial(LAYER_SERIAL))
        && let Ok(disk) = File::open(device)
    {
        let _ = partition::remove(disk, mounted.number);
    }
}

/// The kernel puts a "p" before the number where the disk's own name ends in one.
fn partition_path(device: &Path, number: i32) -> PathBuf {
    let mut path = device.as_os_str().to_owned();
    if path
        .to_string_lossy()
        .ends_with(|last: char| last.is_ascii_digit())
    {
        path.push("p");
    }
    path.push(number.to_string());
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        assert_eq!(
            partition_path(Path::new("/dev/vda"), 3),
            Path::new("/dev/vda3")
        );
        assert_eq!(
            partition_path(Path::new("/dev/loop0"), 12),
            Path::new("/dev/loop0p12")
        );
    }
}
