//! Images to archives and back: the same ids, the same diffIDs; other tools read them, too.

mod support;

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use image::store::{Damage, Error as StoreError};
use image::{Cause, Error, Image, Loaded, Platform, Source, Store};
use support::images::{OCI_INDEX, Packing, TestImage, gzip, index, layer, tar};
use support::{chain, files, skip, store};

fn put(store: &Store, image: &TestImage, names: &[&str]) -> Image {
    let archive = image.docker_archive(names);
    store
        .import(Source::Reader(&mut &archive[..]), None, &())
        .unwrap()
        .remove(0)
}

fn save(store: &Store, names: &[&str]) -> Vec<u8> {
    let mut archive = Vec::new();
    store.save(names, &mut archive, &()).unwrap();
    archive
}

fn load(store: &Store, archive: &[u8]) -> Result<Vec<Loaded>, Error> {
    store.load_archive(Source::Reader(&mut &archive[..]), None, &())
}

fn diff_ids(store: &Store, image: &Image) -> Vec<image::Digest> {
    store.details(image).unwrap().diff_ids
}

/// The text of a file of an archive.
fn text(archive: &[u8], name: &str) -> String {
    let mut tar = tar::Archive::new(archive);
    let mut entries = tar.entries().unwrap().map(Result::unwrap);
    let mut entry = entries
        .find(|entry| entry.path_bytes() == name.as_bytes())
        .unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    text
}

/// Two images that share all layers of the first.
fn pair() -> (TestImage, TestImage) {
    let base = TestImage::sample(1);
    let mut layers = base.layers.clone();
    layers.push(layer(tar(&[("more", b"x")]), Packing::Gzip));
    (base, TestImage::new(layers))
}

#[test]
fn what_is_saved_is_loaded_with_the_same_ids_and_names() {
    let (_folder, first) = store();
    let (base, derived) = pair();
    let base = put(&first, &base, &["base:1", "base:2"]);
    let derived = put(&first, &derived, &["localhost:5000/x/derived:1"]);
    let names = ["base:2", "localhost:5000/x/derived:1", "base:2"];
    let archive = save(&first, &names);
    assert_eq!(archive, save(&first, &names), "the same bytes each time");
    for packed in [
        archive.clone(),
        gzip(&archive),
        zstd::encode_all(&archive[..], 1).unwrap(),
    ] {
        let (_folder, second) = store();
        let loaded = load(&second, &packed).unwrap();
        assert_eq!(loaded.len(), 2);
        for (loaded, (original, name)) in
            loaded.iter().zip([(&base, "base:2"), (&derived, names[1])])
        {
            assert_eq!(loaded.image.id, original.id);
            assert_eq!(loaded.names, [name.parse().unwrap()]);
            assert_eq!(diff_ids(&second, &loaded.image), diff_ids(&first, original));
        }
        assert_eq!(save(&second, &names), archive, "it travels on unchanged");
    }
}

#[test]
fn shared_blobs_are_written_once() {
    let (_folder, store) = store();
    let (base, derived) = pair();
    put(&store, &base, &["base:1"]);
    put(&store, &derived, &["derived:1"]);
    let archive = save(&store, &["base:1", "derived:1"]);
    let mut tar = tar::Archive::new(&archive[..]);
    let mut names: Vec<_> = tar
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    // Two folders, three documents, two configurations, two manifests, four layers.
    assert_eq!(count, 13);
}

#[test]
fn a_repository_means_all_its_tags_and_an_id_none() {
    let (_folder, store) = store();
    let image = put(&store, &TestImage::sample(1), &["a:1", "a:2", "b:1"]);
    let tags = |archive: Vec<u8>| {
        let manifest: serde_json::Value =
            serde_json::from_str(&text(&archive, "manifest.json")).unwrap();
        manifest[0]["RepoTags"].clone()
    };
    assert_eq!(
        tags(save(&store, &["a"])),
        serde_json::json!(["a:1", "a:2"])
    );
    assert_eq!(
        tags(save(&store, &[&image.id.short()])),
        serde_json::Value::Null
    );
    let error = store.save(&["c"], &mut Vec::new(), &()).unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Store(StoreError::NotFound { .. }))
    ));
}

