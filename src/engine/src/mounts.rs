//! What of the host's a container has mounted: from what was asked for to the container's record.
//!
//! ```text
//! --volumes-from, -v, --mount, the image's volumes --resolve--> the record's mounts, parents first
//!    create, and each start                        --provide--> what is to be there is made, and looked at
//! ```
//!
//! Invariants: a path of the host's is resolved once, when the container is made, to one without symlinks; from then on a
//! symlink in it is refused, here and when it is mounted, so that nothing that a container writes above it can lead it
//! elsewhere. Nothing is made while options are still looked at.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use image::Image;
use protocol::fs::Cache;
use protocol::record::{self, ContainerConfig, MountSource, SocketNode, Submounts};
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::error::Error as EngineError;
use crate::options::mounts::{Form, Mount, Source, Volume, VolumesFrom};
use crate::options::{Isolation, Options};
use crate::{files, id, spec, volumes};

mod provide;

/// Why something cannot be mounted in a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume of the image's.
    #[error(transparent)]
    Image(#[from] spec::mounts::Error),
    /// Two mounts at one place.
    #[error("Duplicate mount point: {0}")]
    Twice(String),
    /// A path of the host's that is not there.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    Absent(PathBuf),
    /// A path of the host's that cannot be used.
    #[error("cannot use {path}, which is to be mounted")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path of the host's that cannot be made.
    #[error("error while creating mount source path '{path}'")]
    Make {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of a volume that is not there, or leads out of it.
    #[error("volume {volume} has no directory or file {subpath}; make it first")]
    Subpath {
        /// The volume.
        volume: String,
        /// The part.
        subpath: PathBuf,
    },
    /// A volume that is a directory of the user's, and that is not there.
    #[error("volume {volume} is the directory {device}, which cannot be used")]
    Device {
        /// The volume.
        volume: String,
        /// The directory.
        device: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Engine {
    /// What of the host's a container with these options and this image has mounted, parents first. Nothing is made.
    pub fn resolve_mounts(
        &self,
        options: &Options,
        image: &Image,
    ) -> Result<Vec<record::Mount>, EngineError> {
        let mut places = BTreeMap::new();
        for from in &options.volumes_from {
            for mount in self.borrowed(from)? {
                places.insert(mount.destination.clone(), mount);
            }
        }
        refuse_twice(options)?;
        for mount in &options.mounts {
            if let Some(resolved) = self.resolve(mount)? {
                places.insert(mount.target.clone(), resolved);
            }
        }
        // The volumes of an image are directories of a VM's writable layer.
        let of_image = match options.isolation {
            Isolation::Native => {
                spec::image_volumes(image.config.config().as_ref()).map_err(Error::from)?
            }
            Isolation::Vm | Isolation::Pod(_) => Vec::new(),
        };
        for path in of_image {
            if !targets(options).any(|target| target == path) && !places.contains_key(&path) {
                let volume = self.volume_mount(&path, &Volume::default())?;
                places.insert(path, volume);
            }
        }
        let mut mounts: Vec<record::Mount> = places.into_values().collect();
        mounts.sort_by_key(|mount| Path::new(&mount.destination).components().count());
        Ok(mounts)
    }

    /// The mounts of another container.
    fn borrowed(&self, from: &VolumesFrom) -> Result<Vec<record::Mount>, EngineError> {
        let mut mounts = self.container(&from.container)?.config.run.mounts;
        for mount in &mut mounts {
            mount.read_only |= from.read_only;
            mount.share = share_name(&mount.path, mount.read_only);
        }
        Ok(mounts)
    }

    /// `None`: it is not the host's.
    fn resolve(&self, mount: &Mount) -> Result<Option<record::Mount>, EngineError> {
        let mut resolved = match &mount.source {
            Source::Tmpfs { .. } => return Ok(None),
            Source::Bind { path, submounts } => bind(path, *submounts, &mount.target, &mount.form)?,
            Source::Volume(volume) => self.volume_mount(&mount.target, volume)?,
        };
        resolved.read_only = mount.read_only;
        resolved.share = share_name(&resolved.path, mount.read_only);
        if let Form::Volume(mode) = &mount.form
            && !mode.is_empty()
        {
            resolved.mode.clone_from(mode);
        }
        Ok(Some(resolved))
    }

    /// A volume at this place, writable.
    fn volume_mount(&self, target: &str, asked: &Volume) -> Result<record::Mount, EngineError> {
        let name = asked.name.clone().unwrap_or_else(id::new_id);
        volumes::check_name(&name)?;
        let known = self.find_volume(&name)?;
        let options = known
            .as_ref()
            .map_or(&asked.options, |known| &known.options);
        if known.is_none() {
            volumes::check_options(&name, options)?;
        }
        let root = self.volume_root(&name, options)?;
        let subpath = asked.subpath.clone().unwrap_or_default();
        let (path, single_file) = match subpath.as_os_str().is_empty() {
            true => (root, false),
            false => within(&name, &root, &subpath)?,
        };
        Ok(record::Mount {
            share: share_name(&path, false),
            path,
            destination: target.to_owned(),
            read_only: false,
            submounts: Submounts::Alike,
            single_file,
            socket: None,
            // A directory of the user's is changed on the host as well.
            cache: match options.contains_key("device") {
                true => Cache::Shared,
                false => Cache::Exclusive,
            },
            fill: !asked.no_copy && subpath.as_os_str().is_empty(),
            // Docker's for a volume that was asked for.
            mode: if asked.name.is_some() { "z" } else { "" }.to_owned(),
            source: MountSource::Volume {
                name,
                anonymous: asked.name.is_none(),
                subpath,
            },
        })
    }

    /// Where a volume's content is, or will be, without symlinks.
    fn volume_root(
        &self,
        name: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<PathBuf, EngineError> {
        if let Some(device) = options.get("device") {
            let device = PathBuf::from(device);
            return match fs::canonicalize(&device) {
                Ok(path) => Ok(path),
                Err(source) => Err(Error::Device {
                    volume: name.to_owned(),
                    device,
                    source,
                }
                .into()),
            };
        }
        let root = self.root();
        let root = fs::canonicalize(root).map_err(EngineError::file("look at", root))?;
        Ok(crate::layout::Layout::new(&root).volume_data(name))
    }
}

/// Where something is mounted by the user.
fn targets(options: &Options) -> impl Iterator<Item = &str> {
    let mounts = options.mounts.iter().map(|mount| mount.target.as_str());
    mounts.chain(options.tmpfs.iter().map(|tmpfs| tmpfs.path.as_str()))
}

fn refuse_twice(options: &Options) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    // Of several --tmpfs at one place the last counts.
    let tmpfs: std::collections::BTreeSet<&str> = options
        .tmpfs
        .iter()
        .map(|tmpfs| tmpfs.path.as_str())
        .collect();
    for mount in &options.mounts {
        if !seen.insert(mount.target.as_str()) || tmpfs.contains(mount.target.as_str()) {
            return Err(Error::Twice(mount.target.clone()));
        }
    }
    Ok(())
}

/// A path of the host's at this place.
fn bind(
    named: &Path,
    submounts: Submounts,
    target: &str,
    form: &Form,
) -> Result<record::Mount, Error> {
    let make = matches!(form, Form::Volume(_));
    let named = clean(named);
    let mut socket = None;
    let (path, single_file) = match real(&named) {
        Ok(path) => {
            let metadata = fs::metadata(&path).map_err(|source| Error::Path {
                path: named.clone(),
                source,
            })?;
            socket = metadata.file_type().is_socket().then(|| SocketNode {
                uid: metadata.uid(),
                gid: metadata.gid(),
                mode: metadata.mode() & 0o7777,
            });
            (path, !metadata.is_dir())
        }
        Err(error) if files::is_absent(&error) && make => (to_be(&named)?, false),
        Err(error) if files::is_absent(&error) => return Err(Error::Absent(named)),
        Err(source) => {
            return Err(Error::Path {
                path: named,
                source,
            });
        }
    };
    Ok(record::Mount {
        share: String::new(),
        path,
        destination: target.to_owned(),
        read_only: false,
        submounts,
        single_file,
        socket,
        cache: Cache::Shared,
        fill: false,
        mode: String::new(),
        source: MountSource::Bind { named, make },
    })
}

fn real(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// Where a directory will be that is to be made: what is there of its path, resolved, and the rest.
fn to_be(named: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::Make {
        path: named.to_owned(),
        source,
    };
    let mut missing = Vec::new();
    let mut there = named;
    loop {
        match fs::symlink_metadata(there) {
            Ok(_) => break,
            Err(error) if files::is_absent(&error) => {}
            Err(error) => return Err(failed(error)),
        }
        missing.extend(there.file_name());
        there = there.parent().unwrap_or(Path::new("/"));
    }
    // A symlink to nothing is not followed.
    let mut path = real(there).map_err(failed)?;
    path.extend(missing.into_iter().rev());
    Ok(path)
}

/// A part of a volume. A container may have written the volume, so it is looked for without leaving it.
fn within(volume: &str, root: &Path, subpath: &Path) -> Result<(PathBuf, bool), Error> {
    let absent = || Error::Subpath {
        volume: volume.to_owned(),
        subpath: subpath.to_owned(),
    };
    let is_relative = subpath
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let path = real(&root.join(subpath)).map_err(|_| absent())?;
    if !is_relative || !path.starts_with(root) {
        return Err(absent());
    }
    let is_directory = fs::metadata(&path).map_err(|_| absent())?.is_dir();
    Ok((path, !is_directory))
}

/// An absolute path without empty or dot components; a `..` takes back the component before it, as in Docker.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => _ = clean.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The name of the share that shows a path to a VM: what is shared alike by two containers of a pod is one share, so that
/// they see one file as one.
fn share_name(path: &Path, read_only: bool) -> String {
    use std::os::unix::ffi::OsStrExt;
    let hash = Sha256::digest(path.as_os_str().as_bytes());
    let digits: String = hash
        .iter()
        .take(20)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{digits}{}", if read_only { "-ro" } else { "" })
}

/// What volumes are made of where they are missing, by their places in the container.
fn asked_volumes(config: &ContainerConfig) -> Result<BTreeMap<String, Volume>, EngineError> {
    let asked: crate::asked::Asked = serde_json::from_str(config.asked.get())?;
    let volumes = asked.options.mounts.into_iter();
    let volumes = volumes.filter_map(|mount| match mount.source {
        Source::Volume(volume) => Some((mount.target, volume)),
        _ => None,
    });
    Ok(volumes.collect())
}

#[cfg(test)]
mod tests;
