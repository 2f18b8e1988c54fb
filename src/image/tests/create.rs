//! Images that are made here, as by a commit or a step of a build.

mod support;

use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use image::erofs::Reader;
use image::store::{DeleteOptions, Error as StoreError};
use image::{Cause, Digest, Image, NewImage, Platform, Source, Store, manifest};
use support::images::{Packing, TestImage, gzip, layer, tar};
use support::{chain, store};

fn put(store: &Store, image: &TestImage, names: &[&str]) -> Image {
    let archive = image.docker_archive(names);
    store
        .import(Source::Reader(&mut &archive[..]), None, &())
        .unwrap()
        .remove(0)
}

fn new<'a>(base: Option<&'a Image>, layer: Option<&'a mut dyn Read>) -> NewImage<'a> {
    NewImage {
        base,
        layer,
        config: None,
        platform: Platform::native(),
        author: Some("me".into()),
        created: UNIX_EPOCH + Duration::new(1_795_340_428, 500_000_000),
        created_by: "/bin/sh -c true".into(),
        comment: Some("done".into()),
        names: vec!["new:1".parse().unwrap()],
    }
}

#[test]
fn a_layer_above_an_image_makes_another() {
    let (_folder, store) = store();
    let mut sample = TestImage::sample(1);
    let mut config: serde_json::Value = serde_json::from_slice(&sample.config).unwrap();
    config["config"]["Healthcheck"] = serde_json::json!({ "Test": ["NONE"] });
    config["container_config"] = serde_json::json!({ "Hostname": "builder" });
    sample.config = serde_json::to_vec(&config).unwrap();
    let base = put(&store, &sample, &["base:1"]);
    // A whiteout, and a hard link into a layer below.
    let top = tar(&[("etc/.wh.motd", b""), ("new", b"file")]);
    for packed in [top.clone(), gzip(&top)] {
        let image = store.create(new(Some(&base), Some(&mut &packed[..])), &());
        let image = image.unwrap();
        assert_eq!(image.layers.len(), 4);
        let details = store.details(&image).unwrap();
        assert_eq!(details.diff_ids[3], Digest::of(&top));
        assert_eq!(details.config["created"], "2026-11-22T09:40:28.5Z");
        assert_eq!(details.config["author"], "me");
        assert_eq!(details.config["config"]["Healthcheck"]["Test"][0], "NONE");
        assert_eq!(details.config["config"]["Env"][0], "A=1");
        assert!(details.config.get("container_config").is_none());
        // The base told nothing of its three layers.
        let history = store.history(&image).unwrap();
        assert_eq!(history.len(), 4);
        assert_eq!(history[0].comment, "done");
        assert_eq!(history[0].size_bytes, image.layers[3].size_bytes);
        let reader = Reader::open(std::fs::File::open(&image.layers[3].path).unwrap()).unwrap();
        assert!(reader.lookup(b"new").unwrap().is_some());
        assert_eq!(store.find("new:1").unwrap().unwrap(), image);
    }
    assert_eq!(
        store.images().unwrap().len(),
        2,
        "the same parts, the same image"
    );
    let mut archive = Vec::new();
    store.save(&["new:1"], &mut archive, &()).unwrap();
}

#[test]
fn a_configuration_alone_can_change() {
    let (_folder, store) = store();
    let base = put(&store, &TestImage::sample(1), &["base:1"]);
    let mut changed = new(Some(&base), None);
    changed.config = Some(serde_json::json!({ "Cmd": ["/x"], "OnBuild": ["RUN y"] }));
    let image = store.create(changed, &()).unwrap();
    assert_eq!(image.layers, base.layers);
    assert_ne!(image.id, base.id);
    let details = store.details(&image).unwrap();
    assert_eq!(details.config["config"]["OnBuild"][0], "RUN y");
    assert!(details.config["config"].get("Env").is_none());
    let history = store.history(&image).unwrap();
    assert!(history[0].empty_layer && history[0].size_bytes == 0);
}

#[test]
fn a_root_file_system_with_changes_is_an_image_of_any_platform() {
    let (_folder, store) = store();
    let rootfs = tar(&[("bin/true", b"#!")]);
    let mut layer = &rootfs[..];
    let mut import = new(None, Some(&mut layer));
    import.platform = "linux/arm/v7".parse().unwrap();
    import.config = Some(serde_json::json!({ "Cmd": ["/bin/true"] }));
    let image = store.create(import, &()).unwrap();
    assert_eq!(image.platform().to_string(), "linux/arm/v7");
    assert_eq!(
        store.details(&image).unwrap().diff_ids,
        [Digest::of(&rootfs)]
    );
}

#[test]
fn what_cannot_be_an_image_leaves_nothing_behind() {
    let (folder, store) = store();
    let base = put(&store, &TestImage::sample(1), &["base:1"]);
    let before = support::files(&folder.path().join("store"), "layers");
    let cause = |new: NewImage<'_>| {
        let error = store.create(new, &()).unwrap_err();
        let text = chain(&error);
        (
            text,
            matches!(
                error.cause(),
                Some(Cause::Store(StoreError::Corrupt { .. }))
            ),
        )
    };
    let (text, corrupt) = cause(new(Some(&base), Some(&mut &b"no tar at all"[..])));
    assert!(corrupt, "{text}");
    let mut wrong = new(Some(&base), None);
    wrong.config = Some(serde_json::json!({ "Env": 7 }));
    assert!(cause(wrong).0.contains("image configuration is malformed"));
    let error = store.create(new(None, None), &()).unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Manifest(manifest::Error::NoLayers))
    ));
    let mut named = new(Some(&base), None);
    named.names = vec![format!("a@{}", base.id).parse().unwrap()];
    assert!(cause(named).0.contains("digest"));
    store.delete("base:1", &DeleteOptions::default()).unwrap();
    assert!(cause(new(Some(&base), None)).0.contains("no image"));
    store.repair().unwrap();
    assert!(support::files(&folder.path().join("store"), "layers").len() <= before.len());
}

#[test]
fn an_image_has_no_more_layers_than_can_be_mounted() {
    let (_folder, store) = store();
    let same = layer(tar(&[("x", b"1")]), Packing::None);
    let base = put(&store, &TestImage::new(vec![same; 240]), &["base:1"]);
    let top = tar(&[("y", b"1")]);
    let error = store
        .create(new(Some(&base), Some(&mut &top[..])), &())
        .unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Manifest(manifest::Error::TooManyLayers {
            count: 241
        }))
    ));
}
