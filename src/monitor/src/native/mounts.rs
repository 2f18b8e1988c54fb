//! A native container's root file system: mounts of the monitor's own, below the sandbox's folder.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use container::rootfs::{self, Upper};
use rustix::mount::UnmountFlags;

use super::{Fault, older};
use crate::config;

/// Mounts each layer and an overlay over them, below `folder`; returns the root.
pub(super) fn mount_layers(layers: &[config::Layer], folder: &Path) -> Result<PathBuf, Fault> {
    let mut lowers = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let target = folder.join("layers").join(number.to_string());
        make_folder(&target)?;
        match rootfs::mount_erofs(&layer.path, &target) {
            Err(error) if older::needs_device(&error) => older::mount_erofs(&layer.path, &target)?,
            mounted => mounted?,
        }
        lowers.push(target);
    }
    let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    let root = folder.join("rootfs");
    make_folder(&root)?;
    let writable = folder.join("writable");
    make_folder(&writable)?;
    let over = |writable: &Path| -> Result<(), Fault> {
        let (upper, work) = (writable.join("upper"), writable.join("work"));
        make_folder(&upper)?;
        make_folder(&work)?;
        rootfs::copy_root(&lowers, protocol::layer::IMPLIED_ROOT_XATTR, &upper)?;
        let upper = Upper {
            upper: &upper,
            work: &work,
        };
        match rootfs::overlay(&lowers, Some(upper), &root) {
            Err(error) if older::needs_one_string(&error) => older::overlay(&lowers, upper, &root),
            mounted => Ok(mounted?),
        }
    };
    if let Err(error) = over(&writable) {
        tracing::debug!(%error, "the sandbox's folder cannot hold a writable layer: memory does");
        rootfs::mount(
            "tmpfs",
            Path::new("tmpfs"),
            false,
            &[("mode", "0755")],
            &writable,
        )?;
        over(&writable)?;
    }
    Ok(root)
}

fn make_folder(path: &Path) -> Result<(), Fault> {
    fs::create_dir_all(path).map_err(|source| Fault::Folder {
        path: path.to_owned(),
        source,
    })
}

/// Unmounts everything below `folder`, last mounted first, so that removing the folder removes nothing but the folder:
/// whoever cannot unmount must not remove.
pub(crate) fn unmount_below(folder: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescaped)
        .filter(|point| point.starts_with(folder))
        .collect();
    while let Some(point) = points.pop() {
        rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// A path of mountinfo, in which spaces and the like are written as three octal digits (proc(5)).
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mountinfo_are_unescaped() {
        assert_eq!(unescaped("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescaped("/a\\9"), Path::new("/a\\9"));
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        let folder = tempfile::tempdir().unwrap();
        unmount_below(folder.path()).unwrap();
    }
}
