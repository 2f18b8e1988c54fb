//! Builds the tree of a layer from its tar's entries, in their order.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek, Write};

use crate::erofs::{
    Density, Device, FileData, Inode, InodeId, Kind, Metadata, Tree, Writer, XattrError, Xattrs,
};

use super::lower::LowerLayers;
use super::path::{MAX_PATH, Problem, components};
use super::sparse::Segment;
use super::tar::{Entry, EntryKind, TarReader};
use super::{Error, Limits, Unit, path_of};

/// What whiteouts' names begin with (image-spec, layer.md).
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// What AUFS's own files begin with; one name of these is the opaque whiteout.
const AUFS: &[u8] = b".wh..wh.";
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// The permissions of every symlink on Linux (symlink(7)); those in the tar are ignored.
const SYMLINK_PERMISSIONS: u16 = 0o777;
/// Data passes through a buffer of this size.
pub(super) const COPY_BUFFER: usize = 128 << 10;

/// Writes the data of entries as they come and collects their metadata.
#[derive(Debug)]
pub(super) struct Builder<'a, W> {
    pub(super) writer: Writer<W>,
    pub(super) tree: Tree,
    pub(super) lower: &'a LowerLayers,
    pub(super) limits: &'a Limits,
    /// Names, by directory, that hide entries of lower layers.
    pub(super) hidden: BTreeSet<(InodeId, Box<[u8]>)>,
    /// Directories that hide the contents of those of lower layers.
    pub(super) opaque: BTreeSet<InodeId>,
    /// Files that were copied from lower layers, by path.
    pub(super) copied: HashMap<Vec<u8>, InodeId>,
    /// Targets of the lower layers' symlinks that paths led through, by path.
    pub(super) lower_symlinks: HashMap<Vec<u8>, Box<[u8]>>,
    /// The tar has an entry for the root.
    pub(super) names_root: bool,
    pub(super) entries: u64,
    pub(super) metadata_bytes: u64,
    pub(super) dropped_xattrs: u64,
    pub(super) depends_on_lower: bool,
    pub(super) buffer: Vec<u8>,
}

impl<'a, W: Write + Seek> Builder<'a, W> {
    pub(super) fn new(
        output: W,
        lower: &'a LowerLayers,
        limits: &'a Limits,
    ) -> Result<Self, Error> {
        Ok(Builder {
            writer: Writer::new(output, limits.image_bytes)?,
            tree: Tree::new(implied_directory()),
            lower,
            limits,
            hidden: BTreeSet::new(),
            opaque: BTreeSet::new(),
            copied: HashMap::new(),
            lower_symlinks: HashMap::new(),
            names_root: false,
            entries: 0,
            metadata_bytes: 0,
            dropped_xattrs: 0,
            depends_on_lower: false,
            buffer: vec![0; COPY_BUFFER],
        })
    }

