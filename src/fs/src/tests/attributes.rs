//! Attributes that are set and told.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::io::Errno;

use super::guest::{Body, Fields, Set};
use super::{Shared, flags, is_root};
use crate::abi::{Opcode, fattr};

#[test]
fn modes_sizes_and_times_are_set_on_the_host() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "12345").unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    let set = Set {
        valid: fattr::MODE | fattr::SIZE | fattr::ATIME | fattr::MTIME,
        mode: 0o100_604,
        size: 3,
        atime: (1_000_000_000, 7),
        mtime: ((-5i64).cast_unsigned(), 999_999_999),
        ..Set::default()
    };
    let attr = shared.guest.setattr(node, set).unwrap();
    assert_eq!((attr.mode, attr.size), (0o100_604, 3));
    assert_eq!(attr.atime, (1_000_000_000, 7));
    assert_eq!(attr.mtime, (-5, 999_999_999));
    let meta = fs::metadata(shared.path("f")).unwrap();
    assert_eq!((meta.mode(), meta.mtime()), (0o100_604, -5));
    let now = Set {
        valid: fattr::MTIME | fattr::MTIME_NOW,
        ..Set::default()
    };
    let attr = shared.guest.setattr(node, now).unwrap();
    assert!(attr.mtime.0 > 1_700_000_000);
    assert_eq!(attr.atime, (1_000_000_000, 7));
    let bad = Set {
        valid: fattr::ATIME,
        atime: (0, 1_000_000_000),
        ..Set::default()
    };
    assert_eq!(shared.guest.setattr(node, bad), Err(Errno::INVAL));
}

#[test]
fn a_link_has_times_and_an_owner_of_its_own() {
    let mut shared = Shared::new();
    let link = shared.guest.symlink(shared.root, "l", "../secret").unwrap();
    let before = fs::metadata(shared.outer.path().join("secret")).unwrap();
    let times = Set {
        valid: fattr::MTIME,
        mtime: (77, 0),
        ..Set::default()
    };
    assert_eq!(shared.guest.setattr(link.node, times).unwrap().mtime.0, 77);
    if is_root() {
        let owned = shared.guest.setattr(link.node, Set::owner(5, 6)).unwrap();
        assert_eq!((owned.uid, owned.gid), (5, 6));
    }
    assert!(shared.guest.setattr(link.node, Set::size(0)).is_err());
    let moded = shared.guest.setattr(link.node, Set::mode(0o600));
    assert_eq!(moded, Err(Errno::OPNOTSUPP));
    let after = fs::metadata(shared.outer.path().join("secret")).unwrap();
    assert_eq!(
        (after.mtime(), after.uid(), after.len(), after.mode()),
        (before.mtime(), before.uid(), before.len(), before.mode())
    );
}

#[test]
fn owners_are_changed_by_root_and_refused_otherwise() {
    let mut shared = Shared::new();
    fs::write(shared.path("f"), "").unwrap();
    fs::set_permissions(shared.path("f"), PermissionsExt::from_mode(0o6755)).unwrap();
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    let owned = shared.guest.setattr(node, Set::owner(4321, 8765));
    if is_root() {
        let owned = owned.unwrap();
        assert_eq!((owned.uid, owned.gid), (4321, 8765));
        // As chown(2) does, for root too.
        assert_eq!(owned.mode & 0o7777, 0o755);
        let only_group = Set {
            valid: fattr::GID,
            gid: 1,
            ..Set::default()
        };
        let owned = shared.guest.setattr(node, only_group).unwrap();
        assert_eq!((owned.uid, owned.gid), (4321, 1));
    } else {
        assert_eq!(owned, Err(Errno::PERM));
    }
    let unchanged = shared.guest.setattr(node, Set::owner(u32::MAX, 0));
    assert_eq!(unchanged, Err(Errno::INVAL));
}

#[test]
fn what_is_cut_loses_its_set_user_id_bit() {
    let mut shared = Shared::new();
    for name in ["size", "open"] {
        fs::write(shared.path(name), "program").unwrap();
        fs::set_permissions(shared.path(name), PermissionsExt::from_mode(0o6755)).unwrap();
        let node = shared.guest.lookup(shared.root, name).unwrap().node;
        if name == "size" {
            shared.guest.setattr(node, Set::size(3)).unwrap();
        } else {
            let how = flags::WRONLY | flags::TRUNC;
            shared.guest.open(node, how).unwrap();
        }
        let attr = shared.guest.getattr(node).unwrap();
        assert_eq!(attr.mode & 0o7777, 0o755, "{name}");
    }
}

#[test]
fn a_set_group_id_bit_is_set_on_a_strangers_group() {
    let mut shared = Shared::new();
    fs::create_dir(shared.path("d")).unwrap();
    if is_root() {
        std::os::unix::fs::chown(shared.path("d"), Some(4321), Some(8765)).unwrap();
    }
    let node = shared.guest.lookup(shared.root, "d").unwrap().node;
    let attr = shared.guest.setattr(node, Set::mode(0o7711)).unwrap();
    assert_eq!(attr.mode, 0o047_711);
}

#[test]
fn sizes_of_the_file_system_are_the_hosts() {
    let mut shared = Shared::new();
    let stat = rustix::fs::statvfs(shared.path("")).unwrap();
    let reply = shared.guest.call(Opcode::STATFS, shared.root, Body::new());
    let reply = reply.unwrap();
    assert_eq!(reply.len(), 80);
    let mut fields = Fields(&reply);
    assert_eq!(fields.u64(), stat.f_blocks);
    let mut sizes = Fields(&reply[40..]);
    assert_eq!(u64::from(sizes.u32()), stat.f_bsize);
    assert_eq!(u64::from(sizes.u32()), stat.f_namemax);
    let reply = shared.guest.call(Opcode::STATFS, 1, Body::new()).unwrap();
    assert_eq!((reply.len(), Fields(&reply).u64()), (80, 0));
}
