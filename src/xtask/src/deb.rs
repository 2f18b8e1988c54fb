//! Debian packages, fetched and unpacked into the cache without being installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::step::{output, run};

/// The unpacked content of a package at the version that apt would install, or at `version`.
pub(crate) fn unpacked(package: &str, version: Option<&str>) -> Result<PathBuf> {
    let packages = paths::cache()?.join("deb");
    let version = match version {
        Some(version) => version.to_string(),
        None => version_of(package)?,
    };
    let folder = packages.join(format!("{package}_{version}"));
    if folder.exists() {
        return Ok(folder);
    }
    let spec = format!("{package}={version}");
    // apt drops to its own user for downloads and warns when that user cannot write here.
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .arg(&spec);
    unpack(&packages, &folder, &mut apt)
        .with_context(|| format!("cannot fetch the Debian package {spec}; try apt-get update"))?;
    Ok(folder)
}

/// The version of a package that [`unpacked`] gives: apt's, or offline the newest in the cache.
pub(crate) fn version_of(package: &str) -> Result<String> {
    let packages = paths::cache()?.join("deb");
    candidate(package).or_else(|error| cached(&packages, package).ok_or(error))
}

/// The unpacked content of a package that lies at `url`. The caller checks what it gets.
pub(crate) fn from_url(package: &str, version: &str, url: &str) -> Result<PathBuf> {
    let packages = paths::cache()?.join("deb");
    let folder = packages.join(format!("{package}_{version}"));
    let mut curl = Command::new("curl");
    curl.args(["-fsSL", "-o", "package.deb", url]);
    unpack(&packages, &folder, &mut curl).with_context(|| format!("cannot fetch {url}"))?;
    Ok(folder)
}

/// Lets `fetch` leave a package in its working folder, and makes its content `folder` in one step.
fn unpack(packages: &Path, folder: &Path, fetch: &mut Command) -> Result<()> {
    fs::create_dir_all(packages)?;
    let scratch = tempfile::tempdir_in(packages)?;
    run(fetch.current_dir(scratch.path()))?;
    let deb = only_deb(scratch.path())?;
    let content = scratch.path().join("content");
    run(Command::new("dpkg").arg("-x").arg(&deb).arg(&content))?;
    match fs::rename(&content, folder) {
        Err(_) if folder.exists() => Ok(()),
        done => done.with_context(|| format!("cannot move a package to {}", folder.display())),
    }
}

/// The package that a meta-package depends on whose name starts with `prefix`.
pub(crate) fn dependency(meta: &str, prefix: &str) -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", "--important", meta]))?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_string)
        .with_context(|| format!("apt knows no package {meta} that depends on {prefix}*"))
}

/// The newest unpacked package of this name, for machines that are offline.
pub(crate) fn cached(packages: &Path, package: &str) -> Option<String> {
    let prefix = format!("{package}_");
    let mut versions: Vec<String> = fs::read_dir(packages)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix(&prefix).map(str::to_string))
        .collect();
    versions.sort();
    versions.pop()
}

fn candidate(package: &str) -> Result<String> {
    let text = output(Command::new("apt-cache").args(["policy", package]))?;
    let text = String::from_utf8_lossy(&text);
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)");
    match version {
        Some(version) => Ok(version.to_string()),
        None => bail!("apt knows no package {package}; try apt-get update"),
    }
}

fn only_deb(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    bail!("apt-get download left no package in {}", folder.display())
}
