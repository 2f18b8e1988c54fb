//! A tracee: its registers, what /proc says of it, and calls made harmless.

use std::fs;
use std::io;

use libc::{c_int, pid_t, user_regs_struct};

/// Gives a call an argument with which it has no effect: an impossible descriptor or address, or a length of 0.
pub(super) fn disarm(number: i64, registers: &mut user_regs_struct) {
    match number {
        libc::SYS_mmap | libc::SYS_clone3 => registers.rsi = 0,
        // Not aligned.
        libc::SYS_munmap | libc::SYS_mprotect | libc::SYS_madvise => registers.rdi |= 1,
        // CLONE_THREAD without CLONE_SIGHAND.
        libc::SYS_clone | libc::SYS_unshare => registers.rdi = libc::CLONE_THREAD as u64,
        libc::SYS_fork | libc::SYS_vfork => registers.orig_rax = u64::MAX,
        libc::SYS_socket | libc::SYS_socketpair => registers.rdi = u64::MAX,
        // Returns the current break and changes nothing.
        libc::SYS_brk => registers.rdi = 0,
        libc::SYS_poll | libc::SYS_ppoll => registers.rsi = u64::MAX,
        libc::SYS_pipe2 | libc::SYS_memfd_create | libc::SYS_pivot_root | libc::SYS_eventfd2 => {
            registers.orig_rax = u64::MAX;
        }
        libc::SYS_getrandom => registers.rdi = u64::MAX,
        // Paths, alone or behind the descriptor that they begin at.
        libc::SYS_open
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_access
        | libc::SYS_mkdir
        | libc::SYS_rmdir
        | libc::SYS_unlink
        | libc::SYS_rename
        | libc::SYS_chdir
        | libc::SYS_execve
        | libc::SYS_umount2 => registers.rdi = u64::MAX,
        libc::SYS_mount => registers.orig_rax = u64::MAX,
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_open_tree
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_mkdirat
        | libc::SYS_mknodat
        | libc::SYS_symlinkat
        | libc::SYS_unlinkat
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_move_mount => registers.rsi = u64::MAX,
        libc::SYS_fsopen => registers.rdi = u64::MAX,
        _ => registers.rdi = u64::MAX,
    }
}

/// Whether POSIX lets a read or write of this descriptor move less: of plain files and pipes, not of the kernel's own.
pub(super) fn can_be_short(pid: pid_t, descriptor: u64) -> bool {
    let target = target(pid, descriptor);
    let special = ["/proc", "/sys", "/dev", "anon_inode", "socket"];
    !special.iter().any(|prefix| target.starts_with(prefix))
}

/// Whether this descriptor is an eventfd: a write to one fails only if it is full, when no reader needs a wake-up.
pub(super) fn is_eventfd(pid: pid_t, descriptor: u64) -> bool {
    target(pid, descriptor) == "anon_inode:[eventfd]"
}

/// What a descriptor is open on.
fn target(pid: pid_t, descriptor: u64) -> String {
    let target = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap_or_default();
    target.to_string_lossy().into_owned()
}

/// The name of the file that a process executes, also where it has none in any folder.
pub(super) fn program(pid: pid_t) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_prefix("memfd:").unwrap_or(&name);
    name.split(' ').next().unwrap_or(name).to_owned()
}

/// Where a stopped thread is: a file and an offset in it.
pub(super) fn place(pid: pid_t) -> String {
    let at = registers(pid).map_or(0, |registers| registers.rip);
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let inside = |line: &&str| -> Option<bool> {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16));
        Some((start.ok()?..end.ok()?).contains(&at))
    };
    let line = maps.lines().find(|line| inside(line) == Some(true));
    format!("{at:#x} in {}", line.unwrap_or("nothing"))
}

/// The process of a thread, and its parent.
pub(super) fn family(thread: pid_t) -> Vec<pid_t> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    ["Tgid:", "PPid:"]
        .iter()
        .filter_map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok().filter(|pid| *pid != thread)
        })
        .collect()
}

/// The next event of a tracee of this thread.
pub(super) fn wait_for(pid: pid_t) -> io::Result<(pid_t, c_int)> {
    let mut status = 0;
    loop {
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: `status` outlives the call; no usage is asked for.
        let pid = unsafe { libc::wait4(pid, &raw mut status, flags, std::ptr::null_mut()) };
        match pid {
            1.. => return Ok((pid, status)),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// Lets a tracee go on to its next stop. It may have been killed meanwhile: then its end is the next event.
pub(super) fn resume(pid: pid_t, signal: c_int) {
    // SAFETY: numbers only.
    unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, libc::c_long::from(signal)) };
}

/// The registers of a stopped tracee.
pub(super) fn registers(pid: pid_t) -> Option<user_regs_struct> {
    // SAFETY: zeros are registers; the kernel fills in one such struct for a stopped tracee, or fails.
    unsafe {
        let mut registers: user_regs_struct = std::mem::zeroed();
        (libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers) == 0).then_some(registers)
    }
}

/// Gives a stopped tracee other registers.
pub(super) fn set_registers(pid: pid_t, registers: &user_regs_struct) {
    // SAFETY: the kernel reads one such struct. A tracee that was killed meanwhile has no use for them.
    unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(registers)) };
}

/// Where a process stands, for a person.
pub(super) fn stands(pid: pid_t) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    format!(
        "\n  {pid} {} in {} ({})",
        read("comm").trim_end(),
        read("syscall").trim_end(),
        read("wchan")
    )
}
