//! Hard links: to this layer's own inodes, or to copies of lower layers' files.

use std::io::{Seek, Write};

use crate::erofs::{Density, Inode, InodeId, Kind, Node, NodeKind, Reader};

use super::Error;
use super::builder::{Builder, refused};
use super::path::{Problem, components};
use super::tar::Entry;

impl<W: Write + Seek> Builder<'_, W> {
    /// The inode that a hard link names: of this layer, or a copy from a lower one.
    pub(super) fn hard_link(&mut self, entry: &Entry, target: &[u8]) -> Result<InodeId, Error> {
        let problem = |problem| refused(entry, problem);
        let path = components(target).map_err(problem)?;
        let Some((&name, parents)) = path.split_last() else {
            return Err(problem(Problem::LinkToDirectory));
        };
        let missing = || problem(Problem::LinkMissing);
        let place = self.locate(parents, entry)?.ok_or_else(missing)?;
        if let Some(dir) = place.dir() {
            match self.tree.child(dir, name) {
                Some(id) if self.tree.names(id).is_some() => {
                    return Err(problem(Problem::LinkToDirectory));
                }
                Some(id) => return Ok(id),
                None if self.hides(dir, name) => return Err(missing()),
                None => {}
            }
        }
        if place.hides() {
            return Err(missing());
        }
        self.lower_file(&place.path_to(name), entry)
    }

    /// This layer's copy of a lower layer's file, at a path without symlinks.
    fn lower_file(&mut self, path: &[&[u8]], entry: &Entry) -> Result<InodeId, Error> {
        let problem = |problem| refused(entry, problem);
        let key = path.join(&b'/');
        if let Some(&id) = self.copied.get(&key) {
            return Ok(id);
        }
        self.depends_on_lower = true;
        let (reader, node) = self
            .lower
            .find(path)?
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
}
