//! Tars that want more than a layer may have: each is refused, or confined to the layer.

use std::io::Cursor;

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
fn a_path_through_a_symlink_is_refused_not_followed() {
    for target in ["/etc", "..", "real", "link"] {
        for path in ["link/x", "link/x/y", "link/.wh.x", "link/.wh..wh..opq"] {
            let mut archive = Archive::default();
            archive.add(E {
                path: "real",
                ..E::DIR
            });
            archive.add(E {
                path: "link",
                link: target,
                ..E::SYMLINK
            });
            archive.add(E { path, ..E::FILE });
            assert_refused(archive, Problem::ThroughNonDirectory);
        }
    }
    let mut archive = Archive::default();
    archive.add(E {
        path: "real/secret",
        ..E::FILE
    });
    archive.add(E {
        path: "link",
        link: "real",
        ..E::SYMLINK
    });
    archive.add(E {
        path: "stolen",
        link: "link/secret",
        ..E::HARD_LINK
    });
    assert_refused(archive, Problem::LinkMissing);
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

#[test]
fn bombs_are_refused_at_the_stated_bounds() {
    let limits = Limits {
        entries: 10,
        metadata_bytes: 1000,
        tar_bytes: 1 << 20,
        image_bytes: 1 << 20,
    };
    let attempt = |archive: &Archive| {
        let mut output = Cursor::new(Vec::new());
        let error = convert(
            &archive.clone().finish()[..],
            &mut output,
            &LowerLayers::none(),
            &limits,
        )
        .unwrap_err();
        assert!(output.into_inner().len() < 2 << 20);
        error
    };
    let mut many = Archive::default();
    (0..11).for_each(|i| {
        many.add(E {
            path: &i.to_string(),
            ..E::FILE
        })
    });
    assert!(matches!(
        attempt(&many),
        Error::Limit {
            unit: Unit::Entries,
            limit: 10
        }
    ));
    // Parents that are only implied count as well.
    let mut deep = Archive::default();
    deep.add(E {
        path: "a/b/c/d/e/f/g/h/i/j/k",
        ..E::FILE
    });
    assert!(matches!(
        attempt(&deep),
        Error::Limit {
            unit: Unit::Entries,
            ..
        }
    ));
    // And so does what replaces itself.
    let mut same = Archive::default();
    (0..11).for_each(|_| {
        same.add(E {
            path: "same",
            ..E::DIR
        })
    });
    assert!(matches!(
        attempt(&same),
        Error::Limit {
            unit: Unit::Entries,
            ..
        }
    ));
    let mut names = Archive::default();
    names.add(E {
        path: "x",
        pax: &[("linkpath", &[b'x'; 1000])],
        ..E::SYMLINK
    });
    assert!(matches!(
        attempt(&names),
        Error::Limit {
            unit: Unit::MetadataBytes,
            ..
        }
    ));
    let mut long = Archive::default();
    long.add(E {
        path: "x",
        data: &vec![0; 2 << 20],
        ..E::FILE
    });
    assert!(matches!(
        attempt(&long),
        Error::Limit {
            unit: Unit::TarBytes,
            ..
        }
    ));
    // A few bytes in every chunk of a sparse file.
    let mut sparse = Archive::default();
    let map: Vec<_> = (0..300).map(|i| (i << 12, 1)).collect();
    sparse.gnu_sparse("x", 300 << 12, &map, &[1; 300]);
    assert!(matches!(
        attempt(&sparse),
        Error::Write(erofs::Error::TooLarge { .. })
    ));
}

#[test]
fn zeros_and_holes_take_no_room_however_many_they_are() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "zeros",
        data: &vec![0; 32 << 20],
        ..E::FILE
    });
    archive.gnu_sparse("hole", erofs::FileData::MAX_SIZE, &[], b"");
    let (converted, file) = convert_over(&archive.finish(), &LowerLayers::none()).unwrap();
    assert!(converted.image_bytes <= 16 << 10, "{converted:?}");
    let reader = Reader::open(file).unwrap();
    assert_eq!(node(&reader, "zeros").size(), 32 << 20);
    let mut archive = Archive::default();
    archive.gnu_sparse("hole", erofs::FileData::MAX_SIZE + 1, &[], b"");
    assert_refused(archive, Problem::FileSize);
}

