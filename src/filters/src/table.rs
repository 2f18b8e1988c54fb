// Which system calls each thread of hull's host processes may make: the one list. Included by the
// crate and by its build script, which compiles it.

/// A call and the condition under which it may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its name, as libc has it: with SYS_.
    pub name: &'static str,
    /// Its number.
    pub number: i64,
    /// What is checked of its arguments.
    pub when: When,
}

/// A condition on arguments, which are counted from 0 and compared as the kernel reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// None.
    Always,
    /// This argument, 32 bits wide, is one of these.
    OneOf(u8, &'static [u64]),
    /// Each of these arguments, 32 bits wide, is one of its values.
    EachOf(&'static [(u8, &'static [u64])]),
    /// This argument has none of these bits.
    Without(u8, u64),
    /// Memory is mapped: private, anonymous, never executable (argument 2 is the protection, 3 the flags).
    PlainMemory(&'static [u64]),
}

/// A kind of thread, or a process of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// How it is called in the documentation.
    pub name: &'static str,
    /// What it may call.
    pub calls: &'static [&'static [Call]],
    /// What it may call besides in builds that are never installed: those with glibc, and those with debug assertions.
    pub development: &'static [Call],
}

macro_rules! calls {
    ($($name:ident $(($when:expr))?),* $(,)?) => {
        &[$(Call { name: stringify!($name), number: libc::$name, when: calls!(@ $($when)?) }),*]
    };
    (@) => { When::Always };
    (@ $when:expr) => { $when };
}

use When::{EachOf, OneOf, PlainMemory, Without};

// ioctl(2) numbers: KVM's (include/uapi/linux/kvm.h), then a tap's (if_tun.h) and the general (asm-generic/ioctls.h).
const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_MP_STATE: u64 = 0x8004_ae98;
const KVM_GET_DIRTY_LOG: u64 = 0x4010_ae42;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
const KVM_GET_MSRS: u64 = 0xc008_ae88;
const KVM_GET_LAPIC: u64 = 0x8400_ae8e;
const KVM_GET_VCPU_EVENTS: u64 = 0x8040_ae9f;
const KVM_GET_DEBUGREGS: u64 = 0x8080_aea1;
const KVM_GET_XSAVE: u64 = 0x9000_aea4;
const KVM_GET_XCRS: u64 = 0x8188_aea6;
const KVM_GET_IRQCHIP: u64 = 0xc208_ae62;
const KVM_GET_CLOCK: u64 = 0x8030_ae7c;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const FIONBIO: u64 = 0x5421;
const FIONREAD: u64 = 0x541b;

