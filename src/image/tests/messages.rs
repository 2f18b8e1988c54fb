//! Messages name the real cause of a failure.

mod support;

use image::{Cause, Error, Source, Store, registry, store as image_store};
use support::images::{LayerBlob, Packing, TestImage, gzip, layer, tar};
use support::server::Server;
use support::{chain, quick, reference, store};

/// Pulls an image of this one layer, which must fail.
fn pull_layer(layer: LayerBlob) -> Error {
    let server = Server::honest();
    server.put_image("app", "latest", &TestImage::new(vec![layer]));
    let (_folder, store) = store();
    let reference = reference(&server, "app");
    store.pull(&reference, &quick(), &()).unwrap_err()
}

fn store_error(error: &Error) -> &image_store::Error {
    match error.cause() {
        Some(Cause::Store(error)) => error,
        _ => panic!("{}", chain(error)),
    }
}

#[test]
fn a_legal_tar_that_cannot_be_taken_is_not_called_damaged() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Char);
    header.set_device_major(4096).unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "dev/odd", std::io::empty())
        .unwrap();
    let tar = builder.into_inner().unwrap();
    for packing in [Packing::None, Packing::Gzip] {
        let error = pull_layer(layer(tar.clone(), packing));
        assert!(matches!(
            store_error(&error),
            image_store::Error::Refused { .. }
        ));
        let text = chain(&error);
        assert!(text.contains("dev/odd"), "{text}");
        for blame in ["damaged", "corrupt", "transferred"] {
            assert!(!text.contains(blame), "{text}");
            assert!(!error.help().unwrap().contains(blame));
        }
    }
}

#[test]
fn a_layer_packed_by_another_program_is_not_supported() {
    let mut packed = layer(tar(&[("a", b"")]), Packing::None);
    packed.bytes = b"BZh91AY&SY".to_vec();
    let error = pull_layer(packed);
    assert!(matches!(
        store_error(&error),
        image_store::Error::Refused { .. }
    ));
    assert!(chain(&error).contains("bzip2"), "{}", chain(&error));
}

#[test]
fn what_was_imported_is_not_up_to_date_before_it_was_pulled() {
    let server = Server::honest();
    let image = TestImage::sample(1);
    server.put_image("app", "latest", &image);
    let name = reference(&server, "app");
    let import = |store: &Store, name| {
        let mut archive = &image.docker_archive(&[])[..];
        store
            .import(Source::Reader(&mut archive), Some(name), &())
            .unwrap();
    };
    // By another name, and by the very name that is pulled: no registry was asked in either case.
    for imported in [&"other:1".parse().unwrap(), &name] {
        let (_folder, store) = store();
        import(&store, imported);
        let pulled = store.pull(&name, &quick(), &()).unwrap();
        assert_eq!((pulled.up_to_date, pulled.fetched_layers), (false, 0));
        let again = store.pull(&name, &quick(), &()).unwrap();
        assert!(again.up_to_date);
    }
    let (_folder, store) = store();
    let pulled = store.pull(&name, &quick(), &()).unwrap();
    assert_eq!((pulled.up_to_date, pulled.fetched_layers), (false, 3));
    // The tag means another image now.
    server.put_image("app", "latest", &TestImage::sample(2));
    let moved = store.pull(&name, &quick(), &()).unwrap();
    assert!(!moved.up_to_date);
}

#[test]
fn a_file_that_cannot_be_read_is_named_also_when_it_is_packed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar.gz");
    let mut packed = gzip(&TestImage::sample(1).docker_archive(&["a:1"]));
    packed.truncate(packed.len() / 2);
    std::fs::write(&path, packed).unwrap();
    let (_folder, store) = store();
    let error = store.import(Source::Path(&path), None, &()).unwrap_err();
    let Error::Import { source, .. } = &error else {
        panic!("{}", chain(&error));
    };
    assert!(source.to_string().contains("image.tar.gz"), "{source}");
}

#[test]
fn an_unreachable_registry_is_not_blamed_for_a_proxy() {
    let error = |proxy: Option<&str>| registry::Error::Unreachable {
        host: "r.example".into(),
        proxy: proxy.map(str::to_owned),
        source: Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()),
    };
    assert_eq!(error(None).to_string(), "r.example cannot be reached");
    let by_proxy = error(Some("p:3128"));
    assert!(by_proxy.to_string().ends_with("through the proxy p:3128"));
    assert!(by_proxy.help().unwrap().contains("HTTPS_PROXY"));
}
