//! Walking a tree of files into an archive.
//!
//! Every file is opened by its directory's descriptor, its kind is learned, and only then is it opened for reading: a
//! container may put something else in its place at any time. What vanishes meanwhile is left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxFlags, fgetxattr, flistxattr, fstat, major,
    minor, openat, readlinkat, statx,
};
use rustix::io::Errno;

use super::error::{Attempt, Error};
use super::tar::{Entry, Kind, Writer};
use super::tree::{Inside, check, last_part};
use super::{BUFFER_LEN, MAX_DEPTH, Stream};

/// Files of several links that are remembered; of more, each link becomes a file of its own.
const MAX_LINKS: usize = 1 << 20;
/// Bytes of an extended attribute, and of a file's list of their names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const MAX_XATTR_LEN: usize = 64 << 10;
/// What a container's files have that is not theirs: overlayfs's own, and the labels of the machine's security modules.
const FOREIGN_XATTRS: [&[u8]; 4] = [
    b"trusted.overlay.",
    b"user.overlay.",
    b"security.selinux",
    b"security.SMACK",
];
const OPAQUE: &str = "trusted.overlay.opaque";
const REDIRECT: &str = "trusted.overlay.redirect";

/// Writes an archive of what is at an absolute path to a stream.
pub(crate) fn archive(
    inside: &Inside,
    path: &str,
    follow: bool,
    stream: BorrowedFd<'_>,
) -> Result<(), Error> {
    check(path)?;
    let flags = if follow {
        OFlags::PATH
    } else {
        OFlags::PATH | OFlags::NOFOLLOW
    };
    let top = inside.open(path, flags).on("find", path.as_bytes())?;
    let mut walk = Walk::new(inside, stream, false);
    match last_part(path) {
        // The whole root: what is in it, and nothing that is mounted there.
        None => walk.whole(&top)?,
        Some(name) => walk.add(top, name.as_bytes().to_vec(), 0)?,
    }
    walk.finish()
}

