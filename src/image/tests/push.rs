//! Pushing, to Debian's registry and to one that misbehaves; pulling all tags.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{Cause, Digest, Image, PushOptions, Reference, Source, Store};
use support::debian::Registry;
use support::images::{OCI_INDEX, Packing, TestImage, index, layer, noise, tar};
use support::server::{Reply, Server};
use support::{Recorder, chain, quick, skip, store};

fn options() -> PushOptions {
    PushOptions {
        connection: quick(),
        ..PushOptions::default()
    }
}

fn put(store: &Store, image: &TestImage, names: &[&str]) -> Image {
    let archive = image.docker_archive(names);
    store
        .import(Source::Reader(&mut &archive[..]), None, &())
        .unwrap()
        .remove(0)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A store of its own with this image in it.
fn with(image: &TestImage, names: &[&str]) -> (tempfile::TempDir, Store) {
    let (folder, store) = store();
    put(&store, image, names);
    (folder, store)
}

fn registry() -> Option<(tempfile::TempDir, Registry)> {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path());
    if registry.is_none() {
        skip("docker-registry is not installed");
    }
    registry.map(|registry| (folder, registry))
}

#[test]
fn a_pushed_image_is_pulled_elsewhere_with_the_same_id() {
    let Some((_blobs, registry)) = registry() else {
        return;
    };
    let sample = TestImage::sample(1);
    let text = format!("{}/team/app:1", registry.host());
    let (_first, first) = with(&sample, &[&text]);
    let recorder = Recorder::default();
    let pushed = first.push(&name(&text), &options(), &recorder).unwrap();
    assert_eq!(recorder.count("Pushed"), 3);
    assert!(recorder.count("Uploaded") > 0);
    let (_second, second) = store();
    let pulled = second.pull(&name(&text), &quick(), &()).unwrap();
    assert_eq!(
        (pulled.image.id, pulled.digest),
        (sample.id(), pushed.digest)
    );
    // What is there is not sent again, whichever client sends it.
    for store in [&first, &second] {
        let recorder = Recorder::default();
        let again = store.push(&name(&text), &options(), &recorder).unwrap();
        assert_eq!(again, pushed);
        let counts = ["Exists", "Packing", "Uploading"].map(|event| recorder.count(event));
        assert_eq!(counts, [3, 0, 0]);
    }
    // The digest is a name of the image from now on.
    let digest = format!("{}/team/app@{}", registry.host(), pushed.digest);
    assert_eq!(first.find(&digest).unwrap().unwrap().id, sample.id());
    if Command::new("skopeo").arg("--version").output().is_ok() {
        let output = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false", &format!("docker://{text}")])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&pushed.digest.to_string()), "{said}");
    }
}

#[test]
fn a_layer_is_taken_from_another_repository_of_the_registry() {
    let Some((_blobs, registry)) = registry() else {
        return;
    };
    let (a, b) = (
        format!("{}/a:1", registry.host()),
        format!("{}/team/b:1", registry.host()),
    );
    let (_folder, store) = with(&TestImage::sample(1), &[&a, &b]);
    let first = store.push(&name(&a), &options(), &()).unwrap();
    let recorder = Recorder::default();
    let second = store.push(&name(&b), &options(), &recorder).unwrap();
    assert_eq!(recorder.count("Mounted"), 3);
    assert_eq!(recorder.count("Packing"), 0);
    assert_eq!(first.digest, second.digest);
}

#[test]
fn a_pulled_image_keeps_its_manifest_where_its_layers_are() {
    let Some((_blobs, registry)) = registry() else {
        return;
    };
    let sample = TestImage::sample(1);
    registry.push("a", "1", &sample);
    let (_folder, store) = store();
    let from = name(&format!("{}/a:1", registry.host()));
    let image = store.pull(&from, &quick(), &()).unwrap().image;
    let to = name(&format!("{}/b:1", registry.host()));
    store.tag(&image, &to).unwrap();
    let pushed = store.push(&to, &options(), &()).unwrap();
    assert_eq!(pushed.digest, sample.digest());
    // Elsewhere the layers are packed anew, and the image is the same for all that.
    let elsewhere = Server::honest();
    let to = name(&format!("{}/c:1", elsewhere.host()));
    store.tag(&image, &to).unwrap();
    let pushed = store.push(&to, &options(), &()).unwrap();
    assert_ne!(pushed.digest, sample.digest());
    let (_other, other) = support::store();
    assert_eq!(
        other.pull(&to, &quick(), &()).unwrap().image.id,
        sample.id()
    );
}

