//! A program copied to memory that cannot be changed.
//!
//! A native container's process executes the monitor's program until it executes its own, and `--init` does to the end: as
//! /proc/1/exe, that program is a file of the host's within the container's reach (CVE-2019-5736). What is there is a
//! sealed copy.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::fcntl_dupfd_cloexec;

/// The copy's number is above those that a child is given.
const FIRST_FD: i32 = 100;

/// A copy of a program, as long as this lives.
#[derive(Debug)]
pub(crate) struct Sealed(OwnedFd);

impl Sealed {
    /// Copies `program`; the copy is called `name` in /proc.
    pub(crate) fn copy(name: &str, program: &Path) -> io::Result<Sealed> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know MFD_EXEC, and need not be told.
        let memory = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|error| match error {
            rustix::io::Errno::INVAL => memfd_create(name, flags),
            other => Err(other),
        })?;
        let mut to = File::from(memory);
        io::copy(&mut File::open(program)?, &mut to)?;
        let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&to, all)?;
        Ok(Sealed(fcntl_dupfd_cloexec(&to, FIRST_FD)?))
    }

    /// To be executed by a child of this process.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_copy_can_be_executed_and_not_be_changed() {
        let sealed = Sealed::copy("echo", Path::new("/bin/echo")).unwrap();
        let output = Command::new(sealed.path()).arg("yes").output().unwrap();
        assert_eq!(output.stdout, b"yes\n");
        let opened = std::fs::OpenOptions::new().write(true).open(sealed.path());
        let changed = opened.and_then(|mut file| io::Write::write_all(&mut file, b"no"));
        assert_eq!(changed.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
