//! The guest's initramfs: the agent, a console, and folders to mount on. The same agent gives the same bytes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cpio::Archive;

/// Writes an initramfs with `agent` as /init.
pub(crate) fn write(agent: &Path, initramfs: &Path) -> Result<()> {
    let program = fs::read(agent).with_context(|| format!("cannot read {}", agent.display()))?;
    let mut archive = Archive::new(Vec::with_capacity(program.len() + 4096));
    for folder in ["dev", "proc", "sys", "run"] {
        archive.directory(folder, 0o755)?;
    }
    // The kernel opens it for PID 1 before anything is mounted.
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, &program)?;
    fs::write(initramfs, archive.finish()?)
        .with_context(|| format!("cannot write {}", initramfs.display()))
}
