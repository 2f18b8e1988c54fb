//! Names, nodes and links.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::io::Errno;

use super::{Shared, flags};
use crate::abi::Opcode;
use crate::tests::guest::Body;

#[test]
fn a_file_is_found_with_the_hosts_attributes() {
    let mut shared = Shared::new();
    fs::write(shared.path("file"), "12345").unwrap();
    let meta = fs::metadata(shared.path("file")).unwrap();
    let entry = shared.guest.lookup(shared.root, "file").unwrap();
    assert_eq!(entry.attr.ino, meta.ino());
    assert_eq!((entry.attr.size, entry.attr.mode), (5, meta.mode()));
    assert_eq!((entry.attr.uid, entry.attr.gid), (meta.uid(), meta.gid()));
    assert_eq!(entry.attr.mtime.0, meta.mtime());
    assert_eq!(shared.guest.getattr(entry.node).unwrap(), entry.attr);
}

#[test]
fn hard_links_are_one_node() {
    let mut shared = Shared::new();
    fs::write(shared.path("a"), "").unwrap();
    fs::hard_link(shared.path("a"), shared.path("b")).unwrap();
    let a = shared.guest.lookup(shared.root, "a").unwrap();
    let b = shared.guest.lookup(shared.root, "b").unwrap();
    assert_eq!((a.node, a.attr.nlink), (b.node, 2));
    let c = shared.guest.link(a.node, shared.root, "c").unwrap();
    assert_eq!((c.node, c.attr.nlink), (a.node, 3));
    assert_eq!(fs::metadata(shared.path("c")).unwrap().ino(), a.attr.ino);
}

#[test]
fn a_node_is_forgotten_when_every_look_up_is() {
    let mut shared = Shared::new();
    fs::write(shared.path("a"), "").unwrap();
    let before = shared.guest.server.nodes.count();
    let node = shared.guest.lookup(shared.root, "a").unwrap().node;
    assert_eq!(shared.guest.lookup(shared.root, "a").unwrap().node, node);
    shared.guest.forget(node, 1);
    assert!(shared.guest.getattr(node).is_ok());
    shared.guest.forget(node, 1);
    assert_eq!(shared.guest.getattr(node), Err(Errno::STALE));
    assert_eq!(shared.guest.server.nodes.count(), before);
    let again = shared.guest.lookup(shared.root, "a").unwrap().node;
    assert_ne!(again, node);
    // More than there were.
    shared.guest.forget(again, u64::MAX);
    assert_eq!(shared.guest.getattr(again), Err(Errno::STALE));
    shared.guest.forget(again, 1);
    shared.guest.forget(1, u64::MAX);
    assert!(shared.guest.getattr(1).is_ok());
}

#[test]
fn many_are_forgotten_at_once() {
    let mut shared = Shared::new();
    let before = shared.guest.server.nodes.count();
    let mut body = Body::new().u32(20).u32(0);
    for number in 0..20 {
        let name = format!("f{number}");
        fs::write(shared.path(&name), "").unwrap();
        let node = shared.guest.lookup(shared.root, &name).unwrap().node;
        body = body.u64(node).u64(1);
    }
    assert_eq!(shared.guest.server.nodes.count(), before + 20);
    let request = shared.guest.request(Opcode::BATCH_FORGET, 0, &body);
    assert!(shared.guest.server.handle(&request).is_none());
    assert_eq!(shared.guest.server.nodes.count(), before);
}

#[test]
fn a_node_outlives_its_name_and_follows_its_file() {
    let mut shared = Shared::new();
    fs::create_dir(shared.path("d")).unwrap();
    fs::write(shared.path("d/a"), "data").unwrap();
    let node = shared.guest.walk(shared.root, "d/a").unwrap();
    fs::rename(shared.path("d"), shared.path("e")).unwrap();
    fs::rename(shared.path("e/a"), shared.path("b")).unwrap();
    let open = shared.guest.open(node, flags::RDONLY).unwrap();
    assert_eq!(std::io::read_to_string(&open.file).unwrap(), "data");
    fs::remove_file(shared.path("b")).unwrap();
    assert_eq!(shared.guest.getattr(node).unwrap().nlink, 0);
}

