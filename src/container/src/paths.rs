//! Hiding paths and making them read-only, inside, after everything is mounted.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use sys::mount::{Attributes, set_attributes};

use crate::devices;
use crate::error::{Attempt, Cause, Error, Step};
use crate::inside::{Root, is_directory};
use crate::mounts::{clone, move_onto};

/// Hides each path that exists: a directory behind an empty read-only one, anything else behind /dev/null.
pub(crate) fn mask(root: &Root, paths: &[PathBuf]) -> Result<(), Error> {
    // Directories share one empty file system; the first mount of it is cloned for the others.
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let name = path.display();
        let Some(target) = existing(root, path).at(Step::MaskPath, &name)? else {
            continue;
        };
        if !is_directory(&target).at(Step::MaskPath, &name)? {
            let null = devices::null(root)?;
            clone(null, false)
                .and_then(|null| move_onto(null, target))
                .at(Step::MaskPath, &name)?;
            continue;
        }
        match &empty {
            Some(empty) => {
                clone(empty, false)
                    .and_then(|empty| move_onto(empty, target))
                    .at(Step::MaskPath, &name)?;
            }
            None => {
                let mount = empty_directory().at(Step::MaskPath, &name)?;
                move_onto(&mount, target).at(Step::MaskPath, &name)?;
                empty = Some(mount);
            }
        }
    }
    Ok(())
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "nr_inodes", "1")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}

/// Makes each path that exists read-only, with everything below it.
pub(crate) fn make_read_only(root: &Root, paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        let make = || -> Result<(), Cause> {
            let Some(target) = existing(root, path)? else {
                return Ok(());
            };
            let mount = clone(&target, true)?;
            set_attributes(&mount, READ_ONLY, true)?;
            Ok(move_onto(mount, target)?)
        };
        make().at(Step::ReadOnlyPath, path.display())?;
    }
    Ok(())
}

/// Makes the root mount read-only; what is mounted below it stays as it is.
pub(crate) fn make_root_read_only(root: &Root) -> Result<(), Error> {
    set_attributes(root, READ_ONLY, false).at(Step::ReadOnlyRoot, "")
}

const READ_ONLY: Attributes = Attributes {
    set: libc::MOUNT_ATTR_RDONLY,
    clear: 0,
    propagation: 0,
};

fn existing(root: &Root, path: &std::path::Path) -> Result<Option<OwnedFd>, Errno> {
    match root.get(path, OFlags::PATH) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
