//! Well-formed tars and the images made from them.

use super::*;

#[test]
fn an_empty_tar_is_an_empty_layer() {
    for tar in [&[][..], &[0; 512], &[0; 1024], &[0; 10240]] {
        let (converted, file) = convert_over(tar, &LowerLayers::none()).unwrap();
        assert_eq!((converted.entries, converted.inodes), (0, 1));
        let root = Reader::open(file).unwrap().root().unwrap();
        assert_eq!(
            (
                root.metadata.permissions,
                root.metadata.uid,
                root.metadata.mtime
            ),
            (0o755, 0, Timestamp::default())
        );
    }
}

#[test]
fn every_kind_of_entry_keeps_what_the_tar_says_of_it() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "./",
        mode: 0o1777,
        uid: 3,
        mtime: 7,
        ..E::DIR
    });
    archive.add(E {
        path: "./dir/",
        mode: 0o2750,
        gid: 70_000,
        ..E::DIR
    });
    archive.add(E {
        path: "dir/file",
        mode: 0o4711,
        uid: 1000,
        mtime: 1_700_000_000,
        data: b"hello",
        ..E::FILE
    });
    archive.add(E {
        path: "dir/hard",
        link: "dir/file",
        ..E::HARD_LINK
    });
    archive.add(E {
        path: "dir/soft",
        link: "../../outside",
        mode: 0o777,
        ..E::SYMLINK
    });
    archive.add(E {
        path: "null",
        device: (1, 3),
        mode: 0o666,
        ..E::CHAR
    });
    archive.add(E {
        path: "disk",
        device: (8, 300),
        ..E::BLOCK
    });
    archive.add(E {
        path: "pipe",
        ..E::FIFO
    });
    archive.add(E {
        path: "old-style-directory/",
        ..E::FILE
    });
    let (converted, reader) = image(archive);
    assert_eq!((converted.entries, converted.inodes), (9, 8));
    assert!(!converted.depends_on_lower);
    let root = reader.root().unwrap();
    assert_eq!(
        (
            root.metadata.permissions,
            root.metadata.uid,
            root.metadata.mtime.seconds
        ),
        (0o1777, 3, 7)
    );
    let dir = node(&reader, "dir");
    assert_eq!(
        (dir.kind, dir.metadata.permissions, dir.metadata.gid),
        (NodeKind::Directory, 0o2750, 70_000)
    );
    let file = node(&reader, "dir/file");
    assert_eq!(
        (file.metadata.permissions, file.metadata.uid, file.links()),
        (0o4711, 1000, 2)
    );
    assert_eq!(
        file.metadata.mtime,
        Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 0
        }
    );
    assert_eq!(file, node(&reader, "dir/hard"));
    assert_eq!(contents(&reader, "dir/hard"), b"hello");
    assert_eq!(
        reader.read_link(&node(&reader, "dir/soft")).unwrap(),
        b"../../outside"
    );
    let device = |major, minor| crate::erofs::Device::new(major, minor).unwrap();
    assert_eq!(
        node(&reader, "null").kind,
        NodeKind::CharDevice(device(1, 3))
    );
    assert_eq!(
        node(&reader, "disk").kind,
        NodeKind::BlockDevice(device(8, 300))
    );
    assert_eq!(node(&reader, "pipe").kind, NodeKind::Fifo);
    assert_eq!(
        node(&reader, "old-style-directory").kind,
        NodeKind::Directory
    );
}

