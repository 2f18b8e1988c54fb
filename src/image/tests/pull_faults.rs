//! Registries that send wrong content, stall and drop connections.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::{Cause, PullOptions, Reference, registry, store as image_store};
use support::images::{OCI_MANIFEST, Packing, TestImage, layer, noise, tar};
use support::server::{Reply, Request, Server};
use support::{Recorder, chain, files, pull_error, quick, reference, store};

fn is_layer(request: &Request, image: &TestImage, index: usize) -> bool {
    request
        .path
        .ends_with(&image.layers[index].digest().to_string())
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
        idle_timeout_ms: 1000,
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
    assert!(started.elapsed() < Duration::from_secs(20));

    let image = sample.clone();
    let slow = Server::start(move |request, mut reply| {
        if is_layer(request, &image, 2) {
            // More than twice as long as the limit on silence.
            reply.drip = Some((reply.body.len() / 25, Duration::from_millis(100)));
        }
        reply
    });
    slow.put_image("app", "latest", &sample);
    let (_folder, second) = store();
    second
        .pull(&reference(&slow, "app"), &options, &())
        .unwrap();
}

#[test]
fn a_layer_with_another_diff_id_than_configured_is_refused() {
    let server = Server::honest();
    let mut image = TestImage::sample(1);
    let other = layer(tar(&[("other", b"")]), Packing::Gzip);
    // The manifest lists another layer, with its true digest; the configuration does not list it.
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
