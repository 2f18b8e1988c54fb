//! Files of an archive by name, without unpacking: of a folder or an indexed tar.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::Error;
use super::tar_index::TarIndex;

/// An archive, open.
pub(super) enum Contents {
    Folder(Folder),
    Tar(TarIndex, File),
}

/// A folder. Its files are opened beneath it, and no links are followed.
pub(super) struct Folder {
    folder: File,
    path: PathBuf,
}

/// A file of an archive, and its size.
pub(super) type Opened<'a> = (Box<dyn Read + 'a>, u64);

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Folder, Error> {
        let folder = File::open(path).map_err(Error::reading(path))?;
        Ok(Folder {
            folder,
            path: path.to_owned(),
        })
    }

    fn file(&self, name: &str) -> Result<Option<File>, Error> {
        // Non-blocking, so that opening a fifo does not wait; it has no effect on a regular file.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(&self.folder, name, flags, Mode::empty(), resolve) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::XDEV) => {
                return Err(Error::UnsafeName {
                    name: name.chars().take(200).collect(),
                });
            }
            Err(error) => return Err(Error::reading(&self.path.join(name))(error.into())),
        };
        let regular = file
            .metadata()
            .map_err(Error::reading(&self.path.join(name)))?
            .is_file();
        Ok(regular.then_some(file))
    }
}

impl Contents {
    /// Opens a file of the archive; `None` if there is none of this name.
    pub(super) fn open(&self, name: &str) -> Result<Option<Opened<'_>>, Error> {
        match self {
            Contents::Folder(folder) => {
                let Some(file) = folder.file(name)? else {
                    return Ok(None);
                };
                let size = file
                    .metadata()
                    .map_err(Error::reading(&folder.path.join(name)))?
                    .len();
                Ok(Some((Box::new(file.take(size)), size)))
            }
            Contents::Tar(index, file) => Ok(index.find(name).map(|(offset, size)| {
                (
                    Box::new(Section {
                        file,
                        offset,
                        left: size,
                    }) as Box<dyn Read>,
                    size,
                )
            })),
        }
    }

    /// Reads a whole file of the archive, of at most `max` bytes.
    pub(super) fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((mut reader, bytes)) = self.open(name)? else {
            return Ok(None);
        };
        if bytes > max {
            return Err(Error::TooLarge {
                name: name.to_owned(),
                bytes,
                max,
            });
        }
        let mut contents = Vec::new();
        reader
            .read_to_end(&mut contents)
            .map_err(Error::reading(Path::new(name)))?;
        match contents.len() as u64 == bytes {
            true => Ok(Some(contents)),
            false => {
                let actual = contents.len() as u64;
                Err(Error::Size {
                    name: name.to_owned(),
                    expected: bytes,
                    actual,
                })
            }
        }
    }

    /// As [`Contents::read`], but a missing file is an error.
    pub(super) fn require(&self, name: &str, max: u64) -> Result<Vec<u8>, Error> {
        self.read(name, max)?.ok_or_else(|| Error::Missing {
            name: name.to_owned(),
        })
    }
}

/// A part of a file.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..length], self.offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
