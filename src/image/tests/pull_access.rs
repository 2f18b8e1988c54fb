//! Access: challenges, tokens and credentials.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use image::registry;
use support::images::TestImage;
use support::server::{Reply, Server};
use support::{chain, pull_error, quick, reference, store, with_docker_config};

/// A registry that requires a token, which it issues itself for this Authorization (none if empty).
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
fn basic_authentication_is_answered_and_wrong_passwords_are_reported() {
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
            let token = r#"{"token":"","access_token":"t"}"#;
            return Reply::new(if right { 200 } else { 401 }, token);
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
fn a_refresh_token_that_is_not_valid_any_more_denies_access() {
    let server = Server::start(|request, _| match request.path.as_str() {
        "/token" => Reply::new(400, r#"{"error":"invalid_grant"}"#),
        _ => {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            Reply::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
        }
    });
    let (_config, options) = with_docker_config(&format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"old"}}}}}}"#,
        server.host()
    ));
    let (_folder, store) = store();
    let error = store
        .pull(&reference(&server, "app"), &options, &())
        .unwrap_err();
    assert!(chain(&error).contains("denies access"), "{}", chain(&error));
}

#[test]
fn challenges_of_other_schemes_and_useless_ones_are_passed_over() {
    for challenge in [
        r#"Negotiate, Bearer realm="not an address", Basic realm="r""#,
        r#"Digest realm="r", qop="auth, auth-int", basic realm=r"#,
    ] {
        let server = Server::start(
            move |request, reply| match request.header("authorization") {
                Some("Basic dTpw") => reply,
                _ => Reply::new(401, "").with("WWW-Authenticate", challenge),
            },
        );
        server.put_image("app", "latest", &TestImage::sample(1));
        let (_config, options) = with_docker_config(&format!(
            r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#,
            server.host()
        ));
        let (_folder, store) = store();
        store
            .pull(&reference(&server, "app"), &options, &())
            .unwrap();
    }
}

#[test]
fn a_registry_that_does_not_say_how_to_log_in_denies_access() {
    let server = Server::start(|_, _| Reply::new(401, ""));
    assert!(matches!(
        pull_error(&server, "app"),
        registry::Error::Unauthorised { .. }
    ));
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