#[test]
fn skopeo_reads_both_forms_of_the_archive() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        return skip("skopeo is not installed");
    }
    let (folder, store) = store();
    let image = put(&store, &TestImage::sample(1), &["app:1"]);
    let path = folder.path().join("app.tar");
    std::fs::write(&path, save(&store, &["app:1"])).unwrap();
    for (form, reference) in [
        ("docker-archive", "docker.io/library/app:1"),
        ("oci-archive", "1"),
    ] {
        let copied = folder.path().join(form);
        let status = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!("{form}:{}:{reference}", path.display()))
            .arg(format!("dir:{}", copied.display()))
            .status();
        assert!(status.unwrap().success(), "{form}");
        let config = copied.join(image.id.hex());
        assert!(config.exists(), "{form}: the configuration is the same");
    }
}

#[test]
fn what_skopeo_writes_is_loaded() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        return skip("skopeo is not installed");
    }
    let (folder, store) = store();
    // skopeo refuses Docker's media types in an OCI manifest, which the sample has.
    let files = [("a", b"1"), ("b", b"2"), ("c", b"3")];
    let layers = files.map(|(name, contents)| layer(tar(&[(name, contents)]), Packing::None));
    let image = TestImage::new(layers.to_vec());
    image.write_layout(&folder.path().join("layout"), "app:1");
    for form in ["docker-archive", "oci-archive"] {
        let path = folder.path().join(form);
        let status = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!(
                "oci:{}:app:1",
                folder.path().join("layout").display()
            ))
            .arg(format!("{form}:{}:r.example/app:1", path.display()))
            .status();
        assert!(status.unwrap().success(), "{form}");
        let loaded = store.load_archive(Source::Path(&path), None, &()).unwrap();
        assert_eq!(loaded[0].image.layers.len(), 3, "{form}");
    }
}

#[test]
fn a_root_file_system_is_no_archive_of_images() {
    let (_folder, store) = store();
    let rootfs = tar(&[("etc/hostname", b"hull"), ("bin/true", b"#!")]);
    for packed in [rootfs.clone(), gzip(&rootfs)] {
        let error = load(&store, &packed).unwrap_err();
        assert!(matches!(
            error.cause(),
            Some(Cause::Archive(image::import::Error::NotAnImage))
        ));
    }
}

#[test]
fn images_of_other_platforms_are_kept_and_travel() {
    let (_folder, first) = store();
    let layers = TestImage::sample(1).layers;
    let foreign = TestImage::for_platform(layers, "linux", "arm64");
    let image = load(&first, &foreign.docker_archive(&["arm:1"])).unwrap();
    let image = image.into_iter().next().unwrap().image;
    assert_eq!(image.platform().to_string(), "linux/arm64");
    assert!(!image.platform().is_native());
    let archive = save(&first, &["arm:1"]);
    let (_folder, second) = store();
    assert_eq!(load(&second, &archive).unwrap()[0].image.id, foreign.id());
}

/// A layout whose index lists, within another, three platforms, of which it has these.
fn layout(folder: &Path, there: &[&TestImage], listed: [(&TestImage, &str); 3]) {
    for image in there {
        image.write_layout(folder, "");
    }
    let entries = listed.map(|(image, architecture)| image.entry("linux", architecture));
    let inner = index(&entries);
    let digest = image::Digest::of(&inner);
    std::fs::write(folder.join("blobs/sha256").join(digest.hex()), &inner).unwrap();
    let outer = serde_json::json!({
        "mediaType": OCI_INDEX, "digest": digest, "size": inner.len(),
        "annotations": { "io.containerd.image.name": "docker.io/library/app:1" },
    });
    std::fs::write(folder.join("index.json"), index(&[outer])).unwrap();
}

