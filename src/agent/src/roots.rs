//! A container's root file system: its layers, what takes its writes, and overlayfs.
//!
//! ```text
//! run/layers/0, 1, …           one mount for each layer, shared
//! run/<container>/writable     ext4 or tmpfs, with upper/ and work/
//! run/<container>/rootfs       the overlay
//! run/<container>/files        /etc/hosts and the like
//! ```

use std::path::{Path, PathBuf};

use container::rootfs::{self, Upper};
use protocol::agent::{Mount, Writable};

use crate::disks::{Disks, Layers, make_dir};
use crate::failure::Refusal;

/// Bytes in a root that is not to be written: for directories and empty files where the image has no target for a
/// mount.
const TARGETS_SIZE: &str = "1m";

/// A root that is mounted.
#[derive(Debug)]
pub(crate) struct RootFs {
    dir: PathBuf,
    /// Mounted directories, in the order of mounting.
    mounted: Vec<PathBuf>,
    is_read_only: bool,
}

impl RootFs {
    /// Mounts a root in a directory of its own.
    pub(crate) fn mount(
        dir: PathBuf,
        request: &Mount,
        layers: &mut Layers,
        disks: &Disks,
    ) -> Result<RootFs, Refusal> {
        let is_read_only = request.writable == Writable::Nothing;
        let mut root = RootFs {
            dir,
            mounted: Vec::new(),
            is_read_only,
        };
        match root.fill(request, layers, disks) {
            Ok(()) => Ok(root),
            Err(refusal) => {
                // The first failure is the one to tell.
                let _ = root.unmount();
                Err(refusal)
            }
        }
    }

    fn fill(&mut self, request: &Mount, layers: &mut Layers, disks: &Disks) -> Result<(), Refusal> {
        if request.layers.is_empty() {
            return Err(Refusal::NoLayers);
        }
        let lowers = request
            .layers
            .iter()
            .map(|extent| layers.mount(*extent, disks))
            .collect::<Result<Vec<_>, _>>()?;
        let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
        let target = self.rootfs();
        make_dir(&target)?;
        let writable = self.dir.join("writable");
        let (upper, work) = (writable.join("upper"), writable.join("work"));
        self.mount_writable(&request.writable, disks, &writable)?;
        rootfs::copy_root(&lowers, protocol::layer::IMPLIED_ROOT_XATTR, &upper)?;
        let upper = Some(Upper {
            upper: &upper,
            work: &work,
        });
        rootfs::overlay(&lowers, upper, &target)?;
        self.mounted.push(target);
        Ok(())
    }

    /// Mounts what takes the writes; it has directories "upper" and "work" then.
    fn mount_writable(
        &mut self,
        kind: &Writable,
        disks: &Disks,
        target: &Path,
    ) -> Result<(), Refusal> {
        make_dir(target)?;
        if let Writable::Disk { serial } = kind {
            let disk = disks.with_serial(serial)?;
            rootfs::mount("ext4", disk, false, &[], target)?;
            self.mounted.push(target.to_owned());
            return if target.join("upper").is_dir() && target.join("work").is_dir() {
                Ok(())
            } else {
                Err(Refusal::NotPrepared)
            };
        }
        let options: &[_] = match kind {
            Writable::Nothing => &[("mode", "0755"), ("size", TARGETS_SIZE)],
            _ => &[("mode", "0755")],
        };
        rootfs::mount("tmpfs", Path::new("tmpfs"), false, options, target)?;
        self.mounted.push(target.to_owned());
        make_dir(&target.join("upper"))?;
        make_dir(&target.join("work"))
    }

    /// Nobody but us, who make targets for mounts, may write to it.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// The root itself.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// For the container's files.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// Unmounts what is mounted, the last first, and removes the directories. The writes are on their disk then.
    pub(crate) fn unmount(&mut self) -> Result<(), Refusal> {
        while let Some(path) = self.mounted.last() {
            rootfs::unmount(path)?;
            self.mounted.pop();
        }
        match std::fs::remove_dir_all(&self.dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Refusal::Directory {
                    path: self.dir.clone(),
                    source,
                })
            }
            _ => Ok(()),
        }
    }
}
