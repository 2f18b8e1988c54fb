//! Images from files: an OCI layout (a folder, or a tar of one), what `docker save` writes, or a
//! root file system's tar. The kind is detected from the contents.
//!
//! Invariants: nothing is unpacked; nothing outside the folder or tar is read, whatever names and
//! links it holds; every stated digest is checked. Deliberately absent: xz and bzip2.

mod contents;
mod docker;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod inventory;
mod oci;
mod tar_index;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use contents::{Contents, Folder};
pub use error::Error;
use inventory::{Found, FoundLayer, Inventory, shown};
use tar_index::{TarIndex, Verdict};

use crate::compression::Decompressor;
use crate::digest::{Digest, HashingReader};
use crate::error::{Cause, Error as TopError};
use crate::manifest::{Config, Platform};
use crate::progress::{Event, LayerName, Progress};
use crate::pull::{Watched, wait};
use crate::reference::Reference;
use crate::store::{self, Image, LayerJob, LayerRow, Store};

/// Where an image is imported from.
pub enum Source<'a> {
    /// A file or a folder.
    Path(&'a Path),
    /// A stream. An archive is first copied to the store's disk; a root file system is not.
    Reader(&'a mut dyn Read),
}

/// An image that [`Store::load_archive`] brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// The names that the archive gives it, without those that it had before. May be empty.
    pub names: Vec<Reference>,
}

/// What is expected of a source.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Takes the place of the names in an archive.
    name: Option<&'a Reference>,
    /// A root file system's tar is an image, too: what is said of it.
    rootfs: Option<RootFs<'a>>,
    /// What its images may be made for, the best first; `None` is anything. The first of which there are images counts.
    platforms: &'a [Option<&'a Platform>],
}

/// What is said of a root file system, which says nothing of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct RootFs<'a> {
    /// The `config` object of its image; empty if `None`.
    pub config: Option<&'a serde_json::Value>,
    /// A remark for its history.
    pub comment: Option<&'a str>,
}

impl Source<'_> {
    /// For messages.
    fn origin(&self) -> PathBuf {
        match self {
            Source::Path(path) => path.to_path_buf(),
            Source::Reader(_) => PathBuf::from("-"),
        }
    }
}

impl Store {
    /// Imports the images that `source` holds, with the names that it states. With `name`, there
    /// must be exactly one image, and it gets that name instead. What cannot be run here is
    /// reported as [`Event::PassedOver`].
    pub fn import(
        &self,
        source: Source<'_>,
        name: Option<&Reference>,
        progress: &dyn Progress,
    ) -> crate::Result<Vec<Image>> {
        self.import_rootfs_or_images(source, name, RootFs::default(), progress)
    }

    /// The same; a root file system's image is what `rootfs` says. An archive of images is refused if it says anything.
    pub fn import_rootfs_or_images(
        &self,
        source: Source<'_>,
        name: Option<&Reference>,
        rootfs: RootFs<'_>,
        progress: &dyn Progress,
    ) -> crate::Result<Vec<Image>> {
        let origin = source.origin();
        let native = Platform::native();
        let wanted = Wanted {
            name,
            rootfs: Some(rootfs),
            platforms: &[Some(&native)],
        };
        let images = self.import_source(source, wanted, progress);
        let images = images.map(|all| all.into_iter().map(|loaded| loaded.image).collect());
        images.map_err(|source| TopError::Import {
            origin,
            source: source.into(),
        })
    }

    /// Brings the images of an archive into the store: what [`Store::save`] or `docker save` wrote, or an OCI layout,
    /// packed or not. Of an index that lists several platforms, this one's images are taken, or this machine's if it is
    /// `None`; where an archive has only others, those.
    pub fn load_archive(
        &self,
        source: Source<'_>,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> crate::Result<Vec<Loaded>> {
        let origin = source.origin();
        let native = Platform::native();
        let wanted = Wanted {
            name: None,
            rootfs: None,
            platforms: match platform {
                Some(_) => &[platform],
                None => &[Some(&native), None],
            },
        };
        self.import_source(source, wanted, progress)
            .map_err(|source| TopError::Import {
                origin,
                source: source.into(),
            })
    }

