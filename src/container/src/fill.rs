//! The content of the image in a volume that is empty, as Docker has it: copied by the container's process, before the
//! volume is mounted over it. So it costs the container's memory and time, the same in a VM and natively, and nothing
//! outside reads the image.
//!
//! ```text
//! empty --> .hull-filling/ made --> the image's content copied into it --> renamed .hull-filled/
//!       --> each entry moved up --> owner, mode and time of the directory --> .hull-filled/ removed
//! ```
//!
//! Invariants: a volume's lock (flock on its directory) is held meanwhile, so of two containers that start at once one
//! fills it and the other waits; whatever is killed, the next start goes on or begins again; what a container has written
//! into a volume is never removed, nor replaced (lifecycle H25).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;

use crate::copy::{copy_attributes, copy_directory};

/// What is being copied.
const FILLING: &CStr = c".hull-filling";
/// What was copied whole, and is being moved to its place.
const FILLED: &CStr = c".hull-filled";

/// Gives a volume the content of `image`, a directory, if it is empty.
pub(crate) fn fill(volume: BorrowedFd<'_>, image: BorrowedFd<'_>) -> Result<(), Errno> {
    let volume = open(volume, c".")?;
    if !has(&volume, FILLED)? && !is_empty(&volume)? {
        return Ok(());
    }
    lock(&volume)?;
    if !has(&volume, FILLED)? {
        remove(volume.as_fd(), FILLING)?;
        if !is_empty(&volume)? {
            return Ok(());
        }
        match mkdirat(&volume, FILLING, Mode::from_raw_mode(0o700)) {
            // The share is mounted read-only in this machine: nothing can be put into it from here.
            Err(Errno::ROFS) => return Ok(()),
            made => made?,
        }
        copy_directory(image, open(&volume, FILLING)?.as_fd())?;
        renameat(&volume, FILLING, &volume, FILLED)?;
    }
    let copied = open(&volume, FILLED)?;
    for name in names(&copied)? {
        if !has(&volume, &name)? {
            renameat(&copied, &name, &volume, &name)?;
        }
    }
    remove(volume.as_fd(), FILLED)?;
    copy_attributes(image, volume.as_fd(), &fstat(image)?)
}

fn lock(directory: &OwnedFd) -> Result<(), Errno> {
    loop {
        match flock(directory, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            // A file system without locks is not one that two containers fill at once.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

fn open(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

fn has(directory: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether nothing is in a volume but what a killed copy left.
fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if ![c".", c"..", FILLING].contains(&entry.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn names(directory: impl AsFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes a directory with what is in it; follows no link.
fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let directory = match open(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    for name in names(&directory)? {
        let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => remove(directory.as_fd(), &name)?,
            _ => unlinkat(&directory, &name, AtFlags::empty())?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::{Path, PathBuf};

    use super::*;

    /// A volume, and an image with two files in it.
    fn places() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (volume, image) = (dir.path().join("volume"), dir.path().join("image"));
        fs::create_dir(&volume).unwrap();
        fs::create_dir_all(image.join("sub")).unwrap();
        fs::write(image.join("one"), "1").unwrap();
        fs::write(image.join("sub/two"), "2").unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o1770)).unwrap();
        (dir, volume, image)
    }

    fn filled(volume: &Path, image: &Path) -> Vec<String> {
        let open = |path: &Path| fs::File::open(path).unwrap();
        fill(open(volume).as_fd(), open(image).as_fd()).unwrap();
        let entries = fs::read_dir(volume).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    #[test]
    fn an_empty_volume_gets_the_image_s_content_and_the_directory_s_mode() {
        let (_dir, volume, image) = places();
        assert_eq!(filled(&volume, &image), ["one", "sub"]);
        assert_eq!(fs::read_to_string(volume.join("sub/two")).unwrap(), "2");
        let (of_volume, of_image) = (volume.metadata().unwrap(), image.metadata().unwrap());
        assert_eq!(of_volume.mode(), of_image.mode());
        assert_eq!(of_volume.mtime(), of_image.mtime());
    }

    #[test]
    fn a_volume_with_anything_in_it_is_left_alone() {
        let (_dir, volume, image) = places();
        fs::write(volume.join("mine"), "x").unwrap();
        let mode = volume.metadata().unwrap().mode();
        assert_eq!(filled(&volume, &image), ["mine"]);
        assert_eq!(volume.metadata().unwrap().mode(), mode);
    }

    #[test]
    fn what_is_deleted_does_not_come_back_unless_all_of_it_is() {
        let (_dir, volume, image) = places();
        filled(&volume, &image);
        fs::remove_file(volume.join("one")).unwrap();
        assert_eq!(filled(&volume, &image), ["sub"]);
        fs::remove_dir_all(volume.join("sub")).unwrap();
        assert_eq!(filled(&volume, &image), ["one", "sub"]);
    }

    #[test]
    fn a_copy_that_was_killed_is_begun_again() {
        let (_dir, volume, image) = places();
        fs::create_dir_all(volume.join(".hull-filling/sub")).unwrap();
        fs::write(volume.join(".hull-filling/half"), "").unwrap();
        assert_eq!(filled(&volume, &image), ["one", "sub"]);
    }

    #[test]
    fn a_move_that_was_killed_goes_on_and_replaces_nothing() {
        let (_dir, volume, image) = places();
        fs::create_dir(volume.join(".hull-filled")).unwrap();
        fs::write(volume.join(".hull-filled/one"), "1").unwrap();
        fs::write(volume.join(".hull-filled/three"), "3").unwrap();
        fs::write(volume.join("one"), "mine").unwrap();
        assert_eq!(filled(&volume, &image), ["one", "three"]);
        assert_eq!(fs::read_to_string(volume.join("one")).unwrap(), "mine");
    }

    #[test]
    fn what_was_written_beside_a_killed_copy_is_not_touched() {
        let (_dir, volume, image) = places();
        fs::create_dir(volume.join(".hull-filling")).unwrap();
        fs::write(volume.join("mine"), "x").unwrap();
        assert_eq!(filled(&volume, &image), [".hull-filling", "mine"]);
    }

    #[test]
    fn of_two_that_fill_at_once_one_does_and_both_see_all() {
        let (_dir, volume, image) = places();
        for number in 0..200 {
            fs::write(image.join(format!("file{number}")), "x").unwrap();
        }
        std::thread::scope(|scope| {
            let fill = || filled(&volume, &image).len();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(fill)).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), 202);
            }
        });
    }
}
