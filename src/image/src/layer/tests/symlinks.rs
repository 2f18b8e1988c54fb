//! Symlinks, and paths that lead through them.

use super::*;

fn layer(archive: Archive) -> File {
    convert_over(&archive.finish(), &LowerLayers::none())
        .unwrap()
        .1
}

#[test]
fn a_symlink_has_the_permissions_that_linux_gives_it() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "link",
        link: "x",
        mode: 0o644,
        ..E::SYMLINK
    });
    let (_, reader) = image(archive);
    assert_eq!(node(&reader, "link").metadata.permissions, 0o777);
}

#[test]
fn a_path_through_a_symlink_leads_where_it_points() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "usr/lib/",
        mode: 0o700,
        ..E::DIR
    });
    archive.add(E {
        path: "lib",
        link: "usr/lib",
        ..E::SYMLINK
    });
    archive.add(E {
        path: "lib/same",
        data: b"one",
        ..E::FILE
    });
    archive.add(E {
        path: "hard",
        link: "lib/same",
        ..E::HARD_LINK
    });
    archive.add(E {
        path: "lib/.wh.gone",
        ..E::FILE
    });
    let (_, reader) = image(archive);
    assert_eq!(contents(&reader, "usr/lib/same"), b"one");
    assert_eq!(node(&reader, "usr/lib").metadata.permissions, 0o700);
    assert_eq!(node(&reader, "hard"), node(&reader, "usr/lib/same"));
    assert!(is_whiteout(&reader, "usr/lib/gone"));
    assert_eq!(node(&reader, "lib").kind, NodeKind::Symlink);
}

#[test]
fn a_path_through_a_lower_layers_symlink_leads_where_it_points() {
    let mut lowest = Archive::default();
    lowest.add(E {
        path: "usr/lib/",
        mode: 0o711,
        ..E::DIR
    });
    lowest.add(E {
        path: "usr/lib/old",
        data: b"old",
        ..E::FILE
    });
    lowest.add(E {
        path: "lib",
        link: "usr/lib",
        ..E::SYMLINK
    });
    let lower = LowerLayers::open([layer(lowest)]).unwrap();
    let mut archive = Archive::default();
    archive.add(E {
        path: "lib/new",
        data: b"new",
        ..E::FILE
    });
    archive.add(E {
        path: "copy",
        link: "lib/old",
        ..E::HARD_LINK
    });
    let (converted, file) = convert_over(&archive.finish(), &lower).unwrap();
    let reader = Reader::open(file).unwrap();
    assert_eq!(contents(&reader, "usr/lib/new"), b"new");
    assert_eq!(node(&reader, "usr/lib").metadata.permissions, 0o711);
    assert_eq!(contents(&reader, "copy"), b"old");
    assert!(!exists(&reader, "lib"), "the symlink below is not hidden");
    assert!(converted.depends_on_lower);
}

#[test]
fn a_directory_takes_the_place_of_a_lower_layers_symlink() {
    let mut lowest = Archive::default();
    lowest.add(E {
        path: "lib",
        link: "usr/lib",
        ..E::SYMLINK
    });
    let lower = LowerLayers::open([layer(lowest)]).unwrap();
    for first in [
        E {
            path: "lib/",
            ..E::DIR
        },
        E {
            path: ".wh.lib",
            ..E::FILE
        },
    ] {
        let mut archive = Archive::default();
        archive.add(first);
        archive.add(E {
            path: "lib/new",
            ..E::FILE
        });
        let (_, file) = convert_over(&archive.finish(), &lower).unwrap();
        let reader = Reader::open(file).unwrap();
        assert!(exists(&reader, "lib/new"));
    }
}

#[test]
fn a_path_through_a_symlink_never_leaves_the_layer() {
    for target in [
        "/../../real",
        "../../../real",
        "//real",
        "./real",
        "other/../real",
    ] {
        let mut archive = Archive::default();
        archive.add(E {
            path: "link",
            link: target,
            ..E::SYMLINK
        });
        archive.add(E {
            path: "link/x/y",
            data: b"in",
            ..E::FILE
        });
        let (_, reader) = image(archive);
        assert_eq!(contents(&reader, "real/x/y"), b"in", "{target}");
        let link = reader.read_link(&node(&reader, "link")).unwrap();
        assert_eq!(link, target.as_bytes(), "the symlink itself is only text");
    }
}

#[test]
fn symlinks_in_circles_and_to_reserved_names_are_refused() {
    for (target, problem) in [
        ("link", Problem::Symlinks),
        ("link/x", Problem::Symlinks),
        ("./other", Problem::Symlinks),
        (".wh.x", Problem::Whiteout),
        ("x/.wh..wh..opq", Problem::Whiteout),
    ] {
        let mut archive = Archive::default();
        archive.add(E {
            path: "link",
            link: target,
            ..E::SYMLINK
        });
        archive.add(E {
            path: "other",
            link: "/link",
            ..E::SYMLINK
        });
        archive.add(E {
            path: "link/file",
            ..E::FILE
        });
        assert_refused(archive, problem);
    }
}

#[test]
fn symlinks_that_grow_a_path_are_bounded() {
    let long = "d/".repeat(2047);
    let mut archive = Archive::default();
    archive.add(E {
        path: "long",
        pax: &[("linkpath", long.as_bytes())],
        ..E::SYMLINK
    });
    archive.add(E {
        path: "long/file",
        ..E::FILE
    });
    // fsck.erofs cannot go so deep.
    let tar = archive.clone().finish();
    let (converted, _) = convert_over(&tar, &LowerLayers::none()).unwrap();
    assert_eq!(converted.inodes, 2047 + 3);
    archive.add(E {
        path: "more",
        link: "long/e/e",
        ..E::SYMLINK
    });
    archive.add(E {
        path: "more/file",
        ..E::FILE
    });
    assert_refused(archive, Problem::Path);
}
