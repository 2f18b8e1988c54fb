//! The root directory, and shares that are read-only, single files, or gone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use rustix::io::Errno;

use super::guest::{Body, Guest, Set, place};
use super::tree::Tree;
use super::{Shared, flags};
use crate::ShareError;
use crate::abi::Opcode;

#[test]
fn the_root_lists_the_shares_and_cannot_be_changed() {
    let mut shared = Shared::new();
    let file = shared.outer.path().join("secret");
    shared.guest.share("file", &file, false);
    let attr = shared.guest.getattr(1).unwrap();
    assert_eq!((attr.ino, attr.mode, attr.uid), (1, 0o040_555, 0));
    for plus in [false, true] {
        let listed = shared.guest.list(1, plus).unwrap();
        let names: Vec<_> = listed.iter().map(|it| (&*it.name, it.kind)).collect();
        assert_eq!(names, [(".", 4), ("..", 4), ("file", 8), ("s", 4)]);
    }
    assert_eq!(shared.guest.mkdir(1, "x", 0o755), Err(Errno::ROFS));
    assert_eq!(shared.guest.unlink(1, "s"), Err(Errno::ROFS));
    assert_eq!(shared.guest.rmdir(1, "s"), Err(Errno::ROFS));
    assert_eq!(shared.guest.setattr(1, Set::mode(0o777)), Err(Errno::ROFS));
    let moved = shared.guest.rename((1, "s"), (1, "t"), 0);
    assert_eq!(moved, Err(Errno::ROFS));
    let moved = shared.guest.rename((shared.root, "x"), (1, "t"), 0);
    assert_eq!(moved, Err(Errno::ROFS));
    assert!(shared.guest.open(1, flags::RDONLY).is_err());
    assert_eq!(shared.guest.lookup(1, "secret"), Err(Errno::NOENT));
}

#[test]
fn a_read_only_share_refuses_every_change() {
    let mut shared = Shared::with(true);
    fs::create_dir(shared.path("d")).unwrap();
    fs::write(shared.path("f"), "data").unwrap();
    let before = Tree::of(shared.outer.path());
    let root = shared.root;
    let node = shared.guest.lookup(root, "f").unwrap().node;
    let open = shared.guest.open(node, flags::RDONLY).unwrap();
    assert_eq!(std::io::read_to_string(&open.file).unwrap(), "data");
    assert!((&open.file).write_all(b"x").is_err());
    let guest = &mut shared.guest;
    for how in [flags::WRONLY, flags::RDWR, flags::RDONLY | flags::TRUNC] {
        assert_eq!(guest.open(node, how).unwrap_err(), Errno::ROFS);
    }
    let create = flags::RDONLY | flags::CREAT;
    assert_eq!(
        guest.create(root, "x", create, 0o600).unwrap_err(),
        Errno::ROFS
    );
    assert_eq!(guest.tmpfile(root, flags::RDWR).unwrap_err(), Errno::ROFS);
    assert_eq!(guest.mkdir(root, "x", 0o755), Err(Errno::ROFS));
    assert_eq!(guest.mknod(root, "x", 0o100_644, 0), Err(Errno::ROFS));
    assert_eq!(guest.symlink(root, "x", "y"), Err(Errno::ROFS));
    assert_eq!(guest.link(node, root, "x"), Err(Errno::ROFS));
    assert_eq!(guest.unlink(root, "f"), Err(Errno::ROFS));
    assert_eq!(guest.rmdir(root, "d"), Err(Errno::ROFS));
    assert_eq!(guest.rename((root, "f"), (root, "x"), 0), Err(Errno::ROFS));
    assert_eq!(guest.rename((root, "f"), (root, "x"), 1), Err(Errno::ROFS));
    for set in [Set::mode(0), Set::size(0), Set::owner(1, 1), Set::default()] {
        assert_eq!(guest.setattr(node, set), Err(Errno::ROFS));
    }
    let body = Body::new().u32(0).u32(0).u64(0).string("user.a");
    assert_eq!(guest.call(Opcode::SETXATTR, node, body), Err(Errno::ROFS));
    let body = Body::new().string("user.a");
    assert_eq!(
        guest.call(Opcode::REMOVEXATTR, node, body),
        Err(Errno::ROFS)
    );
    let body = Body::new().u64(open.fh).u64(0).u64(9).u64(0);
    assert!(guest.call(Opcode::FALLOCATE, node, body).is_err());
    for (mask, expected) in [(4, Ok(vec![])), (2, Err(Errno::ROFS))] {
        let body = Body::new().u32(mask).u32(0);
        assert_eq!(guest.call(Opcode::ACCESS, node, body), expected);
    }
    assert_eq!(Tree::of(shared.outer.path()), before);
}

