//! From a layer's packed tar to a file in `layers/`.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, FileLock, LayerRow, Result, Store, is_full, sync_folder};
use crate::compression::Decompressor;
use crate::digest::{Digest, HashingReader};
use crate::layer::{self, Converted, Limits, LowerLayers};

/// Part of the name of every layer's file: files of another version are not used. To be raised whenever
/// [`layer::convert`] makes other bytes of the same tar.
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
    /// A layer that is already here and whole, for this diffID above just the layers that make this chainID.
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

    /// Takes the right to convert this layer: `None` while another has it.
    pub(crate) fn try_lock_layer(&self, diff_id: &Digest) -> Result<Option<FileLock>> {
        let path = self.root.join("locks").join(diff_id.hex());
        FileLock::try_exclusive(&path).map_err(Error::io("lock", path))
    }

    /// Converts a layer and enters it. `source` holds its tar, packed or not, and is read to its end.
    pub(crate) fn store_layer(&self, job: &LayerJob<'_>, source: impl Read) -> Result<LayerRow> {
        let mut temporary = Temporary::new(&self.root.join("tmp"))?;
        let mut record = Temporary::new(&self.root.join("tmp"))?;
        let lower = self.open_lower(job.lower)?;
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

    /// The layers below, for what hard links and missing parents find there.
    fn open_lower(&self, rows: &[LayerRow]) -> Result<LowerLayers> {
        let open = |row: &LayerRow| {
            let path = self.layer_path(row);
            File::open(&path).map_err(Error::io("open the layer", path))
        };
        let files = rows.iter().map(open).collect::<Result<Vec<_>>>()?;
        LowerLayers::open(files).map_err(|source| Error::Corrupt {
            layer: "in the store".to_owned(),
            source: source.into(),
        })
    }
}

/// Streams the tar through the converter; returns its digest, and what became of it.
fn convert(
    job: &LayerJob<'_>,
    source: impl Read,
    temporary: &mut Temporary,
    record: &Temporary,
    lower: &LowerLayers,
) -> Result<(Digest, Converted)> {
    let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| Error::Corrupt {
        layer: job
            .diff_id
            .map_or_else(|| job.name.to_owned(), Digest::to_string),
        source,
    };
    let unpacked = Decompressor::new(source).map_err(|error| corrupt(error.into()))?;
    let mut tar = HashingReader::new(unpacked);
    let record_file = record.file.try_clone();
    let record_file = record_file.map_err(Error::io("open", &record.path))?;
    let (output, limits) = (&mut temporary.file, Limits::default());
    let converted = layer::convert_recorded(&mut tar, output, lower, &limits, record_file)
        .map_err(|error| match is_full(&error) {
            true => Error::full(temporary.path.clone(), None),
            false => corrupt(error.into()),
        })?;
    // The converter has read all there is: what follows the tar's end is part of its digest.
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
    /// A file for the life of a session: it has no name, so that it cannot stay behind.
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
            // Unique in this process by the number and among processes by O_EXCL; the id only makes clashes rare.
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
