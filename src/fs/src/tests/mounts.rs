//! Mounts below a share. They are made in a thread with mounts of its own.

use std::fs;
use std::path::Path;

use protocol::fs::Ownership;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::guest::{ALL_FLAGS, Guest};
use super::{as_in_the_jail, flags};
use crate::abi::{ATTR_SUBMOUNT, init};

/// A share with two file systems below it, in each of which "f" has the same number.
fn with_mounts(test: impl FnOnce(&mut Guest, u64, &Path) + Send + 'static) {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().to_owned();
    let done = std::thread::spawn(move || {
        sys::private_mounts::enter().unwrap();
        for name in ["m1", "m2"] {
            let point = path.join(name);
            fs::create_dir(&point).unwrap();
            mount("tmpfs", &point, "tmpfs", MountFlags::empty(), None).unwrap();
            fs::write(point.join("f"), name).unwrap();
        }
        fs::create_dir(path.join("plain")).unwrap();
        as_in_the_jail(Ownership::Host);
        let mut guest = Guest::new();
        // What is listed is looked up only where it may be remembered.
        let _lease = guest.lease("s", &path);
        let root = guest.lookup(1, "s").unwrap();
        assert_eq!(root.attr.flags, ATTR_SUBMOUNT);
        test(&mut guest, root.node, &path);
    });
    done.join().unwrap();
}

#[test]
#[ignore = "needs root"]
fn files_of_the_same_number_on_two_file_systems_are_two() {
    with_mounts(|guest, root, _| {
        let files = ["m1", "m2"].map(|name| {
            let mounted = guest.lookup(root, name).unwrap();
            assert_eq!(mounted.attr.flags, ATTR_SUBMOUNT);
            let file = guest.lookup(mounted.node, "f").unwrap();
            let open = guest.open(file.node, flags::RDONLY).unwrap();
            assert_eq!(std::io::read_to_string(&open.file).unwrap(), name);
            file
        });
        assert_eq!(files[0].attr.ino, files[1].attr.ino);
        assert_ne!(files[0].node, files[1].node);
        let plain = guest.lookup(root, "plain").unwrap();
        assert_eq!((plain.attr.flags, files[0].attr.flags), (0, 0));
    });
}

#[test]
#[ignore = "needs root"]
fn a_mount_is_entered_by_a_look_up_and_not_by_a_listing() {
    with_mounts(|guest, root, _| {
        let before = guest.server.nodes.count();
        for entry in guest.list(root, true).unwrap() {
            assert_eq!(entry.node != 0, entry.name == "plain", "{}", entry.name);
        }
        assert_eq!(guest.server.nodes.count(), before + 1);
        // A guest that cannot mount by itself sees directories.
        guest.init(7, 38, ALL_FLAGS & !init::SUBMOUNTS).unwrap();
        let root = guest.lookup(1, "s").unwrap();
        let mounted = guest.lookup(root.node, "m1").unwrap();
        assert_eq!((root.attr.flags, mounted.attr.flags), (0, 0));
        let listed = guest.list(root.node, true).unwrap();
        assert!(listed[2..].iter().all(|entry| entry.node != 0));
    });
}

#[test]
#[ignore = "needs root"]
fn nothing_is_moved_or_linked_between_mounts() {
    with_mounts(|guest, root, path| {
        let mounted = guest.lookup(root, "m1").unwrap().node;
        let file = guest.lookup(mounted, "f").unwrap().node;
        let moved = guest.rename((mounted, "f"), (root, "g"), 0);
        assert_eq!(moved, Err(Errno::XDEV));
        assert_eq!(guest.link(file, root, "g"), Err(Errno::XDEV));
        assert_eq!(guest.rmdir(root, "m1"), Err(Errno::BUSY));
        assert!(!path.join("g").exists());
    });
}
