use super::*;

fn descriptor(media_type: &str, size: u64) -> String {
    let digest = Digest::of(media_type.as_bytes());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

fn manifest(config: &str, layer: &str, size: u64) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor(config, 10),
        descriptor(layer, size)
    )
}

fn entry(os: &str, architecture: &str, variant: &str) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: Digest::of(variant.as_bytes()),
        size: 1,
        platform: Some(Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: Some(variant.into()),
        }),
        annotations: None,
    }
}

#[test]
fn docker_and_oci_manifests_are_read() {
    for (config, layer) in [(0, 1), (1, 6)] {
        let text = manifest(CONFIG_TYPES[config], LAYER_TYPES[layer], 7);
        let Document::Manifest(manifest) = Document::parse(text.as_bytes()).unwrap() else {
            panic!("not a manifest");
        };
        assert_eq!(manifest.layers[0].size, 7);
    }
}

#[test]
fn what_is_not_a_container_image_is_refused() {
    let refused = |text: String| Document::parse(text.as_bytes()).unwrap_err();
    assert!(matches!(
        refused(manifest(
            "application/vnd.cncf.helm.config.v1+json",
            LAYER_TYPES[1],
            1
        )),
        Error::MediaType {
            what: "image configuration",
            ..
        }
    ));
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    assert!(matches!(
        refused(manifest(CONFIG_TYPES[0], encrypted, 1)),
        Error::MediaType { what: "layer", .. }
    ));
    assert!(matches!(
        refused(manifest(CONFIG_TYPES[0], LAYER_TYPES[1], u64::MAX)),
        Error::Size { .. }
    ));
    assert!(matches!(
        refused(r#"{"schemaVersion":1}"#.into()),
        Error::SchemaVersion { .. }
    ));
    assert!(matches!(
        refused(r#"{"schemaVersion":2}"#.into()),
        Error::Shape
    ));
    let both = manifest(CONFIG_TYPES[0], LAYER_TYPES[1], 1).replacen('{', r#"{"manifests":[],"#, 1);
    assert!(matches!(refused(both), Error::Shape));
    assert!(matches!(refused("{".into()), Error::Syntax { .. }));
}

#[test]
fn the_plainest_amd64_is_selected() {
    let entries = [
        entry("linux", "arm64", "v8"),
        entry("linux", "amd64", "v3"),
        entry("linux", "amd64", ""),
    ];
    assert_eq!(select(&entries).unwrap(), &entries[2]);
    assert_eq!(select(&entries[..2]).unwrap(), &entries[1]);
}

#[test]
fn a_missing_platform_names_those_there_are() {
    let entries = [
        entry("linux", "arm64", "v8"),
        entry("windows", "amd64", ""),
        entry("unknown", "unknown", ""),
    ];
    let error = select(&entries).unwrap_err().to_string();
    assert!(
        error.ends_with("it has linux/arm64/v8, windows/amd64"),
        "{error}"
    );
}

#[test]
fn chain_ids_follow_the_specification() {
    let diff_ids = vec![Digest::of(b"a"), Digest::of(b"b")];
    let config = Config {
        bytes: Vec::new(),
        diff_ids: diff_ids.clone(),
    };
    let second = Digest::of(format!("{} {}", diff_ids[0], diff_ids[1]).as_bytes());
    assert_eq!(config.chain_ids(), [diff_ids[0], second]);
}

#[test]
fn what_a_stranger_names_his_platforms_does_not_reach_the_terminal_raw() {
    let error = select(&[entry("\u{1b}[2J", "amd64", "")])
        .unwrap_err()
        .to_string();
    assert!(error.ends_with(r"it has \u{1b}[2J/amd64"), "{error}");
}

#[test]
fn an_image_of_more_layers_than_a_vm_takes_is_refused() {
    let of = |count: usize| {
        let layer = descriptor(LAYER_TYPES[1], 1);
        let text = manifest(CONFIG_TYPES[0], LAYER_TYPES[1], 1).replace(
            &format!("[{layer}]"),
            &format!("[{}]", vec![layer; count].join(",")),
        );
        Document::parse(text.as_bytes())
    };
    assert!(of(MAX_LAYERS).is_ok());
    let error = of(MAX_LAYERS + 1).unwrap_err();
    assert!(matches!(error, Error::TooManyLayers { count } if count == MAX_LAYERS + 1));
    assert!(error.to_string().contains("at most 240"), "{error}");
    let diff_ids = vec![format!("\"{}\"", Digest::of(b"")); MAX_LAYERS + 1].join(",");
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
    );
    let error = Config::parse(config.into_bytes()).unwrap_err();
    assert!(matches!(error, Error::TooManyLayers { .. }), "{error}");
}
