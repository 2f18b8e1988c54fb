//! A container's changes against its image: as an OCI layer, and as a list.

use std::io::{BufWriter, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use super::error::{Attempt, Error};
use super::tree::Tree;
use super::walk::{Walk, is_opaque, is_whiteout};
use super::{BUFFER_LEN, MAX_DEPTH, Stream, shown};
use crate::roots;

/// An image's layers and the changes to them.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// Where each layer is mounted, the lowest first.
    pub(crate) lowers: Vec<PathBuf>,
    /// overlayfs's upper directory.
    pub(crate) upper: PathBuf,
    /// A path where the image alone can be mounted.
    pub(crate) scratch: PathBuf,
}

/// Writes the changes as a layer to a stream.
pub(crate) fn diff(overlay: &Overlay, stream: BorrowedFd<'_>) -> Result<(), Error> {
    let inside = Tree::of(overlay.upper.clone(), None).enter()?;
    let root = inside.open("/", OFlags::PATH | OFlags::DIRECTORY);
    let root = root.on("open", b"/")?;
    let mut walk = Walk::new(&inside, stream, true);
    walk.whole(&root)?;
    walk.finish()
}

/// Writes the list of changes to a stream.
pub(crate) fn changes(overlay: &Overlay, stream: BorrowedFd<'_>) -> Result<(), Error> {
    let image = image(overlay)?;
    let inside = Tree::of(overlay.upper.clone(), None).enter()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let root = inside.open("/", flags).on("open", b"/")?;
    let buffered = BufWriter::with_capacity(BUFFER_LEN, Stream(stream));
    let mut list = List {
        image,
        to: buffered,
    };
    list.directory(&root, b"", false, 0)?;
    list.to.flush().map_err(Error::Send)?;
    list.to.get_ref().end();
    Ok(())
}

/// Mounts the image alone, in mounts of this process's own, and opens its root.
fn image(overlay: &Overlay) -> Result<OwnedFd, Error> {
    let mount = || {
        sys::private_mounts::enter().map_err(crate::failure::Refusal::Worker)?;
        crate::disks::make_dir(&overlay.scratch)?;
        roots::overlay(&overlay.lowers, None, &overlay.scratch)
    };
    mount().map_err(|refusal| Error::Image(Box::new(refusal)))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, &overlay.scratch, flags, Mode::empty()).on("open the image's", b"/")
}

struct List<'a> {
    image: OwnedFd,
    to: BufWriter<Stream<'a>>,
}

impl List<'_> {
    /// Lists the changes in a directory of the upper tree. `path` is empty or begins with a slash; in a directory that
    /// `is_new`, everything is.
    fn directory(
        &mut self,
        dir: &OwnedFd,
        path: &[u8],
        is_new: bool,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep(shown(path)));
        }
        let mut entries = Dir::read_from(dir).on("read", path)?;
        while let Some(child) = entries.read() {
            let child = child.on("read", path)?;
            let name = child.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let child_path = [path, b"/", name.to_bytes()].concat();
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match openat(dir, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                found => found.on("open", &child_path)?,
            };
            let stat = fstat(&found).on("look at", &child_path)?;
            let before = if is_new {
                None
            } else {
                self.before(&child_path)?
            };
            if is_whiteout(&stat) {
                if before.is_some() {
                    self.line(b'D', &child_path)?;
                }
                continue;
            }
            self.line(if before.is_some() { b'C' } else { b'A' }, &child_path)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let child = openat(&found, ".", flags, Mode::empty()).on("open", &child_path)?;
            if is_opaque(&child) && before.is_some() {
                self.hidden(&child, &child_path)?;
            }
            self.directory(&child, &child_path, before.is_none(), depth + 1)?;
        }
        Ok(())
    }

    /// Lists what the image has in a directory that was removed and made anew, and the new one has not.
    fn hidden(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(before) = self.open(path, flags)? else {
            return Ok(());
        };
        let mut entries = Dir::read_from(&before).on("read the image's", path)?;
        while let Some(child) = entries.read() {
            let child = child.on("read the image's", path)?;
            let name = child.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Err(Errno::NOENT) = openat(dir, name, flags, Mode::empty()) {
                self.line(b'D', &[path, b"/", name.to_bytes()].concat())?;
            }
        }
        Ok(())
    }

    /// What the image has at a path of the upper tree.
    fn before(&self, path: &[u8]) -> Result<Option<OwnedFd>, Error> {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<Option<OwnedFd>, Error> {
        let relative: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&path[1..]);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let found = openat2(
            &self.image,
            Path::new(relative),
            flags,
            Mode::empty(),
            resolve,
        );
        match found {
            Ok(found) => Ok(Some(found)),
            // Where the image has a link or a file on the way, it has nothing at this path.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno).on("look at the image's", path),
        }
    }

    fn line(&mut self, letter: u8, path: &[u8]) -> Result<(), Error> {
        let line = [&[letter, b' '][..], path, b"\0"].concat();
        self.to.write_all(&line).map_err(Error::Send)
    }
}
