//! Unpacking an archive below a directory.
//!
//! Names are taken part by part from the directory on; a link on the way leads wherever it leads inside the container's root,
//! which is this process's own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat,
    fchmod, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::error::{Attempt, Error};
use super::tree::{Inside, check, open_from};
use super::untar::{Header, Reader};
use super::{BUFFER_LEN, MAX_DEPTH, Stream, shown};

/// Directories that get their time at the end, when nothing more is made in them.
const MAX_DIRS: usize = 100_000;

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Keep the archive's owners.
    pub(crate) owners: bool,
    /// Refuse to replace a directory by another kind of file and the reverse.
    pub(crate) no_overwrite_kind: bool,
}

/// Unpacks the archive that comes over a stream below an absolute path.
pub(crate) fn extract(
    inside: &Inside,
    path: &str,
    options: Options,
    stream: BorrowedFd<'_>,
) -> Result<(), Error> {
    check(path)?;
    let top = match inside.open(path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOTDIR) => return Err(Error::NotADirectory(path.into())),
        top => top.on("find", path.as_bytes())?,
    };
    let buffered = io::BufReader::with_capacity(BUFFER_LEN, Stream(stream));
    let mut reader = Reader::new(buffered);
    let mut target = Target {
        top,
        options,
        parent: None,
        dirs: Vec::new(),
    };
    while let Some(header) = reader.next()? {
        target.put(&header, &mut reader)?;
    }
    target.finish();
    Stream(stream).end();
    Ok(())
}

/// Where an archive is unpacked.
struct Target {
    top: OwnedFd,
    options: Options,
    /// The directory of the last entry, by its name.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories and their times.
    dirs: Vec<(Vec<u8>, i64)>,
}

impl Target {
    fn put(&mut self, header: &Header, content: &mut impl Read) -> Result<(), Error> {
        let bad = || Error::BadName(shown(&header.name));
        let parts = parts(&header.name).ok_or_else(bad)?;
        // The directory itself stays as it is.
        let Some((last, above)) = parts.split_last() else {
            return Ok(());
        };
        let parent = self.parent(above)?;
        let name = Path::new(as_os_str(last));
        let is_dir = header.kind == b'5';
        self.make_way(&parent, name, header, is_dir)?;
        match header.kind {
            b'0' | 0 | b'7' => {
                let file = create(&parent, name, header)?;
                let mut file = File::from(file);
                copy(content, &mut file, &header.name)?;
                self.finish_file(&file, header)?;
            }
            b'5' => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = openat(&parent, name, flags, Mode::empty()).on("open", &header.name)?;
                self.finish_file(&dir, header)?;
                if self.dirs.len() < MAX_DIRS {
                    self.dirs.push((parts.join(&b'/'), header.modified_s));
                }
            }
            b'1' => self.hard_link(&parent, name, header)?,
            b'2' => {
                let link = as_os_str(&header.link);
                symlinkat(link, &parent, name).on("make the link", &header.name)?;
                self.own(&parent, name, header)?;
            }
            b'3' | b'4' | b'6' => {
                let kind = match header.kind {
                    b'3' => FileType::CharacterDevice,
                    b'4' => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = makedev(header.device.0, header.device.1);
                let mode = Mode::from_raw_mode(header.mode);
                mknodat(&parent, name, kind, mode, device).on("make", &header.name)?;
                self.own(&parent, name, header)?;
            }
            kind => {
                return Err(Error::UnknownKind {
                    name: shown(&header.name),
                    kind: kind.into(),
                });
            }
        }
        Ok(())
    }