const F_GETFD: u64 = 1;
const F_GETFL: u64 = 3;
const F_SETFL: u64 = 4;
const F_DUPFD_CLOEXEC: u64 = 1030;
pub(crate) const PROT_EXEC: u64 = 4;
/// MAP_PRIVATE | MAP_ANONYMOUS.
const PRIVATE_ANONYMOUS: u64 = 0x22;
/// The same with MAP_NORESERVE: the arenas of glibc's malloc.
const GLIBC_ARENA: u64 = 0x4022;
const MREMAP_MAYMOVE: u64 = 1;
const MADV_DONTNEED: u64 = 4;
const MADV_FREE: u64 = 8;
/// FALLOC_FL_KEEP_SIZE with FALLOC_FL_PUNCH_HOLE, and with FALLOC_FL_ZERO_RANGE.
const HOLES_AND_ZEROS: &[u64] = &[3, 0x11];
/// The first real-time signal that is free: musl's and glibc's. A thread of one's own is driven out of KVM_RUN with it.
const KICK: &[u64] = &[35];
const GLIBC_KICK: &[u64] = &[34];
/// SIG_BLOCK and SIG_SETMASK: around a kick, in pthread_kill.
const MASKS: &[u64] = &[0, 2];
const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;
const MSG_NOSIGNAL: u64 = 0x4000;
const AF_UNIX: u64 = 1;
// Levels and names of socket options (asm-generic/socket.h, linux/tcp.h).
const SOL_SOCKET: u64 = 1;
const SO_ERROR: u64 = 4;
const SO_SNDBUF: u64 = 7;
const SO_KEEPALIVE: u64 = 9;
const SO_LINGER: u64 = 13;
const IPPROTO_TCP: u64 = 6;
const TCP_NODELAY: u64 = 1;
/// AF_INET and AF_INET6.
const INTERNET: &[u64] = &[2, 10];
/// SOCK_STREAM and SOCK_DGRAM, each with SOCK_CLOEXEC and SOCK_NONBLOCK.
const STREAMS_AND_DATAGRAMS: &[u64] = &[0x8_0801, 0x8_0802];
/// SOCK_STREAM with SOCK_CLOEXEC: the ends of a pair stay connected to each other. Those of datagrams could be connected
/// anew, to any Unix socket.
const STREAM_PAIR: u64 = 0x8_0001;
/// O_RDONLY with O_NONBLOCK, O_NOFOLLOW, O_CLOEXEC and O_LARGEFILE.
const READ_ONLY: &[u64] = &[0xa_8800];
/// LOCK_SH with LOCK_NB.
const TRY_SHARED: &[u64] = &[5];

/// Every thread: memory of its own, locks, the clock, and an end.
const EVERY_THREAD: &[Call] = calls![
    SYS_brk,
    SYS_clock_gettime,
    SYS_close,
    SYS_exit_group,
    SYS_futex,
    SYS_madvise(OneOf(2, &[MADV_DONTNEED, MADV_FREE])),
    SYS_mmap(PlainMemory(&[PRIVATE_ANONYMOUS])),
    SYS_mprotect(Without(2, PROT_EXEC)),
    SYS_mremap(OneOf(3, &[MREMAP_MAYMOVE])),
    SYS_munmap,
    SYS_sched_yield,
    SYS_write,
];

/// glibc's malloc in a thread that is not the first, and what the standard library asserts of a descriptor that it closes.
const DEVELOPMENT: &[Call] = calls![
    SYS_fcntl(OneOf(1, &[F_GETFD])),
    SYS_mmap(PlainMemory(&[GLIBC_ARENA])),
];

/// hull-vmm's first thread: the loop over the control socket and those devices that have no thread of their own.
pub const MAIN: Kind = Kind {
    name: "main",
    calls: &[
        EVERY_THREAD,
        calls![
            SYS_epoll_ctl,
            SYS_epoll_pwait,
            // Of the file of an extent that is added to a disk.
            SYS_fstat,
            SYS_getrandom,
            // TUNSETOFFLOAD: of a tap that a running guest's network card is plugged into.
            SYS_ioctl(OneOf(1, &[FIONBIO, TUNSETOFFLOAD])),
            SYS_pread64,
            SYS_read,
            SYS_readv,
            SYS_recvmsg(OneOf(2, &[MSG_CMSG_CLOEXEC])),
            SYS_shutdown,
            SYS_rt_sigprocmask(OneOf(0, MASKS)),
            SYS_tkill(OneOf(1, KICK)),
            SYS_writev,
        ],
    ],
    development: calls![
        SYS_epoll_wait,
        SYS_fcntl(OneOf(1, &[F_GETFD])),
        SYS_getpid,
        SYS_tgkill(OneOf(2, GLIBC_KICK)),
    ],
};

/// Every vCPU, besides its ioctls.
const EVERY_VCPU: &[Call] = calls![SYS_getrandom, SYS_read, SYS_rt_sigreturn];

