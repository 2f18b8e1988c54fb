//! An OCI bundle of the demo image, for other runtimes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use engine::image::Image;

use crate::sample::succeed;

/// Unpacks the image's layers into `folder/rootfs` and writes the document that `crun spec` makes, for `args`.
pub(crate) fn make(image: &Image, folder: &Path, args: &[&str]) -> Result<()> {
    let rootfs = folder.join("rootfs");
    fs::create_dir(&rootfs)?;
    for layer in &image.layers {
        unpack(&layer.path, folder, &rootfs)?;
    }
    succeed(Command::new("crun").arg("spec").current_dir(folder))?;
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = args.to_vec().into();
    fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(())
}

/// Copies a layer's files out of a mount of it.
fn unpack(layer: &Path, folder: &Path, rootfs: &Path) -> Result<()> {
    let mounted = folder.join("mounted");
    fs::create_dir_all(&mounted)?;
    succeed(
        Command::new("mount")
            .args(["-t", "erofs", "-o", "ro,loop"])
            .arg(layer)
            .arg(&mounted),
    )?;
    let from: PathBuf = mounted.join(".");
    let copied = succeed(Command::new("cp").arg("-a").arg(from).arg(rootfs));
    succeed(Command::new("umount").arg(&mounted))?;
    copied
}
