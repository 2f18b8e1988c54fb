//! Which child has ended, without reaping it.
//!
//! For a process that has children of its own and adopts others: it looks first, gives a child of its own the treatment that
//! it needs while its number still belongs to it, and only then reaps. rustix's `waitid` does not give the number.

#![expect(unsafe_code, reason = "rustix does not give the child's number")]

use std::io;

use rustix::process::Pid;

/// A child that has ended and has not been reaped; `None` if there is none. Never waits.
pub fn ended_child() -> io::Result<Option<Pid>> {
    // SAFETY: siginfo_t is a plain structure for which zeros are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: info is valid for the call.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } == 0 {
        // SAFETY: waitid has filled in this member, or left it zero where no child has ended.
        return Ok(Pid::from_raw(unsafe { info.si_pid() }));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_ended_is_seen_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let wait = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), wait).unwrap();
        // Other tests have children too: this one is among those that are seen as long as it is there.
        assert!(ended_child().unwrap().is_some());
        child.wait().unwrap();
    }
}
