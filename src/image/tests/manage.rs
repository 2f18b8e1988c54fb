//! Tagging, deleting, pruning, listing: Docker's rules.

mod support;

use std::collections::BTreeSet;

use image::store::{
    DeleteError, DeleteOptions, Deleted, Deletion, Error, ImageUser, LabelFilter, ListFilter,
    PruneOptions,
};
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

/// An image of one layer, built at this second of 2026, with this label.
fn built(second: u32, label: (&str, &str)) -> TestImage {
    let mut image = TestImage::new(vec![layer(
        tar(&[("x", second.to_string().as_bytes())]),
        Packing::None,
    )]);
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    config["created"] = format!("2026-01-01T00:00:{second:02}Z").into();
    config["config"]["Labels"] = serde_json::json!({ label.0: label.1 });
    image.config = serde_json::to_vec(&config).unwrap();
    image
}

fn small(second: u32) -> TestImage {
    built(second, ("a", "b"))
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn user(image: &Image, running: bool) -> ImageUser {
    ImageUser {
        image: image.id,
        container: "web".into(),
        running,
    }
}

fn delete(
    store: &Store,
    text: &str,
    force: bool,
    users: &[ImageUser],
) -> Result<Vec<Deletion>, DeleteError> {
    let users = || Ok(users.to_vec());
    let options = DeleteOptions {
        force,
        users: &users,
    };
    store.delete(text, &options).map(|done| done.deletions)
}

fn untagged(name: &str) -> Deletion {
    Deletion::Untagged(name.into())
}

#[test]
fn a_tag_moves_to_the_image_that_is_given_it() {
    let (_folder, store) = store();
    let first = put(&store, &small(1), &["a:1"]);
    let second = put(&store, &small(2), &["b:1"]);
    store.tag(&first, &name("localhost:5000/x/c:2")).unwrap();
    store.tag(&first, &name("b:1")).unwrap();
    assert_eq!(store.image(&name("b:1")).unwrap().unwrap().id, first.id);
    let first = store.find("localhost:5000/x/c:2").unwrap().unwrap();
    assert_eq!(first.names.len(), 3);
    let second = store.find(&second.id.hex()).unwrap().unwrap();
    assert!(second.names.is_empty(), "the image itself stays");
    let digest = format!("a@{}", first.id);
    assert!(matches!(
        store.tag(&first, &name(&digest)),
        Err(Error::DigestAsTag { .. })
    ));
    delete(&store, &second.id.hex(), false, &[]).unwrap();
    assert!(matches!(
        store.tag(&second, &name("d:1")),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn an_image_goes_with_its_last_name() {
    let (folder, store) = store();
    let image = put(&store, &small(1), &["a:1", "a:2"]);
    assert_eq!(
        delete(&store, "a:1", false, &[]).unwrap(),
        [untagged("a:1")]
    );
    assert_eq!(
        delete(&store, "a:2", false, &[]).unwrap(),
        [untagged("a:2"), Deletion::Deleted(image.id)]
    );
    let root = folder.path().join("store");
    for folder in ["layers", "records", "leases"] {
        assert_eq!(files(&root, folder), [""; 0], "{folder}");
    }
    assert!(matches!(
        delete(&store, "a:2", false, &[]),
        Err(DeleteError::Store(Error::NotFound { .. }))
    ));
}

#[test]
fn an_id_stands_for_its_one_name_and_for_several_only_with_force() {
    let (_folder, store) = store();
    let one = put(&store, &small(1), &["a:1"]);
    assert_eq!(
        delete(&store, &one.id.short(), false, &[]).unwrap(),
        [untagged("a:1"), Deletion::Deleted(one.id)]
    );
    let several = put(&store, &small(2), &["b:1", "b:2"]);
    let error = delete(&store, &several.id.hex(), false, &[]).unwrap_err();
    assert!(matches!(
        error,
        DeleteError::Store(Error::SeveralNames { .. })
    ));
    assert_eq!(
        delete(&store, &several.id.to_string(), true, &[]).unwrap(),
        [
            untagged("b:1"),
            untagged("b:2"),
            Deletion::Deleted(several.id)
        ]
    );
}

#[test]
fn what_a_container_uses_stays_as_docker_has_it() {
    let (_folder, store) = store();
    let image = put(&store, &small(1), &["a:1", "a:2"]);
    let (stopped, running) = ([user(&image, false)], [user(&image, true)]);
    // One of several names is no loss.
    delete(&store, "a:1", false, &running).unwrap();
    for users in [&stopped, &running] {
        let error = delete(&store, "a:2", false, users).unwrap_err();
        assert!(matches!(error, DeleteError::NameInUse { .. }), "{error}");
        assert!(error.to_string().contains("container web"), "{error}");
        let error = delete(&store, &image.id.hex(), false, users).unwrap_err();
        assert!(matches!(error, DeleteError::InUse { .. }), "{error}");
    }
    let error = delete(&store, &image.id.hex(), true, &running).unwrap_err();
    assert!(error.help().unwrap().starts_with("stop"), "{error}");
    // With force the names go, and the image stays for the container, which may be started again.
    let id = image.id.hex();
    for (given, users) in [("a:2", &running), ("a:3", &stopped), (&id, &stopped)] {
        store.tag(&image, &name("a:3")).unwrap();
        let gone = delete(&store, given, true, users).unwrap();
        assert!(gone.iter().all(|one| matches!(one, Deletion::Untagged(_))));
        assert!(store.find(&id).unwrap().is_some());
    }
    let error = delete(&store, &id, true, &stopped).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image is being used by stopped container web",
            image.id.short()
        )
    );
    assert_eq!(
        delete(&store, &id, false, &[]).unwrap(),
        [Deletion::Deleted(image.id)]
    );
}

#[test]
fn a_lease_counts_as_a_running_container_that_the_caller_forgot() {
    let (_folder, store) = store();
    let image = put(&store, &small(1), &["a:1"]);
    let lease = store.lease(&image).unwrap();
    assert!(matches!(
        delete(&store, "a:1", false, &[]),
        Err(DeleteError::NameInUse { .. })
    ));
    assert!(matches!(
        delete(&store, &image.id.hex(), true, &[]),
        Err(DeleteError::InUse { .. })
    ));
    assert_eq!(delete(&store, "a:1", true, &[]).unwrap(), [untagged("a:1")]);
    assert_eq!(
        store.prune(&PruneOptions::default()).unwrap(),
        Deleted::default()
    );
    drop(lease);
    let pruned = store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(pruned.deletions, [Deletion::Deleted(image.id)]);
    assert!(pruned.freed_bytes > 4096);
}

#[test]
fn a_container_that_is_made_while_its_image_is_removed_keeps_it() {
    let (_folder, store) = store();
    let image = put(&store, &small(1), &["a:1"]);
    let asked = std::cell::Cell::new(0);
    // There when the image is locked, and not when its users were looked at first.
    let users = || {
        let others = asked.replace(asked.get() + 1);
        let made = (others > 0).then(|| user(&image, false));
        Ok(made.into_iter().collect())
    };
    for text in ["a:1".to_owned(), image.id.hex()] {
        asked.set(0);
        let options = DeleteOptions {
            force: false,
            users: &users,
        };
        let error = store.delete(&text, &options).unwrap_err();
        assert!(error.to_string().contains("container web"), "{error}");
    }
    asked.set(0);
    let options = PruneOptions {
        all: true,
        users: &users,
        ..PruneOptions::default()
    };
    assert_eq!(store.prune(&options).unwrap(), Deleted::default());
    assert_eq!(store.find("a:1").unwrap().unwrap().id, image.id);
}

#[test]
fn nothing_is_removed_when_nobody_knows_who_uses_it() {
    let (_folder, store) = store();
    put(&store, &small(1), &["a:1"]);
    let options = DeleteOptions {
        force: true,
        users: &|| Err("no list of containers".into()),
    };
    let error = store.delete("a:1", &options).unwrap_err();
    assert_eq!(error.to_string(), "cannot tell which images containers use");
    assert!(store.find("a:1").unwrap().is_some());
}

#[test]
fn pruning_takes_what_has_no_tag_or_all_that_no_container_uses() {
    let (_folder, store) = store();
    let dangling = put(&store, &small(1), &[]);
    let used = put(&store, &small(2), &["used:1"]);
    let unused = put(&store, &small(3), &["unused:1"]);
    let users = [user(&used, false)];
    let prune = |all, until_s, labels: &[(&str, Option<&str>, bool)]| {
        let labels = labels.iter().map(|&(key, value, negated)| LabelFilter {
            key: key.into(),
            value: value.map(str::to_owned),
            negated,
        });
        let options = PruneOptions {
            all,
            until_s,
            labels: labels.collect(),
            users: &|| Ok(users.to_vec()),
        };
        store.prune(&options).unwrap().deletions
    };
    let second = |second| dangling.created_s.map(|first| first - 1 + second);
    assert_eq!(prune(false, second(0), &[]), [], "too young");
    assert_eq!(prune(false, None, &[("a", Some("c"), false)]), []);
    assert_eq!(prune(false, None, &[("a", None, true)]), []);
    assert_eq!(
        prune(
            false,
            second(1),
            &[("a", Some("b"), false), ("z", None, true)]
        ),
        [Deletion::Deleted(dangling.id)]
    );
    assert_eq!(
        prune(true, None, &[]),
        [untagged("unused:1"), Deletion::Deleted(unused.id)]
    );
    assert!(store.find("used:1").unwrap().is_some());
}

#[test]
fn lists_are_filtered_and_sorted_by_the_time_of_building() {
    let (_folder, store) = store();
    put(
        &store,
        &built(3, ("tier", "web")),
        &["web:1", "r.example/web:2"],
    );
    put(&store, &built(1, ("tier", "db")), &["db:1"]);
    let loose = put(&store, &built(2, ("tier", "web")), &[]);
    let list = |filter: ListFilter| -> Vec<String> {
        let images = store.list(&filter).unwrap();
        images.iter().map(|image| image.display_name()).collect()
    };
    let none = ListFilter::default;
    let label = |value: Option<&str>| LabelFilter {
        key: "tier".into(),
        value: value.map(str::to_owned),
        negated: false,
    };
    let id = loose.id.short();
    assert_eq!(list(none()), ["web:1", &id, "db:1"]);
    let dangling = |dangling| ListFilter {
        dangling: Some(dangling),
        ..none()
    };
    assert_eq!(list(dangling(true)), [id.as_str()]);
    assert_eq!(list(dangling(false)), ["web:1", "db:1"]);
    let labels = |value: Option<&str>| ListFilter {
        labels: vec![label(value), label(None)],
        ..none()
    };
    assert_eq!(list(labels(Some("web"))), ["web:1", &id]);
    assert_eq!(list(labels(None)).len(), 3);
    let before = ListFilter {
        before: Some("web:1".into()),
        since: Some("db:1".into()),
        ..none()
    };
    assert_eq!(list(before), [id.as_str()]);
    let until = ListFilter {
        until_s: loose.created_s,
        ..none()
    };
    assert_eq!(list(until), [id.as_str(), "db:1"]);
    let pattern = ListFilter {
        references: vec!["*/web".parse().unwrap(), "d*:1".parse().unwrap()],
        ..none()
    };
    assert_eq!(list(pattern), ["r.example/web:2", "db:1"]);
    let missing = ListFilter {
        before: Some("missing".into()),
        ..none()
    };
    assert!(matches!(store.list(&missing), Err(Error::NotFound { .. })));
}

#[test]
fn history_gives_each_step_its_layers_size() {
    let (_folder, store) = store();
    let mut image = TestImage::sample(1);
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    config["history"] = serde_json::json!([
        { "created": "2026-01-02T03:04:05Z", "created_by": "FROM scratch" },
        { "created_by": "ENV A=1", "empty_layer": true, "comment": "for all" },
    ]);
    image.config = serde_json::to_vec(&config).unwrap();
    let image = put(&store, &image, &["a:1"]);
    let history = store.history(&image).unwrap();
    let steps: Vec<_> = history
        .iter()
        .map(|step| (step.created_by.as_str(), step.size_bytes))
        .collect();
    let sizes: Vec<u64> = image.layers.iter().map(|layer| layer.size_bytes).collect();
    assert_eq!(
        steps,
        [
            ("", sizes[2]),
            ("", sizes[1]),
            ("ENV A=1", 0),
            ("FROM scratch", sizes[0])
        ]
    );
    assert_eq!(history[0].id, Some(image.id));
    assert_eq!(history[0].tags, [name("a:1")]);
    assert_eq!(history[2].comment, "for all");
    let details = store.details(&image).unwrap();
    assert_eq!(details.diff_ids.len(), 3);
    assert_eq!(details.config["history"][1]["comment"], "for all");
}

#[test]
fn shared_layers_are_counted_once() {
    let (_folder, store) = store();
    let base = TestImage::sample(1);
    let mut layers = base.layers.clone();
    layers.push(layer(tar(&[("more", b"x")]), Packing::None));
    let base = put(&store, &base, &["base:1"]);
    let derived = put(&store, &TestImage::new(layers), &["derived:1"]);
    let usage = store.disk_usage().unwrap();
    assert_eq!(usage.layers_bytes, derived.size_bytes);
    assert_eq!(usage.reclaimable_bytes, 0);
    let shared: BTreeSet<u64> = usage
        .images
        .iter()
        .map(|image| image.shared_bytes)
        .collect();
    assert_eq!(shared, BTreeSet::from([base.size_bytes]));
    let unique: u64 = usage.images.iter().map(|image| image.unique_bytes).sum();
    assert_eq!(unique, derived.size_bytes - base.size_bytes);
}
