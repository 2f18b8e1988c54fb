//! Files that are opened, made and removed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, mknodat};
use rustix::io::Errno;

use super::guest::{Body, Fields, Set};
use super::{Shared, flags, is_root};
use crate::abi::Opcode;

#[test]
fn a_file_is_opened_as_asked_and_comes_with_the_reply() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "old").unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    let mut reading = shared.guest.open(node, flags::RDONLY).unwrap();
    assert!(reading.file.write_all(b"x").is_err());
    assert_eq!(std::io::read_to_string(&mut reading.file).unwrap(), "old");
    let mut appending = shared
        .guest
        .open(node, flags::WRONLY | flags::APPEND)
        .unwrap();
    appending.file.write_all(b"er").unwrap();
    assert_eq!(fs::read_to_string(shared.path("f")).unwrap(), "older");
    let emptied = shared.guest.open(node, flags::RDWR | flags::TRUNC).unwrap();
    assert_eq!(emptied.file.metadata().unwrap().len(), 0);
    assert_ne!(reading.fh, appending.fh);
    for open in [reading, appending, emptied] {
        shared.guest.release(node, open.fh).unwrap();
        assert_eq!(shared.guest.release(node, open.fh), Err(Errno::BADF));
    }
    assert_eq!(shared.guest.server.handles.count(), 0);
}

#[test]
fn flags_that_mean_something_else_to_the_host_are_not_passed_on() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "").unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    let strange = flags::DIRECT | flags::PATH | flags::DIRECTORY | flags::CREAT | flags::EXCL;
    let open = shared
        .guest
        .open(node, flags::RDWR | strange | flags::NOFOLLOW)
        .unwrap();
    let has = fcntl_getfl(&open.file).unwrap();
    assert!(has.contains(OFlags::RDWR) && !has.intersects(OFlags::DIRECT | OFlags::PATH));
    assert_eq!(shared.guest.open(node, 3).unwrap_err(), Errno::INVAL);
}

#[test]
fn nothing_but_regular_files_is_opened() {
    let mut shared = Shared::new();
    fs::create_dir(shared.path("d")).unwrap();
    let fifo = shared.path("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(shared.path("sock")).unwrap();
    let mut names = vec![
        ("d", Errno::ISDIR),
        ("fifo", Errno::NXIO),
        ("sock", Errno::NXIO),
    ];
    let null = shared.path("null");
    // The device of the null device, which root alone may make, outside of the jail.
    let made = std::thread::spawn(move || {
        rustix::fs::mknodat(CWD, &null, FileType::CharacterDevice, Mode::RWXU, 0x103).is_ok()
    });
    if made.join().unwrap() {
        names.push(("null", Errno::NXIO));
    }
    for (name, errno) in names {
        let node = shared.guest.lookup(shared.root, name).unwrap().node;
        for how in [flags::RDONLY, flags::WRONLY, flags::RDWR] {
            assert_eq!(shared.guest.open(node, how).unwrap_err(), errno, "{name}");
            let created = shared.guest.create(shared.root, name, how, 0o600);
            assert_eq!(created.unwrap_err(), errno, "{name}");
        }
        let resized = shared.guest.setattr(node, Set::size(7));
        assert!(resized.is_err(), "{name}");
    }
    assert_eq!(shared.guest.server.handles.count(), 0);
}

#[test]
fn a_file_is_created_once_and_opened_whatever_its_mode() {
    let mut shared = Shared::new();
    let how = flags::RDWR | flags::CREAT | flags::EXCL;
    let (entry, mut open) = shared.guest.create(shared.root, "f", how, 0).unwrap();
    open.file.write_all(b"by its maker").unwrap();
    let meta = fs::metadata(shared.path("f")).unwrap();
    assert_eq!((meta.ino(), meta.mode() & 0o7777), (entry.attr.ino, 0));
    assert_eq!(meta.len(), 12);
    let again = shared.guest.create(shared.root, "f", how, 0o600);
    assert_eq!(again.unwrap_err(), Errno::EXIST);
}

#[test]
fn creating_what_is_there_opens_it_as_the_same_node() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "data").unwrap();
    let before = fs::metadata(shared.path("f")).unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    let (entry, open) = shared
        .guest
        .create(shared.root, "f", flags::RDONLY | flags::CREAT, 0o777)
        .unwrap();
    assert_eq!(entry.node, node);
    assert_eq!(std::io::read_to_string(&open.file).unwrap(), "data");
    assert_eq!(
        fs::metadata(shared.path("f")).unwrap().mode(),
        before.mode()
    );
}

