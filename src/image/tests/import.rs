//! Imports of archives of every kind, and of damaged and malicious ones.

mod support;

use std::path::Path;

use image::{
    Cause, Digest, Error, Image, Reference, Source, Store, import, manifest, store as image_store,
};
use support::images::{
    self, LayerBlob, Packing, TestImage, gzip, index, layer, tar, tar_of_folder,
};
use support::{Recorder, chain, files, store};

fn import(store: &Store, path: &Path) -> image::Result<Vec<Image>> {
    store.import(Source::Path(path), None, &())
}

fn stream(store: &Store, mut bytes: &[u8]) -> image::Result<Vec<Image>> {
    store.import(Source::Reader(&mut bytes), None, &())
}

fn archive_error(error: Error) -> import::Error {
    let Error::Import { source, .. } = error else {
        panic!("{}", chain(&error));
    };
    match *source {
        Cause::Archive(error) => error,
        other => panic!("{}", chain(&other)),
    }
}

/// The sample image as a layout in a folder of its own.
fn layout() -> (tempfile::TempDir, TestImage) {
    let folder = tempfile::tempdir().unwrap();
    let image = TestImage::sample(1);
    image.write_layout(folder.path(), "example.org/app:1");
    (folder, image)
}

fn blob(layout: &Path, digest: Digest) -> std::path::PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

#[test]
fn a_root_file_system_is_what_is_said_of_it_and_images_are_what_they_say() {
    let (_folder, store) = store();
    let config = serde_json::json!({ "Cmd": ["x"] });
    let rootfs = image::RootFs {
        config: Some(&config),
        comment: Some("mine"),
    };
    let import = |mut bytes: &[u8]| {
        store.import_rootfs_or_images(Source::Reader(&mut bytes), None, rootfs, &())
    };
    let image = import(&tar(&[("bin/x", b"x")])).unwrap().remove(0);
    assert_eq!(store.details(&image).unwrap().config["config"], config);
    assert_eq!(store.history(&image).unwrap()[0].comment, "mine");
    let archive = TestImage::sample(1).docker_archive(&["a:1"]);
    let error = import(&archive).unwrap_err();
    assert!(chain(&error).contains("it holds images"), "{error}");
}

#[test]
fn the_same_image_comes_out_of_every_kind_of_archive() {
    let (layout, image) = layout();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let oci = tar_of_folder(layout.path());
    let docker = image.docker_archive(&["example.org/app:1"]);
    let hybrid = {
        let config = format!("blobs/sha256/{}", image.id().hex());
        let layers: Vec<String> = image
            .layers
            .iter()
            .map(|layer| format!("blobs/sha256/{}", layer.digest().hex()))
            .collect();
        let list = serde_json::json!([
            { "Config": config, "RepoTags": ["example.org/app:1"], "Layers": layers }
        ]);
        std::fs::write(layout.path().join("manifest.json"), list.to_string()).unwrap();
        let tar = tar_of_folder(layout.path());
        std::fs::remove_file(layout.path().join("manifest.json")).unwrap();
        tar
    };
    for path in [
        layout.path().to_owned(),
        file("oci.tar", &oci),
        file("oci.tar.gz", &gzip(&oci)),
        file("docker.tar", &docker),
        file("docker.tar.zst", &zstd::encode_all(&docker[..], 1).unwrap()),
        file("hybrid.tar", &hybrid),
    ] {
        let (folder, store) = store();
        let found = import(&store, &path)
            .unwrap_or_else(|error| panic!("{}: {}", path.display(), chain(&error)));
        check(&store, &found, &image);
        assert_eq!(files(&folder.path().join("store"), "tmp"), [""; 0]);
    }
    for bytes in [&oci, &docker, &hybrid, &gzip(&docker)] {
        let (_folder, store) = store();
        check(&store, &stream(&store, bytes).unwrap(), &image);
    }
}

fn check(store: &Store, found: &[Image], image: &TestImage) {
    let [found] = found else {
        panic!("{} images", found.len())
    };
    assert_eq!(found.id, image.id());
    let name: Reference = "example.org/app:1".parse().unwrap();
    assert_eq!(found.names, std::slice::from_ref(&name));
    assert_eq!(&store.image(&name).unwrap().unwrap(), found);
    for (stored, made) in found.layers.iter().zip(&image.layers) {
        assert_eq!(stored.diff_id, made.diff_id());
    }
}

