//! Pulls from correct registries.

mod support;

use image::{Cause, PullOptions, Reference, Store, manifest, registry};
use support::images::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Packing, TestImage, index, layer, noise,
    tar,
};
use support::server::Server;
use support::{Recorder, chain, files, pull_error, quick, reference, skip, store};

#[test]
fn an_image_with_layers_of_every_packing_arrives() {
    let server = Server::honest();
    let image = TestImage::sample(1);
    server.put_image("team/app", "1", &image);
    let (folder, store) = store();
    let progress = Recorder::default();
    let reference = reference(&server, "team/app:1");
    let pulled = store.pull(&reference, &quick(), &progress).unwrap();
    assert_eq!(pulled.image.id, image.id());
    assert_eq!(pulled.digest, image.digest());
    assert!(!pulled.up_to_date);
    assert_eq!(pulled.image.names, std::slice::from_ref(&reference));
    assert_eq!(pulled.image.digests.len(), 1);
    assert_eq!(pulled.image.created_s, Some(1_767_323_045));
    assert_eq!(
        pulled
            .image
            .config
            .config()
            .as_ref()
            .unwrap()
            .env()
            .as_ref()
            .unwrap()[0],
        "A=1"
    );
    for (stored, made) in pulled.image.layers.iter().zip(&image.layers) {
        assert_eq!(stored.diff_id, made.diff_id());
        let metadata = std::fs::metadata(&stored.path).unwrap();
        assert_eq!(metadata.len(), stored.size_bytes);
        assert!(metadata.permissions().readonly());
    }
    assert_eq!(progress.count("Verified"), 3);
    assert_eq!(progress.count("Stored"), 3);
    let root = folder.path().join("store");
    for empty in ["tmp", "partial", "locks"] {
        assert_eq!(files(&root, empty), [""; 0], "{empty}");
    }
    assert_eq!(store.image(&reference).unwrap().unwrap(), pulled.image);
}

#[test]
fn a_second_pull_fetches_no_blob() {
    let server = Server::honest();
    let image = TestImage::sample(1);
    server.put_image("app", "latest", &image);
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &quick(), &())
        .unwrap();
    let before = server.requests("/blobs/").len();
    let progress = Recorder::default();
    let again = store
        .pull(&reference(&server, "app"), &quick(), &progress)
        .unwrap();
    assert!(again.up_to_date);
    assert_eq!(server.requests("/blobs/").len(), before);
    assert_eq!(progress.count("Exists"), 3);
}

#[test]
fn layers_that_another_image_brought_are_not_fetched_again() {
    let server = Server::honest();
    let base = TestImage::sample(1);
    let mut layers = base.layers.clone();
    layers.push(layer(tar(&[("more", b"x")]), Packing::Gzip));
    let derived = TestImage::new(layers);
    server.put_image("base", "latest", &base);
    server.put_image("derived", "latest", &derived);
    let (folder, store) = store();
    store
        .pull(&reference(&server, "base"), &quick(), &())
        .unwrap();
    store
        .pull(&reference(&server, "derived"), &quick(), &())
        .unwrap();
    assert_eq!(
        server.requests("derived/blobs/").len(),
        2,
        "its configuration and one layer"
    );
    assert_eq!(files(&folder.path().join("store"), "layers").len(), 4);
}

#[test]
fn an_image_with_the_same_layer_twice_arrives() {
    let server = Server::honest();
    let twice = layer(tar(&[("a", b"b")]), Packing::Gzip);
    let image = TestImage::new(vec![twice.clone(), twice]);
    server.put_image("twice", "latest", &image);
    let (folder, store) = store();
    let pulled = store
        .pull(&reference(&server, "twice"), &quick(), &())
        .unwrap();
    assert_eq!(pulled.image.layers[0], pulled.image.layers[1]);
    assert_eq!(files(&folder.path().join("store"), "layers").len(), 1);
}

#[test]
fn manifest_lists_lead_to_linux_amd64() {
    for (list_type, manifest_type) in [(OCI_INDEX, OCI_MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)] {
        let server = Server::honest();
        let (arm, amd) = (TestImage::sample(1), TestImage::sample(2));
        let list = index(&[arm.entry("linux", "arm64"), amd.entry("linux", "amd64")]);
        server.put_image("multi", "unlisted", &amd);
        server.put_manifest("multi", "unlisted", manifest_type, &amd.manifest);
        server.put_manifest("multi", "latest", list_type, &list);
        let (_folder, store) = store();
        let pulled = store
            .pull(&reference(&server, "multi"), &quick(), &())
            .unwrap();
        assert_eq!(pulled.image.id, amd.id());
        assert_eq!(
            pulled.digest,
            image::Digest::of(&list),
            "what the tag means is the list"
        );
        let by_digest = reference(&server, &format!("multi@{}", pulled.digest));
        assert_eq!(store.image(&by_digest).unwrap().unwrap().id, amd.id());
    }
}

