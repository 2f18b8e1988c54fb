//! Hard links: to this layer's own inodes, or to copies of lower layers' files.

use std::io::{Seek, Write};

use crate::erofs::{Density, Inode, InodeId, Kind, Node, NodeKind, Reader, Tree};

use super::Error;
use super::builder::{Builder, refused};
use super::path::{Problem, components};
use super::tar::Entry;

/// What a layer has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Inode(InodeId),
    /// This layer says nothing about it.
    PerhapsBelow,
    /// Nothing, whatever is below.
    Nothing,
}

impl<W: Write + Seek> Builder<'_, W> {
    /// The inode that a hard link names: of this layer, or a copy from a lower one.
    pub(super) fn hard_link(&mut self, entry: &Entry, target: &[u8]) -> Result<InodeId, Error> {
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
}
