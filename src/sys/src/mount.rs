//! Mounts without a parent, and their attributes (mount_setattr(2), Linux 5.12), which rustix does not have.
//!
//! ```text
//! detached           as root:           openat2 without symlinks, open_tree, mount_setattr
//! detached_as_user   caller             child in a user and a mount namespace of its own
//!                      clone3 ------------>  the same calls, with that namespace's rights over its copies of all mounts
//!                      takes it  <---------  passes the mount's descriptor, or the error's number, and ends
//! ```
//!
//! Invariants: from the root of a detached mount `..` leads nowhere, and its attributes hold for whoever has its descriptor.
//! The namespaces of the child live on as long as the mount does, and hold nothing else: nobody is in them. Deliberately
//! absent: rights over files. In the child's user namespace no user is mapped, so that a path leads where it leads the caller.

#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{WaitOptions, waitpid};

use crate::fork::{self, Child};
use crate::packet;

/// What to change of a mount: `MOUNT_ATTR_*` bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear, before those to set are set.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 leaves the propagation as it is.
    pub propagation: u64,
}

/// A mount to be made of what is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree<'a> {
    /// Where it is. A symlink on the way there is refused (ELOOP); one that is there is what the mount is of.
    pub path: &'a Path,
    /// Whether the mounts below it come along.
    pub recursive: bool,
    /// What is changed of it, one after the other, and whether of the mounts below it as well.
    pub changes: &'a [(Attributes, bool)],
}

/// Why an ordinary user has no detached mount.
#[derive(Debug, thiserror::Error)]
pub enum AsUserError {
    /// The host does not let this user have a user namespace, or grants no rights in it.
    #[error("this host does not allow user namespaces to this user")]
    UserNamespaces(#[source] io::Error),
    /// It leaves out mounts below the path, which only the user that made them may uncover.
    #[error("file systems are mounted below it, which an ordinary user cannot leave out")]
    Covered(#[source] io::Error),
    /// The path, or a call.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// Makes the mount. Takes CAP_SYS_ADMIN over the caller's mount namespace.
pub fn detached(tree: Tree<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place =
        rustix::io::retry_on_intr(|| openat2(CWD, tree.path, flags, Mode::empty(), resolve))?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if tree.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let mount = open_tree(place, "", flags)?;
    for &(attributes, recursive) in tree.changes {
        set_attributes(&mount, attributes, recursive)?;
    }
    Ok(mount)
}

/// Makes the mount for a user who has no rights over mounts, with those of a user namespace. Attributes of the original that
/// restrict it stay, and mounts below it cannot be left out. The caller must be a process of one thread.
pub fn detached_as_user(tree: Tree<'_>) -> Result<OwnedFd, AsUserError> {
    let (ours, theirs) = packet::pair()?;
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let child = fork::fork(namespaces, None, |_| {
        let (errno, mount) = match detached(tree) {
            Ok(mount) => (0, Some(mount)),
            Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), None),
        };
        let mount = mount.as_ref().map(AsFd::as_fd);
        match packet::send(&theirs, &errno.to_ne_bytes(), mount.as_slice()) {
            Ok(()) => 0,
            Err(_) => 1,
        }
    });
    let child = child.map_err(|error| match error.raw_os_error() {
        // As for a jail: see there.
        Some(libc::EPERM | libc::ENOSPC | libc::EUSERS | libc::EINVAL) => {
            AsUserError::UserNamespaces(error)
        }
        _ => AsUserError::Other(error),
    })?;
    drop(theirs);
    let received = receive(&ours);
    reap(&child)?;
    received.map_err(|error| match error.raw_os_error() {
        // A security module that lets the namespace be made and grants nothing in it.
        Some(libc::EPERM) => AsUserError::UserNamespaces(error),
        Some(libc::EINVAL) if !tree.recursive => AsUserError::Covered(error),
        _ => AsUserError::Other(error),
    })
}

fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut errno = [0; 4];
    let packet = packet::receive(socket, &mut errno).map_err(io::Error::other)?;
    if packet.len != errno.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match (
        i32::from_ne_bytes(errno),
        packet.descriptors.into_iter().next(),
    ) {
        (0, Some(mount)) => Ok(mount),
        (0, None) => Err(io::ErrorKind::UnexpectedEof.into()),
        (errno, _) => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn reap(child: &Child) -> io::Result<()> {
    rustix::io::retry_on_intr(|| waitpid(Some(child.pid), WaitOptions::empty()))?;
    Ok(())
}

/// Changes the attributes of the mount that `mount` is the root of, and of all mounts below it if `recursive`.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> io::Result<()> {
    // SAFETY: mount_attr is a plain structure for which zeros are valid and mean "unused".
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = attributes.set;
    attr.attr_clr = attributes.clear;
    attr.propagation = attributes.propagation;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, attr is valid for the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of_val(&attr),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
