//! Where `hull serve` listens: sockets that it makes, or that systemd hands over.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Members of this group may use the socket of root's, as with Docker.
const GROUP: &str = "docker";
/// The first descriptor that systemd hands over (sd_listen_fds(3)).
const FIRST_HANDED: i32 = 3;
/// More than anybody hands over.
const MAX_HANDED: i32 = 64;

/// Why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not `unix://PATH`.
    #[error("{0:?} is not an address that hull listens at: unix:///PATH is one")]
    Address(String),
    /// Not built.
    #[error(
        "hull does not listen at TCP ports yet ({0}): forward one to the socket, for instance with ssh -L"
    )]
    Tcp(String),
    /// Another process listens there.
    #[error("another process listens at {0}: stop it, or name another socket with -H")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is there and is not a socket: remove it, or name another socket with -H")]
    NotSocket(PathBuf),
    /// It has no place.
    #[error(
        "XDG_RUNTIME_DIR is not set, so there is no place for the socket: name one with -H unix:///PATH"
    )]
    NoRuntimeDir,
    /// The socket cannot be made.
    #[error("cannot {action} {path}")]
    Socket {
        /// What was attempted.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was handed over is no socket that listens.
    #[error("descriptor {0}, which LISTEN_FDS hands over, is not a Unix socket that listens")]
    Handed(i32),
}

/// A socket that listens. One that was made here is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: UnixListener,
    /// Its path, device and inode.
    made: Option<(PathBuf, u64, u64)>,
}

impl Listener {
    /// What to tell a user.
    pub fn address(&self) -> String {
        match &self.made {
            Some((path, ..)) => format!("unix://{}", path.display()),
            None => "a socket that was handed over".to_owned(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some((path, device, inode)) = &self.made else {
            return;
        };
        // Another process may have put its own there.
        let is_ours = |stat: fs::Metadata| (stat.dev(), stat.ino()) == (*device, *inode);
        if fs::symlink_metadata(path).is_ok_and(is_ours)
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "the socket is left");
        }
    }
}

/// The path of an address.
pub fn path(address: &str) -> Result<PathBuf, Error> {
    if address.starts_with("tcp://") {
        return Err(Error::Tcp(address.to_owned()));
    }
    let path = address.strip_prefix("unix://").map(Path::new);
    path.filter(|path| path.is_absolute())
        .map(Path::to_owned)
        .ok_or_else(|| Error::Address(address.to_owned()))
}

/// Where to listen unless told.
pub fn default_path() -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok("/run/hull.sock".into());
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    folder
        .map(|folder| Path::new(&folder).join("hull.sock"))
        .ok_or(Error::NoRuntimeDir)
}

/// Makes a socket, in the place of an old one that no process listens at.
pub fn bind(path: &Path) -> Result<Listener, Error> {
    let failed = |action| {
        move |source| Error::Socket {
            action,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Ok(stat) if !stat.file_type().is_socket() => return Err(Error::NotSocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(Error::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("replace"))?;
            }
            Err(error) => return Err(failed("connect to")(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    // No other user can connect before the mode is set.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(mask);
    let socket = bound.map_err(failed("listen at"))?;
    let stat = fs::symlink_metadata(path).map_err(failed("look at"))?;
    let listener = Listener {
        socket,
        made: Some((path.to_owned(), stat.dev(), stat.ino())),
    };
    if rustix::process::geteuid().is_root()
        && let Some(group) = group(&fs::read_to_string("/etc/group").unwrap_or_default())
    {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(failed("give away"))?;
    }
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed("open"))?;
    Ok(listener)
}

/// The number of the group [`GROUP`], by group(5).
fn group(file: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut parts = line.split(':');
        let found = parts.next() == Some(GROUP);
        found.then(|| parts.nth(1)?.parse().ok()).flatten()
    })
}

/// The sockets that systemd has handed over to this process; to be called once, before threads are made.
pub fn handed_over() -> Result<Vec<Listener>, Error> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let is_ours = number("LISTEN_PID") == i32::try_from(std::process::id()).ok();
    let count = number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0);
    let handed = FIRST_HANDED..FIRST_HANDED + count.clamp(0, MAX_HANDED);
    handed.map(take_handed).collect()
}

#[expect(
    unsafe_code,
    reason = "descriptors that are handed over are numbers in the environment"
)]
fn take_handed(number: i32) -> Result<Listener, Error> {
    // SAFETY: LISTEN_PID is this process, so that these descriptors were opened for it and nothing else here owns them; this
    // is called once for each.
    let handed = unsafe { OwnedFd::from_raw_fd(number) };
    let listens = rustix::net::sockopt::socket_acceptconn(&handed).unwrap_or(false);
    let is_unix = rustix::net::sockopt::socket_domain(&handed)
        .is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX);
    if !listens || !is_unix {
        return Err(Error::Handed(number));
    }
    Ok(Listener {
        socket: handed.into(),
        made: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unix_sockets() {
        assert_eq!(
            path("unix:///run/x.sock").unwrap(),
            Path::new("/run/x.sock")
        );
        assert!(matches!(path("tcp://0.0.0.0:2375"), Err(Error::Tcp(_))));
        for bad in ["", "/run/x.sock", "unix://x", "unix://", "npipe:////./x"] {
            assert!(matches!(path(bad), Err(Error::Address(_))), "{bad}");
        }
    }

    #[test]
    fn an_old_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(matches!(bind(&path), Err(Error::InUse(_))));
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(matches!(bind(&path), Err(Error::NotSocket(_))));
    }

    #[test]
    fn a_group_is_found_by_its_name() {
        assert_eq!(group("root:x:0:\ndocker:x:998:ann\n"), Some(998));
        assert_eq!(group("dockers:x:1:\n"), None);
    }
}
