//! A container's root file system: its layers, what takes its writes, and overlayfs; or a directory of the machine.
//!
//! ```text
//! run/layers/1, 2, …                      one mount for each layer, shared
//! run/disks/0, …                          one mount for each writable disk, shared: <container>/{upper,work} on it
//! run/targets                             directories and files that things are mounted on: the lowest layer of all
//! run/containers/<container>/writable     tmpfs, where there is no disk, with upper/ and work/
//! run/containers/<container>/rootfs       the overlay
//! run/containers/<container>/files        /etc/hosts and the like
//! ```
//!
//! Most images lack some of the places that every container has something mounted on. Those come from the lowest layer, so
//! that they need not be made in the writable one, where they would look like the container's own changes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use container::rootfs::{self, Upper};
use protocol::agent::{Layer, Mount, Root, Writable};
use rustix::mount::{UnmountFlags, unmount};

use crate::disks::{Disks, make_dir};
use crate::failure::Refusal;
use crate::files::Overlay;
use crate::layers::Layers;
use crate::older;

/// Bytes of memory above a root that is not to be written: for directories and empty files where the image has no target
/// for a mount.
const TARGETS_SIZE: &str = "1m";
/// What Docker, too, puts below every container.
const TARGET_DIRS: [&str; 5] = ["dev/pts", "dev/shm", "proc", "sys", "etc"];
const TARGET_FILES: [&str; 4] = [
    "dev/console",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
];

/// A root that is mounted.
#[derive(Debug)]
pub(crate) struct RootFs {
    dir: PathBuf,
    /// Mounted directories, in the order of mounting.
    mounted: Vec<PathBuf>,
    /// Layers that it has acquired.
    layers: Vec<Layer>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Overlay {
        /// Where each layer is mounted, the lowest first.
        lowers: Vec<PathBuf>,
        /// What holds `upper` and `work`.
        writable: PathBuf,
        is_read_only: bool,
        /// `writable` outlives the mounts.
        stays: bool,
    },
    Directory(PathBuf),
}

impl RootFs {
    /// Mounts a root in a directory of its own.
    pub(crate) fn mount(
        dir: PathBuf,
        request: &Mount,
        layers: &mut Layers,
        disks: &mut Disks,
    ) -> Result<RootFs, Refusal> {
        let kind = match &request.root {
            Root::Directory { path } => {
                let path = PathBuf::from(path);
                if !path.is_absolute() || !path.is_dir() {
                    return Err(Refusal::NoSuchDirectory(path));
                }
                Kind::Directory(path)
            }
            Root::Layers { layers: wanted, .. } if wanted.is_empty() => {
                return Err(Refusal::NoLayers);
            }
            Root::Layers { writable, .. } => Kind::Overlay {
                lowers: Vec::new(),
                writable: dir.join("writable"),
                is_read_only: *writable == Writable::Nothing,
                stays: false,
            },
        };
        let mut root = RootFs {
            dir,
            mounted: Vec::new(),
            layers: Vec::new(),
            kind,
        };
        match root.fill(request, layers, disks) {
            Ok(()) => Ok(root),
            Err(refusal) => {
                // The first failure is the one to tell.
                let _ = root.unmount(layers);
                Err(refusal)
            }
        }
    }

    fn fill(
        &mut self,
        request: &Mount,
        layers: &mut Layers,
        disks: &mut Disks,
    ) -> Result<(), Refusal> {
        let Root::Layers {
            layers: wanted,
            writable: kind,
        } = &request.root
        else {
            return make_dir(&self.dir);
        };
        let mut mounted = Vec::new();
        for layer in wanted {
            mounted.push(layers.acquire(layer, disks)?);
            self.layers.push(layer.clone());
        }
        let targets = self.run_dir().join("targets");
        let all = std::iter::once(targets).chain(mounted.iter().cloned());
        let lowers: Vec<PathBuf> = all.collect();
        let target = self.rootfs();
        make_dir(&target)?;
        let place = self.writable_place(kind, &request.container, disks)?;
        let over = |writable: &Path| {
            let (upper, work) = (writable.join("upper"), writable.join("work"));
            make_dir(&upper)?;
            make_dir(&work)?;
            let images: Vec<&Path> = mounted.iter().map(PathBuf::as_path).collect();
            rootfs::copy_root(&images, protocol::layer::IMPLIED_ROOT_XATTR, &upper)?;
            let upper = Upper {
                upper: &upper,
                work: &work,
            };
            overlay(&lowers, Some(upper), &target)
        };
        let mut writable = place;
        let mut stays = matches!(kind, Writable::Disk { .. } | Writable::Directory { .. });
        if let Err(refusal) = over(&writable) {
            if !matches!(kind, Writable::Directory { .. }) {
                return Err(refusal);
            }
            // Not every file system can hold a writable layer: memory can.
            (writable, stays) = (self.dir.join("writable"), false);
            self.mount_tmpfs(&writable, &[("mode", "0755")])?;
            over(&writable)?;
        }
        self.mounted.push(target);
        self.kind = Kind::Overlay {
            lowers: mounted,
            writable,
            is_read_only: *kind == Writable::Nothing,
            stays,
        };
        Ok(())
    }