/// A walk, and where it is written to.
pub(super) struct Walk<'a> {
    inside: &'a Inside,
    writer: Writer<BufWriter<Stream<'a>>>,
    /// Files of several links: where each is in the archive.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    /// The mount that is not left, if that matters.
    mount: Option<u64>,
    /// The tree is an overlay's upper directory: what overlayfs marks as deleted becomes a whiteout.
    is_upper: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(inside: &'a Inside, stream: BorrowedFd<'a>, is_upper: bool) -> Walk<'a> {
        let buffered = BufWriter::with_capacity(BUFFER_LEN, Stream(stream));
        Walk {
            inside,
            writer: Writer::new(buffered),
            links: BTreeMap::new(),
            mount: None,
            is_upper,
        }
    }

    /// Adds all that is in the root.
    pub(super) fn whole(&mut self, root: &OwnedFd) -> Result<(), Error> {
        self.mount = mount_of(root.as_fd());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(root, ".", flags, Mode::empty()).on("open", b"/")?;
        self.children(&dir, &[], 0)
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        let mut buffered = self.writer.finish().map_err(Error::Send)?;
        buffered.flush().map_err(Error::Send)?;
        buffered.get_ref().end();
        Ok(())
    }

    /// Adds a file, given by an O_PATH descriptor, and what is in it.
    fn add(&mut self, found: OwnedFd, name: Vec<u8>, depth: usize) -> Result<(), Error> {
        let stat = fstat(&found).on("look at", &name)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(&found, name, &stat, depth),
            FileType::RegularFile => self.file(&found, &name, &stat),
            FileType::Symlink => {
                let target = readlinkat(&found, "", Vec::new()).on("read the link", &name)?;
                let link = target.as_bytes();
                self.plain(&name, Kind::Symlink, &stat, link)
            }
            FileType::CharacterDevice => self.plain(&name, Kind::CharacterDevice, &stat, b""),
            FileType::BlockDevice => self.plain(&name, Kind::BlockDevice, &stat, b""),
            FileType::Fifo => self.plain(&name, Kind::Fifo, &stat, b""),
            // An archive has no sockets, and no process listens at an unpacked one.
            _ => Ok(()),
        }
    }

    fn directory(
        &mut self,
        found: &OwnedFd,
        mut name: Vec<u8>,
        stat: &Stat,
        depth: usize,
    ) -> Result<(), Error> {
        if depth >= MAX_DEPTH {
            return Err(Error::TooDeep(super::shown(&name)));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(found, ".", flags, Mode::empty()).on("open", &name)?;
        let xattrs = xattrs(&dir);
        name.push(b'/');
        self.write(&Entry {
            xattrs: &xattrs,
            ..entry(&name, Kind::Directory, stat)
        })?;
        if self.is_upper {
            if has_xattr(&dir, REDIRECT) {
                return Err(Error::Redirected(super::shown(&name)));
            }
            if has_xattr(&dir, OPAQUE) {
                self.whiteout(&[&name[..], b".wh..wh..opq"].concat())?;
            }
        }
        if self.mount.is_some() && mount_of(dir.as_fd()) != self.mount {
            return Ok(());
        }
        self.children(&dir, &name, depth + 1)
    }

    /// Adds what is in a directory; `name` is empty or ends in a slash.
    fn children(&mut self, dir: &OwnedFd, name: &[u8], depth: usize) -> Result<(), Error> {
        let mut entries = Dir::read_from(dir).on("read", name)?;
        while let Some(child) = entries.read() {
            let child = child.on("read", name)?;
            let child = child.file_name();
            if matches!(child.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = [name, child.to_bytes()].concat();
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match openat(dir, child, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                found => found.on("open", &path)?,
            };
            if self.is_upper {
                if is_whiteout(&fstat(&found).on("look at", &path)?) {
                    let whiteout = [name, b".wh.", child.to_bytes()].concat();
                    self.whiteout(&whiteout)?;
                    continue;
                }
                if child.to_bytes().starts_with(b".wh.") {
                    return Err(Error::Whiteout(super::shown(&path)));
                }
            }
            self.add(found, path, depth)?;
        }
        Ok(())
    }

    fn file(&mut self, found: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Error> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key).cloned() {
                return self.plain(name, Kind::HardLink, stat, &first);
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(key, name.to_vec());
            }
        }
        let file = self.inside.reopen(found, OFlags::RDONLY | OFlags::NOCTTY);
        let file = file.on("open", name)?;
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        self.write(&Entry {
            len,
            xattrs: &xattrs(&file),
            ..entry(name, Kind::File, stat)
        })?;
        self.writer.content(File::from(file), len).on("send", name)
    }

    fn plain(&mut self, name: &[u8], kind: Kind, stat: &Stat, link: &[u8]) -> Result<(), Error> {
        self.write(&Entry {
            link,
            ..entry(name, kind, stat)
        })
    }

    /// An empty file whose name says what was deleted (OCI image-spec, layer.md, "Whiteouts").
    fn whiteout(&mut self, name: &[u8]) -> Result<(), Error> {
        self.write(&Entry {
            name,
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            len: 0,
            modified_s: 0,
            link: b"",
            device: (0, 0),
            xattrs: &[],
        })
    }

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        self.writer.entry(entry).map_err(Error::Send)
    }
}

fn entry<'n>(name: &'n [u8], kind: Kind, stat: &Stat) -> Entry<'n> {
    Entry {
        name,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        len: 0,
        modified_s: stat.st_mtime,
        link: b"",
        device: (major(stat.st_rdev), minor(stat.st_rdev)),
        xattrs: &[],
    }
}

/// What overlayfs leaves where something was deleted (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
/// directories").
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether nothing of the layers below shows in a directory.
pub(super) fn is_opaque(dir: &OwnedFd) -> bool {
    has_xattr(dir, OPAQUE)
}

fn has_xattr(file: &OwnedFd, name: &str) -> bool {
    let mut value = [0; 256];
    match fgetxattr(file, name, &mut value) {
        Ok(len) => name != OPAQUE || value.get(..len) == Some(b"y"),
        Err(_) => false,
    }
}

/// A file's extended attributes, as far as they are the container's. A file system without any has none.
fn xattrs(file: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; MAX_XATTR_LEN];
    let len = match flistxattr(file, &mut names) {
        Ok(0) | Err(_) => return Vec::new(),
        Ok(len) => len,
    };
    let names = names[..len].split(|byte| *byte == 0);
    let ours = names.filter(|name| {
        !name.is_empty()
            && !FOREIGN_XATTRS
                .iter()
                .any(|foreign| name.starts_with(foreign))
    });
    let mut value = vec![0; MAX_XATTR_LEN];
    ours.filter_map(|name| {
        let len = fgetxattr(file, name, &mut value).ok()?;
        Some((name.to_vec(), value[..len].to_vec()))
    })
    .collect()
}

/// The mount that a file is on, where the kernel tells.
fn mount_of(file: BorrowedFd<'_>) -> Option<u64> {
    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    StatxFlags::from_bits_retain(found.stx_mask)
        .contains(StatxFlags::MNT_ID)
        .then_some(found.stx_mnt_id)
}