#[test]
fn an_image_for_other_machines_names_them() {
    let server = Server::honest();
    let image = TestImage::sample(1);
    let list = index(&[
        image.entry("linux", "arm64"),
        image.entry("windows", "amd64"),
    ]);
    server.put_manifest("multi", "latest", OCI_INDEX, &list);
    let arm = TestImage::for_platform(image.layers, "linux", "arm64");
    server.put_image("single", "latest", &arm);
    let (_folder, store) = store();
    for (name, available) in [
        ("multi", "linux/arm64, windows/amd64"),
        ("single", "linux/arm64"),
    ] {
        let error = store
            .pull(&reference(&server, name), &quick(), &())
            .unwrap_err();
        assert!(
            chain(&error).ends_with(&format!("it has {available}")),
            "{}",
            chain(&error)
        );
        assert!(error.help().unwrap().contains("linux/amd64"));
        assert!(matches!(
            error.cause(),
            Some(Cause::Manifest(manifest::Error::Platform { .. }))
        ));
    }
    assert_eq!(server.requests("layers").len(), 0);
}

#[test]
fn a_missing_tag_and_a_missing_repository_are_not_found() {
    let server = Server::honest();
    server.put_image("app", "latest", &TestImage::sample(1));
    for name in ["app:other", "nothing"] {
        assert!(matches!(
            pull_error(&server, name),
            registry::Error::NotFound { .. }
        ));
    }
}

#[test]
fn pulls_of_the_same_image_share_the_work() {
    let server = Server::honest();
    let sample = TestImage::sample(4);
    server.put_image("app", "latest", &sample);
    let (folder, _store) = store();
    let root = folder.path().join("store");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(&root).unwrap();
                store
                    .pull(&reference(&server, "app"), &quick(), &())
                    .unwrap();
            });
        }
    });
    for layer in &sample.layers {
        assert_eq!(server.requests(&layer.digest().to_string()).len(), 1);
    }
    assert_eq!(files(&root, "layers").len(), 3);
    assert_eq!(files(&root, "partial"), [""; 0]);
}

#[test]
fn images_with_shared_layers_in_opposite_order_do_not_block_each_other() {
    let server = Server::honest();
    let layers: Vec<_> = (0..6)
        .map(|n| layer(tar(&[("noise", &noise(n, 500_000))]), Packing::Gzip))
        .collect();
    let backwards = layers.iter().rev().cloned().collect();
    server.put_image("a", "latest", &TestImage::new(layers));
    server.put_image("b", "latest", &TestImage::new(backwards));
    let (folder, _store) = store();
    let root = folder.path().join("store");
    std::thread::scope(|scope| {
        for name in ["a", "b", "a", "b"] {
            let (root, server) = (&root, &server);
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                store.pull(&reference(server, name), &quick(), &()).unwrap();
            });
        }
    });
    assert_eq!(files(&root, "layers").len(), 6);
}

#[test]
fn a_tag_that_moves_takes_its_name_along() {
    let server = Server::honest();
    let (first, second) = (TestImage::sample(1), TestImage::sample(2));
    server.put_image("app", "latest", &first);
    let (_folder, store) = store();
    let name = reference(&server, "app");
    store.pull(&name, &quick(), &()).unwrap();
    server.put_image("app", "latest", &second);
    store.pull(&name, &quick(), &()).unwrap();
    assert_eq!(store.image(&name).unwrap().unwrap().id, second.id());
    let old = store.find(&first.id().hex()).unwrap().unwrap();
    assert_eq!(old.names, []);
}

#[test]
fn debians_registry_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let Some(registry) = support::debian::Registry::start(folder.path()) else {
        return skip("docker-registry is not installed");
    };
    let sample = TestImage::sample(5);
    registry.push("team/app", "v1", &sample);
    let (_folder, store) = store();
    let reference: Reference = format!("{}/team/app:v1", registry.host()).parse().unwrap();
    let pulled = store
        .pull(&reference, &PullOptions::default(), &())
        .unwrap();
    assert_eq!(pulled.image.id, sample.id());
    // Its blobs can be resumed.
    store
        .delete(
            &reference.to_string(),
            &image::store::DeleteOptions::default(),
        )
        .unwrap();
    let last = &sample.layers[2];
    let partial = _folder
        .path()
        .join("store/partial")
        .join(last.digest().hex());
    std::fs::write(partial, &last.bytes[..1 << 20]).unwrap();
    let progress = Recorder::default();
    store
        .pull(&reference, &PullOptions::default(), &progress)
        .unwrap();
    let resumed = format!("digest: Some({})", last.digest());
    let text = progress.find_with("Downloading", &resumed).unwrap();
    assert!(text.contains("resumed_bytes: 1048576"), "{text}");
    let missing: Reference = format!("{}/team/none:v1", registry.host()).parse().unwrap();
    let error = store
        .pull(&missing, &PullOptions::default(), &())
        .unwrap_err();
    assert!(chain(&error).contains("has no image"), "{}", chain(&error));
}
