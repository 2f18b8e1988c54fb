//! Attempts to escape from a container: `drill NAME…` prints a line `NAME: OUTCOME` for each. `tests/tests/escape.rs`
//! has the expected outcomes.
//!
//! An outcome is `done`, an errno's name or number, or what was found. Each is tried in a process of its own, since some
//! end it.
#![expect(
    unsafe_code,
    reason = "system calls as an attacker makes them, without a library between"
)]

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use libc::{c_long, syscall};

#[path = "drill/ring.rs"]
mod ring;

/// SOCK_STREAM on the host's context id.
const HOST: u32 = protocol::agent::HOST_CID;
/// Ports of hull's own that a guest may try.
const PORTS: std::ops::Range<u32> =
    protocol::agent::CONTROL_PORT..protocol::agent::CONTROL_PORT + 8;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if let [alone, name] = &names[..]
        && alone == "--alone"
    {
        println!("{name}: {}", outcome(name));
        return;
    }
    for name in names {
        let tried = Command::new("/proc/self/exe")
            .args(["--alone", &name])
            .status();
        match tried.map(|status| status.signal()) {
            Ok(None) => {}
            Ok(Some(signal)) => println!("{name}: signal {signal}"),
            Err(error) => println!("{name}: {}", errno(&error)),
        }
    }
}

fn outcome(name: &str) -> String {
    match drill(name) {
        Ok(found) => found,
        Err(error) => errno(&error),
    }
}

fn errno(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::ENOENT) => "ENOENT",
        Some(libc::ENOSYS) => "ENOSYS",
        Some(libc::EROFS) => "EROFS",
        Some(libc::ESRCH) => "ESRCH",
        Some(libc::ENXIO) => "ENXIO",
        Some(libc::EOPNOTSUPP) => "EOPNOTSUPP",
        Some(libc::EAFNOSUPPORT) => "EAFNOSUPPORT",
        Some(libc::ECONNRESET) => "ECONNRESET",
        _ => return error.to_string(),
    };
    name.to_owned()
}

