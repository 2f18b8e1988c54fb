//! Redirects: where they lead, and that credentials stay behind.

mod support;

use image::{PullOptions, registry};
use support::images::TestImage;
use support::server::{Reply, Server};
use support::{chain, pull_error, reference, store, with_docker_config};

/// A registry whose authorisation server answers with this redirect, and options with an identity
/// token for it.
fn redirecting_login(status: u16, location: String) -> (Server, tempfile::TempDir, PullOptions) {
    let server = Server::start(move |request, reply| {
        if request.path == "/token" {
            return Reply::new(status, "").with("Location", location.clone());
        }
        if request.path == "/token2" && request.body.contains("refresh_token=secret") {
            return Reply::new(200, r#"{"access_token":"t"}"#);
        }
        match request.header("authorization") {
            Some("Bearer t") => reply,
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                Reply::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
            }
        }
    });
    let (folder, options) = with_docker_config(&format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"secret"}}}}}}"#,
        server.host()
    ));
    (server, folder, options)
}

#[test]
fn a_refresh_token_follows_no_redirect_to_another_origin() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Server::honest();
        let location = format!("http://{}/token2", elsewhere.host());
        let (server, _config, options) = redirecting_login(status, location);
        let (_folder, store) = store();
        let error = store
            .pull(&reference(&server, "app"), &options, &())
            .unwrap_err();
        let requests = elsewhere.requests("/");
        assert!(
            requests.iter().all(|request| request.body.is_empty()),
            "{status}: {requests:?}"
        );
        // 303 asks for a GET, which takes nothing along.
        if status != 303 {
            assert_eq!(requests.len(), 0, "{status}");
            let text = chain(&error);
            assert!(text.contains("where credentials are not sent"), "{text}");
        }
    }
}

#[test]
fn a_refresh_token_follows_redirects_within_its_origin() {
    let (server, _config, options) = redirecting_login(307, "/token2".into());
    server.put_image("app", "latest", &TestImage::sample(1));
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap();
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
fn credentials_do_not_come_back_with_a_redirect_from_elsewhere() {
    let elsewhere = Server::start(|request, _| {
        let back = request.path.split_once("?back=").unwrap().1.to_owned();
        Reply::new(307, "").with("Location", back)
    });
    let middle = elsewhere.host();
    let server = Server::start(move |request, reply| {
        if request.path.starts_with("/chosen") {
            return Reply::new(404, "");
        }
        if request.header("authorization") != Some("Basic dTpw") {
            return Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"r\"");
        }
        match request.path.contains("/blobs/") {
            true => {
                let back = format!("http://{}/chosen", request.header("host").unwrap());
                Reply::new(307, "").with("Location", format!("http://{middle}/?back={back}"))
            }
            false => reply,
        }
    });
    server.put_image("app", "latest", &TestImage::sample(1));
    let (_config, options) = with_docker_config(&format!(
        r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#,
        server.host()
    ));
    let (_folder, store) = store();
    store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap_err();
    let chosen = server.requests("/chosen");
    assert!(!chosen.is_empty());
    assert!(
        chosen
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
