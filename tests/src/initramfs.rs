//! hull's installed parts, and test programs in the agent's place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Where the `hull` on the PATH has its parts.
pub fn installed() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    let hull = std::env::split_paths(&path)
        .map(|folder| folder.join("hull"))
        .find(|program| program.exists())
        .context("hull is not on the PATH")?;
    let hull = fs::canonicalize(hull)?;
    let prefix = hull.parent().and_then(Path::parent);
    Ok(prefix
        .context("hull is not in a bin folder")?
        .join("libexec/hull"))
}

/// An initramfs with this program as init, the libraries that it needs, and this text as `/plan` (cpio "newc":
/// Documentation/driver-api/early-userspace).
pub fn archive(init: &Path, plan: &str) -> Result<Vec<u8>> {
    let libraries = Command::new("ldd").arg(init).output()?;
    let text = String::from_utf8(libraries.stdout)?;
    let mut archive = Vec::new();
    let mut folders = vec!["dev".to_owned()];
    let mut files = vec![("init".to_owned(), fs::read(init)?)];
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let mut folder = String::new();
        for name in Path::new(path).parent().into_iter().flatten().skip(1) {
            folder = format!("{folder}/{}", name.to_string_lossy());
            folders.push(folder[1..].to_owned());
        }
        files.push((path[1..].to_owned(), fs::read(path)?));
    }
    files.push(("plan".to_owned(), plan.into()));
    for folder in folders {
        member(&mut archive, &folder, 0o040_755, (0, 0), &[]);
    }
    member(&mut archive, "dev/console", 0o020_600, (5, 1), &[]);
    for (name, data) in files {
        member(&mut archive, &name, 0o100_755, (0, 0), &data);
    }
    member(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    Ok(archive)
}

fn member(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
    let (size, name_size) = (data.len() as u32, name.len() as u32 + 1);
    let inode = archive.len() as u32;
    let fields = [
        inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
