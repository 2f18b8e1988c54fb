//! Reporting a system call that seccomp refused: a handler of SIGSYS that says which and ends the process.

#![expect(unsafe_code, reason = "installs a signal handler and works in it")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::last_words;

/// The code with which a process ends that was refused a system call: as a shell would report SIGSYS.
pub const EXIT_CODE: i32 = 128 + libc::SIGSYS;

/// Longest name of a thread that is reported.
const NAME_LEN: usize = 32;

/// The pipe for last words.
static PIPE: AtomicI32 = AtomicI32::new(-1);

thread_local! {
    // Constant and without a destructor: reading it in a handler neither allocates nor locks.
    static THREAD: Cell<([u8; NAME_LEN], usize)> = const { Cell::new(([0; NAME_LEN], 0)) };
}

/// Says under which name the calling thread is reported.
pub fn name_thread(name: &str) {
    let mut bytes = [0; NAME_LEN];
    let len = name.len().min(NAME_LEN);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    THREAD.set((bytes, len));
}

/// From here on, a refused system call (SECCOMP_RET_TRAP) is written to `pipe` and ends the process, and so is a panic.
/// Faults of memory get their default action back, which Rust's runtime has taken: what ends the process is to be seen
/// from outside as it is.
pub fn report_to(pipe: RawFd) -> io::Result<()> {
    do_what_is_done_once();
    PIPE.store(pipe, Ordering::Relaxed);
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = refused;
    act(libc::SIGSYS, handler as usize, libc::SA_SIGINFO)?;
    act(libc::SIGSEGV, libc::SIG_DFL, 0)?;
    act(libc::SIGBUS, libc::SIG_DFL, 0)?;
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        last_words::write(
            PIPE.load(Ordering::Relaxed),
            &last_words::LastWords::Panicked { text: text.clone() },
        );
        eprintln!("{text}");
        crate::fork::exit(EXIT_CODE)
    }));
    Ok(())
}

/// Libraries ask the kernel for more the first time than ever again, with calls that a filter need not have: rustix for
/// the addresses of the clock and the page size (prctl), musl for a key by which values of threads are dropped
/// (rt_sigprocmask).
fn do_what_is_done_once() {
    thread_local! {
        static DROPPED: Vec<u8> = const { Vec::new() };
    }
    DROPPED.with(|_| ());
    crate::clock::monotonic_ns();
    rustix::param::page_size();
}

fn act(signal: c_int, handler: usize, flags: c_int) -> io::Result<()> {
    // SAFETY: zeros are a valid sigaction; every field that matters is set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the mask is valid memory. All signals wait while the handler runs.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    // SAFETY: the action is complete; the handler, if any, makes only async-signal-safe calls.
    match unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `siginfo_t` of SIGSYS on x86-64 (include/uapi/asm-generic/siginfo.h), which libc does not spell out.
#[repr(C)]
struct SigSys {
    signo: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    call_addr: *mut c_void,
    syscall: c_int,
    arch: u32,
}

extern "C" fn refused(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid siginfo_t, whose first fields for SIGSYS are these.
    let call = unsafe { (*info.cast::<SigSys>()).syscall };
    let (name, len) = THREAD.get();
    last_words::write_refused(PIPE.load(Ordering::Relaxed), call as u32, &name[..len]);
    crate::fork::exit(EXIT_CODE)
}

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::last_words::LastWords;

    #[test]
    #[ignore = "needs root"]
    fn a_refused_call_is_named_with_its_thread() {
        // Not root's privilege but a process of one thread is what it needs: the harness runs this in a thread, so the
        // child is a plain fork.
        let (reader, writer) = pipe().unwrap();
        // SAFETY: the child only makes system calls and ends without returning.
        match unsafe { libc::fork() } {
            0 => {
                let done = report_to(writer.as_raw_fd()).and_then(|()| {
                    name_thread("test");
                    rustix::thread::set_no_new_privs(true)?;
                    // ld [0]; jeq #__NR_getppid, trap; ret ALLOW
                    let mut program = Vec::new();
                    for (code, jt, jf, k) in [
                        (0x20u16, 0u8, 0u8, 0u32),
                        (0x15, 0, 1, libc::SYS_getppid as u32),
                        (0x06, 0, 0, 0x0003_0000),
                        (0x06, 0, 0, 0x7fff_0000),
                    ] {
                        program.extend(code.to_ne_bytes());
                        program.extend([jt, jf]);
                        program.extend(k.to_ne_bytes());
                    }
                    crate::seccomp::install(&program)?;
                    let _ = rustix::process::getppid();
                    Ok(())
                });
                crate::fork::exit(if done.is_ok() { 0 } else { 1 })
            }
            child => {
                drop(writer);
                let words = last_words::read(&reader).unwrap();
                let mut status = 0;
                // SAFETY: waits for the child made above; the status is this function's own.
                unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!(libc::WEXITSTATUS(status), EXIT_CODE);
                assert_eq!(
                    words,
                    Some(LastWords::Refused {
                        call: libc::SYS_getppid as u32,
                        thread: "test".into()
                    })
                );
            }
        }
    }
}
