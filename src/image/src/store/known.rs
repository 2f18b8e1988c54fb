//! What the store knows of registries: which blobs are where, and how an image was described there.

use super::{BlobRow, Image, NewName, Result, Store};
use crate::digest::Digest;
use crate::reference::Reference;

impl Store {
    /// The known packed forms of a layer.
    pub(crate) fn known_blobs(&self, diff_id: &Digest) -> Result<Vec<BlobRow>> {
        self.database().blobs(diff_id)
    }

    /// Records where layers were found. That only saves later pushes some work, so a failure does no more than warn.
    pub(crate) fn note_blobs(&self, blobs: &[(Digest, BlobRow)]) {
        if let Err(error) = self.database().put_blobs(blobs) {
            tracing::warn!(%error, "where the layers are at the registry is not noted");
        }
    }

    /// Records what a push has brought about: the image's digest at the registry, and where its layers are.
    pub(crate) fn put_pushed(
        &self,
        image: &Image,
        digest: &Reference,
        blobs: &[(Digest, BlobRow)],
    ) -> Result<()> {
        self.note_blobs(blobs);
        // An image that was removed meanwhile needs no name.
        self.database()
            .put_name(&image.id, &NewName::of(digest))
            .map(drop)
    }

    /// The manifest that an image was pulled or imported with.
    pub(crate) fn stored_manifest(&self, image: &Image) -> Result<Option<Vec<u8>>> {
        self.database().manifest(&image.id)
    }
}
