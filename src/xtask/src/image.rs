//! The demo image: Debian's static busybox with its applets, as an OCI image layout in a tar archive.
//!
//! The same busybox gives the same bytes: fixed times, owners and order.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::kernel::hex;
use crate::step::output;
use crate::{deb, paths};

/// The reference that `hull run demo` resolves to.
const REFERENCE: &str = "docker.io/library/demo:latest";
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Folders of the image, parents first, and their modes.
const FOLDERS: [(&str, u32); 24] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/demo", 0o755),
    ("lib", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
    ("var/www", 0o755),
];

/// Writes the image to `archive`.
pub(crate) fn write(archive: &Path) -> Result<()> {
    let busybox = deb::unpacked("busybox-static", None)?.join("bin/busybox");
    let layer = layer(&busybox)?;
    let layer_digest = digest(&layer);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {
            "Cmd": ["sh"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask build" }],
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": "demo:latest",
        "io.containerd.image.name": REFERENCE,
    });
    entry["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });

    let mut tar = Tar::new();
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, index.to_string().as_bytes())?;
    tar.folder("blobs", 0o755)?;
    tar.folder("blobs/sha256", 0o755)?;
    for blob in [&config, &layer, &manifest] {
        let name = format!("blobs/sha256/{}", hex(&Sha256::digest(blob)));
        tar.file(&name, 0o644, blob)?;
    }
    fs::write(archive, tar.finish()?).with_context(|| format!("cannot write {}", archive.display()))
}

fn layer(busybox: &Path) -> Result<Vec<u8>> {
    let mut tar = Tar::new();
    for (name, mode) in FOLDERS {
        tar.folder(name, mode)?;
    }
    let etc = paths::resource("image/etc");
    let mut names: Vec<_> = fs::read_dir(&etc)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    names.sort();
    for name in names {
        let content = fs::read(etc.join(&name))?;
        let name = name.to_str().context("a file's name is not UTF-8")?;
        tar.file(&format!("etc/{name}"), 0o644, &content)?;
    }
    tar.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    let list = output(Command::new(busybox).arg("--list-full"))?;
    let list = String::from_utf8(list).context("busybox lists what is not UTF-8")?;
    let mut links: Vec<&str> = list
        .lines()
        .filter(|link| *link != "bin/busybox" && link.contains('/'))
        .collect();
    links.sort_unstable();
    for link in links {
        tar.link(link, "/bin/busybox")?;
    }
    tar.finish()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(blob)))
}

/// A tar archive in memory, owned by root and without times.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Tar {
        Tar(tar::Builder::new(Vec::new()))
    }

    fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, name, &[][..])?;
        Ok(())
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        self.0.append_data(&mut header, name, content)?;
        Ok(())
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, name, target)?;
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
