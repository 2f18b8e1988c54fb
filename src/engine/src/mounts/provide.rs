//! What a container's mounts need before it starts: volumes and directories that are made, and a look at the rest.

use std::fs;
use std::io;
use std::path::{Component, Path};

use protocol::record::{ANONYMOUS_LABEL, ContainerConfig, MountSource};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::{Error, asked_volumes};
use crate::engine::Engine;
use crate::error::Error as EngineError;

impl Engine {
    /// Makes what is to be there of a container's mounts, and refuses what is not: when it is made, and at each start.
    pub(crate) fn provide_mounts(&self, config: &ContainerConfig) -> Result<(), EngineError> {
        if config.run.mounts.is_empty() {
            return Ok(());
        }
        let asked = asked_volumes(config)?;
        for mount in &config.run.mounts {
            match &mount.source {
                MountSource::Bind { named, make } => {
                    if *make && !mount.single_file {
                        make_directory(&mount.path).map_err(|source| Error::Make {
                            path: named.clone(),
                            source,
                        })?;
                    } else if !is_there(&mount.path)? {
                        return Err(Error::Absent(named.clone()).into());
                    }
                }
                MountSource::Volume {
                    name, anonymous, ..
                } => {
                    let wanted = asked.get(&mount.destination).cloned().unwrap_or_default();
                    let mut labels = wanted.labels;
                    if *anonymous {
                        labels.insert(ANONYMOUS_LABEL.into(), String::new());
                    }
                    self.make_volume(name, &labels, &wanted.options)?;
                }
            }
        }
        Ok(())
    }
}

fn is_there(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if crate::files::is_absent(&error) => Ok(false),
        Err(source) => Err(Error::Path {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes a directory and those above it where they are missing; follows no symlink.
fn make_directory(path: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open =
        |at: &std::os::fd::OwnedFd, name: &std::ffi::OsStr| openat(at, name, flags, Mode::empty());
    let mut directory = openat(CWD, "/", flags, Mode::empty())?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        directory = match open(&directory, name) {
            Err(Errno::NOENT) => {
                match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                open(&directory, name)?
            }
            other => other?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_and_no_symlink_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        make_directory(&root.join("a/b")).unwrap();
        make_directory(&root.join("a/b")).unwrap();
        assert!(root.join("a/b").is_dir());
        std::os::unix::fs::symlink("/tmp", root.join("link")).unwrap();
        assert!(make_directory(&root.join("link/x")).is_err());
        fs::write(root.join("file"), "").unwrap();
        assert!(make_directory(&root.join("file/x")).is_err());
    }
}
