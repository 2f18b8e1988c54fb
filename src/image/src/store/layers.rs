//! From a layer's packed tar to a file in `layers/`.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, FileLock, LayerRow, Result, Store, is_full, sync_folder};
use crate::compression::Decompressor;
use crate::digest::{Digest, HashingReader};
use crate::erofs;
use crate::layer::{self, Converted, Limits, LowerLayers, TarError};

/// Part of the name of every layer's file: files of another version are not used. To be raised
/// whenever [`layer::convert`] makes other bytes of the same tar.
pub(super) const CONVERTER_VERSION: u32 = 2;

/// A layer to be stored.
pub(crate) struct LayerJob<'a> {
    /// The digest that its unpacked tar must have, if that is known beforehand.
    pub(crate) diff_id: Option<&'a Digest>,
    /// The layers below it, bottom first.
    pub(crate) lower: &'a [LayerRow],
    /// For messages, where there is no diffID.
    pub(crate) name: &'a str,
}

impl Store {
    /// A layer of the store with this diffID, valid above the layers of this chainID.
    pub(crate) fn find_layer(
        &self,
        diff_id: &Digest,
        chain_id: &Digest,
    ) -> Result<Option<LayerRow>> {
        let row = self
            .database()
            .layer(diff_id, chain_id, CONVERTER_VERSION)?;
        // One without a record can run, but not leave this store again: it is stored anew.
        Ok(row.filter(|row| self.check_layer(row).is_ok() && self.has_record(row)))
    }

    /// Takes the lock for converting this layer; `None` while another process holds it.
    pub(crate) fn try_lock_layer(&self, diff_id: &Digest) -> Result<Option<FileLock>> {
        let path = self.root.join("locks").join(diff_id.hex());
        FileLock::try_exclusive(&path).map_err(Error::io("lock", path))
    }

    /// Converts a layer and enters it. `source` holds its tar, packed or not, and is read to its
    /// end.
    pub(crate) fn store_layer(&self, job: &LayerJob<'_>, source: impl Read) -> Result<LayerRow> {
        let mut temporary = Temporary::new(&self.root.join("tmp"))?;
        let mut record = Temporary::new(&self.root.join("tmp"))?;
        let lower = self.open_lower(job)?;
        let (diff_id, converted) = convert(job, source, &mut temporary, &record, &lower)?;
        if converted.dropped_xattrs > 0 {
            tracing::warn!(%diff_id, count = converted.dropped_xattrs, "xattrs of the layer were left out");
        }
        let chain_id = converted
            .depends_on_lower
            .then(|| chain_id(job.lower, &diff_id));
        let size_bytes = temporary.finish()?;
        let file = match &chain_id {
            None => format!("{}-v{CONVERTER_VERSION}.erofs", diff_id.hex()),
            Some(chain) => format!(
                "{}-{}-v{CONVERTER_VERSION}.erofs",
                diff_id.hex(),
                chain.hex()
            ),
        };
        record.finish()?;
        // The record first: a layer that is there has one.
        for (temporary, folder) in [
            (record, self.records_folder()),
            (temporary, self.layers_folder()),
        ] {
            temporary.rename(&folder.join(&file))?;
            sync_folder(&folder).map_err(Error::io("sync the folder", folder))?;
        }
        let row = LayerRow {
            id: 0,
            diff_id,
            converter: CONVERTER_VERSION,
            file,
            size_bytes,
            opaque_root: converted.opaque_root,
        };
        self.database().put_layer(&row, chain_id.as_ref())
    }

    /// The layers below, for hard links into them, missing parents and symlinks.
    fn open_lower(&self, job: &LayerJob<'_>) -> Result<LowerLayers> {
        let open = |row: &LayerRow| {
            let path = self.layer_path(row);
            File::open(&path).map_err(Error::io("open the layer", path))
        };
        let files = job.lower.iter().map(open).collect::<Result<Vec<_>>>()?;
        LowerLayers::open(files).map_err(|source| Error::Lower {
            layer: job.shown(),
            source,
        })
    }
}

