//! What hull-vmm gives up itself, beyond what its jail took: system calls, for each kind of thread, and files without end.
//!
//! The order: [`prepare`] before the first packet; the threads' filters where they are spawned, by `sys::thread`; the main
//! thread's last, with [`first_thread`], when every other thread exists: there is no call that makes one afterwards.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

use filters::Kind;
use protocol::fs::MAX_OPEN_FILES;
use protocol::vmm::{Boot, VmConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sys::refusal;

use crate::snapshot::MAX_STATE_BYTES;

/// Reports refused calls and panics to `words`, and confines every thread as it starts.
pub fn prepare(words: OwnedFd) -> io::Result<()> {
    // It stays open as long as the process lives: a signal handler writes to it.
    refusal::report_to(words.into_raw_fd())?;
    refusal::name_thread("main");
    rustix::thread::set_name(c"hull-vmm")?;
    rustix::thread::set_no_new_privs(true)?;
    sys::thread::confine_with(thread);
    Ok(())
}

/// The least that files may grow to: for logs, in development.
pub(crate) const LEAST_FILE_BYTES: u64 = 1 << 20;

/// Descriptors that hull-vmm needs besides the guest's open files: those of one packet, eventfds of devices, extents of disks,
/// and a stream for each connection of the guest's.
const OTHER_DESCRIPTORS: usize = 4096;

/// How many files the guest may have open on shares: what the limit of descriptors leaves. A low one is halved rather than
/// used up: a stream that finds no number ends the VM.
pub fn max_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    files_of(limit)
}

fn files_of(descriptors: usize) -> usize {
    let rest = descriptors.saturating_sub(OTHER_DESCRIPTORS);
    rest.max(descriptors / 2).min(MAX_OPEN_FILES)
}

/// Keeps every file from growing beyond what the VM may write: a taken thread could fill the host's file system otherwise,
/// where a disk's own bounds are no longer asked. With writable shares there is no such length.
pub fn limit_files(config: &VmConfig) -> io::Result<()> {
    let Some(limit) = largest_file(config) else {
        return Ok(());
    };
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    Ok(setrlimit(Resource::Fsize, limit)?)
}

/// The length of the largest file that the VM may write: a writable disk, or the state of a VM that is saved. (Its memory
/// is in a file that has its length before, and is written through a mapping, which the limit does not govern.) `None` if
/// its guest may write files of others.
fn largest_file(config: &VmConfig) -> Option<u64> {
    if config.fs.as_ref().is_some_and(|fs| fs.unbounded_files) {
        return None;
    }
    let writable = config.disks.iter().filter(|disk| !disk.read_only);
    let disks = writable.flat_map(|disk| &disk.extents);
    let state = match &config.boot {
        Boot::Kernel(kernel) if kernel.save_to.is_some() => MAX_STATE_BYTES,
        Boot::Kernel(_) | Boot::Snapshot(_) => LEAST_FILE_BYTES,
    };
    Some(disks.map(|extent| extent.len_bytes).fold(state, u64::max))
}

/// Installs the first thread's filter.
pub fn first_thread() -> io::Result<()> {
    sys::seccomp::install(filters::program(&filters::MAIN))
}

/// Installs the filter of the thread called `name`: every name has a kind, and there is no thread without a filter.
fn thread(name: &str) -> io::Result<()> {
    let kind = kind(name).ok_or_else(|| {
        let message = format!("no filter is known for a thread called {name}");
        io::Error::other(message)
    })?;
    refusal::name_thread(name);
    sys::seccomp::install(filters::program(kind))
}

/// The kind of a thread: its name up to a number or a hyphen.
fn kind(name: &str) -> Option<&'static Kind> {
    let end = name
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(name.len());
    match &name[..end] {
        "vcpu" => Some(&filters::VCPU),
        "save" => Some(&filters::SAVE),
        "blk" => Some(&filters::BLOCK),
        "fs" => Some(&filters::FS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_is_of_a_kind_and_nothing_else_is() {
        assert_eq!(kind("vcpu12"), Some(&filters::VCPU));
        assert_eq!(kind("blk-layers"), Some(&filters::BLOCK));
        assert_eq!(kind("fs"), Some(&filters::FS));
        for other in ["", "main", "worker", "vcpux", "fsx", "1"] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
    #[test]
    fn the_guests_files_leave_descriptors_for_everything_else() {
        assert_eq!(files_of(usize::MAX), MAX_OPEN_FILES);
        assert_eq!(files_of(MAX_OPEN_FILES + OTHER_DESCRIPTORS), MAX_OPEN_FILES);
        assert_eq!(files_of(20_000), 20_000 - OTHER_DESCRIPTORS);
        assert_eq!(files_of(4096), 2048);
        assert_eq!(files_of(0), 0);
    }

    #[test]
    fn files_are_bounded_unless_the_guest_may_write_those_of_others() {
        let mut config = crate::machine::tests::config();
        assert_eq!(largest_file(&config), Some(LEAST_FILE_BYTES));
        for (unbounded_files, expected) in [(false, Some(LEAST_FILE_BYTES)), (true, None)] {
            config.fs = Some(protocol::vmm::FsConfig {
                tag: "hull".to_owned(),
                unbounded_files,
            });
            assert_eq!(largest_file(&config), expected);
        }
    }
}
