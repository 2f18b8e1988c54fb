use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn short_names_resolve_as_dockers_do() {
    for (text, canonical) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("demo", "docker.io/library/demo:latest"),
        ("grafana/loki", "docker.io/grafana/loki:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x/y:t", "localhost:5000/x/y:t"),
        ("ghcr.io/o/r/deep", "ghcr.io/o/r/deep:latest"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("host:5000", "docker.io/library/host:5000"),
        ("Host/x", "Host/x:latest"),
        ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest"),
    ] {
        let reference: Reference = text.parse().expect(text);
        assert_eq!(reference.canonical(), canonical, "{text}");
        assert_eq!(canonical.parse::<Reference>().unwrap(), reference);
    }
}

#[test]
fn the_familiar_form_is_short_and_parses_back() {
    for (text, familiar) in [
        ("docker.io/library/nginx", "nginx:latest"),
        ("docker.io/library/a/b", "library/a/b:latest"),
        ("docker.io/grafana/loki:1", "grafana/loki:1"),
        ("quay.io/a/b", "quay.io/a/b:latest"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), familiar);
        assert_eq!(familiar.parse::<Reference>().unwrap(), reference);
    }
}

#[test]
fn a_digest_stands_alone_or_beside_a_tag() {
    let alone: Reference = format!("nginx@{DIGEST}").parse().unwrap();
    assert_eq!(alone.tag(), None);
    assert_eq!(alone.manifest(), DIGEST);
    assert_eq!(alone.to_string(), format!("nginx@{DIGEST}"));
    let both: Reference = format!("nginx:1@{DIGEST}").parse().unwrap();
    assert_eq!(both.tag(), Some("1"));
    assert_eq!(
        both.canonical(),
        format!("docker.io/library/nginx@{DIGEST}")
    );
}

#[test]
fn what_is_not_a_reference_is_refused() {
    let long = "a".repeat(300);
    for text in [
        "",
        ":",
        ":tag",
        "Nginx",
        "a/B",
        "a//b",
        "/a",
        "a/",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a_.b",
        "a:",
        "a:-x",
        "a:b:c",
        "a b",
        "a@",
        "a@sha256:12",
        "a@md5:x",
        "ho_st.x/a",
        "x.y:port/a",
        "x.y:99999/a",
        "[::1/a",
        "[zz]/a",
        "-x.y/a",
        "../a",
        "a/../b",
        "é",
        "a\n",
        &long,
        &DIGEST[7..],
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text:?}");
    }
    assert!(
        format!("a:{}", "t".repeat(129))
            .parse::<Reference>()
            .is_err()
    );
}

#[test]
fn docker_hub_is_served_elsewhere_than_it_is_named() {
    let reference: Reference = "nginx".parse().unwrap();
    assert_eq!(
        (reference.domain(), reference.host()),
        ("docker.io", "registry-1.docker.io")
    );
}

#[test]
fn a_repository_that_looks_like_a_registry_keeps_its_own() {
    for text in ["docker.io/a.b/c:d", "docker.io/localhost/x:latest"] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.domain(), "docker.io");
        assert_eq!(reference.to_string(), text);
        assert_eq!(
            reference.to_string().parse::<Reference>().unwrap(),
            reference
        );
    }
}
