//! The attempts of an attacker in control of a thread of hull-vmm. Executed in hull-vmm's place, in its jail.
//!
//! It receives one packet on its control socket, `ATTEMPT THREAD FILTER`: what to try, on a thread of which name (`main`,
//! `vcpu0`, `blk-x`, `fs`; `monitor` for the filter of the process that talks to the guest), and whether under that thread's filter (`filtered`) or with the rest of the jail alone (`bare`). It
//! confines itself as hull-vmm does, tries, and sends back what the call returned, negative for an errno. A refused call
//! never comes back: the process ends with its last words.

#![expect(
    unsafe_code,
    reason = "makes system calls that have no business being made"
)]

use std::os::fd::{AsRawFd, OwnedFd};

use protocol::vmm::{CONTROL_FD, WORDS_FD};
use vmm::confine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let control = sys::spawn::inherited(CONTROL_FD)?;
    let words = sys::spawn::inherited(WORDS_FD)?;
    let mut buffer = [0; 256];
    let packet = sys::packet::receive(&control, &mut buffer)?;
    let order = std::str::from_utf8(&buffer[..packet.len])?.to_owned();
    let [attempt, thread, filter] = order.split(' ').collect::<Vec<_>>()[..] else {
        return Err("an order is ATTEMPT THREAD FILTER".into());
    };
    let call = attempt_called(attempt).ok_or("unknown attempt")?;
    match filter {
        "filtered" => confine::prepare(words)?,
        "bare" => drop(words),
        _ => return Err("FILTER is filtered or bare".into()),
    }
    if ["main", "monitor"].contains(&thread) {
        match (thread, filter) {
            (_, "bare") => {}
            ("main", _) => confine::first_thread()?,
            // The process that talks to the guest has a filter of its own, which a hull-vmm never installs.
            _ => {
                sys::refusal::name_thread(thread);
                sys::seccomp::install(filters::program(&filters::MONITOR))?;
            }
        }
        report(&control, call());
    }
    sys::thread::spawn(thread, move || report(&control, call()))?;
    // The thread ends the process; should it not, this does.
    std::thread::sleep(std::time::Duration::from_secs(10));
    Err("the attempt did not end".into())
}

/// Sends the result and ends the process.
fn report(control: &OwnedFd, result: i64) -> ! {
    let text = result.to_string();
    // SAFETY: the buffer lives to the end of the call.
    unsafe { libc::write(control.as_raw_fd(), text.as_ptr().cast(), text.len()) };
    sys::fork::exit(0)
}

/// A call with up to six arguments; negative for an errno.
fn raw(number: i64, arguments: &[i64]) -> i64 {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: that these calls are dangerous is the point; the process does nothing afterwards but report.
    let result = unsafe {
        libc::syscall(
            number,
            argument(0),
            argument(1),
            argument(2),
            argument(3),
            argument(4),
            argument(5),
        )
    };
    match result {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        result => result,
    }
}

fn at(text: &'static std::ffi::CStr) -> i64 {
    text.as_ptr() as i64
}

