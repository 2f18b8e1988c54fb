//! Whiteouts, made once all entries are known: OCI's apply to lower layers, wherever they stand in
//! the tar.

use std::collections::BTreeSet;
use std::io::{Seek, Write};

use crate::erofs::{Device, Inode, InodeId, Kind, Metadata, Summary, Tree};

use super::builder::{Builder, OPAQUE};
use super::{Error, path_of};

/// overlayfs's xattr for an opaque directory.
pub(super) const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";
/// The result of [`Builder::finish`].
#[derive(Debug)]
pub(super) struct Built {
    pub(super) summary: Summary,
    pub(super) dropped_xattrs: u64,
    pub(super) opaque_root: bool,
    pub(super) depends_on_lower: bool,
}

impl<W: Write + Seek> Builder<'_, W> {
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
        if !self.names_root {
            let xattrs = &mut self.tree.inode_mut(Tree::ROOT).metadata.xattrs;
            let marked = xattrs.set(protocol::layer::IMPLIED_ROOT_XATTR.as_bytes(), b"y");
            marked.expect("it is the root's only xattr, and short");
        }
        let covered = self.covered(opaque_root);
        let mut whiteout = None;
        for (dir, name) in &self.hidden {
            // In a directory that does not merge, overlayfs would list the whiteout as a broken
            // file.
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
