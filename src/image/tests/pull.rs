//! Pulling from registries that are right, slow, broken and hostile.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::{
    Cause, Error, PullOptions, Reference, Store, manifest, registry, store as image_store,
};
use support::images::{
    DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Packing, TestImage, index, layer, noise,
    tar,
};
use support::server::{Reply, Request, Server};
use support::{Recorder, chain, files, quick, skip, store};

fn reference(server: &Server, name: &str) -> Reference {
    format!("{}/{name}", server.host()).parse().unwrap()
}

fn pull_error(server: &Server, name: &str) -> registry::Error {
    let (_folder, store) = store();
    let error = store
        .pull(&reference(server, name), &quick(), &())
        .unwrap_err();
    let Error::Pull { source, .. } = error else {
        panic!("{}", chain(&error));
    };
    match *source {
        Cause::Registry(error) => error,
        other => panic!("{}", chain(&other)),
    }
}

fn is_layer(request: &Request, image: &TestImage, index: usize) -> bool {
    request
        .path
        .ends_with(&image.layers[index].digest().to_string())
}

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
fn a_registry_that_is_down_is_told_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    drop(listener);
    let (_folder, store) = store();
    let started = Instant::now();
    let reference: Reference = format!("{host}/app").parse().unwrap();
    let error = store
        .pull(&reference, &PullOptions::default(), &())
        .unwrap_err();
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
    assert!(error.help().unwrap().contains("registry is up"));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn lies_about_digests_leave_nothing() {
    let sample = TestImage::sample(1);
    let last = sample.layers[2].digest();
    for (part, what) in [
        (format!("/blobs/{last}"), "layer"),
        (format!("/blobs/{}", sample.id()), "image configuration"),
        (format!("/manifests/{}", sample.digest()), "manifest"),
    ] {
        let server = Server::start(move |request, mut reply| {
            if request.path.ends_with(&part) {
                let middle = reply.body.len() / 2;
                reply.body[middle] ^= 1;
            }
            reply
        });
        server.put_image("app", "latest", &sample);
        let (folder, store) = store();
        let name = format!("app@{}", sample.digest());
        let error = store
            .pull(&reference(&server, &name), &quick(), &())
            .unwrap_err();
        let Some(Cause::Registry(registry::Error::Digest {
            what: on,
            expected,
            actual,
            ..
        })) = error.cause()
        else {
            panic!("{}", chain(&error));
        };
        assert_eq!(*on, what);
        let text = chain(&error);
        assert!(text.contains(&expected.to_string()) && text.contains(&actual.to_string()));
        assert_eq!(store.images().unwrap(), []);
        let partial = folder.path().join("store/partial").join(last.hex());
        assert_eq!(std::fs::metadata(partial).map_or(0, |file| file.len()), 0);
    }
}

#[test]
fn a_lie_in_the_content_digest_header_is_noticed() {
    let server = Server::start(
        |request, reply| match request.path.contains("/manifests/") {
            true => reply.with(
                "Docker-Content-Digest",
                image::Digest::of(b"other").to_string(),
            ),
            false => reply,
        },
    );
    server.put_image("app", "latest", &TestImage::sample(1));
    assert!(matches!(
        pull_error(&server, "app"),
        registry::Error::Digest {
            what: "manifest",
            ..
        }
    ));
}

#[test]
fn wrong_lengths_are_refused() {
    let sample = TestImage::sample(1);
    for change in [1isize, -1] {
        let image = sample.clone();
        let server = Server::start(move |request, mut reply| {
            if is_layer(request, &image, 2) {
                reply
                    .body
                    .resize(reply.body.len().saturating_add_signed(change), 0);
            }
            reply
        });
        server.put_image("app", "latest", &sample);
        assert!(matches!(
            pull_error(&server, "app"),
            registry::Error::Size { .. }
        ));
    }
}

#[test]
fn a_manifest_beyond_its_bound_is_refused() {
    let server = Server::honest();
    server.put_manifest("app", "latest", OCI_MANIFEST, &vec![b' '; (4 << 20) + 1]);
    assert!(matches!(
        pull_error(&server, "app"),
        registry::Error::TooLarge { .. }
    ));
}

#[test]
fn a_download_that_breaks_off_is_resumed() {
    let sample = TestImage::sample(3);
    let image = sample.clone();
    let served = AtomicUsize::new(0);
    let server = Server::start(move |request, mut reply| {
        if is_layer(request, &image, 2) && served.fetch_add(1, Ordering::Relaxed) < 2 {
            reply.cut_after = Some(1 << 20);
        }
        reply
    });
    server.put_image("app", "latest", &sample);
    let (_folder, store) = store();
    let progress = Recorder::default();
    store
        .pull(&reference(&server, "app"), &quick(), &progress)
        .unwrap();
    let ranges: Vec<Option<String>> = server
        .requests(&sample.layers[2].digest().to_string())
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=1048576-".into()),
            Some("bytes=2097152-".into())
        ]
    );
    assert_eq!(progress.count("Retrying"), 2);
}

