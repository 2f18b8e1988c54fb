//! Images written and read back.

use std::fs::File;

use super::*;

/// The most an image of these tests may take.
const LIMIT: u64 = 1 << 30;

fn name(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn inode(permissions: u16, kind: Kind) -> Inode {
    Inode {
        metadata: Metadata {
            permissions,
            ..Metadata::default()
        },
        kind,
    }
}

fn directory() -> Inode {
    inode(0o755, Kind::Directory(Default::default()))
}

/// Writes an image of what `fill` puts into it.
fn image(fill: impl FnOnce(&mut Writer<&File>, &mut Tree)) -> Reader {
    let file = tempfile::tempfile().unwrap();
    let mut writer = Writer::new(&file, LIMIT).unwrap();
    let mut tree = Tree::new(Metadata {
        permissions: 0o755,
        ..Metadata::default()
    });
    fill(&mut writer, &mut tree);
    let summary = writer.finish(&tree).unwrap();
    assert_eq!(summary.image_bytes, file.metadata().unwrap().len());
    Reader::open(file).unwrap()
}

fn contents(reader: &Reader, path: &str) -> Vec<u8> {
    let node = reader.lookup(path.as_bytes()).unwrap().unwrap();
    let mut bytes = vec![0xaa; node.size() as usize];
    assert_eq!(reader.read_at(&node, &mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn an_empty_tree_is_an_image() {
    let reader = image(|_, _| {});
    let root = reader.root().unwrap();
    assert_eq!((root.kind, root.links()), (NodeKind::Directory, 2));
    assert!(reader.entries(&root).unwrap().is_empty());
    assert_eq!(reader.image_bytes(), 2 * BLOCK_SIZE as u64);
}

#[test]
fn file_data_starts_on_a_block_and_is_one_run() {
    let data: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let reader = image(|writer, tree| {
        for (path, len) in [("a", 0), ("b", 1), ("c", 4096), ("d", data.len())] {
            let mut file = writer.file(len as u64, Density::Dense);
            data[1..len.max(1)]
                .chunks(777)
                .for_each(|part| file.write(part).unwrap());
            file.write(&data[..len.min(1)]).unwrap();
            let id = tree.add(inode(0o644, Kind::File(file.finish().unwrap())));
            tree.link(Tree::ROOT, path.as_bytes(), id);
        }
    });
    for (path, len) in [("a", 0), ("c", 4096), ("d", data.len())] {
        assert_eq!(contents(&reader, path).len(), len);
        assert!(
            reader
                .lookup(path.as_bytes())
                .unwrap()
                .unwrap()
                .is_contiguous()
        );
    }
    let expected = [&data[1..], &data[..1]].concat();
    assert_eq!(contents(&reader, "d"), expected);
    // A single zero is a hole.
    assert_eq!(contents(&reader, "b"), [0]);
}

#[test]
fn holes_take_no_blocks_whatever_the_size_of_the_file() {
    const TIB: u64 = 1 << 40;
    let reader = image(|writer, tree| {
        let mut file = writer.file(5 * TIB, Density::Sparse);
        file.skip(3 * TIB + 5).unwrap();
        file.write(b"needle").unwrap();
        file.skip(2 * TIB - 11).unwrap();
        let id = tree.add(inode(0o644, Kind::File(file.finish().unwrap())));
        tree.link(Tree::ROOT, b"huge", id);
        let mut file = writer.file(FileData::MAX_SIZE, Density::Sparse);
        file.skip(FileData::MAX_SIZE).unwrap();
        let id = tree.add(inode(0o644, Kind::File(file.finish().unwrap())));
        tree.link(Tree::ROOT, b"empty", id);
    });
    assert!(reader.image_bytes() < 16 << 20, "{}", reader.image_bytes());
    let huge = reader.lookup(b"huge").unwrap().unwrap();
    let mut bytes = [1; 8];
    reader.read_at(&huge, &mut bytes, 3 * TIB + 4).unwrap();
    assert_eq!(&bytes, b"\0needle\0");
    assert_eq!(reader.hole_at(&huge, 0).unwrap(), 3 * TIB);
    let empty = reader.lookup(b"empty").unwrap().unwrap();
    assert_eq!(reader.hole_at(&empty, 0).unwrap(), FileData::MAX_SIZE);
}

#[test]
fn zeros_within_an_ordinary_file_become_holes_only_in_long_runs() {
    let mut data = vec![7u8; 1 << 20];
    data[8192..16384].fill(0);
    data[256 << 10..512 << 10].fill(0);
    let reader = image(|writer, tree| {
        let mut file = writer.file(data.len() as u64, Density::Dense);
        data.chunks(10_000)
            .for_each(|part| file.write(part).unwrap());
        let id = tree.add(inode(0o644, Kind::File(file.finish().unwrap())));
        tree.link(Tree::ROOT, b"f", id);
    });
    assert_eq!(contents(&reader, "f"), data);
    let node = reader.lookup(b"f").unwrap().unwrap();
    assert_eq!(reader.hole_at(&node, 8192).unwrap(), 0);
    assert_eq!(reader.hole_at(&node, 256 << 10).unwrap(), 256 << 10);
    assert_eq!(reader.image_bytes(), (1 << 20) - (256 << 10) + 2 * 4096);
}

#[test]
fn a_directory_of_100000_names_is_searched_in_order() {
    let reader = image(|_, tree| {
        let dir = tree.add(directory());
        tree.link(Tree::ROOT, b"dir", dir);
        for i in 0..100_000 {
            let id = tree.add(inode(0o600, Kind::Fifo));
            tree.link(dir, format!("name{i}").as_bytes(), id);
        }
    });
    for i in (0..100_000).step_by(997) {
        assert!(
            reader
                .lookup(format!("dir/name{i}").as_bytes())
                .unwrap()
                .is_some()
        );
    }
    for missing in [
        "dir/name",
        "dir/name100000",
        "dir/a",
        "dir/zzz",
        "dir/name5/x",
        "dir/!",
    ] {
        assert!(
            reader.lookup(missing.as_bytes()).unwrap().is_none(),
            "{missing}"
        );
    }
    let dir = reader.lookup(b"dir").unwrap().unwrap();
    let names: Vec<_> = reader
        .entries(&dir)
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names.len(), 100_000);
    assert!(names.is_sorted());
}

#[test]
fn symlinks_of_every_length_are_kept() {
    let lengths = [1usize, 100, 3999, 4031, 4032, 4033, 4063, 4064, 4065, 4095];
    let reader = image(|_, tree| {
        for len in lengths {
            let mut link = inode(0o777, Kind::Symlink(name(&"x".repeat(len))));
            link.metadata
                .xattrs
                .set(b"user.len", len.to_string().as_bytes())
                .unwrap();
            let id = tree.add(link);
            tree.link(Tree::ROOT, len.to_string().as_bytes(), id);
        }
    });
    for len in lengths {
        let node = reader.lookup(len.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(reader.read_link(&node).unwrap(), "x".repeat(len).as_bytes());
        assert_eq!(
            node.metadata.xattrs.get(b"user.len"),
            Some(len.to_string().as_bytes())
        );
    }
}

#[test]
fn link_counts_follow_from_the_names() {
    let reader = image(|_, tree| {
        let dir = tree.add(directory());
        let below = tree.add(directory());
        let fifo = tree.add(inode(0o600, Kind::Fifo));
        let _nameless = tree.add(inode(0o600, Kind::Fifo));
        tree.link(Tree::ROOT, b"dir", dir);
        tree.link(dir, b"below", below);
        for at in [Tree::ROOT, dir, below] {
            tree.link(at, b"fifo", fifo);
        }
    });
    let links = |path: &str| reader.lookup(path.as_bytes()).unwrap().unwrap().links();
    assert_eq!(
        [links(""), links("dir"), links("dir/below"), links("fifo")],
        [3, 3, 2, 3]
    );
    assert_eq!(reader.inodes(), 4);
    assert_eq!(
        reader.lookup(b"fifo").unwrap(),
        reader.lookup(b"dir/below/fifo").unwrap()
    );
}

#[test]
fn what_compact_inodes_cannot_hold_is_kept() {
    let values = [
        (0, 0, Timestamp::default()),
        (65535, 65535, Timestamp::default()),
        (65536, 0, Timestamp::default()),
        (
            0,
            u32::MAX,
            Timestamp {
                seconds: -1,
                nanoseconds: 999_999_999,
            },
        ),
        (
            1,
            2,
            Timestamp {
                seconds: i64::MAX,
                nanoseconds: 1,
            },
        ),
    ];
    let reader = image(|_, tree| {
        for (i, (uid, gid, mtime)) in values.into_iter().enumerate() {
            let id = tree.add(Inode {
                metadata: Metadata {
                    permissions: 0o7777,
                    uid,
                    gid,
                    mtime,
                    xattrs: Xattrs::default(),
                },
                kind: Kind::CharDevice(Device::new(1, i as u32).unwrap()),
            });
            tree.link(Tree::ROOT, i.to_string().as_bytes(), id);
        }
    });
    for (i, (uid, gid, mtime)) in values.into_iter().enumerate() {
        let node = reader.lookup(i.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(
            (node.metadata.uid, node.metadata.gid, node.metadata.mtime),
            (uid, gid, mtime)
        );
        assert_eq!(node.metadata.permissions, 0o7777);
        assert_eq!(
            node.kind,
            NodeKind::CharDevice(Device::new(1, i as u32).unwrap())
        );
    }
}

#[test]
fn an_image_that_would_be_too_large_is_refused_before_it_is_written() {
    let file = tempfile::tempfile().unwrap();
    let mut writer = Writer::new(&file, 1 << 20).unwrap();
    let mut data = writer.file(2 << 20, Density::Dense);
    assert!(matches!(
        data.write(&vec![1; 2 << 20]),
        Err(Error::TooLarge { limit: 1_048_576 })
    ));
    assert_eq!(file.metadata().unwrap().len(), 0);
}

#[test]
fn a_damaged_image_is_an_error_not_a_panic() {
    use std::os::unix::fs::FileExt;
    let file = tempfile::tempfile().unwrap();
    let writer = Writer::new(&file, LIMIT).unwrap();
    let mut tree = Tree::new(Metadata::default());
    for i in 0..300 {
        let mut link = inode(0o777, Kind::Symlink(name("target")));
        link.metadata.xattrs.set(b"user.a", b"b").unwrap();
        let id = tree.add(link);
        tree.link(Tree::ROOT, i.to_string().as_bytes(), id);
    }
    let size = writer.finish(&tree).unwrap().image_bytes;
    let mut random = 1u64;
    for _ in 0..200 {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let at = 4096 + (random >> 16) % (size - 4096);
        let mut old = [0];
        file.read_exact_at(&mut old, at).unwrap();
        file.write_all_at(&[(random >> 8) as u8], at).unwrap();
        let reader = Reader::open(file.try_clone().unwrap()).unwrap();
        if let Ok(root) = reader.root() {
            for entry in reader.entries(&root).unwrap_or_default() {
                if let Ok(node) = reader.node(entry.nid) {
                    let _ = reader.read_link(&node);
                    let _ = reader.child(&root, &entry.name);
                }
            }
        }
        file.write_all_at(&old, at).unwrap();
    }
}