/// struct rlimit: more than any limit of the jail.
static HIGH: [u64; 2] = [1 << 20, 1 << 20];
/// struct sockaddr_in: 127.0.0.1, port 22.
static LOOPBACK: [u8; 16] = [2, 0, 0, 22, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
/// struct clone_args: a new user namespace.
static NAMESPACE: [u64; 8] = [
    libc::CLONE_NEWUSER as u64,
    0,
    0,
    0,
    libc::SIGCHLD as u64,
    0,
    0,
    0,
];
/// struct io_uring_params, user_cap_header_struct, bpf_attr and the like: zeros are valid to begin with.
static ZEROS: [u64; 32] = [0; 32];
/// user_cap_header_struct: version 3; and data that asks for every capability.
static CAP_HEADER: [u32; 2] = [0x2008_0522, 0];
static ALL_CAPS: [u32; 6] = [u32::MAX, u32::MAX, 0, u32::MAX, u32::MAX, 0];

fn address<T>(of: &'static T) -> i64 {
    std::ptr::from_ref(of) as i64
}

const RWX: i64 = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as i64;
const ANONYMOUS: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
const CWD: i64 = libc::AT_FDCWD as i64;

/// A transfer of 8 bytes between this process and one outside of the jail.
fn transfer(number: i64) -> i64 {
    // struct iovec
    let piece = [address(&ZEROS), 8];
    let at = piece.as_ptr() as i64;
    raw(number, &[OTHER, at, 1, at, 1])
}

/// A process outside of the jail: none has this number inside.
const OTHER: i64 = 1000;

fn attempt_called(name: &str) -> Option<fn() -> i64> {
    use libc::*;
    let attempt: fn() -> i64 = match name {
        "open" => || raw(SYS_open, &[at(c"/etc/passwd"), 0]),
        "open_proc" => || raw(SYS_openat, &[CWD, at(c"/proc/1/mem"), 0]),
        "open_kvm" => || raw(SYS_openat, &[CWD, at(c"/dev/kvm"), 2]),
        "openat_up" => || raw(SYS_openat, &[CWD, at(c"../../../../etc/passwd"), 0]),
        "create" => || {
            raw(
                SYS_openat,
                &[CWD, at(c"/x"), i64::from(O_CREAT | O_WRONLY), 0o600],
            )
        },
        "mkdir" => || raw(SYS_mkdir, &[at(c"/x"), 0o700]),
        "mknod" => || raw(SYS_mknod, &[at(c"/x"), i64::from(S_IFBLK), 0x0801]),
        "socket" => || raw(SYS_socket, &[AF_INET.into(), SOCK_STREAM.into(), 0]),
        "connect" => || {
            let socket = raw(SYS_socket, &[AF_INET.into(), SOCK_STREAM.into(), 0]);
            raw(SYS_connect, &[socket, address(&LOOPBACK), 16])
        },
        "connect_control" => || raw(SYS_connect, &[CONTROL_FD.into(), address(&LOOPBACK), 16]),
        "bind" => || raw(SYS_bind, &[CONTROL_FD.into(), address(&LOOPBACK), 16]),
        "execve" => || raw(SYS_execve, &[at(c"/bin/sh"), 0, 0]),
        "execveat" => || raw(SYS_execveat, &[0, at(c""), 0, 0, AT_EMPTY_PATH.into()]),
        "fork" => || raw(SYS_fork, &[]),
        "clone_namespace" => || raw(SYS_clone3, &[address(&NAMESPACE), 64]),
        "unshare_user" => || raw(SYS_unshare, &[CLONE_NEWUSER.into()]),
        "unshare_mounts" => || raw(SYS_unshare, &[CLONE_NEWNS.into()]),
        "setns" => || raw(SYS_setns, &[CONTROL_FD.into(), 0]),
        "ptrace_parent" => || raw(SYS_ptrace, &[PTRACE_ATTACH.into(), OTHER]),
        "process_vm_readv" => || transfer(SYS_process_vm_readv),
        "process_vm_writev" => || transfer(SYS_process_vm_writev),
        "mount" => || raw(SYS_mount, &[at(c"proc"), at(c"/"), at(c"proc"), 0, 0]),
        "fsopen" => || raw(SYS_fsopen, &[at(c"proc"), 0]),
        "umount" => || raw(SYS_umount2, &[at(c"/"), MNT_DETACH.into()]),
        "pivot_root" => || raw(SYS_pivot_root, &[at(c"."), at(c".")]),
        "chroot" => || raw(SYS_chroot, &[at(c"/")]),
        "remount" => || {
            raw(
                SYS_mount,
                &[0, at(c"/"), 0, (MS_REMOUNT | MS_BIND) as i64, 0],
            )
        },
        "open_by_handle" => || raw(SYS_open_by_handle_at, &[0, address(&ZEROS), 0]),
        "keyctl" => || raw(SYS_keyctl, &[0, -3, 1]),
        "add_key" => || raw(SYS_add_key, &[at(c"user"), at(c"x"), at(c"x"), 1, -3]),
        "bpf" => || raw(SYS_bpf, &[0, address(&ZEROS), 128]),
        "io_uring_setup" => || raw(SYS_io_uring_setup, &[4, address(&ZEROS)]),
        "io_uring_enter" => || raw(SYS_io_uring_enter, &[CONTROL_FD.into(), 1, 0, 0]),
        "io_uring_register" => || raw(SYS_io_uring_register, &[CONTROL_FD.into(), 0, 0, 0]),
        "setrlimit" => || raw(SYS_setrlimit, &[RLIMIT_NOFILE as i64, address(&HIGH)]),
        "prlimit" => || {
            raw(
                SYS_prlimit64,
                &[0, RLIMIT_MEMLOCK as i64, address(&HIGH), 0],
            )
        },
        "kill_all" => || raw(SYS_kill, &[-1, SIGKILL.into()]),
        "kill" => || raw(SYS_kill, &[OTHER, SIGKILL.into()]),
        "tgkill" => || raw(SYS_tgkill, &[OTHER, OTHER, SIGKILL.into()]),
        "tkill" => || raw(SYS_tkill, &[OTHER, SIGKILL.into()]),
        "pidfd_open" => || raw(SYS_pidfd_open, &[OTHER, 0]),
        "pidfd_getfd" => || raw(SYS_pidfd_getfd, &[CONTROL_FD.into(), 0, 0]),
        "pidfd_send_signal" => || {
            raw(
                SYS_pidfd_send_signal,
                &[CONTROL_FD.into(), SIGKILL.into(), 0, 0],
            )
        },
        "mmap_exec" => || raw(SYS_mmap, &[0, 4096, RWX, ANONYMOUS, -1, 0]),
        "mmap_file" => || {
            raw(
                SYS_mmap,
                &[0, 4096, PROT_READ.into(), MAP_SHARED.into(), 0, 0],
            )
        },
        "mprotect_exec" => || {
            let page = raw(SYS_mmap, &[0, 4096, PROT_READ.into(), ANONYMOUS, -1, 0]);
            raw(SYS_mprotect, &[page, 4096, RWX])
        },
        "pkey_mprotect" => || raw(SYS_pkey_mprotect, &[0, 4096, RWX, -1]),
        "perf_event_open" => || raw(SYS_perf_event_open, &[address(&ZEROS), OTHER, -1, -1, 0]),
        "userfaultfd" => || raw(SYS_userfaultfd, &[0]),
        "memfd_create" => || raw(SYS_memfd_create, &[at(c"x"), 0]),
        "setuid" => || raw(SYS_setuid, &[0]),
        "setgroups" => || raw(SYS_setgroups, &[0, 0]),
        "capset" => || raw(SYS_capset, &[address(&CAP_HEADER), address(&ALL_CAPS)]),
        "prctl_dumpable" => || raw(SYS_prctl, &[PR_SET_DUMPABLE.into(), 1]),
        "seccomp" => || raw(SYS_seccomp, &[1, 0, 0]),
        "personality" => || raw(SYS_personality, &[0x0040_0000]),
        "sethostname" => || raw(SYS_sethostname, &[at(c"x"), 1]),
        "settimeofday" => || raw(SYS_settimeofday, &[address(&ZEROS), 0]),
        "iopl" => || raw(SYS_iopl, &[3]),
        "init_module" => || raw(SYS_init_module, &[address(&ZEROS), 8, at(c"")]),
        "kexec" => || raw(SYS_kexec_load, &[0, 0, 0, 0]),
        "reboot" => || raw(SYS_reboot, &[0, 0, 0, 0]),
        "ioctl_tty" => || raw(SYS_ioctl, &[0, TIOCSTI as i64, at(c"x")]),
        "ioctl_kvm_create" => || raw(SYS_ioctl, &[CONTROL_FD.into(), 0xae01, 0]),
        "fcntl_setown" => || raw(SYS_fcntl, &[CONTROL_FD.into(), F_SETOWN.into(), 1]),
        "sendmsg" => || raw(SYS_sendmsg, &[CONTROL_FD.into(), address(&ZEROS), 0]),
        "madvise_poison" => || {
            raw(
                SYS_madvise,
                &[address(&ZEROS) & !4095, 4096, MADV_HWPOISON.into()],
            )
        },
        // The numbers of x32 have this bit.
        "x32_open" => || raw(0x4000_0000 | SYS_open, &[at(c"/etc/passwd"), 0]),
        _ => return None,
    };
    Some(attempt)
}
