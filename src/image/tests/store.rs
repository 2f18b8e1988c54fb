//! The store: names, removal, leases, damage, leftovers.

mod support;

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use image::store::{Damage, DeleteError, DeleteOptions, Deletion, Error};
use image::{Image, Reference, Source, Store};
use support::images::{Packing, TestImage, layer, tar};
use support::{files, store};

fn put(store: &Store, image: &TestImage, names: &[&str]) -> Image {
    let archive = image.docker_archive(names);
    store
        .import(Source::Reader(&mut &archive[..]), None, &())
        .unwrap()
        .remove(0)
}

fn small(text: &str) -> TestImage {
    TestImage::new(vec![layer(
        tar(&[("bin/x", text.as_bytes())]),
        Packing::None,
    )])
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn an_image_is_found_by_name_and_by_id() {
    let (_folder, store) = store();
    let image = put(&store, &small("a"), &["a:1", "example.org/b:2"]);
    let hex = image.id.hex();
    let id = image.id.to_string();
    for text in [
        "a:1",
        "docker.io/library/a:1",
        "example.org/b:2",
        &hex,
        &hex[..6],
        &id,
        &id[..14],
    ] {
        assert_eq!(store.find(text).unwrap().unwrap().id, image.id, "{text}");
    }
    for text in [
        "a",
        "a:2",
        "",
        "sha256:",
        "zz",
        "!",
        "../..",
        &"0".repeat(65),
    ] {
        assert_eq!(store.find(text).unwrap(), None, "{text}");
    }
    assert_eq!(store.images().unwrap(), [image]);
}

#[test]
fn a_name_goes_before_the_beginning_of_an_id() {
    let (_folder, store) = store();
    let first = put(&store, &small("a"), &["x:1"]);
    let digits = format!("{}:latest", &first.id.hex()[..4]);
    let second = put(&store, &small("b"), &[&digits]);
    assert_eq!(
        store.find(&first.id.hex()[..4]).unwrap().unwrap().id,
        second.id
    );
    assert_eq!(
        store.find(&first.id.hex()[..5]).unwrap().unwrap().id,
        first.id
    );
}

#[test]
fn an_ambiguous_beginning_is_told() {
    let (_folder, store) = store();
    let mut seen = std::collections::HashMap::new();
    for number in 0..20 {
        let image = put(&store, &small(&number.to_string()), &[]);
        let digit = image.id.hex()[..1].to_owned();
        if seen.insert(digit.clone(), image.id).is_some() {
            let error = store.find(&digit).unwrap_err();
            assert!(matches!(error, Error::Ambiguous { count: 2, .. }));
            return;
        }
    }
    panic!("twenty ids without two alike");
}

#[test]
fn layers_that_another_image_has_stay() {
    let (folder, store) = store();
    let base = TestImage::sample(1);
    let mut layers = base.layers.clone();
    layers.push(layer(tar(&[("more", b"x")]), Packing::None));
    put(&store, &base, &["base:1"]);
    put(&store, &TestImage::new(layers), &["derived:1"]);
    store.delete("base:1", &DeleteOptions::default()).unwrap();
    assert_eq!(files(&folder.path().join("store"), "layers").len(), 4);
    assert!(store.find("derived:1").unwrap().is_some());
}

#[test]
fn a_leased_image_stays_until_the_last_copy_of_its_lease_is_closed() {
    let (folder, store) = store();
    let image = put(&store, &small("a"), &["a:1"]);
    let lease: OwnedFd = store.lease(&image).unwrap().into();
    let copy = lease.try_clone().unwrap();
    drop(lease);
    let other = Store::open(&folder.path().join("store")).unwrap();
    let delete = || other.delete("a:1", &DeleteOptions::default());
    assert!(matches!(delete(), Err(DeleteError::NameInUse { .. })));
    drop(copy);
    assert!(
        delete()
            .unwrap()
            .deletions
            .contains(&Deletion::Deleted(image.id))
    );
    assert!(matches!(store.lease(&image), Err(Error::NotFound { .. })));
}

#[test]
fn damage_is_told_and_mended_by_another_import() {
    let sample = TestImage::sample(1);
    for (change, expected) in [(None, Damage::Missing), (Some(4096), Damage::Size)] {
        let (_folder, store) = store();
        let image = put(&store, &sample, &["a:1"]);
        let path = &image.layers[2].path;
        std::fs::remove_file(path).unwrap();
        if let Some(length) = change {
            std::fs::write(path, vec![0; length]).unwrap();
        }
        let error = store.image(&name("a:1")).unwrap_err();
        assert!(
            matches!(&error, Error::Damaged { damage, .. } if *damage == expected),
            "{error}"
        );
        assert!(error.help().unwrap().contains("pull or import"));
        assert_eq!(store.images().unwrap().len(), 1, "it is still listed");
        put(&store, &sample, &["a:1"]);
        assert_eq!(store.image(&name("a:1")).unwrap().unwrap(), image);
    }
}

#[test]
fn leftovers_are_removed_by_the_next_to_open() {
    let (folder, store) = store();
    let root = folder.path().join("store");
    put(&store, &small("a"), &["a:1"]);
    std::fs::write(root.join("tmp/99-0"), [0; 5000]).unwrap();
    std::fs::write(root.join("layers/orphan-v1.erofs"), [0; 5000]).unwrap();
    std::fs::write(root.join("partial/fresh"), [0; 10]).unwrap();
    let old = std::fs::File::create(root.join("partial/old")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(3 * 86_400))
        .unwrap();
    Store::open(&root).unwrap();
    assert_eq!(files(&root, "tmp"), [""; 0]);
    assert_eq!(files(&root, "layers").len(), 1);
    assert_eq!(files(&root, "partial"), ["fresh"]);
    assert!(store.image(&name("a:1")).unwrap().is_some());
}

#[test]
fn a_database_from_the_future_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    drop(Store::open(&root).unwrap());
    let database = rusqlite::Connection::open(root.join("images.db")).unwrap();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(
        Store::open(&root),
        Err(Error::Version {
            found: 99,
            known: 3,
            ..
        })
    ));
}

#[test]
fn a_database_that_is_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("images.db"), [b'x'; 4096]).unwrap();
    assert!(matches!(
        Store::open(folder.path()),
        Err(Error::Database { .. })
    ));
}

#[test]
fn many_may_open_a_new_store_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let root = &root;
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                put(
                    &store,
                    &small(&number.to_string()),
                    &[&format!("n:{number}")],
                );
            });
        }
    });
    assert_eq!(Store::open(&root).unwrap().images().unwrap().len(), 8);
}