/// A vCPU: it runs the guest, answers its accesses, and starts a device when its driver has set DRIVER_OK.
pub const VCPU: Kind = Kind {
    name: "vcpu",
    calls: &[
        EVERY_THREAD,
        EVERY_VCPU,
        calls![SYS_ioctl(OneOf(
            1,
            &[KVM_RUN, KVM_GET_REGS, KVM_GET_MP_STATE, TUNSETOFFLOAD]
        ))],
    ],
    development: DEVELOPMENT,
};

/// A vCPU of a VM that is to be saved, in which no container ever runs: at its end it reads the VM's state as well.
pub const SAVE: Kind = Kind {
    name: "save",
    calls: &[
        EVERY_THREAD,
        EVERY_VCPU,
        calls![SYS_ioctl(OneOf(
            1,
            &[
                KVM_RUN,
                KVM_GET_REGS,
                KVM_GET_MP_STATE,
                TUNSETOFFLOAD,
                KVM_GET_DIRTY_LOG,
                KVM_GET_SREGS,
                KVM_GET_MSRS,
                KVM_GET_LAPIC,
                KVM_GET_VCPU_EVENTS,
                KVM_GET_DEBUGREGS,
                KVM_GET_XSAVE,
                KVM_GET_XCRS,
                KVM_GET_IRQCHIP,
                KVM_GET_CLOCK,
            ]
        ))],
    ],
    development: DEVELOPMENT,
};

/// A block device's thread: it moves data between files and guest memory.
pub const BLOCK: Kind = Kind {
    name: "blk",
    calls: &[
        EVERY_THREAD,
        calls![
            SYS_epoll_ctl,
            SYS_epoll_pwait,
            SYS_fallocate(OneOf(1, HOLES_AND_ZEROS)),
            SYS_fdatasync,
            SYS_fstatfs,
            SYS_lseek,
            SYS_preadv,
            SYS_pwrite64,
            SYS_pwritev,
        ],
    ],
    development: calls![
        SYS_epoll_wait,
        SYS_fcntl(OneOf(1, &[F_GETFD])),
        SYS_mmap(PlainMemory(&[GLIBC_ARENA])),
    ],
};

/// A file system device's thread: it talks to hull-fs, which passes it open files, and moves data between those and guest
/// memory. It sends with `write`, which passes no descriptors.
pub const FS: Kind = Kind {
    name: "fs",
    calls: &[
        EVERY_THREAD,
        calls![
            SYS_epoll_ctl,
            SYS_epoll_pwait,
            SYS_preadv,
            SYS_pwritev,
            SYS_recvmsg(OneOf(2, &[MSG_CMSG_CLOEXEC])),
        ],
    ],
    development: calls![
        SYS_epoll_wait,
        SYS_fcntl(OneOf(1, &[F_GETFD])),
        SYS_mmap(PlainMemory(&[GLIBC_ARENA])),
    ],
};

/// A sandbox's speaker: it talks to the agent and to clients, makes socket pairs for their streams, appends to logs and
/// measures from files that are open already. A socket pair reaches its own two ends alone.
pub const MONITOR: Kind = Kind {
    name: "monitor",
    calls: &[
        EVERY_THREAD,
        calls![
            SYS_epoll_ctl,
            SYS_epoll_pwait,
            SYS_fstatfs,
            SYS_ftruncate,
            SYS_getrandom,
            SYS_lseek,
            SYS_ppoll,
            SYS_pread64,
            SYS_read,
            SYS_recvfrom,
            SYS_recvmsg(OneOf(2, &[MSG_CMSG_CLOEXEC])),
            SYS_sendmsg,
            SYS_sendto,
            SYS_shutdown,
            SYS_socketpair(OneOf(0, &[AF_UNIX])),
        ],
    ],
    development: DEVELOPMENT,
};

/// hull-fs's first thread: it takes shares from the warden and looks at what they are.
pub const SHARES: Kind = Kind {
    name: "shares",
    calls: &[
        EVERY_THREAD,
        calls![
            // What kind of file system a share lies on.
            SYS_fstatfs,
            SYS_recvmsg(OneOf(2, &[MSG_CMSG_CLOEXEC])),
            SYS_statx,
        ],
    ],
    development: DEVELOPMENT,
};

