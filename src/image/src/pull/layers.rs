//! The layers of a pull: fetched by worker threads, converted by the caller's.
//!
//! Between processes: a partial file's lock is held while the file is written, a layer's lock while
//! the layer is converted. Neither is held while waiting for the other, so concurrent pulls share
//! the work and cannot deadlock.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::PullOptions;
use crate::digest::Digest;
use crate::error::Cause;
use crate::manifest::Descriptor;
use crate::progress::{Event, LayerName, Progress};
use crate::registry::{self, Client, Download};
use crate::store::{self, FileLock, LayerJob, LayerRow, Store};

/// Interval between attempts at a lock that another process holds, for seconds or minutes.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// A pull whose layers are known.
pub(super) struct Pull<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) options: &'a PullOptions,
    pub(super) progress: &'a dyn Progress,
    pub(super) layers: &'a [Descriptor],
    pub(super) diff_ids: &'a [Digest],
    pub(super) chain_ids: Vec<Digest>,
    /// The next layer to be fetched.
    pub(super) next: AtomicUsize,
    pub(super) cancelled: &'a AtomicBool,
}

/// A layer as a worker hands it to the converter.
enum Fetch {
    /// The layer is in the store.
    Stored(LayerRow),
    /// Its blob is in this file, complete and verified.
    Blob(File, PathBuf),
}