#[test]
fn what_was_opened_can_be_renamed_over_and_removed() {
    let mut shared = Shared::new();
    fs::write(shared.path("old"), "old").unwrap();
    fs::write(shared.path("new"), "new").unwrap();
    let node = shared.guest.lookup(shared.root, "old").unwrap().node;
    let mut open = shared.guest.open(node, flags::RDWR).unwrap();
    let root = shared.root;
    shared
        .guest
        .rename((root, "new"), (root, "old"), 0)
        .unwrap();
    assert_eq!(fs::read_to_string(shared.path("old")).unwrap(), "new");
    assert!(!shared.path("new").exists());
    let mut text = String::new();
    open.file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    open.file.write_all_at(b"still", 0).unwrap();
    assert_eq!(shared.guest.getattr(node).unwrap().size, 5);
    assert_eq!(shared.guest.getattr(node).unwrap().nlink, 0);
    let by_handle = Set {
        valid: crate::abi::fattr::SIZE | crate::abi::fattr::FH,
        fh: open.fh,
        size: 2,
        ..Set::default()
    };
    assert_eq!(shared.guest.setattr(node, by_handle).unwrap().size, 2);
    let found = shared.guest.lookup(root, "old").unwrap();
    assert_ne!(found.node, node);
}

#[test]
fn renames_refuse_replace_and_exchange_as_asked() {
    const NOREPLACE: u32 = 1;
    const EXCHANGE: u32 = 2;
    let mut shared = Shared::new();
    let root = shared.root;
    fs::write(shared.path("a"), "a").unwrap();
    fs::write(shared.path("b"), "b").unwrap();
    let refused = shared.guest.rename((root, "a"), (root, "b"), NOREPLACE);
    assert_eq!(refused, Err(Errno::EXIST));
    shared
        .guest
        .rename((root, "a"), (root, "b"), EXCHANGE)
        .unwrap();
    assert_eq!(fs::read_to_string(shared.path("a")).unwrap(), "b");
    let both = shared
        .guest
        .rename((root, "a"), (root, "b"), NOREPLACE | EXCHANGE);
    assert_eq!(both, Err(Errno::INVAL));
    let unknown = shared.guest.rename((root, "a"), (root, "b"), 1 << 9);
    assert_eq!(unknown, Err(Errno::INVAL));
    fs::create_dir(shared.path("d")).unwrap();
    let directory = shared.guest.lookup(root, "d").unwrap().node;
    let into_itself = shared.guest.rename((root, "d"), (directory, "x"), 0);
    assert_eq!(into_itself, Err(Errno::INVAL));
}

