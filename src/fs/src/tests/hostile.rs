//! What no honest driver sends.

use std::fs;
use std::os::unix::fs::symlink;

use protocol::fs::MAX_MESSAGE_LEN;
use rustix::io::Errno;

use super::guest::{Body, Done, Set};
use super::tree::Tree;
use super::{Shared, flags};
use crate::abi::Opcode;

const NAMES: [&str; 9] = [
    "",
    ".",
    "..",
    "/",
    "../secret",
    "a/b",
    "./f",
    "d/..",
    "/etc/passwd",
];

#[test]
fn names_that_lead_elsewhere_are_refused_by_every_operation() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "").unwrap();
    fs::create_dir(shared.path("d")).unwrap();
    symlink("../secret", shared.path("l")).unwrap();
    let root = shared.root;
    let file = shared.guest.lookup(root, "f").unwrap().node;
    let directory = shared.guest.lookup(root, "d").unwrap().node;
    let before = Tree::of(shared.outer.path());
    let guest = &mut shared.guest;
    let long = "x".repeat(256);
    for name in NAMES.into_iter().chain([&*long]) {
        let refused = |done: Done<()>| {
            let expected = if name.len() > 255 {
                Errno::NAMETOOLONG
            } else {
                Errno::INVAL
            };
            assert_eq!(done, Err(expected), "{name}");
        };
        for parent in [root, directory] {
            refused(guest.lookup(parent, name).map(drop));
            refused(guest.mkdir(parent, name, 0o755).map(drop));
            refused(guest.mknod(parent, name, 0o100_644, 0).map(drop));
            refused(guest.symlink(parent, name, "x").map(drop));
            refused(guest.link(file, parent, name).map(drop));
            refused(guest.unlink(parent, name));
            refused(guest.rmdir(parent, name));
            for flags in [0, 1, 2, 4] {
                refused(guest.rename((parent, name), (root, "new"), flags));
                refused(guest.rename((root, "f"), (parent, name), flags));
            }
            let how = flags::RDWR | flags::CREAT;
            refused(guest.create(parent, name, how, 0o644).map(drop));
        }
        refused(guest.lookup(1, name).map(drop));
    }
    assert_eq!(Tree::of(shared.outer.path()), before);
}

#[test]
fn names_with_a_nul_in_them_or_without_their_end_are_refused() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "").unwrap();
    for opcode in [Opcode::LOOKUP, Opcode::UNLINK, Opcode::RMDIR] {
        for bytes in [&b"f\0x\0"[..], b"f", b"", b"f\0\0"] {
            let body = Body::new().bytes(bytes);
            let done = shared.guest.call(opcode, shared.root, body);
            assert_eq!(done, Err(Errno::INVAL), "{opcode:?} {bytes:?}");
        }
    }
    assert!(shared.path("f").exists());
}

#[test]
fn requests_cut_anywhere_are_answered_and_change_nothing() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "data").unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    let open = shared.guest.open(node, flags::RDONLY).unwrap();
    let before = Tree::of(shared.outer.path());
    for opcode in 0..64 {
        for len in 0..40 {
            // Fewer bytes than any of their arguments but those that take none.
            let body = Body(vec![0xff; len]);
            for target in [1, shared.root, node] {
                let request = shared.guest.request(Opcode(opcode), target, &body);
                if opcode != Opcode::INIT.0 && opcode != Opcode::DESTROY.0 {
                    let reply = shared.guest.server.handle(&request);
                    let silent = Opcode(opcode).has_no_reply();
                    assert_eq!(reply.is_none(), silent, "{opcode}");
                }
            }
        }
    }
    assert_eq!(Tree::of(shared.outer.path()), before);
    // What was looked up and opened before is as it was, but for what batches of garbage forgot.
    shared.guest.release(node, open.fh).unwrap();
}

#[test]
fn a_packet_that_is_not_as_long_as_it_says_is_refused() {
    let mut shared = Shared::new();
    let body = Body::new().string("f");
    let good = shared.guest.request(Opcode::LOOKUP, shared.root, &body);
    for len in [0, 39, 41, good.len() as u32 + 1, u32::MAX] {
        let mut bad = good.clone();
        bad[..4].copy_from_slice(&len.to_le_bytes());
        let reply = shared.guest.server.handle(&bad).unwrap();
        assert_eq!(reply.bytes[4..8], (-22i32).to_le_bytes());
        assert_eq!(reply.bytes[8..16], good[8..16]);
    }
    for short in 0..40 {
        assert!(shared.guest.server.handle(&good[..short]).is_none());
    }
}