#[test]
fn extended_headers_are_bounded() {
    for flag in [b'x', b'L', b'K', b'g'] {
        let mut archive = Archive::default();
        archive.push(archive::header("x", flag, 1 << 40));
        assert!(
            matches!(
                refusal(archive),
                Error::Tar {
                    offset: 0,
                    source: TarError::ExtendedSize
                }
            ),
            "{}",
            char::from(flag)
        );
    }
    let mut archive = Archive::default();
    (0..40).for_each(|_| archive.global(&[("comment", &[b'x'; 2000])]));
    assert!(matches!(
        refusal(archive),
        Error::Tar {
            source: TarError::ExtendedSize,
            ..
        }
    ));
}

#[test]
fn a_damaged_tar_is_named_for_what_is_wrong() {
    let good = || {
        let mut archive = Archive::default();
        archive.add(E {
            path: "file",
            data: &[7; 1000],
            ..E::FILE
        });
        archive
    };
    let with = |change: fn(&mut Vec<u8>)| {
        let mut archive = good();
        change(&mut archive.0);
        match refusal(archive) {
            Error::Tar { source, .. } => source,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(with(|tar| tar[0] ^= 1), TarError::Checksum);
    assert_eq!(
        with(|tar| {
            let rest = tar.clone();
            tar.extend([0; 512]);
            tar.extend(rest);
        }),
        TarError::LoneZeros
    );
    assert_eq!(
        with(|tar| {
            tar.clear();
            let mut archive = Archive::default();
            archive.push(archive::header("multi-volume", b'M', 0));
            *tar = archive.0;
        }),
        TarError::Type(b'M')
    );
    assert_eq!(
        with(|tar| {
            let mut archive = Archive::default();
            archive.add(E {
                path: "x",
                size: Some(1 << 63),
                ..E::FILE
            });
            archive.0[124..136].copy_from_slice(&[0xff; 12]);
            let header: [u8; 512] = archive.0[..512].try_into().unwrap();
            archive.0.clear();
            archive.push(header);
            *tar = archive.0;
        }),
        TarError::Number(Field::Size)
    );
    let mut extension_only = Archive::default();
    extension_only.raw_extension(b'x', b"7 uid=1\n");
    assert!(matches!(refusal(extension_only), Error::Tar { .. }));
}

#[test]
fn a_tar_that_ends_early_is_refused_wherever_it_is_cut() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "file",
        data: &[7; 1000],
        pax: &[("uid", b"1")],
        ..E::FILE
    });
    archive.gnu_sparse("s", 1 << 20, &[(0, 1), (4096, 1)], b"ab");
    let whole = archive.0;
    // Between two entries an end is an end, as for Docker.
    let boundaries = [0, 512 * 5, whole.len()];
    for len in 0..=whole.len() {
        let result = convert_over(&whole[..len], &LowerLayers::none());
        match boundaries.contains(&len) {
            true => assert!(result.is_ok(), "cut at {len}"),
            false => assert!(
                matches!(
                    result,
                    Err(Error::Tar {
                        source: TarError::Truncated,
                        ..
                    })
                ),
                "cut at {len}: {result:?}"
            ),
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let mut archive = Archive::default();
    archive.global(&[("gid", b"7")]);
    archive.add(E {
        path: "a/b",
        data: &[7; 600],
        pax: &[("SCHILY.xattr.user.x", b"1")],
        ..E::FILE
    });
    archive.add(E {
        path: "l",
        link: "a/b",
        ..E::HARD_LINK
    });
    archive.gnu_sparse("s", 1 << 20, &[(0, 1), (4096, 1)], b"ab");
    archive.add(E {
        path: "s2",
        data: &[b"1\n5\n1\n".as_slice(), &[0; 506], b"x"].concat(),
        pax: &[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"100"),
        ],
        ..E::FILE
    });
    let whole = archive.0;
    let mut random = Random(1);
    for _ in 0..3000 {
        let mut tar = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(tar.len());
            tar[at] = random.below(256) as u8;
            // A checksum that holds lets the damage through to what is behind it.
            let start = at / 512 * 512;
            if tar[start + 257..].starts_with(b"ustar") {
                let header: [u8; 512] = tar[start..start + 512].try_into().unwrap();
                let mut fixed = Archive::default();
                fixed.push(header);
                tar[start..start + 512].copy_from_slice(&fixed.0);
            }
        }
        let limits = Limits {
            image_bytes: 1 << 20,
            ..Limits::default()
        };
        let _ = convert(
            &tar[..],
            Cursor::new(Vec::new()),
            &LowerLayers::none(),
            &limits,
        );
    }
}
