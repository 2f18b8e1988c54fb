//! Malicious tars: each is refused, or confined to the layer.

use super::*;

#[test]
fn absolute_paths_stay_in_the_layer() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "/etc//./passwd",
        data: b"x",
        ..E::FILE
    });
    archive.add(E {
        path: "hard",
        link: "//etc/passwd",
        ..E::HARD_LINK
    });
    let (_, reader) = image(archive);
    assert_eq!(node(&reader, "etc/passwd"), node(&reader, "hard"));
    assert_eq!(reader.entries(&reader.root().unwrap()).unwrap().len(), 2);
}

#[test]
fn paths_out_of_the_layer_are_refused() {
    for path in ["..", "../x", "a/../../x", "a/..", "/../etc/passwd", "./.."] {
        let mut archive = Archive::default();
        archive.add(E { path, ..E::FILE });
        assert_refused(archive, Problem::ParentPath);
        let mut archive = Archive::default();
        archive.add(E {
            path: "x",
            link: path,
            ..E::HARD_LINK
        });
        assert_refused(archive, Problem::ParentPath);
    }
}

#[test]
fn a_path_through_a_file_is_refused() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "file",
        ..E::FILE
    });
    archive.add(E {
        path: "file/x",
        ..E::FILE
    });
    assert_refused(archive, Problem::ThroughNonDirectory);
}

#[test]
fn symlinks_out_of_the_layer_are_only_text() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "up",
        link: "../../../../etc/shadow",
        ..E::SYMLINK
    });
    archive.add(E {
        path: "hard",
        link: "up",
        ..E::HARD_LINK
    });
    let (_, reader) = image(archive);
    assert_eq!(
        reader.read_link(&node(&reader, "hard")).unwrap(),
        b"../../../../etc/shadow"
    );
}

#[test]
fn hard_links_to_nothing_or_to_directories_are_refused() {
    for (link, problem) in [
        ("missing", Problem::LinkMissing),
        ("dir/missing", Problem::LinkMissing),
        ("self", Problem::LinkMissing),
        ("dir", Problem::LinkToDirectory),
        ("", Problem::LinkToDirectory),
        (".", Problem::LinkToDirectory),
    ] {
        let mut archive = Archive::default();
        archive.add(E {
            path: "dir",
            ..E::DIR
        });
        archive.add(E {
            path: "self",
            link,
            ..E::HARD_LINK
        });
        assert_refused(archive, problem);
    }
}

#[test]
fn names_and_targets_that_linux_could_not_have_are_refused() {
    let long_name = "x".repeat(256);
    let long_path = "d/".repeat(2048);
    let long_link = "x".repeat(4096);
    for (path, problem) in [
        (long_name.as_bytes(), Problem::Path),
        (long_path.as_bytes(), Problem::Path),
        (b"a\0b", Problem::Path),
    ] {
        let mut archive = Archive::default();
        archive.add(E {
            path: "p",
            pax: &[("path", path)],
            ..E::FILE
        });
        assert_refused(archive, problem);
    }
    for link in [long_link.as_bytes(), b"a\0b"] {
        let mut archive = Archive::default();
        archive.add(E {
            path: "p",
            pax: &[("linkpath", link)],
            ..E::SYMLINK
        });
        assert_refused(archive, Problem::Target);
    }
    let mut archive = Archive::default();
    archive.add(E {
        path: "p",
        ..E::SYMLINK
    });
    assert_refused(archive, Problem::Target);
    let mut archive = Archive::default();
    archive.add(E {
        path: "./",
        ..E::FIFO
    });
    assert_refused(archive, Problem::Root);
}

#[test]
fn whiteouts_of_nothing_and_reserved_names_are_refused() {
    for path in [
        ".wh.",
        "a/.wh.",
        ".wh..",
        ".wh...",
        ".wh.a/b",
        "a/.wh.b/c",
        "a/.wh..wh.x",
        "a/.wh..wh..opq/x",
    ] {
        let mut archive = Archive::default();
        archive.add(E { path, ..E::FILE });
        assert_refused(archive, Problem::Whiteout);
    }
}

#[test]
fn device_numbers_beyond_linux_are_refused() {
    for device in [(4096, 0), (0, 1 << 20)] {
        let mut archive = Archive::default();
        archive.add(E {
            path: "dev",
            device,
            ..E::CHAR
        });
        assert_refused(archive, Problem::Device);
    }
}

#[test]
fn xattrs_beyond_the_limit_are_refused() {
    let mut archive = Archive::default();
    let value = vec![b'x'; 65_000];
    archive.add(E {
        path: "x",
        pax: &[
            ("SCHILY.xattr.user.a", &value),
            ("SCHILY.xattr.user.b", &value),
        ],
        ..E::FILE
    });
    assert_refused(archive, Problem::Xattr(erofs::XattrError::TooLarge));
}
