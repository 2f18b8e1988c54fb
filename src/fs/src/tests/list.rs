//! Directories that are listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;

use protocol::fs::Ownership;
use protocol::lease::Word;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

use super::Shared;
use super::guest::{Dirent, Guest, say};

const SHARED: Word = Word::Shared { forgotten_ns: 0 };

#[test]
fn entries_have_the_types_and_numbers_that_their_attributes_have() {
    let (mut shared, lease) = Shared::leased();
    fs::create_dir(shared.path("d")).unwrap();
    fs::write(shared.path("f"), "").unwrap();
    symlink("x", shared.path("l")).unwrap();
    mknodat(CWD, shared.path("p"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let root = shared.guest.getattr(shared.root).unwrap();
    for plus in [false, true] {
        // With an entry comes its node where that may be remembered.
        say(&lease, if plus { Word::Alone } else { SHARED });
        let listed = shared.guest.list(shared.root, plus).unwrap();
        let names: Vec<_> = listed.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, [".", "..", "d", "f", "l", "p"]);
        assert_eq!((listed[0].ino, listed[0].node), (root.ino, 0));
        assert_eq!((listed[1].ino, listed[1].node), (1, 0));
        for entry in &listed[2..] {
            let found = shared.guest.lookup(shared.root, &entry.name).unwrap();
            assert_eq!(entry.ino, found.attr.ino);
            assert_eq!(entry.kind, found.attr.mode >> 12);
            assert_eq!(entry.node, if plus { found.node } else { 0 });
        }
    }
}

#[test]
fn every_entry_that_is_told_with_its_node_counts_as_a_look_up() {
    let (mut shared, lease) = Shared::leased();
    for number in 0..300 {
        fs::write(shared.path(&format!("f{number}")), "").unwrap();
    }
    let before = shared.guest.server.nodes.count();
    let listed = shared.guest.list(shared.root, true).unwrap();
    assert_eq!(listed.len(), 302);
    assert_eq!(shared.guest.server.nodes.count(), before + 300);
    for entry in &listed {
        shared.guest.forget(entry.node, 1);
    }
    assert_eq!(shared.guest.server.nodes.count(), before);
    // What could not be remembered is not looked up.
    say(&lease, SHARED);
    let listed = shared.guest.list(shared.root, true).unwrap();
    assert!(listed.len() == 302 && listed.iter().all(|entry| entry.node == 0));
    assert_eq!(shared.guest.server.nodes.count(), before);
}

#[test]
fn nothing_is_left_out_when_entries_go_away_meanwhile() {
    const COUNT: usize = 3000;
    let memory = std::path::Path::new("/dev/shm");
    let mut places = vec![tempfile::tempdir().unwrap()];
    places.extend(tempfile::tempdir_in(memory));
    for folder in places {
        let mut guest = Guest::new();
        guest.share("s", folder.path(), false);
        let root = guest.lookup(1, "s").unwrap().node;
        for number in 0..COUNT {
            fs::write(folder.path().join(format!("f{number}")), "").unwrap();
        }
        // As rm(1): remove what was read, then read on.
        let fh = guest.opendir(root).unwrap();
        let (mut offset, mut removed) = (0, 0);
        loop {
            let entries = guest.read_entries((root, fh), offset, 1000, removed % 2 == 0);
            let entries = entries.unwrap();
            let Some(last) = entries.last() else {
                break;
            };
            offset = last.off;
            for entry in entries.iter().filter(|entry| entry.name.starts_with('f')) {
                guest.unlink(root, &entry.name).unwrap();
                removed += 1;
            }
        }
        assert_eq!(removed, COUNT);
    }
}

#[test]
fn a_directory_can_be_read_again_from_any_entry() {
    let mut shared = Shared::new();
    for number in 0..500 {
        fs::write(shared.path(&format!("f{number}")), "").unwrap();
    }
    let root = shared.root;
    let fh = shared.guest.opendir(root).unwrap();
    let all: Vec<Dirent> = {
        let mut all: Vec<Dirent> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |last| last.off);
            let more = shared.guest.read_entries((root, fh), offset, 600, false);
            let more = more.unwrap();
            if more.is_empty() {
                break all;
            }
            all.extend(more);
        }
    };
    assert_eq!(all.len(), 502);
    for index in [0, 1, 77, 250, 499, 501] {
        let offset = if index == 0 { 0 } else { all[index - 1].off };
        let again = shared.guest.read_entries((root, fh), offset, 200, false);
        let again = again.unwrap();
        assert_eq!(again[..], all[index..index + again.len()]);
        assert!(!again.is_empty());
    }
    let tiny = shared.guest.read_entries((root, fh), 0, 20, false);
    assert_eq!(tiny, Err(Errno::INVAL));
    let beyond = shared.guest.read_entries((root, fh), u64::MAX, 4096, false);
    assert!(beyond.is_err() || beyond == Ok(Vec::new()));
}

#[test]
fn a_listing_is_no_longer_than_a_packet() {
    let mut shared = Shared::new();
    let long = "x".repeat(240);
    for number in 0..1000 {
        fs::write(shared.path(&format!("{long}{number}")), "").unwrap();
    }
    let root = shared.root;
    let fh = shared.guest.opendir(root).unwrap();
    let mut seen = BTreeSet::new();
    let mut offset = 0;
    loop {
        let entries = shared
            .guest
            .read_entries((root, fh), offset, u32::MAX, true)
            .unwrap();
        let Some(last) = entries.last() else {
            break;
        };
        offset = last.off;
        assert!(entries.len() * 392 < protocol::fs::MAX_MESSAGE_LEN);
        seen.extend(entries.into_iter().map(|entry| entry.name));
    }
    assert_eq!(seen.len(), 1002);
}

#[test]
fn nodes_that_there_is_no_room_for_are_listed_without() {
    let outer = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::write(outer.path().join(format!("f{number}")), "").unwrap();
    }
    let mut guest = Guest::silent(11, Ownership::Host);
    guest.init(7, 31, u32::MAX).unwrap();
    let _lease = guest.lease("s", outer.path());
    let root = guest.lookup(1, "s").unwrap().node;
    let listed = guest.list(root, true).unwrap();
    assert_eq!(listed.len(), 22);
    let with: BTreeMap<_, _> = listed
        .iter()
        .filter(|entry| entry.node != 0)
        .map(|entry| (&*entry.name, entry.node))
        .collect();
    assert_eq!(with.len(), 10);
    let without = listed
        .iter()
        .find(|entry| entry.node == 0 && entry.name.starts_with('f'))
        .unwrap();
    assert_eq!(guest.lookup(root, &without.name), Err(Errno::NFILE));
    // Nothing is made that could not be told of.
    assert_eq!(guest.mkdir(root, "new", 0o755), Err(Errno::NFILE));
    assert!(!outer.path().join("new").exists());
    let (_, node) = with.first_key_value().unwrap();
    guest.forget(*node, 1);
    assert!(guest.lookup(root, &without.name).is_ok());
}
