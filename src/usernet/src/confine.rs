//! What hull-net gives up itself, beyond what its jail took.
//!
//! The order: [`prepare`] before the first packet; [`install_filter`] when everything that it is given has been taken
//! and before the first byte of a client's is read. There is one thread.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use sys::refusal;

/// Reports refused calls and panics to `words` and keeps no capability.
pub fn prepare(words: OwnedFd) -> io::Result<()> {
    // It stays open as long as the process lives: a signal handler writes to it.
    refusal::report_to(words.into_raw_fd())?;
    refusal::name_thread("net");
    rustix::thread::set_name(c"hull-net")?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets)?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Installs the thread's filter.
pub fn install_filter() -> io::Result<()> {
    sys::seccomp::install(filters::program(&filters::NET))
}
