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
fn parameters_that_lack_their_quotes_are_read_all_the_same() {
    let found =
        challenges("Bearer realm=https://auth.example/t,service=r,scope=repository:a/b:pull");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].parameter("realm"), Some("https://auth.example/t"));
    assert_eq!(found[0].parameter("scope"), Some("repository:a/b:pull"));
}

#[test]
fn a_token_may_have_either_name() {
    for (answer, token) in [
        (r#"{"token":"t"}"#, Some("t")),
        (r#"{"access_token":"a","expires_in":"soon"}"#, Some("a")),
        (r#"{"token":"","access_token":"a"}"#, Some("a")),
        (r#"{"token":null,"access_token":"a"}"#, Some("a")),
        (r#"{"token":"t","access_token":"a"}"#, Some("t")),
        (r#"{"token":"","access_token":""}"#, None),
        ("{}", None),
    ] {
        let parsed: TokenAnswer = serde_json::from_str(answer).unwrap();
        assert_eq!(parsed.into_token().as_deref(), token, "{answer}");
    }
}

#[test]
fn a_token_is_asked_for_with_each_scope_beside_the_realms_own_query() {
    let http = Http::new("r.example", &[], std::time::Duration::from_secs(1)).unwrap();
    let exchange = Exchange {
        http: &http,
        host: "r.example",
        realm: "https://auth.example/t?account=u".parse().unwrap(),
        service: "é r",
        scope: "repository:a/b:pull repository:c:pull".into(),
    };
    assert_eq!(
        exchange.query().as_str(),
        "https://auth.example/t?account=u&scope=repository%3Aa%2Fb%3Apull\
         &scope=repository%3Ac%3Apull&service=%C3%A9+r"
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