#[test]
fn links_are_read_and_never_followed() {
    let mut shared = Shared::new();
    symlink("../secret", shared.path("out")).unwrap();
    symlink("..", shared.path("up")).unwrap();
    symlink("/", shared.path("top")).unwrap();
    for (name, target) in [("out", "../secret"), ("up", ".."), ("top", "/")] {
        let link = shared.guest.lookup(shared.root, name).unwrap();
        assert_eq!(link.attr.mode & 0o170_000, 0o120_000, "{name}");
        assert_eq!(shared.guest.readlink(link.node).unwrap(), target);
        let opened = shared.guest.open(link.node, flags::RDONLY);
        assert_eq!(opened.unwrap_err(), Errno::LOOP);
        assert_eq!(shared.guest.opendir(link.node), Err(Errno::NOTDIR));
        for below in ["secret", "etc", "share"] {
            let found = shared.guest.lookup(link.node, below);
            assert_eq!(found, Err(Errno::NOTDIR), "{name}/{below}");
        }
        let made = shared.guest.mkdir(link.node, "made", 0o755);
        assert_eq!(made, Err(Errno::NOTDIR));
    }
    // A link that a guest creates a file through.
    let how = flags::WRONLY | flags::TRUNC;
    let created = shared.guest.create(shared.root, "out", how, 0o644);
    assert_eq!(created.unwrap_err(), Errno::LOOP);
    let secret = fs::read_to_string(shared.outer.path().join("secret"));
    assert_eq!(secret.unwrap(), "outside");
}

#[test]
fn a_directory_that_became_a_link_is_still_the_directory() {
    let mut shared = Shared::new();
    fs::create_dir(shared.path("d")).unwrap();
    let node = shared.guest.lookup(shared.root, "d").unwrap().node;
    fs::rename(shared.path("d"), shared.path("moved")).unwrap();
    symlink("..", shared.path("d")).unwrap();
    assert_eq!(shared.guest.lookup(node, "secret"), Err(Errno::NOENT));
    shared.guest.mkdir(node, "made", 0o755).unwrap();
    assert!(shared.path("moved/made").is_dir());
    let names: Vec<_> = shared.guest.list(node, false).unwrap();
    assert_eq!(names.len(), 3);
    // Looked up again, it is a link.
    let link = shared.guest.lookup(shared.root, "d").unwrap();
    assert_eq!(shared.guest.lookup(link.node, "secret"), Err(Errno::NOTDIR));
}

#[test]
fn a_directory_moved_out_of_the_share_leads_no_further_up() {
    let mut shared = Shared::new();
    fs::create_dir(shared.path("d")).unwrap();
    let node = shared.guest.lookup(shared.root, "d").unwrap().node;
    fs::rename(shared.path("d"), shared.outer.path().join("d")).unwrap();
    for name in ["..", "../secret", "."] {
        assert_eq!(shared.guest.lookup(node, name), Err(Errno::INVAL));
    }
}

#[test]
fn a_further_name_is_given_to_links_and_to_files_without_one() {
    let mut shared = Shared::new();
    let link = shared.guest.symlink(shared.root, "l", "nowhere").unwrap();
    shared.guest.link(link.node, shared.root, "m").unwrap();
    assert_eq!(
        fs::read_link(shared.path("m")).unwrap().to_str(),
        Some("nowhere")
    );
    let (temporary, _) = shared.guest.tmpfile(shared.root, flags::RDWR).unwrap();
    assert_eq!(temporary.attr.nlink, 0);
    let named = shared.guest.link(temporary.node, shared.root, "t").unwrap();
    assert_eq!((named.node, named.attr.nlink), (temporary.node, 1));
    let (kept, _) = shared
        .guest
        .tmpfile(shared.root, flags::RDWR | flags::EXCL)
        .unwrap();
    let named = shared.guest.link(kept.node, shared.root, "u");
    assert_eq!(named, Err(Errno::NOENT));
}
