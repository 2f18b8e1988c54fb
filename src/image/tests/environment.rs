//! Settings from the environment: proxies, certificates, credential helpers. Variables are set for
//! a child, which is this test's own program started again.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use image::{PullOptions, Store};
use support::images::TestImage;
use support::server::{Reply, Server};
use support::{chain, quick, skip};

/// The reference that the child is to pull.
const WHAT: &str = "HULL_TEST_WHAT";
/// The folder of the child's store.
const ROOT: &str = "HULL_TEST_ROOT";

#[test]
fn child() {
    let Ok(what) = std::env::var(WHAT) else {
        return;
    };
    let store = Store::open(Path::new(&std::env::var_os(ROOT).unwrap())).unwrap();
    let options = PullOptions {
        docker_config: None,
        ..quick()
    };
    match store.pull(&what.parse().unwrap(), &options, &()) {
        Ok(_) => std::process::exit(0),
        Err(error) => {
            eprintln!(
                "{}; help: {}",
                chain(&error),
                error.help().unwrap_or_default()
            );
            std::process::exit(1);
        }
    }
}

/// Pulls in a child with these variables. Returns what it printed of an error, nothing if it
/// succeeded.
fn pull(what: &str, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child", "--exact", "--nocapture"])
        .stdout(Stdio::null());
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ] {
        command
            .env_remove(name)
            .env_remove(name.to_ascii_lowercase());
    }
    command
        .env(WHAT, what)
        .env(ROOT, folder.path().join("store"))
        .env("HOME", folder.path());
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), text.is_empty(), "{text}");
    text
}

#[test]
fn other_machines_are_reached_through_the_proxy_and_this_one_is_not() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let (sender, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in proxy.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map(Result::unwrap);
            let line = lines.next().unwrap();
            // To the empty line that ends the request.
            assert!(lines.any(|line| line.is_empty()));
            sender.send(line).unwrap();
            stream
                .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
    });
    let variables = [("HTTPS_PROXY", address.as_str()), ("HTTP_PROXY", &address)];
    let error = pull("registry.invalid/app", &variables);
    assert!(error.contains("cannot be reached"), "{error}");
    let line = asked.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(line.starts_with("CONNECT registry.invalid:443 "), "{line}");
    // Nor what NO_PROXY names.
    pull(
        "registry.invalid/app",
        &[variables[0], ("no_proxy", ".invalid")],
    );
    let server = Server::honest();
    server.put_image("app", "latest", &TestImage::sample(1));
    assert_eq!(pull(&format!("{}/app", server.host()), &variables), "");
    assert!(asked.try_recv().is_err());
}

#[test]
fn a_proxy_variable_that_makes_no_sense_is_named() {
    let error = pull(
        "registry.invalid/app",
        &[("https_proxy", "socks5://127.0.0.1:1")],
    );
    assert!(
        error.contains("HTTPS_PROXY is not the address of an HTTP proxy"),
        "{error}"
    );
}

#[test]
fn a_name_that_does_not_resolve_is_told() {
    let error = pull("registry.invalid/app", &[]);
    assert!(
        error.contains("cannot be reached") && error.contains("DNS"),
        "{error}"
    );
}

#[test]
fn https_is_spoken_and_its_certificate_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (
        folder.path().join("key.pem"),
        folder.path().join("cert.pem"),
    );
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=hull test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args([Path::new("-keyout"), &key, Path::new("-out"), &certificate])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skip("openssl is not installed");
    }
    let root = folder.path().join("registry");
    std::fs::create_dir(&root).unwrap();
    let plain = support::debian::Registry::start(&root);
    let tls = format!(
        ", tls: {{certificate: '{}', key: '{}'}}",
        certificate.display(),
        key.display()
    );
    let Some(plain) = plain else {
        return skip("docker-registry is not installed");
    };
    plain.push("app", "latest", &TestImage::sample(1));
    // The same blobs, served over HTTPS.
    let secure = support::debian::Registry::start_with(&root, &tls).unwrap();
    let what = format!("{}/app", secure.host());
    assert_eq!(
        pull(&what, &[("SSL_CERT_FILE", certificate.to_str().unwrap())]),
        ""
    );
    let error = pull(&what, &[]);
    assert!(
        error.contains("certificate") || error.contains("Certificate"),
        "{error}"
    );
    assert!(error.contains("SSL_CERT_FILE"), "{error}");
}

#[test]
fn a_credential_helper_is_asked_for_the_registry() {
    let server = Server::start(|request, reply| match request.header("authorization") {
        Some("Basic dTpw") => reply,
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=\"r\""),
    });
    server.put_image("app", "latest", &TestImage::sample(1));
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-hulltest");
    let script = format!(
        "#!/bin/sh\n[ \"$(cat)\" = {} ] || {{ echo credentials not found in native keychain; exit 1; }}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"p\"}}'\n",
        server.host()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(
        folder.path().join("config.json"),
        r#"{"credsStore":"hulltest"}"#,
    )
    .unwrap();
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let variables = [
        ("DOCKER_CONFIG", folder.path().to_str().unwrap()),
        ("PATH", &path),
    ];
    assert_eq!(pull(&format!("{}/app", server.host()), &variables), "");
    let port = server.host().split_once(':').unwrap().1.to_owned();
    let error = pull(&format!("localhost:{port}/app"), &variables);
    assert!(
        error.contains("denies access to app without credentials"),
        "{error}"
    );
}
