//! What hull-fs gives up itself, beyond what its jail took.
//!
//! The order: [`prepare`] before the first packet, while there is one thread; the threads' filters where they are spawned, by
//! `sys::thread`; the first thread's last, with [`first_thread`], when every other exists.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use sys::fs_ids::OWNERSHIP;
use sys::refusal;

/// Reports refused calls and panics to `words`, keeps no capability that is not needed, and confines every thread as it starts.
pub fn prepare(words: OwnedFd) -> io::Result<()> {
    // It stays open as long as the process lives: a signal handler writes to it.
    refusal::report_to(words.into_raw_fd())?;
    refusal::name_thread("main");
    rustix::thread::set_name(c"hull-fs")?;
    keep_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    sys::thread::confine_with(thread);
    Ok(())
}

/// Gives up, in the calling thread, the capabilities that are not needed.
pub(crate) fn keep_capabilities() -> io::Result<()> {
    let kept = capabilities(None)?.permitted & OWNERSHIP;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Lets the process open as much as it may at all; how much that is.
pub fn raise_descriptors() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Installs the first thread's filter.
pub fn first_thread() -> io::Result<()> {
    sys::seccomp::install(filters::program(&filters::SHARES))
}

/// Installs the filter of a thread that serves requests: there is no other kind.
fn thread(name: &str) -> io::Result<()> {
    refusal::name_thread(name);
    sys::seccomp::install(filters::program(&filters::FILES))
}