#[test]
fn a_download_that_failed_is_taken_up_by_the_next_pull() {
    let sample = TestImage::sample(3);
    let image = sample.clone();
    let served = AtomicUsize::new(0);
    let server = Server::start(move |request, mut reply| {
        if is_layer(request, &image, 2) && served.fetch_add(1, Ordering::Relaxed) < 3 {
            reply.cut_after = Some(1000);
        }
        reply
    });
    server.put_image("app", "latest", &sample);
    let (_folder, store) = store();
    let error = store
        .pull(&reference(&server, "app"), &quick(), &())
        .unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Registry(registry::Error::Interrupted { .. }))
    ));
    assert!(error.help().unwrap().contains("goes on from there"));
    store
        .pull(&reference(&server, "app"), &quick(), &())
        .unwrap();
    let requests = server.requests(&sample.layers[2].digest().to_string());
    assert_eq!(
        requests.last().unwrap().header("range"),
        Some("bytes=3000-")
    );
}

#[test]
fn a_spoilt_partial_download_is_fetched_anew() {
    let server = Server::honest();
    let sample = TestImage::sample(1);
    server.put_image("app", "latest", &sample);
    for spoilt in [
        vec![0; 1000],
        vec![0; sample.layers[2].bytes.len()],
        vec![0; 4 << 20],
    ] {
        let (folder, store) = store();
        let partial = folder
            .path()
            .join("store/partial")
            .join(sample.layers[2].digest().hex());
        std::fs::write(partial, spoilt).unwrap();
        store
            .pull(&reference(&server, "app"), &quick(), &())
            .unwrap();
    }
}

#[test]
fn a_registry_that_does_not_resume_is_asked_for_everything() {
    let sample = TestImage::sample(1);
    for status in [200, 206, 416] {
        let image = sample.clone();
        let server = Server::start(move |request, reply| {
            if !is_layer(request, &image, 2) || request.header("range").is_none() {
                return reply;
            }
            let body = if status == 416 {
                Vec::new()
            } else {
                image.layers[2].bytes.clone()
            };
            let wrong = Reply::new(status, body);
            match status {
                206 => wrong.with("Content-Range", "bytes 0-9/10"),
                _ => wrong,
            }
        });
        server.put_image("app", "latest", &sample);
        let (folder, store) = store();
        let partial = folder
            .path()
            .join("store/partial")
            .join(sample.layers[2].digest().hex());
        std::fs::write(partial, &sample.layers[2].bytes[..1000]).unwrap();
        store
            .pull(&reference(&server, "app"), &quick(), &())
            .unwrap();
    }
}

#[test]
fn passing_failures_are_tried_again_and_lasting_ones_are_not() {
    let sample = TestImage::sample(1);
    for (status, recovers) in [(503, true), (429, true), (500, true), (418, false)] {
        let count = AtomicUsize::new(0);
        let server = Server::start(move |request, reply| {
            let failing = request.path.contains("/manifests/") || request.path.contains("/blobs/");
            match failing && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                true => Reply::new(status, "").with("Retry-After", "0"),
                false => reply,
            }
        });
        server.put_image("app", "latest", &sample);
        let (_folder, store) = store();
        let options = PullOptions {
            parallel_downloads: 1,
            ..quick()
        };
        let result = store.pull(&reference(&server, "app"), &options, &());
        assert_eq!(result.is_ok(), recovers, "{status}");
    }
}

#[test]
fn attempts_are_bounded_and_the_rate_limit_is_named() {
    let server = Server::start(
        |request, reply| match request.path.contains("/manifests/") {
            true => Reply::new(429, ""),
            false => reply,
        },
    );
    let error = pull_error(&server, "app");
    assert!(matches!(error, registry::Error::Status { status: 429, .. }));
    assert!(error.help().unwrap().contains("limits its rate"));
    assert_eq!(server.requests("/manifests/").len(), 3);
}

