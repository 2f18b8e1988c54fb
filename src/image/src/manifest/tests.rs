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
        artifact_type: None,
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
        Error::NotAnImage { .. }
    ));
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    assert!(matches!(
        refused(manifest(CONFIG_TYPES[0], encrypted, 1)),
        Error::MediaType { .. }
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
    assert_eq!(
        candidates(&entries, Some(&Platform::native())).unwrap(),
        [&entries[2], &entries[1]]
    );
    assert_eq!(
        candidates(&entries[..2], Some(&Platform::native())).unwrap(),
        [&entries[1]]
    );
}

#[test]
fn a_missing_platform_names_those_there_are() {
    let entries = [
        entry("linux", "arm64", "v8"),
        entry("windows", "amd64", ""),
        entry("unknown", "unknown", ""),
    ];
    let error = candidates(&entries, Some(&Platform::native()))
        .unwrap_err()
        .to_string();
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
fn names_of_platforms_do_not_reach_the_terminal_raw() {
    let error = candidates(
        &[entry("\u{1b}[2J", "amd64", "")],
        Some(&Platform::native()),
    )
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

/// Documents by digest, as a registry has them.
fn resolved(documents: &[&str], top: &str) -> Result<Manifest, Error> {
    let fetch = |entry: &Descriptor| -> Result<Option<Vec<u8>>, Error> {
        let found = documents
            .iter()
            .find(|text| Digest::of(text.as_bytes()) == entry.digest);
        Ok(Some(found.expect("the index names it").as_bytes().to_vec()))
    };
    resolve(top.as_bytes().to_vec(), Some(&Platform::native()), fetch).map(|(_, manifest)| manifest)
}

fn listed(document: &str, more: &str) -> String {
    let digest = Digest::of(document.as_bytes());
    format!(r#"{{"digest":"{digest}","size":{}{more}}}"#, document.len())
}

fn index_of(entries: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    )
}

#[test]
fn an_image_is_found_among_other_content() {
    let image = manifest(CONFIG_TYPES[0], LAYER_TYPES[1], 7);
    let chart = manifest(
        "application/vnd.cncf.helm.config.v1+json",
        LAYER_TYPES[1],
        1,
    );
    // As cosign writes them: a configuration like an image's, and no layer that could be unpacked.
    let signature = manifest(
        CONFIG_TYPES[0],
        "application/vnd.dev.cosign.simplesigning.v1+json",
        1,
    );
    let documents = [image.as_str(), &chart, &signature];
    let sha512 = format!(r#"{{"digest":"sha512:{}","size":1}}"#, "0".repeat(128));
    let others = [
        sha512.clone(),
        listed(
            "never read",
            r#","mediaType":"application/vnd.oci.artifact.manifest.v1+json""#,
        ),
        listed("never read", r#","artifactType":"application/vnd.example""#),
        listed(&chart, ""),
        listed(&signature, ""),
        listed(
            "never read",
            r#","platform":{"os":"unknown","architecture":"unknown"}"#,
        ),
    ];
    let mut entries = others.to_vec();
    entries.push(listed(&image, ""));
    let found = resolved(&documents, &index_of(&entries)).unwrap();
    assert_eq!(found.layers[0].size, 7);
    // Without the image, the error says what was found.
    let error = resolved(&documents, &index_of(&others[3..])).unwrap_err();
    assert!(error.to_string().contains("helm"), "{error}");
    let error = resolved(&documents, &index_of(&others[1..3])).unwrap_err();
    assert!(error.to_string().contains("oci.artifact"), "{error}");
    let error = resolved(&documents, &index_of(&others[..1])).unwrap_err();
    assert!(matches!(error, Error::Syntax { .. }), "{error}");
}

#[test]
fn configurations_that_lost_their_type_are_taken() {
    for config in OLD_CONFIG_TYPES {
        let text = manifest(config, LAYER_TYPES[1], 7);
        assert!(Document::parse(text.as_bytes()).is_ok(), "{config:?}");
    }
}

#[test]
fn the_search_for_a_manifest_is_bounded() {
    // An index of 100 artifacts costs a bounded number of documents.
    let chart = manifest(
        "application/vnd.cncf.helm.config.v1+json",
        LAYER_TYPES[1],
        1,
    );
    let top = index_of(&vec![listed(&chart, ""); 100]);
    let read = std::cell::Cell::new(0);
    let fetch = |_: &Descriptor| -> Result<Option<Vec<u8>>, Error> {
        read.set(read.get() + 1);
        Ok(Some(chart.as_bytes().to_vec()))
    };
    assert!(matches!(
        resolve(top.into_bytes(), Some(&Platform::native()), fetch),
        Err(Error::NotAnImage { .. })
    ));
    assert!(read.get() <= 32, "{}", read.get());
    let mut nested = manifest(CONFIG_TYPES[0], LAYER_TYPES[1], 7);
    let mut documents = vec![nested.clone()];
    for depth in 1..=4 {
        nested = index_of(&[listed(&nested, "")]);
        documents.push(nested.clone());
        let all: Vec<&str> = documents.iter().map(String::as_str).collect();
        match resolved(&all, &nested) {
            Ok(_) => assert!(depth <= 3),
            Err(error) => assert!(depth == 4 && matches!(error, Error::Depth), "{error}"),
        }
    }
}