fn drill(name: &str) -> io::Result<String> {
    match name {
        "vsock" => call(libc::SYS_socket, [libc::AF_VSOCK as u64, 1, 0, 0, 0]),
        "vsock high bits" => call(
            libc::SYS_socket,
            [1 << 32 | libc::AF_VSOCK as u64, 1, 0, 0, 0],
        ),
        "vsock x32" => call(
            0x4000_0000 | libc::SYS_socket,
            [libc::AF_VSOCK as u64, 1, 0, 0, 0],
        ),
        "vsock int80" => int80(359, libc::AF_VSOCK as u32),
        "vsock pair" => {
            let mut pair = [0i32; 2];
            let to = pair.as_mut_ptr() as u64;
            call(libc::SYS_socketpair, [libc::AF_VSOCK as u64, 1, 0, to, 0])
        }
        "vsock io_uring" => vsock_by_ring(),
        "alg" => call(libc::SYS_socket, [libc::AF_ALG as u64, 5, 0, 0, 0]),
        "io_uring" => call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        "unshare user" => call(libc::SYS_unshare, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0]),
        "unshare mount" => call(libc::SYS_unshare, [libc::CLONE_NEWNS as u64, 0, 0, 0, 0]),
        "clone user" => call(
            libc::SYS_clone,
            [(libc::CLONE_NEWUSER | libc::SIGCHLD) as u64, 0, 0, 0, 0],
        ),
        "mount" => mount(),
        "remount proc" => remount("/proc/sys"),
        "keyctl" => call(libc::SYS_keyctl, [0, 0, 0, 0, 0]),
        "bpf" => call(libc::SYS_bpf, [0, 0, 0, 0, 0]),
        "perf" => call(libc::SYS_perf_event_open, [0, 0, 0, 0, 0]),
        "userfaultfd" => call(libc::SYS_userfaultfd, [0, 0, 0, 0, 0]),
        "kexec" => call(libc::SYS_kexec_load, [0, 0, 0, 0, 0]),
        "module" => call(libc::SYS_init_module, [0, 0, 0, 0, 0]),
        "reboot" => call(libc::SYS_reboot, [0, 0, 0, 0, 0]),
        "handles" => call(libc::SYS_open_by_handle_at, [0, 0, 0, 0, 0]),
        "swap" => call(libc::SYS_swapon, [0, 0, 0, 0, 0]),
        "settime" => call(libc::SYS_clock_settime, [0, 0, 0, 0, 0]),
        "iopl" => call(libc::SYS_iopl, [3, 0, 0, 0, 0]),
        "ioperm" => call(libc::SYS_ioperm, [0x0d00, 16, 1, 0, 0]),
        "sysrq" => write("/proc/sysrq-trigger", "h"),
        "core_pattern" => write("/proc/sys/kernel/core_pattern", "|/drill"),
        "modprobe" => write("/proc/sys/kernel/modprobe", "/drill"),
        "sysctl" => write("/proc/sys/kernel/panic", "1"),
        "kcore" => read("/proc/kcore"),
        "mem" => read("/dev/mem"),
        "mknod mem" => node(libc::S_IFCHR, 1, 1),
        "mknod port" => node(libc::S_IFCHR, 1, 4),
        "mknod fuse" => node(libc::S_IFCHR, 10, 229),
        "mknod disk" => disk(),
        "cgroup" => fs::create_dir("/sys/fs/cgroup/child").map(|()| "done".to_owned()),
        "release_agent" => write("/sys/fs/cgroup/release_agent", "/drill"),
        "uevent_helper" => write("/sys/kernel/uevent_helper", "/drill"),
        "agent" => agent(),
        "ptrace" => call(
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH.into(), parent(), 0, 0, 0],
        ),
        "chroot" => chroot(),
        "own image" => own_image(),
        "end the machine" => end_the_machine(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn call(number: c_long, arguments: [u64; 5]) -> io::Result<String> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: what is wrong with the arguments is the kernel's to find: pointers among them are null, or to
    // what outlives the call.
    match unsafe { syscall(number, a, b, c, d, e) } {
        -1 => Err(io::Error::last_os_error()),
        0 if number == libc::SYS_clone => std::process::exit(0),
        _ => Ok("done".to_owned()),
    }
}

/// A 32-bit system call. Without such in the kernel, the instruction is a fault.
fn int80(number: u32, first: u32) -> io::Result<String> {
    let result: i32;
    // SAFETY: the call takes three numbers; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {first:e}", "int 0x80", "pop rbx",
            first = in(reg) first,
            inlateout("eax") number as i32 => result,
            in("ecx") 1, in("edx") 0,
        );
    }
    match result {
        ..0 => Err(io::Error::from_raw_os_error(-result)),
        _ => Ok("done".to_owned()),
    }
}

/// A socket made without passing the filter, with which only offered ports may be reachable.
fn vsock_by_ring() -> io::Result<String> {
    let mut outcomes = std::collections::BTreeSet::new();
    for port in PORTS {
        let socket = ring::socket(libc::AF_VSOCK, libc::SOCK_STREAM)?;
        // SAFETY: zeros are an address; its size is given.
        let connected = unsafe {
            let mut address: libc::sockaddr_vm = std::mem::zeroed();
            address.svm_family = libc::AF_VSOCK as u16;
            address.svm_cid = HOST;
            address.svm_port = port;
            let len = size_of::<libc::sockaddr_vm>() as u32;
            libc::connect(socket, (&raw const address).cast(), len)
        };
        outcomes.insert(match connected {
            0 => format!("connected to {port}"),
            _ => errno(&io::Error::last_os_error()),
        });
    }
    Ok(outcomes.into_iter().collect::<Vec<_>>().join(", "))
}

fn mount() -> io::Result<String> {
    fs::create_dir_all("/mounted")?;
    mount_call("tmpfs", "/mounted", "tmpfs", 0)
}