#[test]
fn a_single_file_is_shared_without_its_directory() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("file"), "data").unwrap();
    fs::write(outer.path().join("beside"), "secret").unwrap();
    let mut guest = Guest::new();
    guest.share("f", &outer.path().join("file"), false);
    let entry = guest.lookup(1, "f").unwrap();
    assert_eq!(entry.attr.mode & 0o170_000, 0o100_000);
    let mut open = guest.open(entry.node, flags::RDWR | flags::TRUNC).unwrap();
    open.file.write_all(b"written").unwrap();
    assert_eq!(fs::read(outer.path().join("file")).unwrap(), b"written");
    for name in ["beside", "file", ".."] {
        assert!(guest.lookup(entry.node, name).is_err(), "{name}");
    }
    assert_eq!(guest.opendir(entry.node), Err(Errno::NOTDIR));
    assert_eq!(guest.mkdir(entry.node, "x", 0o755), Err(Errno::NOTDIR));
    let elsewhere = guest.link(entry.node, 1, "g");
    assert_eq!(elsewhere, Err(Errno::ROFS));
}

#[test]
fn what_is_neither_a_directory_nor_a_file_is_no_share() {
    let outer = tempfile::tempdir().unwrap();
    symlink("/etc", outer.path().join("link")).unwrap();
    let guest = Guest::new();
    let add = |name: &str, path: &str| {
        let root = place(&outer.path().join(path));
        guest.server.add(name, root, false, None)
    };
    assert!(matches!(add("l", "link"), Err(ShareError::Kind { .. })));
    assert!(matches!(add("../x", ""), Err(ShareError::Name { .. })));
    add("x", "").unwrap();
    assert!(matches!(add("x", ""), Err(ShareError::Exists { .. })));
}

#[test]
fn a_share_that_is_removed_is_gone_but_for_what_is_open() {
    let (mut shared, _lease) = Shared::leased();
    fs::write(shared.path("f"), "data").unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    let open = shared.guest.open(node, flags::RDONLY).unwrap();
    let directory = shared.guest.opendir(shared.root).unwrap();
    shared.guest.server.remove("s");
    shared.guest.server.remove("s");
    assert_eq!(shared.guest.lookup(1, "s"), Err(Errno::NOENT));
    assert_eq!(shared.guest.getattr(node), Err(Errno::STALE));
    let found = shared.guest.lookup(shared.root, "f");
    assert_eq!(found, Err(Errno::STALE));
    let entries = shared
        .guest
        .read_entries((shared.root, directory), 0, 4096, true);
    assert_eq!(entries, Err(Errno::STALE));
    assert_eq!(shared.guest.server.nodes.count(), 0);
    assert_eq!(std::io::read_to_string(&open.file).unwrap(), "data");
    shared.guest.release(node, open.fh).unwrap();
    shared.guest.releasedir(shared.root, directory).unwrap();
    // The same name again is another share.
    let path = shared.path("");
    shared.guest.share("s", &path, false);
    assert!(shared.guest.lookup(1, "s").unwrap().node > node);
}

#[test]
fn one_directory_shared_twice_is_two() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "").unwrap();
    let path = shared.path("");
    shared.guest.share("ro", &path, true);
    let writable = shared.guest.lookup(shared.root, "f").unwrap();
    let read_only = shared.guest.lookup(1, "ro").unwrap().node;
    let read_only = shared.guest.lookup(read_only, "f").unwrap();
    assert_ne!(writable.node, read_only.node);
    assert!(shared.guest.open(writable.node, flags::RDWR).is_ok());
    let opened = shared.guest.open(read_only.node, flags::RDWR);
    assert_eq!(opened.unwrap_err(), Errno::ROFS);
}
