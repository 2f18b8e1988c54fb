//! Disks by their virtio serial, and the writable ones among them as they are mounted: each once, for all containers.

use std::fs::{DirEntry, File};
use std::path::{Path, PathBuf};

use container::rootfs;

use crate::LAYER_SERIAL;
use crate::failure::Refusal;

/// The disks of the machine.
pub(crate) struct Disks(Vec<Disk>);

struct Disk {
    serial: String,
    device: PathBuf,
    /// Where its ext4 file system is mounted.
    mounted: Option<PathBuf>,
}

impl Disks {
    /// Asks every disk for its serial: a request to the device, each time. `layers`, if given, is the disk of the layers
    /// whatever its serial.
    pub(crate) fn find(layers: Option<PathBuf>) -> Disks {
        let given = layers.map(|device| Disk {
            serial: LAYER_SERIAL.to_owned(),
            device,
            mounted: None,
        });
        let disks = std::fs::read_dir("/sys/block").into_iter().flatten();
        let disk = |entry: DirEntry| {
            // Only virtio disks have this file.
            let serial = std::fs::read_to_string(entry.path().join("serial")).ok()?;
            Some(Disk {
                serial: serial.trim_end_matches(['\0', '\n']).to_owned(),
                device: Path::new("/dev").join(entry.file_name()),
                mounted: None,
            })
        };
        let found = disks.flatten().filter_map(disk);
        Disks(given.into_iter().chain(found).collect())
    }

    /// The device of the disk with a serial.
    pub(crate) fn with_serial(&self, wanted: &str) -> Result<&Path, Refusal> {
        let disk = self.0.iter().find(|disk| disk.serial == wanted);
        disk.map(|disk| disk.device.as_path())
            .ok_or_else(|| Refusal::NoSuchDisk(wanted.to_owned()))
    }

    /// Where the ext4 file system of the disk with a serial is mounted: below `mounts`, from its first use on, when it is
    /// grown to a size.
    pub(crate) fn mount(
        &mut self,
        wanted: &str,
        grow_to_bytes: Option<u64>,
        mounts: &Path,
    ) -> Result<PathBuf, Refusal> {
        let found = self.0.iter_mut().enumerate();
        let disk = found
            .into_iter()
            .find(|(_, disk)| disk.serial == wanted)
            .ok_or_else(|| Refusal::NoSuchDisk(wanted.to_owned()));
        let (number, disk) = disk?;
        if let Some(mounted) = &disk.mounted {
            return Ok(mounted.clone());
        }
        let target = mounts.join(number.to_string());
        make_dir(&target)?;
        rootfs::mount("ext4", &disk.device, false, &[], &target)?;
        disk.mounted = Some(target.clone());
        if let Some(bytes) = grow_to_bytes {
            let grown = File::open(&target).and_then(|root| sys::ext4::grow(root, bytes));
            grown.map_err(|source| Refusal::Grow { bytes, source })?;
        }
        Ok(target)
    }

    /// Unmounts what is mounted. What is still in use stays, and goes with the machine.
    pub(crate) fn unmount_all(&mut self) {
        for disk in &mut self.0 {
            if let Some(mounted) = disk.mounted.take() {
                let _ = rootfs::unmount(&mounted);
            }
        }
    }
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
    fn a_disk_that_is_not_there_is_named() {
        let error = Disks::find(None).with_serial("no such serial").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no disk with the serial \"no such serial\""
        );
    }
}
