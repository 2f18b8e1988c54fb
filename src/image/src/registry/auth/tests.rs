use super::*;

#[test]
fn challenges_are_read_with_quotes_commas_and_company() {
    let header =
        r#"Basic realm="a \"b\"", Bearer realm="https://auth/t",service=r ,scope="x:pull,push""#;
    let found = challenges(header);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].parameter("realm"), Some(r#"a "b""#));
    assert_eq!(found[1].scheme, "bearer");
    assert_eq!(found[1].parameter("service"), Some("r"));
    assert_eq!(found[1].parameter("scope"), Some("x:pull,push"));
    for header in [
        "",
        ",,,",
        "=",
        "=x",
        "Bearer",
        "Bearer realm",
        "Bearer realm=\"",
        "é=\"\\",
    ] {
        challenges(header);
    }
}

#[test]
fn percent_encoding_spares_only_unreserved_characters() {
    assert_eq!(
        percent_encoded("repository:a/b:pull é~"),
        "repository%3Aa%2Fb%3Apull%20%C3%A9~"
    );
}

fn look_up(config: &str, domain: &str) -> Credentials {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    Credentials::look_up(domain, Some(folder.path().to_owned()))
}

#[test]
fn dockers_configuration_yields_what_login_left() {
    let auth = STANDARD.encode("u:p:q");
    let config = format!(
        r#"{{"auths":{{"{DOCKER_HUB_KEY}":{{"auth":"{auth}"}},"r:5000":{{"identitytoken":"t"}}}}}}"#
    );
    assert!(matches!(
        look_up(&config, "docker.io"),
        Credentials::Password { user, password } if user == "u" && password == "p:q"
    ));
    assert!(matches!(look_up(&config, "r:5000"), Credentials::Identity { token } if token == "t"));
    assert!(matches!(look_up(&config, "quay.io"), Credentials::None));
    assert!(matches!(look_up("{", "quay.io"), Credentials::Failed(_)));
    assert!(matches!(
        look_up(r#"{"credsStore":"hull-none-such"}"#, "quay.io"),
        Credentials::Failed(error) if *error == CredentialRetrievalError::HelperCommunicationError
    ));
    assert!(matches!(
        Credentials::look_up("a", Some("/nonexistent".into())),
        Credentials::None
    ));
    assert!(matches!(Credentials::look_up("a", None), Credentials::None));
}
