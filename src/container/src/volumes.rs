//! Directories that are writable whatever the root is: the volumes of an image that nothing is mounted on.
//!
//! In a writable root they are plain directories. In a read-only one each becomes a tmpfs that begins as a copy of what
//! the image has there. The copying is done by the container's process, so its memory is the container's, and a tmpfs
//! that is full ends it.

use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::destinations::{self, clean};
use crate::error::{Attempt, Error, Refusal, Step};
use crate::inside::{Make, Root, is_directory};
use crate::{copy, spec};

/// The volumes that the document mounts nothing on, parents first.
pub(crate) fn list(volumes: Vec<PathBuf>, mounts: &[spec::Mount]) -> Result<Vec<PathBuf>, Error> {
    let mut list = Vec::new();
    for volume in volumes {
        if !volume.is_absolute() || clean(&volume).file_name().is_none() {
            return Err(Refusal::NotAnAbsolutePath).at(Step::Volume, volume.display());
        }
        if !mounts
            .iter()
            .any(|mount| destinations::is_at(mount, &volume))
        {
            list.push(clean(&volume));
        }
    }
    list.sort();
    list.dedup();
    Ok(list)
}

/// Makes the volumes, inside.
pub(crate) fn make(root: &Root, volumes: &[PathBuf], read_only_root: bool) -> Result<(), Error> {
    for volume in volumes {
        let directory = root
            .get_or_make(volume, Make::Directory)
            .at(Step::Volume, volume.display())?;
        if !is_directory(&directory).at(Step::Volume, volume.display())? {
            return Err(Refusal::NotADirectory).at(Step::Volume, volume.display());
        }
        if read_only_root {
            let directory = root
                .get(volume, OFlags::RDONLY | OFlags::DIRECTORY)
                .at(Step::Volume, volume.display())?;
            copy::into_memory(directory).at(Step::Volume, volume.display())?;
        }
    }
    Ok(())
}
