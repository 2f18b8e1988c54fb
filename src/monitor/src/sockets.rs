//! Sockets of the host's that containers of a VM may connect to.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use protocol::record::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// A new connection to the socket of this name, if one of the mounts is of it. Never waits: a server that takes no more
/// connections is one that cannot be reached.
pub(crate) fn reach(mounts: &[&Mount], name: &str) -> io::Result<OwnedFd> {
    let mount = mounts
        .iter()
        .find(|mount| mount.socket.is_some() && mount.share == name);
    let mount = mount.ok_or(io::ErrorKind::NotFound)?;
    reach_path(&mount.path)
}

fn reach_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place = rustix::io::retry_on_intr(|| openat2(CWD, path, flags, Mode::empty(), resolve))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // By its descriptor: nothing can be put in the place of what was looked at, and any path is short enough.
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    connect(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_is_reached_by_any_path_but_through_no_symlink() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let deep = root.join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        // A path that is too long for an address.
        let path = deep.join("socket");
        let here = std::fs::File::open(&deep).unwrap();
        let short = format!("/proc/self/fd/{}/socket", here.as_raw_fd());
        let listener = UnixListener::bind(short).unwrap();
        let mut ours = UnixStream::from(reach_path(&path).unwrap());
        listener.accept().unwrap().0.write_all(b"hello").unwrap();
        ours.set_nonblocking(false).unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");

        std::os::unix::fs::symlink(&path, root.join("link")).unwrap();
        assert!(reach_path(&root.join("link")).is_err());
        std::fs::write(root.join("file"), "").unwrap();
        assert!(reach_path(&root.join("file")).is_err());
        drop(listener);
        let refused = reach_path(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn nothing_but_the_sockets_among_the_mounts_is_reached() {
        assert!(reach(&[], "any").is_err());
    }
}
