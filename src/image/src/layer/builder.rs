//! A tree from a tar's entries, in their order.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek, Write};

use crate::erofs::{
    Density, Device, FileData, Inode, InodeId, Kind, Metadata, Node, NodeKind, Reader, Summary,
    Tree, Writer, XattrError, Xattrs,
};

use super::lower::LowerLayers;
use super::sparse::Segment;
use super::tar::{Entry, EntryKind, TarReader};
use super::{Error, Limits, Unit, path_of};

/// The longest path and symlink (PATH_MAX with its NUL).
const MAX_PATH: usize = 4096;
/// The longest name (NAME_MAX).
const MAX_NAME: usize = 255;
/// What whiteouts' names begin with (image-spec, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// What AUFS's own files begin with; one name of these is the opaque whiteout.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// overlayfs's xattr for [`OPAQUE`].
const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";
/// Data passes through a buffer of this size.
const COPY_BUFFER: usize = 128 << 10;

/// Why an entry is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// `..` in the path or in a hard link's target.
    #[error("its path leads out of the layer")]
    ParentPath,
    /// The path exceeds 4095 bytes or one of its names 255, or contains NUL.
    #[error("its path is too long or not valid")]
    Path,
    /// The layer has made a symlink or file of one of the path's directories.
    #[error("its path leads through something that is not a directory")]
    ThroughNonDirectory,
    /// The root is something else than a directory.
    #[error("the root must be a directory")]
    Root,
    /// A whiteout of nothing, or a reserved name where it means nothing.
    #[error("names beginning with .wh. are reserved for whiteouts")]
    Whiteout,
    /// A symlink's target is empty, longer than 4095 bytes, or contains NUL.
    #[error("its target is not valid")]
    Target,
    /// A hard link's target is neither in this layer so far nor visible below it.
    #[error("the target of the hard link does not exist")]
    LinkMissing,
    /// A hard link to a directory.
    #[error("the target of the hard link is a directory")]
    LinkToDirectory,
    /// The kernel has no such device number.
    #[error("its device number is out of range")]
    Device,
    /// The file exceeds 16 TiB.
    #[error("it is larger than {} bytes", FileData::MAX_SIZE)]
    FileSize,
    /// An xattr is refused.
    #[error("one of its xattrs is refused")]
    Xattr(#[from] XattrError),
}

/// What [`Builder::finish`] gives.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) summary: Summary,
    pub(super) dropped_xattrs: u64,
    pub(super) opaque_root: bool,
    pub(super) depends_on_lower: bool,
}

