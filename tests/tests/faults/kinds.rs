//! Which system calls fail together, and how.

use libc::*;
use tests::inject::Effect::{self, Fails, Short};

/// Calls that are counted together.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) calls: &'static [c_long],
    pub(crate) effects: &'static [Effect],
}

const fn kind(name: &'static str, calls: &'static [c_long], effects: &'static [Effect]) -> Kind {
    Kind {
        name,
        calls,
        effects,
    }
}

/// What is disturbed in every program.
pub(crate) const KINDS: [Kind; 21] = [
    kind(
        "open",
        &[SYS_open, SYS_openat, SYS_openat2],
        &[Fails(EMFILE), Fails(EIO)],
    ),
    kind(
        "read",
        &[SYS_read, SYS_pread64, SYS_readv],
        &[Fails(EIO), Fails(EINTR), Short(1), Short(7)],
    ),
    kind(
        "write",
        &[SYS_write, SYS_pwrite64, SYS_writev],
        &[Fails(ENOSPC), Fails(EINTR), Short(1)],
    ),
    kind("sync", &[SYS_fsync, SYS_fdatasync], &[Fails(EIO)]),
    kind(
        "name",
        &[
            SYS_rename,
            SYS_renameat,
            SYS_renameat2,
            SYS_unlink,
            SYS_unlinkat,
            SYS_mkdir,
            SYS_mkdirat,
            SYS_rmdir,
            SYS_mknodat,
            SYS_symlinkat,
        ],
        &[Fails(ENOSPC), Fails(EIO)],
    ),
    kind(
        "stat",
        &[SYS_stat, SYS_lstat, SYS_fstat, SYS_newfstatat, SYS_statx],
        &[Fails(EIO)],
    ),
    kind(
        "size",
        &[SYS_ftruncate, SYS_fallocate, SYS_fchmod, SYS_lseek],
        &[Fails(EIO), Fails(ENOSPC)],
    ),
    kind("list", &[SYS_getdents64], &[Fails(EIO)]),
    kind("lock", &[SYS_flock], &[Fails(EINTR), Fails(ENOLCK)]),
    kind("control", &[SYS_fcntl], &[Fails(ENOLCK), Fails(EMFILE)]),
    kind(
        "descriptor",
        &[
            SYS_socket,
            SYS_socketpair,
            SYS_accept4,
            SYS_bind,
            SYS_listen,
            SYS_connect,
            SYS_memfd_create,
            SYS_pipe2,
            SYS_dup,
            SYS_dup2,
            SYS_dup3,
            SYS_eventfd2,
            SYS_epoll_create1,
            SYS_epoll_ctl,
            SYS_signalfd4,
            SYS_timerfd_create,
            SYS_pidfd_open,
        ],
        &[Fails(EMFILE)],
    ),
    kind(
        "send",
        &[SYS_sendmsg, SYS_sendto],
        &[Fails(EINTR), Fails(ENOBUFS)],
    ),
    kind("receive", &[SYS_recvmsg], &[Fails(EINTR), Fails(ENOMEM)]),
    // The standard library's, of a child that has yet to execute, is left out: failing, it would wait for that child.
    kind("recv", &[SYS_recvfrom], &[Fails(EINTR)]),
    kind(
        "poll",
        &[SYS_poll, SYS_ppoll, SYS_epoll_wait, SYS_epoll_pwait],
        &[Fails(EINTR), Fails(ENOMEM)],
    ),
    kind(
        "memory",
        &[SYS_mmap, SYS_brk, SYS_mprotect, SYS_madvise],
        &[Fails(ENOMEM)],
    ),
    kind(
        "process",
        &[SYS_clone, SYS_clone3, SYS_fork, SYS_vfork, SYS_execve],
        &[Fails(EAGAIN), Fails(ENOMEM)],
    ),
    kind("wait", &[SYS_wait4, SYS_waitid], &[Fails(EINTR)]),
    kind(
        "mount",
        &[
            SYS_mount,
            SYS_umount2,
            SYS_fsopen,
            SYS_fsconfig,
            SYS_fsmount,
            SYS_move_mount,
            SYS_open_tree,
            SYS_mount_setattr,
            SYS_pivot_root,
            SYS_unshare,
            SYS_setns,
        ],
        &[Fails(ENOMEM)],
    ),
    kind("ioctl", &[SYS_ioctl], &[Fails(ENOMEM), Fails(EINTR)]),
    kind(
        "rights",
        &[
            SYS_setresuid,
            SYS_setresgid,
            SYS_setgroups,
            SYS_capset,
            SYS_prlimit64,
            SYS_seccomp,
            SYS_bpf,
            SYS_sethostname,
            SYS_setsid,
        ],
        &[Fails(EPERM)],
    ),
];