    /// What takes the writes, mounted.
    fn writable_place(
        &mut self,
        kind: &Writable,
        container: &str,
        disks: &mut Disks,
    ) -> Result<PathBuf, Refusal> {
        let in_memory = self.dir.join("writable");
        match kind {
            Writable::Disk {
                serial,
                grow_to_bytes,
            } => {
                let disks_dir = self.run_dir().join("disks");
                let disk = disks.mount(serial, *grow_to_bytes, &disks_dir)?;
                Ok(disk.join(container))
            }
            Writable::Directory { path } => Ok(PathBuf::from(path)),
            Writable::Tmpfs => {
                self.mount_tmpfs(&in_memory, &[("mode", "0755")])?;
                Ok(in_memory)
            }
            Writable::Nothing => {
                self.mount_tmpfs(&in_memory, &[("mode", "0755"), ("size", TARGETS_SIZE)])?;
                Ok(in_memory)
            }
        }
    }

    fn mount_tmpfs(&mut self, target: &Path, options: &[(&str, &str)]) -> Result<(), Refusal> {
        make_dir(target)?;
        rootfs::mount("tmpfs", Path::new("tmpfs"), false, options, target)?;
        self.mounted.push(target.to_owned());
        Ok(())
    }

    /// The directory of all containers' directories.
    fn run_dir(&self) -> PathBuf {
        let above = self.dir.ancestors().nth(2);
        above.unwrap_or(Path::new("/")).to_owned()
    }

    /// The container may not write to it; only the agent does, to make targets for mounts.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(
            self.kind,
            Kind::Overlay {
                is_read_only: true,
                ..
            }
        )
    }

    /// The root itself.
    pub(crate) fn rootfs(&self) -> PathBuf {
        match &self.kind {
            Kind::Directory(path) => path.clone(),
            Kind::Overlay { .. } => self.dir.join("rootfs"),
        }
    }

    /// For the container's files.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// The image and the changes to it. `name` is the container.
    pub(crate) fn overlay(&self, name: &str) -> Result<Overlay, Refusal> {
        match &self.kind {
            Kind::Directory(_) => Err(Refusal::NoImage(name.to_owned())),
            Kind::Overlay {
                lowers, writable, ..
            } => Ok(Overlay {
                lowers: lowers.clone(),
                upper: writable.join("upper"),
                scratch: self.dir.join("image"),
            }),
        }
    }

    /// The directory that outlives the mounts and holds nothing but this container's writes.
    pub(crate) fn writable_directory(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Overlay {
                writable,
                stays: true,
                ..
            } => Some(writable.clone()),
            _ => None,
        }
    }

    /// Unmounts what is mounted, the last first, and removes the directories. The writes are on their disk then.
    pub(crate) fn unmount(&mut self, layers: &mut Layers) -> Result<(), Refusal> {
        while let Some(path) = self.mounted.last() {
            if rootfs::unmount(path).is_err() {
                // A worker that has just been killed may still be in it: it goes when that has gone.
                let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
                unmount(path, flags).map_err(|errno| Refusal::Removal {
                    path: path.clone(),
                    source: errno.into(),
                })?;
            }
            self.mounted.pop();
        }
        for layer in self.layers.drain(..) {
            layers.release(&layer);
        }
        match fs::remove_dir_all(&self.dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Refusal::Removal {
                path: self.dir.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }
}

/// Mounts layers, the lowest first, by whatever way this kernel has.
pub(crate) fn overlay(
    lowers: &[PathBuf],
    upper: Option<Upper<'_>>,
    target: &Path,
) -> Result<(), Refusal> {
    let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    match rootfs::overlay(&lowers, upper, target) {
        Err(error) if older::needs_one_string(&error) => older::overlay(&lowers, upper, target),
        mounted => Ok(mounted?),
    }
}

/// Makes what [`RootFs::mount`] puts below every container, in the directory of all containers' directories.
pub(crate) fn make_targets(run_dir: &Path) -> Result<(), Refusal> {
    let dir = run_dir.join("targets");
    for target in TARGET_DIRS {
        make_dir(&dir.join(target))?;
    }
    for target in TARGET_FILES {
        let path = dir.join(target);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|source| Refusal::Directory { path, source })?;
    }
    Ok(())
}
