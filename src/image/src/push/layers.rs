//! The layers of a push, several at once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::PushOptions;
use crate::digest::{Digest, Hasher};
use crate::error::Cause;
use crate::manifest::{self, Descriptor, OCI_LAYER_GZIP};
use crate::progress::{Event, LayerName, Progress};
use crate::reference::Reference;
use crate::registry::{self, Blob, Client, Mounted, Retry, Session};
use crate::save;
use crate::store::{self, BlobRow, Image, LayerRow, Store};

/// The most known blobs of a layer that a registry is asked for before the layer is packed.
const MAX_GUESSES: usize = 4;
const BUFFER_LEN: usize = 128 << 10;

/// A push whose image is known.
pub(super) struct LayerPushes<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) name: &'a Reference,
    pub(super) image: &'a Image,
    pub(super) options: &'a PushOptions,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancelled: &'a AtomicBool,
}

/// A packed layer in a file without a name.
struct Packed {
    file: File,
    digest: Digest,
    size_bytes: u64,
}

impl LayerPushes<'_> {
    /// Sees to it that the registry has every layer. Returns their descriptors, in the same order.
    pub(super) fn run(&self, rows: &[LayerRow]) -> Result<Vec<Descriptor>, Cause> {
        // An image may have the same layer twice.
        let mut distinct: Vec<(usize, &LayerRow)> = rows.iter().enumerate().collect();
        distinct.sort_by_key(|(_, row)| row.diff_id);
        distinct.dedup_by_key(|(_, row)| row.diff_id);
        distinct.sort_by_key(|(index, _)| *index);
        let next = AtomicUsize::new(0);
        let done: Mutex<HashMap<Digest, Descriptor>> = Mutex::default();
        let failure: Mutex<Option<Cause>> = Mutex::default();
        let work = || {
            while let Some((index, row)) = distinct.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.cancelled.load(Ordering::Relaxed) {
                    return;
                }
                match self.push(*index, row) {
                    Ok(layer) => {
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.insert(row.diff_id, layer);
                    }
                    Err(error) => {
                        let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        // What the first failure cancelled is not the cause.
                        first.get_or_insert(error);
                        self.cancelled.store(true, Ordering::Relaxed);
                    }
                }
            }
        };
        let workers = self
            .options
            .parallel_uploads
            .clamp(1, distinct.len().max(1));
        std::thread::scope(|scope| -> Result<(), Cause> {
            for number in 0..workers {
                std::thread::Builder::new()
                    .name(format!("push{number}"))
                    .spawn_scoped(scope, work)
                    .map_err(store::Error::io("start a thread for", self.store.root()))?;
            }
            Ok(())
        })?;
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let layers = rows.iter().map(|row| done[&row.diff_id].clone());
        Ok(layers.collect())
    }

    fn push(&self, index: usize, row: &LayerRow) -> Result<Descriptor, Cause> {
        let layer = LayerName {
            index,
            digest: Some(row.diff_id),
        };
        let known = self.store.known_blobs(&row.diff_id)?;
        if let Some(found) = self.find(layer, &known)? {
            return Ok(found);
        }
        let session = match self.mount(layer, &known)? {
            Ok(found) => return Ok(found),
            Err(session) => session,
        };
        let packed = self.pack(layer, row)?;
        let descriptor = Descriptor::layer(OCI_LAYER_GZIP, packed.digest, packed.size_bytes);
        if self.retried(layer, || self.client.has_blob(&packed.digest))? {
            self.progress.event(Event::Exists(layer));
            return Ok(descriptor);
        }
        self.send(layer, &packed, session)?;
        self.progress.event(Event::Pushed(layer));
        Ok(descriptor)
    }

    fn retried<T>(
        &self,
        layer: LayerName,
        body: impl FnMut() -> Result<T, registry::Error>,
    ) -> Result<T, registry::Error> {
        let retry = Retry::new(
            &self.options.connection,
            Some(layer),
            self.progress,
            self.cancelled,
        );
        retry.run(|| self.client.reached(), body)
    }

    /// A known blob of the layer that the repository has.
    fn find(&self, layer: LayerName, known: &[BlobRow]) -> Result<Option<Descriptor>, Cause> {
        let repository = self.name.full_repository();
        let mut guesses: Vec<&BlobRow> = known.iter().collect();
        guesses.sort_by_key(|blob| (blob.repository != repository, blob.digest));
        guesses.dedup_by_key(|blob| blob.digest);
        for blob in guesses.into_iter().take(MAX_GUESSES) {
            if self.retried(layer, || self.client.has_blob(&blob.digest))? {
                self.progress.event(Event::Exists(layer));
                return Ok(Some(blob.descriptor()));
            }
        }
        Ok(None)
    }

    /// Has the registry take the layer from another of its repositories; else perhaps a session to send it in.
    fn mount(
        &self,
        layer: LayerName,
        known: &[BlobRow],
    ) -> Result<Result<Descriptor, Option<Session>>, Cause> {
        let prefix = format!("{}/", self.name.domain());
        let mut session = None;
        for blob in known.iter().take(MAX_GUESSES) {
            let Some(from) = blob.repository.strip_prefix(&prefix) else {
                continue;
            };
            if from == self.name.repository() {
                continue;
            }
            match self.client.mount(&blob.digest, from) {
                Ok(Mounted::Yes) => {
                    self.progress.event(Event::Mounted {
                        layer,
                        repository: from,
                    });
                    return Ok(Ok(blob.descriptor()));
                }
                Ok(Mounted::No(begun)) => session = Some(begun),
                // A registry that does not do this, or not for this user: the layer is sent.
                Err(error) => tracing::debug!(%error, "a layer is not taken from {from}"),
            }
        }
        Ok(Err(session))
    }

    /// Rebuilds the layer's tar and packs it.
    fn pack(&self, layer: LayerName, row: &LayerRow) -> Result<Packed, Cause> {
        let mut tar = self.store.layer_tar(row, &self.image.display_name())?;
        self.progress.event(Event::Packing {
            layer,
            total_bytes: tar.size_bytes(),
        });
        let failed = || store::Error::io("write a packed layer to", self.store.root());
        let spool = Hashed {
            file: self.store.spool()?,
            hasher: Hasher::default(),
            bytes: 0,
        };
        // The header has no time in it: the same tar gives the same bytes.
        let mut gzip = GzEncoder::new(spool, Compression::default());
        let mut buffer = vec![0; BUFFER_LEN];
        let mut bytes = 0;
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(registry::Error::Cancelled.into());
            }
            let count = tar.read(&mut buffer).map_err(|source| save::Error::Layer {
                image: self.image.display_name(),
                diff_id: row.diff_id,
                source,
            })?;
            if count == 0 {
                break;
            }
            gzip.write_all(&buffer[..count]).map_err(failed())?;
            bytes += count as u64;
            self.progress.event(Event::Packed { layer, bytes });
        }
        let mut spool = gzip.finish().map_err(failed())?;
        spool.file.rewind().map_err(failed())?;
        manifest::check_size("layer", spool.bytes, manifest::MAX_LAYER_LEN)?;
        Ok(Packed {
            file: spool.file,
            digest: spool.hasher.finish(),
            size_bytes: spool.bytes,
        })
    }

    fn send(
        &self,
        layer: LayerName,
        packed: &Packed,
        session: Option<Session>,
    ) -> Result<(), registry::Error> {
        self.progress.event(Event::Uploading {
            layer,
            total_bytes: packed.size_bytes,
        });
        let open = |start: u64, length: u64| {
            Box::new(Part {
                file: &packed.file,
                position: start,
                end: start + length,
                layer,
                progress: self.progress,
            }) as Box<dyn Read>
        };
        let blob = Blob {
            digest: packed.digest,
            size_bytes: packed.size_bytes,
            open: &open,
        };
        let mut session = session;
        self.retried(layer, || self.client.send_blob(&blob, session.take()))
    }
}

/// A file that is hashed as it is written.
struct Hashed {
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A part of a file, on its way to the registry.
struct Part<'a> {
    file: &'a File,
    position: u64,
    end: u64,
    layer: LayerName,
    progress: &'a dyn Progress,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += count as u64;
        self.progress.event(Event::Uploaded {
            layer: self.layer,
            bytes: self.position,
        });
        Ok(count)
    }
}