#[test]
fn silence_ends_a_pull_but_slowness_does_not() {
    let sample = TestImage::sample(1);
    let options = PullOptions {
        idle_timeout_ms: 400,
        max_attempts: 2,
        ..quick()
    };
    let image = sample.clone();
    let silent = Server::start(move |request, mut reply| {
        if is_layer(request, &image, 2) {
            reply.stall = Some(Duration::from_secs(30));
        }
        reply
    });
    silent.put_image("app", "latest", &sample);
    let (_folder, first) = store();
    let started = Instant::now();
    let error = first
        .pull(&reference(&silent, "app"), &options, &())
        .unwrap_err();
    assert!(chain(&error).contains("timeout"), "{}", chain(&error));
    assert!(started.elapsed() < Duration::from_secs(5));

    let image = sample.clone();
    let slow = Server::start(move |request, mut reply| {
        if is_layer(request, &image, 2) {
            // More than twice as long as the limit on silence.
            reply.drip = Some((reply.body.len() / 10, Duration::from_millis(100)));
        }
        reply
    });
    slow.put_image("app", "latest", &sample);
    let (_folder, second) = store();
    second
        .pull(&reference(&slow, "app"), &options, &())
        .unwrap();
}

/// A registry that wants a token, from itself, and for the token this Authorization (none if empty).
fn guarded(wanted: &'static str) -> Server {
    Server::start(move |request, reply| {
        if request.path.starts_with("/token") {
            let right = request.header("authorization").unwrap_or_default() == wanted
                && request.path.contains("scope=repository%3Aapp%3Apull")
                && request.path.contains("service=test");
            return match right {
                true => Reply::new(200, r#"{"token":"open-sesame","expires_in":300}"#),
                false => Reply::new(401, ""),
            };
        }
        if request.header("authorization") == Some("Bearer open-sesame") {
            return reply;
        }
        let realm = format!("http://{}/token", request.header("host").unwrap());
        let challenge =
            format!(r#"Bearer realm="{realm}",service="test",scope="repository:app:pull""#);
        Reply::new(401, "").with("WWW-Authenticate", challenge)
    })
}

fn with_docker_config(config: &str) -> (tempfile::TempDir, PullOptions) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let options = PullOptions {
        docker_config: Some(folder.path().to_owned()),
        ..quick()
    };
    (folder, options)
}

#[test]
fn an_anonymous_token_is_fetched_once_and_used_for_all() {
    let server = guarded("");
    server.put_image("app", "latest", &TestImage::sample(1));
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &quick(), &())
        .unwrap();
    assert_eq!(server.requests("/token").len(), 1);
}

#[test]
fn dockers_credentials_open_what_is_closed_to_others() {
    // u:p
    let server = guarded("Basic dTpw");
    server.put_image("app", "latest", &TestImage::sample(1));
    let error = pull_error(&server, "app");
    assert!(matches!(
        error,
        registry::Error::Unauthorised { as_user: None, .. }
    ));
    assert!(error.help().unwrap().contains("docker login"));
    let (_config, options) = with_docker_config(&format!(
        r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#,
        server.host()
    ));
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap();
}

#[test]
fn basic_authentication_is_answered_and_wrong_passwords_are_told() {
    let server = Server::start(|request, reply| match request.header("authorization") {
        Some("Basic dTpw") => reply,
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"r\""),
    });
    server.put_image("app", "latest", &TestImage::sample(1));
    let config = |auth: &str| format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host());
    let (_folder, store) = store();
    let (_right, options) = with_docker_config(&config("dTpw"));
    store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap();
    let (_wrong, options) = with_docker_config(&config("dTpx"));
    let error = store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap_err();
    assert!(
        chain(&error).contains(r#"denies access to app to "u""#),
        "{}",
        chain(&error)
    );
}

#[test]
fn an_identity_token_is_exchanged() {
    let server = Server::start(|request, reply| {
        if request.path == "/token" && request.method == "POST" {
            let right = request.body.contains("grant_type=refresh_token")
                && request.body.contains("refresh_token=secret");
            return Reply::new(if right { 200 } else { 401 }, r#"{"access_token":"t"}"#);
        }
        match request.header("authorization") {
            Some("Bearer t") => reply,
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                Reply::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
            }
        }
    });
    server.put_image("app", "latest", &TestImage::sample(1));
    let (_config, options) = with_docker_config(&format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"secret"}}}}}}"#,
        server.host()
    ));
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap();
}

#[test]
fn a_token_that_expires_is_renewed() {
    let tokens = AtomicUsize::new(0);
    let server = Server::start(move |request, reply| {
        if request.path.starts_with("/token") {
            let number = tokens.fetch_add(1, Ordering::Relaxed);
            return Reply::new(200, format!(r#"{{"token":"t{number}"}}"#));
        }
        let wanted = if request.path.contains("/blobs/") {
            "Bearer t1"
        } else {
            "Bearer t0"
        };
        match request.header("authorization") == Some(wanted) {
            true => reply,
            false => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                Reply::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
            }
        }
    });
    server.put_image("app", "latest", &TestImage::sample(1));
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &quick(), &())
        .unwrap();
}

