//! Opening files that hull itself has put where it keeps its state, without falling for what others may have put there.
//!
//! No link is followed, anywhere in the path, and the file must belong to root or to this user and be writable by nobody
//! else: whoever can replace a folder on the way cannot make a file that passes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2};

/// Opens `path` with these flags (close-on-exec besides); `mode` is for a file that they make.
///
/// # Errors
/// ELOOP for a link; `PermissionDenied` for a file that another user owns or may write.
pub fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    open_in(CWD, path, flags, mode)
}

/// The same, of a path in a folder that is open.
pub fn open_in(
    folder: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> io::Result<File> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::io::retry_on_intr(|| {
        openat2(
            &folder,
            path,
            flags | OFlags::CLOEXEC | OFlags::NOCTTY,
            mode,
            resolve,
        )
    })?;
    let stat = fstat(&file)?;
    let ours = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    if !ours || stat.st_mode & 0o022 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user, or others may write it",
        ));
    }
    Ok(file.into())
}

/// Opens a regular file for reading.
pub fn read(path: &Path) -> io::Result<File> {
    read_in(CWD, path)
}

/// The same, of a path in a folder that is open.
pub fn read_in(folder: impl AsFd, path: impl rustix::path::Arg + Copy) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = open_in(folder, path, flags, Mode::empty())?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_foreign_writers_and_pipes_are_refused() {
        let folder = std::env::temp_dir().join(format!("hull-trusted-{}", std::process::id()));
        fs::create_dir_all(folder.join("a")).unwrap();
        let file = folder.join("a/file");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&file).is_ok());
        symlink(&file, folder.join("link")).unwrap();
        symlink(folder.join("a"), folder.join("way")).unwrap();
        for path in ["link", "way/file"] {
            let error = read(&folder.join(path)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{path}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let error = read(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        rustix::fs::mknodat(
            CWD,
            folder.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(read(&folder.join("pipe")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
