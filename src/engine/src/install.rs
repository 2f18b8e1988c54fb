//! Where hull's parts are installed, and where its state lives.
//!
//! ```text
//! PREFIX/bin/hull
//! PREFIX/libexec/hull/{hull-monitor, hull-vmm, hull-fs, hull-net, vmlinux, initramfs.cpio, scratch.ext4,
//!                      scratch-growing.ext4, demo.tar}
//!
//! ROOT/...               see `layout`
//! ```
//!
//! Deliberately absent: a configuration file. `HULL_ROOT` moves the state, `HULL_LIBEXEC` the parts (for tests).

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The variable that moves the state.
pub const ROOT_VARIABLE: &str = "HULL_ROOT";
/// The variable that moves hull's parts.
pub const PARTS_VARIABLE: &str = "HULL_LIBEXEC";
/// Where root's state is, unless it is moved.
pub const SYSTEM_ROOT: &str = "/var/lib/hull";

/// Why hull does not know where it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of the installation is not there.
    #[error("{part} is not installed at {path}; build hull with `cargo xtask build`")]
    Missing {
        /// What.
        part: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The running program's own path cannot be read.
    #[error("cannot find hull's own program")]
    Program(#[source] std::io::Error),
    /// Neither HOME nor XDG_DATA_HOME says where an ordinary user's state goes.
    #[error(
        "neither HULL_ROOT, XDG_DATA_HOME nor HOME is set; set HULL_ROOT to a folder for hull's state"
    )]
    NoHome,
    /// The state's folder cannot be made or used.
    #[error("cannot use {path} for hull's state; set HULL_ROOT to a folder that you may write")]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The state belongs to another user, who could have put anything there.
    #[error("{path} belongs to user {owner}, not to you; set HULL_ROOT to a folder of your own")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
}

/// Hull's parts.
#[derive(Debug, Clone)]
pub struct Installation {
    libexec: PathBuf,
}

impl Installation {
    /// Finds the parts beside the running program.
    pub fn find() -> Result<Installation, Error> {
        if let Some(libexec) = std::env::var_os(PARTS_VARIABLE) {
            return Ok(Installation {
                libexec: libexec.into(),
            });
        }
        let program = std::env::current_exe().map_err(Error::Program)?;
        let prefix = program
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/"));
        Ok(Installation {
            libexec: prefix.join("libexec/hull"),
        })
    }

    /// The parts in this folder.
    pub fn at(libexec: &Path) -> Installation {
        Installation {
            libexec: libexec.to_owned(),
        }
    }

    /// The program that owns a sandbox.
    pub fn monitor(&self) -> Result<PathBuf, Error> {
        self.part("hull-monitor", "hull-monitor")
    }

    /// The program that runs a VM.
    pub fn vmm(&self) -> Result<PathBuf, Error> {
        self.part("hull-vmm", "hull-vmm")
    }

    /// The program that serves shared directories.
    pub fn fs(&self) -> Result<PathBuf, Error> {
        self.part("hull-fs", "hull-fs")
    }

    /// The process of a network.
    pub fn net(&self) -> Result<PathBuf, Error> {
        self.part("hull-net", "hull-net")
    }

    /// The agent's native form.
    pub fn native(&self) -> Result<PathBuf, Error> {
        self.part("hull-native", "hull-native")
    }

    /// The guest kernel.
    pub fn kernel(&self) -> Result<PathBuf, Error> {
        self.part("the guest kernel", "vmlinux")
    }

    /// The agent's initramfs.
    pub fn initramfs(&self) -> Result<PathBuf, Error> {
        self.part("the agent's initramfs", "initramfs.cpio")
    }

    /// The template of a writable disk.
    pub fn scratch(&self) -> Result<PathBuf, Error> {
        self.part("the writable disk's template", "scratch.ext4")
    }

    /// The template of a writable disk that is grown to a size of the user's.
    pub fn growing_scratch(&self) -> Result<PathBuf, Error> {
        self.part("the growing disk's template", "scratch-growing.ext4")
    }

    /// The demo image's archive.
    pub fn demo(&self) -> Result<PathBuf, Error> {
        self.part("the demo image", "demo.tar")
    }

    fn part(&self, part: &'static str, name: &str) -> Result<PathBuf, Error> {
        let path = self.libexec.join(name);
        if path.exists() {
            Ok(path)
        } else {
            Err(Error::Missing { part, path })
        }
    }
}

/// The folder of all state, made when missing, for its owner's eyes only.
pub fn state_root() -> Result<PathBuf, Error> {
    let uid = rustix::process::geteuid();
    let path = state_path(
        std::env::var_os(ROOT_VARIABLE).map(PathBuf::from),
        uid.is_root(),
        std::env::var_os("XDG_DATA_HOME").map(PathBuf::from),
        std::env::var_os("HOME").map(PathBuf::from),
    )
    .ok_or(Error::NoHome)?;
    let failed = |source| Error::State {
        path: path.clone(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(failed)?;
    let path = path.canonicalize().map_err(failed)?;
    let owner = path.metadata().map_err(failed)?.uid();
    if owner != uid.as_raw() {
        return Err(Error::Foreign { path, owner });
    }
    Ok(path)
}

fn state_path(
    hull_root: Option<PathBuf>,
    is_root: bool,
    data_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    // The XDG specification: a relative path is to be ignored.
    let absolute = |path: Option<PathBuf>| path.filter(|path| path.is_absolute());
    hull_root
        .filter(|path| !path.as_os_str().is_empty())
        .or_else(|| is_root.then(|| SYSTEM_ROOT.into()))
        .or_else(|| Some(absolute(data_home)?.join("hull")))
        .or_else(|| Some(absolute(home)?.join(".local/share/hull")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_goes_where_the_user_says_else_where_the_system_keeps_such_things() {
        let path = |s: &str| Some(PathBuf::from(s));
        assert_eq!(state_path(path("/x"), true, None, None), path("/x"));
        assert_eq!(
            state_path(None, true, path("/data"), path("/root")),
            path("/var/lib/hull")
        );
        assert_eq!(
            state_path(None, false, path("/data"), path("/h")),
            path("/data/hull")
        );
        assert_eq!(
            state_path(None, false, path("rel"), path("/h")),
            path("/h/.local/share/hull")
        );
        assert_eq!(state_path(path(""), false, None, None), None);
    }
}
