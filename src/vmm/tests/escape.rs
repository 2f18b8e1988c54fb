//! Escape drills: an attacker has taken over a thread of hull-vmm and tries to get out. Once with that thread's
//! seccomp filter, which must refuse every attempt; once without any, to see what the rest of the jail refuses alone.

use std::os::fd::{AsFd, OwnedFd};

use sys::spawn::{Inherit, spawn};

#[path = "fixture/jailed.rs"]
mod jailed;

use jailed::Words;

/// Threads of each kind.
const THREADS: [&str; 4] = ["main", "vcpu0", "blk-x", "fs"];

/// What namespaces, capabilities, limits and descriptors make of an attempt when there is no filter.
enum Bare {
    /// It fails with one of these.
    Fails(&'static [i32]),
    /// It may succeed, and what it gives is of no use for this reason; or it is seccomp alone that stands here.
    Harmless(&'static str),
}

use Bare::{Fails, Harmless};
use libc::*;

/// What is attempted, the call that is refused for it, and what becomes of it without a filter.
const ATTEMPTS: &[(&str, &str, Bare)] = &[
    ("open", "open", Fails(&[ENOENT])),
    ("open_proc", "openat", Fails(&[ENOENT])),
    ("open_kvm", "openat", Fails(&[ENOENT])),
    ("openat_up", "openat", Fails(&[ENOENT])),
    ("create", "openat", Fails(&[EROFS])),
    ("mkdir", "mkdir", Fails(&[EROFS])),
    ("mknod", "mknod", Fails(&[EROFS, EPERM])),
    (
        "socket",
        "socket",
        Harmless("a socket in a network namespace without a network"),
    ),
    ("connect", "socket", Fails(&[ENETUNREACH])),
    ("connect_control", "connect", Fails(&[EINVAL, EISCONN])),
    ("bind", "bind", Fails(&[EINVAL])),
    ("execve", "execve", Fails(&[ENOENT])),
    ("execveat", "execveat", Fails(&[EACCES])),
    ("fork", "fork", Harmless("another process in the same jail")),
    ("clone_namespace", "clone3", Fails(&[ENOSPC, EPERM])),
    ("unshare_user", "unshare", Fails(&[ENOSPC, EPERM, EINVAL])),
    ("unshare_mounts", "unshare", Fails(&[EPERM])),
    ("setns", "setns", Fails(&[EINVAL])),
    ("ptrace_parent", "ptrace", Fails(&[ESRCH])),
    ("process_vm_readv", "process_vm_readv", Fails(&[ESRCH])),
    ("process_vm_writev", "process_vm_writev", Fails(&[ESRCH])),
    ("mount", "mount", Fails(&[EPERM])),
    ("fsopen", "fsopen", Fails(&[EPERM])),
    ("umount", "umount2", Fails(&[EPERM])),
    ("pivot_root", "pivot_root", Fails(&[EPERM])),
    ("chroot", "chroot", Fails(&[EPERM])),
    ("remount", "mount", Fails(&[EPERM])),
    (
        "open_by_handle",
        "open_by_handle_at",
        Fails(&[EPERM, EINVAL]),
    ),
    (
        "keyctl",
        "keyctl",
        Harmless("a keyring of its own user's namespace; seccomp alone"),
    ),
    (
        "add_key",
        "add_key",
        Harmless("a key of its own user's namespace; seccomp alone"),
    ),
    ("bpf", "bpf", Fails(&[EPERM, EINVAL])),
    (
        "io_uring_setup",
        "io_uring_setup",
        Harmless("seccomp alone, and no memory to lock on older kernels"),
    ),
    (
        "io_uring_enter",
        "io_uring_enter",
        Fails(&[EOPNOTSUPP, EPERM, ENOSYS]),
    ),
    (
        "io_uring_register",
        "io_uring_register",
        Fails(&[EOPNOTSUPP, EPERM, EINVAL, ENOSYS]),
    ),
    ("setrlimit", "setrlimit", Fails(&[EPERM])),
    ("prlimit", "prlimit64", Fails(&[EPERM])),
    ("kill_all", "kill", Fails(&[ESRCH])),
    ("kill", "kill", Fails(&[ESRCH])),
    ("tgkill", "tgkill", Fails(&[ESRCH])),
    ("tkill", "tkill", Fails(&[ESRCH])),
    ("pidfd_open", "pidfd_open", Fails(&[ESRCH])),
    ("pidfd_getfd", "pidfd_getfd", Fails(&[EBADF])),
    ("pidfd_send_signal", "pidfd_send_signal", Fails(&[EBADF])),
    ("mmap_exec", "mmap", Harmless("seccomp alone")),
    ("mmap_file", "mmap", Fails(&[ENODEV])),
    ("mprotect_exec", "mprotect", Harmless("seccomp alone")),
    (
        "pkey_mprotect",
        "pkey_mprotect",
        Fails(&[ENOMEM, EINVAL, ENOSYS]),
    ),
    (
        "perf_event_open",
        "perf_event_open",
        Fails(&[EACCES, EPERM, ESRCH, ENOENT]),
    ),
    ("userfaultfd", "userfaultfd", Fails(&[EPERM, ENOSYS])),
    (
        "memfd_create",
        "memfd_create",
        Harmless("memory of its own; executing it is refused"),
    ),
    ("setuid", "setuid", Fails(&[EINVAL])),
    ("setgroups", "setgroups", Fails(&[EPERM])),
    ("capset", "capset", Fails(&[EPERM])),
    ("prctl_dumpable", "prctl", Harmless("seccomp alone")),
    ("seccomp", "seccomp", Fails(&[EFAULT])),
    ("personality", "personality", Harmless("seccomp alone")),
    ("sethostname", "sethostname", Fails(&[EPERM])),
    ("settimeofday", "settimeofday", Fails(&[EPERM])),
    ("iopl", "iopl", Fails(&[EPERM, ENOSYS])),
    ("init_module", "init_module", Fails(&[EPERM, ENOSYS])),
    ("kexec", "kexec_load", Fails(&[EPERM, ENOSYS])),
    ("reboot", "reboot", Fails(&[EPERM])),
    ("ioctl_tty", "ioctl", Fails(&[ENOTTY])),
    ("ioctl_kvm_create", "ioctl", Fails(&[ENOTTY])),
    (
        "fcntl_setown",
        "fcntl",
        Harmless("it can only name processes of its own namespace"),
    ),
    ("madvise_poison", "madvise", Fails(&[EPERM, EINVAL])),
    (
        "sendmsg",
        "sendmsg",
        Harmless("its one socket is the monitor's, which takes no descriptors"),
    ),
    ("x32_open", "number 1073741826", Fails(&[ENOSYS, ENOENT])),
];

/// What came of an attempt: what the call returned if it did, and the last words.
fn attempt(name: &str, thread: &str, filter: &str) -> (Option<i64>, String) {
    let (ours, theirs) = sys::packet::pair().unwrap();
    let descriptors = [(theirs.as_fd(), protocol::vmm::CONTROL_FD)];
    let inherit = Inherit {
        descriptors: &descriptors,
        ..Inherit::default()
    };
    let mut child = spawn(&mut jailed::jailer("escape"), &inherit).unwrap();
    drop(theirs);
    let order = format!("{name} {thread} {filter}");
    sys::packet::send(&ours, order.as_bytes(), &[]).unwrap();
    let mut words = Words::of(&mut child);
    words.expect("pid");
    let ended = words.expect("ended");
    let last = words.expect("words");
    child.wait().unwrap();
    let refused = !last.is_empty();
    let status = if refused {
        "exit_status: 159"
    } else {
        "exit_status: 0"
    };
    assert!(ended.contains(status), "{name} on {thread}: {ended}");
    (result(&ours), last)
}

fn result(socket: &OwnedFd) -> Option<i64> {
    let mut buffer = [0; 64];
    // An empty message, sent by an attempt, looks like an end.
    let packet = sys::packet::receive(socket, &mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..packet.len]).unwrap();
    (!text.is_empty()).then(|| text.parse().unwrap())
}

fn every_attempt_is_refused_on(thread: &str, but: &[&str]) {
    for (name, call, _) in ATTEMPTS {
        if but.contains(name) {
            continue;
        }
        let (result, words) = attempt(name, thread, "filtered");
        // Those calls that this kind of thread may make, and not so.
        assert_eq!(result, None, "{name} on {thread}: {words}");
        let named = match call.strip_prefix("number ") {
            Some(number) => {
                format!("was refused system call number {number} on its thread {thread}")
            }
            None => format!("was refused the system call `{call}` on its thread {thread}"),
        };
        assert!(words.ends_with(&named), "{name} on {thread}: {words}");
    }
}

#[test]
#[ignore = "needs root"]
fn the_first_thread_gets_nowhere() {
    every_attempt_is_refused_on(THREADS[0], &[]);
}

#[test]
#[ignore = "needs root"]
fn a_vcpu_gets_nowhere() {
    every_attempt_is_refused_on(THREADS[1], &[]);
}

#[test]
#[ignore = "needs root"]
fn a_disks_thread_gets_nowhere() {
    every_attempt_is_refused_on(THREADS[2], &[]);
}

#[test]
#[ignore = "needs root"]
fn a_file_systems_thread_gets_nowhere() {
    every_attempt_is_refused_on(THREADS[3], &[]);
}

#[test]
#[ignore = "needs root"]
fn what_talks_to_the_guest_gets_nowhere() {
    // It sends descriptors to its client: that is what it is for.
    every_attempt_is_refused_on("monitor", &["sendmsg"]);
}

#[test]
#[ignore = "needs root"]
fn without_seccomp_the_other_walls_stand() {
    for (name, _, bare) in ATTEMPTS {
        let (result, words) = attempt(name, "vcpu0", "bare");
        assert_eq!(words, "", "{name}");
        match bare {
            Fails(errnos) => {
                let errno = result.map_or(0, |result| -result);
                assert!(
                    errnos.iter().any(|&expected| i64::from(expected) == errno),
                    "{name} gave {result:?}, not one of {errnos:?}"
                );
            }
            Harmless(why) => assert!(!why.is_empty()),
        }
    }
}
