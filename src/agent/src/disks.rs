//! Disks by their virtio serial, and layers as partitions of one of them.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use protocol::agent::LayerExtent;
use sys::partition;

use crate::LAYER_SERIAL;
use crate::failure::Refusal;

/// The disk with a serial.
pub(crate) fn by_serial(wanted: &str) -> Result<PathBuf, Refusal> {
    let missing = || Refusal::NoSuchDisk(wanted.to_owned());
    let disks = std::fs::read_dir("/sys/block").map_err(|_| missing())?;
    for disk in disks.flatten() {
        // Only virtio disks have this file.
        let serial = std::fs::read_to_string(disk.path().join("serial"));
        if serial.is_ok_and(|serial| serial.trim_end_matches(['\0', '\n']) == wanted) {
            return Ok(Path::new("/dev").join(disk.file_name()));
        }
    }
    Err(missing())
}

/// The layers' EROFS images: each a partition, made and mounted once, shared by all containers that want it.
pub(crate) struct Layers {
    device: Option<PathBuf>,
    mounts_dir: PathBuf,
    mounted: HashMap<LayerExtent, PathBuf>,
    /// Number of the next partition.
    next: i32,
}

impl Layers {
    /// `device` is found by its serial when it is first needed, if not given.
    pub(crate) fn new(device: Option<PathBuf>, mounts_dir: PathBuf) -> Layers {
        Layers {
            device,
            mounts_dir,
            mounted: HashMap::new(),
            next: 1,
        }
    }

    /// Where a layer is mounted.
    pub(crate) fn mount(&mut self, extent: LayerExtent) -> Result<PathBuf, Refusal> {
        if let Some(path) = self.mounted.get(&extent) {
            return Ok(path.clone());
        }
        let device = match &self.device {
            Some(device) => device.clone(),
            None => self.device.insert(by_serial(LAYER_SERIAL)?).clone(),
        };
        let partition = self.add_partition(&device, extent)?;
        let target = self.mounts_dir.join(self.mounted.len().to_string());
        make_dir(&target)?;
        container::rootfs::mount_erofs(&partition, &target)?;
        self.mounted.insert(extent, target.clone());
        Ok(target)
    }

    fn add_partition(&mut self, device: &Path, extent: LayerExtent) -> Result<PathBuf, Refusal> {
        let LayerExtent {
            offset_bytes,
            len_bytes,
        } = extent;
        let refuse = |source| Refusal::Partition {
            disk: device.to_owned(),
            offset_bytes,
            len_bytes,
            source,
        };
        let disk = File::open(device).map_err(refuse)?;
        partition::add(disk, self.next, offset_bytes, len_bytes).map_err(refuse)?;
        let path = partition_path(device, self.next);
        self.next += 1;
        Ok(path)
    }

    /// Unmounts all layers. What is still in use stays, and goes with the machine.
    pub(crate) fn unmount_all(&mut self) {
        for path in self.mounted.drain().map(|(_, path)| path) {
            let _ = container::rootfs::unmount(&path);
        }
        if let Some(disk) = self
            .device
            .as_ref()
            .and_then(|device| File::open(device).ok())
        {
            for number in 1..self.next {
                let _ = partition::remove(&disk, number);
            }
        }
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

pub(crate) fn make_dir(path: &Path) -> Result<(), Refusal> {
    std::fs::create_dir_all(path).map_err(|source| Refusal::Directory {
        path: path.to_owned(),
        source,
    })
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

    #[test]
    fn a_disk_that_is_not_there_is_named() {
        let error = by_serial("no such serial").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no disk with the serial \"no such serial\""
        );
    }
}
