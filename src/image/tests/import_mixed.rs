//! Archives with other content than images for this machine: it is passed over and reported.

mod support;

use std::path::Path;

use image::{Cause, Digest, Image, Source, Store, manifest};
use support::images::{OCI_MANIFEST, TestImage, index, tar, tar_of_folder};
use support::{Recorder, chain, store};

fn import(store: &Store, path: &Path) -> (image::Result<Vec<Image>>, Recorder) {
    let progress = Recorder::default();
    (store.import(Source::Path(path), None, &progress), progress)
}

/// Puts a document into a layout; returns what its index says of it.
fn put(layout: &Path, document: &serde_json::Value, media_type: &str) -> serde_json::Value {
    let bytes = serde_json::to_vec(document).unwrap();
    let digest = Digest::of(&bytes);
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
    serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

/// A manifest with this type of configuration and this type of layer.
fn artifact(config: &str, layer: &str) -> serde_json::Value {
    let blob = |media_type: &str| serde_json::json!({ "mediaType": media_type, "digest": Digest::of(b"{}"), "size": 2 });
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": blob(config),
        "layers": [blob(layer)],
    })
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[test]
fn artifacts_beside_an_image_in_a_layout_are_passed_over_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let image = TestImage::sample(1);
    image.write_layout(folder.path(), "example.org/app:1");
    let chart = put(
        folder.path(),
        &artifact("application/vnd.cncf.helm.config.v1+json", GZIP),
        OCI_MANIFEST,
    );
    let signature = put(
        folder.path(),
        &artifact(CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json"),
        OCI_MANIFEST,
    );
    let old_artifact = put(
        folder.path(),
        &serde_json::json!({ "blobs": [] }),
        "application/vnd.oci.artifact.manifest.v1+json",
    );
    let foreign = serde_json::json!({ "digest": format!("sha512:{}", "0".repeat(128)), "size": 1 });
    let arm = serde_json::json!({
        "mediaType": OCI_MANIFEST, "digest": Digest::of(b"not there"), "size": 9,
        "platform": { "os": "linux", "architecture": "arm64" },
    });
    let mut entry = image.entry("linux", "amd64");
    // A name that is not a reference does not refuse the image either.
    entry["annotations"] =
        serde_json::json!({ "org.opencontainers.image.ref.name": "UPPER/\u{1b}[2J:1" });
    let others = [chart, signature, old_artifact, foreign, arm];
    let mut entries = others.to_vec();
    entries.push(entry);
    std::fs::write(folder.path().join("index.json"), index(&entries)).unwrap();
    let (_folder, store) = store();
    let (found, progress) = import(&store, folder.path());
    let found = found.unwrap();
    assert_eq!((found.len(), found[0].id), (1, image.id()));
    assert_eq!(progress.count("PassedOver"), others.len() + 1);
    for part in [
        "helm",
        "simplesigning",
        "artifact.manifest",
        "sha512",
        "linux/arm64",
        "UPPER",
    ] {
        let event = progress.find_with("PassedOver", part);
        assert!(
            event.is_some_and(|event| !event.contains('\u{1b}')),
            "{part}"
        );
    }
    // With nothing else in it, the layout is refused for what it holds.
    std::fs::write(folder.path().join("index.json"), index(&others[..1])).unwrap();
    let (error, _) = import(&store, folder.path());
    let error = error.unwrap_err();
    assert!(
        matches!(
            error.cause(),
            Some(Cause::Manifest(manifest::Error::NotAnImage { .. }))
        ),
        "{}",
        chain(&error)
    );
}

#[test]
fn damage_beside_an_image_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let image = TestImage::sample(1);
    image.write_layout(folder.path(), "example.org/app:1");
    let mut damaged = put(folder.path(), &artifact(CONFIG, GZIP), OCI_MANIFEST);
    damaged["digest"] = serde_json::json!(image.id());
    let entries = [damaged, image.entry("linux", "amd64")];
    std::fs::write(folder.path().join("index.json"), index(&entries)).unwrap();
    let (_folder, store) = store();
    let (error, _) = import(&store, folder.path());
    assert!(matches!(
        error.unwrap_err().cause(),
        Some(Cause::Archive(_))
    ));
}

#[test]
fn images_of_other_machines_in_a_docker_archive_are_passed_over() {
    let image = TestImage::sample(1);
    let arm = TestImage::for_platform(image.layers.clone(), "linux", "arm64");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut list = Vec::new();
    for (image, tag) in [(&arm, "app:arm"), (&image, "app:1")] {
        let config = format!("{}.json", image.id().hex());
        let layers: Vec<String> = (0..image.layers.len())
            .map(|n| format!("{n}.tar"))
            .collect();
        list.push(serde_json::json!({ "Config": config, "RepoTags": [tag], "Layers": layers }));
        files.push((config, image.config.clone()));
    }
    for (number, layer) in image.layers.iter().enumerate() {
        files.push((format!("{number}.tar"), layer.tar.clone()));
    }
    files.push(("manifest.json".into(), serde_json::to_vec(&list).unwrap()));
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let (folder, store) = store();
    let path = folder.path().join("saved.tar");
    std::fs::write(&path, tar(&files)).unwrap();
    let (found, progress) = import(&store, &path);
    let found = found.unwrap();
    assert_eq!((found.len(), found[0].id), (1, image.id()));
    assert!(progress.find_with("PassedOver", "app:arm").is_some());
}

#[test]
fn a_manifest_json_of_something_else_does_not_hide_a_layout() {
    let layout = tempfile::tempdir().unwrap();
    let image = TestImage::sample(1);
    image.write_layout(layout.path(), "example.org/app:1");
    std::fs::write(layout.path().join("manifest.json"), r#"{"name":"web app"}"#).unwrap();
    let (folder, store) = store();
    assert_eq!(import(&store, layout.path()).0.unwrap()[0].id, image.id());
    let path = folder.path().join("layout.tar");
    std::fs::write(&path, tar_of_folder(layout.path())).unwrap();
    assert_eq!(import(&store, &path).0.unwrap()[0].id, image.id());
}

#[test]
fn blobs_that_are_hard_links_in_a_tar_are_found() {
    let layout = tempfile::tempdir().unwrap();
    let image = TestImage::sample(1);
    image.write_layout(layout.path(), "example.org/app:1");
    let blob = |digest: Digest| layout.path().join("blobs/sha256").join(digest.hex());
    // As tar writes them: the file by the name that comes first, a link by the other.
    std::fs::hard_link(blob(image.id()), layout.path().join("0-config")).unwrap();
    let (folder, store) = store();
    let path = folder.path().join("layout.tar");
    let made = std::process::Command::new("tar")
        .args(["--sort=name", "-cf"])
        .arg(&path)
        .arg("-C")
        .arg(layout.path())
        .arg(".")
        .status()
        .unwrap();
    assert!(made.success());
    assert_eq!(import(&store, &path).0.unwrap()[0].id, image.id());
}