    /// Adds an entry, reading its data from the tar.
    pub(super) fn add<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R>,
    ) -> Result<(), Error> {
        let components = components(&entry.path).map_err(|problem| refused(entry, problem))?;
        let Some((&name, parents)) = components.split_last() else {
            if !matches!(entry.kind, EntryKind::Directory) {
                return Err(refused(entry, Problem::Root));
            }
            self.tree.inode_mut(Tree::ROOT).metadata = self.metadata(entry)?;
            self.names_root = true;
            return Ok(());
        };
        if components[0].starts_with(AUFS) && components[0] != OPAQUE {
            return Ok(());
        }
        if parents.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(refused(entry, Problem::Whiteout));
        }
        let dir = self.directory(parents, entry)?;
        if name == OPAQUE {
            self.opaque.insert(dir);
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT) {
                return Err(refused(entry, Problem::Whiteout));
            }
            self.charge(hidden.len())?;
            self.hidden.insert((dir, hidden.into()));
        } else if let Some(known) = self.directory_again(entry, dir, name) {
            self.charge(0)?;
            self.tree.inode_mut(known).metadata = self.metadata(entry)?;
        } else {
            self.charge(name.len())?;
            let id = self.inode(entry, tar)?;
            self.tree.link(dir, name, id);
        }
        Ok(())
    }

    /// The directory that an entry for a directory finds at its path.
    fn directory_again(&self, entry: &Entry, dir: InodeId, name: &[u8]) -> Option<InodeId> {
        let known = self.tree.child(dir, name)?;
        (matches!(entry.kind, EntryKind::Directory) && self.tree.names(known).is_some())
            .then_some(known)
    }

    /// The inode for an entry: a new one, or a hard link's.
    fn inode<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<InodeId, Error> {
        let device =
            |major, minor| Device::new(major, minor).ok_or_else(|| refused(entry, Problem::Device));
        let kind = match &entry.kind {
            EntryKind::HardLink(target) => return self.hard_link(entry, target),
            EntryKind::Directory => Kind::Directory(Default::default()),
            EntryKind::File { size, segments } => {
                if *size > FileData::MAX_SIZE {
                    return Err(refused(entry, Problem::FileSize));
                }
                self.file(*size, segments.as_deref(), tar)?
            }
            EntryKind::Symlink(target) => {
                if target.is_empty() || target.len() >= MAX_PATH || target.contains(&0) {
                    return Err(refused(entry, Problem::Target));
                }
                self.charge_bytes(target.len())?;
                Kind::Symlink(target.as_slice().into())
            }
            EntryKind::CharDevice(major, minor) => Kind::CharDevice(device(*major, *minor)?),
            EntryKind::BlockDevice(major, minor) => Kind::BlockDevice(device(*major, *minor)?),
            EntryKind::Fifo => Kind::Fifo,
        };
        let mut metadata = self.metadata(entry)?;
        if matches!(kind, Kind::Symlink(_)) {
            metadata.permissions = SYMLINK_PERMISSIONS;
        }
        Ok(self.tree.add(Inode { metadata, kind }))
    }

    /// Writes a file's data as it comes.
    fn file<R: Read>(
        &mut self,
        size: u64,
        segments: Option<&[Segment]>,
        tar: &mut TarReader<R>,
    ) -> Result<Kind, Error> {
        let (density, whole) = match segments {
            Some(_) => (Density::Sparse, [Segment { offset: 0, len: 0 }]),
            None => (
                Density::Dense,
                [Segment {
                    offset: 0,
                    len: size,
                }],
            ),
        };
        let mut file = self.writer.file(size, density);
        let mut position = 0;
        for segment in segments.unwrap_or(&whole) {
            file.skip(segment.offset - position)?;
            let mut left = segment.len;
            while left > 0 {
                let len = left.min(COPY_BUFFER as u64) as usize;
                let read = tar.read(&mut self.buffer[..len])?;
                file.write(&self.buffer[..read])?;
                left -= read as u64;
            }
            position = segment.offset + segment.len;
        }
        file.skip(size - position)?;
        let data = file.finish()?;
        tar.record(&data, segments.unwrap_or(&whole))?;
        Ok(Kind::File(data))
    }

    /// Whether this layer hides what the lower ones have under this name.
    pub(super) fn hides(&self, dir: InodeId, name: &[u8]) -> bool {
        // Most layers have no whiteouts: no key needs to be allocated then.
        self.opaque.contains(&dir)
            || !self.hidden.is_empty() && self.hidden.contains(&(dir, name.into()))
    }

    /// An entry's metadata, without xattrs that cannot be stored.
    fn metadata(&mut self, entry: &Entry) -> Result<Metadata, Error> {
        let mut xattrs = Xattrs::default();
        for (name, value) in &entry.xattrs {
            let result = match name.starts_with(b"trusted.overlay.") {
                true => Err(XattrError::Namespace),
                false => xattrs.set(name, value),
            };
            match result {
                Ok(()) => {}
                Err(XattrError::Namespace) => self.dropped_xattrs += 1,
                Err(error) => return Err(refused(entry, error.into())),
            }
        }
        self.charge_bytes(xattrs.size())?;
        Ok(Metadata {
            permissions: entry.permissions,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs,
        })
    }

    /// Counts an entry with a name of this length.
    pub(super) fn charge(&mut self, name_len: usize) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::Limit {
                unit: Unit::Entries,
                limit: self.limits.entries,
            });
        }
        self.charge_bytes(name_len)
    }

    fn charge_bytes(&mut self, bytes: usize) -> Result<(), Error> {
        self.metadata_bytes += bytes as u64;
        if self.metadata_bytes > self.limits.metadata_bytes {
            return Err(Error::Limit {
                unit: Unit::MetadataBytes,
                limit: self.limits.metadata_bytes,
            });
        }
        Ok(())
    }
}

pub(super) fn refused(entry: &Entry, source: Problem) -> Error {
    Error::Entry {
        path: path_of(&entry.path),
        source,
    }
}

/// The metadata of an implied directory that no lower layer has.
pub(super) fn implied_directory() -> Metadata {
    Metadata {
        permissions: 0o755,
        ..Metadata::default()
    }
}