/// A thread of hull-fs that serves a guest's requests: the one kind that opens files, in a process whose root is empty, below
/// the shares that it was given.
pub const FILES: Kind = Kind {
    name: "files",
    calls: &[
        EVERY_THREAD,
        calls![
            SYS_copy_file_range,
            SYS_fallocate,
            SYS_fchmodat,
            SYS_fchownat,
            SYS_fcntl(OneOf(1, &[F_DUPFD_CLOEXEC])),
            SYS_fdatasync,
            SYS_fstatfs,
            SYS_fsync,
            SYS_ftruncate,
            SYS_getdents64,
            SYS_getxattr,
            SYS_ioctl(OneOf(1, &[FIONREAD])),
            SYS_linkat,
            SYS_listxattr,
            SYS_lseek,
            SYS_mkdirat,
            SYS_mknodat,
            SYS_openat,
            // Whether a volume's lease is held still.
            SYS_pread64,
            SYS_readlinkat,
            SYS_recvmsg(OneOf(2, &[MSG_CMSG_CLOEXEC])),
            SYS_removexattr,
            SYS_renameat2,
            SYS_sendmsg(OneOf(2, &[MSG_NOSIGNAL])),
            SYS_setfsgid,
            SYS_setfsuid,
            SYS_setxattr,
            SYS_statx,
            SYS_symlinkat,
            SYS_unlinkat,
            SYS_utimensat,
        ],
    ],
    development: DEVELOPMENT,
};

/// The one thread of hull-net: it serves the DNS of its network, asks the resolvers of the host, and reads the folder of
/// leases, below which alone it can open anything. Where it is the whole network, it takes frames from VMs, and sockets
/// that were bound for them, and ends their connections in sockets of its own. Those are of the families of the Internet:
/// Unix sockets are out of reach, but for pairs that reach their own two ends.
pub const NET: Kind = Kind {
    name: "net",
    calls: &[
        EVERY_THREAD,
        calls![
            SYS_accept4,
            SYS_connect,
            SYS_epoll_ctl,
            SYS_epoll_pwait,
            SYS_fcntl(OneOf(1, &[F_GETFL, F_SETFL])),
            SYS_flock(OneOf(1, TRY_SHARED)),
            SYS_fstat,
            SYS_getdents64,
            SYS_getrandom,
            SYS_getsockname,
            SYS_getsockopt(EachOf(&[(1, &[SOL_SOCKET]), (2, &[SO_ERROR])])),
            SYS_lseek,
            SYS_openat(OneOf(2, READ_ONLY)),
            SYS_read,
            SYS_readv,
            SYS_recvfrom,
            SYS_recvmsg(OneOf(2, &[MSG_CMSG_CLOEXEC])),
            SYS_sendto,
            SYS_setsockopt(EachOf(&[
                (1, &[SOL_SOCKET]),
                (2, &[SO_SNDBUF, SO_KEEPALIVE, SO_LINGER])
            ])),
            SYS_setsockopt(EachOf(&[(1, &[IPPROTO_TCP]), (2, &[TCP_NODELAY])])),
            SYS_shutdown,
            SYS_socket(EachOf(&[(0, INTERNET), (1, STREAMS_AND_DATAGRAMS)])),
            SYS_socketpair(EachOf(&[(0, &[AF_UNIX]), (1, &[STREAM_PAIR])])),
            SYS_writev,
        ],
    ],
    development: calls![
        SYS_epoll_wait,
        SYS_fcntl(OneOf(1, &[F_GETFD])),
        SYS_mmap(PlainMemory(&[GLIBC_ARENA])),
    ],
};

/// Every kind.
pub const KINDS: &[Kind] = &[MAIN, VCPU, SAVE, BLOCK, FS, MONITOR, SHARES, FILES, NET];
