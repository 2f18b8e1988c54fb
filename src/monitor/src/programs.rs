//! The files of an installation that a sandbox is made of, held for as long as its warden lives.
//!
//! A sandbox outlives an upgrade of hull. What its warden starts afterwards, because a policy says so, has to be of the build
//! that it was started with itself: it is opened once, and then found by its descriptor, whatever has been put in the place
//! of its name.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use protocol::record::Machine;
use rustix::fs::{Mode, OFlags};
use sys::fork::InChild;

/// Descriptors of the files. Dropped, they are found by name again.
#[derive(Debug)]
pub(crate) struct Held(Vec<OwnedFd>);

impl Held {
    /// Closes them in a child that starts nothing of the installation.
    pub(crate) fn close_in(&self, in_child: &InChild) -> io::Result<()> {
        self.0
            .iter()
            .try_for_each(|file| in_child.close(file.as_fd()))
    }
}

/// Opens the files of a sandbox's machine and network, and names them by their descriptors. One that is not there keeps its name, with which
/// starting the machine will fail.
pub(crate) fn hold(machine: &mut Machine, net: &mut Option<PathBuf>) -> io::Result<Held> {
    let mut paths: Vec<&mut PathBuf> = match machine {
        Machine::Native { program } => vec![program],
        Machine::Vm(vm) => [&mut vm.program, &mut vm.kernel, &mut vm.initramfs]
            .into_iter()
            .chain(&mut vm.scratch)
            .chain(&mut vm.fs)
            .collect(),
    };
    paths.extend(net);
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::open(path.as_path(), flags, Mode::empty()) {
            Ok(file) => {
                *path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
                files.push(file);
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Held(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_at_the_start_is_found_after_it_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hull-native");
        std::fs::write(&path, "old").unwrap();
        let mut machine = Machine::Native {
            program: path.clone(),
        };
        let held = hold(&mut machine, &mut None).unwrap();
        // As a package manager does it.
        std::fs::write(folder.path().join("new"), "new").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        let Machine::Native { program } = &machine else {
            unreachable!()
        };
        assert_eq!(std::fs::read_to_string(program).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        drop(held);
    }

    #[test]
    fn what_is_not_there_keeps_its_name() {
        let program = PathBuf::from("/nowhere/hull-native");
        let mut machine = Machine::Native {
            program: program.clone(),
        };
        hold(&mut machine, &mut None).unwrap();
        assert!(matches!(machine, Machine::Native { program: name } if name == program));
    }
}