#[test]
fn pax_records_replace_the_headers_fields() {
    let mut archive = Archive::default();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(255));
    archive.global(&[("gid", b"4294967295"), ("mtime", b"5")]);
    archive.add(E {
        path: "short",
        pax: &[
            ("path", long.as_bytes()),
            ("uid", b"4000000000"),
            ("mtime", b"-1.5"),
            ("comment", b"x"),
        ],
        data: b"data",
        ..E::FILE
    });
    archive.add(E {
        path: "l",
        pax: &[("linkpath", &[b'x'; 4095])],
        ..E::SYMLINK
    });
    archive.add(E {
        path: "caps",
        pax: &[
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/elsewhere"),
            ("SCHILY.xattr.system.nfs4_acl", b"?"),
        ],
        ..E::FILE
    });
    let (converted, reader) = image(archive);
    let file = node(&reader, &long);
    assert_eq!(
        (file.metadata.uid, file.metadata.gid),
        (4_000_000_000, u32::MAX)
    );
    assert_eq!(
        file.metadata.mtime,
        Timestamp {
            seconds: -2,
            nanoseconds: 500_000_000
        }
    );
    assert_eq!(node(&reader, "l").metadata.mtime.seconds, 5);
    assert_eq!(reader.read_link(&node(&reader, "l")).unwrap(), [b'x'; 4095]);
    let xattrs = node(&reader, "caps").metadata.xattrs;
    assert_eq!(xattrs.iter().count(), 3);
    assert_eq!(xattrs.get(b"user.empty"), Some(&b""[..]));
    assert_eq!(xattrs.get(b"security.capability").unwrap().len(), 20);
    assert_eq!(converted.dropped_xattrs, 2);
}

#[test]
fn gnu_long_names_and_links_are_understood() {
    let long = "n/".repeat(150) + "end";
    let mut archive = Archive::default();
    archive.raw_extension(b'L', format!("{long}\0").as_bytes());
    archive.add(E {
        path: "cut",
        data: b"1",
        ..E::FILE
    });
    archive.raw_extension(b'K', long.as_bytes());
    archive.add(E {
        path: "hard",
        link: "cut",
        ..E::HARD_LINK
    });
    let (_, reader) = image(archive);
    assert_eq!(node(&reader, "hard"), node(&reader, &long));
}

#[test]
fn the_last_of_several_entries_wins() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "file",
        data: b"one",
        ..E::FILE
    });
    archive.add(E {
        path: "kept",
        link: "file",
        ..E::HARD_LINK
    });
    archive.add(E {
        path: "file",
        data: b"two",
        ..E::FILE
    });
    archive.add(E {
        path: "dir",
        mode: 0o700,
        ..E::DIR
    });
    archive.add(E {
        path: "dir/in",
        data: b"in",
        ..E::FILE
    });
    archive.add(E {
        path: "dir",
        mode: 0o711,
        ..E::DIR
    });
    archive.add(E {
        path: "gone",
        ..E::DIR
    });
    archive.add(E {
        path: "gone/x",
        ..E::FILE
    });
    archive.add(E {
        path: "gone",
        data: b"now a file",
        ..E::FILE
    });
    archive.add(E {
        path: "link",
        link: "/",
        ..E::SYMLINK
    });
    archive.add(E {
        path: "link",
        ..E::DIR
    });
    archive.add(E {
        path: "link/y",
        ..E::FILE
    });
    archive.add(E {
        path: "kept",
        link: "kept",
        ..E::HARD_LINK
    });
    let (_, reader) = image(archive);
    assert_eq!(contents(&reader, "file"), b"two");
    assert_eq!(contents(&reader, "kept"), b"one");
    assert_eq!(node(&reader, "kept").links(), 1);
    assert_eq!(node(&reader, "dir").metadata.permissions, 0o711);
    assert_eq!(contents(&reader, "dir/in"), b"in");
    assert_eq!(contents(&reader, "gone"), b"now a file");
    assert!(exists(&reader, "link/y"));
}

#[test]
fn whiteouts_become_overlayfs_s_own() {
    let mut archive = Archive::default();
    archive.add(E {
        path: "etc/.wh.removed",
        ..E::FILE
    });
    archive.add(E {
        path: "etc/.wh.replaced",
        ..E::FILE
    });
    archive.add(E {
        path: "etc/replaced",
        data: b"new",
        ..E::FILE
    });
    archive.add(E {
        path: "etc/fresh/",
        ..E::DIR
    });
    archive.add(E {
        path: "etc/.wh.fresh",
        ..E::FILE
    });
    archive.add(E {
        path: "var/.wh..wh..opq",
        ..E::FILE
    });
    archive.add(E {
        path: "var/.wh.nothing-left-to-hide",
        ..E::FILE
    });
    archive.add(E {
        path: "var/lib/.wh.nor-here",
        ..E::FILE
    });
    archive.add(E {
        path: ".wh..wh.plnk/1",
        ..E::FILE
    });
    archive.add(E {
        path: ".wh..wh.aufs",
        ..E::FILE
    });
    let (converted, reader) = image(archive);
    assert!(is_whiteout(&reader, "etc/removed"));
    assert_eq!(contents(&reader, "etc/replaced"), b"new");
    assert!(
        is_opaque(&reader, "etc/fresh"),
        "a directory in a removed one's place does not merge with it"
    );
    assert!(is_opaque(&reader, "var") && !is_opaque(&reader, "etc"));
    assert!(!exists(&reader, "var/nothing-left-to-hide") && !exists(&reader, "var/lib/nor-here"));
    assert_eq!(reader.entries(&reader.root().unwrap()).unwrap().len(), 2);
    assert!(!converted.opaque_root);
}