#[test]
fn a_given_name_takes_the_place_of_the_archives() {
    let (layout, image) = layout();
    let (_folder, store) = store();
    let name: Reference = "mine:2".parse().unwrap();
    let found = store
        .import(Source::Path(layout.path()), Some(&name), &())
        .unwrap();
    assert_eq!((found[0].id, &found[0].names), (image.id(), &vec![name]));
    assert_eq!(
        store.image(&"example.org/app:1".parse().unwrap()).unwrap(),
        None
    );
}

#[test]
fn several_images_keep_their_names_and_cannot_share_one() {
    let (first, second) = (TestImage::sample(1), TestImage::sample(2));
    let folder = tempfile::tempdir().unwrap();
    first.write_layout(folder.path(), "a:1");
    second.write_layout(folder.path(), "b:1");
    let mut entries = [
        first.entry("linux", "amd64"),
        second.entry("linux", "amd64"),
    ];
    entries[0]["annotations"] =
        serde_json::json!({ "io.containerd.image.name": "docker.io/library/a:1" });
    entries[1]["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "1" });
    std::fs::write(folder.path().join("index.json"), index(&entries)).unwrap();
    let (_folder, store) = store();
    let found = import(&store, folder.path()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].names, ["a:1".parse().unwrap()]);
    assert_eq!(found[1].names, [], "a tag alone is no name");
    let name = "c".parse().unwrap();
    let error = store
        .import(Source::Path(folder.path()), Some(&name), &())
        .unwrap_err();
    assert!(matches!(
        archive_error(error),
        import::Error::SeveralImages { count: 2 }
    ));
}

#[test]
fn a_layout_for_several_machines_yields_the_one_for_this() {
    let (arm, amd) = (
        TestImage::for_platform(TestImage::sample(1).layers, "linux", "arm64"),
        TestImage::sample(2),
    );
    let folder = tempfile::tempdir().unwrap();
    arm.write_layout(folder.path(), "x");
    amd.write_layout(folder.path(), "x");
    let entries = [arm.entry("linux", "arm64"), amd.entry("linux", "amd64")];
    // Flat, and as an index in the index.
    std::fs::write(folder.path().join("index.json"), index(&entries)).unwrap();
    let (_a, flat) = store();
    assert_eq!(import(&flat, folder.path()).unwrap()[0].id, amd.id());
    let inner = index(&entries);
    std::fs::write(blob(folder.path(), Digest::of(&inner)), &inner).unwrap();
    let outer = serde_json::json!({
        "mediaType": images::OCI_INDEX, "digest": Digest::of(&inner), "size": inner.len(),
    });
    std::fs::write(folder.path().join("index.json"), index(&[outer])).unwrap();
    let (_b, nested) = store();
    assert_eq!(import(&nested, folder.path()).unwrap()[0].id, amd.id());
    std::fs::write(folder.path().join("index.json"), index(&entries[..1])).unwrap();
    let (_c, other) = store();
    let error = import(&other, folder.path()).unwrap_err();
    assert!(
        chain(&error).contains("it has linux/arm64"),
        "{}",
        chain(&error)
    );
    assert!(matches!(
        error.cause(),
        Some(Cause::Manifest(manifest::Error::Platform { .. }))
    ));
}

