//! Extended attributes.

use std::fs;

use rustix::fs::{XattrFlags, setxattr};
use rustix::io::Errno;

use super::Shared;
use super::guest::{Body, Done, Fields};
use crate::abi::Opcode;

const CREATE: u32 = 1;
const REPLACE: u32 = 2;

impl Shared {
    fn set(&mut self, node: u64, name: &str, value: &[u8], flags: u32) -> Done<()> {
        let body = Body::new().u32(value.len() as u32).u32(flags).u64(0);
        let body = body.string(name).bytes(value);
        self.guest.call(Opcode::SETXATTR, node, body).map(drop)
    }

    fn get(&mut self, node: u64, name: &str, size: u32) -> Done<Vec<u8>> {
        let body = Body::new().u32(size).u32(0).string(name);
        self.guest.call(Opcode::GETXATTR, node, body)
    }

    fn attributes(&mut self, node: u64, size: u32) -> Done<Vec<u8>> {
        let body = Body::new().u32(size).u32(0);
        self.guest.call(Opcode::LISTXATTR, node, body)
    }
}

/// A share with a file, on a file system that has attributes for users.
fn with_file() -> Option<(Shared, u64)> {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "").unwrap();
    let path = shared.path("f");
    if setxattr(&path, "user.try", b"", XattrFlags::empty()) == Err(Errno::OPNOTSUPP) {
        return None;
    }
    rustix::fs::removexattr(&path, "user.try").unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    Some((shared, node))
}

#[test]
fn attributes_are_set_told_listed_and_removed() {
    let Some((mut shared, node)) = with_file() else {
        return;
    };
    shared.set(node, "user.a", b"one", CREATE).unwrap();
    assert_eq!(shared.set(node, "user.a", b"", CREATE), Err(Errno::EXIST));
    assert_eq!(shared.set(node, "user.b", b"", REPLACE), Err(Errno::NODATA));
    shared.set(node, "user.a", b"three", REPLACE).unwrap();
    shared.set(node, "user.b", b"", 0).unwrap();
    assert_eq!(shared.set(node, "user.c", b"", 4), Err(Errno::INVAL));
    assert_eq!(shared.get(node, "user.a", 5).unwrap(), b"three");
    assert_eq!(shared.get(node, "user.a", 4), Err(Errno::RANGE));
    assert_eq!(shared.get(node, "user.a", 100).unwrap(), b"three");
    assert_eq!(Fields(&shared.get(node, "user.a", 0).unwrap()).u32(), 5);
    let mut names: Vec<_> = shared.attributes(node, 100).unwrap();
    names.sort_unstable();
    let mut expected = b"user.a\0user.b\0".to_vec();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(shared.attributes(node, 13), Err(Errno::RANGE));
    assert_eq!(Fields(&shared.attributes(node, 0).unwrap()).u32(), 14);
    let body = Body::new().string("user.a");
    shared.guest.call(Opcode::REMOVEXATTR, node, body).unwrap();
    assert_eq!(shared.get(node, "user.a", 0), Err(Errno::NODATA));
}

#[test]
fn values_that_are_cut_or_too_long_are_refused() {
    let Some((mut shared, node)) = with_file() else {
        return;
    };
    let cut = Body::new()
        .u32(5)
        .u32(0)
        .u64(0)
        .string("user.a")
        .bytes(b"four");
    let cut = shared.guest.call(Opcode::SETXATTR, node, cut);
    assert_eq!(cut, Err(Errno::INVAL));
    let long = vec![1; (64 << 10) + 1];
    let too_long = shared.set(node, "user.a", &long, 0);
    assert_eq!(too_long, Err(Errno::TOOBIG));
    for name in ["", &format!("user.{}", "x".repeat(251))] {
        assert_eq!(shared.set(node, name, b"", 0), Err(Errno::RANGE));
    }
    assert_eq!(shared.get(node, "user.a", 0), Err(Errno::NODATA));
}

#[test]
fn access_control_lists_are_as_on_a_file_system_without_them() {
    let Some((mut shared, node)) = with_file() else {
        return;
    };
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        assert_eq!(shared.set(node, name, b"", 0), Err(Errno::OPNOTSUPP));
        assert_eq!(shared.get(node, name, 0), Err(Errno::OPNOTSUPP));
    }
    // One that the host has set: version 2, user rwx, a named user r, group r, mask r, other none.
    let list = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 1, 0, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let path = shared.path("f");
    let name = "system.posix_acl_access";
    if setxattr(&path, name, &list, XattrFlags::empty()).is_ok() {
        assert_eq!(shared.attributes(node, 100).unwrap(), b"");
    }
}

#[test]
fn attributes_of_a_link_are_not_its_targets() {
    let Some((mut shared, _)) = with_file() else {
        return;
    };
    let outside = shared.outer.path().join("secret");
    setxattr(&outside, "user.a", b"x", XattrFlags::empty()).unwrap();
    let link = shared.guest.symlink(shared.root, "l", "../secret").unwrap();
    assert!(shared.get(link.node, "user.a", 10).is_err());
    assert_eq!(shared.set(link.node, "user.a", b"y", 0), Err(Errno::PERM));
    assert_eq!(shared.attributes(link.node, 100).unwrap(), b"");
}
