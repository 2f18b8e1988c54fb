//! Executing a program with exactly the descriptors it is meant to have.
//!
//! Invariants: the child gets descriptors 0, 1, 2 and those listed, at the numbers listed, and no other (hull opens
//! everything close-on-exec); its signal mask is empty. Deliberately absent: namespaces, users, cgroups.
#![expect(
    unsafe_code,
    reason = "pre_exec, and the calls in it, have no safe form"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// What a child is given besides its program, arguments and environment.
#[derive(Debug, Default)]
pub struct Inherit<'a> {
    /// Descriptors, each with its number in the child: 3 and up, each number once.
    pub descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// Make the child the leader of a new session, out of reach of the terminal's signals.
    pub new_session: bool,
    /// SIGKILL the child when the thread that spawns it ends.
    pub dies_with_parent: bool,
    /// Make standard input the controlling terminal of the new session.
    pub controlling_terminal: bool,
}

/// Spawns `command`.
pub fn spawn(command: &mut Command, inherit: &Inherit<'_>) -> io::Result<Child> {
    let wanted: Vec<(RawFd, RawFd)> = inherit
        .descriptors
        .iter()
        .map(|(from, to)| (from.as_raw_fd(), *to))
        .collect();
    let mut moved: Vec<RawFd> = vec![-1; wanted.len()];
    let first_free = wanted.iter().map(|(_, to)| to + 1).max().unwrap_or(3);
    let new_session = inherit.new_session;
    let dies_with_parent = inherit.dies_with_parent;
    let controlling_terminal = inherit.controlling_terminal;
    let prepare = move || -> io::Result<()> {
        // Out of the way first: a source may have the number of another's target.
        for (slot, (from, _)) in moved.iter_mut().zip(&wanted) {
            // SAFETY: plain system call on integers; the descriptors are borrowed for as long as `spawn` runs.
            *slot = check(unsafe { libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, first_free) })?;
        }
        for (from, (_, to)) in moved.iter().zip(&wanted) {
            // SAFETY: as above. dup2 clears close-on-exec on the new number; the source stays close-on-exec.
            check(unsafe { libc::dup2(*from, *to) })?;
        }
        if new_session {
            // SAFETY: no arguments.
            check(unsafe { libc::setsid() })?;
        }
        if controlling_terminal {
            // SAFETY: TIOCSCTTY takes an integer.
            check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        if dies_with_parent {
            // SAFETY: PR_SET_PDEATHSIG takes a signal number by value.
            check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        }
        // SAFETY: an initialised set on this stack.
        unsafe {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            check(libc::sigprocmask(
                libc::SIG_SETMASK,
                &none,
                std::ptr::null_mut(),
            ))?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes async-signal-safe system calls and writes to memory allocated before the fork.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// Takes a descriptor that the parent left at this number, and keeps it from programs executed later. To be called
/// once for a number, before anything else is opened.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls on an integer.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and by this function's contract nothing in this program owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn descriptors_have_their_numbers_in_the_child_even_when_these_are_each_others() {
        let file = memory_file("hello");
        let other = memory_file("other");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "cat <&4; cat <&3"])
            .stdout(Stdio::piped());
        let descriptors = [(file.as_fd(), 4), (other.as_fd(), 3)];
        let inherit = Inherit {
            descriptors: &descriptors,
            ..Inherit::default()
        };
        let output = spawn(&mut command, &inherit)
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "helloother");
    }

    fn memory_file(text: &str) -> std::fs::File {
        use std::io::{Seek, Write};
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(fd);
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }
}