#[test]
fn a_root_file_system_becomes_an_image_of_one_layer() {
    let rootfs = tar(&[("bin/sh", b"#!"), ("etc/passwd", b"root:x:0:0::/:")]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rootfs.tar");
    std::fs::write(&path, &rootfs).unwrap();
    let (_folder, store) = store();
    let name: Reference = "debian".parse().unwrap();
    let progress = Recorder::default();
    let found = store
        .import(Source::Path(&path), Some(&name), &progress)
        .unwrap();
    assert_eq!(found[0].layers.len(), 1);
    assert_eq!(found[0].layers[0].diff_id, Digest::of(&rootfs));
    assert_eq!(found[0].created_s, None);
    assert_eq!(progress.count("Stored"), 1);
    // The same image results from every packing.
    for packed in [
        rootfs.clone(),
        gzip(&rootfs),
        zstd::encode_all(&rootfs[..], 1).unwrap(),
    ] {
        assert_eq!(stream(&store, &packed).unwrap()[0].id, found[0].id);
    }
}

#[test]
fn other_files_are_refused() {
    let (_folder, store) = store();
    for bytes in [&b""[..], b"hello", &[0; 10240], &[7; 10240]] {
        let error = archive_error(stream(&store, bytes).unwrap_err());
        assert!(matches!(error, import::Error::NotAnImage), "{error:?}");
        assert!(error.help().unwrap().contains("OCI layout"));
    }
    let folder = tempfile::tempdir().unwrap();
    let error = archive_error(import(&store, folder.path()).unwrap_err());
    assert!(matches!(error, import::Error::NotAnImage));
    let error = archive_error(import(&store, Path::new("/nonexistent/x.tar")).unwrap_err());
    assert!(matches!(error, import::Error::Read { .. }));
    let mut xz = b"\xfd7zXZ\0".to_vec();
    xz.resize(4096, 0);
    let error = stream(&store, &xz).unwrap_err();
    assert!(
        chain(&error).contains("xz compression is not supported"),
        "{}",
        chain(&error)
    );
}

#[test]
fn wrong_digests_are_noticed_in_every_part() {
    let image = TestImage::sample(1);
    for digest in [
        image.digest(),
        image.id(),
        image.layers[0].digest(),
        image.layers[2].digest(),
    ] {
        let (layout, _) = layout();
        let path = blob(layout.path(), digest);
        let mut bytes = std::fs::read(&path).unwrap();
        // In a comment or padding that parsers and decompressors pass over, where there is any.
        let at = bytes.len() - 1;
        bytes[at] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        let (folder, store) = store();
        let error = import(&store, layout.path()).unwrap_err();
        let text = chain(&error);
        assert!(
            text.contains("digest") || text.contains("damaged"),
            "{text}"
        );
        assert_eq!(store.images().unwrap(), []);
        // The bottom layer may have been stored before a wrong digest higher up; a layer with a
        // wrong digest never is.
        let bad = digest.hex();
        assert!(
            !files(&folder.path().join("store"), "layers")
                .iter()
                .any(|file| file.contains(&bad))
        );
    }
}

#[test]
fn a_layer_whose_packed_form_has_another_digest_is_not_stored() {
    // Other bytes that unpack to the right tar: only the digest of the packed form differs.
    let (layout, image) = layout();
    let repacked = gzip(&image.layers[1].tar);
    let path = blob(layout.path(), image.layers[1].digest());
    let mut manifest = String::from_utf8(image.manifest.clone()).unwrap();
    let size = |bytes: &[u8]| format!("\"size\":{}", bytes.len());
    manifest = manifest.replace(&size(&image.layers[1].bytes), &size(&repacked));
    std::fs::write(path, &repacked).unwrap();
    let manifest = manifest.into_bytes();
    std::fs::write(blob(layout.path(), Digest::of(&manifest)), &manifest).unwrap();
    let altered = TestImage { manifest, ..image };
    let entry = altered.entry("linux", "amd64");
    std::fs::write(layout.path().join("index.json"), index(&[entry])).unwrap();
    let (folder, store) = store();
    let error = import(&store, layout.path()).unwrap_err();
    assert!(chain(&error).contains("states digest"), "{}", chain(&error));
    assert_eq!(
        files(&folder.path().join("store"), "layers").len(),
        1,
        "the unchanged one below"
    );
}

#[test]
fn links_out_of_a_layout_are_not_followed() {
    let image = TestImage::sample(1);
    let outside = tempfile::tempdir().unwrap();
    for digest in [image.digest(), image.id(), image.layers[0].digest()] {
        let (layout, _) = layout();
        let path = blob(layout.path(), digest);
        let hidden = outside.path().join(digest.hex());
        std::fs::rename(&path, &hidden).unwrap();
        std::os::unix::fs::symlink(&hidden, &path).unwrap();
        let (_folder, store) = store();
        let error = archive_error(import(&store, layout.path()).unwrap_err());
        assert!(matches!(error, import::Error::UnsafeName { .. }), "{error}");
    }
    let (layout, _) = layout();
    std::fs::rename(layout.path().join("blobs"), outside.path().join("blobs")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("blobs"), layout.path().join("blobs")).unwrap();
    let (_folder, store) = store();
    let error = archive_error(import(&store, layout.path()).unwrap_err());
    assert!(matches!(error, import::Error::UnsafeName { .. }), "{error}");
}

#[test]
fn fifos_and_folders_are_not_blobs() {
    let (layout, image) = layout();
    let path = blob(layout.path(), image.id());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (_folder, store) = store();
    let error = archive_error(import(&store, layout.path()).unwrap_err());
    assert!(matches!(error, import::Error::Missing { .. }), "{error}");
    std::fs::remove_dir(&path).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let error = archive_error(import(&store, layout.path()).unwrap_err());
    assert!(matches!(error, import::Error::Missing { .. }), "{error}");
}

#[test]
fn incomplete_archives_are_refused() {
    let image = TestImage::sample(1);
    let docker = |config: &str, layers: &[&str]| {
        let list = serde_json::json!([{ "Config": config, "RepoTags": null, "Layers": layers }]);
        let name = format!("{}.json", image.id().hex());
        tar(&[
            ("manifest.json", list.to_string().as_bytes()),
            (&name, &image.config),
        ])
    };
    let config = format!("{}.json", image.id().hex());
    let (_folder, store) = store();
    for archive in [
        docker("none.json", &["a", "b", "c"]),
        docker("../../etc/passwd", &["a", "b", "c"]),
        docker(&config, &["a", "b", "c"]),
        docker(&config, &["/etc/passwd", "../x", "c"]),
    ] {
        let error = archive_error(stream(&store, &archive).unwrap_err());
        assert!(matches!(error, import::Error::Missing { .. }), "{error}");
    }
    let error = stream(&store, &docker(&config, &["a"])).unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Manifest(manifest::Error::LayerCount { .. }))
    ));
    let other = tar(&[("manifest.json", b"[]")]);
    assert!(matches!(
        archive_error(stream(&store, &other).unwrap_err()),
        import::Error::Empty
    ));
    let other = tar(&[("manifest.json", b"{")]);
    assert!(matches!(
        archive_error(stream(&store, &other).unwrap_err()),
        import::Error::Syntax { .. }
    ));
}

