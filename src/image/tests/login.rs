//! Logging in and out: checked by the registry, kept where Docker keeps it.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use image::login::{Error, StoredIn, login, logins, logout};
use image::{PullOptions, PushOptions, Reference, Source};
use support::debian::Registry;
use support::images::TestImage;
use support::server::{Reply, Server};
use support::{chain, quick, skip, store};

fn options(folder: &Path) -> PullOptions {
    PullOptions {
        docker_config: Some(folder.to_owned()),
        ..quick()
    }
}

/// One that takes `u` with password `p`, by the scheme that is named.
fn guarded(scheme: &'static str) -> Server {
    Server::start(move |request, reply| {
        let authorization = request.header("authorization").unwrap_or_default();
        if request.path.starts_with("/token") {
            let right = authorization == "Basic dTpw" && !request.path.contains("scope");
            return Reply::new(if right { 200 } else { 401 }, r#"{"token":"t"}"#);
        }
        match (scheme, authorization) {
            ("Basic", "Basic dTpw") | ("Bearer", "Bearer t") => reply,
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                Reply::new(401, "").with("WWW-Authenticate", format!(r#"{scheme} realm="{realm}""#))
            }
        }
    })
}

#[test]
fn a_password_is_kept_once_the_registry_has_accepted_it() {
    for scheme in ["Basic", "Bearer"] {
        let (server, folder) = (guarded(scheme), tempfile::tempdir().unwrap());
        let file = folder.path().join("config.json");
        let before =
            r#"{"auths":{"other":{"auth":"eDp5"}},"psFormat":"x","proxies":{"a":[1,null]}}"#;
        std::fs::write(&file, before).unwrap();
        let options = options(folder.path());
        let wrong = login(&server.host(), "u", "wrong", &options).unwrap_err();
        assert!(matches!(wrong, Error::Denied { .. }), "{}", chain(&wrong));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);

        let stored = login(&format!("http://{}/v2/", server.host()), "u", "p", &options).unwrap();
        assert_eq!(stored, StoredIn::File(file.clone()));
        let text = std::fs::read_to_string(&file).unwrap();
        let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let entry = document["auths"]
            .as_object_mut()
            .unwrap()
            .remove(&server.host());
        assert_eq!(entry.unwrap(), serde_json::json!({ "auth": "dTpw" }));
        assert_eq!(
            document,
            serde_json::from_str::<serde_json::Value>(before).unwrap()
        );
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let known = logins(&options).unwrap();
        assert_eq!(known[&server.host()].as_deref(), Some("u"));

        assert!(logout(&server.host(), &options).unwrap());
        assert!(
            !logout(&server.host(), &options).unwrap(),
            "nothing is left"
        );
        let text = std::fs::read_to_string(&file).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            document,
            serde_json::from_str::<serde_json::Value>(before).unwrap()
        );
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file stays");
    }
}

#[test]
fn a_login_opens_debians_registry_for_pushing() {
    let (blobs, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(registry) = Registry::start_guarded(blobs.path()) else {
        return skip("docker-registry is not installed");
    };
    let (_folder, store) = store();
    let name: Reference = format!("{}/app:1", registry.host()).parse().unwrap();
    let archive = TestImage::sample(1).docker_archive(&[&name.to_string()]);
    store
        .import(Source::Reader(&mut &archive[..]), None, &())
        .unwrap();
    let options = options(folder.path());
    let push = || {
        let options = PushOptions {
            connection: options.clone(),
            ..PushOptions::default()
        };
        store.push(&name, &options, &())
    };
    assert!(chain(&push().unwrap_err()).contains("denies access"));
    assert!(login(registry.host(), "user", "Secret", &options).is_err());
    login(registry.host(), "user", "secret", &options).unwrap();
    push().unwrap();
    logout(registry.host(), &options).unwrap();
    assert!(push().is_err());
}

#[test]
fn a_new_folder_is_made_and_a_link_stays_a_link() {
    let (server, folder) = (guarded("Basic"), tempfile::tempdir().unwrap());
    let new = folder.path().join("a/b");
    login(&server.host(), "u", "p", &options(&new)).unwrap();
    assert!(new.join("config.json").exists());
    let linked = folder.path().join("linked");
    std::fs::create_dir(&linked).unwrap();
    let target = folder.path().join("dotfiles.json");
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, linked.join("config.json")).unwrap();
    login(&server.host(), "u", "p", &options(&linked)).unwrap();
    assert!(linked.join("config.json").is_symlink());
    assert!(std::fs::read_to_string(&target).unwrap().contains("dTpw"));
}

#[test]
fn a_file_that_is_not_dockers_is_left_alone() {
    let (server, folder) = (guarded("Basic"), tempfile::tempdir().unwrap());
    let file = folder.path().join("config.json");
    for text in ["{", "[]", r#"{"auths":[]}"#, r#"{"credHelpers":"x"}"#] {
        std::fs::write(&file, text).unwrap();
        let error = login(&server.host(), "u", "p", &options(folder.path())).unwrap_err();
        assert!(matches!(error, Error::File(_)), "{}", chain(&error));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    let text = serde_json::json!({ "credHelpers": { server.host(): "../x" } });
    std::fs::write(&file, text.to_string()).unwrap();
    let error = login(&server.host(), "u", "p", &options(folder.path())).unwrap_err();
    assert!(matches!(error, Error::Helper(_)), "{}", chain(&error));
}

#[test]
fn names_that_are_none_are_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    assert!(matches!(
        login("localhost:1", "", "p", &options),
        Err(Error::NoUser { .. })
    ));
    assert!(matches!(
        login("localhost:1", "a:b", "p", &options),
        Err(Error::User { .. })
    ));
    assert!(matches!(
        login("no registry", "u", "p", &options),
        Err(Error::Name { .. })
    ));
}

/// The registry, for the child that has a helper in its PATH.
const HOST: &str = "HULL_TEST_HOST";
const FOLDER: &str = "HULL_TEST_FOLDER";

#[test]
fn child() {
    let (Ok(host), Ok(folder)) = (std::env::var(HOST), std::env::var(FOLDER)) else {
        return;
    };
    let options = options(Path::new(&folder));
    let stored = login(&host, "u", "p", &options).unwrap();
    assert_eq!(stored, StoredIn::Helper("hulltest".into()));
    assert_eq!(logins(&options).unwrap()[&host].as_deref(), Some("u"));
    let file = Path::new(&folder).join("config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&host) && !text.contains("dTpw"), "{text}");
    assert!(logout(&host, &options).unwrap());
    assert!(!logout(&host, &options).unwrap());
    println!("the helper was used");
}

#[test]
fn a_credential_helper_keeps_what_the_file_must_not() {
    let (server, folder) = (guarded("Basic"), tempfile::tempdir().unwrap());
    let helper = folder.path().join("docker-credential-hulltest");
    let script = format!(
        "#!/bin/sh\ncd {}\ncase $1 in\n\
         store) grep -q '\"Secret\":\"p\"' && echo >kept ;;\n\
         list) [ -e kept ] && echo '{{\"{}\":\"u\"}}' || echo '{{}}' ;;\n\
         erase) rm kept 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }} ;;\n\
         esac\n",
        folder.path().display(),
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
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(HOST, server.host())
        .env(FOLDER, folder.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("the helper was used"), "{output:?}");
    assert!(!folder.path().join("kept").exists());
}