#[test]
fn the_longest_packets_are_answered() {
    let mut shared = Shared::new();
    let longest = Body(vec![b'x'; MAX_MESSAGE_LEN - 40]);
    for opcode in [Opcode::LOOKUP, Opcode::SYMLINK, Opcode::SETXATTR] {
        let done = shared.guest.call(opcode, shared.root, longest.clone());
        assert!(done.is_err());
    }
    let target = "t".repeat(4096);
    let made = shared.guest.symlink(shared.root, "l", &target);
    assert_eq!(made, Err(Errno::NAMETOOLONG));
}

#[test]
fn unknown_nodes_and_handles_are_refused() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "").unwrap();
    let root = shared.root;
    let node = shared.guest.lookup(root, "f").unwrap().node;
    let file = shared.guest.open(node, flags::RDWR).unwrap().fh;
    let directory = shared.guest.opendir(root).unwrap();
    let guest = &mut shared.guest;
    for unknown in [0, node + 1, 1 << 40, u64::MAX] {
        assert_eq!(guest.getattr(unknown), Err(Errno::STALE));
        assert_eq!(guest.lookup(unknown, "f"), Err(Errno::STALE));
        assert_eq!(guest.open(unknown, 0).unwrap_err(), Errno::STALE);
        assert_eq!(guest.link(unknown, root, "x"), Err(Errno::STALE));
        assert_eq!(
            guest.rename((root, "f"), (unknown, "x"), 0),
            Err(Errno::STALE)
        );
        assert_eq!(guest.setattr(unknown, Set::size(0)), Err(Errno::STALE));
    }
    // Handles of another kind, of another node, and of nothing.
    for (target, fh) in [
        (root, file),
        (node, directory),
        (node, 0),
        (node, u64::MAX),
        (1, file),
    ] {
        let body = (1..7).fold(Body::new().u64(fh), |body, _| body.u64(0));
        for opcode in [
            Opcode::RELEASE,
            Opcode::FLUSH,
            Opcode::FSYNC,
            Opcode::FALLOCATE,
            Opcode::LSEEK,
            Opcode::COPY_FILE_RANGE,
        ] {
            let done = guest.call(opcode, target, body.clone());
            assert_eq!(done, Err(Errno::BADF), "{opcode:?}");
        }
    }
    for (target, fh) in [(root, file), (node, directory), (1, directory), (root, 0)] {
        let body = Body::new().u64(fh).u64(0).u64(4096).u64(0).u64(0);
        for opcode in [
            Opcode::READDIR,
            Opcode::READDIRPLUS,
            Opcode::RELEASEDIR,
            Opcode::FSYNCDIR,
        ] {
            let done = guest.call(opcode, target, body.clone());
            assert_eq!(done, Err(Errno::BADF), "{opcode:?}");
        }
    }
    guest.release(node, file).unwrap();
    guest.releasedir(root, directory).unwrap();
}

#[test]
fn operations_that_are_not_served_are_said_to_be_none() {
    let mut shared = Shared::new();
    // GETLK, SETLK, SETLKW, BMAP, IOCTL, POLL, SETUPMAPPING, REMOVEMAPPING, SYNCFS, STATX; READ and WRITE, which hull-vmm
    // serves; numbers that mean nothing.
    for opcode in [
        31,
        32,
        33,
        37,
        39,
        40,
        48,
        49,
        50,
        52,
        15,
        16,
        0,
        7,
        4096,
        u32::MAX,
    ] {
        let body = Body::new().u64(0).u64(0);
        let done = shared.guest.call(Opcode(opcode), shared.root, body);
        assert_eq!(done, Err(Errno::NOSYS), "{opcode}");
    }
}

#[test]
fn no_more_directories_are_open_than_may_be() {
    let mut shared = Shared::new();
    let mut last = Ok(0);
    let mut count = 0;
    while count <= crate::handle::MAX_OPEN_DIRECTORIES {
        // The root of the shares, which takes no descriptor.
        last = shared.guest.opendir(1);
        if last.is_err() {
            break;
        }
        count += 1;
    }
    assert_eq!(last, Err(Errno::NFILE));
    assert_eq!(count, crate::handle::MAX_OPEN_DIRECTORIES);
}
