//! Disks by their virtio serial, and layers as partitions of one of them.

use std::fs::{DirEntry, File};
use std::path::{Path, PathBuf};

use protocol::agent::LayerExtent;
use sys::partition;

use crate::LAYER_SERIAL;
use crate::failure::Refusal;

/// The disks of the machine.
pub(crate) struct Disks(Vec<Disk>);

struct Disk {
    serial: String,
    device: PathBuf,
}

impl Disks {
    /// Asks every disk for its serial: a request to the device, each time. `layers`, if given, is the disk of the layers
    /// whatever its serial.
    pub(crate) fn find(layers: Option<PathBuf>) -> Disks {
        let given = layers.map(|device| Disk {
            serial: LAYER_SERIAL.to_owned(),
            device,
        });
        let disks = std::fs::read_dir("/sys/block").into_iter().flatten();
        let disk = |entry: DirEntry| {
            // Only virtio disks have this file.
            let serial = std::fs::read_to_string(entry.path().join("serial")).ok()?;
            Some(Disk {
                serial: serial.trim_end_matches(['\0', '\n']).to_owned(),
                device: Path::new("/dev").join(entry.file_name()),
            })
        };
        let found = disks.flatten().filter_map(disk);
        Disks(given.into_iter().chain(found).collect())
    }

    /// The disk with a serial.
    pub(crate) fn with_serial(&self, wanted: &str) -> Result<&Path, Refusal> {
        let disk = self.0.iter().find(|disk| disk.serial == wanted);
        disk.map(|disk| disk.device.as_path())
            .ok_or_else(|| Refusal::NoSuchDisk(wanted.to_owned()))
    }
}

/// The layers' EROFS images: each a partition, made and mounted once, shared by all containers that want it.
pub(crate) struct Layers {
    mounts_dir: PathBuf,
    mounted: Vec<(LayerExtent, PathBuf)>,
    /// Number of the next partition.
    next: i32,
}

impl Layers {
    /// None yet; they will be mounted in a directory of their own.
    pub(crate) fn new(mounts_dir: PathBuf) -> Layers {
        Layers {
            mounts_dir,
            mounted: Vec::new(),
            next: 1,
        }
    }

    /// Where a layer is mounted.
    pub(crate) fn mount(&mut self, extent: LayerExtent, disks: &Disks) -> Result<PathBuf, Refusal> {
        if let Some((_, path)) = self.mounted.iter().find(|(known, _)| *known == extent) {
            return Ok(path.clone());
        }
        let partition = self.add_partition(disks.with_serial(LAYER_SERIAL)?, extent)?;
        let target = self.mounts_dir.join(self.mounted.len().to_string());
        make_dir(&target)?;
        container::rootfs::mount_erofs(&partition, &target)?;
        self.mounted.push((extent, target.clone()));
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
    pub(crate) fn unmount_all(&mut self, disks: &Disks) {
        for path in self.mounted.drain(..).map(|(_, path)| path) {
            let _ = container::rootfs::unmount(&path);
        }
        let device = disks.with_serial(LAYER_SERIAL).ok();
        if let Some(disk) = device.and_then(|device| File::open(device).ok()) {
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
        let error = Disks::find(None).with_serial("no such serial").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no disk with the serial \"no such serial\""
        );
    }
}
