//! Paths inside a root directory, resolved as if it were `/` and never out of it, whatever symlinks the image holds.
//!
//! Invariants: every path goes through openat2 with RESOLVE_IN_ROOT (so `..` and absolute symlinks stay inside) and
//! RESOLVE_NO_MAGICLINKS (so /proc/self/fd and the like lead nowhere); what is made is made in a parent opened that way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, mkdirat, openat, openat2,
};
use rustix::io::Errno;

/// As many symlinks as the kernel follows in one path (MAXSYMLINKS).
const MAX_SYMLINKS: usize = 40;
/// Paths deeper than this are refused: PATH_MAX allows no more components.
const MAX_DEPTH: usize = 2048;

/// What to make of a path's last component when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    /// A directory, mode 0o755.
    Directory,
    /// An empty file, mode 0o644.
    File,
}

/// A directory that is the root of all paths given to it.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// `path` becomes the root.
    pub(crate) fn open(path: impl rustix::path::Arg) -> Result<Root, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens what is at `path`; with OFlags::PATH, only to name it.
    pub(crate) fn get(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, ResolveFlags::empty())
    }

    /// Opens what is at `path`, refusing (ELOOP) to go through any symlink.
    pub(crate) fn get_without_symlinks(
        &self,
        path: &Path,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        self.resolve(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    fn resolve(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        loop {
            // EAGAIN: something was renamed while the kernel checked that the path stays inside.
            match openat2(
                &self.0,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN) => continue,
                result => return result,
            }
        }
    }

    /// Names what is at `path`, making it and its parents when missing. A symlink to nothing gets its target made.
    pub(crate) fn get_or_make(&self, path: &Path, make: Make) -> Result<OwnedFd, Errno> {
        self.get_or_make_within(path, make, MAX_DEPTH, MAX_SYMLINKS)
    }

    fn get_or_make_within(
        &self,
        path: &Path,
        make: Make,
        depth: usize,
        symlinks: usize,
    ) -> Result<OwnedFd, Errno> {
        match self.get(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let (parent, name) = (path.parent(), path.file_name());
        let (Some(parent), Some(name)) = (parent, name) else {
            return Err(Errno::NOENT);
        };
        let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
        let directory = self.get_or_make_within(parent, Make::Directory, depth, symlinks)?;
        let made = match make {
            Make::Directory => mkdirat(&directory, name, Mode::from_raw_mode(0o755)),
            Make::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            Ok(()) => self.get(path, OFlags::PATH),
            Err(Errno::EXIST) => {
                // It is there and yet was not found: a symlink whose target is missing.
                let symlinks = symlinks.checked_sub(1).ok_or(Errno::LOOP)?;
                let target = rustix::fs::readlinkat(&directory, name, Vec::new())?;
                let target = PathBuf::from(std::ffi::OsString::from(
                    target.into_string().map_err(|_| Errno::ILSEQ)?,
                ));
                self.get_or_make_within(&parent.join(target), make, depth, symlinks)
            }
            Err(errno) => Err(errno),
        }
    }

    /// The directory that `path` is in, made when missing, and the last component.
    pub(crate) fn parent_of<'p>(
        &self,
        path: &'p Path,
    ) -> Result<(OwnedFd, &'p std::ffi::OsStr), Errno> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL);
        };
        Ok((self.get_or_make(parent, Make::Directory)?, name))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a directory entry is, itself and not what it links to; `None` when there is none.
pub(crate) fn entry(directory: impl AsFd, name: &std::ffi::OsStr) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether a file is a directory.
pub(crate) fn is_directory(file: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn image() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        let opened = Root::open(&root).unwrap();
        (dir, opened)
    }

    fn path_of(fd: &OwnedFd) -> PathBuf {
        use std::os::fd::AsRawFd;
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
    }

    #[test]
    fn no_symlink_leads_out() {
        let (dir, root) = image();
        symlink("../../secret", dir.path().join("root/etc/a")).unwrap();
        symlink(dir.path().join("secret"), dir.path().join("root/etc/b")).unwrap();
        for path in ["/etc/a", "/etc/b", "/../secret", "etc/../../secret"] {
            assert_eq!(
                root.get(Path::new(path), OFlags::PATH).err(),
                Some(Errno::NOENT),
                "{path}"
            );
        }
        let magic = Path::new("/proc/self/root");
        assert_eq!(
            Root::open("/").unwrap().get(magic, OFlags::PATH).err(),
            Some(Errno::LOOP)
        );
    }

    #[test]
    fn a_dangling_symlink_gets_its_target_made_inside() {
        let (dir, root) = image();
        symlink(
            "../run/x/resolv.conf",
            dir.path().join("root/etc/resolv.conf"),
        )
        .unwrap();
        let made = root
            .get_or_make(Path::new("/etc/resolv.conf"), Make::File)
            .unwrap();
        assert_eq!(path_of(&made), dir.path().join("root/run/x/resolv.conf"));
        symlink(
            "../../../../tmp/hull-escape",
            dir.path().join("root/etc/up"),
        )
        .unwrap();
        let made = root
            .get_or_make(Path::new("/etc/up"), Make::Directory)
            .unwrap();
        assert_eq!(path_of(&made), dir.path().join("root/tmp/hull-escape"));
    }

    #[test]
    fn symlinks_in_a_circle_end_in_an_error() {
        let (dir, root) = image();
        symlink("/b/x", dir.path().join("root/a")).unwrap();
        symlink("/a/x", dir.path().join("root/b")).unwrap();
        assert!(root.get_or_make(Path::new("/a"), Make::Directory).is_err());
    }

    #[test]
    fn missing_parents_are_made() {
        let (dir, root) = image();
        root.get_or_make(Path::new("/x/y/z"), Make::File).unwrap();
        assert!(dir.path().join("root/x/y/z").is_file());
        root.get_or_make(Path::new("/x/d/"), Make::Directory)
            .unwrap();
        assert!(dir.path().join("root/x/d").is_dir());
    }
}
