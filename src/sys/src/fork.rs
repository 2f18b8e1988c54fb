//! New processes made with clone3, for programs of a single thread.
//!
//! `std::process::Command` cannot make namespaces, place a child in a cgroup as it is born, or run our own code in
//! the child. This can, and is safe because it insists on what makes it so: the caller has one thread (so that the
//! child inherits no lock held by a thread that does not exist in it), and the child never returns into its caller.
//!
//! Deliberately absent: threads, CLONE_VM, and anything that shares memory between parent and child.

#![expect(
    unsafe_code,
    reason = "clone3, execve, _exit and close_range have no safe wrapper"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// clone3(2); libc's constant does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process made by [`fork`].
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's PID namespace.
    pub pid: Pid,
    /// A descriptor of it, close-on-exec; readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Proof of running in a process of our own making that will never return to the code that made it.
#[derive(Debug)]
pub struct InChild(());

/// Makes a process with the given `CLONE_NEW*` flags, in `cgroup` (a directory of a cgroup v2 hierarchy) if given.
///
/// The process runs `child` and ends with the code that it returns, or 70 should it panic. Fails with EINVAL in a
/// program of more than one thread.
pub fn fork(
    namespaces: i32,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce(InChild) -> i32,
) -> io::Result<Child> {
    clone(namespaces, cgroup, libc::SIGCHLD, child)
}

/// As [`fork`], but the new process is the caller's sibling: a child of the caller's parent, which is told of its end by
/// the signal that it gets for the caller. To be called in a process made by [`fork`].
pub fn fork_sibling(
    namespaces: i32,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce(InChild) -> i32,
) -> io::Result<Child> {
    // With CLONE_PARENT the kernel takes the caller's own exit signal and wants none here.
    clone(namespaces | libc::CLONE_PARENT, cgroup, 0, child)
}

fn clone(
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    exit_signal: i32,
    child: impl FnOnce(InChild) -> i32,
) -> io::Result<Child> {
    // SAFETY: for a program of one thread these flags are defined to change nothing (unshare(2)); for others the
    // call fails. It is a test, and needs no pointer.
    if unsafe { libc::unshare(libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is a plain structure for which zeros are valid and mean "unused".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u32 as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = exit_signal as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args is valid for the call and its size is given; pidfd outlives it. Without CLONE_VM this is a fork:
    // the child has a copy of everything, and as the program has one thread, no lock in it is held by another.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _bomb = EndOnUnwind;
            exit(child(InChild(())))
        }
        pid => Ok(Child {
            pid: Pid::from_raw(pid as i32).expect("clone3 returns a positive number to the parent"),
            // SAFETY: CLONE_PIDFD stored a new descriptor that nothing else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Keeps a panic in the child from unwinding into the parent's code.
struct EndOnUnwind;

impl Drop for EndOnUnwind {
    fn drop(&mut self) {
        exit(70)
    }
}

/// Ends the process at once: no destructors, no exit handlers, no flushing of buffers that the parent will flush.
pub fn exit(code: i32) -> ! {
    // SAFETY: ends the process; nothing can be observed after it.
    unsafe { libc::_exit(code) }
}

/// Replaces the process by `path`. Returns only when that failed.
pub fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: both arrays hold valid C strings, end with a null pointer, and live to the end of the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the process by the program that this descriptor refers to, without looking at any path. A descriptor that is
/// close-on-exec will do, but for scripts. Returns only when that failed.
pub fn execve_descriptor(program: RawFd, argv: &[CString], envp: &[CString]) -> io::Error {
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: both arrays hold valid C strings, end with a null pointer, and live to the end of the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// The strings' addresses, with the null pointer that ends them.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let ends = std::iter::once(std::ptr::null());
    strings.iter().map(|s| s.as_ptr()).chain(ends).collect()
}

impl InChild {
    /// Closes the child's copy of a descriptor that the parent goes on using.
    pub fn close(&self, parents: BorrowedFd<'_>) -> io::Result<()> {
        close_range(parents.as_raw_fd(), parents.as_raw_fd())
    }

    /// Closes the numbers from `first` to `last`, which the child does not use: see [`InChild::close_from`].
    pub fn close_numbers(&self, first: RawFd, last: RawFd) -> io::Result<()> {
        close_range(first, last)
    }

    /// Enters namespaces of the process that `process` (a pidfd) stands for, all at once: `CLONE_NEW*` flags. A PID
    /// namespace is entered by the processes that this one makes from now on.
    pub fn enter_namespaces_of(&self, process: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
        // SAFETY: changes what names and numbers mean to this process, and nothing that Rust relies on.
        match unsafe { libc::setns(process.as_raw_fd(), flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Closes every descriptor, the standard streams too, but those of `keep`; as [`InChild::close_from`].
    pub fn close_all_but(&self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut keep: Vec<RawFd> = keep.iter().map(|fd| fd.as_raw_fd()).collect();
        keep.sort_unstable();
        let mut first = 0;
        for number in keep {
            if number > first {
                close_range(first, number - 1)?;
            }
            first = first.max(number + 1);
        }
        close_range(first, RawFd::MAX)
    }

    /// Makes a cgroup namespace that begins at the process's cgroup.
    pub fn unshare_cgroup(&self) -> io::Result<()> {
        // SAFETY: changes what the process sees of cgroups, and nothing that Rust relies on.
        match unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Closes every descriptor from `first` on but `keep`. For a child that must not hold what its parent had open,
    /// from the moment on when it deals with others' paths. Values that own a closed descriptor must not be used
    /// or dropped afterwards: the child is to end without returning.
    pub fn close_from(&self, first: RawFd, keep: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut first = first;
        if let Some(keep) = keep
            .map(|keep| keep.as_raw_fd())
            .filter(|&keep| keep >= first)
        {
            if keep > first {
                close_range(first, keep - 1)?;
            }
            first = keep + 1;
        }
        close_range(first, RawFd::MAX)
    }
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: an InChild exists, so this is a process that runs only its closure: what it closes here it does not
    // use again (see the caller's documentation). No pointers are passed.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
