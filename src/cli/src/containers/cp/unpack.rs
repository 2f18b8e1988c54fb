//! Unpacking what a container sent.
//!
//! Invariants: the archive is a guest's and hostile. Names are relative and have no `..`; the tar crate puts nothing behind a
//! symbolic link that leads out of the folder; devices are passed over; owners are the user's unless asked for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::CountedReader;
use super::place::Target;

/// Unpacks below `folder`, with the names' first part as the target has it; the bytes that came.
pub(super) fn unpack(
    stream: File,
    folder: &Path,
    target: &Target,
    owners: bool,
) -> io::Result<u64> {
    let mut archive = tar::Archive::new(CountedReader {
        reader: stream,
        bytes: 0,
    });
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(owners);
    // A directory's own attributes are set when all in it is there: it may be read-only.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_block_special() || kind.is_character_special() {
            continue;
        }
        let Some(name) = renamed(&entry.path()?, target)? else {
            continue;
        };
        let path = folder.join(&name);
        if kind.is_dir() {
            let mode = entry.header().mode()? & 0o7777;
            if name.as_os_str().is_empty() {
                continue;
            }
            // As one that can be written, until it is full.
            if !path.is_dir() {
                ensure_parent_inside(folder, &path)?;
                fs::create_dir(&path)?;
            }
            directories.push((path, mode));
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            return Err(io::Error::other(format!(
                "{} is a directory, and the copy is not",
                path.display()
            )));
        }
        ensure_parent_inside(folder, &path)?;
        unpack_entry(&mut entry, folder, &path, target)?;
    }
    for (path, mode) in directories.into_iter().rev() {
        // Replaced by a link it is not followed.
        if path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_dir())
        {
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
    }
    let mut reader = archive.into_inner();
    // What is behind the archive's end is read, so that its writer is not cut off.
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.bytes)
}

fn unpack_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    folder: &Path,
    path: &Path,
    target: &Target,
) -> io::Result<()> {
    if entry.header().entry_type().is_hard_link() {
        // Its target is named as the archive's other entries are.
        let linked = entry.link_name()?.unwrap_or_default().into_owned();
        let linked = renamed(&linked, target)?.unwrap_or_default();
        let linked = folder.join(linked);
        ensure_parent_inside(folder, &linked)?;
        remove_if_there(path)?;
        return fs::hard_link(linked, path);
    }
    remove_if_there(path)?;
    entry.unpack(path).map(drop)
}

/// What is there may be a link: replaced, and not written through.
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a path whose folder a link of the archive has led out of the destination.
fn ensure_parent_inside(folder: &Path, path: &Path) -> io::Result<()> {
    let root = folder.canonicalize()?;
    let parent = path.parent().unwrap_or(folder).canonicalize()?;
    match parent.starts_with(&root) {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} leads out of {}",
            path.display(),
            folder.display()
        ))),
    }
}

/// An entry's path with its first part as the target has it; `None` for the directory whose contents alone are wanted.
fn renamed(path: &Path, target: &Target) -> io::Result<Option<PathBuf>> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!(
                    "the archive names {}, which leads out of it",
                    path.display()
                )));
            }
        }
    }
    let mut parts = parts.into_iter();
    if target.contents {
        parts.next();
        let rest: PathBuf = parts.collect();
        return Ok((!rest.as_os_str().is_empty()).then_some(rest));
    }
    match &target.name {
        Some(name) => {
            parts.next();
            Ok(Some(std::iter::once(name.as_ref()).chain(parts).collect()))
        }
        None => Ok(Some(parts.collect())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn target(name: Option<&str>, contents: bool) -> Target {
        Target {
            folder: String::new(),
            name: name.map(ToOwned::to_owned),
            contents,
        }
    }

    /// An archive of these entries: kind, path, content or target of a link.
    fn archive(entries: &[(tar::EntryType, &str, &str)]) -> File {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if kind.is_dir() { 0o555 } else { 0o644 });
            // The crate's own setters refuse what a hostile archive has.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            let is_link = kind.is_symlink() || kind.is_hard_link();
            if is_link {
                header.set_link_name_literal(content).unwrap();
            }
            let data = if is_link { "" } else { content };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&builder.into_inner().unwrap()).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    use tar::EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn a_directory_is_unpacked_under_its_name_another_or_none() {
        let entries = [
            (Directory, "etc/", ""),
            (Regular, "etc/a", "x"),
            (Link, "etc/b", "etc/a"),
        ];
        for (target, expected) in [
            (target(None, false), "etc/b"),
            (target(Some("new"), false), "new/b"),
            (target(None, true), "b"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            unpack(archive(&entries), folder.path(), &target, false).unwrap();
            assert_eq!(
                fs::read_to_string(folder.path().join(expected)).unwrap(),
                "x"
            );
        }
    }

    #[test]
    fn no_archive_writes_outside_of_the_destination() {
        let outside = tempfile::tempdir().unwrap();
        let outside_path = outside.path().to_str().unwrap();
        for entries in [
            vec![(Symlink, "d", outside_path), (Regular, "d/evil", "x")],
            vec![(Symlink, "d", outside_path), (Directory, "d/evil", "")],
            vec![(Regular, "../evil", "x")],
            vec![(Regular, "a/../../evil", "x")],
            vec![
                (Symlink, "d", outside_path),
                (Regular, "a", "x"),
                (Link, "d/evil", "a"),
            ],
        ] {
            let folder = tempfile::tempdir_in(outside.path()).unwrap();
            let unpacked = unpack(
                archive(&entries),
                folder.path(),
                &target(None, false),
                false,
            );
            assert!(unpacked.is_err(), "{entries:?}");
            assert!(!outside.path().join("evil").exists(), "{entries:?}");
        }
    }

    #[test]
    fn a_link_that_is_there_is_replaced_and_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "mine").unwrap();
        let entries = [
            (Symlink, "a", secret.to_str().unwrap()),
            (Regular, "a", "x"),
        ];
        unpack(
            archive(&entries),
            folder.path(),
            &target(None, false),
            false,
        )
        .unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "mine");
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "x");
    }
}