#[test]
fn all_tags_of_a_repository_are_pushed_and_pulled() {
    let Some((_blobs, registry)) = registry() else {
        return;
    };
    let tag = |tag: &str| format!("{}/app:{tag}", registry.host());
    let (_folder, first) = with(&TestImage::sample(1), &[&tag("1"), &tag("2"), "other:1"]);
    let newest = TestImage::new(vec![layer(tar(&[("x", b"3")]), Packing::None)]);
    put(&first, &newest, &[&tag("3")]);
    let repository = name(&format!("{}/app", registry.host()));
    let pushed = first.push_all(&repository, &options(), &()).unwrap();
    assert_eq!(pushed.len(), 3);
    let (_second, second) = store();
    let pulled = second.pull_all(&repository, &quick(), &()).unwrap();
    assert_eq!(pulled.len(), 3);
    let image = second.image(&name(&tag("3"))).unwrap().unwrap();
    assert_eq!(image.id, newest.id());
    assert_eq!(second.images().unwrap().len(), 2);
    let missing = name(&format!("{}/missing", registry.host()));
    assert!(second.pull_all(&missing, &quick(), &()).is_err());
    assert!(first.push_all(&missing, &options(), &()).is_err());
}

#[test]
fn a_list_of_tags_is_read_page_by_page() {
    let server = Server::start(|request, reply| {
        let path = "/v2/app/tags/list";
        match request.path.strip_prefix(path) {
            Some("") => Reply::new(200, r#"{"tags":["1","not a tag"]}"#)
                .with("Link", format!("<{path}?last=1&n=1>; rel=\"next\"")),
            Some("?last=1&n=1") => Reply::new(200, r#"{"tags":["2"]}"#),
            _ => reply,
        }
    });
    let image = TestImage::sample(1);
    for tag in ["1", "2"] {
        server.put_image("app", tag, &image);
    }
    let (_folder, store) = store();
    let repository = name(&format!("{}/app", server.host()));
    assert_eq!(store.pull_all(&repository, &quick(), &()).unwrap().len(), 2);
}

#[test]
fn what_takes_no_large_requests_gets_chunks() {
    let server = Server::start(|request, reply| match request.bytes.len() > 8 << 20 {
        true => Reply::new(413, "too large"),
        false => reply,
    });
    let noise = tar(&[("noise", &noise(1, 9 << 20))]);
    let image = TestImage::new(vec![layer(noise, Packing::None)]);
    let text = format!("{}/app:1", server.host());
    let (_folder, first) = with(&image, &[&text]);
    first.push(&name(&text), &options(), &()).unwrap();
    let sent = server.requests("/uploads/");
    let patches = sent.iter().filter(|request| request.method == "PATCH");
    assert_eq!(patches.count(), 2);
    let (_other, other) = store();
    let pulled = other.pull(&name(&text), &quick(), &()).unwrap();
    assert_eq!(pulled.image.id, image.id());
}

#[test]
fn a_passing_failure_is_tried_again_and_a_refusal_told() {
    let failures = AtomicUsize::new(0);
    let server = Server::start(move |request, reply| {
        let upload = request.method == "PUT" && request.path.contains("/uploads/");
        match upload && failures.fetch_add(1, Ordering::Relaxed) < 2 {
            true => Reply::new(503, ""),
            false => reply,
        }
    });
    let sample = TestImage::sample(1);
    let text = format!("{}/app:1", server.host());
    let (_folder, first) = with(&sample, &[&text]);
    let recorder = Recorder::default();
    first.push(&name(&text), &options(), &recorder).unwrap();
    assert_eq!(recorder.count("Retrying"), 2);

    let server = Server::start(|request, reply| match request.method.as_str() {
        "PUT" if request.path.contains("/manifests/") => Reply::new(
            400,
            r#"{"errors":[{"code":"DENIED","message":"no room \u001b[1m"}]}"#,
        ),
        _ => reply,
    });
    let text = format!("{}/app:1", server.host());
    let (_folder, store) = with(&sample, &[&text]);
    let error = store.push(&name(&text), &options(), &()).unwrap_err();
    let said = chain(&error);
    assert!(
        said.contains("400 to PUT /v2/app/manifests/1: no room \\u{1b}"),
        "{said}"
    );
}

#[test]
fn a_token_is_renewed_for_the_scope_that_pushing_wants() {
    let server = Server::start(|request, reply| {
        let write = request.method != "GET" && request.method != "HEAD";
        if request.path.starts_with("/token") {
            let push = request.path.contains("pull%2Cpush");
            return Reply::new(200, format!(r#"{{"token":"push-{push}"}}"#));
        }
        match request.header("authorization") {
            Some("Bearer push-true") => reply,
            Some("Bearer push-false") if !write => reply,
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                let actions = if write { "pull,push" } else { "pull" };
                let challenge =
                    format!(r#"Bearer realm="{realm}",scope="repository:app:{actions}""#);
                Reply::new(401, "").with("WWW-Authenticate", challenge)
            }
        }
    });
    let text = format!("{}/app:1", server.host());
    let (_folder, store) = with(&TestImage::sample(1), &[&text]);
    store.push(&name(&text), &options(), &()).unwrap();
}

#[test]
fn credentials_do_not_follow_a_session_to_another_origin() {
    let store_of_blobs = Server::start(|request, _| match request.header("authorization") {
        None => Reply::new(201, ""),
        Some(_) => Reply::new(500, ""),
    });
    let elsewhere = store_of_blobs.host();
    let server = Server::start(move |request, reply| {
        if request.header("authorization") != Some("Basic dTpw") {
            return Reply::new(401, "").with("WWW-Authenticate", "Basic realm=r");
        }
        match request.method.as_str() {
            "POST" => {
                let location = format!("http://{elsewhere}/uploads/s?state=a");
                Reply::new(202, "").with("Location", location)
            }
            _ => reply,
        }
    });
    let (_config, connection) = support::with_docker_config(&format!(
        r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#,
        server.host()
    ));
    let text = format!("{}/app:1", server.host());
    let (_folder, store) = with(&TestImage::sample(1), &[&text]);
    let options = PushOptions {
        connection,
        ..PushOptions::default()
    };
    store.push(&name(&text), &options, &()).unwrap();
    assert_eq!(store_of_blobs.requests("/uploads/s").len(), 4);
}

#[test]
fn nothing_is_pushed_that_is_not_here_or_has_no_tag() {
    let server = Server::honest();
    let (_folder, store) = store();
    let digest = format!("{}/app@{}", server.host(), Digest::of(b""));
    for text in [format!("{}/app:1", server.host()), digest] {
        let error = store.push(&name(&text), &options(), &()).unwrap_err();
        assert!(matches!(error.cause(), Some(Cause::Store(_))), "{error}");
    }
    assert_eq!(server.requests("/uploads/").len(), 0);
}

#[test]
fn a_platform_that_is_asked_for_is_pulled() {
    let server = Server::honest();
    let image = |architecture: &str| {
        let layers = vec![layer(tar(&[("x", architecture.as_bytes())]), Packing::Gzip)];
        TestImage::for_platform(layers, "linux", architecture)
    };
    let (amd64, arm64) = (image("amd64"), image("arm64"));
    for image in [&amd64, &arm64] {
        server.put_image("app", "x", image);
    }
    let entries = [amd64.entry("linux", "amd64"), arm64.entry("linux", "arm64")];
    server.put_manifest("app", "1", OCI_INDEX, &index(&entries));
    let (_folder, store) = store();
    let reference = name(&format!("{}/app:1", server.host()));
    let pull = |platform: Option<&str>| {
        let options = image::PullOptions {
            platform: platform.map(|text| text.parse().unwrap()),
            ..quick()
        };
        store.pull(&reference, &options, &())
    };
    assert_eq!(pull(None).unwrap().image.id, amd64.id());
    let foreign = pull(Some("linux/arm64")).unwrap().image;
    assert_eq!(foreign.id, arm64.id());
    assert!(!foreign.platform().is_native());
    assert_eq!(store.image(&reference).unwrap().unwrap().id, arm64.id());
    let error = pull(Some("linux/s390x")).unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Manifest(image::manifest::Error::Platform { .. }))
    ));
    assert!(chain(&error).contains("linux/s390x"), "{}", chain(&error));
}
