//! Images as they would be built: tars, configurations, manifests.

use std::io::Write;
use std::path::Path;

use image::Digest;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// A layer, as it travels.
#[derive(Debug, Clone)]
pub(crate) struct LayerBlob {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tar: Vec<u8>,
}

impl LayerBlob {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub(crate) fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }
}

/// A tar of plain files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        builder.append_data(&mut header, name, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn layer(tar: Vec<u8>, packing: Packing) -> LayerBlob {
    let (media_type, bytes) = match packing {
        Packing::None => ("application/vnd.oci.image.layer.v1.tar", tar.clone()),
        Packing::Gzip => (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            gzip(&tar),
        ),
        Packing::Zstd => (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            zstd::encode_all(&tar[..], 1).unwrap(),
        ),
    };
    LayerBlob {
        media_type,
        bytes,
        tar,
    }
}

/// An image, ready to be served or written.
#[derive(Debug, Clone)]
pub(crate) struct TestImage {
    pub(crate) layers: Vec<LayerBlob>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl TestImage {
    pub(crate) fn new(layers: Vec<LayerBlob>) -> TestImage {
        TestImage::for_platform(layers, "linux", "amd64")
    }

    pub(crate) fn for_platform(layers: Vec<LayerBlob>, os: &str, architecture: &str) -> TestImage {
        let diff_ids: Vec<Digest> = layers.iter().map(LayerBlob::diff_id).collect();
        let config = serde_json::json!({
            "created": "2026-01-02T03:04:05Z",
            "architecture": architecture,
            "os": os,
            "config": { "Env": ["A=1"], "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = TestImage::manifest_of(&config, &layers);
        TestImage {
            layers,
            config,
            manifest,
        }
    }

    fn manifest_of(config: &[u8], layers: &[LayerBlob]) -> Vec<u8> {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                serde_json::json!({
                    "mediaType": layer.media_type,
                    "digest": layer.digest(),
                    "size": layer.bytes.len(),
                })
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(config),
                "size": config.len(),
            },
            "layers": layers,
        });
        serde_json::to_vec(&manifest).unwrap()
    }

    /// Three layers, one of each packing, with `megabytes` of noise in the last.
    pub(crate) fn sample(megabytes: usize) -> TestImage {
        TestImage::new(vec![
            layer(
                tar(&[("etc/hostname", b"hull"), ("bin/true", b"#!")]),
                Packing::Gzip,
            ),
            layer(tar(&[("etc/motd", b"welcome aboard")]), Packing::None),
            layer(
                tar(&[("noise", &noise(megabytes as u64, megabytes << 20))]),
                Packing::Zstd,
            ),
        ])
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The blobs: configuration and layers.
    pub(crate) fn blobs(&self) -> Vec<Vec<u8>> {
        let mut blobs = vec![self.config.clone()];
        blobs.extend(self.layers.iter().map(|layer| layer.bytes.clone()));
        blobs
    }

    /// What an index says of this image.
    pub(crate) fn entry(&self, os: &str, architecture: &str) -> serde_json::Value {
        serde_json::json!({
            "mediaType": OCI_MANIFEST,
            "digest": self.digest(),
            "size": self.manifest.len(),
            "platform": { "os": os, "architecture": architecture },
        })
    }

    /// Writes an OCI layout with this image as `name`.
    pub(crate) fn write_layout(&self, folder: &Path, name: &str) {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let mut all = self.blobs();
        all.push(self.manifest.clone());
        for blob in all {
            std::fs::write(blobs.join(Digest::of(&blob).hex()), blob).unwrap();
        }
        std::fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        let mut entry = self.entry("linux", "amd64");
        entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": name });
        std::fs::write(folder.join("index.json"), index(&[entry])).unwrap();
    }

    /// What `docker save` wrote before version 25.
    pub(crate) fn docker_archive(&self, tags: &[&str]) -> Vec<u8> {
        let config = format!("{}.json", self.id().hex());
        let paths: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("{}/layer.tar", layer.diff_id().hex()))
            .collect();
        let manifest = serde_json::json!([{ "Config": config, "RepoTags": tags, "Layers": paths }])
            .to_string();
        let mut files: Vec<(&str, &[u8])> = vec![(&config, &self.config)];
        for (path, layer) in paths.iter().zip(&self.layers) {
            files.push((path, &layer.tar));
        }
        files.push(("manifest.json", manifest.as_bytes()));
        tar(&files)
    }
}

/// An index of these entries.
pub(crate) fn index(entries: &[serde_json::Value]) -> Vec<u8> {
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": entries,
    });
    serde_json::to_vec(&index).unwrap()
}

/// A folder as a tar, as `tar -C FOLDER -c .` makes it.
pub(crate) fn tar_of_folder(folder: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", folder).unwrap();
    builder.into_inner().unwrap()
}
