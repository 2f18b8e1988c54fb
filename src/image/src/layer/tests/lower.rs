//! What a layer takes from the layers below it.

use super::*;

fn layer(archive: Archive) -> File {
    convert_over(&archive.finish(), &LowerLayers::none())
        .unwrap()
        .1
}

/// Two layers: `etc/passwd` and others below, a few whiteouts above.
fn below() -> LowerLayers {
    let mut lowest = Archive::default();
    lowest.add(E {
        path: "tmp/",
        mode: 0o1777,
        uid: 9,
        ..E::DIR
    });
    lowest.add(E {
        path: "etc/passwd",
        data: b"root",
        mode: 0o600,
        uid: 5,
        ..E::FILE
    });
    lowest.add(E {
        path: "etc/gone",
        ..E::FILE
    });
    lowest.add(E {
        path: "etc/link",
        link: "passwd",
        ..E::SYMLINK
    });
    lowest.add(E {
        path: "opaque/old",
        ..E::FILE
    });
    lowest.add(E {
        path: "file-now/old",
        ..E::FILE
    });
    lowest.gnu_sparse("sparse", 100 << 20, &[(50 << 20, 3)], b"mid");
    let mut upper = Archive::default();
    upper.add(E {
        path: "etc/.wh.gone",
        ..E::FILE
    });
    upper.add(E {
        path: "opaque/.wh..wh..opq",
        ..E::FILE
    });
    upper.add(E {
        path: "file-now",
        ..E::FILE
    });
    LowerLayers::open([layer(lowest), layer(upper)]).unwrap()
}

#[test]
fn a_hard_link_into_a_lower_layer_copies_the_file() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "copy",
        link: "etc/passwd",
        ..E::HARD_LINK
    });
    archive.add(E {
        path: "copy2",
        link: "./etc//passwd",
        ..E::HARD_LINK
    });
    archive.add(E {
        path: "soft",
        link: "/etc/link",
        ..E::HARD_LINK
    });
    archive.add(E {
        path: "big",
        link: "sparse",
        ..E::HARD_LINK
    });
    let (converted, file) = convert_over(&archive.finish(), &below()).unwrap();
    fsck(&file);
    let reader = Reader::open(file).unwrap();
    assert_eq!(contents(&reader, "copy"), b"root");
    let copy = node(&reader, "copy");
    assert_eq!(
        (copy.metadata.permissions, copy.metadata.uid, copy.links()),
        (0o600, 5, 2)
    );
    assert_eq!(copy, node(&reader, "copy2"));
    assert_eq!(reader.read_link(&node(&reader, "soft")).unwrap(), b"passwd");
    let big = contents(&reader, "big");
    assert_eq!((big.len(), &big[50 << 20..][..3]), (100 << 20, &b"mid"[..]));
    assert!(
        converted.image_bytes < 2 << 20,
        "holes stay holes: {converted:?}"
    );
    assert!(converted.depends_on_lower);
    assert!(
        !exists(&reader, "etc"),
        "the lower file's own name is not this layer's"
    );
}

#[test]
fn what_is_hidden_below_cannot_be_linked_to() {
    for link in [
        "etc/gone",
        "opaque/old",
        "file-now/old",
        "etc/link/x",
        "etc/missing",
        "missing/x",
    ] {
        let mut archive = Archive::default();
        archive.add(E {
            path: "copy",
            link,
            ..E::HARD_LINK
        });
        let error = convert_over(&archive.finish(), &below()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Entry {
                    source: Problem::LinkMissing,
                    ..
                }
            ),
            "{link}: {error:?}"
        );
    }
    let mut archive = Archive::default();
    archive.add(E {
        path: "copy",
        link: "etc",
        ..E::HARD_LINK
    });
    let error = convert_over(&archive.finish(), &below()).unwrap_err();
    assert!(matches!(
        error,
        Error::Entry {
            source: Problem::LinkToDirectory,
            ..
        }
    ));
}

#[test]
fn what_this_layer_hides_cannot_be_linked_to() {
    for hiding in [
        "etc/.wh.passwd",
        ".wh.etc",
        "etc/.wh..wh..opq",
        ".wh..wh..opq",
    ] {
        let mut archive = Archive::default();
        archive.add(E {
            path: hiding,
            ..E::FILE
        });
        archive.add(E {
            path: "copy",
            link: "etc/passwd",
            ..E::HARD_LINK
        });
        let error = convert_over(&archive.finish(), &below()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Entry {
                    source: Problem::LinkMissing,
                    ..
                }
            ),
            "{hiding}: {error:?}"
        );
    }
}

#[test]
fn implied_parents_look_as_they_do_below() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "tmp/new",
        ..E::FILE
    });
    archive.add(E {
        path: "opaque/new",
        ..E::FILE
    });
    archive.add(E {
        path: "file-now/new",
        ..E::FILE
    });
    let (converted, file) = convert_over(&archive.finish(), &below()).unwrap();
    let reader = Reader::open(file).unwrap();
    assert_eq!(
        (
            node(&reader, "tmp").metadata.permissions,
            node(&reader, "tmp").metadata.uid
        ),
        (0o1777, 9)
    );
    assert!(
        !is_opaque(&reader, "opaque"),
        "only the layer that said so is opaque"
    );
    assert_eq!(node(&reader, "file-now").metadata.permissions, 0o755);
    assert!(converted.depends_on_lower);
}

#[test]
fn a_layer_that_names_all_its_parents_depends_on_none_below() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "tmp/",
        ..E::DIR
    });
    archive.add(E {
        path: "tmp/new",
        ..E::FILE
    });
    archive.add(E {
        path: "tmp/hard",
        link: "tmp/new",
        ..E::HARD_LINK
    });
    archive.add(E {
        path: "tmp/.wh.old",
        ..E::FILE
    });
    assert!(
        !convert_over(&archive.finish(), &below())
            .unwrap()
            .0
            .depends_on_lower
    );
}

#[test]
fn a_root_without_an_entry_is_marked() {
    let marked = |archive: Archive| {
        let (_, reader) = image(archive);
        let xattrs = reader.root().unwrap().metadata.xattrs;
        xattrs
            .get(protocol::layer::IMPLIED_ROOT_XATTR.as_bytes())
            .is_some()
    };
    let mut archive = Archive::default();
    archive.add(E {
        path: "file",
        ..E::FILE
    });
    assert!(marked(archive.clone()));
    archive.add(E {
        path: "./",
        mode: 0o555,
        uid: 1000,
        // An image cannot say of itself that its root does not count.
        pax: &[("SCHILY.xattr.trusted.overlay.hull.implied", b"y")],
        ..E::DIR
    });
    assert!(!marked(archive));
}