#[test]
fn an_index_may_list_platforms_that_the_archive_does_not_have() {
    let image = |text: &str, architecture: &str| {
        let layers = vec![layer(tar(&[("x", text.as_bytes())]), Packing::Gzip)];
        TestImage::for_platform(layers, "linux", architecture)
    };
    let (amd64, arm64, s390x) = (
        image("1", "amd64"),
        image("2", "arm64"),
        image("3", "s390x"),
    );
    let listed = [(&arm64, "arm64"), (&amd64, "amd64"), (&s390x, "s390x")];
    let arm: Platform = "linux/arm64".parse().unwrap();
    for (there, wanted, expected) in [
        (&[&amd64][..], None, Some(&amd64)),
        (&[&arm64], None, Some(&arm64)),
        (&[&amd64, &arm64], None, Some(&amd64)),
        (&[&amd64, &arm64], Some(&arm), Some(&arm64)),
        (&[&amd64], Some(&arm), None),
    ] {
        let (folder, store) = store();
        let path = folder.path().join("layout");
        layout(&path, there, listed);
        let loaded = store.load_archive(Source::Path(&path), wanted, &());
        match expected {
            Some(expected) => {
                let loaded = loaded.unwrap();
                assert_eq!(loaded[0].image.id, expected.id());
                assert_eq!(loaded[0].names, ["app:1".parse().unwrap()]);
            }
            None => drop(loaded.unwrap_err()),
        }
    }
}

#[test]
fn the_same_blob_twice_in_an_archive_is_one() {
    let (_folder, first) = store();
    let once = tar(&[("x", b"1")]);
    let image = TestImage::new(vec![
        layer(once.clone(), Packing::None),
        layer(once, Packing::None),
    ]);
    put(&first, &image, &["twice:1"]);
    let archive = save(&first, &["twice:1"]);
    // All entries once more, as some tools append them.
    let end = archive.len() - 1024;
    let doubled = [&archive[..end], &archive[..]].concat();
    let (_folder, second) = store();
    let loaded = load(&second, &doubled).unwrap();
    assert_eq!(loaded[0].image.id, image.id());
    assert_eq!(diff_ids(&second, &loaded[0].image).len(), 2);
}

#[test]
fn a_layer_without_a_record_is_told_and_stored_anew_by_the_next_import() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    let sample = TestImage::sample(1);
    let image = put(&store, &sample, &["a:1"]);
    let records = files(&root, "records");
    assert_eq!(records, files(&root, "layers"));
    std::fs::remove_file(root.join("records").join(&records[1])).unwrap();
    assert_eq!(store.find("a:1").unwrap().unwrap(), image, "it still runs");
    let error = store.save(&["a:1"], &mut Vec::new(), &()).unwrap_err();
    assert!(
        matches!(
            error.cause(),
            Some(Cause::Store(StoreError::Damaged {
                damage: Damage::NoRecord,
                ..
            }))
        ),
        "{}",
        chain(&error)
    );
    assert!(error.help().unwrap().contains("pull or import"));
    put(&store, &sample, &["a:1"]);
    save(&store, &["a:1"]);
}

#[test]
fn damage_to_a_layers_file_is_found_while_its_tar_is_rebuilt() {
    let (_folder, store) = store();
    let image = put(&store, &TestImage::sample(1), &["a:1"]);
    let path = &image.layers[2].path;
    let mut permissions = path.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(path, permissions).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"!", 500_000).unwrap();
    let error = store.save(&["a:1"], &mut Vec::new(), &()).unwrap_err();
    assert!(
        chain(&error).contains("comes out with digest"),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_stored_layer_of_the_first_version_of_the_store_is_upgraded() {
    let (folder, first) = store();
    let root = folder.path().join("store");
    let image = put(&first, &TestImage::sample(1), &["a:1"]);
    drop(first);
    // As a hull before records left it.
    let database = rusqlite::Connection::open(root.join("images.db")).unwrap();
    database
        .execute_batch(
            "DROP TABLE blob; ALTER TABLE image ADD COLUMN doomed INTEGER NOT NULL DEFAULT 0; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(database);
    std::fs::remove_dir_all(root.join("records")).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(store.find("a:1").unwrap().unwrap(), image);
    assert!(store.save(&["a:1"], &mut Vec::new(), &()).is_err());
    put(&store, &TestImage::sample(1), &["a:1"]);
    save(&store, &["a:1"]);
}