    /// Removes what is in the way of an entry; a directory is made, or stays.
    fn make_way(
        &mut self,
        parent: &OwnedFd,
        name: &Path,
        header: &Header,
        is_dir: bool,
    ) -> Result<(), Error> {
        let was_dir = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).on("look at", &header.name),
        };
        if was_dir.is_some_and(|was_dir| was_dir != is_dir) && self.options.no_overwrite_kind {
            return Err(Error::OtherKind(shown(&header.name)));
        }
        match was_dir {
            Some(true) if is_dir => return Ok(()),
            Some(true) => {
                self.parent = None;
                remove(parent, name, 0).on("replace", &header.name)?;
            }
            Some(false) => unlinkat(parent, name, AtFlags::empty()).on("replace", &header.name)?,
            None => {}
        }
        if is_dir {
            mkdirat(parent, name, Mode::RWXU).on("make", &header.name)?;
        }
        Ok(())
    }

    /// The directory of these parts, made where it is missing.
    fn parent(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, Error> {
        let path = parts.join(&b'/');
        let last = self.parent.as_ref().filter(|(known, _)| *known == path);
        let found = match last {
            Some((_, dir)) => Ok(dir.try_clone()),
            None => self.directory(&path).map(Ok),
        };
        let dir = match found {
            Ok(dir) => dir.on("open", &path)?,
            Err(Errno::NOENT) => {
                let (name, above) = parts.split_last().expect("the top is there");
                let above = self.parent(above)?;
                let name = Path::new(as_os_str(name));
                match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                    // A link that leads nowhere, say.
                    Err(Errno::EXIST) => return Err(Errno::NOENT).on("find", &path),
                    made => made.on("make", &path)?,
                }
                self.directory(&path).on("open", &path)?
            }
            Err(errno) => return Err(errno).on("find", &path),
        };
        self.parent = Some((path.clone(), dir.try_clone().on("open", &path)?));
        Ok(dir)
    }

    fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        open_from(&self.top, Path::new(as_os_str(path)), flags)
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &Path, header: &Header) -> Result<(), Error> {
        let bad = || Error::BadName(shown(&header.link));
        let target = parts(&header.link).ok_or_else(bad)?;
        let (last, above) = target.split_last().ok_or_else(bad)?;
        let above = self
            .directory(&above.join(&b'/'))
            .on("find", &header.link)?;
        let last = Path::new(as_os_str(last));
        linkat(&above, last, parent, name, AtFlags::empty()).on("link", &header.name)
    }

    fn owner(&self, header: &Header) -> (Uid, Gid) {
        if self.options.owners {
            (Uid::from_raw(header.uid), Gid::from_raw(header.gid))
        } else {
            (Uid::ROOT, Gid::ROOT)
        }
    }

    /// Gives a file or directory its owner, permissions, attributes and time.
    fn finish_file(&self, file: impl AsFd, header: &Header) -> Result<(), Error> {
        let (uid, gid) = self.owner(header);
        rustix::fs::fchown(&file, Some(uid), Some(gid)).on("own", &header.name)?;
        // After the owner, whose change takes some of them away.
        fchmod(&file, Mode::from_raw_mode(header.mode)).on("set the mode of", &header.name)?;
        for (name, value) in &header.xattrs {
            let result = fsetxattr(&file, &name[..], value, rustix::fs::XattrFlags::empty());
            match result {
                // Not every file system has them.
                Err(Errno::OPNOTSUPP) => {}
                result => result.on("set an attribute of", &header.name)?,
            }
        }
        futimens(&file, &times(header.modified_s)).on("set the time of", &header.name)
    }

    /// Gives what cannot be opened its owner and time.
    fn own(&self, parent: &OwnedFd, name: &Path, header: &Header) -> Result<(), Error> {
        let (uid, gid) = self.owner(header);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(parent, name, Some(uid), Some(gid), flags).on("own", &header.name)?;
        utimensat(parent, name, &times(header.modified_s), flags)
            .on("set the time of", &header.name)
    }

    /// Sets the times of directories, which making something in them has changed.
    fn finish(self) {
        for (path, modified_s) in self.dirs.iter().rev() {
            let path = Path::new(as_os_str(path));
            // One that has been replaced meanwhile is not looked for.
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let _ = utimensat(&self.top, path, &times(*modified_s), flags);
        }
    }
}

fn create(parent: &OwnedFd, name: &Path, header: &Header) -> Result<OwnedFd, Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o600)).on("make", &header.name)
}

fn copy(from: &mut impl Read, to: &mut File, name: &[u8]) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => to.write_all(&buffer[..len]).on("write", name)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Receive(error)),
        }
    }
}

/// Removes a directory and what is in it.
fn remove(parent: &OwnedFd, name: &Path, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(parent, name, flags, Mode::empty())?;
    let mut entries = Dir::read_from(&dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let child = Path::new(as_os_str(entry.file_name().to_bytes()));
        match unlinkat(&dir, child, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove(&dir, child, depth + 1)?,
            result => result?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn times(modified_s: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified_s,
            tv_nsec: 0,
        },
    }
}

/// A name's parts; `None` for one that leads up.
pub(super) fn parts(name: &[u8]) -> Option<Vec<&[u8]>> {
    let parts = name.split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !matches!(*part, b"" | b"."));
    parts
        .map(|part| (part != b".." && !part.contains(&0)).then_some(part))
        .collect()
}

/// Bytes as the path that they are.
fn as_os_str(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_down_only() {
        assert_eq!(parts(b"/a//b/./c/"), Some(vec![&b"a"[..], b"b", b"c"]));
        assert_eq!(parts(b"./"), Some(vec![]));
        assert_eq!(parts(b"a/../b"), None);
        assert_eq!(parts(b".."), None);
    }
}
