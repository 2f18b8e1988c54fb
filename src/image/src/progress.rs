//! Progress events of pulls and imports. The caller renders them; this crate prints nothing.

use crate::digest::Digest;

/// A layer of the image in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerName {
    /// Its position in the image, 0 at the bottom.
    pub index: usize,
    /// The digest that identifies it to users: of its compressed form when pulled, its diffID when
    /// imported. `None` for a root file system: its digest is known only at its end.
    pub digest: Option<Digest>,
}

/// An event of a pull or an import. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The reference has been resolved to this manifest.
    Resolved {
        /// Of the manifest, or of the index that lists it.
        digest: Digest,
        /// Number of layers of the image.
        layers: usize,
    },
    /// Part of an archive is not imported, because it is not an image that can be run here.
    PassedOver {
        /// A name or a digest.
        what: &'a str,
        /// Why, as text for the user.
        reason: &'a str,
    },
    /// The store, or in a push the registry, already has this layer.
    Exists(LayerName),
    /// Another process is fetching or converting this layer; waiting for it.
    Waiting(LayerName),
    /// The download of a layer begins or resumes.
    Downloading {
        /// Which.
        layer: LayerName,
        /// Bytes that are present from an earlier, interrupted download.
        resumed_bytes: u64,
        /// Its full size.
        total_bytes: u64,
    },
    /// Bytes of a layer have arrived.
    Downloaded {
        /// Which.
        layer: LayerName,
        /// Bytes of it so far, from its start.
        bytes: u64,
    },
    /// The layer is complete and its digest matches.
    Verified(LayerName),
    /// A transient failure: the request is retried after a pause.
    Retrying {
        /// Which layer, if it is one.
        layer: Option<LayerName>,
        /// The number of the coming attempt, 2 or more.
        attempt: u32,
        /// Pause before it.
        pause_ms: u64,
        /// What failed, as text for the user.
        reason: &'a str,
    },
    /// The layer is being converted to EROFS.
    Converting {
        /// Which.
        layer: LayerName,
        /// Bytes of its (compressed) source, where known.
        total_bytes: Option<u64>,
    },
    /// Bytes of the layer's (compressed) source have been converted, counted from its start.
    Converted {
        /// Which.
        layer: LayerName,
        /// Bytes of the source so far.
        bytes: u64,
    },
    /// The layer is in the store.
    Stored {
        /// Which.
        layer: LayerName,
        /// Of its EROFS image.
        size_bytes: u64,
    },
    /// The layer's tar is being written to an archive.
    Saving {
        /// Which.
        layer: LayerName,
        /// Of its tar.
        total_bytes: u64,
    },
    /// The layer is in the archive.
    Saved(LayerName),
    /// The layer's tar is being packed, to be pushed.
    Packing {
        /// Which.
        layer: LayerName,
        /// Of its tar.
        total_bytes: u64,
    },
    /// Bytes of the layer's tar have been packed, counted from its start.
    Packed {
        /// Which.
        layer: LayerName,
        /// Bytes of the tar so far.
        bytes: u64,
    },
    /// The packed layer is being sent.
    Uploading {
        /// Which.
        layer: LayerName,
        /// Of its packed form.
        total_bytes: u64,
    },
    /// Bytes of the packed layer have been sent, counted from its start. They may become fewer: after a failure it is
    /// sent anew.
    Uploaded {
        /// Which.
        layer: LayerName,
        /// Bytes that are on their way.
        bytes: u64,
    },
    /// The registry has taken the layer from another of its repositories.
    Mounted {
        /// Which.
        layer: LayerName,
        /// From where: `library/debian`.
        repository: &'a str,
    },
    /// The registry has the layer.
    Pushed(LayerName),
}

/// Receives the events of a pull or an import, from several threads.
pub trait Progress: Sync {
    /// Handles an event. Called often, so it should be quick.
    fn event(&self, event: Event<'_>);
}

/// Discards all events.
impl Progress for () {
    fn event(&self, _event: Event<'_>) {}
}

impl<F: Fn(Event<'_>) + Sync> Progress for F {
    fn event(&self, event: Event<'_>) {
        self(event);
    }
}
