//! A sandbox's writable disk: a copy of the template's few data extents.
//!
//! Invariants: the disk of a sandbox that is removed at its end has no name, so that no death leaves it behind; any other
//! gets its name when it is whole, and is found again by the sandbox's next start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, ioctl_ficlone};
use sys::sparse::next_data;

/// Copied at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The name of a disk that is kept, in its sandbox's folder.
const NAME: &str = "scratch";

/// The disk that the sandbox in `folder` has, or a new one of that name; with its length. A new one has the template's
/// length, or `bytes` if that is more.
pub(crate) fn open_or_make(
    template: &Path,
    bytes: Option<u64>,
    folder: &Path,
) -> io::Result<(File, u64)> {
    let path = folder.join(NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(&path) {
        Ok(file) => {
            let len = file.metadata()?.len();
            return Ok((file, len));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let temporary = folder.join(".scratch.new");
    options.create(true).truncate(true).mode(0o600);
    let file = options.open(&temporary)?;
    let made = fill(template, bytes, file)?;
    std::fs::rename(&temporary, &path)?;
    Ok(made)
}

/// A new disk without a name, made in `folder`; with its length, as in [`open_or_make`].
pub(crate) fn make(template: &Path, bytes: Option<u64>, folder: &Path) -> io::Result<(File, u64)> {
    fill(template, bytes, unnamed(folder)?)
}

/// Copies `template` to the file `to`.
fn fill(template: &Path, bytes: Option<u64>, to: File) -> io::Result<(File, u64)> {
    let from = File::open(template)?;
    let len = from.metadata()?.len().max(bytes.unwrap_or(0));
    let is_cloned = ioctl_ficlone(&to, &from).is_ok();
    to.set_len(len)?;
    if is_cloned {
        return Ok((to, len));
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while let Some((start, end)) = next_data(&from, at)? {
        at = start;
        while at < end {
            let want = CHUNK_BYTES.min(usize::try_from(end - at).unwrap_or(CHUNK_BYTES));
            from.read_exact_at(&mut buffer[..want], at)?;
            to.write_all_at(&buffer[..want], at)?;
            at += want as u64;
        }
    }
    Ok((to, len))
}

fn unnamed(folder: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or_default();
    let unnamed = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .mode(0o600)
        .open(folder);
    match unnamed {
        // Not every file system knows O_TMPFILE.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let path = folder.join(".scratch.unnamed");
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_disk_that_is_kept_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("template");
        let file = File::create(&template).unwrap();
        file.set_len(1 << 20).unwrap();
        let (first, len) = open_or_make(&template, None, folder.path()).unwrap();
        first.write_all_at(b"kept", 4096).unwrap();
        let (second, again) = open_or_make(&template, None, folder.path()).unwrap();
        let mut bytes = [0; 4];
        second.read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!((len, again, &bytes), (1 << 20, 1 << 20, b"kept"));
    }

    #[test]
    fn the_copy_has_the_template_s_data_its_holes_and_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("template");
        let file = File::create(&template).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(&[7; 200_000], 500 << 20).unwrap();
        let (copy, len) = make(&template, None, folder.path()).unwrap();
        assert_eq!((len, copy.metadata().unwrap().len()), (1 << 30, 1 << 30));
        let mut bytes = [0; 8];
        copy.read_exact_at(&mut bytes, (500 << 20) + 199_996)
            .unwrap();
        assert_eq!(bytes, [7, 7, 7, 7, 0, 0, 0, 0]);
        copy.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"begin\0\0\0");
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_disk_may_be_longer_than_its_template_and_never_shorter() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("template");
        let file = File::create(&template).unwrap();
        file.set_len(1 << 20).unwrap();
        for (asked, len) in [(1 << 30, 1 << 30), (4096, 1 << 20)] {
            let (disk, told) = make(&template, Some(asked), folder.path()).unwrap();
            assert_eq!((told, disk.metadata().unwrap().len()), (len, len));
        }
    }
}
