//! Who may pull: tokens, credentials, and where they must not go.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use image::{PullOptions, registry};
use support::images::TestImage;
use support::server::{Reply, Server};
use support::{chain, pull_error, quick, reference, store};

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
