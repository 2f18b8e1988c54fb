//! INIT and DESTROY.

use std::fs;

use protocol::fs::Ownership;
use rustix::io::Errno;

use super::guest::{Body, Fields, Guest};
use super::{Shared, flags};
use crate::abi::{Opcode, init};

#[test]
fn what_both_have_is_agreed_on() {
    let mut guest = Guest::silent(10, Ownership::Host);
    let reply = guest.init(7, 41, u32::MAX).unwrap();
    assert_eq!(reply.len(), 64);
    let mut fields = Fields(&reply);
    let [major, minor, readahead, agreed] = [(); 4].map(|()| fields.u32());
    assert_eq!((major, minor, readahead), (7, 38, 128 << 10));
    let wanted = init::DO_READDIRPLUS | init::SUBMOUNTS | init::HANDLE_KILLPRIV_V2;
    assert_eq!(agreed & wanted, wanted);
    // POSIX_LOCKS, DONT_MASK, FLOCK_LOCKS, WRITEBACK_CACHE, POSIX_ACL, EXPLICIT_INVAL_DATA.
    for not_offered in [1, 6, 10, 16, 20, 25] {
        assert_eq!(agreed & (1 << not_offered), 0, "bit {not_offered}");
    }
    let _background = fields.u32();
    assert_eq!((fields.u32(), fields.u32()), (1 << 20, 1));
    assert_eq!(fields.u32(), 256);
    let few = guest.init(7, 31, init::BIG_WRITES).unwrap();
    assert_eq!(Fields(&few[12..]).u32(), init::BIG_WRITES);
}

#[test]
fn another_version_is_refused_or_asked_again() {
    let mut guest = Guest::silent(10, Ownership::Host);
    assert_eq!(guest.init(7, 30, 0), Err(Errno::PROTO));
    assert_eq!(guest.init(6, 41, 0), Err(Errno::PROTO));
    let reply = guest.init(8, 0, 0).unwrap();
    assert_eq!(Fields(&reply).u32(), 7);
    // None of these has begun anything.
    assert_eq!(guest.getattr(1), Err(Errno::IO));
    guest.init(7, 31, 0).unwrap();
    assert!(guest.getattr(1).is_ok());
}

#[test]
fn a_driver_that_begins_again_has_nothing_of_the_one_before() {
    for destroy in [false, true] {
        let mut shared = Shared::new();
        fs::write(shared.path("f"), "").unwrap();
        let node = shared.guest.lookup(shared.root, "f").unwrap().node;
        shared.guest.open(node, flags::RDONLY).unwrap();
        shared.guest.opendir(shared.root).unwrap();
        if destroy {
            let done = shared.guest.call(Opcode::DESTROY, 0, Body::new());
            assert_eq!(done, Ok(vec![]));
            assert_eq!(shared.guest.getattr(1), Err(Errno::IO));
        } else {
            shared.guest.init(7, 38, u32::MAX).unwrap();
        }
        assert_eq!(shared.guest.server.nodes.count(), 0);
        assert_eq!(shared.guest.server.handles.count(), 0);
        shared.guest.init(7, 38, u32::MAX).unwrap();
        let again = shared.guest.lookup(1, "s").unwrap().node;
        assert!(again > node);
    }
}

#[test]
fn a_file_that_cannot_be_sent_is_closed_and_the_guest_told() {
    let mut shared = Shared::new();
    fs::write(shared.path("old"), "").unwrap();
    let node = shared.guest.lookup(shared.root, "old").unwrap().node;
    let before = shared.guest.server.nodes.count();
    let open = Body::new().u32(0).u32(0);
    let create = Body::new().u32(0o102).u32(0o600).u64(0).string("new");
    for (opcode, target, body) in [
        (Opcode::OPEN, node, open),
        (Opcode::CREATE, shared.root, create),
    ] {
        let request = shared.guest.request(opcode, target, &body);
        let reply = shared.guest.server.handle(&request).unwrap();
        let instead = shared.guest.server.take_back(&request, &reply).unwrap();
        assert!(instead.descriptor().is_none());
        assert_eq!(instead.bytes[4..8], (-23i32).to_le_bytes());
        assert_eq!(instead.bytes[8..16], reply.bytes[8..16]);
        assert_eq!(shared.guest.server.handles.count(), 0);
        assert_eq!(shared.guest.server.nodes.count(), before);
    }
    let request = shared.guest.request(Opcode::GETATTR, node, &Body::new());
    let reply = shared.guest.server.handle(&request).unwrap();
    assert!(shared.guest.server.take_back(&request, &reply).is_none());
}
