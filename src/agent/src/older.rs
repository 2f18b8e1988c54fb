//! Mounts of layers as Linux before 6.12 needs them: images as block devices, an overlay by mount(2).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use container::error::{Cause, Error};
use container::rootfs::{self, Upper};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use sys::loop_device::LoopDevice;

use crate::failure::Refusal;

/// Whether a mount failed because the kernel mounts no files (before 6.12).
pub(crate) fn needs_device(error: &Error) -> bool {
    error.cause == Cause::Os(Errno::NOTBLK.raw_os_error())
}

/// Mounts an EROFS image by a loop device, which goes with the mount.
pub(crate) fn mount_erofs(image: &Path, target: &Path) -> Result<(), Refusal> {
    let device = File::open(image)
        .and_then(LoopDevice::attach)
        .map_err(|source| Refusal::LoopDevice {
            image: image.to_owned(),
            source,
        })?;
    Ok(rootfs::mount_erofs(device.path(), target)?)
}

/// Whether an overlay may have failed because the kernel does not take its layers one by one (before 6.8): any wrong
/// option looks the same.
pub(crate) fn needs_one_string(error: &Error) -> bool {
    error.cause == Cause::Os(Errno::INVAL.raw_os_error())
}

/// As [`rootfs::overlay`], with all options in one string, of at most a page: directories are named by descriptors, which
/// are short and have no characters that mean something there.
pub(crate) fn overlay(
    lowers: &[&Path],
    upper: Option<Upper<'_>>,
    target: &Path,
) -> Result<(), Refusal> {
    let mount = || -> io::Result<()> {
        let lowers = lowers
            .iter()
            .rev()
            .map(|lower| open(lower))
            .collect::<io::Result<Vec<_>>>()?;
        let above = upper
            .map(|Upper { upper, work }| Ok::<_, io::Error>((open(upper)?, open(work)?)))
            .transpose()?;
        let names: Vec<_> = lowers.iter().map(name).collect();
        let mut options = format!("lowerdir={}", names.join(":"));
        if let Some((upper, work)) = &above {
            options += &format!(",upperdir={},workdir={}", name(upper), name(work));
        }
        let options = CString::new(options).expect("numbers and words");
        Ok(rustix::mount::mount(
            "overlay",
            target,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )?)
    };
    mount().map_err(|source| Refusal::Overlay {
        target: target.to_owned(),
        source,
    })
}

fn open(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::empty())?)
}

fn name(folder: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", folder.as_raw_fd())
}