impl Pull<'_> {
    /// Fetches and converts. Returns the layers, bottom first, and how many had to be converted.
    pub(super) fn run(&self) -> Result<(Vec<LayerRow>, usize), Cause> {
        self.check_space()?;
        let workers = self.options.parallel_downloads.clamp(1, self.layers.len());
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for number in 0..workers {
                let sender = sender.clone();
                std::thread::Builder::new()
                    .name(format!("pull{number}"))
                    .spawn_scoped(scope, move || self.fetch_all(&sender))
                    .map_err(store::Error::io("start a thread for", self.store.root()))?;
            }
            drop(sender);
            let result = self.convert_all(&receiver);
            if result.is_err() {
                self.cancelled.store(true, Ordering::Relaxed);
            }
            result
        })
    }

    /// Fails early if the downloads do not fit on the disk.
    fn check_space(&self) -> Result<(), store::Error> {
        let mut needed_bytes = 0u64;
        for (index, layer) in self.layers.iter().enumerate() {
            if self.find(index)?.is_none() {
                let path = self.store.partial_path(&layer.digest);
                let there = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
                needed_bytes = needed_bytes.saturating_add(layer.size.saturating_sub(there));
            }
        }
        let path = self.store.root().to_owned();
        let available_bytes = store::available_bytes(&path);
        match needed_bytes <= available_bytes {
            true => Ok(()),
            false => Err(store::Error::TooLittleSpace {
                path,
                needed_bytes,
                available_bytes,
            }),
        }
    }

    /// A worker: takes layers in order until there are no more.
    fn fetch_all(&self, done: &mpsc::Sender<(usize, Result<Fetch, Cause>)>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.layers.len() || self.cancelled.load(Ordering::Relaxed) {
                return;
            }
            let result = self.fetch(index);
            if result.is_err() {
                self.cancelled.store(true, Ordering::Relaxed);
            }
            if done.send((index, result)).is_err() {
                return;
            }
        }
    }

    fn name(&self, index: usize) -> LayerName {
        LayerName {
            index,
            digest: Some(self.layers[index].digest),
        }
    }

    fn find(&self, index: usize) -> Result<Option<LayerRow>, store::Error> {
        self.store
            .find_layer(&self.diff_ids[index], &self.chain_ids[index])
    }

    fn fetch(&self, index: usize) -> Result<Fetch, Cause> {
        let layer = self.name(index);
        let path = self.store.partial_path(&self.layers[index].digest);
        if let Some(row) = self.find(index)? {
            self.progress.event(Event::Exists(layer));
            // Left by a process that was killed after converting it. A process that has it open is
            // not disturbed.
            remove_if_there(&path)?;
            return Ok(Fetch::Stored(row));
        }
        let lock = self.wait(layer, || {
            FileLock::try_exclusive(&path).map_err(store::Error::io("lock", &path))
        })?;
        // The previous holder of the lock may have converted this layer and removed its blob.
        if let Some(row) = self.find(index)? {
            self.progress.event(Event::Exists(layer));
            lock.remove().map_err(store::Error::io("remove", &path))?;
            return Ok(Fetch::Stored(row));
        }
        let mut lock = lock;
        let download = Download {
            client: self.client,
            descriptor: &self.layers[index],
            layer,
            file: lock.file(),
            path: &path,
            progress: self.progress,
            cancelled: self.cancelled,
        };
        download.run(self.options)?;
        // The lock is released here: waiters find the blob complete.
        let blob = lock.unlock().map_err(store::Error::io("unlock", &path))?;
        Ok(Fetch::Blob(blob, path))
    }

    /// Waits for a lock, until another layer fails.
    fn wait<T>(
        &self,
        layer: LayerName,
        attempt: impl FnMut() -> Result<Option<T>, store::Error>,
    ) -> Result<T, Cause> {
        wait(layer, self.progress, self.cancelled, attempt)
    }

    /// Converts the layers in order; they arrive in any order.
    fn convert_all(
        &self,
        done: &mpsc::Receiver<(usize, Result<Fetch, Cause>)>,
    ) -> Result<(Vec<LayerRow>, usize), Cause> {
        let mut early: Vec<Option<Fetch>> = Vec::new();
        early.resize_with(self.layers.len(), || None);
        let mut stored: Vec<LayerRow> = Vec::with_capacity(self.layers.len());
        let mut converted = 0;
        let mut failure: Option<Cause> = None;
        for (index, result) in done {
            match result {
                Ok(fetch) => early[index] = Some(fetch),
                // The first failure is the cause, but workers that it cancelled may report before
                // it.
                Err(error) if failure.as_ref().is_none_or(is_cancelled) => failure = Some(error),
                Err(_) => {}
            }
            while failure.is_none() && stored.len() < early.len() {
                let Some(fetch) = early[stored.len()].take() else {
                    break;
                };
                let step = match fetch {
                    Fetch::Stored(row) => Ok((row, false)),
                    Fetch::Blob(file, path) => self.convert(&stored, file, &path),
                };
                match step {
                    Ok((row, new)) => {
                        stored.push(row);
                        converted += usize::from(new);
                    }
                    Err(error) => {
                        self.cancelled.store(true, Ordering::Relaxed);
                        failure = Some(error);
                    }
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok((stored, converted)),
        }
    }

    /// Converts the next layer above those stored, unless another process has done so meanwhile
    /// (then `false`).
    fn convert(
        &self,
        lower: &[LayerRow],
        blob: File,
        path: &Path,
    ) -> Result<(LayerRow, bool), Cause> {
        let (index, layer) = (lower.len(), self.name(lower.len()));
        let diff_id = &self.diff_ids[index];
        let lock = self.wait(layer, || self.store.try_lock_layer(diff_id))?;
        let (row, new) = match self.find(index)? {
            Some(row) => {
                self.progress.event(Event::Exists(layer));
                (row, false)
            }
            None => {
                let total_bytes = Some(self.layers[index].size);
                self.progress
                    .event(Event::Converting { layer, total_bytes });
                let mut blob = blob;
                blob.rewind().map_err(store::Error::io("read", path))?;
                let source = Watched {
                    inner: blob,
                    bytes: 0,
                    layer,
                    progress: self.progress,
                };
                let job = LayerJob {
                    diff_id: Some(diff_id),
                    lower,
                    name: "",
                };
                let row = self.store.store_layer(&job, source)?;
                self.progress.event(Event::Stored {
                    layer,
                    size_bytes: row.size_bytes,
                });
                (row, true)
            }
        };
        remove_if_there(path)?;
        lock.remove()
            .map_err(store::Error::io("remove the lock of", path))?;
        Ok((row, new))
    }
}

fn is_cancelled(error: &Cause) -> bool {
    matches!(error, Cause::Registry(registry::Error::Cancelled))
}

/// Waits for a lock, until `cancelled` is set.
pub(crate) fn wait<T>(
    layer: LayerName,
    progress: &dyn Progress,
    cancelled: &AtomicBool,
    mut attempt: impl FnMut() -> Result<Option<T>, store::Error>,
) -> Result<T, Cause> {
    let mut told = false;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if cancelled.load(Ordering::Relaxed) {
            return Err(registry::Error::Cancelled.into());
        }
        if !told {
            progress.event(Event::Waiting(layer));
            told = true;
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
}

fn remove_if_there(path: &Path) -> Result<(), store::Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(store::Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// A reader that reports its position as [`Event::Converted`].
pub(crate) struct Watched<'a, R> {
    pub(crate) inner: R,
    pub(crate) bytes: u64,
    pub(crate) layer: LayerName,
    pub(crate) progress: &'a dyn Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        self.progress.event(Event::Converted {
            layer: self.layer,
            bytes: self.bytes,
        });
        Ok(count)
    }
}
