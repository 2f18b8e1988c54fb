//! What a test host boots: Debian's kernel with its modules, and an initramfs of busybox and the first of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cpio::Archive;
use crate::step::{output, run};
use crate::{deb, paths};

/// Modules that the initramfs needs before it can mount the machine's root, by their names in modules.dep.
const EARLY: [&str; 6] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtiofs",
    "ext4",
    "overlay",
];
/// Modules that are loaded before the first command; the kernel asks for others as it needs them.
pub(crate) const LOAD: &str = "kvm-amd tun bridge br_netfilter veth nf_tables nft_chain_nat nft_ct nft_masq nft_redir \
    nft_reject_inet nft_compat nf_conntrack loop erofs overlay fuse virtio_rng";

/// A kernel for the test host.
pub(crate) struct Artifacts {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Release of the kernel, as `uname -r` prints it.
    pub(crate) release: String,
    /// The folder that belongs at /lib/modules/RELEASE.
    pub(crate) modules: PathBuf,
}

/// Fetches and builds what is not in the cache, for the kernel that a meta-package of Debian names.
pub(crate) fn artifacts(kernel: &str) -> Result<Artifacts> {
    let hosts = paths::cache()?.join("host");
    let package = deb::dependency(kernel, "linux-image-")?;
    let release = package.trim_start_matches("linux-image-").to_string();
    let folder = hosts.join(&release);
    if !folder.exists() {
        prepare(&package, &release, &hosts, &folder)?;
    }
    Ok(Artifacts {
        kernel: folder.join("boot").join(format!("vmlinuz-{release}")),
        initramfs: folder.join("initramfs.cpio"),
        modules: folder.join("lib/modules").join(&release),
        release,
    })
}

/// Lays the host's files out in a folder of their own, which appears whole or not at all.
fn prepare(package: &str, release: &str, hosts: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(hosts)?;
    let scratch = tempfile::tempdir_in(hosts)?;
    let content = scratch.path().join("content");
    run(Command::new("cp")
        .arg("-a")
        .arg(deb::unpacked(package, None)?)
        .arg(&content))?;
    run(Command::new("depmod").arg("-b").arg(&content).arg(release))?;
    let initramfs = initramfs(&content.join("lib/modules").join(release))?;
    fs::write(content.join("initramfs.cpio"), initramfs)?;
    match fs::rename(&content, folder) {
        Err(_) if folder.exists() => Ok(()),
        done => done.context("cannot keep the test host's files"),
    }
}

fn initramfs(modules: &Path) -> Result<Vec<u8>> {
    let busybox = deb::unpacked("busybox-static", None)?.join("bin/busybox");
    let mut archive = Archive::new(Vec::new());
    for folder in ["bin", "dev", "modules"] {
        archive.directory(folder, 0o755)?;
    }
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    let dependencies = fs::read_to_string(modules.join("modules.dep"))?;
    let mut order = Vec::new();
    for name in EARLY {
        for path in closure(&dependencies, name)? {
            let name = path
                .rsplit('/')
                .next()
                .expect("a split has a last part")
                .to_string();
            if order.contains(&name) {
                continue;
            }
            archive.file(
                &format!("modules/{name}"),
                0o644,
                &module(&modules.join(path))?,
            )?;
            order.push(name);
        }
    }
    archive.file("modules/order", 0o644, order.join("\n").as_bytes())?;
    Ok(archive.finish()?)
}

/// A module as the kernel takes it: uncompressed.
fn module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        return output(Command::new("xz").arg("-dc").arg(path));
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The paths of a module and its dependencies, in the order in which they can be inserted. modules.dep lists a module's
/// dependencies after a colon, the deepest last.
fn closure<'a>(dependencies: &'a str, name: &str) -> Result<Vec<&'a str>> {
    for line in dependencies.lines() {
        let Some((path, needs)) = line.split_once(':') else {
            continue;
        };
        let file = path.rsplit('/').next().unwrap_or(path);
        if file.split('.').next() == Some(name) {
            let mut paths: Vec<&str> = needs.split_whitespace().rev().collect();
            paths.push(path);
            return Ok(paths);
        }
    }
    // Built in.
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_dependencies_come_before_it() {
        let dependencies = "kernel/a.ko.xz:\nkernel/net.ko.xz: kernel/b.ko.xz kernel/a.ko.xz\n";
        let paths = closure(dependencies, "net").unwrap();
        assert_eq!(
            paths,
            ["kernel/a.ko.xz", "kernel/b.ko.xz", "kernel/net.ko.xz"]
        );
        assert!(closure(dependencies, "ext4").unwrap().is_empty());
    }
}