#[test]
fn an_opaque_root_is_reported_as_overlayfs_would_not_see_it() {
    let mut archive = Archive::default();
    archive.add(E {
        path: ".wh..wh..opq",
        ..E::FILE
    });
    archive.add(E {
        path: ".wh.x",
        ..E::FILE
    });
    let (converted, reader) = image(archive);
    assert!(converted.opaque_root);
    assert!(!exists(&reader, "x"));
}

#[test]
fn sparse_files_of_every_format_keep_their_holes() {
    const SIZE: u64 = 10 << 20;
    let data = [vec![1u8; 4096], vec![2u8; 100]].concat();
    // The parts are at 1 MiB and at the end.
    let (first, second) = (1u64 << 20, SIZE - 100);
    let map = format!("{first},4096,{second},100");
    let text = format!("2\n{first}\n4096\n{second}\n100\n");
    let mut stored = text.into_bytes();
    stored.resize(512, 0);
    stored.extend(&data);
    let numbers = [first, 4096, second, 100].map(|n| n.to_string());
    let size = SIZE.to_string();
    let mut archive = Archive::default();
    archive.add(E {
        path: "GNUSparseFile.0/1.0",
        data: &stored,
        pax: &[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v1.0"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ],
        ..E::FILE
    });
    archive.add(E {
        path: "GNUSparseFile.0/0.1",
        data: &data,
        pax: &[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.name", b"v0.1"),
            ("GNU.sparse.map", map.as_bytes()),
        ],
        ..E::FILE
    });
    archive.add(E {
        path: "v0.0",
        data: &data,
        pax: &[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", numbers[0].as_bytes()),
            ("GNU.sparse.numbytes", numbers[1].as_bytes()),
            ("GNU.sparse.offset", numbers[2].as_bytes()),
            ("GNU.sparse.numbytes", numbers[3].as_bytes()),
        ],
        ..E::FILE
    });
    archive.gnu_sparse("old", SIZE, &[(first, 4096), (second, 100)], &data);
    let (converted, reader) = image(archive);
    assert!(converted.image_bytes < 200 << 10, "{converted:?}");
    for path in ["v1.0", "v0.1", "v0.0", "old"] {
        let bytes = contents(&reader, path);
        assert_eq!(bytes.len() as u64, SIZE, "{path}");
        assert!(bytes[1 << 20..][..4096].iter().all(|&b| b == 1), "{path}");
        assert!(bytes[second as usize..].iter().all(|&b| b == 2), "{path}");
        assert_eq!(bytes.iter().filter(|&&b| b != 0).count(), 4196, "{path}");
        assert_eq!(reader.hole_at(&node(&reader, path), 0).unwrap(), 1 << 20);
    }
}

#[test]
fn the_same_tar_gives_the_same_bytes_and_another_tar_another_uuid() {
    let layer = |data: &[u8]| {
        let mut archive = Archive::default();
        archive.add(E {
            path: "b",
            data,
            ..E::FILE
        });
        archive.add(E {
            path: "a",
            link: "b",
            ..E::SYMLINK
        });
        let (converted, file) = convert_over(&archive.finish(), &LowerLayers::none()).unwrap();
        let mut bytes = vec![0; converted.image_bytes as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let uuid = |image: &[u8]| image[1024 + 48..][..16].to_vec();
    let (one, again, other) = (layer(b"1"), layer(b"1"), layer(b"2"));
    assert!(one == again);
    assert_ne!(uuid(&one), uuid(&other));
    assert_ne!(uuid(&one), [0; 16]);
}