#[test]
fn a_broken_credential_helper_is_named_when_it_matters() {
    let closed = guarded("Basic dTpw");
    let (_config, options) = with_docker_config(r#"{"credsStore":"hull-test-none-such"}"#);
    let (_folder, store) = store();
    let error = store
        .pull(&reference(&closed, "app"), &options, &())
        .unwrap_err();
    assert!(
        chain(&error).contains("credential helper"),
        "{}",
        chain(&error)
    );
    assert!(error.help().unwrap().contains("credential helper"));
    let open = guarded("");
    open.put_image("app", "latest", &TestImage::sample(1));
    store.pull(&reference(&open, "app"), &options, &()).unwrap();
}

#[test]
fn redirects_are_followed_without_credentials() {
    let sample = TestImage::sample(1);
    let elsewhere = Server::honest();
    for blob in sample.blobs() {
        elsewhere.put(&format!("/cdn/{}", image::Digest::of(&blob)), "", blob);
    }
    let cdn = elsewhere.host();
    let server = Server::start(move |request, reply| {
        if request.header("authorization") != Some("Basic dTpw") {
            return Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"r\"");
        }
        match request.path.split_once("/blobs/") {
            Some((_, digest)) => {
                Reply::new(307, "").with("Location", format!("http://{cdn}/cdn/{digest}?sig=1"))
            }
            None => reply,
        }
    });
    server.put_image("app", "latest", &sample);
    let (_config, options) = with_docker_config(&format!(
        r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#,
        server.host()
    ));
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap();
    let requests = elsewhere.requests("/cdn/");
    assert_eq!(requests.len(), 4);
    assert!(
        requests
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[test]
fn redirects_in_a_circle_and_to_plain_http_elsewhere_are_refused() {
    let circle = Server::start(
        |request, reply| match request.path.contains("/manifests/") {
            true => Reply::new(302, "").with("Location", request.path.clone()),
            false => reply,
        },
    );
    assert!(matches!(
        pull_error(&circle, "app"),
        registry::Error::TooManyRedirects { .. }
    ));
    for location in [
        "http://198.51.100.1/x",
        "file:///etc/passwd",
        "https://u:p@host/",
        "",
    ] {
        let astray =
            Server::start(
                move |request, reply| match request.path.contains("/manifests/") {
                    true => Reply::new(302, "").with("Location", location),
                    false => reply,
                },
            );
        assert!(matches!(
            pull_error(&astray, "app"),
            registry::Error::PlainHttp { .. } | registry::Error::Redirect { .. }
        ));
    }
}

#[test]
fn an_authorisation_server_in_plain_http_elsewhere_gets_nothing() {
    let server = Server::start(|_, _| {
        Reply::new(401, "").with(
            "WWW-Authenticate",
            r#"Bearer realm="http://198.51.100.1/token""#,
        )
    });
    assert!(matches!(
        pull_error(&server, "app"),
        registry::Error::PlainHttp { .. }
    ));
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_corrupt() {
    let server = Server::honest();
    let mut image = TestImage::sample(1);
    let other = layer(tar(&[("other", b"")]), Packing::Gzip);
    // The manifest names another layer, truthfully; the configuration knows nothing of it.
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let text = text.replace(
        &image.layers[0].digest().to_string(),
        &other.digest().to_string(),
    );
    let size = format!("\"size\":{}", image.layers[0].bytes.len());
    let text = text.replace(&size, &format!("\"size\":{}", other.bytes.len()));
    image.manifest = text.into_bytes();
    image.layers[0].bytes = other.bytes;
    server.put_image("app", "latest", &image);
    let (folder, store) = store();
    let error = store
        .pull(&reference(&server, "app"), &quick(), &())
        .unwrap_err();
    assert!(matches!(
        error.cause(),
        Some(Cause::Store(image_store::Error::DiffId { .. }))
    ));
    assert_eq!(files(&folder.path().join("store"), "layers"), [""; 0]);
    assert_eq!(files(&folder.path().join("store"), "tmp"), [""; 0]);
}

#[test]
fn a_layer_that_does_not_unpack_is_corrupt() {
    let server = Server::honest();
    let good = layer(tar(&[("a", &noise(1, 100_000))]), Packing::Gzip);
    let mut bad = good.clone();
    bad.bytes.truncate(50_000);
    server.put_image("app", "latest", &TestImage::new(vec![bad]));
    let (_folder, store) = store();
    let error = store
        .pull(&reference(&server, "app"), &quick(), &())
        .unwrap_err();
    assert!(
        matches!(
            error.cause(),
            Some(Cause::Store(image_store::Error::Corrupt { .. }))
        ),
        "{}",
        chain(&error)
    );
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
    store.remove(&reference.to_string(), false).unwrap();
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