impl LayerJob<'_> {
    fn shown(&self) -> String {
        self.diff_id
            .map_or_else(|| self.name.to_owned(), Digest::to_string)
    }

    /// The store's error for a failed conversion, by its cause: the layer, its source, or this
    /// machine.
    fn failure(&self, error: layer::Error, output: &Path) -> Error {
        if is_full(&error) {
            return Error::full(output.to_owned(), None);
        }
        let layer = self.shown();
        match error {
            layer::Error::Write(erofs::Error::Io(source)) | layer::Error::Record(source) => {
                Error::io("write", output)(source)
            }
            layer::Error::Lower(source) => Error::Lower { layer, source },
            layer::Error::Read(error) => self.unreadable(error),
            layer::Error::Tar {
                source: TarError::Type(_),
                ..
            }
            | layer::Error::Entry { .. }
            | layer::Error::Limit { .. }
            | layer::Error::Write(erofs::Error::TooLarge { .. }) => Error::Refused {
                layer,
                source: error.into(),
            },
            layer::Error::Tar { .. } => Error::Corrupt {
                layer,
                source: error.into(),
            },
        }
    }

    /// The store's error for a failed read: the system's, or of the decompressor.
    fn unreadable(&self, source: io::Error) -> Error {
        let layer = self.shown();
        if source.raw_os_error().is_some() {
            return Error::Unreadable { layer, source };
        }
        let unsupported = source.kind() == io::ErrorKind::Unsupported;
        let source = source.into();
        match unsupported {
            true => Error::Refused { layer, source },
            false => Error::Corrupt { layer, source },
        }
    }
}

/// Streams the tar through the converter; returns its digest and the result.
fn convert(
    job: &LayerJob<'_>,
    source: impl Read,
    temporary: &mut Temporary,
    record: &Temporary,
    lower: &LowerLayers,
) -> Result<(Digest, Converted)> {
    let unpacked = Decompressor::new(source).map_err(|error| job.unreadable(error))?;
    let mut tar = HashingReader::new(unpacked);
    let record_file = record.file.try_clone();
    let record_file = record_file.map_err(Error::io("open", &record.path))?;
    let (output, limits) = (&mut temporary.file, Limits::default());
    let converted = layer::convert_recorded(&mut tar, output, lower, &limits, record_file)
        .map_err(|error| job.failure(error, &temporary.path))?;
    // The converter has read to the end of the stream: bytes after the tar's end are part of the
    // digest.
    let (actual, _) = tar.finish();
    match job.diff_id {
        Some(diff_id) if *diff_id != actual => Err(Error::DiffId {
            diff_id: *diff_id,
            actual,
        }),
        _ => Ok((actual, converted)),
    }
}

/// The chainID (OCI image-spec 1.1, config.md) of a layer above these.
fn chain_id(lower: &[LayerRow], diff_id: &Digest) -> Digest {
    let below = lower
        .iter()
        .map(|row| row.diff_id)
        .reduce(|below, next| chained(&below, &next));
    below.map_or(*diff_id, |below| chained(&below, diff_id))
}

fn chained(below: &Digest, next: &Digest) -> Digest {
    Digest::of(format!("{below} {next}").as_bytes())
}

impl Store {
    /// A temporary file without a name, so that it cannot be left behind.
    pub(crate) fn spool(&self) -> Result<File> {
        let mut temporary = Temporary::new(&self.root.join("tmp"))?;
        std::fs::remove_file(&temporary.path).map_err(Error::io("unlink", &temporary.path))?;
        temporary.renamed = true;
        temporary
            .file
            .try_clone()
            .map_err(Error::io("open", &temporary.path))
    }
}

/// A file in `tmp/` that removes itself unless it is renamed.
struct Temporary {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    fn new(folder: &Path) -> Result<Temporary> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            // Unique in this process by the number and among processes by O_EXCL; the id only makes
            // clashes rare.
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}", std::process::id()));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match file {
                Ok(file) => {
                    return Ok(Temporary {
                        file,
                        path,
                        renamed: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path)(error)),
            }
        }
    }

    /// Makes the file read-only and durable. Returns its size.
    fn finish(&mut self) -> Result<u64> {
        let run = |file: &File| {
            file.set_permissions(Permissions::from_mode(0o444))?;
            file.sync_all()?;
            Ok(file.metadata()?.len())
        };
        run(&self.file).map_err(Error::io("write", &self.path))
    }

    fn rename(mut self, to: &Path) -> Result<()> {
        std::fs::rename(&self.path, to).map_err(Error::io("make", to))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.renamed {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file stays behind");
        }
    }
}