#[test]
fn names_that_lead_out_of_an_archive_are_refused() {
    let mut header = tar::Header::new_gnu();
    let name = b"../manifest.json";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(0);
    header.set_cksum();
    let mut bytes = tar(&[("manifest.json", b"[]")]);
    bytes.truncate(1024);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend([0; 1024]);
    let (_folder, store) = store();
    let error = archive_error(stream(&store, &bytes).unwrap_err());
    assert!(matches!(error, import::Error::UnsafeName { .. }), "{error}");
}

#[test]
fn a_truncated_archive_is_malformed() {
    let image = TestImage::sample(1);
    let mut bytes = image.docker_archive(&["a:1"]);
    bytes.truncate(bytes.len() / 2);
    let (_folder, store) = store();
    let error = archive_error(stream(&store, &bytes).unwrap_err());
    assert!(matches!(error, import::Error::Malformed { .. }), "{error}");
}

#[test]
fn a_name_that_is_not_a_reference_is_an_error() {
    let image = TestImage::sample(1);
    let (_folder, store) = store();
    let error = archive_error(stream(&store, &image.docker_archive(&["Not A Name"])).unwrap_err());
    assert!(matches!(error, import::Error::Name { .. }), "{error}");
}

#[test]
fn a_configuration_with_a_wrong_diff_id_is_noticed() {
    let mut image = TestImage::sample(1);
    let other: LayerBlob = layer(tar(&[("x", b"")]), Packing::None);
    let text = String::from_utf8(image.config.clone()).unwrap();
    let text = text.replace(
        &image.layers[1].diff_id().to_string(),
        &other.diff_id().to_string(),
    );
    image.config = text.into_bytes();
    let path = format!("{}.json", image.id().hex());
    let list = serde_json::json!([{ "Config": path, "RepoTags": [], "Layers": ["0", "1", "2"] }]);
    let archive = tar(&[
        ("manifest.json", list.to_string().as_bytes()),
        (&path, &image.config),
        ("0", &image.layers[0].tar),
        ("1", &image.layers[1].tar),
        ("2", &image.layers[2].tar),
    ]);
    let (_folder, store) = store();
    let error = stream(&store, &archive).unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Store(image_store::Error::DiffId { .. }))
    ));
}

#[test]
fn a_pipe_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    let image = TestImage::sample(1);
    let archive = image.docker_archive(&["example.org/app:1"]);
    let (_folder, store) = store();
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&path, &archive).unwrap());
        check(&store, &import(&store, &path).unwrap(), &image);
    });
}
