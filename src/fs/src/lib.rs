//! hull-fs: shared directories, served to a guest's virtio-fs driver over FUSE.
//!
//! ```text
//! warden ==ToFs==> control (main thread) --> Shares
//! hull-vmm ==FUSE requests==> quick threads --> Server::handle --> replies, descriptors of opened files
//!                                   '--slow ones--> slow threads ---^
//! ```
//!
//! - [`Server`] is what a guest talks to: a function from a request's bytes to a reply's, over the tables of nodes and handles
//!   and the host's files. It knows no socket.
//! - [`serve`](mod@serve) puts threads and sockets around it, [`confine`] takes from the process what it does not need.
//!
//! Invariants: the guest is hostile. Every request is parsed from its bytes with checks; a name is one component, validated,
//! looked up relative to a descriptor and never followed if it is a link; only regular files are opened for their data, and
//! only directories to be listed: never a device, a FIFO, a socket or a link; a share that is read-only refuses every change
//! here, beside its mount. All that a guest can make grow has a bound. When descriptors run out the guest is told ENFILE or
//! EMFILE, never ENOENT. No lock is held during a system call, but for a directory's own while it is read.
//!
//! Ownership: what a guest makes belongs to the user and group that made it in the guest, if the server may act as them
//! (CAP_SETUID, CAP_SETGID and a user namespace that has them); otherwise to the server's user, and a guest's chown
//! fails with EPERM. A server that an ordinary user runs is told to record owners and modes in an extended attribute
//! (`recorded`). The guest's kernel checks permissions, by owners and modes as the host has them; the server checks
//! none beyond what the host refuses its user. Without CAP_FSETID, which it must not have, the host's kernel clears
//! set-user-ID and set-group-ID bits whenever a file is truncated, allocated or written, as FUSE_HANDLE_KILLPRIV_V2
//! wants it; it does so for a guest's root as well.
//!
//! Deliberately absent: reading and writing (hull-vmm does both, on the descriptors); locks (the guest's kernel keeps them);
//! access control lists (refused as by a file system without them: nothing in the guest would heed them); device nodes
//! but overlayfs' whiteouts; FUSE_SYNCFS (a guest could have the host write back what is not the guest's).

mod abi;
pub mod confine;
pub mod control;
mod directory;
mod handle;
mod host;
mod links;
mod name;
mod node;
mod ops;
mod owners;
mod record;
mod recorded;
pub mod serve;
mod server;
mod share;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use links::Links;
pub use server::{Reply, Server};
pub use share::Error as ShareError;

/// The result of what a guest asks for: the error is the number that it gets.
type Result<T> = std::result::Result<T, rustix::io::Errno>;

/// Locks a table. No code panics while it holds one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
