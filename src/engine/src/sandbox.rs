//! A sandbox's folder: what exists of a sandbox outside its processes.
//!
//! ```text
//! ROOT/sandboxes/<id>/lock          locked (flock) by the monitor for as long as it lives
//! ROOT/sandboxes/<id>/socket        where the monitor listens
//! ROOT/sandboxes/<id>/config.json   what the monitor was told
//! ```
//!
//! Invariants: a folder whose lock is free belongs to nobody and is removed by [`sweep`]. Folders are made under the
//! shared lock ROOT/sandboxes/.lock and swept under the exclusive one, so that none is swept between its making and
//! its locking. Deliberately absent: process numbers, which are reused.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Why a sandbox's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A new sandbox: its folder, its lock and its socket.
#[derive(Debug)]
pub struct Sandbox {
    /// The folder.
    pub path: PathBuf,
    /// Held until the last copy of the descriptor is closed.
    pub lock: File,
    /// Bound and listening.
    pub listener: OwnedFd,
}

/// Makes the folder of the sandbox `id`.
pub fn create(root: &Path, id: &str) -> Result<Sandbox, Error> {
    let path = root.join("sandboxes").join(id);
    let _making = lock_all(root, FlockOperation::LockShared)?;
    attempt("make", &path, DirBuilder::new().mode(0o700).create(&path))?;
    let lock_path = path.join("lock");
    let lock = attempt("make", &lock_path, lock_file(&lock_path))?;
    attempt(
        "lock",
        &lock_path,
        flock(&lock, FlockOperation::NonBlockingLockExclusive),
    )?;
    let listener = attempt("listen at", &path.join("socket"), listen_in(&path))?;
    Ok(Sandbox {
        path,
        lock,
        listener,
    })
}

/// Connects to the monitor of the sandbox whose folder this is.
pub fn dial(path: &Path) -> Result<OwnedFd, Error> {
    attempt("connect to", &path.join("socket"), dial_in(path))
}

/// Whether somebody holds the sandbox `id`.
pub fn is_alive(root: &Path, id: &str) -> bool {
    let path = root.join("sandboxes").join(id).join("lock");
    match File::open(path) {
        Ok(lock) => is_locked(&lock),
        Err(_) => false,
    }
}

/// Removes what dead monitors left behind, and says which sandboxes these were.
pub fn sweep(root: &Path) -> Result<Vec<String>, Error> {
    let folder = root.join("sandboxes");
    let all = match lock_all(root, FlockOperation::NonBlockingLockExclusive) {
        Ok(all) => all,
        // Somebody makes or sweeps right now; the next command will do.
        Err(error) if error.source.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut swept = Vec::new();
    for entry in attempt("list", &folder, std::fs::read_dir(&folder))? {
        let entry = attempt("list", &folder, entry)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let held = match File::open(entry.path().join("lock")) {
            Ok(lock) => is_locked(&lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return attempt("open", &entry.path().join("lock"), Err(error)),
        };
        if !held {
            remove(&entry.path())?;
            swept.push(name);
        }
    }
    drop(all);
    Ok(swept)
}

/// Removes a sandbox's folder.
pub fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => attempt("remove", path, other),
    }
}

fn lock_all(root: &Path, operation: FlockOperation) -> Result<File, Error> {
    let folder = root.join("sandboxes");
    attempt(
        "make",
        &folder,
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder),
    )?;
    let path = folder.join(".lock");
    let file = attempt("make", &path, lock_file(&path))?;
    attempt("lock", &path, flock(&file, operation))?;
    Ok(file)
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

fn is_locked(lock: &File) -> bool {
    flock(lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// A socket's path has at most 107 bytes: the folder is named by its descriptor.
fn in_folder(path: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let folder = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/socket", folder.as_raw_fd()))?;
    Ok((folder, address))
}

fn listen_in(path: &Path) -> io::Result<OwnedFd> {
    let (_folder, address) = in_folder(path)?;
    let socket = packet_socket()?;
    bind(&socket, &address)?;
    listen(&socket, 16)?;
    Ok(socket)
}

fn dial_in(path: &Path) -> io::Result<OwnedFd> {
    let (_folder, address) = in_folder(path)?;
    let socket = packet_socket()?;
    connect(&socket, &address)?;
    Ok(socket)
}

fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn attempt<T>(
    action: &'static str,
    path: &Path,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, Error> {
    result.map_err(|source| Error {
        action,
        path: path.to_owned(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_swept_when_its_lock_is_free_and_not_before() {
        let root = tempfile::tempdir().unwrap();
        let sandbox = create(root.path(), "abc").unwrap();
        assert!(is_alive(root.path(), "abc"));
        assert!(sweep(root.path()).unwrap().is_empty());
        drop(sandbox);
        assert!(!is_alive(root.path(), "abc"));
        assert_eq!(sweep(root.path()).unwrap(), ["abc"]);
        assert!(!root.path().join("sandboxes/abc").exists());
    }

    #[test]
    fn a_client_can_connect_before_anybody_accepts_however_long_the_path() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("x".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let sandbox = create(&deep, "abc").unwrap();
        let client = dial(&sandbox.path).unwrap();
        sys::packet::send(&client, b"hello", &[]).unwrap();
        let server = rustix::net::accept(&sandbox.listener).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(sys::packet::receive(&server, &mut buffer).unwrap().len, 5);
    }

    #[test]
    fn a_folder_without_a_lock_is_swept() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sandboxes/half")).unwrap();
        assert_eq!(sweep(root.path()).unwrap(), ["half"]);
    }
}
