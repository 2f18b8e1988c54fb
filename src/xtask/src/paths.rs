//! Where things are: the checkout, cargo's target folder, the installation in it, and the cache that clones share.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout that this xtask was built from.
pub(crate) fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("xtask lies two folders deep in the checkout")
}

/// A file or folder of the checkout's `resources`.
pub(crate) fn resource(name: &str) -> PathBuf {
    checkout().join("resources").join(name)
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => checkout().join(dir),
        None => checkout().join("target"),
    }
}

/// The installation that `cargo xtask build` lays out.
pub(crate) fn dist() -> PathBuf {
    target().join("dist")
}

/// Where hull's own parts lie in the installation.
pub(crate) fn libexec() -> PathBuf {
    dist().join("libexec/hull")
}

/// The cache of what is expensive to build and the same for every clone: `$HULL_CACHE` or `~/.cache/hull`.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("HULL_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let home = env::var_os("HOME").context("neither HULL_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/hull"))
}
