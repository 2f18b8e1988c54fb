//! A directory's content in memory: a tmpfs that takes its place.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat,
    mknodat, openat, readlinkat, sendfile, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::mounts::move_onto;

/// How much is copied in one call, in bytes.
const COPY_LEN: usize = 1 << 20;
/// The longest extended attribute, and the longest list of their names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const MAX_ATTRIBUTE_LEN: usize = 64 << 10;

/// Mounts a tmpfs with a directory's content, mode and owner on the directory.
pub(crate) fn into_memory(directory: OwnedFd) -> Result<(), Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let to = openat(
        &mount,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    copy_directory(directory.as_fd(), to.as_fd())?;
    move_onto(mount, directory)
}

/// Copies what is in a directory, and the directory's own attributes. Hard links become files of their own.
pub(crate) fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name)?;
        }
    }
    copy_attributes(from, to, &fstat(from)?)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let private = Mode::from_raw_mode(0o700);
    let open = |directory, flags| {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        openat(directory, name, flags, private)
    };
    match kind {
        FileType::Directory => {
            mkdirat(to, name, private)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            copy_directory(open(from, flags)?.as_fd(), open(to, flags)?.as_fd())
        }
        FileType::RegularFile => {
            let source = open(from, OFlags::RDONLY)?;
            let copy = open(to, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
            copy_content(&source, &copy)?;
            copy_attributes(source.as_fd(), copy.as_fd(), &stat)
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(&target, to, name)?;
            let (uid, gid) = owner(&stat);
            chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        }
        kind => {
            mknodat(to, name, kind, private, stat.st_rdev)?;
            let (uid, gid) = owner(&stat);
            chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            // Of a node that was just made here: no symlink is in the way.
            chmodat(
                to,
                name,
                Mode::from_raw_mode(stat.st_mode & 0o7777),
                AtFlags::empty(),
            )
        }
    }
}

fn copy_content(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    while sendfile(to, from, None, COPY_LEN)? > 0 {}
    Ok(())
}

/// Owner, permissions, extended attributes and time of the last change.
pub(crate) fn copy_attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    fchown(to, uid, gid)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_extended_attributes(from, to)?;
    let modified = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as i64,
    };
    let times = Timestamps {
        last_access: modified,
        last_modification: modified,
    };
    futimens(to, &times)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    (Some(uid), Some(gid))
}

/// Those that a tmpfs can have; the others are left out.
fn copy_extended_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = vec![0; MAX_ATTRIBUTE_LEN];
    let mut value = vec![0; MAX_ATTRIBUTE_LEN];
    let len = match flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        len => len?,
    };
    for name in names[..len].split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let len = match fgetxattr(from, name, &mut value[..]) {
            Err(Errno::OPNOTSUPP | Errno::NODATA) => continue,
            len => len?,
        };
        match fsetxattr(to, name, &value[..len], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_tree_is_copied_with_its_links_modes_and_times() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            from.join("fifo"),
            Mode::from_raw_mode(0o600),
        )
        .unwrap();
        copy_directory(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b/file")).unwrap(), "text");
        assert_eq!(
            fs::read_link(to.join("link")).unwrap().to_str(),
            Some("/nowhere")
        );
        for name in ["", "a/b/file", "fifo"] {
            let (a, b) = (
                fs::metadata(from.join(name)).unwrap(),
                fs::metadata(to.join(name)).unwrap(),
            );
            assert_eq!((a.mode(), a.uid()), (b.mode(), b.uid()), "{name}");
            assert!(name == "fifo" || a.mtime() == b.mtime(), "{name}");
        }
    }
}