#[test]
fn nodes_of_every_kind_but_devices_are_made() {
    let mut shared = Shared::new();
    let root = shared.root;
    for (name, mode) in [("r", 0o100_640), ("p", 0o010_600), ("s", 0o140_755)] {
        let entry = shared.guest.mknod(root, name, mode, 0).unwrap();
        assert_eq!(entry.attr.mode, mode, "{name}");
        assert_eq!(
            fs::symlink_metadata(shared.path(name)).unwrap().mode(),
            mode
        );
    }
    assert!(
        fs::metadata(shared.path("p"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    for (mode, device) in [
        (0o020_666, 0x103),
        (0o060_600, 0),
        (0o040_755, 0),
        (0o120_777, 0),
    ] {
        let made = shared.guest.mknod(root, "x", mode, device);
        assert_eq!(made, Err(Errno::PERM), "{mode:o}");
    }
    assert!(!shared.path("x").exists());
    let whiteout = shared.guest.mknod(root, "gone", 0o020_000, 0).unwrap();
    assert_eq!(
        (whiteout.attr.mode & 0o170_000, whiteout.attr.rdev),
        (0o020_000, 0)
    );
}

#[test]
fn directories_are_removed_when_they_are_empty() {
    let mut shared = Shared::new();
    let root = shared.root;
    let directory = shared.guest.mkdir(root, "d", 0o750).unwrap();
    assert_eq!(directory.attr.mode, 0o040_750);
    shared.guest.mkdir(directory.node, "e", 0o755).unwrap();
    assert_eq!(shared.guest.rmdir(root, "d"), Err(Errno::NOTEMPTY));
    assert_eq!(shared.guest.unlink(root, "d"), Err(Errno::ISDIR));
    shared.guest.rmdir(directory.node, "e").unwrap();
    shared.guest.rmdir(root, "d").unwrap();
    assert_eq!(shared.guest.rmdir(root, "d"), Err(Errno::NOENT));
    let inside = shared.guest.mkdir(directory.node, "late", 0o755);
    assert_eq!(inside, Err(Errno::NOENT));
}

#[test]
fn what_is_made_belongs_to_its_maker_in_the_guest() {
    let mut shared = Shared::new();
    let root = shared.root;
    if is_root() {
        fs::set_permissions(shared.path(""), PermissionsExt::from_mode(0o700)).unwrap();
    }
    (shared.guest.uid, shared.guest.gid) = (4321, 8765);
    let expected = if is_root() {
        (4321, 8765)
    } else {
        let meta = fs::metadata(shared.path("")).unwrap();
        (meta.uid(), meta.gid())
    };
    let how = flags::RDWR | flags::CREAT;
    shared.guest.create(root, "f", how, 0o600).unwrap();
    shared.guest.mkdir(root, "d", 0o755).unwrap();
    shared.guest.symlink(root, "l", "x").unwrap();
    shared.guest.mknod(root, "p", 0o010_600, 0).unwrap();
    for name in ["f", "d", "l", "p"] {
        let meta = fs::symlink_metadata(shared.path(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), expected, "{name}");
    }
    let (temporary, _) = shared.guest.tmpfile(root, flags::RDWR).unwrap();
    assert_eq!((temporary.attr.uid, temporary.attr.gid), expected);
    if is_root() {
        // A directory with set-group-ID gives its group on.
        std::os::unix::fs::chown(shared.path("d"), None, Some(777)).unwrap();
        let node = shared.guest.lookup(root, "d").unwrap().node;
        let set = shared.guest.setattr(node, Set::mode(0o2775)).unwrap();
        assert_eq!(set.mode & 0o7777, 0o2775);
        let (inner, _) = shared.guest.create(node, "f", how, 0o600).unwrap();
        assert_eq!((inner.attr.uid, inner.attr.gid), (4321, 777));
        let inner = shared.guest.mkdir(node, "e", 0o755).unwrap();
        assert_eq!((inner.attr.mode & 0o7777, inner.attr.gid), (0o2755, 777));
    }
}

#[test]
fn holes_are_made_found_and_copied() {
    let mut shared = Shared::new();
    let how = flags::RDWR | flags::CREAT;
    let (from, file) = shared.guest.create(shared.root, "a", how, 0o600).unwrap();
    let (to, copy) = shared.guest.create(shared.root, "b", how, 0o600).unwrap();
    file.file.write_all_at(&[7; 4096], 1 << 20).unwrap();
    for (whence, offset, expected) in [(3, 0, 1 << 20), (4, 1 << 20, (1 << 20) + 4096)] {
        let body = Body::new().u64(file.fh).u64(offset).u32(whence).u32(0);
        let reply = shared.guest.call(Opcode::LSEEK, from.node, body).unwrap();
        assert_eq!(Fields(&reply).u64(), expected);
    }
    let body = Body::new().u64(file.fh).u64(0).u32(2).u32(0);
    let ends = shared.guest.call(Opcode::LSEEK, from.node, body);
    assert_eq!(ends, Err(Errno::INVAL));
    let body = |flags| {
        let from = Body::new().u64(file.fh).u64(1 << 20);
        let to = from.u64(to.node).u64(copy.fh).u64(10);
        to.u64(100).u64(flags)
    };
    let reply = shared
        .guest
        .call(Opcode::COPY_FILE_RANGE, from.node, body(0));
    assert_eq!(Fields(&reply.unwrap()).u32(), 100);
    assert_eq!(
        fs::read(shared.path("b")).unwrap()[9..],
        [&[0][..], &[7; 100]].concat()
    );
    let flagged = shared
        .guest
        .call(Opcode::COPY_FILE_RANGE, from.node, body(1));
    assert_eq!(flagged, Err(Errno::INVAL));
    let punch = Body::new()
        .u64(file.fh)
        .u64(1 << 20)
        .u64(4096)
        .u32(3)
        .u32(0);
    shared
        .guest
        .call(Opcode::FALLOCATE, from.node, punch)
        .unwrap();
    let mut byte = [1];
    file.file.read_exact_at(&mut byte, 1 << 20).unwrap();
    assert_eq!(byte, [0]);
    for opcode in [Opcode::FLUSH, Opcode::FSYNC] {
        for flags in [0, 1] {
            let body = Body::new().u64(file.fh).u32(flags).u32(0).u64(0);
            shared.guest.call(opcode, from.node, body).unwrap();
        }
    }
}

#[test]
fn errors_of_the_hosts_file_system_reach_the_guest() {
    let memory = std::path::Path::new("/dev/shm");
    let is_tmpfs = rustix::fs::statfs(memory).is_ok_and(|stat| stat.f_type == 0x0102_1994);
    let mut shared = Shared::new();
    let how = flags::RDWR | flags::CREAT;
    let (entry, open) = shared.guest.create(shared.root, "f", how, 0o600).unwrap();
    let grown = shared.guest.setattr(entry.node, Set::size(i64::MAX as u64));
    assert_eq!(grown.unwrap_err(), Errno::FBIG);
    let negative = shared.guest.setattr(entry.node, Set::size(u64::MAX));
    assert_eq!(negative.unwrap_err(), Errno::INVAL);
    let far = Body::new().u64(open.fh).u64(u64::MAX).u64(1).u32(0).u32(0);
    let far = shared.guest.call(Opcode::FALLOCATE, entry.node, far);
    assert_eq!(far, Err(Errno::INVAL));
    if is_tmpfs {
        let folder = tempfile::tempdir_in(memory).unwrap();
        shared.guest.share("m", folder.path(), false);
        let root = shared.guest.lookup(1, "m").unwrap().node;
        let (entry, open) = shared.guest.create(root, "f", how, 0o600).unwrap();
        // More than any tmpfs has, which says so before it takes anything.
        let body = Body::new().u64(open.fh).u64(0).u64(1 << 60).u32(0).u32(0);
        let full = shared.guest.call(Opcode::FALLOCATE, entry.node, body);
        assert_eq!(full, Err(Errno::NOSPC));
        let other = (root, "f");
        let moved = shared.guest.rename(other, (shared.root, "g"), 0);
        assert_eq!(moved, Err(Errno::XDEV));
        let linked = shared.guest.link(entry.node, shared.root, "g");
        assert_eq!(linked, Err(Errno::XDEV));
    }
}
