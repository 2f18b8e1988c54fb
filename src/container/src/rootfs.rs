//! Putting a root file system together: layers, and overlayfs on top.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, XattrFlags, chmod, chown, getxattr, openat, setxattr, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::{Attempt, Error, Step};
use crate::mounts::explanation;

/// The longest string that fsconfig(2) takes, in bytes.
const MAX_STRING_LEN: usize = 255;

/// Where an overlay's writes go: two directories of one file system.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    /// What is written.
    pub upper: &'a Path,
    /// overlayfs's own; empty.
    pub work: &'a Path,
}

/// Mounts an EROFS image (a block device, or a file from Linux 6.12 on) read-only on an existing directory.
pub fn mount_erofs(image: &Path, target: &Path) -> Result<(), Error> {
    mount("erofs", image, true, &[], target)
}

/// Mounts a file system on an existing directory, with the file system's own options.
pub fn mount(
    kind: &str,
    source: &Path,
    read_only: bool,
    options: &[(&str, &str)],
    target: &Path,
) -> Result<(), Error> {
    let name = || format!("{kind} of {} on {}", source.display(), target.display());
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, name())?;
    let mut opened = Vec::new();
    set_path(&context, "source", source, &mut opened).at(Step::Mount, name())?;
    if read_only {
        fsconfig_set_flag(&context, "ro").at(Step::Mount, name())?;
    }
    for &(key, value) in options {
        fsconfig_set_string(&context, key, value).at(
            Step::MountOption,
            format_args!("{key} of {}{}", name(), explanation(&context)),
        )?;
    }
    finish(&context, read_only, target).map_err(|errno| {
        Error::new(
            Step::Mount,
            format!("{}{}", name(), explanation(&context)),
            errno,
        )
    })
}

/// Mounts layers, lowest first, with what takes the writes on top, on an existing directory. Without `upper` the
/// result is read-only.
pub fn overlay(lowers: &[&Path], upper: Option<Upper<'_>>, target: &Path) -> Result<(), Error> {
    if let ([only], None) = (lowers, upper) {
        // overlayfs wants two layers at least.
        rustix::mount::mount_bind(*only, target).at(Step::Overlay, target.display())?;
        return Ok(());
    }
    let name = target.display();
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Overlay, &name)?;
    fsconfig_set_string(&context, "source", "overlay").at(Step::Overlay, &name)?;
    // From the highest down; one call each, as a single string of them all would be limited to a page.
    let mut opened = Vec::new();
    for lower in lowers.iter().rev() {
        set_path(&context, "lowerdir+", lower, &mut opened).at(
            Step::Overlay,
            format_args!("{name}: layer {}{}", lower.display(), explanation(&context)),
        )?;
    }
    if let Some(Upper { upper, work }) = upper {
        set_path(&context, "upperdir", upper, &mut opened).at(Step::Overlay, &name)?;
        set_path(&context, "workdir", work, &mut opened).at(Step::Overlay, &name)?;
    }
    finish(&context, false, target).map_err(|errno| {
        Error::new(
            Step::Overlay,
            format!("{name}{}", explanation(&context)),
            errno,
        )
    })
}

/// Marks an upper directory whose attributes are set. Below `trusted.overlay.`, which overlayfs does not show.
const ROOT_COPIED_XATTR: &str = "trusted.overlay.hull.root";

/// Gives an overlay's upper directory, and so the overlay's root, the mode and the owner of the root of the highest
/// layer that does not carry the xattr `implied`. Only once: later a container may have changed them.
pub fn copy_root(lowers: &[&Path], implied: &str, upper: &Path) -> Result<(), Error> {
    let name = || format!("the root's attributes, for {}", upper.display());
    if has_xattr(upper, ROOT_COPIED_XATTR).at(Step::Overlay, name())? {
        return Ok(());
    }
    for lower in lowers.iter().rev() {
        if has_xattr(lower, implied).at(Step::Overlay, name())? {
            continue;
        }
        let root = stat(*lower).at(Step::Overlay, name())?;
        let (uid, gid) = (
            rustix::fs::Uid::from_raw(root.st_uid),
            rustix::fs::Gid::from_raw(root.st_gid),
        );
        chown(upper, Some(uid), Some(gid)).at(Step::Overlay, name())?;
        chmod(upper, Mode::from_raw_mode(root.st_mode)).at(Step::Overlay, name())?;
        break;
    }
    match setxattr(upper, ROOT_COPIED_XATTR, b"y", XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno).at(Step::Overlay, name()),
    }
}

fn has_xattr(path: &Path, name: &str) -> Result<bool, Errno> {
    let mut value = [0; 8];
    match getxattr(path, name, &mut value) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Sets a path, however long it is: the kernel takes 255 bytes. A longer one goes through a descriptor, which has to be
/// open until the file system is made.
fn set_path(
    context: &OwnedFd,
    key: &str,
    path: &Path,
    opened: &mut Vec<OwnedFd>,
) -> Result<(), Errno> {
    if path.as_os_str().len() <= MAX_STRING_LEN {
        return fsconfig_set_string(context, key, path);
    }
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let short = format!("/proc/self/fd/{}", file.as_raw_fd());
    opened.push(file);
    fsconfig_set_string(context, key, short)
}

fn finish(context: &OwnedFd, read_only: bool, target: &Path) -> Result<(), Errno> {
    fsconfig_create(context)?;
    let attributes = if read_only {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        MountAttrFlags::empty()
    };
    let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(
        &mount,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Unmounts what is mounted on a directory.
pub fn unmount(target: &Path) -> Result<(), Error> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW).at(Step::Unmount, target.display())
}
