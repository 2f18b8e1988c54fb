//! The layers below one that is being converted, seen as overlayfs shows them.

use std::fs::File;

use crate::erofs::{Device, Node, NodeKind, ReadError, Reader};

/// The images of the layers below, merged.
#[derive(Debug, Default)]
pub struct LowerLayers {
    /// The uppermost first.
    readers: Vec<Reader>,
}

impl LowerLayers {
    /// Opens their images, the lowest layer first.
    pub fn open(images: impl IntoIterator<Item = File>) -> Result<LowerLayers, ReadError> {
        let mut readers = images
            .into_iter()
            .map(Reader::open)
            .collect::<Result<Vec<_>, _>>()?;
        readers.reverse();
        Ok(LowerLayers { readers })
    }

    /// No layers: for the lowest one.
    pub fn none() -> LowerLayers {
        LowerLayers::default()
    }

    /// What the merged layers have at a path, with the image that it is in. Symlinks are not
    /// followed.
    pub(super) fn find(&self, path: &[&[u8]]) -> Result<Option<(&Reader, Node)>, ReadError> {
        for reader in &self.readers {
            match search(reader, path)? {
                Search::Found(node) => return Ok(Some((reader, node))),
                Search::Hidden => return Ok(None),
                Search::Absent => {}
            }
        }
        Ok(None)
    }
}

enum Search {
    Found(Node),
    /// This layer hides what the layers below it have.
    Hidden,
    Absent,
}

fn search(reader: &Reader, path: &[&[u8]]) -> Result<Search, ReadError> {
    let mut node = reader.root()?;
    let mut opaque = false;
    for name in path {
        if node.kind != NodeKind::Directory {
            return Ok(Search::Hidden);
        }
        opaque |= node.metadata.xattrs.get(b"trusted.overlay.opaque") == Some(b"y");
        match reader.child(&node, name)? {
            Some(child) if child.kind == NodeKind::CharDevice(Device::WHITEOUT) => {
                return Ok(Search::Hidden);
            }
            Some(child) => node = child,
            None if opaque => return Ok(Search::Hidden),
            None => return Ok(Search::Absent),
        }
    }
    Ok(Search::Found(node))
}
