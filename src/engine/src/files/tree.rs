//! Removing a tree that a container may have made: of any depth and with any names.
//!
//! Directories are moved up to the top before they are emptied, so neither the stack nor the number of open files grows with
//! the depth, as it does where a walk goes down. No link is followed.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

/// Removes a directory with all that is in it; another file is removed as it is.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        top => top?,
    };
    let mut moved = 0;
    loop {
        let directories = unlink_files(&top)?;
        if directories.is_empty() {
            break;
        }
        for name in directories {
            let directory = open(&top, name.as_c_str())?;
            for below in unlink_files(&directory)? {
                move_up(&directory, &below, &top, &mut moved)?;
            }
            unlinkat(&top, name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

fn open(parent: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Removes what is in a directory but for the directories, whose names are the answer.
fn unlink_files(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        match kind {
            FileType::Directory => directories.push(name.to_owned()),
            _ => unlinkat(directory, name, AtFlags::empty())?,
        }
    }
    Ok(directories)
}

/// Moves a directory to the top, under a name that is free there.
fn move_up(from: &OwnedFd, name: &CString, top: &OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        match renameat_with(from, name, top, format!("{moved}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, tree) = (folder.path().join("outside"), folder.path().join("tree"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        // Names that a directory moved up would get.
        fs::create_dir_all(tree.join("1/1/2")).unwrap();
        fs::create_dir_all(tree.join("2/3")).unwrap();
        fs::write(tree.join("1/1/2/file"), "x").unwrap();
        symlink(&outside, tree.join("1/link")).unwrap();
        symlink("/nowhere", tree.join("dangling")).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        assert_eq!(remove(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_is_removed_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        let link = folder.path().join("link");
        symlink("outside", &link).unwrap();
        remove(&link).unwrap();
        assert!(folder.path().join("outside").exists() && !link.exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_and_than_any_limit_of_open_files_goes() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut deepest = open(CWD, &tree).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&deepest, "directory", Mode::from_raw_mode(0o700)).unwrap();
            deepest = open(&deepest, "directory").unwrap();
        }
        drop(deepest);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
