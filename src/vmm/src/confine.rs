//! What hull-vmm gives up itself, beyond what its jail took: system calls, for each kind of thread.
//!
//! The order: [`prepare`] before the first packet; the threads' filters where they are spawned, by `sys::thread`; the main
//! thread's last, with [`first_thread`], when every other thread exists: there is no call that makes one afterwards.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

use filters::Kind;
use protocol::vmm::{Boot, VmConfig};
use rustix::process::{Resource, Rlimit, setrlimit};
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

/// Keeps every file from growing beyond what the VM may write: a taken thread could fill the host's file system otherwise,
/// where a disk's own bounds are no longer asked.
pub fn limit_files(config: &VmConfig) -> io::Result<()> {
    let limit = Some(largest_file(config));
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    Ok(setrlimit(Resource::Fsize, limit)?)
}

/// The length of the largest file that the VM may write: a writable disk, or the state of a VM that is saved. (Its memory
/// is in a file that has its length before, and is written through a mapping, which the limit does not govern.)
fn largest_file(config: &VmConfig) -> u64 {
    let writable = config.disks.iter().filter(|disk| !disk.read_only);
    let disks = writable.flat_map(|disk| &disk.extents);
    let state = match &config.boot {
        Boot::Kernel(kernel) if kernel.save_to.is_some() => MAX_STATE_BYTES,
        Boot::Kernel(_) | Boot::Snapshot(_) => LEAST_FILE_BYTES,
    };
    disks.map(|extent| extent.len_bytes).fold(state, u64::max)
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
        for other in ["", "main", "worker", "vcpux", "1"] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