/// Takes entries, writes their data and keeps their metadata.
#[derive(Debug)]
pub(super) struct Builder<'a, W> {
    writer: Writer<W>,
    tree: Tree,
    lower: &'a LowerLayers,
    limits: &'a Limits,
    /// Names whose lower counterparts are hidden, by directory.
    hidden: BTreeSet<(InodeId, Box<[u8]>)>,
    /// Directories whose lower counterparts are hidden.
    opaque: BTreeSet<InodeId>,
    /// Files that were copied from lower layers, by path.
    copied: HashMap<Vec<u8>, InodeId>,
    entries: u64,
    metadata_bytes: u64,
    dropped_xattrs: u64,
    depends_on_lower: bool,
    buffer: Vec<u8>,
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
            entries: 0,
            metadata_bytes: 0,
            dropped_xattrs: 0,
            depends_on_lower: false,
            buffer: vec![0; COPY_BUFFER],
        })
    }

    /// Adds an entry, whose data the tar gives.
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
        let metadata = self.metadata(entry)?;
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
        Ok(Kind::File(file.finish()?))
    }

    /// The inode that a hard link names: of this layer, or a copy from a lower one.
    fn hard_link(&mut self, entry: &Entry, target: &[u8]) -> Result<InodeId, Error> {
        let problem = |problem| refused(entry, problem);
        let path = components(target).map_err(problem)?;
        if path.is_empty() {
            return Err(problem(Problem::LinkToDirectory));
        }
        match self.find(&path) {
            Found::Inode(id) if self.tree.names(id).is_some() => {
                Err(problem(Problem::LinkToDirectory))
            }
            Found::Inode(id) => Ok(id),
            Found::Nothing => Err(problem(Problem::LinkMissing)),
            Found::PerhapsBelow => {
                let key = path.join(&b'/');
                if let Some(&id) = self.copied.get(&key) {
                    return Ok(id);
                }
                self.depends_on_lower = true;
                let (reader, node) = self
                    .lower
                    .find(&path)?
                    .ok_or_else(|| problem(Problem::LinkMissing))?;
                let kind = self
                    .copy(reader, &node)?
                    .ok_or_else(|| problem(Problem::LinkToDirectory))?;
                self.charge(key.len() + node.metadata.xattrs.size())?;
                let id = self.tree.add(Inode {
                    metadata: node.metadata,
                    kind,
                });
                self.copied.insert(key, id);
                Ok(id)
            }
        }
    }

    /// A lower layer's file, in this layer; `None` for a directory.
    fn copy(&mut self, reader: &Reader, node: &Node) -> Result<Option<Kind>, Error> {
        Ok(Some(match node.kind {
            NodeKind::Directory => return Ok(None),
            NodeKind::Symlink => Kind::Symlink(reader.read_link(node)?.into()),
            NodeKind::CharDevice(device) => Kind::CharDevice(device),
            NodeKind::BlockDevice(device) => Kind::BlockDevice(device),
            NodeKind::Fifo => Kind::Fifo,
            NodeKind::Socket => Kind::Socket,
            NodeKind::File => {
                let density = if node.is_contiguous() {
                    Density::Dense
                } else {
                    Density::Sparse
                };
                let mut file = self.writer.file(node.size(), density);
                let mut position = 0;
                while position < node.size() {
                    let hole = reader.hole_at(node, position)?;
                    file.skip(hole)?;
                    position += hole;
                    let read = reader.read_at(node, &mut self.buffer, position)?;
                    file.write(&self.buffer[..read])?;
                    position += read as u64;
                }
                Kind::File(file.finish()?)
            }
        }))
    }

    /// What this layer, so far, has at a path.
    fn find(&self, path: &[&[u8]]) -> Found {
        let (mut id, mut hides) = (Tree::ROOT, false);
        for &name in path {
            if self.tree.names(id).is_none() {
                return Found::Nothing;
            }
            hides |= self.hides(id, name);
            match self.tree.child(id, name) {
                Some(child) => id = child,
                None if hides => return Found::Nothing,
                None => return Found::PerhapsBelow,
            }
        }
        Found::Inode(id)
    }

    /// Whether this layer hides what the lower ones have under this name.
    fn hides(&self, dir: InodeId, name: &[u8]) -> bool {
        // Most layers have no whiteouts, and then there is no key to make.
        self.opaque.contains(&dir)
            || !self.hidden.is_empty() && self.hidden.contains(&(dir, name.into()))
    }

    /// The directory at a path, made with its parents where the layer has not named them.
    fn directory(&mut self, path: &[&[u8]], entry: &Entry) -> Result<InodeId, Error> {
        let (mut dir, mut hides) = (Tree::ROOT, false);
        for (i, &name) in path.iter().enumerate() {
            hides |= self.hides(dir, name);
            dir = match self.tree.child(dir, name) {
                Some(known) if self.tree.names(known).is_some() => known,
                Some(_) => return Err(refused(entry, Problem::ThroughNonDirectory)),
                None => {
                    let metadata = if hides {
                        implied_directory()
                    } else {
                        self.lower_directory(&path[..=i])?
                    };
                    self.charge(name.len() + metadata.xattrs.size())?;
                    let id = self.tree.add(Inode {
                        metadata,
                        kind: Kind::Directory(Default::default()),
                    });
                    self.tree.link(dir, name, id);
                    id
                }
            };
        }
        Ok(dir)
    }

    /// The metadata of a directory that this layer implies: in overlayfs the uppermost layer's count.
    fn lower_directory(&mut self, path: &[&[u8]]) -> Result<Metadata, Error> {
        self.depends_on_lower = true;
        let mut metadata = match self.lower.find(path)? {
            Some((_, node)) if node.kind == NodeKind::Directory => node.metadata,
            _ => return Ok(implied_directory()),
        };
        metadata.xattrs.remove(OPAQUE_XATTR);
        Ok(metadata)
    }

    /// An entry's metadata, without the xattrs that cannot be kept.
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
    fn charge(&mut self, name_len: usize) -> Result<(), Error> {
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

    /// The directories that do not merge with lower ones: the opaque ones and all in them.
    fn covered(&self, opaque_root: bool) -> BTreeSet<InodeId> {
        let mut pending: Vec<InodeId> = self.opaque.iter().copied().collect();
        pending.extend(opaque_root.then_some(Tree::ROOT));
        let mut covered = BTreeSet::new();
        while let Some(id) = pending.pop() {
            if let Some(names) = self.tree.names(id)
                && covered.insert(id)
            {
                pending.extend(names.values());
            }
        }
        covered
    }

    /// Makes the whiteouts and writes the image's metadata.
    pub(super) fn finish(mut self) -> Result<Built, Error> {
        // A directory that this layer has in the place of a hidden one does not merge with it.
        let replacing = self
            .hidden
            .iter()
            .filter_map(|(dir, name)| self.tree.child(*dir, name));
        let replacing: Vec<InodeId> = replacing
            .filter(|id| self.tree.names(*id).is_some())
            .collect();
        self.opaque.extend(replacing);
        let opaque_root = self.opaque.remove(&Tree::ROOT);
        for &id in &self.opaque {
            let xattrs = &mut self.tree.inode_mut(id).metadata.xattrs;
            xattrs
                .set(OPAQUE_XATTR, b"y")
                .map_err(|error| Error::Entry {
                    path: path_of(OPAQUE),
                    source: error.into(),
                })?;
        }
        let covered = self.covered(opaque_root);
        let mut whiteout = None;
        for (dir, name) in &self.hidden {
            // Where nothing below shows anyway, overlayfs would list the whiteout as a broken file.
            if covered.contains(dir) || self.tree.child(*dir, name).is_some() {
                continue;
            }
            let id = *whiteout.get_or_insert_with(|| {
                self.tree.add(Inode {
                    metadata: Metadata::default(),
                    kind: Kind::CharDevice(Device::WHITEOUT),
                })
            });
            self.tree.link(*dir, name, id);
        }
        let summary = self.writer.finish(&self.tree)?;
        Ok(Built {
            summary,
            dropped_xattrs: self.dropped_xattrs,
            opaque_root,
            depends_on_lower: self.depends_on_lower,
        })
    }
}

/// What a layer has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Inode(InodeId),
    /// This layer says nothing about it.
    PerhapsBelow,
    /// Nothing, whatever is below.
    Nothing,
}

fn refused(entry: &Entry, source: Problem) -> Error {
    Error::Entry {
        path: path_of(&entry.path),
        source,
    }
}

/// The metadata of a directory that the tar implies and nothing describes.
fn implied_directory() -> Metadata {
    Metadata {
        permissions: 0o755,
        ..Metadata::default()
    }
}

/// A path's names from the layer's root.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.len() >= MAX_PATH || path.contains(&0) {
        return Err(Problem::Path);
    }
    let names = path
        .split(|&byte| byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."));
    names
        .map(|name| match name {
            b".." => Err(Problem::ParentPath),
            name if name.len() > MAX_NAME => Err(Problem::Path),
            name => Ok(name),
        })
        .collect()
}
