//! Tars that are too large, or damaged: refused at the stated bounds, and never a panic.

use std::io::Cursor;

use super::*;

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