    fn import_source(
        &self,
        source: Source<'_>,
        wanted: Wanted<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, Cause> {
        let _session = self.session()?;
        let path = match source {
            Source::Path(path) => path,
            Source::Reader(reader) => {
                return self.import_stream(reader, Path::new("-"), wanted, progress);
            }
        };
        if path.is_dir() {
            return self.import_archive(&Contents::Folder(Folder::open(path)?), wanted, progress);
        }
        let mut file = File::open(path).map_err(Error::reading(path))?;
        // A pipe or device cannot be read twice.
        if !file.metadata().map_err(Error::reading(path))?.is_file() {
            return self.import_stream(&mut file, path, wanted, progress);
        }
        let packed = !Decompressor::new(&file)
            .map_err(Error::reading(path))?
            .is_plain();
        file.rewind().map_err(Error::reading(path))?;
        if packed {
            return self.import_stream(&mut file, path, wanted, progress);
        }
        match TarIndex::read(&file).map_err(Error::reading(path))?? {
            Verdict::Archive(index) => {
                self.import_archive(&Contents::Tar(index, file), wanted, progress)
            }
            Verdict::RootFs => self.import_rootfs(&mut file, wanted, progress),
        }
    }

    fn import_stream(
        &self,
        reader: &mut dyn Read,
        origin: &Path,
        wanted: Wanted<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, Cause> {
        let mut tar = Decompressor::new(reader).map_err(Error::reading(origin))?;
        let mut head = vec![0; tar_index::HEAD_LEN];
        let length = read_full(&mut tar, &mut head).map_err(Error::reading(origin))?;
        head.truncate(length);
        let mut tar = io::Cursor::new(&head).chain(tar);
        if !tar_index::begins_archive(&head)? {
            return self.import_rootfs(&mut tar, wanted, progress);
        }
        let mut spool = self.spool()?;
        copy_to(&mut tar, origin, &mut spool, self.root())?;
        spool.rewind().map_err(Error::reading(origin))?;
        match TarIndex::read(&spool).map_err(Error::reading(origin))?? {
            Verdict::Archive(index) => {
                self.import_archive(&Contents::Tar(index, spool), wanted, progress)
            }
            Verdict::RootFs => self.import_rootfs(&mut spool, wanted, progress),
        }
    }

    fn import_archive(
        &self,
        contents: &Contents,
        wanted: Wanted<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, Cause> {
        let is_said = |rootfs: RootFs<'_>| rootfs.config.is_some() || rootfs.comment.is_some();
        if wanted.rootfs.is_some_and(is_said) {
            return Err(Error::NotARootFs.into());
        }
        let inventory = inventory::take(contents, wanted.platforms)?;
        for (what, reason) in &inventory.passed_over {
            progress.event(Event::PassedOver { what, reason });
        }
        let mut found = inventory.into_found()?;
        if let Some(name) = wanted.name {
            let [only] = found.as_mut_slice() else {
                return Err(Error::SeveralImages { count: found.len() }.into());
            };
            only.names = vec![name.clone()];
        }
        let load = |found: Found| {
            let image = self.import_image(contents, &found, progress)?;
            Ok(Loaded {
                image,
                names: found.names,
            })
        };
        found.into_iter().map(load).collect()
    }

    fn import_image(
        &self,
        contents: &Contents,
        found: &Found,
        progress: &dyn Progress,
    ) -> Result<Image, Cause> {
        let chain_ids = found.config.chain_ids();
        let mut rows: Vec<LayerRow> = Vec::with_capacity(found.layers.len());
        for (index, layer) in found.layers.iter().enumerate() {
            let diff_id = &found.config.diff_ids[index];
            let name = LayerName {
                index,
                digest: Some(*diff_id),
            };
            let lock = wait(name, progress, &AtomicBool::new(false), || {
                self.try_lock_layer(diff_id)
            })?;
            let row = match self.find_layer(diff_id, &chain_ids[index])? {
                Some(row) => {
                    progress.event(Event::Exists(name));
                    row
                }
                None => self.import_layer(contents, layer, diff_id, &rows, name, progress)?,
            };
            lock.remove()
                .map_err(store::Error::io("remove a lock in", self.root()))?;
            rows.push(row);
        }
        Ok(self.put_image(
            &found.config,
            found.manifest.as_deref(),
            &rows,
            &found.names,
        )?)
    }

    fn import_layer(
        &self,
        contents: &Contents,
        layer: &FoundLayer,
        diff_id: &Digest,
        lower: &[LayerRow],
        name: LayerName,
        progress: &dyn Progress,
    ) -> Result<LayerRow, Cause> {
        let (reader, size) = contents.open(&layer.path)?.ok_or_else(|| Error::Missing {
            name: layer.path.clone(),
        })?;
        if let Some((_, expected)) = layer.stated.filter(|(_, expected)| *expected != size) {
            return Err(Error::Size {
                name: layer.path.clone(),
                expected,
                actual: size,
            }
            .into());
        }
        progress.event(Event::Converting {
            layer: name,
            total_bytes: Some(size),
        });
        let source = Verified {
            inner: Some(HashingReader::new(reader)),
            stated: layer.stated.map(|(digest, _)| digest),
        };
        let source = Watched {
            inner: source,
            bytes: 0,
            layer: name,
            progress,
        };
        let job = LayerJob {
            diff_id: Some(diff_id),
            lower,
            name: &layer.path,
        };
        let row = self.store_layer(&job, source)?;
        progress.event(Event::Stored {
            layer: name,
            size_bytes: row.size_bytes,
        });
        Ok(row)
    }

    /// A root file system as an image of one layer. The same tar makes the same image: no time is
    /// put into it.
    fn import_rootfs(
        &self,
        tar: &mut dyn Read,
        wanted: Wanted<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, Cause> {
        let Some(rootfs) = wanted.rootfs else {
            return Err(Error::NotAnImage.into());
        };
        let layer = LayerName {
            index: 0,
            digest: None,
        };
        progress.event(Event::Converting {
            layer,
            total_bytes: None,
        });
        let source = Watched {
            inner: tar,
            bytes: 0,
            layer,
            progress,
        };
        let job = LayerJob {
            diff_id: None,
            lower: &[],
            name: "of the root file system",
        };
        let row = self.store_layer(&job, source)?;
        progress.event(Event::Stored {
            layer,
            size_bytes: row.size_bytes,
        });
        let mut step = serde_json::json!({ "created_by": "hull import" });
        if let Some(comment) = rootfs.comment {
            step["comment"] = comment.into();
        }
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": rootfs.config.cloned().unwrap_or_else(|| serde_json::json!({})),
            "rootfs": { "type": "layers", "diff_ids": [row.diff_id] },
            "history": [step],
        });
        let config = Config::parse(config.to_string().into_bytes())?;
        let names: Vec<Reference> = wanted.name.into_iter().cloned().collect();
        let image = self.put_image(&config, None, &[row], &names)?;
        Ok(vec![Loaded { image, names }])
    }
}

/// A reader that fails at its end unless the bytes have the stated digest.
struct Verified<R> {
    inner: Option<HashingReader<R>>,
    stated: Option<Digest>,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else {
            return Ok(0);
        };
        let count = inner.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let actual = self.inner.take().map(|inner| inner.finish().0);
        match (self.stated, actual) {
            (Some(expected), Some(actual)) if expected != actual => {
                let error = Error::Digest { expected, actual };
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
            _ => Ok(0),
        }
    }
}

/// Fills the buffer, or reads to the end.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Copies a stream to a file. A failed read is the archive's error, a failed write the store's.
fn copy_to(
    reader: &mut impl Read,
    origin: &Path,
    file: &mut File,
    folder: &Path,
) -> Result<(), Cause> {
    use std::io::Write;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = read_full(reader, &mut buffer).map_err(Error::reading(origin))?;
        if count == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..count])
            .map_err(store::Error::io("copy the archive to", folder))?;
    }
}
