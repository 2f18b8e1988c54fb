//! Safe wrappers over the system calls that hull uses, one module for each topic.
//!
//! rustix is the base; a wrapper stands here only where rustix has none, or where every caller needs the same lines.

pub mod bpf;
pub mod capabilities;
pub mod cgroup2;
pub mod clock;
pub mod ext4;
pub mod flush;
pub mod fork;
pub mod fs_ids;
pub mod interface;
pub mod jail;
pub mod last_words;
pub mod loop_device;
pub mod mount;
pub mod netlink;
pub mod nonblocking;
pub mod packet;
pub mod partition;
pub mod ports;
pub mod private_mounts;
pub mod random;
pub mod range_lock;
pub mod refusal;
pub mod reserve;
pub mod resident;
pub mod seccomp;
pub mod signalfd;
pub mod sigset;
pub mod sparse;
pub mod spawn;
pub mod syscalls;
pub mod tap;
pub mod thread;
pub mod trusted;
pub mod vsock;
pub mod wait;