fn remount(path: &str) -> io::Result<String> {
    mount_call("none", path, "none", libc::MS_REMOUNT | libc::MS_BIND)
}

fn mount_call(source: &str, target: &str, kind: &str, flags: u64) -> io::Result<String> {
    let [source, target, kind] =
        [source, target, kind].map(|text| CString::new(text).expect("no zeros"));
    // SAFETY: three strings that outlive the call; no data.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    match result {
        0 => Ok("done".to_owned()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn write(path: &str, text: &str) -> io::Result<String> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())?;
    Ok("done".to_owned())
}

fn read(path: &str) -> io::Result<String> {
    let mut bytes = [0; 64];
    let len = fs::File::open(path)?.read(&mut bytes)?;
    Ok(if len == 0 { "empty" } else { "done" }.to_owned())
}

/// Makes a device node and opens it.
fn node(kind: u32, major: u32, minor: u32) -> io::Result<String> {
    let path = format!("/node-{kind}-{major}-{minor}");
    let name = CString::new(path.as_str()).expect("no zeros");
    // SAFETY: a string and numbers.
    if unsafe { libc::mknod(name.as_ptr(), kind | 0o600, libc::makedev(major, minor)) } != 0 {
        let error = io::Error::last_os_error();
        return Ok(format!("mknod {}", errno(&error)));
    }
    let opened = read(&path);
    fs::remove_file(&path)?;
    opened
}

/// The first disk that /proc lists.
fn disk() -> io::Result<String> {
    let table = fs::read_to_string("/proc/partitions")?;
    let numbers = table.lines().skip(2).find_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    let (major, minor) = numbers.ok_or(io::ErrorKind::NotFound)?;
    node(libc::S_IFBLK, major, minor)
}

/// Whether the agent, or any process that is not the container's, can be seen.
fn agent() -> io::Result<String> {
    let mut seen = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        seen += u32::from(name.starts_with("hull-agent"));
    }
    let first = fs::read_to_string("/proc/1/comm")?;
    Ok(format!("{seen} agents, PID 1 is {}", first.trim_end()))
}

fn parent() -> u64 {
    // The container's first process: its parent lies outside of the PID namespace.
    1
}

/// The escape from a root directory that was set by chroot(2) alone.
fn chroot() -> io::Result<String> {
    let before = fs::metadata("/")?;
    fs::create_dir_all("/jail")?;
    let outside = fs::File::open("/")?;
    std::os::unix::fs::chroot("/jail")?;
    // SAFETY: a descriptor that is open.
    if unsafe { libc::fchdir(std::os::fd::AsRawFd::as_raw_fd(&outside)) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for _ in 0..64 {
        std::env::set_current_dir("..")?;
    }
    std::os::unix::fs::chroot(".")?;
    let after = fs::metadata("/")?;
    let same = (before.dev(), before.ino()) == (after.dev(), after.ino());
    Ok(if same { "the same root" } else { "out" }.to_owned())
}

/// Whether the program that made this container could be overwritten through /proc (CVE-2019-5736): every program that
/// can be seen in /proc is the image's own.
fn own_image() -> io::Result<String> {
    let own = fs::metadata("/proc/self/exe")?.dev();
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path().join("exe");
        if let Ok(program) = fs::metadata(&path)
            && program.dev() != own
        {
            return Ok(format!("{} is the outside's", path.display()));
        }
    }
    Ok("the image's".to_owned())
}

/// Uses the machine's ports: an exit code of its own choice, and a reset.
fn end_the_machine() -> io::Result<String> {
    use protocol::timeline::control;
    let device = sys::ports::Ports::new(control::PORT, control::LEN);
    device.write_u32(control::REG_EXIT, 77)?;
    sys::ports::Ports::new(control::RESET_PORT, 1).write_u8(0, control::RESET)?;
    Ok("still here".to_owned())
}
